// SPDX-License-Identifier: MPL-2.0
//! What C cannot do through GObject: pools over memory of the application, and verbs
//! that say by a GError why they failed.
//!
//! The functions are declared and documented in `include/gstphysmem.h`; all else
//! that C needs are properties, signals and the meta.

use std::{ffi::c_int, os::fd::IntoRawFd, ptr::NonNull};

use gst::{
    ffi::{GstBuffer, GstBufferPool},
    glib::{
        self,
        ffi::{GError, GQuark, gboolean, gpointer},
        prelude::*,
        translate::{IntoGlib, IntoGlibPtr, from_glib_full, from_glib_none},
    },
};

use crate::{
    handle::BufferHandle,
    memory::PhysAddr,
    pool::{MemoryBlock, PhysBufferPool, PoolError, wait_from_ns},
};

/// `phys_addr` of a block whose address is to be looked up.
pub const GST_PHYS_ADDR_UNKNOWN: u64 = u64::MAX;

/// A block of memory that outlives its pool.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GstPhysMemBlock {
    /// First byte, as the CPU sees it.
    pub data: gpointer,
    /// Length in bytes.
    pub size: usize,
    /// First byte, as hardware sees it, or [`GST_PHYS_ADDR_UNKNOWN`].
    pub phys_addr: u64,
}

fn given(phys_addr: u64) -> Option<PhysAddr> {
    (phys_addr != GST_PHYS_ADDR_UNKNOWN).then_some(PhysAddr(phys_addr))
}

fn into_c(pool: PhysBufferPool) -> *mut GstBufferPool {
    pool.upcast::<gst::BufferPool>().into_glib_ptr()
}

/// # Safety
/// `blocks` points to `n_blocks` blocks, each as
/// [`PhysBufferPool::with_regions`] demands. NULL is returned for one that is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_new_with_regions(
    blocks: *const GstPhysMemBlock,
    n_blocks: u32,
) -> *mut GstBufferPool {
    if blocks.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller vouches for pointer and count.
    let blocks = unsafe { std::slice::from_raw_parts(blocks, n_blocks as usize) };
    let blocks = blocks.iter().map(|block| {
        let virt = NonNull::new(block.data.cast::<u8>()).filter(|_| block.size != 0)?;
        Some(MemoryBlock {
            virt,
            phys: given(block.phys_addr),
            size_bytes: block.size,
        })
    });
    match blocks.collect::<Option<Vec<_>>>() {
        // SAFETY: the caller vouches for the blocks; none is empty.
        Some(blocks) => into_c(unsafe { PhysBufferPool::with_regions(&blocks) }),
        None => std::ptr::null_mut(),
    }
}

/// What C hands to its destroy function. Thread safety is the caller's promise.
struct UserData(gpointer);
// SAFETY: the constructor's contract says that any thread may destroy it.
unsafe impl Send for UserData {}

/// # Safety
/// `data` and `size` as [`BufferHandle::new`] demands, `destroy` the way to free
/// them from any thread. NULL is returned, and nothing destroyed, for an empty block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_handle_new(
    data: gpointer,
    size: usize,
    phys_addr: u64,
    destroy: gst::glib::ffi::GDestroyNotify,
    user_data: gpointer,
) -> *mut BufferHandle {
    let Some(ptr) = NonNull::new(data.cast::<u8>()).filter(|_| size != 0) else {
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
    let handle = unsafe { BufferHandle::new(ptr, size, deleter) };
    let handle = match given(phys_addr) {
        Some(phys) => handle.with_phys_addr(phys),
        None => handle,
    };
    Box::into_raw(Box::new(handle))
}

/// # Safety
/// `handle` is NULL or came from [`gst_phys_buffer_handle_new`], is freed once, and
/// was not given to a pool that owns it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_handle_free(handle: *mut BufferHandle) {
    if !handle.is_null() {
        // SAFETY: the caller vouches for origin and uniqueness.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// # Safety
/// `handles` points to `n_handles` handles of [`gst_phys_buffer_handle_new`], none
/// NULL, none twice; they are the pool's from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_new_with_handles(
    handles: *const *mut BufferHandle,
    n_handles: u32,
) -> *mut GstBufferPool {
    if handles.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller vouches for pointer and count, and gives every handle away.
    let handles = unsafe {
        std::slice::from_raw_parts(handles, n_handles as usize)
            .iter()
            .map(|&handle| *Box::from_raw(handle))
            .collect()
    };
    into_c(PhysBufferPool::with_handles(handles))
}

/// # Safety
/// `handles` points to `n_handles` handles of [`gst_phys_buffer_handle_new`], none
/// NULL, none freed before this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_new_with_borrowed_handles(
    handles: *const *mut BufferHandle,
    n_handles: u32,
) -> *mut GstBufferPool {
    if handles.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller vouches for pointer and count, and that all are alive.
    let handles = unsafe {
        std::slice::from_raw_parts(handles, n_handles as usize)
            .iter()
            .map(|&handle| &*handle)
    };
    into_c(PhysBufferPool::with_borrowed_handles(handles))
}

/// `GST_PHYS_POOL_ERROR_*`: the code of an error that the functions below report.
#[repr(i32)]
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
            PoolError::NoBuffer => Self::NoBuffer,
            PoolError::Flushing => Self::Flushing,
            PoolError::NoMemory(_) => Self::NoMemory,
            PoolError::IllegalStep(_) => Self::IllegalStep,
            PoolError::NoSuchId(_) => Self::NoSuchId,
            PoolError::Gone { .. } | PoolError::AllGone => Self::Gone,
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
    verb: impl FnOnce(PhysBufferPool) -> Result<T, PoolError>,
) -> Option<T> {
    // SAFETY: the caller vouches for the pointer. The reference of our own keeps the
    // pool to the end of the verb.
    let pool: Option<glib::Object> =
        unsafe { from_glib_none(pool.cast::<glib::gobject_ffi::GObject>()) };
    let Some(pool) = pool.and_then(|pool| pool.downcast::<PhysBufferPool>().ok()) else {
        glib::g_critical!("GStreamer-PhysMem", "the pool is no GstPhysBufferPool");
        return None;
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

/// # Safety
/// `pool` is a pool, `error` NULL or a place for an error.
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

/// # Safety
/// `pool` is a pool, `buffer` a buffer whose reference is given away, `error` NULL or
/// a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_submit_filled(
    pool: *mut GstBufferPool,
    buffer: *mut GstBuffer,
    error: *mut *mut GError,
) -> gboolean {
    // SAFETY: as the caller says; the reference is ours from here on.
    let submitted = unsafe {
        let buffer: gst::Buffer = from_glib_full(buffer);
        with_pool(pool, error, |pool| pool.submit_filled(buffer))
    };
    submitted.is_some().into_glib()
}

/// # Safety
/// `pool` is a pool, `error` NULL or a place for an error.
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

/// # Safety
/// `pool` is a pool, `buffer` a buffer whose reference is given away, `error` NULL or
/// a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_release_filled(
    pool: *mut GstBufferPool,
    buffer: *mut GstBuffer,
    error: *mut *mut GError,
) -> gboolean {
    // SAFETY: as the caller says; the reference is ours from here on.
    let released = unsafe {
        let buffer: gst::Buffer = from_glib_full(buffer);
        with_pool(pool, error, |pool| pool.release_filled(buffer))
    };
    released.is_some().into_glib()
}

/// # Safety
/// `pool` is a pool, `error` NULL or a place for an error.
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
