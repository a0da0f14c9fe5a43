// SPDX-License-Identifier: MPL-2.0
//! What the lock of the slots guards: the slots, where each is, and each pool's queue.

use std::{collections::VecDeque, sync::Arc, sync::atomic::Ordering};

use parking_lot::Condvar;

use super::{Counters, Refused, Reuse, next_id};
use crate::{
    memory::Region,
    meta::PhysMemMeta,
    pool::{
        state::{BufferState, Step},
        wrapper,
    },
};

#[derive(Default)]
pub(super) struct Inner {
    pub(super) slots: Vec<Slot>,
    pub(super) free: VecDeque<usize>,
    /// One for each pool that has been used.
    pub(super) parts: Vec<Part>,
    /// Slots being allocated outside the lock.
    pub(super) growing: usize,
    pub(super) counters: Counters,
}

/// What is one pool's alone. A filled buffer is taken only by the pool whose layout it
/// has, so that nobody else is to be woken for it.
pub(super) struct Part {
    /// Buffers that were handed out and have not come back, the filled ones too.
    pub(super) out: usize,
    pub(super) filled: VecDeque<Filled>,
    /// A buffer was submitted, or somebody flushes. Its own address names the part.
    pub(super) submitted: Arc<Condvar>,
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
    /// Names the wrapper's memory to its own free notification.
    pub(super) serial: u64,
    /// The wrapper while it is out; compared and its reference count read,
    /// under the lock and only while `place` says that it exists.
    pub(super) wrapper: *const gst::ffi::GstBuffer,
    pub(super) parked: Option<Parked>,
}

// SAFETY: `wrapper` is only dereferenced under the lock of `Inner`, while the
// slot's place guarantees that the buffer has not been released.
unsafe impl Send for Slot {}

pub(super) struct Parked {
    pub(super) epoch: u64,
    pub(super) buffer: gst::Buffer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the free list.
    Free,
    /// Handed out.
    Out,
    /// Handed out, and the memory that went with it was freed meanwhile.
    OutMemoryGone,
    /// The wrapper came back, its memory did not yet.
    Detached,
    /// The external memory's owner took it away; never handed out again.
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
            parked: None,
        });
    }

    /// There were buffers, and the memory of each was freed by its owner.
    pub(super) fn is_all_dead(&self) -> bool {
        !self.slots.is_empty() && !self.slots.iter().any(Slot::is_live)
    }

    /// Takes dead slots out of the free list, and gives back the buffers around
    /// them, to be dropped without the lock. Those in the filled queue stay there
    /// until a flush, which gives them their pool back first: without it nobody
    /// would count them as returned.
    pub(super) fn bury(&mut self) -> Vec<gst::Buffer> {
        let Self { slots, free, .. } = self;
        free.retain(|&index| {
            let slot = &mut slots[index];
            if !slot.region.is_alive() {
                slot.place = Place::Dead;
            }
            slot.place == Place::Free
        });
        let dead = slots.iter_mut().filter(|s| s.place == Place::Dead);
        dead.filter_map(|s| s.parked.take().map(|p| p.buffer))
            .collect()
    }

    /// The slots, and the part of the pool that this condition names.
    pub(super) fn part(&mut self, submitted: &Arc<Condvar>) -> (&mut [Slot], &mut Part) {
        let named = |part: &Part| Arc::ptr_eq(&part.submitted, submitted);
        let index = self.parts.iter().position(named).unwrap_or_else(|| {
            self.parts.push(Part {
                out: 0,
                filled: VecDeque::new(),
                submitted: submitted.clone(),
            });
            self.parts.len() - 1
        });
        (&mut self.slots, &mut self.parts[index])
    }

    pub(super) fn slot_of(&mut self, returned: &wrapper::Returned) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(returned.slot)?;
        (slot.id == returned.id).then_some(slot)
    }

    pub(super) fn pop_free(&mut self, reuse: Reuse) -> Option<usize> {
        match reuse {
            Reuse::MostRecent => self.free.pop_back(),
            Reuse::LeastRecent => self.free.pop_front(),
        }
    }

    /// The slot that the buffer went out of, and the memory it went out with. Of a copy,
    /// which shares memory and meta, there is none.
    pub(super) fn find(
        &mut self,
        buffer: &gst::BufferRef,
    ) -> Result<(usize, *const gst::ffi::GstMemory), Refused> {
        let found = match buffer.meta::<PhysMemMeta>() {
            None => Err(Refused::NoMeta),
            Some(meta) => {
                let own = |s: &Slot| s.id == meta.id() && std::ptr::eq(s.wrapper, buffer.as_ptr());
                let found = meta.in_pool().map(|in_pool| (in_pool.slot, in_pool.root()));
                let found = found.filter(|&(index, _)| self.slots.get(index).is_some_and(own));
                found.ok_or(Refused::Foreign(meta.id()))
            }
        };
        if found.is_err() {
            self.counters.refused += 1;
        }
        found
    }

    pub(super) fn recycle(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        // Never refused: every state may be recycled.
        let _ = slot.state.take(slot.id, Step::Recycle);
        slot.place = Place::Free;
        self.free.push_back(index);
    }
}

impl Slot {
    pub(super) fn is_live(&self) -> bool {
        self.place != Place::Dead && self.region.is_alive()
    }

    pub(super) fn ref_count(&self) -> u32 {
        if self.wrapper.is_null() {
            return 0;
        }
        // SAFETY: `wrapper` is non-null only while the buffer is out; it is set
        // to null, under the lock that we hold, before the buffer can be freed.
        let count = unsafe { &(*self.wrapper).mini_object.refcount };
        // SAFETY: the field is a gint that GStreamer changes atomically.
        unsafe { std::sync::atomic::AtomicI32::from_ptr(std::ptr::from_ref(count).cast_mut()) }
            .load(Ordering::Relaxed)
            .max(0) as u32
    }

    /// A new reference, unless the last one is just going.
    pub(super) fn try_ref(&self) -> Option<gst::Buffer> {
        if self.wrapper.is_null() {
            return None;
        }
        // SAFETY: as in `ref_count` the buffer exists while we hold the lock.
        let count = unsafe {
            std::sync::atomic::AtomicI32::from_ptr(
                std::ptr::from_ref(&(*self.wrapper).mini_object.refcount).cast_mut(),
            )
        };
        let mut now = count.load(Ordering::Relaxed);
        while now > 0 {
            match count.compare_exchange_weak(now, now + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    // SAFETY: the reference just taken is the one that Buffer owns.
                    let buffer =
                        unsafe { gst::glib::translate::from_glib_full(self.wrapper.cast_mut()) };
                    return Some(buffer);
                }
                Err(other) => now = other,
            }
        }
        None
    }
}
