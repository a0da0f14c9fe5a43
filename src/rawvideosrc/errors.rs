// SPDX-License-Identifier: MPL-2.0
//! Why there is nothing to play, and the modules' errors as messages for the bus:
//! each with the path, the errno and what to do.

use super::{
    reader::{
        ReadError,
        open::{MAX_FRAME_BYTES, OpenError},
    },
    source::BufferError,
    y4m::Y4mError,
};
use crate::{layout::LayoutError, sys::describe};
use gst::{ResourceError, StreamError};
use std::{io, path::PathBuf};

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
    /// A pattern that would fill the memory.
    #[error(
        "a pattern of {width}x{height} {format} takes {mib} MiB to draw, more than the {most_mib} that are taken for it: check width and height"
    )]
    PatternTooLarge {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// Name of the format.
        format: String,
        /// Mebibytes of a frame, or of what it is drawn into first.
        mib: u64,
        /// Mebibytes that are allowed.
        most_mib: u64,
    },
    /// Strides, offsets or frame size that make no sense.
    #[error("plane-strides, plane-offsets or frame-size do not fit {format}: {source}")]
    Layout {
        /// Name of the format.
        format: String,
        /// What does not fit.
        source: LayoutError,
    },
    /// A property that says something else of the pictures than their own header.
    #[error(
        "the header of \"{location}\" says {header}, the properties {properties}: leave {remedy} out, or give what fits a frame of {frame_bytes} bytes"
    )]
    Header {
        /// The file.
        location: String,
        /// Size and format in the file.
        header: String,
        /// Those asked for.
        properties: String,
        /// Names of the properties.
        remedy: &'static str,
        /// From header line to header line.
        frame_bytes: usize,
    },
    /// Properties for files that do not say where their frames are.
    #[error(
        "\"{location}\" is YUV4MPEG2, which says itself where its frames are: leave {} out", properties.join(", ")
    )]
    Placed {
        /// The file.
        location: String,
        /// Names of the properties.
        properties: Vec<&'static str>,
    },
    /// A YUV4MPEG2 file that is broken.
    #[error("\"{}\" is YUV4MPEG2, but {source}", path.display())]
    Y4m {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Y4mError,
    },
    /// A sequence of files of two kinds.
    #[error(
        "\"{}\" does not begin with a YUV4MPEG2 header, as the first file of the sequence does: move it away", path.display()
    )]
    NotAlike {
        /// The file.
        path: PathBuf,
    },
    /// A location with a number that no file has.
    #[error("no file \"{location}\": check the directory, and the digits after the %")]
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
    /// Nothing would tell of what is written to the file.
    #[error("\"{location}\" cannot be followed, inotify is refused: {why}; {remedy}")]
    Follow {
        /// The file.
        location: String,
        /// The reason.
        why: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The waker ended the search for frames.
    #[error("the search for frames was ended")]
    Woken,
    /// The pattern cannot be drawn, or the reader cannot start.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Nothing can be played.
pub fn of_setup(error: &SetupError) -> gst::ErrorMessage {
    match error {
        SetupError::Open(OpenError::NotFound { .. }) | SetupError::NoFiles { .. } => {
            gst::error_msg!(ResourceError::NotFound, ("{error}"))
        }
        SetupError::Open(OpenError::Permission { .. }) => {
            gst::error_msg!(ResourceError::NotAuthorized, ("{error}"))
        }
        SetupError::Open(OpenError::NoWholeFrame { .. })
        | SetupError::Y4m { .. }
        | SetupError::NotAlike { .. } => {
            gst::error_msg!(StreamError::WrongType, ("{error}"))
        }
        SetupError::Open(_) => gst::error_msg!(ResourceError::OpenRead, ("{error}")),
        SetupError::Missing { .. } | SetupError::Format { .. } | SetupError::Woken => {
            gst::error_msg!(StreamError::Format, ("{error}"))
        }
        SetupError::TooLarge { .. }
        | SetupError::PatternTooLarge { .. }
        | SetupError::Layout { .. }
        | SetupError::Header { .. }
        | SetupError::Placed { .. }
        | SetupError::Range { .. }
        | SetupError::Mode { .. } => gst::error_msg!(ResourceError::Settings, ("{error}")),
        SetupError::Follow { .. } => gst::error_msg!(ResourceError::OpenRead, ("{error}")),
        SetupError::Read(_) => gst::error_msg!(StreamError::Failed, ("{error}")),
    }
}

/// inotify is refused. Its limits are not those that the words of the errno make one think of.
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

/// Nothing could end a wait.
pub fn of_waker(error: &io::Error) -> gst::ErrorMessage {
    gst::error_msg!(
        ResourceError::OpenRead,
        (
            "no eventfd, which ends waits: {}; close some files, or raise the limit of open files (ulimit -n)",
            describe(error)
        )
    )
}

/// A frame cannot be read.
pub fn of_read(location: Option<&str>, error: &ReadError) -> gst::ErrorMessage {
    let location = location.unwrap_or("the pattern");
    gst::error_msg!(
        ResourceError::Read,
        ("\"{location}\": {error}; check the medium, and whether someone else changes the file")
    )
}

/// A stream ends where no frame does: for a warning.
pub fn of_cut(location: &str, frame: u64, have_bytes: u64, missing_bytes: u64) -> String {
    format!(
        "\"{location}\" ends inside frame {frame}, which is left out: {have_bytes} bytes of it came and {missing_bytes} are missing; check whoever writes it"
    )
}

/// A buffer cannot take a frame.
pub fn of_buffer(error: &BufferError) -> gst::ErrorMessage {
    gst::error_msg!(
        gst::CoreError::Negotiation,
        ("{error}; put a videoconvert behind, which brings its own buffers")
    )
}
