// SPDX-License-Identifier: MPL-2.0
//! Several planes of one CRTC: vkms with overlays
//! (`--append vkms.enable_overlay=1`).

use std::io::Write;

use gst::prelude::*;

use crate::frames::{
    assert_crc, assert_on_screen, bgrx, bgrx_bytes, buffer_of, crc_now, dma_frame, info, laid_on,
    numbered, placed, plain,
};
use crate::support::player::{Player, init};
use crate::support::{Picture, kernel_version, skip};

const W: usize = 640;
const H: usize = 480;

fn small_player() -> Player {
    let player = Player::with_appsrc("");
    player.set_caps(&bgrx(200, 150));
    player
        .sink
        .set_property("render-rectangle", gst::Array::new([100i32, 120, 200, 150]));
    player
}

#[test]
fn two_sinks_show_on_two_planes_of_one_display_at_once() {
    let below = Player::with_appsrc("mode=640x480");
    below.set_caps(&bgrx(W as u32, H as u32));
    below.set_state(gst::State::Playing);
    let ground = numbered(W, H, 1);
    below.show(buffer_of(&ground));
    let above = small_player();
    above.set_state(gst::State::Playing);
    let first = numbered(200, 150, 2);
    above.show(buffer_of(&first));
    assert_on_screen(&laid_on(&ground, &first, 100, 120));
    let planes = [&below, &above].map(|player| player.stats().get::<u32>("plane-id").unwrap());
    assert_ne!(planes[0], planes[1]);
    // A new frame on one plane leaves the other one as it is; then both planes play at once.
    let ground = numbered(W, H, 3);
    below.show(dma_frame(&ground));
    assert_on_screen(&laid_on(&ground, &first, 100, 120));
    for number in 4..12 {
        below.push(dma_frame(&numbered(W, H, number)));
        above.push(dma_frame(&numbered(200, 150, number + 100)));
    }
    above.wait_shown(9);
    below.wait_shown(10);
    let (ground, top) = (numbered(W, H, 11), numbered(200, 150, 111));
    assert_on_screen(&laid_on(&ground, &top, 100, 120));
    drop(above);
    assert_on_screen(&ground);
    let last = numbered(W, H, 13);
    below.show(buffer_of(&last));
    assert_on_screen(&last);
}

#[test]
fn the_console_comes_back_also_if_the_last_sink_showed_nothing() {
    init();
    let console = crc_now();
    let below = Player::with_appsrc("mode=640x480");
    below.set_caps(&bgrx(W as u32, H as u32));
    below.set_state(gst::State::Playing);
    let above = small_player();
    above.reach(gst::State::Ready);
    let picture = numbered(W, H, 14);
    below.show(buffer_of(&picture));
    assert_on_screen(&picture);
    drop(below);
    drop(above);
    assert_crc(console);
}

#[test]
fn an_overlay_keeps_what_was_on_the_screen() {
    init();
    // Fills the console's picture with one known colour.
    let (width, height) = (1024, 768);
    let colour = [0x40u8, 0x80, 0xc0];
    let mut framebuffer = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/fb0")
        .unwrap();
    let pixel = [colour[2], colour[1], colour[0], 0];
    framebuffer
        .write_all(&pixel.repeat(width * height))
        .unwrap();
    let console = plain(width, height, colour);
    assert_on_screen(&console);
    let overlay = overlay_plane();
    let player = Player::with_appsrc(&format!("plane-id={overlay} connector=Virtual-1"));
    player.set_caps(&bgrx(200, 150));
    player
        .sink
        .set_property("render-rectangle", gst::Array::new([100i32, 120, 200, 150]));
    player.set_state(gst::State::Playing);
    let picture = numbered(200, 150, 5);
    player.show(buffer_of(&picture));
    assert_on_screen(&laid_on(&console, &picture, 100, 120));
    player.reach(gst::State::Null);
    assert_on_screen(&console);
    assert_eq!(crc_now(), console.vkms_crc());
}

#[test]
fn a_plane_of_another_sink_is_refused_at_once_by_name() {
    let first = Player::with_appsrc("mode=640x480");
    first.reach(gst::State::Ready);
    let plane = first.stats().get::<u32>("plane-id").unwrap();
    let second = Player::with_appsrc(&format!("plane-id={plane}"));
    assert!(second.pipeline.set_state(gst::State::Ready).is_err());
    let error = second.wait_for_error();
    let said = format!("plane {plane} is in use by another sink of this process");
    assert!(error.contains(&said), "{error}");
}

fn bgra(width: usize, height: usize) -> gst_video::VideoInfo {
    info(gst_video::VideoFormat::Bgra, width as u32, height as u32)
}

fn opaque(picture: &Picture) -> gst::Buffer {
    let mut bytes = bgrx_bytes(picture, picture.width * 4);
    bytes
        .iter_mut()
        .skip(3)
        .step_by(4)
        .for_each(|alpha| *alpha = 255);
    gst::Buffer::from_slice(bytes)
}

fn plane_of(player: &Player) -> u32 {
    player.stats().get("plane-id").unwrap()
}

#[test]
fn a_format_is_shown_on_a_plane_that_can() {
    init();
    let console = crc_now();
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&bgrx(W as u32, H as u32));
    player.set_state(gst::State::Playing);
    let primary = plane_of(&player);
    // vkms of Linux 6.1 shows formats with alpha on overlays only.
    let is_alpha_above = kernel_version() < (6, 2);
    for number in 0..4 {
        let picture = numbered(W, H, 20 + number);
        let with_alpha = number % 2 == 1;
        match with_alpha {
            true => {
                player.set_caps(&bgra(W, H));
                player.show(opaque(&picture));
            }
            false => {
                player.set_caps(&bgrx(W as u32, H as u32));
                player.show(buffer_of(&picture));
            }
        }
        // The sink stays on the overlay once it has moved there, because that shows both formats.
        let is_above = is_alpha_above && number > 0;
        assert_eq!(plane_of(&player) != primary, is_above, "{}", player.stats());
        assert_on_screen(&picture);
    }
    assert_eq!(player.count("shown"), 4, "{}", player.stats());
    assert_eq!(player.errors(), [""; 0]);
    drop(player);
    assert_crc(console);
}

#[test]
fn a_plane_that_a_sink_has_left_is_free_for_another() {
    if kernel_version() >= (6, 2) {
        return skip("vkms shows every format on its primary plane since Linux 6.2");
    }
    let above = Player::with_appsrc("mode=640x480");
    above.set_caps(&bgra(200, 150));
    let place = gst::Array::new([100i32, 120, 200, 150]);
    above.sink.set_property("render-rectangle", place);
    above.set_state(gst::State::Playing);
    let top = numbered(200, 150, 30);
    above.show(opaque(&top));
    assert_on_screen(&placed(&top, W, H, 100, 120));
    let below = Player::playing("");
    let ground = numbered(W, H, 31);
    below.show(buffer_of(&ground));
    assert_on_screen(&laid_on(&ground, &top, 100, 120));
    // The plane below the overlay is switched off again.
    drop(below);
    assert_on_screen(&placed(&top, W, H, 100, 120));
}

/// The id of an overlay plane, from the list in the error for an id that does not exist.
fn overlay_plane() -> u32 {
    let player = Player::with_appsrc("plane-id=1");
    assert!(player.pipeline.set_state(gst::State::Ready).is_err());
    let error = player.wait_for_error();
    let list = error
        .split("Overlay plane ")
        .nth(1)
        .unwrap_or_else(|| panic!("no overlay in {error}"));
    list.split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap()
        .parse()
        .unwrap()
}
