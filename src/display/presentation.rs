// SPDX-License-Identifier: MPL-2.0
//! When a frame is to be on the screen, when it was there, and how the pipeline learns of both: the latency of the
//! display, and the element message about each frame that was shown.

use std::sync::Mutex;
use std::time::Duration;

use gst::prelude::*;
use gst_base::prelude::*;

use crate::locks::lock;

/// The times of a frame. Those of the display are CLOCK_MONOTONIC, which is the clock of the kernel's time stamps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Timing {
    /// When the frame should be on the screen; `None` if the sink does not synchronise, or shows it for a preroll.
    pub(crate) due_ns: Option<u64>,
    /// The PTS of the frame.
    pub(crate) timestamp: Option<gst::ClockTime>,
    pub(crate) running_time: Option<gst::ClockTime>,
    pub(crate) stream_time: Option<gst::ClockTime>,
}

impl Timing {
    /// The times of a frame that `sink` is about to show. `now_ns` is CLOCK_MONOTONIC. Before a frame is rendered, for a
    /// preroll, base time and clock are still those of the time before.
    ///
    /// GstBaseSink hands a frame over at its running time and the latency of the pipeline, less `render-delay`. The
    /// frame should be on the screen when that delay is over, which is the running time and the whole latency.
    pub(crate) fn of(
        sink: &impl IsA<gst_base::BaseSink>,
        buffer: &gst::BufferRef,
        is_rendered: bool,
        now_ns: u64,
    ) -> Self {
        let sink: &gst_base::BaseSink = sink.upcast_ref();
        let segment = sink.segment();
        let segment = segment.downcast_ref::<gst::ClockTime>();
        let timestamp = buffer.pts();
        let running_time = segment.and_then(|segment| segment.to_running_time(timestamp));
        let stream_time = segment.and_then(|segment| segment.to_stream_time(timestamp));
        let clock = sink.clock().filter(|_| sink.is_sync() && is_rendered);
        let due_ns =
            running_time
                .zip(sink.base_time())
                .zip(clock)
                .and_then(|((running, base), clock)| {
                    let due =
                        (running + base + sink.latency()).nseconds() as i64 + sink.ts_offset();
                    now_ns.checked_add_signed(due - clock.time().nseconds() as i64)
                });
        Self {
            due_ns,
            timestamp,
            running_time,
            stream_time,
        }
    }
}

/// How a frame came onto the screen. The fields are those of `wp_presentation_feedback` in Wayland's protocol
/// presentation-time, as far as KMS and fbdev know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Presentation {
    pub(crate) timing: Timing,
    /// The vertical blank, or for a flip that does not wait for it the flip, CLOCK_MONOTONIC. `None` if the driver
    /// does not tell.
    pub(crate) shown_ns: Option<u64>,
    /// The time between two vertical blanks; if it varies, the shortest.
    pub(crate) period_ns: u64,
    /// The number of the vertical blank, if the driver counts them.
    pub(crate) sequence: Option<u32>,
    /// Whether the frame replaced the one before at a vertical blank, so that it did not tear.
    pub(crate) is_vsync: bool,
    /// Whether `shown_ns` is the kernel's time of the vertical blank, and not the time at which this process noticed.
    pub(crate) is_hw_clock: bool,
    /// Whether the display reads the memory that upstream wrote into.
    pub(crate) is_zero_copy: bool,
}

impl Presentation {
    /// How long after its time the frame was shown; 0 if in time, `None` if it has no time.
    pub(crate) fn late_ns(&self) -> Option<u64> {
        let (due_ns, shown_ns) = self.timing.due_ns.zip(self.shown_ns)?;
        Some(shown_ns.saturating_sub(due_ns))
    }

    /// Posts the element message. Its structure is named after the element's factory, and `event` is "presented". A
    /// field whose value is not known is left out.
    pub(crate) fn post(&self, sink: &impl IsA<gst::Element>, now_ns: u64) {
        let sink: &gst::Element = sink.upcast_ref();
        let now = sink.clock().map(|clock| SameMoment {
            pipeline: clock.time(),
            monotonic_ns: now_ns,
        });
        let factory = sink.factory();
        let name = factory.map_or_else(|| "presented".into(), |factory| factory.name());
        let structure = self.structure(&name, now);
        let message = gst::message::Element::builder(structure).src(sink);
        let _ = sink.post_message(message.build());
    }

    fn structure(&self, name: &str, now: Option<SameMoment>) -> gst::Structure {
        let on_clock = |ns: Option<u64>| now.zip(ns).and_then(|(now, ns)| now.on_pipeline(ns));
        let times = [
            ("timestamp", self.timing.timestamp),
            ("running-time", self.timing.running_time),
            ("stream-time", self.timing.stream_time),
            ("target-time", on_clock(self.timing.due_ns)),
            ("presentation-time", on_clock(self.shown_ns)),
        ];
        let mut structure = gst::Structure::builder(name)
            .field("event", "presented")
            .field("refresh-period", self.period_ns)
            .field("vsync", self.is_vsync)
            .field("hw-clock", self.is_hw_clock)
            .field("zero-copy", self.is_zero_copy)
            .build();
        for (name, time) in times {
            if let Some(time) = time {
                structure.set(name, time.nseconds());
            }
        }
        if let Some(sequence) = self.sequence {
            structure.set("sequence", sequence);
        }
        structure
    }
}

/// One moment on the pipeline's clock and on CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy)]
struct SameMoment {
    pipeline: gst::ClockTime,
    monotonic_ns: u64,
}

impl SameMoment {
    /// A time of CLOCK_MONOTONIC on the pipeline's clock. The clocks are taken to run equally fast from that time to
    /// this moment. `None` for a time before the pipeline's clock began.
    fn on_pipeline(&self, ns: u64) -> Option<gst::ClockTime> {
        let ahead = ns as i64 - self.monotonic_ns as i64;
        let time = self.pipeline.nseconds().checked_add_signed(ahead)?;
        gst::ClockTime::try_from(time).ok()
    }
}

/// The latency of the display, told to the pipeline by `render-delay` of GstBaseSink.
///
/// A frame that is handed to the driver is on the screen at the next vertical blank, that is within one period. The
/// property `render-delay` stands for exactly that: GstBaseSink adds it to the latency that it reports, so that the
/// pipeline delays all sinks by it, and hands frames over earlier by as much. If the sink added the period to the
/// answer of the LATENCY query alone, all sinks would be delayed, and its own frames would still be up to one period
/// late. `processing-deadline` is no substitute, because it only gives upstream time, and only in live pipelines.
#[derive(Debug, Default)]
pub(crate) struct RenderDelay(Mutex<gst::ClockTime>);

impl RenderDelay {
    /// Sets `render-delay`, and so posts a LATENCY message if it changes. A value that the application set stays. Must
    /// not be called under a lock of the sink.
    pub(crate) fn set(&self, sink: &impl IsA<gst_base::BaseSink>, delay: Duration) {
        let delay = gst::ClockTime::from_nseconds(delay.as_nanos() as u64);
        let mut ours = lock(&self.0);
        if sink.render_delay() != *ours {
            return;
        }
        *ours = delay;
        drop(ours);
        sink.set_render_delay(delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_nanos(16_666_667);

    fn presentation() -> Presentation {
        Presentation {
            timing: Timing {
                due_ns: Some(2_000),
                timestamp: Some(gst::ClockTime::from_nseconds(7)),
                running_time: Some(gst::ClockTime::from_nseconds(5)),
                stream_time: Some(gst::ClockTime::from_nseconds(6)),
            },
            shown_ns: Some(2_300),
            period_ns: 16_666_667,
            sequence: Some(9),
            is_vsync: true,
            is_hw_clock: true,
            is_zero_copy: false,
        }
    }

    #[test]
    fn a_message_has_the_times_of_the_frame_and_those_of_the_screen_on_the_pipelines_clock() {
        gst::init().unwrap();
        let now = SameMoment {
            pipeline: gst::ClockTime::from_nseconds(1_000_000),
            monotonic_ns: 3_000,
        };
        let structure = presentation().structure("kmsflipsink", Some(now));
        assert_eq!(structure.name(), "kmsflipsink");
        for (name, value) in [
            ("timestamp", 7),
            ("running-time", 5),
            ("stream-time", 6),
            ("target-time", 999_000),
            ("presentation-time", 999_300),
            ("refresh-period", 16_666_667),
        ] {
            assert_eq!(structure.get::<u64>(name), Ok(value), "{name}");
        }
        assert_eq!(structure.get::<u32>("sequence"), Ok(9));
        for (name, value) in [("vsync", true), ("hw-clock", true), ("zero-copy", false)] {
            assert_eq!(structure.get::<bool>(name), Ok(value), "{name}");
        }
        assert_eq!(structure.get::<&str>("event"), Ok("presented"));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        gst::init().unwrap();
        let unknown = Presentation {
            timing: Timing::default(),
            sequence: None,
            ..presentation()
        };
        let structure = unknown.structure("fbpansink", None);
        for name in [
            "timestamp",
            "running-time",
            "stream-time",
            "target-time",
            "presentation-time",
            "sequence",
        ] {
            assert!(!structure.has_field(name), "{name}");
        }
        assert_eq!(unknown.late_ns(), None);
    }

    #[test]
    fn a_time_before_the_clock_began_is_not_known() {
        let now = SameMoment {
            pipeline: gst::ClockTime::from_nseconds(10),
            monotonic_ns: 3_000,
        };
        assert_eq!(now.on_pipeline(2_989), None);
        assert_eq!(now.on_pipeline(2_990), Some(gst::ClockTime::ZERO));
        let later = gst::ClockTime::from_nseconds(1_010);
        assert_eq!(now.on_pipeline(4_000), Some(later));
    }

    #[test]
    fn late_is_the_time_after_the_target_and_never_less_than_nothing() {
        assert_eq!(presentation().late_ns(), Some(300));
        let early = Presentation {
            shown_ns: Some(1_000),
            ..presentation()
        };
        assert_eq!(early.late_ns(), Some(0));
        let unknown = Presentation {
            shown_ns: None,
            ..presentation()
        };
        assert_eq!(unknown.late_ns(), None);
    }

    fn live_pipeline() -> (gst::Pipeline, gst_base::BaseSink) {
        gst::init().unwrap();
        let pipeline = "fakesrc is-live=true do-timestamp=true ! fakesink name=sink sync=true";
        let pipeline = gst::parse::launch(pipeline).unwrap();
        let pipeline: gst::Pipeline = pipeline.downcast().unwrap();
        let sink = pipeline.by_name("sink").unwrap().downcast().unwrap();
        (pipeline, sink)
    }

    /// The least latency that the sink reports.
    fn reported(sink: &gst_base::BaseSink) -> gst::ClockTime {
        let (_, is_upstream_live, min, _) = sink.query_latency().unwrap();
        assert!(is_upstream_live);
        min.unwrap()
    }

    #[test]
    fn a_live_pipeline_is_delayed_by_one_period_and_the_sink_is_not() {
        let (pipeline, sink) = live_pipeline();
        pipeline.set_state(gst::State::Playing).unwrap();
        let (changed, ..) = pipeline.state(gst::ClockTime::from_seconds(10));
        changed.unwrap();
        let before = reported(&sink);
        let bus = pipeline.bus().unwrap();
        while bus.pop_filtered(&[gst::MessageType::Latency]).is_some() {}
        let delay = RenderDelay::default();
        delay.set(&sink, PERIOD);
        let period = gst::ClockTime::from_nseconds(PERIOD.as_nanos() as u64);
        assert_eq!(reported(&sink), before + period);
        let told = bus.pop_filtered(&[gst::MessageType::Latency]);
        assert!(
            told.is_some(),
            "the pipeline has to ask for the latency again"
        );
        delay.set(&sink, 2 * PERIOD);
        assert_eq!(reported(&sink), before + 2 * period);
        pipeline.set_state(gst::State::Null).unwrap();
    }

    #[test]
    fn the_applications_own_delay_stays() {
        let (_, sink) = live_pipeline();
        let delay = RenderDelay::default();
        delay.set(&sink, PERIOD);
        let own = gst::ClockTime::from_mseconds(40);
        sink.set_render_delay(own);
        delay.set(&sink, 2 * PERIOD);
        assert_eq!(sink.render_delay(), own);
    }
}
