// SPDX-License-Identifier: MPL-2.0
//! kmsflipsink: shows raw video on a KMS plane by atomic flips of the memory
//! that upstream wrote into.
//!
//! The way of a frame: `imp` takes it from GStreamer, `stream` decides how it
//! is shown (`display::area`, `format`, `import`, `copies`), `head` hands it to the
//! card's thread in `engine`, which commits it (`crtc`) and follows it by
//! `display::cycle` from pending to current. `discovery` and `mode` choose card,
//! connector, plane and mode, among the cards that `sysfs_card` lets be opened. Pure, and
//! tested without a device: sysfs_card, discovery, mode, format, stats.
//!
//! Locks: the element's `Settings` and `State`; below them the stream's `Context`, the cache of
//! imports and one lock for each card (`engine`), never two at once. No ioctl, no wait and no call
//! into GStreamer happens under any of them; the one exception is the table of GEM handles
//! in `device`, and says why.

mod card;
mod copies;
mod crtc;
mod device;
mod discovery;
mod dma_drm;
mod engine;
mod error;
mod format;
mod framebuffer;
mod head;
mod imp;
mod import;
mod mode;
mod offered_memory;
mod report;
mod settings;
mod stats;
mod stream;
mod sysfs_card;
mod tune;

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

pub use offered_memory::OfferedMemory;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "kmsflipsink",
        gst::DebugColorFlags::empty(),
        Some("Atomic KMS video sink"),
    )
});

glib::wrapper! {
    /// The element.
    pub struct KmsFlipSink(ObjectSubclass<imp::KmsFlipSink>)
        @extends gst_video::VideoSink, gst_base::BaseSink, gst::Element, gst::Object;
}

/// Registers the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "kmsflipsink",
        gst::Rank::NONE,
        KmsFlipSink::static_type(),
    )
}
