// SPDX-License-Identifier: MPL-2.0
//! Makes items of the facts. Pure: nothing here looks at the machine.

mod display;
mod gstreamer;
mod iommu;
mod kernel;
mod memory;
mod rights;

use crate::facts::{Facts, Node};
use crate::item::Item;

/// All items, in the order in which they are told.
pub fn all(facts: &Facts) -> Vec<Item> {
    let mut items = kernel::items(facts);
    items.extend(memory::items(facts));
    items.extend(rights::items(facts));
    items.extend(memory::allocations(facts));
    items.extend(display::framebuffers(facts));
    items.extend(display::cards(facts));
    items.push(iommu::groups(facts));
    items.extend(gstreamer::items(facts));
    items.push(memory::choice(facts));
    items.extend(display::choices(facts));
    items
}

/// Formats bytes as "64 MiB": in the largest unit that divides them, or as "1.5 MiB".
fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", MIB), ("KiB", 1 << 10)];
    let fits = |(_, unit): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*unit);
    match UNITS.iter().find(fits) {
        Some((name, unit)) if *unit >= MIB || bytes < MIB => format!("{} {name}", bytes / unit),
        _ if bytes >= MIB => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        _ => format!("{bytes} bytes"),
    }
}

/// Says who may open a node: "root:video 0660".
fn owners(node: &Node) -> String {
    let group = match &node.group_name {
        Some(name) => name.clone(),
        None => node.group.to_string(),
    };
    let user = match node.user {
        0 => "root".to_owned(),
        user => user.to_string(),
    };
    format!("{user}:{group} {:04o}", node.mode)
}

/// What lets the user open a node that he may not open.
fn to_open(node: &Node, user: &str) -> String {
    let is_for_group = node.mode & 0o060 == 0o060 && node.group != 0;
    match &node.group_name {
        Some(group) if is_for_group => format!("sudo usermod -aG {group} {user}"),
        _ => "sudo install -m 644 packaging/udev/60-physmem.rules /etc/udev/rules.d/ && sudo udevadm trigger"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_a_unit_that_people_read() {
        for (bytes, told) in [
            (0, "0 bytes"),
            (4096, "4 KiB"),
            (64 << 20, "64 MiB"),
            (1 << 30, "1 GiB"),
            (4097, "4097 bytes"),
            (130_816 << 10, "127.8 MiB"),
        ] {
            assert_eq!(size(bytes), told);
        }
    }

    #[test]
    fn who_may_not_open_a_node_joins_its_group_if_that_helps() {
        let node = |group, mode| Node {
            group,
            group_name: Some("video".into()),
            mode,
            ..Node::default()
        };
        let joins = to_open(&node(44, 0o660), "me");
        assert_eq!(joins, "sudo usermod -aG video me");
        for other in [node(44, 0o600), node(0, 0o660)] {
            assert!(to_open(&other, "me").contains("60-physmem.rules"));
        }
        assert_eq!(owners(&node(44, 0o660)), "root:video 0660");
    }

    #[test]
    fn each_lack_of_an_empty_machine_has_one_remedy_on_one_line() {
        for item in all(&Facts::default()) {
            if item.verdict == crate::item::Verdict::Lack {
                assert!(item.remedy.is_some(), "{item:?}");
            }
        }
    }
}
