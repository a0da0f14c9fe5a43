// SPDX-License-Identifier: MPL-2.0
//! Pools over memory of the application, and what happens when that memory is freed.

use std::{
    collections::HashSet,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gst::prelude::*;
use gstphysmem::{
    handle::BufferHandle,
    memory::{Address, AddressSource, AddressUnknown, Extent, MemoryKind, PhysAddr},
    meta::PhysMemMeta,
    pool::{BufferState, MemoryBlock, PhysBufferPool, PoolError, Wait},
};

const SIZE: usize = 8192;

/// A handle over a page-aligned block, and the number of times that its deleter has run.
fn handle() -> (BufferHandle, Arc<AtomicUsize>) {
    let layout = std::alloc::Layout::from_size_align(SIZE, 4096).unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    // SAFETY: the layout is not empty; the deleter frees with the same layout.
    let handle = unsafe {
        let block = NonNull::new(std::alloc::alloc_zeroed(layout)).unwrap();
        BufferHandle::new(block, SIZE, move |ptr, _| {
            counter.fetch_add(1, Ordering::SeqCst);
            std::alloc::dealloc(ptr.as_ptr(), layout);
        })
    };
    (handle, runs)
}

fn handles(count: usize) -> (Vec<BufferHandle>, Vec<Arc<AtomicUsize>>) {
    (0..count).map(|_| handle()).unzip()
}

fn activate(pool: &PhysBufferPool, size: usize) {
    let mut config = pool.config();
    config.set_params(None, size as u32, 0, 0);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
}

fn borrowing_pool(handles: &[BufferHandle]) -> PhysBufferPool {
    gst::init().unwrap();
    let pool = PhysBufferPool::with_borrowed_handles(handles);
    activate(&pool, SIZE);
    pool
}

fn id(buffer: &gst::BufferRef) -> u32 {
    buffer.meta::<PhysMemMeta>().unwrap().id()
}

fn runs(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

fn waits(pool: &PhysBufferPool) -> u64 {
    let stats = pool.property::<gst::Structure>("stats");
    stats.get("waits").unwrap()
}

/// The index in `handles` of the one that has the buffer's memory.
fn owner_of(buffer: &gst::BufferRef, handles: &[BufferHandle]) -> usize {
    let ptr = buffer
        .meta::<PhysMemMeta>()
        .unwrap()
        .region()
        .unwrap()
        .ptr();
    handles
        .iter()
        .position(|h| h.ptr().as_ptr() == ptr)
        .unwrap()
}

#[test]
fn regions_keep_the_address_given_or_have_it_looked_up() {
    gst::init().unwrap();
    let block = || {
        let block: &'static mut [u8] = Box::leak(vec![0; SIZE].into_boxed_slice());
        NonNull::from(block).cast()
    };
    let given = MemoryBlock {
        virt: block(),
        phys: Some(PhysAddr(0x4000_0000)),
        size_bytes: SIZE,
    };
    let unknown = MemoryBlock {
        virt: block(),
        phys: None,
        size_bytes: SIZE,
    };
    // SAFETY: both blocks are leaked.
    let pool = unsafe { PhysBufferPool::with_regions(&[given, unknown]) };
    activate(&pool, SIZE - 100);
    let buffers = [
        pool.acquire_buffer(None).unwrap(),
        pool.acquire_buffer(None).unwrap(),
    ];
    let mut seen = HashSet::new();
    for buffer in &buffers {
        let meta = buffer.meta::<PhysMemMeta>().unwrap();
        assert_eq!(meta.kind(), MemoryKind::External);
        assert_eq!(buffer.size(), SIZE - 100);
        if seen.insert(meta.region().unwrap().ptr())
            && meta.region().unwrap().ptr() == given.virt.as_ptr()
        {
            let address = meta.address().unwrap();
            assert_eq!(address.first(), PhysAddr(0x4000_0000));
            assert_eq!(address.len_bytes(), SIZE as u64 - 100);
            assert_eq!(address.source(), AddressSource::User);
            assert!(meta.is_contiguous() && meta.is_pinned());
        } else {
            match meta.address() {
                Ok(address) => assert_eq!(address.source(), AddressSource::Pagemap),
                Err(reason) => assert!(
                    matches!(reason, AddressUnknown::NoPermission(_)),
                    "{reason}"
                ),
            }
            assert!(!meta.is_pinned(), "nobody pinned these pages");
        }
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_pool_over_nothing_is_refused() {
    gst::init().unwrap();
    let pool = PhysBufferPool::with_handles(Vec::new());
    let mut config = pool.config();
    config.set_params(None, 64, 0, 0);
    assert!(pool.set_config(config).is_err());
    assert!(pool.last_error().unwrap().contains("no memory"));
}

#[test]
fn what_is_no_dma_buf_is_not_mapped_as_one() {
    gst::init().unwrap();
    let file = tempfile::tempfile().unwrap();
    let error = BufferHandle::map_dma_buf(file.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    let pool = PhysBufferPool::builder().kind(MemoryKind::External).build();
    for (fd, reason) in [(-1, "EBADF"), (0x7fff_ffff, "EBADF")] {
        assert!(!pool.emit_by_name::<bool>("add-dmabuf", &[&fd]));
        let error = pool.last_error().unwrap();
        assert!(
            error.contains(&fd.to_string()) && error.contains(reason),
            "{error}"
        );
    }
}

#[test]
fn an_owning_pool_runs_each_deleter_once_when_all_is_gone() {
    gst::init().unwrap();
    let (handles, counters) = handles(3);
    let pool = PhysBufferPool::with_handles(handles);
    activate(&pool, SIZE);
    let mut kept = pool.acquire_buffer(None).unwrap();
    pool.set_active(false).unwrap();
    drop(pool);
    let total = || counters.iter().map(|c| runs(c)).sum::<usize>();
    assert_eq!(total(), 0, "the buffer that is out keeps the pool");
    kept.make_mut().map_writable().unwrap().fill(1);
    drop(kept);
    assert_eq!(total(), 3);
    assert!(counters.iter().all(|c| runs(c) == 1));
}

#[test]
fn an_owning_pool_can_be_stopped_and_started() {
    gst::init().unwrap();
    let (handles, counters) = handles(2);
    let pool = PhysBufferPool::with_handles(handles);
    activate(&pool, SIZE);
    drop(pool.acquire_buffer(None).unwrap());
    pool.set_active(false).unwrap();
    pool.set_active(true).unwrap();
    assert_eq!(pool.free_count(), 2);
    drop(pool.acquire_buffer(None).unwrap());
    assert!(counters.iter().all(|c| runs(c) == 0));
}

#[test]
fn the_owner_can_say_where_the_block_is_piece_by_piece() {
    gst::init().unwrap();
    let pieces = [0x8000u64, 0x2000].map(|phys| Extent {
        phys: PhysAddr(phys),
        len_bytes: 4096,
    });
    let address = Address::new(pieces.to_vec(), AddressSource::User);
    let handle = handle().0.with_address(address);
    let pool = borrowing_pool(std::slice::from_ref(&handle));
    let buffer = pool.acquire_buffer(None).unwrap();
    let meta = buffer.meta::<PhysMemMeta>().unwrap();
    assert_eq!(meta.extents(), pieces);
    assert!(!meta.is_contiguous());
}

/// The dma-buf is a memfd here, which can be exported, but takes no DMA_BUF_IOCTL_SYNC.
#[test]
fn the_owner_can_give_a_dma_buf_for_the_block() {
    use std::os::fd::AsFd;
    gst::init().unwrap();
    let dma_buf = || {
        let memfd = tempfile::tempfile().unwrap();
        let inode = nix::sys::stat::fstat(&memfd).unwrap().st_ino;
        (memfd.into(), inode)
    };
    let exported = |pool: &PhysBufferPool| {
        let buffer = pool.acquire_buffer(None).unwrap();
        assert!(
            buffer
                .peek_memory(0)
                .is_memory_type::<gst_allocators::DmaBufMemory>()
        );
        let exported = pool.export_dmabuf(id(&buffer)).unwrap();
        nix::sys::stat::fstat(exported.as_fd()).unwrap().st_ino
    };
    let (fd, inode) = dma_buf();
    let pool = PhysBufferPool::with_handles(vec![handle().0.with_dma_buf(fd)]);
    activate(&pool, SIZE);
    assert_eq!(exported(&pool), inode);
    let (fd, inode) = dma_buf();
    let (borrowed, counter) = handle();
    let borrowed = borrowed.with_dma_buf(fd);
    let pool = borrowing_pool(std::slice::from_ref(&borrowed));
    assert_eq!(exported(&pool), inode);
    let buffer = pool.acquire_buffer(None).unwrap();
    drop(borrowed);
    assert_eq!(runs(&counter), 1);
    assert!(buffer.map_readable().is_err());
}

#[test]
fn an_address_of_a_part_of_the_block_is_refused_in_words() {
    gst::init().unwrap();
    let half = Address::contiguous(PhysAddr(0x8000), SIZE as u64 / 2, AddressSource::User);
    let handle = handle().0.with_address(half);
    let pool = borrowing_pool(std::slice::from_ref(&handle));
    let buffer = pool.acquire_buffer(None).unwrap();
    let meta = buffer.meta::<PhysMemMeta>().unwrap();
    let reason = meta.address().unwrap_err().to_string();
    assert!(reason.contains("4096 of its 8192 bytes"), "{reason}");
    assert!(!meta.is_pinned() && meta.phys_addr().is_none());
}

#[test]
fn an_address_past_the_end_of_all_memory_is_refused_in_words() {
    gst::init().unwrap();
    let refused = |pool: &PhysBufferPool| {
        activate(pool, SIZE);
        let buffer = pool.acquire_buffer(None).unwrap();
        let meta = buffer.meta::<PhysMemMeta>().unwrap();
        let reason = meta.address().unwrap_err().to_string();
        assert!(
            reason.contains("past the last physical address"),
            "{reason}"
        );
        assert!(!meta.is_pinned() && meta.phys_addr().is_none());
    };
    let beyond = PhysAddr(u64::MAX - 5);
    refused(&PhysBufferPool::with_handles(vec![
        handle().0.with_phys_addr(beyond),
    ]));
    let block: &'static mut [u8] = Box::leak(vec![0; SIZE].into_boxed_slice());
    let block = MemoryBlock {
        virt: NonNull::from(block).cast(),
        phys: Some(beyond),
        size_bytes: SIZE,
    };
    // SAFETY: the block is leaked.
    refused(&unsafe { PhysBufferPool::with_regions(&[block]) });
}

#[test]
fn a_dropped_handle_is_never_handed_out_again() {
    let (mut handles, counters) = handles(3);
    let pool = borrowing_pool(&handles);
    // Each buffer has been out once, so the pool keeps a GstBuffer for each.
    let out: Vec<_> = (0..3).map(|_| pool.acquire_buffer(None).unwrap()).collect();
    let dead = owner_of(&out[1], &handles);
    let dead_id = id(&out[1]);
    drop(out);
    drop(handles.remove(dead));
    assert_eq!(runs(&counters[dead]), 1, "nothing kept the block");
    assert_eq!((pool.free_count(), pool.total_count()), (2, 2));
    assert!(!pool.validate(dead_id) && !pool.validate_all());
    assert_eq!(pool.state(dead_id), None);
    for _ in 0..10 {
        let pair = [
            pool.acquire_free(Wait::No).unwrap(),
            pool.acquire_free(Wait::No).unwrap(),
        ];
        assert!(pair.iter().all(|b| id(b) != dead_id));
        assert!(matches!(
            pool.acquire_free(Wait::No),
            Err(PoolError::NoBuffer { .. })
        ));
    }
    let stats = pool.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u32>("dead").unwrap(), 1);
    assert_eq!(stats.get::<u32>("total").unwrap(), 2);
}

#[test]
fn a_buffer_that_is_out_cannot_be_mapped_after_its_handle_went() {
    let (handle, counter) = handle();
    let pool = borrowing_pool(std::slice::from_ref(&handle));
    let buffer = pool.acquire_buffer(None).unwrap();
    let sub = buffer
        .copy_region(
            gst::BufferCopyFlags::MEMORY | gst::BufferCopyFlags::META,
            100..200,
        )
        .unwrap();
    assert!(buffer.map_readable().is_ok() && sub.map_readable().is_ok());
    drop(handle);
    assert_eq!(runs(&counter), 1);
    assert!(buffer.map_readable().is_err());
    assert!(sub.map_readable().is_err());
    assert!(buffer.copy_deep().is_err());
    assert_eq!(pool.free_count(), 0);
    drop((buffer, sub));
    assert_eq!((pool.free_count(), pool.total_count()), (0, 0));
}

#[test]
fn the_deleter_waits_for_the_end_of_a_map() {
    let (handle, counter) = handle();
    let pool = borrowing_pool(std::slice::from_ref(&handle));
    let mut buffer = pool.acquire_buffer(None).unwrap();
    {
        let mut map = buffer.make_mut().map_writable().unwrap();
        drop(handle);
        assert_eq!(runs(&counter), 0);
        map.fill(0xaa); // the block still exists
        assert!(map.iter().all(|&b| b == 0xaa));
    }
    assert_eq!(runs(&counter), 1);
    assert!(buffer.map_readable().is_err());
}

#[test]
fn a_dead_buffer_leaves_the_filled_queue() {
    let (mut handles, counters) = handles(3);
    let pool = borrowing_pool(&handles);
    let out: Vec<_> = (0..3)
        .map(|_| pool.acquire_free(Wait::No).unwrap())
        .collect();
    let ids: Vec<_> = out.iter().map(|b| id(b)).collect();
    let dead = owner_of(&out[1], &handles);
    for buffer in out {
        pool.submit_filled(buffer).unwrap();
    }
    drop(handles.remove(dead));
    assert_eq!(runs(&counters[dead]), 1);
    assert_eq!(pool.filled_count(), 2);
    assert!(pool.buffer_by_id(ids[1]).is_none());
    for expected in [ids[0], ids[2]] {
        let buffer = pool.acquire_filled(Wait::No).unwrap();
        assert_eq!(id(&buffer), expected);
        pool.release_filled(buffer).unwrap();
    }
    assert!(matches!(
        pool.acquire_filled(Wait::No),
        Err(PoolError::NoBuffer { .. })
    ));
    assert_eq!((pool.free_count(), pool.total_count()), (2, 2));
}

#[test]
fn a_dead_buffer_is_not_submitted() {
    let (handle, _) = handle();
    let pool = borrowing_pool(std::slice::from_ref(&handle));
    let buffer = pool.acquire_free(Wait::No).unwrap();
    let expected = id(&buffer);
    drop(handle);
    match pool.submit_filled(buffer) {
        Err(PoolError::Gone { id }) => assert_eq!(id, expected),
        other => panic!("{other:?}"),
    }
    match pool.export_dmabuf(expected) {
        Err(PoolError::Gone { id }) => assert_eq!(id, expected),
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.filled_count(), 0);
}

#[test]
fn a_consumer_can_release_what_died_in_its_hands() {
    let (mut handles, _) = handles(2);
    let pool = borrowing_pool(&handles);
    pool.submit_filled(pool.acquire_free(Wait::No).unwrap())
        .unwrap();
    let buffer = pool.acquire_filled(Wait::No).unwrap();
    drop(handles.remove(owner_of(&buffer, &handles)));
    assert!(buffer.map_readable().is_err());
    pool.release_filled(buffer).unwrap();
    assert_eq!((pool.free_count(), pool.total_count()), (1, 1));
}

#[test]
fn who_waits_for_the_last_buffer_is_woken_by_its_death() {
    for wait in [Wait::Forever, Wait::AtMost(Duration::from_secs(3600))] {
        let (handle, _) = handle();
        let pool = borrowing_pool(std::slice::from_ref(&handle));
        let held = pool.acquire_free(Wait::No).unwrap();
        let before = waits(&pool);
        let producer = {
            let pool = pool.clone();
            std::thread::spawn(move || pool.acquire_free(wait).map(|_| ()))
        };
        let consumer = {
            let pool = pool.clone();
            std::thread::spawn(move || pool.acquire_filled(wait).map(|_| ()))
        };
        while waits(&pool) == before {
            std::thread::yield_now();
        }
        drop(handle);
        assert!(matches!(
            producer.join().unwrap(),
            Err(PoolError::AllGone { .. })
        ));
        assert!(matches!(
            consumer.join().unwrap(),
            Err(PoolError::AllGone { .. })
        ));
        drop(held);
        assert!(pool.last_error().unwrap().contains("freed by its owner"));
    }
}

#[test]
fn who_waits_goes_on_waiting_while_another_buffer_may_come() {
    let (mut handles, _) = handles(2);
    let pool = borrowing_pool(&handles);
    let mut held = vec![
        pool.acquire_free(Wait::No).unwrap(),
        pool.acquire_free(Wait::No).unwrap(),
    ];
    let waiter = {
        let pool = pool.clone();
        std::thread::spawn(move || pool.acquire_free(Wait::Forever).map(|b| id(&b)))
    };
    while waits(&pool) == 0 {
        std::thread::yield_now();
    }
    drop(handles.remove(owner_of(&held[0], &handles)));
    drop(held.remove(0));
    let survivor = id(&held[0]);
    drop(held);
    assert_eq!(waiter.join().unwrap().unwrap(), survivor);
}

#[test]
fn the_deleter_may_use_the_pool() {
    gst::init().unwrap();
    let slot = Arc::new(std::sync::OnceLock::<PhysBufferPool>::new());
    let seen = Arc::new(AtomicUsize::new(usize::MAX));
    let (pool_of_deleter, seen_by_deleter) = (Arc::clone(&slot), Arc::clone(&seen));
    let block = Box::leak(Box::new([0u8; SIZE]));
    // SAFETY: the block is leaked.
    let handle = unsafe {
        BufferHandle::new(NonNull::from(block).cast(), SIZE, move |_, _| {
            if let Some(pool) = pool_of_deleter.get() {
                seen_by_deleter.store(pool.free_count(), Ordering::SeqCst);
            }
        })
    };
    let pool = borrowing_pool(std::slice::from_ref(&handle));
    assert!(slot.set(pool.clone()).is_ok());
    let buffer = pool.acquire_free(Wait::No).unwrap();
    let map = buffer.into_mapped_buffer_readable().unwrap();
    drop(handle);
    assert_eq!(runs(&seen), usize::MAX);
    drop(map); // runs the deleter, on this thread, in gst_buffer_unmap
    assert_eq!(runs(&seen), 0);
}

#[test]
fn two_pools_may_borrow_one_handle() {
    let (handle, counter) = handle();
    let (a, b) = (
        borrowing_pool(std::slice::from_ref(&handle)),
        borrowing_pool(std::slice::from_ref(&handle)),
    );
    drop(handle);
    assert_eq!(runs(&counter), 1);
    assert_eq!((a.total_count(), b.total_count()), (0, 0));
}

#[test]
fn a_pool_that_went_before_its_handle_leaves_it_alone() {
    let (handle, counter) = handle();
    drop(borrowing_pool(std::slice::from_ref(&handle)));
    assert_eq!(runs(&counter), 0);
    drop(handle);
    assert_eq!(runs(&counter), 1);
}

#[test]
fn ids_and_states_hold_for_external_memory_too() {
    let (handle, _) = handle();
    let pool = borrowing_pool(std::slice::from_ref(&handle));
    let buffer = pool.acquire_free(Wait::No).unwrap();
    let id = id(&buffer);
    assert_eq!(pool.state(id), Some(BufferState::LockedByProducer));
    assert!(matches!(
        pool.export_dmabuf(id),
        Err(PoolError::NoDmaBuf {
            kind: MemoryKind::External,
            ..
        })
    ));
    let description = PhysBufferPool::describe(&buffer).unwrap();
    assert_eq!(description.get::<&str>("ownership").unwrap(), "external");
}

/// Row D4: GPU memory behind a handle whose deleter is the GPU's own function. With CUDA,
/// `GpuAllocation::new` would call cudaMallocManaged, and `free` cudaFree; here both use ordinary
/// memory, so that the test runs without a GPU.
mod gpu {
    use super::*;

    pub struct GpuAllocation(pub NonNull<u8>);

    impl GpuAllocation {
        pub fn new(size_bytes: usize) -> Self {
            let block: &'static mut [u8] = Box::leak(vec![0; size_bytes].into_boxed_slice());
            Self(NonNull::from(block).cast())
        }
    }

    /// Stands for cudaFree.
    ///
    /// # Safety
    /// `ptr` comes from [`GpuAllocation::new`] with this size, and is freed once.
    pub unsafe fn free(ptr: NonNull<u8>, size_bytes: usize) {
        let block = std::ptr::slice_from_raw_parts_mut(ptr.as_ptr(), size_bytes);
        // SAFETY: `new` leaked this very Box.
        drop(unsafe { Box::from_raw(block) });
    }
}

#[test]
fn gpu_memory_sits_behind_a_handle_whose_deleter_is_the_gpus_free() {
    gst::init().unwrap();
    let freed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&freed);
    let allocation = gpu::GpuAllocation::new(SIZE);
    // SAFETY: the allocation is managed memory, mapped for the CPU too until freed.
    let handle = unsafe {
        BufferHandle::new(allocation.0, SIZE, move |ptr, len| {
            gpu::free(ptr, len);
            counter.fetch_add(1, Ordering::SeqCst);
        })
    };
    let pool = PhysBufferPool::with_handles(vec![handle]);
    activate(&pool, SIZE);
    let buffer = pool.acquire_free(Wait::No).unwrap();
    pool.submit_filled(buffer).unwrap();
    pool.release_filled(pool.acquire_filled(Wait::No).unwrap())
        .unwrap();
    pool.set_active(false).unwrap();
    drop(pool);
    assert_eq!(runs(&freed), 1);
}
