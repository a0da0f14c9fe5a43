// SPDX-License-Identifier: MPL-2.0
//! Properties and hooks.
#![allow(missing_docs)] // for the derived getters and setters, which the blurbs describe

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::{glib, prelude::*, subclass::prelude::*};

use super::protocol::{default_directory, socket_name};
use super::sampler::Sampler;
use super::service::Service;
use super::watched::{Moment, Watched};
use super::{CAT, summary};
use crate::locks::lock;

#[derive(Debug, Clone)]
struct Settings {
    summary: bool,
    socket: Option<String>,
    interval_ms: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            summary: false,
            socket: None,
            interval_ms: 100,
        }
    }
}

/// The thread that reads the numbers.
#[derive(Debug, Default)]
enum State {
    /// There was no element or pool of this plugin yet.
    #[default]
    Idle,
    Running(Sampler),
    /// The thread could not be started, or the tracer has ended.
    Ended,
}

// The properties are set before `constructed` with any version of GStreamer if they are construct
// properties. `interval` is signed because the text "interval=50" is a gint.
#[derive(Default, glib::Properties)]
#[properties(wrapper_type = super::PhysMemTracer)]
pub struct PhysMemTracer {
    #[property(name = "summary", get, set, construct, type = bool, member = summary, nick = "Summary",
        blurb = "Print a table of elements and pools to the standard error at the end", default = false)]
    #[property(name = "socket", get, set, construct, type = Option<String>, member = socket, nick = "Socket",
        blurb = "Serve the numbers on a Unix socket, for physmem-top: its path, a directory for it, or 'auto' for the user's runtime directory")]
    #[property(name = "interval", get, set, construct, type = i32, member = interval_ms, nick = "Interval",
        blurb = "Milliseconds between two readings of the numbers", minimum = 1, maximum = 60_000, default = 100)]
    settings: Mutex<Settings>,
    watched: Arc<Watched>,
    state: Mutex<State>,
}

/// The path of the socket that the property asks for. `directory` is that of sockets without a path.
fn socket_path(
    wanted: &str,
    directory: impl FnOnce() -> PathBuf,
    is_dir: impl Fn(&Path) -> bool,
) -> PathBuf {
    let path = Path::new(wanted);
    if wanted == "auto" {
        directory().join(socket_name(std::process::id()))
    } else if is_dir(path) {
        path.join(socket_name(std::process::id()))
    } else {
        path.to_owned()
    }
}

impl PhysMemTracer {
    /// Starts the thread with the first element or pool of this plugin: a program that has none, such as
    /// gst-inspect-1.0, gets neither thread nor socket.
    fn begin(&self) {
        let mut state = lock(&self.state);
        if !matches!(*state, State::Idle) {
            return;
        }
        let settings = lock(&self.settings).clone();
        let service = settings.socket.and_then(|wanted| self.service(&wanted));
        let interval = Duration::from_millis(settings.interval_ms.max(1) as u64);
        *state = match Sampler::start(self.watched.clone(), interval, service) {
            Ok(sampler) => State::Running(sampler),
            Err(error) => {
                gst::warning!(CAT, imp = self, "no thread to read the numbers: {error}");
                State::Ended
            }
        };
    }

    fn service(&self, wanted: &str) -> Option<Service> {
        let directory = || {
            let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
            let uid = nix::unistd::getuid().as_raw();
            default_directory(runtime.as_deref(), uid, Path::is_dir)
        };
        let path = socket_path(wanted, directory, Path::is_dir);
        match Service::new(&path) {
            Ok(service) => {
                gst::info!(CAT, imp = self, "serving on {}", path.display());
                Some(service)
            }
            Err(error) => {
                // A warning of GLib, as GStreamer's own tracers give for parameters that fail.
                glib::g_warning!(
                    "GStreamer-PhysMem",
                    "the tracer physmem cannot serve on {}: {}; give another path as socket",
                    path.display(),
                    crate::sys::describe(&error)
                );
                None
            }
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for PhysMemTracer {
    const NAME: &'static str = "GstPhysMemTracer";
    // Another copy of this library may be in the process: see src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::PhysMemTracer;
    type ParentType = gst::Tracer;
}

#[glib::derived_properties]
impl ObjectImpl for PhysMemTracer {
    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.derived_set_property(id, &crate::property_text::readable(value), pspec);
    }

    fn constructed(&self) {
        self.parent_constructed();
        for hook in [
            TracerHook::ObjectCreated,
            TracerHook::ElementChangeStatePre,
            TracerHook::ElementChangeStatePost,
            TracerHook::PadPushPre,
            TracerHook::PadPushListPre,
        ] {
            self.register_hook(hook);
        }
    }

    /// gst_deinit() drops the last reference.
    fn dispose(&self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Ended);
        let State::Running(sampler) = state else {
            return;
        };
        drop(sampler); // waits for the thread
        self.watched.read(Moment::Event);
        let snapshot = self.watched.snapshot();
        for element in &snapshot.elements {
            gst::info!(CAT, "{}", summary::element_record(element));
        }
        for pool in &snapshot.pools {
            gst::info!(CAT, "{}", summary::pool_record(pool));
        }
        if lock(&self.settings).summary {
            // Nobody can be told if this fails.
            let _ = std::io::stderr().write_all(summary::table(&snapshot).as_bytes());
        }
    }
}

impl GstObjectImpl for PhysMemTracer {}

impl TracerImpl for PhysMemTracer {
    const USE_STRUCTURE_PARAMS: bool = true;

    fn object_created(&self, _ts: u64, object: &gst::Object) {
        if self.watched.pool(object) {
            self.begin();
        }
    }

    fn element_change_state_pre(&self, _ts: u64, element: &gst::Element, change: gst::StateChange) {
        if self.watched.element(element) {
            self.begin();
        }
        // A pipeline changes before its elements do, and with these the pools lose their buffers.
        if change == gst::StateChange::PausedToReady && element.parent().is_none() {
            self.watched.read(Moment::Event);
        }
    }

    fn element_change_state_post(
        &self,
        _ts: u64,
        element: &gst::Element,
        change: gst::StateChange,
        _result: Result<gst::StateChangeSuccess, gst::StateChangeError>,
    ) {
        // The last numbers of the run are there, and the next start sets them to 0.
        if change == gst::StateChange::ReadyToNull && element.parent().is_none() {
            self.watched.read(Moment::Event);
        }
    }

    fn pad_push_pre(&self, _ts: u64, pad: &gst::Pad, buffer: &gst::Buffer) {
        self.watched.pushed(pad, buffer);
    }

    fn pad_push_list_pre(&self, _ts: u64, pad: &gst::Pad, list: &gst::BufferList) {
        for buffer in list.iter() {
            self.watched.pushed(pad, buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_the_parameter_says() {
        let name = socket_name(std::process::id());
        let path = |wanted| socket_path(wanted, || "/run/x".into(), |path| path == "/tmp");
        assert_eq!(path("auto"), Path::new("/run/x").join(&name));
        assert_eq!(path("/tmp"), Path::new("/tmp").join(&name));
        assert_eq!(path("/tmp/a.sock"), Path::new("/tmp/a.sock"));
    }
}
