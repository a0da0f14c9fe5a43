// SPDX-License-Identifier: MPL-2.0
//! A DMA engine, QEMU's `edu`, writes to the pool's buffers by physical address. The example
//! edu_dma drives it, and the host reads the result. Modules are named for the device's address
//! mask and for the place of the CMA area (tests/lab/matrix).

mod support;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard},
};

use support::{oracle, require_lab, run};

const ROW_BYTES: usize = 32 * 4;
const FRAME_BYTES: usize = 20 * ROW_BYTES;
const WINDOWS: usize = 8;

/// Serialises the tests, because there is one device.
fn alone_with_the_device() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    require_lab();
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

fn edu_dma(arguments: &[&str]) -> Command {
    let mut command = Command::new(support::example("edu_dma"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The bytes of frame `sequence`, computed without the example's code: byte n of the seed, from the
/// row at which the frame's window begins.
fn frame(sequence: usize) -> Vec<u8> {
    let first = sequence % WINDOWS * ROW_BYTES;
    (first..first + FRAME_BYTES)
        .map(|n| (n * 7 + n / ROW_BYTES * 41) as u8)
        .collect()
}

/// The number after `0x` in a line such as "frame 3: buffer 7 at 0x1000, ...".
fn address_in(line: &str) -> u64 {
    let (_, after) = line.split_once("0x").expect("an address");
    let digits = after.split(|c: char| !c.is_ascii_hexdigit()).next();
    u64::from_str_radix(digits.unwrap_or_default(), 16).expect("a hexadecimal number")
}

/// Runs the example until it holds its buffers. Lets the host read each buffer at the address that
/// the device was given, and returns these addresses.
fn frames_are_where_the_device_wrote_them(arguments: &[&str]) -> Vec<u64> {
    let mut child = edu_dma(arguments)
        .args(["--hold", "--frames", "12"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let mut output = String::new();
    let mut newest = BTreeMap::new();
    let stdout = child.stdout.take().expect("piped");
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        output += &format!("{line}\n");
        if let Some((sequence, _)) = line.strip_prefix("frame ").and_then(|l| l.split_once(':')) {
            let sequence: usize = sequence.parse().expect("a number");
            newest.insert(address_in(&line), sequence);
        }
        if line.starts_with("holding") {
            break;
        }
    }
    let seen: Vec<_> = newest
        .keys()
        .map(|&address| oracle().phys(address, FRAME_BYTES))
        .collect();
    drop(child.stdin.take()); // the example ends at the end of its standard input
    let mut stderr = String::new();
    let mut pipe = child.stderr.take().expect("piped");
    pipe.read_to_string(&mut stderr).expect("UTF-8");
    let status = child.wait().expect("it ran");
    assert!(status.success(), "{status}\n{output}\n{stderr}");
    assert_eq!(newest.values().max(), Some(&11), "{output}");
    assert!(newest.len() > 1, "only one buffer was used:\n{output}");
    for ((address, sequence), bytes) in newest.iter().zip(seen) {
        assert!(
            bytes == frame(*sequence),
            "{address:#x} does not hold frame {sequence}, says the host:\n{output}"
        );
    }
    newest.into_keys().collect()
}

mod wide {
    use super::*;

    #[test]
    fn polled_transfers_land_in_the_buffers() {
        let _alone = alone_with_the_device();
        frames_are_where_the_device_wrote_them(&["--mask-bits", "32"]);
    }

    #[test]
    fn interrupts_find_the_buffers_by_id() {
        let _alone = alone_with_the_device();
        frames_are_where_the_device_wrote_them(&["--mask-bits", "32", "--completion", "interrupt"]);
    }
}

/// 28 address lines; the CMA area lies at the top of 1 GiB.
mod narrow_beyond {
    use super::*;

    #[test]
    fn memory_that_the_device_cannot_reach_is_refused_in_words() {
        let _alone = alone_with_the_device();
        let ran = run(&mut edu_dma(&["--mask-bits", "28"]));
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(!ran.stdout.contains("frame"), "{ran:?}");
        for part in ["cma", "above the limit 0xfffffff", "raise max-address"] {
            assert!(ran.stderr.contains(part), "{part}: {ran:?}");
        }
    }
}

/// 28 address lines; the CMA area lies below 256 MiB.
mod narrow_below {
    use super::*;

    #[test]
    fn memory_below_the_mask_is_found() {
        let _alone = alone_with_the_device();
        let addresses = frames_are_where_the_device_wrote_them(&["--mask-bits", "28"]);
        for address in addresses {
            assert!(address + (FRAME_BYTES as u64) <= 1 << 28, "{address:#x}");
        }
    }
}

mod cirrus {
    use super::*;

    /// The example centres its last frame, a small picture.
    #[test]
    fn what_the_device_wrote_is_on_screen() {
        let _alone = alone_with_the_device();
        let mut child = edu_dma(&["--mask-bits", "32", "--display", "--hold"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let held = stdout
            .lines()
            .map_while(Result::ok)
            .any(|line| line.starts_with("holding"));
        assert!(held, "the example did not get that far");
        let last = frame(7);
        let expected = support::Picture::from_fn(32, 20, |x, y| {
            let at = y * ROW_BYTES + x * 4;
            [last[at + 2], last[at + 1], last[at]] // BGRx
        });
        // The last frame may not be on the screen yet.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let shown = loop {
            let screen = oracle().shot();
            let shown = screen.crop((screen.width - 32) / 2, (screen.height - 20) / 2, 32, 20);
            if shown == expected || std::time::Instant::now() > deadline {
                break shown;
            }
        };
        drop(child.stdin.take());
        assert!(child.wait().expect("it ran").success());
        shown.assert_same_as(&expected);
    }
}
