// SPDX-License-Identifier: MPL-2.0
//! Acquiring and releasing buffers as with any GstBufferPool.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;
use gstphysmem::pool::{PoolError, Wait};

use crate::common;
use crate::{active_pool, dont_wait, id, waits};

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

/// Runs `test` in a process of its own, because it changes the limits and the log of its process.
/// `name` is the path of the calling test.
fn in_own_process(name: &str, test: impl FnOnce()) {
    if std::env::var_os("PHYSMEM_TEST_ALONE").is_some() {
        return test();
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env("PHYSMEM_TEST_ALONE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[child.stdout, child.stderr].concat()).into_owned();
    // A name that no test has would run none, and succeed.
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[test]
fn who_is_refused_more_memory_is_told_why() {
    in_own_process("acquire::who_is_refused_more_memory_is_told_why", || {
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

        // A buffer that is out may come back: a caller without time limit waits for it, and the
        // reason for the refusal is kept.
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
