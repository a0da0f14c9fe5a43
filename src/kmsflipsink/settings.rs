// SPDX-License-Identifier: MPL-2.0
//! The values of the properties, and what they ask of the rest of the sink.

use std::time::Duration;

use gst_video::VideoOrientationMethod;

use super::balance::Balance;
use super::clones;
use super::colour::Colours;
use super::discovery::Criteria;
use super::error::KmsError;
use super::frame_caps::FrameCaps;
use super::mode::ModeRequest;
use super::offered_memory::OfferedMemory;
use super::opener::Opener;
use super::stream::DisplayOptions;
use super::tune::{self, Tuning};
use crate::display::area::RenderRectangle;
use crate::structure_property::StructureProperty;

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) driver_name: Option<String>,
    pub(super) bus_id: Option<String>,
    pub(super) device: Option<String>,
    pub(super) connector: Option<String>,
    pub(super) connector_id: i32,
    pub(super) clone_connectors: Option<String>,
    pub(super) plane_id: i32,
    pub(super) fd: i32,
    pub(super) mode: String,
    pub(super) restore: bool,
    pub(super) follow_vt: bool,
    pub(super) session: Opener,
    pub(super) input_devices: Option<String>,
    pub(super) force_aspect_ratio: bool,
    pub(super) render_rectangle: RenderRectangle,
    pub(super) rotate_method: VideoOrientationMethod,
    pub(super) zpos: i64,
    pub(super) plane_properties: StructureProperty,
    pub(super) connector_properties: StructureProperty,
    pub(super) crtc_properties: StructureProperty,
    /// What the application has set by GstColorBalance.
    pub(super) balance: Balance,
    pub(super) memory_kind: OfferedMemory,
    pub(super) variable_refresh: bool,
    pub(super) tearing: bool,
    pub(super) post_presentation_messages: bool,
    /// In milliseconds; 0 stands for never.
    pub(super) standby_timeout: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            driver_name: None,
            bus_id: None,
            device: None,
            connector: None,
            connector_id: -1,
            clone_connectors: None,
            plane_id: -1,
            fd: -1,
            mode: "auto".into(),
            restore: true,
            follow_vt: true,
            session: Opener::Auto,
            input_devices: None,
            force_aspect_ratio: true,
            render_rectangle: RenderRectangle::default(),
            rotate_method: VideoOrientationMethod::Identity,
            zpos: -1,
            plane_properties: StructureProperty(None),
            connector_properties: StructureProperty(None),
            crtc_properties: StructureProperty(None),
            balance: Balance::default(),
            memory_kind: OfferedMemory::Auto,
            variable_refresh: false,
            tearing: false,
            post_presentation_messages: false,
            standby_timeout: 0,
        }
    }
}

/// The KMS properties that the user asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    zpos: Option<u64>,
    plane: Option<gst::Structure>,
    connector: Option<gst::Structure>,
    crtc: Option<gst::Structure>,
    balance: Balance,
    variable_refresh: bool,
}

impl Wishes {
    /// The values to set on plane, connector and CRTC. Before the first caps, no colour is set.
    pub(super) fn tuning(
        &self,
        caps: Option<&FrameCaps>,
        rotation: VideoOrientationMethod,
    ) -> Tuning {
        Tuning {
            plane: self.plane.clone(),
            connector: self.connector.clone(),
            crtc: self.crtc.clone(),
            balance: self.balance,
            variable_refresh: self.variable_refresh,
            zpos: self.zpos,
            rotation: tune::rotation_bits(rotation),
            colours: caps.map(Colours::of),
        }
    }
}

impl Settings {
    pub(super) fn criteria(&self) -> Criteria {
        Criteria {
            driver_name: self.driver_name.clone(),
            bus_id: self.bus_id.clone(),
            device: self.device.as_deref().map(node),
            connector_id: u32::try_from(self.connector_id).ok(),
            connector: self.connector.clone(),
            plane_id: u32::try_from(self.plane_id).ok(),
            clones: clones::names(self.clone_connectors.as_deref()),
            opener: self.session,
        }
    }

    pub(super) fn standby(&self) -> Duration {
        Duration::from_millis(self.standby_timeout.into())
    }

    pub(super) fn mode_request(&self) -> Result<ModeRequest, KmsError> {
        self.mode
            .parse()
            .map_err(|error| KmsError::Property(format!("property mode: {error}")))
    }

    pub(super) fn options(&self) -> DisplayOptions {
        DisplayOptions {
            rectangle: self.render_rectangle,
            keep_aspect: self.force_aspect_ratio,
            offered: self.memory_kind,
        }
    }

    /// How to turn the picture of a stream whose tags ask for `of_tags`.
    pub(super) fn rotation(&self, of_tags: VideoOrientationMethod) -> VideoOrientationMethod {
        match self.rotate_method {
            VideoOrientationMethod::Auto => of_tags,
            // A custom orientation is not one of the plane's; the element warned of it.
            VideoOrientationMethod::Custom => VideoOrientationMethod::Identity,
            method => method,
        }
    }

    pub(super) fn wishes(&self) -> Wishes {
        Wishes {
            variable_refresh: self.variable_refresh,
            zpos: u64::try_from(self.zpos).ok(),
            plane: self.plane_properties.0.clone(),
            connector: self.connector_properties.0.clone(),
            crtc: self.crtc_properties.0.clone(),
            balance: self.balance,
        }
    }
}

/// The device node at a path, which may be a link (/dev/dri/by-path). The kernel's events name the node.
fn node(path: &str) -> String {
    let resolved = std::fs::canonicalize(path).ok();
    let resolved = resolved.and_then(|node| node.into_os_string().into_string().ok());
    resolved.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::VideoOrientationMethod as M;
    use super::*;

    #[test]
    fn a_link_stands_for_its_device_node() {
        let settings = |device: &str| Settings {
            device: Some(device.into()),
            ..Settings::default()
        };
        let device = |path| settings(path).criteria().device.unwrap();
        assert_eq!(device("/dev/no such card"), "/dev/no such card");
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("pci-0000:00:02.0-card");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert_eq!(device(link.to_str().unwrap()), "/dev/null");
    }

    #[test]
    fn only_auto_follows_the_tags() {
        for (method, rotation) in [
            (M::Auto, M::_90r),
            (M::Custom, M::Identity),
            (M::Identity, M::Identity),
            (M::Vert, M::Vert),
        ] {
            let settings = Settings {
                rotate_method: method,
                ..Settings::default()
            };
            assert_eq!(settings.rotation(M::_90r), rotation, "{method:?}");
        }
    }
}
