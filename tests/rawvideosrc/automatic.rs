// SPDX-License-Identifier: MPL-2.0
//! `io-mode=auto`: through the page cache or past it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use gst::prelude::*;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::common::play::Pipeline;
use crate::{at_frame, number};

const WIDTH: u64 = 2048;
const HEIGHT: u64 = 1024;
const FRAME_BYTES: u64 = WIDTH * HEIGHT;
const FRAMES: u64 = 34;

/// A sparse file of GRAY8 frames, each of which begins with its number.
struct Clip {
    _dir: tempfile::TempDir,
    file: File,
    path: PathBuf,
}

impl Clip {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip.raw");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        file.set_len(FRAMES * FRAME_BYTES).unwrap();
        for n in 0..FRAMES {
            file.write_all_at(&[n as u8 + 1], n * FRAME_BYTES).unwrap();
        }
        file.sync_all().unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        Self {
            _dir: dir,
            file,
            path,
        }
    }

    fn pipeline(&self, more: &str) -> Pipeline {
        Pipeline::new(&format!(
            "rawvideosrc name=source location={} format=gray8 width={WIDTH} height={HEIGHT} framerate=25/1 {more}",
            self.path.display()
        ))
    }

    fn warm(&self) {
        std::io::copy(&mut &self.file, &mut std::io::sink()).unwrap();
    }
}

fn first_byte(sample: &gst::Sample) -> u8 {
    sample.buffer().unwrap().map_readable().unwrap()[0]
}

fn choice(pipeline: &Pipeline) -> (String, String) {
    let source = pipeline.pipeline.by_name("source").unwrap();
    let stats = source.property::<gst::Structure>("stats");
    (
        stats.get("mode").unwrap(),
        stats.get("mode-reason").unwrap(),
    )
}

/// Whether the pipeline reads past the page cache. If it does not, the reason must be one of this machine.
fn is_direct(pipeline: &Pipeline) -> bool {
    let (mode, reason) = choice(pipeline);
    let of_machine = ["file system", "io_uring", "large pages", "does not tell"];
    match mode.as_str() {
        "io-uring" => {
            assert!(reason.contains("past the page cache"), "{reason}");
            true
        }
        _ => {
            let is_one = of_machine.iter().any(|part| reason.contains(part));
            assert!(is_one, "{mode}: {reason}");
            println!("SKIPPED direct reads: {reason}");
            false
        }
    }
}

#[test]
fn a_file_that_is_not_cached_is_read_past_the_page_cache_with_every_frame_in_order() {
    let clip = Clip::new();
    let pipeline = clip.pipeline("");
    pipeline.set(gst::State::Playing);
    for n in 0..FRAMES {
        let sample = pipeline.pull().unwrap();
        assert_eq!((number(&sample), first_byte(&sample)), (n, n as u8 + 1));
    }
    assert!(pipeline.pull().is_none());
    is_direct(&pipeline);
}

#[test]
fn seeks_and_reverse_playback_keep_the_way() {
    let clip = Clip::new();
    let pipeline = clip.pipeline("");
    pipeline.set(gst::State::Paused);
    for n in [20, 3, 33] {
        pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(n));
        let sample = pipeline.sink.try_pull_preroll(None).unwrap();
        assert_eq!((number(&sample), first_byte(&sample)), (n, n as u8 + 1));
    }
    is_direct(&pipeline);
}

#[test]
fn a_file_that_becomes_shorter_is_an_error_that_names_the_first_frame_lost() {
    let clip = Clip::new();
    let pipeline = clip.pipeline("");
    pipeline.set(gst::State::Paused);
    is_direct(&pipeline);
    clip.file.set_len(30 * FRAME_BYTES + 7).unwrap();
    pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(28));
    pipeline.set(gst::State::Playing);
    for n in [28, 29] {
        let sample = pipeline.pull().unwrap();
        assert_eq!((number(&sample), first_byte(&sample)), (n, n as u8 + 1));
    }
    assert!(pipeline.pull().is_none());
    let errors = pipeline.errors();
    assert!(errors[0].contains("frame 30 "), "{errors:?}");
}

#[test]
fn what_is_in_the_page_cache_or_will_be_is_read_through_it() {
    let clip = Clip::new();
    let cases = [
        ("stop-frame=20", "less than 64 MiB are played"),
        ("loop=true", "it has room for all that is played again"),
        ("offset=100", "do not begin where blocks"),
    ];
    for (properties, reason) in cases {
        let pipeline = clip.pipeline(properties);
        pipeline.set(gst::State::Paused);
        let (mode, why) = choice(&pipeline);
        assert_eq!(mode, "read", "{properties}: {why}");
        let is_machine = why.contains("file system") || why.contains("does not tell");
        assert!(why.contains(reason) || is_machine, "{properties}: {why}");
    }
    clip.warm();
    let pipeline = clip.pipeline("");
    pipeline.set(gst::State::Paused);
    let (mode, why) = choice(&pipeline);
    assert_eq!(mode, "read", "{why}");
    assert!(why.contains("it has 100 % of the file already"), "{why}");
}

#[test]
fn buffers_of_small_pages_are_filled_through_the_page_cache() {
    let clip = Clip::new();
    let pipeline = clip.pipeline("");
    crate::propose_padded_pool(&pipeline.sink, true);
    pipeline.set(gst::State::Playing);
    for n in 0..FRAMES {
        let sample = pipeline.pull().unwrap();
        assert_eq!(number(&sample), n);
    }
    let (mode, why) = choice(&pipeline);
    assert_eq!(mode, "read", "{why}");
}
