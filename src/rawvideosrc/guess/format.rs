// SPDX-License-Identifier: MPL-2.0
//! Recognises formats by the names that FFmpeg, V4L2, DRM, fourcc.org and people use.
//!
//! A word may name a whole format (`nv12`, `yuv420p10le`) or a part of one (`420`, `10bit`).
//! Parts are combined. If they contradict each other, or if GStreamer does not have the format,
//! no format is guessed, which is better than a wrong picture.

use gst_video::{VideoFormat, VideoFormatInfo};

use crate::rawvideosrc::format_names::of_caps;

/// Names of other projects, and GStreamer's names for the same formats. GStreamer's own names
/// need no entry.
const NAMES: &[(&str, &str)] = &[
    // FFmpeg.
    ("yuyv422", "YUY2"),
    ("uyvy422", "UYVY"),
    ("yvyu422", "YVYU"),
    ("uyyvyy411", "IYU1"),
    ("rgb24", "RGB"),
    ("bgr24", "BGR"),
    ("rgb0", "RGBx"),
    ("bgr0", "BGRx"),
    ("0rgb", "xRGB"),
    ("0bgr", "xBGR"),
    ("rgb565le", "RGB16"),
    ("bgr565le", "BGR16"),
    ("rgb555le", "RGB15"),
    ("bgr555le", "BGR15"),
    ("rgba64le", "RGBA64_LE"),
    ("rgba64be", "RGBA64_BE"),
    ("bgra64le", "BGRA64_LE"),
    ("bgra64be", "BGRA64_BE"),
    ("x2rgb10le", "BGR10x2_LE"),
    ("x2bgr10le", "RGB10x2_LE"),
    ("y210le", "Y210"),
    ("p010le", "P010_10LE"),
    ("p010be", "P010_10BE"),
    ("p012le", "P012_LE"),
    ("p012be", "P012_BE"),
    ("p016le", "P016_LE"),
    ("p016be", "P016_BE"),
    ("pal8", "RGB8P"),
    // fourcc.org and V4L2, whose drivers also write the planes of frames one by one (the names with M).
    ("yuyv", "YUY2"),
    ("yunv", "YUY2"),
    ("iyuv", "I420"),
    ("yu12", "I420"),
    ("422p", "Y42B"),
    ("411p", "Y41B"),
    ("yuv9", "YUV9"),
    ("y800", "GRAY8"),
    ("nm12", "NV12"),
    ("nv12m", "NV12"),
    ("nm21", "NV21"),
    ("nv21m", "NV21"),
    ("nm16", "NV16"),
    ("nv16m", "NV16"),
    ("nm61", "NV61"),
    ("nv61m", "NV61"),
    ("ym12", "I420"),
    ("yuv420m", "I420"),
    ("ym21", "YV12"),
    ("yvu420m", "YV12"),
    ("ym16", "Y42B"),
    ("yuv422m", "Y42B"),
    ("ym24", "Y444"),
    ("yuv444m", "Y444"),
    // Tiles.
    ("vt12", "NV12_4L4"),
    ("st12", "NV12_32L32"),
    ("tm12", "NV12_64Z32"),
    ("nv12mt", "NV12_64Z32"),
    ("mm21", "NV12_16L32S"),
    ("na12", "NV12_8L128"),
    ("nt12", "NV12_10BE_8L128"),
    ("p010", "P010_10LE"),
    ("p012", "P012_LE"),
    ("p016", "P016_LE"),
    ("rgb3", "RGB"),
    ("bgr3", "BGR"),
    ("rgb4", "xRGB"),
    ("bgr4", "BGRx"),
    ("rgbo", "RGB15"),
    ("rgb565", "RGB16"),
    ("bgr565", "BGR16"),
    ("rgb555", "RGB15"),
    ("bgr555", "BGR15"),
    // DRM, whose names begin with the highest bits of a little-endian word.
    ("xrgb8888", "BGRx"),
    ("xr24", "BGRx"),
    ("argb8888", "BGRA"),
    ("ar24", "BGRA"),
    ("xbgr8888", "RGBx"),
    ("xb24", "RGBx"),
    ("abgr8888", "RGBA"),
    ("ab24", "RGBA"),
    ("rx24", "xBGR"),
    ("ra24", "ABGR"),
    ("bx24", "xRGB"),
    ("ba24", "ARGB"),
    ("rg24", "BGR"),
    ("bg24", "RGB"),
    ("rg16", "RGB16"),
    ("bg16", "BGR16"),
    ("xrgb1555", "RGB15"),
    ("xr15", "RGB15"),
    ("xrgb2101010", "BGR10x2_LE"),
    ("xr30", "BGR10x2_LE"),
    ("argb2101010", "BGR10A2_LE"),
    ("ar30", "BGR10A2_LE"),
    ("xbgr2101010", "RGB10x2_LE"),
    ("xb30", "RGB10x2_LE"),
    ("abgr2101010", "RGB10A2_LE"),
    ("ab30", "RGB10A2_LE"),
    ("yu16", "Y42B"),
    ("yu24", "Y444"),
    ("nv15", "NV12_10LE40"),
    ("nv20", "NV16_10LE40"),
];

/// Names of formats that GStreamer does not have, or with several meanings (`rgb888` is BGR in
/// DRM and RGB in cameras).
const NOT_ONE: &[&str] = &[
    "rgb8", "rgb32", "bgr32", "rgb888", "bgr888", "rgba8888", "bgra8888", "rgbx8888", "bgrx8888",
    "rgb48", "rgb48le", "rgb48be", "bgr48", "bgr48le", "bgr48be", "yv16", "yv24", "ya8", "ya16",
    "p210", "p216", "p410", "p416", "p210le", "p216le", "yuv422i", "422i", "nv42", "ym61",
    "yvu422m", "ym42", "yvu444m", "m420", "hm12", "vm12", "y41p", "y10b", "y10p", "y12p", "y14p",
    "xyuv", "vuyx", "yuvx", "rgbr", "rgbq", "bgrh", "xr48", "ar48", "xb48", "ab48",
];

/// The orders of colours on a Bayer sensor.
const BAYER_ORDERS: &[&str] = &["rggb", "bggr", "gbrg", "grbg"];

/// Fourccs of V4L2 for Bayer formats that are not made of the order of colours, and MIPI's names for
/// the data of any sensor.
const BAYER_NAMES: &[&str] = &[
    "bayer", "ba81", "byr2", "rg10", "bg10", "gb10", "ba10", "rg12", "bg12", "gb12", "ba12",
    "rg14", "bg14", "gb14", "gr14", "gb16", "gr16", "praa", "pbaa", "pgaa", "prcc", "pbcc", "pgcc",
    "pree", "pbee", "pgee", "raw8", "raw10", "raw12", "raw14", "raw16",
];

/// What one word says about the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The whole format.
    Exact(VideoFormat),
    /// The chroma subsampling, and perhaps more.
    Sampled(Sampled),
    Depth(Depth),
    /// A format of a Bayer sensor, or a word for one.
    Bayer,
    /// A format that is unknown or ambiguous, so that none may be guessed.
    Foreign,
}

/// The size and byte order of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    bits: u32,
    is_big_endian: bool,
}

/// What a word says about a YUV or grey format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled {
    /// 420, 422, 444 and so on; 400 for grey.
    sampling: u32,
    /// `None` if the word does not say.
    is_semi_planar: Option<bool>,
    is_vu: bool,
    has_alpha: bool,
    depth: Option<Depth>,
}

impl Word {
    /// Parses a word in lower case. `is_among_yuv` tells that other words speak of YUV, so that a
    /// number such as `422` may be a chroma subsampling.
    pub fn parse(word: &str, is_among_yuv: bool) -> Option<Self> {
        if let Some(format) = of_caps(word) {
            return Some(Self::Exact(format));
        }
        if let Some((_, name)) = NAMES.iter().find(|(known, _)| *known == word) {
            return Some(named(name));
        }
        if NOT_ONE.contains(&word) {
            return Some(Self::Foreign);
        }
        if is_bayer_name(word) {
            return Some(Self::Bayer);
        }
        depth(word)
            .map(Self::Depth)
            .or_else(|| gray(word))
            .or_else(|| planes_of_rgb(word))
            .or_else(|| sampled(word, is_among_yuv))
    }
}

fn named(name: &str) -> Word {
    of_caps(name).map_or(Word::Foreign, Word::Exact)
}

/// Whether the word is the name of a Bayer format in V4L2 (`srggb10p`, `pRAA`), libcamera, FFmpeg
/// (`bggr16le`) or video/x-bayer (`rggb`).
fn is_bayer_name(word: &str) -> bool {
    let name = word.strip_prefix('s').unwrap_or(word);
    let rest = BAYER_ORDERS
        .iter()
        .find_map(|order| name.strip_prefix(order));
    let is_size = |rest| {
        let digits = endianness(rest).0.trim_end_matches('p');
        digits.is_empty() || bits(digits).is_some()
    };
    BAYER_NAMES.contains(&word) || rest.is_some_and(is_size)
}

/// Splits off `le` or `be` at the end; true stands for big-endian.
fn endianness(word: &str) -> (&str, Option<bool>) {
    match (word.strip_suffix("le"), word.strip_suffix("be")) {
        (Some(rest), _) => (rest, Some(false)),
        (_, Some(rest)) => (rest, Some(true)),
        _ => (word, None),
    }
}

fn bits(digits: &str) -> Option<u32> {
    digits.parse().ok().filter(|bits| (8..=16).contains(bits))
}

/// Parses `10bit`, `10b`, `10le`.
fn depth(word: &str) -> Option<Depth> {
    let (rest, is_big_endian) = endianness(word);
    let digits = ["bits", "bit", "b"]
        .iter()
        .find_map(|unit| rest.strip_suffix(unit));
    let digits = digits.or_else(|| is_big_endian.map(|_| rest))?;
    // "24bit" counts the bits of a whole pixel.
    let bits = bits(digits).or_else(|| digits.parse().ok().filter(|n| [24, 32].contains(n)))?;
    Some(Depth {
        bits,
        is_big_endian: is_big_endian.unwrap_or(false),
    })
}

/// Parses `gray`, `grey16le`, `mono8`, `y8`.
fn gray(word: &str) -> Option<Word> {
    let names = [
        ("gray", true),
        ("grey", true),
        ("mono", false),
        ("y", false),
    ];
    let (digits, stands_alone) = names
        .iter()
        .find_map(|(name, alone)| Some((word.strip_prefix(name)?, *alone)))?;
    let (digits, is_big_endian) = endianness(digits);
    let bits = match digits {
        "" if stands_alone && is_big_endian.is_none() => 8,
        digits => bits(digits)?,
    };
    let depth = Depth {
        bits,
        is_big_endian: is_big_endian.unwrap_or(false),
    };
    Some(Word::Sampled(Sampled {
        sampling: 400,
        is_semi_planar: Some(false),
        is_vu: false,
        has_alpha: false,
        depth: Some(depth),
    }))
}

/// Parses FFmpeg's `gbrp`, `gbrap10le`.
fn planes_of_rgb(word: &str) -> Option<Word> {
    let (rest, is_big_endian) = endianness(word.strip_prefix("gbr")?);
    let (has_alpha, digits) = match rest.strip_prefix("ap") {
        Some(digits) => (true, digits),
        None => (false, rest.strip_prefix('p')?),
    };
    let alpha = if has_alpha { "A" } else { "" };
    if digits.is_empty() {
        return Some(named(&format!("GBR{alpha}")));
    }
    let end = if is_big_endian == Some(true) {
        "BE"
    } else {
        "LE"
    };
    Some(named(&format!("GBR{alpha}_{}{end}", bits(digits)?)))
}

/// Parses `yuv420p10le`, `420sp`, `yuva444p`, `yvu420`, `444p`, and if `is_among_yuv` also a
/// number such as `422`.
fn sampled(word: &str, is_among_yuv: bool) -> Option<Word> {
    let prefixes = [
        ("yuva", false, true),
        ("yuvj", false, false),
        ("yuv", false, false),
        ("yvu", true, false),
        ("ycbcr", false, false),
        ("ycrcb", true, false),
        ("i4", false, false),
    ];
    let prefix = prefixes
        .iter()
        .find(|(prefix, ..)| word.starts_with(prefix));
    let (rest, is_vu, has_alpha) = match prefix {
        Some(("i4", ..)) => (&word[1..], false, false),
        Some((prefix, is_vu, has_alpha)) => (&word[prefix.len()..], *is_vu, *has_alpha),
        None => (word, false, false),
    };
    let sampling = rest.get(..3)?;
    let sampling = ["420", "422", "444", "440", "411", "410", "400"]
        .iter()
        .find(|known| **known == sampling)?;
    let (rest, is_big_endian) = endianness(&rest[3..]);
    let (is_semi_planar, digits) = ["semiplanar", "planar", "sp", "p"]
        .iter()
        .find_map(|name| Some((Some(name.starts_with('s')), rest.strip_prefix(name)?)))
        .unwrap_or((None, rest));
    if prefix.is_none() && is_semi_planar.is_none() && !(is_among_yuv && rest.is_empty()) {
        return None;
    }
    let depth = match (digits, is_big_endian) {
        ("", None) => None,
        _ => Some(Depth {
            bits: bits(digits)?,
            is_big_endian: is_big_endian.unwrap_or(false),
        }),
    };
    Some(Word::Sampled(Sampled {
        sampling: sampling.parse().ok()?,
        is_semi_planar,
        is_vu,
        has_alpha,
        depth,
    }))
}

impl Sampled {
    /// The format of a file called .yuv whose name says nothing else.
    const USUAL: Self = Self {
        sampling: 420,
        is_semi_planar: None,
        is_vu: false,
        has_alpha: false,
        depth: None,
    };

    fn format(&self, depth: Depth) -> Option<VideoFormat> {
        let end = if depth.is_big_endian { "BE" } else { "LE" };
        let semi = self.is_semi_planar == Some(true);
        let name = match (self.sampling, depth.bits, semi, self.is_vu) {
            (420, 8, true, false) => "NV12".into(),
            (420, 8, true, true) => "NV21".into(),
            (422, 8, true, false) => "NV16".into(),
            (422, 8, true, true) => "NV61".into(),
            (444, 8, true, false) => "NV24".into(),
            (420, 10, true, false) => format!("P010_10{end}"),
            (420, bits @ (12 | 16), true, false) => format!("P0{bits}_{end}"),
            (420, 8, false, true) => "YV12".into(),
            (410, 8, false, true) => "YVU9".into(),
            (_, _, true, _) | (_, _, _, true) => return None,
            (sampling, 8, ..) if self.has_alpha => format!("A{sampling}"),
            (sampling, bits, ..) if self.has_alpha => format!("A{sampling}_{bits}{end}"),
            (420, 8, ..) => "I420".into(),
            (422, 8, ..) => "Y42B".into(),
            (444, 8, ..) => "Y444".into(),
            (411, 8, ..) => "Y41B".into(),
            (410, 8, ..) => "YUV9".into(),
            (400, 8, ..) => "GRAY8".into(),
            (400, 16, ..) => format!("GRAY16_{end}"),
            (400, bits, ..) => format!("GRAY{bits}_{end}16"),
            (sampling @ (420 | 422), bits, ..) => format!("I{sampling}_{bits}{end}"),
            (444, bits, ..) => format!("Y444_{bits}{end}"),
            _ => return None,
        };
        of_caps(&name)
    }

    /// Combines two words. `None` if they contradict each other.
    fn and(self, other: Self) -> Option<Self> {
        fn same<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<Option<T>> {
            match (a, b) {
                (Some(a), Some(b)) if a != b => None,
                (a, b) => Some(a.or(b)),
            }
        }
        (self.sampling == other.sampling).then_some(Self {
            sampling: self.sampling,
            is_semi_planar: same(self.is_semi_planar, other.is_semi_planar)?,
            is_vu: self.is_vu || other.is_vu,
            has_alpha: self.has_alpha || other.has_alpha,
            depth: same(self.depth, other.depth)?,
        })
    }
}

/// The chroma subsampling of a format in the numbers of `Sampled`.
fn sampling_of(info: &VideoFormatInfo) -> Option<u32> {
    if info.is_gray() {
        return Some(400);
    }
    let shifts = (info.w_sub().get(1)?, info.h_sub().get(1)?);
    info.is_yuv().then_some(match shifts {
        (1, 1) => 420,
        (1, 0) => 422,
        (0, 0) => 444,
        (2, 0) => 411,
        (2, 2) => 410,
        _ => return None,
    })
}

/// Whether the words speak of a Bayer sensor, and of no other format.
pub fn is_bayer(words: &[Word]) -> bool {
    let is_other = |word: &Word| !matches!(word, Word::Bayer | Word::Depth(_));
    words.contains(&Word::Bayer) && !words.iter().any(is_other)
}

/// The format that all words together name. `is_yuv_file` tells that the name ends with .yuv.
pub fn agree(words: &[Word], is_yuv_file: bool) -> Option<VideoFormat> {
    let (mut exact, mut sampled, mut depth) = (None, None::<Sampled>, None);
    for word in words {
        match *word {
            Word::Foreign | Word::Bayer => return None,
            Word::Exact(format) => {
                if exact.is_some_and(|known| known != format) {
                    return None;
                }
                exact = Some(format);
            }
            Word::Sampled(one) => {
                sampled = Some(match sampled {
                    Some(other) => other.and(one)?,
                    None => one,
                });
            }
            Word::Depth(bits) => {
                if depth.is_some_and(|known| known != bits) {
                    return None;
                }
                depth = Some(bits);
            }
        }
    }
    if let Some(format) = exact {
        return refine(format, sampled, depth);
    }
    let sampled = match sampled {
        None if is_yuv_file => Sampled::USUAL,
        sampled => sampled?,
    };
    if let (Some(a), Some(b)) = (sampled.depth, depth)
        && a.bits != b.bits
    {
        return None;
    }
    let usual = Depth {
        bits: 8,
        is_big_endian: false,
    };
    sampled.format(sampled.depth.or(depth).unwrap_or(usual))
}

/// The named format, or its variant of that depth. `None` if the other words contradict it.
fn refine(
    format: VideoFormat,
    sampled: Option<Sampled>,
    depth: Option<Depth>,
) -> Option<VideoFormat> {
    let info = VideoFormatInfo::from_format(format);
    let sampling = sampling_of(&info);
    if let Some(said) = sampled
        && sampling != Some(said.sampling)
    {
        return None;
    }
    let depth = depth.or(sampled.and_then(|sampled| sampled.depth));
    let own_bits = *info.depth().first()?;
    let pixel_bits = info.pixel_stride().first().map(|bytes| *bytes as u32 * 8);
    match depth {
        None => Some(format),
        Some(depth) if depth.bits == own_bits => Some(format),
        Some(depth) if info.is_rgb() && pixel_bits == Some(depth.bits) => Some(format),
        // As in "nv12_10bit".
        Some(depth) if own_bits == 8 => {
            let is_semi_planar = match format {
                VideoFormat::I420 | VideoFormat::Y42b | VideoFormat::Y444 | VideoFormat::Gray8 => {
                    false
                }
                VideoFormat::Nv12 | VideoFormat::Nv16 => true,
                _ => return None,
            };
            let deeper = Sampled {
                sampling: sampling?,
                is_semi_planar: Some(is_semi_planar),
                ..Sampled::USUAL
            };
            deeper.format(depth)
        }
        Some(_) => None,
    }
}
