// SPDX-License-Identifier: MPL-2.0
//! Sleeping until another thread says that something happened.

use std::time::Instant;

use parking_lot::{Condvar, MutexGuard};

use super::front::Waiters;

/// Until when a thread sleeps.
#[derive(Clone, Copy)]
pub(super) enum Deadline {
    Now,
    Never,
    At(Instant),
}

/// Where threads wait for one kind of event.
pub(super) struct Event<'a> {
    pub condition: &'a Condvar,
    pub waiters: &'a Waiters,
}

impl Event<'_> {
    /// Waits, unless the last look, which follows the caller's being counted, says that the event
    /// has happened. After the time is over the caller looks once more.
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
        // Whoever wakes a thread counts it out.
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

    /// Wakes one thread. Under the lock.
    pub(super) fn wake_one(&self) {
        if self.waiters.are_there() {
            self.waiters
                .remove(usize::from(self.condition.notify_one()));
        }
    }

    /// Wakes all threads. Under the lock.
    pub(super) fn wake_all(&self) {
        self.waiters.remove(self.condition.notify_all());
    }
}
