// SPDX-License-Identifier: MPL-2.0
//! Access to the framebuffer without the code under test. struct fb_var_screeninfo
//! (include/uapi/linux/fb.h) is an array of forty words.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

const FBIOGET_VSCREENINFO: libc::c_ulong = 0x4600;
const FBIOPUT_VSCREENINFO: libc::c_ulong = 0x4601;
const KDSETMODE: libc::c_ulong = 0x4b3a;
const KDGETMODE: libc::c_ulong = 0x4b3b;
pub const KD_TEXT: libc::c_int = 0;
pub const KD_GRAPHICS: libc::c_int = 1;

/// Indices into the words of the structure.
pub const YRES: usize = 1;
pub const YRES_VIRTUAL: usize = 3;
pub const YOFFSET: usize = 5;
pub const BITS_PER_PIXEL: usize = 6;

pub type Var = [u32; 40];

pub struct Fb(File);

impl Fb {
    #[track_caller]
    pub fn open() -> Self {
        Self(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/fb0")
                .expect("/dev/fb0 opens"),
        )
    }

    #[track_caller]
    pub fn var(&self) -> Var {
        let mut var = [0; 40];
        // SAFETY: the buffer has 160 bytes, the size of the structure that the kernel writes.
        let rc = unsafe { libc::ioctl(self.0.as_raw_fd(), FBIOGET_VSCREENINFO as _, &raw mut var) };
        assert_eq!(rc, 0, "{}", io::Error::last_os_error());
        var
    }

    pub fn put(&self, var: &Var) -> io::Result<()> {
        let mut var = *var;
        // SAFETY: as in `var`.
        let rc = unsafe { libc::ioctl(self.0.as_raw_fd(), FBIOPUT_VSCREENINFO as _, &raw mut var) };
        if rc == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Sets another mode and returns the one before.
    #[track_caller]
    pub fn change(&self, change: impl FnOnce(&mut Var)) -> Var {
        let before = self.var();
        let mut wanted = before;
        change(&mut wanted);
        self.put(&wanted).expect("the mode is taken");
        before
    }
}

/// Whether the console in the foreground draws (`KD_TEXT`) or not (`KD_GRAPHICS`).
#[track_caller]
pub fn console_mode() -> libc::c_int {
    let tty = File::open("/dev/tty0").expect("a console");
    let mut mode = -1;
    // SAFETY: the kernel writes one int.
    let rc = unsafe { libc::ioctl(tty.as_raw_fd(), KDGETMODE as _, &raw mut mode) };
    assert_eq!(rc, 0, "{}", io::Error::last_os_error());
    mode
}

/// Whether the kernel switches away from the terminal in the foreground without asking a process:
/// the first byte of `struct vt_mode`.
#[track_caller]
pub fn switches_by_itself() -> bool {
    const VT_GETMODE: libc::c_ulong = 0x5601;
    let tty = File::open("/dev/tty0").expect("a console");
    let mut mode = [0u8; 8];
    // SAFETY: the buffer has eight bytes, the size of the structure.
    let rc = unsafe { libc::ioctl(tty.as_raw_fd(), VT_GETMODE as _, &raw mut mode) };
    assert_eq!(rc, 0, "{}", io::Error::last_os_error());
    mode[0] == 0
}

/// Puts the console in the foreground back into text mode.
#[track_caller]
pub fn wake_console() {
    let tty = File::open("/dev/tty0").expect("a console");
    // SAFETY: the argument is a number.
    let rc = unsafe { libc::ioctl(tty.as_raw_fd(), KDSETMODE as _, KD_TEXT as libc::c_ulong) };
    assert_eq!(rc, 0, "{}", io::Error::last_os_error());
}
