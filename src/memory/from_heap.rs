// SPDX-License-Identifier: MPL-2.0
//! Memory of dma-buf heaps.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::cpu_access::DmaBuf;
use super::error::MemoryError;
use super::provider::{KindInfo, MemoryProvider};
use super::region::{OwnedMapping, Region};
use super::{heap, permission, remedy, resolve};
use crate::address::{Address, AddressSource, AddressUnknown, PhysAddr};
use crate::sys::cma_trace::{Allocation, CmaTrace, Unavailable};
use crate::sys::dma_buf::Direction;
use crate::sys::dma_heap;
use crate::sys::memfd::Pages;
use crate::sys::mmap::{self, Mapping, page_size_bytes};

fn provider(info: &'static KindInfo, heap: String) -> MemoryProvider {
    MemoryProvider {
        info,
        name: format!("{} heap {heap}", info.kind),
        heap: Some(heap),
        pages: Pages::Normal,
        large_page_bytes: None,
        may_have_dma_buf: info.kind.has_dma_buf(),
    }
}

/// The heap of this name; without a name, all heaps that give contiguous memory.
pub(super) fn contiguous_heaps(
    info: &'static KindInfo,
    name: Option<&str>,
) -> Option<Vec<MemoryProvider>> {
    let heaps = match name {
        Some(name) => vec![name.to_owned()],
        None => {
            let is_cma_area = |name: &str| Path::new("/sys/kernel/mm/cma").join(name).exists();
            heap::contiguous(&dma_heap::names().unwrap_or_default(), is_cma_area)
        }
    };
    Some(heaps.into_iter().map(|heap| provider(info, heap)).collect())
}

/// The heap of this name; without a name, `system`, which every kernel with heaps has.
pub(super) fn system_heap(
    info: &'static KindInfo,
    name: Option<&str>,
) -> Option<Vec<MemoryProvider>> {
    Some(vec![provider(info, name.unwrap_or("system").to_owned())])
}

/// Makes a region of the heap's memory. Its address comes from pagemap. The mapping of a contiguous heap
/// may be VM_PFNMAP; then it comes from the contiguous memory allocator's tracepoint.
pub(super) fn region(
    provider: &MemoryProvider,
    size_bytes: usize,
    _max_address: Option<PhysAddr>,
) -> Result<Region, MemoryError> {
    let is_contiguous = provider.info.is_contiguous;
    let name = provider.heap.as_deref().unwrap_or_default();
    let not_contiguous = || MemoryError::NotCma(name.to_owned());
    if is_contiguous && heap::is_of_scattered_pages(name) {
        return Err(not_contiguous());
    }
    let heap = open(name)?;
    let trace = is_contiguous.then(CmaTrace::begin);
    let dma_buf = alloc(&heap, provider, size_bytes)?;
    let traced = trace.map(|trace| trace.map(CmaTrace::end));
    let mapping = map(&dma_buf, name, size_bytes)?;
    let dma_buf = DmaBuf::new(dma_buf);
    if is_contiguous {
        // The system heap sets up all page table entries in mmap, a CMA heap each at its first access.
        touch(&mapping, &dma_buf, name)?;
    }
    let address = resolve::read(mapping.ptr(), size_bytes).or_else(|not_listed| match traced {
        Some(traced) => traced_address(traced, size_bytes)
            .map_err(|why| without_trace(not_listed.reason(), why)),
        None => Err(not_listed.reason()),
    });
    let is_scattered = |address: &Address| !address.is_contiguous();
    if is_contiguous && address.as_ref().is_ok_and(is_scattered) {
        return Err(not_contiguous());
    }
    Ok(Region::new(
        provider.info.kind,
        provider.heap.clone(),
        address,
        Ok("allocated by the heap, which never moves it"),
        OwnedMapping {
            _pin: None,
            mapping,
            memfd: None,
            dma_buf: Some(dma_buf),
            _claim: None,
        },
    ))
}

fn open(name: &str) -> Result<File, MemoryError> {
    dma_heap::open(name).map_err(|source| MemoryError::Refused {
        object: dma_heap::path(name).display().to_string(),
        remedy: {
            let missing = match dma_heap::names() {
                Ok(names) => format!("the heaps here are: {}", names.join(", ")),
                Err(_) => "the kernel needs CONFIG_DMABUF_HEAPS".to_owned(),
            };
            remedy::for_device(&dma_heap::path(name), &source, &missing)
        },
        source,
    })
}

fn alloc(
    heap: &File,
    provider: &MemoryProvider,
    size_bytes: usize,
) -> Result<OwnedFd, MemoryError> {
    dma_heap::alloc(heap, size_bytes).map_err(|source| MemoryError::Refused {
        object: format!("{size_bytes} bytes from {provider} failed"),
        remedy: match source.raw_os_error() {
            Some(libc::ENOMEM) if provider.info.is_contiguous => {
                "enlarge cma= on the kernel command line (CmaFree in /proc/meminfo says what \
                 is left)"
                    .to_owned()
            }
            _ => remedy::for_memory(&source, remedy::ASK_FOR_LESS),
        },
        source,
    })
}

fn map(dma_buf: &OwnedFd, name: &str, size_bytes: usize) -> Result<Mapping, MemoryError> {
    Mapping::shared(dma_buf, size_bytes).map_err(|source| MemoryError::Refused {
        object: format!("mmap of {size_bytes} bytes of heap {name}"),
        remedy: match source.raw_os_error() {
            Some(libc::ENOMEM | libc::EAGAIN) => remedy::for_memory(&source, remedy::ASK_FOR_LESS),
            _ => "this heap's memory is not for the CPU: choose another heap".to_owned(),
        },
        source,
    })
}

fn touch(mapping: &Mapping, dma_buf: &DmaBuf, name: &str) -> Result<(), MemoryError> {
    let refused = |source| MemoryError::Refused {
        object: format!("DMA_BUF_IOCTL_SYNC on heap {name}"),
        source,
        remedy: "the heap's driver must allow CPU access".to_owned(),
    };
    dma_buf.begin_access(Direction::READ).map_err(refused)?;
    // Not mmap::populate, which needs struct pages that the mapping may lack.
    // SAFETY: the mapping is readable and borrowed here.
    unsafe { mmap::read_every_page(mapping.ptr(), mapping.len_bytes()) };
    dma_buf.end_access().map_err(refused)
}

/// The address from the tracepoint's records. The error says why they do not tell.
fn traced_address(
    traced: Result<Option<Vec<Allocation>>, Unavailable>,
    size_bytes: usize,
) -> Result<Address, String> {
    Err(match traced {
        Ok(Some(allocations)) => {
            let page = page_size_bytes() as u64;
            let is_whole = |pages: u64| pages.checked_mul(page) == Some(size_bytes as u64);
            let mut whole = allocations.iter().filter(|block| is_whole(block.count));
            let one = match (whole.next(), whole.next()) {
                (Some(one), None) => one.pfn.checked_mul(page),
                _ => None,
            };
            let source = AddressSource::CmaTrace;
            let address =
                one.and_then(|at| Address::contiguous(PhysAddr(at), size_bytes as u64, source));
            if let Some(address) = address {
                return Ok(address);
            }
            format!(
                "it recorded {} allocations, not the one of {size_bytes} bytes",
                allocations.len()
            )
        }
        Ok(None) => "its records were lost, or have an unknown format".to_owned(),
        Err(unavailable) => permission::why_no_trace(&unavailable),
    })
}

/// Why neither pagemap nor the tracepoint tells the address.
fn without_trace(pagemap_reason: AddressUnknown, why: String) -> AddressUnknown {
    match pagemap_reason {
        AddressUnknown::PfnMap => AddressUnknown::TraceUnavailable(why),
        // Either source would have been enough, so the reason names both.
        AddressUnknown::NoPermission(hidden) => AddressUnknown::NoPermission(format!(
            "{hidden}; the kernel's cma tracepoint does not tell either: {why}"
        )),
        pagemap_reason => pagemap_reason,
    }
}
