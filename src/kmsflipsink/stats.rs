// SPDX-License-Identifier: MPL-2.0
//! Counters over flip events. Pure.

/// The upper bounds of the latency classes, in microseconds. One more class has no upper bound.
pub const LATENCY_BOUNDS_US: [u64; 9] = [
    500, 1_000, 2_000, 4_000, 8_000, 16_000, 24_000, 33_000, 66_000,
];

/// One completed flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// When the sink handed the frame over, CLOCK_MONOTONIC.
    pub submitted_ns: u64,
    /// When the frame was on the screen, CLOCK_MONOTONIC.
    pub shown_ns: u64,
    /// The number of the vertical blank, if the driver counts them.
    pub sequence: Option<u32>,
    /// How long after its time the frame was shown; `None` if it had no time.
    pub late_ns: Option<u64>,
    /// Whether the commit set the mode. Its latency is not counted, because a modeset takes long.
    pub is_modeset: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    period_ns: u64,
    last: Option<Flip>,
    first_shown_ns: Option<u64>,
    /// Frames that reached the screen.
    pub shown: u64,
    /// Frames shown more than one refresh period after their time.
    pub late: u64,
    /// Vertical blanks at which a frame was ready but not shown.
    pub missed_vblanks: u64,
    /// Flips whose event never came.
    pub lost_events: u64,
    pub dropped: Dropped,
    /// Frames shown with an overlay composition on a plane above their own.
    pub overlay_on_plane: u64,
    /// Frames shown with an overlay composition that was blended into a copy of them.
    pub overlay_blended: u64,
    /// How many frames took how long from hand-over to screen, in the classes of `LATENCY_BOUNDS_US`.
    pub latency: [u64; LATENCY_BOUNDS_US.len() + 1],
    latency_sum_ns: u64,
    latency_max_ns: u64,
    latency_count: u64,
}

/// Frames that the sink took and did not show, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Another program is master of the card.
    pub no_master: u64,
    /// Nothing is plugged into the connector.
    pub disconnected: u64,
    /// A flush came before the commit.
    pub flushed: u64,
    /// The kernel refused the commit.
    pub refused: u64,
}

impl Stats {
    /// Counters at zero, for a display that refreshes every `period_ns`.
    pub fn new(period_ns: u64) -> Self {
        Self {
            period_ns: period_ns.max(1),
            last: None,
            first_shown_ns: None,
            shown: 0,
            late: 0,
            missed_vblanks: 0,
            lost_events: 0,
            dropped: Dropped::default(),
            overlay_on_plane: 0,
            overlay_blended: 0,
            latency: [0; LATENCY_BOUNDS_US.len() + 1],
            latency_sum_ns: 0,
            latency_max_ns: 0,
            latency_count: 0,
        }
    }

    /// Notes the refresh period of another mode. The counters keep their values.
    pub fn set_period(&mut self, period_ns: u64) {
        self.period_ns = period_ns.max(1);
        self.last = None;
    }

    pub fn flipped(&mut self, flip: Flip) {
        self.shown += 1;
        self.first_shown_ns.get_or_insert(flip.shown_ns);
        if flip.late_ns.is_some_and(|late| late > self.period_ns) {
            self.late += 1;
        }
        if !flip.is_modeset {
            self.missed_vblanks += self.missed(&flip);
            let latency_ns = flip.shown_ns.saturating_sub(flip.submitted_ns);
            let class = LATENCY_BOUNDS_US.partition_point(|&bound| bound * 1000 <= latency_ns);
            self.latency[class] += 1;
            self.latency_sum_ns += latency_ns;
            self.latency_max_ns = self.latency_max_ns.max(latency_ns);
            self.latency_count += 1;
        }
        self.last = Some(flip);
    }

    /// How many vertical blanks lie between the first at which this frame could have been shown and the one at
    /// which it was.
    fn missed(&self, flip: &Flip) -> u64 {
        let Some(sequence) = flip.sequence else {
            return 0;
        };
        let latency_ns = flip.shown_ns.saturating_sub(flip.submitted_ns);
        // A frame that is handed over less than an eighth of a period before a blank cannot be shown at it.
        let by_time = latency_ns.saturating_sub(self.period_ns / 8) / self.period_ns;
        match self.last.and_then(|last| last.sequence) {
            // A frame that only waited for its predecessor missed nothing, so count no blank before the
            // previous flip.
            Some(last) => by_time.min(u64::from(sequence.wrapping_sub(last)).saturating_sub(1)),
            None => by_time,
        }
    }

    /// Frames in a second, from the first flip to the last.
    pub fn rate(&self) -> f64 {
        match (self.first_shown_ns, self.last) {
            (Some(first), Some(last)) if last.shown_ns > first => {
                (self.shown - 1) as f64 * 1e9 / (last.shown_ns - first) as f64
            }
            _ => 0.0,
        }
    }

    /// Mean and maximum of the time from hand-over to screen.
    pub fn latency_ns(&self) -> (u64, u64) {
        (
            self.latency_sum_ns
                .checked_div(self.latency_count)
                .unwrap_or(0),
            self.latency_max_ns,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 16_666_667;

    fn flip(submitted_ns: u64, sequence: u32) -> Flip {
        Flip {
            submitted_ns,
            shown_ns: u64::from(sequence) * PERIOD,
            sequence: Some(sequence),
            late_ns: None,
            is_modeset: false,
        }
    }

    #[test]
    fn a_frame_that_waited_for_its_predecessor_missed_nothing() {
        let mut stats = Stats::new(PERIOD);
        stats.flipped(flip(99 * PERIOD + 1, 100));
        stats.flipped(flip(99 * PERIOD + 2, 101));
        stats.flipped(flip(100 * PERIOD + 2, 102));
        assert_eq!((stats.shown, stats.missed_vblanks), (3, 0));
    }

    #[test]
    fn a_producer_that_pauses_misses_nothing() {
        let mut stats = Stats::new(PERIOD);
        stats.flipped(flip(99 * PERIOD + 1, 100));
        stats.flipped(flip(149 * PERIOD + 1, 150));
        assert_eq!(stats.missed_vblanks, 0);
    }

    #[test]
    fn a_frame_that_was_ready_and_not_shown_missed_a_blank() {
        let mut stats = Stats::new(PERIOD);
        stats.flipped(flip(99 * PERIOD + 1, 100));
        stats.flipped(flip(100 * PERIOD + 1, 102));
        stats.flipped(flip(110 * PERIOD + 1, 114));
        assert_eq!(stats.missed_vblanks, 1 + 3);
    }

    #[test]
    fn a_modeset_counts_as_shown_but_not_as_latency() {
        let mut stats = Stats::new(PERIOD);
        stats.flipped(Flip {
            is_modeset: true,
            ..flip(0, 100)
        });
        assert_eq!(
            (
                stats.shown,
                stats.missed_vblanks,
                stats.latency.iter().sum::<u64>()
            ),
            (1, 0, 0)
        );
    }

    #[test]
    fn without_a_vblank_counter_nothing_is_called_missed() {
        let mut stats = Stats::new(PERIOD);
        stats.flipped(Flip {
            sequence: None,
            ..flip(0, 100)
        });
        assert_eq!(stats.missed_vblanks, 0);
    }

    #[test]
    fn late_is_more_than_one_period_after_the_clock() {
        let mut stats = Stats::new(PERIOD);
        stats.flipped(Flip {
            late_ns: Some(PERIOD),
            ..flip(99 * PERIOD, 100)
        });
        stats.flipped(Flip {
            late_ns: Some(PERIOD + 1),
            ..flip(100 * PERIOD, 101)
        });
        assert_eq!((stats.late, stats.shown), (1, 2));
    }

    #[test]
    fn latencies_fall_into_their_classes_and_rate_is_flips_over_time() {
        let mut stats = Stats::new(PERIOD);
        for (index, latency) in [499_999u64, 500_000, 15_999_999, 100_000_000]
            .into_iter()
            .enumerate()
        {
            let shown_ns = 1_000_000_000 + index as u64 * 100_000_000;
            stats.flipped(Flip {
                submitted_ns: shown_ns - latency,
                shown_ns,
                sequence: None,
                ..flip(0, 0)
            });
        }
        assert_eq!(stats.latency, [1, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(stats.latency_ns().1, 100_000_000);
        assert!((stats.rate() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn the_sequence_number_may_wrap() {
        let mut stats = Stats::new(PERIOD);
        stats.flipped(Flip {
            sequence: Some(u32::MAX),
            ..flip(99 * PERIOD, 100)
        });
        stats.flipped(Flip {
            sequence: Some(0),
            shown_ns: 101 * PERIOD,
            ..flip(100 * PERIOD, 0)
        });
        assert_eq!(stats.missed_vblanks, 0);
    }
}
