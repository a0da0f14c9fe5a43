// SPDX-License-Identifier: MPL-2.0
//! A child process that holds a virtual terminal in graphics mode, and restores it however this process
//! ends, even by SIGKILL.
//!
//! The kernel asks a process to release the screen (`VT_PROCESS`) by a signal, and the signals of this
//! process belong to the application. A console that was left in graphics mode shows nothing and cannot be
//! switched away from, so a process must survive the application to restore it. Hence a child process. It
//! is a copy of the application, but makes system calls only, and keeps only the terminal, the framebuffer
//! and one end of a socket.
//!
//! If the child is killed as well, the kernel finds no process to ask at the next switch to another
//! terminal, and resets this terminal itself (`reset_vc`).
use super::console::{self, KD_GRAPHICS, KD_TEXT, VT_ACKACQ, VT_AUTO, VT_GO, VT_PROCESS, VtMode};
use super::fbdev::{self, VarScreeninfo};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Real-time signals that no other program is known to use for this. They identify a terminal that a child
/// of this library left behind.
const RELEASE_SIGNAL: i16 = 57;
const ACQUIRE_SIGNAL: i16 = 58;

/// How long the application may take to release the screen. After that the child allows the switch.
const RELEASE_LIMIT_MS: libc::c_int = 2000;
/// How long the child pauses after a poll that failed.
const PAUSE_US: libc::c_uint = 10_000;
/// How long the child may take to restore the terminal and exit.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Bytes that the child sends.
const READY: u8 = b'+';
const RELEASE: u8 = b'R';
const ACQUIRED: u8 = b'A';
/// Bytes that the application sends.
const RELEASED: u8 = b'r';
const PUT_BACK: u8 = b'Q';
const LEAVE: u8 = b'L';

/// What the kernel told the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VtSwitch {
    /// The screen must be released; call [`Connection::released`].
    Release,
    /// The terminal is in the foreground again.
    Acquired,
}

/// Whether this is the mode of a terminal that a child of this library holds or left behind.
fn is_ours(mode: &VtMode) -> bool {
    mode.mode == VT_PROCESS && (mode.relsig, mode.acqsig) == (RELEASE_SIGNAL, ACQUIRE_SIGNAL)
}

/// Whether no other program has set the terminal to graphics mode or VT_PROCESS. What a
/// child that was killed together with its application left there does not count.
fn is_free(mode: libc::c_int, vt_mode: &VtMode) -> bool {
    is_ours(vt_mode) || (mode == KD_TEXT && vt_mode.mode == VT_AUTO)
}

/// The child process. Dropping this makes it restore the terminal and exit.
#[derive(Debug)]
pub struct VtGuard {
    child: libc::pid_t,
    socket: OwnedFd,
}

/// The framebuffer that the console of the terminal is drawn on, and what the child restores there when the
/// application ends.
#[derive(Clone, Copy, Debug)]
pub struct PutBack<'a> {
    pub framebuffer: BorrowedFd<'a>,
    /// The mode of the framebuffer.
    pub var: VarScreeninfo,
    /// Restores nothing if the application ends without a message, so the last picture stays.
    pub leaves: bool,
}

impl VtGuard {
    /// Takes the terminal: starts the child, which is called `name` and sets the terminal to graphics mode.
    /// `None` if another program or another guard has it.
    pub fn take(
        terminal: BorrowedFd<'_>,
        name: &CStr,
        put_back: Option<PutBack<'_>>,
    ) -> io::Result<Option<Self>> {
        let (mode, vt_mode) = (console::mode(terminal)?, console::vt_mode(terminal)?);
        // A living guard holds the lock. If a terminal is in our mode and not locked, a guard that was killed left it
        // so.
        let is_taken = is_free(mode, &vt_mode) && console::try_lock(terminal);
        is_taken
            .then(|| Self::start(terminal, name, put_back))
            .transpose()
    }

    fn start(
        terminal: BorrowedFd<'_>,
        name: &CStr,
        put_back: Option<PutBack<'_>>,
    ) -> io::Result<Self> {
        let (socket, childs_end) = socket_pair()?;
        let child = Child {
            terminal,
            name,
            socket: childs_end.as_fd(),
            put_back,
        };
        let child = with_all_signals_blocked(|| {
            // SAFETY: like fork(2), but without the application's fork handlers, and without a SIGCHLD to
            // the application at the end (no exit signal). All arguments are zero, so their order does not
            // matter. The child, a copy of this thread alone, calls `Child::run` only, which keeps to
            // system calls.
            match unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) } {
                0 => child.run(),
                result => result,
            }
        })?;
        if child < 0 {
            return Err(io::Error::last_os_error());
        }
        drop(childs_end);
        let guard = Self {
            child: child as libc::pid_t,
            socket,
        };
        match guard.connection()?.read_byte() {
            Ok(READY) => Ok(guard),
            Ok(errno) => Err(io::Error::from_raw_os_error(errno.into())),
            Err(error) => Err(error),
        }
    }

    /// The child's messages, for a thread that waits for them.
    pub fn connection(&self) -> io::Result<Connection> {
        self.socket.try_clone().map(Connection)
    }

    /// Leaves the terminal in graphics mode with the current picture, until a switch to another resets it.
    pub fn leave(&self) {
        self.send(LEAVE);
    }

    fn send(&self, message: u8) {
        let _ = nix::sys::socket::send(
            self.socket.as_raw_fd(),
            &[message],
            nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
        );
    }
}

impl Drop for VtGuard {
    fn drop(&mut self) {
        self.send(PUT_BACK);
        let deadline = Instant::now() + END_LIMIT;
        // SAFETY: waits for our own child and asks for no status. Only __WALL waits for children without an
        // exit signal.
        while unsafe {
            libc::waitpid(
                self.child,
                std::ptr::null_mut(),
                libc::__WALL | libc::WNOHANG,
            )
        } == 0
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The application's end of the socket.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Connection {
    /// Waits for a message. `None` after the child has ended or the guard was dropped.
    pub fn next(&self) -> Option<VtSwitch> {
        loop {
            return match self.read_byte().ok()? {
                RELEASE => Some(VtSwitch::Release),
                ACQUIRED => Some(VtSwitch::Acquired),
                _ => continue,
            };
        }
    }

    /// Ends the wait in [`Self::next`].
    pub fn shut_down(&self) {
        use nix::sys::socket::{Shutdown, shutdown};
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Read);
    }

    /// Tells the child that the screen may be released.
    pub fn released(&self) {
        let _ = nix::sys::socket::send(
            self.0.as_raw_fd(),
            &[RELEASED],
            nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
        );
    }

    fn read_byte(&self) -> io::Result<u8> {
        let mut byte = [0];
        loop {
            match nix::unistd::read(&self.0, &mut byte) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(byte[0]),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// The child starts with all signals blocked and never unblocks them. So a hangup of the terminal or the
/// stop of a service does not end it before it has restored the terminal.
fn with_all_signals_blocked<T>(then: impl FnOnce() -> T) -> io::Result<T> {
    let mut before = nix::sys::signal::SigSet::empty();
    nix::sys::signal::pthread_sigmask(
        nix::sys::signal::SigmaskHow::SIG_SETMASK,
        Some(&nix::sys::signal::SigSet::all()),
        Some(&mut before),
    )?;
    let result = then();
    nix::sys::signal::pthread_sigmask(
        nix::sys::signal::SigmaskHow::SIG_SETMASK,
        Some(&before),
        None,
    )?;
    Ok(result)
}

/// The child's data. No code below may allocate, lock or unwind.
struct Child<'a> {
    terminal: BorrowedFd<'a>,
    name: &'a CStr,
    socket: BorrowedFd<'a>,
    put_back: Option<PutBack<'a>>,
}

impl Child<'_> {
    fn run(self) -> ! {
        // SAFETY: the name is a string that ends in NUL.
        unsafe { libc::prctl(libc::PR_SET_NAME, self.name.as_ptr()) };
        self.close_all_else();
        let signals = signal_fd();
        let mode = VtMode {
            mode: VT_PROCESS,
            relsig: RELEASE_SIGNAL,
            acqsig: ACQUIRE_SIGNAL,
            ..VtMode::default()
        };
        let begun = console::set_vt_mode(self.terminal, &mode)
            .and_then(|()| console::set_mode(self.terminal, KD_GRAPHICS));
        match begun {
            Ok(()) if signals >= 0 => self.send(READY),
            Ok(()) => {
                self.put_back(false);
                self.fail(libc::EMFILE);
            }
            Err(error) => self.fail(error.raw_os_error().unwrap_or(libc::EIO)),
        }
        self.watch(signals)
    }

    fn watch(&self, signals: RawFd) -> ! {
        let application = application_fd();
        let mut is_releasing = false;
        let mut is_away = false;
        loop {
            let mut fds = [self.socket.as_raw_fd(), signals, application].map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            });
            let limit = if is_releasing { RELEASE_LIMIT_MS } else { -1 };
            // SAFETY: an array of three, in which poll ignores a negative fd.
            let poll = || unsafe { libc::poll(fds.as_mut_ptr(), 3, limit) };
            // SAFETY: the argument is a plain number.
            let n = poll_or_pause(poll, || unsafe { libc::usleep(PAUSE_US) });
            if n == 0 {
                let _ = console::reldisp(self.terminal, VT_GO);
                (is_releasing, is_away) = (false, true);
            }
            if fds[1].revents != 0 {
                match next_signal(signals) {
                    Some(signal) if signal == RELEASE_SIGNAL as u32 => {
                        is_releasing = true;
                        self.send(RELEASE);
                    }
                    Some(signal) if signal == ACQUIRE_SIGNAL as u32 => {
                        let _ = console::reldisp(self.terminal, VT_ACKACQ);
                        is_away = false;
                        self.send(ACQUIRED);
                    }
                    _ => {}
                }
            }
            let message = match (fds[0].revents, fds[2].revents) {
                (0, 0) => continue,
                (0, _) => None,
                _ => self.receive(),
            };
            match message {
                Some(RELEASED) if is_releasing => {
                    let _ = console::reldisp(self.terminal, VT_GO);
                    (is_releasing, is_away) = (false, true);
                }
                Some(PUT_BACK) => self.end(is_releasing, false),
                Some(LEAVE) => self.end(is_releasing, true),
                Some(_) => {}
                // The application has ended.
                None => {
                    if let Some(put_back) = &self.put_back
                        && !put_back.leaves
                        && !is_away
                    {
                        let _ = fbdev::put_back(put_back.framebuffer, &put_back.var);
                    }
                    self.end(is_releasing, self.put_back.is_some_and(|it| it.leaves))
                }
            }
        }
    }

    fn end(&self, is_releasing: bool, leaves: bool) -> ! {
        if leaves {
            if is_releasing {
                let _ = console::reldisp(self.terminal, VT_GO);
            }
        } else {
            self.put_back(is_releasing);
        }
        exit()
    }

    fn put_back(&self, is_releasing: bool) {
        // Must come first, since setting the mode makes the kernel forget the terminal to switch to.
        if is_releasing {
            let _ = console::reldisp(self.terminal, VT_GO);
        }
        let _ = console::set_mode(self.terminal, KD_TEXT);
        let automatic = VtMode {
            mode: VT_AUTO,
            ..VtMode::default()
        };
        let _ = console::set_vt_mode(self.terminal, &automatic);
    }

    fn send(&self, message: u8) {
        // SAFETY: the pointer is to one byte.
        unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                (&raw const message).cast(),
                1,
                libc::MSG_NOSIGNAL,
            )
        };
    }

    fn receive(&self) -> Option<u8> {
        let mut message = 0u8;
        // SAFETY: there is room for one byte.
        let n = unsafe { libc::read(self.socket.as_raw_fd(), (&raw mut message).cast(), 1) };
        (n == 1).then_some(message)
    }

    fn fail(&self, errno: libc::c_int) -> ! {
        self.send(u8::try_from(errno).unwrap_or(libc::EIO as u8));
        exit()
    }

    /// Closes the application's files and pipes, which would stay open as long as the child lives.
    fn close_all_else(&self) {
        let framebuffer = self.put_back.map_or(self.terminal, |it| it.framebuffer);
        let mut kept = [self.terminal, framebuffer, self.socket].map(|fd| fd.as_raw_fd());
        kept.sort_unstable();
        let mut from = 0;
        for fd in kept {
            if fd > from {
                close_range(from as libc::c_uint, (fd - 1) as libc::c_uint);
            }
            from = from.max(fd + 1);
        }
        close_range(from as libc::c_uint, libc::c_uint::MAX);
    }
}

/// Returns what `poll` returns. If `poll` fails, which it does at once (ENOMEM), pauses before the caller
/// tries again.
fn poll_or_pause<T>(poll: impl FnOnce() -> libc::c_int, pause: impl FnOnce() -> T) -> libc::c_int {
    let ready = poll();
    if ready < 0 {
        pause();
    }
    ready
}

fn close_range(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: the child's own descriptors, which nothing in it uses.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return;
    }
    // The system call does not exist before Linux 5.9.
    const MOST: libc::c_uint = 1 << 16;
    for fd in first..=last.min(MOST) {
        // SAFETY: as above.
        unsafe { libc::close(fd as RawFd) };
    }
}

/// Becomes readable when the application has ended, even if its other children still hold the other end of
/// the socket. Negative before Linux 5.3.
fn application_fd() -> RawFd {
    // SAFETY: the arguments are plain numbers.
    unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getppid(), 0) as RawFd }
}

fn signal_fd() -> RawFd {
    // SAFETY: the set is initialised by sigemptyset; the fd is the child's own.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, RELEASE_SIGNAL.into());
        libc::sigaddset(&raw mut set, ACQUIRE_SIGNAL.into());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC)
    }
}

fn next_signal(signals: RawFd) -> Option<u32> {
    // SAFETY: the struct consists of numbers, and is as large as what is read.
    unsafe {
        let mut info: libc::signalfd_siginfo = std::mem::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        let n = libc::read(signals, (&raw mut info).cast(), size);
        (n == size as isize).then_some(info.ssi_signo)
    }
}

fn exit() -> ! {
    // SAFETY: ends this process and runs none of the application's code.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_another_program_has_is_left_to_it() {
        let of_xorg = VtMode {
            mode: VT_PROCESS,
            relsig: 10,
            acqsig: 10,
            ..VtMode::default()
        };
        let left_behind = VtMode {
            relsig: RELEASE_SIGNAL,
            acqsig: ACQUIRE_SIGNAL,
            ..of_xorg
        };
        assert!(is_free(KD_TEXT, &VtMode::default()));
        assert!(is_free(KD_GRAPHICS, &left_behind));
        assert!(!is_free(KD_GRAPHICS, &VtMode::default()));
        assert!(!is_free(KD_GRAPHICS, &of_xorg));
        assert!(!is_free(KD_TEXT, &of_xorg));
    }

    #[test]
    fn a_poll_that_has_no_memory_is_followed_by_a_pause() {
        for (ready, expected_pauses) in [(-1, 1), (0, 0), (2, 0)] {
            let mut pauses = 0;
            assert_eq!(poll_or_pause(|| ready, || pauses += 1), ready);
            assert_eq!(pauses, expected_pauses);
        }
    }
}
