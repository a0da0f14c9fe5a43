// SPDX-License-Identifier: MPL-2.0
//! What a framebuffer says of itself, for programs that report it. Nothing on the screen changes.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::broken_pan::is_pan_broken;
use super::formats;
use super::mode::{kernel_release, screenfuls};
use crate::sys::fbdev::{self, FixScreeninfo, VarScreeninfo};

/// A framebuffer as it is set up now. The sink may make room for more fb_pages when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Framebuffer {
    /// The driver's name for itself.
    pub driver: String,
    /// Width of the screen in pixels.
    pub width_px: u32,
    /// Height of the screen in lines.
    pub height_px: u32,
    /// Lines that the screen can be panned over.
    pub virtual_height_px: u32,
    /// Bits of a pixel.
    pub bits_per_pixel: u32,
    /// Bytes from one line to the next. 0 before the driver's first mode is set.
    pub stride_bytes: u32,
    /// Bytes of its memory.
    pub memory_bytes: u32,
    /// Screenfuls that fit into its memory; 0 if that cannot be told.
    pub fb_pages_that_fit: usize,
    /// Lines by which the driver can pan; 0 if it cannot.
    pub pan_step_px: u16,
    /// Whether the driver is known to accept pans and to show something else.
    pub is_pan_broken: bool,
    /// GStreamer's name of the format of its pixels, or why the sink has none for it.
    pub format: Result<String, String>,
    /// Whether FBIO_WAITFORVSYNC works.
    pub has_vsync: bool,
}

impl Framebuffer {
    /// Opens the device and reads what it reports. Waits for one vertical blank, 100 ms at most.
    ///
    /// # Errors
    /// The errno of open, FBIOGET_FSCREENINFO or FBIOGET_VSCREENINFO.
    pub fn inspect(device: &Path) -> io::Result<Self> {
        let fd = fbdev::open(device)?;
        let fix = fbdev::fscreeninfo(fd.as_fd())?;
        let var = fbdev::vscreeninfo(fd.as_fd())?;
        let has_vsync = fbdev::wait_for_vsync(fd.as_fd()).is_ok();
        Ok(Self::new(&fix, &var, has_vsync, &kernel_release()))
    }

    fn new(fix: &FixScreeninfo, var: &VarScreeninfo, has_vsync: bool, release: &str) -> Self {
        let driver = fix.driver();
        Self {
            width_px: var.xres,
            height_px: var.yres,
            virtual_height_px: var.yres_virtual,
            bits_per_pixel: var.bits_per_pixel,
            stride_bytes: fix.line_length,
            memory_bytes: fix.smem_len,
            fb_pages_that_fit: screenfuls(fix, var).unwrap_or(0),
            pan_step_px: fix.ypanstep,
            is_pan_broken: is_pan_broken(&driver, release),
            format: formats::format_of(fix, var)
                .map(|format| format.to_str().to_string())
                .map_err(|error| error.to_string()),
            has_vsync,
            driver,
        }
    }

    /// The screenfuls that the screen can be panned to as it is set up now; 0 if the driver reports no
    /// height.
    pub fn fb_pages(&self) -> usize {
        let pages = self.virtual_height_px.checked_div(self.height_px);
        pages.unwrap_or(0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fb_pages_are_counted_in_whole_screens() {
        let fix = FixScreeninfo {
            line_length: 400,
            smem_len: 400 * 150 * 3 + 399,
            ypanstep: 1,
            ..FixScreeninfo::with_id("bochs-drmdrmfb")
        };
        let var = VarScreeninfo {
            xres: 100,
            yres: 150,
            yres_virtual: 449,
            bits_per_pixel: 32,
            ..Default::default()
        };
        let framebuffer = Framebuffer::new(&fix, &var, true, "6.12.0");
        assert_eq!(framebuffer.fb_pages(), 2);
        assert_eq!(framebuffer.fb_pages_that_fit, 3);
        assert!(framebuffer.is_pan_broken);
        let nothing = Framebuffer::new(
            &FixScreeninfo::default(),
            &VarScreeninfo::default(),
            false,
            "",
        );
        assert_eq!((nothing.fb_pages(), nothing.fb_pages_that_fit), (0, 0));
        assert!(nothing.format.is_err());
    }

    #[test]
    fn a_file_that_is_no_framebuffer_is_an_error() {
        let refused = Framebuffer::inspect(Path::new("/dev/null")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTTY));
    }
}
