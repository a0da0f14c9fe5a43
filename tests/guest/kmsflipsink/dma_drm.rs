// SPDX-License-Identifier: MPL-2.0
//! Caps of GStreamer 1.24 with a fourcc and a modifier. Needs vkms, and a guest run with --tree
//! debian13.

use gst::prelude::*;

use crate::frames::{
    assert_on_screen, bgrx_bytes, dma_frame, dma_frame_of_fourcc, laid_on, numbered, plain,
};
use crate::support::kernel_version;
use crate::support::player::{Player, init};

const W: usize = 1024;
const H: usize = 768;

fn caps(drm_format: &str) -> gst::Caps {
    init();
    let structure = gst::Structure::builder("video/x-raw")
        .field("format", "DMA_DRM")
        .field("drm-format", drm_format)
        .field("width", W as i32)
        .field("height", H as i32)
        .field("framerate", gst::Fraction::new(60, 1))
        .build();
    let features = gst::CapsFeatures::new([gst_allocators::CAPS_FEATURE_MEMORY_DMABUF]);
    gst::Caps::builder_full()
        .structure_with_features(structure, features)
        .build()
}

fn player_of(caps: &gst::Caps) -> Player {
    let player = Player::with_appsrc("driver-name=vkms");
    let appsrc = player.pipeline.by_name("src").unwrap();
    appsrc.set_property("caps", caps);
    player
}

#[test]
fn the_sink_offers_the_fourccs_of_its_plane() {
    let player = player_of(&caps("XR24"));
    player.set_state(gst::State::Ready);
    let pad = player.sink.static_pad("sink").unwrap();
    let offered = pad.query_caps(None);
    assert!(offered.can_intersect(&caps("XR24")), "{offered}");
    // Intel's Y tiling, which no plane of vkms has.
    assert!(
        !offered.can_intersect(&caps("XR24:0x0100000000000002")),
        "{offered}"
    );
    let plain = gst_video::VideoCapsBuilder::new().build();
    assert!(offered.can_intersect(&plain), "{offered}");
}

#[test]
fn frames_of_a_fourcc_are_shown_where_they_are() {
    let player = player_of(&caps("XR24"));
    player.set_state(gst::State::Playing);
    for number in 0..3 {
        let picture = numbered(W, H, number);
        player.show(dma_frame(&picture));
        assert_on_screen(&picture);
    }
    assert_eq!(
        (player.count("zero-copy"), player.count("copied")),
        (3, 0),
        "{}",
        player.stats()
    );
}

#[test]
fn a_stream_may_turn_from_a_fourcc_to_a_format_and_back() {
    let player = player_of(&caps("XR24"));
    player.set_state(gst::State::Playing);
    let plain = crate::frames::bgrx(W as u32, H as u32).to_caps().unwrap();
    for (number, caps) in [caps("XR24"), plain, caps("XR24")].iter().enumerate() {
        player
            .pipeline
            .by_name("src")
            .unwrap()
            .set_property("caps", caps);
        let picture = numbered(W, H, number + 10);
        player.show(dma_frame(&picture));
        assert_on_screen(&picture);
    }
    assert_eq!(player.count("copied"), 0, "{}", player.stats());
}

#[test]
fn memory_that_is_no_dma_buf_is_copied_since_a_linear_layout_can_be() {
    let player = player_of(&caps("XR24"));
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 1);
    player.show(gst::Buffer::from_slice(bgrx_bytes(&picture, W * 4)));
    assert_on_screen(&picture);
    assert_eq!(
        (player.count("zero-copy"), player.count("copied")),
        (0, 1),
        "{}",
        player.stats()
    );
}

/// NV42 is NV24 with Cr before Cb, and no format of GStreamer. vkms of Linux 7.2 shows it, that of 6.12 does not.
#[test]
fn frames_of_a_fourcc_that_gstreamer_does_not_know_are_shown_where_they_are() {
    let mut caps = caps("NV42");
    let colorimetry = "1:4:0:0"; // BT.601, full range
    caps.get_mut().unwrap().set("colorimetry", colorimetry);
    let player = player_of(&caps);
    player.set_state(gst::State::Ready);
    let offered = player.sink.static_pad("sink").unwrap().query_caps(None);
    if !offered.can_intersect(&caps) {
        assert!(kernel_version() < (7, 2), "{offered}");
        println!("SKIPPED: vkms does not show NV42");
        return;
    }
    player.set_state(gst::State::Playing);
    // White above black, without colour.
    let mut bytes = vec![255; W * H / 2];
    bytes.resize(W * H, 0);
    bytes.resize(W * H * 3, 128);
    let size = (W as u32, H as u32);
    let frame = dma_frame_of_fourcc(&bytes, size, &[(0, W as i32), (W * H, 2 * W as i32)]);
    player.show(frame);
    let ground = plain(W, H, [0; 3]);
    assert_on_screen(&laid_on(&ground, &plain(W, H / 2, [255; 3]), 0, 0));
    assert_eq!((player.count("zero-copy"), player.count("copied")), (1, 0));
    // The same without a word on where its planes are cannot even be copied.
    player.push(gst::Buffer::from_slice(bytes));
    let error = player.wait_for_error();
    assert!(error.contains("NV42"), "{error}");
}

/// Dumb buffers of another element are no dma-bufs, and can be exported. Each is imported once.
#[test]
fn dumb_buffers_of_another_element_are_shown_where_they_are() {
    use gst_allocators::prelude::*;

    let info = crate::frames::bgrx(W as u32, H as u32);
    let player = Player::with_appsrc("driver-name=vkms");
    player.set_caps(&info);
    player.set_state(gst::State::Playing);
    let device = player.text("device");
    let allocator = gst_allocators::DRMDumbAllocator::with_device_path(&device).unwrap();
    assert!(allocator.has_prime_export());
    let buffers: Vec<_> = (0..2)
        .map(|number| {
            let xr24 = u32::from_le_bytes(*b"XR24");
            // SAFETY: the function has no requirement that its arguments could break.
            let made = unsafe { allocator.alloc_drm_dumb(xr24, W as u32, H as u32) };
            let (memory, pitch) = made.unwrap();
            let mut buffer = gst::Buffer::new();
            let buffer_mut = buffer.get_mut().unwrap();
            buffer_mut.append_memory(memory);
            let bytes = bgrx_bytes(&numbered(W, H, number), pitch as usize);
            buffer_mut.map_writable().unwrap()[..bytes.len()].copy_from_slice(&bytes);
            let format = gst_video::VideoFormat::Bgrx;
            let flags = gst_video::VideoFrameFlags::empty();
            gst_video::VideoMeta::add_full(
                buffer_mut,
                flags,
                format,
                W as u32,
                H as u32,
                &[0],
                &[pitch as i32],
            )
            .unwrap();
            buffer
        })
        .collect();
    for _ in 0..3 {
        for (number, buffer) in buffers.iter().enumerate() {
            player.show(buffer.clone());
            assert_on_screen(&numbered(W, H, number));
        }
    }
    player.assert_zero_copy(6);
    assert_eq!(player.count("framebuffers"), 2, "{}", player.stats());
}
