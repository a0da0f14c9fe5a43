// SPDX-License-Identifier: MPL-2.0
//! A sink's use of its plane of a card, from claiming the plane to giving it back. `opening` finds and claims the plane,
//! `layers` a second one for what is shown above the frames, and `clones` is about further connectors.

mod clones;
mod layers;
mod opening;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drm::buffer::DrmFourcc;
use drm::control::{AtomicCommitFlags, Device as _};

use super::CAT;
use super::balance::Controls;
use super::claimed_plane::{ClaimedPlane, Frame, Pace, Refusals};
use super::colour::Decides;
use super::crtc::{Backdrop, Crtc, ModeSet, Setup};
use super::device::{self, Device};
use super::discovery::{self, KmsPlane, Route};
use super::engine::Engine;
use super::error::{Gone, KmsError, NotPresented};
use super::frame_caps::FrameCaps;
use super::framebuffer::{FbShape, Framebuffer};
use super::kms_plane::{Extra, PlaneContent, PlaneState};
use super::layer::Layer;
use super::mode::{self, FrameNeed, ModeLine, ModeRequest};
use super::pixel_aspect;
use super::stats::Stats;
use super::tune::Resolved;
use crate::display::area::Placement;
use crate::display::frame_log::FrameLog;
use crate::sys;
use crate::sys::clock::monotonic_ns;

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

/// A setup that may be tried.
#[derive(Debug)]
pub struct Candidate {
    pub mode: ModeSet,
    /// Whether the user made the mode, so that the display may not list it.
    pub is_custom: bool,
    behind: Behind,
}

/// What the primary plane may show behind the sink's plane.
#[derive(Debug, Clone, Copy)]
enum Behind {
    /// Whatever it shows.
    Unchanged,
    AsBefore,
    Off,
    /// A black picture, which is made only when it is needed.
    Black,
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
                kind: discovery::PlaneKind::Primary,
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

    /// The planes that the sink has or may go to, its own first.
    pub fn usable_planes(&self) -> Vec<&KmsPlane> {
        let mut inner = self.engine.lock();
        // The sink gives up the plane above its frames if the frames need it.
        let own = inner.plane(&self.route);
        let above = own.and_then(|own| own.layer_plane_id());
        let is_taken = |id| Some(id) != above && inner.is_taken(self.route.crtc, id);
        let is_own = |plane: &&KmsPlane| plane.id == self.route.kms_plane;
        let others = self.planes.iter();
        let others = others.filter(|plane| !is_own(plane) && !is_taken(plane.id));
        self.planes.iter().filter(is_own).chain(others).collect()
    }

    /// The plane that the sink has.
    pub fn own_plane(&self) -> Option<&KmsPlane> {
        let own = self.route.kms_plane;
        self.planes.iter().find(|plane| plane.id == own)
    }

    /// The plane that frames of `caps` need, if that is another one than the sink has.
    pub fn plane_needed(&self, caps: &FrameCaps) -> Result<Option<PlaneState>, KmsError> {
        let own = self.route.kms_plane;
        let planes: Vec<_> = self.usable_planes().into_iter().cloned().collect();
        let shows = |plane: &KmsPlane| caps.fourcc_on(plane).is_some();
        match discovery::plane_for(&planes, own, shows).map(|plane| plane.id) {
            Some(id) if id == own => Ok(None),
            Some(id) => PlaneState::read(&self.device, id)
                .map(Some)
                .map_err(|source| self.failed("reading the plane", source)),
            None => Err(self.shows_not(caps)),
        }
    }

    /// The error that no plane is free that shows such frames.
    pub fn shows_not(&self, caps: &FrameCaps) -> KmsError {
        KmsError::NoPlane {
            path: self.device.path.clone(),
            connector: self.connector_name.clone(),
            format: caps.format_name(),
        }
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

    /// The modes of the connector now, as far as the kernel knows without probing.
    pub fn modes(&self) -> Result<Vec<(drm::control::Mode, ModeLine)>, KmsError> {
        let info = device::connector_handle(self.route.connector)
            .and_then(|handle| self.device.get_connector(handle, false))
            .map_err(|source| self.failed("reading the connector", source))?;
        Ok(info
            .modes()
            .iter()
            .map(|mode| (*mode, device::mode_line(mode)))
            .collect())
    }

    /// The setups to try for frames of `need`, best first: in each mode, each backdrop.
    pub fn candidates(
        &self,
        request: ModeRequest,
        request_text: &str,
        need: FrameNeed,
    ) -> Result<Vec<Candidate>, KmsError> {
        let modes = self.modes_to_try(request, request_text, need)?;
        let behind: &[Behind] = match self.free_primary() {
            // An application that passed its card to the sink may want to keep what its primary plane shows.
            Some(_) if !self.device.is_ours => &[Behind::AsBefore, Behind::Black],
            Some(_) => &[Behind::Off, Behind::Black],
            None => &[Behind::Unchanged],
        };
        let candidates = modes.into_iter().flat_map(|mode| {
            let in_mode = move |&behind| Candidate {
                mode: mode.clone(),
                is_custom: matches!(request, ModeRequest::Custom(_)),
                behind,
            };
            behind.iter().map(in_mode)
        });
        Ok(candidates.collect())
    }

    /// The primary plane of the CRTC, if it shows behind the sink's plane. It is left as it is if a sink uses it, or if
    /// the user chose the sink's plane (`plane-id`).
    fn free_primary(&self) -> Option<&KmsPlane> {
        let own = self.route.kms_plane;
        let is_free = |id: &u32| *id != own && !self.engine.has_plane(*id);
        let plane = self.route.primary.filter(is_free)?;
        self.planes.iter().find(|known| known.id == plane)
    }

    /// The setup that a candidate stands for; `None` if it needs a black picture, and there is none. The black picture
    /// that the screen shows already is used again.
    pub fn setup_of(&self, candidate: &Candidate) -> Option<Setup> {
        let mode = candidate.mode.clone();
        let size = (mode.line.width, mode.line.height);
        // Another sink may have taken the primary plane meanwhile.
        let primary = self.free_primary();
        let content = match (candidate.behind, primary) {
            (Behind::Unchanged, _) | (_, None) => None,
            (Behind::AsBefore, _) => Some(PlaneContent::AsBefore),
            (Behind::Off, _) => Some(PlaneContent::Off),
            (Behind::Black, Some(plane)) => Some(PlaneContent::Black(self.black(plane, size)?)),
        };
        let of_plane = |(plane, content): (&KmsPlane, _)| Backdrop {
            plane: plane.id,
            content,
        };
        let backdrop = primary.zip(content).map(of_plane);
        Some(Setup { mode, backdrop })
    }

    fn black(&self, plane: &KmsPlane, screen: (u32, u32)) -> Option<Arc<Framebuffer>> {
        let known = self.with_crtc(|crtc| crtc.black_on(plane.id, screen));
        if let Some(known) = known.flatten() {
            return Some(known);
        }
        match black_framebuffer(&self.device, plane, screen) {
            Ok(framebuffer) => Some(Arc::new(framebuffer)),
            Err(error) => {
                gst::debug!(CAT, "no black picture for plane {}: {error}", plane.id);
                None
            }
        }
    }

    /// The modes to try for frames of `need`, best first: the one that `mode::choose` takes, and the one that
    /// it takes if it need not keep the current mode. If another sink shows on the CRTC, only its mode.
    fn modes_to_try(
        &self,
        request: ModeRequest,
        request_text: &str,
        need: FrameNeed,
    ) -> Result<Vec<ModeSet>, KmsError> {
        if let Some(mode) = self.shared_mode() {
            return Ok(vec![mode]);
        }
        let modes = self.modes()?;
        if let ModeRequest::Custom(timing) = request
            && !modes.is_empty()
        {
            let mode = device::mode_of(&timing);
            return Ok(vec![self.mode_set(mode)?]);
        }
        let modes = self.common_modes(modes)?;
        let lines: Vec<_> = modes.iter().map(|&(_, line)| line).collect();
        let current = self
            .current_mode()
            .and_then(|now| modes.iter().position(|(mode, _)| *mode == now));
        let choose = |current| {
            mode::choose(&lines, request, current, Some(need)).map_err(|source| KmsError::NoMode {
                request: request_text.to_owned(),
                connector: self.connector_name.clone(),
                source,
            })
        };
        let mut indices = vec![choose(current)?];
        let fresh = choose(None)?;
        if fresh != indices[0] {
            indices.push(fresh);
        }
        indices
            .into_iter()
            .map(|index| self.mode_set(modes[index].0))
            .collect()
    }

    fn mode_set(&self, mode: drm::control::Mode) -> Result<ModeSet, KmsError> {
        let blob = self
            .device
            .mode_blob(&mode)
            .map_err(|source| self.failed("describing a mode", source))?;
        let line = device::mode_line(&mode);
        Ok(ModeSet { mode, line, blob })
    }

    /// Width and height of the mode that commits set; `None` before there is one.
    pub fn screen(&self) -> Option<(u32, u32)> {
        let mode = self.with_crtc(|crtc| crtc.mode.as_ref().map(|mode| mode.line));
        mode.flatten().map(|line| (line.width, line.height))
    }

    /// Width to height of a pixel on the display, in a mode of this size.
    pub fn pixel_aspect(&self, screen: (u32, u32)) -> (u32, u32) {
        let size_mm = |crtc: &mut Crtc| crtc.display.as_ref().and_then(|display| display.size_mm);
        pixel_aspect::of_screen(screen, self.with_crtc(size_mm).flatten())
    }

    /// The mode of the CRTC, if another sink shows on it too.
    fn shared_mode(&self) -> Option<ModeSet> {
        self.with_crtc(|crtc| {
            let mode = crtc.mode.clone();
            mode.filter(|_| crtc.is_shared(self.route.kms_plane))
        })?
    }

    fn current_mode(&self) -> Option<drm::control::Mode> {
        self.with_crtc(|crtc| {
            let mode = crtc.mode.as_ref();
            mode.map(|mode| mode.mode).or(crtc.saved_mode())
        })?
    }

    /// Drives the connector in the mode of `new` from the next frame on. Changes nothing and returns false if
    /// another sink shows on the CRTC in another mode: that sink, or the card's thread when a display was
    /// plugged in, set its mode after [`Self::candidates`] was called.
    #[must_use]
    pub fn set_up(&self, new: &Setup, request: ModeRequest, need: FrameNeed) -> bool {
        let Setup {
            mode: new,
            backdrop,
        } = new;
        let (is_set, old) = self
            .with_crtc(|crtc| {
                let is_changed = |old: &ModeSet| old.mode != new.mode;
                let is_other = crtc.mode.as_ref().is_none_or(is_changed);
                if is_other && crtc.mode.is_some() && crtc.is_shared(self.route.kms_plane) {
                    return (false, None);
                }
                (crtc.mode_request, crtc.need) = (request, Some(need));
                if let Some(backdrop) = backdrop {
                    crtc.set_backdrop(backdrop.clone());
                }
                crtc.needs_setup |= is_other;
                for plane in &mut crtc.planes {
                    plane.stats.set_period(new.line.period_ns());
                }
                // What was refused was planned otherwise.
                if let Some(plane) = crtc.plane_mut(self.route.kms_plane) {
                    plane.refusals = Refusals::default();
                }
                (true, crtc.mode.replace(new.clone()))
            })
            .unwrap_or((true, None));
        // This may destroy a property blob by an ioctl, and is therefore done without the lock.
        drop(old);
        is_set
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
                                engine.wake();
                            }
                            if !until_settled {
                                return Ok(());
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

    /// Who decides on the colours of the connector.
    pub fn decides(&self) -> Decides {
        let first = self.with_crtc(|crtc| crtc.planes.first().map(|plane| plane.id));
        match first.flatten() == Some(self.route.kms_plane) {
            true => Decides::ThisSink,
            false => Decides::OtherSink,
        }
    }

    /// Sets properties with the next commit; see [`ClaimedPlane::set_extras`].
    pub fn tune(&self, resolved: Resolved) {
        let Resolved {
            extras,
            before,
            blobs,
            controls,
            colours,
            variable_refresh,
            is_off_colour,
        } = resolved;
        let tuned = self.with_plane(|plane| {
            plane.controls = controls;
            plane.pace.is_variable = variable_refresh.is_some_and(|result| result.is_ok());
            let left = plane.set_extras(extras, before, blobs);
            let is_news = std::mem::replace(&mut plane.colours, colours.clone()) != colours;
            (is_news, left)
        });
        if let (Some((true, _)), Some(colours)) = (tuned, colours) {
            match is_off_colour {
                true => gst::info!(CAT, "colours may be shown wrong: {colours}"),
                false => gst::debug!(CAT, "colours: {colours}"),
            }
        }
    }

    /// What GstColorBalance can set on the display.
    pub fn controls(&self) -> Controls {
        self.with_plane(|plane| plane.controls).unwrap_or_default()
    }

    /// Lets frames replace one another at once from the next commit on. Otherwise says why they cannot.
    pub fn allow_tearing(&self, may_tear: bool) -> Result<(), &'static str> {
        let makes_fences = self.with_crtc(|crtc| crtc.makes_fences()) == Some(true);
        let obstacle = match (self.device.can_flip_async, makes_fences) {
            (false, _) => Some("the driver has no such flips by atomic commits"),
            (true, true) => Some("commits to a card that the application opened make fences"),
            (true, false) => None,
        };
        let obstacle = obstacle.filter(|_| may_tear);
        self.with_plane(|plane| plane.pace.may_tear = may_tear && obstacle.is_none());
        obstacle.map_or(Ok(()), Err)
    }

    /// Has the display switched off when no new frame has come for this time; 0 stands for never.
    pub fn set_standby(&self, wait: Duration) {
        let wait_ns = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.with_crtc(|crtc| {
            if let Some(plane) = crtc.plane_mut(self.route.kms_plane) {
                plane.standby_ns = wait_ns;
            }
            crtc.wake_if_unwanted();
        });
        self.engine.wake();
    }

    /// Whether the display waits with its vertical blank for frames.
    pub fn has_variable_refresh(&self) -> bool {
        self.with_plane(|plane| plane.pace.is_variable)
            .unwrap_or(false)
    }

    /// The time in which a frame that is committed comes onto the screen; `None` before a mode is chosen.
    pub fn display_delay(&self) -> Option<Duration> {
        let delay_ns = self.with_crtc(|crtc| {
            let plane = crtc.plane(self.route.kms_plane)?;
            let mode = crtc.mode.as_ref()?;
            Some(display_delay_ns(plane.pace, mode.line.period_ns()))
        });
        delay_ns.flatten().map(Duration::from_nanos)
    }

    /// Sets other properties with the next commit, if the driver would show the newest frame with them (TEST_ONLY), or
    /// `stand_in` before there is a frame. Otherwise the properties stay as they are.
    pub fn retune(
        &self,
        resolved: Resolved,
        stand_in: Option<(&Framebuffer, Placement)>,
    ) -> Result<(), KmsError> {
        let newest = self.with_plane(|plane| {
            let frame = plane.frames.latest();
            let frame = frame.map(|frame| (frame.framebuffer.clone(), frame.placement));
            (frame, plane.with_restored(resolved.extras.clone()))
        });
        let Some((frame, extras)) = newest else {
            return Ok(());
        };
        let shown = frame
            .as_ref()
            .map(|(framebuffer, placement)| (&**framebuffer, *placement))
            .or(stand_in);
        if let Some((framebuffer, placement)) = shown
            && let Err(source) = self.try_out(framebuffer, &placement, None, None, Some(&extras))
            && !is_about_us(&source)
        {
            let (path, errno) = (&self.device.path, sys::describe(&source));
            return Err(KmsError::Property(format!("{path} refuses them: {errno}")));
        }
        self.tune(resolved);
        Ok(())
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

/// A frame waits for the next vertical blank, which comes within one period, unless the display waits for the frame or
/// the frame may tear.
fn display_delay_ns(pace: Pace, period_ns: u64) -> u64 {
    match pace == Pace::default() {
        true => period_ns,
        false => 0,
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

/// A framebuffer over a dumb buffer, which the kernel fills with zeros. It is transparent if the plane has a format
/// with alpha, because some primary planes lie above the plane that shows the video (zynqmp_dpsub), else black.
fn black_framebuffer(
    device: &Arc<Device>,
    plane: &KmsPlane,
    (width, height): (u32, u32),
) -> io::Result<Framebuffer> {
    const BITS: [(DrmFourcc, u32); 10] = [
        (DrmFourcc::Argb8888, 32),
        (DrmFourcc::Abgr8888, 32),
        (DrmFourcc::Rgba8888, 32),
        (DrmFourcc::Bgra8888, 32),
        (DrmFourcc::Xrgb8888, 32),
        (DrmFourcc::Xbgr8888, 32),
        (DrmFourcc::Rgb888, 24),
        (DrmFourcc::Bgr888, 24),
        (DrmFourcc::Rgb565, 16),
        (DrmFourcc::Bgr565, 16),
    ];
    let known = |&&(fourcc, _): &&(DrmFourcc, u32)| plane.fourccs.contains(&(fourcc as u32));
    let &(fourcc, bits) = BITS.iter().find(known).ok_or(io::ErrorKind::Unsupported)?;
    let dumb = device.create_dumb(width, height, bits)?;
    dumb.framebuffer(&FbShape {
        width,
        height,
        fourcc: fourcc as u32,
        modifier: None,
        n_planes: 1,
        pitches: [dumb.pitch(), 0, 0, 0],
        offsets: [0; 4],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_waits_for_the_vertical_blank_unless_that_waits_for_the_frame() {
        let pace = |may_tear, is_variable| Pace {
            may_tear,
            is_variable,
        };
        let delay_ns = |pace| display_delay_ns(pace, 20);
        assert_eq!(delay_ns(pace(false, false)), 20);
        assert_eq!(delay_ns(pace(true, false)), 0);
        assert_eq!(delay_ns(pace(false, true)), 0);
    }
}
