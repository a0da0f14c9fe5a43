// SPDX-License-Identifier: MPL-2.0
//! From a request to a region: which kinds are tried, with which constraints.

use std::io;

use super::region::Backing;
use super::{MemoryError, MemoryKind, PhysAddr, Region, resolve};
use crate::sys::memfd::{self, Pages};
use crate::sys::meminfo;
use crate::sys::mmap::{self, Mapping, page_size_bytes};
use crate::sys::pin::Pin;

/// What a block of memory must be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The kind; only auto chooses by itself.
    pub kind: MemoryKind,
    /// Name of the CMA heap under /dev/dma_heap; otherwise the usual names are tried.
    pub heap: Option<&'a str>,
    /// Least size.
    pub size_bytes: usize,
    /// It must have a dma-buf.
    pub needs_dma_buf: bool,
    /// All of it must be one physical extent.
    pub needs_contiguous: bool,
    /// Its highest byte may be at this address, not above it.
    pub max_address: Option<PhysAddr>,
}

pub(super) fn allocate(request: &Request<'_>) -> Result<Region, MemoryError> {
    if request.size_bytes == 0 {
        return Err(MemoryError::ZeroSize);
    }
    match request.kind {
        MemoryKind::External => Err(MemoryError::External),
        MemoryKind::Auto | MemoryKind::Normal => normal(request.size_bytes),
        kind => Err(MemoryError::NoKind(format!("{kind} is not supported yet"))),
    }
}

/// `size_bytes` in whole pages, if the machine has as much. The kernel would try to
/// give more, and kill processes on the way.
fn checked_size(
    kind: MemoryKind,
    size_bytes: usize,
    page_bytes: usize,
) -> Result<usize, MemoryError> {
    let available_bytes = meminfo::field_bytes("MemAvailable")
        .ok()
        .flatten()
        .unwrap_or(u64::MAX);
    size_bytes
        .checked_next_multiple_of(page_bytes)
        .filter(|&size| size <= isize::MAX as usize && size as u64 <= available_bytes)
        .ok_or(MemoryError::TooLarge {
            kind,
            size_bytes,
            available_bytes,
        })
}

fn normal(size_bytes: usize) -> Result<Region, MemoryError> {
    let size_bytes = checked_size(MemoryKind::Normal, size_bytes, page_size_bytes())?;
    let refused = |source: io::Error| MemoryError::Refused {
        object: format!("memfd of {size_bytes} bytes"),
        source,
        remedy: "ask for less, or free memory".to_owned(),
    };
    let memfd = memfd::create(c"physmem", Pages::Normal, size_bytes).map_err(refused)?;
    let mapping = Mapping::shared(&memfd, size_bytes).map_err(refused)?;
    let ptr = mapping.ptr();
    // SAFETY: the mapping is read-write and lives on in the region.
    unsafe { mmap::populate(ptr, size_bytes) }.map_err(refused)?;
    // Before the look-up: pinning may move the pages first.
    // SAFETY: as above; the pin is dropped before the mapping (field order).
    let pin = unsafe { Pin::new(ptr, size_bytes) };
    let (is_pinned, pin_note) = match &pin {
        Ok(_) => (true, "io_uring fixed buffer".to_owned()),
        Err(error) => (false, format!("io_uring: {}", crate::sys::describe(error))),
    };
    Ok(Region {
        ptr,
        size_bytes,
        kind: MemoryKind::Normal,
        heap: None,
        address: resolve::look_up(ptr, size_bytes),
        is_pinned,
        pin_note,
        choice: None,
        backing: Backing::Memfd {
            _pin: pin.ok(),
            _mapping: mapping,
            memfd,
        },
    })
}
