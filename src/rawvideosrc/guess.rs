// SPDX-License-Identifier: MPL-2.0
//! Guesses size, frame rate and format from the names that people give to raw files, such as
//! `clip_1920x1080_25fps_nv12.yuv` or `foreman_cif.yuv`.

mod format;

use super::format_names;
use format::Word;
use gst_video::VideoFormat;
use std::path::Path;

/// What a file name suggests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guess {
    pub size: Option<(i32, i32)>,
    pub framerate: Option<(i32, i32)>,
    pub format: Option<VideoFormat>,
    /// Each frame holds two fields, which may have been sampled at different times.
    pub is_interlaced: bool,
    /// The frames are those of a Bayer sensor, which are no video/x-raw.
    pub is_bayer: bool,
}

const NAMED_SIZES: &[(&str, (i32, i32))] = &[
    ("sqcif", (128, 96)),
    ("qcif", (176, 144)),
    ("cif", (352, 288)),
    ("sif", (352, 240)),
    ("4cif", (704, 576)),
    ("16cif", (1408, 1152)),
    ("qqvga", (160, 120)),
    ("qvga", (320, 240)),
    ("hvga", (480, 320)),
    ("vga", (640, 480)),
    ("wvga", (800, 480)),
    ("svga", (800, 600)),
    ("xga", (1024, 768)),
    ("sxga", (1280, 1024)),
    ("uxga", (1600, 1200)),
    ("fhd", (1920, 1080)),
    ("uhd", (3840, 2160)),
    ("4k", (3840, 2160)),
    ("8k", (7680, 4320)),
];

/// Sizes that are named by their number of lines: `1080p`, `576i`.
const LINES: &[(i32, i32)] = &[
    (640, 360),
    (720, 480),
    (720, 576),
    (1280, 720),
    (1920, 1080),
    (2560, 1440),
    (3840, 2160),
    (7680, 4320),
];

/// Two numbers without an x between them are taken for a size only if it is one of these.
const USUAL_SIZES: &[(i32, i32)] = &[
    (128, 96),
    (160, 120),
    (176, 144),
    (320, 180),
    (320, 240),
    (352, 240),
    (352, 288),
    (416, 240),
    (480, 270),
    (480, 272),
    (480, 320),
    (640, 360),
    (640, 480),
    (704, 480),
    (704, 576),
    (720, 480),
    (720, 576),
    (768, 576),
    (800, 480),
    (800, 600),
    (832, 480),
    (848, 480),
    (854, 480),
    (960, 540),
    (1024, 576),
    (1024, 600),
    (1024, 768),
    (1280, 720),
    (1280, 800),
    (1280, 960),
    (1280, 1024),
    (1366, 768),
    (1440, 900),
    (1440, 1080),
    (1600, 900),
    (1600, 1200),
    (1680, 1050),
    (1920, 1080),
    (1920, 1088),
    (1920, 1200),
    (2048, 1080),
    (2048, 1536),
    (2560, 1440),
    (2560, 1600),
    (3840, 2160),
    (4096, 2160),
    (7680, 4320),
];

/// A number without "fps" after a size is taken for a rate only if it is one of these.
const USUAL_RATES: &[&str] = &[
    "15", "20", "24", "25", "30", "48", "50", "60", "120", "23.976", "23.98", "29.97", "59.94",
    "119.88", "23976", "2398", "2997", "5994",
];

/// Words that say what a number before them counts. Such a number is no rate.
const OTHER_UNITS: &[&str] = &[
    "bit", "bits", "bpp", "frame", "frames", "kbps", "mbps", "s", "sec",
];

impl Guess {
    /// Guesses from the file's name, not from its directories.
    pub fn from_path(path: &Path) -> Self {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().to_lowercase())
            .unwrap_or_default();
        let words = words(&name);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (format, is_bayer) = guess_format(&words);
        let mut guess = Self {
            format,
            is_bayer,
            ..Self::default()
        };
        guess.take_sizes(&words);
        guess
    }

    /// The guess in parts, any of which may be wrong while the others are right.
    pub fn parts(self) -> [Self; 4] {
        let none = Self::default();
        [
            Self {
                size: self.size,
                ..none
            },
            Self {
                format: self.format,
                ..none
            },
            Self {
                framerate: self.framerate,
                ..none
            },
            Self {
                is_interlaced: self.is_interlaced,
                ..none
            },
        ]
    }

    /// Takes size, rate and interlacing from the words. Numbers win over names of sizes. If sizes
    /// of the same kind differ, none is taken.
    fn take_sizes(&mut self, words: &[&str]) {
        let pictures: Vec<(usize, Picture)> = (0..words.len())
            .filter_map(|at| Some((at, Picture::parse(words, at)?)))
            .collect();
        let certainty = pictures.iter().map(|(_, picture)| picture.certainty).max();
        let mut believed = pictures
            .iter()
            .filter(|(_, picture)| Some(picture.certainty) == certainty);
        if let Some((_, first)) = believed.next()
            && believed.all(|(_, other)| other.size == first.size)
        {
            self.size = Some(first.size);
        }
        let said = (0..words.len()).find_map(|at| rate(words, at));
        for (at, picture) in &pictures {
            if Some(picture.size) != self.size {
                continue;
            }
            self.is_interlaced |= picture.is_interlaced;
            let behind = at + picture.words;
            let is_other = |word: &&str| OTHER_UNITS.contains(word);
            let counts_others = words.get(behind + 1).is_some_and(is_other);
            let behind = words.get(behind).filter(|_| !counts_others);
            let behind = behind.filter(|word| USUAL_RATES.contains(word));
            let behind = behind.and_then(|word| rate_number(word));
            self.framerate = self.framerate.or(picture.framerate).or(behind);
        }
        let scanned = said.map(|(rate, is_interlaced)| {
            self.is_interlaced |= is_interlaced;
            rate
        });
        self.framerate = scanned.or(self.framerate);
    }
}

/// Splits a name into words of letters and digits, with points within numbers.
fn words(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.replace('×', "x").chars().collect();
    let is_point = |index: usize| {
        index > 0
            && letters[index - 1].is_ascii_digit()
            && letters.get(index + 1).is_some_and(char::is_ascii_digit)
    };
    let parted: String = letters
        .iter()
        .enumerate()
        .map(|(index, letter)| match letter {
            '.' if is_point(index) => '.',
            letter if letter.is_alphanumeric() => *letter,
            _ => ' ',
        })
        .collect();
    let mut words = Vec::new();
    for word in parted.split(' ').filter(|word| !word.is_empty()) {
        // A point between a size and the next word belongs to no number.
        let means = |word: &str| Picture::parse(&[word], 0).is_some() || rate(&[word], 0).is_some();
        if rate_number(word).is_some() || means(word) {
            words.push(word.to_owned());
        } else {
            words.extend(word.split('.').map(str::to_owned));
        }
    }
    words
}

/// The format that the words name, if they name one, and whether they speak of a Bayer sensor and of
/// no other format.
fn guess_format(words: &[&str]) -> (Option<VideoFormat>, bool) {
    let is_yuv_file = words.len() > 1 && words.last() == Some(&"yuv");
    let depth_of = |word: Option<&&str>| {
        word.is_some_and(|word| matches!(Word::parse(word, false), Some(Word::Depth(_))))
    };
    let mut said = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        // "i420_10le" is two words, "nv12_10le40_4l4" is three.
        let joined = (2..=3).rev().find_map(|count| {
            let own = format_names::of_caps(&words.get(at..at + count)?.join("_"))?;
            Some((count, own))
        });
        if let Some((count, own)) = joined {
            said.push(Word::Exact(own));
            at += count;
            continue;
        }
        // As in "10-bit".
        if words
            .get(at + 1)
            .is_some_and(|word| ["bit", "bits"].contains(word))
            && let Some(depth) = Word::parse(&format!("{word}bit"), false)
        {
            said.push(depth);
            at += 2;
            continue;
        }
        let is_by_depth = depth_of(words.get(at + 1))
            || at
                .checked_sub(1)
                .is_some_and(|before| depth_of(words.get(before)));
        said.extend(Word::parse(word, is_yuv_file || is_by_depth));
        at += 1;
    }
    (format::agree(&said, is_yuv_file), format::is_bayer(&said))
}

/// A size, and what stands with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Picture {
    size: (i32, i32),
    framerate: Option<(i32, i32)>,
    is_interlaced: bool,
    /// How certain the size is.
    certainty: Certainty,
    /// The number of words that the size takes up.
    words: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    /// As `vga`, `1080p`.
    Named,
    /// As `640_480`.
    Numbers,
    /// As `640x480`, `w640_h480`.
    Explicit,
}

impl Picture {
    /// Parses the size that begins with word `at`.
    fn parse(words: &[&str], at: usize) -> Option<Self> {
        let (word, next) = (*words.get(at)?, words.get(at + 1).copied());
        Self::by_x(word)
            .or_else(|| Self::by_letters(word, next))
            .or_else(|| Self::by_numbers(word, next))
            .or_else(|| Self::by_name(word))
    }

    fn new(size: (i32, i32), certainty: Certainty, words: usize) -> Self {
        Self {
            size,
            framerate: None,
            is_interlaced: false,
            certainty,
            words,
        }
    }

    /// Parses `1920x1080`, `1920x1080p30`, `720x576i`.
    fn by_x(word: &str) -> Option<Self> {
        let (width, rest) = word.split_once('x')?;
        let (height, scan) = split_digits(rest);
        let size = (number(width)?, number(height)?);
        Self::new(size, Certainty::Explicit, 1).scanned(scan)
    }

    /// Parses `w640_h480`, `w640h480`, `width640_height480`.
    fn by_letters(word: &str, next: Option<&str>) -> Option<Self> {
        let (width, rest) = split_digits(word.strip_prefix("width").or(word.strip_prefix('w'))?);
        let (height, words) = match rest {
            "" => (next?, 2),
            rest => (rest, 1),
        };
        let height = height.strip_prefix("height").or(height.strip_prefix('h'))?;
        let size = (number(width)?, number(height)?);
        Some(Self::new(size, Certainty::Explicit, words))
    }

    /// Parses `640_480`, if that is a usual size.
    fn by_numbers(word: &str, next: Option<&str>) -> Option<Self> {
        let (height, scan) = split_digits(next?);
        let size = (number(word)?, number(height)?);
        let picture = Self::new(size, Certainty::Numbers, 2).scanned(scan)?;
        USUAL_SIZES.contains(&size).then_some(picture)
    }

    /// Parses `vga`, `1080p`, `576i`, `1080p25`.
    fn by_name(word: &str) -> Option<Self> {
        if let Some((_, size)) = NAMED_SIZES.iter().find(|(name, _)| *name == word) {
            return Some(Self::new(*size, Certainty::Named, 1));
        }
        let (lines, scan) = split_digits(word);
        let height = number(lines)?;
        let size = LINES.iter().find(|(_, lines)| *lines == height)?;
        if scan.is_empty() {
            return None;
        }
        Self::new(*size, Certainty::Named, 1).scanned(scan)
    }

    /// Adds what may follow a size: nothing, or `p` or `i`, and a rate after those.
    fn scanned(mut self, scan: &str) -> Option<Self> {
        if scan.is_empty() {
            return Some(self);
        }
        let rate = scan.strip_prefix(['p', 'i'])?;
        self.is_interlaced = scan.starts_with('i');
        if !rate.is_empty() {
            let rate = rate_number(rate.strip_suffix("fps").unwrap_or(rate))?;
            self.framerate = Some(frames_of(rate, self.is_interlaced));
        }
        Some(self)
    }
}

/// Frames per second. A rate of interlaced pictures above 30 counts fields.
fn frames_of((numer, denom): (i32, i32), is_interlaced: bool) -> (i32, i32) {
    if !is_interlaced || numer / denom <= 30 {
        return (numer, denom);
    }
    match numer % 2 {
        0 => (numer / 2, denom),
        _ => (numer, denom * 2),
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

/// A number of pixels: not 0, and without a leading zero.
fn number(digits: &str) -> Option<i32> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let has_zero = digits.starts_with('0');
    let number = all_digits.then(|| digits.parse().ok()).flatten();
    number.filter(|number| *number > 0 && !has_zero)
}

/// The frame rate that a word gives, and whether it says that frames are interlaced:
/// `25fps`, `50hz`, `fps30`, `25 fps`, `50i`.
fn rate(words: &[&str], at: usize) -> Option<((i32, i32), bool)> {
    let word = *words.get(at)?;
    let is_unit = |word: &&&str| ["fps", "hz"].contains(*word);
    if let Some(number) = ["fps", "hz"]
        .iter()
        .find_map(|unit| word.strip_suffix(unit))
    {
        let number = number.strip_suffix(['p', 'i']).unwrap_or(number);
        return Some((rate_number(number)?, false));
    }
    if let Some(number) = word.strip_prefix("fps") {
        return Some((rate_number(number)?, false));
    }
    if words.get(at + 1).filter(is_unit).is_some() {
        return Some((rate_number(word)?, false));
    }
    let number = word.strip_suffix(['p', 'i'])?;
    let is_interlaced = word.ends_with('i');
    let rate = USUAL_RATES
        .contains(&number)
        .then(|| rate_number(number))??;
    Some((frames_of(rate, is_interlaced), is_interlaced))
}

fn rate_number(text: &str) -> Option<(i32, i32)> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    if !text.bytes().all(is_plain) || text.starts_with('0') && !text.starts_with("0.") {
        return None;
    }
    // Rates written without their decimal point.
    match text {
        "23976" | "2397" | "2398" => return Some((24000, 1001)),
        "2997" => return Some((30000, 1001)),
        "5994" => return Some((60000, 1001)),
        _ => {}
    }
    let rate: f64 = text.parse().ok()?;
    if !(0.1..=1000.0).contains(&rate) {
        return None;
    }
    if rate.fract() == 0.0 {
        return Some((rate as i32, 1));
    }
    // 23.98, 29.97 and 59.94 are whole rates times 1000/1001.
    let whole = rate.ceil();
    if (whole * 1000.0 / 1001.0 - rate).abs() < 0.01 {
        return Some((whole as i32 * 1000, 1001));
    }
    Some(((rate * 1000.0).round() as i32, 1000))
}

#[cfg(test)]
mod tests;
