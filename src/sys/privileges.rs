// SPDX-License-Identifier: MPL-2.0
//! The privileges of this process: its capabilities, and the settings that count beside them.

use std::fs;

/// Bits of a capability set (linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    SysAdmin = 21,
    Perfmon = 38,
}

/// Whether the calling thread has the capability in its own user namespace.
pub fn has(capability: Capability) -> bool {
    fs::read_to_string("/proc/thread-self/status")
        .ok()
        .and_then(|status| effective(&status))
        .is_some_and(|set| set & 1 << capability as u32 != 0)
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Whether the files in /proc/self belong to the process's own user. They belong to root after a program
/// file with capabilities was executed, and after most changes of the user.
pub fn is_dumpable() -> bool {
    // SAFETY: PR_GET_DUMPABLE takes no further argument and touches no memory.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) == 1 }
}

/// kernel.perf_event_paranoid. -1 allows raw tracepoints to all users.
pub fn perf_event_paranoid() -> Option<i32> {
    let text = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_set_is_the_one_that_counts() {
        let status = "Name:\tx\nCapInh:\t0\nCapPrm:\t1\nCapEff:\t0000004000200000\nCapBnd:\t2\n";
        let set = effective(status).unwrap();
        assert_eq!(
            set,
            1 << Capability::SysAdmin as u32 | 1 << Capability::Perfmon as u32
        );
        assert_eq!(effective("Name:\tx\n"), None);
    }

    #[test]
    fn a_test_runner_is_dumpable() {
        assert!(is_dumpable());
    }
}
