// SPDX-License-Identifier: MPL-2.0
//! The virtual methods and properties of the element. `streaming` has the work of the
//! streaming thread.
//!
//! Locks: `start` copies `settings`. Code that opens, waits or reads does not hold the lock
//! of `state` meanwhile: it takes the input or the reader out of `state`, and puts it back
//! afterwards. No code takes one of the two locks while it holds the other.

use super::{
    CAT, IoMode, errors,
    input::Input,
    known::Known,
    negotiation, pool, seek,
    session::{PoolInUse, Session, State, Stream},
    settings::Settings,
    stats::Stats,
    uri,
    waker::Waker,
};
use crate::locks::{Mutex, lock};
use crate::memory::MemoryKind;
use crate::structure_property::{StructureProperty, in_one_line};
use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::base_src::CreateSuccess, subclass::prelude::*};
use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicBool, Ordering},
};

#[derive(Default, glib::Properties)]
#[properties(wrapper_type = super::RawVideoSrc)]
pub struct RawVideoSrc {
    #[property(name = "location", get, set, type = Option<String>, member = location, mutable_ready,
        nick = "Location", blurb = "File of raw frames or YUV4MPEG2 (path or file: URI), a pattern such as frame-%05d.raw, or - for standard input; without one a test pattern is drawn")]
    #[property(name = "format", get, set, type = gst_video::VideoFormat, member = format,
        builder(gst_video::VideoFormat::Unknown).mutable_ready().nick("Format")
            .blurb("Format of the frames, such as NV12 (unknown = from the file, its name, or downstream)"))]
    #[property(name = "width", get, set, type = i32, member = width, minimum = 0, mutable_ready,
        nick = "Width", blurb = "Width of the frames (0 = from the file, its name, or downstream)")]
    #[property(name = "height", get, set, type = i32, member = height, minimum = 0, mutable_ready,
        nick = "Height", blurb = "Height of the frames (0 = from the file, its name, or downstream)")]
    #[property(name = "framerate", get, set, type = gst::Fraction, member = framerate, mutable_ready,
        minimum = gst::Fraction::new(0, 1), maximum = gst::Fraction::new(i32::MAX, 1),
        default = gst::Fraction::new(0, 1), nick = "Frame rate",
        blurb = "Frames a second (0/1 = from the file, its name, or downstream, else 25/1; 30/1 for the pattern)")]
    #[property(name = "pixel-aspect-ratio", get, set, type = gst::Fraction, member = pixel_aspect_ratio, mutable_ready,
        minimum = gst::Fraction::new(0, 1), maximum = gst::Fraction::new(100, 1),
        default = gst::Fraction::new(0, 1), nick = "Pixel aspect ratio",
        blurb = "Width to height of a pixel (0/1 = from the file, or downstream)")]
    #[property(name = "interlaced", get, set, type = bool, member = interlaced, mutable_ready,
        nick = "Interlaced", blurb = "The frames hold two fields each")]
    #[property(name = "top-field-first", get, set, type = bool, member = top_field_first, mutable_ready,
        nick = "Top field first", blurb = "The top field is the earlier one, if interlaced")]
    #[property(name = "colorimetry", get, set, type = Option<String>, member = colorimetry, mutable_ready,
        nick = "Colorimetry", blurb = "Colorimetry of the frames, as caps have it")]
    #[property(name = "plane-strides", get, set, type = gst::Array, member = plane_strides,
        mutable_ready, element_spec = &glib::ParamSpecInt::builder("plane-stride").build(),
        nick = "Plane strides", blurb = "Strides of the planes in the file, in bytes (e.g. plane-strides=\"<320,320>\")")]
    #[property(name = "plane-offsets", get, set, type = gst::Array, member = plane_offsets,
        mutable_ready, element_spec = &glib::ParamSpecInt::builder("plane-offset").build(),
        nick = "Plane offsets", blurb = "Offsets of the planes in a frame of the file, in bytes (e.g. plane-offsets=\"<0,76800>\")")]
    #[property(name = "frame-size", get, set, type = u32, member = frame_size, mutable_ready,
        nick = "Frame size", blurb = "From frame to frame in the file, in bytes (0 = what the planes take)")]
    #[property(name = "offset", get, set, type = u64, member = offset, mutable_ready,
        nick = "Offset", blurb = "Bytes before the first frame")]
    #[property(name = "start-frame", get, set, type = u64, member = start_frame, mutable_ready,
        nick = "Start frame", blurb = "Number of the first frame to play; it is at time 0")]
    #[property(name = "stop-frame", get, set, type = i64, member = stop_frame, mutable_ready,
        minimum = -1, default = -1, nick = "Stop frame", blurb = "Number of the last frame to play (-1 = the last of the file)")]
    #[property(name = "r#loop", get, set, type = bool, member = looping, mutable_ready,
        nick = "Loop", blurb = "Start again at the end of the file")]
    #[property(name = "loop-count", get, set, type = u32, member = loop_count, mutable_ready,
        nick = "Loop count", blurb = "How often to play the file when loop is set (0 = no end)")]
    #[property(name = "follow", get, set, type = bool, member = follow, mutable_ready,
        nick = "Follow", blurb = "Wait at the end of the file for frames that are still being written")]
    #[property(name = "is-live", get, set = Self::set_is_live, type = bool, member = is_live, mutable_ready,
        nick = "Is live", blurb = "Give frames when they are due by the clock, as a camera would, and leave out late ones")]
    #[property(name = "io-mode", get, set, type = IoMode, member = io_mode,
        builder(IoMode::Auto).mutable_ready().nick("I/O mode").blurb("How the file is read"))]
    #[property(name = "threads", get, set, type = u32, member = threads, mutable_ready,
        default = 0, maximum = 64, nick = "Threads", blurb = "Threads that carry a frame, with io-mode read and mmap (0 = chosen by the frame's size)")]
    #[property(name = "cpus", get, set, type = Option<String>, member = cpus, mutable_ready,
        nick = "Processors", blurb = "Processors on which the element's own threads run, a list such as 2-3,5 (default: where the thread that starts them may run)")]
    #[property(name = "prefetch", get, set, type = u32, member = prefetch, mutable_ready,
        default = 4, minimum = 1, maximum = 32, nick = "Prefetch", blurb = "Frames in flight with io-mode io-uring, or read ahead of a sequence of files")]
    #[property(name = "direct", get, set, type = bool, member = direct, mutable_ready,
        nick = "Direct", blurb = "Read past the page cache (O_DIRECT), with io-mode read and io-uring")]
    #[property(name = "memory-kind", get, set, type = MemoryKind, member = memory_kind,
        builder(MemoryKind::Auto).mutable_ready().nick("Memory kind")
            .blurb("What this element's own buffers are made of, where downstream offers no memory of a device; auto = downstream's plain memory, else the first kind that works"))]
    #[property(name = "heap", get, set, type = Option<String>, member = heap, mutable_ready,
        nick = "Heap", blurb = "For the own buffers: name of the dma-heap below /dev/dma_heap for kinds cma and system (default: the CMA heap, system); for kind region the memory, such as /dev/mem@0x30000000+64M")]
    #[property(name = "max-address", get, set, type = u64, member = max_address, mutable_ready,
        nick = "Highest address", blurb = "For the own buffers: highest physical address that the hardware can reach (0 = any)")]
    settings: std::sync::Mutex<Settings>,
    #[property(name = "stats", get = Self::stats, type = StructureProperty,
        nick = "Statistics", blurb = "What has been read, how, and how long it took")]
    pub(super) stats: Mutex<Stats>,
    #[property(name = "pool", get = Self::pool_in_a_line, type = Option<String>, nick = "Pool",
        blurb = "The pool that frames are read into, and what it holds, in one line, as graphs of the pipeline show it")]
    _computed: (),
    pub(super) state: Mutex<State>,
    uri: Mutex<Option<String>>,
    /// Whether an error has been posted since `start`.
    failed: AtomicBool,
}

impl RawVideoSrc {
    pub(super) fn lock_settings(&self) -> std::sync::MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    fn stats(&self) -> StructureProperty {
        self.stats.lock().to_structure().into()
    }

    fn pool_in_a_line(&self) -> Option<String> {
        self.obj()
            .buffer_pool()
            .as_ref()
            .map(crate::pool::in_a_line)
    }

    fn set_is_live(&self, is_live: bool) {
        self.lock_settings().is_live = is_live;
        self.obj().set_live(is_live);
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RawVideoSrc {
    const NAME: &'static str = "GstRawVideoSrc";
    // Another copy of this library may have registered the same name: see src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::RawVideoSrc;
    type ParentType = gst_base::BaseSrc;
    type Interfaces = (gst::URIHandler,);
}

#[glib::derived_properties]
impl ObjectImpl for RawVideoSrc {
    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.derived_set_property(id, &crate::property_text::readable(value), pspec);
    }

    fn constructed(&self) {
        self.parent_constructed();
        BaseSrcExt::set_format(&*self.obj(), gst::Format::Time);
        self.obj().set_live(false);
    }
}

impl GstObjectImpl for RawVideoSrc {}

impl ElementImpl for RawVideoSrc {
    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        // Whenever a live source begins to play, the base class measures anew how far timestamps
        // and running time are apart. `times` then does the same.
        if transition == gst::StateChange::PausedToPlaying
            && let Some(session) = self.state.lock().session()
        {
            session.live_offset_ns = None;
        }
        self.parent_change_state(transition)
    }

    fn send_event(&self, event: gst::Event) -> bool {
        match event.type_() {
            gst::EventType::Seek => self.seek(&event, |event| self.parent_send_event(event)),
            _ => self.parent_send_event(event),
        }
    }

    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Raw video source",
                "Source/Video",
                "Reads frames of raw video, or draws a test pattern, straight into downstream's buffers",
                "The gst-plugin-physmem developers",
            )
        });
        Some(&*METADATA)
    }

    fn post_message(&self, message: gst::Message) -> bool {
        // The base class posts an error of its own after each failure. It says less than the
        // element's error, so only the first error is posted.
        let is_error = message.type_() == gst::MessageType::Error;
        if is_error && self.failed.swap(true, Ordering::Relaxed) {
            gst::debug!(CAT, imp = self, "not posting {message:?}");
            return true;
        }
        self.parent_post_message(self.in_words(message))
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst_video::VideoCapsBuilder::new()
                .format_list(gst_video::VideoFormat::iter_raw())
                .build();
            let always = gst::PadPresence::Always;
            let template = gst::PadTemplate::new("src", gst::PadDirection::Src, always, &caps);
            template.into_iter().collect()
        });
        &TEMPLATES
    }
}

impl URIHandlerImpl for RawVideoSrc {
    const URI_TYPE: gst::URIType = gst::URIType::Src;

    fn protocols() -> &'static [&'static str] {
        &[uri::SCHEME]
    }

    fn uri(&self) -> Option<String> {
        self.uri.lock().clone()
    }

    fn set_uri(&self, text: &str) -> Result<(), glib::Error> {
        let bad = |why: String| glib::Error::new(gst::URIError::BadUri, &why);
        let parsed = uri::Parsed::parse(text).map_err(|error| bad(error.to_string()))?;
        let mut values = Vec::new();
        for (name, text) in &parsed.properties {
            let pspec = self.obj().find_property(name).filter(|pspec| {
                let owners = [Self::type_(), gst_base::BaseSrc::static_type()];
                owners.contains(&pspec.owner_type())
                    && pspec.flags().contains(glib::ParamFlags::WRITABLE)
            });
            let pspec = pspec.ok_or_else(|| bad(uri::unknown(name)))?;
            values.push((name, uri::value(&pspec, text).map_err(bad)?));
        }
        if self.obj().current_state() > gst::State::Ready {
            let why = "the URI can be changed in the states NULL and READY only";
            return Err(glib::Error::new(gst::URIError::BadState, why));
        }
        self.obj().set_property("location", &parsed.path);
        for (name, value) in values {
            self.obj().set_property_from_value(name, &value);
        }
        *self.uri.lock() = Some(text.to_owned());
        Ok(())
    }
}

impl BaseSrcImpl for RawVideoSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.lock_settings().clone();
        *self.stats.lock() = Stats::default();
        self.failed.store(false, Ordering::Relaxed);
        let waker = Waker::new().map_err(|error| errors::of_waker(&error))?;
        let waker = Arc::new(waker);
        let input = Input::open(settings, &waker).map_err(|error| errors::of_setup(&error))?;
        for note in &input.notes {
            gst::info!(CAT, imp = self, "{note}");
        }
        let mut session = Session::new(input, &self.template(), waker);
        let seek = match std::mem::take(&mut *self.state.lock()) {
            State::Stopped(seek) => seek,
            State::Started(_) => None,
        };
        if seek.is_some() && !session.is_seekable {
            let location = self.lock_settings().location.clone().unwrap_or_default();
            return Err(gst::error_msg!(
                gst::ResourceError::Seek,
                ("one cannot seek in \"{location}\", a pipe or device: play it without, or from a file")
            ));
        }
        session.seek = seek;
        *self.state.lock() = State::Started(Box::new(session));
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let stopped = std::mem::take(&mut *self.state.lock());
        drop(stopped);
        let numbers = [
            "mode",
            "frames",
            "bytes",
            "dropped",
            "bounced-bytes",
            "buffer-waits",
        ];
        gst::info!(CAT, imp = self, "{}", in_one_line(&self.stats(), &numbers));
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(session) = self.state.lock().session()
            && let Err(error) = session.waker.wake()
        {
            gst::warning!(CAT, imp = self, "cannot end a wait: {error}");
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(session) = self.state.lock().session() {
            session.waker.rest();
        }
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        let mut state = self.state.lock();
        !self.obj().is_live() && state.session().is_some_and(|session| session.is_seekable)
    }

    fn caps(&self, filter: Option<&gst::Caps>) -> Option<gst::Caps> {
        let known = self
            .state
            .lock()
            .session()
            .map(|session| (session.caps.clone(), session.guesses.clone()));
        let caps = match known {
            Some((caps, guesses)) => {
                let said = negotiation::said_behind(self.obj().src_pad());
                negotiation::believe(caps, &guesses, &said)
            }
            None => Known::from_settings(&self.lock_settings()).caps(&self.template()),
        };
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
            None => caps,
        })
    }

    fn negotiate(&self) -> Result<(), gst::LoggableError> {
        // The base class ends the stream if this method fails, and an event cannot interrupt a
        // wait in it. So `create` does all the waiting, and negotiates afterwards.
        match self.is_unprobed() || self.is_preparing() {
            true => Ok(()),
            false => self
                .parent_negotiate()
                .inspect_err(|_| self.explain_refusal()),
        }
    }

    fn fixate(&self, caps: gst::Caps) -> gst::Caps {
        let fixated = match self.state.lock().session() {
            Some(Session {
                input: Some(input), ..
            }) => input.fixate(caps.clone()),
            _ => return self.parent_fixate(caps),
        };
        match fixated {
            Ok(caps) => self.parent_fixate(caps),
            Err(error) => {
                self.post_error_message(errors::of_setup(&error));
                // The base class refuses caps that are not fixed, which ends the negotiation.
                caps
            }
        }
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(caps)?;
        self.prepare(info)
    }

    fn decide_allocation(
        &self,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        let (mut source, info) = {
            let mut state = self.state.lock();
            let Some(session) = state.session() else {
                return Err(gst::loggable_error!(CAT, "not started"));
            };
            let Some(reader) = session.stream.as_mut().and_then(Stream::take_reader) else {
                // No stream is prepared yet; `create` negotiates again once there is one.
                pool::decline(query);
                return Ok(());
            };
            reader
        };
        // The frames in flight are in buffers of another pool or layout, which downstream may
        // not take any more.
        source.reset();
        let takes_meta = query
            .find_allocation_meta::<gst_video::VideoMeta>()
            .is_some();
        let has_special_memory = pool::has_special_memory(query);
        // A device's memory is always the right one. Plain memory is not what the user asked for.
        let wanted = self.lock_settings().wanted_memory();
        let wanted = wanted.filter(|_| !has_special_memory);
        let takes_files_pages = !has_special_memory && wanted.is_none();
        let wraps = source.may_wrap(&info, takes_files_pages, takes_meta);
        let depth = source.depth();
        let in_use = match self.state.lock().session() {
            Some(session) => {
                session.give_source(Some(source));
                std::mem::take(&mut session.pool)
            }
            None => PoolInUse::None,
        };
        if wraps {
            gst::info!(
                CAT,
                imp = self,
                "zero-copy: downstream gets the file's own pages"
            );
            pool::decline(query);
            return Ok(());
        }
        let own = match in_use {
            PoolInUse::OwnPool(own) => Some(own),
            _ => None,
        };
        let decision = pool::decide(query, depth, own, wanted, self.obj().upcast_ref())?;
        gst::debug!(CAT, imp = self, "writing into {decision:?}");
        decision.answer(query);
        if let Some(session) = self.state.lock().session() {
            session.pool = match decision {
                pool::Decision::Downstream(_) => PoolInUse::Downstream,
                pool::Decision::OwnPool(own) => PoolInUse::OwnPool(own),
            };
        }
        Ok(())
    }

    fn create(
        &self,
        _offset: u64,
        _buffer: Option<&mut gst::BufferRef>,
        _length: u32,
    ) -> Result<CreateSuccess, gst::FlowError> {
        self.next_buffer().map(CreateSuccess::NewBuffer)
    }

    fn times(&self, buffer: &gst::BufferRef) -> (Option<gst::ClockTime>, Option<gst::ClockTime>) {
        let (true, Some(start)) = (self.obj().is_live(), buffer.pts()) else {
            return (None, None);
        };
        self.note_live_start(start);
        (Some(start), buffer.duration().map(|length| start + length))
    }

    fn event(&self, event: &gst::Event) -> bool {
        match event.type_() {
            gst::EventType::Seek => self.seek(event, |event| self.parent_event(&event)),
            _ => self.parent_event(event),
        }
    }

    fn do_seek(&self, segment: &mut gst::Segment) -> bool {
        let Some(segment) = segment.downcast_mut::<gst::ClockTime>() else {
            return false;
        };
        let source = self.state.lock().session().and_then(Session::take_source);
        // The frames in flight are not those that the seek asks for.
        let source = source.map(|mut source| {
            source.reset();
            source
        });
        let mut state = self.state.lock();
        let Some(session) = state.session() else {
            return false;
        };
        session.give_source(source);
        session.cursor = seek::go(segment, session.timeline().as_ref());
        if session.stream.is_some() {
            // This seek is newer than one that has waited for the caps.
            session.seek = None;
        }
        // A flush may have interrupted the CAPS event or the ALLOCATION query. Then downstream's
        // pool is not in use, and the next negotiation must ask for it again.
        let is_to_ask = session.stream.is_some() && !matches!(session.pool, PoolInUse::Downstream);
        drop(state);
        if segment.flags().contains(gst::SegmentFlags::RESET) {
            if is_to_ask {
                self.obj().src_pad().mark_reconfigure();
            }
            // After a flush the stream begins anew, and may fail anew.
            self.failed.store(false, Ordering::Relaxed);
        }
        true
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        let is_live = self.obj().is_live();
        let answered = self.state.lock().stream().and_then(|stream| {
            let playback = &stream.playback;
            match query.view_mut() {
                gst::QueryViewMut::Duration(query) => {
                    playback.total(query.format()).map(|total| query.set(total))
                }
                gst::QueryViewMut::Seeking(query) => {
                    let can_seek = playback.is_seekable && !is_live;
                    playback
                        .seekable(query.format())
                        .map(|(start, end)| query.set(can_seek, start, end))
                }
                gst::QueryViewMut::Convert(query) => {
                    let (value, to) = query.get();
                    playback
                        .convert(value, to)
                        .map(|converted| query.set(value, converted))
                }
                gst::QueryViewMut::Latency(query) if is_live => {
                    // A read may begin only when the frame is due, and may take its duration.
                    let frame =
                        gst::ClockTime::from_nseconds(playback.timeline.frame_duration_ns(0)?);
                    // No frame is given up: one that is taken late is late.
                    query.set(true, frame, gst::ClockTime::NONE);
                    Some(())
                }
                _ => None,
            }
        });
        answered.is_some() || BaseSrcImplExt::parent_query(self, query)
    }
}

impl RawVideoSrc {
    /// Replaces the base class's error "Internal data stream error", which it posts when an
    /// element downstream has refused the caps, by one that names what both sides take.
    fn in_words(&self, message: gst::Message) -> gst::Message {
        let gst::MessageView::Error(error) = message.view() else {
            return message;
        };
        let debug = error.debug().unwrap_or_default();
        if !error.error().matches(gst::StreamError::Failed) || !debug.contains("not-negotiated") {
            return message;
        }
        let location = self.lock_settings().location.clone();
        let pad = self.obj().src_pad().clone();
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let sentence = negotiation::explain(location.as_deref(), &caps, &pad);
        gst::message::Error::builder(gst::CoreError::Negotiation, &sentence)
            .src(&*self.obj())
            .debug(&debug)
            .build()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn template(&self) -> gst::Caps {
        let template = self.obj().pad_template("src");
        template.map_or_else(gst::Caps::new_any, |template| template.caps().clone())
    }

    /// Handles a seek. `perform` passes the event, converted to TIME, to the base class.
    fn seek(&self, event: &gst::Event, perform: impl FnOnce(gst::Event) -> bool) -> bool {
        let gst::EventView::Seek(seek) = event.view() else {
            return false;
        };
        if self.obj().is_live() {
            return false;
        }
        if seek.get().1.contains(gst::SeekFlags::INSTANT_RATE_CHANGE) {
            return self.change_rate(seek);
        }
        let current = self.segment();
        let in_time = match &mut *self.state.lock() {
            // A seek before the caps are known is kept for `seek_at_last`.
            State::Stopped(waiting) => {
                *waiting = Some(event.clone());
                return true;
            }
            State::Started(session) if !session.is_seekable => return false,
            State::Started(session) => match &session.stream {
                Some(stream) if !stream.playback.is_seekable => return false,
                Some(stream) => seek::in_time(seek, &current, &stream.playback),
                None => {
                    session.seek = Some(event.clone());
                    return true;
                }
            },
        };
        match in_time {
            Some(event) => perform(event),
            None => {
                gst::info!(CAT, imp = self, "there is no such place: {event:?}");
                false
            }
        }
    }

    /// Handles a seek with INSTANT_RATE_CHANGE: downstream changes the speed by itself, and
    /// this element goes on to send the same frames.
    fn change_rate(&self, seek: &gst::event::Seek) -> bool {
        let (rate, flags, start_type, _, stop_type, _) = seek.get();
        let factor = rate / self.segment().rate();
        let changes_nothing_else = !flags.contains(gst::SeekFlags::FLUSH)
            && start_type == gst::SeekType::None
            && stop_type == gst::SeekType::None;
        if !changes_nothing_else || factor <= 0.0 {
            return false;
        }
        let flags = gst::SegmentFlags::from_bits_truncate(flags.bits());
        let change = gst::event::InstantRateChange::builder(factor, flags);
        let pad = self.obj().src_pad().clone();
        pad.push_event(change.seqnum(seek.seqnum()).build())
    }
}
