// SPDX-License-Identifier: MPL-2.0
//! /proc/meminfo.

use super::read_kernel_file;
use std::io;

/// The contents of /proc/meminfo at one moment.
#[derive(Debug)]
pub struct Meminfo(String);

impl Meminfo {
    pub fn read() -> io::Result<Self> {
        Ok(Self(read_kernel_file("/proc/meminfo")?))
    }

    /// A field that counts kB, in bytes. `None` if the kernel has no such field.
    pub fn field_bytes(&self, name: &str) -> Option<u64> {
        parse(&self.0, name)
    }
}

/// A field of /proc/meminfo that counts kB, in bytes. `None` if the kernel has no such field.
pub fn field_bytes(name: &str) -> io::Result<Option<u64>> {
    Ok(Meminfo::read()?.field_bytes(name))
}

fn parse(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        let kilobytes = value.trim().strip_suffix("kB")?.trim_end();
        kilobytes.parse::<u64>().ok()?.checked_mul(1024)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:  1000 kB\nMemAvailable:    816 kB\nHugePages_Total:  3\n";

    #[test]
    fn field_is_found_by_its_whole_name() {
        assert_eq!(parse(MEMINFO, "MemAvailable"), Some(816 * 1024));
        assert_eq!(parse(MEMINFO, "Mem"), None);
        assert_eq!(parse(MEMINFO, "HugePages_Total"), None);
    }

    #[test]
    fn running_kernel_says_what_is_available() {
        assert!(field_bytes("MemAvailable").unwrap().unwrap() > 0);
    }
}
