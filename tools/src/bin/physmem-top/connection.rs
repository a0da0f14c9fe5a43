// SPDX-License-Identifier: MPL-2.0
//! The lines that come from the tracer's socket.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use gstphysmem::tracer::protocol::Snapshot;

/// The longest line that is read. A line has about 200 bytes for each buffer of a pool.
pub const LONGEST_LINE: u64 = 4 << 20;

/// Connects to the first of these sockets on which somebody listens.
///
/// # Errors
/// Nobody does; the text says why for the first of them.
pub fn connect(candidates: &[PathBuf]) -> Result<UnixStream, String> {
    let mut reason = None;
    for path in candidates {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                reason.get_or_insert_with(|| format!("{}: {error}", path.display()));
            }
        }
    }
    Err(reason.unwrap_or_else(|| "no socket".into()))
}

/// Reads one line, with an error for a line that is too long or cut off. `None` at the end.
pub fn read_line(from: &mut impl BufRead, longest: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(longest).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(io::Error::other("a line is too long or cut off")),
    }
}

/// Reads snapshots on a thread, which ends with the connection. The last item is an error, or the channel
/// ends.
pub fn snapshots(stream: UnixStream) -> Receiver<Result<Snapshot, String>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut from = BufReader::new(stream);
        loop {
            let read = match read_line(&mut from, LONGEST_LINE) {
                Ok(Some(line)) => Snapshot::from_line(&line),
                Ok(None) => return,
                Err(error) => Err(error.to_string()),
            };
            let is_error = read.is_err();
            if sender.send(read).is_err() || is_error {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_read_whole_or_not_at_all() {
        let read = |mut bytes: &[u8]| {
            let mut lines = Vec::new();
            while let Ok(Some(line)) = read_line(&mut bytes, 4) {
                lines.push(String::from_utf8(line).unwrap());
            }
            lines
        };
        assert_eq!(read(b"ab\nc\n"), ["ab\n", "c\n"]);
        assert_eq!(read(b"abc\nab"), ["abc\n"]);
        assert_eq!(read(b"abcd\n"), [""; 0]);
        assert_eq!(read(b""), [""; 0]);
    }

    #[test]
    fn what_is_no_snapshot_ends_the_connection_with_an_error() {
        let (mut tracer, ours) = UnixStream::pair().unwrap();
        let snapshots = snapshots(ours);
        let _ = tracer.write_all(b"{\"version\":77}\n{}\n");
        let error = snapshots.recv().unwrap().unwrap_err();
        assert!(error.starts_with("version 77 "), "{error}");
        assert!(snapshots.recv().is_err());
    }

    #[test]
    fn a_socket_without_a_listener_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let [left, alive] = ["left", "alive"].map(|name| directory.path().join(name));
        drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
        let error = connect(std::slice::from_ref(&left)).unwrap_err();
        assert!(error.contains("left: "), "{error}");
        let _listener = std::os::unix::net::UnixListener::bind(&alive).unwrap();
        assert!(connect(&[left, alive]).is_ok());
    }
}
