// SPDX-License-Identifier: MPL-2.0
//! kmsflipsink as far as it needs no display. Tests with one are in tests/guest/kmsflipsink.

mod common;

use gst::prelude::*;
use gst_video::prelude::*;

fn sink() -> gst::Element {
    gst::init().unwrap();
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| gstphysmem::plugin_register_static().unwrap());
    gst::ElementFactory::make("kmsflipsink").build().unwrap()
}

/// The only error of a sink that cannot start.
fn start_error(sink: &gst::Element) -> glib::Error {
    let bus = gst::Bus::new();
    sink.set_bus(Some(&bus));
    assert!(sink.set_state(gst::State::Ready).is_err());
    let error = |message: gst::Message| match message.view() {
        gst::MessageView::Error(error) => error.error(),
        other => panic!("{other:?}"),
    };
    let first = error(
        bus.pop_filtered(&[gst::MessageType::Error])
            .expect("an error"),
    );
    assert!(
        bus.pop_filtered(&[gst::MessageType::Error]).is_none(),
        "one error is enough"
    );
    sink.set_bus(None);
    assert!(sink.set_state(gst::State::Null).is_ok());
    first
}

use gst::glib;

#[test]
fn it_is_a_video_sink_that_nobody_autoplugs() {
    let factory = sink().factory().unwrap();
    assert_eq!(factory.rank(), gst::Rank::NONE);
    assert_eq!(factory.metadata("klass"), Some("Sink/Video"));
    assert!(sink().is::<gst_video::VideoSink>());
}

#[test]
fn properties_keep_what_is_set() {
    let sink = sink();
    sink.set_property("connector", "HDMI-A-1");
    sink.set_property("mode", "1920x1080@59.94");
    sink.set_property("connector-id", 42i32);
    sink.set_property("render-rectangle", gst::Array::new([1i32, 2, 3, 4]));
    sink.set_property_from_str("rotate-method", "90r");
    sink.set_property_from_str("memory-kind", "udmabuf");
    sink.set_property(
        "plane-properties",
        gst::Structure::builder("p").field("alpha", 7i32).build(),
    );
    for name in ["variable-refresh", "tearing", "post-presentation-messages"] {
        assert!(!sink.property::<bool>(name), "{name}");
        sink.set_property(name, true);
        assert!(sink.property::<bool>(name), "{name}");
    }
    assert_eq!(
        sink.property::<Option<String>>("connector").as_deref(),
        Some("HDMI-A-1")
    );
    assert_eq!(sink.property::<String>("mode"), "1920x1080@59.94");
    assert_eq!(sink.property::<i32>("connector-id"), 42);
    let rectangle: Vec<i32> = sink
        .property::<gst::Array>("render-rectangle")
        .iter()
        .map(|number| number.get().unwrap())
        .collect();
    assert_eq!(rectangle, [1, 2, 3, 4]);
    assert_eq!(
        sink.property::<gst::Structure>("plane-properties")
            .get("alpha"),
        Ok(7i32)
    );
}

#[test]
fn restore_has_the_name_of_kmssink_too() {
    let sink = sink();
    assert!(sink.property::<bool>("restore"));
    let (tell, told) = std::sync::mpsc::channel();
    for name in ["restore", "restore-crtc"] {
        let tell = tell.clone();
        sink.connect_notify(Some(name), move |_, pspec| {
            tell.send(pspec.name().to_owned()).unwrap();
        });
    }
    for (set, other, value) in [
        ("restore-crtc", "restore", false),
        ("restore", "restore-crtc", true),
    ] {
        sink.set_property(set, value);
        assert_eq!(sink.property::<bool>(other), value);
        let mut names: Vec<String> = told.try_iter().collect();
        names.sort();
        assert_eq!(names, ["restore", "restore-crtc"]);
    }
}

#[test]
fn a_custom_rotation_is_warned_of() {
    let sink = sink();
    sink.set_property("device", "/dev/null");
    sink.set_property_from_str("rotate-method", "custom");
    let bus = gst::Bus::new();
    sink.set_bus(Some(&bus));
    assert!(sink.set_state(gst::State::Ready).is_err());
    let warning = bus.pop_filtered(&[gst::MessageType::Warning]);
    match warning.expect("a warning").view() {
        gst::MessageView::Warning(warning) => {
            let text = warning.error().to_string();
            assert!(text.contains("rotate-method=custom"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    sink.set_bus(None);
    assert!(sink.set_state(gst::State::Null).is_ok());
}

#[test]
fn a_mode_that_is_null_is_the_default() {
    let sink = sink();
    sink.set_property("mode", "preferred");
    sink.set_property("mode", None::<String>);
    assert_eq!(sink.property::<String>("mode"), "auto");
}

#[test]
fn a_render_rectangle_that_is_none_changes_nothing() {
    let sink = sink();
    sink.set_property("render-rectangle", gst::Array::new([1i32, 2, 3, 4]));
    sink.set_property("render-rectangle", gst::Array::new([1i32, 2]));
    assert_eq!(sink.property::<gst::Array>("render-rectangle").len(), 4);
    assert_eq!(
        sink.property::<gst::Array>("render-rectangle")[2].get(),
        Ok(3i32)
    );
    sink.set_property("render-rectangle", gst::Array::new([0i32, 0, 0, 0]));
    assert_eq!(
        sink.property::<gst::Array>("render-rectangle")[2].get(),
        Ok(0i32)
    );
}

#[test]
fn a_device_that_is_no_card_is_named_with_the_reason() {
    let sink = sink();
    sink.set_property("device", "/dev/null");
    let error = start_error(&sink);
    assert!(error.matches(gst::ResourceError::NotFound));
    assert!(
        error
            .message()
            .contains("/dev/null cannot be used: no DRM device"),
        "{error}"
    );
}

#[test]
fn a_device_that_does_not_exist_is_named_with_the_errno() {
    let sink = sink();
    sink.set_property("device", "/dev/dri/card99");
    let error = start_error(&sink);
    assert!(
        error.message().contains("/dev/dri/card99") && error.message().contains("ENOENT"),
        "{error}"
    );
}

#[test]
fn an_fd_that_is_not_open_is_an_error() {
    let sink = sink();
    sink.set_property("fd", 987_654i32);
    let error = start_error(&sink);
    assert!(error.message().contains("EBADF"), "{error}");
}

#[test]
fn a_mode_that_is_none_is_refused_before_anything_is_opened() {
    let sink = sink();
    sink.set_property("mode", "huge");
    let error = start_error(&sink);
    assert!(error.matches(gst::ResourceError::Settings));
    assert!(error.message().contains("\"huge\" is no mode"), "{error}");
}

#[test]
fn the_template_has_no_format_that_drm_cannot_name() {
    let caps = sink().static_pad("sink").unwrap().pad_template_caps();
    let formats = caps
        .structure(caps.size() - 1)
        .unwrap()
        .get::<gst::List>("format")
        .unwrap();
    let names: Vec<&str> = formats.iter().map(|name| name.get().unwrap()).collect();
    for expected in ["BGRx", "RGB16", "NV12", "I420", "P010_10LE", "YUY2"] {
        assert!(names.contains(&expected), "{expected}");
    }
    assert!(!names.contains(&"v210"));
}

#[test]
fn a_player_without_a_window_can_use_it_as_a_video_overlay() {
    common::video_overlay::is_usable_without_a_window(&sink());
}

#[test]
fn video_direction_is_another_name_of_rotate_method() {
    use gst_video::VideoOrientationMethod as Method;
    let sink = sink();
    let direction = glib::Type::from_name("GstVideoDirection").unwrap();
    assert!(sink.type_().is_a(direction));
    let (sender, notified) = std::sync::mpsc::channel();
    sink.connect_notify(None, move |_, property| {
        sender.send(property.name().to_string()).unwrap();
    });
    for (set, read) in [
        ("video-direction", "rotate-method"),
        ("rotate-method", "video-direction"),
    ] {
        sink.set_property(set, Method::_180);
        assert_eq!(sink.property::<Method>(read), Method::_180);
        sink.set_property(read, Method::Identity);
    }
    let mut names: Vec<String> = notified.try_iter().collect();
    assert_eq!(names.len(), 8, "{names:?}");
    names.sort();
    names.dedup();
    assert_eq!(names, ["rotate-method", "video-direction"]);
}

#[test]
fn the_display_has_no_size_before_there_is_one() {
    let sink = sink();
    for name in ["display-width", "display-height"] {
        assert_eq!(sink.property::<i32>(name), 0);
    }
}

/// Playbin then balances colours in software (playsink looks for an element with all four channels).
#[test]
fn a_sink_without_a_display_has_no_colour_to_balance() {
    let sink = sink();
    let balance = sink.dynamic_cast_ref::<gst_video::ColorBalance>().unwrap();
    assert_eq!(
        balance.balance_type(),
        gst_video::ColorBalanceType::Hardware
    );
    assert!(balance.list_channels().is_empty());
    let foreign: gst_video::ColorBalanceChannel = glib::Object::new();
    balance.set_value(&foreign, 5); // has no label
    assert_eq!(balance.value(&foreign), 0);
}

/// An application that answers in a sync handler of the bus passes its card before the sink looks for one.
#[test]
fn an_application_passes_its_card_by_a_context() {
    use std::os::fd::AsRawFd;

    const TYPE: &str = "physmem.drm.device";
    let no_card = std::fs::File::open("/dev/null").unwrap();
    let context_of = |fd: i32| {
        let mut context = gst::Context::new(TYPE, true);
        let structure = context.get_mut().unwrap().structure_mut();
        structure.set("fd", fd);
        context
    };
    let sink = sink();
    let bus = gst::Bus::new();
    sink.set_bus(Some(&bus));
    let context = context_of(no_card.as_raw_fd());
    let weak = sink.downgrade();
    bus.set_sync_handler(move |_, message| {
        if let gst::MessageView::NeedContext(need) = message.view()
            && need.context_type() == TYPE
            && let Some(sink) = weak.upgrade()
        {
            sink.set_context(&context);
        }
        gst::BusSyncReply::Pass
    });
    assert!(sink.set_state(gst::State::Ready).is_err());
    let text = |message: gst::Message| match message.view() {
        gst::MessageView::Error(error) => error.error().to_string(),
        other => format!("{other:?}"),
    };
    let said = text(bus.pop_filtered(&[gst::MessageType::Error]).unwrap());
    assert!(
        said.contains("no DRM device") && said.contains("ENOTTY"),
        "{said}"
    );
    assert!(sink.set_state(gst::State::Null).is_ok());
    // The property comes first, and then the sink asks for nothing.
    bus.unset_sync_handler();
    bus.set_flushing(true);
    bus.set_flushing(false);
    sink.set_property("fd", 987_654i32);
    assert!(sink.set_state(gst::State::Ready).is_err());
    let wanted = [gst::MessageType::NeedContext, gst::MessageType::Error];
    let first = text(bus.pop_filtered(&wanted).unwrap());
    assert!(first.contains("EBADF"), "{first}");
    sink.set_bus(None);
    assert!(sink.set_state(gst::State::Null).is_ok());
}
