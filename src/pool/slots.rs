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
//! it is thrown away when it comes back, and all waiting threads look again.
//!
//! One lock guards everything. No memory is mapped, wrapped or freed under it. With a free buffer
//! at hand neither acquire nor release allocates memory or makes a system call.

mod inner;
mod share;
mod wait;

use std::collections::VecDeque;
use std::sync::{
    Arc, Weak,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::config::BufferConfig;
use super::state::{BufferState, IllegalStep};
use crate::{handle::HandleWatcher, memory::Region};

use inner::{Inner, Place};
pub(super) use share::{Next, Share};
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
    inner: Mutex<Inner>,
    /// Notified when a buffer becomes free, or a pool begins to flush.
    freed: Condvar,
    reuse: Reuse,
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
}

/// A slot that was taken out of the free list and needs a wrapper.
pub(super) struct Claim {
    pub id: u32,
    pub slot: usize,
    pub region: Arc<Region>,
    pub config: Arc<BufferConfig>,
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

/// Why the slots did not do what a pool asked; nothing was changed. `PoolError` adds the pool's
/// name.
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
            inner: Mutex::new(Inner::default()),
            freed: Condvar::new(),
            reuse,
        }));
        for region in regions {
            slots.add(region);
        }
        slots
    }

    /// How many slots there are, without the dead ones.
    pub fn total(&self) -> usize {
        let inner = self.0.inner.lock();
        inner.slots.iter().filter(|s| s.is_live()).count()
    }

    /// How many slots have lost their memory to its owner.
    pub fn dead_count(&self) -> usize {
        let inner = self.0.inner.lock();
        inner.slots.iter().filter(|s| !s.is_live()).count()
    }

    /// The slot in whose memory the whole buffer lies. Only the memory is compared, and not the
    /// buffer's pool pointer, which copies and converters lose.
    pub fn index_of(&self, buffer: &gst::BufferRef) -> Option<usize> {
        if buffer.n_memory() != 1 {
            return None;
        }
        let (region, _) = crate::memory::region_of(buffer.peek_memory(0))?;
        let inner = self.0.inner.lock();
        inner
            .slots
            .iter()
            .position(|s| Arc::ptr_eq(&s.region, region))
    }

    pub(super) fn counters(&self) -> Counters {
        self.0.inner.lock().counters
    }

    /// Calls `f` for every live slot, under the lock.
    pub(super) fn for_each(&self, mut f: impl FnMut(SlotSnapshot<'_>)) {
        let inner = self.0.inner.lock();
        for slot in inner.slots.iter().filter(|s| s.is_live()) {
            f(SlotSnapshot {
                id: slot.id,
                region: &slot.region,
                state: slot.state,
                refs: slot.refs(),
                is_detached: slot.place == Place::Detached,
            });
        }
    }

    pub(super) fn region_by_id(&self, id: u32) -> Option<Arc<Region>> {
        let inner = self.0.inner.lock();
        let slot = inner.slots.iter().find(|s| s.id == id)?;
        Some(slot.region.clone())
    }

    /// A new reference to the buffer `id`, if it is out or filled and its memory is alive.
    pub(super) fn buffer_by_id(&self, id: u32) -> Option<gst::Buffer> {
        let inner = self.0.inner.lock();
        let slot = inner.slots.iter().find(|s| s.id == id && s.is_live())?;
        slot.try_ref()
    }

    /// Adds memory as a free slot.
    pub(super) fn add(&self, region: Arc<Region>) {
        let watcher: Weak<Store> = Arc::downgrade(&self.0);
        region.watch(&(watcher as Weak<dyn HandleWatcher>));
        let mut inner = self.0.inner.lock();
        inner.push(region);
        self.0.tell_freed(inner);
    }

    /// Forgets every slot. The memory of each is freed with the last buffer that holds it.
    pub(super) fn clear(&self) {
        let mut inner = self.0.inner.lock();
        inner.free.clear();
        let slots = std::mem::take(&mut inner.slots);
        drop(inner);
        drop(slots);
    }
}

impl Store {
    /// Wakes a thread for a slot that became free, or all threads if pools share the slots: a
    /// single one may be of a pool that cannot take the slot now (it flushes, or has its maximum
    /// out).
    fn tell_freed(&self, inner: MutexGuard<'_, Inner>) {
        let is_shared = inner.parts.len() > 1;
        drop(inner);
        if is_shared {
            self.freed.notify_all();
        } else {
            self.freed.notify_one();
        }
    }

    /// The memory of a wrapper was freed, so that a detached slot is free again.
    fn memory_freed(&self, index: usize, serial: u64) {
        let mut inner = self.inner.lock();
        let Some(slot) = inner.slots.get_mut(index).filter(|s| s.serial == serial) else {
            return;
        };
        match slot.place {
            Place::Out => slot.place = Place::OutMemoryGone,
            Place::Detached => {
                inner.recycle(index);
                self.tell_freed(inner);
            }
            Place::Free | Place::OutMemoryGone | Place::Dead => {}
        }
    }
}

impl HandleWatcher for Store {
    fn handle_dropped(&self) {
        let mut inner = self.inner.lock();
        let dead = inner.take_dead();
        let parts: Vec<_> = inner.parts.iter().map(|p| p.submitted.clone()).collect();
        drop(inner);
        // Some threads may have waited for this buffer, or wait in vain from now on.
        self.freed.notify_all();
        for submitted in parts {
            submitted.notify_all();
        }
        drop(dead);
    }
}
