// SPDX-License-Identifier: MPL-2.0
//! The property `session`: who opens the card and makes it master.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use super::CAT;
use crate::locks::Mutex;
use crate::shared_enum::shared_enum;
use crate::sys;
use crate::sys::seat::{self, Seat, SeatWatch};

/// Who opens the card.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Opener {
    /// The process, or the session manager if the process may not.
    #[default]
    Auto,
    /// The process.
    None,
    /// The session manager, by libseat.
    Libseat,
}

shared_enum!(Opener, c"GstKmsFlipSinkSession", {
    Auto: c"auto", c"The process, or seatd or logind if the process may not";
    None: c"none", c"The process, which needs the permission";
    Libseat: c"libseat", c"seatd or logind, which also switch virtual terminals";
});

impl Opener {
    /// Opens a card's device node.
    pub fn open(self, path: &str) -> io::Result<(OwnedFd, CardLoan)> {
        match self {
            Self::None => open_directly(path),
            Self::Libseat => open_by_seat(path),
            Self::Auto => open_directly(path).or_else(|error| {
                if !matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) {
                    return Err(error);
                }
                open_by_seat(path).map_err(|of_seat| {
                    gst::info!(CAT, "{path}: {}", sys::describe(&of_seat));
                    error
                })
            }),
        }
    }
}

fn open_directly(path: &str) -> io::Result<(OwnedFd, CardLoan)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)?;
    Ok((file.into(), CardLoan::default()))
}

fn open_by_seat(path: &str) -> io::Result<(OwnedFd, CardLoan)> {
    let (file, loan) = Seat::of_process()?.open(path)?;
    gst::info!(CAT, "{path} is lent by the session manager");
    Ok((file, CardLoan::Lent(Mutex::new(Some(loan)))))
}

/// Whether a session manager has lent a card.
#[derive(Debug, Default)]
pub enum CardLoan {
    /// This process has opened it, or the application.
    #[default]
    NotLent,
    /// `None` once it was given back.
    Lent(Mutex<Option<seat::Loan>>),
}

impl CardLoan {
    /// Whether the session manager alone makes the card master, and takes that away.
    pub fn is_lent(&self) -> bool {
        matches!(self, Self::Lent(_))
    }

    /// Whether the card was given back, so that its file can show nothing any more.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Lent(loan) if loan.lock().is_none())
    }

    /// Follows the session, for the card's thread.
    pub fn watch(&self) -> Option<SeatWatch> {
        match self {
            Self::Lent(loan) => loan.lock().as_ref()?.watch().ok(),
            Self::NotLent => None,
        }
    }

    /// Gives the card back.
    pub fn end(&self) {
        if let Self::Lent(loan) = self {
            let ended = loan.lock().take();
            drop(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_the_process_opens_is_not_lent() {
        for opener in [Opener::Auto, Opener::None] {
            let (_, loan) = opener.open("/dev/null").unwrap();
            assert!(!loan.is_lent() && !loan.is_over() && loan.watch().is_none());
        }
    }

    #[test]
    fn what_is_not_there_is_not_asked_of_a_session_manager() {
        for opener in [Opener::Auto, Opener::None] {
            let error = opener.open("/dev/no such card").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{opener:?}");
        }
    }

    #[cfg(not(feature = "libseat"))]
    #[test]
    fn a_plugin_without_libseat_says_so() {
        let error = Opener::Libseat.open("/dev/null").unwrap_err();
        assert!(error.to_string().contains("feature libseat"), "{error}");
    }
}
