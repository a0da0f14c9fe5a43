// SPDX-License-Identifier: MPL-2.0
//! An io_uring that loses no entry and never has more in flight than its
//! completion queue can hold.
//!
//! `io_uring_enter` may take a part of what it is given, or nothing: the kernel
//! has no memory (ENOMEM, EAGAIN), or somebody forbids the call. What it has not
//! taken stays in the submission queue and cannot be called back from there, but
//! the kernel looks at that queue only when it is entered. So an entry is either
//! handed over later, as soon as something completes, or, where nothing is in
//! flight that could, the whole ring is given up: it is never entered again, and a
//! new one takes its place when all that this one still does has completed.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use io_uring::{IoUring, Submitter, squeue};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Of the submission queue; the completion queue has twice as many.
const ENTRIES: u32 = 64;
/// So often in a row is a call repeated that a signal interrupts.
const INTERRUPTIONS: u32 = 100;

/// Hands the submission queue to the kernel. Tests have one that fails.
pub type Enter = Box<dyn FnMut(&IoUring) -> io::Result<usize> + Send>;

/// An operation that has completed: its user data and its result.
pub struct Completion {
    /// As the entry had it.
    pub user_data: u64,
    /// Bytes, or errno below zero.
    pub result: i32,
}

/// A ring, and the entries that the kernel has not taken yet.
pub struct Queue {
    ring: IoUring,
    enter: Enter,
    /// In the order they came; the first of them are in the submission queue.
    waiting: VecDeque<squeue::Entry>,
    /// How many of them that is.
    submitted: usize,
    /// Taken by the kernel, completion not seen yet.
    in_flight: usize,
    /// Entries are left in the submission queue that must not run any more.
    is_given_up: bool,
}

impl Queue {
    /// Fails where io_uring is missing or forbidden.
    pub fn new(enter: Enter) -> io::Result<Self> {
        Ok(Self {
            ring: build()?,
            enter,
            waiting: VecDeque::new(),
            submitted: 0,
            in_flight: 0,
            is_given_up: false,
        })
    }

    /// Makes a new ring in place of one that was given up and has come to rest.
    /// True if it did: nothing is registered with the new one.
    pub fn renew(&mut self) -> io::Result<bool> {
        if !self.is_given_up || self.in_flight > 0 {
            return Ok(false);
        }
        self.ring = build()?;
        self.is_given_up = false;
        Ok(true)
    }

    /// To register memory.
    pub fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    /// Puts an entry behind the others; [`Queue::hand_over`] gives it to the kernel.
    ///
    /// # Safety
    /// The memory and the file that the entry names stay until its completion has
    /// been taken, or the entry has come back from [`Queue::give_up`].
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
        self.waiting.push_back(entry);
    }

    /// Gives the kernel as many of the waiting entries as it takes and as have room.
    /// What is left is tried again when something has completed; an error means
    /// that nothing will, so that the ring is to be given up.
    pub fn hand_over(&mut self) -> io::Result<()> {
        if self.is_given_up {
            return match self.waiting.is_empty() {
                true => Ok(()),
                false => Err(io::Error::other("the ring has been given up")),
            };
        }
        let mut interruptions = 0;
        while self.fill() > 0 {
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
                // A completion brings us here again.
                _ if self.in_flight > 0 => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        Ok(())
    }

    /// Fills the submission queue; how many entries are in it then.
    fn fill(&mut self) -> usize {
        let room = self.ring.params().cq_entries() as usize;
        let mut queue = self.ring.submission();
        while self.in_flight + self.submitted < room
            && let Some(entry) = self.waiting.get(self.submitted)
        {
            // SAFETY: whoever pushed the entry keeps what it names.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.submitted += 1;
        }
        self.submitted
    }

    /// Takes note of the entries that the kernel has taken; how many these are.
    fn note_taken(&mut self) -> usize {
        let left = self.ring.submission().len();
        let taken = self.submitted.saturating_sub(left);
        self.waiting.drain(..taken);
        self.submitted -= taken;
        self.in_flight += taken;
        taken
    }

    /// What is complete.
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

    /// The user data of the entries that the kernel has not taken, and never will.
    pub fn give_up(&mut self) -> impl Iterator<Item = u64> {
        self.is_given_up |= self.submitted > 0;
        self.submitted = 0;
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().map(|entry| entry.get_user_data())
    }

    /// Whether the kernel still works on something.
    pub fn is_busy(&self) -> bool {
        self.in_flight > 0
    }

    /// Becomes readable when something is complete.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Waits until something is complete. This does not enter the ring, which may
    /// be what fails.
    pub fn wait(&self) {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            // No memory for a list of one: look again in a moment.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn build() -> io::Result<IoUring> {
    IoUring::builder().dontfork().build(ENTRIES)
}

/// As it is outside of tests.
pub fn enter() -> Enter {
    Box::new(|ring| ring.submit())
}
