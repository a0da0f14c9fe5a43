// SPDX-License-Identifier: MPL-2.0
//! The errors of preparing a stream, and the conversion of all modules' errors to messages on
//! the bus. Each text says the path, the errno and what to do.

use super::{
    cpus::CpusError,
    delivery::BufferError,
    reader::{
        ReadError,
        open::{MAX_FRAME_BYTES, OpenError},
    },
    y4m::Y4mError,
};
use crate::{layout::LayoutError, sys::describe};
use gst::{ResourceError, StreamError};
use std::{io, path::PathBuf};

/// Why no stream can be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(
        "{} of \"{location}\" not known: set the properties, or put a capsfilter behind", missing.join(", ")
    )]
    Missing {
        location: String,
        missing: Vec<&'static str>,
    },
    #[error(
        "format {format} is no raw video format: choose one that gst-inspect-1.0 rawvideosrc lists"
    )]
    Format { format: String },
    #[error(
        "a frame of {width}x{height} {format} is larger than the {MAX_FRAME_BYTES} bytes that can be read at once: check width and height"
    )]
    TooLarge {
        width: i32,
        height: i32,
        format: String,
    },
    #[error(
        "a pattern of {width}x{height} {format} takes {mib} MiB to draw, more than the {most_mib} that are taken for it: check width and height"
    )]
    PatternTooLarge {
        width: u32,
        height: u32,
        format: String,
        /// MiB of a frame, or of the untiled picture that is drawn first.
        mib: u64,
        most_mib: u64,
    },
    #[error("plane-strides, plane-offsets or frame-size do not fit {format}: {source}")]
    Layout { format: String, source: LayoutError },
    #[error(
        "the header of \"{location}\" says {header}, the properties {properties}: leave {remedy} out, or give what fits a frame of {frame_bytes} bytes"
    )]
    Header {
        location: String,
        /// Size and format as the header says.
        header: String,
        properties: String,
        remedy: &'static str,
        /// Bytes of a picture as the header says.
        frame_bytes: usize,
    },
    #[error(
        "\"{location}\" is YUV4MPEG2, which says itself where its frames are: leave {} out", properties.join(", ")
    )]
    Placed {
        location: String,
        properties: Vec<&'static str>,
    },
    #[error("\"{}\" is YUV4MPEG2, but {source}", path.display())]
    Y4m { path: PathBuf, source: Y4mError },
    #[error(
        "\"{}\" does not begin with a YUV4MPEG2 header, as the first file of the sequence does: move it away", path.display()
    )]
    NotAlike { path: PathBuf },
    #[error(
        "\"{}\" begins with a YUV4MPEG2 header, and the first file of the sequence does not: move it away", path.display()
    )]
    NotRaw { path: PathBuf },
    #[error(
        "\"{location}\" has frames of a Bayer sensor by its name, which are no video/x-raw: play them with filesrc blocksize=BYTES_OF_A_FRAME ! video/x-bayer,format=...,width=...,height=...,framerate=... ! bayer2rgb, or set the property format to read the bytes as something else, such as GRAY16_LE"
    )]
    Bayer { location: String },
    #[error("location=\"{location}\" names no file that can be opened: {why}; give the path")]
    Uri { location: String, why: String },
    #[error("no file \"{location}\": check the directory, and the digits after the %")]
    NoFiles { location: String },
    #[error(
        "start-frame {start} and stop-frame {stop} leave nothing of the {frames} frames of \"{location}\""
    )]
    Range {
        start: u64,
        stop: i64,
        frames: u64,
        location: String,
    },
    #[error(
        "start-frame {start} is behind stop-frame {stop}, which leaves nothing to play: set another one"
    )]
    EmptyRange { start: u64, stop: i64 },
    #[error("\"{location}\" cannot be read with io-mode={mode}: {why}; use io-mode=auto")]
    Mode {
        location: String,
        mode: &'static str,
        why: String,
    },
    #[error("cpus={list:?}: {source}")]
    Cpus { list: String, source: CpusError },
    #[error("\"{location}\" cannot be followed, inotify is refused: {why}; {remedy}")]
    Follow {
        location: String,
        why: String,
        remedy: &'static str,
    },
    #[error("the search for frames was ended")]
    Woken,
    /// The pattern cannot be drawn, or the reader cannot start.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The message for a stream that cannot be prepared.
pub fn of_setup(error: &SetupError) -> gst::ErrorMessage {
    match error {
        SetupError::Open(OpenError::NotFound { .. })
        | SetupError::NoFiles { .. }
        | SetupError::Uri { .. } => {
            gst::error_msg!(ResourceError::NotFound, ("{error}"))
        }
        SetupError::Open(OpenError::Permission { .. }) => {
            gst::error_msg!(ResourceError::NotAuthorized, ("{error}"))
        }
        SetupError::Open(OpenError::NoWholeFrame { .. })
        | SetupError::Y4m { .. }
        | SetupError::NotAlike { .. }
        | SetupError::NotRaw { .. } => {
            gst::error_msg!(StreamError::WrongType, ("{error}"))
        }
        SetupError::Open(_) => gst::error_msg!(ResourceError::OpenRead, ("{error}")),
        SetupError::Missing { .. }
        | SetupError::Format { .. }
        | SetupError::Bayer { .. }
        | SetupError::Woken => {
            gst::error_msg!(StreamError::Format, ("{error}"))
        }
        SetupError::TooLarge { .. }
        | SetupError::PatternTooLarge { .. }
        | SetupError::Layout { .. }
        | SetupError::Header { .. }
        | SetupError::Placed { .. }
        | SetupError::Range { .. }
        | SetupError::EmptyRange { .. }
        | SetupError::Cpus { .. }
        | SetupError::Mode { .. } => gst::error_msg!(ResourceError::Settings, ("{error}")),
        SetupError::Follow { .. } => gst::error_msg!(ResourceError::OpenRead, ("{error}")),
        SetupError::Read(_) => gst::error_msg!(StreamError::Failed, ("{error}")),
    }
}

/// The error if inotify is refused. For its own limits inotify uses EMFILE and ENOSPC, whose
/// usual texts speak of open files and of disk space.
pub fn of_follow(location: &str, error: &io::Error) -> SetupError {
    let remedy = match error.raw_os_error() {
        Some(libc::EMFILE) => {
            "raise the sysctl fs.inotify.max_user_instances, or the limit of open files (ulimit -n)"
        }
        Some(libc::ENOSPC) => "raise the sysctl fs.inotify.max_user_watches",
        _ => "play it without follow once it is written",
    };
    SetupError::Follow {
        location: location.to_owned(),
        why: describe(error),
        remedy,
    }
}

/// The message if no eventfd can be made.
pub fn of_waker(error: &io::Error) -> gst::ErrorMessage {
    gst::error_msg!(
        ResourceError::OpenRead,
        (
            "no eventfd, which ends waits: {}; close some files, or raise the limit of open files (ulimit -n)",
            describe(error)
        )
    )
}

/// The message for a frame that cannot be read.
pub fn of_read(location: Option<&str>, error: &ReadError) -> gst::ErrorMessage {
    let location = location.unwrap_or("the pattern");
    gst::error_msg!(
        ResourceError::Read,
        ("\"{location}\": {error}; check the medium, and whether someone else changes the file")
    )
}

/// The text of the warning that a stream ends inside a frame.
pub fn of_cut(location: &str, frame: u64, have_bytes: u64, missing_bytes: u64) -> String {
    format!(
        "\"{location}\" ends inside frame {frame}, which is left out: {have_bytes} bytes of it came and {missing_bytes} are missing; check whoever writes it"
    )
}

/// The message for a buffer that cannot take a frame.
pub fn of_buffer(error: &BufferError) -> gst::ErrorMessage {
    gst::error_msg!(
        gst::CoreError::Negotiation,
        ("{error}; put a videoconvert behind, which brings its own buffers")
    )
}
