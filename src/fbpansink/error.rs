// SPDX-License-Identifier: MPL-2.0
//! The errors of a framebuffer. Each message says what would help.
use super::formats::FormatError;
use crate::display::area::RenderRectangle;
use crate::sys::describe;
use std::io;
use std::path::PathBuf;

/// An error of the framebuffer or of the pool over it.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// `device` is not set, and no framebuffer that can be used was found.
    #[error("no usable framebuffer: {0}")]
    NoneUsable(String),
    #[error("cannot open {}: {}; {}", path.display(), describe(source), open_remedy(source))]
    Open { path: PathBuf, source: io::Error },
    #[error("{call} on {} failed: {}; {}", path.display(), describe(source), call_remedy(source))]
    Call {
        call: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("frames cannot be shown on {}: {source}", path.display())]
    Format { path: PathBuf, source: FormatError },
    /// The driver's numbers contradict each other.
    #[error("{} reports {smem_len} bytes of memory in lines of {line_length} for {xres}x{yres} pixels of {bits} bits: not one screenful; set a mode first (fbset)", path.display())]
    TooSmall {
        path: PathBuf,
        smem_len: u32,
        line_length: u32,
        xres: u32,
        yres: u32,
        bits: u32,
    },
    #[error("the mode of {} was changed by another program from {was} to {is}; stop that program or start this pipeline again", path.display())]
    ModeChanged {
        path: PathBuf,
        was: String,
        is: String,
    },
    /// `render-rectangle` does not overlap the screen.
    #[error("{rectangle} lies outside the screen of {width_px}x{height_px} pixels")]
    OutsideScreen {
        rectangle: RenderRectangle,
        width_px: u32,
        height_px: u32,
    },
    #[error("cannot start the thread that pans: {}; raise the limit of threads (ulimit -u), or free memory", describe(.0))]
    Thread(io::Error),
    /// A frame, or the row of black pixels, could not be mapped.
    #[error(
        "cannot copy the frame into its fb_page: {0}; the element before the sink makes such frames, or it got them so"
    )]
    Copy(String),
    /// The pool of fb_pages refused a configuration, or has no buffer for a fb_page.
    #[error("cannot set up the pool of fb_pages: {0}")]
    Pool(String),
}

fn open_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "run as a user of the group that owns it (usually `video`), or as root"
        }
        Some(libc::ENOENT | libc::ENOTDIR | libc::EISDIR | libc::ELOOP) => {
            "set the property `device` to an existing /dev/fb*, or load a framebuffer driver"
        }
        Some(libc::ENODEV | libc::ENXIO) => {
            "its driver is gone: load it, or set the property `device`"
        }
        Some(libc::EBUSY) => "another program has it for itself: end that one",
        Some(libc::EMFILE) => "raise the limit of open files (ulimit -n)",
        Some(libc::ENFILE) => "raise the system's limit of open files (sysctl fs.file-max)",
        Some(libc::ENOMEM) => "free memory",
        _ => "the kernel log may say more (dmesg)",
    }
}

fn call_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EBUSY) => {
            "another program is DRM master of this display (a compositor, Xorg, kmssink): stop it or leave its VT"
        }
        Some(libc::ENODEV | libc::EIO | libc::ENXIO) => {
            "the display was unplugged or its driver unloaded: plug it in and start again"
        }
        Some(libc::ENOTTY) => "it is no framebuffer: set the property `device` to a /dev/fb*",
        Some(libc::EINVAL) => {
            "the driver refuses it in this mode: set another (fbset), or fb-pages=1"
        }
        Some(libc::EPERM) => "the display is suspended or owned by another program",
        _ => "the kernel log may say more (dmesg)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_for_the_errno_that_was_met() {
        let said = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            let path = PathBuf::from("/dev/fb0");
            ScreenError::Open { path, source }.to_string()
        };
        for (errno, remedy) in [
            (libc::EACCES, "`video`"),
            (libc::ENOTDIR, "an existing /dev/fb*"),
            (libc::ENODEV, "its driver is gone"),
            (libc::EMFILE, "ulimit -n"),
            (libc::ENFILE, "fs.file-max"),
        ] {
            let said = said(errno);
            assert!(said.contains(remedy), "{said}");
            assert_eq!(
                said.contains("property `device`"),
                matches!(errno, libc::ENOTDIR | libc::ENODEV),
                "{said}"
            );
        }
    }
}
