// SPDX-License-Identifier: MPL-2.0
//! GstVideoOverlay, GstVideoDirection and GstColorBalance, settings that change while frames are shown or in PAUSED, and modes that the
//! display does not list.

use std::sync::mpsc::channel;

use gst::prelude::*;
use gst_video::VideoOverlay;
use gst_video::prelude::*;

use super::{H, W, bgrx_player};
use crate::frames::{assert_on_screen, bgrx, buffer_of, centred, dma_frame, numbered, placed};
use crate::support::player::Player;
use crate::support::{self, Picture};

fn upside_down(picture: &Picture) -> Picture {
    let (w, h) = (picture.width, picture.height);
    Picture::from_fn(w, h, |x, y| picture.pixel(w - 1 - x, h - 1 - y))
}

/// A player in PAUSED, with this picture in the middle of the screen.
fn paused_on(picture: &Picture, rest: &str) -> Player {
    let player = Player::with_appsrc(&format!("mode=640x480 {rest}"));
    player.set_caps(&bgrx(picture.width as u32, picture.height as u32));
    player.set_state(gst::State::Playing);
    player.show(dma_frame(picture));
    player.set_state(gst::State::Paused);
    assert_on_screen(&centred(picture, W, H));
    player
}

fn overlay(player: &Player) -> VideoOverlay {
    player.sink.clone().dynamic_cast().unwrap()
}

#[test]
fn a_rectangle_that_is_set_in_pause_moves_the_frame_on_the_screen() {
    let picture = numbered(320, 200, 40);
    let player = paused_on(&picture, "");
    let overlay = overlay(&player);
    overlay.set_render_rectangle(10, 20, 400, 300).unwrap();
    assert_on_screen(&placed(&picture, W, H, 10 + 40, 20 + 50));
    let rectangle = gst::Array::new([0i32, 0, 320, 200]);
    player.sink.set_property("render-rectangle", rectangle);
    assert_on_screen(&placed(&picture, W, H, 0, 0));
    overlay.set_render_rectangle(-1, -1, -1, -1).unwrap();
    assert_on_screen(&centred(&picture, W, H));
    assert_eq!(player.count("shown"), 1, "{}", player.stats());
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn an_expose_shows_the_last_frame_and_no_older_one() {
    for rest in ["", "enable-last-sample=false"] {
        let player = bgrx_player();
        player.sink.set_property_from_str(
            "enable-last-sample",
            if rest.is_empty() { "true" } else { "false" },
        );
        player.set_state(gst::State::Playing);
        let overlay = overlay(&player);
        overlay.expose(); // nothing yet
        for number in 50..54 {
            let picture = numbered(W, H, number);
            player.show(buffer_of(&picture));
            overlay.expose();
            assert_on_screen(&picture);
        }
        // While frames come, exposes neither hold them up nor bring an old one back.
        for number in 54..70 {
            player.push(buffer_of(&numbered(W, H, number)));
            overlay.expose();
        }
        player.wait_shown(20);
        assert_on_screen(&numbered(W, H, 69));
        assert_eq!(player.count("shown"), 20, "{}", player.stats());
        assert_eq!(player.errors(), [""; 0]);
    }
}

#[test]
fn a_direction_that_is_set_in_pause_turns_the_frame_on_the_screen() {
    if support::kernel_version() == (6, 1) {
        return support::skip("vkms of 6.1 turns nothing");
    }
    let picture = numbered(320, 200, 41);
    let player = paused_on(&picture, "");
    for (direction, expected) in [
        ("180", upside_down(&picture)),
        ("identity", picture.clone()),
    ] {
        let direction = (direction, "video-direction");
        player.sink.set_property_from_str(direction.1, direction.0);
        assert_on_screen(&centred(&expected, W, H));
    }
    assert_eq!(player.errors(), [""; 0]);
}

fn plane_properties(rotation: u64) -> gst::Structure {
    gst::Structure::builder("p")
        .field("rotation", rotation)
        .build()
}

const ROTATE_180: u64 = 1 << 2;

#[test]
fn plane_properties_that_change_while_playing_are_set_with_the_next_frame() {
    if support::kernel_version() == (6, 1) {
        return support::skip("vkms of 6.1 turns nothing");
    }
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 42);
    player.show(dma_frame(&picture));
    assert_on_screen(&picture);
    let set = |properties: Option<gst::Structure>| {
        player.sink.set_property("plane-properties", properties);
    };
    set(Some(plane_properties(ROTATE_180)));
    player.show(dma_frame(&picture));
    assert_on_screen(&upside_down(&picture));
    // What cannot be set is said in words. The frames go on, and the plane stays as it was.
    set(Some(
        gst::Structure::builder("p").field("no-such", 1).build(),
    ));
    player.show(dma_frame(&picture));
    assert_on_screen(&upside_down(&picture));
    // No value of "rotation" has this bit.
    set(Some(plane_properties(1 << 40)));
    player.show(dma_frame(&picture));
    assert_on_screen(&upside_down(&picture));
    let warnings = player.messages(gst::MessageType::Warning);
    let told = |text: &str| warnings.iter().any(|warning| warning.contains(text));
    assert!(told("has no property no-such"), "{warnings:?}");
    assert!(told("refuses them"), "{warnings:?}");
    // In PAUSED, without a frame.
    player.set_state(gst::State::Paused);
    set(None);
    assert_on_screen(&picture);
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn the_size_of_the_mode_is_told() {
    let player = bgrx_player();
    let (sender, notified) = channel();
    player.sink.connect_notify(None, move |sink, property| {
        if property.name().starts_with("display-") {
            let value: i32 = sink.property(property.name());
            let _ = sender.send((property.name().to_string(), value));
        }
    });
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 43);
    player.show(buffer_of(&picture));
    player.reach(gst::State::Null);
    let told: Vec<_> = notified.try_iter().collect();
    let expected = [
        ("display-width", 640),
        ("display-height", 480),
        ("display-width", 0),
        ("display-height", 0),
    ];
    assert_eq!(told, expected.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn modes_that_the_display_does_not_list_are_made() {
    for (mode, width, height, called) in [
        ("704x500@50 cvt", 704, 500, "704x500@49."),
        ("700x500 cvt-rb", 704, 500, "704x500@59."),
        (
            "25.2 640 656 752 800 480 490 492 525 -hsync -vsync",
            640,
            480,
            "640x480@60.00",
        ),
    ] {
        let player = Player::with_appsrc("");
        player.sink.set_property("mode", mode);
        player.set_caps(&bgrx(width, height));
        player.set_state(gst::State::Playing);
        let picture = numbered(width as usize, height as usize, 44);
        player.show(dma_frame(&picture));
        assert_on_screen(&picture);
        let is = player.text("mode");
        assert!(is.starts_with(called), "{mode}: {is}");
        assert_eq!(player.sink.property::<i32>("display-width"), width as i32);
    }
}

/// No driver of the lab has a channel. So the sink has none, whatever the application sets.
#[test]
fn a_display_without_properties_of_colour_balance_has_no_channels() {
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 45);
    player.show(dma_frame(&picture));
    let balance: gst_video::ColorBalance = player.sink.clone().dynamic_cast().unwrap();
    assert!(balance.list_channels().is_empty());
    assert_on_screen(&picture);
    assert_eq!(player.errors(), [""; 0]);
}
