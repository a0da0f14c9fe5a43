// SPDX-License-Identifier: MPL-2.0
//! cirrusfb: 640x480 with 24 bits a pixel. It pans, its virtual screen grows to four fb_pages, it
//! has no vertical blank to wait for, and QEMU can take a picture of its screen.

use gst::prelude::*;
use gst_video::prelude::*;
use gst_video::{VideoFormat, VideoOverlay};

use super::console::assert_seen;
use super::fb::{self, Fb};
use super::pictures;
use super::support::player::{Player, init};
use super::support::{self, Picture, gst_launch, oracle, require_lab, run};

const WIDTH: usize = 640;
const HEIGHT: usize = 480;

fn shot() -> Picture {
    oracle().shot()
}

#[test]
fn bare_line_shows_300_frames_without_a_copy() {
    require_lab();
    let player = Player::play("rawvideosrc num-buffers=300 ! fbpansink name=sink");
    player.assert_zero_copy(300);
    assert_eq!(player.stats().get::<u64>("dropped").unwrap(), 0);
    shot().assert_same_as(&pictures::pattern(299, VideoFormat::Bgr, 640, 480));
}

#[test]
fn the_framebuffer_is_listed_as_it_is_and_left_alone() {
    init();
    let before = Fb::open().var();
    let provider = gst::DeviceProviderFactory::by_name("fbpandeviceprovider").unwrap();
    let devices = provider.devices();
    assert_eq!(devices.len(), 1);
    let device = devices.front().unwrap();
    let properties = device.properties().unwrap();
    assert_eq!(properties.get("device.path"), Ok("/dev/fb0"));
    assert_eq!(properties.get("fbdev.mode"), Ok("640x480"));
    assert_eq!(properties.get("fbdev.pans"), Ok(true));
    let fits = |caps: &str| {
        let caps: gst::Caps = caps.parse().unwrap();
        device.caps().unwrap().can_intersect(&caps)
    };
    assert!(fits("video/x-raw,format=BGR,width=640,height=480"));
    assert!(!fits("video/x-raw,format=BGR,width=641,height=480"));
    assert!(!fits("video/x-raw,format=BGRx,width=640,height=480"));
    let element = device.create_element(None).unwrap();
    assert_eq!(element.property::<String>("device"), "/dev/fb0");
    assert_eq!(Fb::open().var(), before);
}

#[test]
fn gst_launch_plays_the_bare_line() {
    require_lab();
    let ran = run(&mut gst_launch("rawvideosrc num-buffers=20 ! fbpansink")).expect_success();
    assert!(!ran.stderr.contains("WARN"), "{}", ran.stderr);
}

#[test]
fn the_numbers_are_logged_when_the_sink_stops() {
    require_lab();
    let mut launch = gst_launch("rawvideosrc num-buffers=20 ! fbpansink");
    let ran = run(launch.env("GST_DEBUG", "fbpansink:4")).expect_success();
    let line = "shown 20, zero-copy 20, copied 0, ";
    let lines = ran.stderr.lines().filter(|said| said.contains(line));
    let lines: Vec<_> = lines.collect();
    assert!(
        matches!(lines[..], [one] if one.contains("path zero-copy: upstream writes into")),
        "{}",
        ran.stderr
    );
}

#[test]
fn every_frame_of_an_odd_size_is_shown_exactly() {
    require_lab();
    // A row has 999 bytes of pixels, 1000 bytes in the file, and 1920 bytes on the screen.
    let (width, height) = (333, 221);
    let path = std::env::temp_dir().join("odd.raw");
    let frames = pictures::noise_file(&path, 90, pictures::bgr_stride(width) * height);
    let (x, y) = ((WIDTH - width) / 2, (HEIGHT - height) / 2);
    let expected = |n: usize| {
        let frame = pictures::bgr_picture(&frames[n], width, height);
        pictures::on_black(&frame, x, y, WIDTH, HEIGHT)
    };
    let source = format!(
        "rawvideosrc location={} format=bgr width={width} height={height} framerate=30/1",
        path.display()
    );
    let player = Player::new(&format!("{source} ! fbpansink name=sink"));
    // The change of state and the seeks end when the presenter has the frame, a moment before the screen shows it.
    let wait_for = |n: usize| {
        let expected = expected(n);
        player.wait_until("that picture", |_| shot() == expected);
    };
    player.reach(gst::State::Paused);
    wait_for(0);
    for frame in [17, 89, 3, 3, 88] {
        player.seek(frame as u64, 30);
        wait_for(frame);
    }
    player.seek(60, 30);
    player.start();
    player.wait_for_end();
    shot().assert_same_as(&expected(89));
    assert_eq!(player.count("copied"), 0, "{}", player.stats());
    player.stop();

    let looped = format!("{source} loop=true num-buffers=200 ! fbpansink name=sink sync=false");
    let player = Player::play(&looped);
    player.assert_zero_copy(200);
    shot().assert_same_as(&expected(199 % 90));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn foreign_frames_are_copied_once_and_the_reason_is_said() {
    require_lab();
    let (width, height) = (201, 99);
    let path = std::env::temp_dir().join("foreign.raw");
    let frames = pictures::noise_file(&path, 10, pictures::bgr_stride(width) * height);
    let player = Player::play(&format!(
        "filesrc location={} ! rawvideoparse format=bgr width={width} height={height} framerate=30/1 ! fbpansink name=sink",
        path.display()
    ));
    let frame = pictures::bgr_picture(&frames[9], width, height);
    let expected = pictures::on_black(
        &frame,
        (WIDTH - width) / 2,
        (HEIGHT - height) / 2,
        WIDTH,
        HEIGHT,
    );
    shot().assert_same_as(&expected);
    assert_eq!((player.count("zero-copy"), player.count("copied")), (0, 10));
    assert!(
        player.text("path").starts_with("copying: upstream "),
        "{}",
        player.stats()
    );
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_rectangle_places_frames_and_can_be_moved_while_playing() {
    require_lab();
    let caps = "video/x-raw,format=BGR,width=100,height=60";
    let frame = pictures::last_frame("videotestsrc num-buffers=1 pattern=ball", caps);
    let launch = format!(
        "videotestsrc num-buffers=1 pattern=ball ! {caps} ! fbpansink name=sink render-rectangle=\"<20, 30, 300, 200>\""
    );
    let player = Player::play(&launch);
    player.assert_zero_copy(1);
    shot().assert_same_as(&pictures::on_black(&frame, 120, 100, WIDTH, HEIGHT));
    player.stop();

    // Without caps rawvideosrc takes the size of the rectangle, cut to the screen.
    let player = Player::play(
        "rawvideosrc num-buffers=2 ! fbpansink name=sink render-rectangle=\"<600, 400, 100, 100>\"",
    );
    player.assert_zero_copy(2);
    let corner = pictures::pattern(1, VideoFormat::Bgr, 40, 80);
    shot().assert_same_as(&pictures::on_black(&corner, 600, 400, WIDTH, HEIGHT));
    player.stop();

    let player = Player::new(&format!(
        "videotestsrc num-buffers=40 pattern=smpte ! {caps},framerate=20/1 ! fbpansink name=sink"
    ));
    player.start();
    player.wait_shown(5);
    let rectangle = gst::Array::new([0i32, 0, 100, 60]);
    player.sink.set_property("render-rectangle", rectangle);
    player.wait_for_end();
    let still = pictures::last_frame("videotestsrc num-buffers=1 pattern=smpte", caps);
    // The noise in the corner of the pattern differs from frame to frame, so the upper part is
    // compared.
    shot()
        .crop(0, 0, 100, 40)
        .assert_same_as(&still.crop(0, 0, 100, 40));
    shot()
        .crop(100, 0, 540, 480)
        .assert_same_as(&Picture::solid(540, 480, [0; 3]));
    assert_eq!(player.count("shown"), 40);
}

/// A crop of a frame of noise, 201x99, and what the screen must show for it.
const CROP: (u32, u32, u32, u32) = (10, 20, 100, 60);

#[test]
fn a_crop_meta_shows_its_part_alone() {
    require_lab();
    let player = Player::new("appsrc name=src format=time ! fbpansink name=sink sync=false");
    let (width, height) = (201, 99);
    let bytes = pictures::noise(pictures::bgr_stride(width) * height, 1);
    let frame = pictures::bgr_picture(&bytes, width, height);
    let part = frame.crop(10, 20, 100, 60);
    let whole_on_black = pictures::on_black(&frame, 219, 190, WIDTH, HEIGHT);
    let part_on_black = pictures::on_black(&part, 270, 210, WIDTH, HEIGHT);
    let info = |width: u32, height: u32| {
        let info = gst_video::VideoInfo::builder(VideoFormat::Bgr, width, height);
        info.build().unwrap()
    };
    let whole = info(width as u32, height as u32);
    let buffer = |crop: Option<(u32, u32, u32, u32)>| {
        let mut buffer = gst::Buffer::from_slice(bytes.clone());
        let buffer_ref = buffer.get_mut().unwrap();
        let flags = gst_video::VideoFrameFlags::empty();
        let (width, height) = (whole.width(), whole.height());
        gst_video::VideoMeta::add(buffer_ref, flags, VideoFormat::Bgr, width, height).unwrap();
        if let Some(crop) = crop {
            gst_video::VideoCropMeta::add(buffer_ref, crop);
        }
        buffer
    };
    player.set_caps(&whole);
    player.start();
    player.show(buffer(None));
    assert_seen(&whole_on_black);
    player.show(buffer(Some(CROP)));
    assert_seen(&part_on_black);
    let why = "copying: a GstVideoCropMeta names a part";
    assert!(player.text("path").starts_with(why), "{}", player.stats());
    player.show(buffer(None));
    assert_seen(&whole_on_black);
    // Elements that crop give the size of the crop in the caps.
    player.set_caps(&info(CROP.2, CROP.3));
    player.show(buffer(Some(CROP)));
    assert_seen(&part_on_black);
    // A crop that misses the frame is none.
    player.set_caps(&whole);
    player.show(buffer(Some((500, 0, 10, 10))));
    assert_seen(&whole_on_black);
    assert_eq!((player.count("zero-copy"), player.count("copied")), (0, 5));
}

#[test]
fn a_frame_in_a_page_of_the_sink_is_copied_if_it_is_cropped() {
    require_lab();
    let caps = "video/x-raw,format=BGR,width=201,height=99";
    let source = "videotestsrc num-buffers=6 pattern=ball";
    let part = pictures::last_frame(source, caps).crop(10, 20, 100, 60);
    let player = Player::new(&format!("{source} ! {caps} ! fbpansink name=sink"));
    let pad = player.sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            gst_video::VideoCropMeta::add(buffer.make_mut(), CROP);
        }
        gst::PadProbeReturn::Ok
    });
    player.start();
    player.wait_for_end();
    assert_eq!((player.count("zero-copy"), player.count("copied")), (0, 6));
    shot().assert_same_as(&pictures::on_black(&part, 270, 210, WIDTH, HEIGHT));
}

#[test]
fn an_element_that_crops_does_it_in_the_page() {
    require_lab();
    let caps = "video/x-raw,format=BGR,width=201,height=99";
    let source = "videotestsrc num-buffers=6 pattern=ball";
    let part = pictures::last_frame(source, caps).crop(10, 20, 100, 60);
    let crop = "videocrop left=10 right=91 top=20 bottom=19";
    let player = Player::play(&format!("{source} ! {caps} ! {crop} ! fbpansink name=sink"));
    player.assert_zero_copy(6);
    shot().assert_same_as(&pictures::on_black(&part, 270, 210, WIDTH, HEIGHT));
}

#[test]
fn a_player_moves_the_frame_in_pause_and_has_it_shown_again() {
    require_lab();
    let caps = "video/x-raw,format=BGR,width=100,height=60";
    let source = "videotestsrc num-buffers=1 pattern=ball";
    let frame = pictures::last_frame(source, caps);
    let player = Player::new(&format!("{source} ! {caps} ! fbpansink name=sink"));
    player.reach(gst::State::Paused);
    let on_black = |x, y| pictures::on_black(&frame, x, y, WIDTH, HEIGHT);
    let assert_seen = |expected: Picture| player.wait_until("that picture", |_| shot() == expected);
    assert_seen(on_black(270, 210));
    let overlay: VideoOverlay = player.sink.clone().dynamic_cast().unwrap();
    overlay.set_render_rectangle(20, 30, 300, 200).unwrap();
    assert_seen(on_black(120, 100));
    // Another program pans away.
    let fb = Fb::open();
    fb.change(|var| var[fb::YOFFSET] = (var[fb::YOFFSET] + 480) % 960);
    assert_ne!(shot(), on_black(120, 100));
    overlay.expose();
    assert_seen(on_black(120, 100));
    overlay.set_render_rectangle(-1, -1, -1, -1).unwrap();
    assert_seen(on_black(270, 210));
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn a_rectangle_off_the_screen_is_one_clear_error() {
    require_lab();
    let player =
        Player::new("videotestsrc ! fbpansink name=sink render-rectangle=\"<700, 0, 10, 10>\"");
    player.refuses_to_start();
    let errors = player.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].contains("outside the screen of 640x480"),
        "{errors:?}"
    );
}

#[test]
fn a_smaller_frame_after_a_larger_one_leaves_no_rest_of_it() {
    require_lab();
    let player = Player::new(
        "videotestsrc num-buffers=12 pattern=white ! capsfilter name=c caps=video/x-raw,width=600,height=400,framerate=20/1 ! fbpansink name=sink",
    );
    player.start();
    player.wait_shown(6);
    let caps = gst::Caps::builder("video/x-raw")
        .field("width", 64)
        .field("height", 48)
        .build();
    player
        .pipeline
        .by_name("c")
        .unwrap()
        .set_property("caps", caps);
    player.wait_for_end();
    let white = Picture::solid(64, 48, [255; 3]);
    shot().assert_same_as(&pictures::on_black(&white, 288, 216, WIDTH, HEIGHT));
    player.assert_zero_copy(12);
}

#[test]
fn one_page_is_drawn_on_directly_and_the_tearing_said_once() {
    require_lab();
    let player = Player::play("rawvideosrc num-buffers=5 ! queue ! fbpansink name=sink fb-pages=1");
    player.assert_zero_copy(5);
    assert_eq!(player.stats().get::<u32>("fb-pages").unwrap(), 1);
    let warnings = player.messages(gst::MessageType::Warning);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("one fb_page only, frames will tear"),
        "{warnings:?}"
    );
    shot().assert_same_as(&pictures::pattern(4, VideoFormat::Bgr, 640, 480));
    player.stop();

    // One fb_page and frames in other memory: the sink copies them, without a deadlock.
    let player = Player::play(
        "videotestsrc num-buffers=5 pattern=white ! tee ! queue ! fbpansink name=sink fb-pages=1",
    );
    assert_eq!((player.count("zero-copy"), player.count("copied")), (0, 5));
    shot().assert_same_as(&Picture::solid(WIDTH, HEIGHT, [255; 3]));
}

#[test]
fn two_pages_suffice() {
    require_lab();
    let player =
        Player::play("rawvideosrc num-buffers=30 ! queue ! fbpansink name=sink fb-pages=2");
    player.assert_zero_copy(30);
    assert_eq!(player.stats().get::<u32>("fb-pages").unwrap(), 2);
    assert_eq!(player.messages(gst::MessageType::Warning), [""; 0]);
    shot().assert_same_as(&pictures::pattern(29, VideoFormat::Bgr, 640, 480));
}

#[test]
fn last_sample_starves_nobody() {
    require_lab();
    for pages in 1..=3 {
        let player = Player::play(&format!(
            "rawvideosrc num-buffers=8 ! queue ! fbpansink name=sink fb-pages={pages} enable-last-sample=true sync=false"
        ));
        player.assert_zero_copy(8);
    }
}

#[test]
fn sixteen_bits_are_shown_too() {
    require_lab();
    let fb = Fb::open();
    let before = fb.change(|var| var[fb::BITS_PER_PIXEL] = 16);
    let player = Player::play("rawvideosrc num-buffers=3 ! fbpansink name=sink");
    player.assert_zero_copy(3);
    assert_eq!(player.text("format"), "RGB16");
    shot().assert_same_as(&pictures::pattern(2, VideoFormat::Rgb16, 640, 480));
    player.stop();
    fb.put(&before).unwrap();
}

#[test]
fn mode_offset_and_black_screen_are_there_again_after_the_end() {
    require_lab();
    let fb = Fb::open();
    let before = fb.var();
    let player = Player::play("rawvideosrc num-buffers=6 ! fbpansink name=sink");
    assert_ne!(
        fb.var()[fb::YRES_VIRTUAL],
        before[fb::YRES_VIRTUAL],
        "it had grown"
    );
    player.stop();
    assert_eq!(fb.var(), before);
    // The empty console draws itself again.
    shot().assert_same_as(&Picture::solid(WIDTH, HEIGHT, [0; 3]));
}

#[test]
fn without_restore_the_last_frame_stays() {
    require_lab();
    let fb = Fb::open();
    let before = fb.var();
    let player = Player::play("rawvideosrc num-buffers=6 ! fbpansink name=sink restore=false");
    player.stop();
    let last = pictures::pattern(5, VideoFormat::Bgr, 640, 480);
    shot().assert_same_as(&last);
    assert_eq!(fb::console_mode(), fb::KD_GRAPHICS);
    assert_ne!(
        fb.var()[fb::YOFFSET],
        before[fb::YOFFSET],
        "seen by its offset"
    );
    drop(player);
    // The next player starts with the offset that the first one left. At its stop the screen is
    // black, because no console draws.
    let player = Player::play("rawvideosrc num-buffers=6 ! fbpansink name=sink");
    player.assert_zero_copy(6);
    shot().assert_same_as(&last);
    player.stop();
    shot().assert_same_as(&Picture::solid(WIDTH, HEIGHT, [0; 3]));
    fb.put(&before).unwrap();
    fb::wake_console();
}

#[test]
fn the_address_in_the_meta_is_where_the_frame_is() {
    require_lab();
    let player = Player::new("rawvideosrc num-buffers=3 ! fbpansink name=sink");
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let pad = player.sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, {
        let seen = seen.clone();
        move |_, info| {
            let buffer = info.buffer().unwrap();
            let meta = buffer.meta::<gstphysmem::meta::PhysMemMeta>().unwrap();
            let video = buffer.meta::<gst_video::VideoMeta>().unwrap();
            let at = meta.phys_addr().unwrap().0 + video.offset()[0] as u64;
            seen.lock().unwrap().push((meta.id(), at));
            gst::PadProbeReturn::Ok
        }
    });
    player.start();
    player.wait_for_end();
    assert!(
        player.text("address").contains("smem-start"),
        "{}",
        player.stats()
    );
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 3);
    for (n, (_, address)) in seen.iter().enumerate() {
        let info = gst_video::VideoInfo::builder(VideoFormat::Bgr, 640, 480)
            .build()
            .unwrap();
        let expected = gstphysmem::rawvideosrc::pattern_frame(n as u64, &info).unwrap();
        assert!(
            oracle().phys(*address, expected.len()) == expected,
            "frame {n} is not at {address:#x}"
        );
    }
}

#[test]
fn another_mode_set_meanwhile_is_one_clear_error_and_no_hang() {
    require_lab();
    let fb = Fb::open();
    let before = fb.var();
    let player = Player::new("rawvideosrc ! fbpansink name=sink");
    player.start();
    player.wait_shown(3);
    // Another program takes the other fb_pages away.
    fb.change(|var| {
        var[fb::YRES_VIRTUAL] = var[fb::YRES];
        var[fb::YOFFSET] = 0;
    });
    let error = player.wait_for_error();
    assert!(
        error.contains("mode of /dev/fb0 was changed by another program"),
        "{error}"
    );
    player.stop();
    let more = player.errors();
    assert!(
        more.iter().all(|e| !e.contains("/dev/fb0")),
        "said twice: {more:?}"
    );
    assert_eq!(fb.var()[fb::YRES_VIRTUAL], before[fb::YRES_VIRTUAL]);
}

#[test]
fn a_user_without_permission_is_told_what_to_do() {
    require_lab();
    use std::os::unix::fs::PermissionsExt;
    let allow =
        |mode| std::fs::set_permissions("/dev/fb0", std::fs::Permissions::from_mode(mode)).unwrap();
    allow(0o600);
    let launch = gst_launch("videotestsrc num-buffers=3 ! fbpansink device=/dev/fb0");
    let ran = run(&mut support::as_nobody(&launch));
    assert!(!ran.status.success());
    assert_eq!(
        ran.stderr.matches("ERROR: from element").count(),
        1,
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains(
            "cannot open /dev/fb0: Permission denied (EACCES); run as a user of the group"
        ),
        "{}",
        ran.stderr
    );

    // A user who may open the device but has no privilege can play; the address stays unknown.
    // Addresses, and reasons for having none, are logged at DEBUG and below.
    allow(0o666);
    let mut launch = gst_launch("-v rawvideosrc num-buffers=20 ! fbpansink name=sink");
    launch
        .env("GST_DEBUG", "fbpansink:5")
        .env("GST_DEBUG_NO_COLOR", "1");
    let ran = run(&mut support::as_nobody(&launch)).expect_success();
    allow(0o600);
    assert!(
        ran.stderr.contains("zero-copy: upstream writes into"),
        "{}",
        ran.stderr
    );
    let unknown = "cannot be checked: /proc/iomem hides addresses without CAP_SYS_ADMIN";
    assert!(ran.stderr.contains(unknown), "{}", ran.stderr);
}

#[test]
fn what_is_no_framebuffer_is_said_to_be_none() {
    require_lab();
    for (device, says) in [
        (
            "/dev/fb7",
            "cannot open /dev/fb7: No such file or directory (ENOENT)",
        ),
        ("/dev/null", "FBIOGET_VSCREENINFO on /dev/null failed"),
        ("/dev", "cannot open /dev: Is a directory (EISDIR)"),
    ] {
        let player = Player::new(&format!(
            "videotestsrc ! fbpansink name=sink device={device}"
        ));
        player.refuses_to_start();
        let errors = player.errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(says), "{errors:?}");
    }
}

#[test]
fn frames_that_do_not_fit_are_refused_in_negotiation() {
    require_lab();
    for caps in ["width=641,height=480", "width=640,height=481"] {
        let player = Player::new(&format!(
            "videotestsrc ! video/x-raw,{caps} ! fbpansink name=sink"
        ));
        let failed = player.pipeline.set_state(gst::State::Playing).is_err();
        let error = player.wait_for_error();
        assert!(failed || error.contains("stream"), "{error}");
        assert_eq!(player.count("shown"), 0);
    }
}
