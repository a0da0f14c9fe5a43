// SPDX-License-Identifier: MPL-2.0
//! Frames handed to another process without a copy.
//!
//! The producer fills the buffers of a pool and lends each filled buffer to the consumer
//! over a Unix socket. The consumer maps the buffer, checks its bytes, and gives it back.
//! The producer sends the file descriptor of a buffer's dma-buf once (SCM_RIGHTS); from
//! then on it sends the buffer's id only.
//!
//!     share produce SOCKET [--kind cma|system|udmabuf|...] [--buffers N] [--size BYTES]
//!     share consume SOCKET [--frames N] [--keep-all]
//!
//! Either side may die at any time. The buffers of a dead consumer return to the pool, and
//! the producer serves the next consumer. The mappings of a consumer outlive the producer,
//! because each mapping holds the memory.
//!
//! With `--keep-all` the consumer gives nothing back, like a consumer that hangs.

#[path = "share/message.rs"]
mod message;

use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    process::ExitCode,
    ptr::NonNull,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use gst::{glib, prelude::*};
use gstphysmem::{
    memory::MemoryKind,
    meta::PhysMemMeta,
    pool::{PhysBufferPool, PoolError, Wait},
};
use nix::{
    errno::Errno,
    sys::{
        mman::{self, MapFlags, ProtFlags},
        socket::{
            self, AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown,
            SockFlag, SockType, UnixAddr,
        },
    },
};

use message::{MESSAGE_BYTES, Message};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let result = Arguments::parse().and_then(|arguments| match arguments.role.as_str() {
        "produce" => produce(&arguments),
        "consume" => consume(&arguments),
        other => Err(format!("{other}: produce or consume").into()),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("share: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    role: String,
    path: String,
    kind: MemoryKind,
    buffers: u32,
    size_bytes: u32,
    frames: u64,
    keep_all: bool,
}

impl Arguments {
    fn parse() -> Result<Self> {
        const USAGE: &str = "share produce|consume SOCKET [OPTIONS]";
        let mut words = std::env::args().skip(1);
        let mut parsed = Self {
            role: words.next().ok_or(USAGE)?,
            path: words.next().ok_or(USAGE)?,
            kind: MemoryKind::Auto,
            buffers: 4,
            size_bytes: 64 << 10,
            frames: u64::MAX,
            keep_all: false,
        };
        while let Some(option) = words.next() {
            let mut value = || words.next().ok_or(format!("{option} needs a value"));
            match option.as_str() {
                "--kind" => parsed.kind = kind_of_name(&value()?)?,
                "--buffers" => parsed.buffers = value()?.parse()?,
                "--size" => parsed.size_bytes = value()?.parse()?,
                "--frames" => parsed.frames = value()?.parse()?,
                "--keep-all" => parsed.keep_all = true,
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        Ok(parsed)
    }
}

fn kind_of_name(name: &str) -> Result<MemoryKind> {
    let class = glib::EnumClass::new::<MemoryKind>();
    let value = class
        .to_value_by_nick(name)
        .ok_or(format!("no kind {name}"))?;
    Ok(value.get()?)
}

/// A connected SOCK_SEQPACKET socket.
struct Link(OwnedFd);

impl Link {
    fn socket() -> nix::Result<OwnedFd> {
        socket::socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
    }

    /// Sends a message; false if the other side is gone.
    fn send(&self, message: Message, fd: Option<BorrowedFd<'_>>) -> Result<bool> {
        let fds = fd.map(|fd| [fd.as_raw_fd()]);
        let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
        let bytes = message.to_bytes();
        loop {
            let sent = socket::sendmsg::<()>(
                self.0.as_raw_fd(),
                &[IoSlice::new(&bytes)],
                rights.as_slice(),
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            return match sent {
                Ok(_) => Ok(true),
                Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(false),
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(format!("sending {message:?}: {errno}").into()),
            };
        }
    }

    /// Waits for a message; `None` if the other side is gone.
    fn receive(&self) -> Result<Option<(Message, Option<OwnedFd>)>> {
        let mut bytes = [0; MESSAGE_BYTES];
        let mut control = nix::cmsg_space!([RawFd; 1]);
        let (len_bytes, fd) = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let received = socket::recvmsg::<()>(
                self.0.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_CMSG_CLOEXEC,
            );
            match received {
                Ok(received) => {
                    let mut fds = Vec::new();
                    for message in received.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(received) = message {
                            // SAFETY: the kernel has just made these descriptors for this
                            // call, and no other code knows their numbers.
                            fds.extend(
                                received
                                    .into_iter()
                                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                            );
                        }
                    }
                    break (received.bytes, fds.pop());
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(None),
                Err(errno) => return Err(format!("receiving: {errno}").into()),
            }
        };
        match (len_bytes, Message::from_bytes(bytes)) {
            (0, _) => Ok(None),
            (MESSAGE_BYTES, Some(message)) => Ok(Some((message, fd))),
            _ => Err(format!("{len_bytes} bytes that are no message").into()),
        }
    }
}

/// Word `index` of frame `sequence`.
fn word(sequence: u64, index: usize) -> u32 {
    (sequence as u32).wrapping_mul(0x9e37_79b1) ^ index as u32
}

fn produce(arguments: &Arguments) -> Result<()> {
    gst::init()?;
    let mut builder = PhysBufferPool::builder()
        .kind(arguments.kind)
        .require_dma_buf(true);
    if arguments.kind == MemoryKind::Udmabuf {
        // The mapping of a udmabuf made of huge pages is broken on Linux 6.1.
        builder = builder.heap("shmem");
    }
    let pool = builder.build();
    let mut config = pool.config();
    config.set_params(
        None,
        arguments.size_bytes,
        arguments.buffers,
        arguments.buffers,
    );
    pool.set_config(config)?;
    pool.set_active(true)
        .map_err(|error| pool.last_error().unwrap_or_else(|| error.to_string()))?;

    let listener = Link::socket()?;
    match std::fs::remove_file(&arguments.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("{}: {error}", arguments.path).into());
        }
        _ => {}
    }
    let address = UnixAddr::new(arguments.path.as_str())?;
    socket::bind(listener.as_raw_fd(), &address)
        .map_err(|errno| format!("{}: {errno}", arguments.path))?;
    socket::listen(&listener, Backlog::new(1)?)?;
    println!(
        "listening at {}, {} buffers",
        arguments.path,
        pool.total_count()
    );

    thread::scope(|scope| {
        scope.spawn(|| fill(&pool));
        let served = serve_all(&pool, &listener);
        pool.set_flushing(true); // makes `fill` return
        served
    })
}

/// Fills buffers as fast as they come back, until the pool is flushing.
fn fill(pool: &PhysBufferPool) {
    let mut sequence = 0;
    let ended = loop {
        if let Err(error) = fill_one(pool, sequence) {
            break error;
        }
        sequence += 1;
    };
    if !matches!(ended.downcast_ref(), Some(PoolError::Flushing { .. })) {
        eprintln!("share: filling: {ended}");
        std::process::exit(1); // the main thread is blocked in accept4
    }
}

fn fill_one(pool: &PhysBufferPool, sequence: u64) -> Result<()> {
    let mut buffer = pool.acquire_free(Wait::Forever)?;
    {
        let buffer = buffer.get_mut().ok_or("a free buffer is shared")?;
        let mut bytes = buffer.map_writable()?;
        for (index, bytes) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *bytes = word(sequence, index).to_le_bytes();
        }
        drop(bytes);
        buffer.set_offset(sequence);
    }
    Ok(pool.submit_filled(buffer)?)
}

fn serve_all(pool: &PhysBufferPool, listener: &OwnedFd) -> Result<()> {
    for number in 1.. {
        let connection = socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: accept4 has just made this descriptor, and no other code uses it.
        let link = Link(unsafe { OwnedFd::from_raw_fd(connection) });
        println!("consumer {number} is here");
        let lent = Lent::default();
        let ended = serve(pool, &link, &lent);
        // If the consumer's process ended, its mappings are gone. A consumer that only closed
        // its socket may still read these buffers, and would see later frames.
        let taken_back = lent.take_all();
        let count = taken_back.len();
        for buffer in taken_back {
            pool.release_filled(buffer)?;
        }
        println!("consumer {number} is gone: {count} buffers taken back");
        match ended {
            // An error of the pool would come back with the next consumer.
            Err(error) if error.is::<PoolError>() => return Err(error),
            Err(error) => eprintln!("share: consumer {number}: {error}"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The buffers that a consumer has, by id.
#[derive(Default)]
struct Lent(Mutex<HashMap<u32, gst::Buffer>>);

impl Lent {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, gst::Buffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_all(&self) -> Vec<gst::Buffer> {
        self.lock().drain().map(|(_, buffer)| buffer).collect()
    }
}

fn serve(pool: &PhysBufferPool, link: &Link, lent: &Lent) -> Result<()> {
    let is_gone = AtomicBool::new(false);
    thread::scope(|scope| {
        let returns = scope.spawn(|| {
            let ended = take_returns(pool, link, lent);
            is_gone.store(true, Ordering::Release);
            ended
        });
        let ended = lend(pool, link, lent, &is_gone);
        // Wakes `take_returns` if the consumer is still connected.
        if let Err(errno) = socket::shutdown(link.0.as_raw_fd(), Shutdown::Both)
            && errno != Errno::ENOTCONN
        {
            eprintln!("share: shutdown: {errno}");
        }
        let returns = returns
            .join()
            .unwrap_or_else(|_| Err("a thread panicked".into()));
        ended.and(returns)
    })
}

fn lend(pool: &PhysBufferPool, link: &Link, lent: &Lent, is_gone: &AtomicBool) -> Result<()> {
    let mut known = BTreeSet::new();
    while !is_gone.load(Ordering::Acquire) {
        // The wait is limited, because a consumer that holds every buffer may die meanwhile.
        let buffer = match pool.acquire_filled(Wait::AtMost(Duration::from_millis(100))) {
            Ok(buffer) => buffer,
            Err(PoolError::NoBuffer { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let id = buffer
            .meta::<PhysMemMeta>()
            .ok_or("a buffer without PhysMemMeta")?
            .id();
        let (sequence, size_bytes) = (buffer.offset(), buffer.size() as u64);
        // The entry must be there before the message is sent: the answer may come at once.
        lent.lock().insert(id, buffer);
        if known.insert(id) {
            let dma_buf = pool.export_dmabuf(id)?;
            if !link.send(Message::Buffer { id, size_bytes }, Some(dma_buf.as_fd()))? {
                return Ok(());
            }
            println!("buffer {id}: dma-buf sent");
        }
        if !link.send(Message::Frame { id, sequence }, None)? {
            return Ok(());
        }
    }
    Ok(())
}

fn take_returns(pool: &PhysBufferPool, link: &Link, lent: &Lent) -> Result<()> {
    while let Some((message, _)) = link.receive()? {
        let Message::Release { id } = message else {
            return Err(format!("{message:?} is not for a producer").into());
        };
        let buffer = lent.lock().remove(&id);
        pool.release_filled(buffer.ok_or(format!("it returns buffer {id}, which it has not"))?)?;
    }
    Ok(())
}

fn consume(arguments: &Arguments) -> Result<()> {
    let link = Link(Link::socket()?);
    let address = UnixAddr::new(arguments.path.as_str())?;
    socket::connect(link.0.as_raw_fd(), &address)
        .map_err(|errno| format!("{}: {errno}", arguments.path))?;
    let mut buffers: HashMap<u32, Shared> = HashMap::new();
    // The newest frame, as a display holds the frame that it shows; all with --keep-all.
    let mut held: Vec<(u32, u64)> = Vec::new();
    let mut newest = None;
    let mut frames = 0;
    while frames < arguments.frames {
        match link.receive()? {
            Some((Message::Buffer { id, size_bytes }, Some(dma_buf))) => {
                buffers.insert(id, Shared::map(dma_buf, size_bytes)?);
            }
            Some((Message::Frame { id, sequence }, None)) => {
                let buffer = buffers
                    .get(&id)
                    .ok_or(format!("no dma-buf of buffer {id} came"))?;
                buffer.check(id, sequence)?;
                if newest.is_some_and(|newest| newest >= sequence) {
                    return Err(format!("frame {sequence} came after {newest:?}").into());
                }
                newest = Some(sequence);
                frames += 1;
                held.push((id, sequence));
                if arguments.keep_all {
                    println!("holding {} buffers", held.len());
                } else if held.len() > 1 {
                    link.send(
                        Message::Release {
                            id: held.remove(0).0,
                        },
                        None,
                    )?;
                }
                if frames == 1 {
                    println!("the first frame is right");
                }
            }
            Some(other) => return Err(format!("{other:?} is not for a consumer").into()),
            None => {
                println!("the producer is gone");
                break;
            }
        }
    }
    // The producer does not write to buffers that are held, and the mappings keep the memory.
    for &(id, sequence) in &held {
        buffers
            .get(&id)
            .ok_or("a held buffer is not mapped")?
            .check(id, sequence)?;
    }
    println!(
        "{frames} frames in {} buffers, every byte right; {} held to the end and still right",
        buffers.len(),
        held.len()
    );
    Ok(())
}

/// A mapped buffer of another process.
struct Shared {
    dma_buf: OwnedFd,
    first: NonNull<u32>,
    size_bytes: usize,
}

impl Shared {
    fn map(dma_buf: OwnedFd, size_bytes: u64) -> Result<Self> {
        let dma_buf = File::from(dma_buf);
        // Reading past the end of the dma-buf would end this process with SIGBUS.
        let there = io::Seek::seek(&mut &dma_buf, io::SeekFrom::End(0))?;
        if size_bytes > there {
            return Err(format!("a dma-buf of {there} bytes is said to hold {size_bytes}").into());
        }
        let size_bytes = usize::try_from(size_bytes)?;
        let len = NonZeroUsize::new(size_bytes).ok_or("an empty buffer")?;
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let first = unsafe {
            mman::mmap(
                None,
                len,
                ProtFlags::PROT_READ,
                MapFlags::MAP_SHARED,
                &dma_buf,
                0,
            )
        }?;
        Ok(Self {
            dma_buf: dma_buf.into(),
            first: first.cast(),
            size_bytes,
        })
    }

    fn check(&self, id: u32, sequence: u64) -> Result<()> {
        self.sync(DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ)?;
        // No reference to the memory may exist, because another process writes to it.
        let found = (0..self.size_bytes / 4).find_map(|index| {
            // SAFETY: the word is inside the mapping, which is page-aligned.
            let found = u32::from_le(unsafe { self.first.add(index).read_volatile() });
            (found != word(sequence, index)).then_some((index, found))
        });
        self.sync(DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ)?;
        match found {
            None => Ok(()),
            Some((index, found)) => Err(format!(
                "frame {sequence} in buffer {id}: word {index} is {found:#010x}, not {:#010x}",
                word(sequence, index)
            )
            .into()),
        }
    }

    fn sync(&self, flags: u64) -> Result<()> {
        loop {
            // SAFETY: the fd is open, and the kernel only reads the flags.
            match unsafe { dma_buf_ioctl_sync(self.dma_buf.as_raw_fd(), &flags) } {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(format!("DMA_BUF_IOCTL_SYNC: {errno}").into()),
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; no other code has the pointer.
        if let Err(errno) = unsafe { mman::munmap(self.first.cast(), self.size_bytes) } {
            eprintln!("share: munmap: {errno}");
        }
    }
}

// linux/dma-buf.h; struct dma_buf_sync is one u64.
const DMA_BUF_SYNC_READ: u64 = 1 << 0;
const DMA_BUF_SYNC_START: u64 = 0 << 2;
const DMA_BUF_SYNC_END: u64 = 1 << 2;
nix::ioctl_write_ptr!(dma_buf_ioctl_sync, b'b', 0, u64);
