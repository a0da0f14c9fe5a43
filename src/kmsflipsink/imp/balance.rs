// SPDX-License-Identifier: MPL-2.0
//! GstColorBalance.

use gst::subclass::prelude::*;
use gst_video::prelude::*;

use super::KmsFlipSink;
use crate::interfaces::{ColorBalanceChannels, ColorBalanceImpl};
use crate::kmsflipsink::balance::{CHANNELS, Controls, VALUES};
use crate::locks::lock;

impl KmsFlipSink {
    /// What the display has; nothing while the sink is stopped.
    fn controls(&self) -> Controls {
        let head = self.started(|started| started.head.clone());
        head.map(|head| head.controls()).unwrap_or_default()
    }
}

impl ColorBalanceImpl for KmsFlipSink {
    fn channels(&self) -> &ColorBalanceChannels {
        self.channels.get_or_init(|| {
            let labels = CHANNELS.map(|(label, _)| label);
            ColorBalanceChannels::new(&labels, VALUES)
        })
    }

    fn has_channel(&self, channel: usize) -> bool {
        self.controls().has(channel)
    }

    fn value(&self, channel: usize) -> i32 {
        let set = lock(&self.settings).balance.value(channel);
        let now = || self.controls().value(channel);
        set.or_else(now).unwrap_or(0)
    }

    /// Takes effect with the next frame, in PAUSED at once.
    fn set_value(&self, channel: usize, value: i32) {
        let before = self.value(channel);
        let is_new = {
            let known = lock(&self.settings).balance;
            known.with(channel, value) != known
        };
        if is_new {
            self.set_wish(|settings| settings.balance = settings.balance.with(channel, value));
        }
        let now = self.value(channel);
        if let Some(object) = self.channels().channel(channel)
            && now != before
        {
            let sink = self.obj();
            sink.upcast_ref::<gst_video::ColorBalance>()
                .value_changed(object, now);
        }
    }
}
