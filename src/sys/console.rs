// SPDX-License-Identifier: MPL-2.0
//! The virtual terminal: include/uapi/linux/kd.h and vt.h.
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// These request codes predate those that contain size and direction.
mod raw {
    use super::{VtMode, VtStat};

    nix::ioctl_write_int_bad!(kdsetmode, 0x4b3a);
    nix::ioctl_read_bad!(kdgetmode, 0x4b3b, libc::c_int);
    nix::ioctl_read_bad!(vt_getmode, 0x5601, VtMode);
    nix::ioctl_write_ptr_bad!(vt_setmode, 0x5602, VtMode);
    nix::ioctl_read_bad!(vt_getstate, 0x5603, VtStat);
    nix::ioctl_write_int_bad!(vt_reldisp, 0x5605);
}

pub const KD_TEXT: libc::c_int = 0;
pub const KD_GRAPHICS: libc::c_int = 1;

/// The kernel switches to another terminal by itself.
pub const VT_AUTO: i8 = 0;
/// The kernel sends a signal to the process that set this mode, and waits for its answer.
pub const VT_PROCESS: i8 = 1;

/// The answer that allows a switch to another terminal.
pub const VT_GO: libc::c_int = 1;
/// The answer to the signal that this terminal is in the foreground again.
pub const VT_ACKACQ: libc::c_int = 2;

#[repr(C)]
#[derive(Default)]
struct VtStat {
    v_active: u16,
    v_signal: u16,
    v_state: u16,
}
const _: () = assert!(size_of::<VtStat>() == 6);

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VtMode {
    /// `VT_AUTO` or `VT_PROCESS`.
    pub mode: i8,
    pub waitv: i8,
    /// The signal that asks the process to release the screen.
    pub relsig: i16,
    /// The signal that says that the terminal is in the foreground again.
    pub acqsig: i16,
    pub frsig: i16,
}
const _: () = assert!(size_of::<VtMode>() == 8);

/// Opens a terminal without making it the controlling terminal.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)?;
    Ok(file.into())
}

/// The number of the virtual terminal that is the controlling terminal of this process, if it is one.
pub fn own_vt() -> Option<u16> {
    own_vt_of(&super::read_kernel_file("/proc/self/stat").ok()?)
}

/// The same by a text of /proc/PID/stat, whose seventh field is the device number of the controlling terminal.
fn own_vt_of(stat: &str) -> Option<u16> {
    const TTY_MAJOR: u64 = 4;
    /// Minors from 64 on are serial ports.
    const MAX_NR_CONSOLES: u64 = 63;
    // The second field, the command in parentheses, may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let device: u64 = fields.split_whitespace().nth(4)?.parse().ok()?;
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    let is_vt = major == TTY_MAJOR && (1..=MAX_NR_CONSOLES).contains(&minor);
    is_vt.then_some(minor as u16)
}

/// The number of the virtual terminal in the foreground.
pub fn active(fd: BorrowedFd<'_>) -> io::Result<u16> {
    let mut stat = VtStat::default();
    // SAFETY: `stat` has the size and layout the kernel writes.
    unsafe { raw::vt_getstate(fd.as_raw_fd(), &mut stat) }?;
    Ok(stat.v_active)
}

/// `KD_TEXT` or `KD_GRAPHICS`.
pub fn mode(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut mode: libc::c_int = KD_TEXT;
    // SAFETY: the kernel writes one int.
    unsafe { raw::kdgetmode(fd.as_raw_fd(), &mut mode) }?;
    Ok(mode)
}

pub fn set_mode(fd: BorrowedFd<'_>, mode: libc::c_int) -> io::Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    unsafe { raw::kdsetmode(fd.as_raw_fd(), mode) }?;
    Ok(())
}

pub fn vt_mode(fd: BorrowedFd<'_>) -> io::Result<VtMode> {
    let mut mode = VtMode::default();
    // SAFETY: `mode` has the size and layout the kernel writes.
    unsafe { raw::vt_getmode(fd.as_raw_fd(), &mut mode) }?;
    Ok(mode)
}

/// With `VT_PROCESS` the kernel sends its signals to the calling process.
pub fn set_vt_mode(fd: BorrowedFd<'_>, mode: &VtMode) -> io::Result<()> {
    // SAFETY: `mode` has the size and layout the kernel reads.
    unsafe { raw::vt_setmode(fd.as_raw_fd(), mode) }?;
    Ok(())
}

/// `VT_RELDISP`: answers one of the two signals by `VT_GO` or `VT_ACKACQ`.
pub fn reldisp(fd: BorrowedFd<'_>, answer: libc::c_int) -> io::Result<()> {
    // SAFETY: the argument is a number, not a pointer.
    unsafe { raw::vt_reldisp(fd.as_raw_fd(), answer) }?;
    Ok(())
}

/// Takes the file's advisory lock (flock), which is held until the last descriptor of this open file is
/// closed. Returns false if the lock is taken.
pub fn try_lock(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::flock(fd, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Follows which virtual terminal is in the foreground.
#[derive(Debug)]
pub struct ActiveVt(File);

impl ActiveVt {
    /// Fails on a machine without virtual terminals.
    pub fn open() -> io::Result<Self> {
        File::open("/sys/class/tty/tty0/active").map(Self)
    }

    /// Returns a name like "tty1". Reading it also arms the next POLLPRI.
    pub fn name(&mut self) -> io::Result<String> {
        let mut name = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut name)?;
        Ok(name.trim_end().to_owned())
    }
}

impl AsFd for ActiveVt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controlling_terminal_may_be_a_virtual_one() {
        let of =
            |device: &str| own_vt_of(&format!("77 (a) b) (c) S 1 77 77 {device} 77 4194304 0"));
        assert_eq!(of("1025"), Some(1)); // 4:1
        assert_eq!(of("1087"), Some(63));
        assert_eq!(of("1024"), None); // tty0 is the one in the foreground
        assert_eq!(of("1088"), None); // ttyS0
        assert_eq!(of("34817"), None); // 136:1, a pseudo terminal
        assert_eq!(of("0"), None);
        assert_eq!(own_vt_of(""), None);
    }
}
