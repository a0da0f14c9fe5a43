// SPDX-License-Identifier: MPL-2.0
//! What can go wrong with memory, in sentences that name a remedy.

use std::io;

use super::available::Available;
use super::kind::MemoryKind;
use crate::address::{AddressUnknown, PhysAddr};
use crate::sys::describe;

/// Why there is no block of memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Nothing was asked for.
    #[error("a block of 0 bytes cannot be allocated")]
    ZeroSize,
    /// External memory is brought, not allocated.
    #[error("memory of kind external is not allocated: it is brought by its owner")]
    External,
    /// More than can be addressed.
    #[error("{size_bytes} bytes are more than an address space holds")]
    Absurd {
        /// Bytes asked for.
        size_bytes: usize,
    },
    /// More than the machine has, which the kernel would try to give nevertheless.
    #[error(
        "{size_bytes} bytes of kind {kind} are more than the {} bytes that are available ({}): ask for less, or free memory", available.bytes, available.limit
    )]
    TooLarge {
        /// The kind asked for.
        kind: MemoryKind,
        /// Bytes asked for.
        size_bytes: u64,
        /// Bytes that can be had before processes are killed for them.
        available: Available,
    },
    /// The kernel refused.
    #[error("{object}: {}: {remedy}", describe(source))]
    Refused {
        /// What was asked: a path, or an operation with its numbers.
        object: String,
        /// The errno.
        source: io::Error,
        /// What would help.
        remedy: String,
    },
    /// There is no heap of this kind.
    #[error(
        "no heap of kind {kind} (those here: {}): the kernel needs CONFIG_DMABUF_HEAPS_CMA, and cma= on its command line", names.join(", ")
    )]
    NoHeap {
        /// The kind asked for.
        kind: MemoryKind,
        /// The heaps that there are.
        names: Vec<String>,
    },
    /// The kind knows no heap of this name.
    #[error(
        "memory of kind {kind} has no heap {heap}: heaps belong to kinds cma and system, and kind udmabuf knows hugetlb and shmem"
    )]
    NoSuchHeap {
        /// The kind asked for.
        kind: MemoryKind,
        /// The name asked for.
        heap: String,
    },
    /// Memory of the heap is not contiguous.
    #[error("heap {0} is not a CMA heap: use kind system for it, or name another heap")]
    NotCma(String),
    /// The kind cannot be a dma-buf.
    #[error("memory of kind {0} has no dma-buf: use kind cma, system or udmabuf")]
    NoDmaBuf(MemoryKind),
    /// The kind cannot promise contiguity at this size.
    #[error(
        "memory of kind {kind} is contiguous up to {limit_bytes} bytes only, {size_bytes} were asked for: use kind cma"
    )]
    NotContiguous {
        /// The kind asked for.
        kind: MemoryKind,
        /// Bytes asked for.
        size_bytes: usize,
        /// The kind's page size.
        limit_bytes: usize,
    },
    /// Memory came only from above the limit.
    #[error(
        "memory of kind {kind} reaches up to {last_byte} after {attempts} attempts, above the limit {max_address}: use a CMA heap below it, or raise max-address"
    )]
    AboveMaxAddress {
        /// The kind asked for.
        kind: MemoryKind,
        /// The limit.
        max_address: PhysAddr,
        /// Highest byte of the best attempt.
        last_byte: PhysAddr,
        /// How many blocks were tried.
        attempts: usize,
    },
    /// A limit for an address that nobody knows.
    #[error("max-address cannot be kept, the address of kind {kind} is not known: {reason}")]
    AddressNeeded {
        /// The kind asked for.
        kind: MemoryKind,
        /// Why the address is unknown.
        reason: AddressUnknown,
    },
    /// Kind auto found nothing.
    #[error("no kind of memory works here: {0}")]
    NoKind(String),
}

impl MemoryError {
    /// An error if more is asked for than is available.
    pub(super) fn unless_within(
        available: Option<Available>,
        kind: MemoryKind,
        size_bytes: u64,
    ) -> Result<(), Self> {
        match available {
            Some(available) if size_bytes > available.bytes => Err(Self::TooLarge {
                kind,
                size_bytes,
                available,
            }),
            _ => Ok(()),
        }
    }
}

/// Why the CPU may not touch a block now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The owner of external memory freed it.
    #[error("the memory was freed by its owner while a buffer still refers to it")]
    Gone,
    /// The dma-buf could not be made ready.
    #[error("DMA_BUF_IOCTL_SYNC: {}", describe(.0))]
    Sync(#[source] io::Error),
}
