// SPDX-License-Identifier: MPL-2.0
//! The meta as a C struct. cbindgen makes `include/gstphysmem.h` of this file, see [`crate::ffi`].

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
/// Flag of GstPhysMemMeta: another process sent the memory, and what the meta says of it.
pub const GST_PHYS_MEM_FLAG_RECEIVED: u32 = 1 << 4;

/// A run of physically contiguous bytes.
#[repr(C)]
pub struct GstPhysExtent {
    /// Address of the first byte, as the memory controller counts: not an address behind an IOMMU.
    pub phys_addr: u64,
    /// Length in bytes.
    pub size: u64,
}

// The meta points to the extents of an `Address`, which must be of the same layout.
const _: () = {
    assert!(size_of::<GstPhysExtent>() == size_of::<Extent>());
    assert!(align_of::<GstPhysExtent>() == align_of::<Extent>());
    assert!(offset_of!(GstPhysExtent, phys_addr) == offset_of!(Extent, phys));
    assert!(offset_of!(GstPhysExtent, size) == offset_of!(Extent, len_bytes));
};

/// What is known of a buffer's memory, to be read only. The meta owns what its pointers point to,
/// which stays valid as long as the meta, that is, as long as the buffer.
///
/// A copy of the buffer keeps the meta only if it shares the whole memory, so that the address is
/// never that of other bytes. phys_addr and extents describe the buffer as the pool handed it out;
/// for a buffer that was resized since, use gst_buffer_get_phys_addr(). They are valid only if
/// gst_phys_mem_meta_is_address_known() says so; an address of 0 means nothing.
#[repr(C)]
pub struct GstPhysMemMeta {
    /// The GstMeta that this struct extends.
    pub meta: GstMeta,
    /// The buffer's id: never 0, unique in the process that has the pool, the same for each use.
    pub id: u32,
    /// Bits of GST_PHYS_MEM_FLAG_...
    pub flags: u32,
    /// A GstPhysMemoryKind.
    pub kind: i32,
    /// A GstPhysAddressSource, valid if the address is known.
    pub source: i32,
    /// Physical address of the first byte, valid if the address is known.
    pub phys_addr: u64,
    /// Size of the buffer in bytes.
    pub size: u64,
    /// Offset in bytes at which the buffer began in its memory.
    pub offset: u64,
    /// The physically contiguous pieces in the order of the bytes, or NULL.
    pub extents: *const GstPhysExtent,
    /// Number of extents, 0 if the address is unknown.
    pub n_extents: u32,
    /// File descriptor of the dma-buf, or -1. The memory owns it: dup() it to keep it, and never
    /// close it. For a buffer that was received, ask the memory itself.
    pub dmabuf_fd: i32,
    /// Name of the dma-heap or device that the memory came from, or NULL.
    pub heap: *const c_char,
    /// Why the address is unknown, in one sentence, or NULL.
    pub unknown_reason: *const c_char,
    /// The memory that the meta describes, only to be compared; NULL if it was received.
    pub memory: *const GstMemory,
    /// Private: returns FALSE once the owner of external memory has freed it.
    pub(super) is_alive: unsafe extern "C" fn(meta: *const GstPhysMemMeta) -> gboolean,
    /// Private: returns whether the meta describes this memory.
    pub(super) is_about:
        unsafe extern "C" fn(meta: *const GstPhysMemMeta, memory: *mut GstMemory) -> gboolean,
    /// Private.
    pub(super) opaque: gpointer,
    /// Private: the buffer that the meta is on.
    pub(super) buffer: *const GstBuffer,
}
