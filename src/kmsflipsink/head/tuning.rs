// SPDX-License-Identifier: MPL-2.0
//! What a sink sets besides its frames: properties of the plane, the CRTC and the connector, tearing, and standby.

use std::time::Duration;

use super::{Head, is_about_us};
use crate::display::area::Placement;
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::balance::Controls;
use crate::kmsflipsink::claimed_plane::Pace;
use crate::kmsflipsink::colour::Decides;
use crate::kmsflipsink::error::KmsError;
use crate::kmsflipsink::framebuffer::Framebuffer;
use crate::kmsflipsink::tune::Resolved;
use crate::sys;

impl Head {
    /// Who decides on the colours of the connector.
    pub fn decides(&self) -> Decides {
        let first = self.with_crtc(|crtc| crtc.planes.first().map(|plane| plane.id));
        match first.flatten() == Some(self.route.kms_plane) {
            true => Decides::ThisSink,
            false => Decides::OtherSink,
        }
    }

    /// Sets properties with the next commit; see `ClaimedPlane::set_extras`.
    pub fn tune(&self, resolved: Resolved) {
        let Resolved {
            extras,
            before,
            blobs,
            controls,
            colours,
            variable_refresh,
            is_off_colour,
        } = resolved;
        let tuned = self.with_plane(|plane| {
            plane.controls = controls;
            plane.pace.is_variable = variable_refresh.is_some_and(|result| result.is_ok());
            let left = plane.set_extras(extras, before, blobs);
            let is_news = std::mem::replace(&mut plane.colours, colours.clone()) != colours;
            (is_news, left)
        });
        if let (Some((true, _)), Some(colours)) = (tuned, colours) {
            match is_off_colour {
                true => gst::info!(CAT, "colours may be shown wrong: {colours}"),
                false => gst::debug!(CAT, "colours: {colours}"),
            }
        }
    }

    /// What GstColorBalance can set on the display.
    pub fn controls(&self) -> Controls {
        self.with_plane(|plane| plane.controls).unwrap_or_default()
    }

    /// Lets frames replace one another at once from the next commit on. Otherwise says why they cannot.
    pub fn allow_tearing(&self, may_tear: bool) -> Result<(), &'static str> {
        let makes_fences = self.with_crtc(|crtc| crtc.makes_fences()) == Some(true);
        let obstacle = match (self.device.can_flip_async, makes_fences) {
            (false, _) => Some("the driver has no such flips by atomic commits"),
            (true, true) => Some("commits to a card that the application opened make fences"),
            (true, false) => None,
        };
        let obstacle = obstacle.filter(|_| may_tear);
        self.with_plane(|plane| plane.pace.may_tear = may_tear && obstacle.is_none());
        obstacle.map_or(Ok(()), Err)
    }

    /// Has the display switched off when no new frame has come for this time; 0 stands for never.
    pub fn set_standby(&self, wait: Duration) {
        let wait_ns = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.with_crtc(|crtc| {
            if let Some(plane) = crtc.plane_mut(self.route.kms_plane) {
                plane.standby_ns = wait_ns;
            }
            crtc.wake_if_unwanted();
        });
        self.engine.wake();
    }

    /// Whether the display waits with its vertical blank for frames.
    pub fn has_variable_refresh(&self) -> bool {
        self.with_plane(|plane| plane.pace.is_variable)
            .unwrap_or(false)
    }

    /// The time in which a frame that is committed comes onto the screen; `None` before a mode is chosen.
    pub fn display_delay(&self) -> Option<Duration> {
        let delay_ns = self.with_crtc(|crtc| {
            let plane = crtc.plane(self.route.kms_plane)?;
            let mode = crtc.mode.as_ref()?;
            Some(display_delay_ns(plane.pace, mode.line.period_ns()))
        });
        delay_ns.flatten().map(Duration::from_nanos)
    }

    /// Sets other properties with the next commit, if the driver would show the newest frame with them (TEST_ONLY), or
    /// `stand_in` before there is a frame. Otherwise the properties stay as they are.
    pub fn retune(
        &self,
        resolved: Resolved,
        stand_in: Option<(&Framebuffer, Placement)>,
    ) -> Result<(), KmsError> {
        let newest = self.with_plane(|plane| {
            let frame = plane.frames.latest();
            let frame = frame.map(|frame| (frame.framebuffer.clone(), frame.placement));
            (frame, plane.with_restored(resolved.extras.clone()))
        });
        let Some((frame, extras)) = newest else {
            return Ok(());
        };
        let shown = frame
            .as_ref()
            .map(|(framebuffer, placement)| (&**framebuffer, *placement))
            .or(stand_in);
        if let Some((framebuffer, placement)) = shown
            && let Err(source) = self.try_out(framebuffer, &placement, None, None, Some(&extras))
            && !is_about_us(&source)
        {
            let (path, errno) = (&self.device.path, sys::describe(&source));
            return Err(KmsError::Property(format!("{path} refuses them: {errno}")));
        }
        self.tune(resolved);
        Ok(())
    }
}

/// A frame waits for the next vertical blank, which comes within one period, unless the display waits for the frame or
/// the frame may tear.
fn display_delay_ns(pace: Pace, period_ns: u64) -> u64 {
    match pace == Pace::default() {
        true => period_ns,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_waits_for_the_vertical_blank_unless_that_waits_for_the_frame() {
        let pace = |may_tear, is_variable| Pace {
            may_tear,
            is_variable,
        };
        let delay_ns = |pace| display_delay_ns(pace, 20);
        assert_eq!(delay_ns(pace(false, false)), 20);
        assert_eq!(delay_ns(pace(true, false)), 0);
        assert_eq!(delay_ns(pace(false, true)), 0);
    }
}
