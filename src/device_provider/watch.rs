// SPDX-License-Identifier: MPL-2.0
//! Keeps the devices of a provider what they are in the machine, from start to stop.

use std::io::{PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::CAT;
use super::device::DisplayDevice;
use super::found::{self, Changes, Found};
use crate::locks::Mutex;
use crate::sys;
use crate::sys::uevent::Uevents;

/// Where the displays of a provider come from.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The kernel's subsystem whose events tell of changes.
    pub subsystem: &'static str,
    /// Looks for the displays.
    pub find: fn() -> Vec<Found>,
}

/// udev may set the permissions of a device node some time after the kernel's event. So after an event, the
/// displays are looked for at once and again after this time.
const UDEV_TIME: Duration = Duration::from_secs(1);

/// The thread that follows the kernel's events, if there is one.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Option<Watcher>>);

#[derive(Debug)]
struct Watcher {
    /// The thread ends when this is dropped.
    running: PipeWriter,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Adds the devices that there are, and then follows changes. If the kernel's events cannot be received, as in
    /// some containers, the devices stay those that there are now.
    pub fn start(&self, provider: &gst::DeviceProvider, source: Source) {
        // Events that come while the displays are looked for are read later.
        let events = Uevents::open(source.subsystem);
        let mut listed = Listed::default();
        listed.update(provider, source);
        let watcher = events.and_then(|events| {
            let (stopped, running) = std::io::pipe()?;
            let provider = provider.downgrade();
            let thread = std::thread::Builder::new()
                .name("physmem-devices".into())
                .spawn(move || follow(&provider, source, &events, &stopped, listed))?;
            Ok(Watcher { running, thread })
        });
        match watcher {
            Ok(watcher) => *self.0.lock() = Some(watcher),
            Err(error) => gst::warning!(
                CAT,
                obj = provider,
                "displays that come and go are not noticed: {}",
                sys::describe(&error)
            ),
        }
    }

    /// Ends the thread. The base class removes the devices.
    pub fn stop(&self) {
        let watcher = self.0.lock().take();
        let Some(Watcher { running, thread }) = watcher else {
            return;
        };
        drop(running);
        if thread.join().is_err() {
            gst::error!(CAT, "the thread that follows displays has panicked");
        }
    }
}

/// The displays of a provider, and their devices.
#[derive(Debug, Default)]
struct Listed(Vec<(Found, gst::Device)>);

impl Listed {
    /// Looks for displays, and tells the provider what has changed.
    fn update(&mut self, provider: &gst::DeviceProvider, source: Source) {
        let known = std::mem::take(&mut self.0);
        let Changes { stay, gone, new } = found::compare(known, (source.find)());
        self.0 = stay;
        for (display, device) in gone {
            gst::info!(CAT, obj = provider, "gone: {}", display.name);
            provider.device_remove(&device);
        }
        for display in new {
            gst::info!(CAT, obj = provider, "there: {}", display.name);
            let device = DisplayDevice::of(display.clone());
            provider.device_add(&device);
            self.0.push((display, device));
        }
    }
}

fn follow(
    provider: &glib::WeakRef<gst::DeviceProvider>,
    source: Source,
    events: &Uevents,
    stopped: &PipeReader,
    mut listed: Listed,
) {
    let mut again_at = None::<Instant>;
    loop {
        let left = again_at.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(events.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match nix::poll::poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                gst::warning!(
                    CAT,
                    "displays that come and go are not noticed any more: {errno}"
                );
                return;
            }
        }
        // The other end of the pipe was closed.
        if fds[1].revents().is_some_and(|events| !events.is_empty()) {
            return;
        }
        let is_due = again_at.is_some_and(|at| at <= Instant::now());
        let mut has_changed = false;
        while events.next().is_some() {
            has_changed = true;
        }
        if !has_changed && !is_due {
            continue;
        }
        again_at = has_changed.then(|| Instant::now() + UDEV_TIME);
        let Some(provider) = provider.upgrade() else {
            return;
        };
        listed.update(&provider, source);
    }
}
