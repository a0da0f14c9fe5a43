// SPDX-License-Identifier: MPL-2.0
//! An open DRM device: shared by all sinks of this process that show on it,
//! because only one open file of a process can be master, and flip events and
//! GEM handles belong to the open file.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Weak};

use drm::buffer::Handle as GemName;
use drm::control::{
    self, AtomicCommitFlags, Device as _, Mode, ModeFlags, ModeTypeFlags, ResourceHandle,
    connector, crtc, plane, property,
};
use drm::{ClientCapability, Device as _, DriverCapability};
use parking_lot::Mutex;

use super::discovery::{CardSnapshot, Connector, KmsPlane, PlaneKind, Plugged};
use super::engine::Engine;
use super::mode::ModeLine;
use super::outside::Outside;
use crate::refresh;
use crate::sys;
use crate::sys::open_file::is_same_open_file;
use crate::sys::sysfs::SysfsDevice;

/// An open DRM device.
#[derive(Debug)]
pub struct Card {
    fd: OwnedFd,
    /// /dev/dri/card0.
    pub path: String,
    /// The driver's name.
    pub driver: String,
    bus_id: String,
    /// Why it cannot be used, if so.
    unusable: Option<String>,
    /// Opened here, and not given by the application.
    pub is_ours: bool,
    /// How often each GEM handle is in use. The kernel gives the same handle for
    /// the same memory without counting, so making and closing one must not
    /// cross: this lock is held over those ioctls, and nothing else is locked
    /// meanwhile.
    pub(super) gem_names: Mutex<HashMap<GemName, usize>>,
    /// Takes dma-bufs of others.
    pub can_import: bool,
    /// Gives dma-bufs of its own.
    pub(super) can_export: bool,
    /// Framebuffers may carry a modifier.
    pub has_modifiers: bool,
    /// The scanout of this card.
    pub engine: Engine,
}

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
impl drm::Device for Card {}
impl control::Device for Card {}

static OPEN_CARDS: Mutex<Vec<Weak<Card>>> = Mutex::new(Vec::new());

impl Card {
    /// Finds a device node open, or opens it.
    ///
    /// Whoever opens a card that has no master becomes it, and then the console and
    /// fbdev's programs cannot show anything: so it is not opened to find out whether it
    /// is open, and given up at once unless `keeps_master`.
    pub fn open(path: &str, keeps_master: bool) -> io::Result<Arc<Self>> {
        let number = rustix::fs::stat(path)?.st_rdev;
        if let Some(card) = find_open(|other| other.is_ours && other.number() == Some(number)) {
            return Ok(card);
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)?;
        let card = Self::new(file.into(), path.to_owned(), true)?;
        if !keeps_master {
            // EINVAL: another program is master.
            let _ = card.release_master_lock();
        }
        Ok(register(card))
    }

    /// Its device number.
    fn number(&self) -> Option<u64> {
        rustix::fs::fstat(&self.fd).ok().map(|stat| stat.st_rdev)
    }

    /// Uses an fd that the application keeps; its own duplicate of it.
    pub fn adopt(fd: BorrowedFd<'_>) -> io::Result<Arc<Self>> {
        if let Some(card) = find_open(|other| is_same_open_file(other.as_fd(), fd)) {
            return Ok(card);
        }
        let fd = fd.try_clone_to_owned()?;
        let path = SysfsDevice::of_fd(fd.as_fd())
            .filter(SysfsDevice::is_drm)
            .and_then(|device| device.name())
            .map_or_else(
                || "the file of the property fd".into(),
                |name| format!("/dev/dri/{name}"),
            );
        Ok(register(Self::new(fd, path, false)?))
    }

    fn new(fd: OwnedFd, path: String, is_ours: bool) -> io::Result<Self> {
        let mut card = Self {
            bus_id: SysfsDevice::of_fd(fd.as_fd())
                .and_then(|device| device.bus_id())
                .unwrap_or_default(),
            fd,
            path,
            driver: String::new(),
            unusable: None,
            is_ours,
            gem_names: Mutex::default(),
            can_import: false,
            can_export: false,
            has_modifiers: false,
            engine: Engine::new()?,
        };
        card.unusable = card.identify().err();
        Ok(card)
    }

    fn identify(&mut self) -> Result<(), String> {
        const PRIME_IMPORT: u64 = 1;
        const PRIME_EXPORT: u64 = 2;
        let driver = self
            .get_driver()
            .map_err(|e| format!("no DRM device: {}", sys::describe(&e)))?;
        self.driver = driver.name().to_string_lossy().into_owned();
        let prime = self
            .get_driver_capability(DriverCapability::Prime)
            .unwrap_or(0);
        self.can_import = prime & PRIME_IMPORT != 0;
        self.can_export = prime & PRIME_EXPORT != 0;
        self.has_modifiers = self
            .get_driver_capability(DriverCapability::AddFB2Modifiers)
            .is_ok_and(|value| value == 1);
        let universal = self.set_client_capability(ClientCapability::UniversalPlanes, true);
        universal
            .and_then(|()| self.set_client_capability(ClientCapability::Atomic, true))
            .map_err(|_| "its driver has no atomic modesetting; kmssink may work".to_owned())
    }

    /// What the card has, with its displays asked again: only a master may do that.
    pub fn probe(&self) -> CardSnapshot {
        let was_master = self.check_master().is_ok();
        if !was_master && self.is_ours {
            // Refused where another is master: then it is as was last known.
            let _ = self.acquire_master_lock();
        }
        let snapshot = self.snapshot(true);
        if !was_master && self.is_ours {
            let _ = self.release_master_lock();
        }
        snapshot
    }

    /// What the card has. `probe` asks the displays again.
    pub fn snapshot(&self, probe: bool) -> CardSnapshot {
        let mut snapshot = CardSnapshot {
            device: self.path.clone(),
            driver: self.driver.clone(),
            bus_id: self.bus_id.clone(),
            unusable: self.unusable.clone(),
            connectors: Vec::new(),
            crtcs: Vec::new(),
            kms_planes: Vec::new(),
        };
        if snapshot.unusable.is_none()
            && let Err(error) = self.read_resources(probe, &mut snapshot)
        {
            snapshot.unusable = Some(format!("reading its resources: {}", sys::describe(&error)));
        }
        snapshot
    }

    fn read_resources(&self, probe: bool, into: &mut CardSnapshot) -> io::Result<()> {
        let resources = self
            .resource_handles()
            .map_err(|error| match error.raw_os_error() {
                // A render-only device.
                Some(libc::EOPNOTSUPP | libc::EINVAL) => io::Error::other("it drives no display"),
                _ => error,
            })?;
        into.crtcs = resources.crtcs().iter().map(|&crtc| crtc.into()).collect();
        for &handle in resources.connectors() {
            let info = self.get_connector(handle, probe)?;
            if info.interface() != connector::Interface::Writeback {
                into.connectors.push(self.read_connector(&info, &resources));
            }
        }
        for handle in self.plane_handles()? {
            let info = self.get_plane(handle)?;
            let props = self.props(handle)?;
            into.kms_planes.push(KmsPlane {
                id: handle.into(),
                kind: match props.value("type") {
                    Some(1) => PlaneKind::Primary,
                    Some(2) => PlaneKind::Cursor,
                    _ => PlaneKind::Overlay,
                },
                possible_crtcs: crtc_bits(&resources, info.possible_crtcs()),
                fourccs: info.formats().to_vec(),
                is_taken: self.engine.has_plane(handle.into()),
            });
        }
        Ok(())
    }

    fn read_connector(
        &self,
        info: &connector::Info,
        resources: &control::ResourceHandles,
    ) -> Connector {
        let possible_crtcs = info
            .encoders()
            .iter()
            .filter_map(|&encoder| self.get_encoder(encoder).ok())
            .fold(0, |bits, encoder| {
                bits | crtc_bits(resources, encoder.possible_crtcs())
            });
        let crtc = self
            .props(info.handle())
            .ok()
            .and_then(|props| props.value("CRTC_ID"));
        Connector {
            id: info.handle().into(),
            name: info.to_string(),
            plugged: plugged(info.state()),
            modes: info.modes().iter().map(mode_line).collect(),
            possible_crtcs,
            crtc: crtc.map(|id| id as u32).filter(|&id| id != 0),
        }
    }

    /// The properties of an object.
    pub fn props<T: ResourceHandle>(&self, object: T) -> io::Result<Props> {
        let mut by_name = HashMap::new();
        for (&handle, &value) in self.get_properties(object)?.iter() {
            let info = self.get_property(handle)?;
            by_name.insert(info.name().to_string_lossy().into_owned(), (info, value));
        }
        Ok(Props(by_name))
    }

    /// A property blob that holds a mode.
    pub fn mode_blob(&self, mode: &Mode) -> io::Result<u64> {
        Ok(self.create_property_blob(mode)?.into())
    }

    /// Whether commits would be taken from us now. Costs one empty TEST_ONLY
    /// commit, which only a master may make.
    pub fn check_master(&self) -> io::Result<()> {
        self.atomic_commit(
            AtomicCommitFlags::TEST_ONLY,
            control::atomic::AtomicModeReq::new(),
        )
    }
}

#[cfg(test)]
impl Card {
    /// No device at all: each ioctl fails.
    pub fn blank() -> Arc<Self> {
        let file = std::fs::File::open("/dev/null").unwrap();
        let card = Self::new(file.into(), "/dev/null".into(), true).unwrap();
        Arc::new(Self {
            can_import: true,
            ..card
        })
    }
}

/// The cards of the machine as seen without opening them.
pub fn nodes(device: Option<&str>) -> Vec<Outside> {
    let paths = match device {
        Some(path) => vec![path.to_owned()],
        None => card_nodes(Path::new("/dev/dri")),
    };
    let look = |path: String| match SysfsDevice::of_path(&path) {
        Some(device) => Outside {
            path,
            bus_id: device.bus_id(),
            driver: device.driver(),
            connectors: device
                .connectors()
                .into_iter()
                .map(|(name, status)| (name, status == "disconnected"))
                .collect(),
        },
        None => Outside {
            path,
            ..Outside::default()
        },
    };
    paths.into_iter().map(look).collect()
}

/// Opens cards, or finds them open. The only one is to be used, and not just looked at:
/// it stays ours if it was nobody's.
pub fn open_all(nodes: Vec<Outside>) -> Vec<Result<Arc<Card>, Box<CardSnapshot>>> {
    let keeps_master = nodes.len() == 1;
    nodes
        .into_iter()
        .map(|node| {
            let path = node.path;
            Card::open(&path, keeps_master).map_err(|error| {
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
            ", which root and the group that owns it (usually `video`) may"
        }
        Some(libc::EMFILE) => "; close some files, or raise the limit of open files (ulimit -n)",
        _ => "",
    }
}

fn card_nodes(directory: &Path) -> Vec<String> {
    let number = |name: &str| name.strip_prefix("card")?.parse::<u32>().ok();
    let mut nodes: Vec<(u32, String)> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((
                number(entry.file_name().to_str()?)?,
                entry.path().to_str()?.to_owned(),
            ))
        })
        .collect();
    nodes.sort_unstable();
    nodes.into_iter().map(|(_, path)| path).collect()
}

fn find_open(is_it: impl Fn(&Card) -> bool) -> Option<Arc<Card>> {
    // The Arcs are dropped after the lock: the last one closes the device.
    let open: Vec<_> = OPEN_CARDS.lock().iter().filter_map(Weak::upgrade).collect();
    open.into_iter().find(|card| is_it(card))
}

fn register(card: Card) -> Arc<Card> {
    let card = Arc::new(card);
    let mut cards = OPEN_CARDS.lock();
    cards.retain(|card| card.strong_count() > 0);
    cards.push(Arc::downgrade(&card));
    card
}

fn crtc_bits(resources: &control::ResourceHandles, filter: control::CrtcListFilter) -> u32 {
    let possible = resources.filter_crtcs(filter);
    resources
        .crtcs()
        .iter()
        .enumerate()
        .filter(|(_, crtc)| possible.contains(crtc))
        .fold(0, |bits, (index, _)| bits | 1 << index)
}

/// A connector's state in our own words.
pub fn plugged(state: connector::State) -> Plugged {
    match state {
        connector::State::Connected => Plugged::Connected,
        connector::State::Disconnected => Plugged::Disconnected,
        connector::State::Unknown => Plugged::Unknown,
    }
}

/// Whether there is a display, and it is known what it takes.
pub fn has_display(info: &connector::Info) -> bool {
    plugged(info.state()) != Plugged::Disconnected && !info.modes().is_empty()
}

/// What the choice of a mode needs to know of it.
pub fn mode_line(mode: &Mode) -> ModeLine {
    let (width, height) = mode.size();
    let (_, _, htotal) = mode.hsync();
    let (_, _, vtotal) = mode.vsync();
    let is_interlaced = mode.flags().contains(ModeFlags::INTERLACE);
    // As drm_mode_vrefresh() counts: the fields of an interlaced mode, and
    // each line of a doubled one twice.
    let mut clock_mhz = u128::from(mode.clock()) * 1_000_000;
    let mut ticks_per_frame = u128::from(htotal) * u128::from(vtotal);
    if is_interlaced {
        clock_mhz *= 2;
    }
    if mode.flags().contains(ModeFlags::DBLSCAN) {
        ticks_per_frame *= 2;
    }
    ticks_per_frame *= u128::from(mode.vscan().max(1));
    ModeLine {
        width: width.into(),
        height: height.into(),
        refresh_mhz: match ticks_per_frame {
            0 => refresh::rate_mhz(u128::from(mode.vrefresh()) * 1000, 1),
            _ => refresh::rate_mhz(clock_mhz, ticks_per_frame),
        },
        is_preferred: mode.mode_type().contains(ModeTypeFlags::PREFERRED),
        is_interlaced,
    }
}

/// The properties of one object, with the values they had when read.
#[derive(Debug)]
pub struct Props(HashMap<String, (property::Info, u64)>);

impl Props {
    /// The value when it was read.
    pub fn value(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|&(_, value)| value)
    }

    /// The handle to set it by.
    pub fn handle(&self, name: &str) -> Option<property::Handle> {
        self.0.get(name).map(|(info, _)| info.handle())
    }

    /// The property by name and its value, in any case and with '-' for the
    /// spaces and underscores that some names have.
    pub fn find(&self, name: &str) -> Option<(&property::Info, u64)> {
        let plain = |name: &str| name.to_ascii_lowercase().replace([' ', '_'], "-");
        let wanted = plain(name);
        let exact = self.0.get(name);
        exact
            .or_else(|| {
                self.0
                    .iter()
                    .find(|(key, _)| plain(key) == wanted)
                    .map(|(_, value)| value)
            })
            .map(|(info, value)| (info, *value))
    }

    /// The names of all that can be set.
    pub fn mutable_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .0
            .iter()
            .filter(|(_, (info, _))| info.mutable())
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        names
    }
}

/// Typed handles of ids that the kernel gave.
pub fn connector_handle(id: u32) -> io::Result<connector::Handle> {
    control::from_u32(id).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// As above.
pub fn crtc_handle(id: u32) -> io::Result<crtc::Handle> {
    control::from_u32(id).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// As above.
pub fn plane_handle(id: u32) -> io::Result<plane::Handle> {
    control::from_u32(id).ok_or_else(|| io::ErrorKind::NotFound.into())
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
