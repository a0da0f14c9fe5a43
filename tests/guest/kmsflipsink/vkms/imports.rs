// SPDX-License-Identifier: MPL-2.0
//! Whose memory is shown: dma-bufs are imported, ordinary memory is copied once.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use gst::prelude::*;
use gstphysmem::meta::PhysMemMeta;
use gstphysmem::pool::{PhysBufferPool, Wait};

use super::{H, W, bgrx_player, file_player, force_connector, numbered_file};
use crate::frames::{
    assert_crc, assert_on_screen, bgrx, bgrx_bytes, buffer_of, dma_frame, dma_frame_at, numbered,
    udmabuf_frame,
};
use crate::support;
use crate::support::player::{Player, init};

#[test]
fn ordinary_memory_is_copied_once_and_the_sink_says_why() {
    let player = bgrx_player();
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
fn an_upload_into_another_kind_than_the_sinks_is_said_on_the_bus() {
    let player = Player::play(
        "videotestsrc num-buffers=5 ! video/x-raw,format=BGRx,width=640,height=480 \
         ! physmemupload name=upload kind=normal ! kmsflipsink name=sink memory-kind=cma sync=false",
    );
    let warnings = player.messages(gst::MessageType::Warning);
    let told = |text: &&String| {
        text.contains("memory of kind cma, and kind=normal asks for another")
            && text.contains("leave kind at auto")
    };
    assert_eq!(warnings.iter().filter(told).count(), 1, "{warnings:?}");
    let upload = player.pipeline.by_name("upload").unwrap();
    let stats = upload.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("copied").unwrap(), 5);
    // The copies are in the sink's own pool.
    assert_eq!(player.count("copied"), 0);
}

#[test]
fn foreign_dma_bufs_are_shown_where_they_are() {
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    for number in 0..6 {
        let picture = numbered(W, H, number);
        player.show(dma_frame(&picture));
        assert_on_screen(&picture);
    }
    assert_eq!((player.count("zero-copy"), player.count("copied")), (6, 0));
    // The framebuffers of freed frames are removed too.
    assert!(player.count("framebuffers") <= 3, "{}", player.stats());
}

#[test]
fn a_dma_buf_with_a_longer_stride_is_shown_where_it_is() {
    // This test uses no offset: vkms of 6.12 adds the offset twice and reads beyond the buffer,
    // which ends its composer. The test with an offset runs on cirrus.
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 77);
    player.show(dma_frame_at(&picture, 0, W * 4 + 256));
    assert_on_screen(&picture);
    assert_eq!(player.count("zero-copy"), 1, "{}", player.stats());
}

#[test]
fn the_same_fd_number_for_other_memory_shows_the_other_memory() {
    let player = bgrx_player();
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
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let buffer = dma_frame(&numbered(W, H, 1));
    let other = dma_frame(&numbered(W, H, 2));
    for number in 3..9 {
        let picture = numbered(W, H, number);
        // Another memory is shown first, so that the CPU does not write into the frame on the
        // screen.
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
    let (file, expected) = numbered_file(3);
    let player = file_player(
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
    let (file, expected) = numbered_file(4);
    let player = file_player(
        &file,
        "num-buffers=4 ! tee name=t ! queue ! kmsflipsink name=sink sync=false mode=640x480 t. ! queue ! fakesink",
    );
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    assert_eq!(player.count("shown"), 4);
    assert_crc(expected[3]);
}

/// Whether this kernel's vkms refuses to show a udmabuf that it has imported.
fn refuses_udmabufs() -> bool {
    support::kernel_version() == (6, 1)
}

#[test]
fn what_is_refused_only_at_the_commit_is_copied() {
    let player = bgrx_player();
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
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    for round in 0..8 {
        let [before, after] = [0, 1].map(|index| numbered(W, H, round * 2 + index));
        let frame = udmabuf_frame(&after);
        player.show(buffer_of(&before));
        // This frame waits for the flip of the one before it, or its commit is on the way.
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
    let player = bgrx_player();
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

#[test]
fn a_drain_gives_upstream_its_memory_back_and_leaves_the_picture() {
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 44);
    let frame = dma_frame(&picture);
    let is_open = watch(&frame);
    player.show(frame);
    assert_on_screen(&picture);
    assert!(is_open(), "the sink holds what is on the screen");
    drain(&player);
    assert!(!is_open(), "upstream's dma-buf is still open");
    assert_on_screen(&picture);
    assert_eq!(player.count("shown"), 1, "the still is no frame");
    let next = numbered(W, H, 45);
    player.show(dma_frame(&next));
    assert_on_screen(&next);
}

#[test]
fn a_drain_gives_upstream_its_memory_back_although_the_display_is_unplugged() {
    let player = bgrx_player();
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 46);
    let frame = dma_frame(&picture);
    let is_open = watch(&frame);
    player.show(frame);
    force_connector("off");
    player.wait_for_event("unplugged");
    assert!(is_open(), "the display may come back");
    drain(&player);
    assert!(!is_open(), "upstream's dma-buf is still open");
    force_connector("on");
    player.wait_for_event("plugged");
    assert_on_screen(&picture);
    let next = numbered(W, H, 47);
    player.show(dma_frame(&next));
    assert_on_screen(&next);
    force_connector("unspecified");
    player.reach(gst::State::Null);
    assert_eq!(player.errors(), [""; 0]);
}

fn drain(player: &Player) {
    let pad = player.sink.static_pad("sink").unwrap();
    assert!(pad.query(gst::query::Drain::new().query_mut()));
}

/// A function that says whether the dma-buf of the frame is still open.
fn watch(frame: &gst::BufferRef) -> impl Fn() -> bool + use<> {
    let memory = frame.peek_memory(0);
    let memory = memory.downcast_memory_ref::<gst_allocators::DmaBufMemory>();
    let fd = memory.unwrap().fd();
    let inode = inode_of(fd);
    assert!(inode.is_some());
    move || inode_of(fd) == inode
}

fn inode_of(fd: i32) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(fs::metadata(format!("/proc/self/fd/{fd}")).ok()?.ino())
}

#[test]
fn a_frame_whose_memory_was_freed_is_dropped_and_the_next_is_shown() {
    let player = bgrx_player();
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
        let player = bgrx_player();
        player.set_state(gst::State::Playing);
        let mut frame = dma_frame(&numbered(W, H, 1));
        let buffer = frame.get_mut().unwrap();
        // SAFETY: the buffer has the meta, and nothing else refers to the buffer.
        change(unsafe { &mut *gst_video::ffi::gst_buffer_get_video_meta(buffer.as_mut_ptr()) });
        player.push(frame);
        let error = player.wait_for_error();
        assert!(error.contains("GstVideoMeta"), "{name}: {error}");
    }
}
