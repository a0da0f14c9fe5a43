// SPDX-License-Identifier: MPL-2.0
//! Frames that are read ahead: several in flight on an io_uring, each straight
//! into the buffer that will leave with it, in order.

use super::{
    DirectFile, FrameIndex, FrameReader, FrameSource, Outcome, PlainFile, ReadError, Route, Target,
    direct::{Bounce, Middle},
    read::{GAP_BYTES, preadv_length},
};
use crate::{
    layout::{Layout, Run, Transfer},
    rawvideosrc::waker::{Wake, Waker},
    sys::ring::{Keeper, Landing, MAX_PIECES, Piece, Read, ReadRing},
};
use std::{fs::File, io};

/// A frame in more reads than this is not read ahead.
const MAX_READS: usize = 32;
/// The ring's files: that of the page cache first, then that past it, if any.
const BUFFERED: usize = 0;
const DIRECT: usize = 1;

/// A mapped buffer on its way.
pub trait Freight: Landing + Send {
    /// Where the planes are in it.
    fn layout(&self) -> &Layout;
}

/// A buffer, and where its bytes land first if they cannot land in itself.
struct Flight<T> {
    n: u64,
    freight: T,
    detour: Option<Detour>,
    /// Nothing is in flight for it: it is read when its turn comes.
    is_grounded: bool,
}

/// An aligned copy of a part of the file.
struct Detour {
    bounce: Bounce,
    len_bytes: usize,
    /// Of the frame in it.
    frame_start: usize,
}

// SAFETY: the freight's bytes stay by its own promise, the bounce's because they
// are on the heap; which of the two is lent does not change in flight.
unsafe impl<T: Freight> Landing for Flight<T> {
    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.detour {
            Some(detour) => detour.bounce.get(detour.len_bytes),
            None => self.freight.bytes_mut(),
        }
    }

    fn keeper(&self) -> Option<Keeper> {
        match &self.detour {
            Some(_) => None,
            None => self.freight.keeper(),
        }
    }
}

/// The file, and how a frame that was not read ahead is read.
enum Ground {
    Plain(FrameReader<PlainFile>),
    Direct(FrameReader<DirectFile>),
}

impl Ground {
    fn source(&mut self) -> &mut dyn FrameSource {
        match self {
            Self::Plain(reader) => reader,
            Self::Direct(reader) => reader,
        }
    }
}

/// Reads ahead.
pub struct Prefetcher<T: Freight> {
    ring: ReadRing<Flight<T>>,
    ground: Ground,
    index: FrameIndex,
    route: Route,
    bounces: Vec<Bounce>,
    /// Copied after a detour.
    landed_bytes: u64,
}

/// A frame that has arrived, or not.
pub struct Arrival<T> {
    /// Its number in the file.
    pub n: u64,
    /// The buffer.
    pub freight: T,
    /// What is in it.
    pub outcome: Result<Outcome, ReadError>,
}

impl<T: Freight> Prefetcher<T> {
    /// Through the page cache. `route` and `ground_route` are two of the same.
    pub fn plain(
        file: File,
        index: FrameIndex,
        route: Route,
        ground_route: Route,
    ) -> io::Result<Self> {
        let files = vec![file.try_clone()?];
        let reader = FrameReader::new(PlainFile(file), index.clone(), ground_route);
        Self::new(
            files,
            Ground::Plain(reader.map_err(io::Error::other)?),
            index,
            route,
        )
    }

    /// Past the page cache.
    pub fn direct(
        file: DirectFile,
        index: FrameIndex,
        route: Route,
        ground_route: Route,
    ) -> io::Result<Self> {
        let files = vec![file.buffered().try_clone()?, file.direct().try_clone()?];
        let reader = FrameReader::new(file, index.clone(), ground_route);
        Self::new(
            files,
            Ground::Direct(reader.map_err(io::Error::other)?),
            index,
            route,
        )
    }

    fn new(files: Vec<File>, ground: Ground, index: FrameIndex, route: Route) -> io::Result<Self> {
        Ok(Self {
            ring: ReadRing::new(files, GAP_BYTES)?,
            ground,
            index,
            route,
            bounces: Vec::new(),
            landed_bytes: 0,
        })
    }

    /// Frames in flight.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Begins to read frame `n`.
    pub fn push(&mut self, n: u64, mut freight: T) -> io::Result<()> {
        let layout = *freight.layout();
        let Some(target) = Target::whole(freight.bytes_mut(), layout) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let Self {
            ring,
            ground,
            index,
            route,
            bounces,
            ..
        } = self;
        route.plan(&target);
        let runs = route.transfers().first().map_or(&[][..], Transfer::runs);
        let mut flight = Flight {
            n,
            freight,
            detour: None,
            is_grounded: true,
        };
        let Some(start_bytes) = index.start_bytes(n) else {
            return ring.push(flight, &[]);
        };
        match ground {
            Ground::Plain(_) => {
                let read = |at, pieces| Read {
                    file: BUFFERED,
                    offset_bytes: start_bytes + at as u64,
                    pieces,
                };
                if let [run] = runs {
                    flight.is_grounded = false;
                    let piece = [Piece::from(run)];
                    return ring.push(flight, &[read(run.source_bytes, &piece)]);
                }
                let mut reads: Vec<(usize, Vec<Piece>)> = Vec::new();
                let mut rest = runs;
                while !rest.is_empty() {
                    let (batch, after) = rest.split_at(preadv_length(rest));
                    reads.push((batch[0].source_bytes, pieces(batch)));
                    rest = after;
                }
                if reads.len() > MAX_READS {
                    return ring.push(flight, &[]);
                }
                flight.is_grounded = false;
                let reads = reads.iter().map(|(at, pieces)| read(*at, pieces));
                ring.push(flight, &reads.collect::<Vec<_>>())
            }
            Ground::Direct(reader) => {
                let file = reader.medium();
                flight.is_grounded = false;
                if let [run] = runs {
                    let at = start_bytes + run.source_bytes as u64;
                    let to = flight.freight.bytes_mut()[run.target_bytes..].as_ptr();
                    if let Some(middle) = file.middle(at, to, run.len_bytes) {
                        return push_around(ring, flight, at, run, middle);
                    }
                }
                // All of the frame, in whole blocks, beside the buffer.
                let unit = file.offset_alignment_bytes();
                let from = start_bytes - start_bytes % unit;
                let end = start_bytes + route.source().size_bytes as u64;
                let len_bytes = (end.next_multiple_of(unit) - from) as usize;
                flight.detour = Some(Detour {
                    bounce: bounces.pop().unwrap_or_default(),
                    len_bytes,
                    frame_start: (start_bytes - from) as usize,
                });
                let piece = [Piece::Bytes {
                    start: 0,
                    len_bytes,
                }];
                let read = Read {
                    file: DIRECT,
                    offset_bytes: from,
                    pieces: &piece,
                };
                ring.push(flight, &[read])
            }
        }
    }

    /// Waits for the frame that was begun first. None if nothing is in flight,
    /// or if `waker` ended the wait.
    pub fn pop(&mut self, waker: &Waker) -> io::Result<Option<Arrival<T>>> {
        let done = loop {
            if let Some(done) = self.ring.pop() {
                break done;
            }
            if self.ring.is_empty() || waker.wait(self.ring.fd())? == Wake::Woken {
                return Ok(None);
            }
        };
        let mut flight = done.landing;
        let came_whole = match done.result {
            Ok(whole) => whole,
            Err(error) => {
                if let (Ground::Direct(reader), Some(libc::EFAULT)) =
                    (&self.ground, error.raw_os_error())
                {
                    reader.medium().refuse();
                }
                false
            }
        };
        // A detour reads whole blocks, of which the file need not have the last.
        let outcome = if came_whole && !flight.is_grounded {
            self.land(&mut flight);
            Ok(Outcome::Frame)
        } else {
            self.read_on_ground(&mut flight)
        };
        if let Some(detour) = flight.detour {
            self.bounces.push(detour.bounce);
        }
        Ok(Some(Arrival {
            n: flight.n,
            freight: flight.freight,
            outcome,
        }))
    }

    /// Copies from the detour, if the flight took one.
    fn land(&mut self, flight: &mut Flight<T>) {
        let Some(detour) = &mut flight.detour else {
            return;
        };
        let from = &detour.bounce.get(detour.len_bytes)[detour.frame_start..];
        let layout = *flight.freight.layout();
        let to = flight.freight.bytes_mut();
        if let Some(target) = Target::whole(to, layout) {
            self.route.plan(&target);
        }
        for transfer in self.route.transfers() {
            for run in transfer.runs() {
                to[run.target_bytes..run.target_bytes + run.len_bytes]
                    .copy_from_slice(&from[run.source_bytes..run.source_bytes + run.len_bytes]);
                self.landed_bytes += run.len_bytes as u64;
            }
        }
    }

    fn read_on_ground(&mut self, flight: &mut Flight<T>) -> Result<Outcome, ReadError> {
        let layout = *flight.freight.layout();
        let Some(mut target) = Target::whole(flight.freight.bytes_mut(), layout) else {
            return Err(ReadError::Io {
                frame: flight.n,
                offset_bytes: 0,
                source: io::ErrorKind::InvalidInput.into(),
            });
        };
        self.ground.source().read(flight.n, &mut target)
    }

    /// Bytes that had to be copied on their way, beside the read.
    pub fn bounced_bytes(&self) -> u64 {
        let on_ground = match &self.ground {
            Ground::Plain(reader) => reader.bounced_bytes(),
            Ground::Direct(reader) => reader.bounced_bytes(),
        };
        self.landed_bytes + on_ground
    }

    /// Reads one frame when it is due.
    pub fn ground(&mut self) -> &mut dyn FrameSource {
        self.ground.source()
    }
}

/// The middle of a run directly, what is left at its ends through the page cache.
fn push_around<T: Freight>(
    ring: &mut ReadRing<Flight<T>>,
    flight: Flight<T>,
    at: u64,
    run: &Run,
    middle: Middle,
) -> io::Result<()> {
    let tail_start = middle.start + middle.len_bytes;
    let piece = |start: usize, end: usize| {
        [Piece::Bytes {
            start: run.target_bytes + start,
            len_bytes: end - start,
        }]
    };
    let body = piece(middle.start, tail_start);
    let head = piece(0, middle.start);
    let tail = piece(tail_start, run.len_bytes);
    let read = |file, start, pieces| Read {
        file,
        offset_bytes: at + start as u64,
        pieces,
    };
    let body = read(DIRECT, middle.start, &body);
    let head = read(BUFFERED, 0, &head);
    let tail = read(BUFFERED, tail_start, &tail);
    match (middle.start > 0, tail_start < run.len_bytes) {
        (false, false) => ring.push(flight, &[body]),
        (true, false) => ring.push(flight, &[body, head]),
        (false, true) => ring.push(flight, &[body, tail]),
        (true, true) => ring.push(flight, &[body, head, tail]),
    }
}

impl From<&Run> for Piece {
    fn from(run: &Run) -> Self {
        Self::Bytes {
            start: run.target_bytes,
            len_bytes: run.len_bytes,
        }
    }
}

/// The runs of one read, with the gaps between them.
fn pieces(batch: &[Run]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(batch.len());
    let mut at = batch[0].source_bytes;
    for run in batch {
        if run.source_bytes > at {
            pieces.push(Piece::Waste(run.source_bytes - at));
        }
        pieces.push(Piece::from(run));
        at = run.source_bytes + run.len_bytes;
    }
    debug_assert!(pieces.len() <= MAX_PIECES);
    pieces
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
        layout: Layout,
    }

    // SAFETY: the bytes are on the heap, and nothing makes them grow.
    unsafe impl Landing for Page {
        fn bytes_mut(&mut self) -> &mut [u8] {
            let len_bytes = self.shift + self.layout.size_bytes;
            &mut self.bytes.get(len_bytes)[self.shift..]
        }
    }

    impl Freight for Page {
        fn layout(&self) -> &Layout {
            &self.layout
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
            let route = || Route::new(source, &info, 1);
            let prefetcher = if is_direct {
                let Ok(file) = DirectFile::new(file) else {
                    println!("SKIPPED: no O_DIRECT in {}", std::env::temp_dir().display());
                    return Ok(());
                };
                Prefetcher::direct(file, index, route(), route())
            } else {
                Prefetcher::plain(file, index, route(), route())
            };
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
                        layout: target,
                    };
                    page.bytes_mut().fill(0xEE);
                    prefetcher.push(order[next], page).unwrap();
                    next += 1;
                }
                let mut arrival = prefetcher.pop(&waker).unwrap().unwrap();
                prop_assert_eq!(arrival.n, n);
                let outcome = arrival.outcome.unwrap();
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
                let same = rows_of(arrival.freight.bytes_mut(), &target) == rows_of(from, &source);
                prop_assert!(same, "frame {}", n);
            }
            prop_assert!(prefetcher.is_empty());
        }
    }
}
