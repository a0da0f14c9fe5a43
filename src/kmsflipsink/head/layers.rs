// SPDX-License-Identifier: MPL-2.0
//! The plane that a sink claims for what it shows above its frames.

use super::Head;
use crate::display::area::Placement;
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::composition;
use crate::kmsflipsink::discovery::PlaneKind;
use crate::kmsflipsink::dma_drm;
use crate::kmsflipsink::framebuffer::Framebuffer;
use crate::kmsflipsink::layer::{Layer, LayerPlane};
use crate::sys;

impl Head {
    /// Whether a plane may show layers, as far as known without asking the driver.
    pub fn may_show_layers(&self) -> bool {
        !self.layer_candidates().is_empty()
    }

    /// Whether the sink has a plane for layers. Another sink may have been given it.
    pub fn has_layer_plane(&self) -> bool {
        self.with_plane(|plane| plane.layer_plane.is_some())
            .unwrap_or(false)
    }

    /// The overlay that the sink has for layers, or else those that no sink has. On the application's card, an overlay
    /// that shows something is the application's.
    fn layer_candidates(&self) -> Vec<u32> {
        let mut inner = self.engine.lock();
        let own = inner.plane(&self.route);
        if let Some(claimed) = own.and_then(|own| own.layer_plane_id()) {
            return vec![claimed];
        }
        let free = self.planes.iter().filter(|plane| {
            plane.kind == PlaneKind::Overlay
                && plane.shows(composition::FOURCC, dma_drm::LINEAR)
                && (self.device.is_ours || plane.crtc.is_none())
                && !inner.is_taken(self.route.crtc, plane.id)
        });
        free.map(|plane| plane.id).collect()
    }

    /// Claims the first plane on which the driver shows `layer` above a frame at `placement`; `frame` is one of the
    /// same format and size. The error says in words why there is none.
    pub fn claim_layer_plane(
        &self,
        frame: &Framebuffer,
        placement: &Placement,
        layer: &Layer,
    ) -> Result<(), String> {
        let mut reasons = Vec::new();
        for id in self.layer_candidates() {
            match self.claim_if_shown(id, frame, placement, layer) {
                Ok(()) => return Ok(()),
                Err(reason) => reasons.push(reason),
            }
        }
        match reasons.is_empty() {
            true => Err("no overlay plane with alpha is free".into()),
            false => Err(reasons.join("; ")),
        }
    }

    fn claim_if_shown(
        &self,
        id: u32,
        frame: &Framebuffer,
        placement: &Placement,
        layer: &Layer,
    ) -> Result<(), String> {
        let video = self.with_plane(|plane| plane.extras.clone());
        let video = video.unwrap_or_default();
        let plane = LayerPlane::read(&self.device, id, &self.route, &video)?;
        let is_new = self.claim(plane)?;
        let tested = self.test_layer(frame, placement, layer);
        match &tested {
            Ok(()) if is_new => gst::info!(CAT, "plane {id} shows overlay compositions"),
            Err(_) if is_new => {
                self.with_crtc(|crtc| crtc.leave_layer_plane(self.route.kms_plane));
            }
            _ => {}
        }
        tested
    }

    /// Asks the driver whether it would show `layer` above a frame at `placement`.
    pub fn test_layer(
        &self,
        frame: &Framebuffer,
        placement: &Placement,
        layer: &Layer,
    ) -> Result<(), String> {
        let tested = self.try_out(frame, placement, Some(layer), None, None);
        tested.map_err(|error| format!("a plane for it: {}", sys::describe(&error)))
    }

    /// Makes `plane` that of the sink's layers. Returns whether the sink did not have it already.
    fn claim(&self, mut plane: LayerPlane) -> Result<bool, String> {
        let id = plane.state.id;
        let mut inner = self.engine.lock();
        let own = inner.plane(&self.route);
        let known = own.and_then(|own| own.layer_plane.take_if(|known| known.state.id == id));
        let is_new = known.is_none();
        if is_new && inner.is_taken(self.route.crtc, id) {
            return Err(format!("plane {id} is in use by another sink"));
        }
        let left = inner.leave_plane_to(self.route.crtc, id);
        if let Some(crtc) = inner.crtc(self.route.crtc) {
            match known {
                Some(known) => plane.keep_values_before(known.state, known.extras_saved),
                None => {
                    let state = crtc.state_before(id).cloned();
                    let state = state.unwrap_or_else(|| plane.state.clone());
                    plane.keep_values_before(state, crtc.take_extras_before(id));
                }
            }
            if let Some(own) = crtc.plane_mut(self.route.kms_plane) {
                own.layer_plane = Some(plane);
            }
        }
        drop(inner);
        drop(left);
        Ok(is_new)
    }
}
