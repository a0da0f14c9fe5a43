// SPDX-License-Identifier: MPL-2.0
//! Every frame arrives byte for byte, in every format and layout.

use gst::prelude::*;
use gstphysmem::layout::Layout;
use gstphysmem::rawvideosrc::pattern_frame;

use crate::common::play::{Pipeline, RawFile, info, init, rows, rows_of};
use crate::{available_read_modes, number, propose_padded_pool};

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
    // Without a frame rate rawvideosrc uses 25/1, as rawvideoparse does.
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
        "the kernel reads ahead into the page cache: frames of less than 2 MiB come no faster past it"
    );
    let histogram = stats.get::<gst::Array>("read-latency-histogram").unwrap();
    let counted: u64 = histogram
        .iter()
        .map(|count| count.get::<u64>().unwrap())
        .sum();
    assert_eq!(counted, 5);
}

#[test]
fn foreign_layouts_are_read_as_described() {
    let info = info(gst_video::VideoFormat::Nv12, 16, 8);
    let file = RawFile::new(100 + 3 * 1000);
    let line = format!(
        "{} plane-strides=<20,24> plane-offsets=<300,40> frame-size=1000 offset=100",
        file.source(&info)
    );
    for (way, _) in available_read_modes() {
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

/// interlace answers the question for caps without a rate.
#[test]
fn caps_that_leave_the_rate_open_get_one() {
    let file = RawFile::new(6 * 16 * 16 * 3 / 2);
    let path = file.path();
    let of_file = format!("location={} format=i420 width=16 height=16", path.display());
    for properties in ["num-buffers=6", &of_file] {
        let pipeline = Pipeline::play(&format!("rawvideosrc {properties} ! interlace"));
        let sample = pipeline.pull().unwrap();
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        assert!(info.fps().numer() > 0, "{properties}");
        assert!(sample.buffer().unwrap().pts().is_some(), "{properties}");
    }
}

#[test]
fn the_pattern_begins_and_ends_where_the_properties_say() {
    let pipeline = Pipeline::pause("rawvideosrc start-frame=2 stop-frame=5");
    let duration = pipeline.pipeline.query_duration::<gst::format::Default>();
    assert_eq!(duration, Some(gst::format::Default::from_u64(4)));
    pipeline.set(gst::State::Playing);
    for n in 2..=5 {
        let sample = pipeline.pull().unwrap();
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let expected = pattern_frame(n, &info).unwrap();
        assert!(
            *sample.buffer().unwrap().map_readable().unwrap() == *expected,
            "frame {n}"
        );
    }
    assert!(pipeline.pull().is_none());
}

#[test]
fn a_file_of_proc_is_read_to_its_end() {
    let version = std::fs::read("/proc/version").unwrap();
    let pipeline =
        Pipeline::play("rawvideosrc location=/proc/version format=gray8 width=8 height=1");
    for expected in version.chunks_exact(8) {
        let sample = pipeline.pull().unwrap();
        assert_eq!(*sample.buffer().unwrap().map_readable().unwrap(), *expected);
    }
    assert!(pipeline.pull().is_none());
}

#[test]
fn a_file_that_is_followed_ends_with_stop_frame() {
    let info = info(gst_video::VideoFormat::Gray8, 16, 16);
    let file = RawFile::new(10 * info.size());
    let pipeline = Pipeline::play(&format!(
        "{} follow=true start-frame=1 stop-frame=5",
        file.source(&info)
    ));
    for n in 1..=5 {
        let sample = pipeline.pull().unwrap();
        assert!(file.is_frame(n, info.size(), &sample), "frame {n}");
    }
    assert!(pipeline.pull().is_none());
}

/// Sinks want time to process a frame, and warn if the pipeline has no room for it.
#[test]
fn a_live_source_sets_no_limit_to_the_latency() {
    init();
    let pipeline =
        gst::parse::launch("rawvideosrc is-live=true num-buffers=5 ! fakesink sync=true");
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let kinds = [
        gst::MessageType::Eos,
        gst::MessageType::Error,
        gst::MessageType::Warning,
    ];
    let message = bus
        .timed_pop_filtered(gst::ClockTime::from_seconds(30), &kinds)
        .unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}
