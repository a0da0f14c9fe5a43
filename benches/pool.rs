// SPDX-License-Identifier: MPL-2.0
//! Measures the pool against its peers: `cargo bench --bench pool`.
//!
//! The output is `name ours peer ratio`, medians of paired rounds as in `compare`, which
//! measures acquire and release:
//!
//! - `handover/P-to-C/PEER:ns`: nanoseconds for each buffer that P producers acquire and
//!   submit and C consumers acquire and release. The peer is a stock GstBufferPool together
//!   with a queue that an application would use to pass buffers on.
//! - `metadata/WHAT:bytes`: bytes malloc'ed for one more buffer, including GStreamer's own
//!   but not the payload: the difference between pools of N and of 2 N buffers, all of them
//!   acquired. The peer is the stock pool.
//! - `start/4x8MiB:us`: microseconds until a pool of four blocks of kind normal is active. The peer
//!   is a stock pool of as much memory, each page of which is written to once, as this pool does.
//! - `metadata/WHAT:own-bytes`: the part of the `metadata` bytes that this plugin's code asked for,
//!   against the design's 1024.
//!
//! Each measurement runs in a process of its own. If a peer fails or hangs, only its process
//! ends, a line on stderr says so, and the other measurements go on undisturbed.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    process::Command,
    ptr::NonNull,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use common::{Measured, Options};
use gst::{glib::translate::*, prelude::*};
use gstphysmem::{
    handle::BufferHandle,
    memory::{Address, AddressSource, Extent, MemoryKind, PhysAddr},
    pool::{PhysBufferPool, Wait},
};

const TIME: Duration = Duration::from_millis(300);
/// How long a peer's threads may take to end: the stock pool may spin for minutes if more
/// threads use it than there are processors.
const PATIENCE: Duration = Duration::from_secs(60);
const BUFFERS: u32 = 16;
const SIZE: u32 = 4096;
const PAGE: u64 = 4096;

/// A way for buffers from producers to consumers and back.
trait Way: Send + Sync {
    /// Passes on one buffer; false if the way is closed.
    fn produce(&self) -> bool;
    /// Takes a buffer, if one comes, and releases it. Returns the number of buffers, 0 or 1,
    /// or `None` if the way is closed.
    fn consume(&self) -> Option<u64>;
    fn close(&self);
}

type Open = fn() -> Arc<dyn Way>;

fn active<P: IsA<gst::BufferPool>>(pool: P, size: u32, buffers: u32) -> P {
    try_active(&pool, size, buffers).unwrap();
    pool
}

fn try_active(
    pool: &impl IsA<gst::BufferPool>,
    size: u32,
    buffers: u32,
) -> Result<(), gst::glib::BoolError> {
    let caps = gst::Caps::new_empty_simple("application/octet-stream");
    let pool = pool.upcast_ref::<gst::BufferPool>();
    let mut config = pool.config();
    config.set_params(Some(&caps), size, buffers, buffers);
    pool.set_config(config)?;
    pool.set_active(true)
}

struct Ours(PhysBufferPool);

impl Ours {
    fn open() -> Arc<dyn Way> {
        let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
        Arc::new(Self(active(pool, SIZE, BUFFERS)))
    }
}

impl Way for Ours {
    fn produce(&self) -> bool {
        let buffer = self.0.acquire_free(Wait::Forever);
        buffer.is_ok_and(|buffer| self.0.submit_filled(buffer).is_ok())
    }

    fn consume(&self) -> Option<u64> {
        let buffer = self.0.acquire_filled(Wait::Forever).ok()?;
        self.0.release_filled(buffer).ok().map(|()| 1)
    }

    fn close(&self) {
        self.0.set_flushing(true);
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.0.set_active(false).unwrap();
    }
}

/// The result of `consume` for peers that cannot be woken and poll instead.
fn taken(one: bool, is_closed: &AtomicBool) -> Option<u64> {
    (one || !is_closed.load(Ordering::Relaxed)).then_some(u64::from(one))
}

/// The stock pool and `std::sync::mpsc`. Consumers share the receiver by a lock.
struct StockAndChannel {
    pool: gst::BufferPool,
    sender: mpsc::Sender<gst::Buffer>,
    receiver: Mutex<mpsc::Receiver<gst::Buffer>>,
    is_closed: AtomicBool,
}

impl StockAndChannel {
    fn open() -> Arc<dyn Way> {
        let (sender, receiver) = mpsc::channel();
        Arc::new(Self {
            pool: active(gst::BufferPool::new(), SIZE, BUFFERS),
            sender,
            receiver: Mutex::new(receiver),
            is_closed: AtomicBool::new(false),
        })
    }
}

impl Way for StockAndChannel {
    fn produce(&self) -> bool {
        let buffer = self.pool.acquire_buffer(None);
        buffer.is_ok_and(|buffer| self.sender.send(buffer).is_ok())
    }

    fn consume(&self) -> Option<u64> {
        // `self` holds the sender, so only the time limit ends the wait.
        let wait = Duration::from_millis(10);
        let buffer = self.receiver.lock().unwrap().recv_timeout(wait);
        taken(buffer.is_ok(), &self.is_closed)
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.pool.set_flushing(true);
    }
}

/// The stock pool and GLib's queue, which any number of threads may use.
struct StockAndGQueue {
    pool: gst::BufferPool,
    queue: *mut gst::glib::ffi::GAsyncQueue,
    is_closed: AtomicBool,
}

// SAFETY: GAsyncQueue has a lock of its own.
unsafe impl Send for StockAndGQueue {}
// SAFETY: GAsyncQueue has a lock of its own.
unsafe impl Sync for StockAndGQueue {}

impl StockAndGQueue {
    fn open() -> Arc<dyn Way> {
        Arc::new(Self {
            pool: active(gst::BufferPool::new(), SIZE, BUFFERS),
            // SAFETY: the call has no requirements.
            queue: unsafe { gst::glib::ffi::g_async_queue_new() },
            is_closed: AtomicBool::new(false),
        })
    }
}

impl Way for StockAndGQueue {
    fn produce(&self) -> bool {
        let buffer = self.pool.acquire_buffer(None);
        buffer.is_ok_and(|buffer| {
            // SAFETY: the queue lives until `self` is dropped, and takes the reference.
            unsafe {
                gst::glib::ffi::g_async_queue_push(self.queue, buffer.into_glib_ptr().cast())
            };
            true
        })
    }

    fn consume(&self) -> Option<u64> {
        // SAFETY: as in `produce`; the queue returns a reference that was pushed, or null.
        let buffer: Option<gst::Buffer> = unsafe {
            let buffer = gst::glib::ffi::g_async_queue_timeout_pop(self.queue, 10_000);
            from_glib_full(buffer.cast::<gst::ffi::GstBuffer>())
        };
        taken(buffer.is_some(), &self.is_closed)
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.pool.set_flushing(true);
    }
}

impl Drop for StockAndGQueue {
    fn drop(&mut self) {
        while self.consume().is_some() {}
        // SAFETY: this is the last use of the queue.
        unsafe { gst::glib::ffi::g_async_queue_unref(self.queue) };
    }
}

/// Nanoseconds for each buffer handed over, all threads together.
fn handover_ns(way: Arc<dyn Way>, producers: usize, consumers: usize) -> Measured<f64> {
    let consumed = Arc::new(AtomicU64::new(0));
    let (ended, all_ended) = mpsc::channel();
    for thread in 0..producers + consumers {
        let (way, consumed, ended) = (Arc::clone(&way), Arc::clone(&consumed), ended.clone());
        std::thread::spawn(move || {
            if thread < producers {
                while way.produce() {}
            } else {
                while let Some(count) = way.consume() {
                    consumed.fetch_add(count, Ordering::Relaxed);
                }
            }
            drop(way);
            ended.send(()).unwrap();
        });
    }
    // The first hand-overs wake threads and fill caches.
    std::thread::sleep(TIME / 6);
    let (before, start) = (consumed.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(TIME);
    let (after, time) = (consumed.load(Ordering::Relaxed), start.elapsed());
    way.close();
    for _ in 0..producers + consumers {
        if all_ended.recv_timeout(PATIENCE).is_err() {
            return Err(format!("its threads did not end within {PATIENCE:?}").into());
        }
    }
    Ok(time.as_secs_f64() * 1e9 / (after - before) as f64)
}

/// Microseconds from the activation of a pool of four blocks until `touch` has seen each buffer.
fn start_us(pool: impl IsA<gst::BufferPool>, touch: impl Fn(&mut gst::BufferRef)) -> Measured<f64> {
    let start = Instant::now();
    try_active(&pool, 8 << 20, 4)?;
    let pool = pool.upcast_ref::<gst::BufferPool>();
    let mut buffers = (0..4)
        .map(|_| pool.acquire_buffer(None))
        .collect::<Result<Vec<_>, _>>()?;
    for buffer in &mut buffers {
        touch(buffer.make_mut());
    }
    let time = start.elapsed();
    drop(buffers);
    pool.set_active(false)?;
    Ok(time.as_secs_f64() * 1e6)
}

fn write_to_each_page(buffer: &mut gst::BufferRef) {
    let mut bytes = buffer.map_writable().unwrap();
    for byte in bytes.iter_mut().step_by(PAGE as usize) {
        // Volatile, so that the compiler does not leave these writes out.
        // SAFETY: the reference is valid for writes.
        unsafe { std::ptr::from_mut(byte).write_volatile(1) };
    }
}

/// Bytes that were malloc'ed and not freed.
fn malloced() -> usize {
    // SAFETY: mallinfo2 only reads counters.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Counts the bytes that Rust code has allocated and not freed.
struct Counting;

static OWN: AtomicUsize = AtomicUsize::new(0);

// SAFETY: `System` allocates and frees; this only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        OWN.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        OWN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes for each of the last `n` of 2 `n` buffers that are out, as `counter` counts them.
fn bytes_per_buffer(
    counter: fn() -> usize,
    make: &dyn Fn(u32) -> gst::BufferPool,
    n: u32,
) -> Measured<f64> {
    let of = |count: u32| -> Measured<usize> {
        let before = counter();
        let pool = make(count);
        let buffers: Vec<_> = (0..count)
            .map(|_| pool.acquire_buffer(None))
            .collect::<Result<_, _>>()?;
        let bytes = counter() - before - buffers.capacity() * size_of::<gst::Buffer>();
        drop(buffers);
        match pool.set_active(false) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(format!("{} would not be deactivated: {error}", pool.type_()).into()),
        }
    };
    of(n)?; // the first run also allocates types and caches
    let (small, large) = (of(n)?, of(2 * n)?);
    Ok((large as f64 - small as f64) / f64::from(n))
}

/// Pools of buffers of `size` bytes of `kind`, whose payload is mapped, not malloc'ed.
fn allocated(kind: MemoryKind, size: u32) -> impl Fn(u32) -> gst::BufferPool {
    move |count| active(PhysBufferPool::builder().kind(kind).build(), size, count).upcast()
}

/// Pools over blocks whose given address has `pieces` extents.
fn over_blocks(pieces: u64) -> impl Fn(u32) -> gst::BufferPool {
    static BLOCK: LazyLock<Mutex<&'static mut [u8]>> =
        LazyLock::new(|| Mutex::new(Box::leak(vec![0; SIZE as usize].into_boxed_slice())));
    let extents = (0..pieces).map(move |n| Extent {
        // The extents leave gaps: adjacent ones would be merged.
        phys: PhysAddr(0x4000_0000 + 2 * n * PAGE),
        len_bytes: u64::from(SIZE) / pieces,
    });
    move |count| {
        let handle = || {
            let ptr = NonNull::from(&mut **BLOCK.lock().unwrap()).cast();
            // SAFETY: the block is leaked, so it stays; no code here reads or writes it.
            let handle = unsafe { BufferHandle::new(ptr, SIZE as usize, |_, _| {}) };
            handle.with_address(Address::new(extents.clone().collect(), AddressSource::User))
        };
        let handles = (0..count).map(|_| handle()).collect();
        active(PhysBufferPool::with_handles(handles), SIZE, count).upcast()
    }
}

fn is_there(kind: MemoryKind) -> bool {
    let pool = PhysBufferPool::builder().kind(kind).build();
    let is_there = try_active(&pool, SIZE, 1).is_ok();
    is_there && pool.set_active(false).is_ok()
}

struct Bench {
    options: Options,
    /// The only measurement of this process, if the benchmark started it for that.
    alone: Option<String>,
}

impl Bench {
    fn pair(&self, name: &str, ours: impl Fn() -> Measured<f64>, peer: impl Fn() -> Measured<f64>) {
        match &self.alone {
            Some(alone) if alone == name => {
                let round = || Ok(vec![(name.to_owned(), ours()?, peer()?)]);
                self.options.measure(name, round);
            }
            None if self.options.wants(name) => self.measure_alone(name),
            _ => {}
        }
    }

    fn measure_alone(&self, name: &str) {
        // GLib's slice allocator keeps freed memory, so that malloc's counters would count
        // it as used. It reads the environment before main.
        let slices = std::env::var_os("G_SLICE").unwrap_or_else(|| "always-malloc".into());
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--rounds", &self.options.rounds.to_string()])
            .args(["--alone", name])
            .env("G_SLICE", slices)
            .status()
            .unwrap();
        if !status.success() {
            common::failed(name, &status);
        }
    }

    fn handovers(&self) {
        for (producers, consumers) in [(1, 1), (4, 4)] {
            let peers: [(&str, Open); 2] = [
                ("stock-and-mpsc", StockAndChannel::open),
                ("stock-and-GAsyncQueue", StockAndGQueue::open),
            ];
            for (peer, open) in peers {
                let name = format!("handover/{producers}-to-{consumers}/{peer}:ns");
                self.pair(
                    &name,
                    || handover_ns(Ours::open(), producers, consumers),
                    || handover_ns(open(), producers, consumers),
                );
            }
        }
    }

    fn start(&self) {
        self.pair(
            "start/4x8MiB:us",
            || {
                start_us(
                    PhysBufferPool::builder().kind(MemoryKind::Normal).build(),
                    |_| {},
                )
            },
            || start_us(gst::BufferPool::new(), write_to_each_page),
        );
    }

    fn metadata(&self) {
        // The stock pool mallocs the payload together with the GstMemory.
        const PAYLOAD: u32 = 64;
        let stock = || {
            let make = |count| active(gst::BufferPool::new(), PAYLOAD, count);
            Ok(bytes_per_buffer(malloced, &make, 64)? - f64::from(PAYLOAD))
        };
        let own = || OWN.load(Ordering::Relaxed);
        let target = || Ok(1024.0);
        let line = |name: &str, make: &dyn Fn(u32) -> gst::BufferPool| {
            let name = format!("metadata/{name}");
            self.pair(
                &format!("{name}:bytes"),
                || bytes_per_buffer(malloced, make, 64),
                stock,
            );
            self.pair(
                &format!("{name}:own-bytes"),
                || bytes_per_buffer(own, make, 64),
                target,
            );
        };
        line("block-of-1-piece", &over_blocks(1));
        line("block-of-256-pieces", &over_blocks(256));
        for kind in [MemoryKind::Normal, MemoryKind::Cma, MemoryKind::Hugepage] {
            if is_there(kind) {
                line(&format!("{kind}-page"), &allocated(kind, SIZE));
            } else if self.alone.is_none() {
                eprintln!("SKIPPED metadata/{kind}-page: no such memory here");
            }
        }
    }
}

fn main() {
    let mut alone = None;
    let options = Options::parse("", |option, value| {
        let is_alone = option == "--alone";
        if is_alone {
            alone = Some(value());
        }
        is_alone
    });
    let bench = Bench { options, alone };
    gst::init().unwrap();
    gstphysmem::plugin_register_static().unwrap();
    if bench.alone.is_none() {
        println!("name ours peer ratio");
    }
    bench.handovers();
    bench.start();
    bench.metadata();
}
