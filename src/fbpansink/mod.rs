// SPDX-License-Identifier: MPL-2.0
//! `fbpansink`: shows video on a Linux framebuffer (`/dev/fb*`).
//!
//! The sink offers the fb_pages of the framebuffer upstream as a pool. A frame that upstream wrote into a
//! fb_page is shown by panning to it, without a copy. Any other frame is copied once, and the sink reports
//! why. A fb_page returns to the pool when a later one is on screen.
//!
//! - `imp`: virtual methods and properties;
//! - `session`: what exists from start to stop, and what is done with each frame;
//! - `presenter`: the thread that pans, around `display::cycle`;
//! - `screen`: the opened device; `mode`: changes and restores its mode;
//!   `console`: the text console on it; `terminal`: follows switches between virtual
//!   terminals;
//! - `vsync`: measures when a pan has taken effect;
//! - `deferred_io`: framebuffers whose driver sends what is written to the display, and which rows of a
//!   frame have to be written there (pure);
//! - `crop`: which part of a frame is shown (pure);
//! - `framebuffers`: the framebuffers of the machine, for programs that choose one;
//! - `framebuffer`: what a device reports, without changing it;
//! - `formats`: the video format for the bit fields of the pixels (pure);
//! - `broken_pan`: drivers that accept a pan and show something else;
//! - `address`: whether `smem_start` is a physical address.

mod address;
mod broken_pan;
mod console;
mod crop;
mod deferred_io;
mod error;
mod formats;
mod framebuffer;
pub(crate) mod framebuffers;
mod imp;
mod mode;
mod pages;
mod presenter;
mod screen;
mod session;
mod stats;
mod stream;
mod terminal;
mod vsync;

use gst::glib;
use gst::prelude::*;
use std::sync::LazyLock;

pub use framebuffer::Framebuffer;
pub use vsync::Vsync;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "fbpansink",
        gst::DebugColorFlags::empty(),
        Some("Framebuffer pan sink"),
    )
});

glib::wrapper! {
    /// The element `fbpansink`, a GstVideoSink.
    pub struct FbPanSink(ObjectSubclass<imp::FbPanSink>)
        @extends gst_video::VideoSink, gst_base::BaseSink, gst::Element, gst::Object,
        @implements gst_video::VideoOverlay, crate::interfaces::VideoOverlay;
}

/// Registers the element. Its rank is NONE, like that of fbdevsink, so that autovideosink does
/// not take the framebuffer of a desktop.
///
/// # Errors
/// Fails if gst_element_register does.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Vsync::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "fbpansink",
        gst::Rank::NONE,
        FbPanSink::static_type(),
    )
}
