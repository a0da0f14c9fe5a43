// SPDX-License-Identifier: MPL-2.0
//! What is known about the frames before the caps are negotiated, from the properties, a YUV4MPEG2
//! header or the file name.

use super::{
    errors::SetupError, guess::Guess, reader::open::MAX_FRAME_BYTES, settings::Settings, y4m,
};
use gst_video::{VideoFormat, VideoInterlaceMode};

/// Colorimetry of full-range YUV4MPEG2: the matrix is that of JPEG (BT.601).
const FULL_RANGE: &str = "1:4:0:0";

/// Fields of caps. `None` means that a field is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    pub format: Option<VideoFormat>,
    pub width: Option<i32>,
    pub height: Option<i32>,
    pub framerate: Option<gst::Fraction>,
    pub pixel_aspect_ratio: Option<gst::Fraction>,
    pub interlace_mode: Option<VideoInterlaceMode>,
    /// The field order. Used only if `interlace_mode` is interleaved.
    pub top_field_first: Option<bool>,
    pub colorimetry: Option<String>,
    pub chroma_site: Option<String>,
}

impl Known {
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

    pub fn from_header(header: &y4m::Header) -> Self {
        let fraction = |(numer, denom)| gst::Fraction::new(numer, denom);
        let colour = header.colour.unwrap_or_default();
        Self {
            format: Some(colour.format),
            width: Some(header.width),
            height: Some(header.height),
            framerate: header.framerate.map(fraction),
            pixel_aspect_ratio: header.pixel_aspect_ratio.map(fraction),
            interlace_mode: header.interlace_mode,
            top_field_first: header.top_field_first,
            colorimetry: header.full_range.then(|| FULL_RANGE.to_owned()),
            chroma_site: colour.chroma_site.map(str::to_owned),
        }
    }

    /// Fills in from `other` what is not known.
    pub fn or(self, other: Self) -> Self {
        let is_other_format = self.format.is_some() && self.format != other.format;
        // The chroma site of `other` is meant for the format of `other`.
        let other_site = other.chroma_site.filter(|_| !is_other_format);
        Self {
            format: self.format.or(other.format),
            width: self.width.or(other.width),
            height: self.height.or(other.height),
            framerate: self.framerate.or(other.framerate),
            pixel_aspect_ratio: self.pixel_aspect_ratio.or(other.pixel_aspect_ratio),
            interlace_mode: self.interlace_mode.or(other.interlace_mode),
            top_field_first: self.top_field_first.or(other.top_field_first),
            colorimetry: self.colorimetry.or(other.colorimetry),
            chroma_site: self.chroma_site.or(other_site),
        }
    }

    /// Fills in from the guess what is not known.
    pub fn or_guess(self, guess: Guess) -> Self {
        let fraction = |(numer, denom)| gst::Fraction::new(numer, denom);
        // A known width and a guessed height, or the reverse, would make a wrong size.
        let is_open = self.width.is_none() && self.height.is_none();
        let size = guess.size.filter(|_| is_open);
        let interlaced = guess
            .is_interlaced
            .then_some(VideoInterlaceMode::Interleaved);
        self.or(Self {
            format: guess.format,
            width: size.map(|(width, _)| width),
            height: size.map(|(_, height)| height),
            framerate: guess.framerate.map(fraction),
            interlace_mode: interlaced,
            ..Self::default()
        })
    }

    /// The video info; `None` if format, width or height is not known. Fails if a frame is too large.
    pub fn info(&self) -> Result<Option<gst_video::VideoInfo>, SetupError> {
        let (Some(format), Some(width), Some(height)) = (self.format, self.width, self.height)
        else {
            return Ok(None);
        };
        let info = gst_video::VideoInfo::builder(format, width as u32, height as u32)
            .build()
            .map_err(|_| SetupError::TooLarge {
                width,
                height,
                format: format.to_str().to_string(),
            })?;
        check_size(&info, info.size() as u64)?;
        Ok(Some(info))
    }

    /// The template, with each known field set.
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

/// Fails if a frame is larger than one system call can read.
pub fn check_size(info: &gst_video::VideoInfo, size_bytes: u64) -> Result<(), SetupError> {
    if size_bytes > MAX_FRAME_BYTES {
        return Err(SetupError::TooLarge {
            width: info.width() as i32,
            height: info.height() as i32,
            format: info.format().to_str().to_string(),
        });
    }
    Ok(())
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
        let guess = Guess {
            size: Some((640, 480)),
            format: Some(VideoFormat::Nv12),
            ..Guess::default()
        };
        let both = own.or_guess(guess);
        assert_eq!((both.width, both.height), (Some(100), None));
        assert_eq!(both.format, Some(VideoFormat::Nv12));
        let guessed = Known::default().or_guess(guess);
        assert_eq!((guessed.width, guessed.height), (Some(640), Some(480)));
    }

    #[test]
    fn properties_win_over_a_header_and_are_completed_by_it() {
        let header = y4m::Header::parse(b"YUV4MPEG2 W24 H10 F15:1 Ip A1:1 C420mpeg2\n").unwrap();
        let own = Known {
            width: Some(48),
            pixel_aspect_ratio: Some(gst::Fraction::new(4, 3)),
            interlace_mode: Some(VideoInterlaceMode::Interleaved),
            ..Known::default()
        };
        let both = own.or(Known::from_header(&header));
        assert_eq!((both.width, both.height), (Some(48), Some(10)));
        assert_eq!(both.pixel_aspect_ratio, Some(gst::Fraction::new(4, 3)));
        assert_eq!(both.interlace_mode, Some(VideoInterlaceMode::Interleaved));
        assert_eq!(both.framerate, Some(gst::Fraction::new(15, 1)));
        assert_eq!(both.chroma_site.as_deref(), Some("mpeg2"));
        let other = Known {
            format: Some(VideoFormat::Yv12),
            ..Known::default()
        };
        assert_eq!(other.or(Known::from_header(&header)).chroma_site, None);
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
