// SPDX-License-Identifier: MPL-2.0
//! The memory limits of the control groups that this process is in
//! (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).

use super::read_kernel_file;
use std::path::{Path, PathBuf};

/// How much memory a group may still allocate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// Bytes that can be allocated before the kernel kills processes of the group.
    pub bytes: u64,
    /// The file that holds the limit.
    pub limit: PathBuf,
}

/// The file names of one version of the interface.
struct Version {
    /// File system type in mountinfo.
    filesystem: &'static str,
    /// The controller, for the version that mounts controllers separately.
    controller: Option<&'static str>,
    limit: &'static str,
    usage: &'static str,
    /// Fields of memory.stat that count page cache, which the kernel drops before it kills processes.
    cache: [&'static str; 2],
}

const VERSIONS: [Version; 2] = [
    Version {
        filesystem: "cgroup2",
        controller: None,
        limit: "memory.max",
        usage: "memory.current",
        cache: ["inactive_file", "active_file"],
    },
    Version {
        filesystem: "cgroup",
        controller: Some("memory"),
        limit: "memory.limit_in_bytes",
        usage: "memory.usage_in_bytes",
        cache: ["total_inactive_file", "total_active_file"],
    },
];

/// The narrowest of the limits below `machine_bytes`, all memory of the machine. `None` if no group of
/// this process has one.
///
/// Groups with a higher limit, or none, are not asked what they use: the kernel would add up the counters of
/// all processors for the answer, which takes milliseconds on a busy machine.
pub fn memory_headroom(machine_bytes: u64) -> Option<Headroom> {
    headroom_below(Path::new("/"), machine_bytes)
}

/// `root` holds `proc` and the mounts; tests use another root.
fn headroom_below(root: &Path, machine_bytes: u64) -> Option<Headroom> {
    let mounts = read_kernel_file(root.join("proc/self/mountinfo")).ok()?;
    let groups = read_kernel_file(root.join("proc/self/cgroup")).ok()?;
    VERSIONS
        .iter()
        .filter_map(|version| version.headroom(root, &mounts, &groups, machine_bytes))
        .min_by_key(|headroom| headroom.bytes)
}

impl Version {
    fn headroom(
        &self,
        root: &Path,
        mounts: &str,
        groups: &str,
        machine_bytes: u64,
    ) -> Option<Headroom> {
        let (mounted, mount_point) = mounts.lines().find_map(|line| self.mount(line))?;
        let mount_point = root.join(mount_point.trim_start_matches('/'));
        let group = groups.lines().find_map(|line| self.group(line))?;
        // In a container the mount may show a part of the hierarchy, or the group's path may start at a
        // root that is not mounted here.
        let below = Path::new(group)
            .strip_prefix(mounted)
            .unwrap_or(Path::new(""));
        let directory = mount_point.join(below);
        // A parent's limit holds for all of its children together.
        directory
            .ancestors()
            .take_while(|directory| directory.starts_with(&mount_point))
            .filter_map(|directory| self.headroom_of(directory, machine_bytes))
            .min_by_key(|headroom| headroom.bytes)
    }

    /// The mounted part of the hierarchy and the mount point, from a line of mountinfo.
    fn mount<'a>(&self, line: &'a str) -> Option<(&'a str, &'a str)> {
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        if what.next() != Some(self.filesystem) {
            return None;
        }
        let has = |controller| {
            what.nth(1)
                .is_some_and(|o| o.split(',').any(|o| o == controller))
        };
        if !self.controller.is_none_or(has) {
            return None;
        }
        let mut place = place.split(' ').skip(3);
        Some((place.next()?, place.next()?))
    }

    /// The path of the group, from a line of /proc/self/cgroup: "4:memory:/path", "0::/path".
    fn group<'a>(&self, line: &'a str) -> Option<&'a str> {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let is_it = match self.controller {
            Some(wanted) => controllers
                .split(',')
                .any(|controller| controller == wanted),
            None => controllers.is_empty(),
        };
        is_it.then_some(path)
    }

    fn headroom_of(&self, directory: &Path, machine_bytes: u64) -> Option<Headroom> {
        let number = |name: &str| {
            let text = read_kernel_file(directory.join(name)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        let limit = directory.join(self.limit);
        let limit_bytes = number(self.limit).filter(|&bytes| bytes < machine_bytes)?;
        let usage_bytes = number(self.usage)?;
        let stat = read_kernel_file(directory.join("memory.stat")).unwrap_or_default();
        let cache_bytes: u64 = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| self.cache.contains(name))
            .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
            .fold(0, u64::saturating_add);
        Some(Headroom {
            bytes: limit_bytes.saturating_sub(usage_bytes.saturating_sub(cache_bytes)),
            limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A root directory with this `group` and `mountinfo`, and with the group's `files`.
    fn machine(group: &str, mountinfo: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/self/cgroup", group);
        put("proc/self/mountinfo", mountinfo);
        for (path, text) in files {
            put(path, text);
        }
        root
    }

    fn headroom(root: &tempfile::TempDir) -> Option<(u64, String)> {
        let headroom = headroom_below(root.path(), MACHINE_BYTES)?;
        let file = headroom.limit.strip_prefix(root.path()).unwrap();
        Some((headroom.bytes, file.display().to_string()))
    }

    const MACHINE_BYTES: u64 = 1 << 34;

    const V2: &str = "22 1 0:2 / /proc rw - proc proc rw\n\
        30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_narrowest_group_on_the_way_up_counts() {
        let root = machine(
            "0::/slice/service\n",
            V2,
            &[
                ("sys/fs/cgroup/slice/memory.max", "1000\n"),
                ("sys/fs/cgroup/slice/memory.current", "900\n"),
                (
                    "sys/fs/cgroup/slice/memory.stat",
                    "anon 700\ninactive_file 50\nactive_file 10\nshmem 40\n",
                ),
                ("sys/fs/cgroup/slice/service/memory.max", "5000\n"),
                ("sys/fs/cgroup/slice/service/memory.current", "100\n"),
            ],
        );
        // 1000 less the usage without page cache: 900 - 60.
        let file = "sys/fs/cgroup/slice/memory.max".to_owned();
        assert_eq!(headroom(&root), Some((160, file)));
    }

    #[test]
    fn a_group_without_a_limit_is_none() {
        let files = [
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.current", "900\n"),
        ];
        assert_eq!(headroom(&machine("0::/a\n", V2, &files)), None);
        assert_eq!(headroom(&machine("0::/\n", V2, &[])), None);
    }

    #[test]
    fn version_1_has_a_hierarchy_for_memory() {
        let mountinfo = "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            33 30 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let root = machine(
            "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc/job\n0::/\n",
            mountinfo,
            &[
                ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "4096\n"),
                ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "5000\n"),
                (
                    "sys/fs/cgroup/memory/job/memory.stat",
                    "inactive_file 1\ntotal_inactive_file 1000\n",
                ),
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "8000\n"),
            ],
        );
        let file = "sys/fs/cgroup/memory/job/memory.limit_in_bytes".to_owned();
        assert_eq!(headroom(&root), Some((96, file)));
    }

    #[test]
    fn a_group_named_from_a_root_that_is_not_seen_is_the_mounted_one() {
        let files = [
            ("sys/fs/cgroup/memory.max", "10\n"),
            ("sys/fs/cgroup/memory.current", "3\n"),
        ];
        let root = machine("0::/../elsewhere\n", V2, &files);
        assert_eq!(
            headroom(&root),
            Some((7, "sys/fs/cgroup/memory.max".to_owned()))
        );
    }

    #[test]
    fn numbers_at_the_edge_do_not_overflow() {
        let files = [
            ("sys/fs/cgroup/memory.max", "4096\n"),
            ("sys/fs/cgroup/memory.current", "0\n"),
            (
                "sys/fs/cgroup/memory.stat",
                "inactive_file 18446744073709551615\nactive_file 5\n",
            ),
        ];
        let (bytes, _) = headroom(&machine("0::/\n", V2, &files)).unwrap();
        assert_eq!(bytes, 4096);
    }

    #[test]
    fn a_limit_that_the_machine_reaches_first_is_none() {
        for (limit, is_one) in [(MACHINE_BYTES - 1, true), (MACHINE_BYTES, false)] {
            let limit = limit.to_string();
            let files = [
                ("sys/fs/cgroup/memory.max", limit.as_str()),
                ("sys/fs/cgroup/memory.current", "0\n"),
            ];
            let found = headroom(&machine("0::/\n", V2, &files));
            assert_eq!(found.is_some(), is_one, "{limit}");
        }
    }

    #[test]
    fn the_machine_that_this_runs_on_is_read_without_failing() {
        let _ = memory_headroom(u64::MAX);
    }
}
