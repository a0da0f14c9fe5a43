// SPDX-License-Identifier: MPL-2.0
//! vkms: a DRM driver with a vertical blank at 60 Hz, three fb_pages, and a CRC of every frame that
//! it scans out.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gst_video::VideoFormat;

use super::pictures;
use super::support::player::Player;
use super::support::{Picture, VkmsCrc, require_lab};

#[test]
fn the_pan_is_found_to_wait_and_the_picture_is_right() {
    require_lab();
    let player = Player::play("rawvideosrc num-buffers=4 ! fbpansink name=sink");
    player.assert_zero_copy(4);
    assert_eq!(player.text("vsync"), "pan waits for vertical blank");
    assert_eq!(player.stats().get::<u32>("fb-pages").unwrap(), 3);
    assert_eq!(VkmsCrc::current(), expected(&player, 3).vkms_crc());
}

/// Frame `n` of rawvideosrc's pattern in the size of the screen.
fn expected(player: &Player, n: u64) -> Picture {
    let stats = player.stats();
    let (width, height) = (stats.get("width").unwrap(), stats.get("height").unwrap());
    pictures::pattern(n, VideoFormat::Bgrx, width, height)
}

const DRM_IOCTL_SET_MASTER: libc::c_ulong = 0x641e;

/// Becomes DRM master as a compositor does, so that the framebuffer loses the display.
fn become_drm_master() -> File {
    let card = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/dri/card0")
        .unwrap();
    // SAFETY: the ioctl takes no argument.
    let rc = unsafe { libc::ioctl(card.as_raw_fd(), DRM_IOCTL_SET_MASTER as _, 0) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    card
}

#[test]
fn who_has_the_card_for_a_moment_only_delays_frames() {
    require_lab();
    let player = Player::new("rawvideosrc ! fbpansink name=sink");
    // Another program is DRM master at the start and three times during the stream.
    let release = |master: File| {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(master);
        })
    };
    let at_start = release(become_drm_master());
    player.start();
    player.wait_shown(2);
    at_start.join().unwrap();
    for _ in 0..3 {
        release(become_drm_master()).join().unwrap();
        let shown = player.count("shown");
        player.wait_shown(shown + 4);
    }
    player.stop();
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn another_drm_master_is_one_error_with_a_remedy() {
    require_lab();
    let player = Player::new("rawvideosrc ! fbpansink name=sink");
    player.start();
    player.wait_shown(2);
    let master = become_drm_master();
    let error = player.wait_for_error();
    let says = "FBIOPAN_DISPLAY on /dev/fb0 failed: Device or resource busy (EBUSY); another program is DRM master";
    assert!(error.contains(says), "{error}");
    player.stop();
    drop(master);
    // The first player could not restore the offset. So DRM scans out another offset than the
    // framebuffer reports, and the next player corrects that.
    let player = Player::play("rawvideosrc num-buffers=2 ! fbpansink name=sink");
    player.assert_zero_copy(2);
    assert_eq!(VkmsCrc::current(), expected(&player, 1).vkms_crc());
}

/// Records the CRCs of what is scanned out until `stop` is set.
fn record_crcs(stop: &AtomicBool) -> Vec<u32> {
    let mut stream = VkmsCrc::open();
    let mut crcs = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        crcs.extend(stream.next().map(|frame| frame.crc));
    }
    crcs
}

#[test]
fn no_frame_is_torn() {
    require_lab();
    const FRAMES: u64 = 60;
    let preview = Player::play("rawvideosrc num-buffers=1 ! fbpansink name=sink");
    let by_crc: HashMap<u32, u64> = (0..FRAMES)
        .map(|n| (expected(&preview, n).vkms_crc(), n))
        .collect();
    assert_eq!(by_crc.len() as u64, FRAMES);
    drop(preview);
    for options in ["", "fb-pages=2", "sync=false"] {
        let stop = AtomicBool::new(false);
        let crcs = std::thread::scope(|scope| {
            let recorder = scope.spawn(|| record_crcs(&stop));
            let player = Player::play(&format!(
                "rawvideosrc num-buffers={FRAMES} framerate=60/1 ! fbpansink name=sink {options}"
            ));
            player.assert_zero_copy(FRAMES);
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            let crcs = recorder.join().unwrap();
            player.stop();
            crcs
        });
        // The first CRCs are of the picture from before.
        let shown: Vec<_> = crcs
            .iter()
            .map(|crc| by_crc.get(crc))
            .skip_while(|n| n.is_none())
            .collect();
        assert!(shown.len() > 10, "{options}: {} CRCs", shown.len());
        assert_eq!(
            shown.iter().position(|n| n.is_none()),
            None,
            "{options}: a torn frame"
        );
        assert!(shown.is_sorted(), "{options}: {shown:?}");
        assert_eq!(shown.last(), Some(&Some(&(FRAMES - 1))), "{options}");
    }
}

#[test]
fn a_pause_loses_no_frame_that_waited() {
    require_lab();
    const FRAMES: u64 = 60;
    // The source makes more frames than the display shows, so one frame always waits: in the sink's
    // pool, or in the sink if frames are copied.
    for upstream in ["", "! tee", "! tee ! queue"] {
        let player = Player::new(&format!(
            "rawvideosrc num-buffers={FRAMES} {upstream} ! fbpansink name=sink sync=false fb-pages=2"
        ));
        for round in 0..8u64 {
            player.start();
            player.wait_shown(5 * (round + 1));
            player.reach(gst::State::Paused);
        }
        player.start();
        player.wait_for_end();
        assert_eq!(player.count("shown"), FRAMES, "{}", player.stats());
        let last = expected(&player, FRAMES - 1).vkms_crc();
        assert_eq!(VkmsCrc::current(), last, "{upstream}");
    }
}
