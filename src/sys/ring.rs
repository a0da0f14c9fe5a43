// SPDX-License-Identifier: MPL-2.0
//! Reads in flight on an io_uring, in order: the kernel writes into memory that
//! the ring owns until it is done.

use std::{
    any::Any,
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::Arc,
};

use io_uring::{IoUring, opcode, squeue, types};

/// The kernel's IOV_MAX.
pub const MAX_PIECES: usize = 1024;
const ENTRIES: u32 = 64;
/// Buffers registered at most; a pool has fewer.
const MAX_FIXED: u32 = 64;
/// Of the user data, for the number of the operation within its job.
const OP_BITS: u32 = 8;

/// Memory that stays where it is.
///
/// # Safety
/// `bytes_mut` returns the same memory each time, also after the value was
/// moved, until it is dropped; nobody else looks at it while the value is lent
/// to a [`ReadRing`].
pub unsafe trait Landing {
    /// The memory.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Whoever keeps the memory mapped, if it is worth registering with the ring:
    /// it will come again, and its pages can be pinned. Never for memory of a CMA
    /// heap: kernels before 6.14 do not return from registering that.
    fn keeper(&self) -> Option<Keeper> {
        None
    }
}

/// Keeps memory mapped as long as it lives.
pub type Keeper = Arc<dyn Any + Send + Sync>;

/// Memory whose pages the kernel has looked up already.
struct Fixed {
    start: usize,
    len_bytes: usize,
    /// While it lives, no other memory can be at that address.
    _keeper: Keeper,
}

/// Some bytes of the landing, or bytes that nobody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// That much of the landing.
    Bytes {
        /// From its start.
        start: usize,
        /// Length.
        len_bytes: usize,
    },
    /// So many bytes of the file are skipped by reading them.
    Waste(usize),
}

impl Piece {
    fn len_bytes(&self) -> usize {
        match self {
            Self::Bytes { len_bytes, .. } | Self::Waste(len_bytes) => *len_bytes,
        }
    }
}

struct Job<T> {
    landing: T,
    /// Read by the kernel until its operations are done.
    iovecs: Vec<libc::iovec>,
    /// Bytes that each operation must bring.
    wanted: Vec<usize>,
    pending: usize,
    result: io::Result<bool>,
}

/// How a job ended.
#[derive(Debug)]
pub struct Done<T> {
    /// What was lent.
    pub landing: T,
    /// True if every byte came; false if the file gave fewer.
    pub result: io::Result<bool>,
}

/// A ring and what is in flight on it.
pub struct ReadRing<T: Landing> {
    ring: IoUring,
    jobs: VecDeque<Job<T>>,
    /// Number of the job at the front.
    front: u64,
    /// The kernel writes here what nobody wants.
    waste: Box<[u8]>,
    /// Registered memory, by its index in the kernel's table; none once the
    /// kernel has refused some.
    fixed: Option<Vec<Fixed>>,
    /// Vectors of jobs that are done, for the next.
    spare: Vec<(Vec<libc::iovec>, Vec<usize>)>,
}

// SAFETY: the raw pointers in the jobs' iovecs point into their own landings and
// into `waste`, which move with the ring or not at all.
unsafe impl<T: Landing + Send> Send for ReadRing<T> {}

impl<T: Landing> ReadRing<T> {
    /// Fails where io_uring is missing or forbidden. No waste piece may be longer
    /// than `waste_bytes`.
    pub fn new(waste_bytes: usize) -> io::Result<Self> {
        let ring = IoUring::builder().dontfork().build(ENTRIES)?;
        // Since 5.13 (and sparse since 5.19); without it, pages are looked up
        // for each read.
        let fixed = ring.submitter().register_buffers_sparse(MAX_FIXED);
        Ok(Self {
            fixed: fixed.is_ok().then(Vec::new),
            ring,
            jobs: VecDeque::new(),
            front: 0,
            waste: vec![0; waste_bytes].into_boxed_slice(),
            spare: Vec::new(),
        })
    }

    /// Jobs in flight, those that are done but not taken included.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Lends `landing` to the kernel and begins to fill it: each read is a file,
    /// an offset and at most [`MAX_PIECES`] pieces that follow one another there.
    pub fn push(
        &mut self,
        mut landing: T,
        reads: &[(BorrowedFd<'_>, u64, &[Piece])],
    ) -> io::Result<()> {
        let (mut iovecs, mut wanted) = self.spare.pop().unwrap_or_default();
        iovecs.clear();
        wanted.clear();
        let keeper = landing.keeper();
        let bytes = landing.bytes_mut();
        let (base, len) = (bytes.as_mut_ptr(), bytes.len());
        let fixed = keeper.and_then(|keeper| self.fix(base, len, keeper));
        for (_, _, pieces) in reads {
            for piece in *pieces {
                let (start, room) = match piece {
                    Piece::Bytes { start, .. } if *start <= len => {
                        (base.wrapping_add(*start), len - start)
                    }
                    Piece::Bytes { .. } => (base, 0),
                    Piece::Waste(_) => (self.waste.as_mut_ptr(), self.waste.len()),
                };
                if piece.len_bytes() > room {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                iovecs.push(libc::iovec {
                    iov_base: start.cast(),
                    iov_len: piece.len_bytes(),
                });
            }
            wanted.push(pieces.iter().map(Piece::len_bytes).sum());
        }
        let id = self.front + self.jobs.len() as u64;
        self.jobs.push_back(Job {
            landing,
            iovecs,
            wanted,
            pending: 0,
            result: Ok(true),
        });
        let mut first = 0;
        for (index, (fd, offset, pieces)) in reads.iter().enumerate() {
            let Some(job) = self.jobs.back() else { break };
            let iovec = &job.iovecs[first];
            let fd = types::Fd(fd.as_raw_fd());
            let to = iovec.iov_base.cast();
            let len = u32::try_from(iovec.iov_len).unwrap_or(u32::MAX);
            let entry = match (*pieces, fixed) {
                ([Piece::Bytes { .. }], Some(index)) => opcode::ReadFixed::new(fd, to, len, index)
                    .offset(*offset)
                    .build(),
                ([_], _) => opcode::Read::new(fd, to, len).offset(*offset).build(),
                _ => opcode::Readv::new(fd, iovec, pieces.len() as u32)
                    .offset(*offset)
                    .build(),
            };
            first += pieces.len();
            let entry = entry.user_data(id << OP_BITS | index as u64);
            if let Err(error) = self.submit(&entry) {
                // The job keeps its place; what is wrong is told in its turn.
                if let Some(job) = self.jobs.back_mut() {
                    job.result = Err(error);
                }
                break;
            }
        }
        Ok(())
    }

    /// The index of registered memory, registered now if it is new.
    fn fix(&mut self, base: *mut u8, len_bytes: usize, keeper: Keeper) -> Option<u16> {
        let fixed = self.fixed.as_mut()?;
        let start = base as usize;
        let known = fixed
            .iter()
            .position(|fixed| fixed.start == start && fixed.len_bytes == len_bytes);
        if let Some(index) = known {
            return u16::try_from(index).ok();
        }
        let index = u32::try_from(fixed.len())
            .ok()
            .filter(|index| *index < MAX_FIXED)?;
        let piece = libc::iovec {
            iov_base: base.cast(),
            iov_len: len_bytes,
        };
        // SAFETY: the memory is mapped as long as its keeper lives, which is kept
        // as long as the ring.
        let updated = unsafe {
            self.ring
                .submitter()
                .register_buffers_update(index, &[piece], None)
        };
        if updated.is_err() {
            // Too much for RLIMIT_MEMLOCK, or memory without pages: the next
            // buffer would fare no better.
            self.fixed = None;
            return None;
        }
        fixed.push(Fixed {
            start,
            len_bytes,
            _keeper: keeper,
        });
        u16::try_from(index).ok()
    }

    /// Queues an operation of the job at the back and hands it to the kernel.
    fn submit(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the entry's memory is that of a job in `self.jobs` or of
            // `self.waste`. Both stay until the operation has completed: a job
            // leaves the queue only with none pending, and drop waits for all.
            let is_queued = unsafe { self.ring.submission().push(entry) }.is_ok();
            if is_queued && let Some(job) = self.jobs.back_mut() {
                job.pending += 1;
            }
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The completion queue is full: make room.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => self.reap(),
                Err(error) => return Err(error),
            }
            if is_queued {
                return Ok(());
            }
        }
    }

    /// Takes note of what is complete.
    fn reap(&mut self) {
        let front = self.front;
        for entry in self.ring.completion() {
            let index = ((entry.user_data() >> OP_BITS) - front) as usize;
            let op = (entry.user_data() & ((1 << OP_BITS) - 1)) as usize;
            let Some(job) = self.jobs.get_mut(index) else {
                continue;
            };
            job.pending -= 1;
            let wanted = job.wanted.get(op).copied().unwrap_or_default();
            match usize::try_from(entry.result()) {
                Ok(read) if read == wanted => {}
                Ok(_) => {
                    if job.result.is_ok() {
                        job.result = Ok(false);
                    }
                }
                Err(_) => job.result = Err(io::Error::from_raw_os_error(-entry.result())),
            }
        }
    }

    /// The job at the front, if it is done.
    pub fn pop(&mut self) -> Option<Done<T>> {
        self.reap();
        if self.jobs.front()?.pending > 0 {
            return None;
        }
        let job = self.jobs.pop_front()?;
        self.front += 1;
        self.spare.push((job.iovecs, job.wanted));
        Some(Done {
            landing: job.landing,
            result: job.result,
        })
    }

    /// Becomes readable when something is complete.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Waits until nothing is in flight and gives all back.
    pub fn drain(&mut self) {
        loop {
            self.reap();
            let pending: usize = self.jobs.iter().map(|job| job.pending).sum();
            if pending == 0 {
                break;
            }
            // Interrupted or not, what counts is what the queue then says.
            let _ = self.ring.submit_and_wait(1);
        }
        self.front += self.jobs.len() as u64;
        self.jobs.clear();
    }
}

impl<T: Landing> Drop for ReadRing<T> {
    fn drop(&mut self) {
        self.drain();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::fd::AsFd};

    struct Heap(Vec<u8>);

    // SAFETY: a vector's bytes stay where they are while it only moves.
    unsafe impl Landing for Heap {
        fn bytes_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    fn ring() -> Option<ReadRing<Heap>> {
        match ReadRing::new(100) {
            Ok(ring) => Some(ring),
            Err(error) => {
                println!("SKIPPED: no io_uring here: {error}");
                None
            }
        }
    }

    fn wait(ring: &mut ReadRing<Heap>) -> Done<Heap> {
        loop {
            if let Some(done) = ring.pop() {
                return done;
            }
            let mut fds = [nix::poll::PollFd::new(
                ring.fd(),
                nix::poll::PollFlags::POLLIN,
            )];
            nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
        }
    }

    #[test]
    fn jobs_come_back_in_the_order_they_went() {
        let Some(mut ring) = ring() else { return };
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..100_000).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        for at in [90_000u64, 0, 50_000, 99_000] {
            let pieces = [
                Piece::Bytes {
                    start: 600,
                    len_bytes: 400,
                },
                Piece::Waste(10),
                Piece::Bytes {
                    start: 0,
                    len_bytes: 500,
                },
            ];
            let reads = [(file.as_fd(), at, &pieces[..])];
            ring.push(Heap(vec![1; 1000]), &reads).unwrap();
        }
        for at in [90_000usize, 0, 50_000, 99_000] {
            let done = wait(&mut ring);
            assert!(done.result.unwrap());
            assert_eq!(done.landing.0[600..1000], bytes[at..at + 400]);
            assert_eq!(done.landing.0[..500], bytes[at + 410..at + 910]);
            assert_eq!(done.landing.0[500..600], [1; 100]);
        }
        assert!(ring.is_empty());
    }

    #[test]
    fn the_end_of_the_file_and_errors_are_told() {
        let Some(mut ring) = ring() else { return };
        let file = tempfile::tempfile().unwrap();
        file.set_len(1500).unwrap();
        let directory = std::fs::File::open("/").unwrap();
        let piece = [Piece::Bytes {
            start: 0,
            len_bytes: 1000,
        }];
        ring.push(Heap(vec![1; 1000]), &[(file.as_fd(), 1000, &piece)])
            .unwrap();
        ring.push(Heap(vec![1; 1000]), &[(directory.as_fd(), 0, &piece)])
            .unwrap();
        assert!(!wait(&mut ring).result.unwrap());
        assert_eq!(
            wait(&mut ring).result.unwrap_err().raw_os_error(),
            Some(libc::EISDIR)
        );
        let past = [Piece::Bytes {
            start: 600,
            len_bytes: 500,
        }];
        let refused = ring.push(Heap(vec![1; 1000]), &[(file.as_fd(), 0, &past)]);
        assert!(refused.is_err());
    }

    /// Bytes that are lent again and again.
    struct Kept(Arc<Vec<u8>>);

    // SAFETY: nobody else looks at the vector's bytes while they are lent: the
    // test below waits for each read.
    unsafe impl Landing for Kept {
        fn bytes_mut(&mut self) -> &mut [u8] {
            let start = self.0.as_ptr().cast_mut();
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts_mut(start, self.0.len()) }
        }

        fn keeper(&self) -> Option<Keeper> {
            Some(self.0.clone())
        }
    }

    #[test]
    fn memory_that_comes_again_is_registered_once() {
        let Ok(mut ring) = ReadRing::<Kept>::new(0) else {
            println!("SKIPPED: no io_uring here");
            return;
        };
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..100_000).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let blocks = [1, 2].map(|_| Arc::new(vec![0; 20_000]));
        for turn in 0..10usize {
            let block = &blocks[turn % 2];
            let piece = [Piece::Bytes {
                start: 100,
                len_bytes: 10_000,
            }];
            let at = turn * 5_000;
            let reads = [(file.as_fd(), at as u64, &piece[..])];
            ring.push(Kept(block.clone()), &reads).unwrap();
            let done = loop {
                if let Some(done) = ring.pop() {
                    break done;
                }
                std::thread::yield_now();
            };
            assert!(done.result.unwrap());
            assert_eq!(block[100..10_100], bytes[at..at + 10_000]);
        }
        match &ring.fixed {
            Some(fixed) => assert_eq!(fixed.len(), 2),
            None => println!("SKIPPED: nothing can be registered here"),
        }
    }

    #[test]
    fn what_is_in_flight_may_be_dropped() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        for _ in 0..20 {
            let Some(mut ring) = ring() else { return };
            for n in 0..8 {
                let piece = [Piece::Bytes {
                    start: 0,
                    len_bytes: 1 << 20,
                }];
                let reads = [(file.as_fd(), n << 20, &piece[..])];
                ring.push(Heap(vec![0; 1 << 20]), &reads).unwrap();
            }
        }
    }
}
