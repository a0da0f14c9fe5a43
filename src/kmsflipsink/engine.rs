// SPDX-License-Identifier: MPL-2.0
//! The scanout of one card: what the sinks on it and the thread that drives it
//! share, under one lock.
//!
//! The thread alone commits, and it alone reads the card's events. Under the lock
//! its next action is decided (`action`) and what came of it noted (`outcome`); the
//! ioctls, the release of frames and the calls into sinks happen between
//! (`thread`, `hotplug`). It sleeps in one poll (`event_sources`).

mod action;
mod event_sources;
mod hotplug;
mod outcome;
mod thread;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::crtc::{ClaimedPlane, Crtc, Frame, Observer, Report};
use super::device::Device;
use super::discovery::Route;
pub use thread::start;

/// The scanout of one card.
#[derive(Debug)]
pub struct Engine {
    /// What it commits to.
    pub device: Arc<Device>,
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

impl Engine {
    /// An engine at rest.
    pub fn new(device: &Arc<Device>) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            device: device.clone(),
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
        self.lock()
            .crtcs
            .iter()
            .any(|crtc| crtc.plane(id).is_some())
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

impl Inner {
    /// Whether frames handed over will be dealt with.
    pub fn is_alive(&self) -> bool {
        self.is_running && self.gone.is_none()
    }

    /// Whether commits of ours would be taken.
    pub fn is_master(&self) -> bool {
        self.master == Master::Ours
    }

    /// The CRTC by id.
    pub fn crtc(&mut self, id: u32) -> Option<&mut Crtc> {
        self.crtcs.iter_mut().find(|crtc| crtc.id == id)
    }

    /// The plane of a sink, unless it is given up.
    pub fn plane(&mut self, route: &Route) -> Option<&mut ClaimedPlane> {
        self.crtc(route.crtc)?.plane_mut(route.kms_plane)
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
            crtc.planes
                .iter()
                .map(|plane| (plane.observer.clone(), report.clone())),
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
