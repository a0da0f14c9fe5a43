// SPDX-License-Identifier: MPL-2.0
//! What is to be played, from the properties to the moment when the caps are
//! known: opened, looked into, and checked as far as that goes.

use super::{
    guess::Guess,
    known::Known,
    reader::{
        FrameIndex, ReadError, StreamInput,
        open::{MAX_FRAME_BYTES, OpenError, Opened, Opening, guess_layout},
    },
    sequence::Sequence,
    settings::Settings,
    source::Source,
    waker::Waker,
    y4m::{self, Header, Y4mError},
};
use crate::layout::{FrameLayout, LayoutError};
use gst_video::VideoFormat;
use std::{
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Size and rate of a picture that nobody has an opinion about.
const DEFAULT_SIZE: (i32, i32) = (640, 480);
const PATTERN_RATE: gst::Fraction = gst::Fraction::new_raw(30, 1);
/// As rawvideoparse has it.
const FILE_RATE: gst::Fraction = gst::Fraction::new_raw(25, 1);
/// Frame headers looked at before all others are believed to be as short.
const HEADERS_TRIED: u64 = 64;

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
    /// Strides, offsets or frame size that make no sense.
    #[error("plane-strides, plane-offsets or frame-size do not fit {format}: {source}")]
    Layout {
        /// Name of the format.
        format: String,
        /// What does not fit.
        source: LayoutError,
    },
    /// A YUV4MPEG2 file that is broken.
    #[error("\"{}\" is YUV4MPEG2, but {source}", path.display())]
    Y4m {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Y4mError,
    },
    /// A location with a number that no file has.
    #[error("no file \"{location}\": check the directory, and the digits between % and d")]
    NoFiles {
        /// The pattern.
        location: String,
    },
    /// The frames to play are none of the file's.
    #[error(
        "start-frame {start} and stop-frame {stop} leave nothing of the {frames} frames of \"{location}\""
    )]
    Range {
        /// First one asked for.
        start: u64,
        /// Last one asked for.
        stop: i64,
        /// In the file.
        frames: u64,
        /// The file.
        location: String,
    },
    /// The file cannot be read in the way that was asked for.
    #[error("\"{location}\" cannot be read with io-mode={mode}: {why}; use io-mode=auto")]
    Mode {
        /// The file.
        location: String,
        /// The nick of the mode.
        mode: &'static str,
        /// The reason.
        why: String,
    },
    /// The pattern cannot be drawn, or the reader cannot start.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Where the frames are.
#[derive(Debug)]
pub enum Body {
    /// Nowhere: they are drawn.
    Pattern,
    /// In a file that can be read at any place.
    File(Opened),
    /// In many files.
    Files {
        /// Their names.
        sequence: Sequence,
        /// Number of the first.
        first: u64,
        /// How many there are.
        count: u64,
        /// The first of them, whose size is that of all.
        opened: Opened,
    },
    /// In a pipe. Taken by the reader, which gives it back.
    Stream(Option<StreamInput>),
}

/// What is played, before the caps are known.
#[derive(Debug)]
pub struct Input {
    /// As they were at start.
    pub settings: Settings,
    /// Where the frames are.
    pub body: Body,
    /// Of a YUV4MPEG2 file.
    pub header: Option<Header>,
    known: Known,
    /// What was guessed, to be logged.
    pub notes: Vec<String>,
    /// A stream whose first bytes have not been looked at.
    pub is_unprobed: bool,
}

/// Frames of a file: where, and how many.
#[derive(Debug)]
pub struct Counted {
    /// Where they begin.
    pub index: FrameIndex,
    /// How many there are.
    pub frames: u64,
    /// Bytes at the end that are no whole frame.
    pub leftover_bytes: u64,
}

impl Input {
    /// Opens what there is to open and checks what can be checked without
    /// downstream.
    pub fn open(settings: Settings, waker: &Arc<Waker>) -> Result<Self, SetupError> {
        if matches!(
            settings.format,
            VideoFormat::Encoded | VideoFormat::__Unknown(_)
        ) {
            return Err(SetupError::Format {
                format: format_name(settings.format),
            });
        }
        let body = match &settings.location {
            None => Body::Pattern,
            Some(location) => open_body(location, waker)?,
        };
        let mut input = Self {
            known: Known::from_settings(&settings),
            is_unprobed: matches!(body, Body::Stream(_)),
            settings,
            body,
            header: None,
            notes: Vec::new(),
        };
        if let Body::File(opened) | Body::Files { opened, .. } = &input.body {
            let header = read_header(opened)?;
            input.take_header(header);
        }
        if input.header.is_none() {
            input.guess();
        }
        if let Known {
            format: Some(format),
            width: Some(width),
            height: Some(height),
            ..
        } = input.known
        {
            let info = frame_info(format, width, height)?;
            let layout = input.layout(&info)?;
            if let Body::File(opened) | Body::Files { opened, .. } = &input.body {
                input.count(opened, &layout)?;
            }
        }
        Ok(input)
    }

    /// Looks at the first bytes of a stream: whether they are a YUV4MPEG2 header,
    /// and which. None if the waker ended the wait.
    pub fn probe(
        stream: &mut StreamInput,
        location: &str,
    ) -> Result<Option<Option<Header>>, SetupError> {
        let path = PathBuf::from(location);
        let failed = |source| OpenError::Other {
            path: path.clone(),
            source,
        };
        let Some(start) = stream.peek(y4m::MAGIC.len() + 1).map_err(failed)? else {
            return Ok(None);
        };
        if !y4m::is_y4m(&start) {
            return Ok(Some(None));
        }
        let line = stream.take_line(y4m::MAX_HEADER_BYTES).map_err(failed)?;
        let Some(line) = line else { return Ok(None) };
        let header = Header::parse(&line).map_err(|source| SetupError::Y4m { path, source })?;
        Ok(Some(Some(header)))
    }

    /// The stream, to be probed without any lock.
    pub fn take_stream(&mut self) -> Option<StreamInput> {
        match &mut self.body {
            Body::Stream(stream) => stream.take(),
            _ => None,
        }
    }

    /// The stream is back.
    pub fn give_stream(&mut self, stream: StreamInput) {
        self.body = Body::Stream(Some(stream));
    }

    /// The stream is not needed by a reader any more.
    pub fn take_back(&mut self, source: Option<Source>) {
        if let Some(stream) = source.and_then(Source::into_stream) {
            self.give_stream(stream);
        }
    }

    /// What was found at the beginning of a stream.
    pub fn take_probe(&mut self, header: Option<Header>) {
        self.take_header(header);
        self.is_unprobed = false;
    }

    /// Whether one can go to any frame.
    pub fn is_seekable(&self) -> bool {
        !matches!(self.body, Body::Stream(_))
    }

    fn take_header(&mut self, header: Option<Header>) {
        let Some(header) = header else { return };
        let own = std::mem::take(&mut self.known);
        let framerate = own.framerate;
        self.known = Known::from_header(&header).or(own);
        // The rate is often wrong in headers; a user who gives one means it.
        self.known.framerate = framerate.or(self.known.framerate);
        self.notes.push(format!("YUV4MPEG2: {header:?}"));
        self.header = Some(header);
    }

    fn guess(&mut self) {
        let Some(location) = &self.settings.location else {
            return;
        };
        let guess = Guess::from_path(Path::new(location));
        let completed = self.known.clone().or(Known::from_guess(&guess));
        if completed != self.known {
            self.notes.push(format!(
                "guessed from the name of \"{location}\": {guess:?}"
            ));
        }
        self.known = completed;
    }

    /// What the caps can be, as far as that is known.
    pub fn caps(&self, template: &gst::Caps) -> gst::Caps {
        self.known.caps(template)
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

    /// How frames are laid out in the file.
    pub fn layout(&self, info: &gst_video::VideoInfo) -> Result<FrameLayout, SetupError> {
        let Settings {
            frame_size, offset, ..
        } = self.settings;
        if self.header.is_some() {
            return Ok(FrameLayout::packed(info));
        }
        let data_bytes = match &self.body {
            Body::File(opened) | Body::Files { opened, .. } => {
                opened.len_bytes.saturating_sub(offset)
            }
            Body::Pattern | Body::Stream(_) => 0,
        };
        let (strides, offsets) = (self.settings.strides(), self.settings.offsets());
        let frame_size = frame_size as usize;
        if strides.is_empty() && offsets.is_empty() {
            let guessed = guess_layout(info, data_bytes);
            let packed = FrameLayout::packed(info);
            match frame_size {
                0 => return Ok(guessed),
                // Too small for GStreamer's padding, but not for the picture.
                size if size < guessed.size_bytes && size >= packed.size_bytes => {
                    return Ok(FrameLayout {
                        size_bytes: size,
                        ..packed
                    });
                }
                _ => {}
            }
        }
        let layout =
            FrameLayout::custom(info, &strides, &offsets, frame_size).map_err(|source| {
                SetupError::Layout {
                    format: format_name(info.format()),
                    source,
                }
            })?;
        check_size(info, layout.size_bytes as u64)?;
        Ok(layout)
    }

    /// Finds the frames of a file.
    pub fn count(&self, opened: &Opened, layout: &FrameLayout) -> Result<Counted, SetupError> {
        if let Some(header) = &self.header {
            let frame_bytes = layout.size_bytes as u64;
            return count_y4m(opened, header, frame_bytes).map_err(|error| match error {
                CountError::Io(source) => SetupError::Open(OpenError::Other {
                    path: opened.path.clone(),
                    source,
                }),
                CountError::Y4m(source) => SetupError::Y4m {
                    path: opened.path.clone(),
                    source,
                },
            });
        }
        let start_bytes = self.settings.offset;
        let index = FrameIndex::Regular {
            start_bytes,
            step_bytes: layout.size_bytes as u64,
        };
        let (frames, leftover_bytes) = if self.settings.follow {
            (0, 0)
        } else {
            opened.count_frames(start_bytes, layout)?
        };
        Ok(Counted {
            index,
            frames,
            leftover_bytes,
        })
    }

    /// The frames to play of so many: the first, and how many.
    pub fn range(&self, frames: u64) -> Result<(u64, u64), SetupError> {
        let Settings {
            start_frame,
            stop_frame,
            ..
        } = self.settings;
        let end = match u64::try_from(stop_frame) {
            Ok(stop) => frames.min(stop.saturating_add(1)),
            Err(_) => frames,
        };
        match end.checked_sub(start_frame) {
            Some(count @ 1..) => Ok((start_frame, count)),
            _ => Err(SetupError::Range {
                start: start_frame,
                stop: stop_frame,
                frames,
                location: self.settings.location.clone().unwrap_or_default(),
            }),
        }
    }
}

fn open_body(location: &str, waker: &Arc<Waker>) -> Result<Body, SetupError> {
    let path = Path::new(location);
    if let Some(sequence) = Sequence::parse(location).filter(|_| !path.exists()) {
        let no_files = || SetupError::NoFiles {
            location: location.to_owned(),
        };
        let (first, count) = sequence
            .find()
            .map_err(|_| no_files())?
            .ok_or_else(no_files)?;
        return match Opened::open(&sequence.path(first))? {
            Opening::File(opened) => Ok(Body::Files {
                sequence,
                first,
                count,
                opened,
            }),
            Opening::Stream(_) => Err(no_files()),
        };
    }
    Ok(match Opened::open(path)? {
        Opening::File(opened) => Body::File(opened),
        Opening::Stream(file) => Body::Stream(Some(StreamInput::new(file, waker.clone()))),
    })
}

fn read_header(opened: &Opened) -> Result<Option<Header>, SetupError> {
    let mut bytes = vec![0; y4m::MAX_HEADER_BYTES];
    let failed = |source| OpenError::Other {
        path: opened.path.clone(),
        source,
    };
    let len = read_some_at(&opened.file, &mut bytes, 0).map_err(failed)?;
    if !y4m::is_y4m(&bytes[..len]) {
        return Ok(None);
    }
    let header = Header::parse(&bytes[..len]).map_err(|source| SetupError::Y4m {
        path: opened.path.clone(),
        source,
    })?;
    Ok(Some(header))
}

fn read_some_at(file: &std::fs::File, to: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < to.len() {
        match file.read_at(&mut to[len..], at + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

enum CountError {
    Io(io::Error),
    Y4m(Y4mError),
}

impl From<io::Error> for CountError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Finds the frames behind their headers. Those are as short as can be in nearly
/// every file; where a few samples say otherwise, each one is looked at.
fn count_y4m(opened: &Opened, header: &Header, frame_bytes: u64) -> Result<Counted, CountError> {
    let start = header.len_bytes as u64;
    let step_bytes = y4m::FRAME.len() as u64 + frame_bytes;
    let data_bytes = opened.len_bytes.saturating_sub(start);
    let frames = data_bytes / step_bytes;
    let is_frame = |n: u64| -> io::Result<bool> {
        let mut bytes = [0; y4m::FRAME.len()];
        let len = read_some_at(&opened.file, &mut bytes, start + n * step_bytes)?;
        Ok(bytes[..len] == *y4m::FRAME)
    };
    let mut is_regular = true;
    let stride = frames.div_ceil(HEADERS_TRIED).max(1);
    for n in (0..frames)
        .step_by(stride as usize)
        .chain(frames.checked_sub(1))
    {
        is_regular &= is_frame(n)?;
    }
    if is_regular {
        return Ok(Counted {
            index: FrameIndex::Regular {
                start_bytes: start + y4m::FRAME.len() as u64,
                step_bytes,
            },
            frames,
            leftover_bytes: data_bytes % step_bytes,
        });
    }
    let mut starts = Vec::new();
    let mut at = start;
    while at < opened.len_bytes {
        let mut bytes = [0; 256];
        let len = read_some_at(&opened.file, &mut bytes, at)?;
        let picture = match y4m::frame_header_bytes(&bytes[..len]) {
            Ok(Some(header_bytes)) => at + header_bytes as u64,
            Ok(None) => return Err(CountError::Y4m(Y4mError::NoFrame(at))),
            Err(_) => break,
        };
        if picture + frame_bytes > opened.len_bytes {
            break;
        }
        starts.push(picture);
        at = picture + frame_bytes;
    }
    Ok(Counted {
        frames: starts.len() as u64,
        leftover_bytes: opened.len_bytes - at,
        index: FrameIndex::Listed(starts),
    })
}

fn frame_info(
    format: VideoFormat,
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
    check_size(&info, info.size() as u64)?;
    Ok(info)
}

/// Whether a frame can be read at once.
pub fn check_size(info: &gst_video::VideoInfo, size_bytes: u64) -> Result<(), SetupError> {
    if size_bytes > MAX_FRAME_BYTES {
        return Err(SetupError::TooLarge {
            width: info.width() as i32,
            height: info.height() as i32,
            format: format_name(info.format()),
        });
    }
    Ok(())
}

fn format_name(format: VideoFormat) -> String {
    match format {
        VideoFormat::Encoded => "encoded".into(),
        VideoFormat::__Unknown(number) => number.to_string(),
        format => format.to_str().to_string(),
    }
}
