// SPDX-License-Identifier: MPL-2.0
//! `rawvideosrc` when system calls fail, in a process of its own. Either every frame arrives or
//! there is an error with the reason.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    path::{Path, PathBuf},
    process::Output,
    sync::OnceLock,
};

/// 60 frames of 64x48 in GRAY8. The rows are 70 bytes apart, so that a frame is read in many
/// pieces.
const FRAMES: usize = 60;
const WIDTH: usize = 64;
const HEIGHT: usize = 48;
const STRIDE: usize = 70;

fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let shim = common::scratch().join("failing_calls.so");
        let output = shim.to_str().unwrap();
        let source = "tests/c/failing_calls.c";
        common::compile(
            &["-shared", "-fPIC", source, "-o", output],
            &["gstreamer-1.0"],
        );
        shim
    })
}

/// The output of a run: the bytes that it wrote and those that it should have written.
struct Run {
    output: Output,
    written: Vec<u8>,
    expected: Vec<u8>,
}

impl Run {
    /// Plays one file into another while these calls fail.
    fn new(settings: &str, faults: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("clip.raw"), dir.path().join("written"));
        let bytes: Vec<u8> = (0..FRAMES * HEIGHT * STRIDE)
            .map(|i| (i * 131 % 253) as u8)
            .collect();
        std::fs::write(&from, &bytes).unwrap();
        let rows = bytes.chunks(STRIDE);
        let expected = rows.flat_map(|row| row[..WIDTH].to_vec()).collect();
        let mut command = common::with_plugin("timeout");
        command
            .args(["-s", "KILL", "60", "gst-launch-1.0", "-q", "rawvideosrc"])
            .arg(format!("location={}", from.display()))
            .args(["format=gray8", "framerate=25/1", "plane-strides=<70>"])
            .args([format!("width={WIDTH}"), format!("height={HEIGHT}")])
            .args(settings.split(' '))
            .args(["!", "filesink", "sync=false"])
            .arg(format!("location={}", to.display()))
            // One registry for all runs, so that GStreamer scans its plugins once.
            .env("GST_REGISTRY", shim().with_extension("registry"))
            .env("LD_PRELOAD", shim())
            .envs(faults.iter().copied());
        Self {
            output: command.output().unwrap(),
            written: std::fs::read(&to).unwrap_or_default(),
            expected,
        }
    }

    fn printed(&self) -> String {
        let Output { stdout, stderr, .. } = &self.output;
        let text = [stdout.as_slice(), stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    #[track_caller]
    fn assert_all_frames(&self, what: &str) {
        assert!(self.output.status.success(), "{what}: {}", self.printed());
        assert!(
            self.written == self.expected,
            "{what}: {} bytes of {}, or others",
            self.written.len(),
            self.expected.len()
        );
    }
}

#[test]
fn frames_come_through_whatever_io_uring_enter_answers() {
    for (errno, when, direct) in [
        (libc::EINTR, ("FAIL_EVERY", "2"), false),
        (libc::EAGAIN, ("FAIL_EVERY", "3"), true),
        (libc::ENOMEM, ("FAIL_FROM", "20"), false),
        (libc::EPERM, ("FAIL_FROM", "1"), true),
    ] {
        let errno = errno.to_string();
        let faults = [
            ("FAIL_CALL", "io_uring_enter"),
            ("FAIL_ERRNO", &errno),
            when,
        ];
        let settings = format!("io-mode=io-uring prefetch=4 direct={direct}");
        Run::new(&settings, &faults).assert_all_frames(&format!("{settings}: {faults:?}"));
    }
}

#[test]
fn frames_come_through_where_there_is_no_ring() {
    // All rings fail, or those after the ones that the pool pins its memory with.
    for from in ["1", "4"] {
        let errno = libc::ENOMEM.to_string();
        let faults = [
            ("FAIL_CALL", "io_uring_setup"),
            ("FAIL_ERRNO", errno.as_str()),
            ("FAIL_FROM", from),
        ];
        Run::new("direct=true", &faults).assert_all_frames(&format!("{faults:?}"));
    }
}

#[test]
fn frames_come_through_reads_that_are_interrupted_or_short() {
    for (errno, settings) in [
        (libc::EINTR, "io-mode=read threads=3"),
        (0, "io-mode=read"),
        (0, "io-mode=read direct=true"),
    ] {
        let errno = errno.to_string();
        let faults = [
            ("FAIL_CALL", "read"),
            ("FAIL_PATH", "clip.raw"),
            ("FAIL_ERRNO", &errno),
            ("FAIL_EVERY", "2"),
        ];
        Run::new(settings, &faults).assert_all_frames(&format!("{settings}: {faults:?}"));
    }
}

#[test]
fn a_read_that_fails_is_an_error_that_names_file_frame_and_errno() {
    let errno = libc::EIO.to_string();
    let faults = [
        ("FAIL_CALL", "read"),
        ("FAIL_PATH", "clip.raw"),
        ("FAIL_ERRNO", errno.as_str()),
        // The first reads look for a header.
        ("FAIL_FROM", "12"),
    ];
    for settings in ["io-mode=read", "io-mode=read direct=true"] {
        let run = Run::new(settings, &faults);
        assert!(!run.output.status.success(), "{settings}");
        let said = run.printed();
        for part in ["clip.raw", "reading frame ", "EIO"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
        // The frames before the failure are correct.
        assert!(run.expected.starts_with(&run.written), "{settings}");
        assert!(run.written.len() < run.expected.len(), "{settings}");
    }
}

#[test]
fn a_refused_inotify_or_eventfd_is_an_error_that_names_the_limit_to_raise() {
    for (call, errno, name, remedy) in [
        (
            "inotify_init1",
            libc::EMFILE,
            "EMFILE",
            "fs.inotify.max_user_instances",
        ),
        (
            "inotify_add_watch",
            libc::ENOSPC,
            "ENOSPC",
            "fs.inotify.max_user_watches",
        ),
        ("eventfd", libc::EMFILE, "EMFILE", "ulimit -n"),
    ] {
        let errno = errno.to_string();
        let faults = [
            ("FAIL_CALL", call),
            ("FAIL_ERRNO", &errno),
            ("FAIL_FROM", "1"),
        ];
        let run = Run::new("follow=true", &faults);
        assert!(!run.output.status.success(), "{call}");
        let said = run.printed();
        for part in [name, remedy] {
            assert!(said.contains(part), "{call}: {part} is not in: {said}");
        }
        // The io-mode has not been set and is not the cause.
        assert!(!said.contains("io-mode"), "{call}: {said}");
    }
}
