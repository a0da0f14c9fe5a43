// SPDX-License-Identifier: MPL-2.0
//! What the sink counts, and the one sentence on the path that frames take.
use super::CAT;
use super::session::Session;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The way of the last frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    #[default]
    None,
    ZeroCopy,
    Copy,
    /// A copy of a frame that was made for another place of the screen, until upstream
    /// has asked for pool and place again.
    Move,
}

/// The sentence on the path.
pub struct Path;

impl Path {
    pub fn copying(why: &str) -> String {
        format!("copying: {why}")
    }
}

/// Counted from start to start, readable after stop.
#[derive(Debug, Default)]
pub struct Counters {
    zero_copy: AtomicU64,
    copied: AtomicU64,
    repeated: AtomicU64,
    dropped: AtomicU64,
    away: AtomicU64,
    freed: AtomicU64,
    /// Copies have been told of on the bus.
    told: AtomicBool,
    path: Mutex<(Way, String)>,
}

impl Counters {
    /// A frame was in a fb_page.
    pub fn zero_copy(&self, sentence: impl FnOnce() -> String) {
        self.zero_copy.fetch_add(1, Ordering::Relaxed);
        self.take_way(Way::ZeroCopy, sentence);
    }

    /// A frame in a fb_page was copied to another place of one.
    pub fn moved(&self, sentence: impl FnOnce() -> String) {
        self.copied.fetch_add(1, Ordering::Relaxed);
        self.take_way(Way::Move, sentence);
    }

    /// A frame of other memory was copied into one.
    pub fn copied(&self, sentence: impl FnOnce() -> String) {
        self.copied.fetch_add(1, Ordering::Relaxed);
        self.take_way(Way::Copy, sentence);
    }

    /// The sentence on the path, the first time that this is asked for while frames are
    /// copied that upstream made elsewhere.
    pub fn copying_to_tell(&self) -> Option<String> {
        if self.told.load(Ordering::Relaxed) {
            return None;
        }
        let path = self.path.lock();
        (path.0 == Way::Copy && !self.told.swap(true, Ordering::Relaxed)).then(|| path.1.clone())
    }

    /// The same buffer came again (preroll).
    pub fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// Another virtual terminal had the screen.
    pub fn away(&self) {
        self.away.fetch_add(1, Ordering::Relaxed);
    }

    /// No fb_page was free for a copy.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// The owner of the frame's memory had freed it.
    pub fn freed(&self) {
        self.freed.fetch_add(1, Ordering::Relaxed);
    }

    /// Says it once for each change, so that a copy is never silent.
    fn take_way(&self, way: Way, sentence: impl FnOnce() -> String) {
        let mut path = self.path.lock();
        if path.0 == way {
            return;
        }
        *path = (way, sentence());
        let sentence = path.1.clone();
        drop(path);
        gst::info!(CAT, "{sentence}");
        if matches!(way, Way::Copy | Way::Move) {
            gst::info!(gst::CAT_PERFORMANCE, "fbpansink: {sentence}");
        }
    }

    /// Adds to the structure that every GstBaseSink has.
    pub fn add_to(&self, stats: &mut gst::Structure) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (zero_copy, copied) = (count(&self.zero_copy), count(&self.copied));
        stats.set("shown", zero_copy + copied);
        stats.set("zero-copy", zero_copy);
        stats.set("copied", copied);
        stats.set("repeated", count(&self.repeated));
        stats.set("dropped-no-page", count(&self.dropped));
        stats.set("dropped-vt-away", count(&self.away));
        stats.set("dropped-memory-freed", count(&self.freed));
        let (_, path) = &*self.path.lock();
        stats.set(
            "path",
            if path.is_empty() {
                "no frame yet"
            } else {
                path
            },
        );
    }
}

/// Adds what the device is like, while it is open.
pub fn add_device(session: &Session, stats: &mut gst::Structure) {
    let screen = session.screen();
    stats.set("device", screen.path().display().to_string());
    stats.set("driver", screen.fix().driver());
    stats.set("format", screen.format().to_str().as_str());
    stats.set("width", screen.width_px());
    stats.set("height", screen.height_px());
    stats.set("stride", screen.stride_bytes() as u32);
    stats.set("fb-pages", screen.fb_pages() as u32);
    stats.set("fb-pages-note", screen.fb_pages_note());
    stats.set("vsync", screen.clock().to_string());
    stats.set("vsync-note", screen.clock_note());
    stats.set("console-quiet", screen.console_is_quiet());
    match session.address() {
        Ok(address) => stats.set("address", address),
        Err(reason) => stats.set("address-unknown", reason),
    }
}
