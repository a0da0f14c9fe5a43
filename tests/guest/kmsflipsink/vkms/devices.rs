// SPDX-License-Identifier: MPL-2.0
//! What the device provider lists.

use std::fs;
use std::path::{Path, PathBuf};

use gst::prelude::*;

use crate::support::player::{CLOCK_LIMIT, init};

fn provider() -> gst::DeviceProvider {
    init();
    gst::DeviceProviderFactory::by_name("kmsflipdeviceprovider").unwrap()
}

/// The open files of this process that are cards. A process that opens a card becomes its master.
fn open_cards() -> Vec<PathBuf> {
    let files = fs::read_dir("/proc/self/fd").unwrap();
    let targets = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    targets
        .filter(|path| path.starts_with("/dev/dri"))
        .collect()
}

/// Sets what the kernel knows of the display, and sends the uevent of a driver with a hot-plug interrupt.
fn plug(status: &str) {
    let connector = Path::new("/sys/class/drm/card0-Virtual-1/status");
    fs::write(connector, status).unwrap();
    fs::write("/sys/class/drm/card0/uevent", "change").unwrap();
}

#[test]
fn the_display_is_listed_and_its_element_shows_on_it() {
    let devices = provider().devices();
    assert_eq!(devices.len(), 1);
    let device = devices.front().unwrap();
    assert_eq!(device.display_name(), "Virtual-1 of /dev/dri/card0 (vkms)");
    let properties = device.properties().unwrap();
    assert_eq!(properties.get("device.path"), Ok("/dev/dri/card0"));
    assert_eq!(properties.get("kms.connector"), Ok("Virtual-1"));
    let caps = device.caps().unwrap();
    let small = "video/x-raw,format=BGRx,width=640,height=480";
    assert!(caps.can_intersect(&small.parse::<gst::Caps>().unwrap()));
    let element = device.create_element(Some("sink")).unwrap();
    assert_eq!(element.property::<String>("device"), "/dev/dri/card0");
    assert_eq!(element.property::<String>("connector"), "Virtual-1");
    assert!(open_cards().is_empty(), "{:?}", open_cards());
    let pipeline = gst::parse::bin_from_description("rawvideosrc num-buffers=3", true).unwrap();
    let whole = gst::Pipeline::new();
    whole.add_many([pipeline.upcast_ref(), &element]).unwrap();
    pipeline.link(&element).unwrap();
    whole.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = whole.bus().unwrap().timed_pop_filtered(CLOCK_LIMIT, &ends);
    assert_eq!(end.unwrap().type_(), gst::MessageType::Eos);
    whole.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_display_that_is_plugged_out_and_in_is_noticed() {
    let provider = provider();
    let bus = provider.bus();
    provider.start().unwrap();
    assert_eq!(provider.devices().len(), 1);
    bus.set_flushing(true);
    bus.set_flushing(false);
    for (status, told, devices) in [
        ("off", gst::MessageType::DeviceRemoved, 0),
        ("on", gst::MessageType::DeviceAdded, 1),
    ] {
        plug(status);
        let message = bus.timed_pop_filtered(CLOCK_LIMIT, &[told]);
        assert!(message.is_some(), "{status}");
        assert_eq!(provider.devices().len(), devices);
    }
    assert!(open_cards().is_empty(), "{:?}", open_cards());
    provider.stop();
    plug("detect");
}
