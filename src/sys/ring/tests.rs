// SPDX-License-Identifier: MPL-2.0

use super::*;
use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

struct Heap(Vec<u8>);

// SAFETY: a vector's bytes stay in place when the vector moves.
unsafe impl ReadBuffer for Heap {
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// A file in which adjacent bytes differ, and its bytes.
fn file(len_bytes: usize) -> (File, Vec<u8>) {
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..len_bytes).map(|i| (i % 251) as u8).collect();
    file.write_all(&bytes).unwrap();
    (file, bytes)
}

fn ring(files: Vec<File>) -> Option<ReadRing<Heap>> {
    ring_with(files, queue::enter())
}

fn ring_with(files: Vec<File>, enter: Enter) -> Option<ReadRing<Heap>> {
    match ReadRing::with_enter(files, enter) {
        Ok(ring) => Some(ring),
        Err(error) => {
            println!("SKIPPED: no io_uring here: {error}");
            None
        }
    }
}

/// Waits for the job at the front, as the reader of rawvideosrc does.
fn wait<T: ReadBuffer>(ring: &mut ReadRing<T>) -> Done<T> {
    loop {
        if let Some(done) = ring.pop() {
            return done;
        }
        let mut fds = [nix::poll::PollFd::new(
            ring.fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        let ready = nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(20_000u16));
        assert_eq!(ready.unwrap(), 1, "nothing completes");
    }
}

fn read(offset_bytes: usize, start: usize, len_bytes: usize) -> Read {
    Read {
        file: 0,
        offset_bytes: offset_bytes as u64,
        start,
        len_bytes,
    }
}

#[test]
fn jobs_come_back_in_the_order_they_went() {
    let (file, expected) = file(100_000);
    let Some(mut ring) = ring(vec![file]) else {
        return;
    };
    for at in [90_000, 0, 50_000, 99_000] {
        let reads = [read(at, 600, 400), read(0, 0, 0), read(at + 410, 0, 500)];
        ring.push(Heap(vec![1; 1000]), &reads).unwrap();
    }
    for at in [90_000usize, 0, 50_000, 99_000] {
        let done = wait(&mut ring);
        assert!(done.result.unwrap());
        assert_eq!(done.buffer.0[600..1000], expected[at..at + 400]);
        assert_eq!(done.buffer.0[..500], expected[at + 410..at + 910]);
        assert_eq!(done.buffer.0[500..600], [1; 100]);
    }
    assert!(ring.is_empty());
}

#[test]
fn the_end_of_the_file_and_errors_are_told() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1500).unwrap();
    let directory = File::open("/").unwrap();
    let Some(mut ring) = ring(vec![file, directory]) else {
        return;
    };
    ring.push(Heap(vec![1; 1000]), &[read(1000, 0, 1000)])
        .unwrap();
    let of_directory = Read {
        file: 1,
        ..read(0, 0, 1000)
    };
    ring.push(Heap(vec![1; 1000]), &[of_directory]).unwrap();
    assert!(!wait(&mut ring).result.unwrap());
    assert_eq!(
        wait(&mut ring).result.unwrap_err().raw_os_error(),
        Some(libc::EISDIR)
    );
}

#[test]
fn reads_that_make_no_sense_are_refused() {
    let (file, _) = file(10_000);
    let Some(mut ring) = ring(vec![file]) else {
        return;
    };
    let mut push = |reads: &[Read]| ring.push(Heap(vec![1; 1000]), reads);
    assert!(push(&[read(0, 600, 500)]).is_err());
    assert!(push(&[read(0, 2000, 1)]).is_err());
    assert!(push(&[read(0, usize::MAX, 2)]).is_err());
    let elsewhere = Read {
        file: 1,
        ..read(0, 0, 1)
    };
    assert!(push(&[elsewhere]).is_err());
    assert!(push(&[read(0, 0, 1); MAX_READS + 1]).is_err());
    assert!(push(&[read(0, 0, 1); MAX_READS]).is_ok());
}

/// Eight times as many reads as the completion queue holds.
fn read_many(mut ring: ReadRing<Heap>, expected: &[u8]) {
    const JOBS: usize = 256;
    for job in 0..JOBS {
        let reads: [Read; MAX_READS] =
            std::array::from_fn(|n| read(job * 100 + n * 20, n * 20, 20));
        ring.push(Heap(vec![1; MAX_READS * 20]), &reads).unwrap();
    }
    for job in 0..JOBS {
        let done = wait(&mut ring);
        assert!(done.result.unwrap(), "job {job}");
        assert!(
            done.buffer.0 == expected[job * 100..][..MAX_READS * 20],
            "job {job}"
        );
    }
    assert!(ring.pop().is_none() && ring.is_empty());
}

#[test]
fn more_reads_than_the_completion_queue_holds_all_come_back() {
    let (file, expected) = file(40_000);
    if let Some(ring) = ring(vec![file]) {
        read_many(ring, &expected);
    }
}

#[test]
fn calls_that_take_only_a_part_lose_nothing() {
    let (file, expected) = file(40_000);
    let mut turn = 0;
    let enter: Enter = Box::new(move |ring| {
        turn += 1;
        // SAFETY: submits none, one or two of the existing entries.
        unsafe { ring.submitter().enter::<()>(1 + turn % 2, 0, 0, None) }
    });
    if let Some(ring) = ring_with(vec![file], enter) {
        read_many(ring, &expected);
    }
}

#[test]
fn calls_that_fail_now_and_then_lose_nothing() {
    for errno in [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
        for period in [2, 3, 7] {
            let (file, expected) = file(40_000);
            let mut calls = 0;
            let enter: Enter = Box::new(move |ring| {
                calls += 1;
                if calls % period == 0 {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                // SAFETY: submits at most as many entries as exist.
                unsafe { ring.submitter().enter::<()>(5, 0, 0, None) }
            });
            let Some(mut ring) = ring_with(vec![file], enter) else {
                return;
            };
            let mut failed = 0;
            for job in 0..200 {
                ring.push(Heap(vec![1; 100]), &[read(job * 100, 0, 100)])
                    .unwrap();
                if ring.len() < 4 {
                    continue;
                }
                let done = wait(&mut ring);
                match done.result {
                    Ok(is_whole) => {
                        assert!(is_whole);
                        assert_eq!(done.buffer.0, expected[(job - 3) * 100..][..100]);
                    }
                    // Nothing was in flight at that moment, so the ring returned the job with the error.
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(errno));
                        failed += 1;
                    }
                }
            }
            let most = match errno {
                libc::EINTR => 0,
                _ => 200 / period,
            };
            assert!(failed <= most, "{failed} of 200 failed");
        }
    }
}

#[test]
fn a_ring_whose_calls_all_fail_gives_every_job_back_with_the_error() {
    for errno in [libc::EINTR, libc::EAGAIN, libc::ENOMEM, libc::EPERM] {
        let (file, _) = file(10_000);
        let enter: Enter = Box::new(move |_| Err(io::Error::from_raw_os_error(errno)));
        let Some(mut ring) = ring_with(vec![file], enter) else {
            return;
        };
        for n in 0..100 {
            ring.push(Heap(vec![n; 100]), &[read(0, 0, 100); 3])
                .unwrap();
        }
        for n in 0..50 {
            let done = ring.pop().unwrap();
            assert_eq!(done.buffer.0, [n; 100]);
            assert_eq!(done.result.unwrap_err().raw_os_error(), Some(errno));
        }
        ring.drain();
        assert!(ring.is_empty());
    }
}

#[test]
fn a_ring_that_failed_is_made_anew_when_all_in_flight_has_come() {
    let (regular, expected) = file(10_000);
    let (pipe, mut writer) = std::io::pipe().unwrap();
    let failing = Arc::new(AtomicU32::new(0));
    let mood = failing.clone();
    let enter: Enter = Box::new(move |ring| match mood.load(Ordering::Relaxed) {
        0 => ring.submit(),
        errno => Err(io::Error::from_raw_os_error(errno as i32)),
    });
    let pipe = File::from(std::os::fd::OwnedFd::from(pipe));
    let Some(mut ring) = ring_with(vec![regular, pipe], enter) else {
        return;
    };
    let push = |ring: &mut ReadRing<Heap>, file| {
        let read = Read {
            file,
            ..read(0, 0, 5)
        };
        ring.push(Heap(vec![0; 5]), &[read]).unwrap();
    };
    push(&mut ring, 1);
    failing.store(libc::EPERM as u32, Ordering::Relaxed);
    push(&mut ring, 0);
    // Nothing can be read from the pipe yet, so both jobs wait.
    assert!(ring.pop().is_none());
    writer.write_all(b"hello").unwrap();
    let done = wait(&mut ring);
    assert!(done.result.unwrap());
    assert_eq!(done.buffer.0, b"hello");
    let done = wait(&mut ring);
    assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::EPERM));
    failing.store(0, Ordering::Relaxed);
    push(&mut ring, 0);
    let done = wait(&mut ring);
    assert!(done.result.unwrap());
    assert_eq!(done.buffer.0, expected[..5]);
}

#[test]
fn a_drained_ring_neither_reads_nor_waits_for_what_the_kernel_has_not_taken() {
    let (file, expected) = file(10_000);
    let mut calls = 0;
    let enter: Enter = Box::new(move |ring| {
        calls += 1;
        // Of two jobs at a time, the kernel takes the first and refuses the second.
        match calls % 2 {
            1 => ring.submit(),
            _ => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        }
    });
    let Some(mut ring) = ring_with(vec![file], enter) else {
        return;
    };
    for _ in 0..20 {
        for at in [0, 1000] {
            ring.push(Heap(vec![0; 1000]), &[read(at, 0, 1000)])
                .unwrap();
        }
        ring.drain();
        assert!(ring.is_empty());
    }
    ring.push(Heap(vec![0; 1000]), &[read(5000, 0, 1000)])
        .unwrap();
    let done = wait(&mut ring);
    assert!(done.result.unwrap());
    assert_eq!(done.buffer.0, expected[5000..6000]);
}

/// A buffer that the tests lend repeatedly.
struct Kept(Arc<Vec<u8>>);

// SAFETY: no other code accesses the bytes while they are lent: the tests below wait for each read.
unsafe impl ReadBuffer for Kept {
    fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.0.as_ptr().cast_mut();
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(start, self.0.len()) }
    }

    fn keep_alive(&self) -> Option<KeepAlive> {
        Some(self.0.clone())
    }
}

fn kept_ring(file: File) -> Option<ReadRing<Kept>> {
    match ReadRing::new(vec![file]) {
        Ok(ring) => Some(ring),
        Err(error) => {
            println!("SKIPPED: no io_uring here: {error}");
            None
        }
    }
}

#[track_caller]
fn read_into(ring: &mut ReadRing<Kept>, block: &Arc<Vec<u8>>, at: usize, expected: &[u8]) {
    ring.push(Kept(block.clone()), &[read(at, 100, 10_000)])
        .unwrap();
    assert!(wait(ring).result.unwrap());
    assert_eq!(block[100..10_100], expected[at..at + 10_000]);
}

#[test]
fn memory_that_comes_again_is_registered_once() {
    let (file, expected) = file(100_000);
    let Some(mut ring) = kept_ring(file) else {
        return;
    };
    let blocks = [1, 2].map(|_| Arc::new(vec![0; 20_000]));
    for turn in 0..10usize {
        read_into(&mut ring, &blocks[turn % 2], turn * 5_000, &expected);
    }
    match ring.fixed.count() {
        Some(count) => assert_eq!(count, 2),
        None => println!("SKIPPED: nothing can be registered here"),
    }
}

#[test]
fn memory_goes_though_it_is_registered_and_what_takes_its_place_is_not_mistaken_for_it() {
    let (file, expected) = file(100_000);
    let Some(mut ring) = kept_ring(file) else {
        return;
    };
    // More blocks than the table has entries.
    for turn in 0..100usize {
        let block = Arc::new(vec![0; 20_000]);
        read_into(&mut ring, &block, turn * 500, &expected);
        let gone = Arc::downgrade(&block);
        drop(block);
        assert!(gone.upgrade().is_none(), "the ring keeps a block");
        match ring.fixed.count() {
            Some(count) => assert_eq!(count, 1),
            None => println!("SKIPPED: nothing can be registered here"),
        }
    }
}

#[test]
fn every_thread_binds_workers_of_its_own() {
    let (file, expected) = file(10_000);
    let Some(mut ring) = ring(vec![file]) else {
        return;
    };
    let cpus = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    for _ in 0..2 {
        ring = std::thread::spawn(move || {
            match ring.bind_workers(&cpus) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    println!("SKIPPED: a kernel before 5.14, or a cpuset that changed");
                }
                bound => bound.unwrap(),
            }
            ring
        })
        .join()
        .unwrap();
    }
    ring.push(Heap(vec![0; 100]), &[read(5000, 0, 100)])
        .unwrap();
    let done = wait(&mut ring);
    assert!(done.result.unwrap());
    assert_eq!(done.buffer.0, expected[5000..5100]);
}

#[test]
fn what_is_in_flight_may_be_dropped() {
    for _ in 0..20 {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        let Some(mut ring) = ring(vec![file]) else {
            return;
        };
        for n in 0..8 {
            ring.push(Heap(vec![0; 1 << 20]), &[read(n << 20, 0, 1 << 20)])
                .unwrap();
        }
    }
}
