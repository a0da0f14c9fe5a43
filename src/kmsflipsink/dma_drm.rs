// SPDX-License-Identifier: MPL-2.0
//! The DMA_DRM caps of GStreamer 1.24, which describe memory by a DRM fourcc and modifier:
//! `video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format=XR24:0x...`.
//!
//! The caps are read and written here as text, so that this module is tested with GStreamer 1.22 too. The
//! sink offers them only with the feature `v1_24`.

use gst_video::VideoFormat;

use super::format;

/// DRM_FORMAT_MOD_LINEAR
pub const LINEAR: u64 = 0;

/// What DMA_DRM caps say of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaDrm {
    pub fourcc: u32,
    /// The DRM format modifier.
    pub modifier: u64,
}

const FEATURE: &str = "memory:DMABuf";

/// The text in `drm-format`: "XR24" if the modifier is linear, else like "XR24:0x0100000000000002".
pub fn to_text(fourcc: u32, modifier: u64) -> String {
    let name: String = format::fourcc_name(fourcc);
    match modifier {
        LINEAR => name,
        _ => format!("{name}:0x{modifier:016x}"),
    }
}

/// The opposite of `to_text`.
pub fn from_text(text: &str) -> Option<(u32, u64)> {
    let (name, modifier) = match text.split_once(':') {
        Some((name, digits)) => (
            name,
            u64::from_str_radix(digits.strip_prefix("0x")?, 16).ok()?,
        ),
        None => (text, LINEAR),
    };
    let bytes: [u8; 4] = name.as_bytes().try_into().ok()?;
    Some((u32::from_le_bytes(bytes), modifier))
}

/// Caps for these pairs of fourcc and modifier. A fourcc that is no text, such as those of big-endian words, is left out.
#[cfg(any(test, feature = "v1_24"))]
pub fn caps(pairs: &[(u32, u64)], max_size: (u32, u32)) -> gst::Caps {
    let names: Vec<_> = pairs
        .iter()
        .filter(|(fourcc, _)| fourcc.to_le_bytes().iter().all(is_printable))
        .map(|&(fourcc, modifier)| to_text(fourcc, modifier))
        .collect();
    if names.is_empty() {
        return gst::Caps::new_empty();
    }
    let up_to = |max: u32| gst::IntRange::new(1, i32::try_from(max).unwrap_or(i32::MAX).max(2));
    let structure = gst::Structure::builder("video/x-raw")
        .field("format", "DMA_DRM")
        .field("drm-format", gst::List::new(names))
        .field("width", up_to(max_size.0))
        .field("height", up_to(max_size.1))
        .field(
            "framerate",
            gst::FractionRange::new(gst::Fraction::new(0, 1), gst::Fraction::new(i32::MAX, 1)),
        )
        .build();
    let features = gst::CapsFeatures::new([FEATURE]);
    gst::Caps::builder_full()
        .structure_with_features(structure, features)
        .build()
}

#[cfg(any(test, feature = "v1_24"))]
fn is_printable(byte: &u8) -> bool {
    byte.is_ascii_graphic() || *byte == b' '
}

/// The video info, the fourcc and the modifier of DMA_DRM caps; `None` for all other caps. The format of the info is
/// `Encoded` if GStreamer has no format for the fourcc.
pub fn parse(caps: &gst::CapsRef) -> Option<(gst_video::VideoInfo, DmaDrm)> {
    let structure = caps.structure(0)?;
    if !caps.features(0)?.contains(FEATURE) || structure.get::<&str>("format") != Ok("DMA_DRM") {
        return None;
    }
    let (fourcc, modifier) = from_text(structure.get("drm-format").ok()?)?;
    let format = format::format_of(fourcc).unwrap_or(VideoFormat::Encoded);
    let size = |name: &str| {
        structure
            .get::<i32>(name)
            .ok()
            .and_then(|value| u32::try_from(value).ok())
    };
    let mut builder = gst_video::VideoInfo::builder(format, size("width")?, size("height")?);
    if let Ok(rate) = structure.get::<gst::Fraction>("framerate") {
        builder = builder.fps(rate);
    }
    if let Ok(aspect) = structure.get::<gst::Fraction>("pixel-aspect-ratio") {
        builder = builder.par(aspect);
    }
    let colorimetry: Option<gst_video::VideoColorimetry> = structure
        .get::<&str>("colorimetry")
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(colorimetry) = &colorimetry {
        builder = builder.colorimetry(colorimetry);
    }
    Some((builder.build().ok()?, DmaDrm { fourcc, modifier }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmsflipsink::format::fourcc;
    use proptest::prelude::*;

    const INTEL_Y_TILED: u64 = 0x0100_0000_0000_0002;

    #[test]
    fn linear_is_not_written_and_anything_else_is() {
        let xr24 = fourcc(b"XR24");
        assert_eq!(to_text(xr24, LINEAR), "XR24");
        assert_eq!(to_text(xr24, INTEL_Y_TILED), "XR24:0x0100000000000002");
        assert_eq!(from_text("XR24"), Some((xr24, LINEAR)));
        assert_eq!(
            from_text("XR24:0x0100000000000002"),
            Some((xr24, INTEL_Y_TILED))
        );
        for bad in ["", "XR2", "XR24:", "XR24:2", "XR24:0xg", "XR245"] {
            assert_eq!(from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn caps_name_each_pair_whose_fourcc_is_text() {
        gst::init().unwrap();
        let pairs = [
            (fourcc(b"XR24"), LINEAR),
            (fourcc(b"NV12"), INTEL_Y_TILED),
            (fourcc(b"C8  "), LINEAR),
            (fourcc(b"XR24") | 1 << 31, LINEAR),
        ];
        let caps = caps(&pairs, (4096, 2160));
        let list = caps
            .structure(0)
            .unwrap()
            .get::<gst::List>("drm-format")
            .unwrap();
        let names: Vec<&str> = list.iter().map(|name| name.get().unwrap()).collect();
        assert_eq!(names, ["XR24", "NV12:0x0100000000000002", "C8  "]);
        assert!(caps.features(0).unwrap().contains(FEATURE));
        assert!(super::caps(&[], (1, 1)).is_empty());
    }

    #[test]
    fn what_is_offered_can_be_parsed_once_fixed() {
        gst::init().unwrap();
        let mut offered = caps(&[(fourcc(b"NV12"), INTEL_Y_TILED)], (4096, 2160));
        offered.fixate();
        let colorimetry = "1:3:5:1"; // the default of none of these
        offered.get_mut().unwrap().set("colorimetry", colorimetry);
        let (info, dma_drm) = parse(&offered).unwrap();
        let expected = DmaDrm {
            fourcc: fourcc(b"NV12"),
            modifier: INTEL_Y_TILED,
        };
        assert_eq!((info.format(), dma_drm), (VideoFormat::Nv12, expected));
        assert_eq!(info.colorimetry().to_string(), colorimetry);
        let plain = gst_video::VideoCapsBuilder::new()
            .width(1)
            .height(1)
            .build();
        assert_eq!(parse(&plain), None);
    }

    proptest! {
        #[test]
        fn text_comes_back(fourcc in proptest::sample::select(vec!["XR24", "NV12", "P010", "R8  "]), modifier: u64) {
            let number = u32::from_le_bytes(fourcc.as_bytes().try_into().unwrap());
            prop_assert_eq!(from_text(&to_text(number, modifier)), Some((number, modifier)));
        }
    }
}
