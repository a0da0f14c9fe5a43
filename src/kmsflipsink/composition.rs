// SPDX-License-Identifier: MPL-2.0
//! Overlay compositions (GstVideoOverlayComposition): the rectangles with text or pictures that elements such as
//! textoverlay attach to a frame in place of drawing into it. Where their rectangles are on the screen, whether they
//! have changed, and their pixels, drawn or ready to be blended. No device is needed.
//!
//! A rectangle of a composition lies in the coordinates of the frame. The picture that it holds may be of another size
//! than the rectangle, because textoverlay draws it in the resolution of the screen.

use gst_video::{
    VideoFlags, VideoFormat, VideoFrameFlags, VideoFrameRef, VideoMeta, VideoOverlayComposition,
    VideoOverlayCompositionMeta, VideoOverlayFormatFlags, VideoOverlayRectangle,
};

use super::format;
use crate::display::area::{Placement, Rect};

/// The format of what [`drawn`] makes, and of the rectangles of [`placed`].
pub const FORMAT: VideoFormat = VideoFormat::Bgra;
/// The same in DRM.
pub const FOURCC: u32 = format::fourcc(b"AR24");
const PIXEL_BYTES: usize = 4;
const PREMULTIPLIED: VideoOverlayFormatFlags = VideoOverlayFormatFlags::PREMULTIPLIED_ALPHA;

/// These caps, and then the same for frames with overlay compositions.
pub fn also_with_meta(caps: &gst::Caps) -> gst::Caps {
    let mut all = caps.clone();
    let all_caps = all.make_mut();
    for (structure, features) in caps.iter_with_features() {
        let mut features = features.to_owned();
        features.add(gst_video::CAPS_FEATURE_META_GST_VIDEO_OVERLAY_COMPOSITION);
        all_caps.append_structure_full(structure.to_owned(), Some(features));
    }
    all
}

/// The parameters of the meta in the answer to an ALLOCATION query: the size that the frame has on the screen, in
/// which textoverlay draws its text.
pub fn window_params((width, height): (u32, u32)) -> gst::Structure {
    gst::Structure::builder("GstVideoOverlayCompositionMeta")
        .field("width", width)
        .field("height", height)
        .build()
}

/// What decides how the compositions of a frame look on the screen. Two frames for which it is equal need them drawn
/// only once.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// The sequence number of each rectangle, which is new if its pixels are, and its place in the frame.
    rectangles: Vec<(u32, Rect)>,
    placement: Placement,
}

impl Look {
    /// `None` if the frame has no composition.
    pub fn of(buffer: &gst::BufferRef, placement: &Placement) -> Option<Self> {
        buffer.meta::<VideoOverlayCompositionMeta>()?;
        let rectangles = rectangles(buffer).map(|one| (one.seqnum(), place(&one)));
        Some(Self {
            rectangles: rectangles.collect(),
            placement: *placement,
        })
    }

    /// The smallest part of the screen that holds all that is visible of the rectangles; `None` if nothing is.
    pub fn bounds(&self) -> Option<Rect> {
        let placement = &self.placement;
        let rectangles = self.rectangles.iter();
        rectangles
            .filter_map(|(_, rect)| on_screen(rect, placement)?.intersection(&placement.dst))
            .reduce(|all, one| all.union(&one).unwrap_or(all))
    }
}

fn rectangles(buffer: &gst::BufferRef) -> impl Iterator<Item = VideoOverlayRectangle> {
    let metas = buffer.iter_meta::<VideoOverlayCompositionMeta>();
    metas.flat_map(|meta| meta.overlay().iter().collect::<Vec<_>>())
}

fn place(rectangle: &VideoOverlayRectangle) -> Rect {
    let (x, y, width, height) = rectangle.render_rectangle();
    Rect::new(x, y, width, height)
}

/// Where a rectangle in the coordinates of the frame is on the screen. It may reach beyond the picture. `None` if it
/// is smaller than a pixel there.
fn on_screen(rect: &Rect, placement: &Placement) -> Option<Rect> {
    let Placement { src, dst } = placement;
    let span = |start: i32, len: u32, from: (i32, u32), to: (i32, u32)| {
        let scale = |offset: i64| {
            let (wanted, had) = (i64::from(to.1), i64::from(from.1.max(1)));
            (2 * offset * wanted + had).div_euclid(2 * had) + i64::from(to.0)
        };
        let start = i64::from(start) - i64::from(from.0);
        let (start, end) = (scale(start), scale(start + i64::from(len)));
        let len = u32::try_from(end - start).ok().filter(|&len| len > 0)?;
        Some((i32::try_from(start).ok()?, len))
    };
    let (x, width) = span(rect.x, rect.width, (src.x, src.width), (dst.x, dst.width))?;
    let (y, height) = span(
        rect.y,
        rect.height,
        (src.y, src.height),
        (dst.y, dst.height),
    )?;
    Some(Rect::new(x, y, width, height))
}

/// The visible parts of the frame's compositions, in the coordinates of the screen: scaled, with all alpha applied, and
/// cut off where the picture ends.
///
/// gst_video_overlay_composition_blend() does not do that: it scales a rectangle again for each frame, and then takes
/// colours that are multiplied by alpha for colours that are not (GStreamer 1.28).
pub fn placed(buffer: &gst::BufferRef, placement: &Placement) -> VideoOverlayComposition {
    let rectangles = rectangles(buffer);
    let parts: Vec<_> = rectangles
        .filter_map(|rectangle| visible_part(&rectangle, placement))
        .collect();
    // Collected by reference: of rectangles that it takes over, gstreamer-video 0.25 never gives up its own reference.
    parts.iter().collect()
}

fn visible_part(
    rectangle: &VideoOverlayRectangle,
    placement: &Placement,
) -> Option<VideoOverlayRectangle> {
    let whole = on_screen(&place(rectangle), placement)?;
    let visible = whole.intersection(&placement.dst)?;
    let mut scaled = rectangle.copy();
    let (width, height) = whole.size();
    scaled.get_mut()?.set_render_rectangle(0, 0, width, height);
    let pixels = scaled.pixels_argb(PREMULTIPLIED);
    let pixels = match visible == whole {
        true => pixels,
        false => {
            let cut = (
                (visible.x - whole.x) as usize,
                (visible.y - whole.y) as usize,
            );
            part_of(&pixels, cut, visible.size())?
        }
    };
    let Rect {
        x,
        y,
        width,
        height,
    } = visible;
    Some(VideoOverlayRectangle::new_raw(
        &pixels,
        x,
        y,
        width,
        height,
        PREMULTIPLIED,
    ))
}

/// The part of a picture in [`FORMAT`] that begins at `at`, in the same memory.
fn part_of(
    pixels: &gst::Buffer,
    (x, y): (usize, usize),
    (width, height): (u32, u32),
) -> Option<gst::Buffer> {
    let meta = pixels.meta::<VideoMeta>()?;
    let stride = *meta.stride().first()?;
    let row_bytes = usize::try_from(stride).ok()?;
    let start = meta.offset().first()? + y * row_bytes + x * PIXEL_BYTES;
    let len = (height as usize - 1) * row_bytes + width as usize * PIXEL_BYTES;
    let range = start..start + len;
    let mut part = pixels
        .copy_region(gst::BufferCopyFlags::MEMORY, range)
        .ok()?;
    let none = VideoFrameFlags::empty();
    VideoMeta::add_full(
        part.make_mut(),
        none,
        FORMAT,
        width,
        height,
        &[0],
        &[stride],
    )
    .ok()?;
    Some(part)
}

/// A picture in [`FORMAT`], its colours multiplied by alpha, of the part `bounds` of the screen: transparent where the
/// frame's compositions show nothing.
pub fn drawn(buffer: &gst::BufferRef, placement: &Placement, bounds: &Rect) -> Option<gst::Buffer> {
    let (width, height) = bounds.size();
    let shifted = Placement {
        src: placement.src,
        dst: Rect {
            x: placement.dst.x - bounds.x,
            y: placement.dst.y - bounds.y,
            ..placement.dst
        },
    };
    let info = gst_video::VideoInfo::builder(FORMAT, width, height)
        .flags(VideoFlags::PREMULTIPLIED_ALPHA)
        .build()
        .ok()?;
    let mut canvas = gst::Buffer::from_mut_slice(vec![0u8; info.size()]);
    let mut frame = VideoFrameRef::from_buffer_ref_writable(canvas.get_mut()?, &info).ok()?;
    placed(buffer, &shifted).blend(&mut frame).ok()?;
    drop(frame);
    Some(canvas)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Placement = Placement {
        src: Rect {
            x: 0,
            y: 0,
            width: 64,
            height: 48,
        },
        dst: Rect {
            x: 0,
            y: 0,
            width: 64,
            height: 48,
        },
    };

    fn placement(src: [i32; 4], dst: [i32; 4]) -> Placement {
        let rect = |[x, y, width, height]: [i32; 4]| Rect::new(x, y, width as u32, height as u32);
        Placement {
            src: rect(src),
            dst: rect(dst),
        }
    }

    /// A rectangle of one colour, given as blue, green, red and alpha.
    fn rectangle(place: [i32; 4], colour: [u8; 4], size: (u32, u32)) -> VideoOverlayRectangle {
        gst::init().unwrap();
        let [x, y, width, height] = place;
        let bytes = colour.repeat((size.0 * size.1) as usize);
        let mut pixels = gst::Buffer::from_mut_slice(bytes);
        let none = VideoFrameFlags::empty();
        VideoMeta::add(pixels.make_mut(), none, FORMAT, size.0, size.1).unwrap();
        let (width, height) = (width as u32, height as u32);
        VideoOverlayRectangle::new_raw(&pixels, x, y, width, height, PREMULTIPLIED)
    }

    fn plain(place: [i32; 4], colour: [u8; 4]) -> VideoOverlayRectangle {
        rectangle(place, colour, (place[2] as u32, place[3] as u32))
    }

    fn frame_with(rectangles: &[VideoOverlayRectangle]) -> gst::Buffer {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        let composition: VideoOverlayComposition = rectangles.iter().collect();
        VideoOverlayCompositionMeta::add(buffer.make_mut(), &composition);
        buffer
    }

    const RED: [u8; 4] = [0, 0, 255, 255];
    const BLUE: [u8; 4] = [255, 0, 0, 255];

    fn pixel(canvas: &gst::Buffer, width: u32, x: u32, y: u32) -> [u8; 4] {
        let map = canvas.map_readable().unwrap();
        let start = ((y * width + x) * 4) as usize;
        map[start..start + 4].try_into().unwrap()
    }

    #[test]
    fn rectangles_move_and_scale_with_the_picture() {
        let rect = Rect::new(10, 20, 16, 8);
        assert_eq!(on_screen(&rect, &FRAME), Some(rect));
        let cropped = placement([8, 4, 32, 32], [100, 50, 32, 32]);
        assert_eq!(on_screen(&rect, &cropped), Some(Rect::new(102, 66, 16, 8)));
        let scaled = placement([0, 0, 64, 48], [100, 50, 128, 72]);
        assert_eq!(on_screen(&rect, &scaled), Some(Rect::new(120, 80, 32, 12)));
        let left = Rect::new(-16, 0, 16, 8);
        assert_eq!(on_screen(&left, &scaled), Some(Rect::new(68, 50, 32, 12)));
        let tiny = placement([0, 0, 64, 48], [0, 0, 2, 2]);
        assert_eq!(on_screen(&Rect::new(0, 0, 1, 1), &tiny), None);
    }

    #[test]
    fn rectangles_that_touch_in_the_frame_touch_on_the_screen() {
        let scaled = placement([0, 0, 64, 48], [3, 5, 97, 71]);
        for x in 0..60 {
            let left = on_screen(&Rect::new(0, 0, x + 1, 9), &scaled).unwrap();
            let right = on_screen(&Rect::new(x as i32 + 1, 0, 3, 9), &scaled).unwrap();
            assert_eq!(left.x + left.width as i32, right.x);
        }
    }

    #[test]
    fn the_bounds_hold_what_is_visible_and_no_more() {
        let bounds = |places: &[[i32; 4]], placement| {
            let rectangles: Vec<_> = places.iter().map(|&place| plain(place, RED)).collect();
            let look = Look::of(&frame_with(&rectangles), placement).unwrap();
            look.bounds()
        };
        let all = bounds(&[[4, 6, 8, 8], [20, 2, 4, 4]], &FRAME);
        assert_eq!(all, Some(Rect::new(4, 2, 20, 12)));
        let cut = bounds(&[[-5, -5, 10, 10], [60, 40, 10, 10]], &FRAME);
        assert_eq!(cut, Some(FRAME.dst));
        assert_eq!(bounds(&[[64, 0, 10, 10]], &FRAME), None);
        let cropped = placement([32, 0, 32, 48], [0, 0, 32, 48]);
        let right = bounds(&[[0, 0, 10, 10], [30, 0, 10, 10]], &cropped);
        assert_eq!(right, Some(Rect::new(0, 0, 8, 10)));
        assert_eq!(bounds(&[], &FRAME), None);
    }

    #[test]
    fn a_frame_looks_the_same_until_a_rectangle_or_the_placement_changes() {
        let one = plain([4, 6, 8, 8], RED);
        let look = |rectangles: &[VideoOverlayRectangle], placement| {
            Look::of(&frame_with(rectangles), placement)
        };
        let first = look(std::slice::from_ref(&one), &FRAME);
        // Another composition and another buffer, as a new subtitle element makes for each frame.
        assert_eq!(look(std::slice::from_ref(&one), &FRAME), first);
        let other = plain([4, 6, 8, 8], BLUE);
        assert_ne!(look(std::slice::from_ref(&other), &FRAME), first);
        assert_ne!(look(&[one.clone(), other], &FRAME), first);
        let moved = placement([0, 0, 64, 48], [1, 0, 64, 48]);
        assert_ne!(look(&[one], &moved), first);
        assert_eq!(Look::of(&gst::Buffer::new(), &FRAME), None);
    }

    #[test]
    fn the_placed_rectangles_are_given_up_with_their_composition() {
        let frame = frame_with(&[plain([4, 6, 8, 8], RED)]);
        let composition = placed(&frame, &FRAME);
        let mut rectangle = composition.rectangle(0).unwrap();
        assert!(rectangle.get_mut().is_none(), "the composition has it, too");
        drop(composition);
        assert!(rectangle.get_mut().is_some(), "nobody else has it");
    }

    #[test]
    fn what_lies_above_is_drawn_later_and_the_rest_is_transparent() {
        let frame = frame_with(&[plain([4, 6, 8, 8], RED), plain([8, 10, 8, 8], BLUE)]);
        let bounds = Look::of(&frame, &FRAME).unwrap().bounds().unwrap();
        let canvas = drawn(&frame, &FRAME, &bounds).unwrap();
        let at = |x, y| pixel(&canvas, bounds.width, x, y);
        assert_eq!(bounds, Rect::new(4, 6, 12, 12));
        assert_eq!([at(0, 0), at(7, 3), at(3, 7)], [RED; 3]);
        assert_eq!([at(4, 4), at(7, 7), at(11, 11)], [BLUE; 3]);
        assert_eq!([at(8, 0), at(0, 8)], [[0; 4]; 2]);
    }

    #[test]
    fn colours_stay_multiplied_by_alpha_when_a_rectangle_is_scaled() {
        let half = [0, 64, 128, 128];
        let scaled = placement([0, 0, 64, 48], [0, 0, 128, 96]);
        let frame = frame_with(&[plain([0, 0, 8, 8], half)]);
        let canvas = drawn(&frame, &scaled, &Rect::of_size(16, 16)).unwrap();
        for (x, y) in [(0, 0), (7, 9), (14, 14)] {
            assert_eq!(pixel(&canvas, 16, x, y), half);
        }
    }

    #[test]
    fn global_alpha_is_applied_once() {
        let mut faint = plain([0, 0, 8, 8], RED);
        faint.get_mut().unwrap().set_global_alpha(0.5);
        let canvas = drawn(&frame_with(&[faint]), &FRAME, &Rect::of_size(8, 8)).unwrap();
        let [blue, green, red, alpha] = pixel(&canvas, 8, 3, 3);
        assert_eq!((blue, green), (0, 0));
        assert!(
            red.abs_diff(127) <= 1 && alpha.abs_diff(127) <= 1,
            "{red} {alpha}"
        );
    }

    #[test]
    fn nothing_is_blended_beyond_the_picture() {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(VideoFormat::Bgrx, 16, 16);
        let frame = frame_with(&[plain([-4, -4, 72, 8], RED), plain([60, 40, 8, 16], BLUE)]);
        // The frame's middle, in the middle of a small screen.
        let small = placement([24, 0, 8, 8], [4, 4, 8, 8]);
        let blended = placed(&frame, &small);
        let info = info.build().unwrap();
        let mut screen = gst::Buffer::from_mut_slice(vec![9u8; info.size()]);
        let mut target =
            VideoFrameRef::from_buffer_ref_writable(screen.get_mut().unwrap(), &info).unwrap();
        blended.blend(&mut target).unwrap();
        drop(target);
        let is_red = |x, y| pixel(&screen, 16, x, y)[..3] == RED[..3];
        for y in 0..16 {
            for x in 0..16 {
                let is_inside = (4..12).contains(&x) && (4..8).contains(&y);
                assert_eq!(is_red(x, y), is_inside, "{x} {y}");
            }
        }
    }

    #[test]
    fn frames_with_the_meta_are_taken_beside_those_without() {
        gst::init().unwrap();
        let both: gst::Caps = "video/x-raw,format=BGRx; \
            video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=XR24"
            .parse()
            .unwrap();
        let all = also_with_meta(&both);
        assert!(both.is_subset(&all) && all.size() == 4);
        for wanted in [
            "video/x-raw(memory:SystemMemory,meta:GstVideoOverlayComposition),format=BGRx",
            "video/x-raw(memory:DMABuf,meta:GstVideoOverlayComposition),format=DMA_DRM,drm-format=XR24",
        ] {
            let wanted: gst::Caps = wanted.parse().unwrap();
            assert!(all.can_intersect(&wanted), "{wanted}");
        }
    }
}
