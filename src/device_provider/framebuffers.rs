// SPDX-License-Identifier: MPL-2.0
//! The framebuffers for fbpansink.

use super::found::Found;
use crate::fbpansink::framebuffers::{self, UsableFramebuffer};

/// The framebuffers that fbpansink can use now.
pub fn find() -> Vec<Found> {
    framebuffers::usable().iter().map(display).collect()
}

fn display(framebuffer: &UsableFramebuffer) -> Found {
    let path = framebuffer.path.to_string_lossy().into_owned();
    let size = (framebuffer.width_px as i32, framebuffer.height_px as i32);
    let caps = gst_video::VideoCapsBuilder::new()
        .format(framebuffer.format)
        .width_range(1..=size.0)
        .height_range(1..=size.1)
        .build();
    let properties = gst::Structure::builder("fbdev-proplist")
        .field("device.api", "fbdev")
        .field("device.path", &path)
        .field("fbdev.driver", &framebuffer.driver)
        .field("fbdev.mode", format!("{}x{}", size.0, size.1))
        .field("fbdev.pans", framebuffer.can_pan)
        .build();
    Found {
        name: format!("Framebuffer {path} ({})", framebuffer.driver),
        caps,
        properties,
        element: "fbpansink",
        settings: vec![("device", path)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framebuffer_takes_its_own_format_up_to_its_own_size() {
        gst::init().unwrap();
        let found = display(&UsableFramebuffer {
            path: "/dev/fb1".into(),
            driver: "testfb".into(),
            width_px: 640,
            height_px: 480,
            format: gst_video::VideoFormat::Rgb16,
            can_pan: true,
        });
        assert_eq!(found.settings, [("device", "/dev/fb1".to_owned())]);
        assert_eq!(found.properties.get("fbdev.mode"), Ok("640x480"));
        assert_eq!(found.properties.get("fbdev.pans"), Ok(true));
        let of = |format: &str, width: i32| {
            let caps = gst::Caps::builder("video/x-raw").field("format", format);
            caps.field("width", width).field("height", 480).build()
        };
        assert!(found.caps.can_intersect(&of("RGB16", 640)));
        assert!(found.caps.can_intersect(&of("RGB16", 320)));
        assert!(!found.caps.can_intersect(&of("RGB16", 641)));
        assert!(!found.caps.can_intersect(&of("BGRx", 640)));
    }
}
