// SPDX-License-Identifier: MPL-2.0
//! A layer: the overlay compositions of a frame, shown on a second plane above that of the frame, and that plane.

use std::sync::Arc;

use drm::control::atomic::AtomicModeReq;
use drm::control::property::ValueType;

use super::balance::Balance;
use super::colour::Decides;
use super::device::{Device, Props, plane_handle};
use super::discovery::Route;
use super::framebuffer::Framebuffer;
use super::kms_plane::{Extra, PlaneState, add_all};
use super::tune::{self, ROTATE_0, Tuning};
use crate::display::area::Placement;

/// What a plane shows above that of a frame.
#[derive(Debug, Clone)]
pub struct Layer {
    pub framebuffer: Arc<Framebuffer>,
    pub placement: Placement,
    /// Keeps the memory from being drawn into again.
    pub _buffer: gst::Buffer,
}

/// How the overlay compositions of a frame are shown.
#[derive(Debug, Clone)]
pub enum Overlay {
    /// The frame has none, or nothing of them is visible.
    Absent,
    /// On a plane above that of the frame.
    Above(Layer),
    /// They are blended into a copy of the frame.
    Blended,
}

/// The plane for the layers of a sink's frames.
#[derive(Debug)]
pub struct LayerPlane {
    pub state: PlaneState,
    /// The properties that put the plane above that of the frames, and show its pixels as they are drawn.
    extras: Vec<Extra>,
    /// The values that `extras` had before.
    pub extras_saved: Vec<Extra>,
}

impl LayerPlane {
    /// Reads the plane `id`, and how it gets above the plane of `route`. `video` are the properties that the next
    /// commit sets on the latter. The error says in words why the plane cannot show layers.
    pub fn read(
        device: &Arc<Device>,
        id: u32,
        route: &Route,
        video: &[Extra],
    ) -> Result<Self, String> {
        let failed = |error| format!("plane {id} cannot be read: {error}");
        let below = plane_handle(route.kms_plane).map_err(failed)?;
        let below_props = device.props(below).map_err(failed)?;
        let to_set = |name: &str| {
            let handle = below_props.handle(name)?;
            let set = video
                .iter()
                .rfind(|extra| (extra.0, extra.1) == (below.into(), handle));
            set.map(|extra| extra.2).or(below_props.value(name))
        };
        if to_set("rotation").is_some_and(|rotation| rotation != ROTATE_0) {
            return Err("the plane turns the picture".into());
        }
        let below = Place {
            is_primary: below_props.value("type") == Some(PRIMARY),
            zpos: to_set("zpos").map(Zpos::fixed),
        };
        let props = plane_handle(id)
            .and_then(|handle| device.props(handle))
            .map_err(failed)?;
        let zpos = zpos_above(&below, Zpos::of(&props))
            .map_err(|reason| format!("plane {id} is not known to be above: {reason}"))?;
        let tuning = Tuning {
            plane: premultiplied(&props),
            connector: None,
            crtc: None,
            balance: Balance::default(),
            zpos,
            rotation: ROTATE_0,
            colours: None,
            variable_refresh: false,
        };
        let on_plane = Route {
            kms_plane: id,
            ..*route
        };
        let resolved = tune::resolve(device, &on_plane, &tuning, Decides::OtherSink)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            state: PlaneState::read(device, id).map_err(failed)?,
            extras: resolved.extras,
            extras_saved: resolved.before,
        })
    }

    /// Sets what the plane showed, and the values that its properties had, before a sink had it.
    pub fn keep_values_before(&mut self, state: PlaneState, extras_saved: Vec<Extra>) {
        let is_same = |a: &Extra, b: &Extra| (a.0, a.1) == (b.0, b.1);
        self.state = state;
        let known = |extra: &Extra| extras_saved.iter().any(|saved| is_same(saved, extra));
        self.extras_saved.retain(|extra| !known(extra));
        self.extras_saved.extend(extras_saved);
    }

    /// Adds to the request that the plane shows `layer`, or that it is off.
    pub fn add(&self, request: &mut AtomicModeReq, crtc: u32, layer: Option<&Layer>) {
        let Some(layer) = layer else {
            return self.state.add_off(request);
        };
        let framebuffer = layer.framebuffer.id();
        self.state
            .add_shown(request, crtc, framebuffer, &layer.placement);
        add_all(request, &self.extras);
    }
}

#[cfg(test)]
impl Layer {
    /// A layer on a card that does not exist.
    pub fn blank(device: &Arc<Device>) -> Self {
        Self {
            framebuffer: Framebuffer::blank(device),
            placement: Placement::default(),
            _buffer: gst::Buffer::new(),
        }
    }
}

#[cfg(test)]
impl LayerPlane {
    /// A plane of a card that does not exist.
    pub fn blank(id: u32, extras_saved: Vec<Extra>) -> Self {
        Self {
            state: PlaneState::blank(id),
            extras: Vec::new(),
            extras_saved,
        }
    }
}

/// The plane property that says what alpha means. A plane without it takes colours that are multiplied by alpha.
const BLEND_MODE: &str = "pixel blend mode";
/// The same as the name of a field of a GstStructure, which has no spaces.
const BLEND_MODE_AS_FIELD: &str = "pixel-blend-mode";
/// The value of the plane property "type" for a primary plane.
const PRIMARY: u64 = drm::control::PlaneType::Primary as u64;

/// What makes a plane with these properties take colours that are multiplied by alpha.
fn premultiplied(props: &Props) -> Option<gst::Structure> {
    let (info, _) = props.find(BLEND_MODE)?;
    let structure = gst::Structure::builder("props").field(BLEND_MODE_AS_FIELD, "Pre-multiplied");
    info.mutable().then(|| structure.build())
}

/// The plane property "zpos".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Zpos {
    now: u64,
    /// The largest value that can be set; `None` if the property cannot be changed.
    max: Option<u64>,
}

impl Zpos {
    fn fixed(now: u64) -> Self {
        Self { now, max: None }
    }

    fn of(props: &Props) -> Option<Self> {
        let (info, now) = props.find("zpos")?;
        let max = match info.value_type() {
            ValueType::UnsignedRange(_, max) => Some(*max),
            _ => None,
        };
        let max = max.filter(|_| info.mutable());
        Some(Self { now, max })
    }
}

/// The place of the frames' plane among the others.
#[derive(Debug, Clone, Copy)]
struct Place {
    is_primary: bool,
    zpos: Option<Zpos>,
}

/// The zpos that an overlay needs to be above `video`; `None` if it is above without being changed.
fn zpos_above(video: &Place, overlay: Option<Zpos>) -> Result<Option<u64>, &'static str> {
    match (video.zpos, overlay) {
        (Some(below), Some(zpos)) if zpos.now > below.now => Ok(None),
        (Some(below), Some(Zpos { max: Some(max), .. })) if below.now < max => {
            Ok(Some(below.now + 1))
        }
        (Some(_), Some(_)) => Err("its zpos cannot be higher"),
        // The kernel's documentation of zpos: without it, overlays are above the primary plane.
        _ if video.is_primary => Ok(None),
        _ => Err("the driver has no zpos, and does not say how overlays are stacked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(is_primary: bool, zpos: Option<u64>) -> Place {
        Place {
            is_primary,
            zpos: zpos.map(Zpos::fixed),
        }
    }

    #[test]
    fn a_plane_keeps_the_values_from_before_the_first_claim() {
        let of_plane = |property: u32, value| {
            let object = drm::control::from_u32(5).unwrap();
            (object, drm::control::from_u32(property).unwrap(), value)
        };
        let mut plane = LayerPlane::blank(5, vec![of_plane(1, 7), of_plane(2, 8)]);
        plane.keep_values_before(PlaneState::blank(5), vec![of_plane(1, 3)]);
        assert_eq!(plane.extras_saved, [of_plane(2, 8), of_plane(1, 3)]);
    }

    fn movable(now: u64, max: u64) -> Option<Zpos> {
        let max = Some(max);
        Some(Zpos { now, max })
    }

    #[test]
    fn an_overlay_is_raised_above_the_video_only_if_it_is_not_there() {
        let video = place(false, Some(2));
        assert_eq!(zpos_above(&video, movable(3, 7)), Ok(None));
        assert_eq!(zpos_above(&video, movable(2, 7)), Ok(Some(3)));
        assert_eq!(zpos_above(&video, movable(0, 7)), Ok(Some(3)));
        assert_eq!(zpos_above(&video, Some(Zpos::fixed(3))), Ok(None));
    }

    #[test]
    fn an_overlay_that_cannot_get_above_the_video_is_not_taken() {
        let video = place(true, Some(2));
        assert!(zpos_above(&video, Some(Zpos::fixed(1))).is_err());
        assert!(zpos_above(&video, movable(0, 2)).is_err());
    }

    #[test]
    fn without_zpos_overlays_are_above_the_primary_plane_alone() {
        assert_eq!(zpos_above(&place(true, None), None), Ok(None));
        assert!(zpos_above(&place(false, None), None).is_err());
    }
}
