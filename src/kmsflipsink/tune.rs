// SPDX-License-Identifier: MPL-2.0
//! KMS properties of plane, connector and CRTC that are set once and not for every frame: those that the user
//! asks for (`plane-properties`, `connector-properties`, `crtc-properties`, `zpos`, `rotate-method`), and those
//! that `colour` and `balance` ask for.

use std::sync::Arc;

use drm::control::property::{self, ValueType};
use drm::control::{Device as _, RawResourceHandle};
use gst::glib;
use gst_video::VideoOrientationMethod;

use super::balance::{Balance, Controls, Range};
use super::colour::{Colours, Decides, Of, Offer, Output, Value, Wish};
use super::device::{self, Device, PropertyBlob, Props, is_name};
use super::discovery::Route;
use super::edid::DisplayColours;
use super::error::KmsError;
use super::kms_plane::Extra;
use crate::sys;

/// The values to set. `None` leaves the properties as they are.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Properties of the plane, by name.
    pub plane: Option<gst::Structure>,
    /// Properties of the connector, by name.
    pub connector: Option<gst::Structure>,
    /// Properties of the CRTC, by name.
    pub crtc: Option<gst::Structure>,
    pub balance: Balance,
    /// Whether to switch VRR_ENABLED on, if the display can vary its refresh rate.
    pub variable_refresh: bool,
    pub zpos: Option<u64>,
    /// Bits of DRM_MODE_ROTATE_* and DRM_MODE_REFLECT_*. A plane without the property needs none for
    /// [`ROTATE_0`].
    pub rotation: u64,
    /// `None` before the first caps.
    pub colours: Option<Colours>,
}

/// The value of the plane property "rotation" for a picture that is not turned.
pub const ROTATE_0: u64 = 1 << 0;

/// The value of the plane property "rotation" for a method.
///
/// DRM reflects before it rotates, and rotates counter-clockwise (drm_mode.h).
pub fn rotation_bits(method: VideoOrientationMethod) -> u64 {
    const ROTATE_90: u64 = 1 << 1;
    const ROTATE_180: u64 = 1 << 2;
    const ROTATE_270: u64 = 1 << 3;
    const REFLECT_X: u64 = 1 << 4;
    const REFLECT_Y: u64 = 1 << 5;
    match method {
        VideoOrientationMethod::_90r => ROTATE_270,
        VideoOrientationMethod::_180 => ROTATE_180,
        VideoOrientationMethod::_90l => ROTATE_90,
        VideoOrientationMethod::Horiz => ROTATE_0 | REFLECT_X,
        VideoOrientationMethod::Vert => ROTATE_0 | REFLECT_Y,
        VideoOrientationMethod::UlLr => ROTATE_90 | REFLECT_X,
        VideoOrientationMethod::UrLl => ROTATE_270 | REFLECT_X,
        _ => ROTATE_0,
    }
}

/// Whether the method turns rows into columns.
pub fn is_turned(method: VideoOrientationMethod) -> bool {
    matches!(
        method,
        VideoOrientationMethod::_90r
            | VideoOrientationMethod::_90l
            | VideoOrientationMethod::UlLr
            | VideoOrientationMethod::UrLl
    )
}

/// The properties that a tuning sets.
#[derive(Debug, Default)]
pub struct Resolved {
    pub extras: Vec<Extra>,
    /// The values that these properties have now.
    pub before: Vec<Extra>,
    /// The property blobs that both name.
    pub blobs: Vec<Arc<PropertyBlob>>,
    /// What GstColorBalance can set.
    pub controls: Controls,
    /// In words, how the colours are shown; `None` if there is nothing to say of them.
    pub colours: Option<String>,
    /// Whether the display varies its refresh rate, or in words why it does not; `None` if that is not wanted.
    pub variable_refresh: Option<Result<(), &'static str>>,
    /// Whether the colours differ from what the caps say.
    pub is_off_colour: bool,
}

pub fn resolve(
    device: &Arc<Device>,
    route: &Route,
    tuning: &Tuning,
    decides: Decides,
) -> Result<Resolved, KmsError> {
    let read = |source| KmsError::Io {
        operation: "reading properties",
        path: device.path.clone(),
        source,
    };
    let plane = device::plane_handle(route.kms_plane).map_err(read)?;
    let connector = device::connector_handle(route.connector).map_err(read)?;
    let crtc = device::crtc_handle(route.crtc).map_err(read)?;
    let objects = Objects {
        plane: (plane.into(), device.props(plane).map_err(read)?),
        connector: (connector.into(), device.props(connector).map_err(read)?),
        crtc: (crtc.into(), device.props(crtc).map_err(read)?),
    };
    let mut found = Found::new(device);
    // The colours come first, because a value that is added later replaces an earlier one.
    let (colours, is_off_colour) = match tuning.colours {
        Some(colours) => add_colours(&mut found, &objects, tuning, &colours, decides),
        None => (None, false),
    };
    let variable_refresh = tuning.variable_refresh.then(|| {
        let is_capable = objects.connector.1.value("vrr_capable") == Some(1);
        let enable = objects.crtc.1.handle("VRR_ENABLED");
        let enable = enable.zip(objects.crtc.1.value("VRR_ENABLED"));
        let (property, now) = vrr_property(is_capable, enable)?;
        found.extras.push((objects.crtc.0, property, 1));
        // On a card of the sink's own, the setup has reset what another program left, and the CRTC restores that.
        let before = if device.is_ours { 0 } else { now };
        found.before.push((objects.crtc.0, property, before));
        Ok(())
    });
    let controls = add_plane_defaults(&mut found, tuning, &objects.plane)
        .and_then(|()| add_requested(&mut found, &objects, tuning))
        .and_then(|()| add_balance(&mut found, &objects, &tuning.balance))
        .map_err(KmsError::Property)?;
    Ok(Resolved {
        extras: found.extras,
        before: found.before,
        blobs: found.blobs,
        controls,
        colours,
        variable_refresh,
        is_off_colour,
    })
}

/// The property VRR_ENABLED of a CRTC and its value, if both display and driver can vary the refresh rate; otherwise
/// why not. The kernel takes VRR_ENABLED for a hint, and ignores it for a connector that is not `vrr_capable`.
fn vrr_property(
    is_capable: bool,
    enable: Option<(property::Handle, u64)>,
) -> Result<(property::Handle, u64), &'static str> {
    match (is_capable, enable) {
        (true, Some(enable)) => Ok(enable),
        (true, None) => Err("the CRTC has no property VRR_ENABLED"),
        (false, _) => {
            Err("the connector is not vrr_capable: display, cable or driver cannot do it")
        }
    }
}

type Object = (RawResourceHandle, Props);

/// The objects of a route, with their properties.
struct Objects {
    plane: Object,
    connector: Object,
    crtc: Object,
}

impl Objects {
    fn of(&self, of: Of) -> (&'static str, &Object) {
        match of {
            Of::Plane => ("plane", &self.plane),
            Of::Crtc => ("CRTC", &self.crtc),
            Of::Connector => ("connector", &self.connector),
        }
    }
}

/// Adds the properties that the colours need. Returns in words how the colours are shown, and whether they differ from
/// what the caps say.
fn add_colours(
    found: &mut Found<'_>,
    objects: &Objects,
    tuning: &Tuning,
    colours: &Colours,
    decides: Decides,
) -> (Option<String>, bool) {
    let device = found.device;
    let offer = |of, name: &str| {
        let (info, now) = objects.of(of).1.1.find(name)?;
        let max = match info.value_type() {
            ValueType::UnsignedRange(_, max) => *max,
            _ => 0,
        };
        let names = names_of(info);
        Some(Offer { names, max, now })
    };
    let is_by_user = |of, name: &str| {
        let by_user = match of {
            Of::Plane => &tuning.plane,
            Of::Crtc => &tuning.crtc,
            Of::Connector => &tuning.connector,
        };
        let mut fields = by_user.iter().flat_map(|set| set.fields());
        fields.any(|field| is_name(field, name))
    };
    let edid = objects.connector.1.value("EDID").filter(|&blob| blob != 0);
    let edid = edid.and_then(|blob| device.get_property_blob(blob).ok());
    let mut plan = colours.plan(&Output {
        offer: &offer,
        is_by_user: &is_by_user,
        display: DisplayColours::of_edid(&edid.unwrap_or_default()),
        decides,
        resets: device.is_ours,
    });
    for Wish { of, name, value } in std::mem::take(&mut plan.wishes) {
        let wanted = match value {
            Value::Number(number) => Ok(Wanted::Number(number)),
            Value::Name(text) => Ok(Wanted::Name(text.into())),
            Value::Blob(bytes) => found.blob(&bytes).map(Wanted::Number),
        };
        let (what, object) = objects.of(of);
        let added = wanted.and_then(|wanted| found.add(what, object, name, wanted));
        plan.faults.extend(added.err());
    }
    let is_off_colour = !plan.faults.is_empty();
    let is_news = colours.is_notable() || is_off_colour || !plan.done.is_empty();
    (is_news.then(|| plan.words()), is_off_colour)
}

/// The names of the values of an enumeration.
fn names_of(info: &property::Info) -> Vec<String> {
    match info.value_type() {
        ValueType::Enum(values) => {
            let names = values.values().1.iter();
            names.map(|v| v.name().to_string_lossy().into()).collect()
        }
        _ => Vec::new(),
    }
}

/// Adds `zpos`, the rotation, and full `alpha`, which another DRM client may have left at another value.
fn add_plane_defaults(
    found: &mut Found<'_>,
    tuning: &Tuning,
    plane: &Object,
) -> Result<(), String> {
    let can_set = |name| plane.1.find(name).filter(|(info, _)| info.mutable());
    // Another DRM client may have left the plane rotated, or an earlier value of `rotate-method` may have.
    // Most planes have no such property, and need none to show a picture that is not turned.
    let is_rotation_due = tuning.rotation != ROTATE_0 || can_set("rotation").is_some();
    let rotation = is_rotation_due.then_some(tuning.rotation);
    let opaque = can_set("alpha").and_then(|(info, _)| match info.value_type() {
        ValueType::UnsignedRange(_, opaque) => Some(*opaque),
        _ => None,
    });
    for (name, value) in [
        ("alpha", opaque),
        ("zpos", tuning.zpos),
        ("rotation", rotation),
    ] {
        if let Some(value) = value {
            found.add("plane", plane, name, Wanted::Number(value))?;
        }
    }
    Ok(())
}

/// Adds the properties that the user asked for. Unlike with the colours, one that cannot be set is an error.
fn add_requested(found: &mut Found<'_>, objects: &Objects, tuning: &Tuning) -> Result<(), String> {
    for (what, object, structure) in [
        ("plane", &objects.plane, &tuning.plane),
        ("connector", &objects.connector, &tuning.connector),
        ("CRTC", &objects.crtc, &tuning.crtc),
    ] {
        for (name, value) in structure.iter().flat_map(|structure| structure.iter()) {
            let wanted = Wanted::of(value)
                .ok_or_else(|| format!("{what} property {name} is neither a number nor a name"))?;
            found.add(what, object, name, wanted)?;
        }
    }
    Ok(())
}

/// Adds what the application has set by GstColorBalance. Returns what it can set.
fn add_balance(
    found: &mut Found<'_>,
    objects: &Objects,
    balance: &Balance,
) -> Result<Controls, String> {
    let controls = Controls::find(|of, name| {
        let (info, now) = objects.of(of).1.1.find(name)?;
        let (min, max) = match *info.value_type() {
            ValueType::UnsignedRange(min, max) => {
                (i64::try_from(min).ok()?, i64::try_from(max).ok()?)
            }
            ValueType::SignedRange(min, max) => (min, max),
            _ => return None,
        };
        let now = now as i64; // the same bits
        info.mutable().then_some(Range { min, max, now })
    });
    for wish in balance.wishes(&controls) {
        let (what, object) = objects.of(wish.of);
        found.add(what, object, wish.name, Wanted::Number(wish.value))?;
    }
    Ok(controls)
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Number(u64),
    Name(String),
}

impl Wanted {
    fn of(value: &glib::SendValue) -> Option<Self> {
        let number = value
            .get::<i32>()
            .map(i64::from)
            .or_else(|_| value.get::<i64>())
            .map(|signed| signed as u64)
            .or_else(|_| value.get::<u32>().map(u64::from))
            .or_else(|_| value.get::<u64>())
            .or_else(|_| value.get::<bool>().map(u64::from));
        number
            .map(Self::Number)
            .ok()
            .or_else(|| value.get::<String>().map(Self::Name).ok())
    }
}

struct Found<'a> {
    device: &'a Arc<Device>,
    extras: Vec<Extra>,
    before: Vec<Extra>,
    blobs: Vec<Arc<PropertyBlob>>,
}

impl<'a> Found<'a> {
    fn new(device: &'a Arc<Device>) -> Self {
        Self {
            device,
            extras: Vec::new(),
            before: Vec::new(),
            blobs: Vec::new(),
        }
    }

    /// Makes a blob for the value of a property.
    fn blob(&mut self, bytes: &[u8]) -> Result<u64, String> {
        let blob = self.device.blob(bytes);
        let blob = blob.map_err(|error| format!("no blob: {}", sys::describe(&error)))?;
        let id = blob.id();
        self.blobs.push(blob);
        Ok(id)
    }

    /// What to restore a property to that is `now`: if that is a blob, to a copy of it, because the blob of another
    /// program may be gone by then.
    fn kept(&mut self, info: &property::Info, now: u64) -> u64 {
        let is_blob = matches!(info.value_type(), ValueType::Blob) && now != 0;
        match is_blob.then(|| self.device.copy_blob(now)) {
            Some(Ok(copy)) => {
                let id = copy.id();
                self.blobs.push(copy);
                id
            }
            _ => now,
        }
    }

    fn add(
        &mut self,
        what: &str,
        (object, props): &Object,
        name: &str,
        wanted: Wanted,
    ) -> Result<(), String> {
        let object = *object;
        let Some((info, now)) = props.find(name) else {
            return Err(format!(
                "the {what} has no property {name}; it has {}",
                props.mutable_names().join(", ")
            ));
        };
        if !info.mutable() {
            return Err(format!(
                "the {what}'s property {name} cannot be changed; it is {now}"
            ));
        }
        let value = match (wanted, info.value_type()) {
            (Wanted::Number(value), _) => value,
            (Wanted::Name(text), ValueType::Enum(values)) => {
                let names = names_of(info);
                match names
                    .iter()
                    .position(|known| known.eq_ignore_ascii_case(&text))
                {
                    Some(index) => values.values().1[index].value(),
                    None => {
                        return Err(format!(
                            "the {what}'s property {name} cannot be \"{text}\", only {}",
                            names.join(", ")
                        ));
                    }
                }
            }
            (Wanted::Name(text), _) => text
                .parse()
                .map_err(|_| format!("the {what}'s property {name} is a number, not \"{text}\""))?,
        };
        self.extras
            .retain(|&(other, handle, _)| (other, handle) != (object, info.handle()));
        self.extras.push((object, info.handle(), value));
        let kept = match what {
            // A plane that the sink leaves keeps its values beyond this.
            "plane" => now,
            _ => self.kept(info, now),
        };
        self.before.push((object, info.handle(), kept));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refresh_rate_varies_only_if_display_and_driver_can() {
        let enable = drm::control::from_u32(7).map(|property: property::Handle| (property, 0));
        assert_eq!(vrr_property(true, enable), Ok(enable.unwrap()));
        assert!(
            vrr_property(true, None)
                .unwrap_err()
                .contains("VRR_ENABLED")
        );
        for enable in [None, enable] {
            let reason = vrr_property(false, enable).unwrap_err();
            assert!(reason.contains("vrr_capable"), "{reason}");
        }
    }

    #[test]
    fn numbers_of_any_type_and_names_are_understood() {
        gst::init().unwrap();
        let structure = gst::Structure::builder("p")
            .field("a", 5i32)
            .field("b", -1i64)
            .field("c", true)
            .field("d", u64::MAX)
            .field("e", "Pre-multiplied")
            .build();
        let wanted = |name: &str| Wanted::of(structure.value(name).unwrap());
        assert_eq!(wanted("a"), Some(Wanted::Number(5)));
        assert_eq!(wanted("b"), Some(Wanted::Number(u64::MAX)));
        assert_eq!(wanted("c"), Some(Wanted::Number(1)));
        assert_eq!(wanted("d"), Some(Wanted::Number(u64::MAX)));
        assert_eq!(wanted("e"), Some(Wanted::Name("Pre-multiplied".into())));
    }

    /// Where the upper left and the upper right corner are after reflection and counter-clockwise turns.
    fn corner(bits: u64) -> [(i32, i32); 2] {
        [(0, 0), (1, 0)].map(|(x, y)| {
            let (mut x, mut y) = (2 * x - 1, 2 * y - 1);
            if bits & 1 << 4 != 0 {
                x = -x;
            }
            if bits & 1 << 5 != 0 {
                y = -y;
            }
            for _ in 0..(bits & 0xf).trailing_zeros() {
                (x, y) = (y, -x);
            }
            (x, y)
        })
    }

    #[test]
    fn each_method_puts_the_upper_corners_where_gstreamer_says() {
        use VideoOrientationMethod as M;
        let (ul, ur, ll, lr) = ((-1, -1), (1, -1), (-1, 1), (1, 1));
        for (method, corners) in [
            (M::Identity, [ul, ur]),
            (M::_90r, [ur, lr]),
            (M::_180, [lr, ll]),
            (M::_90l, [ll, ul]),
            (M::Horiz, [ur, ul]),
            (M::Vert, [ll, lr]),
            (M::UlLr, [ul, ll]),
            (M::UrLl, [lr, ur]),
        ] {
            assert_eq!(corner(rotation_bits(method)), corners, "{method:?}");
        }
        assert_eq!(rotation_bits(M::Identity), ROTATE_0);
    }
}
