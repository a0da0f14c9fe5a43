// SPDX-License-Identifier: MPL-2.0
//! Virtual methods and properties.
//!
//! The locks `settings` (copied at start), `state` and `counters` are never held together. Under
//! none of them does the element push, post, wait or make a system call.
#![allow(missing_docs)] // for the derived getters and setters, which the blurbs describe
use super::CAT;
use super::error::ScreenError;
use super::screen::Options;
use super::session::{NotShown, Session, Written};
use super::stats::{self, Counters};
use super::stream::Stream;
use super::vsync::Vsync;
use crate::adoption::Adoption;
use crate::display::area::{Rect, RenderRectangle};
use crate::display::frame_log::{Offer, POOL_REMEDY};
use crate::display::paused::is_paused;
use crate::display::prerolled::{self, Prerolled};
use crate::display::presentation::{Presentation, RenderDelay, Timing};
use crate::interfaces::{VideoOverlay, VideoOverlayImpl};
use crate::locks::lock;
use crate::negotiation::{self, Refusals};
use crate::structure_property::{StructureProperty, in_one_line};
use crate::sys::clock::monotonic_ns;
use crate::sys::vt_guard::VtSwitch;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::subclass::prelude::*;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

#[derive(Clone, Debug)]
struct Settings {
    device: Option<PathBuf>,
    vsync: Vsync,
    fb_pages: u32,
    clear: bool,
    restore: bool,
    render_rectangle: RenderRectangle,
    post_presentation_messages: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            device: None,
            vsync: Vsync::Auto,
            fb_pages: 0,
            clear: true,
            restore: true,
            render_rectangle: RenderRectangle::default(),
            post_presentation_messages: false,
        }
    }
}

#[derive(Default)]
enum State {
    #[default]
    Stopped,
    Started {
        session: Arc<Session>,
        stream: Option<Arc<Stream>>,
        prerolled: Prerolled,
    },
}

#[derive(Default, glib::Properties)]
#[properties(wrapper_type = super::FbPanSink)]
pub struct FbPanSink {
    #[property(name = "device", get, set, type = Option<PathBuf>, member = device, nick = "Device",
        blurb = "Framebuffer device (default: $FRAMEBUFFER, else the first /dev/fb* that can be used)")]
    #[property(name = "vsync", get, set, type = Vsync, member = vsync, nick = "Vertical sync",
        blurb = "How it is known that a frame is on screen and the one before may be overwritten", builder(Vsync::Auto))]
    #[property(name = "fb-pages", get, set, type = u32, member = fb_pages, nick = "Framebuffer pages",
        blurb = "Screenfuls of memory to pan between, as far as the driver has them (0 = as many as are useful; 1 = draw on the visible one)",
        minimum = 0, maximum = 64, default = 0)]
    #[property(name = "clear", get, set, type = bool, member = clear, nick = "Clear",
        blurb = "Paint black what frames do not cover, and the screen at the end", default = true)]
    #[property(name = "restore", get, set, type = bool, member = restore, nick = "Restore",
        blurb = "Put mode, offsets and console back at the end (false leaves the last frame on screen, and the console in graphics mode so that it stays there)", default = true)]
    #[property(name = "post-presentation-messages", get, set, type = bool, member = post_presentation_messages, nick = "Post presentation messages",
        blurb = "Post an element message with the times of each frame that was shown", default = false)]
    settings: Mutex<Settings>,

    #[property(name = "render-rectangle", get = Self::render_rectangle, set = Self::set_render_rectangle, type = gst::Array,
        nick = "Render rectangle", blurb = "Part of the screen for frames, <x, y, width, height>; frames are centred in it, never scaled")]
    #[property(name = "pool", get = Self::pool_in_a_line, type = Option<String>, nick = "Pool",
        blurb = "The pool that was offered to upstream last, and what it holds, in one line, as graphs of the pipeline show it")]
    #[property(name = "stats", get = Self::stats, type = StructureProperty, override_class = gst_base::BaseSink)]
    _computed: (),

    state: Mutex<State>,
    /// True while the base class renders a frame, false while it prerolls one.
    is_rendering: AtomicBool,
    counters: Mutex<Arc<Counters>>,
    refusals: Refusals,
    adoption: Adoption,
    render_delay: RenderDelay,
}

/// The value of `max-lateness` that has all frames shown.
const ANY_LATENESS: i64 = -1;
/// A display with deferred I/O may take longer for a frame than the frame lasts. The video would then become slow, so
/// late frames are dropped, as other video sinks do.
const DEFERRED_MAX_LATENESS_NS: i64 = 20_000_000;

impl FbPanSink {
    fn render_rectangle(&self) -> gst::Array {
        lock(&self.settings).render_rectangle.to_property()
    }

    fn set_render_rectangle(&self, value: gst::Array) {
        let Some(rectangle) = RenderRectangle::of_property(&value, &*self.obj(), *CAT) else {
            return;
        };
        let was = std::mem::replace(&mut lock(&self.settings).render_rectangle, rectangle);
        if was != rectangle {
            self.move_frames();
            let sink = self.obj();
            if is_paused(&*sink) {
                sink.call_async(|sink| sink.imp().show_again());
            }
        }
    }

    /// Shows the last frame again. If it is to be at another place now, that is done in PAUSED alone, by a copy: while
    /// playing, the next frame comes soon.
    fn show_again(&self) {
        let (Some(session), Some(stream)) = (self.session(), self.stream()) else {
            return;
        };
        let Some(buffer) = session.latest() else {
            return;
        };
        // The copy of a part of a frame stays as it is until the next frame.
        let meta = buffer.meta::<gst_video::VideoMeta>();
        if meta.is_some_and(|meta| (meta.width(), meta.height()) != stream.size()) {
            return;
        }
        let part = session.part(&stream, &buffer);
        let written = session.locate(&stream, &buffer);
        let shown = match written {
            Written::InPlace(fb_page) => {
                session.show_again(&stream, fb_page);
                Ok(())
            }
            _ if !is_paused(&*self.obj()) => Ok(()),
            _ => session
                .put_in_place(&stream, &part, &buffer, written)
                .and_then(|frame| {
                    frame.map_or(Ok(()), |frame| {
                        session.show(&part, &frame, Timing::default())
                    })
                }),
        };
        if let Err(NotShown::Failed(error)) = shown {
            gst::warning!(CAT, imp = self, "the last frame is not moved: {error}");
        }
    }

    /// Moves frames to the new `render-rectangle`. They are copied until upstream uses a pool
    /// whose buffers start at the new place.
    fn move_frames(&self) {
        let (Some(session), Some(stream)) = (self.session(), self.stream()) else {
            return;
        };
        let placed = self
            .area(&session)
            .ok()
            .and_then(|area| Some((session.place(stream.info(), area)?, area)));
        if let Some((placement, area)) = placed {
            self.replace_stream(stream.moved_to(placement, area));
        }
        // Makes upstream negotiate caps and pool again.
        let _ = self
            .obj()
            .sink_pad()
            .push_event(gst::event::Reconfigure::new());
    }

    fn replace_stream(&self, new: Stream) {
        let old = match &mut *lock(&self.state) {
            State::Started {
                stream, prerolled, ..
            } => {
                prerolled.forget(); // the frame has to be shown again, at its new place
                stream.replace(Arc::new(new))
            }
            State::Stopped => None,
        };
        drop(old); // deactivates its pool, which must not happen under the lock
    }

    fn pool_in_a_line(&self) -> Option<String> {
        self.adoption.pool_in_a_line()
    }

    fn stats(&self) -> StructureProperty {
        let mut structure = self.obj().upcast_ref::<gst_base::BaseSink>().stats();
        lock(&self.counters).clone().add_to(&mut structure);
        if let Some(session) = self.session() {
            stats::add_device(session.screen(), session.address(), &mut structure);
        }
        structure.into()
    }

    fn open(&self) -> Result<(), ScreenError> {
        let settings = lock(&self.settings).clone();
        let options = Options {
            device: settings.device,
            vsync: settings.vsync,
            fb_pages: settings.fb_pages as usize,
            clear: settings.clear,
            restore: settings.restore,
        };
        let counters = Arc::new(Counters::default());
        *lock(&self.counters) = counters.clone();
        let sink = self.obj().downgrade();
        let on_error = move |error: ScreenError| {
            if let Some(sink) = sink.upgrade() {
                sink.imp().post_error_message(error_message(&error));
            }
        };
        let sink = self.obj().downgrade();
        let on_terminal = move |switch| {
            if let Some(sink) = sink.upgrade() {
                sink.imp().tell(switch);
            }
        };
        let sink = self.obj().downgrade();
        let on_shown = move |presentation: Presentation| {
            if let Some(sink) = sink.upgrade()
                && lock(&sink.imp().settings).post_presentation_messages
            {
                presentation.post(&sink, monotonic_ns());
            }
        };
        let session = Session::start(&options, counters, on_error, on_terminal, on_shown)?;
        self.area(&session)?;
        if session.screen().has_deferred_io() && self.obj().max_lateness() == ANY_LATENESS {
            self.obj().set_max_lateness(DEFERRED_MAX_LATENESS_NS);
        }
        *lock(&self.state) = State::Started {
            session: Arc::new(session),
            stream: None,
            prerolled: Prerolled::default(),
        };
        Ok(())
    }

    /// Posts an element message that the screen was lost to another virtual terminal or regained.
    fn tell(&self, switch: VtSwitch) {
        let (event, detail) = match switch {
            VtSwitch::Release => (
                "vt-lost",
                "another virtual terminal is in the foreground; frames are dropped",
            ),
            VtSwitch::Acquired => (
                "vt-regained",
                "our virtual terminal is in the foreground again",
            ),
        };
        let structure = gst::Structure::builder("fbpansink")
            .field("event", event)
            .field("detail", detail)
            .build();
        let message = gst::message::Element::builder(structure).src(&*self.obj());
        let _ = self.obj().post_message(message.build());
    }

    /// Ends the session: stops its threads and restores the mode.
    fn close(&self) {
        let numbers = [
            "shown",
            "zero-copy",
            "copied",
            "repeated",
            "dropped-no-page",
            "dropped-vt-away",
            "dropped-memory-freed",
            "path",
        ];
        let stats = in_one_line(&self.stats(), &numbers);
        let has_deferred_io = |session: Arc<Session>| session.screen().has_deferred_io();
        if self.session().is_some_and(has_deferred_io)
            && self.obj().max_lateness() == DEFERRED_MAX_LATENESS_NS
        {
            self.obj().set_max_lateness(ANY_LATENESS);
        }
        let state = std::mem::take(&mut *lock(&self.state));
        if matches!(state, State::Started { .. }) {
            gst::info!(CAT, imp = self, "{stats}");
        }
        drop(state);
    }

    /// Posts a warning if frames are copied and the application has not been told yet.
    fn tell_of_copies(&self, session: &Session) {
        if let Some(copying) = session.log().copying_to_tell() {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("{copying}; {POOL_REMEDY}")
            );
        }
    }

    fn session(&self) -> Option<Arc<Session>> {
        match &*lock(&self.state) {
            State::Stopped => None,
            State::Started { session, .. } => Some(session.clone()),
        }
    }

    fn stream(&self) -> Option<Arc<Stream>> {
        match &*lock(&self.state) {
            State::Stopped => None,
            State::Started { stream, .. } => stream.clone(),
        }
    }

    fn area(&self, session: &Session) -> Result<Rect, ScreenError> {
        let rectangle = lock(&self.settings).render_rectangle;
        session.screen().area(rectangle)
    }

    fn place(&self, session: &Session, caps: &gst::CapsRef) -> Result<Stream, gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(caps)
            .map_err(|_| gst::loggable_error!(CAT, "not raw video: {caps}"))?;
        let area = self
            .area(session)
            .map_err(|e| gst::loggable_error!(CAT, "{e}"))?;
        let placement = session.place(&info, area).ok_or_else(|| {
            let screen = session.screen();
            gst::loggable_error!(
                CAT,
                "{} shows {} frames of up to {}x{}, not {caps}; put videoconvert and videoscale before it",
                screen.path().display(),
                screen.format(),
                area.width,
                area.height
            )
        })?;
        Ok(Stream::new(info, placement, area))
    }

    fn is_open(&self) -> bool {
        self.session().is_some()
    }

    fn timing(&self, buffer: &gst::BufferRef) -> Timing {
        let is_rendered = self.is_rendering.load(Ordering::Relaxed);
        Timing::of(&*self.obj(), buffer, is_rendered, monotonic_ns())
    }

    /// The session, the stream, and whether this frame was already shown for a preroll. Takes the
    /// lock once. `None` before caps are set.
    fn begin_frame(&self, buffer: &gst::Buffer) -> Option<(Arc<Session>, Arc<Stream>, bool)> {
        match &mut *lock(&self.state) {
            State::Started {
                session,
                stream: Some(stream),
                prerolled,
            } => {
                let is_repeated =
                    prerolled.is_repeated(buffer, self.is_rendering.load(Ordering::Relaxed));
                Some((session.clone(), stream.clone(), is_repeated))
            }
            _ => None,
        }
    }

    fn with_prerolled(&self, change: impl FnOnce(&mut Prerolled)) {
        if let State::Started { prerolled, .. } = &mut *lock(&self.state) {
            change(prerolled);
        }
    }
}

/// The GStreamer error for each of our errors.
fn error_message(error: &ScreenError) -> gst::ErrorMessage {
    let text = error.to_string();
    match error {
        ScreenError::NoneUsable(_) => gst::error_msg!(gst::ResourceError::NotFound, ("{text}")),
        ScreenError::Open { source, .. } => match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                gst::error_msg!(gst::ResourceError::NotFound, ("{text}"))
            }
            Some(libc::EACCES | libc::EPERM) => {
                gst::error_msg!(gst::ResourceError::NotAuthorized, ("{text}"))
            }
            Some(libc::EBUSY) => gst::error_msg!(gst::ResourceError::Busy, ("{text}")),
            _ => gst::error_msg!(gst::ResourceError::OpenReadWrite, ("{text}")),
        },
        ScreenError::Call { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
            gst::error_msg!(gst::ResourceError::Busy, ("{text}"))
        }
        ScreenError::Call { .. } | ScreenError::ModeChanged { .. } => {
            gst::error_msg!(gst::ResourceError::Write, ("{text}"))
        }
        ScreenError::Format { .. }
        | ScreenError::TooSmall { .. }
        | ScreenError::OutsideScreen { .. } => {
            gst::error_msg!(gst::ResourceError::Settings, ("{text}"))
        }
        ScreenError::Thread(_) | ScreenError::Copy(_) | ScreenError::Pool(_) => {
            gst::error_msg!(gst::ResourceError::Failed, ("{text}"))
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for FbPanSink {
    const NAME: &'static str = "GstFbPanSink";
    // Another copy of this library may be in the process: see src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::FbPanSink;
    type ParentType = gst_video::VideoSink;
    type Interfaces = (VideoOverlay,);
}

impl VideoOverlayImpl for FbPanSink {
    fn expose(&self) {
        self.show_again();
    }

    fn set_render_rectangle(&self, rectangle: [i32; 4]) {
        let rectangle = gst::Array::new(rectangle);
        self.obj().set_property("render-rectangle", rectangle);
    }
}

#[glib::derived_properties]
impl ObjectImpl for FbPanSink {
    fn constructed(&self) {
        self.parent_constructed();
        // The last sample would keep a fb_page from upstream. If there is only one, upstream
        // would wait for it for ever.
        self.obj().set_property("enable-last-sample", false);
        negotiation::watch(&*self.obj(), "fbpansink", |sink| {
            let sink = sink.imp();
            sink.is_open().then(|| sink.caps(None)).flatten()
        });
        // A late frame is in its fb_page already. Showing it costs microseconds, so dropping it
        // saves nothing. QoS events still tell upstream that frames are late.
        self.obj().set_max_lateness(ANY_LATENESS);
    }
}

impl GstObjectImpl for FbPanSink {}

impl ElementImpl for FbPanSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Framebuffer pan sink",
                "Sink/Video",
                "Shows video on a Linux framebuffer without a copy: upstream writes into its pages, FBIOPAN_DISPLAY shows them",
                "The gst-plugin-physmem developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst_video::VideoCapsBuilder::new()
                .format_list(super::formats::ALL.iter().copied())
                .build();
            gst::PadTemplate::new(
                "sink",
                gst::PadDirection::Sink,
                gst::PadPresence::Always,
                &caps,
            )
            .into_iter()
            .collect()
        });
        &TEMPLATES
    }

    // The device is opened here and not in start(), because BaseSink posts a second error if start() fails.
    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady
            && let Err(error) = self.open()
        {
            self.post_error_message(error_message(&error));
            return Err(gst::StateChangeError);
        }
        let changed = self.parent_change_state(transition);
        let opened_in_vain = transition == gst::StateChange::NullToReady && changed.is_err();
        if transition == gst::StateChange::ReadyToNull || opened_in_vain {
            self.close();
        }
        changed
    }
}

impl BaseSinkImpl for FbPanSink {
    fn caps(&self, filter: Option<&gst::Caps>) -> Option<gst::Caps> {
        let template = || self.obj().sink_pad().pad_template_caps();
        let caps = match self.session() {
            Some(session) => self
                .area(&session)
                .map_or_else(|_| template(), |area| session.caps(area)),
            None => template(),
        };
        let Some(filter) = filter else {
            return Some(caps);
        };
        let common = filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First);
        if common.is_empty() && self.is_open() {
            let name = "fbpansink";
            self.refusals
                .note(self.obj().upcast_ref(), name, filter, &caps);
        }
        Some(common)
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let session = self
            .session()
            .ok_or_else(|| gst::loggable_error!(CAT, "caps before start"))?;
        let stream = self.place(&session, caps)?;
        gst::debug!(CAT, imp = self, "{caps}: {} of the screen", stream.frame());
        let screen = session.screen();
        let was = self.stream().map(|stream| stream.frame());
        if screen.fb_pages() == 1 && was.is_none() {
            let then = match screen.is_drawn_on() {
                true => "frames will tear",
                false => "frames are copied and may tear",
            };
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                (
                    "{} has one fb_page only, {then}: {}",
                    screen.path().display(),
                    screen.fb_pages_note()
                )
            );
        }
        self.replace_stream(stream);
        self.render_delay.set(&*self.obj(), session.display_delay());
        session.log().offer(Offer::NotAsked);
        self.adoption.restart();
        Ok(())
    }

    fn propose_allocation(
        &self,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        let (caps, need_pool) = query.get_owned();
        let caps =
            caps.ok_or_else(|| gst::loggable_error!(CAT, "an ALLOCATION query without caps"))?;
        let session = self
            .session()
            .ok_or_else(|| gst::loggable_error!(CAT, "an ALLOCATION query before start"))?;
        let placement = self.place(&session, &caps)?.placement();
        session.drain();
        let is_deferred = session.screen().has_deferred_io();
        let offers_pool = need_pool && !is_deferred;
        if offers_pool {
            let (pool, min, max) = session
                .pool(&caps, placement)
                .ok_or_else(|| gst::loggable_error!(CAT, "no pool for {caps}"))?;
            query.add_allocation_pool(Some(&pool), placement.layout.size_bytes as u32, min, max);
        }
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        // An element that crops does it in the fb_page. If this was announced, it would leave that to the sink, which
        // had to copy then. With deferred I/O, the sink copies anyway.
        if is_deferred {
            query.add_allocation_meta::<gst_video::VideoCropMeta>(None);
        }
        self.adoption.answered(offers_pool);
        self.adoption.offers(query);
        session.log().offer(match (need_pool, offers_pool) {
            (true, true) => Offer::Made,
            (true, false) => Offer::None,
            (false, _) => Offer::NotWanted,
        });
        Ok(())
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryView::Drain(_) = query.view()
            && let Some(session) = self.session()
        {
            session.drain();
        }
        BaseSinkImplExt::parent_query(self, query)
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.type_() {
            gst::EventType::FlushStop => {
                self.with_prerolled(Prerolled::forget);
                self.adoption.flushed();
            }
            // The base class posts EOS only after the last frame is on screen.
            gst::EventType::Eos => self.session().iter().for_each(|session| session.drain()),
            _ => {}
        }
        BaseSinkImplExt::parent_event(self, event)
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.is_rendering.store(true, Ordering::Relaxed);
        let rendered = self.parent_render(buffer);
        self.is_rendering.store(false, Ordering::Relaxed);
        rendered
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        self.set_flushing(true);
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        self.set_flushing(false);
        Ok(())
    }
}

impl FbPanSink {
    fn set_flushing(&self, flushing: bool) {
        if let Some(session) = self.session() {
            session.set_flushing(flushing);
        }
        if let Some(stream) = self.stream() {
            stream.set_flushing(flushing);
        }
    }

    /// Repeats `step` after an unlock interrupted it while a frame was rendered. The base class also unlocks for a
    /// pause, and expects the frame to be shown when playing goes on.
    fn unless_flushing<T>(
        &self,
        mut step: impl FnMut() -> Result<T, NotShown>,
    ) -> Result<T, gst::FlowError> {
        loop {
            match step() {
                Ok(done) => return Ok(done),
                Err(NotShown::Flushing) if self.is_rendering.load(Ordering::Relaxed) => {
                    self.obj().wait_preroll()?;
                }
                Err(NotShown::Flushing) => return Err(gst::FlowError::Flushing),
                Err(NotShown::Failed(error)) => {
                    self.post_error_message(error_message(&error));
                    return Err(gst::FlowError::Error);
                }
                Err(NotShown::Reported) => return Err(gst::FlowError::Error),
            }
        }
    }
}

impl VideoSinkImpl for FbPanSink {
    fn show_frame(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let is_rendered = self.is_rendering.load(Ordering::Relaxed);
        prerolled::outcome(self.show(buffer), is_rendered)
    }
}

impl FbPanSink {
    fn show(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let frame = self.begin_frame(buffer);
        let (session, stream, is_repeated) = frame.ok_or(gst::FlowError::NotNegotiated)?;
        if is_repeated {
            session.log().repeated();
            return Ok(gst::FlowSuccess::Ok);
        }
        if session.screen().is_drawn_on() && self.obj().property::<bool>("enable-last-sample") {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("enable-last-sample would keep the only fb_page from upstream for ever: switched off")
            );
            self.obj().set_property("enable-last-sample", false);
        }
        let part = session.part(&stream, buffer);
        if session.screen().has_deferred_io() {
            return self
                .unless_flushing(|| session.write_changes(&stream, &part, buffer))
                .inspect_err(|_| self.with_prerolled(Prerolled::forget))
                .map(|()| gst::FlowSuccess::Ok);
        }
        let written = session.locate(&stream, buffer);
        let is_adopted = matches!(written, Written::InPlace(_));
        self.adoption
            .note(self.obj().sink_pad(), buffer, is_adopted);
        let shown = self
            .unless_flushing(|| session.put_in_place(&stream, &part, buffer, written))
            .and_then(|frame| match frame {
                Some(frame) => {
                    self.unless_flushing(|| session.show(&part, &frame, self.timing(buffer)))
                }
                None => Ok(()), // dropped, which was logged or counted
            });
        shown.inspect_err(|_| self.with_prerolled(Prerolled::forget))?;
        self.tell_of_copies(&session);
        Ok(gst::FlowSuccess::Ok)
    }
}
