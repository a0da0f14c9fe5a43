// SPDX-License-Identifier: MPL-2.0
//! Fences as file descriptors (linux/sync_file.h).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const NAME_BYTES: usize = 32;

/// struct sync_merge_data
#[repr(C)]
struct SyncMergeData {
    name: [u8; NAME_BYTES],
    fd2: i32,
    fence: i32,
    flags: u32,
    pad: u32,
}
const _: () = assert!(size_of::<SyncMergeData>() == 48);

/// struct sync_file_info
#[repr(C)]
struct SyncFileInfo {
    name: [u8; NAME_BYTES],
    status: i32,
    flags: u32,
    num_fences: u32,
    pad: u32,
    sync_fence_info: u64,
}
const _: () = assert!(size_of::<SyncFileInfo>() == 56);

/// struct sync_fence_info
#[repr(C)]
struct SyncFenceInfo {
    obj_name: [u8; NAME_BYTES],
    driver_name: [u8; NAME_BYTES],
    status: i32,
    flags: u32,
    timestamp_ns: u64,
}
const _: () = assert!(size_of::<SyncFenceInfo>() == 80);

mod raw {
    nix::ioctl_readwrite!(sync_ioc_merge, b'>', 3, super::SyncMergeData);
    nix::ioctl_readwrite!(sync_ioc_file_info, b'>', 4, super::SyncFileInfo);
}

/// Whether the fence of a file is signalled. A file that is no fence counts as signalled.
pub fn is_signalled(fence: BorrowedFd<'_>) -> bool {
    let mut ready = [nix::poll::PollFd::new(fence, nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut ready, nix::poll::PollTimeout::ZERO) != Ok(0)
}

/// When the fence of a file was signalled, CLOCK_MONOTONIC in nanoseconds. `None` if it is not signalled yet. Fails if
/// the file holds several fences.
pub fn signalled_ns(fence: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let mut of_fence = SyncFenceInfo {
        obj_name: [0; NAME_BYTES],
        driver_name: [0; NAME_BYTES],
        status: 0,
        flags: 0,
        timestamp_ns: 0,
    };
    let mut of_file = SyncFileInfo {
        name: [0; NAME_BYTES],
        status: 0,
        flags: 0,
        num_fences: 1,
        pad: 0,
        sync_fence_info: &raw mut of_fence as u64,
    };
    // SAFETY: the fd is borrowed and so open. The struct is a whole struct sync_file_info, and points to room for one
    // struct sync_fence_info, as its num_fences says. The kernel writes there only during the call.
    unsafe { raw::sync_ioc_file_info(fence.as_raw_fd(), &mut of_file) }?;
    Ok((of_file.status != 0).then_some(of_fence.timestamp_ns))
}

/// A fence that is signalled once both are.
pub fn merge(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut merge = SyncMergeData {
        name: [0; NAME_BYTES],
        fd2: b.as_raw_fd(),
        fence: -1,
        flags: 0,
        pad: 0,
    };
    merge.name[..7].copy_from_slice(b"physmem");
    // SAFETY: both fds are borrowed and so open, and the struct is a whole struct sync_merge_data.
    unsafe { raw::sync_ioc_merge(a.as_raw_fd(), &mut merge) }?;
    // SAFETY: the kernel has just made this fd for this caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(merge.fence) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn files_that_are_no_fences_are_not_merged() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = merge(file.as_fd(), file.as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }
}
