// SPDX-License-Identifier: MPL-2.0
//! kmsflipsink: shows raw video on a KMS plane by atomic flips of the memory that upstream wrote into.
//!
//! The way of a frame: `imp` takes the frame from GStreamer. `stream` decides how the frame is shown
//! (`display::area`, `format`, `import`, `copies`), and where its overlay compositions go: onto a plane above (`layer`)
//! or into a copy (`composition`). `head` hands it to the card's thread in `engine`, which commits it (`crtc`,
//! `kms_plane`) and follows it from pending to current (`display::cycle`). `discovery` and `mode` choose card, connector,
//! plane and mode; `sysfs_card` says which cards to open for that. `displays` lists the connected displays, for programs
//! that choose one.
//! These modules are pure and tested without a device: sysfs_card, discovery, mode, format, frame_caps, fields, balance, colour,
//! hdr, edid, composition, orientation, pixel_aspect, stats, timing, navigation.
//! `input` reads input devices on a thread of its own, and makes navigation events of what they report. `opener` opens
//! the files of cards and of input devices.
//!
//! Locks: the element's `Settings`, `State` and `Orientation`; below `State` come the stream's `Context`, the cache of
//! imports and one lock for each card (`engine`), of which no thread holds two. Under none of these does
//! the sink make an ioctl, wait, or post or push anything. Three locks are exceptions: the table of GEM
//! handles in `device`, where the reason stands; the buffers for copies in `stream`, which stay locked while a frame is
//! copied; and what `stream` remembers of overlays, which stays locked while one is drawn and the driver is asked.

mod balance;
mod card;
mod claimed_plane;
mod clones;
mod colour;
mod composition;
mod copies;
mod crtc;
mod device;
mod discovery;
pub(crate) mod displays;
pub(crate) mod dma_drm;
mod drm_context;
mod drm_dumb;
pub(crate) mod edid;
mod engine;
mod error;
mod fields;
pub(crate) mod format;
mod frame_caps;
mod framebuffer;
pub(crate) mod hdr;
mod head;
mod imp;
mod import;
mod input;
mod kms_plane;
mod layer;
pub(crate) mod mode;
mod navigation;
mod offered_memory;
mod opener;
mod orientation;
mod pixel_aspect;
mod report;
mod settings;
mod stats;
mod stream;
mod sysfs_card;
pub(crate) mod timing;
mod tune;
mod vacated;

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

pub use offered_memory::OfferedMemory;
pub use opener::Opener;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "kmsflipsink",
        gst::DebugColorFlags::empty(),
        Some("Atomic KMS video sink"),
    )
});

glib::wrapper! {
    /// The element `kmsflipsink`.
    pub struct KmsFlipSink(ObjectSubclass<imp::KmsFlipSink>)
        @extends gst_video::VideoSink, gst_base::BaseSink, gst::Element, gst::Object,
        @implements gst_video::ColorBalance, crate::interfaces::ColorBalance, gst_video::VideoOverlay,
            crate::interfaces::VideoOverlay, crate::interfaces::VideoDirection, gst_video::Navigation;
}

/// Registers the element as `kmsflipsink`, with rank NONE.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "kmsflipsink",
        gst::Rank::NONE,
        KmsFlipSink::static_type(),
    )
}
