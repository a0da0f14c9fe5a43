// SPDX-License-Identifier: MPL-2.0
//! CRTCs that drive nothing while another CRTC has their connectors.
//!
//! The kernel refuses a CRTC that is on and drives nothing, so the commit that takes its last connector also switches that
//! CRTC off, with its planes. The end restores both.

use std::io;
use std::sync::Arc;

use drm::control::Device as _;
use drm::control::atomic::AtomicModeReq;

use super::device::{Device, PropertyBlob, crtc_handle, required};
use super::discovery::CardSnapshot;
use super::kms_plane::{Extra, OtherPlane, add_all};

/// A CRTC that is off while another one has its connectors.
#[derive(Debug)]
pub struct Vacated {
    pub crtc: u32,
    off: Vec<Extra>,
    before: Vec<Extra>,
    planes: Vec<OtherPlane>,
    /// Holds the mode of `before`.
    _mode: Option<Arc<PropertyBlob>>,
}

impl Vacated {
    fn read(device: &Arc<Device>, id: u32) -> io::Result<Self> {
        let crtc = crtc_handle(id)?;
        let props = device.props(crtc)?;
        let mode = device.get_crtc(crtc)?.mode();
        let mode = mode.map(|mode| device.mode_blob(&mode)).transpose()?;
        let [mode_id, active] = ["MODE_ID", "ACTIVE"].map(|name| required(&props, name));
        let (mode_id, active) = (mode_id?, active?);
        let object = crtc.into();
        let was_active = props.value("ACTIVE").filter(|_| mode.is_some());
        let mode_before = mode.as_ref().map_or(0, |mode| mode.id());
        Ok(Self {
            crtc: id,
            off: vec![(object, mode_id, 0), (object, active, 0)],
            before: vec![
                (object, mode_id, mode_before),
                (object, active, was_active.unwrap_or(0)),
            ],
            planes: OtherPlane::read_all(device, id, None)?,
            _mode: mode,
        })
    }
    pub fn add_off(&self, request: &mut AtomicModeReq) {
        add_all(request, &self.off);
        for plane in &self.planes {
            plane.state.add_off(request);
        }
    }

    /// Adds to the request what the CRTC showed before. Without `with_planes`, planes stay off whose framebuffers may be
    /// gone with the program that made them.
    pub fn add_before(&self, request: &mut AtomicModeReq, with_planes: bool) {
        add_all(request, &self.before);
        for plane in self.planes.iter().filter(|_| with_planes) {
            plane.state.add_before(request);
        }
    }
}

/// Finds the CRTCs that drive nothing any more when the CRTC `crtc` has the connectors `taken`, and reads what they show.
pub fn find(
    device: &Arc<Device>,
    card: &CardSnapshot,
    crtc: u32,
    taken: &[u32],
) -> io::Result<Vec<Vacated>> {
    let left = left_by(card, crtc, taken);
    left.into_iter()
        .map(|id| Vacated::read(device, id))
        .collect()
}

fn left_by(card: &CardSnapshot, crtc: u32, taken: &[u32]) -> Vec<u32> {
    let is_taken = |id: &u32| taken.contains(id);
    let driven = card
        .connectors
        .iter()
        .filter(|connector| is_taken(&connector.id));
    let mut left: Vec<u32> = driven.filter_map(|connector| connector.crtc).collect();
    left.sort_unstable();
    left.dedup();
    left.retain(|&id| {
        let mut others = card.connectors.iter().filter(|other| !is_taken(&other.id));
        id != crtc && others.all(|other| other.crtc != Some(id))
    });
    left
}

#[cfg(test)]
impl Vacated {
    /// A CRTC of a card that does not exist, with plane 30.
    pub fn blank(id: u32) -> Self {
        use drm::control;

        use super::kms_plane::{PlaneContent, PlaneState};
        let [mode, active] = [40, 41].map(|id| control::from_u32(id).unwrap());
        let object = control::from_u32(id).unwrap();
        let values = |[mode_value, active_value]: [u64; 2]| {
            vec![(object, mode, mode_value), (object, active, active_value)]
        };
        Self {
            crtc: id,
            off: values([0, 0]),
            before: values([77, 1]),
            planes: vec![OtherPlane::new(
                PlaneState::blank(30),
                PlaneContent::AsBefore,
            )],
            _mode: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmsflipsink::discovery::{Connector, Plugged};

    #[test]
    fn a_crtc_is_left_only_if_nothing_else_shows_on_it() {
        let connector = |(id, crtc)| Connector {
            id,
            name: format!("DP-{id}"),
            plugged: Plugged::Connected,
            modes: Vec::new(),
            possible_crtcs: 0b11,
            crtc,
            claimed: None,
        };
        let mut card = CardSnapshot {
            device: "/dev/dri/card0".into(),
            driver: "recorded".into(),
            bus_id: String::new(),
            unusable: None,
            connectors: [(1, Some(51)), (2, Some(52)), (3, None)]
                .map(connector)
                .into(),
            crtcs: vec![51, 52],
            kms_planes: Vec::new(),
        };
        assert_eq!(left_by(&card, 51, &[1]), [0; 0], "its own connector");
        assert_eq!(left_by(&card, 52, &[1]), [51], "a plane of another CRTC");
        assert_eq!(left_by(&card, 51, &[1, 2]), [52], "a clone");
        card.connectors[2].crtc = Some(52);
        assert_eq!(left_by(&card, 51, &[1, 2]), [0; 0]);
        assert_eq!(left_by(&card, 51, &[1, 2, 3]), [52]);
        card.connectors[1].crtc = Some(51);
        assert_eq!(left_by(&card, 51, &[1, 2]), [0; 0], "a clone already");
    }
}
