// SPDX-License-Identifier: MPL-2.0
//! How much memory the machine can give before it kills processes to get more.

use std::fmt;
use std::path::PathBuf;

use crate::sys::cgroup;
use crate::sys::meminfo::{self, Meminfo};

/// Memory left for page tables, slabs and programs that start.
const LEAST_MARGIN_BYTES: u64 = 16 << 20;
/// The margin of larger machines is this fraction of all memory.
const MARGIN_PART: u64 = 64;

/// An amount of memory, and the limit that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// How many bytes can be allocated.
    pub bytes: u64,
    /// The limit that allows no more.
    pub limit: Limit,
}

/// What limits the memory of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// All of the machine's memory, in use or not.
    Total,
    /// The part of the machine's memory that is available now.
    Machine,
    /// The limit of a control group, in this file.
    Cgroup(PathBuf),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total => f.write_str("MemTotal in /proc/meminfo"),
            Self::Machine => {
                f.write_str("MemAvailable in /proc/meminfo, less CmaFree and a margin")
            }
            Self::Cgroup(file) => write!(f, "the control group's limit in {}", file.display()),
        }
    }
}

/// How much unmovable memory can be allocated now. `None` where the kernel does not say. `is_charged` tells
/// whether the pages count towards the process's control group.
pub(super) fn now(is_charged: bool) -> Option<Available> {
    let meminfo = Meminfo::read().ok();
    let field = |name: &str| meminfo.as_ref()?.field_bytes(name);
    let total_bytes = field("MemTotal").unwrap_or(u64::MAX);
    let group = is_charged.then(|| cgroup::memory_headroom(total_bytes));
    let group = group.flatten();
    let machine = of_machine(field).map(|bytes| Available {
        bytes,
        limit: Limit::Machine,
    });
    let group = group.map(|headroom| Available {
        bytes: headroom.bytes,
        limit: Limit::Cgroup(headroom.limit),
    });
    machine
        .into_iter()
        .chain(group)
        .min_by_key(|available| available.bytes)
}

/// All memory of the machine. No kind can give more.
pub(super) fn in_total() -> Option<Available> {
    let bytes = meminfo::field_bytes("MemTotal").ok().flatten()?;
    Some(Available {
        bytes,
        limit: Limit::Total,
    })
}

/// MemAvailable counts the free pages of the contiguous memory allocator, which only movable memory may
/// use. Pages of a heap and pinned pages are not movable.
fn of_machine(field: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let margin = (field("MemTotal")? / MARGIN_PART).max(LEAST_MARGIN_BYTES);
    let available = field("MemAvailable")?;
    let unusable = field("CmaFree").unwrap_or(0).saturating_add(margin);
    Some(available.saturating_sub(unusable))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn machine(fields: &[(&str, u64)]) -> Option<u64> {
        of_machine(|name| {
            let found = fields.iter().find(|(field, _)| *field == name);
            found.map(|&(_, mib)| mib * MIB)
        })
    }

    #[test]
    fn free_cma_pages_and_a_margin_are_not_available() {
        let small = [("MemTotal", 768), ("MemAvailable", 600), ("CmaFree", 250)];
        assert_eq!(machine(&small), Some(334 * MIB));
        let large = [("MemTotal", 6400), ("MemAvailable", 6000)];
        assert_eq!(machine(&large), Some(5900 * MIB));
    }

    #[test]
    fn a_machine_of_free_cma_pages_alone_has_nothing() {
        let fields = [("MemTotal", 768), ("MemAvailable", 200), ("CmaFree", 256)];
        assert_eq!(machine(&fields), Some(0));
        assert_eq!(machine(&[("MemTotal", 768)]), None);
    }

    /// Two readings of a running machine differ, so that each is compared with all of its memory only.
    #[test]
    fn the_running_machine_has_no_more_than_all_of_its_memory() {
        let total = in_total().unwrap();
        let machine = now(false).unwrap();
        assert_eq!(machine.limit, Limit::Machine);
        assert!(machine.bytes < total.bytes, "{machine:?}, {total:?}");
        let charged = now(true).unwrap();
        assert!(charged.bytes < total.bytes, "{charged:?}, {total:?}");
    }
}
