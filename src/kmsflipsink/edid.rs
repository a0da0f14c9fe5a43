// SPDX-License-Identifier: MPL-2.0
//! What the EDID of a display says of the colours that it shows: the colorimetry and the HDR static metadata data
//! block of its CTA-861 extensions. Pure.
//!
//! Debian 12 has no libdisplay-info. Blocks of CTA-861 inside of a DisplayID extension are not looked at.

use super::hdr::Eotf;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DisplayColours {
    /// A bit for each transfer function that the display knows, by its number in CTA-861.
    eotfs: u8,
    /// Whether the display takes static metadata type 1.
    takes_type1: bool,
    /// Whether the display shows RGB with the primaries of ITU-R BT.2020.
    pub shows_bt2020_rgb: bool,
}

const BLOCK_BYTES: usize = 128;

#[cfg(test)]
impl DisplayColours {
    /// A display whose EDID says nothing of colours.
    pub const fn of_nothing() -> Self {
        Self {
            eotfs: 0,
            takes_type1: false,
            shows_bt2020_rgb: false,
        }
    }
}

impl DisplayColours {
    /// Bytes that are no EDID say nothing.
    pub fn of_edid(edid: &[u8]) -> Self {
        /// The tag of a CTA-861 extension.
        const CTA: u8 = 0x02;
        let mut all = Self::default();
        let extensions = edid.chunks_exact(BLOCK_BYTES).skip(1);
        for block in extensions.filter(|block| block[0] == CTA) {
            // Data blocks begin at byte 4, with revision 3. They end where the detailed timings begin.
            if let (3.., Some(blocks)) = (block[1], block.get(4..usize::from(block[2]))) {
                all.read_data_blocks(blocks);
            }
        }
        all
    }

    fn read_data_blocks(&mut self, mut blocks: &[u8]) {
        /// The tag of blocks whose first byte is an extended tag.
        const EXTENDED: u8 = 7;
        const COLORIMETRY: u8 = 5;
        const HDR_STATIC_METADATA: u8 = 6;
        const BT2020_RGB: u8 = 1 << 7;
        const TYPE1: u8 = 1 << 0;
        while let Some((&header, rest)) = blocks.split_first() {
            let Some((block, next)) = rest.split_at_checked((header & 0x1f).into()) else {
                return;
            };
            blocks = next;
            match block {
                [COLORIMETRY, standards, ..] if header >> 5 == EXTENDED => {
                    self.shows_bt2020_rgb |= standards & BT2020_RGB != 0;
                }
                [HDR_STATIC_METADATA, eotfs, types, ..] if header >> 5 == EXTENDED => {
                    self.eotfs |= eotfs;
                    self.takes_type1 |= types & TYPE1 != 0;
                }
                _ => {}
            }
        }
    }

    /// Whether the display shows frames of this transfer function, once it has their static metadata.
    pub fn shows(&self, eotf: Eotf) -> bool {
        self.takes_type1 && self.eotfs >> eotf.code() & 1 == 1
    }
}

/// The EDID of an "LG HDR 4K" of week 5 of 2019 (GSM, product 30471), at a DisplayPort. edid-decode says of it:
/// colorimetry BT2020YCC and BT2020RGB; transfer functions of SDR and SMPTE ST 2084; static metadata type 1.
#[cfg(test)]
#[rustfmt::skip]
pub const LG_HDR_4K: [u8; 256] = [
    0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x1e, 0x6d, 0x07, 0x77, 0x2d, 0xa5, 0x02, 0x00,
    0x05, 0x1d, 0x01, 0x04, 0xb5, 0x3c, 0x22, 0x78, 0x9e, 0x3e, 0x31, 0xae, 0x50, 0x47, 0xac, 0x27,
    0x0c, 0x50, 0x54, 0x21, 0x08, 0x00, 0x71, 0x40, 0x81, 0x80, 0x81, 0xc0, 0xa9, 0xc0, 0xd1, 0xc0,
    0x81, 0x00, 0x01, 0x01, 0x01, 0x01, 0x4d, 0xd0, 0x00, 0xa0, 0xf0, 0x70, 0x3e, 0x80, 0x30, 0x20,
    0x65, 0x0c, 0x58, 0x54, 0x21, 0x00, 0x00, 0x1a, 0x28, 0x68, 0x00, 0xa0, 0xf0, 0x70, 0x3e, 0x80,
    0x08, 0x90, 0x65, 0x0c, 0x58, 0x54, 0x21, 0x00, 0x00, 0x1a, 0x00, 0x00, 0x00, 0xfd, 0x00, 0x38,
    0x3d, 0x1e, 0x87, 0x38, 0x00, 0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20, 0x00, 0x00, 0x00, 0xfc,
    0x00, 0x4c, 0x47, 0x20, 0x48, 0x44, 0x52, 0x20, 0x34, 0x4b, 0x0a, 0x20, 0x20, 0x20, 0x01, 0x96,
    0x02, 0x03, 0x19, 0x71, 0x44, 0x90, 0x04, 0x03, 0x01, 0x23, 0x09, 0x07, 0x07, 0x83, 0x01, 0x00,
    0x00, 0xe3, 0x05, 0xc0, 0x00, 0xe3, 0x06, 0x05, 0x01, 0x02, 0x3a, 0x80, 0x18, 0x71, 0x38, 0x2d,
    0x40, 0x58, 0x2c, 0x45, 0x00, 0x58, 0x54, 0x21, 0x00, 0x00, 0x1e, 0x56, 0x5e, 0x00, 0xa0, 0xa0,
    0xa0, 0x29, 0x50, 0x30, 0x20, 0x35, 0x00, 0x58, 0x54, 0x21, 0x00, 0x00, 0x1a, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x29,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_real_display_says_what_edid_decode_says() {
        for block in LG_HDR_4K.chunks(BLOCK_BYTES) {
            let sum = block.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
            assert_eq!(sum, 0, "a checksum: the bytes are copied right");
        }
        let display = DisplayColours::of_edid(&LG_HDR_4K);
        assert!(display.shows_bt2020_rgb && display.shows(Eotf::Pq));
        assert!(!display.shows(Eotf::Hlg));
        // Its first block alone is the EDID of a display of SDR.
        let plain = DisplayColours::of_edid(&LG_HDR_4K[..BLOCK_BYTES]);
        assert_eq!(plain, DisplayColours::default());
    }

    #[test]
    fn a_display_without_static_metadata_is_not_told_of_hdr() {
        let mut edid = LG_HDR_4K;
        let types = edid
            .windows(4)
            .position(|four| four == [0xe3, 0x06, 0x05, 0x01]);
        edid[types.unwrap() + 3] = 0;
        let display = DisplayColours::of_edid(&edid);
        assert!(display.shows_bt2020_rgb && !display.shows(Eotf::Pq));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            DisplayColours::of_edid(&bytes);
        }

        #[test]
        fn any_data_blocks_of_a_cta_extension_can_be_read(
            changed in proptest::collection::vec((0usize..256, any::<u8>()), 0..20)
        ) {
            let mut edid = LG_HDR_4K;
            for (at, byte) in changed {
                edid[at] = byte;
            }
            DisplayColours::of_edid(&edid);
        }
    }
}
