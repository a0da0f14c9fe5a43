// SPDX-License-Identifier: MPL-2.0
//! The seat of this process. By it a session manager (seatd, logind) lends display cards to a process that may not open
//! them, or not become their master. libseat is the library that asks either of the two.
//!
//! libseat's calls are not to be made by two threads, and its events come with any call. So a thread has the seat alone,
//! and others send it requests. The session manager waits until all users of the seat have let go of the cards before
//! another session is shown (`users`).

#[cfg(feature = "libseat")]
mod manager;
mod users;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

use self::users::Users;
use crate::locks::Mutex;
use crate::sys::vt_guard::VtSwitch;

/// The open seat of this process, which is closed when this is dropped.
#[derive(Debug)]
pub struct Seat {
    shared: Arc<Shared>,
    /// `None` only while it is dropped: then the thread ends.
    requests: Option<Sender<Request>>,
}

#[derive(Debug)]
struct Shared {
    /// Wakes the thread of the seat.
    wake: EventFd,
    users: Mutex<Users>,
}

// Without libseat nobody answers.
#[cfg_attr(not(feature = "libseat"), allow(dead_code))]
enum Request {
    Open(String, Sender<io::Result<(OwnedFd, u64)>>),
    Close(u64),
}

struct Known {
    seat: Weak<Seat>,
    thread: JoinHandle<()>,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

impl Seat {
    /// Returns the seat of this process, and opens it if it is not open. Waits a moment until the session is in the
    /// foreground.
    pub fn of_process() -> io::Result<Arc<Self>> {
        let mut known = KNOWN.lock();
        let open = known.as_ref().and_then(|known| known.seat.upgrade());
        if let Some(seat) = open.filter(|seat| !seat.shared.users.lock().is_gone()) {
            return Ok(seat);
        }
        if let Some(before) = known.take() {
            // seatd gives a virtual terminal to one client, so the seat before must be closed. Its thread ends, because
            // nobody has the seat any more, or the session manager is gone.
            let _ = before.thread.join();
        }
        let (requests, received) = mpsc::channel();
        let shared = Arc::new(Shared {
            wake: EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            users: Mutex::default(),
        });
        let thread = start(shared.clone(), received)?;
        let seat = Arc::new(Self {
            shared,
            requests: Some(requests),
        });
        *known = Some(Known {
            seat: Arc::downgrade(&seat),
            thread,
        });
        Ok(seat)
    }

    /// Opens a device node. The file is of this process alone, but the session manager makes it master of the card, and
    /// takes that away.
    pub fn open(self: &Arc<Self>, path: &str) -> io::Result<(OwnedFd, Loan)> {
        let (answer, answered) = mpsc::channel();
        self.ask(Request::Open(path.to_owned(), answer));
        let gone = |_| io::Error::other("the session manager has ended");
        let (file, number) = answered.recv().map_err(gone)??;
        let seat = self.clone();
        Ok((file, Loan { seat, number }))
    }

    fn ask(&self, request: Request) {
        // If the thread has ended, it has closed everything.
        let _ = self.requests.as_ref().map(|to| to.send(request));
        self.shared.wake();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.requests = None;
        self.shared.wake();
    }
}

impl Shared {
    fn wake(&self) {
        // The write fails if the eventfd's counter is full, and then the thread will wake anyway.
        let _ = self.wake.write(1);
    }
}

/// Starts the thread of the seat. Returns when the seat is open.
#[cfg(feature = "libseat")]
fn start(shared: Arc<Shared>, requests: Receiver<Request>) -> io::Result<JoinHandle<()>> {
    let (opened, is_open) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("libseat".into())
        .spawn(move || manager::run(&shared, &requests, &opened))?;
    match is_open.recv() {
        Ok(opened) => opened.map(|()| thread),
        Err(_) => Err(io::Error::other("the thread of the seat has ended")),
    }
}

#[cfg(not(feature = "libseat"))]
fn start(_: Arc<Shared>, _: Receiver<Request>) -> io::Result<JoinHandle<()>> {
    let reason = "the plugin was built without libseat (cargo's feature libseat)";
    Err(io::Error::new(io::ErrorKind::Unsupported, reason))
}

/// A device that the session manager has lent. It is given back when this is dropped.
#[derive(Debug)]
pub struct Loan {
    seat: Arc<Seat>,
    number: u64,
}

impl Loan {
    /// Follows who has the seat, for a user of the device.
    pub fn watch(&self) -> io::Result<SeatWatch> {
        let event = Arc::new(EventFd::from_value_and_flags(
            0,
            EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
        )?);
        let number = self.seat.shared.users.lock().add(event.clone());
        Ok(SeatWatch {
            seat: self.seat.clone(),
            event,
            number,
        })
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.seat.ask(Request::Close(self.number));
    }
}

/// Tells a user of the seat that another session is to be shown, or that this one is shown again.
#[derive(Debug)]
pub struct SeatWatch {
    seat: Arc<Seat>,
    event: Arc<EventFd>,
    number: u64,
}

impl AsFd for SeatWatch {
    /// Readable if [`Self::next`] has news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl SeatWatch {
    /// Where the seat is now. `None` if the session manager has ended.
    pub fn next(&self) -> Option<VtSwitch> {
        let _ = self.event.read();
        let users = self.seat.shared.users.lock();
        match (users.is_gone(), users.is_away()) {
            (true, _) => None,
            (false, true) => Some(VtSwitch::Release),
            (false, false) => Some(VtSwitch::Acquired),
        }
    }

    /// The user no longer uses the card, until it is told that the session is shown again.
    pub fn let_go(&self) {
        self.seat.shared.users.lock().let_go(self.number);
        self.seat.shared.wake();
    }
}

impl Drop for SeatWatch {
    fn drop(&mut self) {
        self.seat.shared.users.lock().remove(self.number);
        self.seat.shared.wake();
    }
}
