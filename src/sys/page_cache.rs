// SPDX-License-Identifier: MPL-2.0
//! How much of a file is in the page cache.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use rustix::{
    fs::{Access, AtFlags, CWD},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use super::page::page_size_bytes;

/// Pages that are looked at in one place.
const WINDOW_PAGES: usize = 16;
/// Places in the range that are looked at.
const WINDOWS: u64 = 64;

/// The share of the range of the file that is in the page cache, from 0 to 1, estimated from pages in
/// many places. Nothing is read for that.
///
/// # Errors
/// EACCES for a user who neither owns the file nor may write to it: the kernel then says of every page that it
/// is there (mincore(2)).
pub fn cached_share(file: impl AsFd, range: Range<u64>) -> io::Result<f64> {
    if !is_told(&file)? {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    let page = page_size_bytes() as u64;
    let (first, end) = (range.start / page, range.end.div_ceil(page));
    if end <= first {
        return Ok(0.0);
    }
    let window = (end - first).min(WINDOW_PAGES as u64);
    // The first window begins with the range, and the last one ends with it.
    let span = end - first - window;
    let steps = span.div_ceil(window).min(WINDOWS - 1);
    let mut cached = 0;
    for step in 0..=steps {
        let at = first + (span * step).checked_div(steps).unwrap_or(0);
        cached += cached_pages(&file, at * page, window as usize)?;
    }
    Ok(cached as f64 / ((steps + 1) * window) as f64)
}

/// Whether the kernel tells this user which pages of the file are in the page cache (can_do_mincore in
/// mm/mincore.c).
fn is_told(file: impl AsFd) -> io::Result<bool> {
    let is_owner = rustix::fs::fstat(&file)?.st_uid == rustix::process::geteuid().as_raw();
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let may_write = || {
        let flags = AtFlags::EACCESS;
        rustix::fs::accessat(CWD, path, Access::WRITE_OK, flags).is_ok()
    };
    Ok(is_owner || may_write())
}

/// How many of `pages` pages from the byte `start_bytes` on are in the page cache.
fn cached_pages(file: impl AsFd, start_bytes: u64, pages: usize) -> io::Result<usize> {
    let len_bytes = pages * page_size_bytes();
    // SAFETY: no address is asked for, so no existing mapping is replaced.
    let at = unsafe {
        mmap(
            ptr::null_mut(),
            len_bytes,
            ProtFlags::empty(),
            MapFlags::SHARED,
            file,
            start_bytes,
        )
    }?;
    let mut states = [0; WINDOW_PAGES];
    // SAFETY: the kernel writes a byte for each page of the mapping, which has no more than WINDOW_PAGES.
    let rc = unsafe { libc::mincore(at, len_bytes, states.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: the range is the mapping just made, and no other code knows it.
    unsafe { munmap(at, len_bytes) }?;
    if rc != 0 {
        return Err(error);
    }
    // The other bits are reserved.
    Ok(states[..pages]
        .iter()
        .filter(|state| *state & 1 != 0)
        .count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_was_written_is_cached_and_a_hole_is_not() {
        let page = page_size_bytes() as u64;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 100 * page as usize]).unwrap();
        file.set_len(10_000 * page).unwrap();
        let share = |range| cached_share(&file, range).unwrap();
        assert_eq!(share(0..100 * page), 1.0);
        assert_eq!(share(5..page + 5), 1.0);
        assert_eq!(share(200 * page..10_000 * page), 0.0);
        assert_eq!(share(7..7), 1.0);
        assert_eq!(share(0..0), 0.0);
        let part = share(0..1000 * page);
        assert!((0.05..0.2).contains(&part), "{part}");
    }
}
