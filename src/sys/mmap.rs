// SPDX-License-Identifier: MPL-2.0
//! Mappings that end when they are dropped, and functions that bring their pages in.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::sys::mman;

pub use super::page::page_size_bytes;
use super::pagemap;

/// A shared read-write mapping, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    ptr: NonNull<u8>,
    len_bytes: usize,
    pid: u32,
    /// The mapping that this one is a part of.
    whole: Option<Arc<Mapping>>,
}

// SAFETY: a mapping belongs to the process, not to a thread; the type hands out only a raw pointer, and its
// users are responsible for what they do with it.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method changes the mapping through a shared reference.
unsafe impl Sync for Mapping {}

/// Maps the first `len_bytes` of `file`, MAP_SHARED. The caller unmaps them.
pub(super) fn map_shared(
    file: impl AsFd,
    len_bytes: usize,
    protection: mman::ProtFlags,
) -> io::Result<NonNull<c_void>> {
    map_shared_near(None, file, len_bytes, protection)
}

/// As [`map_shared`], at the address `wish` if nothing is mapped there, else anywhere.
fn map_shared_near(
    wish: Option<NonZeroUsize>,
    file: impl AsFd,
    len_bytes: usize,
    protection: mman::ProtFlags,
) -> io::Result<NonNull<c_void>> {
    let len = NonZeroUsize::new(len_bytes).ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
    let flags = mman::MapFlags::MAP_SHARED;
    // SAFETY: without MAP_FIXED no existing mapping is replaced.
    Ok(unsafe { mman::mmap(wish, len, protection, flags, file, 0) }?)
}

/// An aligned address from which on `len_bytes` were free a moment ago.
fn free_address(len_bytes: usize, align_bytes: usize) -> io::Result<Option<NonZeroUsize>> {
    let both = len_bytes.checked_add(align_bytes);
    let both = both.and_then(NonZeroUsize::new).ok_or(Errno::ENOMEM)?;
    let flags = mman::MapFlags::MAP_PRIVATE | mman::MapFlags::MAP_NORESERVE;
    // SAFETY: no address is asked for, so no existing mapping is replaced.
    let free = unsafe { mman::mmap_anonymous(None, both, mman::ProtFlags::PROT_NONE, flags) }?;
    // SAFETY: the range is the mapping just made.
    unsafe { mman::munmap(free, both.get()) }?;
    let aligned = (free.as_ptr() as usize).next_multiple_of(align_bytes);
    Ok(NonZeroUsize::new(aligned))
}

/// Maps `len_bytes` of `file` from `offset_bytes` on, read-write and MAP_SHARED. The caller unmaps them.
///
/// Not by nix, whose offsets have 32 bits on 32-bit machines: the offset in /dev/mem is a physical address.
fn map_shared_at(
    file: impl AsFd,
    offset_bytes: u64,
    len_bytes: usize,
) -> io::Result<NonNull<c_void>> {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: no address is asked for, so no existing mapping is replaced. A length of 0 is refused by the
    // kernel.
    let ptr = unsafe {
        mmap(
            std::ptr::null_mut(),
            len_bytes,
            protection,
            MapFlags::SHARED,
            file,
            offset_bytes,
        )
    }?;
    NonNull::new(ptr).ok_or_else(|| Errno::ENOMEM.into())
}

impl Mapping {
    /// Maps the first `len_bytes` of `file`, MAP_SHARED. Forked children do not inherit the mapping, since
    /// a child's write must not change a frame.
    pub fn shared(file: impl AsFd, len_bytes: usize) -> io::Result<Self> {
        let protection = mman::ProtFlags::PROT_READ | mman::ProtFlags::PROT_WRITE;
        let ptr = map_shared(file, len_bytes, protection)?;
        // SAFETY: the range is the mapping just made.
        Ok(unsafe { Self::of(ptr, len_bytes) })
    }

    /// As [`Self::shared`], if possible at an address that is a multiple of `align_bytes`, a power of two and
    /// of pages.
    ///
    /// The address is only a wish. With MAP_FIXED the kernel takes away what is there before it finds that it
    /// cannot make the mapping, and then another thread's mapping may already be in the hole.
    pub fn shared_aligned(
        file: impl AsFd,
        len_bytes: usize,
        align_bytes: usize,
    ) -> io::Result<Self> {
        const ATTEMPTS: usize = 3;
        let protection = mman::ProtFlags::PROT_READ | mman::ProtFlags::PROT_WRITE;
        let mut attempt = 1;
        loop {
            // Where there is no room for the search, any address will do.
            let wish = free_address(len_bytes, align_bytes).ok().flatten();
            let ptr = map_shared_near(wish, &file, len_bytes, protection)?;
            // SAFETY: the range is the mapping just made.
            let mapping = unsafe { Self::of(ptr, len_bytes) };
            let is_aligned = (ptr.as_ptr() as usize).is_multiple_of(align_bytes);
            if is_aligned || attempt == ATTEMPTS {
                return Ok(mapping);
            }
            attempt += 1;
        }
    }

    /// As [`Self::shared`], for `len_bytes` from `offset_bytes` on, a multiple of the page size.
    pub fn shared_at(file: impl AsFd, offset_bytes: u64, len_bytes: usize) -> io::Result<Self> {
        let ptr = map_shared_at(file, offset_bytes, len_bytes)?;
        // SAFETY: the range is the mapping just made.
        Ok(unsafe { Self::of(ptr, len_bytes) })
    }

    /// A part of a mapping, which stays mapped as long as any of its parts. `None` unless the part lies
    /// inside.
    pub fn part(whole: &Arc<Self>, offset_bytes: usize, len_bytes: usize) -> Option<Self> {
        let end = offset_bytes.checked_add(len_bytes)?;
        (end <= whole.len_bytes).then(|| Self {
            // SAFETY: the offset lies in the mapping or at its end, as was just checked.
            ptr: unsafe { whole.ptr.add(offset_bytes) },
            len_bytes,
            pid: whole.pid,
            whole: Some(Arc::clone(whole)),
        })
    }

    /// Maps a whole dumb buffer. The driver tells its offset in the card's file.
    pub fn of_dumb_buffer(
        card: &impl drm::control::Device,
        mut dumb: drm::control::dumbbuffer::DumbBuffer,
    ) -> io::Result<Self> {
        let mut mapping = card.map_dumb_buffer(&mut dumb)?;
        let (ptr, len_bytes) = (NonNull::from(&mut *mapping).cast(), mapping.len());
        // The drm crate's mapping borrows the handle, on which the memory mapping does not depend. This
        // type unmaps it from here on.
        std::mem::forget(mapping);
        // SAFETY: the range is the mapping just made, which no other code unmaps.
        Ok(unsafe { Self::of(ptr, len_bytes) })
    }

    /// # Safety
    /// The range is a whole mapping that no other code unmaps.
    unsafe fn of(ptr: NonNull<c_void>, len_bytes: usize) -> Self {
        // SAFETY: the caller guarantees the range. The kernel refuses the advice for mappings that it keeps
        // out of children or copies by design; nothing relies on the advice for those.
        let _ = unsafe { mman::madvise(ptr, len_bytes, mman::MmapAdvise::MADV_DONTFORK) };
        Self {
            ptr: ptr.cast(),
            len_bytes,
            pid: std::process::id(),
            whole: None,
        }
    }

    pub fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // A forked child has no such mapping, and may have another one at the address. A part is unmapped
        // with the whole.
        if self.whole.is_none() && self.pid == std::process::id() {
            // SAFETY: the range is exactly what mmap gave, unmapped once. Unmapping can fail only if it
            // splits a mapping, which unmapping a whole one does not.
            let _ = unsafe { mman::munmap(self.ptr.cast(), self.len_bytes) };
        }
    }
}

/// Makes every page of the range present and writable without changing a byte. Fails with EINVAL or EFAULT
/// for a mapping without pages (VM_PFNMAP, VM_IO).
///
/// # Safety
/// `ptr .. ptr + len_bytes` is mapped read-write during the call.
pub unsafe fn populate(ptr: NonNull<u8>, len_bytes: usize) -> io::Result<()> {
    if !knows_populate() {
        if pagemap::is_pfnmap(ptr).unwrap_or(false) {
            return Err(Errno::EFAULT.into());
        }
        // SAFETY: the caller guarantees the range; a mapping with pages is ordinary memory.
        unsafe { touch(ptr, len_bytes) };
        return Ok(());
    }
    let page = page_size_bytes();
    let start = ptr.as_ptr() as usize & !(page - 1);
    let end = (ptr.as_ptr() as usize)
        .checked_add(len_bytes)
        .and_then(|end| end.checked_next_multiple_of(page))
        .ok_or(io::Error::from(Errno::EINVAL))?;
    in_steps(end - start, |offset, len| {
        // The address is in the page that holds `ptr`, or in a later one, so it is not null.
        let at = NonNull::new((start + offset) as *mut c_void).ok_or(Errno::EINVAL)?;
        // SAFETY: MADV_POPULATE_WRITE faults pages in and changes no byte; the caller guarantees these
        // pages.
        Ok(unsafe { mman::madvise(at, len, mman::MmapAdvise::MADV_POPULATE_WRITE) }?)
    })
}

/// As [`populate`], for a memfd. If MADV_POPULATE_WRITE fails with EINVAL, as in qemu's emulation of Linux,
/// the pages are touched instead.
///
/// # Safety
/// `ptr .. ptr + len_bytes` is a mapping of a memfd, read-write during the call.
pub unsafe fn populate_memfd(ptr: NonNull<u8>, len_bytes: usize) -> io::Result<()> {
    // SAFETY: the caller guarantees the range; a memfd's pages are ordinary memory.
    unsafe {
        match populate(ptr, len_bytes) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                touch(ptr, len_bytes);
                Ok(())
            }
            result => result,
        }
    }
}

/// The largest part that the kernel is asked for in one call.
const STEP_BYTES: usize = 1 << 20;

/// Calls `step` with offset and length until `len_bytes` are done. A signal makes the kernel abandon such a
/// call, and some kernels undo what the call had done (fallocate of 6.1 does). In a program with a timer, a
/// single call for everything might never finish. A step that was interrupted is repeated with half the
/// length, down to one page.
pub(super) fn in_steps(
    len_bytes: usize,
    mut step: impl FnMut(usize, usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut longest = STEP_BYTES.max(page_size_bytes());
    let mut offset = 0;
    while offset < len_bytes {
        let len = longest.min(len_bytes - offset);
        match step(offset, len) {
            Ok(()) => offset += len,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {
                let half = (longest / 2).next_multiple_of(page_size_bytes());
                longest = half.max(page_size_bytes());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the kernel has MADV_POPULATE_WRITE (5.14 and later), which then accepts an empty range. EINVAL
/// for a real range cannot tell, since device memory gives it, too, and must not be touched.
fn knows_populate() -> bool {
    static KNOWS: OnceLock<bool> = OnceLock::new();
    *KNOWS.get_or_init(|| {
        let at = NonNull::new(page_size_bytes() as *mut c_void);
        // SAFETY: an empty range contains no page.
        at.is_some_and(|at| unsafe {
            mman::madvise(at, 0, mman::MmapAdvise::MADV_POPULATE_WRITE).is_ok()
        })
    })
}

/// Writes to every page once by an atomic OR with zero, which changes no byte and loses no concurrent
/// write.
///
/// # Safety
/// `ptr .. ptr + len_bytes` is mapped read-write during the call and is ordinary memory (atomics on device
/// memory may fault).
unsafe fn touch(ptr: NonNull<u8>, len_bytes: usize) {
    for offset in page_starts(ptr, len_bytes) {
        // SAFETY: `offset` is below `len_bytes`, so the byte is in the range; AtomicU8 needs no alignment.
        let byte = unsafe { AtomicU8::from_ptr(ptr.as_ptr().add(offset)) };
        // The compiler would remove an OR with a zero that it can see.
        byte.fetch_or(std::hint::black_box(0), Ordering::Relaxed);
    }
}

/// Reads a byte of every page, which brings in the pages of a shared mapping of a file that has them all.
/// Unlike an atomic operation, a read is allowed on memory that the CPU does not cache.
///
/// # Safety
/// `ptr .. ptr + len_bytes` is mapped readable during the call.
pub unsafe fn read_every_page(ptr: NonNull<u8>, len_bytes: usize) {
    for offset in page_starts(ptr, len_bytes) {
        // SAFETY: `offset` is below `len_bytes`, so the byte lies in the range.
        let _ = unsafe { ptr.as_ptr().add(offset).read_volatile() };
    }
}

/// Offsets of the first byte of the range in each of its pages.
fn page_starts(ptr: NonNull<u8>, len_bytes: usize) -> impl Iterator<Item = usize> {
    let page = page_size_bytes();
    let second = page - (ptr.as_ptr() as usize & (page - 1));
    std::iter::once(0)
        .chain((second..len_bytes).step_by(page))
        .take_while(move |&offset| offset < len_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_counted_in_bytes_of_the_file_and_a_part_outlives_the_whole() {
        use std::os::unix::fs::FileExt;
        let page = page_size_bytes();
        // Beyond 4 GiB, where an offset of 32 bits would wrap. The file has a hole before.
        let start = (1 << 32) + page as u64;
        let file = tempfile::tempfile().unwrap();
        file.set_len(start + 2 * page as u64).unwrap();
        file.write_all_at(&[1], start).unwrap();
        file.write_all_at(&[2], start + page as u64).unwrap();
        let whole = Arc::new(Mapping::shared_at(&file, start, 2 * page).unwrap());
        let part = Mapping::part(&whole, page, page).unwrap();
        assert!(Mapping::part(&whole, page, page + 1).is_none());
        assert!(Mapping::part(&whole, usize::MAX, 2).is_none());
        // SAFETY: both mappings are readable, and the file has these bytes.
        unsafe { assert_eq!((whole.ptr().read(), part.ptr().read()), (1, 2)) };
        drop(whole);
        // SAFETY: as above; the part keeps the whole mapped.
        unsafe { assert_eq!(part.ptr().read(), 2) };
        let unaligned = Mapping::shared_at(&file, 1, page).unwrap_err();
        assert_eq!(unaligned.raw_os_error(), Some(libc::EINVAL));
        assert!(Mapping::shared_at(&file, 0, 0).is_err());
    }

    /// Runs the steps on a simulated kernel, which undoes the current step at a signal. A signal comes
    /// after every `bytes_between` bytes of work.
    fn steps_of(len_bytes: usize, bytes_between: usize) -> Vec<(usize, usize)> {
        let mut done = Vec::new();
        let mut until_signal = bytes_between;
        in_steps(len_bytes, |offset, len| {
            if len > until_signal {
                until_signal = bytes_between;
                return Err(Errno::EINTR.into());
            }
            until_signal -= len;
            done.push((offset, len));
            Ok(())
        })
        .unwrap();
        done
    }

    #[test]
    fn signals_that_undo_a_step_do_not_keep_the_work_from_its_end() {
        let page = page_size_bytes();
        for (len, between) in [
            (8 << 20, usize::MAX),
            ((8 << 20) + page, 1 << 19),
            (1 << 20, page),
            (page, page),
        ] {
            let mut end = 0;
            for (offset, len) in steps_of(len, between) {
                assert_eq!(offset, end);
                assert!(len > 0 && len <= STEP_BYTES);
                end += len;
            }
            assert_eq!(end, len);
        }
    }

    #[test]
    fn what_fails_ends_the_steps() {
        let mut calls = 0;
        let error = in_steps(8 << 20, |_, _| {
            calls += 1;
            Err(Errno::ENOSPC.into())
        });
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(calls, 1);
    }

    #[test]
    fn every_page_of_a_range_is_touched_once() {
        let page = page_size_bytes();
        let starts = |address: usize, len_bytes| -> Vec<usize> {
            page_starts(NonNull::new(address as *mut u8).unwrap(), len_bytes).collect()
        };
        assert_eq!(starts(5 * page, 2 * page), [0, page]);
        assert_eq!(starts(5 * page + 100, page), [0, page - 100]);
        assert_eq!(starts(6 * page - 1, 2), [0, 1]);
        assert_eq!(starts(5 * page, 1), [0]);
        assert!(starts(5 * page, 0).is_empty());
    }

    #[test]
    fn a_range_past_the_last_address_is_refused() {
        let last = NonNull::new(usize::MAX as *mut u8).unwrap();
        // SAFETY: the call must fail before it touches the range, which is what is tested here.
        let error = unsafe { populate(last, 2) };
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
