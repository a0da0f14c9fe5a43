// SPDX-License-Identifier: MPL-2.0
//! What the guest tests share: the oracle outside of the machine, vkms's CRC,
//! gst-launch, the clock. No test lives here.
//!
//! A guest test starts with [`require_lab`]. Inside the lab a device that is
//! missing is a failure; only [`skip`] says otherwise, out loud.
#![allow(dead_code)] // every test binary uses its own part of it

pub mod player;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Fails the test outright unless it runs in a guest of the device lab: what
/// these tests do to a machine's memory and screen is for no other.
#[track_caller]
pub fn require_lab() {
    assert_eq!(
        std::env::var("PHYSMEM_LAB").as_deref(),
        Ok("1"),
        "this test needs the device lab: tests/lab/run --display cirrus -- {}",
        std::env::args().next().unwrap_or_default(),
    );
}

/// The display that `tests/lab/run --display` plugged in.
pub fn display() -> String {
    lab_variable("PHYSMEM_LAB_DISPLAY")
}

/// Major and minor number of the running kernel's version.
pub fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel's release");
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    let (Some(major), Some(minor)) = version else {
        panic!("no version: {release}")
    };
    (major, minor)
}

/// Whether the kernel is one that Debian has built, which lacks some of what the lab builds
/// into its own.
pub fn is_stock_kernel() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel's release");
    release.contains("+deb")
}

/// Whether Debian's kernel has none of these files. In a kernel of the lab's own that is the
/// failure that the test meets.
pub fn stock_kernel_lacks(files: &[&str]) -> bool {
    is_stock_kernel() && !files.iter().any(|file| Path::new(file).exists())
}

/// The same for a test that needs one of them: it has said so, and is to return.
#[must_use]
pub fn cannot_run_without(files: &[&str]) -> bool {
    let lacks = stock_kernel_lacks(files);
    if lacks {
        skip(&format!("Debian builds this kernel without {}", files[0]));
    }
    lacks
}

/// The heap of the default CMA area, by the names that kernels have for it.
pub const CMA_HEAPS: &[&str] = &["/dev/dma_heap/default_cma_region", "/dev/dma_heap/reserved"];

/// That one of them which is there.
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

/// Says that a test cannot run and why; the caller returns. `tests/run` counts
/// the line, so it goes around libtest's capture.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    writeln!(io::stderr(), "SKIPPED {name}: {reason}").expect("stderr takes a line");
}

/// This machine as seen from outside: QEMU reads its memory and its screen.
pub struct Oracle {
    port: Mutex<File>,
}

/// The one oracle of this process; the port takes a single opener.
pub fn oracle() -> &'static Oracle {
    static ORACLE: OnceLock<Oracle> = OnceLock::new();
    ORACLE.get_or_init(|| {
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/virtio-ports/oracle")
            .expect("the oracle's port opens (it takes one opener at a time)");
        Oracle {
            port: Mutex::new(port),
        }
    })
}

/// Answers of up to this many bytes come over the port, longer ones by file.
const MAX_HEX_BYTES: usize = 16 << 10;

impl Oracle {
    /// One request, one line of answer; "error ..." as Err.
    pub fn ask(&self, request: &str) -> Result<String, String> {
        let mut port = self.port.lock().unwrap_or_else(|e| e.into_inner());
        port.write_all(format!("{request}\n").as_bytes())
            .map_err(|e| format!("writing to the oracle: {e}"))?;
        let mut answer = Vec::new();
        let mut chunk = vec![0; 1 << 16];
        while answer.last() != Some(&b'\n') {
            match port.read(&mut chunk) {
                Ok(0) => return Err("the oracle is gone".into()),
                Ok(n) => answer.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("reading from the oracle: {e}")),
            }
        }
        let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
        match answer.strip_prefix("error ") {
            Some(error) => Err(format!("oracle, {request}: {error}")),
            None => Ok(answer),
        }
    }

    #[track_caller]
    fn must(&self, request: &str) -> String {
        self.ask(request).unwrap_or_else(|e| panic!("{e}"))
    }

    /// `len` bytes of physical memory at `address`.
    #[track_caller]
    pub fn phys(&self, address: u64, len: usize) -> Vec<u8> {
        if len <= MAX_HEX_BYTES {
            return unhex(&self.must(&format!("phys {address:#x} {len}")));
        }
        let (name, path) = scratch_file("phys");
        self.must(&format!("physfile {address:#x} {len} {name}"));
        take_file(&path)
    }

    /// What the screen shows.
    #[track_caller]
    pub fn shot(&self) -> Picture {
        let (name, path) = scratch_file("shot");
        self.must(&format!("shot {name}"));
        Picture::from_ppm(&take_file(&path)).expect("QEMU writes a PPM")
    }

    /// One pixel of the screen, as R, G, B.
    #[track_caller]
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let answer = self.must(&format!("pixel {x} {y}"));
        unhex(answer.split(' ').next().unwrap_or_default())
            .try_into()
            .expect("three bytes")
    }

    /// A command of QEMU's human monitor; its answer is a JSON string.
    #[track_caller]
    pub fn hmp(&self, command: &str) -> String {
        self.must(&format!("hmp {command}"))
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("the oracle answers in hex"))
        .collect()
}

/// A name for the oracle to write to, unused by other threads and processes.
fn scratch_file(kind: &str) -> (String, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{kind}-{}-{n}", std::process::id());
    let path = share().join(&name);
    (name, path)
}

#[track_caller]
fn take_file(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    fs::remove_file(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes
}

/// A picture: packed rows of R, G, B bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

/// Only the size: a failed assertion must not print a million numbers.
impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

impl Picture {
    pub fn solid(width: usize, height: usize, rgb: [u8; 3]) -> Self {
        Self::from_fn(width, height, |_, _| rgb)
    }

    pub fn from_fn(width: usize, height: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Self {
        // Plain loops: iterator chains cost seconds in an unoptimised test
        // under TCG.
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                rgb.extend_from_slice(&pixel(x, y));
            }
        }
        Self { width, height, rgb }
    }

    /// A binary PPM with eight bits a channel and no comments.
    pub fn from_ppm(ppm: &[u8]) -> Option<Self> {
        let mut rest = ppm;
        let mut word = || {
            let end = rest.iter().position(u8::is_ascii_whitespace)?;
            let (word, more) = rest.split_at(end);
            rest = &more[1..];
            std::str::from_utf8(word).ok()
        };
        let (magic, width, height, max) = (word()?, word()?, word()?, word()?);
        let (width, height) = (width.parse().ok()?, height.parse().ok()?);
        let complete = magic == "P6" && max == "255" && rest.len() == width * height * 3;
        complete.then(|| Self {
            width,
            height,
            rgb: rest.to_vec(),
        })
    }

    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        Self::from_fn(width, height, |dx, dy| self.pixel(x + dx, y + dy))
    }

    /// Fails with the first pixel that differs, its place and both values.
    #[track_caller]
    pub fn assert_same_as(&self, expected: &Picture) {
        assert_eq!(
            (self.width, self.height),
            (expected.width, expected.height),
            "the pictures' sizes"
        );
        let different = |i: &usize| self.rgb[i * 3..i * 3 + 3] != expected.rgb[i * 3..i * 3 + 3];
        let mut wrong = (0..self.width * self.height).filter(different);
        if let Some(first) = wrong.next() {
            let (x, y) = (first % self.width, first / self.width);
            panic!(
                "{} of {} pixels differ, first ({x},{y}): {:02x?}, expected {:02x?}",
                1 + wrong.count(),
                self.width * self.height,
                self.pixel(x, y),
                expected.pixel(x, y),
            );
        }
    }

    /// The CRC that vkms reports while it shows this picture alone.
    pub fn vkms_crc(&self) -> u32 {
        let mut crc = PixelCrc::new();
        let mut words = vec![0xff; self.width * 8];
        let mut last = None;
        for row in self.rgb.chunks_exact(self.width * 3) {
            // Most rows of test pictures are those before again.
            if last != Some(row) {
                last = Some(row);
                for (word, pixel) in words.chunks_exact_mut(8).zip(row.chunks_exact(3)) {
                    word[2..4].fill(pixel[0]);
                    word[4..6].fill(pixel[1]);
                    word[6..8].fill(pixel[2]);
                }
            }
            crc.add(&words);
        }
        crc.finish()
    }
}

/// The CRC of pixels as vkms hashes them: four little-endian 16-bit words for each, alpha
/// (ffff), red, green, blue (eight bits times 257). It does so by the kernel's
/// crc32_le(0, ...), which unlike the usual CRC-32 inverts nothing; an initial value of !0
/// undoes what the crate does first.
pub struct PixelCrc(crc32fast::Hasher);

impl PixelCrc {
    pub fn new() -> Self {
        Self(crc32fast::Hasher::new_with_initial(!0))
    }

    pub fn add(&mut self, words: &[u8]) {
        self.0.update(words);
    }

    pub fn finish(self) -> u32 {
        !self.0.finalize()
    }
}

/// One line of vkms's CRC stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCrc {
    /// The vblank's number; absent when vkms has lost count.
    pub frame: Option<u32>,
    pub crc: u32,
}

/// The stream of CRCs of what vkms scans out, one for each vblank. It runs
/// only while a mode is set.
pub struct VkmsCrc {
    data: File,
}

impl VkmsCrc {
    #[track_caller]
    pub fn open() -> Self {
        Self::of_crtc(0)
    }

    /// That of the CRTC with this index.
    #[track_caller]
    pub fn of_crtc(index: usize) -> Self {
        let crc = vkms_debugfs().join(format!("crtc-{index}/crc"));
        fs::write(crc.join("control"), "auto").expect("vkms takes the CRC source 'auto'");
        let data = File::open(crc.join("data")).expect("the CRC stream opens");
        Self { data }
    }

    /// The next CRC; None if none came within half a second.
    pub fn next(&mut self) -> Option<FrameCrc> {
        let mut ready = [PollFd::new(self.data.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(500u16)).expect("poll") == 0 {
            return None;
        }
        let mut line = [0; 256];
        let n = self
            .data
            .read(&mut line)
            .expect("the CRC stream is readable");
        let line = std::str::from_utf8(&line[..n]).expect("a line of text");
        let mut words = line.split_whitespace();
        let frame = words.next().and_then(parse_hex);
        let crc = words.next().and_then(parse_hex);
        let crc = crc.unwrap_or_else(|| panic!("no CRC in {line:?}"));
        Some(FrameCrc { frame, crc })
    }

    /// The CRC of what is on screen now: the first ones after opening, and
    /// those that had queued up, may be of an earlier frame.
    #[track_caller]
    pub fn current() -> u32 {
        let mut stream = Self::open();
        // Half a second may be too short for one picture on a busy host.
        let mut next = || {
            let crc = (0..20).find_map(|_| stream.next());
            crc.expect("vkms scans out, so CRCs come")
        };
        next();
        next();
        next().crc
    }
}

fn parse_hex(word: &str) -> Option<u32> {
    u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

#[track_caller]
fn vkms_debugfs() -> PathBuf {
    fs::read_dir("/sys/kernel/debug/dri")
        .expect("debugfs is mounted")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|dir| fs::read_to_string(dir.join("name")).is_ok_and(|name| name.starts_with("vkms")))
        .expect("a vkms device (tests/lab/run --display vkms)")
}

/// PAGE_SIZE of the guest's kernel.
pub fn page_size() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let size = size.expect("sysconf").expect("every kernel has one");
    usize::try_from(size).expect("it is positive")
}

/// The physical address of the page that holds `bytes[0]`, by pagemap. It
/// holds as long as the kernel doesn't move the page.
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

/// What a program printed and how it ended.
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

/// A gst-launch-1.0 command, plugin path checked; add to it as you like.
/// It is the caller's business to give the pipeline an end.
#[track_caller]
pub fn gst_launch(pipeline: &str) -> Command {
    lab_variable("GST_PLUGIN_PATH");
    let mut command = Command::new("gst-launch-1.0");
    command
        .args(pipeline.split_whitespace())
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end.
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

/// The same command as nobody: no privilege, no groups.
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

/// How many file descriptors this process has open.
pub fn open_fds() -> usize {
    let own = File::open("/proc/self/fd").expect("/proc is mounted");
    let listing = format!("/proc/self/fd/{}", own.as_raw_fd());
    // `own` and the listing's own descriptor are not counted.
    fs::read_dir(listing).expect("a directory").count() - 2
}

/// The guest's monotonic clock, which its vblanks keep too.
pub fn guest_clock() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.expect("CLOCK_MONOTONIC exists").into()
}

/// A program of examples/, built by `cargo build --examples` (tests/suite does).
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("/proc/self/exe");
    let profile = own.parent().and_then(Path::parent);
    let path = profile.expect("target/debug").join("examples").join(name);
    assert!(path.exists(), "{}: cargo build --examples", path.display());
    path
}

/// Memory of the test's own that holds these bytes and ends with the handle.
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

/// The virtual terminal in the foreground, such as tty1.
pub fn foreground_vt() -> String {
    let name = fs::read_to_string("/sys/class/tty/tty0/active").unwrap();
    name.trim().to_owned()
}

/// Brings a virtual terminal to the foreground.
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
