// SPDX-License-Identifier: MPL-2.0
//! What the pool tells about itself: `stats` for programs, `dump` for people,
//! `describe` for those who cannot read the meta.

use std::{
    fmt::Write,
    os::fd::{AsRawFd, BorrowedFd},
    sync::Arc,
};

use gst::{glib, prelude::*};

use super::imp::PhysBufferPool;
use crate::{
    memory::{Address, AddressUnknown, Extent, MemoryKind, Region},
    meta::PhysMemMeta,
};

/// The `stats` property.
pub(super) fn structure(pool: &PhysBufferPool) -> gst::Structure {
    let slots = pool.slots();
    let counters = slots.counters();
    let mut choice = None;
    let mut pin_note = None;
    let mut address_unknown = None;
    let mut bytes = 0u64;
    let mut buffers = Vec::new();
    slots.for_each(|slot| {
        let region = slot.region;
        bytes += region.size_bytes() as u64;
        choice = choice.take().or_else(|| region.choice().map(str::to_owned));
        pin_note.get_or_insert_with(|| region.pin_note().to_owned());
        if let Err(reason) = region.address() {
            address_unknown.get_or_insert_with(|| reason.to_string());
        }
        let buffer = gst::Structure::builder("buffer")
            .field("id", slot.id)
            .field("state", slot.state)
            .field("refs", slot.refs)
            .field("detached", slot.is_detached);
        buffers.push(region_fields(buffer, region).build().to_send_value());
    });
    let mut stats = gst::Structure::builder("physmem-pool-stats")
        .field("kind", pool.kind())
        .field("total", slots.total() as u32)
        .field("free", pool.free_count() as u32)
        .field("filled", pool.share().filled_count() as u32)
        .field("dead", slots.dead_count() as u32)
        .field("bytes", bytes)
        .field("acquired", counters.acquired)
        .field("released", counters.released)
        .field("waits", counters.waits)
        .field("submitted", counters.submitted)
        .field("consumed", counters.consumed)
        .field("detached", counters.detached)
        .field("refused-steps", counters.refused)
        .field("buffers", gst::Array::from_values(buffers));
    for (name, text) in [
        ("choice", choice),
        ("pin-note", pin_note),
        ("address-unknown", address_unknown),
        ("last-error", pool.last_error()),
    ] {
        if let Some(text) = text {
            stats = stats.field(name, text);
        }
    }
    stats.build()
}

/// One line a buffer, for people.
pub(super) fn dump(pool: &PhysBufferPool) -> String {
    let mut text = String::new();
    let slots = pool.slots();
    let _ = writeln!(
        text,
        "pool of {}: {} buffers, {} free, {} filled, {} dead",
        pool.kind(),
        slots.total(),
        pool.free_count(),
        pool.share().filled_count(),
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

/// Everything that the buffer's meta says; none if it has none.
pub(super) fn describe(buffer: &gst::BufferRef) -> Option<gst::Structure> {
    let meta = buffer.meta::<PhysMemMeta>()?;
    let s = gst::Structure::builder("physmem-buffer")
        .field("id", meta.id())
        .field("received", meta.is_received())
        .field("size", meta.size_bytes() as u64);
    let origin = Origin {
        kind: meta.kind(),
        heap: meta.heap(),
        is_external: meta.is_external(),
        is_alive: meta.is_alive(),
        is_pinned: meta.is_pinned(),
        pin_note: meta.pin_note(),
        dma_buf: meta.dma_buf(),
    };
    let s = address_fields(origin_fields(s, &origin), meta.address());
    // Of the buffer as it is now, which may have been resized.
    Some(match meta.phys_addr() {
        Some(phys) => s.field("phys-addr", phys.0).build(),
        None => s.build(),
    })
}

fn region_fields(s: gst::structure::Builder, region: &Arc<Region>) -> gst::structure::Builder {
    let origin = Origin {
        kind: region.kind(),
        heap: region.heap(),
        is_external: region.is_external(),
        is_alive: region.is_alive(),
        is_pinned: region.is_pinned(),
        pin_note: region.pin_note(),
        dma_buf: region.dma_buf(),
    };
    let s = origin_fields(s.field("size", region.size_bytes() as u64), &origin);
    address_fields(s, region.address())
}

/// What is said of a buffer's memory beside its address.
struct Origin<'a> {
    kind: MemoryKind,
    heap: Option<&'a str>,
    is_external: bool,
    is_alive: bool,
    is_pinned: bool,
    pin_note: &'a str,
    dma_buf: Option<BorrowedFd<'a>>,
}

fn origin_fields(s: gst::structure::Builder, origin: &Origin<'_>) -> gst::structure::Builder {
    let s = s
        .field("kind", origin.kind)
        .field(
            "ownership",
            if origin.is_external {
                "external"
            } else {
                "owned"
            },
        )
        .field("alive", origin.is_alive)
        .field("pinned", origin.is_pinned)
        .field("pin-note", origin.pin_note)
        .field("dmabuf-fd", origin.dma_buf.map_or(-1, |fd| fd.as_raw_fd()));
    match origin.heap {
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
