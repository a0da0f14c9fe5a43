// SPDX-License-Identifier: MPL-2.0
//! What became of the frames of a sink: counters, and a sentence on their path and why they are
//! copied.
//!
//! One log lasts from start to stop. The path is logged (INFO) when it changes, each copy in the
//! category PERFORMANCE (INFO), and one warning on the bus tells the application of copies.

use crate::locks::Mutex;
use crate::meta::PhysMemMeta;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// How a frame got to the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Way {
    /// Upstream wrote into memory that the sink offered.
    Offered = 1,
    /// The display reads memory that upstream allocated.
    Imported,
    /// A copy: upstream wrote into memory that the display does not read.
    Foreign,
    /// A copy: the plane can neither scale the frame nor be moved.
    Composed,
    /// A copy: the frame was made for another place, until upstream has asked for the pool again.
    Moved,
    /// A copy: the frame is cropped, and what is around the part that is shown must not be.
    Cropped,
    /// A copy: the driver sends to the display what is written, so that only what changed is written.
    Deferred,
    /// A copy, into which an overlay composition is blended.
    Blended,
    /// Copies: two fields make one frame.
    Woven,
}

/// What upstream asked of the sink for these caps, and what the sink answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Offer {
    /// No ALLOCATION query came.
    NotAsked,
    /// An ALLOCATION query came and wanted no pool.
    NotWanted,
    /// An ALLOCATION query came, and the sink had no pool to offer.
    None,
    Made,
}

/// Tells the user what makes a copy unnecessary.
pub(crate) const POOL_REMEDY: &str = "none is needed where what makes the frames takes this sink's pool (rawvideosrc, videotestsrc, decoders, videoconvert if it has to convert) and no tee or parser is between";

#[derive(Debug, Default)]
pub(crate) struct FrameLog {
    zero_copy: AtomicU64,
    copied: AtomicU64,
    repeated: AtomicU64,
    memory_freed: AtomicU64,
    offer: AtomicU8,
    way: AtomicU8,
    path: Mutex<String>,
    /// The application has been warned of copies.
    is_told: AtomicBool,
}

impl FrameLog {
    /// Counts a frame that is, or will be, on screen.
    pub(crate) fn shown(&self, is_zero_copy: bool) {
        let counter = match is_zero_copy {
            true => &self.zero_copy,
            false => &self.copied,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a frame that was already shown for a preroll.
    pub(crate) fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts and logs a frame whose memory its owner has freed; false for any other frame.
    pub(crate) fn is_freed(&self, category: gst::DebugCategory, buffer: &gst::BufferRef) -> bool {
        let freed = PhysMemMeta::why_dropped(buffer);
        if let Some(why) = &freed {
            self.memory_freed.fetch_add(1, Ordering::Relaxed);
            gst::warning!(category, "{why}");
        }
        freed.is_some()
    }

    pub(crate) fn offer(&self, offer: Offer) {
        self.offer.store(offer as u8, Ordering::Relaxed);
    }

    /// Notes a path without a copy. Takes no lock while the path stays the same.
    pub(crate) fn zero_copy(
        &self,
        category: gst::DebugCategory,
        way: Way,
        how: impl FnOnce() -> String,
    ) {
        if !self.is_way(way) {
            self.take(category, way, format!("zero-copy: {}", how()));
        }
    }

    pub(crate) fn copy(&self, category: gst::DebugCategory, way: Way, why: &str) {
        gst::info!(
            gst::CAT_PERFORMANCE,
            "{}: frame copy: {why}",
            category.name()
        );
        self.take(category, way, format!("copying: {why}"));
    }

    /// Notes a copy of a frame whose memory the display does not read; `detail` says why it does
    /// not.
    pub(crate) fn copy_foreign(
        &self,
        category: gst::DebugCategory,
        buffer: &gst::BufferRef,
        detail: Option<&dyn Display>,
    ) {
        let mut why = self.why_foreign(buffer);
        if let Some(detail) = detail {
            why = format!("{why}; {detail}");
        }
        self.copy(category, Way::Foreign, &why);
    }

    fn why_foreign(&self, buffer: &gst::BufferRef) -> String {
        let is = |offer: Offer| self.offer.load(Ordering::Relaxed) == offer as u8;
        if is(Offer::NotAsked) {
            "upstream never asked for a pool (a tee or a parser in between does not pass the question on)".into()
        } else if is(Offer::NotWanted) {
            "upstream asked for an allocation but wanted no pool".into()
        } else if is(Offer::None) {
            "upstream asked for a pool, and there was none to offer".into()
        } else if buffer.n_memory() > 1 {
            format!(
                "upstream ignored the pool offered and sent {} memories a frame",
                buffer.n_memory()
            )
        } else {
            "upstream ignored the pool offered".into()
        }
    }

    fn take(&self, category: gst::DebugCategory, way: Way, sentence: String) {
        let mut path = self.path.lock();
        self.way.store(way as u8, Ordering::Relaxed);
        if *path != sentence {
            path.clone_from(&sentence);
            drop(path);
            gst::info!(category, "{sentence}");
        }
    }

    pub(crate) fn is_way(&self, way: Way) -> bool {
        self.way.load(Ordering::Relaxed) == way as u8
    }

    /// The sentence on the path, once, and only while copies are for good, that is, not `Moved`.
    pub(crate) fn copying_to_tell(&self) -> Option<String> {
        let for_good = [Way::Foreign, Way::Composed, Way::Woven];
        let is_copying = for_good.iter().any(|&way| self.is_way(way));
        let is_to_tell = is_copying && !self.is_told.swap(true, Ordering::Relaxed);
        is_to_tell.then(|| self.path.lock().clone())
    }

    /// Adds counters and path to the structure `stats` that every GstBaseSink has.
    pub(crate) fn add_to(&self, stats: &mut gst::Structure) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (zero_copy, copied) = (count(&self.zero_copy), count(&self.copied));
        stats.set("shown", zero_copy + copied);
        stats.set("zero-copy", zero_copy);
        stats.set("copied", copied);
        stats.set("repeated", count(&self.repeated));
        stats.set("dropped-memory-freed", count(&self.memory_freed));
        let path = self.path.lock();
        let is_empty = path.is_empty();
        stats.set(
            "path",
            if is_empty {
                "no frame yet"
            } else {
                path.as_str()
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(log: &FrameLog) -> String {
        let mut stats = gst::Structure::new_empty("stats");
        log.add_to(&mut stats);
        stats.get("path").unwrap()
    }

    #[test]
    fn the_reason_for_a_copy_is_what_upstream_did_with_the_offer() {
        gst::init().unwrap();
        let log = FrameLog::default();
        let mut buffer = gst::Buffer::new();
        assert_eq!(path(&log), "no frame yet");
        for (offer, said) in [
            (Offer::NotAsked, "never asked for a pool"),
            (Offer::NotWanted, "wanted no pool"),
            (Offer::None, "none to offer"),
            (Offer::Made, "ignored the pool offered"),
        ] {
            log.offer(offer);
            log.copy_foreign(*gst::CAT_RUST, &buffer, Some(&"no dma-buf"));
            let path = path(&log);
            assert!(path.starts_with("copying: upstream "), "{path}");
            assert!(
                path.contains(said) && path.ends_with("; no dma-buf"),
                "{path}"
            );
        }
        for _ in 0..2 {
            buffer
                .get_mut()
                .unwrap()
                .append_memory(gst::Memory::with_size(1));
        }
        log.copy_foreign(*gst::CAT_RUST, &buffer, None);
        assert!(path(&log).ends_with("sent 2 memories a frame"));
    }

    #[test]
    fn copies_are_told_of_once_and_not_those_of_a_moment() {
        gst::init().unwrap();
        let category = *gst::CAT_RUST;
        let log = FrameLog::default();
        log.zero_copy(category, Way::Offered, || "so".into());
        assert_eq!(log.copying_to_tell(), None);
        log.copy(category, Way::Moved, "moved");
        assert_eq!(log.copying_to_tell(), None);
        log.copy(category, Way::Composed, "composed");
        assert_eq!(log.copying_to_tell().as_deref(), Some("copying: composed"));
        log.copy(category, Way::Foreign, "foreign");
        assert_eq!(log.copying_to_tell(), None);
        assert!(log.is_way(Way::Foreign));
    }

    #[test]
    fn every_frame_is_counted_one_way() {
        gst::init().unwrap();
        let log = FrameLog::default();
        for is_zero_copy in [true, false, true] {
            log.shown(is_zero_copy);
        }
        log.repeated();
        let mut stats = gst::Structure::new_empty("stats");
        log.add_to(&mut stats);
        let counts = [
            "shown",
            "zero-copy",
            "copied",
            "repeated",
            "dropped-memory-freed",
        ];
        assert_eq!(
            counts.map(|name| stats.get::<u64>(name).unwrap()),
            [3, 2, 1, 1, 0]
        );
    }
}
