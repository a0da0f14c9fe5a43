// SPDX-License-Identifier: MPL-2.0
//! The C view of the meta: `include/gstphysmem.h`.

use std::ffi::c_char;

use gst::{
    ffi::{GstMemory, GstMeta},
    glib::ffi::gboolean,
};

use crate::memory::Extent;

/// `phys_addr`, `extents` are valid.
pub const GST_PHYS_MEM_FLAG_ADDRESS_KNOWN: u32 = 1 << 0;
/// One extent holds the whole buffer.
pub const GST_PHYS_MEM_FLAG_CONTIGUOUS: u32 = 1 << 1;
/// The kernel cannot move the pages: the address stays true.
pub const GST_PHYS_MEM_FLAG_PINNED: u32 = 1 << 2;
/// The pool did not allocate the memory (`EXTERNAL`; else `OWNED`).
pub const GST_PHYS_MEM_FLAG_EXTERNAL: u32 = 1 << 3;
/// Another process said all this, and sent the memory with it.
pub const GST_PHYS_MEM_FLAG_RECEIVED: u32 = 1 << 4;

/// The public part of the meta, as C sees it.
#[repr(C)]
pub struct GstPhysMemMeta {
    /// The parent structure.
    pub meta: GstMeta,
    /// Unique in the process that made the buffer, never 0.
    pub id: u32,
    /// `GST_PHYS_MEM_FLAG_*`.
    pub flags: u32,
    /// A `GstPhysMemoryKind`.
    pub kind: i32,
    /// A `GstPhysAddressSource`; meaningless unless the address is known.
    pub source: i32,
    /// Physical address of the buffer's first byte; meaningless unless known.
    pub phys_addr: u64,
    /// Bytes in the buffer.
    pub size: u64,
    /// The physically contiguous pieces in order; null unless known.
    pub extents: *const Extent,
    /// How many `extents`.
    pub n_extents: u32,
    /// The buffer's dma-buf, owned by the memory, or -1; always -1 if `RECEIVED`.
    pub dmabuf_fd: i32,
    /// dma-heap or device that the memory came from, or null.
    pub heap: *const c_char,
    /// Why the address is unknown, one sentence, or null.
    pub unknown_reason: *const c_char,
    /// The memory that all this is about, or null if `RECEIVED`. Only to be compared.
    pub memory: *const GstMemory,
    /// Whether all this is about a memory: mapping a shared buffer for writing replaces
    /// it, and then, as for any but the buffer's one memory, nothing here holds.
    pub(super) is_about: unsafe extern "C" fn(*const GstPhysMemMeta, *mut GstMemory) -> gboolean,
    pub(super) private: *mut super::Private,
}
