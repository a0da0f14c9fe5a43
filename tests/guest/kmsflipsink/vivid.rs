// SPDX-License-Identifier: MPL-2.0
//! A camera and a converter of other authors, the kernel's vivid and vim2m, on vkms.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use crate::frames::{assert_on_screen, bgrx};
use crate::support::Picture;
use crate::support::player::{Player, init};

const W: usize = 640;
const H: usize = 480;

fn camera() -> String {
    let entries =
        std::fs::read_dir("/sys/class/video4linux").expect("vivid (tests/lab/run --vivid)");
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            name.contains("vivid") && name.contains("vid-cap")
        })
        .map(|entry| format!("/dev/{}", entry.file_name().to_str().unwrap()))
        .collect();
    names.sort();
    names.first().cloned().expect("a vivid capture device")
}

/// Plays a still picture of the camera and compares the screen with the last frame as the CPU reads
/// it.
fn play(io_mode: &str) -> Player {
    init();
    // Frames have the size of the screen, because the plane of vkms on 6.1 shows no other size.
    let player = Player::new(&format!(
        "v4l2src device={} io-mode={io_mode} num-buffers=60 \
         extra-controls=c,osd_text_mode=2,test_pattern=0 \
         ! video/x-raw,format=BGRx,width={W},height={H},framerate=25/1 \
         ! kmsflipsink name=sink mode=640x480 max-lateness=-1",
        camera()
    ));
    let last = Arc::new(Mutex::new(None));
    let keep = last.clone();
    let pad = player.sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        *keep.lock().unwrap() = info.buffer().map(picture_in);
        gst::PadProbeReturn::Ok
    });
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    let picture = last.lock().unwrap().take().expect("a frame");
    let colours: HashSet<_> = picture.rgb.chunks_exact(3).collect();
    assert!(colours.len() > 4, "a picture with colour bars");
    assert_on_screen(&picture);
    player
}

fn picture_in(buffer: &gst::Buffer) -> Picture {
    let info = bgrx(W as u32, H as u32);
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info).unwrap();
    let bytes = frame.plane_data(0).unwrap();
    let stride = bytes.len() / H;
    let mut rgb = Vec::with_capacity(W * H * 3);
    for row in bytes.chunks(stride).take(H) {
        for pixel in row[..W * 4].chunks_exact(4) {
            rgb.extend_from_slice(&[pixel[2], pixel[1], pixel[0]]);
        }
    }
    Picture {
        width: W,
        height: H,
        rgb,
    }
}

#[test]
fn frames_that_the_camera_exports_are_shown_without_a_copy() {
    let player = play("dmabuf");
    let stats = player.stats();
    assert_eq!(player.count("copied"), 0, "{stats}");
    assert!(player.count("zero-copy") > 50, "{stats}");
}

#[test]
fn frames_that_the_camera_writes_into_our_memory_are_shown_without_a_copy() {
    let player = play("dmabuf-import");
    let stats = player.stats();
    assert_eq!(player.count("copied"), 0, "{stats}");
    assert!(player.count("zero-copy") > 50, "{stats}");
}

#[test]
fn what_a_converter_exports_is_shown_without_a_copy() {
    init();
    // The plugin registers a converter for each device that it finds when it is loaded, and the
    // lab's registry was written on a machine without one.
    let registered = gst::Registry::get().find_plugin("video4linux2").unwrap();
    gst::Plugin::load_file(registered.filename().unwrap()).unwrap();
    let player = Player::new(
        "rawvideosrc num-buffers=20 ! video/x-raw,format=BGR,width=640,height=480,framerate=25/1 \
         ! v4l2convert capture-io-mode=dmabuf ! video/x-raw,format=RGB16 \
         ! kmsflipsink name=sink mode=640x480 sync=false",
    );
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    let stats = player.stats();
    assert_eq!(player.count("copied"), 0, "{stats}");
    assert!(player.count("zero-copy") >= 18, "{stats}");
}
