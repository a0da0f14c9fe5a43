// SPDX-License-Identifier: MPL-2.0
//! Properties of plane and connector that the user sets: by structure, or by
//! the shorthands `zpos` and `rotate-method`.

use drm::control::RawResourceHandle;
use drm::control::property::ValueType;
use gst::glib;
use gst_video::VideoOrientationMethod;

use super::card::{self, Card, Props};
use super::crtc::Extra;
use super::discovery::Route;

/// What to set.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    /// Of the plane.
    pub plane: Option<gst::Structure>,
    /// Of the connector.
    pub connector: Option<gst::Structure>,
    /// Order among the planes.
    pub zpos: Option<u64>,
    /// DRM_MODE_ROTATE_* and DRM_MODE_REFLECT_*.
    pub rotation: Option<u64>,
}

/// The bits of the plane property "rotation" for a method; None for identity.
///
/// Reflection comes first, and DRM turns counter-clockwise (drm_mode.h).
pub fn rotation_bits(method: VideoOrientationMethod) -> Option<u64> {
    const ROTATE_0: u64 = 1 << 0;
    const ROTATE_90: u64 = 1 << 1;
    const ROTATE_180: u64 = 1 << 2;
    const ROTATE_270: u64 = 1 << 3;
    const REFLECT_X: u64 = 1 << 4;
    const REFLECT_Y: u64 = 1 << 5;
    match method {
        VideoOrientationMethod::_90r => Some(ROTATE_270),
        VideoOrientationMethod::_180 => Some(ROTATE_180),
        VideoOrientationMethod::_90l => Some(ROTATE_90),
        VideoOrientationMethod::Horiz => Some(ROTATE_0 | REFLECT_X),
        VideoOrientationMethod::Vert => Some(ROTATE_0 | REFLECT_Y),
        VideoOrientationMethod::UlLr => Some(ROTATE_90 | REFLECT_X),
        VideoOrientationMethod::UrLl => Some(ROTATE_270 | REFLECT_X),
        _ => None,
    }
}

/// Whether rows become columns.
pub fn is_turned(method: VideoOrientationMethod) -> bool {
    matches!(
        method,
        VideoOrientationMethod::_90r
            | VideoOrientationMethod::_90l
            | VideoOrientationMethod::UlLr
            | VideoOrientationMethod::UrLl
    )
}

/// The properties to set, and the values that they have now.
pub fn resolve(
    card: &Card,
    route: &Route,
    tuning: &Tuning,
) -> Result<(Vec<Extra>, Vec<Extra>), String> {
    let read =
        |error: std::io::Error| format!("reading properties: {}", crate::sys::describe(&error));
    let plane = card::plane_handle(route.kms_plane).map_err(read)?;
    let connector = card::connector_handle(route.connector).map_err(read)?;
    let plane_props = card.props(plane).map_err(read)?;
    let connector_props = card.props(connector).map_err(read)?;
    let mut found = Found::default();
    for (name, value) in [("zpos", tuning.zpos), ("rotation", tuning.rotation)] {
        if let Some(value) = value {
            found.add(
                "plane",
                plane.into(),
                &plane_props,
                name,
                Wanted::Number(value),
            )?;
        }
    }
    for (what, object, props, structure) in [
        ("plane", plane.into(), &plane_props, &tuning.plane),
        (
            "connector",
            connector.into(),
            &connector_props,
            &tuning.connector,
        ),
    ] {
        for (name, value) in structure.iter().flat_map(|structure| structure.iter()) {
            let wanted = Wanted::of(value)
                .ok_or_else(|| format!("{what} property {name} is neither a number nor a name"))?;
            found.add(what, object, props, name, wanted)?;
        }
    }
    Ok((found.extras, found.before))
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
                let names: Vec<_> = values
                    .values()
                    .1
                    .iter()
                    .map(|v| v.name().to_string_lossy())
                    .collect();
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
        self.extras.push((object, info.handle(), value));
        self.before.push((object, info.handle(), now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// A corner of the picture after reflection and counter-clockwise turns.
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
            (M::_90r, [ur, lr]),
            (M::_180, [lr, ll]),
            (M::_90l, [ll, ul]),
            (M::Horiz, [ur, ul]),
            (M::Vert, [ll, lr]),
            (M::UlLr, [ul, ll]),
            (M::UrLl, [lr, ur]),
        ] {
            assert_eq!(
                corner(rotation_bits(method).unwrap()),
                corners,
                "{method:?}"
            );
        }
        assert_eq!(rotation_bits(M::Identity), None);
    }
}
