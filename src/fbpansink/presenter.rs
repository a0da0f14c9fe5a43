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
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Reports each pan, which returns the result that the test sends.
    struct ScriptedDevice {
        pans: Mutex<Sender<usize>>,
        answers: Mutex<Receiver<Result<(), &'static str>>>,
    }

    impl Scanout for ScriptedDevice {
        type Error = &'static str;
        fn pan(&self, fb_page: usize) -> Result<(), Self::Error> {
            let _ = self.pans.lock().send(fb_page);
            self.answers.lock().recv().unwrap_or(Ok(()))
        }
        fn may_pass(&self, error: &Self::Error) -> bool {
            *error == "a moment"
        }
        fn wait_for_vsync(&self) {}
    }

    struct Stage {
        presenter: Presenter<Arc<usize>>,
        pages: Vec<Arc<usize>>,
        panned: Receiver<usize>,
        answer: Sender<Result<(), &'static str>>,
        errors: Receiver<&'static str>,
        shown: Receiver<(usize, Option<u64>)>,
    }

    fn stage(n: usize) -> Stage {
        let (pans, panned) = channel();
        let (answer, answers) = channel();
        let (error, errors) = channel();
        let (on_screen, shown) = channel();
        let pages: Vec<_> = (0..n).map(Arc::new).collect();
        let device = Arc::new(ScriptedDevice {
            pans: Mutex::new(pans),
            answers: Mutex::new(answers),
        });
        let current = Some(Held {
            fb_page: 0,
            holder: pages[0].clone(),
        });
        let on_error = move |e| error.send(e).unwrap();
        let on_shown = move |page: &Arc<usize>, at| {
            let _ = on_screen.send((**page, at));
        };
        let presenter =
            Presenter::new(device, Clock::PanWaits, n, current, on_error, on_shown).unwrap();
        Stage {
            presenter,
            pages,
            panned,
            answer,
            errors,
            shown,
        }
    }

    impl Stage {
        fn present(&self, page: usize) -> Result<Presented, Refusal> {
            self.presenter.present(page, self.pages[page].clone())
        }
        fn is_free(&self, page: usize) -> bool {
            Arc::strong_count(&self.pages[page]) == 1
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_page_is_free_only_after_the_next_one_is_on_screen() {
        let stage = stage(2);
        stage.present(1).unwrap();
        assert_eq!(stage.panned.recv(), Ok(1));
        assert!(!stage.is_free(0) && !stage.is_free(1));
        stage.answer.send(Ok(())).unwrap();
        assert!(stage.presenter.wait_idle(LONG));
        assert!(stage.is_free(0) && !stage.is_free(1));
    }

    #[test]
    fn each_page_is_told_with_the_time_at_which_its_pan_was_over() {
        let stage = stage(3);
        let mut last_ns = monotonic_ns();
        for page in [1, 2] {
            stage.present(page).unwrap();
            assert_eq!(stage.panned.recv(), Ok(page));
            assert!(stage.shown.try_recv().is_err(), "not on the screen yet");
            let answered_ns = monotonic_ns();
            stage.answer.send(Ok(())).unwrap();
            let (shown, at) = stage.shown.recv().unwrap();
            let at = at.unwrap();
            assert_eq!(shown, page);
            assert!(last_ns <= answered_ns && answered_ns <= at && at <= monotonic_ns());
            last_ns = at;
        }
    }

    #[test]
    fn the_same_page_twice_pans_once() {
        let stage = stage(3);
        stage.present(1).unwrap();
        stage.present(1).unwrap();
        assert_eq!(stage.panned.recv(), Ok(1));
        stage.present(1).unwrap();
        stage.answer.send(Ok(())).unwrap();
        assert!(stage.presenter.wait_idle(LONG));
        stage.present(1).unwrap();
        assert!(stage.presenter.wait_idle(LONG));
        assert!(stage.panned.try_recv().is_err());
    }

    #[test]
    fn a_page_shown_again_after_another_is_a_pan_of_its_own() {
        let stage = stage(3);
        stage.present(1).unwrap();
        assert_eq!(stage.panned.recv(), Ok(1));
        stage.present(0).unwrap();
        stage.answer.send(Ok(())).unwrap();
        assert_eq!(stage.panned.recv(), Ok(0));
        assert!(!stage.is_free(0) && !stage.is_free(1));
        stage.answer.send(Ok(())).unwrap();
        assert!(stage.presenter.wait_idle(LONG));
        assert!(!stage.is_free(0) && stage.is_free(1));
    }

    #[test]
    fn flushing_wakes_whoever_waits_for_room() {
        let stage = stage(4);
        stage.present(1).unwrap();
        assert_eq!(stage.panned.recv(), Ok(1));
        stage.present(2).unwrap();
        std::thread::scope(|scope| {
            let (presenter, page) = (&stage.presenter, stage.pages[3].clone());
            let waiter = scope.spawn(move || presenter.present(3, page));
            stage.presenter.set_flushing(true);
            assert_eq!(waiter.join().unwrap(), Err(Refusal::Flushing));
        });
        assert!(stage.is_free(3));
        assert_eq!(stage.present(3), Err(Refusal::Flushing));
        stage.presenter.set_flushing(false);
        stage.answer.send(Ok(())).unwrap();
        stage.answer.send(Ok(())).unwrap();
        assert!(stage.presenter.wait_idle(LONG));
        assert_eq!(stage.present(3), Ok(Presented::Shown));
        stage.answer.send(Ok(())).unwrap();
    }

    #[test]
    fn a_failed_pan_is_told_once_and_frees_what_is_not_on_screen() {
        let stage = stage(3);
        stage.present(1).unwrap();
        stage.answer.send(Err("EBUSY")).unwrap();
        assert_eq!(stage.errors.recv(), Ok("EBUSY"));
        stage.presenter.wait_idle(LONG);
        assert_eq!(stage.present(2), Err(Refusal::Failed));
        while !stage.is_free(1) {
            std::thread::yield_now(); // it is released a moment after the error is reported
        }
        assert!(stage.is_free(2));
        assert!(!stage.is_free(0), "still on screen");
    }

    #[test]
    fn a_pan_that_another_program_prevents_for_a_moment_is_made_later() {
        let stage = stage(3);
        stage.present(1).unwrap();
        for _ in 0..3 {
            assert_eq!(stage.panned.recv(), Ok(1));
            stage.answer.send(Err("a moment")).unwrap();
        }
        assert_eq!(stage.panned.recv(), Ok(1));
        assert!(!stage.is_free(0) && !stage.is_free(1));
        stage.answer.send(Ok(())).unwrap();
        assert!(stage.presenter.wait_idle(LONG));
        assert!(stage.errors.try_recv().is_err());
        assert!(stage.is_free(0) && !stage.is_free(1));
    }

    #[test]
    fn away_nothing_is_panned_to_and_the_consoles_page_is_kept() {
        let stage = stage(3);
        stage.present(1).unwrap();
        stage.answer.send(Ok(())).unwrap();
        assert!(stage.presenter.wait_idle(LONG));
        assert_eq!(stage.panned.try_recv(), Ok(1));
        assert_eq!(stage.presenter.suspend(LONG), Some(1));
        assert_eq!(stage.present(2), Ok(Presented::Away));
        assert_eq!(stage.present(0), Ok(Presented::Away));
        assert!(stage.presenter.wait_idle(LONG), "nothing waits");
        assert!(stage.is_free(2) && !stage.is_free(1) && !stage.is_free(0));
        stage.presenter.resume();
        assert!(stage.is_free(0));
        assert!(stage.panned.try_recv().is_err());
        assert_eq!(stage.present(2), Ok(Presented::Shown));
        assert_eq!(stage.panned.recv(), Ok(2));
        stage.answer.send(Ok(())).unwrap();
        assert!(stage.presenter.wait_idle(LONG));
    }

    #[test]
    fn what_waits_when_the_screen_goes_is_given_back() {
        let stage = stage(4);
        stage.present(1).unwrap();
        assert_eq!(stage.panned.recv(), Ok(1));
        stage.present(2).unwrap();
        std::thread::scope(|scope| {
            let suspending = scope.spawn(|| stage.presenter.suspend(LONG));
            while !stage.is_free(2) && !suspending.is_finished() {
                std::thread::yield_now();
                if stage.presenter.is_away() {
                    let _ = stage.answer.send(Ok(()));
                }
            }
            assert_eq!(suspending.join().unwrap(), Some(1));
        });
        assert!(stage.is_free(0) && stage.is_free(2) && !stage.is_free(1));
    }

    #[test]
    fn dropping_it_gives_everything_back() {
        let Stage {
            presenter,
            pages,
            answer,
            ..
        } = stage(3);
        presenter.present(1, pages[1].clone()).unwrap();
        presenter.present(2, pages[2].clone()).unwrap();
        drop(answer); // pans return at once from now on
        drop(presenter);
        assert!(pages.iter().all(|page| Arc::strong_count(page) == 1));
    }

    #[test]
    fn the_page_on_screen_is_panned_to_again_unless_another_one_comes() {
        let stage = stage(3);
        stage.presenter.pan_again(); // to the one from before
        assert_eq!(stage.panned.recv(), Ok(0));
        stage.present(1).unwrap();
        stage.presenter.pan_again(); // the pan to 0 has not returned, 1 is pending
        stage.answer.send(Ok(())).unwrap();
        assert_eq!(stage.panned.recv(), Ok(1));
        stage.answer.send(Ok(())).unwrap();
        assert!(stage.presenter.wait_idle(LONG));
        assert!(stage.panned.try_recv().is_err());
        assert!(stage.is_free(0) && !stage.is_free(1));
    }

    #[test]
    fn one_page_needs_no_thread_and_never_waits() {
        let stage = stage(1);
        for _ in 0..3 {
            stage.present(0).unwrap();
            assert!(stage.is_free(0));
        }
        assert!(stage.panned.try_recv().is_err());
    }
}
