// SPDX-License-Identifier: MPL-2.0
//! The four verbs: acquire-free, submit-filled, acquire-filled, release-filled.

use std::time::Duration;

use gst::prelude::*;
use gstphysmem::pool::{BufferState, PoolError, Wait};

use crate::{active_pool, id};

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
fn a_pool_that_was_started_again_hands_out_each_block_once() {
    let pool = active_pool(64, 2, 2);
    let both = || [0, 1].map(|_| pool.acquire_free(Wait::No).unwrap());
    drop(both());
    pool.set_active(false).unwrap();
    pool.set_active(true).unwrap();
    for held in [0, 1] {
        let mut buffers = both().map(Some);
        let memory = buffers[held].take().unwrap().memory(0).unwrap();
        // The block is not free as long as something holds its memory.
        assert!(matches!(
            pool.acquire_free(Wait::No),
            Err(PoolError::NoBuffer { .. })
        ));
        drop(memory);
        drop(buffers);
        assert_eq!(pool.free_count(), 2);
    }
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
    let plain = gst::Buffer::with_size(10).unwrap();
    let described = pool.emit_by_name::<Option<gst::Structure>>("describe", &[&plain]);
    assert!(
        described.is_none() && said().contains("no GstPhysMemMeta"),
        "{}",
        said()
    );
    let found = pool.emit_by_name::<Option<gst::Buffer>>("buffer-by-id", &[&77u32]);
    assert!(
        found.is_none() && said().contains("no buffer 77"),
        "{}",
        said()
    );
    assert!(!pool.emit_by_name::<bool>("validate", &[&78u32]));
    assert!(said().contains("no buffer 78"), "{}", said());
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
