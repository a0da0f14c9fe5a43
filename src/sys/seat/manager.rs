// SPDX-License-Identifier: MPL-2.0
//! The thread that has the seat: the calls of libseat.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use libseat::SeatEvent;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::{Request, Shared};

/// How long the session may take to come to the foreground. seatd says so at once, and logind after some messages.
const ENABLE_TIME: Duration = Duration::from_secs(2);

/// How long libseat waits for the users of the seat. seatd waits longer, until it is told. To logind, libseat says that the
/// devices are free as soon as the function returns that it calls.
const LET_GO_TIME: Duration = Duration::from_secs(2);

/// A device, with the file that libseat has opened. logind's device is known by this file, which is therefore closed after
/// the device.
struct Lent {
    device: libseat::Device,
    file: OwnedFd,
}

struct Manager<'a> {
    shared: &'a Shared,
    seat: libseat::Seat,
    /// Whether the session has been in the foreground.
    was_shown: Rc<Cell<bool>>,
    devices: HashMap<u64, Lent>,
    newest: u64,
}

/// Opens the seat, says so, and serves it until nobody needs it any more or the session manager ends.
pub(super) fn run(
    shared: &Arc<Shared>,
    requests: &Receiver<Request>,
    opened: &Sender<io::Result<()>>,
) {
    let mut manager = match Manager::open(shared) {
        Ok(manager) => manager,
        Err(error) => {
            let _ = opened.send(Err(error));
            return;
        }
    };
    let _ = opened.send(Ok(()));
    while manager.handle_events().is_ok() {
        match requests.try_recv() {
            Ok(request) => manager.serve(request),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => manager.wait(),
        }
    }
    shared.users.lock().lose();
}

/// Waits until all users of the seat have let go.
fn wait_for_users(shared: &Shared) {
    let deadline = Instant::now() + LET_GO_TIME;
    while !shared.users.lock().have_let_go() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut wake = [PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN)];
        let _ = nix::poll::poll(&mut wake, left);
        // Requests that came meanwhile are looked at before the thread sleeps again.
        let _ = shared.wake.read();
    }
}

/// Lets the session manager show another session, if it waits for that and all users have let go.
fn leave(shared: &Shared, seat: &mut libseat::SeatRef) {
    if shared.users.lock().may_leave() {
        // This fails only if the session manager has ended.
        let _ = seat.disable();
    }
}

fn io_error(error: impl Into<i32>) -> io::Error {
    io::Error::from_raw_os_error(error.into())
}

impl<'a> Manager<'a> {
    fn open(shared: &'a Arc<Shared>) -> io::Result<Self> {
        let was_shown = Rc::<Cell<bool>>::default();
        let (told, is_shown) = (shared.clone(), was_shown.clone());
        let seat = libseat::Seat::open(move |seat, event| match event {
            SeatEvent::Enable => {
                is_shown.set(true);
                told.users.lock().come_back();
            }
            SeatEvent::Disable => {
                told.users.lock().ask();
                wait_for_users(&told);
                leave(&told, seat);
            }
        });
        let seat = seat.map_err(|error| {
            let reason = crate::sys::describe(&io_error(error));
            io::Error::other(format!(
                "neither seatd nor logind gives this process a seat: {reason}"
            ))
        })?;
        let mut manager = Self {
            shared,
            seat,
            was_shown,
            devices: HashMap::new(),
            newest: 0,
        };
        manager.wait_for_foreground()?;
        Ok(manager)
    }

    fn wait_for_foreground(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + ENABLE_TIME;
        while !self.was_shown.get() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::other(
                    "neither seatd nor logind says that the session of this process is in the foreground",
                ));
            }
            let left_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            self.seat.dispatch(left_ms.max(1)).map_err(io_error)?;
        }
        Ok(())
    }

    /// Handles what the session manager has said. A request may have brought events too, which do not make the
    /// connection readable.
    fn handle_events(&mut self) -> io::Result<()> {
        self.seat.dispatch(0).map_err(io_error)?;
        leave(self.shared, &mut self.seat);
        Ok(())
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Open(path, answer) => {
                // If the asker is gone, so is the file; the device is closed with the seat.
                let _ = answer.send(self.open_device(&path));
            }
            Request::Close(number) => {
                if let Some(Lent { device, file }) = self.devices.remove(&number) {
                    // This fails only if the session manager is gone, and has closed the device.
                    let _ = self.seat.close_device(device);
                    drop(file);
                }
            }
        }
    }

    fn open_device(&mut self, path: &str) -> io::Result<(OwnedFd, u64)> {
        let device = self.seat.open_device(&path).map_err(io_error)?;
        // SAFETY: libseat has just got this fd for its caller, who closes it after the device, as wlroots does
        // (backend/session/session.c): neither libseat nor the crate's Device, which has no Drop, do that. Nothing else
        // owns it.
        let file = unsafe { OwnedFd::from_raw_fd(device.as_fd().as_raw_fd()) };
        let copy = file.try_clone();
        self.newest += 1;
        let number = self.newest;
        self.devices.insert(number, Lent { device, file });
        if copy.is_err() {
            self.serve(Request::Close(number));
        }
        Ok((copy?, number))
    }

    /// Sleeps until the session manager says something, or another thread wakes this one.
    fn wait(&mut self) {
        let Ok(connection) = self.seat.get_fd() else {
            return;
        };
        let mut fds = [
            PollFd::new(connection, PollFlags::POLLIN),
            PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        let _ = nix::poll::poll(&mut fds, PollTimeout::NONE);
        let _ = self.shared.wake.read();
    }
}
