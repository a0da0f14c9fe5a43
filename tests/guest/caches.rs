// SPDX-License-Identifier: MPL-2.0
//! A program that touches a dma-buf with the CPU must tell the kernel before and after, and say
//! whether it reads or writes. Otherwise a device that does not snoop the CPU's caches sees a wrong
//! frame. These machines have no such device, so tests/c/cpu_access.c is the judge: it takes the
//! mapping away outside of announced accesses, and logs what the kernel was told. Modules are named
//! for the display they need.

mod support;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::{gst_launch, require_lab, run};

/// The kinds of memory that have a dma-buf.
const KINDS: [&str; 3] = ["cma", "system", "udmabuf"];
/// A format with two colour planes.
const CAPS: &str = "video/x-raw,format=NV12,width=64,height=48,framerate=25/1";
const FRAME_BYTES: usize = 64 * 48 * 3 / 2;
const FRAMES: usize = 6;

/// Compiles tests/c/cpu_access.c once.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    require_lab();
    SHIM.get_or_init(|| {
        let shim = tempfile::tempdir().unwrap().keep().join("cpu_access.so");
        run(Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/c/cpu_access.c"))
            .arg("-o")
            .arg(&shim))
        .expect_success();
        shim
    })
}

/// The log of the shim: for each dma-buf, what the kernel was told, in order.
#[derive(Debug, Default)]
struct SyncLog(BTreeMap<u64, Vec<String>>);

impl SyncLog {
    fn read(log: &Path) -> Self {
        let mut told = Self::default();
        for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let dma_buf = words[1].parse().expect("an inode");
            let events = told.0.entry(dma_buf).or_default();
            events.push([&words[..1], &words[2..]].concat().join(" "));
        }
        told
    }

    /// The directions of the accesses to each dma-buf. Checks that each access is begun and ended
    /// in the same way before the next one begins.
    #[track_caller]
    fn accesses(&self) -> Vec<Vec<&str>> {
        let mut all = Vec::new();
        for (dma_buf, events) in &self.0 {
            let mut accesses = Vec::new();
            for pair in events.chunks(2) {
                let direction = pair[0].strip_prefix("start ");
                let direction = direction.unwrap_or_else(|| panic!("{dma_buf}: {self:?}"));
                let end = format!("end {direction}");
                assert_eq!(pair.get(1), Some(&end), "{dma_buf}: {self:?}");
                accesses.push(direction);
            }
            all.push(accesses);
        }
        all
    }

    /// The number of accesses for reading alone and for writing alone; others are a failure. The
    /// first access to a block of kind cma, which faults its pages in, is not counted.
    #[track_caller]
    fn reads_and_writes(&self, kind: &str) -> (usize, usize) {
        let (mut reads, mut writes) = (0, 0);
        for accesses in self.accesses() {
            let at_birth = usize::from(kind == "cma");
            assert!(accesses[..at_birth].iter().all(|a| *a == "r"), "{self:?}");
            for access in &accesses[at_birth..] {
                match *access {
                    "r" => reads += 1,
                    "w" => writes += 1,
                    _ => panic!("{self:?}"),
                }
            }
        }
        (reads, writes)
    }
}

/// Plays a pipeline under the shim. A CPU access that was not announced would end it.
#[track_caller]
fn play(shim: &Path, pipeline: &str) -> SyncLog {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    // The fault handler of gst-launch would wait for a debugger.
    let mut command = gst_launch(&format!("-q --no-fault {pipeline}"));
    command.env("LD_PRELOAD", shim).env("CPU_ACCESS_LOG", &log);
    let ran = run(&mut command);
    let told = SyncLog::read(&log);
    assert!(ran.status.success(), "{pipeline}: {ran:?}\n{told:?}");
    told
}

/// An input file of frames in which neighbouring bytes differ, and a path for the output.
struct Files {
    directory: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..FRAMES * FRAME_BYTES)
            .map(|i| (i * 131 % 253) as u8)
            .collect();
        std::fs::write(directory.path().join("from"), &bytes).unwrap();
        Self { directory, bytes }
    }

    fn from(&self) -> String {
        self.directory.path().join("from").display().to_string()
    }

    fn to(&self) -> String {
        self.directory.path().join("to").display().to_string()
    }

    #[track_caller]
    fn assert_copied(&self, what: &str) {
        let written = std::fs::read(self.to()).unwrap();
        assert!(written == self.bytes, "{what}");
        std::fs::remove_file(self.to()).unwrap();
    }
}

mod any {
    use super::*;
    use gst::prelude::*;
    use gstphysmem::memory::{MemoryKind, Region};
    use gstphysmem::meta::PhysMemMeta;
    use gstphysmem::pool::{PhysBufferPool, Wait};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_pattern_is_drawn_in_one_access_for_writing() {
        let shim = shim();
        for kind in KINDS {
            let told = play(
                shim,
                &format!(
                    "rawvideosrc num-buffers={FRAMES} ! {CAPS} ! physmemupload kind={kind} ! fakesink"
                ),
            );
            assert_eq!(told.reads_and_writes(kind), (0, FRAMES), "{kind}");
        }
    }

    #[test]
    fn a_file_is_read_in_one_access_for_writing_whoever_reads_it() {
        let shim = shim();
        let files = Files::new();
        let (from, to) = (files.from(), files.to());
        for mode in [
            "read",
            "read direct=true",
            "read threads=3",
            "io-uring prefetch=3",
            "io-uring prefetch=3 direct=true",
            "mmap",
            "mmap threads=2",
        ] {
            for kind in KINDS {
                let what = format!("io-mode={mode}, kind={kind}");
                let told = play(
                    shim,
                    &format!(
                        "rawvideosrc location={from} format=nv12 width=64 height=48 framerate=25/1 io-mode={mode} ! physmemupload kind={kind} ! filesink location={to}"
                    ),
                );
                // filesink reads the frames.
                assert_eq!(told.reads_and_writes(kind), (FRAMES, FRAMES), "{what}");
                files.assert_copied(&what);
            }
        }
    }

    #[test]
    fn what_is_copied_is_written_in_one_access() {
        let shim = shim();
        let files = Files::new();
        let (from, to) = (files.from(), files.to());
        for kind in KINDS {
            let told = play(
                shim,
                &format!(
                    "filesrc blocksize={FRAME_BYTES} location={from} ! physmemupload kind={kind} ! filesink location={to}"
                ),
            );
            assert_eq!(
                told.reads_and_writes(kind),
                (FRAMES, FRAMES),
                "bytes, {kind}"
            );
            files.assert_copied(kind);
            // A tee proposes nothing upstream, so the frames are in memory of the source.
            let told = play(
                shim,
                &format!(
                    "videotestsrc num-buffers={FRAMES} ! {CAPS} ! tee ! physmemupload kind={kind} ! fakesink"
                ),
            );
            assert_eq!(told.reads_and_writes(kind), (0, FRAMES), "frames, {kind}");
        }
    }

    #[test]
    fn memory_without_a_dma_buf_has_nothing_to_tell() {
        let shim = shim();
        let told = play(
            shim,
            &format!(
                "rawvideosrc num-buffers={FRAMES} ! {CAPS} ! physmemupload kind=normal ! filesink location=/dev/null"
            ),
        );
        assert!(told.0.is_empty(), "{told:?}");
    }

    const LOG: &str = "CPU_ACCESS_LOG";

    /// Runs this test again in a process of its own, under the shim.
    fn rerun_under(shim: &Path, log: &Path, name: &str) -> support::Ran {
        run(Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("any::{name}"), "--nocapture"])
            .env("LD_PRELOAD", shim)
            .env(LOG, log))
    }

    /// In the child process: what the kernel was told since the last call.
    fn take_log() -> Vec<String> {
        let log = PathBuf::from(std::env::var_os(LOG).unwrap());
        let told = SyncLog::read(&log);
        std::fs::File::create(log).unwrap();
        assert!(told.0.len() <= 1, "{told:?}");
        told.0.into_values().flatten().collect()
    }

    fn region(kind: MemoryKind) -> std::sync::Arc<Region> {
        Region::allocate(&gstphysmem::memory::Request {
            kind,
            size_bytes: 1 << 16,
            ..Default::default()
        })
        .unwrap()
    }

    #[test]
    fn maps_of_an_application_are_told_in_their_direction() {
        const NAME: &str = "maps_of_an_application_are_told_in_their_direction";
        let shim = shim();
        if std::env::var_os(LOG).is_none() {
            let log = tempfile::NamedTempFile::new().unwrap();
            rerun_under(shim, log.path(), NAME).expect_success();
            return;
        }
        support::init_gstreamer();
        for kind in [MemoryKind::Cma, MemoryKind::System, MemoryKind::Udmabuf] {
            let pool = PhysBufferPool::builder().kind(kind).build();
            let mut config = pool.config();
            let caps: gst::Caps = CAPS.parse().unwrap();
            config.set_params(Some(&caps), 0, 1, 1);
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
            pool.set_config(config).unwrap();
            pool.set_active(true).unwrap();
            let mut buffer = pool.acquire_free(Wait::No).unwrap();
            take_log();

            // These calls do not touch the bytes of the buffer.
            let id = buffer.meta::<PhysMemMeta>().unwrap().id();
            drop(pool.export_dmabuf(id).unwrap());
            drop(pool.dump());
            assert!(take_log().is_empty(), "{kind}");

            assert_eq!(buffer.map_readable().unwrap()[0], 0);
            assert_eq!(take_log(), ["start r", "end r"], "{kind}");
            buffer.get_mut().unwrap().map_writable().unwrap().fill(7);
            assert_eq!(take_log(), ["start rw", "end rw"], "{kind}");
            write_only(buffer.get_mut().unwrap());
            assert_eq!(take_log(), ["start w", "end w"], "{kind}");
            let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
            frame_of_two_planes(buffer.get_mut().unwrap(), &info);
            assert_eq!(take_log(), ["start rw", "end rw"], "{kind}");
            let deep = buffer.copy_deep().unwrap();
            assert_eq!(take_log(), ["start r", "end r"], "{kind}");
            assert_eq!(deep.map_readable().unwrap()[0], 9);
            let part = buffer.peek_memory(0).share(100..300);
            assert_eq!(part.map_readable().unwrap()[0], 9);
            assert_eq!(take_log(), ["start r", "end r"], "{kind}");
        }
    }

    fn write_only(buffer: &mut gst::BufferRef) {
        // SAFETY: the map is filled in, written to within its size, and ended.
        unsafe {
            let mut map = std::mem::zeroed();
            let write = gst::ffi::GST_MAP_WRITE;
            assert_ne!(
                gst::ffi::gst_buffer_map(buffer.as_mut_ptr(), &mut map, write),
                0
            );
            map.data.write_bytes(8, map.size);
            gst::ffi::gst_buffer_unmap(buffer.as_mut_ptr(), &mut map);
        }
    }

    /// GStreamer maps the memory once for each plane. What was written to the first plane must
    /// still be there when the second one has been mapped.
    fn frame_of_two_planes(buffer: &mut gst::BufferRef, info: &gst_video::VideoInfo) {
        let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info).unwrap();
        frame.plane_data_mut(0).unwrap().fill(9);
        frame.plane_data_mut(1).unwrap().fill(9);
    }

    #[test]
    fn accesses_at_the_same_time_are_one_to_the_kernel() {
        const NAME: &str = "accesses_at_the_same_time_are_one_to_the_kernel";
        let shim = shim();
        if std::env::var_os(LOG).is_none() {
            let log = tempfile::NamedTempFile::new().unwrap();
            rerun_under(shim, log.path(), NAME).expect_success();
            return;
        }
        support::init_gstreamer();
        for kind in [MemoryKind::Cma, MemoryKind::System, MemoryKind::Udmabuf] {
            let region = region(kind);
            take_log();
            let outer = region.begin_access(true).unwrap();
            let inner = region.begin_access(false).unwrap();
            // SAFETY: the region has more than one byte, and nobody else uses it.
            unsafe { inner.ptr().write_volatile(3) };
            drop(outer);
            assert_eq!(take_log(), ["start rw"], "{kind}");
            drop(inner);
            assert_eq!(take_log(), ["end rw"], "{kind}");

            let reader = region.begin_access(false).unwrap();
            // SAFETY: as above.
            assert_eq!(unsafe { reader.ptr().read_volatile() }, 3);
            let writer = region.begin_access(true).unwrap();
            assert_eq!(take_log(), ["start r", "end r", "start rw"], "{kind}");
            // SAFETY: as above.
            unsafe { writer.ptr().write_volatile(4) };
            drop((reader, writer));
            assert_eq!(take_log(), ["end rw"], "{kind}");
        }
    }

    /// Proves that the shim reports accesses that were not announced.
    #[test]
    fn who_has_not_told_the_kernel_is_found_out() {
        const NAME: &str = "who_has_not_told_the_kernel_is_found_out";
        const VIOLATION: &str = "PHYSMEM_TEST_VIOLATION";
        let shim = shim();
        let Ok(violation) = std::env::var(VIOLATION) else {
            for violation in ["read", "write in an access for reading", "behind its back"] {
                let log = tempfile::NamedTempFile::new().unwrap();
                let ran = run(Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", &format!("any::{NAME}"), "--nocapture"])
                    .env("LD_PRELOAD", shim)
                    .env(LOG, log.path())
                    .env(VIOLATION, violation));
                let told = SyncLog::read(log.path());
                let said: Vec<_> = told.0.into_values().flatten().collect();
                let (expected, signal) = match violation {
                    "behind its back" => ("changed", None),
                    _ => ("touched", Some(libc::SIGSEGV)),
                };
                assert_eq!(ran.status.signal(), signal, "{violation}: {ran:?}");
                assert!(
                    said.iter().any(|line| line == expected),
                    "{violation}: {said:?}"
                );
            }
            return;
        };
        support::init_gstreamer();
        let region = region(MemoryKind::System);
        let ptr = region.ptr();
        match violation.as_str() {
            // SAFETY: the first byte of the region. The shim may have closed the mapping, which is
            // what the test checks.
            "read" => _ = unsafe { ptr.read_volatile() },
            "write in an access for reading" => {
                let _access = region.begin_access(false).unwrap();
                // SAFETY: as above.
                unsafe { ptr.write_volatile(1) };
            }
            _ => {
                drop(region.begin_access(true).unwrap());
                write_through_another_mapping(&region);
                drop(region.begin_access(false).unwrap());
            }
        }
    }

    /// Maps by a raw system call, which the shim does not intercept.
    fn write_through_another_mapping(region: &Region) {
        let fd = region.dma_buf().unwrap().as_raw_fd();
        // SAFETY: a new mapping of a page that the dma-buf has, written to while it lasts.
        unsafe {
            let page = libc::syscall(
                if cfg!(target_pointer_width = "64") {
                    libc::SYS_mmap
                } else {
                    192
                },
                0,
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            );
            assert_ne!(page, -1, "{}", std::io::Error::last_os_error());
            (page as *mut u8).write_volatile(1);
        }
    }
}

/// A card that imports no dma-buf, so both sinks copy.
mod bochs {
    use super::*;

    #[test]
    fn a_sink_that_copies_reads_each_frame_in_one_access() {
        let shim = shim();
        let caps = "video/x-raw,format=BGRx,width=320,height=240,framerate=25/1";
        for sink in ["fbpansink", "kmsflipsink"] {
            for kind in KINDS {
                let what = format!("{sink}, {kind}");
                // A tee keeps the sink's own memory from upstream.
                let told = play(
                    shim,
                    &format!(
                        "rawvideosrc num-buffers={FRAMES} ! {caps} ! physmemupload kind={kind} ! tee ! {sink} sync=false"
                    ),
                );
                let (reads, writes) = told.reads_and_writes(kind);
                assert_eq!(writes, FRAMES, "{what}");
                // The first frame may be shown twice: in PAUSED and again in PLAYING.
                assert!((FRAMES..=FRAMES + 1).contains(&reads), "{what}: {reads}");
            }
        }
    }
}

/// A card that scans out dma-bufs without a copy.
mod vkms {
    use super::*;

    #[test]
    fn a_frame_that_is_shown_where_it_is_is_touched_by_who_writes_it_alone() {
        let shim = shim();
        let caps = "video/x-raw,format=BGRx,width=640,height=480,framerate=25/1";
        let told = play(
            shim,
            &format!(
                "rawvideosrc num-buffers={FRAMES} ! {caps} ! kmsflipsink mode=640x480 sync=false"
            ),
        );
        assert_eq!(told.reads_and_writes("cma"), (0, FRAMES));
    }
}
