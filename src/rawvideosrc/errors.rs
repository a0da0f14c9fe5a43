// SPDX-License-Identifier: MPL-2.0
//! The modules' errors as messages for the bus: each with the path, the errno
//! and what to do.

use super::{
    input::SetupError,
    reader::{ReadError, open::OpenError},
    source::BufferError,
};
use gst::{ResourceError, StreamError};

/// Nothing can be played.
pub fn of_setup(error: &SetupError) -> gst::ErrorMessage {
    match error {
        SetupError::Open(OpenError::NotFound { .. }) | SetupError::NoFiles { .. } => {
            gst::error_msg!(ResourceError::NotFound, ("{error}"))
        }
        SetupError::Open(OpenError::Permission { .. }) => {
            gst::error_msg!(ResourceError::NotAuthorized, ("{error}"))
        }
        SetupError::Open(OpenError::NoWholeFrame { .. }) | SetupError::Y4m { .. } => {
            gst::error_msg!(StreamError::WrongType, ("{error}"))
        }
        SetupError::Open(_) => gst::error_msg!(ResourceError::OpenRead, ("{error}")),
        SetupError::Missing { .. } | SetupError::Format { .. } => {
            gst::error_msg!(StreamError::Format, ("{error}"))
        }
        SetupError::TooLarge { .. }
        | SetupError::Layout { .. }
        | SetupError::Range { .. }
        | SetupError::Mode { .. } => gst::error_msg!(ResourceError::Settings, ("{error}")),
        SetupError::Read(_) => gst::error_msg!(StreamError::Failed, ("{error}")),
    }
}

/// A frame cannot be read.
pub fn of_read(location: Option<&str>, error: &ReadError) -> gst::ErrorMessage {
    let location = location.unwrap_or("the pattern");
    gst::error_msg!(
        ResourceError::Read,
        ("\"{location}\": {error}; check the medium, and whether someone else changes the file")
    )
}

/// A buffer cannot take a frame.
pub fn of_buffer(error: &BufferError) -> gst::ErrorMessage {
    gst::error_msg!(
        gst::CoreError::Negotiation,
        ("{error}; put a videoconvert behind, which brings its own buffers")
    )
}
