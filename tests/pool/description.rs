// SPDX-License-Identifier: MPL-2.0
//! What a pool reports about its buffers: the meta, ids, references, validation, statistics.

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::Arc;

use gst::prelude::*;
use gstphysmem::memory::{AddressUnknown, MemoryKind, PhysAddr, Region, region_of};
use gstphysmem::meta::PhysMemMeta;
use gstphysmem::pool::{BufferState, MemoryBlock, PhysBufferPool, Wait};

use crate::{active_pool, configure, dont_wait, id};

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

/// The reference count in `stats`, which must agree with the one in `dump`.
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
    // A copy shares the memory but is a buffer of its own. Since 1.24 GStreamer's copy keeps a
    // reference to the pool's buffer.
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

/// The last unref hands the buffer back to the pool alive. Until the pool has it, a look-up by id
/// still takes a reference.
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

/// A pool over one block with an invented address, so that the test needs no privilege.
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
    // The memory is shared, so GStreamer copies it before the write.
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
