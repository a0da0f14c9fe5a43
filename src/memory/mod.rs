// SPDX-License-Identifier: MPL-2.0
//! Memory kinds, their physical extents, and the GstAllocators over them.
//!
//! A [`Region`] is one block of memory of one [`MemoryKind`]. It is mapped once, and its [`Address`] is
//! looked up once. [`wrap`] makes GstMemory of a region, and [`region_of`] finds the region again from any
//! GstMemory that shares it. The pool decides which region a buffer gets, and when.

mod allocate;
mod allocator;
pub(crate) mod area_name;
mod available;
mod claims;
mod cpu_access;
mod error;
mod from_heap;
mod from_memfd;
mod from_region;
mod heap;
mod kind;
mod permission;
mod provider;
mod region;
mod remedy;
mod resolve;
mod table;

use std::sync::LazyLock;

pub use crate::address::{Address, AddressSource, AddressUnknown, Extent, PhysAddr};
pub use allocate::Request;
pub(crate) use allocate::check_total;
#[cfg(feature = "v1_24")]
pub(crate) use allocator::file_of;
pub use allocator::{
    PhysDmaBufAllocator, PhysFdAllocator, PhysMemAllocator, allocator, region_of, register, wrap,
};
pub use available::{Available, Limit};
pub use error::{AccessError, MemoryError};
pub(crate) use from_memfd::takes_large_pages;
pub use heap::{HeapMemory, heap_memory, is_uncached_heap};
pub use kind::MemoryKind;
pub use region::{Access, ExternalAddress, Owner, Region};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "physmemallocator",
        gst::DebugColorFlags::empty(),
        Some("Memory at known physical addresses"),
    )
});
