// SPDX-License-Identifier: MPL-2.0
//! Finds the frames of files: where they begin, and how many there are.

use super::{
    errors::SetupError,
    reader::{
        FileTable, FrameIndex, Listing,
        open::{OpenError, Opened},
        scan::{Scan, ScanError, read_some_at},
    },
    sequence::Sequence,
    waker::Waker,
    y4m::{self, Header, Y4mError},
};
use crate::layout::Layout;
use std::{path::Path, sync::Arc};

/// Lines looked at before all others are believed to be as short.
const LINES_TRIED: u64 = 64;
/// Frames, or files, between two looks at the waker.
const STEPS: u64 = 256;

/// Frames of a file: where, and how many.
#[derive(Debug, Clone)]
pub struct Counted {
    pub index: FrameIndex,
    pub frames: u64,
    /// Bytes at the end that are no whole frame.
    pub leftover_bytes: u64,
}

/// The header that a file begins with, if it is YUV4MPEG2; its length is that of all
/// that comes before the first frame.
pub fn read_header(opened: &Opened) -> Result<Option<Header>, SetupError> {
    let mut bytes = vec![0; y4m::MAX_HEADER_BYTES];
    let len = read_some_at(&opened.file, &mut bytes, opened.start_bytes);
    let len = len.map_err(|error| failed(&opened.path, error.into()))?;
    if !y4m::is_y4m(&bytes[..len]) {
        return Ok(None);
    }
    let header = Header::parse(&bytes[..len]);
    let mut header = header.map_err(|error| failed(&opened.path, error.into()))?;
    header.len_bytes += opened.start_bytes;
    Ok(Some(header))
}

fn failed(path: &Path, error: ScanError) -> SetupError {
    let path = path.to_owned();
    match error {
        ScanError::Io(source) => SetupError::Open(OpenError::Other { path, source }),
        ScanError::Y4m(source) => SetupError::Y4m { path, source },
    }
}

/// Whether there is a frame at all; for a moment when there is no time for more.
pub fn check_y4m(opened: &Opened, header: &Header, frame_bytes: u64) -> Result<(), SetupError> {
    let found = Scan::new(header, frame_bytes).find(&opened.file);
    match found.map_err(|error| failed(&opened.path, error))? {
        Some(found) if found.start_bytes + frame_bytes <= opened.len_bytes => Ok(()),
        _ => Err(failed(&opened.path, Y4mError::NoFrames(frame_bytes).into())),
    }
}

/// Finds the frames behind their lines. Those are as short as can be in nearly
/// every file; where a few samples say otherwise, each one is looked at.
pub fn of_y4m(
    opened: &Opened,
    header: &Header,
    frame_bytes: u64,
    waker: &Waker,
) -> Result<Counted, SetupError> {
    match regular(opened, header, frame_bytes)? {
        Some(counted) => Ok(counted),
        None => listed(opened, header, frame_bytes, waker),
    }
}

/// None if frames are not at equal distances. A line that is longer moves all frames
/// behind it, so that the last one alone would give it away.
pub fn regular(
    opened: &Opened,
    header: &Header,
    frame_bytes: u64,
) -> Result<Option<Counted>, SetupError> {
    sampled(opened, header, frame_bytes).map_err(|error| failed(&opened.path, error))
}

fn sampled(
    opened: &Opened,
    header: &Header,
    frame_bytes: u64,
) -> Result<Option<Counted>, ScanError> {
    let start = header.len_bytes;
    let step_bytes = y4m::FRAME.len() as u64 + frame_bytes;
    let data_bytes = opened.len_bytes.saturating_sub(start);
    let frames = data_bytes / step_bytes;
    let stride = frames.div_ceil(LINES_TRIED).max(1);
    let stride = usize::try_from(stride).unwrap_or(usize::MAX);
    let samples = (0..frames).step_by(stride);
    for n in samples.chain(frames.checked_sub(1)) {
        let mut bytes = [0; y4m::FRAME.len()];
        let len = read_some_at(&opened.file, &mut bytes, start + n * step_bytes)?;
        if bytes[..len] != *y4m::FRAME {
            return Ok(None);
        }
    }
    let mut leftover_bytes = data_bytes % step_bytes;
    if leftover_bytes > 0 {
        let mut tail = [0; 2];
        let tail_at = start + frames * step_bytes;
        let len = read_some_at(&opened.file, &mut tail, tail_at)?;
        if len as u64 == leftover_bytes && tail[..len].iter().all(|byte| b"\r\n".contains(byte)) {
            leftover_bytes = 0;
        }
    }
    Ok(Some(Counted {
        index: FrameIndex::Regular {
            start_bytes: start + y4m::FRAME.len() as u64,
            step_bytes,
        },
        frames,
        leftover_bytes,
    }))
}

/// Looks at each line.
pub fn listed(
    opened: &Opened,
    header: &Header,
    frame_bytes: u64,
    waker: &Waker,
) -> Result<Counted, SetupError> {
    let mut scan = Scan::new(header, frame_bytes);
    let mut listing = Listing::default();
    let end = loop {
        if listing.frames().is_multiple_of(STEPS) && waker.is_woken() {
            return Err(SetupError::Woken);
        }
        let at = scan.at();
        let found = scan.find(&opened.file);
        match found.map_err(|error| failed(&opened.path, error))? {
            Some(found) if found.start_bytes + frame_bytes <= opened.len_bytes => {
                listing.push(found.start_bytes, found.fields);
            }
            Some(_) => break at,
            None => break scan.at(),
        }
    };
    Ok(Counted {
        frames: listing.frames(),
        leftover_bytes: opened.len_bytes.saturating_sub(end),
        index: FrameIndex::Listed(Arc::new(listing)),
    })
}

/// Frames without lines, from `start_bytes` on.
pub fn of_raw(opened: &Opened, layout: &Layout, start_bytes: u64) -> Counted {
    let frame_bytes = (layout.size_bytes as u64).max(1);
    let have_bytes = opened.len_bytes.saturating_sub(start_bytes);
    Counted {
        index: FrameIndex::Regular {
            start_bytes,
            step_bytes: frame_bytes,
        },
        frames: have_bytes / frame_bytes,
        leftover_bytes: have_bytes % frame_bytes,
    }
}

/// The frames of a sequence, and the files that have bytes left over.
pub struct CountedFiles {
    /// Which frame is where.
    pub table: FileTable,
    /// Names, and numbers of bytes.
    pub leftovers: Vec<(String, u64)>,
}

/// Counts the frames of each of `count` files. `header` is that of the first,
/// which the others must agree with.
pub fn of_files(
    (sequence, first, count): (&Sequence, u64, u64),
    header: Option<&Header>,
    layout: &Layout,
    start_bytes: u64,
    waker: &Waker,
) -> Result<CountedFiles, SetupError> {
    let mut counted_files = CountedFiles {
        table: FileTable::default(),
        leftovers: Vec::new(),
    };
    for n in 0..count {
        if n.is_multiple_of(STEPS) && waker.is_woken() {
            return Err(SetupError::Woken);
        }
        let opened = Opened::open_file(&sequence.path(first + n))?;
        let own_header = match header {
            Some(_) => read_header(&opened)?,
            None => None,
        };
        let counted = match (header, own_header) {
            (None, _) => of_raw(&opened, layout, start_bytes),
            (Some(header), Some(own)) => {
                let same = header.check_same(&own, 0);
                same.map_err(|error| failed(&opened.path, error.into()))?;
                of_y4m(&opened, &own, layout.size_bytes as u64, waker)?
            }
            (Some(_), None) => {
                return Err(SetupError::NotAlike { path: opened.path });
            }
        };
        if counted.leftover_bytes > 0 {
            let name = opened.path.to_string_lossy().into_owned();
            counted_files.leftovers.push((name, counted.leftover_bytes));
        }
        counted_files.table.push(counted.frames, counted.index);
    }
    Ok(counted_files)
}
