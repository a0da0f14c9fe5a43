// SPDX-License-Identifier: MPL-2.0
//! The device providers as far as they need no display. Tests with one are in tests/guest.
#![allow(clippy::unwrap_used)]

use gst::prelude::*;

const PROVIDERS: [(&str, &str); 2] = [
    ("fbpandeviceprovider", "fbpansink"),
    ("kmsflipdeviceprovider", "kmsflipsink"),
];

fn factories() -> Vec<(gst::DeviceProviderFactory, &'static str)> {
    gst::init().unwrap();
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| gstphysmem::plugin_register_static().unwrap());
    let find = |name| gst::DeviceProviderFactory::find(name).unwrap();
    PROVIDERS.map(|(name, sink)| (find(name), sink)).into()
}

/// The open files of this process that are cards.
fn open_cards() -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
    targets
        .filter(|path| path.starts_with("/dev/dri"))
        .collect()
}

#[test]
fn monitors_ask_them_for_video_sinks() {
    for (factory, _) in factories() {
        assert!(factory.rank() >= gst::Rank::MARGINAL);
        assert!(factory.has_classes(Some("Sink/Video")));
    }
}

#[test]
fn each_device_makes_the_sink_that_shows_on_it() {
    for (factory, sink) in factories() {
        let provider = factory.get().unwrap();
        for device in provider.devices() {
            assert!(device.has_classes("Video/Sink"));
            let path: String = device.properties().unwrap().get("device.path").unwrap();
            let element = device.create_element(None).unwrap();
            assert_eq!(element.factory().unwrap().name(), sink);
            assert_eq!(element.property::<String>("device"), path);
        }
        assert!(open_cards().is_empty());
    }
}

#[test]
fn a_started_provider_has_the_devices_that_a_probe_finds() {
    for (factory, _) in factories() {
        let provider = factory.get().unwrap();
        let names = || -> Vec<String> {
            let devices = provider.devices().into_iter();
            let mut names: Vec<_> = devices.map(|one| one.display_name().to_string()).collect();
            names.sort();
            names
        };
        let probed = names();
        for _ in 0..3 {
            provider.start().unwrap();
            assert_eq!(names(), probed);
            provider.stop();
        }
    }
}

#[test]
fn a_monitor_starts_and_stops_them() {
    factories();
    let monitor = gst::DeviceMonitor::new();
    let caps = gst::Caps::new_empty_simple("video/x-raw");
    monitor.add_filter(Some("Video/Sink"), Some(&caps)).unwrap();
    let names = monitor.providers();
    for (name, _) in PROVIDERS {
        assert!(names.iter().any(|other| other == name), "{names:?}");
    }
    monitor.start().unwrap();
    monitor.stop();
}
