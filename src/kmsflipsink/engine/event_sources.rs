// SPDX-License-Identifier: MPL-2.0
//! The file descriptors that the thread polls: its eventfd, the card, kernel events and virtual terminals.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use drm::control::{Device as _, Event};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::handover::Handover;
use super::hotplug::look_at_connectors;
use super::outcome::flip_deadline_ns;
use super::{Crtc, Engine, Gone, Inner, Outbox};
use crate::sys;
use crate::sys::clock::monotonic_ns;
use crate::sys::console::{ActiveVt, own_vt};
use crate::sys::sync_file;
use crate::sys::uevent::Uevents;
use crate::sys::vt_guard::VtSwitch;

/// The event sources besides the card and the eventfd.
pub(super) struct EventSources {
    uevents: Option<Uevents>,
    /// Set if the kernel, or a session manager, asks before another program gets the screen.
    handover: Option<Handover>,
    /// Otherwise, the terminal in the foreground, which tells of a switch that has happened.
    vt: Option<ActiveVt>,
    /// The virtual terminal of this process, or else the one that was in the foreground when the thread started.
    home: String,
}

impl EventSources {
    /// Leaves out what cannot be opened.
    pub(super) fn open(engine: &Engine) -> Self {
        let mut sources = Self {
            uevents: Uevents::open("drm").ok(),
            handover: Handover::begin(engine),
            vt: None,
            home: String::new(),
        };
        if sources.handover.is_none() && !engine.device.loan.is_lent() {
            sources.vt = ActiveVt::open().ok();
            // Also arms the first POLLPRI.
            let active = sources.vt.as_mut().and_then(|vt| vt.name().ok());
            let own = own_vt().map(|number| format!("tty{number}"));
            sources.home = own.or(active).unwrap_or_default();
        }
        sources
    }

    /// Lets another virtual terminal or session have the screen, if somebody waits for that, and the card has been given
    /// up.
    pub(super) fn answer_handover(&mut self, engine: &Engine) {
        let Some(handover) = self.handover.as_mut().filter(|it| it.is_asked_for()) else {
            return;
        };
        let inner = engine.lock();
        let is_unused = inner.crtcs.is_empty();
        if inner.is_master() && inner.gone.is_none() && !is_unused {
            return; // the next action gives it up
        }
        drop(inner);
        if is_unused {
            engine.device.give_up_master();
        }
        handover.let_go();
    }

    /// Sleeps until an event or until `until_ns` (CLOCK_MONOTONIC), and handles the events.
    pub(super) fn wait(&mut self, engine: &Engine, until_ns: u64, outbox: &mut Outbox) {
        let inner = engine.lock();
        // poll would return at once for a device that is gone.
        let is_there = inner.gone.is_none();
        let reads_events = inner.reads_events();
        let crtcs = inner.crtcs.iter().filter(|_| is_there);
        let fences: Vec<_> = crtcs
            .filter_map(|crtc| Some((crtc.id, crtc.out_fence.clone()?)))
            .collect();
        drop(inner);
        let drm = reads_events.then(|| engine.device.as_fd());
        let uevents = self.uevents.as_ref().filter(|_| is_there);
        let vt = self.vt.as_ref().filter(|_| is_there);
        let handover = self.handover.as_ref();
        let own = [
            (Some(engine.wake.as_fd()), PollFlags::POLLIN),
            (drm, PollFlags::POLLIN),
            (uevents.map(AsFd::as_fd), PollFlags::POLLIN),
            (vt.map(AsFd::as_fd), PollFlags::POLLPRI),
            (handover.map(AsFd::as_fd), PollFlags::POLLIN),
        ];
        let fence_fds = fences
            .iter()
            .map(|(_, fence)| (Some(fence.as_fd()), PollFlags::POLLIN));
        // The eventfd, polled for no event, keeps the place of a source that is missing.
        let polled = own
            .into_iter()
            .chain(fence_fds)
            .map(|(fd, events)| match fd {
                Some(fd) => PollFd::new(fd, events),
                None => PollFd::new(engine.wake.as_fd(), PollFlags::empty()),
            });
        let mut fds: Vec<_> = polled.collect();
        let time = Duration::from_nanos(until_ns.saturating_sub(monotonic_ns()));
        let time = nix::sys::time::TimeSpec::from_duration(time.min(Duration::from_secs(3600)));
        if nix::poll::ppoll(&mut fds, Some(time), None).is_err() {
            return;
        }
        let happened = fds
            .iter()
            .map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        let happened: Vec<_> = happened.collect();
        drop(fds);
        if happened[0] {
            let _ = engine.wake.read();
        }
        let mut has_flipped = happened[1] && read_events(engine, outbox);
        for ((crtc, fence), _) in fences
            .into_iter()
            .zip(&happened[5..])
            .filter(|(_, is)| **is)
        {
            read_fence(engine, crtc, &fence, outbox);
            has_flipped = true;
        }
        if has_flipped {
            return; // The next poll reports the other sources again, which take longer.
        }
        if happened[2] {
            self.read_uevents(engine);
        }
        if happened[3] {
            self.read_vt(engine);
        }
        if happened[4] {
            self.read_handover(engine);
        }
    }

    fn read_uevents(&self, engine: &Engine) {
        let is_ours = engine.device.is_ours;
        let (mut is_any, mut connectors) = (false, Vec::new());
        while let Some(event) = self.uevents.as_ref().and_then(Uevents::next) {
            let is_of_card = event.device.is_empty() || engine.device.path.ends_with(&event.device);
            // On a card that this process opened, leases do not matter. If the sink uses a lease, its connectors show
            // whether the lease was revoked.
            if !is_of_card || (event.is_lease && is_ours) {
                continue;
            }
            is_any |= event.connector.is_none();
            connectors.extend(event.connector);
        }
        // Probing a connector may take long, and no frame is shown meanwhile.
        if is_any || !connectors.is_empty() {
            look_at_connectors(engine, |connector| {
                is_any || connectors.contains(&connector)
            });
        }
    }

    fn read_vt(&mut self, engine: &Engine) {
        if let Some(Ok(name)) = self.vt.as_mut().map(ActiveVt::name) {
            let mut inner = engine.lock();
            if inner.follows_vt && engine.device.is_ours {
                inner.switch_vt(name != self.home);
            }
        }
    }

    fn read_handover(&mut self, engine: &Engine) {
        match self.handover.as_mut().and_then(Handover::next) {
            Some(switch) => engine.lock().switch_vt(switch == VtSwitch::Release),
            // The process that holds the terminal was killed, and the kernel has reset the terminal, or will. Or the
            // session manager was, and nobody takes the card any more.
            None => self.handover = None,
        }
    }
}

impl Inner {
    /// Whether the card's thread reads the card's events. If commits make fences, the file is the application's, and only
    /// the application reads them.
    fn reads_events(&self) -> bool {
        self.gone.is_none() && self.crtcs.iter().any(|crtc| !crtc.makes_fences())
    }

    fn is_flip_overdue(&self, now_ns: u64) -> bool {
        let mut in_flight = self.crtcs.iter().filter_map(|crtc| crtc.in_flight);
        in_flight.any(|(since_ns, kind)| now_ns >= flip_deadline_ns(since_ns, kind))
    }
}

/// Reads the event of a flip that is overdue, if it is there: not the kernel was late then, but this thread, for which a
/// slow display or another CRTC's modeset took the time.
pub(super) fn read_late_events(engine: &Engine, now_ns: u64, outbox: &mut Outbox) {
    let inner = engine.lock();
    if !(inner.is_flip_overdue(now_ns) && inner.reads_events()) {
        return;
    }
    drop(inner);
    // An application may have opened its file for reads that block.
    let mut fds = [PollFd::new(engine.device.as_fd(), PollFlags::POLLIN)];
    if nix::poll::poll(&mut fds, PollTimeout::ZERO) == Ok(1) {
        read_events(engine, outbox);
    }
}

/// Handles the events of the card. Returns whether there were any.
fn read_events(engine: &Engine, outbox: &mut Outbox) -> bool {
    let events = match engine.device.receive_events() {
        Ok(events) => events,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {
            return false;
        }
        Err(error) => {
            let gone = Gone::device(sys::describe(&error));
            engine.lock().lose_device(gone, outbox);
            return true;
        }
    };
    for event in events {
        if let Event::PageFlip(flip) = event {
            let shown_ns = flip.duration.as_nanos() as u64;
            engine
                .lock()
                .flipped(flip.crtc.into(), shown_ns, flip.frame, outbox);
        }
    }
    true
}

/// Handles a signalled fence: the commit in flight is on the screen.
fn read_fence(engine: &Engine, crtc_id: u32, fence: &Arc<OwnedFd>, outbox: &mut Outbox) {
    // A file of several fences tells no time. It is signalled all the same, and would be reported again at once.
    let shown_ns = match sync_file::signalled_ns(fence.as_fd()) {
        Ok(None) => return,
        Ok(shown_ns) => shown_ns,
        Err(_) => None,
    };
    let mut inner = engine.lock();
    let is_in_flight = |crtc: &mut Crtc| {
        let of_crtc = crtc.out_fence.as_ref();
        of_crtc.is_some_and(|known| Arc::ptr_eq(known, fence))
    };
    if inner.crtc(crtc_id).is_some_and(is_in_flight) {
        match shown_ns {
            Some(shown_ns) => inner.flipped(crtc_id, shown_ns, 0, outbox),
            None => inner.flipped_before(crtc_id, monotonic_ns(), outbox),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::kmsflipsink::claimed_plane::IgnoringObserver;
    use crate::kmsflipsink::device::Device;

    /// Otherwise poll would report it again and again.
    #[test]
    fn a_fence_whose_time_cannot_be_read_is_polled_no_more() {
        let engine = Engine::new(&Device::blank()).unwrap();
        let fence = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
        crtc.begin_commit(0);
        crtc.out_fence = Some(fence.clone());
        engine.lock().crtcs.push(crtc);
        let mut outbox = Outbox::default();
        read_fence(&engine, 1, &fence, &mut outbox);
        outbox.deliver();
        let inner = engine.lock();
        assert!(inner.crtcs[0].out_fence.is_none() && inner.crtcs[0].in_flight.is_none());
    }

    /// What the kernel writes for a flip, struct drm_event_vblank.
    fn flip_event(crtc: u32) -> Vec<u8> {
        const DRM_EVENT_FLIP_COMPLETE: u32 = 2;
        const LENGTH: u32 = 32;
        let (user_data, seconds, microseconds, sequence) = ([0, 0], 5, 0, 7);
        let event = [
            [DRM_EVENT_FLIP_COMPLETE, LENGTH],
            user_data,
            [seconds, microseconds],
            [sequence, crtc],
        ];
        event
            .concat()
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect()
    }

    #[test]
    fn an_event_that_this_thread_reads_late_is_not_lost() {
        const LATE_NS: u64 = 60_000_000_000;
        let (file, mut kernel) = UnixStream::pair().unwrap();
        let device = Device::new(file.into(), "/dev/null".into(), true).unwrap();
        let engine = Engine::new(&Arc::new(device)).unwrap();
        let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
        crtc.begin_commit(0);
        engine.lock().crtcs.push(crtc);
        let mut outbox = Outbox::default();
        read_late_events(&engine, LATE_NS, &mut outbox); // no event, and it does not block
        kernel.write_all(&flip_event(1)).unwrap();
        read_late_events(&engine, 1, &mut outbox);
        assert!(engine.lock().crtcs[0].in_flight.is_some(), "it is not late");
        read_late_events(&engine, LATE_NS, &mut outbox);
        outbox.deliver();
        let inner = engine.lock();
        let crtc = &inner.crtcs[0];
        assert!(crtc.in_flight.is_none());
        assert_eq!(
            (crtc.last_flip_ns, crtc.planes[0].stats.lost_events),
            (5_000_000_000, 0)
        );
    }
}
