// SPDX-License-Identifier: MPL-2.0
//! vkms, which reports a CRC of each picture that it scans out.

mod blending;
mod devices;
mod disk;
mod fields;
mod hotplug;
mod imports;
mod interfaces;
mod master;
mod placement;
mod selection;
mod standby;
mod streams;

use std::fs;
use std::io::Write;

use gst::prelude::*;

use crate::frames::{bgrx, bgrx_bytes, buffer_of, numbered};
use crate::support::Picture;
use crate::support::player::Player;

const W: usize = 640;
const H: usize = 480;

/// A player of BGRx frames that have the size of the mode.
fn bgrx_player() -> Player {
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&bgrx(W as u32, H as u32));
    player
}

/// A raw file of `n` numbered pictures, and the CRC of each.
fn numbered_file(n: usize) -> (tempfile::NamedTempFile, Vec<u32>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let crcs = (0..n)
        .map(|number| {
            let picture = numbered(W, H, number);
            file.write_all(&bgrx_bytes(&picture, W * 4)).unwrap();
            picture.vkms_crc()
        })
        .collect();
    (file, crcs)
}

fn file_player(file: &tempfile::NamedTempFile, rest: &str) -> Player {
    Player::new(&format!(
        "rawvideosrc location={} format=bgrx width={W} height={H} framerate=60/1 {rest}",
        file.path().display()
    ))
}

/// The formats that the sink's caps list without a feature. (With the feature memory:DMABuf the
/// format is DMA_DRM.)
fn formats() -> Vec<String> {
    let player = Player::with_appsrc("mode=640x480");
    player.reach(gst::State::Ready);
    let caps = player.sink.static_pad("sink").unwrap().query_caps(None);
    let plain = |(_, features): &(_, &gst::CapsFeaturesRef)| {
        features.contains(gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY) || features.is_empty()
    };
    let (structure, _) = caps.iter_with_features().find(plain).unwrap();
    let names = structure.value("format").unwrap();
    match names.get::<gst::List>() {
        Ok(list) => list.iter().map(|value| value.get().unwrap()).collect(),
        Err(_) => vec![names.get().unwrap()],
    }
}

fn convert(
    picture: &Picture,
    from: &gst_video::VideoInfo,
    to: &gst_video::VideoInfo,
) -> gst::Buffer {
    let sample = gst::Sample::builder()
        .buffer(&buffer_of(picture))
        .caps(&from.to_caps().unwrap())
        .build();
    let caps = to.to_caps().unwrap();
    gst_video::convert_sample(&sample, &caps, gst::ClockTime::from_seconds(20).into())
        .unwrap()
        .buffer_owned()
        .unwrap()
}

/// Waits for the warning that there is no display to show frames on, and for frames that are
/// dropped. A warning about earlier frames that were copied may also be on the bus.
fn assert_warned_and_dropped(player: &Player, picture: &Picture, counter: &str) {
    let bus = player.pipeline.bus().unwrap();
    let is_waiting = |message: &gst::Message| match message.view() {
        gst::MessageView::Warning(warning) => {
            let text = warning.error().to_string();
            text.contains("frames are dropped until")
        }
        other => panic!("{other:?}"),
    };
    let wanted = [gst::MessageType::Warning, gst::MessageType::Error];
    loop {
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &wanted);
        if is_waiting(&message.expect("a warning")) {
            break;
        }
    }
    for _ in 0..3 {
        player.push(buffer_of(picture));
    }
    player.wait_until("dropped frames", |player| player.count(counter) >= 2);
    while let Some(more) = bus.pop_filtered(&wanted) {
        assert!(!is_waiting(&more), "one is enough: {more:?}");
    }
}

/// Plugs the display in or out, and sends the uevent of a driver with a hot-plug interrupt.
pub fn force_connector(state: &str) {
    let dir = fs::read_dir("/sys/kernel/debug/dri")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|dir| dir.join("Virtual-1/force").exists())
        .unwrap();
    fs::write(dir.join("Virtual-1/force"), state).unwrap();
    fs::write("/sys/class/drm/card0/uevent", "change").unwrap();
}
