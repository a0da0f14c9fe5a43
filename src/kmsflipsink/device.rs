// SPDX-License-Identifier: MPL-2.0
//! An open DRM device: its capabilities, the properties of its objects, and whether it is master.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use drm::buffer::Handle as GemName;
use drm::control::{
    self, AtomicCommitFlags, Device as _, Mode, ModeFlags, ModeTypeFlags, ResourceHandle,
    connector, crtc, plane, property,
};
use drm::{ClientCapability, Device as _, DriverCapability};

use super::discovery::{CardSnapshot, Connector, KmsPlane, PlaneKind, Plugged};
use super::format;
use super::mode::ModeLine;
use super::opener::CardLoan;
use super::timing::ModeTiming;
use crate::locks::Mutex;
use crate::refresh;
use crate::sys;
use crate::sys::sysfs::SysfsDevice;

#[derive(Debug, Clone)]
pub struct DrmFile(Arc<OwnedFd>);

impl AsFd for DrmFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
impl drm::Device for DrmFile {}
impl control::Device for DrmFile {}

#[derive(Debug)]
pub struct Device {
    file: DrmFile,
    /// The file to which memory and framebuffers belong. GEM handles are numbers of one file, and the kernel returns
    /// the same handle each time that the same memory is imported. So on the application's file, the sink would close
    /// handles of the application. If the application passed its file, this is therefore a file of the sink's own, if
    /// the process may open one.
    pub(super) memory: DrmFile,
    /// Whether `memory` is the application's file, so that the sink must not close GEM handles that the application may
    /// have too.
    pub(super) keeps_gem_names: bool,
    /// The device node, such as /dev/dri/card0.
    pub path: String,
    /// The name that the driver gives to DRM.
    pub driver: String,
    bus_id: String,
    /// Why the device cannot be used; `None` if it can.
    unusable: Option<String>,
    /// Whether this process opened the device, and did not get it from the application.
    pub is_ours: bool,
    /// Whether a session manager opened the device for this process.
    pub loan: CardLoan,
    /// The uses of each GEM handle. The kernel returns the same handle each time that the same memory is
    /// imported, and closes it at the first DRM_IOCTL_GEM_CLOSE. An import must therefore not run between the
    /// end of the last use and that ioctl: this lock is held over both ioctls, and no other is taken
    /// meanwhile.
    pub(super) gem_names: Mutex<HashMap<GemName, GemUses>>,
    /// Whether the driver imports dma-bufs.
    pub can_import: bool,
    /// Whether the driver exports its own buffers as dma-bufs.
    pub(super) can_export: bool,
    /// Whether a framebuffer may have a modifier.
    pub has_modifiers: bool,
    /// Whether an atomic commit may ask for a flip that does not wait for the vertical blank (from Linux 6.8 on).
    pub can_flip_async: bool,
}

/// How the device uses a GEM handle.
#[derive(Debug, Default)]
pub(super) struct GemUses {
    pub(super) n: usize,
    /// Whether no other user of the file can have the handle: the memory was allocated here, and never exported. The
    /// handles of imported memory may be shared.
    pub(super) is_private: bool,
}

impl GemUses {
    pub(super) fn of_own_buffer() -> Self {
        Self {
            n: 1,
            is_private: true,
        }
    }

    /// Whether the handle may be closed after its last use. `keeps_shared` is [`Device::keeps_gem_names`].
    pub(super) fn may_close(&self, keeps_shared: bool) -> bool {
        self.is_private || !keeps_shared
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
impl drm::Device for Device {}
impl control::Device for Device {}

impl Device {
    /// Sets and reads the capabilities. If the device cannot be used, its snapshots say why.
    pub fn new(fd: OwnedFd, path: String, is_ours: bool) -> io::Result<Self> {
        let file = DrmFile(Arc::new(fd));
        let mut card = Self {
            bus_id: SysfsDevice::of_fd(file.as_fd())
                .and_then(|device| device.bus_id())
                .unwrap_or_default(),
            keeps_gem_names: !is_ours,
            memory: file.clone(),
            file,
            path,
            driver: String::new(),
            unusable: None,
            is_ours,
            loan: CardLoan::NotLent,
            gem_names: Mutex::default(),
            can_import: false,
            can_export: false,
            has_modifiers: false,
            can_flip_async: false,
        };
        card.unusable = card.identify().err();
        // Only while the application's file is master: if there were none, the new file would become master, and what
        // the console or another program shows would be gone for that moment.
        if !is_ours
            && card.check_master().is_ok()
            && let Some(own) = open_again(&card.file)
        {
            (card.memory, card.keeps_gem_names) = (own, false);
        }
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
        self.can_flip_async = self
            .get_driver_capability(DriverCapability::AtomicASyncPageFlip)
            .is_ok_and(|value| value == 1);
        let universal = self.set_client_capability(ClientCapability::UniversalPlanes, true);
        universal
            .and_then(|()| self.set_client_capability(ClientCapability::Atomic, true))
            .map_err(|_| "its driver has no atomic modesetting; kmssink may work".to_owned())
    }

    /// Whether this process decides when the file is master.
    pub fn may_become_master(&self) -> bool {
        self.is_ours && !self.loan.is_lent()
    }

    /// Gives up being master, unless that is for a session manager to do.
    pub fn give_up_master(&self) {
        if self.may_become_master() {
            // EINVAL: another program is master.
            let _ = self.release_master_lock();
        }
    }

    pub fn number(&self) -> Option<u64> {
        rustix::fs::fstat(&self.file).ok().map(|stat| stat.st_rdev)
    }

    /// What the device has, with all planes marked as free. `probe` asks the connectors for their displays again.
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
                // A device that only renders.
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
                in_formats: self.in_formats(&props),
                crtc: info.crtc().map(Into::into),
                is_taken: false,
            });
        }
        Ok(())
    }

    /// The state of the connector and its display at the last probe.
    pub fn connector_state(&self, info: &connector::Info) -> ConnectorState {
        /// DRM_MODE_LINK_STATUS_BAD
        const BAD: u64 = 1;
        let props = self.props(info.handle()).ok();
        let value = |name| props.as_ref().and_then(|props| props.value(name));
        let edid = value("EDID").filter(|&blob| blob != 0);
        let edid = edid.and_then(|blob| self.get_property_blob(blob).ok());
        ConnectorState {
            display: has_display(info).then(|| Display {
                edid: edid.unwrap_or_default(),
                modes: info.modes().to_vec(),
                size_mm: info.size(),
            }),
            is_link_bad: value("link-status") == Some(BAD),
        }
    }

    fn in_formats(&self, plane: &Props) -> Vec<(u32, u64)> {
        let blob = plane.value("IN_FORMATS").filter(|&blob| blob != 0);
        let bytes = blob.and_then(|blob| self.get_property_blob(blob).ok());
        bytes.map_or_else(Vec::new, |bytes| format::parse_in_formats(&bytes))
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
            claimed: None,
        }
    }

    pub fn props<T: ResourceHandle>(&self, object: T) -> io::Result<Props> {
        let mut by_name = HashMap::new();
        for (&handle, &value) in self.get_properties(object)?.iter() {
            let info = self.get_property(handle)?;
            by_name.insert(info.name().to_string_lossy().into_owned(), (info, value));
        }
        Ok(Props(by_name))
    }

    pub fn mode_blob(self: &Arc<Self>, mode: &Mode) -> io::Result<Arc<PropertyBlob>> {
        Ok(Arc::new(PropertyBlob {
            id: self.create_property_blob(mode)?.into(),
            device: self.clone(),
        }))
    }

    pub fn blob(self: &Arc<Self>, bytes: &[u8]) -> io::Result<Arc<PropertyBlob>> {
        Ok(Arc::new(PropertyBlob {
            id: self.create_property_blob(bytes)?.into(),
            device: self.clone(),
        }))
    }

    /// Makes a copy of a property blob, because the kernel destroys the blobs of another program with that program.
    pub fn copy_blob(self: &Arc<Self>, id: u64) -> io::Result<Arc<PropertyBlob>> {
        self.blob(&self.get_property_blob(id)?)
    }

    /// Whether the kernel no longer knows the CRTC for this open file, because the lease that the file stands for was
    /// revoked. No driver removes a CRTC, but connectors come and go (DisplayPort MST).
    pub fn is_crtc_gone(&self, id: u32) -> bool {
        let read = crtc_handle(id).and_then(|crtc| self.get_crtc(crtc));
        read.is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT))
    }

    /// Whether this open file is master now. Makes one empty TEST_ONLY commit, which only a master may make.
    pub fn check_master(&self) -> io::Result<()> {
        self.atomic_commit(
            AtomicCommitFlags::TEST_ONLY,
            control::atomic::AtomicModeReq::new(),
        )
    }
}

/// Distinguishes a display from another one at the same connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Display {
    edid: Vec<u8>,
    modes: Vec<Mode>,
    /// Width and height of the visible area in millimetres, as the display says.
    pub size_mm: Option<(u32, u32)>,
}

/// The state of a connector and its display.
#[derive(Debug)]
pub struct ConnectorState {
    /// `None` if there is no display, or none with a mode.
    pub display: Option<Display>,
    /// Whether the link to the display has failed, and needs a modeset.
    pub is_link_bad: bool,
}

#[cfg(test)]
impl Display {
    /// Displays of different `number` differ.
    pub fn blank(number: u8) -> Self {
        Self {
            edid: vec![number],
            modes: Vec::new(),
            size_mm: None,
        }
    }
}

/// A property blob. Dropping its last use destroys it, so a commit that names it, and a CRTC that is to be set
/// up with it, each keep a use.
#[derive(Debug)]
pub struct PropertyBlob {
    device: Arc<Device>,
    id: u64,
}

impl PropertyBlob {
    /// The value of a property that is this blob.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for PropertyBlob {
    fn drop(&mut self) {
        // This fails only when the device is gone, and the blob with it.
        let _ = self.device.destroy_property_blob(self.id);
    }
}

#[cfg(test)]
impl PropertyBlob {
    /// A blob of a device that does not exist.
    pub fn blank(device: &Arc<Device>) -> Arc<Self> {
        Self::numbered(device, 1)
    }

    /// The same with an id.
    pub fn numbered(device: &Arc<Device>, id: u64) -> Arc<Self> {
        let device = device.clone();
        Arc::new(Self { device, id })
    }
}

#[cfg(test)]
impl Device {
    /// A device that does not exist: each ioctl fails.
    pub fn blank() -> Arc<Self> {
        let file = std::fs::File::open("/dev/null").unwrap();
        let device = Self::new(file.into(), "/dev/null".into(), true).unwrap();
        Arc::new(Self {
            can_import: true,
            ..device
        })
    }
}

/// Opens the device of an application's file once more. `None` if this process may not. If the application gives up
/// being master at this moment, the new file becomes master, and gives that up at once.
fn open_again(file: &DrmFile) -> Option<DrmFile> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let own = DrmFile(Arc::new(
        rustix::fs::open(path, flags, rustix::fs::Mode::empty()).ok()?,
    ));
    let _ = own.release_master_lock();
    Some(own)
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

pub fn plugged(state: connector::State) -> Plugged {
    match state {
        connector::State::Connected => Plugged::Connected,
        connector::State::Disconnected => Plugged::Disconnected,
        connector::State::Unknown => Plugged::Unknown,
    }
}

/// Whether the connector may have a display, and has modes.
pub fn has_display(info: &connector::Info) -> bool {
    plugged(info.state()) != Plugged::Disconnected && !info.modes().is_empty()
}

pub fn mode_line(mode: &Mode) -> ModeLine {
    let (width, height) = mode.size();
    let (_, _, htotal) = mode.hsync();
    let (_, _, vtotal) = mode.vsync();
    let is_interlaced = mode.flags().contains(ModeFlags::INTERLACE);
    // Like drm_mode_vrefresh(): an interlaced mode counts fields, and a doublescan mode counts each line
    // twice.
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
    pub fn value(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|&(_, value)| value)
    }

    pub fn handle(&self, name: &str) -> Option<property::Handle> {
        self.0.get(name).map(|(info, _)| info.handle())
    }

    /// A property and its value by name; see [`is_name`].
    pub fn find(&self, name: &str) -> Option<(&property::Info, u64)> {
        let exact = self.0.get(name);
        exact
            .or_else(|| {
                self.0
                    .iter()
                    .find(|(key, _)| is_name(name, key))
                    .map(|(_, value)| value)
            })
            .map(|(info, value)| (info, *value))
    }

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

/// A property that every atomic driver has.
pub fn required(props: &Props, name: &str) -> io::Result<property::Handle> {
    props.handle(name).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!("the driver has no property {name}"),
        )
    })
}

/// Whether `name`, as a user may write it, is the name `of` of a property. The case does not matter, and '-'
/// stands for a space or an underscore too.
pub fn is_name(name: &str, of: &str) -> bool {
    let plain = |name: &str| name.to_ascii_lowercase().replace([' ', '_'], "-");
    plain(name) == plain(of)
}

pub fn connector_handle(id: u32) -> io::Result<connector::Handle> {
    control::from_u32(id).ok_or_else(|| io::ErrorKind::NotFound.into())
}

pub fn crtc_handle(id: u32) -> io::Result<crtc::Handle> {
    control::from_u32(id).ok_or_else(|| io::ErrorKind::NotFound.into())
}

pub fn plane_handle(id: u32) -> io::Result<plane::Handle> {
    control::from_u32(id).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The mode with a timing. It has no name, which the kernel does not look at.
pub fn mode_of(timing: &ModeTiming) -> Mode {
    let [hdisplay, hsync_start, hsync_end, htotal] = timing.horizontal;
    let [vdisplay, vsync_start, vsync_end, vtotal] = timing.vertical;
    drm_ffi::drm_mode_modeinfo {
        clock: timing.clock_khz,
        hdisplay,
        hsync_start,
        hsync_end,
        htotal,
        vdisplay,
        vsync_start,
        vsync_end,
        vtotal,
        flags: timing.flags.bits(),
        type_: ModeTypeFlags::USERDEF.bits(),
        ..Default::default()
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_applications_file_only_handles_that_it_cannot_have_are_closed() {
        let mut own = GemUses::of_own_buffer();
        let imported = GemUses::default();
        assert_eq!(
            [true, false].map(|keeps| own.may_close(keeps)),
            [true, true]
        );
        assert_eq!(
            [true, false].map(|keeps| imported.may_close(keeps)),
            [false, true]
        );
        own.is_private = false;
        assert!(!own.may_close(true), "it was exported");
    }

    #[test]
    fn a_file_of_the_application_that_is_not_master_is_not_opened_again() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let device = Device::new(file.into(), "/dev/null".into(), false).unwrap();
        assert!(Arc::ptr_eq(&device.memory.0, &device.file.0));
        assert!(device.keeps_gem_names);
    }

    #[test]
    fn an_interlaced_mode_counts_its_fields() {
        let shown = |clock, h, v, flags: ModeFlags| {
            let mode = mode_of(&ModeTiming {
                clock_khz: clock,
                horizontal: h,
                vertical: v,
                flags,
            });
            mode_line(&mode).to_string()
        };
        let (h, v) = ([1920, 2448, 2492, 2640], [1080, 1084, 1089, 1125]);
        assert_eq!(
            shown(74_250, h, v, ModeFlags::INTERLACE),
            "1920x1080i@50.00"
        );
        assert_eq!(shown(148_500, h, v, ModeFlags::empty()), "1920x1080@50.00");
        assert_eq!(shown(148_500, h, v, ModeFlags::DBLSCAN), "1920x1080@25.00");
    }
}
