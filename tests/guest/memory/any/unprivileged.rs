// SPDX-License-Identifier: MPL-2.0
//! Users without privilege: their memory works, and the library names the missing right.

use std::path::Path;

use gstphysmem::memory::{AddressUnknown, MemoryKind, Region};

use super::{expect_one_pass, rerun_command};
use crate::{
    allocate, alone_in_the_lab, available, cannot_run_without, conformance, devices, every_source,
    privileges, request, support,
};

/// Runs the calling test again as user nobody, with `CHILD` in the environment.
fn rerun_as_nobody(test: &str) {
    let mut command = rerun_command(test);
    command.env(CHILD, "1");
    expect_one_pass(&mut support::as_nobody(&command));
}

const CHILD: &str = "PHYSMEM_TEST_NOBODY";

fn is_nobody() -> bool {
    std::env::var_os(CHILD).is_some()
}

fn open_to_all(kind: MemoryKind) {
    let devices = devices(kind).iter();
    let there: Vec<_> = devices
        .filter(|device| Path::new(device).exists())
        .collect();
    assert!(!there.is_empty(), "no device of {kind}");
    there.iter().for_each(|device| set_mode(device, 0o666));
}

fn set_mode(device: &str, mode: u32) {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(device, permissions).expect("root may");
}

#[test]
fn without_privilege_memory_works_and_has_no_address() {
    if is_nobody() {
        return works_without_address();
    }
    let _alone = alone_in_the_lab();
    for kind in available(&[MemoryKind::Cma, MemoryKind::System, MemoryKind::Udmabuf]) {
        open_to_all(kind);
    }
    rerun_as_nobody("any::unprivileged::without_privilege_memory_works_and_has_no_address");
}

#[test]
fn unprivileged_users_are_told_what_is_missing() {
    if privileges::ran_as_child() {
        return;
    }
    let _alone = alone_in_the_lab();
    for kind in available(&[MemoryKind::Cma, MemoryKind::Udmabuf]) {
        open_to_all(kind);
    }
    privileges::pagemap_takes_an_ambient_capability();
    privileges::cma_takes_a_tracepoint_or_pagemap();
}

fn works_without_address() {
    gst::init().expect("GStreamer starts");
    for request in every_source(64 << 10) {
        let region = allocate(&request);
        conformance::fill(&region, 1);
        println!("{region:?}, {}", region.pin_note());
        let reason = region.address().expect_err("no privilege, no address");
        let is_expected = match region.kind() {
            MemoryKind::System => *reason == AddressUnknown::PfnMap,
            MemoryKind::Cma if support::kernel_version() != (6, 1) => {
                matches!(reason, AddressUnknown::TraceUnavailable(_))
            }
            _ => matches!(reason, AddressUnknown::NoPermission(_)),
        };
        assert!(is_expected, "{reason:?}");
        // An unprivileged user may not pin a huge page of 32 MiB.
        let note = region.pin_note();
        let is_too_much = region.size_bytes() > 8 << 20 && note.contains("RLIMIT_MEMLOCK");
        assert!(region.is_pinned() || is_too_much, "{note}");
    }
    let limit = nix::sys::resource::Resource::RLIMIT_MEMLOCK;
    nix::sys::resource::setrlimit(limit, 64 << 10, 64 << 10).unwrap();
    let region = allocate(&request(MemoryKind::Normal, 1 << 20));
    assert!(!region.is_pinned());
    assert!(
        region.pin_note().contains("RLIMIT_MEMLOCK"),
        "{}",
        region.pin_note()
    );
    conformance::fill(&region, 2);
}

#[test]
fn heap_without_permission_says_who_may() {
    if is_nobody() {
        let error = Region::allocate(&request(MemoryKind::Cma, 4096)).unwrap_err();
        let heap = support::cma_heap();
        assert_eq!(
            error.to_string(),
            format!(
                "/dev/dma_heap/{heap}: Permission denied (EACCES): only user 0 may open it \
                 (mode 0600): give it to a group by a udev rule (KERNEL==\"{heap}\", \
                 GROUP=\"video\", MODE=\"0660\")"
            )
        );
        return;
    }
    let _alone = alone_in_the_lab();
    if cannot_run_without(MemoryKind::Cma) {
        return;
    }
    set_mode(&format!("/dev/dma_heap/{}", support::cma_heap()), 0o600);
    rerun_as_nobody("any::unprivileged::heap_without_permission_says_who_may");
}
