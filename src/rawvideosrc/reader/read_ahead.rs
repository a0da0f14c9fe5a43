// SPDX-License-Identifier: MPL-2.0
//! Reads several frames ahead with io_uring, each straight into the buffer in which it is sent,
//! and gives them back in order.

use super::{
    Destination, DirectFile, FrameIndex, FrameReader, FrameSource, Outcome, PlainFile,
    RandomAccess, ReadError, Scratch, TransferPlan, direct::Bounce, read::CachedFile,
};
use crate::{
    layout::{Layout, Run},
    rawvideosrc::{
        CAT,
        cpus::Cpus,
        waker::{Wake, Waker},
    },
    sys::{
        describe,
        ring::{KeepAlive, Read, ReadBuffer, ReadRing},
    },
};
use std::{fs::File, io, thread::ThreadId};

/// Indices of the ring's files: through the page cache, and with O_DIRECT, if any.
const BUFFERED: usize = 0;
const DIRECT: usize = 1;

/// A regular file that is read through the page cache, or past it with O_DIRECT.
#[derive(Debug)]
pub enum DiskFile {
    Buffered(PlainFile),
    Direct(DirectFile),
}

impl DiskFile {
    fn file(&self) -> &dyn RandomAccess {
        match self {
            Self::Buffered(file) => file,
            Self::Direct(file) => file,
        }
    }

    /// The files of the ring, at the indices `BUFFERED` and `DIRECT`.
    fn files(&self) -> io::Result<Vec<File>> {
        match self {
            Self::Buffered(file) => Ok(vec![file.0.try_clone()?]),
            Self::Direct(file) => Ok(vec![
                file.buffered().try_clone()?,
                file.direct().try_clone()?,
            ]),
        }
    }

    /// The reads of a frame that is one run in the buffer at `base`. `None` if the disk cannot
    /// write there.
    fn reads(&self, start_bytes: u64, run: &Run, base: *const u8) -> Option<[Read; 3]> {
        let read = |file, start: usize, end: usize| Read {
            file,
            offset_bytes: start_bytes + (run.source_bytes + start) as u64,
            start: run.target_bytes + start,
            len_bytes: end - start,
        };
        let Self::Direct(file) = self else {
            let nothing = Read::default();
            return Some([read(BUFFERED, 0, run.len_bytes), nothing, nothing]);
        };
        let at = start_bytes + run.source_bytes as u64;
        let range = file.aligned_range(at, base.wrapping_add(run.target_bytes), run.len_bytes)?;
        let tail = range.start + range.len_bytes;
        // The unaligned ends are read through the page cache.
        Some([
            read(DIRECT, range.start, tail),
            read(BUFFERED, 0, range.start),
            read(BUFFERED, tail, run.len_bytes),
        ])
    }
}

impl RandomAccess for DiskFile {
    fn carry(
        &self,
        start_bytes: u64,
        runs: &[Run],
        part_start: usize,
        part: &mut [u8],
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        self.file()
            .carry(start_bytes, runs, part_start, part, scratch)
    }

    fn len_bytes(&self) -> Option<u64> {
        self.file().len_bytes()
    }

    fn cached(&self) -> Option<CachedFile<'_>> {
        self.file().cached()
    }

    fn bounced_bytes(&self) -> u64 {
        self.file().bounced_bytes()
    }
}

/// A frame in flight. `bounced` takes the bytes if the disk cannot write to `buffer`.
struct InFlight<T> {
    n: u64,
    buffer: T,
    layout: Layout,
    bounced: Option<Bounced>,
    /// False for a frame that only `pop` reads.
    is_begun: bool,
}

/// An aligned part of the file that contains the frame.
struct Bounced {
    bounce: Bounce,
    len_bytes: usize,
    /// Where in it the frame begins.
    frame_start: usize,
}

// SAFETY: `T` promises that the bytes of `buffer` stay in place. Those of the bounce buffer are on
// the heap, and `get` with the same length does not move them. Which of the two is lent does not
// change in flight.
unsafe impl<T: ReadBuffer> ReadBuffer for InFlight<T> {
    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.bounced {
            Some(bounced) => bounced.bounce.get(bounced.len_bytes),
            None => self.buffer.bytes_mut(),
        }
    }

    fn keep_alive(&self) -> Option<KeepAlive> {
        match &self.bounced {
            Some(_) => None,
            None => self.buffer.keep_alive(),
        }
    }
}

/// Keeps frames in flight on a ring.
pub struct Prefetcher<T: ReadBuffer> {
    ring: ReadRing<InFlight<T>>,
    reader: FrameReader<DiskFile>,
    bounces: Vec<Bounce>,
    /// Bytes copied out of bounce buffers that the ring has filled.
    bounced_bytes: u64,
    /// Where the kernel's worker threads run.
    cpus: Cpus,
    /// The thread whose workers have been bound.
    bound_by: Option<ThreadId>,
}

/// A frame whose read has ended.
pub struct Completed<T> {
    /// Number of the frame in the file.
    pub n: u64,
    pub buffer: T,
    pub outcome: Result<Outcome, ReadError>,
}

impl<T: ReadBuffer> Prefetcher<T> {
    /// Fails where io_uring is missing or forbidden.
    pub fn new(
        file: DiskFile,
        index: FrameIndex,
        plan: TransferPlan,
        cpus: Cpus,
    ) -> io::Result<Self> {
        Ok(Self {
            ring: ReadRing::new(file.files()?)?,
            reader: FrameReader::new(file, index, plan, cpus).map_err(io::Error::other)?,
            bounces: Vec::new(),
            bounced_bytes: 0,
            cpus,
            bound_by: None,
        })
    }

    /// Binds the workers that the kernel has for the calling thread, unless that has been tried.
    fn bind_workers(&mut self) {
        let this = std::thread::current().id();
        let Some(cpus) = self.cpus.set().filter(|_| self.bound_by != Some(this)) else {
            return;
        };
        match self.ring.bind_workers(cpus) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => gst::warning!(
                CAT,
                "the kernel's workers run anywhere: {} (they can be bound from Linux 5.14 on)",
                describe(&error)
            ),
            Ok(()) => {}
        }
        self.bound_by = Some(this);
    }

    pub fn len(&self) -> usize {
        self.ring.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Begins to read frame `n` into a buffer of that layout. A frame of several runs is read
    /// only by `pop`, with preadv. With O_DIRECT it is read ahead through a bounce buffer
    /// instead, because the kernel reads nothing ahead there.
    pub fn push(&mut self, n: u64, layout: Layout, mut buffer: T) -> io::Result<()> {
        self.bind_workers();
        let bytes = buffer.bytes_mut();
        let base = bytes.as_ptr();
        let Some(destination) = Destination::whole(bytes, layout) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let run = match self.reader.runs(&destination) {
            [run] => Some(*run),
            _ => None,
        };
        let mut frame = InFlight {
            n,
            buffer,
            layout,
            bounced: None,
            is_begun: false,
        };
        let Some(start_bytes) = self.reader.index().start_bytes(n) else {
            return self.ring.push(frame, &[]);
        };
        let file = self.reader.file();
        if let Some(reads) = run.and_then(|run| file.reads(start_bytes, &run, base)) {
            frame.is_begun = true;
            return self.ring.push(frame, &reads);
        }
        let DiskFile::Direct(file) = file else {
            return self.ring.push(frame, &[]);
        };
        // The whole blocks that contain the frame.
        let unit = file.offset_alignment_bytes();
        let from = start_bytes - start_bytes % unit;
        let end = start_bytes + self.reader.frame_bytes();
        let len_bytes = (end.next_multiple_of(unit) - from) as usize;
        frame.is_begun = true;
        frame.bounced = Some(Bounced {
            bounce: self.bounces.pop().unwrap_or_default(),
            len_bytes,
            frame_start: (start_bytes - from) as usize,
        });
        let read = Read {
            file: DIRECT,
            offset_bytes: from,
            start: 0,
            len_bytes,
        };
        self.ring.push(frame, &[read])
    }

    /// Waits for the frame that was pushed first. `None` if nothing is in flight, or if
    /// `waker` ended the wait.
    pub fn pop(&mut self, waker: &Waker) -> io::Result<Option<Completed<T>>> {
        let done = loop {
            if let Some(done) = self.ring.pop() {
                break done;
            }
            if self.ring.is_empty() || waker.wait(self.ring.fd())? == Wake::Woken {
                return Ok(None);
            }
        };
        let mut frame = done.buffer;
        if let (DiskFile::Direct(file), Err(error)) = (self.reader.file(), &done.result)
            && error.raw_os_error() == Some(libc::EFAULT)
        {
            file.refuse();
        }
        let is_whole = frame.is_begun && matches!(done.result, Ok(true));
        let bounced = frame.bounced.take();
        let outcome = match Destination::whole(frame.buffer.bytes_mut(), frame.layout) {
            Some(mut destination) if is_whole => {
                if let Some(mut bounced) = bounced {
                    self.copy_out(&mut bounced, &mut destination);
                    self.bounces.push(bounced.bounce);
                }
                Ok(Outcome::Frame)
            }
            // The frame was not given to the ring, or the ring refused it, or read too few bytes, as
            // at the last block of a file. So the frame is read without the ring.
            Some(mut destination) => self.reader.read(frame.n, &mut destination),
            None => Err(ReadError::Io {
                frame: frame.n,
                offset_bytes: 0,
                source: io::ErrorKind::InvalidInput.into(),
            }),
        };
        Ok(Some(Completed {
            n: frame.n,
            buffer: frame.buffer,
            outcome,
        }))
    }

    fn copy_out(&mut self, bounced: &mut Bounced, destination: &mut Destination<'_>) {
        let from = &bounced.bounce.get(bounced.len_bytes)[bounced.frame_start..];
        for run in self.reader.runs(destination) {
            run.target(0, destination.part_mut(0))
                .copy_from_slice(&from[run.source_bytes..run.source_bytes + run.len_bytes]);
            self.bounced_bytes += run.len_bytes as u64;
        }
    }

    pub fn bounced_bytes(&self) -> u64 {
        self.bounced_bytes + self.reader.bounced_bytes()
    }

    /// The reader for frames that are not read ahead.
    pub fn reader(&mut self) -> &mut FrameReader<DiskFile> {
        &mut self.reader
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::tests::{file_of, source_layout};
    use super::*;
    use crate::layout::samples::{format, info, padded, rows_of};
    use proptest::prelude::*;

    struct Page {
        bytes: Bounce,
        shift: usize,
        len_bytes: usize,
    }

    // SAFETY: the bytes are on the heap, and `get` with the same length does not move them.
    unsafe impl ReadBuffer for Page {
        fn bytes_mut(&mut self) -> &mut [u8] {
            &mut self.bytes.get(self.shift + self.len_bytes)[self.shift..]
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn frames_arrive_in_order_and_whole(
            format in format(),
            width in 1u32..80,
            height in 1u32..1200,
            header in 0usize..40,
            source_padding in 0usize..400,
            target_padding in 0usize..40,
            shift in 0usize..3,
            is_direct in any::<bool>(),
            depth in 1usize..5,
        ) {
            let info = info(format, width, height);
            let source = source_layout(&info, source_padding);
            let target = padded(&info, target_padding);
            let (file, bytes, index) = file_of(4, &source, header);
            let file = if is_direct {
                let Ok(file) = DirectFile::new(file) else {
                    println!("SKIPPED: no O_DIRECT in {}", std::env::temp_dir().display());
                    return Ok(());
                };
                DiskFile::Direct(file)
            } else {
                DiskFile::Buffered(PlainFile(file))
            };
            let plan = TransferPlan::new(source, &info, 1);
            let prefetcher = Prefetcher::new(file, index, plan, Cpus::default());
            let Ok(mut prefetcher) = prefetcher else {
                println!("SKIPPED: no io_uring here");
                return Ok(());
            };
            let waker = Waker::new().unwrap();
            let order = [2u64, 0, 3, 4, 1];
            let mut next = 0;
            for n in order {
                while next < order.len() && prefetcher.len() < depth {
                    let mut page = Page {
                        bytes: Bounce::default(),
                        shift: [0, 512, 3][shift],
                        len_bytes: target.size_bytes,
                    };
                    page.bytes_mut().fill(0xEE);
                    prefetcher.push(order[next], target, page).unwrap();
                    next += 1;
                }
                let mut completed = prefetcher.pop(&waker).unwrap().unwrap();
                prop_assert_eq!(completed.n, n);
                let outcome = completed.outcome.unwrap();
                if n == 4 {
                    let end = Outcome::End {
                        have_bytes: 0,
                        missing_bytes: source.size_bytes as u64,
                    };
                    prop_assert_eq!(outcome, end);
                    continue;
                }
                prop_assert_eq!(outcome, Outcome::Frame);
                let from = &bytes[header + n as usize * source.size_bytes..];
                let same = rows_of(completed.buffer.bytes_mut(), &target) == rows_of(from, &source);
                prop_assert!(same, "frame {}", n);
            }
            prop_assert!(prefetcher.is_empty());
        }
    }
}
