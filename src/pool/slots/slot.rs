// SPDX-License-Identifier: MPL-2.0
//! The part of one slot that threads use without the lock.
//!
//! A thread that takes a slot out of the free list, or brings its buffer back, owns the slot until it
//! hands the buffer out or puts the slot into the free list. Only that thread, or a thread that holds
//! the lock of the slots, writes to a slot's fields. All threads may read them. `wrapper` is set to
//! null, or to another buffer, only under the lock, so that a thread that reads it under the lock can
//! use the buffer without its being freed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

use super::Counters;
use crate::{
    memory::Region,
    pool::{
        state::{AtomicState, BufferState, Step},
        wrapper,
    },
};

pub(super) struct Slot {
    /// 0 after the slots were cleared, until memory is added again.
    id: AtomicU32,
    /// Only compared with other addresses, never dereferenced.
    region: AtomicPtr<Region>,
    /// The owner of the memory may free it at any time.
    is_borrowed: AtomicBool,
    pub state: AtomicState,
    place: AtomicU8,
    /// The GstBuffer of this slot. The slot owns a reference to it while it is parked here, and none
    /// while it is out.
    wrapper: AtomicPtr<gst::ffi::GstBuffer>,
    /// The number of the configuration that the wrapper was made for.
    made_for: AtomicU64,
    acquired: AtomicU64,
    released: AtomicU64,
    submitted: AtomicU64,
    consumed: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
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

impl Place {
    const ALL: [Self; 5] = [
        Self::Free,
        Self::Out,
        Self::OutMemoryGone,
        Self::Detached,
        Self::Dead,
    ];
}

/// Adds one to a counter that no other thread writes to at the same time.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Slot {
    pub fn new(id: u32, region: &Arc<Region>) -> Self {
        Self {
            id: AtomicU32::new(id),
            region: AtomicPtr::new(Arc::as_ptr(region).cast_mut()),
            is_borrowed: AtomicBool::new(region.is_borrowed()),
            state: AtomicState::new(),
            place: AtomicU8::new(Place::Free as u8),
            wrapper: AtomicPtr::new(std::ptr::null_mut()),
            made_for: AtomicU64::new(0),
            acquired: AtomicU64::new(0),
            released: AtomicU64::new(0),
            submitted: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
        }
    }

    /// Gives new memory to a slot that was vacated.
    pub fn occupy(&self, id: u32, region: &Arc<Region>) {
        self.set_place(Place::Free);
        let _ = self.state.take(id, Step::Recycle);
        self.is_borrowed
            .store(region.is_borrowed(), Ordering::Relaxed);
        let region = Arc::as_ptr(region).cast_mut();
        self.region.store(region, Ordering::Release);
        self.id.store(id, Ordering::Release);
    }

    /// Takes the memory away. Returns the wrapper if it is parked here. A wrapper that is out finds
    /// no slot when it comes back.
    pub fn vacate(&self) -> Option<gst::Buffer> {
        self.id.store(0, Ordering::Release);
        self.region.store(std::ptr::null_mut(), Ordering::Release);
        let parked = self.take_parked();
        self.wrapper.store(std::ptr::null_mut(), Ordering::Release);
        parked
    }

    pub fn id(&self) -> u32 {
        self.id.load(Ordering::Acquire)
    }

    pub fn is_of(&self, region: &Arc<Region>) -> bool {
        std::ptr::eq(self.region.load(Ordering::Acquire), Arc::as_ptr(region))
    }

    pub fn is_borrowed(&self) -> bool {
        self.is_borrowed.load(Ordering::Relaxed)
    }

    pub fn place(&self) -> Place {
        let number = self.place.load(Ordering::Acquire);
        Place::ALL
            .get(usize::from(number))
            .copied()
            .unwrap_or(Place::Dead)
    }

    pub fn set_place(&self, place: Place) {
        self.place.store(place as u8, Ordering::Release);
    }

    /// Whether the wrapper is with a user, or should be.
    pub fn is_out(&self) -> bool {
        matches!(self.place(), Place::Out | Place::OutMemoryGone)
    }

    pub fn made_for(&self) -> u64 {
        self.made_for.load(Ordering::Relaxed)
    }

    /// Whether this is the slot's wrapper.
    pub fn has(&self, buffer: &gst::BufferRef) -> bool {
        std::ptr::eq(self.wrapper.load(Ordering::Acquire), buffer.as_ptr())
    }

    /// Marks a slot that the caller has taken out of the free list as out.
    pub fn take_out(&self) -> bool {
        self.set_place(Place::Out);
        let taken = self.state.take_alone(self.id(), Step::AcquireFree);
        taken.is_ok() // always: a free slot is idle
    }

    /// Hands out the parked wrapper of a slot that the caller has taken out, if it was made for
    /// this configuration.
    pub fn hand_out(&self, config: u64) -> Option<gst::Buffer> {
        let wrapper = self.wrapper.load(Ordering::Acquire);
        if wrapper.is_null() || self.made_for() != config {
            return None;
        }
        count(&self.acquired);
        // SAFETY: the wrapper was parked, so the slot's reference becomes the Buffer's.
        Some(unsafe { gst::glib::translate::from_glib_full(wrapper) })
    }

    pub fn has_parked(&self) -> bool {
        self.place() == Place::Free && !self.wrapper.load(Ordering::Acquire).is_null()
    }

    /// Takes away a wrapper that is parked. The caller holds the lock.
    pub fn take_parked(&self) -> Option<gst::Buffer> {
        if !matches!(self.place(), Place::Free | Place::Dead) {
            return None;
        }
        let wrapper = self.wrapper.swap(std::ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: the wrapper of a slot that is not out was parked; the slot's reference, if there
        // is a wrapper, becomes the Buffer's.
        unsafe { gst::glib::translate::from_glib_full(wrapper) }
    }

    /// Stores a new wrapper that is handed out at once. The caller holds the lock.
    pub fn set_wrapper(&self, buffer: &gst::Buffer, config: u64) {
        self.made_for.store(config, Ordering::Relaxed);
        self.wrapper.store(buffer.as_mut_ptr(), Ordering::Release);
        count(&self.acquired);
    }

    /// Stores the configuration that a wrapper is being made for. The caller holds the lock.
    pub fn reserve(&self, config: u64) {
        self.made_for.store(config, Ordering::Relaxed);
    }

    /// The caller holds the lock.
    pub fn forget_wrapper(&self) {
        self.wrapper.store(std::ptr::null_mut(), Ordering::Release);
    }

    /// Parks the wrapper, which came back and to which only the caller has a reference. The slot is
    /// then free, but not yet in the free list.
    pub fn park(&self, buffer: gst::Buffer) {
        use gst::glib::translate::IntoGlibPtr;
        let wrapper: *mut gst::ffi::GstBuffer = buffer.into_glib_ptr();
        debug_assert!(std::ptr::eq(wrapper, self.wrapper.load(Ordering::Relaxed)));
        let _ = self.state.take_alone(self.id(), Step::Recycle);
        self.set_place(Place::Free);
        count(&self.released);
    }

    /// How often the buffer was handed out.
    pub fn acquired(&self) -> u64 {
        self.acquired.load(Ordering::Relaxed)
    }

    pub fn count_released(&self) {
        count(&self.released);
    }

    pub fn count_submitted(&self) {
        count(&self.submitted);
    }

    pub fn count_consumed(&self) {
        count(&self.consumed);
    }

    pub fn add_to(&self, counters: &mut Counters) {
        counters.acquired += self.acquired();
        counters.released += self.released.load(Ordering::Relaxed);
        counters.submitted += self.submitted.load(Ordering::Relaxed);
        counters.consumed += self.consumed.load(Ordering::Relaxed);
    }

    pub fn reset_counters(&self) {
        for counter in [
            &self.acquired,
            &self.released,
            &self.submitted,
            &self.consumed,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// The number of references to the wrapper while it is out. The caller holds the lock.
    pub fn refs(&self) -> u32 {
        let wrapper = self.wrapper.load(Ordering::Acquire);
        if wrapper.is_null() || !self.is_out() {
            return 0;
        }
        // SAFETY: this is a buffer, and the lock keeps it from being freed.
        let count = unsafe { wrapper::ref_count(wrapper) }.load(Ordering::Relaxed);
        count.max(0) as u32
    }

    /// A new reference to the wrapper if it is in use, and its last reference is not being dropped.
    /// The caller holds the lock and a `free_cache::Look`.
    pub fn try_ref(&self) -> Option<gst::Buffer> {
        let wrapper = self.wrapper.load(Ordering::Acquire);
        if wrapper.is_null() {
            return None;
        }
        // SAFETY: this is a buffer, and the lock keeps it from being freed.
        let (pool, refs) = unsafe { (wrapper::pool_of(wrapper), wrapper::ref_count(wrapper)) };
        let has_pool = || !pool.load(Ordering::SeqCst).is_null();
        // A buffer in use has its pool or is ready. A thread that takes a filled buffer gives it its
        // pool before it changes the state. It may do both between the first two reads here.
        let is_in_use =
            has_pool() || self.state.load() == BufferState::ReadyForConsume || has_pool();
        if !is_in_use {
            return None;
        }
        let one_more = |now: i32| (now > 0).then_some(now + 1);
        refs.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more)
            .ok()?;
        // SAFETY: the reference that was just taken becomes the Buffer's.
        Some(unsafe { gst::glib::translate::from_glib_full(wrapper) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.take_parked());
    }
}
