// SPDX-License-Identifier: MPL-2.0
//! The directory below which files of the kernel are read: `/`, or a recorded tree.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use serde::Serialize;

/// The most bytes of a file that are read, and the most entries of a directory. What is read here is shorter.
const MAX_BYTES: u64 = 1 << 20;
const MAX_ENTRIES: usize = 4096;

#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    pub fn machine() -> Self {
        Self("/".into())
    }

    #[cfg(any(test, fuzzing))]
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The path of a name below the root; the name has no slash at its beginning.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    pub fn exists(&self, name: impl AsRef<Path>) -> bool {
        self.path(name).exists()
    }

    /// The text of a file without white space around it. `None` if it cannot be read.
    pub fn text(&self, name: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(name)).ok()?;
        file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    pub fn number<T: std::str::FromStr>(&self, name: impl AsRef<Path>) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// The names in a directory, sorted; empty if it cannot be read.
    pub fn names(&self, directory: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).into_iter().flatten();
        let mut names: Vec<_> = entries
            .take(MAX_ENTRIES)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// The last part of the path that a link leads to.
    pub fn link_target(&self, name: impl AsRef<Path>) -> Option<String> {
        let target = fs::canonicalize(self.path(name)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    pub fn node(&self, name: &str) -> Option<Node> {
        let path = self.path(name);
        let file = path.metadata().ok()?;
        let may = Access::READ_OK | Access::WRITE_OK;
        Some(Node {
            path: format!("/{name}"),
            user: file.uid(),
            group: file.gid(),
            group_name: nix::unistd::Group::from_gid(file.gid().into())
                .ok()
                .flatten()
                .map(|group| group.name),
            mode: file.mode() & 0o7777,
            may_open: accessat(CWD, &path, may, AtFlags::EACCESS).is_ok(),
        })
    }
}

/// A device node, and who may open it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    pub path: String,
    /// Numbers of the owners.
    pub user: u32,
    pub group: u32,
    pub group_name: Option<String>,
    /// The twelve bits of the mode.
    pub mode: u32,
    /// Whether this process may open it for reading and writing.
    pub may_open: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_text_is_read_as_far_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("x"), b" 7\xff \n").unwrap();
        let root = Root::at(directory.path());
        assert_eq!(root.text("x").unwrap(), "7\u{fffd}");
        assert_eq!(root.number::<u32>("x"), None);
        assert_eq!(root.text("y"), None);
        assert!(root.names("x").is_empty());
    }

    #[test]
    fn a_node_says_who_may_open_it() {
        let node = Root::machine().node("dev/null").unwrap();
        assert_eq!((node.path.as_str(), node.may_open), ("/dev/null", true));
        assert_eq!(Root::machine().node("dev/no-such-device"), None);
    }
}
