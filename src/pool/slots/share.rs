// SPDX-License-Identifier: MPL-2.0
//! One pool's use of the slots: all of its verbs.

use std::sync::Arc;

use parking_lot::Condvar;

use super::{
    Claim, Maker, Refusal, Refused, Shared, Slots, Wait,
    inner::{Filled, Parked, Place, Slot},
    next_serial,
    wait::Patience,
};
use crate::pool::{
    state::{BufferState, IllegalStep, Step},
    wrapper,
};

/// One pool's access to the slots: all of its verbs.
pub struct Share {
    slots: Slots,
    submitted: Arc<Condvar>,
}

impl Share {
    pub fn new(slots: Slots) -> Self {
        Self {
            slots,
            submitted: Arc::new(Condvar::new()),
        }
    }

    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    fn shared(&self) -> &Shared {
        &self.slots.0
    }

    /// How many could be acquired right now, if `at_most` so many may be out.
    pub fn free_count(&self, at_most: usize) -> usize {
        let mut inner = self.shared().inner.lock();
        let allowed = at_most.saturating_sub(inner.part(&self.submitted).1.out);
        let alive = |&&index: &&usize| inner.slots[index].region.is_alive();
        inner.free.iter().filter(alive).count().min(allowed)
    }

    /// How many wait in the filled queue.
    pub fn filled_count(&self) -> usize {
        let mut inner = self.shared().inner.lock();
        let (slots, part) = inner.part(&self.submitted);
        let alive = |f: &&Filled| slots[f.slot].region.is_alive();
        part.filled.iter().filter(alive).count()
    }

    /// Wakes everybody who waits, so that they look at `is_flushing` again, and
    /// empties the filled queue: `attach` makes each buffer in it the pool's again,
    /// under the lock, so that who kept a reference may submit it again.
    pub fn flush(&self, attach: impl Fn(&gst::Buffer)) {
        let mut inner = self.shared().inner.lock();
        let (slots, part) = inner.part(&self.submitted);
        let filled = std::mem::take(&mut part.filled);
        for Filled { slot, buffer } in &filled {
            let slot = &mut slots[*slot];
            // Never refused: what is in the queue is ready.
            let _ = slot.state.take(slot.id, Step::Flush);
            attach(buffer);
        }
        drop(inner);
        self.shared().freed.notify_all();
        self.submitted.notify_all();
        drop(filled);
    }

    /// Takes a free buffer, growing or waiting as allowed.
    pub fn acquire(&self, maker: &impl Maker, wait: Wait) -> Result<gst::Buffer, Refusal> {
        let shared = self.shared();
        let mut patience = Patience::of(wait);
        let mut may_grow = maker.may_grow();
        let mut inner = shared.inner.lock();
        loop {
            if maker.is_flushing() {
                return Err(Refusal::Flushing);
            }
            let at_most = maker.at_most();
            while inner.part(&self.submitted).1.out < at_most
                && let Some(index) = inner.pop_free(shared.reuse)
            {
                let slot = &mut inner.slots[index];
                if !slot.region.is_alive() {
                    slot.place = Place::Dead;
                    continue;
                }
                if slot.state.take(slot.id, Step::AcquireFree).is_err() {
                    continue; // not reached: a free slot is idle
                }
                slot.place = Place::Out;
                match slot.parked.take() {
                    Some(parked) if parked.epoch == maker.epoch() => {
                        slot.wrapper = parked.buffer.as_ptr();
                        inner.part(&self.submitted).1.out += 1;
                        inner.counters.acquired += 1;
                        return Ok(parked.buffer);
                    }
                    stale => {
                        slot.serial = next_serial();
                        slot.wrapper = std::ptr::null();
                        let claim = Claim {
                            id: slot.id,
                            slot: index,
                            region: slot.region.clone(),
                            serial: slot.serial,
                            slots: Arc::downgrade(&self.slots.0),
                        };
                        inner.part(&self.submitted).1.out += 1;
                        drop(inner);
                        drop(stale);
                        return self.finish_claim(maker, claim);
                    }
                }
            }
            if may_grow && inner.slots.len() + inner.growing < at_most {
                inner.growing += 1;
                drop(inner);
                let region = maker.allocate();
                inner = shared.inner.lock();
                inner.growing -= 1;
                match region {
                    Some(region) => inner.push(region),
                    None if inner.slots.is_empty() => {
                        // Who waited for this attempt has to make his own.
                        shared.freed.notify_all();
                        return Err(Refusal::NoMemory);
                    }
                    None => may_grow = false,
                }
                continue;
            }
            patience.wait(&shared.freed, &mut inner)?;
        }
    }

    /// Makes the wrapper of a claimed slot, outside the lock.
    fn finish_claim(&self, maker: &impl Maker, claim: Claim) -> Result<gst::Buffer, Refusal> {
        let buffer = maker.wrap(&claim);
        let mut inner = self.shared().inner.lock();
        let ours = |s: &&mut Slot| s.id == claim.id && s.serial == claim.serial;
        let Some(slot) = inner.slots.get_mut(claim.slot).filter(ours) else {
            inner.part(&self.submitted).1.out -= 1;
            return Err(Refusal::Flushing); // cleared meanwhile
        };
        match buffer {
            Some(buffer) => {
                slot.wrapper = buffer.as_ptr();
                inner.counters.acquired += 1;
                Ok(buffer)
            }
            None => {
                inner.recycle(claim.slot);
                inner.part(&self.submitted).1.out -= 1;
                self.shared().tell_freed(inner);
                Err(Refusal::NoMemory)
            }
        }
    }

    /// Takes back a buffer whose last reference went.
    pub fn release(&self, epoch: u64, buffer: gst::Buffer) {
        let Some(returned) = wrapper::look_at(&buffer) else {
            return;
        };
        // Who found it by id since its last unref may still read it: what follows
        // changes it only if nobody did, and from under the lock on nobody can.
        let mut inner = self.shared().inner.lock();
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
            inner = self.shared().inner.lock();
        }
        let Some(slot) = inner.slot_of(&returned) else {
            drop(inner);
            return;
        };
        let discarded = if !slot.region.is_alive() {
            slot.place = Place::Dead;
            Some(buffer)
        } else if slot.place == Place::Out && wrapper::put_right(&buffer, &returned) {
            slot.parked = Some(Parked { epoch, buffer });
            inner.recycle(returned.slot);
            None
        } else {
            if slot.place == Place::OutMemoryGone {
                inner.recycle(returned.slot);
            } else {
                slot.place = Place::Detached;
                // Nobody's, as its buffer. Every state may be recycled.
                let _ = slot.state.take(slot.id, Step::Recycle);
            }
            inner.counters.detached += 1;
            Some(buffer)
        };
        inner.counters.released += 1;
        self.shared().tell_freed(inner);
        drop(discarded);
    }

    /// Moves an acquired buffer into the filled queue; `detach` runs on it under
    /// the lock, before anyone can take it out, and says whether it was the pool's
    /// still. A buffer whose memory is gone is refused, and its slot dies with its
    /// last reference.
    pub fn submit(
        &self,
        maker: &impl Maker,
        buffer: gst::Buffer,
        detach: impl FnOnce(&gst::Buffer) -> bool,
    ) -> Result<(), Refused> {
        let mut inner = self.shared().inner.lock();
        if maker.is_flushing() {
            return Err(Refused::Flushing);
        }
        let (index, root) = inner.find(&buffer)?;
        let slot = &mut inner.slots[index];
        let id = slot.id;
        let next = slot.state.after(id, Step::SubmitFilled);
        let result = match next {
            Err(illegal) => Err(Refused::Illegal(illegal)),
            Ok(_) if !slot.region.is_alive() => Err(Refused::Gone(id)),
            Ok(_) if !wrapper::is_of(&buffer, root) => Err(Refused::Replaced(id)),
            // Found by id while its last holder let go of it: it is on its way into
            // the free list, whatever its state.
            Ok(_) if !detach(&buffer) => Err(Refused::Illegal(IllegalStep {
                id,
                state: BufferState::Idle,
                step: Step::SubmitFilled,
            })),
            Ok(next) => Ok(next),
        };
        match result {
            Ok(next) => slot.state = next,
            Err(refused) => {
                // That memory goes is its owner's right, and no mistake of the caller's.
                inner.counters.refused += u64::from(!matches!(refused, Refused::Gone(_)));
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

    /// Takes the oldest buffer that this pool was given filled.
    pub fn acquire_filled(&self, maker: &impl Maker, wait: Wait) -> Result<gst::Buffer, Refusal> {
        let mut patience = Patience::of(wait);
        let mut inner = self.shared().inner.lock();
        loop {
            if maker.is_flushing() {
                return Err(Refusal::Flushing);
            }
            // A queued slot is ready; one whose memory is gone is as good as not
            // there, and leaves the queue with the next flush.
            let (slots, part) = inner.part(&self.submitted);
            let next = part.filled.iter().position(|f| {
                let slot = &mut slots[f.slot];
                slot.region.is_alive() && slot.state.take(slot.id, Step::AcquireFilled).is_ok()
            });
            if let Some(filled) = next.and_then(|next| part.filled.remove(next)) {
                inner.counters.consumed += 1;
                return Ok(filled.buffer);
            }
            patience.wait(&self.submitted, &mut inner)?;
        }
    }

    /// Marks a consumed buffer as released; the caller then drops it.
    pub fn release_filled(&self, buffer: &gst::BufferRef) -> Result<(), Refused> {
        let mut inner = self.shared().inner.lock();
        let (index, _) = inner.find(buffer)?;
        let slot = &mut inner.slots[index];
        let taken = slot.state.take(slot.id, Step::ReleaseFilled);
        if taken.is_err() {
            inner.counters.refused += 1;
        }
        Ok(taken?)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut inner = self.shared().inner.lock();
        // The pool's end has flushed it: it is empty.
        inner
            .parts
            .retain(|part| !Arc::ptr_eq(&part.submitted, &self.submitted));
    }
}
