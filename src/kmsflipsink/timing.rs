// SPDX-License-Identifier: MPL-2.0
//! Timings of modes that the display does not list: written by the user as a modeline, or computed by VESA's standard
//! Coordinated Video Timings. Pure.

use drm::control::ModeFlags;

/// The timing of a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeTiming {
    pub clock_khz: u32,
    /// Along a line, in pixels: the visible ones, start and end of the sync pulse, and all.
    pub horizontal: [u16; 4],
    /// The same in lines. Those of an interlaced mode are the lines of both fields.
    pub vertical: [u16; 4],
    pub flags: ModeFlags,
}

/// Which blanking CVT is to leave between lines and between frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blanking {
    /// For cathode ray tubes, which need time to go back.
    Full,
    /// For flat panels, with a lower pixel clock: reduced blanking, version 1.
    Reduced,
}

/// Parses a modeline as xrandr, X and Weston have it: the pixel clock in MHz, four numbers for the line, four for the
/// frame, and flags. The word "Modeline" and a quoted name may come first. `None` if it is none, or if its numbers do
/// not rise.
pub fn parse_modeline(text: &str) -> Option<ModeTiming> {
    let mut words = text.split_whitespace().peekable();
    words.next_if(|word| word.eq_ignore_ascii_case("modeline"));
    words.next_if(|word| word.starts_with('"'));
    let clock_mhz: f64 = words.next()?.parse().ok()?;
    let clock_khz = (clock_mhz * 1000.0).round();
    if !(1.0..=f64::from(i32::MAX)).contains(&clock_khz) {
        return None;
    }
    let mut four = || -> Option<[u16; 4]> {
        let mut numbers = [0; 4];
        for number in &mut numbers {
            *number = words.next()?.parse().ok()?;
        }
        rise(&numbers).then_some(numbers)
    };
    let (horizontal, vertical) = (four()?, four()?);
    let mut flags = ModeFlags::empty();
    for word in words {
        flags |= match word.to_ascii_lowercase().as_str() {
            "+hsync" => ModeFlags::PHSYNC,
            "-hsync" => ModeFlags::NHSYNC,
            "+vsync" => ModeFlags::PVSYNC,
            "-vsync" => ModeFlags::NVSYNC,
            "interlace" => ModeFlags::INTERLACE,
            "doublescan" => ModeFlags::DBLSCAN,
            _ => return None,
        };
    }
    Some(ModeTiming {
        clock_khz: clock_khz as u32,
        horizontal,
        vertical,
        flags,
    })
}

/// Whether a sync pulse follows visible pixels or lines, and ends within all.
fn rise([visible, start, end, all]: &[u16; 4]) -> bool {
    *visible > 0 && visible <= start && start < end && end <= all
}

/// Computes a timing by CVT 1.2, without margins and not interlaced. CVT counts columns in eights, so that 1366 become
/// 1368. `None` for numbers that no mode can have, and for lines so short that no pixels are left for the sync pulse.
pub fn cvt(width: u32, height: u32, refresh_mhz: u32, blanking: Blanking) -> Option<ModeTiming> {
    const CELL_PX: u32 = 8;
    const CLOCK_STEP_KHZ: u32 = 250;
    /// Lines before the sync pulse.
    const FRONT_PORCH: u32 = 3;
    /// The fewest lines after the sync pulse.
    const MIN_BACK_PORCH: u32 = 6;
    let is_plausible = (1..=16_384).contains(&width)
        && (1..=16_384).contains(&height)
        && (1_000..=1_000_000).contains(&refresh_mhz);
    if !is_plausible {
        return None;
    }
    let width = width.next_multiple_of(CELL_PX);
    let sync_lines = sync_lines(width, height);
    let frame_us = 1e9 / f64::from(refresh_mhz);
    let (line_us, horizontal, blank_lines, flags);
    match blanking {
        Blanking::Full => {
            /// The shortest sync pulse with the lines after it.
            const MIN_SYNC_AND_BACK_PORCH_US: f64 = 550.0;
            /// The constants C' and M' of the formula for the share of the blanking in a line.
            const C: f64 = 30.0;
            const M: f64 = 300.0;
            const MIN_BLANK_PERCENT: f64 = 20.0;
            const SYNC_PERCENT: u32 = 8;
            line_us = (frame_us - MIN_SYNC_AND_BACK_PORCH_US) / f64::from(height + FRONT_PORCH);
            let sync_and_back_porch = (MIN_SYNC_AND_BACK_PORCH_US / line_us) as u32 + 1;
            blank_lines = sync_and_back_porch.max(sync_lines + MIN_BACK_PORCH) + FRONT_PORCH;
            let percent = (C - M * line_us / 1000.0).max(MIN_BLANK_PERCENT);
            let blank = (f64::from(width) * percent / (100.0 - percent)) as u32;
            let blank = blank - blank % (2 * CELL_PX);
            let all = width + blank;
            let sync_end = width + blank / 2;
            let sync_start = sync_end - all * SYNC_PERCENT / 100;
            // Up to the next cell, and by a whole cell if it is at the beginning of one.
            let sync_start = sync_start + CELL_PX - sync_start % CELL_PX;
            horizontal = [width, sync_start, sync_end, all];
            flags = ModeFlags::NHSYNC | ModeFlags::PVSYNC;
        }
        Blanking::Reduced => {
            const MIN_BLANK_US: f64 = 460.0;
            const BLANK_PX: u32 = 160;
            const SYNC_PX: u32 = 32;
            line_us = (frame_us - MIN_BLANK_US) / f64::from(height);
            let lines = (MIN_BLANK_US / line_us) as u32 + 1;
            blank_lines = lines.max(FRONT_PORCH + sync_lines + MIN_BACK_PORCH);
            let sync_end = width + BLANK_PX / 2;
            horizontal = [width, sync_end - SYNC_PX, sync_end, width + BLANK_PX];
            flags = ModeFlags::PHSYNC | ModeFlags::NVSYNC;
        }
    }
    let clock_khz = (f64::from(horizontal[3]) * 1000.0 / line_us) as u32;
    let sync_start = height + FRONT_PORCH;
    let vertical = [
        height,
        sync_start,
        sync_start + sync_lines,
        height + blank_lines,
    ];
    let whole = |numbers: [u32; 4]| numbers.map(|number| u16::try_from(number).unwrap_or(0));
    let (horizontal, vertical) = (whole(horizontal), whole(vertical));
    // A few pixels a few times a second take no step of the clock.
    let clock_khz = clock_khz - clock_khz % CLOCK_STEP_KHZ;
    (clock_khz > 0 && rise(&horizontal) && rise(&vertical)).then_some(ModeTiming {
        clock_khz,
        horizontal,
        vertical,
        flags,
    })
}

/// The length of the vertical sync pulse, by which a display recognises the proportions of a mode of CVT.
fn sync_lines(width: u32, height: u32) -> u32 {
    let is = |n: u32, d: u32| height.is_multiple_of(d) && height / d * n == width;
    if is(4, 3) {
        4
    } else if is(16, 9) {
        5
    } else if is(16, 10) {
        6
    } else if is(5, 4) || is(15, 9) {
        7
    } else {
        10
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cvt_gives_the_modelines_that_the_program_cvt_prints() {
        use Blanking::{Full, Reduced};
        for (width, height, refresh_mhz, blanking, modeline) in [
            // cvt of libxcvt 0.1.2
            (
                640,
                480,
                60_000,
                Full,
                "23.75  640 664 720 800  480 483 487 500 -hsync +vsync",
            ),
            (
                720,
                576,
                50_000,
                Full,
                "26.50  720 744 808 896  576 579 586 596 -hsync +vsync",
            ),
            (
                800,
                480,
                60_000,
                Full,
                "29.50  800 824 896 992  480 483 493 500 -hsync +vsync",
            ),
            (
                1024,
                768,
                60_000,
                Full,
                "63.50  1024 1072 1176 1328  768 771 775 798 -hsync +vsync",
            ),
            (
                1280,
                720,
                59_940,
                Full,
                "74.50  1280 1344 1472 1664  720 723 728 748 -hsync +vsync",
            ),
            (
                1280,
                1024,
                60_000,
                Full,
                "109.00  1280 1368 1496 1712  1024 1027 1034 1063 -hsync +vsync",
            ),
            (
                1366,
                768,
                60_000,
                Full,
                "85.25  1368 1440 1576 1784  768 771 781 798 -hsync +vsync",
            ),
            (
                1920,
                1080,
                50_000,
                Full,
                "141.50  1920 2032 2232 2544  1080 1083 1088 1114 -hsync +vsync",
            ),
            (
                1920,
                1080,
                60_000,
                Full,
                "173.00  1920 2048 2248 2576  1080 1083 1088 1120 -hsync +vsync",
            ),
            (
                1920,
                1080,
                75_000,
                Full,
                "220.75  1920 2064 2264 2608  1080 1083 1088 1130 -hsync +vsync",
            ),
            (
                3840,
                2160,
                60_000,
                Full,
                "712.75  3840 4160 4576 5312  2160 2163 2168 2237 -hsync +vsync",
            ),
            // cvt -r
            (
                1024,
                600,
                60_000,
                Reduced,
                "43.75  1024 1072 1104 1184  600 603 613 619 +hsync -vsync",
            ),
            (
                1280,
                800,
                60_000,
                Reduced,
                "71.00  1280 1328 1360 1440  800 803 809 823 +hsync -vsync",
            ),
            (
                1366,
                768,
                60_000,
                Reduced,
                "72.25  1368 1416 1448 1528  768 771 781 790 +hsync -vsync",
            ),
            (
                1920,
                1080,
                60_000,
                Reduced,
                "138.50  1920 1968 2000 2080  1080 1083 1088 1111 +hsync -vsync",
            ),
            (
                2560,
                1440,
                60_000,
                Reduced,
                "241.50  2560 2608 2640 2720  1440 1443 1448 1481 +hsync -vsync",
            ),
            (
                3840,
                2160,
                60_000,
                Reduced,
                "533.00  3840 3888 3920 4000  2160 2163 2168 2222 +hsync -vsync",
            ),
        ] {
            let computed = cvt(width, height, refresh_mhz, blanking);
            assert_eq!(computed, parse_modeline(modeline), "{modeline}");
            assert!(computed.is_some());
        }
    }

    #[test]
    fn a_modeline_is_read_with_and_without_its_name() {
        let plain = "148.5 1920 2008 2052 2200 1080 1084 1089 1125 +hsync +vsync";
        let timing = ModeTiming {
            clock_khz: 148_500,
            horizontal: [1920, 2008, 2052, 2200],
            vertical: [1080, 1084, 1089, 1125],
            flags: ModeFlags::PHSYNC | ModeFlags::PVSYNC,
        };
        assert_eq!(parse_modeline(plain), Some(timing));
        let named = format!("Modeline \"1920x1080_60.00\"  {plain}");
        assert_eq!(parse_modeline(&named), Some(timing));
        let interlaced = parse_modeline("74.25 1920 2448 2492 2640 1080 1084 1094 1125 Interlace");
        assert_eq!(interlaced.unwrap().flags, ModeFlags::INTERLACE);
    }

    #[test]
    fn a_mode_is_not_computed_without_a_clock() {
        for blanking in [Blanking::Full, Blanking::Reduced] {
            assert_eq!(cvt(128, 96, 1_000, blanking), None);
            let slowest = cvt(640, 480, 2_000, blanking);
            assert!(slowest.is_some_and(|timing| timing.clock_khz >= 250));
        }
    }

    #[test]
    fn what_is_no_modeline_is_refused() {
        for text in [
            "",
            "148.5",
            "148.5 1920 2008 2052 2200 1080 1084 1089",
            "148.5 1920 2008 2052 2200 1080 1084 1089 1125 +sync",
            "148.5 1920 2052 2008 2200 1080 1084 1089 1125",
            "148.5 1920 2008 2052 2200 1080 1084 1189 1125",
            "148.5 0 2008 2052 2200 1080 1084 1089 1125",
            "148.5 1920 2008 2052 70000 1080 1084 1089 1125",
            "0 1920 2008 2052 2200 1080 1084 1089 1125",
            "nan 1920 2008 2052 2200 1080 1084 1089 1125",
            "-1 1920 2008 2052 2200 1080 1084 1089 1125",
        ] {
            assert_eq!(parse_modeline(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_cvt_computes_is_a_mode_at_about_that_rate(
            width in 64u32..8192, height in 240u32..4320, refresh_mhz in 20_000u32..240_000, is_reduced: bool
        ) {
            let blanking = if is_reduced { Blanking::Reduced } else { Blanking::Full };
            let Some(timing) = cvt(width, height, refresh_mhz, blanking) else {
                prop_assert!(width < 104, "CVT has modes of this width");
                return Ok(());
            };
            prop_assert!(rise(&timing.horizontal) && rise(&timing.vertical));
            prop_assert!(u32::from(timing.horizontal[0]).abs_diff(width) < 8);
            prop_assert_eq!(u32::from(timing.vertical[0]), height);
            let ticks = f64::from(timing.horizontal[3]) * f64::from(timing.vertical[3]);
            let rate_mhz = f64::from(timing.clock_khz) * 1e6 / ticks;
            // The clock is rounded down to a quarter of a MHz. Lines are rounded up, to 16 for sync pulse and back porch
            // of a mode of other proportions than CVT knows.
            let step_mhz = 250.0 * 1e6 / ticks;
            let tolerance = step_mhz + 16.0 * f64::from(refresh_mhz) / f64::from(height);
            prop_assert!((rate_mhz - f64::from(refresh_mhz)).abs() <= tolerance, "{rate_mhz}");
        }
    }
}
