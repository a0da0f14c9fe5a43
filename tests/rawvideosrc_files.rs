// SPDX-License-Identifier: MPL-2.0
//! What rawvideosrc understands of files: headers, layouts, names, sequences.
#![allow(clippy::unwrap_used)]

mod common;

use common::play::{Pipeline, RawFile, fifo, init, y4m};
use gst::prelude::*;
use gst_video::{VideoBufferFlags, VideoFormat, prelude::*};
use gstphysmem::layout::Layout;
use std::path::{Path, PathBuf};

/// Different bytes for each frame, no two rows alike.
fn frames(count: usize, frame_bytes: usize) -> Vec<Vec<u8>> {
    let bytes = RawFile::new(count * frame_bytes).bytes;
    bytes.chunks(frame_bytes).map(<[u8]>::to_vec).collect()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A YUV4MPEG2 file of plain frames.
fn clip(header: &str, frames: &[Vec<u8>]) -> Vec<u8> {
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    y4m(header, |_| "FRAME\n".into(), &frames)
}

fn source(path: &Path, rest: &str) -> String {
    format!("rawvideosrc location=\"{}\" {rest}", path.display())
}

/// All that comes, up to the end.
fn played(line: &str) -> Vec<gst::Sample> {
    let pipeline = Pipeline::play(line);
    let samples = std::iter::from_fn(|| pipeline.pull()).collect();
    assert_eq!(pipeline.error(), None, "{line}");
    samples
}

/// The picture bytes of a sample, without any padding.
fn picture(sample: &gst::Sample) -> Vec<u8> {
    let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
    common::play::rows(&info, sample.buffer().unwrap()).concat()
}

fn pictures(samples: &[gst::Sample]) -> Vec<Vec<u8>> {
    samples.iter().map(picture).collect()
}

fn field<'a, T: gst::glib::value::FromValue<'a>>(sample: &'a gst::Sample, name: &str) -> Option<T> {
    sample.caps().unwrap().structure(0).unwrap().get(name).ok()
}

/// Warnings on the bus, and errors if there were any.
fn complaints(line: &str) -> Vec<String> {
    let pipeline = Pipeline::play(line);
    while pipeline.pull().is_some() {}
    let bus = pipeline.pipeline.bus().unwrap();
    let kinds = [gst::MessageType::Warning, gst::MessageType::Error];
    std::iter::from_fn(|| bus.pop_filtered(&kinds))
        .map(|message| match message.view() {
            gst::MessageView::Warning(warning) => warning.error().to_string(),
            gst::MessageView::Error(error) => error.error().to_string(),
            _ => unreachable!(),
        })
        .collect()
}

#[track_caller]
fn one_error(line: &str, words: &[&str]) {
    let pipeline = Pipeline::new(line);
    let _ = pipeline.pipeline.set_state(gst::State::Playing);
    let errors = pipeline.errors();
    assert_eq!(errors.len(), 1, "{line}: {errors:?}");
    for word in words {
        assert!(
            errors[0].contains(word),
            "{line}: no \"{word}\" in {errors:?}"
        );
    }
}

const I420: usize = 24 * 10 * 3 / 2;

#[test]
fn each_file_of_a_sequence_has_its_own_header_and_number_of_frames() {
    let dir = tempfile::tempdir().unwrap();
    let all = frames(9, I420);
    // 3, 1, none, and 5 frames, behind headers of other lengths, some with parameters.
    write(
        dir.path(),
        "c0.y4m",
        &clip("YUV4MPEG2 W24 H10 F25:1\n", &all[..3]),
    );
    write(
        dir.path(),
        "c1.y4m",
        &clip("YUV4MPEG2 W24 H10 F25:1 XLONG\n", &all[3..4]),
    );
    write(dir.path(), "c2.y4m", b"YUV4MPEG2 W24 H10 F25:1\n");
    let rest: Vec<&[u8]> = all[4..].iter().map(Vec::as_slice).collect();
    let rest = y4m(
        "YUV4MPEG2 W24 H10 F25:1\n",
        |n| format!("FRAME X{n}\n"),
        &rest,
    );
    write(dir.path(), "c3.y4m", &rest);
    let line = source(&dir.path().join("c%d.y4m"), "");
    assert_eq!(pictures(&played(&line)), all);
    let pipeline = Pipeline::pause(&line);
    let duration = pipeline.pipeline.query_duration::<gst::ClockTime>();
    assert_eq!(duration, Some(gst::ClockTime::from_mseconds(9 * 40)));
    pipeline.seek(
        gst::SeekFlags::ACCURATE,
        gst::ClockTime::from_mseconds(5 * 40),
    );
    pipeline.set(gst::State::Playing);
    assert_eq!(picture(&pipeline.pull().unwrap()), all[5]);

    write(dir.path(), "c4.y4m", &clip("YUV4MPEG2 W24 H12\n", &[]));
    one_error(&line, &["c4.y4m", "24x12 I420", "24x10 I420"]);
    write(dir.path(), "c4.y4m", &all[0]);
    one_error(&line, &["c4.y4m", "does not begin with a YUV4MPEG2 header"]);
}

#[test]
fn raw_files_of_a_sequence_may_be_of_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let all = frames(6, I420);
    write(dir.path(), "s%1.raw", &all[..2].concat());
    write(dir.path(), "s%2.raw", &all[2..5].concat());
    let mut last = all[5].clone();
    last.extend_from_slice(&[0; 100]);
    write(dir.path(), "s%3.raw", &last);
    let line = source(
        &dir.path().join("s%%%i.raw"),
        "format=i420 width=24 height=10",
    );
    assert_eq!(pictures(&played(&line)), all);
    let warnings = complaints(&line);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("the last 100 bytes") && warnings[0].contains("s%3.raw"));
}

#[test]
fn a_fifo_in_a_sequence_is_refused_and_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let line = source(&dir.path().join("f%d.raw"), "format=gray8 width=8 height=4");
    for number in [0, 2] {
        write(dir.path(), &format!("f{number}.raw"), &[7; 32]);
    }
    std::fs::rename(fifo(dir.path()), dir.path().join("f1.raw")).unwrap();
    one_error(&line, &["f1.raw", "a FIFO"]);
    // It takes a file's place while that is played.
    std::fs::rename(dir.path().join("f1.raw"), dir.path().join("pipe")).unwrap();
    write(dir.path(), "f1.raw", &[7; 32]);
    let pipeline = Pipeline::new(&line);
    pipeline.sink.set_property("max-buffers", 1u32);
    pipeline.set(gst::State::Paused);
    std::fs::rename(dir.path().join("pipe"), dir.path().join("f2.raw")).unwrap();
    pipeline.set(gst::State::Playing);
    pipeline.pull().unwrap();
    pipeline.pull().unwrap();
    let errors = pipeline.errors();
    assert!(
        errors[0].contains("f2.raw") && errors[0].contains("a FIFO"),
        "{errors:?}"
    );
}

#[test]
fn headers_of_other_programs_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let all = frames(3, I420);
    for (header, format, site) in [
        ("F0:1 A0:1 C420", "I420", Some("jpeg")),
        ("F25:0 A1:0", "I420", Some("jpeg")),
        ("C420mpeg2 XYSCSS=420MPEG2", "I420", Some("mpeg2")),
        ("C420paldv", "I420", Some("dv")),
    ] {
        let bytes = clip(&format!("YUV4MPEG2 W24 H10 {header}\n"), &all);
        let path = write(dir.path(), "a.y4m", &bytes);
        let samples = played(&source(&path, ""));
        assert_eq!(pictures(&samples), all, "{header}");
        assert_eq!(
            field::<&str>(&samples[0], "format"),
            Some(format),
            "{header}"
        );
        assert_eq!(field::<&str>(&samples[0], "chroma-site"), site, "{header}");
        let rate = field::<gst::Fraction>(&samples[0], "framerate");
        assert_eq!(rate, Some(gst::Fraction::new(25, 1)), "{header}");
    }
    let wide = frames(2, 24 * 10 * 2);
    let bytes = clip("YUV4MPEG2 W24 H10 XYSCSS=422\n", &wide);
    let samples = played(&source(&write(dir.path(), "b.y4m", &bytes), ""));
    assert_eq!(field::<&str>(&samples[0], "format"), Some("Y42B"));
    assert_eq!(pictures(&samples), wide);
}

#[test]
fn lines_as_on_windows_last_newlines_and_files_put_together_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let all = frames(4, I420);
    let (header, other) = ("YUV4MPEG2 W24 H10 F25:1", "YUV4MPEG2 W24 H10 F30:1 XB");
    let some: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let windows = y4m(&format!("{header}\r\n"), |_| "FRAME\r\n".into(), &some);
    let mut newline = clip(&format!("{header}\n"), &all);
    newline.push(b'\n');
    let mut both = clip(&format!("{header}\n"), &all[..1]);
    both.extend(clip(&format!("{other}\n"), &all[1..]));
    for (name, bytes) in [("windows", windows), ("newline", newline), ("both", both)] {
        let path = write(dir.path(), &format!("{name}.y4m"), &bytes);
        assert_eq!(pictures(&played(&source(&path, ""))), all, "{name}");
        assert_eq!(complaints(&source(&path, "")), [""; 0], "{name}");
        let pipe = fifo(dir.path());
        let writer = pipe.clone();
        let writing = std::thread::spawn(move || std::fs::write(writer, bytes).unwrap());
        assert_eq!(
            pictures(&played(&source(&pipe, ""))),
            all,
            "{name} in a pipe"
        );
        writing.join().unwrap();
        std::fs::remove_file(pipe).unwrap();
    }
}

#[test]
fn a_clip_without_frames_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "none.y4m", b"YUV4MPEG2 W24 H10 F25:1\n");
    one_error(
        &source(&path, ""),
        &["none.y4m", "not one whole frame of 360 bytes"],
    );
    let mut cut = clip("YUV4MPEG2 W24 H10\n", &frames(1, I420));
    cut.pop();
    let path = write(dir.path(), "cut.y4m", &cut);
    one_error(
        &source(&path, ""),
        &["cut.y4m", "not one whole frame of 360 bytes"],
    );
}

#[test]
fn mixed_frames_say_how_their_fields_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let all = frames(5, I420);
    let lines = [
        "FRAME Itii\n",
        "FRAME Ibii\n",
        "FRAME I1pp\n",
        "FRAME ITii\n",
        "FRAME\n",
    ];
    let some: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let bytes = y4m("YUV4MPEG2 W24 H10 F25:1 Im\n", |n| lines[n].into(), &some);
    let path = write(dir.path(), "mixed.y4m", &bytes);
    let (interlaced, top, again) = (
        VideoBufferFlags::INTERLACED,
        VideoBufferFlags::TFF,
        VideoBufferFlags::RFF,
    );
    let expected = [
        interlaced | top,
        interlaced,
        VideoBufferFlags::empty(),
        interlaced | top | again,
        VideoBufferFlags::empty(),
    ];
    let pipe = fifo(dir.path());
    for (path, rest) in [
        (&path, "io-mode=read"),
        (&path, "io-mode=mmap"),
        (&path, "io-mode=auto direct=true"),
        (&path, "follow=true num-buffers=5"),
        (&pipe, ""),
    ] {
        let (writer, content) = (pipe.clone(), bytes.clone());
        let writing = (path == &pipe)
            .then(|| std::thread::spawn(move || std::fs::write(writer, content).unwrap()));
        let samples = played(&source(path, rest));
        assert_eq!(pictures(&samples), all, "{rest}");
        assert_eq!(field::<&str>(&samples[0], "interlace-mode"), Some("mixed"));
        let mask = interlaced | top | again | VideoBufferFlags::ONEFIELD;
        let flags: Vec<VideoBufferFlags> = samples
            .iter()
            .map(|sample| sample.buffer().unwrap().video_flags() & mask)
            .collect();
        assert_eq!(flags, expected, "{rest}");
        if let Some(writing) = writing {
            writing.join().unwrap();
        }
    }
    // Whoever says that all are alike is believed.
    let told = played(&source(&path, "interlaced=true top-field-first=true"));
    let all_top = told.iter().all(|sample| {
        let flags = sample.buffer().unwrap().video_flags();
        flags.contains(interlaced | top) && !flags.contains(again)
    });
    assert!(all_top);
}

#[test]
fn properties_win_over_a_header_where_its_frames_allow_it() {
    let dir = tempfile::tempdir().unwrap();
    let all = frames(2, I420);
    let bytes = clip("YUV4MPEG2 W24 H10 F25:1 Ip A1:1 C420jpeg\n", &all);
    let path = write(dir.path(), "a.y4m", &bytes);
    let told = "format=yv12 width=12 height=20 framerate=5/1 pixel-aspect-ratio=4/3 interlaced=true colorimetry=bt709";
    let sample = &played(&source(&path, told))[0];
    assert_eq!(field::<&str>(sample, "format"), Some("YV12"));
    assert_eq!(field::<i32>(sample, "width"), Some(12));
    assert_eq!(field::<i32>(sample, "height"), Some(20));
    let fraction = |name| field::<gst::Fraction>(sample, name);
    assert_eq!(fraction("framerate"), Some(gst::Fraction::new(5, 1)));
    assert_eq!(
        fraction("pixel-aspect-ratio"),
        Some(gst::Fraction::new(4, 3))
    );
    assert_eq!(field::<&str>(sample, "interlace-mode"), Some("interleaved"));
    assert_eq!(field::<&str>(sample, "colorimetry"), Some("bt709"));

    for (told, words) in [
        (
            "format=y42b",
            ["24x10 I420", "24x10 Y42B", "leave format out"],
        ),
        (
            "width=48",
            ["24x10 I420", "48x10 I420", "leave width and height out"],
        ),
        (
            "offset=7 frame-size=400",
            ["YUV4MPEG2", "frame-size, offset", "leave"],
        ),
        (
            "plane-strides=<24,12,12>",
            ["YUV4MPEG2", "plane-strides", "leave"],
        ),
    ] {
        one_error(&source(&path, told), &words);
    }
    let pipe = fifo(dir.path());
    let writer = pipe.clone();
    let writing = std::thread::spawn(move || drop(std::fs::write(writer, bytes)));
    one_error(&source(&pipe, "format=y42b"), &["24x10 I420", "24x10 Y42B"]);
    writing.join().unwrap();
}

#[test]
fn rows_without_padding_are_recognised_and_doubts_are_told() {
    let dir = tempfile::tempdir().unwrap();
    // 27 bytes in a row of luma, 28 with padding.
    let info = common::play::info(VideoFormat::I420, 27, 10);
    let size = Layout::packed(&info).size_bytes;
    let all = frames(4, size);
    let bytes = all.concat();
    let told = "format=i420 width=27 height=10";
    let whole = source(&write(dir.path(), "whole.raw", &bytes), told);
    assert_eq!(pictures(&played(&whole)), all);
    assert_eq!(complaints(&whole), [""; 0]);
    let cut = write(dir.path(), "cut.raw", &bytes[..bytes.len() - 5]);
    assert_eq!(pictures(&played(&source(&cut, told))), all[..3]);
    let warnings = complaints(&source(&cut, told));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains(&format!("frame-size={size}")) && warnings[0].contains("cut.raw"),
        "{warnings:?}"
    );
    let sure = source(&cut, &format!("{told} frame-size={size}"));
    assert_eq!(pictures(&played(&sure)), all[..3]);
}

#[test]
fn bytes_that_are_no_frame_are_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.raw", &vec![7; 3 * 64 * 48 + 100]);
    let warnings = complaints(&source(&path, "format=gray8 width=64 height=48"));
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
        let samples = played(line);
        assert_eq!(pictures(&samples), all, "{line}");
        field::<&str>(&samples[0], "format").unwrap().to_owned()
    };
    let line = source(&path, "");
    assert_eq!(format(&line), "I420");
    assert_eq!(format(&format!("{line} ! video/x-raw,format=NV12")), "NV12");
    let behind = format!("{line} ! queue ! identity ! video/x-raw,format=NV12,framerate=5/1");
    assert_eq!(format(&behind), "NV12");
    let turned = format!("{line} ! video/x-raw,width=48,height=64");
    let sample = &played(&turned)[0];
    assert_eq!(field::<i32>(sample, "width"), Some(48));
    // What a converter's other side is to be is nothing about the file.
    let converted = format!("{line} ! videoconvert ! video/x-raw,format=BGRx");
    let sample = &played(&converted)[0];
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
        one_error(&format!("{line} ! {behind}"), &words);
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
    // A name that says what the file is does not give way to a sink.
    let named = write(dir.path(), "a_64x48_nv12.yuv", &[0; 64 * 48 * 3]);
    let behind = "videoscale ! video/x-raw,format=BGRx,width=64,height=48";
    one_error(
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
    // The sink says that it takes everything, and takes nothing.
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
        one_error(&format!("rawvideosrc {told}"), &words);
    }
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
        ("blocksize=1", ["blocksize", "no property", "gst-inspect"]),
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

#[test]
fn a_clip_of_very_many_frames_holds_up_no_state_change() {
    let dir = tempfile::tempdir().unwrap();
    // A line with a parameter for each frame of one byte: each must be looked at.
    let mut bytes = b"YUV4MPEG2 W1 H1 F1000:1 Cmono\n".to_vec();
    let count = 300_000;
    (0..count).for_each(|n| bytes.extend([&b"FRAME Ip\n"[..], &[n as u8]].concat()));
    let path = write(dir.path(), "tiny.y4m", &bytes);
    let line = source(&path, "");
    let pipeline = Pipeline::pause(&line);
    let duration = pipeline.pipeline.query_duration::<gst::ClockTime>();
    assert_eq!(duration, Some(gst::ClockTime::from_mseconds(count)));
    pipeline.seek(gst::SeekFlags::ACCURATE, gst::ClockTime::from_mseconds(777));
    pipeline.set(gst::State::Playing);
    assert_eq!(picture(&pipeline.pull().unwrap()), [777u32 as u8]);
    drop(pipeline);
    // A stop at any moment of the search ends it.
    for _ in 0..20 {
        let pipeline = Pipeline::new(&line);
        pipeline.pipeline.set_state(gst::State::Playing).unwrap();
        pipeline.pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(pipeline.error(), None);
    }
}
