// SPDX-License-Identifier: MPL-2.0
//! vkms with a guest clock that counts instructions (`tests/lab/run --icount 0`), so that what the
//! guest computes between two vertical blanks does not depend on the load of the host.

use std::time::Duration;

use gst::prelude::*;

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

/// One refresh of that mode, to the millihertz.
const PERIOD_NS: u64 = 16_683_350;

fn ns(presented: &gst::Structure, name: &str) -> i64 {
    let ns = presented.get::<u64>(name);
    ns.unwrap_or_else(|e| panic!("{name}: {e}: {presented}")) as i64
}

#[test]
fn each_frame_is_told_with_the_vertical_blank_that_showed_it() {
    let player = Player::new(
        "rawvideosrc num-buffers=180 ! video/x-raw,width=640,height=480,framerate=30/1 \
         ! kmsflipsink name=sink mode=640x480 post-presentation-messages=true",
    );
    player.start();
    let presented = player.presented_until_end();
    assert_eq!(presented.len(), 180, "{}", player.stats());
    for (number, frame) in presented.iter().enumerate() {
        let pts = ns(frame, "timestamp");
        let off_ns = pts - number as i64 * 1_000_000_000 / 30;
        assert!(off_ns.abs() <= 1, "{frame}");
        assert_eq!(
            (ns(frame, "running-time"), ns(frame, "stream-time")),
            (pts, pts)
        );
        assert_eq!(ns(frame, "refresh-period"), PERIOD_NS as i64);
        for flag in ["vsync", "hw-clock", "zero-copy"] {
            assert_eq!(frame.get::<bool>(flag), Ok(true), "{flag}: {frame}");
        }
    }
    // The first second is left out, in which the guest may be late.
    for pair in presented.windows(2).skip(30) {
        let [one, next] = pair else { unreachable!() };
        let sequence = |frame: &gst::Structure| frame.get::<u32>("sequence").unwrap();
        let blanks = i64::from(sequence(next).wrapping_sub(sequence(one)));
        assert!((1..=3).contains(&blanks), "{one} {next}");
        let time = ns(next, "presentation-time") - ns(one, "presentation-time");
        let off_ns = time - blanks * PERIOD_NS as i64;
        assert!(off_ns.abs() < 100_000, "{off_ns}: {one} {next}");
        let early = ns(next, "target-time") - ns(next, "presentation-time");
        // The base class drops a frame that it hands over more than 5 ms (max-lateness) after its time, and a busy machine
        // may hand it to the driver later still: it is at the next vertical blank then.
        let allowed = -(PERIOD_NS as i64)..PERIOD_NS as i64;
        assert!(allowed.contains(&early), "{early} ns early: {next}");
    }
}

#[test]
fn the_pipeline_is_delayed_by_one_period_of_the_mode() {
    let least_latency = |source: &str| {
        let player = Player::new(&format!(
            "{source} num-buffers=30 ! video/x-raw,width=640,height=480,framerate=30/1 \
             ! kmsflipsink name=sink mode=640x480"
        ));
        player.reach(gst::State::Playing);
        assert_eq!(player.sink.property::<u64>("render-delay"), PERIOD_NS);
        let mut query = gst::query::Latency::new();
        assert!(player.pipeline.query(&mut query));
        player.wait_for_end();
        query.result().1.nseconds()
    };
    assert_eq!(least_latency("rawvideosrc"), PERIOD_NS);
    // videotestsrc reports the duration of a frame, and the base class adds 15 ms for processing.
    let live = least_latency("videotestsrc is-live=true");
    assert_eq!(live, 33_333_333 + 15_000_000 + PERIOD_NS);
}

#[test]
fn what_vkms_cannot_do_is_told_once_and_playing_goes_on() {
    let player = Player::new(
        "rawvideosrc num-buffers=60 ! video/x-raw,width=640,height=480,framerate=60/1 \
         ! kmsflipsink name=sink mode=640x480 variable-refresh=true tearing=true \
         post-presentation-messages=true",
    );
    player.start();
    let presented = player.presented_until_end();
    assert_eq!(presented.len(), 60);
    for frame in &presented {
        assert_eq!(frame.get::<bool>("vsync"), Ok(true), "{frame}");
    }
    assert_eq!(player.sink.property::<u64>("render-delay"), PERIOD_NS);
    let warnings = player.messages(gst::MessageType::Warning);
    let n_of = |property: &str| {
        let begin = format!("{property}=true has no effect");
        let of = warnings.iter().filter(|text| text.contains(&begin));
        of.count()
    };
    assert_eq!(
        ["variable-refresh", "tearing"].map(n_of),
        [1, 1],
        "{warnings:?}"
    );
}

/// vkms has modes of 60 Hz only, so 24 frames a second and then 50 are shown in one mode. max-lateness is off, because
/// the guest may take longer than that to plan for the new caps, and the base class would drop a frame.
#[test]
fn caps_of_another_rate_go_on_where_the_mode_stays() {
    let part = |rate| {
        format!(
            "rawvideosrc num-buffers=48 ! video/x-raw,width=640,height=480,framerate={rate}/1 ! all."
        )
    };
    let player = Player::new(&format!(
        "{} {} concat name=all ! kmsflipsink name=sink mode=auto max-lateness=-1 post-presentation-messages=true",
        part(24),
        part(50)
    ));
    player.start();
    let presented = player.presented_until_end();
    assert_eq!(presented.len(), 96, "{}", player.stats());
    let last = |at: usize| ns(&presented[at], "running-time");
    assert_eq!(last(95) - last(94), 20_000_000);
    for pair in presented.windows(2) {
        let [one, next] = pair else { unreachable!() };
        assert_eq!(ns(one, "refresh-period"), ns(next, "refresh-period"));
    }
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
