// SPDX-License-Identifier: MPL-2.0
//! What can go wrong with a card, each with what would help.

use std::io;

use super::device::Device;
use super::discovery::NoRoute;
use super::mode::NoMode;
use crate::sys;

/// What went wrong with a card.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    /// Nothing to show on.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// Somebody else has the card.
    #[error(
        "another program is DRM master of {path} ({}); end it (a desktop, a compositor, another \
         player), or pass us a lease in the property fd",
        sys::describe(source)
    )]
    NotMaster {
        /// The device node.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The application's fd may not show anything.
    #[error(
        "the file of the property fd, {path}, may not set the display ({}); let it be DRM master \
         (drmSetMaster) or a lease before the sink starts",
        sys::describe(source)
    )]
    FdNotMaster {
        /// The device node.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No such mode.
    #[error("mode \"{request}\" of {connector}: {source}")]
    NoMode {
        /// What was asked for.
        request: String,
        /// Of which connector.
        connector: String,
        /// Why not.
        source: NoMode,
    },
    /// The driver refuses every way to show such frames.
    #[error(
        "{path} refuses {what}: {}; it may take another size, format or mode (videoscale or \
         videoconvert before the sink, its property mode)",
        sys::describe(source)
    )]
    Refused {
        /// The device node.
        path: String,
        /// What it was asked to show.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A property that the user asked for.
    #[error("{0}")]
    Property(String),
    /// Anything else.
    #[error(
        "{operation} on {path}: {}; {}",
        sys::describe(source),
        io_remedy(source)
    )]
    Io {
        /// What was done.
        operation: &'static str,
        /// The device node.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The device went away.
    #[error("{path} is gone: {reason}; plug it in or bind its driver again and restart")]
    Gone {
        /// The device node.
        path: String,
        /// How that was noticed.
        reason: String,
    },
}

fn io_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM | libc::ENOSPC) => {
            "the card's memory is full: smaller frames or fewer sinks need less"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "run as a user of the group that owns it (usually `video`), or as root"
        }
        Some(libc::EMFILE) => "raise the limit of open files (ulimit -n)",
        Some(libc::ENFILE) => "raise the system's limit of open files (sysctl fs.file-max)",
        Some(libc::ENODEV) => "its driver is gone: load it and start again",
        _ => "the kernel log may say more (dmesg)",
    }
}

/// Why a frame was not taken.
#[derive(Debug)]
pub enum NotPresented {
    /// The sink is being stopped or flushed.
    Flushing,
    /// The kernel refused to show it.
    Refused(String),
    /// The card can show nothing any more.
    Gone(String),
}

impl KmsError {
    /// The error for a card that is no more.
    pub fn gone(device: &Device, reason: String) -> Self {
        Self::Gone {
            path: device.path.clone(),
            reason,
        }
    }

    /// Whether it may pass by itself: there is no display now, or the card is another
    /// program's, as while another virtual terminal is in front.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoMode { source, .. } => *source == NoMode::NoneOffered,
            Self::Refused { source, .. } => matches!(
                source.raw_os_error(),
                Some(libc::EACCES | libc::EPERM | libc::EBUSY)
            ),
            _ => false,
        }
    }
}
