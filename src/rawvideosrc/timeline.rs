// SPDX-License-Identifier: MPL-2.0
//! Converts between frame numbers and time, over all passes of a loop.

const SECOND_NS: u128 = 1_000_000_000;

/// How often the frames are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    Times(u64),
    Endless,
}

/// The frames that the element sends, numbered from 0 through all passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    /// Frames per second: numerator and denominator; 0/1 if there is no fixed rate.
    fps: (u32, u32),
    /// Frames of one pass; `None` if that is not known or there is no end.
    frames: Option<u64>,
    passes: Passes,
}

impl Timeline {
    pub fn new(fps: (u32, u32), frames: Option<u64>, passes: Passes) -> Self {
        Self {
            fps,
            frames,
            passes,
        }
    }

    /// The number of frames in all passes.
    pub fn total_frames(&self) -> Option<u64> {
        match self.passes {
            Passes::Times(times) => self.frames?.checked_mul(times),
            Passes::Endless => None,
        }
    }

    /// The number within its pass of frame `n` of the stream; `None` after the last frame.
    pub fn frame_of_pass(&self, n: u64) -> Option<u64> {
        if self.total_frames().is_some_and(|total| n >= total) {
            return None;
        }
        match self.frames {
            Some(0) => None,
            Some(frames) => Some(n % frames),
            None => Some(n),
        }
    }

    /// The start of frame `n`, rounded down as GStreamer's own sources do.
    pub fn time_ns(&self, n: u64) -> Option<u64> {
        let (numer, denom) = self.fps;
        if numer == 0 {
            return (n == 0).then_some(0);
        }
        let time = u128::from(n) * u128::from(denom) * SECOND_NS / u128::from(numer);
        u64::try_from(time).ok()
    }

    pub fn frame_duration_ns(&self, n: u64) -> Option<u64> {
        Some(self.time_ns(n + 1)? - self.time_ns(n)?)
    }

    /// The frame that is shown at `time_ns`: the last one that starts no later.
    pub fn frame_at(&self, time_ns: u64) -> u64 {
        let (numer, denom) = self.fps;
        if numer == 0 {
            return 0;
        }
        let frame = u128::from(time_ns) * u128::from(numer) / (u128::from(denom) * SECOND_NS);
        let frame = u64::try_from(frame).unwrap_or(u64::MAX - 1);
        // Starts are rounded down, so the next frame may have begun already.
        match self.time_ns(frame + 1) {
            Some(next) if next <= time_ns => frame + 1,
            _ => frame,
        }
    }

    /// The last frame that starts before `time_ns`, with which reverse playback from there
    /// begins. `None` if there is none.
    pub fn frame_before(&self, time_ns: u64) -> Option<u64> {
        let last = self.total_frames().map(|total| total.checked_sub(1));
        let frame = self.frame_at(time_ns.checked_sub(1)?);
        match last {
            Some(last) => Some(frame.min(last?)),
            None => Some(frame),
        }
    }

    pub fn duration_ns(&self) -> Option<u64> {
        if self.fps.0 == 0 {
            return None;
        }
        self.time_ns(self.total_frames()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ntsc_frames_start_where_gstreamer_says() {
        let timeline = Timeline::new((30000, 1001), Some(300), Passes::Times(1));
        assert_eq!(timeline.time_ns(1), Some(33_366_666));
        assert_eq!(timeline.time_ns(2), Some(66_733_333));
        assert_eq!(timeline.duration_ns(), Some(10_010_000_000));
        assert_eq!(timeline.frame_of_pass(299), Some(299));
        assert_eq!(timeline.frame_of_pass(300), None);
    }

    #[test]
    fn passes_repeat_the_frames() {
        let timeline = Timeline::new((25, 1), Some(10), Passes::Times(3));
        assert_eq!(timeline.frame_of_pass(29), Some(9));
        assert_eq!(timeline.frame_of_pass(30), None);
        assert_eq!(timeline.duration_ns(), Some(1_200_000_000));
        let endless = Timeline::new((25, 1), Some(10), Passes::Endless);
        assert_eq!(endless.frame_of_pass(1_000_003), Some(3));
        assert_eq!(endless.duration_ns(), None);
    }

    #[test]
    fn still_pictures_have_no_time_after_the_first() {
        let timeline = Timeline::new((0, 1), Some(2), Passes::Times(1));
        assert_eq!(timeline.time_ns(0), Some(0));
        assert_eq!(timeline.time_ns(1), None);
        assert_eq!(timeline.duration_ns(), None);
    }

    proptest! {
        #[test]
        fn a_frame_owns_the_time_from_its_start_to_the_next(
            numer in 1u32..=240_000, denom in 1u32..=1001, n in 0u64..10_000_000, part in 0u64..1000,
        ) {
            prop_assume!(numer >= denom);
            let timeline = Timeline::new((numer, denom), None, Passes::Times(1));
            let start = timeline.time_ns(n).unwrap();
            let duration = timeline.frame_duration_ns(n).unwrap();
            prop_assert_eq!(timeline.frame_at(start), n);
            prop_assert_eq!(timeline.frame_at(start + duration - 1), n);
            prop_assert_eq!(timeline.frame_at(start + duration * part / 1000), n);
            prop_assert_eq!(timeline.frame_before(start + duration), Some(n));
            prop_assert_eq!(timeline.frame_before(start), n.checked_sub(1));
        }
    }
}
