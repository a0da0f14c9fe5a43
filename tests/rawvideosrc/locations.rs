// SPDX-License-Identifier: MPL-2.0
//! What `location` may name: files, sequences, YUV4MPEG2 clips, pipes, growing files, URIs.

use std::io::Write;
use std::path::Path;

use gst::prelude::*;
use gst_video::prelude::*;
use gstphysmem::layout::Layout;

use crate::common::play::{Pipeline, RawFile, fifo, info, init, rows, rows_of, y4m};
use crate::{at_frame, available_read_modes, number};

#[test]
fn each_bad_input_is_one_clear_error() {
    init();
    let file = RawFile::new(1000);
    let path = file.path();
    let line =
        |location: &Path, rest: &str| format!("rawvideosrc location={} {rest}", location.display());
    let secret = file.dir.path().join("secret.raw");
    let none = file.dir.path().join("none.raw");
    let bayer = file.dir.path().join("a_8x8_SRGGB8.raw");
    std::fs::write(&bayer, [0; 64]).unwrap();
    let cases: &[(String, &[&str])] = &[
        (line(&none, ""), &["none.raw", "ENOENT", "check location"]),
        (
            line(file.dir.path(), ""),
            &["directory", "EISDIR", "give the path"],
        ),
        (
            line(&path, "format=bgrx width=16 height=16"),
            &["frames.raw", "1000 bytes", "1024", "check format"],
        ),
        (
            line(&path, ""),
            &["frames.raw", "format, width, height", "set the properties"],
        ),
        (line(&path, "format=bgrx"), &["frames.raw", "width, height"]),
        (line(&path, "format=encoded"), &["encoded", "choose one"]),
        (
            line(&path, "format=bgrx width=1000000000 height=1000000000"),
            &["1000000000x1000000000", "check width"],
        ),
        (
            line(&path, "format=bgrx width=30000 height=30000"),
            &["30000x30000", "check width"],
        ),
        (
            "rawvideosrc format=bgrx width=30000 height=30000".into(),
            &["30000x30000", "check width"],
        ),
        (
            line(&bayer, ""),
            &["SRGGB8", "Bayer", "bayer2rgb", "format"],
        ),
        (
            "rawvideosrc location=file://server/a.raw".into(),
            &["file://server/a.raw", "give the path"],
        ),
        (line(&secret, ""), &["secret.raw", "EACCES", "chmod"]),
    ];
    std::fs::write(&secret, b"x").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
    for (line, words) in cases {
        if line.contains("secret") && std::fs::File::open(&secret).is_ok() {
            println!("SKIPPED the unreadable file: this user reads everything");
            continue;
        }
        let pipeline = Pipeline::new(line);
        let _ = pipeline.pipeline.set_state(gst::State::Playing);
        let errors = pipeline.errors();
        assert_eq!(errors.len(), 1, "{line}: {errors:?}");
        for word in *words {
            assert!(
                errors[0].contains(word),
                "{line}: no \"{word}\" in {:?}",
                errors[0]
            );
        }
    }
}

#[test]
fn yuv4mpeg2_needs_no_properties() {
    let info = info(gst_video::VideoFormat::I420, 35, 17);
    let packed = Layout::packed(&info);
    let content = RawFile::new(5 * packed.size_bytes);
    let frames: Vec<&[u8]> = (0..5)
        .map(|n| content.frame(n, packed.size_bytes))
        .collect();
    let header = "YUV4MPEG2 W35 H17 F25:1 It A4:3 C420jpeg XYSCSS=420JPEG\n";
    let plain = |_| "FRAME\n".to_owned();
    let long = |n: usize| {
        if n == 2 {
            "FRAME Ixyz\n".to_owned()
        } else {
            "FRAME\n".to_owned()
        }
    };
    let files = [y4m(header, plain, &frames), y4m(header, long, &frames)];
    for (bytes, (way, _)) in files.iter().flat_map(|bytes| {
        available_read_modes()
            .into_iter()
            .map(move |way| (bytes, way))
    }) {
        let path = content.dir.path().join("clip.y4m");
        std::fs::write(&path, bytes).unwrap();
        let pipeline = Pipeline::pause(&format!("rawvideosrc location={} {way}", path.display()));
        assert_eq!(pipeline.pipeline.query_duration(), Some(at_frame(5)));
        pipeline.set(gst::State::Playing);
        for frame in &frames {
            let sample = pipeline.pull().unwrap();
            let got = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
            assert_eq!(got.format(), gst_video::VideoFormat::I420);
            assert_eq!((got.width(), got.height()), (35, 17));
            assert_eq!(got.par(), gst::Fraction::new(4, 3));
            assert_eq!(
                got.interlace_mode(),
                gst_video::VideoInterlaceMode::Interleaved
            );
            assert_eq!(got.field_order(), gst_video::VideoFieldOrder::TopFieldFirst);
            assert_eq!(got.chroma_site(), gst_video::VideoChromaSite::JPEG);
            let buffer = sample.buffer().unwrap();
            assert!(
                buffer
                    .video_flags()
                    .contains(gst_video::VideoBufferFlags::TFF)
            );
            assert!(rows(&got, buffer) == rows_of(&packed, frame), "{way}");
        }
        assert!(pipeline.pull().is_none());
        pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(3));
        assert_eq!(number(&pipeline.pull().unwrap()), 3);
    }
}

#[test]
fn broken_yuv4mpeg2_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip.y4m");
    let cases = [
        ("YUV4MPEG2 W8 H8 C444alpha\nFRAME\n".to_owned(), "444alpha"),
        ("YUV4MPEG2 H8\nFRAME\n".to_owned(), "width"),
        (
            format!(
                "YUV4MPEG2 W8 H8 Cmono\nFRAME\n{}GARBAGE{}",
                "x".repeat(64),
                "x".repeat(64)
            ),
            "no FRAME",
        ),
    ];
    for (bytes, word) in cases {
        std::fs::write(&path, bytes).unwrap();
        let pipeline = Pipeline::new(&format!("rawvideosrc location={}", path.display()));
        let _ = pipeline.pipeline.set_state(gst::State::Playing);
        let errors = pipeline.errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].contains("clip.y4m") && errors[0].contains(word),
            "{errors:?}"
        );
    }
}

#[test]
fn a_telling_name_is_believed_where_nothing_is_said() {
    let info = info(gst_video::VideoFormat::Nv12, 64, 32);
    let content = RawFile::new(2 * info.size());
    let path = content.dir.path().join("clip_64x32_50fps_nv12.yuv");
    std::fs::write(&path, &content.bytes).unwrap();
    let line = format!("rawvideosrc location={}", path.display());
    let pipeline = Pipeline::play(&line);
    let sample = pipeline.pull().unwrap();
    let got = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
    assert_eq!(got.format(), gst_video::VideoFormat::Nv12);
    assert_eq!((got.width(), got.height()), (64, 32));
    assert_eq!(got.fps(), gst::Fraction::new(50, 1));
    let told = Pipeline::play(&format!(
        "{line} width=32 height=64 format=nv21 framerate=10/1"
    ));
    let sample = told.pull().unwrap();
    let got = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
    assert_eq!(got.format(), gst_video::VideoFormat::Nv21);
    assert_eq!((got.width(), got.height()), (32, 64));
    assert_eq!(got.fps(), gst::Fraction::new(10, 1));
}

#[test]
fn a_sequence_of_files_plays_as_one() {
    let info = info(gst_video::VideoFormat::Rgb, 33, 17);
    let content = RawFile::new(8 * info.size());
    for (n, bytes) in content.bytes.chunks(2 * info.size()).enumerate() {
        let path = content.dir.path().join(format!("part-{:03}.raw", n + 7));
        std::fs::write(path, bytes).unwrap();
    }
    let line = content.source(&info).replace("frames.raw", "part-%03d.raw");
    let pipeline = Pipeline::pause(&line);
    assert_eq!(pipeline.pipeline.query_duration(), Some(at_frame(8)));
    pipeline.set(gst::State::Playing);
    let layout = Layout::of_info(&info);
    let expect = |n: usize| {
        let sample = pipeline.pull().unwrap();
        assert_eq!(number(&sample), n as u64);
        let expected = rows_of(&layout, content.frame(n, info.size()));
        assert!(rows(&info, sample.buffer().unwrap()) == expected);
    };
    (0..8).for_each(expect);
    assert!(pipeline.pull().is_none());
    pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(5));
    expect(5);

    let none = Pipeline::new(&line.replace("part-", "none-"));
    let _ = none.pipeline.set_state(gst::State::Playing);
    let errors = none.errors();
    assert!(
        errors.len() == 1 && errors[0].contains("none-%03d.raw"),
        "{errors:?}"
    );
    std::fs::remove_file(content.dir.path().join("part-009.raw")).unwrap();
    let short = Pipeline::pause(&line);
    assert_eq!(short.pipeline.query_duration(), Some(at_frame(4)));
}

#[test]
fn a_pipe_is_played_as_it_comes() {
    let info = info(gst_video::VideoFormat::Bgr, 33, 17);
    // Rows without padding, as nearly all programs write them.
    let layout = Layout::packed(&info);
    let size = layout.size_bytes;
    let content = RawFile::new(6 * size + 10);
    let path = fifo(content.dir.path());
    let line = content.source(&info).replace("frames.raw", "pipe");
    let pipeline = Pipeline::new(&format!("{line} start-frame=1"));
    // There is no writer yet, and the state change must not wait for one.
    pipeline.pipeline.set_state(gst::State::Playing).unwrap();
    let bytes = content.bytes.clone();
    let writing = std::thread::spawn(move || std::fs::write(path, bytes).unwrap());
    for n in 0..5usize {
        let sample = pipeline.pull().unwrap();
        assert_eq!(number(&sample), n as u64);
        let expected = rows_of(&layout, content.frame(n + 1, size));
        assert!(rows(&info, sample.buffer().unwrap()) == expected);
    }
    assert_eq!(pipeline.pipeline.query_duration::<gst::ClockTime>(), None);
    let mut query = gst::query::Seeking::new(gst::Format::Time);
    assert!(pipeline.pipeline.query(&mut query));
    assert!(!query.result().0);
    assert!(pipeline.pull().is_none());
    writing.join().unwrap();
}

#[test]
fn a_pipe_of_yuv4mpeg2_needs_no_properties() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path());
    let bytes = y4m(
        "YUV4MPEG2 W8 H4 F25:1 Cmono\n",
        |n| {
            if n == 1 {
                "FRAME I?\n".into()
            } else {
                "FRAME\n".into()
            }
        },
        &[&[1; 32], &[2; 32], &[3; 32]],
    );
    let pipeline = Pipeline::new(&format!("rawvideosrc location={}", path.display()));
    pipeline.pipeline.set_state(gst::State::Playing).unwrap();
    let writing = std::thread::spawn(move || std::fs::write(path, bytes).unwrap());
    for n in 1..=3u8 {
        let sample = pipeline.pull().unwrap();
        assert_eq!(*sample.buffer().unwrap().map_readable().unwrap(), [n; 32]);
    }
    assert!(pipeline.pull().is_none());
    writing.join().unwrap();
}

#[test]
fn a_silent_pipe_does_not_hold_up_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path());
    for properties in ["", "format=gray8 width=8 height=4"] {
        let line = format!("rawvideosrc location={} {properties}", path.display());
        let pipeline = Pipeline::new(&line);
        pipeline.pipeline.set_state(gst::State::Playing).unwrap();
        let writer = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        pipeline.pipeline.set_state(gst::State::Null).unwrap();
        drop(writer);
    }
}

#[test]
fn a_growing_file_is_followed() {
    let info = info(gst_video::VideoFormat::Gray8, 32, 32);
    let content = RawFile::new(8 * info.size());
    let path = content.path();
    std::fs::write(&path, b"").unwrap();
    let pipeline = Pipeline::new(&format!("{} follow=true", content.source(&info)));
    pipeline.pipeline.set_state(gst::State::Playing).unwrap();
    let bytes = content.bytes.clone();
    let writing = std::thread::spawn(move || {
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        for part in bytes.chunks(700) {
            file.write_all(part).unwrap();
        }
    });
    for n in 0..8 {
        let sample = pipeline.pull().unwrap();
        assert_eq!(number(&sample), n as u64);
        let map = sample.buffer().unwrap().map_readable().unwrap();
        assert!(&*map == content.frame(n, info.size()));
    }
    writing.join().unwrap();
    // The source waits for more bytes and can be stopped.
    assert!(
        pipeline
            .sink
            .try_pull_sample(gst::ClockTime::from_mseconds(100))
            .is_none()
    );
    assert!(!pipeline.sink.is_eos());
    pipeline.set(gst::State::Null);
}

#[test]
fn format_is_read_as_caps_and_as_gstreamer_write_it() {
    init();
    for (text, format) in [
        ("NV12", gst_video::VideoFormat::Nv12),
        ("nv12", gst_video::VideoFormat::Nv12),
        ("GST_VIDEO_FORMAT_NV12", gst_video::VideoFormat::Nv12),
        ("I420_10LE", gst_video::VideoFormat::I42010le),
        ("i420-10le", gst_video::VideoFormat::I42010le),
    ] {
        let source = gst::parse::launch(&format!("rawvideosrc format={text}")).unwrap();
        assert_eq!(source.property::<gst_video::VideoFormat>("format"), format);
        source.set_property("format", gst_video::VideoFormat::Bgrx);
        source.set_property_from_str("format", text);
        assert_eq!(source.property::<gst_video::VideoFormat>("format"), format);
    }
    assert!(gst::parse::launch("rawvideosrc format=NV13").is_err());
    let uri = "rawvideo:?format=NV13";
    let error = gst::Element::make_from_uri(gst::URIType::Src, uri, None).unwrap_err();
    assert!(error.to_string().contains(" NV12, "), "{error}");
}

#[test]
fn location_takes_the_uri_of_a_file() {
    init();
    let file = RawFile::new(2 * 16 * 16 * 4);
    let uri = gst::glib::filename_to_uri(file.path(), None).unwrap();
    let line = format!("rawvideosrc name=source location={uri} format=BGRx width=16 height=16");
    let pipeline = Pipeline::new(&line);
    pipeline.set(gst::State::Playing);
    assert_eq!(number(&pipeline.pull().unwrap()), 0);
    assert_eq!(number(&pipeline.pull().unwrap()), 1);
    let source = pipeline.pipeline.by_name("source").unwrap();
    assert_eq!(source.property::<String>("location"), uri);
}

#[test]
fn a_uri_sets_location_and_properties() {
    init();
    let make = |uri: &str| gst::Element::make_from_uri(gst::URIType::Src, uri, None);
    let source =
        make("rawvideo:///tmp/a%20b.raw?format=nv12&width=64&framerate=30/1&loop=true").unwrap();
    assert_eq!(source.factory().unwrap().name(), "rawvideosrc");
    assert_eq!(source.property::<String>("location"), "/tmp/a b.raw");
    assert_eq!(
        source.property::<gst_video::VideoFormat>("format"),
        gst_video::VideoFormat::Nv12
    );
    assert_eq!(source.property::<i32>("width"), 64);
    assert!(source.property::<bool>("loop"));
    for (bad, word) in [
        ("rawvideo:///a?nonsense=1", "nonsense"),
        ("rawvideo:///a?width=wide", "wide"),
        ("rawvideo:///a?name=x", "name"),
    ] {
        let error = make(bad).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    // The scheme of filesrc still belongs to filesrc.
    let file = make("file:///tmp/clip.yuv").unwrap();
    assert_eq!(file.factory().unwrap().name(), "filesrc");
}
