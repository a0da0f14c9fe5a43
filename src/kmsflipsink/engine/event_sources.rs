// SPDX-License-Identifier: MPL-2.0
//! The file descriptors that the thread polls: its eventfd, the card, kernel events and the virtual
//! terminal.

use std::os::fd::AsFd;
use std::time::Duration;

use drm::control::{Device as _, Event};
use nix::poll::{PollFd, PollFlags};

use super::hotplug::look_at_connectors;
use super::{Engine, Gone, Master, Outbox};
use crate::sys;
use crate::sys::clock::monotonic_ns;
use crate::sys::console::ActiveVt;
use crate::sys::uevent::Uevents;

/// The event sources besides the card and the eventfd.
pub(super) struct EventSources {
    uevents: Option<Uevents>,
    vt: Option<ActiveVt>,
    /// The virtual terminal that was in the foreground when the thread started.
    home: String,
}

impl EventSources {
    /// Leaves out what cannot be opened.
    pub(super) fn open() -> Self {
        let mut vt = ActiveVt::open().ok();
        let home = vt
            .as_mut()
            .and_then(|vt| vt.name().ok())
            .unwrap_or_default();
        Self {
            uevents: Uevents::open().ok(),
            vt,
            home,
        }
    }

    /// Sleeps until an event or until `until_ns` (CLOCK_MONOTONIC), and handles the events.
    pub(super) fn wait(&mut self, engine: &Engine, until_ns: u64) {
        let is_gone = engine.lock().gone.is_some();
        let mut fds = vec![PollFd::new(engine.wake.as_fd(), PollFlags::POLLIN)];
        // poll would return at once for a device that is gone.
        if !is_gone {
            fds.push(PollFd::new(engine.device.as_fd(), PollFlags::POLLIN));
            fds.extend(
                self.uevents
                    .iter()
                    .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
            );
            fds.extend(
                self.vt
                    .iter()
                    .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLPRI)),
            );
        }
        let time = Duration::from_nanos(until_ns.saturating_sub(monotonic_ns()));
        let time = nix::sys::time::TimeSpec::from_duration(time.min(Duration::from_secs(3600)));
        if nix::poll::ppoll(&mut fds, Some(time), None).is_err() {
            return;
        }
        let happened = |index: usize| {
            fds.get(index)
                .and_then(PollFd::revents)
                .is_some_and(|events| !events.is_empty())
        };
        let (woken, drm, second, third) = (happened(0), happened(1), happened(2), happened(3));
        let (uevent, vt) = if self.uevents.is_some() {
            (second, third)
        } else {
            (false, second)
        };
        drop(fds);
        if woken {
            let _ = engine.wake.read();
        }
        if drm {
            read_events(engine);
        }
        if uevent {
            self.read_uevents(engine);
        }
        if vt {
            self.read_vt(engine);
        }
    }

    fn read_uevents(&self, engine: &Engine) {
        let mut concerns_us = false;
        while let Some(event) = self.uevents.as_ref().and_then(Uevents::next) {
            concerns_us |= event.device.is_empty() || engine.device.path.ends_with(&event.device);
        }
        if concerns_us {
            look_at_connectors(engine);
        }
    }

    fn read_vt(&mut self, engine: &Engine) {
        if let Some(Ok(name)) = self.vt.as_mut().map(ActiveVt::name) {
            let mut inner = engine.lock();
            if inner.follows_vt && engine.device.is_ours {
                inner.is_vt_away = name != self.home;
                if let Master::Lost { retry_at_ns } = &mut inner.master {
                    *retry_at_ns = 0;
                }
            }
        }
    }
}

fn read_events(engine: &Engine) {
    let events = match engine.device.receive_events() {
        Ok(events) => events,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => return,
        Err(error) => {
            let mut outbox = Outbox::default();
            engine
                .lock()
                .lose_device(Gone::device(sys::describe(&error)), &mut outbox);
            outbox.deliver();
            return;
        }
    };
    let mut outbox = Outbox::default();
    for event in events {
        if let Event::PageFlip(flip) = event {
            let shown_ns = flip.duration.as_nanos() as u64;
            engine
                .lock()
                .flipped(flip.crtc.into(), shown_ns, flip.frame, &mut outbox);
        }
    }
    outbox.deliver();
}
