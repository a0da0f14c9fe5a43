// SPDX-License-Identifier: MPL-2.0
//! Pipelines of rawvideosrc and an appsink, and files for them to play.

use gst::prelude::*;
use gstphysmem::layout::Layout;
use std::{path::Path, sync::Once};

pub const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(30);

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstphysmem::plugin_register_static().unwrap();
    });
}

/// A pipeline that ends in an appsink and goes to NULL on drop.
pub struct Pipeline {
    pub pipeline: gst::Pipeline,
    pub sink: gst_app::AppSink,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

impl Pipeline {
    /// `description` is the pipeline without its sink.
    pub fn new(description: &str) -> Self {
        init();
        let description = format!("{description} ! appsink name=sink sync=false");
        let pipeline = gst::parse::launch(&description)
            .unwrap()
            .downcast::<gst::Pipeline>()
            .unwrap();
        let sink = pipeline
            .by_name("sink")
            .unwrap()
            .downcast::<gst_app::AppSink>()
            .unwrap();
        Self { pipeline, sink }
    }

    pub fn set(&self, state: gst::State) {
        self.pipeline.set_state(state).unwrap();
        let (result, _, _) = self.pipeline.state(TIMEOUT);
        result.unwrap_or_else(|_| panic!("{:?}", self.errors()));
    }

    pub fn play(description: &str) -> Self {
        let this = Self::new(description);
        this.set(gst::State::Playing);
        this
    }

    pub fn pause(description: &str) -> Self {
        let this = Self::new(description);
        this.set(gst::State::Paused);
        this
    }

    pub fn pull(&self) -> Option<gst::Sample> {
        let sample = self.sink.try_pull_sample(TIMEOUT);
        assert!(
            sample.is_some() || self.sink.is_eos(),
            "neither a frame nor the end: {:?}",
            self.error()
        );
        sample
    }

    pub fn seek(&self, flags: gst::SeekFlags, start: impl gst::format::FormattedValue) {
        self.pipeline
            .seek_simple(flags | gst::SeekFlags::FLUSH, start)
            .unwrap();
        let (result, _, _) = self.pipeline.state(TIMEOUT);
        result.unwrap();
    }

    /// Waits for an error; returns all errors on the bus.
    pub fn errors(&self) -> Vec<String> {
        let bus = self.pipeline.bus().unwrap();
        let first = bus.timed_pop_filtered(TIMEOUT, &[gst::MessageType::Error]);
        // Afterwards no thread posts any more. In NULL the bus would have lost what is on it.
        self.pipeline.set_state(gst::State::Ready).unwrap();
        first
            .into_iter()
            .chain(std::iter::from_fn(|| {
                bus.pop_filtered(&[gst::MessageType::Error])
            }))
            .map(|message| match message.view() {
                gst::MessageView::Error(error) => error.error().to_string(),
                _ => unreachable!(),
            })
            .collect()
    }

    pub fn error(&self) -> Option<String> {
        let message = self
            .pipeline
            .bus()?
            .pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => Some(error.error().to_string()),
            _ => None,
        }
    }
}

/// A file of pseudo-random bytes.
pub struct RawFile {
    pub dir: tempfile::TempDir,
    pub bytes: Vec<u8>,
}

impl RawFile {
    pub fn new(len_bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut state = 1u32;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(len_bytes)
        .collect();
        let file = Self { dir, bytes };
        std::fs::write(file.path(), &file.bytes).unwrap();
        file
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("frames.raw")
    }

    /// The launch line of a rawvideosrc for this file.
    pub fn source(&self, info: &gst_video::VideoInfo) -> String {
        format!(
            "rawvideosrc location={} format={} width={} height={} framerate=25/1",
            self.path().display(),
            info.format().to_str().to_lowercase().replace('_', "-"),
            info.width(),
            info.height()
        )
    }

    pub fn frame(&self, n: usize, size_bytes: usize) -> &[u8] {
        &self.bytes[n * size_bytes..][..size_bytes]
    }

    /// Whether the sample holds exactly frame `n`.
    pub fn is_frame(&self, n: usize, size_bytes: usize, sample: &gst::Sample) -> bool {
        let got = sample.buffer().unwrap().map_readable().unwrap();
        *got == *self.frame(n, size_bytes)
    }

    /// Truncates the file.
    pub fn cut(&self, len_bytes: usize) {
        let file = std::fs::File::options().write(true).open(self.path());
        file.unwrap().set_len(len_bytes as u64).unwrap();
    }
}

pub fn info(format: gst_video::VideoFormat, width: u32, height: u32) -> gst_video::VideoInfo {
    init();
    gst_video::VideoInfo::builder(format, width, height)
        .fps((25, 1))
        .build()
        .unwrap()
}

/// The bytes of each row of a buffer, without padding, whatever its layout.
pub fn rows(info: &gst_video::VideoInfo, buffer: &gst::BufferRef) -> Vec<Vec<u8>> {
    let layout = Layout::of_buffer(info, buffer).unwrap();
    rows_of(&layout, &buffer.map_readable().unwrap())
}

pub fn rows_of(layout: &Layout, bytes: &[u8]) -> Vec<Vec<u8>> {
    let planes = layout.planes().iter();
    planes
        .flat_map(|plane| (0..plane.rows).map(|row| bytes[plane.row(row)].to_vec()))
        .collect()
}

pub fn y4m(header: &str, frame_header: impl Fn(usize) -> String, frames: &[&[u8]]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    for (n, frame) in frames.iter().enumerate() {
        bytes.extend_from_slice(frame_header(n).as_bytes());
        bytes.extend_from_slice(frame);
    }
    bytes
}

pub fn fifo(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("pipe");
    let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
    nix::unistd::mkfifo(&path, mode).unwrap();
    path
}
