// SPDX-License-Identifier: MPL-2.0
//! DRM fourccs and GStreamer video formats, and the dumb buffer that holds a frame. Pure.
//!
//! A DRM fourcc names the components of a little-endian word from its highest bit down. A GStreamer format
//! names the bytes in the order of memory. So XRGB8888 is BGRx.

use drm::buffer::DrmFourcc;
use gst_video::VideoFormat;

use crate::layout::Layout;

/// Opaque formats come before those with alpha, because upstream takes the first format if it can choose,
/// and a primary plane shows both alike.
const TABLE: &[(DrmFourcc, VideoFormat)] = &[
    (DrmFourcc::Xrgb8888, VideoFormat::Bgrx),
    (DrmFourcc::Xbgr8888, VideoFormat::Rgbx),
    (DrmFourcc::Rgbx8888, VideoFormat::Xbgr),
    (DrmFourcc::Bgrx8888, VideoFormat::Xrgb),
    (DrmFourcc::Argb8888, VideoFormat::Bgra),
    (DrmFourcc::Abgr8888, VideoFormat::Rgba),
    (DrmFourcc::Rgba8888, VideoFormat::Abgr),
    (DrmFourcc::Bgra8888, VideoFormat::Argb),
    (DrmFourcc::Rgb888, VideoFormat::Bgr),
    (DrmFourcc::Bgr888, VideoFormat::Rgb),
    (DrmFourcc::Rgb565, VideoFormat::Rgb16),
    (DrmFourcc::Bgr565, VideoFormat::Bgr16),
    (DrmFourcc::Xrgb1555, VideoFormat::Rgb15),
    (DrmFourcc::Xbgr1555, VideoFormat::Bgr15),
    (DrmFourcc::Argb2101010, VideoFormat::Bgr10a2Le),
    (DrmFourcc::Abgr2101010, VideoFormat::Rgb10a2Le),
    (DrmFourcc::Nv12, VideoFormat::Nv12),
    (DrmFourcc::Nv21, VideoFormat::Nv21),
    (DrmFourcc::Nv16, VideoFormat::Nv16),
    (DrmFourcc::Nv61, VideoFormat::Nv61),
    (DrmFourcc::Nv24, VideoFormat::Nv24),
    (DrmFourcc::P010, VideoFormat::P01010le),
    (DrmFourcc::Yuv420, VideoFormat::I420),
    (DrmFourcc::Yvu420, VideoFormat::Yv12),
    (DrmFourcc::Yuv422, VideoFormat::Y42b),
    (DrmFourcc::Yuv444, VideoFormat::Y444),
    (DrmFourcc::Yuyv, VideoFormat::Yuy2),
    (DrmFourcc::Uyvy, VideoFormat::Uyvy),
    (DrmFourcc::Yvyu, VideoFormat::Yvyu),
    (DrmFourcc::Vyuy, VideoFormat::Vyuy),
    (DrmFourcc::Ayuv, VideoFormat::Vuya),
    (DrmFourcc::R8, VideoFormat::Gray8),
];

/// Every format that some KMS plane may take.
pub fn all() -> impl Iterator<Item = VideoFormat> {
    TABLE.iter().map(|&(_, format)| format)
}

pub fn fourcc_of(format: VideoFormat) -> Option<DrmFourcc> {
    TABLE
        .iter()
        .find(|&&(_, other)| other == format)
        .map(|&(fourcc, _)| fourcc)
}

/// The formats that have one of these fourccs, best first.
pub fn supported(fourccs: &[u32]) -> Vec<VideoFormat> {
    TABLE
        .iter()
        .filter(|&&(fourcc, _)| fourccs.contains(&(fourcc as u32)))
        .map(|&(_, format)| format)
        .collect()
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
    /// Pixels in a row of the first colour plane.
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
    DumbShape {
        width: info.width(),
        height: u32::try_from(first_rows)
            .unwrap_or(u32::MAX)
            .max(info.height()),
        bits: info.format_info().pixel_stride()[0].max(1) as u32 * 8,
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
    fn words_of_drm_are_bytes_of_gstreamer_the_other_way_round() {
        assert_eq!(fourcc_of(VideoFormat::Bgrx), Some(DrmFourcc::Xrgb8888));
        assert_eq!(fourcc_of(VideoFormat::Rgb16), Some(DrmFourcc::Rgb565));
        assert_eq!(fourcc_of(VideoFormat::Bgr), Some(DrmFourcc::Rgb888));
        assert_eq!(fourcc_of(VideoFormat::Gray16Le), None);
    }

    #[test]
    fn no_format_and_no_fourcc_is_listed_twice() {
        for (index, (fourcc, format)) in TABLE.iter().enumerate() {
            for (other_fourcc, other_format) in &TABLE[index + 1..] {
                assert_ne!(fourcc, other_fourcc);
                assert_ne!(format, other_format);
            }
        }
    }

    #[test]
    fn opaque_formats_come_first_and_unknown_fourccs_are_left_out() {
        let fourccs = [
            DrmFourcc::Argb8888 as u32,
            0x1234_5678,
            DrmFourcc::Xrgb8888 as u32,
        ];
        assert_eq!(supported(&fourccs), [VideoFormat::Bgrx, VideoFormat::Bgra]);
        assert_eq!(fourcc_name(DrmFourcc::Xrgb8888 as u32), "XR24");
        assert_eq!(fourcc_name(DrmFourcc::R8 as u32), "R8  ");
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
