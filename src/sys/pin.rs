// SPDX-License-Identifier: MPL-2.0
//! Pinned pages, registered as fixed buffers of an io_uring.
//!
//! mlock keeps pages in memory, but not in place: compaction moves them. A fixed buffer is a long-term pin
//! (FOLL_LONGTERM), and the kernel does not move its pages. Each pin has a ring of its own, which costs 30
//! us and 10 KB beside the megabytes that it holds. Unregistering from it gives the pages back before the
//! call returns; an update of a shared table does so up to a second later (6.1).

use std::io;
use std::ptr::NonNull;

use io_uring::IoUring;

/// The largest fixed buffer that io_uring takes (io_buffer_validate).
const MAX_BUFFER_BYTES: usize = 1 << 30;

/// How many times in a row a call is repeated that a signal interrupts.
const INTERRUPTIONS: u32 = 100;

/// Pinned pages. Dropping this unpins them.
pub struct Pin {
    ring: Box<IoUring>,
    pid: u32,
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin").field("pid", &self.pid).finish()
    }
}

impl Pin {
    /// Pins the pages of a mapping.
    ///
    /// Do not call it for a mapping of a CMA dma-buf heap: kernels before 6.14 try for ever to migrate the
    /// pages out of CMA first, and only SIGKILL ends the call.
    ///
    /// # Safety
    /// `ptr .. ptr + len_bytes` is mapped read-write and stays so until drop.
    pub unsafe fn new(ptr: NonNull<u8>, len_bytes: usize) -> io::Result<Self> {
        let ring = IoUring::builder().dontfork().build(1)?;
        let buffers: Vec<_> = (0..len_bytes)
            .step_by(MAX_BUFFER_BYTES)
            .map(|offset| libc::iovec {
                // Inside the range, since offset is below len_bytes.
                iov_base: ptr.as_ptr().wrapping_add(offset).cast(),
                iov_len: MAX_BUFFER_BYTES.min(len_bytes - offset),
            })
            .collect();
        loop {
            // SAFETY: the buffers lie in the caller's range, which stays mapped while they are registered;
            // the ring never does input or output.
            match unsafe { ring.submitter().register_buffers(&buffers) } {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            ring: Box::new(ring),
            pid: std::process::id(),
        })
    }
}

/// How many bytes an unprivileged user may pin, in all processes together. `None` means no limit.
pub fn memlock_limit_bytes() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}

impl Drop for Pin {
    fn drop(&mut self) {
        // A forked child shares the ring, and its drop must not unpin the parent's pages.
        if self.pid == std::process::id() {
            // A signal may interrupt the call while it waits for operations in flight, of which there are
            // none. Closing the ring gives the pages back, too, but later.
            for _ in 0..INTERRUPTIONS {
                match self.ring.submitter().unregister_buffers() {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    _ => break,
                }
            }
        }
    }
}
