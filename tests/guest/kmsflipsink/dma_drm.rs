// SPDX-License-Identifier: MPL-2.0
//! Caps of GStreamer 1.24 with a fourcc and a modifier. Needs vkms, and a guest run with --tree
//! debian13.

use gst::prelude::*;

use crate::frames::{assert_on_screen, bgrx_bytes, dma_frame, numbered};
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
