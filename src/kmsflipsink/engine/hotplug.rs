// SPDX-License-Identifier: MPL-2.0
//! Hotplug: probes the connectors in use, and chooses a mode for a display that is plugged in again.

use std::io;

use drm::control::{self, Device as _, Mode};

use super::{Engine, Gone, Inner, ModeSet, Outbox, Report};
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::device::{self, Display};
use crate::kmsflipsink::mode::{self, FrameNeed, ModeRequest};
use crate::sys;

/// Probes the connectors in use that `is_meant` selects by their ids.
pub(super) fn look_at_connectors(engine: &Engine, is_meant: impl Fn(u32) -> bool) {
    let watched: Vec<(u32, u32)> = engine
        .lock()
        .crtcs
        .iter()
        .map(|crtc| (crtc.id, crtc.connector))
        .filter(|&(_, connector)| is_meant(connector))
        .collect();
    for (crtc, connector) in watched {
        let info = device::connector_handle(connector)
            .and_then(|handle| engine.device.get_connector(handle, true));
        let mut outbox = Outbox::default();
        match info {
            Ok(info) => note_connector(engine, crtc, &info, &mut outbox),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                engine
                    .lock()
                    .lose_device(Gone::device(sys::describe(&error)), &mut outbox);
            }
            // A connector of a lease that was revoked, or one that was removed (DisplayPort MST).
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                let is_revoked = !engine.device.is_ours && engine.device.is_crtc_gone(crtc);
                let mut inner = engine.lock();
                inner.note_missing_connector(crtc, is_revoked, &error, &mut outbox);
            }
            Err(_) => {}
        }
        outbox.deliver();
    }
}

fn note_connector(
    engine: &Engine,
    crtc: u32,
    info: &control::connector::Info,
    outbox: &mut Outbox,
) {
    let lines: Vec<_> = info.modes().iter().map(device::mode_line).collect();
    let state = engine.device.connector_state(info);
    if state.is_link_bad {
        gst::info!(CAT, "{info}: the link has failed, and is trained again");
        engine.lock().train_link(crtc);
    }
    let plugged = engine.lock().note_display(crtc, state.display, outbox);
    let Some(PluggedIn { old, request, need }) = plugged else {
        return;
    };
    // Keeps the old mode if the display has it, or the user has made it, and otherwise chooses again.
    let modes = info.modes();
    let is_custom = matches!(request, ModeRequest::Custom(_));
    let index = match is_custom || modes.contains(&old) {
        true => None,
        false => mode::choose(&lines, request, None, need).ok(),
    };
    let new = index.and_then(|index| {
        let blob = engine.device.mode_blob(&modes[index]).ok()?;
        Some(ModeSet {
            mode: modes[index],
            line: lines[index],
            blob,
        })
    });
    engine.lock().replug(crtc, &old, new, outbox);
}

/// A display that was plugged in at a CRTC with a mode, or that has changed.
#[derive(Debug)]
struct PluggedIn {
    /// The mode of the CRTC for the display before.
    old: Mode,
    request: ModeRequest,
    need: Option<FrameNeed>,
}

impl Inner {
    /// Makes the next commit set the mode again, so that the driver trains the link.
    fn train_link(&mut self, crtc_id: u32) {
        if let Some(crtc) = self.crtc(crtc_id) {
            crtc.needs_setup = true;
        }
    }

    /// Handles that the kernel does not know the connector of a CRTC. `is_revoked` says whether it knows the CRTC neither.
    fn note_missing_connector(
        &mut self,
        crtc: u32,
        is_revoked: bool,
        error: &io::Error,
        outbox: &mut Outbox,
    ) {
        match is_revoked {
            true => self.lose_device(Gone::lease(error), outbox),
            false => drop(self.note_display(crtc, None, outbox)),
        }
    }

    /// Stores the display at the connector of a CRTC. If a display was plugged in, or is another one than before,
    /// returns what is needed to choose a mode. A KVM switch or a matrix can exchange displays without an unplug.
    fn note_display(
        &mut self,
        crtc_id: u32,
        display: Option<Display>,
        outbox: &mut Outbox,
    ) -> Option<PluggedIn> {
        let crtc = self.crtc(crtc_id)?;
        let is_plugged = display.is_some();
        let is_other = is_plugged && crtc.display.is_some() && crtc.display != display;
        crtc.display = display.or(crtc.display.take());
        let was_plugged = std::mem::replace(&mut crtc.is_plugged, is_plugged);
        if was_plugged && !is_plugged {
            outbox.tell_all(crtc, &Report::Unplugged);
        }
        if !is_plugged || (was_plugged && !is_other) {
            return None;
        }
        let Some(mode) = &crtc.mode else {
            // No sink on the CRTC has chosen a mode yet; it does so when it plans for this display.
            outbox.tell_all(crtc, &Report::Plugged(None));
            return None;
        };
        Some(PluggedIn {
            old: mode.mode,
            request: crtc.mode_request,
            need: crtc.need,
        })
    }

    /// Drives the display that was plugged in, in the mode `new` if that is not `None`. If a sink has set another
    /// mode than `old` since `note_display`, that mode stays.
    fn replug(&mut self, crtc_id: u32, old: &Mode, new: Option<ModeSet>, outbox: &mut Outbox) {
        let Some(crtc) = self.crtc(crtc_id) else {
            outbox.modes.extend(new);
            return;
        };
        let is_still_old = crtc.mode.as_ref().is_some_and(|mode| mode.mode == *old);
        match new {
            Some(new) if is_still_old => outbox.modes.extend(crtc.mode.replace(new)),
            not_used => outbox.modes.extend(not_used),
        }
        crtc.needs_setup = true;
        crtc.forget_refusals();
        let line = crtc.mode.as_ref().map(|mode| mode.line);
        if let Some(line) = line {
            for plane in &mut crtc.planes {
                plane.stats.set_period(line.period_ns());
            }
        }
        outbox.tell_all(crtc, &Report::Plugged(line));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kmsflipsink::claimed_plane::{ClaimedPlane, IgnoringObserver, Refusals};
    use crate::kmsflipsink::crtc::{Crtc, Setup};
    use crate::kmsflipsink::device::Device;
    use crate::kmsflipsink::head::Head;

    const NEED: FrameNeed = FrameNeed {
        width: 4,
        height: 4,
        rate_mhz: None,
    };

    fn setup(mode: &ModeSet) -> Setup {
        Setup {
            mode: mode.clone(),
            backdrop: None,
        }
    }

    /// A sink on a card whose CRTC is in the mode `old`, and whose display is unplugged.
    fn stage(old: &ModeSet) -> Head {
        let head = Head::blank(&Device::blank());
        let mut inner = head.engine.lock();
        inner.crtcs.push(Crtc::blank(Arc::new(IgnoringObserver)));
        inner.crtcs[0].is_plugged = false;
        drop(inner);
        assert!(head.set_up(&setup(old), ModeRequest::Auto, NEED));
        head
    }

    fn plug_in(head: &Head) -> PluggedIn {
        let mut outbox = Outbox::default();
        head.engine
            .lock()
            .note_display(1, Some(Display::blank(1)), &mut outbox)
            .expect("a display that was plugged in")
    }

    #[test]
    fn another_display_is_noticed_although_there_was_one() {
        let device = Device::blank();
        let old = ModeSet::blank(&device, 1);
        let head = stage(&old);
        let note = |number| {
            let mut inner = head.engine.lock();
            let display = Some(Display::blank(number));
            let noted = inner.note_display(1, display, &mut Outbox::default());
            noted.is_some()
        };
        assert_eq!([1, 1, 2, 2, 1].map(note), [true, false, true, false, true]);
    }

    #[test]
    fn a_connector_that_is_removed_is_unplugged_unless_the_lease_is_gone() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        for is_revoked in [false, true] {
            let head = stage(&ModeSet::blank(&Device::blank(), 1));
            plug_in(&head);
            let mut inner = head.engine.lock();
            assert!(inner.crtcs[0].is_plugged);
            inner.note_missing_connector(1, is_revoked, &error, &mut Outbox::default());
            assert_eq!(inner.gone.is_some(), is_revoked);
            assert_eq!(inner.crtcs[0].is_plugged, is_revoked);
        }
    }

    #[test]
    fn a_link_that_has_failed_is_set_up_again() {
        let head = stage(&ModeSet::blank(&Device::blank(), 1));
        head.engine.lock().crtcs[0].needs_setup = false;
        head.engine.lock().train_link(1);
        assert!(head.engine.lock().crtcs[0].needs_setup);
    }

    #[test]
    fn commits_that_were_refused_before_a_display_was_plugged_in_no_longer_count() {
        let head = stage(&ModeSet::blank(&Device::blank(), 1));
        let refused =
            |head: &Head| head.engine.lock().crtcs[0].planes[0].refusals != Refusals::default();
        let refuse = |head: &Head| {
            head.engine.lock().crtcs[0].planes[0]
                .refusals
                .add(libc::EINVAL, 1)
        };
        refuse(&head);
        let plugged = plug_in(&head);
        assert!(refused(&head));
        replug(&head, &plugged.old, None);
        assert!(!refused(&head));
        refuse(&head);
        let same = ModeSet::blank(&head.device, 1);
        assert!(head.set_up(&setup(&same), ModeRequest::Auto, NEED));
        assert!(!refused(&head));
    }

    fn replug(head: &Head, old: &Mode, new: Option<ModeSet>) {
        let mut outbox = Outbox::default();
        head.engine.lock().replug(1, old, new, &mut outbox);
        outbox.deliver();
    }

    fn mode_of(head: &Head) -> ModeSet {
        head.engine.lock().crtcs[0].mode.clone().unwrap()
    }

    /// How many uses a blob has besides those of the test itself.
    fn uses(mode: &ModeSet) -> usize {
        Arc::strong_count(&mode.blob) - 1
    }

    #[test]
    fn a_display_that_is_plugged_in_gets_the_mode_chosen_for_it() {
        let device = Device::blank();
        let (old, new) = (ModeSet::blank(&device, 1), ModeSet::blank(&device, 2));
        let head = stage(&old);
        let plugged = plug_in(&head);
        assert_eq!(plugged.old, old.mode);
        replug(&head, &plugged.old, Some(new.clone()));
        assert_eq!(mode_of(&head).mode, new.mode);
        assert_eq!((uses(&old), uses(&new)), (0, 1));
    }

    #[test]
    fn a_mode_that_a_sink_sets_meanwhile_stays() {
        let device = Device::blank();
        let modes = [1, 2, 3].map(|clock| ModeSet::blank(&device, clock));
        let [old, of_hotplug, of_sink] = &modes;
        for is_chosen in [false, true] {
            let chosen = is_chosen.then(|| of_hotplug.clone());
            let head = stage(old);
            let plugged = plug_in(&head);
            assert!(head.set_up(&setup(of_sink), ModeRequest::Highest, NEED));
            replug(&head, &plugged.old, chosen);
            assert_eq!(mode_of(&head).mode, of_sink.mode);
            assert_eq!(
                head.engine.lock().crtcs[0].mode_request,
                ModeRequest::Highest
            );
            assert_eq!(modes.each_ref().map(uses), [0, 0, 1]);
        }
    }

    #[test]
    fn a_blob_lives_no_longer_than_its_crtc() {
        let device = Device::blank();
        let (old, new) = (ModeSet::blank(&device, 1), ModeSet::blank(&device, 2));
        let head = stage(&old);
        let plugged = plug_in(&head);
        let mut outbox = Outbox::default();
        head.engine.lock().close(1, &[1], &mut outbox);
        outbox.deliver();
        replug(&head, &plugged.old, Some(new.clone()));
        assert_eq!((uses(&old), uses(&new)), (0, 0));
    }

    #[test]
    fn a_sink_does_not_change_the_mode_of_another_on_the_same_crtc() {
        let device = Device::blank();
        let (mode, other) = (ModeSet::blank(&device, 1), ModeSet::blank(&device, 2));
        let head = stage(&mode);
        head.engine.lock().crtcs[0]
            .planes
            .push(ClaimedPlane::blank(2, Arc::new(IgnoringObserver)));
        assert!(!head.set_up(&setup(&other), ModeRequest::Auto, NEED));
        assert_eq!(mode_of(&head).mode, mode.mode);
        let same = ModeSet::blank(&device, 1);
        assert!(head.set_up(&setup(&same), ModeRequest::Auto, NEED));
        assert_eq!((uses(&mode), uses(&same)), (0, 1));
    }
}
