// SPDX-License-Identifier: MPL-2.0
//! One pool's use of the slots: acquire, submit, release, flush.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Attempt, Block, Claim, Growth, Place, Put, Refusal, Slot, Slots, Store, Wait,
    filled::FilledQueue,
    free_cache::FirstWord,
    inner::{Filled, Inner, NumberedConfig, Part, User},
    next_serial,
    wait::yield_until,
};
use crate::locks::{Condvar, MutexGuard};
use crate::{
    memory::Region,
    meta::{InPool, PhysMemMeta},
    pool::{
        config::BufferConfig,
        state::{BufferState, IllegalStep, Step},
        wrapper::{self, Returned},
    },
};

pub struct Share {
    slots: Slots,
    part: Arc<Part>,
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
        let part = Arc::new(Part {
            filled: FilledQueue::new(),
            submitted: Condvar::new(),
        });
        let mut inner = slots.0.inner.lock();
        inner.users.push(User {
            part: part.clone(),
            config: None,
            passed_over: Vec::new(),
        });
        slots.0.open_or_close(&mut inner);
        drop(inner);
        Self { slots, part }
    }

    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    fn store(&self) -> &Store {
        &self.slots.0
    }

    /// Sets the layout of the buffers. A buffer of the old layout that is out keeps it.
    pub fn set_config(&self, config: BufferConfig) {
        let config = Some(NumberedConfig {
            number: next_serial(),
            config: Arc::new(config),
        });
        let mut inner = self.store().inner.lock();
        let old = std::mem::replace(&mut inner.user(&self.part).config, config);
        self.store().open_or_close(&mut inner);
        drop(inner);
        drop(old);
    }

    /// `None` before the pool is configured.
    pub fn config(&self) -> Option<Arc<BufferConfig>> {
        let mut inner = self.store().inner.lock();
        let config = &inner.user(&self.part).config;
        config.as_ref().map(|numbered| numbered.config.clone())
    }

    pub fn free_count(&self) -> usize {
        let inner = self.store().inner.lock();
        let Some(config) = &inner.users[inner.index_of(&self.part)].config else {
            return 0;
        };
        let allowed = config.config.max_buffers;
        let allowed = allowed.saturating_sub(self.out_count(&inner, config));
        let free = self.store().live(&inner);
        let free = free.filter(|(slot, _)| slot.place() == Place::Free);
        free.count().min(allowed)
    }

    /// Number of buffers that were handed out and have not come back, including the filled ones.
    fn out_count(&self, inner: &Inner, config: &NumberedConfig) -> usize {
        let slots = self.store().with_blocks(inner);
        let is_out = |slot: &Slot| slot.is_out() && slot.made_for() == config.number;
        slots.filter(|(slot, _)| is_out(slot)).count()
    }

    pub fn filled_count(&self) -> usize {
        let inner = self.store().inner.lock();
        let Some(config) = &inner.users[inner.index_of(&self.part)].config else {
            return 0;
        };
        let is_filled = |slot: &Slot| {
            slot.state.load() == BufferState::ReadyForConsume && slot.made_for() == config.number
        };
        let live = self.store().live(&inner);
        live.filter(|(slot, _)| is_filled(slot)).count()
    }

    /// Refuses buffers from now on, wakes all threads that wait for one, and empties the filled
    /// queue. Each buffer in the queue gets its pool back, so that a thread that kept a reference
    /// may submit the buffer again.
    pub fn start_flushing(&self, pool: &gst::BufferPool) {
        let mut inner = self.store().inner.lock();
        self.part.filled.set_flushing(true);
        let filled = self.empty(&mut inner, pool);
        self.store().freed().wake_all();
        self.part.event().wake_all();
        drop(inner);
        drop(filled);
    }

    /// Empties the filled queue; the caller drops the buffers outside of the lock.
    fn empty(&self, inner: &mut Inner, pool: &gst::BufferPool) -> Vec<Filled> {
        let passed_over = std::mem::take(&mut inner.user(&self.part).passed_over);
        let filled: Vec<_> = passed_over
            .into_iter()
            .chain(self.part.filled.drain())
            .collect();
        for Filled { slot, buffer } in &filled {
            wrapper::give_pool(buffer, pool);
            if let Some(slot) = self.store().slots.get(*slot) {
                // A buffer in the queue is ready, so that this step is legal.
                let _ = slot.state.take(slot.id(), Step::Flush);
            }
        }
        filled
    }

    pub fn stop_flushing(&self) {
        let _inner = self.store().inner.lock();
        self.part.filled.set_flushing(false);
    }

    /// A free buffer, if the cache has one. Takes the lock only if the pool was configured anew
    /// meanwhile.
    pub fn acquire_at_once(&self) -> Option<gst::Buffer> {
        let store = self.store();
        let config = store.free_cache.open_for();
        if config == 0 || self.part.filled.is_flushing() {
            return None;
        }
        let index = store.free_cache.take(FirstWord::of_this_thread())?;
        let slot = store.slots.get(index)?;
        // A slot in the cache is free.
        debug_assert_eq!(slot.place(), Place::Free);
        // It has a wrapper of this configuration, unless that changed meanwhile.
        if slot.made_for() == config
            && slot.take_out()
            && let Some(buffer) = slot.hand_out(config)
        {
            return Some(buffer);
        }
        let mut inner = store.inner.lock();
        store.recycle(&mut inner, index, slot);
        store.tell_freed(inner);
        None
    }

    /// Takes a free buffer, or says what the caller has to do to get one, or waits.
    pub fn acquire(&self, attempt: &mut Attempt) -> Result<Next, Refusal> {
        let store = self.store();
        let mut inner = store.inner.lock();
        loop {
            if let Some(next) = self.try_acquire(&mut inner, attempt)? {
                return Ok(next);
            }
            if !store.free_cache.is_open_for(0) && attempt.yields_first() {
                let is_there = || !store.free_cache.is_empty() || self.part.filled.is_flushing();
                MutexGuard::unlocked(&mut inner, || yield_until(is_there));
                continue;
            }
            attempt.wait(store, &store.freed(), &mut inner, || {
                !store.free_cache.is_empty()
            })?;
        }
    }

    /// Returns `None` if only waiting may help.
    fn try_acquire(&self, inner: &mut Inner, attempt: &Attempt) -> Result<Option<Next>, Refusal> {
        let store = self.store();
        let config = inner.user(&self.part).config.clone();
        let Some(config) = config.filter(|_| !self.part.filled.is_flushing()) else {
            return Err(Refusal::Flushing);
        };
        // A release that had begun before the cache was closed may have put its slot in.
        if store.free_cache.is_open_for(0) {
            inner.free.extend(store.free_cache.drain());
        }
        let max = config.config.max_buffers;
        let has_all =
            |inner: &Inner| inner.blocks.len() > max && self.out_count(inner, &config) >= max;
        while !has_all(inner)
            && let Some(index) = store.pop_free(inner)
        {
            let (Some(slot), Some(block)) = (store.slots.get(index), inner.blocks.get_mut(index))
            else {
                continue; // not reached: a slot in the list exists
            };
            if let Some(next) = self.hand_out(index, slot, block, &config) {
                return Ok(Some(next));
            }
        }
        if attempt.growth == Growth::OnDemand && inner.blocks.len() + inner.growing < max {
            inner.growing += 1;
            return Ok(Some(Next::Grow(config.config.block_bytes)));
        }
        Ok(None)
    }

    /// Hands out a slot that was taken out of the free list. `None` if its memory is gone.
    fn hand_out(
        &self,
        index: usize,
        slot: &Slot,
        block: &mut Block,
        config: &NumberedConfig,
    ) -> Option<Next> {
        if !block.region.is_alive() {
            slot.set_place(Place::Dead);
            return None;
        }
        // A wrapper of another layout, to be dropped outside of the lock.
        let stale = match slot.made_for() == config.number {
            true => None,
            false => slot.take_parked(),
        };
        if !slot.take_out() {
            return None; // not reached: a free slot is idle
        }
        if let Some(buffer) = slot.hand_out(config.number) {
            return Some(Next::Buffer(buffer));
        }
        slot.reserve(config.number);
        block.serial = next_serial();
        Some(Next::Wrap(Claim {
            id: slot.id(),
            slot: index,
            region: block.region.clone(),
            config: config.config.clone(),
            config_number: config.number,
            serial: block.serial,
            slots: Arc::downgrade(&self.slots.0),
            _stale: stale,
        }))
    }

    /// Ends the growth that [`Next::Grow`] began, outside of the lock.
    pub fn grow(
        &self,
        region: Result<Arc<Region>, String>,
        attempt: &mut Attempt,
    ) -> Result<(), Refusal> {
        let store = self.store();
        let mut inner = store.inner.lock();
        inner.growing -= 1;
        match region {
            Ok(region) => store.push(&mut inner, region),
            Err(reason) if inner.blocks.is_empty() => {
                // Threads that waited for this allocation have to try one themselves.
                store.freed().wake_all();
                return Err(Refusal::NoMemory(reason));
            }
            Err(reason) => attempt.growth = Growth::Refused(reason),
        }
        Ok(())
    }

    /// Puts the wrapper, which the caller made outside of the lock, around the slot of a claim.
    pub fn finish_claim(&self, claim: Claim, buffer: gst::Buffer) -> Result<gst::Buffer, Refusal> {
        let store = self.store();
        let inner = store.inner.lock();
        let is_ours = |block: &Block| block.serial == claim.serial;
        match store.slots.get(claim.slot) {
            Some(slot) if inner.blocks.get(claim.slot).is_some_and(is_ours) => {
                slot.set_wrapper(&buffer, claim.config_number);
                drop(inner);
                Ok(buffer)
            }
            _ => {
                drop(inner);
                Err(Refusal::Flushing) // the slots were cleared meanwhile
            }
        }
    }

    /// Takes back a buffer whose last reference was dropped.
    pub fn release(&self, buffer: gst::Buffer) {
        let Some(returned) = wrapper::look_at(&buffer) else {
            return;
        };
        // If the slots were cleared, the buffer was the memory's last holder.
        let slot = self.store().slots.get(returned.slot);
        let Some(slot) = slot.filter(|slot| slot.id() == returned.id) else {
            return;
        };
        if self.may_park_at_once(slot, &buffer, &returned) {
            slot.park(buffer);
            self.put_back(slot, returned.slot);
        } else {
            self.release_locked(slot, buffer, returned);
        }
    }

    /// Whether the buffer may be parked without the lock: it came back whole, the cache is open for
    /// it, and no thread looks for a buffer by its id. If so, the buffer is restored. GStreamer has
    /// already set the buffer's pool to NULL. So if a thread has found the buffer by its id, the
    /// reference count shows that, and a thread that looks from now on does not find the buffer.
    fn may_park_at_once(&self, slot: &Slot, buffer: &gst::Buffer, returned: &Returned) -> bool {
        let free_cache = &self.store().free_cache;
        !free_cache.is_looked_at()
            && free_cache.is_open_for(slot.made_for())
            && !returned.has_foreign_meta
            && slot.place() == Place::Out
            && slot.has(buffer)
            && wrapper::put_right(buffer, returned)
    }

    fn put_back(&self, slot: &Slot, index: usize) {
        let store = self.store();
        match store
            .free_cache
            .put(FirstWord::of_this_thread(), index, slot.made_for())
        {
            Put::Done => {}
            Put::NeedsLock => store.settle_with_lock(),
            Put::Refused => {
                let mut inner = store.inner.lock();
                store.put_free(&mut inner, index, slot);
                store.tell_freed(inner);
            }
        }
    }

    fn release_locked(&self, slot: &Slot, buffer: gst::Buffer, returned: Returned) {
        let store = self.store();
        // A thread that found the buffer by its id may still read it. The code below changes the
        // buffer only if no thread has such a reference. Under the lock no thread can take a new one.
        let mut inner = store.inner.lock();
        if returned.has_foreign_meta && wrapper::is_unshared(&buffer) {
            drop(inner);
            wrapper::remove_foreign_metas(&buffer);
            inner = store.inner.lock();
        }
        let block = inner.blocks.get(returned.slot);
        let Some(block) = block.filter(|_| slot.id() == returned.id) else {
            drop(inner);
            return; // the slots were cleared meanwhile
        };
        let (is_alive, is_whole) = (
            block.region.is_alive(),
            slot.place() == Place::Out && wrapper::put_right(&buffer, &returned),
        );
        if is_alive && is_whole {
            slot.park(buffer);
            store.put_free(&mut inner, returned.slot, slot);
            store.tell_freed(inner);
            return;
        }
        slot.forget_wrapper();
        slot.count_released();
        if !is_alive {
            slot.set_place(Place::Dead);
        } else {
            inner.counters.detached += 1;
            if slot.place() == Place::OutMemoryGone {
                store.recycle(&mut inner, returned.slot, slot);
            } else {
                slot.set_place(Place::Detached);
                // The slot has no user any more. This step is legal in every state.
                let _ = slot.state.take(slot.id(), Step::Recycle);
            }
        }
        store.tell_freed(inner);
        drop(buffer);
    }

    /// The slot that the buffer was handed out from. A copy of the buffer has no slot.
    fn find(&self, buffer: &gst::BufferRef) -> Result<Found<'_>, Refusal> {
        let found = match buffer.meta::<PhysMemMeta>() {
            None => Err(Refusal::NoMeta),
            Some(meta) => {
                let id = meta.id();
                let own = |slot: &&Slot| slot.id() == id && slot.has(buffer);
                let found = |in_pool: &InPool| {
                    Some(Found {
                        id,
                        slot: self.store().slots.get(in_pool.slot).filter(own)?,
                        index: in_pool.slot,
                        root: in_pool.root(),
                        is_alive: in_pool.is_alive(),
                    })
                };
                let found = meta.in_pool().and_then(found);
                found.ok_or(Refusal::Foreign(id))
            }
        };
        if found.is_err() {
            self.count_refused();
        }
        found
    }

    fn count_refused(&self) {
        self.store().refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Moves an acquired buffer into the filled queue. A buffer in the queue has no reference to its
    /// pool, because the pool owns the queue and would keep itself alive. A buffer whose memory is
    /// gone is refused, and its slot dies with its last reference.
    pub fn submit(&self, buffer: gst::Buffer, pool: &gst::BufferPool) -> Result<(), Refusal> {
        if self.part.filled.is_flushing() {
            return Err(Refusal::Flushing);
        }
        let found = self.find(&buffer)?;
        let (slot, index) = (found.slot, found.index);
        let its_pool = found.make_ready(&buffer).inspect_err(|refused| {
            // If the owner has freed the memory, the caller made no mistake.
            if !matches!(refused, Refusal::Gone(_)) {
                self.count_refused();
            }
        })?;
        slot.count_submitted();
        let filled = Filled {
            slot: index,
            buffer,
        };
        if self.part.filled.push(filled) {
            let mut inner = self.store().inner.lock();
            let flushed = match self.part.filled.is_flushing() {
                true => self.empty(&mut inner, pool),
                false => Vec::new(),
            };
            self.part.event().wake_one();
            drop(inner);
            drop(flushed);
        }
        drop(its_pool);
        Ok(())
    }

    /// Takes the oldest buffer out of this pool's filled queue.
    pub fn acquire_filled(
        &self,
        wait: Wait,
        pool: &gst::BufferPool,
    ) -> Result<gst::Buffer, Refusal> {
        let filled = &self.part.filled;
        let mut attempt = Attempt::new(wait, Growth::Never);
        loop {
            if filled.is_flushing() {
                return Err(Refusal::Flushing);
            }
            if let Some(oldest) = filled.pop() {
                match self.take_filled(oldest, pool) {
                    Some(buffer) => return Ok(buffer),
                    None => continue,
                }
            }
            let is_there = || !filled.is_empty() || filled.is_flushing();
            if attempt.yields_first() {
                yield_until(is_there);
                continue;
            }
            let mut inner = self.store().inner.lock();
            attempt.wait(self.store(), &self.part.event(), &mut inner, is_there)?;
        }
    }

    /// Hands a buffer of the queue to the consumer. A buffer whose memory is gone is put aside.
    fn take_filled(&self, filled: Filled, pool: &gst::BufferPool) -> Option<gst::Buffer> {
        let slot = self.store().slots.get(filled.slot)?;
        if slot.is_borrowed() {
            let mut inner = self.store().inner.lock();
            let block = inner.blocks.get(filled.slot);
            if !block.is_some_and(|block| block.region.is_alive()) {
                inner.user(&self.part).passed_over.push(filled);
                return None;
            }
        }
        wrapper::give_pool(&filled.buffer, pool);
        // A buffer in the queue is ready, so that this step is legal.
        let _ = slot.state.take(slot.id(), Step::AcquireFilled);
        slot.count_consumed();
        Some(filled.buffer)
    }

    /// Marks a consumed buffer as released, which the caller then drops.
    pub fn release_filled(&self, buffer: &gst::BufferRef) -> Result<(), Refusal> {
        let found = self.find(buffer)?;
        let taken = found.slot.state.take(found.id, Step::ReleaseFilled);
        taken.map_err(|illegal| {
            self.count_refused();
            Refusal::Illegal(illegal)
        })
    }
}

/// The slot of a buffer that is out.
struct Found<'a> {
    id: u32,
    slot: &'a Slot,
    index: usize,
    /// The memory that the buffer had when it was made.
    root: *const gst::ffi::GstMemory,
    is_alive: bool,
}

impl Found<'_> {
    /// Makes a buffer ready that is to be submitted, and takes its pool away.
    fn make_ready(&self, buffer: &gst::Buffer) -> Result<gst::BufferPool, Refusal> {
        let (id, slot, step) = (self.id, self.slot, Step::SubmitFilled);
        let state = slot.state.load();
        if step.from(state).is_none() {
            return Err(Refusal::Illegal(IllegalStep { id, state, step }));
        }
        if !self.is_alive {
            return Err(Refusal::Gone(id));
        }
        if !wrapper::is_of(buffer, self.root) {
            return Err(Refusal::Replaced(id));
        }
        slot.state.take(id, step).map_err(Refusal::Illegal)?;
        wrapper::take_pool(buffer).ok_or_else(|| {
            // The buffer was found by its id while its last reference was dropped. It is on its way
            // into the free list, whatever its state.
            let _ = slot.state.take(id, Step::Flush);
            let state = BufferState::Idle;
            Refusal::Illegal(IllegalStep { id, state, step })
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let store = self.store();
        let mut inner = store.inner.lock();
        // The pool has flushed at its end, so that its queue is empty.
        let index = inner.index_of(&self.part);
        let user = inner.users.swap_remove(index);
        store.open_or_close(&mut inner);
        drop(inner);
        drop(user);
    }
}
