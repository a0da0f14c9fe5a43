// SPDX-License-Identifier: MPL-2.0
//! The request for a frame and its answer, and how a buffer is filled in the calling thread.

use super::{
    cursor::Cursor,
    reader::{Destination, FrameSource, Outcome, ReadError},
    timeline::Timeline,
    waker::Waker,
    y4m::Fields,
};
use crate::{
    layout::{Layout, LayoutError},
    write_map::{self, WriteMap},
};
use gst::prelude::*;
use gst_video::{VideoBufferFlags, VideoFieldOrder, VideoInterlaceMode};
use std::{
    io,
    time::{Duration, Instant},
};

pub struct FrameRequest<'a> {
    pub info: &'a gst_video::VideoInfo,
    pub timeline: &'a Timeline,
    /// The number in the file of the stream's frame 0.
    pub first_frame: u64,
    /// The frame that is due. It is not [`Cursor::Time`].
    pub cursor: Cursor,
    /// The pool of the buffers. Without it, requests fail with `NotNegotiated`.
    pub pool: Option<&'a gst::BufferPool>,
    pub waker: &'a Waker,
}

impl FrameRequest<'_> {
    /// The number in the file of frame `n` of the stream; `None` after the last frame.
    pub fn file_frame(&self, n: u64) -> Option<u64> {
        self.timeline
            .frame_of_pass(n)?
            .checked_add(self.first_frame)
    }

    /// Acquires a buffer. Without `wait`, fails with `Eos` if none is free.
    pub fn acquire(&self, wait: bool) -> Result<gst::Buffer, Undelivered> {
        let pool = self
            .pool
            .ok_or(Undelivered::Flow(gst::FlowError::NotNegotiated))?;
        let dont_wait =
            gst::BufferPoolAcquireParams::with_flags(gst::BufferPoolAcquireFlags::DONTWAIT);
        let params = (!wait).then_some(&dont_wait);
        pool.acquire_buffer(params).map_err(Undelivered::Flow)
    }
}

/// A frame in a buffer, and how long it took.
pub struct Delivery {
    /// The buffer, without timestamps yet.
    pub buffer: gst::Buffer,
    /// The time spent waiting for a buffer.
    pub waited: Duration,
    /// The time spent filling the buffer, or waiting until it was filled.
    pub read: Duration,
    /// How the fields are stored, if the frame's own header says so.
    pub fields: Option<Fields>,
}

impl Delivery {
    /// The buffer flags that say how the fields are stored, for a frame of the format `info`.
    pub fn video_flags(&self, info: &gst_video::VideoInfo) -> VideoBufferFlags {
        let mut flags = VideoBufferFlags::empty();
        if info.interlace_mode() == VideoInterlaceMode::Mixed {
            let fields = self.fields.unwrap_or_default();
            flags.set(VideoBufferFlags::INTERLACED, fields.is_interlaced);
            flags.set(VideoBufferFlags::TFF, fields.top_first);
            flags.set(VideoBufferFlags::RFF, fields.repeats_first);
        } else if info.is_interlaced() {
            let is_top_first = info.field_order() == VideoFieldOrder::TopFieldFirst;
            flags |= VideoBufferFlags::INTERLACED;
            flags.set(VideoBufferFlags::TFF, is_top_first);
        }
        flags
    }
}

/// Why there is no frame.
#[derive(Debug)]
pub enum Undelivered {
    /// The pool gave no buffer, for this reason.
    Flow(gst::FlowError),
    /// All frames have been played.
    Finished,
    /// The data ended before or within this frame.
    Ended {
        /// The number in the file of the frame that is missing.
        frame: u64,
        /// The bytes of that frame that were read.
        have_bytes: u64,
        /// The bytes of that frame that are missing.
        missing_bytes: u64,
    },
    /// The waker ended a wait.
    Woken,
    Read(ReadError),
    /// The pool's buffers cannot take the frames.
    Buffer(BufferError),
}

/// Why a buffer cannot take a frame.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    #[error("a buffer of the pool does not fit the format: {0}")]
    Layout(#[from] LayoutError),
    #[error("a buffer of the pool is too small for a frame, or cannot be written: {0:?}")]
    Unwritable(Box<Layout>),
    #[error("a buffer of the pool is in use already")]
    Shared,
    #[error("a buffer cannot be read into: {0}")]
    Ring(io::Error),
}

impl From<BufferError> for Undelivered {
    fn from(error: BufferError) -> Self {
        Self::Buffer(error)
    }
}

impl Undelivered {
    /// Turns an end into an error, for a frame that the file had when its frames were counted.
    pub fn promised(self) -> Self {
        match self {
            Self::Ended {
                frame,
                missing_bytes,
                ..
            } => Self::Read(ReadError::Vanished {
                frame,
                missing_bytes,
            }),
            other => other,
        }
    }
}

/// The result of reading into a buffer. The outer error is that the buffer cannot take the frame.
pub type Filled = Result<Result<Outcome, ReadError>, BufferError>;

/// Acquires a buffer and fills it in the calling thread.
pub fn deliver_now<R: FrameSource + ?Sized>(
    source: &mut R,
    request: &FrameRequest<'_>,
    file_n: u64,
) -> Result<Delivery, Undelivered> {
    let waiting = Instant::now();
    let buffer = request.acquire(true)?;
    deliver_in(source, request, file_n, buffer, waiting.elapsed())
}

/// Fills `buffer` in the calling thread. `waited` is the time that it took to acquire it.
pub fn deliver_in<R: FrameSource + ?Sized>(
    source: &mut R,
    request: &FrameRequest<'_>,
    file_n: u64,
    mut buffer: gst::Buffer,
    waited: Duration,
) -> Result<Delivery, Undelivered> {
    let reading = Instant::now();
    let buffer_mut = buffer.get_mut().ok_or(BufferError::Shared)?;
    let outcome = fill(source, request.info, buffer_mut, file_n)?;
    delivered(outcome, buffer, file_n, waited, reading)
}

/// The answer to a request for the outcome of its read, which began at `reading`.
pub fn delivered(
    outcome: Result<Outcome, ReadError>,
    buffer: gst::Buffer,
    file_n: u64,
    waited: Duration,
    reading: Instant,
) -> Result<Delivery, Undelivered> {
    match outcome {
        Ok(Outcome::Frame) => Ok(Delivery {
            buffer,
            waited,
            read: reading.elapsed(),
            fields: None,
        }),
        Ok(Outcome::End {
            have_bytes,
            missing_bytes,
        }) => Err(Undelivered::Ended {
            frame: file_n,
            have_bytes,
            missing_bytes,
        }),
        Ok(Outcome::Woken) => Err(Undelivered::Woken),
        Err(error) => Err(Undelivered::Read(error)),
    }
}

/// Reads frame `n` of the file into the buffer.
pub fn fill<R: FrameSource + ?Sized>(
    source: &mut R,
    info: &gst_video::VideoInfo,
    buffer: &mut gst::BufferRef,
    n: u64,
) -> Filled {
    fill_with(info, buffer, |destination| source.read(n, destination))
}

/// Maps the buffer and calls `read` with it.
pub fn fill_with<T>(
    info: &gst_video::VideoInfo,
    buffer: &mut gst::BufferRef,
    read: impl FnOnce(&mut Destination<'_>) -> T,
) -> Result<T, BufferError> {
    let layout = Layout::of_buffer(info, buffer)?;
    let unwritable = || BufferError::Unwritable(Box::new(layout));
    if buffer.n_memory() == 1 {
        let mut map = WriteMap::new(buffer).map_err(|_| unwritable())?;
        let mut destination =
            Destination::whole(map.as_mut_slice(), layout).ok_or_else(unwritable)?;
        return Ok(read(&mut destination));
    }
    let mut frame = write_map::frame(buffer, info).map_err(|_| unwritable())?;
    let mut destination =
        Destination::planes(frame.planes_data_mut(), layout).ok_or_else(unwritable)?;
    Ok(read(&mut destination))
}
