// SPDX-License-Identifier: MPL-2.0
//! The pool that upstream is offered.

use std::ptr::NonNull;

use gst::prelude::*;
use gstphysmem::handle::BufferHandle;
use gstphysmem::memory::MemoryKind;
use gstphysmem::physmemupload::PhysMemUpload;
use gstphysmem::pool::PhysBufferPool;

use crate::{NO_HEAP, UploadPipeline};

#[test]
fn what_auto_falls_back_to_passes_whatever_the_heap() {
    let line = UploadPipeline::new("videotestsrc num-buffers=5", MemoryKind::Auto);
    line.upload.set_property("heap", NO_HEAP);
    line.play();
    assert_eq!(line.counts(), (5, 0));
}

#[test]
fn the_block_that_was_tried_is_the_first_that_upstream_gets() {
    gst::init().unwrap();
    let upload = gst::glib::Object::builder::<PhysMemUpload>()
        .property("kind", MemoryKind::Normal)
        .build();
    let mut harness = gst_check::Harness::with_element(&upload, Some("sink"), Some("src"));
    let caps = "video/x-raw,format=BGRx,width=64,height=48,framerate=0/1";
    harness.set_src_caps_str(caps);
    harness.set_sink_caps_str(caps);
    let caps = caps.parse::<gst::Caps>().unwrap();
    let mut query = gst::query::Allocation::new(Some(&caps), true);
    assert!(upload.static_pad("sink").unwrap().query(&mut query));
    let pool = query
        .allocation_pools()
        .find_map(|(pool, ..)| pool)
        .unwrap();
    let pool = pool.downcast::<PhysBufferPool>().unwrap();
    assert_eq!(pool.total_count(), 1);
    // A buffer larger than the block that was allocated as a trial.
    let mut config = pool.config();
    config.set_params(Some(&caps), 1 << 20, 1, 0);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let buffer = pool.acquire_buffer(None).unwrap();
    assert_eq!((buffer.size(), pool.total_count()), (1 << 20, 1));
}

/// Makes the sink answer ALLOCATION queries with this pool.
fn propose_pool(line: &UploadPipeline, pool: &PhysBufferPool, size: u32) {
    let pool = pool.clone();
    let pad = line.sink.static_pad("sink").unwrap();
    pad.add_probe(
        gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH,
        move |_, info| {
            if let Some(query) = info.query_mut()
                && let gst::QueryViewMut::Allocation(allocation) = query.view_mut()
            {
                allocation.add_allocation_pool(Some(&pool), size, 0, 0);
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        },
    );
}

#[test]
fn a_pool_that_downstream_offers_is_handed_on_to_upstream() {
    let line = UploadPipeline::new(
        "videotestsrc pattern=circular num-buffers=6 ! capsfilter caps=video/x-raw,format=BGRx,width=32,height=16",
        MemoryKind::Auto,
    );
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    propose_pool(&line, &pool, 32 * 16 * 4);
    assert_eq!(line.play().len(), 6);
    let stats = pool.property::<gst::Structure>("stats");
    assert!(stats.get::<u64>("acquired").unwrap() >= 6);
    assert_eq!(line.counts(), (6, 0));
}

/// A copy that waits for a buffer, because the sink keeps both buffers of the pool that it offers. The samples are those.
fn waiting_copy(kind: MemoryKind) -> (UploadPipeline, Vec<gst::Sample>) {
    let line = UploadPipeline::new(
        "videotestsrc pattern=circular ! capsfilter caps=video/x-raw,format=BGRx,width=32,height=16 ! tee ! queue",
        kind,
    );
    let handle = || {
        let block: &'static mut [u8] = Box::leak(vec![0; 32 * 16 * 4].into_boxed_slice());
        // SAFETY: leaked.
        unsafe { BufferHandle::new(NonNull::from(block).cast(), 32 * 16 * 4, |_, _| {}) }
    };
    let pool = PhysBufferPool::with_handles(vec![handle(), handle()]);
    propose_pool(&line, &pool, 32 * 16 * 4);
    line.pipeline.set_state(gst::State::Playing).unwrap();
    let held = (0..2).map(|_| line.sink.pull_sample().unwrap()).collect();
    while pool
        .property::<gst::Structure>("stats")
        .get::<u64>("waits")
        .unwrap()
        == 0
    {
        std::thread::yield_now();
    }
    assert_eq!(line.counts(), (0, 2));
    (line, held)
}

#[test]
fn stopping_wakes_a_copy_that_waits_for_a_buffer() {
    let (line, held) = waiting_copy(MemoryKind::Auto);
    drop(line); // would hang if the copy went on waiting
    drop(held);
}

#[test]
fn a_copy_that_waits_for_a_buffer_goes_on_after_a_reconfiguration() {
    let (line, held) = waiting_copy(MemoryKind::Normal);
    let source = line.upload.static_pad("src").unwrap();
    assert!(source.send_event(gst::event::Reconfigure::new()));
    // The pool with its buffers out cannot be set up again, so this one is in memory of the element's own.
    let next = line.sink.try_pull_sample(gst::ClockTime::from_seconds(30));
    assert!(next.is_some(), "the stream stands still");
    drop(held);
}
