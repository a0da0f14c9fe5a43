// SPDX-License-Identifier: MPL-2.0
//! The stream of CRCs in vkms's debugfs.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// One line of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCrc {
    /// The number of the vertical blank; None when vkms has lost count.
    pub frame: Option<u32>,
    pub crc: u32,
}

/// The CRCs of what vkms scans out, one for each vertical blank. There are none while no mode is
/// set.
pub struct VkmsCrc {
    data: File,
}

impl VkmsCrc {
    #[track_caller]
    pub fn open() -> Self {
        Self::of_crtc(0)
    }

    /// The stream of the CRTC with this index.
    #[track_caller]
    pub fn of_crtc(index: usize) -> Self {
        let crc = vkms_debugfs().join(format!("crtc-{index}/crc"));
        fs::write(crc.join("control"), "auto").expect("vkms takes the CRC source 'auto'");
        let data = File::open(crc.join("data")).expect("the CRC stream opens");
        Self { data }
    }

    /// The next CRC, or None if there was none within half a second.
    pub fn next(&mut self) -> Option<FrameCrc> {
        let mut ready = [PollFd::new(self.data.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(500u16)).expect("poll") == 0 {
            return None;
        }
        let mut line = [0; 256];
        let n = self
            .data
            .read(&mut line)
            .expect("the CRC stream is readable");
        let line = std::str::from_utf8(&line[..n]).expect("a line of text");
        let mut words = line.split_whitespace();
        let frame = words.next().and_then(parse_hex);
        let crc = words.next().and_then(parse_hex);
        let crc = crc.unwrap_or_else(|| panic!("no CRC in {line:?}"));
        Some(FrameCrc { frame, crc })
    }

    /// The CRC of what is on the screen now. The first entries after opening, and those that were
    /// queued, may be of an earlier frame.
    #[track_caller]
    pub fn current() -> u32 {
        let mut stream = Self::open();
        // On a busy host one picture may take longer than half a second.
        let mut next = || {
            let crc = (0..20).find_map(|_| stream.next());
            crc.expect("vkms scans out, so CRCs come")
        };
        next();
        next();
        next().crc
    }
}

fn parse_hex(word: &str) -> Option<u32> {
    u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

#[track_caller]
fn vkms_debugfs() -> PathBuf {
    fs::read_dir("/sys/kernel/debug/dri")
        .expect("debugfs is mounted")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|dir| fs::read_to_string(dir.join("name")).is_ok_and(|name| name.starts_with("vkms")))
        .expect("a vkms device (tests/lab/run --display vkms)")
}
