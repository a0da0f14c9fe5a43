// SPDX-License-Identifier: MPL-2.0
//! Reads on an io_uring that come back in order. The ring owns the memory that the kernel writes to until
//! the read is done. Each job comes back, with an error if the kernel refused it.

mod fixed;
mod queue;

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use io_uring::{opcode, types};
use nix::sched::CpuSet;

use fixed::FixedBlocks;
pub use fixed::KeepAlive;
use queue::{Enter, Queue};

/// The most reads of one job.
pub const MAX_READS: usize = 4;
/// Bits of the user data that hold the number of the operation within its job.
const OP_BITS: u32 = MAX_READS.ilog2();

/// Memory that does not move.
///
/// # Safety
/// `bytes_mut` returns the same memory each time until the value is dropped, also after the value was
/// moved. No other code accesses the memory while the value is lent to a [`ReadRing`].
pub unsafe trait ReadBuffer {
    fn bytes_mut(&mut self) -> &mut [u8];

    /// What keeps the memory mapped, if the memory is worth registering with the ring: it will be used
    /// again, and its pages can be pinned. Never return this for memory of a CMA heap: kernels before 6.14
    /// do not return from registering it.
    fn keep_alive(&self) -> Option<KeepAlive> {
        None
    }
}

/// One read of bytes that are adjacent in the file and in the buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// Index of the file in the ring's list.
    pub file: usize,
    pub offset_bytes: u64,
    /// Where the bytes go, counted from the buffer's start.
    pub start: usize,
    /// Length. 0 means that nothing is read.
    pub len_bytes: usize,
}

struct Job<T> {
    buffer: T,
    /// Bytes that each operation must bring.
    wanted: [usize; MAX_READS],
    pending: usize,
    result: io::Result<bool>,
}

#[derive(Debug)]
pub struct Done<T> {
    pub buffer: T,
    /// True if every byte came, false if fewer came.
    pub result: io::Result<bool>,
}

pub struct ReadRing<T: ReadBuffer> {
    queue: Queue,
    fixed: FixedBlocks,
    jobs: VecDeque<Job<T>>,
    /// Number of the job at the front.
    front: u64,
    files: Vec<File>,
}

impl<T: ReadBuffer> ReadRing<T> {
    /// Makes a ring that reads from `files`. Fails if io_uring is missing or forbidden.
    pub fn new(files: Vec<File>) -> io::Result<Self> {
        Self::with_enter(files, queue::enter())
    }

    fn with_enter(files: Vec<File>, enter: Enter) -> io::Result<Self> {
        let queue = Queue::new(enter)?;
        Ok(Self {
            fixed: FixedBlocks::new(&queue.submitter()),
            queue,
            jobs: VecDeque::new(),
            front: 0,
            files,
        })
    }

    /// The number of jobs that were pushed and not taken back yet, done or not.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Lends `buffer` to the kernel and starts the reads. An error here means that the reads make no sense.
    /// The kernel's errors come back with the job, in its turn.
    pub fn push(&mut self, mut buffer: T, reads: &[Read]) -> io::Result<()> {
        let keep_alive = buffer.keep_alive();
        let bytes = buffer.bytes_mut();
        let (base, len) = (bytes.as_mut_ptr(), bytes.len());
        let fits = |read: &Read| {
            let end = read.start.checked_add(read.len_bytes);
            read.file < self.files.len() && end.is_some_and(|end| end <= len)
        };
        if reads.len() > MAX_READS || !reads.iter().all(fits) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let renewed = self.renew();
        let is_renewed = renewed.is_ok();
        let mut wanted = [0; MAX_READS];
        for (wanted, read) in wanted.iter_mut().zip(reads) {
            *wanted = read.len_bytes;
        }
        self.jobs.push_back(Job {
            buffer,
            wanted,
            pending: 0,
            result: renewed.map(|()| true),
        });
        if is_renewed {
            let fixed = keep_alive.and_then(|keep_alive| {
                self.fixed
                    .register(&self.queue.submitter(), base, len, &keep_alive)
            });
            self.start(base, reads, fixed);
        }
        Ok(())
    }

    /// Replaces a ring that failed, and unregisters memory that no longer exists.
    fn renew(&mut self) -> io::Result<()> {
        if self.queue.renew()? {
            self.fixed = FixedBlocks::new(&self.queue.submitter());
        }
        self.fixed.unregister_freed(&self.queue.submitter());
        Ok(())
    }

    /// Binds the kernel's worker threads that read for the calling thread, which is to push the next jobs,
    /// to these processors. The process must be allowed to use all of them. The workers are those of the
    /// calling thread, so another thread has to call this again. Fails on kernels before 5.14, and with
    /// `WouldBlock` if the ring cannot be entered at the moment.
    pub fn bind_workers(&mut self, cpus: &CpuSet) -> io::Result<()> {
        self.renew()?;
        self.queue.bind_workers(cpus)
    }

    /// Starts the reads of the job at the back, whose buffer begins at `base`.
    fn start(&mut self, base: *mut u8, reads: &[Read], fixed: Option<u16>) {
        let id = self.front + self.jobs.len() as u64 - 1;
        let Some(job) = self.jobs.back_mut() else {
            return;
        };
        for (index, read) in reads.iter().enumerate() {
            if read.len_bytes == 0 {
                continue;
            }
            let fd = types::Fd(self.files[read.file].as_raw_fd());
            let to = base.wrapping_add(read.start);
            // The kernel reads at most 0x7fff_f000 bytes at once (MAX_RW_COUNT). The job of a longer read
            // comes back as one that lacks bytes, and the reader then reads the frame by itself.
            let len = u32::try_from(read.len_bytes).unwrap_or(u32::MAX);
            let entry = match fixed {
                Some(index) => opcode::ReadFixed::new(fd, to, len, index)
                    .offset(read.offset_bytes)
                    .build(),
                None => opcode::Read::new(fd, to, len)
                    .offset(read.offset_bytes)
                    .build(),
            };
            job.pending += 1;
            // SAFETY: the entry's memory lies in the buffer of a job in `self.jobs`, as `push` checked; its
            // file is one of `self.files`. Both stay until the operation has completed or was given up: a
            // job leaves the queue only with none pending, and drop waits for all.
            unsafe {
                self.queue
                    .push(entry.user_data(id << OP_BITS | index as u64));
            }
        }
        self.submit();
    }

    /// Gives waiting entries to the kernel, and fails those that it will never take.
    fn submit(&mut self) {
        if let Err(error) = self.queue.submit() {
            let given_up = self.queue.give_up();
            for user_data in given_up {
                let (index, _) = decode_user_data(user_data, self.front);
                if let Some(job) = self.jobs.get_mut(index) {
                    job.pending -= 1;
                    // io::Error cannot be cloned, so each job gets an error of its own.
                    job.result = Err(error
                        .raw_os_error()
                        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error));
                }
            }
        }
    }

    /// Records the completed operations.
    fn reap(&mut self) {
        for completion in self.queue.reap() {
            let (index, op) = decode_user_data(completion.user_data, self.front);
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

    /// Takes the job at the front, if it is done. If it is not, an operation is in flight, and
    /// [`ReadRing::fd`] becomes readable when it completes.
    pub fn pop(&mut self) -> Option<Done<T>> {
        self.reap();
        self.submit();
        if self.jobs.front()?.pending > 0 {
            return None;
        }
        let job = self.jobs.pop_front()?;
        self.front += 1;
        Some(Done {
            buffer: job.buffer,
            result: job.result,
        })
    }

    /// Becomes readable when an operation completes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.queue.fd()
    }

    /// Waits until nothing is in flight, and drops all jobs.
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

/// Splits user data into the index of the job and the number of the operation in it.
fn decode_user_data(user_data: u64, front: u64) -> (usize, usize) {
    let index = (user_data >> OP_BITS).wrapping_sub(front);
    let op = user_data & ((1 << OP_BITS) - 1);
    (index as usize, op as usize)
}

impl<T: ReadBuffer> Drop for ReadRing<T> {
    fn drop(&mut self) {
        self.drain();
    }
}

#[cfg(test)]
mod tests;
