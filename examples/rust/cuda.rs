// SPDX-License-Identifier: MPL-2.0
//! Frames in memory of the CUDA runtime: a pool of buffers whose deleter is `cudaFree`.
//!
//! ```text
//! cargo run --example cuda
//! ```
//!
//! It compiles and starts without CUDA: it opens the runtime when it runs, by the name in
//! the environment variable `CUDART`, else as `libcudart.so`. It uses managed memory, which
//! the CPU and the GPU reach at the same virtual address. The program prints the physical
//! address that pagemap gives when the pool starts. The pages are not pinned: the driver
//! moves them to the GPU as soon as the GPU writes to them.
//!
//! The GPU is the producer: it fills each free buffer (`cudaMemset`). The program waits for
//! it and submits the buffer. A consumer on the CPU compares every byte of the filled buffers.

use std::{
    error::Error,
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr::NonNull,
};

use gst::prelude::*;
use gstphysmem::{
    handle::BufferHandle,
    meta::PhysMemMeta,
    pool::{PhysBufferPool, Wait},
};

const SIZE: usize = 320 * 240 * 4;
const FRAMES: u8 = 6;
const CUDA_MEM_ATTACH_GLOBAL: c_uint = 1;

type MallocManaged = unsafe extern "C" fn(*mut *mut c_void, usize, c_uint) -> c_int;
type Free = unsafe extern "C" fn(*mut c_void) -> c_int;
type Memset = unsafe extern "C" fn(*mut c_void, c_int, usize) -> c_int;
type DeviceSynchronize = unsafe extern "C" fn() -> c_int;
type ErrorString = unsafe extern "C" fn(c_int) -> *const c_char;

/// Functions of the CUDA runtime, which stays open until the process ends.
#[derive(Clone, Copy)]
struct Cuda {
    malloc_managed: MallocManaged,
    free: Free,
    memset: Memset,
    device_synchronize: DeviceSynchronize,
    error_string: ErrorString,
}

impl Cuda {
    fn open() -> Result<Self, String> {
        let name = std::env::var("CUDART").unwrap_or("libcudart.so".into());
        let c_name = CString::new(name.as_str()).map_err(|e| e.to_string())?;
        // SAFETY: `c_name` is a C string; the initialisers of the library are trusted like
        // those of any library that is linked.
        let library = unsafe { libc::dlopen(c_name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            return Err(format!("no CUDA runtime: {}", dl_error()));
        }
        let symbol = |symbol: &CStr| {
            // SAFETY: the library is open and is never closed.
            NonNull::new(unsafe { libc::dlsym(library, symbol.as_ptr()) })
                .ok_or_else(|| format!("{name} is no CUDA runtime: {}", dl_error()))
        };
        let (malloc_managed, free) = (symbol(c"cudaMallocManaged")?, symbol(c"cudaFree")?);
        let (memset, synchronize) = (symbol(c"cudaMemset")?, symbol(c"cudaDeviceSynchronize")?);
        let error_string = symbol(c"cudaGetErrorString")?;
        // SAFETY: these are the functions' types in cuda_runtime_api.h.
        unsafe {
            Ok(Self {
                malloc_managed: std::mem::transmute::<NonNull<c_void>, MallocManaged>(
                    malloc_managed,
                ),
                free: std::mem::transmute::<NonNull<c_void>, Free>(free),
                memset: std::mem::transmute::<NonNull<c_void>, Memset>(memset),
                device_synchronize: std::mem::transmute::<NonNull<c_void>, DeviceSynchronize>(
                    synchronize,
                ),
                error_string: std::mem::transmute::<NonNull<c_void>, ErrorString>(error_string),
            })
        }
    }

    fn check(&self, what: &str, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: cudaGetErrorString takes any number and returns a static string.
        let text = unsafe { CStr::from_ptr((self.error_string)(code)) };
        Err(format!("{what}: {} ({code})", text.to_string_lossy()))
    }

    /// Memory whose handle calls cudaFree once, when nothing uses the memory any more.
    fn allocate(&self, size_bytes: usize) -> Result<BufferHandle, String> {
        let mut ptr = std::ptr::null_mut();
        // SAFETY: `ptr` is valid for the result.
        let code = unsafe { (self.malloc_managed)(&mut ptr, size_bytes, CUDA_MEM_ATTACH_GLOBAL) };
        self.check("cudaMallocManaged", code)?;
        let ptr = NonNull::new(ptr.cast()).ok_or("cudaMallocManaged gave no memory")?;
        let cuda = *self;
        // SAFETY: managed memory is mapped for the CPU until cudaFree. Only this deleter calls
        // cudaFree, which any thread may do.
        Ok(unsafe {
            BufferHandle::new(ptr, size_bytes, move |ptr, _| {
                match cuda.check("cudaFree", (cuda.free)(ptr.as_ptr().cast())) {
                    Ok(()) => println!("cudaFree: {ptr:?}"),
                    Err(error) => eprintln!("{error}"),
                }
            })
        })
    }

    /// Has the GPU set all bytes of a buffer, and waits until that is done.
    fn fill(&self, buffer: &mut gst::BufferRef, value: u8) -> Result<(), Box<dyn Error>> {
        let mut map = buffer.map_writable()?;
        // SAFETY: the buffer's memory came from cudaMallocManaged and is mapped for writing
        // while `map` lives, which is until after the synchronisation.
        let code = unsafe {
            (self.memset)(
                map.as_mut_slice().as_mut_ptr().cast(),
                value.into(),
                map.size(),
            )
        };
        self.check("cudaMemset", code)?;
        // SAFETY: cudaDeviceSynchronize has no arguments and waits for the device.
        self.check("cudaDeviceSynchronize", unsafe {
            (self.device_synchronize)()
        })?;
        Ok(())
    }
}

fn dl_error() -> String {
    // SAFETY: dlerror gives null or a string of this thread, valid until its next dl call.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            return "unknown error".into();
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    gst::init()?;
    let cuda = match Cuda::open() {
        Ok(cuda) => cuda,
        Err(why) => {
            println!("{why}");
            println!("install it, or name it: CUDART=/usr/local/cuda/lib64/libcudart.so");
            return Ok(());
        }
    };
    let handles = (0..3)
        .map(|_| cuda.allocate(SIZE))
        .collect::<Result<Vec<_>, _>>()?;
    // The pool owns the handles. With `with_borrowed_handles` the application keeps them and
    // may free one at any time.
    let pool = PhysBufferPool::with_handles(handles);
    let mut config = pool.config();
    config.set_params(None, SIZE as u32, 3, 3);
    pool.set_config(config)?;
    pool.set_active(true)?;

    let buffer = pool.acquire_free(Wait::No)?;
    let meta = buffer.meta::<PhysMemMeta>().ok_or("no meta")?;
    let (id, kind) = (meta.id(), meta.kind());
    match meta.address() {
        Ok(address) => {
            let pinned = match meta.is_pinned() {
                true => "pinned",
                false => "not pinned: it moves when the GPU takes the pages",
            };
            println!(
                "buffer {id}: {kind} memory, at {} ({pinned})",
                address.first()
            );
        }
        Err(reason) => println!("buffer {id}: {kind} memory, address unknown: {reason}"),
    }
    drop(buffer); // returns it to the pool

    for frame in 1..=FRAMES {
        let mut free = pool.acquire_free(Wait::No)?;
        let buffer = free.get_mut().ok_or("somebody else holds the buffer")?;
        cuda.fill(buffer, frame)?;
        pool.submit_filled(free)?;
        let filled = pool.acquire_filled(Wait::No)?;
        let wrong = filled
            .map_readable()?
            .iter()
            .filter(|byte| **byte != frame)
            .count();
        if wrong > 0 {
            return Err(format!("frame {frame}: {wrong} of {SIZE} bytes are not the GPU's").into());
        }
        pool.release_filled(filled)?;
    }
    println!("{FRAMES} frames of {SIZE} bytes filled by the GPU, all seen by the CPU");

    let last = pool.acquire_buffer(None)?;
    pool.set_active(false)?;
    drop(pool);
    println!("pool given up, one buffer left");
    drop(last);
    println!("last buffer gone");
    Ok(())
}
