// SPDX-License-Identifier: MPL-2.0
//! Size, rate and format from the names that people give to raw files, such as
//! `clip_1920x1080_25fps_nv12.yuv` or `foreman_cif.yuv`. Pure parsing.

use gst_video::VideoFormat;
use std::path::Path;

/// What a name gives away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guess {
    /// Width and height.
    pub size: Option<(i32, i32)>,
    /// Frames a second.
    pub framerate: Option<(i32, i32)>,
    /// Of the picture.
    pub format: Option<VideoFormat>,
}

/// Sizes that have names.
const NAMED_SIZES: &[(&str, (i32, i32))] = &[
    ("sqcif", (128, 96)),
    ("qcif", (176, 144)),
    ("cif", (352, 288)),
    ("4cif", (704, 576)),
    ("16cif", (1408, 1152)),
    ("qvga", (320, 240)),
    ("vga", (640, 480)),
    ("svga", (800, 600)),
    ("xga", (1024, 768)),
    ("480p", (720, 480)),
    ("576p", (720, 576)),
    ("720p", (1280, 720)),
    ("1080p", (1920, 1080)),
    ("2160p", (3840, 2160)),
    ("4k", (3840, 2160)),
];

/// Names that other programs, FFmpeg above all, have for GStreamer's formats.
const OTHER_NAMES: &[(&str, VideoFormat)] = &[
    ("yuv420p", VideoFormat::I420),
    ("yuvj420p", VideoFormat::I420),
    ("yuv420", VideoFormat::I420),
    ("420p", VideoFormat::I420),
    ("yv12", VideoFormat::Yv12),
    ("yuv422p", VideoFormat::Y42b),
    ("yuv444p", VideoFormat::Y444),
    ("yuv411p", VideoFormat::Y41b),
    ("yuyv422", VideoFormat::Yuy2),
    ("yuyv", VideoFormat::Yuy2),
    ("uyvy422", VideoFormat::Uyvy),
    ("yuv420p10le", VideoFormat::I42010le),
    ("yuv422p10le", VideoFormat::I42210le),
    ("yuv444p10le", VideoFormat::Y44410le),
    ("yuv420p12le", VideoFormat::I42012le),
    ("p010le", VideoFormat::P01010le),
    ("p010", VideoFormat::P01010le),
    ("rgb24", VideoFormat::Rgb),
    ("bgr24", VideoFormat::Bgr),
    ("rgb0", VideoFormat::Rgbx),
    ("bgr0", VideoFormat::Bgrx),
    ("0rgb", VideoFormat::Xrgb),
    ("0bgr", VideoFormat::Xbgr),
    ("rgb565le", VideoFormat::Rgb16),
    ("rgb565", VideoFormat::Rgb16),
    ("gray", VideoFormat::Gray8),
    ("grey", VideoFormat::Gray8),
    ("gray16le", VideoFormat::Gray16Le),
    ("y800", VideoFormat::Gray8),
    ("gbrp", VideoFormat::Gbr),
];

impl Guess {
    /// Looks at the file's name, not at its directories.
    pub fn from_path(path: &Path) -> Self {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().to_lowercase())
            .unwrap_or_default();
        // A dot parts words, unless it is a decimal point.
        let bytes: Vec<char> = name.chars().collect();
        let is_point = |index: usize| {
            index > 0
                && bytes[index - 1].is_ascii_digit()
                && bytes.get(index + 1).is_some_and(char::is_ascii_digit)
        };
        let parted: String = bytes
            .iter()
            .enumerate()
            .map(|(index, letter)| match letter {
                '.' if is_point(index) => '.',
                letter if letter.is_alphanumeric() => *letter,
                _ => ' ',
            })
            .collect();
        let words: Vec<&str> = parted.split(' ').filter(|word| !word.is_empty()).collect();
        let mut guess = Self::default();
        for (index, word) in words.iter().enumerate() {
            guess.take_word(word);
            // "i420_10le" falls into two words.
            if let Some(next) = words.get(index + 1)
                && let Some(format) = format(&format!("{word}_{next}"))
            {
                guess.format = Some(format);
            }
        }
        if guess.format.is_none() && words.len() > 1 && words.last() == Some(&"yuv") {
            guess.format = Some(VideoFormat::I420);
        }
        guess
    }

    /// The first word that fits wins.
    fn take_word(&mut self, word: &str) {
        self.size = self.size.or_else(|| size(word));
        self.framerate = self.framerate.or_else(|| rate(word));
        self.format = self.format.or_else(|| format(word));
        // "1080p25"
        if let Some((lines, rate)) = word.split_once('p')
            && let Some(rate) = rate_number(rate)
            && let Some(size) = size(&format!("{lines}p"))
        {
            self.size = self.size.or(Some(size));
            self.framerate = self.framerate.or(Some(rate));
        }
    }
}

fn size(word: &str) -> Option<(i32, i32)> {
    if let Some((_, size)) = NAMED_SIZES.iter().find(|(name, _)| *name == word) {
        return Some(*size);
    }
    let (width, height) = word.split_once('x')?;
    let number = |digits: &str| {
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        all_digits.then(|| digits.parse().ok()).flatten()
    };
    match (number(width)?, number(height)?) {
        (width @ 1.., height @ 1..) => Some((width, height)),
        _ => None,
    }
}

fn rate(word: &str) -> Option<(i32, i32)> {
    rate_number(word.strip_suffix("fps").or(word.strip_suffix("hz"))?)
}

fn rate_number(text: &str) -> Option<(i32, i32)> {
    if text
        .bytes()
        .any(|byte| !byte.is_ascii_digit() && byte != b'.')
    {
        return None;
    }
    let rate: f64 = text.parse().ok()?;
    if !(0.1..=10_000.0).contains(&rate) {
        return None;
    }
    if rate.fract() == 0.0 {
        return Some((rate as i32, 1));
    }
    // 23.98, 29.97 and 59.94 are whole rates slowed by 1001/1000.
    let whole = rate.ceil();
    if (whole * 1000.0 / 1001.0 - rate).abs() < 0.01 {
        return Some((whole as i32 * 1000, 1001));
    }
    Some(((rate * 1000.0).round() as i32, 1000))
}

fn format(word: &str) -> Option<VideoFormat> {
    if let Some((_, format)) = OTHER_NAMES.iter().find(|(name, _)| *name == word) {
        return Some(*format);
    }
    VideoFormat::iter_raw().find(|format| format.to_str().to_lowercase() == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guess(name: &str) -> Guess {
        gst::init().unwrap();
        Guess::from_path(Path::new(name))
    }

    #[test]
    fn common_names_are_understood() {
        let all = |size, framerate, format| Guess {
            size: Some(size),
            framerate,
            format,
        };
        let hd = (1920, 1080);
        for (name, expected) in [
            (
                "/a/640x480/clip_1920x1080_25fps_nv12.yuv",
                all(hd, Some((25, 1)), Some(VideoFormat::Nv12)),
            ),
            (
                "foreman_cif.yuv",
                all((352, 288), None, Some(VideoFormat::I420)),
            ),
            (
                "Crowd-1920x1080-29.97fps.yuv422p",
                all(hd, Some((30000, 1001)), Some(VideoFormat::Y42b)),
            ),
            (
                "x_3840x2160_50fps_I420_10LE.raw",
                all((3840, 2160), Some((50, 1)), Some(VideoFormat::I42010le)),
            ),
            (
                "shot.1080p25.bgrx",
                all(hd, Some((25, 1)), Some(VideoFormat::Bgrx)),
            ),
            ("dump_64x48.bin", all((64, 48), None, None)),
            (
                "a_12.5fps_8x8_gray8",
                all((8, 8), Some((12500, 1000)), Some(VideoFormat::Gray8)),
            ),
        ] {
            assert_eq!(guess(name), expected, "{name}");
        }
    }

    #[test]
    fn names_that_say_nothing_are_left_alone() {
        for name in [
            "video.raw",
            "0x0.raw",
            "x.bin",
            "1x.raw",
            "yuv",
            "take2_final.dat",
            "",
        ] {
            assert_eq!(guess(name), Guess::default(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_parsed(name in "\\PC{0,60}") {
            guess(&name);
        }

        #[test]
        fn sizes_come_back(width in 1i32..100_000, height in 1i32..100_000, fps in 1i32..1000) {
            let guess = guess(&format!("clip_{width}x{height}_{fps}fps.rgba"));
            prop_assert_eq!(guess.size, Some((width, height)));
            prop_assert_eq!(guess.framerate, Some((fps, 1)));
            prop_assert_eq!(guess.format, Some(VideoFormat::Rgba));
        }
    }
}
