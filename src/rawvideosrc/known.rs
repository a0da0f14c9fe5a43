// SPDX-License-Identifier: MPL-2.0
//! What is known of the pictures before the caps are negotiated, from the
//! properties, a YUV4MPEG2 header or the file's name.

use super::{guess::Guess, settings::Settings, y4m};
use gst_video::{VideoFormat, VideoInterlaceMode};

/// As yuv4mpeg's full range goes with the matrix of JPEG.
const FULL_RANGE: &str = "1:4:0:0";

/// Fields of caps; those that are absent are open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Of the pictures.
    pub format: Option<VideoFormat>,
    /// Pixels across.
    pub width: Option<i32>,
    /// Pixels down.
    pub height: Option<i32>,
    /// Frames a second.
    pub framerate: Option<gst::Fraction>,
    /// Of a pixel.
    pub pixel_aspect_ratio: Option<gst::Fraction>,
    /// How fields are stored.
    pub interlace_mode: Option<VideoInterlaceMode>,
    /// Of interlaced pictures.
    pub top_field_first: Option<bool>,
    /// As caps have it.
    pub colorimetry: Option<String>,
    /// As caps have it.
    pub chroma_site: Option<String>,
}

impl Known {
    /// What the properties say.
    pub fn from_settings(settings: &Settings) -> Self {
        let fraction = |value: gst::Fraction| (value.numer() > 0).then_some(value);
        Self {
            format: (settings.format != VideoFormat::Unknown).then_some(settings.format),
            width: (settings.width > 0).then_some(settings.width),
            height: (settings.height > 0).then_some(settings.height),
            framerate: fraction(settings.framerate),
            pixel_aspect_ratio: fraction(settings.pixel_aspect_ratio),
            interlace_mode: settings
                .interlaced
                .then_some(VideoInterlaceMode::Interleaved),
            top_field_first: settings.interlaced.then_some(settings.top_field_first),
            colorimetry: settings.colorimetry.clone(),
            chroma_site: None,
        }
    }

    /// What a YUV4MPEG2 header says.
    pub fn from_header(header: &y4m::Header) -> Self {
        let fraction = |(numer, denom)| gst::Fraction::new(numer, denom);
        Self {
            format: Some(header.format),
            width: Some(header.width),
            height: Some(header.height),
            framerate: header.framerate.map(fraction),
            pixel_aspect_ratio: header.pixel_aspect_ratio.map(fraction),
            interlace_mode: Some(header.interlace_mode),
            top_field_first: header.top_field_first,
            colorimetry: header.full_range.then(|| FULL_RANGE.to_owned()),
            chroma_site: header.chroma_site.map(str::to_owned),
        }
    }

    /// What a name gives away.
    pub fn from_guess(guess: &Guess) -> Self {
        let fraction = |(numer, denom)| gst::Fraction::new(numer, denom);
        Self {
            format: guess.format,
            width: guess.size.map(|(width, _)| width),
            height: guess.size.map(|(_, height)| height),
            framerate: guess.framerate.map(fraction),
            ..Self::default()
        }
    }

    /// Fills the gaps from another source.
    pub fn or(self, other: Self) -> Self {
        // Half a size would make a wrong one.
        let (width, height) = match (self.width, self.height) {
            (None, None) => (other.width, other.height),
            own => own,
        };
        Self {
            format: self.format.or(other.format),
            width,
            height,
            framerate: self.framerate.or(other.framerate),
            pixel_aspect_ratio: self.pixel_aspect_ratio.or(other.pixel_aspect_ratio),
            interlace_mode: self.interlace_mode.or(other.interlace_mode),
            top_field_first: self.top_field_first.or(other.top_field_first),
            colorimetry: self.colorimetry.or(other.colorimetry),
            chroma_site: self.chroma_site.or(other.chroma_site),
        }
    }

    /// The template with all that is known set.
    pub fn caps(&self, template: &gst::Caps) -> gst::Caps {
        let mut caps = template.clone();
        for structure in caps.make_mut().iter_mut() {
            structure.set_if_some("format", self.format.map(|format| format.to_str()));
            structure.set_if_some("width", self.width);
            structure.set_if_some("height", self.height);
            structure.set_if_some("framerate", self.framerate);
            structure.set_if_some("pixel-aspect-ratio", self.pixel_aspect_ratio);
            structure.set_if_some(
                "interlace-mode",
                self.interlace_mode.map(|mode| mode.to_str()),
            );
            if self.interlace_mode == Some(VideoInterlaceMode::Interleaved) {
                let order = |top_first| match top_first {
                    true => "top-field-first",
                    false => "bottom-field-first",
                };
                structure.set_if_some("field-order", self.top_field_first.map(order));
            }
            structure.set_if_some("colorimetry", self.colorimetry.as_deref());
            structure.set_if_some("chroma-site", self.chroma_site.as_deref());
        }
        caps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_alone_is_not_completed_by_the_height_of_a_name() {
        let own = Known {
            width: Some(100),
            ..Known::default()
        };
        let other = Known {
            width: Some(640),
            height: Some(480),
            format: Some(VideoFormat::Nv12),
            ..Known::default()
        };
        let both = own.or(other.clone());
        assert_eq!((both.width, both.height), (Some(100), None));
        assert_eq!(both.format, Some(VideoFormat::Nv12));
        assert_eq!(Known::default().or(other.clone()), other);
    }

    #[test]
    fn interlaced_settings_become_caps() {
        gst::init().unwrap();
        let settings = Settings {
            interlaced: true,
            top_field_first: true,
            colorimetry: Some("bt709".into()),
            ..Settings::default()
        };
        let template = gst::Caps::new_empty_simple("video/x-raw");
        let caps = Known::from_settings(&settings).caps(&template);
        let structure = caps.structure(0).unwrap();
        assert_eq!(structure.get::<&str>("interlace-mode"), Ok("interleaved"));
        assert_eq!(structure.get::<&str>("field-order"), Ok("top-field-first"));
        assert_eq!(structure.get::<&str>("colorimetry"), Ok("bt709"));
        assert!(!structure.has_field("width"));
    }
}
