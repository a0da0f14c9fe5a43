// SPDX-License-Identifier: MPL-2.0
//! What the pool reports: `stats` for programs, `dump` for people, and `describe` for
//! languages that cannot read the meta.

use std::{
    fmt::{self, Write},
    os::fd::{AsRawFd, BorrowedFd},
    sync::Arc,
};

use gst::{glib, prelude::*};

use super::slots::Share;
use crate::{
    memory::{Address, AddressUnknown, Extent, MemoryKind, Region},
    meta::PhysMemMeta,
};

pub(super) fn structure(
    kind: MemoryKind,
    share: &Share,
    last_error: Option<String>,
) -> gst::Structure {
    let slots = share.slots();
    let counters = slots.counters();
    let mut choices = Tally::default();
    let mut pin_notes = Tally::default();
    let mut unknown = Tally::default();
    let (mut bytes, mut large_page_bytes) = (0u64, 0u64);
    let mut buffers = Vec::new();
    slots.for_each(|slot| {
        let region = slot.region;
        bytes += region.size_bytes() as u64;
        large_page_bytes += region.large_page_bytes() as u64;
        choices.count(region.auto_choice().map(str::to_owned));
        pin_notes.count(Some(region.pin_note().to_owned()));
        unknown.count(region.address().err().map(ToString::to_string));
        let buffer = gst::Structure::builder("buffer")
            .field("id", slot.id)
            .field("state", slot.state)
            .field("refs", slot.refs)
            .field("detached", slot.is_detached)
            .field("acquired", slot.acquired);
        buffers.push(region_fields(buffer, region).build().to_send_value());
    });
    let mut stats = gst::Structure::builder("physmem-pool-stats")
        .field("kind", kind)
        .field("total", slots.total() as u32)
        .field("free", share.free_count() as u32)
        .field("filled", share.filled_count() as u32)
        .field("dead", slots.dead_count() as u32)
        .field("bytes", bytes)
        .field("large-page-bytes", large_page_bytes)
        .field("acquired", counters.acquired)
        .field("released", counters.released)
        .field("waits", counters.waits)
        .field("submitted", counters.submitted)
        .field("consumed", counters.consumed)
        .field("detached", counters.detached)
        .field("refused-steps", counters.refused)
        .field("buffers", gst::Array::from_values(buffers));
    for (name, text) in [
        ("choice", choices.in_words()),
        ("pin-note", pin_notes.in_words()),
        ("address-unknown", unknown.in_words()),
        ("last-error", last_error),
    ] {
        if let Some(text) = text {
            stats = stats.field(name, text);
        }
    }
    stats.build()
}

/// Counts how many buffers each text applies to. Buffers may differ: the first ones of a pool
/// may be pinned, and later ones exceed the limit.
#[derive(Default)]
struct Tally {
    /// Each text with its number of buffers, in the order of the buffers.
    texts: Vec<(String, usize)>,
    /// The number of all buffers, including those without a text.
    total: usize,
}

impl Tally {
    /// How many texts are listed. If there are more, they differ only in their numbers.
    const SHOWN: usize = 4;

    fn count(&mut self, text: Option<String>) {
        self.total += 1;
        let Some(text) = text else { return };
        match self.texts.iter_mut().find(|(known, _)| *known == text) {
            Some((_, count)) => *count += 1,
            None => self.texts.push((text, 1)),
        }
    }

    /// The text if it applies to all buffers, otherwise each text with its number of buffers.
    fn in_words(&self) -> Option<String> {
        let texts = match &self.texts[..] {
            [] => return None,
            [(text, count)] if *count == self.total => return Some(text.clone()),
            texts => texts,
        };
        let shown = texts.iter().take(Self::SHOWN);
        let mut words: Vec<_> = shown
            .map(|(text, count)| format!("{count} of {} buffers: {text}", self.total))
            .collect();
        let rest = texts.iter().skip(Self::SHOWN);
        let rest: usize = rest.map(|(_, count)| count).sum();
        if rest > 0 {
            words.push(format!("{rest} more for reasons like these"));
        }
        Some(words.join("; "))
    }
}

/// How many buffers there are and where they are: "8 of cma, 5 free, 1 filled, 2 held".
pub(super) fn in_words(kind: MemoryKind, share: &Share) -> String {
    let slots = share.slots();
    let mut kind = kind;
    slots.for_each(|slot| kind = slot.region.kind());
    let (total, free, filled) = (slots.total(), share.free_count(), share.filled_count());
    let dead = slots.dead_count();
    // The numbers are read one after the other, and buffers may move meanwhile.
    let held = total.saturating_sub(free + filled + dead);
    let dead = match dead {
        0 => String::new(),
        dead => format!(", {dead} dead"),
    };
    format!("{total} of {kind}, {free} free, {filled} filled, {held} held{dead}")
}

/// A text for people, with one line for each buffer.
pub(super) fn dump(kind: MemoryKind, share: &Share) -> String {
    let mut text = String::new();
    let slots = share.slots();
    let _ = writeln!(
        text,
        "pool of {kind}: {} buffers, {} free, {} filled, {} dead",
        slots.total(),
        share.free_count(),
        share.filled_count(),
        slots.dead_count()
    );
    slots.for_each(|slot| {
        let region = slot.region;
        let _ = writeln!(
            text,
            "  {}: {}, refs {}, {} bytes of {}{}, {}, {}",
            slot.id,
            match slot.is_detached {
                true => "detached (somebody holds its memory)",
                false => slot.state.as_str(),
            },
            slot.refs,
            region.size_bytes(),
            region.kind(),
            region.heap().map(|h| format!(" ({h})")).unwrap_or_default(),
            address_in_words(region.address()),
            region.pin_note(),
        );
    });
    text
}

fn address_in_words(address: Result<&Address, &AddressUnknown>) -> String {
    match address {
        Ok(a) if a.is_contiguous() => format!("at {} ({})", a.first(), a.source()),
        Ok(a) => format!(
            "at {} in {} extents ({})",
            a.first(),
            a.extents().len(),
            a.source()
        ),
        Err(reason) => format!("address unknown: {reason}"),
    }
}

/// All extents of an address, for the log.
pub(super) struct Pieces<'a>(pub Result<&'a Address, &'a AddressUnknown>);

impl fmt::Display for Pieces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match self.0 {
            Ok(address) => address,
            Err(reason) => return write!(f, "address unknown: {reason}"),
        };
        for (n, extent) in address.extents().iter().enumerate() {
            let before = if n == 0 { "at " } else { ", " };
            write!(f, "{before}{}+{}", extent.phys, extent.len_bytes)?;
        }
        write!(f, " ({})", address.source())
    }
}

/// The content of the buffer's meta; `None` if it has no meta.
pub(super) fn describe(buffer: &gst::BufferRef) -> Option<gst::Structure> {
    let meta = buffer.meta::<PhysMemMeta>()?;
    let s = gst::Structure::builder("physmem-buffer")
        .field("id", meta.id())
        .field("received", meta.is_received())
        .field("size", meta.size_bytes() as u64);
    let memory = MemoryFields {
        kind: meta.kind(),
        heap: meta.heap(),
        is_external: meta.is_external(),
        is_alive: meta.is_alive(),
        is_pinned: meta.is_pinned(),
        pin_note: meta.pin_note(),
        dma_buf: meta.dma_buf(),
    };
    let s = address_fields(memory_fields(s, &memory), meta.address());
    // The address of the buffer's present first byte, since it may have been resized.
    Some(match meta.phys_addr() {
        Some(phys) => s.field("phys-addr", phys.0).build(),
        None => s.build(),
    })
}

fn region_fields(s: gst::structure::Builder, region: &Arc<Region>) -> gst::structure::Builder {
    let memory = MemoryFields {
        kind: region.kind(),
        heap: region.heap(),
        is_external: region.is_external(),
        is_alive: region.is_alive(),
        is_pinned: region.is_pinned(),
        pin_note: region.pin_note(),
        dma_buf: region.dma_buf(),
    };
    let s = s
        .field("size", region.size_bytes() as u64)
        .field("large-page-bytes", region.large_page_bytes() as u64);
    let s = memory_fields(s, &memory);
    address_fields(s, region.address())
}

struct MemoryFields<'a> {
    kind: MemoryKind,
    heap: Option<&'a str>,
    is_external: bool,
    is_alive: bool,
    is_pinned: bool,
    pin_note: &'a str,
    dma_buf: Option<BorrowedFd<'a>>,
}

fn memory_fields(s: gst::structure::Builder, memory: &MemoryFields<'_>) -> gst::structure::Builder {
    let s = s
        .field("kind", memory.kind)
        .field(
            "ownership",
            if memory.is_external {
                "external"
            } else {
                "owned"
            },
        )
        .field("alive", memory.is_alive)
        .field("pinned", memory.is_pinned)
        .field("pin-note", memory.pin_note)
        .field("dmabuf-fd", memory.dma_buf.map_or(-1, |fd| fd.as_raw_fd()));
    match memory.heap {
        Some(heap) => s.field("heap", heap),
        None => s,
    }
}

fn address_fields(
    s: gst::structure::Builder,
    address: Result<&Address, &AddressUnknown>,
) -> gst::structure::Builder {
    match address {
        Ok(address) => s
            .field("phys-addr", address.first().0)
            .field("contiguous", address.is_contiguous())
            .field("address-source", address.source().to_string())
            .field(
                "extents",
                gst::Array::from_values(address.extents().iter().map(extent_value)),
            ),
        Err(reason) => s.field("address-unknown", reason.to_string()),
    }
}

fn extent_value(extent: &Extent) -> glib::SendValue {
    gst::Structure::builder("extent")
        .field("phys-addr", extent.phys.0)
        .field("size", extent.len_bytes)
        .build()
        .to_send_value()
}

#[cfg(test)]
mod tests {
    use super::{Pieces, Tally};
    use crate::address::{Address, AddressSource, AddressUnknown, Extent, PhysAddr};

    fn tally(texts: &[Option<&str>]) -> Option<String> {
        let mut tally = Tally::default();
        for text in texts {
            tally.count(text.map(str::to_owned));
        }
        tally.in_words()
    }

    #[test]
    fn the_log_names_each_extent() {
        let extent = |phys, len_bytes| Extent {
            phys: PhysAddr(phys),
            len_bytes,
        };
        let pieces = vec![extent(0x8000, 4096), extent(0x2000, 8192)];
        let address = Address::new(pieces, AddressSource::Pagemap).unwrap();
        assert_eq!(
            Pieces(Ok(&address)).to_string(),
            "at 0x8000+4096, 0x2000+8192 (pagemap)"
        );
        let unknown = AddressUnknown::NoPermission("pagemap: not root".into());
        assert_eq!(
            Pieces(Err(&unknown)).to_string(),
            "address unknown: pagemap: not root"
        );
    }

    #[test]
    fn what_is_true_of_all_buffers_is_said_once() {
        assert_eq!(tally(&[]), None);
        assert_eq!(tally(&[None, None]), None);
        assert_eq!(tally(&[Some("pinned"), Some("pinned")]).unwrap(), "pinned");
    }

    #[test]
    fn buffers_that_differ_are_told_apart() {
        assert_eq!(
            tally(&[Some("pinned"), Some("not"), Some("pinned")]).unwrap(),
            "2 of 3 buffers: pinned; 1 of 3 buffers: not"
        );
        assert_eq!(
            tally(&[None, Some("unknown")]).unwrap(),
            "1 of 2 buffers: unknown"
        );
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "f"].map(Some).into();
        let words = tally(&many).unwrap();
        assert!(
            words.ends_with("1 of 7 buffers: d; 3 more for reasons like these"),
            "{words}"
        );
    }
}
