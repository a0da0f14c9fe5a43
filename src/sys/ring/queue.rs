// SPDX-License-Identifier: MPL-2.0
//! An io_uring that loses no entry and never has more in flight than its completion queue can hold.
//!
//! `io_uring_enter` may take some of the entries or none: the kernel has no memory (ENOMEM, EAGAIN), or a
//! filter forbids the call. An entry that was not taken stays in the submission queue and cannot be removed
//! from there, but the kernel reads that queue only in `io_uring_enter`. If operations are in flight, the
//! entry is submitted again as soon as one of them completes. Otherwise the whole ring is given up: it is
//! never entered again, and a new ring replaces it when all its operations have completed.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use io_uring::{IoUring, Submitter, squeue};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::CpuSet,
};

/// Size of the submission queue. The completion queue has twice as many entries.
const ENTRIES: u32 = 64;
/// How many times in a row a call is repeated that a signal interrupts.
const INTERRUPTIONS: u32 = 100;

/// Submits the entries of the submission queue. Tests pass one that fails.
pub type Enter = Box<dyn FnMut(&IoUring) -> io::Result<usize> + Send>;

pub struct Completion {
    pub user_data: u64,
    /// The number of bytes, or the negative errno.
    pub result: i32,
}

/// A ring, and the entries that the kernel has not taken yet.
pub struct Queue {
    ring: IoUring,
    enter: Enter,
    /// In the order in which they were pushed. The first of them are in the submission queue.
    waiting: VecDeque<squeue::Entry>,
    /// The number of entries in the submission queue.
    queued: usize,
    /// The number of entries that the kernel has taken and whose completion was not seen yet.
    in_flight: usize,
    /// The submission queue holds entries that must not run any more.
    is_given_up: bool,
}

impl Queue {
    /// Fails if io_uring is missing or forbidden.
    pub fn new(enter: Enter) -> io::Result<Self> {
        Ok(Self {
            ring: build()?,
            enter,
            waiting: VecDeque::new(),
            queued: 0,
            in_flight: 0,
            is_given_up: false,
        })
    }

    /// Replaces a ring that was given up and has nothing in flight. Returns true if it did; nothing is
    /// registered with the new ring.
    pub fn renew(&mut self) -> io::Result<bool> {
        if !self.is_given_up || self.in_flight > 0 {
            return Ok(false);
        }
        self.ring = build()?;
        self.is_given_up = false;
        Ok(true)
    }

    /// The interface for registering memory.
    pub fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    /// Binds the workers of the calling thread. See [`super::ReadRing::bind_workers`].
    pub fn bind_workers(&mut self, cpus: &CpuSet) -> io::Result<()> {
        if self.is_given_up || self.queued > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let submitter = self.ring.submitter();
        // The kernel refuses the mask for a thread that has never submitted to a ring. For this call it
        // takes an empty submission queue as well.
        // SAFETY: the submission queue is empty, so nothing is submitted that needs memory or files.
        unsafe { submitter.enter::<libc::sigset_t>(1, 0, 0, None)? };
        let mask: *const CpuSet = cpus;
        // SAFETY: the pointer is a reference's, and CpuSet is a `repr(transparent)` cpu_set_t.
        submitter.register_iowq_aff(unsafe { &*mask.cast::<libc::cpu_set_t>() })
    }

    /// Adds an entry behind the others. [`Queue::submit`] gives it to the kernel.
    ///
    /// # Safety
    /// The memory and the file that the entry names stay until its completion has been taken, or until
    /// [`Queue::give_up`] has returned its user data.
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
        self.waiting.push_back(entry);
    }

    /// Gives the kernel as many waiting entries as it takes and as the completion queue has room for. The
    /// others are tried again after a completion. An error means that nothing is in flight that could
    /// complete, so the ring must be given up.
    pub fn submit(&mut self) -> io::Result<()> {
        if self.is_given_up {
            return match self.waiting.is_empty() {
                true => Ok(()),
                false => Err(io::Error::other("the ring has been given up")),
            };
        }
        let mut interruptions = 0;
        while self.fill_submission_queue() > 0 {
            let entered = (self.enter)(&self.ring);
            let taken = self.note_taken();
            match entered {
                _ if taken > 0 => interruptions = 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    interruptions += 1;
                    if interruptions == INTERRUPTIONS {
                        return Err(error);
                    }
                }
                // The next completion leads to another call of this function.
                _ if self.in_flight > 0 => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        Ok(())
    }

    /// Fills the submission queue. Returns the number of entries in it.
    fn fill_submission_queue(&mut self) -> usize {
        let room = self.ring.params().cq_entries() as usize;
        let mut queue = self.ring.submission();
        while self.in_flight + self.queued < room
            && let Some(entry) = self.waiting.get(self.queued)
        {
            // SAFETY: the caller of `push` keeps what the entry names.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.queued += 1;
        }
        self.queued
    }

    /// Records the entries that the kernel has taken. Returns their number.
    fn note_taken(&mut self) -> usize {
        let left = self.ring.submission().len();
        let taken = self.queued.saturating_sub(left);
        self.waiting.drain(..taken);
        self.queued -= taken;
        self.in_flight += taken;
        taken
    }

    /// Takes the completions.
    pub fn reap(&mut self) -> impl Iterator<Item = Completion> {
        let Self {
            ring, in_flight, ..
        } = self;
        ring.completion().map(|entry| {
            *in_flight -= 1;
            Completion {
                user_data: entry.user_data(),
                result: entry.result(),
            }
        })
    }

    /// Gives up the entries that the kernel has not taken, and returns their user data.
    pub fn give_up(&mut self) -> impl Iterator<Item = u64> {
        self.is_given_up |= self.queued > 0;
        self.queued = 0;
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().map(|entry| entry.get_user_data())
    }

    /// Whether the kernel still has operations in flight.
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    /// Becomes readable when an operation completes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring exists.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Waits until an operation completes. This does not enter the ring, which may be what fails.
    pub fn wait(&self) {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            // poll failed for lack of memory: look again in a moment.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn build() -> io::Result<IoUring> {
    IoUring::builder().dontfork().build(ENTRIES)
}

/// The function that is used outside of tests.
pub fn enter() -> Enter {
    Box::new(|ring| ring.submit())
}
