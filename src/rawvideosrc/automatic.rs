// SPDX-License-Identifier: MPL-2.0
//! The choice of `io-mode=auto`: to read a file through the page cache or past it (O_DIRECT).
//!
//! [`direct_file`] checks the file when the stream is prepared, and [`Automatic`] checks the memory of the
//! first buffer. `docs/speed.md` has the measurements behind the limits.

use super::{
    ahead::Ahead,
    delivery::{Delivery, FrameRequest, Undelivered},
    reader::{DirectFile, FrameIndex, FrameSource},
    reader_thread::ReaderThread,
    y4m::Fields,
};
use crate::{
    layout::{Layout, Transfer},
    memory,
    sys::{describe, meminfo, page_cache},
};
use std::{fs::File, ops::Range};

/// Smaller frames are read through the page cache: their buffers have no large pages.
const LEAST_FRAME_BYTES: u64 = 2 << 20;
/// If fewer bytes are played, they are read through the page cache, because the kernel has read them ahead
/// before direct reads gain anything.
const LEAST_FILE_BYTES: u64 = 64 << 20;
/// The largest share of a file that may be in the page cache. What is there comes faster through the page cache,
/// by as much as the rest comes faster past it.
const MOST_CACHED: f64 = 0.2;
/// The least share of a buffer that must lie in large pages.
const LEAST_LARGE: f64 = 0.66;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadPath {
    PageCache,
    Direct,
}

/// The choice as `stats` shows it: the mode and the reason.
pub type ModeChoice = (&'static str, String);

/// The frames that are to be played.
pub struct Frames<'a> {
    pub index: &'a FrameIndex,
    pub frame_bytes: u64,
    /// The first frame to play and the number of frames.
    pub range: (u64, u64),
    /// Whether the frames are played more than once.
    pub is_looping: bool,
}

impl Frames<'_> {
    /// The bytes of the file that are played.
    fn bytes(&self) -> Option<Range<u64>> {
        let (first, count) = self.range;
        let last = first.checked_add(count)?.checked_sub(1)?;
        let end = self
            .index
            .start_bytes(last)?
            .checked_add(self.frame_bytes)?;
        Some(self.index.start_bytes(first)?..end)
    }

    /// Whether each frame begins at a multiple of `unit_bytes`.
    fn are_aligned(&self, unit_bytes: u64) -> bool {
        match self.index {
            FrameIndex::Regular {
                start_bytes,
                step_bytes,
            } => start_bytes.is_multiple_of(unit_bytes) && step_bytes.is_multiple_of(unit_bytes),
            FrameIndex::Listed(_) => false,
        }
    }
}

/// The file for direct reads, or why it is read better through the page cache.
pub fn direct_file(file: File, frames: &Frames<'_>) -> Result<DirectFile, String> {
    let bytes = frames.bytes().ok_or("its frames are not known")?;
    let played_bytes = bytes.end.saturating_sub(bytes.start);
    if frames.frame_bytes < LEAST_FRAME_BYTES {
        return Err(format!(
            "frames of less than {} MiB come no faster past it",
            LEAST_FRAME_BYTES >> 20
        ));
    }
    if !usize::try_from(frames.frame_bytes).is_ok_and(memory::takes_large_pages) {
        return Err("this kernel has no large pages that a frame fills".into());
    }
    if played_bytes < LEAST_FILE_BYTES {
        return Err(format!(
            "less than {} MiB are played",
            LEAST_FILE_BYTES >> 20
        ));
    }
    if frames.is_looping && fits_in_memory(played_bytes) {
        return Err("it has room for all that is played again and again".into());
    }
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err("this is a device and not a file".into());
    }
    match page_cache::cached_share(&file, bytes) {
        Ok(share) if share <= MOST_CACHED => {}
        Ok(share) => return Err(format!("it has {:.0} % of the file already", 100.0 * share)),
        Err(error) => {
            let error = describe(&error);
            return Err(format!("the kernel does not tell what is in it: {error}"));
        }
    }
    let direct = DirectFile::new(file)
        .map_err(|error| format!("the file cannot be opened for that: {}", describe(&error)))?;
    if !direct.is_alignment_reported() {
        return Err("the file system does not say that it reads from a disk past it".into());
    }
    if !frames.are_aligned(direct.offset_alignment_bytes()) {
        return Err("frames do not begin where blocks of the disk begin".into());
    }
    Ok(direct)
}

fn fits_in_memory(bytes: u64) -> bool {
    let available = meminfo::field_bytes("MemAvailable").ok().flatten();
    available.is_none_or(|available| bytes < available / 2)
}

/// Reads past the page cache if that is faster with the memory of the buffers, else through it.
pub struct Automatic {
    through: ReaderThread<dyn FrameSource>,
    past: Ahead,
    /// The layout of a frame in the file.
    file_layout: Layout,
    /// `None` until the first buffer was acquired, and after the pool may have changed.
    path: Option<ReadPath>,
    told: Option<ReadPath>,
}

impl Automatic {
    /// `through` reads the file through the page cache and `past` past it.
    pub fn new(through: ReaderThread<dyn FrameSource>, past: Ahead, file_layout: Layout) -> Self {
        Self {
            through,
            past,
            file_layout,
            path: None,
            told: None,
        }
    }

    /// How many buffers are filled at the same time.
    pub fn depth(&self) -> usize {
        self.past.depth()
    }

    /// Makes the next delivery drop the frames in flight, and choose again by the memory of its buffer.
    pub fn reset(&mut self) {
        self.past.reset();
        self.path = None;
    }

    pub fn bounced_bytes(&self) -> u64 {
        self.past.bounced_bytes()
    }

    pub fn fields(&mut self, file_n: u64) -> Option<Fields> {
        match self.path {
            Some(ReadPath::Direct) => self.past.fields(file_n),
            _ => self.through.reader()?.fields(file_n),
        }
    }

    /// Frame `n` of the stream, which is frame `file_n` of the file.
    pub fn deliver(
        &mut self,
        request: &FrameRequest<'_>,
        n: u64,
        file_n: u64,
    ) -> Result<Delivery, Undelivered> {
        let path = match self.path {
            Some(path) => path,
            None => {
                // Reads that go on hold buffers, of which the pool may have no more.
                self.past.abandon(request)?;
                self.through.abandon(request)?;
                let path = self.path_into(request, &*request.acquire(true)?);
                *self.path.insert(path)
            }
        };
        match path {
            ReadPath::PageCache => self.through.deliver(request, file_n),
            ReadPath::Direct => self.past.deliver(request, n),
        }
    }

    /// The mode and its reason, if they have changed since the last call.
    pub fn mode_change(&mut self) -> Option<ModeChoice> {
        let path = self.path.filter(|path| self.told != Some(*path))?;
        self.told = Some(path);
        Some(match path {
            ReadPath::PageCache => (
                "read",
                "the kernel reads ahead into the page cache, and reading past it is faster only into buffers of large pages with the file's layout".into(),
            ),
            ReadPath::Direct => (
                "io-uring",
                "past the page cache, which does not have the file, the disk writes into the buffers' large pages".into(),
            ),
        })
    }

    /// The faster path to read into buffers with memory like that of `buffer`.
    fn path_into(&self, request: &FrameRequest<'_>, buffer: &gst::BufferRef) -> ReadPath {
        match has_large_pages(buffer) && self.is_one_run(request.info, buffer) {
            true => ReadPath::Direct,
            false => ReadPath::PageCache,
        }
    }

    /// Whether a frame is one run of bytes in the file and in the buffer. Otherwise direct reads go through a
    /// bounce buffer.
    fn is_one_run(&self, info: &gst_video::VideoInfo, buffer: &gst::BufferRef) -> bool {
        Layout::of_buffer(info, buffer).is_ok_and(|target| {
            Transfer::new(&self.file_layout, &target, false, true)
                .runs()
                .len()
                == 1
        })
    }
}

fn has_large_pages(buffer: &gst::BufferRef) -> bool {
    let is_large = |memory: &gst::MemoryRef| {
        memory::region_of(memory).is_some_and(|(region, _)| {
            region.large_page_bytes() as f64 >= LEAST_LARGE * region.size_bytes() as f64
        })
    };
    buffer.n_memory() == 1 && is_large(buffer.peek_memory(0))
}
