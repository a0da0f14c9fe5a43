// SPDX-License-Identifier: MPL-2.0
//! How frames of one caps can be shown: in which mode, where on the screen, and whether the plane can do
//! it without a copy. TEST_ONLY commits of a dumb buffer that stands in for a frame find that out.

use std::io;

use crate::display::area::{self, Fit, Picture, Placement, Rect, RenderRectangle, Target};
use crate::kmsflipsink::crtc::Setup;
use crate::kmsflipsink::dma_drm::LINEAR;
use crate::kmsflipsink::error::KmsError;
use crate::kmsflipsink::format;
use crate::kmsflipsink::frame_caps::FrameCaps;
use crate::kmsflipsink::framebuffer::{FbShape, Framebuffer};
use crate::kmsflipsink::head::{Candidate, Head};
use crate::kmsflipsink::offered_memory::OfferedMemory;
use crate::layout::Layout;

/// The settings about the way frames are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DisplayOptions {
    pub rectangle: RenderRectangle,
    pub keep_aspect: bool,
    /// The memory to offer upstream.
    pub offered: OfferedMemory,
}

impl DisplayOptions {
    pub(super) fn target(&self, screen: (u32, u32), pixel_aspect: (u32, u32)) -> Target {
        Target {
            screen,
            rectangle: self.rectangle,
            keep_aspect: self.keep_aspect,
            pixel_aspect,
        }
    }
}

/// How a picture gets onto the screen, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scanout {
    /// The plane reads the frame, or a copy of the frame's size.
    Direct(Placement),
    /// Each frame is copied into a buffer of the screen's size, which the plane reads.
    Composed(Placement),
    /// Nothing of the picture is visible.
    Nowhere,
}

/// What the driver agreed to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Width and height of the chosen mode.
    pub(super) screen: (u32, u32),
    /// Width to height of one of its pixels.
    pub(super) pixel_aspect: (u32, u32),
    /// The layout of frames in memory that the sink offers: that of a dumb buffer.
    pub(super) layout: Layout,
    /// How a frame is shown that is not cropped.
    pub(super) choice: Scanout,
    /// Whether the plane's rotation makes columns of rows.
    pub(super) is_turned: bool,
}

impl Plan {
    /// Tries modes and fits until the driver agrees, first without and then with copies into buffers of the
    /// screen's size. Returns the dumb buffer's framebuffer too.
    pub(super) fn find(
        head: &Head,
        caps: &FrameCaps,
        fourcc: u32,
        options: &DisplayOptions,
        is_turned: bool,
        candidates: &[Candidate],
    ) -> Result<(Self, Setup, Framebuffer), KmsError> {
        let (like, like_fourcc) = linear(head, caps, fourcc).ok_or_else(|| head.shows_not(caps))?;
        let info = &like;
        let (layout, stand_in_frame) = stand_in(head, info, like_fourcc)?;
        let whole = picture(info, None, is_turned);
        let mut last_error = io::Error::from_raw_os_error(libc::EINVAL);
        let target_in = |setup: &Setup| {
            let line = &setup.mode.line;
            let screen = (line.width, line.height);
            options.target(screen, head.pixel_aspect(screen))
        };
        let planned = |target: &Target, choice| Self {
            screen: target.screen,
            pixel_aspect: target.pixel_aspect,
            layout,
            choice,
            is_turned,
        };
        for setup in candidates
            .iter()
            .filter_map(|candidate| head.setup_of(candidate))
        {
            let target = target_in(&setup);
            let choice = choose(&whole, &target, |placement| {
                head.test(&stand_in_frame, placement, Some(&setup))
                    .map_err(|error| last_error = error)
                    .is_ok()
            });
            if matches!(choice, Scanout::Direct(_)) {
                return Ok((planned(&target, choice), setup, stand_in_frame));
            }
        }
        for setup in candidates
            .iter()
            .filter(|_| caps.can_be_composed())
            .filter_map(|candidate| head.setup_of(candidate))
        {
            let target = target_in(&setup);
            let (width, height) = target.screen;
            let Some(covering) = sized(info, width, height) else {
                continue;
            };
            let (_, framebuffer) = stand_in(head, &covering, fourcc)?;
            let screen = Rect::of_size(width, height);
            match head.test(
                &framebuffer,
                &Placement {
                    src: screen,
                    dst: screen,
                },
                Some(&setup),
            ) {
                Ok(()) => {
                    let choice = composed(&whole, &target);
                    return Ok((planned(&target, choice), setup, stand_in_frame));
                }
                Err(error) => last_error = error,
            }
        }
        Err(KmsError::Refused {
            path: head.device.path.clone(),
            what: format!(
                "{}x{} {} on plane {} of {} in {}",
                info.width(),
                info.height(),
                caps.format_name(),
                head.route.kms_plane,
                head.shown_on(),
                mode_names(candidates)
            ),
            source: last_error,
        })
    }
}

fn mode_names(candidates: &[Candidate]) -> String {
    let mut names: Vec<_> = candidates
        .iter()
        .map(|candidate| {
            let line = candidate.mode.line;
            match candidate.is_custom {
                true => format!("the mode {line} of the property mode"),
                false => line.to_string(),
            }
        })
        .collect();
    names.dedup();
    names.join(" or ")
}

/// The first fit that the driver takes: scaled, or in the frame's own size; else composed.
pub(super) fn choose(
    picture: &Picture,
    target: &Target,
    mut is_taken: impl FnMut(&Placement) -> bool,
) -> Scanout {
    let mut tried = None;
    for fit in [Fit::Scaled, Fit::Centred] {
        let placed = area::place(picture, target, fit);
        if placed.is_some() && placed != tried && placed.as_ref().is_some_and(&mut is_taken) {
            return placed.map_or(Scanout::Nowhere, Scanout::Direct);
        }
        tried = placed;
    }
    composed(picture, target)
}

fn composed(picture: &Picture, target: &Target) -> Scanout {
    area::place(picture, target, Fit::Centred).map_or(Scanout::Nowhere, Scanout::Composed)
}

/// The part of a frame of `info` that is shown: all of it, or `crop`.
pub(super) fn picture(info: &gst_video::VideoInfo, crop: Option<Rect>, is_turned: bool) -> Picture {
    let whole = Rect::of_size(info.width(), info.height());
    let crop = crop.unwrap_or(whole);
    let pixel_aspect = (
        info.par().numer().max(1) as u32,
        info.par().denom().max(1) as u32,
    );
    Picture {
        crop,
        pixel_aspect,
        is_turned,
    }
}

/// What the GstVideoCropMeta of a frame names, if it has one. An element that crops gives the size of the crop in the
/// caps, and that of the frame in the GstVideoMeta.
pub(super) fn crop_of(info: &gst_video::VideoInfo, buffer: &gst::BufferRef) -> Option<Rect> {
    let (x, y, width, height) = buffer.meta::<gst_video::VideoCropMeta>()?.rect();
    let meta = buffer.meta::<gst_video::VideoMeta>();
    let (frame_width, frame_height) = meta.map_or((info.width(), info.height()), |meta| {
        (meta.width(), meta.height())
    });
    let (x, y) = (x.min(frame_width), y.min(frame_height));
    let (width, height) = (width.min(frame_width - x), height.min(frame_height - y));
    Some(Rect::new(x as i32, y as i32, width, height))
}

/// The same placement of a frame of `size` that has the part to show at its place or, if it is too small for that, in
/// its upper left corner.
pub(super) fn within(placement: &Placement, size: (u32, u32)) -> Placement {
    let frame = Rect::of_size(size.0, size.1);
    let mut placed = *placement;
    if frame.intersection(&placed.src) != Some(placed.src) {
        let (width, height) = placed.src.size();
        placed.src = Rect::of_size(width.min(size.0), height.min(size.1));
    }
    placed
}

/// The shape of the framebuffer of a frame that lies in one memory.
pub(super) fn fb_shape(info: &gst_video::VideoInfo, fourcc: u32, layout: &Layout) -> FbShape {
    FbShape {
        width: info.width(),
        height: info.height(),
        fourcc,
        modifier: None,
        n_planes: info.n_planes() as usize,
        // `Layout::with_first_stride` made sure that strides and offsets fit 32 bits.
        pitches: layout.planes.map(|plane| plane.stride_bytes as u32),
        offsets: layout.planes.map(|plane| plane.offset_bytes as u32),
    }
}

/// The same format in another size.
pub(super) fn sized(
    info: &gst_video::VideoInfo,
    width: u32,
    height: u32,
) -> Option<gst_video::VideoInfo> {
    gst_video::VideoInfo::builder(info.format(), width, height)
        .build()
        .ok()
}

/// Frames of the size of `caps` that a dumb buffer can stand in for, and their fourcc: of the same format if its samples
/// lie as GStreamer's format says, else of one that the plane shows in that way.
fn linear(head: &Head, caps: &FrameCaps, fourcc: u32) -> Option<(gst_video::VideoInfo, u32)> {
    if caps.is_plain() {
        return Some((caps.info.clone(), fourcc));
    }
    let plane = head.own_plane()?;
    let own = format::format_of(fourcc).filter(|_| plane.shows(fourcc, LINEAR));
    let others = format::supported(|other| plane.shows(other, LINEAR));
    let format = own.or(others.first().copied())?;
    let fourcc = format::fourccs_of(format).find(|&other| plane.shows(other, LINEAR))?;
    let info = &caps.info;
    let builder = gst_video::VideoInfo::builder(format, info.width(), info.height());
    Some((builder.par(info.par()).build().ok()?, fourcc))
}

/// The framebuffer of a dumb buffer that is large enough for a frame of `info`, and the layout that the
/// driver's pitch implies.
pub(super) fn stand_in(
    head: &Head,
    info: &gst_video::VideoInfo,
    fourcc: u32,
) -> Result<(Layout, Framebuffer), KmsError> {
    let shape = format::dumb_shape(info);
    let dumb = head
        .device
        .create_dumb(shape.width, shape.height, shape.bits)
        .map_err(|source| head.failed("creating a dumb buffer", source))?;
    let refused = |source| KmsError::Refused {
        path: head.device.path.clone(),
        what: format!(
            "{}x{} {}",
            info.width(),
            info.height(),
            info.format().to_str()
        ),
        source,
    };
    let layout = Layout::with_first_stride(info, dumb.pitch())
        .map_err(|_| refused(io::Error::from_raw_os_error(libc::EOVERFLOW)))?;
    let framebuffer = dumb
        .framebuffer(&fb_shape(info, fourcc, &layout))
        .map_err(refused)?;
    Ok((layout, framebuffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(width: u32, height: u32) -> gst_video::VideoInfo {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Bgrx, width, height);
        info.build().unwrap()
    }

    fn cropped(frame: (u32, u32), crop: (u32, u32, u32, u32)) -> gst::Buffer {
        let info = info(frame.0, frame.1);
        let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
        let buffer_ref = buffer.get_mut().unwrap();
        let flags = gst_video::VideoFrameFlags::empty();
        gst_video::VideoMeta::add(buffer_ref, flags, info.format(), frame.0, frame.1).unwrap();
        gst_video::VideoCropMeta::add(buffer_ref, crop);
        buffer
    }

    #[test]
    fn a_crop_is_a_part_of_the_frame_that_the_meta_describes() {
        let small = info(100, 60);
        let crop = (10, 20, 100, 60);
        let of_videocrop = cropped((320, 240), crop);
        assert_eq!(
            crop_of(&small, &of_videocrop),
            Some(Rect::new(10, 20, 100, 60))
        );
        let same_size = cropped((100, 60), crop);
        assert_eq!(crop_of(&small, &same_size), Some(Rect::new(10, 20, 90, 40)));
        let plain = gst::Buffer::with_size(small.size()).unwrap();
        assert_eq!(crop_of(&small, &plain), None);
    }

    #[test]
    fn a_part_that_a_copy_has_no_room_for_goes_to_its_corner() {
        let placed = |x, y| Placement {
            src: Rect::new(x, y, 100, 60),
            dst: Rect::new(5, 5, 200, 120),
        };
        assert_eq!(within(&placed(220, 180), (320, 240)), placed(220, 180));
        assert_eq!(within(&placed(221, 180), (320, 240)), placed(0, 0));
        assert_eq!(within(&placed(10, 20), (100, 60)), placed(0, 0));
    }
}
