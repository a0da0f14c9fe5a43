// SPDX-License-Identifier: MPL-2.0
//! Reads the frames of many files, which may differ in number and offsets of their frames.

use super::{
    Carrier, Destination, FrameIndex, FrameSource, Outcome, PlainFile, ReadError,
    files_ahead::{FilesAhead, NextFrame},
    open::Opened,
    read::CachedFile,
};
use crate::rawvideosrc::{sequence::Sequence, y4m::Fields};
use std::{io, path::Path};

/// Maps frames to files.
#[derive(Debug, Default)]
pub struct FileTable {
    runs: Vec<FileRun>,
    files: u64,
    frames: u64,
}

/// Files that follow one another and have the same number of frames at the same offsets.
#[derive(Debug)]
struct FileRun {
    /// The first file of the run, counted from 0.
    first_file: u64,
    /// The first frame of the run, counted through all files.
    first_frame: u64,
    frames_per_file: u64,
    index: FrameIndex,
}

struct FrameInFile<'a> {
    /// Counted from 0.
    file: u64,
    /// Counted from the beginning of the file.
    frame: u64,
    index: &'a FrameIndex,
}

impl FileTable {
    pub fn push(&mut self, frames: u64, index: FrameIndex) {
        let (first_file, first_frame) = (self.files, self.frames);
        self.files += 1;
        self.frames += frames;
        let is_alike =
            |run: &FileRun| run.frames_per_file == frames && run.index == index && frames > 0;
        if !self.runs.last().is_some_and(is_alike) {
            self.runs.push(FileRun {
                first_file,
                first_frame,
                frames_per_file: frames,
                index,
            });
        }
    }

    pub fn frames(&self) -> u64 {
        self.frames
    }

    fn place(&self, n: u64) -> Option<FrameInFile<'_>> {
        if n >= self.frames {
            return None;
        }
        // Files without frames have the `first_frame` of the file after them, which has the frame.
        let after = self.runs.partition_point(|run| run.first_frame <= n);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let within = n - run.first_frame;
        Some(FrameInFile {
            file: run.first_file + within.checked_div(run.frames_per_file)?,
            frame: within % run.frames_per_file,
            index: &run.index,
        })
    }
}

/// Opens each file when a frame of it is requested, and keeps one open.
pub struct FilesReader {
    sequence: Sequence,
    first_number: u64,
    table: FileTable,
    carrier: Carrier,
    open: Option<(u64, PlainFile)>,
    ahead: FilesAhead,
    /// Whether all frames so far were in the page cache. If so, nothing is read ahead, because reading ahead
    /// would cost a quarter of the CPU time of small frames.
    all_cached: bool,
}

impl FilesReader {
    /// The first file of `table` has the number `first_number` in the sequence. Frames are read
    /// with `carrier`, and those that follow are read ahead with `ahead`.
    pub fn new(
        sequence: Sequence,
        first_number: u64,
        table: FileTable,
        carrier: Carrier,
        ahead: FilesAhead,
    ) -> Self {
        Self {
            sequence,
            first_number,
            table,
            carrier,
            open: None,
            ahead,
            all_cached: true,
        }
    }
}

impl FrameSource for FilesReader {
    fn read(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<Outcome, ReadError> {
        let frame_bytes = self.carrier.frame_bytes();
        let beyond = Outcome::End {
            have_bytes: 0,
            missing_bytes: frame_bytes,
        };
        let Some(place) = self.table.place(n) else {
            return Ok(beyond);
        };
        let number = self.first_number + place.file;
        let path = self.sequence.path(number);
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            let opened = Opened::open_file(&path)?;
            self.open = Some((number, PlainFile(opened.file)));
        }
        let start_bytes = place.index.start_bytes(place.frame);
        let (Some((_, file)), Some(start_bytes)) = (&self.open, start_bytes) else {
            return Ok(beyond);
        };
        if self.all_cached {
            let file = &CachedFile(&file.0);
            self.all_cached = (self.carrier).carry(file, start_bytes, destination).is_ok();
            if self.all_cached {
                return Ok(Outcome::Frame);
            }
        }
        self.ahead.follow(n, |next| {
            // The kernel itself reads ahead within a file.
            let next = self.table.place(next).filter(|at| at.file != place.file)?;
            Some(NextFrame {
                path: self.sequence.path(self.first_number + next.file),
                start_bytes: next.index.start_bytes(next.frame)?,
                len_bytes: frame_bytes,
            })
        });
        (self.carrier)
            .carry(file, start_bytes, destination)
            .map_err(|error| failed(&path, error))?;
        Ok(Outcome::Frame)
    }

    fn fields(&self, n: u64) -> Option<Fields> {
        let place = self.table.place(n)?;
        place.index.fields(place.frame)
    }
}

fn failed(path: &Path, error: io::Error) -> ReadError {
    let source = match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::other("it has become shorter since its frames were counted")
        }
        _ => error,
    };
    ReadError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_frame_is_found_in_its_file(
            files in proptest::collection::vec((0u64..4, 0u64..2), 0..30),
        ) {
            let mut table = FileTable::default();
            let mut expected = Vec::new();
            for (file, (frames, start_bytes)) in (0..).zip(files) {
                table.push(frames, FrameIndex::Regular { start_bytes, step_bytes: 10 });
                expected.extend((0..frames).map(|frame| (file, frame, start_bytes + 10 * frame)));
            }
            prop_assert_eq!(table.frames(), expected.len() as u64);
            for (n, expected) in (0..).zip(&expected) {
                let place = table.place(n).unwrap();
                let start = place.index.start_bytes(place.frame).unwrap();
                prop_assert_eq!((place.file, place.frame, start), *expected);
            }
            prop_assert!(table.place(expected.len() as u64).is_none());
        }
    }
}
