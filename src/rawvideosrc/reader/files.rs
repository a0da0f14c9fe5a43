// SPDX-License-Identifier: MPL-2.0
//! Frames of many files, the same number in each.

use super::{FrameSource, Lane, Medium, Outcome, PlainFile, ReadError, Route, Target};
use crate::rawvideosrc::sequence::Sequence;
use std::{fs::File, io};

/// Opens each file when its first frame is asked for.
pub struct FilesReader {
    sequence: Sequence,
    first_number: u64,
    frames_per_file: u64,
    start_bytes: u64,
    route: Route,
    open: Option<(u64, PlainFile)>,
    lane: Lane,
}

impl FilesReader {
    /// Files from `first_number` on, each with frames from `start_bytes` on.
    pub fn new(
        sequence: Sequence,
        first_number: u64,
        frames_per_file: u64,
        start_bytes: u64,
        route: Route,
    ) -> Self {
        Self {
            sequence,
            first_number,
            frames_per_file: frames_per_file.max(1),
            start_bytes,
            route,
            open: None,
            lane: Lane::default(),
        }
    }

    fn carry(&mut self, n: u64, target: &mut Target<'_>) -> io::Result<()> {
        let number = self.first_number + n / self.frames_per_file;
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            let file = File::open(self.sequence.path(number))?;
            self.open = Some((number, PlainFile(file)));
        }
        let Some((_, file)) = &self.open else {
            return Err(io::ErrorKind::NotFound.into());
        };
        self.route.plan(target);
        let frame_bytes = self.route.source().size_bytes as u64;
        let start = self.start_bytes + n % self.frames_per_file * frame_bytes;
        for transfer in self.route.transfers() {
            for runs in transfer.runs().chunk_by(|a, b| a.part == b.part) {
                file.carry(
                    start,
                    runs,
                    0,
                    target.part_mut(runs[0].part),
                    &mut self.lane,
                )?;
            }
        }
        Ok(())
    }
}

impl FrameSource for FilesReader {
    fn read(&mut self, n: u64, target: &mut Target<'_>) -> Result<Outcome, ReadError> {
        match self.carry(n, target) {
            Ok(()) => Ok(Outcome::Frame),
            Err(source) => {
                let number = self.first_number + n / self.frames_per_file;
                Err(ReadError::File {
                    path: self.sequence.path(number),
                    source,
                })
            }
        }
    }
}
