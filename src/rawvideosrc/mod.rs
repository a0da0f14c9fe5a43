// SPDX-License-Identifier: MPL-2.0
//! The source element `rawvideosrc`: it reads the frames of raw video files, or draws a test
//! pattern, straight into the buffers that downstream offers.
//!
//! `reader` has the ways to read a file, `pattern` draws the test pattern, and `timeline`
//! converts between frame numbers and time.

use gst::{glib, prelude::*};
use std::sync::LazyLock;

mod ahead;
mod automatic;
mod buffer_source;
mod count;
mod cpus;
mod cursor;
mod delivery;
mod errors;
mod file_layout;
mod format_names;
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
pub(crate) mod uri;

pub(crate) mod guess;
mod pattern;
mod reader;
pub(crate) mod sequence;
mod timeline;
mod waker;
pub(crate) mod y4m;

pub use settings::IoMode;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rawvideosrc",
        gst::DebugColorFlags::empty(),
        Some("Raw video source"),
    )
});

glib::wrapper! {
    /// The element `rawvideosrc`: reads frames of raw video, or draws a test pattern.
    pub struct RawVideoSrc(ObjectSubclass<imp::RawVideoSrc>)
        @extends gst_base::BaseSrc, gst::Element, gst::Object,
        @implements gst::URIHandler;
}

/// The bytes of frame `n` of the test pattern, laid out as `info` says, for this crate's
/// tests. `None` if the pattern cannot be drawn in that format.
#[doc(hidden)]
pub fn pattern_frame(n: u64, info: &gst_video::VideoInfo) -> Option<Vec<u8>> {
    pattern::render(n, info).ok()
}

/// Registers the element `rawvideosrc` with `plugin`.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    format_names::register();
    IoMode::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "rawvideosrc",
        gst::Rank::NONE,
        RawVideoSrc::static_type(),
    )
}
