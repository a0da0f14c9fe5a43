// SPDX-License-Identifier: MPL-2.0
//! The fields that this sink adds to the `stats` of GstBaseSink.
use super::deferred_io::Difference;
use super::screen::Screen;
use crate::display::frame_log::FrameLog;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters since the last start, which can still be read after stop.
#[derive(Debug, Default)]
pub struct Counters {
    pub log: FrameLog,
    /// Frames that were dropped because no fb_page was free for a copy.
    pub no_page: AtomicU64,
    /// Bytes of frames that were written into a framebuffer with deferred I/O, and bytes that it held already.
    pub written_bytes: AtomicU64,
    pub unchanged_bytes: AtomicU64,
    /// Frames that were dropped because another virtual terminal had the screen.
    pub vt_away: AtomicU64,
}

impl Counters {
    pub fn written(&self, difference: Difference) {
        self.written_bytes
            .fetch_add(difference.written_bytes, Ordering::Relaxed);
        self.unchanged_bytes
            .fetch_add(difference.unchanged_bytes, Ordering::Relaxed);
    }

    pub fn add_to(&self, stats: &mut gst::Structure) {
        self.log.add_to(stats);
        stats.set("dropped-no-page", self.no_page.load(Ordering::Relaxed));
        stats.set("bytes-written", self.written_bytes.load(Ordering::Relaxed));
        stats.set(
            "bytes-unchanged",
            self.unchanged_bytes.load(Ordering::Relaxed),
        );
        stats.set("dropped-vt-away", self.vt_away.load(Ordering::Relaxed));
    }
}

/// Adds the fields about the open device. `address` is that of `Session::address`.
pub fn add_device(screen: &Screen, address: Result<&str, &str>, stats: &mut gst::Structure) {
    stats.set("device", screen.path().display().to_string());
    stats.set("driver", screen.fix().driver());
    stats.set("format", screen.format().to_str().as_str());
    stats.set("width", screen.width_px());
    stats.set("height", screen.height_px());
    stats.set("stride", screen.stride_bytes() as u32);
    stats.set("fb-pages", screen.fb_pages() as u32);
    stats.set("fb-pages-note", screen.fb_pages_note());
    stats.set("deferred-io", screen.has_deferred_io());
    stats.set("vsync", screen.clock().to_string());
    stats.set("vsync-note", screen.clock_note());
    stats.set("console-quiet", screen.console_is_quiet());
    match address {
        Ok(address) => stats.set("address", address),
        Err(reason) => stats.set("address-unknown", reason),
    }
}
