// SPDX-License-Identifier: MPL-2.0
//! Reads frames past the page cache (O_DIRECT): straight into the buffer if file and buffer are
//! aligned alike, else through an aligned bounce buffer. The ends of an aligned range, less
//! than a block each, are read through the page cache.

use super::{RandomAccess, Scratch, file_len_bytes};
use crate::{
    layout::Run,
    sys::direct_io::{self, Alignment},
};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Shorter runs, mostly rows, are not worth a direct read of their own.
const LEAST_DIRECT_BYTES: usize = 64 << 10;
const BOUNCE_BYTES: usize = 1 << 20;

/// A file opened twice: with and without O_DIRECT.
#[derive(Debug)]
pub struct DirectFile {
    direct: File,
    buffered: File,
    alignment: Alignment,
    /// Whether a direct read has failed because the destination buffers are mapped without pages
    /// (dma-buf heaps of newer kernels).
    refused: AtomicBool,
    /// Bytes copied out of the bounce buffer so far.
    bounced_bytes: AtomicU64,
}

/// Memory at an aligned address.
#[derive(Debug, Default)]
pub struct Bounce {
    bytes: Vec<u8>,
    start: usize,
}

impl Bounce {
    /// `len_bytes` bytes, aligned for any disk. A greater length than before moves them.
    pub fn get(&mut self, len_bytes: usize) -> &mut [u8] {
        const ALIGNMENT: usize = 4096;
        if self.bytes.len() < self.start + len_bytes {
            self.bytes = vec![0; len_bytes + ALIGNMENT];
            self.start = self.bytes.as_ptr().align_offset(ALIGNMENT);
        }
        &mut self.bytes[self.start..self.start + len_bytes]
    }
}

/// The aligned part of a range, which O_DIRECT can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlignedRange {
    /// From the start of the range.
    pub start: usize,
    pub len_bytes: usize,
}

impl DirectFile {
    /// Opens the file again. Fails with EINVAL if the file system has no O_DIRECT.
    pub fn new(buffered: File) -> io::Result<Self> {
        let (direct, alignment) = direct_io::reopen_direct(&buffered)?;
        Ok(Self {
            direct,
            buffered,
            alignment,
            refused: AtomicBool::new(false),
            bounced_bytes: AtomicU64::new(0),
        })
    }

    pub fn direct(&self) -> &File {
        &self.direct
    }

    pub fn buffered(&self) -> &File {
        &self.buffered
    }

    /// Offsets and lengths of direct reads must be multiples of this.
    pub fn offset_alignment_bytes(&self) -> u64 {
        self.alignment.offset_bytes
    }

    /// Whether the file system reports the alignment of direct reads. One that does not may accept O_DIRECT
    /// and still not read from a disk.
    pub fn is_alignment_reported(&self) -> bool {
        self.alignment.is_reported
    }

    fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Must be called when a direct read into a buffer has failed with EFAULT.
    pub fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// The part of `to` that can be read directly from the file at `offset_bytes`.
    pub fn aligned_range(
        &self,
        offset_bytes: u64,
        to: *const u8,
        len_bytes: usize,
    ) -> Option<AlignedRange> {
        if len_bytes < LEAST_DIRECT_BYTES || self.has_refused() {
            return None;
        }
        let unit = self.alignment.offset_bytes;
        let first = offset_bytes.next_multiple_of(unit);
        let end = offset_bytes.checked_add(len_bytes as u64)?;
        let last = end - end % unit;
        let start = (first - offset_bytes) as usize;
        let aligned = (to as usize + start).is_multiple_of(self.alignment.mem_bytes);
        (aligned && last > first).then_some(AlignedRange {
            start,
            len_bytes: (last - first) as usize,
        })
    }

    fn carry_run(&self, offset_bytes: u64, to: &mut [u8], range: AlignedRange) -> io::Result<()> {
        let (head, rest) = to.split_at_mut(range.start);
        let (body, tail) = rest.split_at_mut(range.len_bytes);
        let body_at = offset_bytes + head.len() as u64;
        let mut done = 0;
        while done < body.len() {
            match self
                .direct
                .read_at(&mut body[done..], body_at + done as u64)
            {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if !(done as u64).is_multiple_of(self.alignment.offset_bytes) {
                // The read ended within a block, so the file ends here or has ended here. A read
                // through the page cache gets what has come since, or fails.
                self.buffered
                    .read_exact_at(&mut body[done..], body_at + done as u64)?;
                done = body.len();
            }
        }
        self.buffered.read_exact_at(head, offset_bytes)?;
        self.buffered
            .read_exact_at(tail, body_at + body.len() as u64)
    }

    /// Reads the range that the runs span in aligned pieces, and copies the runs out of them.
    fn carry_bounced(
        &self,
        start_bytes: u64,
        runs: &[Run],
        part_start: usize,
        part: &mut [u8],
        bounce: &mut Bounce,
    ) -> io::Result<()> {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return Ok(());
        };
        let unit = self.alignment.offset_bytes;
        let end = start_bytes + (last.source_bytes + last.len_bytes) as u64;
        let mut at = start_bytes + first.source_bytes as u64;
        at -= at % unit;
        let bounce = bounce.get(BOUNCE_BYTES);
        let mut pending = runs.iter().copied().peekable();
        while at < end {
            let want = (end - at).next_multiple_of(unit).min(BOUNCE_BYTES as u64) as usize;
            let mut have = match self.direct.read_at(&mut bounce[..want], at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if at + (have as u64) < end && !(have as u64).is_multiple_of(unit) {
                // As in `carry_run`: the file has ended, or is being written right now.
                let needed = want.min((end - at) as usize);
                self.buffered
                    .read_exact_at(&mut bounce[have..needed], at + have as u64)?;
                have = needed;
            }
            if have == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let have_end = at + have as u64;
            while let Some(run) = pending.peek_mut() {
                let from = start_bytes + run.source_bytes as u64;
                if from >= have_end {
                    break;
                }
                let skip = (from - at) as usize;
                let len = run.len_bytes.min(have - skip);
                let to = run.target(part_start, part);
                to[..len].copy_from_slice(&bounce[skip..skip + len]);
                self.bounced_bytes.fetch_add(len as u64, Ordering::Relaxed);
                if len < run.len_bytes {
                    run.target_bytes += len;
                    run.source_bytes += len;
                    run.len_bytes -= len;
                    break;
                }
                pending.next();
            }
            at = have_end;
        }
        Ok(())
    }
}

impl RandomAccess for DirectFile {
    fn carry(
        &self,
        start_bytes: u64,
        runs: &[Run],
        part_start: usize,
        part: &mut [u8],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        // Planes may lie in the file in any order, but `carry_bounced` wants ascending runs.
        let upwards = |a: &Run, b: &Run| b.source_bytes >= a.source_bytes + a.len_bytes;
        for runs in runs.chunk_by(upwards) {
            if let [run] = runs {
                let to = run.target(part_start, part);
                let offset_bytes = start_bytes + run.source_bytes as u64;
                if let Some(range) = self.aligned_range(offset_bytes, to.as_ptr(), to.len()) {
                    match self.carry_run(offset_bytes, to, range) {
                        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => self.refuse(),
                        done => {
                            done?;
                            continue;
                        }
                    }
                }
            }
            self.carry_bounced(start_bytes, runs, part_start, part, &mut scratch.bounce)?;
        }
        Ok(())
    }

    fn len_bytes(&self) -> Option<u64> {
        file_len_bytes(&self.buffered)
    }

    fn bounced_bytes(&self) -> u64 {
        self.bounced_bytes.load(Ordering::Relaxed)
    }
}
