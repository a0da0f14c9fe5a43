// SPDX-License-Identifier: MPL-2.0
//! Memory that exists already at a known physical address, and that the heap names: a part of /dev/mem, a
//! map of UIO, a buffer of u-dma-buf, a PCI device's memory. Each block is the lowest part of the area that
//! no other region of this process uses.
//!
//! The CPU may have such memory mapped without its cache, and on ARM as a device's memory, where an atomic or
//! unaligned access is a fault. So no code here touches it, nor pins it: the mapping has no pages (VM_PFNMAP).

mod area;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::CAT;
use super::area_name::{AreaName, Device, Place};
use super::claims::Claim;
use super::cpu_access::DmaBuf;
use super::error::MemoryError;
use super::provider::{KindInfo, MemoryProvider};
use super::region::{OwnedMapping, Region};
use super::remedy;
use crate::address::{Address, AddressUnknown, PhysAddr};
use crate::locks::Mutex;
use crate::sys::memfd::Pages;
use crate::sys::mmap::{Mapping, page_size_bytes};
use crate::sys::{describe, device_memory, iomem};
use area::{Area, Window};

/// The area of this name, if there is one. A missing or malformed name is refused with the first block, in
/// words that say how names are formed.
pub(super) fn named_area(
    info: &'static KindInfo,
    heap: Option<&str>,
) -> Option<Vec<MemoryProvider>> {
    Some(vec![MemoryProvider {
        info,
        heap: heap.map(str::to_owned),
        pages: Pages::Normal,
        large_page_bytes: None,
        may_have_dma_buf: may_have_dma_buf(heap),
        name: format!("{} {}", info.kind, heap.unwrap_or("without a heap")),
    }])
}

/// Whether a block of this area may have a dma-buf.
fn may_have_dma_buf(heap: Option<&str>) -> bool {
    let place = heap.and_then(|heap| AreaName::parse(heap).ok());
    matches!(
        place,
        Some(AreaName {
            place: Place::Device {
                device: Device::UDmaBuf { .. },
                ..
            },
            ..
        })
    )
}

/// Makes a region of the lowest free part of the area.
pub(super) fn region(
    provider: &MemoryProvider,
    size_bytes: usize,
    max_address: Option<PhysAddr>,
) -> Result<Region, MemoryError> {
    region_below(Path::new("/"), provider, size_bytes, max_address)
}

/// As [`region`], with the directory that stands for `/`.
fn region_below(
    root: &Path,
    provider: &MemoryProvider,
    size_bytes: usize,
    max_address: Option<PhysAddr>,
) -> Result<Region, MemoryError> {
    let heap = provider.heap.as_deref().ok_or(MemoryError::NoAreaNamed)?;
    let name = AreaName::parse(heap).map_err(|problem| MemoryError::AreaName {
        heap: heap.to_owned(),
        problem: problem.to_string(),
    })?;
    let page_bytes = page_size_bytes() as u64;
    let area = area::find(root, name, page_bytes)?;
    let is_verified = match name.place {
        Place::Memory(_) => must_not_be_system_ram(root, heap, &area)?,
        Place::Device { .. } => true,
    };
    let claim = claim(heap, &area, size_bytes, page_bytes)?;
    let address = Address::contiguous(claim.first(), size_bytes as u64, area.source);
    if let (Some(address), Some(max_address)) = (&address, max_address)
        && address.last_byte() > max_address
    {
        // The part is the lowest that is free, so another one would be higher.
        return Err(MemoryError::AboveMaxAddress {
            kind: provider.info.kind,
            max_address,
            last_byte: address.last_byte(),
            attempts: 1,
        });
    }
    let offset_bytes = claim.first().0 - area.span.first();
    let (mapping, dma_buf) = map(&area, offset_bytes, size_bytes, is_verified)?;
    Ok(Region::new(
        provider.info.kind,
        provider.heap.clone(),
        address.ok_or(AddressUnknown::GivenPastEnd {
            size_bytes: size_bytes as u64,
        }),
        Ok(area.pin_note),
        OwnedMapping {
            _pin: None,
            mapping,
            memfd: None,
            dma_buf,
            _claim: Some(claim),
        },
    ))
}

/// Refuses memory that the kernel uses. Returns false if the kernel does not say what it uses, so that only
/// the kernel itself can refuse the mapping.
fn must_not_be_system_ram(root: &Path, heap: &str, area: &Area) -> Result<bool, MemoryError> {
    let ranges = iomem::ranges_of(&root.join("proc/iomem"));
    if iomem::is_hidden(&ranges) {
        gst::info!(
            CAT,
            "{heap}: not compared with the System RAM in /proc/iomem, whose addresses this process \
             may not read (CAP_SYS_ADMIN): the kernel decides"
        );
        return Ok(false);
    }
    match iomem::overlaps_system_ram(&ranges, area.span.first(), area.span.last()) {
        true => Err(MemoryError::OverlapsSystemRam {
            heap: heap.to_owned(),
        }),
        false => Ok(true),
    }
}

fn claim(
    heap: &str,
    area: &Area,
    size_bytes: usize,
    page_bytes: u64,
) -> Result<Claim, MemoryError> {
    let total_bytes = area.span.len_bytes();
    if size_bytes as u64 > total_bytes {
        return Err(MemoryError::LargerThanArea {
            heap: heap.to_owned(),
            size_bytes,
            total_bytes,
        });
    }
    Claim::of_lowest(area.span, size_bytes as u64, page_bytes).map_err(|none| {
        MemoryError::AreaInUse {
            heap: heap.to_owned(),
            size_bytes,
            free_bytes: none.free_bytes,
            longest_bytes: none.longest_bytes,
            total_bytes,
        }
    })
}

/// Maps a part of the area, and exports it as a dma-buf if the driver does that.
fn map(
    area: &Area,
    offset_bytes: u64,
    size_bytes: usize,
    is_verified: bool,
) -> Result<(Mapping, Option<DmaBuf>), MemoryError> {
    let refused = |what: &str, source: io::Error| MemoryError::Refused {
        object: match what {
            "open" => area.file.display().to_string(),
            _ => format!("{what} of {size_bytes} bytes of {}", area.file.display()),
        },
        remedy: match what {
            "open" => why_not_opened(area, &source),
            _ => why_not_mapped(area, &source, is_verified),
        },
        source,
    };
    match area.window {
        Window::Offset(start) => {
            let device = device_memory::open(&area.file, area.is_sync)
                .map_err(|source| refused("open", source))?;
            let at = start + offset_bytes;
            let mapping = Mapping::shared_at(&device, at, size_bytes)
                .map_err(|source| refused("mmap", source))?;
            let dma_buf = match area.is_u_dma_buf {
                true => export(area, device.as_fd(), at, size_bytes),
                false => None,
            };
            Ok((mapping, dma_buf))
        }
        Window::Whole { offset, lead_bytes } => {
            let too_large = || MemoryError::LargerThanAddressSpace { size_bytes };
            let bytes = |bytes: u64| usize::try_from(bytes).map_err(|_| too_large());
            let whole_bytes = bytes(lead_bytes.saturating_add(area.span.len_bytes()))?;
            let key = SharedKey {
                file: area.file.clone(),
                offset,
                is_sync: area.is_sync,
                phys: area.span.first() - lead_bytes,
            };
            let whole = shared_mapping(key, whole_bytes, || {
                device_memory::open(&area.file, area.is_sync)
            })
            .map_err(|(what, source)| refused(what, source))?;
            let part = Mapping::part(&whole, bytes(lead_bytes + offset_bytes)?, size_bytes);
            Ok((part.ok_or_else(too_large)?, None))
        }
    }
}

/// What identifies a mapping that all blocks of a device share.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SharedKey {
    file: PathBuf,
    offset: u64,
    is_sync: bool,
    phys: u64,
}

/// Maps a device from its first byte on, or returns the mapping that other blocks use. The error says which
/// call failed.
fn shared_mapping(
    key: SharedKey,
    len_bytes: usize,
    open: impl FnOnce() -> io::Result<std::fs::File>,
) -> Result<Arc<Mapping>, (&'static str, io::Error)> {
    static SHARED: Mutex<Vec<(SharedKey, Weak<Mapping>)>> = Mutex::new(Vec::new());
    let mut shared = SHARED.lock();
    shared.retain(|(_, mapping)| mapping.strong_count() > 0);
    let known = shared.iter().filter(|(known, _)| *known == key);
    let long_enough = known
        .filter_map(|(_, mapping)| mapping.upgrade())
        .find(|mapping| mapping.len_bytes() >= len_bytes);
    if let Some(mapping) = long_enough {
        return Ok(mapping);
    }
    let device = open().map_err(|source| ("open", source))?;
    let mapping =
        Mapping::shared_at(&device, key.offset, len_bytes).map_err(|source| ("mmap", source))?;
    let mapping = Arc::new(mapping);
    shared.push((key, Arc::downgrade(&mapping)));
    Ok(mapping)
}

/// Exports a block of u-dma-buf. The driver can be built without the call; the block has no dma-buf then.
fn export(
    area: &Area,
    device: std::os::fd::BorrowedFd<'_>,
    offset_bytes: u64,
    size_bytes: usize,
) -> Option<DmaBuf> {
    match device_memory::export_u_dma_buf(device, offset_bytes, size_bytes as u64) {
        Ok(dma_buf) => Some(DmaBuf::new(dma_buf)),
        Err(error) => {
            gst::info!(
                CAT,
                "{}: U_DMA_BUF_IOCTL_EXPORT: {}: the memory has no dma-buf",
                area.file.display(),
                describe(&error)
            );
            None
        }
    }
}

fn is_dev_mem(area: &Area) -> bool {
    area.file.ends_with("dev/mem")
}

fn why_not_opened(area: &Area, source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(libc::EPERM) if is_dev_mem(area) => {
            "give the process CAP_SYS_RAWIO; on a kernel that is locked down (Secure Boot, \
             /sys/kernel/security/lockdown) use a map of UIO or u-dma-buf"
                .to_owned()
        }
        _ if is_dev_mem(area) => {
            remedy::for_device(&area.file, source, "the kernel needs CONFIG_DEVMEM")
        }
        _ => remedy::for_device(&area.file, source, "the device is gone: bind its driver"),
    }
}

fn why_not_mapped(area: &Area, source: &io::Error, is_verified: bool) -> String {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if is_dev_mem(area) => format!(
            "the kernel keeps this range to itself: System RAM with CONFIG_STRICT_DEVMEM, the memory \
             of a driver with CONFIG_IO_STRICT_DEVMEM or iomem=strict: keep the memory from the kernel \
             (memmap=, mem=, a reserved-memory node with no-map), or use UIO or u-dma-buf{}",
            match is_verified {
                true => "",
                false => " (/proc/iomem, which shows System RAM, hides its addresses from this process)",
            }
        ),
        Some(libc::EPERM) => {
            "a kernel that is locked down (Secure Boot, /sys/kernel/security/lockdown) does not map \
             the memory of PCI devices: use the device's own driver, or UIO"
                .to_owned()
        }
        Some(libc::EINVAL) if is_dev_mem(area) => {
            "there are no such addresses, or another mapping has them cached in another way: compare \
             with /proc/iomem, and add or leave out ,sync"
                .to_owned()
        }
        Some(libc::EINVAL) => {
            "the driver does not map this part, or a driver has the device to itself: name less of \
             it, or unbind the driver"
                .to_owned()
        }
        Some(libc::ENODEV) => "the driver does not map its memory: use another device".to_owned(),
        _ => remedy::for_memory(source, remedy::ASK_FOR_LESS),
    }
}

#[cfg(test)]
mod tests;
