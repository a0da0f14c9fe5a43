// SPDX-License-Identifier: MPL-2.0
//! KMS properties of plane, connector and CRTC that are set once and not for every frame: those that the user
//! asks for (`plane-properties`, `connector-properties`, `crtc-properties`, `zpos`, `rotate-method`), and the
//! conversion from the frames' YUV to RGB.

use drm::control::property::{self, ValueType};
use drm::control::{RawResourceHandle, plane};
use gst::glib;
use gst_video::{VideoColorMatrix, VideoColorRange, VideoOrientationMethod};

use super::device::{self, Device, Props, is_name};
use super::discovery::Route;
use super::error::KmsError;
use super::kms_plane::Extra;

/// The values to set. `None` leaves the properties as they are.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Properties of the plane, by name.
    pub plane: Option<gst::Structure>,
    /// Properties of the connector, by name.
    pub connector: Option<gst::Structure>,
    /// Properties of the CRTC, by name.
    pub crtc: Option<gst::Structure>,
    /// Whether to switch VRR_ENABLED on, if the display can vary its refresh rate.
    pub variable_refresh: bool,
    pub zpos: Option<u64>,
    /// Bits of DRM_MODE_ROTATE_* and DRM_MODE_REFLECT_*. A plane without the property needs none for
    /// [`ROTATE_0`].
    pub rotation: u64,
    pub colour: Option<Colour>,
}

/// How the caps say that YUV is to be converted to RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    matrix: VideoColorMatrix,
    range: VideoColorRange,
}

/// The values of COLOR_ENCODING, as the kernel names them (drm_color_mgmt.c).
const ENCODINGS: [(&str, VideoColorMatrix); 3] = [
    ("ITU-R BT.601 YCbCr", VideoColorMatrix::Bt601),
    ("ITU-R BT.709 YCbCr", VideoColorMatrix::Bt709),
    ("ITU-R BT.2020 YCbCr", VideoColorMatrix::Bt2020),
];

impl Colour {
    /// `None` for frames that are not YUV.
    pub fn of(info: &gst_video::VideoInfo) -> Option<Self> {
        let colorimetry = info.colorimetry();
        info.is_yuv().then(|| Self {
            matrix: colorimetry.matrix(),
            range: colorimetry.range(),
        })
    }

    /// The value of COLOR_ENCODING whose Kr and Kb are nearest to those of the caps, among the values for which
    /// `is_there` is true. DRM has no names for FCC and SMPTE 240M, for which the nearest values differ by at
    /// most 0.015. `None` if the caps name no matrix, or the plane has no encoding.
    fn encoding(&self, is_there: impl Fn(&str) -> bool) -> Option<&'static str> {
        let (kr, kb) = self.matrix.kr_kb().ok()?;
        let distance = |matrix: VideoColorMatrix| {
            let (other_kr, other_kb) = matrix.kr_kb().unwrap_or((1.0, 1.0));
            (other_kr - kr).abs().max((other_kb - kb).abs())
        };
        let there = ENCODINGS.into_iter().filter(|&(name, _)| is_there(name));
        let nearest = there.min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
        nearest.map(|(name, _)| name)
    }

    /// The value of COLOR_RANGE. `None` if the caps name no range.
    fn range(&self) -> Option<&'static str> {
        match self.range {
            VideoColorRange::Range0_255 => Some("YCbCr full range"),
            VideoColorRange::Range16_235 => Some("YCbCr limited range"),
            _ => None,
        }
    }
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
    /// In words, how well the plane converts YUV as the caps say; `None` for frames that are not YUV.
    pub colours: Option<String>,
    /// Whether the display varies its refresh rate, or in words why it does not; `None` if that is not wanted.
    pub variable_refresh: Option<Result<(), &'static str>>,
}

pub fn resolve(device: &Device, route: &Route, tuning: &Tuning) -> Result<Resolved, KmsError> {
    let read = |source| KmsError::Io {
        operation: "reading properties",
        path: device.path.clone(),
        source,
    };
    let plane = device::plane_handle(route.kms_plane).map_err(read)?;
    let connector = device::connector_handle(route.connector).map_err(read)?;
    let crtc = device::crtc_handle(route.crtc).map_err(read)?;
    let plane_props = device.props(plane).map_err(read)?;
    let connector_props = device.props(connector).map_err(read)?;
    let crtc_props = device.props(crtc).map_err(read)?;
    let mut found = Found::default();
    // The colours come first, because a value that is added later replaces an earlier one.
    let colours = tuning
        .colour
        .map(|colour| add_colours(&mut found, colour, plane, &plane_props, &tuning.plane));
    let variable_refresh = tuning.variable_refresh.then(|| {
        let is_capable = connector_props.value("vrr_capable") == Some(1);
        let enable = crtc_props.handle("VRR_ENABLED");
        let enable = enable.zip(crtc_props.value("VRR_ENABLED"));
        let (property, now) = vrr_property(is_capable, enable)?;
        found.extras.push((crtc.into(), property, 1));
        // On a card of the sink's own, the setup has reset what another program left, and the CRTC restores that.
        let before = if device.is_ours { 0 } else { now };
        found.before.push((crtc.into(), property, before));
        Ok(())
    });
    let by_user = [
        ("plane", plane.into(), &plane_props, &tuning.plane),
        (
            "connector",
            connector.into(),
            &connector_props,
            &tuning.connector,
        ),
        ("CRTC", crtc.into(), &crtc_props, &tuning.crtc),
    ];
    add_plane_defaults(&mut found, tuning, plane, &plane_props)
        .and_then(|()| add_requested(&mut found, by_user))
        .map_err(KmsError::Property)?;
    Ok(Resolved {
        extras: found.extras,
        before: found.before,
        colours,
        variable_refresh,
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

/// Adds COLOR_ENCODING and COLOR_RANGE unless the user sets them. Returns in words how well the plane converts as the
/// caps say.
fn add_colours(
    found: &mut Found,
    colour: Colour,
    plane: plane::Handle,
    props: &Props,
    by_user: &Option<gst::Structure>,
) -> String {
    let values = |name| props.find(name).map(|(info, _)| names_of(info));
    let encodings = values("COLOR_ENCODING").unwrap_or_default();
    let encoding = |is_there: &dyn Fn(&str) -> bool| colour.encoding(is_there);
    let wishes = [
        (
            "COLOR_ENCODING",
            encoding(&|_| true),
            encoding(&|name| encodings.iter().any(|known| known == name)),
        ),
        ("COLOR_RANGE", colour.range(), colour.range()),
    ];
    let mut notes = Vec::new();
    for (name, wanted, nearest) in wishes {
        let is_by_user = |set: &gst::Structure| set.fields().any(|field| is_name(field, name));
        if by_user.as_ref().is_some_and(is_by_user) {
            notes.push(format!("{name} is that of plane-properties"));
            continue;
        }
        let Some(wanted) = wanted else {
            notes.push(format!("the caps do not say which {name}"));
            continue;
        };
        let value = Wanted::Name(nearest.unwrap_or(wanted).into());
        match found.add("plane", plane.into(), props, name, value) {
            Ok(()) if nearest == Some(wanted) => {}
            Ok(()) => notes.push(format!(
                "the plane has no {wanted}, and the nearest is {}",
                nearest.unwrap_or_default()
            )),
            // Most planes have neither property. They convert in one way, which KMS does not report.
            Err(reason) => notes.push(reason),
        }
    }
    match notes.is_empty() {
        true => AS_THE_CAPS_SAY.into(),
        false => notes.join("; "),
    }
}

/// The text of `Resolved::colours` for a plane that converts exactly as the caps say.
pub const AS_THE_CAPS_SAY: &str = "as the caps say";

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
    found: &mut Found,
    tuning: &Tuning,
    plane: plane::Handle,
    props: &Props,
) -> Result<(), String> {
    let can_set = |name| props.find(name).filter(|(info, _)| info.mutable());
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
            let wanted = Wanted::Number(value);
            found.add("plane", plane.into(), props, name, wanted)?;
        }
    }
    Ok(())
}

type ByUser<'a> = (
    &'static str,
    RawResourceHandle,
    &'a Props,
    &'a Option<gst::Structure>,
);

/// Adds the properties that the user asked for. Unlike with the colours, one that cannot be set is an error.
fn add_requested(found: &mut Found, objects: [ByUser<'_>; 3]) -> Result<(), String> {
    for (what, object, props, structure) in objects {
        for (name, value) in structure.iter().flat_map(|structure| structure.iter()) {
            let wanted = Wanted::of(value)
                .ok_or_else(|| format!("{what} property {name} is neither a number nor a name"))?;
            found.add(what, object, props, name, wanted)?;
        }
    }
    Ok(())
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

#[derive(Default)]
struct Found {
    extras: Vec<Extra>,
    before: Vec<Extra>,
}

impl Found {
    fn add(
        &mut self,
        what: &str,
        object: RawResourceHandle,
        props: &Props,
        name: &str,
        wanted: Wanted,
    ) -> Result<(), String> {
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
        self.before.push((object, info.handle(), now));
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

    fn colour(format: gst_video::VideoFormat, colorimetry: &str) -> Option<Colour> {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(format, 64, 64)
            .colorimetry(&colorimetry.parse().unwrap())
            .build();
        Colour::of(&info.unwrap())
    }

    #[test]
    fn colours_are_made_of_yuv_as_the_caps_say() {
        let (full, limited) = (Some("YCbCr full range"), Some("YCbCr limited range"));
        for (colorimetry, encoding, range) in [
            ("bt601", Some("ITU-R BT.601 YCbCr"), limited),
            ("bt709", Some("ITU-R BT.709 YCbCr"), limited),
            ("bt2020-10", Some("ITU-R BT.2020 YCbCr"), limited),
            ("smpte240m", Some("ITU-R BT.709 YCbCr"), limited),
            ("2:2:0:0", Some("ITU-R BT.601 YCbCr"), limited),
            ("1:4:0:0", Some("ITU-R BT.601 YCbCr"), full),
            ("1:3:0:0", Some("ITU-R BT.709 YCbCr"), full),
            ("0:0:0:0", None, None),
        ] {
            let told = colour(gst_video::VideoFormat::Nv12, colorimetry).unwrap();
            assert_eq!(told.encoding(|_| true), encoding, "{colorimetry}");
            assert_eq!(told.range(), range, "{colorimetry}");
        }
        assert_eq!(colour(gst_video::VideoFormat::Bgrx, "sRGB"), None);
    }

    #[test]
    fn a_plane_without_the_encoding_gets_the_nearest() {
        for (colorimetry, plane_has, nearest) in [
            ("bt2020", "601 709", Some("ITU-R BT.709 YCbCr")),
            ("bt601", "709 2020", Some("ITU-R BT.2020 YCbCr")),
            ("bt709", "601", Some("ITU-R BT.601 YCbCr")),
            ("bt709", "", None),
        ] {
            let colour = colour(gst_video::VideoFormat::Nv12, colorimetry).unwrap();
            let is_there = |name: &str| {
                plane_has
                    .split(' ')
                    .any(|n| name.contains(&format!(".{n} ")))
            };
            assert_eq!(
                colour.encoding(is_there),
                nearest,
                "{colorimetry} of {plane_has}"
            );
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
