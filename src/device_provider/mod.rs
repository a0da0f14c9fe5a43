// SPDX-License-Identifier: MPL-2.0
//! The device providers `fbpandeviceprovider` and `kmsflipdeviceprovider`: they list the displays on which the sinks of
//! this plugin can show, for gst-device-monitor-1.0 and for programs that let their users choose.
//!
//! - `imp`: the providers, as GStreamer sees them;
//! - `found`: what a display is to a provider, and what changes from one look to the next;
//! - `framebuffers`, `connectors`: the displays of each sink, from what its room tells of them;
//! - `device`: the GstDevice, which makes a sink for its display;
//! - `watch`: follows the kernel's events while a provider is started.

mod connectors;
mod device;
mod found;
mod framebuffers;
mod imp;
mod watch;

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "physmemdevices",
        gst::DebugColorFlags::empty(),
        Some("Displays for the sinks of physmem"),
    )
});

glib::wrapper! {
    pub struct FbPanDeviceProvider(ObjectSubclass<imp::FbPanDeviceProvider>)
        @extends gst::DeviceProvider, gst::Object;
}

glib::wrapper! {
    pub struct KmsFlipDeviceProvider(ObjectSubclass<imp::KmsFlipDeviceProvider>)
        @extends gst::DeviceProvider, gst::Object;
}

/// Registers the providers. A GstDeviceMonitor asks none whose rank is NONE.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    for (name, type_) in [
        ("fbpandeviceprovider", FbPanDeviceProvider::static_type()),
        (
            "kmsflipdeviceprovider",
            KmsFlipDeviceProvider::static_type(),
        ),
    ] {
        gst::DeviceProvider::register(Some(plugin), name, gst::Rank::MARGINAL, type_)?;
    }
    Ok(())
}
