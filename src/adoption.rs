// SPDX-License-Identifier: MPL-2.0
//! Has upstream ask once more for a pool that it did not get.
//!
//! An ALLOCATION query that meets a flushing pad fails. Most elements then go on in memory of their
//! own and never ask again, so that every frame is copied. An element that offers a pool and
//! receives frames in other memory therefore sends RECONFIGURE upstream, once after each start and
//! each flush. It stops doing so when upstream has shown that it does not take the pool.

use crate::locks::lock;
use crate::{foreign, memory, pool};
use gst::{glib, prelude::*};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// When upstream has been offered the pool again and still sends this many frames in other memory,
/// it cannot adopt the pool. Some queues hold as many frames from before the offer.
const IGNORED_LIMIT: u32 = 64;

/// What upstream does with the pool that the element offers.
#[derive(Debug, Default)]
pub struct Adoption {
    state: Mutex<State>,
    /// The last frame was in the pool's memory, and nothing has changed since: no lock is needed.
    is_adopted: AtomicBool,
    /// The pool that was offered last, as long as somebody has it.
    offered: glib::WeakRef<gst::BufferPool>,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// Sending RECONFIGURE gains nothing: no pool is offered, or upstream does not take it.
    is_vain: bool,
    /// RECONFIGURE was sent, or upstream writes into the pool already.
    is_settled: bool,
    /// A pool was offered after RECONFIGURE was sent.
    is_offered_again: bool,
    /// Frames in other memory since that offer.
    ignored: u32,
}

impl Adoption {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        let state = lock(&self.state);
        self.is_adopted.store(false, Ordering::Relaxed);
        state
    }

    /// The stream has other caps: forgets everything.
    pub fn restart(&self) {
        *self.state() = State::default();
    }

    /// A flush may have made upstream's ALLOCATION query fail.
    pub fn flushed(&self) {
        let mut state = self.state();
        state.is_settled = false;
        state.is_offered_again = false;
        state.ignored = 0;
    }

    pub fn answered(&self, with_pool: bool) {
        let mut state = self.state();
        state.is_vain |= !with_pool;
        state.is_offered_again = state.is_settled;
    }

    /// Notes the pool of the answer, for [`pool_in_a_line`](Self::pool_in_a_line).
    pub fn offers(&self, query: &gst::query::Allocation) {
        let pool = query.allocation_pools().find_map(|(pool, ..)| pool);
        self.offered.set(pool.as_ref());
    }

    /// The pool that was offered last, and what it holds.
    pub fn pool_in_a_line(&self) -> Option<String> {
        self.offered.upgrade().as_ref().map(pool::in_a_line)
    }

    /// Notes a frame, in memory of the pool or not. Sends RECONFIGURE where that may help.
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
        // Upstream that sends a device's memory can write nowhere else.
        state.is_vain = !is_plain();
        !state.is_vain
    }
}

/// Whether upstream could have used the pool instead of this memory, which is the system's or that
/// of a pool of this library.
fn is_plain(buffer: &gst::BufferRef) -> bool {
    buffer.iter_memories().all(|memory| {
        let is_system = foreign::is_system(memory.allocator());
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
        // Upstream sends frames of both kinds, which is its own choice.
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
            // Upstream's query has not come yet: it may be on its way.
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
