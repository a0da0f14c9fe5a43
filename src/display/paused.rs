// SPDX-License-Identifier: MPL-2.0
//! Whether a sink is in PAUSED, where the frame on the screen stays.

use gst::prelude::*;

/// Whether the sink is in PAUSED, or waits there for its first frame. After PLAYING, a sink of a live stream waits
/// until playing goes on.
pub(crate) fn is_paused(sink: &impl IsA<gst::Element>) -> bool {
    match sink.pending_state() {
        gst::State::VoidPending => sink.current_state() == gst::State::Paused,
        pending => pending == gst::State::Paused,
    }
}
