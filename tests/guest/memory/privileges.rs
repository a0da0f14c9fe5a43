// SPDX-License-Identifier: MPL-2.0
//! Addresses for a user who is not root: the reason that the library gives in each situation, and
//! the address where the user has exactly the necessary rights. The host confirms the address.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use gstphysmem::memory::{MemoryKind, Request};

use super::{allocate, available, conformance, request};
use crate::support::{self, oracle};

const SIZE: usize = 256 << 10;
const KIND: &str = "PHYSMEM_TEST_KIND";
const DUMPABLE: &str = "PHYSMEM_TEST_DUMPABLE";
const SEED: u64 = 41;
const TRACEFS: &str = "/sys/kernel/tracing";

/// The rights of the child process.
#[derive(Clone, Copy)]
struct Rights {
    /// Capabilities by setpriv's names, separated by commas. They become ambient capabilities.
    ambient: &'static str,
    is_dumpable: bool,
}

const NONE: Rights = Rights {
    ambient: "",
    is_dumpable: true,
};

fn ambient(ambient: &'static str) -> Rights {
    Rights {
        ambient,
        is_dumpable: true,
    }
}

/// The part of the test that runs as user nobody. It prints the address of its memory, or the
/// reason for having none, and keeps the memory until its standard input ends.
pub fn ran_as_child() -> bool {
    let Some(kind) = std::env::var_os(KIND) else {
        return false;
    };
    if std::env::var_os(DUMPABLE).is_some_and(|is| is == "0") {
        // The kernel does this to a program whose file has capabilities.
        // SAFETY: PR_SET_DUMPABLE takes one number and touches no memory.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }, 0);
    }
    gst::init().expect("GStreamer starts");
    let kinds = [
        MemoryKind::Cma,
        MemoryKind::Udmabuf,
        MemoryKind::Hugepage,
        MemoryKind::Normal,
    ];
    let kind = kinds
        .into_iter()
        .find(|k| kind == k.nick())
        .expect("a kind");
    let region = allocate(&Request {
        heap: (kind == MemoryKind::Udmabuf).then_some("shmem"),
        ..request(kind, SIZE)
    });
    conformance::fill(&region, SEED);
    match region.address() {
        Ok(address) => {
            let extents = address.extents().iter();
            let extents: Vec<_> = extents
                .map(|extent| format!("{}+{}", extent.phys.0, extent.len_bytes))
                .collect();
            println!("\nADDRESS {} {}", address.source(), extents.join(","));
        }
        Err(reason) => println!("\nABSENT {reason}"),
    }
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read(&mut [0]);
    true
}

/// What the child prints for memory of this kind with these rights: "ADDRESS ...", which the host
/// has confirmed, or "ABSENT ...".
fn address_or_reason(kind: MemoryKind, rights: Rights) -> String {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
    if !rights.ambient.is_empty() {
        let each = rights.ambient.split(',').map(|cap| format!("+{cap}"));
        let caps = each.collect::<Vec<_>>().join(",");
        setpriv.args(["--inh-caps", &caps, "--ambient-caps", &caps]);
    }
    let mut child = setpriv
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "any::unprivileged::unprivileged_users_are_told_what_is_missing",
        ])
        .arg("--nocapture")
        .env(KIND, kind.nick())
        .env(DUMPABLE, if rights.is_dumpable { "1" } else { "0" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("setpriv runs");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    let told = lines
        .find(|line| line.starts_with("ADDRESS ") || line.starts_with("ABSENT "))
        .unwrap_or_else(|| panic!("{kind} with {:?} says nothing", rights.ambient));
    println!("{kind}, ambient {:?}: {told:.300}", rights.ambient);
    if let Some(address) = told.strip_prefix("ADDRESS ") {
        confirm(address.split_once(' ').expect("a source and extents").1);
    }
    drop(child.stdin.take());
    lines.for_each(drop);
    assert!(child.wait().expect("it ends").success());
    told
}

/// Fails unless the host finds the child's bytes at these extents.
fn confirm(extents: &str) {
    let mut piece = 0;
    for extent in extents.split(',') {
        let (phys, len) = extent.split_once('+').unwrap();
        let (phys, len): (u64, usize) = (phys.parse().unwrap(), len.parse().unwrap());
        for offset in (0..len).step_by(conformance::PIECE) {
            if piece % 7 == 0 {
                let seen = oracle().phys(phys + offset as u64, conformance::PIECE);
                assert!(
                    seen == conformance::piece_bytes(SEED, piece),
                    "piece {piece} is not at {:#x}",
                    phys + offset as u64
                );
            }
            piece += 1;
        }
    }
    assert_eq!(piece, SIZE.div_ceil(conformance::PIECE), "{extents:.200}");
}

#[track_caller]
fn assert_reason(told: &str, all_of: &[&str], none_of: &[&str]) {
    assert!(told.starts_with("ABSENT "), "{told}");
    for words in all_of {
        assert!(told.contains(words), "not {words:?}: {told}");
    }
    for words in none_of {
        assert!(!told.contains(words), "{words:?}: {told}");
    }
}

fn remount_tracefs(options: &str) {
    let options = format!("remount,{options}");
    let mount = Command::new("mount")
        .args(["-o", &options, TRACEFS])
        .status();
    assert!(mount.expect("mount runs").success(), "{options}");
}

/// Kinds whose pages are listed in pagemap.
pub fn pagemap_takes_an_ambient_capability() {
    for kind in available(&[MemoryKind::Normal, MemoryKind::Udmabuf]) {
        let text = address_or_reason(kind, NONE);
        let missing = [
            "/proc/self/pagemap",
            "without CAP_SYS_ADMIN",
            "AmbientCapabilities",
        ];
        assert_reason(&text, &missing, &["setcap", "EACCES"]);
        assert!(address_or_reason(kind, ambient("sys_admin")).starts_with("ADDRESS pagemap "));
    }
    // A process that is not dumpable cannot open pagemap in spite of CAP_SYS_ADMIN.
    let text = address_or_reason(
        MemoryKind::Normal,
        Rights {
            is_dumpable: false,
            ..ambient("sys_admin")
        },
    );
    let missing = [
        "/proc/self/pagemap: Permission denied (EACCES)",
        "not dumpable",
        "setcap",
    ];
    assert_reason(&text, &missing, &["without CAP_SYS_ADMIN"]);
}

/// CMA memory, on a kernel that maps it with pages or without them.
pub fn cma_takes_a_tracepoint_or_pagemap() {
    if available(&[MemoryKind::Cma]).is_empty() {
        return;
    }
    let has_pages = support::kernel_version() == (6, 1);
    let closed = [
        "/sys/kernel/tracing (mode 0700",
        "Permission denied (EACCES)",
    ];
    assert_reason(
        &address_or_reason(MemoryKind::Cma, NONE),
        &closed,
        &["setcap"],
    );
    let admin = address_or_reason(MemoryKind::Cma, ambient("sys_admin"));
    match has_pages {
        true => assert!(admin.starts_with("ADDRESS pagemap "), "{admin}"),
        false => assert_reason(&admin, &closed, &["CAP_SYS_ADMIN", "CAP_PERFMON"]),
    }

    remount_tracefs("mode=0750,gid=65534");
    let missing = ["perf_event_open", "CAP_PERFMON", "perf_event_paranoid at 2"];
    assert_reason(
        &address_or_reason(MemoryKind::Cma, NONE),
        &missing,
        &["/sys/kernel/tracing"],
    );
    // CAP_PERFMON is the smallest right that is enough.
    let traced = address_or_reason(MemoryKind::Cma, ambient("perfmon"));
    assert!(traced.starts_with("ADDRESS cma-trace "), "{traced}");
    let paranoid = "/proc/sys/kernel/perf_event_paranoid";
    std::fs::write(paranoid, "-1").expect("root may");
    let traced = address_or_reason(MemoryKind::Cma, NONE);
    assert!(traced.starts_with("ADDRESS cma-trace "), "{traced}");
    std::fs::write(paranoid, "2").expect("root may");
    remount_tracefs("mode=0700,gid=0");
}
