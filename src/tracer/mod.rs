// SPDX-License-Identifier: MPL-2.0
//! The tracer `physmem`: what elements and pools of this plugin do, seen from outside of the application.
//!
//! It reads the properties `stats` that elements and pools have anyhow, ten times a second. Hooks of GStreamer
//! tell it which elements and pools there are, and which element a buffer went into last, which no
//! property says. Without `GST_TRACERS=physmem` no code of this room runs.
//!
//! - `imp`: properties and hooks;
//! - `watched`: the elements and pools, and their last numbers;
//! - `reading`: numbers from structures (pure);
//! - `protocol`: the line of JSON that the socket gives (pure);
//! - `sampler`: the thread that reads, logs and serves; `service`: the socket;
//! - `summary`: the table at the end (pure).
//!
//! Elements and pools are known by the names of their types, so that the tracer of the plugin also sees
//! those of an application that is built with the crate (`copies`). Which element has a buffer is known
//! for pools of this copy of the library only.

mod imp;
pub mod protocol;
mod reading;
mod sampler;
mod service;
mod summary;
mod watched;

use std::sync::LazyLock;

use gst::{glib, prelude::*};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    // The category of GStreamer's own tracers; it exists unless GStreamer was built without them.
    gst::DebugCategory::get("GST_TRACER").unwrap_or_else(|| {
        gst::DebugCategory::new(
            "physmemtracer",
            gst::DebugColorFlags::empty(),
            Some("Tracer of memory at known physical addresses"),
        )
    })
});

glib::wrapper! {
    /// The tracer `physmem`, which `GST_TRACERS=physmem` starts.
    pub struct PhysMemTracer(ObjectSubclass<imp::PhysMemTracer>)
        @extends gst::Tracer, gst::Object;
}

/// Registers the tracer as `physmem`.
///
/// # Errors
/// Fails if gst_tracer_register does.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Tracer::register(Some(plugin), "physmem", PhysMemTracer::static_type())
}
