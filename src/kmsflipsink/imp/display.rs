// SPDX-License-Identifier: MPL-2.0
//! The display of a started sink: opening it, and planning how it shows frames of new caps. `waiting` is about streams
//! without a display, `observer` about what the card's thread reports.

mod observer;
mod waiting;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_video::VideoOrientationMethod;

use super::{DRAIN_TIME, KmsFlipSink};
use crate::display::paused::is_paused;
use crate::display::prerolled::Prerolled;
use crate::display::presentation::Timing;
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::claimed_plane::Observer;
use crate::kmsflipsink::colour::Decides;
use crate::kmsflipsink::discovery::Route;
use crate::kmsflipsink::error::KmsError;
use crate::kmsflipsink::frame_caps::FrameCaps;
use crate::kmsflipsink::head::Head;
use crate::kmsflipsink::import::Imports;
use crate::kmsflipsink::input::Input;
use crate::kmsflipsink::navigation::Shown;
use crate::kmsflipsink::settings::Wishes;
use crate::kmsflipsink::stream::{Showing, Stream};
use crate::kmsflipsink::tune::{self, Tuning};
use crate::locks::lock;
use observer::SinkObserver;
use waiting::Waiting;

/// What the sink holds from start to stop.
pub(super) struct Started {
    pub(super) head: Arc<Head>,
    pub(super) imports: Arc<Imports>,
    /// The file that the application passed.
    pub(super) given: Option<Arc<OwnedFd>>,
    observer: Arc<SinkObserver>,
    /// How frames are shown. `None` before the first caps, and while no display is plugged in or another
    /// program has the card.
    pub(super) stream: Option<Arc<Stream>>,
    pub(super) waiting: Option<Waiting>,
    pub(super) prerolled: Prerolled,
    /// The KMS properties that are set, or will be with the next frame.
    wishes: Wishes,
    /// Whether the user has changed these properties since.
    are_wishes_stale: bool,
    /// How `stream` turns the picture.
    rotation: VideoOrientationMethod,
    /// The input devices, which are closed with the display.
    _input: Option<Input>,
}

impl Started {
    /// How frames are on the screen. `None` if nothing of them is visible.
    pub(super) fn shown(&self) -> Option<Shown> {
        let stream = self.stream.as_ref()?;
        let (placement, origin) = stream.shown()?;
        Some(Shown {
            placement,
            origin,
            size: (stream.caps().info.width(), stream.caps().info.height()),
            rotation: self.rotation,
        })
    }

    /// The stream that shows `buffer`, and whether this frame was already shown for a preroll. `None` while
    /// there is no stream.
    pub(super) fn begin_frame(
        &mut self,
        buffer: &gst::Buffer,
        is_rendered: bool,
    ) -> Option<(Arc<Stream>, bool)> {
        let stream = self.stream.clone()?;
        Some((stream, self.prerolled.is_repeated(buffer, is_rendered)))
    }

    /// Shows frames by `stream` from now on. The caller drops what was there before outside of the lock.
    fn begin_stream(&mut self, stream: Arc<Stream>) -> (Option<Arc<Stream>>, Option<Waiting>) {
        self.prerolled.forget();
        (self.stream.replace(stream), self.waiting.take())
    }

    /// Shows nothing until there is a display. The caller drops what was there before outside of the lock.
    fn begin_waiting(&mut self, waiting: Waiting) -> (Option<Arc<Stream>>, Option<Waiting>) {
        self.prerolled.forget();
        (self.stream.take(), self.waiting.replace(waiting))
    }

    /// Whether the frames of the stream still have these caps. If not, the next frame is planned anew, because planning for
    /// these caps may have changed the display.
    fn still_has(&self, caps: &FrameCaps) -> bool {
        let of_stream = self.stream.as_ref().map(|stream| stream.caps());
        let current = of_stream.or(self.waiting.as_ref().map(Waiting::caps));
        let is_same = current == Some(caps);
        if !is_same {
            self.make_stale();
        }
        is_same
    }

    /// Forgets the frame of the preroll, and gives up one that was to be shown on a display to come. The caller drops that
    /// outside of the lock.
    pub(super) fn forget_frames(&mut self) -> Option<gst::Buffer> {
        self.prerolled.forget();
        self.waiting.as_mut().and_then(Waiting::forget_missed)
    }

    /// Whether the display, or the rotation, has changed since frames were planned for it.
    fn is_stale(&self) -> bool {
        self.observer.is_stale()
    }

    /// Has the next frame planned anew.
    pub(super) fn make_stale(&self) {
        self.observer.set_stale(true);
    }

    /// Has the KMS properties of the settings set with the next frame.
    pub(super) fn make_wishes_stale(&mut self) {
        self.are_wishes_stale = true;
    }

    /// Whether nothing has changed since frames were planned.
    pub(super) fn is_current(&self) -> bool {
        !self.is_stale() && !self.are_wishes_stale
    }
}

/// Sets the KMS properties that the user asks for. The frames may need another plane than the one that the sink starts
/// on. So properties that this one lacks are an error only if no plane has them; otherwise `plan` sees to them.
fn tune_first(head: &Head, tuning: &Tuning) -> Result<(), KmsError> {
    let error = match tune::resolve(&head.device, &head.route, tuning, head.decides()) {
        Ok(resolved) => {
            head.tune(resolved);
            return Ok(());
        }
        Err(error @ KmsError::Property(_)) => error,
        Err(error) => return Err(error),
    };
    let planes = head.usable_planes();
    let mut others = planes
        .iter()
        .filter(|plane| plane.id != head.route.kms_plane);
    let has_all = others.any(|plane| {
        let route = Route {
            kms_plane: plane.id,
            ..head.route
        };
        tune::resolve(&head.device, &route, tuning, head.decides()).is_ok()
    });
    match has_all {
        true => Ok(()),
        false => Err(error),
    }
}

impl KmsFlipSink {
    pub(super) fn open(&self) -> Result<Started, KmsError> {
        let settings = lock(&self.settings).clone();
        settings.mode_request()?; // a word that is no mode need not wait for caps
        let observer = Arc::new(SinkObserver::new(&self.obj()));
        let given = self.given_card()?;
        let fd = given.as_ref().map(|fd| fd.as_fd());
        let input = self.open_input()?;
        let as_observer: Arc<dyn Observer> = observer.clone();
        let head = Head::open(&settings.criteria(), fd, settings.follow_vt, &as_observer)?;
        head.set_standby(settings.standby());
        // What the tags ask for is seen to by `plan`, which goes without what the plane cannot do.
        let rotation = settings.rotation(VideoOrientationMethod::Identity);
        let wishes = settings.wishes();
        if let Err(error) = tune_first(&head, &wishes.tuning(None, rotation)) {
            head.close(false);
            return Err(error);
        }
        gst::info!(
            CAT,
            imp = self,
            "{} ({}), connector {}, CRTC {}, {:?} plane {}",
            head.device.path,
            head.device.driver,
            head.connector_name,
            head.route.crtc,
            head.route.kind,
            head.route.kms_plane
        );
        Ok(Started {
            imports: Arc::new(Imports::new(head.device.clone())),
            head: Arc::new(head),
            given,
            observer,
            stream: None,
            waiting: None,
            prerolled: Prerolled::default(),
            wishes,
            are_wishes_stale: false,
            rotation,
            _input: input,
        })
    }

    /// Plans how frames of `caps` are shown: after new caps, on a new display, or with another rotation.
    fn plan(&self, caps: &FrameCaps) -> Result<Arc<Stream>, KmsError> {
        // A display that comes from now on makes the plan stale, also before it is made. So does a rotation.
        self.started(|started| started.observer.set_stale(false));
        self.go_to_plane_for(caps)?;
        let rotation = self.rotation();
        let error = match self.plan_turned(caps, rotation) {
            Err(error @ (KmsError::Property(_) | KmsError::Refused { .. }))
                if rotation != VideoOrientationMethod::Identity && !error.may_pass() =>
            {
                error
            }
            planned => return planned,
        };
        // Most planes cannot turn anything. A stream that only asks for it by its tags is shown all the same.
        if self.rotate_method() != VideoOrientationMethod::Auto {
            return Err(error);
        }
        let planned = self.plan_turned(caps, VideoOrientationMethod::Identity);
        if planned.is_ok() && lock(&self.orientation).is_to_warn() {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("the stream's tag image-orientation asks to turn the picture, which is shown as it is: {error}; \
                     put videoflip video-direction=auto before the sink")
            );
        }
        planned
    }

    /// Goes to another plane of the CRTC if the sink's own does not show the format.
    fn go_to_plane_for(&self, caps: &FrameCaps) -> Result<(), KmsError> {
        // Another sink may take the plane first. Then there are fewer planes at the next try.
        const N_TRIES: usize = 8;
        for _ in 0..N_TRIES {
            let Some(head) = self.started(|started| started.head.clone()) else {
                break;
            };
            let Some(plane) = head.plane_needed(caps)? else {
                break;
            };
            head.wait_idle(DRAIN_TIME);
            let id = plane.id;
            let is_moved = self.started(|started| {
                let moved = started.head.moved(plane).map(Arc::new);
                moved.map(|moved| started.head = moved).is_some()
            });
            if is_moved == Some(true) {
                let format = caps.format_name();
                gst::info!(CAT, imp = self, "plane {id} shows {format}");
                break;
            }
        }
        Ok(())
    }

    fn plan_turned(
        &self,
        caps: &FrameCaps,
        rotation: VideoOrientationMethod,
    ) -> Result<Arc<Stream>, KmsError> {
        let settings = lock(&self.settings).clone();
        let stopped = || KmsError::Property("the sink is not started".into());
        let (head, imports, wishes) = self
            .started(|started| {
                started.rotation = rotation;
                (
                    started.head.clone(),
                    started.imports.clone(),
                    started.wishes.clone(),
                )
            })
            .ok_or_else(stopped)?;
        let request = settings.mode_request()?;
        let stream = |tuning: &Tuning, decides| {
            let resolved = tune::resolve(&head.device, &head.route, tuning, decides)?;
            if let Some(Err(reason)) = resolved.variable_refresh {
                self.warn_without("variable-refresh", reason);
            }
            head.tune(resolved);
            Stream::new(
                &head,
                &imports,
                caps,
                (request, &settings.mode),
                &settings.options(),
                tune::is_turned(rotation),
            )
        };
        let mut tuning = wishes.tuning(Some(caps), rotation);
        let decides = head.decides();
        let mut planned = stream(&tuning, decides);
        // A picture whose colours the display is told wrongly, or at a steady rate, is better than none.
        let has_variable_refresh = head.has_variable_refresh();
        let lesser = [
            (true, Decides::Nobody),
            (false, decides),
            (false, Decides::Nobody),
        ];
        for (keeps_rate_variable, decides) in lesser {
            let is_refused =
                matches!(&planned, Err(error @ KmsError::Refused { .. }) if !error.may_pass());
            if !is_refused || !(keeps_rate_variable || has_variable_refresh) {
                break;
            }
            tuning.variable_refresh &= keeps_rate_variable;
            planned = stream(&tuning, decides).or(planned);
        }
        let stream = planned?;
        if has_variable_refresh && !tuning.variable_refresh {
            self.warn_without("variable-refresh", "the driver refuses it");
        }
        gst::info!(CAT, imp = self, "{}", stream.describe());
        self.follow_pace();
        Ok(Arc::new(stream))
    }

    fn warn_without(&self, property: &'static str, reason: &str) {
        if let Some(observer) = self.started(|started| started.observer.clone()) {
            observer.warn_without(&self.obj(), property, reason);
        }
    }

    /// Has frames wait for the vertical blank or not, as `tearing` says, and tells the pipeline how long the display
    /// takes.
    pub(super) fn follow_pace(&self) {
        let may_tear = lock(&self.settings).tearing;
        let Some(head) = self.started(|started| started.head.clone()) else {
            return;
        };
        if let Err(reason) = head.allow_tearing(may_tear) {
            self.warn_without("tearing", reason);
        }
        self.note_display_delay();
    }

    /// Tells the pipeline how long the display takes, once its mode is known.
    fn note_display_delay(&self) {
        let head = self.started(|started| started.head.clone());
        if let Some(delay) = head.and_then(|head| head.display_delay()) {
            self.render_delay.set(&*self.obj(), delay);
        }
    }

    /// Sets the KMS properties that the user has changed, and plans anew if the display or the rotation has changed, or
    /// if there is no stream yet.
    pub(super) fn apply_changes(&self) -> Result<(), KmsError> {
        self.retune();
        let is_stale = |started: &mut Started| started.is_stale() || started.stream.is_none();
        match self.started(is_stale) {
            Some(true) => self.renew_stream(),
            _ => Ok(()),
        }
    }

    /// Sets the KMS properties that the user has changed with the next frame. If that cannot be, warns, and leaves all of
    /// them as they are.
    fn retune(&self) {
        let begun = self.started(|started| {
            std::mem::take(&mut started.are_wishes_stale).then(|| {
                let stream = started.stream.clone();
                (started.head.clone(), stream, started.rotation)
            })
        });
        let Some((head, stream, rotation)) = begun.flatten() else {
            return;
        };
        // Read after `are_wishes_stale`, so that a change from now on is not missed.
        let wishes = lock(&self.settings).wishes();
        // Frames that were handed over before are shown as they were planned.
        head.wait_idle(DRAIN_TIME);
        let caps = stream.as_ref().map(|stream| stream.caps());
        let tuning = wishes.tuning(caps, rotation);
        let stand_in = stream.as_ref().and_then(|stream| stream.stand_in());
        let tuned = tune::resolve(&head.device, &head.route, &tuning, head.decides())
            .and_then(|resolved| head.retune(resolved, stand_in));
        match tuned {
            Ok(()) => {
                self.started(|started| started.wishes = wishes);
            }
            Err(error) => gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("zpos, colour balance, plane-properties, connector-properties and crtc-properties stay as they were: {error}")
            ),
        }
    }

    /// Has a change of the settings seen although no frame comes: in PAUSED, shows the last frame again.
    pub(super) fn show_change(&self) {
        let sink = self.obj();
        if is_paused(&*sink) {
            sink.call_async(|sink| sink.imp().show_again());
        }
    }

    /// Shows the last frame again: its sample with the settings of now, or, if the base class keeps none, what is on the
    /// screen.
    pub(super) fn show_again(&self) {
        // While playing, the streaming thread sees to changes.
        if is_paused(&*self.obj())
            && let Err(error) = self.apply_changes()
        {
            gst::warning!(CAT, imp = self, "the next frame will fail: {error}");
            self.started(|started| started.make_stale());
            return;
        }
        let stream = self.stream();
        let Some((stream, head)) = stream.zip(self.started(|started| started.head.clone())) else {
            return;
        };
        // Read before the sample, which the base class replaces before it has the next frame shown.
        let newest = head.newest();
        let sample = self.obj().last_sample();
        let is_of_stream = |sample: &gst::Sample| {
            let caps = sample.caps();
            caps.and_then(FrameCaps::parse).as_ref() == Some(stream.caps())
        };
        let sample = sample.filter(is_of_stream);
        let shown = match sample.as_ref().and_then(|sample| sample.buffer_owned()) {
            Some(buffer) => {
                let again = Showing {
                    timing: Timing::default(),
                    repeats: Some(newest),
                };
                let options = lock(&self.settings).options();
                stream.show(&buffer, again, &options)
            }
            None => head.repeat(),
        };
        if let Err(error) = shown {
            gst::debug!(
                CAT,
                imp = self,
                "the last frame is not shown again: {error:?}"
            );
        }
    }

    /// Notifies `display-width` and `display-height` if the mode has changed.
    pub(super) fn note_screen(&self) {
        let head = self.started(|started| started.head.clone());
        let size = head.and_then(|head| head.screen()).unwrap_or_default();
        let old = std::mem::replace(&mut *lock(&self.screen), size);
        if old.0 != size.0 {
            self.obj().notify("display-width");
        }
        if old.1 != size.1 {
            self.obj().notify("display-height");
        }
    }

    /// Plans anew for the display and the rotation of now, if the display can show frames.
    fn renew_stream(&self) -> Result<(), KmsError> {
        self.look_elsewhere()?;
        // Frames that were placed by the old plan are shown first, because the new one turns the plane.
        let head = self.started(|started| started.stream.is_some().then(|| started.head.clone()));
        if let Some(head) = head.flatten() {
            head.wait_idle(DRAIN_TIME);
        }
        let caps = match self.stream() {
            Some(stream) => Some(stream.caps().clone()),
            None => self
                .started(|started| {
                    let waiting = started.waiting.as_ref()?;
                    let head = &started.head;
                    // Without a display, or without the card, planning would fail as before.
                    (head.is_plugged() && head.is_master()).then(|| waiting.caps().clone())
                })
                .flatten(),
        };
        if let Some(caps) = caps
            && self.plan_again_or_wait(&caps)?
        {
            // The new display may show other memory without a copy.
            self.adoption.restart();
        }
        Ok(())
    }
}
