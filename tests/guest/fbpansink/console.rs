// SPDX-License-Identifier: MPL-2.0
//! The text console on the same framebuffer, and switches between virtual terminals. Works with any
//! display that has a framebuffer.

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::fb::{
    Fb, KD_GRAPHICS, KD_TEXT, YOFFSET, YRES_VIRTUAL, console_mode, switches_by_itself,
};
use super::support::player::Player;
use super::support::{foreground_vt, gst_launch, oracle, require_lab, switch_vt};

/// Long enough to be reached by a hang only.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT_LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn console_is_restored() -> bool {
    console_mode() == KD_TEXT && switches_by_itself()
}

/// A virtual terminal that is not in the foreground.
fn other_vt() -> &'static str {
    if foreground_vt() == "tty2" {
        "tty3"
    } else {
        "tty2"
    }
}

#[test]
fn the_console_keeps_quiet_while_frames_are_shown() {
    require_lab();
    assert!(console_is_restored());
    let player = Player::play("rawvideosrc num-buffers=3 ! fbpansink name=sink");
    assert_eq!(console_mode(), KD_GRAPHICS);
    assert!(player.stats().get::<bool>("console-quiet").unwrap());
    player.stop();
    assert!(console_is_restored());
    assert_eq!(guards(), [0; 0], "nothing stays behind");

    // The console also comes back after an error.
    let player =
        Player::new("videotestsrc ! fbpansink name=sink render-rectangle=\"<-9, 0, 5, 5>\"");
    player.refuses_to_start();
    assert!(console_is_restored());
}

#[test]
fn another_virtual_terminal_gets_the_screen_and_gives_it_back() {
    require_lab();
    let (home, away) = (foreground_vt(), other_vt());
    switch_vt(away);
    let console = oracle().shot();
    switch_vt(&home);
    for launch in [
        "rawvideosrc num-buffers=6 ! fbpansink name=sink",
        // The console draws into this one fb_page too.
        "rawvideosrc num-buffers=6 ! fbpansink name=sink fb-pages=1",
        "rawvideosrc num-buffers=6 ! fbpansink name=sink fb-pages=2",
    ] {
        let player = Player::play(launch);
        let picture = oracle().shot();
        assert_ne!(picture, console);
        switch_vt(away);
        player.wait_for_event("vt-lost");
        assert_seen(&console);
        switch_vt(&home);
        player.wait_for_event("vt-regained");
        assert_seen(&picture);
        player.stop();
        wait_until(launch, console_is_restored);
    }
}

/// Waits until QEMU's screen shows this picture: QEMU reads the card's memory at times of its own.
#[track_caller]
pub fn assert_seen(expected: &super::support::Picture) {
    let deadline = Instant::now() + WAIT_LIMIT;
    let mut seen = oracle().shot();
    while seen != *expected && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        seen = oracle().shot();
    }
    seen.assert_same_as(expected);
}

#[test]
fn frames_for_a_screen_that_is_away_are_dropped_and_nothing_hangs() {
    require_lab();
    let (home, away) = (foreground_vt(), other_vt());
    for (pages, upstream) in [(0, "rawvideosrc"), (0, "videotestsrc"), (1, "rawvideosrc")] {
        let player = Player::new(&format!(
            "{upstream} ! fbpansink name=sink fb-pages={pages}"
        ));
        player.start();
        player.wait_shown(3);
        switch_vt(away);
        player.wait_for_event("vt-lost");
        wait_until("dropped", || player.count("dropped-vt-away") > 0);
        let shown = player.count("shown");
        switch_vt(&home);
        player.wait_for_event("vt-regained");
        player.wait_shown(shown + 3);
        switch_vt(away);
        player.wait_for_event("vt-lost");
        // State changes also work while the sink does not have the screen.
        player.reach(gst::State::Paused);
        player.start();
        player.stop();
        switch_vt(&home);
        wait_until(upstream, console_is_restored);
    }
}

#[test]
fn a_start_behind_the_last_stop_finds_the_console_as_it_was() {
    require_lab();
    let player = Player::play("rawvideosrc num-buffers=3 ! fbpansink name=sink restore=false");
    let picture = oracle().shot();
    player.stop();
    assert_eq!(console_mode(), KD_GRAPHICS);
    assert_seen(&picture);
    // The terminal can be left all the same, and is a text console again afterwards.
    let (home, away) = (foreground_vt(), other_vt());
    switch_vt(away);
    switch_vt(&home);
    assert!(console_is_restored());
    // A later run with restore still restores the text console.
    Player::play("rawvideosrc num-buffers=3 ! fbpansink name=sink restore=false").stop();
    assert_eq!(console_mode(), KD_GRAPHICS);
    Player::play("rawvideosrc num-buffers=3 ! fbpansink name=sink").stop();
    assert!(console_is_restored());
}

/// A player in a process of its own, which is killed on drop.
struct PlayerProcess(Child);

impl Drop for PlayerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_player() -> PlayerProcess {
    let child = gst_launch("-q rawvideosrc ! fbpansink")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let running = PlayerProcess(child);
    wait_until("playing", || {
        console_mode() == KD_GRAPHICS && guards().len() == 1
    });
    running
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: plain numbers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// The process ids of all guards, the child processes that hold a terminal.
fn guards() -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == "fbpansink-vt")
        })
        .collect()
}

#[test]
fn a_player_that_is_killed_leaves_the_console_as_it_was() {
    require_lab();
    let fb = Fb::open();
    let before = fb.var();
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGABRT] {
        let mut player = start_player();
        kill(player.0.id() as i32, signal);
        player.0.wait().unwrap();
        wait_until("as before", console_is_restored);
        wait_until("without guards", || guards().is_empty());
        let after = fb.var();
        for word in [YRES_VIRTUAL, YOFFSET] {
            assert_eq!(after[word], before[word], "word {word}, signal {signal}");
        }
        let (home, away) = (foreground_vt(), other_vt());
        switch_vt(away);
        switch_vt(&home);
    }
}

#[test]
fn a_signal_to_the_whole_group_does_not_stop_the_guard() {
    require_lab();
    let mut player = start_player();
    let guard = guards()[0];
    kill(guard, libc::SIGTERM);
    kill(guard, libc::SIGINT);
    kill(player.0.id() as i32, libc::SIGTERM);
    player.0.wait().unwrap();
    wait_until("as before", console_is_restored);
}

#[test]
fn a_player_that_is_killed_with_its_guard_is_healed_by_a_switch_or_the_next_run() {
    require_lab();
    for heals_by_run in [false, true] {
        let mut player = start_player();
        let guard = guards()[0];
        kill(guard, libc::SIGKILL);
        kill(player.0.id() as i32, libc::SIGKILL);
        player.0.wait().unwrap();
        wait_until("without guards", || guards().is_empty());
        assert_eq!(console_mode(), KD_GRAPHICS);
        if heals_by_run {
            Player::play("rawvideosrc num-buffers=3 ! fbpansink name=sink").stop();
        } else {
            let (home, away) = (foreground_vt(), other_vt());
            switch_vt(away);
            switch_vt(&home);
        }
        assert!(console_is_restored(), "{heals_by_run}");
    }
}

#[test]
fn a_player_that_is_stopped_by_a_signal_lets_the_screen_go_all_the_same() {
    require_lab();
    let (home, away) = (foreground_vt(), other_vt());
    let player = start_player();
    kill(player.0.id() as i32, libc::SIGSTOP);
    switch_vt(away);
    kill(player.0.id() as i32, libc::SIGCONT);
    switch_vt(&home);
    drop(player);
    wait_until("as before", console_is_restored);
}

#[test]
fn the_guard_holds_no_file_of_the_application() {
    require_lab();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let player = Player::new("rawvideosrc ! fbpansink name=sink");
    player.pipeline.set_state(gst::State::Ready).unwrap();
    assert_eq!(guards().len(), 1);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the end of the pipe");
    player.stop();
    assert_eq!(guards(), [0; 0]);
}

#[test]
fn two_sinks_on_one_screen_put_the_console_back_once() {
    require_lab();
    let first = Player::new("rawvideosrc ! fbpansink name=sink");
    first.pipeline.set_state(gst::State::Ready).unwrap();
    let second = Player::new("rawvideosrc ! fbpansink name=sink");
    second.pipeline.set_state(gst::State::Ready).unwrap();
    assert!(!second.stats().get::<bool>("console-quiet").unwrap());
    second.stop();
    assert_eq!(console_mode(), KD_GRAPHICS);
    first.stop();
    assert!(console_is_restored());
}
