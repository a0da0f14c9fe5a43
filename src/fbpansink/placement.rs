// SPDX-License-Identifier: MPL-2.0
//! Where a frame lies on the screen, and which pixels around it are nobody's.
//! Pure.

/// A rectangle in pixels; empty ones are not made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    pub x_px: u32,
    pub y_px: u32,
    pub width_px: u32,
    pub height_px: u32,
}

impl Rect {
    pub fn new(x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Self {
        Self {
            x_px,
            y_px,
            width_px,
            height_px,
        }
    }

    pub fn right_px(&self) -> u32 {
        self.x_px + self.width_px
    }

    pub fn bottom_px(&self) -> u32 {
        self.y_px + self.height_px
    }
}

impl std::fmt::Display for Rect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}x{} at {},{}",
            self.width_px, self.height_px, self.x_px, self.y_px
        )
    }
}

/// The part of the screen that frames may use: the `render-rectangle` <x, y,
/// width, height>, cut to the screen. A width or height of 0 or less means up
/// to the edge. `None` if nothing of it is on the screen.
pub fn area(screen_width_px: u32, screen_height_px: u32, wanted: Option<[i32; 4]>) -> Option<Rect> {
    let [x, y, width, height] = wanted.unwrap_or([0; 4]).map(i64::from);
    let cut = |start: i64, len: i64, limit: u32| {
        let end = if len <= 0 {
            i64::from(limit)
        } else {
            start + len
        };
        let (start, end) = (start.max(0), end.min(i64::from(limit)));
        (start < end).then(|| (start as u32, (end - start) as u32))
    };
    let (x_px, width_px) = cut(x, width, screen_width_px)?;
    let (y_px, height_px) = cut(y, height, screen_height_px)?;
    Some(Rect {
        x_px,
        y_px,
        width_px,
        height_px,
    })
}

/// Centres a frame in `area`, its left edge on a multiple of `align_px` (2
/// for formats whose pixels come in pairs). `None` if it is larger.
pub fn centre(area: Rect, width_px: u32, height_px: u32, align_px: u32) -> Option<Rect> {
    let x_px = area.x_px + area.width_px.checked_sub(width_px)? / 2;
    let y_px = area.y_px + area.height_px.checked_sub(height_px)? / 2;
    Some(Rect {
        x_px: x_px - x_px % align_px,
        y_px,
        width_px,
        height_px,
    })
}

/// What of a screen lies around `frame`: at most four rectangles, none empty.
pub fn borders(
    screen_width_px: u32,
    screen_height_px: u32,
    frame: Rect,
) -> impl Iterator<Item = Rect> {
    let Rect {
        x_px,
        y_px,
        height_px,
        ..
    } = frame;
    [
        Rect::new(0, 0, screen_width_px, y_px),
        Rect::new(
            0,
            frame.bottom_px(),
            screen_width_px,
            screen_height_px.saturating_sub(frame.bottom_px()),
        ),
        Rect::new(0, y_px, x_px, height_px),
        Rect::new(
            frame.right_px(),
            y_px,
            screen_width_px.saturating_sub(frame.right_px()),
            height_px,
        ),
    ]
    .into_iter()
    .filter(|r| r.width_px > 0 && r.height_px > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_rectangle_is_the_whole_screen() {
        assert_eq!(area(640, 480, None), Some(Rect::new(0, 0, 640, 480)));
    }

    #[test]
    fn a_rectangle_is_cut_to_the_screen() {
        assert_eq!(
            area(640, 480, Some([600, -20, 100, 100])),
            Some(Rect::new(600, 0, 40, 80))
        );
        assert_eq!(
            area(640, 480, Some([10, 20, 0, -1])),
            Some(Rect::new(10, 20, 630, 460))
        );
        assert_eq!(area(640, 480, Some([640, 0, 10, 10])), None);
        assert_eq!(
            area(640, 480, Some([i32::MAX, i32::MIN, i32::MAX, i32::MAX])),
            None
        );
    }

    #[test]
    fn a_frame_larger_than_its_area_has_no_place() {
        assert_eq!(centre(Rect::new(5, 5, 10, 10), 11, 10, 1), None);
        assert_eq!(
            centre(Rect::new(5, 5, 10, 10), 4, 10, 1),
            Some(Rect::new(8, 5, 4, 10))
        );
        assert_eq!(
            centre(Rect::new(5, 5, 10, 10), 4, 10, 2),
            Some(Rect::new(8, 5, 4, 10))
        );
        assert_eq!(
            centre(Rect::new(0, 0, 10, 10), 4, 10, 2),
            Some(Rect::new(2, 0, 4, 10))
        );
    }

    proptest! {
        #[test]
        fn frame_and_borders_cover_each_pixel_once(
            (w, h, x, y, fw, fh) in (1u32..40, 1u32..40).prop_flat_map(|(w, h)| {
                (Just(w), Just(h), 0..w, 0..h).prop_flat_map(|(w, h, x, y)| (Just(w), Just(h), Just(x), Just(y), 1..=w - x, 1..=h - y))
            })
        ) {
            let frame = Rect::new(x, y, fw, fh);
            let mut count = vec![0u8; (w * h) as usize];
            for r in std::iter::once(frame).chain(borders(w, h, frame)) {
                for row in r.y_px..r.bottom_px() {
                    for column in r.x_px..r.right_px() {
                        count[(row * w + column) as usize] += 1;
                    }
                }
            }
            prop_assert!(count.iter().all(|&c| c == 1));
        }

        #[test]
        fn a_centred_frame_lies_inside_its_area(
            rect in (0i32..100, 0i32..100, 1i32..200, 1i32..200), w in 1u32..200, h in 1u32..200, align in 1u32..=2,
        ) {
            let Some(area) = area(160, 120, Some([rect.0, rect.1, rect.2, rect.3])) else { return Ok(()) };
            let Some(frame) = centre(area, w, h, align) else { return Ok(()) };
            prop_assert!(frame.x_px + align > area.x_px && frame.right_px() <= area.right_px());
            prop_assert!(frame.y_px >= area.y_px && frame.bottom_px() <= area.bottom_px());
        }
    }
}
