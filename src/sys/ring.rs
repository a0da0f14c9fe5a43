// SPDX-License-Identifier: MPL-2.0
//! Reads in flight on an io_uring, in order: the kernel writes into memory that
//! the ring owns until it is done. Whatever the kernel refuses, each job comes
//! back, with the error if need be.

mod fixed;
mod queue;

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use io_uring::{opcode, types};

use fixed::FixedBlocks;
pub use fixed::Keeper;
use queue::{Enter, Queue};

/// The kernel's IOV_MAX.
pub const MAX_PIECES: usize = 1024;
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

/// One read: at most [`MAX_PIECES`] pieces that follow one another in a file.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// Which of the ring's files.
    pub file: usize,
    /// Where in it.
    pub offset_bytes: u64,
    /// Where to.
    pub pieces: &'a [Piece],
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
    queue: Queue,
    fixed: FixedBlocks,
    jobs: VecDeque<Job<T>>,
    /// Number of the job at the front.
    front: u64,
    /// What is read from.
    files: Vec<File>,
    /// The kernel writes here what nobody wants.
    waste: Box<[u8]>,
    /// Vectors of jobs that are done, for the next.
    spare: Vec<(Vec<libc::iovec>, Vec<usize>)>,
}

// SAFETY: the raw pointers in the jobs' iovecs and in the queue's entries point into
// the jobs' own landings and vectors and into `waste`, which move with the ring or
// not at all.
unsafe impl<T: Landing + Send> Send for ReadRing<T> {}

impl<T: Landing> ReadRing<T> {
    /// Reads from `files`. Fails where io_uring is missing or forbidden. No waste
    /// piece may be longer than `waste_bytes`.
    pub fn new(files: Vec<File>, waste_bytes: usize) -> io::Result<Self> {
        Self::with_enter(files, waste_bytes, queue::enter())
    }

    fn with_enter(files: Vec<File>, waste_bytes: usize, enter: Enter) -> io::Result<Self> {
        let queue = Queue::new(enter)?;
        Ok(Self {
            fixed: FixedBlocks::new(&queue.submitter()),
            queue,
            jobs: VecDeque::new(),
            front: 0,
            files,
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

    /// Lends `landing` to the kernel and begins to fill it. An error means that the
    /// reads make no sense; one of the kernel comes with the job, in its turn.
    pub fn push(&mut self, landing: T, reads: &[Read<'_>]) -> io::Result<()> {
        let renewed = self.renew();
        let (job, fixed) = self.plan(landing, reads)?;
        self.jobs.push_back(job);
        match renewed {
            Ok(()) => self.start(reads, fixed),
            Err(error) => {
                if let Some(job) = self.jobs.back_mut() {
                    job.result = Err(error);
                }
            }
        }
        Ok(())
    }

    /// Makes up for what failed before, and for memory that has gone.
    fn renew(&mut self) -> io::Result<()> {
        if self.queue.renew()? {
            self.fixed = FixedBlocks::new(&self.queue.submitter());
        }
        self.fixed.sweep(&self.queue.submitter());
        Ok(())
    }

    /// A job with nothing under way, and the index of its memory if that is registered.
    fn plan(&mut self, mut landing: T, reads: &[Read<'_>]) -> io::Result<(Job<T>, Option<u16>)> {
        let (mut iovecs, mut wanted) = self.spare.pop().unwrap_or_default();
        iovecs.clear();
        wanted.clear();
        let keeper = landing.keeper();
        let bytes = landing.bytes_mut();
        let (base, len) = (bytes.as_mut_ptr(), bytes.len());
        for Read { file, pieces, .. } in reads {
            if *file >= self.files.len() || pieces.is_empty() || wanted.len() >> OP_BITS > 0 {
                return Err(io::ErrorKind::InvalidInput.into());
            }
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
        let fixed = keeper.and_then(|keeper| {
            self.fixed
                .index(&self.queue.submitter(), base, len, &keeper)
        });
        let job = Job {
            landing,
            iovecs,
            wanted,
            pending: 0,
            result: Ok(true),
        };
        Ok((job, fixed))
    }

    /// Starts the reads of the job at the back.
    fn start(&mut self, reads: &[Read<'_>], fixed: Option<u16>) {
        let id = self.front + self.jobs.len() as u64 - 1;
        let Some(job) = self.jobs.back_mut() else {
            return;
        };
        let mut first = 0;
        for (index, read) in reads.iter().enumerate() {
            let iovec = &job.iovecs[first];
            let fd = types::Fd(self.files[read.file].as_raw_fd());
            let to = iovec.iov_base.cast();
            let len = u32::try_from(iovec.iov_len).unwrap_or(u32::MAX);
            let entry = match (read.pieces, fixed) {
                ([Piece::Bytes { .. }], Some(index)) => opcode::ReadFixed::new(fd, to, len, index)
                    .offset(read.offset_bytes)
                    .build(),
                ([_], _) => opcode::Read::new(fd, to, len)
                    .offset(read.offset_bytes)
                    .build(),
                _ => opcode::Readv::new(fd, iovec, read.pieces.len() as u32)
                    .offset(read.offset_bytes)
                    .build(),
            };
            first += read.pieces.len();
            let entry = entry.user_data(id << OP_BITS | index as u64);
            job.pending += 1;
            // SAFETY: the entry's memory is that of a job in `self.jobs` or of
            // `self.waste`, its file one of `self.files`. All stay until the
            // operation has completed or was given up: a job leaves the queue only
            // with none pending, and drop waits for all.
            unsafe { self.queue.push(entry) };
        }
        self.hand_over();
    }

    /// Gives the kernel what it will take.
    fn hand_over(&mut self) {
        if let Err(error) = self.queue.hand_over() {
            let given_up = self.queue.give_up();
            for user_data in given_up {
                let (index, _) = place(user_data, self.front);
                if let Some(job) = self.jobs.get_mut(index) {
                    job.pending -= 1;
                    // An error of its own, since io::Error cannot be cloned.
                    job.result = Err(error
                        .raw_os_error()
                        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error));
                }
            }
        }
    }

    /// Takes note of what is complete.
    fn reap(&mut self) {
        for completion in self.queue.reap() {
            let (index, op) = place(completion.user_data, self.front);
            let Some(job) = self.jobs.get_mut(index) else {
                continue;
            };
            job.pending -= 1;
            let wanted = job.wanted.get(op).copied().unwrap_or_default();
            match usize::try_from(completion.result) {
                Ok(read) if read == wanted => {}
                Ok(_) => {
                    if job.result.is_ok() {
                        job.result = Ok(false);
                    }
                }
                Err(_) => job.result = Err(io::Error::from_raw_os_error(-completion.result)),
            }
        }
    }

    /// The job at the front, if it is done. While it is not, something is in flight
    /// whose completion [`ReadRing::fd`] tells of.
    pub fn pop(&mut self) -> Option<Done<T>> {
        self.reap();
        self.hand_over();
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
        self.queue.fd()
    }

    /// Waits until nothing is in flight and gives all back.
    pub fn drain(&mut self) {
        self.queue.give_up().for_each(drop);
        loop {
            self.reap();
            if !self.queue.is_busy() {
                break;
            }
            self.queue.wait();
        }
        self.front += self.jobs.len() as u64;
        self.jobs.clear();
    }
}

/// Of user data: the index of the job, and the number of the operation in it.
fn place(user_data: u64, front: u64) -> (usize, usize) {
    let index = (user_data >> OP_BITS).wrapping_sub(front);
    let op = user_data & ((1 << OP_BITS) - 1);
    (index as usize, op as usize)
}

impl<T: Landing> Drop for ReadRing<T> {
    fn drop(&mut self) {
        self.drain();
    }
}

#[cfg(test)]
mod tests;
