// SPDX-License-Identifier: MPL-2.0
//! Large pages for a memfd's mapping, without a reservation, boot option or privilege: MADV_COLLAPSE
//! (Linux 6.1, Documentation/admin-guide/mm/transhuge.rst). The kernel moves what is there into one page
//! as large as a PMD entry maps, also where `shmem_enabled` is `never`. It may have to compact memory
//! for that, so it is asked once, when the memory is made.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::OnceLock;

use rustix::fs::FallocateFlags;

use super::mmap::{self, page_size_bytes};

/// Size in bytes of a page that a PMD entry maps: 2 MiB on amd64 and on arm64 with pages of 4 KiB.
/// `None` on a kernel without transparent huge pages.
pub fn size_bytes() -> Option<usize> {
    static SIZE: OnceLock<Option<usize>> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let path = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
        let size: usize = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        (size.is_power_of_two() && size > page_size_bytes()).then_some(size)
    })
}

/// Puts every whole large page of the mapping into one large page, as far as the kernel has any. Returns
/// how many bytes got one. The other bytes get no pages here.
///
/// # Safety
/// `ptr .. ptr + len_bytes` is a read-write mapping of the first bytes of `memfd`, which is not of huge
/// pages, during the call.
pub unsafe fn collapse(memfd: BorrowedFd<'_>, ptr: NonNull<u8>, len_bytes: usize) -> usize {
    let Some(large) = size_bytes().filter(|&large| (ptr.as_ptr() as usize).is_multiple_of(large))
    else {
        return 0;
    };
    let mut n_large = 0;
    for offset in (0..len_bytes / large).map(|index| index * large) {
        // SAFETY: the offset is below `len_bytes`, so the pointer stays in the mapping.
        let at = unsafe { ptr.add(offset) };
        // SAFETY: the caller guarantees the mapping, of which this is a whole large page.
        match unsafe { collapse_one(memfd, offset, at, large) } {
            Ok(()) => n_large += 1,
            // Not before Linux 6.1, or not for such memory: not for the next page either.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(_) => {}
        }
    }
    n_large * large
}

/// # Safety
/// As for [`collapse`]; `at` is where byte `offset` of the memfd is mapped.
unsafe fn collapse_one(
    memfd: BorrowedFd<'_>,
    offset: usize,
    at: NonNull<u8>,
    large: usize,
) -> io::Result<()> {
    const ATTEMPTS: usize = 3;
    // One page must be there: the kernel collapses nothing into nothing. It is allocated by a call that
    // fails where a touch would be SIGBUS.
    let page = page_size_bytes() as u64;
    rustix::fs::fallocate(memfd, FallocateFlags::empty(), offset as u64, page)?;
    // SAFETY: the page is the first one of the caller's range.
    unsafe { mmap::populate_memfd(at, page_size_bytes()) }?;
    let mut attempt = 1;
    loop {
        // SAFETY: the advice changes which pages hold the bytes, and no byte; the caller guarantees the
        // range.
        if unsafe { libc::madvise(at.as_ptr().cast(), large, libc::MADV_COLLAPSE) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // EAGAIN: a page was busy just then.
        if error.raw_os_error() != Some(libc::EAGAIN) || attempt == ATTEMPTS {
            return Err(error);
        }
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memfd::{self, Pages};
    use crate::sys::mmap::Mapping;
    use std::os::fd::AsFd;

    #[test]
    fn whole_large_pages_are_collapsed_and_keep_their_bytes() {
        let Some(large) = size_bytes() else {
            eprintln!("SKIPPED: this kernel has no transparent huge pages");
            return;
        };
        let len_bytes = 2 * large + page_size_bytes();
        let memfd = memfd::create(c"test", Pages::Normal, len_bytes).unwrap();
        memfd::allocate(memfd.as_fd(), len_bytes).unwrap();
        let mapping = Mapping::shared_aligned(&memfd, len_bytes, large).unwrap();
        assert!((mapping.ptr().as_ptr() as usize).is_multiple_of(large));
        // SAFETY: the mapping is read-write, and only this test has it.
        let got = unsafe {
            mapping.ptr().write(7);
            mapping.ptr().add(large - 1).write(8);
            let got = collapse(memfd.as_fd(), mapping.ptr(), len_bytes);
            assert_eq!(
                (mapping.ptr().read(), mapping.ptr().add(large - 1).read()),
                (7, 8)
            );
            got
        };
        assert!(got <= 2 * large && got % large == 0, "{got}");
        // SAFETY: as above; a mapping that does not begin at a large page has none.
        let shifted =
            unsafe { collapse(memfd.as_fd(), mapping.ptr().add(page_size_bytes()), large) };
        assert_eq!(shifted, 0);
    }
}
