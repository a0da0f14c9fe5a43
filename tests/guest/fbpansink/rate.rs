// SPDX-License-Identifier: MPL-2.0
//! vkms with a guest clock that counts instructions, so that what the guest computes between two
//! vertical blanks does not depend on the load of the host.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use gst::prelude::*;

use super::support::player::Player;
use super::support::{guest_clock, require_lab};

/// `union drm_wait_vblank` on 64-bit machines.
#[repr(C)]
#[derive(Default)]
struct WaitVblank {
    kind: u32,
    sequence: u32,
    rest: [u64; 2],
}
const DRM_IOCTL_WAIT_VBLANK: libc::c_ulong = 0xc018_643a;
const RELATIVE: u32 = 1;

/// The number of the last vertical blank.
#[track_caller]
fn vblank(card: &File) -> u32 {
    let mut wait = WaitVblank {
        kind: RELATIVE,
        ..Default::default()
    };
    // SAFETY: the structure has the size that the request code says.
    let rc = unsafe { libc::ioctl(card.as_raw_fd(), DRM_IOCTL_WAIT_VBLANK as _, &raw mut wait) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    wait.sequence
}

#[test]
fn each_vertical_blank_shows_a_new_frame() {
    require_lab();
    for options in ["", "fb-pages=2"] {
        let player = Player::new(&format!(
            "rawvideosrc ! fbpansink name=sink sync=false {options}"
        ));
        player.start();
        player.wait_shown(20);
        // The framebuffer's own client has the display by now. This file must not become DRM
        // master.
        let card = OpenOptions::new()
            .read(true)
            .open("/dev/dri/card0")
            .unwrap();
        // SAFETY: the ioctl takes no argument; DRM_IOCTL_DROP_MASTER.
        unsafe { libc::ioctl(card.as_raw_fd(), 0x641f as _, 0) };
        let (frame, blank, time) = (player.count("shown"), vblank(&card), guest_clock());
        player.wait_shown(frame + 120);
        let frames = player.count("shown") - frame;
        let (blanks, time) = (vblank(&card) - blank, guest_clock() - time);
        println!("{options}: {frames} frames in {blanks} vertical blanks, {time:?}");
        // Both counts may be off by one at the beginning and at the end.
        assert!(
            frames.abs_diff(u64::from(blanks)) <= 2,
            "{frames} frames, {blanks} blanks"
        );
        player.stop();
    }
}

#[test]
fn each_frame_is_told_with_the_time_at_which_its_pan_was_over() {
    let player = Player::new(
        "rawvideosrc num-buffers=120 ! video/x-raw,framerate=30/1 \
         ! fbpansink name=sink post-presentation-messages=true",
    );
    player.start();
    let presented = player.presented_until_end();
    assert_eq!(presented.len(), 120, "{}", player.stats());
    let ns = |frame: &gst::Structure, name: &str| {
        let ns = frame.get::<u64>(name);
        ns.unwrap_or_else(|e| panic!("{name}: {e}: {frame}")) as i64
    };
    let period_ns = player.sink.property::<u64>("render-delay") as i64;
    // The first second is left out, in which the guest may be late.
    for pair in presented.windows(2).skip(30) {
        let [one, next] = pair else { unreachable!() };
        let running = ns(next, "running-time") - ns(one, "running-time");
        assert!((running - 33_333_333).abs() <= 1, "{one} {next}");
        let flags = ["vsync", "zero-copy", "hw-clock"].map(|flag| next.get::<bool>(flag));
        assert_eq!(flags, [Ok(true), Ok(true), Ok(false)], "{next}");
        assert_eq!(ns(next, "refresh-period"), period_ns);
        assert!(!next.has_field("sequence"), "{next}");
        let early = ns(next, "target-time") - ns(next, "presentation-time");
        // The presenter sees the vertical blank when the ioctl returns, which is a little later.
        let allowed = -2_000_000..period_ns + 1_000_000;
        assert!(allowed.contains(&early), "{early} ns early: {next}");
    }
}
