// SPDX-License-Identifier: MPL-2.0
//! Frames of another process through unixfdsink of GStreamer 1.24: their address, checked by the
//! host, and their picture on the screen. Needs vkms, and a guest run with --tree debian13.

use std::process::{Child, Stdio};

use gst::prelude::*;
use gstphysmem::meta::PhysMemMeta;

use crate::frames::crc_now;
use crate::support::player::{Player, init};
use crate::support::{gst_launch, oracle};

const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(60);

/// A gst-launch that sends frames in CMA memory; it is killed on drop.
struct Sender(Child);

impl Sender {
    /// Returns when the socket exists.
    fn start(socket: &str, frames: u32, size: (u32, u32)) -> Self {
        let (width, height) = size;
        let child = gst_launch(&format!(
            "rawvideosrc num-buffers={frames} ! video/x-raw,format=BGRx,width={width},height={height} \
             ! physmemupload kind=cma ! unixfdsink wait-for-connection=true sync=false socket-path={socket}"
        ))
        .stdout(Stdio::null())
        .spawn()
        .expect("gst-launch starts");
        let sender = Self(child);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !std::path::Path::new(socket).exists() {
            assert!(std::time::Instant::now() < deadline, "no socket {socket}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        sender
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_frames_are_where_the_other_process_says() {
    init();
    let socket = "/run/where";
    let mut sender = Sender::start(socket, 3, (320, 240));
    let line = format!("unixfdsrc socket-path={socket} ! appsink name=out sync=false");
    let receiver = gst::parse::launch(&line).unwrap();
    let receiver = receiver.downcast::<gst::Pipeline>().unwrap();
    receiver.set_state(gst::State::Playing).unwrap();
    let out = receiver.by_name("out").unwrap();
    let out = out.downcast::<gst_app::AppSink>().unwrap();
    let mut held = Vec::new();
    for number in 0..3 {
        let sample = out
            .try_pull_sample(TIMEOUT)
            .unwrap_or_else(|| panic!("frame {number}"));
        let buffer = sample.buffer().unwrap();
        let meta = buffer.meta::<PhysMemMeta>().expect("a PhysMemMeta");
        assert!(
            meta.is_received() && meta.is_pinned() && meta.is_contiguous(),
            "{meta:?}"
        );
        let address = meta.phys_addr().unwrap();
        let map = buffer.map_readable().unwrap();
        assert!(
            oracle().phys(address.0, map.len()) == map.as_slice(),
            "frame {number} is not at {address}"
        );
        drop((map, meta));
        held.push(sample);
    }
    // The dma-buf keeps its memory in place after the sending process has ended.
    sender.0.kill().unwrap();
    sender.0.wait().unwrap();
    for sample in &held {
        let buffer = sample.buffer().unwrap();
        let address = buffer.meta::<PhysMemMeta>().unwrap().phys_addr().unwrap();
        let map = buffer.map_readable().unwrap();
        assert!(oracle().phys(address.0, map.len()) == map.as_slice());
    }
    receiver.set_state(gst::State::Null).unwrap();
}

#[test]
fn they_are_shown_without_a_copy() {
    init();
    let socket = "/run/shown";
    let _sender = Sender::start(socket, 30, (1024, 768));
    let player = Player::new(&format!(
        "unixfdsrc socket-path={socket} ! kmsflipsink name=sink driver-name=vkms sync=false"
    ));
    player.set_state(gst::State::Playing);
    player.wait_shown(30);
    assert_eq!(player.count("copied"), 0, "{}", player.stats());
    assert_eq!(player.count("zero-copy"), 30, "{}", player.stats());
    let shown = crc_now();
    drop(player);

    // The last frame of the same pattern, shown without another process.
    let player = Player::new(
        "rawvideosrc num-buffers=30 ! video/x-raw,format=BGRx,width=1024,height=768 \
         ! kmsflipsink name=sink driver-name=vkms sync=false",
    );
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    assert_eq!(crc_now(), shown);
}
