// SPDX-License-Identifier: MPL-2.0
//! Waiting for a buffer: how long, with or without growth, and after some yields.

use std::time::{Duration, Instant};

use super::{
    Refusal, Store,
    event::{Deadline, Event},
    inner::Inner,
};
use crate::locks::MutexGuard;

/// How long a call that was refused memory waits for a buffer before it asks for memory again. Whoever holds the pool's
/// buffers may keep them until the next one comes, as a sink keeps the frame that it shows, so that waiting for one of
/// them alone could last for ever.
const ASK_AGAIN: Duration = Duration::from_millis(200);

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
    has_yielded: bool,
    has_waited: bool,
    pub(super) growth: Growth,
}

impl Attempt {
    pub(in crate::pool) fn new(wait: Wait, growth: Growth) -> Self {
        Self {
            wait,
            deadline: None,
            has_yielded: false,
            has_waited: false,
            growth,
        }
    }

    /// Whether the call should yield to other threads before it sleeps: they may release a buffer
    /// meanwhile, which saves the system calls to sleep and to be woken. True once.
    pub(super) fn yields_first(&mut self) -> bool {
        if self.has_yielded || self.wait == Wait::No {
            return false;
        }
        self.has_yielded = true;
        self.deadline.get_or_insert_with(|| self.wait.deadline());
        true
    }

    /// Waits until something happens. Fails if no buffer can come any more, or the time is over.
    pub(super) fn wait(
        &mut self,
        store: &Store,
        event: &Event<'_>,
        inner: &mut MutexGuard<'_, Inner>,
        has_happened: impl Fn() -> bool,
    ) -> Result<(), Refusal> {
        if store.is_all_dead(inner) {
            return Err(Refusal::AllGone);
        }
        let deadline = self.deadline.get_or_insert_with(|| self.wait.deadline());
        if matches!(deadline, Deadline::Now) {
            return Err(Refusal::NoBuffer(match &self.growth {
                Growth::Refused(reason) => Some(reason.clone()),
                Growth::Never | Growth::OnDemand => None,
            }));
        }
        inner.counters.waits += u64::from(!self.has_waited);
        self.has_waited = true;
        match self.growth {
            Growth::Never | Growth::OnDemand => event.wait(deadline, inner, has_happened),
            Growth::Refused(_) => {
                let mut soon = Deadline::At(Instant::now() + ASK_AGAIN);
                if deadline.is_before(&soon) {
                    event.wait(deadline, inner, has_happened);
                } else {
                    event.wait(&mut soon, inner, has_happened);
                    if matches!(soon, Deadline::Now) {
                        self.growth = Growth::OnDemand;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Yields to other threads until `is_there` returns true, eight times at most.
pub(super) fn yield_until(is_there: impl Fn() -> bool) {
    const TIMES: usize = 8;
    for _ in 0..TIMES {
        if is_there() {
            return;
        }
        std::thread::yield_now();
    }
}
