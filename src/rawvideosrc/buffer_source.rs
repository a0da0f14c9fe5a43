// SPDX-License-Identifier: MPL-2.0
//! From the reader to a GstBuffer that holds the frame: written into a buffer of
//! the pool now, or some time ago, or made of the file's own pages.

use super::{
    cursor::Cursor,
    delivery::{
        BufferError, Delivery, FrameRequest, Undelivered, deliver_in, deliver_now, delivered,
    },
    reader::{
        Completed, Destination, FrameReader, FrameSource, MappedFile, OnLoss, Outcome, Prefetcher,
        RandomAccess, ReadError, StreamInput, StreamReader,
    },
    reader_thread::ReaderThread,
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

/// Memory that starts at any other place is not sent as it is: elements may rely
/// on the alignment that an allocator gives.
const WRAP_ALIGNMENT_BYTES: u64 = 16;

/// A buffer that the kernel fills.
pub struct MappedBuffer {
    map: WriteMap<gst::Buffer>,
    /// Of the stream.
    n: u64,
    /// Of memory that io_uring may register.
    region: Option<Arc<Region>>,
}

/// The region that a buffer's only memory is in, if its pages can be pinned.
fn pinnable_region(buffer: &gst::BufferRef) -> Option<Arc<Region>> {
    let (region, _) = memory::region_of(buffer.peek_memory(0))?;
    region.memfd().is_some().then(|| region.clone())
}

// SAFETY: a mapped buffer's bytes are those of its GstMapInfo, which stay until
// it is unmapped; the buffer came from the pool and has no other owner.
unsafe impl ReadBuffer for MappedBuffer {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.map.as_mut_slice()
    }

    fn keep_alive(&self) -> Option<KeepAlive> {
        let region = self.region.clone()?;
        Some(region)
    }
}

/// Frames in flight.
pub struct Ahead {
    prefetcher: Prefetcher<MappedBuffer>,
    depth: usize,
    /// The frame to begin with next; none after a seek.
    lead: Option<Cursor>,
}

/// A mapped file.
pub struct Mapped {
    reader: FrameReader<MappedFile>,
    layout: Layout,
    /// Whether downstream is given the file's pages.
    wraps: bool,
}

impl Mapped {
    /// Copies, until told to wrap.
    pub fn new(reader: FrameReader<MappedFile>, layout: Layout) -> Self {
        Self {
            reader,
            layout,
            wraps: false,
        }
    }

    /// Whether the file's frames can be sent as they lie there.
    fn can_wrap(&self, info: &gst_video::VideoInfo, takes_meta: bool) -> bool {
        let is_stock = self.layout == Layout::of_info(info);
        let is_aligned = |n| {
            let start = self.reader.index().start_bytes(n);
            start.is_some_and(|start| start.is_multiple_of(WRAP_ALIGNMENT_BYTES))
        };
        (is_stock || takes_meta && !info.format_info().is_tiled()) && is_aligned(0) && is_aligned(1)
    }

    fn deliver(&mut self, request: &FrameRequest<'_>, n: u64) -> Result<Delivery, Undelivered> {
        let reading = Instant::now();
        let buffer = self.wrap(request, n)?;
        Ok(Delivery {
            buffer,
            waited: Duration::ZERO,
            read: reading.elapsed(),
            fields: None,
        })
    }

    fn wrap(&mut self, request: &FrameRequest<'_>, n: u64) -> Result<gst::Buffer, Undelivered> {
        if let Some(loss) = self.reader.file().loss() {
            return Err(Undelivered::Read(loss));
        }
        let start_bytes = self.reader.index().start_bytes(n).unwrap_or(u64::MAX);
        let wrapped = (self.reader.file_mut()).wrap(start_bytes, self.layout.size_bytes);
        let memory = match wrapped {
            Ok(memory) => memory,
            Err(_) => {
                return Err(Undelivered::Read(ReadError::Vanished {
                    frame: n,
                    missing_bytes: self.reader.missing_bytes(start_bytes),
                }));
            }
        };
        let mut buffer = gst::Buffer::new();
        let buffer_mut = buffer.make_mut();
        buffer_mut.append_memory(memory);
        if self.layout != Layout::of_info(request.info) {
            self.layout
                .add_meta(request.info, buffer_mut)
                .map_err(|_| BufferError::Unwritable(Box::new(self.layout)))?;
        }
        Ok(buffer)
    }
}

/// Copies out of the map.
impl FrameSource for Mapped {
    fn read(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<Outcome, ReadError> {
        self.reader.read(n, destination)
    }

    fn fields(&self, n: u64) -> Option<Fields> {
        self.reader.fields(n)
    }
}

/// Gives frames in buffers.
pub enum BufferSource {
    /// Reads, or draws, each frame when it is due.
    Each(ReaderThread<dyn FrameSource>),
    /// As above, from a pipe.
    Stream(Box<StreamReader>),
    /// Has begun before.
    Ahead(Box<Ahead>),
    /// Has the file mapped.
    Mapped(ReaderThread<Mapped>),
}

impl BufferSource {
    /// Keeps up to `depth` frames in flight.
    pub fn ahead(prefetcher: Prefetcher<MappedBuffer>, depth: usize) -> Self {
        Self::Ahead(Box::new(Ahead {
            prefetcher,
            depth,
            lead: None,
        }))
    }

    /// The buffers that it can fill at the same time.
    pub fn depth(&self) -> usize {
        match self {
            Self::Ahead(ahead) => ahead.depth,
            _ => 1,
        }
    }

    /// Tells whether downstream would be served by the file's own pages; true if
    /// those will be sent.
    pub fn may_wrap(
        &mut self,
        info: &gst_video::VideoInfo,
        wanted: bool,
        takes_meta: bool,
    ) -> bool {
        // While it is held up, it copies.
        let Self::Mapped(mapped) = self else {
            return false;
        };
        let Some(mapped) = mapped.reader_mut() else {
            return false;
        };
        mapped.wraps = wanted && mapped.can_wrap(info, takes_meta);
        mapped.wraps
    }

    /// The frames in flight are not wanted any more, as after a seek.
    pub fn reset(&mut self) {
        if let Self::Ahead(ahead) = self {
            ahead.lead = None;
        }
    }

    /// `on_loss` is told, at any time and from any thread, that downstream has looked at
    /// bytes that the file did not have any more.
    pub fn set_on_loss(&mut self, on_loss: OnLoss) {
        if let Self::Mapped(mapped) = self
            && let Some(mapped) = mapped.reader()
        {
            mapped.reader.file().set_on_loss(on_loss);
        }
    }

    /// The pipe, if it is one.
    pub fn into_stream(self) -> Option<StreamInput> {
        match self {
            Self::Stream(reader) => Some(reader.into_input()),
            _ => None,
        }
    }

    /// Bytes that had to be copied on their way, beside the read.
    pub fn bounced_bytes(&self) -> u64 {
        match self {
            Self::Each(source) => source.bounced_bytes(),
            Self::Ahead(ahead) => ahead.prefetcher.bounced_bytes(),
            Self::Stream(_) | Self::Mapped(_) => 0, // they go through the page cache
        }
    }

    /// The frame at the request's cursor.
    pub fn deliver(&mut self, request: &FrameRequest<'_>) -> Result<Delivery, Undelivered> {
        let n = request.cursor.frame();
        let Some((n, file_n)) = n.and_then(|n| Some((n, request.file_frame(n)?))) else {
            return Err(self.finish());
        };
        let delivered = match self {
            Self::Each(source) => source.deliver(request, file_n),
            Self::Stream(reader) => deliver_now(&mut **reader, request, file_n),
            Self::Mapped(mapped) => match mapped.reader_mut() {
                Some(mapped) if mapped.wraps => mapped.deliver(request, file_n),
                _ => mapped.deliver(request, file_n),
            },
            Self::Ahead(ahead) => ahead.deliver(request, n),
        };
        let fields = self.fields(file_n);
        match delivered {
            Ok(delivery) => Ok(Delivery { fields, ..delivery }),
            // How many frames a stream has is not known before its end.
            Err(why) if matches!(self, Self::Stream(_)) => Err(why),
            Err(why) => Err(why.promised()),
        }
    }

    fn fields(&mut self, file_n: u64) -> Option<Fields> {
        match self {
            Self::Each(source) => source.reader()?.fields(file_n),
            Self::Stream(reader) => reader.fields(file_n),
            Self::Mapped(mapped) => mapped.reader()?.fields(file_n),
            Self::Ahead(ahead) => ahead.prefetcher.reader().fields(file_n),
        }
    }

    /// After the last frame: whether all that was sent is still there.
    fn finish(&self) -> Undelivered {
        match self {
            Self::Mapped(mapped) => {
                let mapped = mapped.reader();
                match mapped.and_then(|mapped| mapped.reader.file().loss_of_lent()) {
                    Some(loss) => Undelivered::Read(loss),
                    None => Undelivered::Finished,
                }
            }
            _ => Undelivered::Finished,
        }
    }
}

impl Ahead {
    fn deliver(&mut self, request: &FrameRequest<'_>, n: u64) -> Result<Delivery, Undelivered> {
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
                    // None is free: what is in flight will do.
                    Err(Undelivered::Flow(gst::FlowError::Eos)) if !must_wait => break,
                    Err(error) => return Err(error),
                };
                if must_wait {
                    waited += waiting.elapsed();
                }
                if buffer.n_memory() != 1 {
                    // Of several memories: filled when the frame is due.
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
                // The request is for another frame: what is in flight is not for it.
                self.lead = None;
                continue;
            }
            return delivered(outcome, buffer.map.into_buffer(), file_n, waited, reading);
        }
    }

    /// Waits for the frames in flight, which are dropped.
    fn abandon(&mut self, request: &FrameRequest<'_>) -> Result<(), Undelivered> {
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
