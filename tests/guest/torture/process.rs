// SPDX-License-Identifier: MPL-2.0
//! What happens to the whole process: `gst_deinit`, fork, exit in the middle, the plugin twice. Each in a child process.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use gst::prelude::*;

use crate::gate;
use crate::screen::{self, Clip, assert_goes_on};
use crate::support;

const CHILD: &str = "PHYSMEM_TORTURE_CHILD";

/// This program again, for its part as a child.
fn child(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("/proc/self/exe"));
    command
        .args([
            "--exact",
            "process::part_of_a_child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, part)
        .env_remove("GST_TRACERS")
        .stdin(Stdio::null());
    command
}

#[test]
fn part_of_a_child() {
    let Ok(part) = std::env::var(CHILD) else {
        return;
    };
    support::player::init();
    gate::register();
    let clip = Clip::new();
    let player = clip.player("");
    player.reach(gst::State::Playing);
    assert_goes_on(&player);
    match part.as_str() {
        "gst_deinit" => {
            let buffer = {
                let gate = player.pipeline.by_name("gate").expect("a gate");
                let pad = gate.static_pad("src").expect("a pad");
                let (send, receive) = std::sync::mpsc::channel();
                pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                    let _ = send.send(info.buffer().cloned());
                    gst::PadProbeReturn::Remove
                });
                receive.recv().expect("a buffer").expect("a buffer")
            };
            drop(player);
            drop(buffer);
            // SAFETY: nothing of GStreamer is in use any more.
            unsafe { gst::deinit() };
        }
        "exit while it plays" => std::process::exit(0),
        "exit of a thread while it plays" => {
            let thread = std::thread::spawn(|| std::process::exit(0));
            let _ = thread.join();
        }
        "fork" => {
            for ends_by in [0, 1] {
                // SAFETY: the child makes system calls only, or calls exit as careless programs do.
                match unsafe { libc::fork() } {
                    // SAFETY: ends the child at once.
                    0 if ends_by == 0 => unsafe { libc::_exit(0) },
                    // SAFETY: runs the handlers of exit in the child, whose other threads do not exist.
                    0 => unsafe { libc::exit(0) },
                    pid => {
                        let mut status = 0;
                        // SAFETY: our own child, and a place for its status.
                        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
                        assert_eq!((waited, status), (pid, 0), "way {ends_by}");
                    }
                }
                assert_goes_on(&player);
            }
            player.reach(gst::State::Null);
            player.reach(gst::State::Playing);
            assert_goes_on(&player);
        }
        other => panic!("no part {other}"),
    }
}

fault!(processes_that_end_or_fork_while_frames_flow, 3, |_| {
    for part in [
        "gst_deinit",
        "exit while it plays",
        "exit of a thread while it plays",
        "fork",
    ] {
        let ran = support::run(&mut child(part));
        assert_eq!(ran.status.signal(), None, "{part}: {ran:?}");
        assert!(ran.status.success(), "{part}: {ran:?}");
        if support::display() != "none" {
            use crate::fb::{KD_TEXT, console_mode, switches_by_itself};
            let deadline = std::time::Instant::now() + support::player::LIMIT;
            while console_mode() != KD_TEXT || !switches_by_itself() {
                assert!(
                    std::time::Instant::now() < deadline,
                    "{part}: the console is not restored"
                );
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
});

fault!(the_plugin_is_there_twice, 3, |round| {
    let directory = tempfile::tempdir().expect("a directory");
    let plugins = std::env::var("GST_PLUGIN_PATH").expect("tests/lab/run passes it");
    let plugin = std::path::Path::new(&plugins).join("libgstphysmem.so");
    let copy = directory.path().join("libgstphysmem.so");
    std::fs::copy(std::fs::canonicalize(&plugin).expect("the plugin"), &copy).expect("a copy");
    // The process has the plugin's code once already, registered by `player::init`. Now GStreamer loads the file, too, and
    // refuses it or has two; either way what was there goes on to work.
    let loaded = gst::Plugin::load_file(&copy);
    println!("{loaded:?}");
    let clip = Clip::new();
    let player = clip.player("");
    player.reach(gst::State::Playing);
    assert_goes_on(&player);
    round.stop(&player);
    // A process that finds both files by itself.
    let both = format!("{plugins}:{}", directory.path().display());
    let line = format!("rawvideosrc num-buffers=5 ! {}", screen::sink());
    let mut launch = support::gst_launch(&line);
    launch
        .env("GST_PLUGIN_PATH", both)
        .env("GST_REGISTRY", directory.path().join("registry"));
    launch
        .env(
            "GST_PLUGIN_SYSTEM_PATH",
            "/usr/lib/x86_64-linux-gnu/gstreamer-1.0",
        )
        .env_remove("GST_TRACERS");
    if round.number == 0 {
        support::run(&mut launch).expect_success();
    }
});
