// SPDX-License-Identifier: MPL-2.0
//! Two cards in one machine: vkms, judged by its CRC, and bochs, judged from
//! outside (`--display vkms --qemu '-device bochs-display'`).

use gst::prelude::*;

use crate::player::{Player, assert_on_screen, bgrx, buffer_of, dma_frame, init, numbered};
use crate::unpaced::assert_seen;

const W: usize = 640;
const H: usize = 480;

fn on(driver: &str) -> Player {
    let player = Player::fed(&format!("mode=640x480 driver-name={driver}"));
    player.set_caps(&bgrx(W as u32, H as u32));
    player.set_state(gst::State::Playing);
    player
}

#[test]
fn two_sinks_show_on_two_cards_at_once() {
    let (left, right) = (on("vkms"), on("bochs-drm"));
    for number in 0..6 {
        let pictures = [numbered(W, H, number), numbered(W, H, number + 100)];
        left.push(dma_frame(&pictures[0]));
        right.push(buffer_of(&pictures[1]));
        left.wait_shown(number as u64 + 1);
        right.wait_shown(number as u64 + 1);
        assert_on_screen(&pictures[0]);
        assert_seen(&pictures[1]);
    }
    let devices = [&left, &right].map(|player| player.stats().get::<String>("device").unwrap());
    assert_ne!(devices[0], devices[1]);
    // One that ends leaves the other alone.
    left.reach(gst::State::Null);
    let last = numbered(W, H, 200);
    right.show(buffer_of(&last));
    assert_seen(&last);
}

#[test]
fn one_stream_is_shown_on_two_cards_by_a_tee() {
    init();
    let player = Player::new(
        "rawvideosrc num-buffers=20 ! video/x-raw,format=BGRx,width=640,height=480,framerate=60/1 \
         ! tee name=t ! queue ! kmsflipsink name=sink driver-name=vkms mode=640x480 sync=false \
         t. ! queue ! kmsflipsink name=other driver-name=bochs-drm mode=640x480 sync=false",
    );
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    let other = player.pipeline.by_name("other").unwrap();
    let shown = |sink: &gst::Element| {
        let stats: gst::Structure = sink.property("stats");
        stats.get::<u64>("shown").unwrap()
    };
    assert_eq!((shown(&player.sink), shown(&other)), (20, 20));
}
