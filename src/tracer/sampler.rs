// SPDX-License-Identifier: MPL-2.0
//! The thread that reads the numbers in turn and gives them to the clients of the socket.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::service::Service;
use super::watched::{Moment, Watched};
use crate::locks::{Condvar, Mutex};

/// The thread. It ends on drop.
#[derive(Debug)]
pub struct Sampler {
    end: Arc<End>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct End {
    has_come: Mutex<bool>,
    changed: Condvar,
}

impl End {
    /// Whether the end came before this time.
    fn wait_until(&self, time: Instant) -> bool {
        let mut has_come = self.has_come.lock();
        while !*has_come && !self.changed.wait_until(&mut has_come, time).timed_out() {}
        *has_come
    }
}

impl Sampler {
    /// Reads the numbers of `watched` each `interval`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        watched: Arc<Watched>,
        interval: Duration,
        mut service: Option<Service>,
    ) -> io::Result<Self> {
        let end = Arc::new(End::default());
        let run = {
            let end = end.clone();
            move || {
                loop {
                    let began = Instant::now();
                    watched.read(Moment::InTurn);
                    if let Some(service) = &mut service {
                        service.serve(|| watched.snapshot().to_line());
                    }
                    if end.wait_until(began + interval) {
                        return;
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("physmem-tracer".into());
        Ok(Self {
            thread: Some(thread.spawn(run)?),
            end,
        })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        *self.end.has_come.lock() = true;
        self.end.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The panic hook has reported a panic of the thread.
            let _ = thread.join();
        }
    }
}
