// SPDX-License-Identifier: MPL-2.0
//! Chooses card, connector, CRTC and plane by what the user asked for. Pure; `card` takes the snapshots of the
//! cards.

use std::fmt;

use super::format;
use super::mode::{self, ModeLine};

/// Whether a display is plugged into a connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugged {
    Connected,
    Disconnected,
    /// The driver cannot tell.
    Unknown,
}

impl fmt::Display for Plugged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Unknown => "in unknown state",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connector {
    /// The DRM object id.
    pub id: u32,
    /// The kernel's name, such as HDMI-A-1.
    pub name: String,
    pub plugged: Plugged,
    pub modes: Vec<ModeLine>,
    /// The CRTCs that can drive the connector, a bit for each index.
    pub possible_crtcs: u32,
    /// The id of the CRTC that drives the connector now.
    pub crtc: Option<u32>,
}

/// The KMS plane property "type".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaneKind {
    Primary,
    Overlay,
    Cursor,
}

/// A hardware plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsPlane {
    /// The DRM object id.
    pub id: u32,
    pub kind: PlaneKind,
    /// The CRTCs that can show the plane, a bit for each index.
    pub possible_crtcs: u32,
    pub fourccs: Vec<u32>,
    /// The pairs of fourcc and modifier; empty if the driver does not say.
    pub in_formats: Vec<(u32, u64)>,
    /// The id of the CRTC that shows the plane now.
    pub crtc: Option<u32>,
    /// Whether a sink of this process has the plane already.
    pub is_taken: bool,
}

impl KmsPlane {
    /// Whether the plane shows the format. Without a modifier, the driver chooses one that it knows.
    pub fn shows(&self, fourcc: u32, modifier: Option<u64>) -> bool {
        match modifier {
            Some(modifier) if !self.in_formats.is_empty() => {
                self.in_formats.contains(&(fourcc, modifier))
            }
            _ => self.fourccs.contains(&fourcc),
        }
    }
}

/// A card and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardSnapshot {
    /// The device node, such as /dev/dri/card0.
    pub device: String,
    /// The name that the driver gives to DRM.
    pub driver: String,
    /// The bus and address, such as pci:0000:00:02.0.
    pub bus_id: String,
    /// Why the card cannot be used, such as no atomic modesetting or no permission; `None` if it can.
    pub unusable: Option<String>,
    /// The connectors, without those for writeback.
    pub connectors: Vec<Connector>,
    /// The ids of the CRTCs, by index.
    pub crtcs: Vec<u32>,
    pub kms_planes: Vec<KmsPlane>,
}

/// What the user asked for. `None` allows anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Criteria {
    pub driver_name: Option<String>,
    /// The bus address, with or without the bus before it ("pci:").
    pub bus_id: Option<String>,
    /// The device node.
    pub device: Option<String>,
    pub connector_id: Option<u32>,
    pub connector: Option<String>,
    pub plane_id: Option<u32>,
}

/// What was chosen. Connector, CRTC and plane are DRM object ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Index into the snapshots.
    pub card: usize,
    pub connector: u32,
    pub crtc: u32,
    /// The CRTC's index among those of the card.
    pub crtc_index: u32,
    pub kms_plane: u32,
    pub kind: PlaneKind,
    /// The primary plane of the CRTC.
    pub primary: Option<u32>,
}

/// No plane meets the criteria.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{reason}. There is: {listing}")]
pub struct NoRoute {
    pub reason: String,
    /// The cards with their connectors, modes and planes.
    pub listing: String,
}

/// Chooses among the routes that meet the criteria by `Rank`, and among equals the first. A plane that a sink of
/// this process uses is never chosen.
pub fn choose(cards: &[CardSnapshot], criteria: &Criteria) -> Result<Route, NoRoute> {
    let wanted = || {
        cards
            .iter()
            .enumerate()
            .filter(|(_, card)| is_wanted_card(card, criteria))
            .flat_map(|(index, card)| card.connectors.iter().map(move |one| (index, card, one)))
            .filter(|(_, _, connector)| is_wanted_connector(connector, criteria))
    };
    // Without any display, the sink takes an empty connector and waits for a display. But if there are
    // displays and none has a plane left, the sink must not end up on an empty connector.
    let is_any_plugged = wanted().any(|(.., connector)| connector.plugged != Plugged::Disconnected);
    let mut best: Option<(Rank, Route)> = None;
    for (index, card, connector) in wanted() {
        if is_any_plugged && connector.plugged == Plugged::Disconnected {
            continue;
        }
        for (rank, route) in routes(index, card, connector, criteria) {
            if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                best = Some((rank, route));
            }
        }
    }
    best.map(|(_, route)| route).ok_or_else(|| NoRoute {
        reason: explain(cards, criteria),
        listing: listing(cards),
    })
}

/// Whether the chosen connector may have a display, and has modes.
pub fn is_lit(cards: &[CardSnapshot], route: &Route) -> bool {
    cards.get(route.card).is_some_and(|card| {
        card.connectors.iter().any(|connector| {
            connector.id == route.connector
                && connector.plugged != Plugged::Disconnected
                && !connector.modes.is_empty()
        })
    })
}

/// How bad a choice is: without a display, without a known state, without modes, not a primary plane. The
/// smallest rank is the best.
type Rank = (bool, bool, bool, bool);

fn routes(
    card_index: usize,
    card: &CardSnapshot,
    connector: &Connector,
    criteria: &Criteria,
) -> Vec<(Rank, Route)> {
    let Some((crtc_index, crtc)) = crtc_for(card, connector, criteria) else {
        return Vec::new();
    };
    let primary = primaries(card)[crtc_index as usize];
    let primary = primary.map(|index| card.kms_planes[index].id);
    let planes: Vec<&KmsPlane> = match criteria.plane_id {
        Some(id) => card
            .kms_planes
            .iter()
            .filter(|plane| plane.id == id && can_show(plane, crtc_index as usize))
            .collect(),
        None => usable_planes(card, crtc_index).collect(),
    };
    planes
        .into_iter()
        .filter(|plane| !plane.is_taken)
        .map(|plane| {
            let rank = (
                connector.plugged == Plugged::Disconnected,
                connector.plugged == Plugged::Unknown,
                connector.modes.is_empty(),
                plane.kind != PlaneKind::Primary,
            );
            let route = Route {
                card: card_index,
                connector: connector.id,
                crtc,
                crtc_index,
                kms_plane: plane.id,
                kind: plane.kind,
                primary,
            };
            (rank, route)
        })
        .collect()
}

/// Whether the CRTC with this index can show the plane.
fn can_show(plane: &KmsPlane, crtc_index: usize) -> bool {
    plane.possible_crtcs >> crtc_index & 1 == 1
}

/// The planes that a sink on this CRTC may use, in the order of their ids: the CRTC's own primary plane and
/// overlays. Another sink may have one of them now and leave it later. The kernel moves no plane from a CRTC that shows
/// it to another.
pub fn usable_planes(card: &CardSnapshot, crtc_index: u32) -> impl Iterator<Item = &KmsPlane> {
    let index = crtc_index as usize;
    let primary = primaries(card)[index];
    let crtc = card.crtcs[index];
    card.kms_planes
        .iter()
        .enumerate()
        .filter(move |&(at, plane)| match plane.kind {
            PlaneKind::Primary => primary == Some(at),
            PlaneKind::Overlay => can_show(plane, index),
            PlaneKind::Cursor => false,
        })
        .map(|(_, plane)| plane)
        .filter(move |plane| plane.crtc.is_none_or(|now| now == crtc))
}

/// The plane for frames of a format, among `planes`. The sink keeps its plane `own` if that shows the format, because a
/// move to another plane needs a modeset. Otherwise the primary plane comes before overlays.
pub fn plane_for(
    planes: &[KmsPlane],
    own: u32,
    fourcc: u32,
    modifier: Option<u64>,
) -> Option<&KmsPlane> {
    planes
        .iter()
        .filter(|plane| plane.shows(fourcc, modifier))
        .min_by_key(|plane| (plane.id != own, plane.kind != PlaneKind::Primary))
}

/// The primary plane of each CRTC, by index. A driver may let every CRTC show every primary plane (tidss). Then the
/// Nth plane belongs to the Nth CRTC, as in the drivers themselves, unless a plane shows on another CRTC already. A
/// plane that only one CRTC can show stays with that CRTC.
fn primaries(card: &CardSnapshot) -> Vec<Option<usize>> {
    let mut of_crtc: Vec<Option<usize>> = vec![None; card.crtcs.len()];
    for crtc in 0..card.crtcs.len() {
        let mut is_tried = vec![false; card.kms_planes.len()];
        assign_primary(card, crtc, &mut of_crtc, &mut is_tried);
    }
    of_crtc
}

/// Finds a primary plane for a CRTC. If another CRTC had that plane, finds a new one for that CRTC (augmenting paths of
/// a bipartite matching).
fn assign_primary(
    card: &CardSnapshot,
    crtc: usize,
    of_crtc: &mut Vec<Option<usize>>,
    is_tried: &mut Vec<bool>,
) -> bool {
    let is_possible = |plane: &KmsPlane| {
        let is_free = plane.crtc.is_none_or(|now| now == card.crtcs[crtc]);
        plane.kind == PlaneKind::Primary && can_show(plane, crtc) && is_free
    };
    let owner = |of_crtc: &[Option<usize>], index: usize| {
        of_crtc.iter().position(|&owned| owned == Some(index))
    };
    let planes = card.kms_planes.iter().enumerate();
    let possible = planes.filter(|&(_, plane)| is_possible(plane));
    let mut possible: Vec<_> = possible.map(|(index, _)| index).collect();
    // Planes that no CRTC has yet come first, so that another CRTC changes its plane only if none is left.
    possible.sort_by_key(|&index| owner(of_crtc, index).is_some());
    for index in possible {
        if std::mem::replace(&mut is_tried[index], true) {
            continue;
        }
        let owner = owner(of_crtc, index);
        if owner.is_none_or(|owner| assign_primary(card, owner, of_crtc, is_tried)) {
            of_crtc[crtc] = Some(index);
            return true;
        }
    }
    false
}

/// Index and id of the CRTC that drives the connector, or else of one that drives no connector.
fn crtc_for(card: &CardSnapshot, connector: &Connector, criteria: &Criteria) -> Option<(u32, u32)> {
    let wanted_plane = criteria
        .plane_id
        .and_then(|id| card.kms_planes.iter().find(|plane| plane.id == id));
    let can = |index: usize| {
        connector.possible_crtcs >> index & 1 == 1
            && wanted_plane.is_none_or(|plane| plane.possible_crtcs >> index & 1 == 1)
    };
    let mut possible = card
        .crtcs
        .iter()
        .enumerate()
        .filter(|&(index, _)| index < 32 && can(index));
    let drives = |crtc: u32| card.connectors.iter().any(|other| other.crtc == Some(crtc));
    possible
        .clone()
        .find(|&(_, &crtc)| connector.crtc == Some(crtc))
        .or_else(|| possible.find(|&(_, &crtc)| !drives(crtc)))
        .map(|(index, &crtc)| (index as u32, crtc))
}

fn is_wanted_card(card: &CardSnapshot, criteria: &Criteria) -> bool {
    is_named_card(card, criteria) && card.unusable.is_none()
}

fn is_named_card(card: &CardSnapshot, criteria: &Criteria) -> bool {
    let is_bus = |want: &String| {
        card.bus_id == *want
            || card
                .bus_id
                .split_once(':')
                .is_some_and(|(_, address)| address == want)
    };
    criteria
        .driver_name
        .as_ref()
        .is_none_or(|want| card.driver == *want)
        && criteria
            .device
            .as_ref()
            .is_none_or(|want| card.device == *want)
        && criteria.bus_id.as_ref().is_none_or(is_bus)
}

fn is_wanted_connector(connector: &Connector, criteria: &Criteria) -> bool {
    criteria
        .connector
        .as_ref()
        .is_none_or(|want| connector.name.eq_ignore_ascii_case(want))
        && criteria
            .connector_id
            .is_none_or(|want| connector.id == want)
}

fn explain(cards: &[CardSnapshot], criteria: &Criteria) -> String {
    if cards.is_empty() {
        return "no DRM device found (/dev/dri/card*); load the display's driver, \
                or pass the device into the container"
            .into();
    }
    let named: Vec<_> = cards
        .iter()
        .filter(|card| is_named_card(card, criteria))
        .collect();
    if named.is_empty() {
        let mut parts = Vec::new();
        for (name, value) in [
            ("driver-name", &criteria.driver_name),
            ("bus-id", &criteria.bus_id),
            ("device", &criteria.device),
        ] {
            parts.extend(value.as_ref().map(|value| format!("{name}={value}")));
        }
        return format!("no card with {}", parts.join(" and "));
    }
    if let [(device, why)] = &named
        .iter()
        .filter_map(|card| card.unusable.as_ref().map(|why| (&card.device, why)))
        .collect::<Vec<_>>()[..]
        && named.len() == 1
    {
        return format!("{device} cannot be used: {why}");
    }
    let usable: Vec<_> = named
        .iter()
        .filter(|card| card.unusable.is_none())
        .collect();
    if usable.is_empty() {
        return "none of the cards can be used".into();
    }
    let connectors: Vec<_> = usable
        .iter()
        .flat_map(|card| &card.connectors)
        .filter(|connector| is_wanted_connector(connector, criteria))
        .collect();
    if connectors.is_empty() {
        return match (&criteria.connector, criteria.connector_id) {
            (Some(name), _) => format!("no connector is called {name}"),
            (None, Some(id)) => format!("no connector has the id {id}"),
            (None, None) => "no card has a connector".into(),
        };
    }
    if let Some(id) = criteria.plane_id {
        let mut planes = usable.iter().flat_map(|card| &card.kms_planes);
        if planes.any(|plane| plane.id == id && plane.is_taken) {
            return format!(
                "plane {id} is in use by another sink of this process; stop that sink first, or set \
                 plane-id to another plane, or to -1 for any that is free"
            );
        }
        return format!("no plane with the id {id} can show on that connector");
    }
    "every plane of the connected displays is in use by another sink, or no CRTC is free".into()
}

/// All cards, as text for an error message.
pub fn listing(cards: &[CardSnapshot]) -> String {
    if cards.is_empty() {
        return "nothing".into();
    }
    cards
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl fmt::Display for CardSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (driver {}, bus {})",
            self.device, self.driver, self.bus_id
        )?;
        if let Some(why) = &self.unusable {
            return write!(f, " unusable: {why}");
        }
        if self.connectors.is_empty() {
            write!(f, " without connectors")?;
        }
        for connector in &self.connectors {
            write!(
                f,
                ", connector {} {} {}",
                connector.id, connector.name, connector.plugged
            )?;
            if !connector.modes.is_empty() {
                write!(f, " [{}]", mode::list(&connector.modes))?;
            }
        }
        for plane in &self.kms_planes {
            let names: Vec<_> = plane
                .fourccs
                .iter()
                .map(|&fourcc| format::fourcc_name(fourcc))
                .collect();
            let taken = if plane.is_taken { " (in use)" } else { "" };
            write!(
                f,
                ", {:?} plane {}{taken} [{}]",
                plane.kind,
                plane.id,
                names.join(" ")
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(id: u32, name: &str, plugged: Plugged) -> Connector {
        let mode = ModeLine {
            width: 1920,
            height: 1080,
            refresh_mhz: 60_000,
            is_preferred: true,
            is_interlaced: false,
        };
        Connector {
            id,
            name: name.into(),
            plugged,
            modes: vec![mode],
            possible_crtcs: 0b11,
            crtc: None,
        }
    }

    fn plane(id: u32, kind: PlaneKind, possible_crtcs: u32) -> KmsPlane {
        KmsPlane {
            id,
            kind,
            possible_crtcs,
            fourccs: vec![0x3432_5258],
            in_formats: Vec::new(),
            crtc: None,
            is_taken: false,
        }
    }

    const fn fourcc(name: &[u8; 4]) -> u32 {
        u32::from_le_bytes(*name)
    }

    /// A plane as a driver registers it; the formats are separated by spaces.
    fn with_formats(id: u32, kind: PlaneKind, possible_crtcs: u32, formats: &str) -> KmsPlane {
        let fourccs = formats.split(' ');
        KmsPlane {
            fourccs: fourccs
                .map(|name| fourcc(name.as_bytes().try_into().unwrap()))
                .collect(),
            ..plane(id, kind, possible_crtcs)
        }
    }

    /// A card with a connected display on each CRTC.
    fn device(crtcs: &[u32], kms_planes: Vec<KmsPlane>) -> CardSnapshot {
        let connectors = (0..crtcs.len() as u32).map(|index| Connector {
            possible_crtcs: 1 << index,
            ..connector(90 + index, &format!("DSI-{index}"), Plugged::Connected)
        });
        CardSnapshot {
            connectors: connectors.collect(),
            crtcs: crtcs.to_vec(),
            kms_planes,
            ..card("/dev/dri/card0", "recorded")
        }
    }

    /// tidss on a J721E with two of its video ports (tidss_kms.c): every plane can be shown by every CRTC.
    fn tidss() -> CardSnapshot {
        let formats = "AR24 XR24 RG16 YUYV UYVY NV12";
        let all = 0b11;
        device(
            &[36, 43],
            vec![
                with_formats(31, PlaneKind::Primary, all, formats),
                with_formats(38, PlaneKind::Primary, all, formats),
                with_formats(45, PlaneKind::Overlay, all, formats),
                with_formats(51, PlaneKind::Overlay, all, formats),
            ],
        )
    }

    /// zynqmp_dpsub of Linux 6.12 (zynqmp_disp.c): the graphics layer is the primary plane, and above the other.
    fn zynqmp() -> CardSnapshot {
        let video = "VYUY UYVY YUYV YVYU YU16 YV16 YU24 YV24 NV16 NV61 BG24 RG24 XB24 XR24 YU12 YV12 NV12 NV21";
        let graphics = "AB24 AR24 RA24 BA24 BG24 RG24 RG16 BG16";
        device(
            &[41],
            vec![
                with_formats(33, PlaneKind::Overlay, 0b1, video),
                with_formats(37, PlaneKind::Primary, 0b1, graphics),
            ],
        )
    }

    /// vkms of Linux 6.1 with its overlays and cursor: only these have AR24.
    fn vkms_6_1() -> CardSnapshot {
        let mut planes = vec![with_formats(31, PlaneKind::Primary, 0b1, "XR24 XR48 RG16")];
        for id in [32, 33] {
            planes.push(with_formats(
                id,
                PlaneKind::Overlay,
                0b1,
                "AR24 XR24 XR48 AR48 RG16",
            ));
        }
        planes.push(with_formats(
            40,
            PlaneKind::Cursor,
            0b1,
            "AR24 XR24 XR48 AR48 RG16",
        ));
        device(&[41], planes)
    }

    /// vkms of Linux 7.2 by configfs: a primary plane for each of two CRTCs, and an overlay that both can show.
    fn vkms_7_2() -> CardSnapshot {
        let formats = "AR24 XR24 NV12 P010";
        device(
            &[50, 51],
            vec![
                with_formats(33, PlaneKind::Primary, 0b01, formats),
                with_formats(37, PlaneKind::Primary, 0b10, formats),
                with_formats(42, PlaneKind::Overlay, 0b11, formats),
            ],
        )
    }

    fn ids<'a>(planes: impl Iterator<Item = &'a KmsPlane>) -> Vec<u32> {
        planes.map(|plane| plane.id).collect()
    }

    #[test]
    fn primary_planes_that_roam_go_to_the_crtcs_one_by_one() {
        let mut card = tidss();
        assert_eq!(ids(usable_planes(&card, 0)), [31, 45, 51]);
        assert_eq!(ids(usable_planes(&card, 1)), [38, 45, 51]);
        let second = criteria(|w| w.connector = Some("DSI-1".into()));
        assert_eq!(
            choose(std::slice::from_ref(&card), &second)
                .unwrap()
                .kms_plane,
            38
        );
        // A third sink on the first display must not take the plane that the second display needs.
        for index in [0, 2, 3] {
            card.kms_planes[index].is_taken = true;
        }
        let first = criteria(|w| w.connector = Some("DSI-0".into()));
        assert!(choose(std::slice::from_ref(&card), &first).is_err());
        // But the second may go to a plane that another sink leaves later.
        assert_eq!(ids(usable_planes(&card, 1)), [38, 45, 51]);
        assert_eq!(choose(&[card], &second).unwrap().kms_plane, 38);
    }

    #[test]
    fn a_primary_plane_that_shows_on_a_crtc_is_its_own() {
        let mut card = tidss();
        card.kms_planes[0].crtc = Some(43);
        assert_eq!(ids(usable_planes(&card, 0)), [38, 45, 51]);
        assert_eq!(ids(usable_planes(&card, 1)), [31, 45, 51]);
        // An overlay that shows elsewhere cannot be taken from there.
        card.kms_planes[2].crtc = Some(36);
        assert_eq!(ids(usable_planes(&card, 1)), [31, 51]);
    }

    #[test]
    fn a_plane_that_only_one_crtc_can_show_stays_with_it() {
        let card = device(
            &[40, 41],
            vec![
                plane(30, PlaneKind::Primary, 0b11),
                plane(31, PlaneKind::Primary, 0b01),
            ],
        );
        assert_eq!(primaries(&card), [Some(1), Some(0)]);
    }

    #[test]
    fn an_overlay_serves_whichever_display_needs_it() {
        let card = vkms_7_2();
        assert_eq!(ids(usable_planes(&card, 0)), [33, 42]);
        assert_eq!(ids(usable_planes(&card, 1)), [37, 42]);
        let plane = choose(&[card], &Criteria::default()).unwrap().kms_plane;
        assert_eq!(plane, 33);
    }

    #[test]
    fn the_plane_is_chosen_by_the_format() {
        for (card, format, chosen) in [
            (zynqmp(), b"NV12", Some(33)),
            (zynqmp(), b"AR24", Some(37)),
            (zynqmp(), b"XR24", Some(33)),
            (zynqmp(), b"P010", None),
            (vkms_6_1(), b"AR24", Some(32)),
            (vkms_6_1(), b"XR24", Some(31)),
            (vkms_7_2(), b"NV12", Some(33)),
            (tidss(), b"NV12", Some(31)),
        ] {
            let own = choose(std::slice::from_ref(&card), &Criteria::default()).unwrap();
            assert_eq!(own.primary, Some(own.kms_plane));
            let planes: Vec<_> = usable_planes(&card, 0).cloned().collect();
            let plane = plane_for(&planes, own.kms_plane, fourcc(format), None);
            assert_eq!(plane.map(|plane| plane.id), chosen, "{card}");
        }
    }

    #[test]
    fn a_plane_that_shows_the_format_stays() {
        let card = vkms_6_1();
        let planes: Vec<_> = usable_planes(&card, 0).cloned().collect();
        let stays = plane_for(&planes, 33, fourcc(b"XR24"), None).unwrap();
        assert_eq!(stays.id, 33);
    }

    #[test]
    fn a_modifier_is_looked_up_where_the_driver_lists_them() {
        let mut plane = plane(1, PlaneKind::Overlay, 1);
        let known = plane.fourccs[0];
        assert!(plane.shows(known, None) && plane.shows(known, Some(7)));
        plane.in_formats = vec![(known, 0)];
        assert!(plane.shows(known, Some(0)) && !plane.shows(known, Some(7)));
    }

    fn card(device: &str, driver: &str) -> CardSnapshot {
        CardSnapshot {
            device: device.into(),
            driver: driver.into(),
            bus_id: format!("pci:0000:00:0{}.0", device.len()),
            unusable: None,
            connectors: vec![
                connector(10, "DP-1", Plugged::Disconnected),
                connector(11, "HDMI-A-1", Plugged::Connected),
                connector(12, "HDMI-A-2", Plugged::Connected),
            ],
            crtcs: vec![40, 41],
            kms_planes: vec![
                plane(30, PlaneKind::Overlay, 0b11),
                plane(31, PlaneKind::Primary, 0b01),
                plane(32, PlaneKind::Cursor, 0b01),
                plane(33, PlaneKind::Primary, 0b10),
            ],
        }
    }

    fn criteria(set: impl FnOnce(&mut Criteria)) -> Criteria {
        let mut criteria = Criteria::default();
        set(&mut criteria);
        criteria
    }

    #[test]
    fn without_a_wish_the_first_connected_connector_of_any_card_is_taken() {
        let mut first = card("/dev/dri/card0", "render");
        first.connectors.clear();
        let route = choose(
            &[first, card("/dev/dri/card1", "panel")],
            &Criteria::default(),
        )
        .unwrap();
        assert_eq!(
            (route.card, route.connector, route.crtc, route.kms_plane),
            (1, 11, 40, 31)
        );
        assert_eq!(route.kind, PlaneKind::Primary);
    }

    #[test]
    fn the_crtc_that_drives_the_connector_is_kept() {
        let mut card = card("/dev/dri/card0", "x");
        card.connectors[1].crtc = Some(41);
        let route = choose(&[card], &Criteria::default()).unwrap();
        assert_eq!((route.crtc, route.crtc_index, route.kms_plane), (41, 1, 33));
    }

    #[test]
    fn a_crtc_that_drives_another_connector_is_not_stolen() {
        let mut card = card("/dev/dri/card0", "x");
        card.connectors[2].crtc = Some(40);
        assert_eq!(
            choose(
                &[card],
                &criteria(|w| w.connector = Some("hdmi-a-1".into()))
            )
            .unwrap()
            .crtc,
            41
        );
    }

    #[test]
    fn a_second_sink_goes_to_the_next_display_then_to_an_overlay() {
        let mut card = card("/dev/dri/card0", "x");
        card.connectors[1].crtc = Some(40);
        card.kms_planes[1].is_taken = true;
        let second = choose(std::slice::from_ref(&card), &Criteria::default()).unwrap();
        assert_eq!((second.connector, second.kms_plane), (12, 33));
        card.connectors[2].crtc = Some(41);
        card.kms_planes[3].is_taken = true;
        let third = choose(std::slice::from_ref(&card), &Criteria::default()).unwrap();
        assert_eq!((third.kms_plane, third.kind), (30, PlaneKind::Overlay));
        card.kms_planes[0].is_taken = true;
        let error = choose(&[card], &Criteria::default()).unwrap_err();
        assert!(error.reason.contains("in use"), "{error}");
    }

    #[test]
    fn driver_bus_and_device_select_the_card() {
        let cards = [card("/dev/dri/card0", "a"), card("/dev/dri/card10", "b")];
        for criteria in [
            criteria(|w| w.driver_name = Some("b".into())),
            criteria(|w| w.device = Some("/dev/dri/card10".into())),
            criteria(|w| w.bus_id = Some(cards[1].bus_id.clone())),
            criteria(|w| w.bus_id = Some(cards[1].bus_id["pci:".len()..].into())),
        ] {
            assert_eq!(choose(&cards, &criteria).unwrap().card, 1);
        }
    }

    #[test]
    fn a_plane_asked_for_decides_the_crtc() {
        let route = choose(
            &[card("/dev/dri/card0", "x")],
            &criteria(|w| w.plane_id = Some(33)),
        )
        .unwrap();
        assert_eq!((route.crtc, route.kms_plane), (41, 33));
        let cursor = choose(
            &[card("/dev/dri/card0", "x")],
            &criteria(|w| w.plane_id = Some(32)),
        )
        .unwrap();
        assert_eq!(cursor.kind, PlaneKind::Cursor);
    }

    #[test]
    fn a_plane_asked_for_that_another_sink_has_is_named_with_what_helps() {
        let mut taken = card("/dev/dri/card0", "x");
        taken.kms_planes[3].is_taken = true;
        let criteria = criteria(|w| w.plane_id = Some(33));
        let error = choose(std::slice::from_ref(&taken), &criteria).unwrap_err();
        let said = "plane 33 is in use by another sink of this process";
        assert!(error.reason.starts_with(said), "{error}");
        assert!(error.reason.contains("-1"), "{error}");
        assert!(error.listing.contains("plane 33 (in use)"), "{error}");
        // Another card may have a plane of the same id.
        let cards = [taken, card("/dev/dri/card1", "y")];
        assert_eq!(choose(&cards, &criteria).unwrap().card, 1);
    }

    #[test]
    fn a_disconnected_connector_is_taken_only_by_name() {
        let route = choose(
            &[card("/dev/dri/card0", "x")],
            &criteria(|w| w.connector_id = Some(10)),
        )
        .unwrap();
        assert_eq!(route.connector, 10);
    }

    #[test]
    fn what_is_missing_is_named_and_what_there_is_is_listed() {
        let cards = [card("/dev/dri/card0", "x")];
        let reason = |criteria: &Criteria| {
            let error = choose(&cards, criteria).unwrap_err();
            assert!(
                error
                    .listing
                    .contains("HDMI-A-1 connected [0: 1920x1080@60.00 (preferred)]"),
                "{error}"
            );
            assert!(error.listing.contains("DP-1 disconnected"), "{error}");
            assert!(error.listing.contains("XR24"), "{error}");
            error.reason
        };
        assert_eq!(
            reason(&criteria(|w| w.driver_name = Some("y".into()))),
            "no card with driver-name=y"
        );
        assert_eq!(
            reason(&criteria(|w| w.connector = Some("LVDS-1".into()))),
            "no connector is called LVDS-1"
        );
        assert_eq!(
            reason(&criteria(|w| w.connector_id = Some(99))),
            "no connector has the id 99"
        );
        assert!(reason(&criteria(|w| w.plane_id = Some(99))).contains("id 99"));
        assert!(
            choose(&[], &Criteria::default())
                .unwrap_err()
                .reason
                .contains("/dev/dri")
        );
    }

    #[test]
    fn a_card_that_cannot_be_used_says_why() {
        let mut card = card("/dev/dri/card0", "old");
        card.unusable = Some("its driver has no atomic modesetting".into());
        let error = choose(&[card], &Criteria::default()).unwrap_err();
        assert!(error.reason.contains("no atomic modesetting"), "{error}");
    }

    #[test]
    fn with_nothing_plugged_in_an_empty_connector_is_waited_at() {
        let mut dark = card("/dev/dri/card0", "x");
        dark.connectors.truncate(1);
        let route = choose(std::slice::from_ref(&dark), &Criteria::default()).unwrap();
        assert_eq!(route.connector, dark.connectors[0].id);
        assert!(!is_lit(&[dark], &route));
    }

    #[test]
    fn a_sink_without_a_plane_is_not_put_on_an_empty_connector() {
        let mut card = card("/dev/dri/card0", "x");
        card.kms_planes
            .iter_mut()
            .for_each(|plane| plane.is_taken = true);
        card.kms_planes.push(KmsPlane {
            is_taken: false,
            ..plane(99, PlaneKind::Primary, 0b10)
        });
        card.connectors[0].possible_crtcs = 0b10;
        card.connectors[0].plugged = Plugged::Disconnected;
        for connector in &mut card.connectors[1..] {
            connector.possible_crtcs = 0b01;
        }
        assert!(choose(&[card], &Criteria::default()).is_err());
    }
}
