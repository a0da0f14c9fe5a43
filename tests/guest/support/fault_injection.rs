// SPDX-License-Identifier: MPL-2.0
//! Kernel allocations and copies from user space that fail on one thread (fail-nth).

use std::fs;

pub const FAIL_NTH: &str = "/proc/thread-self/fail-nth";

/// Lets the injected failures also hit allocations that may wait for memory.
pub fn enable() {
    for (file, value) in [
        ("failslab/ignore-gfp-wait", "N"),
        ("failslab/verbose", "0"),
        ("fail_page_alloc/ignore-gfp-wait", "N"),
        ("fail_page_alloc/ignore-gfp-highmem", "N"),
        ("fail_page_alloc/min-order", "0"),
        ("fail_page_alloc/verbose", "0"),
        ("fail_usercopy/verbose", "0"),
    ] {
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
