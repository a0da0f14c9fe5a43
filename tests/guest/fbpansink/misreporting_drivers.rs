// SPDX-License-Identifier: MPL-2.0
//! bochs and virtio: FBIOPAN_DISPLAY returns 0, and on some kernels the screen
//! shows something else.

use std::time::{Duration, Instant};

use gst_video::VideoFormat;

use super::pictures;
use super::support::player::Player;
use super::support::{self, Picture, oracle, require_lab};

/// The driver copies its shadow to the screen some time after it was written.
fn shows(expected: &Picture, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if oracle().shot() == *expected {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn size(player: &Player) -> (u32, u32) {
    let stats = player.stats();
    (stats.get("width").unwrap(), stats.get("height").unwrap())
}

/// virtio has stopped to lie between these kernels.
fn misreports() -> bool {
    !(support::display() == "virtio" && support::kernel_version() >= (6, 12))
}

#[test]
fn each_frame_is_shown_right_on_drivers_that_lie_too() {
    require_lab();
    for frames in [1, 2, 3, 5] {
        let player = Player::play(&format!(
            "rawvideosrc num-buffers={frames} ! fbpansink name=sink sync=false"
        ));
        let fb_pages = player.stats().get::<u32>("fb-pages").unwrap();
        let warnings = player.messages(gst::MessageType::Warning);
        if misreports() {
            let counted = (player.count("zero-copy"), player.count("copied"));
            assert_eq!(counted, (0, frames), "{}", player.stats());
            assert_eq!((fb_pages, warnings.len()), (1, 1), "{warnings:?}");
            assert!(
                warnings[0].contains("accepts pans but does not show them"),
                "{warnings:?}"
            );
        } else {
            player.assert_zero_copy(frames);
            assert_eq!((fb_pages, warnings.len()), (3, 0), "{warnings:?}");
        }
        let (width, height) = size(&player);
        let expected = pictures::pattern(frames - 1, VideoFormat::Bgrx, width, height);
        assert!(shows(&expected, Duration::from_secs(60)), "{frames} frames");
    }
}

/// If this fails, the driver has learned to pan: take it off the list.
#[test]
fn the_drivers_on_the_list_do_lie() {
    require_lab();
    let mut right = Vec::new();
    // Three in a row: one of them is in the first fb_page, which is shown right.
    for frames in 2..=4 {
        let player = Player::play(&format!(
            "rawvideosrc num-buffers={frames} ! fbpansink name=sink fb-pages=3"
        ));
        player.assert_zero_copy(frames);
        assert_eq!(player.stats().get::<u32>("fb-pages").unwrap(), 3);
        let (width, height) = size(&player);
        let expected = pictures::pattern(frames - 1, VideoFormat::Bgrx, width, height);
        right.push(shows(&expected, Duration::from_secs(3)));
    }
    assert_eq!(right.contains(&false), misreports(), "{right:?}");
}
