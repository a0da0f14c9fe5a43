// SPDX-License-Identifier: MPL-2.0
//! The framebuffers for fbpansink.

use super::found::Found;
use crate::fbpansink::{Framebuffer, framebuffers};

/// The framebuffers that fbpansink can use now.
pub fn find() -> Vec<Found> {
    framebuffers::all()
        .filter_map(|one| display(&one))
        .collect()
}

/// `None` if GStreamer has no format for its pixels.
fn display(framebuffer: &Framebuffer) -> Option<Found> {
    let format = *framebuffer.format.as_ref().ok()?;
    let path = framebuffer.device.to_string_lossy().into_owned();
    let size = (framebuffer.width_px as i32, framebuffer.height_px as i32);
    let caps = gst_video::VideoCapsBuilder::new()
        .format(format)
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
    Some(Found {
        name: format!("Framebuffer {path} ({})", framebuffer.driver),
        caps,
        properties,
        element: "fbpansink",
        settings: vec![("device", path)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framebuffer_takes_its_own_format_up_to_its_own_size() {
        gst::init().unwrap();
        let framebuffer = Framebuffer {
            device: "/dev/fb1".into(),
            driver: "testfb".into(),
            width_px: 640,
            height_px: 480,
            virtual_height_px: 960,
            bits_per_pixel: 16,
            stride_bytes: 1280,
            memory_bytes: 2 * 640 * 480 * 2,
            fb_pages_that_fit: 2,
            pan_step_px: 1,
            is_pan_broken: false,
            can_pan: true,
            format: Ok(gst_video::VideoFormat::Rgb16),
        };
        let found = display(&framebuffer).unwrap();
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
        let palette = Framebuffer {
            format: Err("palette".into()),
            ..framebuffer
        };
        assert!(display(&palette).is_none());
    }
}
