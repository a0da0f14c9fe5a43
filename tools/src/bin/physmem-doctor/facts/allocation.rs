// SPDX-License-Identifier: MPL-2.0
//! A real block of each kind of memory, made by the library as a pool makes it, and freed again.

use std::sync::Arc;

use gstphysmem::memory::{MemoryError, MemoryKind, Region, Request};
use serde::Serialize;

/// Bytes of a block: several pages, so that a block in pieces can be told from a contiguous one.
const SIZE_BYTES: usize = 256 << 10;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Allocation {
    /// The kind of memory, as the property memory-kind names it.
    pub kind: &'static str,
    /// Why there is no block.
    pub error: Option<String>,
    pub block: Option<Block>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Block {
    /// The kind that was taken: for auto another than was asked for.
    pub kind: String,
    pub heap: Option<String>,
    /// The physical address of the first byte.
    pub address: Option<u64>,
    pub address_source: Option<String>,
    pub extents: usize,
    pub address_unknown: Option<String>,
    pub is_pinned: bool,
    pub pin_note: String,
    /// Which kinds auto passed over, and why.
    pub auto_choice: Option<String>,
}

/// A block of each kind that is allocated without a name. GStreamer must have been initialised.
pub fn one_of_each_kind() -> Vec<Allocation> {
    let kinds = [
        (MemoryKind::Auto, "auto"),
        (MemoryKind::Cma, "cma"),
        (MemoryKind::System, "system"),
        (MemoryKind::Udmabuf, "udmabuf"),
        (MemoryKind::Hugepage, "hugepage"),
        (MemoryKind::Normal, "normal"),
    ];
    kinds.map(|(kind, name)| allocate(kind, name)).into()
}

/// Memory of each kind that has a dma-buf and can be had, with the kind's name.
pub fn dma_bufs() -> Vec<(&'static str, Arc<Region>)> {
    let kinds = [
        (MemoryKind::Cma, "cma"),
        (MemoryKind::System, "system"),
        (MemoryKind::Udmabuf, "udmabuf"),
    ];
    let made = |(kind, name)| Some((name, request(kind, SIZE_BYTES).ok()?));
    kinds.into_iter().filter_map(made).collect()
}

/// Whether the kernel makes large pages for memory of kind normal, which pools ask it for (MADV_COLLAPSE).
/// `None` if there is no memory to find out.
pub fn has_large_pages() -> Option<bool> {
    // At least one whole large page, wherever the block begins.
    const SEVERAL_LARGE_PAGES: usize = 8 << 20;
    let region = request(MemoryKind::Normal, SEVERAL_LARGE_PAGES).ok()?;
    Some(region.large_page_bytes() > 0)
}

fn request(kind: MemoryKind, size_bytes: usize) -> Result<Arc<Region>, MemoryError> {
    Region::allocate(&Request {
        kind,
        size_bytes,
        ..Request::default()
    })
}

fn allocate(kind: MemoryKind, name: &'static str) -> Allocation {
    let (block, error) = match request(kind, SIZE_BYTES) {
        Ok(region) => (Some(Block::of(&region)), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Allocation {
        kind: name,
        error,
        block,
    }
}

impl Block {
    fn of(region: &Region) -> Self {
        let address = region.address();
        Self {
            kind: region.kind().to_string(),
            heap: region.heap().map(str::to_owned),
            address: address.ok().map(|address| address.first().0),
            address_source: address.ok().map(|address| address.source().to_string()),
            extents: address.map_or(0, |address| address.extents().len()),
            address_unknown: address.err().map(ToString::to_string),
            is_pinned: region.is_pinned(),
            pin_note: region.pin_note().to_owned(),
            auto_choice: region.auto_choice().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_pages_are_there_everywhere() {
        gst::init().unwrap();
        let made = allocate(MemoryKind::Normal, "normal");
        let block = made.block.unwrap();
        assert_eq!(block.kind, "normal");
        assert!(block.address.is_some() != block.address_unknown.is_some());
        assert_eq!(block.extents > 0, block.address.is_some());
    }
}
