// SPDX-License-Identifier: MPL-2.0
//! Every kind of memory, judged from outside: the host reads the bytes at the
//! address that we tell. Modules are named for the display they need.

#[path = "memory/conformance.rs"]
mod conformance;
#[path = "memory/faults.rs"]
mod faults;
#[path = "memory/pressure.rs"]
mod pressure;
#[path = "memory/privileges.rs"]
mod privileges;
// Its controller is told of the memory by way of I/O ports.
#[cfg(target_arch = "x86_64")]
#[path = "memory/ramfb.rs"]
mod ramfb_device;
mod support;
// 64-bit machines have no other addresses.
#[cfg(target_arch = "arm")]
#[path = "memory/wide.rs"]
mod wide;

use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

use gstphysmem::memory::{
    AddressSource, AddressUnknown, ExternalAddress, MemoryError, MemoryKind, Owner, PhysAddr,
    Region, Request,
};
use support::require_lab;

/// Alone with the machine: these tests count file descriptors, use up heaps and
/// move pages. Huge pages are reserved where there are any.
fn alone_in_the_lab() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    require_lab();
    let guard = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    gst::init().expect("GStreamer starts");
    if let Some(page_bytes) = huge_page_bytes() {
        // Three blocks at a time, the largest of 32 MiB.
        let pages = (48usize << 20).div_ceil(page_bytes).max(3).to_string();
        std::fs::write("/proc/sys/vm/nr_hugepages", &pages).expect("huge pages can be reserved");
        let reserved = std::fs::read_to_string("/proc/sys/vm/nr_hugepages");
        assert_eq!(reserved.expect("a number").trim(), pages, "huge pages");
    }
    guard
}

/// The default size of huge pages; none where the machine has none that a few fit into its
/// memory: 32-bit ARM without LPAE, and arm64 with pages of 64 KiB, whose huge pages have
/// 512 MiB.
fn huge_page_bytes() -> Option<usize> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let field = |name| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib = line.trim_start_matches(':').trim().strip_suffix(" kB")?;
        Some(kib.parse::<usize>().expect("a number") << 10)
    };
    let size = field("Hugepagesize").filter(|&size| size < field("MemTotal").unwrap_or(0) / 8);
    assert!(
        size.is_some() || !cfg!(target_arch = "x86_64"),
        "this machine has huge pages: {meminfo}"
    );
    size
}

/// The devices of a kind, any of which it takes.
fn devices(kind: MemoryKind) -> &'static [&'static str] {
    match kind {
        MemoryKind::Cma => support::CMA_HEAPS,
        MemoryKind::System => &["/dev/dma_heap/system"],
        MemoryKind::Udmabuf => &["/dev/udmabuf"],
        _ => &["/dev/null"],
    }
}

/// The kinds among these that this kernel has.
fn had(kinds: &[MemoryKind]) -> Vec<MemoryKind> {
    let is_had = |kind: &&MemoryKind| !support::stock_kernel_lacks(devices(**kind));
    kinds.iter().filter(is_had).copied().collect()
}

/// Whether the kernel lacks a kind; the test has said so and is to return.
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

/// The requests that reach every source of memory.
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
    all.retain(|request| had(&[request.kind]).len() == 1);
    all
}

mod any {
    use super::conformance::{check, disturb_memory};
    use super::*;

    const SIZE: usize = 8 << 20;

    #[test]
    fn cma_conforms() {
        let _alone = alone_in_the_lab();
        if cannot_run_without(MemoryKind::Cma) {
            return;
        }
        let region = check(&request(MemoryKind::Cma, SIZE));
        let address = region.address().unwrap();
        assert!(address.is_contiguous());
        // Newer kernels map the heap without pages, which pagemap does not list.
        let expected = if support::kernel_version() == (6, 1) {
            AddressSource::Pagemap
        } else {
            AddressSource::CmaTrace
        };
        assert_eq!(address.source(), expected);
        assert_eq!(region.heap(), Some(support::cma_heap()));
    }

    #[test]
    fn system_conforms_without_an_address() {
        let _alone = alone_in_the_lab();
        if cannot_run_without(MemoryKind::System) {
            return;
        }
        let region = check(&request(MemoryKind::System, SIZE));
        assert_eq!(region.address(), Err(&AddressUnknown::PfnMap));
    }

    #[test]
    fn udmabuf_of_normal_pages_conforms() {
        let _alone = alone_in_the_lab();
        if cannot_run_without(MemoryKind::Udmabuf) {
            return;
        }
        let region = check(&Request {
            heap: Some("shmem"),
            ..request(MemoryKind::Udmabuf, SIZE)
        });
        assert_eq!(region.address().unwrap().source(), AddressSource::Pagemap);
    }

    #[test]
    fn udmabuf_of_huge_pages_conforms() {
        let _alone = alone_in_the_lab();
        if cannot_run_without(MemoryKind::Udmabuf) {
            return;
        }
        let Some(page_bytes) = huge_page_bytes() else {
            return support::skip(NO_HUGE_PAGES);
        };
        let region = check(&Request {
            heap: Some("hugetlb"),
            ..request(MemoryKind::Udmabuf, SIZE)
        });
        assert_whole_huge_pages(&region, page_bytes);
    }

    #[test]
    fn hugepage_conforms() {
        let _alone = alone_in_the_lab();
        let Some(page_bytes) = huge_page_bytes() else {
            return support::skip(NO_HUGE_PAGES);
        };
        let region = check(&request(MemoryKind::Hugepage, SIZE));
        assert_whole_huge_pages(&region, page_bytes);
    }

    fn assert_whole_huge_pages(region: &Region, page_bytes: usize) {
        for extent in region.address().expect("root sees it").extents() {
            assert_eq!(extent.phys.0 % page_bytes as u64, 0, "{extent:?}");
            assert_eq!(extent.len_bytes % page_bytes as u64, 0, "{extent:?}");
        }
    }

    #[test]
    fn normal_conforms() {
        let _alone = alone_in_the_lab();
        let region = check(&request(MemoryKind::Normal, SIZE));
        assert_eq!(region.address().unwrap().source(), AddressSource::Pagemap);
    }

    #[test]
    fn auto_is_cma_where_there_is_a_heap_of_it() {
        let _alone = alone_in_the_lab();
        let region = check(&request(MemoryKind::Auto, SIZE));
        if support::stock_kernel_lacks(support::CMA_HEAPS) {
            let choice = region.choice().unwrap();
            assert_ne!(region.kind(), MemoryKind::Cma);
            assert!(choice.contains("; passed over: cma"), "{choice}");
            return;
        }
        assert_eq!(region.kind(), MemoryKind::Cma);
        assert_eq!(region.choice(), Some("cma, the best kind"));
    }

    /// Without this the conformance suite's "not moved" would prove nothing.
    #[test]
    fn unpinned_pages_do_move_when_memory_is_disturbed() {
        let _alone = alone_in_the_lab();
        let mut block = vec![0u8; SIZE];
        block.fill(1);
        let place = |block: &[u8]| -> Vec<u64> {
            block
                .chunks(support::page_size())
                .map(|page| support::pagemap_address(page))
                .collect()
        };
        let before = place(&block);
        let step = support::page_size();
        disturb_memory(|| block.iter_mut().step_by(step).for_each(|byte| *byte += 1));
        let after = place(&block);
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        println!("{moved} of {} unpinned pages moved", before.len());
        assert!(moved > 0);
    }

    #[test]
    fn allocations_of_several_threads_keep_their_own_addresses() {
        let _alone = alone_in_the_lab();
        if cannot_run_without(MemoryKind::Cma) {
            return;
        }
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    (0..4)
                        .map(|_| allocate(&request(MemoryKind::Cma, 1 << 20)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let regions: Vec<_> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        for (i, region) in regions.iter().enumerate() {
            conformance::fill(region, i as u64);
        }
        for (i, region) in regions.iter().enumerate() {
            conformance::assert_seen_from_outside(region, i as u64);
        }
    }

    #[test]
    fn address_of_external_memory_is_looked_up_or_absent_with_its_reason() {
        let _alone = alone_in_the_lab();
        for request in every_source(1 << 20) {
            let region = allocate(&request);
            // SAFETY: the shared owner is the region that maps the memory.
            let external = unsafe {
                Region::external(
                    NonNull::new(region.ptr()).unwrap(),
                    region.size_bytes(),
                    ExternalAddress::LookUp,
                    Owner::Shared(region.clone()),
                    None,
                )
            };
            match region.address() {
                Ok(address) if address.source() == AddressSource::Pagemap => {
                    assert_eq!(external.address(), Ok(address));
                    conformance::fill(&external, 11);
                    conformance::assert_seen_from_outside(&external, 11);
                }
                // Only who sees the allocation sees the tracepoint.
                _ => assert_eq!(external.address(), Err(&AddressUnknown::PfnMap)),
            }
        }
    }

    #[test]
    fn tracing_of_others_is_left_alone() {
        let _alone = alone_in_the_lab();
        if cannot_run_without(MemoryKind::Cma) {
            return;
        }
        let state = || {
            [
                "tracing_on",
                "current_tracer",
                "set_event",
                "events/cma/enable",
                "trace",
            ]
            .map(|file| std::fs::read_to_string(format!("/sys/kernel/tracing/{file}")).unwrap())
        };
        let before = state();
        let region = allocate(&request(MemoryKind::Cma, SIZE));
        assert_eq!(state(), before);
        drop(region);
        assert_eq!(state(), before);
    }

    #[test]
    fn heap_that_does_not_exist_is_named_with_those_that_do() {
        let _alone = alone_in_the_lab();
        if cannot_run_without(MemoryKind::System) {
            return;
        }
        let error = Region::allocate(&Request {
            heap: Some("nonesuch"),
            ..request(MemoryKind::Cma, 4096)
        })
        .unwrap_err()
        .to_string();
        let mut heaps: Vec<_> = std::fs::read_dir("/dev/dma_heap")
            .expect("there are heaps")
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        heaps.sort();
        assert_eq!(
            error,
            format!(
                "/dev/dma_heap/nonesuch: No such file or directory (ENOENT): \
                 the heaps here are: {}",
                heaps.join(", ")
            )
        );
        let error = Region::allocate(&Request {
            heap: Some("system"),
            ..request(MemoryKind::Cma, 4096)
        })
        .unwrap_err();
        assert!(matches!(error, MemoryError::NotCma(_)), "{error}");
    }

    #[test]
    fn used_up_cma_heap_says_so_and_recovers() {
        let _alone = alone_in_the_lab();
        if cannot_run_without(MemoryKind::Cma) {
            return;
        }
        let fds = support::open_fds();
        let mut taken = Vec::new();
        let error = loop {
            match Region::allocate(&request(MemoryKind::Cma, 4 << 20)) {
                Ok(region) => taken.push(region),
                Err(error) => break error.to_string(),
            }
            assert!(taken.len() < 1000, "cma= gives this guest no such heap");
        };
        let heap = support::cma_heap();
        assert_eq!(
            error,
            format!(
                "4194304 bytes from cma heap {heap} failed: Cannot allocate memory (ENOMEM): \
                 enlarge cma= on the kernel command line \
                 (CmaFree in /proc/meminfo says what is left)"
            )
        );
        let auto = allocate(&request(MemoryKind::Auto, 4 << 20));
        assert_eq!(auto.kind(), MemoryKind::Udmabuf);
        let choice = auto.choice().unwrap();
        assert!(
            choice.starts_with(&format!(
                "udmabuf; passed over: cma heap {heap} (4194304 bytes from"
            )),
            "{choice}"
        );
        let needs_contiguous = Region::allocate(&Request {
            needs_contiguous: true,
            ..request(MemoryKind::Auto, 4 << 20)
        });
        assert!(matches!(needs_contiguous, Err(MemoryError::NoKind(_))));
        drop((taken, auto));
        allocate(&request(MemoryKind::Cma, 4 << 20));
        assert_eq!(support::open_fds(), fds);
    }

    #[test]
    fn absurd_sizes_are_errors_of_every_source() {
        let _alone = alone_in_the_lab();
        // The least is more than any of these machines has, whatever its pointers hold.
        for size in [usize::MAX, usize::MAX / 2, usize::MAX / 3] {
            for request in every_source(size) {
                let error = Region::allocate(&request).unwrap_err();
                println!("{}: {error}", request.kind);
            }
        }
    }

    #[test]
    fn constraints_rule_kinds_out() {
        let _alone = alone_in_the_lab();
        for kind in [MemoryKind::Hugepage, MemoryKind::Normal] {
            let refused = Region::allocate(&Request {
                needs_dma_buf: true,
                ..request(kind, 4096)
            });
            assert!(matches!(refused, Err(MemoryError::NoDmaBuf(_))));
        }
        let contiguous = |kind, heap, size_bytes| {
            Region::allocate(&Request {
                needs_contiguous: true,
                heap,
                ..request(kind, size_bytes)
            })
        };
        let page_bytes = support::page_size();
        let mut limits = vec![
            (MemoryKind::System, None, page_bytes),
            (MemoryKind::Normal, None, page_bytes),
            (MemoryKind::Udmabuf, Some("shmem"), page_bytes),
        ];
        limits.retain(|(kind, ..)| had(&[*kind]).len() == 1);
        if let Some(huge_bytes) = huge_page_bytes() {
            limits.push((MemoryKind::Udmabuf, Some("hugetlb"), huge_bytes));
            limits.push((MemoryKind::Hugepage, None, huge_bytes));
        }
        for (kind, heap, limit) in limits {
            let region = contiguous(kind, heap, limit).unwrap();
            if let Ok(address) = region.address() {
                assert!(address.is_contiguous(), "{kind}");
            }
            let error = contiguous(kind, heap, limit + 1).unwrap_err();
            assert!(
                matches!(error, MemoryError::NotContiguous { limit_bytes, .. } if limit_bytes == limit),
                "{error}"
            );
        }
    }

    #[test]
    fn limit_on_the_address_is_kept_or_refused() {
        let _alone = alone_in_the_lab();
        let fds = support::open_fds();
        let below = |kind, max| {
            Region::allocate(&Request {
                max_address: Some(PhysAddr(max)),
                ..request(kind, 1 << 20)
            })
        };
        let mut kinds = had(&[MemoryKind::Cma, MemoryKind::Udmabuf, MemoryKind::Normal]);
        kinds.extend(huge_page_bytes().map(|_| MemoryKind::Hugepage));
        for kind in kinds {
            // All of the guest's memory is below 4 GiB, none below 64 KiB.
            let region = below(kind, u64::from(u32::MAX)).unwrap();
            let last = region.address().unwrap().last_byte();
            assert!(last.0 <= u64::from(u32::MAX));
            let error = below(kind, 0xffff).unwrap_err();
            println!("{error}");
            assert!(
                matches!(error, MemoryError::AboveMaxAddress { .. }),
                "{error}"
            );
        }
        for kind in had(&[MemoryKind::System]) {
            let error = below(kind, u64::MAX).unwrap_err();
            assert!(
                matches!(error, MemoryError::AddressNeeded { .. }),
                "{error}"
            );
        }
        assert!(below(MemoryKind::Auto, 0xffff).is_err());
        assert_eq!(support::open_fds(), fds, "held attempts are let go");
    }

    #[test]
    fn limit_exactly_at_the_last_byte_is_kept() {
        let _alone = alone_in_the_lab();
        if cannot_run_without(MemoryKind::Cma) {
            return;
        }
        let cma = |max_address| {
            Region::allocate(&Request {
                max_address,
                ..request(MemoryKind::Cma, 1 << 20)
            })
        };
        // A CMA heap gives its lowest free block each time.
        let last = cma(None).unwrap().address().unwrap().last_byte();
        assert!(cma(Some(last)).is_ok());
        assert!(cma(Some(PhysAddr(last.0 - 1))).is_err());
    }

    #[test]
    fn injected_failures_are_clean_errors() {
        let _alone = alone_in_the_lab();
        if support::cannot_run_without(&[faults::FAIL_NTH]) {
            return;
        }
        if faults::has_no_rseq() {
            return faults::every_failure_is_clean(&every_source(256 << 10));
        }
        let mut command = this_test_once_more("any::injected_failures_are_clean_errors");
        passes(faults::take_rseq(&mut command));
    }

    #[test]
    fn more_memory_than_there_is_is_refused_and_nobody_is_killed() {
        let _alone = alone_in_the_lab();
        pressure::is_refused_before_anybody_is_killed();
        pressure::is_told_by_the_source_that_lacks_it();
    }

    #[test]
    fn a_timer_of_the_program_does_not_keep_it_from_memory() {
        let _alone = alone_in_the_lab();
        pressure::is_had_in_spite_of_a_timer();
    }

    /// Runs the calling test once more, as nobody, with `CHILD` in the environment.
    fn again_as_nobody(test: &str) {
        let mut command = this_test_once_more(test);
        command.env(CHILD, "1");
        passes(&mut support::as_nobody(&command));
    }

    fn this_test_once_more(test: &str) -> std::process::Command {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]);
        command
    }

    fn passes(command: &mut std::process::Command) {
        let ran = support::run(command).expect_success();
        print!("{}", ran.stdout);
        assert!(ran.stdout.contains("1 passed"), "{}", ran.stdout);
    }

    const CHILD: &str = "PHYSMEM_TEST_NOBODY";

    fn is_nobody() -> bool {
        std::env::var_os(CHILD).is_some()
    }

    fn open_to_all(kind: MemoryKind) {
        let devices = devices(kind).iter();
        let there: Vec<_> = devices
            .filter(|device| Path::new(device).exists())
            .collect();
        assert!(!there.is_empty(), "no device of {kind}");
        there.iter().for_each(|device| set_mode(device, 0o666));
    }

    fn set_mode(device: &str, mode: u32) {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(device, permissions).expect("root may");
    }

    #[test]
    fn without_privilege_memory_works_and_has_no_address() {
        if is_nobody() {
            return works_without_address();
        }
        let _alone = alone_in_the_lab();
        for kind in had(&[MemoryKind::Cma, MemoryKind::System, MemoryKind::Udmabuf]) {
            open_to_all(kind);
        }
        again_as_nobody("any::without_privilege_memory_works_and_has_no_address");
    }

    #[test]
    fn unprivileged_users_are_told_what_is_missing() {
        if privileges::child() {
            return;
        }
        let _alone = alone_in_the_lab();
        for kind in had(&[MemoryKind::Cma, MemoryKind::Udmabuf]) {
            open_to_all(kind);
        }
        privileges::pagemap_takes_an_ambient_capability();
        privileges::cma_takes_a_tracepoint_or_pagemap();
    }

    fn works_without_address() {
        gst::init().expect("GStreamer starts");
        for request in every_source(64 << 10) {
            let region = allocate(&request);
            conformance::fill(&region, 1);
            println!("{region:?}, {}", region.pin_note());
            let reason = region.address().expect_err("no privilege, no address");
            let is_expected = match region.kind() {
                MemoryKind::System => *reason == AddressUnknown::PfnMap,
                MemoryKind::Cma if support::kernel_version() != (6, 1) => {
                    matches!(reason, AddressUnknown::TraceUnavailable(_))
                }
                _ => matches!(reason, AddressUnknown::NoPermission(_)),
            };
            assert!(is_expected, "{reason:?}");
            // A huge page of 32 MiB is more than a user may pin.
            let note = region.pin_note();
            let is_too_much = region.size_bytes() > 8 << 20 && note.contains("RLIMIT_MEMLOCK");
            assert!(region.is_pinned() || is_too_much, "{note}");
        }
        let limit = nix::sys::resource::Resource::RLIMIT_MEMLOCK;
        nix::sys::resource::setrlimit(limit, 64 << 10, 64 << 10).unwrap();
        let region = allocate(&request(MemoryKind::Normal, 1 << 20));
        assert!(!region.is_pinned());
        assert!(
            region.pin_note().contains("RLIMIT_MEMLOCK"),
            "{}",
            region.pin_note()
        );
        conformance::fill(&region, 2);
    }

    #[test]
    fn heap_without_permission_says_who_may() {
        if is_nobody() {
            let error = Region::allocate(&request(MemoryKind::Cma, 4096)).unwrap_err();
            let heap = support::cma_heap();
            assert_eq!(
                error.to_string(),
                format!(
                    "/dev/dma_heap/{heap}: Permission denied (EACCES): only user 0 may open it \
                     (mode 0600): give it to a group by a udev rule (KERNEL==\"{heap}\", \
                     GROUP=\"video\", MODE=\"0660\")"
                )
            );
            return;
        }
        let _alone = alone_in_the_lab();
        if cannot_run_without(MemoryKind::Cma) {
            return;
        }
        set_mode(&format!("/dev/dma_heap/{}", support::cma_heap()), 0o600);
        again_as_nobody("any::heap_without_permission_says_who_may");
    }
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
