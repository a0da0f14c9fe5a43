// SPDX-License-Identifier: MPL-2.0
//! The virtual terminal: include/uapi/linux/kd.h and vt.h.
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const KDSETMODE: libc::c_ulong = 0x4b3a;
const KDGETMODE: libc::c_ulong = 0x4b3b;
const VT_GETMODE: libc::c_ulong = 0x5601;
const VT_SETMODE: libc::c_ulong = 0x5602;
const VT_GETSTATE: libc::c_ulong = 0x5603;
const VT_RELDISP: libc::c_ulong = 0x5605;

pub const KD_TEXT: libc::c_int = 0;
pub const KD_GRAPHICS: libc::c_int = 1;

/// The kernel switches away by itself.
pub const VT_AUTO: i8 = 0;
/// The kernel asks whoever set this, by a signal, and waits for the answer.
pub const VT_PROCESS: i8 = 1;

/// What is answered to a request to switch away: go.
pub const VT_GO: libc::c_int = 1;
/// What is answered to the word that it was switched back.
pub const VT_ACKACQ: libc::c_int = 2;

/// `struct vt_stat`
#[repr(C)]
#[derive(Default)]
struct VtStat {
    v_active: u16,
    v_signal: u16,
    v_state: u16,
}
const _: () = assert!(size_of::<VtStat>() == 6);

/// `struct vt_mode`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VtMode {
    /// `VT_AUTO` or `VT_PROCESS`.
    pub mode: i8,
    pub waitv: i8,
    /// The signal that asks to let the screen go.
    pub relsig: i16,
    /// The signal that says that it is back.
    pub acqsig: i16,
    pub frsig: i16,
}
const _: () = assert!(size_of::<VtMode>() == 8);

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
    number(fd, KDSETMODE, mode)
}

pub fn vt_mode(fd: BorrowedFd<'_>) -> io::Result<VtMode> {
    let mut mode = VtMode::default();
    // SAFETY: `mode` has the size and layout the kernel writes.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), VT_GETMODE as _, &raw mut mode) })?;
    Ok(mode)
}

/// With `VT_PROCESS` the signals go to the calling process.
pub fn set_vt_mode(fd: BorrowedFd<'_>, mode: &VtMode) -> io::Result<()> {
    // SAFETY: `mode` has the size and layout the kernel reads.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), VT_SETMODE as _, std::ptr::from_ref(mode)) })
}

/// Answers the kernel's request or word: `VT_GO` or `VT_ACKACQ`.
pub fn answer(fd: BorrowedFd<'_>, answer: libc::c_int) -> io::Result<()> {
    number(fd, VT_RELDISP, answer)
}

/// Takes the lock that a file has for those who care (flock), until the last
/// descriptor of the opened file is closed; false if somebody else has it.
pub fn try_lock(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: plain numbers.
    unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

fn number(fd: BorrowedFd<'_>, request: libc::c_ulong, number: libc::c_int) -> io::Result<()> {
    let number = libc::c_ulong::try_from(number).unwrap_or(0);
    // SAFETY: the argument is a number, not a pointer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request as _, number) })
}
