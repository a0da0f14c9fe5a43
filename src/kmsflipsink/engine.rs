// SPDX-License-Identifier: MPL-2.0
//! The scanout of one card: what the card's thread and the sinks on the card share, under one lock.
//!
//! Only the thread commits, and only the thread reads the card's events. Under the lock it decides its
//! next action (`action`) and notes the result (`outcome`). It makes ioctls, releases frames and calls
//! sinks without the lock (`thread`, `hotplug`). It sleeps in one poll (`event_sources`).

mod action;
mod event_sources;
mod handover;
mod hotplug;
mod outcome;
mod own_terminal;
mod slow_fences;
mod standby;
mod thread;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::claimed_plane::{ClaimedPlane, Frame, Observer, Report};
use super::crtc::{Crtc, Leftovers, ModeSet};
use super::device::{Device, PropertyBlob};
use super::discovery::Route;
use super::error::Gone;
use super::framebuffer::Framebuffer;
use super::kms_plane::OtherPlane;
use super::vacated::Vacated;
use crate::locks::{Condvar, Mutex, MutexGuard};
pub use thread::start;

/// See the module's documentation.
#[derive(Debug)]
pub struct Engine {
    pub device: Arc<Device>,
    inner: Mutex<Inner>,
    /// Notified when something changed that a sink may wait for.
    changed: Condvar,
    wake: EventFd,
}

/// Whether this process is DRM master of the card, and so may commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Master {
    Ours,
    Lost { retry_at_ns: u64 },
}

/// What the thread and the sinks share.
pub struct Inner {
    /// The CRTCs on which sinks of this process have planes.
    pub crtcs: Vec<Crtc>,
    is_running: bool,
    /// How many sinks are about to take a plane; see [`Joining`].
    n_joining: usize,
    /// Whether the thread has decided to end and is giving up the card.
    is_leaving: bool,
    master: Master,
    /// Whether another virtual terminal than that of the sinks is in the foreground, or is about to be.
    is_vt_away: bool,
    /// Whether to give the card up while `is_vt_away`: the property `follow-vt`.
    pub follows_vt: bool,
    /// Why the device can no longer be used; `None` while it can.
    pub gone: Option<Gone>,
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
    /// An engine without CRTCs, whose thread does not run.
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

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Makes the thread decide its next action anew.
    pub fn wake(&self) {
        // The write fails if the eventfd's counter is full, and then the thread will wake anyway.
        let _ = self.wake.write(1);
    }

    /// Wakes the sinks that wait in [`Self::wait`].
    pub fn notify(&self) {
        self.changed.notify_all();
    }

    /// Gives up the lock and waits for [`Self::notify`]; false if `time` ran out first.
    pub fn wait(&self, inner: &mut MutexGuard<'_, Inner>, time: Duration) -> bool {
        !self.changed.wait_for(inner, time).timed_out()
    }

    /// Whether a sink of this process has this plane.
    pub fn has_plane(&self, id: u32) -> bool {
        self.lock().has_plane(id)
    }
}

/// Keeps the thread from ending while a sink is about to take a plane. The sink makes sure that this
/// process is master of the card, and a thread that ends gives that up.
#[derive(Debug)]
pub struct Joining<'a>(&'a Engine);

impl<'a> Joining<'a> {
    /// Waits for a thread that is already ending.
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
    /// Whether the thread takes frames.
    pub fn is_alive(&self) -> bool {
        self.is_running && self.gone.is_none()
    }

    /// Whether this process is master of the card, as far as known.
    pub fn is_master(&self) -> bool {
        self.master == Master::Ours
    }

    /// Notes whether another virtual terminal is in the foreground, or is about to be.
    fn switch_vt(&mut self, is_away: bool) {
        self.is_vt_away = is_away;
        if let Master::Lost { retry_at_ns } = &mut self.master {
            *retry_at_ns = 0;
        }
    }

    /// Whether the thread can do nothing with a new frame before the commit in flight is on the screen, which wakes it.
    pub fn awaits_flip(&mut self, crtc: u32) -> bool {
        let is_flipping = |crtc: &mut Crtc| crtc.is_plugged && crtc.in_flight.is_some();
        self.is_master() && self.crtc(crtc).is_some_and(is_flipping)
    }

    pub fn crtc(&mut self, id: u32) -> Option<&mut Crtc> {
        self.crtcs.iter_mut().find(|crtc| crtc.id == id)
    }

    /// Whether a sink of this process has this plane.
    pub fn has_plane(&self, id: u32) -> bool {
        self.crtcs.iter().any(|crtc| crtc.is_claimed(id))
    }

    /// The connectors on which sinks of this process show, each with the CRTC that drives it for them.
    pub fn claimed_connectors(&self) -> Vec<(u32, u32)> {
        let of_crtc = |crtc: &Crtc| {
            let clones = crtc.clones.iter().map(|clone| clone.id);
            let all = std::iter::once(crtc.connector).chain(clones);
            all.map(|connector| (connector, crtc.id))
                .collect::<Vec<_>>()
        };
        self.crtcs.iter().flat_map(of_crtc).collect()
    }

    /// The planes that sinks of this process have for what is shown above their frames.
    pub fn layer_planes(&self) -> Vec<u32> {
        let planes = self.crtcs.iter().flat_map(|crtc| &crtc.planes);
        planes.filter_map(ClaimedPlane::layer_plane_id).collect()
    }

    /// Takes such a plane from the sink that has it, for one that needs it for its frames.
    pub fn give_up_layer_plane(&mut self, id: u32) {
        for crtc in &mut self.crtcs {
            let mut planes = crtc.planes.iter();
            let owner = planes.find(|plane| plane.layer_plane_id() == Some(id));
            if let Some(owner) = owner.map(|plane| plane.id) {
                crtc.leave_layer_plane(owner);
            }
        }
    }

    /// Whether a sink on this CRTC cannot have the plane, because a sink has it, or another CRTC may show it still.
    pub fn is_taken(&self, crtc: u32, id: u32) -> bool {
        let mut elsewhere = self.crtcs.iter().filter(|other| other.id != crtc);
        self.has_plane(id) || elsewhere.any(|other| other.uses_plane(id))
    }

    /// Has all CRTCs but one leave a plane alone, because it is going to be shown on that one. What is returned must
    /// not be dropped under the lock.
    pub fn leave_plane_to(&mut self, crtc: u32, id: u32) -> Vec<OtherPlane> {
        let elsewhere = self.crtcs.iter_mut().filter(|other| other.id != crtc);
        let left =
            elsewhere.flat_map(|other| other.others.extract_if(.., |plane| plane.state.id == id));
        left.collect()
    }

    /// Has all CRTCs leave one alone that they had switched off, because a sink is going to use it. What is returned must
    /// not be dropped under the lock.
    pub fn leave_crtc_to(&mut self, crtc: u32) -> Vec<Vacated> {
        let others = self.crtcs.iter_mut();
        let left = others.flat_map(|other| other.vacated.extract_if(.., |one| one.crtc == crtc));
        left.collect()
    }

    /// The plane of the sink with this route; `None` once the sink gave it up.
    pub fn plane(&mut self, route: &Route) -> Option<&mut ClaimedPlane> {
        self.crtc(route.crtc)?.plane_mut(route.kms_plane)
    }
}

/// What is to be done once the lock is released: dropping frames and modes, and reporting to sinks.
#[derive(Default)]
struct Outbox {
    frames: Vec<Frame>,
    /// What a setup has taken off the screen.
    leftovers: Vec<Leftovers>,
    modes: Vec<ModeSet>,
    fences: Vec<Arc<OwnedFd>>,
    /// Blobs of properties that were put back.
    blobs: Vec<Arc<PropertyBlob>>,
    /// Planes whose framebuffers are no longer shown.
    others: Vec<OtherPlane>,
    /// CRTCs that are given up, with their modes before.
    vacated: Vec<Vacated>,
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

    /// Must be called without the lock.
    fn deliver(self) {
        drop((self.frames, self.modes, self.fences));
        drop((self.leftovers, self.blobs, self.others, self.vacated));
        for (observer, report) in self.reports {
            observer.report(report);
        }
    }
}
