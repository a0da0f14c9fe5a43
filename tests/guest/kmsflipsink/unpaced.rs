// SPDX-License-Identifier: MPL-2.0
//! bochs, virtio-gpu and cirrus, which have no vertical blank and memory of their own. The picture
//! is the one that QEMU takes of the screen.

use std::fs;

use gst::prelude::*;

use crate::frames::{
    bgrx, buffer_of, centred, composed, info, laid_on, numbered, opaque_rectangle, part,
    with_overlay,
};
use crate::support::player::{Player, init};
use crate::support::{Picture, display, oracle};

/// Waits until QEMU's screen shows this picture: QEMU reads the card's memory at times of its own.
#[track_caller]
pub fn assert_seen(expected: &Picture) {
    let mut shot = oracle().shot();
    for _ in 0..20 {
        if shot == *expected {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        shot = oracle().shot();
    }
    shot.assert_same_as(expected);
}

#[test]
fn frames_are_shown_unchanged() {
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&bgrx(640, 480));
    player.set_state(gst::State::Playing);
    for number in 0..5 {
        let picture = numbered(640, 480, number);
        player.show(buffer_of(&picture));
        let shown = if display() == "cirrus-drm" {
            as_cirrus_shows(&picture)
        } else {
            picture
        };
        assert_seen(&shown);
    }
}

/// The picture as cirrus shows it. Its driver converts to 16 bits a pixel where a line of 32-bit
/// pixels is too long for the card.
pub fn as_cirrus_shows(picture: &Picture) -> Picture {
    let seen = oracle().shot();
    let is_deep = seen.pixel(20, 100) == picture.pixel(20, 100);
    if is_deep {
        picture.clone()
    } else {
        Picture::from_fn(640, 480, |x, y| {
            let [r, g, b] = picture.pixel(x, y);
            let spread = |v: u8, bits: u32| {
                let top = v >> (8 - bits);
                (top << (8 - bits)) | (top >> (2 * bits - 8))
            };
            [spread(r, 5), spread(g, 6), spread(b, 5)]
        })
    }
}

#[test]
fn upstream_writes_into_memory_that_the_card_shows() {
    init();
    let player =
        Player::new("rawvideosrc num-buffers=30 ! kmsflipsink name=sink sync=false mode=640x480");
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    assert_eq!(
        (
            player.count("shown"),
            player.count("zero-copy"),
            player.count("copied")
        ),
        (30, 30, 0)
    );
    let path: String = player.stats().get("path").unwrap();
    match display().as_str() {
        "bochs" | "virtio" => assert!(path.contains("dumb"), "{path}"),
        _ => assert!(path.contains("dma-bufs"), "{path}"),
    }
}

#[test]
fn without_a_vertical_blank_the_mode_paces() {
    let player =
        Player::new("rawvideosrc num-buffers=60 ! kmsflipsink name=sink sync=false mode=640x480");
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    let stats = player.stats();
    assert!(!stats.get::<bool>("has-vblank").unwrap());
    let rate = stats.get::<f64>("flips-per-second").unwrap();
    eprintln!("{rate:.2} flips/s");
    // No timing of this machine: without pacing these drivers show hundreds of frames a second.
    assert!(rate < 62.0, "{rate}");
}

/// These planes can neither scale nor be moved, so small frames are copied into a buffer of the screen's size.
#[test]
fn an_overlay_composition_is_blended_into_frames_that_are_copied_anyway() {
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&bgrx(320, 240));
    player.start();
    let top = numbered(64, 32, 1);
    // The right half is outside of the frame.
    let rectangle = opaque_rectangle(&top, (320 - 32, 100));
    let composition = composed([rectangle]);
    for number in 2..4 {
        let ground = numbered(320, 240, number);
        player.show(with_overlay(buffer_of(&ground), &composition));
        let visible = part(&top, 0, 0, 32, 32);
        let expected = centred(&laid_on(&ground, &visible, 320 - 32, 100), 640, 480);
        assert_seen(&match display().as_str() {
            "cirrus-drm" => as_cirrus_shows(&expected),
            _ => expected,
        });
    }
    assert_eq!(player.count("overlay-blended"), 2, "{}", player.stats());
}

#[test]
fn small_frames_are_centred() {
    let player = Player::with_appsrc("mode=640x480");
    let small = info(gst_video::VideoFormat::Bgrx, 320, 240);
    player.set_caps(&small);
    player.set_state(gst::State::Playing);
    let picture = numbered(320, 240, 12);
    player.show(buffer_of(&picture));
    let expected = centred(&picture, 640, 480);
    assert_seen(&if display() == "cirrus-drm" {
        as_cirrus_shows(&expected)
    } else {
        expected
    });
}

#[test]
fn a_driver_unbound_while_playing_is_an_error_and_no_hang() {
    init();
    let player = Player::new("rawvideosrc ! kmsflipsink name=sink mode=640x480");
    player.set_state(gst::State::Playing);
    player.wait_shown(3);
    let device = fs::canonicalize("/sys/class/drm/card0/device").unwrap();
    let address = device.file_name().unwrap().to_str().unwrap().to_owned();
    let driver = fs::canonicalize(device.join("driver")).unwrap();
    // The write returns when the driver has released the device, and that may wait for the sink.
    let unbinder = {
        let (file, address) = (driver.join("unbind"), address.clone());
        std::thread::spawn(move || fs::write(file, address))
    };
    let error = player.wait_for_error();
    assert!(error.contains("is gone"), "{error}");
    player.reach(gst::State::Null);
    assert!(player.errors().is_empty(), "one error is enough");
    unbinder.join().unwrap().unwrap();
    assert!(
        player.pipeline.set_state(gst::State::Ready).is_err(),
        "there is no card now"
    );
    player.reach(gst::State::Null);
    fs::write(driver.join("bind"), address).unwrap();
    let again = Player::new("rawvideosrc num-buffers=5 ! kmsflipsink name=sink");
    again.set_state(gst::State::Playing);
    again.wait_for_end();
}
