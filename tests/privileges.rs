// SPDX-License-Identifier: MPL-2.0
//! Addresses for users who are not root: the reason for having none, and the rights that are
//! enough. Addresses are compared with the process's page tables as root reads them. (For heaps,
//! the tracepoint and the view of the host see tests/guest/memory/privileges.rs.)

mod common;

use std::ffi::CString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gstphysmem::memory::{MemoryKind, Region, Request};

const PAGES: usize = 5;
const CHILD: &str = "PHYSMEM_TEST_UNPRIVILEGED";
/// Makes the child dumpable again after its start.
const DUMPABLE: &str = "PHYSMEM_TEST_SETS_DUMPABLE";

/// Bits of linux/capability.h.
const CAP_DAC_READ_SEARCH: u32 = 1 << 2;
const CAP_SYS_ADMIN: u32 = 1 << 21;

/// The part that runs as user nobody. It prints the virtual and physical address of its pages, or
/// the reason for having no address, and keeps the pages until its standard input ends.
fn report_address() {
    if std::env::var_os(DUMPABLE).is_some() {
        // SAFETY: PR_SET_DUMPABLE takes one number and touches no memory.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }, 0);
    }
    gst::init().unwrap();
    let region = Region::allocate(&Request {
        kind: MemoryKind::Normal,
        size_bytes: PAGES * common::page_size(),
        ..Request::default()
    })
    .unwrap();
    match region.address() {
        Ok(address) => {
            let starts = (0..PAGES).map(|page| page * common::page_size());
            let pages = starts.map(|start| {
                let phys = address.at(start as u64).unwrap();
                format!("{}:{}", region.ptr() as usize + start, phys.0)
            });
            println!("\nADDRESS {}", pages.collect::<Vec<_>>().join(" "));
        }
        Err(reason) => println!("\nABSENT {reason}"),
    }
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// A copy of this program in a place where every user can read it.
fn copy_of_this_program(directory: &Path) -> PathBuf {
    let copy = directory.join("unprivileged");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    for path in [directory, &copy] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    copy
}

/// What the program prints when setpriv starts it as user nobody with these options. An address is
/// compared with root's.
fn address_or_reason(program: &Path, options: &[&str]) -> String {
    told_by(&mut Command::new("setpriv"), program, options)
}

fn told_by(setpriv: &mut Command, program: &Path, options: &[&str]) -> String {
    let mut child = setpriv
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(options)
        // A shell starts the program, because setpriv itself still has root's capabilities, and
        // then file capabilities add nothing.
        .args(["--", "sh", "-c", "exec \"$0\" \"$@\""])
        .arg(program)
        .args([
            "--exact",
            "who_is_not_root_is_told_what_is_missing",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .env("GST_REGISTRY_DISABLE", "yes")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("setpriv is there");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    let told = lines
        .find(|line| line.starts_with("ADDRESS ") || line.starts_with("ABSENT "))
        .unwrap_or_else(|| panic!("nothing is said with {options:?}"));
    if let Some(pages) = told.strip_prefix("ADDRESS ") {
        let pagemap = std::fs::File::open(format!("/proc/{}/pagemap", child.id())).unwrap();
        let page = common::page_size() as u64;
        for told in pages.split(' ') {
            let (virt, phys) = told.split_once(':').unwrap();
            let (virt, phys): (u64, u64) = (virt.parse().unwrap(), phys.parse().unwrap());
            let mut entry = [0; 8];
            pagemap.read_exact_at(&mut entry, virt / page * 8).unwrap();
            let frame = u64::from_ne_bytes(entry) & ((1 << 55) - 1);
            assert!(frame != 0);
            assert_eq!(phys, frame * page);
        }
    }
    drop(child.stdin.take());
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
    told
}

/// Does what `setcap ...+ep` does.
fn give_file_capabilities(program: &Path, capabilities: u32) -> std::io::Result<()> {
    // struct vfs_cap_data: revision 2 with the effective flag; permitted and inheritable, low and
    // high.
    let words = [0x0200_0001u32, capabilities, 0, 0, 0];
    let data: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    let path = CString::new(program.as_os_str().as_bytes()).unwrap();
    // SAFETY: two C strings, and `data` with its length.
    let rc = unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            data.as_ptr().cast(),
            data.len(),
            0,
        )
    };
    match rc {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
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

#[test]
fn who_is_not_root_is_told_what_is_missing() {
    if std::env::var_os(CHILD).is_some() {
        return report_address();
    }
    gst::init().unwrap();
    let ours = Region::allocate(&Request {
        kind: MemoryKind::Normal,
        size_bytes: 1,
        ..Request::default()
    });
    if ours.unwrap().address().is_err() {
        println!("SKIPPED: only who has CAP_SYS_ADMIN can give it");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = copy_of_this_program(directory.path());

    let missing = [
        "/proc/self/pagemap",
        "without CAP_SYS_ADMIN",
        "AmbientCapabilities=CAP_SYS_ADMIN",
    ];
    assert_reason(
        &address_or_reason(&program, &[]),
        &missing,
        &["EACCES", "setcap"],
    );
    let ambient = ["--inh-caps", "+sys_admin", "--ambient-caps", "+sys_admin"];
    let address = address_or_reason(&program, &ambient);
    assert!(address.starts_with("ADDRESS "), "{address}");

    // A file capability does not help by itself, although it is often recommended.
    if let Err(error) = give_file_capabilities(&program, CAP_SYS_ADMIN) {
        println!("SKIPPED: no file capabilities here: {error}");
        return;
    }
    let missing = [
        "/proc/self/pagemap: Permission denied (EACCES)",
        "not dumpable",
    ];
    assert_reason(
        &address_or_reason(&program, &[]),
        &missing,
        &["without CAP_SYS_ADMIN"],
    );
    // What docs/memory.md says of it: the program may undo it, and a second capability opens the file.
    let mut dumpable = Command::new("setpriv");
    let address = told_by(dumpable.env(DUMPABLE, "1"), &program, &[]);
    assert!(address.starts_with("ADDRESS "), "{address}");
    give_file_capabilities(&program, CAP_SYS_ADMIN | CAP_DAC_READ_SEARCH).unwrap();
    let address = address_or_reason(&program, &[]);
    assert!(address.starts_with("ADDRESS "), "{address}");
}
