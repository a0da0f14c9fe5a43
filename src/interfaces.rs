// SPDX-License-Identifier: MPL-2.0
//! Interfaces of GStreamer's video library that gstreamer-rs 0.25 cannot implement: `GstVideoOverlay`, by which players
//! control where a sink shows the picture, `GstVideoDirection`, by which they turn it, and `GstColorBalance`, by which they
//! change its brightness, contrast, hue and saturation.

use std::ffi::CStr;
use std::ops::RangeInclusive;

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

glib::wrapper! {
    /// `GstColorBalance`, to be implemented by [`ColorBalanceImpl`]. Users of an element take `gst_video::ColorBalance`,
    /// which is the same type of GObject.
    pub struct ColorBalance(Interface<ffi::GstColorBalance, ffi::GstColorBalanceInterface>);

    match fn {
        type_ => || ffi::gst_color_balance_get_type(),
    }
}

/// The functions of `GstColorBalance`, for an element that does not balance colours itself but has hardware do it. Channels
/// are meant by their index in [`ColorBalanceChannels`].
pub trait ColorBalanceImpl: ObjectSubclass<Type: IsA<ColorBalance>> {
    /// The channels that the element may have.
    fn channels(&self) -> &ColorBalanceChannels;

    /// Whether the element has a channel now.
    fn has_channel(&self, channel: usize) -> bool;

    fn value(&self, channel: usize) -> i32;

    /// Sets a value, and calls `gst_color_balance_value_changed()` if that changes it.
    fn set_value(&self, channel: usize, value: i32);
}

/// The channels that an element may have. An application gets lists of them that it does not free, and may read one
/// while the element already has other channels. So there is a list for each set of channels, and all of them live as
/// long as the element.
pub struct ColorBalanceChannels {
    channels: Vec<gst_video::ColorBalanceChannel>,
    /// By set: bit N of the index stands for channel N.
    lists: Vec<glib::List<gst_video::ColorBalanceChannel>>,
}

impl ColorBalanceChannels {
    /// A channel for each label, all with the same values.
    pub fn new(labels: &[&str], values: RangeInclusive<i32>) -> Self {
        let channel = |label: &&str| {
            let channel: gst_video::ColorBalanceChannel = glib::Object::new();
            let raw = channel.as_ptr();
            // SAFETY: this is the only reference to the object. Its dispose function frees the label by g_free().
            unsafe {
                (*raw).label = glib::ffi::g_strndup(label.as_ptr().cast(), label.len());
                (*raw).min_value = *values.start();
                (*raw).max_value = *values.end();
            }
            channel
        };
        let channels: Vec<_> = labels.iter().map(channel).collect();
        let list = |set: usize| {
            let mut list = glib::List::new();
            for (index, channel) in channels.iter().enumerate() {
                if set >> index & 1 == 1 {
                    list.push_back(channel.clone());
                }
            }
            list
        };
        let lists = (0..1 << channels.len()).map(list).collect();
        Self { channels, lists }
    }

    pub fn channel(&self, index: usize) -> Option<&gst_video::ColorBalanceChannel> {
        self.channels.get(index)
    }

    /// The list of the channels for which `is_there`.
    fn list(&self, is_there: impl Fn(usize) -> bool) -> *const glib::ffi::GList {
        let bits = (0..self.channels.len()).map(|index| usize::from(is_there(index)) << index);
        self.lists[bits.sum::<usize>()].as_ptr()
    }

    /// The channel with this label. It need not be the object itself: playbin has channels of its own.
    fn index_of(&self, label: &CStr) -> Option<usize> {
        let is_it = |channel: &gst_video::ColorBalanceChannel| {
            let known = channel.label();
            known.as_bytes().eq_ignore_ascii_case(label.to_bytes())
        };
        self.channels.iter().position(is_it)
    }
}

// SAFETY: as for `VideoOverlay`.
unsafe impl<T: ColorBalanceImpl> IsImplementable<T> for ColorBalance {
    fn interface_init(interface: &mut glib::Interface<Self>) {
        let interface = interface.as_mut();
        interface.list_channels = Some(list_channels::<T>);
        interface.set_value = Some(set_value::<T>);
        interface.get_value = Some(get_value::<T>);
        interface.get_balance_type = Some(balance_type);
    }
}

unsafe extern "C" fn list_channels<T: ColorBalanceImpl>(
    balance: *mut ffi::GstColorBalance,
) -> *const glib::ffi::GList {
    // SAFETY: as in `expose`.
    let imp = unsafe { &*balance.cast::<T::Instance>() }.imp();
    imp.channels().list(|channel| imp.has_channel(channel))
}

unsafe extern "C" fn set_value<T: ColorBalanceImpl>(
    balance: *mut ffi::GstColorBalance,
    channel: *mut ffi::GstColorBalanceChannel,
    value: i32,
) {
    // SAFETY: as in `expose`.
    let imp = unsafe { &*balance.cast::<T::Instance>() }.imp();
    // SAFETY: the caller passes a valid channel.
    if let Some(channel) = unsafe { index_of(imp, channel) } {
        imp.set_value(channel, value);
    }
}

unsafe extern "C" fn get_value<T: ColorBalanceImpl>(
    balance: *mut ffi::GstColorBalance,
    channel: *mut ffi::GstColorBalanceChannel,
) -> i32 {
    // SAFETY: as in `expose`.
    let imp = unsafe { &*balance.cast::<T::Instance>() }.imp();
    // SAFETY: the caller passes a valid channel.
    unsafe { index_of(imp, channel) }.map_or(0, |channel| imp.value(channel))
}

unsafe extern "C" fn balance_type(_: *mut ffi::GstColorBalance) -> ffi::GstColorBalanceType {
    ffi::GST_COLOR_BALANCE_HARDWARE
}

/// # Safety
///
/// `channel` must point to a channel, or be NULL.
unsafe fn index_of<T: ColorBalanceImpl>(
    imp: &T,
    channel: *mut ffi::GstColorBalanceChannel,
) -> Option<usize> {
    if channel.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for `channel`, whose label is NULL or a string that lives as long as it.
    let label = unsafe { (*channel).label };
    if label.is_null() {
        return None;
    }
    // SAFETY: as above.
    imp.channels().index_of(unsafe { CStr::from_ptr(label) })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_of_channels_has_a_list_that_stays() {
        gst::init().unwrap();
        let all = ColorBalanceChannels::new(&["HUE", "CONTRAST", "SATURATION"], -5..=7);
        let labels = |list: *const glib::ffi::GList| -> Vec<String> {
            let mut labels = Vec::new();
            let mut node = list;
            while !node.is_null() {
                // SAFETY: a list of `all`, which lives.
                let channel: gst_video::ColorBalanceChannel = unsafe {
                    let data = (*node).data.cast();
                    node = (*node).next;
                    glib::translate::from_glib_none(data)
                };
                assert_eq!((channel.min_value(), channel.max_value()), (-5, 7));
                labels.push(channel.label().to_string());
            }
            labels
        };
        let without_contrast = all.list(|index| index != 1);
        assert_eq!(labels(without_contrast), ["HUE", "SATURATION"]);
        assert!(all.list(|_| false).is_null());
        assert_eq!(labels(all.list(|_| true)).len(), 3);
        assert_eq!(all.list(|index| index != 1), without_contrast);
    }

    #[test]
    fn a_channel_is_known_by_its_label() {
        gst::init().unwrap();
        let all = ColorBalanceChannels::new(&["HUE", "CONTRAST"], -1000..=1000);
        let known = [c"CONTRAST", c"hue", c"XV_HUE", c""].map(|label| all.index_of(label));
        assert_eq!(known, [Some(1), Some(0), None, None]);
        assert_eq!(all.channel(1).unwrap().label(), "CONTRAST");
        assert!(all.channel(2).is_none());
    }
}
