// SPDX-License-Identifier: MPL-2.0
//! What can go wrong with a card. Each error's text says what would help.

use std::io;

use super::device::Device;
use super::discovery::NoRoute;
use super::mode::NoMode;
use crate::sys;

#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// Another program is DRM master of the card.
    #[error(
        "another program is DRM master of {path} ({}); end it (a desktop, a compositor, another \
         player), or pass us a lease in the property fd",
        sys::describe(source)
    )]
    NotMaster {
        /// The device node.
        path: String,
        source: io::Error,
    },
    /// The fd that the application gave is neither master nor a lease.
    #[error(
        "the file of the property fd, {path}, may not set the display ({}); let it be DRM master \
         (drmSetMaster) or a lease before the sink starts",
        sys::describe(source)
    )]
    FdNotMaster {
        /// The device node.
        path: String,
        source: io::Error,
    },
    #[error("mode \"{request}\" of {connector}: {source}")]
    NoMode {
        /// The property `mode`, as the user wrote it.
        request: String,
        connector: String,
        source: NoMode,
    },
    /// The planes that show the format are in use, or there is none.
    #[error(
        "no free plane of {connector} on {path} shows {format}; stop the sink that has one, or put videoconvert \
         before the sink"
    )]
    NoPlane {
        path: String,
        connector: String,
        format: String,
    },
    /// The driver refuses every way to show such frames.
    #[error(
        "{path} refuses {what}: {}; it may take another size, format or mode (videoscale or \
         videoconvert before the sink, its property mode)",
        sys::describe(source)
    )]
    Refused {
        path: String,
        /// The frames that the driver was asked to show.
        what: String,
        source: io::Error,
    },
    /// The value of a property cannot be used.
    #[error("{0}")]
    Property(String),
    /// A system call failed.
    #[error(
        "{operation} on {path}: {}; {}",
        sys::describe(source),
        io_remedy(source)
    )]
    Io {
        operation: &'static str,
        path: String,
        source: io::Error,
    },
    /// The device went away, or the sink may no longer use it.
    #[error("{path} is gone: {gone}")]
    Gone { path: String, gone: Gone },
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
        Some(libc::EBADF) => "set the property fd to a DRM device that is open",
        Some(libc::ENODEV) => "its driver is gone: load it and start again",
        _ => "the kernel log may say more (dmesg)",
    }
}

/// Why a card can no longer be used, and what helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {remedy}")]
pub struct Gone {
    pub reason: String,
    pub remedy: &'static str,
}

impl Gone {
    /// The device itself is gone. `reason` says how the sink noticed that.
    pub fn device(reason: String) -> Self {
        Self {
            reason,
            remedy: "plug it in or bind its driver again and restart",
        }
    }

    /// The kernel no longer knows the connector, the CRTC or the plane for the file of the property fd.
    pub fn lease(error: &io::Error) -> Self {
        Self {
            reason: format!(
                "the lease in the property fd was revoked ({})",
                sys::describe(error)
            ),
            remedy: "lease connector, CRTC and plane anew (drmModeCreateLease), and start the sink with the new fd",
        }
    }
}

/// Why the sink did not take a frame.
#[derive(Debug)]
pub enum NotPresented {
    /// The sink is being stopped or flushed.
    Flushing,
    /// The kernel refused to show it.
    Refused(String),
    /// The kernel has refused every commit for a while, with this errno.
    Failing(i32),
    /// The device is gone, or the card's thread has ended.
    Gone(Gone),
}

impl KmsError {
    pub fn gone(device: &Device, gone: Gone) -> Self {
        Self::Gone {
            path: device.path.clone(),
            gone,
        }
    }

    /// Whether the obstacle may pass by itself: there is no display now, or another program has the card, as
    /// while another virtual terminal is in the foreground.
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
