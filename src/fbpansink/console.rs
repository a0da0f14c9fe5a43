// SPDX-License-Identifier: MPL-2.0
//! The text console on the same framebuffer. It draws its cursor and the kernel's messages into fb_page 0. In
//! graphics mode it draws nothing, and redraws itself afterwards. The guard (`sys::vt_guard`) also makes the
//! kernel ask before it switches to another virtual terminal.
use super::CAT;
use crate::sys::console::{self, KD_TEXT, VT_AUTO, VtMode};
use crate::sys::fbdev::{self, VarScreeninfo};
use crate::sys::vt_guard::{self, Connection, PutBack, VtGuard};
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
        let modes = console::mode(terminal.as_fd())
            .and_then(|mode| Ok((mode, console::vt_mode(terminal.as_fd())?)));
        let put_back = PutBack {
            var: *original,
            leaves: !restore,
        };
        // A living sink holds the lock. If a terminal is in our mode and not locked, a sink
        // that was killed left it so.
        let guard = modes.and_then(|(mode, vt_mode)| {
            let is_free = is_free(mode, &vt_mode) && console::try_lock(terminal.as_fd());
            is_free
                .then(|| VtGuard::start(terminal.as_fd(), framebuffer, &put_back))
                .transpose()
        });
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

/// Whether no other program has set the terminal to graphics mode or VT_PROCESS. What a
/// sink that was killed together with its guard left there does not count.
fn is_free(mode: libc::c_int, vt_mode: &VtMode) -> bool {
    vt_guard::is_ours(vt_mode) || (mode == KD_TEXT && vt_mode.mode == VT_AUTO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::console::{KD_GRAPHICS, VT_PROCESS};

    #[test]
    fn a_terminal_that_another_program_has_is_left_to_it() {
        let of_xorg = VtMode {
            mode: VT_PROCESS,
            relsig: 10,
            acqsig: 10,
            ..VtMode::default()
        };
        assert!(is_free(KD_TEXT, &VtMode::default()));
        assert!(!is_free(KD_GRAPHICS, &VtMode::default()));
        assert!(!is_free(KD_GRAPHICS, &of_xorg));
        assert!(!is_free(KD_TEXT, &of_xorg));
    }
}
