// SPDX-License-Identifier: MPL-2.0
//! Pixel formats, and where on the screen a frame appears.

use gst::prelude::*;

use super::{H, W, bgrx_player, convert, formats};
use crate::frames::{
    assert_on_screen, bgrx, buffer_of, centred, dma_frame, info, numbered, part, placed,
};
use crate::support::player::{Player, init};
use crate::support::{self, Picture};

#[test]
fn every_format_that_the_caps_promise_is_shown() {
    init();
    let formats = formats();
    assert!(!formats.is_empty());
    // Colours that five bits a channel can represent exactly.
    let picture = Picture::from_fn(W, H, |x, y| match (x / 32 + y / 32) % 4 {
        0 => [255, 0, 0],
        1 => [0, 255, 0],
        2 => [0, 0, 255],
        _ => [255, 255, 255],
    });
    let colourless = Picture::from_fn(W, H, |x, y| [(x / 32 + y / 32) as u8 % 2 * 255; 3]);
    for name in formats {
        let format = gst_video::VideoFormat::from_string(&name);
        let rgb = bgrx(W as u32, H as u32);
        let target = info(format, W as u32, H as u32);
        if target.format_info().is_yuv() {
            eprintln!("{name}: YUV, compared by eye only");
            continue;
        }
        let picture = if target.is_gray() {
            &colourless
        } else {
            &picture
        };
        let player = Player::with_appsrc("mode=640x480");
        player.set_caps(&target);
        player.set_state(gst::State::Playing);
        player.show(convert(picture, &rgb, &target));
        eprintln!("{name}");
        assert_on_screen(picture);
    }
}

#[test]
fn a_crop_meta_shows_its_part_alone() {
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 5);
    let mut buffer = buffer_of(&picture);
    gst_video::VideoCropMeta::add(buffer.get_mut().unwrap(), (100, 60, 320, 240));
    player.show(buffer);
    assert_on_screen(&centred(&part(&picture, 100, 60, 320, 240), W, H));
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
}

#[test]
fn an_element_that_crops_leaves_that_to_the_plane() {
    init();
    let crop = "videocrop left=40 right=80 top=20 bottom=60";
    // In memory that is copied, and in memory that the card reads.
    let picture = numbered(320, 240, 7);
    for buffer in [buffer_of(&picture), dma_frame(&picture)] {
        let player = Player::new(&format!(
            "appsrc name=src format=time ! {crop} ! kmsflipsink name=sink sync=false mode=640x480"
        ));
        player.set_caps(&bgrx(320, 240));
        player.set_state(gst::State::Playing);
        player.show(buffer);
        assert_on_screen(&centred(&part(&picture, 40, 20, 200, 160), W, H));
    }
}

#[test]
fn a_small_frame_is_centred_and_a_render_rectangle_moves_it() {
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&bgrx(320, 200));
    player.set_state(gst::State::Playing);
    let picture = numbered(320, 200, 3);
    player.show(buffer_of(&picture));
    assert_on_screen(&centred(&picture, W, H));
    player
        .sink
        .set_property("render-rectangle", gst::Array::new([10i32, 20, 400, 300]));
    player.show(buffer_of(&picture));
    assert_on_screen(&placed(&picture, W, H, 10 + 40, 20 + 50));
}

#[test]
fn a_large_frame_shows_its_middle() {
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&bgrx(800, 600));
    player.set_state(gst::State::Playing);
    let picture = numbered(800, 600, 3);
    player.show(buffer_of(&picture));
    assert_on_screen(&part(&picture, 80, 60, W, H));
}

#[test]
fn a_rotation_that_was_left_on_the_plane_is_undone() {
    if support::kernel_version() == (6, 1) {
        return support::skip("vkms of 6.1 turns nothing");
    }
    let picture = numbered(W, H, 22);
    let turned = Picture::from_fn(W, H, |x, y| picture.pixel(W - 1 - x, H - 1 - y));
    for (rest, expected) in [
        ("rotate-method=180 restore-crtc=false", &turned),
        ("restore-crtc=false", &picture),
    ] {
        let player = Player::with_appsrc(&format!("mode=640x480 {rest}"));
        player.set_caps(&bgrx(W as u32, H as u32));
        player.set_state(gst::State::Playing);
        player.show(buffer_of(&picture));
        assert_on_screen(expected);
    }
}

#[test]
fn the_plane_turns_and_mirrors_the_picture() {
    if support::kernel_version() == (6, 1) {
        return support::skip("vkms of 6.1 turns nothing");
    }
    let picture = numbered(400, 300, 21);
    let (w, h) = (picture.width, picture.height);
    type Pixel<'a> = Box<dyn Fn(usize, usize) -> [u8; 3] + 'a>;
    let p = &picture;
    let cases: [(&str, usize, usize, Pixel); 5] = [
        ("180", w, h, Box::new(|x, y| p.pixel(w - 1 - x, h - 1 - y))),
        ("horiz", w, h, Box::new(|x, y| p.pixel(w - 1 - x, y))),
        ("vert", w, h, Box::new(|x, y| p.pixel(x, h - 1 - y))),
        ("90r", h, w, Box::new(|x, y| p.pixel(y, h - 1 - x))),
        ("90l", h, w, Box::new(|x, y| p.pixel(w - 1 - y, x))),
    ];
    for (method, width, height, pixel) in cases {
        let player = Player::with_appsrc(&format!("mode=640x480 rotate-method={method}"));
        player.set_caps(&bgrx(w as u32, h as u32));
        player.set_state(gst::State::Playing);
        player.show(buffer_of(&picture));
        eprintln!("{method}");
        assert_on_screen(&centred(&Picture::from_fn(width, height, pixel), W, H));
    }
}

/// The picture turned to the right by a quarter, and upside down.
fn turned_to_the_right(picture: &Picture) -> Picture {
    let (w, h) = (picture.width, picture.height);
    Picture::from_fn(h, w, |x, y| picture.pixel(y, h - 1 - x))
}

fn upside_down(picture: &Picture) -> Picture {
    let (w, h) = (picture.width, picture.height);
    Picture::from_fn(w, h, |x, y| picture.pixel(w - 1 - x, h - 1 - y))
}

#[test]
fn a_rotation_that_changes_while_playing_turns_the_next_frame() {
    if support::kernel_version() == (6, 1) {
        return support::skip("vkms of 6.1 turns nothing");
    }
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&bgrx(400, 300));
    player.set_state(gst::State::Playing);
    let picture = numbered(400, 300, 23);
    for (method, expected) in [
        ("identity", picture.clone()),
        ("90r", turned_to_the_right(&picture)),
        ("180", upside_down(&picture)),
        ("identity", picture.clone()),
        ("custom", picture.clone()),
    ] {
        player.sink.set_property_from_str("rotate-method", method);
        player.show(buffer_of(&picture));
        eprintln!("{method}");
        assert_on_screen(&centred(&expected, W, H));
    }
    let warnings = player.messages(gst::MessageType::Warning);
    assert!(
        warnings.iter().any(|text| text.contains("custom")),
        "{warnings:?}"
    );
}

#[test]
fn auto_turns_the_picture_as_the_tags_ask() {
    let player = Player::with_appsrc("mode=640x480 rotate-method=auto");
    player.set_caps(&bgrx(400, 300));
    player.set_state(gst::State::Playing);
    let picture = numbered(400, 300, 24);
    player.show(buffer_of(&picture));
    assert_on_screen(&centred(&picture, W, H));
    let can_turn = support::kernel_version() != (6, 1);
    for (orientation, expected) in [
        ("rotate-90", turned_to_the_right(&picture)),
        ("rotate-180", upside_down(&picture)),
        ("rotate-0", picture.clone()),
    ] {
        let mut tags = gst::TagList::new();
        tags.make_mut()
            .add::<gst::tags::ImageOrientation>(&orientation, gst::TagMergeMode::Replace);
        assert!(player.appsrc().send_event(gst::event::Tag::new(tags)));
        player.show(buffer_of(&picture));
        eprintln!("{orientation}");
        let expected = if can_turn { &expected } else { &picture };
        assert_on_screen(&centred(expected, W, H));
    }
    let warnings = player.messages(gst::MessageType::Warning);
    let told = |text: &&String| text.contains("image-orientation");
    let n_told = warnings.iter().filter(told).count();
    assert_eq!(n_told, if can_turn { 0 } else { 2 }, "{warnings:?}");
}
