// SPDX-License-Identifier: MPL-2.0
//! Navigation events: from applications by GstNavigation, and from the input devices of the sink.

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_video::subclass::prelude::*;
use gst_video::{NavigationEvent, NavigationEventMessage};

use super::KmsFlipSink;
use crate::kmsflipsink::error::KmsError;
use crate::kmsflipsink::input::{Input, Navigator};
use crate::kmsflipsink::navigation;
use crate::locks::lock;

/// The sink, for the thread that reads input devices.
struct SinkNavigator(glib::WeakRef<crate::kmsflipsink::KmsFlipSink>);

impl Navigator for SinkNavigator {
    fn screen(&self) -> (u32, u32) {
        let sink = self.0.upgrade();
        sink.map_or((0, 0), |sink| *lock(&sink.imp().screen))
    }

    fn navigate(&self, event: NavigationEvent) {
        let Some(sink) = self.0.upgrade() else {
            return;
        };
        // What is typed while another program has the screen is not for this one.
        let is_in_front = sink.imp().started(|started| started.head.is_master());
        if is_in_front == Some(true) {
            sink.imp().navigate(event.structure());
        }
    }
}

impl KmsFlipSink {
    /// Opens the devices of the property `input-devices`.
    pub(super) fn open_input(&self) -> Result<Option<Input>, KmsError> {
        let settings = lock(&self.settings).clone();
        let devices = settings.input_devices.filter(|devices| !devices.is_empty());
        let navigator = |devices: String| {
            let sink = SinkNavigator(self.obj().downgrade());
            Input::start(&devices, settings.session, sink)
        };
        devices.map(navigator).transpose()
    }

    /// Sends an event upstream. Its point is in pixels of the screen, and becomes one of the frames.
    fn navigate(&self, event: gst::Structure) {
        let shown = self.started(|started| started.shown()).flatten();
        let event = match shown {
            Some(shown) => navigation::in_frame(event, shown),
            None => event,
        };
        let event = gst::event::Navigation::new(event);
        let sink = self.obj();
        if !sink.sink_pad().push_event(event.clone()) {
            // As other sinks do, so that the application can act on it.
            let message = NavigationEventMessage::builder(event).src(&*sink).build();
            let _ = sink.post_message(message);
        }
    }
}

impl NavigationImpl for KmsFlipSink {
    fn send_event(&self, event: gst::Structure) {
        self.navigate(event);
    }
}
