// SPDX-License-Identifier: MPL-2.0
//! `rawvideo:///path/clip.raw?format=nv12&width=1920&height=1080`: the path, and
//! properties by name. Not `file:`, which belongs to others.

/// The scheme.
pub const SCHEME: &str = "rawvideo";

/// What a URI asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Of the file; none for the test pattern.
    pub path: Option<String>,
    /// Names and values of properties.
    pub properties: Vec<(String, String)>,
}

/// Why a URI is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Escapes that are no text.
    #[error("\"{0}\" is not UTF-8")]
    Text(String),
    /// For somebody else.
    #[error("\"{0}\" is not of the form rawvideo:///path?property=value")]
    Scheme(String),
    /// A part of the query.
    #[error("\"{0}\" is not of the form property=value")]
    Parameter(String),
}

impl Parsed {
    /// Parses a URI.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let wrong_form = || UriError::Scheme(text.to_owned());
        let rest = text
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.strip_prefix(':'));
        let rest = rest.ok_or_else(wrong_form)?;
        // An empty host is this machine; there is no other.
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

fn decode(text: &str) -> Result<String, UriError> {
    let bytes = percent_encoding::percent_decode_str(text);
    let decoded = bytes.decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| UriError::Text(text.to_owned()))
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
    fn other_uris_are_refused() {
        assert!(Parsed::parse("file:///a.raw").is_err());
        assert!(Parsed::parse("rawvideo://host/a.raw").is_err());
        assert!(Parsed::parse("rawvideo:///a.raw?width").is_err());
        assert!(Parsed::parse("no uri").is_err());
        assert!(Parsed::parse("rawvideo:///%ff").is_err());
    }
}
