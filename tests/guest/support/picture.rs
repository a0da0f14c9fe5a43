// SPDX-License-Identifier: MPL-2.0
//! Pictures, and the CRC that vkms reports for them.

use std::fmt;

/// A picture: rows of red, green and blue bytes without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

/// Prints the size only, since a failed assertion must not print a million numbers.
impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

impl Picture {
    pub fn solid(width: usize, height: usize, rgb: [u8; 3]) -> Self {
        Self::from_fn(width, height, |_, _| rgb)
    }

    pub fn from_fn(width: usize, height: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Self {
        // Loops, because iterator chains take seconds in an unoptimised test without KVM.
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                rgb.extend_from_slice(&pixel(x, y));
            }
        }
        Self { width, height, rgb }
    }

    /// Reads a binary PPM with eight bits a channel and no comments.
    pub fn from_ppm(ppm: &[u8]) -> Option<Self> {
        let mut rest = ppm;
        let mut word = || {
            let end = rest.iter().position(u8::is_ascii_whitespace)?;
            let (word, more) = rest.split_at(end);
            rest = &more[1..];
            std::str::from_utf8(word).ok()
        };
        let (magic, width, height, max) = (word()?, word()?, word()?, word()?);
        let (width, height) = (width.parse().ok()?, height.parse().ok()?);
        let complete = magic == "P6" && max == "255" && rest.len() == width * height * 3;
        complete.then(|| Self {
            width,
            height,
            rgb: rest.to_vec(),
        })
    }

    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        Self::from_fn(width, height, |dx, dy| self.pixel(x + dx, y + dy))
    }

    /// Fails at the first pixel that differs and prints its position and both values.
    #[track_caller]
    pub fn assert_same_as(&self, expected: &Picture) {
        assert_eq!(
            (self.width, self.height),
            (expected.width, expected.height),
            "the pictures' sizes"
        );
        let different = |i: &usize| self.rgb[i * 3..i * 3 + 3] != expected.rgb[i * 3..i * 3 + 3];
        let mut wrong = (0..self.width * self.height).filter(different);
        if let Some(first) = wrong.next() {
            let (x, y) = (first % self.width, first / self.width);
            panic!(
                "{} of {} pixels differ, first ({x},{y}): {:02x?}, expected {:02x?}",
                1 + wrong.count(),
                self.width * self.height,
                self.pixel(x, y),
                expected.pixel(x, y),
            );
        }
    }

    /// The CRC that vkms reports while it shows this picture alone.
    pub fn vkms_crc(&self) -> u32 {
        let mut crc = PixelCrc::new();
        let mut words = vec![0xff; self.width * 8];
        let mut last = None;
        for row in self.rgb.chunks_exact(self.width * 3) {
            // In test pictures most rows equal the one before.
            if last != Some(row) {
                last = Some(row);
                for (word, pixel) in words.chunks_exact_mut(8).zip(row.chunks_exact(3)) {
                    word[2..4].fill(pixel[0]);
                    word[4..6].fill(pixel[1]);
                    word[6..8].fill(pixel[2]);
                }
            }
            crc.add(&words);
        }
        crc.finish()
    }
}

/// The CRC of pixels as vkms computes it: four little-endian 16-bit words for each pixel, in the
/// order alpha (ffff), red, green, blue (eight bits times 257). vkms calls the kernel's crc32_le(0,
/// ...), which unlike the usual CRC-32 inverts neither the initial value nor the result. The
/// initial value !0 and `finish` undo the inversions of the crate.
pub struct PixelCrc(crc32fast::Hasher);

impl PixelCrc {
    pub fn new() -> Self {
        Self(crc32fast::Hasher::new_with_initial(!0))
    }

    pub fn add(&mut self, words: &[u8]) {
        self.0.update(words);
    }

    pub fn finish(self) -> u32 {
        !self.0.finalize()
    }
}
