// SPDX-License-Identifier: MPL-2.0
//! GStreamer elements, pool and memory for hardware that wants frames at known
//! physical addresses.
//!
//! The rooms, each with its own module documentation; dependencies point down:
//! elements, then pool, then memory, then sys.
//!
//! An application that is built with this crate needs no installed plugin:
//! [`plugin_register_static`] registers the elements. Where GStreamer loads the plugin,
//! too, both are in the process, in either order, and each makes objects of its own: read
//! the [meta](meta::PhysMemMeta) of the plugin's buffers, set its elements' properties with
//! this crate's enumerations, send it the buffers of a pool made here. A pool that the
//! plugin made is no [`pool::PhysBufferPool`] here, but a plain `GstBufferPool` whose
//! signals do the same. After `plugin_register_static` new elements, and their pools, are
//! this crate's.
#![warn(missing_docs)]
#![deny(clippy::unwrap_used)] // here and not in Cargo.toml: tests may

mod address;
mod adoption;
mod copies;
mod display;
pub mod fbpansink;
pub mod ffi;
mod foreign;
pub mod handle;
pub mod kmsflipsink;
pub mod layout;
pub mod memory;
pub mod meta;
mod negotiation;
pub mod physmemupload;
pub mod pool;
pub mod rawvideosrc;
mod refresh;
mod shared_enum;
pub mod structure_property;
mod sync;
mod sys;
mod write_map;

#[allow(missing_docs)] // the entry points that the macro makes
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
        crate::physmemupload::register(plugin)
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
