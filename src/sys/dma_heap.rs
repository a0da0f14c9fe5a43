// SPDX-License-Identifier: MPL-2.0
//! /dev/dma_heap: dma-bufs from heaps of memory (linux/dma-heap.h).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use super::uninterrupted;

pub const DIRECTORY: &str = "/dev/dma_heap";

#[repr(C)]
struct DmaHeapAllocationData {
    len: u64,
    fd: u32,
    fd_flags: u32,
    heap_flags: u64,
}
const _: () = assert!(size_of::<DmaHeapAllocationData>() == 24);

mod raw {
    nix::ioctl_readwrite!(
        dma_heap_ioctl_alloc,
        b'H',
        0x0,
        super::DmaHeapAllocationData
    );
}

/// Names of the heaps that this machine has, sorted.
pub fn names() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(DIRECTORY)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(name)
}

pub fn open(name: &str) -> io::Result<File> {
    if name.is_empty() || name.contains('/') {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    OpenOptions::new().read(true).write(true).open(path(name))
}

/// Makes a dma-buf of `len_bytes`, which the kernel rounds up to whole pages and fills with zeroes.
pub fn alloc(heap: &File, len_bytes: usize) -> io::Result<OwnedFd> {
    let mut data = DmaHeapAllocationData {
        len: len_bytes as u64,
        fd: 0,
        fd_flags: (libc::O_RDWR | libc::O_CLOEXEC) as u32,
        heap_flags: 0,
    };
    // SAFETY: `data` is a valid struct dma_heap_allocation_data, exclusively borrowed; the fd is open.
    uninterrupted(|| unsafe { raw::dma_heap_ioctl_alloc(heap.as_raw_fd(), &mut data) })?;
    // SAFETY: the kernel has just made this fd for this caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(data.fd as i32) })
}
