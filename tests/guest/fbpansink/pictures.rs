// SPDX-License-Identifier: MPL-2.0
//! Frames, and the pictures that the screen must show for them.

use std::path::Path;

use gst::prelude::*;
use gst_video::VideoFormat;
use gst_video::prelude::*;

use crate::support::Picture;
use crate::support::player::{CLOCK_LIMIT, init};

/// The frames of a pipeline description, in order, from a pipeline without a sink of ours.
#[track_caller]
pub fn frames(launch: &str, caps: &str) -> (gst_video::VideoInfo, Vec<gst::Buffer>) {
    init();
    let launch = format!("{launch} ! {caps} ! appsink name=sink sync=false");
    let pipeline = gst::parse::launch(&launch).unwrap_or_else(|e| panic!("{launch}: {e}"));
    let pipeline: gst::Pipeline = pipeline.downcast().expect("a pipeline");
    let sink = pipeline.by_name("sink").expect("appsink");
    let sink: gst_app::AppSink = sink.downcast().expect("appsink");
    pipeline.set_state(gst::State::Playing).expect("it plays");
    let (mut info, mut buffers) = (None, Vec::new());
    while let Some(sample) = sink.try_pull_sample(CLOCK_LIMIT) {
        let caps = sample.caps().expect("caps");
        info = gst_video::VideoInfo::from_caps(caps).ok();
        buffers.push(sample.buffer_owned().expect("a buffer"));
    }
    let ended = sink.is_eos();
    let bus = pipeline.bus().expect("a bus");
    let error = bus.pop_filtered(&[gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null).expect("it stops");
    if let Some(error) = error {
        panic!("{launch}: {error:?}");
    }
    assert!(ended, "{launch}: no end");
    (
        info.unwrap_or_else(|| panic!("{launch}: no video")),
        buffers,
    )
}

/// The last of these frames as a picture.
#[track_caller]
pub fn last_frame(launch: &str, caps: &str) -> Picture {
    let (info, buffers) = frames(launch, caps);
    let buffer = buffers.last().expect("at least one frame");
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).expect("a frame");
    picture(
        frame.plane_data(0).expect("one plane"),
        frame.plane_stride()[0] as usize,
        &info,
    )
}

pub fn pattern(n: u64, format: VideoFormat, width: u32, height: u32) -> Picture {
    init();
    let info = gst_video::VideoInfo::builder(format, width, height)
        .build()
        .expect("an info");
    let bytes = gstphysmem::rawvideosrc::pattern_frame(n, &info).expect("a frame");
    picture(&bytes, info.stride()[0] as usize, &info)
}

/// A frame of any packed RGB format as a picture.
pub fn picture(bytes: &[u8], stride: usize, info: &gst_video::VideoInfo) -> Picture {
    let (width, height) = (info.width() as usize, info.height() as usize);
    let pixel_bytes = info.format_info().pixel_stride()[0] as usize;
    Picture::from_fn(width, height, |x, y| {
        let at = y * stride + x * pixel_bytes;
        rgb(&bytes[at..at + pixel_bytes], info.format())
    })
}

fn rgb(pixel: &[u8], format: VideoFormat) -> [u8; 3] {
    match format {
        VideoFormat::Bgr | VideoFormat::Bgrx => [pixel[2], pixel[1], pixel[0]],
        VideoFormat::Rgb | VideoFormat::Rgbx => [pixel[0], pixel[1], pixel[2]],
        VideoFormat::Rgb16 => {
            let word = u16::from_le_bytes([pixel[0], pixel[1]]);
            let five = |v: u16| ((v & 31) << 3 | (v & 31) >> 2) as u8;
            let six = |v: u16| ((v & 63) << 2 | (v & 63) >> 4) as u8;
            [five(word >> 11), six(word >> 5), five(word)]
        }
        other => panic!("no picture of {other}"),
    }
}

pub fn on_black(frame: &Picture, x: usize, y: usize, width: usize, height: usize) -> Picture {
    let (right, bottom) = (x + frame.width, y + frame.height);
    Picture::from_fn(width, height, |px, py| {
        let inside = (x..right).contains(&px) && (y..bottom).contains(&py);
        if inside {
            frame.pixel(px - x, py - y)
        } else {
            [0; 3]
        }
    })
}

/// Pseudo-random bytes that depend on the seed alone.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes a file of `frames` frames of noise, and returns the bytes of each.
pub fn noise_file(path: &Path, frames: usize, frame_bytes: usize) -> Vec<Vec<u8>> {
    let frames: Vec<_> = (0..frames)
        .map(|n| noise(frame_bytes, n as u64 + 1))
        .collect();
    std::fs::write(path, frames.concat()).expect("room for the file");
    frames
}

/// The stride in bytes that GStreamer gives a BGR frame.
pub fn bgr_stride(width: usize) -> usize {
    (width * 3).next_multiple_of(4)
}

/// A BGR frame with this stride as a picture.
pub fn bgr_picture(bytes: &[u8], width: usize, height: usize) -> Picture {
    let stride = bgr_stride(width);
    Picture::from_fn(width, height, |x, y| {
        let at = y * stride + x * 3;
        [bytes[at + 2], bytes[at + 1], bytes[at]]
    })
}
