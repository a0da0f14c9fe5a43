// SPDX-License-Identifier: MPL-2.0
//! What is known of a kind before there is memory of it, and the places to ask for it.

use std::fmt;
use std::sync::OnceLock;

use super::available::{self, Available};
use super::error::MemoryError;
use super::kind::MemoryKind;
use super::region::Region;
use crate::sys::memfd::Pages;
use crate::sys::meminfo;
use crate::sys::mmap::page_size_bytes;

/// A row of the table of kinds.
pub(super) struct Row {
    pub kind: MemoryKind,
    /// The name by which gst_allocator_find knows its allocator.
    pub allocator: Option<&'static str>,
    /// What GStreamer sees in its memory.
    pub class: Class,
    /// Every block is one physical extent, the lowest that is free.
    pub is_contiguous: bool,
    /// What ends its supply.
    pub supply: Supply,
    /// Whether kind auto tries it, in the order of the table.
    pub in_auto: InAuto,
    /// The places to ask, best first, for the heap of a name or for the usual ones; `None`
    /// if the name means nothing to the kind, or nothing is allocated of it.
    pub origins: fn(&'static Row, Option<&str>) -> Option<Vec<Origin>>,
    /// How one of these places makes a region of so many bytes, whole pages, and finds out
    /// its address.
    pub region: fn(&Origin, usize) -> Result<Region, MemoryError>,
}

/// The allocator class of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// GstDmaBufMemory.
    DmaBuf,
    /// GstFdMemory.
    Fd,
    /// GstMemory without an fd.
    Plain,
}

/// Whether kind auto tries a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InAuto {
    No,
    /// Of any heap, since a heap's name says nothing of it.
    Yes,
    /// Of the heap that was asked for.
    OfHeap,
}

/// What a kind's memory is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// An area, or a pool of huge pages, that is set apart and ends by itself.
    Reserved,
    /// All pages of the machine, of which the kernel would try to give more than there
    /// are, and kill processes on the way.
    Machine {
        /// They count towards the process's control group.
        is_charged: bool,
    },
    /// Either of these, for different places of one kind.
    Either,
}

impl Supply {
    /// What one block of such pages may take; `None` where its supply ends by itself.
    fn available(self, pages: Pages) -> Option<Available> {
        match (self, pages) {
            (Self::Reserved, _) | (_, Pages::Huge) => None,
            (Self::Machine { is_charged }, _) => available::now(is_charged),
            (Self::Either, Pages::Normal) => available::now(true),
        }
    }

    /// What all blocks together may take. A reserved area need not be a part of what the
    /// kernel counts as memory.
    pub fn available_in_total(self) -> Option<Available> {
        match self {
            Self::Either => available::in_total(),
            _ => self.available(Pages::Normal),
        }
    }
}

/// One place to ask for memory of a kind.
#[derive(Clone)]
pub(super) struct Origin {
    pub row: &'static Row,
    /// Name of the dma-buf heap, or of a udmabuf's pages.
    pub heap: Option<String>,
    /// The unit in which it is given.
    pub pages: Pages,
    /// What it is called in messages.
    pub name: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Origin {
    fn page_bytes(&self) -> usize {
        match self.pages {
            Pages::Huge => huge_page_size_bytes(),
            Pages::Normal => page_size_bytes(),
        }
    }

    /// Up to this size a block is contiguous, whatever it is.
    pub fn contiguous_bytes(&self) -> usize {
        match self.row.is_contiguous {
            true => usize::MAX,
            false => self.page_bytes(),
        }
    }

    /// A region of at least this size, if the machine has as much.
    pub fn region(&self, size_bytes: usize) -> Result<Region, MemoryError> {
        let kind = self.row.kind;
        let size_bytes = size_bytes
            .checked_next_multiple_of(self.page_bytes())
            .filter(|&size| isize::try_from(size).is_ok())
            .ok_or(MemoryError::Absurd { size_bytes })?;
        let available = self.row.supply.available(self.pages);
        MemoryError::unless_within(available, kind, size_bytes as u64)?;
        (self.row.region)(self, size_bytes)
    }
}

/// Default size of huge pages; where the kernel has none, that of a page.
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
