// SPDX-License-Identifier: MPL-2.0
//! Where seeks go, and when a live source begins.

use std::sync::mpsc;
use std::time::Duration;

use gst::prelude::*;

use crate::{FRAME_MS, Pipeline, SeekBound, TIMEOUT, fifo, file, init, line, number};

#[test]
fn a_change_of_rate_in_place_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    let pipeline = Pipeline::new(&line(&path));
    pipeline.set(gst::State::Paused);
    let none = gst::SeekFlags::empty();
    assert!(pipeline.seek(1.0, none, SeekBound::at(50 * FRAME_MS), SeekBound::keep()));
    assert_eq!(pipeline.prerolled(), 50);
    // The source has sent frame 50 and continues behind it.
    assert!(pipeline.seek(2.0, none, SeekBound::keep(), SeekBound::keep()));
    assert_eq!(pipeline.prerolled(), 51);
    assert!(pipeline.seek(
        4.0,
        gst::SeekFlags::TRICKMODE,
        SeekBound::keep(),
        SeekBound::keep()
    ));
    assert_eq!(pipeline.prerolled(), 52);
    assert_eq!(pipeline.frames(3), [52, 56, 60]);
    pipeline.set(gst::State::Paused);
    assert!(pipeline.seek(1.0, none, SeekBound::at(50 * FRAME_MS), SeekBound::keep()));
    assert_eq!(pipeline.prerolled(), 50);
    // Playback backwards begins at the end of frame 50.
    assert!(pipeline.seek(-1.0, none, SeekBound::keep(), SeekBound::keep()));
    assert_eq!(pipeline.prerolled(), 50);
    assert!(pipeline.seek(-2.0, none, SeekBound::at(0), SeekBound::keep()));
    assert_eq!(pipeline.prerolled(), 49);
    assert_eq!(pipeline.frames(3), [49, 48, 47]);
    pipeline.set(gst::State::Paused);
    assert!(pipeline.seek(-1.0, none, SeekBound::at(0), SeekBound::at(10 * FRAME_MS)));
    assert_eq!(pipeline.prerolled(), 9);
    // Playback forwards begins at the start of frame 9; the stop position remains.
    assert!(pipeline.seek(1.0, none, SeekBound::keep(), SeekBound::keep()));
    assert_eq!(pipeline.frames(100), [9]);
    assert!(pipeline.seek(1.0, none, SeekBound::at(8 * FRAME_MS), SeekBound::end(0)));
    assert_eq!(pipeline.frames(100), Vec::from_iter(8..100));
}

#[test]
fn an_instant_change_of_rate_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    let pipeline = Pipeline::new(&line(&path));
    pipeline.set(gst::State::Paused);
    let (sender, received) = mpsc::channel();
    let pad = pipeline.sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::InstantRateChange(change)) = info.event().map(|e| e.view()) {
            sender.send(change.get().0).unwrap();
        }
        gst::PadProbeReturn::Ok
    });
    let change = |rate| {
        let flags = gst::SeekFlags::INSTANT_RATE_CHANGE;
        let none = (gst::SeekType::None, gst::ClockTime::NONE);
        let seek = gst::event::Seek::new(rate, flags, none.0, none.1, none.0, none.1);
        pipeline.pipeline.send_event(seek)
    };
    assert!(change(2.0));
    assert_eq!(received.recv_timeout(Duration::from_secs(30)), Ok(2.0));
    // An instant rate change cannot reverse the direction.
    assert!(!change(-1.0));
    assert_eq!(pipeline.frames(3), [0, 1, 2]);
}

#[test]
fn a_first_seek_may_count_from_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    let none = gst::SeekFlags::empty();
    let frames = |kind, value| SeekBound::in_format(kind, gst::Format::Default, value);
    let bytes = |kind, value| SeekBound::in_format(kind, gst::Format::Bytes, value);
    let (set, end, keep) = (gst::SeekType::Set, gst::SeekType::End, SeekBound::keep());
    let keep_frames = frames(gst::SeekType::None, -1);
    for (start, stop, first, last) in [
        (SeekBound::end(-1000), keep, 75, 99),
        (SeekBound::end(-1), keep, 99, 99),
        (SeekBound::end(-1000), SeekBound::end(-400), 75, 89),
        (SeekBound::at(3960), SeekBound::end(0), 99, 99),
        (frames(set, 97), keep_frames, 97, 99),
        (frames(end, -5), keep_frames, 95, 99),
        (bytes(end, -64), bytes(gst::SeekType::None, -1), 98, 99),
        (SeekBound::end(-8000), SeekBound::at(80), 0, 1),
    ] {
        for state in [gst::State::Null, gst::State::Ready, gst::State::Paused] {
            let pipeline = Pipeline::new(&line(&path));
            pipeline.set(state);
            // The event goes to the source itself, because the sink is not linked to a running
            // stream yet.
            let seek = gst::event::Seek::new(
                1.0,
                none | gst::SeekFlags::FLUSH,
                start.0,
                start.1,
                stop.0,
                stop.1,
            );
            assert!(pipeline.source().send_event(seek), "{state:?}");
            let played = pipeline.frames(200);
            assert_eq!(played, Vec::from_iter(first..=last), "{state:?}");
        }
    }
    let pipeline = Pipeline::new(&line(&path));
    pipeline.set(gst::State::Paused);
    assert!(pipeline.seek(-1.0, none, SeekBound::at(0), SeekBound::end(-3800)));
    assert_eq!(pipeline.frames(200), [4, 3, 2, 1, 0]);
}

#[test]
fn what_has_no_end_or_no_way_back_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 10);
    let pipe = fifo(dir.path());
    std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let none = gst::SeekFlags::empty();
    for properties in ["loop=true", "follow=true"] {
        let pipeline = Pipeline::new(&format!("{} {properties}", line(&path)));
        pipeline.set(gst::State::Paused);
        assert!(!pipeline.seek(1.0, none, SeekBound::end(-80), SeekBound::keep()));
        // The stop lies before the start.
        assert!(!pipeline.seek(1.0, none, SeekBound::at(120), SeekBound::at(80)));
        assert!(pipeline.seek(1.0, none, SeekBound::at(80), SeekBound::keep()));
        assert_eq!(pipeline.prerolled(), 2);
        // There is no end of the stream to begin from, so playback begins at the current position.
        assert!(pipeline.seek(-1.0, none, SeekBound::at(0), SeekBound::keep()));
        assert_eq!(pipeline.frames(10), [2, 1, 0]);
    }
    // In READY the source does not know yet that it reads a pipe. It accepts the seek, and a single
    // error on the bus says that it cannot be carried out.
    let pipeline = Pipeline::new(&line(&pipe));
    pipeline.set(gst::State::Ready);
    let seek = gst::event::Seek::new(
        1.0,
        gst::SeekFlags::FLUSH,
        gst::SeekType::Set,
        gst::ClockTime::SECOND,
        gst::SeekType::None,
        gst::ClockTime::NONE,
    );
    assert!(pipeline.source().send_event(seek));
    assert!(pipeline.pipeline.set_state(gst::State::Paused).is_err());
    let error = pipeline.message(gst::MessageType::Error).unwrap();
    let gst::MessageView::Error(error) = error.view() else {
        unreachable!()
    };
    assert!(error.error().matches(gst::ResourceError::Seek));
    assert!(error.error().to_string().contains("pipe"));
}

#[test]
fn snapping_goes_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    let pipeline = Pipeline::new(&line(&path));
    pipeline.set(gst::State::Paused);
    use gst::SeekFlags as Flags;
    let key = Flags::KEY_UNIT;
    // 410 ms is 10 ms into frame 10, and 430 ms is 10 ms before frame 11.
    for (flags, at_410, at_430) in [
        (key, 10, 10),
        (key | Flags::SNAP_BEFORE, 10, 10),
        (key | Flags::SNAP_AFTER, 11, 11),
        (key | Flags::SNAP_NEAREST, 10, 11),
    ] {
        for (ms, n) in [(410, at_410), (430, at_430), (frame_start_ms(11), 11)] {
            assert!(pipeline.seek(1.0, flags, SeekBound::at(ms), SeekBound::keep()));
            assert_eq!(pipeline.prerolled(), n, "{flags:?} to {ms} ms");
            let position = pipeline.pipeline.query_position::<gst::ClockTime>();
            assert_eq!(position.unwrap().mseconds(), frame_start_ms(n));
        }
    }
    // Backwards, "before" means the later frame. The first frame shown is the one that ends at the
    // position.
    for (flags, at_410, at_430) in [
        (key, 10, 10),
        (key | Flags::SNAP_BEFORE, 10, 10),
        (key | Flags::SNAP_AFTER, 9, 9),
        (key | Flags::SNAP_NEAREST, 9, 10),
    ] {
        for (ms, n) in [(410, at_410), (430, at_430), (frame_start_ms(10), 9)] {
            assert!(pipeline.seek(-1.0, flags, SeekBound::at(0), SeekBound::at(ms)));
            assert_eq!(pipeline.prerolled(), n, "{flags:?} to {ms} ms");
        }
    }
}

fn frame_start_ms(n: u64) -> u64 {
    n * FRAME_MS
}

#[test]
fn a_seek_is_answered_while_the_caps_are_negotiated() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    for wait_us in (0..4000).step_by(100) {
        let pipeline = Pipeline::new(&line(&path));
        pipeline.start(gst::State::Paused);
        std::thread::sleep(Duration::from_micros(wait_us));
        let seek = gst::event::Seek::new(
            1.0,
            gst::SeekFlags::FLUSH,
            gst::SeekType::Set,
            gst::ClockTime::from_mseconds(frame_start_ms(60)),
            gst::SeekType::Set,
            gst::ClockTime::from_mseconds(frame_start_ms(62)),
        );
        assert!(pipeline.source().send_event(seek), "after {wait_us} us");
        assert_eq!(pipeline.frames(200), [60, 61], "after {wait_us} us");
    }
}

#[test]
fn of_two_seeks_at_the_start_the_later_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    let seek = |frame| {
        gst::event::Seek::new(
            1.0,
            gst::SeekFlags::FLUSH,
            gst::SeekType::Set,
            gst::ClockTime::from_mseconds(frame_start_ms(frame)),
            gst::SeekType::Set,
            gst::ClockTime::from_mseconds(frame_start_ms(frame + 2)),
        )
    };
    for wait_us in (0..4000).step_by(50) {
        let pipeline = Pipeline::new(&line(&path));
        pipeline.start(gst::State::Paused);
        assert!(pipeline.source().send_event(seek(60)));
        std::thread::sleep(Duration::from_micros(wait_us));
        assert!(pipeline.source().send_event(seek(10)));
        assert_eq!(pipeline.frames(200), [10, 11], "after {wait_us} us");
    }
}

#[test]
fn a_live_source_that_joins_later_begins_at_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    init();
    let line = format!("{} is-live=true", line(&path));
    let pipeline = Pipeline::new(&line);
    let clock = gst_check::TestClock::new();
    pipeline.pipeline.use_clock(Some(&clock));
    pipeline.pipeline.set_start_time(gst::ClockTime::NONE);
    pipeline.pipeline.set_base_time(gst::ClockTime::ZERO);
    // The pipeline has been running for 10 s when the source joins.
    clock.set_time(gst::ClockTime::from_seconds(10));
    pipeline.start(gst::State::Playing);
    let release = |ms: u64| {
        let due = clock.wait_for_next_pending_id().time();
        clock.set_time(gst::ClockTime::from_mseconds(ms));
        clock.process_next_clock_id();
        let sample = pipeline.sink.try_pull_sample(TIMEOUT).unwrap();
        let pts = sample.buffer().unwrap().pts().unwrap();
        (due.mseconds(), pts.mseconds(), number(&sample))
    };
    assert_eq!(release(10_000), (10_000, 10_000, 0));
    assert_eq!(release(10_040), (10_040, 10_040, 1));
    // Frame 2 was read before the clock advanced; the next 5 frames are late.
    assert_eq!(release(10_320), (10_080, 10_080, 2));
    assert_eq!(release(10_320), (10_320, 10_320, 8));
}
