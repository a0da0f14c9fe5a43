// SPDX-License-Identifier: MPL-2.0
//! What the user asked for: the values behind the properties.

use gst::glib;

use crate::shared_enum::shared_enum;

/// How a file is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum IoMode {
    /// What suits the file best.
    #[default]
    Auto,
    /// preadv into the buffers.
    Read,
    /// The file's own pages.
    Mmap,
    /// Several frames in flight.
    IoUring,
}

shared_enum!(IoMode, c"GstRawVideoSrcIoMode", {
    Auto: c"auto", c"io-uring with direct=true where there is io_uring, else read";
    Read: c"read", c"Read each frame into its buffer (preadv)";
    Mmap: c"mmap", c"Map the file; its pages are sent as they are, or copied if downstream has special memory";
    IoUring: c"io-uring", c"Read ahead with io_uring, straight into the buffers";
});

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
    /// 0/1: to be found out.
    pub pixel_aspect_ratio: gst::Fraction,
    /// Both fields in one frame.
    pub interlaced: bool,
    /// If interlaced.
    pub top_field_first: bool,
    pub colorimetry: Option<String>,
    /// Of the file, one for each plane; empty for the usual ones.
    pub plane_strides: gst::Array,
    pub plane_offsets: gst::Array,
    /// From frame to frame in the file; 0 for what the planes take.
    pub frame_size: u32,
    /// Bytes before the first frame.
    pub offset: u64,
    /// The first frame to play.
    pub start_frame: u64,
    /// The last frame to play; -1 for that of the file.
    pub stop_frame: i64,
    /// Start again at the end.
    pub looping: bool,
    /// With `looping`: how many times to play; 0 for no end.
    pub loop_count: u32,
    /// Wait at the end for more.
    pub follow: bool,
    /// Paced by the clock, late frames left out.
    pub is_live: bool,
    /// How the file is read.
    pub io_mode: IoMode,
    /// Threads that carry a frame; 0 to choose.
    pub threads: u32,
    /// Frames in flight with io-uring.
    pub prefetch: u32,
    /// Past the page cache.
    pub direct: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            location: None,
            format: gst_video::VideoFormat::Unknown,
            width: 0,
            height: 0,
            framerate: gst::Fraction::new_raw(0, 1),
            pixel_aspect_ratio: gst::Fraction::new_raw(0, 1),
            interlaced: false,
            top_field_first: false,
            colorimetry: None,
            plane_strides: gst::Array::default(),
            plane_offsets: gst::Array::default(),
            frame_size: 0,
            offset: 0,
            start_frame: 0,
            stop_frame: -1,
            looping: false,
            loop_count: 0,
            follow: false,
            is_live: false,
            io_mode: IoMode::Auto,
            threads: 0,
            prefetch: 4,
            direct: false,
        }
    }
}

impl Settings {
    /// The strides given, as numbers; those that are none are 0.
    pub fn strides(&self) -> Vec<i32> {
        let number = |value: &glib::SendValue| value.get::<i32>().unwrap_or_default();
        self.plane_strides.iter().map(number).collect()
    }

    /// The offsets given; negative ones lie beyond any frame.
    pub fn offsets(&self) -> Vec<usize> {
        let number = |value: &glib::SendValue| {
            let offset = value.get::<i32>().unwrap_or_default();
            usize::try_from(offset).unwrap_or(usize::MAX)
        };
        self.plane_offsets.iter().map(number).collect()
    }
}
