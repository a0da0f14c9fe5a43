// SPDX-License-Identifier: MPL-2.0
//! Acquire and release of free slots without the lock of the slots.
//!
//! The cache holds the free slots that were released last, in atomic words of up to eight slots
//! ([`Recent`]). The other free slots are in a list under the lock. A release puts its slot into the
//! cache, and an acquire takes the latest one out, with one compare-exchange each. There are a few
//! words, and each thread always tries the same one first ([`FirstWord`]), so that threads that acquire and
//! release at the same time do not take words and buffers out of each other's caches. The cache is
//! open for one configuration of one pool at a time, and only if that pool hands out the latest slot
//! first and may have all slots out. A thread that finds the cache closed, empty or full takes the
//! lock.
//!
//! Three protocols make this correct. In each, two threads write one word each and then read the
//! other thread's word. All these accesses are SeqCst, so at least one thread sees the other's write:
//!
//! - A thread that closes the cache writes that it is closed, and then takes out the slots in it. A
//!   release puts its slot in, and then reads whether the cache is still open.
//! - A thread that waits counts itself ([`Waiters`]), looks once more for a slot, and then sleeps. A
//!   release puts its slot in, and then reads whether a thread waits.
//! - A thread that looks for a buffer by its id sets a flag ([`FreeCache::look`]), and then reads whether
//!   the buffer is in use. A release first takes the buffer out of use (GStreamer sets its pool to
//!   NULL), and then reads the flag ([`FreeCache::is_looked_at`]).
//!
//! The thread that closes, waits or looks holds the lock meanwhile. A release that sees its write
//! takes the lock too, and so continues only after that thread is done or asleep. loom models below
//! check all three protocols.

use std::cell::Cell;

use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering, seq_cst_for_loom};

/// The indices of up to eight slots, one in each byte, the latest in the lowest byte. 0 is no slot,
/// and n is slot n - 1. The word is the whole list, so a compare-exchange that succeeds is right even
/// if the word changed meanwhile and changed back (no ABA problem). Each word has a cache line of its
/// own.
#[repr(align(64))]
struct Recent(AtomicU64);

impl Recent {
    const BITS: u32 = 8;
    const LOWEST: u64 = (1 << Self::BITS) - 1;
    /// The later half of a full word.
    const LATER_HALF: u64 = u32::MAX as u64;

    fn entry(index: usize) -> Option<u64> {
        let entry = u64::try_from(index).ok()?.checked_add(1)?;
        (entry <= Self::LOWEST).then_some(entry)
    }

    fn pop(&self) -> Option<usize> {
        let mut word = self.0.load(Ordering::SeqCst);
        while word != 0 {
            let rest = word >> Self::BITS;
            let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
            match self.0.compare_exchange_weak(word, rest, success, failure) {
                Ok(_) => return Some((word & Self::LOWEST) as usize - 1),
                Err(now) => word = now,
            }
        }
        None
    }

    /// False if the word is full, or the index does not fit into a byte.
    fn push(&self, index: usize) -> bool {
        let Some(entry) = Self::entry(index) else {
            return false;
        };
        let mut word = self.0.load(Ordering::Relaxed);
        while word >> (u64::BITS - Self::BITS) == 0 {
            let more = word << Self::BITS | entry;
            let (success, failure) = (Ordering::SeqCst, Ordering::Relaxed);
            match self.0.compare_exchange_weak(word, more, success, failure) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Leaves the entries under the mask `kept` in the word. Takes out the others, the oldest first.
    fn take_all_but(&self, kept: u64) -> impl Iterator<Item = usize> {
        let word = self.0.fetch_and(kept, Ordering::SeqCst) & !kept;
        let entries = word.to_be_bytes().into_iter().filter(|&entry| entry != 0);
        entries.map(|entry| usize::from(entry) - 1)
    }
}

/// How many threads sleep, or are about to. It changes only under the lock that their condition
/// variable uses.
pub(super) struct Waiters(AtomicUsize);

impl Waiters {
    pub fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Counts the calling thread, which then looks once more before it sleeps.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        seq_cst_for_loom();
    }

    pub fn remove(&self, count: usize) {
        self.0.fetch_sub(count, Ordering::SeqCst);
    }

    pub fn are_there(&self) -> bool {
        seq_cst_for_loom();
        self.0.load(Ordering::SeqCst) != 0
    }
}

/// Whether [`FreeCache::put`] put the slot in.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Put {
    Done,
    /// Yes, and the caller has to take the lock: a thread waits, or the cache was closed meanwhile.
    NeedsLock,
    /// No. The caller still has the slot.
    Refused,
}

/// The number of words. With more words than processors, a thread would often find its first word
/// empty. With fewer words, more threads would try the same word first.
const WORDS: usize = 4;

/// The word that a thread uses first.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstWord(usize);

impl FirstWord {
    pub fn of_this_thread() -> Self {
        static THREADS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        thread_local! {
            static FIRST: Cell<usize> = const { Cell::new(WORDS) };
        }
        FIRST.with(|first| {
            if first.get() == WORDS {
                first.set(THREADS.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % WORDS);
            }
            Self(first.get())
        })
    }
}

#[repr(align(64))]
pub(super) struct FreeCache {
    recent: [Recent; WORDS],
    /// The configuration whose buffers go through the cache; 0 while it is closed.
    open_for: AtomicU64,
    pub waiters: Waiters,
    is_looked_at: AtomicBool,
}

impl FreeCache {
    pub fn new() -> Self {
        Self {
            recent: std::array::from_fn(|_| Recent(AtomicU64::new(0))),
            open_for: AtomicU64::new(0),
            waiters: Waiters::new(),
            is_looked_at: AtomicBool::new(false),
        }
    }

    pub fn is_open_for(&self, config: u64) -> bool {
        seq_cst_for_loom();
        self.open_for.load(Ordering::SeqCst) == config
    }

    /// The configuration that the cache is open for, or 0.
    pub fn open_for(&self) -> u64 {
        self.open_for.load(Ordering::Acquire)
    }

    /// A thread that is about to sleep counts itself in `waiters` before it calls this.
    pub fn is_empty(&self) -> bool {
        let is_empty = |recent: &Recent| recent.0.load(Ordering::SeqCst) == 0;
        self.recent.iter().all(is_empty)
    }

    /// Opens the cache for a configuration, or closes it with 0. The caller holds the lock, and takes
    /// the slots out ([`drain`](Self::drain)) after it closed the cache.
    pub fn set_open_for(&self, config: u64) {
        self.open_for.store(config, Ordering::SeqCst);
        seq_cst_for_loom();
    }

    /// Takes the latest slot of the first word that has one, beginning with the word `first`.
    pub fn take(&self, first: FirstWord) -> Option<usize> {
        let words = (0..WORDS).map(|distance| (first.0 + distance) % WORDS);
        words.into_iter().find_map(|word| self.recent[word].pop())
    }

    /// Puts the caller's slot in, whose buffer is of the configuration `config`.
    pub fn put(&self, first: FirstWord, index: usize, config: u64) -> Put {
        if self.open_for() != config || !self.recent[first.0].push(index) {
            return Put::Refused;
        }
        if self.is_open_for(config) && !self.waiters.are_there() {
            Put::Done
        } else {
            Put::NeedsLock
        }
    }

    /// Takes out all slots at once, the oldest of each word first.
    pub fn drain(&self) -> impl Iterator<Item = usize> {
        let words = self.recent.each_ref().map(|recent| recent.take_all_but(0));
        words.into_iter().flatten()
    }

    /// Takes out the older half of a full word at once, the oldest first.
    pub fn drain_older(&self, first: FirstWord) -> impl Iterator<Item = usize> {
        self.recent[first.0].take_all_but(Recent::LATER_HALF)
    }

    /// Sets the flag that a thread looks for a buffer, until the result is dropped. The caller holds
    /// the lock, so that there is one such thread at a time.
    pub fn look(&self) -> Look<'_> {
        self.is_looked_at.store(true, Ordering::SeqCst);
        seq_cst_for_loom();
        Look(self)
    }

    /// Whether another thread may be taking a reference to a buffer that the caller has just taken
    /// out of use. If so, the caller has to take the lock before it goes on.
    pub fn is_looked_at(&self) -> bool {
        seq_cst_for_loom();
        self.is_looked_at.load(Ordering::SeqCst)
    }
}

#[must_use]
pub(super) struct Look<'a>(&'a FreeCache);

impl Drop for Look<'_> {
    fn drop(&mut self) {
        // SeqCst includes release: a thread that reads `false` sees the references that were taken.
        self.0.is_looked_at.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const FIRST: FirstWord = FirstWord(1);

    fn free_cache() -> FreeCache {
        let free_cache = FreeCache::new();
        free_cache.set_open_for(1);
        free_cache
    }

    #[test]
    fn slots_that_were_taken_out_are_gone_even_if_the_caller_looks_at_none() {
        let free_cache = free_cache();
        assert_eq!(free_cache.put(FIRST, 3, 1), Put::Done);
        drop(free_cache.drain());
        assert_eq!(free_cache.take(FIRST), None);
    }

    #[test]
    fn the_slot_that_came_last_goes_first() {
        let free_cache = free_cache();
        for index in [3, 0, 254] {
            assert_eq!(free_cache.put(FIRST, index, 1), Put::Done);
        }
        assert_eq!(free_cache.take(FIRST), Some(254));
        assert_eq!(free_cache.put(FIRST, 7, 1), Put::Done);
        let rest: Vec<_> = std::iter::from_fn(|| free_cache.take(FIRST)).collect();
        assert_eq!(rest, [7, 0, 3]);
    }

    #[test]
    fn a_thread_takes_what_it_released_itself_before_what_others_did() {
        let free_cache = free_cache();
        for (word, index) in [(0, 5), (1, 6), (2, 7)] {
            assert_eq!(free_cache.put(FirstWord(word), index, 1), Put::Done);
        }
        let rest: Vec<_> = std::iter::from_fn(|| free_cache.take(FirstWord(2))).collect();
        assert_eq!(rest, [7, 5, 6]);
        assert!(free_cache.is_empty());
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let free_cache = free_cache();
        assert_eq!(free_cache.put(FIRST, 255, 1), Put::Refused);
        assert_eq!(free_cache.put(FIRST, usize::MAX, 1), Put::Refused);
        assert_eq!(free_cache.put(FIRST, 0, 2), Put::Refused);
        for index in 0..8 {
            assert_eq!(free_cache.put(FIRST, index, 1), Put::Done);
        }
        assert_eq!(free_cache.put(FIRST, 8, 1), Put::Refused);
        assert_eq!(
            free_cache.drain_older(FIRST).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        assert_eq!(free_cache.drain().collect::<Vec<_>>(), [4, 5, 6, 7]);
        assert_eq!(free_cache.take(FIRST), None);
    }

    #[test]
    fn who_puts_a_slot_in_is_told_of_waiters() {
        let free_cache = free_cache();
        free_cache.waiters.add();
        assert_eq!(free_cache.put(FIRST, 0, 1), Put::NeedsLock);
        free_cache.waiters.remove(1);
        assert_eq!(free_cache.put(FIRST, 1, 1), Put::Done);
    }
}

/// Loom runs these threads in all orders, up to the preemptions that `check_interleavings` allows:
/// `tests/sanitize loom`.
#[cfg(test)]
#[cfg(loom)]
mod model {
    use super::*;
    use crate::sync::{Arc, Mutex, SharedBytes, check_interleavings, lock};
    use loom::{sync::Condvar, thread};

    /// With one word for all threads the models would not show the search through the words. More
    /// than two take loom longer.
    const FIRST: FirstWord = FirstWord(0);
    const LAST: FirstWord = FirstWord(WORDS - 1);

    fn open(slots: usize) -> FreeCache {
        let free_cache = FreeCache::new();
        free_cache.set_open_for(1);
        for index in 0..slots {
            assert_eq!(free_cache.put(FIRST, index, 1), Put::Done);
        }
        free_cache
    }

    #[test]
    fn a_slot_is_never_taken_by_two_and_none_is_lost() {
        check_interleavings(|| {
            let slots = [SharedBytes::new(0), SharedBytes::new(0)];
            let shared = Arc::new((open(2), slots));
            let cycles = {
                let shared = Arc::clone(&shared);
                move |first: FirstWord| {
                    for _ in 0..2 {
                        let (free_cache, slots) = &*shared;
                        if let Some(index) = free_cache.take(first) {
                            slots[index].write(slots[index].read() + 1);
                            assert_eq!(free_cache.put(first, index, 1), Put::Done);
                        }
                    }
                }
            };
            let other = thread::spawn({
                let cycles = cycles.clone();
                move || cycles(LAST)
            });
            cycles(FIRST);
            other.join().unwrap();
            let (free_cache, _) = &*shared;
            let mut rest: Vec<_> = free_cache.drain().collect();
            rest.sort_unstable();
            assert_eq!(rest, [0, 1]);
        });
    }

    struct Slots {
        free_cache: FreeCache,
        listed: Mutex<Vec<usize>>,
        freed: Condvar,
    }

    impl Slots {
        /// A release, as `Share` does it.
        fn release(&self, first: FirstWord, index: usize) {
            match self.free_cache.put(first, index, 1) {
                Put::Done => return,
                Put::NeedsLock => {}
                Put::Refused => lock(&self.listed).push(index),
            }
            let mut listed = self.listed.lock().unwrap();
            if !self.free_cache.is_open_for(1) {
                listed.extend(self.free_cache.drain());
            }
            if self.free_cache.waiters.are_there() {
                self.free_cache.waiters.remove(1);
                self.freed.notify_one();
            }
        }

        /// An acquire that waits for ever.
        fn acquire(&self) -> usize {
            let mut listed = self.listed.lock().unwrap();
            loop {
                if let Some(index) = self.free_cache.take(FIRST).or_else(|| listed.pop()) {
                    return index;
                }
                self.free_cache.waiters.add();
                if let Some(index) = self.free_cache.take(FIRST) {
                    self.free_cache.waiters.remove(1);
                    return index;
                }
                listed = self.freed.wait(listed).unwrap();
            }
        }
    }

    fn slots(free: usize) -> Arc<Slots> {
        Arc::new(Slots {
            free_cache: open(free),
            listed: Mutex::new(Vec::new()),
            freed: Condvar::new(),
        })
    }

    #[test]
    fn a_thread_that_waits_is_woken() {
        check_interleavings(|| {
            let slots = slots(0);
            let other = {
                let slots = Arc::clone(&slots);
                thread::spawn(move || slots.acquire())
            };
            slots.release(LAST, 0);
            assert_eq!(other.join().unwrap(), 0);
            assert!(!slots.free_cache.waiters.are_there());
        });
    }

    #[test]
    fn of_two_threads_that_wait_each_gets_a_slot() {
        check_interleavings(|| {
            let slots = slots(0);
            let waiting: Vec<_> = (0..2)
                .map(|_| {
                    let slots = Arc::clone(&slots);
                    thread::spawn(move || slots.acquire())
                })
                .collect();
            slots.release(LAST, 0);
            slots.release(LAST, 1);
            let got: usize = waiting.into_iter().map(|w| w.join().unwrap()).sum();
            assert_eq!(got, 1);
        });
    }

    #[test]
    fn no_slot_stays_in_a_cache_that_is_closed() {
        check_interleavings(|| {
            let slots = slots(1);
            let other = {
                let slots = Arc::clone(&slots);
                thread::spawn(move || slots.release(LAST, 1))
            };
            {
                let mut listed = slots.listed.lock().unwrap();
                slots.free_cache.set_open_for(0);
                listed.extend(slots.free_cache.drain());
            }
            other.join().unwrap();
            assert_eq!(slots.free_cache.take(FIRST), None);
            let mut listed = lock(&slots.listed).clone();
            listed.sort_unstable();
            assert_eq!(listed, [0, 1]);
        });
    }

    #[test]
    fn who_does_not_wait_finds_a_slot_if_there_always_is_one() {
        check_interleavings(|| {
            let slots = slots(0);
            for index in 0..2 {
                slots.release(LAST, index);
            }
            let other = {
                let slots = Arc::clone(&slots);
                thread::spawn(move || {
                    for _ in 0..2 {
                        if let Some(index) = slots.free_cache.take(LAST) {
                            slots.release(FIRST, index);
                        }
                    }
                })
            };
            let found = slots.free_cache.take(FIRST).or_else(|| {
                let mut listed = lock(&slots.listed);
                slots.free_cache.set_open_for(0);
                listed.extend(slots.free_cache.drain());
                slots.free_cache.set_open_for(1);
                listed.pop()
            });
            assert!(found.is_some());
            other.join().unwrap();
        });
    }

    /// One buffer, as GStreamer and the pool see it.
    struct Buffer {
        slots: Arc<Slots>,
        /// GstBuffer::pool: 1 until GStreamer brings the buffer back.
        pool: AtomicUsize,
        refs: AtomicUsize,
        state: crate::pool::state::AtomicState,
        /// A release may write to these only if no other thread has a reference to the buffer.
        bytes: SharedBytes,
    }

    use crate::pool::state::{AtomicState, BufferState, Step};

    impl Buffer {
        fn new(pool: usize, state: AtomicState) -> Arc<Self> {
            Arc::new(Self {
                slots: slots(0),
                pool: AtomicUsize::new(pool),
                refs: AtomicUsize::new(1),
                state,
                bytes: SharedBytes::new(0),
            })
        }

        /// Drops a reference. The last one brings the buffer back, as gst_buffer_unref does. Returns
        /// whether it was then parked.
        fn unref(&self) -> bool {
            if self.refs.fetch_sub(1, Ordering::AcqRel) != 1 {
                return false;
            }
            self.refs.fetch_add(1, Ordering::AcqRel);
            let (success, failure) = (Ordering::SeqCst, Ordering::Relaxed);
            let is_ours = self.pool.compare_exchange(1, 0, success, failure);
            if is_ours.is_err() {
                return false;
            }
            if self.slots.free_cache.is_looked_at() {
                drop(lock(&self.slots.listed));
            }
            let is_unshared = self.refs.load(Ordering::Acquire) == 1;
            if is_unshared {
                self.bytes.write(1);
                self.slots.release(LAST, 0);
            }
            is_unshared
        }

        /// Returns whether a reference was taken, and dropped again.
        fn look(&self) -> bool {
            let listed = lock(&self.slots.listed);
            let look = self.slots.free_cache.look();
            let is_in_use = self.pool.load(Ordering::SeqCst) == 1
                || self.state.load() == BufferState::ReadyForConsume;
            let one_more = |now| (now > 0).then_some(now + 1);
            let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
            let found = is_in_use && self.refs.fetch_update(success, failure, one_more).is_ok();
            drop(look);
            drop(listed);
            if found {
                self.bytes.read();
                self.unref();
            }
            found
        }
    }

    #[test]
    fn a_buffer_found_by_its_id_is_not_handed_out_again_meanwhile() {
        check_interleavings(|| {
            let buffer = Buffer::new(1, AtomicState::new());
            let other = {
                let buffer = Arc::clone(&buffer);
                thread::spawn(move || buffer.look())
            };
            buffer.unref();
            // A thread that finds the slot free is the only one with a reference to the buffer.
            if buffer.slots.free_cache.take(FIRST).is_some() {
                assert_eq!(buffer.refs.load(Ordering::Acquire), 1);
                buffer.bytes.write(2);
            }
            other.join().unwrap();
        });
    }

    #[test]
    fn a_buffer_found_in_the_queue_is_not_handed_out_again_meanwhile() {
        check_interleavings(|| {
            let buffer = Buffer::new(0, AtomicState::new());
            for step in [Step::AcquireFree, Step::SubmitFilled] {
                buffer.state.take(1, step).unwrap();
            }
            let other = {
                let buffer = Arc::clone(&buffer);
                thread::spawn(move || buffer.look())
            };
            // The consumer takes the buffer out of the queue and drops it.
            buffer.pool.store(1, Ordering::Release);
            buffer.state.take(1, Step::AcquireFilled).unwrap();
            buffer.unref();
            if buffer.slots.free_cache.take(FIRST).is_some() {
                assert_eq!(buffer.refs.load(Ordering::Acquire), 1);
                buffer.bytes.write(2);
            }
            other.join().unwrap();
        });
    }
}
