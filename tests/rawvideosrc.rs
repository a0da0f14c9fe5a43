// SPDX-License-Identifier: MPL-2.0
//! The element `rawvideosrc` in pipelines, seen from outside.
#![allow(clippy::unwrap_used)]

mod common;

use common::play::{Pipeline, RawFile, TIMEOUT, fifo, info, init, rows, rows_of, y4m};
use gst::prelude::*;
use gst_video::prelude::*;
use gstphysmem::{layout::Layout, rawvideosrc::pattern_frame};
use std::{io::Write, path::Path};

/// Frame number, from the offset and from the time; they must agree.
fn number(sample: &gst::Sample) -> u64 {
    let buffer = sample.buffer().unwrap();
    let pts = buffer.pts().unwrap();
    assert_eq!(pts.nseconds(), buffer.offset() * 40_000_000);
    assert_eq!(buffer.duration().unwrap().mseconds(), 40);
    buffer.offset()
}

fn at_frame(n: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(40 * n)
}

/// Makes the appsink propose a pool with padded strides, as a display would.
fn propose_padded_pool(sink: &gst_app::AppSink, with_meta: bool) {
    let pool = gst_video::VideoBufferPool::new();
    let pad = sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, probe| {
        let Some(gst::QueryViewMut::Allocation(query)) = probe.query_mut().map(|q| q.view_mut())
        else {
            return gst::PadProbeReturn::Ok;
        };
        let caps = query.get_owned().0.unwrap();
        let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
        let mut config = pool.config();
        config.set_params(Some(&caps), info.size() as u32, 2, 4);
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_ref());
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT.as_ref());
        config.set_video_alignment(&gst_video::VideoAlignment::new(3, 5, 16, 61, &[63; 4]));
        pool.set_config(config).unwrap();
        let size = pool.config().params().unwrap().1;
        query.add_allocation_pool(Some(&pool), size, 2, 4);
        if with_meta {
            query.add_allocation_meta::<gst_video::VideoMeta>(None);
        }
        gst::PadProbeReturn::Handled
    });
}

#[test]
fn without_a_location_a_pattern_is_drawn() {
    let pipeline = Pipeline::play("rawvideosrc num-buffers=3");
    for n in 0..3 {
        let sample = pipeline.pull().unwrap();
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        assert_eq!((info.width(), info.height()), (640, 480));
        assert_eq!(info.format(), gst_video::VideoFormat::Bgrx);
        assert_eq!(info.fps(), gst::Fraction::new(30, 1));
        let expected = pattern_frame(n, &info).unwrap();
        let map = sample.buffer().unwrap().map_readable().unwrap();
        assert!(*map == *expected, "frame {n}");
    }
    assert!(pipeline.pull().is_none());
}

#[test]
fn the_pattern_is_drawn_in_every_format() {
    init();
    for format in gst_video::VideoFormat::iter_raw() {
        let caps = format!(
            "video/x-raw,format={},width=70,height=50,framerate=25/1",
            format.to_str()
        );
        let pipeline = Pipeline::play(&format!("rawvideosrc num-buffers=1 ! {caps}"));
        let sample = pipeline.pull().unwrap();
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let expected = pattern_frame(0, &info).unwrap();
        assert!(
            rows(&info, sample.buffer().unwrap()) == rows_of(&Layout::of_info(&info), &expected),
            "{format:?}"
        );
    }
}

#[test]
fn frames_of_every_format_arrive_byte_for_byte() {
    init();
    for format in gst_video::VideoFormat::iter_raw() {
        let info = info(format, 67, 35);
        let layout = Layout::of_info(&info);
        let file = RawFile::new(3 * info.size());
        let pipeline = Pipeline::play(&file.source(&info));
        for n in 0..3 {
            let sample = pipeline.pull().unwrap();
            assert_eq!(number(&sample), n as u64);
            assert!(
                rows(&info, sample.buffer().unwrap())
                    == rows_of(&layout, file.frame(n, info.size())),
                "{format:?}, frame {n}"
            );
        }
        assert!(pipeline.pull().is_none());
    }
}

#[test]
fn padded_buffers_of_a_display_are_written_to_in_place() {
    init();
    for format in gst_video::VideoFormat::iter_raw() {
        let info = info(format, 67, 35);
        if info.format_info().is_tiled() {
            continue;
        }
        let packed = Layout::packed(&info);
        let file = RawFile::new(5 * packed.size_bytes);
        let pipeline = Pipeline::new(&file.source(&info));
        propose_padded_pool(&pipeline.sink, true);
        pipeline.set(gst::State::Playing);
        for n in 0..5 {
            let sample = pipeline.pull().unwrap();
            let buffer = sample.buffer_owned().unwrap();
            let padded = Layout::of_buffer(&info, &buffer).unwrap();
            assert!(padded.planes[0].offset_bytes > 0);
            assert!(padded.planes[0].stride_bytes > packed.planes[0].stride_bytes);
            assert!(
                rows(&info, &buffer) == rows_of(&packed, file.frame(n, packed.size_bytes)),
                "{format:?}, frame {n}"
            );
        }
        assert!(pipeline.pull().is_none());
    }
}

#[test]
fn padding_is_not_pushed_at_those_who_would_misread_it() {
    let info = info(gst_video::VideoFormat::Rgb, 67, 35);
    let file = RawFile::new(info.size());
    let pipeline = Pipeline::new(&file.source(&info));
    propose_padded_pool(&pipeline.sink, false);
    pipeline.set(gst::State::Playing);
    let sample = pipeline.pull().unwrap();
    let buffer = sample.buffer_owned().unwrap();
    assert_eq!(buffer.map_readable().unwrap().as_slice().len(), info.size());
    let stock = Layout::of_info(&info);
    assert!(rows_of(&stock, &buffer.map_readable().unwrap()) == rows_of(&stock, &file.bytes));
}

#[test]
fn size_and_format_may_come_from_downstream() {
    let info = info(gst_video::VideoFormat::Nv12, 64, 32);
    let file = RawFile::new(2 * info.size());
    let pipeline = Pipeline::play(&format!(
        "rawvideosrc location={} ! video/x-raw,format=NV12,width=64,height=32",
        file.path().display()
    ));
    let sample = pipeline.pull().unwrap();
    assert!(file.is_frame(0, info.size(), &sample));
    // Nobody said a rate: that of rawvideoparse.
    assert_eq!(number(&sample), 0);
}

#[test]
fn an_incomplete_last_frame_is_not_played() {
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(2 * info.size() + 1000);
    let pipeline = Pipeline::play(&file.source(&info));
    assert_eq!(number(&pipeline.pull().unwrap()), 0);
    assert_eq!(number(&pipeline.pull().unwrap()), 1);
    assert!(pipeline.pull().is_none());
    assert_eq!(pipeline.error(), None);
}

#[test]
fn each_bad_input_is_one_clear_error() {
    init();
    let file = RawFile::new(1000);
    let path = file.path();
    let line =
        |location: &Path, rest: &str| format!("rawvideosrc location={} {rest}", location.display());
    let secret = file.dir.path().join("secret.raw");
    let none = file.dir.path().join("none.raw");
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
fn seeks_land_on_the_frame() {
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(90 * info.size());
    let pipeline = Pipeline::pause(&file.source(&info));
    let expect = |n: u64| {
        let sample = pipeline.sink.try_pull_preroll(TIMEOUT).unwrap();
        assert_eq!(number(&sample), n);
        assert!(file.is_frame(n as usize, info.size(), &sample));
    };
    expect(0);
    for n in [0, 89, 42, 41, 1, 60] {
        pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(n));
        expect(n);
        pipeline.seek(
            gst::SeekFlags::ACCURATE,
            at_frame(n) + gst::ClockTime::from_mseconds(39),
        );
        expect(n);
        pipeline.seek(
            gst::SeekFlags::KEY_UNIT,
            at_frame(n) + gst::ClockTime::from_mseconds(20),
        );
        expect(n);
        assert_eq!(
            pipeline.pipeline.query_position::<gst::ClockTime>(),
            Some(at_frame(n))
        );
        pipeline.seek(gst::SeekFlags::empty(), gst::format::Default::from_u64(n));
        expect(n);
        pipeline.seek(
            gst::SeekFlags::empty(),
            gst::format::Bytes::from_u64(n * info.size() as u64),
        );
        expect(n);
    }
}

#[test]
fn position_duration_and_conversion_are_exact() {
    use gst::format::{Bytes, Default};
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(90 * info.size());
    let pipeline = Pipeline::pause(&file.source(&info));
    let p = &pipeline.pipeline;
    assert_eq!(p.query_duration(), Some(at_frame(90)));
    assert_eq!(p.query_duration(), Some(Default::from_u64(90)));
    assert_eq!(p.query_duration(), Some(Bytes::from_u64(90 * 1024)));
    pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(30));
    assert_eq!(p.query_position(), Some(at_frame(30)));
    assert_eq!(
        p.query_convert::<Option<gst::ClockTime>>(Default::from_u64(7)),
        Some(Some(at_frame(7)))
    );
    assert_eq!(
        p.query_convert::<Option<Bytes>>(at_frame(7)),
        Some(Some(Bytes::from_u64(7 * 1024)))
    );
    assert_eq!(
        p.query_convert::<Option<Default>>(Bytes::from_u64(7 * 1024 + 5)),
        Some(Some(Default::from_u64(7)))
    );
    for format in [gst::Format::Time, gst::Format::Default, gst::Format::Bytes] {
        let mut query = gst::query::Seeking::new(format);
        assert!(p.query(&mut query));
        let (seekable, start, end) = query.result();
        assert!(seekable, "{format:?}");
        assert_eq!(start.value(), 0);
        assert!(end.value() > 0);
    }
}

#[test]
fn a_stop_position_ends_after_the_frame_before_it() {
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(90 * info.size());
    let pipeline = Pipeline::pause(&file.source(&info));
    let seek = |rate: f64| {
        pipeline
            .pipeline
            .seek(
                rate,
                gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE,
                gst::SeekType::Set,
                at_frame(10),
                gst::SeekType::Set,
                at_frame(15),
            )
            .unwrap();
        pipeline.set(gst::State::Playing);
        let frames: Vec<u64> = std::iter::from_fn(|| pipeline.pull())
            .map(|sample| number(&sample))
            .collect();
        pipeline.set(gst::State::Paused);
        frames
    };
    assert_eq!(seek(1.0), [10, 11, 12, 13, 14]);
    assert_eq!(seek(2.0), [10, 11, 12, 13, 14]);
    assert_eq!(seek(-1.0), [14, 13, 12, 11, 10]);
}

#[test]
fn reverse_from_the_end_reaches_the_first_frame() {
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(7 * info.size());
    let pipeline = Pipeline::pause(&file.source(&info));
    pipeline
        .pipeline
        .seek(
            -1.0,
            gst::SeekFlags::FLUSH,
            gst::SeekType::Set,
            gst::ClockTime::ZERO,
            gst::SeekType::End,
            gst::ClockTime::ZERO,
        )
        .unwrap();
    pipeline.set(gst::State::Playing);
    let frames: Vec<u64> = std::iter::from_fn(|| pipeline.pull())
        .map(|sample| number(&sample))
        .collect();
    assert_eq!(frames, [6, 5, 4, 3, 2, 1, 0]);
}

#[test]
fn segment_seeks_loop_without_a_gap() {
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(90 * info.size());
    let pipeline = Pipeline::pause(&file.source(&info));
    let seek = |flags| {
        pipeline
            .pipeline
            .seek(
                1.0,
                flags | gst::SeekFlags::SEGMENT,
                gst::SeekType::Set,
                at_frame(20),
                gst::SeekType::Set,
                at_frame(23),
            )
            .unwrap();
    };
    seek(gst::SeekFlags::FLUSH);
    pipeline.set(gst::State::Playing);
    let bus = pipeline.pipeline.bus().unwrap();
    let mut running_time = gst::ClockTime::ZERO;
    for _ in 0..3 {
        for n in 20..23 {
            let sample = pipeline.pull().unwrap();
            assert_eq!(number(&sample), n);
            let segment = sample
                .segment()
                .unwrap()
                .downcast_ref::<gst::ClockTime>()
                .unwrap();
            let pts = sample.buffer().unwrap().pts();
            assert_eq!(segment.to_running_time(pts), Some(running_time));
            running_time += at_frame(1);
        }
        bus.timed_pop_filtered(TIMEOUT, &[gst::MessageType::SegmentDone])
            .unwrap();
        seek(gst::SeekFlags::empty());
    }
}

#[test]
fn a_loop_goes_on_in_time() {
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(3 * info.size());
    let pipeline = Pipeline::play(&format!("{} loop=true loop-count=3", file.source(&info)));
    assert_eq!(pipeline.pipeline.query_duration(), Some(at_frame(9)));
    for n in 0..9 {
        let sample = pipeline.pull().unwrap();
        assert_eq!(number(&sample), n);
        assert!(file.is_frame(n as usize % 3, info.size(), &sample));
    }
    assert!(pipeline.pull().is_none());

    let endless = Pipeline::play(&format!(
        "{} loop=true num-buffers=1000",
        file.source(&info)
    ));
    assert_eq!(endless.pipeline.query_duration::<gst::ClockTime>(), None);
    for n in 0..1000 {
        assert_eq!(number(&endless.pull().unwrap()), n);
    }
    assert!(endless.pull().is_none());
}

#[test]
fn a_file_cut_short_while_it_plays_ends_with_an_error() {
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(90 * info.size());
    let pipeline = Pipeline::pause(&file.source(&info));
    file.cut(40 * info.size() + 7);
    pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(38));
    pipeline.set(gst::State::Playing);
    assert_eq!(number(&pipeline.pull().unwrap()), 38);
    assert_eq!(number(&pipeline.pull().unwrap()), 39);
    assert!(pipeline.pull().is_none());
    let errors = pipeline.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("frame 40 "), "{errors:?}");
}

#[test]
fn seek_and_state_storms_leave_it_playing() {
    let info = info(gst_video::VideoFormat::Bgrx, 64, 64);
    let file = RawFile::new(90 * info.size());
    let pipeline = Pipeline::pause(&format!("{} ! queue", file.source(&info)));
    for turn in 0..200u64 {
        let n = turn * 37 % 90;
        pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(n));
        let sample = pipeline.sink.try_pull_preroll(TIMEOUT).unwrap();
        assert_eq!(number(&sample), n);
    }
    for _ in 0..50 {
        pipeline.pipeline.set_state(gst::State::Playing).unwrap();
        pipeline.pipeline.set_state(gst::State::Null).unwrap();
    }
    pipeline.set(gst::State::Playing);
    assert_eq!(number(&pipeline.pull().unwrap()), 0);
}

#[test]
fn caps_that_change_while_playing_change_the_pattern() {
    let pipeline = Pipeline::new(
        "rawvideosrc ! capsfilter name=filter caps=video/x-raw,format=BGRx,width=64,height=48,framerate=25/1",
    );
    pipeline.sink.set_max_buffers(1);
    pipeline.set(gst::State::Playing);
    assert_eq!(number(&pipeline.pull().unwrap()), 0);
    let caps = "video/x-raw,format=NV12,width=32,height=16,framerate=25/1";
    let filter = pipeline.pipeline.by_name("filter").unwrap();
    filter.set_property_from_str("caps", caps);
    let mut last = 0;
    loop {
        let sample = pipeline.pull().unwrap();
        let n = number(&sample);
        assert_eq!(n, last + 1);
        last = n;
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let expected = pattern_frame(n, &info).unwrap();
        assert!(
            rows(&info, sample.buffer().unwrap()) == rows_of(&Layout::of_info(&info), &expected)
        );
        if info.format() == gst_video::VideoFormat::Nv12 {
            break;
        }
        assert!(n < 1000);
    }
}

#[test]
fn stats_count_frames_and_bytes() {
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(5 * info.size());
    let pipeline = Pipeline::play(&format!("{} name=source", file.source(&info)));
    while pipeline.pull().is_some() {}
    let source = pipeline.pipeline.by_name("source").unwrap();
    let stats = source.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("frames").unwrap(), 5);
    assert_eq!(stats.get::<u64>("bytes").unwrap(), 5 * info.size() as u64);
    assert_eq!(stats.get::<&str>("mode").unwrap(), "read");
    assert_eq!(
        stats.get::<&str>("mode-reason").unwrap(),
        "the kernel reads ahead"
    );
    let histogram = stats.get::<gst::Array>("read-latency-histogram").unwrap();
    let counted: u64 = histogram
        .iter()
        .map(|count| count.get::<u64>().unwrap())
        .sum();
    assert_eq!(counted, 5);
}

/// Every way to read a file; the mode that `stats` must show.
const WAYS: &[(&str, &str)] = &[
    ("io-mode=auto", "read"),
    ("io-mode=auto direct=true", "io-uring"),
    ("io-mode=read", "read"),
    ("io-mode=read threads=3", "read"),
    ("io-mode=read direct=true", "read"),
    ("io-mode=read direct=true threads=2", "read"),
    ("io-mode=mmap", "mmap"),
    ("io-mode=mmap threads=4", "mmap"),
    ("io-mode=io-uring", "io-uring"),
    ("io-mode=io-uring prefetch=1", "io-uring"),
    ("io-mode=io-uring prefetch=9 direct=true", "io-uring"),
];

fn has_io_uring() -> bool {
    let file = RawFile::new(64);
    let info = info(gst_video::VideoFormat::Gray8, 8, 8);
    let pipeline = Pipeline::new(&format!("{} io-mode=io-uring", file.source(&info)));
    let _ = pipeline.pipeline.set_state(gst::State::Playing);
    if pipeline.sink.try_pull_sample(TIMEOUT).is_some() {
        return true;
    }
    println!("SKIPPED io-uring: {:?}", pipeline.errors());
    false
}

fn ways() -> Vec<(&'static str, &'static str)> {
    let has_io_uring = has_io_uring();
    WAYS.iter()
        .copied()
        .filter(|(_, mode)| has_io_uring || *mode != "io-uring")
        .collect()
}

fn mode(pipeline: &Pipeline) -> String {
    let source = pipeline.pipeline.by_name("source").unwrap();
    let stats = source.property::<gst::Structure>("stats");
    stats.get::<String>("mode").unwrap()
}

#[test]
fn every_way_to_read_gives_the_same_frames() {
    use gst_video::VideoFormat::*;
    for (way, expected_mode) in ways() {
        for format in [Bgrx, Rgb, I420, Nv12, V210, P01010le, Gray8, Nv1264z32] {
            for (width, height, padded_pool) in [(640, 360, false), (67, 35, true), (66, 35, false)]
            {
                let info = info(format, width, height);
                if padded_pool && info.format_info().is_tiled() {
                    continue;
                }
                let layout = Layout::of_info(&info);
                let file = RawFile::new(7 * info.size());
                let line = format!("{} name=source {way}", file.source(&info));
                let pipeline = Pipeline::new(&line);
                if padded_pool {
                    propose_padded_pool(&pipeline.sink, true);
                }
                pipeline.set(gst::State::Paused);
                let expect = |n: usize| {
                    let sample = pipeline.pull().unwrap();
                    assert_eq!(number(&sample), n as u64);
                    assert!(
                        rows(&info, sample.buffer().unwrap())
                            == rows_of(&layout, file.frame(n, info.size())),
                        "{line}: frame {n}"
                    );
                };
                pipeline.pipeline.set_state(gst::State::Playing).unwrap();
                (0..7).for_each(expect);
                assert!(pipeline.pull().is_none());
                pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(4));
                (4..7).for_each(expect);
                assert!(pipeline.pull().is_none());
                let time = gst::ClockTime::ZERO;
                let seek = (gst::SeekType::Set, time, gst::SeekType::Set, at_frame(5));
                pipeline
                    .pipeline
                    .seek(-1.0, gst::SeekFlags::FLUSH, seek.0, seek.1, seek.2, seek.3)
                    .unwrap();
                (0..5).rev().for_each(expect);
                assert!(pipeline.pull().is_none());
                assert_eq!(mode(&pipeline), expected_mode, "{line}");
            }
        }
    }
}

#[test]
fn loops_seeks_and_stops_leave_every_way_in_order() {
    let info = info(gst_video::VideoFormat::Bgrx, 64, 64);
    let file = RawFile::new(10 * info.size());
    for (way, _) in ways() {
        let line = format!(
            "{} {way} start-frame=2 stop-frame=6 loop=true loop-count=4 ! queue max-size-buffers=3",
            file.source(&info)
        );
        let pipeline = Pipeline::pause(&line);
        assert_eq!(pipeline.pipeline.query_duration(), Some(at_frame(20)));
        for turn in 0..60u64 {
            let n = turn * 7 % 20;
            pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(n));
            let sample = pipeline.sink.try_pull_preroll(TIMEOUT).unwrap();
            assert_eq!(number(&sample), n);
            let of_file = 2 + n as usize % 5;
            assert!(file.is_frame(of_file, info.size(), &sample), "{line}");
        }
        pipeline.seek(gst::SeekFlags::ACCURATE, at_frame(3));
        pipeline.set(gst::State::Playing);
        for n in 3..20 {
            assert_eq!(number(&pipeline.pull().unwrap()), n, "{line}");
        }
        assert!(pipeline.pull().is_none());
        for _ in 0..20 {
            pipeline.pipeline.set_state(gst::State::Playing).unwrap();
            pipeline.pipeline.set_state(gst::State::Null).unwrap();
        }
    }
}

#[test]
fn a_new_pool_in_the_midst_loses_no_frame() {
    let info = info(gst_video::VideoFormat::Bgrx, 64, 64);
    let file = RawFile::new(60 * info.size());
    for (way, _) in ways() {
        let pipeline = Pipeline::new(&format!("{} {way}", file.source(&info)));
        pipeline.sink.set_max_buffers(1);
        pipeline.set(gst::State::Playing);
        let pad = pipeline.sink.static_pad("sink").unwrap();
        for n in 0..60 {
            if n % 7 == 3 {
                // Downstream wants to be asked again.
                assert!(pad.push_event(gst::event::Reconfigure::new()));
            }
            let sample = pipeline.pull().unwrap();
            assert_eq!(number(&sample), n, "{way}");
            let is_whole = file.is_frame(n as usize, info.size(), &sample);
            assert!(is_whole, "{way}: frame {n}");
        }
        assert!(pipeline.pull().is_none());
    }
}

#[test]
fn mapped_frames_are_the_files_own_pages() {
    let info = info(gst_video::VideoFormat::Bgrx, 64, 64);
    let file = RawFile::new(4 * info.size());
    let pipeline = Pipeline::play(&format!("{} io-mode=mmap", file.source(&info)));
    let samples: Vec<gst::Sample> = (0..4).map(|_| pipeline.pull().unwrap()).collect();
    let first = samples[0].buffer().unwrap();
    assert!(
        first
            .peek_memory(0)
            .flags()
            .contains(gst::MemoryFlags::READONLY)
    );
    let addresses: Vec<usize> = samples
        .iter()
        .map(|sample| sample.buffer().unwrap().map_readable().unwrap().as_ptr() as usize)
        .collect();
    for (n, address) in addresses.iter().enumerate() {
        assert_eq!(*address, addresses[0] + n * info.size());
    }
    // The memory outlives the pipeline.
    drop(pipeline);
    for (n, sample) in samples.iter().enumerate() {
        assert!(file.is_frame(n, info.size(), sample));
    }
}

#[test]
fn a_mapped_file_that_is_truncated_is_an_error_and_kills_nobody() {
    let info = info(gst_video::VideoFormat::Bgrx, 64, 64);
    for padded_pool in [false, true] {
        let file = RawFile::new(90 * info.size());
        let pipeline = Pipeline::new(&format!("{} io-mode=mmap", file.source(&info)));
        if padded_pool {
            propose_padded_pool(&pipeline.sink, true);
        }
        pipeline.sink.set_max_buffers(1);
        pipeline.set(gst::State::Playing);
        pipeline.pull().unwrap();
        file.cut(10 * info.size());
        let mut frames = 0;
        while let Some(sample) = pipeline.sink.try_pull_sample(TIMEOUT) {
            // Somebody looks at every byte.
            rows(&info, sample.buffer().unwrap());
            frames += 1;
        }
        assert!(frames < 89, "{frames}");
        let errors = pipeline.errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].contains("frames.raw") && errors[0].contains("truncated"),
            "{errors:?}"
        );
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
    for (bytes, (way, _)) in files
        .iter()
        .flat_map(|bytes| ways().into_iter().map(move |way| (bytes, way)))
    {
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
    // Two frames in each file.
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
    // Nobody writes yet: the state change must not wait for it.
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
    // It waits for more, and can be stopped.
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
fn foreign_layouts_are_read_as_described() {
    let info = info(gst_video::VideoFormat::Nv12, 16, 8);
    let file = RawFile::new(100 + 3 * 1000);
    let line = format!(
        "{} plane-strides=<20,24> plane-offsets=<300,40> frame-size=1000 offset=100",
        file.source(&info)
    );
    for (way, _) in ways() {
        let pipeline = Pipeline::play(&format!("{line} {way}"));
        for n in 0..3 {
            let sample = pipeline.pull().unwrap();
            let mut expected = Vec::new();
            for row in 0..8 {
                expected.push(file.bytes[100 + n * 1000 + 300 + row * 20..][..16].to_vec());
            }
            for row in 0..4 {
                expected.push(file.bytes[100 + n * 1000 + 40 + row * 24..][..16].to_vec());
            }
            assert!(rows(&info, sample.buffer().unwrap()) == expected, "{way}");
        }
        assert!(pipeline.pull().is_none());
    }
    for (bad, word) in [
        ("plane-strides=<20>", "one for each plane"),
        ("plane-strides=<10,24>", "at least 16"),
        ("plane-offsets=<0,-1>", "do not fit"),
        ("frame-size=10", "do not fit"),
        ("start-frame=99", "start-frame 99"),
    ] {
        let pipeline = Pipeline::new(&format!("{} {bad}", file.source(&info)));
        let _ = pipeline.pipeline.set_state(gst::State::Playing);
        let errors = pipeline.errors();
        assert!(
            errors.len() == 1 && errors[0].contains(word),
            "{bad}: {errors:?}"
        );
    }
}

#[test]
fn trick_modes_leave_frames_out() {
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(20 * info.size());
    let pipeline = Pipeline::pause(&file.source(&info));
    let play = |rate: f64, flags| {
        let (start, stop) = (gst::ClockTime::ZERO, at_frame(20));
        let set = gst::SeekType::Set;
        let flags = flags | gst::SeekFlags::FLUSH;
        pipeline
            .pipeline
            .seek(rate, flags, set, start, set, stop)
            .unwrap();
        pipeline.set(gst::State::Playing);
        let frames: Vec<u64> = std::iter::from_fn(|| pipeline.pull())
            .map(|sample| number(&sample))
            .collect();
        pipeline.set(gst::State::Paused);
        frames
    };
    assert_eq!(play(5.0, gst::SeekFlags::TRICKMODE), [0, 5, 10, 15]);
    assert_eq!(play(-5.0, gst::SeekFlags::TRICKMODE), [19, 14, 9, 4]);
    assert_eq!(play(5.0, gst::SeekFlags::empty()).len(), 20);
}

#[test]
fn a_live_source_keeps_to_the_clock() {
    let info = info(gst_video::VideoFormat::Gray8, 16, 16);
    let file = RawFile::new(50 * info.size());
    let pipeline = Pipeline::new(&format!("{} name=source is-live=true", file.source(&info)));
    let clock = gst_check::TestClock::new();
    pipeline.pipeline.use_clock(Some(&clock));
    let paused = pipeline.pipeline.set_state(gst::State::Paused).unwrap();
    assert_eq!(paused, gst::StateChangeSuccess::NoPreroll);
    pipeline.pipeline.set_state(gst::State::Playing).unwrap();
    // What waits for the clock, and for when.
    let release_at = |n: u64| {
        let waiting_for = clock.wait_for_next_pending_id().time();
        assert!(
            pipeline
                .sink
                .try_pull_sample(gst::ClockTime::ZERO)
                .is_none()
        );
        clock.set_time(at_frame(n));
        clock.process_next_clock_id();
        waiting_for
    };
    for n in 0..3 {
        assert_eq!(release_at(n), at_frame(n));
        assert_eq!(number(&pipeline.pull().unwrap()), n);
    }
    // Frame 3 was made and waits; then 10 are late.
    assert_eq!(release_at(14), at_frame(3));
    assert_eq!(number(&pipeline.pull().unwrap()), 3);
    assert_eq!(release_at(14), at_frame(14));
    assert_eq!(number(&pipeline.pull().unwrap()), 14);
    let source = pipeline.pipeline.by_name("source").unwrap();
    let stats = source.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("dropped").unwrap(), 10);
    let mut query = gst::query::Latency::new();
    assert!(source.query(&mut query));
    let (is_live, min, _) = query.result();
    assert!(is_live);
    assert_eq!(min, at_frame(1));
    let mut query = gst::query::Seeking::new(gst::Format::Time);
    assert!(pipeline.pipeline.query(&mut query));
    assert!(!query.result().0);
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
    // Other elements keep what is theirs.
    let file = make("file:///tmp/clip.yuv").unwrap();
    assert_eq!(file.factory().unwrap().name(), "filesrc");
}
