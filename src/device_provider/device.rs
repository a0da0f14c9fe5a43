// SPDX-License-Identifier: MPL-2.0
//! The GstDevice of a display.

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::found::Found;

glib::wrapper! {
    pub struct DisplayDevice(ObjectSubclass<imp::DisplayDevice>)
        @extends gst::Device, gst::Object;
}

impl DisplayDevice {
    pub fn of(found: Found) -> gst::Device {
        let device: Self = glib::Object::builder()
            .property("display-name", &found.name)
            .property("device-class", "Video/Sink")
            .property("caps", &found.caps)
            .property("properties", &found.properties)
            .build();
        // The device is new, so nothing was set before.
        let _ = device.imp().found.set(found);
        device.upcast()
    }
}

mod imp {
    use std::sync::OnceLock;

    use super::*;
    use crate::device_provider::CAT;

    #[derive(Debug, Default)]
    pub struct DisplayDevice {
        pub found: OnceLock<Found>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for DisplayDevice {
        const NAME: &'static str = "GstPhysMemDisplayDevice";
        // Another copy of this library in the process has a type of this name: src/copies.rs.
        const ALLOW_NAME_CONFLICT: bool = true;
        type Type = super::DisplayDevice;
        type ParentType = gst::Device;
    }

    impl ObjectImpl for DisplayDevice {}
    impl GstObjectImpl for DisplayDevice {}

    impl DisplayDevice {
        fn found(&self) -> Result<&Found, gst::LoggableError> {
            let found = self.found.get();
            found.ok_or_else(|| gst::loggable_error!(CAT, "the device is of no display"))
        }
    }

    fn choose(element: &gst::Element, found: &Found) {
        for (property, value) in &found.settings {
            element.set_property(property, value);
        }
    }

    impl DeviceImpl for DisplayDevice {
        fn create_element(&self, name: Option<&str>) -> Result<gst::Element, gst::LoggableError> {
            let found = self.found()?;
            let element = gst::ElementFactory::make(found.element).name_if_some(name);
            let element = element
                .build()
                .map_err(|error| gst::loggable_error!(CAT, "{}: {error}", found.element))?;
            choose(&element, found);
            Ok(element)
        }

        fn reconfigure_element(&self, element: &gst::Element) -> Result<(), gst::LoggableError> {
            let found = self.found()?;
            let factory = element.factory();
            if factory.is_none_or(|factory| factory.name() != found.element) {
                let name = element.name();
                return Err(gst::loggable_error!(CAT, "{name} is no {}", found.element));
            }
            choose(element, found);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(element: &'static str) -> gst::Device {
        gst::init().unwrap();
        DisplayDevice::of(Found {
            name: "a display".into(),
            caps: gst::Caps::new_empty_simple("video/x-raw"),
            properties: gst::Structure::new_empty("display"),
            element,
            settings: vec![("location", "/dev/display7".into())],
        })
    }

    #[test]
    fn its_element_is_set_to_the_display() {
        let device = device("filesink");
        assert_eq!(device.display_name(), "a display");
        assert!(device.has_classes("Video/Sink"));
        let element = device.create_element(Some("mine")).unwrap();
        assert_eq!(element.name(), "mine");
        assert_eq!(element.property::<String>("location"), "/dev/display7");
        let other = gst::ElementFactory::make("filesink").build().unwrap();
        device.reconfigure_element(&other).unwrap();
        assert_eq!(other.property::<String>("location"), "/dev/display7");
        let wrong = gst::ElementFactory::make("fakesink").build().unwrap();
        assert!(device.reconfigure_element(&wrong).is_err());
    }

    #[test]
    fn an_element_that_does_not_exist_is_an_error() {
        assert!(device("no-such-element").create_element(None).is_err());
    }
}
