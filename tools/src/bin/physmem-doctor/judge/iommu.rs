// SPDX-License-Identifier: MPL-2.0
//! Whether a physical address is a bus address.

use crate::facts::Facts;
use crate::facts::iommu::Group;
use crate::item::Item;

/// The kernel parameter for all IOMMUs (Documentation/admin-guide/kernel-parameters.txt).
const PASSTHROUGH: &str = "iommu.passthrough=1 on the kernel command line";

pub fn groups(facts: &Facts) -> Item {
    const KEY: &str = "iommu.groups";
    let groups: Vec<_> = facts
        .iommu
        .groups
        .iter()
        .filter(|group| !group.devices.is_empty())
        .collect();
    if groups.is_empty() {
        return Item::ok(KEY, "no IOMMU in use: devices see physical addresses");
    }
    let (direct, others): (Vec<&Group>, Vec<_>) = groups
        .into_iter()
        .partition(|group| group.domain.as_deref() == Some("identity"));
    let untold = others.iter().all(|group| group.domain.is_none());
    match others.len() {
        0 => Item::ok(
            KEY,
            format!(
                "{} IOMMU groups, all with identity mapping: devices see physical addresses",
                direct.len()
            ),
        ),
        number if untold => Item::unknown(
            KEY,
            format!("{number} IOMMU groups, and this kernel does not tell how they translate"),
        ),
        number => Item::lack(
            KEY,
            format!(
                "{number} groups of devices, such as that of {}, are behind an IOMMU that translates ({}): they do not reach memory by its physical address",
                others
                    .iter()
                    .find(|group| group.domain.is_some())
                    .and_then(|group| group.devices.first())
                    .map_or("", String::as_str),
                facts.iommu.units.join(", ")
            ),
            PASSTHROUGH.to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Verdict;

    fn verdict(domains: &[Option<&str>]) -> Verdict {
        let mut facts = Facts::default();
        facts.iommu.groups = domains
            .iter()
            .map(|domain| Group {
                domain: domain.map(str::to_owned),
                devices: vec!["0000:00:02.0".into()],
                ..Group::default()
            })
            .collect();
        groups(&facts).verdict
    }

    #[test]
    fn only_translation_is_a_lack() {
        assert_eq!(verdict(&[]), Verdict::Ok);
        assert_eq!(verdict(&[Some("identity")]), Verdict::Ok);
        assert_eq!(verdict(&[Some("identity"), Some("DMA-FQ")]), Verdict::Lack);
        assert_eq!(verdict(&[None]), Verdict::Unknown);
        assert_eq!(verdict(&[None, Some("DMA")]), Verdict::Lack);
    }
}
