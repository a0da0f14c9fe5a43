// SPDX-License-Identifier: MPL-2.0
//! The virtual terminal that this process was started on. The kernel asks before it switches to another one, so that
//! the card is given up first, and the next program that shows something finds it free.
//!
//! The kernel asks by signals. Those of this process belong to the application, whose handlers and masks a library
//! must not change, so a child process gets them (`sys::vt_guard`). No file descriptor tells of a switch before it
//! happens.

use std::os::fd::{AsFd, BorrowedFd};

use crate::kmsflipsink::CAT;
use crate::sys;
use crate::sys::console;
use crate::sys::vt_guard::{Connection, VtGuard, VtSwitch};

/// Holds the terminal until this is dropped. Then its console is shown again.
pub(super) struct OwnTerminal {
    connection: Connection,
    /// The kernel waits for [`Self::let_go`].
    is_asked_for: bool,
    _guard: VtGuard,
}

impl AsFd for OwnTerminal {
    /// Readable if [`Self::next`] returns at once.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl OwnTerminal {
    /// Takes the terminal of this number. `None` if it belongs to another program or another card's thread, or this
    /// process may not take it. A switch is then noticed after it has happened.
    pub(super) fn take(number: u16) -> Option<Self> {
        let terminal = console::open(format!("/dev/tty{number}").as_ref());
        let taken = terminal.and_then(|terminal| {
            let guard = VtGuard::take(terminal.as_fd(), c"kmsflipsink-vt", None)?;
            guard
                .map(|guard| Ok((guard.connection()?, guard)))
                .transpose()
        });
        match taken {
            Ok(Some((connection, guard))) => {
                gst::info!(CAT, "tty{number} is held until the last sink stops");
                Some(Self {
                    connection,
                    is_asked_for: false,
                    _guard: guard,
                })
            }
            Ok(None) => {
                gst::debug!(CAT, "tty{number} is held by another program, or card");
                None
            }
            Err(error) => {
                gst::debug!(CAT, "tty{number}: {}", sys::describe(&error));
                None
            }
        }
    }

    /// Waits for a switch. `None` if the child process has ended.
    pub(super) fn next(&mut self) -> Option<VtSwitch> {
        let switch = self.connection.next()?;
        self.is_asked_for = switch == VtSwitch::Release;
        Some(switch)
    }

    pub(super) fn is_asked_for(&self) -> bool {
        self.is_asked_for
    }

    /// Lets the kernel switch to the other terminal.
    pub(super) fn let_go(&mut self) {
        self.is_asked_for = false;
        self.connection.released();
    }
}
