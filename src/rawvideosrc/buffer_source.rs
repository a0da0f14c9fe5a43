// SPDX-License-Identifier: MPL-2.0
//! Gets a frame into a GstBuffer. The frame is read into a buffer of the pool when it is due, or
//! read ahead of time, or the buffer is made of the file's mapped pages.

use super::{
    ahead::{Ahead, MappedBuffer},
    automatic::{Automatic, ModeChoice},
    cpus::Cpus,
    delivery::{BufferError, Delivery, FrameRequest, Undelivered, deliver_now},
    reader::{
        Destination, FrameReader, FrameSource, MappedFile, OnLoss, Outcome, Prefetcher,
        RandomAccess, ReadError, StreamInput, StreamReader,
    },
    reader_thread::ReaderThread,
    y4m::Fields,
};
use crate::layout::Layout;
use std::time::{Duration, Instant};

/// Mapped pages are sent only if the frames start at multiples of this, because elements may rely
/// on the alignment that an allocator gives.
const WRAP_ALIGNMENT_BYTES: u64 = 16;

/// A mapped file, whose frames are copied, or sent as its own pages.
pub struct Mapped {
    reader: FrameReader<MappedFile>,
    layout: Layout,
    /// Whether downstream gets the file's pages.
    wraps: bool,
}

impl Mapped {
    /// Whether the file's pages have a layout and an alignment that downstream can use.
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

impl FrameSource for Mapped {
    fn read(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<Outcome, ReadError> {
        self.reader.read(n, destination)
    }

    fn fields(&self, n: u64) -> Option<Fields> {
        self.reader.fields(n)
    }
}

pub enum BufferSource {
    /// Reads, or draws, each frame when it is due.
    Each(ReaderThread<dyn FrameSource>),
    /// Reads each frame from a pipe when it is due.
    Stream(Box<StreamReader>),
    Ahead(Box<Ahead>),
    /// Reads through the page cache or past it.
    Automatic(Box<Automatic>),
    /// Copies frames from a mapped file or sends its pages.
    Mapped(ReaderThread<Mapped>),
}

impl BufferSource {
    /// A source that reads each frame when it is due, in a thread on the processors `cpus`.
    pub fn each(reader: Box<dyn FrameSource>, cpus: Cpus) -> Self {
        Self::Each(ReaderThread::new(reader, cpus))
    }

    /// A source that copies frames from a mapped file, in a thread on the processors `cpus`, until
    /// [`Self::may_wrap`] changes that.
    pub fn mapped(reader: FrameReader<MappedFile>, layout: Layout, cpus: Cpus) -> Self {
        let mapped = Box::new(Mapped {
            reader,
            layout,
            wraps: false,
        });
        Self::Mapped(ReaderThread::new(mapped, cpus))
    }

    /// A source that keeps up to `depth` reads in flight.
    pub fn ahead(prefetcher: Prefetcher<MappedBuffer>, depth: usize) -> Self {
        Self::Ahead(Box::new(Ahead::new(prefetcher, depth)))
    }

    /// A source with two readers, of which it uses the one that is faster with the memory of the buffers.
    /// `through` reads each frame when it is due, in a thread on the processors `cpus`. Of `past`, up to
    /// `depth` reads are kept in flight. A frame has `file_layout` in the file.
    pub fn automatic(
        through: Box<dyn FrameSource>,
        past: Prefetcher<MappedBuffer>,
        depth: usize,
        cpus: Cpus,
        file_layout: Layout,
    ) -> Self {
        let through = ReaderThread::new(through, cpus);
        let past = Ahead::new(past, depth);
        Self::Automatic(Box::new(Automatic::new(through, past, file_layout)))
    }

    /// How many buffers are filled at the same time.
    pub fn depth(&self) -> usize {
        match self {
            Self::Ahead(ahead) => ahead.depth(),
            Self::Automatic(automatic) => automatic.depth(),
            _ => 1,
        }
    }

    /// Allows or forbids sending the file's own pages. Returns whether they will be sent: `wanted`, the file
    /// is mapped, and the pages suit a downstream that `takes_meta` (GstVideoMeta) or not.
    pub fn may_wrap(
        &mut self,
        info: &gst_video::VideoInfo,
        wanted: bool,
        takes_meta: bool,
    ) -> bool {
        // If the kernel blocks the reader, frames are copied.
        let Self::Mapped(mapped) = self else {
            return false;
        };
        let Some(mapped) = mapped.reader_mut() else {
            return false;
        };
        mapped.wraps = wanted && mapped.can_wrap(info, takes_meta);
        mapped.wraps
    }

    /// Makes the next delivery drop the frames in flight, as after a seek or for another pool.
    pub fn reset(&mut self) {
        match self {
            Self::Ahead(ahead) => ahead.reset(),
            Self::Automatic(automatic) => automatic.reset(),
            Self::Each(_) | Self::Stream(_) | Self::Mapped(_) => {}
        }
    }

    /// How frames are read and why, if that has changed since the last call.
    pub fn mode_change(&mut self) -> Option<ModeChoice> {
        match self {
            Self::Automatic(automatic) => automatic.mode_change(),
            _ => None,
        }
    }

    /// Sets the callback that reports that downstream has read bytes of a mapped file that were
    /// missing. It is called at any time and from any thread.
    pub fn set_on_loss(&mut self, on_loss: OnLoss) {
        if let Self::Mapped(mapped) = self
            && let Some(mapped) = mapped.reader()
        {
            mapped.reader.file().set_on_loss(on_loss);
        }
    }

    /// Gives the pipe back; `None` if the source has none.
    pub fn into_stream(self) -> Option<StreamInput> {
        match self {
            Self::Stream(reader) => Some(reader.into_input()),
            _ => None,
        }
    }

    pub fn bounced_bytes(&self) -> u64 {
        match self {
            Self::Each(source) => source.bounced_bytes(),
            Self::Ahead(ahead) => ahead.bounced_bytes(),
            Self::Automatic(automatic) => automatic.bounced_bytes(),
            Self::Stream(_) | Self::Mapped(_) => 0, // they go through the page cache
        }
    }

    /// Returns the frame at the request's cursor in a buffer.
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
            Self::Automatic(automatic) => automatic.deliver(request, n, file_n),
        };
        let fields = self.fields(file_n);
        match delivered {
            Ok(delivery) => Ok(Delivery { fields, ..delivery }),
            // The length of a pipe is not known before its end, so an early end is no error.
            Err(why) if matches!(self, Self::Stream(_)) => Err(why),
            Err(why) => Err(why.promised()),
        }
    }

    fn fields(&mut self, file_n: u64) -> Option<Fields> {
        match self {
            Self::Each(source) => source.reader()?.fields(file_n),
            Self::Stream(reader) => reader.fields(file_n),
            Self::Mapped(mapped) => mapped.reader()?.fields(file_n),
            Self::Ahead(ahead) => ahead.fields(file_n),
            Self::Automatic(automatic) => automatic.fields(file_n),
        }
    }

    /// The answer after the last frame: an error if the file lost bytes that downstream got.
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
