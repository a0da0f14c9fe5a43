// SPDX-License-Identifier: MPL-2.0
//! Which plane a sink uses, and which mode the display gets.

use std::io;
use std::sync::Arc;

use drm::buffer::DrmFourcc;
use drm::control::Device as _;

use super::Head;
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::claimed_plane::Refusals;
use crate::kmsflipsink::crtc::{Backdrop, Crtc, ModeSet, Setup};
use crate::kmsflipsink::device::{self, Device};
use crate::kmsflipsink::discovery::{self, KmsPlane};
use crate::kmsflipsink::error::KmsError;
use crate::kmsflipsink::frame_caps::FrameCaps;
use crate::kmsflipsink::framebuffer::{FbShape, Framebuffer};
use crate::kmsflipsink::kms_plane::{PlaneContent, PlaneState};
use crate::kmsflipsink::mode::{self, FrameNeed, ModeLine, ModeRequest};
use crate::kmsflipsink::pixel_aspect;

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

impl Head {
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

    /// The modes of the connector now, as far as the kernel knows without probing. None if the connector was removed
    /// (DisplayPort MST).
    pub fn modes(&self) -> Result<Vec<(drm::control::Mode, ModeLine)>, KmsError> {
        let is_removed = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
        let info = device::connector_handle(self.route.connector)
            .and_then(|handle| self.device.get_connector(handle, false));
        let info = match info {
            Ok(info) => info,
            Err(error) if self.device.is_ours && is_removed(&error) => return Ok(Vec::new()),
            Err(source) => return Err(self.failed("reading the connector", source)),
        };
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
