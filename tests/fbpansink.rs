// SPDX-License-Identifier: MPL-2.0
//! fbpansink as far as it needs no framebuffer. Tests with one are in tests/guest/fbpansink.

mod common;

use std::sync::Once;

use gst::prelude::*;

fn sink() -> gst::Element {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstphysmem::plugin_register_static().unwrap();
    });
    gst::ElementFactory::make("fbpansink").build().unwrap()
}

/// The errors that the sink posts when it fails to open the device.
fn errors_of_opening(sink: &gst::Element) -> Vec<String> {
    let bus = gst::Bus::new();
    sink.set_bus(Some(&bus));
    assert!(sink.set_state(gst::State::Ready).is_err());
    sink.set_state(gst::State::Null).unwrap();
    sink.set_bus(None);
    bus.iter()
        .filter_map(|message| match message.view() {
            gst::MessageView::Error(error) => Some(error.error().to_string()),
            _ => None,
        })
        .collect()
}

#[test]
fn the_factory_says_what_it_is() {
    let factory = sink().factory().unwrap();
    assert_eq!(factory.klass(), "Sink/Video");
    assert_eq!(factory.rank(), gst::Rank::NONE);
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let sink = sink();
    assert_eq!(sink.property::<Option<String>>("device"), None);
    assert_eq!(sink.property::<u32>("fb-pages"), 0);
    assert!(sink.property::<bool>("clear"));
    assert!(sink.property::<bool>("restore"));
    assert!(!sink.property::<bool>("enable-last-sample"));
    assert!(!sink.property::<bool>("post-presentation-messages"));
    assert!(sink.property::<bool>("qos"));
    let vsync = sink.property_value("vsync").serialize().unwrap();
    assert_eq!(vsync, "auto");
}

#[test]
fn render_rectangle_takes_four_integers_and_no_other() {
    let sink = sink();
    sink.set_property_from_str("render-rectangle", "<1, 2, 30, 40>");
    let numbers = || -> Vec<i32> {
        let array = sink.property::<gst::Array>("render-rectangle");
        array.iter().map(|value| value.get().unwrap()).collect()
    };
    assert_eq!(numbers(), [1, 2, 30, 40]);
    sink.set_property("render-rectangle", gst::Array::new([1i32, 2]));
    assert_eq!(numbers(), [1, 2, 30, 40]);
    sink.set_property("render-rectangle", gst::Array::new([0i32; 4]));
    assert_eq!(numbers(), [0; 4]);
}

#[test]
fn a_device_that_is_not_there_is_one_error_with_path_errno_and_remedy() {
    let sink = sink();
    sink.set_property("device", "/nonexistent/fb0");
    let errors = errors_of_opening(&sink);
    assert_eq!(
        errors,
        [
            "cannot open /nonexistent/fb0: No such file or directory (ENOENT); \
          set the property `device` to an existing /dev/fb*, or load a framebuffer driver"
        ]
    );
}

#[test]
fn a_device_that_is_no_framebuffer_is_one_error() {
    let sink = sink();
    sink.set_property("device", "/dev/null");
    let errors = errors_of_opening(&sink);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].starts_with("FBIOGET_VSCREENINFO on /dev/null failed: "),
        "{errors:?}"
    );
    assert!(
        errors[0]
            .ends_with("(ENOTTY); it is no framebuffer: set the property `device` to a /dev/fb*"),
        "{errors:?}"
    );
}

#[test]
fn stats_have_the_base_class_s_fields_too() {
    let stats = sink().property::<gst::Structure>("stats");
    for field in [
        "rendered",
        "dropped",
        "shown",
        "zero-copy",
        "copied",
        "repeated",
    ] {
        assert_eq!(stats.get::<u64>(field), Ok(0), "{field}");
    }
    assert_eq!(stats.get::<String>("path").unwrap(), "no frame yet");
}

#[test]
fn every_format_of_the_template_is_real_and_said_once() {
    let caps = sink().static_pad("sink").unwrap().pad_template_caps();
    let formats = caps
        .structure(0)
        .unwrap()
        .get::<gst::List>("format")
        .unwrap();
    let mut names: Vec<String> = formats.iter().map(|value| value.get().unwrap()).collect();
    assert!(names.len() > 20, "{names:?}");
    assert!(names.iter().all(|name| {
        gst_video::VideoFormat::from_string(name) != gst_video::VideoFormat::Unknown
    }));
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn a_player_without_a_window_can_use_it_as_a_video_overlay() {
    common::video_overlay::is_usable_without_a_window(&sink());
}
