// SPDX-License-Identifier: MPL-2.0
//! The ways to read a file: read, mmap and io_uring give the same frames.

use gst::prelude::*;
use gstphysmem::layout::Layout;

use crate::common::play::{Pipeline, RawFile, TIMEOUT, info, rows, rows_of};
use crate::{at_frame, available_read_modes, number, propose_padded_pool};

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
fn a_stream_that_fails_again_after_a_seek_says_so_again() {
    let info = info(gst_video::VideoFormat::Bgrx, 16, 16);
    let file = RawFile::new(90 * info.size());
    let pipeline = Pipeline::play(&file.source(&info));
    // A pipeline that has failed stays in PAUSED after a seek, unless it is told to play once more.
    let seek = |frame| {
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        let playing = &pipeline.pipeline;
        playing.seek_simple(flags, at_frame(frame)).unwrap();
        playing.set_state(gst::State::Playing).unwrap();
        assert_eq!(number(&pipeline.pull().unwrap()), frame);
    };
    for last in [39, 19] {
        file.cut(90 * info.size());
        seek(5);
        file.cut((last as usize + 1) * info.size());
        seek(last);
        assert!(pipeline.pull().is_none());
    }
    let errors = pipeline.errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("frame 40 "), "{errors:?}");
    assert!(errors[1].contains("frame 20 "), "{errors:?}");
}

fn mode(pipeline: &Pipeline) -> String {
    let source = pipeline.pipeline.by_name("source").unwrap();
    let stats = source.property::<gst::Structure>("stats");
    stats.get::<String>("mode").unwrap()
}

#[test]
fn every_way_to_read_gives_the_same_frames() {
    use gst_video::VideoFormat::*;
    for (way, expected_mode) in available_read_modes() {
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
    for (way, _) in available_read_modes() {
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
    for (way, _) in available_read_modes() {
        let pipeline = Pipeline::new(&format!("{} {way}", file.source(&info)));
        pipeline.sink.set_max_buffers(1);
        pipeline.set(gst::State::Playing);
        let pad = pipeline.sink.static_pad("sink").unwrap();
        for n in 0..60 {
            if n % 7 == 3 {
                // The event makes the source negotiate its pool again.
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
            // Reads every byte of the frame.
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
