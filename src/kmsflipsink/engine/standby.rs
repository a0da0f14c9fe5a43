// SPDX-License-Identifier: MPL-2.0
//! Handles that a CRTC was switched off on which no new frames come, or that the kernel refused that; see `crtc::standby`.

use std::io;

use super::{Gone, Inner, Outbox};
use crate::kmsflipsink::crtc::Standby;
use crate::sys;

impl Inner {
    pub(super) fn stood_by(
        &mut self,
        crtc_id: u32,
        result: io::Result<()>,
        now_ns: u64,
        outbox: &mut Outbox,
    ) {
        let Some(crtc) = self.crtc(crtc_id) else {
            return;
        };
        let Err(error) = result else {
            crtc.fall_asleep();
            crtc.wake_if_unwanted();
            return;
        };
        crtc.standby = Standby::Refused;
        match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => {
                self.lose_master(now_ns, "another program became master of the card", outbox);
            }
            Some(libc::ENODEV) => self.lose_device(Gone::device(sys::describe(&error)), outbox),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drm::control::atomic::AtomicModeReq;

    use super::super::Engine;
    use super::super::action::Action;
    use super::*;
    use crate::kmsflipsink::claimed_plane::{ClaimedPlane, Frame, IgnoringObserver};
    use crate::kmsflipsink::crtc::{Crtc, Extent, ModeSet};
    use crate::kmsflipsink::device::Device;
    use crate::kmsflipsink::framebuffer::Framebuffer;
    use crate::kmsflipsink::kms_plane::{Extra, sets};

    /// When the frame on the screen came there.
    const SHOWN_NS: u64 = 1_000;
    const WAIT_NS: u64 = 500;

    /// An engine whose CRTC shows a frame, and the framebuffer of that.
    fn stage() -> (Engine, Arc<Framebuffer>) {
        gst::init().unwrap();
        let device = Device::blank();
        let framebuffer = Framebuffer::blank(&device);
        let engine = Engine::new(&device).unwrap();
        let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
        crtc.mode = Some(ModeSet::blank(&device, 1));
        crtc.planes[0].standby_ns = WAIT_NS;
        engine.lock().crtcs.push(crtc);
        show(&engine, &framebuffer, SHOWN_NS);
        (engine, framebuffer)
    }

    /// Hands a frame over, and does what the kernel does until it is shown. Returns the request of the commit.
    fn show(engine: &Engine, framebuffer: &Arc<Framebuffer>, at_ns: u64) -> AtomicModeReq {
        let frame = Frame::blank(framebuffer);
        let mut inner = engine.lock();
        let frames = &mut inner.crtcs[0].planes[0].frames;
        assert!(frames.submit(frame).is_ok());
        let mut outbox = Outbox::default();
        let Action::Commit { request, .. } = inner.next_action(at_ns, &mut outbox) else {
            panic!("no commit");
        };
        inner.committed(1, Ok(()), false, at_ns, &mut outbox);
        inner.flipped(1, at_ns, 1, &mut outbox);
        drop(inner);
        outbox.deliver();
        request
    }

    /// The request for standby that is due at this time.
    fn due(engine: &Engine, now_ns: u64) -> Option<AtomicModeReq> {
        let action = engine.lock().next_action(now_ns, &mut Outbox::default());
        match action {
            Action::Standby { request, .. } => Some(request),
            Action::Wait { .. } => None,
            _ => panic!("something else is due"),
        }
    }

    fn finish(engine: &Engine, errno: Option<i32>) {
        let result = errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)));
        let mut outbox = Outbox::default();
        engine.lock().stood_by(1, result, SHOWN_NS, &mut outbox);
        outbox.deliver();
    }

    /// ACTIVE of the CRTC.
    fn active(engine: &Engine, value: u64) -> Extra {
        let inner = engine.lock();
        inner.crtcs[0].active_extra(value)
    }

    #[test]
    fn the_crtc_is_off_when_no_frame_has_come_for_the_time_and_on_with_the_next() {
        let (engine, framebuffer) = stage();
        assert!(due(&engine, SHOWN_NS + WAIT_NS - 1).is_none());
        let off = due(&engine, SHOWN_NS + WAIT_NS).unwrap();
        let mut expected = AtomicModeReq::new();
        let (object, property, value) = active(&engine, 0);
        expected.add_raw_property(object, property, value);
        assert_eq!(format!("{off:?}"), format!("{expected:?}"), "nothing else");
        finish(&engine, None);
        assert!(engine.lock().crtcs[0].is_asleep());
        // No setup of its own, and no second time.
        assert!(due(&engine, SHOWN_NS + 10 * WAIT_NS).is_none());
        let on = show(&engine, &framebuffer, SHOWN_NS + 20 * WAIT_NS);
        assert!(sets(&on, active(&engine, 1)), "{on:?}");
        assert!(!engine.lock().crtcs[0].is_asleep());
        assert!(due(&engine, SHOWN_NS + 21 * WAIT_NS).is_some(), "again");
    }

    #[test]
    fn the_thread_sleeps_until_standby_is_due() {
        let (engine, _) = stage();
        let action = engine
            .lock()
            .next_action(SHOWN_NS + 1, &mut Outbox::default());
        let Action::Wait { until_ns } = action else {
            panic!("nothing is due");
        };
        assert_eq!(until_ns, SHOWN_NS + WAIT_NS);
    }

    #[test]
    fn the_sink_that_waits_longest_decides_and_zero_is_for_ever() {
        let (engine, _) = stage();
        let mut second = ClaimedPlane::blank(2, Arc::new(IgnoringObserver));
        second.standby_ns = 0;
        engine.lock().crtcs[0].planes.push(second);
        assert!(due(&engine, SHOWN_NS + 100 * WAIT_NS).is_none());
        engine.lock().crtcs[0].planes[1].standby_ns = 3 * WAIT_NS;
        assert!(due(&engine, SHOWN_NS + 2 * WAIT_NS).is_none());
        assert!(due(&engine, SHOWN_NS + 3 * WAIT_NS).is_some());
    }

    #[test]
    fn a_sink_that_no_longer_wants_standby_wakes_the_display() {
        let (engine, _) = stage();
        assert!(due(&engine, SHOWN_NS + WAIT_NS).is_some());
        finish(&engine, None);
        let mut inner = engine.lock();
        inner.crtcs[0].planes[0].standby_ns = 0;
        inner.crtcs[0].wake_if_unwanted();
        let action = inner.next_action(SHOWN_NS + 2 * WAIT_NS, &mut Outbox::default());
        let Action::Commit { request, .. } = action else {
            panic!("no commit");
        };
        drop(inner);
        assert!(sets(&request, active(&engine, 1)));
    }

    #[test]
    fn a_driver_that_refuses_is_not_asked_again_before_the_next_frame() {
        let (engine, framebuffer) = stage();
        assert!(due(&engine, SHOWN_NS + WAIT_NS).is_some());
        finish(&engine, Some(libc::EINVAL));
        assert!(due(&engine, SHOWN_NS + 2 * WAIT_NS).is_none());
        let flip = show(&engine, &framebuffer, SHOWN_NS + 3 * WAIT_NS);
        assert!(!sets(&flip, active(&engine, 1)), "it was never off");
        assert!(due(&engine, SHOWN_NS + 4 * WAIT_NS).is_some());
    }

    #[test]
    fn another_master_gets_the_card_and_the_display_is_on_afterwards() {
        let (engine, _) = stage();
        assert!(due(&engine, SHOWN_NS + WAIT_NS).is_some());
        finish(&engine, None);
        let mut outbox = Outbox::default();
        let mut inner = engine.lock();
        inner.lose_master(SHOWN_NS, "a test", &mut outbox);
        assert!(!inner.is_master() && !inner.crtcs[0].is_asleep());
        drop(inner);
        outbox.deliver();
    }

    #[test]
    fn nothing_that_no_commit_has_changed_is_switched_off() {
        let (engine, _) = stage();
        engine.lock().crtcs[0].is_changed = false;
        assert!(due(&engine, SHOWN_NS + 9 * WAIT_NS).is_none());
    }

    #[test]
    fn the_end_restores_a_crtc_that_was_off() {
        let (engine, _) = stage();
        finish(&engine, None);
        let inner = engine.lock();
        let crtc = &inner.crtcs[0];
        let request = crtc.restore(&[1], 0, Extent::All);
        let off = crtc.active_extra(0);
        assert!(sets(&request, off), "as before the first commit");
    }
}
