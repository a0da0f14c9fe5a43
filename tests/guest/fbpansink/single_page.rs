// SPDX-License-Identifier: MPL-2.0
//! vkms with drm_fbdev_overalloc=100, so that the framebuffer has memory for one screenful. From Linux 6.12 on
//! this framebuffer has deferred I/O (drm_fbdev_shmem.c).

use gst_video::VideoFormat;

use super::pictures;
use super::support::player::Player;
use super::support::{Picture, VkmsCrc, kernel_version, require_lab};

fn has_deferred_io() -> bool {
    kernel_version() >= (6, 12)
}

#[test]
fn memory_for_one_page_is_used_and_the_remedy_said() {
    require_lab();
    // sync=false, because with deferred I/O late frames are dropped.
    let player = Player::play("rawvideosrc num-buffers=4 ! queue ! fbpansink name=sink sync=false");
    let stats = player.stats();
    let deferred = stats.get::<bool>("deferred-io").unwrap();
    assert_eq!(deferred, has_deferred_io(), "{stats}");
    if deferred {
        let counted = (player.count("zero-copy"), player.count("copied"));
        assert_eq!(counted, (0, 4), "{stats}");
        let why = "copying: the driver sends what is written";
        assert!(player.text("path").starts_with(why), "{stats}");
    } else {
        player.assert_zero_copy(4);
    }
    assert_eq!(stats.get::<u32>("fb-pages").unwrap(), 1, "{stats}");
    let warnings = player.messages(gst::MessageType::Warning);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("drm_kms_helper.drm_fbdev_overalloc=300"),
        "{warnings:?}"
    );
    let (width, height) = (stats.get("width").unwrap(), stats.get("height").unwrap());
    let expected = pictures::pattern(3, VideoFormat::Bgrx, width, height);
    assert_eq!(VkmsCrc::current(), expected.vkms_crc());
}

const W: usize = 320;
const H: usize = 100;

/// A frame of one grey, with one row in another.
fn frame(row: usize, grey: u8) -> (gst::Buffer, Picture) {
    let level = |y: usize| if y == row { grey } else { 40 };
    let bytes: Vec<u8> = (0..H).flat_map(|y| vec![level(y); W * 4]).collect();
    (
        gst::Buffer::from_slice(bytes),
        Picture::from_fn(W, H, |_, y| [level(y); 3]),
    )
}

#[test]
fn with_deferred_io_only_rows_that_changed_are_written() {
    require_lab();
    if !has_deferred_io() {
        return; // this kernel's framebuffer is drawn on directly
    }
    let info = gst_video::VideoInfo::builder(VideoFormat::Bgrx, W as u32, H as u32);
    let info = info.build().unwrap();
    let player = Player::new("appsrc name=src format=time ! fbpansink name=sink sync=false");
    player.set_caps(&info);
    player.start();
    let (row_bytes, frame_bytes) = (4 * W as u64, 4 * (W * H) as u64);
    let mut expected = frame_bytes;
    let mut shown = 0;
    let show = |buffer: gst::Buffer, picture: &Picture, written: u64, shown: u64| {
        player.show(buffer);
        let (width, height) = (player.stats().get("width"), player.stats().get("height"));
        let (width, height): (u32, u32) = (width.unwrap(), height.unwrap());
        let (width, height) = (width as usize, height as usize);
        let (x, y) = ((width - W) / 2, (height - H) / 2);
        let on_screen = pictures::on_black(picture, x, y, width, height);
        assert_eq!(VkmsCrc::current(), on_screen.vkms_crc());
        let stats = player.stats();
        assert_eq!(player.count("bytes-written"), written, "{stats}");
        let unchanged = frame_bytes * shown - written;
        assert_eq!(player.count("bytes-unchanged"), unchanged, "{stats}");
    };
    // Another row each time, so two rows differ: the one that is lit and the one that was.
    for (row, grey, changed_rows) in [(10, 40, 0), (10, 90, 1), (60, 90, 2), (60, 90, 0)] {
        let (buffer, picture) = frame(row, grey);
        expected += changed_rows * row_bytes;
        shown += 1;
        show(buffer, &picture, expected, shown);
    }
    // At another place, the picture is written whole.
    let rectangle = gst::Array::new([0i32, 0, 400, 200]);
    gst::prelude::ObjectExt::set_property(&player.sink, "render-rectangle", rectangle);
    player.show(frame(60, 90).0);
    assert_eq!(player.count("bytes-written"), expected + frame_bytes);
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn with_deferred_io_a_crop_is_written_alone() {
    require_lab();
    if !has_deferred_io() {
        return; // as above
    }
    let caps = "video/x-raw,format=BGRx,width=320,height=240";
    let source = "videotestsrc num-buffers=6 pattern=ball";
    let part = pictures::last_frame(source, caps).crop(10, 20, 100, 60);
    let crop = "videocrop left=10 right=210 top=20 bottom=160";
    let player = Player::play(&format!(
        "{source} ! {caps} ! {crop} ! fbpansink name=sink sync=false"
    ));
    let bytes = player.count("bytes-written") + player.count("bytes-unchanged");
    assert_eq!(bytes, 6 * 100 * 60 * 4, "{}", player.stats());
    let (width, height) = (player.stats().get("width"), player.stats().get("height"));
    let (width, height): (u32, u32) = (width.unwrap(), height.unwrap());
    let (width, height) = (width as usize, height as usize);
    let (x, y) = ((width - 100) / 2, (height - 60) / 2);
    let on_screen = pictures::on_black(&part, x, y, width, height);
    assert_eq!(VkmsCrc::current(), on_screen.vkms_crc());
}
