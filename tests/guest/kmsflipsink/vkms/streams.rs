// SPDX-License-Identifier: MPL-2.0
//! Streams over time: every frame in order, pauses, seeks, flushes and new caps.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::{H, W, bgrx_player, convert, file_player, formats, numbered_file};
use crate::frames::{
    assert_crc, assert_deep_rgb_is_shown, assert_on_screen, bgrx, buffer_of, centred, crc_now,
    dma_frame, info, numbered, plain,
};
use crate::support::player::{Player, init};
use crate::support::{self, Picture, VkmsCrc, kernel_version};

#[test]
fn each_of_300_frames_is_shown_unchanged_and_without_a_copy() {
    init();
    let (file, expected) = numbered_file(30);
    let player = file_player(
        &file,
        "loop=true num-buffers=300 ! kmsflipsink name=sink sync=false mode=640x480",
    );
    player.reach(gst::State::Paused);
    for number in 0..300u64 {
        if number > 0 {
            player.step();
        }
        player.wait_shown(number + 1);
        assert_crc(expected[number as usize % 30]);
    }
    assert_eq!(
        (
            player.count("shown"),
            player.count("zero-copy"),
            player.count("copied")
        ),
        (300, 300, 0)
    );
    let path: String = player.stats().get("path").unwrap();
    assert!(path.starts_with("zero-copy"), "{path}");
}

#[test]
fn at_full_speed_nothing_else_is_ever_seen_and_all_come_in_order() {
    // Nothing rewrites these frames: unlike real hardware, vkms's CRC worker may read a frame long
    // after the flip away from it.
    init();
    let pictures: Vec<_> = (0..40).map(|number| numbered(W, H, number)).collect();
    let expected: Vec<_> = pictures.iter().map(Picture::vkms_crc).collect();
    let frames: Vec<_> = pictures.iter().map(dma_frame).collect();
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    player.show(frames[0].clone());
    let recorder = CrcRecorder::start();
    for frame in &frames[1..] {
        player.push(frame.clone());
    }
    player.wait_shown(40);
    let seen = recorder.stop();
    eprintln!(
        "{} of 40 frames have a CRC; {} vblanks missed",
        seen.len(),
        player.count("missed-vblanks")
    );
    assert_eq!((player.count("shown"), player.count("zero-copy")), (40, 40));
    assert!(seen.len() > 3, "the CRC stream saw {} frames", seen.len());
    let order: Vec<_> = seen
        .iter()
        .map(|crc| {
            expected
                .iter()
                .position(|known| known == crc)
                .unwrap_or_else(|| panic!("{crc:08x} is none of the frames"))
        })
        .collect();
    assert!(order.is_sorted(), "{order:?}");
}

/// Records the CRCs of what vkms shows, each new one once.
struct CrcRecorder {
    is_done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Vec<u32>>>,
}

impl Drop for CrcRecorder {
    fn drop(&mut self) {
        // The CRC stream allows one reader, so a failed test must close it.
        self.is_done.store(true, Ordering::Release);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

impl CrcRecorder {
    fn start() -> Self {
        let is_done = Arc::new(AtomicBool::new(false));
        let flag = is_done.clone();
        let mut stream = VkmsCrc::open();
        // The first two entries may be of earlier frames.
        stream.next();
        stream.next();
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !flag.load(Ordering::Acquire) {
                if let Some(frame) = stream.next()
                    && seen.last() != Some(&frame.crc)
                {
                    seen.push(frame.crc);
                }
            }
            seen
        });
        Self {
            is_done,
            thread: Some(thread),
        }
    }

    fn stop(mut self) -> Vec<u32> {
        std::thread::sleep(Duration::from_millis(60));
        self.is_done.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn the_bare_line_works() {
    init();
    let player = Player::new("rawvideosrc num-buffers=5 ! kmsflipsink name=sink");
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    assert_eq!(
        (player.count("copied"), player.count("dropped-refused")),
        (0, 0)
    );
    assert!(player.count("zero-copy") > 0);
}

#[test]
fn caps_may_change_while_playing_without_a_black_frame() {
    // Formats that can represent the colours used here exactly; vkms of 6.1 has one.
    let others: Vec<_> = formats()
        .iter()
        .map(|name| {
            info(
                gst_video::VideoFormat::from_string(name),
                W as u32,
                H as u32,
            )
        })
        .filter(|info| info.is_rgb())
        .collect();
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let (first, second) = (numbered(W, H, 1), numbered(W, H, 2));
    player.show(buffer_of(&first));
    let recorder = CrcRecorder::start();
    let mut expected: HashSet<u32> = [first.vkms_crc(), second.vkms_crc()].into();
    for round in 0..6 {
        let target = &others[round % others.len()];
        let flat = plain(W, H, [255, 0, (round as u8 % 2) * 255]);
        expected.insert(flat.vkms_crc());
        player.set_caps(target);
        player.show(convert(&flat, &bgrx(W as u32, H as u32), target));
        player.set_caps(&bgrx(W as u32, H as u32));
        player.show(buffer_of(&second));
    }
    let small = numbered(320, 240, 9);
    expected.insert(centred(&small, W, H).vkms_crc());
    player.set_caps(&bgrx(320, 240));
    player.show(buffer_of(&small));
    let seen = recorder.stop();
    for crc in &seen {
        assert!(expected.contains(crc), "{crc:08x} was seen in between");
    }
    assert!(seen.len() > 6, "{seen:x?}");
}

#[test]
fn a_flush_leaves_the_last_picture_on_the_screen() {
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let pictures = [numbered(W, H, 1), numbered(W, H, 2)];
    let expected = pictures.each_ref().map(Picture::vkms_crc);
    player.show(buffer_of(&pictures[0]));
    assert_on_screen(&pictures[0]);
    let recorder = CrcRecorder::start();
    for round in 0..4 {
        let src = player.pipeline.by_name("src").unwrap();
        assert!(src.send_event(gst::event::FlushStart::new()));
        assert!(src.send_event(gst::event::FlushStop::new(true)));
        player.show(buffer_of(&pictures[(round + 1) % 2]));
    }
    for crc in recorder.stop() {
        assert!(expected.contains(&crc), "{crc:08x} was seen in between");
    }
}

#[test]
fn seeks_end_with_the_picture_of_their_place() {
    init();
    let (file, expected) = numbered_file(20);
    let player = file_player(&file, "! kmsflipsink name=sink mode=640x480");
    player.reach(gst::State::Paused);
    for frame in [12u64, 0, 5, 19] {
        let time = gst::ClockTime::from_nseconds(frame * 1_000_000_000 / 60 + 1_000_000);
        player
            .pipeline
            .seek_simple(gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE, time)
            .unwrap();
        player.reach(gst::State::Paused);
        assert_crc(expected[frame as usize]);
    }
}

#[test]
fn starts_and_stops_leak_no_fd_and_lose_no_counter() {
    init();
    let warm_up = bgrx_player();
    warm_up.set_state(gst::State::Playing);
    warm_up.show(buffer_of(&numbered(W, H, 1)));
    drop(warm_up);
    let before = support::open_fds();
    for _ in 0..5 {
        let player = bgrx_player();
        player.set_state(gst::State::Playing);
        for number in 0..6 {
            player.show(dma_frame(&numbered(W, H, number)));
        }
        player.reach(gst::State::Null);
        assert_eq!(player.count("shown"), 6);
    }
    // The thread of the card closes the device a moment after the sink has released it.
    let deadline = Instant::now() + Duration::from_secs(10);
    while support::open_fds() > before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(support::open_fds(), before);
}

#[test]
fn a_stop_while_frames_wait_does_not_hang() {
    for _ in 0..5 {
        let player = Player::new("rawvideosrc ! kmsflipsink name=sink sync=false mode=640x480");
        player.set_state(gst::State::Playing);
        player.wait_shown(3);
        player.reach(gst::State::Null);
    }
}

#[test]
fn pausing_and_playing_shows_each_picture_and_no_other() {
    init();
    let (file, expected) = numbered_file(10);
    let player = file_player(
        &file,
        "loop=true ! kmsflipsink name=sink mode=640x480 max-lateness=-1",
    );
    player.reach(gst::State::Paused);
    player.wait_shown(1);
    assert_crc(expected[0]);
    for _ in 0..4 {
        player.reach(gst::State::Playing);
        let shown = player.count("shown");
        player.wait_shown(shown + 3);
        player.reach(gst::State::Paused);
        let crc = crc_now();
        assert!(expected.contains(&crc), "{crc:08x}");
    }
}

#[test]
fn pauses_lose_no_frame_and_do_not_end_the_stream() {
    let player =
        Player::new("rawvideosrc num-buffers=60 ! kmsflipsink name=sink sync=false mode=640x480");
    player.reach(gst::State::Paused);
    for _ in 0..6 {
        let shown = player.count("shown");
        player.set_state(gst::State::Playing);
        player.wait_shown(shown + 3);
        player.reach(gst::State::Paused);
    }
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    assert_eq!(player.count("shown"), 60, "{}", player.stats());
}

#[test]
fn seeks_while_playing_lose_no_frame_from_their_place_on() {
    init();
    const N: u64 = 40;
    let (file, expected) = numbered_file(N as usize);
    let player = file_player(&file, "! kmsflipsink name=sink sync=false mode=640x480");
    let seek = |frame: u64| {
        let time = gst::ClockTime::from_nseconds(frame * 1_000_000_000 / 60 + 1_000_000);
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        player.pipeline.seek_simple(flags, time).unwrap();
    };
    player.reach(gst::State::Playing);
    // Each seek arrives while frames wait for their flips.
    for round in 0..8 {
        let shown = player.count("shown");
        seek(round * 3);
        player.wait_shown(shown + 2);
    }
    player.reach(gst::State::Paused);
    seek(10);
    player.reach(gst::State::Paused);
    let flushed = player.count("dropped-flushed");
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    // GstBaseSink counts the frames that it handed to the sink since the flush.
    let counts = ["rendered", "dropped", "dropped-flushed", "dropped-refused"];
    assert_eq!(
        counts.map(|name| player.count(name)),
        [N - 10, 0, flushed, 0],
        "{}",
        player.stats()
    );
    assert_crc(expected[N as usize - 1]);
}

#[test]
fn sixteen_bits_of_rgb_are_shown_as_they_are() {
    init();
    if !formats().iter().any(|format| format == "BGRA64_LE") {
        assert!(kernel_version() < (6, 12), "vkms of 6.12 has XR48 and AR48");
        println!("SKIPPED: vkms of this kernel has no RGB of 16 bits");
        return;
    }
    assert_deep_rgb_is_shown(gst_video::VideoFormat::Bgra64Le, VkmsCrc::open);
}
