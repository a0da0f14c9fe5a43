// SPDX-License-Identifier: MPL-2.0
//! From one set of caps to the next: where frames and cropped parts of them are on the screen and in a fb_page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;

use crate::display::area::Rect;
use crate::foreign;
use crate::layout::Layout;
use crate::locks::Mutex;
use crate::pool::PhysBufferPool;

/// What stays the same until new caps or a new `render-rectangle`.
pub struct Stream {
    info: gst_video::VideoInfo,
    placement: FramePlacement,
    /// The part of the screen that frames may use.
    pub area: Rect,
    /// Identifies the stream in [`Painted`](super::terminal::Painted); never 0.
    pub serial: u64,
    /// The pool for copies of frames that are in no fb_page. Made for the first copy.
    pub copies: Mutex<Option<PhysBufferPool>>,
    /// The stream of pictures of another size that was last cut out of frames of this one.
    pub cropped: Mutex<Option<Arc<Stream>>>,
}

/// What is shown of a frame.
pub struct Part {
    /// The upper left corner, in pixels of the frame.
    pub corner: (u32, u32),
    /// The size and the place on the screen.
    pub stream: Arc<Stream>,
    /// Whether it is another part than the one that the caps describe.
    pub is_cropped: bool,
}

/// Where frames of one size are in a fb_page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlacement {
    /// The place on the screen.
    pub frame: Rect,
    /// The place in memory, from the fb_page's first byte.
    pub layout: Layout,
}

impl Stream {
    /// `placement` is that of frames of `info` in `area`.
    pub fn new(info: gst_video::VideoInfo, placement: FramePlacement, area: Rect) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Self {
            info,
            placement,
            area,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            copies: Mutex::new(None),
            cropped: Mutex::new(None),
        }
    }

    /// A stream of the same frames at another place on the screen.
    pub fn moved_to(&self, placement: FramePlacement, area: Rect) -> Self {
        Self::new(self.info.clone(), placement, area)
    }

    pub fn info(&self) -> &gst_video::VideoInfo {
        &self.info
    }

    pub fn placement(&self) -> FramePlacement {
        self.placement
    }

    pub fn frame(&self) -> Rect {
        self.placement.frame
    }

    pub fn size(&self) -> (u32, u32) {
        (self.info.width(), self.info.height())
    }

    /// Wakes a copy that waits for a fb_page.
    pub fn set_flushing(&self, flushing: bool) {
        if let Some(pool) = &*self.copies.lock() {
            pool.set_flushing(flushing);
        }
        if let Some(cropped) = &*self.cropped.lock() {
            cropped.set_flushing(flushing);
        }
    }

    /// Whether the frame's pixels are where the placement says, so that a pan alone shows them.
    pub fn is_in_place(&self, buffer: &gst::BufferRef) -> bool {
        let Some((_, start)) = crate::memory::region_of(buffer.peek_memory(0)) else {
            return false;
        };
        let Ok(layout) = foreign::layout(&self.info, buffer) else {
            return false;
        };
        let (plane, placed) = (layout.planes[0], self.placement.layout.planes[0]);
        start + plane.offset_bytes == placed.offset_bytes
            && plane.stride_bytes == placed.stride_bytes
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(pool) = self.copies.get_mut() {
            let _ = pool.set_active(false); // deactivation does not fail
        }
    }
}

/// In packed YUV formats, neighbouring pixels share their colour. The left edge of a frame or of a
/// part must not separate them, and so is at a multiple of this many pixels.
pub fn align_px(info: &gst_video::VideoInfo) -> u32 {
    let format = info.format_info();
    1 << format.w_sub().iter().copied().max().unwrap_or(0)
}
