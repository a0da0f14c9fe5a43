// SPDX-License-Identifier: MPL-2.0
//! Each kind of memory keeps its promises: contents, address, place.

use std::ptr::NonNull;

use gst::prelude::*;
use gstphysmem::handle::BufferHandle;
use gstphysmem::memory::{
    AddressSource, AddressUnknown, ExternalAddress, MemoryKind, Owner, Region, Request,
};
use gstphysmem::pool::{PhysBufferPool, Wait};

use crate::conformance::{check, disturb_memory};
use crate::{
    NO_HUGE_PAGES, allocate, alone_in_the_lab, available, cannot_run_without, conformance,
    every_source, huge_page_bytes, request, support,
};

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
    // Kernels after 6.1 map the heap without struct pages, so pagemap does not list them.
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

/// Nothing is reserved for it, and `shmem_enabled` is `never`.
#[test]
fn normal_pages_become_large_ones_which_are_contiguous() {
    let _alone = alone_in_the_lab();
    let size = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
    let large: Option<usize> = size.ok().and_then(|size| size.trim().parse().ok());
    let Some(large) = large.filter(|&large| large <= SIZE) else {
        return support::skip("this kernel has no large pages of up to 8 MiB");
    };
    for request in [
        request(MemoryKind::Normal, SIZE),
        Request {
            heap: Some("shmem"),
            ..request(MemoryKind::Udmabuf, SIZE)
        },
    ] {
        if request.kind == MemoryKind::Udmabuf && cannot_run_without(MemoryKind::Udmabuf) {
            continue;
        }
        let region = check(&request);
        let extents = region.address().unwrap().extents();
        println!(
            "{}: {} bytes in large pages, {} extents",
            request.kind,
            region.large_page_bytes(),
            extents.len()
        );
        assert!(region.large_page_bytes() >= large);
        let n_small = (SIZE - region.large_page_bytes()) / support::page_size();
        assert!(extents.len() <= SIZE / large + n_small);
        // Much less than a large page: it is one piece all the same.
        let one = check(&Request {
            needs_contiguous: true,
            size_bytes: large / 2 + 1,
            ..request
        });
        assert!(one.address().unwrap().is_contiguous());
    }
}

#[test]
fn auto_is_cma_where_there_is_a_heap_of_it() {
    let _alone = alone_in_the_lab();
    let region = check(&request(MemoryKind::Auto, SIZE));
    if support::stock_kernel_lacks(support::CMA_HEAPS) {
        let choice = region.auto_choice().unwrap();
        assert_ne!(region.kind(), MemoryKind::Cma);
        assert!(choice.contains("; passed over: cma"), "{choice}");
        return;
    }
    assert_eq!(region.kind(), MemoryKind::Cma);
    assert_eq!(region.auto_choice(), Some("cma, the best kind"));
}

/// Proves that the check of the conformance suite for pages that move can fail.
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
            // The tracepoint only helps during the allocation, so memory of others has no such
            // address.
            _ => assert_eq!(external.address(), Err(&AddressUnknown::PfnMap)),
        }
    }
}

/// Memory that something else allocated, of which the program has only the dma-buf.
#[test]
fn a_dma_buf_of_others_becomes_a_buffer() {
    let _alone = alone_in_the_lab();
    for kind in available(&[MemoryKind::Cma, MemoryKind::System, MemoryKind::Udmabuf]) {
        let region = allocate(&request(kind, SIZE));
        let fd = region.dma_buf().unwrap();
        let handle = BufferHandle::map_dma_buf(fd.try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(handle.len_bytes(), region.size_bytes(), "{kind}");
        let pool = PhysBufferPool::with_handles(vec![handle]);
        let mut config = pool.config();
        config.set_params(None, SIZE as u32, 1, 1);
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        let mut buffer = pool.acquire_free(Wait::No).unwrap();
        buffer.make_mut().map_writable().unwrap().fill(0xd5);
        let seen = region.begin_access(false).unwrap();
        // SAFETY: the region's bytes are mapped as long as the access lives, and nothing writes to them.
        let bytes = unsafe { std::slice::from_raw_parts(seen.ptr(), region.size_bytes()) };
        // The region may be larger, of whole huge pages.
        let bytes = &bytes[..SIZE];
        assert!(bytes.iter().all(|&byte| byte == 0xd5), "{kind}");
        drop(seen);
        drop(buffer);
        pool.set_active(false).unwrap();
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
