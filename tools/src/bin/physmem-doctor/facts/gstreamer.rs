// SPDX-License-Identifier: MPL-2.0
//! GStreamer, and the plugin's files that it would load.

use std::env;
use std::path::{Path, PathBuf};

use serde::Serialize;

const FILE: &str = "libgstphysmem.so";
/// How deep GStreamer searches below a directory of plugins (gstregistry.c).
const MAX_DEPTH: usize = 10;
/// GStreamer has no such limit, but a wrong variable must not make this program search a whole disk.
const MAX_ENTRIES: usize = 20_000;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Gstreamer {
    /// Such as 1.22.0.
    pub version: Option<String>,
    /// Why GStreamer did not start.
    pub error: Option<String>,
    /// The plugin that the registry has.
    pub plugin: Option<Plugin>,
    /// All files of the plugin where GStreamer searches; links lead to one file.
    pub copies: Vec<PathBuf>,
    /// Where plugins are installed.
    pub system_directory: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Plugin {
    /// Where links lead to.
    pub file: Option<PathBuf>,
    pub version: String,
}

impl Gstreamer {
    /// Starts GStreamer in this process, which reads the registry and brings it up to date.
    pub fn start() -> Self {
        if let Err(error) = gst::init() {
            return Self {
                error: Some(error.to_string()),
                ..Self::default()
            };
        }
        let (major, minor, micro, _) = gst::version();
        let registry = gst::Registry::get();
        let file_of = |name: &str| registry.find_plugin(name)?.filename();
        let system_directory = file_of("coreelements")
            .as_deref()
            .and_then(Path::parent)
            .map(Path::to_owned);
        Self {
            version: Some(format!("{major}.{minor}.{micro}")),
            error: None,
            plugin: registry.find_plugin("physmem").map(|plugin| Plugin {
                file: plugin
                    .filename()
                    .map(|file| file.canonicalize().unwrap_or(file)),
                version: plugin.version().to_string(),
            }),
            copies: copies(&directories(system_directory.as_deref())),
            system_directory,
        }
    }
}

/// The directories in which GStreamer searches for plugins.
fn directories(system: Option<&Path>) -> Vec<PathBuf> {
    let of_variable = |names: [&str; 2]| {
        let paths = names.into_iter().find_map(env::var_os)?;
        Some(env::split_paths(&paths).collect::<Vec<_>>())
    };
    let mut found = of_variable(["GST_PLUGIN_PATH_1_0", "GST_PLUGIN_PATH"]).unwrap_or_default();
    let fallback = || {
        let data = env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".local/share")));
        let user = data.map(|data| data.join("gstreamer-1.0/plugins"));
        user.into_iter()
            .chain(system.map(Path::to_owned))
            .collect::<Vec<_>>()
    };
    let of_system = of_variable(["GST_PLUGIN_SYSTEM_PATH_1_0", "GST_PLUGIN_SYSTEM_PATH"]);
    found.extend(of_system.unwrap_or_else(fallback));
    found.retain(|directory| !directory.as_os_str().is_empty());
    found
}

/// The files of the plugin below these directories, without those that are the same file.
fn copies(directories: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest: Vec<(PathBuf, usize)> =
        directories.iter().map(|path| (path.clone(), 0)).collect();
    let mut entries = 0;
    while let Some((directory, depth)) = rest.pop() {
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            entries += 1;
            if entries > MAX_ENTRIES {
                return found;
            }
            let path = entry.path();
            if path.is_dir() && depth < MAX_DEPTH {
                rest.push((path, depth + 1));
            } else if entry.file_name() == FILE
                && let Ok(file) = path.canonicalize()
                && !found.contains(&file)
            {
                found.push(file);
            }
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_links_to_a_file_are_one_copy() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["a", "b/c"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(at("real"), "").unwrap();
        std::os::unix::fs::symlink(at("real"), at("a").join(FILE)).unwrap();
        std::os::unix::fs::symlink(at("real"), at("b/c").join(FILE)).unwrap();
        assert_eq!(copies(&[at("a"), at("b")]).len(), 1);
        std::fs::write(at("b").join(FILE), "").unwrap();
        assert_eq!(copies(&[at("a"), at("b")]).len(), 2);
        assert!(copies(&[at("gone")]).is_empty());
    }
}
