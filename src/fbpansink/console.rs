// SPDX-License-Identifier: MPL-2.0
//! The text console on the same framebuffer: its cursor blinks into fb_page 0,
//! and the kernel's messages go there. In graphics mode it keeps quiet and
//! draws itself anew afterwards. In that mode the kernel asks before it switches to
//! another virtual terminal, and is answered (`sys::vt_guard`).
use super::CAT;
use crate::sys::console::{self, KD_TEXT, VT_AUTO, VtMode};
use crate::sys::fbdev::{self, VarScreeninfo};
use crate::sys::vt_guard::{self, Connection, PutBack, VtGuard};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Holds the console in the foreground in graphics mode until dropped.
pub struct Console(VtGuard);

impl Console {
    /// Quietens the console in the foreground if it is drawn on this framebuffer
    /// and this process may; `None` otherwise, which does no harm but the
    /// cursor's. Should this process die, it is put back, and `original` with it, unless
    /// the last picture is to stay (`restore` is false).
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
        // The lock tells a mode that a living sink has set from one that a killed one left.
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

    /// Lets what is on screen stay there: a console that wakes draws over it.
    pub fn leave_quiet(&self) {
        self.0.leave();
    }

    /// What the kernel tells of the terminal.
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
    // By its own name: locks are of the file.
    Some((number, open(format!("/dev/tty{number}").into())?))
}

/// Nobody else has set it to graphics mode, or asked to be asked; a sink that was
/// killed together with its guard may have.
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
