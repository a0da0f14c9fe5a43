// SPDX-License-Identifier: MPL-2.0
//! The pipelines under test: what each display of the lab is played on with.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gst::prelude::*;

use crate::support::player::Player;
use crate::support::{self, CMA_HEAPS};

/// The end of a pipeline on the display of this guest. The element called "sink" counts frames.
///
/// Late frames are shown: those that the base class drops because they are late are told in messages only, since
/// each pause and flush sets its counter to zero.
pub fn sink() -> &'static str {
    match support::display().as_str() {
        "vkms" => "kmsflipsink name=sink mode=640x480 max-lateness=-1",
        "none" if has_cma() => "physmemupload name=sink memory-kind=cma ! fakesink sync=true",
        "none" => "physmemupload name=sink ! fakesink sync=true",
        _ => "fbpansink name=sink",
    }
}

fn has_cma() -> bool {
    CMA_HEAPS.iter().any(|heap| Path::new(heap).exists())
}

/// Makes one of each element that faults use: templates and caps of its class stay, and are no leak.
pub fn load_elements() {
    const NAMES: [&str; 9] = [
        "queue",
        "identity",
        "tee",
        "capsfilter",
        "videotestsrc",
        "appsink",
        "fakesink",
        "rawvideosrc",
        "physmemupload",
    ];
    for name in NAMES {
        gst::ElementFactory::make(name)
            .build()
            .expect("an element of the lab");
    }
}

/// The format that the display shows.
pub fn format() -> &'static str {
    match support::display().as_str() {
        "cirrus" => "bgr",
        _ => "bgrx",
    }
}

fn pixel_bytes() -> usize {
    if format() == "bgr" { 3 } else { 4 }
}

/// 60 small frames in a file, which a source plays for ever. In a file, because a pattern has no
/// length, and so that the source reads.
pub struct Clip(tempfile::NamedTempFile);

pub const CLIP_FRAMES: usize = 60;

impl Clip {
    pub fn new() -> Self {
        let mut file = tempfile::Builder::new()
            .suffix(".raw")
            .tempfile()
            .expect("a file");
        for number in 0..CLIP_FRAMES {
            let frame = vec![(number * 4 + 3) as u8; 64 * 48 * pixel_bytes()];
            file.write_all(&frame).expect("the file takes a frame");
        }
        file.flush().expect("the file is written");
        Self(file)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A source that plays the clip.
    pub fn source(&self) -> String {
        format!(
            "rawvideosrc name=source location={} format={} width=64 height=48 framerate=60/1 loop=true",
            self.path().display(),
            format()
        )
    }

    /// A player of the clip, with these elements between source and sink.
    #[track_caller]
    pub fn player(&self, between: &str) -> Player {
        Player::new(&format!(
            "{} {between} ! torturegate name=gate ! {}",
            self.source(),
            sink()
        ))
    }
}

/// gst-launch with a pipeline, and its threads, under strace, without the tracer of this guest.
pub fn launch_under_strace(pipeline: &str, options: &[&str], output: &Path) -> Command {
    let launch = support::gst_launch(&format!("-q {pipeline}"));
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq"])
        .args(options)
        .arg("-o")
        .arg(output)
        .arg("--")
        .arg(launch.get_program())
        .args(launch.get_args())
        .env_remove("GST_TRACERS");
    strace
}

/// How many frames the element called "sink" has shown or passed on.
pub fn progress(player: &Player) -> u64 {
    let stats = player.stats();
    let count = |name: &str| stats.get::<u64>(name).unwrap_or(0);
    count("shown")
        + count("passed")
        + if stats.has_field("shown") {
            0
        } else {
            count("copied")
        }
}

/// Fails unless the player, in PLAYING, shows more frames.
#[track_caller]
pub fn assert_goes_on(player: &Player) {
    let target = progress(player) + 5;
    player.wait_until("more frames", |player| progress(player) >= target);
    assert_eq!(player.errors(), [""; 0], "{}", player.stats());
}

/// Takes the errors from the bus, of which none may be of an element's own. A stop may meet an event on its way: a pad that
/// is just deactivated answers it with "no", and the source or the queue reports that the stream has failed. Returns
/// whether one did, so that only READY or NULL lets frames flow again.
#[track_caller]
pub fn has_failed_by_a_stop(player: &Player) -> bool {
    const OF_STOPS: [&str; 2] = ["gst_base_src_loop", "gst_queue_handle_sink_event"];
    let is_of_a_stop = |error: &String| OF_STOPS.iter().any(|function| error.contains(function));
    let (of_stops, others): (Vec<_>, Vec<_>) = player.errors().into_iter().partition(is_of_a_stop);
    assert_eq!(others, [""; 0], "{}", player.stats());
    !of_stops.is_empty()
}

/// Waits until the player shows frames or says why it does not. Returns the error, or the warning that there is no memory
/// for the next frame.
#[track_caller]
pub fn frames_or_error(player: &Player) -> Option<String> {
    let target = progress(player) + 3;
    let deadline = std::time::Instant::now() + support::player::LIMIT;
    loop {
        if let Some(error) = player.errors().into_iter().next() {
            assert!(error.len() > 20, "an error that says nothing: {error}");
            return Some(error);
        }
        if progress(player) >= target {
            return None;
        }
        let mut warnings = player.messages(gst::MessageType::Warning).into_iter();
        if let Some(warning) = warnings.find(|warning| warning.contains("there is no memory")) {
            return Some(warning);
        }
        assert!(
            std::time::Instant::now() < deadline,
            "neither frames nor an error: {}",
            player.stats()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All elements of a pipeline, of which none may be kept by anything after the pipeline.
pub fn weak(pipeline: &gst::Pipeline) -> Vec<gst::glib::WeakRef<gst::Element>> {
    pipeline
        .iterate_elements()
        .into_iter()
        .flatten()
        .map(|element| element.downgrade())
        .collect()
}
