// SPDX-License-Identifier: MPL-2.0
//! Files that change while they are played, and disks that fail. Needs no display.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use gst::prelude::*;

use crate::runner::Round;
use crate::screen::assert_goes_on;
use crate::support;
use crate::support::player::{CLOCK_LIMIT, Player};

const WIDTH: usize = 256;
const HEIGHT: usize = 64;
const FRAME_BYTES: usize = WIDTH * HEIGHT * 4;
const FRAMES: usize = 24;

/// The ways to read a file; with `direct`, a file must be on a disk that allows it.
const READ_MODES: [&str; 4] = [
    "io-mode=auto",
    "io-mode=read",
    "io-mode=mmap",
    "io-mode=io-uring",
];
const DIRECT_MODES: [&str; 2] = ["io-mode=read direct=true", "io-mode=io-uring direct=true"];

/// Frames that are all of one byte, which is the frame's number.
fn frames(from: usize, count: usize) -> Vec<u8> {
    let each = (from..from + count).map(|number| vec![number as u8; FRAME_BYTES]);
    each.flatten().collect()
}

fn player(path: &Path, settings: &str, sync: bool) -> Player {
    Player::new(&format!(
        "rawvideosrc name=source location={} format=bgrx width={WIDTH} height={HEIGHT} framerate=60/1 {settings} \
         ! torturegate name=gate ! physmemupload name=sink memory-kind=normal ! fakesink name=end sync={sync} signal-handoffs=true",
        path.display()
    ))
}

/// Fails if a frame has bytes of two frames, other than zeroes, which stand for what was cut off.
fn watch_for_torn_frames(player: &Player) {
    let end = player.pipeline.by_name("end").expect("a fakesink");
    end.connect("handoff", false, |values| {
        let buffer: gst::Buffer = values[1].get().expect("a buffer");
        let map = buffer.map_readable().expect("it can be read");
        let whole = map.iter().all(|&byte| byte == map[0] || byte == 0);
        // A panic of the streaming thread would become an error message.
        if !whole {
            eprintln!("a frame with bytes of two frames");
            std::process::abort();
        }
        None
    });
}

/// Plays to the end, or to an error that names the file. Returns the error.
#[track_caller]
fn end(player: &Player, path: &Path, what: &str) -> Option<String> {
    let bus = player.pipeline.bus().expect("a bus");
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = bus.timed_pop_filtered(CLOCK_LIMIT, &wanted);
    let end = end.unwrap_or_else(|| panic!("{what}: no end, {}", player.stats()));
    let gst::MessageView::Error(error) = end.view() else {
        return None;
    };
    let error = format!("{} {}", error.error(), error.debug().unwrap_or_default());
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    assert!(error.contains(name), "{what}: {error}");
    Some(error)
}

type Change = fn(&Path);

const CHANGES: [(&str, Change); 6] = [
    ("cut to nothing", |path| truncate(path, 0)),
    ("cut in the middle of a frame", |path| {
        truncate(path, (FRAMES / 2 * FRAME_BYTES + 777) as u64)
    }),
    ("made longer", |path| {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(path)
            .expect("it opens");
        file.write_all(&frames(FRAMES, 8)).expect("it takes frames");
    }),
    ("cut and made longer", |path| {
        truncate(path, FRAME_BYTES as u64);
        truncate(path, (FRAMES * FRAME_BYTES) as u64);
    }),
    ("replaced by another file", |path| {
        let other = path.with_extension("other");
        fs::write(&other, frames(100, 4)).expect("a file");
        fs::rename(&other, path).expect("it takes its place");
    }),
    ("deleted", |path| {
        fs::remove_file(path).expect("it is there")
    }),
];

fn truncate(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("it opens");
    file.set_len(bytes).expect("it has another length");
}

fault!(files_that_change_while_they_are_played, 3, |round| {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let path = directory.path().join("clip.raw");
    for mode in READ_MODES {
        for (what, change) in CHANGES {
            for settings in [
                mode.to_owned(),
                format!("{mode} loop-count=2"),
                format!("{mode} follow=true"),
            ] {
                if settings.contains("follow") && what != "cut to nothing" {
                    continue; // without an end
                }
                fs::write(&path, frames(0, FRAMES)).expect("a file");
                let player = player(&path, &settings, true);
                watch_for_torn_frames(&player);
                player.start();
                player.wait_until("frames", |player| {
                    player.count("passed") + player.count("copied") > round.number % 4
                });
                change(&path);
                let case = format!("{what}, {settings}");
                let error = end(&player, &path, &case);
                if what.starts_with("cut to") || what.starts_with("cut in") {
                    assert!(error.is_some(), "{case}: no word about it");
                }
                round.stop(&player);
                let _ = fs::remove_file(&path);
            }
        }
    }
});

fault!(files_that_change_between_two_seeks, 3, |round| {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let path = directory.path().join("clip.raw");
    for mode in READ_MODES {
        for (what, change) in CHANGES {
            fs::write(&path, frames(0, FRAMES)).expect("a file");
            let player = player(&path, mode, true);
            player.reach(gst::State::Paused);
            change(&path);
            for _ in 0..3 {
                let time = gst::ClockTime::from_mseconds(round.random.below(380));
                let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
                let _ = player.pipeline.seek_simple(flags, time);
                let (result, ..) = player.pipeline.state(CLOCK_LIMIT);
                if result.is_err() {
                    let errors = player.errors();
                    assert!(
                        errors.iter().any(|error| error.contains("clip.raw")),
                        "{what}, {mode}: {errors:?}"
                    );
                    break;
                }
            }
            round.stop(&player);
        }
    }
});

/// A block device that device-mapper makes over a loop device.
struct Disk {
    name: String,
    device: String,
    sectors: u64,
}

fn command(program: &str, arguments: &[&str]) -> String {
    let ran = support::run(Command::new(program).args(arguments)).expect_success();
    ran.stdout.trim().to_owned()
}

impl Disk {
    /// A disk that holds the frames.
    fn new(round: &Round, file: &Path) -> Self {
        fs::write(file, frames(0, FRAMES)).expect("a file");
        let device = command(
            "losetup",
            &["--find", "--show", file.to_str().expect("a path")],
        );
        let disk = Self {
            name: format!("torture{}", round.number),
            device,
            sectors: (FRAMES * FRAME_BYTES / 512) as u64,
        };
        let table = format!("0 {} linear {} 0", disk.sectors, disk.device);
        command(
            "dmsetup",
            &["create", "--noudevsync", &disk.name, "--table", &table],
        );
        command("dmsetup", &["mknodes", &disk.name]);
        disk
    }

    fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.name)
    }

    /// Gives the disk another table; `@` stands for the device below.
    fn become_(&self, table: &str) {
        let table = table.replace('@', &self.device);
        command("dmsetup", &["load", &self.name, "--table", &table]);
        command("dmsetup", &["resume", "--noudevsync", &self.name]);
        fs::write("/proc/sys/vm/drop_caches", "1").expect("root may");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("dmsetup")
            .args(["remove", "--noudevsync", "--force", &self.name])
            .status();
        let _ = Command::new("losetup")
            .args(["--detach", &self.device])
            .status();
    }
}

/// Whether this kernel has device-mapper.
fn has_mapper(round: &mut Round) -> bool {
    let there = Path::new("/dev/mapper/control").exists();
    if !there {
        round.skip("this kernel has no device-mapper");
    }
    there
}

fault!(disks_with_bad_sectors, 3, |round| {
    if !has_mapper(round) {
        return;
    }
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    for mode in READ_MODES.iter().chain(&DIRECT_MODES) {
        let disk = Disk::new(round, &directory.path().join("disk"));
        let player = player(&disk.path(), mode, false);
        player.reach(gst::State::Paused);
        let half = disk.sectors / 2;
        disk.become_(&format!("0 {half} linear @ 0\n{half} {half} error"));
        player.start();
        let error = end(&player, &disk.path(), mode).expect("half of the disk is bad");
        assert!(
            ["EIO", "medium"].iter().any(|word| error.contains(word)),
            "{mode}: {error}"
        );
        round.stop(&player);
        // Good again: the same player plays to the end.
        disk.become_(&format!("0 {} linear @ 0", disk.sectors));
        player.start();
        assert_eq!(end(&player, &disk.path(), mode), None, "{mode}");
        player.reach(gst::State::Null);
    }
});

fault!(disks_that_fail_now_and_then, 3, |round| {
    if !has_mapper(round) {
        return;
    }
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    for mode in READ_MODES.iter().chain(&DIRECT_MODES) {
        let disk = Disk::new(round, &directory.path().join("disk"));
        disk.become_(&format!("0 {} flakey @ 0 1 1", disk.sectors));
        for _ in 0..3 {
            let player = player(&disk.path(), mode, true);
            if player.pipeline.set_state(gst::State::Playing).is_ok() {
                end(&player, &disk.path(), mode);
            } else {
                assert!(
                    !player.errors().is_empty(),
                    "{mode}: refused without a word"
                );
            }
            player.reach(gst::State::Null);
        }
    }
});

fault!(disks_that_are_slow, 3, |round| {
    if !has_mapper(round) {
        return;
    }
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    for mode in READ_MODES.iter().chain(&DIRECT_MODES) {
        let disk = Disk::new(round, &directory.path().join("disk"));
        disk.become_(&format!("0 {} delay @ 0 120", disk.sectors));
        let player = player(&disk.path(), mode, true);
        player.start();
        // Seeks and stops while reads are on their way.
        for _ in 0..4 {
            round.random.nap(150_000);
            let time = gst::ClockTime::from_mseconds(round.random.below(380));
            let _ = player.pipeline.seek_simple(gst::SeekFlags::FLUSH, time);
        }
        player.settle(gst::State::Playing);
        assert_eq!(player.errors(), [""; 0], "{mode}");
        round.stop(&player);
        player.start();
        round.random.nap(100_000);
        player.reach(gst::State::Null);
    }
});

fault!(requests_that_the_kernel_fails, 3, |round| {
    let settings = Path::new("/sys/kernel/debug/fail_make_request");
    if !settings.exists() {
        return round.skip("this kernel injects no failures");
    }
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    for mode in READ_MODES.iter().chain(&DIRECT_MODES) {
        let disk = Disk::new(round, &directory.path().join("disk"));
        let name = disk.device.trim_start_matches("/dev/");
        let switch = format!("/sys/block/{name}/make-it-fail");
        let set =
            |file: &str, value: &str| fs::write(settings.join(file), value).expect("a setting");
        for (file, value) in [
            ("interval", "1"),
            ("times", "-1"),
            ("verbose", "0"),
            ("probability", "30"),
        ] {
            set(file, value);
        }
        fs::write("/proc/sys/vm/drop_caches", "1").expect("root may");
        fs::write(&switch, "1").expect("a disk that can fail");
        let player = player(&disk.path(), mode, false);
        if player.pipeline.set_state(gst::State::Playing).is_ok() {
            end(&player, &disk.path(), mode);
        } else {
            assert!(
                !player.errors().is_empty(),
                "{mode}: refused without a word"
            );
        }
        fs::write(&switch, "0").expect("a disk that can fail");
        set("probability", "0");
        round.stop(&player);
    }
});

fault!(signals_interrupt_what_a_reader_waits_for, 3, |round| {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing; the struct is zeroed but for the handler. Without SA_RESTART, calls end with EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()),
            0
        );
    }
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let path = directory.path().join("clip.raw");
    fs::write(&path, frames(0, FRAMES)).expect("a file");
    for mode in READ_MODES {
        for settings in [format!("{mode} loop=true"), format!("{mode} follow=true")] {
            let player = player(&path, &settings, false);
            player.reach(gst::State::Playing);
            for _ in 0..40 {
                for task in fs::read_dir("/proc/self/task").expect("threads").flatten() {
                    let id: libc::pid_t = task
                        .file_name()
                        .to_str()
                        .and_then(|id| id.parse().ok())
                        .expect("a number");
                    let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
                    // Not the test's own threads, whose sleeps and waits are not under test.
                    if name.starts_with("guest_torture") || name.starts_with("watchdog") {
                        continue;
                    }
                    // SAFETY: plain numbers. A thread that has ended is ESRCH.
                    unsafe {
                        libc::syscall(libc::SYS_tgkill, std::process::id(), id, libc::SIGUSR1)
                    };
                }
                round.random.nap(2_000);
            }
            if settings.contains("loop") {
                assert_goes_on(&player);
            }
            assert_eq!(player.errors(), [""; 0], "{settings}");
            round.stop(&player);
        }
    }
});
