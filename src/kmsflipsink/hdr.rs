// SPDX-License-Identifier: MPL-2.0
//! Static HDR metadata, and the blob of the connector property HDR_OUTPUT_METADATA that tells a display of it. Pure.

use gst_video::{VideoContentLightLevel, VideoMasteringDisplayInfo, VideoTransferFunction};

/// How the display makes light of the samples (electro-optical transfer function), if that is not the way of SDR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eotf {
    /// SMPTE ST 2084, of HDR10.
    Pq,
    /// ARIB STD-B67.
    Hlg,
}

impl Eotf {
    /// `None` for SDR.
    pub fn of(transfer: VideoTransferFunction) -> Option<Self> {
        match transfer {
            VideoTransferFunction::Smpte2084 => Some(Self::Pq),
            VideoTransferFunction::AribStdB67 => Some(Self::Hlg),
            _ => None,
        }
    }

    /// The number by which CTA-861 knows it (`enum hdmi_eotf`).
    pub fn code(self) -> u8 {
        match self {
            Self::Pq => 2,
            Self::Hlg => 3,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pq => "PQ",
            Self::Hlg => "HLG",
        }
    }
}

/// Static metadata type 1 of CTA-861, in its units. Zero means unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StaticMetadata {
    /// CIE 1931 x and y of red, green and blue, in 0.00002.
    primaries: [[u16; 2]; 3],
    /// The same of white.
    white_point: [u16; 2],
    /// The brightest that the mastering display can show, in cd/m2.
    max_luminance: u16,
    /// The darkest, in 0.0001 cd/m2.
    min_luminance: u16,
    /// The brightest pixel of the content, in cd/m2.
    max_cll: u16,
    /// The highest average of a frame, in cd/m2.
    max_fall: u16,
}

/// The size of `struct hdr_output_metadata`.
pub const BLOB_BYTES: usize = 32;

impl StaticMetadata {
    /// What the fields `mastering-display-info` and `content-light-level` say.
    pub fn of(caps: &gst::CapsRef) -> Self {
        let mut all = Self::default();
        if let Ok(mastering) = VideoMasteringDisplayInfo::from_caps(caps) {
            // Both luminances have the unit of the minimum.
            const PER_NIT: u32 = 10_000;
            let point = |x: f32, y: f32| [x, y].map(|value| (value * 50_000.0).round() as u16);
            let [red, green, blue] = mastering.display_primaries();
            all.primaries = [red, green, blue].map(|primary| point(primary.x(), primary.y()));
            let white = mastering.white_point();
            all.white_point = point(white.x(), white.y());
            let max_nits = mastering
                .max_display_mastering_luminance()
                .div_ceil(PER_NIT);
            all.max_luminance = u16::try_from(max_nits).unwrap_or(u16::MAX);
            let min = mastering.min_display_mastering_luminance();
            all.min_luminance = u16::try_from(min).unwrap_or(u16::MAX);
        }
        if let Ok(light) = VideoContentLightLevel::from_caps(caps) {
            all.max_cll = light.max_content_light_level();
            all.max_fall = light.max_frame_average_light_level();
        }
        all
    }

    /// A `struct hdr_output_metadata` (drm_mode.h).
    pub fn blob(&self, eotf: Eotf) -> [u8; BLOB_BYTES] {
        /// HDMI_STATIC_METADATA_TYPE1, which the struct has twice: for itself and in the infoframe.
        const TYPE1: u8 = 0;
        let points = self.primaries.iter().chain([&self.white_point]);
        let levels = [
            self.max_luminance,
            self.min_luminance,
            self.max_cll,
            self.max_fall,
        ];
        let words = points.flatten().chain(&levels);
        let mut blob = [0; BLOB_BYTES];
        blob[..4].copy_from_slice(&u32::from(TYPE1).to_ne_bytes());
        (blob[4], blob[5]) = (eotf.code(), TYPE1);
        for (place, word) in blob[6..].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        blob
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &str) -> StaticMetadata {
        gst::init().unwrap();
        let caps: gst::Caps = format!("video/x-raw{fields}").parse().unwrap();
        StaticMetadata::of(&caps)
    }

    /// The words of the kernel's struct, at the offsets that a C compiler gives its members.
    fn word(blob: &[u8], offset: usize) -> u16 {
        u16::from_ne_bytes(blob[offset..][..2].try_into().unwrap())
    }

    #[test]
    fn the_blob_is_the_struct_of_the_kernel() {
        // The example of GStreamer's documentation of GstVideoMasteringDisplayInfo: BT.2020, D65, 1000 cd/m2.
        let metadata = of(
            ",mastering-display-info=(string)35400:14600:8500:39850:6550:2300:15635:16450:10000000:1,\
             content-light-level=(string)1000:400",
        );
        let blob = metadata.blob(Eotf::Pq);
        assert_eq!(blob.len(), size_of::<drm_ffi::hdr_output_metadata>());
        assert_eq!(blob[..4], [0; 4], "metadata_type: type 1 is 0");
        assert_eq!(blob[4], 2, "eotf: SMPTE ST 2084");
        assert_eq!(blob[5], 0, "Static_Metadata_Descriptor_ID");
        for (offset, value, name) in [
            (6, 35400, "display_primaries[0].x, red, in 0.00002"),
            (8, 14600, "display_primaries[0].y"),
            (10, 8500, "display_primaries[1].x, green"),
            (12, 39850, "display_primaries[1].y"),
            (14, 6550, "display_primaries[2].x, blue"),
            (16, 2300, "display_primaries[2].y"),
            (18, 15635, "white_point.x"),
            (20, 16450, "white_point.y"),
            (22, 1000, "max_display_mastering_luminance, in 1 cd/m2"),
            (24, 1, "min_display_mastering_luminance, in 0.0001 cd/m2"),
            (26, 1000, "max_cll"),
            (28, 400, "max_fall"),
            (30, 0, "padding"),
        ] {
            assert_eq!(word(&blob, offset), value, "{name}");
        }
    }

    #[test]
    fn what_the_caps_do_not_say_is_zero_and_what_does_not_fit_is_the_most() {
        let unknown = of("").blob(Eotf::Hlg);
        assert_eq!((unknown[4], &unknown[5..]), (3, &[0; 27][..]));
        let bright = of(
            ",mastering-display-info=(string)35400:14600:8500:39850:6550:2300:15635:16450:4000000000:70000",
        );
        let blob = bright.blob(Eotf::Pq);
        assert_eq!((word(&blob, 22), word(&blob, 24)), (65535, 65535));
    }

    #[test]
    fn only_two_transfer_functions_are_hdr() {
        for (colorimetry, eotf) in [
            ("bt2100-pq", Some(Eotf::Pq)),
            ("bt2100-hlg", Some(Eotf::Hlg)),
            ("bt2020-10", None),
            ("bt709", None),
        ] {
            gst::init().unwrap();
            let colorimetry: gst_video::VideoColorimetry = colorimetry.parse().unwrap();
            assert_eq!(Eotf::of(colorimetry.transfer()), eotf);
        }
    }
}
