// SPDX-License-Identifier: MPL-2.0
//! Kernel events of one subsystem (lib/kobject_uevent.c).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType};

#[derive(Debug)]
pub struct Uevents {
    fd: OwnedFd,
    subsystem: &'static str,
}

impl Uevents {
    /// Listens to the kernel's own broadcasts about a subsystem, such as `drm` or `graphics` (framebuffers).
    /// That needs no privilege, but a network namespace that receives them.
    pub fn open(subsystem: &'static str) -> io::Result<Self> {
        /// The group of the kernel's messages, not of udevd's.
        const KERNEL_GROUP: u32 = 1;
        let fd = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self { fd, subsystem })
    }

    /// The next event of the subsystem. `None` if there is none now.
    pub fn next(&self) -> Option<Uevent> {
        let mut message = [0u8; 8192];
        loop {
            match nix::unistd::read(&self.fd, &mut message) {
                Ok(0) => return None,
                Ok(n) => {
                    if let Some(event) = parse_uevent(&message[..n], self.subsystem) {
                        return Some(event);
                    }
                }
                // The queue overflowed, so any device may have had an event.
                Err(Errno::ENOBUFS) => return Some(Uevent::default()),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Uevent {
    /// A name like "dri/card0" or "fb0"; empty if not known.
    pub device: String,
    pub is_removal: bool,
    /// The id of the one DRM connector that the event is about; `None` if it may be about any.
    pub connector: Option<u32>,
    /// Whether the event is about DRM leases, and about no connector.
    pub is_lease: bool,
}

/// The event in a message of the kernel, if it is of the subsystem.
pub fn parse_uevent(message: &[u8], subsystem: &str) -> Option<Uevent> {
    let mut event = Uevent::default();
    let mut is_meant = false;
    for field in message.split(|&byte| byte == 0) {
        match std::str::from_utf8(field).ok()?.split_once('=') {
            Some(("SUBSYSTEM", its)) => is_meant = its == subsystem,
            Some(("DEVNAME", name)) => event.device = name.to_owned(),
            Some(("ACTION", action)) => event.is_removal = action == "remove",
            Some(("CONNECTOR", id)) => event.connector = id.parse().ok(),
            Some(("LEASE", _)) => event.is_lease = true,
            _ => {}
        }
    }
    is_meant.then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uevents_of_the_subsystem_are_seen() {
        let parse_uevent = |message: &[u8]| super::parse_uevent(message, "drm");
        let drm = b"change@/devices/x/drm/card0\0ACTION=change\0SUBSYSTEM=drm\0HOTPLUG=1\0DEVNAME=dri/card0\0";
        let event = Uevent {
            device: "dri/card0".into(),
            ..Uevent::default()
        };
        assert_eq!(parse_uevent(drm), Some(event));
        let of_one = b"ACTION=change\0SUBSYSTEM=drm\0HOTPLUG=1\0CONNECTOR=41\0PROPERTY=2\0";
        assert_eq!(parse_uevent(of_one).unwrap().connector, Some(41));
        let of_lease = b"ACTION=change\0SUBSYSTEM=drm\0LEASE=1\0";
        assert!(parse_uevent(of_lease).unwrap().is_lease);
        assert_eq!(
            parse_uevent(b"add@/devices/y\0ACTION=add\0SUBSYSTEM=net\0"),
            None
        );
        assert_eq!(parse_uevent(b"\xff\xfe"), None);
        let added = b"add@/devices/z/graphics/fb0\0ACTION=add\0SUBSYSTEM=graphics\0DEVNAME=fb0\0";
        assert_eq!(parse_uevent(added), None);
        let of_framebuffer = super::parse_uevent(added, "graphics").unwrap();
        assert_eq!(
            (of_framebuffer.device.as_str(), of_framebuffer.is_removal),
            ("fb0", false)
        );
    }
}
