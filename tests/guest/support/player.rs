// SPDX-License-Identifier: MPL-2.0
//! A pipeline under test, which ends in an element called "sink".

use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use gst::MessageType;
use gst::prelude::*;

use super::require_lab;

/// A time limit for hangs only, so it is long enough for a loaded machine without KVM.
pub const LIMIT: Duration = Duration::from_secs(240);
/// The same limit for waits in GStreamer.
pub const CLOCK_LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(LIMIT.as_secs());

pub fn init() {
    static INIT: Once = Once::new();
    require_lab();
    INIT.call_once(|| {
        super::init_gstreamer();
        gstphysmem::plugin_register_static().expect("the plugin registers");
    });
}

/// A pipeline that goes to NULL on drop.
pub struct Player {
    pub pipeline: gst::Pipeline,
    pub sink: gst::Element,
    /// Messages that were taken from the bus during a wait for another one.
    seen: Mutex<Vec<gst::Message>>,
}

impl Player {
    #[track_caller]
    pub fn new(description: &str) -> Self {
        init();
        let pipeline =
            gst::parse::launch(description).unwrap_or_else(|e| panic!("{description}: {e}"));
        let pipeline: gst::Pipeline = pipeline.downcast().expect("a pipeline");
        let sink = pipeline.by_name("sink").expect("a sink called sink");
        Self {
            pipeline,
            sink,
            seen: Mutex::default(),
        }
    }

    /// Plays to the end of the stream. The screen then still shows the last frame.
    #[track_caller]
    pub fn play(description: &str) -> Self {
        let player = Self::new(description);
        player.start();
        player.wait_for_end();
        player
    }

    #[track_caller]
    pub fn set_state(&self, state: gst::State) {
        let change = self.pipeline.set_state(state);
        assert!(change.is_ok(), "to {state:?}: {:?}", self.errors());
    }

    #[track_caller]
    pub fn reach(&self, state: gst::State) {
        self.set_state(state);
        self.settle(state);
    }

    /// Waits until a change of state, a seek or a step has led to this state.
    #[track_caller]
    pub fn settle(&self, state: gst::State) {
        let (result, now, _) = self.pipeline.state(CLOCK_LIMIT);
        assert!(
            result.is_ok() && now == state,
            "at {now:?} of {state:?}: {:?}",
            self.errors()
        );
    }

    #[track_caller]
    pub fn start(&self) {
        self.set_state(gst::State::Playing);
    }

    #[track_caller]
    pub fn stop(&self) {
        self.set_state(gst::State::Null);
    }

    #[track_caller]
    pub fn refuses_to_start(&self) {
        let started = self.pipeline.set_state(gst::State::Playing);
        assert!(started.is_err(), "{started:?}");
    }

    /// An accurate seek to a frame. In PAUSED that frame is then on the screen.
    #[track_caller]
    pub fn seek(&self, frame: u64, fps: u64) {
        let time = gst::ClockTime::from_nseconds((frame * 1_000_000_000).div_ceil(fps));
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        self.pipeline.seek_simple(flags, time).expect("it seeks");
        let (result, ..) = self.pipeline.state(CLOCK_LIMIT);
        assert!(result.is_ok(), "{:?}", self.errors());
    }

    /// Shows the next frame of a pipeline in PAUSED.
    #[track_caller]
    pub fn step(&self) {
        let step = gst::event::Step::new(gst::format::Buffers::ONE, 1.0, true, false);
        assert!(self.sink.send_event(step), "no step: {}", self.stats());
    }

    /// Returns the next message of these types and keeps the others.
    fn wait_for(&self, wanted: &[MessageType]) -> Option<gst::Message> {
        let bus = self.pipeline.bus()?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = bus.timed_pop(gst::ClockTime::try_from(left).ok())?;
            if wanted.contains(&message.type_()) {
                return Some(message);
            }
            self.seen.lock().unwrap().push(message);
        }
    }

    #[track_caller]
    pub fn wait_for_end(&self) {
        let end = self.wait_for(&[MessageType::Eos, MessageType::Error]);
        let end = end.unwrap_or_else(|| panic!("no end: {}", self.stats()));
        assert_eq!(end.type_(), MessageType::Eos, "{}", text(&end));
    }

    /// Waits for the element message of the sink with this event.
    #[track_caller]
    pub fn wait_for_event(&self, name: &str) {
        let factory = self.sink.factory().expect("every element has a factory");
        loop {
            let message = self.wait_for(&[MessageType::Element, MessageType::Error]);
            let message = message.unwrap_or_else(|| panic!("no {name}: {}", self.stats()));
            assert_ne!(message.type_(), MessageType::Error, "{}", text(&message));
            let structure = message.structure().expect("an element message has one");
            if *structure.name() == *factory.name() && structure.get::<&str>("event") == Ok(name) {
                return;
            }
        }
    }

    /// Waits for the end of the stream. Returns the messages about frames that were shown.
    #[track_caller]
    pub fn presented_until_end(&self) -> Vec<gst::Structure> {
        let mut presented = Vec::new();
        loop {
            let wanted = [MessageType::Element, MessageType::Eos, MessageType::Error];
            let message = self.wait_for(&wanted);
            let message = message.unwrap_or_else(|| panic!("no end: {}", self.stats()));
            assert_ne!(message.type_(), MessageType::Error, "{}", text(&message));
            let Some(structure) = message
                .structure()
                .filter(|_| message.type_() != MessageType::Eos)
            else {
                return presented;
            };
            if structure.get::<&str>("event") == Ok("presented") {
                presented.push(structure.to_owned());
            }
        }
    }

    /// Waits for an error: its text, its resource error and its debug details.
    #[track_caller]
    pub fn wait_for_error(&self) -> String {
        let error = self.wait_for(&[MessageType::Error]);
        text(&error.unwrap_or_else(|| panic!("no error: {}", self.stats())))
    }

    /// The texts of all errors that no wait has consumed.
    pub fn errors(&self) -> Vec<String> {
        self.messages(MessageType::Error)
    }

    /// The texts of all messages of this type that no wait has consumed.
    pub fn messages(&self, of_type: MessageType) -> Vec<String> {
        let bus = self.pipeline.bus().expect("a bus");
        let mut seen = self.seen.lock().unwrap();
        seen.extend(std::iter::from_fn(|| bus.pop()));
        seen.extract_if(.., |message| message.type_() == of_type)
            .map(|message| text(&message))
            .collect()
    }

    pub fn stats(&self) -> gst::Structure {
        self.sink.property("stats")
    }

    #[track_caller]
    fn field<T: for<'a> gst::glib::value::FromValue<'a> + 'static>(&self, name: &str) -> T {
        let stats = self.stats();
        let value = stats.value(name).ok().and_then(|value| value.get().ok());
        value.unwrap_or_else(|| panic!("no {name} in {stats}"))
    }

    #[track_caller]
    pub fn count(&self, name: &str) -> u64 {
        self.field(name)
    }

    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        self.field(name)
    }

    #[track_caller]
    pub fn assert_zero_copy(&self, frames: u64) {
        let counted = (self.count("zero-copy"), self.count("copied"));
        assert_eq!(counted, (frames, 0), "{}", self.stats());
        let path = self.text("path");
        assert!(path.starts_with("zero-copy: "), "{}", self.stats());
    }

    #[track_caller]
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_so(self) {
            assert!(
                Instant::now() < deadline,
                "no {what}: {} {:?}",
                self.stats(),
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    #[track_caller]
    pub fn wait_shown(&self, frames: u64) {
        self.wait_until(&format!("{frames} frames shown"), |player| {
            let shown = player.stats().get::<u64>("shown");
            shown.is_ok_and(|shown| shown >= frames)
        });
    }
}

/// For pipelines that begin with an appsrc called "src".
impl Player {
    pub fn appsrc(&self) -> gst_app::AppSrc {
        let source = self.pipeline.by_name("src").expect("a source called src");
        source.downcast().expect("an appsrc")
    }

    pub fn set_caps(&self, info: &gst_video::VideoInfo) {
        self.appsrc()
            .set_caps(Some(&info.to_caps().expect("caps of an info")));
    }

    /// Flushes from the source on, as a seek does.
    #[track_caller]
    pub fn flush(&self) {
        let source = self.appsrc();
        assert!(source.send_event(gst::event::FlushStart::new()));
        assert!(source.send_event(gst::event::FlushStop::new(true)));
    }

    /// Waits until the appsrc is empty, then pushes a frame.
    #[track_caller]
    pub fn push(&self, buffer: gst::Buffer) {
        self.wait_until("room for a frame", |player| {
            player.appsrc().current_level_buffers() == 0
        });
        let pushed = self.appsrc().push_buffer(buffer);
        pushed.unwrap_or_else(|e| panic!("{e:?}: {:?}", self.errors()));
    }

    #[track_caller]
    pub fn show(&self, buffer: gst::Buffer) {
        let before = self.stats().get::<u64>("shown").unwrap_or(0);
        self.push(buffer);
        self.wait_shown(before + 1);
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn text(message: &gst::Message) -> String {
    match message.view() {
        gst::MessageView::Error(error) => {
            let (kind, debug) = (error.error().kind::<gst::ResourceError>(), error.debug());
            format!("{} ({kind:?}) {}", error.error(), debug.unwrap_or_default())
        }
        gst::MessageView::Warning(warning) => warning.error().to_string(),
        _ => format!("{message:?}"),
    }
}
