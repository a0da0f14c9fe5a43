// SPDX-License-Identifier: MPL-2.0
//! Streams whose buffers are single fields (`interlace-mode=alternate`). The CRC says whether two of them make the picture.

use gst::prelude::*;
use gst_video::prelude::*;
use gst_video::{VideoBufferFlags, VideoFormat, VideoInterlaceMode};

use super::{H, W};
use crate::frames::{assert_on_screen, bgrx_bytes, centred, numbered};
use crate::support::Picture;
use crate::support::player::Player;

fn info(width: usize, height: usize) -> gst_video::VideoInfo {
    gst_video::VideoInfo::builder(VideoFormat::Bgrx, width as u32, height as u32)
        .interlace_mode(VideoInterlaceMode::Alternate)
        .fps(gst::Fraction::new(30, 1))
        .build()
        .unwrap()
}

fn player(width: usize, height: usize) -> Player {
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&info(width, height));
    player.set_state(gst::State::Playing);
    player
}

/// Top and bottom field of a picture, in rows of `stride` bytes, which a GstVideoMeta describes. As in other elements, its
/// height is that of the frame or that of the field.
fn fields(picture: &Picture, stride: usize, meta_height: usize) -> [gst::Buffer; 2] {
    let bytes = bgrx_bytes(picture, stride);
    [VideoBufferFlags::TOP_FIELD, VideoBufferFlags::BOTTOM_FIELD].map(|flags| {
        let first = usize::from(flags == VideoBufferFlags::BOTTOM_FIELD);
        let rows = bytes.chunks_exact(stride).skip(first).step_by(2);
        let field: Vec<u8> = rows.flatten().copied().collect();
        let mut buffer = gst::Buffer::from_mut_slice(field);
        let buffer_mut = buffer.get_mut().unwrap();
        buffer_mut.set_video_flags(flags);
        gst_video::VideoMeta::add_full(
            buffer_mut,
            gst_video::VideoFrameFlags::empty(),
            VideoFormat::Bgrx,
            picture.width as u32,
            meta_height as u32,
            &[0],
            &[stride as i32],
        )
        .unwrap();
        buffer
    })
}

#[test]
fn two_fields_are_shown_as_one_frame() {
    let player = player(W, H);
    for number in 70..73 {
        let picture = numbered(W, H, number);
        let [top, bottom] = fields(&picture, W * 4 + 64 * (number - 70), H / (1 + number % 2));
        player.push(top);
        player.show(bottom);
        assert_on_screen(&picture);
    }
    assert_eq!(
        (player.count("copied"), player.count("zero-copy")),
        (3, 0),
        "{}",
        player.stats()
    );
    assert!(
        player.text("path").contains("two fields"),
        "{}",
        player.text("path")
    );
    // A frame is shown again as a whole.
    player.set_state(gst::State::Paused);
    player.sink.set_property(
        "render-rectangle",
        gst::Array::new([0i32, 0, W as i32, H as i32]),
    );
    assert_on_screen(&numbered(W, H, 72));
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn a_field_without_its_other_half_is_left_out() {
    let player = player(W, H);
    let pictures = [74, 75].map(|number| numbered(W, H, number));
    let [[lost, _], [top, bottom]] = pictures.each_ref().map(|picture| fields(picture, W * 4, H));
    player.push(lost);
    player.push(top);
    player.show(bottom);
    assert_on_screen(&pictures[1]);
    assert_eq!(player.count("shown"), 1, "{}", player.stats());
}

#[test]
fn fields_of_a_smaller_picture_are_centred() {
    let player = player(320, 200);
    let picture = numbered(320, 200, 76);
    let [top, bottom] = fields(&picture, 320 * 4, 200);
    player.push(bottom);
    player.show(top);
    assert_on_screen(&centred(&picture, W, H));
    assert_eq!(player.errors(), [""; 0]);
}
