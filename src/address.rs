// SPDX-License-Identifier: MPL-2.0
//! Physical addresses as lists of extents. Pure.

use std::{fmt, sync::Arc};

/// A physical address as the CPU's memory controller counts it. A device behind an IOMMU needs another one.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A run of physically contiguous bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Address of the first byte.
    pub phys: PhysAddr,
    /// Length in bytes.
    pub len_bytes: u64,
}

/// Where an address was learnt.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressSource {
    /// /proc/self/pagemap.
    Pagemap,
    /// The kernel's cma tracepoint, seen while the block was allocated.
    CmaTrace,
    /// `smem_start` of a framebuffer (struct fb_fix_screeninfo).
    SmemStart,
    /// The owner of external memory gave it, or the name of memory of /dev/mem.
    User,
    /// A driver told it in sysfs: UIO, u-dma-buf, PCI.
    Sysfs,
}

impl fmt::Display for AddressSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pagemap => "pagemap",
            Self::CmaTrace => "cma-trace",
            Self::SmemStart => "smem-start",
            Self::User => "user",
            Self::Sysfs => "sysfs",
        })
    }
}

/// The physical address of a block of memory: its extents in the order of its bytes. There is at least one,
/// and extents that continue one another are merged.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Shared by the block and the buffers over all of it, since there may be an extent for each page.
    extents: Arc<[Extent]>,
    source: AddressSource,
}

impl Address {
    /// Merges extents that continue one another. `None` if the extents have no bytes, if an extent runs
    /// past the end of the address space, or if their total length exceeds `u64::MAX` bytes.
    pub fn new(extents: Vec<Extent>, source: AddressSource) -> Option<Self> {
        let mut merged: Vec<Extent> = Vec::with_capacity(extents.len());
        // Extents may come from another process, so these sums are checked. Later sums rely on that.
        let mut total_bytes = 0u64;
        for extent in extents {
            if extent.len_bytes == 0 {
                continue;
            }
            extent.phys.0.checked_add(extent.len_bytes - 1)?;
            total_bytes = total_bytes.checked_add(extent.len_bytes)?;
            match merged.last_mut() {
                Some(last) if last.phys.0.checked_add(last.len_bytes) == Some(extent.phys.0) => {
                    last.len_bytes += extent.len_bytes;
                }
                _ => merged.push(extent),
            }
        }
        (!merged.is_empty()).then(|| Self {
            extents: merged.into(),
            source,
        })
    }

    /// The address of `len_bytes` contiguous bytes at `phys`. `None` as for [`Self::new`].
    pub fn contiguous(phys: PhysAddr, len_bytes: u64, source: AddressSource) -> Option<Self> {
        Self::new(vec![Extent { phys, len_bytes }], source)
    }

    /// The address that the owner of `len_bytes` contiguous bytes gives for the first of them.
    pub(crate) fn given(phys: PhysAddr, len_bytes: u64) -> Result<Self, AddressUnknown> {
        Self::contiguous(phys, len_bytes, AddressSource::User).ok_or(AddressUnknown::GivenPastEnd {
            size_bytes: len_bytes,
        })
    }

    /// The extents, in the order of the memory's bytes.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Address of the first byte.
    pub fn first(&self) -> PhysAddr {
        self.extents[0].phys
    }

    /// Whether one extent holds all bytes.
    pub fn is_contiguous(&self) -> bool {
        self.extents.len() == 1
    }

    /// Length of all extents in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len_bytes).sum()
    }

    /// Where the address was learnt.
    pub fn source(&self) -> AddressSource {
        self.source
    }

    /// Address of the byte at `offset_bytes`; `None` past the end.
    pub fn at(&self, offset_bytes: u64) -> Option<PhysAddr> {
        let mut rest = offset_bytes;
        for extent in self.extents.iter() {
            if rest < extent.len_bytes {
                return Some(PhysAddr(extent.phys.0 + rest));
            }
            rest -= extent.len_bytes;
        }
        None
    }

    /// The address of a part. `None` if the part is empty or runs past the end.
    pub fn slice(&self, offset_bytes: u64, len_bytes: u64) -> Option<Self> {
        if offset_bytes.checked_add(len_bytes)? > self.len_bytes() {
            return None;
        }
        if (offset_bytes, len_bytes) == (0, self.len_bytes()) {
            return Some(self.clone());
        }
        let (mut skip, mut want) = (offset_bytes, len_bytes);
        let mut part = Vec::new();
        for extent in self.extents.iter() {
            if want == 0 {
                break;
            }
            if skip >= extent.len_bytes {
                skip -= extent.len_bytes;
                continue;
            }
            let len_bytes = want.min(extent.len_bytes - skip);
            part.push(Extent {
                phys: PhysAddr(extent.phys.0 + skip),
                len_bytes,
            });
            want -= len_bytes;
            skip = 0;
        }
        Self::new(part, self.source)
    }

    /// Address of the first byte of a part that lies in one extent. `None` if the part does not.
    pub fn contiguous_at(&self, offset_bytes: u64, len_bytes: u64) -> Option<PhysAddr> {
        let mut rest = offset_bytes;
        for extent in self.extents.iter() {
            if rest < extent.len_bytes {
                return (len_bytes <= extent.len_bytes - rest)
                    .then_some(PhysAddr(extent.phys.0 + rest));
            }
            rest -= extent.len_bytes;
        }
        None
    }

    /// How many of the range's pages of `page_bytes` lie in one piece that begins at a multiple of that size.
    pub(crate) fn n_whole_pages(&self, page_bytes: u64) -> usize {
        (0..self.len_bytes() / page_bytes)
            .filter_map(|n| self.contiguous_at(n * page_bytes, page_bytes))
            .filter(|phys| phys.0.is_multiple_of(page_bytes))
            .count()
    }

    /// Address of the highest byte of all extents.
    pub fn last_byte(&self) -> PhysAddr {
        let last = |extent: &Extent| PhysAddr(extent.phys.0 + (extent.len_bytes - 1));
        self.extents
            .iter()
            .map(last)
            .fold(last(&self.extents[0]), Ord::max)
    }
}

/// Shows few extents, since a frame in scattered pages has thousands.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        write!(f, "{} [", self.source)?;
        for (index, extent) in self.extents.iter().take(SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}+{:#x}", extent.phys, extent.len_bytes)?;
        }
        match self.extents.len().checked_sub(SHOWN) {
            None | Some(0) => f.write_str("]"),
            Some(more) => write!(f, ", and {more} more]"),
        }
    }
}

/// Why an address is unknown. The messages say what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressUnknown {
    /// The kernel hides addresses from this process. The string names the file or call that refused, and
    /// what is missing.
    #[error("{0}")]
    NoPermission(String),
    /// The mapping has no pages that pagemap could list.
    #[error(
        "the driver maps this memory without pages (VM_PFNMAP), and the kernel lists no address for such a mapping: use kind cma or udmabuf"
    )]
    PfnMap,
    /// Some page is not in memory.
    #[error("not all pages are in memory: touch them, and make sure that they cannot be swapped")]
    NotPresent,
    /// The mapping is VM_PFNMAP, and the tracepoint gave no address either.
    #[error("the mapping is VM_PFNMAP, and the kernel's cma tracepoint cannot say either: {0}")]
    TraceUnavailable(String),
    /// External memory whose owner gave no address.
    #[error("the owner of this memory gave no address: give one, or ask for it to be looked up")]
    NotGiven,
    /// The owner of external memory gave the address of a part of it only.
    #[error(
        "the owner of this memory gave the address of {given_bytes} of its {size_bytes} bytes: give that of all, or none to have it looked up"
    )]
    GivenInPart {
        /// Bytes whose address was given.
        given_bytes: u64,
        /// Bytes of the block.
        size_bytes: u64,
    },
    /// The owner of external memory gave an address from which the memory does not fit below 2^64.
    #[error(
        "the owner of this memory gave an address from which its {size_bytes} bytes run past the last physical address: give that of the first byte, or none to have it looked up"
    )]
    GivenPastEnd {
        /// Bytes of the block.
        size_bytes: u64,
    },
    /// /proc/self/pagemap could not be read.
    #[error(
        "/proc/self/pagemap: {0}: the kernel needs CONFIG_PROC_PAGE_MONITOR, and /proc must be mounted"
    )]
    Pagemap(String),
    /// The buffer no longer holds the memory that its pool gave it.
    #[error(
        "the buffer's memory was replaced: map a buffer for writing only while it is not shared"
    )]
    Replaced,
    /// The process that sent the buffer does not know the address; the string is its reason.
    #[error("{0} (says the process that sent the buffer)")]
    Sender(String),
    /// The copy of this library that made the buffer does not know the address; the string is its reason.
    #[error("{0}")]
    Other(String),
    /// The sender's pool withholds addresses from other processes.
    #[error("the pool that the buffer comes from tells no other process (withhold-address)")]
    Withheld,
    /// The owner of external memory has freed it.
    #[error("the owner of this memory has freed it")]
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(phys: u64, len_bytes: u64) -> Extent {
        Extent {
            phys: PhysAddr(phys),
            len_bytes,
        }
    }

    fn address(extents: &[(u64, u64)]) -> Address {
        Address::new(
            extents.iter().map(|&(p, l)| extent(p, l)).collect(),
            AddressSource::Pagemap,
        )
        .unwrap()
    }

    #[test]
    fn neighbours_merge_and_gaps_stay() {
        let a = address(&[(0x1000, 0x1000), (0x2000, 0x1000), (0x8000, 0x1000)]);
        assert_eq!(
            a.extents(),
            [extent(0x1000, 0x2000), extent(0x8000, 0x1000)]
        );
        assert!(!a.is_contiguous());
        assert!(address(&[(0x1000, 1), (0x1001, 1)]).is_contiguous());
    }

    #[test]
    fn a_page_that_lies_in_pieces_or_elsewhere_than_at_its_multiple_is_not_whole() {
        // One piece of two pages, a page in two pieces, a page in one piece at no multiple, and half a page.
        let a = address(&[
            (0x20_0000, 0x40_0000),
            (0x80_0000, 0x10_0000),
            (0xa0_0000, 0x10_0000),
            (0xd0_0000, 0x20_0000),
            (0x100_0000, 0x10_0000),
        ]);
        assert_eq!(a.n_whole_pages(0x20_0000), 2);
        assert_eq!(a.n_whole_pages(0x10_0000), 9);
        assert_eq!(a.n_whole_pages(0x100_0000), 0);
    }

    #[test]
    fn no_bytes_are_no_address() {
        assert_eq!(Address::new(vec![], AddressSource::User), None);
        assert_eq!(Address::new(vec![extent(5, 0)], AddressSource::User), None);
    }

    #[test]
    fn extent_past_the_end_of_the_address_space_is_refused() {
        assert!(Address::new(vec![extent(u64::MAX, 1)], AddressSource::User).is_some());
        assert_eq!(
            Address::new(vec![extent(u64::MAX, 2)], AddressSource::User),
            None
        );
    }

    #[test]
    fn more_bytes_than_a_number_can_say_are_no_address() {
        let none = |pieces: &[(u64, u64)]| {
            let extents = pieces
                .iter()
                .map(|&(phys, len)| extent(phys, len))
                .collect();
            Address::new(extents, AddressSource::User).is_none()
        };
        // All of the address space, in two pieces that touch: 2^64 bytes.
        assert!(none(&[
            (0, 0xffff_ffff_ffff),
            (0xffff_ffff_ffff, u64::MAX - 0xffff_ffff_fffe)
        ]));
        // The same bytes twice, in pieces that do not continue one another.
        assert!(none(&[(0, u64::MAX), (5, u64::MAX - 5)]));
        assert!(!none(&[(0, u64::MAX)]));
        assert!(!none(&[(1, u64::MAX - 1), (0, 1)]));
    }

    #[test]
    fn debug_output_is_short_however_scattered_the_memory_is() {
        let scattered: Vec<_> = (0..2025).map(|i| (i * 0x3000, 0x1000)).collect();
        let text = format!("{:?}", address(&scattered));
        assert!(text.len() < 200, "{} bytes", text.len());
        assert!(text.ends_with(", and 2021 more]"), "{text}");
        let text = format!("{:?}", address(&[(0x1000, 0x1000), (0x8000, 0x1000)]));
        assert_eq!(text, "pagemap [0x1000+0x1000, 0x8000+0x1000]");
    }

    #[test]
    fn last_byte_is_the_highest_not_the_last_in_order() {
        let a = address(&[(0x9000, 0x1000), (0x1000, 0x1000)]);
        assert_eq!(a.first(), PhysAddr(0x9000));
        assert_eq!(a.last_byte(), PhysAddr(0x9fff));
    }

    #[test]
    fn slice_outside_is_none() {
        let a = address(&[(0x1000, 0x1000)]);
        assert_eq!(a.slice(0, 0x1001), None);
        assert_eq!(a.slice(0x1000, 0), None);
        assert_eq!(a.slice(u64::MAX, 2), None);
        assert_eq!(a.at(0x1000), None);
    }

    /// Numbers that are small or near the limits of integer types.
    fn edgy() -> impl Strategy<Value = u64> {
        prop_oneof![
            0u64..300,
            any::<u64>(),
            (0u64..300).prop_map(|n| u64::MAX - n),
            (0u64..300).prop_map(|n| (1 << 63) - n),
            (0u64..4).prop_map(|n| (1 << 32) - 2 + n),
        ]
    }

    proptest! {
        #[test]
        fn no_number_is_too_large_to_be_asked_about(
            pieces in proptest::collection::vec((edgy(), edgy()), 0..8),
            questions in proptest::collection::vec((edgy(), edgy()), 4),
        ) {
            let extents: Vec<_> = pieces.iter().map(|&(phys, len)| extent(phys, len)).collect();
            let total: u128 = pieces.iter().map(|&(_, len)| u128::from(len)).sum();
            let fits = pieces.iter().all(|&(phys, len)| len == 0 || phys.checked_add(len - 1).is_some());
            let made = Address::new(extents, AddressSource::User);
            prop_assert_eq!(made.is_some(), fits && total > 0 && total <= u128::from(u64::MAX));
            let Some(a) = made else { return Ok(()) };
            prop_assert_eq!(u128::from(a.len_bytes()), total);
            for (offset, len) in questions {
                let mut rest = offset;
                let mut naive = None;
                for &(phys, len) in &pieces {
                    if rest < len {
                        naive = Some(PhysAddr(phys + rest));
                        break;
                    }
                    rest -= len;
                }
                prop_assert_eq!(a.at(offset), naive);
                if let Some(part) = a.slice(offset, len) {
                    prop_assert_eq!(part.len_bytes(), len);
                    prop_assert_eq!(Some(part.first()), naive);
                }
                if let Some(phys) = a.contiguous_at(offset, len) {
                    prop_assert_eq!(Some(phys), naive);
                }
            }
        }

        #[test]
        fn slice_agrees_with_at_byte_by_byte(
            frames in proptest::collection::vec(0u64..64, 1..12),
            cut in (0u64..600, 1u64..600),
        ) {
            // Pages of 16 bytes keep the walk over every byte short.
            let a = Address::new(frames.iter().map(|f| extent(f * 16, 16)).collect(), AddressSource::Pagemap).unwrap();
            prop_assert_eq!(a.len_bytes(), frames.len() as u64 * 16);
            for (i, f) in frames.iter().enumerate() {
                prop_assert_eq!(a.at(i as u64 * 16 + 3), Some(PhysAddr(f * 16 + 3)));
            }
            match a.slice(cut.0, cut.1) {
                None => prop_assert!(cut.0 + cut.1 > a.len_bytes()),
                Some(part) => {
                    prop_assert_eq!(part.len_bytes(), cut.1);
                    for i in 0..cut.1 {
                        prop_assert_eq!(part.at(i), a.at(cut.0 + i));
                    }
                    let expected = part.is_contiguous().then_some(part.first());
                    prop_assert_eq!(a.contiguous_at(cut.0, cut.1), expected);
                    prop_assert!((0..cut.1).all(|i| part.at(i) <= Some(part.last_byte())));
                }
            }
            prop_assert!(a.extents().windows(2).all(|w| w[0].phys.0 + w[0].len_bytes != w[1].phys.0));
        }
    }
}
