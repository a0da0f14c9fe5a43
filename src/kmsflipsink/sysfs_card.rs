// SPDX-License-Identifier: MPL-2.0
//! What sysfs tells about cards, and which of them to open. A process that opens a card becomes its master
//! for a moment, and that disturbs programs that show on the card through fbdev. So a card that the
//! criteria rule out is not opened. `sys` reads sysfs; the choice is pure.

use super::discovery::Criteria;
use crate::sys::sysfs::SysfsDevice;

/// A card that is not opened. What sysfs does not tell is `None` or empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SysfsCard {
    /// The device node, such as /dev/dri/card0.
    pub path: String,
    /// The bus and address, such as pci:0000:00:02.0.
    pub bus_id: Option<String>,
    /// The device's driver, or the device's own name if it has no driver (vkms). The name may differ a little
    /// from what DRM calls the driver: vc4-drm and vc4.
    pub driver: Option<String>,
    /// The name of each connector, and whether nothing is plugged into it.
    pub connectors: Vec<(String, bool)>,
}

/// The cards that are likely to meet the criteria. A criterion that no card meets, as far as sysfs tells,
/// rules out no card.
pub fn promising(cards: Vec<SysfsCard>, criteria: &Criteria) -> Vec<SysfsCard> {
    let cards = narrow(cards, |card| {
        match (&criteria.driver_name, &criteria.bus_id) {
            (None, None) => true,
            (driver, bus) => {
                driver.as_ref().is_none_or(|want| {
                    let is_it = |name: &String| plain(name) == plain(want);
                    card.driver.as_ref().is_some_and(is_it)
                }) && bus.as_ref().is_none_or(|want| is_bus(card, want))
            }
        }
    });
    let cards = narrow(cards, |card| match &criteria.connector {
        Some(want) => card
            .connectors
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(want)),
        None => !card.connectors.is_empty(),
    });
    let is_any_named = criteria.connector.is_some() || criteria.connector_id.is_some();
    narrow(cards, |card| {
        is_any_named || card.connectors.iter().any(|&(_, is_empty)| !is_empty)
    })
}

/// The cards for which `is_so` holds, or all if it holds for none.
fn narrow(cards: Vec<SysfsCard>, is_so: impl Fn(&SysfsCard) -> bool) -> Vec<SysfsCard> {
    if !cards.iter().any(&is_so) {
        return cards;
    }
    cards.into_iter().filter(is_so).collect()
}

fn is_bus(card: &SysfsCard, want: &str) -> bool {
    card.bus_id.as_ref().is_some_and(|id| {
        id == want
            || id
                .split_once(':')
                .is_some_and(|(_, address)| address == want)
    })
}

/// A driver's name without what differs between the names in sysfs and in DRM.
fn plain(name: &str) -> String {
    let name = name.to_ascii_lowercase().replace('-', "_");
    match name.strip_suffix("_drm") {
        Some(stem) => stem.to_owned(),
        None => name,
    }
}

/// The cards of the machine, or the one at `device`, without opening them.
pub fn nodes(device: Option<&str>) -> Vec<SysfsCard> {
    let paths = match device {
        Some(path) => vec![path.to_owned()],
        None => card_nodes(),
    };
    let look = |path: String| match SysfsDevice::of_path(&path) {
        Some(device) => SysfsCard {
            path,
            bus_id: device.bus_id(),
            driver: device.driver(),
            connectors: device
                .connectors()
                .into_iter()
                .map(|(name, status)| (name, status == "disconnected"))
                .collect(),
        },
        None => SysfsCard {
            path,
            ..SysfsCard::default()
        },
    };
    paths.into_iter().map(look).collect()
}

/// The device nodes of all cards, in the order of their numbers.
pub(super) fn card_nodes() -> Vec<String> {
    let number = |name: &str| name.strip_prefix("card")?.parse::<u32>().ok();
    let mut nodes: Vec<(u32, String)> = std::fs::read_dir("/dev/dri")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((
                number(entry.file_name().to_str()?)?,
                entry.path().to_str()?.to_owned(),
            ))
        })
        .collect();
    nodes.sort_unstable();
    nodes.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(number: u32, name: &str, connectors: &[(&str, bool)]) -> SysfsCard {
        SysfsCard {
            path: format!("/dev/dri/card{number}"),
            bus_id: Some(format!("pci:0000:00:0{number}.0")),
            driver: Some(name.into()),
            connectors: connectors
                .iter()
                .map(|&(name, is_empty)| (name.into(), is_empty))
                .collect(),
        }
    }

    fn machine() -> Vec<SysfsCard> {
        vec![
            card(0, "vkms", &[("Virtual-1", false)]),
            card(1, "bochs-drm", &[("Virtual-2", false)]),
            card(2, "vc4-drm", &[("HDMI-A-1", true), ("HDMI-A-2", true)]),
            card(3, "panfrost", &[]),
        ]
    }

    fn chosen(criteria: &Criteria) -> Vec<String> {
        let paths = promising(machine(), criteria)
            .into_iter()
            .map(|card| card.path);
        paths
            .map(|path| path.replace("/dev/dri/card", ""))
            .collect()
    }

    #[test]
    fn only_the_driver_asked_for_is_opened() {
        for (driver, number) in [
            ("bochs-drm", "1"),
            ("vkms", "0"),
            ("vc4", "2"),
            ("VC4_drm", "2"),
        ] {
            let criteria = Criteria {
                driver_name: Some(driver.into()),
                ..Criteria::default()
            };
            assert_eq!(chosen(&criteria), [number], "{driver}");
        }
    }

    #[test]
    fn a_driver_that_sysfs_calls_otherwise_may_be_any() {
        let criteria = Criteria {
            driver_name: Some("nosuch".into()),
            ..Criteria::default()
        };
        assert_eq!(chosen(&criteria), ["0", "1"]);
    }

    #[test]
    fn a_bus_or_a_connector_tells_the_card() {
        for bus_id in ["pci:0000:00:01.0", "0000:00:01.0"] {
            let criteria = Criteria {
                bus_id: Some(bus_id.into()),
                ..Criteria::default()
            };
            assert_eq!(chosen(&criteria), ["1"]);
        }
        let criteria = Criteria {
            connector: Some("hdmi-a-2".into()),
            ..Criteria::default()
        };
        assert_eq!(chosen(&criteria), ["2"], "though nothing is plugged in");
    }

    #[test]
    fn without_a_wish_cards_with_a_display_are_opened() {
        assert_eq!(chosen(&Criteria::default()), ["0", "1"]);
        let dark = promising(machine().split_off(2), &Criteria::default());
        assert_eq!(dark.len(), 1, "{dark:?}");
        assert_eq!(dark[0].path, "/dev/dri/card2");
    }
}
