// SPDX-License-Identifier: MPL-2.0
//! Which upstream elements write into the sink's fb_pages, and whose frames are copied. The test
//! counts both, checks the pictures, and writes a table to `adoption.md` in the directory shared
//! with the host. Needs cirrus.

use std::fmt::Write;
use std::path::PathBuf;

use gst::prelude::*;

use super::pictures;
use super::support::player::Player;
use super::support::{self, oracle, require_lab};

const CAPS: &str = "video/x-raw,format=BGR,width=160,height=120";
const FRAMES: u64 = 12;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    ZeroCopy,
    Copies,
}
use Expect::{Copies, ZeroCopy};

/// Runs a pipeline to its end and writes what it makes to a file.
fn make_file(name: &str, launch: &str) -> PathBuf {
    super::support::player::init();
    let path = std::env::temp_dir().join(name);
    let pipeline =
        gst::parse::launch(&format!("{launch} ! filesink location={}", path.display())).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let end = bus
        .timed_pop_filtered(
            gst::ClockTime::from_seconds(120),
            &[gst::MessageType::Eos, gst::MessageType::Error],
        )
        .unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos, "{launch}: {end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    path
}

#[test]
fn who_adopts_the_pool() {
    require_lab();
    let source = format!("videotestsrc num-buffers={FRAMES} pattern=ball");
    let i420 = "video/x-raw,format=I420,width=160,height=120,framerate=30/1";
    let raw = make_file("adopt.raw", &format!("{source} ! {CAPS}"));
    let h264 = make_file(
        "adopt.h264",
        &format!(
            "{source} ! {i420} ! openh264enc ! h264parse ! video/x-h264,stream-format=byte-stream"
        ),
    );
    let webm = make_file(
        "adopt.webm",
        &format!("{source} ! {i420} ! vp8enc deadline=1 ! webmmux"),
    );
    let pngs = make_file(
        "adopt.avi",
        &format!(
            "{source} ! video/x-raw,format=RGB,width=160,height=120,framerate=30/1 ! pngenc ! avimux"
        ),
    );
    let (raw, h264, webm, pngs) = (
        raw.display(),
        h264.display(),
        webm.display(),
        pngs.display(),
    );

    let parse = format!(
        "filesrc location={raw} ! rawvideoparse format=bgr width=160 height=120 framerate=30/1"
    );
    let rows: Vec<(&str, String, Expect)> = vec![
        (
            "rawvideosrc (file)",
            format!("rawvideosrc location={raw} format=bgr width=160 height=120 framerate=30/1"),
            ZeroCopy,
        ),
        ("videotestsrc", source.clone(), ZeroCopy),
        (
            "videotestsrc ! queue",
            format!("{source} ! {CAPS} ! queue"),
            ZeroCopy,
        ),
        (
            "videotestsrc ! identity",
            format!("{source} ! {CAPS} ! identity"),
            ZeroCopy,
        ),
        (
            "videoconvert",
            format!("{source} ! {i420} ! videoconvert"),
            ZeroCopy,
        ),
        (
            "videoscale",
            format!("{source} ! video/x-raw,format=BGR,width=80,height=60 ! videoscale"),
            ZeroCopy,
        ),
        (
            "videoflip",
            format!("{source} ! {CAPS} ! videoflip method=rotate-180"),
            ZeroCopy,
        ),
        (
            "compositor",
            format!("{source} ! {CAPS} ! compositor ! videoconvert"),
            ZeroCopy,
        ),
        (
            "videorate, which repeats frames",
            format!(
                "{source} ! video/x-raw,format=BGR,width=160,height=120,framerate=15/1 ! videorate"
            ),
            ZeroCopy,
        ),
        ("filesrc ! rawvideoparse", parse.clone(), Copies),
        (
            "filesrc ! rawvideoparse ! videoconvert (nothing to convert)",
            format!("{parse} ! videoconvert"),
            Copies,
        ),
        (
            "tee, one branch",
            format!("{source} ! {CAPS} ! tee"),
            Copies,
        ),
        (
            "tee, two branches",
            format!("{source} ! {CAPS} ! tee name=t ! queue ! fakesink async=false t. ! queue"),
            Copies,
        ),
        (
            "openh264dec ! videoconvert",
            format!("filesrc location={h264} ! h264parse ! openh264dec ! videoconvert"),
            ZeroCopy,
        ),
        (
            "avdec_h264 ! videoconvert",
            format!("filesrc location={h264} ! h264parse ! avdec_h264 ! videoconvert"),
            ZeroCopy,
        ),
        (
            "avdec_h264 ! queue ! videoconvert ! queue",
            format!(
                "filesrc location={h264} ! h264parse ! avdec_h264 ! queue ! videoconvert ! queue"
            ),
            ZeroCopy,
        ),
        (
            "vp8dec ! videoconvert",
            format!("filesrc location={webm} ! matroskademux ! vp8dec ! videoconvert"),
            ZeroCopy,
        ),
        (
            "pngdec ! videoconvert",
            format!("filesrc location={pngs} ! avidemux ! pngdec ! videoconvert"),
            ZeroCopy,
        ),
    ];

    let mut table = String::from(
        "| upstream | frames | zero-copy | copied | the sink says |\n|---|---|---|---|---|\n",
    );
    let mut wrong = Vec::new();
    for (name, upstream, expect) in rows {
        let expected = pictures::last_frame(&upstream, CAPS);
        let player = Player::play(&format!(
            "{upstream} ! {CAPS} ! fbpansink name=sink qos=false"
        ));
        let (zero_copy, copied) = (player.count("zero-copy"), player.count("copied"));
        writeln!(
            table,
            "| {name} | {} | {zero_copy} | {copied} | {} |",
            player.count("shown"),
            player.text("path")
        )
        .unwrap();
        let shot = oracle().shot().crop(240, 180, 160, 120);
        if shot != expected {
            wrong.push(format!("{name}: wrong picture"));
        }
        if player.count("shown") == 0
            || (expect == ZeroCopy) != (copied == 0)
            || (expect == Copies) != (zero_copy == 0)
        {
            wrong.push(format!("{name}: {expect:?} expected, {}", player.stats()));
        }
        let warnings = player.messages(gst::MessageType::Warning);
        let is_told = matches!(&warnings[..], [one] if one.starts_with("copying: upstream "));
        if is_told != (expect == Copies) || warnings.len() > 1 {
            wrong.push(format!("{name}: {expect:?}, and warnings {warnings:?}"));
        }
        player.stop();
    }
    std::fs::write(support::share().join("adoption.md"), &table).unwrap();
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
