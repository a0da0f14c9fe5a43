// SPDX-License-Identifier: MPL-2.0
//! The input before the caps are known: opens it, reads its header, and checks what can be
//! checked without caps.

use super::{
    buffer_source::BufferSource,
    count::{self, FrameCount, read_header},
    cpus::Cpus,
    errors::SetupError,
    file_layout::{self, Data, FileLayout},
    guess::Guess,
    known::{Known, check_size},
    reader::{
        StreamInput,
        open::{OpenError, Opened, Opening},
    },
    sequence::Sequence,
    settings::Settings,
    uri,
    waker::Waker,
    y4m::{self, Header},
};
use crate::layout::Layout;
use gst_video::VideoFormat;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Size and frame rate of a test pattern if neither the properties nor downstream set them.
const DEFAULT_SIZE: (i32, i32) = (640, 480);
const PATTERN_RATE: gst::Fraction = gst::Fraction::new_raw(30, 1);
/// The frame rate of a file if nothing else sets it; rawvideoparse has the same default.
const FILE_RATE: gst::Fraction = gst::Fraction::new_raw(25, 1);

/// Where the frames are.
#[derive(Debug)]
pub enum Body {
    /// No file: the frames are drawn.
    Pattern,
    /// One file that can be read at any offset.
    File(Opened),
    /// Numbered files. `opened` is the first of them.
    Files {
        sequence: Sequence,
        first: u64,
        count: u64,
        opened: Opened,
    },
    /// A pipe. `None` while the reader has it.
    Stream(Option<StreamInput>),
}

/// The input, and what is known about its frames.
#[derive(Debug)]
pub struct Input {
    /// The properties at start, but `location` is a path, and `offset` includes the bytes of standard input
    /// that others read.
    pub settings: Settings,
    /// Where the threads that read the input run.
    pub cpus: Cpus,
    pub body: Body,
    /// The header, if the input is YUV4MPEG2.
    pub header: Option<Header>,
    known: Known,
    /// What the file name suggests. It counts only for what is not known.
    guess: Guess,
    /// What was found and guessed, for the log.
    pub notes: Vec<String>,
    /// The frames that were found, if they were, and the frame size in bytes that was assumed.
    frame_count: Option<(u64, FrameCount)>,
    /// [`Self::probe`] has to be called, which may take a while.
    pub is_unprobed: bool,
}

impl Input {
    /// Opens the input and checks what can be checked without downstream.
    pub fn open(settings: Settings, waker: &Arc<Waker>) -> Result<Self, SetupError> {
        if matches!(
            settings.format,
            VideoFormat::Encoded | VideoFormat::__Unknown(_)
        ) {
            return Err(SetupError::Format {
                format: format_name(settings.format),
            });
        }
        let cpus = Cpus::new(settings.cpus.as_deref()).map_err(|source| SetupError::Cpus {
            list: settings.cpus.clone().unwrap_or_default(),
            source,
        })?;
        let settings = Settings {
            location: settings.location.as_deref().map(path_of).transpose()?,
            ..settings
        };
        let body = match &settings.location {
            None => Body::Pattern,
            Some(location) => open_body(location, waker)?,
        };
        let mut input = Self {
            known: Known::from_settings(&settings),
            guess: Guess::default(),
            is_unprobed: matches!(body, Body::Stream(_)),
            settings,
            cpus,
            body,
            header: None,
            frame_count: None,
            notes: Vec::new(),
        };
        if let Body::File(opened) | Body::Files { opened, .. } = &input.body {
            let header = read_header(opened)?;
            input.take_header(header)?;
        }
        if input.header.is_none() {
            if let Body::File(opened) = &input.body {
                let offset = input.settings.offset;
                input.settings.offset = offset.saturating_add(opened.start_bytes);
            }
            input.guess()?;
        }
        input.check()?;
        Ok(input)
    }

    /// Checks what can be checked without caps and without reading each frame header.
    fn check(&mut self) -> Result<(), SetupError> {
        let Some(info) = self.known.info()? else {
            return Ok(());
        };
        let layout = self.layout(&info)?.layout;
        let Body::File(opened) = &self.body else {
            return Ok(());
        };
        match &self.header {
            _ if self.settings.follow => Ok(()),
            Some(header) => {
                let frame_bytes = layout.size_bytes as u64;
                count::check_y4m(opened, header, frame_bytes)?;
                let frame_count = count::regular(opened, header, frame_bytes)?;
                self.is_unprobed = frame_count.is_none();
                self.frame_count = frame_count.map(|frame_count| (frame_bytes, frame_count));
                Ok(())
            }
            None => {
                let frame_count = count::of_raw(opened, &layout, self.settings.offset);
                self.check_frames(opened, &layout, frame_count.frames)
            }
        }
    }

    /// Fails if `frames`, the number of whole frames in the file, is 0.
    pub fn check_frames(
        &self,
        opened: &Opened,
        layout: &Layout,
        frames: u64,
    ) -> Result<(), SetupError> {
        if frames > 0 {
            return Ok(());
        }
        let start_bytes = self.settings.offset;
        Err(SetupError::Open(OpenError::NoWholeFrame {
            path: opened.path.clone(),
            have_bytes: opened.len_bytes.saturating_sub(start_bytes),
            start_bytes,
            frame_bytes: layout.size_bytes as u64,
        }))
    }

    /// Reads what may take a while: the first bytes of a pipe, or all frame headers of a file whose
    /// frames are not at equal distances. Fails with `Woken` if the waker ended the wait.
    pub fn probe(&mut self, waker: &Waker) -> Result<(), SetupError> {
        if let Body::Stream(Some(stream)) = &mut self.body {
            let location = self.settings.location.as_deref().unwrap_or_default();
            let header = probe_stream(stream, location)?;
            self.take_header(header)?;
        } else if let (Body::File(opened), Some(header), Some(info)) =
            (&self.body, &self.header, self.known.info()?)
        {
            let frame_bytes = Layout::packed(&info).size_bytes as u64;
            let frame_count = count::listed(opened, header, frame_bytes, waker)?;
            self.frame_count = Some((frame_bytes, frame_count));
        }
        self.is_unprobed = false;
        Ok(())
    }

    pub fn give_stream(&mut self, stream: StreamInput) {
        self.body = Body::Stream(Some(stream));
    }

    /// Takes the pipe back from a reader that is not used any more.
    pub fn take_back(&mut self, source: Option<BufferSource>) {
        if let Some(stream) = source.and_then(BufferSource::into_stream) {
            self.give_stream(stream);
        }
    }

    /// Whether frames can be read in any order.
    pub fn is_seekable(&self) -> bool {
        !matches!(self.body, Body::Stream(_))
    }

    /// Properties override the header. Fails if that changes the size of a frame, because the
    /// frames would no longer match the frame headers in the file.
    fn take_header(&mut self, header: Option<Header>) -> Result<(), SetupError> {
        let Some(header) = header else { return Ok(()) };
        let location = || self.settings.location.clone().unwrap_or_default();
        let said = Known::from_header(&header);
        let wanted = self.known.clone().or(said.clone());
        if let (Some(own), Some(wanted)) = (
            Known {
                // A header that does not name a format leaves it to the properties.
                format: header.colour.map_or(wanted.format, |_| said.format),
                ..said.clone()
            }
            .info()?,
            wanted.info()?,
        ) {
            let (frame_bytes, got) = (
                Layout::packed(&own).size_bytes,
                Layout::packed(&wanted).size_bytes,
            );
            if frame_bytes != got {
                let is_format = own.format() != wanted.format();
                let is_size = (own.width(), own.height()) != (wanted.width(), wanted.height());
                return Err(SetupError::Header {
                    location: location(),
                    header: pictures(&own),
                    properties: pictures(&wanted),
                    remedy: match (is_format, is_size) {
                        (true, false) => "format",
                        (false, _) => "width and height",
                        (true, true) => "format, width and height",
                    },
                    frame_bytes,
                });
            }
            self.check_places(&location(), got)?;
        }
        self.known = wanted;
        self.notes.push(format!("YUV4MPEG2: {header:?}"));
        self.header = Some(header);
        Ok(())
    }

    /// Fails if properties say where frames are, because the frame headers of the file already do.
    fn check_places(&self, location: &str, frame_bytes: usize) -> Result<(), SetupError> {
        let settings = &self.settings;
        let is_size = settings.frame_size != 0 && settings.frame_size as usize != frame_bytes;
        let properties: Vec<&str> = [
            ("plane-strides", !settings.strides().is_empty()),
            ("plane-offsets", !settings.offsets().is_empty()),
            ("frame-size", is_size),
            ("offset", settings.offset != 0),
        ]
        .into_iter()
        .filter_map(|(name, is_set)| is_set.then_some(name))
        .collect();
        if properties.is_empty() {
            return Ok(());
        }
        Err(SetupError::Placed {
            location: location.to_owned(),
            properties,
        })
    }

    /// Guesses from the file's name. Fails if the name says that the frames have no format of
    /// video/x-raw, and the properties do not say how to read them.
    fn guess(&mut self) -> Result<(), SetupError> {
        let Some(location) = &self.settings.location else {
            return Ok(());
        };
        self.guess = Guess::from_path(Path::new(location));
        if self.guess.is_bayer && self.known.format.is_none() {
            return Err(SetupError::Bayer {
                location: location.clone(),
            });
        }
        if self.guess != Guess::default() {
            let note = format!("guessed from the name of \"{location}\": {:?}", self.guess);
            self.notes.push(note);
        }
        Ok(())
    }

    /// The template's caps, restricted by what is known.
    pub fn caps(&self, template: &gst::Caps) -> gst::Caps {
        self.known.caps(template)
    }

    /// What the file name suggests in addition to what is known, as separate caps for each part.
    pub fn guesses(&self) -> Vec<gst::Caps> {
        let all = gst::Caps::new_empty_simple("video/x-raw");
        let parts = self.guess.parts().into_iter();
        let gaps = parts.map(|part| self.known.clone().or_guess(part).caps(&all));
        gaps.collect()
    }

    /// Fixes the caps that downstream accepts. Fails if the size or format of a file is still open,
    /// because these cannot be chosen.
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
            fixate_rate(structure, FILE_RATE);
        } else {
            // Framebuffers have this format, and it costs least to draw.
            match structure.has_field("format") {
                true => drop(structure.fixate_field_str("format", "BGRx")),
                false => structure.set("format", "BGRx"),
            }
            for (name, size) in [("width", DEFAULT_SIZE.0), ("height", DEFAULT_SIZE.1)] {
                match structure.has_field(name) {
                    true => drop(structure.fixate_field_nearest_int(name, size)),
                    false => structure.set(name, size),
                }
            }
            fixate_rate(structure, PATTERN_RATE);
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
    pub fn layout(&self, info: &gst_video::VideoInfo) -> Result<FileLayout, SetupError> {
        if self.header.is_some() {
            return Ok(FileLayout::certain(Layout::packed(info)));
        }
        let chosen = match &self.body {
            Body::Pattern => FileLayout::certain(Layout::of_info(info)),
            Body::File(opened) | Body::Files { opened, .. } if !self.settings.follow => {
                let data = Data::Whole {
                    opened,
                    start_bytes: self.settings.offset,
                };
                file_layout::choose(info, &self.settings, data)?
            }
            _ => file_layout::choose(info, &self.settings, Data::Open)?,
        };
        check_size(info, chosen.layout.size_bytes as u64)?;
        Ok(chosen)
    }

    /// Finds the frames of a file that does not grow, if [`Self::probe`] has not found them.
    pub fn count(
        &self,
        opened: &Opened,
        layout: &Layout,
        waker: &Waker,
    ) -> Result<FrameCount, SetupError> {
        let frame_bytes = layout.size_bytes as u64;
        match (&self.header, &self.frame_count) {
            (_, Some((known_bytes, frame_count))) if *known_bytes == frame_bytes => {
                Ok(frame_count.clone())
            }
            (Some(header), _) => count::of_y4m(opened, header, frame_bytes, waker),
            (None, _) => {
                let frame_count = count::of_raw(opened, layout, self.settings.offset);
                self.check_frames(opened, layout, frame_count.frames)?;
                Ok(frame_count)
            }
        }
    }

    /// The number of frames to play of what has no end, or none that is known; `None` for all.
    pub fn open_range(&self) -> Result<Option<u64>, SetupError> {
        let (start, stop) = (self.settings.start_frame, self.settings.stop_frame);
        let Ok(end) = u64::try_from(stop) else {
            return Ok(None);
        };
        match end.saturating_add(1).checked_sub(start) {
            Some(count @ 1..) => Ok(Some(count)),
            _ => Err(SetupError::EmptyRange { start, stop }),
        }
    }

    /// The first frame to play and the number of frames to play, of a file with `frames` frames.
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

/// Chooses the rate nearest to `wish`. Caps that say nothing of the rate take any.
fn fixate_rate(structure: &mut gst::StructureRef, wish: gst::Fraction) {
    match structure.has_field("framerate") {
        true => drop(structure.fixate_field_nearest_fraction("framerate", wish)),
        false => structure.set("framerate", wish),
    }
}

/// The path that the property `location` means.
fn path_of(location: &str) -> Result<String, SetupError> {
    uri::path_of(location).map_err(|why| SetupError::Uri {
        location: location.to_owned(),
        why,
    })
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
        let opened = Opened::open_file(&sequence.path(first))?;
        return Ok(Body::Files {
            sequence,
            first,
            count,
            opened,
        });
    }
    Ok(match Opened::open(path)? {
        Opening::File(opened) => Body::File(opened),
        Opening::Stream(file) => Body::Stream(Some(StreamInput::new(file, waker.clone()))),
    })
}

/// Takes the header from the start of the pipe. `None` if it is not YUV4MPEG2.
fn probe_stream(stream: &mut StreamInput, location: &str) -> Result<Option<Header>, SetupError> {
    let path = PathBuf::from(location);
    let failed = |source| OpenError::Other {
        path: path.clone(),
        source,
    };
    let start = stream.peek(y4m::MAGIC.len() + 1).map_err(failed)?;
    if !y4m::is_y4m(&start.ok_or(SetupError::Woken)?) {
        return Ok(None);
    }
    let line = stream.take_line(y4m::MAX_HEADER_BYTES).map_err(failed)?;
    let header = Header::parse(&line.ok_or(SetupError::Woken)?);
    header
        .map(Some)
        .map_err(|source| SetupError::Y4m { path, source })
}

/// Size and format, for an error message.
fn pictures(info: &gst_video::VideoInfo) -> String {
    format!("{}x{} {}", info.width(), info.height(), info.format())
}

fn format_name(format: VideoFormat) -> String {
    match format {
        VideoFormat::Encoded => "encoded".into(),
        VideoFormat::__Unknown(number) => number.to_string(),
        format => format.to_str().to_string(),
    }
}
