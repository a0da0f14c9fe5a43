// SPDX-License-Identifier: MPL-2.0
//! Virtual methods and properties. What they mean is decided in the modules
//! beside this one.
//!
//! Locks: `settings` is copied at start; `state` is held for moments only, and
//! never while a buffer is awaited or filled: the streaming thread takes the
//! source of frames out and puts it back. Neither is taken under the other.

use super::{
    CAT, IoMode,
    playback::{Input, Playback, SetupError},
    pool,
    reader::{Outcome, ReadError, Target, open::OpenError},
    settings::Settings,
    stats::Stats,
    timeline::Timeline,
};
use crate::{layout::FrameLayout, structure_property::StructureProperty};
use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::base_src::CreateSuccess, subclass::prelude::*};
use parking_lot::Mutex;
use std::{
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

#[derive(Debug, Clone, Copy)]
enum Next {
    /// Where a seek went, to be turned into a frame once the rate is known.
    Time {
        start_ns: u64,
        stop_ns: Option<u64>,
        reverse: bool,
    },
    Frame {
        n: u64,
        reverse: bool,
    },
    /// Before the first frame, in reverse.
    End,
}

impl Next {
    const START: Self = Self::Time {
        start_ns: 0,
        stop_ns: None,
        reverse: false,
    };

    /// Turns a time into the frame that is shown then.
    fn resolve(self, timeline: &Timeline) -> Self {
        let Self::Time {
            start_ns,
            stop_ns,
            reverse,
        } = self
        else {
            return self;
        };
        let frame = if reverse {
            stop_ns
                .or(timeline.duration_ns())
                .and_then(|stop_ns| timeline.frame_before(stop_ns))
        } else {
            Some(timeline.frame_at(start_ns))
        };
        frame.map_or(Self::End, |n| Self::Frame { n, reverse })
    }

    /// Back to a time, for when the rate may change.
    fn unresolve(self, timeline: &Timeline) -> Self {
        let Self::Frame { n, reverse } = self else {
            return self;
        };
        Self::Time {
            start_ns: timeline.time_ns(n).unwrap_or(0),
            stop_ns: timeline.time_ns(n + 1),
            reverse,
        }
    }

    fn advance(self) -> Self {
        match self {
            Self::Frame { n, reverse: false } => Self::Frame {
                n: n + 1,
                reverse: false,
            },
            Self::Frame { n, reverse: true } => n
                .checked_sub(1)
                .map_or(Self::End, |n| Self::Frame { n, reverse: true }),
            other => other,
        }
    }
}

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
    next: Next,
    stream: Option<Stream>,
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
        nick = "Location", blurb = "File of raw frames; without one a test pattern is drawn")]
    #[property(name = "format", get, set, type = gst_video::VideoFormat, member = format,
        builder(gst_video::VideoFormat::Unknown).mutable_ready().nick("Format")
            .blurb("Format of the frames (unknown = what downstream asks for)"))]
    #[property(name = "width", get, set, type = i32, member = width, minimum = 0, mutable_ready,
        nick = "Width", blurb = "Width of the frames (0 = what downstream asks for)")]
    #[property(name = "height", get, set, type = i32, member = height, minimum = 0, mutable_ready,
        nick = "Height", blurb = "Height of the frames (0 = what downstream asks for)")]
    #[property(name = "framerate", get, set, type = gst::Fraction, member = framerate, mutable_ready,
        minimum = gst::Fraction::new(0, 1), maximum = gst::Fraction::new(i32::MAX, 1),
        default = gst::Fraction::new(0, 1), nick = "Frame rate",
        blurb = "Frames a second (0/1 = what downstream asks for, else 25/1; 30/1 for the pattern)")]
    #[property(name = "r#loop", get, set, type = bool, member = looping, mutable_ready,
        nick = "Loop", blurb = "Start again at the end of the file")]
    #[property(name = "loop-count", get, set, type = u32, member = loop_count, mutable_ready,
        nick = "Loop count", blurb = "How often to play the file when loop is set (0 = no end)")]
    #[property(name = "io-mode", get, set, type = IoMode, member = io_mode,
        builder(IoMode::Auto).mutable_ready().nick("I/O mode").blurb("How the file is read"))]
    settings: std::sync::Mutex<Settings>,
    #[property(name = "stats", get = Self::stats, type = StructureProperty,
        nick = "Statistics", blurb = "What has been read, how, and how long it took")]
    stats: Mutex<Stats>,
    state: Mutex<State>,
    /// An error has been posted since start.
    failed: AtomicBool,
}

impl RawVideoSrc {
    fn settings(&self) -> Settings {
        match self.settings.lock() {
            Ok(settings) => settings.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    fn stats(&self) -> StructureProperty {
        self.stats.lock().to_structure().into()
    }

    /// The frame to read now: its number in the stream and in the file.
    fn next_frame(&self) -> Option<(u64, u64)> {
        let mut state = self.state.lock();
        let Session { next, stream, .. } = state.session()?;
        let timeline = stream.as_ref()?.playback.timeline;
        *next = next.resolve(&timeline);
        match *next {
            Next::Frame { n, .. } => Some((n, timeline.frame_of_pass(n)?)),
            _ => None,
        }
    }

    /// Fills the buffer with frame `n` of the file and stamps it as frame
    /// `stream_n` of the stream.
    fn fill_buffer(
        &self,
        buffer: &mut gst::BufferRef,
        info: &gst_video::VideoInfo,
        source: &mut dyn super::reader::FrameSource,
        n: u64,
    ) -> Result<Outcome, gst::ErrorMessage> {
        let layout = FrameLayout::of_buffer(info, buffer).map_err(|error| {
            gst::error_msg!(
                gst::CoreError::Negotiation,
                ("A buffer of the pool does not fit the format: {error}")
            )
        })?;
        let short = || {
            gst::error_msg!(
                gst::ResourceError::Write,
                ("A buffer of the pool is too small for a frame, or cannot be written"),
                ["{layout:?}"]
            )
        };
        if buffer.n_memory() == 1 {
            let mut map = buffer.map_writable().map_err(|_| short())?;
            let mut target = Target::whole(map.as_mut_slice(), layout).ok_or_else(short)?;
            source.read(n, &mut target)
        } else {
            let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info)
                .map_err(|_| short())?;
            let mut target = Target::planes(frame.planes_data_mut(), layout).ok_or_else(short)?;
            source.read(n, &mut target)
        }
        .map_err(|error| read_error_message(&self.settings(), &error))
    }
}

fn setup_error_message(error: &SetupError) -> gst::ErrorMessage {
    use gst::{ResourceError, StreamError};
    match error {
        SetupError::Open(OpenError::NotFound { .. }) => {
            gst::error_msg!(ResourceError::NotFound, ("{error}"))
        }
        SetupError::Open(OpenError::Permission { .. }) => {
            gst::error_msg!(ResourceError::NotAuthorized, ("{error}"))
        }
        SetupError::Open(OpenError::NoWholeFrame { .. }) => {
            gst::error_msg!(StreamError::WrongType, ("{error}"))
        }
        SetupError::Open(_) => gst::error_msg!(ResourceError::OpenRead, ("{error}")),
        SetupError::Missing { .. } | SetupError::Format { .. } => {
            gst::error_msg!(StreamError::Format, ("{error}"))
        }
        SetupError::TooLarge { .. } => gst::error_msg!(ResourceError::Settings, ("{error}")),
        SetupError::Draw(_) => gst::error_msg!(StreamError::Failed, ("{error}")),
    }
}

fn read_error_message(settings: &Settings, error: &ReadError) -> gst::ErrorMessage {
    let location = settings.location.as_deref().unwrap_or("the pattern");
    gst::error_msg!(
        gst::ResourceError::Read,
        ("\"{location}\": {error}; check the medium and try to copy the file")
    )
}

#[glib::object_subclass]
impl ObjectSubclass for RawVideoSrc {
    const NAME: &'static str = "GstRawVideoSrc";
    type Type = super::RawVideoSrc;
    type ParentType = gst_base::BaseSrc;
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
            gst::PadTemplate::new(
                "src",
                gst::PadDirection::Src,
                gst::PadPresence::Always,
                &caps,
            )
            .into_iter()
            .collect()
        });
        &TEMPLATES
    }
}

impl BaseSrcImpl for RawVideoSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings();
        *self.stats.lock() = Stats::default();
        self.failed.store(false, Ordering::Relaxed);
        let input = Input::open(settings).map_err(|error| setup_error_message(&error))?;
        *self.state.lock() = State::Started(Box::new(Session {
            input,
            next: Next::START,
            stream: None,
        }));
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let stopped = std::mem::take(&mut *self.state.lock());
        drop(stopped);
        Ok(())
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn caps(&self, filter: Option<&gst::Caps>) -> Option<gst::Caps> {
        let template = self.obj().pad_template("src")?.caps().clone();
        let caps = Input::caps(&self.settings(), &template);
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
            None => caps,
        })
    }

    fn fixate(&self, caps: gst::Caps) -> gst::Caps {
        let fixated = match self.state.lock().session() {
            Some(session) => session.input.fixate(caps.clone()),
            None => return self.parent_fixate(caps),
        };
        match fixated {
            Ok(caps) => self.parent_fixate(caps),
            Err(error) => {
                self.post_error_message(setup_error_message(&error));
                // Still open caps end the negotiation.
                caps
            }
        }
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(caps)?;
        let mut state = self.state.lock();
        let Some(session) = state.session() else {
            return Err(gst::loggable_error!(CAT, "not started"));
        };
        if let Some(stream) = session.stream.take() {
            session.next = session.next.unresolve(&stream.playback.timeline);
        }
        let playback = match session.input.play(&info) {
            Ok(playback) => playback,
            Err(error) => {
                drop(state);
                self.post_error_message(setup_error_message(&error));
                return Err(gst::loggable_error!(CAT, "{error}"));
            }
        };
        let (leftover_bytes, frame_bytes) = (playback.leftover_bytes, playback.frame_bytes);
        let is_pattern = session.input.is_pattern();
        session.stream = Some(Stream { info, playback });
        drop(state);
        self.stats
            .lock()
            .set_mode(if is_pattern { "pattern" } else { "read" });
        if leftover_bytes > 0 {
            gst::warning!(
                CAT,
                imp = self,
                "the last {leftover_bytes} bytes are no whole frame of {frame_bytes} bytes and are not played"
            );
        }
        Ok(())
    }

    fn decide_allocation(
        &self,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        let decision = pool::decide(query)?;
        gst::debug!(
            CAT,
            imp = self,
            "writing into {} ({}), {} bytes, {} to {} buffers",
            decision.pool.name(),
            if decision.is_downstream {
                "downstream's"
            } else {
                "our own"
            },
            decision.size,
            decision.min,
            decision.max
        );
        let pool::Decision {
            pool,
            size,
            min,
            max,
            ..
        } = &decision;
        if query.allocation_pools().next().is_some() {
            query.set_nth_allocation_pool(0, Some(pool), *size, *min, *max);
        } else {
            query.add_allocation_pool(Some(pool), *size, *min, *max);
        }
        Ok(())
    }

    fn create(
        &self,
        _offset: u64,
        _buffer: Option<&mut gst::BufferRef>,
        _length: u32,
    ) -> Result<CreateSuccess, gst::FlowError> {
        let Some((stream_n, n)) = self.next_frame() else {
            return Err(gst::FlowError::Eos);
        };
        let waiting = Instant::now();
        let pool = self
            .obj()
            .buffer_pool()
            .ok_or(gst::FlowError::NotNegotiated)?;
        let mut buffer = pool.acquire_buffer(None)?;
        let reading = Instant::now();
        let (info, mut source, timeline) = {
            let mut state = self.state.lock();
            let stream = state.stream().ok_or(gst::FlowError::NotNegotiated)?;
            let source = stream.playback.source.take();
            (
                stream.info.clone(),
                source.ok_or(gst::FlowError::Error)?,
                stream.playback.timeline,
            )
        };
        let buffer_mut = buffer.get_mut().ok_or(gst::FlowError::Error)?;
        let outcome = self.fill_buffer(buffer_mut, &info, &mut *source, n);
        if let Some(session) = self.state.lock().session() {
            if let Some(stream) = &mut session.stream {
                stream.playback.source = Some(source);
            }
            session.next = session.next.advance();
        }
        match outcome {
            Ok(Outcome::Frame) => {}
            Ok(Outcome::End) => {
                gst::warning!(
                    CAT,
                    imp = self,
                    "the file ends before frame {n}: it has become shorter"
                );
                return Err(gst::FlowError::Eos);
            }
            Err(message) => {
                self.post_error_message(message);
                return Err(gst::FlowError::Error);
            }
        }
        buffer_mut.set_pts(
            timeline
                .time_ns(stream_n)
                .map(gst::ClockTime::from_nseconds),
        );
        buffer_mut.set_duration(
            timeline
                .frame_duration_ns(stream_n)
                .map(gst::ClockTime::from_nseconds),
        );
        buffer_mut.set_offset(stream_n);
        buffer_mut.set_offset_end(stream_n + 1);
        self.stats
            .lock()
            .frame_read(info.size() as u64, reading - waiting, reading.elapsed());
        gst::trace!(CAT, imp = self, "frame {stream_n}, {n} of the file");
        Ok(CreateSuccess::NewBuffer(buffer))
    }

    fn do_seek(&self, segment: &mut gst::Segment) -> bool {
        let Some(segment) = segment.downcast_mut::<gst::ClockTime>() else {
            return false;
        };
        let mut state = self.state.lock();
        let Some(session) = state.session() else {
            return false;
        };
        let timeline = session
            .stream
            .as_ref()
            .map(|stream| stream.playback.timeline);
        let reverse = segment.rate() < 0.0;
        let mut start = segment.start().unwrap_or_default();
        let duration = timeline
            .and_then(|timeline| timeline.duration_ns())
            .map(gst::ClockTime::from_nseconds);
        segment.set_duration(duration);
        if let (Some(timeline), true, false) = (
            timeline,
            segment
                .flags()
                .contains(gst::SegmentFlags::from_bits_truncate(
                    gst::SeekFlags::KEY_UNIT.bits(),
                )),
            reverse,
        ) {
            let n = timeline.frame_at(start.nseconds());
            start = gst::ClockTime::from_nseconds(timeline.time_ns(n).unwrap_or(0));
            segment.set_start(start);
            segment.set_time(start);
        }
        let stop = segment.stop().or(duration);
        if reverse && stop.is_none() {
            return false;
        }
        segment.set_position(if reverse { stop } else { Some(start) });
        session.next = Next::Time {
            start_ns: start.nseconds(),
            stop_ns: stop.map(gst::ClockTime::nseconds),
            reverse,
        };
        true
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        let answered = self.state.lock().stream().and_then(|stream| {
            let playback = &stream.playback;
            match query.view_mut() {
                gst::QueryViewMut::Duration(query) => {
                    playback.total(query.format()).map(|total| query.set(total))
                }
                gst::QueryViewMut::Seeking(query) => playback
                    .seekable(query.format())
                    .map(|(start, end)| query.set(true, start, end)),
                gst::QueryViewMut::Convert(query) => {
                    let (value, to) = query.get();
                    playback
                        .convert(value, to)
                        .map(|converted| query.set(value, converted))
                }
                _ => None,
            }
        });
        answered.is_some() || BaseSrcImplExt::parent_query(self, query)
    }
}
