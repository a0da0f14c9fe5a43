// SPDX-License-Identifier: MPL-2.0
//! CPU access to a dma-buf, bracketed by the calls that `linux/dma-buf.h` asks for, and its fences.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

#[repr(C)]
struct DmaBufSync {
    flags: u64,
}
const _: () = assert!(size_of::<DmaBufSync>() == 8);

/// struct dma_buf_export_sync_file, Linux 6.0
#[repr(C)]
struct DmaBufExportSyncFile {
    flags: u32,
    fd: i32,
}
const _: () = assert!(size_of::<DmaBufExportSyncFile>() == 8);

const DMA_BUF_SYNC_READ: u64 = 1 << 0;
const DMA_BUF_SYNC_WRITE: u64 = 1 << 1;
const DMA_BUF_SYNC_START: u64 = 0 << 2;
const DMA_BUF_SYNC_END: u64 = 1 << 2;

mod raw {
    nix::ioctl_write_ptr!(dma_buf_ioctl_sync, b'b', 0, super::DmaBufSync);
    nix::ioctl_readwrite!(
        dma_buf_ioctl_export_sync_file,
        b'b',
        2,
        super::DmaBufExportSyncFile
    );
}

/// Whether the CPU is about to read the bytes, to write them, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    pub read: bool,
    pub write: bool,
}

impl Direction {
    pub const READ: Self = Self {
        read: true,
        write: false,
    };

    /// The direction that covers both.
    pub fn union(self, other: Self) -> Self {
        Self {
            read: self.read || other.read,
            write: self.write || other.write,
        }
    }

    fn flags(self) -> u64 {
        // GStreamer can map a memory with neither flag, but the kernel refuses a call without a direction.
        match (self.read, self.write) {
            (_, false) => DMA_BUF_SYNC_READ,
            (false, true) => DMA_BUF_SYNC_WRITE,
            (true, true) => DMA_BUF_SYNC_READ | DMA_BUF_SYNC_WRITE,
        }
    }
}

/// Call before the CPU's first access. The kernel makes the caches coherent with the device's writes, and
/// waits for the device's pending fences.
pub fn begin_cpu_access(dma_buf: BorrowedFd<'_>, direction: Direction) -> io::Result<()> {
    sync(dma_buf, DMA_BUF_SYNC_START | direction.flags())
}

/// Call after the CPU's last access, with the direction that began it.
pub fn end_cpu_access(dma_buf: BorrowedFd<'_>, direction: Direction) -> io::Result<()> {
    sync(dma_buf, DMA_BUF_SYNC_END | direction.flags())
}

/// The length in bytes of a dma-buf, of whichever driver.
///
/// # Errors
/// ENOTTY for a descriptor that is no dma-buf.
pub fn len_bytes(dma_buf: BorrowedFd<'_>) -> io::Result<u64> {
    // Only a dma-buf has this ioctl. READ alone changes nothing, and may write caches back.
    let read = Direction {
        read: true,
        write: false,
    };
    begin_cpu_access(dma_buf, read)?;
    end_cpu_access(dma_buf, read)?;
    Ok(rustix::fs::seek(dma_buf, rustix::fs::SeekFrom::End(0))?)
}

fn sync(dma_buf: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    let request = DmaBufSync { flags };
    loop {
        // SAFETY: the fd is borrowed and so open, and `request` is a valid struct dma_buf_sync, which the
        // kernel only reads.
        match unsafe { raw::dma_buf_ioctl_sync(dma_buf.as_raw_fd(), &request) } {
            // The documentation of the ioctl asks callers to restart on both.
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

/// The fence after which `dma_buf` may be read. `None` if it may be read now. Kernels before Linux 6.0 cannot make the
/// fence, and fail.
pub fn pending_write_fence(dma_buf: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut ready = [nix::poll::PollFd::new(
        dma_buf,
        nix::poll::PollFlags::POLLIN,
    )];
    if nix::poll::poll(&mut ready, nix::poll::PollTimeout::ZERO)? != 0 {
        return Ok(None);
    }
    let mut export = DmaBufExportSyncFile {
        flags: DMA_BUF_SYNC_READ as u32,
        fd: -1,
    };
    // SAFETY: the fd is borrowed and so open, and the struct is a whole struct dma_buf_export_sync_file.
    unsafe { raw::dma_buf_ioctl_export_sync_file(dma_buf.as_raw_fd(), &mut export) }?;
    // SAFETY: the kernel has just made this fd for this caller alone.
    Ok((export.fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(export.fd) }))
}
