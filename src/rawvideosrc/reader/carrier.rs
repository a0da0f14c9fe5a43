// SPDX-License-Identifier: MPL-2.0
//! Reads the bytes of a frame into a buffer. Several threads each read a part of the same
//! frame, not a frame each: so the buffer stays in the CPU's cache, and frames are in order.

use super::{
    Destination, RandomAccess, ReadError, TransferPlan, direct::Bounce, read::WASTE_BYTES,
};
use crate::{
    layout::{Run, Transfer},
    rawvideosrc::cpus::Cpus,
};
use std::io;

/// Memory that each reading thread has of its own.
#[derive(Debug)]
pub struct Scratch {
    /// Takes bytes that are read and thrown away.
    pub waste: Box<[u8]>,
    /// For direct reads for which the destination buffer is not aligned.
    pub bounce: Bounce,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            waste: vec![0; WASTE_BYTES].into_boxed_slice(),
            bounce: Bounce::default(),
        }
    }
}

/// A plan for frames, and the threads that carry it out.
pub struct Carrier {
    plan: TransferPlan,
    scratches: Vec<Scratch>,
    /// The threads in addition to the caller's.
    helpers: Option<rayon::ThreadPool>,
}

impl Carrier {
    /// Starts the threads that `plan` is made for on the processors `cpus`, except the caller's,
    /// which is one of them.
    pub fn new(plan: TransferPlan, cpus: Cpus) -> Result<Self, ReadError> {
        let threads = plan.threads();
        let helpers = if threads > 1 {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads - 1)
                .thread_name(|index| format!("rawvideosrc-{index}"))
                .start_handler(move |_| cpus.bind_this_thread())
                .build()
                .map_err(|error| ReadError::Threads {
                    threads,
                    why: error.to_string(),
                })?;
            Some(pool)
        } else {
            None
        };
        Ok(Self {
            plan,
            scratches: std::iter::repeat_with(Scratch::default)
                .take(threads)
                .collect(),
            helpers,
        })
    }

    /// Bytes of one frame in the file.
    pub fn frame_bytes(&self) -> u64 {
        self.plan.source().size_bytes as u64
    }

    /// The runs of a frame, if the plan is for one thread.
    pub fn runs(&mut self, destination: &Destination<'_>) -> &[Run] {
        self.plan.update(destination);
        let first = self.plan.transfers().first();
        first.map_or(&[], Transfer::runs)
    }

    /// Reads the frame that begins at `start_bytes` of the file. Fails with `UnexpectedEof` if the
    /// file ends before the frame does.
    pub fn carry(
        &mut self,
        file: &dyn RandomAccess,
        start_bytes: u64,
        destination: &mut Destination<'_>,
    ) -> io::Result<()> {
        self.plan.update(destination);
        let transfers = self.plan.transfers();
        match (&self.helpers, transfers) {
            (Some(helpers), [_, _, ..]) if destination.is_whole() => carry_together(
                file,
                helpers,
                start_bytes,
                transfers,
                destination.part_mut(0),
                &mut self.scratches,
            ),
            _ => {
                for transfer in transfers {
                    carry_alone(
                        file,
                        start_bytes,
                        transfer,
                        destination,
                        &mut self.scratches[0],
                    )?;
                }
                Ok(())
            }
        }
    }
}

fn carry_alone(
    file: &dyn RandomAccess,
    start_bytes: u64,
    transfer: &Transfer,
    destination: &mut Destination<'_>,
    scratch: &mut Scratch,
) -> io::Result<()> {
    for runs in transfer.runs().chunk_by(|a, b| a.part == b.part) {
        file.carry(
            start_bytes,
            runs,
            0,
            destination.part_mut(runs[0].part),
            scratch,
        )?;
    }
    Ok(())
}

fn carry_together(
    file: &dyn RandomAccess,
    helpers: &rayon::ThreadPool,
    start_bytes: u64,
    transfers: &[Transfer],
    whole: &mut [u8],
    scratches: &mut [Scratch],
) -> io::Result<()> {
    let failed = crate::locks::Mutex::new(None);
    let work = |transfer: &Transfer, start: usize, part: &mut [u8], scratch: &mut Scratch| {
        if let Err(error) = file.carry(start_bytes, transfer.runs(), start, part, scratch) {
            *failed.lock() = Some(error);
        }
    };
    let (mut rest, mut rest_at) = (whole, 0);
    helpers.in_place_scope(|scope| {
        let mut mine = None;
        for (transfer, scratch) in transfers.iter().zip(scratches) {
            let (Some(first), Some(last)) = (transfer.runs().first(), transfer.runs().last())
            else {
                continue;
            };
            let (start, end) = (first.target_bytes, last.target_bytes + last.len_bytes);
            let (_, after) = std::mem::take(&mut rest).split_at_mut(start - rest_at);
            let (part, after) = after.split_at_mut(end - start);
            (rest, rest_at) = (after, end);
            if mine.is_none() {
                mine = Some((transfer, start, part, scratch));
            } else {
                let work = &work;
                scope.spawn(move |_| work(transfer, start, part, scratch));
            }
        }
        if let Some((transfer, start, part, scratch)) = mine {
            work(transfer, start, part, scratch);
        }
    });
    failed.into_inner().map_or(Ok(()), Err)
}
