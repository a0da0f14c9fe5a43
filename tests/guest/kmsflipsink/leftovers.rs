// SPDX-License-Identifier: MPL-2.0
//! State that another program has left on the display before the sink starts: vkms with overlays and a cursor
//! (`--append vkms.enable_overlay=1 --append vkms.enable_cursor=1`).

use drm::control::PlaneType;
use gst::prelude::*;

use crate::client::Client;
use crate::frames::{assert_crc, assert_on_screen, bgrx, buffer_of, crc_now, numbered};
use crate::support::player::{Player, init};
use crate::support::{kernel_version, switch_vt};

const W: usize = 640;
const H: usize = 480;

#[test]
fn planes_colours_and_rotation_of_the_client_before_are_put_away_and_come_back() {
    init();
    let client = Client::open();
    client.make_a_mess();
    client.step_back();
    let mess = crc_now();
    let gamma = client.value_if_any(client.crtc, "GAMMA_LUT");
    assert!(
        gamma != 0 || kernel_version() < (6, 2),
        "vkms has a gamma table"
    );
    for number in 0..2 {
        let player = Player::playing("");
        let picture = numbered(W, H, number);
        player.show(buffer_of(&picture));
        assert_on_screen(&picture);
        assert_eq!(client.value_if_any(client.crtc, "GAMMA_LUT"), 0);
        drop(player);
        assert_crc(mess);
        for kind in [PlaneType::Overlay, PlaneType::Cursor] {
            let plane = client.plane(kind).expect("a plane of each kind");
            assert_ne!(client.value(plane, "FB_ID"), 0, "{kind:?}");
        }
    }
}

#[test]
fn what_a_program_leaves_that_has_the_card_meanwhile_is_put_away_too() {
    init();
    let home = crate::support::foreground_vt();
    let player = Player::playing("");
    let picture = numbered(W, H, 3);
    player.show(buffer_of(&picture));
    switch_vt(if home == "tty2" { "tty3" } else { "tty2" });
    player.wait_for_event("master-lost");
    let client = Client::open();
    client.make_a_mess();
    client.step_back();
    switch_vt(&home);
    player.wait_for_event("master-regained");
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn planes_of_the_application_that_gave_the_card_stay() {
    init();
    let client = Client::open();
    client.make_a_mess();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&client));
    let player = Player::playing(&format!("fd={fd}"));
    player.show(buffer_of(&numbered(W, H, 4)));
    for kind in [PlaneType::Overlay, PlaneType::Cursor] {
        let plane = client.plane(kind).expect("a plane of each kind");
        assert_ne!(client.value(plane, "FB_ID"), 0, "{kind:?}");
    }
}

#[test]
fn a_property_that_the_crtc_lacks_is_named_with_those_that_it_has() {
    let player = Player::with_appsrc("crtc-properties=p,nosuch=1");
    player.set_caps(&bgrx(W as u32, H as u32));
    assert!(player.pipeline.set_state(gst::State::Ready).is_err());
    let error = player.wait_for_error();
    assert!(
        error.contains("the CRTC has no property nosuch") && error.contains("ACTIVE"),
        "{error}"
    );
}
