// SPDX-License-Identifier: MPL-2.0
//! Raw files, which do not describe themselves: names, properties, URIs and caps downstream.

use gst::prelude::*;
use gst_video::VideoFormat;
use gstphysmem::layout::Layout;

use crate::common;
use crate::common::play::{Pipeline, init};
use crate::{
    I420, assert_one_error, clip, field, frames, pictures, play_to_end, source,
    warnings_and_errors, write,
};

#[test]
fn rows_without_padding_are_recognised_and_doubts_are_told() {
    let dir = tempfile::tempdir().unwrap();
    // A row of luma has 27 bytes, or 28 with padding.
    let info = common::play::info(VideoFormat::I420, 27, 10);
    let size = Layout::packed(&info).size_bytes;
    let all = frames(4, size);
    let bytes = all.concat();
    let told = "format=i420 width=27 height=10";
    let whole = source(&write(dir.path(), "whole.raw", &bytes), told);
    assert_eq!(pictures(&play_to_end(&whole)), all);
    assert_eq!(warnings_and_errors(&whole), [""; 0]);
    let cut = write(dir.path(), "cut.raw", &bytes[..bytes.len() - 5]);
    assert_eq!(pictures(&play_to_end(&source(&cut, told))), all[..3]);
    let warnings = warnings_and_errors(&source(&cut, told));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains(&format!("frame-size={size}")) && warnings[0].contains("cut.raw"),
        "{warnings:?}"
    );
    let sure = source(&cut, &format!("{told} frame-size={size}"));
    assert_eq!(pictures(&play_to_end(&sure)), all[..3]);
}

#[test]
fn bytes_that_are_no_frame_are_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.raw", &vec![7; 3 * 64 * 48 + 100]);
    let warnings = warnings_and_errors(&source(&path, "format=gray8 width=64 height=48"));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for word in [
        "a.raw",
        "100 bytes",
        "64x48 GRAY8",
        "check format, width and height",
    ] {
        assert!(warnings[0].contains(word), "no \"{word}\" in {warnings:?}");
    }
}

#[test]
fn a_capsfilter_wins_over_the_name_and_the_name_over_nothing() {
    init();
    let dir = tempfile::tempdir().unwrap();
    let all = frames(2, 64 * 48 * 3 / 2);
    let path = write(dir.path(), "a_64x48_30fps.yuv", &all.concat());
    let format = |line: &str| {
        let samples = play_to_end(line);
        assert_eq!(pictures(&samples), all, "{line}");
        field::<&str>(&samples[0], "format").unwrap().to_owned()
    };
    let line = source(&path, "");
    assert_eq!(format(&line), "I420");
    assert_eq!(format(&format!("{line} ! video/x-raw,format=NV12")), "NV12");
    let behind = format!("{line} ! queue ! identity ! video/x-raw,format=NV12,framerate=5/1");
    assert_eq!(format(&behind), "NV12");
    let turned = format!("{line} ! video/x-raw,width=48,height=64");
    let sample = &play_to_end(&turned)[0];
    assert_eq!(field::<i32>(sample, "width"), Some(48));
    // Caps behind a converter say nothing about the file.
    let converted = format!("{line} ! videoconvert ! video/x-raw,format=BGRx");
    let sample = &play_to_end(&converted)[0];
    assert_eq!(field::<&str>(sample, "format"), Some("BGRx"));
}

#[test]
fn a_negotiation_that_fails_names_both_sides_and_what_to_put_between() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = clip("YUV4MPEG2 W24 H10 F25:1\n", &frames(2, I420));
    let path = write(dir.path(), "clip.y4m", &bytes);
    let line = source(&path, "");
    for (behind, words) in [
        (
            "video/x-raw,format=BGRx",
            ["clip.y4m", "format=I420", "format=BGRx", "videoconvert"],
        ),
        (
            "video/x-raw,width=48,height=20",
            [
                "clip.y4m",
                "width=24 height=10",
                "width=48 height=20",
                "videoscale",
            ],
        ),
        (
            "video/x-raw,framerate=30/1",
            ["clip.y4m", "framerate=25/1", "framerate=30/1", "videorate"],
        ),
    ] {
        assert_one_error(&format!("{line} ! {behind}"), &words);
    }
    let pipeline = Pipeline::new("rawvideosrc name=source ! video/x-raw,format=RGB");
    let source_element = pipeline.pipeline.by_name("source").unwrap();
    source_element.set_property("format", VideoFormat::Nv12);
    pipeline.pipeline.set_state(gst::State::Playing).unwrap();
    let errors = pipeline.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    for word in ["test pattern", "format=NV12", "format=RGB", "videoconvert"] {
        assert!(errors[0].contains(word), "no \"{word}\" in {errors:?}");
    }
    // A file name that states the format is not overridden by the sink.
    let named = write(dir.path(), "a_64x48_nv12.yuv", &[0; 64 * 48 * 3]);
    let behind = "videoscale ! video/x-raw,format=BGRx,width=64,height=48";
    assert_one_error(
        &format!("{} ! {behind}", source(&named, "")),
        &[
            "a_64x48_nv12.yuv",
            "format=NV12",
            "format=BGRx",
            "videoconvert",
        ],
    );
}

#[test]
fn a_refusal_further_down_is_explained_too() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = clip("YUV4MPEG2 W24 H10 F25:1\n", &frames(2, I420));
    let path = write(dir.path(), "clip.y4m", &bytes);
    let pipeline = Pipeline::new(&source(&path, "! identity"));
    // The sink's caps accept everything, but it refuses each frame.
    let refuse = gst_app::AppSinkCallbacks::builder()
        .new_preroll(|_| Err(gst::FlowError::NotNegotiated))
        .build();
    pipeline.sink.set_callbacks(refuse);
    pipeline.pipeline.set_state(gst::State::Playing).unwrap();
    let errors = pipeline.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    for word in [
        "clip.y4m",
        "format=I420 width=24 height=10",
        "identity",
        "videoconvert",
    ] {
        assert!(errors[0].contains(word), "no \"{word}\" in {errors:?}");
    }
}

#[test]
fn a_pattern_that_would_fill_the_memory_is_refused() {
    for (told, words) in [
        (
            "format=gray8 width=32767 height=32767",
            ["32767x32767 GRAY8", "1023 MiB", "512"],
        ),
        (
            "format=nv12-4l4 width=12000 height=12000",
            ["12000x12000 NV12_4L4", "549 MiB", "512"],
        ),
    ] {
        assert_one_error(&format!("rawvideosrc {told}"), &words);
    }
}

#[test]
fn a_range_without_frames_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ten.raw");
    std::fs::write(&path, [0; 10]).unwrap();
    let of_file = format!(
        "location={} format=gray8 width=1 height=1 follow=true",
        path.display()
    );
    for source in ["", &of_file] {
        let line = format!("rawvideosrc {source} start-frame=10 stop-frame=5");
        assert_one_error(&line, &["start-frame 10", "stop-frame 5"]);
    }
}

#[test]
fn a_uri_takes_the_properties_of_the_base_class_too() {
    init();
    let src = gst::ElementFactory::make("rawvideosrc").build().unwrap();
    let handler = src.dynamic_cast_ref::<gst::URIHandler>().unwrap();
    handler
        .set_uri("rawvideo:///a?num-buffers=3&do-timestamp=true")
        .unwrap();
    assert_eq!(src.property::<i32>("num-buffers"), 3);
    assert!(src.property::<bool>("do-timestamp"));
}

#[test]
fn a_uri_with_a_bad_value_is_refused_and_kills_nobody() {
    init();
    let src = gst::ElementFactory::make("rawvideosrc").build().unwrap();
    let handler = src.dynamic_cast_ref::<gst::URIHandler>().unwrap();
    for (query, words) in [
        ("width=-1", ["width", "-1", "0 to 2147483647"]),
        ("threads=65", ["threads", "65", "0 to 64"]),
        ("prefetch=0", ["prefetch", "\"0\"", "1 to 32"]),
        ("stop-frame=-2", ["stop-frame", "-2", "-1 to"]),
        ("framerate=-1/1", ["framerate", "-1/1", "0 to 2147483647"]),
        ("framerate=1/0", ["framerate", "1/0", "0 to"]),
        (
            "pixel-aspect-ratio=101/1",
            ["pixel-aspect-ratio", "101/1", "0 to 100"],
        ),
        (
            "frame-size=4294967296",
            ["frame-size", "4294967296", "0 to 4294967295"],
        ),
        ("offset=-1", ["offset", "-1", "0 to 18446744073709551615"]),
        ("width=wide", ["width", "wide", "gint"]),
        ("width=", ["width", "\"\"", "gint"]),
        ("loop=perhaps", ["loop", "perhaps", "gboolean"]),
        (
            "io-mode=fast",
            ["io-mode", "fast", "auto, read, mmap, io-uring"],
        ),
        (
            "format=none-such",
            ["format", "none-such", "GstVideoFormat"],
        ),
        (
            "plane-strides=%3Ca%3E",
            ["plane-strides", "<a>", "GstValueArray"],
        ),
        ("stats=x", ["stats", "no property", "gst-inspect"]),
        ("parent=x", ["parent", "no property", "gst-inspect"]),
        ("nonsense=1", ["nonsense", "no property", "gst-inspect"]),
    ] {
        let error = handler.set_uri(&format!("rawvideo:?{query}")).unwrap_err();
        assert!(error.matches(gst::URIError::BadUri), "{query}: {error}");
        for word in words {
            let text = error.to_string();
            assert!(text.contains(word), "{query}: no {word} in {text}");
        }
    }
    assert_eq!(src.property::<i32>("width"), 0);
    handler
        .set_uri("rawvideo:?width=64&threads=64&framerate=30/1")
        .unwrap();
    assert_eq!(src.property::<u32>("threads"), 64);
}
