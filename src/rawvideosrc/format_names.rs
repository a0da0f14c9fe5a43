// SPDX-License-Identifier: MPL-2.0
//! Names of video formats as text.
//!
//! Where a property is set from text, as in a line of gst-launch-1.0, GStreamer reads the nicks of an
//! enumeration. Those of GstVideoFormat are in lower case (`nv12`, `i420-10le`), while caps, and people,
//! write `NV12` and `I420_10LE`. [`register`] makes GStreamer read both.
//!
//! An enumeration of this plugin, with both names, would be read so without that. But a program that sets
//! the property to a GstVideoFormat would break: glib's Rust bindings take no value of another type.
//! So the function here takes the place of the one with which GStreamer reads enumerations, for
//! GstVideoFormat alone and in the whole process: rawvideoparse takes the names of caps as well then. Each
//! text that GStreamer reads without this function keeps its meaning.

use std::ffi::{CStr, c_char};

use gst::{
    ffi::{GstValueTable, gst_value_register},
    glib::{self, ffi::gboolean, gobject_ffi, prelude::*, translate::IntoGlib},
    prelude::*,
};
use gst_video::VideoFormat;

use super::CAT;

/// The format that caps call by this name, in upper or lower case.
pub fn of_caps(name: &str) -> Option<VideoFormat> {
    VideoFormat::iter_raw().find(|format| format.to_str().eq_ignore_ascii_case(name))
}

/// The names that caps have for all formats, for people.
pub fn all() -> String {
    let names: Vec<&str> = VideoFormat::iter_raw()
        .map(|format| format.to_str().as_str())
        .collect();
    names.join(", ")
}

/// Makes GStreamer read the names that caps have for formats. Does nothing if it does so already: another
/// copy of this library has registered the function, or a newer GStreamer has one of its own.
///
/// As gst_value_register itself, not to be called in two threads at once.
pub fn register() {
    let format = VideoFormat::static_type();
    if glib::Value::deserialize("NV12", format).is_ok() {
        return;
    }
    let table = GstValueTable {
        type_: format.into_glib(),
        compare: None,
        serialize: None,
        deserialize: Some(deserialize),
        deserialize_with_pspec: None,
        hash: None,
        _gst_reserved: [std::ptr::null_mut(); 2],
    };
    // SAFETY: GStreamer keeps the pointer, and the table lives as long as the process. For the functions
    // that are not there, GStreamer uses those of all enumerations.
    unsafe { gst_value_register(Box::leak(Box::new(table))) };
}

/// A GstValueDeserializeFunc.
///
/// # Safety
/// `dest` must be a GValue for a GstVideoFormat, and `text` a C string.
unsafe extern "C" fn deserialize(dest: *mut gobject_ffi::GValue, text: *const c_char) -> gboolean {
    // SAFETY: GStreamer calls the function with a C string.
    let text = unsafe { CStr::from_ptr(text) };
    let Some(number) = number_of(text) else {
        gst::warning!(CAT, "there is no format {text:?}, but: {}", all());
        return glib::ffi::GFALSE;
    };
    // SAFETY: GStreamer calls the function for the type with which it was registered.
    unsafe { gobject_ffi::g_value_set_enum(dest, number) };
    glib::ffi::GTRUE
}

/// The value of GstVideoFormat that is meant: by its name in C, its nick, its number, as GStreamer reads any
/// enumeration, or by its name in caps.
fn number_of(text: &CStr) -> Option<i32> {
    let class = glib::EnumClass::with_type(VideoFormat::static_type())?;
    let name = text.to_str().ok()?;
    let value = class
        .value_by_name(name)
        .or_else(|| class.value_by_nick(name))
        .or_else(|| class.value(strtol(text)?));
    match value {
        Some(value) => Some(value.value()),
        None => of_caps(name).map(IntoGlib::into_glib),
    }
}

/// The number as C reads it: decimal, or with 0x or 0 in front. `None` if anything follows it.
fn strtol(text: &CStr) -> Option<i32> {
    let mut end = std::ptr::null_mut();
    // SAFETY: the text is a C string, and `end` is written before the call returns.
    let number = unsafe { libc::strtol(text.as_ptr(), &mut end, 0) };
    // SAFETY: strtol leaves `end` within the text or at its NUL.
    let is_whole = unsafe { *end } == 0;
    is_whole.then(|| i32::try_from(number).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn read(text: &str) -> Option<VideoFormat> {
        let value = glib::Value::deserialize(text, VideoFormat::static_type()).ok()?;
        value.get().ok()
    }

    #[test]
    fn every_format_is_read_by_each_of_its_names() {
        gst::init().unwrap();
        register();
        register();
        let class = glib::EnumClass::with_type(VideoFormat::static_type()).unwrap();
        for value in class.values() {
            let number = value.value();
            for text in [
                value.name(),
                value.nick(),
                &number.to_string(),
                &format!("{number:#x}"),
            ] {
                let text = CString::new(text).unwrap();
                assert_eq!(number_of(&text), Some(number), "{text:?}");
            }
        }
        for format in VideoFormat::iter_raw() {
            let name = format.to_str();
            assert_eq!(read(name), Some(format));
            assert_eq!(read(&name.to_lowercase()), Some(format));
        }
    }

    #[test]
    fn other_texts_are_refused_and_what_gstreamer_writes_stays() {
        gst::init().unwrap();
        register();
        for text in ["NV13", "NV12 ", "23x", "99999999999", "-5", "\u{e9}"] {
            assert_eq!(read(text), None, "{text}");
        }
        let written = VideoFormat::I42010le.to_value().serialize().unwrap();
        assert_eq!(written, "i420-10le");
    }
}
