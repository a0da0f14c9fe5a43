// SPDX-License-Identifier: MPL-2.0
//! Wrong claims of upstream: metas that do not fit their memory, and caps that the screen cannot
//! show. Needs cirrus.

use gst::prelude::*;
use gst_video::ffi::GstVideoMeta;

use super::support::player::Player;
use super::support::require_lab;

const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;

/// A frame of ordinary memory whose GstVideoMeta is correct but for what `change` does to it.
fn frame(info: &gst_video::VideoInfo, change: fn(&mut GstVideoMeta)) -> gst::Buffer {
    let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
    let buffer_ref = buffer.get_mut().unwrap();
    buffer_ref.set_pts(gst::ClockTime::ZERO);
    gst_video::VideoMeta::add_full(
        buffer_ref,
        gst_video::VideoFrameFlags::empty(),
        info.format(),
        WIDTH,
        HEIGHT,
        info.offset(),
        info.stride(),
    )
    .unwrap();
    // SAFETY: the meta was just added to the buffer, which is ours alone.
    change(unsafe { &mut *gst_video::ffi::gst_buffer_get_video_meta(buffer_ref.as_mut_ptr()) });
    buffer
}

/// A pipeline of an appsrc with these caps, and the appsrc.
fn appsrc_player(info: &gst_video::VideoInfo) -> (Player, gst_app::AppSrc) {
    let player = Player::new("appsrc name=a format=time ! fbpansink name=sink");
    let source: gst_app::AppSrc = player.pipeline.by_name("a").unwrap().downcast().unwrap();
    source.set_caps(Some(&info.to_caps().unwrap()));
    player.start();
    (player, source)
}

#[test]
fn a_meta_that_does_not_fit_its_memory_is_an_error_and_no_crash() {
    require_lab();
    super::support::player::init();
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Bgr, WIDTH, HEIGHT)
        .fps((30, 1))
        .build()
        .unwrap();
    type Change = fn(&mut GstVideoMeta);
    let wrong: [(&str, Change); 6] = [
        ("no planes", |meta| meta.n_planes = 0),
        ("a hundred planes", |meta| meta.n_planes = 100),
        ("a far offset", |meta| meta.offset = [usize::MAX - 5; 4]),
        ("a long stride", |meta| meta.stride = [i32::MAX; 4]),
        ("a negative stride", |meta| meta.stride = [-960; 4]),
        ("a huge frame", |meta| {
            (meta.width, meta.height) = (u32::MAX, u32::MAX);
        }),
    ];
    for (name, change) in wrong {
        let (player, source) = appsrc_player(&info);
        let _ = source.push_buffer(frame(&info, change));
        let error = player.wait_for_error();
        assert!(error.contains("GstVideoMeta"), "{name}: {error}");
    }
    let (player, source) = appsrc_player(&info);
    source.push_buffer(frame(&info, |_| ())).unwrap();
    source.end_of_stream().unwrap();
    player.wait_for_end();
    assert_eq!(player.count("copied"), 1);
}

#[test]
fn caps_that_the_screen_has_not_name_both_sides_and_the_element_between() {
    require_lab();
    super::support::player::init();
    for (format, width, remedy) in [
        (
            gst_video::VideoFormat::Bgrx,
            WIDTH,
            "put videoconvert before fbpansink",
        ),
        (
            gst_video::VideoFormat::Bgr,
            800,
            "put videoscale before fbpansink",
        ),
        (
            gst_video::VideoFormat::Bgrx,
            800,
            "put videoconvert ! videoscale before fbpansink",
        ),
    ] {
        let info = gst_video::VideoInfo::builder(format, width, HEIGHT)
            .fps((30, 1))
            .build()
            .unwrap();
        // Upstream sends caps that do not match.
        let (player, source) = appsrc_player(&info);
        let _ = source.push_buffer(gst::Buffer::with_size(info.size()).unwrap());
        let error = player.wait_for_error();
        let name = format.to_str();
        assert!(
            error.contains(remedy) && error.contains(name.as_str()),
            "{error}"
        );
        player.stop();
        // A capsfilter asks for caps that do not match.
        let player = Player::new(&format!(
            "videotestsrc ! video/x-raw,format={name},width={width},height={HEIGHT} ! fbpansink name=sink"
        ));
        let _ = player.pipeline.set_state(gst::State::Playing);
        player.wait_for_error();
        let warnings = player.messages(gst::MessageType::Warning).join("; ");
        assert!(warnings.contains(remedy), "{warnings}");
    }
}
