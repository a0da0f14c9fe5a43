// SPDX-License-Identifier: MPL-2.0
//! What C cannot do through GObject: pools over memory of the application, and verbs
//! that say by a GError why they failed.
//!
//! `include/gstphysmem.h` is made of this file, [`meta::ffi`](crate::meta::ffi) and
//! `cbindgen.toml` (`tests/generate header`), so what is documented here is read by
//! people who write C. All else that they need are properties, signals and the meta.

use std::{ffi::c_int, os::fd::IntoRawFd, ptr::NonNull};

use gst::{
    ffi::{GstBuffer, GstBufferPool},
    glib::{
        self,
        ffi::{GError, GQuark, gboolean, gpointer},
        prelude::*,
        translate::{Borrowed, IntoGlib, IntoGlibPtr, from_glib_borrow, from_glib_full},
    },
};

use crate::{
    handle::BufferHandle,
    memory::PhysAddr,
    pool::{MemoryBlock, PhysBufferPool, PoolError, wait_from_ns},
};

/// The phys_addr of a block whose address is to be looked up in /proc/self/pagemap, which
/// needs CAP_SYS_ADMIN.
pub const GST_PHYS_ADDR_UNKNOWN: u64 = 0;

/// A block of memory that stays mapped read-write as long as anybody uses its pool.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GstPhysMemBlock {
    /// First byte, as the CPU sees it, not NULL.
    pub data: gpointer,
    /// Length in bytes, not 0.
    pub size: usize,
    /// First byte, as hardware sees it, believed of a block in one piece; or
    /// GST_PHYS_ADDR_UNKNOWN.
    pub phys_addr: u64,
}

impl GstPhysMemBlock {
    /// The block, if it can be one.
    fn checked(&self) -> Option<MemoryBlock> {
        let virt = NonNull::new(self.data.cast::<u8>())?;
        // No object is larger, and none runs past the last address of the process.
        let size = isize::try_from(self.size).ok()?;
        virt.addr().get().checked_add(self.size)?;
        let last = u64::try_from(size).ok()?.checked_sub(1)?;
        self.phys_addr.checked_add(last)?;
        Some(MemoryBlock {
            virt,
            phys: (self.phys_addr != GST_PHYS_ADDR_UNKNOWN).then_some(PhysAddr(self.phys_addr)),
            size_bytes: self.size,
        })
    }
}

/// Tells of misuse as GLib's own functions do; for what a caller must not give.
fn refuse<T>(function: &str, what: &str) -> Option<T> {
    glib::g_critical!("GStreamer-PhysMem", "{function}: {what}");
    None
}

fn into_c(pool: PhysBufferPool) -> *mut GstBufferPool {
    pool.upcast::<gst::BufferPool>().into_glib_ptr()
}

/// A pool over blocks that outlive it and every buffer and memory that came from it, one
/// buffer each. Configure it with a buffer size that the smallest block can hold. The array
/// is copied.
///
/// Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, for a block
/// without data or size, or that ends beyond the last address
///
/// # Safety
/// `blocks` points to `n_blocks` blocks of memory that nobody else manages.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_new_with_regions(
    blocks: *const GstPhysMemBlock,
    n_blocks: u32,
) -> *mut GstBufferPool {
    let pool = || {
        // SAFETY: the caller vouches for pointer and count.
        let blocks = unsafe { array(blocks, n_blocks) }?;
        let blocks: Option<Vec<_>> = blocks.iter().map(GstPhysMemBlock::checked).collect();
        // SAFETY: the caller vouches for the blocks; none is empty.
        Some(into_c(unsafe { PhysBufferPool::with_regions(&blocks?) }))
    };
    pool()
        .or_else(|| {
            refuse(
                "gst_phys_buffer_pool_new_with_regions",
                "a block is not one",
            )
        })
        .unwrap_or(std::ptr::null_mut())
}

/// What a caller calls an array; none for NULL, which is no empty array either.
///
/// # Safety
/// `items` is NULL or points to `n_items` items that outlive the result.
unsafe fn array<'a, T>(items: *const T, n_items: u32) -> Option<&'a [T]> {
    // SAFETY: as the caller says.
    (!items.is_null()).then(|| unsafe { std::slice::from_raw_parts(items, n_items as usize) })
}

/// What C hands to its destroy function. Thread safety is the caller's promise.
struct UserData(gpointer);
// SAFETY: the constructor's contract says that any thread may destroy it.
unsafe impl Send for UserData {}

/// Owns a block of memory together with the way to free it.
pub struct GstPhysBufferHandle(BufferHandle);

/// Takes over data, size bytes, mapped read-write until destroy is called with user_data (a
/// pointer to whatever free, munmap or cudaFree need to know). destroy runs exactly once, on
/// any thread: when the handle is freed, or, while a buffer over it is mapped, right after
/// the last map. A device at work does not hold it off: map the buffer meanwhile.
///
/// Returns: (transfer full) (nullable): the handle; NULL, and a critical warning, for what is
/// no block (see GstPhysMemBlock), and then nothing was taken over
///
/// # Safety
/// `data` is a block of memory that nobody else frees, `destroy` the way to free it from any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_handle_new(
    data: gpointer,
    size: usize,
    phys_addr: u64,
    destroy: glib::ffi::GDestroyNotify,
    user_data: gpointer,
) -> *mut GstPhysBufferHandle {
    let block = GstPhysMemBlock {
        data,
        size,
        phys_addr,
    };
    let Some(block) = block
        .checked()
        .or_else(|| refuse("gst_phys_buffer_handle_new", "the block is not one"))
    else {
        return std::ptr::null_mut();
    };
    let user_data = UserData(user_data);
    let deleter = move |_: NonNull<u8>, _: usize| {
        // The whole struct, which is Send, and not its field is captured.
        let UserData(user_data) = { user_data };
        if let Some(destroy) = destroy {
            // SAFETY: it runs once, after the last access; the caller gave both.
            unsafe { destroy(user_data) }
        }
    };
    // SAFETY: the caller vouches for the block until `destroy` runs.
    let handle = unsafe { BufferHandle::new(block.virt, block.size_bytes, deleter) };
    let handle = match block.phys {
        Some(phys) => handle.with_phys_addr(phys),
        None => handle,
    };
    Box::into_raw(Box::new(GstPhysBufferHandle(handle)))
}

/// Frees a handle that no pool owns; NULL is ignored.
///
/// # Safety
/// `handle` is freed once, and was not given to a pool that owns it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_handle_free(handle: *mut GstPhysBufferHandle) {
    if !handle.is_null() {
        // SAFETY: the caller vouches for origin and uniqueness.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// A pool that owns the handles: each is freed when the pool and the last buffer and memory
/// that came from it are gone.
///
/// handles: (transfer full) (array length=n_handles): the handles; the array stays the
/// caller's
///
/// Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, if a handle
/// or the array is NULL, and then no handle was taken
///
/// # Safety
/// `handles` points to `n_handles` handles, none twice; they are the pool's from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_new_with_handles(
    handles: *const *mut GstPhysBufferHandle,
    n_handles: u32,
) -> *mut GstBufferPool {
    // SAFETY: the caller vouches for pointer and count.
    match unsafe { array_of_handles("gst_phys_buffer_pool_new_with_handles", handles, n_handles) } {
        Some(handles) => {
            let handles = handles.iter();
            // SAFETY: none is NULL, and the caller gives every one away.
            let handles = handles.map(|&handle| unsafe { Box::from_raw(handle).0 });
            into_c(PhysBufferPool::with_handles(handles.collect()))
        }
        None => std::ptr::null_mut(),
    }
}

/// A pool that borrows the handles: the application frees each whenever it likes. Its buffer
/// is then not handed out again, a map of it fails, and `validate` says FALSE.
///
/// handles: (transfer none) (array length=n_handles): the handles
///
/// Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, if a handle
/// or the array is NULL
///
/// # Safety
/// `handles` points to `n_handles` handles, none freed before this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_new_with_borrowed_handles(
    handles: *const *mut GstPhysBufferHandle,
    n_handles: u32,
) -> *mut GstBufferPool {
    // SAFETY: the caller vouches for pointer and count.
    match unsafe {
        array_of_handles(
            "gst_phys_buffer_pool_new_with_borrowed_handles",
            handles,
            n_handles,
        )
    } {
        Some(handles) => {
            let handles = handles.iter();
            // SAFETY: none is NULL, and the caller vouches for their lives.
            let handles = handles.map(|&handle| unsafe { &(*handle).0 });
            into_c(PhysBufferPool::with_borrowed_handles(handles))
        }
        None => std::ptr::null_mut(),
    }
}

/// # Safety
/// As [`array`].
unsafe fn array_of_handles<'a>(
    function: &str,
    handles: *const *mut GstPhysBufferHandle,
    n_handles: u32,
) -> Option<&'a [*mut GstPhysBufferHandle]> {
    // SAFETY: as the caller says.
    unsafe { array(handles, n_handles) }
        .filter(|handles| handles.iter().all(|handle| !handle.is_null()))
        .or_else(|| refuse(function, "a handle is NULL"))
}

/// Why a function below returned NULL, FALSE or -1; of the domain GST_PHYS_POOL_ERROR.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, glib::ErrorDomain)]
#[error_domain(name = "gst-phys-pool-error-quark")]
pub enum PoolErrorCode {
    /// The system refused, as the message says.
    Failed = 0,
    /// No buffer within the time given.
    NoBuffer = 1,
    /// The pool is flushing or inactive.
    Flushing = 2,
    /// More memory could not be had.
    NoMemory = 3,
    /// The buffer's state does not allow this.
    IllegalStep = 4,
    /// No buffer of the pool has this id.
    NoSuchId = 5,
    /// The owner of the memory freed it.
    Gone = 6,
    /// Memory of this kind has no dma-buf.
    NoDmaBuf = 7,
}

impl PoolErrorCode {
    fn of(error: &PoolError) -> Self {
        match error {
            PoolError::NoBuffer { .. } => Self::NoBuffer,
            PoolError::Flushing { .. } => Self::Flushing,
            PoolError::NoMemory { .. } => Self::NoMemory,
            PoolError::IllegalStep(_)
            | PoolError::Foreign { .. }
            | PoolError::NoMeta
            | PoolError::Replaced { .. } => Self::IllegalStep,
            PoolError::NoSuchId { .. } => Self::NoSuchId,
            PoolError::Gone { .. } | PoolError::AllGone { .. } => Self::Gone,
            PoolError::NoDmaBuf { .. } => Self::NoDmaBuf,
            PoolError::Duplicate { .. } => Self::Failed,
        }
    }
}

/// The domain of these errors.
#[unsafe(no_mangle)]
pub extern "C" fn gst_phys_pool_error_quark() -> GQuark {
    <PoolErrorCode as glib::error::ErrorDomain>::domain().into_glib()
}

/// Does `verb` with the pool, and puts its error where the caller wants it, if he does.
///
/// # Safety
/// `pool` is NULL or an object, whose type is checked; `error` is NULL or may be
/// written to.
unsafe fn with_pool<T>(
    pool: *mut GstBufferPool,
    error: *mut *mut GError,
    verb: impl FnOnce(&PhysBufferPool) -> Result<T, PoolError>,
) -> Option<T> {
    const WHAT: &str = "the pool is no GstPhysBufferPool";
    if pool.is_null() {
        return refuse("gst_phys_buffer_pool", WHAT);
    }
    // SAFETY: the caller vouches for the pointer, and holds a reference, which may be a
    // floating one that is not ours to sink.
    let object: Borrowed<glib::Object> =
        unsafe { from_glib_borrow(pool.cast::<glib::gobject_ffi::GObject>()) };
    let Some(pool) = object.downcast_ref::<PhysBufferPool>() else {
        return refuse("gst_phys_buffer_pool", WHAT);
    };
    verb(pool)
        .inspect_err(|cause| {
            if !error.is_null() {
                let cause = glib::Error::new(PoolErrorCode::of(cause), &cause.to_string());
                // SAFETY: the caller vouches for the place.
                unsafe { *error = cause.into_glib_ptr() };
            }
        })
        .ok()
}

/// The caller's reference of a buffer.
///
/// # Safety
/// `buffer` is NULL or a reference that is given away.
unsafe fn taken(buffer: *mut GstBuffer) -> Option<gst::Buffer> {
    if buffer.is_null() {
        return refuse("gst_phys_buffer_pool", "the buffer is NULL");
    }
    // SAFETY: as the caller says.
    Some(unsafe { from_glib_full(buffer) })
}

/// A free buffer, to be filled. Any number of threads may use this and the functions below
/// at once; flushing and deactivating the pool end every wait. What is misuse of a function
/// (a pool of another type, a NULL buffer) is a critical warning, and sets no error.
///
/// timeout: nanoseconds, 0 for no wait, -1 for ever
///
/// Returns: (transfer full) (nullable): the buffer
///
/// # Safety
/// `pool` is an object, `error` NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_acquire_free(
    pool: *mut GstBufferPool,
    timeout: i64,
    error: *mut *mut GError,
) -> *mut GstBuffer {
    // SAFETY: as the caller says.
    unsafe { with_pool(pool, error, |pool| pool.acquire_free(wait_from_ns(timeout))) }
        .into_glib_ptr()
}

/// Puts a buffer at the end of the filled queue.
///
/// buffer: (transfer full): the buffer, taken also when this fails (the signal takes none):
/// it is then free again once its last reference is gone
///
/// # Safety
/// `pool` is an object, `error` NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_submit_filled(
    pool: *mut GstBufferPool,
    buffer: *mut GstBuffer,
    error: *mut *mut GError,
) -> gboolean {
    // SAFETY: as the caller says; the reference is ours from here on.
    let submitted = unsafe {
        taken(buffer).and_then(|buffer| with_pool(pool, error, |pool| pool.submit_filled(buffer)))
    };
    submitted.is_some().into_glib()
}

/// The oldest filled buffer.
///
/// timeout: nanoseconds, 0 for no wait, -1 for ever
///
/// Returns: (transfer full) (nullable): the buffer
///
/// # Safety
/// `pool` is an object, `error` NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_acquire_filled(
    pool: *mut GstBufferPool,
    timeout: i64,
    error: *mut *mut GError,
) -> *mut GstBuffer {
    // SAFETY: as the caller says.
    unsafe {
        with_pool(pool, error, |pool| {
            pool.acquire_filled(wait_from_ns(timeout))
        })
    }
    .into_glib_ptr()
}

/// Ends the consumer's use of a buffer. It is free again when its last reference is gone.
///
/// buffer: (transfer full): the buffer, taken also when this fails (the signal takes none)
///
/// # Safety
/// `pool` is an object, `error` NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_release_filled(
    pool: *mut GstBufferPool,
    buffer: *mut GstBuffer,
    error: *mut *mut GError,
) -> gboolean {
    // SAFETY: as the caller says; the reference is ours from here on.
    let released = unsafe {
        taken(buffer).and_then(|buffer| with_pool(pool, error, |pool| pool.release_filled(buffer)))
    };
    released.is_some().into_glib()
}

/// A new file descriptor of the dma-buf of the buffer with this id, for another process.
///
/// Returns: the descriptor, the caller's to close, or -1
///
/// # Safety
/// `pool` is an object, `error` NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_export_dmabuf(
    pool: *mut GstBufferPool,
    id: u32,
    error: *mut *mut GError,
) -> c_int {
    // SAFETY: as the caller says.
    unsafe { with_pool(pool, error, |pool| pool.export_dmabuf(id)) }
        .map_or(-1, IntoRawFd::into_raw_fd)
}
