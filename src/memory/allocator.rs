// SPDX-License-Identifier: MPL-2.0
//! GstAllocators over regions.
//!
//! GstFdMemory is opaque, so the allocators for memory with an fd are subclasses of GstFdAllocator and
//! GstDmaBufAllocator. Their memory borrows the region's fd. A table gives the region of each memory (`attached`).
//! Each allocator instance replaces the map functions by ones that return the region's own mapping. Memory
//! without an fd is a bare GstMemory. GstMemory::offset always counts from the first byte of the region,
//! because memory with an fd counts its offset from the start of the file.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, LazyLock};

use gst::glib;
use gst::glib::ffi::gpointer;
use gst::glib::translate::{IntoGlib, IntoGlibPtr, ToGlibPtr, from_glib_full};
use gst::prelude::*;
use gst_allocators::ffi as alloc_ffi;

use super::kind::MemoryKind;
use super::provider::AllocatorClass;
use super::region::Region;
use super::table::TABLE;
#[cfg(feature = "v1_24")]
use crate::sys::file_id::FileId;

mod attached;
mod imp;

use attached::OnFree;

glib::wrapper! {
    /// Allocates memory with a dma-buf: kinds cma, system and udmabuf, and external memory that has one.
    pub struct PhysDmaBufAllocator(ObjectSubclass<imp::PhysDmaBufAllocator>)
        @extends gst_allocators::DmaBufAllocator, gst_allocators::FdAllocator, gst::Allocator, gst::Object,
        @implements gst_allocators::PhysMemoryAllocator;
}

glib::wrapper! {
    /// Allocates memory with an fd that is not a dma-buf: kinds hugepage and normal.
    pub struct PhysFdAllocator(ObjectSubclass<imp::PhysFdAllocator>)
        @extends gst_allocators::FdAllocator, gst::Allocator, gst::Object,
        @implements gst_allocators::PhysMemoryAllocator;
}

glib::wrapper! {
    /// Allocates for kind auto, by the other allocators, and for kind region. Wraps external memory without
    /// an fd. An object of this type with the property `heap` allocates memory of kind region by that name:
    /// `g_object_new (g_type_from_name ("GstPhysMemAllocator"), "heap", "/dev/mem@0x30000000+64M", NULL)`.
    pub struct PhysMemAllocator(ObjectSubclass<imp::PhysMemAllocator>)
        @extends gst::Allocator, gst::Object,
        @implements gst_allocators::PhysMemoryAllocator;
}

/// One allocator for each row of the table of kinds.
static ALLOCATORS: LazyLock<[gst::Allocator; TABLE.len()]> =
    LazyLock::new(|| TABLE.each_ref().map(|row| imp::make(row.class, row.kind)));

/// The allocator of memory that has a dma-buf although memory of its kind need not have one: external
/// memory, and buffers of u-dma-buf.
static OTHER_DMA_BUF: LazyLock<gst::Allocator> =
    LazyLock::new(|| imp::make(AllocatorClass::DmaBuf, MemoryKind::External));

/// The allocator of a kind. Each memory that its `alloc` returns is a region of its own. The allocator of
/// kind external cannot allocate, nor can that of kind region, which has no heap: see [`PhysMemAllocator`].
///
/// All of them implement GstPhysMemoryAllocator, which has one address for a whole memory. That address is
/// 0 if the memory has several extents or its address is unknown.
pub fn allocator(kind: MemoryKind) -> &'static gst::Allocator {
    &ALLOCATORS[kind as usize]
}

/// Registers the allocators PhysMemCma, PhysMemSystem, PhysMemUdmabuf, PhysMemHugepage, PhysMemNormal,
/// PhysMemRegion and PhysMemAuto, so that `gst_allocator_find` finds them.
pub fn register() {
    for row in &TABLE {
        // An allocator that another copy of this library has registered serves as well.
        let is_new = |name: &&str| gst::Allocator::find(Some(name)).is_none();
        if let Some(name) = row.allocator.filter(is_new) {
            gst::Allocator::register(name, allocator(row.kind).clone());
        }
    }
}

/// Makes GstMemory of the region's bytes `offset_bytes .. offset_bytes + size_bytes`. A map of it returns
/// the region's own mapping. It is GstDmaBufMemory if the region has a dma-buf.
///
/// The memory's offset is `offset_bytes`, and its maxsize ends with the range, so that no resize reaches a
/// byte behind the range.
///
/// `on_free` runs once, after the memory and all memories that share it are freed.
///
/// # Panics
/// If the range is empty or runs past the end of the region.
pub fn wrap(
    region: &Arc<Region>,
    offset_bytes: usize,
    size_bytes: usize,
    on_free: Option<OnFree>,
) -> gst::Memory {
    let end = offset_bytes
        .checked_add(size_bytes)
        .filter(|&end| size_bytes > 0 && end <= region.size_bytes())
        .unwrap_or_else(|| {
            panic!(
                "{offset_bytes} + {size_bytes} bytes of a region of {}",
                region.size_bytes()
            )
        });
    let allocator = match region.dma_buf() {
        Some(_) if !region.kind().has_dma_buf() => &OTHER_DMA_BUF,
        _ => allocator(region.kind()),
    };
    let mem = match region.dma_buf().or_else(|| region.fd()) {
        Some(fd) => fd_memory(allocator, fd, end),
        None => imp::bare_memory(allocator, end),
    };
    // SAFETY: `mem` is a new memory that no other code has seen, so its fields and flags may be set; offset
    // and size add up to its maxsize. Its allocator calls `detach` when it frees the memory.
    unsafe {
        (*mem).offset = offset_bytes;
        (*mem).size = size_bytes;
        if is_contiguous(region, offset_bytes, size_bytes) {
            (*mem).mini_object.flags |= gst::ffi::GST_MEMORY_FLAG_PHYSICALLY_CONTIGUOUS;
        }
        attached::attach(mem, Arc::clone(region), on_free);
        from_glib_full(mem)
    }
}

/// Whether the range is one physical extent and stays so.
fn is_contiguous(region: &Region, offset_bytes: usize, size_bytes: usize) -> bool {
    region.kind().info().is_contiguous
        || region.is_pinned()
            && region.address().is_ok_and(|address| {
                address
                    .contiguous_at(offset_bytes as u64, size_bytes as u64)
                    .is_some()
            })
}

/// Makes GstFdMemory that borrows the fd. The attached region keeps the fd open.
fn fd_memory(
    allocator: &gst::Allocator,
    fd: BorrowedFd<'_>,
    maxsize: usize,
) -> *mut gst::ffi::GstMemory {
    // SAFETY: the allocator is a GstFdAllocator (all callers pass one of the fd or dma-buf allocators);
    // DONT_CLOSE leaves the fd to the region.
    unsafe {
        alloc_ffi::gst_fd_allocator_alloc(
            allocator.to_glib_none().0,
            fd.as_raw_fd(),
            maxsize,
            alloc_ffi::GST_FD_MEMORY_FLAG_DONT_CLOSE | alloc_ffi::GST_FD_MEMORY_FLAG_KEEP_MAPPED,
        )
    }
}

/// The region of a memory, and the offset of the memory's first byte in it. `None` for memory that
/// [`wrap`] did not make.
pub fn region_of(mem: &gst::MemoryRef) -> Option<(&Arc<Region>, usize)> {
    // SAFETY: `mem` is alive as long as the result is borrowed from it, and keeps its parent alive.
    unsafe { attached::of(mem.as_mut_ptr()) }.map(|attached| (&attached.region, mem.offset()))
}

/// Identifies the file whose bytes a memory holds, whichever allocator made the memory. `None` for memory
/// without a file descriptor.
#[cfg(feature = "v1_24")]
pub(crate) fn file_of(mem: &gst::MemoryRef) -> Option<FileId> {
    let fd = mem.downcast_memory_ref::<gst_allocators::FdMemory>()?.fd();
    // SAFETY: the memory keeps its descriptor open, and `mem` is borrowed.
    FileId::of(unsafe { BorrowedFd::borrow_raw(fd) }).ok()
}
