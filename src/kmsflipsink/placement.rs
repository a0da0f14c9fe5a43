// SPDX-License-Identifier: MPL-2.0
//! Which part of a frame goes where on the screen. Pure.

/// A rectangle in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Rect {
    /// Left edge; may lie outside the screen.
    pub x: i32,
    /// Upper edge; may lie outside the screen.
    pub y: i32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// The rectangle at the origin.
    pub fn of_size(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    fn intersection(&self, other: &Rect) -> Option<Rect> {
        let span = |a: i32, a_len: u32, b: i32, b_len: u32| {
            let start = a.max(b);
            let end = (i64::from(a) + i64::from(a_len)).min(i64::from(b) + i64::from(b_len));
            let len = end - i64::from(start);
            (len > 0).then_some((start, len as u32))
        };
        let (x, width) = span(self.x, self.width, other.x, other.width)?;
        let (y, height) = span(self.y, self.height, other.y, other.height)?;
        Some(Rect {
            x,
            y,
            width,
            height,
        })
    }
}

/// What a hardware plane can do about the size of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fit {
    /// The plane scales.
    Scaled,
    /// The plane lies anywhere on the screen, pixel for pixel.
    Centred,
    /// The plane covers the whole screen or nothing: the frame is copied into
    /// a buffer as large as the screen.
    Composed,
}

/// What a frame asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// The part of the frame to show.
    pub crop: Rect,
    /// Width to height of one pixel.
    pub pixel_aspect: (u32, u32),
    /// Whether rows become columns on the way to the screen.
    pub is_turned: bool,
}

/// Where it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The size of the mode.
    pub screen: (u32, u32),
    /// The part of the screen to use; all of it by default.
    pub rectangle: Option<Rect>,
    /// Whether the picture keeps its proportions when it is scaled.
    pub keep_aspect: bool,
}

/// A part of the frame and the part of the screen it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Placement {
    /// In pixels of the frame.
    pub src: Rect,
    /// In pixels of the screen.
    pub dst: Rect,
}

impl Placement {
    /// Whether no plane scaling is needed.
    pub fn is_pixel_for_pixel(&self, is_turned: bool) -> bool {
        let (width, height) = turned((self.src.width, self.src.height), is_turned);
        (self.dst.width, self.dst.height) == (width, height)
    }
}

fn turned((width, height): (u32, u32), is_turned: bool) -> (u32, u32) {
    if is_turned {
        (height, width)
    } else {
        (width, height)
    }
}

/// Places `picture`. None if nothing of it would be visible.
pub fn place(picture: &Picture, target: &Target, fit: Fit) -> Option<Placement> {
    let screen = Rect::of_size(target.screen.0, target.screen.1);
    let area = target.rectangle.unwrap_or(screen);
    if picture.crop.width == 0 || picture.crop.height == 0 {
        return None;
    }
    match fit {
        Fit::Scaled => {
            let dst = if target.keep_aspect {
                fitted(picture, area)?
            } else {
                area
            };
            // A plane that hangs over the edge is for the driver to refuse.
            dst.intersection(&screen).map(|_| Placement {
                src: picture.crop,
                dst,
            })
        }
        Fit::Centred | Fit::Composed => {
            let size = turned((picture.crop.width, picture.crop.height), picture.is_turned);
            let whole = centred(size, area);
            let dst = whole.intersection(&area)?.intersection(&screen)?;
            // What was cut off on the screen is cut off in the frame.
            let (cut_x, cut_y) = turned(
                ((dst.x - whole.x) as u32, (dst.y - whole.y) as u32),
                picture.is_turned,
            );
            let (width, height) = turned((dst.width, dst.height), picture.is_turned);
            let src = Rect {
                x: picture.crop.x + cut_x as i32,
                y: picture.crop.y + cut_y as i32,
                width,
                height,
            };
            Some(Placement { src, dst })
        }
    }
}

/// The largest rectangle of the picture's proportions, in the middle of `area`.
fn fitted(picture: &Picture, area: Rect) -> Option<Rect> {
    let (par_n, par_d) = picture.pixel_aspect;
    let (par_n, par_d) = (u128::from(par_n.max(1)), u128::from(par_d.max(1)));
    let mut wide = u128::from(picture.crop.width) * par_n;
    let mut high = u128::from(picture.crop.height) * par_d;
    if picture.is_turned {
        std::mem::swap(&mut wide, &mut high);
    }
    let (area_w, area_h) = (u128::from(area.width), u128::from(area.height));
    let round = |n: u128, d: u128| u32::try_from((n + d / 2) / d).ok();
    let (width, height) = if area_w * high <= area_h * wide {
        (
            area.width,
            round(area_w * high, wide)?.clamp(1, area.height.max(1)),
        )
    } else {
        (
            round(area_h * wide, high)?.clamp(1, area.width.max(1)),
            area.height,
        )
    };
    Some(centred((width, height), area))
}

/// Even coordinates, so that subsampled colour planes can be cut there too.
fn centred((width, height): (u32, u32), area: Rect) -> Rect {
    let middle = |start: i32, room: u32, len: u32| {
        (i64::from(start) + (i64::from(room) - i64::from(len)).div_euclid(4) * 2) as i32
    };
    let x = if width == area.width {
        area.x
    } else {
        middle(area.x, area.width, width)
    };
    let y = if height == area.height {
        area.y
    } else {
        middle(area.y, area.height, height)
    };
    Rect {
        x,
        y,
        width,
        height,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn picture(width: u32, height: u32) -> Picture {
        Picture {
            crop: Rect::of_size(width, height),
            pixel_aspect: (1, 1),
            is_turned: false,
        }
    }

    const SCREEN: Target = Target {
        screen: (1024, 768),
        rectangle: None,
        keep_aspect: true,
    };

    fn rect(x: i32, y: i32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn a_frame_of_the_screens_size_covers_it_whatever_the_fit() {
        for fit in [Fit::Scaled, Fit::Centred, Fit::Composed] {
            let placed = place(&picture(1024, 768), &SCREEN, fit).unwrap();
            assert_eq!(
                placed,
                Placement {
                    src: rect(0, 0, 1024, 768),
                    dst: rect(0, 0, 1024, 768)
                }
            );
            assert!(placed.is_pixel_for_pixel(false));
        }
    }

    #[test]
    fn a_small_frame_is_centred_or_scaled_in_proportion() {
        let centred = place(&picture(640, 480), &SCREEN, Fit::Centred).unwrap();
        assert_eq!(centred.dst, rect(192, 144, 640, 480));
        let scaled = place(&picture(1920, 1080), &SCREEN, Fit::Scaled).unwrap();
        assert_eq!(scaled.dst, rect(0, 96, 1024, 576));
        assert_eq!(scaled.src, rect(0, 0, 1920, 1080));
    }

    #[test]
    fn without_force_aspect_ratio_the_rectangle_is_filled() {
        let target = Target {
            keep_aspect: false,
            ..SCREEN
        };
        assert_eq!(
            place(&picture(10, 10), &target, Fit::Scaled).unwrap().dst,
            rect(0, 0, 1024, 768)
        );
    }

    #[test]
    fn pixel_aspect_ratio_widens_the_picture() {
        let anamorphic = Picture {
            pixel_aspect: (16, 11),
            ..picture(720, 576)
        };
        let placed = place(&anamorphic, &SCREEN, Fit::Scaled).unwrap();
        assert_eq!((placed.dst.width, placed.dst.height), (1024, 563));
    }

    #[test]
    fn a_large_frame_that_cannot_be_scaled_shows_its_middle() {
        let placed = place(&picture(1920, 1080), &SCREEN, Fit::Centred).unwrap();
        assert_eq!(placed.dst, rect(0, 0, 1024, 768));
        assert_eq!(placed.src, rect(448, 156, 1024, 768));
    }

    #[test]
    fn crop_rectangle_and_turn_go_together() {
        let turned = Picture {
            crop: rect(100, 50, 400, 200),
            pixel_aspect: (1, 1),
            is_turned: true,
        };
        let target = Target {
            rectangle: Some(rect(600, 400, 300, 300)),
            ..SCREEN
        };
        let placed = place(&turned, &target, Fit::Centred).unwrap();
        assert_eq!(placed.dst, rect(650, 400, 200, 300));
        assert_eq!(placed.src, rect(150, 50, 300, 200));
        assert!(placed.is_pixel_for_pixel(true));
    }

    #[test]
    fn what_lies_outside_the_screen_is_not_shown() {
        let target = Target {
            rectangle: Some(rect(2000, 0, 100, 100)),
            ..SCREEN
        };
        assert_eq!(place(&picture(64, 64), &target, Fit::Centred), None);
        assert_eq!(place(&picture(64, 64), &target, Fit::Scaled), None);
        assert_eq!(place(&picture(0, 64), &SCREEN, Fit::Centred), None);
    }

    proptest! {
        #[test]
        fn centred_stays_on_the_screen_inside_the_crop_and_pixel_for_pixel(
            x in 0i32..500, y in 0i32..500, width in 1u32..5000, height in 1u32..5000,
            screen in (1u32..5000, 1u32..5000), is_turned: bool,
            rectangle in proptest::option::of((-500i32..5000, -500i32..5000, 1u32..5000, 1u32..5000)),
        ) {
            let rectangle = rectangle.map(|(x, y, width, height)| rect(x, y, width, height));
            let crop = rect(x, y, width, height);
            let picture = Picture { crop, pixel_aspect: (1, 1), is_turned };
            let target = Target { screen, rectangle, keep_aspect: true };
            if let Some(placed) = place(&picture, &target, Fit::Centred) {
                prop_assert!(placed.is_pixel_for_pixel(is_turned));
                prop_assert_eq!(placed.dst.intersection(&Rect::of_size(screen.0, screen.1)), Some(placed.dst));
                prop_assert_eq!(placed.src.intersection(&crop), Some(placed.src));
            } else {
                prop_assert!(rectangle.is_some());
            }
        }

        #[test]
        fn scaled_fits_the_area_and_keeps_proportions(
            width in 1u32..5000, height in 1u32..5000, screen in (100u32..5000, 100u32..5000)
        ) {
            let target = Target { screen, rectangle: None, keep_aspect: true };
            let placed = place(&picture(width, height), &target, Fit::Scaled).unwrap();
            prop_assert!(placed.dst.width <= screen.0 && placed.dst.height <= screen.1);
            prop_assert!(placed.dst.width == screen.0 || placed.dst.height == screen.1);
            let want = f64::from(width) / f64::from(height);
            let (w, h) = (f64::from(placed.dst.width), f64::from(placed.dst.height));
            // Off by at most one pixel of rounding on the side that was computed.
            prop_assert!((w - 1.0) / (h + 1.0) <= want && (want <= (w + 1.0) / (h - 1.0).max(0.5) || h <= 1.0));
        }
    }
}
