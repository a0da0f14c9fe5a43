// SPDX-License-Identifier: MPL-2.0
//! Finds the frames of a YUV4MPEG2 file one after the other by their frame headers.

use crate::rawvideosrc::y4m::{self, Fields, FrameLine, Header, Y4mError};
use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes that are read at once if they hold many frames.
const WINDOW_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Y4m(#[from] Y4mError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Offset of the picture.
    pub start_bytes: u64,
    /// `None` unless the stream header says that fields differ from frame to frame.
    pub fields: Option<Fields>,
}

/// A position in a file, from which the next frame is searched for.
#[derive(Debug)]
pub struct Scan {
    /// The first stream header, with which all later ones must agree.
    first: Header,
    /// Whether the following frame headers say how fields are stored.
    is_mixed: bool,
    frame_bytes: u64,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Scan {
    /// Begins after `header`.
    pub fn new(header: &Header, frame_bytes: u64) -> Self {
        Self {
            first: header.clone(),
            is_mixed: header.is_mixed(),
            frame_bytes,
            at: header.len_bytes,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// Offset of the next frame header, as far as it is known.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Finds the next frame, whose picture may be cut off. `None` if the file ends before a whole
    /// frame header; a later call searches at the same place again.
    pub fn find(&mut self, file: &File) -> Result<Option<Found>, ScanError> {
        loop {
            let (at, is_mixed) = (self.at, self.is_mixed);
            let bytes = self.look(file)?;
            // A newline at the end of a file, or between files that were concatenated.
            let blank = bytes.iter().take_while(|byte| b"\r\n".contains(byte));
            let blank = blank.count();
            if blank > 0 {
                self.at += blank as u64;
                continue;
            }
            if y4m::is_y4m(bytes) {
                match Header::parse(bytes) {
                    Ok(header) => {
                        self.first.check_same(&header, at)?;
                        self.at += header.len_bytes;
                        self.is_mixed = header.is_mixed();
                        continue;
                    }
                    Err(Y4mError::Unfinished(_)) if bytes.len() < y4m::MAX_HEADER_BYTES => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let line = match FrameLine::parse(bytes) {
                Ok(Some(line)) => line,
                // The beginning of a stream header that is cut off.
                Ok(None) if y4m::MAGIC.starts_with(bytes) => return Ok(None),
                Ok(None) => return Err(Y4mError::NoFrame(at).into()),
                Err(Y4mError::Unfinished(_)) if bytes.len() < y4m::MAX_HEADER_BYTES => {
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            };
            let start_bytes = at + line.len_bytes as u64;
            self.at = start_bytes + self.frame_bytes;
            return Ok(Some(Found {
                start_bytes,
                fields: line.fields.filter(|_| is_mixed),
            }));
        }
    }

    /// The bytes at the position: as many as a header may have, or fewer at the end of the file.
    fn look(&mut self, file: &File) -> io::Result<&[u8]> {
        let end = self.window_at + self.window.len() as u64;
        let is_inside = self.at >= self.window_at && self.at + y4m::MAX_HEADER_BYTES as u64 <= end;
        if !is_inside {
            // The bytes of a large picture need not be read to reach the header after it.
            let step = self
                .frame_bytes
                .saturating_add(y4m::MAX_HEADER_BYTES as u64);
            let len = match step < WINDOW_BYTES as u64 / 4 {
                true => WINDOW_BYTES,
                false => y4m::MAX_HEADER_BYTES,
            };
            self.window.resize(len, 0);
            let read = read_some_at(file, &mut self.window, self.at)?;
            self.window.truncate(read);
            self.window_at = self.at;
        }
        let from = (self.at - self.window_at) as usize;
        let to = self.window.len().min(from + y4m::MAX_HEADER_BYTES);
        Ok(&self.window[from..to])
    }
}

/// Fills `to`, or reads fewer bytes at the end of the file.
pub fn read_some_at(file: &File, to: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < to.len() {
        match file.read_at(&mut to[len..], at + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// The offsets of the pictures up to the end or an error.
    fn starts(bytes: &[u8]) -> (Vec<u64>, Result<(), String>) {
        let file = file_of(bytes);
        let header = Header::parse(bytes).unwrap();
        let mut scan = Scan::new(&header, 4);
        let mut starts = Vec::new();
        loop {
            match scan.find(&file) {
                Ok(Some(found)) => starts.push(found.start_bytes),
                Ok(None) => return (starts, Ok(())),
                Err(error) => return (starts, Err(error.to_string())),
            }
        }
    }

    #[test]
    fn lines_of_any_kind_are_found() {
        let long = "X".repeat(3000);
        let text = format!("YUV4MPEG2 W2 H2 Cmono\nFRAME\nabcdFRAME {long}\nabcdFRAME\r\nabcd\n");
        let expected = [28, 28 + 4 + 7 + 3000, 28 + 4 + 7 + 3000 + 4 + 7];
        assert_eq!(starts(text.as_bytes()), (expected.to_vec(), Ok(())));
    }

    #[test]
    fn files_put_together_are_one_if_their_pictures_are_alike() {
        let one = "YUV4MPEG2 W2 H2 Cmono\nFRAME\nabcd";
        let two = one.replace("Cmono", "F25:1 Cmono XYZ");
        let both = format!("{one}{two}");
        let second = one.len() as u64 + 38;
        assert_eq!(starts(both.as_bytes()), (vec![28, second], Ok(())));
        let (before, error) = starts(both.replace("F25:1", "W4").as_bytes());
        assert_eq!(before, [28]);
        assert!(error.unwrap_err().contains("byte 32"));
    }

    #[test]
    fn garbage_is_told_from_an_end_in_a_line() {
        let head = "YUV4MPEG2 W2 H2 Cmono\nFRAME\nabcd";
        for cut in ["", "\n", "FRA", "FRAME", "FRAME Ip", "YUV4", "YUV4MPEG2 W2"] {
            let (found, end) = starts(format!("{head}{cut}").as_bytes());
            assert_eq!((found, end), (vec![28], Ok(())), "{cut:?}");
        }
        let (_, end) = starts(format!("{head}garbage").as_bytes());
        assert!(end.unwrap_err().contains("no FRAME at byte 32"));
    }

    #[test]
    fn what_is_written_later_is_found_later() {
        let mut file = file_of(b"YUV4MPEG2 W2 H2 Cmono\nFRA");
        let header = Header::parse(b"YUV4MPEG2 W2 H2 Cmono\n").unwrap();
        let mut scan = Scan::new(&header, 4);
        assert_eq!(scan.find(&file).unwrap(), None);
        file.write_all(b"ME Ip\nabcdFRAME\n").unwrap();
        assert_eq!(scan.find(&file).unwrap().unwrap().start_bytes, 31);
        assert_eq!(scan.find(&file).unwrap().unwrap().start_bytes, 41);
        assert_eq!(scan.find(&file).unwrap(), None);
    }
}
