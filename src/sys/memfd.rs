// SPDX-License-Identifier: MPL-2.0
//! Anonymous files: memory that has an fd and is shared, never copied on write.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rustix::fs::FallocateFlags;

use super::mmap::in_steps;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// shmem, with pages of PAGE_SIZE.
    Normal,
    /// hugetlbfs, with pages of the machine's default huge page size.
    Huge,
}

/// In linux/memfd.h since 6.3. Older kernels refuse unknown flags with EINVAL.
const MFD_NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(8);

/// Makes a memfd of `len_bytes`, sealed against shrinking, as udmabuf asks for. It has no pages yet.
pub fn create(name: &CStr, pages: Pages, len_bytes: usize) -> io::Result<OwnedFd> {
    let fd = open(name, pages)?;
    rustix::fs::ftruncate(&fd, len_bytes as u64)?;
    add_seals(fd.as_fd(), SealFlag::F_SEAL_SHRINK)?;
    Ok(fd)
}

/// Allocates all pages that the first `len_bytes` of a memfd do not have yet, so that no later access can
/// fail with SIGBUS.
pub fn allocate(memfd: BorrowedFd<'_>, len_bytes: usize) -> io::Result<()> {
    in_steps(len_bytes, |offset_bytes, step_bytes| {
        let (offset, len) = (offset_bytes as u64, step_bytes as u64);
        rustix::fs::fallocate(memfd, FallocateFlags::empty(), offset, len).map_err(io::Error::from)
    })
}

/// Makes the memfd safe to give to other processes. Existing mappings stay writable. But no process can
/// write to it in another way, change its length, or punch a hole into it, after which this process's
/// mapping would have other pages than the hardware was told of. Make a udmabuf before this call, since the
/// kernel refuses to make one afterwards (since 6.14).
pub fn seal_for_others(memfd: BorrowedFd<'_>) -> io::Result<()> {
    match add_seals(memfd, SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE) {
        // Before 5.1 there is no F_SEAL_FUTURE_WRITE.
        Err(Errno::EINVAL) => Ok(add_seals(memfd, SealFlag::F_SEAL_GROW)?),
        result => Ok(result?),
    }
}

/// Whether some of the first `end_bytes` of a regular file may be missing: the file is shorter, or another process can take
/// bytes away from its end, because it is of a file system or a memfd that is not sealed against that.
pub fn may_lack_bytes(file: BorrowedFd<'_>, end_bytes: u64) -> bool {
    let Ok(stat) = rustix::fs::fstat(file) else {
        return false;
    };
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    let seals = fcntl(file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
    let is_sealed = seals.is_ok_and(|seals| seals.contains(SealFlag::F_SEAL_SHRINK));
    let is_short = u64::try_from(stat.st_size).is_ok_and(|size| size < end_bytes);
    kind == rustix::fs::FileType::RegularFile && (is_short || !is_sealed)
}

fn add_seals(memfd: BorrowedFd<'_>, seals: SealFlag) -> nix::Result<()> {
    fcntl(memfd, FcntlArg::F_ADD_SEALS(seals)).map(drop)
}

fn open(name: &CStr, pages: Pages) -> nix::Result<OwnedFd> {
    let mut flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    if pages == Pages::Huge {
        flags |= MFdFlags::MFD_HUGETLB;
    }
    match memfd_create(name, flags | MFD_NOEXEC_SEAL) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mmap::{Mapping, page_size_bytes};

    fn errno(result: rustix::io::Result<()>) -> i32 {
        result.unwrap_err().raw_os_error()
    }

    #[test]
    fn what_was_given_away_cannot_be_changed_by_those_who_have_it() {
        let len = 1 << 16;
        let memfd = create(c"test", Pages::Normal, len).unwrap();
        allocate(memfd.as_fd(), len).unwrap();
        let ours = Mapping::shared(&memfd, len).unwrap();
        seal_for_others(memfd.as_fd()).unwrap();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let page = page_size_bytes() as u64;
        let punched = rustix::fs::fallocate(&memfd, hole, 0, page);
        assert_eq!(errno(punched), libc::EPERM);
        for other_len in [0, 2 * len as u64] {
            let errno = errno(rustix::fs::ftruncate(&memfd, other_len));
            assert_eq!(errno, libc::EPERM, "{other_len} bytes");
        }
        assert!(nix::unistd::write(&memfd, b"x").is_err());
        assert!(
            Mapping::shared(&memfd, len).is_err(),
            "a second writable mapping"
        );
        // The mapping made before stays writable, and readers of the memfd see what is written.
        // SAFETY: the mapping is read-write, and no other code has it.
        unsafe { ours.ptr().write(7) };
        let mut byte = [0];
        rustix::io::pread(&memfd, &mut byte, 0).unwrap();
        assert_eq!(byte, [7]);
    }
}
