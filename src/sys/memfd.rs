// SPDX-License-Identifier: MPL-2.0
//! Anonymous files: memory that has an fd and is shared, never copied on write.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The pages a memfd is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// shmem, PAGE_SIZE each.
    Normal,
    /// hugetlbfs, the machine's default huge page size each.
    Huge,
}

/// linux/memfd.h, since 6.3; older kernels refuse unknown flags with EINVAL.
const MFD_NOEXEC_SEAL: libc::c_uint = 8;

/// A memfd of `len_bytes`, every page of it allocated (so that no later touch can
/// fail with SIGBUS), sealed against shrinking as udmabuf asks for.
pub fn create(name: &CStr, pages: Pages, len_bytes: usize) -> io::Result<OwnedFd> {
    let len = i64::try_from(len_bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fd = open(name, pages)?;
    nix::unistd::ftruncate(fd.as_fd(), len)?;
    loop {
        match nix::fcntl::fallocate(fd.as_fd(), nix::fcntl::FallocateFlags::empty(), 0, len) {
            Ok(()) => break,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // SAFETY: F_ADD_SEALS takes an int and touches no memory; the fd is open.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

fn open(name: &CStr, pages: Pages) -> io::Result<OwnedFd> {
    let mut flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    if pages == Pages::Huge {
        flags |= libc::MFD_HUGETLB;
    }
    match memfd_create(name, flags | MFD_NOEXEC_SEAL) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => memfd_create(name, flags),
        result => result,
    }
}

fn memfd_create(name: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this fd; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
