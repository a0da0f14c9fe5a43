// SPDX-License-Identifier: MPL-2.0
//! What this process may see and pin.

use io_uring::IoUring;
use nix::unistd::{Group, User, getegid, geteuid};
use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
use serde::Serialize;

use super::{Root, describe};

/// The capabilities that count here (linux/capability.h).
const CAPABILITIES: [(&str, u32); 5] = [
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_IPC_LOCK", 14),
    ("CAP_SYS_RAWIO", 17),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
];

#[derive(Clone, Debug, Default, Serialize)]
pub struct Rights {
    pub user: String,
    /// The primary group.
    pub group: String,
    /// The effective capabilities among those that count here. `None` if they cannot be read.
    pub capabilities: Option<Vec<&'static str>>,
    /// Whether capabilities of this process count for the whole machine, and not in a container's user
    /// namespace only.
    pub is_in_initial_user_namespace: Option<bool>,
    /// Whether the files in /proc/self belong to the process's user.
    pub is_dumpable: Option<bool>,
    /// Active security modules, as in /sys/kernel/security/lsm.
    pub security_modules: Option<String>,
    /// 0: no filter of system calls, 2: a filter.
    pub seccomp: Option<u32>,
    pub is_tracefs_mounted: bool,
    /// Whether the CMA tracepoint can be read.
    pub may_read_cma_trace: bool,
    /// kernel.perf_event_paranoid
    pub perf_event_paranoid: Option<i32>,
    /// kernel.io_uring_disabled; `None` before Linux 6.6.
    pub io_uring_disabled: Option<u32>,
    /// Why io_uring_setup fails; `None` if it works.
    pub io_uring_error: Option<String>,
    /// Whether io_uring_setup fails because the kernel does not have it.
    pub is_io_uring_missing: bool,
    /// RLIMIT_MEMLOCK; `None` if unlimited.
    pub memlock_bytes: Option<u64>,
}

impl Rights {
    pub fn read(root: &Root) -> Self {
        let status = root.text("proc/self/status");
        let field = |name: &str| status.as_deref().and_then(|status| field(status, name));
        let mounts = root.text("proc/mounts").unwrap_or_default();
        let events = ["kernel/tracing", "kernel/debug/tracing"].into_iter();
        let mut ids = events.flat_map(|tracefs| {
            let id = |event: &str| format!("sys/{tracefs}/events/cma/{event}/id");
            [id("cma_alloc_finish"), id("cma_alloc")]
        });
        Self {
            capabilities: field("CapEff:").and_then(|set| capabilities(&set)),
            is_in_initial_user_namespace: root.text("proc/self/uid_map").map(|map| is_whole(&map)),
            security_modules: root.text("sys/kernel/security/lsm"),
            seccomp: field("Seccomp:").and_then(|mode| mode.parse().ok()),
            is_tracefs_mounted: mounts
                .lines()
                .any(|line| line.split_whitespace().nth(2) == Some("tracefs")),
            may_read_cma_trace: ids.any(|id| root.text(id).is_some()),
            perf_event_paranoid: root.number("proc/sys/kernel/perf_event_paranoid"),
            io_uring_disabled: root.number("proc/sys/kernel/io_uring_disabled"),
            ..Self::default()
        }
    }

    /// Adds what system calls tell.
    pub fn ask_kernel(&mut self) {
        let user = geteuid();
        self.user = match User::from_uid(user) {
            Ok(Some(user)) => user.name,
            _ => user.to_string(),
        };
        let group = getegid();
        self.group = match Group::from_gid(group) {
            Ok(Some(group)) => group.name,
            _ => group.to_string(),
        };
        self.is_dumpable = dumpable_behavior()
            .ok()
            .map(|behavior| behavior == DumpableBehavior::Dumpable);
        self.memlock_bytes = getrlimit(Resource::Memlock).current;
        if let Err(error) = IoUring::new(2) {
            self.is_io_uring_missing = error.raw_os_error() == Some(nix::libc::ENOSYS);
            self.io_uring_error = Some(describe(&error));
        }
    }

    pub fn has(&self, capability: &str) -> bool {
        self.capabilities
            .as_ref()
            .is_some_and(|set| set.contains(&capability))
    }
}

/// The rest of the line that begins with this name.
fn field(status: &str, name: &str) -> Option<String> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}

fn capabilities(set: &str) -> Option<Vec<&'static str>> {
    let set = u64::from_str_radix(set, 16).ok()?;
    let has = |&(_, bit): &(&str, u32)| set & 1 << bit != 0;
    Some(
        CAPABILITIES
            .iter()
            .filter(|capability| has(capability))
            .map(|&(name, _)| name)
            .collect(),
    )
}

/// Whether a uid_map is that of the initial user namespace: all users, as themselves.
fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn a_recorded_process_has_its_rights() {
        let directory = tempfile::tempdir().unwrap();
        record(
            directory.path(),
            &[
                (
                    "proc/self/status",
                    "Name:\tx\nCapEff:\t0000004000204000\nSeccomp:\t2\n",
                ),
                ("proc/self/uid_map", "         0     100000      65536\n"),
                ("proc/sys/kernel/perf_event_paranoid", "-1\n"),
                (
                    "proc/mounts",
                    "tracefs /sys/kernel/tracing tracefs rw 0 0\n",
                ),
                ("sys/kernel/tracing/events/cma/cma_alloc_finish/id", "460\n"),
            ],
        );
        let rights = Rights::read(&Root::at(directory.path()));
        assert_eq!(
            rights.capabilities.as_deref(),
            Some(&["CAP_IPC_LOCK", "CAP_SYS_ADMIN", "CAP_PERFMON"][..])
        );
        assert!(rights.has("CAP_PERFMON") && !rights.has("CAP_SYS_RAWIO"));
        assert_eq!(rights.is_in_initial_user_namespace, Some(false));
        assert_eq!(rights.seccomp, Some(2));
        assert_eq!(rights.perf_event_paranoid, Some(-1));
        assert!(rights.is_tracefs_mounted && rights.may_read_cma_trace);
        assert_eq!(rights.io_uring_disabled, None);
    }

    #[test]
    fn a_map_of_all_users_is_the_initial_namespace() {
        assert!(is_whole("         0          0 4294967295\n"));
        assert!(!is_whole("0 0 1\n1 1 4294967294"));
    }

    #[test]
    fn this_process_is_dumpable_and_has_user_and_group() {
        let mut rights = Rights::default();
        rights.ask_kernel();
        assert_eq!(rights.is_dumpable, Some(true));
        assert!(!rights.user.is_empty() && !rights.group.is_empty());
    }
}
