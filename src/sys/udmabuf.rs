// SPDX-License-Identifier: MPL-2.0
//! /dev/udmabuf: a memfd's pages as a dma-buf (linux/udmabuf.h).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub const PATH: &str = "/dev/udmabuf";

const UDMABUF_FLAGS_CLOEXEC: u32 = 1;

#[repr(C)]
struct UdmabufCreate {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}
const _: () = assert!(size_of::<UdmabufCreate>() == 24);

mod raw {
    nix::ioctl_write_ptr!(udmabuf_create, b'u', 0x42, super::UdmabufCreate);
}

/// The largest udmabuf that the driver makes. `None` if it does not tell.
pub fn size_limit_bytes() -> Option<u64> {
    let limit = std::fs::read_to_string("/sys/module/udmabuf/parameters/size_limit_mb").ok()?;
    limit.trim().parse::<u64>().ok()?.checked_mul(1 << 20)
}

pub fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(PATH)
}

/// Makes a dma-buf of the first `len_bytes` of a memfd, in whole pages. The memfd must be sealed with
/// F_SEAL_SHRINK and have its pages already. The kernel pins the pages.
pub fn create(device: &File, memfd: BorrowedFd<'_>, len_bytes: usize) -> io::Result<OwnedFd> {
    let request = UdmabufCreate {
        memfd: memfd.as_raw_fd() as u32,
        flags: UDMABUF_FLAGS_CLOEXEC,
        offset: 0,
        size: len_bytes as u64,
    };
    // SAFETY: `request` is a valid struct udmabuf_create, which the kernel only reads; both fds are open.
    let fd = unsafe { raw::udmabuf_create(device.as_raw_fd(), &request) }?;
    // SAFETY: the kernel has just made this fd for this caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
