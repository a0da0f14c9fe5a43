// SPDX-License-Identifier: MPL-2.0
//! Looks up the physical extents of a mapping in pagemap.

use std::io;
use std::ptr::NonNull;

use super::permission;
use crate::address::{Address, AddressSource, AddressUnknown, Extent, PhysAddr};
use crate::sys;
use crate::sys::mmap::page_size_bytes;
use crate::sys::pagemap::{self, Entry};

/// The address of `ptr .. ptr + len_bytes` according to pagemap. All pages must have been touched before.
pub(super) fn look_up(ptr: NonNull<u8>, len_bytes: usize) -> Result<Address, AddressUnknown> {
    read(ptr, len_bytes).map_err(NotListed::reason)
}

/// The same for a caller that knows another source. Why pagemap does not list an address takes milliseconds to find out.
pub(super) fn read(ptr: NonNull<u8>, len_bytes: usize) -> Result<Address, NotListed> {
    let page_bytes = page_size_bytes();
    let first_offset = ptr.as_ptr() as usize % page_bytes;
    let mut collector =
        ExtentCollector::new(page_bytes as u64, first_offset as u64, len_bytes as u64);
    pagemap::read(ptr, len_bytes, |entry| collector.take(entry)).map_err(NotListed::Failed)?;
    match collector.missing_frame {
        None => {
            let address = Address::new(collector.extents, AddressSource::Pagemap);
            address.ok_or(NotListed::Frame(MissingFrame::Absent, ptr))
        }
        Some(missing) => Err(NotListed::Frame(missing, ptr)),
    }
}

/// That pagemap lists no address.
#[derive(Debug)]
pub(super) enum NotListed {
    Failed(io::Error),
    /// A page of the mapping at this pointer shows no frame number.
    Frame(MissingFrame, NonNull<u8>),
}

impl NotListed {
    /// Finds out why.
    pub(super) fn reason(self) -> AddressUnknown {
        match self {
            Self::Failed(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                AddressUnknown::NoPermission(permission::why_pagemap_refused(&error))
            }
            Self::Failed(error) => AddressUnknown::Pagemap(sys::describe(&error)),
            Self::Frame(MissingFrame::Hidden, _) => {
                AddressUnknown::NoPermission(permission::why_frames_are_hidden())
            }
            Self::Frame(MissingFrame::Absent, ptr) => match pagemap::is_pfnmap(ptr) {
                Ok(true) => AddressUnknown::PfnMap,
                Ok(false) | Err(_) => AddressUnknown::NotPresent,
            },
        }
    }
}

/// Why pagemap's entries hold no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MissingFrame {
    /// The page is present, but its frame number is hidden.
    Hidden,
    /// The page is not present, or pagemap does not walk the mapping.
    Absent,
}

/// Collects one extent for each page. The first and the last extent are cut to the range.
struct ExtentCollector {
    page_bytes: u64,
    /// Where the range begins in the next page.
    offset: u64,
    rest_bytes: u64,
    extents: Vec<Extent>,
    missing_frame: Option<MissingFrame>,
}

impl ExtentCollector {
    fn new(page_bytes: u64, first_offset: u64, len_bytes: u64) -> Self {
        Self {
            page_bytes,
            offset: first_offset,
            rest_bytes: len_bytes,
            extents: Vec::new(),
            missing_frame: None,
        }
    }

    /// Returns false once it is known that there is no address.
    fn take(&mut self, entry: Entry) -> bool {
        // An absent page tells more than a hidden one, so a hidden page does not end the search.
        if !entry.is_present() {
            self.missing_frame = Some(MissingFrame::Absent);
            return false;
        }
        // Frame 0 belongs to the firmware, so an entry of 0 means that the numbers are hidden. An address
        // that overflows is not one.
        let phys = entry.pfn().checked_mul(self.page_bytes);
        match phys.filter(|&phys| phys != 0) {
            Some(phys) if self.missing_frame.is_none() => {
                let len_bytes = self.rest_bytes.min(self.page_bytes - self.offset);
                self.extents.push(Extent {
                    phys: PhysAddr(phys + self.offset),
                    len_bytes,
                });
                self.rest_bytes -= len_bytes;
                self.offset = 0;
            }
            Some(_) => {}
            None => self.missing_frame = Some(MissingFrame::Hidden),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: u64 = 1 << 63;

    fn present(pfn: u64) -> Entry {
        Entry(PRESENT | 1 << 61 | pfn)
    }

    fn pair(phys: u64, len_bytes: u64) -> Extent {
        Extent {
            phys: PhysAddr(phys),
            len_bytes,
        }
    }

    fn extents(
        entries: &[Entry],
        first_offset: u64,
        len_bytes: u64,
    ) -> Result<Vec<Extent>, MissingFrame> {
        let mut collector = ExtentCollector::new(4096, first_offset, len_bytes);
        let _seen = entries.iter().all(|&entry| collector.take(entry));
        collector.missing_frame.map_or(Ok(collector.extents), Err)
    }

    #[test]
    fn first_and_last_page_are_cut_to_the_range() {
        let entries = [present(5), present(9)];
        assert_eq!(
            extents(&entries, 100, 4096),
            Ok(vec![pair(5 * 4096 + 100, 3996), pair(9 * 4096, 100)])
        );
    }

    #[test]
    fn frame_number_zero_is_hidden_not_address_zero() {
        let entries = [present(5), Entry(PRESENT), present(6)];
        assert_eq!(extents(&entries, 0, 12288), Err(MissingFrame::Hidden));
    }

    #[test]
    fn a_single_absent_page_leaves_the_address_unknown() {
        // A swapped-out page: bit 62, and the swap slot in place of the frame number.
        let swapped = Entry(1 << 62 | 77);
        let absent = Err(MissingFrame::Absent);
        assert_eq!(extents(&[present(5), swapped], 0, 8192), absent);
        assert_eq!(extents(&[Entry(PRESENT), swapped], 0, 8192), absent);
    }

    #[test]
    fn a_frame_number_beyond_all_addresses_is_none() {
        let last = (1 << 52) - 1;
        let entries = [present(last)];
        assert_eq!(extents(&entries, 0, 4096), Ok(vec![pair(last << 12, 4096)]));
        assert_eq!(
            extents(&[present((1 << 55) - 1)], 0, 4096),
            Err(MissingFrame::Hidden)
        );
    }
}
