// SPDX-License-Identifier: MPL-2.0
//! `fbpansink`: shows video on a Linux framebuffer (`/dev/fb*`).
//!
//! The fb_pages of the framebuffer, screenfuls of its memory, are offered
//! upstream as a pool. A frame that upstream wrote into one is shown by panning
//! to it, with no copy; any other is copied once, and the reason is said. A
//! fb_page returns to the pool when a later one is on screen.
//!
//! - `imp`: virtual methods and properties;
//! - `session`: from start to stop, the way of each frame;
//! - `presenter`: the thread that pans, around `display::cycle`;
//! - `screen`: the opened device; `mode`: its mode, changed and put back;
//!   `console`: the text console on it; `terminal`: follows the kernel's switches to
//!   other ones;
//! - `vsync`: when a pan has taken effect, measured;
//! - `formats`: bit fields (pure);
//! - `broken_pan`: drivers that accept a pan and show something else;
//! - `address`: whether `smem_start` can be believed.
//!
//! It owns no pool and no memory (`pool`, `memory`) and calls the kernel
//! through `sys` only.

mod address;
mod broken_pan;
mod console;
mod error;
mod formats;
mod imp;
mod mode;
mod presenter;
mod screen;
mod session;
mod stats;
mod terminal;
mod vsync;

use gst::glib;
use gst::prelude::*;
use std::sync::LazyLock;

pub use vsync::Vsync;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "fbpansink",
        gst::DebugColorFlags::empty(),
        Some("Framebuffer pan sink"),
    )
});

glib::wrapper! {
    /// The element.
    pub struct FbPanSink(ObjectSubclass<imp::FbPanSink>)
        @extends gst_video::VideoSink, gst_base::BaseSink, gst::Element, gst::Object;
}

/// Registers the element; rank NONE, as for fbdevsink: a desktop's framebuffer
/// is not to be taken unasked.
///
/// # Errors
/// As gst_element_register.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Vsync::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "fbpansink",
        gst::Rank::NONE,
        FbPanSink::static_type(),
    )
}
