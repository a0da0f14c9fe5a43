// SPDX-License-Identifier: MPL-2.0
//! Frames in memory of the CUDA runtime: a pool of buffers whose deleter is
//! `cudaFree`.
//!
//! ```text
//! cargo run --example cuda
//! ```
//!
//! It compiles and starts anywhere: the runtime is opened when the program runs, by
//! the name that `CUDART` says or `libcudart.so`. Managed memory is used, which CPU
//! and GPU reach at the same virtual address; its physical address is the driver's
//! business. What pagemap tells when the pool starts is shown as it is: the place of
//! pages that move to the GPU as soon as it writes to them, and so not pinned.
//!
//! The GPU is the producer here: it fills each free buffer (`cudaMemset`), the program
//! waits until it has done so and submits the buffer; a consumer on the CPU takes the
//! filled buffers and compares every byte.

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

/// The functions that we use, from a library that is never closed.
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
        // SAFETY: a C string; the initialisers of that library are trusted as those
        // of any library that one links.
        let library = unsafe { libc::dlopen(c_name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            return Err(format!("no CUDA runtime: {}", dl_error()));
        }
        let symbol = |symbol: &CStr| {
            // SAFETY: the library is open, and stays so.
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
        // SAFETY: it takes any number and returns a static string.
        let text = unsafe { CStr::from_ptr((self.error_string)(code)) };
        Err(format!("{what}: {} ({code})", text.to_string_lossy()))
    }

    /// Memory whose handle calls cudaFree, once, when nobody uses it any more.
    fn allocate(&self, size_bytes: usize) -> Result<BufferHandle, String> {
        let mut ptr = std::ptr::null_mut();
        // SAFETY: `ptr` takes the result.
        let code = unsafe { (self.malloc_managed)(&mut ptr, size_bytes, CUDA_MEM_ATTACH_GLOBAL) };
        self.check("cudaMallocManaged", code)?;
        let ptr = NonNull::new(ptr.cast()).ok_or("cudaMallocManaged gave no memory")?;
        let cuda = *self;
        // SAFETY: managed memory is mapped for the CPU until cudaFree, which only
        // this deleter calls, and any thread may do so.
        Ok(unsafe {
            BufferHandle::new(ptr, size_bytes, move |ptr, _| {
                match cuda.check("cudaFree", (cuda.free)(ptr.as_ptr().cast())) {
                    Ok(()) => println!("cudaFree: {ptr:?}"),
                    Err(error) => eprintln!("{error}"),
                }
            })
        })
    }

    /// Lets the GPU set all bytes of a buffer, and waits until it has.
    fn fill(&self, buffer: &mut gst::BufferRef, value: u8) -> Result<(), Box<dyn Error>> {
        let mut map = buffer.map_writable()?;
        // SAFETY: the buffer's memory came from cudaMallocManaged, is mapped for
        // writing here and as long as `map` says; it outlives the synchronisation.
        let code = unsafe {
            (self.memset)(
                map.as_mut_slice().as_mut_ptr().cast(),
                value.into(),
                map.size(),
            )
        };
        self.check("cudaMemset", code)?;
        // SAFETY: it takes nothing and waits for the device.
        self.check("cudaDeviceSynchronize", unsafe {
            (self.device_synchronize)()
        })?;
        Ok(())
    }
}

fn dl_error() -> String {
    // SAFETY: dlerror gives null or a string of this thread that holds until the
    // next dl call.
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
    // The pool owns them. `with_borrowed_handles` leaves them to the application,
    // which may then free one at any time.
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
    drop(buffer); // back in the pool

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
