// SPDX-License-Identifier: MPL-2.0
//! Chooses card, connector, CRTC and plane by what the user asked for. Pure; `card` takes the snapshots of the
//! cards.

use std::fmt;

use super::format;
use super::mode::{self, ModeLine};
use super::opener::Opener;

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
    /// The id of the CRTC that drives it, or is going to drive it, for a sink of this process.
    pub claimed: Option<u32>,
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
    /// Whether the plane shows the format in memory of this modifier. A driver without IN_FORMATS does not say which
    /// modifiers it knows.
    pub fn shows(&self, fourcc: u32, modifier: u64) -> bool {
        match self.in_formats.is_empty() {
            true => self.fourccs.contains(&fourcc),
            false => self.in_formats.contains(&(fourcc, modifier)),
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
    /// The names of further connectors that the CRTC is to drive.
    pub clones: Vec<String>,
    /// Who opens the cards.
    pub opener: Opener,
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

/// The plane among `planes` for frames that `shows` says a plane shows. The sink keeps its plane `own` if that shows
/// them, because a move to another plane needs a modeset. Otherwise the primary plane comes before overlays.
pub fn plane_for(
    planes: &[KmsPlane],
    own: u32,
    shows: impl Fn(&KmsPlane) -> bool,
) -> Option<&KmsPlane> {
    planes
        .iter()
        .filter(|plane| shows(plane))
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

/// Index and id of the CRTC that drives the connector, or else of one that drives no connector. A CRTC that a sink of this
/// process has for another connector counts as driving that, also before the sink's first commit.
fn crtc_for(card: &CardSnapshot, connector: &Connector, criteria: &Criteria) -> Option<(u32, u32)> {
    let wanted_plane = criteria
        .plane_id
        .and_then(|id| card.kms_planes.iter().find(|plane| plane.id == id));
    let clones = criteria.clones.iter();
    let clones = clones.filter_map(|name| named(card, name));
    let driven: u32 = clones.fold(connector.possible_crtcs, |crtcs, clone| {
        crtcs & clone.possible_crtcs
    });
    let can = |index: usize| {
        driven >> index & 1 == 1
            && wanted_plane.is_none_or(|plane| plane.possible_crtcs >> index & 1 == 1)
    };
    let mut possible = card
        .crtcs
        .iter()
        .enumerate()
        .filter(|&(index, _)| index < 32 && can(index));
    let all = || card.connectors.iter();
    let is_claimed = |crtc| all().any(|one| one.claimed == Some(crtc));
    let drives = |crtc| is_claimed(crtc) || all().any(|one| one.crtc == Some(crtc));
    let found = match connector.claimed {
        Some(claimed) => possible.find(|&(_, &crtc)| crtc == claimed),
        None => possible
            .clone()
            .find(|&(_, &crtc)| connector.crtc == Some(crtc) && !is_claimed(crtc))
            .or_else(|| possible.find(|&(_, &crtc)| !drives(crtc))),
    };
    found.map(|(index, &crtc)| (index as u32, crtc))
}

/// The connector of this name. The case does not matter.
pub fn named<'a>(card: &'a CardSnapshot, name: &str) -> Option<&'a Connector> {
    let mut connectors = card.connectors.iter();
    connectors.find(|connector| connector.name.eq_ignore_ascii_case(name))
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
    let together = match criteria.clones.is_empty() {
        true => String::new(),
        false => format!(" that can drive {} too", criteria.clones.join(" and ")),
    };
    format!(
        "every plane of the connected displays is in use by another sink, or no CRTC is free{together}"
    )
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
mod tests;
