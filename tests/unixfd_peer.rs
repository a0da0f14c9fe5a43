// SPDX-License-Identifier: MPL-2.0
//! A program that speaks unixfdsink's protocol (GStreamer 1.24) and lies to `unixfdsrc ! physmemupload`, which run in a
//! process of their own: sizes and offsets beyond the file, descriptors of other kinds of file, files that are cut,
//! metas of ours with anything in them. The receiver ends with an error or goes on. No signal ends it.

mod common;

use std::{
    fs::File,
    io::{IoSlice, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::ExitStatusExt,
        },
    },
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use common::{memfd, sealed_memfd};

const SIZE: u64 = 64 * 64 * 4;
const CAPS: &str = "video/x-raw,format=BGRx,width=64,height=64,framerate=25/1\0";

/// The commands of the protocol.
const NEW_BUFFER: u32 = 0;
const CAPS_COMMAND: u32 = 2;
const END: u32 = 3;

/// What is said of a buffer.
struct Said<'a> {
    /// Size and offset of each memory.
    memories: Vec<(u64, u64)>,
    files: Vec<BorrowedFd<'a>>,
    /// Name, version and bytes of each meta.
    metas: Vec<(&'a str, u8, Vec<u8>)>,
    /// 0 for files, 1 for dma-bufs.
    kind: u8,
}

impl<'a> Said<'a> {
    fn of(file: &'a impl AsFd, size: u64, offset: u64) -> Self {
        Self {
            memories: vec![(size, offset)],
            files: vec![file.as_fd()],
            metas: Vec::new(),
            kind: 0,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Id, three times, offset and its end; flags, kind, number of memories, number of metas.
        for number in [1, u64::MAX, u64::MAX, 40_000_000, 0, 1] {
            bytes.extend(u64::to_le_bytes(number));
        }
        bytes.extend([0, 0, 0, 0, self.kind, self.memories.len() as u8]);
        bytes.extend((self.metas.len() as u16).to_le_bytes());
        for (size, offset) in &self.memories {
            bytes.extend(size.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        for (name, version, meta) in &self.metas {
            let len = 4 + 4 + name.len() + 2 + meta.len();
            bytes.extend((len as u32).to_le_bytes());
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend([0, *version]);
            bytes.extend(meta);
        }
        bytes
    }
}

fn send(to: &UnixStream, command: u32, payload: &[u8], files: &[BorrowedFd<'_>]) {
    let header = [command.to_le_bytes(), (payload.len() as u32).to_le_bytes()].concat();
    let files: Vec<_> = files.iter().map(|file| file.as_raw_fd()).collect();
    let rights = (!files.is_empty()).then(|| ControlMessage::ScmRights(&files));
    let parts = [IoSlice::new(&header), IoSlice::new(payload)];
    // The receiver may have ended after the one before.
    let _ = sendmsg::<()>(
        to.as_raw_fd(),
        &parts,
        rights.as_slice(),
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
}

/// Sends the buffers to a receiver, and waits for its end. `None` where GStreamer has no unixfdsrc.
fn receiver_of(buffers: &[Said<'_>]) -> Option<Output> {
    gst::init().unwrap();
    if gst::ElementFactory::find("unixfdsrc").is_none() {
        println!("SKIPPED: unixfdsrc is of GStreamer 1.24");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    // One registry for all of them, which takes seconds to make.
    static PLUGINS: OnceLock<PathBuf> = OnceLock::new();
    let plugins = PLUGINS.get_or_init(common::library_dir);
    let mut receiver = Command::new("timeout");
    let receiver = receiver
        .env_remove("LD_LIBRARY_PATH")
        .env("GST_REGISTRY", plugins.join("registry.bin"))
        .env("GST_PLUGIN_PATH", plugins)
        .args(["120", "gst-launch-1.0", "-q", "unixfdsrc"])
        .arg(format!("socket-path={}", path.display()))
        .args([
            "!",
            "physmemupload",
            "kind=normal",
            "!",
            "fakesink",
            "sync=false",
        ])
        // What GStreamer itself is critical of is not judged here.
        .env_remove("G_DEBUG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let receiver = receiver.spawn().unwrap();
    let (to, _) = listener.accept().unwrap();
    send(&to, CAPS_COMMAND, CAPS.as_bytes(), &[]);
    for said in buffers {
        send(&to, NEW_BUFFER, &said.to_bytes(), &said.files);
    }
    send(&to, END, &[], &[]);
    let output = receiver.wait_with_output().unwrap();
    drop(to);
    let status = output.status;
    let said = String::from_utf8_lossy(&output.stderr);
    // The program `timeout` passes the signal on as 128 + its number, or ends with 124 if the receiver hangs.
    assert!(status.signal().is_none(), "{status}: {said}");
    assert!(
        status.code().is_some_and(|code| code < 124),
        "{status}: {said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    Some(output)
}

#[track_caller]
fn is_refused(said: Said<'_>, words: &str) {
    let Some(output) = receiver_of(&[said]) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains(words),
        "{}: {text}",
        output.status
    );
}

#[test]
fn an_honest_peer_is_served() {
    let file = memfd(SIZE);
    if let Some(output) = receiver_of(&[Said::of(&file, SIZE, 0), Said::of(&file, SIZE, 0)]) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {text}", output.status);
    }
}

#[test]
fn sizes_and_offsets_beyond_the_file_are_errors() {
    for there in [0, 4096, SIZE - 1] {
        // The last page of a file is there as a whole.
        if there != SIZE - 1 {
            is_refused(Said::of(&memfd(there), SIZE, 0), "shorter than was said");
            is_refused(
                Said::of(&sealed_memfd(there), SIZE, 0),
                "shorter than was said",
            );
        }
        for (size, offset) in [
            (u64::MAX, 0),
            (SIZE, u64::MAX),
            // The end of the memory wraps around to one in the file.
            (SIZE, 8192u64.wrapping_neg()),
            (SIZE, 1 << 40),
            (0, 0),
            (1, 0),
            (1 << 45, 1 << 45),
        ] {
            receiver_of(&[Said::of(&memfd(there), size, offset)]);
        }
    }
}

#[test]
fn descriptors_of_other_files_are_errors() {
    let (pipe, _writer) = nix::unistd::pipe().unwrap();
    let open = |path: &str| OwnedFd::from(File::open(path).unwrap());
    for file in [open("/"), open("/dev/null"), open("/proc/self/maps"), pipe] {
        is_refused(Said::of(&file, SIZE, 0), "cannot be mapped");
    }
    let mut regular = tempfile::tempfile().unwrap();
    regular.write_all(b"short").unwrap();
    is_refused(Said::of(&regular, SIZE, 0), "shorter than was said");
    // A memfd that is said to be a dma-buf.
    let file = memfd(4096);
    receiver_of(&[Said {
        kind: 1,
        ..Said::of(&file, SIZE, 0)
    }]);
}

#[test]
fn a_file_that_is_cut_after_it_was_sent_is_an_error() {
    let file = memfd(SIZE);
    let buffers: Vec<_> = (0..50).map(|_| Said::of(&file, SIZE, 0)).collect();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                file.set_len(0).unwrap();
                file.set_len(SIZE).unwrap();
            }
        });
        for _ in 0..5 {
            receiver_of(&buffers);
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn metas_with_anything_in_them_are_refused_or_mean_nothing() {
    let file = memfd(SIZE);
    // As src/meta/wire.rs has it: id, flags, kind, source; size, offset, device, inode; length of the heap's name, number
    // of extents; extents.
    let meta = |words: [u32; 4], longs: [u64; 4], counts: [u32; 2], tail: &[u64]| {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(longs.iter().flat_map(|long| long.to_le_bytes()));
        bytes.extend(counts.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(tail.iter().flat_map(|long| long.to_le_bytes()));
        bytes
    };
    let none = u32::MAX;
    for bytes in [
        vec![],
        vec![0xff; 3],
        vec![0xff; 4096],
        meta([1, 0, 1, 0], [SIZE, 0, 0, 0], [none, 1], &[0x1000, SIZE]),
        meta(
            [1, 0, 1, 0],
            [1 << 60, 0, 0, 0],
            [none, 1],
            &[0x1000, 1 << 60],
        ),
        meta(
            [1, 0, 1, 0],
            [SIZE, u64::MAX, 0, 0],
            [none, 1],
            &[u64::MAX, SIZE],
        ),
        meta([1, 0, 1, 0], [SIZE, 0, 0, 0], [none, u32::MAX], &[0, 0]),
        meta(
            [1, 0, 1, none],
            [SIZE, 0, 0, 0],
            [u32::MAX - 1, u32::MAX],
            &[],
        ),
        meta([0, !0, !0, !0], [0; 4], [0, 0], &[]),
    ] {
        for (name, version) in [
            ("GstPhysMemMeta", 0),
            ("GstPhysMemMeta", 255),
            ("GstVideoMeta", 0),
        ] {
            let metas = vec![(name, version, bytes.clone())];
            receiver_of(&[Said {
                metas,
                ..Said::of(&file, SIZE, 0)
            }]);
        }
    }
    let good = meta([1, 0, 1, 0], [SIZE, 0, 0, 0], [none, 1], &[0x1000, SIZE]);
    let metas = vec![
        ("GstPhysMemMeta", 0, good.clone()),
        ("GstPhysMemMeta", 0, good),
    ];
    receiver_of(&[Said {
        metas,
        ..Said::of(&file, SIZE, 0)
    }]);
}
