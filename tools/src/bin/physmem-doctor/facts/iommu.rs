// SPDX-License-Identifier: MPL-2.0
//! Whether a device that is given a physical address reaches the memory there.

use serde::Serialize;

use super::Root;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Iommu {
    /// The kernel's names of the IOMMUs, such as dmar0 or smmu3.0x0000000009050000.
    pub units: Vec<String>,
    /// Empty without an IOMMU, or if the kernel does not use it.
    pub groups: Vec<Group>,
}

/// Devices that the IOMMU cannot tell from each other.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Group {
    pub name: String,
    /// `identity` means that physical addresses are bus addresses; `DMA` and others, that they are not.
    /// `None` before Linux 5.11.
    pub domain: Option<String>,
    pub devices: Vec<String>,
}

impl Iommu {
    pub fn read(root: &Root) -> Self {
        const DIRECTORY: &str = "sys/kernel/iommu_groups";
        let group = |name: String| Group {
            domain: root.text(format!("{DIRECTORY}/{name}/type")),
            devices: root.names(format!("{DIRECTORY}/{name}/devices")),
            name,
        };
        Self {
            units: root.names("sys/class/iommu"),
            groups: root.names(DIRECTORY).into_iter().map(group).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn groups_are_read_with_their_devices() {
        let directory = tempfile::tempdir().unwrap();
        let group = "sys/kernel/iommu_groups/7";
        record(
            directory.path(),
            &[
                ("sys/class/iommu/dmar0/uevent", ""),
                (&format!("{group}/type"), "DMA-FQ\n"),
                (&format!("{group}/devices/0000:00:02.0"), ""),
            ],
        );
        let iommu = Iommu::read(&Root::at(directory.path()));
        assert_eq!(iommu.units, ["dmar0"]);
        assert_eq!(iommu.groups.len(), 1);
        assert_eq!(iommu.groups[0].domain.as_deref(), Some("DMA-FQ"));
        assert_eq!(iommu.groups[0].devices, ["0000:00:02.0"]);
    }
}
