// SPDX-License-Identifier: MPL-2.0
//! The text console on the same framebuffer: its cursor blinks into fb_page 0,
//! and the kernel's messages go there. In graphics mode it keeps quiet and
//! draws itself anew afterwards.
use super::CAT;
use crate::sys::{console, fbdev};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Holds the console in the foreground in graphics mode until dropped.
pub struct Console {
    terminal: OwnedFd,
    leave_quiet: bool,
}

impl Console {
    /// Quietens the console in the foreground if it is drawn on this framebuffer
    /// and this process may; `None` otherwise, which does no harm but the
    /// cursor's.
    pub fn quiet(framebuffer: BorrowedFd<'_>) -> Option<Self> {
        let terminal = match console::open(Path::new("/dev/tty0")) {
            Ok(terminal) => terminal,
            Err(e) => {
                gst::debug!(
                    CAT,
                    "/dev/tty0: {e}; a console on this framebuffer may draw into frames"
                );
                return None;
            }
        };
        let number = console::active(terminal.as_fd()).ok()?;
        let drawn_on = fbdev::con2fbmap(framebuffer, u32::from(number)).ok()??;
        let ours = nix::sys::stat::fstat(framebuffer).ok()?.st_rdev;
        if u64::from(drawn_on) != nix::sys::stat::minor(ours) {
            return None;
        }
        match console::mode(terminal.as_fd()).and_then(|mode| match mode {
            console::KD_TEXT => {
                console::set_mode(terminal.as_fd(), console::KD_GRAPHICS).map(|()| true)
            }
            _ => Ok(false), // someone else has quietened it, and will wake it
        }) {
            Ok(true) => {
                gst::info!(CAT, "tty{number} is in graphics mode until the sink stops");
                Some(Self {
                    terminal,
                    leave_quiet: false,
                })
            }
            Ok(false) => None,
            Err(e) => {
                gst::info!(
                    CAT,
                    "tty{number} may draw into frames (KDSETMODE: {e}); hide its cursor with: setterm --cursor off"
                );
                None
            }
        }
    }
}

impl Console {
    /// Lets what is on screen stay there: a console that wakes draws over it.
    pub fn leave_quiet(&mut self) {
        self.leave_quiet = true;
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if self.leave_quiet {
            return;
        }
        if let Err(e) = console::set_mode(self.terminal.as_fd(), console::KD_TEXT) {
            gst::warning!(CAT, "cannot put the console back into text mode: {e}");
        }
    }
}
