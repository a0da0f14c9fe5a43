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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_page_is_a_fault() {
        const PAGES: usize = 16;
        let page_bytes = page_size_bytes();
        let file = tempfile::tempfile().unwrap();
        file.set_len((PAGES * page_bytes) as u64).unwrap();
        let memory = crate::sys::mmap::Mapping::shared(&file, PAGES * page_bytes).unwrap();
        let before = minor_faults();
        for page in 0..PAGES {
            // SAFETY: the byte lies inside the mapping.
            unsafe {
                memory
                    .ptr()
                    .as_ptr()
                    .add(page * page_bytes)
                    .write_volatile(1)
            };
        }
        assert!(minor_faults() >= before + 1);
    }
}
