// SPDX-License-Identifier: MPL-2.0
//! Errors, warnings and the log.

use gst::prelude::*;
use gstphysmem::memory::MemoryKind;
use gstphysmem::physmemupload::PhysMemUpload;

use crate::common;
use crate::{NO_HEAP, UploadPipeline};

#[test]
fn memory_that_cannot_be_had_is_the_elements_own_error() {
    // videotestsrc would take an offered pool and then fail without a reason.
    let line = UploadPipeline::new("videotestsrc num-buffers=3", MemoryKind::Cma);
    line.upload.set_property("heap", NO_HEAP);
    line.pipeline.set_state(gst::State::Playing).unwrap();
    let bus = line.pipeline.bus().unwrap();
    let timeout = gst::ClockTime::from_seconds(60);
    let message = bus.timed_pop_filtered(timeout, &[gst::MessageType::Error]);
    let message = message.unwrap();
    assert_eq!(message.src(), Some(line.upload.upcast_ref()));
    let gst::MessageView::Error(error) = message.view() else {
        panic!("{message:?}");
    };
    // The headline is what users see first.
    let error = error.error();
    let headline = error.message();
    assert!(
        headline.starts_with("no memory of kind cma to copy into: "),
        "{headline}"
    );
    assert!(headline.contains(NO_HEAP), "{headline}");
    assert_eq!(error.kind(), Some(gst::ResourceError::NotFound));
}

#[test]
fn a_copy_is_said_once_on_the_bus_with_its_reason_and_a_remedy() {
    for (upstream, wanted) in [
        ("videotestsrc num-buffers=5 ! tee ! queue", Some("a tee")),
        ("audiotestsrc num-buffers=5", Some("set buffer-size")),
        ("videotestsrc num-buffers=5", None),
    ] {
        let line = UploadPipeline::new(upstream, MemoryKind::Normal);
        line.play();
        let bus = line.pipeline.bus().unwrap();
        let is_warning = [gst::MessageType::Warning];
        let warnings = std::iter::from_fn(|| bus.pop_filtered(&is_warning));
        let warnings: Vec<_> = warnings
            .map(|message| match message.view() {
                gst::MessageView::Warning(warning) => warning.error().message().to_owned(),
                _ => unreachable!(),
            })
            .collect();
        let expected = usize::from(wanted.is_some());
        assert_eq!(warnings.len(), expected, "{upstream}: {warnings:?}");
        let stats = line.upload.property::<gst::Structure>("stats");
        assert_eq!(stats.has_field("copy-reason"), wanted.is_some(), "{stats}");
        for warning in &warnings {
            let reason = stats.get::<String>("copy-reason").unwrap();
            assert!(warning.ends_with(&reason), "{warning}: {reason}");
            assert!(
                warning.starts_with("each buffer is copied once: "),
                "{warning}"
            );
            let wanted = wanted.unwrap_or_default();
            assert!(warning.contains(wanted), "{upstream}: {warning}");
        }
    }
}

#[test]
fn the_numbers_are_logged_when_the_elements_stop() {
    let mut launch = common::with_plugin("gst-launch-1.0");
    launch
        .args("rawvideosrc num-buffers=7 ! video/x-raw,format=GRAY8,width=64,height=48".split(' '))
        .args("! physmemupload kind=normal ! fakesink".split(' '))
        .env("GST_DEBUG", "rawvideosrc:4,physmemupload:4")
        .env("GST_DEBUG_NO_COLOR", "1");
    let output = launch.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let bytes = 7 * 64 * 48;
    for line in [
        &format!("frames 7, bytes {bytes}, dropped 0, bounced-bytes 0, "),
        "passed 7, copied 0, copied-bytes 0, dropped 0, path zero-copy: ",
    ] {
        assert_eq!(said.matches(line).count(), 1, "{line}: {said}");
    }
}

#[test]
fn caps_that_downstream_refuses_are_named_with_what_it_takes() {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(
        "appsrc name=src caps=video/x-raw,format=RGB,width=32,height=16,framerate=25/1 \
         ! identity name=before ! capsfilter name=after caps=video/x-raw,format=NV12 ! fakesink",
    );
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let [before, after] = ["before", "after"].map(|name| pipeline.by_name(name).unwrap());
    let upload = gst::glib::Object::new::<PhysMemUpload>();
    pipeline.add(&upload).unwrap();
    before.unlink(&after);
    gst::Element::link_many([&before, upload.upcast_ref(), &after]).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let src = pipeline.by_name("src").unwrap();
    let src = src.downcast::<gst_app::AppSrc>().unwrap();
    let _ = src.push_buffer(gst::Buffer::with_size(32 * 16 * 3).unwrap());
    let bus = pipeline.bus().unwrap();
    let from_upload = std::iter::from_fn(|| {
        let timeout = gst::ClockTime::from_seconds(60);
        bus.timed_pop_filtered(timeout, &[gst::MessageType::Error])
    })
    .next()
    .unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(
        from_upload.src(),
        Some(upload.upcast_ref()),
        "{from_upload:?}"
    );
    let gst::MessageView::Error(error) = from_upload.view() else {
        panic!("{from_upload:?}");
    };
    let said = error.error().to_string();
    for part in ["format=(string)RGB", "format=(string)NV12", "videoconvert"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_meta_that_does_not_fit_its_memory_is_an_error_and_no_crash() {
    type Change = fn(&mut gst_video::ffi::GstVideoMeta);
    let wrong: [(&str, Change); 5] = [
        ("no planes", |meta| meta.n_planes = 0),
        ("a hundred planes", |meta| meta.n_planes = 100),
        ("a far offset", |meta| meta.offset = [usize::MAX - 5; 4]),
        ("a long stride", |meta| meta.stride = [i32::MAX; 4]),
        ("a huge frame", |meta| {
            (meta.width, meta.height) = (u32::MAX, u32::MAX);
        }),
    ];
    gst::init().unwrap();
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Nv12, 64, 32)
        .build()
        .unwrap();
    for (name, change) in wrong {
        let line = UploadPipeline::new("appsrc name=a format=time", MemoryKind::Normal);
        let source = line.pipeline.by_name("a").unwrap();
        let source: gst_app::AppSrc = source.downcast().unwrap();
        source.set_caps(Some(&info.to_caps().unwrap()));
        let mut frame = gst::Buffer::with_size(info.size()).unwrap();
        let buffer = frame.get_mut().unwrap();
        gst_video::VideoMeta::add(
            buffer,
            gst_video::VideoFrameFlags::empty(),
            gst_video::VideoFormat::Nv12,
            64,
            32,
        )
        .unwrap();
        // SAFETY: the meta was just added to the buffer, which is ours alone.
        change(unsafe { &mut *gst_video::ffi::gst_buffer_get_video_meta(buffer.as_mut_ptr()) });
        line.pipeline.set_state(gst::State::Playing).unwrap();
        let _ = source.push_buffer(frame);
        let bus = line.pipeline.bus().unwrap();
        let error =
            bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Error]);
        let error = error.expect("an error");
        let gst::MessageView::Error(error) = error.view() else {
            panic!("{name}: {error:?}");
        };
        let headline = error.error().to_string();
        assert!(headline.contains("GstVideoMeta"), "{name}: {headline}");
    }
}
