// SPDX-License-Identifier: MPL-2.0
//! `rawvideosrc` with files that change during the stream, reads that fail, and pipes that are cut.
//! Every io-mode reports what is lost in the same way.
#![allow(clippy::unwrap_used)]

use gst::prelude::*;
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::Once,
};

const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(30);
/// The bytes of a 64x64 frame in GRAY8.
const FRAME: usize = 4096;
const FORMAT: &str = "format=gray8 width=64 height=64 framerate=25/1";
const READ_MODES: [&str; 6] = [
    "io-mode=read",
    "io-mode=read direct=true",
    "io-mode=read threads=3",
    "io-mode=io-uring prefetch=3",
    "io-mode=io-uring prefetch=3 direct=true",
    "io-mode=mmap",
];

fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstphysmem::plugin_register_static().unwrap();
    });
}

/// A file of frames, whose bytes all have the value of their frame.
struct Clip {
    dir: tempfile::TempDir,
}

impl Clip {
    fn new(frames: usize) -> Self {
        let clip = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let bytes: Vec<u8> = (0..frames).flat_map(|n| [frame_value(n); FRAME]).collect();
        std::fs::write(clip.path(), bytes).unwrap();
        clip
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("clip.raw")
    }

    fn cut(&self, len_bytes: usize) {
        let file = File::options().write(true).open(self.path()).unwrap();
        file.set_len(len_bytes as u64).unwrap();
    }
}

/// The value of the bytes of frame `n`, which is never zero.
fn frame_value(n: usize) -> u8 {
    (n % 250) as u8 + 1
}

/// A pipeline that ends in an appsink and goes to NULL on drop.
struct Playing {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

impl Playing {
    fn new(path: &Path, settings: &str, sink: &str) -> Self {
        init();
        let path = path.display();
        let description =
            format!("rawvideosrc location={path} {settings} ! appsink name=sink sync=false {sink}");
        let pipeline = gst::parse::launch(&description).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("sink").unwrap();
        let sink = sink.downcast::<gst_app::AppSink>().unwrap();
        Self { pipeline, sink }
    }

    fn start(&self) {
        self.pipeline.set_state(gst::State::Playing).unwrap();
    }

    fn pull(&self) -> Option<gst::Sample> {
        self.sink.try_pull_sample(TIMEOUT)
    }

    /// Pulls the frames from number `n` on and checks each. Returns the number after the last one.
    #[track_caller]
    fn pull_frames(&self, mut n: usize) -> usize {
        while let Some(sample) = self.pull() {
            let bytes = sample.buffer().unwrap().map_readable().unwrap();
            assert!(*bytes == [frame_value(n); FRAME], "frame {n}");
            n += 1;
        }
        n
    }

    /// The first error, warning or EOS on the bus.
    fn message(&self) -> gst::Message {
        use gst::MessageType;
        let types = [MessageType::Error, MessageType::Warning, MessageType::Eos];
        let message = self
            .pipeline
            .bus()
            .unwrap()
            .timed_pop_filtered(TIMEOUT, &types);
        message.expect("neither an end nor an error")
    }

    #[track_caller]
    fn error(&self) -> String {
        match self.message().view() {
            gst::MessageView::Error(error) => error.error().to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn warning(&self) -> String {
        match self.message().view() {
            gst::MessageView::Warning(warning) => warning.error().to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn assert_eos(&self) {
        let message = self.message();
        assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    }
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn a_file_that_is_truncated_while_it_plays_is_an_error_that_names_the_first_frame_lost() {
    for way in READ_MODES {
        for (rest, missing) in [(0, 4096), (100, 3996), (4095, 1)] {
            let clip = Clip::new(60);
            let settings = format!("{FORMAT} {way}");
            let playing = Playing::new(&clip.path(), &settings, "max-buffers=1");
            playing.start();
            for n in 0..10 {
                let sample = playing.pull().unwrap();
                let bytes = sample.buffer().unwrap().map_readable().unwrap();
                assert_eq!(bytes[0], frame_value(n));
            }
            clip.cut(20 * FRAME + rest);
            assert_eq!(playing.pull_frames(10), 20, "{way}, {rest}");
            let error = playing.error();
            let missing = format!("{missing} bytes before");
            assert_says(&error, &["clip.raw", "frame 20 ", "truncated", &missing]);
        }
    }
}

#[test]
fn a_file_that_is_emptied_is_an_error() {
    for way in READ_MODES {
        let clip = Clip::new(60);
        let settings = format!("{FORMAT} {way} loop=true");
        let playing = Playing::new(&clip.path(), &settings, "max-buffers=1");
        playing.start();
        for _ in 0..70 {
            assert!(playing.pull().is_some());
        }
        clip.cut(0);
        while playing.pull().is_some() {}
        let error = playing.error();
        assert_says(&error, &["clip.raw", "is no longer there", "truncated"]);
    }
}

#[test]
fn what_is_not_lost_when_a_file_changes_is_played() {
    type Change = fn(&Clip);
    let changes: [(&str, Change); 4] = [
        ("grows", |clip| {
            let mut file = File::options().append(true).open(clip.path()).unwrap();
            file.write_all(&[9; 10 * FRAME]).unwrap();
        }),
        ("is deleted", |clip| {
            std::fs::remove_file(clip.path()).unwrap();
        }),
        ("is replaced", |clip| {
            let other = clip.dir.path().join("other");
            std::fs::write(&other, [9; 2 * FRAME]).unwrap();
            std::fs::rename(other, clip.path()).unwrap();
        }),
        ("is touched", |clip| {
            let file = File::options().write(true).open(clip.path()).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
        }),
    ];
    for way in READ_MODES {
        for (what, change) in changes {
            let clip = Clip::new(60);
            let settings = format!("{FORMAT} {way}");
            let playing = Playing::new(&clip.path(), &settings, "max-buffers=1");
            playing.start();
            assert!(playing.pull().is_some());
            change(&clip);
            assert_eq!(playing.pull_frames(1), 60, "{way}: the file {what}");
            playing.assert_eos();
        }
    }
}

#[test]
fn new_bytes_of_a_file_that_is_written_over_are_played() {
    for way in READ_MODES {
        let clip = Clip::new(60);
        let settings = format!("{FORMAT} {way}");
        let playing = Playing::new(&clip.path(), &settings, "max-buffers=1");
        playing.start();
        assert!(playing.pull().is_some());
        let mut file = File::options().write(true).open(clip.path()).unwrap();
        file.write_all(&[77; 60 * FRAME]).unwrap();
        let mut last = None;
        let mut frames = 1;
        while let Some(sample) = playing.pull() {
            let bytes = sample.buffer().unwrap().map_readable().unwrap();
            last = Some(bytes.to_vec());
            frames += 1;
        }
        assert_eq!((frames, last.unwrap()), (60, vec![77; FRAME]), "{way}");
        playing.assert_eos();
    }
}

#[test]
fn the_last_mapped_frame_is_not_lost_in_silence() {
    let clip = Clip::new(4);
    let path = clip.path();
    let playing = Playing::new(&path, &format!("{FORMAT} io-mode=mmap"), "");
    let pad = playing.sink.static_pad("sink").unwrap();
    let frames = std::sync::atomic::AtomicUsize::new(0);
    // The fourth frame is on its way to the sink, which has not read its bytes.
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        if frames.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 3 {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(3 * FRAME as u64).unwrap();
        }
        gst::PadProbeReturn::Ok
    });
    playing.start();
    assert_says(&playing.error(), &["clip.raw", "frame 3 ", "truncated"]);
}

#[test]
fn mapped_frames_that_are_looked_at_too_late_are_told_when_they_are_given_back() {
    let clip = Clip::new(4);
    let playing = Playing::new(&clip.path(), &format!("{FORMAT} io-mode=mmap"), "");
    let pad = playing.sink.static_pad("sink").unwrap();
    let (sent, ended) = std::sync::mpsc::channel();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if info
            .event()
            .is_some_and(|event| event.type_() == gst::EventType::Eos)
        {
            sent.send(()).unwrap();
        }
        gst::PadProbeReturn::Ok
    });
    playing.start();
    ended.recv_timeout(TIMEOUT.into()).unwrap();
    clip.cut(2 * FRAME);
    let mut values = Vec::new();
    while let Some(sample) = playing.pull() {
        let bytes = sample.buffer().unwrap().map_readable().unwrap();
        values.push(bytes[0]);
    }
    assert_eq!(values, [frame_value(0), frame_value(1), 0, 0]);
    assert_says(&playing.error(), &["clip.raw", "frame 2 ", "truncated"]);
}

#[test]
fn a_mapping_that_is_of_no_use_any_more_tells_nothing() {
    let clip = Clip::new(4);
    let playing = Playing::new(&clip.path(), &format!("{FORMAT} io-mode=mmap"), "");
    playing.start();
    let samples: Vec<gst::Sample> = std::iter::from_fn(|| playing.pull()).collect();
    assert_eq!(samples.len(), 4);
    playing.assert_eos();
    playing.pipeline.set_state(gst::State::Ready).unwrap();
    clip.cut(0);
    for sample in samples {
        let bytes = sample.buffer().unwrap().map_readable().unwrap();
        assert_eq!(bytes[0], 0);
    }
    let bus = playing.pipeline.bus().unwrap();
    let error = bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Warning]);
    assert!(error.is_none(), "{error:?}");
}

/// Plays a FIFO into which a thread writes these bytes.
fn play_fifo(bytes: Vec<u8>, settings: &str) -> (Playing, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let playing = Playing::new(&path, settings, "");
    playing.start();
    std::thread::spawn(move || {
        let mut file = File::options().write(true).open(path).unwrap();
        file.write_all(&bytes).unwrap();
    });
    (playing, dir)
}

#[test]
fn a_pipe_that_is_cut_inside_a_frame_gives_the_whole_ones_then_a_warning_then_the_end() {
    let frames = |len_bytes: usize| -> Vec<u8> {
        (0..10)
            .flat_map(|n| [frame_value(n); FRAME])
            .take(len_bytes)
            .collect()
    };
    for (whole, rest) in [(2, 1), (3, 100), (0, 4095)] {
        let (playing, _dir) = play_fifo(frames(whole * FRAME + rest), FORMAT);
        assert_eq!(playing.pull_frames(0), whole);
        let (frame, have) = (format!("frame {whole},"), format!("{rest} bytes"));
        let missing = format!("{} are missing", FRAME - rest);
        assert_says(&playing.warning(), &["fifo", &frame, &have, &missing]);
        playing.assert_eos();
    }
    // A cut between two frames loses nothing.
    for whole in [0, 3] {
        let (playing, _dir) = play_fifo(frames(whole * FRAME), FORMAT);
        assert_eq!(playing.pull_frames(0), whole);
        playing.assert_eos();
    }
    // A cut in the header, before the first frame.
    let (playing, _dir) = play_fifo(frames(10), &format!("{FORMAT} offset=32"));
    assert_eq!(playing.pull_frames(0), 0);
    assert_says(
        &playing.warning(),
        &["fifo", "frame 0,", "10 bytes", "4118 are missing"],
    );
    playing.assert_eos();
}

#[test]
fn a_y4m_pipe_that_is_cut_is_told_wherever_that_is() {
    let header = b"YUV4MPEG2 W64 H64 F25:1 Ip Cmono\n";
    let stream = |frames: usize| {
        let mut bytes = header.to_vec();
        for n in 0..frames {
            bytes.extend_from_slice(b"FRAME Ip\n");
            bytes.extend_from_slice(&[frame_value(n); FRAME]);
        }
        bytes
    };
    for (tail, warning) in [
        (&b""[..], None),
        (b"F", Some("1 bytes")),
        (b"FRAM", Some("4 bytes")),
        (b"FRAME I", Some("7 bytes")),
        (b"FRAME\n", Some("4096 are missing")),
        (b"FRAME\nabc", Some("4093 are missing")),
    ] {
        let (playing, _dir) = play_fifo([stream(2), tail.to_vec()].concat(), "");
        assert_eq!(playing.pull_frames(0), 2);
        if let Some(text) = warning {
            assert_says(&playing.warning(), &["fifo", "frame 2,", text]);
        }
        playing.assert_eos();
    }
}

#[test]
fn frames_of_more_reads_than_a_ring_holds_are_read_ahead() {
    // 30 rows of 8 bytes at a distance of 304, too large for one read across the gap. Then 8192
    // rows at a distance of 16, which take 32 reads a frame.
    for (height, stride, prefetch) in [(30usize, 304usize, 32), (8192, 16, 16)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip.raw");
        let frame_bytes = height * stride;
        let bytes: Vec<u8> = (0..6 * frame_bytes)
            .map(|i| (i * 131 % 253) as u8)
            .collect();
        std::fs::write(&path, &bytes).unwrap();
        let settings = format!(
            "format=gray8 width=8 height={height} framerate=25/1 plane-strides=\"<{stride}>\" io-mode=io-uring prefetch={prefetch} loop=true num-buffers=40"
        );
        let playing = Playing::new(&path, &settings, "");
        playing.start();
        let mut n = 0;
        while let Some(sample) = playing.pull() {
            let got = sample.buffer().unwrap().map_readable().unwrap();
            let frame = &bytes[n % 6 * frame_bytes..][..frame_bytes];
            let expected: Vec<u8> = frame
                .chunks(stride)
                .flat_map(|row| row[..8].to_vec())
                .collect();
            assert!(*got == expected, "frame {n} of {height} rows");
            n += 1;
        }
        assert_eq!(n, 40);
        playing.assert_eos();
    }
}

#[test]
fn no_descriptor_is_left_to_children() {
    let clip = Clip::new(4);
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut settings: Vec<String> = READ_MODES
        .iter()
        .map(|way| format!("{FORMAT} loop=true {way}"))
        .collect();
    settings.push(format!("{FORMAT} follow=true"));
    let mut all: Vec<Playing> = settings
        .iter()
        .map(|settings| Playing::new(&clip.path(), settings, "max-buffers=1"))
        .collect();
    all.push(Playing::new(&fifo, FORMAT, ""));
    for playing in &all {
        playing.start();
    }
    for playing in &all[..READ_MODES.len() + 1] {
        assert!(playing.pull().is_some());
    }
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let fd = entry.unwrap().file_name().into_string().unwrap();
        // Skips descriptors that have been closed since.
        let Ok(target) = std::fs::read_link(format!("/proc/self/fd/{fd}")) else {
            continue;
        };
        let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else {
            continue;
        };
        let target = target.to_string_lossy();
        let is_ours = [
            "clip.raw",
            "fifo",
            "io_uring",
            "eventfd",
            "inotify",
            "memfd:physmem",
        ]
        .iter()
        .any(|word| target.contains(word));
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = i32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        assert!(
            !is_ours || flags & libc::O_CLOEXEC != 0,
            "descriptor {fd} of {target} is open for children"
        );
    }
}

/// The inode of the file that is mapped at this address.
fn inode_at(address: usize) -> Option<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = words[0].split_once('-')?;
        let parse = |text| usize::from_str_radix(text, 16).ok();
        let is_there = (parse(start)?..parse(end)?).contains(&address);
        is_there.then(|| words[4].parse().ok())?
    })
}

fn is_mapped(inode: u64) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let inode = inode.to_string();
    maps.lines()
        .any(|line| line.split_whitespace().nth(4) == Some(&inode))
}

#[test]
fn memory_of_a_pool_that_was_replaced_is_given_back() {
    for way in ["io-mode=io-uring", "io-mode=io-uring direct=true"] {
        let clip = Clip::new(10);
        let settings = format!("{FORMAT} {way} loop=true ! physmemupload kind=normal");
        let playing = Playing::new(&clip.path(), &settings, "max-buffers=1");
        playing.start();
        let pad = playing.sink.static_pad("sink").unwrap();
        let mut inodes: Vec<u64> = Vec::new();
        while inodes.len() < 6 {
            let sample = playing.pull().unwrap();
            let start = {
                let bytes = sample.buffer().unwrap().map_readable().unwrap();
                bytes.as_ptr() as usize
            };
            // Each block is a memfd of its own.
            let inode = inode_at(start).unwrap();
            if inode == 0 {
                println!("SKIPPED: the memory has no file");
                return;
            }
            if !inodes.contains(&inode) {
                inodes.push(inode);
            }
            pad.push_event(gst::event::Reconfigure::new());
        }
        // The last pools may still have frames in the pipeline.
        let old = &inodes[..2];
        let mut turns = 0;
        while old.iter().any(|inode| is_mapped(*inode)) {
            assert!(playing.pull().is_some());
            turns += 1;
            assert!(turns < 1000, "{way}: {old:?} are still mapped");
        }
    }
}
