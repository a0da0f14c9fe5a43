// SPDX-License-Identifier: MPL-2.0
//! A camera that we did not write: the kernel's vivid, on vkms.

use crate::player::{Player, init};

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

fn play(io_mode: &str) -> Player {
    init();
    let player = Player::new(&format!(
        "v4l2src device={} io-mode={io_mode} num-buffers=60 \
         ! video/x-raw,format=BGRx,width=640,height=360,framerate=30/1 ! kmsflipsink name=sink",
        camera()
    ));
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    player
}

#[test]
fn frames_that_the_camera_exports_are_shown_without_a_copy() {
    let player = play("dmabuf");
    let stats = player.stats();
    assert_eq!(player.count("copied"), 0, "{stats}");
    assert!(player.count("zero-copy") > 0, "{stats}");
}

#[test]
fn frames_that_the_camera_writes_into_our_memory_are_shown_without_a_copy() {
    let player = play("dmabuf-import");
    let stats = player.stats();
    assert_eq!(player.count("copied"), 0, "{stats}");
    assert!(player.count("zero-copy") > 0, "{stats}");
}
