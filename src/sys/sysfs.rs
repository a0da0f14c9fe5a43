// SPDX-License-Identifier: MPL-2.0
//! Character devices in sysfs.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, major, minor};

use super::read_kernel_file;

/// A character device in sysfs. It is found by its device number, so it need not be opened.
#[derive(Debug, Clone)]
pub struct SysfsDevice(PathBuf);

impl SysfsDevice {
    pub fn of_path(path: &str) -> Option<Self> {
        Self::of(&rustix::fs::stat(path).ok()?)
    }

    pub fn of_fd(device: BorrowedFd<'_>) -> Option<Self> {
        Self::of(&rustix::fs::fstat(device).ok()?)
    }

    fn of(stat: &rustix::fs::Stat) -> Option<Self> {
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        let path = PathBuf::from(format!("/sys/dev/char/{major}:{minor}"));
        (is_device && path.exists()).then_some(Self(path))
    }

    /// Whether the device belongs to the DRM subsystem.
    pub fn is_drm(&self) -> bool {
        base(&self.0.join("subsystem")).is_some_and(|name| name == "drm")
    }

    /// The device's name, like "card0".
    pub fn name(&self) -> Option<String> {
        base(&self.0)
    }

    /// The bus and address of the hardware, like `pci:0000:00:02.0`.
    pub fn bus_id(&self) -> Option<String> {
        let hardware = self.0.join("device");
        let address = base(&hardware)?;
        Some(match base(&hardware.join("subsystem")) {
            Some(bus) => format!("{bus}:{address}"),
            None => address,
        })
    }

    /// The hardware's driver, or its own name if it has no driver.
    pub fn driver(&self) -> Option<String> {
        let hardware = self.0.join("device");
        base(&hardware.join("driver")).or_else(|| base(&hardware))
    }

    /// The name and last known status (connected, disconnected or unknown) of each connector of a card.
    pub fn connectors(&self) -> Vec<(String, String)> {
        let prefix = format!("{}-", self.name().unwrap_or_default());
        let mut found: Vec<_> = std::fs::read_dir(&self.0)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
                Some((name.strip_prefix(&prefix)?.into(), status.trim().into()))
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// The text of one of the files that a connector has, such as `modes` (a line for each) or `connector_id`
    /// (Linux 5.18). `None` if there is no such file.
    pub fn of_connector(&self, connector: &str, file: &str) -> Option<String> {
        let directory = format!("{}-{connector}", self.name()?);
        read_kernel_file(self.0.join(directory).join(file)).ok()
    }
}

/// The last part of the path that a link leads to.
fn base(link: &Path) -> Option<String> {
    let target = std::fs::canonicalize(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}
