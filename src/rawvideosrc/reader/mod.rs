// SPDX-License-Identifier: MPL-2.0
//! The ways to read frames from files, all behind [`FrameSource`], which the test pattern
//! implements, too. Nothing here knows the element.

mod carrier;
mod direct;
mod files;
mod files_ahead;
mod follow;
mod frames;
mod growing;
mod index;
mod mmap;
pub mod open;
mod read;
mod read_ahead;
pub mod scan;
mod stream;

use crate::{
    layout::{Layout, MAX_PLANES, Transfer},
    rawvideosrc::y4m::{Fields, Y4mError},
    sys::describe,
};
pub use carrier::{Carrier, Scratch};
pub use direct::DirectFile;
pub use files::{FileTable, FilesReader};
pub use files_ahead::FilesAhead;
pub use follow::Follower;
pub use frames::{FrameReader, RandomAccess};
pub use growing::GrowingReader;
pub use index::{FrameIndex, Listing};
pub use mmap::{MappedFile, OnLoss};
pub use read::PlainFile;
pub use read_ahead::{Completed, DiskFile, Prefetcher};
use std::io;
pub use stream::{StreamInput, StreamReader};

/// A mapped buffer that a frame is written to.
pub struct Destination<'a> {
    parts: [&'a mut [u8]; MAX_PLANES],
    apart: bool,
    layout: Layout,
}

impl<'a> Destination<'a> {
    /// A buffer mapped as one run of bytes, with its planes at `layout`'s offsets. `None` if
    /// a plane ends past the bytes.
    pub fn whole(bytes: &'a mut [u8], layout: Layout) -> Option<Self> {
        for plane in layout.planes() {
            if plane.end_bytes()? > bytes.len() {
                return None;
            }
        }
        Some(Self {
            parts: [bytes, &mut [], &mut [], &mut []],
            apart: false,
            layout,
        })
    }

    /// A buffer whose planes are mapped separately; offsets of `layout` are not used. `None`
    /// if a plane ends past its bytes.
    pub fn planes(planes: [&'a mut [u8]; MAX_PLANES], mut layout: Layout) -> Option<Self> {
        let n_planes = layout.n_planes;
        for (plane, bytes) in layout.planes[..n_planes].iter_mut().zip(&planes) {
            plane.offset_bytes = 0;
            if plane.end_bytes()? > bytes.len() {
                return None;
            }
        }
        Some(Self {
            parts: planes,
            apart: true,
            layout,
        })
    }

    pub fn is_whole(&self) -> bool {
        !self.apart
    }

    /// The mapping that [`crate::layout::Run::part`] numbers.
    pub fn part_mut(&mut self, part: usize) -> &mut [u8] {
        self.parts[part]
    }

    /// One row of a plane, without padding.
    pub fn row_mut(&mut self, plane: usize, row: usize) -> &mut [u8] {
        let Self {
            parts,
            apart,
            layout,
        } = self;
        let place = layout.planes[plane].row(row);
        &mut parts[if *apart { plane } else { 0 }][place]
    }
}

/// A plan for copying frames, which is computed anew only for a buffer of another layout.
#[derive(Debug)]
pub struct TransferPlan {
    source: Layout,
    target: Layout,
    apart: bool,
    pixel_bytes: Option<usize>,
    threads: usize,
    transfers: Vec<Transfer>,
}

impl TransferPlan {
    /// Copies frames laid out as `source` into buffers of `info`'s format, with that number of
    /// threads.
    pub fn new(source: Layout, info: &gst_video::VideoInfo, threads: usize) -> Self {
        let format = info.format_info();
        // A screen can show padding only in a format that it can scan out.
        let pixel_bytes = (format.n_planes() == 1 && !format.is_complex())
            .then(|| usize::try_from(info.comp_pstride(0)).unwrap_or(0));
        Self {
            source,
            target: Layout::default(),
            apart: false,
            pixel_bytes,
            threads,
            transfers: Vec::new(),
        }
    }

    /// The layout of frames in the file.
    pub fn source(&self) -> &Layout {
        &self.source
    }

    /// Computes the plan for `destination`, unless the one before was laid out the same.
    pub fn update(&mut self, destination: &Destination<'_>) {
        if self.target == destination.layout && self.apart == destination.apart {
            return;
        }
        let padding_is_free = self.pixel_bytes.is_none_or(|pixel_bytes| {
            let plane = destination.layout.planes[0];
            // The stride of a plane with a single row may be any number.
            plane.stride_bytes.saturating_sub(plane.row_bytes) < pixel_bytes
        });
        let transfer = Transfer::new(
            &self.source,
            &destination.layout,
            destination.apart,
            padding_is_free,
        );
        self.transfers = transfer.split(if destination.apart { 1 } else { self.threads });
        self.target = destination.layout;
        self.apart = destination.apart;
    }

    /// The number of threads that read a frame together.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The share of each thread; see [`Transfer::split`].
    pub fn transfers(&self) -> &[Transfer] {
        &self.transfers
    }
}

/// The result of a request for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The frame is in the buffer.
    Frame,
    /// The source ends before the end of the frame.
    End {
        /// Bytes of the frame that the source has.
        have_bytes: u64,
        missing_bytes: u64,
    },
    /// The waker has ended the wait for the frame.
    Woken,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("reading frame {frame} at byte {offset_bytes}: {}", describe(source))]
    Io {
        frame: u64,
        offset_bytes: u64,
        source: io::Error,
    },
    #[error("reading \"{}\": {}", path.display(), describe(source))]
    File {
        path: std::path::PathBuf,
        source: io::Error,
    },
    /// A file of a sequence cannot be opened.
    #[error(transparent)]
    Open(#[from] open::OpenError),
    #[error("after {frame} frames: {source}")]
    Y4m { frame: u64, source: Y4mError },
    #[error(
        "frame {frame} is no longer there: the file was truncated, and ends {missing_bytes} bytes before the end of that frame"
    )]
    Vanished { frame: u64, missing_bytes: u64 },
    /// Pages were missing when code read them, though the file has its length.
    #[error(
        "frame {frame} could not be read: its medium fails, or the file was truncated for a while"
    )]
    Unreadable { frame: u64 },
    #[error("starting {threads} threads: {why}")]
    Threads { threads: usize, why: String },
    #[error("drawing the pattern: {0}")]
    Draw(String),
}

/// The size of a regular file; `None` for a device, whose metadata do not tell it.
fn file_len_bytes(file: &std::fs::File) -> Option<u64> {
    let metadata = file.metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// A source of numbered frames.
pub trait FrameSource: Send {
    /// Writes frame `n` into `destination`: each byte of the picture once, and without reading any
    /// back.
    fn read(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<Outcome, ReadError>;

    /// Whether frame `n` seems to be in the page cache, so that `read_cached` is worth mapping a buffer. A map tells
    /// the kernel of a dma-buf that the CPU writes, so an attempt in vain would cost a second such access.
    fn is_cached(&self, _n: u64) -> bool {
        false
    }

    /// Like `read`, but only if that need not wait for a disk or server. Returns false if the frame was not read,
    /// for any reason. The caller must then call `read`, which finds the reason.
    fn read_cached(&mut self, _n: u64, _destination: &mut Destination<'_>) -> bool {
        false
    }

    /// Whether the kernel may block `read` without limit. False if `read` makes no system call,
    /// or waits only in a way that the waker can end.
    fn may_hang(&self) -> bool {
        true
    }

    /// Bytes that went through a bounce buffer so far.
    fn bounced_bytes(&self) -> u64 {
        0
    }

    /// The error if the file is now shorter than the frames that were read.
    fn loss(&self) -> Option<ReadError> {
        None
    }

    /// What frame `n`, which was read last, says about its own fields.
    fn fields(&self, _n: u64) -> Option<Fields> {
        None
    }
}
