// SPDX-License-Identifier: MPL-2.0
//! Dumb buffers: memory that the card can always show. They are offered upstream if the card shows nothing
//! better, and frames in memory that the card cannot show are copied into them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use gst_video::VideoOverlayComposition;

use super::CAT;
use super::device::Device;
use super::format::{self, DumbShape};
use super::framebuffer::{Dumb, FbShape, Framebuffer};
use crate::display::area::Rect;
use crate::foreign;
use crate::layout::{self, Layout};
use crate::memory::{self, ExternalAddress, Owner, Region};
use crate::sys::mmap::Mapping;

/// The memory of a dumb buffer. Rust drops fields in this order, so the memory is unmapped before it is freed.
#[derive(Debug)]
struct DumbMemory {
    mapping: Mapping,
    _dumb: Dumb,
}

/// The memory of a dumb buffer, and the framebuffer over it.
#[derive(Debug)]
pub struct DumbFrame {
    pub region: Arc<Region>,
    pub framebuffer: Arc<Framebuffer>,
}

/// Makes a dumb buffer for frames of `shape`, and with `exports` a dma-buf of it, if the driver can.
pub fn allocate(
    device: &Arc<Device>,
    dumb_shape: &DumbShape,
    shape: &FbShape,
    exports: bool,
) -> io::Result<DumbFrame> {
    let dumb = device.create_dumb(dumb_shape.width, dumb_shape.height, dumb_shape.bits)?;
    let framebuffer = Arc::new(dumb.framebuffer(shape)?);
    let dma_buf: Option<OwnedFd> = if exports { dumb.export() } else { None };
    let memory = Arc::new(DumbMemory {
        mapping: dumb.map()?,
        _dumb: dumb,
    });
    let (ptr, len_bytes) = (memory.mapping.ptr(), memory.mapping.len_bytes());
    // SAFETY: the mapping (`Mapping::of_dumb_buffer`) is read-write, not empty, and usable by any thread.
    // It lives as long as `memory`, which the region owns.
    let region = unsafe {
        Region::external(
            ptr,
            len_bytes,
            ExternalAddress::LookUp,
            Owner::Shared(memory),
            dma_buf,
        )
    };
    Ok(DumbFrame {
        region,
        framebuffer,
    })
}

/// The framebuffers of the dumb buffers that were offered upstream.
#[derive(Debug, Default)]
pub struct Offered(Vec<(Weak<Region>, Arc<Framebuffer>)>);

impl Offered {
    /// Remembers the framebuffer of a dumb buffer while its memory lives. Returns the framebuffers whose
    /// memory is freed, for the caller to drop outside of any lock.
    pub fn add(&mut self, dumb: &DumbFrame) -> impl Sized + use<> {
        let is_gone = |known: &mut (Weak<Region>, _)| known.0.strong_count() == 0;
        let gone: Vec<_> = self.0.extract_if(.., is_gone).collect();
        let region = Arc::downgrade(&dumb.region);
        self.0.push((region, dumb.framebuffer.clone()));
        gone
    }

    /// The framebuffer over the memory of `buffer`, if that memory was offered and has the layout offered.
    pub fn find(
        &self,
        buffer: &gst::BufferRef,
        info: &gst_video::VideoInfo,
    ) -> Option<Arc<Framebuffer>> {
        if buffer.n_memory() != 1 {
            return None;
        }
        let (region, offset) = memory::region_of(buffer.peek_memory(0))?;
        let (_, framebuffer) = self
            .0
            .iter()
            .find(|(known, _)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(region)))?;
        (offset == 0 && layout_matches(buffer, info, framebuffer.shape()))
            .then(|| framebuffer.clone())
    }
}

fn layout_matches(buffer: &gst::BufferRef, info: &gst_video::VideoInfo, shape: &FbShape) -> bool {
    foreign::layout(info, buffer).is_ok_and(|layout| {
        layout.planes().iter().enumerate().all(|(index, plane)| {
            u32::try_from(plane.stride_bytes) == Ok(shape.pitches[index])
                && u32::try_from(plane.offset_bytes) == Ok(shape.offsets[index])
        })
    })
}

/// The buffers that frames are copied into.
#[derive(Debug)]
pub struct Copies {
    device: Arc<Device>,
    info: gst_video::VideoInfo,
    layout: Layout,
    shape: FbShape,
    buffers: Vec<(gst::Buffer, Arc<Framebuffer>)>,
}

/// The current, the queued and the pending frame, and one that is being filled.
const N_COPIES: usize = 4;
/// For moments also a frame that has left the screen and is not given back yet, and one that the application's thread
/// shows again (expose) while the streaming thread fills the next one.
const MAX_COPIES: usize = 6;

impl Copies {
    /// Makes buffers for frames of `info` in `layout`, and fills them with black.
    pub fn new(
        device: &Arc<Device>,
        info: &gst_video::VideoInfo,
        layout: &Layout,
        shape: &FbShape,
    ) -> io::Result<Self> {
        let mut copies = Self {
            device: device.clone(),
            info: info.clone(),
            layout: *layout,
            shape: *shape,
            buffers: Vec::new(),
        };
        for _ in 0..N_COPIES {
            copies.add()?;
        }
        Ok(copies)
    }

    fn add(&mut self) -> io::Result<()> {
        let dumb_shape = format::dumb_shape(&self.info);
        let dumb = allocate(&self.device, &dumb_shape, &self.shape, false)?;
        let buffer = wrap(&dumb.region, &self.info, &self.layout).map_err(io::Error::other)?;
        let mut frame = gst_video::VideoFrame::from_buffer_writable(buffer, &self.info)
            .map_err(|_| io::Error::other("a dumb buffer cannot be mapped"))?;
        layout::fill_black(&mut frame.as_mut_video_frame_ref());
        self.buffers.push((frame.into_buffer(), dumb.framebuffer));
        Ok(())
    }

    /// Makes one buffer more if all are in use.
    fn make_room(&mut self) {
        if all_in_use(&self.buffers)
            && self.buffers.len() < MAX_COPIES
            && let Err(error) = self.add()
        {
            gst::warning!(CAT, "no further buffer for copies: {error}");
        }
    }

    /// Copies the part `src` of `frame` to `at` in a buffer that is not in use, and blends `overlay` into the copy.
    pub fn copy(
        &mut self,
        frame: &gst_video::VideoFrameRef<&gst::BufferRef>,
        src: &Rect,
        at: (i32, i32),
        overlay: Option<&VideoOverlayComposition>,
    ) -> Result<(gst::Buffer, Arc<Framebuffer>), &'static str> {
        self.make_room();
        let (buffer, framebuffer) = take_free(&mut self.buffers)?;
        let mut target = map_writable(buffer, &self.info)?;
        let px = |n: i32| n.max(0) as u32;
        layout::copy_area(
            frame,
            (px(src.x), px(src.y)),
            (src.width, src.height),
            &mut target,
            (px(at.0), px(at.1)),
        );
        if let Some(overlay) = overlay {
            overlay
                .blend(&mut target)
                .map_err(|_| "GStreamer blends nothing into frames of this format")?;
        }
        drop(target);
        Ok((buffer.clone(), framebuffer.clone()))
    }

    /// Copies the top and the bottom field of a frame, buffers of `info` (`interlace-mode=alternate`), into a buffer that
    /// is not in use.
    pub fn weave(
        &mut self,
        info: &gst_video::VideoInfo,
        fields: [&gst::BufferRef; 2],
    ) -> Result<(gst::Buffer, Arc<Framebuffer>), String> {
        self.make_room();
        let (buffer, framebuffer) = take_free(&mut self.buffers)?;
        let mut target = map_writable(buffer, &self.info)?;
        for (first_row, field) in fields.into_iter().enumerate() {
            let layout = foreign::layout(info, field)
                .map_err(|error| format!("the field cannot be read: {error}"))?;
            foreign::read(field, |bytes| {
                layout::copy_field(bytes, &layout, &mut target, first_row);
            })
            .map_err(|error| format!("the field cannot be read: {error}"))?;
        }
        drop(target);
        Ok((buffer.clone(), framebuffer.clone()))
    }
}

fn all_in_use(buffers: &[(gst::Buffer, Arc<Framebuffer>)]) -> bool {
    buffers.iter().all(|(buffer, _)| !buffer.is_writable())
}

/// The buffer that was used longest ago, because some drivers still read a buffer for a while after another has replaced
/// it.
fn take_free(
    buffers: &mut [(gst::Buffer, Arc<Framebuffer>)],
) -> Result<&mut (gst::Buffer, Arc<Framebuffer>), &'static str> {
    let free = buffers.iter().position(|(buffer, _)| buffer.is_writable());
    let free = free.ok_or("all buffers for copies are on their way to the screen")?;
    buffers[free..].rotate_left(1);
    buffers.last_mut().ok_or("no buffers for copies")
}

fn map_writable<'a>(
    buffer: &'a mut gst::Buffer,
    info: &gst_video::VideoInfo,
) -> Result<gst_video::VideoFrameRef<&'a mut gst::BufferRef>, &'static str> {
    let target = buffer.get_mut().ok_or("a buffer for copies is in use")?;
    gst_video::VideoFrameRef::from_buffer_ref_writable(target, info)
        .map_err(|_| "a dumb buffer cannot be mapped")
}

/// A GstBuffer over `region` with a GstVideoMeta.
fn wrap(
    region: &Arc<Region>,
    info: &gst_video::VideoInfo,
    layout: &Layout,
) -> Result<gst::Buffer, gst::glib::BoolError> {
    let mut buffer = gst::Buffer::new();
    let buffer_ref = buffer.make_mut();
    buffer_ref.append_memory(memory::wrap(region, 0, layout.size_bytes, None));
    layout.add_meta(info, buffer_ref)?;
    Ok(buffer)
}
