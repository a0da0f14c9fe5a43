// SPDX-License-Identifier: MPL-2.0
//! Video, audio and plain bytes: what passes and what is copied.

use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use gst::prelude::*;
use gstphysmem::handle::BufferHandle;
use gstphysmem::memory::{self, MemoryKind};
use gstphysmem::meta::PhysMemMeta;
use gstphysmem::physmemupload::PhysMemUpload;
use gstphysmem::pool::PhysBufferPool;

use crate::{UploadPipeline, assert_same, bytes, is_ours, plain_bytes};

#[test]
fn videotestsrc_writes_into_the_pool_offered() {
    let upstream = "videotestsrc pattern=circular num-buffers=10 ! capsfilter caps=video/x-raw,format=BGRx,width=64,height=48";
    let line = UploadPipeline::new(upstream, MemoryKind::Normal);
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
    // A tee proposes nothing upstream. A row of 30 pixels with 3 bytes each is padded to 92 bytes.
    let upstream = "videotestsrc pattern=circular num-buffers=5 ! capsfilter caps=video/x-raw,format=RGB,width=30,height=20 ! tee ! queue";
    let line = UploadPipeline::new(upstream, MemoryKind::Normal);
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
fn single_fields_are_copied_as_they_are() {
    let upstream = "videotestsrc pattern=ball num-buffers=6 ! capsfilter caps=video/x-raw,format=I420,width=64,height=48 ! interlace ! \
                    capsfilter caps=\"video/x-raw(format:Interlaced),interlace-mode=alternate\"";
    let line = UploadPipeline::new(upstream, MemoryKind::Normal);
    let samples = line.play();
    assert_eq!(line.counts(), (0, samples.len() as u64));
    assert!(samples.len() > 6, "a frame is more than one buffer");
    assert!(samples.iter().all(is_ours));
    assert_same(&bytes(&samples), &plain_bytes(upstream));
}

#[test]
fn memory_that_cannot_be_mapped_passes_and_is_not_called_zero_copy() {
    gst::init().unwrap();
    let upload = gst::glib::Object::new::<PhysMemUpload>();
    let mut harness = gst_check::Harness::with_element(&upload, Some("sink"), Some("src"));
    let caps = "video/x-raw(memory:GLMemory),format=BGRx,width=64,height=48,framerate=30/1";
    harness.set_src_caps_str(caps);
    harness.set_sink_caps_str(caps);
    harness.push(gst::Buffer::from_slice([7; 16])).unwrap();
    assert_eq!(
        harness.pull().unwrap().map_readable().unwrap().as_slice(),
        [7; 16]
    );
    let stats = upload.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("passed"), Ok(1));
    let path = stats.get::<String>("path").unwrap();
    assert!(path.starts_with("untouched"), "{path}");
}

#[test]
fn audiotestsrc_writes_into_buffers_of_the_size_named() {
    let upstream = "audiotestsrc num-buffers=20 wave=ticks ! capsfilter caps=audio/x-raw,format=S16LE,channels=2,rate=48000";
    let line = UploadPipeline::new(upstream, MemoryKind::Normal);
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
    let line = UploadPipeline::new(upstream, MemoryKind::Normal);
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
    let line = UploadPipeline::new(
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
    // Finds a free port by binding it, and frees it for udpsrc.
    let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let line = UploadPipeline::new(
        &format!("udpsrc address=127.0.0.1 port={port} num-buffers=50 caps=application/x-test"),
        MemoryKind::Normal,
    );
    line.pipeline.set_state(gst::State::Playing).unwrap();
    // udpsrc listens from READY on. More datagrams are sent than have to arrive, because those that
    // do not fit into the socket's buffer are lost.
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagram = |n: u32| -> Vec<u8> { n.to_le_bytes().repeat(100 + n as usize % 200) };
    let mut samples = Vec::new();
    for n in 0..10_000 {
        // The send fails while udpsrc does not listen yet.
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
    // The machine may have no huge pages; if it has some, the copy is in them.
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

#[test]
fn a_buffer_of_two_pictures_is_refused_rather_than_cut() {
    let line = UploadPipeline::new("appsrc name=src format=time", MemoryKind::Normal);
    let src = line.pipeline.by_name("src").unwrap();
    let src = src.downcast::<gst_app::AppSrc>().unwrap();
    let caps = "video/x-raw,format=GRAY8,width=16,height=8,framerate=25/1,multiview-mode=separated,views=2";
    src.set_caps(Some(&caps.parse::<gst::Caps>().unwrap()));
    line.pipeline.set_state(gst::State::Playing).unwrap();
    let mut buffer = gst::Buffer::with_size(256).unwrap();
    for offset in [0, 128] {
        gst_video::VideoMeta::add_full(
            buffer.get_mut().unwrap(),
            gst_video::VideoFrameFlags::empty(),
            gst_video::VideoFormat::Gray8,
            16,
            8,
            &[offset],
            &[16],
        )
        .unwrap();
    }
    src.push_buffer(buffer).unwrap();
    let bus = line.pipeline.bus().unwrap();
    let kinds = [gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &kinds);
    let message = message.unwrap();
    let gst::MessageView::Error(error) = message.view() else {
        unreachable!()
    };
    let said = error.error().to_string();
    assert!(
        said.contains("2 pictures") && said.contains("side-by-side"),
        "{said}"
    );
}
