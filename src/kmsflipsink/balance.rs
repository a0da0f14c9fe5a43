// SPDX-License-Identifier: MPL-2.0
//! Brightness, contrast, hue and saturation, as GstColorBalance names them: which of them the display has as KMS
//! properties, and which values of these stand for theirs. Pure; `tune` reads and sets the properties.
//!
//! The properties are those of the kernel for connectors of televisions (`drm_mode_create_tv_properties()`), whose names
//! drivers with such properties of planes (armada, vendors' kernels) use as well.

use std::ops::RangeInclusive;

use super::colour::Of;

/// The labels of the channels, as players look for them (playbin, gst-play), and the names of their properties.
pub const CHANNELS: [(&str, &str); N_CHANNELS] = [
    ("BRIGHTNESS", "brightness"),
    ("CONTRAST", "contrast"),
    ("HUE", "hue"),
    ("SATURATION", "saturation"),
];
const N_CHANNELS: usize = 4;

/// The values of each channel: those of videobalance and xvimagesink.
pub const VALUES: RangeInclusive<i32> = -1000..=1000;

/// A property that is a range, as the driver has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub min: i64,
    pub max: i64,
    pub now: i64,
}

impl Range {
    /// The value of the property that stands for `value` of a channel.
    fn of_channel(self, value: i32) -> i64 {
        let (first, last) = (i128::from(*VALUES.start()), i128::from(*VALUES.end()));
        let steps = i128::from(value) - first;
        let size = i128::from(self.max) - i128::from(self.min);
        let scaled = (steps * size + (last - first) / 2) / (last - first);
        (i128::from(self.min) + scaled) as i64 // lies between `min` and `max`
    }

    /// The value of a channel that stands for the value that the property has.
    fn to_channel(self) -> i32 {
        let (first, last) = (i128::from(*VALUES.start()), i128::from(*VALUES.end()));
        let size = (i128::from(self.max) - i128::from(self.min)).max(1);
        let now = i128::from(self.now.clamp(self.min, self.max)) - i128::from(self.min);
        (first + (now * (last - first) + size / 2) / size) as i32 // lies in `VALUES`
    }
}

/// A property that a channel sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    of: Of,
    range: Range,
}

/// The property of each channel that the display has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controls([Option<Control>; N_CHANNELS]);

impl Controls {
    /// Looks for each channel on the plane first, because a property of the plane changes the video alone, and then on
    /// what also changes the rest of the picture.
    pub fn find(range: impl Fn(Of, &str) -> Option<Range>) -> Self {
        Self(CHANNELS.map(|(_, name)| {
            let places = [Of::Plane, Of::Crtc, Of::Connector].into_iter();
            let mut known = places.filter_map(|of| Some((of, range(of, name)?)));
            let found = known.find(|(_, range)| range.min < range.max);
            found.map(|(of, range)| Control { of, range })
        }))
    }

    pub fn has(&self, channel: usize) -> bool {
        self.value(channel).is_some()
    }

    /// The value of a channel; `None` if it is not there.
    pub fn value(&self, channel: usize) -> Option<i32> {
        let control = self.0.get(channel).copied().flatten()?;
        Some(control.range.to_channel())
    }
}

/// A property to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub of: Of,
    pub name: &'static str,
    /// The kernel has signed values as the same bits.
    pub value: u64,
}

/// The values that the application has set, by channel. `None` leaves a property as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance([Option<i32>; N_CHANNELS]);

impl Balance {
    pub fn value(&self, channel: usize) -> Option<i32> {
        self.0.get(channel).copied().flatten()
    }

    /// The same with another value of a channel, which is clamped to [`VALUES`].
    pub fn with(mut self, channel: usize, value: i32) -> Self {
        if let Some(place) = self.0.get_mut(channel) {
            *place = Some(value.clamp(*VALUES.start(), *VALUES.end()));
        }
        self
    }

    /// The properties to set on a display that has `controls`. A value of a channel that it lacks waits for a display
    /// that has it.
    pub fn wishes(&self, controls: &Controls) -> Vec<Wish> {
        let channels = self.0.iter().zip(&controls.0).zip(CHANNELS);
        let wishes = channels.filter_map(|((value, control), (_, name))| {
            let (value, control) = value.zip(*control)?;
            Some(Wish {
                of: control.of,
                name,
                value: control.range.of_channel(value) as u64,
            })
        });
        wishes.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drm::control;

    use super::*;
    use crate::kmsflipsink::claimed_plane::{Frame, IgnoringObserver};
    use crate::kmsflipsink::crtc::{Crtc, Extent};
    use crate::kmsflipsink::device::Device;
    use crate::kmsflipsink::framebuffer::Framebuffer;
    use crate::kmsflipsink::kms_plane::{Extra, sets};

    const TV: Range = Range {
        min: 0,
        max: 100,
        now: 50,
    };

    #[test]
    fn the_ends_and_the_middle_of_a_channel_are_those_of_the_property() {
        for (min, middle, max) in [(0, 50, 100), (-127, 0, 127), (0, 256, 511), (1, 2, 2)] {
            let range = Range { min, max, now: min };
            let values = [-1000, 0, 1000].map(|value| range.of_channel(value));
            assert_eq!(values, [min, middle, max], "{range:?}");
        }
        let wide = Range {
            min: i64::MIN,
            max: i64::MAX,
            now: i64::MAX,
        };
        assert_eq!((wide.of_channel(1000), wide.to_channel()), (i64::MAX, 1000));
    }

    #[test]
    fn a_value_that_was_set_is_read_back_as_the_property_has_it() {
        for value in VALUES {
            let set = Range {
                now: TV.of_channel(value),
                ..TV
            };
            // A step of the property is twenty of the channel.
            assert!((set.to_channel() - value).abs() <= 10, "{value}: {set:?}");
            assert_eq!(TV.of_channel(set.to_channel()), set.now);
        }
        let beyond = Range { now: 700, ..TV };
        assert_eq!(beyond.to_channel(), 1000, "a driver that keeps no order");
    }

    #[test]
    fn a_channel_is_the_property_that_changes_the_least() {
        let all = |_: Of, _: &str| Some(TV);
        let fixed = Range { max: 0, ..TV };
        let on = |places: &'static [Of]| move |of: Of, _: &str| places.contains(&of).then_some(TV);
        for (found, of) in [
            (Controls::find(all), Some(Of::Plane)),
            (
                Controls::find(on(&[Of::Connector, Of::Crtc])),
                Some(Of::Crtc),
            ),
            (Controls::find(on(&[Of::Connector])), Some(Of::Connector)),
            (Controls::find(on(&[])), None),
            (Controls::find(|_, _| Some(fixed)), None),
        ] {
            assert_eq!(found.0[3].map(|control| control.of), of);
            assert_eq!([0, 1, 2, 3].map(|n| found.has(n)), [of.is_some(); 4]);
        }
    }

    #[test]
    fn only_what_was_set_and_is_there_is_asked_for() {
        let connector_without_hue =
            |of, name: &str| (of == Of::Connector && name != "hue").then_some(TV);
        let controls = Controls::find(connector_without_hue);
        let none = Balance::default();
        assert_eq!(none.wishes(&controls), []);
        assert_eq!(none.with(9, 0), none, "no such channel");
        let balance = none.with(0, 500).with(2, 500).with(3, 5000);
        let wish = |name, value| Wish {
            of: Of::Connector,
            name,
            value,
        };
        let wishes = [wish("brightness", 75), wish("saturation", 100)];
        assert_eq!(balance.wishes(&controls), wishes);
        assert_eq!([0, 1].map(|n| balance.value(n)), [Some(500), None]);
        assert_eq!([0, 2].map(|n| controls.value(n)), [Some(0), None]);
    }

    #[test]
    fn a_negative_value_is_the_bits_that_the_kernel_reads() {
        let signed = Range {
            min: -128,
            max: 128,
            now: 0,
        };
        let controls = Controls::find(|_, name| (name == "contrast").then_some(signed));
        let balance = Balance::default().with(1, -500);
        assert_eq!(balance.wishes(&controls)[0].value, (-64_i64) as u64);
    }

    /// Property by property: a commit sets what was asked for, and the end puts back what was there.
    #[test]
    fn the_next_commit_sets_the_channels_and_the_end_restores_them() {
        gst::init().unwrap();
        let places = |of, name: &str| {
            let is_there = matches!(
                (of, name),
                (Of::Plane, "saturation") | (Of::Connector, "brightness")
            );
            is_there.then_some(TV)
        };
        let balance = Balance::default().with(0, -1000).with(3, 1000);
        let wishes = balance.wishes(&Controls::find(places));
        let extra = |wish: &Wish, value| -> Extra {
            let object = match wish.of {
                Of::Plane => 1,
                Of::Crtc => 8,
                Of::Connector => 9,
            };
            let property = 200 + wish.name.len() as u32;
            let property = control::from_u32(property).unwrap();
            (control::from_u32(object).unwrap(), property, value)
        };
        let asked: Vec<_> = wishes.iter().map(|wish| extra(wish, wish.value)).collect();
        let before: Vec<_> = wishes.iter().map(|wish| extra(wish, 50)).collect();
        let of = |object: u32, name: &str, value| -> Extra {
            let property = control::from_u32(200 + name.len() as u32).unwrap();
            (control::from_u32(object).unwrap(), property, value)
        };
        assert_eq!(asked, [of(9, "brightness", 0), of(1, "saturation", 100)]);
        let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
        crtc.needs_setup = false;
        drop(crtc.planes[0].set_extras(asked.clone(), before.clone(), vec![]));
        let framebuffer = Framebuffer::blank(&Device::blank());
        let frames = &mut crtc.planes[0].frames;
        frames.submit(Frame::blank(&framebuffer)).unwrap();
        let request = crtc.begin_commit(0);
        assert!(crtc.is_setup_in_flight(), "one is of the connector");
        let restored = crtc.restore(&[1], 0, Extent::All);
        for (asked, before) in asked.into_iter().zip(before) {
            assert!(sets(&request, asked) && !sets(&request, before));
            assert!(sets(&restored, before) && !sets(&restored, asked));
        }
    }
}
