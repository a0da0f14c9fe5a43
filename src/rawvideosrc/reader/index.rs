// SPDX-License-Identifier: MPL-2.0
//! Where the frames of a file begin, and what each frame header says about its fields.

use crate::rawvideosrc::y4m::Fields;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameIndex {
    /// Frames at equal distances.
    Regular {
        /// Offset of the first frame.
        start_bytes: u64,
        /// Distance from one frame to the next.
        step_bytes: u64,
    },
    /// Frames at any offsets. Shared, because there may be several readers.
    Listed(Arc<Listing>),
}

/// The offsets of frames that do not lie at equal distances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    runs: Vec<Run>,
    frames: u64,
}

/// Frames at equal distances with the same fields. Most files that are not regular are so in
/// few places, so a list of runs is far shorter than a list of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u64,
    start_bytes: u64,
    /// 0 until the run has a second frame.
    step_bytes: u64,
    fields: Option<Fields>,
}

impl Run {
    fn start_of(&self, n: u64) -> u64 {
        self.start_bytes + (n - self.first) * self.step_bytes
    }
}

impl Listing {
    /// Appends a frame. `start_bytes` must be greater than that of the frame before.
    pub fn push(&mut self, start_bytes: u64, fields: Option<Fields>) {
        let n = self.frames;
        self.frames += 1;
        if let Some(run) = self.runs.last_mut().filter(|run| run.fields == fields) {
            if run.first + 1 == n {
                run.step_bytes = start_bytes - run.start_bytes;
            }
            if run.start_of(n) == start_bytes {
                return;
            }
        }
        self.runs.push(Run {
            first: n,
            start_bytes,
            step_bytes: 0,
            fields,
        });
    }

    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The first frame that begins after `at_bytes`; the number of frames if there is none.
    fn first_beyond(&self, at_bytes: u64) -> u64 {
        let after = self.runs.partition_point(|run| run.start_bytes <= at_bytes);
        let Some(run) = after.checked_sub(1).and_then(|last| self.runs.get(last)) else {
            return 0;
        };
        let next = self.runs.get(after).map_or(self.frames, |run| run.first);
        let within = (at_bytes - run.start_bytes).checked_div(run.step_bytes);
        next.min(run.first + within.unwrap_or(0) + 1)
    }

    fn run_of(&self, n: u64) -> Option<&Run> {
        if n >= self.frames {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first <= n);
        self.runs.get(after.checked_sub(1)?)
    }
}

impl FrameIndex {
    /// The offset of frame `n`.
    pub fn start_bytes(&self, n: u64) -> Option<u64> {
        match self {
            Self::Regular {
                start_bytes,
                step_bytes,
            } => n.checked_mul(*step_bytes)?.checked_add(*start_bytes),
            Self::Listed(listing) => Some(listing.run_of(n)?.start_of(n)),
        }
    }

    /// The first frame, of `frame_bytes` each, that is not whole within the first `len_bytes` of
    /// the file, and how many bytes of it are missing.
    pub fn first_incomplete(&self, len_bytes: u64, frame_bytes: u64) -> (u64, u64) {
        let n = match self {
            Self::Regular {
                start_bytes,
                step_bytes,
            } => match len_bytes.checked_sub(*start_bytes + frame_bytes) {
                Some(after_first) => after_first / (*step_bytes).max(1) + 1,
                None => 0,
            },
            Self::Listed(listing) => match len_bytes.checked_sub(frame_bytes) {
                Some(last_start) => listing.first_beyond(last_start),
                None => 0,
            },
        };
        let end = self.start_bytes(n).unwrap_or(len_bytes) + frame_bytes;
        (n, end.saturating_sub(len_bytes))
    }

    pub fn fields(&self, n: u64) -> Option<Fields> {
        match self {
            Self::Regular { .. } => None,
            Self::Listed(listing) => listing.run_of(n)?.fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_frame_is_found_where_it_was_put(
            gaps in proptest::collection::vec((1u64..4, any::<bool>(), 1usize..6), 0..40),
        ) {
            let mut listing = Listing::default();
            let mut expected = Vec::new();
            let mut at = 7;
            for (gap, is_interlaced, count) in gaps {
                for _ in 0..count {
                    let fields = Some(Fields { is_interlaced, ..Fields::default() });
                    listing.push(at, fields);
                    expected.push((at, fields));
                    at += gap;
                }
            }
            prop_assert_eq!(listing.frames(), expected.len() as u64);
            let index = FrameIndex::Listed(Arc::new(listing));
            for (n, (start_bytes, fields)) in (0..).zip(&expected) {
                prop_assert_eq!(index.start_bytes(n), Some(*start_bytes));
                prop_assert_eq!(index.fields(n), *fields);
            }
            prop_assert_eq!(index.start_bytes(expected.len() as u64), None);
            for len_bytes in 0..at + 5 {
                let first = expected.iter().position(|(start_bytes, _)| start_bytes + 3 > len_bytes);
                let first = first.unwrap_or(expected.len()) as u64;
                prop_assert_eq!(index.first_incomplete(len_bytes, 3).0, first);
            }
        }
    }

    #[test]
    fn the_first_frame_that_a_file_does_not_hold_is_found() {
        // Three frames of 100 bytes, with 10 bytes before them and 6 between them.
        let regular = FrameIndex::Regular {
            start_bytes: 10,
            step_bytes: 106,
        };
        let mut listing = Listing::default();
        for start_bytes in [10, 116, 222] {
            listing.push(start_bytes, None);
        }
        let listed = FrameIndex::Listed(Arc::new(listing));
        for (len_bytes, first, missing) in [
            (0, 0, 110),
            (9, 0, 101),
            (109, 0, 1),
            (110, 1, 106),
            (215, 1, 1),
            (216, 2, 106),
            (321, 2, 1),
        ] {
            for index in [&regular, &listed] {
                let found = index.first_incomplete(len_bytes, 100);
                assert_eq!(found, (first, missing), "{index:?} in {len_bytes} bytes");
            }
        }
    }

    #[test]
    fn frames_at_equal_distances_take_one_run() {
        let mut listing = Listing::default();
        (0..100_000).for_each(|n| listing.push(40 + n * 9, None));
        assert_eq!(listing.runs.len(), 1);
    }
}
