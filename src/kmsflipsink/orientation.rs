// SPDX-License-Identifier: MPL-2.0
//! How the stream asks to turn its picture, by the tag image-orientation. Pure.

use gst_video::VideoOrientationMethod;

/// The tags of the stream that plays now, by their scope: those of the stream come before those of the medium
/// that it is part of, as in videoflip.
#[derive(Debug, Default)]
pub struct Orientation {
    stream_id: Option<String>,
    of_stream: Option<VideoOrientationMethod>,
    of_medium: Option<VideoOrientationMethod>,
    /// The last one of which the element warned that the plane cannot do it.
    warned_of: Option<VideoOrientationMethod>,
}

impl Orientation {
    /// Forgets the tags of another stream.
    pub fn begin_stream(&mut self, stream_id: &str) {
        if self.stream_id.as_deref() != Some(stream_id) {
            *self = Self {
                stream_id: Some(stream_id.to_owned()),
                ..Self::default()
            };
        }
    }

    /// Takes a list of tags, which replaces all earlier tags of its scope.
    pub fn note_tags(&mut self, tags: &gst::TagListRef) {
        let scope = match tags.scope() {
            gst::TagScope::Global => &mut self.of_medium,
            _ => &mut self.of_stream,
        };
        *scope = VideoOrientationMethod::from_tag(tags);
    }

    /// How the picture is to be turned.
    pub fn method(&self) -> VideoOrientationMethod {
        let asked = self.of_stream.or(self.of_medium);
        asked.unwrap_or(VideoOrientationMethod::Identity)
    }

    /// Whether to warn that the plane cannot turn the picture so: true once for each orientation.
    pub fn is_to_warn(&mut self) -> bool {
        let method = self.method();
        self.warned_of.replace(method) != Some(method)
    }
}

#[cfg(test)]
mod tests {
    use super::VideoOrientationMethod as M;
    use super::*;

    fn tags(scope: gst::TagScope, orientation: Option<&str>) -> gst::TagList {
        let mut list = gst::TagList::new();
        let tags = list.make_mut();
        tags.set_scope(scope);
        if let Some(orientation) = orientation {
            tags.add::<gst::tags::ImageOrientation>(&orientation, gst::TagMergeMode::Append);
        }
        list
    }

    #[test]
    fn every_orientation_that_a_tag_can_ask_for_is_known() {
        gst::init().unwrap();
        for (text, method) in [
            ("rotate-0", M::Identity),
            ("rotate-90", M::_90r),
            ("rotate-180", M::_180),
            ("rotate-270", M::_90l),
            ("flip-rotate-0", M::Horiz),
            ("flip-rotate-90", M::UrLl),
            ("flip-rotate-180", M::Vert),
            ("flip-rotate-270", M::UlLr),
            ("upwards", M::Identity),
        ] {
            let mut orientation = Orientation::default();
            orientation.note_tags(&tags(gst::TagScope::Stream, Some(text)));
            assert_eq!(orientation.method(), method, "{text}");
        }
    }

    #[test]
    fn tags_of_the_stream_come_before_those_of_the_medium() {
        gst::init().unwrap();
        let mut orientation = Orientation::default();
        let mut after = |scope, text| {
            orientation.note_tags(&tags(scope, text));
            orientation.method()
        };
        use gst::TagScope::{Global, Stream};
        assert_eq!(after(Global, Some("rotate-90")), M::_90r);
        assert_eq!(after(Stream, Some("rotate-180")), M::_180);
        assert_eq!(after(Global, Some("rotate-270")), M::_180);
        assert_eq!(after(Stream, None), M::_90l);
        assert_eq!(after(Global, None), M::Identity);
    }

    #[test]
    fn another_stream_begins_upright() {
        gst::init().unwrap();
        let mut orientation = Orientation::default();
        orientation.begin_stream("a");
        orientation.note_tags(&tags(gst::TagScope::Stream, Some("rotate-90")));
        orientation.begin_stream("a");
        assert_eq!(orientation.method(), M::_90r);
        assert!(orientation.is_to_warn() && !orientation.is_to_warn());
        orientation.begin_stream("b");
        assert_eq!(orientation.method(), M::Identity);
    }
}
