// SPDX-License-Identifier: MPL-2.0
//! The framebuffers of the machine that the sink can use, as they are now.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use gst_video::VideoFormat;

use super::{CAT, formats, mode};
use crate::sys::fbdev::{self, FixScreeninfo, VarScreeninfo};

/// A framebuffer that the sink can show on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsableFramebuffer {
    /// The device node, such as /dev/fb0.
    pub path: PathBuf,
    /// The driver's name for itself, such as vkmsdrmfb.
    pub driver: String,
    pub width_px: u32,
    pub height_px: u32,
    /// The format of every frame.
    pub format: VideoFormat,
    /// Whether the sink can pan between several fb_pages. Otherwise it draws on the visible one.
    pub can_pan: bool,
}

/// The device nodes that exist, in the order in which the sink tries them.
pub(super) fn nodes() -> impl Iterator<Item = PathBuf> {
    (0..32)
        .map(|n| PathBuf::from(format!("/dev/fb{n}")))
        .filter(|path| path.exists())
}

/// Asks all framebuffers of the machine for their mode, which changes none of them. Those that the process may not
/// open, or that have no video format, are left out; the log says why.
pub(crate) fn usable() -> Vec<UsableFramebuffer> {
    let look = |path: PathBuf| match look_at(&path) {
        Ok(framebuffer) => Some(framebuffer),
        Err(why) => {
            gst::debug!(CAT, "{} is not listed: {why}", path.display());
            None
        }
    };
    nodes().filter_map(look).collect()
}

fn look_at(path: &Path) -> Result<UsableFramebuffer, String> {
    let ask = || {
        let fd = fbdev::open(path)?;
        Ok((
            fbdev::fscreeninfo(fd.as_fd())?,
            fbdev::vscreeninfo(fd.as_fd())?,
        ))
    };
    let (fix, var) = ask().map_err(|error| crate::sys::describe(&error))?;
    describe(path, &fix, &var)
}

fn describe(
    path: &Path,
    fix: &FixScreeninfo,
    var: &VarScreeninfo,
) -> Result<UsableFramebuffer, String> {
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
    Ok(UsableFramebuffer {
        path: path.to_owned(),
        driver: fix.driver(),
        width_px: var.xres,
        height_px: var.yres,
        format: formats::format_of(fix, var).map_err(|error| error.to_string())?,
        can_pan: mode::can_pan(fix, var),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fbdev::{Bitfield, FB_VISUAL_TRUECOLOR};

    #[test]
    fn a_framebuffer_is_described_by_what_the_driver_says() {
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
        let found = describe(Path::new("/dev/fb7"), &fix, &var).unwrap();
        let expected = UsableFramebuffer {
            path: "/dev/fb7".into(),
            driver: "testfb".into(),
            width_px: 640,
            height_px: 480,
            format: VideoFormat::Rgb16,
            can_pan: true,
        };
        assert_eq!(found, expected);
        let without_mode = FixScreeninfo {
            visual: 0,
            line_length: 0,
            ..fix
        };
        let found = describe(Path::new("/dev/fb7"), &without_mode, &var).unwrap();
        assert_eq!(found, expected);
        let palette = FixScreeninfo { visual: 3, ..fix };
        let why = describe(Path::new("/dev/fb7"), &palette, &var).unwrap_err();
        assert!(why.contains("palette"), "{why}");
    }

    #[test]
    fn a_file_that_is_no_framebuffer_is_left_out() {
        assert!(
            look_at(Path::new("/dev/null"))
                .unwrap_err()
                .contains("ENOTTY")
        );
        assert!(
            look_at(Path::new("/dev/no-such-fb"))
                .unwrap_err()
                .contains("ENOENT")
        );
    }
}
