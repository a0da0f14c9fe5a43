// SPDX-License-Identifier: MPL-2.0
//! Standby: the CRTC is off (ACTIVE=0, which was DPMS off), and with it the display, while no new frames come. The property
//! `standby-timeout`. The planes keep their framebuffers, and the next setup switches the CRTC on again.

use drm::control::atomic::AtomicModeReq;

use super::Crtc;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standby {
    #[default]
    Awake,
    /// The CRTC is off until the next setup.
    Asleep,
    /// The kernel refused to switch the CRTC off. That is not asked again before the next commit.
    Refused,
}

impl Crtc {
    /// When to switch the CRTC off if no commit comes before; `None` if not at all. The sink on the CRTC that waits longest
    /// decides, and one that does not want standby keeps the CRTC on.
    pub fn standby_time(&self) -> Option<u64> {
        let is_at_rest = self.in_flight.is_none() && !self.has_pending() && self.is_changed;
        if self.standby != Standby::Awake || !is_at_rest {
            return None;
        }
        let mut waits = self.planes.iter().map(|plane| plane.standby_ns);
        let longest_ns = waits.clone().max()?;
        waits
            .all(|wait_ns| wait_ns > 0)
            .then_some(self.last_flip_ns.saturating_add(longest_ns))
    }

    /// The request that switches the CRTC off and leaves everything else.
    pub fn standby_request(&self) -> AtomicModeReq {
        let mut request = AtomicModeReq::new();
        request.add_raw_property(self.object, self.active, 0);
        request
    }

    /// Whether the CRTC is off, so that only a frame makes a commit worth while.
    pub fn is_asleep(&self) -> bool {
        self.standby == Standby::Asleep
    }

    /// Notes that the CRTC is off. The next commit is a setup, which switches it on.
    pub fn fall_asleep(&mut self) {
        self.standby = Standby::Asleep;
        self.needs_setup = true;
    }

    /// Switches the CRTC on without waiting for a frame, if a sink on it does not want standby any more.
    pub fn wake_if_unwanted(&mut self) {
        if self.planes.iter().any(|plane| plane.standby_ns == 0) {
            self.standby = Standby::Awake;
        }
    }
}

#[cfg(test)]
impl Crtc {
    /// The property ACTIVE with this value.
    pub fn active_extra(&self, value: u64) -> crate::kmsflipsink::kms_plane::Extra {
        (self.object, self.active, value)
    }
}
