// SPDX-License-Identifier: MPL-2.0
//! Where a picture goes on a screen, and where the borders around it are. Pure.

use gst::prelude::*;

/// A rectangle in whole pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rect {
    pub x: i32,
    pub y: i32,
    pub width: u32,
    pub height: u32,
}

impl Rect {
    pub(crate) fn new(x: i32, y: i32, width: u32, height: u32) -> Self {
        Self {
            x,
            y,
            width,
            height,
        }
    }

    /// A rectangle of this size at the origin.
    pub(crate) fn of_size(width: u32, height: u32) -> Self {
        Self::new(0, 0, width, height)
    }

    pub(crate) fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn right(&self) -> i64 {
        i64::from(self.x) + i64::from(self.width)
    }

    fn bottom(&self) -> i64 {
        i64::from(self.y) + i64::from(self.height)
    }

    /// The rectangle between these edges; `None` if it is empty.
    fn between(left: i64, top: i64, right: i64, bottom: i64) -> Option<Self> {
        let (width, height) = (right - left, bottom - top);
        (width > 0 && height > 0).then_some(Self {
            x: left as i32,
            y: top as i32,
            width: width as u32,
            height: height as u32,
        })
    }

    pub(crate) fn intersection(&self, other: &Rect) -> Option<Rect> {
        Self::between(
            self.x.max(other.x).into(),
            self.y.max(other.y).into(),
            self.right().min(other.right()),
            self.bottom().min(other.bottom()),
        )
    }

    /// The smallest rectangle that holds both.
    pub(crate) fn union(&self, other: &Rect) -> Option<Rect> {
        Self::between(
            self.x.min(other.x).into(),
            self.y.min(other.y).into(),
            self.right().max(other.right()),
            self.bottom().max(other.bottom()),
        )
    }

    /// A rectangle of this size in the middle of `self`, or around it. Its distance from the corner
    /// of `self` is a multiple of `align` pixels, so that the picture is not cut between pixels
    /// that share their colour.
    pub(crate) fn centred(&self, (width, height): (u32, u32), align: u32) -> Rect {
        let middle = |start: i32, room: u32, len: u32| {
            let step = i64::from(align);
            let margin = i64::from(room) - i64::from(len);
            (i64::from(start) + margin.div_euclid(2 * step) * step) as i32
        };
        Self {
            x: middle(self.x, self.width, width),
            y: middle(self.y, self.height, height),
            width,
            height,
        }
    }

    /// The parts of `self` around `frame`, which lies inside `self`: at most four rectangles.
    pub(crate) fn around(&self, frame: &Rect) -> impl Iterator<Item = Rect> {
        let (left, top) = (i64::from(self.x), i64::from(self.y));
        let (frame_left, frame_top) = (i64::from(frame.x), i64::from(frame.y));
        [
            Self::between(left, top, self.right(), frame_top),
            Self::between(left, frame.bottom(), self.right(), self.bottom()),
            Self::between(left, frame_top, frame_left, frame.bottom()),
            Self::between(frame.right(), frame_top, self.right(), frame.bottom()),
        ]
        .into_iter()
        .flatten()
    }
}

impl std::fmt::Display for Rect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{} at {},{}", self.width, self.height, self.x, self.y)
    }
}

/// The property `render-rectangle` of both sinks, <x, y, width, height>: the part of the screen
/// that frames may use. A width or height of 0 or less reaches to the screen's edge, so that the
/// default <0, 0, 0, 0> is the whole screen. So is <x, y, -1, -1>, as GstVideoOverlay has it. Parts outside of the
/// screen are cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenderRectangle(pub(crate) [i32; 4]);

impl RenderRectangle {
    /// Returns `None` and logs a warning for a value that is not four integers.
    pub(crate) fn of_property(
        value: &gst::Array,
        sink: &impl IsA<gst::glib::Object>,
        category: gst::DebugCategory,
    ) -> Option<Self> {
        let numbers: Vec<i32> = value.iter().filter_map(|one| one.get().ok()).collect();
        let rectangle = <[i32; 4]>::try_from(numbers).ok().map(Self::of);
        if rectangle.is_none() {
            gst::warning!(
                category,
                obj = sink,
                "render-rectangle is <x, y, width, height>, four integers; ignored"
            );
        }
        rectangle
    }

    fn of(numbers: [i32; 4]) -> Self {
        match numbers {
            [_, _, -1, -1] => Self::default(),
            numbers => Self(numbers),
        }
    }

    pub(crate) fn to_property(self) -> gst::Array {
        gst::Array::new(self.0)
    }

    /// The part of the rectangle that is on a screen of this size; `None` if none of it is.
    pub(crate) fn on_screen(self, (width, height): (u32, u32)) -> Option<Rect> {
        let [x, y, wanted_width, wanted_height] = self.0.map(i64::from);
        let end = |start: i64, len: i64, limit: u32| match len {
            ..=0 => i64::from(limit),
            _ => (start + len).min(limit.into()),
        };
        Rect::between(
            x.max(0),
            y.max(0),
            end(x, wanted_width, width),
            end(y, wanted_height, height),
        )
    }
}

impl std::fmt::Display for RenderRectangle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [x, y, width, height] = self.0;
        write!(f, "render-rectangle <{x}, {y}, {width}, {height}>")
    }
}

/// What a hardware plane does with a frame that is not of the screen's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fit {
    /// The plane scales the frame.
    Scaled,
    /// The plane shows the frame pixel for pixel, anywhere on the screen.
    Centred,
}

/// The frame to place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// The part of the frame to show.
    pub crop: Rect,
    /// Width to height of one pixel.
    pub pixel_aspect: (u32, u32),
    /// Whether the picture is turned by 90 degrees, so that rows become columns on the screen.
    pub is_turned: bool,
}

/// The screen to place it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The size of the mode in pixels.
    pub screen: (u32, u32),
    pub rectangle: RenderRectangle,
    /// Whether the picture keeps its proportions when it is scaled.
    pub keep_aspect: bool,
    /// Width to height of one pixel of the screen.
    pub pixel_aspect: (u32, u32),
}

/// A part of the frame, and the part of the screen that it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Placement {
    /// In pixels of the frame.
    pub src: Rect,
    /// In pixels of the screen.
    pub dst: Rect,
}

impl Placement {
    /// Whether the plane shows the frame without scaling it.
    pub(crate) fn is_pixel_for_pixel(&self, is_turned: bool) -> bool {
        self.dst.size() == turned(self.src.size(), is_turned)
    }
}

fn turned((width, height): (u32, u32), is_turned: bool) -> (u32, u32) {
    match is_turned {
        true => (height, width),
        false => (width, height),
    }
}

/// Subsampled colour planes can be cut only at even coordinates.
const EVEN: u32 = 2;

/// Places `picture` on the screen; `None` if nothing of it would be visible.
pub(crate) fn place(picture: &Picture, target: &Target, fit: Fit) -> Option<Placement> {
    let area = target.rectangle.on_screen(target.screen)?;
    let (crop, is_turned) = (picture.crop, picture.is_turned);
    if crop.width == 0 || crop.height == 0 {
        return None;
    }
    if fit == Fit::Scaled {
        let dst = match target.keep_aspect {
            true => fitted(picture, area, target.pixel_aspect)?,
            false => area,
        };
        return Some(Placement { src: crop, dst });
    }
    let whole = centred(area, turned(crop.size(), is_turned));
    let dst = whole.intersection(&area)?;
    // The part that is cut off on the screen is cut off the frame.
    let cut = ((dst.x - whole.x) as u32, (dst.y - whole.y) as u32);
    let (cut_x, cut_y) = turned(cut, is_turned);
    let (width, height) = turned(dst.size(), is_turned);
    let src = Rect::new(crop.x + cut_x as i32, crop.y + cut_y as i32, width, height);
    Some(Placement { src, dst })
}

fn centred(area: Rect, size: (u32, u32)) -> Rect {
    area.centred(size, EVEN)
}

/// The largest rectangle with the picture's proportions on a screen with this width to height of a pixel, in the
/// middle of `area`.
fn fitted(picture: &Picture, area: Rect, (screen_n, screen_d): (u32, u32)) -> Option<Rect> {
    let (par_n, par_d) = picture.pixel_aspect;
    let wide = u128::from(picture.crop.width) * u128::from(par_n.max(1));
    let high = u128::from(picture.crop.height) * u128::from(par_d.max(1));
    let (wide, high) = match picture.is_turned {
        true => (high, wide),
        false => (wide, high),
    };
    let (wide, high) = (wide * u128::from(screen_d), high * u128::from(screen_n));
    let (area_w, area_h) = (u128::from(area.width), u128::from(area.height));
    let round = |n: u128, d: u128| u32::try_from((n + d / 2) / d).ok();
    let size = if area_w * high <= area_h * wide {
        let height = round(area_w * high, wide)?;
        (area.width, height.clamp(1, area.height.max(1)))
    } else {
        let width = round(area_h * wide, high)?;
        (width.clamp(1, area.width.max(1)), area.height)
    };
    Some(centred(area, size))
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
        rectangle: RenderRectangle([0; 4]),
        keep_aspect: true,
        pixel_aspect: (1, 1),
    };

    #[test]
    fn a_frame_of_the_screens_size_covers_it_whatever_the_fit() {
        for fit in [Fit::Scaled, Fit::Centred] {
            let placed = place(&picture(1024, 768), &SCREEN, fit).unwrap();
            assert_eq!(
                placed,
                Placement {
                    src: Rect::new(0, 0, 1024, 768),
                    dst: Rect::new(0, 0, 1024, 768)
                }
            );
            assert!(placed.is_pixel_for_pixel(false));
        }
    }

    #[test]
    fn a_small_frame_is_centred_or_scaled_in_proportion() {
        let centred = place(&picture(640, 480), &SCREEN, Fit::Centred).unwrap();
        assert_eq!(centred.dst, Rect::new(192, 144, 640, 480));
        let scaled = place(&picture(1920, 1080), &SCREEN, Fit::Scaled).unwrap();
        assert_eq!(scaled.dst, Rect::new(0, 96, 1024, 576));
        assert_eq!(scaled.src, Rect::new(0, 0, 1920, 1080));
    }

    #[test]
    fn without_force_aspect_ratio_the_rectangle_is_filled() {
        let target = Target {
            keep_aspect: false,
            ..SCREEN
        };
        assert_eq!(
            place(&picture(10, 10), &target, Fit::Scaled).unwrap().dst,
            Rect::new(0, 0, 1024, 768)
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
    fn a_screen_with_wide_pixels_gets_fewer_of_them() {
        let target = Target {
            screen: (1280, 1024),
            pixel_aspect: (64, 45),
            ..SCREEN
        };
        let size = |picture| place(&picture, &target, Fit::Scaled).unwrap().dst.size();
        // A display of 16:9 that is driven with 1280x1024.
        assert_eq!(size(picture(1920, 1080)), (1280, 1024));
        assert_eq!(size(picture(1000, 1000)), (720, 1024));
        let turned = Picture {
            is_turned: true,
            ..picture(1920, 1080)
        };
        assert_eq!(size(turned), (405, 1024));
    }

    #[test]
    fn a_width_and_height_of_minus_one_reset_the_rectangle() {
        for (numbers, kept) in [
            ([-1, -1, -1, -1], [0; 4]),
            ([10, 20, -1, -1], [0; 4]),
            ([10, 20, -1, 30], [10, 20, -1, 30]),
            ([1, 2, 3, 4], [1, 2, 3, 4]),
        ] {
            assert_eq!(RenderRectangle::of(numbers), RenderRectangle(kept));
        }
    }

    #[test]
    fn a_large_frame_that_cannot_be_scaled_shows_its_middle() {
        let placed = place(&picture(1920, 1080), &SCREEN, Fit::Centred).unwrap();
        assert_eq!(placed.dst, Rect::new(0, 0, 1024, 768));
        assert_eq!(placed.src, Rect::new(448, 156, 1024, 768));
    }

    #[test]
    fn crop_rectangle_and_turn_go_together() {
        let turned = Picture {
            crop: Rect::new(100, 50, 400, 200),
            pixel_aspect: (1, 1),
            is_turned: true,
        };
        let target = Target {
            rectangle: RenderRectangle([600, 400, 300, 300]),
            ..SCREEN
        };
        let placed = place(&turned, &target, Fit::Centred).unwrap();
        assert_eq!(placed.dst, Rect::new(650, 400, 200, 300));
        assert_eq!(placed.src, Rect::new(150, 50, 300, 200));
        assert!(placed.is_pixel_for_pixel(true));
    }

    #[test]
    fn what_lies_outside_the_screen_is_not_shown() {
        let target = Target {
            rectangle: RenderRectangle([2000, 0, 100, 100]),
            ..SCREEN
        };
        assert_eq!(place(&picture(64, 64), &target, Fit::Centred), None);
        assert_eq!(place(&picture(64, 64), &target, Fit::Scaled), None);
        assert_eq!(place(&picture(0, 64), &SCREEN, Fit::Centred), None);
    }

    #[test]
    fn no_rectangle_is_the_whole_screen() {
        let whole = RenderRectangle::default().on_screen((640, 480));
        assert_eq!(whole, Some(Rect::of_size(640, 480)));
    }

    #[test]
    fn a_rectangle_is_cut_to_the_screen() {
        let on_screen = |numbers| RenderRectangle(numbers).on_screen((640, 480));
        let cut = on_screen([600, -20, 100, 100]);
        assert_eq!(cut, Some(Rect::new(600, 0, 40, 80)));
        let to_the_edges = on_screen([10, 20, 0, -1]);
        assert_eq!(to_the_edges, Some(Rect::new(10, 20, 630, 460)));
        assert_eq!(on_screen([640, 0, 10, 10]), None);
        assert_eq!(on_screen([i32::MAX, i32::MIN, i32::MAX, i32::MAX]), None);
    }

    #[test]
    fn the_middle_is_rounded_to_where_pixels_can_be_parted() {
        let area = Rect::new(5, 5, 10, 10);
        assert_eq!(area.centred((4, 10), 1), Rect::new(8, 5, 4, 10));
        assert_eq!(area.centred((4, 10), 2), Rect::new(7, 5, 4, 10));
        assert_eq!(area.centred((10, 17), 2), Rect::new(5, 1, 10, 17));
    }

    proptest! {
        #[test]
        fn frame_and_borders_cover_each_pixel_once(
            (w, h, x, y, fw, fh) in (1u32..40, 1u32..40).prop_flat_map(|(w, h)| {
                (Just(w), Just(h), 0..w, 0..h).prop_flat_map(|(w, h, x, y)| (Just(w), Just(h), Just(x), Just(y), 1..=w - x, 1..=h - y))
            })
        ) {
            let frame = Rect::new(x as i32, y as i32, fw, fh);
            let mut count = vec![0u8; (w * h) as usize];
            for r in std::iter::once(frame).chain(Rect::of_size(w, h).around(&frame)) {
                for row in i64::from(r.y)..r.bottom() {
                    for column in i64::from(r.x)..r.right() {
                        count[(row * i64::from(w) + column) as usize] += 1;
                    }
                }
            }
            prop_assert!(count.iter().all(|&c| c == 1));
        }

        #[test]
        fn a_centred_frame_lies_inside_its_area(
            x in 0i32..100, y in 0i32..100, width in 1u32..200, height in 1u32..200,
            w in 1u32..200, h in 1u32..200, align in 1u32..=2,
        ) {
            let area = Rect::new(x, y, width, height);
            let frame = area.centred((w, h), align);
            let fits = w <= width && h <= height;
            prop_assert_eq!(area.intersection(&frame) == Some(frame), fits);
        }

        #[test]
        fn centred_stays_on_the_screen_inside_the_crop_and_pixel_for_pixel(
            x in 0i32..500, y in 0i32..500, width in 1u32..5000, height in 1u32..5000,
            screen in (1u32..5000, 1u32..5000), is_turned: bool,
            rectangle in [-500i32..5000, -500i32..5000, -500i32..5000, -500i32..5000],
        ) {
            let rectangle = RenderRectangle(rectangle);
            let crop = Rect::new(x, y, width, height);
            let picture = Picture { crop, pixel_aspect: (1, 1), is_turned };
            let target = Target { screen, rectangle, keep_aspect: true, pixel_aspect: (1, 1) };
            if let Some(placed) = place(&picture, &target, Fit::Centred) {
                prop_assert!(placed.is_pixel_for_pixel(is_turned));
                let area = rectangle.on_screen(screen).unwrap();
                prop_assert_eq!(placed.dst.intersection(&area), Some(placed.dst));
                prop_assert_eq!(placed.src.intersection(&crop), Some(placed.src));
            } else {
                prop_assert_eq!(rectangle.on_screen(screen), None);
            }
        }

        #[test]
        fn scaled_fits_the_area_and_keeps_proportions(
            width in 1u32..5000, height in 1u32..5000, screen in (100u32..5000, 100u32..5000)
        ) {
            let target = Target { screen, ..SCREEN };
            let placed = place(&picture(width, height), &target, Fit::Scaled).unwrap();
            prop_assert!(placed.dst.width <= screen.0 && placed.dst.height <= screen.1);
            prop_assert!(placed.dst.width == screen.0 || placed.dst.height == screen.1);
            let want = f64::from(width) / f64::from(height);
            let (w, h) = (f64::from(placed.dst.width), f64::from(placed.dst.height));
            // Rounding moves the side that was computed by one pixel at most.
            prop_assert!((w - 1.0) / (h + 1.0) <= want && (want <= (w + 1.0) / (h - 1.0).max(0.5) || h <= 1.0));
        }
    }
}
