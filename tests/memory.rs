// SPDX-License-Identifier: MPL-2.0
//! The memory kinds that exist on the machine that runs the tests.

mod common;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst::prelude::*;
use gstphysmem::handle::BufferHandle;
use gstphysmem::memory::{
    Address, AddressSource, AddressUnknown, ExternalAddress, MemoryError, MemoryKind, Owner,
    PhysAddr, Region, Request, allocator, region_of, register, wrap,
};

fn init() {
    gst::init().expect("GStreamer starts");
}

fn normal(size_bytes: usize) -> Arc<Region> {
    Region::allocate(&Request {
        kind: MemoryKind::Normal,
        size_bytes,
        ..Default::default()
    })
    .expect("normal memory is everywhere")
}

/// A handle over a leaked box, and the number of times that its deleter has run.
fn counted_handle(len_bytes: usize) -> (BufferHandle, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let block = Box::leak(vec![0u8; len_bytes].into_boxed_slice());
    let counter = Arc::clone(&runs);
    // SAFETY: the box is leaked, so it lives until the deleter frees it.
    let handle = unsafe {
        BufferHandle::new(
            NonNull::from(&mut *block).cast(),
            len_bytes,
            move |ptr, len| {
                counter.fetch_add(1, Ordering::SeqCst);
                drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(
                    ptr.as_ptr(),
                    len,
                )));
            },
        )
    };
    (handle, runs)
}

fn borrowed(handle: &BufferHandle) -> Arc<Region> {
    // SAFETY: a borrowed region touches the memory only while the handle lives.
    unsafe {
        Region::external(
            handle.ptr(),
            handle.len_bytes(),
            ExternalAddress::Unknown(AddressUnknown::NotGiven),
            Owner::Borrowed(handle.downgrade()),
            None,
        )
    }
}

/// Reports that a part of a test cannot run here. The line bypasses libtest's capture.
fn report_skip(reason: &str) {
    use std::io::Write;
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let line = format!("SKIPPED {name}: {reason}\n");
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("stderr takes a line");
}

#[test]
fn a_large_page_has_one_extent() {
    init();
    let region = normal(8 << 20);
    let large_page_bytes = region.large_page_bytes();
    let Ok(address) = region.address() else {
        return report_skip("the physical addresses are not shown to this user");
    };
    let page_bytes = common::page_size();
    let n_small = (region.size_bytes() - large_page_bytes) / page_bytes;
    let most = n_small + large_page_bytes / (512 * page_bytes).min(large_page_bytes.max(1));
    let n_extents = address.extents().len();
    assert!(
        n_extents <= most,
        "{n_extents} extents, {large_page_bytes} bytes in large pages"
    );
}

#[test]
fn contiguous_normal_memory_is_one_piece_or_refused_in_words() {
    init();
    for size_bytes in [5000, 1_300_000, 8 << 20] {
        let region = Region::allocate(&Request {
            kind: MemoryKind::Normal,
            size_bytes,
            needs_contiguous: true,
            ..Default::default()
        });
        match region {
            Ok(region) => {
                assert!(region.address().expect("it was looked at").is_contiguous());
                assert!(region.size_bytes() >= size_bytes);
            }
            Err(
                error @ (MemoryError::InPieces { .. }
                | MemoryError::NotContiguous { .. }
                | MemoryError::AddressNeeded { .. }),
            ) => println!("{error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Checks what memory of any kind must do. In the device lab the host checks it too.
fn holds_bytes(kind: MemoryKind) {
    init();
    let request = Request {
        kind,
        size_bytes: 10_000,
        ..Default::default()
    };
    let region = match Region::allocate(&request) {
        Ok(region) => region,
        // Normal memory exists on every machine.
        Err(error) if matches!(kind, MemoryKind::Auto | MemoryKind::Normal) => {
            panic!("{kind}: {error}")
        }
        Err(error) => return report_skip(&error.to_string()),
    };
    assert_eq!(region.kind() == kind, kind != MemoryKind::Auto);
    assert_eq!(region.auto_choice().is_some(), kind == MemoryKind::Auto);
    assert_eq!(region.dma_buf().is_some(), region.kind().has_dma_buf());
    assert!(
        region.size_bytes() >= 10_000 && region.size_bytes().is_multiple_of(common::page_size())
    );
    if let Ok(address) = region.address() {
        assert_eq!(address.len_bytes(), region.size_bytes() as u64);
    }
    let mut mem = wrap(&region, 0, 10_000, None);
    mem.get_mut().unwrap().map_writable().unwrap().fill(0x3c);
    let copy = mem.copy();
    assert!(copy.map_readable().unwrap().iter().all(|&b| b == 0x3c));
    println!("{kind}: {region:?}, {}", region.pin_note());
}

#[test]
fn auto_holds_bytes() {
    holds_bytes(MemoryKind::Auto);
}

#[test]
fn cma_holds_bytes() {
    holds_bytes(MemoryKind::Cma);
}

#[test]
fn system_holds_bytes() {
    holds_bytes(MemoryKind::System);
}

#[test]
fn udmabuf_holds_bytes() {
    holds_bytes(MemoryKind::Udmabuf);
}

#[test]
fn hugepage_holds_bytes() {
    holds_bytes(MemoryKind::Hugepage);
}

#[test]
fn normal_holds_bytes() {
    holds_bytes(MemoryKind::Normal);
}

#[test]
fn heap_of_another_kind_is_refused() {
    init();
    for (kind, heap) in [
        (MemoryKind::Normal, "reserved"),
        (MemoryKind::Hugepage, "hugetlb"),
        (MemoryKind::Udmabuf, "reserved"),
    ] {
        let error = Region::allocate(&Request {
            kind,
            heap: Some(heap),
            size_bytes: 1,
            ..Default::default()
        })
        .unwrap_err();
        assert!(matches!(error, MemoryError::NoSuchHeap { .. }), "{error}");
    }
}

#[test]
fn nothing_is_left_after_deinit() {
    const CHILD: &str = "PHYSMEM_TEST_DEINIT";
    if std::env::var_os(CHILD).is_some() {
        return use_memory_and_deinit();
    }
    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nothing_is_left_after_deinit", "--nocapture"])
        .env(CHILD, "1")
        .env("GST_TRACERS", "leaks")
        .env("GST_DEBUG", "GST_TRACER:7")
        .env("GST_DEBUG_NO_COLOR", "1")
        // Not fatal-warnings, because the tracer warns about the deliberate leak.
        .env("G_DEBUG", "fatal-criticals")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{text}");
    let leaks: Vec<_> = text
        .lines()
        .filter(|line| line.contains("object-alive, type-name=(string)Gst"))
        .collect();
    // The child leaks one memory deliberately, which proves that the tracer works.
    assert_eq!(leaks.len(), 1, "{text}");
    assert!(leaks[0].contains("GstMemory"), "{}", leaks[0]);
}

fn use_memory_and_deinit() {
    init();
    register();
    for kind in [MemoryKind::Auto, MemoryKind::Normal] {
        let mem = allocator(kind).alloc(5000, None).unwrap();
        let (sub, copy) = (mem.share(10..20), mem.copy());
        drop((mem, copy));
        drop(sub.map_readable().unwrap());
    }
    let (handle, runs) = counted_handle(4096);
    let region = borrowed(&handle);
    let sub = wrap(&region, 0, 4096, None).share(..);
    drop(handle);
    assert!(sub.map_readable().is_err());
    drop(sub);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(Arc::strong_count(&region), 1);
    std::mem::forget(gst::Memory::with_size(77));
    // SAFETY: nothing of GStreamer is used afterwards.
    unsafe { gst::deinit() };
}

#[test]
fn map_writes_into_the_region_itself() {
    init();
    let region = normal(3 * 4096);
    let mut mem = wrap(&region, 4096, 8192, None);
    assert_eq!(
        (mem.size(), mem.offset(), mem.maxsize()),
        (8192, 4096, 12288)
    );
    {
        let mut map = mem.get_mut().unwrap().map_writable().unwrap();
        assert_eq!(map.as_mut_ptr(), region.ptr().wrapping_add(4096));
        map.fill(0x5a);
    }
    let access = region.begin_access(false).unwrap();
    // SAFETY: the region is three pages, and nobody writes now.
    unsafe {
        assert_eq!(access.ptr().add(4095).read_volatile(), 0);
        assert_eq!(access.ptr().add(4096).read_volatile(), 0x5a);
        assert_eq!(access.ptr().add(12287).read_volatile(), 0x5a);
    }
}

#[test]
fn shared_memory_leads_back_to_the_region() {
    init();
    let region = normal(8192);
    let mem = wrap(&region, 0, 8192, None);
    let sub = mem.share(100..300);
    let subsub = sub.share(50..);
    for (mem, expected) in [(&mem, 0), (&sub, 100), (&subsub, 150)] {
        let (found, offset) = region_of(mem).unwrap();
        assert!(Arc::ptr_eq(found, &region));
        assert_eq!(offset, expected);
    }
    assert_eq!(subsub.size(), 150);
    assert!(region_of(&gst::Memory::with_size(10)).is_none());
}

#[test]
fn deep_copy_is_ordinary_memory() {
    init();
    let region = normal(4096);
    let mut mem = wrap(&region, 0, 4096, None);
    mem.get_mut().unwrap().map_writable().unwrap().fill(7);
    let copy = mem.copy();
    assert!(region_of(&copy).is_none());
    assert!(copy.is_type("SystemMemory"));
    assert!(copy.map_readable().unwrap().iter().all(|&b| b == 7));
}

#[test]
fn on_free_runs_once_after_the_last_share() {
    init();
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let region = normal(4096);
    let mem = wrap(
        &region,
        0,
        4096,
        Some(Box::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        })),
    );
    let sub = mem.share(1..2);
    drop(mem);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(Arc::strong_count(&region), 2);
    drop(sub);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(Arc::strong_count(&region), 1);
}

#[test]
fn wrap_past_the_end_panics() {
    init();
    let region = normal(1);
    let end = region.size_bytes();
    for (offset, size) in [(0, end + 1), (end, 1), (0, 0), (usize::MAX, 2)] {
        let region = Arc::clone(&region);
        let wrapping = std::panic::AssertUnwindSafe(move || wrap(&region, offset, size, None));
        assert!(std::panic::catch_unwind(wrapping).is_err());
    }
}

#[test]
fn zero_and_absurd_sizes_are_errors() {
    init();
    let allocate = |size_bytes| {
        Region::allocate(&Request {
            kind: MemoryKind::Normal,
            size_bytes,
            ..Default::default()
        })
    };
    assert!(matches!(allocate(0), Err(MemoryError::ZeroSize)));
    for size_bytes in [usize::MAX, usize::MAX / 2 + 1] {
        let error = allocate(size_bytes).unwrap_err();
        assert!(
            matches!(error, MemoryError::LargerThanAddressSpace { .. }),
            "{error}"
        );
    }
    // On a 32-bit machine there may be memory for any size that a pointer can express.
    #[cfg(target_pointer_width = "64")]
    {
        let error = allocate(1 << 50).unwrap_err();
        assert!(matches!(error, MemoryError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn registered_allocators_are_found_and_allocate() {
    init();
    register();
    for name in [
        "PhysMemCma",
        "PhysMemSystem",
        "PhysMemUdmabuf",
        "PhysMemHugepage",
        "PhysMemNormal",
        "PhysMemAuto",
    ] {
        assert!(gst::Allocator::find(Some(name)).is_some(), "{name}");
    }
    let normal = gst::Allocator::find(Some("PhysMemNormal")).unwrap();
    let params = gst::AllocationParams::new(gst::MemoryFlags::ZERO_PREFIXED, 65535, 32, 16);
    let mem = normal.alloc(1000, Some(&params)).unwrap();
    assert_eq!(mem.size(), 1000);
    assert!(mem.is_memory_type::<gst_allocators::FdMemory>());
    let map = mem.map_readable().unwrap();
    assert_eq!((map.as_ptr() as usize - 32) % 65536, 0);
    assert!(normal.alloc(0, None).is_err());
    assert!(allocator(MemoryKind::External).alloc(10, None).is_err());
}

#[test]
fn physical_address_interface_agrees_with_the_region() {
    init();
    let region = normal(4096);
    let mem = wrap(&region, 0, 4096, None);
    let sub = mem.share(8..100);
    let phys = |mem: &gst::MemoryRef| {
        mem.downcast_memory_ref::<gst_allocators::PhysMemory>()
            .expect("our allocators implement GstPhysMemoryAllocator")
            .phys_addr() as u64
    };
    match region.address() {
        Ok(address) => {
            // An address too large for the interface's integer counts as unknown.
            let told = |phys: u64| usize::try_from(phys).map_or(0, |_| phys);
            assert_eq!(phys(&mem), told(address.first().0));
            assert_eq!(phys(&sub), told(address.first().0 + 8));
        }
        Err(reason) => {
            println!("SKIPPED: no address here: {reason}");
            assert_eq!(phys(&mem), 0);
        }
    }
}

#[test]
fn given_address_is_kept_with_its_source() {
    init();
    let backing = normal(8192);
    let address = Address::contiguous(PhysAddr(0x8000_0000), 8192, AddressSource::User).unwrap();
    // SAFETY: the shared owner is the region that maps the memory.
    let region = unsafe {
        Region::external(
            NonNull::new(backing.ptr()).unwrap(),
            8192,
            ExternalAddress::Given(address.clone()),
            Owner::Shared(backing.clone()),
            None,
        )
    };
    assert_eq!(region.address(), Ok(&address));
    assert_eq!(region.kind(), MemoryKind::External);
    assert!(region.is_external() && region.is_pinned() && region.fd().is_none());
    let mem = wrap(&region, 4096, 4096, None);
    assert!(mem.is_type("PhysMemExternal"));
    let phys = mem
        .downcast_memory_ref::<gst_allocators::PhysMemory>()
        .unwrap();
    assert_eq!(phys.phys_addr(), 0x8000_1000);
    let (a, b) = (mem.share(0..100), mem.share(100..200));
    assert_eq!(a.is_span(&b), Some(0));
    drop((a, b, mem, region));
    assert_eq!(Arc::strong_count(&backing), 1);
}

#[test]
fn looked_up_address_of_external_memory_is_that_of_its_pages() {
    init();
    let backing = normal(4 * 4096);
    // SAFETY: the shared owner is the region that maps the memory.
    let region = unsafe {
        Region::external(
            NonNull::new(backing.ptr().add(4096 + 100)).unwrap(),
            5000,
            ExternalAddress::LookUp,
            Owner::Shared(backing.clone()),
            None,
        )
    };
    assert!(!region.is_pinned());
    match (backing.address(), region.address()) {
        (Ok(whole), Ok(part)) => assert_eq!(Some(part), whole.slice(4196, 5000).as_ref()),
        (Err(whole), Err(part)) => assert_eq!(whole, part),
        other => panic!("one is known, the other is not: {other:?}"),
    }
}

#[test]
fn freed_handle_makes_maps_fail() {
    init();
    let (handle, runs) = counted_handle(4096);
    let region = borrowed(&handle);
    let mem = wrap(&region, 0, 4096, None);
    drop(mem.map_readable().unwrap());
    assert!(region.is_alive());
    drop(handle);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert!(!region.is_alive());
    assert!(mem.map_readable().is_err());
    assert!(region.begin_access(true).is_err());
}

#[test]
fn deleter_waits_for_the_end_of_a_map() {
    init();
    let (handle, runs) = counted_handle(4096);
    let region = borrowed(&handle);
    let mem = wrap(&region, 0, 4096, None);
    let map = mem.map_readable().unwrap();
    drop(handle);
    assert_eq!(runs.load(Ordering::SeqCst), 0, "mapped memory was freed");
    assert!(map.iter().all(|&b| b == 0));
    drop(map);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn held_handle_is_freed_with_the_last_memory() {
    init();
    let (handle, runs) = counted_handle(4096);
    let ptr = handle.ptr();
    // SAFETY: the region owns the handle, and so the memory.
    let region = unsafe {
        Region::external(
            ptr,
            4096,
            ExternalAddress::LookUp,
            Owner::Held(handle),
            None,
        )
    };
    let mem = wrap(&region, 0, 4096, None);
    drop(region);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    drop(mem);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}
