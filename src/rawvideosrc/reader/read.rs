// SPDX-License-Identifier: MPL-2.0
//! Reads frames with preadv, straight into the buffer.

use super::{RandomAccess, Scratch, file_len_bytes};
use crate::layout::Run;
use rustix::io::ReadWriteFlags;
use std::{fs::File, io, io::IoSliceMut, os::unix::fs::FileExt};

/// The most iovecs for one preadv. IOV_MAX is 1024; from some hundred iovecs on a profile no
/// longer shows the cost of the system call itself.
const PIECES: usize = 512;
/// The longest gap between rows in the file that is read and thrown away. A longer gap is
/// cheaper to skip with a second system call.
const GAP_BYTES: usize = 256;
/// Size of the memory for the gaps between the runs of one preadv.
pub const WASTE_BYTES: usize = PIECES / 2 * GAP_BYTES;

/// A file that is read through the page cache.
#[derive(Debug)]
pub struct PlainFile(pub File);

impl RandomAccess for PlainFile {
    fn carry(
        &self,
        start_bytes: u64,
        runs: &[Run],
        part_start: usize,
        part: &mut [u8],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        for batch in batches(runs) {
            read_runs(
                &self.0,
                start_bytes,
                batch,
                part_start,
                part,
                &mut scratch.waste,
            )?;
        }
        Ok(())
    }

    fn len_bytes(&self) -> Option<u64> {
        file_len_bytes(&self.0)
    }

    fn cached(&self) -> Option<CachedFile<'_>> {
        Some(CachedFile(&self.0))
    }
}

/// A file of which only the bytes in the page cache can be read. A read of other bytes fails with `WouldBlock`
/// (RWF_NOWAIT), or with another error if the file system has no such reads (NFS, FUSE).
#[derive(Debug)]
pub struct CachedFile<'a>(pub &'a File);

impl CachedFile<'_> {
    /// Whether this byte of the file is in the page cache.
    pub fn has(&self, offset_bytes: u64) -> bool {
        let mut byte = [0];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let read = rustix::io::preadv2(self.0, &mut buffers, offset_bytes, ReadWriteFlags::NOWAIT);
        read == Ok(1)
    }
}

impl RandomAccess for CachedFile<'_> {
    fn carry(
        &self,
        start_bytes: u64,
        runs: &[Run],
        part_start: usize,
        part: &mut [u8],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        for batch in batches(runs) {
            let whole = preadv_runs(
                self.0,
                start_bytes,
                batch,
                part_start,
                part,
                &mut scratch.waste,
                ReadWriteFlags::NOWAIT,
            )?;
            if !whole {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        Ok(())
    }

    fn len_bytes(&self) -> Option<u64> {
        file_len_bytes(self.0)
    }
}

/// Splits the runs into those that one preadv can fill.
fn batches(mut runs: &[Run]) -> impl Iterator<Item = &[Run]> {
    std::iter::from_fn(move || {
        let (batch, rest) = runs.split_at_checked(preadv_length(runs))?;
        runs = rest;
        Some(batch)
    })
}

/// How many of the runs one preadv can fill: their offsets must ascend in the file and in the
/// buffer, with only small gaps in the file.
fn preadv_length(runs: &[Run]) -> usize {
    let follows = |pair: &[Run]| {
        let [a, b] = pair else { return false };
        a.part == b.part
            && b.target_bytes >= a.target_bytes + a.len_bytes
            && b.source_bytes
                .checked_sub(a.source_bytes + a.len_bytes)
                .is_some_and(|gap| gap <= GAP_BYTES)
    };
    1 + runs
        .windows(2)
        .take(PIECES / 2 - 1)
        .take_while(|pair| follows(pair))
        .count()
}

/// Fills `runs`, as many as [`preadv_length`] allows.
fn read_runs(
    file: &File,
    offset_bytes: u64,
    runs: &[Run],
    part_start: usize,
    part: &mut [u8],
    waste: &mut [u8],
) -> io::Result<()> {
    if let [_, _, ..] = runs
        && preadv_runs(
            file,
            offset_bytes,
            runs,
            part_start,
            part,
            waste,
            ReadWriteFlags::empty(),
        )?
    {
        return Ok(());
    }
    // There is only one run, or preadv has read fewer bytes than it should. This reads the
    // runs one by one, and fails at the end of the file.
    for run in runs {
        let to = run.target(part_start, part);
        file.read_exact_at(to, offset_bytes + run.source_bytes as u64)?;
    }
    Ok(())
}

/// True if one preadv has read all bytes.
fn preadv_runs(
    file: &File,
    offset_bytes: u64,
    runs: &[Run],
    part_start: usize,
    part: &mut [u8],
    waste: &mut [u8],
    flags: ReadWriteFlags,
) -> io::Result<bool> {
    let mut pieces: [IoSliceMut<'_>; PIECES] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
    let mut filled = 0;
    let mut wanted = 0;
    let (mut rest, mut rest_at) = (part, part_start);
    let mut waste = waste;
    let mut source_at = runs[0].source_bytes;
    for run in runs {
        let gap = run.source_bytes - source_at;
        if gap > 0 {
            let (piece, after) = waste.split_at_mut(gap);
            waste = after;
            pieces[filled] = IoSliceMut::new(piece);
            filled += 1;
        }
        let (_, after) = rest.split_at_mut(run.target_bytes - rest_at);
        let (piece, after) = after.split_at_mut(run.len_bytes);
        rest = after;
        rest_at = run.target_bytes + run.len_bytes;
        pieces[filled] = IoSliceMut::new(piece);
        filled += 1;
        source_at = run.source_bytes + run.len_bytes;
        wanted += gap + run.len_bytes;
    }
    let start = offset_bytes + runs[0].source_bytes as u64;
    let pieces = &mut pieces[..filled];
    let read = rustix::io::retry_on_intr(|| match flags.is_empty() {
        // Without flags, preadv does the same, which each C library and emulator has.
        true => rustix::io::preadv(file, pieces, start),
        false => rustix::io::preadv2(file, pieces, start, flags),
    })?;
    Ok(read == wanted)
}
