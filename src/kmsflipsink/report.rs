// SPDX-License-Identifier: MPL-2.0
//! What the sink tells other elements and the application: caps, errors, messages, QoS, `stats`.

use gst::prelude::*;

use super::claimed_plane::Report;
use super::composition;
use super::dma_drm;
use super::error::KmsError;
use super::fields;
use super::format;
use super::head::{Head, HeadStats};
use super::import::Imports;
use super::stats::LATENCY_BOUNDS_US;
use super::{CAT, KmsFlipSink};

/// The caps that a head can show: those of its plane, then those of other planes that the sink can move to.
pub fn caps(head: &Head) -> gst::Caps {
    let (width, height) = head.max_size;
    let up_to = |max: u32| 1..=i32::try_from(max).unwrap_or(i32::MAX);
    let planes = head.usable_planes();
    let mut formats = Vec::new();
    for plane in &planes {
        for format in format::supported(|fourcc| plane.shows(fourcc, dma_drm::LINEAR)) {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
    }
    let plain = gst_video::VideoCapsBuilder::new()
        .format_list(formats)
        .width_range(up_to(width))
        .height_range(up_to(height))
        .build();
    let plain = fields::also_fields(&plain);
    #[cfg(feature = "v1_24")]
    if head.device.can_import {
        let mut pairs = Vec::new();
        for plane in &planes {
            let linear = plane
                .fourccs
                .iter()
                .map(|&fourcc| (fourcc, dma_drm::LINEAR));
            let linear = linear.filter(|_| plane.in_formats.is_empty());
            for pair in plane.in_formats.iter().copied().chain(linear) {
                if !pairs.contains(&pair) {
                    pairs.push(pair);
                }
            }
        }
        let mut caps = dma_drm::caps(&pairs, head.max_size);
        caps.merge(plain);
        return composition::also_with_meta(&caps);
    }
    composition::also_with_meta(&plain)
}

pub fn error_message(error: &KmsError) -> gst::ErrorMessage {
    match error {
        KmsError::NoRoute(_) | KmsError::NoPlane { .. } => {
            gst::error_msg!(gst::ResourceError::NotFound, ("{error}"))
        }
        KmsError::NotMaster { .. } | KmsError::FdNotMaster { .. } => {
            gst::error_msg!(gst::ResourceError::Busy, ("{error}"))
        }
        KmsError::NoMode { .. } | KmsError::Property(_) => {
            gst::error_msg!(gst::ResourceError::Settings, ("{error}"))
        }
        KmsError::Refused { .. } => gst::error_msg!(gst::ResourceError::Write, ("{error}")),
        KmsError::Io { .. } => gst::error_msg!(gst::ResourceError::OpenReadWrite, ("{error}")),
        KmsError::Gone { .. } => gst::error_msg!(gst::ResourceError::NotFound, ("{error}")),
    }
}

/// The warning that the sink waits for an obstacle to pass; see `KmsError::may_pass`.
pub fn waiting(error: &KmsError) -> String {
    match error {
        KmsError::NoMode { connector, .. } => format!(
            "no display on {connector}; frames are dropped until one is plugged in or switched on"
        ),
        _ => format!(
            "another program, or another virtual terminal, has the display ({error}); frames are dropped until it is free"
        ),
    }
}

/// Logs a report of the card's thread, and posts it as an element message.
pub fn tell(sink: &KmsFlipSink, report: &Report) {
    let (name, detail) = match report {
        Report::Shown(_) | Report::TearingRefused(_) => return,
        Report::Refused(reason) => {
            gst::debug!(CAT, obj = sink, "a commit was refused: {reason}");
            return;
        }
        Report::Unplugged => (
            "unplugged",
            "the display was unplugged; frames are dropped".to_owned(),
        ),
        Report::Plugged(Some(line)) => ("plugged", format!("a display is there, mode {line}")),
        Report::Plugged(None) => ("plugged", "a display is there".to_owned()),
        Report::MasterLost(reason) => ("master-lost", format!("{reason}; frames are dropped")),
        Report::MasterRegained => ("master-regained", "the card is ours again".to_owned()),
        Report::Gone(gone) => ("gone", format!("the device is gone: {gone}")),
    };
    gst::info!(CAT, obj = sink, "{detail}");
    let structure = gst::Structure::builder("kmsflipsink")
        .field("event", name)
        .field("detail", detail)
        .build();
    let _ = sink.post_message(gst::message::Element::builder(structure).src(sink).build());
}

/// The warning that the sink goes without a property that display or driver cannot do.
pub fn without(property: &str, reason: &str) -> String {
    let instead = match property {
        "tearing" => "frames wait for the vertical blank",
        _ => "the refresh rate stays that of the mode",
    };
    format!("{property}=true has no effect, and {instead}: {reason}")
}

/// The QoS event for a frame that was shown more than two refresh periods after its time. The base class
/// cannot send it, because it does not know when a frame is shown.
pub fn qos(
    running_time: Option<gst::ClockTime>,
    late_ns: Option<u64>,
    period_ns: u64,
) -> Option<gst::Event> {
    let (running_time, late_ns) = running_time.zip(late_ns)?;
    // A frame that is handed over in time may wait for one period until the next vertical blank.
    if late_ns <= 2 * period_ns {
        return None;
    }
    let proportion = 1.0 + late_ns as f64 / period_ns as f64;
    let event = gst::event::Qos::builder(gst::QOSType::Underflow, proportion, late_ns as i64);
    Some(event.timestamp(running_time).build())
}

/// The fields of `stats` that are logged when the sink stops.
pub const NUMBERS: [&str; 14] = [
    "shown",
    "zero-copy",
    "copied",
    "repeated",
    "late",
    "missed-vblanks",
    "lost-flip-events",
    "dropped-no-master",
    "dropped-disconnected",
    "dropped-flushed",
    "dropped-refused",
    "dropped-memory-freed",
    "flips-per-second",
    "path",
];

/// Adds the sink's own fields to the base class's `stats`.
pub fn add_stats(structure: &mut gst::Structure, head: &Head, imports: &Imports) {
    let Some(HeadStats {
        frames: stats,
        has_vblank,
        mode,
        colours,
    }) = head.stats()
    else {
        return;
    };
    let (mean_ns, max_ns) = stats.latency_ns();
    head.log.add_to(structure);
    structure.set("late", stats.late);
    structure.set("missed-vblanks", stats.missed_vblanks);
    structure.set("lost-flip-events", stats.lost_events);
    structure.set("dropped-no-master", stats.dropped.no_master);
    structure.set("dropped-disconnected", stats.dropped.disconnected);
    structure.set("dropped-flushed", stats.dropped.flushed);
    structure.set("dropped-refused", stats.dropped.refused);
    structure.set("overlay-on-plane", stats.overlay_on_plane);
    structure.set("overlay-blended", stats.overlay_blended);
    structure.set("flips-per-second", stats.rate());
    structure.set("flip-latency-mean-us", mean_ns / 1000);
    structure.set("flip-latency-max-us", max_ns / 1000);
    structure.set("flip-latency-bounds-us", gst::Array::new(LATENCY_BOUNDS_US));
    structure.set("flip-latency-histogram", gst::Array::new(stats.latency));
    structure.set("framebuffers", imports.len() as u64);
    let own = head.usable_planes().into_iter().next();
    let modifiers: std::collections::BTreeSet<u64> = own
        .iter()
        .flat_map(|plane| &plane.in_formats)
        .map(|&(_, modifier)| modifier)
        .collect();
    structure.set("modifiers", gst::List::new(modifiers));
    structure.set("has-vblank", has_vblank);
    structure.set("device", head.device.path.as_str());
    structure.set("driver", head.device.driver.as_str());
    structure.set("connector", head.connector_name.as_str());
    structure.set("connector-id", head.route.connector);
    structure.set("clone-connectors", head.clone_names().join(","));
    structure.set("crtc-id", head.route.crtc);
    structure.set("plane-id", head.route.kms_plane);
    if let Some(mode) = mode {
        structure.set("mode", mode.to_string());
    }
    if let Some(colours) = colours {
        structure.set("colours", colours);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD_NS: u64 = 16_000_000;

    #[test]
    fn a_frame_two_periods_late_is_told_upstream_with_its_time() {
        gst::init().unwrap();
        let time = Some(gst::ClockTime::from_seconds(3));
        let event = qos(time, Some(3 * PERIOD_NS), PERIOD_NS).unwrap();
        match event.view() {
            gst::EventView::Qos(qos) => {
                let (kind, proportion, late, timestamp) = qos.get();
                assert_eq!(
                    (kind, late, timestamp),
                    (gst::QOSType::Underflow, 48_000_000, time)
                );
                assert!(proportion > 1.0);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_frame_in_time_or_without_time_is_not() {
        gst::init().unwrap();
        let time = Some(gst::ClockTime::ZERO);
        assert!(qos(time, Some(2 * PERIOD_NS), PERIOD_NS).is_none());
        assert!(qos(None, Some(9 * PERIOD_NS), PERIOD_NS).is_none());
        assert!(qos(time, None, PERIOD_NS).is_none());
    }
}
