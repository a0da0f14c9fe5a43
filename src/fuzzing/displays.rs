// SPDX-License-Identifier: MPL-2.0
//! Targets: what displays and their drivers say, and what users write of modes.

use super::{Input, c_text};
use crate::{
    kmsflipsink::{
        dma_drm,
        edid::DisplayColours,
        format,
        hdr::Eotf,
        mode::{self, FrameNeed, ModeLine, ModeRequest},
        timing::{self, Blanking, ModeTiming},
    },
    sys::uevent::parse_uevent,
};

/// Events of the kernel.
pub fn uevent(message: &[u8]) {
    let fields = || message.split(|&byte| byte == 0);
    for subsystem in ["drm", "graphics"] {
        let Some(event) = parse_uevent(message, subsystem) else {
            continue;
        };
        let wanted = format!("SUBSYSTEM={subsystem}");
        assert!(fields().any(|field| field == wanted.as_bytes()));
        let device = format!("DEVNAME={}", event.device);
        assert!(event.device.is_empty() || fields().any(|field| field == device.as_bytes()));
        if event.is_removal {
            assert!(fields().any(|field| field == b"ACTION=remove"));
        }
        if event.connector.is_some() {
            assert!(fields().any(|field| field.starts_with(b"CONNECTOR=")));
        }
        // A field that nobody knows changes nothing.
        let longer = [message, b"\0SEQNUM=4711\0"].concat();
        assert_eq!(parse_uevent(&longer, subsystem), Some(event));
    }
}

/// EDIDs.
pub fn edid(bytes: &[u8]) {
    const BLOCK_BYTES: usize = 128;
    let display = DisplayColours::of_edid(bytes);
    // Half a block says nothing, nor does an extension of zeroes.
    let whole = bytes.len() / BLOCK_BYTES * BLOCK_BYTES;
    assert_eq!(DisplayColours::of_edid(&bytes[..whole]), display);
    let longer = [&bytes[..whole], &[0; BLOCK_BYTES]].concat();
    assert_eq!(DisplayColours::of_edid(&longer), display);
    // Each thing that the display says is in one of the extensions.
    let blocks = bytes[..whole].chunks(BLOCK_BYTES);
    let alone = blocks
        .skip(1)
        .map(|block| DisplayColours::of_edid(&[&[0; BLOCK_BYTES], block].concat()));
    let alone: Vec<_> = alone.collect();
    let is_any = |says: fn(&DisplayColours) -> bool| alone.iter().any(says);
    assert_eq!(display.shows_bt2020_rgb, is_any(|one| one.shows_bt2020_rgb));
    assert!(display.shows(Eotf::Pq) || !is_any(|one| one.shows(Eotf::Pq)));
    assert!(display.shows(Eotf::Hlg) || !is_any(|one| one.shows(Eotf::Hlg)));
}

/// IN_FORMATS blobs of planes, and the formats in caps.
pub fn drm_formats(bytes: &[u8]) {
    let pairs = format::parse_in_formats(bytes);
    // Each modifier, of 24 bytes, is for 64 formats at most.
    assert!(pairs.len() <= bytes.len() / 24 * 64);
    for &(fourcc, modifier) in &pairs {
        let is_there = |number: &[u8]| bytes.windows(number.len()).any(|window| window == number);
        assert!(is_there(&fourcc.to_ne_bytes()) && is_there(&modifier.to_ne_bytes()));
    }
    let Some(text) = c_text(bytes) else { return };
    if let Some(pair) = dma_drm::from_text(text) {
        let (name, _) = text.split_once(':').unwrap_or((text, ""));
        if name.bytes().all(|byte| byte.is_ascii_graphic()) {
            assert_eq!(
                dma_drm::from_text(&dma_drm::to_text(pair.0, pair.1)),
                Some(pair)
            );
        }
    }
}

/// The property `mode`, and the choice among a display's modes. A byte says how many modes there are, and 13 bytes
/// describe each; the text follows.
pub fn modes(bytes: &[u8]) {
    let mut input = Input(bytes);
    let lines: Vec<_> = (0..input.u8() % 6).map(|_| mode_line(&mut input)).collect();
    let frame = (input.u8() % 2 == 0).then(|| FrameNeed {
        width: input.u16().into(),
        height: input.u16().into(),
        rate_mhz: Some(input.u32()).filter(|&rate| rate % 2 == 0),
    });
    let current = Some(usize::from(input.u8()));
    let Some(text) = c_text(input.0) else { return };
    let Ok(request) = text.parse::<ModeRequest>() else {
        return;
    };
    match mode::choose(&lines, request, current, frame) {
        Ok(index) => {
            assert!(index < lines.len());
            if let ModeRequest::Size { width, height, .. } = request {
                assert_eq!((lines[index].width, lines[index].height), (width, height));
            }
        }
        Err(reason) => assert!(!reason.to_string().is_empty()),
    }
    match request {
        ModeRequest::Custom(timing) => assert_possible(&timing),
        ModeRequest::Size {
            width,
            height,
            refresh_mhz,
            ..
        } => {
            assert!(width > 0 && height > 0);
            for blanking in [Blanking::Full, Blanking::Reduced] {
                let computed = timing::cvt(width, height, refresh_mhz.unwrap_or(60_000), blanking);
                if let Some(timing) = computed {
                    assert_possible(&timing);
                    assert_eq!(u32::from(timing.vertical[0]), height);
                    assert!(u32::from(timing.horizontal[0]).abs_diff(width) < 8);
                }
            }
        }
        _ => {}
    }
}

fn mode_line(input: &mut Input<'_>) -> ModeLine {
    let flags = input.u8();
    ModeLine {
        width: input.u32(),
        height: input.u32(),
        refresh_mhz: input.u32(),
        is_preferred: flags & 1 != 0,
        is_interlaced: flags & 2 != 0,
    }
}

/// Whether a mode has a clock, and sync pulses behind the picture.
fn assert_possible(timing: &ModeTiming) {
    assert!(timing.clock_khz > 0, "{timing:?}");
    for [visible, start, end, all] in [timing.horizontal, timing.vertical] {
        assert!(
            visible > 0 && visible <= start && start < end && end <= all,
            "{timing:?}"
        );
    }
}
