// SPDX-License-Identifier: MPL-2.0
//! A plane of the hardware: the properties that each frame sets, what the plane showed before the first commit,
//! and what it shows while sinks use other planes of its CRTC.

use std::io;
use std::sync::Arc;

use drm::control::atomic::AtomicModeReq;
use drm::control::{self, Device as _, property};

use super::device::{Device, plane_handle, required};
use super::framebuffer::Framebuffer;
use crate::display::area::{Placement, Rect};

/// A property that a commit sets in addition to those of each frame: object, property and value.
pub type Extra = (control::RawResourceHandle, property::Handle, u64);

/// Adds these properties to the request of a commit.
pub fn add_all(request: &mut AtomicModeReq, extras: &[Extra]) {
    for &(object, property, value) in extras {
        request.add_raw_property(object, property, value);
    }
}

/// Whether the request sets this property to this value. The crate drm shows the content of a request only as text.
#[cfg(test)]
pub fn sets(request: &AtomicModeReq, (object, property, value): Extra) -> bool {
    let mut same = request.clone();
    same.add_raw_property(object, property, value);
    format!("{same:?}") == format!("{request:?}")
}

/// The properties of a plane, and the values that they had before the first commit.
#[derive(Debug, Clone)]
pub struct PlaneState {
    pub id: u32,
    pub is_primary: bool,
    object: control::RawResourceHandle,
    fb_id: property::Handle,
    crtc_id: property::Handle,
    src: [property::Handle; 4],
    dst: [property::Handle; 4],
    pub in_fence_fd: Option<property::Handle>,
    before: Vec<Extra>,
    /// Whether the plane showed something before the first commit.
    was_on: bool,
}

impl PlaneState {
    /// Reads the properties of a plane, and what it shows now.
    pub fn read(device: &Device, id: u32) -> io::Result<Self> {
        let plane = plane_handle(id)?;
        let read = device.props(plane)?;
        let four = |names: [&str; 4]| -> io::Result<[property::Handle; 4]> {
            Ok([
                required(&read, names[0])?,
                required(&read, names[1])?,
                required(&read, names[2])?,
                required(&read, names[3])?,
            ])
        };
        let names = [
            "FB_ID", "CRTC_ID", "SRC_X", "SRC_Y", "SRC_W", "SRC_H", "CRTC_X", "CRTC_Y", "CRTC_W",
            "CRTC_H",
        ];
        let object = plane.into();
        let before = names
            .iter()
            .filter_map(|name| Some((object, read.handle(name)?, read.value(name)?)))
            .collect();
        Ok(Self {
            id,
            is_primary: read.value("type") == Some(control::PlaneType::Primary as u64),
            object,
            fb_id: required(&read, "FB_ID")?,
            crtc_id: required(&read, "CRTC_ID")?,
            src: four(["SRC_X", "SRC_Y", "SRC_W", "SRC_H"])?,
            dst: four(["CRTC_X", "CRTC_Y", "CRTC_W", "CRTC_H"])?,
            in_fence_fd: read.handle("IN_FENCE_FD"),
            before,
            was_on: read.value("FB_ID").is_some_and(|fb| fb != 0),
        })
    }

    /// Makes `add_before` switch the plane off, whatever it shows now.
    pub fn was_off_before(&mut self) {
        self.was_on = false;
    }

    /// Adds to the request that the plane shows `framebuffer`.
    pub fn add_shown(
        &self,
        request: &mut AtomicModeReq,
        crtc: u32,
        framebuffer: u32,
        placement: &Placement,
    ) {
        let mut set = |property, value| request.add_raw_property(self.object, property, value);
        set(self.fb_id, framebuffer.into());
        set(self.crtc_id, crtc.into());
        let Placement { src, dst } = placement;
        // The SRC_* properties are 16.16 fixed point, the CRTC_* properties whole pixels.
        let fixed = |value: u64| value << 16;
        set(self.src[0], fixed(src.x.max(0) as u64));
        set(self.src[1], fixed(src.y.max(0) as u64));
        set(self.src[2], fixed(src.width.into()));
        set(self.src[3], fixed(src.height.into()));
        set(self.dst[0], i64::from(dst.x) as u64);
        set(self.dst[1], i64::from(dst.y) as u64);
        set(self.dst[2], dst.width.into());
        set(self.dst[3], dst.height.into());
    }

    /// Adds to the request that the plane shows another framebuffer in the same way.
    pub fn add_flip(&self, request: &mut AtomicModeReq, framebuffer: u32) {
        self.add(request, self.fb_id, framebuffer.into());
    }

    /// Adds one more property of the plane to the request.
    pub fn add(&self, request: &mut AtomicModeReq, property: property::Handle, value: u64) {
        request.add_raw_property(self.object, property, value);
    }

    /// Adds to the request that the plane is switched off.
    pub fn add_off(&self, request: &mut AtomicModeReq) {
        self.add(request, self.fb_id, 0);
        self.add(request, self.crtc_id, 0);
    }

    /// Adds to the request that the plane shows what it showed before the first commit.
    pub fn add_before(&self, request: &mut AtomicModeReq) {
        match self.was_on {
            true => add_all(request, &self.before),
            false => self.add_off(request),
        }
    }

    pub fn owns(&self, extra: &Extra) -> bool {
        extra.0 == self.object
    }
}

#[cfg(test)]
impl PlaneState {
    /// A plane of a card that does not exist.
    pub fn blank(id: u32) -> Self {
        let object = control::from_u32(id).unwrap();
        let handle = |number| control::from_u32(number).unwrap();
        Self {
            id,
            is_primary: id == 1,
            object,
            fb_id: handle(101),
            crtc_id: handle(102),
            src: [103, 104, 105, 106].map(handle),
            dst: [107, 108, 109, 110].map(handle),
            in_fence_fd: None,
            before: Vec::new(),
            was_on: false,
        }
    }
}

/// What a plane shows that no sink uses while sinks use other planes of its CRTC.
#[derive(Debug, Clone)]
pub enum PlaneContent {
    /// What it showed before the first commit.
    AsBefore,
    Off,
    /// This framebuffer, which is as large as the screen, and transparent if the plane has a format with alpha,
    /// else black.
    Black(Arc<Framebuffer>),
}

impl PlaneContent {
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Black(a), Self::Black(b)) => Arc::ptr_eq(a, b),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// A plane of a CRTC that sinks of this process use, as it was before the first commit. While a sink uses the
/// plane itself, `content` does not count.
#[derive(Debug)]
pub struct OtherPlane {
    pub state: PlaneState,
    pub content: PlaneContent,
    /// Whether a sink used the plane, so that the plane has to show again what it showed before.
    pub is_changed: bool,
    /// Further properties of the plane to restore at the end, with their values.
    pub extras_before: Vec<Extra>,
}

impl OtherPlane {
    pub fn new(state: PlaneState, content: PlaneContent) -> Self {
        Self {
            state,
            content,
            is_changed: false,
            extras_before: Vec::new(),
        }
    }

    /// The planes that a CRTC shows now, and its primary plane. On a card that this process opened, overlays and
    /// cursors that another program left on are switched off.
    pub fn read_all(device: &Device, crtc: u32, primary: Option<u32>) -> io::Result<Vec<Self>> {
        let mut others = Vec::new();
        for handle in device.plane_handles()? {
            let (id, info) = (u32::from(handle), device.get_plane(handle)?);
            if info.crtc().map(u32::from) != Some(crtc) && primary != Some(id) {
                continue;
            }
            let state = PlaneState::read(device, id)?;
            let content = match device.is_ours && !state.is_primary {
                true => PlaneContent::Off,
                false => PlaneContent::AsBefore,
            };
            others.push(Self::new(state, content));
        }
        Ok(others)
    }

    /// Adds to the request that the plane shows `content`, on a screen of this size.
    pub fn add_content(
        &self,
        request: &mut AtomicModeReq,
        content: &PlaneContent,
        crtc: u32,
        (width, height): (u32, u32),
    ) {
        match content {
            PlaneContent::AsBefore if !self.is_changed => {}
            PlaneContent::AsBefore => self.add_before(request),
            PlaneContent::Off => self.state.add_off(request),
            PlaneContent::Black(framebuffer) => {
                let screen = Rect::of_size(width, height);
                let placement = Placement {
                    src: screen,
                    dst: screen,
                };
                self.state
                    .add_shown(request, crtc, framebuffer.id(), &placement);
            }
        }
    }

    /// Adds to the request what the plane showed before the first commit, and its other changed properties.
    pub fn add_before(&self, request: &mut AtomicModeReq) {
        add_all(request, &self.extras_before);
        self.state.add_before(request);
    }
}
