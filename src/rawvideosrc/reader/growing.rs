// SPDX-License-Identifier: MPL-2.0
//! Reads a YUV4MPEG2 file that another program is still writing. Each frame is searched for when
//! it is requested, because the length of its header is not known before.

use super::{
    Destination, FrameIndex, FrameReader, FrameSource, Listing, Outcome, PlainFile, ReadError,
    TransferPlan,
    scan::{Scan, ScanError},
};
use crate::rawvideosrc::{cpus::Cpus, y4m::Fields};
use std::{fs::File, sync::Arc};

/// Searches only up to the frame that is requested.
pub struct GrowingReader {
    scan: Scan,
    reader: FrameReader<PlainFile>,
}

impl GrowingReader {
    pub fn new(file: File, scan: Scan, plan: TransferPlan, cpus: Cpus) -> Result<Self, ReadError> {
        let index = FrameIndex::Listed(Arc::default());
        let reader = FrameReader::new(PlainFile(file), index, plan, cpus)?;
        Ok(Self { scan, reader })
    }

    fn listing(&mut self) -> Option<&mut Listing> {
        match self.reader.index_mut() {
            // The listing has no other owner, so `make_mut` copies nothing.
            FrameIndex::Listed(listing) => Some(Arc::make_mut(listing)),
            FrameIndex::Regular { .. } => None,
        }
    }
}

impl FrameSource for GrowingReader {
    fn read(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<Outcome, ReadError> {
        loop {
            let frame = self.listing().map_or(0, |listing| listing.frames());
            if n < frame {
                return self.reader.read(n, destination);
            }
            let found = self.scan.find(&self.reader.file().0);
            let found = found.map_err(|error| match error {
                ScanError::Io(source) => ReadError::Io {
                    frame,
                    offset_bytes: self.scan.at(),
                    source,
                },
                ScanError::Y4m(source) => ReadError::Y4m { frame, source },
            })?;
            let Some(found) = found else {
                return Ok(Outcome::End {
                    have_bytes: 0,
                    missing_bytes: self.reader.frame_bytes(),
                });
            };
            if let Some(listing) = self.listing() {
                listing.push(found.start_bytes, found.fields);
            }
        }
    }

    fn loss(&self) -> Option<ReadError> {
        self.reader.loss()
    }

    fn fields(&self, n: u64) -> Option<Fields> {
        self.reader.fields(n)
    }
}
