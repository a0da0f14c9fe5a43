// SPDX-License-Identifier: MPL-2.0
//! The blocks of memory behind a pool: which are free, which are filled, and which threads wait.
//!
//! A [`Slot`] is one [`Region`] with an id, a state and a place. Each pool makes a GstBuffer (the
//! wrapper) around it, which has the pool's layout; an unused wrapper is parked in the slot.
//! Several pools may share one [`Slots`]: a display offers a new pool for each caps, but the new
//! pool must not hand out a page that a buffer of the old pool still holds.
//!
//! A wrapper that comes back without its memory, or whose memory something else still holds, is
//! thrown away. Its slot is then *detached*. It returns to the free list when that memory is freed,
//! which the memory itself reports.
//!
//! Memory borrowed from a [`BufferHandle`](crate::handle::BufferHandle) may be freed by its owner.
//! Its slot is then *dead*: it leaves the free list, the filled queue passes over it, a buffer of
//! it is thrown away when it comes back, and all waiting threads look again for a buffer.
//!
//! # Without the lock
//!
//! If one pool alone uses the slots, hands out the latest first, and may hand out all of them, the
//! slots released last are in the [`FreeCache`]. There acquire and release are one atomic operation each.
//! The filled queue ([`filled::FilledQueue`]) never needs the lock. The slots are in a vector that
//! only grows, and that threads may read while it grows. Without the lock, only the thread that has
//! taken a slot out of the free list writes to the slot's fields.
//!
//! One lock guards everything else: waiting, growing, other configurations, several pools, memory
//! that may die, buffers that come back changed. A thread that holds the lock to wait, to flush, to
//! close the cache or to look for a buffer sets an atomic word for that before it looks at slots or
//! queues. A thread without the lock reads the word after its own operation. [`free_cache`] and [`filled`]
//! describe these protocols, and loom models there check them. No memory is mapped, wrapped or freed
//! under the lock. While a buffer is free, acquire and release allocate no memory and make no system
//! call.

mod event;
mod filled;
mod free_cache;
mod inner;
mod share;
mod slot;
mod wait;

use std::collections::VecDeque;
use std::sync::{
    Arc, Weak,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use super::config::BufferConfig;
use super::state::{BufferState, IllegalStep, Step};
use crate::locks::{Condvar, Mutex, MutexGuard};
use crate::{handle::HandleWatcher, memory::Region, sync::GrowingVec};

use event::Event;
use free_cache::{FirstWord, FreeCache, Put};
use inner::{Block, Inner, NumberedConfig};
pub(super) use share::{Next, Share};
use slot::{Place, Slot};
pub use wait::Wait;
pub(super) use wait::{Attempt, Growth};

/// Which free buffer is handed out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The buffer released last: its bytes may still be in the CPU's cache.
    MostRecent,
    /// The buffer released first: a display shows its pages in turn.
    LeastRecent,
}

impl Reuse {
    fn pop(self, free: &mut VecDeque<usize>) -> Option<usize> {
        match self {
            Self::MostRecent => free.pop_back(),
            Self::LeastRecent => free.pop_front(),
        }
    }
}

/// The blocks of memory behind one pool, or behind successive pools.
#[derive(Clone)]
pub struct Slots(Arc<Store>);

pub(super) struct Store {
    free_cache: FreeCache,
    /// The slots, of which those with a [`Block`] exist. The others were cleared.
    slots: GrowingVec<Slot>,
    inner: Mutex<Inner>,
    /// Notified when a buffer becomes free, or a pool begins to flush.
    freed: Condvar,
    reuse: Reuse,
    /// Submits and releases that were refused as mistakes of the caller.
    refused: AtomicU64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    pub acquired: u64,
    pub released: u64,
    /// Acquires, of free and of filled buffers, that had to wait.
    pub waits: u64,
    pub submitted: u64,
    pub consumed: u64,
    pub detached: u64,
    pub refused: u64,
}

pub(super) struct SlotSnapshot<'a> {
    pub id: u32,
    pub region: &'a Arc<Region>,
    pub state: BufferState,
    pub refs: u32,
    /// The buffer came back, but something still holds its memory.
    pub is_detached: bool,
    /// How often the buffer was handed out.
    pub acquired: u64,
}

/// A slot that was taken out of the free list and needs a wrapper.
pub(super) struct Claim {
    pub id: u32,
    pub slot: usize,
    pub region: Arc<Region>,
    pub config: Arc<BufferConfig>,
    config_number: u64,
    serial: u64,
    slots: Weak<Store>,
    /// A wrapper of another layout, to be dropped outside of the lock.
    _stale: Option<gst::Buffer>,
}

impl Claim {
    /// Returns what is to be called when the wrapper's memory is freed for good.
    pub fn on_free(&self) -> Box<dyn FnOnce() + Send> {
        let (slots, slot, serial) = (self.slots.clone(), self.slot, self.serial);
        Box::new(move || {
            if let Some(store) = slots.upgrade() {
                store.memory_freed(slot, serial);
            }
        })
    }
}

/// Why a call of a pool failed; nothing was changed. `PoolError` adds the pool's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There was no buffer in time. The text says why the pool could not grow, if it tried.
    NoBuffer(Option<String>),
    Flushing,
    /// There is no memory, for this reason, and the pool has no buffer that could come back.
    NoMemory(String),
    AllGone,
    Illegal(IllegalStep),
    /// The memory of the buffer with this id was freed by its owner.
    Gone(u32),
    /// The buffer with this id holds other memory than the pool gave it, or none.
    Replaced(u32),
    /// The buffer with this id is of another pool, or is a copy.
    Foreign(u32),
    NoMeta,
}

fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    loop {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        if id != 0 {
            return id;
        }
    }
}

fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Slots {
    /// Slots over existing memory, all of them free.
    pub fn new(regions: Vec<Arc<Region>>, reuse: Reuse) -> Self {
        let slots = Self(Arc::new(Store {
            free_cache: FreeCache::new(),
            slots: GrowingVec::new(),
            inner: Mutex::new(Inner::default()),
            freed: Condvar::new(),
            reuse,
            refused: AtomicU64::new(0),
        }));
        for region in regions {
            slots.add(region);
        }
        slots
    }

    /// How many slots there are, without the dead ones.
    pub fn total(&self) -> usize {
        let inner = self.0.inner.lock();
        self.0.live(&inner).count()
    }

    /// How many slots have lost their memory to its owner.
    pub fn dead_count(&self) -> usize {
        let inner = self.0.inner.lock();
        inner.blocks.len() - self.0.live(&inner).count()
    }

    /// The slot in whose memory the whole buffer lies. Only the memory is compared, and not the
    /// buffer's pool pointer, which copies and converters lose.
    pub fn index_of(&self, buffer: &gst::BufferRef) -> Option<usize> {
        if buffer.n_memory() != 1 {
            return None;
        }
        let (region, _) = crate::memory::region_of(buffer.peek_memory(0))?;
        let is_there = |&index: &usize| self.0.slots.get(index).is_some_and(|s| s.is_of(region));
        let noted = Some(region.slot()).filter(is_there);
        // Other slots over the same memory may have noted their index last.
        noted.or_else(|| (0..self.0.slots.count()).find(is_there))
    }

    /// How often the slot of this buffer was handed out; `None` if the buffer is not of these slots.
    pub(super) fn acquired(&self, buffer: &gst::BufferRef) -> Option<u64> {
        let slot = self.0.slots.get(self.index_of(buffer)?)?;
        Some(slot.acquired())
    }

    pub(super) fn counters(&self) -> Counters {
        let inner = self.0.inner.lock();
        let mut counters = inner.counters;
        for (slot, _) in self.0.with_blocks(&inner) {
            slot.add_to(&mut counters);
        }
        counters.refused = self.0.refused.load(Ordering::Relaxed);
        counters
    }

    /// Calls `f` for every live slot, under the lock.
    pub(super) fn for_each(&self, mut f: impl FnMut(SlotSnapshot<'_>)) {
        let inner = self.0.inner.lock();
        for (slot, block) in self.0.live(&inner) {
            f(SlotSnapshot {
                id: slot.id(),
                region: &block.region,
                state: slot.state.load(),
                refs: slot.refs(),
                is_detached: slot.place() == Place::Detached,
                acquired: slot.acquired(),
            });
        }
    }

    pub(super) fn state_by_id(&self, id: u32) -> Option<BufferState> {
        let inner = self.0.inner.lock();
        let (slot, block) = self.0.by_id(&inner, id)?;
        is_live(slot, block).then(|| slot.state.load())
    }

    pub(super) fn region_by_id(&self, id: u32) -> Option<Arc<Region>> {
        let inner = self.0.inner.lock();
        let (_, block) = self.0.by_id(&inner, id)?;
        Some(block.region.clone())
    }

    /// A new reference to the buffer `id`, if it is out or filled and its memory is alive.
    pub(super) fn buffer_by_id(&self, id: u32) -> Option<gst::Buffer> {
        let inner = self.0.inner.lock();
        let (slot, block) = self.0.by_id(&inner, id)?;
        let _look = self.0.free_cache.look();
        is_live(slot, block).then(|| slot.try_ref())?
    }

    /// Adds memory as a free slot.
    pub(super) fn add(&self, region: Arc<Region>) {
        let watcher: Weak<Store> = Arc::downgrade(&self.0);
        region.watch(&(watcher as Weak<dyn HandleWatcher>));
        let mut inner = self.0.inner.lock();
        self.0.push(&mut inner, region);
        self.0.tell_freed(inner);
    }

    /// Forgets every slot. The memory of each is freed with the last buffer that holds it.
    ///
    /// No other thread acquires or releases a buffer meanwhile, because GStreamer stops and
    /// configures a pool only while none of its buffers is out, on its way out or on its way back.
    pub(super) fn clear(&self) {
        let mut inner = self.0.inner.lock();
        inner.free.clear();
        drop(self.0.free_cache.drain());
        let mut counters = inner.counters;
        let vacate = |(slot, _): (&Slot, &Block)| {
            slot.add_to(&mut counters);
            slot.reset_counters();
            slot.vacate()
        };
        let wrappers: Vec<_> = self.0.with_blocks(&inner).map(vacate).collect();
        inner.counters = counters;
        let blocks = std::mem::take(&mut inner.blocks);
        self.0.open_or_close(&mut inner);
        drop(inner);
        drop((wrappers, blocks));
    }
}

fn is_live(slot: &Slot, block: &Block) -> bool {
    slot.place() != Place::Dead && block.region.is_alive()
}

impl Store {
    /// The slots that exist, with their memory, in the order of their indices.
    fn with_blocks<'a>(&'a self, inner: &'a Inner) -> impl Iterator<Item = (&'a Slot, &'a Block)> {
        let with_slot = |(index, block)| Some((self.slots.get(index)?, block));
        inner.blocks.iter().enumerate().filter_map(with_slot)
    }

    fn live<'a>(&'a self, inner: &'a Inner) -> impl Iterator<Item = (&'a Slot, &'a Block)> {
        let slots = self.with_blocks(inner);
        slots.filter(|&(slot, block)| is_live(slot, block))
    }

    fn by_id<'a>(&'a self, inner: &'a Inner, id: u32) -> Option<(&'a Slot, &'a Block)> {
        let at = |index: usize| Some((self.slots.get(index)?, inner.blocks.get(index)?));
        let is_there = |&(slot, _): &(&Slot, _)| slot.id() == id;
        // The ids of slots that were added in a row are in a row.
        let first = at(0)?.0.id();
        let guess = at(id.wrapping_sub(first) as usize).filter(is_there);
        guess.or_else(|| self.with_blocks(inner).find(is_there))
    }

    /// Whether there were buffers, and the memory of each was freed by its owner.
    fn is_all_dead(&self, inner: &Inner) -> bool {
        !inner.blocks.is_empty() && self.live(inner).next().is_none()
    }

    fn push(&self, inner: &mut Inner, region: Arc<Region>) {
        let (index, id) = (inner.blocks.len(), next_id());
        match self.slots.get(index) {
            Some(vacant) => vacant.occupy(id, &region),
            None => drop(self.slots.push(Slot::new(id, &region))),
        }
        region.note_slot(index);
        inner.blocks.push(Block { region, serial: 0 });
        inner.free.push_back(index);
        self.open_or_close(inner);
    }

    /// Opens the cache if the buffers of one configuration may go through it, and closes it
    /// otherwise. Called after each change of the users, their configurations or the blocks.
    fn open_or_close(&self, inner: &mut Inner) {
        let config = match &inner.users[..] {
            [only] => only.config.as_ref(),
            _ => None,
        };
        let may_hand_out_all = |numbered: &&NumberedConfig| {
            self.reuse == Reuse::MostRecent
                && inner.blocks.len() <= numbered.config.max_buffers
                && !inner.blocks.iter().any(|block| block.region.is_borrowed())
        };
        let number = config
            .filter(may_hand_out_all)
            .map_or(0, |numbered| numbered.number);
        self.free_cache.set_open_for(number);
        if number == 0 {
            inner.free.extend(self.free_cache.drain());
        }
    }

    /// Takes the next free slot to hand out.
    fn pop_free(&self, inner: &mut Inner) -> Option<usize> {
        let latest = self.free_cache.take(FirstWord::of_this_thread());
        let next = latest.or_else(|| self.reuse.pop(&mut inner.free));
        if next.is_some() || self.free_cache.is_open_for(0) {
            return next;
        }
        // `take` looks at the words one after the other. Meanwhile another thread may have moved a
        // slot into a word already found empty. A closed cache takes in no slot, so `drain` finds all.
        self.free_cache.set_open_for(0);
        inner.free.extend(self.free_cache.drain());
        self.open_or_close(inner);
        self.reuse.pop(&mut inner.free)
    }

    /// Puts a slot that came back into the cache or, if the cache does not take it, into the list.
    fn put_free(&self, inner: &mut Inner, index: usize, slot: &Slot) {
        let config = slot.made_for();
        if !slot.has_parked() || !self.free_cache.is_open_for(config) {
            inner.free.push_back(index);
            return;
        }
        let first = FirstWord::of_this_thread();
        if self.free_cache.put(first, index, config) == Put::Refused {
            inner.free.extend(self.free_cache.drain_older(first));
            if self.free_cache.put(first, index, config) == Put::Refused {
                inner.free.push_back(index);
            }
        }
    }

    /// Frees the slot of a wrapper that was thrown away, once the wrapper's memory is freed.
    fn recycle(&self, inner: &mut Inner, index: usize, slot: &Slot) {
        // This step is legal in every state.
        let _ = slot.state.take(slot.id(), Step::Recycle);
        slot.set_place(Place::Free);
        self.put_free(inner, index, slot);
    }

    fn freed(&self) -> Event<'_> {
        Event {
            condition: &self.freed,
            waiters: &self.free_cache.waiters,
        }
    }

    /// Takes the lock after the caller has put a slot into the cache and has seen that a thread waits
    /// for a slot, or that the cache was closed meanwhile.
    fn settle_with_lock(&self) {
        let mut inner = self.inner.lock();
        if self.free_cache.is_open_for(0) {
            inner.free.extend(self.free_cache.drain());
        }
        self.tell_freed(inner);
    }

    /// Wakes a thread for a slot that became free, or all threads if pools share the slots: a
    /// single one may be of a pool that cannot take the slot now (it flushes, or has its maximum
    /// out).
    fn tell_freed(&self, inner: MutexGuard<'_, Inner>) {
        if inner.users.len() > 1 {
            self.freed().wake_all();
        } else {
            self.freed().wake_one();
        }
    }

    /// The memory of a wrapper was freed, so that a detached slot is free again.
    fn memory_freed(&self, index: usize, serial: u64) {
        let mut inner = self.inner.lock();
        let is_that = |block: &Block| block.serial == serial;
        let slot = self.slots.get(index);
        let Some(slot) = slot.filter(|_| inner.blocks.get(index).is_some_and(is_that)) else {
            return;
        };
        match slot.place() {
            Place::Out => slot.set_place(Place::OutMemoryGone),
            Place::Detached => {
                self.recycle(&mut inner, index, slot);
                self.tell_freed(inner);
            }
            Place::Free | Place::OutMemoryGone | Place::Dead => {}
        }
    }

    /// Takes dead slots out of the free list. Returns their wrappers, which the caller drops outside
    /// of the lock. The cache is closed while memory may die.
    fn take_dead(&self, inner: &mut Inner) -> Vec<gst::Buffer> {
        let Inner { blocks, free, .. } = inner;
        let mut wrappers = Vec::new();
        free.retain(|&index| {
            let (slot, block) = (self.slots.get(index), blocks.get(index));
            let is_alive = block.is_some_and(|block| block.region.is_alive());
            if let Some(slot) = slot.filter(|_| !is_alive) {
                slot.set_place(Place::Dead);
                wrappers.extend(slot.take_parked());
            }
            is_alive
        });
        wrappers
    }
}

impl HandleWatcher for Store {
    fn handle_dropped(&self) {
        let mut inner = self.inner.lock();
        let dead = self.take_dead(&mut inner);
        // Some threads may have waited for this buffer, or wait in vain from now on.
        self.freed().wake_all();
        for user in &inner.users {
            user.part.event().wake_all();
        }
        drop(inner);
        drop(dead);
    }
}
