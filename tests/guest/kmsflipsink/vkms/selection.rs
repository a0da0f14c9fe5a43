// SPDX-License-Identifier: MPL-2.0
//! Errors for a card, connector, plane or mode that does not exist.

use gst::prelude::*;

use super::{H, W};
use crate::frames::{bgrx, buffer_of, numbered};
use crate::support::player::{Player, init};

#[test]
fn a_mode_that_is_not_there_is_an_error_that_lists_those_that_are() {
    init();
    let player = Player::with_appsrc("mode=123x456");
    player.set_caps(&bgrx(W as u32, H as u32));
    player.set_state(gst::State::Playing);
    let _ = player
        .pipeline
        .by_name("src")
        .unwrap()
        .downcast::<gst_app::AppSrc>()
        .unwrap()
        .push_buffer(buffer_of(&numbered(W, H, 0)));
    let error = player.wait_for_error();
    assert!(
        error.contains("123x456") && error.contains("640x480@"),
        "{error}"
    );
}

#[test]
fn nothing_that_fits_lists_what_there_is() {
    for (wish, reason) in [
        ("driver-name=nosuch", "no card with driver-name=nosuch"),
        ("connector=HDMI-A-9", "no connector is called HDMI-A-9"),
        ("connector-id=1", "no connector has the id 1"),
        ("plane-id=1", "no plane with the id 1"),
        ("device=/dev/dri/card9", "/dev/dri/card9"),
    ] {
        let player = Player::with_appsrc(wish);
        assert!(player.pipeline.set_state(gst::State::Ready).is_err());
        let error = player.wait_for_error();
        assert!(error.contains(reason), "{wish}: {error}");
        assert!(
            wish.starts_with("device") || error.contains("Virtual-1 connected"),
            "{wish}: {error}"
        );
    }
}

#[test]
fn plane_properties_that_do_not_exist_are_named_with_those_that_do() {
    let player = Player::with_appsrc("plane-properties=p,nosuch=1");
    assert!(player.pipeline.set_state(gst::State::Ready).is_err());
    let error = player.wait_for_error();
    assert!(
        error.contains("no property nosuch") && error.contains("CRTC_ID"),
        "{error}"
    );
}
