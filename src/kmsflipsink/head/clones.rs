// SPDX-License-Identifier: MPL-2.0
//! The connectors that show the picture of a sink besides its own.

use drm::control::{Device as _, Mode};

use super::Head;
use crate::kmsflipsink::clones::{self, CloneConnector};
use crate::kmsflipsink::device;
use crate::kmsflipsink::discovery::Route;
use crate::kmsflipsink::engine::Engine;
use crate::kmsflipsink::error::KmsError;
use crate::kmsflipsink::mode::ModeLine;

/// Refuses connectors that other sinks of this process show on, and those that the sinks on the CRTC show without.
pub(super) fn check_free(
    engine: &Engine,
    route: &Route,
    clones: &[CloneConnector],
) -> Result<(), KmsError> {
    let mut inner = engine.lock();
    let refused = |name: &str, why| {
        let text = format!("clone-connectors: {name} cannot be added: {why}");
        Err(KmsError::Property(text))
    };
    for clone in clones {
        let elsewhere = inner.crtcs.iter().filter(|crtc| crtc.id != route.crtc);
        let mut elsewhere = elsewhere.filter(|crtc| {
            crtc.connector == clone.id || crtc.clones.iter().any(|other| other.id == clone.id)
        });
        if elsewhere.next().is_some() {
            let why = "another sink of this process shows on it; stop that sink first";
            return refused(&clone.name, why);
        }
        let known = inner.crtc(route.crtc);
        if known.is_some_and(|crtc| crtc.clones.iter().all(|other| other.id != clone.id)) {
            let why = "a sink shows on the same display already; the first one decides, so set the property there";
            return refused(&clone.name, why);
        }
    }
    Ok(())
}

impl Head {
    pub fn clone_names(&self) -> Vec<String> {
        let names = self.with_crtc(|crtc| {
            let names = crtc.clones.iter().map(|clone| clone.name.clone());
            names.collect()
        });
        names.unwrap_or_default()
    }

    /// The connectors that show the picture, for messages: "HDMI-A-1" or "HDMI-A-1 and its clones DP-1, DP-2".
    pub fn shown_on(&self) -> String {
        let clones = self.clone_names();
        match clones.is_empty() {
            true => self.connector_name.clone(),
            false => format!(
                "{} and its clones {}",
                self.connector_name,
                clones.join(", ")
            ),
        }
    }

    /// Those of `modes` that the displays of all clones list.
    pub(super) fn common_modes(
        &self,
        modes: Vec<(Mode, ModeLine)>,
    ) -> Result<Vec<(Mode, ModeLine)>, KmsError> {
        let ids = self.with_crtc(|crtc| crtc.clones.iter().map(|clone| clone.id).collect());
        let ids: Vec<u32> = ids.unwrap_or_default();
        let lines_of = |&id: &u32| -> Result<Vec<ModeLine>, KmsError> {
            let info = device::connector_handle(id)
                .and_then(|handle| self.device.get_connector(handle, false))
                .map_err(|source| self.failed("reading a connector", source))?;
            Ok(info.modes().iter().map(device::mode_line).collect())
        };
        let others = ids.iter().map(lines_of).collect::<Result<Vec<_>, _>>()?;
        let lines: Vec<_> = modes.iter().map(|&(_, line)| line).collect();
        let common = clones::common_modes(&lines, &others);
        if common.is_empty() && !modes.is_empty() {
            return Err(KmsError::Property(format!(
                "clone-connectors: the displays of {} have no mode in common; set mode to a timing that all of them take \
                 (mode=\"1024x768@60 cvt\")",
                self.shown_on()
            )));
        }
        Ok(common.into_iter().map(|index| modes[index]).collect())
    }
}
