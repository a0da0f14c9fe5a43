// SPDX-License-Identifier: MPL-2.0
//! The virtual terminal: include/uapi/linux/kd.h and vt.h.
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const KDSETMODE: libc::c_ulong = 0x4b3a;
const KDGETMODE: libc::c_ulong = 0x4b3b;
const VT_GETSTATE: libc::c_ulong = 0x5603;

pub const KD_TEXT: libc::c_int = 0;
pub const KD_GRAPHICS: libc::c_int = 1;

/// `struct vt_stat`
#[repr(C)]
#[derive(Default)]
struct VtStat {
    v_active: u16,
    v_signal: u16,
    v_state: u16,
}
const _: () = assert!(size_of::<VtStat>() == 6);

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Opens a terminal without making it the controlling one.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)?;
    Ok(file.into())
}

/// The number of the virtual terminal in the foreground.
pub fn active(fd: BorrowedFd<'_>) -> io::Result<u16> {
    let mut stat = VtStat::default();
    // SAFETY: `stat` has the size and layout the kernel writes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), VT_GETSTATE as _, &raw mut stat) })?;
    Ok(stat.v_active)
}

/// `KD_TEXT` or `KD_GRAPHICS`.
pub fn mode(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut mode: libc::c_int = KD_TEXT;
    // SAFETY: the kernel writes one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), KDGETMODE as _, &raw mut mode) })?;
    Ok(mode)
}

pub fn set_mode(fd: BorrowedFd<'_>, mode: libc::c_int) -> io::Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    check(unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            KDSETMODE as _,
            libc::c_ulong::try_from(mode).unwrap_or(0),
        )
    })
}
