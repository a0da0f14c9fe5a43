// SPDX-License-Identifier: MPL-2.0
//! A listening Unix socket to which only its user can connect (and root), and sends that neither wait nor
//! raise SIGPIPE.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, send,
    socket,
};
use nix::sys::stat::{Mode, fchmod};

/// The socket. Its file is removed on drop.
#[derive(Debug)]
pub struct PrivateListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

fn new_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

impl PrivateListener {
    /// Makes the socket's file with mode 0600. A socket at `path` on which no process listens any more is
    /// replaced.
    ///
    /// # Errors
    /// EADDRINUSE if a process listens there, or `path` is another file; otherwise what the kernel says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let fd = new_socket()?;
        // The file that bind() makes has the mode of the socket's inode, less the umask (unix_bind_bsd in
        // net/unix/af_unix.c). A chmod() after bind() would leave a moment for others to connect.
        fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let address = UnixAddr::new(path)?;
        let mut bound = bind(fd.as_raw_fd(), &address);
        if bound == Err(Errno::EADDRINUSE) && is_left_behind(path, &address) {
            fs::remove_file(path)?;
            bound = bind(fd.as_raw_fd(), &address);
        }
        bound?;
        let metadata = fs::symlink_metadata(path)?;
        listen(&fd, Backlog::new(8)?)?;
        Ok(Self {
            listener: UnixListener::from(fd),
            path: path.to_owned(),
            file: (metadata.dev(), metadata.ino()),
        })
    }

    /// The next client that connected, if there is one. Does not wait.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((client, _)) => Ok(Some(client)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for PrivateListener {
    fn drop(&mut self) {
        // Another process may have put a file of its own there.
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.file);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether `path` is a socket on which no process listens.
fn is_left_behind(path: &Path, address: &UnixAddr) -> bool {
    // The kernel refuses a connection to a regular file with the same errno.
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    is_socket
        && new_socket().is_ok_and(|fd| connect(fd.as_raw_fd(), address) == Err(Errno::ECONNREFUSED))
}

/// Sends as many bytes as the socket takes at once, and returns their number.
pub fn send_at_once(client: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match send(client.as_fd().as_raw_fd(), bytes, flags) {
        Ok(sent) => Ok(sent),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn only_its_user_can_connect_and_the_file_goes_with_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let listener = PrivateListener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(listener.accept().unwrap().is_none());
        let mut client = UnixStream::connect(&path).unwrap();
        let served = listener.accept().unwrap().unwrap();
        assert_eq!(send_at_once(&served, b"line\n").unwrap(), 5);
        drop(served);
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "line\n");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_in_use_and_other_files_stay_and_one_left_behind_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let in_use = |path: &Path| {
            let refused = PrivateListener::bind(path).unwrap_err();
            refused.kind() == io::ErrorKind::AddrInUse
        };
        let first = PrivateListener::bind(&path).unwrap();
        assert!(in_use(&path));
        drop(first);
        // The file stays when std's listener is dropped.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = PrivateListener::bind(&path).unwrap();
        drop(second);
        let file = directory.path().join("text");
        fs::write(&file, "kept").unwrap();
        assert!(in_use(&file));
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn a_send_to_a_client_that_does_not_read_or_is_gone_returns_at_once() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let block = vec![0; 1 << 16];
        while send_at_once(&ours, &block).unwrap() > 0 {}
        drop(theirs);
        assert!(send_at_once(&ours, &block).is_err());
    }
}
