// SPDX-License-Identifier: MPL-2.0
//! Further connectors that a CRTC drives, so that their displays show the same picture: the property `clone-connectors`.
//! A connector that another CRTC drove before is taken from it; see `vacated`.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use drm::control::atomic::AtomicModeReq;
use drm::control::{self, Device as _, property};

use super::device::{Device, connector_handle, required};
use super::discovery::{CardSnapshot, Connector, Route, named};
use super::error::KmsError;
use super::mode::ModeLine;

/// The connectors that the property names, separated by commas.
pub fn names(property: Option<&str>) -> Vec<String> {
    let names = property.unwrap_or_default().split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// An encoder, as the kernel lists it.
#[derive(Debug, Clone, Copy)]
struct Encoder {
    /// A bit for the index of each CRTC.
    possible_crtcs: u32,
    /// A bit for the index of each encoder that may have the same CRTC, its own included.
    possible_clones: u32,
}

/// Which encoders stand between the CRTCs and the connectors of a card.
#[derive(Debug)]
struct Wiring {
    encoders: Vec<Encoder>,
    /// By the id of the connector, the indices of its encoders.
    of_connectors: Vec<(u32, Vec<usize>)>,
}

impl Wiring {
    fn read(device: &Device) -> io::Result<Self> {
        let resources = device.resource_handles()?;
        let known = resources.encoders();
        let encoder = |handle: &control::encoder::Handle| {
            // The crate drm does not tell the clones.
            let info = drm_ffi::mode::get_encoder(device.as_fd(), (*handle).into())?;
            Ok(Encoder {
                possible_crtcs: info.possible_crtcs,
                possible_clones: info.possible_clones,
            })
        };
        let of_connector = |handle: &control::connector::Handle| {
            let info = device.get_connector(*handle, false)?;
            let index = |encoder| known.iter().position(|known| known == encoder);
            let encoders = info.encoders().iter().filter_map(index);
            Ok((u32::from(*handle), encoders.collect()))
        };
        Ok(Self {
            encoders: known.iter().map(encoder).collect::<io::Result<_>>()?,
            of_connectors: resources
                .connectors()
                .iter()
                .map(of_connector)
                .collect::<io::Result<_>>()?,
        })
    }

    /// Whether there is an encoder of its own for each connector, so that all of these may have the CRTC at once.
    fn allows(&self, crtc_index: u32, connectors: &[u32]) -> bool {
        self.allows_with(crtc_index, connectors, &mut Vec::new())
    }

    fn allows_with(&self, crtc_index: u32, connectors: &[u32], used: &mut Vec<usize>) -> bool {
        let Some((first, rest)) = connectors.split_first() else {
            return true;
        };
        let is_clone = |a: usize, b: usize| self.encoders[a].possible_clones >> b & 1 == 1;
        let of_first = self.of_connectors.iter().find(|(id, _)| id == first);
        for &index in of_first.iter().flat_map(|(_, encoders)| encoders) {
            let fits = self.encoders[index].possible_crtcs >> crtc_index & 1 == 1
                && !used.contains(&index)
                && used
                    .iter()
                    .all(|&other| is_clone(index, other) && is_clone(other, index));
            if fits {
                used.push(index);
                if self.allows_with(crtc_index, rest, used) {
                    return true;
                }
                used.pop();
            }
        }
        false
    }
}

/// The connectors to drive by the CRTC of `route` besides its own, or in words which of them cannot be, and why.
fn choose<'a>(
    card: &'a CardSnapshot,
    route: &Route,
    wiring: &Wiring,
    names: &[String],
) -> Result<Vec<&'a Connector>, String> {
    let own = card
        .connectors
        .iter()
        .find(|connector| connector.id == route.connector);
    let own_name = own.map_or("the connector", |own| &own.name);
    let mut chosen: Vec<&Connector> = Vec::new();
    let mut together = vec![route.connector];
    for name in names {
        let Some(connector) = named(card, name) else {
            let known = card.connectors.iter().map(|known| known.name.as_str());
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(format!(
                "{} has no connector {name}, only {known}",
                card.device
            ));
        };
        if connector.id == route.connector {
            return Err(format!(
                "{name} is the connector that the sink shows on itself; set connector to another one"
            ));
        }
        if together.contains(&connector.id) {
            continue;
        }
        if !wiring.allows(route.crtc_index, &[connector.id]) {
            return Err(format!(
                "CRTC {} of {own_name} cannot drive {name} (possible_crtcs)",
                route.crtc
            ));
        }
        together.push(connector.id);
        if !wiring.allows(route.crtc_index, &together) {
            let before = chosen.iter().map(|connector| connector.name.as_str());
            let before: Vec<_> = std::iter::once(own_name).chain(before).collect();
            return Err(format!(
                "the driver {} drives {name} by no encoder that may have the same CRTC as that of {} \
                 (possible_clones)",
                card.driver,
                before.join(" and ")
            ));
        }
        chosen.push(connector);
    }
    Ok(chosen)
}

/// Finds the connectors called `names` on the card of `route`, and reads what they show.
pub fn find(
    device: &Arc<Device>,
    card: &CardSnapshot,
    route: &Route,
    names: &[String],
) -> Result<Vec<CloneConnector>, KmsError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |source| KmsError::Io {
        operation: "reading the connectors of clone-connectors",
        path: device.path.clone(),
        source,
    };
    let wiring = Wiring::read(device).map_err(failed)?;
    let chosen = choose(card, route, &wiring, names)
        .map_err(|reason| KmsError::Property(format!("clone-connectors: {reason}")))?;
    chosen
        .iter()
        .map(|connector| CloneConnector::read(device, connector))
        .collect::<io::Result<_>>()
        .map_err(failed)
}

/// A further connector of a CRTC, with what it showed before.
#[derive(Debug)]
pub struct CloneConnector {
    pub id: u32,
    pub name: String,
    object: control::RawResourceHandle,
    crtc_id: property::Handle,
    crtc_before: u64,
}

impl CloneConnector {
    fn read(device: &Device, connector: &Connector) -> io::Result<Self> {
        let handle = connector_handle(connector.id)?;
        let props = device.props(handle)?;
        Ok(Self {
            id: connector.id,
            name: connector.name.clone(),
            object: handle.into(),
            crtc_id: required(&props, "CRTC_ID")?,
            crtc_before: props.value("CRTC_ID").unwrap_or(0),
        })
    }

    /// Adds to the request of a setup that the CRTC drives the connector.
    pub fn add(&self, request: &mut AtomicModeReq, crtc: u32) {
        request.add_raw_property(self.object, self.crtc_id, crtc.into());
    }

    /// Adds to the request that the connector is driven as before.
    pub fn add_before(&self, request: &mut AtomicModeReq) {
        request.add_raw_property(self.object, self.crtc_id, self.crtc_before);
    }
}

/// The indices of those of `modes` that all other displays list too. A display that lists none takes any.
pub fn common_modes(modes: &[ModeLine], others: &[Vec<ModeLine>]) -> Vec<usize> {
    let key = |line: &ModeLine| {
        let size = (line.width, line.height);
        (size, line.refresh_mhz, line.is_interlaced)
    };
    let lists = |list: &Vec<ModeLine>, mode: &ModeLine| {
        list.is_empty() || list.iter().any(|other| key(other) == key(mode))
    };
    let modes = modes.iter().enumerate();
    let common = modes.filter(|(_, mode)| others.iter().all(|list| lists(list, mode)));
    common.map(|(index, _)| index).collect()
}

#[cfg(test)]
impl CloneConnector {
    /// The connector 9 of a card that does not exist, which CRTC `before` drove.
    pub fn blank(before: u32) -> Self {
        Self {
            id: 9,
            name: "DP-1".into(),
            object: control::from_u32(9).unwrap(),
            crtc_id: control::from_u32(42).unwrap(),
            crtc_before: before.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmsflipsink::claimed_plane::{ClaimedPlane, Frame, IgnoringObserver};
    use crate::kmsflipsink::crtc::{Crtc, Extent, ModeSet};
    use crate::kmsflipsink::discovery::{PlaneKind, Plugged};
    use crate::kmsflipsink::engine::Engine;
    use crate::kmsflipsink::framebuffer::Framebuffer;
    use crate::kmsflipsink::kms_plane::{Extra, sets};
    use crate::kmsflipsink::vacated::Vacated;

    fn connector(id: u32, name: &str, crtc: Option<u32>) -> Connector {
        Connector {
            id,
            name: name.into(),
            plugged: Plugged::Connected,
            modes: Vec::new(),
            possible_crtcs: 0b11,
            crtc,
            claimed: None,
        }
    }

    fn card() -> CardSnapshot {
        CardSnapshot {
            device: "/dev/dri/card0".into(),
            driver: "recorded".into(),
            bus_id: String::new(),
            unusable: None,
            connectors: vec![
                connector(1, "VGA-1", Some(51)),
                connector(2, "HDMI-A-1", Some(52)),
                connector(3, "DVI-D-1", None),
                connector(4, "LVDS-1", None),
            ],
            crtcs: vec![51, 52],
            kms_planes: Vec::new(),
        }
    }

    const ROUTE: Route = Route {
        card: 0,
        connector: 1,
        crtc: 51,
        crtc_index: 0,
        kms_plane: 31,
        kind: PlaneKind::Primary,
        primary: Some(31),
    };

    /// Encoders 0 and 1 may share a CRTC, encoder 2 with none. The panel (LVDS-1) has CRTC 52 alone. DVI-D-1 has the choice
    /// between the encoder of HDMI-A-1 and encoder 2.
    fn wiring() -> Wiring {
        let encoder = |possible_crtcs, possible_clones| Encoder {
            possible_crtcs,
            possible_clones,
        };
        Wiring {
            encoders: vec![
                encoder(0b11, 0b0011),
                encoder(0b11, 0b0011),
                encoder(0b11, 0b0100),
                encoder(0b10, 0b1000),
            ],
            of_connectors: vec![(1, vec![0]), (2, vec![1]), (3, vec![2, 1]), (4, vec![3])],
        }
    }

    fn chosen(property: &str) -> Result<Vec<u32>, String> {
        let card = card();
        let chosen = choose(&card, &ROUTE, &wiring(), &names(Some(property)))?;
        Ok(chosen.iter().map(|connector| connector.id).collect())
    }

    #[test]
    fn the_property_is_a_list_of_names() {
        assert_eq!(names(None), [""; 0]);
        assert_eq!(names(Some(" HDMI-A-1, ,DP-2,")), ["HDMI-A-1", "DP-2"]);
        assert_eq!(chosen(""), Ok(vec![]));
        assert_eq!(chosen("hdmi-a-1,HDMI-A-1"), Ok(vec![2]));
    }

    #[test]
    fn each_connector_needs_an_encoder_that_may_share_the_crtc() {
        assert_eq!(chosen("HDMI-A-1"), Ok(vec![2]));
        assert_eq!(chosen("DVI-D-1"), Ok(vec![3]), "by encoder 1");
        let refused = chosen("DVI-D-1, HDMI-A-1").unwrap_err();
        for part in [
            "HDMI-A-1",
            "VGA-1 and DVI-D-1",
            "recorded",
            "possible_clones",
        ] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }

    #[test]
    fn what_cannot_be_a_clone_is_named_with_the_reason() {
        for (property, parts) in [
            ("LVDS-1", ["LVDS-1", "CRTC 51", "possible_crtcs"]),
            ("DP-7", ["DP-7", "/dev/dri/card0", "DVI-D-1"]),
            ("VGA-1", ["VGA-1", "itself", "set connector"]),
        ] {
            let refused = chosen(property).unwrap_err();
            for part in parts {
                assert!(refused.contains(part), "{part}: {refused}");
            }
        }
    }

    #[test]
    fn the_mode_is_one_that_all_displays_list() {
        let line = |width, refresh_mhz| ModeLine {
            width,
            height: 480,
            refresh_mhz,
            is_preferred: width == 640,
            is_interlaced: false,
        };
        let own = [line(640, 60_000), line(800, 60_000), line(800, 75_000)];
        let other = vec![line(800, 60_000), line(1024, 60_000), line(640, 60_000)];
        assert_eq!(common_modes(&own, &[]), [0, 1, 2]);
        assert_eq!(common_modes(&own, &[other.clone(), vec![]]), [0, 1]);
        let third = vec![line(800, 60_000)];
        assert_eq!(common_modes(&own, &[other, third]), [1]);
        assert_eq!(common_modes(&own, &[vec![line(1, 1)]]), [0; 0]);
    }

    /// A CRTC with a mode and a clone, and a frame to commit.
    fn cloning() -> Crtc {
        gst::init().unwrap();
        let device = Device::blank();
        let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
        crtc.mode = Some(ModeSet::blank(&device, 1));
        crtc.clones = vec![CloneConnector::blank(52)];
        crtc.vacated = vec![Vacated::blank(52)];
        let frame = Frame::blank(&Framebuffer::blank(&device));
        crtc.planes[0].frames.submit(frame).unwrap();
        crtc
    }

    /// Connector 9, CRTC 52 and plane 30 as `blank` numbers their properties.
    fn extra(object: u32, property: u32, value: u64) -> Extra {
        let property = control::from_u32(property).unwrap();
        (control::from_u32(object).unwrap(), property, value)
    }

    #[test]
    fn a_setup_takes_the_connector_and_switches_off_what_drove_it() {
        let mut crtc = cloning();
        let request = crtc.begin_commit(0);
        assert!(crtc.is_setup_in_flight());
        let set = [
            extra(9, 42, 1),  // CRTC_ID of the connector
            extra(52, 40, 0), // MODE_ID and ACTIVE of the CRTC that is left
            extra(52, 41, 0),
            extra(30, 101, 0), // FB_ID and CRTC_ID of its plane
            extra(30, 102, 0),
        ];
        for extra in set {
            assert!(sets(&request, extra), "{extra:?} in {request:?}");
        }
        crtc.take_setup();
        crtc.in_flight = None;
        drop(crtc.planes[0].frames.shown());
        let frame = Frame::blank(&Framebuffer::blank(&Device::blank()));
        crtc.planes[0].frames.submit(frame).unwrap();
        let flip = crtc.begin_commit(1);
        assert!(!sets(&flip, set[0]), "a flip leaves connectors alone");
    }

    #[test]
    fn a_trial_asks_the_driver_for_the_clones_too() {
        let crtc = cloning();
        let framebuffer = Framebuffer::blank(&Device::blank());
        let placement = Frame::blank(&framebuffer).placement;
        let trial = crtc.trial(1, &framebuffer, &placement, None, None, None);
        assert!(sets(&trial, extra(9, 42, 1)));
    }

    #[test]
    fn the_last_sink_restores_the_clones_and_no_sink_before() {
        let mut crtc = cloning();
        let request = crtc.restore(&[1], 0, Extent::All);
        for extra in [extra(9, 42, 52), extra(52, 40, 77), extra(52, 41, 1)] {
            assert!(sets(&request, extra), "{extra:?} in {request:?}");
        }
        crtc.planes
            .push(ClaimedPlane::blank(2, Arc::new(IgnoringObserver)));
        let request = crtc.restore(&[1], 0, Extent::All);
        assert!(!sets(&request, extra(9, 42, 52)));
    }

    #[test]
    fn a_crtc_that_a_sink_takes_is_left_alone() {
        let engine = Engine::new(&Device::blank()).unwrap();
        engine.lock().crtcs.push(cloning());
        assert_eq!(engine.lock().leave_crtc_to(51).len(), 0);
        let left = engine.lock().leave_crtc_to(52);
        assert_eq!(left.len(), 1);
        let request = engine.lock().crtcs[0].begin_commit(0);
        assert!(sets(&request, extra(9, 42, 1)) && !sets(&request, extra(52, 41, 0)));
    }

    /// The kernel makes an event for each CRTC of a commit, and refuses one for a CRTC that is off and stays so.
    #[test]
    fn a_setup_that_leaves_another_crtc_off_makes_a_fence_for_its_own() {
        let mut crtc = cloning();
        crtc.begin_commit(0);
        assert!(crtc.out_fence_request().is_some());
        crtc.vacated.clear();
        assert!(crtc.out_fence_request().is_none());
    }
}
