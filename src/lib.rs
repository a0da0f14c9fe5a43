// SPDX-License-Identifier: MPL-2.0
//! GStreamer elements, a buffer pool and memory for hardware that needs frames at known physical addresses.
//!
//! Each module has its own documentation. Dependencies point down: elements, pool, memory, sys.
//!
//! An application that is built with this crate needs no installed plugin: [`plugin_register_static`]
//! registers the elements. If GStreamer loads the plugin as well, before or after that, the process has
//! both, and each makes objects of types of its own. The application can then read the
//! [meta](meta::PhysMemMeta) of the plugin's buffers, set the properties of the plugin's elements with this
//! crate's enumerations, and send the plugin's elements buffers of a pool made here. A pool that the plugin
//! made is no [`pool::PhysBufferPool`] of this crate, but a plain `GstBufferPool` whose signals do the
//! same. New elements made after `plugin_register_static`, and their pools, are this crate's.
#![warn(missing_docs)]
#![deny(clippy::unwrap_used)] // in this file and not in Cargo.toml, since tests may unwrap

mod address;
mod adoption;
mod copies;
mod device_provider;
mod display;
pub mod fbpansink;
pub mod ffi;
mod foreign;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod handle;
mod interfaces;
pub mod kmsflipsink;
pub mod layout;
mod locks;
pub mod memory;
pub mod meta;
mod negotiation;
pub mod physmemupload;
pub mod pool;
mod property_text;
pub mod rawvideosrc;
mod refresh;
mod shared_enum;
pub mod structure_property;
mod sync;
mod sys;
pub mod tracer;
mod write_map;

#[allow(missing_docs)] // for the entry points that the macro makes
mod plugin {
    fn plugin_init(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
        crate::copies::refuse_second_plugin(
            plugin,
            &["rawvideosrc", "fbpansink", "kmsflipsink", "physmemupload"],
        )?;
        crate::memory::register();
        crate::meta::register(plugin);
        crate::pool::register();
        crate::rawvideosrc::register(plugin)?;
        crate::fbpansink::register(plugin)?;
        crate::kmsflipsink::register(plugin)?;
        crate::physmemupload::register(plugin)?;
        crate::device_provider::register(plugin)?;
        crate::tracer::register(plugin)
    }

    gst::plugin_define!(
        physmem,
        env!("CARGO_PKG_DESCRIPTION"),
        plugin_init,
        concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
        "MPL-2.0",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_REPOSITORY"),
        env!("BUILD_REL_DATE")
    );
}
pub use plugin::plugin_register_static;
