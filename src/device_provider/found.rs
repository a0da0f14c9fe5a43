// SPDX-License-Identifier: MPL-2.0
//! What a display is to a provider, and what changes from one look to the next. Pure.

/// A display that a sink of this plugin can show on.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The name for people.
    pub name: String,
    /// What the sink can show there.
    pub caps: gst::Caps,
    /// What is known of the display, for programs.
    pub properties: gst::Structure,
    /// The element that shows on it.
    pub element: &'static str,
    /// The properties of the element that choose this display.
    pub settings: Vec<(&'static str, String)>,
}

/// What has become of the displays that were known, each with what the caller keeps for it.
pub struct Changes<T> {
    /// Those that are still there, unchanged.
    pub stay: Vec<(Found, T)>,
    pub gone: Vec<(Found, T)>,
    /// Those that were not known.
    pub new: Vec<Found>,
}

/// Compares the displays that are `known` with those that are there now.
pub fn compare<T>(known: Vec<(Found, T)>, now: Vec<Found>) -> Changes<T> {
    let (stay, gone): (Vec<_>, Vec<_>) = known
        .into_iter()
        .partition(|(display, _)| now.contains(display));
    let is_new = |display: &Found| !stay.iter().any(|(known, _)| known == display);
    let new = now.into_iter().filter(is_new).collect();
    Changes { stay, gone, new }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn display(name: &str, mode: &str) -> Found {
        Found {
            name: name.into(),
            caps: gst::Caps::new_empty_simple("video/x-raw"),
            properties: gst::Structure::builder("display")
                .field("mode", mode)
                .build(),
            element: "fakesink",
            settings: Vec::new(),
        }
    }

    #[test]
    fn a_display_that_changes_is_gone_and_new() {
        gst::init().unwrap();
        let known = vec![
            (display("a", "1"), 1),
            (display("b", "1"), 2),
            (display("c", "1"), 3),
        ];
        let now = vec![display("d", "1"), display("b", "2"), display("a", "1")];
        let Changes { stay, gone, new } = compare(known, now);
        let numbers =
            |list: Vec<(Found, i32)>| list.into_iter().map(|(_, n)| n).collect::<Vec<_>>();
        assert_eq!(numbers(stay), [1]);
        assert_eq!(numbers(gone), [2, 3]);
        assert_eq!(new, [display("d", "1"), display("b", "2")]);
        let Changes { stay, gone, new } = compare(Vec::<(Found, i32)>::new(), Vec::new());
        assert!(stay.is_empty() && gone.is_empty() && new.is_empty());
    }
}
