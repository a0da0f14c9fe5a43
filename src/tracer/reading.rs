// SPDX-License-Identifier: MPL-2.0
//! The numbers of an element or a pool, from its property `stats`. Pure.

use gst::glib;

use super::protocol::{Buffer, Element, Pool};

/// The factories of this plugin, by the name of the element's type. A further copy of this library in
/// the process has types with a number behind the name.
const FACTORIES: [(&str, &str); 4] = [
    ("GstRawVideoSrc", "rawvideosrc"),
    ("GstPhysMemUpload", "physmemupload"),
    ("GstFbPanSink", "fbpansink"),
    ("GstKmsFlipSink", "kmsflipsink"),
];

/// The name of a type without the number of a further copy.
fn base_name(type_name: &str) -> &str {
    match type_name.rsplit_once('-') {
        Some((base, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => base,
        _ => type_name,
    }
}

/// The factory of an element's type, if it is one of this plugin.
pub fn factory_of(type_name: &str) -> Option<&'static str> {
    let base = base_name(type_name);
    let known = FACTORIES.iter().find(|(name, _)| *name == base);
    known.map(|(_, factory)| *factory)
}

/// Whether the type is that of pools of this plugin.
pub fn is_pool(type_name: &str) -> bool {
    base_name(type_name) == "GstPhysBufferPool"
}

fn count(stats: &gst::StructureRef, name: &str) -> Option<u64> {
    stats.get::<u64>(name).ok()
}

fn small(stats: &gst::StructureRef, name: &str) -> u32 {
    stats.get::<u32>(name).unwrap_or_default()
}

fn text(stats: &gst::StructureRef, name: &str) -> Option<String> {
    stats.get::<String>(name).ok()
}

/// The nick of an enumeration's value.
fn nick(stats: &gst::StructureRef, name: &str) -> String {
    let value = stats.value(name).ok();
    let nick =
        value.and_then(|value| Some(glib::EnumValue::from_value(value)?.1.nick().to_owned()));
    nick.unwrap_or_default()
}

/// The numbers of an element. `name` and `is_running` are left to the caller.
pub fn element(factory: &str, stats: &gst::StructureRef) -> Element {
    let fields = || stats.iter().filter(|(name, _)| name.starts_with("dropped"));
    let dropped = fields().filter_map(|(_, value)| value.get::<u64>().ok());
    let (passed, shown) = (count(stats, "passed"), count(stats, "shown"));
    let copied = count(stats, "copied");
    let frames = match (passed, shown) {
        (Some(passed), _) => passed + copied.unwrap_or_default(),
        (_, Some(shown)) => shown,
        _ => count(stats, "frames").unwrap_or_default(),
    };
    let path = text(stats, "path").map(|path| match text(stats, "copy-reason") {
        Some(reason) => format!("{path}: {reason}"),
        None => path,
    });
    let reading = || {
        let (mode, reason) = (text(stats, "mode")?, text(stats, "mode-reason")?);
        (!mode.is_empty()).then(|| format!("{mode}: {reason}"))
    };
    Element {
        factory: factory.to_owned(),
        frames,
        zero_copy: passed.or_else(|| count(stats, "zero-copy")),
        copied,
        dropped: dropped.sum(),
        flip_latency_mean_us: count(stats, "flip-latency-mean-us"),
        flip_latency_max_us: count(stats, "flip-latency-max-us"),
        path: path.or_else(reading).unwrap_or_default(),
        ..Element::default()
    }
}

/// The numbers of a pool. `name`, `is_active`, `filled_by` and `in_use` are left to the caller. `holder`
/// finds the element that has a buffer, by the buffer's id and by how often it was acquired.
pub fn pool(stats: &gst::StructureRef, holder: impl Fn(u32, u64) -> Option<String>) -> Pool {
    let array = stats.get::<gst::Array>("buffers").ok();
    let described: Vec<_> = array
        .iter()
        .flat_map(|array| array.iter())
        .filter_map(|value| value.get::<gst::Structure>().ok())
        .collect();
    let asked_for = nick(stats, "kind");
    let kind = match described.first() {
        Some(first) if asked_for == "auto" => nick(first, "kind"),
        _ => asked_for,
    };
    Pool {
        kind,
        total: small(stats, "total"),
        free: small(stats, "free"),
        filled: small(stats, "filled"),
        bytes: count(stats, "bytes").unwrap_or_default(),
        acquired: count(stats, "acquired").unwrap_or_default(),
        released: count(stats, "released").unwrap_or_default(),
        waits: count(stats, "waits").unwrap_or_default(),
        buffers: described
            .iter()
            .map(|stats| buffer(stats, &holder))
            .collect(),
        ..Pool::default()
    }
}

fn buffer(stats: &gst::StructureRef, holder: impl Fn(u32, u64) -> Option<String>) -> Buffer {
    let (id, state) = (small(stats, "id"), nick(stats, "state"));
    let acquired = count(stats, "acquired").unwrap_or_default();
    let extents = stats.get::<gst::Array>("extents");
    Buffer {
        id,
        holder: (state != "idle").then(|| holder(id, acquired)).flatten(),
        state,
        refs: small(stats, "refs"),
        address: count(stats, "phys-addr").map(|address| format!("{address:#x}")),
        extents: extents.map_or(0, |extents| extents.len() as u32),
        address_unknown: text(stats, "address-unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryKind;
    use crate::pool::PhysBufferPool;
    use gst::prelude::*;

    #[test]
    fn types_of_other_copies_are_known_too() {
        assert_eq!(factory_of("GstFbPanSink"), Some("fbpansink"));
        assert_eq!(factory_of("GstFbPanSink-2"), Some("fbpansink"));
        assert_eq!(factory_of("GstFbPanSink-x"), None);
        assert_eq!(factory_of("GstFakeSink"), None);
        assert!(is_pool("GstPhysBufferPool") && is_pool("GstPhysBufferPool-1"));
        assert!(!is_pool("GstBufferPool"));
    }

    #[test]
    fn each_elements_stats_give_the_same_numbers() {
        gst::init().unwrap();
        let source = gst::Structure::builder("rawvideosrc-stats")
            .field("mode", "read")
            .field("mode-reason", "it is a file")
            .field("frames", 9u64)
            .field("dropped", 1u64)
            .build();
        let read = element("rawvideosrc", &source);
        assert_eq!((read.frames, read.dropped, read.copied), (9, 1, None));
        assert_eq!(read.path, "read: it is a file");
        let upload = gst::Structure::builder("physmemupload-stats")
            .field("passed", 4u64)
            .field("copied", 3u64)
            .field("copied-bytes", 300u64)
            .field("path", "mixed")
            .field("copy-reason", "upstream is a tee")
            .build();
        let read = element("physmemupload", &upload);
        let copies = (read.frames, read.zero_copy, read.copied);
        assert_eq!(copies, (7, Some(4), Some(3)));
        assert_eq!(read.path, "mixed: upstream is a tee");
        let sink = gst::Structure::builder("stats")
            .field("rendered", 8u64)
            .field("dropped", 1u64)
            .field("shown", 6u64)
            .field("zero-copy", 5u64)
            .field("copied", 1u64)
            .field("dropped-no-page", 2u64)
            .field("flip-latency-mean-us", 8_000u64)
            .build();
        let read = element("kmsflipsink", &sink);
        let copies = (read.frames, read.zero_copy, read.copied, read.dropped);
        assert_eq!(copies, (6, Some(5), Some(1), 3));
        assert_eq!(read.flip_latency_mean_us, Some(8_000));
        assert_eq!(read.flip_latency_max_us, None);
    }

    #[test]
    fn a_pool_is_read_with_its_buffers_and_their_holders() {
        gst::init().unwrap();
        let builder = PhysBufferPool::builder().kind(MemoryKind::Normal);
        let made = builder.activate(4096, 2, 2).unwrap();
        let out = made.acquire_buffer(None).unwrap();
        let stats = made.property::<gst::Structure>("stats");
        let read = pool(&stats, |_, acquired| Some(format!("{acquired} times")));
        assert_eq!(read.kind, "normal");
        let counts = (read.total, read.free, read.acquired, read.released);
        assert_eq!(counts, (2, 1, 1, 0));
        let held: Vec<_> = read.buffers.iter().filter(|b| b.holder.is_some()).collect();
        let [buffer] = held[..] else {
            panic!("{:?}", read.buffers);
        };
        assert_eq!(buffer.state, "locked-by-producer");
        assert_eq!(buffer.holder.as_deref(), Some("1 times"));
        // The address is known, or the reason why it is not.
        assert_ne!(buffer.address.is_some(), buffer.address_unknown.is_some());
        drop(out);
        made.set_active(false).unwrap();
    }
}
