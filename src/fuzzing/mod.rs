// SPDX-License-Identifier: MPL-2.0
//! What fuzzers call: the code that reads texts and bytes of others, from private modules too. It is built for
//! fuzzing and for tests only.
//!
//! Each target takes any bytes, and panics if what was read contradicts itself, or another and slower way to read
//! it. `fuzz/` makes a program of each; `tests/fuzz` builds and runs these. The unit test below replays the bytes
//! that fuzzers have collected.

mod addresses;
mod displays;
mod files;
mod layouts;

pub use addresses::{areas, cma_trace, extents, meta_wire};
pub use displays::{drm_formats, edid, modes, uevent};
pub use files::{names, y4m};
pub use layouts::layout;

/// A target takes any bytes.
pub type Target = fn(&[u8]);

/// The targets of this crate, by the names of their programs and corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("areas", areas),
    ("cma_trace", cma_trace),
    ("drm_formats", drm_formats),
    ("edid", edid),
    ("extents", extents),
    ("layout", layout),
    ("meta_wire", meta_wire),
    ("modes", modes),
    ("names", names),
    ("uevent", uevent),
    ("y4m", y4m),
];

/// Numbers from the bytes of a fuzzer. After the last byte, all numbers are 0.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn u8(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// A number that is small, or near a power of two where sums and products overflow.
    fn edgy(&mut self) -> u64 {
        let (place, near) = (self.u8(), u64::from(self.u16()));
        match place % 6 {
            0 => near,
            1 => near << 12,
            2 => (1 << 32) - (near >> 8),
            3 => (1u64 << 63).wrapping_sub(near >> 8),
            4 => u64::MAX - (near >> 8),
            _ => self.u64(),
        }
    }
}

/// The text of these bytes if they are UTF-8 without NUL, as every C string from GLib is.
fn c_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(text)
}

/// An error's text goes to the log and to terminals.
fn assert_printable(error: &dyn std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn what_fuzzers_have_collected_is_read_without_a_contradiction() {
        for (name, target) in super::TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
            let corpus = corpus.join(name);
            let mut files = 0;
            for file in std::fs::read_dir(&corpus).expect("a corpus") {
                let path = file.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                println!("{}", path.display()); // shown if the target panics
                target(&bytes);
                files += 1;
            }
            assert!(files > 0, "{} is empty", corpus.display());
        }
    }

    #[test]
    fn no_bytes_are_no_fault() {
        for (_, target) in super::TARGETS {
            target(b"");
        }
    }
}
