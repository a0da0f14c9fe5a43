// SPDX-License-Identifier: MPL-2.0
//! The thread that drives a card: it alone commits, and it alone reads the
//! card's events. It sleeps in one poll, on the card, on a wake fd, on kernel
//! events and on the virtual terminal.
//!
//! Everything shared lies under one lock. Under it the next step is decided
//! and its result noted; the ioctls, the release of frames and the calls into
//! sinks happen between.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use drm::Device as _;
use drm::control::atomic::AtomicModeReq;
use drm::control::{AtomicCommitFlags, Device as _, Event};
use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::card::{self, Card};
use super::crtc::{Crtc, Frame, ModeSet, Observer, Report};
use super::mode;
use super::stats::Flip;
use crate::sys::kms::{ActiveVt, Uevents, monotonic_ns};
use crate::sys::{self};

/// A flip event that has not come after this long is not coming.
const FLIP_TIMEOUT_NS: u64 = 1_000_000_000;
/// Between two tries to become master again.
const MASTER_RETRY_NS: u64 = 250_000_000;
/// Between two tries to commit while the kernel says EBUSY.
const BUSY_RETRY_NS: u64 = 2_000_000;
/// A CRTC that is busy this long with nothing of ours stays so.
const BUSY_TIMEOUT_NS: u64 = 1_000_000_000;

/// The scanout of one card.
#[derive(Debug)]
pub struct Engine {
    inner: Mutex<Inner>,
    /// Something changed that a sink may wait for.
    changed: Condvar,
    wake: EventFd,
}

/// Who may commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Master {
    Ours,
    Lost { retry_at_ns: u64 },
}

/// What is shared between the thread and the sinks.
pub struct Inner {
    /// The CRTCs in use.
    pub crtcs: Vec<Crtc>,
    is_running: bool,
    /// Sinks that are about to take a plane; see [`Joining`].
    n_joining: usize,
    /// Whether the thread is on its way out and gives up the card.
    is_leaving: bool,
    master: Master,
    /// Whether our virtual terminal is in the background.
    is_vt_away: bool,
    /// Whether virtual terminals matter.
    pub follows_vt: bool,
    /// Why the device can no longer be used.
    pub gone: Option<String>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("crtcs", &self.crtcs.len())
            .field("master", &self.master)
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}

/// What leaves the lock: frames to release, things to tell.
#[derive(Default)]
struct Outbox {
    frames: Vec<Frame>,
    reports: Vec<(Arc<dyn Observer>, Report)>,
}

impl Outbox {
    fn tell_all(&mut self, crtc: &Crtc, report: &Report) {
        self.reports.extend(
            crtc.lanes
                .iter()
                .map(|lane| (lane.observer.clone(), report.clone())),
        );
    }

    /// To be called without the lock.
    fn deliver(self) {
        drop(self.frames);
        for (observer, report) in self.reports {
            observer.report(report);
        }
    }
}

/// Why a frame was not shown.
#[derive(Debug, Clone, Copy)]
enum Loss {
    NoMaster,
    Unplugged,
}

/// What the thread does next.
enum Step {
    Exit,
    Commit {
        crtc: u32,
        request: AtomicModeReq,
        is_setup: bool,
    },
    Restore {
        crtc: u32,
        lanes: Vec<u32>,
    },
    Close {
        crtc: u32,
        lanes: Vec<u32>,
    },
    Suspend,
    Reclaim,
    Wait {
        until_ns: u64,
    },
}

impl Engine {
    /// An engine at rest.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            inner: Mutex::new(Inner {
                crtcs: Vec::new(),
                is_running: false,
                n_joining: 0,
                is_leaving: false,
                master: Master::Ours,
                is_vt_away: false,
                follows_vt: false,
                gone: None,
            }),
            changed: Condvar::new(),
            wake: EventFd::from_value_and_flags(0, flags)?,
        })
    }

    /// Looks at or changes what is shared.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Makes the thread look again.
    pub fn wake(&self) {
        // Full or interrupted: then it is awake already.
        let _ = self.wake.write(1);
    }

    /// Makes the sinks look again.
    pub fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits, without the lock, for a change; false when `time` is over.
    pub fn wait(&self, inner: &mut MutexGuard<'_, Inner>, time: Duration) -> bool {
        !self.changed.wait_for(inner, time).timed_out()
    }

    /// Whether a sink has this plane.
    pub fn has_plane(&self, id: u32) -> bool {
        self.lock().crtcs.iter().any(|crtc| crtc.lane(id).is_some())
    }
}

/// A sink that is about to take a plane. Until it has, or gave it up, the thread
/// does not end: it would give up the card that the sink has just made sure of.
#[derive(Debug)]
pub struct Joining<'a>(&'a Engine);

impl<'a> Joining<'a> {
    /// Waits for a thread that is on its way out.
    pub fn begin(engine: &'a Engine) -> Self {
        let mut inner = engine.lock();
        while inner.is_leaving {
            engine.wait(&mut inner, Duration::from_secs(1));
        }
        inner.n_joining += 1;
        Self(engine)
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.0.lock().n_joining -= 1;
        self.0.wake();
    }
}

/// Starts the thread unless it runs.
pub fn start(card: &Arc<Card>) -> io::Result<()> {
    let mut inner = card.engine.lock();
    if !inner.is_running {
        inner.master = Master::Ours;
        inner.is_vt_away = false;
        inner.gone = None;
        let card = card.clone();
        std::thread::Builder::new()
            .name("kmsflipsink".into())
            .spawn(move || run(&card))?;
        inner.is_running = true;
    }
    Ok(())
}

impl Inner {
    /// Whether frames handed over will be dealt with.
    pub fn is_alive(&self) -> bool {
        self.is_running && self.gone.is_none()
    }

    /// The CRTC by id.
    pub fn crtc(&mut self, id: u32) -> Option<&mut Crtc> {
        self.crtcs.iter_mut().find(|crtc| crtc.id == id)
    }

    fn next_step(&mut self, now_ns: u64, outbox: &mut Outbox) -> Step {
        if self.gone.is_some() {
            return self.step_when_gone(outbox);
        }
        if self.crtcs.is_empty() {
            return match self.n_joining {
                0 => self.leave(),
                _ => Step::Wait { until_ns: u64::MAX },
            };
        }
        let mut until_ns = now_ns + 10_000_000_000;
        for crtc in &mut self.crtcs {
            if let Some(deadline_ns) = expire_flip(crtc, now_ns, outbox) {
                until_ns = until_ns.min(deadline_ns);
            }
        }
        if let Some(step) = self.step_to_close() {
            return step;
        }
        match self.master {
            Master::Ours if self.is_vt_away => return Step::Suspend,
            Master::Lost { retry_at_ns } if !self.is_vt_away => {
                if retry_at_ns <= now_ns {
                    return Step::Reclaim;
                }
                until_ns = until_ns.min(retry_at_ns);
            }
            _ => {}
        }
        let is_master = self.master == Master::Ours;
        for crtc in &mut self.crtcs {
            if !is_master || !crtc.is_plugged {
                let loss = if is_master {
                    Loss::Unplugged
                } else {
                    Loss::NoMaster
                };
                drop_pending(crtc, loss, outbox);
                continue;
            }
            match commit_time(crtc) {
                Some(at_ns) if at_ns <= now_ns => {
                    crtc.scanout.begin_commit(crtc.needs_setup);
                    crtc.in_flight = Some((now_ns, crtc.needs_setup));
                    return Step::Commit {
                        crtc: crtc.id,
                        request: crtc.request(),
                        is_setup: crtc.needs_setup,
                    };
                }
                Some(at_ns) => until_ns = until_ns.min(at_ns),
                None => {}
            }
        }
        Step::Wait { until_ns }
    }

    fn leave(&mut self) -> Step {
        (self.is_running, self.is_leaving) = (false, true);
        Step::Exit
    }

    /// Nothing can be restored; everything is released.
    fn step_when_gone(&mut self, outbox: &mut Outbox) -> Step {
        for crtc in &mut self.crtcs {
            let ids: Vec<_> = crtc
                .lanes
                .iter()
                .filter(|lane| lane.closing.is_some())
                .map(|lane| lane.id)
                .collect();
            for id in ids {
                outbox.frames.extend(crtc.scanout.remove_lane(id));
                crtc.lanes.retain(|lane| lane.id != id);
            }
            drop_pending(crtc, Loss::Unplugged, outbox);
        }
        self.crtcs.retain(|crtc| !crtc.lanes.is_empty());
        if self.crtcs.is_empty() {
            return self.leave();
        }
        Step::Wait { until_ns: u64::MAX }
    }

    fn step_to_close(&mut self) -> Option<Step> {
        for crtc in self.crtcs.iter().filter(|crtc| crtc.in_flight.is_none()) {
            let closing: Vec<_> = crtc
                .lanes
                .iter()
                .filter(|lane| lane.closing.is_some())
                .collect();
            if closing.is_empty() {
                continue;
            }
            let lanes = closing.iter().map(|lane| lane.id).collect();
            let restores = closing.iter().any(|lane| lane.closing == Some(true));
            // A CRTC that was never set up shows what it showed before.
            let is_untouched = closing
                .iter()
                .all(|lane| crtc.scanout.current(lane.id).is_none());
            return Some(
                if restores && !is_untouched && self.master == Master::Ours {
                    Step::Restore {
                        crtc: crtc.id,
                        lanes,
                    }
                } else {
                    Step::Close {
                        crtc: crtc.id,
                        lanes,
                    }
                },
            );
        }
        None
    }

    /// Takes lanes away, and the CRTC with the last of them.
    fn close(&mut self, crtc_id: u32, lanes: &[u32], outbox: &mut Outbox) -> Option<u64> {
        let crtc = self.crtc(crtc_id)?;
        for &id in lanes {
            outbox.frames.extend(crtc.scanout.remove_lane(id));
            crtc.lanes.retain(|lane| lane.id != id);
        }
        let blob = crtc
            .lanes
            .is_empty()
            .then(|| crtc.mode.map(|mode| mode.blob))
            .flatten();
        self.crtcs.retain(|crtc| !crtc.lanes.is_empty());
        blob
    }

    fn committed(
        &mut self,
        crtc_id: u32,
        result: io::Result<()>,
        now_ns: u64,
        outbox: &mut Outbox,
    ) {
        let Some(crtc) = self.crtcs.iter_mut().find(|crtc| crtc.id == crtc_id) else {
            return;
        };
        let Err(error) = result else {
            crtc.busy_since_ns = None;
            crtc.needs_setup = false;
            crtc.in_flight = crtc.in_flight.map(|(_, is_setup)| (now_ns, is_setup));
            for (id, frame) in crtc.scanout.queued() {
                frame.framebuffer.judge(Ok(()));
                if let Some(lane) = crtc.lanes.iter_mut().find(|lane| lane.id == id) {
                    lane.settled_serial = frame.serial;
                    lane.are_extras_new = false;
                }
            }
            return;
        };
        let was_setup = crtc.in_flight.take().is_some_and(|(_, is_setup)| is_setup);
        match error.raw_os_error() {
            Some(libc::EBUSY)
                if now_ns - *crtc.busy_since_ns.get_or_insert(now_ns) < BUSY_TIMEOUT_NS =>
            {
                crtc.retry_at_ns = now_ns + BUSY_RETRY_NS;
                defer(crtc, outbox);
            }
            Some(libc::EACCES | libc::EPERM) => {
                defer(crtc, outbox);
                self.lose_master(now_ns, "another program became master of the card", outbox);
            }
            Some(libc::ENODEV) => {
                defer(crtc, outbox);
                self.lose_device(&sys::describe(&error), outbox);
            }
            // Somebody may have changed the CRTC behind our back: once more,
            // with everything set up again.
            _ if !was_setup => {
                crtc.needs_setup = true;
                defer(crtc, outbox);
            }
            _ => {
                let reason = sys::describe(&error);
                let failed = crtc.scanout.commit_failed();
                crtc.busy_since_ns = None;
                if failed.is_empty() {
                    // A setup without a new frame: wait for one.
                    crtc.retry_at_ns = now_ns + MASTER_RETRY_NS;
                }
                for (id, frame) in failed {
                    // Here, and not where somebody waits for it: a flush ends that
                    // waiting, and the framebuffer is to be known as refused all the same.
                    frame.framebuffer.judge(Err(&reason));
                    if let Some(lane) = crtc.lane_mut(id) {
                        lane.settled_serial = frame.serial;
                        lane.stats.dropped.refused += 1;
                        outbox
                            .reports
                            .push((lane.observer.clone(), Report::Refused(reason.clone())));
                    }
                    outbox.frames.push(frame);
                }
            }
        }
    }

    fn lose_master(&mut self, now_ns: u64, reason: &str, outbox: &mut Outbox) {
        if self.master == Master::Ours {
            for crtc in &mut self.crtcs {
                crtc.needs_setup = true;
                outbox.tell_all(crtc, &Report::MasterLost(reason.to_owned()));
            }
        }
        self.master = Master::Lost {
            retry_at_ns: now_ns + MASTER_RETRY_NS,
        };
    }

    fn lose_device(&mut self, reason: &str, outbox: &mut Outbox) {
        if self.gone.is_none() {
            self.gone = Some(reason.to_owned());
            for crtc in &mut self.crtcs {
                crtc.in_flight = None;
                outbox.frames.extend(
                    crtc.scanout
                        .commit_failed()
                        .into_iter()
                        .map(|(_, frame)| frame),
                );
                outbox.tell_all(crtc, &Report::Gone(reason.to_owned()));
            }
        }
    }

    fn flipped(&mut self, crtc_id: u32, shown_ns: u64, sequence: u32, outbox: &mut Outbox) {
        if let Some(crtc) = self.crtc(crtc_id) {
            let sequence = (crtc.has_vblank && sequence != 0).then_some(sequence);
            finish_flip(crtc, shown_ns, sequence, outbox);
        }
    }
}

/// When the next commit of a CRTC may be made; None if there is nothing for it.
fn commit_time(crtc: &Crtc) -> Option<u64> {
    let wants = crtc.scanout.has_pending() || (crtc.needs_setup && crtc.scanout.has_current());
    if crtc.in_flight.is_some() || crtc.mode.is_none() || !wants {
        return None;
    }
    // Without a vertical blank the driver says "done" at once: the mode's own
    // period paces us.
    let paced_ns = if crtc.has_vblank {
        0
    } else {
        crtc.last_flip_ns + crtc.period_ns()
    };
    Some(paced_ns.max(crtc.retry_at_ns))
}

fn defer(crtc: &mut Crtc, outbox: &mut Outbox) {
    outbox.frames.extend(
        crtc.scanout
            .commit_deferred()
            .into_iter()
            .map(|(_, frame)| frame),
    );
}

fn drop_pending(crtc: &mut Crtc, loss: Loss, outbox: &mut Outbox) {
    for lane in &mut crtc.lanes {
        if let Some(frame) = crtc.scanout.withdraw(lane.id) {
            let dropped = &mut lane.stats.dropped;
            *(match loss {
                Loss::NoMaster => &mut dropped.no_master,
                Loss::Unplugged => &mut dropped.disconnected,
            }) += 1;
            lane.settled_serial = frame.serial;
            outbox.frames.push(frame);
        }
    }
}

/// Ends a flip whose event does not come; the time until then.
fn expire_flip(crtc: &mut Crtc, now_ns: u64, outbox: &mut Outbox) -> Option<u64> {
    let (since_ns, _) = crtc.in_flight?;
    let deadline_ns = since_ns + FLIP_TIMEOUT_NS;
    if now_ns < deadline_ns {
        return Some(deadline_ns);
    }
    for lane in &mut crtc.lanes {
        lane.stats.lost_events += 1;
    }
    finish_flip(crtc, now_ns, None, outbox);
    None
}

fn finish_flip(crtc: &mut Crtc, shown_ns: u64, sequence: Option<u32>, outbox: &mut Outbox) {
    let Some((_, is_modeset)) = crtc.in_flight.take() else {
        return;
    };
    crtc.last_flip_ns = shown_ns;
    let period_ns = crtc.period_ns();
    for flipped in crtc.scanout.flipped() {
        outbox.frames.extend(flipped.released);
        let (Some(frame), Some(lane)) = (
            crtc.scanout.current(flipped.lane),
            crtc.lanes.iter_mut().find(|lane| lane.id == flipped.lane),
        ) else {
            continue;
        };
        if !frame.is_counted {
            continue;
        }
        let late_ns = frame.due_ns.map(|due_ns| shown_ns.saturating_sub(due_ns));
        lane.stats.flipped(Flip {
            submitted_ns: frame.submitted_ns,
            shown_ns,
            sequence,
            late_ns,
            is_zero_copy: frame.is_zero_copy,
            is_modeset,
        });
        let report = Report::Shown {
            running_time: frame.running_time,
            late_ns,
            period_ns,
        };
        outbox.reports.push((lane.observer.clone(), report));
    }
}

/// Makes sure that nobody waits for a thread that is no more.
struct Farewell<'a>(&'a Card);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.engine.lock();
        inner.is_leaving = false;
        if std::thread::panicking() {
            inner.is_running = false;
        }
        drop(inner);
        self.0.engine.notify();
    }
}

fn run(card: &Arc<Card>) {
    let _farewell = Farewell(card);
    let mut senses = Senses::open();
    loop {
        let mut outbox = Outbox::default();
        let step = card.engine.lock().next_step(monotonic_ns(), &mut outbox);
        card.engine.notify();
        outbox.deliver();
        match step {
            Step::Exit => break,
            Step::Commit {
                crtc,
                request,
                is_setup,
            } => commit(card, crtc, request, is_setup),
            Step::Restore { crtc, lanes } => {
                restore(card, crtc, &lanes);
                close(card, crtc, &lanes);
            }
            Step::Close { crtc, lanes } => close(card, crtc, &lanes),
            Step::Suspend => suspend(card),
            Step::Reclaim => reclaim(card),
            Step::Wait { until_ns } => senses.wait(card, until_ns),
        }
    }
    if card.is_ours {
        // Upstream may keep dumb buffers, and so the device, open for long.
        let _ = card.release_master_lock();
    }
}

fn commit(card: &Card, crtc: u32, request: AtomicModeReq, is_setup: bool) {
    let flags = if is_setup {
        AtomicCommitFlags::ALLOW_MODESET
    } else {
        AtomicCommitFlags::NONBLOCK
    };
    let result = card.atomic_commit(AtomicCommitFlags::PAGE_FLIP_EVENT | flags, request);
    let mut outbox = Outbox::default();
    card.engine
        .lock()
        .committed(crtc, result, monotonic_ns(), &mut outbox);
    outbox.deliver();
}

fn close(card: &Card, crtc: u32, lanes: &[u32]) {
    let mut outbox = Outbox::default();
    let blob = card.engine.lock().close(crtc, lanes, &mut outbox);
    outbox.deliver();
    if let Some(blob) = blob {
        let _ = card.destroy_property_blob(blob);
    }
}

/// Puts back what the CRTC showed before, or at least takes our frames off it.
fn restore(card: &Card, crtc_id: u32, lanes: &[u32]) {
    let saved_mode = card
        .engine
        .lock()
        .crtc(crtc_id)
        .and_then(|crtc| crtc.saved_mode());
    let blob = saved_mode
        .and_then(|mode| make_blob(card, &mode).ok())
        .unwrap_or(0);
    let requests = card
        .engine
        .lock()
        .crtc(crtc_id)
        .map(|crtc| (crtc.restore(lanes, blob), crtc.switch_off(lanes)));
    if let Some((request, switch_off)) = requests {
        let result = card.atomic_commit(AtomicCommitFlags::ALLOW_MODESET, request);
        if let Err(error) = result {
            gst::debug!(
                super::CAT,
                "{}: restoring CRTC {crtc_id}: {}",
                card.path,
                sys::describe(&error)
            );
            let _ = card.atomic_commit(AtomicCommitFlags::ALLOW_MODESET, switch_off);
        }
    }
    if blob != 0 {
        let _ = card.destroy_property_blob(blob);
    }
}

/// A property blob that holds a mode.
pub fn make_blob(card: &Card, mode: &drm::control::Mode) -> io::Result<u64> {
    Ok(card.create_property_blob(mode)?.into())
}

/// Our virtual terminal left the foreground: the console, or whoever has the
/// other one, gets the screen and the card.
fn suspend(card: &Card) {
    let crtcs: Vec<(u32, Vec<u32>)> = card
        .engine
        .lock()
        .crtcs
        .iter()
        .map(|crtc| (crtc.id, crtc.lanes.iter().map(|lane| lane.id).collect()))
        .collect();
    for (crtc, lanes) in crtcs {
        restore(card, crtc, &lanes);
    }
    let _ = card.release_master_lock();
    let mut outbox = Outbox::default();
    let reason = "another virtual terminal is in the foreground";
    card.engine
        .lock()
        .lose_master(monotonic_ns(), reason, &mut outbox);
    outbox.deliver();
}

fn reclaim(card: &Card) {
    let result = if card.is_ours {
        card.acquire_master_lock()
    } else {
        Ok(())
    };
    let result = result.and_then(|()| card.check_master());
    let now_ns = monotonic_ns();
    let mut outbox = Outbox::default();
    let mut inner = card.engine.lock();
    match result {
        Ok(()) => {
            inner.master = Master::Ours;
            for crtc in &mut inner.crtcs {
                crtc.needs_setup = true;
                outbox.tell_all(crtc, &Report::MasterRegained);
            }
        }
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            inner.lose_device(&sys::describe(&error), &mut outbox);
        }
        Err(_) => {
            inner.master = Master::Lost {
                retry_at_ns: now_ns + MASTER_RETRY_NS,
            }
        }
    }
    drop(inner);
    outbox.deliver();
}

/// Asks the displays of all CRTCs in use whether they are there.
fn look_at_connectors(card: &Card) {
    let watched: Vec<(u32, u32)> = card
        .engine
        .lock()
        .crtcs
        .iter()
        .map(|crtc| (crtc.id, crtc.connector))
        .collect();
    for (crtc, connector) in watched {
        let info =
            card::connector_handle(connector).and_then(|handle| card.get_connector(handle, true));
        let mut outbox = Outbox::default();
        let stale = match info {
            Ok(info) => note_connector(card, crtc, &info, &mut outbox),
            Err(error) => {
                let mut inner = card.engine.lock();
                if error.raw_os_error() == Some(libc::ENODEV) {
                    inner.lose_device(&sys::describe(&error), &mut outbox);
                }
                None
            }
        };
        outbox.deliver();
        if let Some(blob) = stale {
            let _ = card.destroy_property_blob(blob);
        }
    }
}

fn note_connector(
    card: &Card,
    crtc_id: u32,
    info: &drm::control::connector::Info,
    outbox: &mut Outbox,
) -> Option<u64> {
    let is_plugged = info.state() != drm::control::connector::State::Disconnected;
    let lines: Vec<_> = info.modes().iter().map(card::mode_line).collect();
    let mut inner = card.engine.lock();
    let crtc = inner.crtc(crtc_id)?;
    let was_plugged = std::mem::replace(&mut crtc.is_plugged, is_plugged);
    if was_plugged && !is_plugged {
        outbox.tell_all(crtc, &Report::Unplugged);
    }
    if was_plugged || !is_plugged {
        return None;
    }
    let old = crtc.mode?;
    // The same mode again if the display has it, else a new choice.
    let index = info
        .modes()
        .iter()
        .position(|mode| *mode == old.mode)
        .or_else(|| mode::choose(&lines, crtc.wish, None, crtc.need).ok());
    let (wish, need) = (crtc.wish, crtc.need);
    drop(inner);
    let mut new = old;
    if let Some(index) = index.filter(|&index| info.modes()[index] != old.mode)
        && let Ok(blob) = make_blob(card, &info.modes()[index])
    {
        new = ModeSet {
            mode: info.modes()[index],
            line: lines[index],
            blob,
        };
    }
    let mut inner = card.engine.lock();
    let crtc = inner.crtc(crtc_id)?;
    (crtc.wish, crtc.need) = (wish, need);
    crtc.mode = Some(new);
    crtc.needs_setup = true;
    for lane in &mut crtc.lanes {
        lane.stats.set_period(new.line.period_ns());
    }
    outbox.tell_all(crtc, &Report::Plugged(new.line));
    (new.blob != old.blob).then_some(old.blob)
}

/// What the thread listens to besides the card.
struct Senses {
    uevents: Option<Uevents>,
    vt: Option<ActiveVt>,
    home: String,
}

impl Senses {
    fn open() -> Self {
        let mut vt = ActiveVt::open().ok();
        let home = vt
            .as_mut()
            .and_then(|vt| vt.name().ok())
            .unwrap_or_default();
        Self {
            uevents: Uevents::open().ok(),
            vt,
            home,
        }
    }

    fn wait(&mut self, card: &Card, until_ns: u64) {
        let is_gone = card.engine.lock().gone.is_some();
        let mut fds = vec![PollFd::new(card.engine.wake.as_fd(), PollFlags::POLLIN)];
        // A device that is gone is always "readable".
        if !is_gone {
            fds.push(PollFd::new(card.as_fd(), PollFlags::POLLIN));
            fds.extend(
                self.uevents
                    .iter()
                    .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
            );
            fds.extend(
                self.vt
                    .iter()
                    .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLPRI)),
            );
        }
        let time = Duration::from_nanos(until_ns.saturating_sub(monotonic_ns()));
        let time = nix::sys::time::TimeSpec::from_duration(time.min(Duration::from_secs(3600)));
        if nix::poll::ppoll(&mut fds, Some(time), None).is_err() {
            return;
        }
        let happened = |index: usize| {
            fds.get(index)
                .and_then(PollFd::revents)
                .is_some_and(|events| !events.is_empty())
        };
        let (woken, drm, second, third) = (happened(0), happened(1), happened(2), happened(3));
        let (uevent, vt) = if self.uevents.is_some() {
            (second, third)
        } else {
            (false, second)
        };
        drop(fds);
        if woken {
            let _ = card.engine.wake.read();
        }
        if drm {
            read_events(card);
        }
        if uevent {
            self.read_uevents(card);
        }
        if vt {
            self.read_vt(card);
        }
    }

    fn read_uevents(&self, card: &Card) {
        let mut concerns_us = false;
        while let Some(event) = self.uevents.as_ref().and_then(Uevents::next) {
            concerns_us |= event.device.is_empty() || card.path.ends_with(&event.device);
        }
        if concerns_us {
            look_at_connectors(card);
        }
    }

    fn read_vt(&mut self, card: &Card) {
        if let Some(Ok(name)) = self.vt.as_mut().map(ActiveVt::name) {
            let mut inner = card.engine.lock();
            if inner.follows_vt && card.is_ours {
                inner.is_vt_away = name != self.home;
                if let Master::Lost { retry_at_ns } = &mut inner.master {
                    *retry_at_ns = 0;
                }
            }
        }
    }
}

fn read_events(card: &Card) {
    let events = match card.receive_events() {
        Ok(events) => events,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => return,
        Err(error) => {
            let mut outbox = Outbox::default();
            card.engine
                .lock()
                .lose_device(&sys::describe(&error), &mut outbox);
            outbox.deliver();
            return;
        }
    };
    let mut outbox = Outbox::default();
    for event in events {
        if let Event::PageFlip(flip) = event {
            let shown_ns = flip.duration.as_nanos() as u64;
            card.engine
                .lock()
                .flipped(flip.crtc.into(), shown_ns, flip.frame, &mut outbox);
        }
    }
    outbox.deliver();
}

#[cfg(test)]
mod tests {
    use super::super::card::Framebuffer;
    use super::super::head::{Head, NotPresented};
    use super::super::placement::{Placement, Rect};
    use super::*;

    struct Deaf;

    impl Observer for Deaf {
        fn report(&self, _: Report) {}
    }

    /// A card whose thread the test plays, with a sink on it.
    fn stage() -> Head {
        gst::init().unwrap();
        let card = Card::blank();
        let mut inner = card.engine.lock();
        inner.crtcs.push(Crtc::blank(Arc::new(Deaf)));
        inner.is_running = true;
        drop(inner);
        Head::blank(&card)
    }

    fn frame(framebuffer: &Arc<Framebuffer>) -> Frame {
        let whole = Rect::of_size(4, 4);
        Frame {
            framebuffer: framebuffer.clone(),
            placement: Placement {
                src: whole,
                dst: whole,
            },
            fence: None,
            buffer: gst::Buffer::new(),
            due_ns: None,
            running_time: None,
            submitted_ns: 0,
            is_zero_copy: true,
            is_foreign: true,
            is_counted: true,
            serial: 0,
        }
    }

    /// Takes what is pending as for a commit, once there is something.
    fn begin_commit(head: &Head) {
        let engine = &head.card.engine;
        let mut inner = engine.lock();
        while !inner.crtcs[0].scanout.begin_commit(false) {
            engine.wait(&mut inner, Duration::from_millis(1));
        }
        inner.crtcs[0].in_flight = Some((0, true));
    }

    fn end_commit(head: &Head, errno: i32) {
        let result = match errno {
            0 => Ok(()),
            _ => Err(io::Error::from_raw_os_error(errno)),
        };
        let mut outbox = Outbox::default();
        head.card.engine.lock().committed(1, result, 1, &mut outbox);
        outbox.deliver();
        head.card.engine.notify();
    }

    #[test]
    fn a_first_commit_that_is_refused_is_told_to_who_waits_for_it() {
        let head = stage();
        let framebuffer = Framebuffer::blank(&head.card);
        let presented = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| head.present(frame(&framebuffer), true));
            begin_commit(&head);
            end_commit(&head, libc::EINVAL);
            waiting.join().unwrap()
        });
        assert!(matches!(presented, Err(NotPresented::Refused(_))));
    }

    #[test]
    fn a_first_commit_that_is_refused_after_a_flush_is_known_all_the_same() {
        let head = stage();
        let framebuffer = Framebuffer::blank(&head.card);
        let presented = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| head.present(frame(&framebuffer), true));
            begin_commit(&head);
            head.withdraw();
            head.set_flushing(true);
            waiting.join().unwrap()
        });
        assert!(presented.is_ok(), "a flush ends the waiting: {presented:?}");
        end_commit(&head, libc::EINVAL);
        assert!(matches!(framebuffer.verdict(), Some(Err(_))));
    }

    #[test]
    fn a_frame_that_was_dropped_before_its_commit_says_nothing_of_its_memory() {
        let head = stage();
        let framebuffer = Framebuffer::blank(&head.card);
        let presented = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| head.present(frame(&framebuffer), true));
            begin_commit(&head);
            end_commit(&head, libc::EACCES);
            let mut outbox = Outbox::default();
            head.card.engine.lock().next_step(2, &mut outbox);
            head.card.engine.notify();
            waiting.join().unwrap()
        });
        assert!(presented.is_ok(), "dropped and counted: {presented:?}");
        assert_eq!(framebuffer.verdict(), None);
    }

    #[test]
    fn a_commit_that_was_taken_settles_it_for_good() {
        let head = stage();
        let framebuffer = Framebuffer::blank(&head.card);
        for errno in [0, libc::EINVAL] {
            head.present(frame(&framebuffer), false).unwrap();
            begin_commit(&head);
            end_commit(&head, errno);
            let mut outbox = Outbox::default();
            head.card.engine.lock().flipped(1, 1, 1, &mut outbox);
            assert_eq!(framebuffer.verdict(), Some(Ok(())));
        }
    }
}
