// SPDX-License-Identifier: MPL-2.0
//! The blocks of memory behind a pool: which are free, which are filled, who
//! waits.
//!
//! A [`Slot`] is one [`Region`] with an id, a state and a place. Around it each
//! pool makes a GstBuffer (wrapper) that carries that pool's layout; the wrapper
//! is parked in the slot while nobody uses it. Several pools may share one
//! [`Slots`]: a display offers a new pool for each caps, but a page that a
//! buffer of the old pool still holds must not be handed out by the new one.
//!
//! A wrapper that comes back without its memory (somebody took it out, or still
//! holds it) is thrown away. The slot is then *detached* and returns to the free
//! list when that memory is finally freed, because the memory itself tells us.
//!
//! Memory borrowed from a [`BufferHandle`](crate::handle::BufferHandle) may die.
//! Its slot is then *dead*: it leaves the free list, the filled queue passes over
//! it, what is still out is thrown away on its return, and everybody who waits
//! looks again.
//!
//! One lock guards everything. No memory is mapped, wrapped or freed under it,
//! and with a free buffer at hand neither acquire nor release allocates or makes
//! a system call.

mod inner;
mod share;
mod wait;

use std::collections::VecDeque;
use std::sync::{
    Arc, Weak,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::config::Plan;
use super::state::{BufferState, IllegalStep};
use crate::{handle::HandleWatcher, memory::Region};

use inner::{Inner, Place};
pub(super) use share::{Next, Share};
pub use wait::Wait;
pub(super) use wait::{Attempt, Growth};

/// Which free buffer is handed out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The one released last: its bytes may still be in the CPU's cache.
    MostRecent,
    /// The one released first: pages of a display, each shown in turn.
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
    /// A buffer became free, or somebody flushes.
    freed: Condvar,
    reuse: Reuse,
}

/// What happened so far; read through `stats`.
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

/// A live slot as it is just now.
pub(super) struct Seen<'a> {
    pub id: u32,
    pub region: &'a Arc<Region>,
    pub state: BufferState,
    /// References to its buffer.
    pub refs: u32,
    /// The buffer came back, its memory did not yet: somebody holds that.
    pub is_detached: bool,
}

/// A slot taken out of the free list that has no wrapper yet.
pub(super) struct Claim {
    pub id: u32,
    pub slot: usize,
    pub region: Arc<Region>,
    /// How the buffer is to be laid out.
    pub plan: Arc<Plan>,
    serial: u64,
    slots: Weak<Store>,
    /// A wrapper that was made for another layout; it is dropped without the lock.
    _stale: Option<gst::Buffer>,
}

impl Claim {
    /// To be called when the wrapper's memory is freed for good.
    pub fn on_free(&self) -> Box<dyn FnOnce() + Send> {
        let (slots, slot, serial) = (self.slots.clone(), self.slot, self.serial);
        Box::new(move || {
            if let Some(store) = slots.upgrade() {
                store.memory_freed(slot, serial);
            }
        })
    }
}

/// Why the slots did not do what a pool asked; nothing was changed.
/// [`PoolError`](super::PoolError) says the same with the pool's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no buffer, and the caller would not wait (longer); why the pool did not
    /// grow, if it tried.
    NoBuffer(Option<String>),
    Flushing,
    /// More memory could not be had, for this reason, and no buffer is out that could come
    /// back.
    NoMemory(String),
    /// The memory of every buffer was freed by its owner.
    AllGone,
    Illegal(IllegalStep),
    /// The memory of the buffer with this id was freed by its owner.
    Gone(u32),
    /// The buffer with this id holds other memory than the pool gave it, or none.
    Replaced(u32),
    /// The buffer with this id went out of another pool, or is a copy.
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
    /// Slots over memory that exists; all are free.
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

    /// How many there are, dead ones not counted.
    pub fn total(&self) -> usize {
        let inner = self.0.inner.lock();
        inner.slots.iter().filter(|s| s.is_live()).count()
    }

    /// How many have lost their memory to its owner.
    pub fn dead_count(&self) -> usize {
        let inner = self.0.inner.lock();
        inner.slots.iter().filter(|s| !s.is_live()).count()
    }

    /// Which of these slots' memory the buffer holds, whole and alone; judged by
    /// memory, not by the buffer's pool pointer, which copies and converters lose.
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

    /// Runs `f` over every live slot.
    pub(super) fn for_each(&self, mut f: impl FnMut(Seen<'_>)) {
        let inner = self.0.inner.lock();
        for slot in inner.slots.iter().filter(|s| s.is_live()) {
            f(Seen {
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

    /// A new reference to the buffer `id` while it is out or filled, and its memory
    /// alive.
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

    /// Forgets every slot; the memory goes with the last buffer that holds it.
    pub(super) fn clear(&self) {
        let mut inner = self.0.inner.lock();
        inner.free.clear();
        let slots = std::mem::take(&mut inner.slots);
        drop(inner);
        drop(slots);
    }
}

impl Store {
    /// There is one free slot more. Those who wait in one pool are alike; of several
    /// pools, one may not take it (it has its number out, or flushes) and sleep on.
    fn tell_freed(&self, inner: MutexGuard<'_, Inner>) {
        let is_shared = inner.parts.len() > 1;
        drop(inner);
        if is_shared {
            self.freed.notify_all();
        } else {
            self.freed.notify_one();
        }
    }

    /// The memory of a wrapper was freed: a detached slot is free again.
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
        // Some may have waited for this very buffer, or now wait in vain.
        self.freed.notify_all();
        for submitted in parts {
            submitted.notify_all();
        }
        drop(dead);
    }
}
