// SPDX-License-Identifier: MPL-2.0
//! The display controller itself as a witness. The PL111 of this board scans out of main memory,
//! and its base register must hold the physical address that is in the meta of the frame on the
//! screen. Needs --arch armhf --display pl111 --append video=640x480@60.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_video::VideoFormat;
use gstphysmem::meta::PhysMemMeta;

use support::player::Player;
use support::{Picture, oracle};

/// LCDUPBASE (ARM DDI 0293, 3.2.5) of the board's PL111.
const UPPER_PANEL_BASE: u64 = 0x1002_0000 + 0x10;
const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
const FRAMES: u64 = 300;
/// One frame of this many is also compared with the screen and with memory.
const CHECK_INTERVAL: u64 = 50;

/// The address at which the controller reads the picture, from QEMU.
fn base_register() -> u64 {
    let answer = oracle().hmp(&format!("xp /1wx {UPPER_PANEL_BASE:#x}"));
    let value = answer.rsplit_once(": 0x").map(|(_, value)| value);
    let value = value.and_then(|value| value.get(..8));
    value
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or_else(|| panic!("no register in {answer}"))
}

/// The last frame that arrived at the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arrival {
    address: u64,
    number: u64,
}

struct Scanout {
    player: Player,
    format: VideoFormat,
    last: Arc<Mutex<Option<Arrival>>>,
}

impl Scanout {
    #[track_caller]
    fn new(source: &str, sink: &str, format: VideoFormat) -> Self {
        let player = Player::new(&format!(
            "{source} ! video/x-raw,format={},width={WIDTH},height={HEIGHT},framerate=30/1 ! {sink} name=sink",
            format.to_str()
        ));
        let last = Arc::new(Mutex::new(None));
        let seen = last.clone();
        let pad = player.sink.static_pad("sink").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let buffer = info.buffer().expect("a buffer");
            let meta = buffer.meta::<PhysMemMeta>();
            let address = meta.and_then(|meta| meta.phys_addr());
            let address = address.expect("a contiguous frame of known address");
            *seen.lock().unwrap() = Some(Arrival {
                address: address.0,
                number: (buffer.pts().expect("a time").nseconds() * 30).div_ceil(1_000_000_000),
            });
            gst::PadProbeReturn::Ok
        })
        .unwrap();
        Self {
            player,
            format,
            last,
        }
    }

    /// Waits until the controller reads frame `number` at the address in its meta.
    #[track_caller]
    fn assert_scanned_out(&self, number: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let arrived = *self.last.lock().unwrap();
            let base = base_register();
            if arrived.is_some_and(|last| last.number == number && last.address == base) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "frame {number}: the last is {arrived:x?}, the controller reads {base:#x}: {}",
                self.player.stats()
            );
        }
    }

    /// Fails unless the screen shows the frame and the host finds it at its address.
    #[track_caller]
    fn assert_on_screen(&self, number: u64) {
        let info = gst_video::VideoInfo::builder(self.format, WIDTH, HEIGHT)
            .build()
            .unwrap();
        let frame = gstphysmem::rawvideosrc::pattern_frame(number, &info).unwrap();
        let arrived = self.last.lock().unwrap().expect("a frame came");
        let memory = oracle().phys(arrived.address, frame.len());
        assert!(memory == frame, "frame {number} is not at its address");
        let picture = picture(&frame, self.format);
        oracle().shot().assert_same_as(&picture);
    }

    /// A frame that is shown again after a seek or a step is counted again, hence a minimum.
    #[track_caller]
    fn assert_none_copied(&self, at_least: u64) {
        let (zero_copy, copied) = (self.player.count("zero-copy"), self.player.count("copied"));
        assert!(
            zero_copy >= at_least && copied == 0,
            "{}",
            self.player.stats()
        );
    }
}

/// The frame as QEMU shows it, which widens five and six bits by a shift alone.
fn picture(frame: &[u8], format: VideoFormat) -> Picture {
    let rgb = match format {
        VideoFormat::Rgb16 => frame
            .chunks_exact(2)
            .flat_map(|pixel| {
                let word = u16::from_le_bytes([pixel[0], pixel[1]]);
                [
                    (word >> 11 << 3) as u8,
                    (word >> 5 << 2) as u8,
                    (word << 3) as u8,
                ]
            })
            .collect(),
        VideoFormat::Bgrx => frame
            .chunks_exact(4)
            .flat_map(|pixel| [pixel[2], pixel[1], pixel[0]])
            .collect(),
        other => panic!("no picture of {other}"),
    };
    Picture {
        width: WIDTH as usize,
        height: HEIGHT as usize,
        rgb,
    }
}

/// Shows the frames one by one in PAUSED and checks each.
#[track_caller]
fn step_through(sink: &str, format: VideoFormat) {
    let scanout = Scanout::new("rawvideosrc", sink, format);
    let player = &scanout.player;
    player.set_state(gst::State::Paused);
    for number in 0..FRAMES {
        player.settle(gst::State::Paused);
        scanout.assert_scanned_out(number);
        if number % CHECK_INTERVAL == CHECK_INTERVAL - 1 {
            scanout.assert_on_screen(number);
        }
        if number + 1 < FRAMES {
            player.step();
        }
    }
    scanout.assert_none_copied(FRAMES);
}

/// Plays to the end without dropping late frames.
#[track_caller]
fn play(sink: &str, format: VideoFormat) {
    let source = format!("rawvideosrc num-buffers={FRAMES}");
    let sink = format!("{sink} qos=false max-lateness=-1");
    let scanout = Scanout::new(&source, &sink, format);
    scanout.player.start();
    scanout.player.wait_for_end();
    scanout.assert_scanned_out(FRAMES - 1);
    scanout.assert_on_screen(FRAMES - 1);
    scanout.assert_none_copied(FRAMES);
}

#[track_caller]
fn seek(sink: &str, format: VideoFormat) {
    let scanout = Scanout::new("rawvideosrc", sink, format);
    scanout.player.reach(gst::State::Paused);
    let wanted = [7, 123, 1];
    for number in wanted {
        scanout.player.seek(number, 30);
        scanout.assert_scanned_out(number);
        scanout.assert_on_screen(number);
    }
    // The preroll frame counts too.
    scanout.assert_none_copied(1 + wanted.len() as u64);
}

#[test]
fn fbpansink_pans_to_the_address_in_the_meta() {
    step_through("fbpansink", VideoFormat::Rgb16);
}

#[test]
fn kmsflipsink_flips_to_the_address_in_the_meta() {
    step_through("kmsflipsink mode=640x480", VideoFormat::Bgrx);
}

#[test]
fn fbpansink_plays_to_the_end() {
    play("fbpansink", VideoFormat::Rgb16);
}

#[test]
fn kmsflipsink_plays_to_the_end() {
    play("kmsflipsink mode=640x480", VideoFormat::Bgrx);
}

#[test]
fn fbpansink_seeks() {
    seek("fbpansink", VideoFormat::Rgb16);
}

#[test]
fn kmsflipsink_seeks() {
    seek("kmsflipsink mode=640x480", VideoFormat::Bgrx);
}
