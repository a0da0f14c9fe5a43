// SPDX-License-Identifier: MPL-2.0
//! What the guest tests share: the oracle outside of the machine, the CRC of vkms, gst-launch, the
//! clock. No test lives here.
//!
//! A guest test begins with [`require_lab`]. A device that is missing in the lab is a failure; only
//! [`skip`] ends a test without one, and prints a line about it.
#![allow(dead_code, unused_imports)] // every test binary uses its own part of it

pub mod fault_injection;
pub mod kernel_log;
pub mod leaks;
mod oracle;
mod picture;
pub mod player;
mod vkms_crc;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use oracle::oracle;
pub use picture::{Picture, PixelCrc};
pub use vkms_crc::VkmsCrc;

/// Fails the test unless it runs in a guest of the device lab, because these tests change a
/// machine's memory and screen.
#[track_caller]
pub fn require_lab() {
    assert_eq!(
        std::env::var("PHYSMEM_LAB").as_deref(),
        Ok("1"),
        "this test needs the device lab: tests/lab/run --display cirrus -- {}",
        std::env::args().next().unwrap_or_default(),
    );
}

/// The name of the display that `tests/lab/run --display` chose.
pub fn display() -> String {
    lab_variable("PHYSMEM_LAB_DISPLAY")
}

pub fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel's release");
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    let (Some(major), Some(minor)) = version else {
        panic!("no version: {release}")
    };
    (major, minor)
}

/// Whether Debian built the running kernel. Such kernels lack some options that the lab sets.
pub fn is_stock_kernel() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel's release");
    release.contains("+deb")
}

/// Whether this is Debian's kernel and has none of these files. On a kernel of the lab the test
/// goes on and fails where a file is missing.
pub fn stock_kernel_lacks(files: &[&str]) -> bool {
    is_stock_kernel() && !files.iter().any(|file| Path::new(file).exists())
}

/// The same for a test that needs one of these files. If the answer is yes, the test is reported as
/// skipped and must return.
#[must_use]
pub fn cannot_run_without(files: &[&str]) -> bool {
    let lacks = stock_kernel_lacks(files);
    if lacks {
        skip(&format!("Debian builds this kernel without {}", files[0]));
    }
    lacks
}

/// Starts GStreamer. What the tests of this program then leave of it is an error at its end.
pub fn init_gstreamer() {
    static INIT: std::sync::Once = std::sync::Once::new();
    INIT.call_once(|| {
        gst::init().expect("GStreamer starts");
        leaks::forbid();
    });
}

/// The heap of the default CMA area: its names in different kernel versions.
pub const CMA_HEAPS: &[&str] = &["/dev/dma_heap/default_cma_region", "/dev/dma_heap/reserved"];

/// The one of these names that exists here.
#[track_caller]
pub fn cma_heap() -> &'static str {
    let heap = CMA_HEAPS.iter().find(|heap| Path::new(heap).exists());
    let heap = heap.expect("a CMA heap");
    heap.trim_start_matches("/dev/dma_heap/")
}

/// The directory that the guest shares with the host.
pub fn share() -> PathBuf {
    lab_variable("PHYSMEM_LAB_SHARE").into()
}

fn lab_variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: not started by tests/lab/run"))
}

/// Reports that the calling test cannot run, and why; the caller then returns. The line bypasses
/// libtest's capture, because `tests/run` counts it.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    writeln!(io::stderr(), "SKIPPED {name}: {reason}").expect("stderr takes a line");
}

pub fn page_size() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let size = size.expect("sysconf").expect("every kernel has one");
    usize::try_from(size).expect("it is positive")
}

/// The physical address of `bytes[0]`, from pagemap. It is valid until the kernel moves the page.
#[track_caller]
pub fn pagemap_address(bytes: &[u8]) -> u64 {
    const PRESENT: u64 = 1 << 63;
    const PFN: u64 = (1 << 55) - 1;
    let (address, page) = (bytes.as_ptr() as u64, page_size() as u64);
    let mut entry = [0; 8];
    let pagemap = File::open("/proc/self/pagemap").expect("pagemap opens");
    std::os::unix::fs::FileExt::read_exact_at(&pagemap, &mut entry, address / page * 8)
        .expect("pagemap has an entry for every page");
    let entry = u64::from_ne_bytes(entry);
    assert!(
        entry & PRESENT != 0,
        "the page at {address:#x} is not present"
    );
    assert!(
        entry & PFN != 0,
        "the kernel hides the PFN: not CAP_SYS_ADMIN"
    );
    (entry & PFN) * page + address % page
}

#[derive(Debug)]
pub struct Ran {
    pub status: std::process::ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(
            self.status.success(),
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A gst-launch-1.0 command; checks that GST_PLUGIN_PATH is set. The pipeline must end by itself.
#[track_caller]
pub fn gst_launch(pipeline: &str) -> Command {
    lab_variable("GST_PLUGIN_PATH");
    let mut command = Command::new("gst-launch-1.0");
    command
        .args(pipeline.split_whitespace())
        .stdin(Stdio::null());
    command
}

#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", command.get_program().display()));
    Ran {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The same command as user nobody, without privilege and supplementary groups.
pub fn as_nobody(command: &Command) -> Command {
    let mut unprivileged = Command::new("setpriv");
    unprivileged
        .args([
            "--reuid",
            "nobody",
            "--regid",
            "nogroup",
            "--clear-groups",
            "--",
        ])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => unprivileged.env(name, value),
            None => unprivileged.env_remove(name),
        };
    }
    unprivileged
}

pub fn open_fds() -> usize {
    let own = File::open("/proc/self/fd").expect("/proc is mounted");
    let listing = format!("/proc/self/fd/{}", own.as_raw_fd());
    // `own` and the listing's own descriptor are not counted.
    fs::read_dir(listing).expect("a directory").count() - 2
}

/// CLOCK_MONOTONIC of the guest, which also times its vertical blanks.
pub fn guest_clock() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.expect("CLOCK_MONOTONIC exists").into()
}

/// A program of examples/, which `cargo build --examples` has built (tests/suite runs it).
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    let example = built("examples").join(name);
    assert!(
        example.exists(),
        "{}: cargo build --examples",
        example.display()
    );
    example
}

/// A program of tools/, which `cargo build --bins` has built (tests/suite runs it).
#[track_caller]
pub fn tool(name: &str) -> PathBuf {
    let tool = built(name);
    let how = "cargo build --bins";
    assert!(tool.exists(), "{}: {how}", tool.display());
    tool
}

/// A path below cargo's directory for this program's profile, target/debug.
fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("/proc/self/exe");
    let profile = own.parent().and_then(Path::parent);
    profile.expect("target/debug").join(name)
}

/// A handle over memory with these bytes; the memory is freed with the handle.
pub fn handle_over(bytes: Vec<u8>) -> gstphysmem::handle::BufferHandle {
    let block: &'static mut [u8] = Box::leak(bytes.into());
    let len = block.len();
    // SAFETY: leaked, and made a Box again by the deleter alone, once nothing is mapped.
    unsafe {
        gstphysmem::handle::BufferHandle::new(
            std::ptr::NonNull::from(block).cast(),
            len,
            |ptr, len| {
                drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(
                    ptr.as_ptr(),
                    len,
                )));
            },
        )
    }
}

/// The name of the virtual terminal in the foreground, such as tty1.
pub fn foreground_vt() -> String {
    let name = fs::read_to_string("/sys/class/tty/tty0/active").unwrap();
    name.trim().to_owned()
}

/// Brings a virtual terminal to the foreground and waits until it is there.
#[track_caller]
pub fn switch_vt(name: &str) {
    const VT_ACTIVATE: libc::c_ulong = 0x5606;
    let console = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty0")
        .unwrap();
    let number: libc::c_int = name.trim_start_matches("tty").parse().unwrap();
    // SAFETY: VT_ACTIVATE takes the number by value.
    let result = unsafe { libc::ioctl(console.as_raw_fd(), VT_ACTIVATE, number) };
    assert_eq!(result, 0);
    let deadline = Instant::now() + Duration::from_secs(10);
    while foreground_vt() != name {
        assert!(Instant::now() < deadline, "no switch to {name}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
