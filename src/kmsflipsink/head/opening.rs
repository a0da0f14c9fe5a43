// SPDX-License-Identifier: MPL-2.0
//! Finds a card, connector, CRTC and plane for a sink, and claims the plane.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use drm::Device as _;
use drm::control::Device as _;

use super::{Head, clones};
use crate::display::frame_log::FrameLog;
use crate::kmsflipsink::card::{self, Card};
use crate::kmsflipsink::claimed_plane::{ClaimedPlane, Observer};
use crate::kmsflipsink::crtc::Crtc;
use crate::kmsflipsink::device::{self, Device, Display};
use crate::kmsflipsink::discovery::{self, CardSnapshot, Criteria, NoRoute, Plugged, Route};
use crate::kmsflipsink::engine::{self, Engine, Joining};
use crate::kmsflipsink::error::KmsError;
use crate::kmsflipsink::kms_plane::PlaneState;
use crate::kmsflipsink::sysfs_card;
use crate::kmsflipsink::vacated;

/// How long [`Head::open`] waits for a card of which another program is master. A program that lists
/// displays is master for some milliseconds, or for as long as its displays take to answer.
const MASTER_LIMIT: Duration = Duration::from_millis(1500);

type Cards = (Vec<Option<Card>>, Vec<CardSnapshot>);
type Found = (Vec<Option<Card>>, Vec<CardSnapshot>, Route);

impl Head {
    /// Chooses a card, connector, CRTC and plane by `criteria`, and claims the plane.
    pub fn open(
        criteria: &Criteria,
        fd: Option<BorrowedFd<'_>>,
        follows_vt: bool,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, KmsError> {
        let deadline = Instant::now() + MASTER_LIMIT;
        let mut criteria = criteria.clone();
        let mut n_taken = 0;
        loop {
            match Self::try_open(&criteria, fd, follows_vt, observer) {
                Ok(Some(head)) => return Ok(head),
                // Another sink that started at the same time claimed the plane first, or the CRTC that had the plane has
                // not switched it off yet: choose again.
                Ok(None) if n_taken < 8 => {
                    n_taken += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(None) => {
                    return Err(KmsError::Property(
                        "the planes of this card are taken faster than they can be found".into(),
                    ));
                }
                // The master may be a program that only lists displays. The card is opened again, because
                // without privilege only a file that was master when it was opened can become master again.
                Err(KmsError::NotMaster { path, .. })
                    if fd.is_none() && Instant::now() < deadline =>
                {
                    criteria.device = Some(path);
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn try_open(
        criteria: &Criteria,
        fd: Option<BorrowedFd<'_>>,
        follows_vt: bool,
        observer: &Arc<dyn Observer>,
    ) -> Result<Option<Self>, KmsError> {
        let (cards, snapshots, route) = find(criteria, fd)?;
        let (Some(Card { device, engine }), Some(snapshot)) =
            (cards[route.card].clone(), snapshots.get(route.card))
        else {
            return Err(KmsError::Property("a card without a device".into()));
        };
        let failed = |operation| {
            let path = device.path.clone();
            move |source| KmsError::Io {
                operation,
                path,
                source,
            }
        };
        let joining = Joining::begin(&engine);
        take_master(&device)?;
        let display = probe(&engine, route.connector);
        let log = Arc::<FrameLog>::default();
        let state =
            PlaneState::read(&device, route.kms_plane).map_err(failed("reading the plane"))?;
        let plane = ClaimedPlane::new(state, observer.clone(), log.clone());
        let mut crtc = Crtc::read(&device, &route).map_err(failed("reading the CRTC"))?;
        crtc.is_plugged = display.is_some();
        crtc.display = display;
        crtc.clones =
            crate::kmsflipsink::clones::find(&device, snapshot, &route, &criteria.clones)?;
        clones::check_free(&engine, &route, &crtc.clones)?;
        let clones = crtc.clones.iter().map(|clone| clone.id);
        let driven: Vec<u32> = clones.chain([route.connector]).collect();
        crtc.vacated = vacated::find(&device, snapshot, route.crtc, &driven)
            .map_err(failed("reading another CRTC of its connectors"))?;
        // First, because a plane that is claimed is given up by the thread only.
        engine::start(&engine).map_err(failed("starting a thread"))?;
        if !insert(&engine, crtc, plane, follows_vt) {
            return Ok(None);
        }
        drop(joining);
        let connector = snapshot
            .connectors
            .iter()
            .find(|connector| connector.id == route.connector);
        let mut planes = snapshot.kms_planes.clone();
        planes.retain(|plane| plane.id == route.kms_plane);
        if criteria.plane_id.is_none() {
            let usable = discovery::usable_planes(snapshot, route.crtc_index);
            let others = usable.filter(|plane| plane.id != route.kms_plane);
            planes.extend(others.cloned());
        }
        Ok(Some(Self {
            connector_name: connector
                .map(|connector| connector.name.clone())
                .unwrap_or_default(),
            planes,
            max_size: max_size(&device),
            log,
            device,
            engine,
            route,
            serial: AtomicU64::new(0),
        }))
    }

    /// Finds another connector that fits the criteria and has a display. To be asked while this one has none.
    pub fn lit_elsewhere(&self, criteria: &Criteria) -> Option<LitElsewhere> {
        let promising =
            sysfs_card::promising(sysfs_card::nodes(criteria.device.as_deref()), criteria);
        let (_, mut snapshots) = look(card::open_all(promising, criteria.opener), false);
        if self.is_another_lit(&snapshots, criteria) {
            return Some(LitElsewhere::Beside);
        }
        let mut cards = snapshots.iter_mut();
        let own = cards.find(|card| card.device == self.device.path)?;
        self.give_up_in(own);
        self.is_another_lit(&snapshots, criteria)
            .then_some(LitElsewhere::Instead)
    }

    fn is_another_lit(&self, cards: &[CardSnapshot], criteria: &Criteria) -> bool {
        discovery::choose(cards, criteria).is_ok_and(|route| {
            let card = &cards[route.card];
            let connector = card.connectors.iter().find(|one| one.id == route.connector);
            (&card.device, route.connector) != (&self.device.path, self.route.connector)
                && connector.is_some_and(|one| one.plugged == Plugged::Connected)
        })
    }

    /// Changes the snapshot to what it would be without this sink.
    fn give_up_in(&self, card: &mut CardSnapshot) {
        for plane in &mut card.kms_planes {
            plane.is_taken &= plane.id != self.route.kms_plane;
        }
        let own = self.route.kms_plane;
        let before =
            self.with_crtc(|crtc| (!crtc.is_shared(own)).then(|| crtc.connector_crtc_before()));
        let mut connectors = card.connectors.iter_mut();
        let connector = connectors.find(|one| one.id == self.route.connector);
        if let Some((connector, before)) = connector.zip(before.flatten()) {
            (connector.claimed, connector.crtc) = (None, before);
        }
    }
}

/// Where a display is, for a sink whose own connector has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LitElsewhere {
    /// A plane and a CRTC are free for it.
    Beside,
    /// It needs the plane or the CRTC of the sink.
    Instead,
}

/// Chooses among the cards that are likely to meet the criteria, without probing their connectors. If that
/// finds no display, chooses among all cards, probing them.
fn find(criteria: &Criteria, fd: Option<BorrowedFd<'_>>) -> Result<Found, KmsError> {
    if let Some(fd) = fd {
        let card = Card::adopt(fd).map_err(|source| KmsError::Io {
            operation: "using the property fd",
            path: "the file given".into(),
            source,
        })?;
        let (cards, snapshots) = look(vec![Ok(card)], true);
        let route = choose(&cards, &snapshots, criteria)?;
        return Ok((cards, snapshots, route));
    }
    let nodes = sysfs_card::nodes(criteria.device.as_deref());
    let promising = sysfs_card::promising(nodes.clone(), criteria);
    let (cards, snapshots) = look(card::open_all(promising, criteria.opener), false);
    if let Ok(route) = discovery::choose(&snapshots, criteria)
        && discovery::is_lit(&snapshots, &route)
    {
        return Ok((cards, snapshots, route));
    }
    drop(cards);
    let (cards, snapshots) = look(card::open_all(nodes, criteria.opener), true);
    let route = choose(&cards, &snapshots, criteria)?;
    Ok((cards, snapshots, route))
}

/// Chooses as `discovery` does. If there is no plane, another sink gives up one that it has for overlay compositions.
fn choose(
    cards: &[Option<Card>],
    snapshots: &[CardSnapshot],
    criteria: &Criteria,
) -> Result<Route, NoRoute> {
    let error = match discovery::choose(snapshots, criteria) {
        Err(error) => error,
        found => return found,
    };
    let mut snapshots = snapshots.to_vec();
    for (card, snapshot) in cards.iter().zip(&mut snapshots) {
        let engine = card.as_ref().map(|card| &card.engine);
        let above = engine.map_or_else(Vec::new, |engine| engine.lock().layer_planes());
        for plane in &mut snapshot.kms_planes {
            plane.is_taken &= !above.contains(&plane.id);
        }
    }
    let route = discovery::choose(&snapshots, criteria).map_err(|_| error)?;
    if let Some(Card { engine, .. }) = &cards[route.card] {
        engine.lock().give_up_layer_plane(route.kms_plane);
        engine.wake();
    }
    Ok(route)
}

fn look(found: Vec<Result<Card, Box<CardSnapshot>>>, asks: bool) -> Cards {
    found
        .into_iter()
        .map(|card| match card {
            Ok(card) => {
                // If sinks show on the card already, the first of them had its connector probed.
                let is_idle = card.engine.lock().crtcs.is_empty();
                let snapshot = match asks && is_idle {
                    true => card.probe(),
                    false => card.snapshot(false),
                };
                (Some(card), snapshot)
            }
            Err(snapshot) => (None, *snapshot),
        })
        .unzip()
}

/// The display of the connector. Probes it, which this process may do as master, unless sinks show on
/// the card already.
fn probe(engine: &Engine, connector: u32) -> Option<Display> {
    let is_idle = engine.lock().crtcs.is_empty();
    device::connector_handle(connector)
        .and_then(|handle| engine.device.get_connector(handle, is_idle))
        .ok()
        .and_then(|info| engine.device.connector_state(&info).display)
}

fn take_master(device: &Device) -> Result<(), KmsError> {
    let Err(first) = device.check_master() else {
        return Ok(());
    };
    if !device.is_ours {
        return Err(KmsError::FdNotMaster {
            path: device.path.clone(),
            source: first,
        });
    }
    device
        .acquire_master_lock()
        .and_then(|()| device.check_master())
        .map_err(|source| KmsError::NotMaster {
            path: device.path.clone(),
            source,
        })
}

/// Adds the plane, and the CRTC if it is not in use yet. False if another sink has claimed the plane, or the CRTC for
/// another connector.
fn insert(engine: &Engine, mut crtc: Crtc, mut plane: ClaimedPlane, follows_vt: bool) -> bool {
    let mut inner = engine.lock();
    let known = inner.crtc(crtc.id);
    let is_elsewhere = known.is_some_and(|known| known.connector != crtc.connector);
    if is_elsewhere || inner.is_taken(crtc.id, plane.id) {
        return false;
    }
    inner.follows_vt = follows_vt;
    let left = (
        inner.leave_plane_to(crtc.id, plane.id),
        inner.leave_crtc_to(crtc.id),
    );
    match inner.crtc(crtc.id) {
        Some(known) => {
            // The plane may show a backdrop by now. What it showed before was read with the CRTC.
            if let Some(before) = known.state_before(plane.id) {
                plane.state = before.clone();
            }
            plane.extras_saved = known.take_extras_before(plane.id);
            known.planes.push(plane);
        }
        None => {
            crtc.planes.push(plane);
            inner.crtcs.push(crtc);
        }
    }
    drop(inner);
    drop(left);
    true
}

fn max_size(device: &Device) -> (u32, u32) {
    use std::ops::{Bound, RangeBounds};
    let end = |range: &dyn Fn() -> Bound<u32>| match range() {
        Bound::Included(end) if end > 0 => end,
        _ => i32::MAX as u32,
    };
    match device.resource_handles() {
        Ok(resources) => (
            end(&|| resources.supported_fb_width().end_bound().cloned()),
            end(&|| resources.supported_fb_height().end_bound().cloned()),
        ),
        Err(_) => (i32::MAX as u32, i32::MAX as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmsflipsink::claimed_plane::IgnoringObserver;
    use crate::kmsflipsink::discovery::{Connector, KmsPlane, PlaneKind};
    use crate::kmsflipsink::layer::LayerPlane;

    fn plane(id: u32, kind: PlaneKind) -> KmsPlane {
        KmsPlane {
            id,
            kind,
            possible_crtcs: 1,
            fourccs: Vec::new(),
            in_formats: Vec::new(),
            crtc: None,
            is_taken: true,
        }
    }

    /// A card with one CRTC and two planes, which both are taken.
    fn full_snapshot() -> CardSnapshot {
        CardSnapshot {
            device: "/dev/null".into(),
            driver: "none".into(),
            bus_id: String::new(),
            unusable: None,
            connectors: vec![Connector {
                id: 1,
                name: "HDMI-A-1".into(),
                plugged: Plugged::Connected,
                modes: Vec::new(),
                possible_crtcs: 1,
                crtc: Some(1),
                claimed: None,
            }],
            crtcs: vec![1],
            kms_planes: vec![plane(1, PlaneKind::Primary), plane(5, PlaneKind::Overlay)],
        }
    }

    #[test]
    fn only_a_plane_for_overlay_compositions_is_given_to_a_sink_that_finds_none() {
        let device = Device::blank();
        let engine = Arc::new(Engine::new(&device).unwrap());
        let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
        crtc.planes[0].layer_plane = Some(LayerPlane::blank(5, Vec::new()));
        engine.lock().crtcs.push(crtc);
        let cards = [Some(Card {
            device,
            engine: engine.clone(),
        })];
        let snapshots = [full_snapshot()];
        let chosen = choose(&cards, &snapshots, &Criteria::default()).unwrap();
        assert_eq!(chosen.kms_plane, 5);
        assert!(!engine.has_plane(5) && engine.has_plane(1));
        assert!(choose(&cards, &snapshots, &Criteria::default()).is_err());
    }
}
