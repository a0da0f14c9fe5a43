// SPDX-License-Identifier: MPL-2.0
//! vkms with a guest clock that counts instructions (`tests/lab/run --icount 0`):
//! what the guest gets done between two vertical blanks does not hang on the
//! host's load.

use crate::player::Player;

/// 640x480@60 is 25,175 kHz over 800 by 525 pixels.
const REFRESH_HZ: f64 = 25_175_000.0 / (800.0 * 525.0);

fn play(sink: &str) -> Player {
    let player = Player::new(&format!(
        "rawvideosrc num-buffers=300 ! video/x-raw,width=640,height=480,framerate=60/1 \
         ! kmsflipsink name=sink {sink}"
    ));
    player.set_state(gst::State::Playing);
    player.wait_shown(60);
    let missed = player.count("missed-vblanks");
    player.wait_for_end();
    let stats = player.stats();
    println!("{stats}");
    assert_eq!(
        (
            player.count("shown"),
            player.count("zero-copy"),
            player.count("copied")
        ),
        (300, 300, 0),
        "{stats}"
    );
    assert_eq!(
        player.count("missed-vblanks"),
        missed,
        "after the first second: {stats}"
    );
    player
}

#[test]
fn each_vertical_blank_shows_a_new_frame_and_none_is_missed() {
    let player = play("mode=640x480 sync=false");
    let rate: f64 = player.stats().get("flips-per-second").unwrap();
    // 299 flips in 299 periods; half a flip for the rounding of the mode's clock.
    assert!((rate - REFRESH_HZ).abs() < 0.5 / 5.0, "{rate}");
}

#[test]
fn frames_at_the_clocks_rate_are_all_shown_and_no_vertical_blank_is_missed() {
    play("mode=640x480");
}
