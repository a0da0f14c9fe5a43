// SPDX-License-Identifier: MPL-2.0
//! A vkms device with two displays and planes for each, made through configfs, and formats that
//! only such a device has: kernel 7.2, without the default device (`--append
//! vkms.create_default_dev=0`).

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gst::prelude::*;
use gst_video::VideoFormat;

use crate::frames::{
    assert_crc_of, assert_deep_rgb_is_shown, bgrx, buffer_of, dma_frame, laid_on, numbered,
};
use crate::support::player::{Player, init};
use crate::support::{Picture, PixelCrc, VkmsCrc};

const W: usize = 640;
const H: usize = 480;

/// A vkms device, which is removed on drop.
struct Vkms(PathBuf);

/// The states of a connector, by configfs's numbers.
#[derive(Clone, Copy)]
enum Display {
    Connected = 1,
    Disconnected = 2,
}
use Display::{Connected, Disconnected};

impl Vkms {
    /// Connector N is driven by CRTC N, which has a primary plane; an overlay plane can be
    /// shown on both.
    fn with(displays: [Display; 2]) -> Self {
        Self::wired(displays, &[])
    }

    /// The same, with further CRTCs that may drive an encoder, as pairs of their numbers.
    fn wired(displays: [Display; 2], also: &[(usize, usize)]) -> Self {
        init();
        let device = Self(PathBuf::from("/sys/kernel/config/vkms/lab"));
        fs::create_dir(&device.0).expect("a vkms that configfs makes: kernel 7.2");
        for (index, display) in displays.into_iter().enumerate() {
            let crtc = device.make(&format!("crtcs/{index}"));
            let encoder = device.make(&format!("encoders/{index}"));
            let connector = device.make(&format!("connectors/{index}"));
            let primary = device.make(&format!("planes/primary{index}"));
            link(&crtc, &encoder.join("possible_crtcs"));
            link(&encoder, &connector.join("possible_encoders"));
            link(&crtc, &primary.join("possible_crtcs"));
            fs::write(primary.join("type"), "1").expect("a primary plane");
            device.plug(index, display);
        }
        for (crtc, encoder) in also {
            let crtc = device.0.join(format!("crtcs/{crtc}"));
            let encoder = device.0.join(format!("encoders/{encoder}"));
            link(&crtc, &encoder.join("possible_crtcs"));
        }
        let overlay = device.make("planes/overlay");
        for index in 0..2 {
            let crtc = device.0.join(format!("crtcs/{index}"));
            link(&crtc, &overlay.join("possible_crtcs"));
        }
        fs::write(device.0.join("enabled"), "1").expect("vkms takes the configuration");
        device
    }

    fn make(&self, name: &str) -> PathBuf {
        let directory = self.0.join(name);
        fs::create_dir(&directory).unwrap_or_else(|e| panic!("{name}: {e}"));
        directory
    }

    /// Plugs a display in or out; vkms sends the hot-plug event itself.
    fn plug(&self, index: usize, display: Display) {
        let status = self.0.join(format!("connectors/{index}/status"));
        fs::write(status, (display as u32).to_string()).expect("a status is taken");
    }
}

fn link(target: &Path, directory: &Path) {
    symlink(target, directory.join(target.file_name().unwrap())).expect("configfs links");
}

impl Drop for Vkms {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("enabled"), "0");
        let entries = |directory: PathBuf| {
            let entries = fs::read_dir(directory).into_iter().flatten();
            entries.flatten().map(|entry| entry.path())
        };
        let items = ["planes", "encoders", "connectors", "crtcs"]
            .into_iter()
            .flat_map(|kind| entries(self.0.join(kind)));
        let items: Vec<_> = items.collect();
        // A directory that a link points to cannot be removed.
        for item in &items {
            let links = ["possible_crtcs", "possible_encoders"].map(|links| item.join(links));
            for link in links.into_iter().flat_map(entries) {
                let _ = fs::remove_file(link);
            }
        }
        for item in items {
            let _ = fs::remove_dir(item);
        }
        let removed = fs::remove_dir(&self.0);
        if !std::thread::panicking() {
            removed.expect("the device can be removed");
        }
    }
}

/// Name and DRM id of the connector that the sink uses.
fn connector(player: &Player) -> (String, u32) {
    let stats = player.stats();
    let name = stats.get("connector").unwrap();
    (name, stats.get("connector-id").unwrap())
}

#[track_caller]
fn assert_on_display(index: usize, picture: &Picture) {
    assert_crc_of(VkmsCrc::of_crtc(index), picture.vkms_crc());
}

#[test]
fn the_display_that_is_plugged_in_is_chosen() {
    for displays in [[Disconnected, Connected], [Connected, Disconnected]] {
        let _device = Vkms::with(displays);
        let plugged = displays
            .iter()
            .position(|display| matches!(display, Connected))
            .unwrap();
        let player = Player::playing("");
        for number in 0..3 {
            let picture = numbered(W, H, number);
            player.show(dma_frame(&picture));
            assert_on_display(plugged, &picture);
        }
        assert_eq!((player.count("zero-copy"), player.count("copied")), (3, 0));
    }
}

#[test]
fn each_display_is_had_by_the_id_of_its_connector() {
    let _device = Vkms::with([Connected, Connected]);
    let first = Player::playing("");
    first.show(buffer_of(&numbered(W, H, 1)));
    let (name, id) = connector(&first);
    drop(first);
    // The kernel gives ids in the order in which it makes the objects.
    let second = Player::with_appsrc("connector-id=1");
    assert!(second.pipeline.set_state(gst::State::Ready).is_err());
    let list = second.wait_for_error();
    drop(second);
    let other = list
        .split("connector ")
        .filter_map(|words| words.split_once(' ')?.0.parse::<u32>().ok())
        .find(|&other| other != id)
        .unwrap_or_else(|| panic!("no second connector in {list}"));
    for (index, id) in [id, other].into_iter().enumerate() {
        let player = Player::playing(&format!("connector-id={id}"));
        let picture = numbered(W, H, 10 + index);
        player.show(dma_frame(&picture));
        assert_on_display(index, &picture);
        assert_eq!(connector(&player).1, id);
        assert_eq!(connector(&player).0 == name, index == 0);
    }
}

#[test]
fn two_sinks_show_on_two_displays_at_once() {
    let _device = Vkms::with([Connected, Connected]);
    let left = Player::playing("");
    left.show(buffer_of(&numbered(W, H, 1)));
    let right = Player::playing(&format!(
        "connector={}",
        other_connector(&connector(&left).0)
    ));
    for number in 0..4 {
        let pictures = [number, number + 100].map(|number| numbered(W, H, number));
        left.show(dma_frame(&pictures[0]));
        right.show(dma_frame(&pictures[1]));
        assert_on_display(0, &pictures[0]);
        assert_on_display(1, &pictures[1]);
    }
    // The end of one stream leaves the other one alone.
    left.reach(gst::State::Null);
    let last = numbered(W, H, 50);
    right.show(buffer_of(&last));
    assert_on_display(1, &last);
}

/// The other connector: Virtual-2 for Virtual-1, and the reverse.
fn other_connector(connector: &str) -> String {
    let (kind, number) = connector.rsplit_once('-').unwrap();
    format!("{kind}-{}", number.parse::<u32>().unwrap() + 1)
}

#[test]
fn an_overlay_that_roams_goes_to_the_display_of_its_sink() {
    let _device = Vkms::with([Connected, Connected]);
    let first = Player::playing("");
    first.show(buffer_of(&numbered(W, H, 1)));
    let second_display = other_connector(&connector(&first).0);
    drop(first);
    let below = Player::playing(&format!("connector={second_display}"));
    let ground = numbered(W, H, 2);
    below.show(dma_frame(&ground));
    let above = Player::with_appsrc(&format!("connector={second_display}"));
    above.set_caps(&bgrx(200, 150));
    let place = gst::Array::new([100i32, 120, 200, 150]);
    above.sink.set_property("render-rectangle", place);
    above.set_state(gst::State::Playing);
    let top = numbered(200, 150, 3);
    above.show(dma_frame(&top));
    assert_on_display(1, &laid_on(&ground, &top, 100, 120));
    above.reach(gst::State::Null);
    assert_on_display(1, &ground);
}

/// vkms has no two encoders that may share a CRTC, so that no picture can be cloned on it.
#[test]
fn a_connector_that_cannot_be_a_clone_is_named_with_the_reason() {
    for (also, reason) in [
        (&[][..], "no CRTC is free that can drive {} too"),
        (&[(0, 1)][..], "(possible_clones)"),
    ] {
        let _device = Vkms::wired([Connected, Connected], also);
        let alone = Player::playing("");
        let picture = numbered(W, H, 1);
        alone.show(dma_frame(&picture));
        assert_eq!(alone.text("clone-connectors"), "");
        let own = connector(&alone).0;
        drop(alone);
        let other = other_connector(&own);
        let refused = Player::with_appsrc(&format!("connector={own} clone-connectors={other}"));
        assert!(refused.pipeline.set_state(gst::State::Ready).is_err());
        let said = refused.wait_for_error();
        assert!(said.contains(&reason.replace("{}", &other)), "{said}");
        assert!(said.contains(&other), "{said}");
        drop(refused);
        // What was refused has changed nothing.
        let after = Player::playing(&format!("connector={other}"));
        after.show(dma_frame(&picture));
        assert_on_display(1, &picture);
    }
}

#[test]
fn a_display_that_is_plugged_in_while_none_is_there_is_used() {
    // The second connector has a CRTC of its own, or may also have the one that the sink waits on.
    for also in [&[][..], &[(0, 1)]] {
        let device = Vkms::wired([Disconnected, Disconnected], also);
        let player = Player::playing("");
        for number in 0..3 {
            player.push(buffer_of(&numbered(W, H, number)));
        }
        device.plug(1, Connected);
        player.wait_until("frame shown", |player| {
            player.push(buffer_of(&numbered(W, H, 7)));
            player
                .stats()
                .get::<u64>("shown")
                .is_ok_and(|shown| shown > 0)
        });
        let picture = numbered(W, H, 8);
        player.show(buffer_of(&picture));
        assert_on_display(1, &picture);
        assert_eq!(player.errors(), [""; 0]);
    }
}

#[test]
fn sinks_that_wait_for_displays_have_a_crtc_each() {
    let device = Vkms::wired([Disconnected, Disconnected], &[(0, 1), (1, 0)]);
    let left = Player::playing("");
    let other = other_connector(&connector(&left).0);
    let right = Player::playing(&format!("connector={other}"));
    for player in [&left, &right] {
        player.push(buffer_of(&numbered(W, H, 1)));
    }
    for index in 0..2 {
        device.plug(index, Connected);
    }
    let pictures = [2, 3].map(|number| numbered(W, H, number));
    for (player, picture) in [&left, &right].into_iter().zip(&pictures) {
        player.wait_for_event("plugged");
        player.show(buffer_of(picture));
    }
    for (index, picture) in pictures.iter().enumerate() {
        assert_on_display(index, picture);
    }
}

/// The plane decides for a CRTC. The one that drove the display before must be off then.
#[test]
fn a_plane_of_another_crtc_than_the_one_that_drives_the_display_can_be_had() {
    let _device = Vkms::wired([Disconnected, Connected], &[(0, 1)]);
    let first = Player::playing("restore=false");
    first.show(buffer_of(&numbered(W, H, 1)));
    let name = connector(&first).0;
    let number = |field: &str| first.stats().get::<u32>(field).unwrap();
    let (crtc, plane) = (number("crtc-id"), number("plane-id"));
    drop(first); // the CRTC stays on
    let refused = Player::with_appsrc("connector=none");
    assert!(refused.pipeline.set_state(gst::State::Ready).is_err());
    let list = refused.wait_for_error();
    drop(refused);
    let planes = list.split("Primary plane ").skip(1);
    let planes = planes.filter_map(|words| words.split_once(' ')?.0.parse::<u32>().ok());
    let other = planes.into_iter().find(|&other| other != plane);
    let other = other.unwrap_or_else(|| panic!("no second primary plane in {list}"));
    let second = Player::playing(&format!("connector={name} plane-id={other}"));
    let picture = numbered(W, H, 2);
    second.show(buffer_of(&picture));
    let of_second = second.stats().get::<u32>("crtc-id").unwrap();
    assert_ne!(of_second, crtc);
    assert_on_display(usize::from(of_second > crtc), &picture);
    // A second setup leaves the first CRTC off, as it is.
    second.sink.set_property("mode", "800x600");
    second.set_caps(&bgrx(800, 600));
    let larger = numbered(800, 600, 3);
    second.show(buffer_of(&larger));
    assert_on_display(usize::from(of_second > crtc), &larger);
    second.reach(gst::State::Null);
    assert_eq!(second.errors(), [""; 0]);
}

#[test]
fn a_display_that_is_pulled_out_and_comes_back_goes_on() {
    let device = Vkms::with([Connected, Disconnected]);
    let player = Player::playing("");
    player.show(dma_frame(&numbered(W, H, 1)));
    device.plug(0, Disconnected);
    player.wait_for_event("unplugged");
    player.push(dma_frame(&numbered(W, H, 2)));
    player.wait_until("dropped frame", |player| {
        player.count("dropped-disconnected") >= 1
    });
    device.plug(0, Connected);
    player.wait_for_event("plugged");
    let picture = numbered(W, H, 3);
    player.show(dma_frame(&picture));
    assert_on_display(0, &picture);
    assert_eq!(player.errors(), [""; 0]);
}

/// Width and height of a block of one colour. No chroma subsampling mixes two blocks of this size.
const BLOCK: usize = 16;

/// Luma and both chromas of a block, 16 bits each: bright and dark, grey and coloured, and values
/// beyond the limited range.
fn yuv(block_x: usize, block_y: usize) -> [u16; 3] {
    let number = block_x * 7 + block_y * 13;
    let chroma = |factor: usize| match number % 3 {
        0 => 128,
        _ => number * factor % 256,
    };
    [number * 29 % 256, chroma(41), chroma(59)].map(|value| value as u16 * 257)
}

/// The 16 bits that vkms makes of a sample of `yuv` in a format of this depth. It multiplies 8 bits by 257, as `yuv` does,
/// and takes deeper samples as they lie in memory.
fn read_by_vkms(sample: u16, depth: u32) -> u16 {
    match depth {
        8 => sample,
        _ => sample >> (16 - depth) << (16 - depth),
    }
}

/// A picture of the screen's size in NV12 with this colorimetry.
fn nv12(colorimetry: &str) -> gst_video::VideoInfo {
    gst_video::VideoInfo::builder(VideoFormat::Nv12, W as u32, H as u32)
        .colorimetry(&colorimetry.parse().unwrap())
        .build()
        .unwrap()
}

/// The bytes of a frame. Samples of more than eight bits are little-endian words.
fn yuv_bytes(info: &gst_video::VideoInfo) -> Vec<u8> {
    let mut bytes = vec![0; info.size()];
    let format = info.format_info();
    for component in 0..3u8 {
        let index = component as usize;
        let (depth, shift) = (format.depth()[index], format.shift()[index]);
        let sample_bytes = (depth + shift).div_ceil(8) as usize;
        // GStreamer 1.22 gives the offsets of P010 in samples.
        let offset = match format.poffset()[index] as usize {
            offset if offset % sample_bytes == 0 => offset,
            samples => samples * sample_bytes,
        };
        let plane = info.comp_plane(component) as usize;
        let at = info.offset()[plane] + offset;
        let step = format.pixel_stride()[index] as usize;
        let block_w = BLOCK >> format.w_sub()[index];
        let block_h = BLOCK >> format.h_sub()[index];
        for y in 0..info.comp_height(component) as usize {
            let row = at + y * info.stride()[plane] as usize;
            for x in 0..info.comp_width(component) as usize {
                let sample = yuv(x / block_w, y / block_h)[index] >> (16 - depth) << shift;
                let place = &mut bytes[row + x * step..][..sample_bytes];
                place.copy_from_slice(&sample.to_le_bytes()[..sample_bytes]);
            }
        }
    }
    bytes
}

/// The kernel's drm_fixp_mul() of 32.32 fixed point (drm_fixed.h). It gives up low bits of factors whose product would
/// need more than 63. Of samples of 10 and 12 bits, it makes a few colours that differ by one from the equations.
fn drm_fixp_mul(a: i64, b: i64) -> i64 {
    let highest = |value: i64| match value {
        0 | -1 => 0,
        _ => 63 - (value ^ (value >> 63)).leading_zeros(),
    };
    let given_up = (highest(a) + highest(b)).saturating_sub(61);
    let product = (a >> given_up.div_ceil(2)) * (b >> (given_up / 2));
    match given_up {
        33.. => product << (given_up - 32),
        _ => product >> (32 - given_up),
    }
}

/// The CRC that vkms reports for such a frame, by the equations of ITU-R BT.601 and BT.709. vkms
/// scales the limited range by 256/219 and 256/224, not by 255/219 and 255/224, and takes 128 * 257 for the middle of
/// chroma samples of any depth.
fn yuv_crc(info: &gst_video::VideoInfo) -> u32 {
    let colorimetry = info.colorimetry();
    let (kr, kb) = match colorimetry.matrix() {
        gst_video::VideoColorMatrix::Bt601 => (0.299, 0.114),
        gst_video::VideoColorMatrix::Bt709 => (0.2126, 0.0722),
        other => panic!("{other:?}"),
    };
    let (black, luma, chroma) = match colorimetry.range() {
        gst_video::VideoColorRange::Range0_255 => (0, 1.0, 1.0),
        _ => (16 * 257, 256.0 / 219.0, 256.0 / 224.0),
    };
    let kg = 1.0 - kr - kb;
    let (red, blue) = (2.0 * (1.0 - kr) * chroma, 2.0 * (1.0 - kb) * chroma);
    let matrix = [
        [luma, 0.0, red],
        [luma, -blue * kb / kg, -red * kr / kg],
        [luma, blue, 0.0],
    ]
    .map(|row: [f64; 3]| row.map(|factor| (factor * 4_294_967_296.0).round() as i64));
    let depth = info.format_info().depth()[0];
    let rgb = |yuv: [u16; 3]| {
        let [y, u, v] = yuv.map(|sample| i64::from(read_by_vkms(sample, depth)));
        let terms = [y - black, u - 128 * 257, v - 128 * 257].map(|term| term << 32);
        matrix.map(|row| {
            let products = row
                .iter()
                .zip(terms)
                .map(|(&factor, term)| drm_fixp_mul(factor, term));
            let sum: i64 = products.sum();
            ((sum + (1 << 31)) >> 32).clamp(0, 65535) as u16
        })
    };
    let mut crc = PixelCrc::new();
    for block_y in 0..H / BLOCK {
        let mut row = Vec::with_capacity(W * 8);
        for block_x in 0..W / BLOCK {
            let mut pixel = vec![0xff; 2];
            for channel in rgb(yuv(block_x, block_y)) {
                pixel.extend(channel.to_le_bytes());
            }
            row.extend(pixel.repeat(BLOCK));
        }
        (0..BLOCK).for_each(|_| crc.add(&row));
    }
    crc.finish()
}

#[test]
fn yuv_is_shown_without_a_copy_in_the_colours_that_the_caps_say() {
    let _device = Vkms::with([Connected, Disconnected]);
    for (format, colorimetry) in [
        (VideoFormat::Nv12, "bt709"),
        (VideoFormat::Nv12, "bt601"),
        (VideoFormat::Nv12, "1:3:0:0"),
        (VideoFormat::I420, "bt709"),
        (VideoFormat::Nv16, "1:4:0:0"),
        (VideoFormat::Y444, "bt601"),
        (VideoFormat::P01010le, "bt709"),
        (VideoFormat::P01010le, "1:3:0:0"),
        (VideoFormat::P012Le, "bt601"),
        (VideoFormat::P016Le, "bt709"),
    ] {
        let info = gst_video::VideoInfo::builder(format, W as u32, H as u32)
            .colorimetry(&colorimetry.parse().unwrap())
            .build()
            .unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&yuv_bytes(&info)).unwrap();
        let player = Player::new(&format!(
            "rawvideosrc location={} format={} width={W} height={H} framerate=60/1 \
             colorimetry={colorimetry} ! kmsflipsink name=sink mode=640x480 sync=false",
            file.path().display(),
            format.to_str().to_lowercase().replace('_', "-"),
        ));
        player.set_state(gst::State::Playing);
        player.wait_for_end();
        println!("{} {colorimetry}", format.to_str());
        assert_eq!(player.text("colours"), "as the caps say");
        assert_crc_of(VkmsCrc::of_crtc(0), yuv_crc(&info));
        assert_eq!(
            (player.count("zero-copy"), player.count("copied")),
            (1, 0),
            "{}",
            player.stats()
        );
    }
}

#[test]
fn colours_are_right_again_after_a_stream_in_others() {
    let _device = Vkms::with([Connected, Disconnected]);
    let player = Player::with_appsrc("mode=640x480");
    player.set_state(gst::State::Playing);
    let picture = numbered(W, H, 3);
    for colorimetry in [Some("bt709"), None, Some("1:4:0:0"), None, Some("bt601")] {
        let Some(colorimetry) = colorimetry else {
            player.set_caps(&bgrx(W as u32, H as u32));
            player.show(buffer_of(&picture));
            assert_on_display(0, &picture);
            continue;
        };
        let info = nv12(colorimetry);
        player.set_caps(&info);
        player.show(gst::Buffer::from_slice(yuv_bytes(&info)));
        assert_crc_of(VkmsCrc::of_crtc(0), yuv_crc(&info));
    }
    assert_eq!(player.errors(), [""; 0]);
}

#[test]
fn the_user_has_the_last_word_on_colours() {
    let _device = Vkms::with([Connected, Disconnected]);
    let player = Player::with_appsrc("mode=640x480");
    let wish = gst::Structure::builder("p")
        .field("COLOR_ENCODING", "ITU-R BT.601 YCbCr")
        .field("COLOR_RANGE", "YCbCr full range")
        .build();
    player.sink.set_property("plane-properties", wish);
    player.set_state(gst::State::Playing);
    player.set_caps(&nv12("bt709"));
    player.show(gst::Buffer::from_slice(yuv_bytes(&nv12("bt709"))));
    assert_crc_of(VkmsCrc::of_crtc(0), yuv_crc(&nv12("1:4:0:0")));
}

#[test]
fn sixteen_bits_of_rgb_are_shown_as_they_are() {
    let _device = Vkms::with([Connected, Disconnected]);
    for format in [VideoFormat::Bgra64Le, VideoFormat::Rgba64Le] {
        assert_deep_rgb_is_shown(format, || VkmsCrc::of_crtc(0));
    }
}

#[test]
fn colours_that_the_user_sets_while_playing_are_those_of_the_next_frame() {
    let _device = Vkms::with([Connected, Disconnected]);
    let player = Player::with_appsrc("mode=640x480");
    player.set_state(gst::State::Playing);
    player.set_caps(&nv12("bt709"));
    let full_bt601 = gst::Structure::builder("p")
        .field("COLOR_ENCODING", "ITU-R BT.601 YCbCr")
        .field("COLOR_RANGE", "YCbCr full range")
        .build();
    for (wish, seen) in [
        (None, "bt709"),
        (Some(full_bt601), "1:4:0:0"),
        (None, "bt709"),
    ] {
        player.sink.set_property("plane-properties", wish);
        player.show(gst::Buffer::from_slice(yuv_bytes(&nv12("bt709"))));
        assert_crc_of(VkmsCrc::of_crtc(0), yuv_crc(&nv12(seen)));
    }
    assert_eq!(player.errors(), [""; 0]);
}
