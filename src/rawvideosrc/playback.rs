// SPDX-License-Identifier: MPL-2.0
//! From what is known to what is played: the format that is still to be
//! negotiated, then the source of frames and their timeline.

use super::{
    pattern::Pattern,
    reader::{
        FrameIndex, FrameReader, FrameSource, PlainFile, ReadError, Route,
        open::{MAX_FRAME_BYTES, OpenError, Opened, guess_layout},
    },
    settings::Settings,
    timeline::{Passes, Timeline},
};
use std::path::Path;

/// Size and rate of a picture that nobody has an opinion about.
const DEFAULT_SIZE: (i32, i32) = (640, 480);
const PATTERN_RATE: gst::Fraction = gst::Fraction::new_raw(30, 1);
/// As rawvideoparse has it.
const FILE_RATE: gst::Fraction = gst::Fraction::new_raw(25, 1);

/// Why there is nothing to play.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Neither the user nor downstream said it.
    #[error(
        "{} of \"{location}\" not known: set the properties, or put a capsfilter behind", missing.join(", ")
    )]
    Missing {
        /// The file.
        location: String,
        /// Names of the properties.
        missing: Vec<&'static str>,
    },
    /// A format that has no planes.
    #[error(
        "format {format} is no raw video format: choose one that gst-inspect-1.0 rawvideosrc lists"
    )]
    Format {
        /// Its name.
        format: String,
    },
    /// GstVideoInfo refuses the size, or no system call could read it.
    #[error(
        "a frame of {width}x{height} {format} is larger than the {MAX_FRAME_BYTES} bytes that can be read at once: check width and height"
    )]
    TooLarge {
        /// Pixels across.
        width: i32,
        /// Pixels down.
        height: i32,
        /// Name of the format.
        format: String,
    },
    /// The pattern cannot be drawn in that format.
    #[error(transparent)]
    Draw(#[from] ReadError),
}

/// What is played, before the caps are known.
#[derive(Debug)]
pub struct Input {
    settings: Settings,
    file: Option<Opened>,
}

/// What is played, with everything known.
pub struct Playback {
    /// Writes the frames; absent while it does.
    pub source: Option<Box<dyn FrameSource>>,
    /// When they are shown.
    pub timeline: Timeline,
    /// Bytes of one frame as the source has it; the unit of BYTES seeks.
    pub frame_bytes: u64,
    /// What could not be played: a warning to log.
    pub leftover_bytes: u64,
}

impl Input {
    /// Opens the file, if there is one, and checks what can be checked without
    /// downstream.
    pub fn open(settings: Settings) -> Result<Self, SetupError> {
        use gst_video::VideoFormat;
        if matches!(
            settings.format,
            VideoFormat::Encoded | VideoFormat::__Unknown(_)
        ) {
            return Err(SetupError::Format {
                format: format_name(settings.format),
            });
        }
        let file = match &settings.location {
            Some(location) => Some(Opened::open(Path::new(location))?),
            None => None,
        };
        let input = Self { settings, file };
        let Settings {
            format,
            width,
            height,
            ..
        } = input.settings;
        if width > 0 && height > 0 && format != VideoFormat::Unknown {
            let info = frame_info(format, width, height)?;
            if let Some(file) = &input.file {
                file.count_frames(0, &guess_layout(&info, file.len_bytes))?;
            }
        }
        Ok(input)
    }

    /// Caps with all that the properties say, the rest open.
    pub fn caps(settings: &Settings, template: &gst::Caps) -> gst::Caps {
        let mut caps = template.clone();
        for structure in caps.make_mut().iter_mut() {
            if settings.format != gst_video::VideoFormat::Unknown {
                structure.set("format", settings.format.to_str());
            }
            if settings.width > 0 {
                structure.set("width", settings.width);
            }
            if settings.height > 0 {
                structure.set("height", settings.height);
            }
            if settings.framerate.numer() > 0 {
                structure.set("framerate", settings.framerate);
            }
        }
        caps
    }

    /// Chooses from what downstream takes. Size and format of a file cannot be
    /// chosen: if they are still open, that is an error.
    pub fn fixate(&self, mut caps: gst::Caps) -> Result<gst::Caps, SetupError> {
        caps.truncate();
        let caps_mut = caps.make_mut();
        let Some(structure) = caps_mut.structure_mut(0) else {
            return Ok(caps);
        };
        if let Some(location) = &self.settings.location {
            let missing: Vec<&str> = [
                ("format", structure.get::<&str>("format").is_err()),
                ("width", structure.get::<i32>("width").is_err()),
                ("height", structure.get::<i32>("height").is_err()),
            ]
            .into_iter()
            .filter_map(|(name, missing)| missing.then_some(name))
            .collect();
            if !missing.is_empty() {
                return Err(SetupError::Missing {
                    location: location.clone(),
                    missing,
                });
            }
            structure.fixate_field_nearest_fraction("framerate", FILE_RATE);
        } else {
            // The one that framebuffers have and that costs least to draw.
            structure.fixate_field_str("format", "BGRx");
            structure.fixate_field_nearest_int("width", DEFAULT_SIZE.0);
            structure.fixate_field_nearest_int("height", DEFAULT_SIZE.1);
            structure.fixate_field_nearest_fraction("framerate", PATTERN_RATE);
        }
        if structure.has_field("pixel-aspect-ratio") {
            structure.fixate_field_nearest_fraction("pixel-aspect-ratio", (1, 1));
        }
        if structure.has_field("interlace-mode") {
            structure.fixate_field_str("interlace-mode", "progressive");
        }
        caps.fixate();
        Ok(caps)
    }

    /// Ready to play in the format that was agreed on.
    pub fn play(&self, info: &gst_video::VideoInfo) -> Result<Playback, SetupError> {
        check_size(info, info.width() as i32, info.height() as i32)?;
        let fps = (info.fps().numer() as u32, info.fps().denom() as u32);
        let passes = match (self.settings.looping, self.settings.loop_count) {
            (false, _) => Passes::Times(1),
            (true, 0) => Passes::Endless,
            (true, count) => Passes::Times(count.into()),
        };
        let Some(opened) = &self.file else {
            return Ok(Playback {
                source: Some(Box::new(Pattern::new(info)?)),
                timeline: Timeline::new(fps, None, Passes::Endless),
                frame_bytes: info.size() as u64,
                leftover_bytes: 0,
            });
        };
        let layout = guess_layout(info, opened.len_bytes);
        let (frames, leftover_bytes) = opened.count_frames(0, &layout)?;
        let file = opened.file.try_clone().map_err(|source| OpenError::Other {
            path: opened.path.clone(),
            source,
        })?;
        Ok(Playback {
            source: Some(Box::new(FrameReader::new(
                PlainFile(file),
                FrameIndex::Regular {
                    start_bytes: 0,
                    step_bytes: layout.size_bytes as u64,
                },
                Route::new(layout, info, 1),
            )?)),
            timeline: Timeline::new(fps, Some(frames), passes),
            frame_bytes: layout.size_bytes as u64,
            leftover_bytes,
        })
    }

    /// Whether frames are drawn.
    pub fn is_pattern(&self) -> bool {
        self.file.is_none()
    }
}

impl Playback {
    /// A value of one format in another: TIME, DEFAULT (frames) or BYTES.
    pub fn convert(
        &self,
        value: gst::GenericFormattedValue,
        to: gst::Format,
    ) -> Option<gst::GenericFormattedValue> {
        use gst::{Format, GenericFormattedValue as Value};
        if value.format() == to {
            return Some(value);
        }
        let frame = match value {
            Value::Time(time) => self.timeline.frame_at(time?.nseconds()),
            Value::Default(frame) => *frame?,
            Value::Bytes(bytes) => *bytes? / self.frame_bytes,
            _ => return None,
        };
        Some(match to {
            Format::Time => Value::Time(
                self.timeline
                    .time_ns(frame)
                    .map(gst::ClockTime::from_nseconds),
            ),
            Format::Default => Value::Default(gst::format::Default::try_from(frame).ok()),
            Format::Bytes => Value::Bytes(
                frame
                    .checked_mul(self.frame_bytes)
                    .and_then(|bytes| gst::format::Bytes::try_from(bytes).ok()),
            ),
            _ => return None,
        })
    }

    /// The whole length; none where there is no end.
    pub fn total(&self, format: gst::Format) -> Option<gst::GenericFormattedValue> {
        let frames = gst::format::Default::try_from(self.timeline.total_frames()?).ok()?;
        let total = self.convert(frames.into(), format)?;
        (total.value() >= 0).then_some(total)
    }

    /// From where to where one can seek.
    pub fn seekable(
        &self,
        format: gst::Format,
    ) -> Option<(gst::GenericFormattedValue, gst::GenericFormattedValue)> {
        let start = self.convert(gst::format::Default::ZERO.into(), format)?;
        let end = self
            .total(format)
            .unwrap_or(gst::GenericFormattedValue::new(format, -1));
        Some((start, end))
    }
}

fn frame_info(
    format: gst_video::VideoFormat,
    width: i32,
    height: i32,
) -> Result<gst_video::VideoInfo, SetupError> {
    let info = gst_video::VideoInfo::builder(format, width as u32, height as u32)
        .build()
        .map_err(|_| SetupError::TooLarge {
            width,
            height,
            format: format_name(format),
        })?;
    check_size(&info, width, height)?;
    Ok(info)
}

fn check_size(info: &gst_video::VideoInfo, width: i32, height: i32) -> Result<(), SetupError> {
    if info.size() as u64 > MAX_FRAME_BYTES {
        return Err(SetupError::TooLarge {
            width,
            height,
            format: format_name(info.format()),
        });
    }
    Ok(())
}

fn format_name(format: gst_video::VideoFormat) -> String {
    match format {
        gst_video::VideoFormat::Encoded => "encoded".into(),
        gst_video::VideoFormat::__Unknown(number) => number.to_string(),
        format => format.to_str().to_string(),
    }
}
