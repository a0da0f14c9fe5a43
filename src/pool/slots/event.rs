// SPDX-License-Identifier: MPL-2.0
//! Sleeping until another thread says that something happened.

use std::time::Instant;

use super::free_cache::Waiters;
use crate::locks::{Condvar, MutexGuard};

#[derive(Clone, Copy)]
pub(super) enum Deadline {
    Now,
    Never,
    At(Instant),
}

impl Deadline {
    pub(super) fn is_before(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::At(at), Self::At(other)) => at < other,
            (Self::Now, Self::At(_) | Self::Never) | (Self::At(_), Self::Never) => true,
            (Self::Now | Self::At(_), Self::Now) | (Self::Never, _) => false,
        }
    }
}

/// Where threads wait for one kind of event.
pub(super) struct Event<'a> {
    pub condition: &'a Condvar,
    pub waiters: &'a Waiters,
}

impl Event<'_> {
    /// Counts the calling thread as a waiter, and then sleeps unless `has_happened` returns true.
    /// After a timeout `deadline` is `Now`, and the caller looks for the event once more.
    pub(super) fn wait<T>(
        &self,
        deadline: &mut Deadline,
        guard: &mut MutexGuard<'_, T>,
        has_happened: impl Fn() -> bool,
    ) {
        self.waiters.add();
        if has_happened() {
            self.waiters.remove(1);
            return;
        }
        // The thread that wakes this one takes it off the count.
        match *deadline {
            Deadline::Now => self.waiters.remove(1),
            Deadline::Never => self.condition.wait(guard),
            Deadline::At(at) => {
                if self.condition.wait_until(guard, at).timed_out() {
                    self.waiters.remove(1);
                    *deadline = Deadline::Now;
                }
            }
        }
    }

    /// Wakes one thread. The caller holds the lock.
    pub(super) fn wake_one(&self) {
        if self.waiters.are_there() {
            self.waiters
                .remove(usize::from(self.condition.notify_one()));
        }
    }

    /// Wakes all threads. The caller holds the lock.
    pub(super) fn wake_all(&self) {
        self.waiters.remove(self.condition.notify_all());
    }
}
