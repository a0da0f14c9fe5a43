// SPDX-License-Identifier: MPL-2.0
//! The atomics and locks of the protocols that the loom models walk through:
//! std's, or under `--cfg loom` loom's, which try every interleaving.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// Locks what nothing panics over, so that it cannot be poisoned.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> impl std::ops::DerefMut<Target = T> + use<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Bytes that threads pass to one another without a lock; loom fails the model if two
/// uses of them, one of which writes, are not ordered by what it models.
#[cfg(all(test, loom))]
pub(crate) struct SharedBytes(loom::cell::UnsafeCell<u32>);

// SAFETY: each use is checked by loom, which is what the models are for.
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

/// Runs `model` once for each interleaving of its threads that takes at most four
/// preemptions, which is where faults of two and three threads show; all of them
/// would take hours. `LOOM_MAX_PREEMPTIONS` asks for more or fewer.
#[cfg(all(test, loom))]
pub(crate) fn check_interleavings(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(4);
    builder.check(model);
}
