// SPDX-License-Identifier: MPL-2.0
//! How the bytes of a frame get from one layout into another.

use super::Layout;

/// A run of bytes that is contiguous in the file and in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Index of the mapping: 0, unless each plane of the buffer has a mapping of its own.
    pub part: usize,
    /// From the start of the mapping to the run.
    pub target_bytes: usize,
    /// From the start of the frame in the file to the run.
    pub source_bytes: usize,
    pub len_bytes: usize,
}

impl Run {
    /// The place of the run in `part`, the piece of the mapping from byte `part_start`.
    pub fn target<'a>(&self, part_start: usize, part: &'a mut [u8]) -> &'a mut [u8] {
        let at = self.target_bytes - part_start;
        &mut part[at..at + self.len_bytes]
    }
}

/// The fewest runs of bytes that carry a frame from one layout to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    runs: Vec<Run>,
}

impl Transfer {
    /// Plans the runs from `source` to `target`, two layouts of the same format. `parts` says that
    /// each plane of the target has its own mapping. `padding_is_free` allows the target's padding
    /// to be overwritten where that joins rows; it is false where padding may be a visible part of
    /// the screen.
    pub fn new(source: &Layout, target: &Layout, parts: bool, padding_is_free: bool) -> Self {
        // The bytes between rows may belong to another plane. They may be overwritten only if the
        // source has the same layout and with it the right bytes.
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

    /// Bytes of all runs together.
    pub fn len_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.len_bytes).sum()
    }

    /// Divides the runs into at most `count` shares of about the same number of bytes. What one
    /// share writes lies before what the next one writes, so that a buffer can be cut between them.
    /// If the target's planes are not in order, one share has all runs.
    pub fn split(&self, count: usize) -> Vec<Transfer> {
        let in_order = self.runs.windows(2).all(|pair| {
            pair[0].part == pair[1].part
                && pair[0].target_bytes + pair[0].len_bytes <= pair[1].target_bytes
        });
        let share = self.len_bytes().div_ceil(count.max(1)).max(1);
        // Keeps cache lines and disk blocks out of two shares where the frame is one aligned run.
        let share = share.next_multiple_of(4096);
        if count < 2 || !in_order {
            return vec![self.clone()];
        }
        let mut shares = Vec::with_capacity(count);
        let mut current = Transfer::default();
        let mut room = share;
        for mut run in self.runs.iter().copied() {
            while run.len_bytes > 0 {
                let len_bytes = run.len_bytes.min(room);
                current.runs.push(Run { len_bytes, ..run });
                run.target_bytes += len_bytes;
                run.source_bytes += len_bytes;
                run.len_bytes -= len_bytes;
                room -= len_bytes;
                if room == 0 {
                    shares.push(std::mem::take(&mut current));
                    room = share;
                }
            }
        }
        if !current.runs.is_empty() {
            shares.push(current);
        }
        shares
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

    /// Joins runs whose gap is the same on both sides: a frame of the buffer's layout becomes one
    /// run.
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

/// A gap shorter than this is cheaper to copy than to leave out.
const JOINED_GAP_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::super::samples::{buffer_with_meta, format, info, naive, padded, rows_of};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn same_layout_is_one_run() {
        gst::init().unwrap();
        for format in gst_video::VideoFormat::iter_raw() {
            let layout = Layout::of_info(&info(format, 1366, 768));
            let transfer = Transfer::new(&layout, &layout, false, true);
            assert_eq!(transfer.runs().len(), 1, "{format:?}");
        }
    }

    #[test]
    fn visible_padding_is_not_written() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::Bgrx, 10, 4);
        let layout = Layout::custom(&info, &[64], &[], 0).unwrap();
        let transfer = Transfer::new(&layout, &layout, false, false);
        assert_eq!(transfer.runs().len(), 4);
        assert_eq!(transfer.len_bytes(), 160);
    }

    fn placed(info: &gst_video::VideoInfo, places: &[(usize, usize)], size: usize) -> Layout {
        let mut layout = Layout::of_info(info);
        for (plane, &(offset, stride)) in layout.planes.iter_mut().zip(places) {
            (plane.offset_bytes, plane.stride_bytes) = (offset, stride);
        }
        layout.size_bytes = size;
        layout.check().unwrap();
        layout
    }

    /// IMC4 and IMC2 keep U and V in the same lines, each in one half of the line.
    #[test]
    fn chroma_planes_side_by_side_are_written_row_by_row() {
        gst::init().unwrap();
        let info = info(gst_video::VideoFormat::I420, 8, 4);
        let buffer = buffer_with_meta(&info, &[(0, 8), (32, 8), (36, 8)], 48);
        let target = Layout::of_buffer(&info, &buffer).unwrap();
        // Only the plane between them keeps these rows of equal strides from being joined.
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

    proptest! {
        /// Planes may be anywhere, with any stride: the frame is refused or filled correctly.
        #[test]
        fn a_frame_goes_right_into_whatever_is_not_refused(
            format in format(),
            width in 1u32..12,
            height in 1u32..8,
            places in proptest::collection::vec((0usize..300, 0usize..40), 4),
            source_padding in 0usize..20,
            free in any::<bool>(),
            shares in 1usize..4,
        ) {
            let info = info(format, width, height);
            let stock = Layout::of_info(&info);
            if info.format_info().is_tiled() {
                return Ok(());
            }
            let places: Vec<_> = places[..stock.n_planes].iter().zip(stock.planes())
                .map(|(&(offset, more), plane)| (offset, plane.stride_bytes + more)).collect();
            let buffer = buffer_with_meta(&info, &places, 4000);
            let Ok(target) = Layout::of_buffer(&info, &buffer) else { return Ok(()) };
            let source = padded(&info, source_padding);
            let from: Vec<u8> = (0..source.size_bytes).map(|i| (i * 31 % 251) as u8).collect();
            let mut got = vec![0xEE; target.size_bytes];
            for share in Transfer::new(&source, &target, false, free).split(shares) {
                for run in share.runs() {
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
            shares in 1usize..9,
        ) {
            let info = info(format, width, height);
            let source = if packed { Layout::packed(&info) } else { Layout::of_info(&info) };
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
            let shares = transfer.split(shares);
            let in_order: Vec<Run> = shares.iter().flat_map(|share| share.runs().to_vec()).collect();
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
