// SPDX-License-Identifier: MPL-2.0
//! What C cannot do through GObject: pools over memory of the application.
//!
//! The functions are declared and documented in `include/gstphysmem.h`; all else
//! that C needs are properties, signals and the meta.

use std::ptr::NonNull;

use gst::{
    ffi::GstBufferPool,
    glib::{ffi::gpointer, prelude::*, translate::IntoGlibPtr},
};

use crate::{
    handle::BufferHandle,
    memory::PhysAddr,
    pool::{MemoryBlock, PhysBufferPool},
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
