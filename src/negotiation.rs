// SPDX-License-Identifier: MPL-2.0
//! Says in a sentence why two sides of a link have no caps in common: it names both sides and the
//! elements to put between them. GStreamer itself says "Internal data stream error".

use std::sync::Mutex;

use gst::prelude::*;
use gst_base::prelude::*;

use crate::locks::lock;

/// Elements that convert raw video, in the best order for a pipeline, and the fields of the caps
/// that each of them can change.
const CONVERTERS: [(&str, &[&str]); 4] = [
    ("deinterlace", &["interlace-mode", "field-order"]),
    (
        "videoconvert",
        &["format", "colorimetry", "chroma-site", "drm-format"],
    ),
    ("videoscale", &["width", "height", "pixel-aspect-ratio"]),
    ("videorate", &["framerate"]),
];

/// The fewest elements that bring the two sides together; `None` if these elements cannot.
fn between(upstream: &gst::Caps, sink: &gst::Caps) -> Option<Vec<&'static str>> {
    let mut subsets: Vec<u32> = (0..1 << CONVERTERS.len()).collect();
    subsets.sort_by_key(|subset| subset.count_ones());
    let chosen = |subset: u32| {
        CONVERTERS
            .iter()
            .enumerate()
            .filter(move |(index, _)| subset >> index & 1 == 1)
            .map(|(_, converter)| converter)
    };
    let subset = subsets.into_iter().find(|&subset| {
        let fields: Vec<&str> = chosen(subset)
            .flat_map(|(_, fields)| fields.iter().copied())
            .collect();
        without(upstream, &fields).can_intersect(&without(sink, &fields))
    })?;
    Some(chosen(subset).map(|(name, _)| *name).collect())
}

fn without(caps: &gst::Caps, fields: &[&str]) -> gst::Caps {
    let mut caps = caps.clone();
    for structure in caps.make_mut().iter_mut() {
        structure.remove_fields(fields.iter().copied());
    }
    caps
}

/// Whether these are caps of a stream. unixfdsrc, at least up to GStreamer 1.26, makes caps called
/// "NULL" if the other process has no caps yet; the right ones follow.
pub fn is_of_stream(caps: &gst::CapsRef) -> bool {
    caps.iter().any(|structure| structure.name().contains('/'))
}

/// Whether each buffer holds one field.
fn is_of_fields(caps: &gst::CapsRef) -> bool {
    caps.features(0)
        .is_some_and(|features| features.contains(gst_video::CAPS_FEATURE_FORMAT_INTERLACED))
}

fn takes_fields(sink: &gst::CapsRef) -> bool {
    let mut features = sink.iter_with_features().map(|(_, features)| features);
    features.any(|features| features.contains(gst_video::CAPS_FEATURE_FORMAT_INTERLACED))
}

/// Why the sink `name` cannot show `upstream`; `None` if it can, or if these are no caps yet.
pub fn why_not(upstream: &gst::Caps, name: &str, sink: &gst::Caps) -> Option<String> {
    if !is_of_stream(upstream) || upstream.can_intersect(sink) {
        return None;
    }
    let remedy = match between(upstream, sink) {
        Some(elements) => format!("put {} before {name}", elements.join(" ! ")),
        None if is_of_fields(upstream) && !takes_fields(sink) => format!(
            "{name} shows whole frames, and no element puts the fields of interlace-mode=alternate together; have what \
             makes them give interlace-mode=interleaved"
        ),
        None => format!("put an element before {name} that makes the one of the other"),
    };
    Some(format!(
        "{name} shows {sink}, and what comes to it is {upstream}: {remedy}"
    ))
}

/// The last sentence that a sink has posted about caps that it refuses.
#[derive(Default)]
pub struct Refusals(Mutex<String>);

impl Refusals {
    /// Upstream has asked what it can make of `upstream`, and gets nothing: its own error will say
    /// less than this. As it may only have been curious, this is a warning, and is posted once.
    pub fn note(&self, sink: &gst::Element, name: &str, upstream: &gst::Caps, shown: &gst::Caps) {
        let Some(why) = why_not(upstream, name, shown) else {
            return;
        };
        let mut last = lock(&self.0);
        let is_new = *last != why;
        last.clone_from(&why);
        drop(last);
        if is_new {
            gst::element_warning!(sink, gst::CoreError::Negotiation, ("{why}"));
        }
    }
}

/// Posts an error for caps that are none of those `shown`. GStreamer would refuse them without a
/// reason.
pub fn watch<S: IsA<gst_base::BaseSink> + IsA<gst::Element> + IsA<gst::Object>>(
    sink: &S,
    name: &'static str,
    shown: impl Fn(&S) -> Option<gst::Caps> + Send + Sync + 'static,
) {
    let events = gst::PadProbeType::EVENT_DOWNSTREAM;
    sink.upcast_ref::<gst_base::BaseSink>()
        .sink_pad()
        .add_probe(events, move |pad, info| {
            if let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view())
                && let Some(sink) = pad.parent().and_downcast::<S>()
                && let Some(shown) = shown(&sink)
                && let Some(why) = why_not(&caps.caps_owned(), name, &shown)
            {
                gst::element_error!(sink, gst::CoreError::Negotiation, ("{why}"));
            }
            gst::PadProbeReturn::Ok
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(text: &str) -> gst::Caps {
        gst::init().unwrap();
        text.parse().unwrap()
    }

    const SCREEN: &str =
        "video/x-raw,format=BGRx,width=[1,640],height=[1,480],framerate=[0/1,60/1]";

    fn remedy(upstream: &str) -> Vec<&'static str> {
        between(&caps(upstream), &caps(SCREEN)).unwrap()
    }

    #[test]
    fn the_fewest_elements_are_named() {
        let same = "video/x-raw,format=BGRx,width=64,height=48,framerate=30/1";
        assert_eq!(remedy(same), [""; 0]);
        assert!(why_not(&caps(same), "sink", &caps(SCREEN)).is_none());
        let format = "video/x-raw,format=NV12,width=64,height=48,framerate=30/1";
        assert_eq!(remedy(format), ["videoconvert"]);
        let size = "video/x-raw,format=BGRx,width=800,height=48,framerate=30/1";
        assert_eq!(remedy(size), ["videoscale"]);
        let both = "video/x-raw,format=BGR,width=800,height=600,framerate=30/1";
        assert_eq!(remedy(both), ["videoconvert", "videoscale"]);
        let rate = "video/x-raw,format=BGRx,width=64,height=48,framerate=90/1";
        assert_eq!(remedy(rate), ["videorate"]);
    }

    #[test]
    fn caps_that_are_none_yet_are_no_failure() {
        for not_yet in ["NULL", "EMPTY"] {
            assert!(why_not(&caps(not_yet), "sink", &caps(SCREEN)).is_none());
        }
        assert!(why_not(&caps("audio/x-raw"), "sink", &caps(SCREEN)).is_some());
    }

    #[test]
    fn the_sentence_names_both_sides() {
        let upstream = caps("video/x-raw,format=NV12,width=800,height=600,framerate=30/1");
        let sentence = why_not(&upstream, "fbpansink", &caps(SCREEN)).unwrap();
        for part in [
            "NV12",
            "BGRx",
            "640",
            "800",
            "videoconvert ! videoscale",
            "fbpansink",
        ] {
            assert!(sentence.contains(part), "{part}: {sentence}");
        }
    }

    #[test]
    fn single_fields_are_refused_with_a_remedy() {
        let fields = caps(
            "video/x-raw(format:Interlaced),format=BGRx,width=64,height=48,framerate=30/1,interlace-mode=alternate",
        );
        let sentence = why_not(&fields, "sink", &caps(SCREEN)).unwrap();
        assert!(
            sentence.contains("interlace-mode=interleaved"),
            "{sentence}"
        );
    }

    #[test]
    fn what_is_no_raw_video_is_said_as_it_is() {
        let sentence = why_not(&caps("image/jpeg"), "sink", &caps(SCREEN)).unwrap();
        assert!(sentence.contains("image/jpeg"), "{sentence}");
        assert!(why_not(&gst::Caps::new_empty(), "sink", &caps(SCREEN)).is_none());
    }
}
