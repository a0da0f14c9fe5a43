// SPDX-License-Identifier: MPL-2.0
//! The display that a started sink shows frames on: opened, planned for at new caps, waited for
//! while there is none, looked for on other connectors.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;

use super::{KmsFlipSink, lock};
use crate::display::prerolled::Prerolled;
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::crtc::{Observer, Report};
use crate::kmsflipsink::error::{KmsError, NotPresented};
use crate::kmsflipsink::head::Head;
use crate::kmsflipsink::import::Imports;
use crate::kmsflipsink::report;
use crate::kmsflipsink::stream::{Stream, Timing};
use crate::kmsflipsink::tune;
use crate::refresh;

/// What the sink holds from start to stop.
pub(super) struct Started {
    pub(super) head: Arc<Head>,
    pub(super) imports: Arc<Imports>,
    observer: Arc<SinkObserver>,
    /// How frames are shown; none before the first caps, and while there is no
    /// display, or the card is another program's, so that it cannot be known.
    pub(super) stream: Option<Arc<Stream>>,
    pub(super) waiting: Option<Waiting>,
    pub(super) prerolled: Prerolled,
}

impl Started {
    /// What the next frame needs: how frames are shown, and whether this one was shown already.
    /// `None` while that is not known.
    pub(super) fn begin_frame(
        &mut self,
        buffer: &gst::Buffer,
        is_rendered: bool,
    ) -> Option<(Arc<Stream>, bool)> {
        let stream = self.stream.clone()?;
        Some((stream, self.prerolled.is_repeated(buffer, is_rendered)))
    }

    /// Shows frames by `stream` from now on. Returns what it replaces, to be dropped without the lock.
    fn begin_stream(&mut self, stream: Arc<Stream>) -> (Option<Arc<Stream>>, Option<Waiting>) {
        self.observer.is_stale.store(false, Ordering::Release);
        self.prerolled.forget();
        (self.stream.replace(stream), self.waiting.take())
    }

    /// Shows nothing until there is a display. Returns what it replaces, as above.
    fn begin_waiting(&mut self, waiting: Waiting) -> (Option<Arc<Stream>>, Option<Waiting>) {
        self.observer.is_stale.store(false, Ordering::Release);
        self.prerolled.forget();
        (self.stream.take(), self.waiting.replace(waiting))
    }

    /// Frames are to be placed anew: the display is another.
    pub(super) fn is_stale(&self) -> bool {
        self.observer.is_stale.load(Ordering::Acquire)
    }
}

/// Caps that wait for a display to be shown on.
pub(super) struct Waiting {
    info: gst_video::VideoInfo,
    modifier: Option<u64>,
    /// The newest frame, to be shown as soon as there is one.
    missed: Option<Missed>,
    /// When other connectors are looked at again.
    next_look: Instant,
}

/// A frame that came while there was no display.
struct Missed {
    buffer: gst::Buffer,
    /// The base class rendered it; else it prerolled it, and renders it later.
    is_rendered: bool,
}

/// Between two looks at other connectors while there is no display.
const LOOK_ROUND: Duration = Duration::from_secs(1);

/// How long frames of these caps are shown for.
fn frame_time(info: &gst_video::VideoInfo) -> Duration {
    let (frames, seconds) = (info.fps().numer() as u128, info.fps().denom() as u128);
    refresh::period(refresh::rate_mhz(frames * 1000, seconds))
}

/// Brings what the card's thread saw to the element.
struct SinkObserver {
    sink: glib::WeakRef<crate::kmsflipsink::KmsFlipSink>,
    /// The display changed: frames are to be placed anew.
    is_stale: AtomicBool,
}

impl Observer for SinkObserver {
    fn report(&self, report: Report) {
        let Some(sink) = self.sink.upgrade() else {
            return;
        };
        if let Report::Plugged(_) = report {
            self.is_stale.store(true, Ordering::Release);
        }
        match report {
            Report::Plugged(_) | Report::MasterRegained => {
                sink.call_async(|sink| sink.imp().catch_up());
            }
            Report::Shown {
                running_time,
                late_ns,
                period_ns,
            } => {
                // Upstream may take its time over it, which the card's thread has not.
                if let Some(qos) = report::qos(running_time, late_ns, period_ns)
                    && sink.property("qos")
                {
                    sink.call_async(|sink| {
                        let _ = sink.sink_pad().push_event(qos);
                    });
                }
            }
            _ => {}
        }
        report::tell(&sink, &report);
    }
}

impl KmsFlipSink {
    pub(super) fn open(&self) -> Result<Started, KmsError> {
        let settings = lock(&self.settings).clone();
        settings.mode_request()?; // a word that is no mode need not wait for caps
        let observer = Arc::new(SinkObserver {
            sink: self.obj().downgrade(),
            is_stale: AtomicBool::new(false),
        });
        // SAFETY: the application keeps the fd open while the sink is in use, as
        // the property's blurb says; it is duplicated at once.
        let fd = (settings.fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(settings.fd) });
        let as_observer: Arc<dyn Observer> = observer.clone();
        let head = Head::open(&settings.criteria(), fd, settings.follow_vt, &as_observer)?;
        match tune::resolve(&head.device, &head.route, &settings.tuning(None)) {
            Ok((extras, before)) => head.set_extras(extras, before),
            Err(error) => {
                head.close(false);
                return Err(error);
            }
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
            observer,
            stream: None,
            waiting: None,
            prerolled: Prerolled::default(),
        })
    }

    /// Plans for new caps, or for a new display.
    fn plan(
        &self,
        info: &gst_video::VideoInfo,
        modifier: Option<u64>,
    ) -> Result<Arc<Stream>, KmsError> {
        let settings = lock(&self.settings).clone();
        let stopped = || KmsError::Property("the sink is not started".into());
        let (head, imports) = self
            .started(|started| (started.head.clone(), started.imports.clone()))
            .ok_or_else(stopped)?;
        let request = settings.mode_request()?;
        let tuning = settings.tuning(Some(info));
        let (extras, before) = tune::resolve(&head.device, &head.route, &tuning)?;
        head.set_extras(extras, before);
        let stream = Stream::new(
            &head,
            &imports,
            info,
            modifier,
            (request, &settings.mode),
            &settings.options(),
        )?;
        gst::info!(CAT, imp = self, "{}", stream.describe());
        Ok(Arc::new(stream))
    }

    /// Plans; or waits, saying so, for what keeps from it now and may pass: then false.
    pub(super) fn plan_or_wait(
        &self,
        info: &gst_video::VideoInfo,
        modifier: Option<u64>,
    ) -> Result<bool, KmsError> {
        let error = match self.plan(info, modifier) {
            Ok(stream) => {
                let old = self.started(|started| started.begin_stream(stream));
                drop(old);
                return Ok(true);
            }
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error),
        };
        let waiting = Waiting {
            info: info.clone(),
            modifier,
            missed: None,
            next_look: Instant::now() + LOOK_ROUND,
        };
        let old = self.started(|started| started.begin_waiting(waiting));
        if old.is_some_and(|(_, waited)| waited.is_none()) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::NotFound,
                ("{}", report::waiting(&error))
            );
        }
        Ok(false)
    }

    /// What was missed for want of a display is shown on the one that is there now.
    fn catch_up(&self) {
        let format = self.started(|started| {
            let waiting = started.waiting.as_ref()?;
            let missed = waiting.missed.as_ref();
            missed.map(|_| (waiting.info.clone(), waiting.modifier))
        });
        let Some((info, modifier)) = format.flatten() else {
            return;
        };
        let stream = match self.plan(&info, modifier) {
            Ok(stream) => stream,
            Err(error) => return gst::info!(CAT, imp = self, "still waiting: {error}"),
        };
        // Other memory may be shown without a copy now.
        self.adoption.restart();
        let missed = self.started(|started| {
            let (old, waiting) = started.begin_stream(stream.clone());
            let missed = waiting.and_then(|waiting| waiting.missed);
            if let Some(Missed {
                buffer,
                is_rendered,
            }) = &missed
            {
                started.prerolled.is_repeated(buffer, *is_rendered);
            }
            (missed, old)
        });
        if let Some((Some(missed), _)) = missed {
            let options = lock(&self.settings).options();
            let _ = stream.show(&missed.buffer, Timing::default(), &options);
        }
    }

    /// Makes the stream anew, if what is there now can show frames.
    pub(super) fn renew_stream(&self) -> Result<(), KmsError> {
        self.look_elsewhere()?;
        let format = match self.stream() {
            Some(stream) => Some(stream.format()),
            None => self
                .started(|started| {
                    let waiting = started.waiting.as_ref()?;
                    let head = &started.head;
                    // Nothing has changed as yet.
                    (head.is_plugged() && head.is_master())
                        .then(|| (waiting.info.clone(), waiting.modifier))
                })
                .flatten(),
        };
        if let Some((info, modifier)) = format
            && self.plan_or_wait(&info, modifier)?
        {
            // Other memory may be shown without a copy now.
            self.adoption.restart();
        }
        Ok(())
    }

    /// Goes to another connector if a display was plugged in there, and the user
    /// named none.
    fn look_elsewhere(&self) -> Result<(), KmsError> {
        let head = self.started(|started| {
            let waiting = started.waiting.as_mut()?;
            let now = Instant::now();
            let is_due = now >= waiting.next_look && !started.head.is_plugged();
            is_due.then(|| {
                waiting.next_look = now + LOOK_ROUND;
                started.head.clone()
            })
        });
        let settings = lock(&self.settings).clone();
        let Some(head) = head.flatten().filter(|_| settings.fd < 0) else {
            return Ok(());
        };
        if !head.is_lit_elsewhere(&settings.criteria()) {
            return Ok(());
        }
        let mut new = self.open()?;
        let old = self.started(|started| {
            new.waiting = started.waiting.take();
            std::mem::replace(started, new)
        });
        if let Some(old) = old {
            old.head.close(settings.restore_crtc);
        }
        Ok(())
    }

    /// There is nothing to show it on: not an error, and no reason to be faster.
    pub(super) fn miss(&self, buffer: &gst::Buffer, is_rendered: bool) -> Result<(), NotPresented> {
        let missed = self.started(|started| {
            let waiting = started.waiting.as_mut()?;
            let time = frame_time(&waiting.info);
            let old = waiting.missed.replace(Missed {
                buffer: buffer.clone(),
                is_rendered,
            });
            Some((started.head.clone(), time, old))
        });
        match missed.flatten() {
            Some((head, time, _)) => head.drop_waiting(time),
            None => Ok(()),
        }
    }
}
