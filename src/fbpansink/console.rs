// SPDX-License-Identifier: MPL-2.0
//! The text console on the same framebuffer. It draws its cursor and the kernel's messages into fb_page 0. In
//! graphics mode it draws nothing, and redraws itself afterwards. The guard (`sys::vt_guard`) also makes the
//! kernel ask before it switches to another virtual terminal.
use super::CAT;
use crate::sys::console;
use crate::sys::fbdev::{self, VarScreeninfo};
use crate::sys::vt_guard::{Connection, PutBack, VtGuard};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Holds the console in the foreground in graphics mode until this is dropped.
pub struct Console(VtGuard);

impl Console {
    /// Sets the console in the foreground to graphics mode. `None` if it is not drawn on
    /// this framebuffer, belongs to another program, or this process may not set it; its
    /// cursor may then appear in frames. If this process dies, the console and the mode
    /// `original` are restored, unless `restore` is false and the last picture stays.
    pub fn quiet(
        framebuffer: BorrowedFd<'_>,
        original: &VarScreeninfo,
        restore: bool,
    ) -> Option<Self> {
        let (number, terminal) = terminal_on(framebuffer)?;
        let put_back = PutBack {
            framebuffer,
            var: *original,
            leaves: !restore,
        };
        let guard = VtGuard::take(terminal.as_fd(), c"fbpansink-vt", Some(put_back));
        match guard {
            Ok(Some(guard)) => {
                gst::info!(CAT, "tty{number} is in graphics mode until the sink stops");
                Some(Self(guard))
            }
            Ok(None) => {
                gst::info!(
                    CAT,
                    "tty{number} is another program's already, and left to it"
                );
                None
            }
            Err(e) => {
                gst::info!(
                    CAT,
                    "tty{number} may draw into frames ({e}); hide its cursor with: setterm --cursor off"
                );
                None
            }
        }
    }

    /// Leaves the console in graphics mode, because in text mode it would draw over the last picture.
    pub fn leave_quiet(&self) {
        self.0.leave();
    }

    /// The messages about switches between virtual terminals.
    pub fn connection(&self) -> Option<Connection> {
        self.0.connection().ok()
    }
}

/// The terminal in the foreground, if its console is drawn on this framebuffer.
fn terminal_on(framebuffer: BorrowedFd<'_>) -> Option<(u16, OwnedFd)> {
    let open = |path: PathBuf| match console::open(&path) {
        Ok(terminal) => Some(terminal),
        Err(e) => {
            gst::debug!(
                CAT,
                "{}: {e}; a console on this framebuffer may draw into frames",
                path.display()
            );
            None
        }
    };
    let foreground = open("/dev/tty0".into())?;
    let number = console::active(foreground.as_fd()).ok()?;
    let drawn_on = fbdev::con2fbmap(framebuffer, u32::from(number)).ok()??;
    let ours = rustix::fs::fstat(framebuffer).ok()?.st_rdev;
    if drawn_on != rustix::fs::minor(ours) {
        return None;
    }
    // Another sink locks the same file only if both open the terminal's own device node.
    Some((number, open(format!("/dev/tty{number}").into())?))
}
