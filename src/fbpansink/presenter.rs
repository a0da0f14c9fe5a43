// SPDX-License-Identifier: MPL-2.0
//! The thread that pans. A fb_page must return to the pool when the pan to the next one has
//! taken effect, even if no further frame comes, because upstream may be waiting for that page.
//! The ioctls that pan and wait block, so they need a thread.
//!
//! From the moment a pan is issued until it has taken effect, both fb_pages count as on screen.
//! A single fb_page is always on screen. If it were held, upstream would never get it, so the
//! presenter holds nothing and has no thread, and frames tear.
use super::mode::{BUSY_LIMIT, BUSY_PAUSE};
use super::vsync::Clock;
use crate::display::cycle::Cycle;
use crate::locks::{Condvar, Mutex};
use crate::sys::clock::monotonic_ns;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long drop waits for the thread. An ioctl may block it for some refreshes. If it is blocked
/// for longer, drop leaves it behind.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The device that the thread drives.
pub trait Scanout: Send + Sync + 'static {
    /// Why a pan failed.
    type Error: Send + 'static;
    /// Makes the fb_page visible, at once or at the next vertical blank.
    fn pan(&self, fb_page: usize) -> Result<(), Self::Error>;
    /// Whether a pan that failed with this error may succeed a little later.
    fn may_pass(&self, error: &Self::Error) -> bool;
    /// Waits for the next vertical blank, or for about one refresh.
    fn wait_for_vsync(&self);
}

/// What became of a fb_page that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented {
    /// The fb_page is, or will be, on screen.
    Shown,
    /// The fb_page is not shown, because another virtual terminal has the screen.
    Away,
}

/// Why a fb_page was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The element is flushing.
    Flushing,
    /// A pan has failed, and `on_error` was called.
    Failed,
}

/// A fb_page that is held for the screen. Dropping `holder` lets writers have it.
#[derive(Debug, PartialEq, Eq)]
pub struct Held<H> {
    pub fb_page: usize,
    /// A reference that keeps the fb_page out of the pool, such as its buffer.
    pub holder: H,
}

struct State<H> {
    cycle: Cycle<Held<H>>,
    flushing: bool,
    stopping: bool,
    failed: bool,
    finished: bool,
    /// The holder of fb_page 0 while another virtual terminal, whose console draws into
    /// fb_page 0, has the screen.
    parked: Option<H>,
}

struct Shared<H> {
    state: Mutex<State<H>>,
    /// Another virtual terminal has the screen. Changed under the lock, read without it.
    away: AtomicBool,
    /// Notified at any change of `state` or `away`.
    changed: Condvar,
}

/// Hands fb_pages to the thread, and ends the thread when dropped.
pub struct Presenter<H: Send + 'static> {
    shared: Arc<Shared<H>>,
    thread: Option<JoinHandle<()>>,
}

impl<H: Send + 'static> Presenter<H> {
    /// Starts the thread. `current` is held until the first pan has taken effect. The thread
    /// calls `on_error` with the first failure of a pan, and `on_shown` after each pan with the
    /// holder of the fb_page and the time at which that was on the screen (CLOCK_MONOTONIC;
    /// `None` if the driver does not tell).
    pub fn new<S: Scanout>(
        scanout: Arc<S>,
        clock: Clock,
        fb_pages: usize,
        current: Option<Held<H>>,
        on_error: impl FnOnce(S::Error) + Send + 'static,
        on_shown: impl Fn(&H, Option<u64>) + Send + 'static,
    ) -> std::io::Result<Self>
    where
        H: Clone,
    {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                cycle: Cycle::showing(current.filter(|_| fb_pages > 1)),
                flushing: false,
                stopping: false,
                failed: false,
                finished: fb_pages <= 1,
                parked: None,
            }),
            away: AtomicBool::new(false),
            changed: Condvar::new(),
        });
        let thread = if fb_pages <= 1 {
            None // nothing to pan to
        } else {
            let shared = shared.clone();
            let run = move || shared.run(&*scanout, clock, on_error, on_shown);
            Some(
                std::thread::Builder::new()
                    .name("fbpansink".into())
                    .spawn(run)?,
            )
        };
        Ok(Self { shared, thread })
    }

    /// Hands over a written fb_page. Waits while another one is pending.
    pub fn present(&self, fb_page: usize, holder: H) -> Result<Presented, Refusal> {
        let mut new = Held { fb_page, holder };
        let mut state = self.shared.state.lock();
        loop {
            if state.flushing || state.stopping {
                return Err(Refusal::Flushing);
            }
            if state.failed {
                return Err(Refusal::Failed);
            }
            if self.is_away() {
                let unneeded = state.park(new);
                drop(state); // the holder must not be dropped under the lock
                drop(unneeded);
                return Ok(Presented::Away);
            }
            let latest = state.cycle.latest();
            let is_shown = latest.is_some_and(|held| held.fb_page == fb_page);
            if self.thread.is_none() || is_shown {
                drop(state); // as above
                return Ok(Presented::Shown);
            }
            match state.cycle.submit(new) {
                Ok(()) => {
                    self.shared.changed.notify_all();
                    return Ok(Presented::Shown);
                }
                Err(back) => new = back,
            }
            self.shared.changed.wait(&mut state);
        }
    }

    /// Pans to the fb_page on screen once more, unless another one is going to be shown anyway.
    pub fn pan_again(&self)
    where
        H: Clone,
    {
        let mut state = self.shared.state.lock();
        let is_possible = state.cycle.is_idle() && !state.failed && !self.is_away();
        let current = state.cycle.current().filter(|_| is_possible);
        let again = current.map(|held| Held {
            fb_page: held.fb_page,
            holder: held.holder.clone(),
        });
        if let Some(again) = again {
            // Nothing is pending, so that this one is taken.
            let _ = state.cycle.submit(again);
            self.shared.changed.notify_all();
        }
    }

    /// The holder of the fb_page that was handed in last; `None` if none is held.
    pub fn latest(&self) -> Option<H>
    where
        H: Clone,
    {
        let state = self.shared.state.lock();
        state.cycle.latest().map(|held| held.holder.clone())
    }

    /// While this is set, [`present`](Self::present) and the waits return at once.
    pub fn set_flushing(&self, flushing: bool) {
        let mut state = self.shared.state.lock();
        state.flushing = flushing;
        // Upstream may be waiting for this fb_page.
        let parked = state.parked.take();
        drop(state);
        drop(parked);
        self.shared.changed.notify_all();
    }

    pub fn is_flushing(&self) -> bool {
        self.shared.state.lock().flushing
    }

    /// Stops panning, because another virtual terminal gets the screen. Waits up to `limit` for
    /// a pan that is under way. Returns the fb_page that is on screen, which stays held.
    pub fn suspend(&self, limit: Duration) -> Option<usize> {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state.lock();
        self.shared.away.store(true, Ordering::Relaxed);
        let withdrawn = state.cycle.withdraw();
        let unneeded = withdrawn.map(|held| state.park(held));
        self.shared.changed.notify_all();
        while !state.cycle.is_idle()
            && !self
                .shared
                .changed
                .wait_until(&mut state, deadline)
                .timed_out()
        {}
        let current = state.cycle.current().map(|held| held.fb_page);
        drop(state);
        drop(unneeded);
        current
    }

    /// Allows pans again, because the screen is back.
    pub fn resume(&self) {
        let mut state = self.shared.state.lock();
        self.shared.away.store(false, Ordering::Relaxed);
        let parked = state.parked.take();
        drop(state);
        drop(parked);
        self.shared.changed.notify_all();
    }

    /// Whether another virtual terminal has the screen.
    pub fn is_away(&self) -> bool {
        self.shared.away.load(Ordering::Relaxed)
    }

    /// Waits while another virtual terminal has the screen, but no longer than `time`.
    pub fn linger(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let mut state = self.shared.state.lock();
        while self.is_away()
            && !state.flushing
            && !state.stopping
            && !self
                .shared
                .changed
                .wait_until(&mut state, deadline)
                .timed_out()
        {}
    }

    /// Waits until every fb_page that was handed in is on screen or was replaced there. Returns
    /// false if flushing or `limit` ended the wait earlier; a failed pan ends it, too.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state.lock();
        while !state.cycle.is_idle() && !state.failed {
            if state.flushing
                || self
                    .shared
                    .changed
                    .wait_until(&mut state, deadline)
                    .timed_out()
            {
                return state.cycle.is_idle();
            }
        }
        true
    }
}

impl<H: Send + 'static> Drop for Presenter<H> {
    fn drop(&mut self) {
        let deadline = Instant::now() + STOP_LIMIT;
        let finished = {
            let mut state = self.shared.state.lock();
            state.stopping = true;
            self.shared.changed.notify_all();
            while !state.finished
                && !self
                    .shared
                    .changed
                    .wait_until(&mut state, deadline)
                    .timed_out()
            {}
            state.finished
        };
        if let Some(thread) = self.thread.take()
            && finished
        {
            // The panic hook has reported a panic of the thread.
            let _ = thread.join();
        }
        let mut state = self.shared.state.lock();
        let held = std::mem::take(&mut state.cycle);
        let parked = state.parked.take();
        drop(state);
        drop((held, parked));
    }
}

impl<H> State<H> {
    /// Keeps the holder of fb_page 0, into which the console draws. Returns a holder that need
    /// not be kept, for the caller to drop outside of the lock.
    fn park(&mut self, held: Held<H>) -> Option<H> {
        match held.fb_page {
            0 => self.parked.replace(held.holder),
            _ => Some(held.holder),
        }
    }
}

impl<H> Shared<H> {
    fn run<S: Scanout>(
        &self,
        scanout: &S,
        clock: Clock,
        on_error: impl FnOnce(S::Error),
        on_shown: impl Fn(&H, Option<u64>),
    ) where
        H: Clone,
    {
        let mut on_error = Some(on_error);
        while let Some(fb_page) = self.next() {
            let panned_at = Instant::now();
            let panned = self.pan(scanout, fb_page);
            if let Ok(false) = panned {
                let mut state = self.state.lock();
                let refused = state.cycle.refused();
                let back = refused.map(|held| state.park(held));
                drop(state);
                self.changed.notify_all();
                drop(back);
                continue;
            }
            if let Err(error) = panned {
                // The error is reported before `failed` is set. Otherwise the streaming thread
                // could report that a frame was refused first.
                if let Some(on_error) = on_error.take() {
                    on_error(error);
                }
                let mut state = self.state.lock();
                state.failed = true;
                let back = (state.cycle.refused(), state.cycle.withdraw());
                drop(state);
                self.changed.notify_all();
                drop(back);
                continue;
            }
            match clock {
                Clock::PanWaits | Clock::Unsynchronised => {}
                Clock::WaitForVsync => scanout.wait_for_vsync(),
                Clock::Timer(period) => self.sleep_until(panned_at + period),
            }
            let shown_ns = clock.is_synchronised().then(monotonic_ns);
            let mut state = self.state.lock();
            let free = state.cycle.shown();
            let shown = state.cycle.current().map(|held| held.holder.clone());
            drop(state);
            drop(free); // returns to the pool, which wakes its waiters
            self.changed.notify_all();
            if let Some(holder) = shown {
                on_shown(&holder, shown_ns);
            }
        }
        self.state.lock().finished = true;
        self.changed.notify_all();
    }

    /// Pans, and repeats that while another program has the display for a moment. False if the
    /// pan was given up because the presenter stops or the screen was lost.
    fn pan<S: Scanout>(&self, scanout: &S, fb_page: usize) -> Result<bool, S::Error> {
        let deadline = Instant::now() + BUSY_LIMIT;
        loop {
            match scanout.pan(fb_page) {
                Err(error) if scanout.may_pass(&error) => {
                    let mut state = self.state.lock();
                    if state.stopping || self.away.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                    if Instant::now() >= deadline {
                        return Err(error);
                    }
                    self.changed
                        .wait_until(&mut state, Instant::now() + BUSY_PAUSE);
                }
                done => return done.map(|()| true),
            }
        }
    }

    fn next(&self) -> Option<usize> {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return None;
            }
            if !state.failed
                && !self.away.load(Ordering::Relaxed)
                && let Some(fb_page) = state.cycle.queue().map(|held| held.fb_page)
            {
                self.changed.notify_all(); // another frame can become pending
                return Some(fb_page);
            }
            self.changed.wait(&mut state);
        }
    }

    fn sleep_until(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while !state.stopping && !self.changed.wait_until(&mut state, deadline).timed_out() {}
    }
}

#[cfg(test)]
mod tests;
