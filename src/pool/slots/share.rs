// SPDX-License-Identifier: MPL-2.0
//! One pool's use of the slots: acquire, submit, release, flush.

use std::sync::Arc;

use parking_lot::Condvar;

use super::{
    Attempt, Claim, Growth, Refusal, Slots, Store, Wait,
    inner::{Filled, Inner, Part, Place, Slot},
    next_serial,
};
use crate::memory::Region;
use crate::pool::{
    config::BufferConfig,
    state::{BufferState, IllegalStep, Step},
    wrapper,
};

pub struct Share {
    slots: Slots,
    submitted: Arc<Condvar>,
}

/// What the caller has to do for a free buffer.
pub enum Next {
    /// Nothing: this is the buffer.
    Buffer(gst::Buffer),
    /// Make a wrapper around this slot's memory, for [`Share::finish_claim`].
    Wrap(Claim),
    /// Allocate a block of this many bytes, for [`Share::grow`].
    Grow(usize),
}

impl Share {
    /// The share of a pool that is not configured yet, and therefore flushes.
    pub fn new(slots: Slots) -> Self {
        let submitted = Arc::new(Condvar::new());
        slots.0.inner.lock().parts.push(Part {
            submitted: submitted.clone(),
            is_flushing: true,
            config: None,
            out: 0,
            filled: Default::default(),
        });
        Self { slots, submitted }
    }

    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    fn store(&self) -> &Store {
        &self.slots.0
    }

    /// Sets the layout of the buffers. A buffer of the old layout that is out keeps it.
    pub fn set_config(&self, config: BufferConfig) {
        let config = Some(Arc::new(config));
        let mut inner = self.store().inner.lock();
        let old = std::mem::replace(&mut inner.part(&self.submitted).1.config, config);
        drop(inner);
        drop(old);
    }

    /// `None` before the pool is configured.
    pub fn config(&self) -> Option<Arc<BufferConfig>> {
        let mut inner = self.store().inner.lock();
        inner.part(&self.submitted).1.config.clone()
    }

    pub fn free_count(&self) -> usize {
        let mut inner = self.store().inner.lock();
        let part = inner.part(&self.submitted).1;
        let max = part.config.as_ref().map_or(0, |config| config.max_buffers);
        let allowed = max.saturating_sub(part.out);
        let alive = |&&index: &&usize| inner.slots[index].region.is_alive();
        inner.free.iter().filter(alive).count().min(allowed)
    }

    pub fn filled_count(&self) -> usize {
        let mut inner = self.store().inner.lock();
        let (slots, part) = inner.part(&self.submitted);
        let alive = |f: &&Filled| slots[f.slot].region.is_alive();
        part.filled.iter().filter(alive).count()
    }

    /// Refuses buffers from now on, wakes all threads that wait for one, and empties the filled
    /// queue. Under the lock `attach` gives each buffer in the queue its pool back, so that a
    /// thread that kept a reference may submit the buffer again.
    pub fn start_flushing(&self, attach: impl Fn(&gst::Buffer)) {
        let mut inner = self.store().inner.lock();
        let (slots, part) = inner.part(&self.submitted);
        part.is_flushing = true;
        let filled = std::mem::take(&mut part.filled);
        for Filled { slot, buffer } in &filled {
            let slot = &mut slots[*slot];
            // A buffer in the queue is ready, so that this step is legal.
            let _ = slot.state.take(slot.id, Step::Flush);
            attach(buffer);
        }
        drop(inner);
        self.store().freed.notify_all();
        self.submitted.notify_all();
        drop(filled);
    }

    pub fn stop_flushing(&self) {
        let mut inner = self.store().inner.lock();
        inner.part(&self.submitted).1.is_flushing = false;
    }

    /// Takes a free buffer, or says what the caller has to do to get one, or waits.
    pub fn acquire(&self, attempt: &mut Attempt) -> Result<Next, Refusal> {
        let store = self.store();
        let mut inner = store.inner.lock();
        loop {
            if let Some(next) = self.try_acquire(&mut inner, attempt)? {
                return Ok(next);
            }
            attempt.wait(&store.freed, &mut inner)?;
        }
    }

    /// Returns `None` if only waiting may help.
    fn try_acquire(&self, inner: &mut Inner, attempt: &Attempt) -> Result<Option<Next>, Refusal> {
        let part = inner.index_of_part(&self.submitted);
        let Inner {
            slots,
            free,
            parts,
            growing,
            counters,
        } = inner;
        let part = &mut parts[part];
        let Some(config) = part.config.as_ref().filter(|_| !part.is_flushing) else {
            return Err(Refusal::Flushing);
        };
        while part.out < config.max_buffers
            && let Some(index) = self.store().reuse.pop(free)
        {
            let slot = &mut slots[index];
            if !slot.region.is_alive() {
                slot.place = Place::Dead;
                continue;
            }
            if slot.state.take(slot.id, Step::AcquireFree).is_err() {
                continue; // not reached: a free slot is idle
            }
            slot.place = Place::Out;
            part.out += 1;
            if let Some(buffer) = slot.take_wrapper(config) {
                counters.acquired += 1;
                return Ok(Some(Next::Buffer(buffer)));
            }
            slot.serial = next_serial();
            return Ok(Some(Next::Wrap(Claim {
                id: slot.id,
                slot: index,
                region: slot.region.clone(),
                config: config.clone(),
                serial: slot.serial,
                slots: Arc::downgrade(&self.slots.0),
                _stale: slot.parked.take(),
            })));
        }
        if attempt.growth == Growth::OnDemand && slots.len() + *growing < config.max_buffers {
            *growing += 1;
            return Ok(Some(Next::Grow(config.block_bytes)));
        }
        Ok(None)
    }

    /// Ends the growth that [`Next::Grow`] began, outside of the lock.
    pub fn grow(
        &self,
        region: Result<Arc<Region>, String>,
        attempt: &mut Attempt,
    ) -> Result<(), Refusal> {
        let mut inner = self.store().inner.lock();
        inner.growing -= 1;
        match region {
            Ok(region) => inner.push(region),
            Err(reason) if inner.slots.is_empty() => {
                // Threads that waited for this allocation have to try one themselves.
                self.store().freed.notify_all();
                return Err(Refusal::NoMemory(reason));
            }
            Err(reason) => attempt.growth = Growth::Refused(reason),
        }
        Ok(())
    }

    /// Puts the wrapper, which the caller made outside of the lock, around the slot of a claim.
    pub fn finish_claim(&self, claim: Claim, buffer: gst::Buffer) -> Result<gst::Buffer, Refusal> {
        let mut inner = self.store().inner.lock();
        let ours = |s: &&mut Slot| s.id == claim.id && s.serial == claim.serial;
        let Some(slot) = inner.slots.get_mut(claim.slot).filter(ours) else {
            inner.part(&self.submitted).1.out -= 1;
            drop(inner);
            return Err(Refusal::Flushing); // the slots were cleared meanwhile
        };
        slot.wrapper = buffer.as_ptr();
        slot.config = Some(claim.config.clone());
        inner.counters.acquired += 1;
        drop(inner);
        Ok(buffer)
    }

    /// Takes back a buffer whose last reference was dropped.
    pub fn release(&self, buffer: gst::Buffer) {
        let Some(returned) = wrapper::look_at(&buffer) else {
            return;
        };
        // A thread that found the buffer by its id after that may still read it. The code below
        // changes the buffer only if there is no such thread. Under the lock no new one can appear.
        let mut inner = self.store().inner.lock();
        let (_, part) = inner.part(&self.submitted);
        part.out = part.out.saturating_sub(1);
        let Some(slot) = inner.slot_of(&returned) else {
            drop(inner);
            return; // the slots were cleared; the buffer was the memory's last holder
        };
        slot.wrapper = std::ptr::null();
        if returned.has_foreign_meta && wrapper::is_unshared(&buffer) {
            drop(inner);
            wrapper::remove_foreign_metas(&buffer);
            inner = self.store().inner.lock();
        }
        let Some(slot) = inner.slot_of(&returned) else {
            drop(inner);
            return;
        };
        let discarded = if !slot.region.is_alive() {
            slot.place = Place::Dead;
            Some(buffer)
        } else if slot.place == Place::Out && wrapper::put_right(&buffer, &returned) {
            slot.parked = Some(buffer);
            inner.recycle(returned.slot);
            None
        } else {
            if slot.place == Place::OutMemoryGone {
                inner.recycle(returned.slot);
            } else {
                slot.place = Place::Detached;
                // The slot has no user any more. This step is legal in every state.
                let _ = slot.state.take(slot.id, Step::Recycle);
            }
            inner.counters.detached += 1;
            Some(buffer)
        };
        inner.counters.released += 1;
        self.store().tell_freed(inner);
        drop(discarded);
    }

    /// Moves an acquired buffer into the filled queue. Under the lock, before any thread can take
    /// the buffer out, `detach` runs on it and says whether it still had its pool. A buffer whose
    /// memory is gone is refused, and its slot dies with its last reference.
    pub fn submit(
        &self,
        buffer: gst::Buffer,
        detach: impl FnOnce(&gst::Buffer) -> bool,
    ) -> Result<(), Refusal> {
        let mut inner = self.store().inner.lock();
        if inner.part(&self.submitted).1.is_flushing {
            return Err(Refusal::Flushing);
        }
        let (index, root) = inner.find(&buffer)?;
        let slot = &mut inner.slots[index];
        let id = slot.id;
        let next = slot.state.after(id, Step::SubmitFilled);
        let result = match next {
            Err(illegal) => Err(Refusal::Illegal(illegal)),
            Ok(_) if !slot.region.is_alive() => Err(Refusal::Gone(id)),
            Ok(_) if !wrapper::is_of(&buffer, root) => Err(Refusal::Replaced(id)),
            // The buffer was found by its id while its last reference was dropped. It is on its way
            // into the free list, whatever its state.
            Ok(_) if !detach(&buffer) => Err(Refusal::Illegal(IllegalStep {
                id,
                state: BufferState::Idle,
                step: Step::SubmitFilled,
            })),
            Ok(next) => Ok(next),
        };
        match result {
            Ok(next) => slot.state = next,
            Err(refused) => {
                // That the owner frees its memory is no mistake of the caller.
                inner.counters.refused += u64::from(!matches!(refused, Refusal::Gone(_)));
                return Err(refused);
            }
        }
        let (_, part) = inner.part(&self.submitted);
        part.filled.push_back(Filled {
            slot: index,
            buffer,
        });
        inner.counters.submitted += 1;
        drop(inner);
        self.submitted.notify_one();
        Ok(())
    }

    /// Takes the oldest buffer out of this pool's filled queue.
    pub fn acquire_filled(&self, wait: Wait) -> Result<gst::Buffer, Refusal> {
        let mut attempt = Attempt::new(wait, Growth::Never);
        let mut inner = self.store().inner.lock();
        loop {
            let (slots, part) = inner.part(&self.submitted);
            if part.is_flushing {
                return Err(Refusal::Flushing);
            }
            // Slots in the queue are ready. One whose memory is gone is passed over, and leaves the
            // queue with the next flush.
            let next = part.filled.iter().position(|f| {
                let slot = &mut slots[f.slot];
                slot.region.is_alive() && slot.state.take(slot.id, Step::AcquireFilled).is_ok()
            });
            if let Some(filled) = next.and_then(|next| part.filled.remove(next)) {
                inner.counters.consumed += 1;
                return Ok(filled.buffer);
            }
            attempt.wait(&self.submitted, &mut inner)?;
        }
    }

    /// Marks a consumed buffer as released, which the caller then drops.
    pub fn release_filled(&self, buffer: &gst::BufferRef) -> Result<(), Refusal> {
        let mut inner = self.store().inner.lock();
        let (index, _) = inner.find(buffer)?;
        let slot = &mut inner.slots[index];
        let taken = slot.state.take(slot.id, Step::ReleaseFilled);
        inner.counters.refused += u64::from(taken.is_err());
        taken.map_err(Refusal::Illegal)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut inner = self.store().inner.lock();
        // The pool has flushed at its end, so that its queue is empty.
        let part = inner.index_of_part(&self.submitted);
        let part = inner.parts.swap_remove(part);
        drop(inner);
        drop(part);
    }
}
