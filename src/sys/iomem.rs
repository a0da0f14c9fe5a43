// SPDX-License-Identifier: MPL-2.0
//! /proc/iomem: the ranges of physical addresses and their owners. The kernel shows the addresses only to
//! processes with CAP_SYS_ADMIN.

use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u64,
    /// Last address, inclusive. Both addresses are 0 if the kernel hides them.
    pub last: u64,
    pub name: String,
    /// The number of ranges that contain this one.
    pub depth: usize,
}

impl Range {
    /// Whether the range is the kernel's own memory. Some machines list parts of it as
    /// "System RAM (boot alias)" and the like.
    fn is_system_ram(&self) -> bool {
        self.name.starts_with("System RAM")
    }
}

/// Whether the kernel hides the addresses from this process, or the file cannot be read.
pub fn is_hidden(ranges: &[Range]) -> bool {
    ranges.iter().all(|range| range.last == 0)
}

/// Whether a byte of `first ..= last` is System RAM.
pub fn overlaps_system_ram(ranges: &[Range], first: u64, last: u64) -> bool {
    let mut ram = ranges.iter().filter(|range| range.is_system_ram());
    ram.any(|range| range.first <= last && first <= range.last)
}

/// All ranges. Empty if the file cannot be read.
pub fn ranges() -> Vec<Range> {
    ranges_of(Path::new("/proc/iomem"))
}

/// As [`ranges`], by the path of the file.
pub fn ranges_of(iomem: &Path) -> Vec<Range> {
    parse(&super::read_kernel_file(iomem).unwrap_or_default())
}

pub fn parse(iomem: &str) -> Vec<Range> {
    let range = |line: &str| {
        let (span, name) = line.trim_start().split_once(" : ")?;
        let (first, last) = span.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let depth = (line.len() - line.trim_start().len()) / 2;
        Some(Range {
            first: hex(first)?,
            last: hex(last)?,
            name: name.trim().to_owned(),
            depth,
        })
    };
    iomem.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_kept_from_the_kernel_is_no_system_ram() {
        let ranges = parse(
            "00100000-1fffffff : System RAM\n  01000000-01ffffff : Kernel code\n\
             20000000-20ffffff : Reserved\n21000000-3ffdffff : System RAM\n",
        );
        assert!(!is_hidden(&ranges));
        let overlaps = |first, last| overlaps_system_ram(&ranges, first, last);
        assert!(!overlaps(0x2000_0000, 0x20ff_ffff));
        assert!(overlaps(0x1fff_ffff, 0x20ff_ffff));
        assert!(overlaps(0x2000_0000, 0x2100_0000));
        assert!(overlaps(0, u64::MAX));
        assert!(!overlaps(0x4000_0000, u64::MAX));
    }

    #[test]
    fn hidden_addresses_are_not_taken_for_address_zero() {
        let hidden = parse("00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n");
        assert_eq!(hidden.len(), 2);
        assert!(is_hidden(&hidden) && is_hidden(&[]));
    }
}
