// SPDX-License-Identifier: MPL-2.0
//! `physmemupload`: puts any stream into memory at known physical addresses.
//!
//! It offers upstream a pool, so that upstream may write into such memory itself. A buffer in such
//! memory passes untouched; any other is copied, once, into a pool that `target` chooses. The
//! stream stays the same and may be of any caps or none: video, audio, bytes.

use std::sync::LazyLock;

use gst::{glib, prelude::*};

#[allow(missing_docs)] // accessors that the Properties macro makes
mod imp;
mod target;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "physmemupload",
        gst::DebugColorFlags::empty(),
        Some("Upload into memory at known physical addresses"),
    )
});

glib::wrapper! {
    /// The element `physmemupload`.
    pub struct PhysMemUpload(ObjectSubclass<imp::PhysMemUpload>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers the element.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "physmemupload",
        gst::Rank::NONE,
        PhysMemUpload::static_type(),
    )
}
