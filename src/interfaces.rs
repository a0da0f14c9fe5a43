// SPDX-License-Identifier: MPL-2.0
//! Interfaces of GStreamer's video library that gstreamer-rs 0.25 cannot implement: `GstVideoOverlay`, by which players
//! control where a sink shows the picture, and `GstVideoDirection`, by which they turn it.

use gst::glib;
use gst::glib::prelude::*;
use gst::glib::subclass::prelude::*;
use gst_video::ffi;

glib::wrapper! {
    /// `GstVideoOverlay`, to be implemented by [`VideoOverlayImpl`]. Users of an element take
    /// `gst_video::VideoOverlay`, which is the same type of GObject.
    pub struct VideoOverlay(Interface<ffi::GstVideoOverlay, ffi::GstVideoOverlayInterface>);

    match fn {
        type_ => || ffi::gst_video_overlay_get_type(),
    }
}

glib::wrapper! {
    /// `GstVideoDirection`. Whoever implements it overrides its property `video-direction`.
    pub struct VideoDirection(Interface<ffi::GstVideoDirection, ffi::GstVideoDirectionInterface>);

    match fn {
        type_ => || ffi::gst_video_direction_get_type(),
    }
}

/// The functions of `GstVideoOverlay` that a sink without a window has. GStreamer ignores the others,
/// `set_window_handle` and `handle_events`, for which the interface has NULL.
pub trait VideoOverlayImpl: ObjectSubclass<Type: IsA<VideoOverlay>> {
    /// Shows the last frame again.
    fn expose(&self);

    /// Shows frames in this part of the screen from now on: x, y, width, height, all in pixels. A width and height of -1
    /// stand for the whole screen.
    fn set_render_rectangle(&self, rectangle: [i32; 4]);
}

// SAFETY: `interface_init` only sets functions of the interface to functions with the same signature, which cast the
// instance to `T::Instance`. GObject calls them for instances of the class that implements the interface alone.
unsafe impl<T: VideoOverlayImpl> IsImplementable<T> for VideoOverlay {
    fn interface_init(interface: &mut glib::Interface<Self>) {
        let interface = interface.as_mut();
        interface.expose = Some(expose::<T>);
        interface.set_render_rectangle = Some(set_render_rectangle::<T>);
    }
}

// SAFETY: the interface has no functions, and its property is overridden by safe code.
unsafe impl<T: ObjectSubclass<Type: IsA<VideoDirection>>> IsImplementable<T> for VideoDirection {}

unsafe extern "C" fn expose<T: VideoOverlayImpl>(overlay: *mut ffi::GstVideoOverlay) {
    // SAFETY: GStreamer passes a valid instance of the class for which `interface_init` set this function, and
    // holds a reference during the call.
    let instance = unsafe { &*overlay.cast::<T::Instance>() };
    instance.imp().expose();
}

unsafe extern "C" fn set_render_rectangle<T: VideoOverlayImpl>(
    overlay: *mut ffi::GstVideoOverlay,
    x: i32,
    y: i32,
    width: i32,
    height: i32,
) {
    // SAFETY: as in `expose`.
    let instance = unsafe { &*overlay.cast::<T::Instance>() };
    instance.imp().set_render_rectangle([x, y, width, height]);
}
