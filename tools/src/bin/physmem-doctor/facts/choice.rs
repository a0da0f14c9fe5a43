// SPDX-License-Identifier: MPL-2.0
//! What the sinks do on each display. Only with --try-display, because it changes the screen.

use gst::prelude::*;
use serde::Serialize;

use super::Facts;

/// Frames of the test pattern: a second.
const FRAMES: u32 = 30;
const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(30);

/// `rawvideosrc ! SINK device=DEVICE` after some frames.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Played {
    pub sink: &'static str,
    pub device: String,
    /// Why the pipeline did not play.
    pub error: Option<String>,
    pub shown: u64,
    pub zero_copy: u64,
    pub copied: u64,
    /// The sink's sentence on the path of the frames.
    pub path: Option<String>,
    /// The sink's property `stats`, as text.
    pub stats: Option<String>,
}

/// Plays on each framebuffer, and on each card that may have a display.
pub fn play(facts: &Facts) -> Vec<Played> {
    let error = gstphysmem::plugin_register_static().err();
    let framebuffers = facts.framebuffers.iter().map(|one| &one.name);
    let cards = facts.cards.iter().filter(|card| card.may_show());
    framebuffers
        .map(|name| ("fbpansink", format!("/dev/{name}")))
        .chain(cards.map(|card| ("kmsflipsink", format!("/dev/dri/{}", card.name))))
        .map(|(sink, device)| match &error {
            None => play_on(sink, device),
            Some(error) => Played {
                sink,
                device,
                error: Some(error.to_string()),
                ..Played::default()
            },
        })
        .collect()
}

fn play_on(sink: &'static str, device: String) -> Played {
    let mut played = Played {
        sink,
        device,
        ..Played::default()
    };
    if let Err(error) = play_into(&mut played) {
        played.error = Some(error);
    }
    played
}

fn play_into(played: &mut Played) -> Result<(), String> {
    let text = |error: gst::glib::BoolError| error.to_string();
    let frames = FRAMES.to_string();
    let source = gst::ElementFactory::make("rawvideosrc")
        .property_from_str("num-buffers", &frames)
        .build();
    let sink = gst::ElementFactory::make(played.sink)
        .property("device", &played.device)
        .build();
    let (source, sink) = (source.map_err(text)?, sink.map_err(text)?);
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([&source, &sink]).map_err(text)?;
    source.link(&sink).map_err(text)?;
    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    // A failure is an error on the bus, too, which says why.
    let started = pipeline.set_state(gst::State::Playing);
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(TIMEOUT, &wanted);
    let stats = sink.property::<gst::Structure>("stats");
    let _ = pipeline.set_state(gst::State::Null);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => {}
        Some(gst::MessageView::Error(error)) => return Err(error.error().to_string()),
        _ if started.is_err() => return Err("it did not start, and did not say why".into()),
        _ => return Err(format!("no end after {} s", TIMEOUT.seconds())),
    }
    let count = |name| stats.get::<u64>(name).unwrap_or(0);
    played.shown = count("shown");
    played.zero_copy = count("zero-copy");
    played.copied = count("copied");
    played.path = stats.get("path").ok();
    played.stats = Some(stats.to_string());
    Ok(())
}
