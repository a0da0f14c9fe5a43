// SPDX-License-Identifier: MPL-2.0
//! Two cards in one machine: vkms, judged by its CRC, and bochs, judged by the picture that QEMU's
//! oracle takes (`--display vkms --qemu '-device bochs-display,refresh_rate=20'`).

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;

use crate::frames::{assert_on_screen, bgrx, buffer_of, dma_frame, numbered};
use crate::support;
use crate::support::player::{Player, init};
use crate::unpaced::assert_seen;

const W: usize = 640;
const H: usize = 480;

fn playing_on(driver: &str) -> Player {
    Player::playing(&format!("driver-name={driver}"))
}

#[test]
fn two_sinks_show_on_two_cards_at_once() {
    let (left, right) = (playing_on("vkms"), playing_on("bochs-drm"));
    for number in 0..6 {
        let pictures = [numbered(W, H, number), numbered(W, H, number + 100)];
        left.push(dma_frame(&pictures[0]));
        right.push(buffer_of(&pictures[1]));
        left.wait_shown(number as u64 + 1);
        right.wait_shown(number as u64 + 1);
        assert_on_screen(&pictures[0]);
        assert_seen(&pictures[1]);
    }
    let devices = [&left, &right].map(|player| player.stats().get::<String>("device").unwrap());
    assert_ne!(devices[0], devices[1]);
    // The end of one stream leaves the other one alone.
    left.reach(gst::State::Null);
    let last = numbered(W, H, 200);
    right.show(buffer_of(&last));
    assert_seen(&last);
}

#[test]
fn one_stream_is_shown_on_two_cards_by_a_tee() {
    init();
    let player = Player::new(
        "rawvideosrc num-buffers=20 ! video/x-raw,format=BGRx,width=640,height=480,framerate=60/1 \
         ! tee name=t ! queue ! kmsflipsink name=sink driver-name=vkms mode=640x480 sync=false \
         t. ! queue ! kmsflipsink name=other driver-name=bochs-drm mode=640x480 sync=false",
    );
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    let other = player.pipeline.by_name("other").unwrap();
    let shown = |sink: &gst::Element| {
        let stats: gst::Structure = sink.property("stats");
        stats.get::<u64>("shown").unwrap()
    };
    assert_eq!((shown(&player.sink), shown(&other)), (20, 20));
}

fn framebuffer_of(driver: &str) -> fs::File {
    let list = fs::read_to_string("/proc/fb").unwrap();
    let line = list.lines().find(|line| line.contains(driver)).unwrap();
    let number = line.split(' ').next().unwrap();
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/dev/fb{number}"))
        .unwrap()
}

/// Pans the framebuffer to its present offset, as a player does for each frame.
fn pan(framebuffer: &fs::File) -> std::io::Result<()> {
    const FBIOGET_VSCREENINFO: libc::c_ulong = 0x4600;
    const FBIOPAN_DISPLAY: libc::c_ulong = 0x4606;
    let mut var = [0u32; 40];
    for request in [FBIOGET_VSCREENINFO, FBIOPAN_DISPLAY] {
        // SAFETY: struct fb_var_screeninfo is 160 bytes.
        if unsafe { libc::ioctl(framebuffer.as_raw_fd(), request, &raw mut var) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

#[test]
fn a_start_on_one_card_does_not_disturb_who_pans_the_other() {
    init();
    let framebuffer = framebuffer_of("vkms");
    let (done, n_pans) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let panning = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                pan(&framebuffer)?;
                n_pans.store(true, Ordering::Relaxed);
            }
            Ok::<_, std::io::Error>(())
        });
        for _ in 0..5 {
            let player = playing_on("bochs-drm");
            player.show(buffer_of(&numbered(W, H, 1)));
            player.reach(gst::State::Null);
        }
        done.store(true, Ordering::Relaxed);
        panning.join().unwrap().expect("no pan is refused");
    });
    assert!(n_pans.into_inner());
}

#[test]
fn processes_that_start_at_once_on_two_cards_get_them() {
    init();
    for round in 0..4 {
        let children = ["bochs-drm", "vkms"].map(|driver| {
            support::gst_launch(&format!(
                "-q videotestsrc num-buffers=3 ! kmsflipsink driver-name={driver}"
            ))
            .spawn()
            .unwrap()
        });
        for mut child in children {
            assert!(child.wait().unwrap().success(), "round {round}");
        }
    }
}

fn set_connector_state(connector: &str, state: &str) {
    let card = fs::read_dir("/sys/class/drm")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.ends_with(connector))
        .unwrap();
    fs::write(format!("/sys/class/drm/{card}/status"), state).unwrap();
    // sysfs only stores the state: the uevent of a driver has to be sent as well.
    let (card, _) = card.split_once('-').unwrap();
    fs::write(format!("/sys/class/drm/{card}/uevent"), "change").unwrap();
}

#[test]
fn with_no_display_at_all_the_first_that_comes_is_used() {
    init();
    set_connector_state("Virtual-1", "off");
    set_connector_state("Virtual-2", "off");
    let player = Player::with_appsrc("mode=640x480");
    player.set_caps(&bgrx(W as u32, H as u32));
    player.set_state(gst::State::Playing);
    for number in 0..3 {
        player.push(buffer_of(&numbered(W, H, number)));
    }
    let dark: String = player.stats().get("connector").unwrap();
    let lit = if dark == "Virtual-1" {
        "Virtual-2"
    } else {
        "Virtual-1"
    };
    set_connector_state(lit, "on");
    player.wait_until("other connector", |player| {
        player.push(buffer_of(&numbered(W, H, 7)));
        player.stats().get::<String>("connector").unwrap() == lit
    });
    player.show(buffer_of(&numbered(W, H, 8)));
    set_connector_state("Virtual-1", "detect");
    set_connector_state("Virtual-2", "detect");
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn a_pixel_clock_of_next_to_nothing_does_not_pace_frames() {
    // Panels behind SPI have such a mode (`DRM_SIMPLE_MODE`), and no vertical blank either.
    let player = Player::new(
        "videotestsrc num-buffers=10 ! video/x-raw,width=320,height=240,framerate=30/1 \
         ! kmsflipsink name=sink driver-name=bochs-drm mode=preferred sync=false",
    );
    player.set_state(gst::State::Playing);
    player.wait_for_end();
    assert_eq!(player.count("shown"), 10);
    let mode: String = player.stats().get("mode").unwrap();
    assert!(mode.ends_with("@60.00"), "{mode}");
}
