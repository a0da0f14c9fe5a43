// SPDX-License-Identifier: MPL-2.0
//! How a call waits for a buffer.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, MutexGuard};

use super::{Refusal, inner::Inner};

/// How long to wait for a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Does not wait.
    No,
    /// Waits until there is a buffer, or the pool flushes.
    Forever,
    /// Waits this long at most.
    AtMost(Duration),
}

impl Wait {
    /// Nanoseconds as the signals take them: negative waits for ever.
    pub(crate) fn from_ns(ns: i64) -> Self {
        match u64::try_from(ns) {
            Ok(0) => Self::No,
            Ok(ns) => Self::AtMost(Duration::from_nanos(ns)),
            Err(_) => Self::Forever,
        }
    }

    fn deadline(self) -> Deadline {
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
enum Deadline {
    Now,
    Never,
    At(Instant),
}

impl Deadline {
    /// Waits for `condition`. After the time is over the caller looks once more.
    fn wait(&mut self, condition: &Condvar, inner: &mut MutexGuard<'_, Inner>) {
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

/// Whether a call may allocate a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pool) enum Growth {
    /// No: all memory exists already.
    Never,
    /// Yes, if no buffer is free and the configured maximum allows it.
    OnDemand,
    /// No: it tried, and there is no memory for this reason.
    Refused(String),
}

/// One call for a buffer. Its time begins with its first wait, so that a call that finds a buffer
/// at once does not read the clock.
pub(in crate::pool) struct Attempt {
    wait: Wait,
    deadline: Option<Deadline>,
    pub(super) growth: Growth,
}

impl Attempt {
    pub(in crate::pool) fn new(wait: Wait, growth: Growth) -> Self {
        Self {
            wait,
            deadline: None,
            growth,
        }
    }

    /// Waits until something happens. Fails if no buffer can come any more, or the time is over.
    pub(super) fn wait(
        &mut self,
        condition: &Condvar,
        inner: &mut MutexGuard<'_, Inner>,
    ) -> Result<(), Refusal> {
        if inner.is_all_dead() {
            return Err(Refusal::AllGone);
        }
        let is_first = self.deadline.is_none();
        let deadline = self.deadline.get_or_insert_with(|| self.wait.deadline());
        if matches!(deadline, Deadline::Now) {
            return Err(Refusal::NoBuffer(match &self.growth {
                Growth::Refused(reason) => Some(reason.clone()),
                Growth::Never | Growth::OnDemand => None,
            }));
        }
        inner.counters.waits += u64::from(is_first);
        deadline.wait(condition, inner);
        Ok(())
    }
}
