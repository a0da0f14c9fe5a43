// SPDX-License-Identifier: MPL-2.0
//! What the lock of the slots guards: the slots, the place of each, and each pool's queue.

use std::collections::VecDeque;
use std::sync::{
    Arc,
    atomic::{AtomicI32, Ordering},
};

use parking_lot::Condvar;

use super::{Counters, Refusal, next_id};
use crate::{
    memory::Region,
    meta::PhysMemMeta,
    pool::{
        config::BufferConfig,
        state::{BufferState, Step},
        wrapper,
    },
};

#[derive(Default)]
pub(super) struct Inner {
    pub(super) slots: Vec<Slot>,
    pub(super) free: VecDeque<usize>,
    /// One for each pool that uses the slots.
    pub(super) parts: Vec<Part>,
    /// Number of slots that are being allocated outside of the lock.
    pub(super) growing: usize,
    pub(super) counters: Counters,
}

/// What belongs to one pool alone. A filled buffer is taken only by the pool whose layout it has,
/// so that no other pool's threads need to be woken for it.
pub(super) struct Part {
    /// Notified of submitted buffers and of a flush. Its address identifies the part.
    pub(super) submitted: Arc<Condvar>,
    /// No buffer is handed out: the pool is inactive or flushes.
    pub(super) is_flushing: bool,
    /// The layout of the buffers, and how many of them may be out at a time.
    pub(super) config: Option<Arc<BufferConfig>>,
    /// Number of buffers that were handed out and have not come back, including the filled ones.
    pub(super) out: usize,
    pub(super) filled: VecDeque<Filled>,
}

pub(super) struct Filled {
    pub(super) slot: usize,
    pub(super) buffer: gst::Buffer,
}

pub(super) struct Slot {
    pub(super) id: u32,
    pub(super) region: Arc<Region>,
    pub(super) state: BufferState,
    pub(super) place: Place,
    /// Identifies the wrapper's memory when it reports that it was freed.
    pub(super) serial: u64,
    /// The wrapper while it is out. It is compared, and its reference count read, only under the
    /// lock and only while `place` says that it exists.
    pub(super) wrapper: *const gst::ffi::GstBuffer,
    /// The configuration that the wrapper was made for, be it out or parked.
    pub(super) config: Option<Arc<BufferConfig>>,
    /// The wrapper while it is not in use.
    pub(super) parked: Option<gst::Buffer>,
}

// SAFETY: `wrapper` is dereferenced only under the lock of `Inner`, while the slot's place
// guarantees that the buffer has not been released.
unsafe impl Send for Slot {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Free,
    Out,
    /// Handed out, and the wrapper's memory was freed meanwhile.
    OutMemoryGone,
    /// The wrapper came back, but not yet its memory.
    Detached,
    /// The owner of external memory freed it; the slot is never handed out again.
    Dead,
}

impl Inner {
    pub(super) fn push(&mut self, region: Arc<Region>) {
        self.free.push_back(self.slots.len());
        self.slots.push(Slot {
            id: next_id(),
            region,
            state: BufferState::Idle,
            place: Place::Free,
            serial: 0,
            wrapper: std::ptr::null(),
            config: None,
            parked: None,
        });
    }

    /// Whether there were buffers, and the memory of each was freed by its owner.
    pub(super) fn is_all_dead(&self) -> bool {
        !self.slots.is_empty() && !self.slots.iter().any(Slot::is_live)
    }

    /// Takes dead slots out of the free list. Returns their wrappers, which the caller drops
    /// outside of the lock. Wrappers in the filled queue stay there until a flush, which first
    /// gives them their pool back: without a pool they would not be counted as returned.
    pub(super) fn take_dead(&mut self) -> Vec<gst::Buffer> {
        let Self { slots, free, .. } = self;
        free.retain(|&index| {
            let slot = &mut slots[index];
            if !slot.region.is_alive() {
                slot.place = Place::Dead;
            }
            slot.place == Place::Free
        });
        let dead = slots.iter_mut().filter(|s| s.place == Place::Dead);
        dead.filter_map(|s| s.parked.take()).collect()
    }

    /// The index of the part that has this condition.
    pub(super) fn index_of_part(&self, submitted: &Arc<Condvar>) -> usize {
        let named = |part: &Part| Arc::ptr_eq(&part.submitted, submitted);
        // Always found, because a part exists as long as its pool.
        self.parts.iter().position(named).unwrap_or_default()
    }

    pub(super) fn part(&mut self, submitted: &Arc<Condvar>) -> (&mut [Slot], &mut Part) {
        let index = self.index_of_part(submitted);
        (&mut self.slots, &mut self.parts[index])
    }

    pub(super) fn slot_of(&mut self, returned: &wrapper::Returned) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(returned.slot)?;
        (slot.id == returned.id).then_some(slot)
    }

    /// The slot that the buffer was handed out from, and its memory then. A copy of it has no slot.
    pub(super) fn find(
        &mut self,
        buffer: &gst::BufferRef,
    ) -> Result<(usize, *const gst::ffi::GstMemory), Refusal> {
        let found = match buffer.meta::<PhysMemMeta>() {
            None => Err(Refusal::NoMeta),
            Some(meta) => {
                let own = |s: &Slot| s.id == meta.id() && std::ptr::eq(s.wrapper, buffer.as_ptr());
                let found = meta.in_pool().map(|in_pool| (in_pool.slot, in_pool.root()));
                let found = found.filter(|&(index, _)| self.slots.get(index).is_some_and(own));
                found.ok_or(Refusal::Foreign(meta.id()))
            }
        };
        if found.is_err() {
            self.counters.refused += 1;
        }
        found
    }

    pub(super) fn recycle(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        // This step is legal in every state.
        let _ = slot.state.take(slot.id, Step::Recycle);
        slot.place = Place::Free;
        self.free.push_back(index);
    }
}

impl Slot {
    pub(super) fn is_live(&self) -> bool {
        self.place != Place::Dead && self.region.is_alive()
    }

    /// Takes the parked wrapper to hand it out, if it was made for this config.
    pub(super) fn take_wrapper(&mut self, config: &Arc<BufferConfig>) -> Option<gst::Buffer> {
        let is_of_config = |of: &Arc<BufferConfig>| Arc::ptr_eq(of, config);
        self.config.as_ref().filter(|of| is_of_config(of))?;
        let buffer = self.parked.take()?;
        self.wrapper = buffer.as_ptr();
        Some(buffer)
    }

    fn ref_count(&self) -> Option<&AtomicI32> {
        // SAFETY: `wrapper` is non-null only while the buffer is out. It is set to null before the
        // buffer can be freed, under the lock that the caller holds.
        unsafe { Some(wrapper::ref_count(self.wrapper.as_ref()?)) }
    }

    pub(super) fn refs(&self) -> u32 {
        let count = self.ref_count().map(|count| count.load(Ordering::Relaxed));
        count.map_or(0, |count| count.max(0) as u32)
    }

    /// A new reference, unless the last one is being dropped.
    pub(super) fn try_ref(&self) -> Option<gst::Buffer> {
        let count = self.ref_count()?;
        let one_more = |now: i32| (now > 0).then_some(now + 1);
        count
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more)
            .ok()?;
        // SAFETY: the reference that was just taken becomes the Buffer's.
        Some(unsafe { gst::glib::translate::from_glib_full(self.wrapper.cast_mut()) })
    }
}
