// SPDX-License-Identifier: MPL-2.0
//! Dumb buffers: memory that the card can always show. Offered upstream where
//! nothing better can be shown, and the target of the one copy for frames that
//! cannot be shown where they are.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use gst_video::prelude::*;
use parking_lot::Mutex;

use super::card::{Card, Dumb, FbShape, Framebuffer};
use super::format::{self, DumbShape, Layout};
use super::placement::Rect;
use crate::foreign;
use crate::memory::{self, ExternalAddress, Owner, Region};
use crate::sys::kms::DumbMapping;

/// The memory of a dumb buffer. Fields drop in this order: unmap, then free.
#[derive(Debug)]
struct DumbMemory {
    mapping: DumbMapping,
    _dumb: Dumb,
}

/// A dumb buffer as memory, and what shows it.
#[derive(Debug)]
pub struct Shown {
    /// Its memory.
    pub region: Arc<Region>,
    /// What a plane reads.
    pub framebuffer: Arc<Framebuffer>,
}

/// A dumb buffer for frames of `shape`. `exports` makes a dma-buf of it too,
/// where the driver can.
pub fn allocate(
    card: &Arc<Card>,
    dumb_shape: &DumbShape,
    shape: &FbShape,
    exports: bool,
) -> io::Result<Shown> {
    let dumb = card.create_dumb(dumb_shape.width, dumb_shape.height, dumb_shape.bits)?;
    let framebuffer = Arc::new(dumb.framebuffer(shape)?);
    let dma_buf: Option<OwnedFd> = if exports { dumb.export() } else { None };
    let memory = Arc::new(DumbMemory {
        mapping: dumb.map()?,
        _dumb: dumb,
    });
    let (ptr, len_bytes) = (memory.mapping.ptr(), memory.mapping.len_bytes());
    // SAFETY: the mapping is read-write, not empty, for any thread, and lives as
    // long as `memory`, which the region owns.
    let region = unsafe {
        Region::external(
            ptr,
            len_bytes,
            ExternalAddress::LookUp,
            Owner::Shared(memory),
            dma_buf,
        )
    };
    Ok(Shown {
        region,
        framebuffer,
    })
}

/// The framebuffers of the dumb buffers that were offered upstream.
#[derive(Debug, Default)]
pub struct Offered(Mutex<Vec<(Weak<Region>, Arc<Framebuffer>)>>);

impl Offered {
    /// Remembers one, as long as its memory lives.
    pub fn add(&self, shown: &Shown) {
        let mut offered = self.0.lock();
        let (gone, kept) = std::mem::take(&mut *offered)
            .into_iter()
            .partition::<Vec<_>, _>(|(region, _)| region.strong_count() == 0);
        *offered = kept;
        offered.push((Arc::downgrade(&shown.region), shown.framebuffer.clone()));
        drop(offered);
        drop(gone);
    }

    /// The framebuffer over the memory of `buffer`, if that was offered.
    pub fn find(
        &self,
        buffer: &gst::BufferRef,
        info: &gst_video::VideoInfo,
    ) -> Option<Arc<Framebuffer>> {
        if buffer.n_memory() != 1 {
            return None;
        }
        let (region, offset) = memory::region_of(buffer.peek_memory(0))?;
        let offered = self.0.lock();
        let (_, framebuffer) = offered
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
    info: gst_video::VideoInfo,
    buffers: Vec<(gst::Buffer, Arc<Framebuffer>)>,
}

/// On the screen, on its way there, waiting, and being filled.
const N_COPIES: usize = 4;

impl Copies {
    /// Black buffers for frames of `info` in `layout`.
    pub fn new(
        card: &Arc<Card>,
        info: &gst_video::VideoInfo,
        layout: &Layout,
        shape: &FbShape,
    ) -> io::Result<Self> {
        let dumb_shape = format::dumb_shape(info);
        let mut copies = Self {
            info: info.clone(),
            buffers: Vec::new(),
        };
        for _ in 0..N_COPIES {
            let shown = allocate(card, &dumb_shape, shape, false)?;
            let buffer = wrap(&shown.region, info, layout).map_err(io::Error::other)?;
            let mut frame = gst_video::VideoFrame::from_buffer_writable(buffer, info)
                .map_err(|_| io::Error::other("a dumb buffer cannot be mapped"))?;
            blacken(&mut frame);
            copies
                .buffers
                .push((frame.into_buffer(), shown.framebuffer));
        }
        Ok(copies)
    }

    /// Copies `src` of `frame` to `at` in a buffer that nobody uses.
    pub fn copy(
        &mut self,
        frame: &gst_video::VideoFrameRef<&gst::BufferRef>,
        src: &Rect,
        at: (i32, i32),
    ) -> Result<(gst::Buffer, Arc<Framebuffer>), &'static str> {
        // The one that was used longest ago: some drivers still read a buffer for
        // a while after its flip.
        let free = self
            .buffers
            .iter()
            .position(|(buffer, _)| buffer.is_writable());
        let free = free.ok_or("all buffers for copies are on their way to the screen")?;
        self.buffers[free..].rotate_left(1);
        let (buffer, framebuffer) = self.buffers.last_mut().ok_or("no buffers for copies")?;
        let target = buffer.get_mut().ok_or("a buffer for copies is in use")?;
        let mut target = gst_video::VideoFrameRef::from_buffer_ref_writable(target, &self.info)
            .map_err(|_| "a dumb buffer cannot be mapped")?;
        copy_rect(frame, src, &mut target, at);
        drop(target);
        Ok((buffer.clone(), framebuffer.clone()))
    }
}

/// A buffer over `region` that tells its layout.
fn wrap(
    region: &Arc<Region>,
    info: &gst_video::VideoInfo,
    layout: &Layout,
) -> Result<gst::Buffer, gst::glib::BoolError> {
    let mut buffer = gst::Buffer::new();
    let buffer_ref = buffer.make_mut();
    buffer_ref.append_memory(memory::wrap(region, 0, layout.size_bytes, None));
    let n = info.n_planes() as usize;
    gst_video::VideoMeta::add_full(
        buffer_ref,
        gst_video::VideoFrameFlags::empty(),
        info.format(),
        info.width(),
        info.height(),
        &layout.offsets.map(|offset| offset as usize)[..n],
        &layout.strides.map(|stride| stride as i32)[..n],
    )?;
    Ok(buffer)
}

/// Bytes of a row from pixel `x` on, `width` pixels: start and length, and how
/// many times coarser its rows are.
fn span(info: &gst_video::VideoFormatInfo, plane: u32, x: u32, width: u32) -> (usize, usize, u32) {
    let component = info.plane().iter().position(|&p| p == plane).unwrap_or(0);
    let pixel = info.pixel_stride()[component].max(1) as usize;
    let w_sub = info.w_sub()[component];
    let pixels = |n: u32| (n as usize).div_ceil(1 << w_sub);
    // A packed 4:2:2 word holds two pixels; `x` is even there.
    (
        x as usize / (1 << w_sub) * pixel,
        pixels(width) * pixel,
        info.h_sub()[component],
    )
}

fn copy_rect(
    from: &gst_video::VideoFrameRef<&gst::BufferRef>,
    src: &Rect,
    to: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
    (x, y): (i32, i32),
) {
    let format = from.format_info();
    for plane in 0..from.n_planes() {
        let (from_x, len, h_sub) = span(&format, plane, src.x.max(0) as u32, src.width);
        let (to_x, ..) = span(&format, plane, x.max(0) as u32, src.width);
        let rows = (src.height as usize).div_ceil(1 << h_sub);
        let (from_y, to_y) = (
            (src.y.max(0) as usize) >> h_sub,
            (y.max(0) as usize) >> h_sub,
        );
        let from_stride = from.plane_stride()[plane as usize].max(0) as usize;
        let to_stride = to.plane_stride()[plane as usize].max(0) as usize;
        let (Ok(source), Ok(target)) = (from.plane_data(plane), to.plane_data_mut(plane)) else {
            continue;
        };
        for row in 0..rows {
            let (a, b) = (
                (from_y + row) * from_stride + from_x,
                (to_y + row) * to_stride + to_x,
            );
            let (Some(source), Some(target)) = (source.get(a..a + len), target.get_mut(b..b + len))
            else {
                break;
            };
            target.copy_from_slice(source);
        }
    }
}

/// Black is not zero where there is chroma.
fn blacken(frame: &mut gst_video::VideoFrame<gst_video::video_frame::Writable>) {
    let format = frame.format_info();
    if !format.is_yuv() {
        (0..frame.n_planes()).for_each(|plane| {
            if let Ok(bytes) = frame.plane_data_mut(plane) {
                bytes.fill(0);
            }
        });
        return;
    }
    for component in 0..format.n_components() as usize {
        let (depth, shift) = (format.depth()[component], format.shift()[component]);
        let level: u32 = if component == 0 {
            16
        } else if component == 3 {
            255
        } else {
            128
        };
        let value = (level << (depth - 8) << shift).to_le_bytes();
        let bytes_per = (depth + shift).div_ceil(8) as usize;
        let pixel = format.pixel_stride()[component].max(1) as usize;
        // GStreamer 1.22 counts P010's offsets in samples.
        let start = match format.poffset()[component] as usize {
            offset if offset % bytes_per == 0 => offset,
            samples => samples * bytes_per,
        };
        if let Ok(bytes) = frame.plane_data_mut(format.plane()[component]) {
            let start = start.min(bytes.len());
            for chunk in bytes[start..].chunks_mut(pixel) {
                if let Some(target) = chunk.get_mut(..bytes_per) {
                    target.copy_from_slice(&value[..bytes_per]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gst_video::VideoFormat;

    fn info(format: VideoFormat, width: u32, height: u32) -> gst_video::VideoInfo {
        gst::init().unwrap();
        crate::layout::samples::info(format, width, height)
    }

    fn counted(
        info: &gst_video::VideoInfo,
    ) -> gst_video::VideoFrame<gst_video::video_frame::Readable> {
        let bytes: Vec<u8> = (0..info.size()).map(|i| (i % 251) as u8).collect();
        let buffer = gst::Buffer::from_slice(bytes);
        gst_video::VideoFrame::from_buffer_readable(buffer, info).unwrap()
    }

    fn black(
        info: &gst_video::VideoInfo,
    ) -> gst_video::VideoFrame<gst_video::video_frame::Writable> {
        let buffer = gst::Buffer::with_size(info.size()).unwrap();
        let mut frame = gst_video::VideoFrame::from_buffer_writable(buffer, info).unwrap();
        blacken(&mut frame);
        frame
    }

    #[test]
    fn every_format_is_copied_whole() {
        for format in format::all() {
            let info = info(format, 64, 32);
            let from = counted(&info);
            let mut to = black(&info);
            copy_rect(
                &from.as_video_frame_ref(),
                &Rect::of_size(64, 32),
                &mut to.as_mut_video_frame_ref(),
                (0, 0),
            );
            for plane in 0..info.n_planes() {
                assert_eq!(
                    from.plane_data(plane).unwrap(),
                    to.plane_data(plane).unwrap(),
                    "{format:?}"
                );
            }
        }
    }

    #[test]
    fn a_part_lands_where_it_is_put_and_the_rest_stays_black() {
        let (small, large) = (
            info(VideoFormat::I420, 8, 4),
            info(VideoFormat::I420, 16, 8),
        );
        let from = counted(&small);
        let mut to = black(&large);
        let src = Rect {
            x: 2,
            y: 2,
            width: 4,
            height: 2,
        };
        copy_rect(
            &from.as_video_frame_ref(),
            &src,
            &mut to.as_mut_video_frame_ref(),
            (6, 4),
        );
        let luma = to.plane_data(0).unwrap();
        assert_eq!(
            luma[4 * 16 + 6..4 * 16 + 10],
            from.plane_data(0).unwrap()[2 * 8 + 2..2 * 8 + 6]
        );
        assert_eq!(luma[4 * 16 + 5], 16);
        assert_eq!(luma.iter().filter(|&&byte| byte != 16).count(), 8);
        let chroma = to.plane_data(1).unwrap();
        assert_eq!(
            chroma[2 * 8 + 3..2 * 8 + 5],
            from.plane_data(1).unwrap()[4 + 1..4 + 3]
        );
        assert_eq!(chroma.iter().filter(|&&byte| byte != 128).count(), 2);
    }

    #[test]
    fn black_is_black_in_every_colour_space() {
        assert!(
            black(&info(VideoFormat::Bgrx, 4, 4))
                .plane_data(0)
                .unwrap()
                .iter()
                .all(|&b| b == 0)
        );
        assert_eq!(
            black(&info(VideoFormat::Yuy2, 4, 1)).plane_data(0).unwrap()[..4],
            [16, 128, 16, 128]
        );
        assert_eq!(
            black(&info(VideoFormat::Uyvy, 4, 1)).plane_data(0).unwrap()[..4],
            [128, 16, 128, 16]
        );
        let p010 = black(&info(VideoFormat::P01010le, 4, 2));
        assert_eq!(p010.plane_data(0).unwrap()[..2], [0, 16]);
        assert_eq!(p010.plane_data(1).unwrap()[..4], [0, 128, 0, 128]);
    }
}
