// SPDX-License-Identifier: MPL-2.0
//! Where the bytes of a video frame are: planes, strides, offsets, frame size.
//!
//! Pure arithmetic over [`gst_video::VideoInfo`] and [`gst_video::VideoMeta`];
//! this room maps nothing, reads nothing and knows no element.

use std::ops::Range;

/// The most planes that any format has.
pub const MAX_PLANES: usize = 4;
/// Colours in the palette plane of `RGB8P`, four bytes each.
const PALETTE_COLOURS: usize = 256;

/// One colour plane: `rows` rows of `row_bytes` picture bytes, each row
/// `stride_bytes` after the one before.
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
    /// Where the picture bytes of a row are, counted from the frame's start.
    pub fn row(&self, row: usize) -> Range<usize> {
        let start = self.offset_bytes + row * self.stride_bytes;
        start..start + self.row_bytes
    }

    /// One byte past the last picture byte, counted from the frame's start.
    pub fn end_bytes(&self) -> Option<usize> {
        if self.rows == 0 {
            return Some(self.offset_bytes);
        }
        self.stride_bytes
            .checked_mul(self.rows - 1)?
            .checked_add(self.row_bytes)?
            .checked_add(self.offset_bytes)
    }

    /// The planes share bytes of picture. Rows of one that lie in the padding of the
    /// other's do not: so two chroma planes may be side by side.
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

    /// From the first picture byte to the last, with what lies between.
    fn span(&self) -> Range<usize> {
        self.offset_bytes..self.end_bytes().unwrap_or(usize::MAX)
    }
}

/// What keeps a layout from being used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A stride shorter than the picture bytes of a row.
    #[error(
        "plane {plane} has a stride of {stride_bytes} bytes, but a row holds {row_bytes}: give at least {row_bytes}"
    )]
    StrideTooSmall {
        /// Index of the plane.
        plane: usize,
        /// The stride in question, which others may have made negative.
        stride_bytes: i32,
        /// The least that a row needs.
        row_bytes: usize,
    },
    /// The format keeps its tile counts in the stride, so it must be the stock one.
    #[error("plane {plane} of a tiled format must keep its own layout: leave plane-strides out")]
    Tiled {
        /// Index of the plane.
        plane: usize,
    },
    /// Fewer strides or offsets than planes.
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
    /// Two planes of a buffer to be written share bytes, so that one would spoil the other.
    #[error("planes {one} and {other} lie over one another: the buffer's GstVideoMeta is wrong")]
    Overlap {
        /// Index of a plane.
        one: usize,
        /// Index of the other.
        other: usize,
    },
    /// Numbers beyond the address space.
    #[error("the frame is larger than the address space")]
    Overflow,
}

/// The layout of one frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameLayout {
    /// The planes; those from `n_planes` on are empty.
    pub planes: [Plane; MAX_PLANES],
    /// Number of planes in use.
    pub n_planes: usize,
    /// From the first byte of a frame to the first byte of the next.
    pub size_bytes: usize,
}

impl FrameLayout {
    /// The layout without a single byte of padding, as most programs other
    /// than GStreamer write raw frames.
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

    /// The layout that `info` itself has: GStreamer's default one (rows rounded
    /// up to four bytes), unless the info was aligned.
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

    /// The layout of a buffer of `info`'s format that is to be filled: from its meta,
    /// which tells the strides that the pool chose, else the default one.
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

    /// The layout of a file with the strides, offsets and frame size that its
    /// reader was told; whatever is empty or 0 is derived from the rest.
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
                offset = plane
                    .stride_bytes
                    .checked_mul(plane.rows)
                    .and_then(|bytes| bytes.checked_add(offset))
                    .ok_or(LayoutError::Overflow)?;
            }
        }
        if frame_size_bytes > 0 {
            layout.size_bytes = frame_size_bytes;
        } else if !strides.is_empty() || !offsets.is_empty() {
            layout.size_bytes = 0;
            for plane in &layout.planes[..planes] {
                // Whole rows: the file has the padding of the last row too.
                let end = plane
                    .stride_bytes
                    .checked_mul(plane.rows)
                    .and_then(|bytes| bytes.checked_add(plane.offset_bytes))
                    .ok_or(LayoutError::Overflow)?;
                layout.size_bytes = layout.size_bytes.max(end);
            }
        }
        layout.check()?;
        Ok(layout)
    }

    /// The planes in use.
    pub fn planes(&self) -> &[Plane] {
        &self.planes[..self.n_planes]
    }

    /// Whether every row of a frame of `info`'s, which is not aligned, has a place of its
    /// own. gst_video_info_align() adds up whatever paddings it is given.
    pub fn holds(&self, info: &gst_video::VideoInfo) -> bool {
        let plain = Self::of_info(info);
        let mut pairs = self.planes().iter().zip(plain.planes());
        self.check().is_ok()
            && self.overlap().is_none()
            && pairs.all(|(plane, plain)| {
                plane.row_bytes >= plain.row_bytes
                    && (plane.rows <= 1 || plane.stride_bytes >= plain.row_bytes)
            })
    }

    /// Two planes that share bytes of picture.
    fn overlap(&self) -> Option<(usize, usize)> {
        let planes = self.planes();
        (1..planes.len())
            .flat_map(|other| (0..other).map(move |one| (one, other)))
            .find(|&(one, other)| planes[one].meets(&planes[other]))
    }

    /// No plane lies among the rows of another.
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

    /// The planes lie one after the other as they are counted.
    fn is_in_order(&self) -> bool {
        self.planes()
            .windows(2)
            .all(|pair| pair[0].span().end <= pair[1].offset_bytes)
    }

    /// Whether every plane lies inside the frame.
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
            // The stride of a tiled plane is two tile counts, not bytes.
            return if stride == info.stride()[index] {
                Ok(())
            } else {
                Err(LayoutError::Tiled { plane: index })
            };
        }
        let plane = &mut self.planes[index];
        let stride_bytes = usize::try_from(stride).unwrap_or(0);
        if stride_bytes < plane.row_bytes && plane.rows > 1 {
            return Err(LayoutError::StrideTooSmall {
                plane: index,
                stride_bytes: stride,
                row_bytes: plane.row_bytes,
            });
        }
        plane.stride_bytes = stride_bytes;
        Ok(())
    }

    fn plane_of_info(info: &gst_video::VideoInfo, index: usize) -> Plane {
        let format = info.format_info();
        let offset_bytes = info.offset()[index];
        let next = info.offset()[..info.n_planes() as usize]
            .iter()
            .copied()
            .filter(|offset| *offset > offset_bytes)
            .min()
            .unwrap_or(info.size());
        if format.is_tiled() {
            // Tiles are no rows: the plane is one run of bytes.
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
            // Formats that spread a pixel over odd bits have no pixel stride;
            // their rows are what GstVideoInfo says.
            row_bytes = row_bytes.max(if pixel_stride == 0 {
                stride_bytes
            } else {
                width * pixel_stride
            });
            rows = rows.max(info.comp_height(component as u8) as usize);
        }
        Plane {
            offset_bytes,
            stride_bytes,
            row_bytes: row_bytes.min(stride_bytes),
            rows,
        }
    }
}

/// One run of bytes that is contiguous in the file and in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which mapping of the buffer: always 0, unless its planes are mapped apart.
    pub part: usize,
    /// From the start of that mapping.
    pub target_bytes: usize,
    /// From the start of the frame in the file.
    pub source_bytes: usize,
    /// Length.
    pub len_bytes: usize,
}

impl Run {
    /// Where it goes to in `part`, the piece of the mapping that begins at byte `part_start`.
    pub fn target<'a>(&self, part_start: usize, part: &'a mut [u8]) -> &'a mut [u8] {
        let at = self.target_bytes - part_start;
        &mut part[at..at + self.len_bytes]
    }
}

/// How the bytes of a frame travel from one layout to another: the fewest runs
/// that touch nothing but picture bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    runs: Vec<Run>,
}

impl Transfer {
    /// Plans the way from `source` to `target`, two layouts of the same format.
    ///
    /// `parts` tells that each plane of the target has its own mapping.
    /// `padding_is_free` allows the target's padding to be overwritten where
    /// that joins rows: true in memory, false where padding can be a visible
    /// part of the screen.
    pub fn new(
        source: &FrameLayout,
        target: &FrameLayout,
        parts: bool,
        padding_is_free: bool,
    ) -> Self {
        // What lies between the rows is padding only where it is not another plane, and
        // where it is, only a frame laid out in the same way carries the right bytes there.
        let is_same = source.planes() == target.planes();
        let padding_is_free = padding_is_free && (parts || is_same || target.is_apart());
        let mut transfer = Self { runs: Vec::new() };
        for (index, (from, to)) in source.planes().iter().zip(target.planes()).enumerate() {
            let part = if parts { index } else { 0 };
            let row_bytes = from.row_bytes.min(to.row_bytes);
            let rows = from.rows.min(to.rows);
            let joined = from.stride_bytes == to.stride_bytes
                && (padding_is_free || from.stride_bytes == row_bytes);
            if joined && rows > 0 {
                transfer.push(Run {
                    part,
                    target_bytes: to.offset_bytes,
                    source_bytes: from.offset_bytes,
                    len_bytes: from.stride_bytes * (rows - 1) + row_bytes,
                });
                continue;
            }
            for row in 0..rows {
                transfer.push(Run {
                    part,
                    target_bytes: to.row(row).start,
                    source_bytes: from.row(row).start,
                    len_bytes: row_bytes,
                });
            }
        }
        if padding_is_free && (is_same || target.is_in_order()) {
            transfer.join_over_padding();
        }
        transfer
    }

    /// The runs, in the order of the planes.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Sum of the lengths.
    pub fn len_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.len_bytes).sum()
    }

    /// Deals the runs out to at most `count` hands, of about the same number of
    /// bytes each. What one hand writes lies before what the next writes, so
    /// that a buffer can be cut between them; where the target's planes are not
    /// in order, one hand gets all.
    pub fn split(&self, count: usize) -> Vec<Transfer> {
        let in_order = self.runs.windows(2).all(|pair| {
            pair[0].part == pair[1].part
                && pair[0].target_bytes + pair[0].len_bytes <= pair[1].target_bytes
        });
        let share = self.len_bytes().div_ceil(count.max(1)).max(1);
        // No cache line is written by two hands, and the blocks of a disk stay whole.
        let share = share.next_multiple_of(4096);
        if count < 2 || !in_order {
            return vec![self.clone()];
        }
        let mut hands = Vec::with_capacity(count);
        let mut hand = Transfer::default();
        let mut room = share;
        for mut run in self.runs.iter().copied() {
            while run.len_bytes > 0 {
                let len_bytes = run.len_bytes.min(room);
                hand.runs.push(Run { len_bytes, ..run });
                run.target_bytes += len_bytes;
                run.source_bytes += len_bytes;
                run.len_bytes -= len_bytes;
                room -= len_bytes;
                if room == 0 {
                    hands.push(std::mem::take(&mut hand));
                    room = share;
                }
            }
        }
        if !hand.runs.is_empty() {
            hands.push(hand);
        }
        hands
    }

    fn push(&mut self, run: Run) {
        if run.len_bytes == 0 {
            return;
        }
        if let Some(last) = self.runs.last_mut()
            && last.part == run.part
            && last.target_bytes + last.len_bytes == run.target_bytes
            && last.source_bytes + last.len_bytes == run.source_bytes
        {
            last.len_bytes += run.len_bytes;
            return;
        }
        self.runs.push(run);
    }

    /// Joins planes whose gap is the same on both sides, so that a frame whose
    /// layout is the buffer's own is one run.
    fn join_over_padding(&mut self) {
        let mut joined: Vec<Run> = Vec::with_capacity(self.runs.len());
        for run in self.runs.drain(..) {
            if let Some(last) = joined.last_mut() {
                let gap = run
                    .target_bytes
                    .checked_sub(last.target_bytes + last.len_bytes);
                let source_gap = run
                    .source_bytes
                    .checked_sub(last.source_bytes + last.len_bytes);
                if last.part == run.part
                    && gap.is_some()
                    && gap == source_gap
                    && gap < Some(JOINED_GAP_BYTES)
                {
                    last.len_bytes = run.target_bytes + run.len_bytes - last.target_bytes;
                    continue;
                }
            }
            joined.push(run);
        }
        self.runs = joined;
    }
}

/// Gaps shorter than this are cheaper to carry than to skip.
const JOINED_GAP_BYTES: usize = 4096;

#[cfg(test)]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use super::samples::{format, info, naive, padded, rows_of};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stock_layouts_are_those_of_video_info() {
        gst::init().unwrap();
        let layout = FrameLayout::of_info(&info(gst_video::VideoFormat::Nv12, 33, 17));
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
        let size = |format| FrameLayout::packed(&info(format, 33, 17)).size_bytes;
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
                FrameLayout::of_info(&info).check().unwrap();
                FrameLayout::packed(&info).check().unwrap();
            }
        }
    }

    #[test]
    fn same_layout_is_one_run() {
        gst::init().unwrap();
        for format in gst_video::VideoFormat::iter_raw() {
            let layout = FrameLayout::of_info(&info(format, 1366, 768));
            let transfer = Transfer::new(&layout, &layout, false, true);
            assert_eq!(transfer.runs().len(), 1, "{format:?}");
        }
    }

    #[test]
    fn visible_padding_is_not_written() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::Bgrx, 10, 4);
        let layout = FrameLayout::custom(&info, &[64], &[], 0).unwrap();
        let transfer = Transfer::new(&layout, &layout, false, false);
        assert_eq!(transfer.runs().len(), 4);
        assert_eq!(transfer.len_bytes(), 160);
    }

    /// A layout of so many planes of `info`'s, each with its offset and stride.
    fn placed(info: &gst_video::VideoInfo, places: &[(usize, usize)], size: usize) -> FrameLayout {
        let mut layout = FrameLayout::of_info(info);
        for (plane, &(offset, stride)) in layout.planes.iter_mut().zip(places) {
            (plane.offset_bytes, plane.stride_bytes) = (offset, stride);
        }
        layout.size_bytes = size;
        layout.check().unwrap();
        layout
    }

    /// As gst_video_meta_deserialize does, which compares nothing with the buffer.
    fn buffer_with_meta(
        info: &gst_video::VideoInfo,
        places: &[(usize, usize)],
        size: usize,
    ) -> gst::Buffer {
        let mut buffer = gst::Buffer::with_size(size).unwrap();
        let (mut offsets, mut strides) = ([0; 4], [0; 4]);
        for (n, &(offset, stride)) in places.iter().enumerate() {
            (offsets[n], strides[n]) = (offset, stride as i32);
        }
        // SAFETY: the buffer is writable, and both arrays have four numbers.
        unsafe {
            gst_video::ffi::gst_buffer_add_video_meta_full(
                buffer.get_mut().unwrap().as_mut_ptr(),
                0,
                gst::glib::translate::IntoGlib::into_glib(info.format()),
                info.width(),
                info.height(),
                places.len() as u32,
                &offsets,
                &strides,
            );
        }
        buffer
    }

    #[test]
    fn planes_over_one_another_are_no_place_for_a_frame() {
        gst::init().unwrap();
        // Found by fuzzing: every plane at byte 0.
        let dot = info(gst_video::VideoFormat::A420, 1, 1);
        let buffer = buffer_with_meta(&dot, &[(0, 54), (0, 14), (0, 81), (0, 822_178_048)], 93);
        assert_eq!(
            FrameLayout::of_buffer(&dot, &buffer),
            Err(LayoutError::Overlap { one: 0, other: 1 })
        );
        // The last row of the first plane is the first row of the second.
        let info = info(gst_video::VideoFormat::Nv12, 4, 4);
        let buffer = buffer_with_meta(&info, &[(0, 4), (12, 4)], 24);
        assert_eq!(
            FrameLayout::of_buffer(&info, &buffer),
            Err(LayoutError::Overlap { one: 0, other: 1 })
        );
    }

    /// IMC4 and IMC2: U and V share the lines of one plane, each has a half of them.
    #[test]
    fn chroma_planes_side_by_side_are_written_row_by_row() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::I420, 8, 4);
        let buffer = buffer_with_meta(&info, &[(0, 8), (32, 8), (36, 8)], 48);
        let target = FrameLayout::of_buffer(&info, &buffer).unwrap();
        // The same strides as the target's: rows could be joined, but for the neighbour.
        let source = placed(&info, &[(0, 8), (32, 8), (48, 8)], 64);
        let from: Vec<u8> = (0..64).collect();
        let mut got = vec![0xEE; 48];
        for run in Transfer::new(&source, &target, false, true).runs() {
            run.target(0, &mut got)
                .copy_from_slice(&from[run.source_bytes..run.source_bytes + run.len_bytes]);
        }
        let mut expected: Vec<u8> = (0..32).collect();
        expected.extend([
            32, 33, 34, 35, 48, 49, 50, 51, 40, 41, 42, 43, 56, 57, 58, 59,
        ]);
        assert_eq!(got, expected);
    }

    #[test]
    fn strides_too_small_are_refused() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::Bgrx, 10, 4);
        for stride_bytes in [39, 0, -40] {
            assert_eq!(
                FrameLayout::custom(&info, &[stride_bytes], &[], 0),
                Err(LayoutError::StrideTooSmall {
                    plane: 0,
                    stride_bytes,
                    row_bytes: 40
                })
            );
        }
        assert!(FrameLayout::custom(&info, &[40, 40], &[], 0).is_err());
        assert!(FrameLayout::custom(&info, &[40], &[8], 160).is_err());
        assert!(FrameLayout::custom(&info, &[], &[usize::MAX], 0).is_err());
    }

    proptest! {
        /// Planes anywhere, in any order, with any stride: refused, or filled right.
        #[test]
        fn a_frame_goes_right_into_whatever_is_not_refused(
            format in format(),
            width in 1u32..12,
            height in 1u32..8,
            places in proptest::collection::vec((0usize..300, 0usize..40), 4),
            source_padding in 0usize..20,
            free in any::<bool>(),
            hands in 1usize..4,
        ) {
            let info = info(format, width, height);
            let stock = FrameLayout::of_info(&info);
            if info.format_info().is_tiled() {
                return Ok(());
            }
            let places: Vec<_> = places[..stock.n_planes].iter().zip(stock.planes())
                .map(|(&(offset, more), plane)| (offset, plane.stride_bytes + more)).collect();
            let buffer = buffer_with_meta(&info, &places, 4000);
            let Ok(target) = FrameLayout::of_buffer(&info, &buffer) else { return Ok(()) };
            let source = padded(&info, source_padding);
            let from: Vec<u8> = (0..source.size_bytes).map(|i| (i * 31 % 251) as u8).collect();
            let mut got = vec![0xEE; target.size_bytes];
            for hand in Transfer::new(&source, &target, false, free).split(hands) {
                for run in hand.runs() {
                    run.target(0, &mut got)
                        .copy_from_slice(&from[run.source_bytes..run.source_bytes + run.len_bytes]);
                }
            }
            prop_assert_eq!(rows_of(&got, &target), rows_of(&from, &source));
        }

        #[test]
        fn a_transfer_moves_the_bytes_that_a_naive_copy_moves(
            format in format(),
            width in 1u32..70,
            height in 1u32..40,
            padding in 0usize..33,
            gap in 0usize..9,
            packed in any::<bool>(),
            free in any::<bool>(),
            hands in 1usize..9,
        ) {
            let info = info(format, width, height);
            let source = if packed { FrameLayout::packed(&info) } else { FrameLayout::of_info(&info) };
            let mut target = padded(&info, padding);
            if !info.format_info().is_tiled() {
                for (index, plane) in target.planes.iter_mut().enumerate() {
                    plane.offset_bytes += (index + 1) * gap;
                }
                target.size_bytes += 4 * gap;
            }
            let from: Vec<u8> = (0..source.size_bytes).map(|i| (i * 31 % 251) as u8).collect();
            let expected = naive(&from, &source, &target);
            let mut got = vec![0xEE; target.size_bytes];
            let transfer = Transfer::new(&source, &target, false, free);
            let hands = transfer.split(hands);
            let in_order: Vec<Run> = hands.iter().flat_map(|hand| hand.runs().to_vec()).collect();
            let apart = in_order.windows(2).all(|pair|
                pair[0].target_bytes + pair[0].len_bytes <= pair[1].target_bytes);
            prop_assert!(apart);
            for run in in_order {
                run.target(0, &mut got)
                    .copy_from_slice(&from[run.source_bytes..run.source_bytes + run.len_bytes]);
            }
            if free {
                // Padding may hold anything; the picture may not.
                prop_assert_eq!(rows_of(&got, &target), rows_of(&expected, &target));
            } else {
                prop_assert_eq!(got, expected);
            }
        }
    }
}
