// SPDX-License-Identifier: MPL-2.0
//! How `rawvideosrc` plays: what it answers while it waits for input, where seeks go,
//! and when a live source begins.
#![allow(clippy::unwrap_used)]

mod common;

use gst::prelude::*;
use std::{
    ffi::{c_char, c_int},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

/// Far more than anything here takes: who runs into it hangs.
const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(30);
/// Pictures of 8x4 GRAY8.
const FRAME_BYTES: usize = 32;
/// Milliseconds of a frame at 25/1.
const FRAME_MS: u64 = 40;

fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstphysmem::plugin_register_static().unwrap();
    });
}

/// Ends the test if the work hangs.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    let result = result.recv_timeout(Duration::from_secs(30));
    result.unwrap_or_else(|_| panic!("{what} hangs"))
}

struct Pipeline {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let pipeline = self.pipeline.clone();
        in_time("stop", move || pipeline.set_state(gst::State::Null)).unwrap();
    }
}

impl Pipeline {
    fn new(source: &str) -> Self {
        init();
        let line = format!("{source} name=source ! appsink name=sink sync=false");
        let pipeline = gst::parse::launch(&line).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("sink").unwrap();
        Self {
            pipeline,
            sink: sink.downcast().unwrap(),
        }
    }

    fn source(&self) -> gst::Element {
        self.pipeline.by_name("source").unwrap()
    }

    fn start(&self, state: gst::State) {
        self.pipeline.set_state(state).unwrap();
    }

    fn set(&self, state: gst::State) {
        self.start(state);
        self.pipeline.state(TIMEOUT).0.unwrap();
    }

    fn message(&self, kind: gst::MessageType) -> Option<gst::Message> {
        let bus = self.pipeline.bus().unwrap();
        let message = bus.timed_pop_filtered(TIMEOUT, &[kind, gst::MessageType::Error])?;
        (message.type_() == kind).then_some(message)
    }

    /// Number of the frame that the sink shows while paused.
    fn prerolled(&self) -> u64 {
        number(&self.sink.try_pull_preroll(TIMEOUT).unwrap())
    }

    /// The numbers of so many frames, or of all to the end.
    fn frames(&self, most: usize) -> Vec<u64> {
        self.start(gst::State::Playing);
        let next = || {
            let sample = self.sink.try_pull_sample(TIMEOUT);
            assert!(sample.is_some() || self.sink.is_eos());
            sample
        };
        std::iter::from_fn(next)
            .take(most)
            .map(|sample| number(&sample))
            .collect()
    }

    fn seek(&self, rate: f64, flags: gst::SeekFlags, start: Side, stop: Side) -> bool {
        let flags = flags | gst::SeekFlags::FLUSH;
        let seek = gst::event::Seek::new(rate, flags, start.0, start.1, stop.0, stop.1);
        let pipeline = self.pipeline.clone();
        in_time("a seek", move || pipeline.send_event(seek))
    }
}

/// One side of a seek, in milliseconds.
#[derive(Clone, Copy)]
struct Side(gst::SeekType, gst::GenericFormattedValue);

impl Side {
    fn in_format(kind: gst::SeekType, format: gst::Format, value: i64) -> Self {
        Self(kind, gst::GenericFormattedValue::new(format, value))
    }

    fn keep() -> Self {
        Self::in_format(gst::SeekType::None, gst::Format::Time, -1)
    }

    fn at(ms: u64) -> Self {
        Self::in_format(gst::SeekType::Set, gst::Format::Time, ms as i64 * 1_000_000)
    }

    /// From the end.
    fn end(ms: i64) -> Self {
        Self::in_format(gst::SeekType::End, gst::Format::Time, ms * 1_000_000)
    }
}

/// The picture says its number in each byte.
fn number(sample: &gst::Sample) -> u64 {
    let map = sample.buffer().unwrap().map_readable().unwrap();
    map[0].into()
}

fn file(dir: &Path, frames: u8) -> PathBuf {
    let path = dir.join("frames.raw");
    let bytes: Vec<u8> = (0..frames).flat_map(|n| [n; FRAME_BYTES]).collect();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn fifo(dir: &Path) -> PathBuf {
    let path = dir.join("pipe");
    let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
    nix::unistd::mkfifo(&path, mode).unwrap();
    path
}

fn line(path: &Path) -> String {
    let path = path.display();
    format!("rawvideosrc location={path} format=gray8 width=8 height=4 framerate=25/1")
}

/// How many threads are in the call that hangs, and whether it still does.
static HANGING: AtomicU64 = AtomicU64::new(0);
static HANGS: AtomicBool = AtomicBool::new(true);

fn hang() {
    HANGING.fetch_add(1, Ordering::SeqCst);
    while HANGS.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes the C library's place in this program: the system call, which hangs as on a
/// file system whose server is gone, for one file.
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

/// As above, for what frames without padding are read with.
// SAFETY: the name is the C library's own, and so are the arguments and the result.
#[unsafe(no_mangle)]
extern "C" fn pread64(fd: c_int, bytes: *mut libc::c_void, count: usize, offset: i64) -> isize {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    // The file's beginning is looked at before the start: that does not hang.
    let is_frame = count == FRAME_BYTES;
    if is_frame && path.is_ok_and(|path| path.ends_with("hangs-in-a-read")) {
        hang();
    }
    // SAFETY: the arguments are those of the C function, passed on as they came.
    unsafe { libc::syscall(libc::SYS_pread64, fd, bytes, count, offset) as isize }
}

/// Ways to have nothing to play for the moment, and what keeps them so.
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
        // One cannot go back in a pipe, and is told so.
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
    // One after the other: they share what makes them hang.
    let dir = tempfile::tempdir().unwrap();
    for (name, properties) in [
        ("hangs", "follow=true"),
        ("hangs-in-a-read", ""),
        ("hangs-in-a-read", "threads=2"),
    ] {
        HANGS.store(true, Ordering::SeqCst);
        let path = dir.path().join(name);
        std::fs::rename(file(dir.path(), 4), &path).unwrap();
        holds_up_nobody(&format!("{} {properties}", line(&path)));
    }
}

fn holds_up_nobody(source: &str) {
    let started = || {
        let before = HANGING.load(Ordering::SeqCst);
        let pipeline = Pipeline::new(source);
        pipeline.start(gst::State::Playing);
        in_time("the call", move || {
            while HANGING.load(Ordering::SeqCst) == before {
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
    // A stop while it hangs, and one after an event has ended its wait.
    drop(started());
    let pipeline = started();
    let none = gst::SeekFlags::empty();
    assert!(pipeline.seek(1.0, none, Side::at(40), Side::keep()));
    // It answers at last, and the seek is carried out.
    HANGS.store(false, Ordering::SeqCst);
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
        // Whoever comes next finds it there, too.
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

#[test]
fn a_change_of_rate_in_place_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    let pipeline = Pipeline::new(&line(&path));
    pipeline.set(gst::State::Paused);
    let none = gst::SeekFlags::empty();
    assert!(pipeline.seek(1.0, none, Side::at(50 * FRAME_MS), Side::keep()));
    assert_eq!(pipeline.prerolled(), 50);
    // The source has sent frame 50 and goes on behind it.
    assert!(pipeline.seek(2.0, none, Side::keep(), Side::keep()));
    assert_eq!(pipeline.prerolled(), 51);
    assert!(pipeline.seek(4.0, gst::SeekFlags::TRICKMODE, Side::keep(), Side::keep()));
    assert_eq!(pipeline.prerolled(), 52);
    assert_eq!(pipeline.frames(3), [52, 56, 60]);
    pipeline.set(gst::State::Paused);
    assert!(pipeline.seek(1.0, none, Side::at(50 * FRAME_MS), Side::keep()));
    assert_eq!(pipeline.prerolled(), 50);
    // Backwards from the end of frame 50.
    assert!(pipeline.seek(-1.0, none, Side::keep(), Side::keep()));
    assert_eq!(pipeline.prerolled(), 50);
    assert!(pipeline.seek(-2.0, none, Side::at(0), Side::keep()));
    assert_eq!(pipeline.prerolled(), 49);
    assert_eq!(pipeline.frames(3), [49, 48, 47]);
    pipeline.set(gst::State::Paused);
    assert!(pipeline.seek(-1.0, none, Side::at(0), Side::at(10 * FRAME_MS)));
    assert_eq!(pipeline.prerolled(), 9);
    // Forwards again, from the beginning of frame 9; the stop stays.
    assert!(pipeline.seek(1.0, none, Side::keep(), Side::keep()));
    assert_eq!(pipeline.frames(100), [9]);
    assert!(pipeline.seek(1.0, none, Side::at(8 * FRAME_MS), Side::end(0)));
    assert_eq!(pipeline.frames(100), Vec::from_iter(8..100));
}

#[test]
fn an_instant_change_of_rate_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    let pipeline = Pipeline::new(&line(&path));
    pipeline.set(gst::State::Paused);
    let (sender, received) = mpsc::channel();
    let pad = pipeline.sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::InstantRateChange(change)) = info.event().map(|e| e.view()) {
            sender.send(change.get().0).unwrap();
        }
        gst::PadProbeReturn::Ok
    });
    let change = |rate| {
        let flags = gst::SeekFlags::INSTANT_RATE_CHANGE;
        let none = (gst::SeekType::None, gst::ClockTime::NONE);
        let seek = gst::event::Seek::new(rate, flags, none.0, none.1, none.0, none.1);
        pipeline.pipeline.send_event(seek)
    };
    assert!(change(2.0));
    assert_eq!(received.recv_timeout(Duration::from_secs(30)), Ok(2.0));
    // Backwards is not a matter of speed.
    assert!(!change(-1.0));
    assert_eq!(pipeline.frames(3), [0, 1, 2]);
}

#[test]
fn a_first_seek_may_count_from_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    let none = gst::SeekFlags::empty();
    let frames = |kind, value| Side::in_format(kind, gst::Format::Default, value);
    let bytes = |kind, value| Side::in_format(kind, gst::Format::Bytes, value);
    let (set, end, keep) = (gst::SeekType::Set, gst::SeekType::End, Side::keep());
    let keep_frames = frames(gst::SeekType::None, -1);
    for (start, stop, first, last) in [
        (Side::end(-1000), keep, 75, 99),
        (Side::end(-1), keep, 99, 99),
        (Side::end(-1000), Side::end(-400), 75, 89),
        (Side::at(3960), Side::end(0), 99, 99),
        (frames(set, 97), keep_frames, 97, 99),
        (frames(end, -5), keep_frames, 95, 99),
        (bytes(end, -64), bytes(gst::SeekType::None, -1), 98, 99),
        (Side::end(-8000), Side::at(80), 0, 1),
    ] {
        for state in [gst::State::Null, gst::State::Ready, gst::State::Paused] {
            let pipeline = Pipeline::new(&line(&path));
            pipeline.set(state);
            // To the element itself: a sink has no way to its source yet.
            let seek = gst::event::Seek::new(
                1.0,
                none | gst::SeekFlags::FLUSH,
                start.0,
                start.1,
                stop.0,
                stop.1,
            );
            assert!(pipeline.source().send_event(seek), "{state:?}");
            let played = pipeline.frames(200);
            assert_eq!(played, Vec::from_iter(first..=last), "{state:?}");
        }
    }
    let pipeline = Pipeline::new(&line(&path));
    pipeline.set(gst::State::Paused);
    assert!(pipeline.seek(-1.0, none, Side::at(0), Side::end(-3800)));
    assert_eq!(pipeline.frames(200), [4, 3, 2, 1, 0]);
}

#[test]
fn what_has_no_end_or_no_way_back_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 10);
    let pipe = fifo(dir.path());
    std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let none = gst::SeekFlags::empty();
    for properties in ["loop=true", "follow=true"] {
        let pipeline = Pipeline::new(&format!("{} {properties}", line(&path)));
        pipeline.set(gst::State::Paused);
        assert!(!pipeline.seek(1.0, none, Side::end(-80), Side::keep()));
        // The segment would end before it begins.
        assert!(!pipeline.seek(1.0, none, Side::at(120), Side::at(80)));
        assert!(pipeline.seek(1.0, none, Side::at(80), Side::keep()));
        assert_eq!(pipeline.prerolled(), 2);
        // Backwards from here, as there is no other end.
        assert!(pipeline.seek(-1.0, none, Side::at(0), Side::keep()));
        assert_eq!(pipeline.frames(10), [2, 1, 0]);
    }
    // Too early to know: it cannot be carried out, and the bus says so, once.
    let pipeline = Pipeline::new(&line(&pipe));
    pipeline.set(gst::State::Ready);
    let seek = gst::event::Seek::new(
        1.0,
        gst::SeekFlags::FLUSH,
        gst::SeekType::Set,
        gst::ClockTime::SECOND,
        gst::SeekType::None,
        gst::ClockTime::NONE,
    );
    assert!(pipeline.source().send_event(seek));
    assert!(pipeline.pipeline.set_state(gst::State::Paused).is_err());
    let error = pipeline.message(gst::MessageType::Error).unwrap();
    let gst::MessageView::Error(error) = error.view() else {
        unreachable!()
    };
    assert!(error.error().matches(gst::ResourceError::Seek));
    assert!(error.error().to_string().contains("pipe"));
}

#[test]
fn snapping_goes_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    let pipeline = Pipeline::new(&line(&path));
    pipeline.set(gst::State::Paused);
    use gst::SeekFlags as Flags;
    let key = Flags::KEY_UNIT;
    // 410 ms is 10 ms into frame 10, 430 ms 10 ms before frame 11.
    for (flags, at_410, at_430) in [
        (key, 10, 10),
        (key | Flags::SNAP_BEFORE, 10, 10),
        (key | Flags::SNAP_AFTER, 11, 11),
        (key | Flags::SNAP_NEAREST, 10, 11),
    ] {
        for (ms, n) in [(410, at_410), (430, at_430), (n_ms(11), 11)] {
            assert!(pipeline.seek(1.0, flags, Side::at(ms), Side::keep()));
            assert_eq!(pipeline.prerolled(), n, "{flags:?} to {ms} ms");
            let position = pipeline.pipeline.query_position::<gst::ClockTime>();
            assert_eq!(position.unwrap().mseconds(), n_ms(n));
        }
    }
    // Backwards, the frame before is the later one; first shown is what ends there.
    for (flags, at_410, at_430) in [
        (key, 10, 10),
        (key | Flags::SNAP_BEFORE, 10, 10),
        (key | Flags::SNAP_AFTER, 9, 9),
        (key | Flags::SNAP_NEAREST, 9, 10),
    ] {
        for (ms, n) in [(410, at_410), (430, at_430), (n_ms(10), 9)] {
            assert!(pipeline.seek(-1.0, flags, Side::at(0), Side::at(ms)));
            assert_eq!(pipeline.prerolled(), n, "{flags:?} to {ms} ms");
        }
    }
}

fn n_ms(n: u64) -> u64 {
    n * FRAME_MS
}

#[test]
fn a_seek_is_answered_while_the_caps_are_negotiated() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    for wait_us in (0..4000).step_by(100) {
        let pipeline = Pipeline::new(&line(&path));
        pipeline.start(gst::State::Paused);
        std::thread::sleep(Duration::from_micros(wait_us));
        let seek = gst::event::Seek::new(
            1.0,
            gst::SeekFlags::FLUSH,
            gst::SeekType::Set,
            gst::ClockTime::from_mseconds(n_ms(60)),
            gst::SeekType::Set,
            gst::ClockTime::from_mseconds(n_ms(62)),
        );
        assert!(pipeline.source().send_event(seek), "after {wait_us} us");
        assert_eq!(pipeline.frames(200), [60, 61], "after {wait_us} us");
    }
}

#[test]
fn a_live_source_that_joins_later_begins_at_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), 100);
    init();
    let line = format!("{} is-live=true", line(&path));
    let pipeline = Pipeline::new(&line);
    let clock = gst_check::TestClock::new();
    pipeline.pipeline.use_clock(Some(&clock));
    pipeline.pipeline.set_start_time(gst::ClockTime::NONE);
    pipeline.pipeline.set_base_time(gst::ClockTime::ZERO);
    // The pipeline has run for 10 s when the source comes.
    clock.set_time(gst::ClockTime::from_seconds(10));
    pipeline.start(gst::State::Playing);
    let release = |ms: u64| {
        let due = clock.wait_for_next_pending_id().time();
        clock.set_time(gst::ClockTime::from_mseconds(ms));
        clock.process_next_clock_id();
        let sample = pipeline.sink.try_pull_sample(TIMEOUT).unwrap();
        let pts = sample.buffer().unwrap().pts().unwrap();
        (due.mseconds(), pts.mseconds(), number(&sample))
    };
    assert_eq!(release(10_000), (10_000, 10_000, 0));
    assert_eq!(release(10_040), (10_040, 10_040, 1));
    // Frame 2 was made and waits; the next 5 are late.
    assert_eq!(release(10_320), (10_080, 10_080, 2));
    assert_eq!(release(10_320), (10_320, 10_320, 8));
}
