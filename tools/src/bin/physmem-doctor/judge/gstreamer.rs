// SPDX-License-Identifier: MPL-2.0
//! GStreamer and the plugin.

use crate::facts::Facts;
use crate::item::Item;

pub fn items(facts: &Facts) -> Vec<Item> {
    vec![version(facts), plugin(facts), copies(facts)]
}

fn version(facts: &Facts) -> Item {
    const KEY: &str = "gstreamer.version";
    match (&facts.gstreamer.version, &facts.gstreamer.error) {
        // This program is linked with GStreamer 1.22 or newer, so no older one is found.
        (Some(version), _) => Item::ok(KEY, format!("GStreamer {version}")),
        (None, Some(error)) => {
            Item::broken(KEY, format!("GStreamer does not start: {error}"), None)
        }
        (None, None) => Item::unknown(KEY, "GStreamer was not started"),
    }
}

fn plugin(facts: &Facts) -> Item {
    const KEY: &str = "gstreamer.plugin";
    let own = env!("CARGO_PKG_VERSION");
    match &facts.gstreamer.plugin {
        Some(plugin) => {
            let file = plugin.file.as_deref().unwrap_or("linked in".as_ref());
            let fact = format!("{} from {}", plugin.version, file.display());
            // "0.1.0-abcdef0": the plugin's version ends in a commit.
            match plugin.version.split('-').next() == Some(own) {
                true => Item::ok(KEY, fact),
                false => Item::broken(
                    KEY,
                    format!("{fact}, but physmem-doctor is of {own}"),
                    "install both from the same sources".to_owned(),
                ),
            }
        }
        None => Item::lack(
            KEY,
            "GStreamer does not find the plugin physmem",
            Some(match facts.gstreamer.copies.first() {
                Some(file) => format!("gst-inspect-1.0 {}, which says why not", file.display()),
                None => "sudo install -m 644 target/release/libgstphysmem.so \
                     \"$(pkg-config --variable=pluginsdir gstreamer-1.0)\""
                    .to_owned(),
            }),
        ),
    }
}

fn copies(facts: &Facts) -> Item {
    const KEY: &str = "gstreamer.copies";
    match facts.gstreamer.copies.as_slice() {
        [] => Item::ok(KEY, "no file of the plugin where GStreamer searches"),
        [file] => Item::ok(KEY, format!("one file, {}", file.display())),
        files => {
            let loaded = facts.gstreamer.plugin.as_ref();
            let loaded = loaded.and_then(|plugin| plugin.file.as_ref());
            let other = files.iter().find(|file| loaded != Some(*file));
            let names: Vec<_> = files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            Item::broken(
                KEY,
                format!(
                    "{} files, of which GStreamer loads one and refuses the others: {}",
                    files.len(),
                    names.join(", ")
                ),
                other.map(|file| format!("rm {}", file.display())),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::gstreamer::Plugin;
    use crate::item::Verdict;

    fn facts(version: &str) -> Facts {
        let mut facts = Facts::default();
        facts.gstreamer.plugin = Some(Plugin {
            file: None,
            version: version.into(),
        });
        facts
    }

    #[test]
    fn a_plugin_of_another_version_is_told() {
        let own = concat!(env!("CARGO_PKG_VERSION"), "-abcdef0");
        assert_eq!(plugin(&facts(own)).verdict, Verdict::Ok);
        assert_eq!(plugin(&facts("9.9.9")).verdict, Verdict::Broken);
        assert!(
            plugin(&Facts::default())
                .remedy
                .unwrap()
                .contains("install")
        );
    }

    #[test]
    fn a_second_file_is_broken_use() {
        let mut facts = facts("9.9.9");
        facts.gstreamer.copies = vec!["/a".into()];
        assert_eq!(copies(&facts).verdict, Verdict::Ok);
        facts.gstreamer.copies.push("/b".into());
        let item = copies(&facts);
        assert_eq!(item.verdict, Verdict::Broken);
        assert_eq!(item.remedy.unwrap(), "rm /a");
    }
}
