// SPDX-License-Identifier: MPL-2.0
//! Any stream into our memory: without a copy where upstream takes the pool offered,
//! with one where it has memory of its own.

mod common;

use std::{
    io::{Seek, Write},
    os::fd::AsRawFd,
    ptr::NonNull,
};

use gst::prelude::*;
use gstphysmem::{
    handle::BufferHandle,
    memory::{self, MemoryKind},
    meta::PhysMemMeta,
    physmemupload::PhysMemUpload,
    pool::PhysBufferPool,
};

/// `upstream ! physmemupload ! appsink`, and all buffers until the end of the stream.
struct Line {
    pipeline: gst::Pipeline,
    upload: gst::Element,
    sink: gst_app::AppSink,
}

impl Line {
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

impl Drop for Line {
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

/// Not assert_eq, which would print them all.
#[track_caller]
fn assert_same(ours: &[u8], theirs: &[u8]) {
    assert_eq!(ours.len(), theirs.len());
    let first = ours.iter().zip(theirs).position(|(a, b)| a != b);
    assert_eq!(first, None, "first byte that differs");
}

/// The bytes of the same upstream without our element.
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
fn videotestsrc_writes_into_the_pool_offered() {
    let upstream = "videotestsrc pattern=circular num-buffers=10 ! capsfilter caps=video/x-raw,format=BGRx,width=64,height=48";
    let line = Line::new(upstream, MemoryKind::Normal);
    let samples = line.play();
    assert_eq!(line.counts(), (10, 0));
    assert!(samples.iter().all(is_ours));
    assert!(
        samples
            .iter()
            .all(|s| s.buffer().unwrap().meta::<PhysMemMeta>().is_some())
    );
    assert_same(&bytes(&samples), &plain_bytes(upstream));
}

#[test]
fn video_in_other_memory_is_copied_once_row_by_row() {
    // A tee proposes nothing upstream, and 30 pixels of 3 bytes are padded to 92.
    let upstream = "videotestsrc pattern=circular num-buffers=5 ! capsfilter caps=video/x-raw,format=RGB,width=30,height=20 ! tee ! queue";
    let line = Line::new(upstream, MemoryKind::Normal);
    let samples = line.play();
    assert_eq!(line.counts(), (0, 5));
    assert!(samples.iter().all(is_ours));
    let picture = |bytes: Vec<u8>| -> Vec<u8> {
        let rows = bytes.chunks(92).map(|row| &row[..90]);
        rows.flatten().copied().collect()
    };
    assert_same(&picture(bytes(&samples)), &picture(plain_bytes(upstream)));
    assert_eq!(line.count("copied-bytes"), 5 * 92 * 20);
}

#[test]
fn audiotestsrc_writes_into_buffers_of_the_size_named() {
    let upstream = "audiotestsrc num-buffers=20 wave=ticks ! capsfilter caps=audio/x-raw,format=S16LE,channels=2,rate=48000";
    let line = Line::new(upstream, MemoryKind::Normal);
    line.upload.set_property("buffer-size", 1u32 << 16);
    let samples = line.play();
    assert_eq!(line.counts(), (20, 0));
    assert!(samples.iter().all(is_ours));
    assert_same(&bytes(&samples), &plain_bytes(upstream));
}

#[test]
fn audiotestsrc_is_copied_when_no_size_is_named() {
    let upstream =
        "audiotestsrc num-buffers=20 ! capsfilter caps=audio/x-raw,format=F32LE,channels=1";
    let line = Line::new(upstream, MemoryKind::Normal);
    let samples = line.play();
    assert_eq!(line.counts(), (0, 20));
    assert!(samples.iter().all(is_ours));
    assert_same(&bytes(&samples), &plain_bytes(upstream));
    for (sample, n) in samples.iter().zip(0u64..) {
        assert_eq!(
            sample.buffer().unwrap().offset(),
            n * 1024,
            "offsets and timestamps come along"
        );
        assert!(sample.buffer().unwrap().pts().is_some());
    }
}

#[test]
fn fdsrc_without_caps_is_copied_byte_for_byte() {
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    file.write_all(&content).unwrap();
    file.rewind().unwrap();
    let line = Line::new(
        &format!("fdsrc fd={} blocksize=5000", file.as_raw_fd()),
        MemoryKind::Normal,
    );
    let samples = line.play();
    assert!(samples.iter().all(is_ours));
    assert_same(&bytes(&samples), &content);
    assert_eq!(line.counts(), (0, 80));
}

#[test]
fn buffers_that_grow_get_a_larger_pool() {
    gst::init().unwrap();
    let upload = gst::glib::Object::builder::<PhysMemUpload>()
        .property("kind", MemoryKind::Normal)
        .build();
    let mut harness = gst_check::Harness::with_element(&upload, Some("sink"), Some("src"));
    harness.set_src_caps_str("application/octet-stream");
    harness.set_sink_caps_str("application/octet-stream");
    for size in [10usize, 4096, 5000, 100_000, 1] {
        let content: Vec<u8> = (0..size).map(|n| n as u8).collect();
        harness
            .push(gst::Buffer::from_slice(content.clone()))
            .unwrap();
        let output = harness.pull().unwrap();
        assert_eq!(output.map_readable().unwrap().as_slice(), content);
        assert!(memory::region_of(output.peek_memory(0)).is_some());
    }
}

#[test]
fn datagrams_from_loopback_are_copied_once() {
    gst::init().unwrap();
    // A port that nobody has: bound, and freed at once for udpsrc.
    let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let line = Line::new(
        &format!("udpsrc address=127.0.0.1 port={port} num-buffers=50 caps=application/x-test"),
        MemoryKind::Normal,
    );
    line.pipeline.set_state(gst::State::Playing).unwrap();
    // udpsrc listens from READY on; what the socket's buffer cannot hold is lost, so
    // that more is sent than has to arrive.
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagram = |n: u32| -> Vec<u8> { n.to_le_bytes().repeat(100 + n as usize % 200) };
    let mut samples = Vec::new();
    for n in 0..10_000 {
        // Refused while nobody listens yet.
        let _ = sender.send_to(&datagram(n), ("127.0.0.1", port));
        if let Some(sample) = line.sink.try_pull_sample(gst::ClockTime::from_mseconds(5)) {
            samples.push(sample);
        }
        if line.sink.is_eos() {
            break;
        }
    }
    assert_eq!(samples.len(), 50, "{:?}", line.error());
    assert!(samples.iter().all(is_ours));
    for sample in &samples {
        let buffer = sample.buffer_owned().unwrap();
        let map = buffer.into_mapped_buffer_readable().unwrap();
        let n = u32::from_le_bytes(map[..4].try_into().unwrap());
        assert_eq!(map.as_slice(), datagram(n));
    }
    assert_eq!(line.counts(), (0, 50));
}

#[test]
fn the_wrong_kind_is_copied_and_any_kind_passes() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(None, 64, 2, 2);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let push = |kind: MemoryKind| {
        let upload = gst::glib::Object::builder::<PhysMemUpload>()
            .property("kind", kind)
            .build();
        let mut harness = gst_check::Harness::with_element(&upload, Some("sink"), Some("src"));
        harness.set_src_caps_str("application/octet-stream");
        harness.set_sink_caps_str("application/octet-stream");
        let buffer = pool.acquire_buffer(None).unwrap();
        let sent = buffer.as_ptr() as usize;
        let flow = harness.push(buffer);
        let received = flow.is_ok().then(|| harness.pull().unwrap());
        received.map(|buffer| {
            let (region, _) = memory::region_of(buffer.peek_memory(0)).unwrap();
            (buffer.as_ptr() as usize == sent, region.kind())
        })
    };
    assert_eq!(push(MemoryKind::Auto), Some((true, MemoryKind::Normal)));
    assert_eq!(push(MemoryKind::Normal), Some((true, MemoryKind::Normal)));
    // Huge pages may not be had here; if they are, the copy is in them.
    match push(MemoryKind::Hugepage) {
        Some(copied) => assert_eq!(copied, (false, MemoryKind::Hugepage)),
        None => println!("no huge pages here, and the element said so"),
    }
}

#[test]
fn a_buffer_whose_memory_was_freed_is_dropped_and_the_stream_goes_on() {
    gst::init().unwrap();
    let handle = || {
        let block: &'static mut [u8] = Box::leak(vec![7; 64].into_boxed_slice());
        // SAFETY: leaked.
        unsafe { BufferHandle::new(NonNull::from(block).cast(), 64, |_, _| {}) }
    };
    let mut handles = vec![handle(), handle()];
    let pool = PhysBufferPool::with_borrowed_handles(&handles);
    let mut config = pool.config();
    config.set_params(None, 64, 0, 0);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();

    let upload = gst::glib::Object::new::<PhysMemUpload>();
    let mut harness = gst_check::Harness::with_element(&upload, Some("sink"), Some("src"));
    harness.set_src_caps_str("application/octet-stream");
    harness.set_sink_caps_str("application/octet-stream");
    let (dead, alive) = (
        pool.acquire_buffer(None).unwrap(),
        pool.acquire_buffer(None).unwrap(),
    );
    let region = dead.meta::<PhysMemMeta>().unwrap().region().unwrap().ptr();
    handles.retain(|h| h.ptr().as_ptr() != region);
    harness.push(dead).unwrap();
    harness.push(alive).unwrap();
    let received = harness.pull().unwrap();
    assert_eq!(received.map_readable().unwrap().as_slice(), [7; 64]);
    assert!(harness.try_pull().is_none());
    let stats = upload.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("dropped").unwrap(), 1);
}

const NO_HEAP: &str = "no-such-heap";

#[test]
fn memory_that_cannot_be_had_is_the_elements_own_error() {
    // videotestsrc would take the pool that were offered, and fail without a reason.
    let line = Line::new("videotestsrc num-buffers=3", MemoryKind::Cma);
    line.upload.set_property("heap", NO_HEAP);
    line.pipeline.set_state(gst::State::Playing).unwrap();
    let bus = line.pipeline.bus().unwrap();
    let timeout = gst::ClockTime::from_seconds(60);
    let message = bus.timed_pop_filtered(timeout, &[gst::MessageType::Error]);
    let message = message.unwrap();
    assert_eq!(message.src(), Some(line.upload.upcast_ref()));
    let gst::MessageView::Error(error) = message.view() else {
        panic!("{message:?}");
    };
    // What people see first is the headline.
    let error = error.error();
    let headline = error.message();
    assert!(
        headline.starts_with("no memory of kind cma to copy into: "),
        "{headline}"
    );
    assert!(headline.contains(NO_HEAP), "{headline}");
    assert_eq!(error.kind(), Some(gst::ResourceError::NotFound));
}

#[test]
fn a_copy_is_said_once_on_the_bus_with_its_reason_and_a_remedy() {
    for (upstream, wanted) in [
        ("videotestsrc num-buffers=5 ! tee ! queue", Some("a tee")),
        ("audiotestsrc num-buffers=5", Some("set buffer-size")),
        ("videotestsrc num-buffers=5", None),
    ] {
        let line = Line::new(upstream, MemoryKind::Normal);
        line.play();
        let bus = line.pipeline.bus().unwrap();
        let is_warning = [gst::MessageType::Warning];
        let warnings = std::iter::from_fn(|| bus.pop_filtered(&is_warning));
        let warnings: Vec<_> = warnings
            .map(|message| match message.view() {
                gst::MessageView::Warning(warning) => warning.error().message().to_owned(),
                _ => unreachable!(),
            })
            .collect();
        let expected = usize::from(wanted.is_some());
        assert_eq!(warnings.len(), expected, "{upstream}: {warnings:?}");
        for warning in &warnings {
            assert!(
                warning.starts_with("each buffer is copied once: "),
                "{warning}"
            );
            let wanted = wanted.unwrap_or_default();
            assert!(warning.contains(wanted), "{upstream}: {warning}");
        }
    }
}

#[test]
fn the_numbers_are_logged_when_the_elements_stop() {
    let mut launch = common::with_plugin("gst-launch-1.0");
    launch
        .args("rawvideosrc num-buffers=7 ! video/x-raw,format=GRAY8,width=64,height=48".split(' '))
        .args("! physmemupload kind=normal ! fakesink".split(' '))
        .env("GST_DEBUG", "rawvideosrc:4,physmemupload:4")
        .env("GST_DEBUG_NO_COLOR", "1");
    let output = launch.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let bytes = 7 * 64 * 48;
    for line in [
        &format!("frames 7, bytes {bytes}, dropped 0, bounced-bytes 0, "),
        "passed 7, copied 0, copied-bytes 0, dropped 0, path zero-copy: ",
    ] {
        assert_eq!(said.matches(line).count(), 1, "{line}: {said}");
    }
}

#[test]
fn caps_that_downstream_refuses_are_named_with_what_it_takes() {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(
        "appsrc name=src caps=video/x-raw,format=RGB,width=32,height=16,framerate=25/1 \
         ! identity name=before ! capsfilter name=after caps=video/x-raw,format=NV12 ! fakesink",
    );
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let [before, after] = ["before", "after"].map(|name| pipeline.by_name(name).unwrap());
    let upload = gst::glib::Object::new::<PhysMemUpload>();
    pipeline.add(&upload).unwrap();
    before.unlink(&after);
    gst::Element::link_many([&before, upload.upcast_ref(), &after]).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let src = pipeline.by_name("src").unwrap();
    let src = src.downcast::<gst_app::AppSrc>().unwrap();
    let _ = src.push_buffer(gst::Buffer::with_size(32 * 16 * 3).unwrap());
    let bus = pipeline.bus().unwrap();
    let from_upload = std::iter::from_fn(|| {
        let timeout = gst::ClockTime::from_seconds(60);
        bus.timed_pop_filtered(timeout, &[gst::MessageType::Error])
    })
    .next()
    .unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(
        from_upload.src(),
        Some(upload.upcast_ref()),
        "{from_upload:?}"
    );
    let gst::MessageView::Error(error) = from_upload.view() else {
        panic!("{from_upload:?}");
    };
    let said = error.error().to_string();
    for part in ["format=(string)RGB", "format=(string)NV12", "videoconvert"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn what_auto_falls_back_to_passes_whatever_the_heap() {
    let line = Line::new("videotestsrc num-buffers=5", MemoryKind::Auto);
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
    // A larger buffer than the block was tried for.
    let mut config = pool.config();
    config.set_params(Some(&caps), 1 << 20, 1, 0);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let buffer = pool.acquire_buffer(None).unwrap();
    assert_eq!((buffer.size(), pool.total_count()), (1 << 20, 1));
}

/// Has the sink answer ALLOCATION queries with this pool.
fn offer(line: &Line, pool: &PhysBufferPool, size: u32) {
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
    let line = Line::new(
        "videotestsrc pattern=circular num-buffers=6 ! capsfilter caps=video/x-raw,format=BGRx,width=32,height=16",
        MemoryKind::Auto,
    );
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    offer(&line, &pool, 32 * 16 * 4);
    assert_eq!(line.play().len(), 6);
    let stats = pool.property::<gst::Structure>("stats");
    assert!(stats.get::<u64>("acquired").unwrap() >= 6);
    assert_eq!(line.counts(), (6, 0));
}

#[test]
fn stopping_wakes_a_copy_that_waits_for_a_buffer() {
    let line = Line::new(
        "videotestsrc pattern=circular ! capsfilter caps=video/x-raw,format=BGRx,width=32,height=16 ! tee ! queue",
        MemoryKind::Auto,
    );
    // Two buffers, and a sink that gives none back: the third copy waits.
    let handle = || {
        let block: &'static mut [u8] = Box::leak(vec![0; 32 * 16 * 4].into_boxed_slice());
        // SAFETY: leaked.
        unsafe { BufferHandle::new(NonNull::from(block).cast(), 32 * 16 * 4, |_, _| {}) }
    };
    let pool = PhysBufferPool::with_handles(vec![handle(), handle()]);
    offer(&line, &pool, 32 * 16 * 4);
    line.pipeline.set_state(gst::State::Playing).unwrap();
    let held: Vec<_> = (0..2).map(|_| line.sink.pull_sample().unwrap()).collect();
    while pool
        .property::<gst::Structure>("stats")
        .get::<u64>("waits")
        .unwrap()
        == 0
    {
        std::thread::yield_now();
    }
    assert_eq!(line.counts(), (0, 2));
    drop(line); // would wait for ever
    drop(held);
}

#[test]
fn a_meta_that_does_not_fit_its_memory_is_an_error_and_no_crash() {
    type Change = fn(&mut gst_video::ffi::GstVideoMeta);
    let wrong: [(&str, Change); 5] = [
        ("no planes", |meta| meta.n_planes = 0),
        ("a hundred planes", |meta| meta.n_planes = 100),
        ("a far offset", |meta| meta.offset = [usize::MAX - 5; 4]),
        ("a long stride", |meta| meta.stride = [i32::MAX; 4]),
        ("a huge frame", |meta| {
            (meta.width, meta.height) = (u32::MAX, u32::MAX);
        }),
    ];
    gst::init().unwrap();
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Nv12, 64, 32)
        .build()
        .unwrap();
    for (name, change) in wrong {
        let line = Line::new("appsrc name=a format=time", MemoryKind::Normal);
        let source = line.pipeline.by_name("a").unwrap();
        let source: gst_app::AppSrc = source.downcast().unwrap();
        source.set_caps(Some(&info.to_caps().unwrap()));
        let mut frame = gst::Buffer::with_size(info.size()).unwrap();
        let buffer = frame.get_mut().unwrap();
        gst_video::VideoMeta::add(
            buffer,
            gst_video::VideoFrameFlags::empty(),
            gst_video::VideoFormat::Nv12,
            64,
            32,
        )
        .unwrap();
        // SAFETY: the meta was just added to the buffer, which is ours alone.
        change(unsafe { &mut *gst_video::ffi::gst_buffer_get_video_meta(buffer.as_mut_ptr()) });
        line.pipeline.set_state(gst::State::Playing).unwrap();
        let _ = source.push_buffer(frame);
        let bus = line.pipeline.bus().unwrap();
        let error =
            bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Error]);
        let error = error.expect("an error");
        let gst::MessageView::Error(error) = error.view() else {
            panic!("{name}: {error:?}");
        };
        let headline = error.error().to_string();
        assert!(headline.contains("GstVideoMeta"), "{name}: {headline}");
    }
}
