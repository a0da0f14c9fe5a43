// SPDX-License-Identifier: MPL-2.0
//! Where the frames of a file begin, and what each says about its fields.

use crate::rawvideosrc::y4m::Fields;
use std::sync::Arc;

/// Where frames begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameIndex {
    /// One after the other, at equal distances.
    Regular {
        /// The first one.
        start_bytes: u64,
        /// From each to the next.
        step_bytes: u64,
    },
    /// Anywhere; shared, because every reader wants it.
    Listed(Arc<Listing>),
}

/// Frames at places that only a look at each can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    runs: Vec<Run>,
    frames: u64,
}

/// Frames at equal distances that are shown alike. Most files that are not regular
/// are so in few places, which makes a list of runs far shorter than one of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Number of its first frame.
    first: u64,
    start_bytes: u64,
    /// 0 until it has a second frame.
    step_bytes: u64,
    fields: Option<Fields>,
}

impl Run {
    fn start_of(&self, n: u64) -> u64 {
        self.start_bytes + (n - self.first) * self.step_bytes
    }
}

impl Listing {
    /// Appends a frame; `start_bytes` is beyond that of the one before.
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

    /// Frames in it.
    pub fn frames(&self) -> u64 {
        self.frames
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
    /// The first byte of frame `n`.
    pub fn start_bytes(&self, n: u64) -> Option<u64> {
        match self {
            Self::Regular {
                start_bytes,
                step_bytes,
            } => n.checked_mul(*step_bytes)?.checked_add(*start_bytes),
            Self::Listed(listing) => Some(listing.run_of(n)?.start_of(n)),
        }
    }

    /// What frame `n` says about its fields.
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
        }
    }

    #[test]
    fn frames_at_equal_distances_take_one_run() {
        let mut listing = Listing::default();
        (0..100_000).for_each(|n| listing.push(40 + n * 9, None));
        assert_eq!(listing.runs.len(), 1);
    }
}
