// SPDX-License-Identifier: MPL-2.0
//! The atomic requests for a CRTC: what commits show, set up, try out, put back and switch off. No ioctl is made here.

use std::os::fd::AsRawFd;

use drm::control::atomic::AtomicModeReq;

use super::{Backdrop, CommitKind, Crtc, Extent, ModeSet, Setup};
use crate::display::area::Placement;
use crate::kmsflipsink::claimed_plane::{ClaimedPlane, Frame};
use crate::kmsflipsink::framebuffer::Framebuffer;
use crate::kmsflipsink::kms_plane::{Extra, PlaneContent, add_all};
use crate::kmsflipsink::layer::Layer;

impl Crtc {
    pub(super) fn request(&self, kind: CommitKind) -> AtomicModeReq {
        let mut request = AtomicModeReq::new();
        if kind == CommitKind::AsyncFlip {
            for plane in &self.planes {
                if let Some(frame) = plane.frames.queued() {
                    plane.state.add_flip(&mut request, frame.framebuffer.id());
                }
            }
            return request;
        }
        let is_setup = kind == CommitKind::Setup;
        if is_setup {
            self.add_setup(&mut request, self.mode.as_ref(), None);
        }
        for plane in &self.planes {
            let frame = match is_setup {
                true => plane.frames.next(),
                false => plane.frames.queued(),
            };
            if let Some(frame) = frame {
                self.add_frame(&mut request, plane, frame, is_setup);
            }
            if let Some(above) = &plane.layer_plane {
                let layer = frame.and_then(Frame::layer);
                let has_news = layer.is_some() || (frame.is_some() && plane.may_show_layer());
                if is_setup || has_news {
                    above.add(&mut request, self.id, layer);
                }
            }
            if plane.are_extras_in_flight || (is_setup && !plane.are_extras_new) {
                add_all(&mut request, &plane.extras);
            }
        }
        request
    }

    /// A request for a TEST_ONLY commit that shows `framebuffer` on the plane `id`, with `layer` above it, and keeps
    /// what the other planes show. Without `setup`, the CRTC keeps its mode and its backdrop, and without `extras` the
    /// plane its properties.
    pub fn trial(
        &self,
        id: u32,
        framebuffer: &Framebuffer,
        placement: &Placement,
        layer: Option<&Layer>,
        setup: Option<&Setup>,
        extras: Option<&[Extra]>,
    ) -> AtomicModeReq {
        let mut request = AtomicModeReq::new();
        let mode = setup.map(|setup| &setup.mode).or(self.mode.as_ref());
        self.add_setup(
            &mut request,
            mode,
            setup.and_then(|setup| setup.backdrop.as_ref()),
        );
        // Without the fences of the frames, because these may be closed before the driver is asked.
        for other in self.planes.iter().filter(|plane| plane.id != id) {
            if let Some(frame) = other.frames.next() {
                let id = frame.framebuffer.id();
                let state = &other.state;
                state.add_shown(&mut request, self.id, id, &frame.placement);
                if let Some(above) = &other.layer_plane {
                    above.add(&mut request, self.id, frame.layer());
                }
            }
        }
        if let Some(plane) = self.plane(id) {
            let state = &plane.state;
            state.add_shown(&mut request, self.id, framebuffer.id(), placement);
            if let Some(above) = &plane.layer_plane {
                above.add(&mut request, self.id, layer);
            }
            add_all(&mut request, extras.unwrap_or(&plane.extras));
        }
        request
    }

    /// Adds what a setup sets in addition to the frames. `backdrop` replaces what the primary plane shows.
    fn add_setup(
        &self,
        request: &mut AtomicModeReq,
        mode: Option<&ModeSet>,
        backdrop: Option<&Backdrop>,
    ) {
        if let Some(mode) = mode {
            request.add_raw_property(
                self.connector_object,
                self.connector_crtc_id,
                self.id.into(),
            );
            request.add_raw_property(self.object, self.mode_id, mode.blob.id());
            request.add_raw_property(self.object, self.active, 1);
            for clone in &self.clones {
                clone.add(request, self.id);
            }
            for vacated in &self.vacated {
                vacated.add_off(request);
            }
        }
        if let Some(link_status) = self.link_status {
            /// DRM_MODE_LINK_STATUS_GOOD: asks for new link training if the status was bad.
            const GOOD: u64 = 0;
            request.add_raw_property(self.connector_object, link_status, GOOD);
        }
        add_all(request, &self.resets);
        let screen = mode.map_or((0, 0), |mode| (mode.line.width, mode.line.height));
        for other in self.others.iter().filter(|other| !self.has_plane(other)) {
            let content = backdrop
                .filter(|backdrop| backdrop.plane == other.state.id)
                .map_or(&other.content, |backdrop| &backdrop.content);
            other.add_content(request, content, self.id, screen);
        }
    }

    fn add_frame(
        &self,
        request: &mut AtomicModeReq,
        plane: &ClaimedPlane,
        frame: &Frame,
        is_setup: bool,
    ) {
        let (state, id) = (&plane.state, frame.framebuffer.id());
        // The kernel checks each property of each commit.
        match !is_setup && plane.shows_at_place_of(frame) {
            true => state.add_flip(request, id),
            false => state.add_shown(request, self.id, id, &frame.placement),
        }
        if let (Some(property), Some(fence)) = (state.in_fence_fd, &frame.fence) {
            state.add(request, property, fence.as_raw_fd() as u64);
        }
    }

    /// The request that makes `planes` show again what they showed before. If these are all planes that sinks use, it
    /// restores CRTC and connector, too, and the other planes. Planes that `extent` leaves out are switched off. `blob`
    /// holds the saved mode; 0 switches the CRTC off.
    pub fn restore(&self, planes: &[u32], blob: u64, extent: Extent) -> AtomicModeReq {
        let mut request = AtomicModeReq::new();
        let is_last = self.planes.iter().all(|plane| planes.contains(&plane.id));
        let mode = self.mode.as_ref();
        let screen = mode.map_or((0, 0), |mode| (mode.line.width, mode.line.height));
        for plane in self
            .planes
            .iter()
            .filter(|plane| planes.contains(&plane.id))
        {
            for (state, before) in plane.with_values_before() {
                add_all(&mut request, before);
                if extent == Extent::NoPlanes {
                    state.add_off(&mut request);
                    continue;
                }
                let mut others = self.others.iter();
                match others.find(|other| other.state.id == state.id && !is_last) {
                    None => state.add_before(&mut request),
                    Some(other) if matches!(other.content, PlaneContent::AsBefore) => {
                        state.add_before(&mut request);
                    }
                    Some(other) => {
                        other.add_content(&mut request, &other.content, self.id, screen);
                    }
                }
            }
        }
        if is_last {
            add_all(&mut request, &self.saved.resets);
            for other in self.others.iter().filter(|other| !self.has_plane(other)) {
                match other.is_changed || !matches!(other.content, PlaneContent::AsBefore) {
                    true if extent == Extent::All => other.add_before(&mut request),
                    true => {
                        add_all(&mut request, &other.extras_before);
                        other.state.add_off(&mut request);
                    }
                    false => {}
                }
            }
            request.add_raw_property(
                self.connector_object,
                self.connector_crtc_id,
                self.saved.connector_crtc,
            );
            request.add_raw_property(self.object, self.mode_id, blob);
            request.add_raw_property(
                self.object,
                self.active,
                if blob == 0 { 0 } else { self.saved.active },
            );
            for clone in &self.clones {
                clone.add_before(&mut request);
            }
            for vacated in &self.vacated {
                vacated.add_before(&mut request, extent == Extent::All);
            }
        } else {
            // `extras_saved` may have reset properties of CRTC and connector that the remaining sinks have set.
            add_all(&mut request, &self.resets);
            for plane in self
                .planes
                .iter()
                .filter(|plane| !planes.contains(&plane.id))
            {
                let is_shared = |extra: &&Extra| !plane.state.owns(extra);
                let shared: Vec<_> = plane.extras.iter().filter(is_shared).copied().collect();
                add_all(&mut request, &shared);
            }
        }
        request
    }

    /// The request that only switches planes off, and with `with_properties` puts their properties back. If these are
    /// all planes that sinks use, it puts back those of the CRTC, too.
    pub fn switch_off(&self, planes: &[u32], with_properties: bool) -> AtomicModeReq {
        let mut request = AtomicModeReq::new();
        let is_last = self.planes.iter().all(|plane| planes.contains(&plane.id));
        if with_properties && is_last {
            add_all(&mut request, &self.saved.resets);
        }
        for plane in self
            .planes
            .iter()
            .filter(|plane| planes.contains(&plane.id))
        {
            for (state, before) in plane.with_values_before() {
                if with_properties {
                    add_all(&mut request, before);
                }
                state.add_off(&mut request);
            }
        }
        request
    }
}
