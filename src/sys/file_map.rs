// SPDX-License-Identifier: MPL-2.0
//! Read-only file mappings that survive truncation of the file, and reads that survive it of mappings that other code
//! has made.
//!
//! If a mapped page is behind the end of a truncated file, or cannot be read from its medium, an access
//! raises SIGBUS in the thread that reads it, which may be in any element downstream. So each mapping makes
//! sure that a SIGBUS handler is installed, as libwayland does for shared memory pools. If the address is
//! inside one of our mappings, the handler maps zeroed pages there, and the mapping notes where the missing
//! bytes begin. [`sigbus`] describes what happens to every other SIGBUS.

mod sigbus;

use std::{io, os::fd::AsFd, ptr, ptr::NonNull};

use nix::sys::mman;
use sigbus::WatchedMapping;

/// A file mapped read-only from its first byte.
pub struct FileMap {
    ptr: NonNull<u8>,
    len_bytes: usize,
    record: &'static WatchedMapping,
}

// SAFETY: a mapping belongs to the process; the type gives out a raw pointer only.
unsafe impl Send for FileMap {}
// SAFETY: as above; what is shared is read-only.
unsafe impl Sync for FileMap {}

impl std::fmt::Debug for FileMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileMap")
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}

impl FileMap {
    pub fn new(file: impl AsFd, len_bytes: usize) -> io::Result<Self> {
        sigbus::install()?;
        let ptr = super::mmap::map_shared(file, len_bytes, mman::ProtFlags::PROT_READ)?;
        let start = ptr.as_ptr() as usize;
        let end = (start + len_bytes).next_multiple_of(super::mmap::page_size_bytes());
        let record = sigbus::claim();
        record.watch(start..end);
        Ok(Self {
            ptr: ptr.cast(),
            len_bytes,
            record,
        })
    }

    /// Offset of the first missing byte that was accessed. The file did not have that byte (any more), and
    /// it reads as zero.
    pub fn missing_from(&self) -> Option<u64> {
        let missing = self.record.missing()?;
        Some((missing - self.ptr.as_ptr() as usize) as u64)
    }

    /// Address of the byte at `offset_bytes`. `None` unless `len_bytes` from there on are mapped.
    pub fn at(&self, offset_bytes: u64, len_bytes: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset_bytes).ok()?;
        let end = offset.checked_add(len_bytes)?;
        if end > self.len_bytes {
            return None;
        }
        // SAFETY: the offset lies inside the mapping, as was just checked.
        Some(unsafe { self.ptr.add(offset) })
    }

    /// Copies bytes out of the mapping. If the file is written to meanwhile, the copy may have old or new
    /// bytes. `None` if the bytes are not mapped.
    pub fn copy_to(&self, offset_bytes: u64, to: &mut [u8]) -> Option<()> {
        let from = self.at(offset_bytes, to.len())?;
        // SAFETY: `from` is mapped for the length, as `at` checked, `to` is a slice of that length, and a
        // fresh mapping overlaps no other memory.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) };
        Some(())
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        self.record.watch(0..0);
        // SAFETY: the range is what mmap gave in `new`, unmapped once; code that was given a pointer keeps
        // this mapping alive.
        let _ = unsafe { mman::munmap(self.ptr.cast(), self.len_bytes) };
        self.record.release();
    }
}

/// Lets reads of bytes survive that other code has mapped of a file, as long as this exists. Where the file has no bytes
/// (any more), zeroes are read, also by later reads of that mapping.
pub struct WatchedBytes {
    first: usize,
    record: &'static WatchedMapping,
}

impl WatchedBytes {
    /// `bytes` are mapped for reading. They are neither read here nor held: the caller keeps them mapped.
    pub fn new(bytes: *const [u8]) -> io::Result<Self> {
        sigbus::install()?;
        let page_bytes = super::mmap::page_size_bytes();
        let first = bytes.cast::<u8>() as usize;
        // Pages at both ends belong to the mapping as a whole.
        let start = first & !(page_bytes - 1);
        let record = sigbus::claim();
        let addresses = start..(first + bytes.len()).next_multiple_of(page_bytes);
        record.watch(addresses.clone());
        record.note_known_missing(addresses);
        Ok(Self { first, record })
    }

    /// The index of the first byte that was read and is not there, or about so, as pages are missing whole.
    pub fn missing_from(&self) -> Option<usize> {
        Some(self.record.missing()?.saturating_sub(self.first))
    }
}

impl Drop for WatchedBytes {
    fn drop(&mut self) {
        self.record.watch(0..0);
        self.record.release();
    }
}

#[cfg(test)]
mod tests;
