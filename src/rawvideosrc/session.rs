// SPDX-License-Identifier: MPL-2.0
//! What the element knows from start to stop.
//!
//! Events, queries and state changes look into it at any time, so it is locked for
//! moments only. Whoever opens, awaits or reads takes what that needs out and puts
//! it back; all that others may ask about stays.

use super::{
    buffer_source::BufferSource, cursor::Cursor, errors::SetupError, input::Input,
    playback::Playback, pool, task_thread::TaskThread, timeline::Timeline, waker::Waker,
};
use std::sync::Arc;

/// Started, or not.
pub enum State {
    /// With the seek to start with, if one has come already.
    Stopped(Option<gst::Event>),
    /// Between start and stop.
    Started(Box<Session>),
}

impl Default for State {
    fn default() -> Self {
        Self::Stopped(None)
    }
}

impl State {
    /// None while stopped.
    pub fn session(&mut self) -> Option<&mut Session> {
        match self {
            Self::Stopped(_) => None,
            Self::Started(session) => Some(session),
        }
    }

    /// None before the caps are known.
    pub fn stream(&mut self) -> Option<&mut Stream> {
        self.session()?.stream.as_mut()
    }
}

/// From start to stop.
pub struct Session {
    /// Ends the waits of the streaming thread.
    pub waker: Arc<Waker>,
    /// What is played; out while the streaming thread works with it.
    pub input: Option<Box<Input>>,
    /// What the caps can be.
    pub caps: gst::Caps,
    /// What the file's name suggests of what those leave open.
    pub guesses: Vec<gst::Caps>,
    /// Whether one can go to any frame.
    pub is_seekable: bool,
    /// The frame that comes next.
    pub cursor: Cursor,
    /// Once the caps are known.
    pub stream: Option<Stream>,
    /// The stream to come, in the making.
    pub preparation: Option<TaskThread<Prepared>>,
    /// A seek that came before the caps.
    pub seek: Option<gst::Event>,
    /// What is added to the time of a frame to get the running time when it is due,
    /// in a live source; none until the first frame is.
    pub live_offset_ns: Option<i64>,
    /// Where buffers come from.
    pub pool: PoolInUse,
}

/// Whose buffers are written to.
#[derive(Debug, Default)]
pub enum PoolInUse {
    /// None is needed, or nothing has been decided yet.
    #[default]
    None,
    /// Downstream's.
    Downstream,
    /// Our own, which may serve again.
    OwnPool(pool::OwnPool),
}

impl Session {
    /// Nothing is played yet.
    pub fn new(input: Input, template: &gst::Caps, waker: Arc<Waker>) -> Self {
        Self {
            waker,
            caps: input.caps(template),
            guesses: input.guesses(),
            is_seekable: input.is_seekable(),
            input: Some(Box::new(input)),
            cursor: Cursor::START,
            stream: None,
            preparation: None,
            seek: None,
            live_offset_ns: None,
            pool: PoolInUse::None,
        }
    }

    /// The times of the frames, once the caps are known.
    pub fn timeline(&self) -> Option<Timeline> {
        let stream = self.stream.as_ref()?;
        Some(stream.playback.timeline)
    }

    /// The reader, if it is there.
    pub fn take_source(&mut self) -> Option<BufferSource> {
        self.stream.as_mut()?.playback.source.take()
    }

    /// The reader is back.
    pub fn give_source(&mut self, source: Option<BufferSource>) {
        if let Some(stream) = &mut self.stream {
            stream.playback.source = source;
        }
    }
}

/// A stream, or why there is none, and the input back.
pub struct Prepared {
    pub input: Box<Input>,
    pub info: gst_video::VideoInfo,
    pub playback: Result<Playback, SetupError>,
}

/// From caps to caps.
pub struct Stream {
    pub info: gst_video::VideoInfo,
    pub playback: Playback,
}

impl Stream {
    /// The reader, if it is there, and the caps.
    pub fn take_reader(&mut self) -> Option<(BufferSource, gst_video::VideoInfo)> {
        Some((self.playback.source.take()?, self.info.clone()))
    }
}
