// SPDX-License-Identifier: MPL-2.0
//! Every kind of memory, judged from outside: the host reads the bytes at the address that the
//! library reports. Modules are named for the display they need.

mod any;
mod conformance;
mod faults;
mod pressure;
mod privileges;
// The device takes the address of the memory through I/O ports.
#[cfg(target_arch = "x86_64")]
#[path = "ramfb.rs"]
mod ramfb_device;
// memmap= is for this architecture.
#[cfg(target_arch = "x86_64")]
mod region;
// Only 32-bit machines have memory beyond the addresses of a pointer.
#[cfg(target_arch = "arm")]
mod wide;

#[path = "../support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex, MutexGuard};

use gstphysmem::memory::{MemoryKind, Region, Request};
use support::require_lab;

/// Serialises these tests: they count file descriptors, use up heaps and move pages. Reserves huge
/// pages where the machine supports them.
fn alone_in_the_lab() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    require_lab();
    let guard = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    support::init_gstreamer();
    if let Some(page_bytes) = huge_page_bytes() {
        // Three blocks at a time, of which the largest has 32 MiB.
        let pages = (48usize << 20).div_ceil(page_bytes).max(3).to_string();
        std::fs::write("/proc/sys/vm/nr_hugepages", &pages).expect("huge pages can be reserved");
        let reserved = std::fs::read_to_string("/proc/sys/vm/nr_hugepages");
        assert_eq!(reserved.expect("a number").trim(), pages, "huge pages");
    }
    guard
}

/// The default size of huge pages. None where there are none (32-bit ARM without LPAE) or a few of
/// them do not fit into the memory (512 MiB each on arm64 with pages of 64 KiB).
fn huge_page_bytes() -> Option<usize> {
    let size = meminfo_bytes("Hugepagesize").filter(|&size| size < total_bytes() / 8);
    assert!(
        size.is_some() || !cfg!(target_arch = "x86_64"),
        "this machine has huge pages"
    );
    size.map(|size| size as usize)
}

/// The memory of the machine, which on 32 bits may be more than an address space.
fn total_bytes() -> u64 {
    meminfo_bytes("MemTotal").expect("MemTotal in /proc/meminfo")
}

fn meminfo_bytes(name: &str) -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib = line.trim_start_matches(':').trim().strip_suffix(" kB")?;
    Some(kib.parse::<u64>().expect("a number") << 10)
}

/// The device files of a kind, of which one is enough.
fn devices(kind: MemoryKind) -> &'static [&'static str] {
    match kind {
        MemoryKind::Cma => support::CMA_HEAPS,
        MemoryKind::System => &["/dev/dma_heap/system"],
        MemoryKind::Udmabuf => &["/dev/udmabuf"],
        _ => &["/dev/null"],
    }
}

/// The kinds among these that the running kernel supports.
fn available(kinds: &[MemoryKind]) -> Vec<MemoryKind> {
    let is_had = |kind: &&MemoryKind| !support::stock_kernel_lacks(devices(**kind));
    kinds.iter().filter(is_had).copied().collect()
}

/// Whether the kernel lacks this kind. If so, the test is reported as skipped and must return.
fn cannot_run_without(kind: MemoryKind) -> bool {
    support::cannot_run_without(devices(kind))
}

const NO_HUGE_PAGES: &str = "this machine has no huge pages, or none that fit into its memory";

fn request(kind: MemoryKind, size_bytes: usize) -> Request<'static> {
    Request {
        kind,
        size_bytes,
        ..Default::default()
    }
}

fn allocate(request: &Request<'_>) -> Arc<Region> {
    Region::allocate(request).unwrap_or_else(|error| panic!("{request:?}: {error}"))
}

/// One request for each source of memory.
fn every_source(size_bytes: usize) -> Vec<Request<'static>> {
    let udmabuf = |heap| Request {
        heap: Some(heap),
        ..request(MemoryKind::Udmabuf, size_bytes)
    };
    let mut all = vec![
        request(MemoryKind::Cma, size_bytes),
        request(MemoryKind::System, size_bytes),
        udmabuf("shmem"),
        request(MemoryKind::Normal, size_bytes),
        request(MemoryKind::Auto, size_bytes),
    ];
    if huge_page_bytes().is_some() {
        all.extend([
            udmabuf("hugetlb"),
            request(MemoryKind::Hugepage, size_bytes),
        ]);
    }
    all.retain(|request| available(&[request.kind]).len() == 1);
    all
}

#[cfg(target_arch = "x86_64")]
mod ramfb {
    use super::*;

    #[test]
    fn display_controller_told_the_address_shows_the_buffer() {
        let _alone = alone_in_the_lab();
        for kind in [MemoryKind::Cma, MemoryKind::Hugepage] {
            ramfb_device::shows_what_is_at_the_address(kind);
        }
    }
}
