// SPDX-License-Identifier: MPL-2.0
//! Which part of a frame is shown. Pure.
use crate::display::area::Rect;

/// The part of a frame of `size` that a GstVideoCropMeta (x, y, width, height) names, in pixels of
/// the frame. Of a part larger than `room`, the middle. Its left edge is moved to a multiple of
/// `align` pixels. `None` if the crop lies outside of the frame.
pub fn visible(
    (x, y, width, height): (u32, u32, u32, u32),
    size: (u32, u32),
    room: (u32, u32),
    align: u32,
) -> Option<Rect> {
    let (x, y) = (x.min(size.0), y.min(size.1));
    let (width, height) = (width.min(size.0 - x), height.min(size.1 - y));
    let shown = (width.min(room.0), height.min(room.1));
    let x = x + (width - shown.0) / 2;
    let y = y + (height - shown.1) / 2;
    let part = Rect::new((x - x % align) as i32, y as i32, shown.0, shown.1);
    (part.width > 0 && part.height > 0).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOM: (u32, u32) = (640, 480);

    #[test]
    fn a_crop_is_cut_to_the_frame() {
        let of_frame = |crop| visible(crop, (320, 240), ROOM, 1);
        assert_eq!(of_frame((10, 20, 30, 40)), Some(Rect::new(10, 20, 30, 40)));
        assert_eq!(
            of_frame((300, 200, 300, u32::MAX)),
            Some(Rect::new(300, 200, 20, 40))
        );
        assert_eq!(of_frame((320, 0, 10, 10)), None);
        assert_eq!(of_frame((10, 10, 0, 10)), None);
    }

    #[test]
    fn of_a_crop_larger_than_the_area_the_middle_is_shown() {
        let part = visible((100, 0, 1000, 300), (1920, 1080), ROOM, 1);
        assert_eq!(part, Some(Rect::new(280, 0, 640, 300)));
    }

    #[test]
    fn pixels_that_share_their_colour_stay_together() {
        let part = visible((11, 3, 20, 20), (320, 240), ROOM, 2);
        assert_eq!(part, Some(Rect::new(10, 3, 20, 20)));
    }

    proptest! {
        #[test]
        fn the_part_lies_in_the_frame_and_fits_the_area(
            crop in (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()),
            size in (1u32..5000, 1u32..5000), room in (1u32..3000, 1u32..3000), align in 1u32..=2,
        ) {
            let small = |value: u32| value % 6000;
            let crop = (small(crop.0), small(crop.1), small(crop.2), small(crop.3));
            if let Some(part) = visible(crop, size, room, align) {
                let frame = Rect::of_size(size.0, size.1);
                prop_assert_eq!(frame.intersection(&part), Some(part));
                prop_assert!(part.width <= room.0 && part.height <= room.1);
                prop_assert_eq!(part.x as u32 % align, 0);
            } else {
                prop_assert!(crop.0 >= size.0 || crop.1 >= size.1 || crop.2 == 0 || crop.3 == 0);
            }
        }
    }
}
