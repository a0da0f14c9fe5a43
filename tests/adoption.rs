// SPDX-License-Identifier: MPL-2.0
//! Pools that are offered and not taken at first: an ALLOCATION query fails while a pad is
//! flushing, and is sent again later.
#![allow(clippy::unwrap_used)]

use gst::prelude::*;
use std::sync::{
    Arc, Once,
    atomic::{AtomicU32, Ordering},
};

const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(30);

fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstphysmem::plugin_register_static().unwrap();
    });
}

struct Pipeline(gst::Pipeline);

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.0.set_state(gst::State::Null).unwrap();
    }
}

impl Pipeline {
    fn new(line: &str) -> Self {
        init();
        let pipeline = gst::parse::launch(line).unwrap();
        Self(pipeline.downcast().unwrap())
    }

    fn set(&self, state: gst::State) {
        self.0.set_state(state).unwrap();
        self.0.state(TIMEOUT).0.unwrap();
    }

    fn wait_for_end(&self) {
        self.0.set_state(gst::State::Playing).unwrap();
        let bus = self.0.bus().unwrap();
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        let message = bus.timed_pop_filtered(TIMEOUT, &kinds).unwrap();
        assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    }

    fn pad(&self, element: &str, pad: &str) -> gst::Pad {
        let element = self.0.by_name(element).unwrap();
        element.static_pad(pad).unwrap()
    }
}

/// Fails the first `count` ALLOCATION queries, as during a flush, and counts all of them.
fn fail_queries(pad: &gst::Pad, count: u32) -> Arc<AtomicU32> {
    let asked = Arc::new(AtomicU32::new(0));
    let counter = asked.clone();
    // A probe without PUSH would also see each query on its way back.
    let there = gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH;
    pad.add_probe(there, move |_, info| {
        let is_allocation = info
            .query()
            .is_some_and(|query| query.type_() == gst::QueryType::Allocation);
        if is_allocation && counter.fetch_add(1, Ordering::Relaxed) < count {
            return gst::PadProbeReturn::Drop;
        }
        gst::PadProbeReturn::Ok
    });
    asked
}

fn count_reconfigures(pad: &gst::Pad) -> Arc<AtomicU32> {
    let told = Arc::new(AtomicU32::new(0));
    let counter = told.clone();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if info
            .event()
            .is_some_and(|event| event.type_() == gst::EventType::Reconfigure)
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
    told
}

fn stat(pipeline: &Pipeline, name: &str) -> u64 {
    let upload = pipeline.0.by_name("upload").unwrap();
    upload
        .property::<gst::Structure>("stats")
        .get(name)
        .unwrap()
}

#[test]
fn after_a_flush_the_source_asks_for_the_pool_again() {
    let pipeline = Pipeline::new(
        "rawvideosrc ! video/x-raw,format=GRAY8,width=64,height=48,framerate=25/1 \
         ! physmemupload name=upload kind=normal ! appsink name=sink sync=false",
    );
    let asked = fail_queries(&pipeline.pad("upload", "sink"), 1);
    // A sink would send RECONFIGURE for the same purpose; this probe drops it.
    pipeline.pad("upload", "sink").add_probe(
        gst::PadProbeType::EVENT_UPSTREAM,
        |_, info| match info.event().map(|event| event.type_()) {
            Some(gst::EventType::Reconfigure) => gst::PadProbeReturn::Drop,
            _ => gst::PadProbeReturn::Ok,
        },
    );
    pipeline.set(gst::State::Paused);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let seek = |ms| {
        let time = gst::ClockTime::from_mseconds(ms);
        pipeline.0.seek_simple(gst::SeekFlags::FLUSH, time).unwrap();
        pipeline.0.state(TIMEOUT).0.unwrap();
    };
    seek(400);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    // The source has the pool now and sends no more queries.
    seek(800);
    seek(1200);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn upstream_that_missed_the_pool_is_told_once_and_takes_it() {
    for queue in ["", "! queue"] {
        let pipeline = Pipeline::new(&format!(
            "videotestsrc num-buffers=100 ! video/x-raw,format=GRAY8,width=64,height=48 {queue} \
             ! physmemupload name=upload kind=normal ! fakesink"
        ));
        let pad = pipeline.pad("upload", "sink");
        let asked = fail_queries(&pad, 1);
        let told = count_reconfigures(&pad);
        pipeline.wait_for_end();
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        let (passed, copied) = (stat(&pipeline, "passed"), stat(&pipeline, "copied"));
        assert_eq!(passed + copied, 100);
        assert!(passed > 0, "{copied} copied");
        if queue.is_empty() {
            // The first frame was made before the second query.
            assert_eq!(copied, 1);
        }
    }
}

#[test]
fn upstream_that_cannot_adopt_is_not_pestered() {
    for (source, at_most) in [
        // A tee passes no ALLOCATION query on.
        ("videotestsrc num-buffers=300 ! tee ! queue", 1),
        // These sources take the pool at once.
        ("videotestsrc num-buffers=300", 0),
        ("rawvideosrc num-buffers=300", 0),
    ] {
        let pipeline = Pipeline::new(&format!(
            "{source} ! video/x-raw,format=GRAY8,width=64,height=48 \
             ! physmemupload name=upload kind=normal ! fakesink"
        ));
        let told = count_reconfigures(&pipeline.pad("upload", "sink"));
        pipeline.wait_for_end();
        let told = told.load(Ordering::Relaxed);
        assert!(told <= at_most, "{source}: told {told} times");
    }
}

#[test]
fn flushes_without_end_end_in_the_pool() {
    let pipeline = Pipeline::new(
        "rawvideosrc ! video/x-raw,format=GRAY8,width=64,height=48,framerate=25/1 ! queue \
         ! physmemupload name=upload kind=normal ! fakesink name=sink sync=false",
    );
    for round in 0..300u64 {
        let state = match round % 3 {
            0 => gst::State::Paused,
            _ => gst::State::Playing,
        };
        pipeline.0.set_state(state).unwrap();
        let time = gst::ClockTime::from_mseconds(40 * round);
        pipeline.0.seek_simple(gst::SeekFlags::FLUSH, time).unwrap();
    }
    pipeline.set(gst::State::Playing);
    let copied = stat(&pipeline, "copied");
    let passed = stat(&pipeline, "passed");
    while stat(&pipeline, "passed") < passed + 100 {
        std::thread::yield_now();
    }
    assert_eq!(stat(&pipeline, "copied"), copied);
}
