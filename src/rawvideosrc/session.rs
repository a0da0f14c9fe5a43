// SPDX-License-Identifier: MPL-2.0
//! The state of the element from start to stop.
//!
//! Events, queries and state changes read it at any time, so its lock is held only for moments.
//! Code that opens, waits or reads takes the input or the reader out of it and puts it back.
//! All that other threads may ask about stays in it.

use super::{
    buffer_source::BufferSource, cursor::Cursor, errors::SetupError, input::Input,
    playback::Playback, pool, task_thread::TaskThread, timeline::Timeline, waker::Waker,
};
use std::sync::Arc;

pub enum State {
    /// With the seek that came before the start, if any.
    Stopped(Option<gst::Event>),
    Started(Box<Session>),
}

impl Default for State {
    fn default() -> Self {
        Self::Stopped(None)
    }
}

impl State {
    /// `None` while stopped.
    pub fn session(&mut self) -> Option<&mut Session> {
        match self {
            Self::Stopped(_) => None,
            Self::Started(session) => Some(session),
        }
    }

    /// `None` before the caps are known.
    pub fn stream(&mut self) -> Option<&mut Stream> {
        self.session()?.stream.as_mut()
    }
}

pub struct Session {
    /// Ends the waits of the streaming thread.
    pub waker: Arc<Waker>,
    /// What is played; `None` while a thread has taken it out to work with it.
    pub input: Option<Box<Input>>,
    /// The caps that the input allows.
    pub caps: gst::Caps,
    /// What the file's name suggests for the fields that `caps` leaves open.
    pub guesses: Vec<gst::Caps>,
    pub is_seekable: bool,
    /// The position of the next frame.
    pub cursor: Cursor,
    /// `None` before the caps are known.
    pub stream: Option<Stream>,
    /// The thread that prepares the next stream, if any.
    pub preparation: Option<TaskThread<Prepared>>,
    /// A seek that came before the caps.
    pub seek: Option<gst::Event>,
    /// In a live source, the running time at which a frame is due less its timestamp; `None`
    /// before the first frame is due.
    pub live_offset_ns: Option<i64>,
    pub pool: PoolInUse,
}

/// Whose pool the buffers come from.
#[derive(Debug, Default)]
pub enum PoolInUse {
    /// No pool is needed, or none has been chosen yet.
    #[default]
    None,
    Downstream,
    /// The element's own pool, which can be used again.
    OwnPool(pool::OwnPool),
}

impl Session {
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

    /// `None` before the caps are known.
    pub fn timeline(&self) -> Option<Timeline> {
        let stream = self.stream.as_ref()?;
        Some(stream.playback.timeline)
    }

    /// Takes the reader out, if it is there.
    pub fn take_source(&mut self) -> Option<BufferSource> {
        self.stream.as_mut()?.playback.source.take()
    }

    /// Puts the reader back.
    pub fn give_source(&mut self, source: Option<BufferSource>) {
        if let Some(stream) = &mut self.stream {
            stream.playback.source = source;
        }
    }
}

/// The input, and the stream that was prepared for it or the error.
pub struct Prepared {
    pub input: Box<Input>,
    pub info: gst_video::VideoInfo,
    pub playback: Result<Playback, SetupError>,
}

/// What belongs to the present caps.
pub struct Stream {
    pub info: gst_video::VideoInfo,
    pub playback: Playback,
}

impl Stream {
    /// Takes the reader out, if it is there, with the format of its frames.
    pub fn take_reader(&mut self) -> Option<(BufferSource, gst_video::VideoInfo)> {
        Some((self.playback.source.take()?, self.info.clone()))
    }
}
