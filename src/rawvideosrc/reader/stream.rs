// SPDX-License-Identifier: MPL-2.0
//! Reads frames from files that cannot seek: standard input, pipes, devices.

use super::{Destination, FrameSource, Outcome, ReadError, TransferPlan};
use crate::rawvideosrc::{
    waker::{Wake, Waker},
    y4m::{self, Fields, FrameLine, Header, Y4mError},
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    sync::Arc,
};

/// A file that is read from front to back. Bytes can be put back to be read again.
#[derive(Debug)]
pub struct StreamInput {
    file: File,
    waker: Arc<Waker>,
    /// Bytes that were put back.
    kept: Vec<u8>,
    kept_from: usize,
    /// Bytes of the stream that were taken so far.
    taken_bytes: u64,
    /// Number of the next frame.
    next: u64,
    /// Header of the next frame, if it has been read already.
    at_picture: Option<FrameLine>,
    /// Bytes still to be skipped before the first frame; `None` until a reader says how many.
    header_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// All bytes were read.
    Full,
    /// The stream ended after this many bytes.
    Ended(usize),
    /// The waker ended the wait after this many bytes.
    Woken(usize),
}

impl StreamInput {
    pub fn new(file: File, waker: Arc<Waker>) -> Self {
        Self {
            file,
            waker,
            kept: Vec::new(),
            kept_from: 0,
            taken_bytes: 0,
            next: 0,
            at_picture: None,
            header_bytes: None,
        }
    }

    /// Takes bytes until `to` is full.
    fn take(&mut self, to: &mut [u8]) -> io::Result<Attempt> {
        let attempt = self.fill(to)?;
        self.taken_bytes += match attempt {
            Attempt::Full => to.len(),
            Attempt::Ended(len) | Attempt::Woken(len) => len,
        } as u64;
        Ok(attempt)
    }

    fn fill(&mut self, to: &mut [u8]) -> io::Result<Attempt> {
        let kept = &self.kept[self.kept_from..];
        let mut filled = kept.len().min(to.len());
        to[..filled].copy_from_slice(&kept[..filled]);
        self.kept_from += filled;
        while filled < to.len() {
            // Polls first, because a device or standard input may block in `read`.
            if self.waker.wait(self.file.as_fd())? == Wake::Woken {
                return Ok(Attempt::Woken(filled));
            }
            match self.file.read(&mut to[filled..]) {
                Ok(0) => return Ok(Attempt::Ended(filled)),
                Ok(read) => filled += read,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Attempt::Full)
    }

    fn give_back(&mut self, bytes: &[u8]) {
        let mut kept = bytes.to_vec();
        kept.extend_from_slice(&self.kept[self.kept_from..]);
        self.taken_bytes -= bytes.len() as u64;
        self.kept = kept;
        self.kept_from = 0;
    }

    /// The next `len_bytes`, or fewer if the stream ends, without taking them. `None` if the
    /// waker ended the wait.
    pub fn peek(&mut self, len_bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; len_bytes];
        let attempt = self.take(&mut bytes)?;
        if let Attempt::Ended(len) | Attempt::Woken(len) = attempt {
            bytes.truncate(len);
        }
        self.give_back(&bytes);
        Ok((!matches!(attempt, Attempt::Woken(_))).then_some(bytes))
    }

    /// Takes a line with its newline, but at most `most_bytes`. `None` if the waker ended the
    /// wait; then nothing is taken.
    pub fn take_line(&mut self, most_bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        while line.len() < most_bytes && line.last() != Some(&b'\n') {
            let mut byte = [0];
            match self.take(&mut byte)? {
                Attempt::Full => line.push(byte[0]),
                Attempt::Ended(_) => break,
                Attempt::Woken(_) => {
                    self.give_back(&line);
                    return Ok(None);
                }
            }
        }
        Ok(Some(line))
    }
}

/// Reads the frames of a stream one after the other.
pub struct StreamReader {
    input: StreamInput,
    plan: TransferPlan,
    /// Bytes before the first frame.
    offset_bytes: u64,
    /// The last stream header; `None` if this is not YUV4MPEG2.
    header: Option<Header>,
    /// What the frame that was read last says about its fields.
    fields: Option<Fields>,
    /// Takes a frame that has several runs in the buffer.
    scratch: Vec<u8>,
}

/// Why the next picture is not reached.
enum Obstacle {
    Outcome(Outcome),
    Io(io::Error),
    Y4m(Y4mError),
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Y4mError> for Obstacle {
    fn from(error: Y4mError) -> Self {
        Self::Y4m(error)
    }
}

impl StreamReader {
    /// `offset_bytes` are skipped before the first frame, unless an earlier reader has begun to.
    /// `header` is the stream header of YUV4MPEG2, which has been taken from `input` already.
    pub fn new(
        mut input: StreamInput,
        plan: TransferPlan,
        offset_bytes: u64,
        header: Option<Header>,
    ) -> Self {
        input.header_bytes.get_or_insert(offset_bytes);
        Self {
            input,
            plan,
            offset_bytes,
            header,
            fields: None,
            scratch: Vec::new(),
        }
    }

    /// Gives the stream back for another reader.
    pub fn into_input(self) -> StreamInput {
        self.input
    }

    /// Skips to the beginning of the next picture.
    fn seek_picture(&mut self) -> Result<(), Obstacle> {
        let frame_bytes = self.plan.source().size_bytes as u64;
        // For a stream that ends after `have_bytes` of what is in front of the picture.
        let end = |have_bytes, missing_bytes: u64| Outcome::End {
            have_bytes,
            missing_bytes: missing_bytes + frame_bytes,
        };
        while let Some(left @ 1..) = self.input.header_bytes {
            let mut waste = [0; 4096];
            let len = left.min(waste.len() as u64) as usize;
            let attempt = self.input.take(&mut waste[..len])?;
            let (Attempt::Ended(taken) | Attempt::Woken(taken)) = attempt else {
                self.input.header_bytes = Some(left - len as u64);
                continue;
            };
            let left = left - taken as u64;
            self.input.header_bytes = Some(left);
            return Err(Obstacle::Outcome(match attempt {
                Attempt::Ended(_) => end(self.offset_bytes - left, left),
                _ => Outcome::Woken,
            }));
        }
        let Some(header) = &mut self.header else {
            return Ok(());
        };
        while self.input.at_picture.is_none() {
            let at = self.input.taken_bytes;
            let line = self.input.take_line(y4m::MAX_HEADER_BYTES)?;
            let line = line.ok_or(Obstacle::Outcome(Outcome::Woken))?;
            if line.is_empty() {
                return Err(Obstacle::Outcome(end(0, 0)));
            }
            // A newline at the end of a file, or between files that were concatenated.
            if matches!(line.as_slice(), b"\n" | b"\r\n") {
                continue;
            }
            if y4m::is_y4m(&line) {
                let next = Header::parse(&line)?;
                header.check_same(&next, at)?;
                *header = next;
                continue;
            }
            match FrameLine::parse(&line) {
                Ok(Some(line)) => self.input.at_picture = Some(line),
                // The stream ends within the frame header.
                Err(Y4mError::Unfinished(_)) if line.len() < y4m::MAX_HEADER_BYTES => {
                    return Err(Obstacle::Outcome(end(line.len() as u64, 0)));
                }
                _ => return Err(Y4mError::NoFrame(at).into()),
            }
        }
        Ok(())
    }

    fn read_next(&mut self, destination: &mut Destination<'_>) -> Result<Outcome, Obstacle> {
        self.seek_picture()?;
        self.plan.update(destination);
        let frame_bytes = self.plan.source().size_bytes;
        let whole = self.plan.transfers().first().and_then(|transfer| {
            let [run] = transfer.runs() else { return None };
            (run.source_bytes == 0 && run.len_bytes == frame_bytes).then_some(*run)
        });
        let mut scratch = std::mem::take(&mut self.scratch);
        let bytes = match whole {
            Some(run) => &mut destination.part_mut(run.part)
                [run.target_bytes..run.target_bytes + frame_bytes],
            None => {
                scratch.resize(frame_bytes, 0);
                &mut scratch[..]
            }
        };
        let attempt = self.input.take(bytes);
        if let Ok(Attempt::Woken(taken)) = attempt {
            self.input.give_back(&bytes[..taken]);
        }
        if whole.is_none() && matches!(attempt, Ok(Attempt::Full)) {
            for run in self
                .plan
                .transfers()
                .iter()
                .flat_map(|transfer| transfer.runs())
            {
                destination.part_mut(run.part)[run.target_bytes..run.target_bytes + run.len_bytes]
                    .copy_from_slice(&scratch[run.source_bytes..run.source_bytes + run.len_bytes]);
            }
        }
        self.scratch = scratch;
        Ok(match attempt? {
            Attempt::Full => {
                self.input.next += 1;
                let line = self.input.at_picture.take();
                let is_mixed = self.header.as_ref().is_some_and(Header::is_mixed);
                self.fields = line.and_then(|line| line.fields).filter(|_| is_mixed);
                Outcome::Frame
            }
            Attempt::Ended(taken) => Outcome::End {
                // A frame header alone counts as 1, so that its frame is reported as cut.
                have_bytes: taken as u64 + u64::from(self.input.at_picture.is_some()),
                missing_bytes: (frame_bytes - taken) as u64,
            },
            Attempt::Woken(_) => Outcome::Woken,
        })
    }
}

impl FrameSource for StreamReader {
    fn read(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<Outcome, ReadError> {
        // Frames before the requested one (start-frame) are read and overwritten.
        loop {
            let frame = self.input.next;
            let outcome = match self.read_next(destination) {
                Ok(outcome) | Err(Obstacle::Outcome(outcome)) => outcome,
                Err(Obstacle::Y4m(source)) => return Err(ReadError::Y4m { frame, source }),
                Err(Obstacle::Io(source)) => {
                    return Err(ReadError::Io {
                        frame,
                        offset_bytes: self.input.taken_bytes,
                        source,
                    });
                }
            };
            if outcome != Outcome::Frame || frame >= n {
                return Ok(outcome);
            }
        }
    }

    fn fields(&self, _n: u64) -> Option<Fields> {
        self.fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use std::io::Write;

    fn pipe() -> (StreamInput, File, Arc<Waker>) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        (
            StreamInput::new(File::from(reader), waker.clone()),
            File::from(writer),
            waker,
        )
    }

    fn info() -> gst_video::VideoInfo {
        gst::init().unwrap();
        gst_video::VideoInfo::builder(gst_video::VideoFormat::Gray8, 5, 4)
            .build()
            .unwrap()
    }

    fn header() -> Option<Header> {
        Some(Header::parse(b"YUV4MPEG2 W5 H4 Im Cmono\n").unwrap())
    }

    #[test]
    fn frames_come_in_whatever_pieces_they_are_written() {
        let info = info();
        let source = Layout::packed(&info);
        let target_layout = Layout::of_info(&info);
        let (input, mut writer, _waker) = pipe();
        let writing = std::thread::spawn(move || {
            for byte in b"ab".iter().copied().chain((0..70).map(|i| i as u8)) {
                writer.write_all(&[byte]).unwrap();
            }
        });
        let mut reader = StreamReader::new(input, TransferPlan::new(source, &info, 1), 2, None);
        let mut bytes = [0; 32];
        // Frame 0 is skipped.
        for n in [1u8, 2] {
            let mut destination = Destination::whole(&mut bytes, target_layout).unwrap();
            assert_eq!(
                reader.read(n.into(), &mut destination).unwrap(),
                Outcome::Frame
            );
            for row in 0..4u8 {
                let first = n * 20 + row * 5;
                let expected: Vec<u8> = (first..first + 5).collect();
                assert_eq!(bytes[usize::from(row) * 8..][..5], expected);
            }
        }
        let mut destination = Destination::whole(&mut bytes, target_layout).unwrap();
        // 70 bytes came, and three frames end at 60.
        let cut = Outcome::End {
            have_bytes: 10,
            missing_bytes: 10,
        };
        assert_eq!(reader.read(3, &mut destination).unwrap(), cut);
        writing.join().unwrap();
    }

    #[test]
    fn a_wait_that_is_ended_loses_no_byte() {
        let info = info();
        let layout = Layout::packed(&info);
        let (input, mut writer, waker) = pipe();
        let mut reader = StreamReader::new(input, TransferPlan::new(layout, &info, 1), 0, header());
        let mut bytes = [0; 20];
        let mut read = |reader: &mut StreamReader| {
            let mut destination = Destination::whole(&mut bytes, layout).unwrap();
            let outcome = reader.read(0, &mut destination).unwrap();
            (outcome, bytes)
        };
        waker.wake().unwrap();
        for part in [&b"FRA"[..], b"ME\nabc", b"defghij"] {
            writer.write_all(part).unwrap();
            assert_eq!(read(&mut reader).0, Outcome::Woken);
            waker.rest();
            // The reader takes the bytes that are there before the wait ends.
            let other = waker.clone();
            let waking = std::thread::spawn(move || other.wake().unwrap());
            assert_eq!(read(&mut reader).0, Outcome::Woken);
            waking.join().unwrap();
        }
        waker.rest();
        writer.write_all(b"klmnopqrst").unwrap();
        let (outcome, bytes) = read(&mut reader);
        assert_eq!(outcome, Outcome::Frame);
        assert_eq!(&bytes, b"abcdefghijklmnopqrst");
    }

    /// What the frames of a YUV4MPEG2 stream say about their fields, and how the stream ends.
    fn played(bytes: &str) -> (Vec<Option<Fields>>, Result<Outcome, String>) {
        let info = info();
        let layout = Layout::packed(&info);
        let (input, mut writer, _waker) = pipe();
        writer.write_all(bytes.as_bytes()).unwrap();
        drop(writer);
        let mut reader = StreamReader::new(input, TransferPlan::new(layout, &info, 1), 0, header());
        let mut picture = [0; 20];
        let mut frames = Vec::new();
        loop {
            let mut destination = Destination::whole(&mut picture, layout).unwrap();
            match reader.read(frames.len() as u64, &mut destination) {
                Ok(Outcome::Frame) => frames.push(reader.fields(0)),
                Ok(outcome) => return (frames, Ok(outcome)),
                Err(error) => return (frames, Err(error.to_string())),
            }
        }
    }

    #[test]
    fn lines_of_any_kind_are_understood() {
        let picture = "x".repeat(20);
        let fields = |is_interlaced, top_first| {
            Some(Fields {
                is_interlaced,
                top_first,
                repeats_first: false,
            })
        };
        let text = format!(
            "FRAME Itii\n{picture}FRAME I1pp\r\n{picture}\nYUV4MPEG2 W5 H4 Ip Cmono XA\nFRAME Itii\n{picture}\n"
        );
        let frames = vec![fields(true, true), fields(false, false), None];
        let end = Outcome::End {
            have_bytes: 0,
            missing_bytes: 20,
        };
        assert_eq!(played(&text), (frames, Ok(end)));
    }

    #[test]
    fn garbage_between_frames_is_an_error_that_says_where() {
        let picture = "x".repeat(20);
        let (frames, end) = played(&format!("FRAME\n{picture}FRAME\n{picture}GARBAGE\n"));
        assert_eq!(frames.len(), 2);
        assert!(
            end.unwrap_err()
                .contains("after 2 frames: there is no FRAME at byte 52")
        );
        let (_, other) = played("YUV4MPEG2 W50 H4 Cmono\n");
        assert!(other.unwrap_err().contains("50x4 GRAY8"));
    }

    #[test]
    fn a_peek_takes_nothing() {
        let (mut input, mut writer, _waker) = pipe();
        writer.write_all(b"YUV4MPEG2 W4 H4\nrest").unwrap();
        drop(writer);
        assert_eq!(input.peek(9).unwrap().unwrap(), b"YUV4MPEG2");
        assert_eq!(input.take_line(100).unwrap().unwrap(), b"YUV4MPEG2 W4 H4\n");
        assert_eq!(input.peek(100).unwrap().unwrap(), b"rest");
        assert_eq!(input.take_line(100).unwrap().unwrap(), b"rest");
        assert_eq!(input.take_line(100).unwrap().unwrap(), b"");
    }
}
