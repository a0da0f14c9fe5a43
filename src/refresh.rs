// SPDX-License-Identifier: MPL-2.0
//! The refresh rate of a display, calculated from its mode and checked for plausibility. Not every
//! driver fills in the mode: framebuffers of DRM drivers have no pixel clock, and displays behind
//! SPI have one of 1 kHz (`DRM_SIMPLE_MODE`), which makes one frame in 20 to 143 seconds. Pure.

use std::time::Duration;

/// The rate assumed for a display whose mode does not say, in millihertz.
const UNKNOWN_MHZ: u32 = 60_000;
/// No display has a refresh rate outside of this range, in millihertz.
const PLAUSIBLE_MHZ: std::ops::RangeInclusive<u32> = 10_000..=1_000_000;

/// The refresh rate in millihertz, if a clock of `clock_mhz` millihertz needs `ticks_per_frame`
/// ticks for a frame. It is 60 Hz if these numbers give no plausible rate.
pub fn rate_mhz(clock_mhz: u128, ticks_per_frame: u128) -> u32 {
    clock_mhz
        .saturating_add(ticks_per_frame / 2)
        .checked_div(ticks_per_frame)
        .and_then(|rate| u32::try_from(rate).ok())
        .filter(|rate| PLAUSIBLE_MHZ.contains(rate))
        .unwrap_or(UNKNOWN_MHZ)
}

/// How long one frame is on screen at this rate.
pub fn period(rate_mhz: u32) -> Duration {
    let rate_mhz = u64::from(rate_mhz.max(1));
    Duration::from_nanos((1_000_000_000_000 + rate_mhz / 2) / rate_mhz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_clock_ticks_over_those_of_a_frame() {
        // VGA, 25.175 MHz over 800 by 525: 59.94 Hz.
        assert_eq!(rate_mhz(25_175_000_000, 800 * 525), 59_940);
        // 1080p at 24 Hz: 74.25 MHz over 2750 by 1125.
        assert_eq!(rate_mhz(74_250_000_000, 2750 * 1125), 24_000);
    }

    #[test]
    fn what_no_display_can_do_is_taken_for_unknown() {
        // ili9341: DRM_SIMPLE_MODE(240, 320), 1 kHz over 240 by 320 pixels.
        assert_eq!(rate_mhz(1_000_000, 240 * 320), 60_000);
        assert_eq!(rate_mhz(0, 800 * 525), 60_000);
        assert_eq!(rate_mhz(25_175_000_000, 0), 60_000);
        assert_eq!(rate_mhz(u128::MAX, 1), 60_000);
        assert_eq!(rate_mhz(9_999, 1), 60_000);
        assert_eq!(rate_mhz(1_000_001, 1), 60_000);
    }

    #[test]
    fn the_slowest_and_the_fastest_are_believed() {
        assert_eq!(rate_mhz(10_000, 1), 10_000);
        assert_eq!(rate_mhz(1_000_000, 1), 1_000_000);
    }

    #[test]
    fn a_period_is_rounded_to_the_nanosecond() {
        assert_eq!(period(60_000), Duration::from_nanos(16_666_667));
        assert_eq!(period(50_000), Duration::from_millis(20));
    }
}
