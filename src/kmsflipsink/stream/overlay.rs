// SPDX-License-Identifier: MPL-2.0
//! Where the overlay compositions of frames go: onto a plane above that of the frames, or into a copy of each frame.

use std::sync::Arc;

use gst_video::{VideoFrameRef, VideoOverlayComposition};

use super::plan::Scanout;
use super::{NEEDS_COMPOSING, Stream, composed_at};
use crate::display::area::{Placement, Rect};
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::composition::{self, Look};
use crate::kmsflipsink::copies::Copies;
use crate::kmsflipsink::layer::{Layer, Overlay};

/// How the overlay compositions of a frame are to be shown.
#[derive(Debug, Clone)]
pub(super) enum Overlaid {
    /// The frame has none, or nothing of them is visible.
    Absent,
    Above(Layer),
    Blend(Blend),
}

#[derive(Debug, Clone)]
pub(super) struct Blend {
    /// In the coordinates of the copy.
    pub(super) composition: VideoOverlayComposition,
    /// Why no plane shows it.
    pub(super) reason: Arc<str>,
}

impl Overlaid {
    pub(super) fn blend(&self) -> Option<&Blend> {
        match self {
            Self::Blend(blend) => Some(blend),
            _ => None,
        }
    }
}

impl From<Overlaid> for Overlay {
    fn from(overlaid: Overlaid) -> Self {
        match overlaid {
            Overlaid::Absent => Self::Absent,
            Overlaid::Above(layer) => Self::Above(layer),
            Overlaid::Blend(_) => Self::Blended,
        }
    }
}

/// What a stream remembers of the overlays of its frames.
#[derive(Debug, Default)]
pub(super) struct Overlays {
    /// Buffers for what a plane shows, of the largest size that was needed, and this size.
    buffers: Option<(Copies, (u32, u32))>,
    /// How the compositions of the last frame that had any look, and are shown.
    last: Option<(Look, Overlaid)>,
    /// Where the driver agreed to show frame and layer.
    tested: Option<(Placement, Placement)>,
    /// Why no plane is tried any more.
    given_up: Option<Arc<str>>,
}

impl Overlays {
    /// How a frame of the same look was shown.
    fn known(&self, look: &Look) -> Option<&Overlaid> {
        let (last, overlaid) = self.last.as_ref()?;
        (last == look).then_some(overlaid)
    }
}

impl Stream {
    /// The size in which textoverlay and the like are to draw; `None` if that is the frame's own: where the overlays
    /// are blended, they would have to be scaled down again.
    pub fn overlay_window(&self) -> Option<(u32, u32)> {
        match self.plan.choice {
            Scanout::Direct(placed) if self.head.may_show_layers() && !self.plan.is_turned => {
                Some(placed.dst.size())
            }
            _ => None,
        }
    }

    /// How the compositions of `buffer` are to be shown, whose frame is shown as `choice` says. They are drawn, and the
    /// driver is asked, only if they do not look as those of the last frame.
    pub(super) fn overlaid(&self, buffer: &gst::BufferRef, choice: Scanout) -> Overlaid {
        let (Scanout::Direct(placed) | Scanout::Composed(placed)) = choice else {
            return Overlaid::Absent;
        };
        let Some(look) = Look::of(buffer, &placed) else {
            return Overlaid::Absent;
        };
        let mut overlays = self.overlays.lock();
        match overlays.known(&look) {
            Some(Overlaid::Above(layer)) => match layer.framebuffer.verdict() {
                Some(Err(reason)) => {
                    let reason = format!("the driver refuses the plane for it: {reason}");
                    overlays.given_up = Some(reason.into());
                }
                _ if self.head.has_layer_plane() => return Overlaid::Above(layer.clone()),
                _ => {}
            },
            Some(known) => return known.clone(),
            None => {}
        }
        let overlaid = match look.bounds() {
            None => Overlaid::Absent,
            Some(bounds) => self.overlaid_anew(&mut overlays, buffer, choice, &bounds),
        };
        overlays.last = Some((look, overlaid.clone()));
        overlaid
    }

    fn overlaid_anew(
        &self,
        overlays: &mut Overlays,
        buffer: &gst::BufferRef,
        choice: Scanout,
        bounds: &Rect,
    ) -> Overlaid {
        let (target, reason) = match choice {
            Scanout::Nowhere => return Overlaid::Absent,
            Scanout::Composed(placed) => {
                let dst = composed_at(&placed);
                (Placement { dst, ..placed }, NEEDS_COMPOSING.into())
            }
            Scanout::Direct(placed) => match self.layer(overlays, buffer, &placed, bounds) {
                Ok(layer) => return Overlaid::Above(layer),
                Err(reason) => {
                    let whole = Rect::of_size(self.caps.info.width(), self.caps.info.height());
                    let copy = Placement {
                        src: whole,
                        dst: whole,
                    };
                    (copy, reason)
                }
            },
        };
        if !self.caps.is_plain() {
            gst::warning!(
                CAT,
                "an overlay composition is not shown: {reason}, and memory of {} cannot be copied here",
                self.caps.format_name()
            );
            return Overlaid::Absent;
        }
        Overlaid::Blend(Blend {
            composition: composition::placed(buffer, &target),
            reason,
        })
    }

    /// Draws the compositions of a frame at `placed` for a plane that shows them above it. The error says in words why
    /// there is none.
    fn layer(
        &self,
        overlays: &mut Overlays,
        buffer: &gst::BufferRef,
        placed: &Placement,
        bounds: &Rect,
    ) -> Result<Layer, Arc<str>> {
        if let Some(reason) = &overlays.given_up {
            return Err(reason.clone());
        }
        if !self.head.may_show_layers() {
            return Err("no overlay plane with alpha is free".into());
        }
        let layer = self.draw(overlays, buffer, placed, bounds)?;
        let (frame, places) = (&self.stand_in, (*placed, layer.placement));
        let is_claimed = self.head.has_layer_plane() && overlays.tested.is_some();
        match overlays.tested {
            Some(tested) if is_claimed && tested == places => return Ok(layer),
            Some(_) if is_claimed => self.head.test_layer(frame, placed, &layer)?,
            _ => self.head.claim_layer_plane(frame, placed, &layer)?,
        }
        overlays.tested = Some(places);
        Ok(layer)
    }

    fn draw(
        &self,
        overlays: &mut Overlays,
        buffer: &gst::BufferRef,
        placed: &Placement,
        bounds: &Rect,
    ) -> Result<Layer, String> {
        // In main memory, because reading a dumb buffer, which blending needs, is slow on many cards.
        let drawn = composition::drawn(buffer, placed, bounds).ok_or("it cannot be drawn")?;
        let (width, height) = bounds.size();
        let info_of = |(width, height)| {
            let info = gst_video::VideoInfo::builder(composition::FORMAT, width, height);
            info.build().map_err(|error| error.to_string())
        };
        let source = VideoFrameRef::from_buffer_ref_readable(&drawn, &info_of((width, height))?)
            .map_err(|error| error.to_string())?;
        let is_large = |(_, size): &(_, (u32, u32))| size.0 >= width && size.1 >= height;
        let (copies, _) = match overlays.buffers.take_if(|buffers| is_large(buffers)) {
            Some(buffers) => overlays.buffers.insert(buffers),
            None => {
                let had = overlays.buffers.take().map_or((0, 0), |(_, size)| size);
                let size = (had.0.max(width), had.1.max(height));
                let copies = self
                    .make_copies(&info_of(size)?, composition::FOURCC)
                    .map_err(|error| format!("no memory for it: {error}"))?;
                overlays.buffers.insert((copies, size))
            }
        };
        let src = Rect::of_size(width, height);
        let (buffer, framebuffer) = copies.copy(&source, &src, (0, 0), None)?;
        Ok(Layer {
            framebuffer,
            placement: Placement { src, dst: *bounds },
            _buffer: buffer,
        })
    }
}
