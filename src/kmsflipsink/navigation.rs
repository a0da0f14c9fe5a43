// SPDX-License-Identifier: MPL-2.0
//! Where a point of the screen is in the frames, for navigation events. Pure.

use gst_video::VideoOrientationMethod;

use crate::display::area::{Placement, Rect};

/// How frames are on the screen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown {
    /// The part of the frame's memory that is shown, and where.
    pub placement: Placement,
    /// What upstream calls 0,0 in the frame's memory. It is the corner of the crop if the caps have the size of the crop.
    pub origin: (i32, i32),
    /// The size in the caps.
    pub size: (u32, u32),
    /// How the plane turns the picture.
    pub rotation: VideoOrientationMethod,
}

impl Shown {
    /// The point of the frame at a point of the screen, both in pixels. Beside the picture, it is the nearest point of the
    /// frame.
    pub fn to_frame(self, (x, y): (f64, f64)) -> (f64, f64) {
        let Placement { src, dst } = self.placement;
        let (s, t) = (
            fraction(x, dst.x, dst.width),
            fraction(y, dst.y, dst.height),
        );
        let (u, v) = turned_back(self.rotation, s, t);
        let Rect {
            x: left, y: top, ..
        } = src;
        let at = |start: i32, origin: i32, share: f64, len: u32, size: u32| {
            let at = f64::from(start) - f64::from(origin) + share * f64::from(len);
            at.clamp(0.0, f64::from(size))
        };
        (
            at(left, self.origin.0, u, src.width, self.size.0),
            at(top, self.origin.1, v, src.height, self.size.1),
        )
    }
}

/// How far a point is from the start of a length, 0 at its start and 1 at its end.
fn fraction(at: f64, start: i32, len: u32) -> f64 {
    let share = (at - f64::from(start)) / f64::from(len.max(1));
    share.clamp(0.0, 1.0)
}

/// The place in the picture as it was before it was turned, of a place in the turned one.
fn turned_back(rotation: VideoOrientationMethod, s: f64, t: f64) -> (f64, f64) {
    match rotation {
        VideoOrientationMethod::_90r => (t, 1.0 - s),
        VideoOrientationMethod::_180 => (1.0 - s, 1.0 - t),
        VideoOrientationMethod::_90l => (1.0 - t, s),
        VideoOrientationMethod::Horiz => (1.0 - s, t),
        VideoOrientationMethod::Vert => (s, 1.0 - t),
        VideoOrientationMethod::UlLr => (t, s),
        VideoOrientationMethod::UrLl => (1.0 - t, 1.0 - s),
        _ => (s, t),
    }
}

/// The same event with its point, if it has one, in the frame.
pub fn in_frame(mut event: gst::Structure, shown: Shown) -> gst::Structure {
    let point = (event.get("pointer_x"), event.get("pointer_y"));
    if let (Ok(x), Ok(y)) = point {
        let (x, y) = shown.to_frame((x, y));
        event.set("pointer_x", x);
        event.set("pointer_y", y);
    }
    event
}

#[cfg(test)]
mod tests {
    use super::VideoOrientationMethod as M;
    use super::*;

    fn shown(src: Rect, dst: Rect, rotation: M) -> Shown {
        Shown {
            placement: Placement { src, dst },
            origin: (0, 0),
            size: (320, 240),
            rotation,
        }
    }

    #[test]
    fn a_point_is_found_in_a_picture_that_is_scaled_and_placed() {
        let shown = shown(
            Rect::of_size(320, 240),
            Rect::new(100, 50, 640, 480),
            M::Identity,
        );
        for (screen, frame) in [
            ((100.0, 50.0), (0.0, 0.0)),
            ((740.0, 530.0), (320.0, 240.0)),
            ((420.0, 90.0), (160.0, 20.0)),
            ((0.0, 900.0), (0.0, 240.0)),
        ] {
            assert_eq!(shown.to_frame(screen), frame, "{screen:?}");
        }
    }

    /// The upper left quarter of the frame, where each rotation shows it: videoflip turns a frame so.
    #[test]
    fn a_point_is_found_in_a_picture_that_is_turned() {
        let turned = Rect::of_size(240, 320);
        for (rotation, screen) in [
            (M::Identity, (80.0, 60.0)),
            (M::_90r, (180.0, 80.0)),
            (M::_180, (240.0, 180.0)),
            (M::_90l, (60.0, 240.0)),
            (M::Horiz, (240.0, 60.0)),
            (M::Vert, (80.0, 180.0)),
            (M::UlLr, (60.0, 80.0)),
            (M::UrLl, (180.0, 240.0)),
        ] {
            let dst = match crate::kmsflipsink::tune::is_turned(rotation) {
                true => turned,
                false => Rect::of_size(320, 240),
            };
            let shown = shown(Rect::of_size(320, 240), dst, rotation);
            assert_eq!(shown.to_frame(screen), (80.0, 60.0), "{rotation:?}");
        }
    }

    #[test]
    fn a_crop_begins_at_0_where_the_caps_have_its_size() {
        let src = Rect::new(40, 20, 100, 60);
        let dst = Rect::of_size(200, 120);
        let whole = shown(src, dst, M::Identity);
        assert_eq!(whole.to_frame((20.0, 10.0)), (50.0, 25.0));
        let cropped = Shown {
            origin: (40, 20),
            size: (100, 60),
            ..whole
        };
        assert_eq!(cropped.to_frame((20.0, 10.0)), (10.0, 5.0));
        assert_eq!(cropped.to_frame((900.0, 900.0)), (100.0, 60.0));
    }

    #[test]
    fn only_points_of_an_event_change() {
        gst::init().unwrap();
        let shown = shown(
            Rect::of_size(320, 240),
            Rect::of_size(640, 480),
            M::Identity,
        );
        let click = gst_video::NavigationEvent::new_mouse_button_press(3, 100.0, 50.0).structure();
        let click = in_frame(click, shown);
        assert_eq!(click.get("pointer_x"), Ok(50.0));
        assert_eq!(click.get("pointer_y"), Ok(25.0));
        assert_eq!(click.get("button"), Ok(3));
        let key = gst_video::NavigationEvent::new_key_press("Left").structure();
        assert_eq!(in_frame(key.clone(), shown), key);
    }
}
