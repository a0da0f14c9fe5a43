// SPDX-License-Identifier: MPL-2.0
//! An open DRM device: its capabilities, the properties of its objects, and the locks of its master.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use drm::buffer::Handle as GemName;
use drm::control::{
    self, AtomicCommitFlags, Device as _, Mode, ModeFlags, ModeTypeFlags, ResourceHandle,
    connector, crtc, plane, property,
};
use drm::{ClientCapability, Device as _, DriverCapability};
use parking_lot::Mutex;

use super::discovery::{CardSnapshot, Connector, KmsPlane, PlaneKind, Plugged};
use super::mode::ModeLine;
use crate::refresh;
use crate::sys;
use crate::sys::sysfs::SysfsDevice;

/// An open DRM device.
#[derive(Debug)]
pub struct Device {
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
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
impl drm::Device for Device {}
impl control::Device for Device {}

impl Device {
    /// Asks what it can do; a device that cannot be used says why in its snapshot.
    pub fn new(fd: OwnedFd, path: String, is_ours: bool) -> io::Result<Self> {
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

    /// Its device number.
    pub fn number(&self) -> Option<u64> {
        rustix::fs::fstat(&self.fd).ok().map(|stat| stat.st_rdev)
    }

    /// What the device has, all planes free. `probe` asks the displays again.
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
                is_taken: false,
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
impl Device {
    /// No device at all: each ioctl fails.
    pub fn blank() -> std::sync::Arc<Self> {
        let file = std::fs::File::open("/dev/null").unwrap();
        let device = Self::new(file.into(), "/dev/null".into(), true).unwrap();
        std::sync::Arc::new(Self {
            can_import: true,
            ..device
        })
    }
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
