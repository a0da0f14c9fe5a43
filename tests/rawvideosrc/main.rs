// SPDX-License-Identifier: MPL-2.0
//! The element `rawvideosrc` in pipelines, seen from outside.
#![allow(clippy::unwrap_used)]

mod automatic;
mod frames;
mod locations;
mod memory;
mod reading;
mod seeking;

#[path = "../common/mod.rs"]
mod common;

use common::play::{Pipeline, RawFile, TIMEOUT, info};
use gst::prelude::*;
use gst_video::prelude::*;

/// The frame number by the buffer's offset. Checks that the timestamps agree.
fn number(sample: &gst::Sample) -> u64 {
    let buffer = sample.buffer().unwrap();
    let pts = buffer.pts().unwrap();
    assert_eq!(pts.nseconds(), buffer.offset() * 40_000_000);
    assert_eq!(buffer.duration().unwrap().mseconds(), 40);
    buffer.offset()
}

fn at_frame(n: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(40 * n)
}

/// Makes the appsink propose a pool with padded strides, as a display does.
fn propose_padded_pool(sink: &gst_app::AppSink, with_meta: bool) {
    let pool = gst_video::VideoBufferPool::new();
    let pad = sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, probe| {
        let Some(gst::QueryViewMut::Allocation(query)) = probe.query_mut().map(|q| q.view_mut())
        else {
            return gst::PadProbeReturn::Ok;
        };
        let caps = query.get_owned().0.unwrap();
        let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
        let mut config = pool.config();
        config.set_params(Some(&caps), info.size() as u32, 2, 4);
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_ref());
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT.as_ref());
        config.set_video_alignment(&gst_video::VideoAlignment::new(3, 5, 16, 61, &[63; 4]));
        pool.set_config(config).unwrap();
        let size = pool.config().params().unwrap().1;
        query.add_allocation_pool(Some(&pool), size, 2, 4);
        if with_meta {
            query.add_allocation_meta::<gst_video::VideoMeta>(None);
        }
        gst::PadProbeReturn::Handled
    });
}

/// Every way to read a file, with the mode that `stats` must report for it.
const READ_MODES: &[(&str, &str)] = &[
    ("io-mode=auto", "read"),
    ("io-mode=auto direct=true", "io-uring"),
    ("io-mode=read", "read"),
    ("io-mode=read threads=3", "read"),
    ("io-mode=read direct=true", "read"),
    ("io-mode=read direct=true threads=2", "read"),
    ("io-mode=mmap", "mmap"),
    ("io-mode=mmap threads=4", "mmap"),
    ("io-mode=io-uring", "io-uring"),
    ("io-mode=io-uring prefetch=1", "io-uring"),
    ("io-mode=io-uring prefetch=9 direct=true", "io-uring"),
];

fn has_io_uring() -> bool {
    let file = RawFile::new(64);
    let info = info(gst_video::VideoFormat::Gray8, 8, 8);
    let pipeline = Pipeline::new(&format!("{} io-mode=io-uring", file.source(&info)));
    let _ = pipeline.pipeline.set_state(gst::State::Playing);
    if pipeline.sink.try_pull_sample(TIMEOUT).is_some() {
        return true;
    }
    println!("SKIPPED io-uring: {:?}", pipeline.errors());
    false
}

fn available_read_modes() -> Vec<(&'static str, &'static str)> {
    let has_io_uring = has_io_uring();
    READ_MODES
        .iter()
        .copied()
        .filter(|(_, mode)| has_io_uring || *mode != "io-uring")
        .collect()
}
