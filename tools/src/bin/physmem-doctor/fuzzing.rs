// SPDX-License-Identifier: MPL-2.0
//! What a fuzzer calls: a machine whose files contain anything. `fuzz/` makes a program of it, and the unit test
//! replays what that has collected.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::facts::{Facts, Root};
use crate::report::Report;

/// All files that are read, with a `*` where a machine has names of its own.
pub const FILES: &[&str] = &[
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/perf_event_paranoid",
    "proc/sys/kernel/io_uring_disabled",
    "proc/self/status",
    "proc/self/uid_map",
    "proc/self/limits",
    "proc/meminfo",
    "proc/cmdline",
    "proc/mounts",
    "sys/kernel/mm/transparent_hugepage/enabled",
    "sys/kernel/mm/transparent_hugepage/shmem_enabled",
    "sys/kernel/mm/hugepages/hugepages-*/free_hugepages",
    "sys/kernel/mm/hugepages/hugepages-*/nr_hugepages",
    "sys/kernel/mm/cma/*/total_pages",
    "sys/kernel/security/lsm",
    "sys/kernel/tracing/events/cma/cma_alloc_finish/id",
    "sys/class/iommu/*/uevent",
    "sys/kernel/iommu_groups/*/type",
    "sys/kernel/iommu_groups/*/devices/x",
    "sys/class/graphics/fb*/name",
    "sys/class/vtconsole/*/name",
    "sys/class/vtconsole/*/bind",
    "sys/class/drm/card*/uevent",
    "sys/class/drm/card0-*/status",
    "sys/class/drm/card0-*/modes",
    "dev/dma_heap/*",
    "dev/udmabuf",
];

/// The bytes up to the first NUL are the name of each device, those up to the next ones the contents of [`FILES`].
pub fn doctor(bytes: &[u8]) {
    let mut parts = bytes.split(|&byte| byte == 0);
    let name = parts.next().unwrap_or_default();
    if name.is_empty()
        || name.len() > 64
        || name.contains(&b'/')
        || [&b"."[..], b".."].contains(&name)
    {
        return;
    }
    let Ok(directory) = tempfile::tempdir() else {
        return;
    };
    for (file, contents) in FILES.iter().zip(parts) {
        let path = path(directory.path(), file, name);
        // A name may be that of a file that is there already.
        let _ = path.parent().map(fs::create_dir_all);
        let _ = fs::write(path, contents);
    }
    let report = Report::new(Facts::of_files(&Root::at(directory.path())), &[]);
    assert!(report.exit_status <= 2);
    let table = report.table();
    assert!(
        !table.replace('\n', "").contains(char::is_control),
        "{table:?}"
    );
    let remedies = report.items.iter().filter(|item| item.remedy.is_some());
    assert_eq!(table.lines().count(), report.items.len() + remedies.count());
    assert!(report.items.iter().all(|item| !item.fact.is_empty()));
    let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
    assert_eq!(
        json["items"].as_array().map(Vec::len),
        Some(report.items.len())
    );
}

fn path(root: &Path, file: &str, name: &[u8]) -> std::path::PathBuf {
    let parts: Vec<_> = file.split('*').map(str::as_bytes).collect();
    root.join(OsStr::from_bytes(&parts.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fuzzer_has_collected_is_judged_without_a_contradiction() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/doctor");
        let mut files = 0;
        for file in fs::read_dir(corpus).unwrap() {
            let path = file.unwrap().path();
            println!("{}", path.display()); // shown if it panics
            doctor(&fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files > 0);
    }
}
