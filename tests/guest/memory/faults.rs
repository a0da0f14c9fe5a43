// SPDX-License-Identifier: MPL-2.0
//! Failures that the kernel injects (Documentation/fault-injection): the Nth kernel allocation of
//! this thread fails.

use std::process::Command;

use gstphysmem::memory::{Region, Request};

use crate::support;
pub use crate::support::fault_injection::FAIL_NTH;
use crate::support::fault_injection::{self, arm, disarm};

/// Makes the C library use no restartable sequences. The kernel kills a thread whose sequence it
/// cannot read, and an injected failure can be the reason.
const NO_RSEQ: (&str, &str) = ("GLIBC_TUNABLES", "glibc.pthread.rseq=0");

pub fn is_rseq_disabled() -> bool {
    std::env::var(NO_RSEQ.0).is_ok_and(|value| value == NO_RSEQ.1)
}

pub fn disable_rseq(command: &mut Command) -> &mut Command {
    command.env(NO_RSEQ.0, NO_RSEQ.1)
}

/// Runs `action` while its Nth kernel allocation fails. Also returns whether there was an Nth one.
fn with_failure<T>(nth: usize, action: impl FnOnce() -> T) -> (T, bool) {
    arm(nth as u64);
    let result = action();
    (result, disarm())
}

/// Lets each kernel allocation for a region fail in turn. Either the region exists or there is an
/// error, and nothing leaks.
pub fn every_failure_is_clean(requests: &[Request<'_>]) {
    fault_injection::enable();
    for request in requests {
        // The first allocation sets up everything that is made once per process.
        drop(crate::allocate(request));
        let (mut errors, mut nth) = (0, 1);
        loop {
            let fds = support::open_fds();
            let (result, was_reached) = with_failure(nth, || Region::allocate(request));
            match result {
                Ok(region) => crate::conformance::fill(&region, nth as u64),
                Err(error) => {
                    errors += 1;
                    let text = error.to_string();
                    assert!(text.contains('('), "no errno in: {text}");
                }
            }
            assert_eq!(support::open_fds(), fds, "failure {nth} leaks an fd");
            if !was_reached {
                break;
            }
            nth += 1;
        }
        println!("{:?}: {nth} failures, {errors} errors", request.kind);
        assert!(nth > 5, "no failure was injected");
        assert!(errors > 0 || request.kind == gstphysmem::memory::MemoryKind::Auto);
    }
}
