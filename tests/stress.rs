// SPDX-License-Identifier: MPL-2.0
//! Eight producers, eight consumers, and a thread that drops handles at random, or memory that stays
//! and a pool that is flushed at random. No buffer is held by two threads, nothing is lost, and every
//! byte that was written is read.
//!
//! The number of hand-overs is small by default; ten million take a minute or two:
//!
//!     PHYSMEM_STRESS_HANDOVERS=10000000 cargo test --release --test stress

use std::{
    collections::HashMap,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use gst::prelude::*;
use gstphysmem::{
    handle::BufferHandle,
    meta::PhysMemMeta,
    pool::{BufferState, PhysBufferPool, PoolError, Wait},
};

const THREADS: usize = 8;
const HANDLES: usize = 24;
/// The number of handles that are alive at the end of a round.
const SURVIVORS: usize = 4;
const SIZE: usize = 256;
/// Hand-overs of a round. Each round has its own pool and handles.
const ROUND: u64 = 100_000;

fn handovers() -> u64 {
    std::env::var("PHYSMEM_STRESS_HANDOVERS").map_or(40_000, |n| n.parse().unwrap())
}

/// A pseudo-random generator with a seed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

const NO_HOLDER: u8 = 0;
const PRODUCER: u8 = 1;
const CONSUMER: u8 = 2;

/// What the test itself records about one buffer, to compare it with the pool.
#[derive(Default)]
struct BufferRecord {
    holder: AtomicU8,
    /// The sum of the bytes that were submitted and not yet consumed.
    pending: AtomicU64,
}

impl BufferRecord {
    fn change_holder(&self, from: u8, to: u8) {
        let held_by = self.holder.swap(to, Ordering::AcqRel);
        assert_eq!(held_by, from, "held twice");
    }
}

#[derive(Default)]
struct Totals {
    produced: AtomicU64,
    consumed: AtomicU64,
    handovers: AtomicU64,
}

/// Wakes all waiting threads if one panics.
struct FlushOnPanic<'a>(&'a PhysBufferPool);

impl Drop for FlushOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set_flushing(true);
        }
    }
}

struct Round {
    pool: PhysBufferPool,
    records: HashMap<u32, BufferRecord>,
    totals: Totals,
    quota: AtomicU64,
    /// The pool is flushed now and then, and threads whose calls fail because of that try again.
    is_flushed: AtomicBool,
}

fn id(buffer: &gst::BufferRef) -> u32 {
    buffer.meta::<PhysMemMeta>().unwrap().id()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&b| u64::from(b)).sum()
}

/// A handle whose deleter counts its runs. The deleter overwrites the bytes before it frees them,
/// so that a late reader would notice.
fn handle(freed: &Arc<AtomicUsize>) -> BufferHandle {
    let freed = Arc::clone(freed);
    let block: &'static mut [u8] = Box::leak(vec![0; SIZE].into_boxed_slice());
    // SAFETY: leaked, and made a Box again by the deleter alone.
    unsafe {
        BufferHandle::new(NonNull::from(block).cast(), SIZE, move |ptr, len| {
            let mut block = Box::from_raw(std::ptr::slice_from_raw_parts_mut(ptr.as_ptr(), len));
            block.fill(0xdd);
            drop(block);
            freed.fetch_add(1, Ordering::SeqCst);
        })
    }
}

impl Round {
    fn new(pool: PhysBufferPool, quota: u64) -> Self {
        let mut config = pool.config();
        config.set_params(None, SIZE as u32, 0, 0);
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        let all: Vec<_> = (0..HANDLES)
            .map(|_| pool.acquire_free(Wait::No).unwrap())
            .collect();
        Self {
            records: all
                .iter()
                .map(|b| (id(b), BufferRecord::default()))
                .collect(),
            pool,
            totals: Totals::default(),
            quota: AtomicU64::new(quota),
            is_flushed: AtomicBool::new(false),
        }
    }

    fn is_refused_for_now(&self, error: &PoolError) -> bool {
        let is_flushing = matches!(error, PoolError::Flushing { .. });
        is_flushing && self.is_flushed.load(Ordering::Acquire)
    }

    /// Submits buffers until the quota is used up. A submission does not count if the handle is
    /// gone.
    fn produce(&self, seed: u64) {
        let _end = FlushOnPanic(&self.pool);
        let mut random = Random(seed);
        while self
            .quota
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1))
            .is_ok()
        {
            while !self.produce_one(&mut random) {}
        }
    }

    fn produce_one(&self, random: &mut Random) -> bool {
        let buffer = match self.pool.acquire_free(Wait::Forever) {
            Ok(buffer) => buffer,
            Err(error) if self.is_refused_for_now(&error) => {
                std::thread::yield_now();
                return false;
            }
            Err(other) => panic!("{other}"),
        };
        let id = id(&buffer);
        let record = &self.records[&id];
        record.change_holder(NO_HOLDER, PRODUCER);
        // Written through the region, as a device would. A map for writing fails if there is
        // another reference, and the thread that looks up ids may have one.
        let region = buffer
            .meta::<PhysMemMeta>()
            .unwrap()
            .region()
            .unwrap()
            .clone();
        let sum = match region.begin_access(true) {
            Ok(access) => {
                // SAFETY: the region has SIZE bytes until the access ends, and the record shows
                // that no other thread uses them.
                let bytes = unsafe { std::slice::from_raw_parts_mut(access.ptr(), SIZE) };
                bytes.fill_with(|| random.next() as u8);
                sum(bytes)
            }
            // The owner has dropped the handle in the meantime.
            Err(_) => {
                record.change_holder(PRODUCER, NO_HOLDER);
                return false;
            }
        };
        // What was filled before a flush remains pending.
        let flushed = record.pending.swap(sum, Ordering::AcqRel);
        assert!(flushed == 0 || self.is_flushed.load(Ordering::Acquire));
        record.change_holder(PRODUCER, NO_HOLDER);
        match self.pool.submit_filled(buffer) {
            Ok(()) => {
                self.totals.produced.fetch_add(sum, Ordering::AcqRel);
                true
            }
            Err(PoolError::Gone { id: gone }) => {
                assert_eq!(gone, id);
                record.pending.store(0, Ordering::Release);
                false
            }
            Err(error) if self.is_refused_for_now(&error) => false,
            Err(other) => panic!("{other}"),
        }
    }

    /// Consumes until the pool is flushed.
    fn consume(&self) {
        let _end = FlushOnPanic(&self.pool);
        loop {
            let buffer = match self.pool.acquire_filled(Wait::Forever) {
                Ok(buffer) => buffer,
                Err(error) if self.is_refused_for_now(&error) => {
                    std::thread::yield_now();
                    continue;
                }
                Err(PoolError::Flushing { .. }) => return,
                Err(other) => panic!("{other}"),
            };
            let record = &self.records[&id(&buffer)];
            record.change_holder(NO_HOLDER, CONSUMER);
            // The bytes of a buffer whose handle is gone remain pending, because it is not handed
            // out again.
            if let Ok(map) = buffer.map_readable() {
                let expected = record.pending.swap(0, Ordering::AcqRel);
                assert_eq!(sum(&map), expected, "other bytes than were submitted");
                self.totals.consumed.fetch_add(expected, Ordering::AcqRel);
                self.totals.handovers.fetch_add(1, Ordering::AcqRel);
            }
            record.change_holder(CONSUMER, NO_HOLDER);
            self.pool.release_filled(buffer).unwrap();
        }
    }

    /// Drops handles at random intervals until SURVIVORS are left.
    fn drop_handles(&self, handles: &mut Vec<BufferHandle>, done: &AtomicBool, seed: u64) {
        let mut random = Random(seed);
        let spread = self.quota.load(Ordering::Acquire) / HANDLES as u64;
        while handles.len() > SURVIVORS && !done.load(Ordering::Acquire) {
            let next =
                self.totals.handovers.load(Ordering::Acquire) + random.next() % spread.max(1);
            while self.totals.handovers.load(Ordering::Acquire) < next
                && !done.load(Ordering::Acquire)
            {
                std::thread::yield_now();
            }
            let victim = (random.next() % handles.len() as u64) as usize;
            drop(handles.swap_remove(victim));
        }
    }

    /// Flushes the pool at random intervals. Most are so short that threads are in the middle of a
    /// call.
    fn flush(&self, done: &AtomicBool, seed: u64) {
        let mut random = Random(seed);
        while !done.load(Ordering::Acquire) {
            for _ in 0..random.next() % 64 {
                std::thread::yield_now();
            }
            self.pool.set_flushing(true);
            self.pool.set_flushing(false);
        }
    }

    /// Looks up buffers by id at the same time, as an interrupt handler would.
    fn look_up(&self, done: &AtomicBool, seed: u64) {
        let mut random = Random(seed);
        let ids: Vec<_> = self.records.keys().copied().collect();
        while !done.load(Ordering::Acquire) {
            let wanted = ids[(random.next() % ids.len() as u64) as usize];
            if let Some(found) = self.pool.buffer_by_id(wanted) {
                assert_eq!(id(&found), wanted);
            }
            std::thread::yield_now();
        }
    }

    /// Runs producers, consumers, a thread that looks buffers up, and one that runs `disturb`, until the quota is
    /// used up and consumed. `disturb` ends when its flag is set, and draws numbers from its seed.
    fn play(&self, round: u64, disturb: impl FnOnce(&AtomicBool, u64) + Send) {
        let done = &AtomicBool::new(false);
        let seed = |n: u64| ((round << 32) + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);

        std::thread::scope(|scope| {
            let consumers: Vec<_> = (0..THREADS)
                .map(|_| scope.spawn(|| self.consume()))
                .collect();
            let producers: Vec<_> = (0..THREADS)
                .map(|n| scope.spawn(move || self.produce(seed(n as u64))))
                .collect();
            let disturber = scope.spawn(move || disturb(done, seed(100)));
            let interrupt = scope.spawn(move || self.look_up(done, seed(200)));
            for producer in producers {
                producer.join().unwrap();
            }
            done.store(true, Ordering::Release);
            disturber.join().unwrap();
            interrupt.join().unwrap();
            while self.pool.filled_count() != 0 {
                std::thread::yield_now();
            }
            // The flush that follows ends the consumers, unlike those of `flush`.
            self.is_flushed.store(false, Ordering::Release);
            self.pool.set_flushing(true);
            for consumer in consumers {
                consumer.join().unwrap();
            }
        });
    }
}

fn run(round: u64, quota: u64) -> u64 {
    let freed = Arc::new(AtomicUsize::new(0));
    let mut handles: Vec<_> = (0..HANDLES).map(|_| handle(&freed)).collect();
    let state = Round::new(PhysBufferPool::with_borrowed_handles(&handles), quota);
    state.play(round, |done, seed| {
        state.drop_handles(&mut handles, done, seed);
    });

    assert_eq!(state.quota.load(Ordering::Acquire), 0);
    assert_eq!(state.pool.total_count(), handles.len());
    assert_eq!(state.pool.free_count(), handles.len(), "a buffer was lost");
    assert_eq!(freed.load(Ordering::SeqCst), HANDLES - handles.len());
    let mut lost_to_the_owner = 0;
    for (&id, record) in &state.records {
        let pending = record.pending.load(Ordering::Acquire);
        match state.pool.state(id) {
            Some(buffer_state) => {
                assert_eq!(buffer_state, BufferState::Idle);
                assert_eq!(pending, 0, "buffer {id} was submitted and never consumed");
            }
            None => lost_to_the_owner += pending,
        }
    }
    assert_eq!(
        state.totals.produced.load(Ordering::Acquire),
        state.totals.consumed.load(Ordering::Acquire) + lost_to_the_owner
    );
    let stats = state.pool.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("refused-steps").unwrap(), 0);
    let handed_over = state.totals.handovers.load(Ordering::Acquire);
    state.pool.set_active(false).unwrap();
    drop((state, handles));
    assert_eq!(
        freed.load(Ordering::SeqCst),
        HANDLES,
        "each deleter ran once"
    );
    handed_over
}

#[test]
fn nothing_is_lost_or_held_twice_while_handles_are_dropped_at_random() {
    gst::init().unwrap();
    let wanted = handovers();
    let (mut round, mut handed_over) = (0, 0);
    while handed_over < wanted {
        handed_over += run(round, ROUND.min(wanted - handed_over));
        round += 1;
    }
    println!("{handed_over} hand-overs in {round} rounds");
}

/// A round with memory that stays, so that buffers mostly go round without the pool's lock. With the
/// handles of `run` they seldom do.
fn run_flushed(round: u64, quota: u64) -> u64 {
    let freed = Arc::new(AtomicUsize::new(0));
    let handles = (0..HANDLES).map(|_| handle(&freed)).collect();
    let state = Round::new(PhysBufferPool::with_handles(handles), quota);
    state.is_flushed.store(true, Ordering::Release);
    state.play(round, |done, seed| state.flush(done, seed));

    assert_eq!(state.pool.free_count(), HANDLES, "a buffer was lost");
    for &id in state.records.keys() {
        assert_eq!(state.pool.state(id), Some(BufferState::Idle));
    }
    let stats = state.pool.property::<gst::Structure>("stats");
    let count = |name: &str| stats.get::<u64>(name).unwrap();
    assert_eq!(count("refused-steps"), 0);
    assert_eq!(count("acquired"), count("released"));
    assert_eq!(count("submitted"), quota);
    assert!(count("consumed") >= state.totals.handovers.load(Ordering::Acquire));
    let handed_over = state.totals.handovers.load(Ordering::Acquire);
    state.pool.set_active(false).unwrap();
    drop(state);
    assert_eq!(
        freed.load(Ordering::SeqCst),
        HANDLES,
        "each deleter ran once"
    );
    handed_over
}

#[test]
fn nothing_is_lost_or_held_twice_while_the_pool_is_flushed_at_random() {
    gst::init().unwrap();
    let wanted = handovers();
    let (mut round, mut submitted, mut handed_over) = (0, 0, 0);
    while submitted < wanted {
        let quota = ROUND.min(wanted - submitted);
        handed_over += run_flushed(round, quota);
        submitted += quota;
        round += 1;
    }
    println!("{handed_over} hand-overs of {submitted} submits in {round} rounds");
}
