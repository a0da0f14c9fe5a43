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

/// Frame headers that are sampled before all others are taken to be as short.
const LINES_TRIED: u64 = 64;
/// Frames, or files, that are counted between two checks of the waker.
const STEPS: u64 = 256;

#[derive(Debug, Clone)]
pub struct FrameCount {
    pub index: FrameIndex,
    pub frames: u64,
    /// Bytes after the last whole frame.
    pub leftover_bytes: u64,
}

/// The stream header of a YUV4MPEG2 file; `None` for any other file. Its length counts from
/// the beginning of the file.
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

/// Fails unless the file has a whole frame. Reads only the first frame header, because it
/// runs during a state change.
pub fn check_y4m(opened: &Opened, header: &Header, frame_bytes: u64) -> Result<(), SetupError> {
    let found = Scan::new(header, frame_bytes).find(&opened.file);
    match found.map_err(|error| failed(&opened.path, error))? {
        Some(found) if found.start_bytes + frame_bytes <= opened.len_bytes => Ok(()),
        _ => Err(failed(&opened.path, Y4mError::NoFrames(frame_bytes).into())),
    }
}

/// Finds the frames of a YUV4MPEG2 file. In nearly every file all frame headers have the least
/// length, so a few are sampled. If one of these is longer, each header is read.
pub fn of_y4m(
    opened: &Opened,
    header: &Header,
    frame_bytes: u64,
    waker: &Waker,
) -> Result<FrameCount, SetupError> {
    match regular(opened, header, frame_bytes)? {
        Some(frame_count) => Ok(frame_count),
        None => listed(opened, header, frame_bytes, waker),
    }
}

/// `None` if the frames do not lie at equal distances. A longer frame header shifts all later
/// frames, so the sample of the last frame alone would reveal it.
pub fn regular(
    opened: &Opened,
    header: &Header,
    frame_bytes: u64,
) -> Result<Option<FrameCount>, SetupError> {
    sampled(opened, header, frame_bytes).map_err(|error| failed(&opened.path, error))
}

fn sampled(
    opened: &Opened,
    header: &Header,
    frame_bytes: u64,
) -> Result<Option<FrameCount>, ScanError> {
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
    Ok(Some(FrameCount {
        index: FrameIndex::Regular {
            start_bytes: start + y4m::FRAME.len() as u64,
            step_bytes,
        },
        frames,
        leftover_bytes,
    }))
}

/// Finds the frames by reading each frame header.
pub fn listed(
    opened: &Opened,
    header: &Header,
    frame_bytes: u64,
    waker: &Waker,
) -> Result<FrameCount, SetupError> {
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
    Ok(FrameCount {
        frames: listing.frames(),
        leftover_bytes: opened.len_bytes.saturating_sub(end),
        index: FrameIndex::Listed(Arc::new(listing)),
    })
}

/// The frames of a raw file, which follow one another from `start_bytes` on.
pub fn of_raw(opened: &Opened, layout: &Layout, start_bytes: u64) -> FrameCount {
    let frame_bytes = (layout.size_bytes as u64).max(1);
    let have_bytes = opened.len_bytes.saturating_sub(start_bytes);
    FrameCount {
        index: FrameIndex::Regular {
            start_bytes,
            step_bytes: frame_bytes,
        },
        frames: have_bytes / frame_bytes,
        leftover_bytes: have_bytes % frame_bytes,
    }
}

pub struct CountedFiles {
    pub table: FileTable,
    /// The files that do not end with a whole frame, and the number of bytes left over.
    pub leftovers: Vec<(String, u64)>,
}

/// Counts the frames of `count` files of a sequence. `header` is the stream header of the
/// first file, with which those of the others must agree.
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
        let own_header = read_header(&opened)?;
        let frame_count = match (header, own_header) {
            (None, None) => of_raw(&opened, layout, start_bytes),
            (None, Some(_)) => return Err(SetupError::NotRaw { path: opened.path }),
            (Some(header), Some(own)) => {
                let same = header.check_same(&own, 0);
                same.map_err(|error| failed(&opened.path, error.into()))?;
                of_y4m(&opened, &own, layout.size_bytes as u64, waker)?
            }
            (Some(_), None) => {
                return Err(SetupError::NotAlike { path: opened.path });
            }
        };
        if frame_count.leftover_bytes > 0 {
            let name = opened.path.to_string_lossy().into_owned();
            counted_files
                .leftovers
                .push((name, frame_count.leftover_bytes));
        }
        counted_files
            .table
            .push(frame_count.frames, frame_count.index);
    }
    Ok(counted_files)
}
