// SPDX-License-Identifier: MPL-2.0
//! Reads frames before they are due, into the buffers in which they are sent.

use super::{
    cursor::Cursor,
    delivery::{BufferError, Delivery, FrameRequest, Undelivered, deliver_in, delivered},
    reader::{Completed, FrameSource, Prefetcher},
    y4m::Fields,
};
use crate::{
    layout::Layout,
    memory::{self, Region},
    sys::ring::{KeepAlive, ReadBuffer},
    write_map::WriteMap,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A mapped buffer into which the kernel reads a frame.
pub struct MappedBuffer {
    map: WriteMap<gst::Buffer>,
    /// The number of the frame in the stream.
    n: u64,
    /// The buffer's region, if io_uring can register it as a fixed buffer.
    region: Option<Arc<Region>>,
}

/// The region of the buffer's first memory, if its pages can be pinned.
fn pinnable_region(buffer: &gst::BufferRef) -> Option<Arc<Region>> {
    let (region, _) = memory::region_of(buffer.peek_memory(0))?;
    region.memfd().is_some().then(|| region.clone())
}

// SAFETY: the bytes stay at their address, because `map` keeps the buffer mapped until it is dropped. Nothing
// else accesses them, because `WriteMap::of_owned` took the only reference to the buffer.
unsafe impl ReadBuffer for MappedBuffer {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.map.as_mut_slice()
    }

    fn keep_alive(&self) -> Option<KeepAlive> {
        let region = self.region.clone()?;
        Some(region)
    }
}

pub struct Ahead {
    prefetcher: Prefetcher<MappedBuffer>,
    depth: usize,
    /// The next frame to begin reading; `None` after a seek.
    lead: Option<Cursor>,
}

impl Ahead {
    /// Keeps up to `depth` reads in flight.
    pub fn new(prefetcher: Prefetcher<MappedBuffer>, depth: usize) -> Self {
        Self {
            prefetcher,
            depth,
            lead: None,
        }
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Makes the next delivery drop the frames in flight.
    pub fn reset(&mut self) {
        self.lead = None;
    }

    pub fn bounced_bytes(&self) -> u64 {
        self.prefetcher.bounced_bytes()
    }

    pub fn fields(&mut self, file_n: u64) -> Option<Fields> {
        self.prefetcher.reader().fields(file_n)
    }

    /// Returns frame `n` of the stream in a buffer.
    pub fn deliver(&mut self, request: &FrameRequest<'_>, n: u64) -> Result<Delivery, Undelivered> {
        loop {
            let mut waited = Duration::ZERO;
            if self.lead.is_none() {
                self.abandon(request)?;
            }
            let mut lead = *self.lead.get_or_insert(request.cursor);
            while self.prefetcher.len() < self.depth
                && let Some(lead_n) = lead.frame()
                && let Some(file_n) = request.file_frame(lead_n)
            {
                let must_wait = self.prefetcher.is_empty();
                let waiting = Instant::now();
                let buffer = match request.acquire(must_wait) {
                    Ok(buffer) => buffer,
                    // No buffer is free. Goes on with the frames in flight.
                    Err(Undelivered::Flow(gst::FlowError::Eos)) if !must_wait => break,
                    Err(error) => return Err(error),
                };
                if must_wait {
                    waited += waiting.elapsed();
                }
                if buffer.n_memory() != 1 {
                    // A buffer of several memories cannot be read into ahead of time.
                    self.lead = None;
                    let file_n = request.file_frame(n).ok_or(Undelivered::Finished)?;
                    return deliver_in(self.prefetcher.reader(), request, file_n, buffer, waited);
                }
                self.begin(request, buffer, lead_n, file_n)?;
                lead = lead.advance();
                self.lead = Some(lead);
            }
            let reading = Instant::now();
            let completed = self
                .prefetcher
                .pop(request.waker)
                .map_err(BufferError::Ring)?;
            let Some(Completed {
                n: file_n,
                buffer,
                outcome,
            }) = completed
            else {
                return Err(Undelivered::Woken);
            };
            if buffer.n != n {
                // The request is for another frame than those in flight.
                self.lead = None;
                continue;
            }
            return delivered(outcome, buffer.map.into_buffer(), file_n, waited, reading);
        }
    }

    /// Waits for the reads in flight and drops their frames.
    pub fn abandon(&mut self, request: &FrameRequest<'_>) -> Result<(), Undelivered> {
        while !self.prefetcher.is_empty() {
            let completed = self.prefetcher.pop(request.waker);
            if completed.map_err(BufferError::Ring)?.is_none() {
                return Err(Undelivered::Woken);
            }
        }
        Ok(())
    }

    fn begin(
        &mut self,
        request: &FrameRequest<'_>,
        buffer: gst::Buffer,
        n: u64,
        file_n: u64,
    ) -> Result<(), BufferError> {
        let layout = Layout::of_buffer(request.info, &buffer)?;
        let region = pinnable_region(&buffer);
        let map =
            WriteMap::of_owned(buffer).map_err(|_| BufferError::Unwritable(Box::new(layout)))?;
        let buffer = MappedBuffer { map, n, region };
        self.prefetcher
            .push(file_n, layout, buffer)
            .map_err(BufferError::Ring)
    }
}
