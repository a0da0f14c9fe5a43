// SPDX-License-Identifier: MPL-2.0
//! The property `cpus` of `rawvideosrc`. The tests look at all threads of their process, so they are in a
//! program of their own, and no two of them run at the same time.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use common::play::{Pipeline, RawFile, info};
use gst::prelude::*;
use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    sched::{CpuSet, sched_getaffinity},
    sys::statfs::{TMPFS_MAGIC, fstatfs},
    unistd::Pid,
};

static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// The last processor that this process may use.
fn allowed_cpu() -> usize {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpus = 0..CpuSet::count();
    cpus.rev()
        .find(|cpu| allowed.is_set(*cpu).unwrap())
        .unwrap()
}

/// The names of the threads that begin so, and where each may run.
fn threads(start: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = entry.unwrap().path();
        let read = |name: &str| std::fs::read_to_string(task.join(name));
        // A thread may have ended since.
        let (Ok(name), Ok(status)) = (read("comm"), read("status")) else {
            continue;
        };
        let field = |line: &str| Some(line.strip_prefix("Cpus_allowed_list:")?.trim().to_owned());
        let allowed = status.lines().find_map(field);
        if name.starts_with(start) {
            found.push((name.trim().to_owned(), allowed.unwrap()));
        }
    }
    found
}

/// Waits until all threads with such names run on this processor. A thread binds itself when it has started.
#[track_caller]
fn assert_bound(start: &str, cpu: usize, line: &str) -> usize {
    let begun = Instant::now();
    loop {
        let threads = threads(start);
        if threads
            .iter()
            .all(|(_, allowed)| *allowed == cpu.to_string())
        {
            return threads.len();
        }
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(20), "{line}: {threads:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Files of one frame each, and their pattern.
fn sequence(file: &RawFile, frame_bytes: usize) -> PathBuf {
    let dir = file.dir.path();
    for (n, frame) in file.bytes.chunks(frame_bytes).enumerate() {
        std::fs::write(dir.join(format!("frame-{n:05}.raw")), frame).unwrap();
    }
    dir.join("frame-%05d.raw")
}

/// Removes the first file of a sequence from the page cache. Returns false on tmpfs, whose files cannot leave it.
fn make_cold(pattern: &Path) -> bool {
    let path = pattern.to_str().unwrap().replace("%05d", "00000");
    let first = std::fs::File::open(path).unwrap();
    first.sync_all().unwrap();
    posix_fadvise(&first, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    fstatfs(&first).unwrap().filesystem_type() != TMPFS_MAGIC
}

#[test]
fn the_threads_that_read_run_where_they_are_told() {
    let _alone = ONE_AT_A_TIME.lock();
    let info = info(gst_video::VideoFormat::Bgrx, 640, 360);
    let file = RawFile::new(8 * info.size());
    let pattern = sequence(&file, info.size());
    let is_cold = make_cold(&pattern);
    let cpu = allowed_cpu();
    let before = threads("");
    let location = |path: &Path| format!("location={}", path.display());
    let (one, many) = (location(&file.path()), location(&pattern));
    // The kernel has worker threads only for reads that it cannot do otherwise, such as those of tmpfs.
    let memory_dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let memory_dir = memory_dir.unwrap();
    std::fs::write(memory_dir.path().join("frames.raw"), &file.bytes).unwrap();
    let in_memory = location(&memory_dir.path().join("frames.raw"));
    for (way, location, own_threads) in [
        // The thread that has the reader, and its helpers.
        ("io-mode=read threads=3", &one, 3),
        ("io-mode=read threads=2 direct=true", &one, 2),
        ("io-mode=mmap threads=2 memory-kind=normal", &one, 2),
        // One more is the thread that reads ahead, unless all files are in the page cache.
        ("threads=2", &many, if is_cold { 3 } else { 2 }),
        ("io-mode=io-uring", &in_memory, 0),
        ("io-mode=io-uring direct=true", &one, 0),
    ] {
        let line = format!(
            "{} {way} cpus={cpu} loop=true",
            file.source(&info).replace(&one, location)
        );
        let pipeline = Pipeline::new(&line);
        pipeline.sink.set_max_buffers(1);
        if pipeline.pipeline.set_state(gst::State::Playing).is_err()
            || pipeline
                .sink
                .try_pull_sample(common::play::TIMEOUT)
                .is_none()
        {
            let errors = pipeline.errors();
            assert!(way.contains("io-uring"), "{line}: {errors:?}");
            println!("SKIPPED io-uring: {errors:?}");
            continue;
        }
        for _ in 0..20 {
            assert!(pipeline.pull().is_some(), "{line}");
        }
        let found = assert_bound("rawvideosrc-", cpu, &line);
        assert_eq!(found, own_threads, "{line}: {:?}", threads("rawvideosrc-"));
        let workers = assert_bound("iou-wrk-", cpu, &line);
        println!("{line}: {workers} workers");
        drop(pipeline);
    }
    // The threads of the test are where they were.
    for (name, then) in before {
        for (_, now) in threads(&name) {
            assert_eq!(now, then, "{name}");
        }
    }
}

#[test]
fn a_list_that_is_none_or_has_no_processor_of_ours_is_one_error() {
    let _alone = ONE_AT_A_TIME.lock();
    let info = info(gst_video::VideoFormat::Gray8, 8, 8);
    let file = RawFile::new(4 * info.size());
    for (list, words) in [
        (
            "two",
            &["\"two\" is neither a number", "such as \"2-3,5\""][..],
        ),
        ("", &["\"\" is neither a number"]),
        ("0,3-2", &["\"3-2\" is neither a number"]),
        ("0-7:2", &["\"0-7:2\" is neither a number"]),
        ("0-5000", &["no processor 5000", "1023"]),
        ("1023", &["none of these processors, only", "cpuset"]),
    ] {
        let pipeline = Pipeline::new(&format!("{} name=source", file.source(&info)));
        let source = pipeline.pipeline.by_name("source").unwrap();
        source.set_property("cpus", list);
        assert!(
            pipeline.pipeline.set_state(gst::State::Paused).is_err(),
            "{list}"
        );
        let errors = pipeline.errors();
        assert_eq!(errors.len(), 1, "{list}: {errors:?}");
        assert!(
            errors[0].starts_with(&format!("cpus={list:?}: ")),
            "{errors:?}"
        );
        for word in words {
            assert!(errors[0].contains(word), "{list}: no {word} in {errors:?}");
        }
        // Another list helps.
        source.set_property("cpus", format!("{},1023", allowed_cpu()));
        pipeline.set(gst::State::Paused);
    }
}
