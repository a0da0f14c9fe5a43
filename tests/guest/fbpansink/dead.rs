// SPDX-License-Identifier: MPL-2.0
//! Frames whose memory the application freed before they were shown. Needs cirrus.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gst_video::VideoFormat;
use gstphysmem::handle::BufferHandle;
use gstphysmem::meta::PhysMemMeta;
use gstphysmem::pool::{PhysBufferPool, Wait};

use super::pictures;
use super::support::player::Player;
use super::support::{handle_over, oracle, require_lab};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
const SIZE: usize = (WIDTH * HEIGHT * 3) as usize;

fn info() -> gst_video::VideoInfo {
    gst_video::VideoInfo::builder(VideoFormat::Bgr, WIDTH, HEIGHT)
        .fps((30, 1))
        .build()
        .unwrap()
}

/// Frame `n` of rawvideosrc's pattern, in memory that is freed with the handle.
fn frame(n: u64) -> BufferHandle {
    let frame = gstphysmem::rawvideosrc::pattern_frame(n, &info()).unwrap();
    assert_eq!(frame.len(), SIZE);
    handle_over(frame)
}

/// Collects the warnings that fbpansink logs from now on.
fn warnings() -> Arc<Mutex<Vec<String>>> {
    let said = Arc::new(Mutex::new(Vec::new()));
    gst::log::set_threshold_for_name("fbpansink", gst::DebugLevel::Warning);
    let log = Arc::clone(&said);
    gst::log::add_log_function(move |of, level, _, _, _, _, message| {
        if of.name() == "fbpansink"
            && level == gst::DebugLevel::Warning
            && let Some(text) = message.get()
        {
            log.lock().unwrap().push(text.to_string());
        }
    });
    said
}

#[test]
fn a_frame_whose_memory_was_freed_is_dropped_by_its_id_and_the_next_is_shown() {
    require_lab();
    let player = Player::new("appsrc name=a format=time ! fbpansink name=sink sync=false");
    let said = warnings();
    let source = player.pipeline.by_name("a").unwrap();
    let source: gst_app::AppSrc = source.downcast().unwrap();
    let caps = info().to_caps().unwrap();
    source.set_caps(Some(&caps));

    let mut handles: Vec<_> = [10, 20, 30].map(frame).into();
    let pool = PhysBufferPool::with_borrowed_handles(&handles);
    let mut config = pool.config();
    config.set_params(Some(&caps), SIZE as u32, 0, 0);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let buffers = [(); 3].map(|()| pool.acquire_free(Wait::No).unwrap());
    let owner = |buffer: &gst::BufferRef, handles: &[BufferHandle]| {
        let at = buffer
            .meta::<PhysMemMeta>()
            .unwrap()
            .region()
            .unwrap()
            .ptr();
        let mut of = handles.iter().map(|handle| handle.ptr().as_ptr());
        of.position(|ptr| ptr == at).unwrap()
    };
    let last = [10, 20, 30][owner(&buffers[2], &handles)];
    let dead = buffers[1].meta::<PhysMemMeta>().unwrap().id();
    let victim = owner(&buffers[1], &handles);
    drop(handles.swap_remove(victim));
    assert!(!pool.validate(dead) && buffers[1].map_readable().is_err());

    player.start();
    for (n, mut buffer) in buffers.into_iter().enumerate() {
        let pts = gst::ClockTime::from_mseconds(n as u64 * 33);
        buffer.make_mut().set_pts(pts);
        source.push_buffer(buffer).unwrap();
    }
    source.end_of_stream().unwrap();
    player.wait_for_end();

    let stats = player.stats();
    let count = |name| stats.get::<u64>(name).unwrap();
    assert_eq!(count("dropped-memory-freed"), 1, "{stats}");
    assert_eq!(count("copied"), 2, "{stats}");
    let expected = format!("frame dropped: the memory of buffer {dead} was freed by its owner");
    assert_eq!(*said.lock().unwrap(), [expected]);
    oracle()
        .shot()
        .assert_same_as(&pictures::pattern(last, VideoFormat::Bgr, WIDTH, HEIGHT));
    drop(player);
    // The stream has released all buffers.
    assert_eq!((pool.total_count(), pool.free_count()), (2, 2));
}
