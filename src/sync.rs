// SPDX-License-Identifier: MPL-2.0
//! The atomics, locks and queues of the code that loom models check: those of std and crossbeam, or under
//! `--cfg loom` those of loom, which tries every interleaving.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

/// A queue that any number of threads use at a time.
#[cfg(not(loom))]
pub(crate) use crossbeam_queue::SegQueue as Queue;

/// A lock stands in for crossbeam's queue in models, because loom does not see the queue's atomics.
#[cfg(loom)]
pub(crate) struct Queue<T>(Mutex<std::collections::VecDeque<T>>);

#[cfg(loom)]
impl<T> Queue<T> {
    pub fn new() -> Self {
        Self(Mutex::new(std::collections::VecDeque::new()))
    }

    pub fn push(&self, item: T) {
        lock(&self.0).push_back(item);
    }

    pub fn pop(&self) -> Option<T> {
        lock(&self.0).pop_front()
    }

    pub fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

/// A vector that only grows, and that is read meanwhile.
#[cfg(not(loom))]
pub(crate) use boxcar::Vec as GrowingVec;

/// boxcar does not build with loom. No model has such a vector: this one is compiled only.
#[cfg(loom)]
pub(crate) struct GrowingVec<T>([std::sync::OnceLock<T>; 8]);

#[cfg(loom)]
impl<T> GrowingVec<T> {
    pub fn new() -> Self {
        Self(std::array::from_fn(|_| std::sync::OnceLock::new()))
    }

    pub fn push(&self, item: T) -> usize {
        let index = self.count();
        assert!(self.0[index].set(item).is_ok());
        index
    }

    pub fn get(&self, index: usize) -> Option<&T> {
        self.0.get(index)?.get()
    }

    pub fn count(&self) -> usize {
        self.0.iter().filter(|place| place.get().is_some()).count()
    }
}

/// Goes between two SeqCst accesses to different words, which all threads see in one order. loom treats SeqCst
/// accesses as acquire and release only, and needs a fence to keep that order.
#[inline(always)]
pub(crate) fn seq_cst_for_loom() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

#[cfg(not(loom))]
pub(crate) use crate::locks::lock;

#[cfg(loom)]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> impl std::ops::DerefMut<Target = T> + use<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Bytes that threads pass to one another without a lock. loom fails the model if two uses of them, one of
/// which writes, are not ordered.
#[cfg(all(test, loom))]
pub(crate) struct SharedBytes(loom::cell::UnsafeCell<u32>);

// SAFETY: loom checks each use.
#[cfg(all(test, loom))]
unsafe impl Send for SharedBytes {}
// SAFETY: as above.
#[cfg(all(test, loom))]
unsafe impl Sync for SharedBytes {}

#[cfg(all(test, loom))]
impl SharedBytes {
    pub fn new(value: u32) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    pub fn read(&self) -> u32 {
        // SAFETY: loom runs one thread at a time.
        self.0.with(|p| unsafe { *p })
    }

    pub fn write(&self, value: u32) {
        // SAFETY: as above.
        self.0.with_mut(|p| unsafe { *p = value });
    }
}

/// Runs `model` once for each interleaving of its threads with at most four preemptions. Faults of two and
/// three threads show within that limit, and without it a run would take hours. `LOOM_MAX_PREEMPTIONS` sets
/// another limit.
#[cfg(all(test, loom))]
pub(crate) fn check_interleavings(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(4);
    builder.check(model);
}
