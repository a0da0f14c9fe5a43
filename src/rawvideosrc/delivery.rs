// SPDX-License-Identifier: MPL-2.0
//! What is asked of a source of buffers and what it answers, and the filling of one
//! buffer in the thread that asks.

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

/// What is asked of a source.
pub struct FrameRequest<'a> {
    pub info: &'a gst_video::VideoInfo,
    pub timeline: &'a Timeline,
    /// Number in the file of the stream's frame 0.
    pub first_frame: u64,
    /// The frame that is due; resolved.
    pub cursor: Cursor,
    /// Where buffers come from.
    pub pool: Option<&'a gst::BufferPool>,
    pub waker: &'a Waker,
}

impl FrameRequest<'_> {
    /// Number in the file of a frame of the stream.
    pub fn file_frame(&self, n: u64) -> Option<u64> {
        self.timeline
            .frame_of_pass(n)?
            .checked_add(self.first_frame)
    }

    /// An empty buffer.
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

/// A frame, and how long it took.
pub struct Delivery {
    /// Not stamped yet.
    pub buffer: gst::Buffer,
    /// Time spent waiting for a buffer.
    pub waited: Duration,
    /// Time spent filling it, or waiting until it was filled.
    pub read: Duration,
    /// What the frame says of its own fields.
    pub fields: Option<Fields>,
}

impl Delivery {
    /// How its fields are stored, for a buffer in `info`'s format.
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
    /// What the pool said.
    Flow(gst::FlowError),
    /// All frames have been played.
    Finished,
    /// The stream is over.
    Ended {
        /// Number of the frame that would have been next.
        frame: u64,
        /// Bytes of it that came.
        have_bytes: u64,
        /// Bytes of it that did not.
        missing_bytes: u64,
    },
    /// The waker ended a wait.
    Woken,
    Read(ReadError),
    /// The pool's buffers cannot take the frames.
    Buffer(BufferError),
}

/// What is wrong with a buffer.
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
    /// Of a frame that the file had when its frames were counted.
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

/// What has become of a frame, if the buffer could take it.
pub type Filled = Result<Result<Outcome, ReadError>, BufferError>;

/// Fills a buffer in this thread.
pub fn deliver_now<R: FrameSource + ?Sized>(
    source: &mut R,
    request: &FrameRequest<'_>,
    file_n: u64,
) -> Result<Delivery, Undelivered> {
    let waiting = Instant::now();
    let buffer = request.acquire(true)?;
    deliver_in(source, request, file_n, buffer, waiting.elapsed())
}

/// Fills that buffer in this thread.
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

/// The answer to a request, of what has become of the buffer.
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

/// Fills the buffer with frame `n` of the file.
pub fn fill<R: FrameSource + ?Sized>(
    source: &mut R,
    info: &gst_video::VideoInfo,
    buffer: &mut gst::BufferRef,
    n: u64,
) -> Filled {
    let layout = Layout::of_buffer(info, buffer)?;
    let unwritable = || BufferError::Unwritable(Box::new(layout));
    if buffer.n_memory() == 1 {
        let mut map = WriteMap::new(buffer).map_err(|_| unwritable())?;
        let mut destination =
            Destination::whole(map.as_mut_slice(), layout).ok_or_else(unwritable)?;
        return Ok(source.read(n, &mut destination));
    }
    let mut frame = write_map::frame(buffer, info).map_err(|_| unwritable())?;
    let mut destination =
        Destination::planes(frame.planes_data_mut(), layout).ok_or_else(unwritable)?;
    Ok(source.read(n, &mut destination))
}
