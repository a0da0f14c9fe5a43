// SPDX-License-Identifier: MPL-2.0
//! The C view of the meta. `include/gstphysmem.h` is made of this, see [`crate::ffi`].

use std::{ffi::c_char, mem::offset_of};

use gst::{
    ffi::{GstBuffer, GstMemory, GstMeta},
    glib::ffi::{gboolean, gpointer},
};

use crate::memory::Extent;

/// Flag of GstPhysMemMeta: source, phys_addr and extents are valid.
pub const GST_PHYS_MEM_FLAG_ADDRESS_KNOWN: u32 = 1 << 0;
/// Flag of GstPhysMemMeta: one extent holds the whole buffer.
pub const GST_PHYS_MEM_FLAG_CONTIGUOUS: u32 = 1 << 1;
/// Flag of GstPhysMemMeta: the kernel cannot move the pages, so the address stays true.
pub const GST_PHYS_MEM_FLAG_PINNED: u32 = 1 << 2;
/// Flag of GstPhysMemMeta: the pool did not allocate the memory.
pub const GST_PHYS_MEM_FLAG_EXTERNAL: u32 = 1 << 3;
/// Flag of GstPhysMemMeta: another process said all this, and sent the memory with it.
pub const GST_PHYS_MEM_FLAG_RECEIVED: u32 = 1 << 4;

/// A run of physically contiguous bytes.
#[repr(C)]
pub struct GstPhysExtent {
    /// First byte, as the memory controller counts: not behind an IOMMU.
    pub phys_addr: u64,
    /// Length in bytes.
    pub size: u64,
}

// The meta points to the extents that an `Address` holds.
const _: () = {
    assert!(size_of::<GstPhysExtent>() == size_of::<Extent>());
    assert!(align_of::<GstPhysExtent>() == align_of::<Extent>());
    assert!(offset_of!(GstPhysExtent, phys_addr) == offset_of!(Extent, phys));
    assert!(offset_of!(GstPhysExtent, size) == offset_of!(Extent, len_bytes));
};

/// What is known of a buffer's memory. To be read only. Every pointer in it is owned by the
/// meta and valid as long as the meta is, that is, as long as the buffer.
///
/// Only a copy that shares the whole memory keeps the meta: its address is never that of
/// other bytes. phys_addr and extents are of the buffer as the pool handed it out: for one
/// that was resized since, see gst_buffer_get_phys_addr(). They mean something only if
/// gst_phys_mem_meta_is_address_known(); 0 means nothing.
#[repr(C)]
pub struct GstPhysMemMeta {
    /// The parent.
    pub meta: GstMeta,
    /// Unique in the process whose pool it is, never 0, the same for each use.
    pub id: u32,
    /// GST_PHYS_MEM_FLAG_...
    pub flags: u32,
    /// A GstPhysMemoryKind.
    pub kind: i32,
    /// A GstPhysAddressSource, if the address is known.
    pub source: i32,
    /// Of the first byte, if known.
    pub phys_addr: u64,
    /// Bytes.
    pub size: u64,
    /// Where in its memory the buffer began, bytes.
    pub offset: u64,
    /// The contiguous pieces, in the order of the bytes, or NULL.
    pub extents: *const GstPhysExtent,
    /// How many, 0 if the address is unknown.
    pub n_extents: u32,
    /// Or -1. It is the memory's: dup() to keep it, never close it. Of a buffer that was
    /// received ask the memory itself.
    pub dmabuf_fd: i32,
    /// dma-heap or device that the memory came from, or NULL.
    pub heap: *const c_char,
    /// Why the address is unknown, one sentence, or NULL.
    pub unknown_reason: *const c_char,
    /// What all this is about, or NULL if it was received; only to be compared.
    pub memory: *const GstMemory,
    /// Private: FALSE once the owner of external memory freed it.
    pub(super) is_alive: unsafe extern "C" fn(meta: *const GstPhysMemMeta) -> gboolean,
    /// Private: whether all this is about a memory.
    pub(super) is_about:
        unsafe extern "C" fn(meta: *const GstPhysMemMeta, memory: *mut GstMemory) -> gboolean,
    /// Private.
    pub(super) opaque: gpointer,
    /// Private: the buffer that the meta is on.
    pub(super) buffer: *const GstBuffer,
}
