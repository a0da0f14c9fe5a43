// SPDX-License-Identifier: MPL-2.0
//! Kernel allocations that fail on one thread (fail-nth), and copies to and from user space where the kernel was built for
//! that, too.

use std::fs;
use std::path::Path;

pub const FAIL_NTH: &str = "/proc/thread-self/fail-nth";

/// Whether copies to and from user space fail, too. Among them are those of getrandom() and nanosleep(), at which Rust's
/// standard library panics.
pub fn fails_copies() -> bool {
    Path::new("/sys/kernel/debug/fail_usercopy").exists()
}

/// Lets the injected failures also hit allocations that may wait for memory.
pub fn enable() {
    let copies = fails_copies().then_some(("fail_usercopy/verbose", "0"));
    let allocations = [
        ("failslab/ignore-gfp-wait", "N"),
        ("failslab/verbose", "0"),
        ("fail_page_alloc/ignore-gfp-wait", "N"),
        ("fail_page_alloc/ignore-gfp-highmem", "N"),
        ("fail_page_alloc/min-order", "0"),
        ("fail_page_alloc/verbose", "0"),
    ];
    for (file, value) in allocations.into_iter().chain(copies) {
        fs::write(format!("/sys/kernel/debug/{file}"), value)
            .unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

/// Lets the Nth chance of the calling thread fail from now on.
pub fn arm(nth: u64) {
    fs::write(FAIL_NTH, nth.to_string()).expect("fault injection is there");
}

/// Ends that. Returns whether there was an Nth chance.
pub fn disarm() -> bool {
    // The count that is left. The read itself allocates kernel memory, so the failure may hit it.
    let left = loop {
        if let Ok(left) = fs::read_to_string(FAIL_NTH) {
            break left;
        }
    };
    while fs::write(FAIL_NTH, "0").is_err() {}
    left.trim() == "0"
}
