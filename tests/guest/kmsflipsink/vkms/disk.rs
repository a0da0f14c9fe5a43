// SPDX-License-Identifier: MPL-2.0
//! From a disk to the display: no byte passes through the CPU of source or sink.

use std::path::Path;
use std::process::Command;

use gst::prelude::*;

use super::{H, W, numbered_file};
use crate::frames::assert_crc;
use crate::support;
use crate::support::player::{Player, init};

/// A block device over a file. Unlike the guest's root it takes reads by O_DIRECT.
struct LoopDevice(String);

impl LoopDevice {
    fn over(file: &Path) -> Self {
        let mut losetup = Command::new("losetup");
        let output = losetup
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn frames_of_a_disk_are_shown_where_the_disk_put_them() {
    const FRAMES: usize = 8;
    init();
    if support::kernel_version() < (6, 12) {
        return support::skip("vkms of this kernel shows no udmabufs");
    }
    let (file, expected) = numbered_file(FRAMES);
    let disk = LoopDevice::over(file.path());
    for io_mode in ["read", "io-uring"] {
        let player = Player::new(&format!(
            "rawvideosrc name=source location={} format=bgrx width={W} height={H} framerate=60/1 direct=true io-mode={io_mode} \
             ! kmsflipsink name=sink sync=false mode=640x480 memory-kind=udmabuf",
            disk.0
        ));
        player.reach(gst::State::Paused);
        for (number, &crc) in expected.iter().enumerate() {
            if number > 0 {
                player.step();
            }
            player.wait_shown(number as u64 + 1);
            assert_crc(crc);
        }
        let counts = ["shown", "zero-copy", "copied"].map(|name| player.count(name));
        assert_eq!(counts, [FRAMES as u64, FRAMES as u64, 0], "{io_mode}");
        let source = player.pipeline.by_name("source").unwrap();
        let stats: gst::Structure = source.property("stats");
        assert_eq!(stats.get::<u64>("bounced-bytes"), Ok(0), "{stats}");
        assert!(
            stats.get::<u64>("frames").unwrap() >= FRAMES as u64,
            "{stats}"
        );
    }
}
