// SPDX-License-Identifier: MPL-2.0
//! Displays that go away, change, or are wanted by others, while frames are shown.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gst::prelude::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::fb::{
    BITS_PER_PIXEL, Fb, KD_TEXT, YOFFSET, YRES, YRES_VIRTUAL, console_mode, switches_by_itself,
};
use crate::runner::{Random, Round};
use crate::screen::{self, Clip, assert_goes_on, frames_or_error, has_failed_by_a_stop, progress};
use crate::support::player::Player;
use crate::support::{self, foreground_vt, gst_launch, switch_vt};

fn other_vt() -> &'static str {
    if foreground_vt() == "tty2" {
        "tty3"
    } else {
        "tty2"
    }
}

/// Long enough to be reached by a hang only.
const LIMIT: Duration = Duration::from_secs(120);

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "not {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether this guest's sink is fbpansink.
fn is_fbdev() -> bool {
    screen::sink().starts_with("fbpansink")
}

/// Whether there is a display; reports the test as skipped where not.
fn has_display(round: &mut Round) -> bool {
    let has = support::display() != "none";
    if !has {
        round.skip("there is no display");
    }
    has
}

#[track_caller]
fn assert_console_restored() {
    wait_until("a text console", || {
        console_mode() == KD_TEXT && switches_by_itself()
    });
}

fault!(
    terminals_switched_while_frames_and_seeks_go_on,
    3,
    |round| {
        if !has_display(round) {
            return;
        }
        let clip = Clip::new();
        let player = clip.player(["", "! queue"][round.number as usize % 2]);
        player.reach(gst::State::Playing);
        let (home, away) = (foreground_vt(), other_vt());
        std::thread::scope(|scope| {
            let mut random = round.random.clone();
            let pipeline = &player.pipeline;
            let seeker = scope.spawn(move || {
                for _ in 0..25 {
                    let time = gst::ClockTime::from_mseconds(random.below(900));
                    let _ = pipeline.seek_simple(gst::SeekFlags::FLUSH, time);
                    random.nap(40_000);
                }
            });
            let mut random = round.random.clone();
            while !seeker.is_finished() {
                switch_vt(away);
                random.nap(30_000);
                switch_vt(&home);
                random.nap(60_000);
            }
        });
        assert_goes_on(&player);
        round.stop(&player);
        assert_console_restored();
    }
);

fault!(a_console_that_is_written_to, 3, |round| {
    if !has_display(round) {
        return;
    }
    let clip = Clip::new();
    let player = clip.player("");
    player.reach(gst::State::Playing);
    let (home, away) = (foreground_vt(), other_vt());
    let mut console = fs::OpenOptions::new()
        .write(true)
        .open("/dev/tty0")
        .expect("a console");
    for n in 0..60 {
        let _ = write!(console, "\x1b[{}m line {n}\r\n\x1b[2J\x1b[H", 31 + n % 7);
        if n % 20 == 7 {
            switch_vt(away);
            let _ = writeln!(console, "over there");
            switch_vt(&home);
        }
        round.random.nap(6_000);
    }
    assert_goes_on(&player);
    round.stop(&player);
    assert_console_restored();
});

fault!(modes_set_by_another_program, 3, |round| {
    if support::display() != "cirrus" {
        return round.skip("the mode of DRM framebuffers is fixed: cirrus has others");
    }
    let framebuffer = Fb::open();
    let clip = Clip::new();
    let before = framebuffer.var();
    type Change = fn(&mut crate::fb::Var);
    let changes: [(&str, Change); 4] = [
        ("yres_virtual", |var| var[YRES_VIRTUAL] = var[YRES]),
        ("16 bits", |var| var[BITS_PER_PIXEL] = 16),
        ("yoffset", |var| var[YOFFSET] = 0),
        ("a small screen", |var| {
            (var[0], var[1], var[2], var[3]) = (320, 240, 320, 240);
        }),
    ];
    for (what, change) in changes {
        let player = clip.player("");
        player.reach(gst::State::Playing);
        assert_goes_on(&player);
        let mut wanted = framebuffer.var();
        change(&mut wanted);
        let is_taken = framebuffer.put(&wanted).is_ok();
        // Either it makes no difference, or the sink says what is different.
        if let Some(error) = frames_or_error(&player) {
            assert!(is_taken && error.contains("/dev/fb0"), "{what}: {error}");
        }
        round.stop(&player);
        assert_console_restored();
        framebuffer.put(&before).expect("the mode from before");
        player.reach(gst::State::Playing);
        assert_goes_on(&player);
        player.reach(gst::State::Null);
    }
});

/// The driver of the display, and the device that is bound to it.
fn driver() -> Option<(PathBuf, String)> {
    let bus = match support::display().as_str() {
        "cirrus" => "/sys/bus/pci/drivers/cirrusfb",
        "cirrus-drm" => "/sys/bus/pci/drivers/cirrus-qemu",
        "bochs" => "/sys/bus/pci/drivers/bochs-drm",
        "virtio" => "/sys/bus/virtio/drivers/virtio_gpu",
        _ => return None,
    };
    let entries = fs::read_dir(bus).ok()?.flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let device = names.find(|name| name.starts_with("0000:") || name.starts_with("virtio"))?;
    Some((bus.into(), device))
}

fault!(drivers_unbound_and_bound_again, 3, |round| {
    let Some((driver, device)) = driver() else {
        return round.skip("this display has no driver that can be unbound");
    };
    // A card may come back with another number.
    let is_back = || {
        let nodes = |directory: &str, prefix: &str| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .count()
        };
        nodes("/dev/dri", "card") > 0 || (support::display() == "cirrus" && nodes("/dev", "fb") > 0)
    };
    let sinks = match support::display().as_str() {
        "cirrus" => vec!["fbpansink name=sink"],
        _ => vec!["kmsflipsink name=sink", "fbpansink name=sink"],
    };
    for sink in sinks {
        let player = Player::new(&format!("rawvideosrc ! torturegate name=gate ! {sink}"));
        player.reach(gst::State::Playing);
        player.wait_shown(3);
        round.random.nap(50_000);
        fs::write(driver.join("unbind"), &device).expect("the driver lets go");
        // An error that names the display; or frames go on, to a device that shows nothing.
        if let Some(error) = frames_or_error(&player) {
            assert!(error.contains("/dev/"), "{sink}: {error}");
        }
        player.reach(gst::State::Null);
        let refused = player.pipeline.set_state(gst::State::Playing);
        if refused.is_err() {
            assert!(
                !player.errors().is_empty(),
                "{sink}: refused without a word"
            );
        }
        player.reach(gst::State::Null);
        fs::write(driver.join("bind"), &device).expect("the driver takes the device again");
        wait_until("a device node", is_back);
        player.errors();
        player.reach(gst::State::Playing);
        player.wait_shown(3);
        player.reach(gst::State::Null);
    }
});

/// Plugs the display of vkms in or out.
fn force_connector(state: &str) {
    let cards = fs::read_dir("/sys/kernel/debug/dri")
        .expect("debugfs")
        .flatten();
    let force = cards
        .map(|card| card.path().join("Virtual-1/force"))
        .find(|force| force.exists());
    fs::write(force.expect("vkms"), state).expect("it can be forced");
    fs::write("/sys/class/drm/card0/uevent", "change").expect("a uevent");
}

fault!(
    connectors_off_and_on_while_frames_and_seeks_go_on,
    3,
    |round| {
        if support::display() != "vkms" {
            return round.skip("only the connector of vkms can be forced");
        }
        let clip = Clip::new();
        let player = clip.player(["", "! queue"][round.number as usize % 2]);
        player.reach(gst::State::Playing);
        std::thread::scope(|scope| {
            let mut random = round.random.clone();
            let pipeline = &player.pipeline;
            let seeker = scope.spawn(move || {
                for _ in 0..20 {
                    let time = gst::ClockTime::from_mseconds(random.below(900));
                    let _ = pipeline.seek_simple(gst::SeekFlags::FLUSH, time);
                    let states = [gst::State::Paused, gst::State::Playing, gst::State::Ready];
                    let _ = pipeline.set_state(states[random.below(3) as usize]);
                    random.nap(40_000);
                }
            });
            let mut random = round.random.clone();
            while !seeker.is_finished() {
                force_connector("off");
                random.nap(40_000);
                force_connector("on");
                random.nap(40_000);
            }
        });
        force_connector("on");
        if has_failed_by_a_stop(&player) {
            player.reach(gst::State::Null);
        }
        player.reach(gst::State::Playing);
        assert_goes_on(&player);
        player.reach(gst::State::Null);
        force_connector("unspecified");
    }
);

fault!(other_programs_that_open_the_display, 3, |round| {
    if !has_display(round) {
        return;
    }
    let clip = Clip::new();
    let player = clip.player("");
    player.reach(gst::State::Playing);
    let node = if is_fbdev() {
        "/dev/fb0"
    } else {
        "/dev/dri/card0"
    };
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| {
            for _ in 0..200 {
                drop(
                    fs::OpenOptions::new()
                        .read(true)
                        .write(true)
                        .open(node)
                        .expect("it opens"),
                );
            }
        });
        let mut random = round.random.clone();
        while !opener.is_finished() {
            let time = gst::ClockTime::from_mseconds(random.below(900));
            let _ = player.pipeline.seek_simple(gst::SeekFlags::FLUSH, time);
            random.nap(30_000);
        }
    });
    assert_goes_on(&player);
    // Starts while another program may just be the master: frames, or an error that says so.
    player.reach(gst::State::Null);
    for _ in 0..4 {
        let rival = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(node)
            .expect("it opens");
        let late = std::thread::spawn({
            let mut random = Random::new(round.number);
            move || {
                random.nap(60_000);
                drop(rival);
            }
        });
        if player.pipeline.set_state(gst::State::Playing).is_err() {
            assert!(!player.errors().is_empty(), "refused without a word");
        } else {
            frames_or_error(&player);
        }
        player.reach(gst::State::Null);
        late.join().expect("it sleeps");
        player.errors();
    }
    player.reach(gst::State::Playing);
    assert_goes_on(&player);
    round.stop(&player);
});

/// A player in a process of its own, which is killed on drop.
struct PlayerProcess(Child);

impl Drop for PlayerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fault!(players_killed_at_any_moment, 3, |round| {
    if !has_display(round) {
        return;
    }
    let clip = Clip::new();
    // On DRM drivers the console's framebuffer is part of a card that the killed process had.
    let before = Path::new("/dev/fb0").exists().then(|| Fb::open().var());
    for _ in 0..3 {
        let line = format!(
            "-q {} ! {}",
            clip.source(),
            screen::sink().replace("name=sink", "")
        );
        let child = gst_launch(&line)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("gst-launch-1.0");
        let player = PlayerProcess(child);
        // GStreamer's own start takes most of a second under TCG.
        std::thread::sleep(Duration::from_millis(200 + round.random.below(2_500)));
        drop(player);
        assert_console_restored();
        if let Some(before) = before {
            let as_before = || {
                let after = Fb::open().var();
                [YRES_VIRTUAL, YOFFSET]
                    .iter()
                    .all(|&word| after[word] == before[word])
            };
            wait_until("as before", as_before);
        }
        let next = clip.player("");
        next.reach(gst::State::Playing);
        assert_goes_on(&next);
        round.stop(&next);
    }
});

fault!(suspend_and_resume, 3, |round| {
    let test = Path::new("/sys/power/pm_test");
    if !test.exists() {
        return round.skip("this kernel suspends nothing: 6.12-debug does");
    }
    let clip = Clip::new();
    let player = clip.player("");
    player.reach(gst::State::Playing);
    assert_goes_on(&player);
    for level in ["freezer", "devices"] {
        fs::write(test, level).expect("a level of the test");
        // The kernel waits five seconds, then resumes.
        let suspended = fs::write("/sys/power/state", "mem");
        println!("{level}: {suspended:?}");
        assert_goes_on(&player);
    }
    fs::write(test, "none").expect("a level of the test");
    round.stop(&player);
});

fault!(stops_while_the_display_is_away, 3, |round| {
    if !has_display(round) {
        return;
    }
    let clip = Clip::new();
    let (home, away) = (foreground_vt(), other_vt());
    let player = clip.player("");
    player.start();
    player.wait_until("frames", |player| progress(player) > 0);
    switch_vt(away);
    for _ in 0..3 {
        let states = [
            gst::State::Paused,
            gst::State::Playing,
            gst::State::Ready,
            gst::State::Null,
        ];
        let state = states[round.random.below(4) as usize];
        // A start without the display may be refused, with an error.
        if player.pipeline.set_state(state).is_err() {
            assert!(!player.errors().is_empty(), "refused without a word");
            let _ = player.pipeline.set_state(gst::State::Null);
        }
        round.random.nap(40_000);
    }
    player.reach(gst::State::Null);
    switch_vt(&home);
    assert_console_restored();
    player.errors();
    player.reach(gst::State::Playing);
    assert_goes_on(&player);
    round.stop(&player);
});

/// Another descriptor of the file by which this process has the card open.
fn card_of_this_process() -> OwnedFd {
    let open = fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let is_card = |entry: &PathBuf| {
        fs::read_link(entry).is_ok_and(|target| target.parent() == Some(Path::new("/dev/dri")))
    };
    let card = open.map(|entry| entry.path()).find(is_card);
    let card = card.expect("the sink has a card open");
    let number = card.file_name().expect("a number").to_string_lossy();
    let number: RawFd = number.parse().expect("a number");
    // SAFETY: the sink, which plays, keeps the descriptor open.
    let card = unsafe { BorrowedFd::borrow_raw(number) };
    card.try_clone_to_owned().expect("a descriptor")
}

fault!(flip_events_that_are_lost, 3, |round| {
    if support::display() != "vkms" {
        return round.skip("only kmsflipsink waits for events, and vkms is its display");
    }
    const LOST: u64 = 3;
    let clip = Clip::new();
    let player = clip.player("");
    player.reach(gst::State::Playing);
    let before = player.count("lost-flip-events");
    let mut card = fs::File::from(card_of_this_process());
    // Whoever reads an event first has it.
    while player.count("lost-flip-events") < before + LOST {
        let mut ready = [PollFd::new(card.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(20u8)).expect("the card can be waited for");
        let _ = card.read(&mut [0; 1024]);
        assert_eq!(player.errors(), [""; 0], "{}", player.stats());
    }
    drop(card);
    assert_goes_on(&player);
    round.stop(&player);
});

fault!(pans_that_are_slow, 3, |round| {
    if !is_fbdev() {
        return round.skip("only fbpansink pans");
    }
    const FRAMES: u32 = 20;
    let clip = Clip::new();
    let source = clip
        .source()
        .replace("loop=true", &format!("num-buffers={FRAMES}"));
    let pipeline = format!("{source} ! {} sync=false", screen::sink());
    let delay_us = 1_000 + round.random.below(60_000);
    let delay = format!("inject=ioctl:delay_exit={delay_us}");
    let options = ["-e", "trace=ioctl", "-e", &delay];
    let mut slow = screen::launch_under_strace(&pipeline, &options, Path::new("/dev/null"));
    slow.env("GST_DEBUG_NO_COLOR", "1")
        .env("GST_DEBUG", "fbpansink:4");
    let ran = support::run(&mut slow).expect_success();
    let shown = format!("shown {FRAMES},");
    assert!(ran.stderr.contains(&shown), "{delay_us} us: {}", ran.stderr);
    assert_console_restored();
});
