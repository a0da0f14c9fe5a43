// SPDX-License-Identifier: MPL-2.0
//! /proc/self/pagemap: the physical pages of a mapping, as far as the kernel shows them
//! (Documentation/admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use super::page::page_size_bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    /// The page is in RAM now.
    pub fn is_present(self) -> bool {
        self.0 & (1 << 63) != 0
    }

    /// Page frame number. 0 for readers without CAP_SYS_ADMIN.
    pub fn pfn(self) -> u64 {
        self.0 & ((1 << 55) - 1)
    }
}

pub const PATH: &str = "/proc/self/pagemap";

/// Pages whose entries are read at once: a quarter of a mebibyte of entries.
const STEP_PAGES: usize = 1 << 15;

/// Calls `each` with the entries of all pages that `ptr .. ptr + len_bytes` touches, in order, until it
/// returns false. So a look-up of more than exists ends at the first absent page.
pub fn read(
    ptr: NonNull<u8>,
    len_bytes: usize,
    mut each: impl FnMut(Entry) -> bool,
) -> io::Result<()> {
    let page = page_size_bytes();
    let end = (ptr.as_ptr() as usize)
        .checked_add(len_bytes)
        .ok_or(io::Error::from(io::ErrorKind::InvalidInput))?
        .div_ceil(page);
    let pagemap = File::open(PATH)?;
    let mut next = ptr.as_ptr() as usize / page;
    let mut bytes = vec![0; (end - next).min(STEP_PAGES) * 8];
    while next < end {
        let pages = (end - next).min(STEP_PAGES);
        let bytes = &mut bytes[..pages * 8];
        pagemap.read_exact_at(bytes, next as u64 * 8)?;
        for entry in bytes.chunks_exact(8) {
            let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
            if !each(Entry(entry)) {
                return Ok(());
            }
        }
        next += pages;
    }
    Ok(())
}

/// Whether the mapping that holds `ptr` is VM_PFNMAP (flag `pf` in /proc/self/smaps): it consists of bare
/// frame numbers, and pagemap does not walk it.
pub fn is_pfnmap(ptr: NonNull<u8>) -> io::Result<bool> {
    vm_flags(
        BufReader::new(File::open("/proc/self/smaps")?),
        ptr.as_ptr() as u64,
    )
    .map(|flags| flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "pf")))
}

/// The VmFlags line of the mapping that contains `address`.
fn vm_flags(smaps: impl BufRead, address: u64) -> io::Result<Option<String>> {
    let mut inside = false;
    for line in smaps.lines() {
        let line = line?;
        if let Some((start, end)) = range_of_header(&line) {
            inside = (start..end).contains(&address);
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            return Ok(Some(flags.trim().to_owned()));
        }
    }
    Ok(None)
}

/// Parses "7f00-7f10 rw-s ..." as a range of addresses.
fn range_of_header(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some((
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0000800000 rw-s 00000000 00:0e 5   /dmabuf:reserved\n\
Size:               8192 kB\n\
VmFlags: rd wr sh mr mw me ms pf io de dd sd\n\
7f0000800000-7f0000900000 rw-p 00000000 00:00 0\n\
Size:               1024 kB\n\
VmFlags: rd wr mr mw me ac sd\n";

    #[test]
    fn flags_are_those_of_the_mapping_around_the_address() {
        let flags = |address| vm_flags(SMAPS.as_bytes(), address).unwrap();
        assert!(flags(0x7f00_0000_0000).unwrap().contains("pf"));
        assert!(flags(0x7f00_007f_ffff).unwrap().contains("pf"));
        assert_eq!(flags(0x7f00_0080_0000).unwrap(), "rd wr mr mw me ac sd");
        assert_eq!(flags(0x7f00_0090_0000), None);
    }

    #[test]
    fn entry_splits_into_present_bit_and_frame_number() {
        let entry = Entry(0xa180_0000_0012_3456);
        assert!(entry.is_present());
        assert_eq!(entry.pfn(), 0x12_3456);
        assert!(!Entry(0x0080_0000_0000_0000).is_present());
    }

    #[test]
    fn own_stack_is_ordinary_memory_and_present() {
        let on_stack = 7u64;
        let ptr = NonNull::from(&on_stack).cast();
        assert!(!is_pfnmap(ptr).unwrap());
        let mut entries = Vec::new();
        read(ptr, 8, |entry| {
            entries.push(entry);
            true
        })
        .unwrap();
        assert_eq!(entries.len(), 1);
        assert!(entries[0].is_present());
    }

    #[test]
    fn a_range_is_read_only_as_far_as_it_is_wanted() {
        // The program's data, since a stack may lie at the end of the address space, where pagemap ends.
        static OF_PROGRAM: [u64; 4] = [7; 4];
        let ptr = NonNull::from(&OF_PROGRAM).cast();
        let mut seen = 0;
        // More entries than fit into any machine's memory.
        read(ptr, usize::MAX / 4, |_| {
            seen += 1;
            seen < 3
        })
        .unwrap();
        assert_eq!(seen, 3);
        assert!(read(ptr, usize::MAX, |_| true).is_err());
    }
}
