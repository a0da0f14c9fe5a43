// SPDX-License-Identifier: MPL-2.0
//! Seeks, loops, trick modes and the time line.

use gst::prelude::*;

use crate::common::play::{Pipeline, RawFile, TIMEOUT, info};
use crate::{at_frame, number};

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
    // Releases the wait for the clock at frame `n`; returns the time that was waited for.
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
    // Frame 3 was read before the clock advanced; the next 10 frames are late.
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

/// Frames without a rate have no times, and the base class seeks by times.
#[test]
fn frames_without_a_rate_cannot_be_sought() {
    let info = info(gst_video::VideoFormat::Gray8, 16, 16);
    let file = RawFile::new(10 * info.size());
    let pipeline = Pipeline::pause(&format!(
        "rawvideosrc location={} format=gray8 width=16 height=16 ! video/x-raw,framerate=0/1",
        file.path().display()
    ));
    let is_seekable = |format| {
        let mut query = gst::query::Seeking::new(format);
        pipeline.pipeline.query(&mut query) && query.result().0
    };
    for format in [gst::Format::Time, gst::Format::Default, gst::Format::Bytes] {
        assert!(!is_seekable(format), "{format:?}");
    }
    let flags = gst::SeekFlags::FLUSH;
    assert!(
        pipeline
            .pipeline
            .seek_simple(flags, gst::ClockTime::SECOND)
            .is_err()
    );
    assert!(
        pipeline
            .pipeline
            .seek_simple(flags, gst::format::Default::from_u64(5))
            .is_err()
    );
    let duration = pipeline.pipeline.query_duration::<gst::format::Default>();
    assert_eq!(duration, Some(gst::format::Default::from_u64(10)));
}
