// SPDX-License-Identifier: MPL-2.0
//! What fixed caps say of the frames: their size and format, in DMA_DRM caps the fourcc and the modifier, and the
//! static HDR metadata. Pure.

use gst_video::VideoFormat;

use super::discovery::KmsPlane;
use super::dma_drm::{self, DmaDrm};
use super::fields::{self, Fields};
use super::format;
use super::hdr::StaticMetadata;

#[derive(Debug, Clone, PartialEq)]
pub struct FrameCaps {
    /// For memory that GStreamer has no format for, the format is [`VideoFormat::Encoded`], which has no planes.
    pub info: gst_video::VideoInfo,
    /// Set if each buffer holds one field of the frames that `info` describes (`interlace-mode=alternate`).
    pub fields: Option<Fields>,
    /// Set if these are DMA_DRM caps.
    pub dma_drm: Option<DmaDrm>,
    /// Zero if the caps have none.
    pub metadata: StaticMetadata,
}

impl FrameCaps {
    /// `None` if these are no caps of raw video.
    pub fn parse(caps: &gst::CapsRef) -> Option<Self> {
        let (info, fields, dma_drm) = match dma_drm::parse(caps) {
            Some((info, dma_drm)) => (info, None, Some(dma_drm)),
            None => {
                let (info, fields) = fields::parse(caps)?;
                (info, fields, None)
            }
        };
        Some(Self {
            info,
            fields,
            dma_drm,
            metadata: StaticMetadata::of(caps),
        })
    }

    #[cfg(test)]
    pub fn of_raw(info: gst_video::VideoInfo) -> Self {
        Self {
            info,
            fields: None,
            dma_drm: None,
            metadata: StaticMetadata::default(),
        }
    }

    pub fn modifier(&self) -> Option<u64> {
        self.dma_drm.map(|dma_drm| dma_drm.modifier)
    }

    /// Whether the samples lie in memory as GStreamer's format says. Otherwise only hardware can read them.
    pub fn is_plain(&self) -> bool {
        self.info.format() != VideoFormat::Encoded
            && self
                .modifier()
                .is_none_or(|modifier| modifier == dma_drm::LINEAR)
    }

    /// Whether a part of a frame can be copied to any place of another frame. That takes pixels of whole bytes.
    pub fn can_be_composed(&self) -> bool {
        self.is_plain() && self.info.format_info().pixel_stride()[0] > 0
    }

    /// The fourcc by which the plane shows such frames; `None` if it does not.
    pub fn fourcc_on(&self, plane: &KmsPlane) -> Option<u32> {
        let shown = |fourcc: &u32, modifier| plane.shows(*fourcc, modifier);
        match self.dma_drm {
            Some(DmaDrm { fourcc, modifier }) => {
                Some(fourcc).filter(|fourcc| shown(fourcc, modifier))
            }
            None => {
                format::fourccs_of(self.info.format()).find(|fourcc| shown(fourcc, dma_drm::LINEAR))
            }
        }
    }

    /// The format for people: "NV12", or the `drm-format` of DMA_DRM caps.
    pub fn format_name(&self) -> String {
        match self.dma_drm {
            Some(DmaDrm { fourcc, modifier }) => dma_drm::to_text(fourcc, modifier),
            None => self.info.format().to_str().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmsflipsink::discovery::PlaneKind;
    use crate::kmsflipsink::format::fourcc;

    fn parsed(caps: &str) -> FrameCaps {
        gst::init().unwrap();
        FrameCaps::parse(&caps.parse::<gst::Caps>().unwrap()).unwrap()
    }

    fn plane(pairs: &[(&[u8; 4], u64)]) -> KmsPlane {
        KmsPlane {
            id: 1,
            kind: PlaneKind::Primary,
            possible_crtcs: 1,
            fourccs: pairs.iter().map(|(name, _)| fourcc(name)).collect(),
            in_formats: pairs.iter().map(|&(name, m)| (fourcc(name), m)).collect(),
            crtc: None,
            is_taken: false,
        }
    }

    #[test]
    fn raw_frames_are_shown_by_the_best_fourcc_that_the_plane_shows_linearly() {
        let caps = parsed("video/x-raw,format=BGRA64_LE,width=4,height=4");
        for (pairs, chosen) in [
            (&[(b"XR48", 0), (b"AR48", 0)][..], Some(b"AR48")),
            (&[(b"XR48", 0), (b"AR48", 7)][..], Some(b"XR48")),
            (&[(b"XR24", 0), (b"AR48", 7)][..], None),
        ] {
            assert_eq!(caps.fourcc_on(&plane(pairs)), chosen.map(fourcc));
        }
        assert!(caps.is_plain() && caps.can_be_composed());
        assert_eq!(caps.format_name(), "BGRA64_LE");
    }

    #[test]
    fn frames_of_a_fourcc_that_gstreamer_does_not_know_are_shown_and_never_copied() {
        let caps = parsed(
            "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=Q410,width=64,height=4,framerate=30/1",
        );
        assert_eq!(caps.info.format(), VideoFormat::Encoded);
        assert_eq!((caps.info.width(), caps.info.n_planes()), (64, 0));
        assert!(!caps.is_plain() && !caps.can_be_composed());
        assert_eq!(caps.format_name(), "Q410");
        let shown = plane(&[(b"Q410", 0)]);
        assert_eq!(caps.fourcc_on(&shown), Some(fourcc(b"Q410")));
        assert_eq!(caps.fourcc_on(&plane(&[(b"Q410", 1)])), None);
    }

    #[test]
    fn packed_pixels_and_tiles_cannot_be_composed() {
        let packed = parsed("video/x-raw,format=NV12_10LE40,width=64,height=4");
        assert!(packed.is_plain() && !packed.can_be_composed());
        let tiled = parsed(
            "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=NV12:0x0100000000000002,width=64,height=4",
        );
        assert!(!tiled.is_plain() && !tiled.can_be_composed());
        assert_eq!(tiled.info.format(), VideoFormat::Nv12);
    }
}
