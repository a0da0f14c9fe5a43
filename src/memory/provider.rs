// SPDX-License-Identifier: MPL-2.0
//! What is known of a kind before memory of it is allocated, and the providers of it.

use std::fmt;
use std::sync::OnceLock;

use super::available::{self, Available};
use super::error::MemoryError;
use super::kind::MemoryKind;
use super::region::Region;
use crate::address::PhysAddr;
use crate::sys::memfd::Pages;
use crate::sys::meminfo;
use crate::sys::mmap::page_size_bytes;

/// What the table of kinds says of one of them.
pub(super) struct KindInfo {
    pub kind: MemoryKind,
    /// The name under which gst_allocator_find finds the kind's allocator.
    pub allocator: Option<&'static str>,
    pub class: AllocatorClass,
    /// Every block is one physical extent, the lowest free one.
    pub is_contiguous: bool,
    pub supply: Supply,
    /// Whether kind auto tries the kind. It tries kinds in the order of the table.
    pub tried_by_auto: TriedByAuto,
    /// Lists the providers of the kind, best first, for a heap's name or without one. `None` if the
    /// kind has no heap of that name, or if the kind cannot be allocated.
    pub providers: fn(&'static KindInfo, Option<&str>) -> Option<Vec<MemoryProvider>>,
    /// Makes a region of this many bytes (whole pages) by one of these providers, and finds out its address.
    /// A kind that knows the address beforehand refuses memory above the highest address allowed.
    pub region: fn(&MemoryProvider, usize, Option<PhysAddr>) -> Result<Region, MemoryError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AllocatorClass {
    DmaBuf,
    Fd,
    /// A GstMemory without an fd.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TriedByAuto {
    No,
    /// Tried whatever heap the request names, since the name is not meant for this kind.
    IgnoringHeapName,
    /// Tried with the heap that the request names.
    WithHeapName,
}

/// What a kind's memory is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// A reserved area, or the pool of huge pages. An allocation fails when it is used up.
    Reserved,
    /// All pages of the machine. The kernel tries to give more than there are, and kills processes for it.
    Machine {
        /// The pages count towards the process's control group.
        is_charged: bool,
    },
    /// Either of the two, depending on the pages of the provider.
    DependsOnPages,
}

impl Supply {
    /// The most that one block of such pages may take. `None` for a reserved supply.
    fn available(self, pages: Pages) -> Option<Available> {
        match (self, pages) {
            (Self::Reserved, _) | (_, Pages::Huge) => None,
            (Self::Machine { is_charged }, _) => available::now(is_charged),
            (Self::DependsOnPages, Pages::Normal) => available::now(true),
        }
    }

    /// The most that all blocks together may take. MemTotal may leave out a reserved area.
    pub fn available_in_total(self) -> Option<Available> {
        match self {
            Self::DependsOnPages => available::in_total(),
            _ => self.available(Pages::Normal),
        }
    }
}

/// One place to ask for memory of a kind: a dma-buf heap, or memfds of normal or huge pages.
#[derive(Clone)]
pub(super) struct MemoryProvider {
    pub info: &'static KindInfo,
    /// Name of the dma-buf heap, or of a udmabuf's pages.
    pub heap: Option<String>,
    pub pages: Pages,
    /// Size in bytes of the pages that blocks are made of as far as possible, if it is larger than the others'.
    pub large_page_bytes: Option<usize>,
    /// Blocks have a dma-buf, or, if the driver can export them, may have one.
    pub may_have_dma_buf: bool,
    /// The name in messages.
    pub name: String,
}

impl fmt::Display for MemoryProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl MemoryProvider {
    fn page_bytes(&self) -> usize {
        match self.pages {
            Pages::Huge => huge_page_size_bytes(),
            Pages::Normal => page_size_bytes(),
        }
    }

    /// The largest size in bytes at which every block is contiguous.
    pub fn contiguous_bytes(&self) -> usize {
        match self.info.is_contiguous {
            true => usize::MAX,
            false => self.page_bytes(),
        }
    }

    /// Makes a region of at least this size, if the machine has enough memory.
    pub fn region(
        &self,
        size_bytes: usize,
        max_address: Option<PhysAddr>,
    ) -> Result<Region, MemoryError> {
        let size_bytes = size_bytes
            .checked_next_multiple_of(self.page_bytes())
            .filter(|&size| isize::try_from(size).is_ok())
            .ok_or(MemoryError::LargerThanAddressSpace { size_bytes })?;
        self.check_room(size_bytes)?;
        (self.info.region)(self, size_bytes, max_address)
    }

    fn check_room(&self, size_bytes: usize) -> Result<(), MemoryError> {
        let available = self.info.supply.available(self.pages);
        MemoryError::unless_within(available, self.info.kind, size_bytes as u64)
    }

    /// Whether the machine has enough memory for a block of this size.
    pub fn has_room_for(&self, size_bytes: usize) -> bool {
        self.check_room(size_bytes).is_ok()
    }
}

/// The default size of huge pages. On a kernel without huge pages it is the page size.
pub(super) fn huge_page_size_bytes() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        meminfo::field_bytes("Hugepagesize")
            .ok()
            .flatten()
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or_else(page_size_bytes)
    })
}
