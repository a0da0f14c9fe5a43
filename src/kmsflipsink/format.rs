// SPDX-License-Identifier: MPL-2.0
//! DRM fourccs and GStreamer video formats, and the dumb buffer that holds a frame. Pure.
//!
//! A DRM fourcc names the components of a little-endian word from its highest bit down. A GStreamer format
//! names the bytes in the order of memory. So XRGB8888 is BGRx.

use gst_video::VideoFormat;

use crate::layout::Layout;

/// The DRM fourcc with these characters. The crate drm-fourcc does not know those of Linux 5.15 and later.
pub const fn fourcc(name: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*name)
}

/// Opaque formats come before those with alpha, because upstream takes the first format if it can choose,
/// and a primary plane shows both alike. A format may have several fourccs, the best one first: with `XR30`,
/// the plane takes no notice of the alpha in frames of BGR10A2.
///
/// The fourccs are those of drm_fourcc.h (Linux 7.2), save `XV15` and `XV20`: the kernel of AMD for Xilinx devices
/// calls P030 and P230 so.
const TABLE: &[(&[u8; 4], VideoFormat)] = &[
    (b"XR24", VideoFormat::Bgrx),
    (b"XB24", VideoFormat::Rgbx),
    (b"RX24", VideoFormat::Xbgr),
    (b"BX24", VideoFormat::Xrgb),
    (b"AR24", VideoFormat::Bgra),
    (b"AB24", VideoFormat::Rgba),
    (b"RA24", VideoFormat::Abgr),
    (b"BA24", VideoFormat::Argb),
    (b"RG24", VideoFormat::Bgr),
    (b"BG24", VideoFormat::Rgb),
    (b"RG16", VideoFormat::Rgb16),
    (b"BG16", VideoFormat::Bgr16),
    (b"XR15", VideoFormat::Rgb15),
    (b"XB15", VideoFormat::Bgr15),
    #[cfg(feature = "v1_28")]
    (b"XR30", VideoFormat::Bgr10x2Le),
    #[cfg(feature = "v1_28")]
    (b"XB30", VideoFormat::Rgb10x2Le),
    (b"AR30", VideoFormat::Bgr10a2Le),
    (b"XR30", VideoFormat::Bgr10a2Le),
    (b"AB30", VideoFormat::Rgb10a2Le),
    (b"XB30", VideoFormat::Rgb10a2Le),
    (b"AR48", VideoFormat::Bgra64Le),
    (b"XR48", VideoFormat::Bgra64Le),
    (b"AB48", VideoFormat::Rgba64Le),
    (b"XB48", VideoFormat::Rgba64Le),
    (b"NV12", VideoFormat::Nv12),
    (b"NV21", VideoFormat::Nv21),
    (b"NV16", VideoFormat::Nv16),
    (b"NV61", VideoFormat::Nv61),
    (b"NV24", VideoFormat::Nv24),
    (b"P010", VideoFormat::P01010le),
    (b"P012", VideoFormat::P012Le),
    (b"P016", VideoFormat::P016Le),
    (b"NV15", VideoFormat::Nv1210le40),
    #[cfg(feature = "v1_28")]
    (b"NV20", VideoFormat::Nv1610le40),
    (b"P030", VideoFormat::Nv1210le32),
    (b"XV15", VideoFormat::Nv1210le32),
    (b"P230", VideoFormat::Nv1610le32),
    (b"XV20", VideoFormat::Nv1610le32),
    (b"YU12", VideoFormat::I420),
    (b"YV12", VideoFormat::Yv12),
    (b"YU16", VideoFormat::Y42b),
    (b"YU24", VideoFormat::Y444),
    (b"YU11", VideoFormat::Y41b),
    (b"YUV9", VideoFormat::Yuv9),
    (b"YVU9", VideoFormat::Yvu9),
    (b"S010", VideoFormat::I42010le),
    (b"S210", VideoFormat::I42210le),
    (b"S410", VideoFormat::Y44410le),
    (b"S012", VideoFormat::I42012le),
    (b"S212", VideoFormat::I42212le),
    (b"S412", VideoFormat::Y44412le),
    (b"S416", VideoFormat::Y44416le),
    (b"YUYV", VideoFormat::Yuy2),
    (b"UYVY", VideoFormat::Uyvy),
    (b"YVYU", VideoFormat::Yvyu),
    (b"VYUY", VideoFormat::Vyuy),
    (b"Y210", VideoFormat::Y210),
    (b"Y212", VideoFormat::Y212Le),
    #[cfg(feature = "v1_26")]
    (b"Y216", VideoFormat::Y216Le),
    (b"AYUV", VideoFormat::Vuya),
    (b"XYUV", VideoFormat::Vuya),
    (b"VU24", VideoFormat::V308),
    (b"Y410", VideoFormat::Y410),
    (b"XV30", VideoFormat::Y410),
    (b"Y412", VideoFormat::Y412Le),
    (b"XV36", VideoFormat::Y412Le),
    #[cfg(feature = "v1_26")]
    (b"Y416", VideoFormat::Y416Le),
    #[cfg(feature = "v1_26")]
    (b"XV48", VideoFormat::Y416Le),
    (b"R8  ", VideoFormat::Gray8),
    (b"GREY", VideoFormat::Gray8),
    #[cfg(feature = "v1_26")]
    (b"R10 ", VideoFormat::Gray10Le16),
    (b"R16 ", VideoFormat::Gray16Le),
    (b"YPA4", VideoFormat::Gray10Le32),
];

/// Every format that some KMS plane may take, best first.
pub fn all() -> Vec<VideoFormat> {
    supported(|_| true)
}

/// The fourccs of a format, best first.
pub fn fourccs_of(format: VideoFormat) -> impl Iterator<Item = u32> {
    let rows = TABLE.iter().filter(move |&&(_, other)| other == format);
    rows.map(|&(name, _)| fourcc(name))
}

/// The format of a fourcc, the best one if there are several.
pub fn format_of(wanted: u32) -> Option<VideoFormat> {
    let row = TABLE.iter().find(|&&(name, _)| fourcc(name) == wanted);
    row.map(|&(_, format)| format)
}

/// The formats that have a fourcc for which `is_shown` is true, best first.
pub fn supported(is_shown: impl Fn(u32) -> bool) -> Vec<VideoFormat> {
    let mut formats = Vec::new();
    for &(name, format) in TABLE {
        if is_shown(fourcc(name)) && !formats.contains(&format) {
            formats.push(format);
        }
    }
    formats
}

/// The four characters of a fourcc, such as "XR24", with spaces for those that cannot be printed.
pub fn fourcc_name(fourcc: u32) -> String {
    fourcc
        .to_le_bytes()
        .iter()
        .map(|&byte| {
            if byte.is_ascii_graphic() {
                char::from(byte)
            } else {
                ' '
            }
        })
        .collect()
}

/// The arguments of DRM_IOCTL_MODE_CREATE_DUMB for a dumb buffer that holds a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumbShape {
    /// Pixels in a row of the first colour plane, or bytes if a pixel is no whole number of bytes.
    pub width: u32,
    /// Rows of all colour planes, in units of the first one's pitch.
    pub height: u32,
    /// Bits per pixel of the first colour plane.
    pub bits: u32,
}

pub fn dumb_shape(info: &gst_video::VideoInfo) -> DumbShape {
    let layout = Layout::of_info(info);
    let bytes: usize = layout
        .planes()
        .iter()
        .map(|plane| plane.stride_bytes * plane.rows)
        .sum();
    let first_rows = bytes.div_ceil(layout.planes[0].stride_bytes.max(1));
    let (width, bits) = match info.format_info().pixel_stride()[0] {
        // A pixel is no whole number of bytes, so the dumb buffer has a pixel for each byte.
        0 => (layout.planes[0].stride_bytes as u32, 8),
        bytes => (info.width(), bytes.max(1) as u32 * 8),
    };
    DumbShape {
        width,
        height: u32::try_from(first_rows)
            .unwrap_or(u32::MAX)
            .max(info.height()),
        bits,
    }
}

/// The pairs of fourcc and modifier in an IN_FORMATS blob (`struct drm_format_modifier_blob`). Empty if the
/// blob is malformed.
pub fn parse_in_formats(blob: &[u8]) -> Vec<(u32, u64)> {
    parse_blob(blob).unwrap_or_default()
}

fn parse_blob(blob: &[u8]) -> Option<Vec<(u32, u64)>> {
    const VERSION: u32 = 1;
    const MODIFIER_BYTES: usize = 24;
    let u32_at = |at: usize| {
        Some(u32::from_ne_bytes(
            blob.get(at..at.checked_add(4)?)?.try_into().ok()?,
        ))
    };
    let u64_at = |at: usize| {
        Some(u64::from_ne_bytes(
            blob.get(at..at.checked_add(8)?)?.try_into().ok()?,
        ))
    };
    if u32_at(0)? != VERSION {
        return None;
    }
    let (count_formats, formats_offset) = (u32_at(8)? as usize, u32_at(12)? as usize);
    let (count_modifiers, modifiers_offset) = (u32_at(16)? as usize, u32_at(20)? as usize);
    let mut pairs = Vec::new();
    for index in 0..count_modifiers {
        let at = modifiers_offset.checked_add(index.checked_mul(MODIFIER_BYTES)?)?;
        let (mask, first, modifier) = (u64_at(at)?, u32_at(at + 8)? as usize, u64_at(at + 16)?);
        for bit in (0..64usize).filter(|bit| mask >> bit & 1 == 1) {
            let format = first.checked_add(bit)?;
            if format < count_formats {
                pairs.push((u32_at(formats_offset.checked_add(format * 4)?)?, modifier));
            }
        }
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info(format: VideoFormat, width: u32, height: u32) -> gst_video::VideoInfo {
        gst::init().unwrap();
        gst_video::VideoInfo::builder(format, width, height)
            .build()
            .unwrap()
    }

    #[test]
    fn no_row_is_there_twice() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(!TABLE[index + 1..].contains(row), "{row:?}");
        }
    }

    #[test]
    fn opaque_formats_come_first_and_unknown_fourccs_are_left_out() {
        let fourccs = [fourcc(b"AR24"), 0x1234_5678, fourcc(b"XR24")];
        let formats = supported(|wanted| fourccs.contains(&wanted));
        assert_eq!(formats, [VideoFormat::Bgrx, VideoFormat::Bgra]);
        assert_eq!(fourcc_name(fourcc(b"XR24")), "XR24");
        assert_eq!(fourcc_name(fourcc(b"R8  ")), "R8  ");
    }

    #[test]
    fn a_format_has_the_fourcc_with_its_alpha_first() {
        let names = |format| fourccs_of(format).map(fourcc_name).collect::<Vec<_>>();
        assert_eq!(names(VideoFormat::Bgra64Le), ["AR48", "XR48"]);
        assert_eq!(names(VideoFormat::Ayuv), [""; 0]);
        assert_eq!(format_of(fourcc(b"P010")), Some(VideoFormat::P01010le));
        assert_eq!(format_of(fourcc(b"C8  ")), None);
    }

    #[test]
    fn dumb_buffers_are_large_enough_for_all_planes() {
        let shape = dumb_shape(&info(VideoFormat::Nv12, 640, 480));
        assert_eq!(
            shape,
            DumbShape {
                width: 640,
                height: 720,
                bits: 8
            }
        );
        assert_eq!(dumb_shape(&info(VideoFormat::Y444, 640, 480)).height, 1440);
        assert_eq!(dumb_shape(&info(VideoFormat::P01010le, 640, 480)).bits, 16);
        assert_eq!(dumb_shape(&info(VideoFormat::Bgrx, 640, 480)).bits, 32);
        // 10 bits a pixel: 640 pixels are 800 bytes.
        let packed = dumb_shape(&info(VideoFormat::Nv1210le40, 640, 480));
        assert_eq!((packed.width, packed.height, packed.bits), (800, 720, 8));
    }

    /// The fourcc, the name in GStreamer, the pixels that share a chroma sample, and the words of each colour plane.
    type Documented = (
        &'static str,
        &'static str,
        usize,
        &'static [(&'static str, &'static str)],
    );

    /// What drm_fourcc.h says of the words of each colour plane, from the highest bit down: components with the numbers
    /// of their samples, and their bits. Then, what GStreamer calls the format, and how many pixels share a chroma
    /// sample horizontally. `z` and `x` are bits that do not count.
    #[rustfmt::skip]
    const DOCUMENTED: &[Documented] = &[
        ("XR24", "BGRx", 1, &[("x:R:G:B", "8:8:8:8")]),
        ("XB24", "RGBx", 1, &[("x:B:G:R", "8:8:8:8")]),
        ("RX24", "xBGR", 1, &[("R:G:B:x", "8:8:8:8")]),
        ("BX24", "xRGB", 1, &[("B:G:R:x", "8:8:8:8")]),
        ("AR24", "BGRA", 1, &[("A:R:G:B", "8:8:8:8")]),
        ("AB24", "RGBA", 1, &[("A:B:G:R", "8:8:8:8")]),
        ("RA24", "ABGR", 1, &[("R:G:B:A", "8:8:8:8")]),
        ("BA24", "ARGB", 1, &[("B:G:R:A", "8:8:8:8")]),
        ("RG24", "BGR", 1, &[("R:G:B", "8:8:8")]),
        ("BG24", "RGB", 1, &[("B:G:R", "8:8:8")]),
        ("RG16", "RGB16", 1, &[("R:G:B", "5:6:5")]),
        ("BG16", "BGR16", 1, &[("B:G:R", "5:6:5")]),
        ("XR15", "RGB15", 1, &[("x:R:G:B", "1:5:5:5")]),
        ("XB15", "BGR15", 1, &[("x:B:G:R", "1:5:5:5")]),
        ("XR30", "BGR10x2_LE", 1, &[("x:R:G:B", "2:10:10:10")]),
        ("XB30", "RGB10x2_LE", 1, &[("x:B:G:R", "2:10:10:10")]),
        ("AR30", "BGR10A2_LE", 1, &[("A:R:G:B", "2:10:10:10")]),
        ("XR30", "BGR10A2_LE", 1, &[("x:R:G:B", "2:10:10:10")]),
        ("AB30", "RGB10A2_LE", 1, &[("A:B:G:R", "2:10:10:10")]),
        ("XB30", "RGB10A2_LE", 1, &[("x:B:G:R", "2:10:10:10")]),
        ("AR48", "BGRA64_LE", 1, &[("A:R:G:B", "16:16:16:16")]),
        ("XR48", "BGRA64_LE", 1, &[("x:R:G:B", "16:16:16:16")]),
        ("AB48", "RGBA64_LE", 1, &[("A:B:G:R", "16:16:16:16")]),
        ("XB48", "RGBA64_LE", 1, &[("x:B:G:R", "16:16:16:16")]),
        ("NV12", "NV12", 2, &[("Y", "8"), ("Cr:Cb", "8:8")]),
        ("NV21", "NV21", 2, &[("Y", "8"), ("Cb:Cr", "8:8")]),
        ("NV16", "NV16", 2, &[("Y", "8"), ("Cr:Cb", "8:8")]),
        ("NV61", "NV61", 2, &[("Y", "8"), ("Cb:Cr", "8:8")]),
        ("NV24", "NV24", 1, &[("Y", "8"), ("Cr:Cb", "8:8")]),
        ("P010", "P010_10LE", 2, &[("Y:x", "10:6"), ("Cr:x:Cb:x", "10:6:10:6")]),
        ("P012", "P012_LE", 2, &[("Y:x", "12:4"), ("Cr:x:Cb:x", "12:4:12:4")]),
        ("P016", "P016_LE", 2, &[("Y", "16"), ("Cr:Cb", "16:16")]),
        ("NV15", "NV12_10LE40", 2, &[("Y3:Y2:Y1:Y0", "10:10:10:10"), ("Cr1:Cb1:Cr0:Cb0", "10:10:10:10")]),
        ("NV20", "NV16_10LE40", 2, &[("Y3:Y2:Y1:Y0", "10:10:10:10"), ("Cr1:Cb1:Cr0:Cb0", "10:10:10:10")]),
        ("P030", "NV12_10LE32", 2, &[("x:Y2:Y1:Y0", "2:10:10:10"), ("x:Cr2:Cb2:Cr1:x:Cb1:Cr0:Cb0", "2:10:10:10:2:10:10:10")]),
        ("XV15", "NV12_10LE32", 2, &[("x:Y2:Y1:Y0", "2:10:10:10"), ("x:Cr2:Cb2:Cr1:x:Cb1:Cr0:Cb0", "2:10:10:10:2:10:10:10")]),
        ("P230", "NV16_10LE32", 2, &[("x:Y2:Y1:Y0", "2:10:10:10"), ("x:Cr2:Cb2:Cr1:x:Cb1:Cr0:Cb0", "2:10:10:10:2:10:10:10")]),
        ("XV20", "NV16_10LE32", 2, &[("x:Y2:Y1:Y0", "2:10:10:10"), ("x:Cr2:Cb2:Cr1:x:Cb1:Cr0:Cb0", "2:10:10:10:2:10:10:10")]),
        ("YU12", "I420", 2, &[("Y", "8"), ("Cb", "8"), ("Cr", "8")]),
        ("YV12", "YV12", 2, &[("Y", "8"), ("Cr", "8"), ("Cb", "8")]),
        ("YU16", "Y42B", 2, &[("Y", "8"), ("Cb", "8"), ("Cr", "8")]),
        ("YU24", "Y444", 1, &[("Y", "8"), ("Cb", "8"), ("Cr", "8")]),
        ("YU11", "Y41B", 4, &[("Y", "8"), ("Cb", "8"), ("Cr", "8")]),
        ("YUV9", "YUV9", 4, &[("Y", "8"), ("Cb", "8"), ("Cr", "8")]),
        ("YVU9", "YVU9", 4, &[("Y", "8"), ("Cr", "8"), ("Cb", "8")]),
        ("S010", "I420_10LE", 2, &[("z:Y", "6:10"), ("z:Cb", "6:10"), ("z:Cr", "6:10")]),
        ("S210", "I422_10LE", 2, &[("z:Y", "6:10"), ("z:Cb", "6:10"), ("z:Cr", "6:10")]),
        ("S410", "Y444_10LE", 1, &[("z:Y", "6:10"), ("z:Cb", "6:10"), ("z:Cr", "6:10")]),
        ("S012", "I420_12LE", 2, &[("z:Y", "4:12"), ("z:Cb", "4:12"), ("z:Cr", "4:12")]),
        ("S212", "I422_12LE", 2, &[("z:Y", "4:12"), ("z:Cb", "4:12"), ("z:Cr", "4:12")]),
        ("S412", "Y444_12LE", 1, &[("z:Y", "4:12"), ("z:Cb", "4:12"), ("z:Cr", "4:12")]),
        ("S416", "Y444_16LE", 1, &[("Y", "16"), ("Cb", "16"), ("Cr", "16")]),
        ("YUYV", "YUY2", 2, &[("Cr0:Y1:Cb0:Y0", "8:8:8:8")]),
        ("UYVY", "UYVY", 2, &[("Y1:Cr0:Y0:Cb0", "8:8:8:8")]),
        ("YVYU", "YVYU", 2, &[("Cb0:Y1:Cr0:Y0", "8:8:8:8")]),
        ("VYUY", "VYUY", 2, &[("Y1:Cb0:Y0:Cr0", "8:8:8:8")]),
        ("Y210", "Y210", 2, &[("Cr0:x:Y1:x:Cb0:x:Y0:x", "10:6:10:6:10:6:10:6")]),
        ("Y212", "Y212_LE", 2, &[("Cr0:x:Y1:x:Cb0:x:Y0:x", "12:4:12:4:12:4:12:4")]),
        ("Y216", "Y216_LE", 2, &[("Cr0:Y1:Cb0:Y0", "16:16:16:16")]),
        ("AYUV", "VUYA", 1, &[("A:Y:Cb:Cr", "8:8:8:8")]),
        ("XYUV", "VUYA", 1, &[("x:Y:Cb:Cr", "8:8:8:8")]),
        ("VU24", "v308", 1, &[("Cr:Cb:Y", "8:8:8")]),
        ("Y410", "Y410", 1, &[("A:Cr:Y:Cb", "2:10:10:10")]),
        ("XV30", "Y410", 1, &[("x:Cr:Y:Cb", "2:10:10:10")]),
        ("Y412", "Y412_LE", 1, &[("A:x:Cr:x:Y:x:Cb:x", "12:4:12:4:12:4:12:4")]),
        ("XV36", "Y412_LE", 1, &[("x:x:Cr:x:Y:x:Cb:x", "12:4:12:4:12:4:12:4")]),
        ("Y416", "Y416_LE", 1, &[("A:Cr:Y:Cb", "16:16:16:16")]),
        ("XV48", "Y416_LE", 1, &[("x:Cr:Y:Cb", "16:16:16:16")]),
        ("R8  ", "GRAY8", 1, &[("Y", "8")]),
        ("GREY", "GRAY8", 1, &[("Y", "8")]),
        ("R10 ", "GRAY10_LE16", 1, &[("x:Y", "6:10")]),
        ("R16 ", "GRAY16_LE", 1, &[("Y", "16")]),
        ("YPA4", "GRAY10_LE32", 1, &[("x:Y2:Y1:Y0", "2:10:10:10")]),
    ];

    /// Pixels in a row of the frames below: a multiple of what any word and any chroma sample spans.
    const WIDTH: usize = 24;

    /// The bits of a sample in a word, counted from the lowest bit of the word.
    struct Bits {
        /// Y, Cb, Cr, A, R, G or B.
        component: &'static str,
        /// The number of the sample among those of its component in the word.
        sample: usize,
        lowest: usize,
        n: usize,
    }

    /// The bits of a documented word, and the number of its bytes.
    fn word((names, widths): (&'static str, &'static str)) -> (Vec<Bits>, usize) {
        let mut lowest = 0;
        let mut all = Vec::new();
        for (name, n) in names.rsplit(':').zip(widths.rsplit(':')) {
            let n: usize = n.parse().unwrap();
            let component = name.trim_end_matches(|c: char| c.is_ascii_digit());
            if !["x", "z"].contains(&component) {
                let sample = name[component.len()..].parse().unwrap_or(0);
                all.push(Bits {
                    component,
                    sample,
                    lowest,
                    n,
                });
            }
            lowest += n;
        }
        (all, lowest / 8)
    }

    /// A row of a documented plane, in which all samples are zero save one, whose bits are all ones.
    fn row_with_one(
        documented: (&'static str, &'static str),
        share: usize,
        component: &str,
        sample: usize,
    ) -> Vec<u8> {
        let (word, word_bytes) = word(documented);
        let count = |name| word.iter().filter(|bits| bits.component == name).count();
        let first = word[0].component;
        let n_words = WIDTH / span_of(first, share) / count(first);
        let mut bytes = vec![0; word_bytes * n_words];
        for bits in word.iter().filter(|bits| bits.component == component) {
            let in_word = count(bits.component);
            if sample % in_word == bits.sample {
                let start = sample / in_word * word_bytes * 8 + bits.lowest;
                for bit in start..start + bits.n {
                    bytes[bit / 8] |= 1 << (bit % 8);
                }
            }
        }
        bytes
    }

    /// How many pixels of a row share a sample.
    fn span_of(component: &str, share: usize) -> usize {
        match component {
            "Cb" | "Cr" => share,
            _ => 1,
        }
    }

    /// The place of a component in a pixel that GStreamer has unpacked: AYUV, ARGB, or the same with 16 bits.
    fn place_of(component: &str) -> usize {
        let places = [
            ("A", 0),
            ("Y", 1),
            ("R", 1),
            ("Cb", 2),
            ("G", 2),
            ("Cr", 3),
            ("B", 3),
        ];
        places
            .iter()
            .find(|&&(name, _)| name == component)
            .unwrap()
            .1
    }

    #[test]
    fn each_row_of_the_table_is_documented_below() {
        gst::init().unwrap();
        let known = DOCUMENTED
            .iter()
            .filter_map(|&(name, format, ..)| Some((name, format.parse::<VideoFormat>().ok()?)));
        let known: std::collections::BTreeSet<_> = known
            .map(|(name, format)| (name, format.to_str()))
            .collect();
        for &(name, format) in TABLE {
            let name = std::str::from_utf8(name).unwrap();
            assert!(
                known.contains(&(name, format.to_str())),
                "{name} {format:?}"
            );
        }
    }

    /// Every sample of every format is found by GStreamer's own unpacking where drm_fourcc.h says that it is.
    #[test]
    fn samples_of_gstreamer_are_where_drm_says() {
        gst::init().unwrap();
        for &(name, format, share, words) in DOCUMENTED {
            // Older GStreamer has not all of them.
            let Ok(format) = format.parse::<VideoFormat>() else {
                continue;
            };
            let info = gst_video::VideoFormatInfo::from_format(format);
            let unpacked = gst_video::VideoFormatInfo::from_format(info.unpack_format());
            let value_bytes = unpacked.pixel_stride()[0] as usize / 4;
            for bits in words.iter().flat_map(|&documented| word(documented).0) {
                // Alpha is unpacked only if the format has it, and grey has no chroma.
                let is_compared = |place| match place {
                    0 => bits.component == "A",
                    1 => true,
                    _ => !info.is_gray(),
                };
                let span = span_of(bits.component, share);
                for wanted in 0..WIDTH / span {
                    let rows = words
                        .iter()
                        .map(|&word| row_with_one(word, share, bits.component, wanted));
                    let rows: Vec<_> = rows.collect();
                    let planes: Vec<_> = rows.iter().map(Vec::as_slice).collect();
                    let strides: Vec<_> = rows.iter().map(|row| row.len() as i32).collect();
                    let mut pixels = vec![0x55; WIDTH * 4 * value_bytes];
                    let flags = gst_video::VideoPackFlags::empty();
                    info.unpack(flags, &mut pixels, &planes, &strides, 0, 0, WIDTH as i32);
                    for (at, value) in pixels.chunks_exact(value_bytes).enumerate() {
                        let (pixel, place) = (at / 4, at % 4);
                        let is_lit = pixel / span == wanted && place == place_of(bits.component);
                        if is_compared(place) {
                            let is_high = value[value_bytes - 1] >= 0x80;
                            let of = bits.component;
                            assert_eq!(is_high, is_lit, "{name} {format:?} {of} {wanted} {pixel}");
                        }
                    }
                }
            }
        }
    }

    fn blob(formats: &[u32], modifiers: &[(u64, u32, u64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let modifiers_at = 24 + formats.len() as u32 * 4;
        for word in [
            1,
            0,
            formats.len() as u32,
            24,
            modifiers.len() as u32,
            modifiers_at,
        ] {
            bytes.extend(word.to_ne_bytes());
        }
        formats
            .iter()
            .for_each(|format| bytes.extend(format.to_ne_bytes()));
        for (mask, offset, modifier) in modifiers {
            bytes.extend(mask.to_ne_bytes());
            bytes.extend(offset.to_ne_bytes());
            bytes.extend(0u32.to_ne_bytes());
            bytes.extend(modifier.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn in_formats_pairs_each_modifier_with_its_formats() {
        let bytes = blob(&[10, 20, 30], &[(0b101, 0, 0), (0b1, 1, 77)]);
        assert_eq!(parse_in_formats(&bytes), [(10, 0), (30, 0), (20, 77)]);
    }

    proptest! {
        #[test]
        fn in_formats_of_any_bytes_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_in_formats(&bytes);
        }

        #[test]
        fn in_formats_cut_short_or_out_of_range_is_never_more_than_it_holds(
            cut in 0usize..80, mask: u64, offset: u32
        ) {
            let mut bytes = blob(&[1, 2, 3], &[(mask, offset, 9)]);
            bytes.truncate(cut);
            prop_assert!(parse_in_formats(&bytes).len() <= 3);
        }
    }
}
