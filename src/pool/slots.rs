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

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{
    state::{BufferState, IllegalStep, Step},
    wrapper,
};
use crate::{handle::HandleWatcher, memory::Region, meta::PhysMemMeta};

/// Which free buffer is handed out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The one released last: its bytes may still be in the CPU's cache.
    MostRecent,
    /// The one released first: pages of a display, each shown in turn.
    LeastRecent,
}

/// The blocks of memory behind one pool, or behind successive pools.
#[derive(Clone)]
pub struct Slots(Arc<Shared>);

pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// A buffer became free, or somebody flushes.
    freed: Condvar,
    reuse: Reuse,
}

#[derive(Default)]
struct Inner {
    slots: Vec<Slot>,
    free: VecDeque<usize>,
    /// One for each pool that has been used.
    parts: Vec<Part>,
    /// Slots being allocated outside the lock.
    growing: usize,
    counters: Counters,
}

/// What is one pool's alone. A filled buffer is taken only by the pool whose layout it
/// has, so that nobody else is to be woken for it.
struct Part {
    /// Buffers that were handed out and have not come back, the filled ones too.
    out: usize,
    filled: VecDeque<Filled>,
    /// A buffer was submitted, or somebody flushes. Its own address names the part.
    submitted: Arc<Condvar>,
}

struct Filled {
    slot: usize,
    buffer: gst::Buffer,
}

/// One pool's access to the slots: all of its verbs.
pub(super) struct Share {
    slots: Slots,
    submitted: Arc<Condvar>,
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

struct Slot {
    id: u32,
    region: Arc<Region>,
    state: BufferState,
    place: Place,
    /// Names the wrapper's memory to its own free notification.
    serial: u64,
    /// The wrapper while it is out; compared and its reference count read,
    /// under the lock and only while `place` says that it exists.
    wrapper: *const gst::ffi::GstBuffer,
    parked: Option<Parked>,
}

// SAFETY: `wrapper` is only dereferenced under the lock of `Inner`, while the
// slot's place guarantees that the buffer has not been released.
unsafe impl Send for Slot {}

struct Parked {
    epoch: u64,
    buffer: gst::Buffer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
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

/// What the pool that asks brings along.
pub(super) trait Maker {
    /// Names the layout; a parked wrapper of another epoch is not used.
    fn epoch(&self) -> u64;
    fn is_flushing(&self) -> bool;
    /// At most so many of its buffers are out at a time.
    fn at_most(&self) -> usize;
    /// It allocates slots on demand, up to that number.
    fn may_grow(&self) -> bool;
    /// Allocates memory for one more slot.
    fn allocate(&self) -> Option<Arc<Region>>;
    /// Makes the buffer around a slot's memory.
    fn wrap(&self, claim: &Claim) -> Option<gst::Buffer>;
}

/// A slot taken out of the free list that has no wrapper yet.
pub(super) struct Claim {
    pub id: u32,
    pub slot: usize,
    pub region: Arc<Region>,
    serial: u64,
    slots: Weak<Shared>,
}

impl Claim {
    /// To be called when the wrapper's memory is freed for good.
    pub fn on_free(&self) -> Box<dyn FnOnce() + Send> {
        let (slots, slot, serial) = (self.slots.clone(), self.slot, self.serial);
        Box::new(move || {
            if let Some(shared) = slots.upgrade() {
                shared.memory_freed(slot, serial);
            }
        })
    }
}

/// How long to wait for a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until there is one or the pool flushes.
    Forever,
    /// At most so long.
    AtMost(std::time::Duration),
}

impl Wait {
    fn deadline(self) -> Deadline {
        match self {
            Self::No => Deadline::Now,
            Self::Forever => Deadline::Never,
            Self::AtMost(time) => match Instant::now().checked_add(time) {
                Some(at) => Deadline::At(at),
                None => Deadline::Never,
            },
        }
    }
}

#[derive(Clone, Copy)]
enum Deadline {
    Now,
    Never,
    At(Instant),
}

impl Deadline {
    /// Waits for `condition`; when the time is over, there is one more look, at
    /// what came in that very moment.
    fn wait(&mut self, condition: &Condvar, inner: &mut MutexGuard<'_, Inner>) {
        match *self {
            Self::Now => {}
            Self::Never => condition.wait(inner),
            Self::At(at) => {
                if condition.wait_until(inner, at).timed_out() {
                    *self = Self::Now;
                }
            }
        }
    }
}

/// Why no buffer was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// None there, and the caller would not wait (longer).
    Empty,
    Flushing,
    /// More memory could not be had, and no buffer is out that could come back.
    NoMemory,
    /// The memory of every buffer was freed by its owner.
    AllDead,
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
        let slots = Self(Arc::new(Shared {
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

    /// There were buffers, and the memory of each was freed by its owner.
    pub(super) fn is_all_dead(&self) -> bool {
        self.0.inner.lock().is_all_dead()
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
                refs: slot.ref_count(),
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
        let watcher: Weak<Shared> = Arc::downgrade(&self.0);
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
        let mut deadline = wait.deadline();
        let mut may_grow = maker.may_grow();
        let mut has_waited = false;
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
            if inner.is_all_dead() {
                return Err(Refusal::AllDead);
            }
            if matches!(deadline, Deadline::Now) {
                return Err(Refusal::Empty);
            }
            inner.counters.waits += u64::from(!has_waited);
            has_waited = true;
            deadline.wait(&shared.freed, &mut inner);
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
        let mut deadline = wait.deadline();
        let mut has_waited = false;
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
            if inner.is_all_dead() {
                return Err(Refusal::AllDead);
            }
            if matches!(deadline, Deadline::Now) {
                return Err(Refusal::Empty);
            }
            inner.counters.waits += u64::from(!has_waited);
            has_waited = true;
            deadline.wait(&self.submitted, &mut inner);
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

/// Why a buffer was not taken from who submits or releases it; nothing was changed.
#[derive(Debug)]
pub(super) enum Refused {
    Flushing,
    Illegal(IllegalStep),
    /// The memory of the buffer with this id was freed by its owner.
    Gone(u32),
    /// The buffer with this id holds other memory than the pool gave it, or none.
    Replaced(u32),
    /// The buffer with this id went out of another pool, or is a copy.
    Foreign(u32),
    NoMeta,
}

impl From<IllegalStep> for Refused {
    fn from(illegal: IllegalStep) -> Self {
        Self::Illegal(illegal)
    }
}

impl Shared {
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

impl HandleWatcher for Shared {
    fn handle_dropped(&self) {
        let mut inner = self.inner.lock();
        let buried = inner.bury();
        let parts: Vec<_> = inner.parts.iter().map(|p| p.submitted.clone()).collect();
        drop(inner);
        // Some may have waited for this very buffer, or now wait in vain.
        self.freed.notify_all();
        for submitted in parts {
            submitted.notify_all();
        }
        drop(buried);
    }
}

impl Inner {
    fn push(&mut self, region: Arc<Region>) {
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
    fn is_all_dead(&self) -> bool {
        !self.slots.is_empty() && !self.slots.iter().any(Slot::is_live)
    }

    /// Takes dead slots out of the free list, and gives back the buffers around
    /// them, to be dropped without the lock. Those in the filled queue stay there
    /// until a flush, which gives them their pool back first: without it nobody
    /// would count them as returned.
    fn bury(&mut self) -> Vec<gst::Buffer> {
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
    fn part(&mut self, submitted: &Arc<Condvar>) -> (&mut [Slot], &mut Part) {
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

    fn slot_of(&mut self, returned: &wrapper::Returned) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(returned.slot)?;
        (slot.id == returned.id).then_some(slot)
    }

    fn pop_free(&mut self, reuse: Reuse) -> Option<usize> {
        match reuse {
            Reuse::MostRecent => self.free.pop_back(),
            Reuse::LeastRecent => self.free.pop_front(),
        }
    }

    /// The slot that the buffer went out of, and the memory it went out with. Of a copy,
    /// which shares memory and meta, there is none.
    fn find(
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

    fn recycle(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        // Never refused: every state may be recycled.
        let _ = slot.state.take(slot.id, Step::Recycle);
        slot.place = Place::Free;
        self.free.push_back(index);
    }
}

impl Slot {
    fn is_live(&self) -> bool {
        self.place != Place::Dead && self.region.is_alive()
    }

    fn ref_count(&self) -> u32 {
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
    fn try_ref(&self) -> Option<gst::Buffer> {
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
