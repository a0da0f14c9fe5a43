// SPDX-License-Identifier: MPL-2.0
//! Clients of the socket. They are only written to, and never waited for: a client that reads slowly
//! misses lines, and one that does not read costs one line of memory.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use crate::sys::private_socket::{PrivateListener, send_at_once};

/// How many clients are served at once. Further ones are closed.
const MOST_CLIENTS: usize = 8;

#[derive(Debug)]
pub struct Service {
    listener: PrivateListener,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// The line that is being sent, and how much of it has been.
    line: Arc<[u8]>,
    sent: usize,
}

impl Client {
    /// Sends what the client takes at once of the last line and, if that is all sent, of `line`.
    fn send(&mut self, line: &Arc<[u8]>) -> io::Result<()> {
        self.send_rest()?;
        if self.sent == self.line.len() {
            self.line = line.clone();
            self.sent = 0;
            self.send_rest()?;
        }
        Ok(())
    }

    fn send_rest(&mut self) -> io::Result<()> {
        while let Some(rest) = self.line.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send_at_once(&self.stream, rest)? {
                0 => break,
                sent => self.sent += sent,
            }
        }
        Ok(())
    }
}

impl Service {
    /// # Errors
    /// As [`PrivateListener::bind`].
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            listener: PrivateListener::bind(path)?,
            clients: Vec::new(),
        })
    }

    /// Takes new clients and sends a line to all. `line` is called only if there are clients.
    pub fn serve(&mut self, line: impl FnOnce() -> Vec<u8>) {
        for _ in 0..MOST_CLIENTS {
            match self.listener.accept() {
                Ok(Some(stream)) if self.clients.len() < MOST_CLIENTS => {
                    self.clients.push(Client {
                        stream,
                        line: Arc::default(),
                        sent: 0,
                    })
                }
                Ok(Some(one_too_many)) => drop(one_too_many),
                // With too many open files, the client waits in the kernel's queue.
                Ok(None) | Err(_) => break,
            }
        }
        if !self.clients.is_empty() {
            let line: Arc<[u8]> = line().into();
            self.clients.retain_mut(|client| client.send(&line).is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    fn service() -> (tempfile::TempDir, std::path::PathBuf, Service) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let service = Service::new(&path).unwrap();
        (directory, path, service)
    }

    #[test]
    fn a_client_that_reads_slowly_gets_whole_lines_and_nobody_waits_for_it() {
        let (_directory, path, mut service) = service();
        service.serve(|| unreachable!("there is no client"));
        let client = UnixStream::connect(&path).unwrap();
        let line = |number: usize| format!("{number} {}\n", "x".repeat(50_000)).into_bytes();
        for number in 0..1000 {
            service.serve(|| line(number));
        }
        let mut reader = BufReader::new(client);
        let mut read = || {
            let mut text = String::new();
            reader.read_line(&mut text).unwrap();
            let number: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(text.into_bytes(), line(number));
            number
        };
        assert_eq!(read(), 0);
        // The line at which the socket was full was sent in part, and its rest follows.
        let mut last = 0;
        while last < 1000 {
            service.serve(|| line(1000));
            last = read();
        }
    }

    #[test]
    fn clients_that_are_gone_or_too_many_are_let_go() {
        let (_directory, path, mut service) = service();
        let connect = || UnixStream::connect(&path).unwrap();
        let clients: Vec<_> = (0..MOST_CLIENTS).map(|_| connect()).collect();
        service.serve(|| b"1\n".to_vec());
        let one_too_many = connect();
        service.serve(|| b"2\n".to_vec());
        let mut text = String::new();
        BufReader::new(one_too_many).read_line(&mut text).unwrap();
        assert_eq!(text, "");
        drop(clients);
        service.serve(|| b"3\n".to_vec());
        assert_eq!(service.clients.len(), 0);
        let client = connect();
        service.serve(|| b"4\n".to_vec());
        BufReader::new(client).read_line(&mut text).unwrap();
        assert_eq!(text, "4\n");
    }
}
