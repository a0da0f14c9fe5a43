// SPDX-License-Identifier: MPL-2.0
//! The providers as GStreamer sees them.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::device::DisplayDevice;
use super::watch::{Source, Watch};
use super::{connectors, framebuffers};

const FRAMEBUFFERS: Source = Source {
    subsystem: "graphics",
    find: framebuffers::find,
};

const CONNECTORS: Source = Source {
    subsystem: "drm",
    find: connectors::find,
};

fn metadata(name: &str, description: &str) -> gst::subclass::DeviceProviderMetadata {
    let author = "The gst-plugin-physmem developers";
    gst::subclass::DeviceProviderMetadata::new(name, "Sink/Video", description, author)
}

fn devices(source: &Source) -> Vec<gst::Device> {
    let found = (source.find)().into_iter();
    found.map(DisplayDevice::of).collect()
}

#[derive(Debug, Default)]
pub struct FbPanDeviceProvider {
    watch: Watch,
}

#[glib::object_subclass]
impl ObjectSubclass for FbPanDeviceProvider {
    const NAME: &'static str = "GstFbPanDeviceProvider";
    // Another copy of this library in the process has a type of this name: src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::FbPanDeviceProvider;
    type ParentType = gst::DeviceProvider;
}

impl ObjectImpl for FbPanDeviceProvider {}
impl GstObjectImpl for FbPanDeviceProvider {}

impl DeviceProviderImpl for FbPanDeviceProvider {
    fn metadata() -> Option<&'static gst::subclass::DeviceProviderMetadata> {
        static METADATA: LazyLock<gst::subclass::DeviceProviderMetadata> = LazyLock::new(|| {
            metadata(
                "Framebuffer device provider",
                "Lists the framebuffers (/dev/fb*) that fbpansink can use",
            )
        });
        Some(&METADATA)
    }

    fn probe(&self) -> Vec<gst::Device> {
        devices(&FRAMEBUFFERS)
    }

    fn start(&self) -> Result<(), gst::LoggableError> {
        self.watch.start(self.obj().upcast_ref(), FRAMEBUFFERS);
        Ok(())
    }

    fn stop(&self) {
        self.watch.stop();
    }
}

#[derive(Debug, Default)]
pub struct KmsFlipDeviceProvider {
    watch: Watch,
}

#[glib::object_subclass]
impl ObjectSubclass for KmsFlipDeviceProvider {
    const NAME: &'static str = "GstKmsFlipDeviceProvider";
    // Another copy of this library in the process has a type of this name: src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::KmsFlipDeviceProvider;
    type ParentType = gst::DeviceProvider;
}

impl ObjectImpl for KmsFlipDeviceProvider {}
impl GstObjectImpl for KmsFlipDeviceProvider {}

impl DeviceProviderImpl for KmsFlipDeviceProvider {
    fn metadata() -> Option<&'static gst::subclass::DeviceProviderMetadata> {
        static METADATA: LazyLock<gst::subclass::DeviceProviderMetadata> = LazyLock::new(|| {
            metadata(
                "KMS device provider",
                "Lists the displays that are connected to DRM cards, for kmsflipsink; opens no card",
            )
        });
        Some(&METADATA)
    }

    fn probe(&self) -> Vec<gst::Device> {
        devices(&CONNECTORS)
    }

    fn start(&self) -> Result<(), gst::LoggableError> {
        self.watch.start(self.obj().upcast_ref(), CONNECTORS);
        Ok(())
    }

    fn stop(&self) {
        self.watch.stop();
    }
}
