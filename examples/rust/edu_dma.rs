// SPDX-License-Identifier: MPL-2.0
//! Frames that a DMA engine writes to their physical addresses.
//!
//! The engine is `edu`, a PCI device of QEMU that copies between its own store
//! and memory. A driver for real hardware has the same parts:
//!
//! - the producer takes a free buffer and queues a descriptor: the physical
//!   address from the buffer's meta, and the buffer's id;
//! - the engine's thread runs one descriptor after the other. At each completion (an
//!   interrupt through UIO, or a polled status) it finds the buffer by that id and
//!   submits the buffer;
//! - the consumer takes each filled buffer, checks every byte, shows the frame with
//!   `--display`, and releases the buffer.
//!
//! The CPU never writes a frame. It writes one seed, which the engine copies to its store.
//! Each frame is a window of the store, one row further down than the frame before.
//!
//!     qemu-system-x86_64 ... -device edu
//!     edu_dma [--frames N] [--completion poll|interrupt] [--display] [--hold] [--mask-bits N]
//!
//! The device drives 28 address lines unless QEMU is told otherwise. It would write to a
//! wrong place for a higher address, without an error, so the pool is given `max_address`.

use std::{
    error::Error,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    num::NonZeroUsize,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::ExitCode,
    ptr::NonNull,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use gst::prelude::*;
use gstphysmem::{
    memory::{MemoryKind, PhysAddr},
    meta::PhysMemMeta,
    pool::{PhysBufferPool, PoolError, Wait},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout},
    sys::mman::{self, MapFlags, ProtFlags},
};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// A frame is smaller than the store of 4096 bytes: QEMU 7.2 ends the machine when a
/// transfer reaches the end of the store.
const WIDTH_PX: usize = 32;
const HEIGHT_PX: usize = 20;
const ROW_BYTES: usize = WIDTH_PX * 4;
const FRAME_BYTES: usize = HEIGHT_PX * ROW_BYTES;
const WINDOWS: usize = 8;
const STORE_BYTES: usize = FRAME_BYTES + WINDOWS * ROW_BYTES;
const FRAME_BUFFERS: u32 = 5;

fn main() -> ExitCode {
    match Options::from_arguments().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edu_dma: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    frames: usize,
    mask_bits: u32,
    completion: Completion,
    display: bool,
    hold: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Completion {
    Poll,
    Interrupt,
}

impl Options {
    fn from_arguments() -> Result<Self> {
        let mut options = Self {
            frames: 8,
            mask_bits: 28,
            completion: Completion::Poll,
            display: false,
            hold: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--frames" => options.frames = value()?.parse()?,
                "--mask-bits" => options.mask_bits = value()?.parse()?,
                "--completion" => {
                    options.completion = match value()?.as_str() {
                        "poll" => Completion::Poll,
                        "interrupt" => Completion::Interrupt,
                        other => {
                            return Err(format!("--completion {other}: poll or interrupt").into());
                        }
                    }
                }
                "--display" => options.display = true,
                "--hold" => options.hold = true,
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        if !(1..64).contains(&options.mask_bits) {
            return Err("--mask-bits: 1 to 63".into());
        }
        Ok(options)
    }
}

fn run(options: Options) -> Result<()> {
    gst::init()?;
    gstphysmem::plugin_register_static()?;
    let max_address = PhysAddr((1 << options.mask_bits) - 1);
    let mut engine = Engine::open(options.completion)?;

    load_store(&mut engine, max_address)?;

    let pool = dma_pool(FRAME_BYTES, FRAME_BUFFERS, max_address)?;
    let screen = options.display.then(Screen::new).transpose()?;
    let (descriptors, ring) = sync_channel(2);
    let result = thread::scope(|scope| {
        let ends = [
            scope.spawn(|| or_flush(&pool, engine_thread(engine, ring, &pool))),
            scope.spawn(|| or_flush(&pool, consume(&pool, screen.as_ref(), options.frames))),
        ];
        let produced = or_flush(&pool, produce(&pool, descriptors, options.frames));
        let ends = ends.map(|end| {
            end.join()
                .unwrap_or_else(|_| Err("a thread panicked".into()))
        });
        // The thread that failed first stopped the others by flushing the pool.
        ends.into_iter()
            .chain([produced])
            .max_by_key(blame)
            .unwrap_or(Ok(()))
    });
    result?;
    println!("{} frames came by DMA, every byte right", options.frames);
    print!("{}", pool.dump());
    if options.hold {
        println!("holding the buffers until standard input ends");
        io::copy(&mut io::stdin(), &mut io::sink())?;
    }
    drop(screen);
    pool.set_active(false)?;
    Ok(())
}

/// Ends the waits of the other threads if this one has failed with `result`.
fn or_flush(pool: &PhysBufferPool, result: Result<()>) -> Result<()> {
    if result.is_err() {
        pool.set_flushing(true);
    }
    result
}

/// Ranks a thread's result: `Flushing` only follows from the failure of another thread.
fn blame(result: &Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => match error.downcast_ref() {
            Some(PoolError::Flushing { .. }) => 1,
            None | Some(_) => 2,
        },
    }
}

/// A pool whose buffers the device can reach: contiguous, of known address, and not above
/// `max_address`.
fn dma_pool(size_bytes: usize, buffers: u32, max_address: PhysAddr) -> Result<PhysBufferPool> {
    let pool = PhysBufferPool::builder()
        .kind(MemoryKind::Cma)
        .require_contiguous(true)
        .max_address(max_address)
        .build();
    let mut config = pool.config();
    config.set_params(None, size_bytes.try_into()?, buffers, buffers);
    pool.set_config(config)?;
    pool.set_active(true).map_err(|error| {
        let reason = pool.last_error().unwrap_or_else(|| error.to_string());
        format!("no memory that the device can reach: {reason}")
    })?;
    Ok(pool)
}

/// Byte `index` of the seed. No two rows are equal.
fn pattern(index: usize) -> u8 {
    (index * 7 + index / ROW_BYTES * 41) as u8
}

/// The offset in the store at which frame `sequence` begins, in bytes.
fn window(sequence: usize) -> usize {
    sequence % WINDOWS * ROW_BYTES
}

/// Writes the seed and has the device copy it into its store.
fn load_store(engine: &mut Engine, max_address: PhysAddr) -> Result<()> {
    let seeds = dma_pool(STORE_BYTES, 1, max_address)?;
    let mut seed = seeds.acquire_free(Wait::No)?;
    {
        let seed = seed.get_mut().ok_or("the seed is shared")?;
        let mut bytes = seed.map_writable()?;
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = pattern(index);
        }
    }
    let address = phys_addr(&seed)?;
    engine.transfer(Transfer::ToStore {
        from: address,
        store_offset: 0,
        len_bytes: STORE_BYTES,
    })?;
    println!("store: {STORE_BYTES} bytes taken from {address}");
    drop(seed);
    seeds.set_active(false)?;
    Ok(())
}

fn meta(buffer: &gst::BufferRef) -> Result<gst::MetaRef<'_, PhysMemMeta>> {
    Ok(buffer
        .meta::<PhysMemMeta>()
        .ok_or("a buffer without PhysMemMeta")?)
}

fn phys_addr(buffer: &gst::BufferRef) -> Result<PhysAddr> {
    match meta(buffer)?.address() {
        Ok(address) => Ok(address.first()),
        Err(reason) => Err(format!("the buffer's physical address is unknown: {reason}").into()),
    }
}

/// A transfer for the engine. `held` keeps the pool from handing out the buffer before the
/// transfer is done.
struct Descriptor {
    transfer: Transfer,
    id: u32,
    held: gst::Buffer,
}

fn produce(pool: &PhysBufferPool, ring: SyncSender<Descriptor>, frames: usize) -> Result<()> {
    for sequence in 0..frames {
        let buffer = pool.acquire_free(Wait::Forever)?;
        let transfer = Transfer::FromStore {
            to: phys_addr(&buffer)?,
            store_offset: window(sequence),
            len_bytes: FRAME_BYTES,
        };
        let id = meta(&buffer)?.id();
        let queued = ring.send(Descriptor {
            transfer,
            id,
            held: buffer,
        });
        queued.map_err(|_| PoolError::Flushing {
            pool: pool.name().into(),
        })?; // the engine's thread has ended
    }
    Ok(())
}

fn engine_thread(
    mut engine: Engine,
    ring: Receiver<Descriptor>,
    pool: &PhysBufferPool,
) -> Result<()> {
    for Descriptor { transfer, id, held } in ring {
        engine.transfer(transfer)?;
        // An interrupt handler knows only the id, too.
        let buffer = pool.buffer_by_id(id).ok_or_else(|| PoolError::NoSuchId {
            id,
            pool: pool.name().into(),
        })?;
        drop(held);
        pool.submit_filled(buffer)?;
    }
    Ok(())
}

fn consume(pool: &PhysBufferPool, screen: Option<&Screen>, frames: usize) -> Result<()> {
    for sequence in 0..frames {
        let buffer = pool.acquire_filled(Wait::Forever)?;
        let (id, address) = (meta(&buffer)?.id(), phys_addr(&buffer)?);
        {
            let bytes = buffer.map_readable()?;
            let expected = |index: usize| pattern(window(sequence) + index);
            if let Some(index) = (0..FRAME_BYTES).find(|&index| bytes[index] != expected(index)) {
                let (found, expected) = (bytes[index], expected(index));
                return Err(format!(
                    "frame {sequence}, buffer {id} at {address}: byte {index} is {found:#04x}, not {expected:#04x}"
                )
                .into());
            }
        }
        println!("frame {sequence}: buffer {id} at {address}, {FRAME_BYTES} bytes right");
        if let Some(screen) = screen {
            screen.show(&buffer)?;
        }
        // The buffer is free once the screen has dropped its reference, too.
        pool.release_filled(buffer)?;
    }
    Ok(())
}

struct Screen {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
}

impl Screen {
    fn new() -> Result<Self> {
        let info = gst_video::VideoInfo::builder(
            gst_video::VideoFormat::Bgrx,
            WIDTH_PX as u32,
            HEIGHT_PX as u32,
        );
        let source = gst_app::AppSrc::builder()
            .caps(&info.build()?.to_caps()?)
            .format(gst::Format::Time)
            .build();
        // Many framebuffers do not take BGRx.
        let convert = gst::ElementFactory::make("videoconvert").build()?;
        let sink = gst::ElementFactory::make("fbpansink")
            .property("sync", false)
            .build()?;
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([source.upcast_ref(), &convert, &sink])?;
        gst::Element::link_many([source.upcast_ref(), &convert, &sink])?;
        let screen = Self { pipeline, source };
        screen
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|error| screen.reason(error))?;
        Ok(screen)
    }

    fn show(&self, buffer: &gst::Buffer) -> Result<()> {
        match self.source.push_buffer(buffer.clone()) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.reason(error)),
        }
    }

    /// The error on the bus, which says more than the return value `otherwise`.
    fn reason(
        &self,
        otherwise: impl Error + Send + Sync + 'static,
    ) -> Box<dyn Error + Send + Sync> {
        let bus = self.pipeline.bus();
        let message = bus.and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => error.error().to_string().into(),
            _ => otherwise.into(),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Err(error) = self.pipeline.set_state(gst::State::Null) {
            eprintln!("edu_dma: the display does not stop: {error}");
        }
    }
}

/// One copy by the engine, of less than 4096 bytes.
#[derive(Clone, Copy)]
enum Transfer {
    ToStore {
        from: PhysAddr,
        store_offset: usize,
        len_bytes: usize,
    },
    FromStore {
        to: PhysAddr,
        store_offset: usize,
        len_bytes: usize,
    },
}

/// The device. Its registers are in BAR 0, see docs/specs/edu.txt of QEMU.
struct Engine {
    registers: NonNull<u8>,
    config: File,
    uio: Option<File>,
}

// SAFETY: the mapping belongs to the process, not to a thread; `transfer` takes `&mut self`.
unsafe impl Send for Engine {}

const VENDOR_AND_DEVICE: &str = "1234 11e8";
const BAR_BYTES: usize = 4096;
const STORE_ADDRESS: u64 = 0x40000;

const INTERRUPT_STATUS: usize = 0x24;
const INTERRUPT_ACKNOWLEDGE: usize = 0x64;
const DMA_SOURCE: usize = 0x80;
const DMA_DESTINATION: usize = 0x88;
const DMA_COUNT: usize = 0x90;
const DMA_COMMAND: usize = 0x98;

const DMA_RUN: u64 = 1;
const DMA_FROM_STORE: u64 = 2;
const DMA_INTERRUPT: u64 = 4;

// The command register in PCI configuration space, and its bits.
const PCI_COMMAND: u64 = 4;
const PCI_COMMAND_MEMORY: u16 = 1 << 1;
const PCI_COMMAND_MASTER: u16 = 1 << 2;
const PCI_COMMAND_INTX_DISABLE: u16 = 1 << 10;

/// The device takes a tenth of a second for a transfer; on a loaded machine longer.
const PATIENCE: Duration = Duration::from_secs(30);

impl Engine {
    fn open(completion: Completion) -> Result<Self> {
        let device = find_device()?;
        let uio = match completion {
            Completion::Poll => None,
            Completion::Interrupt => Some(open_uio(&device)?),
        };
        let config = open_read_write(&device.join("config"))?;
        let bar = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_SYNC)
            .open(device.join("resource0"))
            .map_err(|error| format!("{}/resource0: {error}", device.display()))?;
        let len = NonZeroUsize::new(BAR_BYTES).ok_or("an empty BAR")?;
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let registers = unsafe {
            mman::mmap(
                None,
                len,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                &bar,
                0,
            )
        }?;
        let engine = Self {
            registers: registers.cast(),
            config,
            uio,
        };
        engine.change_command(
            PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
            PCI_COMMAND_INTX_DISABLE,
        )?;
        println!(
            "edu at {}, completion by {}",
            device.display(),
            if engine.uio.is_some() {
                "interrupt"
            } else {
                "polling"
            }
        );
        Ok(engine)
    }

    /// Runs one transfer and returns when the device reports that it is done.
    fn transfer(&mut self, transfer: Transfer) -> Result<()> {
        let (source, destination, len_bytes, direction) = match transfer {
            Transfer::ToStore {
                from,
                store_offset,
                len_bytes,
            } => (from.0, STORE_ADDRESS + store_offset as u64, len_bytes, 0),
            Transfer::FromStore {
                to,
                store_offset,
                len_bytes,
            } => (
                STORE_ADDRESS + store_offset as u64,
                to.0,
                len_bytes,
                DMA_FROM_STORE,
            ),
        };
        let interrupt = if self.uio.is_some() { DMA_INTERRUPT } else { 0 };
        self.write64(DMA_SOURCE, source);
        self.write64(DMA_DESTINATION, destination);
        self.write64(DMA_COUNT, len_bytes as u64);
        self.write64(DMA_COMMAND, DMA_RUN | direction | interrupt);
        match &self.uio {
            Some(uio) => self.wait_for_interrupt(uio),
            None => self.poll_status(),
        }
    }

    fn poll_status(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.read64(DMA_COMMAND) & DMA_RUN != 0 {
            if Instant::now() > deadline {
                return Err(format!("the transfer did not end within {PATIENCE:?}").into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn wait_for_interrupt(&self, mut uio: &File) -> Result<()> {
        let mut ready = [PollFd::new(uio.as_fd(), PollFlags::POLLIN)];
        if nix::poll::poll(&mut ready, PollTimeout::try_from(PATIENCE)?)? == 0 {
            return Err(format!("no interrupt within {PATIENCE:?}").into());
        }
        uio.read_exact(&mut [0; 4])?; // the number of interrupts so far
        // Acknowledge at the device before the line is unmasked, or it would still be raised.
        self.write32(INTERRUPT_ACKNOWLEDGE, self.read32(INTERRUPT_STATUS));
        // Unmask the line, which uio_pci_generic masks at each interrupt.
        self.change_command(0, PCI_COMMAND_INTX_DISABLE)?;
        match self.read64(DMA_COMMAND) & DMA_RUN {
            0 => Ok(()),
            _ => Err("an interrupt came while the transfer still ran".into()),
        }
    }

    fn change_command(&self, set: u16, clear: u16) -> io::Result<()> {
        let mut command = [0; 2];
        self.config.read_exact_at(&mut command, PCI_COMMAND)?;
        let command = u16::from_le_bytes(command) & !clear | set;
        self.config
            .write_all_at(&command.to_le_bytes(), PCI_COMMAND)
    }

    fn register<T>(&self, offset_bytes: usize) -> *mut T {
        assert!(
            offset_bytes + size_of::<T>() <= BAR_BYTES
                && offset_bytes.is_multiple_of(size_of::<T>())
        );
        self.registers.as_ptr().wrapping_add(offset_bytes).cast()
    }

    fn read32(&self, offset_bytes: usize) -> u32 {
        // SAFETY: `register` stays inside the mapping and checks the alignment.
        u32::from_le(unsafe { self.register::<u32>(offset_bytes).read_volatile() })
    }

    fn write32(&self, offset_bytes: usize, value: u32) {
        // SAFETY: as in `read32`.
        unsafe {
            self.register::<u32>(offset_bytes)
                .write_volatile(value.to_le())
        }
    }

    fn read64(&self, offset_bytes: usize) -> u64 {
        // SAFETY: as in `read32`.
        u64::from_le(unsafe { self.register::<u64>(offset_bytes).read_volatile() })
    }

    fn write64(&self, offset_bytes: usize, value: u64) {
        // SAFETY: as in `read32`.
        unsafe {
            self.register::<u64>(offset_bytes)
                .write_volatile(value.to_le())
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: mapped in `open` with this length; no other code has the pointer.
        if let Err(error) = unsafe { mman::munmap(self.registers.cast(), BAR_BYTES) } {
            eprintln!("edu_dma: munmap: {error}");
        }
    }
}

/// The device's directory in sysfs.
fn find_device() -> Result<PathBuf> {
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let directory = entry?.path();
        let id = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
        if (id("vendor").trim(), id("device").trim()) == ("0x1234", "0x11e8") {
            return Ok(directory);
        }
    }
    Err("no edu device here: start QEMU with -device edu".into())
}

/// Binds the device to uio_pci_generic and opens its interrupt as a file.
fn open_uio(device: &Path) -> Result<File> {
    const NEW_ID: &str = "/sys/bus/pci/drivers/uio_pci_generic/new_id";
    match fs::write(NEW_ID, VENDOR_AND_DEVICE) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EEXIST) => {
            return Err(format!(
                "{NEW_ID}: {error}: load uio_pci_generic, or use --completion poll"
            )
            .into());
        }
        _ => {}
    }
    let mut entries = fs::read_dir(device.join("uio")).map_err(|error| {
        format!(
            "{}/uio: {error}: has another driver taken it?",
            device.display()
        )
    })?;
    let name = entries
        .next()
        .ok_or("uio_pci_generic has no device")??
        .file_name();
    open_read_write(&Path::new("/dev").join(name))
}

fn open_read_write(path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.map_err(|error| format!("{}: {error}", path.display()).into())
}
