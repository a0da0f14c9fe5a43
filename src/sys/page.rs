// SPDX-License-Identifier: MPL-2.0
//! The size of pages, and how often they were missing.

use std::sync::OnceLock;

use nix::sys::resource::{UsageWho, getrusage};

pub fn page_size_bytes() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(4096)
    })
}

/// How many page faults without I/O the calling thread has had: `ru_minflt`. A write to a page that the kernel has
/// write-protected is one.
pub fn minor_faults() -> u64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.minor_page_faults() as u64)
}
