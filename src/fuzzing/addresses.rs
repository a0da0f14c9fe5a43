// SPDX-License-Identifier: MPL-2.0
//! Targets: physical addresses, from wherever they come.

use super::{Input, c_text};
use crate::{
    memory::{
        Address, AddressSource, Extent, PhysAddr,
        area_name::{AreaName, Part, Place},
    },
    meta::wire,
    sys::{cma_trace::Format, iomem},
};

/// Lists of extents, and questions about them.
pub fn extents(bytes: &[u8]) {
    let mut input = Input(bytes);
    let pieces = (0..input.u8() % 12).map(|_| (input.edgy(), input.edgy()));
    let pieces: Vec<(u64, u64)> = pieces.collect();
    let extents = pieces.iter().map(|&(phys, len_bytes)| Extent {
        phys: PhysAddr(phys),
        len_bytes,
    });
    let total: u128 = pieces.iter().map(|&(_, len)| u128::from(len)).sum();
    let fits = |&(phys, len): &(u64, u64)| len == 0 || phys.checked_add(len - 1).is_some();
    let is_address = pieces.iter().all(fits) && total > 0 && u64::try_from(total).is_ok();
    let address = Address::new(extents.collect(), AddressSource::User);
    assert_eq!(address.is_some(), is_address);
    let Some(address) = address else { return };
    assert_eq!(u128::from(address.len_bytes()), total);
    assert_consistent(&address);
    while !input.is_empty() {
        let (offset, len) = (input.edgy(), input.edgy());
        let mut rest = offset;
        let holder = pieces.iter().find(|&&(_, len)| {
            let is_here = rest < len;
            rest -= if is_here { 0 } else { len };
            is_here
        });
        let naive = holder.map(|&(phys, _)| PhysAddr(phys + rest));
        assert_eq!(address.at(offset), naive);
        let is_inside = offset
            .checked_add(len)
            .is_some_and(|end| u128::from(end) <= total);
        let part = address.slice(offset, len);
        assert_eq!(part.is_some(), is_inside && len > 0);
        let Some(part) = part else { continue };
        assert_consistent(&part);
        assert_eq!((part.len_bytes(), Some(part.first())), (len, naive));
        assert_eq!(part.at(len - 1), address.at(offset + (len - 1)));
        let contiguous = part.is_contiguous().then(|| part.first());
        assert_eq!(address.contiguous_at(offset, len), contiguous);
    }
}

fn assert_consistent(address: &Address) {
    let extents = address.extents();
    assert!(extents.iter().all(|extent| extent.len_bytes > 0));
    let touch =
        |pair: &[Extent]| pair[0].phys.0.checked_add(pair[0].len_bytes) == Some(pair[1].phys.0);
    assert!(!extents.windows(2).any(touch), "neighbours are merged");
    assert!(
        extents
            .iter()
            .all(|extent| extent.phys <= address.last_byte())
    );
    assert!(format!("{address:?}").len() < 300);
}

/// The meta as another process sends it.
pub fn meta_wire(bytes: &[u8]) {
    match wire::read(bytes) {
        Ok((facts, file)) => {
            assert!(facts.id != 0 && facts.size_bytes > 0);
            if let Ok(address) = &facts.address {
                assert_consistent(address);
                assert_eq!(address.len_bytes(), facts.size_bytes as u64);
            }
            assert!(
                facts
                    .memory_offset_bytes
                    .checked_add(facts.size_bytes)
                    .is_some()
            );
            // What was understood can be sent on, and means the same.
            assert_eq!(wire::read(&wire::write(&facts, file)), Ok((facts, file)));
            // Neither less nor more is understood.
            assert!(wire::read(&bytes[..bytes.len() - 1]).is_err());
            assert!(wire::read(&[bytes, b"\0"].concat()).is_err());
        }
        Err(error) => super::assert_printable(&error),
    }
}

/// The records of a perf ring: a text in the form of the event's `format` file, a NUL, and the ring's bytes.
pub fn cma_trace(bytes: &[u8]) {
    const RECORD_SAMPLE: u32 = 9;
    let end = bytes.iter().position(|&byte| byte == 0);
    let (format, data) = bytes.split_at(end.unwrap_or(bytes.len()));
    let Some(format) = std::str::from_utf8(format).ok().and_then(Format::parse) else {
        return;
    };
    let data = data.get(1..).unwrap_or_default();
    let Some(found) = format.allocations(data) else {
        return;
    };
    assert!(found.iter().all(|allocation| allocation.pfn != 0));
    // Each allocation has a record of its own.
    let (mut rest, mut samples) = (data, 0);
    while let [a, b, c, d, _, _, low, high, ..] = *rest {
        let size = u16::from_ne_bytes([low, high]);
        samples += usize::from(u32::from_ne_bytes([a, b, c, d]) == RECORD_SAMPLE);
        rest = &rest[usize::from(size)..];
    }
    assert!(found.len() <= samples, "{} of {samples}", found.len());
    // Another ring that says the same doubles the answer; nothing is carried from one record to the next.
    let whole = &data[..data.len() - rest.len()];
    let twice = format.allocations(&[whole, whole].concat());
    assert_eq!(twice, Some([&found[..], &found[..]].concat()));
}

/// Names of areas of physical memory, as the property `heap` has them, and /proc/iomem, which they are compared with.
pub fn areas(bytes: &[u8]) {
    for range in iomem::parse(&String::from_utf8_lossy(bytes)) {
        let (first, last) = (range.first, range.last);
        let is_ram = range.name.starts_with("System RAM") && first <= last;
        assert_eq!(iomem::overlaps_system_ram(&[range], first, last), is_ram);
    }
    let Some(text) = c_text(bytes) else { return };
    match AreaName::parse(text) {
        Ok(area) => {
            let (path, part) = match area.place {
                Place::Memory(part) => {
                    assert!(part.offset_bytes > 0, "0 stands for an unknown address");
                    ("/dev/mem", Some(part))
                }
                Place::Device { part, .. } => {
                    let end = text.find(['@', ',']).unwrap_or(text.len());
                    (&text[..end], part)
                }
            };
            assert!(path.starts_with("/dev/") || path.starts_with("/sys/"));
            // The name, written anew, means the same.
            let part = part.map_or(
                String::new(),
                |Part {
                     offset_bytes,
                     len_bytes,
                 }| {
                    assert!(len_bytes > 0 && offset_bytes.checked_add(len_bytes - 1).is_some());
                    format!("@{offset_bytes:#x}+{len_bytes}")
                },
            );
            let sync = if area.is_sync { ",sync" } else { "" };
            assert_eq!(AreaName::parse(&format!("{path}{part}{sync}")), Ok(area));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
