// SPDX-License-Identifier: MPL-2.0
//! Busy neighbours: threads of a real-time class that take most of the processors' time, in bursts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::runner::Random;

pub struct Neighbours {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Neighbours {
    /// One neighbour for each processor.
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = (0..processors as u64).map(|n| {
            let stop = Arc::clone(&stop);
            let thread = std::thread::Builder::new().name("neighbour".into());
            thread
                .spawn(move || burst(&stop, Random::new(1000 + n)))
                .expect("a thread")
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Computes for up to 40 ms, then sleeps for up to 10 ms, and so on.
fn burst(stop: &AtomicBool, mut random: Random) {
    let parameter = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread; the struct is whole, and the kernel only reads it.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    while !stop.load(Ordering::Acquire) {
        let end = Instant::now() + Duration::from_micros(random.below(40_000));
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        random.nap(10_000);
    }
}
