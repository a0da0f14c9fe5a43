// SPDX-License-Identifier: MPL-2.0
//! A connector without a display, before and during a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;

use super::{H, W, assert_warned_and_dropped, bgrx_player, force_connector};
use crate::frames::{assert_on_screen, bgrx, buffer_of, centred, numbered};
use crate::support::player::{Player, init};

#[test]
fn a_connector_without_display_drops_frames_until_it_is_back() {
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let (first, second) = (numbered(W, H, 1), numbered(W, H, 2));
    player.show(buffer_of(&first));
    force_connector("off");
    player.wait_for_event("unplugged");
    for _ in 0..3 {
        player.push(buffer_of(&second));
    }
    player.wait_until("dropped frames", |player| {
        player.count("dropped-disconnected") >= 2
    });
    force_connector("on");
    player.wait_for_event("plugged");
    player.show(buffer_of(&second));
    assert_on_screen(&second);
    force_connector("unspecified");
    player.reach(gst::State::Null);
    assert!(player.errors().is_empty());
}

#[test]
fn a_start_without_a_display_waits_for_it() {
    for wish in ["", "connector=Virtual-1"] {
        init();
        force_connector("off");
        let player = Player::with_appsrc(&format!("mode=640x480 {wish}"));
        player.set_caps(&bgrx(W as u32, H as u32));
        player.set_state(gst::State::Playing);
        let pictures = [numbered(W, H, 1), numbered(W, H, 2)];
        player.push(buffer_of(&pictures[0]));
        assert_warned_and_dropped(&player, &pictures[0], "dropped-disconnected");
        force_connector("on");
        player.wait_for_event("plugged");
        // The sink shows the last frame that it had to drop, although no other one has arrived.
        assert_on_screen(&pictures[0]);
        player.show(buffer_of(&pictures[1]));
        assert_on_screen(&pictures[1]);
        force_connector("unspecified");
        player.reach(gst::State::Null);
        assert_eq!(player.errors(), [""; 0]);
    }
}

#[test]
fn a_still_picture_in_paused_is_shown_when_the_display_comes() {
    init();
    force_connector("off");
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&bgrx(W as u32, H as u32));
    player.set_state(gst::State::Paused);
    let picture = numbered(W, H, 3);
    player.push(buffer_of(&picture));
    player.reach(gst::State::Paused);
    force_connector("on");
    assert_on_screen(&picture);
    // The base class renders the same frame when it plays on. It is on the screen already.
    player.reach(gst::State::Playing);
    let next = numbered(W, H, 4);
    player.show(buffer_of(&next));
    assert_on_screen(&next);
    assert_eq!(player.count("shown"), 2, "{}", player.stats());
    force_connector("unspecified");
}

/// Bytes of a buffer that tell when they are given up.
struct Told(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Told {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Release);
    }
}

#[test]
fn a_frame_that_waits_for_a_display_is_given_up_in_ready() {
    init();
    force_connector("off");
    let player = Player::with_appsrc("mode=640x480 enable-last-sample=false");
    player.set_caps(&bgrx(W as u32, H as u32));
    player.set_state(gst::State::Playing);
    let is_given_up = Arc::new(AtomicBool::new(false));
    let bytes = Told(vec![0; W * H * 4], is_given_up.clone());
    player.push(gst::Buffer::from_slice(bytes));
    player.wait_until("dropped frames", |player| {
        player.count("dropped-disconnected") >= 1
    });
    assert!(!is_given_up.load(Ordering::Acquire), "it waits");
    player.reach(gst::State::Ready);
    assert!(is_given_up.load(Ordering::Acquire));
    force_connector("on");
    player.wait_for_event("plugged");
    assert_eq!(player.count("shown"), 0);
    force_connector("unspecified");
    player.reach(gst::State::Null);
}

#[test]
fn a_flush_during_a_preroll_leaves_a_sink_that_can_be_stopped() {
    init();
    force_connector("off");
    let player = Player::with_appsrc("mode=640x480");
    // Without a display, the sink takes the time of a frame for each one: here, longer than any wait of this test.
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Bgrx, W as u32, H as u32);
    let info = info.fps(gst::Fraction::new(1, 3600)).build().unwrap();
    for _ in 0..2 {
        player.set_caps(&info);
        player.set_state(gst::State::Paused);
        player.push(buffer_of(&numbered(W, H, 1)));
        // The base class keeps the frame just before it has it prerolled.
        player.wait_until("a frame that prerolls", |player| {
            let sample: Option<gst::Sample> = player.sink.property("last-sample");
            sample.is_some()
        });
        player.flush();
        player.reach(gst::State::Ready);
        assert!(!player.sink.static_pad("sink").unwrap().is_active());
    }
    force_connector("on");
    player.set_caps(&info);
    player.set_state(gst::State::Paused);
    let picture = numbered(W, H, 5);
    player.push(buffer_of(&picture));
    player.settle(gst::State::Paused);
    assert_on_screen(&picture);
    force_connector("unspecified");
}

#[test]
fn a_stop_while_a_display_is_waited_for_does_not_hang() {
    init();
    force_connector("off");
    for sync in [false, true] {
        let player = Player::new(&format!(
            "rawvideosrc ! video/x-raw,width=640,height=480,framerate=60/1 \
             ! kmsflipsink name=sink mode=640x480 sync={sync}"
        ));
        player.set_state(gst::State::Playing);
        player.wait_until("dropped frames", |player| {
            player.count("dropped-disconnected") >= 3
        });
        for state in [gst::State::Paused, gst::State::Playing, gst::State::Null] {
            player.reach(state);
        }
    }
    force_connector("unspecified");
}

#[test]
fn caps_that_change_without_a_display_are_shown_when_it_is_back() {
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    player.show(buffer_of(&numbered(W, H, 1)));
    force_connector("off");
    player.wait_for_event("unplugged");
    let small = numbered(320, 240, 2);
    player.set_caps(&bgrx(320, 240));
    for _ in 0..3 {
        player.push(buffer_of(&small));
    }
    player.wait_until("dropped frames", |player| {
        player.count("dropped-disconnected") >= 2
    });
    force_connector("on");
    player.wait_for_event("plugged");
    player.show(buffer_of(&small));
    assert_on_screen(&centred(&small, W, H));
    force_connector("unspecified");
    assert_eq!(player.errors(), [""; 0]);
}
