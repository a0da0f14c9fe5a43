// SPDX-License-Identifier: MPL-2.0
//! Requests for more memory than the machine has, and allocations interrupted by signals.

use gstphysmem::memory::{MemoryError, MemoryKind, Region, Request};

use super::{allocate, available, conformance, huge_page_bytes, request};
use crate::support;

/// Large, so that there are few blocks: 6.1 takes long to refuse one from an exhausted CMA area.
const BLOCK: usize = 48 << 20;

/// The number of processes that the kernel's OOM killer has ended.
fn oom_kills() -> u64 {
    let vmstat = std::fs::read_to_string("/proc/vmstat").expect("/proc is mounted");
    let line = vmstat
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    line.expect("the kernel counts them")
        .trim()
        .parse()
        .unwrap()
}

/// Allocates blocks of each kind that has no limit of its own until the library refuses one.
pub fn allocations_end_before_an_oom_kill() {
    let udmabuf = Request {
        heap: Some("shmem"),
        ..request(MemoryKind::Udmabuf, BLOCK)
    };
    let killed = oom_kills();
    let mut requests = vec![
        request(MemoryKind::Normal, BLOCK),
        udmabuf,
        request(MemoryKind::System, BLOCK),
        request(MemoryKind::Auto, BLOCK),
    ];
    requests.retain(|request| available(&[request.kind]).len() == 1);
    for request in requests {
        let mut blocks = Vec::new();
        let refusal = loop {
            match Region::allocate(&request) {
                Ok(block) => blocks.push(block),
                Err(error) => break error,
            }
            assert!(
                (blocks.len() * BLOCK) as u64 <= 4 << 30,
                "the guest has no such memory"
            );
        };
        println!(
            "{}: {} blocks, then {refusal:.300}",
            request.kind,
            blocks.len()
        );
        let is_expected = match refusal {
            MemoryError::TooLarge { .. } => true,
            MemoryError::NoKind(_) => request.kind == MemoryKind::Auto,
            _ => false,
        };
        assert!(is_expected, "{refusal}");
        // Every page of the granted blocks can be written.
        for (seed, block) in blocks.iter().enumerate().step_by(5) {
            conformance::fill(block, seed as u64);
        }
        assert!(blocks.len() > 4, "refused far too early");
        assert_eq!(oom_kills(), killed, "{}", request.kind);
    }
}

/// A source without memory for its frames reports that, not a failed negotiation.
pub fn source_without_memory_reports_it() {
    // Just below the limit for the pattern; two such frames are more than the guest's memory.
    let pipeline = "rawvideosrc width=11500 height=11500 num-buffers=1 ! fakesink";
    let ran = support::run(&mut support::gst_launch(pipeline));
    assert!(!ran.status.success());
    let first = ran.stderr.lines().find(|line| line.starts_with("ERROR"));
    let first = first.unwrap_or_else(|| panic!("{}", ran.stderr));
    assert!(first.contains("No memory for the frames: "), "{first}");
    // A frame may exceed the machine's memory or only what is available: that depends on the
    // machine.
    let limits = ["MemTotal in /proc/meminfo", "MemAvailable in /proc/meminfo"];
    assert!(limits.iter().any(|limit| first.contains(limit)), "{first}");
}

/// Allocates in a program with an interval timer, as profilers have. On 6.1 fallocate starts anew
/// at each signal.
pub fn allocations_succeed_despite_a_timer() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing; the struct is zeroed but for handler and flags.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(
            libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()),
            0
        );
    }
    let every = |us: libc::suseconds_t| {
        let time = libc::timeval {
            tv_sec: 0,
            tv_usec: us,
        };
        let timer = libc::itimerval {
            it_interval: time,
            it_value: time,
        };
        // SAFETY: a whole itimerval, which the kernel only reads.
        let rc = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        assert_eq!(rc, 0);
    };
    let mut kinds = available(&[MemoryKind::Normal, MemoryKind::Cma]);
    kinds.extend(huge_page_bytes().map(|_| MemoryKind::Hugepage));
    for kind in kinds {
        every(2000);
        let region = allocate(&request(kind, 32 << 20));
        every(0);
        conformance::fill(&region, 3);
    }
}
