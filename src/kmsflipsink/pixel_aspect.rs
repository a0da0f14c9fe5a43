// SPDX-License-Identifier: MPL-2.0
//! The proportions of a screen's pixels, by its size in pixels and in millimetres. Pure.

/// The proportions of pixels that are told apart: those of kmssink and xvimagesink (gst_video_calculate_device_ratio).
/// The reverse of each is one of them, too.
const KNOWN: [(u32, u32); 7] = [
    (1, 1),
    (16, 15), // 720x576 or 1280x1024 on a display of 4:3
    (11, 10), // ITU-R BT.601 with 480 lines, the reverse
    (54, 59), // ITU-R BT.601 with 576 lines, the reverse
    (64, 45), // 720x576 or 1280x1024 on a display of 16:9
    (5, 3),
    (4, 3), // a mode of 4:3 on a display of 16:9
];

/// Width to height of a pixel: the known proportions that are nearest to those computed. Square without a size, and
/// with one that no display has, because EDIDs are often wrong.
pub fn of_screen(px: (u32, u32), mm: Option<(u32, u32)>) -> (u32, u32) {
    const SQUARE: (u32, u32) = (1, 1);
    /// More than a mode of 5:4 has on a display of 21:9, or the reverse.
    const IMPLAUSIBLE: f64 = 2.0;
    let Some(mm) = mm.filter(|&(x, y)| x > 0 && y > 0) else {
        return SQUARE;
    };
    let proportions = |(n, d): (u32, u32)| f64::from(n) / f64::from(d);
    let ratio = proportions(mm) / proportions(px);
    if !(1.0 / IMPLAUSIBLE..=IMPLAUSIBLE).contains(&ratio) {
        return SQUARE;
    }
    let known = KNOWN.into_iter().flat_map(|(n, d)| [(n, d), (d, n)]);
    let distance = |known| (proportions(known) - ratio).abs();
    known
        .min_by(|&a, &b| distance(a).total_cmp(&distance(b)))
        .unwrap_or(SQUARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pixels_of_a_display_are_nearly_those_that_its_size_gives() {
        for (px, mm, aspect) in [
            ((1920, 1080), (531, 299), (1, 1)),
            ((1366, 768), (344, 193), (1, 1)),
            ((1280, 1024), (376, 301), (1, 1)),
            ((1280, 1024), (400, 300), (16, 15)),
            ((720, 576), (400, 300), (16, 15)),
            ((720, 576), (1600, 900), (64, 45)),
            ((1024, 768), (1600, 900), (4, 3)),
            ((1920, 1080), (400, 300), (3, 4)),
            // Some televisions report the proportions only, in centimetres.
            ((1920, 1080), (160, 90), (1, 1)),
            // A panel that stands upright.
            ((800, 1280), (107, 172), (1, 1)),
        ] {
            assert_eq!(of_screen(px, Some(mm)), aspect, "{px:?} on {mm:?} mm");
        }
    }

    #[test]
    fn a_size_that_cannot_be_is_ignored() {
        for mm in [(0, 0), (0, 300), (531, 0), (1, 1000), (4000, 1)] {
            assert_eq!(of_screen((1920, 1080), Some(mm)), (1, 1), "{mm:?}");
        }
        assert_eq!(of_screen((1920, 1080), None), (1, 1));
        assert_eq!(of_screen((0, 0), Some((531, 299))), (1, 1));
    }
}
