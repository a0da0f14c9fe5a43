// SPDX-License-Identifier: MPL-2.0
//! Chooses the mode of a connector, by what the user asked for and what the frames need. Pure; the caller
//! looks the kernel's own `Mode` up by the index chosen here.

use std::fmt;
use std::str::FromStr;

use super::timing::{self, Blanking, ModeTiming};

/// One mode of a connector, as far as the choice needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeLine {
    pub width: u32,
    pub height: u32,
    /// Vertical blanks in a second, in thousandths: fields in a second if the mode is interlaced, as
    /// drm_mode_vrefresh() counts. 60 Hz if the mode's numbers give a rate that no display has.
    pub refresh_mhz: u32,
    /// Whether the display prefers this mode.
    pub is_preferred: bool,
    pub is_interlaced: bool,
}

impl ModeLine {
    pub fn period_ns(&self) -> u64 {
        crate::refresh::period(self.refresh_mhz).as_nanos() as u64
    }

    fn holds(&self, frame: &FrameNeed) -> bool {
        self.width >= frame.width && self.height >= frame.height
    }

    /// How far the rate is from `want_mhz`, in thousandths; `None` if it is another rate. For an interlaced
    /// mode this may be the rate of fields, which comes first, or the rate of frames, which is half of it.
    fn distance(&self, want_mhz: u32) -> Option<(RateOf, u32)> {
        let fields = (RateOf::Refresh, self.refresh_mhz.abs_diff(want_mhz));
        let frames = (RateOf::Frames, (self.refresh_mhz / 2).abs_diff(want_mhz));
        [fields, frames]
            .into_iter()
            .filter(|&(of, _)| of == RateOf::Refresh || self.is_interlaced)
            .find(|&(_, distance)| distance <= RATE_TOLERANCE_MHZ)
    }

    fn area(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

impl fmt::Display for ModeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}x{}{}@{}",
            self.width,
            self.height,
            if self.is_interlaced { "i" } else { "" },
            rate(self.refresh_mhz)
        )
    }
}

/// A rate as text.
fn rate(mhz: u32) -> String {
    format!("{}.{:02}", mhz / 1000, mhz % 1000 / 10)
}

/// What a user counts who writes a mode's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RateOf {
    /// Vertical blanks: the fields of an interlaced mode.
    Refresh,
    /// The frames of an interlaced mode, each of two fields.
    Frames,
}

/// What the frames ask of a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameNeed {
    pub width: u32,
    pub height: u32,
    /// Frames in a second, in thousandths; `None` if the rate varies.
    pub rate_mhz: Option<u32>,
}

/// The `mode` property, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModeRequest {
    /// The current mode if the frame fits into it, else the mode that fits best.
    #[default]
    Auto,
    /// The mode that the display prefers.
    Preferred,
    /// The mode with the most pixels; among these, progressive modes first, then the highest rate.
    Highest,
    /// A mode of this size, and of this rate if the user wrote one.
    Size {
        width: u32,
        height: u32,
        /// Vertical blanks in a second, in thousandths; of an interlaced mode perhaps frames.
        refresh_mhz: Option<u32>,
        /// Whether only interlaced modes are meant.
        is_interlaced: bool,
    },
    /// An index into the connector's list.
    Index(usize),
    /// A mode that the display need not list.
    Custom(ModeTiming),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "\"{0}\" is no mode: write auto, preferred, highest, WIDTHxHEIGHT, WIDTHxHEIGHT@RATE or an index; \
     for an interlaced mode WIDTHxHEIGHTi@RATE, with its fields or its frames in a second; for a mode that the \
     display does not list \"WIDTHxHEIGHT@RATE cvt\" (cvt-rb: with reduced blanking) or a modeline such as \
     \"148.5 1920 2008 2052 2200 1080 1084 1089 1125 +hsync +vsync\""
)]
pub struct NotAMode(String);

impl FromStr for ModeRequest {
    type Err = NotAMode;

    fn from_str(text: &str) -> Result<Self, NotAMode> {
        let bad = || NotAMode(text.to_owned());
        let trimmed = text.trim();
        match trimmed.to_ascii_lowercase().as_str() {
            "" | "auto" => return Ok(Self::Auto),
            "preferred" => return Ok(Self::Preferred),
            "highest" => return Ok(Self::Highest),
            _ => {}
        }
        if let Ok(index) = trimmed.parse() {
            return Ok(Self::Index(index));
        }
        if let Some(timing) = timing::parse_modeline(trimmed) {
            return Ok(Self::Custom(timing));
        }
        if let Some((size, blanking)) = split_cvt(trimmed) {
            let timing = parse_cvt(size, blanking).ok_or_else(bad)?;
            return Ok(Self::Custom(timing));
        }
        let (size, rate) = match trimmed.split_once('@') {
            Some((size, rate)) => (size, Some(parse_rate(rate).ok_or_else(bad)?)),
            None => (trimmed, None),
        };
        let (width, height) = size.split_once(['x', 'X']).ok_or_else(bad)?;
        let (height, is_interlaced) = match height.strip_suffix(['i', 'I']) {
            Some(height) => (height, true),
            None => (height, false),
        };
        let parse = |digits: &str| digits.parse::<u32>().ok().filter(|&n| n > 0);
        Ok(Self::Size {
            width: parse(width).ok_or_else(bad)?,
            height: parse(height).ok_or_else(bad)?,
            refresh_mhz: rate,
            is_interlaced,
        })
    }
}

/// The text before the word "cvt" or "cvt-rb" at its end, and what that word means.
fn split_cvt(text: &str) -> Option<(&str, Blanking)> {
    let (size, word) = text.rsplit_once(char::is_whitespace)?;
    match word.to_ascii_lowercase().as_str() {
        "cvt" => Some((size, Blanking::Full)),
        "cvt-rb" => Some((size, Blanking::Reduced)),
        _ => None,
    }
}

/// The timing by CVT for "1920x1080@50", or "1920x1080" at 60 Hz. `None` for an interlaced mode.
fn parse_cvt(size: &str, blanking: Blanking) -> Option<ModeTiming> {
    match size.parse().ok()? {
        ModeRequest::Size {
            width,
            height,
            refresh_mhz,
            is_interlaced: false,
        } => timing::cvt(width, height, refresh_mhz.unwrap_or(60_000), blanking),
        _ => None,
    }
}

/// Parses "60", "59.94" or "60000/1001", each with or without "Hz".
fn parse_rate(text: &str) -> Option<u32> {
    let text = text.trim().trim_end_matches("Hz").trim_end_matches("hz");
    let rate = match text.split_once('/') {
        Some((n, d)) => n.parse::<f64>().ok()? / d.parse::<f64>().ok()?,
        None => text.parse::<f64>().ok()?,
    };
    (rate.is_finite() && rate > 0.0 && rate < 100_000.0).then(|| (rate * 1000.0).round() as u32)
}

/// Why no mode of the connector can be chosen.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoMode {
    #[error("the connector offers no mode at all")]
    NoneOffered,
    #[error("the connector does not offer it; it offers: {0}")]
    NotOffered(String),
}

/// How far a mode's refresh rate may be from the rate that the user wrote.
const RATE_TOLERANCE_MHZ: u32 = 500;

/// A refresh rate this close to a multiple of the frame rate is not worth a modeset: at 60 Hz, at most one
/// frame in eight seconds is shown for a period more or less than the others.
const DIVIDES_PPM: u64 = 2_000;

/// How far the refresh rate is from the nearest multiple of the frame rate. At 0, each frame is shown for
/// the same time.
fn judder_ppm(refresh_mhz: u32, rate_mhz: Option<u32>) -> u64 {
    let Some(rate) = rate_mhz.filter(|&rate| rate > 0) else {
        return 0;
    };
    let (refresh, rate) = (u64::from(refresh_mhz), u64::from(rate));
    let times = ((refresh + rate / 2) / rate).max(1);
    refresh.abs_diff(times * rate) * 1_000_000 / (times * rate)
}

/// The mode to use, as an index into `modes`. `current` is the index of the connector's mode now.
pub fn choose(
    modes: &[ModeLine],
    request: ModeRequest,
    current: Option<usize>,
    frame: Option<FrameNeed>,
) -> Result<usize, NoMode> {
    if modes.is_empty() {
        return Err(NoMode::NoneOffered);
    }
    let chosen = match request {
        ModeRequest::Auto => Some(automatic(
            modes,
            current.filter(|&i| i < modes.len()),
            frame,
        )),
        ModeRequest::Preferred => Some(preferred(modes)),
        ModeRequest::Highest => best_by(modes, |mode| {
            (mode.area(), !mode.is_interlaced, mode.refresh_mhz)
        }),
        ModeRequest::Index(index) => (index < modes.len()).then_some(index),
        // Whoever asks for a mode that is not listed does not choose among those that are.
        ModeRequest::Custom(_) => None,
        ModeRequest::Size {
            width,
            height,
            refresh_mhz,
            is_interlaced,
        } => sized(
            modes,
            |mode| {
                mode.width == width
                    && mode.height == height
                    && (mode.is_interlaced || !is_interlaced)
            },
            refresh_mhz,
            frame.and_then(|frame| frame.rate_mhz),
            is_interlaced,
        ),
    };
    chosen.ok_or_else(|| NoMode::NotOffered(list(modes)))
}

/// The modes with their indices, as text for an error message.
pub fn list(modes: &[ModeLine]) -> String {
    let lines: Vec<_> = modes
        .iter()
        .enumerate()
        .map(|(index, mode)| {
            let frames = match mode.is_interlaced {
                true => format!(" ({} frames a second)", rate(mode.refresh_mhz / 2)),
                false => String::new(),
            };
            let preferred = match mode.is_preferred {
                true => " (preferred)",
                false => "",
            };
            format!("{index}: {mode}{frames}{preferred}")
        })
        .collect();
    lines.join(", ")
}

/// The first mode with the greatest key.
fn best_by<K: Ord>(modes: &[ModeLine], key: impl Fn(&ModeLine) -> K) -> Option<usize> {
    // max_by_key takes the last of equals, but the kernel lists better modes first.
    modes
        .iter()
        .enumerate()
        .rev()
        .max_by_key(|(_, mode)| key(mode))
        .map(|(index, _)| index)
}

fn preferred(modes: &[ModeLine]) -> usize {
    modes.iter().position(|mode| mode.is_preferred).unwrap_or(0)
}

fn sized(
    modes: &[ModeLine],
    is_size: impl Fn(&ModeLine) -> bool,
    refresh_mhz: Option<u32>,
    rate_mhz: Option<u32>,
    is_interlaced: bool,
) -> Option<usize> {
    modes
        .iter()
        .enumerate()
        .filter(|(_, mode)| is_size(mode))
        .filter(|(_, mode)| refresh_mhz.is_none_or(|want| mode.distance(want).is_some()))
        .min_by_key(|(_, mode)| {
            (
                mode.is_interlaced != is_interlaced,
                refresh_mhz.and_then(|want| mode.distance(want)),
                judder_ppm(mode.refresh_mhz, rate_mhz),
                !mode.is_preferred,
            )
        })
        .map(|(index, _)| index)
}

fn automatic(modes: &[ModeLine], current: Option<usize>, frame: Option<FrameNeed>) -> usize {
    let Some(frame) = frame else {
        return current.unwrap_or_else(|| preferred(modes));
    };
    let judder = |mode: &ModeLine| judder_ppm(mode.refresh_mhz, frame.rate_mhz);
    if let Some(index) = current.filter(|&index| modes[index].holds(&frame)) {
        // If the frame fits, the size stays, and the rate changes only if that is visibly better.
        let now = &modes[index];
        if judder(now) <= DIVIDES_PPM {
            return index;
        }
        let better = modes
            .iter()
            .enumerate()
            .filter(|(_, mode)| mode.width == now.width && mode.height == now.height)
            .filter(|(_, mode)| mode.is_interlaced == now.is_interlaced)
            .min_by_key(|(_, mode)| judder(mode));
        return match better {
            Some((other, mode)) if judder(mode) < judder(now) => other,
            _ => index,
        };
    }
    let fitting = modes
        .iter()
        .enumerate()
        .filter(|(_, mode)| mode.holds(&frame))
        .min_by_key(|(_, mode)| {
            (
                mode.area(),
                mode.is_interlaced,
                judder(mode),
                !mode.is_preferred,
            )
        });
    match fitting {
        Some((index, _)) => index,
        None => best_by(modes, |mode| {
            (mode.area(), !mode.is_interlaced, mode.is_preferred)
        })
        .unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(width: u32, height: u32, refresh_mhz: u32) -> ModeLine {
        ModeLine {
            width,
            height,
            refresh_mhz,
            is_preferred: false,
            is_interlaced: false,
        }
    }

    fn television() -> Vec<ModeLine> {
        vec![
            ModeLine {
                is_preferred: true,
                ..line(1920, 1080, 60_000)
            },
            line(1920, 1080, 50_000),
            line(1920, 1080, 23_976),
            ModeLine {
                is_interlaced: true,
                ..line(1920, 1080, 50_000)
            },
            line(3840, 2160, 30_000),
            line(1280, 720, 60_000),
            line(640, 480, 59_940),
        ]
    }

    fn frame(width: u32, height: u32, rate_mhz: u32) -> Option<FrameNeed> {
        Some(FrameNeed {
            width,
            height,
            rate_mhz: Some(rate_mhz),
        })
    }

    #[test]
    fn every_spelling_is_understood() {
        let size = |width, height, refresh_mhz, is_interlaced| {
            Ok(ModeRequest::Size {
                width,
                height,
                refresh_mhz,
                is_interlaced,
            })
        };
        assert_eq!("".parse(), Ok(ModeRequest::Auto));
        assert_eq!("auto".parse(), Ok(ModeRequest::Auto));
        assert_eq!("Preferred".parse(), Ok(ModeRequest::Preferred));
        assert_eq!("highest".parse(), Ok(ModeRequest::Highest));
        assert_eq!("3".parse(), Ok(ModeRequest::Index(3)));
        assert_eq!("640x480".parse(), size(640, 480, None, false));
        assert_eq!(
            "1920x1080@59.94".parse(),
            size(1920, 1080, Some(59_940), false)
        );
        assert_eq!(
            "1920x1080@60000/1001".parse(),
            size(1920, 1080, Some(59_940), false)
        );
        assert_eq!(
            " 1920x1080i@25Hz ".parse(),
            size(1920, 1080, Some(25_000), true)
        );
    }

    #[test]
    fn a_mode_that_the_display_does_not_list_is_computed_or_read() {
        let cvt = |width, height, refresh_mhz, blanking| {
            let timing = timing::cvt(width, height, refresh_mhz, blanking);
            Ok(ModeRequest::Custom(timing.unwrap()))
        };
        let modeline = "148.5 1920 2008 2052 2200 1080 1084 1089 1125 +hsync +vsync";
        for (text, request) in [
            ("1920x1080@50 cvt", cvt(1920, 1080, 50_000, Blanking::Full)),
            (
                "1280x720  CVT-RB",
                cvt(1280, 720, 60_000, Blanking::Reduced),
            ),
            (
                modeline,
                Ok(ModeRequest::Custom(
                    timing::parse_modeline(modeline).unwrap(),
                )),
            ),
        ] {
            assert_eq!(text.parse(), request, "{text}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused_and_quoted() {
        for text in [
            "x",
            "640x",
            "0x480",
            "640x480@",
            "640x480@0",
            "640x480@nan",
            "-1",
            "640*480",
            "1/0",
            "1920x1080i@50 cvt",
            "preferred cvt",
            "640x480@5000 cvt",
            "1920x1080 gtf",
            "148.5 1920 2008 2052 2200 1080 1084 1089",
        ] {
            let error = text.parse::<ModeRequest>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn current_mode_is_kept_when_the_frame_fits() {
        let modes = television();
        assert_eq!(
            choose(&modes, ModeRequest::Auto, Some(0), frame(640, 480, 30_000)),
            Ok(0)
        );
        assert_eq!(
            choose(&modes, ModeRequest::Auto, Some(5), frame(1280, 720, 60_000)),
            Ok(5)
        );
        assert_eq!(
            choose(
                &modes,
                ModeRequest::Auto,
                Some(0),
                frame(1920, 1080, 59_940)
            ),
            Ok(0)
        );
    }

    #[test]
    fn a_rate_that_divides_is_worth_a_modeset_of_the_same_size() {
        let modes = television();
        assert_eq!(
            choose(
                &modes,
                ModeRequest::Auto,
                Some(0),
                frame(1920, 1080, 25_000)
            ),
            Ok(1)
        );
        assert_eq!(
            choose(
                &modes,
                ModeRequest::Auto,
                Some(0),
                frame(1920, 1080, 23_976)
            ),
            Ok(2)
        );
    }

    #[test]
    fn the_mode_follows_the_rate_of_each_new_caps_and_stays_where_that_is_no_better() {
        let modes = television();
        let mut now = 0;
        for (rate_mhz, mode) in [
            (23_976, 2),
            (50_000, 1),
            (25_000, 1),
            (24_000, 2),
            (59_940, 0),
            (30_000, 0),
        ] {
            let need = frame(1920, 1080, rate_mhz);
            now = choose(&modes, ModeRequest::Auto, Some(now), need).unwrap();
            assert_eq!(now, mode, "{rate_mhz}");
        }
    }

    #[test]
    fn too_small_a_mode_is_left_for_the_closest_that_holds_the_frame() {
        let modes = television();
        assert_eq!(
            choose(&modes, ModeRequest::Auto, Some(6), frame(1280, 720, 30_000)),
            Ok(5)
        );
        assert_eq!(
            choose(&modes, ModeRequest::Auto, None, frame(800, 600, 30_000)),
            Ok(5)
        );
        assert_eq!(
            choose(&modes, ModeRequest::Auto, None, frame(1920, 1080, 50_000)),
            Ok(1)
        );
    }

    #[test]
    fn a_frame_larger_than_every_mode_gets_the_largest() {
        assert_eq!(
            choose(
                &television(),
                ModeRequest::Auto,
                Some(0),
                frame(8000, 4000, 30_000)
            ),
            Ok(4)
        );
    }

    #[test]
    fn words_sizes_and_indices_choose_what_they_say() {
        let modes = television();
        let pick = |text: &str| choose(&modes, text.parse().unwrap(), Some(6), None);
        assert_eq!(pick("preferred"), Ok(0));
        assert_eq!(pick("highest"), Ok(4));
        assert_eq!(pick("1920x1080"), Ok(0));
        assert_eq!(pick("1920x1080@50"), Ok(1));
        assert_eq!(pick("1920x1080@24"), Ok(2));
        assert_eq!(pick("1920x1080i"), Ok(3));
        assert_eq!(pick("1920x1080@25"), Ok(3));
        assert_eq!(pick("640x480@60"), Ok(6));
        assert_eq!(pick("6"), Ok(6));
    }

    #[test]
    fn the_rate_of_an_interlaced_mode_is_that_of_its_fields_or_else_of_its_frames() {
        let interlaced = |fields_mhz| ModeLine {
            is_interlaced: true,
            ..line(1920, 1080, fields_mhz)
        };
        let modes = [
            line(1920, 1080, 50_000),
            line(1920, 1080, 30_000),
            interlaced(100_000),
            interlaced(50_000),
            interlaced(60_000),
            interlaced(59_940),
        ];
        let pick = |text: &str| choose(&modes, text.parse().unwrap(), None, None);
        assert_eq!(pick("1920x1080i@50"), Ok(3));
        assert_eq!(pick("1920x1080i@25"), Ok(3));
        assert_eq!(pick("1920x1080i@100"), Ok(2));
        assert_eq!(pick("1920x1080i@60"), Ok(4));
        assert_eq!(pick("1920x1080i@30"), Ok(4));
        assert_eq!(pick("1920x1080i@59.94"), Ok(5));
        assert_eq!(pick("1920x1080i@29.97"), Ok(5));
        assert_eq!(pick("1920x1080i@30000/1001"), Ok(5));
        assert_eq!(pick("1920x1080@50"), Ok(0));
        assert_eq!(pick("1920x1080@30"), Ok(1));
        assert_eq!(pick("1920x1080@25"), Ok(3));
        assert!(pick("1920x1080i@24").is_err());
        assert_eq!(
            choose(&modes[..3], "1920x1080i@50".parse().unwrap(), None, None),
            Ok(2)
        );
    }

    #[test]
    fn a_mode_that_is_not_offered_lists_those_that_are() {
        let modes = television();
        for text in ["800x600", "1920x1080@75", "7"] {
            let error = choose(&modes, text.parse().unwrap(), None, None).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("1920x1080i@50.00 (25.00 frames a second)"),
                "{error}"
            );
            assert!(error.to_string().contains("(preferred)"), "{error}");
        }
        assert_eq!(
            choose(&[], ModeRequest::Auto, None, None),
            Err(NoMode::NoneOffered)
        );
    }

    fn modes() -> impl Strategy<Value = Vec<ModeLine>> {
        let mode = (
            1u32..5000,
            1u32..5000,
            1_000u32..240_000,
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(
                |(width, height, refresh_mhz, is_preferred, is_interlaced)| ModeLine {
                    width,
                    height,
                    refresh_mhz,
                    is_preferred,
                    is_interlaced,
                },
            );
        proptest::collection::vec(mode, 1..20)
    }

    proptest! {
        #[test]
        fn auto_holds_the_frame_whenever_some_mode_does(
            modes in modes(), current in 0usize..25, width in 1u32..5000, height in 1u32..5000, rate in 1_000u32..120_000
        ) {
            let need = frame(width, height, rate).unwrap();
            let index = choose(&modes, ModeRequest::Auto, Some(current), Some(need)).unwrap();
            prop_assert_eq!(modes[index].holds(&need), modes.iter().any(|mode| mode.holds(&need)));
            if let Some(now) = modes.get(current).filter(|now| now.holds(&need)) {
                prop_assert_eq!((modes[index].width, modes[index].height), (now.width, now.height));
            }
        }

        #[test]
        fn what_is_displayed_parses_back_to_the_same_mode(modes in modes(), index in 0usize..20) {
            let index = index % modes.len();
            let chosen = choose(&modes, modes[index].to_string().parse().unwrap(), None, None).unwrap();
            let (a, b) = (&modes[chosen], &modes[index]);
            prop_assert_eq!((a.width, a.height, a.is_interlaced), (b.width, b.height, b.is_interlaced));
            prop_assert!(a.refresh_mhz.abs_diff(b.refresh_mhz) <= 20);
        }
    }
}
