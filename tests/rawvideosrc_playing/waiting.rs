// SPDX-License-Identifier: MPL-2.0
//! Input that does not arrive. Events, queries and state changes must be answered all the same.

use std::ffi::{c_char, c_int};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gst::prelude::*;

use crate::common;
use crate::{FRAME_BYTES, Pipeline, SeekBound, fifo, file, in_time, line};

/// The number of threads that have entered a call that hangs, and whether such calls still hang.
static HANGING_CALLS: AtomicU64 = AtomicU64::new(0);
static CALLS_HANG: AtomicBool = AtomicBool::new(true);

fn hang() {
    HANGING_CALLS.fetch_add(1, Ordering::SeqCst);
    while CALLS_HANG.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Replaces the C library's function in this program. For one file the call hangs, as on a file
/// system whose server is gone.
// SAFETY: the name is the C library's own, and so are the arguments and the result.
#[unsafe(no_mangle)]
extern "C" fn inotify_add_watch(fd: c_int, path: *const c_char, mask: u32) -> c_int {
    // SAFETY: callers pass a string that ends.
    let hangs = unsafe { std::ffi::CStr::from_ptr(path) };
    if hangs.to_bytes().ends_with(b"/hangs") {
        hang();
    }
    // SAFETY: the arguments are those of the C function, passed on as they came.
    unsafe { libc::syscall(libc::SYS_inotify_add_watch, fd, path, mask) as c_int }
}

/// The same for the function that reads frames without padding.
// SAFETY: the name is the C library's own, and so are the arguments and the result.
#[unsafe(no_mangle)]
extern "C" fn pread64(fd: c_int, bytes: *mut libc::c_void, count: usize, offset: i64) -> isize {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    // The first bytes are read before the start, and that read does not hang.
    let is_frame = count == FRAME_BYTES;
    if is_frame && path.is_ok_and(|path| path.ends_with("hangs-in-a-read")) {
        hang();
    }
    // SAFETY: the arguments are those of the C function, passed on as they came.
    unsafe { libc::syscall(libc::SYS_pread64, fd, bytes, count, offset) as isize }
}

/// Replaces the function that reads only from the page cache. It fails for a file system that hangs, as if the
/// page cache had nothing of the file.
// SAFETY: the name is the C library's own, and so are the arguments and the result.
#[unsafe(no_mangle)]
extern "C" fn preadv64v2(
    fd: c_int,
    pieces: *const libc::iovec,
    count: c_int,
    offset: i64,
    flags: c_int,
) -> isize {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    let name = path
        .ok()
        .and_then(|path| Some(path.file_name()?.to_owned()));
    if name.is_some_and(|name| name.as_encoded_bytes().starts_with(b"hangs-")) {
        // SAFETY: errno belongs to this thread.
        unsafe { *libc::__errno_location() = libc::EAGAIN };
        return -1;
    }
    // SAFETY: the arguments are those of the C function, passed on as they came. The kernel takes the offset
    // as two words, of which it uses the second on 32-bit machines only.
    unsafe {
        libc::syscall(
            libc::SYS_preadv2,
            fd,
            pieces,
            count,
            offset as libc::c_long,
            (offset >> 32) as libc::c_long,
            flags,
        ) as isize
    }
}

/// [`pread64`] for the function that begins to read a file into the page cache.
// SAFETY: the name is the C library's own, and so are the arguments and the result.
#[unsafe(no_mangle)]
extern "C" fn posix_fadvise64(fd: c_int, offset: i64, len: i64, advice: c_int) -> c_int {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    if path.is_ok_and(|path| path.ends_with("hangs-ahead-3")) {
        hang();
    }
    // SAFETY: the arguments are those of the C function, passed on as they came.
    unsafe { libc::posix_fadvise(fd, offset as _, len as _, advice) }
}

/// Inputs that have nothing to play for the moment. The file keeps a pipe open.
fn silent_inputs(dir: &Path) -> Vec<(&'static str, String, Option<std::fs::File>)> {
    let pipe = fifo(dir);
    let open = |pipe: &Path| {
        let options = std::fs::File::options().read(true).write(true).open(pipe);
        options.unwrap()
    };
    let part = dir.join("part");
    std::fs::write(&part, [1; FRAME_BYTES - 1]).unwrap();
    let half_a_frame = dir.join("half a frame");
    std::fs::rename(&pipe, &half_a_frame).unwrap();
    let mut writer = open(&half_a_frame);
    writer.write_all(&[1; 20]).unwrap();
    let pipe = fifo(dir);
    vec![
        ("a pipe without a writer", line(&pipe), None),
        (
            "a pipe about which nothing is known",
            format!("rawvideosrc location={}", pipe.display()),
            None,
        ),
        ("a silent pipe", line(&pipe), Some(open(&pipe))),
        (
            "a pipe that stops within a frame",
            line(&half_a_frame).replace(" a ", "\\ a\\ "),
            Some(writer),
        ),
        (
            "a followed file",
            format!("{} follow=true", line(&part)),
            None,
        ),
    ]
}

#[test]
fn end_of_stream_ends_every_wait() {
    let dir = tempfile::tempdir().unwrap();
    for (what, line, _writer) in silent_inputs(dir.path()) {
        for state in [gst::State::Paused, gst::State::Playing] {
            let pipeline = Pipeline::new(&line);
            pipeline.start(state);
            std::thread::sleep(Duration::from_millis(20));
            let target = pipeline.pipeline.clone();
            let sent = in_time(what, move || target.send_event(gst::event::Eos::new()));
            assert!(sent, "{what}");
            pipeline.start(gst::State::Playing);
            assert!(pipeline.message(gst::MessageType::Eos).is_some(), "{what}");
        }
    }
}

#[test]
fn events_queries_and_states_are_answered_while_it_waits() {
    let dir = tempfile::tempdir().unwrap();
    for (what, line, _writer) in silent_inputs(dir.path()) {
        let pipeline = Pipeline::new(&line);
        pipeline.start(gst::State::Playing);
        std::thread::sleep(Duration::from_millis(20));
        let source = pipeline.source();
        in_time(what, move || {
            let pad = source.static_pad("src").unwrap();
            pad.query_caps(None);
            source.query_position::<gst::ClockTime>();
            source.query_duration::<gst::ClockTime>();
            source.query(&mut gst::query::Seeking::new(gst::Format::Time));
            source.query(&mut gst::query::Latency::new());
            source.query_convert::<Option<gst::ClockTime>>(gst::format::Default::ONE);
            source.property::<gst::Structure>("stats");
            let structure = gst::Structure::new_empty("test");
            assert!(source.send_event(gst::event::CustomDownstream::new(structure.clone())));
            assert!(source.send_event(gst::event::CustomDownstreamOob::new(structure)));
            assert!(source.send_event(gst::event::FlushStart::new()));
            assert!(source.send_event(gst::event::FlushStop::new(true)));
            assert!(pad.send_event(gst::event::Reconfigure::new()));
        });
        let source = pipeline.source();
        let is_file = line.contains("follow");
        let seek = gst::event::Seek::new(
            1.0,
            gst::SeekFlags::FLUSH,
            gst::SeekType::Set,
            gst::ClockTime::ZERO,
            gst::SeekType::None,
            gst::ClockTime::NONE,
        );
        // A seek in a pipe is refused.
        assert_eq!(in_time(what, move || source.send_event(seek)), is_file);
        let states = [
            gst::State::Paused,
            gst::State::Ready,
            gst::State::Playing,
            gst::State::Null,
        ];
        for state in states {
            let target = pipeline.pipeline.clone();
            in_time(what, move || target.set_state(state)).unwrap();
        }
    }
}

#[test]
fn a_file_system_that_hangs_holds_up_nobody() {
    // In turn, because they share the variables above.
    let dir = tempfile::tempdir().unwrap();
    for (name, properties) in [
        ("hangs", "follow=true"),
        ("hangs-in-a-read", ""),
        ("hangs-in-a-read", "threads=2"),
    ] {
        CALLS_HANG.store(true, Ordering::SeqCst);
        let path = dir.path().join(name);
        std::fs::rename(file(dir.path(), 4), &path).unwrap();
        assert_nothing_is_held_up(&format!("{} {properties}", line(&path)));
    }
    CALLS_HANG.store(true, Ordering::SeqCst);
    for n in 0..10u8 {
        std::fs::write(
            dir.path().join(format!("hangs-ahead-{n}")),
            [n; FRAME_BYTES],
        )
        .unwrap();
    }
    let before = HANGING_CALLS.load(Ordering::SeqCst);
    let pipeline = Pipeline::new(&line(&dir.path().join("hangs-ahead-%d")));
    let all: Vec<u64> = (0..10).collect();
    assert_eq!(pipeline.frames(10), all);
    assert!(pipeline.seek(
        1.0,
        gst::SeekFlags::empty(),
        SeekBound::at(40),
        SeekBound::keep()
    ));
    assert_eq!(pipeline.frames(10), all[1..]);
    in_time("the call", move || {
        while HANGING_CALLS.load(Ordering::SeqCst) == before {
            std::thread::yield_now();
        }
    });
    drop(pipeline);
    CALLS_HANG.store(false, Ordering::SeqCst);
}

fn assert_nothing_is_held_up(source: &str) {
    let started = || {
        let before = HANGING_CALLS.load(Ordering::SeqCst);
        let pipeline = Pipeline::new(source);
        pipeline.start(gst::State::Playing);
        in_time("the call", move || {
            while HANGING_CALLS.load(Ordering::SeqCst) == before {
                std::thread::yield_now();
            }
        });
        pipeline
    };
    let pipeline = started();
    let target = pipeline.pipeline.clone();
    let sent = in_time("EOS", move || target.send_event(gst::event::Eos::new()));
    assert!(sent);
    assert!(pipeline.message(gst::MessageType::Eos).is_some());
    drop(pipeline);
    // One stop during the hanging call, and one after an event has ended the wait.
    drop(started());
    let pipeline = started();
    let none = gst::SeekFlags::empty();
    assert!(pipeline.seek(1.0, none, SeekBound::at(40), SeekBound::keep()));
    // The call returns at last, and the seek is carried out.
    CALLS_HANG.store(false, Ordering::SeqCst);
    assert_eq!(pipeline.frames(3), [1, 2, 3]);
}

#[test]
fn standard_input_goes_on_from_where_it_is() {
    use std::{io::Seek, process::Command};
    let dir = tempfile::tempdir().unwrap();
    let raw: Vec<u8> = (0..4u8).flat_map(|n| [n; FRAME_BYTES]).collect();
    let mut y4m = b"YUV4MPEG2 W8 H4 F25:1 Cmono\n".to_vec();
    for n in 0..4u8 {
        y4m.extend(b"FRAME\n");
        y4m.extend([n; FRAME_BYTES]);
    }
    let out = dir.path().join("out");
    for (content, properties) in [
        (&raw, "format=gray8 width=8 height=4"),
        (&raw, "format=gray8 width=8 height=4 io-mode=mmap"),
        (&y4m, ""),
    ] {
        let path = dir.path().join("in");
        std::fs::write(
            &path,
            [b"a header of others\n".as_slice(), content].concat(),
        )
        .unwrap();
        let mut input = std::fs::File::open(&path).unwrap();
        input.seek(std::io::SeekFrom::Start(19)).unwrap();
        let mut launch = common::with_plugin("gst-launch-1.0");
        let line = format!("rawvideosrc location=- {properties} ! filesink");
        let location = format!("location={}", out.display());
        launch
            .args(["-q"])
            .args(line.split_whitespace())
            .arg(location);
        common::output_of(launch.stdin(input.try_clone().unwrap()));
        assert_eq!(std::fs::read(&out).unwrap(), raw, "{properties}");
        // The next reader of the descriptor begins at the same place.
        let rest = common::output_of(Command::new("cat").stdin(input));
        assert_eq!(rest.as_bytes(), *content);
    }
}

#[test]
fn a_writer_that_never_pauses_holds_up_neither_frames_nor_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 4);
    let ends = Arc::new(AtomicBool::new(false));
    let writing = {
        let (path, ends) = (path.clone(), ends.clone());
        std::thread::spawn(move || {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            while !ends.load(Ordering::Relaxed) {
                file.write_all_at(&[0], 0).unwrap();
            }
        })
    };
    let pipeline = Pipeline::new(&format!("{} follow=true", line(&path)));
    assert_eq!(pipeline.frames(4), [0, 1, 2, 3]);
    drop(pipeline);
    ends.store(true, Ordering::Relaxed);
    writing.join().unwrap();
}
