// SPDX-License-Identifier: MPL-2.0
//! What a framebuffer says of itself. Nothing on the screen changes.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use gst_video::VideoFormat;

use super::broken_pan::is_pan_broken;
use super::formats;
use super::mode::{can_pan, kernel_release, screenfuls};
use crate::sys::fbdev::{self, FixScreeninfo, VarScreeninfo};

/// A framebuffer as it is set up now. The sink may make room for more fb_pages when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Framebuffer {
    /// The device node, such as /dev/fb0.
    pub device: PathBuf,
    /// The driver's name for itself, such as vkmsdrmfb.
    pub driver: String,
    /// Width of the screen in pixels.
    pub width_px: u32,
    /// Height of the screen in lines.
    pub height_px: u32,
    /// Lines that the screen can be panned over.
    pub virtual_height_px: u32,
    /// Bits of a pixel.
    pub bits_per_pixel: u32,
    /// Bytes from one line to the next.
    pub stride_bytes: u32,
    /// Bytes of its memory.
    pub memory_bytes: u32,
    /// Screenfuls that fit into its memory; 0 if that cannot be told.
    pub fb_pages_that_fit: usize,
    /// Lines by which the driver can pan; 0 if it cannot.
    pub pan_step_px: u16,
    /// Whether the driver is known to accept pans and to show something else.
    pub is_pan_broken: bool,
    /// Whether the sink can pan between several fb_pages. Otherwise it draws on the visible one.
    pub can_pan: bool,
    /// The format of its pixels, or why the sink has none for it.
    pub format: Result<VideoFormat, String>,
}

impl Framebuffer {
    /// Opens the device and reads what it reports.
    ///
    /// # Errors
    /// The errno of open, FBIOGET_FSCREENINFO or FBIOGET_VSCREENINFO.
    pub fn inspect(device: &Path) -> io::Result<Self> {
        let fd = fbdev::open(device)?;
        let fix = fbdev::fscreeninfo(fd.as_fd())?;
        let var = fbdev::vscreeninfo(fd.as_fd())?;
        Ok(Self::new(device, &fix, &var, &kernel_release()))
    }

    fn new(device: &Path, fix: &FixScreeninfo, var: &VarScreeninfo, release: &str) -> Self {
        let fix = &match fix.line_length {
            // No mode was set since boot (cirrusfb, still in text mode), which the sink does. Only `var` says what the
            // mode will be.
            0 => FixScreeninfo {
                visual: fbdev::FB_VISUAL_TRUECOLOR,
                line_length: var.xres.saturating_mul(var.bits_per_pixel.div_ceil(8)),
                ..*fix
            },
            _ => *fix,
        };
        let driver = fix.driver();
        Self {
            device: device.to_owned(),
            width_px: var.xres,
            height_px: var.yres,
            virtual_height_px: var.yres_virtual,
            bits_per_pixel: var.bits_per_pixel,
            stride_bytes: fix.line_length,
            memory_bytes: fix.smem_len,
            fb_pages_that_fit: screenfuls(fix, var).unwrap_or(0),
            pan_step_px: fix.ypanstep,
            is_pan_broken: is_pan_broken(&driver, release),
            can_pan: can_pan(fix, var, release),
            format: formats::format_of(fix, var).map_err(|error| error.to_string()),
            driver,
        }
    }

    /// The screenfuls that the screen can be panned to as it is set up now; 0 if the driver reports no
    /// height.
    pub fn fb_pages(&self) -> usize {
        let pages = self.virtual_height_px.checked_div(self.height_px);
        pages.unwrap_or(0) as usize
    }

    /// Whether FBIO_WAITFORVSYNC works. Waits for one vertical blank, 100 ms at most.
    ///
    /// # Errors
    /// The errno of open.
    pub fn has_vsync(&self) -> io::Result<bool> {
        let fd = fbdev::open(&self.device)?;
        Ok(fbdev::wait_for_vsync(fd.as_fd()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fbdev::{Bitfield, FB_VISUAL_TRUECOLOR};

    fn found(fix: &FixScreeninfo, var: &VarScreeninfo) -> Framebuffer {
        Framebuffer::new(Path::new("/dev/fb7"), fix, var, "6.12.0")
    }

    /// A screen of RGB16, in memory for three of them.
    fn rgb16() -> (FixScreeninfo, VarScreeninfo) {
        let field = |offset, length| Bitfield {
            offset,
            length,
            msb_right: 0,
        };
        let fix = FixScreeninfo {
            visual: FB_VISUAL_TRUECOLOR,
            ypanstep: 1,
            smem_len: 3 * 640 * 480 * 2,
            line_length: 640 * 2,
            ..FixScreeninfo::with_id("testfb")
        };
        let var = VarScreeninfo {
            xres: 640,
            yres: 480,
            bits_per_pixel: 16,
            red: field(11, 5),
            green: field(5, 6),
            blue: field(0, 5),
            ..VarScreeninfo::default()
        };
        (fix, var)
    }

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
        let framebuffer = found(&fix, &var);
        assert_eq!(framebuffer.fb_pages(), 2);
        assert_eq!(framebuffer.fb_pages_that_fit, 3);
        assert!(framebuffer.is_pan_broken && !framebuffer.can_pan);
        let nothing = found(&FixScreeninfo::default(), &VarScreeninfo::default());
        assert_eq!((nothing.fb_pages(), nothing.fb_pages_that_fit), (0, 0));
        assert!(nothing.format.is_err());
    }

    #[test]
    fn a_framebuffer_without_a_mode_is_described_as_it_will_be() {
        let (fix, var) = rgb16();
        let with_mode = found(&fix, &var);
        assert_eq!(with_mode.driver, "testfb");
        assert_eq!(with_mode.format, Ok(VideoFormat::Rgb16));
        assert!(with_mode.can_pan);
        let without_mode = FixScreeninfo {
            visual: 0,
            line_length: 0,
            ..fix
        };
        assert_eq!(found(&without_mode, &var), with_mode);
    }

    #[test]
    fn a_palette_is_no_format() {
        let (fix, var) = rgb16();
        let palette = FixScreeninfo { visual: 3, ..fix };
        let why = found(&palette, &var).format.unwrap_err();
        assert!(why.contains("palette"), "{why}");
    }

    #[test]
    fn a_file_that_is_no_framebuffer_is_an_error() {
        let refused = Framebuffer::inspect(Path::new("/dev/null")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTTY));
        let absent = Framebuffer::inspect(Path::new("/dev/no-such-fb")).unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(libc::ENOENT));
    }
}
