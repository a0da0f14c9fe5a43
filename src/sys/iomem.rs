// SPDX-License-Identifier: MPL-2.0
//! /proc/iomem: the ranges of physical addresses and their owners. The kernel shows the addresses only to
//! processes with CAP_SYS_ADMIN.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u64,
    /// Last address, inclusive. Both addresses are 0 if the kernel hides them.
    pub last: u64,
    pub name: String,
    /// The number of ranges that contain this one.
    pub depth: usize,
}

/// All ranges. Empty if the file cannot be read.
pub fn ranges() -> Vec<Range> {
    parse(&std::fs::read_to_string("/proc/iomem").unwrap_or_default())
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
