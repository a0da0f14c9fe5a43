// SPDX-License-Identifier: MPL-2.0
//! On vkms: every picture by its CRC.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstphysmem::meta::PhysMemMeta;
use gstphysmem::pool::{PhysBufferPool, Wait};

use crate::frames::{
    assert_crc, assert_on_screen, bgrx, bgrx_bytes, buffer_of, centred, crc_now, dma_frame,
    dma_frame_at, info, numbered, part, placed, plain, udmabuf_frame,
};
use crate::support::player::{Player, init};
use crate::support::{self, Picture, VkmsCrc, switch_vt};

const W: usize = 640;
const H: usize = 480;

/// A sink in the mode of the frames' own size.
fn fed() -> Player {
    let player = Player::fed("mode=640x480");
    player.set_caps(&bgrx(W as u32, H as u32));
    player
}

/// A raw file of numbered pictures.
fn file_of(n: usize) -> (tempfile::NamedTempFile, Vec<u32>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let crcs = (0..n)
        .map(|number| {
            let picture = numbered(W, H, number);
            file.write_all(&bgrx_bytes(&picture, W * 4)).unwrap();
            picture.vkms_crc()
        })
        .collect();
    (file, crcs)
}

fn from_file(file: &tempfile::NamedTempFile, rest: &str) -> Player {
    Player::new(&format!(
        "rawvideosrc location={} format=bgrx width={W} height={H} framerate=60/1 {rest}",
        file.path().display()
    ))
}

#[test]
fn each_of_300_frames_is_shown_unchanged_and_without_a_copy() {
    init();
    let (file, expected) = file_of(30);
    let player = from_file(
        &file,
        "loop=true num-buffers=300 ! kmsflipsink name=sink sync=false mode=640x480",
    );
    player.reach(gst::State::Paused);
    for number in 0..300u64 {
        if number > 0 {
            player.sink.send_event(gst::event::Step::new(
                gst::format::Buffers::ONE,
                1.0,
                true,
                false,
            ));
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
    // Memory that nobody rewrites: vkms's CRC worker may still read a frame
    // whose flip is long done, which no hardware does.
    init();
    let pictures: Vec<_> = (0..40).map(|number| numbered(W, H, number)).collect();
    let expected: Vec<_> = pictures.iter().map(Picture::vkms_crc).collect();
    let frames: Vec<_> = pictures.iter().map(dma_frame).collect();
    let player = fed();
    player.set_state(gst::State::Playing);
    player.show(frames[0].clone());
    let watcher = Watcher::start();
    for frame in &frames[1..] {
        player.push(frame.clone());
    }
    player.wait_shown(40);
    let seen = watcher.stop();
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

/// Follows what vkms shows: each new CRC once.
struct Watcher {
    is_done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Vec<u32>>>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The CRC stream takes one reader: a failed test must not keep it.
        self.is_done.store(true, Ordering::Release);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

impl Watcher {
    fn start() -> Self {
        let is_done = Arc::new(AtomicBool::new(false));
        let flag = is_done.clone();
        let mut stream = VkmsCrc::open();
        // The first entries may be older.
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

/// The names of the formats that the sink takes here:
/// those of the caps without a feature; with DMABuf there is DMA_DRM.
fn formats() -> Vec<String> {
    let player = Player::fed("mode=640x480");
    player.reach(gst::State::Ready);
    let caps = player.sink.static_pad("sink").unwrap().query_caps(None);
    let plain = |(_, features): &(_, &gst::CapsFeaturesRef)| {
        features.contains(gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY) || features.is_empty()
    };
    let (structure, _) = caps.iter_with_features().find(plain).unwrap();
    let names = structure.value("format").unwrap();
    match names.get::<gst::List>() {
        Ok(list) => list.iter().map(|value| value.get().unwrap()).collect(),
        Err(_) => vec![names.get().unwrap()],
    }
}

#[test]
fn every_format_that_the_caps_promise_is_shown() {
    init();
    let formats = formats();
    assert!(!formats.is_empty());
    // Colours that five bits a channel can tell exactly.
    let picture = Picture::from_fn(W, H, |x, y| match (x / 32 + y / 32) % 4 {
        0 => [255, 0, 0],
        1 => [0, 255, 0],
        2 => [0, 0, 255],
        _ => [255, 255, 255],
    });
    let colourless = Picture::from_fn(W, H, |x, y| [(x / 32 + y / 32) as u8 % 2 * 255; 3]);
    for name in formats {
        let format = gst_video::VideoFormat::from_string(&name);
        let rgb = bgrx(W as u32, H as u32);
        let target = info(format, W as u32, H as u32);
        if target.format_info().is_yuv() {
            eprintln!("{name}: YUV, compared by eye only");
            continue;
        }
        let picture = if target.is_gray() {
            &colourless
        } else {
            &picture
        };
        let player = Player::fed("mode=640x480");
        player.set_caps(&target);
        player.set_state(gst::State::Playing);
        player.show(convert(picture, &rgb, &target));
        eprintln!("{name}");
        assert_on_screen(picture);
    }
}

fn convert(
    picture: &Picture,
    from: &gst_video::VideoInfo,
    to: &gst_video::VideoInfo,
) -> gst::Buffer {
    let sample = gst::Sample::builder()
        .buffer(&buffer_of(picture))
        .caps(&from.to_caps().unwrap())
        .build();
    let caps = to.to_caps().unwrap();
    gst_video::convert_sample(&sample, &caps, gst::ClockTime::from_seconds(20).into())
        .unwrap()
        .buffer_owned()
        .unwrap()
}

#[test]
fn ordinary_memory_is_copied_once_and_the_sink_says_why() {
    let player = fed();
    player.set_state(gst::State::Playing);
    for number in 0..8 {
        let picture = numbered(W, H, number);
        player.show(buffer_of(&picture));
        assert_on_screen(&picture);
    }
    assert_eq!((player.count("copied"), player.count("zero-copy")), (8, 0));
    let path: String = player.stats().get("path").unwrap();
    assert!(
        path.contains("copying") && path.contains("no dma-buf"),
        "{path}"
    );
    let bus = player.pipeline.bus().unwrap();
    let warnings = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Warning]));
    let warnings: Vec<_> = warnings
        .map(|message| match message.view() {
            gst::MessageView::Warning(warning) => warning.error().to_string(),
            _ => unreachable!(),
        })
        .collect();
    let [warning] = &warnings[..] else {
        panic!("not told once: {warnings:?}");
    };
    for part in ["copying: upstream ", "no dma-buf", "takes this sink's pool"] {
        assert!(warning.contains(part), "{warning}");
    }
}

#[test]
fn a_crop_meta_shows_its_part_alone() {
    let player = fed();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 5);
    let mut buffer = buffer_of(&picture);
    gst_video::VideoCropMeta::add(buffer.get_mut().unwrap(), (100, 60, 320, 240));
    player.show(buffer);
    assert_on_screen(&centred(&part(&picture, 100, 60, 320, 240), W, H));
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
}

#[test]
fn a_small_frame_is_centred_and_a_render_rectangle_moves_it() {
    let player = Player::fed("mode=640x480");
    player.set_caps(&bgrx(320, 200));
    player.set_state(gst::State::Playing);
    let picture = numbered(320, 200, 3);
    player.show(buffer_of(&picture));
    assert_on_screen(&centred(&picture, W, H));
    player
        .sink
        .set_property("render-rectangle", gst::Array::new([10i32, 20, 400, 300]));
    player.show(buffer_of(&picture));
    assert_on_screen(&placed(&picture, W, H, 10 + 40, 20 + 50));
}

#[test]
fn a_large_frame_shows_its_middle() {
    let player = Player::fed("mode=640x480");
    player.set_caps(&bgrx(800, 600));
    player.set_state(gst::State::Playing);
    let picture = numbered(800, 600, 3);
    player.show(buffer_of(&picture));
    assert_on_screen(&part(&picture, 80, 60, W, H));
}

#[test]
fn the_plane_turns_and_mirrors_the_picture() {
    if support::kernel_version() == (6, 1) {
        return support::skip("vkms of 6.1 turns nothing");
    }
    let picture = numbered(400, 300, 21);
    let (w, h) = (picture.width, picture.height);
    type Pixel<'a> = Box<dyn Fn(usize, usize) -> [u8; 3] + 'a>;
    let p = &picture;
    let cases: [(&str, usize, usize, Pixel); 5] = [
        ("180", w, h, Box::new(|x, y| p.pixel(w - 1 - x, h - 1 - y))),
        ("horiz", w, h, Box::new(|x, y| p.pixel(w - 1 - x, y))),
        ("vert", w, h, Box::new(|x, y| p.pixel(x, h - 1 - y))),
        ("90r", h, w, Box::new(|x, y| p.pixel(y, h - 1 - x))),
        ("90l", h, w, Box::new(|x, y| p.pixel(w - 1 - y, x))),
    ];
    for (method, width, height, pixel) in cases {
        let player = Player::fed(&format!("mode=640x480 rotate-method={method}"));
        player.set_caps(&bgrx(w as u32, h as u32));
        player.set_state(gst::State::Playing);
        player.show(buffer_of(&picture));
        eprintln!("{method}");
        assert_on_screen(&centred(&Picture::from_fn(width, height, pixel), W, H));
    }
}

#[test]
fn caps_may_change_while_playing_without_a_black_frame() {
    // Formats that can hold the colours used here exactly; 6.1 has one.
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
    let player = fed();
    player.set_state(gst::State::Playing);
    let (first, second) = (numbered(W, H, 1), numbered(W, H, 2));
    player.show(buffer_of(&first));
    let watcher = Watcher::start();
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
    let seen = watcher.stop();
    for crc in &seen {
        assert!(expected.contains(crc), "{crc:08x} was seen in between");
    }
    assert!(seen.len() > 6, "{seen:x?}");
}

#[test]
fn a_flush_leaves_the_last_picture_on_the_screen() {
    let player = fed();
    player.set_state(gst::State::Playing);
    let pictures = [numbered(W, H, 1), numbered(W, H, 2)];
    let expected = pictures.each_ref().map(Picture::vkms_crc);
    player.show(buffer_of(&pictures[0]));
    assert_on_screen(&pictures[0]);
    let watcher = Watcher::start();
    for round in 0..4 {
        let src = player.pipeline.by_name("src").unwrap();
        assert!(src.send_event(gst::event::FlushStart::new()));
        assert!(src.send_event(gst::event::FlushStop::new(true)));
        player.show(buffer_of(&pictures[(round + 1) % 2]));
    }
    for crc in watcher.stop() {
        assert!(expected.contains(&crc), "{crc:08x} was seen in between");
    }
}

#[test]
fn seeks_end_with_the_picture_of_their_place() {
    init();
    let (file, expected) = file_of(20);
    let player = from_file(&file, "! kmsflipsink name=sink mode=640x480");
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
fn what_was_on_the_screen_comes_back() {
    init();
    let console = crc_now();
    for restart in 0..3 {
        let player = fed();
        player.set_state(gst::State::Playing);
        let picture = numbered(W, H, restart);
        player.show(buffer_of(&picture));
        assert_on_screen(&picture);
        player.reach(gst::State::Null);
        drop(player);
        assert_crc(console);
    }
}

#[test]
fn starts_and_stops_leak_no_fd_and_lose_no_counter() {
    init();
    let warm_up = fed();
    warm_up.set_state(gst::State::Playing);
    warm_up.show(buffer_of(&numbered(W, H, 1)));
    drop(warm_up);
    let before = support::open_fds();
    for _ in 0..5 {
        let player = fed();
        player.set_state(gst::State::Playing);
        for number in 0..6 {
            player.show(dma_frame(&numbered(W, H, number)));
        }
        player.reach(gst::State::Null);
        assert_eq!(player.count("shown"), 6);
    }
    // The card's thread closes the device a moment after the sink let go of it.
    let deadline = Instant::now() + Duration::from_secs(10);
    while support::open_fds() > before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(support::open_fds(), before);
}

#[test]
fn foreign_dma_bufs_are_shown_where_they_are() {
    let player = fed();
    player.set_state(gst::State::Playing);
    for number in 0..6 {
        let picture = numbered(W, H, number);
        player.show(dma_frame(&picture));
        assert_on_screen(&picture);
    }
    assert_eq!((player.count("zero-copy"), player.count("copied")), (6, 0));
    // Those of the frames that are gone are gone too.
    assert!(player.count("framebuffers") <= 3, "{}", player.stats());
}

#[test]
fn a_dma_buf_with_a_longer_stride_is_shown_where_it_is() {
    // No offset here: vkms of 6.12 adds it twice and reads beyond the buffer,
    // which ends its composer. cirrus gets that test.
    let player = fed();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 77);
    player.show(dma_frame_at(&picture, 0, W * 4 + 256));
    assert_on_screen(&picture);
    assert_eq!(player.count("zero-copy"), 1, "{}", player.stats());
}

#[test]
fn the_same_fd_number_for_other_memory_shows_the_other_memory() {
    let player = fed();
    player.set_state(gst::State::Playing);
    let numbers: Vec<i32> = (0..12)
        .map(|number| {
            let picture = numbered(W, H, number * 3);
            let buffer = dma_frame(&picture);
            let memory = buffer.peek_memory(0);
            let fd = memory
                .downcast_memory_ref::<gst_allocators::DmaBufMemory>()
                .unwrap()
                .fd();
            player.show(buffer);
            assert_on_screen(&picture);
            fd
        })
        .collect();
    let different: HashSet<_> = numbers.iter().collect();
    assert!(
        different.len() < numbers.len(),
        "no fd number came twice: {numbers:?}"
    );
    assert_eq!(player.count("zero-copy"), 12);
}

#[test]
fn one_memory_rewritten_and_shown_again_keeps_its_framebuffer() {
    let player = fed();
    player.set_state(gst::State::Playing);
    let buffer = dma_frame(&numbered(W, H, 1));
    let other = dma_frame(&numbered(W, H, 2));
    for number in 3..9 {
        let picture = numbered(W, H, number);
        // Shown from another memory first, so that the write does not tear.
        player.show(other.copy());
        let mut again = gst::Buffer::new();
        again
            .get_mut()
            .unwrap()
            .append_memory(buffer.memory(0).unwrap());
        let memory = buffer
            .peek_memory(0)
            .downcast_memory_ref::<gst_allocators::DmaBufMemory>();
        write_through(memory.unwrap().fd(), &bgrx_bytes(&picture, W * 4));
        player.show(again);
        assert_on_screen(&picture);
    }
    assert_eq!(player.count("framebuffers"), 2, "{}", player.stats());
}

/// Writes into a dma-buf through a mapping of its own.
fn write_through(fd: i32, bytes: &[u8]) {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
    // SAFETY: the dma-buf is at least this large; the mapping is this function's.
    unsafe {
        let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
        let len = std::num::NonZeroUsize::new(bytes.len()).unwrap();
        let at = mmap(
            None,
            len,
            ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
            fd,
            0,
        )
        .unwrap();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.as_ptr().cast(), bytes.len());
        munmap(at, bytes.len()).unwrap();
    }
}

#[test]
fn dumb_buffers_are_offered_and_shown_without_a_copy() {
    init();
    let (file, expected) = file_of(3);
    let player = from_file(
        &file,
        "! kmsflipsink name=sink sync=false mode=640x480 memory-kind=dumb",
    );
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    assert_eq!((player.count("zero-copy"), player.count("copied")), (3, 0));
    assert_crc(expected[2]);
}

#[test]
fn a_tee_lets_two_consumers_have_the_same_memory() {
    init();
    let (file, expected) = file_of(4);
    let player = from_file(
        &file,
        "num-buffers=4 ! tee name=t ! queue ! kmsflipsink name=sink sync=false mode=640x480 t. ! queue ! fakesink",
    );
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    assert_eq!(player.count("shown"), 4);
    assert_crc(expected[3]);
}

#[test]
fn a_connector_without_display_drops_frames_until_it_is_back() {
    let player = fed();
    player.set_state(gst::State::Playing);
    let (first, second) = (numbered(W, H, 1), numbered(W, H, 2));
    player.show(buffer_of(&first));
    force_connector("off");
    player.wait_for_event("unplugged");
    for _ in 0..3 {
        player.push(buffer_of(&second));
    }
    player.wait_until("dropped frames", |player| {
        player.count("dropped-disconnected") >= 2
    });
    force_connector("on");
    player.wait_for_event("plugged");
    player.show(buffer_of(&second));
    assert_on_screen(&second);
    force_connector("unspecified");
    player.reach(gst::State::Null);
    assert!(player.errors().is_empty());
}

/// Whether this kernel's vkms refuses to show a udmabuf that it has imported.
fn refuses_udmabufs() -> bool {
    support::kernel_version() == (6, 1)
}

#[test]
fn what_is_refused_only_at_the_commit_is_copied() {
    let player = fed();
    player.set_state(gst::State::Playing);
    let pictures = [1, 2].map(|number| numbered(W, H, number));
    let frames = pictures.each_ref().map(udmabuf_frame);
    for _ in 0..2 {
        for (frame, picture) in frames.iter().zip(&pictures) {
            player.show(frame.clone());
            assert_on_screen(picture);
        }
    }
    assert_eq!(
        (player.count("copied"), player.count("framebuffers")),
        if refuses_udmabufs() { (4, 0) } else { (0, 2) },
        "{}",
        player.stats()
    );
}

#[test]
fn a_flush_does_not_vouch_for_memory_that_no_commit_has_shown() {
    let player = fed();
    player.set_state(gst::State::Playing);
    for round in 0..8 {
        let [before, after] = [0, 1].map(|index| numbered(W, H, round * 2 + index));
        let frame = udmabuf_frame(&after);
        player.show(buffer_of(&before));
        // It waits for this one's flip, or is on its way to its commit.
        player.push(buffer_of(&before));
        player.push(frame.clone());
        std::thread::sleep(Duration::from_millis(round as u64 * 2));
        player.flush();
        player.show(buffer_of(&before));
        player.show(frame);
        assert_on_screen(&after);
    }
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn an_unplugged_display_does_not_vouch_for_memory_that_no_commit_has_shown() {
    let player = fed();
    player.set_state(gst::State::Playing);
    let pictures = [1, 2].map(|number| numbered(W, H, number));
    let frames = pictures.each_ref().map(udmabuf_frame);
    player.show(buffer_of(&pictures[0]));
    force_connector("off");
    player.wait_for_event("unplugged");
    frames.iter().for_each(|frame| player.push(frame.clone()));
    player.wait_until("dropped frames", |player| {
        player.count("dropped-disconnected") == 2
    });
    force_connector("on");
    player.wait_for_event("plugged");
    for (frame, picture) in frames.into_iter().zip(&pictures) {
        player.show(frame);
        assert_on_screen(picture);
    }
    force_connector("unspecified");
    player.reach(gst::State::Null);
    assert_eq!(player.errors(), [""; 0]);
}

/// Waits for the warning that there is nothing to show on, and for dropped frames. Of
/// frames that were copied before, another warning may be on the bus.
fn assert_waits(player: &Player, picture: &Picture, counter: &str) {
    let bus = player.pipeline.bus().unwrap();
    let is_waiting = |message: &gst::Message| match message.view() {
        gst::MessageView::Warning(warning) => {
            let text = warning.error().to_string();
            text.contains("frames are dropped until")
        }
        other => panic!("{other:?}"),
    };
    let wanted = [gst::MessageType::Warning, gst::MessageType::Error];
    loop {
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &wanted);
        if is_waiting(&message.expect("a warning")) {
            break;
        }
    }
    for _ in 0..3 {
        player.push(buffer_of(picture));
    }
    player.wait_until("dropped frames", |player| player.count(counter) >= 2);
    while let Some(more) = bus.pop_filtered(&wanted) {
        assert!(!is_waiting(&more), "one is enough: {more:?}");
    }
}

#[test]
fn a_start_without_a_display_waits_for_it() {
    for wish in ["", "connector=Virtual-1"] {
        init();
        force_connector("off");
        let player = Player::fed(&format!("mode=640x480 {wish}"));
        player.set_caps(&bgrx(W as u32, H as u32));
        player.set_state(gst::State::Playing);
        let pictures = [numbered(W, H, 1), numbered(W, H, 2)];
        player.push(buffer_of(&pictures[0]));
        assert_waits(&player, &pictures[0], "dropped-disconnected");
        force_connector("on");
        player.wait_for_event("plugged");
        // What was missed last is shown although nothing more has come.
        assert_on_screen(&pictures[0]);
        player.show(buffer_of(&pictures[1]));
        assert_on_screen(&pictures[1]);
        force_connector("unspecified");
        player.reach(gst::State::Null);
        assert_eq!(player.errors(), [""; 0]);
    }
}

#[test]
fn a_still_picture_in_paused_is_shown_when_the_display_comes() {
    init();
    force_connector("off");
    let player = Player::fed("mode=640x480");
    player.set_caps(&bgrx(W as u32, H as u32));
    player.set_state(gst::State::Paused);
    let picture = numbered(W, H, 3);
    player.push(buffer_of(&picture));
    player.reach(gst::State::Paused);
    force_connector("on");
    assert_on_screen(&picture);
    force_connector("unspecified");
}

#[test]
fn a_stop_while_a_display_is_waited_for_does_not_hang() {
    init();
    force_connector("off");
    for sync in [false, true] {
        let player = Player::new(&format!(
            "rawvideosrc ! video/x-raw,width=640,height=480,framerate=60/1 \
             ! kmsflipsink name=sink mode=640x480 sync={sync}"
        ));
        player.set_state(gst::State::Playing);
        player.wait_until("dropped frames", |player| {
            player.count("dropped-disconnected") >= 3
        });
        for state in [gst::State::Paused, gst::State::Playing, gst::State::Null] {
            player.reach(state);
        }
    }
    force_connector("unspecified");
}

#[test]
fn caps_that_change_without_a_display_are_shown_when_it_is_back() {
    let player = fed();
    player.set_state(gst::State::Playing);
    player.show(buffer_of(&numbered(W, H, 1)));
    force_connector("off");
    player.wait_for_event("unplugged");
    let small = numbered(320, 240, 2);
    player.set_caps(&bgrx(320, 240));
    for _ in 0..3 {
        player.push(buffer_of(&small));
    }
    player.wait_until("dropped frames", |player| {
        player.count("dropped-disconnected") >= 2
    });
    force_connector("on");
    player.wait_for_event("plugged");
    player.show(buffer_of(&small));
    assert_on_screen(&centred(&small, W, H));
    force_connector("unspecified");
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn caps_that_change_behind_another_virtual_terminal_are_shown_back_in_front() {
    init();
    let home = fs::read_to_string("/sys/class/tty/tty0/active").unwrap();
    let player = fed();
    player.set_state(gst::State::Playing);
    player.show(buffer_of(&numbered(W, H, 1)));
    switch_vt(if home.trim() == "tty2" {
        "tty3"
    } else {
        "tty2"
    });
    player.wait_for_event("master-lost");
    let small = numbered(320, 240, 2);
    player.set_caps(&bgrx(320, 240));
    player.push(buffer_of(&small));
    assert_waits(&player, &small, "dropped-no-master");
    switch_vt(home.trim());
    player.wait_for_event("master-regained");
    player.show(buffer_of(&small));
    assert_on_screen(&centred(&small, W, H));
    assert_eq!(player.errors(), [""; 0]);
}

/// Plugs the display in or out, and tells the world as a driver with a
/// hot-plug interrupt would.
pub fn force_connector(state: &str) {
    let dir = fs::read_dir("/sys/kernel/debug/dri")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|dir| dir.join("Virtual-1/force").exists())
        .unwrap();
    fs::write(dir.join("Virtual-1/force"), state).unwrap();
    fs::write("/sys/class/drm/card0/uevent", "change").unwrap();
}

/// Opens the card and so becomes its master, if nobody is.
fn rival() -> fs::File {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/dri/card0")
        .unwrap()
}

#[test]
fn a_card_with_another_master_is_refused_with_a_reason() {
    init();
    let rival = rival();
    let player = fed();
    assert!(player.pipeline.set_state(gst::State::Playing).is_err());
    let error = player.wait_for_error();
    assert!(
        error.contains("another program is DRM master of /dev/dri/card0"),
        "{error}"
    );
    assert!(player.errors().is_empty(), "one error is enough");
    drop(rival);
    player.reach(gst::State::Null);
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 4);
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
}

#[test]
fn an_fd_of_the_application_is_used_and_left_open() {
    init();
    let card = rival();
    for number in 0..2 {
        let player = Player::fed(&format!("mode=640x480 fd={}", card.as_raw_fd()));
        player.set_caps(&bgrx(W as u32, H as u32));
        player.set_state(gst::State::Playing);
        let picture = numbered(W, H, number);
        player.show(buffer_of(&picture));
        assert_on_screen(&picture);
    }
    assert!(card.metadata().is_ok());
}

#[test]
fn another_virtual_terminal_gets_the_screen_and_gives_it_back() {
    init();
    let console = crc_now();
    let home = fs::read_to_string("/sys/class/tty/tty0/active").unwrap();
    let player = fed();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 6);
    player.show(buffer_of(&picture));
    let away = if home.trim() == "tty2" {
        "tty3"
    } else {
        "tty2"
    };
    switch_vt(away);
    player.wait_for_event("master-lost");
    let rival_of_ours = rival();
    drop(rival_of_ours);
    assert_crc(console);
    player.push(buffer_of(&picture));
    player.push(buffer_of(&picture));
    player.wait_until("dropped frames", |player| {
        player.count("dropped-no-master") >= 1
    });
    switch_vt(home.trim());
    player.wait_for_event("master-regained");
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
    assert!(player.errors().is_empty());
}

/// A child that outlives no test: it would keep the card.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_player_that_is_killed_leaves_the_console_and_the_next_one_works() {
    init();
    let console = crc_now();
    let line = "rawvideosrc ! kmsflipsink mode=640x480";
    let child = support::gst_launch(line)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut stream = VkmsCrc::open();
    while stream.next().is_none_or(|frame| frame.crc == console) {
        assert!(Instant::now() < deadline, "the child shows nothing");
    }
    drop(stream); // takes one reader
    child.0.kill().unwrap();
    assert_eq!(child.0.wait().unwrap().signal(), Some(9));
    assert_crc(console);
    let player = fed();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 8);
    player.show(buffer_of(&picture));
    assert_on_screen(&picture);
}

#[test]
fn a_mode_that_is_not_there_is_an_error_that_lists_those_that_are() {
    init();
    let player = Player::fed("mode=123x456");
    player.set_caps(&bgrx(W as u32, H as u32));
    player.set_state(gst::State::Playing);
    let _ = player
        .pipeline
        .by_name("src")
        .unwrap()
        .downcast::<gst_app::AppSrc>()
        .unwrap()
        .push_buffer(buffer_of(&numbered(W, H, 0)));
    let error = player.wait_for_error();
    assert!(
        error.contains("123x456") && error.contains("640x480@"),
        "{error}"
    );
}

#[test]
fn nothing_that_fits_lists_what_there_is() {
    for (wish, reason) in [
        ("driver-name=nosuch", "no card with driver-name=nosuch"),
        ("connector=HDMI-A-9", "no connector is called HDMI-A-9"),
        ("connector-id=1", "no connector has the id 1"),
        ("plane-id=1", "no plane with the id 1"),
        ("device=/dev/dri/card9", "/dev/dri/card9"),
    ] {
        let player = Player::fed(wish);
        assert!(player.pipeline.set_state(gst::State::Ready).is_err());
        let error = player.wait_for_error();
        assert!(error.contains(reason), "{wish}: {error}");
        assert!(
            wish.starts_with("device") || error.contains("Virtual-1 connected"),
            "{wish}: {error}"
        );
    }
}

#[test]
fn plane_properties_that_do_not_exist_are_named_with_those_that_do() {
    let player = Player::fed("plane-properties=p,nosuch=1");
    assert!(player.pipeline.set_state(gst::State::Ready).is_err());
    let error = player.wait_for_error();
    assert!(
        error.contains("no property nosuch") && error.contains("CRTC_ID"),
        "{error}"
    );
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
    let (file, expected) = file_of(10);
    let player = from_file(
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
fn whoever_comes_while_another_leaves_gets_the_card() {
    // The card's thread ends when its last sink went, and gives up the card.
    let player = fed();
    let frames = [1, 2].map(|number| dma_frame(&numbered(W, H, number)));
    for round in 0..50 {
        player.set_state(gst::State::Playing);
        player.show(frames[round % 2].clone());
        player.reach(gst::State::Null);
    }
    assert_eq!(player.errors(), Vec::<String>::new());
}

#[test]
fn seeks_while_playing_lose_no_frame_from_their_place_on() {
    init();
    const N: u64 = 40;
    let (file, expected) = file_of(N as usize);
    let player = from_file(&file, "! kmsflipsink name=sink sync=false mode=640x480");
    let seek = |frame: u64| {
        let time = gst::ClockTime::from_nseconds(frame * 1_000_000_000 / 60 + 1_000_000);
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        player.pipeline.seek_simple(flags, time).unwrap();
    };
    player.reach(gst::State::Playing);
    // Each comes while frames wait for their flips.
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
    // The base class counts those it handed over since the flush.
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
fn a_drain_gives_upstream_its_memory_back_and_leaves_the_picture() {
    let player = fed();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 44);
    let frame = dma_frame(&picture);
    let (fd, inode) = {
        let memory = frame.peek_memory(0);
        let fd = memory
            .downcast_memory_ref::<gst_allocators::DmaBufMemory>()
            .unwrap()
            .fd();
        (fd, inode_of(fd))
    };
    assert!(inode.is_some());
    player.show(frame);
    assert_on_screen(&picture);
    assert_eq!(inode_of(fd), inode, "the sink holds what is on the screen");
    let pad = player.sink.static_pad("sink").unwrap();
    assert!(pad.query(gst::query::Drain::new().query_mut()));
    assert_ne!(inode_of(fd), inode, "upstream's dma-buf is still open");
    assert_on_screen(&picture);
    assert_eq!(player.count("shown"), 1, "the still is no frame");
    let next = numbered(W, H, 45);
    player.show(dma_frame(&next));
    assert_on_screen(&next);
}

fn inode_of(fd: i32) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(fs::metadata(format!("/proc/self/fd/{fd}")).ok()?.ino())
}

#[test]
fn a_frame_whose_memory_was_freed_is_dropped_and_the_next_is_shown() {
    let player = fed();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 5);
    let mut handles: Vec<_> = (0..2)
        .map(|_| support::handle_over(bgrx_bytes(&picture, W * 4)))
        .collect();
    let pool = PhysBufferPool::with_borrowed_handles(&handles);
    let mut config = pool.config();
    let caps = bgrx(W as u32, H as u32).to_caps().unwrap();
    config.set_params(Some(&caps), (W * H * 4) as u32, 0, 0);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let [freed, kept] = [(); 2].map(|()| pool.acquire_free(Wait::No).unwrap());
    let at = freed.meta::<PhysMemMeta>().unwrap().region().unwrap().ptr();
    handles.retain(|handle| handle.ptr().as_ptr() != at);
    assert_eq!(handles.len(), 1);

    player.push(freed);
    player.show(kept);
    assert_on_screen(&picture);
    let count = |name| player.stats().get::<u64>(name).unwrap();
    assert_eq!(
        (
            count("dropped-memory-freed"),
            count("shown"),
            count("copied")
        ),
        (1, 1, 1),
        "{}",
        player.stats()
    );
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn a_meta_that_does_not_fit_its_dma_buf_is_an_error_and_no_crash() {
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
    for (name, change) in wrong {
        let player = fed();
        player.set_state(gst::State::Playing);
        let mut frame = dma_frame(&numbered(W, H, 1));
        let buffer = frame.get_mut().unwrap();
        // SAFETY: the buffer has the meta, and is ours alone.
        change(unsafe { &mut *gst_video::ffi::gst_buffer_get_video_meta(buffer.as_mut_ptr()) });
        player.push(frame);
        let error = player.wait_for_error();
        assert!(error.contains("GstVideoMeta"), "{name}: {error}");
    }
}
