// SPDX-License-Identifier: MPL-2.0
//! A display that is switched off while no new frames come. The judge is the kernel's own state of the CRTC.

use std::fs;
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::{H, W, bgrx_player};
use crate::frames::{assert_on_screen, buffer_of, dma_frame, numbered};
use crate::support::player::Player;

/// ACTIVE of the CRTC.
fn is_active() -> bool {
    let cards = fs::read_dir("/sys/kernel/debug/dri").unwrap();
    let paths = cards.map(|entry| entry.unwrap().path().join("state"));
    let states = paths.filter_map(|path| fs::read_to_string(path).ok());
    let mut known = states.filter_map(|state| {
        let crtc = state.split("crtc[").nth(1)?.to_owned();
        let active = crtc.split("active=").nth(1)?;
        Some(active.starts_with('1'))
    });
    known.next().expect("a CRTC in debugfs")
}

#[track_caller]
fn wait_until_active(is_wanted: bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while is_active() != is_wanted {
        assert!(Instant::now() < deadline, "active={}", !is_wanted);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Long enough for this test to end before it.
const LONG_MS: u32 = 3_600_000;

fn set(player: &Player, milliseconds: u32) {
    player.sink.set_property("standby-timeout", milliseconds);
}

#[test]
fn a_display_without_new_frames_is_off_until_the_next_frame() {
    let was_active = is_active();
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let first = numbered(W, H, 60);
    player.show(dma_frame(&first));
    assert_on_screen(&first);
    // Starved.
    set(&player, 100);
    wait_until_active(false);
    set(&player, LONG_MS);
    assert!(!is_active(), "another time is no frame");
    let second = numbered(W, H, 61);
    player.show(dma_frame(&second));
    assert!(is_active());
    assert_on_screen(&second);
    // In PAUSED. A frame that is shown again is one too.
    player.set_state(gst::State::Paused);
    set(&player, 100);
    wait_until_active(false);
    set(&player, 0);
    wait_until_active(true);
    assert_on_screen(&second);
    assert_eq!(player.errors(), [""; 0]);
    // At the end of the stream, and from there to the end.
    player.set_state(gst::State::Playing);
    player.appsrc().end_of_stream().unwrap();
    player.wait_for_end();
    set(&player, 100);
    wait_until_active(false);
    player.reach(gst::State::Null);
    assert_eq!(is_active(), was_active, "restored");
}

#[test]
fn frames_that_come_in_time_keep_the_display_on() {
    let player = bgrx_player();
    set(&player, LONG_MS);
    player.set_state(gst::State::Playing);
    for number in 0..4 {
        player.show(buffer_of(&numbered(W, H, 62 + number)));
        assert!(is_active());
    }
    assert_on_screen(&numbered(W, H, 65));
}
