// SPDX-License-Identifier: MPL-2.0
//! The connected displays for kmsflipsink.

use gst::prelude::*;

use super::found::Found;
use crate::kmsflipsink::KmsFlipSink;
use crate::kmsflipsink::displays::{self, ConnectedDisplay};

/// The displays that are connected now.
pub fn find() -> Vec<Found> {
    displays::connected().iter().map(display).collect()
}

fn display(display: &ConnectedDisplay) -> Found {
    let properties = gst::Structure::builder("kms-proplist")
        .field("device.api", "kms")
        .field("device.path", &display.device)
        .field_if_some("kms.driver", display.driver.as_ref())
        .field_if_some("kms.bus-id", display.bus_id.as_ref())
        .field("kms.connector", &display.connector)
        .field_if_some("kms.connector-id", display.connector_id)
        .field_if_some("kms.mode", display.modes.first())
        .build();
    let driver = display.driver.as_deref().unwrap_or("no driver");
    Found {
        name: format!("{} of {} ({driver})", display.connector, display.device),
        caps: caps(display.largest_px()),
        properties,
        element: "kmsflipsink",
        settings: vec![
            ("device", display.device.clone()),
            ("connector", display.connector.clone()),
        ],
    }
}

/// All that kmsflipsink may show on some card, up to the size of the largest mode. The planes of the card are not
/// known, because that would need an open card.
fn caps(largest_px: Option<(i32, i32)>) -> gst::Caps {
    let class = gst::glib::Class::<KmsFlipSink>::from_type(KmsFlipSink::static_type());
    let template = class.and_then(|class| class.pad_template("sink"));
    let mut caps = template.map_or_else(gst::Caps::new_any, |template| template.caps().clone());
    if let Some((width, height)) = largest_px {
        for structure in caps.make_mut().iter_mut() {
            structure.set("width", gst::IntRange::new(1, width));
            structure.set("height", gst::IntRange::new(1, height));
        }
    }
    caps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hdmi(modes: &[&str]) -> Found {
        gst::init().unwrap();
        display(&ConnectedDisplay {
            device: "/dev/dri/card1".into(),
            driver: Some("vc4-drm".into()),
            bus_id: None,
            connector: "HDMI-A-1".into(),
            connector_id: Some(33),
            modes: modes.iter().map(|mode| mode.to_string()).collect(),
        })
    }

    #[test]
    fn a_display_is_chosen_by_card_and_connector() {
        let found = hdmi(&["1920x1080", "1280x720"]);
        let settings = [("device", "/dev/dri/card1"), ("connector", "HDMI-A-1")];
        assert_eq!(
            found.settings,
            settings.map(|(name, value)| (name, value.to_owned()))
        );
        assert_eq!(found.name, "HDMI-A-1 of /dev/dri/card1 (vc4-drm)");
        assert_eq!(found.properties.get("kms.mode"), Ok("1920x1080"));
        assert_eq!(found.properties.get("kms.connector-id"), Ok(33));
        assert!(!found.properties.has_field("kms.bus-id"));
    }

    #[test]
    fn frames_may_be_as_large_as_the_largest_mode() {
        let of = |width: i32| {
            let caps = gst::Caps::builder("video/x-raw").field("format", "NV12");
            caps.field("width", width).field("height", 480).build()
        };
        let found = hdmi(&["1920x1080"]);
        assert!(found.caps.can_intersect(&of(1920)));
        assert!(!found.caps.can_intersect(&of(1921)));
        // No program has asked the connector for its modes yet.
        assert!(hdmi(&[]).caps.can_intersect(&of(8000)));
    }
}
