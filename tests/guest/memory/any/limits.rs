// SPDX-License-Identifier: MPL-2.0
//! Requests that cannot be met are refused with a reason and leave nothing behind.

use gstphysmem::memory::{MemoryError, MemoryKind, PhysAddr, Region, Request};

use super::{expect_one_pass, rerun_command};
use crate::{
    allocate, alone_in_the_lab, available, cannot_run_without, every_source, faults,
    huge_page_bytes, pressure, request, support, total_bytes,
};

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
    let choice = auto.auto_choice().unwrap();
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
    match needs_contiguous {
        // Large pages may be neighbours.
        Ok(region) => assert!(region.address().unwrap().is_contiguous()),
        Err(error) => assert!(matches!(error, MemoryError::NoKind(_)), "{error}"),
    }
    drop((taken, auto));
    allocate(&request(MemoryKind::Cma, 4 << 20));
    assert_eq!(support::open_fds(), fds);
}

#[test]
fn absurd_sizes_are_errors_of_every_source() {
    let _alone = alone_in_the_lab();
    // What is less than the memory of this machine (6 GiB in one guest of 32 bits) is not absurd.
    let sizes = [usize::MAX, usize::MAX / 2, usize::MAX / 3];
    for size in sizes
        .into_iter()
        .filter(|&size| size == usize::MAX || size as u64 > total_bytes())
    {
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
    limits.retain(|(kind, ..)| available(&[*kind]).len() == 1);
    if let Some(huge_bytes) = huge_page_bytes() {
        limits.push((MemoryKind::Hugepage, None, huge_bytes));
        if available(&[MemoryKind::Udmabuf]).len() == 1 {
            limits.push((MemoryKind::Udmabuf, Some("hugetlb"), huge_bytes));
        }
    }
    for (kind, heap, limit) in limits {
        let region = contiguous(kind, heap, limit).unwrap();
        if let Ok(address) = region.address() {
            assert!(address.is_contiguous(), "{kind}");
        }
        match contiguous(kind, heap, limit + 1) {
            // Large pages, or huge ones that are neighbours.
            Ok(region) => assert!(region.address().unwrap().is_contiguous(), "{kind}"),
            Err(MemoryError::NotContiguous { limit_bytes, .. }) => assert_eq!(limit_bytes, limit),
            Err(error) => assert!(
                matches!(error, MemoryError::InPieces { n_extents, .. } if n_extents > 1),
                "{error}"
            ),
        }
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
    let mut kinds = available(&[MemoryKind::Cma, MemoryKind::Udmabuf, MemoryKind::Normal]);
    kinds.extend(huge_page_bytes().map(|_| MemoryKind::Hugepage));
    for kind in kinds {
        // All of the guest's memory lies below 4 GiB, and none of it below 64 KiB.
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
    for kind in available(&[MemoryKind::System]) {
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
    // A CMA heap always returns its lowest free block.
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
    if faults::is_rseq_disabled() {
        return faults::every_failure_is_clean(&every_source(256 << 10));
    }
    let mut command = rerun_command("any::limits::injected_failures_are_clean_errors");
    expect_one_pass(faults::disable_rseq(&mut command));
}

#[test]
fn more_memory_than_there_is_is_refused_and_nobody_is_killed() {
    let _alone = alone_in_the_lab();
    if total_bytes() > usize::MAX as u64 / 2 {
        return support::skip("one program cannot take all memory of this machine");
    }
    pressure::allocations_end_before_an_oom_kill();
    pressure::source_without_memory_reports_it();
}

#[test]
fn a_timer_of_the_program_does_not_keep_it_from_memory() {
    let _alone = alone_in_the_lab();
    pressure::allocations_succeed_despite_a_timer();
}
