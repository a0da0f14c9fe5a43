// SPDX-License-Identifier: MPL-2.0
//! What a player does with a GstVideoOverlay if it has no window.

use gst::prelude::*;
use gst_video::prelude::*;

/// Sets the render rectangle, asks for the frame again and gives no window, all before there is a frame.
#[track_caller]
pub fn is_usable_without_a_window(sink: &gst::Element) {
    let overlay: gst_video::VideoOverlay = sink.clone().dynamic_cast().unwrap();
    let rectangle = || {
        let array = sink.property::<gst::Array>("render-rectangle");
        let numbers = array.iter().map(|number| number.get::<i32>().unwrap());
        numbers.collect::<Vec<_>>()
    };
    assert!(overlay.set_render_rectangle(1, 2, 3, 4).is_ok());
    assert_eq!(rectangle(), [1, 2, 3, 4]);
    assert!(overlay.set_render_rectangle(-1, -1, -1, -1).is_ok());
    assert_eq!(rectangle(), [0, 0, 0, 0]);
    // There is nothing to show yet, no window, and no event.
    overlay.expose();
    overlay.handle_events(true);
    // SAFETY: 0 is no window.
    unsafe { overlay.set_window_handle(0) };
}
