// SPDX-License-Identifier: MPL-2.0
//! What the display controller itself says: on a board whose PL111 scans out of main
//! memory, its base register is the physical address of the frame on the screen, and that
//! is the one in the frame's meta. Needs --arch armhf --display pl111 --append video=640x480@60.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_video::VideoFormat;
use gstphysmem::meta::PhysMemMeta;

use support::{Picture, oracle, require_lab};

/// LCDUPBASE (ARM DDI 0293, 3.2.5) of the board's PL111.
const UPPER_PANEL_BASE: u64 = 0x1002_0000 + 0x10;
const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
const FRAMES: u64 = 300;
/// Of so many frames one is compared with the screen and with memory, too.
const LOOKED_AT: u64 = 50;
/// Long, for a loaded machine under TCG; a hang is what it ends.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(120);

/// Where the controller reads the picture, as QEMU has it.
fn base_register() -> u64 {
    let answer = oracle().hmp(&format!("xp /1wx {UPPER_PANEL_BASE:#x}"));
    let value = answer.rsplit_once(": 0x").map(|(_, value)| value);
    let value = value.and_then(|value| value.get(..8));
    value
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or_else(|| panic!("no register in {answer}"))
}

/// What came to the sink last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arrival {
    address: u64,
    number: u64,
}

struct Player {
    pipeline: gst::Pipeline,
    sink: gst::Element,
    format: VideoFormat,
    last: Arc<Mutex<Option<Arrival>>>,
}

impl Player {
    #[track_caller]
    fn new(source: &str, sink: &str, format: VideoFormat) -> Self {
        require_lab();
        gst::init().unwrap();
        static REGISTERED: std::sync::Once = std::sync::Once::new();
        REGISTERED.call_once(|| gstphysmem::plugin_register_static().unwrap());
        let launch = format!(
            "{source} ! video/x-raw,format={},width={WIDTH},height={HEIGHT},framerate=30/1 ! {sink} name=sink",
            format.to_str()
        );
        let pipeline = gst::parse::launch(&launch).unwrap();
        let pipeline: gst::Pipeline = pipeline.downcast().unwrap();
        let sink = pipeline.by_name("sink").unwrap();
        let last = Arc::new(Mutex::new(None));
        let seen = last.clone();
        let pad = sink.static_pad("sink").unwrap();
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
            pipeline,
            sink,
            format,
            last,
        }
    }

    #[track_caller]
    fn wait_for_preroll(&self) {
        let (result, now, _) = self.pipeline.state(PATIENCE);
        let bus = self.pipeline.bus().unwrap();
        let error = bus.pop_filtered(&[gst::MessageType::Error]);
        assert!(
            result.is_ok() && now == gst::State::Paused,
            "{result:?}, {now:?}: {error:?}, {}",
            self.stats()
        );
    }

    fn stats(&self) -> gst::Structure {
        self.sink.property("stats")
    }

    /// Fails unless the controller comes to read frame `number`, where its meta says it is.
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
                self.stats()
            );
        }
    }

    /// Fails unless the frame is what the screen shows, and what lies at the address.
    #[track_caller]
    fn assert_on_screen(&self, number: u64) {
        let info = gst_video::VideoInfo::builder(self.format, WIDTH, HEIGHT)
            .build()
            .unwrap();
        let frame = gstphysmem::rawvideosrc::pattern::render(number, &info).unwrap();
        let arrived = self.last.lock().unwrap().expect("a frame came");
        let memory = oracle().phys(arrived.address, frame.len());
        assert!(memory == frame, "frame {number} is not at its address");
        let picture = picture(&frame, self.format);
        oracle().shot().assert_same_as(&picture);
    }

    #[track_caller]
    fn assert_zero_copy(&self, at_least: u64) {
        let count = |name| self.stats().get::<u64>(name).unwrap();
        assert!(count("zero-copy") >= at_least, "{}", self.stats());
        assert_eq!(count("copied"), 0, "{}", self.stats());
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// The frame as QEMU shows it: it widens five and six bits by shifting.
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

/// Frame by frame, each held on the screen until it was looked at.
#[track_caller]
fn step_through(sink: &str, format: VideoFormat) {
    let player = Player::new("rawvideosrc", sink, format);
    player.pipeline.set_state(gst::State::Paused).unwrap();
    for number in 0..FRAMES {
        player.wait_for_preroll();
        player.assert_scanned_out(number);
        if number % LOOKED_AT == LOOKED_AT - 1 {
            player.assert_on_screen(number);
        }
        if number + 1 < FRAMES {
            let one = gst::format::Buffers::from_u64(1);
            let step = gst::event::Step::new(one, 1.0, true, false);
            assert!(player.sink.send_event(step), "no step after frame {number}");
        }
    }
    player.assert_zero_copy(FRAMES);
}

/// To the end; however late they are, no frame is left out.
#[track_caller]
fn play(sink: &str, format: VideoFormat) {
    let source = format!("rawvideosrc num-buffers={FRAMES}");
    let sink = format!("{sink} qos=false max-lateness=-1");
    let player = Player::new(&source, &sink, format);
    player.pipeline.set_state(gst::State::Playing).unwrap();
    let bus = player.pipeline.bus().unwrap();
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = bus.timed_pop_filtered(PATIENCE, &wanted).expect("an end");
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    player.assert_scanned_out(FRAMES - 1);
    player.assert_on_screen(FRAMES - 1);
    player.assert_zero_copy(FRAMES);
}

#[track_caller]
fn seek(sink: &str, format: VideoFormat) {
    let player = Player::new("rawvideosrc", sink, format);
    player.pipeline.set_state(gst::State::Paused).unwrap();
    player.wait_for_preroll();
    for number in [7u64, 123, 1] {
        let time = gst::ClockTime::from_nseconds((number * 1_000_000_000).div_ceil(30));
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
        player.pipeline.seek_simple(flags, time).unwrap();
        player.assert_scanned_out(number);
        player.assert_on_screen(number);
    }
    player.assert_zero_copy(3);
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
