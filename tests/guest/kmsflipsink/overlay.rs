// SPDX-License-Identifier: MPL-2.0
//! Several planes of one CRTC: vkms with overlays
//! (`--append vkms.enable_overlay=1`).

use std::io::Write;

use gst::prelude::*;
use gst_video::VideoOverlayCompositionMeta;

use crate::frames::{
    assert_crc, assert_on_screen, bgra_bytes, bgrx, blended_by_gstreamer, buffer_of, composed,
    crc_now, dma_frame, info, laid_on, numbered, opaque_rectangle, overlay_rectangle, part, placed,
    plain, with_overlay,
};
use crate::support::player::{Player, init};
use crate::support::{Picture, PixelCrc, kernel_version, skip};

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
    gst::Buffer::from_slice(bgra_bytes(picture))
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

/// The caps of these frames with overlay compositions, as textoverlay sets them.
fn caps_with_overlay(info: &gst_video::VideoInfo) -> gst::Caps {
    let mut caps = info.to_caps().unwrap();
    let meta = gst_video::CAPS_FEATURE_META_GST_VIDEO_OVERLAY_COMPOSITION;
    let features = gst::CapsFeatures::new([gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY, meta]);
    caps.make_mut().set_features(0, Some(features));
    caps
}

#[test]
fn an_overlay_composition_is_shown_on_a_plane_of_its_own_and_the_video_is_not_copied() {
    init();
    let console = crc_now();
    let player = Player::with_appsrc("mode=640x480");
    let caps = caps_with_overlay(&bgrx(W as u32, H as u32));
    player.appsrc().set_caps(Some(&caps));
    player.start();
    let above = |number| {
        let [left, right] = [number, number + 50].map(|n| numbered(64, 32, n));
        let rectangles = [
            opaque_rectangle(&left, (40, 400)),
            opaque_rectangle(&right, (72, 416)),
        ];
        composed(rectangles)
    };
    // A second composition after the first, one that stays for several frames, and none.
    let compositions = [Some(above(1)), Some(above(2)), None, Some(above(3))];
    let mut shown = 0;
    for (number, composition) in compositions.iter().enumerate() {
        for repeat in 0..3 {
            let ground = numbered(W, H, number * 10 + repeat);
            let frame = dma_frame(&ground);
            match composition {
                Some(composition) => {
                    player.show(with_overlay(frame, composition));
                    assert_on_screen(&blended_by_gstreamer(&ground, composition));
                }
                None => {
                    player.show(frame);
                    assert_on_screen(&ground);
                }
            }
            shown += 1;
        }
    }
    player.assert_zero_copy(shown);
    let counts = ["overlay-on-plane", "overlay-blended"].map(|name| player.count(name));
    assert_eq!(counts, [9, 0], "{}", player.stats());
    let pad = player.sink.static_pad("sink").unwrap();
    let mut query = gst::query::Allocation::new(Some(&caps), false);
    assert!(pad.query(&mut query));
    let api = <VideoOverlayCompositionMeta as gst::MetaAPI>::meta_api();
    let mut metas = query.allocation_metas();
    let (_, window) = metas.find(|(known, _)| *known == api).expect("the meta");
    let window = window.expect("the window's size");
    let size = ["width", "height"].map(|name| window.get::<u32>(name).unwrap());
    assert_eq!(size, [W as u32, H as u32]);
    drop(player);
    assert_crc(console);
}

/// overlaycomposition negotiates as textoverlay does.
#[test]
fn an_element_upstream_attaches_its_overlay_and_draws_nothing_into_the_video() {
    let player = Player::new(
        "appsrc name=src format=time is-live=false ! overlaycomposition name=overlay ! \
         kmsflipsink name=sink sync=false mode=640x480",
    );
    player.set_caps(&bgrx(W as u32, H as u32));
    let top = numbered(64, 32, 60);
    let composition = composed([opaque_rectangle(&top, (500, 30))]);
    let overlay = player.pipeline.by_name("overlay").unwrap();
    overlay.connect("draw", false, move |_| Some(composition.to_value()));
    player.start();
    for number in 61..64 {
        let ground = numbered(W, H, number);
        player.show(dma_frame(&ground));
        assert_on_screen(&laid_on(&ground, &top, 500, 30));
    }
    player.assert_zero_copy(3);
    assert_eq!(player.count("overlay-on-plane"), 3, "{}", player.stats());
}

/// The screen also shows the last frame and its overlay when the sink has replaced the frame's memory by a copy.
#[test]
fn an_overlay_composition_stays_when_upstream_gets_its_memory_back() {
    let player = Player::playing("");
    let ground = numbered(W, H, 3);
    let top = numbered(64, 32, 4);
    let composition = composed([opaque_rectangle(&top, (10, 20))]);
    player.show(with_overlay(dma_frame(&ground), &composition));
    let expected = laid_on(&ground, &top, 10, 20);
    assert_on_screen(&expected);
    let pad = player.sink.static_pad("sink").unwrap();
    assert!(pad.query(&mut gst::query::Drain::new()));
    assert_on_screen(&expected);
}

/// vkms blends in 16 bits, and takes colours that are multiplied by alpha.
#[test]
fn a_half_transparent_overlay_composition_is_blended_by_the_plane() {
    const ALPHA: u8 = 128;
    let player = Player::playing("");
    let ground = plain(W, H, [200, 90, 31]);
    let (width, height) = (100, 50);
    let black = [0, 0, 0, ALPHA].repeat(width * height);
    let rectangle = overlay_rectangle(black, (width, height), (0, 10));
    player.show(with_overlay(dma_frame(&ground), &composed([rectangle])));
    let wide = |value: u8| u64::from(value) * 257;
    let below = |value: u8| {
        let product = wide(value) * (0xffff - wide(ALPHA));
        ((product + 0x7fff) / 0xffff) as u16
    };
    let word = |values: [u16; 3]| {
        let words = [0xffff, values[0], values[1], values[2]];
        words.map(u16::to_le_bytes).concat()
    };
    let colour = [200, 90, 31];
    let clear = word(colour.map(|value| wide(value) as u16)).repeat(W);
    let mut shaded = word(colour.map(below)).repeat(width);
    shaded.extend_from_slice(&clear[shaded.len()..]);
    let mut crc = PixelCrc::new();
    for y in 0..H {
        crc.add(match (10..10 + height).contains(&y) {
            true => &shaded,
            false => &clear,
        });
    }
    assert_crc(crc.finish());
    assert_eq!(player.count("overlay-on-plane"), 1, "{}", player.stats());
}

#[test]
fn an_overlay_composition_goes_where_its_frame_goes_and_is_cut_off_with_it() {
    if kernel_version() < (6, 2) {
        return skip("before Linux 6.2, the primary plane of vkms can neither be moved nor cut");
    }
    let player = small_player();
    player.start();
    let ground = numbered(200, 150, 6);
    let top = numbered(64, 32, 7);
    // Half of the rectangle is to the left of the frame, and the crop takes 20 rows off.
    let composition = composed([opaque_rectangle(&top, (-32, 10))]);
    let mut frame = with_overlay(dma_frame(&ground), &composition);
    gst_video::VideoCropMeta::add(frame.make_mut(), (0, 20, 200, 130));
    player.show(frame);
    let cropped = part(&ground, 0, 20, 200, 130);
    let visible = part(&top, 32, 10, 32, 22);
    let cropped = laid_on(&cropped, &visible, 0, 0);
    let (width, height) = screen_size(&player);
    assert_on_screen(&placed(&cropped, width, height, 100, 130));
    player.assert_zero_copy(1);
}

/// Width and height of the mode.
fn screen_size(player: &Player) -> (usize, usize) {
    let mode = player.text("mode");
    let size = mode.split('@').next().unwrap();
    let (width, height) = size.split_once('x').unwrap();
    (width.parse().unwrap(), height.parse().unwrap())
}

#[test]
fn a_second_sink_takes_another_plane_than_that_of_an_overlay_composition() {
    let below = Player::playing("");
    let ground = numbered(W, H, 40);
    let top = numbered(64, 32, 41);
    let composition = composed([opaque_rectangle(&top, (300, 20))]);
    below.show(with_overlay(dma_frame(&ground), &composition));
    let with_top = laid_on(&ground, &top, 300, 20);
    assert_on_screen(&with_top);
    let above = small_player();
    above.set_state(gst::State::Playing);
    let small = numbered(200, 150, 42);
    above.show(buffer_of(&small));
    assert_on_screen(&laid_on(&with_top, &small, 100, 120));
    // The first sink takes its overlay off the screen while the second one shows.
    let ground = numbered(W, H, 43);
    below.show(dma_frame(&ground));
    assert_on_screen(&laid_on(&ground, &small, 100, 120));
    drop(above);
    assert_on_screen(&ground);
}

#[test]
fn a_sink_gets_the_plane_that_another_has_for_overlay_compositions() {
    let overlay = overlay_plane();
    let below = Player::playing("");
    let ground = numbered(W, H, 50);
    let top = numbered(64, 32, 51);
    let composition = composed([opaque_rectangle(&top, (300, 20))]);
    below.show(with_overlay(dma_frame(&ground), &composition));
    let with_top = laid_on(&ground, &top, 300, 20);
    assert_on_screen(&with_top);
    // It is the first one, and no other is tried while it is free.
    let above = Player::with_appsrc(&format!("plane-id={overlay} connector=Virtual-1"));
    above.set_caps(&bgrx(200, 150));
    let place = gst::Array::new([100i32, 120, 200, 150]);
    above.sink.set_property("render-rectangle", place);
    above.start();
    let small = numbered(200, 150, 52);
    above.show(buffer_of(&small));
    assert_on_screen(&laid_on(&ground, &small, 100, 120));
    // With its next frame, the first sink finds another plane.
    below.show(with_overlay(dma_frame(&ground), &composition));
    assert_on_screen(&laid_on(&with_top, &small, 100, 120));
    below.assert_zero_copy(2);
    drop(above);
    assert_on_screen(&with_top);
    drop(below);
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
