// SPDX-License-Identifier: MPL-2.0
//! The open cards of this process. All sinks that show on a device share one open file, because a device
//! has only one open file as its master, and flip events and GEM handles belong to the open file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};

use drm::Device as _;

use super::device::Device;
use super::discovery::CardSnapshot;
use super::engine::Engine;
use super::opener::Opener;
use super::sysfs_card::SysfsCard;
use crate::locks::Mutex;
use crate::sys;
use crate::sys::open_file::is_same_open_file;
use crate::sys::sysfs::SysfsDevice;

/// An open DRM device and its scanout.
#[derive(Debug, Clone)]
pub struct Card {
    pub device: Arc<Device>,
    pub engine: Arc<Engine>,
}

/// The open devices with their engines. A device may outlive its engine, because a dumb buffer that
/// upstream keeps holds the device.
static OPEN: Mutex<Vec<(Weak<Device>, Weak<Engine>)>> = Mutex::new(Vec::new());

impl Card {
    /// Returns the card at a device node, and opens it unless this process has it open.
    ///
    /// A process that opens a card without a master becomes its master, and then neither the console nor
    /// programs on fbdev can show anything. So an open card is found by its device number, without opening
    /// it again, and a card that is opened gives up being master at once unless `keeps_master`.
    pub fn open(path: &str, opener: Opener, keeps_master: bool) -> io::Result<Self> {
        let number = rustix::fs::stat(path)?.st_rdev;
        let is_usable = |other: &Device| other.is_ours && !other.loan.is_over();
        if let Some(card) = find_open(|other| is_usable(other) && other.number() == Some(number)) {
            return card;
        }
        let (file, loan) = opener.open(path)?;
        let mut device = Device::new(file, path.to_owned(), true)?;
        device.loan = loan;
        if !keeps_master {
            device.give_up_master();
        }
        register(Arc::new(device))
    }

    /// The card behind an fd of the application's. Keeps a duplicate of the fd.
    pub fn adopt(fd: BorrowedFd<'_>) -> io::Result<Self> {
        if let Some(card) = find_open(|other| is_same_open_file(other.as_fd(), fd)) {
            return card;
        }
        let fd = fd.try_clone_to_owned()?;
        let path = SysfsDevice::of_fd(fd.as_fd())
            .filter(SysfsDevice::is_drm)
            .and_then(|device| device.name())
            .map_or_else(
                || "the file of the property fd".into(),
                |name| format!("/dev/dri/{name}"),
            );
        register(Arc::new(Device::new(fd, path, false)?))
    }

    /// A snapshot with the connectors probed, which only a master may do.
    pub fn probe(&self) -> CardSnapshot {
        let device = &self.device;
        let was_master = device.check_master().is_ok();
        if !was_master && device.may_become_master() {
            // If another program is master, this fails, and the snapshot has what was last known.
            let _ = device.acquire_master_lock();
        }
        let snapshot = self.snapshot(true);
        if !was_master {
            device.give_up_master();
        }
        snapshot
    }

    /// What the card has, and which planes sinks of this process use. `probe` asks the connectors for their
    /// displays again.
    pub fn snapshot(&self, probe: bool) -> CardSnapshot {
        let mut snapshot = self.device.snapshot(probe);
        let inner = self.engine.lock();
        for plane in &mut snapshot.kms_planes {
            plane.is_taken = inner.has_plane(plane.id);
        }
        let claimed = inner.claimed_connectors();
        drop(inner);
        for connector in &mut snapshot.connectors {
            let claim = claimed.iter().find(|(id, _)| *id == connector.id);
            connector.claimed = claim.map(|&(_, crtc)| crtc);
        }
        snapshot
    }
}

/// Opens cards. If there is only one, it is going to be used: then this process stays its master.
pub fn open_all(nodes: Vec<SysfsCard>, opener: Opener) -> Vec<Result<Card, Box<CardSnapshot>>> {
    let keeps_master = nodes.len() == 1;
    nodes
        .into_iter()
        .map(|node| {
            let path = node.path;
            Card::open(&path, opener, keeps_master).map_err(|error| {
                Box::new(CardSnapshot {
                    unusable: Some(format!(
                        "opening it: {}{}",
                        sys::describe(&error),
                        what_helps_opening(&error)
                    )),
                    device: path,
                    driver: "unknown".into(),
                    bus_id: "unknown".into(),
                    connectors: Vec::new(),
                    crtcs: Vec::new(),
                    kms_planes: Vec::new(),
                })
            })
        })
        .collect()
}

fn what_helps_opening(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            ", which root and the group that owns it (usually `video`) may, and seatd or logind for a session in the \
             foreground (session=libseat)"
        }
        Some(libc::EMFILE) => "; close some files, or raise the limit of open files (ulimit -n)",
        _ => "",
    }
}

fn find_open(is_it: impl Fn(&Device) -> bool) -> Option<io::Result<Card>> {
    // The Arcs are dropped after the lock is released, because dropping the last one closes the device.
    let open: Vec<_> = OPEN
        .lock()
        .iter()
        .filter_map(|(device, _)| device.upgrade())
        .collect();
    open.into_iter().find(|device| is_it(device)).map(register)
}

/// The card of an open device, with its engine if it has one, else with a new engine.
fn register(device: Arc<Device>) -> io::Result<Card> {
    let mut open = OPEN.lock();
    open.retain(|(device, _)| device.strong_count() > 0);
    let is_it = |known: &&mut (Weak<Device>, _)| known.0.as_ptr() == Arc::as_ptr(&device);
    let known = open.iter_mut().find(is_it);
    if let Some(engine) = known.as_ref().and_then(|(_, engine)| engine.upgrade()) {
        return Ok(Card { device, engine });
    }
    let engine = Arc::new(Engine::new(&device)?);
    match known {
        Some((_, known)) => *known = Arc::downgrade(&engine),
        None => open.push((Arc::downgrade(&device), Arc::downgrade(&engine))),
    }
    Ok(Card { device, engine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_cannot_be_opened_comes_with_what_helps() {
        for (errno, what) in [
            (libc::EACCES, "`video`"),
            (libc::EPERM, "`video`"),
            (libc::EMFILE, "ulimit -n"),
        ] {
            let said = what_helps_opening(&io::Error::from_raw_os_error(errno));
            assert!(said.contains(what), "{errno}: {said}");
        }
        assert_eq!(what_helps_opening(&io::ErrorKind::Other.into()), "");
    }
}
