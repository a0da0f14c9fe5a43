// SPDX-License-Identifier: MPL-2.0
//! Who asks for the screen before another program gets it: the kernel, for the virtual terminal of this process, or the
//! session manager that has lent the card.

use std::os::fd::{AsFd, BorrowedFd};

use super::Engine;
use super::own_terminal::OwnTerminal;
use crate::sys::console::own_vt;
use crate::sys::seat::SeatWatch;
use crate::sys::vt_guard::VtSwitch;

pub(super) enum Handover {
    Terminal(OwnTerminal),
    Seat {
        watch: SeatWatch,
        /// The session manager waits for [`Handover::let_go`].
        is_asked_for: bool,
    },
}

impl AsFd for Handover {
    /// Readable if [`Self::next`] returns at once.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Terminal(terminal) => terminal.as_fd(),
            Self::Seat { watch, .. } => watch.as_fd(),
        }
    }
}

impl Handover {
    /// `None` if nobody asks, or the sinks do not follow virtual terminals.
    pub(super) fn begin(engine: &Engine) -> Option<Self> {
        if engine.device.loan.is_lent() {
            let watch = engine.device.loan.watch()?;
            return Some(Self::Seat {
                watch,
                is_asked_for: false,
            });
        }
        let follows_vt = engine.device.is_ours && engine.lock().follows_vt;
        let terminal = own_vt().filter(|_| follows_vt).and_then(OwnTerminal::take);
        terminal.map(Self::Terminal)
    }

    /// What is asked for. `None` if whoever asks has ended.
    pub(super) fn next(&mut self) -> Option<VtSwitch> {
        match self {
            Self::Terminal(terminal) => terminal.next(),
            Self::Seat {
                watch,
                is_asked_for,
            } => {
                let switch = watch.next()?;
                *is_asked_for = switch == VtSwitch::Release;
                Some(switch)
            }
        }
    }

    pub(super) fn is_asked_for(&self) -> bool {
        match self {
            Self::Terminal(terminal) => terminal.is_asked_for(),
            Self::Seat { is_asked_for, .. } => *is_asked_for,
        }
    }

    /// Lets the other program have the screen.
    pub(super) fn let_go(&mut self) {
        match self {
            Self::Terminal(terminal) => terminal.let_go(),
            Self::Seat {
                watch,
                is_asked_for,
            } => {
                *is_asked_for = false;
                watch.let_go();
            }
        }
    }
}
