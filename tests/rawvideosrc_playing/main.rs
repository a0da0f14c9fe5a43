// SPDX-License-Identifier: MPL-2.0
//! How `rawvideosrc` plays: what it answers while it waits for input, where seeks go, and when a
//! live source begins.
#![allow(clippy::unwrap_used)]

mod seeking;
mod waiting;

#[path = "../common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::sync::{Once, mpsc};
use std::time::Duration;

use gst::prelude::*;

/// Long enough to be reached by a hang only.
const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(30);
/// The bytes of an 8x4 frame in GRAY8.
const FRAME_BYTES: usize = 32;
/// The duration of a frame at 25/1 in milliseconds.
const FRAME_MS: u64 = 40;

fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstphysmem::plugin_register_static().unwrap();
    });
}

/// Runs the work on a thread of its own and fails if it hangs.
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

    /// The number of the preroll frame.
    fn prerolled(&self) -> u64 {
        number(&self.sink.try_pull_preroll(TIMEOUT).unwrap())
    }

    /// The numbers of the next frames, `most` at most.
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

    fn seek(&self, rate: f64, flags: gst::SeekFlags, start: SeekBound, stop: SeekBound) -> bool {
        let flags = flags | gst::SeekFlags::FLUSH;
        let seek = gst::event::Seek::new(rate, flags, start.0, start.1, stop.0, stop.1);
        let pipeline = self.pipeline.clone();
        in_time("a seek", move || pipeline.send_event(seek))
    }
}

/// One boundary of a seek.
#[derive(Clone, Copy)]
struct SeekBound(gst::SeekType, gst::GenericFormattedValue);

impl SeekBound {
    fn in_format(kind: gst::SeekType, format: gst::Format, value: i64) -> Self {
        Self(kind, gst::GenericFormattedValue::new(format, value))
    }

    fn keep() -> Self {
        Self::in_format(gst::SeekType::None, gst::Format::Time, -1)
    }

    fn at(ms: u64) -> Self {
        Self::in_format(gst::SeekType::Set, gst::Format::Time, ms as i64 * 1_000_000)
    }

    /// A time relative to the end.
    fn end(ms: i64) -> Self {
        Self::in_format(gst::SeekType::End, gst::Format::Time, ms * 1_000_000)
    }
}

/// The frame number, which is the value of each byte.
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
