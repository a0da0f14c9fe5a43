// SPDX-License-Identifier: MPL-2.0
//! A mapped file, whose pages are copied into buffers or sent as they are. If the file is
//! truncated, code that reads the missing pages sees zeroes. This becomes an error as soon as
//! possible: before the next frame, at the end of the stream, or when downstream frees the
//! memory that showed the zeroes.

use super::{FrameIndex, RandomAccess, ReadError, Scratch, file_len_bytes, frames::vanished};
use crate::locks::Mutex;
use crate::{layout::Run, sys::file_map::FileMap};
use std::{fs::File, io, sync::Arc};

/// Called when code has read bytes that are missing from the file.
pub type OnLoss = Box<dyn FnOnce(ReadError) + Send>;

/// The mapping and what it needs, shared with the GstMemory made of its pages.
struct SharedMap {
    map: FileMap,
    file: File,
    index: FrameIndex,
    frame_bytes: u64,
    /// Called once. `None` before it is set, and after the [`MappedFile`] is dropped.
    on_loss: Mutex<Option<OnLoss>>,
}

pub struct MappedFile {
    shared: Arc<SharedMap>,
    /// The greatest offset at which a wrapped frame ends.
    lent_end_bytes: u64,
}

impl MappedFile {
    /// Maps the first `len_bytes` of `file`, whose frames of `frame_bytes` lie at `index`.
    pub fn new(
        file: File,
        len_bytes: usize,
        index: FrameIndex,
        frame_bytes: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(SharedMap {
                map: FileMap::new(&file, len_bytes)?,
                file,
                index,
                frame_bytes: frame_bytes as u64,
                on_loss: Mutex::new(None),
            }),
            lent_end_bytes: 0,
        })
    }

    /// `on_loss` is called if bytes were missing in memory that downstream has freed.
    pub fn set_on_loss(&self, on_loss: OnLoss) {
        *self.shared.on_loss.lock() = Some(on_loss);
    }

    /// The file's own pages as read-only memory, which keeps the mapping alive. Fails with
    /// `UnexpectedEof` past the end of the file.
    pub fn wrap(&mut self, start_bytes: u64, len_bytes: usize) -> io::Result<gst::Memory> {
        let end_bytes = start_bytes.saturating_add(len_bytes as u64);
        let eof = io::Error::from(io::ErrorKind::UnexpectedEof);
        if self.shared.ends_before(end_bytes) {
            return Err(eof);
        }
        let start = self.shared.map.at(start_bytes, len_bytes).ok_or(eof)?;
        self.lent_end_bytes = self.lent_end_bytes.max(end_bytes);
        let owner = Arc::into_raw(self.shared.clone());
        // SAFETY: the bytes are mapped for reading, as `at` checked, until the mapping is
        // dropped. The memory owns a count of its Arc, which `release` gives back once.
        // READONLY keeps GStreamer from mapping the bytes for writing.
        unsafe {
            let memory = gst::ffi::gst_memory_new_wrapped(
                gst::ffi::GST_MEMORY_FLAG_READONLY,
                start.as_ptr().cast(),
                len_bytes,
                0,
                len_bytes,
                owner.cast_mut().cast(),
                Some(release),
            );
            Ok(gst::glib::translate::from_glib_full(memory))
        }
    }

    /// The error if wrapped memory has, or may have, shown missing bytes, because the file
    /// has become shorter than the end of that memory.
    pub fn loss_of_lent(&self) -> Option<ReadError> {
        if self.shared.ends_before(self.lent_end_bytes) {
            let len_bytes = file_len_bytes(&self.shared.file)?;
            return Some(self.shared.vanished(len_bytes));
        }
        self.shared.loss()
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // Memory that is freed from now on belongs to a stream that has ended.
        self.shared.on_loss.lock().take();
    }
}

impl SharedMap {
    fn ends_before(&self, end_bytes: u64) -> bool {
        file_len_bytes(&self.file).is_some_and(|len_bytes| len_bytes < end_bytes)
    }

    fn loss(&self) -> Option<ReadError> {
        let missing_from = self.map.missing_from()?;
        match file_len_bytes(&self.file) {
            // A truncated file lacks its pages from the first one after its end on.
            Some(len_bytes) if len_bytes <= missing_from => Some(self.vanished(len_bytes)),
            _ => {
                let (frame, _) = self.index.first_incomplete(missing_from, self.frame_bytes);
                Some(ReadError::Unreadable { frame })
            }
        }
    }

    fn vanished(&self, len_bytes: u64) -> ReadError {
        vanished(&self.index, len_bytes, self.frame_bytes)
    }

    /// Called when downstream has freed one memory.
    fn report_loss(&self) {
        if let Some(loss) = self.loss() {
            let on_loss = self.on_loss.lock().take();
            if let Some(on_loss) = on_loss {
                on_loss(loss);
            }
        }
    }
}

unsafe extern "C" fn release(owner: gst::glib::ffi::gpointer) {
    // SAFETY: the pointer is the one that `wrap` got from `Arc::into_raw`, and GStreamer calls
    // this once for it.
    let shared = unsafe { Arc::from_raw(owner.cast::<SharedMap>().cast_const()) };
    shared.report_loss();
}

impl RandomAccess for MappedFile {
    fn carry(
        &self,
        start_bytes: u64,
        runs: &[Run],
        part_start: usize,
        part: &mut [u8],
        _scratch: &mut Scratch,
    ) -> io::Result<()> {
        let mut end_bytes = 0;
        for run in runs {
            let to = run.target(part_start, part);
            let from_bytes = start_bytes + run.source_bytes as u64;
            end_bytes = end_bytes.max(from_bytes + to.len() as u64);
            let copied = self.shared.map.copy_to(from_bytes, to);
            copied.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        // In the page where the file ends, bytes after the end are zero and raise no signal.
        if self.shared.ends_before(end_bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn len_bytes(&self) -> Option<u64> {
        file_len_bytes(&self.shared.file)
    }

    fn loss(&self) -> Option<ReadError> {
        self.shared.loss()
    }
}
