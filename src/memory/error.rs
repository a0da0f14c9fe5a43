// SPDX-License-Identifier: MPL-2.0
//! Errors of memory, as sentences that name a remedy.

use std::io;

use super::available::Available;
use super::kind::MemoryKind;
use crate::address::{AddressUnknown, PhysAddr};
use crate::sys::describe;

/// Why a block of memory cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A block of 0 bytes was asked for.
    #[error("a block of 0 bytes cannot be allocated")]
    ZeroSize,
    /// External memory belongs to its owner and cannot be allocated.
    #[error("memory of kind external is not allocated: it is brought by its owner")]
    External,
    /// More bytes were asked for than an address space holds.
    #[error("{size_bytes} bytes are more than an address space holds")]
    LargerThanAddressSpace {
        /// Bytes asked for.
        size_bytes: usize,
    },
    /// More bytes were asked for than are available. The kernel would try to give them nevertheless.
    #[error(
        "{size_bytes} bytes of kind {kind} are more than the {} bytes that are available ({}): ask for less, or free memory", available.bytes, available.limit
    )]
    TooLarge {
        /// The kind asked for.
        kind: MemoryKind,
        /// Bytes asked for.
        size_bytes: u64,
        /// What can be allocated before the kernel kills processes.
        available: Available,
    },
    /// A system call failed.
    #[error("{object}: {}: {remedy}", describe(source))]
    Refused {
        /// The path or operation that failed, with its numbers.
        object: String,
        /// The errno.
        source: io::Error,
        /// What the user can do about it.
        remedy: String,
    },
    /// The machine has no heap for this kind.
    #[error(
        "no heap of kind {kind} (those here: {}): the kernel needs CONFIG_DMABUF_HEAPS_CMA, and cma= on its command line", names.join(", ")
    )]
    NoHeap {
        /// The kind asked for.
        kind: MemoryKind,
        /// Names of the heaps that the machine has.
        names: Vec<String>,
    },
    /// The kind has no heap of this name.
    #[error(
        "memory of kind {kind} has no heap {heap}: heaps belong to kinds cma and system, and kind udmabuf knows hugetlb and shmem"
    )]
    NoSuchHeap {
        /// The kind asked for.
        kind: MemoryKind,
        /// The name asked for.
        heap: String,
    },
    /// The heap named for kind cma does not give contiguous memory.
    #[error("heap {0} is not a CMA heap: use kind system for it, or name another heap")]
    NotCma(String),
    /// Memory of this kind has no dma-buf, which the request needs.
    #[error("memory of kind {0} has no dma-buf: use kind cma, system or udmabuf")]
    NoDmaBuf(MemoryKind),
    /// The kind cannot promise contiguous memory of this size.
    #[error(
        "memory of kind {kind} is contiguous up to {limit_bytes} bytes only, {size_bytes} were asked for: use kind cma"
    )]
    NotContiguous {
        /// The kind asked for.
        kind: MemoryKind,
        /// Bytes asked for.
        size_bytes: usize,
        /// Largest size in bytes that is always contiguous: the kind's page size.
        limit_bytes: usize,
    },
    /// All blocks that the kernel gave consist of several extents.
    #[error(
        "{size_bytes} bytes of kind {kind} are in {n_extents} pieces at best after {attempts} attempts: use kind cma, or free memory (echo 1 > /proc/sys/vm/compact_memory)"
    )]
    InPieces {
        /// The kind asked for.
        kind: MemoryKind,
        /// Bytes asked for.
        size_bytes: usize,
        /// Extents of the block that has fewest.
        n_extents: usize,
        /// How many blocks were tried.
        attempts: usize,
    },
    /// All blocks that the kernel gave reach above the limit.
    #[error(
        "memory of kind {kind} reaches up to {last_byte} after {attempts} attempts, above the limit {max_address}: use a CMA heap below it, or raise max-address"
    )]
    AboveMaxAddress {
        /// The kind asked for.
        kind: MemoryKind,
        /// The highest address allowed.
        max_address: PhysAddr,
        /// The last byte of the lowest block.
        last_byte: PhysAddr,
        /// How many blocks were tried.
        attempts: usize,
    },
    /// The request says what the address must be, but the address of the memory is unknown.
    #[error("{constraint} cannot be kept, the address of kind {kind} is not known: {reason}")]
    AddressNeeded {
        /// The property that asks for it: max-address or require-contiguous.
        constraint: &'static str,
        /// The kind asked for.
        kind: MemoryKind,
        /// Why the address is unknown.
        reason: AddressUnknown,
    },
    /// No kind works for kind auto. The string lists why.
    #[error("no kind of memory works here: {0}")]
    NoKind(String),
}

impl MemoryError {
    /// Returns an error if more is asked for than is available.
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

/// Why the CPU cannot access a block now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The owner of external memory freed it.
    #[error("the memory was freed by its owner while a buffer still refers to it")]
    Gone,
    /// DMA_BUF_IOCTL_SYNC failed.
    #[error("DMA_BUF_IOCTL_SYNC: {}", describe(.0))]
    Sync(#[source] io::Error),
}
