// SPDX-License-Identifier: MPL-2.0
//! Caps negotiation: which guesses from a file's name agree with the caps that the user has
//! set downstream, and the error text for caps that downstream does not take.

use gst::prelude::*;

/// The most elements downstream of the source that are searched for caps.
const MOST_STEPS: usize = 16;
/// The most values of a field that an error text lists.
const MOST_VALUES: usize = 8;

/// The caps that the user has set downstream, on capsfilters and application sinks, up to the
/// first element that may change the frames.
pub fn said_behind(src: &gst::Pad) -> gst::Caps {
    let mut said = gst::Caps::new_any();
    let mut src = src.clone();
    for _ in 0..MOST_STEPS {
        let Some(element) = behind(&src) else { break };
        if let Some(caps) = caps_of(&element) {
            said = said.intersect(&caps);
        }
        if !passes_on(&element) {
            break;
        }
        match element.static_pad("src") {
            Some(next) => src = next,
            None => break,
        }
    }
    said
}

/// The element that a source pad is linked to, across the boundaries of bins.
fn behind(src: &gst::Pad) -> Option<gst::Element> {
    let mut pad = src.peer()?;
    for _ in 0..MOST_STEPS {
        if let Some(ghost) = pad.downcast_ref::<gst::GhostPad>() {
            pad = ghost.target()?;
        } else if let Some(proxy) = pad.downcast_ref::<gst::ProxyPad>() {
            // The internal pad of a bin's source pad.
            pad = proxy.internal()?.upcast::<gst::Pad>().peer()?;
        } else {
            return pad.parent_element();
        }
    }
    None
}

/// The value of the element's property `caps`, if it has such a property and it is writable.
fn caps_of(element: &gst::Element) -> Option<gst::Caps> {
    let pspec = element.find_property("caps")?;
    let can_be_set = pspec.flags().contains(gst::glib::ParamFlags::READWRITE);
    if !can_be_set || pspec.value_type() != gst::Caps::static_type() {
        return None;
    }
    element.property::<Option<gst::Caps>>("caps")
}

/// Whether an element passes frames on unchanged.
fn passes_on(element: &gst::Element) -> bool {
    let factory = element.factory().map(|factory| factory.name());
    let same = [
        "capsfilter",
        "queue",
        "queue2",
        "identity",
        "clocksync",
        "valve",
    ];
    factory.is_some_and(|name| same.contains(&name.as_str()))
}

/// Narrows `caps` by each guess that contradicts neither `caps` nor the user's caps, `said`.
pub fn believe(mut caps: gst::Caps, guesses: &[gst::Caps], said: &gst::Caps) -> gst::Caps {
    for guess in guesses {
        let narrowed = caps.intersect(guess);
        if narrowed.can_intersect(said) {
            caps = narrowed;
        }
    }
    caps
}

/// The error text for a failed negotiation: the fields in which both sides differ, and the
/// elements that can convert them.
pub fn explain(location: Option<&str>, ours: &gst::Caps, src: &gst::Pad) -> String {
    let what = match location {
        Some(location) => format!("\"{location}\""),
        None => "the test pattern".to_owned(),
    };
    let element = behind(src);
    let taker = element
        .as_ref()
        .map_or("downstream".to_owned(), |e| format!("\"{}\"", e.name()));
    let theirs = src.peer_query_caps(None);
    // The caps that contradict each other are both downstream of this element.
    if let (true, Some(allowed)) = (theirs.is_empty(), element.as_ref().and_then(caps_of)) {
        return format!(
            "{what} cannot go on: {taker} lets through {allowed}, of which the elements behind it take nothing: put videoconvert ! videoscale behind {taker}, or say other caps"
        );
    }
    let Some(difference) = Difference::least(ours, &theirs) else {
        return format!(
            "{what} is {}, which {taker} seems to take, and which it, or an element behind it, refuses: put videoconvert ! videoscale between",
            summary(ours)
        );
    };
    format!(
        "{what} is {}, {taker} takes {}: put {} between",
        difference.ours, difference.theirs, difference.remedy
    )
}

/// The main fields of the caps' first structure, as text.
fn summary(caps: &gst::Caps) -> String {
    match caps.structure(0) {
        Some(structure) => ["format", "width", "height", "framerate"]
            .iter()
            .filter_map(|field| Some(format!("{field}={}", values(structure, field)?)))
            .collect::<Vec<_>>()
            .join(" "),
        None => "nothing".to_owned(),
    }
}

/// Fields of caps, each with the element that converts it.
const CHANGERS: &[(&str, &str)] = &[
    ("format", "videoconvert"),
    ("width", "videoscale"),
    ("height", "videoscale"),
    ("pixel-aspect-ratio", "videoscale"),
    ("framerate", "videorate"),
    ("interlace-mode", "deinterlace"),
    ("field-order", "deinterlace"),
    ("colorimetry", "videoconvert"),
    ("chroma-site", "videoconvert"),
];

struct Difference {
    ours: String,
    theirs: String,
    remedy: String,
}

impl Difference {
    /// Compares with the structure of `theirs` that differs in the fewest fields. `None` if the
    /// caps intersect.
    fn least(ours: &gst::Caps, theirs: &gst::Caps) -> Option<Self> {
        if ours.can_intersect(theirs) {
            return None;
        }
        let own = ours.structure(0)?;
        let nothing = Self {
            ours: own.name().to_string(),
            theirs: "nothing at all".to_owned(),
            remedy: "another element".to_owned(),
        };
        let candidates = theirs.iter_with_features().map(|(structure, features)| {
            let fields = differing_fields(own, structure);
            (fields.len(), structure, features, fields)
        });
        let same_kind = |structure: &gst::StructureRef, features: &gst::CapsFeaturesRef| {
            structure.name() == own.name()
                && features.is_equal(gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY.as_ref())
        };
        let Some((_, structure, features, fields)) =
            candidates.min_by_key(|(count, structure, features, _)| {
                (!same_kind(structure, features), *count)
            })
        else {
            return Some(nothing);
        };
        if structure.name() != own.name() {
            return Some(Self {
                theirs: structure.name().to_string(),
                remedy: "an encoder or whatever else makes that of raw video".to_owned(),
                ..nothing
            });
        }
        if !same_kind(structure, features) {
            return Some(Self {
                ours: "in plain memory".to_owned(),
                theirs: format!("{features} only"),
                remedy: "the element that uploads to that memory".to_owned(),
            });
        }
        Some(Self::in_fields(own, structure, &fields))
    }

    fn in_fields(own: &gst::StructureRef, their: &gst::StructureRef, fields: &[&str]) -> Self {
        let told = |structure: &gst::StructureRef| {
            let told = fields.iter().map(|field| {
                let values = values(structure, field);
                format!("{field}={}", values.unwrap_or_else(|| "(unset)".into()))
            });
            told.collect::<Vec<_>>().join(" ")
        };
        let mut changers: Vec<&str> = Vec::new();
        for field in fields {
            let changer = CHANGERS.iter().find(|(known, _)| known == field);
            let changer = changer.map_or("videoconvert", |(_, changer)| *changer);
            if !changers.contains(&changer) {
                changers.push(changer);
            }
        }
        Self {
            ours: told(own),
            theirs: told(their),
            remedy: changers.join(" ! "),
        }
    }
}

/// The fields whose values do not intersect.
fn differing_fields(own: &gst::StructureRef, their: &gst::StructureRef) -> Vec<&'static str> {
    let differs = |field: &str| {
        let (Ok(own), Ok(their)) = (own.value(field), their.value(field)) else {
            return false;
        };
        own.intersect(their).is_none()
    };
    let fields = CHANGERS.iter().map(|(field, _)| *field);
    fields.filter(|field| differs(field)).collect()
}

/// The values of a field as text; only the first `MOST_VALUES` of a long list.
fn values(structure: &gst::StructureRef, field: &str) -> Option<String> {
    let value = structure.value(field).ok()?;
    if let Ok(list) = value.get::<gst::List>() {
        let told = list.iter().take(MOST_VALUES).filter_map(text);
        let told = told.collect::<Vec<_>>().join(", ");
        return Some(match list.len().saturating_sub(MOST_VALUES) {
            0 => format!("{{{told}}}"),
            more => format!("{{{told} and {more} more}}"),
        });
    }
    text(value)
}

fn text(value: &gst::glib::SendValue) -> Option<String> {
    if let Ok(range) = value.get::<gst::IntRange<i32>>() {
        return Some(format!("{} to {}", range.min(), range.max()));
    }
    value.serialize().ok().map(|text| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn caps(text: &str) -> gst::Caps {
        gst::init().unwrap();
        gst::Caps::from_str(text).unwrap()
    }

    fn difference(ours: &str, theirs: &str) -> Option<(String, String, String)> {
        let difference = Difference::least(&caps(ours), &caps(theirs))?;
        Some((difference.ours, difference.theirs, difference.remedy))
    }

    #[test]
    fn the_fields_that_differ_are_told_with_what_changes_them() {
        let ours = "video/x-raw,format=I420,width=800,height=600,framerate=25/1";
        let told = |ours: &str, theirs: &str, remedy: &str| {
            Some((ours.to_owned(), theirs.to_owned(), remedy.to_owned()))
        };
        assert_eq!(
            difference(
                ours,
                "video/x-raw,format={BGRx,RGB16},width=[1,640],height=[1,480]"
            ),
            told(
                "format=I420 width=800 height=600",
                "format={BGRx, RGB16} width=1 to 640 height=1 to 480",
                "videoconvert ! videoscale"
            )
        );
        assert_eq!(
            difference(ours, "video/x-raw,framerate=30/1"),
            told("framerate=25/1", "framerate=30/1", "videorate")
        );
        // Of several structures the one with the fewest differences is named.
        assert_eq!(
            difference(
                ours,
                "image/jpeg; video/x-raw,format=RGB,width=1,height=1; video/x-raw,format=NV12"
            ),
            told("format=I420", "format=NV12", "videoconvert")
        );
        let (_, theirs, _) = difference(ours, "image/jpeg").unwrap();
        assert_eq!(theirs, "image/jpeg");
        let (_, theirs, _) = difference(ours, "video/x-raw(memory:GLMemory)").unwrap();
        assert!(theirs.contains("memory:GLMemory"));
        assert_eq!(difference(ours, "video/x-raw"), None);
        assert!(difference(ours, "EMPTY").unwrap().1.contains("nothing"));
    }

    #[test]
    fn long_lists_are_cut() {
        let caps = caps("video/x-raw,format={a,b,c,d,e,k,g,h,i,j}");
        let told = values(caps.structure(0).unwrap(), "format").unwrap();
        assert_eq!(told, "{a, b, c, d, e, k, g, h and 2 more}");
    }

    #[test]
    fn a_guess_gives_way_to_what_is_said_and_no_other_does() {
        let all = caps("video/x-raw");
        let guesses = [
            caps("video/x-raw,width=64,height=48"),
            caps("video/x-raw,format=I420"),
        ];
        let said = caps("video/x-raw,format=NV12");
        let believed = believe(all.clone(), &guesses, &said);
        assert_eq!(believed, guesses[0]);
        let both = believe(all, &guesses, &gst::Caps::new_any());
        assert_eq!(both, caps("video/x-raw,width=64,height=48,format=I420"));
    }

    #[test]
    fn capsfilters_are_found_behind_queues_and_in_bins() {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(
            "fakesrc name=source ! queue ! ( identity ! capsfilter caps=video/x-raw,width=64 ) ! capsfilter caps=video/x-raw,height=48 ! videoconvert ! capsfilter caps=video/x-raw,format=RGB ! fakesink",
        );
        let pipeline = pipeline.unwrap().downcast::<gst::Bin>().unwrap();
        let src = pipeline
            .by_name("source")
            .unwrap()
            .static_pad("src")
            .unwrap();
        let said = said_behind(&src);
        assert_eq!(said, caps("video/x-raw,width=64,height=48"));
    }

    #[test]
    fn a_capsfilter_at_odds_with_what_is_behind_it_is_told_as_such() {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(
            "fakesrc name=source ! capsfilter name=wide ! capsfilter caps=video/x-raw,width=[1,8192] ! fakesink",
        );
        let pipeline = pipeline.unwrap().downcast::<gst::Bin>().unwrap();
        // Elements whose caps do not intersect would not be linked, so they change afterwards.
        let wide = pipeline.by_name("wide").unwrap();
        wide.set_property("caps", caps("video/x-raw,width=16384"));
        let source = pipeline.by_name("source").unwrap();
        let src = source.static_pad("src").unwrap();
        let told = explain(None, &caps("video/x-raw,width=16384"), &src);
        for part in ["\"wide\" lets through", "16384", "behind \"wide\""] {
            assert!(told.contains(part), "{part} is not in: {told}");
        }
    }
}
