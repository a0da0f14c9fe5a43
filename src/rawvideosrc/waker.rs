// SPDX-License-Identifier: MPL-2.0
//! Lets another thread end a wait for input.

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use std::{io, os::fd::AsFd, os::fd::BorrowedFd};

/// A file descriptor that is readable as long as waits must end.
#[derive(Debug)]
pub struct Waker {
    event: EventFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// There is something to read, or the other end was closed.
    Ready,
    /// [`Waker::wake`] was called.
    Woken,
}

impl Waker {
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            event: EventFd::from_value_and_flags(0, flags)?,
        })
    }

    /// Ends the present wait, and all later ones until [`Waker::rest`].
    pub fn wake(&self) -> io::Result<()> {
        self.event.write(1)?;
        Ok(())
    }

    /// Later waits last until there is input, or until [`Waker::wake`] is called again.
    pub fn rest(&self) {
        // Reading sets the eventfd's counter to 0. It fails if the counter is 0 already.
        let _ = self.event.read();
    }

    /// Whether a wait would end at once because of [`Waker::wake`].
    pub fn is_woken(&self) -> bool {
        let mut fds = [PollFd::new(self.event.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Waits until `fd` has something to read.
    pub fn wait(&self, fd: BorrowedFd<'_>) -> io::Result<Wake> {
        loop {
            let mut fds = [
                PollFd::new(self.event.as_fd(), PollFlags::POLLIN),
                PollFd::new(fd, PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if fds[0].any().unwrap_or(true) {
                return Ok(Wake::Woken);
            }
            if fds[1].any().unwrap_or(true) {
                return Ok(Wake::Ready);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_wait_ends_by_input_or_by_waking() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        nix::unistd::write(&writer, b"x").unwrap();
        assert_eq!(waker.wait(reader.as_fd()).unwrap(), Wake::Ready);
        nix::unistd::read(&reader, &mut [0; 1]).unwrap();
        let other = waker.clone();
        let thread = std::thread::spawn(move || other.wake().unwrap());
        assert_eq!(waker.wait(reader.as_fd()).unwrap(), Wake::Woken);
        assert_eq!(waker.wait(reader.as_fd()).unwrap(), Wake::Woken);
        thread.join().unwrap();
        assert!(waker.is_woken());
        waker.rest();
        assert!(!waker.is_woken());
        drop(writer);
        assert_eq!(waker.wait(reader.as_fd()).unwrap(), Wake::Ready);
    }
}
