// SPDX-License-Identifier: MPL-2.0
//! Which memory the frames are in.

use gst::prelude::*;
use gstphysmem::memory::{MemoryKind, region_of};

use crate::common::play::{Pipeline, RawFile, info};
use crate::propose_padded_pool;

fn kind_of(sample: &gst::Sample) -> Option<MemoryKind> {
    let memory = sample.buffer().unwrap().peek_memory(0);
    region_of(memory).map(|(region, _)| region.kind())
}

#[test]
fn memory_that_the_user_asks_for_goes_before_plain_memory_of_downstream() {
    let info = info(gst_video::VideoFormat::Bgrx, 64, 48);
    let file = RawFile::new(3 * info.size());
    for (mode, wish, expected) in [
        ("read", "", None),
        ("read", "memory-kind=normal", Some(MemoryKind::Normal)),
        ("mmap", "memory-kind=normal", Some(MemoryKind::Normal)),
        ("io-uring", "memory-kind=normal", Some(MemoryKind::Normal)),
    ] {
        let source = format!("{} io-mode={mode} {wish}", file.source(&info));
        let pipeline = Pipeline::new(&source);
        propose_padded_pool(&pipeline.sink, true);
        pipeline.set(gst::State::Playing);
        let sample = pipeline.pull().unwrap();
        assert_eq!(kind_of(&sample), expected, "{source}");
    }
}

#[test]
fn memory_that_cannot_be_had_is_one_error_that_says_why() {
    for (wish, reason) in [
        ("memory-kind=normal heap=mine", "has no heap mine"),
        ("memory-kind=external", "no memory to serve buffers from"),
        ("memory-kind=normal max-address=4095", "max-address"),
    ] {
        let pipeline = Pipeline::new(&format!("rawvideosrc {wish}"));
        let _ = pipeline.pipeline.set_state(gst::State::Playing);
        let errors = pipeline.errors();
        assert_eq!(errors.len(), 1, "{wish}: {errors:?}");
        let is_said = errors[0].contains(reason) || errors[0].contains("above the limit");
        assert!(is_said, "{wish}: {errors:?}");
    }
}
