// SPDX-License-Identifier: MPL-2.0
//! The kernel and its pages.

use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

use super::Root;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: Option<String>,
    pub architecture: &'static str,
    pub page_bytes: u64,
    /// When the kernel makes huge pages by itself: always, madvise or never. `None` without that option.
    pub transparent_huge_pages: Option<String>,
    /// The same for memory of memfds: always, within_size, advise, never, deny or force.
    pub transparent_huge_pages_in_shmem: Option<String>,
    /// Whether it makes large pages when a program asks for them. `None` if that was not tried.
    pub makes_large_pages: Option<bool>,
    pub command_line: Option<String>,
}

impl Kernel {
    pub fn read(root: &Root) -> Self {
        let release = root.text("proc/sys/kernel/osrelease");
        let thp = |name: &str| {
            let text = root.text(format!("sys/kernel/mm/transparent_hugepage/{name}"))?;
            chosen(&text)
        };
        Self {
            architecture: std::env::consts::ARCH,
            page_bytes: sysconf(SysconfVar::PAGE_SIZE)
                .ok()
                .flatten()
                .and_then(|bytes| bytes.try_into().ok())
                .unwrap_or(0),
            transparent_huge_pages: thp("enabled"),
            transparent_huge_pages_in_shmem: thp("shmem_enabled"),
            makes_large_pages: None,
            command_line: root.text("proc/cmdline"),
            release,
        }
    }

    /// The kernel's version as two numbers.
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.as_ref()?.split('.').map(|number| {
            let digits = number.find(|c: char| !c.is_ascii_digit());
            number[..digits.unwrap_or(number.len())].parse().ok()
        });
        Some((numbers.next()??, numbers.next()??))
    }
}

/// The word in brackets of `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn a_recorded_kernel_is_read() {
        let directory = tempfile::tempdir().unwrap();
        record(
            directory.path(),
            &[
                ("proc/sys/kernel/osrelease", "6.12.48+deb13-amd64\n"),
                (
                    "sys/kernel/mm/transparent_hugepage/enabled",
                    "always [madvise] never\n",
                ),
            ],
        );
        let kernel = Kernel::read(&Root::at(directory.path()));
        assert_eq!(kernel.version(), Some((6, 12)));
        assert_eq!(kernel.transparent_huge_pages.as_deref(), Some("madvise"));
        assert_eq!(kernel.transparent_huge_pages_in_shmem, None);
    }

    #[test]
    fn a_release_without_numbers_has_no_version() {
        for release in ["", "x", "6", "6.x", "99999999999.1"] {
            let kernel = Kernel {
                release: Some(release.into()),
                ..Kernel::default()
            };
            assert_eq!(kernel.version(), None, "{release}");
        }
    }
}
