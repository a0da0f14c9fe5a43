// SPDX-License-Identifier: MPL-2.0
//! Where frames come from: files in several ways, or a drawn pattern, all
//! behind [`FrameSource`]. Plain structs that know no element.

mod direct;
mod files;
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
pub use direct::DirectFile;
pub use files::{FileTable, FilesReader};
pub use follow::Follower;
pub use frames::{FrameReader, Medium, Scratch};
pub use growing::GrowingReader;
pub use index::{FrameIndex, Listing};
pub use mmap::{MappedFile, OnLoss};
pub use read::PlainFile;
pub use read_ahead::{Completed, DiskFile, Prefetcher};
use std::io;
pub use stream::{StreamInput, StreamReader};

/// The mapped buffer that a frame is written to.
pub struct Target<'a> {
    parts: [&'a mut [u8]; MAX_PLANES],
    apart: bool,
    layout: Layout,
}

impl<'a> Target<'a> {
    /// A buffer mapped as one run of bytes, with its planes at `layout`'s offsets.
    /// None if a plane ends past the bytes.
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

    /// A buffer whose planes are mapped each on its own; offsets of `layout`
    /// are not used.
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

    /// Whether all planes are in one mapping.
    pub fn is_whole(&self) -> bool {
        !self.apart
    }

    /// A mapping, by [`crate::layout::Run::part`].
    pub fn part_mut(&mut self, part: usize) -> &mut [u8] {
        self.parts[part]
    }

    /// One row of a plane, picture bytes only.
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

/// A planned transfer that is made anew only when a buffer is laid out otherwise.
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
    /// From frames laid out as `source` to buffers of `info`'s format, carried
    /// by so many threads.
    pub fn new(source: Layout, info: &gst_video::VideoInfo, threads: usize) -> Self {
        let format = info.format_info();
        // Only formats that a screen can scan out have padding that may be seen.
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

    /// The layout that frames come in.
    pub fn source(&self) -> &Layout {
        &self.source
    }

    /// Plans for a target, if the one before was laid out otherwise.
    pub fn update(&mut self, target: &Target<'_>) {
        if self.target == target.layout && self.apart == target.apart {
            return;
        }
        let padding_is_free = self.pixel_bytes.is_none_or(|pixel_bytes| {
            let plane = target.layout.planes[0];
            // The stride of a single row may be anything.
            plane.stride_bytes.saturating_sub(plane.row_bytes) < pixel_bytes
        });
        let transfer = Transfer::new(&self.source, &target.layout, target.apart, padding_is_free);
        self.transfers = transfer.split(if target.apart { 1 } else { self.threads });
        self.target = target.layout;
        self.apart = target.apart;
    }

    /// How many threads carry a frame.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// What each thread carries; see [`Transfer::split`].
    pub fn transfers(&self) -> &[Transfer] {
        &self.transfers
    }
}

/// What a source gives for a frame that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The frame is in the buffer.
    Frame,
    /// There is no such frame: the source ends before its end.
    End {
        /// Bytes of it that there are.
        have_bytes: u64,
        missing_bytes: u64,
    },
    /// The wait for it was ended by the waker.
    Woken,
}

/// What goes wrong while frames are read.
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
    /// One file of many, before a byte of it is read.
    #[error(transparent)]
    Open(#[from] open::OpenError),
    #[error("after {frame} frames: {source}")]
    Y4m { frame: u64, source: Y4mError },
    #[error(
        "frame {frame} is no longer there: the file was truncated, and ends {missing_bytes} bytes before the end of that frame"
    )]
    Vanished { frame: u64, missing_bytes: u64 },
    /// Mapped pages that were missing when somebody looked at them, though the file
    /// has its length.
    #[error(
        "frame {frame} could not be read: its medium fails, or the file was truncated for a while"
    )]
    Unreadable { frame: u64 },
    #[error("starting {threads} threads: {why}")]
    Threads { threads: usize, why: String },
    #[error("drawing the pattern: {0}")]
    Draw(String),
}

/// The size of a regular file; a device tells it in ways of its own.
fn file_len_bytes(file: &std::fs::File) -> Option<u64> {
    let metadata = file.metadata().ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// Frames by number.
pub trait FrameSource: Send {
    /// Writes frame `n` into `target`, each byte of the picture once and
    /// without reading any back.
    fn read(&mut self, n: u64, target: &mut Target<'_>) -> Result<Outcome, ReadError>;

    /// Whether the kernel may hold `read` up for as long as it likes. Not, where it
    /// makes no system call, or waits by itself where it can be woken.
    fn may_hang(&self) -> bool {
        true
    }

    /// Bytes that had to be copied on their way into buffers, beside the read.
    fn bounced_bytes(&self) -> u64 {
        0
    }

    /// What has become of frames that were read, if their file is shorter now.
    fn loss(&self) -> Option<ReadError> {
        None
    }

    /// What frame `n`, which was read last, says about its own fields.
    fn fields(&self, _n: u64) -> Option<Fields> {
        None
    }
}
