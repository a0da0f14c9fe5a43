// SPDX-License-Identifier: MPL-2.0
//! Parses URIs such as `rawvideo:///path/clip.raw?format=nv12&width=1920&height=1080`: a path,
//! and properties by name. The scheme is not `file:`, because other elements handle that; the property
//! `location` takes such a URI all the same.

use gst::{
    glib::{self, translate::ToGlibPtr, translate::ToGlibPtrMut},
    prelude::*,
};

use super::format_names;

pub const SCHEME: &str = "rawvideo";
/// The beginning of the URI of a file with an absolute path, with a host (`file://`) or without.
const FILE: &str = "file:/";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// `None` for the test pattern.
    pub path: Option<String>,
    pub properties: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("\"{0}\" is no text: it is not UTF-8, or has a NUL in it")]
    Text(String),
    #[error("\"{0}\" is not of the form rawvideo:///path?property=value")]
    Scheme(String),
    #[error("\"{0}\" is not of the form property=value")]
    Parameter(String),
}

impl Parsed {
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let wrong_form = || UriError::Scheme(text.to_owned());
        let rest = text
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.strip_prefix(':'));
        let rest = rest.ok_or_else(wrong_form)?;
        // The host must be empty, which means this machine.
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.is_empty() && !path.starts_with('/') {
            return Err(wrong_form());
        }
        let properties = query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (name, value) = part
                    .split_once('=')
                    .ok_or_else(|| UriError::Parameter(part.to_owned()))?;
                Ok((name.to_owned(), decode(value)?))
            })
            .collect::<Result<_, _>>()?;
        let path = decode(path)?;
        Ok(Self {
            path: (!path.is_empty() && path != "/").then_some(path),
            properties,
        })
    }
}

/// The path that a `location` means: that of a URI such as `file:///a%20b.raw`, else the location itself.
/// The error says why it is no file of this machine.
pub fn path_of(location: &str) -> Result<String, String> {
    let scheme = location.get(..FILE.len());
    if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(FILE)) {
        return Ok(location.to_owned());
    }
    let (path, host) = glib::filename_from_uri(location).map_err(|error| error.to_string())?;
    if let Some(host) = host.filter(|host| !host.is_empty() && host != "localhost") {
        return Err(format!("it is a file of the machine \"{host}\""));
    }
    let path = path.into_os_string().into_string();
    path.map_err(|path| format!("the path {path:?} is not UTF-8"))
}

/// The error text for a name that is no property.
pub fn unknown(name: &str) -> String {
    format!("there is no property \"{name}\": gst-inspect-1.0 rawvideosrc lists them")
}

/// Parses the value of a property. A value out of the property's range is an error here,
/// because setting it would panic.
pub fn value(pspec: &glib::ParamSpec, text: &str) -> Result<glib::Value, String> {
    let name = pspec.name();
    let refused = || {
        let range = range(pspec).map_or(String::new(), |range| format!(", {range}"));
        format!(
            "\"{text}\" is no value for \"{name}\", which takes {}{range}",
            pspec.value_type().name()
        )
    };
    // GStreamer parses an empty text as 0.
    if text.is_empty() && pspec.value_type() != glib::Type::STRING {
        return Err(refused());
    }
    let value = glib::Value::deserialize_with_pspec(text, pspec);
    let mut value = value.map_err(|_| refused())?;
    // SAFETY: `pspec` and `value` live until the call returns, no other code has `value`, and
    // it is of the type of `pspec`, for which it was made.
    let is_changed = unsafe {
        glib::gobject_ffi::g_param_value_validate(
            pspec.to_glib_none().0,
            value.to_glib_none_mut().0,
        )
    };
    // g_param_value_validate changes a value that is out of range.
    if is_changed != glib::ffi::GFALSE || has_wrapped(text, &value) {
        return Err(refused());
    }
    Ok(value)
}

/// Whether parsing has changed an unsigned number: GStreamer takes -1 for the largest one.
fn has_wrapped(text: &str, value: &glib::Value) -> bool {
    let said = match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let got = value.get::<u32>().map(i128::from);
    let got = got.or_else(|_| value.get::<u64>().map(i128::from));
    matches!((said, got), (Ok(said), Ok(got)) if said != got)
}

/// The values that a property takes, as text.
fn range(pspec: &glib::ParamSpec) -> Option<String> {
    macro_rules! number {
        ($($kind:ty),*) => {
            $(if let Some(pspec) = pspec.downcast_ref::<$kind>() {
                return Some(format!("{} to {}", pspec.minimum(), pspec.maximum()));
            })*
        };
    }
    number!(
        glib::ParamSpecInt,
        glib::ParamSpecUInt,
        glib::ParamSpecInt64,
        glib::ParamSpecUInt64,
        gst::ParamSpecFraction
    );
    if pspec.value_type() == gst_video::VideoFormat::static_type() {
        return Some(format_names::all());
    }
    let class = glib::EnumClass::with_type(pspec.value_type())?;
    let nicks: Vec<&str> = class.values().iter().map(|value| value.nick()).collect();
    Some(nicks.join(", "))
}

fn decode(text: &str) -> Result<String, UriError> {
    let bytes = percent_encoding::percent_decode_str(text);
    let decoded = bytes.decode_utf8();
    decoded
        .ok()
        // Neither a path nor a property can contain a NUL.
        .filter(|decoded| !decoded.contains('\0'))
        .map(std::borrow::Cow::into_owned)
        .ok_or_else(|| UriError::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_properties_are_taken_apart() {
        let parsed =
            Parsed::parse("rawvideo:///a%20b/c.raw?width=64&format=nv12&loop=true").unwrap();
        assert_eq!(parsed.path.as_deref(), Some("/a b/c.raw"));
        let expected = [("width", "64"), ("format", "nv12"), ("loop", "true")];
        let properties: Vec<_> = parsed
            .properties
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(properties, expected);
        let escaped = Parsed::parse("rawvideo:?colorimetry=a%26b").unwrap();
        assert_eq!(escaped.path, None);
        assert_eq!(escaped.properties[0].1, "a&b");
    }

    #[test]
    fn a_nul_is_in_no_path_and_no_property() {
        for uri in ["rawvideo:///a%00b.raw", "rawvideo:?colorimetry=a%00b"] {
            let refused = Parsed::parse(uri);
            assert!(matches!(refused, Err(UriError::Text(_))), "{refused:?}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        gst::init().unwrap();
        let width = glib::ParamSpecInt::builder("width").minimum(0).build();
        assert_eq!(value(&width, "64").unwrap().get::<i32>(), Ok(64));
        for text in ["-1", "99999999999", "64x", "", "true"] {
            let why = value(&width, text).unwrap_err();
            let range = "\"width\", which takes gint, 0 to 2147483647";
            assert!(why.contains(range) && why.contains(text), "{why}");
        }
        let mode =
            glib::ParamSpecEnum::builder_with_default("io-mode", crate::rawvideosrc::IoMode::Auto);
        let why = value(&mode.build(), "fast").unwrap_err();
        assert!(why.contains("auto, read, mmap, io-uring"), "{why}");
        let unknown = gst_video::VideoFormat::Unknown;
        let format = glib::ParamSpecEnum::builder_with_default("format", unknown);
        let why = value(&format.build(), "NV13").unwrap_err();
        assert!(why.contains(" NV12, "), "{why}");
    }

    #[test]
    fn the_uri_of_a_file_is_a_location() {
        for (location, path) in [
            ("/a/b.raw", "/a/b.raw"),
            ("file.raw", "file.raw"),
            ("file:x.raw", "file:x.raw"),
            ("fil\u{e9}:/x.raw", "fil\u{e9}:/x.raw"),
            ("/a%20b.raw", "/a%20b.raw"),
            ("file:///a%20b.raw", "/a b.raw"),
            ("FILE:/a.raw", "/a.raw"),
            ("file://localhost/a.raw", "/a.raw"),
            ("file:///frame-%2505d.raw", "/frame-%05d.raw"),
            ("file:///%C3%A9.raw", "/\u{e9}.raw"),
        ] {
            assert_eq!(path_of(location).as_deref(), Ok(path), "{location}");
        }
        for (location, word) in [
            ("file://server/a.raw", "server"),
            ("file:///a%00b.raw", "a%00b"),
            ("file:///%ff.raw", "UTF-8"),
            ("file:///a%zz.raw", "a%zz"),
        ] {
            let why = path_of(location).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn other_uris_are_refused() {
        assert!(Parsed::parse("file:///a.raw").is_err());
        assert!(Parsed::parse("rawvideo://host/a.raw").is_err());
        assert!(Parsed::parse("rawvideo:///a.raw?width").is_err());
        assert!(Parsed::parse("no uri").is_err());
        assert!(Parsed::parse("rawvideo:///%ff").is_err());
    }
}
