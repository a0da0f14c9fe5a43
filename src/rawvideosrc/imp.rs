// SPDX-License-Identifier: MPL-2.0
//! Virtual methods and properties. What they mean is decided in the modules
//! beside this one.
//!
//! Locks: `settings` is copied at start; `state` is held for moments only, and
//! never while anything is opened, awaited or read: whoever does that takes what
//! it needs out and puts it back. Neither is taken under the other.

use super::{
    CAT, IoMode,
    cursor::Cursor,
    errors,
    input::Input,
    known::Known,
    playback::Playback,
    pool,
    settings::Settings,
    source::{Delivery, Order, Source, Undelivered},
    stats::Stats,
    timeline::Timeline,
    uri,
    waker::Waker,
};
use crate::structure_property::StructureProperty;
use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::base_src::CreateSuccess, subclass::prelude::*};
use gst_video::prelude::*;
use parking_lot::Mutex;
use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicBool, Ordering},
};

#[derive(Default)]
enum State {
    #[default]
    Stopped,
    Started(Box<Session>),
}

impl State {
    fn session(&mut self) -> Option<&mut Session> {
        match self {
            Self::Stopped => None,
            Self::Started(session) => Some(session),
        }
    }

    /// None before the caps are known.
    fn stream(&mut self) -> Option<&mut Stream> {
        self.session()?.stream.as_mut()
    }
}

/// From start to stop.
struct Session {
    input: Input,
    cursor: Cursor,
    stream: Option<Stream>,
    waker: Arc<Waker>,
}

/// From caps to caps.
struct Stream {
    info: gst_video::VideoInfo,
    playback: Playback,
}

/// The implementation of [`super::RawVideoSrc`].
#[derive(Default, glib::Properties)]
#[properties(wrapper_type = super::RawVideoSrc)]
pub struct RawVideoSrc {
    #[property(name = "location", get, set, type = Option<String>, member = location, mutable_ready,
        nick = "Location", blurb = "File of raw frames or YUV4MPEG2, a pattern such as frame-%05d.raw, or - for standard input; without one a test pattern is drawn")]
    #[property(name = "format", get, set, type = gst_video::VideoFormat, member = format,
        builder(gst_video::VideoFormat::Unknown).mutable_ready().nick("Format")
            .blurb("Format of the frames (unknown = from the file, its name, or downstream)"))]
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
    #[property(name = "prefetch", get, set, type = u32, member = prefetch, mutable_ready,
        default = 4, minimum = 1, maximum = 32, nick = "Prefetch", blurb = "Frames in flight with io-mode io-uring")]
    #[property(name = "direct", get, set, type = bool, member = direct, mutable_ready,
        nick = "Direct", blurb = "Read past the page cache (O_DIRECT), with io-mode read and io-uring")]
    settings: std::sync::Mutex<Settings>,
    #[property(name = "stats", get = Self::stats, type = StructureProperty,
        nick = "Statistics", blurb = "What has been read, how, and how long it took")]
    stats: Mutex<Stats>,
    state: Mutex<State>,
    uri: Mutex<Option<String>>,
    /// The seek that is coming asks for the start of a frame.
    snaps: AtomicBool,
    /// An error has been posted since start.
    failed: AtomicBool,
}

impl RawVideoSrc {
    fn lock_settings(&self) -> std::sync::MutexGuard<'_, Settings> {
        // Nothing panics while it is held.
        let lock = self.settings.lock();
        lock.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn stats(&self) -> StructureProperty {
        self.stats.lock().to_structure().into()
    }

    fn set_is_live(&self, is_live: bool) {
        self.lock_settings().is_live = is_live;
        self.obj().set_live(is_live);
    }

    /// Works on the session without the lock; for moments when no one else needs
    /// it: between caps, when there is no stream to ask about either.
    fn with_session<T>(&self, work: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let State::Started(mut session) = std::mem::take(&mut *self.state.lock()) else {
            return None;
        };
        let result = work(&mut session);
        *self.state.lock() = State::Started(session);
        Some(result)
    }

    /// The frame that is due in a live stream: those before it are late.
    fn live_cursor(&self, cursor: Cursor, timeline: &Timeline) -> Cursor {
        let segment = self.obj().segment();
        let due = || {
            let segment = segment.downcast_ref::<gst::ClockTime>()?;
            let now = self.obj().current_running_time()?;
            segment.position_from_running_time(now)
        };
        match (cursor, due()) {
            (
                Cursor::Frame {
                    n,
                    step: step @ 1..,
                },
                Some(now),
            ) => {
                let current = timeline.frame_at(now.nseconds());
                if current > n {
                    self.stats.lock().frames_dropped(current - n);
                    gst::debug!(CAT, imp = self, "frames {n} to {} are late", current - 1);
                }
                Cursor::Frame {
                    n: n.max(current),
                    step,
                }
            }
            _ => cursor,
        }
    }

    /// The next frame, its number and its time.
    fn next_buffer(&self) -> Result<gst::Buffer, gst::FlowError> {
        let is_live = self.obj().is_live();
        let (info, timeline, first_frame, cursor, waker, source) = {
            let mut state = self.state.lock();
            let session = state.session().ok_or(gst::FlowError::Flushing)?;
            let stream = session.stream.as_mut();
            let Stream { info, playback } = stream.ok_or(gst::FlowError::NotNegotiated)?;
            (
                info.clone(),
                playback.timeline,
                playback.first_frame,
                session.cursor.resolve(&playback.timeline),
                session.waker.clone(),
                playback.source.take(),
            )
        };
        let mut source = source.ok_or(gst::FlowError::Error)?;
        let cursor = match is_live {
            true => self.live_cursor(cursor, &timeline),
            false => cursor,
        };
        let pool = self.obj().buffer_pool();
        let delivered = source.deliver(&Order {
            info: &info,
            timeline: &timeline,
            first_frame,
            cursor,
            pool: pool.as_ref(),
            waker: &waker,
        });
        let bounced = self.stats.lock().bounced_so_far(source.bounced_bytes());
        if bounced > 0 {
            gst::debug!(
                gst::CAT_PERFORMANCE,
                imp = self,
                "{bounced} bytes went through a bounce buffer: file, buffer or memory is not what O_DIRECT takes"
            );
        }
        self.put_back(
            source,
            if delivered.is_ok() {
                cursor.advance()
            } else {
                cursor
            },
        );
        let Delivery {
            mut buffer,
            waited,
            read,
        } = delivered.map_err(|why| self.explain(why))?;
        let n = cursor.frame().unwrap_or_default();
        self.stats
            .lock()
            .frame_read(info.size() as u64, waited, read);
        gst::trace!(
            CAT,
            imp = self,
            "frame {n} in {read:?}, after {waited:?} for a buffer"
        );
        let time = |ns: Option<u64>| ns.map(gst::ClockTime::from_nseconds);
        let buffer_mut = buffer.make_mut();
        buffer_mut.set_pts(time(timeline.time_ns(n)));
        buffer_mut.set_duration(time(timeline.frame_duration_ns(n)));
        buffer_mut.set_offset(n);
        buffer_mut.set_offset_end(n + 1);
        if info.is_interlaced() {
            let mut flags = gst_video::VideoBufferFlags::INTERLACED;
            if info.field_order() == gst_video::VideoFieldOrder::TopFieldFirst {
                flags |= gst_video::VideoBufferFlags::TFF;
            }
            buffer_mut.set_video_flags(flags);
        }
        Ok(buffer)
    }

    fn put_back(&self, source: Source, cursor: Cursor) {
        if let Some(session) = self.state.lock().session() {
            session.cursor = cursor;
            if let Some(stream) = &mut session.stream {
                stream.playback.source = Some(source);
            }
        }
    }

    fn explain(&self, why: Undelivered) -> gst::FlowError {
        let location = self.lock_settings().location.clone();
        match why {
            Undelivered::Flow(flow) => return flow,
            Undelivered::Finished => return gst::FlowError::Eos,
            Undelivered::Woken => return gst::FlowError::Flushing,
            Undelivered::EndsBefore(n) => {
                gst::info!(CAT, imp = self, "the file ends before frame {n}");
                return gst::FlowError::Eos;
            }
            Undelivered::Read(error) => {
                self.post_error_message(errors::of_read(location.as_deref(), &error));
            }
            Undelivered::Buffer(error) => self.post_error_message(errors::of_buffer(&error)),
        }
        gst::FlowError::Error
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RawVideoSrc {
    const NAME: &'static str = "GstRawVideoSrc";
    // Beside another copy of this library: src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::RawVideoSrc;
    type ParentType = gst_base::BaseSrc;
    type Interfaces = (gst::URIHandler,);
}

#[glib::derived_properties]
impl ObjectImpl for RawVideoSrc {
    fn constructed(&self) {
        self.parent_constructed();
        BaseSrcExt::set_format(&*self.obj(), gst::Format::Time);
        self.obj().set_live(false);
    }
}

impl GstObjectImpl for RawVideoSrc {}

impl ElementImpl for RawVideoSrc {
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
        // The base class follows each failure with one of its own that says
        // less; the first is the one to read.
        let is_error = message.type_() == gst::MessageType::Error;
        if is_error && self.failed.swap(true, Ordering::Relaxed) {
            gst::debug!(CAT, imp = self, "not posting {message:?}");
            return true;
        }
        self.parent_post_message(message)
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
        for (name, value) in &parsed.properties {
            let pspec = self.obj().find_property(name).filter(|pspec| {
                pspec.owner_type() == Self::type_()
                    && pspec.flags().contains(glib::ParamFlags::WRITABLE)
            });
            let pspec = pspec.ok_or_else(|| bad(format!("there is no property \"{name}\"")))?;
            let value = glib::Value::deserialize_with_pspec(value, &pspec)
                .map_err(|_| bad(format!("\"{value}\" is no value for \"{name}\"")))?;
            values.push((name, value));
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
        let waker = Waker::new().map_err(|error| {
            gst::error_msg!(
                gst::ResourceError::Failed,
                ("no eventfd: {error}; close some files")
            )
        })?;
        let waker = Arc::new(waker);
        let input = Input::open(settings, &waker).map_err(|error| errors::of_setup(&error))?;
        for note in &input.notes {
            gst::info!(CAT, imp = self, "{note}");
        }
        *self.state.lock() = State::Started(Box::new(Session {
            input,
            cursor: Cursor::START,
            stream: None,
            waker,
        }));
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let stopped = std::mem::take(&mut *self.state.lock());
        drop(stopped);
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
        if self.obj().is_live() {
            return false;
        }
        match self.state.lock().session() {
            Some(session) => session.input.is_seekable(),
            None => false,
        }
    }

    fn caps(&self, filter: Option<&gst::Caps>) -> Option<gst::Caps> {
        let template = self.obj().pad_template("src")?.caps().clone();
        let known = match self.state.lock().session() {
            Some(session) => Some(session.input.caps(&template)),
            None => None,
        };
        let caps =
            known.unwrap_or_else(|| Known::from_settings(&self.lock_settings()).caps(&template));
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
            None => caps,
        })
    }

    fn negotiate(&self) -> Result<(), gst::LoggableError> {
        self.probe_stream()?;
        self.parent_negotiate()
    }

    fn fixate(&self, caps: gst::Caps) -> gst::Caps {
        let fixated = match self.state.lock().session() {
            Some(session) => session.input.fixate(caps.clone()),
            None => return self.parent_fixate(caps),
        };
        match fixated {
            Ok(caps) => self.parent_fixate(caps),
            Err(error) => {
                self.post_error_message(errors::of_setup(&error));
                // Still open caps end the negotiation.
                caps
            }
        }
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(caps)?;
        let played = self.with_session(|session| {
            if let Some(stream) = session.stream.take() {
                session.cursor = session.cursor.unresolve(&stream.playback.timeline);
                session.input.take_back(stream.playback.source);
            }
            let playback = Playback::new(&mut session.input, &info, &session.waker)?;
            let facts = (
                playback.mode,
                playback.reason.clone(),
                playback.leftover_bytes,
            );
            session.stream = Some(Stream { info, playback });
            Ok(facts)
        });
        match played {
            None => Err(gst::loggable_error!(CAT, "not started")),
            Some(Err(error)) => {
                self.post_error_message(errors::of_setup(&error));
                Err(gst::loggable_error!(CAT, "{error}"))
            }
            Some(Ok((mode, reason, leftover_bytes))) => {
                gst::info!(CAT, imp = self, "{mode}: {reason}");
                self.stats.lock().set_mode(mode, reason);
                if leftover_bytes > 0 {
                    gst::warning!(
                        CAT,
                        imp = self,
                        "the last {leftover_bytes} bytes are no whole frame and are not played"
                    );
                }
                Ok(())
            }
        }
    }

    fn decide_allocation(
        &self,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        let depth = {
            let mut state = self.state.lock();
            let stream = state.stream().ok_or(gst::loggable_error!(CAT, "no caps"))?;
            let Stream { info, playback } = stream;
            let source = playback
                .source
                .as_mut()
                .ok_or(gst::loggable_error!(CAT, "busy"))?;
            let takes_meta = query
                .find_allocation_meta::<gst_video::VideoMeta>()
                .is_some();
            if source.may_wrap(info, !pool::has_special_memory(query), takes_meta) {
                None
            } else {
                Some(source.depth())
            }
        };
        let Some(depth) = depth else {
            gst::info!(
                CAT,
                imp = self,
                "zero-copy: downstream gets the file's own pages"
            );
            pool::decline(query);
            return Ok(());
        };
        let decision = pool::decide(query, depth)?;
        let owner = if decision.is_downstream {
            "downstream's"
        } else {
            "our own"
        };
        gst::debug!(CAT, imp = self, "writing into {owner} {decision:?}");
        decision.answer(query);
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
        match (self.obj().is_live(), buffer.pts()) {
            (true, Some(start)) => (Some(start), buffer.duration().map(|length| start + length)),
            _ => (None, None),
        }
    }

    fn event(&self, event: &gst::Event) -> bool {
        if let gst::EventView::Seek(seek) = event.view() {
            // The segment that `do_seek` gets does not have this flag.
            let snaps = seek.get().1.contains(gst::SeekFlags::KEY_UNIT);
            self.snaps.store(snaps, Ordering::Relaxed);
        }
        self.parent_event(event)
    }

    fn do_seek(&self, segment: &mut gst::Segment) -> bool {
        let Some(segment) = segment.downcast_mut::<gst::ClockTime>() else {
            return false;
        };
        let (mut source, timeline) = match self.state.lock().stream() {
            Some(stream) => (
                stream.playback.source.take(),
                Some(stream.playback.timeline),
            ),
            None => (None, None),
        };
        // What is in flight may take a while to land.
        if let Some(source) = &mut source {
            source.reset();
        }
        let mut state = self.state.lock();
        let Some(session) = state.session() else {
            return false;
        };
        if let Some(stream) = &mut session.stream {
            stream.playback.source = source;
        }
        let duration = timeline
            .and_then(|timeline| timeline.duration_ns())
            .map(gst::ClockTime::from_nseconds);
        segment.set_duration(duration);
        let is_reverse = segment.rate() < 0.0;
        let mut start = segment.start().unwrap_or_default();
        if let (Some(timeline), true) = (timeline, self.snaps.swap(false, Ordering::Relaxed)) {
            let n = timeline.frame_at(start.nseconds());
            start = gst::ClockTime::from_nseconds(timeline.time_ns(n).unwrap_or_default());
            segment.set_start(start);
            segment.set_time(start);
        }
        let stop = segment.stop().or(duration);
        if is_reverse && stop.is_none() {
            return false;
        }
        let position = if is_reverse { stop } else { Some(start) };
        segment.set_position(position);
        let skips = gst::SegmentFlags::TRICKMODE | gst::SegmentFlags::SKIP;
        let stride = match segment.flags().intersects(skips) {
            true => (segment.rate().abs() as i64).max(1),
            false => 1,
        };
        session.cursor = Cursor::Time {
            start_ns: start.nseconds(),
            stop_ns: stop.map(gst::ClockTime::nseconds),
            step: if is_reverse { -stride } else { stride },
        };
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
                    // A frame may be asked for when it is due and must be read.
                    let frame =
                        gst::ClockTime::from_nseconds(playback.timeline.frame_duration_ns(0)?);
                    query.set(true, frame, frame);
                    Some(())
                }
                _ => None,
            }
        });
        answered.is_some() || BaseSrcImplExt::parent_query(self, query)
    }
}

impl RawVideoSrc {
    /// Looks at the beginning of a pipe before the caps are negotiated.
    fn probe_stream(&self) -> Result<(), gst::LoggableError> {
        let is_unprobed = |state: &mut State| {
            state
                .session()
                .is_some_and(|session| session.input.is_unprobed)
        };
        if !is_unprobed(&mut self.state.lock()) {
            return Ok(());
        }
        let taken = self
            .state
            .lock()
            .session()
            .map(|session| session.input.take_stream());
        let Some(Some(mut stream)) = taken else {
            return Err(gst::loggable_error!(CAT, "not started"));
        };
        let location = self.lock_settings().location.clone().unwrap_or_default();
        let probed = Input::probe(&mut stream, &location);
        let mut state = self.state.lock();
        let Some(session) = state.session() else {
            return Err(gst::loggable_error!(CAT, "stopped"));
        };
        session.input.give_stream(stream);
        match probed {
            Ok(Some(header)) => {
                session.input.take_probe(header);
                Ok(())
            }
            Ok(None) => Err(gst::loggable_error!(CAT, "flushing")),
            Err(error) => {
                drop(state);
                self.post_error_message(errors::of_setup(&error));
                Err(gst::loggable_error!(CAT, "{error}"))
            }
        }
    }
}
