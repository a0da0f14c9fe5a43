// SPDX-License-Identifier: MPL-2.0
//! Streams whose buffers are single fields (`interlace-mode=alternate`): their caps, and which two fields make a frame. Pure.
//!
//! The kernel has no framebuffers of one field. Xilinx's has (DRM_MODE_FB_ALTERNATE_TOP), and its kmssink shows such
//! fields one by one; no other kernel knows the flag.

use gst_video::prelude::*;
use gst_video::{
    CAPS_FEATURE_FORMAT_INTERLACED, VideoBufferFlags, VideoFieldOrder, VideoInfo,
    VideoInterlaceMode,
};

/// These caps, which are of raw frames in plain memory, and then the same for frames of which each buffer holds one field.
pub fn also_fields(caps: &gst::Caps) -> gst::Caps {
    let mut all = caps.clone();
    let all_caps = all.make_mut();
    for (structure, features) in caps.iter_with_features() {
        let is_plain =
            features.is_empty() || features.contains(gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY);
        if is_plain {
            let mut structure = structure.to_owned();
            structure.set("interlace-mode", "alternate");
            let features = gst::CapsFeatures::new([CAPS_FEATURE_FORMAT_INTERLACED]);
            all_caps.append_structure_full(structure, Some(features));
        }
    }
    all
}

/// The fields of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    /// What each buffer holds.
    pub info: VideoInfo,
    /// The parity of each frame's first field, if the caps say so.
    pub begins_with: Option<Parity>,
}

/// What caps of raw video say of whole frames, and of the fields that the buffers hold, if they do.
pub fn parse(caps: &gst::CapsRef) -> Option<(VideoInfo, Option<Fields>)> {
    let info = VideoInfo::from_caps(caps).ok()?;
    if info.interlace_mode() != VideoInterlaceMode::Alternate {
        return Some((info, None));
    }
    let mut whole = caps.to_owned();
    let whole_mut = whole.make_mut();
    whole_mut
        .structure_mut(0)?
        .set("interlace-mode", "interleaved");
    whole_mut.set_features(0, None);
    let frame = VideoInfo::from_caps(&whole).ok()?;
    let begins_with = match info.field_order() {
        VideoFieldOrder::TopFieldFirst => Some(Parity::Top),
        VideoFieldOrder::BottomFieldFirst => Some(Parity::Bottom),
        _ => None,
    };
    Some((frame, Some(Fields { info, begins_with })))
}

/// Which rows of a frame a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// The first row and every second one after it.
    Top,
    Bottom,
}

impl Parity {
    /// What the flags of a buffer say: GST_VIDEO_BUFFER_FLAG_TOP_FIELD or BOTTOM_FIELD.
    pub fn of(buffer: &gst::BufferRef) -> Self {
        match buffer.video_flags().contains(VideoBufferFlags::TFF) {
            true => Self::Top,
            false => Self::Bottom,
        }
    }
}

/// Finds the pairs of fields that make a frame.
#[derive(Debug)]
pub struct Pairing<T> {
    /// The parity of each frame's first field, if that is known.
    begins_with: Option<Parity>,
    first: Option<(Parity, T)>,
}

impl<T> Pairing<T> {
    pub fn new(begins_with: Option<Parity>) -> Self {
        Self {
            begins_with,
            first: None,
        }
    }

    /// Takes a field. If it is the second one of a frame, returns both, the top field first. A field whose other half does
    /// not come, or has not come, is dropped.
    pub fn add(&mut self, parity: Parity, field: T) -> Option<[T; 2]> {
        match self.first.take() {
            Some((other, first)) if other != parity => Some(match parity {
                Parity::Top => [field, first],
                Parity::Bottom => [first, field],
            }),
            _ => {
                let begins = self.begins_with.is_none_or(|first| first == parity);
                self.first = begins.then_some((parity, field));
                None
            }
        }
    }

    /// Gives up the field that waits for the other one.
    pub fn forget(&mut self) -> Option<T> {
        self.first.take().map(|(_, field)| field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(text: &str) -> gst::Caps {
        gst::init().unwrap();
        text.parse().unwrap()
    }

    const FIELDS: &str = "video/x-raw(format:Interlaced),format=NV12,width=720,height=576,framerate=25/1,\
                          interlace-mode=alternate,field-order=top-field-first";

    #[test]
    fn a_frame_is_twice_as_high_as_its_fields() {
        let (frame, fields) = parse(&caps(FIELDS)).unwrap();
        let fields = fields.unwrap();
        assert_eq!((frame.width(), frame.height()), (720, 576));
        assert_eq!(frame.interlace_mode(), VideoInterlaceMode::Interleaved);
        assert_eq!(
            (fields.info.width(), fields.info.field_height()),
            (720, 288)
        );
        assert_eq!(frame.size(), 2 * fields.info.size());
        assert_eq!(frame.fps(), gst::Fraction::new(25, 1));
        assert_eq!(fields.begins_with, Some(Parity::Top));
        let whole = caps("video/x-raw,format=NV12,width=720,height=576,framerate=25/1");
        assert!(parse(&whole).unwrap().1.is_none());
    }

    #[test]
    fn fields_are_taken_in_plain_memory_alone() {
        let shown = "video/x-raw(memory:DMABuf),format=DMA_DRM;video/x-raw,format={NV12,BGRx}";
        let all = also_fields(&caps(shown));
        assert!(all.can_intersect(&caps(FIELDS)), "{all}");
        assert!(all.can_intersect(&caps("video/x-raw,format=NV12")));
        assert_eq!(all.size(), 3, "{all}");
        let other = FIELDS.replace("NV12", "YUY2");
        assert!(!all.can_intersect(&caps(&other)), "{all}");
    }

    #[test]
    fn the_flags_of_a_buffer_say_which_field_it_is() {
        gst::init().unwrap();
        let of = |flags: VideoBufferFlags| {
            let mut buffer = gst::Buffer::new();
            buffer.get_mut().unwrap().set_video_flags(flags);
            Parity::of(&buffer)
        };
        assert_eq!(of(VideoBufferFlags::TOP_FIELD), Parity::Top);
        assert_eq!(of(VideoBufferFlags::BOTTOM_FIELD), Parity::Bottom);
    }

    /// The frames that these fields make. Capital letters are top fields.
    fn frames(begins_with: Option<Parity>, fields: &str) -> Vec<String> {
        let mut pairing = Pairing::new(begins_with);
        let pairs = fields.chars().filter_map(|field| {
            let parity = match field.is_uppercase() {
                true => Parity::Top,
                false => Parity::Bottom,
            };
            pairing.add(parity, field)
        });
        pairs.map(String::from_iter).collect()
    }

    #[test]
    fn a_frame_is_the_next_two_fields_of_different_rows() {
        assert_eq!(frames(None, "AaBbCc"), ["Aa", "Bb", "Cc"]);
        assert_eq!(
            frames(None, "aAbB"),
            ["Aa", "Bb"],
            "the top field is given first"
        );
        assert_eq!(
            frames(None, "ABbcC"),
            ["Bb", "Cc"],
            "a lost field costs one frame"
        );
    }

    #[test]
    fn with_a_known_order_no_frame_is_made_of_halves_of_two() {
        assert_eq!(frames(Some(Parity::Top), "aBbC"), ["Bb"]);
        assert_eq!(frames(Some(Parity::Bottom), "AbBCcD"), ["Bb", "Dc"]);
        assert_eq!(frames(Some(Parity::Top), "AaB"), ["Aa"]);
    }

    #[test]
    fn a_field_that_is_given_up_makes_no_frame() {
        let mut pairing = Pairing::new(None);
        assert!(pairing.add(Parity::Top, 1).is_none());
        assert_eq!(pairing.forget(), Some(1));
        assert!(pairing.add(Parity::Bottom, 2).is_none());
        assert_eq!(pairing.add(Parity::Top, 3), Some([3, 2]));
    }
}
