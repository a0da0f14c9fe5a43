// SPDX-License-Identifier: MPL-2.0
//! From a mapping to its physical extents by way of pagemap.

use std::io;
use std::ptr::NonNull;

use super::{Address, AddressSource, AddressUnknown, Extent, PhysAddr};
use crate::sys::mmap::page_size_bytes;
use crate::sys::pagemap::{self, Entry};
use crate::sys::{self};

/// Where `ptr .. ptr + len_bytes` is, according to pagemap. All pages must have been
/// touched before.
pub(super) fn look_up(ptr: NonNull<u8>, len_bytes: usize) -> Result<Address, AddressUnknown> {
    let entries = pagemap::read(ptr, len_bytes).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => AddressUnknown::NoPermission,
        _ => AddressUnknown::Pagemap(sys::describe(&error)),
    })?;
    let page = page_size_bytes();
    let first_offset = ptr.as_ptr() as usize % page;
    match extents(&entries, page as u64, first_offset as u64, len_bytes as u64) {
        Ok(extents) => {
            Address::new(extents, AddressSource::Pagemap).ok_or(AddressUnknown::NotPresent)
        }
        Err(Unlisted::Hidden) => Err(AddressUnknown::NoPermission),
        Err(Unlisted::Absent) => match pagemap::is_pfnmap(ptr) {
            Ok(true) => Err(AddressUnknown::PfnMap),
            Ok(false) | Err(_) => Err(AddressUnknown::NotPresent),
        },
    }
}

/// Why pagemap's entries hold no address.
#[derive(Debug, PartialEq, Eq)]
enum Unlisted {
    /// Present, but the frame number is withheld.
    Hidden,
    /// Not present, or not walked.
    Absent,
}

/// One extent for each page, the first and the last cut to the range.
fn extents(
    entries: &[Entry],
    page_bytes: u64,
    first_offset: u64,
    len_bytes: u64,
) -> Result<Vec<Extent>, Unlisted> {
    if !entries.iter().all(|entry| entry.is_present()) {
        return Err(Unlisted::Absent);
    }
    // Frame 0 belongs to the firmware; as an entry it means CAP_SYS_ADMIN is missing.
    if entries.iter().any(|entry| entry.pfn() == 0) {
        return Err(Unlisted::Hidden);
    }
    let mut offset = first_offset;
    let mut rest = len_bytes;
    Ok(entries
        .iter()
        .map(|entry| {
            let extent = Extent {
                phys: PhysAddr(entry.pfn() * page_bytes + offset),
                len_bytes: rest.min(page_bytes - offset),
            };
            rest -= extent.len_bytes;
            offset = 0;
            extent
        })
        .collect())
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

    #[test]
    fn first_and_last_page_are_cut_to_the_range() {
        let entries = [present(5), present(9)];
        assert_eq!(
            extents(&entries, 4096, 100, 4096),
            Ok(vec![pair(5 * 4096 + 100, 3996), pair(9 * 4096, 100)])
        );
    }

    #[test]
    fn frame_number_zero_is_hidden_not_address_zero() {
        let entries = [present(5), Entry(PRESENT)];
        assert_eq!(extents(&entries, 4096, 0, 8192), Err(Unlisted::Hidden));
    }

    #[test]
    fn a_single_absent_page_leaves_the_address_unknown() {
        // Swapped out: bit 62, and the swap slot where the frame number would be.
        let entries = [present(5), Entry(1 << 62 | 77)];
        assert_eq!(extents(&entries, 4096, 0, 8192), Err(Unlisted::Absent));
    }
}
