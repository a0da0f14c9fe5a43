// SPDX-License-Identifier: MPL-2.0
//! Any stream into our memory: without a copy where upstream takes the pool that is offered, with
//! one copy where upstream has its own memory.

mod messages;
mod pools;
mod streams;

#[path = "../common/mod.rs"]
mod common;

use gst::prelude::*;
use gstphysmem::memory::{self, MemoryKind};
use gstphysmem::physmemupload::PhysMemUpload;

/// The pipeline `upstream ! physmemupload ! appsink`.
struct UploadPipeline {
    pipeline: gst::Pipeline,
    upload: gst::Element,
    sink: gst_app::AppSink,
}

impl UploadPipeline {
    fn new(upstream: &str, kind: MemoryKind) -> Self {
        gst::init().unwrap();
        let pipeline = gst::Pipeline::new();
        let upstream = gst::parse::bin_from_description(upstream, true).unwrap();
        let upload = gst::glib::Object::builder::<PhysMemUpload>()
            .property("kind", kind)
            .build()
            .upcast::<gst::Element>();
        let sink = gst_app::AppSink::builder().sync(false).build();
        pipeline
            .add_many([upstream.upcast_ref(), &upload, sink.upcast_ref()])
            .unwrap();
        gst::Element::link_many([upstream.upcast_ref(), &upload, sink.upcast_ref()]).unwrap();
        Self {
            pipeline,
            upload,
            sink,
        }
    }

    fn play(&self) -> Vec<gst::Sample> {
        self.pipeline.set_state(gst::State::Playing).unwrap();
        let mut samples = Vec::new();
        while let Some(sample) = self.sink.try_pull_sample(gst::ClockTime::from_seconds(60)) {
            samples.push(sample);
        }
        assert!(self.sink.is_eos(), "{:?}", self.error());
        samples
    }

    fn error(&self) -> Option<String> {
        let bus = self.pipeline.bus().unwrap();
        let message = bus.pop_filtered(&[gst::MessageType::Error])?;
        Some(format!("{message:?}"))
    }

    fn count(&self, name: &str) -> u64 {
        let stats = self.upload.property::<gst::Structure>("stats");
        stats.get(name).unwrap()
    }

    fn counts(&self) -> (u64, u64) {
        (self.count("passed"), self.count("copied"))
    }
}

impl Drop for UploadPipeline {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

fn is_ours(sample: &gst::Sample) -> bool {
    let buffer = sample.buffer().unwrap();
    buffer.n_memory() == 1 && memory::region_of(buffer.peek_memory(0)).is_some()
}

fn bytes(samples: &[gst::Sample]) -> Vec<u8> {
    let maps = samples
        .iter()
        .map(|s| s.buffer_owned().unwrap().into_mapped_buffer_readable());
    maps.flat_map(|map| map.unwrap().to_vec()).collect()
}

/// Compares without assert_eq, which would print all bytes.
#[track_caller]
fn assert_same(ours: &[u8], theirs: &[u8]) {
    assert_eq!(ours.len(), theirs.len());
    let first = ours.iter().zip(theirs).position(|(a, b)| a != b);
    assert_eq!(first, None, "first byte that differs");
}

/// The bytes of the same upstream without physmemupload.
fn plain_bytes(upstream: &str) -> Vec<u8> {
    gst::init().unwrap();
    let line = format!("{upstream} ! appsink name=sink sync=false");
    let pipeline = gst::parse::launch(&line).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let samples: Vec<_> = std::iter::from_fn(|| sink.pull_sample().ok()).collect();
    pipeline.set_state(gst::State::Null).unwrap();
    bytes(&samples)
}

#[test]
fn the_older_name_of_memory_kind_is_the_same_property() {
    gst::init().unwrap();
    let upload = gst::glib::Object::new::<PhysMemUpload>();
    for (set, other) in [("memory-kind", "kind"), ("kind", "memory-kind")] {
        for kind in [MemoryKind::Normal, MemoryKind::Auto] {
            let told = notified(&upload, &["memory-kind", "kind"], || {
                upload.set_property(set, kind);
            });
            assert_eq!(upload.property::<MemoryKind>(other), kind);
            assert_eq!(told, ["kind", "memory-kind"]);
        }
    }
}

/// The properties of these that are notified of while `act` runs, sorted.
fn notified(element: &PhysMemUpload, names: &[&str], act: impl FnOnce()) -> Vec<String> {
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let handlers: Vec<_> = names
        .iter()
        .map(|name| {
            let told = told.clone();
            element.connect_notify(Some(name), move |_, pspec| {
                told.lock().unwrap().push(pspec.name().to_owned());
            })
        })
        .collect();
    act();
    for handler in handlers {
        element.disconnect(handler);
    }
    let mut told = told.lock().unwrap().clone();
    told.sort();
    told
}

const NO_HEAP: &str = "no-such-heap";
