// SPDX-License-Identifier: MPL-2.0
//! The queue of filled buffers of one pool, which threads use without the lock of the slots.
//!
//! A thread that begins a flush sets `is_flushing`, and a thread that waits counts itself in
//! `waiters`, before it looks at the queue. A thread that pushes a buffer reads these two words
//! afterwards, and takes the lock if either is set. So at least one of two such threads sees what the
//! other did, as in [`free_cache`](super::free_cache).

use super::free_cache::Waiters;
use crate::sync::{AtomicBool, Ordering, Queue, seq_cst_for_loom};

pub(super) struct FilledQueue<T> {
    items: Queue<T>,
    /// No buffer is handed out or taken in: the pool is inactive or flushes.
    is_flushing: AtomicBool,
    pub waiters: Waiters,
}

impl<T> FilledQueue<T> {
    /// An empty queue that flushes.
    pub fn new() -> Self {
        Self {
            items: Queue::new(),
            is_flushing: AtomicBool::new(true),
            waiters: Waiters::new(),
        }
    }

    pub fn is_flushing(&self) -> bool {
        self.is_flushing.load(Ordering::SeqCst)
    }

    /// The caller holds the lock of the slots, and empties the queue after this began a flush.
    pub fn set_flushing(&self, is_flushing: bool) {
        self.is_flushing.store(is_flushing, Ordering::SeqCst);
        seq_cst_for_loom();
    }

    /// Puts an item at the end. True if the caller has to take the lock, because a thread waits, or
    /// a flush began meanwhile.
    #[must_use]
    pub fn push(&self, item: T) -> bool {
        self.items.push(item);
        // The fence is needed because the queue's own operations are only release and acquire.
        #[cfg(not(loom))]
        std::sync::atomic::fence(Ordering::SeqCst);
        seq_cst_for_loom();
        self.is_flushing() || self.waiters.are_there()
    }

    pub fn pop(&self) -> Option<T> {
        self.items.pop()
    }

    /// A thread that is about to sleep counts itself in `waiters` before it calls this. The fence
    /// keeps the two in this order.
    pub fn is_empty(&self) -> bool {
        #[cfg(not(loom))]
        std::sync::atomic::fence(Ordering::SeqCst);
        self.items.is_empty()
    }

    pub fn drain(&self) -> impl Iterator<Item = T> {
        // Keeps the store to `is_flushing` before the first read of the queue.
        #[cfg(not(loom))]
        std::sync::atomic::fence(Ordering::SeqCst);
        std::iter::from_fn(|| self.pop())
    }
}

/// Loom runs these threads in all orders, up to the preemptions that `check_interleavings` allows:
/// `tests/sanitize loom`.
#[cfg(test)]
#[cfg(loom)]
mod model {
    use super::*;
    use crate::pool::state::{AtomicState, BufferState, Step};
    use crate::sync::{Arc, AtomicUsize, Mutex, SharedBytes, check_interleavings, lock};
    use loom::{sync::Condvar, thread};

    /// A pool of one buffer.
    struct Pool {
        filled: FilledQueue<()>,
        lock: Mutex<()>,
        submitted: Condvar,
        state: AtomicState,
        /// GstBuffer::pool: 0 while the buffer is in the queue.
        pool: AtomicUsize,
        bytes: SharedBytes,
    }

    impl Pool {
        fn new() -> Arc<Self> {
            let pool = Self {
                filled: FilledQueue::new(),
                lock: Mutex::new(()),
                submitted: Condvar::new(),
                state: AtomicState::new(),
                pool: AtomicUsize::new(1),
                bytes: SharedBytes::new(0),
            };
            pool.filled.set_flushing(false);
            pool.state.take(1, Step::AcquireFree).unwrap();
            Arc::new(pool)
        }

        fn submit(&self) -> bool {
            if self.filled.is_flushing() || self.state.take(1, Step::SubmitFilled).is_err() {
                return false;
            }
            let had_pool = self.pool.swap(0, Ordering::AcqRel);
            assert_eq!(had_pool, 1);
            if self.filled.push(()) {
                let _lock = lock(&self.lock);
                if self.filled.is_flushing() {
                    self.empty();
                } else if self.filled.waiters.are_there() {
                    self.filled.waiters.remove(1);
                    self.submitted.notify_one();
                }
            }
            true
        }

        /// The caller holds the lock.
        fn empty(&self) {
            for () in self.filled.drain() {
                self.pool.store(1, Ordering::Release);
                self.state.take(1, Step::Flush).unwrap();
            }
        }

        fn flush(&self) {
            let _lock = lock(&self.lock);
            self.filled.set_flushing(true);
            self.empty();
            let waiting = usize::from(self.filled.waiters.are_there());
            self.filled.waiters.remove(waiting);
            self.submitted.notify_all();
        }

        /// Waits for ever. False when the pool flushes.
        fn acquire_filled(&self) -> bool {
            let mut guard = self.lock.lock().unwrap();
            loop {
                if self.filled.is_flushing() {
                    return false;
                }
                if self.filled.pop().is_some() {
                    self.pool.store(1, Ordering::Release);
                    self.state.take(1, Step::AcquireFilled).unwrap();
                    return true;
                }
                self.filled.waiters.add();
                if !self.filled.is_empty() {
                    self.filled.waiters.remove(1);
                    continue;
                }
                guard = self.submitted.wait(guard).unwrap();
            }
        }
    }

    #[test]
    fn a_consumer_that_waits_gets_what_is_submitted() {
        check_interleavings(|| {
            let pool = Pool::new();
            let consumer = {
                let pool = Arc::clone(&pool);
                thread::spawn(move || {
                    assert!(pool.acquire_filled());
                    assert_eq!(pool.bytes.read(), 42);
                })
            };
            pool.bytes.write(42);
            assert!(pool.submit());
            consumer.join().unwrap();
            assert_eq!(pool.state.load(), BufferState::LockedByConsumer);
        });
    }

    #[test]
    fn nothing_stays_in_a_queue_that_flushes() {
        check_interleavings(|| {
            let pool = Pool::new();
            let producers: Vec<_> = (0..2)
                .map(|_| {
                    let pool = Arc::clone(&pool);
                    thread::spawn(move || pool.submit())
                })
                .collect();
            pool.flush();
            for producer in producers {
                producer.join().unwrap();
            }
            assert!(pool.filled.is_empty());
            assert_eq!(pool.state.load(), BufferState::LockedByProducer);
            assert_eq!(pool.pool.load(Ordering::Acquire), 1);
        });
    }

    #[test]
    fn a_flush_ends_a_wait() {
        check_interleavings(|| {
            let pool = Pool::new();
            let consumer = {
                let pool = Arc::clone(&pool);
                thread::spawn(move || pool.acquire_filled())
            };
            pool.flush();
            assert!(!consumer.join().unwrap());
        });
    }
}
