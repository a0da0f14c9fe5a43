// SPDX-License-Identifier: MPL-2.0
//! Write-only maps, for code that writes a whole frame. The bindings' writable maps can be read, too, so
//! the kernel must first invalidate the CPU's cache lines of a dma-buf, and memory of a GPU must be copied
//! to the CPU.

use std::mem::MaybeUninit;

use gst::glib::{self, translate::ToGlibPtr};
use gst_video::ffi::{GST_VIDEO_FRAME_MAP_FLAG_NO_REF, gst_video_frame_map};

/// A buffer mapped as one run of bytes, whose contents are undefined until they are written.
pub struct WriteMap<B> {
    buffer: B,
    /// The buffer that is mapped. `buffer` keeps it alive and unshared.
    mapped: *mut gst::ffi::GstBuffer,
    info: gst::ffi::GstMapInfo,
}

// SAFETY: a mapped buffer may move to another thread and be unmapped there.
unsafe impl<B: Send> Send for WriteMap<B> {}

impl<'a> WriteMap<&'a mut gst::BufferRef> {
    /// Maps a buffer that the caller lends.
    pub fn new(buffer: &'a mut gst::BufferRef) -> Result<Self, glib::BoolError> {
        let mapped = buffer.as_mut_ptr();
        // SAFETY: the buffer is borrowed exclusively as long as the map lives.
        unsafe { Self::map(buffer, mapped) }
    }
}

impl WriteMap<gst::Buffer> {
    /// Maps a buffer that is not shared, and keeps it.
    pub fn of_owned(mut buffer: gst::Buffer) -> Result<Self, glib::BoolError> {
        let shared = || glib::bool_error!("the buffer is shared");
        let mapped = buffer.get_mut().ok_or_else(shared)?.as_mut_ptr();
        // SAFETY: the map has the only reference, and gives it away only after unmapping.
        unsafe { Self::map(buffer, mapped) }
    }

    /// Ends the map and returns the buffer.
    pub fn into_buffer(self) -> gst::Buffer {
        // Dropping `self` unmaps the buffer.
        self.buffer.clone()
    }
}

impl<B> WriteMap<B> {
    /// # Safety
    /// `buffer` keeps the GstBuffer `mapped` alive and writable, and gives no other code access to it.
    unsafe fn map(buffer: B, mapped: *mut gst::ffi::GstBuffer) -> Result<Self, glib::BoolError> {
        let mut info = MaybeUninit::uninit();
        // SAFETY: the caller guarantees the buffer; the info is filled in on success.
        let info = unsafe {
            let flags = gst::ffi::GST_MAP_WRITE;
            if gst::ffi::gst_buffer_map(mapped, info.as_mut_ptr(), flags) == glib::ffi::GFALSE {
                return Err(glib::bool_error!("the buffer cannot be mapped for writing"));
            }
            info.assume_init()
        };
        Ok(Self {
            buffer,
            mapped,
            info,
        })
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        if self.info.size == 0 {
            return &mut [];
        }
        // SAFETY: these bytes are mapped until `self` is dropped, and `&mut self` borrows them exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.info.data, self.info.size) }
    }
}

impl<B> Drop for WriteMap<B> {
    fn drop(&mut self) {
        // SAFETY: `buffer` still keeps the GstBuffer alive, and the info is that of its map.
        unsafe { gst::ffi::gst_buffer_unmap(self.mapped, &mut self.info) };
    }
}

/// Maps a video frame, each plane by itself.
pub fn frame<'a>(
    buffer: &'a mut gst::BufferRef,
    info: &gst_video::VideoInfo,
) -> Result<gst_video::VideoFrameRef<&'a mut gst::BufferRef>, glib::BoolError> {
    let mut frame = MaybeUninit::uninit();
    // SAFETY: the buffer is borrowed exclusively as long as the frame lives, so the frame needs no
    // reference; it is filled in on success.
    unsafe {
        let is_mapped = gst_video_frame_map(
            frame.as_mut_ptr(),
            info.to_glib_none().0.cast_mut(),
            buffer.as_mut_ptr(),
            GST_VIDEO_FRAME_MAP_FLAG_NO_REF | gst::ffi::GST_MAP_WRITE,
        );
        if is_mapped == glib::ffi::GFALSE {
            return Err(glib::bool_error!("the frame cannot be mapped for writing"));
        }
        let frame = frame.assume_init();
        Ok(gst_video::VideoFrameRef::from_glib_full_mut(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_in_the_buffer_that_comes_back() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::with_size(100).unwrap();
        let mut map = WriteMap::new(buffer.get_mut().unwrap()).unwrap();
        map.as_mut_slice().fill(7);
        drop(map);
        let mut map = WriteMap::of_owned(buffer).unwrap();
        map.as_mut_slice()[50..].fill(9);
        let mut buffer = map.into_buffer();
        // No other reference exists, and the buffer is not mapped any more.
        assert!(buffer.get_mut().unwrap().map_writable().is_ok());
        let bytes = buffer.map_readable().unwrap();
        assert_eq!((bytes[0], bytes[49], bytes[50], bytes[99]), (7, 7, 9, 9));
    }

    #[test]
    fn a_shared_buffer_is_refused() {
        gst::init().unwrap();
        let buffer = gst::Buffer::with_size(100).unwrap();
        assert!(WriteMap::of_owned(buffer.clone()).is_err());
        assert_eq!(
            WriteMap::of_owned(buffer).unwrap().as_mut_slice().len(),
            100
        );
    }

    #[test]
    fn a_frame_is_written_plane_by_plane() {
        gst::init().unwrap();
        let nv12 = gst_video::VideoFormat::Nv12;
        let info = gst_video::VideoInfo::builder(nv12, 16, 8).build().unwrap();
        let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
        let mut frame = frame(buffer.get_mut().unwrap(), &info).unwrap();
        for (value, plane) in [(1, 0), (2, 1)] {
            frame.plane_data_mut(plane).unwrap().fill(value);
        }
        drop(frame);
        let bytes = buffer.map_readable().unwrap();
        assert_eq!(bytes.iter().filter(|&&byte| byte == 1).count(), 16 * 8);
        assert_eq!(bytes.iter().filter(|&&byte| byte == 2).count(), 16 * 4);
    }
}
