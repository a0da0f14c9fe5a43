// SPDX-License-Identifier: MPL-2.0
//! Objects of GStreamer that nobody gives up, as GStreamer's tracer `leaks` counts them. Without `leaks` in `GST_TRACERS`
//! there are none.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gst::prelude::*;

/// Threads that a test has left behind get this long to give up what they have.
const SETTLE: Duration = Duration::from_millis(500);

fn tracer() -> Option<gst::Tracer> {
    let tracers = gst::active_tracers();
    let mut tracers = tracers.into_iter();
    tracers.find(|tracer| tracer.type_().name() == "GstLeaksTracer")
}

/// How many objects of each type there are more than when this was called first.
///
/// The tracer's list of all objects is of no use here: it takes over the last reference to each of them.
pub fn alive() -> BTreeMap<String, i64> {
    static ALIVE: Mutex<Option<BTreeMap<String, i64>>> = Mutex::new(None);
    let Some(leaks) = tracer() else {
        return BTreeMap::new();
    };
    let mut alive = ALIVE.lock().unwrap_or_else(|e| e.into_inner());
    let Some(alive) = alive.as_mut() else {
        leaks.emit_by_name::<()>("activity-start-tracking", &[]);
        return alive.insert(BTreeMap::new()).clone();
    };
    let changes: gst::Structure = leaks.emit_by_name("activity-get-checkpoint", &[]);
    for (list, one) in [("objects-created-list", 1), ("objects-removed-list", -1)] {
        let list = changes
            .get::<gst::List>(list)
            .expect("a list of the tracer");
        for object in list.iter() {
            let object: gst::Structure = object.get().expect("a structure of the tracer");
            let name = object.get("type-name").expect("the type of an object");
            *alive.entry(name).or_insert(0) += one;
        }
    }
    alive.clone()
}

/// The process that [`forbid`] was called in.
static PROGRAM: AtomicU32 = AtomicU32::new(0);

/// What the tracer has said of objects that are left.
static LEFT: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Makes the exit of this program an error if an object is left then. To be called once.
pub fn forbid() {
    if tracer().is_none() {
        return;
    }
    PROGRAM.store(std::process::id(), Ordering::Relaxed);
    // SAFETY: the handler is a function of this program, which is there to its end, and a panic in it aborts.
    unsafe { libc::atexit(fail_if_left) };
}

extern "C" fn fail_if_left() {
    // A child that was forked has no thread that could give anything up.
    if std::process::id() != PROGRAM.load(Ordering::Relaxed) {
        return;
    }
    std::thread::sleep(SETTLE);
    gst::log::set_threshold_for_name("GST_TRACER", gst::DebugLevel::Trace);
    gst::log::remove_default_log_function();
    gst::log::add_log_function(|category, _, _, _, _, _, message| {
        let message = message.get().unwrap_or_default();
        // The tracer also says what such lines will look like: `object-alive.class`.
        if category.name() == "GST_TRACER" && message.starts_with("object-alive,") {
            LEFT.lock()
                .unwrap_or_else(|e| e.into_inner())
                .push(message.to_string());
        }
    });
    // The tracer's own warning, which the next line makes, would end the process before the objects are told.
    gst::glib::log_set_always_fatal(gst::glib::LogLevels::LEVEL_ERROR);
    // SAFETY: all tests have ended, and nothing of GStreamer is used after this.
    unsafe { gst::deinit() };
    let left = LEFT.lock().unwrap_or_else(|e| e.into_inner());
    if left.is_empty() {
        return;
    }
    eprintln!("objects that nobody has given up: {left:#?}");
    // GstBaseSink of GStreamer 1.22 gives up its caps in the change from PAUSED to READY only, which a sink whose preroll
    // fails never makes.
    if !left
        .iter()
        .all(|object| object.contains("(string)GstCaps,"))
    {
        // SAFETY: ends the process; the handlers that would come now have nothing to save.
        unsafe { libc::_exit(101) };
    }
}
