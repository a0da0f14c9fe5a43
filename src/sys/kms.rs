// SPDX-License-Identifier: MPL-2.0
//! What the `drm` crate does not give of `drm/drm.h` and of the kernel around
//! it: mappings of dumb buffers that outlive a borrow, whether two fds are one
//! open file, uevents, the active virtual terminal, fences of dma-bufs.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use drm::control::dumbbuffer::DumbBuffer;
use nix::errno::Errno;
use nix::sys::mman;
use rustix::fs::{FileType, major, minor};

/// A dumb buffer's memory, mapped read-write until dropped.
#[derive(Debug)]
pub struct DumbMapping {
    ptr: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; only the raw
// pointer is handed out.
unsafe impl Send for DumbMapping {}
// SAFETY: as above.
unsafe impl Sync for DumbMapping {}

impl DumbMapping {
    /// Maps all of `dumb`.
    pub fn new(card: &impl drm::control::Device, mut dumb: DumbBuffer) -> io::Result<Self> {
        let mut mapping = card.map_dumb_buffer(&mut dumb)?;
        let len_bytes = mapping.len();
        let ptr = NonNull::from(&mut *mapping).cast();
        // The crate's own type borrows the handle, which says nothing about the
        // mapping; munmap is ours from here on.
        std::mem::forget(mapping);
        Ok(Self { ptr, len_bytes })
    }

    /// First byte.
    pub fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl Drop for DumbMapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that map_dumb_buffer mapped; the owner of
        // this value answers for nobody using it any more.
        let _ = unsafe { mman::munmap(self.ptr.cast(), self.len_bytes) };
    }
}

/// Whether two fds of this process refer to one open file description: DRM
/// masters, GEM handles and events belong to that, not to the fd.
pub fn is_same_open_file(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    /// linux/kcmp.h
    const KCMP_FILE: libc::c_int = 0;
    let pid = std::process::id() as libc::c_long;
    // SAFETY: kcmp reads two fds of this process and touches no memory.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            pid,
            pid,
            KCMP_FILE,
            a.as_raw_fd() as libc::c_long,
            b.as_raw_fd() as libc::c_long,
        )
    };
    order == 0
}

/// Kernel events about DRM devices: `(ACTION, DEVNAME)`.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Listens to the kernel's own broadcasts; needs no privilege, but a network
    /// namespace that gets them.
    pub fn open() -> io::Result<Self> {
        /// The group of the kernel itself, not of udevd.
        const KERNEL_GROUP: u32 = 1;
        // SAFETY: plain system calls on an fd that is ours alone; the address is
        // a complete struct sockaddr_nl.
        unsafe {
            let fd = Errno::result(libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                libc::NETLINK_KOBJECT_UEVENT,
            ))?;
            let fd = OwnedFd::from_raw_fd(fd);
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = libc::AF_NETLINK as u16;
            address.nl_groups = KERNEL_GROUP;
            Errno::result(libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            ))?;
            Ok(Self(fd))
        }
    }

    /// The next event of the DRM subsystem; None when there is none now.
    pub fn next(&self) -> Option<DrmEvent> {
        let mut message = [0u8; 8192];
        loop {
            match nix::unistd::read(&self.0, &mut message) {
                Ok(0) => return None,
                Ok(n) => {
                    if let Some(event) = parse_uevent(&message[..n]) {
                        return Some(event);
                    }
                }
                // Overrun: something happened, it is not known what.
                Err(Errno::ENOBUFS) => return Some(DrmEvent::default()),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Something happened to a DRM device.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DrmEvent {
    /// "dri/card0"; empty if not known.
    pub device: String,
    /// Whether the device went away.
    pub is_removal: bool,
}

fn parse_uevent(message: &[u8]) -> Option<DrmEvent> {
    let mut event = DrmEvent::default();
    let mut is_drm = false;
    for field in message.split(|&byte| byte == 0) {
        match std::str::from_utf8(field).ok()?.split_once('=') {
            Some(("SUBSYSTEM", subsystem)) => is_drm = subsystem == "drm",
            Some(("DEVNAME", name)) => event.device = name.to_owned(),
            Some(("ACTION", action)) => event.is_removal = action == "remove",
            _ => {}
        }
    }
    is_drm.then_some(event)
}

/// Follows which virtual terminal is in the foreground.
#[derive(Debug)]
pub struct ActiveVt(File);

impl ActiveVt {
    /// An error where there are no virtual terminals.
    pub fn open() -> io::Result<Self> {
        File::open("/sys/class/tty/tty0/active").map(Self)
    }

    /// "tty1". Reading it also arms the next POLLPRI.
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

/// A character device as sysfs has it; found by its number, so without opening it.
#[derive(Debug, Clone)]
pub struct SysfsDevice(PathBuf);

impl SysfsDevice {
    /// That of a device node by its path.
    pub fn of_path(path: &str) -> Option<Self> {
        Self::of(&rustix::fs::stat(path).ok()?)
    }

    /// That of an open device node.
    pub fn of_fd(device: BorrowedFd<'_>) -> Option<Self> {
        Self::of(&rustix::fs::fstat(device).ok()?)
    }

    fn of(stat: &rustix::fs::Stat) -> Option<Self> {
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        let path = PathBuf::from(format!("/sys/dev/char/{major}:{minor}"));
        (is_device && path.exists()).then_some(Self(path))
    }

    /// Of the DRM subsystem.
    pub fn is_drm(&self) -> bool {
        base(&self.0.join("subsystem")).is_some_and(|name| name == "drm")
    }

    /// "card0".
    pub fn name(&self) -> Option<String> {
        base(&self.0)
    }

    /// The bus and address of the hardware: `pci:0000:00:02.0`.
    pub fn bus_id(&self) -> Option<String> {
        let hardware = self.0.join("device");
        let address = base(&hardware)?;
        Some(match base(&hardware.join("subsystem")) {
            Some(bus) => format!("{bus}:{address}"),
            None => address,
        })
    }

    /// The hardware's driver, or its own name where it has no driver.
    pub fn driver(&self) -> Option<String> {
        let hardware = self.0.join("device");
        base(&hardware.join("driver")).or_else(|| base(&hardware))
    }

    /// The connectors of a card by name, and what was last known of each:
    /// connected, disconnected or unknown.
    pub fn connectors(&self) -> Vec<(String, String)> {
        let prefix = format!("{}-", self.name().unwrap_or_default());
        let mut found: Vec<_> = std::fs::read_dir(&self.0)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
                Some((name.strip_prefix(&prefix)?.into(), status.trim().into()))
            })
            .collect();
        found.sort_unstable();
        found
    }
}

/// The last part of the path that a link leads to.
fn base(link: &Path) -> Option<String> {
    let target = std::fs::canonicalize(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// struct dma_buf_export_sync_file, Linux 6.0
#[repr(C)]
struct DmaBufExportSyncFile {
    flags: u32,
    fd: i32,
}
const _: () = assert!(size_of::<DmaBufExportSyncFile>() == 8);

mod raw {
    nix::ioctl_readwrite!(
        dma_buf_ioctl_export_sync_file,
        b'b',
        2,
        super::DmaBufExportSyncFile
    );
}

/// The fence after which `dma_buf` may be read; None if it may be read now, or
/// the kernel has no such call.
pub fn pending_write_fence(dma_buf: BorrowedFd<'_>) -> Option<OwnedFd> {
    const DMA_BUF_SYNC_READ: u32 = 1 << 0;
    let mut ready = [nix::poll::PollFd::new(
        dma_buf,
        nix::poll::PollFlags::POLLIN,
    )];
    if nix::poll::poll(&mut ready, nix::poll::PollTimeout::ZERO) != Ok(0) {
        return None;
    }
    let mut export = DmaBufExportSyncFile {
        flags: DMA_BUF_SYNC_READ,
        fd: -1,
    };
    // SAFETY: the fd is open for the call's time, and the struct is a whole
    // struct dma_buf_export_sync_file.
    unsafe { raw::dma_buf_ioctl_export_sync_file(dma_buf.as_raw_fd(), &mut export) }.ok()?;
    // SAFETY: the kernel made this fd for us, just now.
    (export.fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(export.fd) })
}

/// CLOCK_MONOTONIC, which flip events are stamped with.
pub fn monotonic_ns() -> u64 {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
        Ok(now) => now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64,
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_drm_uevents_are_seen() {
        let drm = b"change@/devices/x/drm/card0\0ACTION=change\0SUBSYSTEM=drm\0HOTPLUG=1\0DEVNAME=dri/card0\0";
        let event = DrmEvent {
            device: "dri/card0".into(),
            is_removal: false,
        };
        assert_eq!(parse_uevent(drm), Some(event));
        assert_eq!(
            parse_uevent(b"add@/devices/y\0ACTION=add\0SUBSYSTEM=net\0"),
            None
        );
        assert_eq!(parse_uevent(b"\xff\xfe"), None);
    }

    #[test]
    fn a_duplicate_is_the_same_open_file_and_another_open_is_not() {
        let a = File::open("/dev/null").unwrap();
        let b = a.try_clone().unwrap();
        let c = File::open("/dev/null").unwrap();
        assert!(is_same_open_file(a.as_fd(), b.as_fd()));
        assert!(!is_same_open_file(a.as_fd(), c.as_fd()));
    }
}
