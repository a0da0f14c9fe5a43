// SPDX-License-Identifier: MPL-2.0
//! Errors of memory, as sentences that name a remedy.

use std::io;
use std::path::PathBuf;

use super::area_name::FORMS;
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
        "no heap of kind {kind} (those here: {}): the kernel needs CONFIG_DMABUF_HEAPS_CMA (modprobe cma_heap where that is a module), and cma= on its command line", names.join(", ")
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
    /// No heap was given for kind region.
    #[error("memory of kind region needs a heap that names it: {FORMS}")]
    NoAreaNamed,
    /// The name given for kind region is malformed.
    #[error("heap \"{heap}\" of kind region: {problem}; the forms are {FORMS}")]
    AreaName {
        /// The name given.
        heap: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The memory named for kind region is the kernel's.
    #[error(
        "{heap} overlaps the System RAM of /proc/iomem, which the kernel uses: keep the memory from the kernel (memmap= or mem= on its command line, or a reserved-memory node with no-map), and name only that"
    )]
    OverlapsSystemRam {
        /// The name given.
        heap: String,
    },
    /// A part of an area is not made of whole pages.
    #[error(
        "{object}: offset {offset_bytes:#x} and length {len_bytes} must be multiples of the page size, {page_bytes} bytes"
    )]
    PartNotAligned {
        /// The device.
        object: String,
        /// Where the part begins.
        offset_bytes: u64,
        /// Length of the part.
        len_bytes: u64,
        /// The page size.
        page_bytes: u64,
    },
    /// A part reaches out of its device.
    #[error(
        "{object} has {device_bytes} bytes, too few for {len_bytes} bytes from offset {offset_bytes:#x} on: name a part inside of it"
    )]
    OutsideOfDevice {
        /// The device.
        object: String,
        /// Where the part begins.
        offset_bytes: u64,
        /// Length of the part.
        len_bytes: u64,
        /// Length of the device's memory.
        device_bytes: u64,
    },
    /// The part begins within a page of the machine.
    #[error(
        "{object}: the part does not begin at a page ({page_bytes} bytes) of physical memory, as its device does not: choose another offset, or none"
    )]
    NotAtAPage {
        /// The device.
        object: String,
        /// The page size.
        page_bytes: u64,
    },
    /// The device's memory has no whole page.
    #[error("{object} has {device_bytes} bytes, not one whole page: name another region or map")]
    LessThanAPage {
        /// The device.
        object: String,
        /// Length of the device's memory.
        device_bytes: u64,
    },
    /// A PCI region is not memory.
    #[error("{object} is a region of I/O ports, not of memory: name another resource")]
    NotMemory {
        /// The device.
        object: String,
    },
    /// The device's memory has no address.
    #[error(
        "{object} has no physical address: the device has no such memory, or nothing has given it an address"
    )]
    NoDeviceAddress {
        /// The device.
        object: String,
    },
    /// The PCI device does not answer at its addresses.
    #[error(
        "{object}: the device's memory is switched off: bind its driver, or write 1 to {}", switch.display()
    )]
    DeviceIsOff {
        /// The device.
        object: String,
        /// The file that switches it on.
        switch: PathBuf,
    },
    /// A block is larger than the area named for kind region.
    #[error("{size_bytes} bytes are more than {heap} has: {total_bytes} bytes")]
    LargerThanArea {
        /// The name given.
        heap: String,
        /// Bytes asked for.
        size_bytes: usize,
        /// Bytes of the area.
        total_bytes: u64,
    },
    /// Other regions of this process use the area.
    #[error(
        "{heap} is in use by other buffers of this process: {free_bytes} of its {total_bytes} bytes are free, at most {longest_bytes} in one piece, and {size_bytes} were asked for: use fewer buffers, or name more memory"
    )]
    AreaInUse {
        /// The name given.
        heap: String,
        /// Bytes asked for.
        size_bytes: usize,
        /// Bytes that are free.
        free_bytes: u64,
        /// The longest free part.
        longest_bytes: u64,
        /// Bytes of the area.
        total_bytes: u64,
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
