// SPDX-License-Identifier: MPL-2.0
//! Texts of properties. Those of C may have any bytes, as names of files do, but those of Rust are UTF-8, and glib's
//! bindings end the application with a panic where they read another one. (GStreamer refuses such texts in structures.)

use std::path::PathBuf;

use gst::{glib, prelude::*};

/// What a property is to be set to for this value: the value itself, unless it is a text that is not UTF-8. Bytes that
/// are no UTF-8 are replaced by U+FFFD, so that an element says which file, device or name there is none of.
pub(crate) fn readable(value: &glib::Value) -> glib::Value {
    // A path is read from a text of any bytes.
    let path = value.get::<Option<PathBuf>>().ok().flatten();
    match path {
        Some(path) if path.to_str().is_none() => path.to_string_lossy().to_value(),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_that_are_not_utf8_are_changed() {
        use std::os::unix::ffi::OsStrExt;
        gst::init().unwrap();
        let text = |value: &glib::Value| readable(value).get::<Option<String>>().unwrap();
        let spoiled = PathBuf::from(std::ffi::OsStr::from_bytes(b"a\xffb"));
        assert_eq!(text(&spoiled.to_value()).as_deref(), Some("a\u{fffd}b"));
        for same in ["", "/dev/dri/card0", "\u{1f39e}"] {
            assert_eq!(text(&same.to_value()).as_deref(), Some(same));
        }
        assert_eq!(text(&None::<String>.to_value()), None);
        assert_eq!(readable(&7u32.to_value()).get(), Ok(7u32));
    }
}
