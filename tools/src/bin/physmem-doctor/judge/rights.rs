// SPDX-License-Identifier: MPL-2.0
//! What shows addresses and pins pages.

use super::size;
use crate::facts::Facts;
use crate::item::Item;

/// RLIMIT_MEMLOCK that pins a pool of four frames of 1920x1080 in 4 bytes a pixel.
const MEMLOCK_BYTES: u64 = 32 << 20;

pub fn items(facts: &Facts) -> Vec<Item> {
    vec![
        pagemap(facts),
        tracefs(facts),
        perf(facts),
        io_uring(facts),
        memlock(facts),
    ]
}

/// How a program gets a capability and stays dumpable.
fn ambient(facts: &Facts, capability: &str) -> String {
    let (user, group) = (&facts.rights.user, &facts.rights.group);
    format!(
        "sudo setpriv --reuid {user} --regid {group} --init-groups \
         --inh-caps +{capability} --ambient-caps +{capability} PROGRAM"
    )
}

/// What makes pagemap readable.
pub fn for_pagemap(facts: &Facts) -> Option<String> {
    let rights = &facts.rights;
    if rights.is_dumpable == Some(false) && !rights.has("CAP_DAC_READ_SEARCH") {
        return Some("sudo setcap -r PROGRAM, if its file has capabilities".to_owned());
    }
    if !rights.has("CAP_SYS_ADMIN") {
        return Some(ambient(facts, "sys_admin"));
    }
    match rights.is_in_initial_user_namespace {
        Some(false) => Some("run it outside of the user namespace (podman: as root)".to_owned()),
        _ => None,
    }
}

/// Whether pagemap shows frame numbers, by the address of an own page.
fn pagemap(facts: &Facts) -> Item {
    const KEY: &str = "rights.pagemap";
    let normal = facts.allocations.iter().find(|made| made.kind == "normal");
    let Some(block) = normal.and_then(|made| made.block.as_ref()) else {
        return Item::unknown(KEY, "no page was allocated to look for");
    };
    match (block.address, &block.address_unknown) {
        (Some(address), _) => Item::ok(
            KEY,
            format!("/proc/self/pagemap shows frame numbers: an own page is at {address:#x}"),
        ),
        (None, reason) => Item::lack(KEY, reason.clone().unwrap_or_default(), for_pagemap(facts)),
    }
}

/// Whether addresses of CMA memory need the tracepoint on this machine.
fn needs_trace(facts: &Facts) -> bool {
    let cma = facts.allocations.iter().find(|made| made.kind == "cma");
    let source = cma.and_then(|made| made.block.as_ref()?.address_source.as_deref());
    facts.memory.has_contiguous_heap() && source != Some("pagemap")
}

const NOT_NEEDED: &str = "not needed: no address of CMA memory comes from there";

/// What shows addresses of CMA memory.
pub fn for_cma(facts: &Facts) -> Option<String> {
    let mut items = [tracefs(facts), perf(facts)].into_iter();
    items
        .find_map(|item| item.remedy)
        .or_else(|| for_pagemap(facts))
}

fn tracefs(facts: &Facts) -> Item {
    const KEY: &str = "rights.tracefs";
    let rights = &facts.rights;
    if rights.may_read_cma_trace {
        return Item::ok(KEY, "the tracepoint of CMA can be read");
    }
    if !needs_trace(facts) {
        return Item::ok(KEY, NOT_NEEDED);
    }
    match rights.is_tracefs_mounted {
        false => Item::lack(
            KEY,
            "tracefs is not mounted",
            Some("sudo mount -t tracefs tracefs /sys/kernel/tracing".to_owned()),
        ),
        true if rights.user == "root" => Item::lack(
            KEY,
            "tracefs has no tracepoint of CMA",
            Some("kernel option CONFIG_FTRACE=y".to_owned()),
        ),
        true => Item::lack(
            KEY,
            "tracefs is closed to this user: no addresses of CMA memory",
            Some("sudo mount -o remount,mode=0750,gid=video /sys/kernel/tracing".to_owned()),
        ),
    }
}

fn perf(facts: &Facts) -> Item {
    const KEY: &str = "rights.perf";
    let rights = &facts.rights;
    let may_trace = rights.has("CAP_PERFMON") || rights.has("CAP_SYS_ADMIN");
    let Some(level) = rights.perf_event_paranoid else {
        let fact = "the kernel has no perf events";
        return match needs_trace(facts) {
            true => Item::lack(
                KEY,
                fact,
                Some("kernel option CONFIG_PERF_EVENTS=y".to_owned()),
            ),
            false => Item::ok(KEY, format!("{fact}; {NOT_NEEDED}")),
        };
    };
    let fact = format!("kernel.perf_event_paranoid is {level}");
    if level < 0 || may_trace {
        let by = match level < 0 {
            true => "every user may read tracepoints",
            false => "but this process has the capability to read tracepoints",
        };
        return Item::ok(KEY, format!("{fact}; {by}"));
    }
    match needs_trace(facts) {
        true => Item::lack(
            KEY,
            format!("{fact}, and this process has no CAP_PERFMON: no addresses of CMA memory"),
            ambient(facts, "perfmon"),
        ),
        false => Item::ok(KEY, format!("{fact}; {NOT_NEEDED}")),
    }
}

fn io_uring(facts: &Facts) -> Item {
    const KEY: &str = "rights.io-uring";
    let rights = &facts.rights;
    let Some(error) = &rights.io_uring_error else {
        return Item::ok(
            KEY,
            "io_uring works: pages are pinned, files are read ahead",
        );
    };
    let disabled = rights.io_uring_disabled.unwrap_or(0);
    let (cause, remedy) = match disabled {
        _ if rights.is_io_uring_missing && rights.seccomp != Some(2) => (
            "the kernel is built without it".to_owned(),
            "kernel option CONFIG_IO_URING=y",
        ),
        1.. => (
            format!("kernel.io_uring_disabled is {disabled}"),
            "sudo sysctl kernel.io_uring_disabled=0",
        ),
        0 if rights.seccomp == Some(2) => (
            "a seccomp filter (of a container) refuses it".to_owned(),
            "docker run --security-opt seccomp=PROFILE, with io_uring_setup, io_uring_enter and \
             io_uring_register allowed",
        ),
        0 => ("a security module or a limit refuses it".to_owned(), ""),
    };
    Item::lack(
        KEY,
        format!(
            "io_uring_setup: {error}: {cause}; pages of kinds normal and hugepage are not pinned"
        ),
        (!remedy.is_empty()).then(|| remedy.to_owned()),
    )
}

fn memlock(facts: &Facts) -> Item {
    const KEY: &str = "rights.memlock";
    let rights = &facts.rights;
    match rights.memlock_bytes {
        None => Item::ok(KEY, "RLIMIT_MEMLOCK is unlimited"),
        Some(bytes) => {
            let fact = format!("RLIMIT_MEMLOCK is {}", size(bytes));
            if rights.has("CAP_IPC_LOCK") {
                Item::ok(KEY, format!("{fact}, and CAP_IPC_LOCK lifts it"))
            } else if bytes >= MEMLOCK_BYTES {
                Item::ok(KEY, fact)
            } else {
                Item::lack(
                    KEY,
                    format!(
                        "{fact}: a pool of large frames of kinds normal and hugepage is not pinned"
                    ),
                    Some(
                        "ulimit -l unlimited (LimitMEMLOCK=infinity of a systemd unit)".to_owned(),
                    ),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::allocation::{Allocation, Block};
    use crate::facts::memory::Heap;
    use crate::item::Verdict;

    fn user() -> Facts {
        let mut facts = Facts::default();
        facts.rights.user = "me".into();
        facts.rights.capabilities = Some(Vec::new());
        facts.rights.is_dumpable = Some(true);
        facts.rights.is_in_initial_user_namespace = Some(true);
        facts.rights.perf_event_paranoid = Some(2);
        facts
    }

    fn with_cma(mut facts: Facts) -> Facts {
        facts.memory.heaps = vec![Heap {
            memory: "contiguous",
            ..Heap::default()
        }];
        facts
    }

    fn allocated(kind: &'static str, address: Option<u64>) -> Allocation {
        Allocation {
            kind,
            block: Some(Block {
                address,
                address_source: address.map(|_| "pagemap".into()),
                ..Block::default()
            }),
            ..Allocation::default()
        }
    }

    #[test]
    fn pagemap_is_judged_by_an_own_page() {
        let mut facts = user();
        assert_eq!(pagemap(&facts).verdict, Verdict::Unknown);
        facts.allocations = vec![allocated("normal", None)];
        assert_eq!(pagemap(&facts).verdict, Verdict::Lack);
        facts.allocations = vec![allocated("normal", Some(4096))];
        assert_eq!(pagemap(&facts).verdict, Verdict::Ok);
    }

    #[test]
    fn the_remedy_for_pagemap_is_that_of_the_cause() {
        let mut facts = user();
        assert!(
            for_pagemap(&facts)
                .unwrap()
                .contains("--ambient-caps +sys_admin")
        );
        facts.rights.capabilities = Some(vec!["CAP_SYS_ADMIN"]);
        facts.rights.is_dumpable = Some(false);
        assert!(for_pagemap(&facts).unwrap().contains("setcap -r"));
        facts.rights.is_dumpable = Some(true);
        facts.rights.is_in_initial_user_namespace = Some(false);
        assert!(for_pagemap(&facts).unwrap().contains("user namespace"));
    }

    #[test]
    fn tracepoints_are_needed_for_cma_memory_that_pagemap_does_not_list() {
        let facts = user();
        assert_eq!(tracefs(&facts).verdict, Verdict::Ok);
        assert_eq!(perf(&facts).verdict, Verdict::Ok);
        let mut facts = with_cma(facts);
        assert!(tracefs(&facts).remedy.unwrap().starts_with("sudo mount -t"));
        assert!(perf(&facts).remedy.unwrap().contains("+perfmon"));
        facts.rights.is_tracefs_mounted = true;
        assert!(tracefs(&facts).remedy.unwrap().contains("gid=video"));
        facts.allocations = vec![allocated("cma", Some(4096))];
        assert_eq!(tracefs(&facts).verdict, Verdict::Ok);
        assert_eq!(perf(&facts).verdict, Verdict::Ok);
    }

    #[test]
    fn perf_takes_the_capability_or_the_setting() {
        let mut facts = with_cma(user());
        facts.rights.perf_event_paranoid = Some(-1);
        assert_eq!(perf(&facts).verdict, Verdict::Ok);
        facts.rights.perf_event_paranoid = Some(2);
        facts.rights.capabilities = Some(vec!["CAP_PERFMON"]);
        assert_eq!(perf(&facts).verdict, Verdict::Ok);
    }

    #[test]
    fn io_uring_says_what_refused_it() {
        let mut facts = user();
        assert_eq!(io_uring(&facts).verdict, Verdict::Ok);
        facts.rights.io_uring_error = Some("no".into());
        facts.rights.io_uring_disabled = Some(2);
        assert!(io_uring(&facts).remedy.unwrap().contains("sysctl"));
        facts.rights.io_uring_disabled = Some(0);
        facts.rights.seccomp = Some(2);
        assert!(io_uring(&facts).remedy.unwrap().contains("seccomp"));
        facts.rights.seccomp = Some(0);
        facts.rights.is_io_uring_missing = true;
        assert!(io_uring(&facts).remedy.unwrap().contains("CONFIG_IO_URING"));
    }

    #[test]
    fn a_limit_below_a_pool_is_a_lack() {
        let mut facts = user();
        facts.rights.memlock_bytes = Some(8 << 20);
        assert_eq!(memlock(&facts).verdict, Verdict::Lack);
        facts.rights.capabilities = Some(vec!["CAP_IPC_LOCK"]);
        assert_eq!(memlock(&facts).verdict, Verdict::Ok);
        facts.rights.capabilities = Some(Vec::new());
        facts.rights.memlock_bytes = Some(MEMLOCK_BYTES);
        assert_eq!(memlock(&facts).verdict, Verdict::Ok);
    }
}
