// SPDX-License-Identifier: MPL-2.0
//! What the card's thread reports, on its way to the element, the application and upstream.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;

use crate::kmsflipsink::KmsFlipSink;
use crate::kmsflipsink::claimed_plane::{Observer, Report};
use crate::kmsflipsink::report;
use crate::locks::lock;
use crate::sys::clock::monotonic_ns;

/// Passes on to the element what the card's thread reports.
pub(super) struct SinkObserver {
    sink: glib::WeakRef<KmsFlipSink>,
    /// See [`Self::is_stale`].
    is_stale: AtomicBool,
    /// Properties that display or driver cannot do, of which the application was warned.
    told_without: Mutex<Vec<&'static str>>,
}

impl Observer for SinkObserver {
    fn report(&self, report: Report) {
        let Some(sink) = self.sink.upgrade() else {
            return;
        };
        if let Report::Plugged(_) = report {
            self.set_stale(true);
        }
        match report {
            Report::Plugged(_) | Report::MasterRegained => {
                sink.call_async(|sink| {
                    sink.imp().catch_up();
                    sink.imp().note_screen();
                });
            }
            Report::Shown(presentation) => {
                let running_time = presentation.timing.running_time;
                let (late_ns, period_ns) = (presentation.late_ns(), presentation.period_ns);
                // Upstream may handle the event slowly, and the card's thread must not wait for that.
                if let Some(qos) = report::qos(running_time, late_ns, period_ns)
                    && sink.property("qos")
                {
                    sink.call_async(|sink| {
                        let _ = sink.sink_pad().push_event(qos);
                    });
                }
                // Posted by this thread, because the messages are to be in the order of the frames.
                if lock(&sink.imp().settings).post_presentation_messages {
                    presentation.post(&sink, monotonic_ns());
                }
            }
            Report::TearingRefused(ref reason) => {
                self.warn_without(&sink, "tearing", reason);
                sink.call_async(|sink| sink.imp().note_display_delay());
            }
            _ => {}
        }
        report::tell(&sink, &report);
    }
}

impl SinkObserver {
    pub(super) fn new(sink: &KmsFlipSink) -> Self {
        Self {
            sink: sink.downgrade(),
            is_stale: AtomicBool::new(false),
            told_without: Mutex::default(),
        }
    }

    /// Whether the display, or the rotation, has changed since frames were planned for it.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Acquire)
    }

    pub(super) fn set_stale(&self, is_stale: bool) {
        self.is_stale.store(is_stale, Ordering::Release);
    }

    /// Warns once that the sink goes without the property.
    pub(super) fn warn_without(&self, sink: &KmsFlipSink, property: &'static str, reason: &str) {
        let mut told = lock(&self.told_without);
        if told.contains(&property) {
            return;
        }
        told.push(property);
        drop(told);
        let warning = report::without(property, reason);
        gst::element_warning!(sink, gst::ResourceError::Settings, ("{warning}"));
    }
}
