// SPDX-License-Identifier: MPL-2.0
//! Sequences of numbered files.

use std::path::Path;

use gst::prelude::*;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::common::play::{Pipeline, fifo, y4m};
use crate::{
    I420, assert_one_error, clip, frames, picture, pictures, play_to_end, source,
    warnings_and_errors, write,
};

#[test]
fn each_file_of_a_sequence_has_its_own_header_and_number_of_frames() {
    let dir = tempfile::tempdir().unwrap();
    let all = frames(9, I420);
    // 3, 1, 0 and 5 frames behind headers of different lengths, some with parameters.
    write(
        dir.path(),
        "c0.y4m",
        &clip("YUV4MPEG2 W24 H10 F25:1\n", &all[..3]),
    );
    write(
        dir.path(),
        "c1.y4m",
        &clip("YUV4MPEG2 W24 H10 F25:1 XLONG\n", &all[3..4]),
    );
    write(dir.path(), "c2.y4m", b"YUV4MPEG2 W24 H10 F25:1\n");
    let rest: Vec<&[u8]> = all[4..].iter().map(Vec::as_slice).collect();
    let rest = y4m(
        "YUV4MPEG2 W24 H10 F25:1\n",
        |n| format!("FRAME X{n}\n"),
        &rest,
    );
    write(dir.path(), "c3.y4m", &rest);
    let line = source(&dir.path().join("c%d.y4m"), "");
    assert_eq!(pictures(&play_to_end(&line)), all);
    let pipeline = Pipeline::pause(&line);
    let duration = pipeline.pipeline.query_duration::<gst::ClockTime>();
    assert_eq!(duration, Some(gst::ClockTime::from_mseconds(9 * 40)));
    pipeline.seek(
        gst::SeekFlags::ACCURATE,
        gst::ClockTime::from_mseconds(5 * 40),
    );
    pipeline.set(gst::State::Playing);
    assert_eq!(picture(&pipeline.pull().unwrap()), all[5]);

    write(dir.path(), "c4.y4m", &clip("YUV4MPEG2 W24 H12\n", &[]));
    assert_one_error(&line, &["c4.y4m", "24x12 I420", "24x10 I420"]);
    write(dir.path(), "c4.y4m", &all[0]);
    assert_one_error(&line, &["c4.y4m", "does not begin with a YUV4MPEG2 header"]);
}

#[test]
fn raw_files_and_yuv4mpeg2_are_not_one_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let raw = frames(2, I420);
    write(dir.path(), "m1.raw", &raw[0]);
    write(
        dir.path(),
        "m2.raw",
        &clip("YUV4MPEG2 W24 H10\n", &[raw[1].clone()]),
    );
    let line = format!(
        "rawvideosrc location={}/m%d.raw format=i420 width=24 height=10",
        dir.path().display()
    );
    assert_one_error(
        &line,
        &["m2.raw", "begins with a YUV4MPEG2 header", "move it away"],
    );
}

#[test]
fn raw_files_of_a_sequence_may_be_of_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let all = frames(6, I420);
    write(dir.path(), "s%1.raw", &all[..2].concat());
    write(dir.path(), "s%2.raw", &all[2..5].concat());
    let mut last = all[5].clone();
    last.extend_from_slice(&[0; 100]);
    write(dir.path(), "s%3.raw", &last);
    let line = source(
        &dir.path().join("s%%%i.raw"),
        "format=i420 width=24 height=10",
    );
    assert_eq!(pictures(&play_to_end(&line)), all);
    let warnings = warnings_and_errors(&line);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("the last 100 bytes") && warnings[0].contains("s%3.raw"));
}

#[test]
fn a_fifo_in_a_sequence_is_refused_and_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let line = source(&dir.path().join("f%d.raw"), "format=gray8 width=8 height=4");
    for number in [0, 2] {
        write(dir.path(), &format!("f{number}.raw"), &[7; 32]);
    }
    std::fs::rename(fifo(dir.path()), dir.path().join("f1.raw")).unwrap();
    assert_one_error(&line, &["f1.raw", "a FIFO"]);
    // The FIFO replaces a file during the stream.
    std::fs::rename(dir.path().join("f1.raw"), dir.path().join("pipe")).unwrap();
    write(dir.path(), "f1.raw", &[7; 32]);
    let pipeline = Pipeline::new(&line);
    pipeline.sink.set_property("max-buffers", 1u32);
    pipeline.set(gst::State::Paused);
    std::fs::rename(dir.path().join("pipe"), dir.path().join("f2.raw")).unwrap();
    pipeline.set(gst::State::Playing);
    pipeline.pull().unwrap();
    pipeline.pull().unwrap();
    let errors = pipeline.errors();
    assert!(
        errors[0].contains("f2.raw") && errors[0].contains("a FIFO"),
        "{errors:?}"
    );
}

/// Thirty files of one frame each, and the launch line that plays them with several threads. The first one is
/// not in the page cache, so that the others are read ahead.
fn thirty_files(dir: &Path) -> (Vec<Vec<u8>>, String) {
    let all = frames(30, I420);
    for (n, frame) in all.iter().enumerate() {
        write(dir, &format!("t{n:02}.raw"), frame);
    }
    let first = std::fs::File::open(dir.join("t00.raw")).unwrap();
    first.sync_all().unwrap();
    posix_fadvise(&first, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    let rest = "format=i420 width=24 height=10 threads=3 prefetch=5";
    (all, source(&dir.join("t%02d.raw"), rest))
}

#[test]
fn files_that_are_all_cached_come_in_order_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (all, line) = thirty_files(dir.path());
    std::fs::read(dir.path().join("t00.raw")).unwrap();
    assert!(pictures(&play_to_end(&line)) == all);
}

#[test]
fn files_that_are_read_ahead_come_in_order_in_either_direction() {
    let dir = tempfile::tempdir().unwrap();
    let (all, line) = thirty_files(dir.path());
    let looped: Vec<Vec<u8>> = all.iter().chain(&all).cloned().collect();
    let line = format!("{line} loop=true loop-count=2");
    assert!(pictures(&play_to_end(&line)) == looped);
    let pipeline = Pipeline::play(&line);
    for (rate, expected) in [(-1.0, 1), (-3.0, 3)] {
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::TRICKMODE;
        let (set, start) = (gst::SeekType::Set, gst::ClockTime::ZERO);
        let stop = gst::ClockTime::from_mseconds(28 * 40);
        (pipeline.pipeline)
            .seek(rate, flags, set, start, set, stop)
            .unwrap();
        let played: Vec<Vec<u8>> = std::iter::from_fn(|| pipeline.pull())
            .map(|sample| picture(&sample))
            .collect();
        let backwards: Vec<Vec<u8>> = all[..28].iter().rev().step_by(expected).cloned().collect();
        assert!(played == backwards, "rate {rate}");
    }
}

#[test]
fn a_file_that_vanishes_or_is_cut_before_its_turn_is_an_error_in_its_turn() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 2] = [
        (|path| std::fs::remove_file(path).unwrap(), "ENOENT"),
        (
            |path| std::fs::write(path, [0; I420 - 1]).unwrap(),
            "it has become shorter",
        ),
    ];
    for (change, word) in changes {
        let dir = tempfile::tempdir().unwrap();
        let (all, line) = thirty_files(dir.path());
        let pipeline = Pipeline::new(&line);
        pipeline.sink.set_property("max-buffers", 1u32);
        pipeline.set(gst::State::Playing);
        assert!(picture(&pipeline.pull().unwrap()) == all[0]);
        // Files that the sink can have got already are left alone.
        change(&dir.path().join("t06.raw"));
        for (n, expected) in all[..6].iter().enumerate().skip(1) {
            assert!(picture(&pipeline.pull().unwrap()) == *expected, "frame {n}");
        }
        let timeout = gst::ClockTime::from_seconds(30);
        assert!(pipeline.sink.try_pull_sample(timeout).is_none(), "{word}");
        let errors = pipeline.errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].contains("t06.raw") && errors[0].contains(word),
            "{errors:?}"
        );
    }
}
