// SPDX-License-Identifier: MPL-2.0
//! The places that memory comes from, and how each makes a region.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use super::cpu_access::DmaBuf;
use super::region::Backing;
use super::{Address, AddressSource, AddressUnknown, MemoryError, MemoryKind, PhysAddr, Region};
use super::{available, heap, permission, remedy, resolve};
use crate::sys;
use crate::sys::cma_trace::{CmaTrace, Unavailable};
use crate::sys::dma_buf::Direction;
use crate::sys::memfd::{self, Pages};
use crate::sys::mmap::{self, Mapping, page_size_bytes};
use crate::sys::pin::{self, Pin};
use crate::sys::{dma_heap, meminfo, udmabuf};

/// One place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    CmaHeap(String),
    SystemHeap(String),
    UdmabufHugetlb,
    UdmabufShmem,
    Hugetlb,
    Shmem,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CmaHeap(name) => write!(f, "cma heap {name}"),
            Self::SystemHeap(name) => write!(f, "system heap {name}"),
            Self::UdmabufHugetlb => f.write_str("udmabuf of huge pages"),
            Self::UdmabufShmem => f.write_str("udmabuf"),
            Self::Hugetlb => f.write_str("hugepage"),
            Self::Shmem => f.write_str("normal"),
        }
    }
}

impl Source {
    /// Heap name of a udmabuf over huge pages.
    pub(super) const HUGETLB: &'static str = "hugetlb";
    /// Heap name of a udmabuf over normal pages.
    pub(super) const SHMEM: &'static str = "shmem";

    pub(super) fn kind(&self) -> MemoryKind {
        match self {
            Self::CmaHeap(_) => MemoryKind::Cma,
            Self::SystemHeap(_) => MemoryKind::System,
            Self::UdmabufHugetlb | Self::UdmabufShmem => MemoryKind::Udmabuf,
            Self::Hugetlb => MemoryKind::Hugepage,
            Self::Shmem => MemoryKind::Normal,
        }
    }

    /// Up to this size a block is contiguous, whatever it is.
    pub(super) fn contiguous_bytes(&self) -> usize {
        match self {
            Self::CmaHeap(_) => usize::MAX,
            Self::UdmabufHugetlb | Self::Hugetlb => huge_page_size_bytes(),
            Self::SystemHeap(_) | Self::UdmabufShmem | Self::Shmem => page_size_bytes(),
        }
    }

    /// A region of at least this size.
    pub(super) fn make(&self, size_bytes: usize) -> Result<Region, MemoryError> {
        let size_bytes = self.whole_pages(size_bytes)?;
        match self {
            Self::CmaHeap(name) => cma(name, size_bytes),
            Self::SystemHeap(name) => system(name, size_bytes),
            Self::UdmabufHugetlb => self.udmabuf(Pages::Huge, Self::HUGETLB, size_bytes),
            Self::UdmabufShmem => self.udmabuf(Pages::Normal, Self::SHMEM, size_bytes),
            Self::Hugetlb => self.memfd(Pages::Huge, size_bytes),
            Self::Shmem => self.memfd(Pages::Normal, size_bytes),
        }
    }

    /// `size_bytes` in whole pages, if the machine has as much: of these sources the
    /// kernel would try to give more, and kill processes on the way. (A CMA heap and
    /// the pool of huge pages are bounded by themselves.)
    fn whole_pages(&self, size_bytes: usize) -> Result<usize, MemoryError> {
        let page_bytes = match self {
            Self::UdmabufHugetlb | Self::Hugetlb => huge_page_size_bytes(),
            _ => page_size_bytes(),
        };
        let size_bytes = size_bytes
            .checked_next_multiple_of(page_bytes)
            .filter(|&size| isize::try_from(size).is_ok())
            .ok_or(MemoryError::Absurd { size_bytes })?;
        let available = match self {
            Self::CmaHeap(_) | Self::UdmabufHugetlb | Self::Hugetlb => None,
            // The system heap's pages count towards no control group.
            Self::SystemHeap(_) => available::now(false),
            Self::UdmabufShmem | Self::Shmem => available::now(true),
        };
        match available {
            Some(available) if size_bytes as u64 > available.bytes => Err(MemoryError::TooLarge {
                kind: self.kind(),
                size_bytes: size_bytes as u64,
                available,
            }),
            _ => Ok(size_bytes),
        }
    }

    /// A memfd, mapped and with every page in place, but not pinned.
    fn pages(&self, pages: Pages, size_bytes: usize) -> Result<(OwnedFd, Mapping), MemoryError> {
        let refused = |source: io::Error| MemoryError::Refused {
            object: format!("{size_bytes} bytes of {self}"),
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
                (Pages::Normal, _) => remedy::for_memory(&source, ASK_FOR_LESS),
            },
            source,
        };
        let memfd = memfd::create(c"physmem", pages, size_bytes).map_err(refused)?;
        let mapping = Mapping::shared(&memfd, size_bytes).map_err(refused)?;
        // SAFETY: the mapping is one of a memfd, read-write, and borrowed here.
        unsafe { mmap::populate_memfd(mapping.ptr(), size_bytes) }.map_err(refused)?;
        Ok((memfd, mapping))
    }

    /// Whoever gets the memfd, by whatever way, may read it.
    fn seal(&self, memfd: &OwnedFd) -> Result<(), MemoryError> {
        memfd::seal_for_others(memfd.as_fd()).map_err(|source| MemoryError::Refused {
            object: format!("F_ADD_SEALS on a block of {self}"),
            remedy: remedy::for_memory(&source, "use another kind of memory"),
            source,
        })
    }

    fn memfd(&self, pages: Pages, size_bytes: usize) -> Result<Region, MemoryError> {
        let (memfd, mapping) = self.pages(pages, size_bytes)?;
        self.seal(&memfd)?;
        let ptr = mapping.ptr();
        // Before the look-up, since pinning may move the pages first.
        // SAFETY: the mapping is read-write; the region drops the pin before it.
        let pin = unsafe { Pin::new(ptr, size_bytes) };
        let (is_pinned, pin_note) = match &pin {
            Ok(_) => (true, "pinned as a fixed buffer of io_uring".to_owned()),
            Err(error) => (false, not_pinned(error, size_bytes)),
        };
        Ok(Region {
            ptr,
            size_bytes,
            kind: self.kind(),
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

    fn udmabuf(&self, pages: Pages, heap: &str, size_bytes: usize) -> Result<Region, MemoryError> {
        // First of all, so that nothing is allocated where there is no udmabuf.
        let device = udmabuf::open().map_err(|source| MemoryError::Refused {
            object: udmabuf::PATH.to_owned(),
            remedy: remedy::for_device(
                Path::new(udmabuf::PATH),
                &source,
                "the kernel needs CONFIG_UDMABUF (modprobe udmabuf)",
            ),
            source,
        })?;
        let (memfd, mapping) = self.pages(pages, size_bytes)?;
        let dma_buf = udmabuf::create(&device, memfd.as_fd(), size_bytes).map_err(|source| {
            MemoryError::Refused {
                object: format!("UDMABUF_CREATE of {size_bytes} bytes of {self}"),
                remedy: match (source.raw_os_error(), udmabuf::size_limit_bytes()) {
                    (Some(libc::EINVAL), Some(limit)) if size_bytes as u64 > limit => format!(
                        "the driver takes at most {limit} bytes: raise \
                         /sys/module/udmabuf/parameters/size_limit_mb"
                    ),
                    (Some(libc::EINVAL), _) => {
                        format!("this kernel takes no {heap} pages: use another heap or kind")
                    }
                    _ => remedy::for_memory(&source, ASK_FOR_LESS),
                },
                source,
            }
        })?;
        self.seal(&memfd)?;
        let ptr = mapping.ptr();
        Ok(Region {
            ptr,
            size_bytes,
            kind: MemoryKind::Udmabuf,
            heap: Some(heap.to_owned()),
            // After the udmabuf, since pinning may move the pages first.
            address: resolve::look_up(ptr, size_bytes),
            is_pinned: true,
            pin_note: "held in place by the udmabuf".to_owned(),
            choice: None,
            backing: Backing::Udmabuf {
                _mapping: mapping,
                memfd,
                dma_buf: DmaBuf::new(dma_buf),
            },
        })
    }
}

/// Default size of huge pages; where the kernel has none, that of a page.
fn huge_page_size_bytes() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        meminfo::field_bytes("Hugepagesize")
            .ok()
            .flatten()
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or_else(page_size_bytes)
    })
}

const ASK_FOR_LESS: &str = "ask for less, or free memory";

fn not_pinned(error: &io::Error, size_bytes: usize) -> String {
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

/// Opens a heap under /dev/dma_heap.
fn open_heap(name: &str) -> Result<File, MemoryError> {
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

/// A dma-buf of an open heap.
fn alloc_of_heap(
    heap: &File,
    kind: MemoryKind,
    name: &str,
    size_bytes: usize,
) -> Result<OwnedFd, MemoryError> {
    dma_heap::alloc(heap, size_bytes).map_err(|source| MemoryError::Refused {
        object: format!("{size_bytes} bytes from {kind} heap {name} failed"),
        remedy: match (kind, source.raw_os_error()) {
            (MemoryKind::Cma, Some(libc::ENOMEM)) => {
                "enlarge cma= on the kernel command line (CmaFree in /proc/meminfo says what \
                 is left)"
                    .to_owned()
            }
            _ => remedy::for_memory(&source, ASK_FOR_LESS),
        },
        source,
    })
}

fn map_dma_buf(dma_buf: &OwnedFd, name: &str, size_bytes: usize) -> Result<Mapping, MemoryError> {
    Mapping::shared(dma_buf, size_bytes).map_err(|source| MemoryError::Refused {
        object: format!("mmap of {size_bytes} bytes of heap {name}"),
        remedy: match source.raw_os_error() {
            Some(libc::ENOMEM | libc::EAGAIN) => remedy::for_memory(&source, ASK_FOR_LESS),
            _ => "this heap's memory is not for the CPU: choose another heap".to_owned(),
        },
        source,
    })
}

fn cma(name: &str, size_bytes: usize) -> Result<Region, MemoryError> {
    if heap::is_of_scattered_pages(name) {
        return Err(MemoryError::NotCma(name.to_owned()));
    }
    let heap = open_heap(name)?;
    let trace = CmaTrace::begin();
    let dma_buf = alloc_of_heap(&heap, MemoryKind::Cma, name, size_bytes)?;
    let traced = trace.map(CmaTrace::end);
    let mapping = map_dma_buf(&dma_buf, name, size_bytes)?;
    let ptr = mapping.ptr();
    let sync = |source| MemoryError::Refused {
        object: format!("DMA_BUF_IOCTL_SYNC on heap {name}"),
        source,
        remedy: "the heap's driver must allow CPU access".to_owned(),
    };
    let dma_buf = DmaBuf::new(dma_buf);
    dma_buf.begin_access(Direction::READ).map_err(sync)?;
    // Not mmap::populate: it goes by way of the pages, which the mapping may lack.
    // SAFETY: the mapping is readable and borrowed here.
    unsafe { mmap::read_every_page(ptr, size_bytes) };
    dma_buf.end_access().map_err(sync)?;
    let address = resolve::look_up(ptr, size_bytes)
        .or_else(|unlisted| traced_address(traced, size_bytes, unlisted));
    if address
        .as_ref()
        .is_ok_and(|address| !address.is_contiguous())
    {
        return Err(MemoryError::NotCma(name.to_owned()));
    }
    Ok(Region {
        ptr,
        size_bytes,
        kind: MemoryKind::Cma,
        heap: Some(name.to_owned()),
        address,
        is_pinned: true,
        pin_note: "allocated by the heap, which never moves it".to_owned(),
        choice: None,
        backing: Backing::DmaBuf {
            _mapping: mapping,
            dma_buf,
        },
    })
}

/// The address that the tracepoint tells, where pagemap lists none.
fn traced_address(
    traced: Result<Option<Vec<sys::cma_trace::Allocation>>, Unavailable>,
    size_bytes: usize,
    unlisted: AddressUnknown,
) -> Result<Address, AddressUnknown> {
    let why = match traced {
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
    };
    Err(match unlisted {
        AddressUnknown::PfnMap => AddressUnknown::TraceUnavailable(why),
        // Either way would do here, so both are told.
        AddressUnknown::NoPermission(hidden) => AddressUnknown::NoPermission(format!(
            "{hidden}; the kernel's cma tracepoint does not tell either: {why}"
        )),
        unlisted => unlisted,
    })
}

fn system(name: &str, size_bytes: usize) -> Result<Region, MemoryError> {
    let dma_buf = alloc_of_heap(&open_heap(name)?, MemoryKind::System, name, size_bytes)?;
    // The driver sets up all page table entries in mmap; there is nothing to touch.
    let mapping = map_dma_buf(&dma_buf, name, size_bytes)?;
    let ptr = mapping.ptr();
    Ok(Region {
        ptr,
        size_bytes,
        kind: MemoryKind::System,
        heap: Some(name.to_owned()),
        address: resolve::look_up(ptr, size_bytes),
        is_pinned: true,
        pin_note: "allocated by the heap, which never moves it".to_owned(),
        choice: None,
        backing: Backing::DmaBuf {
            _mapping: mapping,
            dma_buf: DmaBuf::new(dma_buf),
        },
    })
}
