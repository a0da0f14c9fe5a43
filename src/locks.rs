// SPDX-License-Identifier: MPL-2.0
//! The locks of this crate: parking_lot's. Nothing panics while it holds one.
//!
//! With `--cfg physmem_sleeps` (`tests/torture --sleeps`) a thread now and then sleeps in them, so that threads
//! meet where they otherwise rarely do. Code that loom models check uses [`crate::sync`].

#[cfg(not(physmem_sleeps))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(physmem_sleeps)]
pub(crate) use sleepy::{Condvar, Mutex, MutexGuard};

/// Locks a mutex of std, which glib's macro for properties needs.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    #[cfg(physmem_sleeps)]
    sleepy::sleep_now_and_then();
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(physmem_sleeps)]
mod sleepy {
    use std::cell::Cell;
    use std::hash::{BuildHasher, RandomState};
    use std::time::{Duration, Instant};

    use parking_lot::WaitTimeoutResult;
    use parking_lot::lock_api;

    pub(crate) type Mutex<T> = lock_api::Mutex<RawMutex, T>;
    pub(crate) type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawMutex, T>;

    pub struct RawMutex(parking_lot::RawMutex);

    // SAFETY: the lock inside excludes other threads.
    unsafe impl lock_api::RawMutex for RawMutex {
        #[allow(clippy::declare_interior_mutable_const)]
        const INIT: Self = Self(parking_lot::RawMutex::INIT);

        type GuardMarker = <parking_lot::RawMutex as lock_api::RawMutex>::GuardMarker;

        fn lock(&self) {
            sleep_now_and_then();
            self.0.lock();
            sleep_now_and_then();
        }

        fn try_lock(&self) -> bool {
            sleep_now_and_then();
            self.0.try_lock()
        }

        unsafe fn unlock(&self) {
            // SAFETY: the caller holds the lock.
            unsafe { self.0.unlock() };
            sleep_now_and_then();
        }
    }

    /// parking_lot's condition variables know no other lock than its own, which is `gate` here. A thread takes the gate
    /// before it gives up the caller's lock, and so it does not miss a notification in between.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar {
        condition: parking_lot::Condvar,
        gate: parking_lot::Mutex<()>,
    }

    impl Condvar {
        pub const fn new() -> Self {
            Self {
                condition: parking_lot::Condvar::new(),
                gate: parking_lot::Mutex::new(()),
            }
        }

        fn wait_with<T, R>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            wait: impl FnOnce(&mut parking_lot::MutexGuard<'_, ()>) -> R,
        ) -> R {
            let mut gate = self.gate.lock();
            MutexGuard::unlocked(guard, move || wait(&mut gate))
        }

        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            self.wait_with(guard, |gate| self.condition.wait(gate));
        }

        pub fn wait_until<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            at: Instant,
        ) -> WaitTimeoutResult {
            self.wait_with(guard, |gate| self.condition.wait_until(gate, at))
        }

        pub fn wait_for<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            time: Duration,
        ) -> WaitTimeoutResult {
            self.wait_until(guard, Instant::now() + time)
        }

        pub fn notify_one(&self) -> bool {
            sleep_now_and_then();
            let _gate = self.gate.lock();
            self.condition.notify_one()
        }

        pub fn notify_all(&self) -> usize {
            sleep_now_and_then();
            let _gate = self.gate.lock();
            self.condition.notify_all()
        }
    }

    /// One time of 64 sleeps for up to two milliseconds, and one of eight lets other threads run.
    pub(super) fn sleep_now_and_then() {
        thread_local! {
            static RANDOM: Cell<u64> = Cell::new(RandomState::new().hash_one(0) | 1);
        }
        // A thread that ends has no such number any more.
        let random = RANDOM.try_with(|state| {
            // Marsaglia's xorshift.
            let mut random = state.get();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            state.set(random);
            random
        });
        match random {
            Ok(random) if random % 64 == 0 => {
                std::thread::sleep(Duration::from_micros(random >> 32 & 0x7ff))
            }
            Ok(random) if random % 8 == 0 => std::thread::yield_now(),
            _ => {}
        }
    }
}
