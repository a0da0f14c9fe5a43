// SPDX-License-Identifier: MPL-2.0
//! Input devices whose events become navigation events: the property `input-devices`. A thread reads the devices, and
//! ends when [`Input`] is dropped.

mod keys;
mod report;

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use evdev::{AbsoluteAxisCode, KeyCode, PropType};
use gst_video::NavigationEvent;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use self::report::{Abilities, Pointer, Range, Reports};
use super::CAT;
use super::error::KmsError;
use super::opener::{CardLoan, Opener};
use crate::sys;

/// How often devices that are not there are looked for, such as a keyboard that was pulled out.
const LOOK_ROUND_MS: u16 = 1000;

/// Receives the events, whose points are in pixels of the screen.
pub trait Navigator: Send + 'static {
    /// Width and height of the mode.
    fn screen(&self) -> (u32, u32);

    fn navigate(&self, event: NavigationEvent);
}

/// The devices of a sink.
#[derive(Debug)]
pub struct Input {
    end: Arc<End>,
}

#[derive(Debug)]
struct End {
    is_wanted: AtomicBool,
    wake: EventFd,
}

impl Drop for Input {
    fn drop(&mut self) {
        self.end.is_wanted.store(true, Ordering::Release);
        // The thread is not waited for: it may be in the application, which may wait for this one.
        let _ = self.end.wake.write(1);
    }
}

/// The devices that the user asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// All that this process may open.
    All,
    /// These device nodes.
    Named(Vec<String>),
}

impl Wanted {
    fn parse(devices: &str) -> Self {
        match devices.trim() {
            "auto" => Self::All,
            names => {
                let names = names.split(',').map(str::trim);
                Self::Named(
                    names
                        .filter(|name| !name.is_empty())
                        .map(str::to_owned)
                        .collect(),
                )
            }
        }
    }

    fn paths(&self) -> Vec<String> {
        match self {
            Self::Named(paths) => paths.clone(),
            Self::All => {
                let directory = std::fs::read_dir("/dev/input").into_iter().flatten();
                let paths = directory
                    .filter_map(|entry| entry.ok()?.path().into_os_string().into_string().ok());
                let mut paths: Vec<_> = paths
                    .filter(|path| path.starts_with("/dev/input/event"))
                    .collect();
                paths.sort();
                paths
            }
        }
    }
}

struct Device {
    path: String,
    device: evdev::Device,
    reports: Reports,
    /// Given back to the session manager after the file is closed.
    _loan: CardLoan,
}

impl Device {
    fn open(path: &str, opener: Opener) -> io::Result<Self> {
        let (file, loan) = opener.open(path)?;
        let device = evdev::Device::from_fd(file)?;
        let abilities = abilities(&device)?;
        let name = device.name().unwrap_or("without a name");
        gst::info!(CAT, "input device {path}, {name}: {abilities:?}");
        Ok(Self {
            path: path.to_owned(),
            device,
            reports: Reports::new(abilities),
            _loan: loan,
        })
    }

    /// Passes on what the device has reported; an error if it is gone.
    fn read(&mut self, pointer: &mut Pointer, navigator: &dyn Navigator) -> io::Result<()> {
        let events = match self.device.fetch_events() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            events => events?,
        };
        for event in events {
            for event in self.reports.take(event, pointer, navigator.screen()) {
                navigator.navigate(event);
            }
        }
        Ok(())
    }
}

fn abilities(device: &evdev::Device) -> io::Result<Abilities> {
    let has_key = |key| {
        device
            .supported_keys()
            .is_some_and(|keys| keys.contains(key))
    };
    let axes: Vec<_> = device.get_absinfo()?.collect();
    let range = |wanted| {
        let info = axes
            .iter()
            .find(|(axis, _)| *axis == wanted)
            .map(|(_, info)| info);
        info.map(|info| Range {
            min: info.minimum(),
            max: info.maximum(),
        })
    };
    let both = |x, y| Some([range(x)?, range(y)?]);
    let of_fingers = both(
        AbsoluteAxisCode::ABS_MT_POSITION_X,
        AbsoluteAxisCode::ABS_MT_POSITION_Y,
    );
    let has_slots = of_fingers.is_some() && range(AbsoluteAxisCode::ABS_MT_SLOT).is_some();
    let position = match has_slots {
        true => of_fingers,
        false => both(AbsoluteAxisCode::ABS_X, AbsoluteAxisCode::ABS_Y),
    };
    let is_touchpad = device.properties().contains(PropType::POINTER);
    let pressure = match has_slots {
        true => AbsoluteAxisCode::ABS_MT_PRESSURE,
        false => AbsoluteAxisCode::ABS_PRESSURE,
    };
    Ok(Abilities {
        position: position.filter(|_| !is_touchpad),
        pressure: range(pressure).unwrap_or_default(),
        has_slots,
        is_touch: has_slots || has_key(KeyCode::BTN_TOUCH),
    })
}

fn refused(path: &str, error: &io::Error) -> KmsError {
    let remedy = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "; root and the group that owns it (usually `input`) may open it, and seatd or logind for a session in the \
             foreground"
        }
        Some(libc::ENOENT) => "; /proc/bus/input/devices lists the devices",
        _ => "",
    };
    let reason = sys::describe(error);
    KmsError::Property(format!("property input-devices: {path}: {reason}{remedy}"))
}

impl Input {
    /// Opens the devices and starts the thread. `devices` is "auto", or device nodes with commas between.
    pub fn start(
        devices: &str,
        opener: Opener,
        navigator: impl Navigator,
    ) -> Result<Self, KmsError> {
        let wanted = Wanted::parse(devices);
        let mut open = Vec::new();
        if let Wanted::Named(paths) = &wanted {
            for path in paths {
                open.push(Device::open(path, opener).map_err(|error| refused(path, &error))?);
            }
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_value_and_flags(0, flags)
            .map_err(|errno| refused("an eventfd", &errno.into()))?;
        let end = Arc::new(End {
            is_wanted: AtomicBool::new(false),
            wake,
        });
        let reader = Reader {
            wanted,
            opener,
            open,
            told: HashSet::new(),
            end: end.clone(),
        };
        std::thread::Builder::new()
            .name("kmsflipsink-in".into())
            .spawn(move || reader.run(&navigator))
            .map_err(|error| refused("a thread", &error))?;
        Ok(Self { end })
    }
}

/// What the thread has.
struct Reader {
    wanted: Wanted,
    opener: Opener,
    open: Vec<Device>,
    /// Devices that could not be opened, of which the log tells once.
    told: HashSet<String>,
    end: Arc<End>,
}

impl Reader {
    fn run(mut self, navigator: &dyn Navigator) {
        let mut pointer = Pointer::centred();
        while !self.end.is_wanted.load(Ordering::Acquire) {
            self.look_for_devices();
            let wake = (self.end.wake.as_fd(), PollFlags::POLLIN);
            let devices = self
                .open
                .iter()
                .map(|open| (open.device.as_fd(), PollFlags::POLLIN));
            let polled = std::iter::once(wake).chain(devices);
            let mut fds: Vec<_> = polled.map(|(fd, events)| PollFd::new(fd, events)).collect();
            match nix::poll::poll(&mut fds, PollTimeout::from(LOOK_ROUND_MS)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => {
                    gst::warning!(CAT, "waiting for input devices: {errno}");
                    return;
                }
            }
            drop(fds);
            self.open.retain_mut(|open| {
                let read = open.read(&mut pointer, navigator);
                if let Err(error) = &read {
                    // It was pulled out, or the session manager has taken it away while another session is shown.
                    gst::info!(CAT, "input device {}: {}", open.path, sys::describe(error));
                }
                read.is_ok()
            });
        }
    }

    fn look_for_devices(&mut self) {
        for path in self.wanted.paths() {
            if self.open.iter().any(|open| open.path == path) {
                continue;
            }
            match Device::open(&path, self.opener) {
                Ok(device) => {
                    self.told.remove(&path);
                    self.open.push(device);
                }
                Err(error) if self.told.insert(path.clone()) => {
                    gst::info!(CAT, "input device {path}: {}", sys::describe(&error));
                }
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_with_commas_between() {
        let named =
            |paths: &[&str]| Wanted::Named(paths.iter().map(|path| (*path).into()).collect());
        assert_eq!(Wanted::parse("auto"), Wanted::All);
        assert_eq!(
            Wanted::parse("/dev/input/event3"),
            named(&["/dev/input/event3"])
        );
        assert_eq!(Wanted::parse("/a, /b,"), named(&["/a", "/b"]));
    }

    #[test]
    fn what_is_no_input_device_is_refused_with_its_name() {
        struct Nobody;
        impl Navigator for Nobody {
            fn screen(&self) -> (u32, u32) {
                (0, 0)
            }
            fn navigate(&self, _: NavigationEvent) {}
        }
        for path in ["/dev/null", "/dev/input/no such device"] {
            let error = Input::start(path, Opener::None, Nobody).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}
