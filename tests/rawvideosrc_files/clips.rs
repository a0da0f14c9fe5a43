// SPDX-License-Identifier: MPL-2.0
//! YUV4MPEG2 clips, whose headers describe their frames.

use gst::prelude::*;
use gst_video::VideoBufferFlags;
use gst_video::prelude::*;

use crate::common::play::{Pipeline, fifo, y4m};
use crate::{
    I420, assert_one_error, clip, field, frames, picture, pictures, play_to_end, source,
    warnings_and_errors, write,
};

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
        let samples = play_to_end(&source(&path, ""));
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
    let samples = play_to_end(&source(&write(dir.path(), "b.y4m", &bytes), ""));
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
        assert_eq!(pictures(&play_to_end(&source(&path, ""))), all, "{name}");
        assert_eq!(warnings_and_errors(&source(&path, "")), [""; 0], "{name}");
        let pipe = fifo(dir.path());
        let writer = pipe.clone();
        let writing = std::thread::spawn(move || std::fs::write(writer, bytes).unwrap());
        assert_eq!(
            pictures(&play_to_end(&source(&pipe, ""))),
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
    assert_one_error(
        &source(&path, ""),
        &["none.y4m", "not one whole frame of 360 bytes"],
    );
    let mut cut = clip("YUV4MPEG2 W24 H10\n", &frames(1, I420));
    cut.pop();
    let path = write(dir.path(), "cut.y4m", &cut);
    assert_one_error(
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
        let samples = play_to_end(&source(path, rest));
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
    // The properties override the header's mixed interlacing.
    let told = play_to_end(&source(&path, "interlaced=true top-field-first=true"));
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
    let sample = &play_to_end(&source(&path, told))[0];
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
        assert_one_error(&source(&path, told), &words);
    }
    let pipe = fifo(dir.path());
    let writer = pipe.clone();
    let writing = std::thread::spawn(move || drop(std::fs::write(writer, bytes)));
    assert_one_error(&source(&pipe, "format=y42b"), &["24x10 I420", "24x10 Y42B"]);
    writing.join().unwrap();
}

#[test]
fn a_clip_of_very_many_frames_holds_up_no_state_change() {
    let dir = tempfile::tempdir().unwrap();
    // Each frame header has a parameter, so each has to be read to find the next frame.
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
    // A stop ends the search for frames at any moment.
    for _ in 0..20 {
        let pipeline = Pipeline::new(&line);
        pipeline.pipeline.set_state(gst::State::Playing).unwrap();
        pipeline.pipeline.set_state(gst::State::Null).unwrap();
        assert_eq!(pipeline.error(), None);
    }
}
