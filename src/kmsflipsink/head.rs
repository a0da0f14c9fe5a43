// SPDX-License-Identifier: MPL-2.0
//! A sink's use of its plane of a card, from claiming the plane to giving it back. `opening` finds and claims the plane,
//! `layers` a second one for what is shown above the frames, and `clones` is about further connectors. `choosing` finds
//! other planes and modes for a stream, and `tuning` sets properties.

mod choosing;
mod clones;
mod layers;
mod opening;
mod tuning;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drm::control::{AtomicCommitFlags, Device as _};

use super::claimed_plane::{ClaimedPlane, Frame};
use super::crtc::{Crtc, Setup};
use super::device::Device;
use super::discovery::{KmsPlane, Route};
use super::engine::Engine;
use super::error::{Gone, KmsError, NotPresented};
use super::framebuffer::Framebuffer;
use super::kms_plane::{Extra, PlaneState};
use super::layer::Layer;
use super::mode::ModeLine;
use super::stats::Stats;
use crate::display::area::Placement;
use crate::display::frame_log::FrameLog;
use crate::locks::MutexGuard;
use crate::sys::clock::monotonic_ns;
pub use choosing::Candidate;
pub use opening::LitElsewhere;

/// A plane that a sink has claimed, with the connector and CRTC that show it.
#[derive(Debug)]
pub struct Head {
    pub device: Arc<Device>,
    pub engine: Arc<Engine>,
    pub route: Route,
    pub connector_name: String,
    /// The planes that the sink may use, with the one that it has. Other sinks may have taken some since.
    planes: Vec<KmsPlane>,
    /// Width and height of the largest framebuffer.
    pub max_size: (u32, u32),
    pub log: Arc<FrameLog>,
    /// The serial of the newest frame.
    serial: AtomicU64,
}

#[derive(Debug)]
pub struct HeadStats {
    pub frames: Stats,
    /// Whether the driver counts vertical blanks.
    pub has_vblank: bool,
    pub mode: Option<ModeLine>,
    /// How the colours are shown; see `tune::Resolved`.
    pub colours: Option<String>,
}

#[cfg(test)]
impl Head {
    /// A head on plane 1 of a card that does not exist.
    pub fn blank(device: &Arc<Device>) -> Self {
        Self {
            device: device.clone(),
            engine: Arc::new(Engine::new(device).unwrap()),
            route: Route {
                card: 0,
                connector: 1,
                crtc: 1,
                crtc_index: 0,
                kms_plane: 1,
                kind: super::discovery::PlaneKind::Primary,
                primary: Some(1),
            },
            connector_name: String::new(),
            planes: Vec::new(),
            max_size: (4, 4),
            log: Arc::default(),
            serial: AtomicU64::new(0),
        }
    }
}

impl Head {
    /// Calls `look` with the CRTC, under the card's lock; `None` if the CRTC is given up.
    fn with_crtc<T>(&self, look: impl FnOnce(&mut Crtc) -> T) -> Option<T> {
        self.engine.lock().crtc(self.route.crtc).map(look)
    }

    /// Calls `look` with this head's plane, under the card's lock; `None` if the plane is given up.
    fn with_plane<T>(&self, look: impl FnOnce(&mut ClaimedPlane) -> T) -> Option<T> {
        self.with_crtc(|crtc| crtc.plane_mut(self.route.kms_plane).map(look))?
    }

    /// A head on the plane `to`, which takes the place of this head. `None` if another sink has claimed that plane.
    pub fn moved(&self, to: PlaneState) -> Option<Self> {
        let kind = self.planes.iter().find(|plane| plane.id == to.id)?.kind;
        let route = Route {
            kms_plane: to.id,
            kind,
            ..self.route
        };
        let mut inner = self.engine.lock();
        if let Some(crtc) = inner.crtc(route.crtc) {
            crtc.leave_layer_plane(self.route.kms_plane);
        }
        if inner.is_taken(route.crtc, to.id) {
            return None;
        }
        let left = inner.leave_plane_to(route.crtc, to.id);
        let crtc = inner.crtc(route.crtc)?;
        let to = crtc.state_before(to.id).cloned().unwrap_or(to);
        crtc.move_sink(self.route.kms_plane, to);
        drop(inner);
        drop(left);
        Some(Self {
            device: self.device.clone(),
            engine: self.engine.clone(),
            route,
            connector_name: self.connector_name.clone(),
            planes: self.planes.clone(),
            max_size: self.max_size,
            log: self.log.clone(),
            serial: AtomicU64::new(self.serial.load(Ordering::Relaxed)),
        })
    }

    /// Asks the driver by a TEST_ONLY commit whether it would show `framebuffer` in this way.
    pub fn test(
        &self,
        framebuffer: &Framebuffer,
        placement: &Placement,
        setup: Option<&Setup>,
    ) -> io::Result<()> {
        self.try_out(framebuffer, placement, None, setup, None)
    }

    /// The same with `layer` above, and with `extras` in place of the properties that the plane has.
    fn try_out(
        &self,
        framebuffer: &Framebuffer,
        placement: &Placement,
        layer: Option<&Layer>,
        setup: Option<&Setup>,
        extras: Option<&[Extra]>,
    ) -> io::Result<()> {
        // Holding these keeps the property blobs and the framebuffers alive that the request may name.
        let (request, _blobs, _framebuffers) = self
            .with_crtc(|crtc| {
                let own = self.route.kms_plane;
                let request = crtc.trial(own, framebuffer, placement, layer, setup, extras);
                (request, crtc.blobs(), crtc.framebuffers())
            })
            .ok_or(io::ErrorKind::NotFound)?;
        let flags = AtomicCommitFlags::TEST_ONLY | AtomicCommitFlags::ALLOW_MODESET;
        self.device.atomic_commit(flags, request)
    }

    /// Hands a frame over. Waits while an earlier frame is pending, and, if `until_settled`, until the kernel
    /// took or refused this one.
    pub fn present(&self, mut frame: Frame, until_settled: bool) -> Result<(), NotPresented> {
        let Some(serial) = self.next_serial(&frame) else {
            return Ok(());
        };
        frame.serial = serial;
        let framebuffer = frame.framebuffer.clone();
        let engine = &self.engine;
        let mut waiting = Some(frame);
        let mut inner = engine.lock();
        loop {
            if !inner.is_alive() {
                return Err(NotPresented::Gone(
                    inner
                        .gone
                        .clone()
                        .unwrap_or_else(|| Gone::device("its thread ended".into())),
                ));
            }
            let Some(plane) = inner.plane(&self.route) else {
                return Err(NotPresented::Flushing);
            };
            if plane.is_flushing {
                // A frame that was already handed over is shown although the plane flushes.
                return match waiting {
                    Some(_) => Err(NotPresented::Flushing),
                    None => Ok(()),
                };
            }
            if let (Some(_), Some(errno)) = (&waiting, plane.refusals.failing(monotonic_ns())) {
                return Err(NotPresented::Failing(errno));
            }
            match waiting.take() {
                Some(mut frame) => {
                    // Latency is measured from here: waiting for an earlier frame is no part of it.
                    frame.submitted_ns = monotonic_ns();
                    match plane.frames.submit(frame) {
                        Ok(()) => {
                            if !inner.awaits_flip(self.route.crtc) {
                                // The card's thread takes the lock at once.
                                MutexGuard::unlocked(&mut inner, || engine.wake());
                            }
                            match until_settled {
                                true => continue,
                                false => return Ok(()),
                            }
                        }
                        // What is pending is newer than a frame that was shown before.
                        Err(frame) if frame.repeats.is_some() => return Ok(()),
                        Err(frame) => waiting = Some(frame),
                    }
                }
                None if plane.settled_serial >= serial => {
                    return match framebuffer.verdict() {
                        Some(Err(reason)) => Err(NotPresented::Refused(reason.to_owned())),
                        _ => Ok(()),
                    };
                }
                None => {}
            }
            engine.wait(&mut inner, Duration::from_secs(1));
        }
    }

    /// The serial of a frame that is handed over; `None` if it repeats an older frame than the newest one.
    fn next_serial(&self, frame: &Frame) -> Option<u64> {
        let Some(newest) = frame.repeats else {
            return Some(self.serial.fetch_add(1, Ordering::Relaxed) + 1);
        };
        let (order, next) = (Ordering::Relaxed, newest + 1);
        let exchanged = self.serial.compare_exchange(newest, next, order, order);
        exchanged.is_ok().then_some(next)
    }

    /// The serial of the newest frame that was handed over; see [`Frame::repeats`].
    pub fn newest(&self) -> u64 {
        self.serial.load(Ordering::Relaxed)
    }

    /// Shows the frame that is on the screen once more, where it is.
    pub fn repeat(&self) -> Result<(), NotPresented> {
        let newest = self.newest();
        let again = self.with_latest(|latest| latest.map(|frame| frame.again(newest)));
        match again.flatten() {
            Some(frame) => self.present(frame, false),
            None => Ok(()),
        }
    }

    /// Puts a frame in the place of the one that was shown last, while the display is unplugged or another program has
    /// it: the display will show this one when it comes back. Returns the frame if it can be shown now.
    pub fn replace_unseen(&self, frame: Frame) -> Option<Frame> {
        let mut inner = self.engine.lock();
        let is_master = inner.is_master();
        let crtc = inner.crtc(self.route.crtc);
        let unseen =
            crtc.filter(|crtc| !(is_master && crtc.is_plugged) && crtc.in_flight.is_none());
        let Some(plane) = unseen.and_then(|crtc| crtc.plane_mut(self.route.kms_plane)) else {
            return Some(frame);
        };
        let old = plane.frames.replace_current(frame);
        drop(inner);
        drop(old);
        None
    }

    /// While flushing, the plane takes no frames, and all threads that wait for it stop waiting.
    pub fn set_flushing(&self, is_flushing: bool) {
        self.with_plane(|plane| plane.is_flushing = is_flushing);
        self.engine.notify();
    }

    pub fn is_master(&self) -> bool {
        self.engine.lock().is_master()
    }

    pub fn is_plugged(&self) -> bool {
        self.with_crtc(|crtc| crtc.is_plugged).unwrap_or(false)
    }

    /// Counts a frame as dropped, after the time for which it would have been shown. To be called while there
    /// is no stream to show it.
    pub fn drop_waiting(&self, time: Duration) -> Result<(), NotPresented> {
        let deadline = Instant::now() + time;
        let mut inner = self.engine.lock();
        loop {
            if let Some(gone) = &inner.gone {
                return Err(NotPresented::Gone(gone.clone()));
            }
            let is_master = inner.is_master();
            let Some(plane) = inner.plane(&self.route).filter(|plane| !plane.is_flushing) else {
                return Err(NotPresented::Flushing);
            };
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                *(match is_master {
                    true => &mut plane.stats.dropped.disconnected,
                    false => &mut plane.stats.dropped.no_master,
                }) += 1;
                return Ok(());
            }
            self.engine.wait(&mut inner, rest);
        }
    }

    /// Drops the pending frame, because of a flush.
    pub fn withdraw(&self) {
        let withdrawn = self.with_plane(|plane| {
            let withdrawn = plane.frames.withdraw();
            plane.stats.dropped.flushed += u64::from(withdrawn.is_some());
            withdrawn
        });
        self.engine.notify();
        drop(withdrawn);
    }

    /// Waits until the newest frame is on the screen; false if `time` ran out first.
    pub fn wait_idle(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut inner = self.engine.lock();
        loop {
            let is_alive = inner.is_alive();
            let is_busy = inner.crtc(self.route.crtc).is_some_and(|crtc| {
                let plane = crtc.plane(self.route.kms_plane);
                crtc.in_flight.is_some() || plane.is_some_and(|plane| !plane.frames.is_idle())
            });
            if !is_busy || !is_alive {
                return true;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return false;
            }
            self.engine.wait(&mut inner, rest);
        }
    }

    /// Calls `look` with the newest frame, under the card's lock; `None` if the plane is given up.
    pub fn with_latest<T>(&self, look: impl FnOnce(Option<&Frame>) -> T) -> Option<T> {
        self.with_plane(|plane| look(plane.frames.latest()))
    }

    /// The fields of `stats` about the display and the frames on it.
    pub fn stats(&self) -> Option<HeadStats> {
        self.with_crtc(|crtc| {
            let plane = crtc.plane(self.route.kms_plane)?;
            Some(HeadStats {
                frames: plane.stats.clone(),
                has_vblank: crtc.has_vblank,
                mode: crtc.mode.as_ref().map(|mode| mode.line),
                colours: plane.colours.clone(),
            })
        })?
    }

    /// Gives the plane up, and waits for that at most `LIMIT`, whatever the driver does.
    pub fn close(&self, restore: bool) {
        const LIMIT: Duration = Duration::from_millis(1800);
        let deadline = Instant::now() + LIMIT;
        let engine = &self.engine;
        let mut inner = engine.lock();
        if let Some(plane) = inner.plane(&self.route) {
            plane.is_flushing = true;
            plane.closing = Some(restore);
        }
        engine.wake();
        engine.notify();
        while inner.plane(&self.route).is_some() {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            engine.wait(&mut inner, rest);
        }
    }

    pub fn failed(&self, operation: &'static str, source: io::Error) -> KmsError {
        KmsError::Io {
            operation,
            path: self.device.path.clone(),
            source,
        }
    }
}

/// Whether the error says nothing about the frame or its properties, because another program has the card, the CRTC is
/// busy, or the device is gone.
pub fn is_about_us(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::ENODEV | libc::EBUSY)
    )
}
