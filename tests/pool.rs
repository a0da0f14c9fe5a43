// SPDX-License-Identifier: MPL-2.0
//! The pool through its public API and through plain GstBufferPool, on memory
//! that every machine has.

mod common;

use std::{
    collections::HashSet,
    ptr::NonNull,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_video::prelude::*;
use gstphysmem::{
    layout::Layout,
    memory::{AddressUnknown, ExternalAddress, MemoryKind, Owner, PhysAddr, Region, region_of},
    meta::PhysMemMeta,
    pool::{BufferState, MemoryBlock, PhysBufferPool, PoolError, Reuse, Slots, Wait},
};

fn active_pool(size: u32, min: u32, max: u32) -> PhysBufferPool {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    configure(&pool, None, size, min, max);
    pool.set_active(true).unwrap();
    pool
}

fn configure(pool: &PhysBufferPool, caps: Option<&gst::Caps>, size: u32, min: u32, max: u32) {
    let mut config = pool.config();
    config.set_params(caps, size, min, max);
    pool.set_config(config).unwrap();
}

fn id(buffer: &gst::BufferRef) -> u32 {
    buffer.meta::<PhysMemMeta>().unwrap().id()
}

fn dont_wait() -> gst::BufferPoolAcquireParams {
    gst::BufferPoolAcquireParams::with_flags(gst::BufferPoolAcquireFlags::DONTWAIT)
}

fn bgrx_info(width: u32, height: u32) -> gst_video::VideoInfo {
    gst_video::VideoInfo::builder(gst_video::VideoFormat::Bgrx, width, height)
        .build()
        .unwrap()
}

fn bgrx(width: u32, height: u32) -> gst::Caps {
    bgrx_info(width, height).to_caps().unwrap()
}

/// `count` pages of one leaked block, as a device's memory would be.
fn pages(count: usize, size: usize) -> Vec<Arc<Region>> {
    (0..count)
        .map(|_| {
            let block: &'static mut [u8] = Box::leak(vec![0; size].into_boxed_slice());
            let ptr = NonNull::new(block.as_mut_ptr()).unwrap();
            // SAFETY: leaked, so mapped for ever.
            unsafe {
                Region::external(
                    ptr,
                    size,
                    ExternalAddress::Unknown(AddressUnknown::NotGiven),
                    Owner::Forever,
                    None,
                )
            }
        })
        .collect()
}

#[test]
fn every_buffer_says_where_it_is_or_why_not() {
    let pool = active_pool(100_000, 3, 3);
    let buffers: Vec<_> = (0..3).map(|_| pool.acquire_buffer(None).unwrap()).collect();
    let mut ids = HashSet::new();
    for buffer in &buffers {
        let meta = buffer.meta::<PhysMemMeta>().unwrap();
        assert!(meta.id() != 0 && ids.insert(meta.id()));
        assert_eq!(meta.size_bytes(), 100_000);
        assert_eq!(meta.kind(), MemoryKind::Normal);
        match meta.address() {
            Ok(address) => {
                let bytes: u64 = meta.extents().iter().map(|e| e.len_bytes).sum();
                assert_eq!(bytes, 100_000);
                assert_eq!(meta.phys_addr(), Some(address.first()));
            }
            Err(reason) => assert!(
                matches!(reason, AddressUnknown::NoPermission(_)),
                "{reason}"
            ),
        }
    }
}

#[test]
fn copies_keep_the_meta_only_with_the_same_whole_memory() {
    let pool = active_pool(8192, 1, 1);
    let buffer = pool.acquire_buffer(None).unwrap();
    assert_eq!(id(&buffer.copy()), id(&buffer), "a shallow copy shares");
    let deep = buffer.copy_deep().unwrap();
    assert!(
        deep.meta::<PhysMemMeta>().is_none(),
        "a deep copy is elsewhere"
    );
    let part = buffer
        .copy_region(
            gst::BufferCopyFlags::MEMORY | gst::BufferCopyFlags::META,
            4096..,
        )
        .unwrap();
    assert!(
        part.meta::<PhysMemMeta>().is_none(),
        "a part is not the whole"
    );
}

#[test]
fn video_alignment_is_in_the_buffers_meta() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(Some(&bgrx(100, 50)), 0, 1, 2);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
    config.set_video_alignment(&gst_video::VideoAlignment::new(4, 2, 8, 8, &[63; 4]));
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let buffer = pool.acquire_buffer(None).unwrap();
    let meta = buffer.meta::<gst_video::VideoMeta>().unwrap();
    assert_eq!(meta.stride()[0] % 64, 0);
    assert!(meta.stride()[0] >= (100 + 16) * 4);
    assert!(meta.offset()[0] >= 4 * meta.stride()[0] as usize);
    assert!(buffer.size() >= 56 * meta.stride()[0] as usize);
}

#[test]
fn padded_rows_without_video_meta_are_refused_and_the_config_says_what_is_missing() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(Some(&bgrx(100, 50)), 0, 1, 2);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
    config.set_video_alignment(&gst_video::VideoAlignment::new(0, 0, 0, 8, &[63; 4]));
    assert!(pool.set_config(config).is_err());
    let corrected = pool.config();
    assert!(corrected.has_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META));
    pool.set_config(corrected).unwrap();
}

#[test]
fn at_the_maximum_dontwait_says_eos_and_a_release_helps() {
    let pool = active_pool(4096, 0, 2);
    let first = pool.acquire_buffer(None).unwrap();
    let _second = pool.acquire_buffer(None).unwrap();
    assert_eq!(
        pool.acquire_buffer(Some(&dont_wait())).unwrap_err(),
        gst::FlowError::Eos
    );
    let first_id = id(&first);
    drop(first);
    let again = pool.acquire_buffer(Some(&dont_wait())).unwrap();
    assert_eq!(id(&again), first_id);
}

#[test]
fn flushing_wakes_a_waiter_and_the_pool_works_afterwards() {
    let pool = active_pool(4096, 1, 1);
    let held = pool.acquire_buffer(None).unwrap();
    let waiter = {
        let pool = pool.clone();
        std::thread::spawn(move || pool.acquire_buffer(None).map(|_| ()))
    };
    while pool
        .property::<gst::Structure>("stats")
        .get::<u64>("waits")
        .unwrap()
        == 0
    {
        std::thread::yield_now();
    }
    pool.set_flushing(true);
    assert_eq!(waiter.join().unwrap(), Err(gst::FlowError::Flushing));
    pool.set_flushing(false);
    drop(held);
    pool.acquire_buffer(None).unwrap();
}

#[test]
fn several_activations_with_other_sizes() {
    let pool = active_pool(4096, 1, 2);
    let first = id(&pool.acquire_buffer(None).unwrap());
    pool.set_active(false).unwrap();
    assert_eq!(pool.total_count(), 0, "stopping frees owned memory");
    configure(&pool, None, 123_456, 2, 2);
    pool.set_active(true).unwrap();
    let buffer = pool.acquire_buffer(None).unwrap();
    assert_eq!(buffer.size(), 123_456);
    assert_ne!(id(&buffer), first);
}

#[test]
fn a_buffer_outlives_its_pool() {
    let pool = active_pool(4096, 1, 1);
    let mut buffer = pool.acquire_buffer(None).unwrap();
    pool.set_active(false).unwrap();
    drop(pool);
    buffer.make_mut().map_writable().unwrap().fill(7);
    assert!(buffer.map_readable().unwrap().iter().all(|&b| b == 7));
}

#[test]
fn memory_that_somebody_kept_is_not_handed_out_until_it_is_free() {
    let pool = active_pool(4096, 1, 1);
    let mut buffer = pool.acquire_buffer(None).unwrap();
    let address = buffer.map_readable().unwrap().as_ptr();
    let memory = buffer.make_mut().memory(0).unwrap();
    buffer.make_mut().remove_all_memory();
    drop(buffer);
    assert_eq!(
        pool.acquire_buffer(Some(&dont_wait())).unwrap_err(),
        gst::FlowError::Eos
    );
    drop(memory);
    let again = pool.acquire_buffer(Some(&dont_wait())).unwrap();
    assert_eq!(again.size(), 4096);
    assert_eq!(again.map_readable().unwrap().as_ptr(), address);
}

#[test]
fn memory_that_was_freed_before_the_buffer_comes_back_at_once() {
    let pool = active_pool(4096, 1, 1);
    let mut buffer = pool.acquire_buffer(None).unwrap();
    buffer.make_mut().remove_all_memory();
    drop(buffer);
    assert_eq!(
        pool.acquire_buffer(Some(&dont_wait())).unwrap().size(),
        4096
    );
}

#[test]
fn what_a_peer_did_to_a_buffer_is_gone_after_its_release() {
    let pool = active_pool(4096, 1, 1);
    let mut buffer = pool.acquire_buffer(None).unwrap();
    {
        let buffer = buffer.make_mut();
        buffer.set_pts(gst::ClockTime::SECOND);
        buffer.set_flags(gst::BufferFlags::DISCONT);
        buffer.resize(1000..2000).unwrap();
        gst_video::VideoCropMeta::add(buffer, (0, 0, 1, 1));
    }
    drop(buffer);
    let buffer = pool.acquire_buffer(None).unwrap();
    assert_eq!(buffer.size(), 4096);
    assert_eq!(buffer.pts(), None);
    assert!(buffer.flags().is_empty());
    assert!(buffer.meta::<gst_video::VideoCropMeta>().is_none());
    assert_eq!(pool.total_count(), 1);
}

#[test]
fn the_four_verbs_hand_buffers_over_in_order() {
    let pool = active_pool(64, 3, 3);
    let mut sent = Vec::new();
    for _ in 0..3 {
        let buffer = pool.acquire_free(Wait::No).unwrap();
        sent.push(id(&buffer));
        pool.submit_filled(buffer).unwrap();
    }
    assert_eq!((pool.free_count(), pool.filled_count()), (0, 3));
    for &expected in &sent {
        let buffer = pool.acquire_filled(Wait::No).unwrap();
        assert_eq!(id(&buffer), expected);
        assert_eq!(pool.state(expected), Some(BufferState::LockedByConsumer));
        pool.release_filled(buffer).unwrap();
        assert_eq!(pool.state(expected), Some(BufferState::Idle));
    }
    assert_eq!(pool.free_count(), 3);
}

#[test]
fn misuse_is_refused_by_name_and_changes_nothing() {
    let pool = active_pool(64, 1, 2);
    let buffer = pool.acquire_free(Wait::No).unwrap();
    let early = pool.release_filled(buffer.clone()).unwrap_err().to_string();
    assert!(
        early.contains("release-filled") && early.contains("locked-by-producer"),
        "{early}"
    );
    assert!(early.contains(&id(&buffer).to_string()), "{early}");
    pool.submit_filled(buffer.clone()).unwrap();
    assert!(matches!(
        pool.submit_filled(buffer.clone()),
        Err(PoolError::IllegalStep(_))
    ));
    assert_eq!(pool.filled_count(), 1);
    let taken = pool.acquire_filled(Wait::No).unwrap();
    pool.release_filled(taken.clone()).unwrap();
    assert!(matches!(
        pool.release_filled(taken),
        Err(PoolError::IllegalStep(_))
    ));
    drop(buffer);
    assert_eq!(pool.free_count(), 1);
}

#[test]
fn a_buffer_that_is_not_the_pools_is_refused_by_name() {
    let (pool, other) = (active_pool(64, 1, 1), active_pool(64, 1, 1));
    let own = pool.acquire_free(Wait::No).unwrap();
    let foreign = other.acquire_free(Wait::No).unwrap();
    let text = |buffer: &gst::Buffer| {
        let id = id(buffer);
        format!(
            "buffer {id} belongs to another pool than {}, or is a copy of one",
            pool.name()
        )
    };
    for buffer in [foreign, own.copy()] {
        let expected = text(&buffer);
        let submitted = pool.submit_filled(buffer.clone()).unwrap_err();
        assert_eq!(submitted.to_string(), expected);
        let released = pool.release_filled(buffer).unwrap_err();
        assert_eq!(released.to_string(), expected);
    }
    for buffer in [gst::Buffer::new(), own.copy_deep().unwrap()] {
        let refused = pool.submit_filled(buffer).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the buffer is no pool's: it has no GstPhysMemMeta"
        );
    }
    pool.submit_filled(own).unwrap();
}

#[test]
fn a_buffer_without_its_memory_is_not_submitted() {
    let pool = active_pool(64, 3, 3);
    let acquire = || pool.acquire_free(Wait::No).unwrap();
    let (mut emptied, mut replaced, mut longer) = (acquire(), acquire(), acquire());
    emptied.make_mut().remove_all_memory();
    let other = gst::Memory::with_size(64);
    replaced.make_mut().replace_all_memory(other);
    longer.make_mut().append_memory(gst::Memory::with_size(64));
    for buffer in [emptied, replaced, longer] {
        let expected = id(&buffer);
        match pool.submit_filled(buffer) {
            Err(refused @ PoolError::Replaced { id }) => {
                assert_eq!(id, expected);
                let text = refused.to_string();
                assert!(text.contains("removed or replaced"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((pool.filled_count(), pool.free_count()), (0, 3));
}

#[test]
fn a_buffer_that_was_resized_while_its_memory_was_held_is_submitted() {
    let pool = active_pool(64, 1, 1);
    let mut buffer = pool.acquire_free(Wait::No).unwrap();
    let held = buffer.memory(0).unwrap();
    buffer.make_mut().set_size(10);
    pool.submit_filled(buffer).unwrap();
    assert_eq!(pool.acquire_filled(Wait::No).unwrap().size(), 10);
    drop(held);
}

#[test]
fn who_kept_a_buffer_that_was_flushed_submits_it_again() {
    let pool = active_pool(64, 2, 2);
    let kept = pool.acquire_free(Wait::No).unwrap();
    pool.submit_filled(kept.clone()).unwrap();
    pool.submit_filled(pool.acquire_free(Wait::No).unwrap())
        .unwrap();
    pool.set_flushing(true);
    pool.set_flushing(false);
    assert_eq!(pool.state(id(&kept)), Some(BufferState::LockedByProducer));
    assert_eq!((pool.filled_count(), pool.free_count()), (0, 1));
    let expected = id(&kept);
    pool.submit_filled(kept).unwrap();
    let taken = pool.acquire_filled(Wait::No).unwrap();
    assert_eq!(id(&taken), expected);
    pool.release_filled(taken).unwrap();
    assert_eq!(pool.free_count(), 2);
}

#[test]
fn waiting_ends_after_the_time_given() {
    let pool = active_pool(64, 1, 1);
    let _held = pool.acquire_free(Wait::No).unwrap();
    let wait = Wait::AtMost(Duration::from_millis(20));
    assert!(matches!(
        pool.acquire_free(wait),
        Err(PoolError::NoBuffer { .. })
    ));
    assert!(matches!(
        pool.acquire_filled(wait),
        Err(PoolError::NoBuffer { .. })
    ));
}

#[test]
fn flushing_wakes_consumers_and_frees_what_was_filled() {
    let pool = active_pool(64, 1, 1);
    let consumer = {
        let pool = pool.clone();
        std::thread::spawn(move || pool.acquire_filled(Wait::Forever).map(|_| ()))
    };
    std::thread::sleep(Duration::from_millis(20));
    pool.set_flushing(true);
    assert!(matches!(
        consumer.join().unwrap(),
        Err(PoolError::Flushing { .. })
    ));
    pool.set_flushing(false);
    pool.submit_filled(pool.acquire_free(Wait::No).unwrap())
        .unwrap();
    pool.set_active(false).unwrap();
    pool.set_active(true).unwrap();
    assert_eq!((pool.filled_count(), pool.free_count()), (0, 1));
}

#[test]
fn a_filled_queue_does_not_keep_its_pool_alive() {
    let pool = active_pool(64, 1, 1);
    pool.submit_filled(pool.acquire_free(Wait::No).unwrap())
        .unwrap();
    let weak = pool.downgrade();
    drop(pool);
    assert!(weak.upgrade().is_none());
}

#[test]
fn pools_that_share_pages_never_hand_out_one_twice() {
    gst::init().unwrap();
    let slots = Slots::new(pages(2, 4096), Reuse::LeastRecent);
    let layout = |size_bytes| Layout::custom(&bgrx_info(16, 16), &[64], &[], size_bytes).unwrap();
    let old = PhysBufferPool::over(&slots, Some(layout(4096)));
    configure(&old, None, 4096, 0, 0);
    old.set_active(true).unwrap();
    let held = old.acquire_buffer(None).unwrap();

    let new = PhysBufferPool::over(&slots, Some(layout(1024)));
    configure(&new, None, 1024, 0, 0);
    new.set_active(true).unwrap();
    let other = new.acquire_buffer(Some(&dont_wait())).unwrap();
    assert_eq!(other.size(), 1024);
    assert_ne!(id(&other), id(&held));
    assert_ne!(slots.index_of(&other), slots.index_of(&held));
    assert_eq!(
        new.acquire_buffer(Some(&dont_wait())).unwrap_err(),
        gst::FlowError::Eos
    );
    let held_id = id(&held);
    drop(held);
    let page = new.acquire_buffer(Some(&dont_wait())).unwrap();
    assert_eq!((id(&page), page.size()), (held_id, 1024));
    old.set_active(false).unwrap();
    assert_eq!(new.total_count(), 2);
}

#[test]
fn existing_memory_serves_no_more_buffers_than_there_are() {
    gst::init().unwrap();
    let slots = Slots::new(pages(2, 4096), Reuse::MostRecent);
    let pool = PhysBufferPool::over(&slots, None);
    let mut config = pool.config();
    config.set_params(None, 4096, 5, 0);
    assert!(pool.set_config(config).is_err());
    assert_eq!(pool.config().params().unwrap().2, 2);
    let mut config = pool.config();
    config.set_params(None, 5000, 0, 0);
    assert!(pool.set_config(config).is_err(), "larger than a page");
}

#[test]
fn a_padded_existing_layout_is_in_the_video_meta() {
    gst::init().unwrap();
    let slots = Slots::new(pages(2, 1 << 16), Reuse::MostRecent);
    let layout = Layout::custom(&bgrx_info(100, 50), &[512], &[100], 512 * 50).unwrap();
    let pool = PhysBufferPool::over(&slots, Some(layout));
    let mut config = pool.config();
    config.set_params(Some(&bgrx(100, 50)), 0, 1, 0);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let buffer = pool.acquire_buffer(None).unwrap();
    let meta = buffer.meta::<gst_video::VideoMeta>().unwrap();
    assert_eq!((meta.stride()[0], meta.offset()[0]), (512, 100));
    assert_eq!(buffer.size(), 512 * 50);
}

#[test]
fn everything_is_there_for_languages_without_a_header() {
    let pool = active_pool(4096, 1, 1);
    let buffer = pool
        .emit_by_name::<Option<gst::Buffer>>("acquire-free", &[&0i64])
        .unwrap();
    let description = pool
        .emit_by_name::<Option<gst::Structure>>("describe", &[&buffer])
        .unwrap();
    assert_eq!(description.get::<u32>("id").unwrap(), id(&buffer));
    assert_eq!(description.get::<u64>("size").unwrap(), 4096);
    assert!(description.has_field("phys-addr") != description.has_field("address-unknown"));
    assert!(pool.emit_by_name::<bool>("submit-filled", &[&buffer]));
    assert!(!pool.emit_by_name::<bool>("submit-filled", &[&buffer]));
    let taken = pool
        .emit_by_name::<Option<gst::Buffer>>("acquire-filled", &[&-1i64])
        .unwrap();
    assert!(pool.emit_by_name::<bool>("release-filled", &[&taken]));
    assert!(pool.emit_by_name::<String>("dump", &[]).contains("refs"));
    let refused = id(&taken);
    assert_eq!(pool.emit_by_name::<i32>("export-dmabuf", &[&refused]), -1);
    assert_eq!(
        pool.property::<Option<String>>("last-error").unwrap(),
        format!(
            "buffer {refused} is normal memory, which has no dma-buf: use kind cma, system or udmabuf"
        )
    );
    let plain = gst::Buffer::with_size(10).unwrap();
    assert!(
        pool.emit_by_name::<Option<gst::Structure>>("describe", &[&plain])
            .is_none()
    );
}

#[test]
fn no_buffer_in_place_of_one_is_refused_in_words() {
    let pool = active_pool(64, 1, 1);
    let _held = pool.acquire_free(Wait::No).unwrap();
    let nothing = pool.emit_by_name::<Option<gst::Buffer>>("acquire-free", &[&0i64]);
    assert!(nothing.is_none());
    let said = || pool.property::<Option<String>>("last-error").unwrap();
    for verb in ["submit-filled", "release-filled"] {
        assert!(!pool.emit_by_name::<bool>(verb, &[&nothing]));
        assert!(said().contains("no buffer was given"), "{}", said());
        pool.emit_by_name::<Option<gst::Buffer>>("acquire-free", &[&0i64]);
    }
    assert!(
        pool.emit_by_name::<Option<gst::Structure>>("describe", &[&nothing])
            .is_none()
    );
    assert!(said().contains("no buffer was given"), "{}", said());
}

#[test]
fn validation_asks_the_callback_and_the_signal() {
    let pool = active_pool(64, 2, 2);
    let (a, b) = (
        pool.acquire_buffer(None).unwrap(),
        pool.acquire_buffer(None).unwrap(),
    );
    assert!(pool.validate(id(&a)) && pool.validate_all());
    assert!(!pool.validate(0), "no such buffer");
    let bad = id(&a);
    pool.set_validator(Some(move |id, _: &Arc<Region>| id != bad));
    assert!(!pool.validate(id(&a)) && pool.validate(id(&b)) && !pool.validate_all());
    pool.set_validator(None::<fn(u32, &Arc<Region>) -> bool>);
    let bad = id(&b);
    pool.connect("validating", false, move |args| {
        Some((args[1].get::<u32>().unwrap() != bad).to_value())
    });
    assert!(pool.validate(id(&a)) && !pool.validate(id(&b)));
}

#[test]
fn a_buffer_is_found_by_id_while_it_is_out() {
    let pool = active_pool(64, 1, 1);
    let buffer = pool.acquire_buffer(None).unwrap();
    let found = pool.buffer_by_id(id(&buffer)).unwrap();
    assert_eq!(found.as_ptr(), buffer.as_ptr());
    let id = id(&buffer);
    drop((buffer, found));
    assert!(pool.buffer_by_id(id).is_none());
    assert_eq!(pool.free_count(), 1);
}

/// As `stats` and `dump` have it.
fn refs(pool: &PhysBufferPool, id: u32) -> u32 {
    let stats = pool.property::<gst::Structure>("stats");
    let buffers = stats.get::<gst::Array>("buffers").unwrap();
    let mut buffers = buffers
        .iter()
        .map(|buffer| buffer.get::<gst::Structure>().unwrap());
    let of = |buffer: &gst::Structure| buffer.get::<u32>("id") == Ok(id);
    let refs = buffers.find(of).unwrap().get::<u32>("refs").unwrap();
    let dump = pool.dump();
    let line = dump.lines().find(|l| l.starts_with(&format!("  {id}: ")));
    assert!(
        line.unwrap().contains(&format!(", refs {refs}, ")),
        "{dump}"
    );
    refs
}

#[test]
fn the_references_of_each_buffer_are_counted() {
    let pool = active_pool(64, 2, 2);
    let (a, b) = (
        pool.acquire_free(Wait::No).unwrap(),
        pool.acquire_free(Wait::No).unwrap(),
    );
    let (id, other) = (id(&a), crate::id(&b));
    assert_eq!((refs(&pool, id), refs(&pool, other)), (1, 1));
    let (again, found) = (a.clone(), pool.buffer_by_id(id).unwrap());
    assert_eq!((refs(&pool, id), refs(&pool, other)), (3, 1));
    drop(again);
    assert_eq!(refs(&pool, id), 2);
    // A copy shares the memory and is a buffer of its own. Since 1.24 it keeps the
    // pool's buffer.
    let copy = found.copy();
    let kept = u32::from(gst::version() >= (1, 24, 0, 0));
    assert_eq!(refs(&pool, id), 2 + kept);
    drop((copy, found));
    pool.submit_filled(a).unwrap();
    assert_eq!(refs(&pool, id), 1, "the queue's");
    let filled = pool.acquire_filled(Wait::No).unwrap();
    let reader = filled.clone();
    pool.release_filled(filled).unwrap();
    assert_eq!(refs(&pool, id), 1, "the reader's");
    assert_eq!(pool.free_count(), 0);
    drop((reader, b));
    assert_eq!((refs(&pool, id), refs(&pool, other)), (0, 0));
    assert_eq!(pool.free_count(), 2);
}

/// The last unref hands the buffer back to the pool, alive; until the pool has it, whoever
/// looks for its id takes a reference.
#[test]
fn a_buffer_found_by_id_on_its_way_back_is_not_touched() {
    use gst::glib::translate::{IntoGlibPtr, ToGlibPtr};
    let pool = active_pool(64, 1, 1);
    let mut buffer = pool.acquire_buffer(None).unwrap();
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::SECOND);
    let id = id(&buffer);
    let found = pool.buffer_by_id(id).unwrap();
    // SAFETY: as gst_buffer_unref does; the reference is given away.
    unsafe {
        let base = pool.upcast_ref::<gst::BufferPool>();
        gst::ffi::gst_buffer_pool_release_buffer(base.to_glib_none().0, buffer.into_glib_ptr());
    }
    assert_eq!(found.pts(), Some(gst::ClockTime::SECOND));
    assert_eq!(pool.free_count(), 0, "somebody still reads it");
    assert!(pool.buffer_by_id(id).is_none());
    drop(found);
    assert_eq!(pool.free_count(), 1);
    let again = pool.acquire_buffer(None).unwrap();
    assert_eq!((crate::id(&again), again.pts()), (id, None));
}

#[test]
fn no_buffer_is_ever_held_by_two_of_eight_threads() {
    let pool = active_pool(64, 0, 5);
    let held = Arc::new(Mutex::new(HashSet::new()));
    let cycles = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let buffer = pool.acquire_buffer(None).unwrap();
                    assert!(held.lock().unwrap().insert(id(&buffer)));
                    assert!(held.lock().unwrap().remove(&id(&buffer)));
                    drop(buffer);
                    cycles.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(cycles.into_inner(), 40_000);
    assert_eq!(pool.free_count(), pool.total_count());
    assert!(pool.total_count() <= 5);
}

/// One block with a made-up address, so that addresses can be judged without any
/// privilege.
fn pool_at(phys: u64, size: usize) -> PhysBufferPool {
    gst::init().unwrap();
    let block: &'static mut [u8] = Box::leak(vec![0; size].into_boxed_slice());
    let block = MemoryBlock {
        virt: NonNull::from(block).cast(),
        phys: Some(PhysAddr(phys)),
        size_bytes: size,
    };
    // SAFETY: leaked, so mapped for ever.
    let pool = unsafe { PhysBufferPool::with_regions(&[block]) };
    configure(&pool, None, size as u32, 1, 1);
    pool.set_active(true).unwrap();
    pool
}

#[test]
fn memory_that_was_replaced_behind_the_meta_has_no_address() {
    let pool = pool_at(0x4000_0000, 8192);
    let buffer = pool.acquire_buffer(None).unwrap();
    let mut copy = buffer.copy();
    assert_eq!(
        copy.meta::<PhysMemMeta>().unwrap().phys_addr(),
        Some(PhysAddr(0x4000_0000))
    );
    // The memory is shared: GStreamer gives the copy another one to write to.
    copy.make_mut().map_writable().unwrap().fill(1);
    let meta = copy.meta::<PhysMemMeta>().unwrap();
    assert_eq!(meta.address(), Err(&AddressUnknown::Replaced));
    assert_eq!(meta.phys_addr(), None);
    assert!(meta.extents().is_empty() && !meta.is_contiguous());
    let described = PhysBufferPool::describe(&copy).unwrap();
    assert!(described.has_field("address-unknown") && !described.has_field("phys-addr"));
    let original = buffer.meta::<PhysMemMeta>().unwrap();
    assert_eq!(original.phys_addr(), Some(PhysAddr(0x4000_0000)));
}

#[test]
fn the_address_follows_a_buffer_that_was_resized() {
    let pool = pool_at(0x4000_0000, 8192);
    let mut buffer = pool.acquire_buffer(None).unwrap();
    buffer.make_mut().resize(0x100..0x200).unwrap();
    assert_eq!(
        buffer.meta::<PhysMemMeta>().unwrap().phys_addr(),
        Some(PhysAddr(0x4000_0100))
    );
}

#[test]
fn caps_that_do_not_fit_a_fixed_layout_are_refused() {
    gst::init().unwrap();
    let slots = Slots::new(pages(2, 1 << 16), Reuse::MostRecent);
    let layout = Layout::custom(&bgrx_info(100, 50), &[512], &[0], 512 * 50).unwrap();
    for (width, height) in [(129, 50), (128, 51), (1920, 1080)] {
        let pool = PhysBufferPool::over(&slots, Some(layout));
        let mut config = pool.config();
        config.set_params(Some(&bgrx(width, height)), 0, 1, 0);
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
        assert!(pool.set_config(config).is_err(), "{width}x{height}");
    }
}

#[test]
fn a_flag_that_somebody_cleared_does_not_hide_replaced_memory() {
    let pool = active_pool(4096, 1, 1);
    let mut buffer = pool.acquire_buffer(None).unwrap();
    {
        let buffer = buffer.make_mut();
        buffer.replace_all_memory(gst::Memory::with_size(4096));
        buffer.unset_flags(gst::BufferFlags::all());
    }
    drop(buffer);
    let again = pool.acquire_buffer(Some(&dont_wait())).unwrap();
    let memory = again.peek_memory(0);
    assert!(region_of(memory).is_some(), "the pool's own memory again");
    assert_ne!(
        again.meta::<PhysMemMeta>().unwrap().address(),
        Err(&AddressUnknown::Replaced)
    );
}

#[test]
fn a_copy_is_not_the_buffer_that_was_acquired() {
    let pool = active_pool(64, 1, 1);
    let buffer = pool.acquire_free(Wait::No).unwrap();
    assert!(matches!(
        pool.submit_filled(buffer.copy()),
        Err(PoolError::Foreign { .. })
    ));
    drop(buffer);
    pool.set_active(false).unwrap();
    assert_eq!(pool.total_count(), 0, "all was counted back");
}

fn pools_that_share_pages() -> [PhysBufferPool; 2] {
    gst::init().unwrap();
    let slots = Slots::new(pages(2, 64), Reuse::MostRecent);
    [(); 2].map(|()| {
        let pool = PhysBufferPool::over(&slots, None);
        configure(&pool, None, 64, 0, 0);
        pool.set_active(true).unwrap();
        pool
    })
}

#[test]
fn pools_that_share_pages_have_filled_queues_of_their_own() {
    let [a, b] = pools_that_share_pages();
    a.submit_filled(a.acquire_free(Wait::No).unwrap()).unwrap();
    assert_eq!((a.filled_count(), b.filled_count()), (1, 0));
    assert!(matches!(
        b.acquire_filled(Wait::No),
        Err(PoolError::NoBuffer { .. })
    ));
    a.release_filled(a.acquire_filled(Wait::No).unwrap())
        .unwrap();
}

#[test]
fn of_pools_that_share_pages_the_one_submitted_to_is_woken() {
    let [a, b] = pools_that_share_pages();
    std::thread::scope(|scope| {
        // The first to wait is the first to be woken, had they one condition.
        let other = scope.spawn(|| a.acquire_filled(Wait::Forever).map(|_| ()));
        std::thread::sleep(Duration::from_millis(100));
        let consumer = scope.spawn(|| b.acquire_filled(Wait::Forever));
        std::thread::sleep(Duration::from_millis(100));
        b.submit_filled(b.acquire_free(Wait::No).unwrap()).unwrap();
        let patience = Instant::now() + Duration::from_secs(20);
        while !consumer.is_finished() && Instant::now() < patience {
            std::thread::yield_now();
        }
        // Lets nobody wait for a wake-up that went elsewhere.
        a.set_flushing(true);
        b.set_flushing(true);
        assert!(matches!(
            other.join().unwrap(),
            Err(PoolError::Flushing { .. })
        ));
        b.release_filled(consumer.join().unwrap().unwrap()).unwrap();
    });
}

#[test]
fn a_pool_of_external_memory_without_any_says_so() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::External).build();
    let mut config = pool.config();
    config.set_params(None, 64, 0, 0);
    assert!(pool.set_config(config).is_err());
    let said = pool.last_error().unwrap();
    assert!(said.contains("no memory to serve buffers from"), "{said}");
}

#[test]
fn a_name_that_does_not_exist_fails_in_words() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder()
        .kind(MemoryKind::Cma)
        .heap("no-such-heap")
        .build();
    configure(&pool, None, 4096, 1, 1);
    assert!(pool.set_active(true).is_err());
    assert!(pool.last_error().unwrap().contains("no-such-heap"));
}

fn waits(pool: &PhysBufferPool) -> u64 {
    let stats = pool.property::<gst::Structure>("stats");
    stats.get("waits").unwrap()
}

#[test]
fn waits_are_counted_where_somebody_waits() {
    let pool = active_pool(64, 1, 1);
    let _held = pool.acquire_free(Wait::No).unwrap();
    for _ in 0..3 {
        assert!(pool.acquire_free(Wait::No).is_err());
        assert!(pool.acquire_filled(Wait::No).is_err());
    }
    assert_eq!(waits(&pool), 0);
    let moment = Wait::AtMost(Duration::from_millis(2));
    assert!(pool.acquire_free(moment).is_err());
    assert_eq!(waits(&pool), 1);
    assert!(pool.acquire_filled(moment).is_err());
    assert_eq!(waits(&pool), 2);
}

#[test]
fn refusals_name_the_pool() {
    let pool = active_pool(64, 1, 1);
    let name = pool.name();
    let text = |error: PoolError| error.to_string();
    let _held = pool.acquire_free(Wait::No).unwrap();
    for refused in [
        text(pool.acquire_free(Wait::No).unwrap_err()),
        text(pool.acquire_filled(Wait::No).unwrap_err()),
    ] {
        assert_eq!(refused, format!("{name}: no buffer within the time given"));
    }
    let unknown = text(pool.export_dmabuf(u32::MAX).unwrap_err());
    assert_eq!(unknown, format!("{name} has no buffer {}", u32::MAX));
    pool.set_flushing(true);
    let flushing = text(pool.acquire_filled(Wait::No).unwrap_err());
    assert_eq!(
        flushing,
        format!("{name} is flushing: activate it, or end the flush")
    );
}

/// Runs `test`, the test of this name, in a process of its own: it changes what others
/// would notice.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os("PHYSMEM_TEST_ALONE").is_some() {
        return test();
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env("PHYSMEM_TEST_ALONE", "1")
        .status();
    assert!(child.unwrap().success());
}

#[test]
fn who_is_refused_more_memory_is_told_why() {
    alone("who_is_refused_more_memory_is_told_why", || {
        static WARNINGS: AtomicUsize = AtomicUsize::new(0);
        let pool = active_pool(4096, 0, 0);
        gst::log::set_threshold_for_name("physmempool", gst::DebugLevel::Warning);
        gst::log::add_log_function(|category, level, _, _, _, _, message| {
            let is_ours = category.name() == "physmempool" && level == gst::DebugLevel::Warning;
            let text = message.get().map(|text| text.to_string());
            if is_ours && text.is_some_and(|text| text.contains("no memory")) {
                WARNINGS.fetch_add(1, Ordering::SeqCst);
            }
        });
        let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
        nix::sys::resource::setrlimit(limit, 64, 64).unwrap();

        let mut held = Vec::new();
        let refused = loop {
            match pool.acquire_free(Wait::No) {
                Ok(buffer) => held.push(buffer),
                Err(refused) => break refused,
            }
        };
        let block_bytes = 4096usize.next_multiple_of(common::page_size());
        let block = format!("{block_bytes} bytes of normal");
        let is_told = |text: &str| text.contains(&block) && text.contains("EMFILE");
        let refused = refused.to_string();
        assert!(is_told(&refused), "{refused}");
        assert!(refused.starts_with(pool.name().as_str()), "{refused}");

        let moment = Wait::AtMost(Duration::from_millis(5));
        match pool.acquire_free(moment) {
            Err(PoolError::NoMemory { reason, .. }) => assert!(is_told(&reason), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert!(
            pool.emit_by_name::<Option<gst::Buffer>>("acquire-free", &[&1_000_000i64])
                .is_none()
        );
        assert!(is_told(&pool.last_error().unwrap()));

        // One that is out may come back: who has time waits for it, and the reason stays.
        let before = waits(&pool);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| pool.acquire_free(Wait::Forever).map(|b| id(&b)));
            while waits(&pool) == before {
                std::thread::yield_now();
            }
            assert!(is_told(&pool.last_error().unwrap()));
            let expected = id(&held[0]);
            held.remove(0);
            assert_eq!(waiter.join().unwrap().unwrap(), expected);
        });
        assert_eq!(WARNINGS.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn no_more_buffers_are_out_than_the_maximum_of_existing_memory() {
    gst::init().unwrap();
    let slots = Slots::new(pages(3, 64), Reuse::MostRecent);
    let pool = PhysBufferPool::over(&slots, None);
    configure(&pool, None, 64, 0, 1);
    pool.set_active(true).unwrap();
    assert_eq!((pool.free_count(), pool.total_count()), (1, 3));
    let first = pool.acquire_free(Wait::No).unwrap();
    assert_eq!(pool.free_count(), 0);
    let refused = pool.acquire_free(Wait::AtMost(Duration::from_millis(2)));
    assert!(matches!(refused, Err(PoolError::NoBuffer { .. })));

    // Another pool over the same pages has a number of its own.
    let other = PhysBufferPool::over(&slots, None);
    configure(&other, None, 64, 0, 2);
    other.set_active(true).unwrap();
    let _held = [
        other.acquire_free(Wait::No).unwrap(),
        other.acquire_free(Wait::No).unwrap(),
    ];
    // All pages are out: each pool waits, and what comes back to the first is its own.
    let long = Wait::AtMost(Duration::from_secs(20));
    std::thread::scope(|scope| {
        let at_its_most = scope.spawn(|| other.acquire_free(long).map(|_| ()));
        while waits(&pool) < 2 {
            std::thread::yield_now();
        }
        let waiter = scope.spawn(|| pool.acquire_free(long).map(|_| ()));
        while waits(&pool) < 3 {
            std::thread::yield_now();
        }
        drop(first);
        assert!(waiter.join().unwrap().is_ok());
        other.set_flushing(true);
        let flushed = at_its_most.join().unwrap();
        assert!(matches!(flushed, Err(PoolError::Flushing { .. })));
    });
}

#[test]
fn a_config_that_was_not_taken_says_why_and_one_that_was_forgets_it() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(None, 0, 0, 0);
    assert!(pool.set_config(config).is_err());
    assert!(pool.last_error().unwrap().contains("the buffer size is 0"));

    let mut config = pool.config();
    config.set_params(Some(&bgrx(100, 50)), 0, 1, 2);
    config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
    config.set_video_alignment(&gst_video::VideoAlignment::new(0, 0, 0, 8, &[63; 4]));
    assert!(pool.set_config(config).is_err());
    let said = pool.last_error().unwrap();
    assert!(
        said.contains("read it back") && said.contains("GstVideoMeta"),
        "{said}"
    );
    pool.set_config(pool.config()).unwrap();
    assert_eq!(pool.last_error(), None);
}

#[test]
fn a_prefix_beyond_all_memory_is_refused_in_words() {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(None, 64, 1, 1);
    let params = gst::AllocationParams::new(gst::MemoryFlags::empty(), 0, usize::MAX - 63, 0);
    config.set_allocator(None::<&gst::Allocator>, Some(&params));
    assert!(pool.set_config(config).is_err());
    let said = pool.last_error().unwrap();
    assert!(said.contains("more than an address space holds"), "{said}");
}

#[test]
fn a_buffer_whose_memory_is_still_held_shows_as_detached() {
    let pool = active_pool(64, 1, 1);
    let buffer = pool.acquire_free(Wait::No).unwrap();
    let (id, memory) = (id(&buffer), buffer.memory(0).unwrap());
    let is_detached = || {
        let stats = pool.property::<gst::Structure>("stats");
        let buffers = stats.get::<gst::Array>("buffers").unwrap();
        let buffer = buffers[0].get::<gst::Structure>().unwrap();
        buffer.get::<bool>("detached").unwrap()
    };
    assert!(!is_detached() && !pool.dump().contains("detached"));
    drop(buffer);
    assert!(is_detached());
    assert!(pool.dump().contains(&format!("  {id}: detached")));
    assert_eq!(pool.state(id), Some(BufferState::Idle));
    drop(memory);
    assert!(!is_detached() && !pool.dump().contains("detached"));
}
