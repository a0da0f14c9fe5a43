// SPDX-License-Identifier: MPL-2.0
//! Framebuffers: /dev/fb*.

use std::path::Path;

use serde::Serialize;

use super::{Node, Root, describe};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Framebuffer {
    /// Such as fb0.
    pub name: String,
    /// The driver's name for itself.
    pub driver: Option<String>,
    /// `None` if there is no file in /dev.
    pub node: Option<Node>,
    pub report: Option<Report>,
    /// Why there is no report.
    pub error: Option<String>,
}

/// What the driver reports.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub width_px: u32,
    pub height_px: u32,
    pub virtual_height_px: u32,
    pub bits_per_pixel: u32,
    pub stride_bytes: u32,
    pub memory_bytes: u32,
    pub fb_pages: usize,
    pub fb_pages_that_fit: usize,
    pub pan_step_px: u16,
    pub is_pan_broken: bool,
    pub has_vsync: bool,
    /// GStreamer's name of the pixels' format.
    pub format: Option<String>,
    /// Why there is no format.
    pub format_error: Option<String>,
}

/// A driver of the kernel's console.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Console {
    /// Such as vtcon1.
    pub name: String,
    /// Such as "frame buffer device".
    pub driver: String,
    /// Whether it draws the virtual terminals.
    pub is_bound: bool,
}

impl Console {
    pub fn draws_on_framebuffers(&self) -> bool {
        self.is_bound && self.driver.contains("frame buffer")
    }
}

/// The console drivers of the machine.
pub fn consoles(root: &Root) -> Vec<Console> {
    const CLASS: &str = "sys/class/vtconsole";
    let names = root.names(CLASS).into_iter();
    names
        .filter_map(|name| {
            Some(Console {
                // "(M) frame buffer device": what is in parentheses says that it can be taken away.
                driver: root.text(format!("{CLASS}/{name}/name"))?,
                is_bound: root.text(format!("{CLASS}/{name}/bind")).as_deref() == Some("1"),
                name,
            })
        })
        .collect()
}

/// The framebuffers of the machine, without opening them.
pub fn list(root: &Root) -> Vec<Framebuffer> {
    let is_number = |rest: &str| rest.parse::<u32>().is_ok();
    let names = root.names("sys/class/graphics").into_iter();
    names
        .filter(|name| name.strip_prefix("fb").is_some_and(is_number))
        .map(|name| Framebuffer {
            driver: root.text(format!("sys/class/graphics/{name}/name")),
            node: root.node(&format!("dev/{name}")),
            name,
            ..Framebuffer::default()
        })
        .collect()
}

impl Framebuffer {
    /// Opens the device and adds what it reports. The screen does not change.
    pub fn inspect(&mut self) {
        let path = format!("/dev/{}", self.name);
        match gstphysmem::fbpansink::Framebuffer::inspect(Path::new(&path)) {
            Ok(found) => {
                let fb_pages = found.fb_pages();
                let has_vsync = found.has_vsync().unwrap_or(false);
                let (format, format_error) = match found.format {
                    Ok(format) => (Some(format.to_str().to_string()), None),
                    Err(error) => (None, Some(error)),
                };
                self.driver = Some(found.driver);
                self.report = Some(Report {
                    width_px: found.width_px,
                    height_px: found.height_px,
                    virtual_height_px: found.virtual_height_px,
                    bits_per_pixel: found.bits_per_pixel,
                    stride_bytes: found.stride_bytes,
                    memory_bytes: found.memory_bytes,
                    fb_pages,
                    fb_pages_that_fit: found.fb_pages_that_fit,
                    pan_step_px: found.pan_step_px,
                    is_pan_broken: found.is_pan_broken,
                    has_vsync,
                    format,
                    format_error,
                });
            }
            Err(error) => self.error = Some(describe(&error)),
        }
    }

    /// Whether the framebuffer is that of a DRM driver.
    pub fn is_of_drm(&self) -> bool {
        self.driver
            .as_ref()
            .is_some_and(|driver| driver.contains("drm"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn a_console_on_framebuffers_is_told_from_others() {
        let directory = tempfile::tempdir().unwrap();
        let class = "sys/class/vtconsole";
        record(
            directory.path(),
            &[
                (&format!("{class}/vtcon0/name"), "(S) dummy device\n"),
                (&format!("{class}/vtcon0/bind"), "1\n"),
                (&format!("{class}/vtcon1/name"), "(M) frame buffer device\n"),
                (&format!("{class}/vtcon1/bind"), "1\n"),
                (&format!("{class}/vtcon2/name"), "(M) frame buffer device\n"),
                (&format!("{class}/vtcon2/bind"), "0\n"),
            ],
        );
        let found = consoles(&Root::at(directory.path()));
        let drawing = found.iter().filter(|one| one.draws_on_framebuffers());
        let drawing: Vec<_> = drawing.map(|one| one.name.as_str()).collect();
        assert_eq!((found.len(), drawing), (3, vec!["vtcon1"]));
    }

    #[test]
    fn only_framebuffers_are_listed() {
        let directory = tempfile::tempdir().unwrap();
        record(
            directory.path(),
            &[
                ("sys/class/graphics/fb0/name", "vkmsdrmfb\n"),
                ("sys/class/graphics/fbcon/rotate", "0\n"),
                ("dev/fb0", ""),
            ],
        );
        let found = list(&Root::at(directory.path()));
        assert_eq!(found.len(), 1);
        assert!(found[0].is_of_drm() && found[0].node.is_some());
    }
}
