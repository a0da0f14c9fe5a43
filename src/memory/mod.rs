// SPDX-License-Identifier: MPL-2.0
//! Memory kinds, their physical extents, and the GstAllocators over them.
//!
//! A [`Region`] is one block of memory of one [`MemoryKind`], mapped once, with
//! its [`Address`] looked up once. [`wrap`] makes GstMemory of it, [`region_of`]
//! finds it again from any GstMemory that shares it. Who gets which region, and
//! when, is the pool's business, not this room's.

mod address;
mod allocate;
mod allocator;
mod available;
mod cpu_access;
mod error;
mod heap;
mod kind;
mod permission;
mod region;
mod remedy;
mod resolve;
mod source;

pub use address::{Address, AddressSource, AddressUnknown, Extent, PhysAddr};
pub use allocate::Request;
pub(crate) use allocate::check_total;
#[cfg(feature = "v1_24")]
pub(crate) use allocator::file_of;
pub use allocator::{
    PhysDmaBufAllocator, PhysFdAllocator, PhysMemAllocator, allocator, region_of, register, wrap,
};
pub use available::{Available, Limit};
pub use error::{AccessError, MemoryError};
pub use kind::MemoryKind;
pub use region::{Access, ExternalAddress, Owner, Region};
