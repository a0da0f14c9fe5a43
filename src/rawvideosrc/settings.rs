// SPDX-License-Identifier: MPL-2.0
//! The values of the properties.

use gst::glib;

use crate::address::PhysAddr;
use crate::memory::MemoryKind;
use crate::pool::{Builder, PhysBufferPool};
use crate::shared_enum::shared_enum;

/// How a file is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum IoMode {
    /// `IoUring` past the page cache if that is faster or the property `direct` is set; else `Read`.
    #[default]
    Auto,
    /// Read each frame into its buffer with preadv.
    Read,
    /// Map the file; its pages are sent as they are, or copied.
    Mmap,
    /// Read several frames ahead with io_uring.
    IoUring,
}

shared_enum!(IoMode, c"GstRawVideoSrcIoMode", {
    Auto: c"auto", c"Past the page cache (io-uring, O_DIRECT) with direct=true, or if a large file is on a disk and not cached, and the buffers have large pages; else read";
    Read: c"read", c"Read each frame into its buffer (preadv)";
    Mmap: c"mmap", c"Map the file; its pages are sent as they are, or copied if downstream has special memory";
    IoUring: c"io-uring", c"Read ahead with io_uring, straight into the buffers; read is faster for a file in the page cache";
});

/// Values of the properties, copied at start. The blurbs in `imp` say what they mean.
#[derive(Debug, Clone)]
pub struct Settings {
    pub location: Option<String>,
    pub format: gst_video::VideoFormat,
    pub width: i32,
    pub height: i32,
    pub framerate: gst::Fraction,
    pub pixel_aspect_ratio: gst::Fraction,
    pub interlaced: bool,
    pub top_field_first: bool,
    pub colorimetry: Option<String>,
    pub plane_strides: gst::Array,
    pub plane_offsets: gst::Array,
    pub frame_size: u32,
    pub offset: u64,
    pub start_frame: u64,
    pub stop_frame: i64,
    pub looping: bool,
    pub loop_count: u32,
    pub follow: bool,
    pub is_live: bool,
    pub io_mode: IoMode,
    pub threads: u32,
    pub cpus: Option<String>,
    pub prefetch: u32,
    pub direct: bool,
    pub memory_kind: MemoryKind,
    pub heap: Option<String>,
    pub max_address: u64,
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
            cpus: None,
            prefetch: 4,
            direct: false,
            memory_kind: MemoryKind::Auto,
            heap: None,
            max_address: 0,
        }
    }
}

impl Settings {
    /// The memory that the user asked for; `None` if the element may choose.
    pub fn wanted_memory(&self) -> Option<Builder> {
        let is_any =
            self.memory_kind == MemoryKind::Auto && self.heap.is_none() && self.max_address == 0;
        let builder = PhysBufferPool::builder()
            .kind(self.memory_kind)
            .max_address(PhysAddr(self.max_address));
        let builder = match &self.heap {
            Some(heap) => builder.heap(heap),
            None => builder,
        };
        (!is_any).then_some(builder)
    }

    /// The property `plane-strides`; a value that is no integer becomes 0.
    pub fn strides(&self) -> Vec<i32> {
        let number = |value: &glib::SendValue| value.get::<i32>().unwrap_or_default();
        self.plane_strides.iter().map(number).collect()
    }

    /// The property `plane-offsets`; a negative value becomes one beyond any frame.
    pub fn offsets(&self) -> Vec<usize> {
        let number = |value: &glib::SendValue| {
            let offset = value.get::<i32>().unwrap_or_default();
            usize::try_from(offset).unwrap_or(usize::MAX)
        };
        self.plane_offsets.iter().map(number).collect()
    }
}
