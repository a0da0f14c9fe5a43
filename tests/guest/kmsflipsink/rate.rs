// SPDX-License-Identifier: MPL-2.0
//! vkms with a guest clock that counts instructions (`tests/lab/run --icount 0`), so that what the
//! guest computes between two vertical blanks does not depend on the load of the host.

use std::time::Duration;

use crate::support::player::Player;
use crate::support::{guest_clock, switch_vt};
use crate::vkms::force_connector;

/// The mode 640x480@60 has a pixel clock of 25,175 kHz and 800 by 525 pixels with its blanking.
const REFRESH_HZ: f64 = 25_175_000.0 / (800.0 * 525.0);

/// Frames a second, without the first second.
fn play(sink: &str) -> f64 {
    let player = Player::new(&format!(
        "rawvideosrc num-buffers=300 ! video/x-raw,width=640,height=480,framerate=60/1 \
         ! kmsflipsink name=sink {sink}"
    ));
    player.set_state(gst::State::Playing);
    player.wait_shown(60);
    let (begin, shown) = (guest_clock(), player.count("shown"));
    let missed = player.count("missed-vblanks");
    player.wait_for_end();
    let time = guest_clock() - begin;
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
    (300 - shown) as f64 / time.as_secs_f64()
}

#[test]
fn each_vertical_blank_shows_a_new_frame_and_none_is_missed() {
    let rate = play("mode=640x480 sync=false");
    // 240 frames in 240 periods: 241 periods would make the rate a quarter of a frame a second
    // lower.
    assert!((rate - REFRESH_HZ).abs() < 0.2, "{rate}");
}

#[test]
fn frames_at_the_clocks_rate_are_all_shown_and_no_vertical_blank_is_missed() {
    play("mode=640x480");
}

#[test]
fn nothing_that_happens_to_the_display_holds_a_state_change_up() {
    const LIMIT: Duration = Duration::from_secs(2);
    let home = std::fs::read_to_string("/sys/class/tty/tty0/active").unwrap();
    let home = home.trim();
    let away = if home == "tty2" { "tty3" } else { "tty2" };
    type Act<'a> = (&'a str, &'a dyn Fn(&Player), &'a dyn Fn());
    let acts: [Act; 3] = [
        ("playing", &|_| (), &|| ()),
        (
            "unplugged",
            &|player| {
                force_connector("off");
                player.wait_for_event("unplugged");
            },
            &|| force_connector("unspecified"),
        ),
        (
            "another virtual terminal",
            &|player| {
                switch_vt(away);
                player.wait_for_event("master-lost");
            },
            &|| switch_vt(home),
        ),
    ];
    for (name, begin, end) in acts {
        for sync in [false, true] {
            let player = Player::new(&format!(
                "rawvideosrc ! video/x-raw,width=640,height=480,framerate=60/1 \
                 ! kmsflipsink name=sink mode=640x480 sync={sync}"
            ));
            player.set_state(gst::State::Playing);
            player.wait_shown(5);
            begin(&player);
            for state in [gst::State::Paused, gst::State::Playing, gst::State::Null] {
                let before = guest_clock();
                player.reach(state);
                let time = guest_clock() - before;
                println!("{name}, sync={sync}: {time:?} to {state:?}");
                assert!(time < LIMIT, "{name}, sync={sync}: {time:?} to {state:?}");
            }
            end();
        }
    }
}
