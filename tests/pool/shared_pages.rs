// SPDX-License-Identifier: MPL-2.0
//! Pools over the same existing memory, as a display offers one for each caps.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gstphysmem::layout::Layout;
use gstphysmem::pool::{PhysBufferPool, PoolError, Reuse, Slots, Wait};

use crate::{bgrx_info, configure, dont_wait, id, pages, waits};

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
        // With one condition variable for both pools, the first waiter would be woken.
        let other = scope.spawn(|| a.acquire_filled(Wait::Forever).map(|_| ()));
        std::thread::sleep(Duration::from_millis(100));
        let consumer = scope.spawn(|| b.acquire_filled(Wait::Forever));
        std::thread::sleep(Duration::from_millis(100));
        b.submit_filled(b.acquire_free(Wait::No).unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !consumer.is_finished() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        // Ends the waits even if the wrong thread was woken.
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

    // Another pool over the same pages has a maximum of its own.
    let other = PhysBufferPool::over(&slots, None);
    configure(&other, None, 64, 0, 2);
    other.set_active(true).unwrap();
    let _held = [
        other.acquire_free(Wait::No).unwrap(),
        other.acquire_free(Wait::No).unwrap(),
    ];
    // All pages are out, so each pool waits. The page that comes back belongs to the first pool.
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
