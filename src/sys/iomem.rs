// SPDX-License-Identifier: MPL-2.0
//! /proc/iomem: what answers at which physical address. The kernel shows the addresses to
//! CAP_SYS_ADMIN only.

/// One line of /proc/iomem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub first: u64,
    /// Last address, inclusive; 0, as the first is, where addresses are hidden.
    pub last: u64,
    /// Who has it.
    pub name: String,
    /// In how many others it lies.
    pub depth: usize,
}

/// All of them; none where the file cannot be read.
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
