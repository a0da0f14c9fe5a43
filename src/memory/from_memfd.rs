// SPDX-License-Identifier: MPL-2.0
//! Memory of memfds: plain, or exported as udmabufs. Its address comes from pagemap. Normal pages become
//! large ones where the kernel can do that (`sys::large_page`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::cpu_access::DmaBuf;
use super::error::MemoryError;
use super::provider::{KindInfo, MemoryProvider, huge_page_size_bytes};
use super::region::{OwnedMapping, Region};
use super::{remedy, resolve};
use crate::address::{Address, AddressUnknown, PhysAddr};
use crate::sys;
use crate::sys::large_page;
use crate::sys::memfd::{self, Pages};
use crate::sys::mmap::{self, Mapping, page_size_bytes};
use crate::sys::pin::{self, Pin};
use crate::sys::udmabuf;

fn provider(info: &'static KindInfo, pages: Pages) -> MemoryProvider {
    MemoryProvider {
        info,
        heap: None,
        pages,
        large_page_bytes: match pages {
            Pages::Huge => Some(huge_page_size_bytes()),
            Pages::Normal => large_page::size_bytes(),
        },
        may_have_dma_buf: info.kind.has_dma_buf(),
        name: info.kind.to_string(),
    }
}

pub(super) fn huge_pages(
    info: &'static KindInfo,
    heap: Option<&str>,
) -> Option<Vec<MemoryProvider>> {
    heap.is_none().then(|| vec![provider(info, Pages::Huge)])
}

pub(super) fn normal_pages(
    info: &'static KindInfo,
    heap: Option<&str>,
) -> Option<Vec<MemoryProvider>> {
    heap.is_none().then(|| vec![provider(info, Pages::Normal)])
}

/// Huge pages, then normal ones; with a name, only the pages of that name.
pub(super) fn udmabuf_pages(
    info: &'static KindInfo,
    heap: Option<&str>,
) -> Option<Vec<MemoryProvider>> {
    let all = [
        (Pages::Huge, "hugetlb", " of huge pages"),
        (Pages::Normal, "shmem", ""),
    ];
    let wanted = all
        .into_iter()
        .filter(|&(_, name, _)| heap.is_none_or(|heap| heap == name));
    let providers: Vec<_> = wanted
        .map(|(pages, name, addition)| MemoryProvider {
            heap: Some(name.to_owned()),
            name: format!("{}{addition}", info.kind),
            ..provider(info, pages)
        })
        .collect();
    (!providers.is_empty()).then_some(providers)
}

/// Makes a region of a memfd's pages, pinned if io_uring allows it.
pub(super) fn pinned(
    provider: &MemoryProvider,
    size_bytes: usize,
    _max_address: Option<PhysAddr>,
) -> Result<Region, MemoryError> {
    let Populated {
        memfd,
        mapping,
        large_page_bytes,
    } = populated(provider, size_bytes)?;
    seal(provider, &memfd)?;
    let (ptr, size_bytes) = (mapping.ptr(), mapping.len_bytes());
    // Before the look-up, since pinning may move the pages first.
    // SAFETY: the mapping is read-write; the region drops the pin before it.
    let pin = unsafe { Pin::new(ptr, size_bytes) };
    let note = match &pin {
        Ok(_) => Ok("pinned as a fixed buffer of io_uring"),
        Err(error) => Err(why_not_pinned(error, size_bytes)),
    };
    let address = resolve::look_up(ptr, size_bytes);
    let large_page_bytes = still_large(provider.pages, large_page_bytes, &address);
    Ok(Region::new(
        provider.info.kind,
        None,
        address,
        note,
        OwnedMapping {
            _pin: pin.ok(),
            mapping,
            memfd: Some(memfd),
            dma_buf: None,
            _claim: None,
        },
    )
    .with_large_pages(large_page_bytes))
}

/// Makes a region of a memfd's pages with a dma-buf over them, which pins them.
pub(super) fn udmabuf(
    provider: &MemoryProvider,
    size_bytes: usize,
    _max_address: Option<PhysAddr>,
) -> Result<Region, MemoryError> {
    // Opened first, so that nothing is allocated on a kernel without udmabuf.
    let device = udmabuf::open().map_err(|source| MemoryError::Refused {
        object: udmabuf::PATH.to_owned(),
        remedy: remedy::for_device(
            Path::new(udmabuf::PATH),
            &source,
            "the kernel needs CONFIG_UDMABUF, which is built in and no module",
        ),
        source,
    })?;
    let Populated {
        memfd,
        mapping,
        large_page_bytes,
    } = populated(provider, size_bytes)?;
    let size_bytes = mapping.len_bytes();
    let dma_buf = udmabuf::create(&device, memfd.as_fd(), size_bytes).map_err(|source| {
        MemoryError::Refused {
            object: format!("UDMABUF_CREATE of {size_bytes} bytes of {provider}"),
            remedy: match (source.raw_os_error(), udmabuf::size_limit_bytes()) {
                (Some(libc::EINVAL), Some(limit)) if size_bytes as u64 > limit => format!(
                    "the driver takes at most {limit} bytes: raise \
                     /sys/module/udmabuf/parameters/size_limit_mb"
                ),
                (Some(libc::EINVAL), _) => format!(
                    "this kernel takes no {} pages: use another heap or kind",
                    provider.heap.as_deref().unwrap_or_default()
                ),
                _ => remedy::for_memory(&source, remedy::ASK_FOR_LESS),
            },
            source,
        }
    })?;
    seal(provider, &memfd)?;
    // After the creation of the udmabuf, since pinning may move the pages first.
    let address = resolve::look_up(mapping.ptr(), size_bytes);
    let large_page_bytes = still_large(provider.pages, large_page_bytes, &address);
    Ok(Region::new(
        provider.info.kind,
        provider.heap.clone(),
        address,
        Ok("held in place by the udmabuf"),
        OwnedMapping {
            _pin: None,
            mapping,
            memfd: Some(memfd),
            dma_buf: Some(DmaBuf::new(dma_buf)),
            _claim: None,
        },
    )
    .with_large_pages(large_page_bytes))
}

/// How many of the bytes that were put into large pages lie there once the memory is pinned. For that the kernel moves
/// pages out of the CMA area, and on an architecture whose large pages it cannot move, such as ARM's of 32 bits, it takes
/// them apart. What pagemap lists of a large page is one piece that begins at a multiple of its size.
fn still_large(
    pages: Pages,
    large_page_bytes: usize,
    address: &Result<Address, AddressUnknown>,
) -> usize {
    match (pages, large_page::size_bytes(), address) {
        (Pages::Normal, Some(large), Ok(address)) => {
            let n_whole = address.n_whole_pages(large as u64);
            large_page_bytes.min(n_whole * large)
        }
        _ => large_page_bytes,
    }
}

/// A memfd and its mapping, with all pages present, but not pinned.
struct Populated {
    memfd: OwnedFd,
    mapping: Mapping,
    large_page_bytes: usize,
}

/// Makes a memfd of at least `size_bytes`, with large pages if the kernel has them.
fn populated(provider: &MemoryProvider, size_bytes: usize) -> Result<Populated, MemoryError> {
    let pages = provider.pages;
    let refused = |source: io::Error| MemoryError::Refused {
        object: format!("{size_bytes} bytes of {provider}"),
        remedy: match (pages, source.raw_os_error()) {
            (Pages::Huge, Some(libc::ENOENT | libc::ENODEV | libc::EINVAL | libc::ENOSYS)) => {
                "the kernel needs CONFIG_HUGETLBFS".to_owned()
            }
            (Pages::Huge, _) => {
                let reserve = format!(
                    "reserve huge pages, {} for each block: sysctl vm.nr_hugepages \
                     (HugePages_Free in /proc/meminfo says how many are left)",
                    size_bytes / huge_page_size_bytes()
                );
                remedy::for_memory(&source, &reserve)
            }
            (Pages::Normal, _) => remedy::for_memory(&source, remedy::ASK_FOR_LESS),
        },
        source,
    };
    let (size_bytes, align_bytes) = match pages {
        // The kernel aligns mappings of huge pages itself, but not Linux 7.2 on 32-bit ARM, where the munmap() of one that is
        // not aligned stops the process in the kernel (BUG in __unmap_hugepage_range()).
        Pages::Huge => (size_bytes, huge_page_size_bytes()),
        Pages::Normal => match with_large_pages(size_bytes, provider.large_page_bytes) {
            (grown, _) if grown > size_bytes && !provider.has_room_for(grown) => {
                (size_bytes, page_size_bytes())
            }
            sizes => sizes,
        },
    };
    let memfd = memfd::create(c"physmem", pages, size_bytes).map_err(refused)?;
    let mapping = Mapping::shared_aligned(&memfd, size_bytes, align_bytes).map_err(refused)?;
    let large_page_bytes = match pages {
        Pages::Huge => size_bytes,
        // Before all small pages are allocated, which would only be freed again.
        // SAFETY: the mapping is that of the memfd, read-write, and borrowed here.
        Pages::Normal => unsafe { large_page::collapse(memfd.as_fd(), mapping.ptr(), size_bytes) },
    };
    memfd::allocate(memfd.as_fd(), size_bytes).map_err(refused)?;
    // SAFETY: the mapping is one of a memfd, read-write, and borrowed here.
    unsafe { mmap::populate_memfd(mapping.ptr(), size_bytes) }.map_err(refused)?;
    Ok(Populated {
        memfd,
        mapping,
        large_page_bytes,
    })
}

/// Whether a block of `size_bytes` of the kinds `normal` and `udmabuf` is made of large pages on this kernel, as
/// long as it finds any.
pub(crate) fn takes_large_pages(size_bytes: usize) -> bool {
    let large = large_page::size_bytes();
    large.is_some_and(|large| with_large_pages(size_bytes, Some(large)).1 == large)
}

/// The size in bytes of a block, and the alignment of its mapping, so that it can have large pages. A block
/// grows by up to two fifths for them (1080p in NV12 by 35 %): else its end, in small pages, may have more
/// extents than the rest, and a disk writes to it at a fraction of the speed.
fn with_large_pages(size_bytes: usize, large_page_bytes: Option<usize>) -> (usize, usize) {
    let most_growth = size_bytes / 5 * 2;
    let Some(large) = large_page_bytes.filter(|&large| large <= size_bytes + most_growth) else {
        return (size_bytes, page_size_bytes());
    };
    let rounded = size_bytes.checked_next_multiple_of(large);
    let size = rounded.filter(|&rounded| rounded - size_bytes <= most_growth);
    (size.unwrap_or(size_bytes), large)
}

/// Seals the memfd, so that every process that is given it can only read it.
fn seal(provider: &MemoryProvider, memfd: &OwnedFd) -> Result<(), MemoryError> {
    memfd::seal_for_others(memfd.as_fd()).map_err(|source| MemoryError::Refused {
        object: format!("F_ADD_SEALS on a block of {provider}"),
        remedy: remedy::for_memory(&source, "use another kind of memory"),
        source,
    })
}

fn why_not_pinned(error: &io::Error, size_bytes: usize) -> String {
    let why = sys::describe(error);
    let remedy = match error.raw_os_error() {
        Some(libc::ENOMEM) => match pin::memlock_limit_bytes() {
            Some(limit) => format!(
                "raise RLIMIT_MEMLOCK, now {limit} bytes for all that the user pins (ulimit -l)"
            ),
            None => "free memory".to_owned(),
        },
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden (sysctl kernel.io_uring_disabled, or a seccomp filter)"
                .to_owned()
        }
        Some(libc::ENOSYS) => "the kernel needs CONFIG_IO_URING".to_owned(),
        Some(libc::EMFILE) => "raise the limit of open files (ulimit -n)".to_owned(),
        _ => "the address may change".to_owned(),
    };
    format!("not pinned: io_uring refused {size_bytes} bytes: {why}: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_grows_for_large_pages_by_two_fifths_at_most() {
        const MIB: usize = 1 << 20;
        let page = page_size_bytes();
        let sizes = [
            // 1080p in BGRx, and the same in NV12.
            (8_294_400, (8 * MIB, 2 * MIB)),
            (3_110_400, (4 * MIB, 2 * MIB)),
            // 720p in NV12.
            (1_382_400, (1_382_400, page)),
            (2 * MIB, (2 * MIB, 2 * MIB)),
            (MIB * 17 / 10, (2 * MIB, 2 * MIB)),
            (MIB, (MIB, page)),
            (page, (page, page)),
            (usize::MAX / 2, (usize::MAX / 2, 2 * MIB)),
        ];
        for (size, expected) in sizes {
            let size = size.min(isize::MAX as usize);
            let got = with_large_pages(size, Some(2 * MIB));
            if size < usize::MAX / 4 {
                assert_eq!(got, expected, "{size}");
            } else {
                assert!(got.0 >= size);
            }
            assert_eq!(with_large_pages(size, None), (size, page));
        }
    }
}
