// SPDX-License-Identifier: MPL-2.0
//! Where the bytes of a video frame are: planes, strides, offsets and frame size. Every room
//! describes frames with [`Layout`], be they in a file, in a buffer or on a screen.
//!
//! `Layout` and `Transfer` are pure arithmetic over [`gst_video::VideoInfo`] and
//! [`gst_video::VideoMeta`]. `picture` and `field` change frames that their
//! caller has mapped.

use std::ops::Range;

mod device_copy;
mod field;
mod picture;
mod transfer;

pub(crate) use field::copy_field;
pub(crate) use picture::{copy_area, copy_frame, fill_black};
pub(crate) use transfer::{Run, Transfer};

/// The most planes that any format has.
pub const MAX_PLANES: usize = 4;
/// Colours in the palette plane of `RGB8P`, each of four bytes.
const PALETTE_COLOURS: usize = 256;

/// One plane of a frame: `rows` rows with `row_bytes` bytes of picture each, which begin
/// `stride_bytes` apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plane {
    /// From the first byte of the frame to the first byte of the plane.
    pub offset_bytes: usize,
    /// From the first byte of a row to the first byte of the next.
    pub stride_bytes: usize,
    /// Bytes of picture in a row, without padding.
    pub row_bytes: usize,
    /// Number of rows.
    pub rows: usize,
}

impl Plane {
    /// The picture bytes of a row, counted from the frame's start.
    pub fn row(&self, row: usize) -> Range<usize> {
        let start = self.offset_bytes + row * self.stride_bytes;
        start..start + self.row_bytes
    }

    /// One byte past the last picture byte, counted from the frame's start; `None` on overflow.
    pub fn end_bytes(&self) -> Option<usize> {
        if self.rows == 0 {
            return Some(self.offset_bytes);
        }
        self.stride_bytes
            .checked_mul(self.rows - 1)?
            .checked_add(self.row_bytes)?
            .checked_add(self.offset_bytes)
    }

    /// One byte past the last row with its padding, counted from the frame's start.
    fn padded_end_bytes(&self) -> Result<usize, LayoutError> {
        self.stride_bytes
            .checked_mul(self.rows)
            .and_then(|bytes| bytes.checked_add(self.offset_bytes))
            .ok_or(LayoutError::Overflow)
    }

    /// Whether the planes share bytes of picture. Two chroma planes can be side by side: rows of
    /// one may lie in the padding of the other.
    fn meets(&self, other: &Self) -> bool {
        let (mut a, mut b) = (0, 0);
        while a < self.rows && b < other.rows {
            let (x, y) = (self.row(a), other.row(b));
            if x.end <= y.start {
                a += 1;
            } else if y.end <= x.start {
                b += 1;
            } else {
                return true;
            }
        }
        false
    }

    /// All bytes from the first picture byte to the last.
    fn span(&self) -> Range<usize> {
        self.offset_bytes..self.end_bytes().unwrap_or(usize::MAX)
    }
}

/// Why a layout cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The stride is shorter than the picture bytes of a row.
    #[error(
        "plane {plane} has a stride of {stride_bytes} bytes, but a row holds {row_bytes}: give at least {row_bytes}"
    )]
    StrideTooSmall {
        /// Index of the plane.
        plane: usize,
        /// The stride that was given, which may be negative.
        stride_bytes: i32,
        /// The least stride: the picture bytes of a row.
        row_bytes: usize,
    },
    /// A tiled format was given another stride than its default, in which it keeps its tile counts.
    #[error("plane {plane} of a tiled format must keep its own layout: leave plane-strides out")]
    Tiled {
        /// Index of the plane.
        plane: usize,
    },
    /// There is not one stride or offset for each plane.
    #[error("{got} values for {planes} planes: give one for each plane")]
    Count {
        /// Number of values given.
        got: usize,
        /// Number of planes in the format.
        planes: usize,
    },
    /// A plane ends past the frame.
    #[error("plane {plane} ends at byte {end_bytes} of a frame of {size_bytes} bytes")]
    PastEnd {
        /// Index of the plane.
        plane: usize,
        /// One past the last byte of the plane.
        end_bytes: usize,
        /// Size of the frame.
        size_bytes: usize,
    },
    /// Two planes of a buffer share bytes, so that writing one would change the other.
    #[error("planes {one} and {other} lie over one another: the buffer's GstVideoMeta is wrong")]
    Overlap {
        /// Index of a plane.
        one: usize,
        /// Index of the other.
        other: usize,
    },
    /// A size is too large for the address space, or for GStreamer's or DRM's 31 or 32 bits.
    #[error("the frame is larger than the address space")]
    Overflow,
}

/// The layout of one frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// The planes; those from `n_planes` on are empty.
    pub planes: [Plane; MAX_PLANES],
    /// Number of planes in use.
    pub n_planes: usize,
    /// From the first byte of a frame to the first byte of the next.
    pub size_bytes: usize,
}

impl Layout {
    /// The layout without any padding, as most programs other than GStreamer write raw frames.
    pub fn packed(info: &gst_video::VideoInfo) -> Self {
        let mut layout = Self::of_info(info);
        let mut offset = 0;
        for plane in &mut layout.planes[..layout.n_planes] {
            plane.offset_bytes = offset;
            plane.stride_bytes = plane.row_bytes;
            offset += plane.row_bytes * plane.rows;
        }
        layout.size_bytes = offset;
        layout
    }

    /// The layout of `info` itself: GStreamer's default (rows rounded up to four bytes), unless the
    /// info was aligned.
    pub fn of_info(info: &gst_video::VideoInfo) -> Self {
        let mut layout = Self {
            n_planes: info.n_planes() as usize,
            size_bytes: info.size(),
            ..Self::default()
        };
        for index in 0..layout.n_planes {
            layout.planes[index] = Self::plane_of_info(info, index);
        }
        layout
    }

    /// The layout of a buffer of `info`'s format: that of the buffer's GstVideoMeta, in which a
    /// pool tells its strides and offsets, or else the default layout.
    pub fn of_buffer(
        info: &gst_video::VideoInfo,
        buffer: &gst::BufferRef,
    ) -> Result<Self, LayoutError> {
        let mut layout = Self::of_info(info);
        if let Some(meta) = buffer.meta::<gst_video::VideoMeta>() {
            for index in 0..layout.n_planes.min(meta.n_planes() as usize) {
                layout.set_stride(info, index, meta.stride()[index])?;
                layout.planes[index].offset_bytes = meta.offset()[index];
            }
        }
        layout.size_bytes = buffer.size();
        layout.check()?;
        match layout.overlap() {
            Some((one, other)) => Err(LayoutError::Overlap { one, other }),
            None => Ok(layout),
        }
    }

    /// The layout with strides, offsets and frame size that a property or the hardware dictates. An
    /// empty list and a frame size of 0 are derived from the other values.
    pub fn custom(
        info: &gst_video::VideoInfo,
        strides: &[i32],
        offsets: &[usize],
        frame_size_bytes: usize,
    ) -> Result<Self, LayoutError> {
        let mut layout = Self::of_info(info);
        let planes = layout.n_planes;
        for got in [strides.len(), offsets.len()] {
            if got != 0 && got != planes {
                return Err(LayoutError::Count { got, planes });
            }
        }
        for (index, stride) in strides.iter().enumerate() {
            layout.set_stride(info, index, *stride)?;
        }
        if !offsets.is_empty() {
            for (plane, offset) in layout.planes.iter_mut().zip(offsets) {
                plane.offset_bytes = *offset;
            }
        } else if !strides.is_empty() {
            let mut offset = 0usize;
            for plane in &mut layout.planes[..planes] {
                plane.offset_bytes = offset;
                offset = plane.padded_end_bytes()?;
            }
        }
        if frame_size_bytes > 0 {
            layout.size_bytes = frame_size_bytes;
        } else if !strides.is_empty() || !offsets.is_empty() {
            layout.size_bytes = 0;
            for plane in &layout.planes[..planes] {
                // A file has the padding of the last row, too.
                layout.size_bytes = layout.size_bytes.max(plane.padded_end_bytes()?);
            }
        }
        layout.check()?;
        Ok(layout)
    }

    /// The layout of a frame in a buffer for which a driver gave only the stride of the first
    /// plane. The other planes follow, with strides in proportion to it.
    ///
    /// # Errors
    /// The stride does not hold a row, or the frame has 4 GiB or more: DRM's offsets and pitches
    /// have 32 bits.
    pub(crate) fn with_first_stride(
        info: &gst_video::VideoInfo,
        first_stride_bytes: u32,
    ) -> Result<Self, LayoutError> {
        let mut layout = Self::of_info(info);
        layout.size_bytes = 0;
        for index in 0..layout.n_planes {
            let share = share_of_first_stride(info, index, u64::from(first_stride_bytes));
            let stride_bytes = match index {
                0 => share,
                _ => share.max(layout.planes[index].row_bytes as u64),
            };
            let stride_bytes = i32::try_from(stride_bytes).map_err(|_| LayoutError::Overflow)?;
            layout.set_stride(info, index, stride_bytes)?;
            // A plane of one row may have any stride elsewhere, but here the next plane begins behind it.
            let Plane { row_bytes, .. } = layout.planes[index];
            if layout.planes[index].stride_bytes < row_bytes {
                return Err(LayoutError::StrideTooSmall {
                    plane: index,
                    stride_bytes,
                    row_bytes,
                });
            }
            layout.planes[index].offset_bytes = layout.size_bytes;
            layout.size_bytes = layout.planes[index].padded_end_bytes()?;
        }
        u32::try_from(layout.size_bytes).map_err(|_| LayoutError::Overflow)?;
        Ok(layout)
    }

    /// The rows of a frame of `info` at the strides and offsets of this layout. `None` if rows do
    /// not fit, or planes overlap: gst_video_info_align() adds up any paddings that it is given.
    pub(crate) fn with_rows_of(&self, info: &gst_video::VideoInfo) -> Option<Self> {
        let mut layout = Self {
            size_bytes: self.size_bytes,
            ..Self::of_info(info)
        };
        for (plane, place) in layout.planes.iter_mut().zip(&self.planes) {
            plane.offset_bytes = place.offset_bytes;
            plane.stride_bytes = place.stride_bytes;
        }
        let holds_rows = |plane: &Plane| plane.stride_bytes >= plane.row_bytes;
        let fits = layout.planes().iter().all(holds_rows)
            && layout.check().is_ok()
            && layout.overlap().is_none();
        fits.then_some(layout)
    }

    /// Adds a GstVideoMeta with this layout to a buffer that holds a frame of `info`.
    pub(crate) fn add_meta<'a>(
        &self,
        info: &gst_video::VideoInfo,
        buffer: &'a mut gst::BufferRef,
    ) -> Result<
        gst::MetaRefMut<'a, gst_video::VideoMeta, gst::meta::Standalone>,
        gst::glib::BoolError,
    > {
        let flags = match info.interlace_mode() {
            gst_video::VideoInterlaceMode::Interleaved => gst_video::VideoFrameFlags::INTERLACED,
            _ => gst_video::VideoFrameFlags::empty(),
        };
        let is_tiled = info.format_info().is_tiled();
        let (mut strides, mut offsets) = ([0; MAX_PLANES], [0; MAX_PLANES]);
        for (index, plane) in self.planes().iter().enumerate() {
            offsets[index] = plane.offset_bytes;
            strides[index] = match is_tiled {
                // The stride of a tiled plane is two tile counts, not bytes.
                true => info.stride()[index],
                false => i32::try_from(plane.stride_bytes)
                    .map_err(|_| gst::glib::bool_error!("a stride of more than 31 bits"))?,
            };
        }
        gst_video::VideoMeta::add_full(
            buffer,
            flags,
            info.format(),
            info.width(),
            info.height(),
            &offsets[..self.n_planes],
            &strides[..self.n_planes],
        )
    }

    /// The planes in use.
    pub fn planes(&self) -> &[Plane] {
        &self.planes[..self.n_planes]
    }

    /// Two planes that share bytes of picture, if there are any.
    pub(crate) fn overlap(&self) -> Option<(usize, usize)> {
        let planes = self.planes();
        (1..planes.len())
            .flat_map(|other| (0..other).map(move |one| (one, other)))
            .find(|&(one, other)| planes[one].meets(&planes[other]))
    }

    /// Whether no plane lies between the rows of another.
    fn is_apart(&self) -> bool {
        let planes = self.planes();
        (1..planes.len()).all(|other| {
            let b = planes[other].span();
            planes[..other].iter().all(|one| {
                let a = one.span();
                a.end <= b.start || b.end <= a.start
            })
        })
    }

    /// Whether the planes follow one another by their indices.
    fn is_in_order(&self) -> bool {
        self.planes()
            .windows(2)
            .all(|pair| pair[0].span().end <= pair[1].offset_bytes)
    }

    /// Checks that every plane lies inside the frame.
    fn check(&self) -> Result<(), LayoutError> {
        for (index, plane) in self.planes().iter().enumerate() {
            let end_bytes = plane.end_bytes().ok_or(LayoutError::Overflow)?;
            if end_bytes > self.size_bytes {
                return Err(LayoutError::PastEnd {
                    plane: index,
                    end_bytes,
                    size_bytes: self.size_bytes,
                });
            }
        }
        Ok(())
    }

    fn set_stride(
        &mut self,
        info: &gst_video::VideoInfo,
        index: usize,
        stride: i32,
    ) -> Result<(), LayoutError> {
        if info.format_info().is_tiled() {
            return if stride == info.stride()[index] {
                Ok(())
            } else {
                Err(LayoutError::Tiled { plane: index })
            };
        }
        let plane = &mut self.planes[index];
        let too_small = LayoutError::StrideTooSmall {
            plane: index,
            stride_bytes: stride,
            row_bytes: plane.row_bytes,
        };
        // Also for a plane of one row: GStreamer takes the stride for its length.
        let stride_bytes = usize::try_from(stride).ok();
        plane.stride_bytes = stride_bytes
            .filter(|&stride_bytes| stride_bytes >= plane.row_bytes)
            .ok_or(too_small)?;
        Ok(())
    }

    fn plane_of_info(info: &gst_video::VideoInfo, index: usize) -> Plane {
        let format = info.format_info();
        // With interlace-mode=alternate a buffer holds one field.
        let height = info.field_height();
        let offset_bytes = info.offset()[index];
        let next = info.offset()[..info.n_planes() as usize]
            .iter()
            .copied()
            .filter(|offset| *offset > offset_bytes)
            .min()
            .unwrap_or(info.size());
        if format.is_tiled() {
            // Tiles are not rows: the plane is one run of bytes.
            let row_bytes = next.saturating_sub(offset_bytes);
            return Plane {
                offset_bytes,
                stride_bytes: row_bytes,
                row_bytes,
                rows: 1,
            };
        }
        if format.has_palette() && index == 1 {
            return Plane {
                offset_bytes,
                stride_bytes: 4,
                row_bytes: 4,
                rows: PALETTE_COLOURS,
            };
        }
        let stride_bytes = usize::try_from(info.stride()[index]).unwrap_or(0);
        let mut row_bytes = 0;
        let mut rows = 0;
        for component in 0..info.n_components() as usize {
            if info.comp_plane(component as u8) as usize != index {
                continue;
            }
            let pixel_stride = usize::try_from(info.comp_pstride(component as u8)).unwrap_or(0);
            let width = info.comp_width(component as u8) as usize;
            // Formats whose pixels are not whole bytes have no pixel stride. GstVideoInfo tells
            // only the stride of their rows.
            row_bytes = row_bytes.max(if pixel_stride == 0 {
                stride_bytes
            } else {
                width * pixel_stride
            });
            rows = rows.max(format.scale_height(component as u8, height) as usize);
        }
        Plane {
            offset_bytes,
            stride_bytes,
            row_bytes: row_bytes.min(stride_bytes),
            rows,
        }
    }
}

/// The stride of a plane if rows of the first plane are `first_stride` bytes apart: half of it for
/// I420's chroma, all of it for NV12's.
fn share_of_first_stride(info: &gst_video::VideoInfo, plane: usize, first_stride: u64) -> u64 {
    if plane == 0 {
        return first_stride;
    }
    let format = info.format_info();
    if format.pixel_stride()[0] == 0 {
        // Pixels are no whole numbers of bytes, so only the stock strides tell the proportion.
        let stock = |plane: usize| info.stride()[plane].max(1) as u64;
        return first_stride * stock(plane) / stock(0);
    }
    let component = (0..info.n_components() as usize)
        .find(|&component| format.plane()[component] as usize == plane)
        .unwrap_or(0);
    let pixel_bytes = |component: usize| format.pixel_stride()[component].max(1) as u64;
    (first_stride * pixel_bytes(component) / pixel_bytes(0)) >> format.w_sub()[component]
}

#[allow(
    clippy::unwrap_used,
    reason = "for tests, whether of cargo or of a fuzzer"
)]
#[cfg(any(test, fuzzing))]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use super::samples::{buffer_with_meta, info};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stock_layouts_are_those_of_video_info() {
        gst::init().unwrap();
        let layout = Layout::of_info(&info(gst_video::VideoFormat::Nv12, 33, 17));
        assert_eq!(layout.n_planes, 2);
        assert_eq!(layout.size_bytes, 972);
        assert_eq!(
            layout.planes[0],
            Plane {
                offset_bytes: 0,
                stride_bytes: 36,
                row_bytes: 33,
                rows: 17
            }
        );
        assert_eq!(
            layout.planes[1],
            Plane {
                offset_bytes: 648,
                stride_bytes: 36,
                row_bytes: 34,
                rows: 9
            }
        );
    }

    #[test]
    fn packed_layouts_have_no_padding() {
        gst::init().unwrap();
        let size = |format| Layout::packed(&info(format, 33, 17)).size_bytes;
        assert_eq!(size(gst_video::VideoFormat::Bgr), 33 * 17 * 3);
        assert_eq!(size(gst_video::VideoFormat::I420), 33 * 17 + 2 * 17 * 9);
        assert_eq!(size(gst_video::VideoFormat::Yuy2), 68 * 17);
        assert_eq!(size(gst_video::VideoFormat::V210), 128 * 17);
        assert_eq!(size(gst_video::VideoFormat::Rgb8p), 33 * 17 + 1024);
    }

    #[test]
    fn every_format_lies_inside_its_frame() {
        gst::init().unwrap();
        for format in gst_video::VideoFormat::iter_raw() {
            for (width, height) in [(1, 1), (2, 2), (33, 17), (640, 480), (1366, 768)] {
                let Ok(info) = gst_video::VideoInfo::builder(format, width, height).build() else {
                    continue;
                };
                Layout::of_info(&info).check().unwrap();
                Layout::packed(&info).check().unwrap();
            }
        }
    }

    #[test]
    fn planes_over_one_another_are_no_place_for_a_frame() {
        gst::init().unwrap();
        // Found by fuzzing: every plane begins at byte 0.
        let dot = info(gst_video::VideoFormat::A420, 1, 1);
        let buffer = buffer_with_meta(&dot, &[(0, 54), (0, 14), (0, 81), (0, 822_178_048)], 93);
        assert_eq!(
            Layout::of_buffer(&dot, &buffer),
            Err(LayoutError::Overlap { one: 0, other: 1 })
        );
        // The last row of the first plane is the first row of the second.
        let info = info(gst_video::VideoFormat::Nv12, 4, 4);
        let buffer = buffer_with_meta(&info, &[(0, 4), (12, 4)], 24);
        assert_eq!(
            Layout::of_buffer(&info, &buffer),
            Err(LayoutError::Overlap { one: 0, other: 1 })
        );
    }

    #[test]
    fn strides_too_small_are_refused() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::Bgrx, 10, 4);
        for stride_bytes in [39, 0, -40] {
            assert_eq!(
                Layout::custom(&info, &[stride_bytes], &[], 0),
                Err(LayoutError::StrideTooSmall {
                    plane: 0,
                    stride_bytes,
                    row_bytes: 40
                })
            );
        }
        assert!(Layout::custom(&info, &[40, 40], &[], 0).is_err());
        assert!(Layout::custom(&info, &[40], &[8], 160).is_err());
        assert!(Layout::custom(&info, &[], &[usize::MAX], 0).is_err());
    }

    /// Formats that KMS planes take, with all kinds of planes.
    const SCANNED_OUT: [gst_video::VideoFormat; 14] = [
        gst_video::VideoFormat::Bgrx,
        gst_video::VideoFormat::Bgr,
        gst_video::VideoFormat::Rgb16,
        gst_video::VideoFormat::Nv12,
        gst_video::VideoFormat::Nv24,
        gst_video::VideoFormat::P01010le,
        gst_video::VideoFormat::Nv1210le40,
        gst_video::VideoFormat::Nv1210le32,
        gst_video::VideoFormat::Nv1610le32,
        gst_video::VideoFormat::Bgra64Le,
        gst_video::VideoFormat::I420,
        gst_video::VideoFormat::Y42b,
        gst_video::VideoFormat::Y444,
        gst_video::VideoFormat::Yuy2,
    ];

    #[test]
    fn the_stock_stride_of_the_first_plane_gives_the_stock_layout() {
        gst::init().unwrap();
        for format in SCANNED_OUT {
            let info = info(format, 640, 480);
            let layout = Layout::with_first_stride(&info, info.stride()[0] as u32);
            assert_eq!(layout, Ok(Layout::of_info(&info)), "{format:?}");
        }
    }

    #[test]
    fn a_wider_first_stride_moves_every_plane() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::I420, 100, 50);
        let layout = Layout::with_first_stride(&info, 128).unwrap();
        let places = layout
            .planes
            .map(|plane| (plane.offset_bytes, plane.stride_bytes));
        assert_eq!(places, [(0, 128), (6400, 64), (8000, 64), (0, 0)]);
    }

    #[test]
    fn a_first_stride_shorter_than_a_row_is_refused() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::Bgrx, 640, 480);
        assert!(Layout::with_first_stride(&info, 2559).is_err());
    }

    /// Found by fuzzing: the frame had no bytes, or its planes lay over one another.
    #[test]
    fn a_first_stride_shorter_than_the_only_row_is_refused() {
        gst::init().unwrap();
        for format in [gst_video::VideoFormat::Bgrx, gst_video::VideoFormat::Nv12] {
            let info = info(format, 64, 1);
            let stock = info.stride()[0] as u32;
            assert!(Layout::with_first_stride(&info, stock).is_ok());
            for stride in [0, stock - 1] {
                assert!(Layout::with_first_stride(&info, stride).is_err());
            }
        }
    }

    #[test]
    fn rows_of_another_frame_fit_or_do_not() {
        gst::init().unwrap();
        let bgrx = |width, height| info(gst_video::VideoFormat::Bgrx, width, height);
        let layout = Layout::custom(&bgrx(100, 50), &[512], &[], 0).unwrap();
        assert!(layout.with_rows_of(&bgrx(128, 50)).is_some());
        assert!(layout.with_rows_of(&bgrx(129, 50)).is_none());
        assert!(layout.with_rows_of(&bgrx(128, 51)).is_none());
    }

    #[test]
    fn the_meta_of_a_stock_layout_says_what_video_info_says() {
        gst::init().unwrap();
        for format in gst_video::VideoFormat::iter_raw() {
            let info = info(format, 34, 18);
            let mut buffer = gst::Buffer::new();
            let buffer_ref = buffer.get_mut().unwrap();
            let meta = Layout::of_info(&info).add_meta(&info, buffer_ref).unwrap();
            let n = info.n_planes() as usize;
            assert_eq!(meta.stride()[..n], info.stride()[..n], "{format:?}");
            assert_eq!(meta.offset()[..n], info.offset()[..n], "{format:?}");
        }
    }

    proptest! {
        #[test]
        fn planes_do_not_overlap_whatever_the_first_stride(
            which in 0..SCANNED_OUT.len(), width in 1u32..300, height in 1u32..300, more in 0u32..256
        ) {
            gst::init().unwrap();
            let info = info(SCANNED_OUT[which], width, height);
            let layout = Layout::with_first_stride(&info, info.stride()[0] as u32 + more).unwrap();
            prop_assert!(layout.is_in_order() && layout.check().is_ok());
            prop_assert!(layout.planes().iter().all(|plane| plane.stride_bytes >= plane.row_bytes));
        }
    }
}
