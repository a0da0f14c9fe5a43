// SPDX-License-Identifier: MPL-2.0
//! Many starts, stops, flushes and seeks: nothing leaks, nothing hangs, and the framebuffer is
//! restored each time. Works with any display that has a framebuffer.

use std::time::Duration;

use gst::prelude::*;

use super::fb::{self, Fb, KD_TEXT, console_mode};
use super::support::player::Player;
use super::support::{gst_launch, open_fds, require_lab, run};

const PIPELINE: &str = "rawvideosrc ! fbpansink name=sink sync=false";

#[test]
fn two_hundred_starts_and_stops_leave_nothing_behind() {
    require_lab();
    let framebuffer = Fb::open();
    let before = framebuffer.var();
    let player = Player::new(PIPELINE);
    let mut fds = None;
    for round in 0..200 {
        player.start();
        if round % 4 != 0 {
            // Three of four rounds show frames; the fourth is stopped at once.
            let (state, ..) = player.pipeline.state(gst::ClockTime::from_seconds(120));
            assert!(state.is_ok(), "round {round}: {:?}", player.errors());
            assert!(player.count("shown") > 0, "round {round}");
        }
        player.stop();
        assert_eq!(framebuffer.var(), before, "round {round}");
        assert_eq!(console_mode(), KD_TEXT, "round {round}");
        // The first rounds open files that GStreamer keeps.
        match (round, fds) {
            (20, None) => fds = Some(open_fds()),
            (_, Some(fds)) => assert_eq!(open_fds(), fds, "round {round}"),
            _ => {}
        }
    }
}

#[test]
fn the_leaks_tracer_finds_nothing() {
    require_lab();
    for pipeline in [
        "rawvideosrc num-buffers=20 ! fbpansink sync=false",
        "videotestsrc num-buffers=20 ! tee ! queue ! fbpansink sync=false",
        "rawvideosrc num-buffers=20 ! queue ! fbpansink fb-pages=2 sync=false enable-last-sample=true",
    ] {
        let mut launch = gst_launch(pipeline);
        launch
            .env("GST_TRACERS", "leaks")
            .env("GST_DEBUG", "GST_TRACER:7")
            .env("GST_DEBUG_NO_COLOR", "1");
        let ran = run(&mut launch).expect_success();
        let leaks: Vec<_> = ran
            .stderr
            .lines()
            .filter(|line| line.contains("object-alive, type-name=") && !line.contains("%s"))
            .collect();
        assert!(leaks.is_empty(), "{pipeline}: {leaks:#?}");
    }
}

#[test]
fn flushes_and_seeks_in_a_storm_neither_hang_nor_leak_pages() {
    require_lab();
    let framebuffer = Fb::open();
    let before = framebuffer.var();
    let path = std::env::temp_dir().join("storm.raw");
    super::pictures::noise_file(&path, 60, 64 * 48 * 3);
    for queue in ["", "! queue"] {
        let player = Player::new(&format!(
            "rawvideosrc location={} format=bgr width=64 height=48 framerate=60/1 loop=true {queue} ! fbpansink name=sink",
            path.display()
        ));
        player.start();
        for round in 0u64..150 {
            match round % 5 {
                0 => player.seek(round % 60, 60),
                1 => {
                    player.pipeline.set_state(gst::State::Paused).unwrap();
                }
                2 => {
                    let flags = gst::SeekFlags::FLUSH;
                    player
                        .pipeline
                        .seek_simple(flags, gst::ClockTime::from_mseconds(round))
                        .unwrap();
                }
                3 => player.start(),
                _ => std::thread::sleep(Duration::from_millis(round % 7)),
            }
        }
        // All fb_pages are still in use: the picture changes.
        player.start();
        let shown = player.count("shown");
        while player.count("shown") < shown + 12 {
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(player.errors(), [""; 0]);
        }
        assert_eq!(player.count("copied"), 0, "{}", player.stats());
        player.stop();
    }
    assert_eq!(
        framebuffer.var()[fb::YRES_VIRTUAL],
        before[fb::YRES_VIRTUAL]
    );
    std::fs::remove_file(path).unwrap();
}

#[test]
fn stopping_wakes_everything_that_waits() {
    require_lab();
    // Here a source waits for fb_pages, or a sink waits for the clock.
    for launch in [
        "rawvideosrc ! queue ! fbpansink name=sink",
        "rawvideosrc framerate=1/10 ! fbpansink name=sink",
        "videotestsrc ! tee ! queue ! fbpansink name=sink fb-pages=2",
    ] {
        let player = Player::new(launch);
        for state in [gst::State::Paused, gst::State::Playing] {
            player.pipeline.set_state(state).unwrap();
            let (result, ..) = player.pipeline.state(gst::ClockTime::from_seconds(120));
            assert!(result.is_ok());
            std::thread::sleep(Duration::from_millis(50));
            player.stop();
        }
    }
}
