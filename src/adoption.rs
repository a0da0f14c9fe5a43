// SPDX-License-Identifier: MPL-2.0
//! Has upstream ask again for the pool that it was not given.
//!
//! An ALLOCATION query that meets a flushing pad fails; most elements go on in memory
//! of their own then and never ask again, so that every frame is copied. Who would have
//! offered a pool and gets frames from elsewhere sends RECONFIGURE, once for each start
//! and each flush, and never where that has been seen to be in vain.

use crate::memory;
use gst::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Frames from elsewhere, after an offer that was asked for again, before upstream is
/// taken for one that cannot adopt it. Some queues hold as many from before.
const IGNORED_LIMIT: u32 = 64;

/// What upstream has made of the pool that is offered to it.
#[derive(Debug, Default)]
pub struct Adoption {
    state: Mutex<State>,
    /// The last frame was written into the pool, and nothing has happened since that a frame of
    /// the same kind would change: it takes no lock.
    is_adopted: AtomicBool,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// Nothing is to be gained: no pool is offered, or upstream does not take it.
    is_vain: bool,
    /// Upstream has been told, or writes into the pool already.
    is_settled: bool,
    /// A pool was offered after upstream had been told.
    is_offered_again: bool,
    /// Frames from elsewhere since then.
    ignored: u32,
}

impl Adoption {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics while it is held.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_adopted.store(false, Ordering::Relaxed);
        state
    }

    /// Other caps: all is open again.
    pub fn restart(&self) {
        *self.state() = State::default();
    }

    /// A flush may have cost upstream the answer.
    pub fn flushed(&self) {
        let mut state = self.state();
        state.is_settled = false;
        state.is_offered_again = false;
        state.ignored = 0;
    }

    /// Upstream has been answered.
    pub fn answered(&self, with_pool: bool) {
        let mut state = self.state();
        state.is_vain |= !with_pool;
        state.is_offered_again = state.is_settled;
    }

    /// A frame came, in memory of the pool or not; tells upstream what is to be told.
    pub fn note(&self, sink_pad: &gst::Pad, buffer: &gst::BufferRef, is_adopted: bool) {
        if self.is_to_tell(is_adopted, || is_plain(buffer)) {
            gst::debug!(
                gst::CAT_PERFORMANCE,
                obj = sink_pad,
                "frames come from elsewhere: having upstream ask for the pool again"
            );
            // Upstream that does not know the event goes on as before.
            let _ = sink_pad.push_event(gst::event::Reconfigure::new());
        }
    }

    fn is_to_tell(&self, is_adopted: bool, is_plain: impl FnOnce() -> bool) -> bool {
        if is_adopted && self.is_adopted.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.state();
        if is_adopted {
            state.is_settled = true;
            state.is_offered_again = false;
            self.is_adopted.store(true, Ordering::Relaxed);
            return false;
        }
        if state.is_vain {
            return false;
        }
        if state.is_settled {
            state.ignored += u32::from(state.is_offered_again);
            state.is_vain = state.ignored >= IGNORED_LIMIT;
            return false;
        }
        state.is_settled = true;
        // Who sends a device's memory has it from there and from nowhere else.
        state.is_vain = !is_plain();
        !state.is_vain
    }
}

/// Memory that any element could have taken: the system's, or a pool's of ours.
fn is_plain(buffer: &gst::BufferRef) -> bool {
    buffer.iter_memories().all(|memory| {
        let is_system = memory
            .allocator()
            .is_none_or(|allocator| allocator.memory_type() == "SystemMemory");
        is_system || memory::region_of(memory).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(adoption: &Adoption, is_adopted: bool) -> bool {
        adoption.is_to_tell(is_adopted, || true)
    }

    #[test]
    fn upstream_is_told_once_for_each_flush() {
        let adoption = Adoption::default();
        assert!(told(&adoption, false));
        assert!(!told(&adoption, false));
        adoption.answered(true);
        assert!(!told(&adoption, true));
        // Frames of both kinds are upstream's own choice.
        assert!(!told(&adoption, false));
        adoption.flushed();
        assert!(told(&adoption, false));
        assert!(!told(&adoption, false));
    }

    #[test]
    fn who_ignores_the_pool_for_long_is_left_alone() {
        let adoption = Adoption::default();
        assert!(told(&adoption, false));
        for _ in 0..10 * IGNORED_LIMIT {
            // The question has not come yet: it may be on its way.
            assert!(!told(&adoption, false));
        }
        adoption.flushed();
        assert!(told(&adoption, false));
        adoption.answered(true);
        for _ in 0..IGNORED_LIMIT {
            assert!(!told(&adoption, false));
        }
        adoption.flushed();
        assert!(!told(&adoption, false));
        adoption.restart();
        assert!(told(&adoption, false));
    }

    #[test]
    fn nobody_is_told_of_a_pool_that_is_not_offered_or_cannot_be_taken() {
        let adoption = Adoption::default();
        adoption.answered(false);
        assert!(!told(&adoption, false));
        let adoption = Adoption::default();
        assert!(!adoption.is_to_tell(false, || false));
        adoption.flushed();
        assert!(!told(&adoption, false));
    }
}
