// SPDX-License-Identifier: MPL-2.0
//! The GStreamer format for the bit fields of a framebuffer. Pure.
//!
//! A framebuffer has at most one format: the one that stores a pixel in the same bytes.
//! Framebuffers with palettes or bit planes have none.
use crate::sys::fbdev::{self, Bitfield, FixScreeninfo, VarScreeninfo};
use gst_video::VideoFormat;
use gst_video::VideoFormat as F;

/// Every format that [`format_of`] may return.
pub const ALL: &[VideoFormat] = &[
    F::Bgrx,
    F::Rgbx,
    F::Xrgb,
    F::Xbgr,
    F::Bgra,
    F::Rgba,
    F::Argb,
    F::Abgr,
    F::Bgr,
    F::Rgb,
    F::Rgb16,
    F::Bgr16,
    F::Rgb15,
    F::Bgr15,
    F::Bgr10a2Le,
    F::Rgb10a2Le,
    F::Gray8,
    F::Gray16Le,
    F::Gray16Be,
    F::Yuy2,
    F::Uyvy,
    F::Yvyu,
    F::Vyuy,
];

/// Why the framebuffer has no GStreamer format. The numbers are those of the driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error(
        "its memory has layout type {0} (bit planes or text), not packed pixels; a mode with 16, 24 or 32 bits a pixel is needed (fbset -depth 32)"
    )]
    NotPacked(u32),
    #[error(
        "its {bits} bits a pixel are indices into a palette (visual {visual}); a mode with 16, 24 or 32 bits a pixel is needed (fbset -depth 16)"
    )]
    Palette { bits: u32, visual: u32 },
    #[error("no video format has its pixels: {0}")]
    Unknown(String),
    #[error("no video format is known for its fourcc 0x{0:08x}")]
    Fourcc(u32),
}

/// The format of the framebuffer's pixels, and so of every frame that it can show.
pub fn format_of(fix: &FixScreeninfo, var: &VarScreeninfo) -> Result<VideoFormat, FormatError> {
    if var.grayscale > 1 {
        return packed_fourcc(var.grayscale).ok_or(FormatError::Fourcc(var.grayscale));
    }
    if fix.type_ != fbdev::FB_TYPE_PACKED_PIXELS {
        return Err(FormatError::NotPacked(fix.type_));
    }
    if var.grayscale == 1 {
        match var.bits_per_pixel {
            8 => return Ok(F::Gray8),
            16 if cfg!(target_endian = "big") => return Ok(F::Gray16Be),
            16 => return Ok(F::Gray16Le),
            _ => {}
        }
    }
    if !matches!(
        fix.visual,
        fbdev::FB_VISUAL_TRUECOLOR | fbdev::FB_VISUAL_DIRECTCOLOR
    ) {
        return Err(FormatError::Palette {
            bits: var.bits_per_pixel,
            visual: fix.visual,
        });
    }
    rgb(var).ok_or_else(|| {
        let text = |f: Bitfield| format!("{} bits from bit {}", f.length, f.offset);
        FormatError::Unknown(format!(
            "{} bits, red {}, green {}, blue {}, alpha {}",
            var.bits_per_pixel,
            text(var.red),
            text(var.green),
            text(var.blue),
            text(var.transp)
        ))
    })
}

fn rgb(var: &VarScreeninfo) -> Option<VideoFormat> {
    let fields = [var.red, var.green, var.blue];
    if fields.iter().any(|f| f.msb_right != 0) {
        return None;
    }
    let lengths = fields.map(|f| f.length);
    let offsets = fields.map(|f| f.offset);
    let alpha = var.transp.length;
    match (var.bits_per_pixel, lengths) {
        (32, [8, 8, 8]) => bytes_32(offsets, (alpha == 8).then_some(var.transp.offset)),
        (24, [8, 8, 8]) => match byte_positions(24, offsets)? {
            [0, 1, 2] => Some(F::Rgb),
            [2, 1, 0] => Some(F::Bgr),
            _ => None,
        },
        // GStreamer has these two formats only with little-endian words.
        (32, [10, 10, 10]) if cfg!(target_endian = "little") => match offsets {
            [20, 10, 0] => Some(F::Bgr10a2Le),
            [0, 10, 20] => Some(F::Rgb10a2Le),
            _ => None,
        },
        // GStreamer defines these formats as native words, and so does fbdev.
        (16, [5, 6, 5]) => match offsets {
            [11, 5, 0] => Some(F::Rgb16),
            [0, 5, 11] => Some(F::Bgr16),
            _ => None,
        },
        (15 | 16, [5, 5, 5]) => match offsets {
            [10, 5, 0] => Some(F::Rgb15),
            [0, 5, 10] => Some(F::Bgr15),
            _ => None,
        },
        _ => None,
    }
}

/// If the mode has alpha bits, the driver may blend, so the format needs alpha. If not,
/// the fourth byte is padding.
fn bytes_32(offsets: [u32; 3], alpha: Option<u32>) -> Option<VideoFormat> {
    let [red, green, blue] = byte_positions(32, offsets)?;
    if let Some(alpha) = alpha {
        let [alpha, ..] = byte_positions(32, [alpha; 3])?;
        if [red, green, blue].contains(&alpha) {
            return None;
        }
    }
    match ([red, green, blue], alpha.is_some()) {
        ([2, 1, 0], false) => Some(F::Bgrx),
        ([2, 1, 0], true) => Some(F::Bgra),
        ([0, 1, 2], false) => Some(F::Rgbx),
        ([0, 1, 2], true) => Some(F::Rgba),
        ([1, 2, 3], false) => Some(F::Xrgb),
        ([1, 2, 3], true) => Some(F::Argb),
        ([3, 2, 1], false) => Some(F::Xbgr),
        ([3, 2, 1], true) => Some(F::Abgr),
        _ => None,
    }
}

/// Converts bit offsets in a native word to byte positions in memory. `None` if a
/// component is not a whole byte.
fn byte_positions(bits: u32, offsets: [u32; 3]) -> Option<[u32; 3]> {
    if offsets.iter().any(|o| o % 8 != 0 || *o + 8 > bits) {
        return None;
    }
    Some(offsets.map(|o| {
        if cfg!(target_endian = "big") {
            bits / 8 - 1 - o / 8
        } else {
            o / 8
        }
    }))
}

fn packed_fourcc(fourcc: u32) -> Option<VideoFormat> {
    match &fourcc.to_le_bytes() {
        b"YUYV" => Some(F::Yuy2),
        b"UYVY" => Some(F::Uyvy),
        b"YVYU" => Some(F::Yvyu),
        b"VYUY" => Some(F::Vyuy),
        b"GREY" => Some(F::Gray8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(length: u32, offset: u32) -> Bitfield {
        Bitfield {
            offset,
            length,
            msb_right: 0,
        }
    }

    fn var(bits: u32, r: (u32, u32), g: (u32, u32), b: (u32, u32), a: (u32, u32)) -> VarScreeninfo {
        VarScreeninfo {
            bits_per_pixel: bits,
            red: field(r.0, r.1),
            green: field(g.0, g.1),
            blue: field(b.0, b.1),
            transp: field(a.0, a.1),
            ..Default::default()
        }
    }

    fn truecolor() -> FixScreeninfo {
        FixScreeninfo {
            visual: fbdev::FB_VISUAL_TRUECOLOR,
            ..Default::default()
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_bit_fields_of_real_drivers_have_their_formats() {
        let none = (0, 0);
        for (what, var, want) in [
            (
                "DRM XRGB8888",
                var(32, (8, 16), (8, 8), (8, 0), none),
                F::Bgrx,
            ),
            (
                "ARGB8888",
                var(32, (8, 16), (8, 8), (8, 0), (8, 24)),
                F::Bgra,
            ),
            ("XBGR8888", var(32, (8, 0), (8, 8), (8, 16), none), F::Rgbx),
            (
                "ABGR8888",
                var(32, (8, 0), (8, 8), (8, 16), (8, 24)),
                F::Rgba,
            ),
            ("BGRX8888", var(32, (8, 8), (8, 16), (8, 24), none), F::Xrgb),
            ("RGBX8888", var(32, (8, 24), (8, 16), (8, 8), none), F::Xbgr),
            (
                "RGBA8888",
                var(32, (8, 24), (8, 16), (8, 8), (8, 0)),
                F::Abgr,
            ),
            (
                "cirrusfb 24",
                var(24, (8, 16), (8, 8), (8, 0), none),
                F::Bgr,
            ),
            (
                "24, red first",
                var(24, (8, 0), (8, 8), (8, 16), none),
                F::Rgb,
            ),
            (
                "cirrusfb 16",
                var(16, (5, 11), (6, 5), (5, 0), none),
                F::Rgb16,
            ),
            ("BGR565", var(16, (5, 0), (6, 5), (5, 11), none), F::Bgr16),
            ("XRGB1555", var(16, (5, 10), (5, 5), (5, 0), none), F::Rgb15),
            (
                "XBGR1555",
                var(16, (5, 0), (5, 5), (5, 10), (1, 15)),
                F::Bgr15,
            ),
            (
                "XRGB2101010",
                var(32, (10, 20), (10, 10), (10, 0), none),
                F::Bgr10a2Le,
            ),
        ] {
            assert_eq!(format_of(&truecolor(), &var), Ok(want), "{what}");
        }
    }

    #[test]
    fn palettes_and_bit_planes_are_refused_with_a_remedy() {
        let mut fix = truecolor();
        fix.visual = 3;
        let palette = var(8, (8, 0), (8, 0), (8, 0), (0, 0));
        assert!(matches!(
            format_of(&fix, &palette),
            Err(FormatError::Palette { bits: 8, visual: 3 })
        ));
        fix.type_ = 1;
        assert!(
            format_of(&fix, &palette)
                .unwrap_err()
                .to_string()
                .contains("fbset")
        );
    }

    #[test]
    fn reversed_bits_are_no_format() {
        let mut reversed = var(32, (8, 16), (8, 8), (8, 0), (0, 0));
        reversed.green.msb_right = 1;
        assert!(format_of(&truecolor(), &reversed).is_err());
    }

    #[test]
    fn grey_and_packed_yuv_modes_are_known() {
        let mut grey = var(8, (8, 0), (8, 0), (8, 0), (0, 0));
        grey.grayscale = 1;
        assert_eq!(format_of(&truecolor(), &grey), Ok(F::Gray8));
        let fix = FixScreeninfo {
            type_: 5,
            visual: 6,
            ..Default::default()
        };
        let yuv = VarScreeninfo {
            grayscale: u32::from_le_bytes(*b"YUYV"),
            bits_per_pixel: 16,
            ..Default::default()
        };
        assert_eq!(format_of(&fix, &yuv), Ok(F::Yuy2));
        let planar = VarScreeninfo {
            grayscale: u32::from_le_bytes(*b"NV12"),
            ..Default::default()
        };
        assert!(matches!(
            format_of(&fix, &planar),
            Err(FormatError::Fourcc(_))
        ));
    }

    proptest! {
        /// GStreamer writes each component into the bits of its bit field and no others.
        #[test]
        fn a_format_puts_each_component_under_its_bit_field(
            bits in prop_oneof![Just(16u32), Just(24), Just(32)],
            lengths in prop_oneof![Just([8u32; 3]), Just([5, 6, 5]), Just([5; 3]), Just([10; 3])],
            offsets in [offset(), offset(), offset()],
            alpha in prop_oneof![Just((0u32, 0u32)), Just((8, 24)), Just((8, 0))],
        ) {
            let var = var(bits, (lengths[0], offsets[0]), (lengths[1], offsets[1]), (lengths[2], offsets[2]), alpha);
            let Ok(format) = format_of(&truecolor(), &var) else { return Ok(()) };
            prop_assert!(ALL.contains(&format));
            gst::init().unwrap();
            let info = gst_video::VideoFormatInfo::from_format(format);
            prop_assert_eq!(info.pixel_stride()[0] as u32 * 8, bits);
            for c in 0..3 {
                prop_assert_eq!(info.depth()[c], lengths[c]);
                let field = ((1 << lengths[c]) - 1) << offsets[c];
                let colours = !info_alpha(&info, &var);
                prop_assert_eq!(packed(&info, c) & colours, field, "{:?} {}", format, c);
            }
        }
    }

    fn offset() -> impl Strategy<Value = u32> {
        proptest::sample::select(vec![0u32, 5, 8, 10, 11, 16, 20, 24])
    }

    /// The bits of a pixel outside of its three colours.
    fn info_alpha(info: &gst_video::VideoFormatInfo, var: &VarScreeninfo) -> u64 {
        let colours = [var.red, var.green, var.blue];
        let mask = |f: Bitfield| ((1u64 << f.length) - 1) << f.offset;
        let bits = info.pixel_stride()[0] as u32 * 8;
        ((1u64 << bits) - 1) & !colours.into_iter().map(mask).sum::<u64>()
    }

    /// A pixel with one component at its maximum and the others 0, as a word. The info's
    /// `shift` cannot be used, because it is the same for RGB16 and BGR16.
    fn packed(info: &gst_video::VideoFormatInfo, component: usize) -> u64 {
        let deep = info.unpack_format() != F::Argb;
        let mut words = [u16::MAX, 0, 0, 0];
        words[component + 1] = u16::MAX;
        let argb: Vec<u8> = match deep {
            true => words.iter().flat_map(|word| word.to_ne_bytes()).collect(),
            false => words.iter().map(|&word| word as u8).collect(),
        };
        let mut pixel = [0; 8];
        let stride = info.pixel_stride()[0];
        info.pack(
            gst_video::VideoPackFlags::empty(),
            &argb,
            argb.len() as i32,
            &mut [&mut pixel[..stride as usize]],
            &[stride],
            gst_video::VideoChromaSite::NONE,
            0,
            1,
        );
        u64::from_le_bytes(pixel)
    }
}
