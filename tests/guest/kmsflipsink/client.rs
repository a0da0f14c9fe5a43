// SPDX-License-Identifier: MPL-2.0
//! A DRM client beside the sink: it shows something before the sink starts, or passes its card to the sink.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use drm::Device as _;
use drm::buffer::{Buffer as _, DrmFourcc};
use drm::control::atomic::AtomicModeReq;
use drm::control::dumbbuffer::DumbBuffer;
use drm::control::{
    self, AtomicCommitFlags, Device as _, LeaseId, Mode, PlaneType, RawResourceHandle,
    ResourceHandle, connector, crtc, framebuffer, plane, property,
};

pub struct Client {
    file: File,
    connector: connector::Handle,
    pub crtc: crtc::Handle,
    pub mode: Mode,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
impl drm::Device for Client {}
impl control::Device for Client {}

/// The open card, before its display and CRTC are known.
struct Card(File);
impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
impl drm::Device for Card {}
impl control::Device for Card {}

impl Client {
    /// Opens the card, and so becomes its master, with its first display and first CRTC.
    pub fn open() -> Self {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .open("/dev/dri/card0")
            .unwrap();
        let card = Card(file);
        for capability in [
            drm::ClientCapability::UniversalPlanes,
            drm::ClientCapability::Atomic,
        ] {
            card.set_client_capability(capability, true).unwrap();
        }
        let resources = card.resource_handles().unwrap();
        let mut connectors = resources.connectors().iter();
        let info = connectors.find_map(|&handle| {
            let info = card.get_connector(handle, true).unwrap();
            (info.state() == connector::State::Connected && !info.modes().is_empty())
                .then_some(info)
        });
        let info = info.expect("a display");
        Self {
            connector: info.handle(),
            crtc: resources.crtcs()[0],
            mode: info.modes()[0],
            file: card.0,
        }
    }

    pub fn plane(&self, kind: PlaneType) -> Option<plane::Handle> {
        let planes = self.plane_handles().unwrap();
        planes
            .into_iter()
            .find(|&plane| self.value(plane, "type") == kind as u64)
    }

    fn properties<T: ResourceHandle>(&self, object: T) -> HashMap<String, (property::Handle, u64)> {
        let values = self.get_properties(object).unwrap();
        let named = values.iter().map(|(&handle, &value)| {
            let info = self.get_property(handle).unwrap();
            let name = info.name().to_str().unwrap().to_owned();
            (name, (handle, value))
        });
        named.collect()
    }

    pub fn value<T: ResourceHandle>(&self, object: T, name: &str) -> u64 {
        self.properties(object)[name].1
    }

    pub fn lease(&self) -> (LeaseId, OwnedFd) {
        let primary = self.plane(PlaneType::Primary).unwrap();
        let objects: [RawResourceHandle; 3] =
            [self.connector.into(), self.crtc.into(), primary.into()];
        self.create_lease(&objects, libc::O_CLOEXEC as u32).unwrap()
    }

    pub fn dumb(&self, width: u32, height: u32) -> DumbBuffer {
        self.create_dumb_buffer((width, height), DrmFourcc::Argb8888, 32)
            .unwrap()
    }

    /// A framebuffer of one colour: blue, green, red, alpha.
    fn coloured(&self, width: u32, height: u32, pixel: [u8; 4]) -> framebuffer::Handle {
        let mut dumb = self.dumb(width, height);
        let pitch = dumb.pitch() as usize;
        let mut mapping = self.map_dumb_buffer(&mut dumb).unwrap();
        mapping.copy_from_slice(&pixel.repeat(pitch / 4 * height as usize));
        drop(mapping);
        // vkms of Linux 6.1 shows no alpha on its primary plane.
        self.add_framebuffer(&Opaque(&dumb), 24, 32).unwrap()
    }

    fn set<T: ResourceHandle + Copy>(
        &self,
        request: &mut AtomicModeReq,
        object: T,
        values: &[(&str, u64)],
    ) {
        let known = self.properties(object);
        for &(name, value) in values {
            if let Some(&(handle, _)) = known.get(name) {
                request.add_raw_property(object.into(), handle, value);
            }
        }
    }

    /// Shows green, an overlay, a cursor and a rotated picture, through a gamma table that inverts, as far as the
    /// driver can.
    pub fn make_a_mess(&self) {
        let (width, height) = self.mode.size();
        let (width, height) = (u32::from(width), u32::from(height));
        let mut request = AtomicModeReq::new();
        let mode = self.create_property_blob(&self.mode).unwrap();
        let size = self.value_if_any(self.crtc, "GAMMA_LUT_SIZE");
        let falling = (0..size).map(|index| 65535 - (index * 65535 / (size - 1).max(1)) as u16);
        let table: Vec<u16> = falling.flat_map(|value| [value, value, value, 0]).collect();
        let gamma = match table.is_empty() {
            true => 0,
            false => self.create_property_blob(table.as_slice()).unwrap().into(),
        };
        self.set(
            &mut request,
            self.connector,
            &[("CRTC_ID", u32::from(self.crtc).into())],
        );
        let of_crtc = [
            ("MODE_ID", mode.into()),
            ("ACTIVE", 1),
            ("GAMMA_LUT", gamma),
        ];
        self.set(&mut request, self.crtc, &of_crtc);
        let mut place = |kind, (x, y, width, height): (u32, u32, u32, u32), pixel, rotation| {
            let Some(plane) = self.plane(kind) else {
                return;
            };
            let framebuffer = self.coloured(width, height, pixel);
            let (wide, high) = (u64::from(width), u64::from(height));
            let values = [
                ("FB_ID", u32::from(framebuffer).into()),
                ("CRTC_ID", u32::from(self.crtc).into()),
                ("SRC_X", 0),
                ("SRC_Y", 0),
                ("SRC_W", wide << 16),
                ("SRC_H", high << 16),
                ("CRTC_X", x.into()),
                ("CRTC_Y", y.into()),
                ("CRTC_W", wide),
                ("CRTC_H", high),
                ("rotation", rotation),
            ];
            self.set(&mut request, plane, &values);
        };
        const UPRIGHT: u64 = 1;
        const UPSIDE_DOWN: u64 = 4;
        place(
            PlaneType::Primary,
            (0, 0, width, height),
            [0, 64, 0, 255],
            UPSIDE_DOWN,
        );
        place(
            PlaneType::Overlay,
            (100, 100, 64, 64),
            [0, 0, 255, 255],
            UPRIGHT,
        );
        place(
            PlaneType::Cursor,
            (200, 200, 64, 64),
            [255, 0, 0, 255],
            UPRIGHT,
        );
        let flags = AtomicCommitFlags::ALLOW_MODESET;
        self.atomic_commit(flags, request).unwrap();
    }

    pub fn value_if_any<T: ResourceHandle>(&self, object: T, name: &str) -> u64 {
        self.properties(object)
            .get(name)
            .map_or(0, |&(_, value)| value)
    }

    /// Lets another program be master, while this one keeps what it shows.
    pub fn step_back(&self) {
        self.release_master_lock().unwrap();
    }
}

/// A dumb buffer in a format without alpha.
struct Opaque<'a>(&'a DumbBuffer);

impl drm::buffer::Buffer for Opaque<'_> {
    fn size(&self) -> (u32, u32) {
        self.0.size()
    }
    fn format(&self) -> DrmFourcc {
        DrmFourcc::Xrgb8888
    }
    fn pitch(&self) -> u32 {
        self.0.pitch()
    }
    fn handle(&self) -> drm::buffer::Handle {
        self.0.handle()
    }
}
