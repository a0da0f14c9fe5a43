// SPDX-License-Identifier: MPL-2.0
//! The displays that are plugged into cards, by what sysfs tells. No card is opened, because a process that opens
//! a card becomes its master for a moment.

use super::sysfs_card;
use crate::sys::sysfs::SysfsDevice;

/// A display on a connector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ConnectedDisplay {
    /// The device node of the card, such as /dev/dri/card0.
    pub device: String,
    /// The driver's name in sysfs, which may differ a little from what DRM calls it: vc4-drm and vc4.
    pub driver: Option<String>,
    /// The bus and address, such as pci:0000:00:02.0.
    pub bus_id: Option<String>,
    /// The connector's name, such as HDMI-A-1.
    pub connector: String,
    /// The DRM object id, from Linux 5.18 on.
    pub connector_id: Option<i32>,
    /// The modes by the kernel's names, such as 1920x1080 or 1920x1080i, the preferred one first. Empty if no program
    /// has asked the connector yet.
    pub modes: Vec<String>,
}

impl ConnectedDisplay {
    /// The largest width and the largest height of the modes, in pixels.
    pub fn largest_px(&self) -> Option<(i32, i32)> {
        let sizes = self.modes.iter().filter_map(|mode| size_of(mode));
        sizes.reduce(|(width, height), (w, h)| (width.max(w), height.max(h)))
    }
}

/// The size of a mode by its name.
fn size_of(mode: &str) -> Option<(i32, i32)> {
    let (width, height) = mode.split_once('x')?;
    let height = height.strip_suffix('i').unwrap_or(height);
    let number = |text: &str| text.parse().ok().filter(|&number: &i32| number > 0);
    Some((number(width)?, number(height)?))
}

/// All connected displays, card by card.
pub(crate) fn connected() -> Vec<ConnectedDisplay> {
    let cards = sysfs_card::card_nodes().into_iter();
    cards.flat_map(|path| on_card(&path)).collect()
}

fn on_card(path: &str) -> Vec<ConnectedDisplay> {
    let Some(card) = SysfsDevice::of_path(path) else {
        return Vec::new();
    };
    let connectors = card.connectors().into_iter();
    let connected = connectors.filter(|(_, status)| status == "connected");
    let display = |(connector, _): (String, String)| {
        let file = |name| card.of_connector(&connector, name);
        let modes = file("modes").unwrap_or_default();
        ConnectedDisplay {
            device: path.to_owned(),
            driver: card.driver(),
            bus_id: card.bus_id(),
            connector_id: file("connector_id").and_then(|id| id.trim().parse().ok()),
            modes: modes.lines().map(str::to_owned).collect(),
            connector,
        }
    };
    connected.map(display).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_mode_bounds_width_and_height() {
        let of = |modes: &[&str]| {
            let modes = modes.iter().map(|mode| mode.to_string()).collect();
            let display = ConnectedDisplay {
                modes,
                ..ConnectedDisplay::default()
            };
            display.largest_px()
        };
        assert_eq!(
            of(&["1024x768", "1280x720", "1920x1080i"]),
            Some((1920, 1080))
        );
        assert_eq!(of(&["1280x720", "1024x768"]), Some((1280, 768)));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["wide", "x", "0x0", "-1x5", "99999999999x1"]), None);
    }
}
