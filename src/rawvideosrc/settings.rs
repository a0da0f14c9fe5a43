// SPDX-License-Identifier: MPL-2.0
//! What the user asked for: the values behind the properties.

use gst::glib;

/// How a file is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRawVideoSrcIoMode")]
#[repr(i32)]
pub enum IoMode {
    /// The fastest that the file and the buffers allow.
    #[default]
    #[enum_value(name = "Whatever suits file and buffers best", nick = "auto")]
    Auto,
    /// pread into the buffers.
    #[enum_value(name = "Read into the buffers (preadv)", nick = "read")]
    Read,
}

/// Values of the properties, copied at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Path of the file; without one, the test pattern is drawn.
    pub location: Option<String>,
    /// `Unknown`: to be found out.
    pub format: gst_video::VideoFormat,
    /// 0: to be found out.
    pub width: i32,
    /// 0: to be found out.
    pub height: i32,
    /// 0/1: to be found out.
    pub framerate: gst::Fraction,
    /// Start again at the end.
    pub looping: bool,
    /// With `looping`: how many times to play; 0 for no end.
    pub loop_count: u32,
    /// How a file is read.
    pub io_mode: IoMode,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            location: None,
            format: gst_video::VideoFormat::Unknown,
            width: 0,
            height: 0,
            framerate: gst::Fraction::new(0, 1),
            looping: false,
            loop_count: 0,
            io_mode: IoMode::Auto,
        }
    }
}
