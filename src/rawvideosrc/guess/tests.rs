// SPDX-License-Identifier: MPL-2.0

use super::*;
use proptest::prelude::*;
use std::os::unix::ffi::OsStrExt;

fn guess(name: &str) -> Guess {
    gst::init().unwrap();
    Guess::from_path(Path::new(name))
}

/// GStreamer's name of the format that is guessed; "" if there is none.
fn format_of(name: &str) -> String {
    let format = guess(name).format;
    format.map_or(String::new(), |format| format.to_str().to_string())
}

#[test]
fn common_names_are_understood() {
    let all = |size, framerate, format| Guess {
        size: Some(size),
        framerate,
        format,
        is_interlaced: false,
        is_bayer: false,
    };
    let hd = (1920, 1080);
    for (name, expected) in [
        (
            "/a/640x480/clip_1920x1080_25fps_nv12.yuv",
            all(hd, Some((25, 1)), Some(VideoFormat::Nv12)),
        ),
        (
            "foreman_cif.yuv",
            all((352, 288), None, Some(VideoFormat::I420)),
        ),
        (
            "Crowd-1920x1080-29.97fps.yuv422p",
            all(hd, Some((30000, 1001)), Some(VideoFormat::Y42b)),
        ),
        (
            "x_3840x2160_50fps_I420_10LE.raw",
            all((3840, 2160), Some((50, 1)), Some(VideoFormat::I42010le)),
        ),
        (
            "shot.1080p25.bgrx",
            all(hd, Some((25, 1)), Some(VideoFormat::Bgrx)),
        ),
        ("dump_64x48.bin", all((64, 48), None, None)),
        (
            "a_12.5fps_8x8_gray8",
            all((8, 8), Some((12500, 1000)), Some(VideoFormat::Gray8)),
        ),
        (
            "BasketballDrive_1920x1080_50.yuv",
            all(hd, Some((50, 1)), Some(VideoFormat::I420)),
        ),
        (
            "Tango2_3840x2160_60fps_10bit_420.yuv",
            all((3840, 2160), Some((60, 1)), Some(VideoFormat::I42010le)),
        ),
        (
            "clip_64x48.30fps.rgba",
            all((64, 48), Some((30, 1)), Some(VideoFormat::Rgba)),
        ),
    ] {
        assert_eq!(guess(name), expected, "{name}");
    }
}

#[test]
fn formats_have_many_names() {
    for (name, expected) in [
        // Planar formats, as FFmpeg and others call them.
        ("a_64x48_yuv420p.yuv", "I420"),
        ("a_64x48_yuvj420p.yuv", "I420"),
        ("a_64x48_yuv422.yuv", "Y42B"),
        ("a_64x48_yuv444.yuv", "Y444"),
        ("a_64x48_422.yuv", "Y42B"),
        ("a_64x48_444p_8bit.yuv", "Y444"),
        ("a_64x48_yuv411p.yuv", "Y41B"),
        ("a_64x48_yuv410p.yuv", "YUV9"),
        ("a_64x48_i422.yuv", "Y42B"),
        ("a_64x48_yuva420p.raw", "A420"),
        ("a_64x48_yuva444p10le.raw", "A444_10LE"),
        ("a_64x48_gbrp.raw", "GBR"),
        ("a_64x48_gbrp10le.raw", "GBR_10LE"),
        ("a_64x48_gbrap12be.raw", "GBRA_12BE"),
        ("a_64x48_yv12.yuv", "YV12"),
        ("a_64x48_yvu420p.yuv", "YV12"),
        ("a_64x48_yu12.yuv", "I420"),
        ("a_64x48_iyuv.yuv", "I420"),
        // Formats with a depth.
        ("40x30_10bit.yuv", "I420_10LE"),
        ("40x30_10-bit.yuv", "I420_10LE"),
        ("40x30_420_10bit.yuv", "I420_10LE"),
        ("40x30_420_10bit.bin", "I420_10LE"),
        ("40x30_10b_422.yuv", "I422_10LE"),
        ("40x30_yuv420p10.yuv", "I420_10LE"),
        ("40x30_yuv420p10be.yuv", "I420_10BE"),
        ("40x30_yuv422p12le.yuv", "I422_12LE"),
        ("40x30_444p16.yuv", "Y444_16LE"),
        ("40x30_yuv420_12bit.yuv", "I420_12LE"),
        ("40x30_nv12_10bit.yuv", "P010_10LE"),
        ("40x30_I420_10LE.raw", "I420_10LE"),
        // Semi-planar formats.
        ("a_64x48_yuv420sp.yuv", "NV12"),
        ("a_64x48_420sp.raw", "NV12"),
        ("a_64x48_yvu420sp.yuv", "NV21"),
        ("a_64x48_yuv422sp.yuv", "NV16"),
        ("a_64x48_yuv420sp10.yuv", "P010_10LE"),
        ("a_64x48_420_nv12.yuv", "NV12"),
        ("a_64x48_p010le.yuv", "P010_10LE"),
        ("a_64x48_p016.yuv", "P016_LE"),
        ("a_64x48_NV12_4L4.raw", "NV12_4L4"),
        // Grey formats.
        ("a_64x48_YUV400p16le.yuv", "GRAY16_LE"),
        ("a_64x48_400.yuv", "GRAY8"),
        ("a_64x48_y8.raw", "GRAY8"),
        ("a_64x48_y16.raw", "GRAY16_LE"),
        ("a_64x48_grey.raw", "GRAY8"),
        ("a_64x48_gray16be.raw", "GRAY16_BE"),
        ("a_64x48_mono8.raw", "GRAY8"),
        ("a_64x48_y800.raw", "GRAY8"),
        // Packed formats.
        ("a_64x48_yuyv.raw", "YUY2"),
        ("a_64x48_yuyv422.yuv", "YUY2"),
        ("a_64x48_uyvy.422.yuv", "UYVY"),
        ("a_64x48_rgb24.raw", "RGB"),
        ("a_64x48_rgb_24bit.raw", "RGB"),
        ("a_64x48_bgr3.raw", "BGR"),
        ("a_64x48_rgb565.raw", "RGB16"),
        ("a_64x48_rgb565le.raw", "RGB16"),
        ("a_64x48_bgr0.raw", "BGRx"),
        // Formats of DRM: the first letter is the highest byte.
        ("a_64x48_xrgb8888.raw", "BGRx"),
        ("a_64x48_XR24.raw", "BGRx"),
        ("a_64x48_argb8888.raw", "BGRA"),
        ("a_64x48_abgr8888.raw", "RGBA"),
        ("a_64x48_argb2101010.raw", "BGR10A2_LE"),
        ("a_64x48.argb", "ARGB"),
        ("a_64x48_RA24.raw", "ABGR"),
        ("a_64x48_BG24.raw", "RGB"),
        // Fourccs of V4L2, as v4l2-ctl lists them.
        ("cap_64x48_NV12.raw", "NV12"),
        ("cap_64x48_NM12.raw", "NV12"),
        ("cap_64x48_NV12M.bin", "NV12"),
        ("cap_64x48_NM61.raw", "NV61"),
        ("cap_64x48_YM12.raw", "I420"),
        ("cap_64x48_YUV420M.bin", "I420"),
        ("cap_64x48_YV12.raw", "YV12"),
        ("cap_64x48_422P.raw", "Y42B"),
        ("cap_64x48_YUYV.raw", "YUY2"),
        ("cap_64x48_UYVY.raw", "UYVY"),
        ("cap_64x48_RGB3.raw", "RGB"),
        ("cap_64x48_BGR4.raw", "BGRx"),
        ("cap_64x48_RGB4.raw", "xRGB"),
        ("cap_64x48_GREY.raw", "GRAY8"),
        ("cap_64x48_VT12.raw", "NV12_4L4"),
        ("cap_64x48_NV15.raw", "NV12_10LE40"),
    ] {
        assert_eq!(format_of(name), expected, "{name}");
    }
}

#[test]
fn formats_that_are_unknown_or_in_doubt_are_not_guessed() {
    for name in [
        // Formats that GStreamer does not have.
        "a_64x48_yuv440p.yuv",
        "a_64x48_yuv420p9.yuv",
        "a_64x48_yuv420p14le.yuv",
        "a_64x48_16bit.yuv",
        "a_64x48_yv16.yuv",
        "a_64x48_yuv422sp10.yuv",
        "a_64x48_nv42.yuv",
        "a_64x48_hm12.yuv",
        "a_64x48_y10p.yuv",
        // Names with several meanings.
        "a_64x48_rgb888.raw",
        "a_64x48_rgba8888.raw",
        "a_64x48_rgb32.raw",
        // Names that contradict themselves.
        "a_64x48_rgb_to_nv12.yuv",
        "a_64x48_nv12_422.yuv",
        "a_64x48_420p_444p.yuv",
        "a_64x48_yuv420p10_8bit.yuv",
        "a_64x48_rgb_10bit.raw",
        // Names without a format.
        "a_64x48.raw",
        "a_64x48_422.bin",
        "a_64x48_mono.wav",
        "a_64x48_10bit.bin",
        "a_64x48_y.raw",
        "yuv",
    ] {
        assert_eq!(format_of(name), "", "{name}");
    }
}

#[test]
fn sizes_come_in_several_spellings() {
    for (name, expected) in [
        ("4k_downscaled_64x48_bgrx.raw", (64, 48)),
        ("vga_cam_64x48.bgrx", (64, 48)),
        ("a_640_480.yuv", (640, 480)),
        ("a-1280-720-50.yuv", (1280, 720)),
        ("1920×1080.yuv", (1920, 1080)),
        ("1920X1080.yuv", (1920, 1080)),
        ("w640_h480.yuv", (640, 480)),
        ("cam_w640h480.yuv", (640, 480)),
        ("width64_height48.yuv", (64, 48)),
        ("a_1920x1080p30.yuv", (1920, 1080)),
        ("a_720x576i.yuv", (720, 576)),
        ("a_1080i50.yuv", (1920, 1080)),
        ("a_2160p.yuv", (3840, 2160)),
        ("a_vga_640x480.yuv", (640, 480)),
    ] {
        assert_eq!(guess(name).size, Some(expected), "{name}");
    }
}

#[test]
fn numbers_that_are_no_size_are_left_alone() {
    for name in [
        "a_2024_12.yuv",
        "a_0640_0480.yuv",
        "a_100_200.yuv",
        "a_64x48x3.raw",
        "a_0x1080.yuv",
        "a_x264.yuv",
        "a_1080.yuv",
        "a_1920x1080_to_64x48.yuv",
        "cif_or_vga.yuv",
        "w640.yuv",
        "0x0.raw",
        "1x.raw",
        "take2_final.dat",
        "video.raw",
        "x.bin",
        "",
    ] {
        assert_eq!(guess(name).size, None, "{name}");
    }
}

#[test]
fn rates_come_in_several_spellings() {
    for (name, expected) in [
        ("a_1920x1080_50.yuv", Some((50, 1))),
        ("a_1920x1080@30.yuv", Some((30, 1))),
        ("a_1920x1080p30.yuv", Some((30, 1))),
        ("a_1920x1080p59.94.yuv", Some((60000, 1001))),
        ("a_1920x1080p2997.yuv", Some((30000, 1001))),
        ("a_1080p23.976.yuv", Some((24000, 1001))),
        ("a_640_480_25.yuv", Some((25, 1))),
        ("a_64x48_30p.yuv", Some((30, 1))),
        ("a_64x48_25_fps.yuv", Some((25, 1))),
        ("a_64x48_fps15.yuv", Some((15, 1))),
        ("a_64x48_7hz.yuv", Some((7, 1))),
        // Rates of fields, two to a frame.
        ("a_1080i50.yuv", Some((25, 1))),
        ("a_1920x1080i59.94.yuv", Some((30000, 1001))),
        ("a_720x576i25.yuv", Some((25, 1))),
        ("a_720x576_50i.yuv", Some((25, 1))),
        // A rate with a unit wins.
        ("a_64x48_30_25fps.yuv", Some((25, 1))),
        // Numbers that are no rate.
        ("a_64x48_0030.yuv", None),
        ("a_64x48_24_bit_rgb.raw", None),
        ("a_64x48_60_frames.yuv", None),
        ("a_64x48_30_mbps.yuv", None),
        ("a_64x48_17.yuv", None),
        ("a_64x48_420_30.yuv", None),
        ("a_64x48_0fps.yuv", None),
        ("a_64x48_5000fps.yuv", None),
        ("a_30_64x48.yuv", None),
    ] {
        assert_eq!(guess(name).framerate, expected, "{name}");
    }
}

#[test]
fn an_i_behind_the_lines_means_two_fields() {
    for name in ["a_720x576i.yuv", "a_1080i50.yuv", "a_720x576_50i.yuv"] {
        assert!(guess(name).is_interlaced, "{name}");
    }
    for name in ["a_720x576.yuv", "a_1080p50.yuv", "i_64x48.yuv"] {
        assert!(!guess(name).is_interlaced, "{name}");
    }
}

/// Size, rate and GStreamer's name of the format; "" if there is none.
type Clip = ((i32, i32), Option<(i32, i32)>, &'static str);

/// The names of clips that many people have.
const CLIPS: &[(&str, Clip)] = &[
    // JCT-VC and JVET, common test conditions.
    (
        "Traffic_2560x1600_30_crop.yuv",
        ((2560, 1600), Some((30, 1)), "I420"),
    ),
    (
        "NebutaFestival_2560x1600_60_10bit_crop.yuv",
        ((2560, 1600), Some((60, 1)), "I420_10LE"),
    ),
    (
        "Kimono1_1920x1080_24.yuv",
        ((1920, 1080), Some((24, 1)), "I420"),
    ),
    (
        "BQTerrace_1920x1080_60.yuv",
        ((1920, 1080), Some((60, 1)), "I420"),
    ),
    (
        "BasketballDrillText_832x480_50.yuv",
        ((832, 480), Some((50, 1)), "I420"),
    ),
    (
        "BQSquare_416x240_60.yuv",
        ((416, 240), Some((60, 1)), "I420"),
    ),
    (
        "SlideShow_1280x720_20.yuv",
        ((1280, 720), Some((20, 1)), "I420"),
    ),
    (
        "ChinaSpeed_1024x768_30.yuv",
        ((1024, 768), Some((30, 1)), "I420"),
    ),
    (
        "Campfire_3840x2160_30fps_10bit_420_bt709_videoRange.yuv",
        ((3840, 2160), Some((30, 1)), "I420_10LE"),
    ),
    (
        "CatRobot_3840x2160_60fps_10bit_420_jvet.yuv",
        ((3840, 2160), Some((60, 1)), "I420_10LE"),
    ),
    (
        "ArenaOfValor_1920x1080_60_8bit_420.yuv",
        ((1920, 1080), Some((60, 1)), "I420"),
    ),
    // The collection at media.xiph.org/video/derf.
    ("akiyo_cif.y4m", ((352, 288), None, "")),
    ("stefan_sif.y4m", ((352, 240), None, "")),
    ("mobile_calendar_422_4cif.yuv", ((704, 576), None, "Y42B")),
    (
        "crowd_run_1080p50.yuv",
        ((1920, 1080), Some((50, 1)), "I420"),
    ),
    (
        "ducks_take_off_444_720p50.yuv",
        ((1280, 720), Some((50, 1)), "Y444"),
    ),
    (
        "720p5994_stockholm_ter.yuv",
        ((1280, 720), Some((60000, 1001)), "I420"),
    ),
    (
        "blue_sky_1080p25.yuv",
        ((1920, 1080), Some((25, 1)), "I420"),
    ),
    (
        "Netflix_Aerial_4096x2160_60fps_10bit_420.yuv",
        ((4096, 2160), Some((60, 1)), "I420_10LE"),
    ),
    // Ultra Video Group.
    (
        "Bosphorus_3840x2160_120fps_420_10bit_YUV.yuv",
        ((3840, 2160), Some((120, 1)), "I420_10LE"),
    ),
    (
        "Beauty_1920x1080_120fps_420_8bit_YUV.yuv",
        ((1920, 1080), Some((120, 1)), "I420"),
    ),
    // Boards and phones.
    ("camera_1280x720_nv21.yuv", ((1280, 720), None, "NV21")),
    (
        "imx708-1536x864-30fps-yuv420.raw",
        ((1536, 864), Some((30, 1)), "I420"),
    ),
    ("video0-640x480-YUYV.raw", ((640, 480), None, "YUY2")),
    ("fb0_1024x600_32bpp_XR24.raw", ((1024, 600), None, "BGRx")),
    (
        "dump.1920x1080.NV12.30fps.bin",
        ((1920, 1080), Some((30, 1)), "NV12"),
    ),
    (
        "out_1080p30_yuv420sp.yuv",
        ((1920, 1080), Some((30, 1)), "NV12"),
    ),
    ("screen_800x480_rgb565.bin", ((800, 480), None, "RGB16")),
];

#[test]
fn names_of_well_known_clips_are_understood() {
    for (name, (size, framerate, format)) in CLIPS {
        let guess = guess(name);
        assert_eq!(
            (guess.size, guess.framerate),
            (Some(*size), *framerate),
            "{name}"
        );
        assert_eq!(format_of(name), *format, "{name}");
        assert!(!guess.is_bayer, "{name}");
    }
}

#[test]
fn a_bayer_sensor_is_no_format() {
    for name in [
        "imx219_1640x1232_SRGGB10.raw",
        "a_64x48_SRGGB10P.raw",
        "a_64x48_SRGGB10_CSI2P.raw",
        "a_64x48_bayer.raw",
        "a_64x48_bggr.bin",
        "a_64x48_bayer_bggr16le.yuv",
        "a_64x48_grbg8.raw",
        "a_64x48_pRAA.raw",
        "a_64x48_BA81.raw",
        "a_64x48_RG10.raw",
        "a_64x48_raw10.raw",
        "a_64x48_bayer_10bit.yuv",
    ] {
        assert!(guess(name).is_bayer, "{name}");
        assert_eq!(format_of(name), "", "{name}");
    }
    for name in [
        "bayern_64x48.yuv",
        "a_64x48_srgb.raw",
        "a_64x48_rggb99.raw",
        "a_64x48_nv12_from_bayer.yuv",
    ] {
        assert!(!guess(name).is_bayer, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_parsed(name in proptest::collection::vec(any::<u8>(), 0..60)) {
        gst::init().unwrap();
        let name = std::ffi::OsStr::from_bytes(&name);
        Guess::from_path(Path::new(name));
    }

    #[test]
    fn known_words_are_parsed_in_any_order(
        picks in proptest::collection::vec(0usize..1000, 0..8),
        ends in proptest::collection::vec("[_.@x-]{0,2}[0-9]{0,20}[_.x]?", 8),
    ) {
        let words: Vec<&str> = CLIPS.iter().flat_map(|(name, _)| name.split(['_', '.', '-'])).collect();
        let parts = picks.iter().zip(&ends);
        let name: String = parts.map(|(pick, end)| format!("{}{end}", words[pick % words.len()])).collect();
        guess(&name);
    }

    #[test]
    fn any_name_is_parsed(name in "\\PC{0,60}") {
        guess(&name);
    }

    #[test]
    fn names_of_such_words_are_parsed(
        words in proptest::collection::vec("[0-9xpibfsyuvle.]{1,9}", 0..6),
    ) {
        guess(&words.join("_"));
    }

    #[test]
    fn sizes_come_back(width in 1i32..100_000, height in 1i32..100_000, fps in 1i32..1000) {
        let guess = guess(&format!("clip_{width}x{height}_{fps}fps.rgba"));
        prop_assert_eq!(guess.size, Some((width, height)));
        prop_assert_eq!(guess.framerate, Some((fps, 1)));
        prop_assert_eq!(guess.format, Some(VideoFormat::Rgba));
    }

    #[test]
    fn every_format_is_known_by_its_own_name(n in 0usize..10_000) {
        gst::init().unwrap();
        let formats: Vec<_> = VideoFormat::iter_raw().collect();
        let format = formats[n % formats.len()];
        let name = format!("a_64x48_{}.raw", format.to_str());
        prop_assert_eq!(guess(&name).format, Some(format), "{}", name);
    }
}
