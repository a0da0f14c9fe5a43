// SPDX-License-Identifier: MPL-2.0
//! Hotplug: probes the connectors in use, and chooses a mode for a display that is plugged in again.

use drm::control::{self, Device as _};

use super::{Engine, Outbox, Report};
use crate::kmsflipsink::crtc::ModeSet;
use crate::kmsflipsink::device;
use crate::kmsflipsink::mode;
use crate::sys;

/// Probes the connectors of all CRTCs in use.
pub(super) fn look_at_connectors(engine: &Engine) {
    let watched: Vec<(u32, u32)> = engine
        .lock()
        .crtcs
        .iter()
        .map(|crtc| (crtc.id, crtc.connector))
        .collect();
    for (crtc, connector) in watched {
        let info = device::connector_handle(connector)
            .and_then(|handle| engine.device.get_connector(handle, true));
        let mut outbox = Outbox::default();
        let stale = match info {
            Ok(info) => note_connector(engine, crtc, &info, &mut outbox),
            Err(error) => {
                let mut inner = engine.lock();
                if error.raw_os_error() == Some(libc::ENODEV) {
                    inner.lose_device(&sys::describe(&error), &mut outbox);
                }
                None
            }
        };
        outbox.deliver();
        if let Some(blob) = stale {
            let _ = engine.device.destroy_property_blob(blob);
        }
    }
}

fn note_connector(
    engine: &Engine,
    crtc_id: u32,
    info: &control::connector::Info,
    outbox: &mut Outbox,
) -> Option<u64> {
    let is_plugged = device::has_display(info);
    let lines: Vec<_> = info.modes().iter().map(device::mode_line).collect();
    let mut inner = engine.lock();
    let crtc = inner.crtc(crtc_id)?;
    let was_plugged = std::mem::replace(&mut crtc.is_plugged, is_plugged);
    if was_plugged && !is_plugged {
        outbox.tell_all(crtc, &Report::Unplugged);
    }
    if was_plugged || !is_plugged {
        return None;
    }
    let Some(old) = crtc.mode else {
        // No sink on the CRTC has chosen a mode yet; it does so when it plans for this display.
        outbox.tell_all(crtc, &Report::Plugged(None));
        return None;
    };
    // The mode from before if the display has it, else a new choice.
    let index = info
        .modes()
        .iter()
        .position(|mode| *mode == old.mode)
        .or_else(|| mode::choose(&lines, crtc.mode_request, None, crtc.need).ok());
    let (request, need) = (crtc.mode_request, crtc.need);
    drop(inner);
    let mut new = old;
    if let Some(index) = index.filter(|&index| info.modes()[index] != old.mode)
        && let Ok(blob) = engine.device.mode_blob(&info.modes()[index])
    {
        new = ModeSet {
            mode: info.modes()[index],
            line: lines[index],
            blob,
        };
    }
    let mut inner = engine.lock();
    let crtc = inner.crtc(crtc_id)?;
    (crtc.mode_request, crtc.need) = (request, need);
    crtc.mode = Some(new);
    crtc.needs_setup = true;
    for plane in &mut crtc.planes {
        plane.stats.set_period(new.line.period_ns());
    }
    outbox.tell_all(crtc, &Report::Plugged(Some(new.line)));
    (new.blob != old.blob).then_some(old.blob)
}
