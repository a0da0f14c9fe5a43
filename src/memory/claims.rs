// SPDX-License-Identifier: MPL-2.0
//! The ranges of physical addresses that the regions of this process use. Areas with different names may
//! overlap, so one list holds the ranges of all of them.

use std::collections::BTreeMap;

use crate::address::PhysAddr;
use crate::locks::Mutex;

/// A range of physical addresses. It has at least one byte, and its last one may be the last of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: u64,
    last: u64,
}

impl Span {
    /// `None` if the range is empty or runs past the last address.
    pub fn new(first: u64, len_bytes: u64) -> Option<Self> {
        let last = first.checked_add(len_bytes.checked_sub(1)?)?;
        Some(Self { first, last })
    }

    pub fn first(self) -> u64 {
        self.first
    }

    pub fn last(self) -> u64 {
        self.last
    }

    /// Length in bytes. The range of all addresses would have one byte more than this returns.
    pub fn len_bytes(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// Why no part of an area is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFreePart {
    /// Bytes of the area that no range of this process holds.
    pub free_bytes: u64,
    /// Length of the longest free range.
    pub longest_bytes: u64,
}

/// Disjoint ranges: the first address of each, and its last one.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The free ranges of an area, in the order of their addresses.
    fn free(&self, area: Span) -> Vec<Span> {
        let mut free = Vec::new();
        // The first address that may be free. `None` if the ranges reach up to the last address.
        let mut next = Some(area.first);
        let taken = self.0.range(..=area.last);
        for (&first, &last) in taken.filter(|&(_, &last)| last >= area.first) {
            if let Some(next) = next
                && next < first
            {
                free.push(Span {
                    first: next,
                    last: first - 1,
                });
            }
            next = last.checked_add(1);
        }
        if let Some(next) = next
            && next <= area.last
        {
            free.push(Span {
                first: next,
                last: area.last,
            });
        }
        free
    }

    /// Takes the lowest free part of an area that begins at a multiple of `page_bytes`, a power of two.
    fn take(
        &mut self,
        area: Span,
        len_bytes: u64,
        page_bytes: u64,
    ) -> Result<PhysAddr, NoFreePart> {
        let free = self.free(area);
        let place = free.iter().find_map(|range| {
            let first = range.first.checked_next_multiple_of(page_bytes)?;
            Span::new(first, len_bytes).filter(|part| part.last <= range.last)
        });
        match place {
            Some(part) => {
                self.0.insert(part.first, part.last);
                Ok(PhysAddr(part.first))
            }
            None => Err(NoFreePart {
                free_bytes: free.iter().map(|range| range.len_bytes()).sum(),
                longest_bytes: free
                    .iter()
                    .map(|range| range.len_bytes())
                    .max()
                    .unwrap_or(0),
            }),
        }
    }

    fn give_back(&mut self, first: PhysAddr) {
        self.0.remove(&first.0);
    }
}

static RANGES: Mutex<Ranges> = Mutex::new(Ranges::new());

/// A range that belongs to one region of this process. Dropping this gives it back.
#[derive(Debug)]
pub struct Claim(PhysAddr);

impl Claim {
    /// Takes the lowest part of the area that is free and begins at a page.
    pub fn of_lowest(area: Span, len_bytes: u64, page_bytes: u64) -> Result<Self, NoFreePart> {
        RANGES.lock().take(area, len_bytes, page_bytes).map(Self)
    }

    /// Address of the first byte.
    pub fn first(&self) -> PhysAddr {
        self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        RANGES.lock().give_back(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;

    fn span(first: u64, len_bytes: u64) -> Span {
        Span::new(first, len_bytes).unwrap()
    }

    #[test]
    fn the_lowest_free_part_is_taken_and_a_returned_one_again() {
        let mut ranges = Ranges::default();
        let area = span(0x10000, 4 * PAGE);
        let take = |ranges: &mut Ranges| ranges.take(area, PAGE, PAGE);
        for page in 0..4 {
            assert_eq!(take(&mut ranges), Ok(PhysAddr(0x10000 + page * PAGE)));
        }
        let full = NoFreePart {
            free_bytes: 0,
            longest_bytes: 0,
        };
        assert_eq!(take(&mut ranges), Err(full));
        ranges.give_back(PhysAddr(0x11000));
        ranges.give_back(PhysAddr(0x13000));
        let scattered = NoFreePart {
            free_bytes: 2 * PAGE,
            longest_bytes: PAGE,
        };
        assert_eq!(ranges.take(area, 2 * PAGE, PAGE), Err(scattered));
        assert_eq!(take(&mut ranges), Ok(PhysAddr(0x11000)));
    }

    #[test]
    fn areas_that_overlap_see_what_the_other_has_taken() {
        let mut ranges = Ranges::default();
        let (low, high) = (span(0x10000, 4 * PAGE), span(0x12000, 4 * PAGE));
        assert_eq!(ranges.take(low, 3 * PAGE, PAGE), Ok(PhysAddr(0x10000)));
        assert_eq!(ranges.take(high, 2 * PAGE, PAGE), Ok(PhysAddr(0x13000)));
        assert!(ranges.take(low, PAGE, PAGE).is_err());
        assert_eq!(ranges.take(high, PAGE, PAGE), Ok(PhysAddr(0x15000)));
    }

    #[test]
    fn the_last_addresses_of_all_can_be_taken() {
        let mut ranges = Ranges::default();
        let area = span(u64::MAX - 2 * PAGE + 1, 2 * PAGE);
        assert_eq!(
            ranges.take(area, 2 * PAGE, PAGE),
            Ok(PhysAddr(area.first()))
        );
        assert!(ranges.take(area, PAGE, PAGE).is_err());
        assert_eq!(Span::new(u64::MAX, 2), None);
        assert_eq!(Span::new(5, 0), None);
    }

    #[test]
    fn a_claim_that_ends_is_free_again() {
        // Addresses that no other test of this binary uses.
        let area = span(0xfff0_0000_0000, 2 * PAGE);
        let first = Claim::of_lowest(area, PAGE, PAGE).unwrap();
        let second = Claim::of_lowest(area, PAGE, PAGE).unwrap();
        assert_eq!(second.first(), PhysAddr(area.first() + PAGE));
        drop(first);
        let again = Claim::of_lowest(area, PAGE, PAGE).unwrap();
        assert_eq!(again.first(), PhysAddr(area.first()));
        assert!(Claim::of_lowest(area, PAGE, PAGE).is_err());
    }

    proptest! {
        #[test]
        fn parts_never_overlap_and_lie_in_their_area(
            steps in proptest::collection::vec(
                (0u64..24, 1u64..24, 1u64..6, any::<prop::sample::Index>(), any::<bool>()), 1..60),
        ) {
            let mut ranges = Ranges::default();
            let mut held: Vec<Span> = Vec::new();
            for (start, area_pages, pages, which, gives_back) in steps {
                if gives_back && !held.is_empty() {
                    let part = held.swap_remove(which.index(held.len()));
                    ranges.give_back(PhysAddr(part.first()));
                    continue;
                }
                // An area may begin and end within a page.
                let area = span(start * PAGE + start % 3, area_pages * PAGE);
                match ranges.take(area, pages * PAGE, PAGE) {
                    Ok(first) => {
                        let part = span(first.0, pages * PAGE);
                        prop_assert!(first.0.is_multiple_of(PAGE));
                        prop_assert!(area.first() <= part.first() && part.last() <= area.last());
                        for other in &held {
                            prop_assert!(part.last() < other.first() || other.last() < part.first());
                        }
                        held.push(part);
                    }
                    Err(none) => {
                        let is_free = |byte: u64| !held.iter().any(|p| (p.first()..=p.last()).contains(&byte));
                        // Ranges begin at pages, so every page start in the area tells of its page.
                        let starts = (area.first().next_multiple_of(PAGE)..=area.last()).step_by(PAGE as usize);
                        let starts: Vec<u64> = starts.filter(|&at| at + (PAGE - 1) <= area.last()).collect();
                        let runs = starts.windows(pages as usize);
                        prop_assert!(!runs.into_iter().any(|run| run.iter().all(|&at| is_free(at))));
                        prop_assert!(none.longest_bytes <= none.free_bytes);
                        prop_assert!(none.free_bytes <= area.len_bytes());
                    }
                }
            }
        }
    }
}
