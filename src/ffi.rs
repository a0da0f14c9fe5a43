// SPDX-License-Identifier: MPL-2.0
//! Functions for C that GObject does not offer: pools over the application's memory, and pool operations
//! that report failures by a GError.
//!
//! `tests/generate header` makes `include/gstphysmem.h` from this file, [`meta::ffi`](crate::meta::ffi) and
//! `cbindgen.toml`, so the readers of this documentation write C. They get everything else by properties,
//! signals and the meta. The comments begin as g-ir-scanner wants it, which describes the header to other
//! languages (`src/introspect`).

use std::{
    ffi::c_int,
    os::fd::IntoRawFd,
    ptr::NonNull,
    sync::{Arc, OnceLock},
};

use gst::{
    ffi::{GstBuffer, GstBufferPool},
    glib::{
        self,
        ffi::{GError, GQuark, GType, gboolean, gpointer},
        prelude::*,
        subclass::{boxed::BoxedType, register_boxed_type},
        translate::{Borrowed, IntoGlib, IntoGlibPtr, from_glib_borrow, from_glib_full},
    },
};

use crate::{
    handle::BufferHandle,
    memory::{Extent, MemoryKind, PhysAddr},
    meta::ffi::GstPhysExtent,
    pool::{MemoryBlock, PhysBufferPool, PoolError, Wait, handle_of_dmabuf, handle_of_pieces},
};

/// The phys_addr of a block whose address is to be looked up in /proc/self/pagemap, which needs
/// CAP_SYS_ADMIN.
pub const GST_PHYS_ADDR_UNKNOWN: u64 = 0;

/// A block of memory that stays mapped read-write as long as its pool and the pool's buffers exist.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GstPhysMemBlock {
    /// First byte, as the CPU sees it, not NULL.
    pub data: gpointer,
    /// Length in bytes, not 0.
    pub size: usize,
    /// Physical address of the first byte, for a block in one physical extent; it is not verified. Or
    /// GST_PHYS_ADDR_UNKNOWN.
    pub phys_addr: u64,
}

impl GstPhysMemBlock {
    /// The block, or why these values describe none.
    fn checked(&self) -> Result<MemoryBlock, &'static str> {
        let phys = (self.phys_addr != GST_PHYS_ADDR_UNKNOWN).then_some(PhysAddr(self.phys_addr));
        MemoryBlock::checked(self.data.cast(), self.size, phys)
    }
}

/// Reports a wrong argument by a critical warning, as GLib's own functions do.
fn warn_misuse<T>(function: &str, what: &str) -> Option<T> {
    glib::g_critical!("GStreamer-PhysMem", "{function}: {what}");
    None
}

/// The pool of this library. The header has it as another name of GstBufferPool, so that C programs need no
/// cast; to other languages it is a class of its own.
pub type GstPhysBufferPool = GstBufferPool;

fn into_c(pool: PhysBufferPool) -> *mut GstBufferPool {
    pool.upcast::<gst::BufferPool>().into_glib_ptr()
}

/// gst_phys_buffer_pool_get_type:
///
/// The type of the pool: GST_TYPE_PHYS_BUFFER_POOL.
#[unsafe(no_mangle)]
pub extern "C" fn gst_phys_buffer_pool_get_type() -> GType {
    PhysBufferPool::static_type().into_glib()
}

/// gst_phys_buffer_pool_new:
/// @kind: (type GstPhysMemoryKind): a GstPhysMemoryKind; GST_PHYS_MEMORY_KIND_AUTO takes the first that works
///
/// Makes a pool that allocates memory of this kind when it is activated. For the other properties there is
/// g_object_new() with GST_TYPE_PHYS_BUFFER_POOL.
///
/// Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, for another number
#[unsafe(no_mangle)]
pub extern "C" fn gst_phys_buffer_pool_new(kind: c_int) -> *mut GstBufferPool {
    let kinds = glib::EnumClass::with_type(MemoryKind::static_type());
    let Some(kind) = kinds.and_then(|kinds| kinds.to_value(kind)) else {
        return warn_misuse(
            "gst_phys_buffer_pool_new",
            "there is no such GstPhysMemoryKind",
        )
        .unwrap_or(std::ptr::null_mut());
    };
    let pool = glib::Object::builder::<PhysBufferPool>();
    into_c(pool.property("kind", kind).build())
}

/// gst_phys_buffer_pool_new_with_regions:
/// @blocks: (array length=n_blocks): the blocks
/// @n_blocks: number of blocks
///
/// Makes a pool with one buffer for each block. The blocks must outlive the pool and every buffer and
/// memory that came from it. Configure the pool with a buffer size that fits into the smallest block. The
/// array is copied.
///
/// Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, for a block without data or
/// size, or that ends beyond the last address
///
/// # Safety
/// `blocks` points to `n_blocks` blocks of memory that no other code manages.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_new_with_regions(
    blocks: *const GstPhysMemBlock,
    n_blocks: u32,
) -> *mut GstBufferPool {
    let pool = || -> Result<_, &'static str> {
        // SAFETY: the caller guarantees pointer and count.
        let blocks = unsafe { array(blocks, n_blocks) }.ok_or("the array of blocks is NULL")?;
        let blocks: Result<Vec<_>, _> = blocks.iter().map(GstPhysMemBlock::checked).collect();
        // SAFETY: the caller guarantees the blocks; none is empty.
        Ok(into_c(unsafe { PhysBufferPool::with_regions(&blocks?) }))
    };
    pool().unwrap_or_else(|what| {
        warn_misuse("gst_phys_buffer_pool_new_with_regions", what).unwrap_or(std::ptr::null_mut())
    })
}

/// The array that a caller passes. `None` for NULL, even with a count of 0.
///
/// # Safety
/// `items` is NULL or points to `n_items` items that outlive the result.
unsafe fn array<'a, T>(items: *const T, n_items: u32) -> Option<&'a [T]> {
    // SAFETY: the caller keeps this function's contract.
    (!items.is_null()).then(|| unsafe { std::slice::from_raw_parts(items, n_items as usize) })
}

/// The user data of a destroy function. The caller promises that any thread may use it.
struct UserData(gpointer);
// SAFETY: the constructor's contract allows any thread to destroy it.
unsafe impl Send for UserData {}

/// gst_phys_memory_kind_get_type:
///
/// The type of GstPhysMemoryKind.
#[unsafe(no_mangle)]
pub extern "C" fn gst_phys_memory_kind_get_type() -> GType {
    MemoryKind::static_type().into_glib()
}

/// Owns a block of memory together with the function that frees it. In languages that count references for
/// their programs, the block is freed when program and pool have both given it up.
#[derive(Clone)]
pub struct GstPhysBufferHandle(Arc<BufferHandle>);

impl BoxedType for GstPhysBufferHandle {
    const NAME: &'static str = "GstPhysBufferHandle";
    const ALLOW_NAME_CONFLICT: bool = true;
}

impl StaticType for GstPhysBufferHandle {
    fn static_type() -> glib::Type {
        static TYPE: OnceLock<glib::Type> = OnceLock::new();
        *TYPE.get_or_init(register_boxed_type::<Self>)
    }
}

/// gst_phys_buffer_handle_get_type:
///
/// The boxed type of handles. A copy is one more owner of the same block.
#[unsafe(no_mangle)]
pub extern "C" fn gst_phys_buffer_handle_get_type() -> GType {
    GstPhysBufferHandle::static_type().into_glib()
}

fn into_c_handle(handle: BufferHandle) -> *mut GstPhysBufferHandle {
    Box::into_raw(Box::new(GstPhysBufferHandle(Arc::new(handle))))
}

/// gst_phys_buffer_handle_new:
/// @data: first byte
/// @size: length in bytes
/// @phys_addr: physical address of the first byte, as in GstPhysMemBlock
/// @destroy: (scope async) (closure user_data) (nullable): frees the block
/// @user_data: for destroy
///
/// Takes over data, size bytes, which stay mapped read-write until destroy is called with user_data (a
/// pointer to what free, munmap or cudaFree need to know). destroy runs exactly once, on any thread: when
/// the handle is freed or, if a buffer over it is mapped then, right after the last unmap. A device that
/// uses the memory does not delay destroy: keep the buffer mapped meanwhile.
///
/// Returns: (transfer full) (nullable): the handle; NULL, and a critical warning, for values that describe
/// no block (see GstPhysMemBlock); nothing is taken over in that case
///
/// # Safety
/// `data` is a block of memory that no other code frees, and `destroy` can free it from any thread.
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
    let block = match block.checked() {
        Ok(block) => block,
        Err(what) => {
            return warn_misuse("gst_phys_buffer_handle_new", what).unwrap_or(std::ptr::null_mut());
        }
    };
    let user_data = UserData(user_data);
    let deleter = move |_: NonNull<u8>, _: usize| {
        // Makes the closure capture the whole struct, which is Send, and not its field.
        let UserData(user_data) = { user_data };
        if let Some(destroy) = destroy {
            // SAFETY: it runs once, after the last access; the caller gave both.
            unsafe { destroy(user_data) }
        }
    };
    // SAFETY: the caller guarantees the block until `destroy` runs.
    let handle = unsafe { BufferHandle::new(block.virt, block.size_bytes, deleter) };
    let handle = match block.phys {
        Some(phys) => handle.with_phys_addr(phys),
        None => handle,
    };
    into_c_handle(handle)
}

/// gst_phys_buffer_handle_new_full:
/// @data: first byte
/// @size: length in bytes
/// @extents: (array length=n_extents) (nullable): the pieces in the order of the bytes, size bytes in all; the
///   array is copied. With NULL the addresses are looked up in /proc/self/pagemap.
/// @n_extents: number of pieces
/// @dmabuf_fd: a dma-buf over the same memory, whose first byte is that of data, or -1. The function duplicates
///   it; the caller still closes its own. A map of a buffer tells the kernel of the CPU's access to it
///   (DMA_BUF_IOCTL_SYNC).
/// @destroy: (scope async) (closure user_data) (nullable): frees the block
/// @user_data: for destroy
///
/// As gst_phys_buffer_handle_new(), for memory in any number of physical pieces, and with its dma-buf.
///
/// Returns: (transfer full) (nullable): the handle; NULL, and a critical warning, for values that describe
/// no block; nothing is taken over in that case
///
/// # Safety
/// As gst_phys_buffer_handle_new(), and `extents` is NULL or points to `n_extents` extents.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_handle_new_full(
    data: gpointer,
    size: usize,
    extents: *const GstPhysExtent,
    n_extents: u32,
    dmabuf_fd: c_int,
    destroy: glib::ffi::GDestroyNotify,
    user_data: gpointer,
) -> *mut GstPhysBufferHandle {
    // SAFETY: the caller guarantees pointer and count.
    let extents = unsafe { array(extents, n_extents) };
    let extents = extents.map(|extents| {
        let extent = |extent: &GstPhysExtent| Extent {
            phys: PhysAddr(extent.phys_addr),
            len_bytes: extent.size,
        };
        extents.iter().map(extent).collect()
    });
    let user_data = UserData(user_data);
    let deleter = move || {
        // Makes the closure capture the whole struct, which is Send, and not its field.
        let UserData(user_data) = { user_data };
        if let Some(destroy) = destroy {
            // SAFETY: it runs once, after the last access; the caller gave both.
            unsafe { destroy(user_data) }
        }
    };
    // SAFETY: the caller guarantees the block until `destroy` runs.
    match unsafe { handle_of_pieces(data.cast(), size, extents, dmabuf_fd, deleter) } {
        Ok(handle) => into_c_handle(handle),
        Err(what) => {
            warn_misuse("gst_phys_buffer_handle_new_full", what).unwrap_or(std::ptr::null_mut())
        }
    }
}

/// gst_phys_buffer_handle_new_from_dmabuf:
/// @dmabuf_fd: the dma-buf, of which the function takes a duplicate; the caller still closes its own
///
/// Maps a whole dma-buf read-write. The map ends when the handle is freed, as destroy of
/// gst_phys_buffer_handle_new() says. The addresses are looked up in /proc/self/pagemap, where drivers often show
/// none; if the driver tells them, map the dma-buf and use gst_phys_buffer_handle_new_full().
///
/// Returns: (transfer full) (nullable): the handle; NULL with an error if the descriptor is no dma-buf, or
/// cannot be mapped
///
/// # Safety
/// `error` is NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_handle_new_from_dmabuf(
    dmabuf_fd: c_int,
    error: *mut *mut GError,
) -> *mut GstPhysBufferHandle {
    match handle_of_dmabuf(dmabuf_fd) {
        Ok(handle) => into_c_handle(handle),
        Err(cause) => {
            // SAFETY: the caller guarantees `error`.
            unsafe { store(error, PoolErrorCode::Failed, &cause) };
            std::ptr::null_mut()
        }
    }
}

/// gst_phys_buffer_handle_free: (skip)
/// @handle: (transfer full) (nullable): the handle
///
/// Frees a handle that no pool owns. NULL is ignored.
///
/// # Safety
/// `handle` is freed once, and was not given to a pool that owns it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_handle_free(handle: *mut GstPhysBufferHandle) {
    if !handle.is_null() {
        // SAFETY: the caller guarantees the handle's origin, and that it is freed once.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// gst_phys_buffer_pool_new_with_handles:
/// @handles: (transfer full) (array length=n_handles): the handles; the array itself stays the caller's
/// @n_handles: number of handles
///
/// Makes a pool that owns the handles. Each handle is freed when the pool and the last buffer and memory
/// that came from it are freed.
///
/// Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, if a handle or the array is
/// NULL; no handle is taken in that case
///
/// # Safety
/// `handles` points to `n_handles` handles, none twice; the pool owns them from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_new_with_handles(
    handles: *const *mut GstPhysBufferHandle,
    n_handles: u32,
) -> *mut GstBufferPool {
    // SAFETY: the caller guarantees pointer and count.
    match unsafe { array_of_handles("gst_phys_buffer_pool_new_with_handles", handles, n_handles) } {
        Some(handles) => {
            let handles = handles.iter();
            // SAFETY: none is NULL, and the caller gives every one away.
            let handles = handles.map(|&handle| unsafe { Box::from_raw(handle).0 });
            into_c(PhysBufferPool::with_shared_handles(handles))
        }
        None => std::ptr::null_mut(),
    }
}

/// gst_phys_buffer_pool_new_with_borrowed_handles:
/// @handles: (transfer none) (array length=n_handles): the handles
/// @n_handles: number of handles
///
/// Makes a pool that borrows the handles. The application may free each handle at any time. After that its
/// buffer is not handed out again, a map of the buffer fails, and `validate` returns FALSE.
///
/// Returns: (transfer full) (nullable): the pool; NULL, and a critical warning, if a handle or the array is
/// NULL
///
/// # Safety
/// `handles` points to `n_handles` handles, none freed before this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_new_with_borrowed_handles(
    handles: *const *mut GstPhysBufferHandle,
    n_handles: u32,
) -> *mut GstBufferPool {
    // SAFETY: the caller guarantees pointer and count.
    match unsafe {
        array_of_handles(
            "gst_phys_buffer_pool_new_with_borrowed_handles",
            handles,
            n_handles,
        )
    } {
        Some(handles) => {
            let handles = handles.iter();
            // SAFETY: none is NULL, and the caller guarantees that none is freed during this call.
            let handles = handles.map(|&handle| unsafe { &*(*handle).0 });
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
    // SAFETY: the caller keeps the contract of `array`.
    unsafe { array(handles, n_handles) }
        .filter(|handles| handles.iter().all(|handle| !handle.is_null()))
        .or_else(|| warn_misuse(function, "a handle is NULL"))
}

/// Why a function below returned NULL, FALSE or -1. The error domain is GST_PHYS_POOL_ERROR.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, glib::ErrorDomain)]
#[error_domain(name = "gst-phys-pool-error-quark")]
pub enum PoolErrorCode {
    /// A system call failed; the message has the details.
    Failed = 0,
    /// No buffer came within the timeout.
    NoBuffer = 1,
    /// The pool is flushing or inactive.
    Flushing = 2,
    /// No more memory can be allocated.
    NoMemory = 3,
    /// The buffer's state does not allow the operation, or the buffer is not one of this pool's.
    IllegalStep = 4,
    /// No buffer of the pool has this id.
    NoSuchId = 5,
    /// The owner of the memory has freed it.
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
            PoolError::NotActivated { .. } | PoolError::Duplicate { .. } => Self::Failed,
        }
    }
}

/// gst_phys_pool_error_quark:
///
/// The domain of the errors above: GST_PHYS_POOL_ERROR.
#[unsafe(no_mangle)]
pub extern "C" fn gst_phys_pool_error_quark() -> GQuark {
    <PoolErrorCode as glib::error::ErrorDomain>::domain().into_glib()
}

/// Runs `verb` with the pool. Stores its error in `error`, unless `error` is NULL.
///
/// # Safety
/// `pool` is NULL or an object, whose type is checked; `error` is NULL or may be written to.
unsafe fn with_pool<T>(
    pool: *mut GstBufferPool,
    error: *mut *mut GError,
    verb: impl FnOnce(&PhysBufferPool) -> Result<T, PoolError>,
) -> Option<T> {
    const WHAT: &str = "the pool is no GstPhysBufferPool";
    if pool.is_null() {
        return warn_misuse("gst_phys_buffer_pool", WHAT);
    }
    // SAFETY: the caller guarantees the pointer, and holds a reference, which may be a floating one, so it
    // is not sunk here.
    let object: Borrowed<glib::Object> =
        unsafe { from_glib_borrow(pool.cast::<glib::gobject_ffi::GObject>()) };
    let Some(pool) = object.downcast_ref::<PhysBufferPool>() else {
        return warn_misuse("gst_phys_buffer_pool", WHAT);
    };
    verb(pool)
        .inspect_err(|cause| {
            // SAFETY: the caller guarantees `error`.
            unsafe { store(error, PoolErrorCode::of(cause), &cause.to_string()) }
        })
        .ok()
}

/// Stores an error, unless the caller wants none.
///
/// # Safety
/// `error` is NULL or may be written to.
unsafe fn store(error: *mut *mut GError, code: PoolErrorCode, message: &str) {
    if !error.is_null() {
        let cause = glib::Error::new(code, message);
        // SAFETY: `error` is not NULL here, and the caller guarantees that it may be written to.
        unsafe { *error = cause.into_glib_ptr() };
    }
}

/// Takes the caller's reference of a buffer.
///
/// # Safety
/// `buffer` is NULL or a reference that is given away.
unsafe fn take_buffer(buffer: *mut GstBuffer) -> Option<gst::Buffer> {
    if buffer.is_null() {
        return warn_misuse("gst_phys_buffer_pool", "the buffer is NULL");
    }
    // SAFETY: the caller gives this reference away.
    Some(unsafe { from_glib_full(buffer) })
}

/// gst_phys_buffer_pool_acquire_free:
/// @pool: the pool
/// @timeout: nanoseconds; 0 does not wait, -1 waits for ever
///
/// Returns a free buffer to be filled. Any number of threads may call this and the functions below at the
/// same time. Flushing or deactivating the pool ends every wait. Misuse of a function (a pool of another
/// type, a NULL buffer) is a critical warning, and sets no error.
///
/// Returns: (transfer full) (nullable): the buffer
///
/// # Safety
/// `pool` is an object, `error` NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_acquire_free(
    pool: *mut GstPhysBufferPool,
    timeout: i64,
    error: *mut *mut GError,
) -> *mut GstBuffer {
    // SAFETY: the caller keeps the contract of `with_pool`.
    unsafe {
        with_pool(pool, error, |pool| {
            pool.acquire_free(Wait::from_ns(timeout))
        })
    }
    .into_glib_ptr()
}

/// gst_phys_buffer_pool_submit_filled:
/// @pool: the pool
/// @buffer: (transfer full): the buffer, taken also when this fails (the signal of the same name takes
///   none); in that case it is free again once its last reference is gone
///
/// Puts a buffer at the end of the filled queue.
///
/// # Safety
/// `pool` is an object, `error` NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_submit_filled(
    pool: *mut GstPhysBufferPool,
    buffer: *mut GstBuffer,
    error: *mut *mut GError,
) -> gboolean {
    // SAFETY: the caller keeps the contracts of both functions, and gives the buffer's reference away.
    let submitted = unsafe {
        take_buffer(buffer)
            .and_then(|buffer| with_pool(pool, error, |pool| pool.submit_filled(buffer)))
    };
    submitted.is_some().into_glib()
}

/// gst_phys_buffer_pool_acquire_filled:
/// @pool: the pool
/// @timeout: nanoseconds; 0 does not wait, -1 waits for ever
///
/// Returns the oldest filled buffer.
///
/// Returns: (transfer full) (nullable): the buffer
///
/// # Safety
/// `pool` is an object, `error` NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_acquire_filled(
    pool: *mut GstPhysBufferPool,
    timeout: i64,
    error: *mut *mut GError,
) -> *mut GstBuffer {
    // SAFETY: the caller keeps the contract of `with_pool`.
    unsafe {
        with_pool(pool, error, |pool| {
            pool.acquire_filled(Wait::from_ns(timeout))
        })
    }
    .into_glib_ptr()
}

/// gst_phys_buffer_pool_release_filled:
/// @pool: the pool
/// @buffer: (transfer full): the buffer, taken also when this fails (the signal of the same name takes none)
///
/// Ends the consumer's use of a buffer. The buffer is free again when its last reference is gone.
///
/// # Safety
/// `pool` is an object, `error` NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_release_filled(
    pool: *mut GstPhysBufferPool,
    buffer: *mut GstBuffer,
    error: *mut *mut GError,
) -> gboolean {
    // SAFETY: the caller keeps the contracts of both functions, and gives the buffer's reference away.
    let released = unsafe {
        take_buffer(buffer)
            .and_then(|buffer| with_pool(pool, error, |pool| pool.release_filled(buffer)))
    };
    released.is_some().into_glib()
}

/// gst_phys_buffer_pool_export_dmabuf:
/// @pool: the pool
/// @id: the buffer's id
///
/// Returns a new file descriptor of the dma-buf of the buffer with this id, to be given to another process.
///
/// Returns: the descriptor, which the caller closes, or -1
///
/// # Safety
/// `pool` is an object, `error` NULL or a place for an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_buffer_pool_export_dmabuf(
    pool: *mut GstPhysBufferPool,
    id: u32,
    error: *mut *mut GError,
) -> c_int {
    // SAFETY: the caller keeps the contract of `with_pool`.
    unsafe { with_pool(pool, error, |pool| pool.export_dmabuf(id)) }
        .map_or(-1, IntoRawFd::into_raw_fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_no_memory_is_refused_in_words() {
        let mut byte = 0u8;
        let data: gpointer = (&raw mut byte).cast();
        let refused = |data, size, phys_addr| {
            let block = GstPhysMemBlock {
                data,
                size,
                phys_addr,
            };
            block.checked().err()
        };
        for (expected, reason) in [
            ("NULL", refused(std::ptr::null_mut(), 1, 0)),
            ("size of a block is 0", refused(data, 0, 0)),
            ("last address of the process", refused(data, usize::MAX, 0)),
            (
                "last address of the process",
                refused(std::ptr::without_provenance_mut(usize::MAX), 2, 0),
            ),
            ("last physical address", refused(data, 2, u64::MAX)),
        ] {
            let reason = reason.unwrap();
            assert!(reason.contains(expected), "{reason}");
        }
        assert_eq!(refused(data, 1, u64::MAX), None);
        assert_eq!(refused(data, 1, GST_PHYS_ADDR_UNKNOWN), None);
    }
}
