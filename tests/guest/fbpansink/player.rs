// SPDX-License-Identifier: MPL-2.0
//! Pipelines that end in `fbpansink name=s`, and the pictures that they ought
//! to show.

use std::path::Path;
use std::sync::{Mutex, Once};

use gst::prelude::*;
use gst_video::VideoFormat;
use gst_video::prelude::*;

use crate::support::Picture;

/// Long, for a loaded machine under TCG; a hang is what it ends.
const LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(240);

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().expect("GStreamer starts");
        gstphysmem::plugin_register_static().expect("the plugin registers");
    });
}

pub struct Player {
    pub pipeline: gst::Pipeline,
    pub sink: gst::Element,
    /// Taken from the bus and not asked for yet.
    seen: Mutex<Vec<gst::Message>>,
}

impl Player {
    #[track_caller]
    pub fn new(launch: &str) -> Self {
        init();
        let pipeline = gst::parse::launch(launch).unwrap_or_else(|e| panic!("{launch}: {e}"));
        let pipeline: gst::Pipeline = pipeline.downcast().expect("a pipeline");
        let sink = pipeline.by_name("s").expect("a sink called s");
        Self {
            pipeline,
            sink,
            seen: Mutex::default(),
        }
    }

    /// Plays to the end; the screen still shows the last frame.
    #[track_caller]
    pub fn play(launch: &str) -> Self {
        let player = Self::new(launch);
        player.start();
        player.wait_eos();
        player
    }

    #[track_caller]
    pub fn start(&self) {
        if self.pipeline.set_state(gst::State::Playing).is_err() {
            panic!("does not play: {:?}", self.error());
        }
    }

    #[track_caller]
    pub fn refuses_to_start(&self) {
        let started = self.pipeline.set_state(gst::State::Playing);
        assert!(started.is_err(), "{started:?}");
    }

    #[track_caller]
    pub fn preroll(&self) {
        let paused = self.pipeline.set_state(gst::State::Paused);
        let prerolled = paused.and_then(|_| self.pipeline.state(LIMIT).0);
        assert!(
            prerolled.is_ok_and(|change| change != gst::StateChangeSuccess::Async),
            "does not preroll: {:?}",
            self.error()
        );
    }

    #[track_caller]
    pub fn wait_eos(&self) {
        let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
        let message = self
            .wait(&wanted)
            .unwrap_or_else(|| panic!("hangs: {}", self.stats()));
        if let gst::MessageView::Error(error) = message.view() {
            panic!("{}: {:?}", error.error(), error.debug());
        }
    }

    /// Waits for a message of these types; others are kept.
    fn wait(&self, wanted: &[gst::MessageType]) -> Option<gst::Message> {
        let bus = self.pipeline.bus()?;
        loop {
            let message = bus.timed_pop(LIMIT)?;
            if wanted.contains(&message.type_()) {
                return Some(message);
            }
            self.seen.lock().unwrap().push(message);
        }
    }

    /// Waits for the sink's own message.
    #[track_caller]
    pub fn wait_event(&self, name: &str) {
        loop {
            let wanted = [gst::MessageType::Element, gst::MessageType::Error];
            let message = self.wait(&wanted);
            let message = message.unwrap_or_else(|| panic!("no {name}: {}", self.stats()));
            if let gst::MessageView::Error(error) = message.view() {
                panic!("{}: {:?}", error.error(), error.debug());
            }
            let structure = message.structure().expect("an element message has one");
            if structure.name() == "fbpansink" && structure.get::<&str>("event") == Ok(name) {
                return;
            }
        }
    }

    /// The next error on the bus; waits for it.
    pub fn error(&self) -> Option<String> {
        self.wait(&[gst::MessageType::Error])
            .map(|message| text(&message))
    }

    /// All other messages of this type so far.
    pub fn messages(&self, of_type: gst::MessageType) -> Vec<String> {
        let bus = self.pipeline.bus().expect("a bus");
        let mut seen = self.seen.lock().unwrap();
        seen.extend(std::iter::from_fn(|| bus.pop()));
        seen.extract_if(.., |message| message.type_() == of_type)
            .map(|message| text(&message))
            .collect()
    }

    /// Seeks to a frame, exactly; in PAUSED it is then on screen.
    #[track_caller]
    pub fn seek(&self, frame: u64, fps: u64) {
        let time = gst::ClockTime::from_nseconds((frame * 1_000_000_000).div_ceil(fps));
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        self.pipeline.seek_simple(flags, time).expect("it seeks");
        let (result, ..) = self.pipeline.state(LIMIT);
        assert!(result.is_ok(), "{:?}", self.error());
    }

    pub fn stats(&self) -> gst::Structure {
        self.sink.property("stats")
    }

    #[track_caller]
    pub fn count(&self, counter: &str) -> u64 {
        let stats = self.stats();
        stats
            .get(counter)
            .unwrap_or_else(|e| panic!("{e}: {stats}"))
    }

    /// Waits until so many frames were shown.
    #[track_caller]
    pub fn wait_shown(&self, n: u64) {
        while self.count("shown") < n {
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    }

    #[track_caller]
    pub fn text(&self, field: &str) -> String {
        let stats = self.stats();
        stats.get(field).unwrap_or_else(|e| panic!("{e}: {stats}"))
    }

    #[track_caller]
    pub fn assert_zero_copy(&self, frames: u64) {
        let counted = (self.count("zero-copy"), self.count("copied"));
        assert_eq!(counted, (frames, 0), "{}", self.stats());
        assert!(
            self.text("path").starts_with("zero-copy: "),
            "{}",
            self.stats()
        );
    }

    pub fn stop(&self) {
        self.pipeline.set_state(gst::State::Null).expect("it stops");
    }
}

fn text(message: &gst::Message) -> String {
    match message.view() {
        gst::MessageView::Error(error) => error.error().to_string(),
        gst::MessageView::Warning(warning) => warning.error().to_string(),
        _ => format!("{message:?}"),
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// The frames that a pipeline description makes, in the order they come: the
/// same description without any code under test behind it.
#[track_caller]
pub fn frames(launch: &str, caps: &str) -> (gst_video::VideoInfo, Vec<gst::Buffer>) {
    init();
    let launch = format!("{launch} ! {caps} ! appsink name=sink sync=false");
    let pipeline = gst::parse::launch(&launch).unwrap_or_else(|e| panic!("{launch}: {e}"));
    let pipeline: gst::Pipeline = pipeline.downcast().expect("a pipeline");
    let sink = pipeline.by_name("sink").expect("appsink");
    let sink: gst_app::AppSink = sink.downcast().expect("appsink");
    pipeline.set_state(gst::State::Playing).expect("it plays");
    let (mut info, mut buffers) = (None, Vec::new());
    while let Some(sample) = sink.try_pull_sample(LIMIT) {
        let caps = sample.caps().expect("caps");
        info = gst_video::VideoInfo::from_caps(caps).ok();
        buffers.push(sample.buffer_owned().expect("a buffer"));
    }
    let ended = sink.is_eos();
    let bus = pipeline.bus().expect("a bus");
    let error = bus.pop_filtered(&[gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null).expect("it stops");
    if let Some(error) = error {
        panic!("{launch}: {}", text(&error));
    }
    assert!(ended, "{launch}: no end");
    (
        info.unwrap_or_else(|| panic!("{launch}: no video")),
        buffers,
    )
}

/// The last of these frames, as a picture.
#[track_caller]
pub fn last_frame(launch: &str, caps: &str) -> Picture {
    let (info, buffers) = frames(launch, caps);
    let buffer = buffers.last().expect("at least one frame");
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).expect("a frame");
    picture(
        frame.plane_data(0).expect("one plane"),
        frame.plane_stride()[0] as usize,
        &info,
    )
}

/// Frame `n` of rawvideosrc's pattern.
pub fn pattern(n: u64, format: VideoFormat, width: u32, height: u32) -> Picture {
    init();
    let info = gst_video::VideoInfo::builder(format, width, height)
        .build()
        .expect("an info");
    let bytes = gstphysmem::rawvideosrc::pattern::render(n, &info).expect("a frame");
    picture(&bytes, info.stride()[0] as usize, &info)
}

/// Packed RGB of any kind as a picture.
pub fn picture(bytes: &[u8], stride: usize, info: &gst_video::VideoInfo) -> Picture {
    let (width, height) = (info.width() as usize, info.height() as usize);
    let pixel_bytes = info.format_info().pixel_stride()[0] as usize;
    Picture::from_fn(width, height, |x, y| {
        let at = y * stride + x * pixel_bytes;
        rgb(&bytes[at..at + pixel_bytes], info.format())
    })
}

fn rgb(pixel: &[u8], format: VideoFormat) -> [u8; 3] {
    match format {
        VideoFormat::Bgr | VideoFormat::Bgrx => [pixel[2], pixel[1], pixel[0]],
        VideoFormat::Rgb | VideoFormat::Rgbx => [pixel[0], pixel[1], pixel[2]],
        VideoFormat::Rgb16 => {
            let word = u16::from_le_bytes([pixel[0], pixel[1]]);
            let five = |v: u16| ((v & 31) << 3 | (v & 31) >> 2) as u8;
            let six = |v: u16| ((v & 63) << 2 | (v & 63) >> 4) as u8;
            [five(word >> 11), six(word >> 5), five(word)]
        }
        other => panic!("no picture of {other}"),
    }
}

/// `frame` on a black screen.
pub fn on_black(frame: &Picture, x: usize, y: usize, width: usize, height: usize) -> Picture {
    let (right, bottom) = (x + frame.width, y + frame.height);
    Picture::from_fn(width, height, |px, py| {
        let inside = (x..right).contains(&px) && (y..bottom).contains(&py);
        if inside {
            frame.pixel(px - x, py - y)
        } else {
            [0; 3]
        }
    })
}

/// Random bytes that are the same each time.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A file of `frames` packed frames of noise; the bytes of each.
pub fn noise_file(path: &Path, frames: usize, frame_bytes: usize) -> Vec<Vec<u8>> {
    let frames: Vec<_> = (0..frames)
        .map(|n| noise(frame_bytes, n as u64 + 1))
        .collect();
    std::fs::write(path, frames.concat()).expect("room for the file");
    frames
}

/// Bytes from row to row of a BGR frame as GStreamer lays it out.
pub fn bgr_stride(width: usize) -> usize {
    (width * 3).next_multiple_of(4)
}

/// Such a frame as a picture.
pub fn bgr_picture(bytes: &[u8], width: usize, height: usize) -> Picture {
    let stride = bgr_stride(width);
    Picture::from_fn(width, height, |x, y| {
        let at = y * stride + x * 3;
        [bytes[at + 2], bytes[at + 1], bytes[at]]
    })
}
