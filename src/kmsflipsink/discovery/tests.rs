// SPDX-License-Identifier: MPL-2.0
//! Tests of `discovery`, on snapshots of cards.

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
        claimed: None,
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
    let video =
        "VYUY UYVY YUYV YVYU YU16 YV16 YU24 YV24 NV16 NV61 BG24 RG24 XB24 XR24 YU12 YV12 NV12 NV21";
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
        let plane = plane_for(&planes, own.kms_plane, |one| one.shows(fourcc(format), 0));
        assert_eq!(plane.map(|plane| plane.id), chosen, "{card}");
    }
}

#[test]
fn a_plane_that_shows_the_format_stays() {
    let card = vkms_6_1();
    let planes: Vec<_> = usable_planes(&card, 0).cloned().collect();
    let stays = plane_for(&planes, 33, |one| one.shows(fourcc(b"XR24"), 0)).unwrap();
    assert_eq!(stays.id, 33);
}

#[test]
fn a_modifier_is_looked_up_where_the_driver_lists_them() {
    let mut plane = plane(1, PlaneKind::Overlay, 1);
    let known = plane.fourccs[0];
    assert!(plane.shows(known, 0) && plane.shows(known, 7));
    plane.in_formats = vec![(known, 0)];
    assert!(plane.shows(known, 0) && !plane.shows(known, 7));
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

#[test]
fn the_crtc_is_one_that_can_drive_the_clones_too() {
    let mut card = device(
        &[36, 43],
        vec![
            plane(31, PlaneKind::Primary, 0b01),
            plane(38, PlaneKind::Primary, 0b10),
        ],
    );
    card.connectors[0].possible_crtcs = 0b11;
    let with_clone = |card: &CardSnapshot, name: &str| {
        let criteria = Criteria {
            connector: Some("DSI-0".into()),
            clones: vec![name.into()],
            ..Criteria::default()
        };
        choose(std::slice::from_ref(card), &criteria)
    };
    assert_eq!(with_clone(&card, "dsi-1").unwrap().crtc, 43);
    // A name that no connector has is refused later, in words.
    assert_eq!(with_clone(&card, "DSI-7").unwrap().crtc, 36);
    card.connectors[0].possible_crtcs = 0b01;
    let reason = with_clone(&card, "DSI-1").unwrap_err().reason;
    assert!(reason.contains("can drive DSI-1 too"), "{reason}");
}

/// Two displays that no CRTC drives yet, and CRTCs that can drive both.
#[test]
fn a_crtc_that_a_sink_is_going_to_use_is_left_to_its_connector() {
    let primaries = [31, 32].map(|id| plane(id, PlaneKind::Primary, 0b11));
    let mut card = device(&[51, 52], primaries.into());
    card.kms_planes.push(plane(33, PlaneKind::Overlay, 0b11));
    for connector in &mut card.connectors {
        connector.possible_crtcs = 0b11;
    }
    let crtc_of = |card: &CardSnapshot, name: &str| {
        let criteria = Criteria {
            connector: Some(name.into()),
            ..Criteria::default()
        };
        choose(std::slice::from_ref(card), &criteria).map(|route| route.crtc)
    };
    assert_eq!(crtc_of(&card, "DSI-0"), Ok(51));
    card.connectors[0].claimed = Some(51);
    card.kms_planes[0].is_taken = true;
    assert_eq!(crtc_of(&card, "DSI-1"), Ok(52));
    assert_eq!(crtc_of(&card, "DSI-0"), Ok(51), "a second plane of it");
    card.connectors[1].crtc = Some(51);
    assert_eq!(crtc_of(&card, "DSI-1"), Ok(52), "it loses its CRTC");
    card.connectors[1].claimed = Some(52);
    card.kms_planes[1].is_taken = true;
    assert_eq!(crtc_of(&card, "DSI-1"), Ok(52));
}
