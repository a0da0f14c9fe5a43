// SPDX-License-Identifier: MPL-2.0
//! A file that is mapped: its pages are copied, or wrapped as they are.

use super::{Lane, Medium, ReadError};
use crate::{layout::Run, sys::file_map::FileMap};
use std::{io, sync::Arc};

/// The mapping, shared with the memory that was made of it.
#[derive(Debug, Clone)]
pub struct MappedFile {
    map: Arc<FileMap>,
}

impl MappedFile {
    /// Over a mapping.
    pub fn new(map: Arc<FileMap>) -> Self {
        Self { map }
    }

    /// The file's own pages as read-only memory; none past their end. The
    /// mapping lives as long as the memory.
    pub fn wrap(&self, start_bytes: u64, len_bytes: usize) -> Option<gst::Memory> {
        let start = self.map.at(start_bytes, len_bytes)?;
        let owner = Arc::into_raw(self.map.clone());
        // SAFETY: the bytes are mapped for reading, as `at` checked, until the
        // mapping is dropped; the memory holds a count of it, which `release`
        // gives back once. READONLY: nobody is given the bytes to write.
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
            Some(gst::glib::translate::from_glib_full(memory))
        }
    }
}

unsafe extern "C" fn release(owner: gst::glib::ffi::gpointer) {
    // SAFETY: the pointer is the one that `wrap` got from `Arc::into_raw`, and
    // GStreamer calls this once.
    drop(unsafe { Arc::from_raw(owner.cast::<FileMap>().cast_const()) });
}

impl Medium for MappedFile {
    fn carry(
        &self,
        start_bytes: u64,
        runs: &[Run],
        part_start: usize,
        part: &mut [u8],
        _lane: &mut Lane,
    ) -> io::Result<()> {
        for run in runs {
            let to = run.target(part_start, part);
            self.map
                .copy_to(start_bytes + run.source_bytes as u64, to)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        Ok(())
    }

    fn check(&self, frame: u64) -> Result<(), ReadError> {
        if self.map.is_damaged() {
            return Err(ReadError::Vanished { frame });
        }
        Ok(())
    }
}
