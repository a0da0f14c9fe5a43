// SPDX-License-Identifier: MPL-2.0
//! What rawvideosrc understands of files: headers, layouts, names, sequences.
#![allow(clippy::unwrap_used)]

mod clips;
mod negotiation;
mod sequences;

#[path = "../common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};

use common::play::{Pipeline, RawFile, y4m};
use gst::prelude::*;

/// Frames of pseudo-random bytes.
fn frames(count: usize, frame_bytes: usize) -> Vec<Vec<u8>> {
    let bytes = RawFile::new(count * frame_bytes).bytes;
    bytes.chunks(frame_bytes).map(<[u8]>::to_vec).collect()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A YUV4MPEG2 file without frame parameters.
fn clip(header: &str, frames: &[Vec<u8>]) -> Vec<u8> {
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    y4m(header, |_| "FRAME\n".into(), &frames)
}

fn source(path: &Path, rest: &str) -> String {
    format!("rawvideosrc location=\"{}\" {rest}", path.display())
}

/// All samples up to the end of the stream.
fn play_to_end(line: &str) -> Vec<gst::Sample> {
    let pipeline = Pipeline::play(line);
    let samples = std::iter::from_fn(|| pipeline.pull()).collect();
    assert_eq!(pipeline.error(), None, "{line}");
    samples
}

/// The bytes of a sample without padding.
fn picture(sample: &gst::Sample) -> Vec<u8> {
    let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
    common::play::rows(&info, sample.buffer().unwrap()).concat()
}

fn pictures(samples: &[gst::Sample]) -> Vec<Vec<u8>> {
    samples.iter().map(picture).collect()
}

fn field<'a, T: gst::glib::value::FromValue<'a>>(sample: &'a gst::Sample, name: &str) -> Option<T> {
    sample.caps().unwrap().structure(0).unwrap().get(name).ok()
}

/// The texts of all warnings and errors on the bus.
fn warnings_and_errors(line: &str) -> Vec<String> {
    let pipeline = Pipeline::play(line);
    while pipeline.pull().is_some() {}
    let bus = pipeline.pipeline.bus().unwrap();
    let kinds = [gst::MessageType::Warning, gst::MessageType::Error];
    std::iter::from_fn(|| bus.pop_filtered(&kinds))
        .map(|message| match message.view() {
            gst::MessageView::Warning(warning) => warning.error().to_string(),
            gst::MessageView::Error(error) => error.error().to_string(),
            _ => unreachable!(),
        })
        .collect()
}

#[track_caller]
fn assert_one_error(line: &str, words: &[&str]) {
    let pipeline = Pipeline::new(line);
    let _ = pipeline.pipeline.set_state(gst::State::Playing);
    let errors = pipeline.errors();
    assert_eq!(errors.len(), 1, "{line}: {errors:?}");
    for word in words {
        assert!(
            errors[0].contains(word),
            "{line}: no \"{word}\" in {errors:?}"
        );
    }
}

const I420: usize = 24 * 10 * 3 / 2;
