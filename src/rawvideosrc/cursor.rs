// SPDX-License-Identifier: MPL-2.0
//! Which frame comes next: forwards, backwards, in steps, after a seek.

use super::timeline::Timeline;

/// The position in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// The target of a seek, which becomes a frame once the frame rate is known.
    Time {
        start_ns: u64,
        /// The stop of the segment; `None` for the end of the stream.
        stop_ns: Option<u64>,
        /// From one frame to the next; negative in reverse playback.
        step: i64,
    },
    /// A frame of the stream.
    Frame { n: u64, step: i64 },
    /// Reverse playback has passed the first frame.
    End,
}

impl Cursor {
    pub const START: Self = Self::Time {
        start_ns: 0,
        stop_ns: None,
        step: 1,
    };

    /// Turns a time into the frame that is shown at that time, or in reverse playback into the
    /// last frame before the segment's stop.
    pub fn resolve(self, timeline: &Timeline) -> Self {
        let Self::Time {
            start_ns,
            stop_ns,
            step,
        } = self
        else {
            return self;
        };
        let frame = if step < 0 {
            stop_ns
                .or(timeline.duration_ns())
                .and_then(|stop_ns| timeline.frame_before(stop_ns))
        } else {
            Some(timeline.frame_at(start_ns))
        };
        frame.map_or(Self::End, |n| Self::Frame { n, step })
    }

    /// Turns a frame back into a time, because the frame rate may change.
    pub fn unresolve(self, timeline: &Timeline) -> Self {
        let Self::Frame { n, step } = self else {
            return self;
        };
        Self::Time {
            start_ns: timeline.time_ns(n).unwrap_or(0),
            stop_ns: timeline.time_ns(n + 1),
            step,
        }
    }

    /// Moves on by one step.
    pub fn advance(self) -> Self {
        match self {
            Self::Frame { n, step } => match n.checked_add_signed(step) {
                Some(n) => Self::Frame { n, step },
                None => Self::End,
            },
            other => other,
        }
    }

    /// The number of the frame, if it is known.
    pub fn frame(self) -> Option<u64> {
        match self {
            Self::Frame { n, .. } => Some(n),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rawvideosrc::timeline::Passes;

    fn walk(mut cursor: Cursor, timeline: &Timeline) -> Vec<u64> {
        let mut frames = Vec::new();
        cursor = cursor.resolve(timeline);
        while let Some(n) = cursor.frame()
            && timeline.frame_of_pass(n).is_some()
        {
            frames.push(n);
            cursor = cursor.advance();
        }
        frames
    }

    #[test]
    fn frames_follow_in_both_directions_and_in_steps() {
        let timeline = Timeline::new((10, 1), Some(10), Passes::Times(1));
        let at = |start_ns, stop_ns, step| Cursor::Time {
            start_ns,
            stop_ns,
            step,
        };
        assert_eq!(walk(Cursor::START, &timeline).len(), 10);
        assert_eq!(walk(at(750_000_000, None, 1), &timeline), [7, 8, 9]);
        assert_eq!(walk(at(100_000_000, None, 4), &timeline), [1, 5, 9]);
        assert_eq!(walk(at(0, Some(300_000_000), -1), &timeline), [2, 1, 0]);
        assert_eq!(walk(at(0, None, -3), &timeline), [9, 6, 3, 0]);
        assert!(walk(at(0, Some(0), -1), &timeline).is_empty());
    }

    #[test]
    fn the_time_is_kept_when_the_rate_changes() {
        let slow = Timeline::new((10, 1), Some(10), Passes::Times(1));
        let fast = Timeline::new((50, 1), Some(50), Passes::Times(1));
        let cursor = Cursor::Frame { n: 3, step: 1 };
        let moved = cursor.unresolve(&slow).resolve(&fast);
        assert_eq!(moved, Cursor::Frame { n: 15, step: 1 });
    }
}
