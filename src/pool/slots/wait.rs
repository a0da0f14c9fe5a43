// SPDX-License-Identifier: MPL-2.0
//! How long to wait, and the waiting.

use std::time::Instant;

use parking_lot::{Condvar, MutexGuard};

use super::inner::Inner;

/// How long to wait for a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until there is one or the pool flushes.
    Forever,
    /// At most so long.
    AtMost(std::time::Duration),
}

impl Wait {
    pub(super) fn deadline(self) -> Deadline {
        match self {
            Self::No => Deadline::Now,
            Self::Forever => Deadline::Never,
            Self::AtMost(time) => match Instant::now().checked_add(time) {
                Some(at) => Deadline::At(at),
                None => Deadline::Never,
            },
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Deadline {
    Now,
    Never,
    At(Instant),
}

impl Deadline {
    /// Waits for `condition`; when the time is over, there is one more look, at
    /// what came in that very moment.
    pub(super) fn wait(&mut self, condition: &Condvar, inner: &mut MutexGuard<'_, Inner>) {
        match *self {
            Self::Now => {}
            Self::Never => condition.wait(inner),
            Self::At(at) => {
                if condition.wait_until(inner, at).timed_out() {
                    *self = Self::Now;
                }
            }
        }
    }
}
