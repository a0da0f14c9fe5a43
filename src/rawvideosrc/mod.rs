// SPDX-License-Identifier: MPL-2.0
//! `rawvideosrc`: frames of raw files, or a drawn test pattern, written
//! straight into the buffers of whoever shows them.
//!
//! The element itself is thin. `reader` has the ways to read a file, `pattern`
//! draws, `timeline` turns frames into time.

use gst::{glib, prelude::*};
use std::sync::LazyLock;

mod buffer_source;
mod count;
mod cursor;
mod errors;
mod file_layout;
#[allow(missing_docs)] // accessors that the Properties macro makes
mod imp;
mod input;
mod known;
mod negotiation;
mod playback;
mod pool;
mod preparing;
mod reader_thread;
mod seek;
mod session;
mod settings;
mod stats;
mod streaming;
mod task_thread;
mod uri;

mod guess;
mod pattern;
mod reader;
mod sequence;
mod timeline;
mod waker;
mod y4m;

pub use settings::IoMode;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rawvideosrc",
        gst::DebugColorFlags::empty(),
        Some("Raw video source"),
    )
});

glib::wrapper! {
    /// The element `rawvideosrc`.
    pub struct RawVideoSrc(ObjectSubclass<imp::RawVideoSrc>)
        @extends gst_base::BaseSrc, gst::Element, gst::Object,
        @implements gst::URIHandler;
}

/// The bytes of the test pattern's frame `n` in `info`'s own layout, for this crate's
/// tests to compare with; none in a format that cannot be drawn.
#[doc(hidden)]
pub fn pattern_frame(n: u64, info: &gst_video::VideoInfo) -> Option<Vec<u8>> {
    pattern::render(n, info).ok()
}

/// Registers the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    IoMode::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "rawvideosrc",
        gst::Rank::NONE,
        RawVideoSrc::static_type(),
    )
}
