// SPDX-License-Identifier: MPL-2.0
//! Showing the frames of one caps, each without a copy if possible. `plan` decides once how they are
//! placed, `offer` which memory upstream is offered, `overlay` where overlay compositions go, and `woven` makes frames of
//! single fields.

mod offer;
mod overlay;
mod plan;
mod woven;

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use gst_video::VideoOverlayComposition;

use self::overlay::{Overlaid, Overlays};
pub use self::plan::DisplayOptions;
use self::plan::{Plan, Scanout, choose, crop_of, fb_shape, picture, sized, stand_in, within};
use self::woven::Weaver;
use super::CAT;
use super::claimed_plane::Frame;
use super::copies::{Copies, Offered};
use super::error::{Gone, KmsError, NotPresented};
use super::frame_caps::FrameCaps;
use super::framebuffer::Framebuffer;
use super::head::{Head, is_about_us};
use super::import::{self, Imported, Imports, NotImportable};
use super::layer::Overlay;
use super::mode::{FrameNeed, ModeRequest};
use crate::display::area::{Picture, Placement, Rect, Target};
use crate::display::frame_log::{FrameLog, POOL_REMEDY, Way};
use crate::display::presentation::Timing;
use crate::foreign;
use crate::locks::Mutex;
use crate::sys;

/// See the module's documentation.
#[derive(Debug)]
pub struct Stream {
    head: Arc<Head>,
    caps: FrameCaps,
    /// The fourcc by which the plane shows the frames.
    fourcc: u32,
    plan: Plan,
    imports: Arc<Imports>,
    /// Takes the place of a frame in TEST_ONLY commits, and is never shown.
    stand_in: Framebuffer,
    /// Used by the streaming thread, and by the thread that stops the sink, which takes the last frame off
    /// the screen.
    copies: Mutex<CopySets>,
    /// Used by the thread that shows frames, one at a time.
    overlays: Mutex<Overlays>,
    /// Used by the same thread, and when a flush or a drain takes back the fields.
    weaver: Mutex<Weaver>,
    context: Mutex<Context>,
}

#[derive(Debug, Default)]
struct CopySets {
    /// Of the frames' size.
    plain: Option<Copies>,
    /// Of the screen's size.
    composed: Option<Copies>,
}

#[derive(Debug)]
struct Context {
    offered: Offered,
    /// How the last frame was shown: the driver is asked again only if picture or target differ.
    placed: (Picture, Target, Scanout),
}

/// When a frame is to be shown, and whether it was shown before.
#[derive(Debug, Clone, Copy, Default)]
pub struct Showing {
    pub timing: Timing,
    /// For a frame that was shown before; see [`Frame::repeats`].
    pub repeats: Option<u64>,
}

impl From<Timing> for Showing {
    fn from(timing: Timing) -> Self {
        Self {
            timing,
            repeats: None,
        }
    }
}

impl Stream {
    /// Finds out how to show frames of `caps`. The first frame's commit sets the mode. `is_turned` says whether
    /// the plane's rotation makes columns of rows.
    pub fn new(
        head: &Arc<Head>,
        imports: &Arc<Imports>,
        caps: &FrameCaps,
        request: (ModeRequest, &str),
        options: &DisplayOptions,
        is_turned: bool,
    ) -> Result<Self, KmsError> {
        let info = &caps.info;
        let fourcc = head.own_plane().and_then(|plane| caps.fourcc_on(plane));
        let fourcc = fourcc.ok_or_else(|| head.shows_not(caps))?;
        let need = FrameNeed {
            width: info.width(),
            height: info.height(),
            // A display whose refresh rate varies follows the frames in any mode.
            rate_mhz: rate_mhz(info).filter(|_| !head.has_variable_refresh()),
        };
        let (plan, stand_in) = loop {
            let candidates = head.candidates(request.0, request.1, need)?;
            let (plan, setup, stand_in) =
                Plan::find(head, caps, fourcc, options, is_turned, &candidates)?;
            if head.set_up(&setup, request.0, need) {
                break (plan, stand_in);
            }
        };
        let whole = picture(info, None, is_turned);
        Ok(Self {
            head: head.clone(),
            caps: caps.clone(),
            fourcc,
            plan,
            imports: imports.clone(),
            stand_in,
            copies: Mutex::default(),
            overlays: Mutex::default(),
            weaver: Mutex::new(Weaver::new(
                caps.fields.as_ref().and_then(|fields| fields.begins_with),
            )),
            context: Mutex::new(Context {
                offered: Offered::default(),
                placed: (
                    whole,
                    options.target(plan.screen, plan.pixel_aspect),
                    plan.choice,
                ),
            }),
        })
    }

    pub fn caps(&self) -> &FrameCaps {
        &self.caps
    }

    /// What takes the place of the next frame in TEST_ONLY commits, and where it goes on the screen. `None` if frames are
    /// copied into a buffer of the screen's size.
    pub fn stand_in(&self) -> Option<(&Framebuffer, Placement)> {
        let (_, _, choice) = self.context.lock().placed;
        match choice {
            Scanout::Direct(placement) => Some((&self.stand_in, placement)),
            Scanout::Composed(_) | Scanout::Nowhere => None,
        }
    }

    /// Which part of the last frame's memory is on the screen and where, and what upstream calls 0,0 in that memory. `None`
    /// if nothing of it is visible.
    pub fn shown(&self) -> Option<(Placement, (i32, i32))> {
        let (picture, _, choice) = self.context.lock().placed;
        let placement = match choice {
            Scanout::Direct(placement) | Scanout::Composed(placement) => placement,
            Scanout::Nowhere => return None,
        };
        // An element that crops gives the size of the crop in the caps.
        let is_cropped = picture.crop.size() == (self.caps.info.width(), self.caps.info.height());
        let origin = match is_cropped {
            true => (picture.crop.x, picture.crop.y),
            false => (0, 0),
        };
        Some((placement, origin))
    }

    /// The error for a frame that could be shown neither directly nor as a copy.
    pub fn refused(&self, source: io::Error) -> KmsError {
        // A device that went away refuses everything, with various errors: say that it is gone.
        if let Err(error) = self.head.device.check_master()
            && error.raw_os_error() == Some(libc::ENODEV)
        {
            let gone = Gone::device(sys::describe(&error));
            return KmsError::gone(&self.head.device, gone);
        }
        KmsError::Refused {
            path: self.head.device.path.clone(),
            what: self.describe(),
            source,
        }
    }

    pub fn log(&self) -> &FrameLog {
        &self.head.log
    }

    /// What would make the copies of frames unnecessary.
    pub fn remedy_for_copies(&self) -> String {
        if self.log().is_way(Way::Woven) {
            "have what makes the fields give interlace-mode=interleaved, or put an element before the sink that deinterlaces".into()
        } else if self.log().is_way(Way::Composed) {
            "put videoscale before the sink, for frames of the screen's size".into()
        } else if self.head.device.can_import {
            format!("{POOL_REMEDY}, or where it has dma-bufs (v4l2src io-mode=dmabuf)")
        } else {
            POOL_REMEDY.into()
        }
    }

    /// A sentence for the log.
    pub fn describe(&self) -> String {
        let (width, height) = self.plan.screen;
        format!(
            "{}x{} {} on a screen of {width}x{height}, {}",
            self.caps.info.width(),
            self.caps.info.height(),
            self.caps.format_name(),
            match self.plan.choice {
                Scanout::Direct(placed) if placed.is_pixel_for_pixel(false) => "pixel for pixel",
                Scanout::Direct(_) => "scaled or turned by the plane",
                Scanout::Composed(_) => NEEDS_COMPOSING,
                Scanout::Nowhere => "outside of it",
            }
        )
    }

    /// Shows a frame, without a copy if possible. Waits while an earlier frame is pending.
    pub fn show(
        &self,
        buffer: &gst::Buffer,
        showing: Showing,
        options: &DisplayOptions,
    ) -> Result<(), NotPresented> {
        if self.caps.fields.is_some() {
            return self.show_field(buffer, showing, options);
        }
        let (choice, offered) = self.choose(buffer, options);
        let overlaid = self.overlaid(buffer, choice);
        let copied =
            |reason: &dyn Display| self.show_copy(buffer, choice, showing, &overlaid, reason);
        let placement = match choice {
            Scanout::Nowhere => return Ok(()),
            Scanout::Composed(_) => return copied(&NEEDS_COMPOSING),
            Scanout::Direct(placement) => placement,
        };
        if let Some(blend) = overlaid.blend() {
            return copied(&blend.reason);
        }
        let path = &self.head.device.path;
        if let Some(framebuffer) = offered {
            self.log().zero_copy(*CAT, Way::Offered, || {
                format!("upstream writes into dumb buffers of {path}")
            });
            let mut frame = frame(buffer, framebuffer, placement, showing, true);
            frame.overlay = overlaid.into();
            return self.head.present(frame, false);
        }
        let imported = match self.imports.framebuffer(buffer, &self.caps, self.fourcc) {
            Ok(imported) => imported,
            Err(error) => return copied(&error),
        };
        let Imported {
            framebuffer,
            is_untried,
        } = imported;
        let refused = |reason| copied(&NotImportable::Unshowable(reason));
        if is_untried
            && let Err(error) = self.head.test(&framebuffer, &placement, None)
            && !is_about_us(&error)
        {
            let reason = sys::describe(&error);
            framebuffer.judge(Err(&reason));
            return refused(reason);
        }
        let mut frame = frame(buffer, framebuffer, placement, showing, true);
        frame.is_foreign = crate::memory::region_of(buffer.peek_memory(0)).is_none();
        frame.fence = import::pending_write_fence(buffer).map(Arc::new);
        frame.overlay = overlaid.clone().into();
        // TEST_ONLY does not tell whether the memory can be pinned and mapped, so this waits for the first
        // real commit of it.
        match self.head.present(frame, is_untried) {
            Err(NotPresented::Refused(reason)) => refused(reason),
            Ok(()) => {
                self.log().zero_copy(*CAT, Way::Imported, || {
                    format!("{path} reads upstream's dma-bufs")
                });
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Where a frame goes on the screen, and the framebuffer of its memory if the sink offered that memory.
    /// Asks the driver only if picture or target differ from the last frame's.
    fn choose(
        &self,
        buffer: &gst::BufferRef,
        options: &DisplayOptions,
    ) -> (Scanout, Option<Arc<Framebuffer>>) {
        let crop = crop_of(&self.caps.info, buffer);
        let picture = picture(&self.caps.info, crop, self.plan.is_turned);
        let target = options.target(self.plan.screen, self.plan.pixel_aspect);
        let context = self.context.lock();
        let offered = context.offered.find(buffer, &self.caps.info);
        let (known, known_target, choice) = context.placed;
        drop(context);
        if (known, known_target) == (picture, target) {
            return (choice, offered);
        }
        let size = (self.caps.info.width(), self.caps.info.height());
        let choice = choose(&picture, &target, |placement| {
            let placement = within(placement, size);
            self.head.test(&self.stand_in, &placement, None).is_ok()
        });
        gst::debug!(CAT, "{picture:?} on {target:?}: {choice:?}");
        self.context.lock().placed = (picture, target, choice);
        (choice, offered)
    }

    fn show_copy(
        &self,
        buffer: &gst::Buffer,
        choice: Scanout,
        showing: Showing,
        overlaid: &Overlaid,
        reason: &dyn Display,
    ) -> Result<(), NotPresented> {
        let blend = overlaid.blend().map(|blend| &blend.composition);
        let (copy, framebuffer, placement) = self.copy(buffer, choice, blend).map_err(|error| {
            NotPresented::Refused(format!("{error}; a copy is needed: {reason}"))
        })?;
        match (choice, blend) {
            (Scanout::Composed(_), _) => self.log().copy(*CAT, Way::Composed, NEEDS_COMPOSING),
            (_, Some(_)) => {
                let why = format!("an overlay is blended into the frame; {reason}");
                self.log().copy(*CAT, Way::Blended, &why);
            }
            _ => self.log().copy_foreign(*CAT, buffer, Some(reason)),
        }
        let mut frame = frame(&copy, framebuffer, placement, showing, false);
        frame.overlay = overlaid.clone().into();
        self.head.present(frame, false)
    }

    /// Copies the part of the frame that is shown, and blends `overlay` into the copy. Returns the copy, its
    /// framebuffer, and the placement to show it with.
    fn copy(
        &self,
        buffer: &gst::Buffer,
        choice: Scanout,
        overlay: Option<&VideoOverlayComposition>,
    ) -> Result<(gst::Buffer, Arc<Framebuffer>, Placement), String> {
        if !self.caps.is_plain() {
            let name = self.caps.format_name();
            return Err(format!("memory of {name} cannot be copied here"));
        }
        let info = &self.caps.info;
        let source = foreign::map(info, buffer)
            .map_err(|error| format!("the frame cannot be read: {error}"))?;
        let mut sets = self.copies.lock();
        let (screen_width, screen_height) = self.plan.screen;
        let (set, size, src, at, placement) = match choice {
            Scanout::Direct(placed) => {
                let size = (info.width(), info.height());
                let copy = within(&placed, size);
                (
                    &mut sets.plain,
                    size,
                    placed.src,
                    (copy.src.x, copy.src.y),
                    copy,
                )
            }
            Scanout::Composed(_) if !self.caps.can_be_composed() => {
                let name = self.caps.format_name();
                return Err(format!("pixels of {name} cannot be moved to other places"));
            }
            Scanout::Composed(placed) => {
                let whole = Rect::of_size(screen_width, screen_height);
                let placement = Placement {
                    src: whole,
                    dst: whole,
                };
                let Rect { x, y, .. } = composed_at(&placed);
                (
                    &mut sets.composed,
                    self.plan.screen,
                    placed.src,
                    (x, y),
                    placement,
                )
            }
            Scanout::Nowhere => return Err("nothing of the frame is visible".into()),
        };
        if set.is_none() {
            let info = sized(&self.caps.info, size.0, size.1).ok_or("no such frame")?;
            *set = Some(
                self.make_copies(&info, self.fourcc)
                    .map_err(|error| format!("no memory for copies: {error}"))?,
            );
        }
        let Some(copies) = set.as_mut() else {
            return Err("no memory for copies".into());
        };
        let (copy, framebuffer) = copies.copy(&source, &src, at, overlay)?;
        source
            .check()
            .map_err(|error| format!("the frame cannot be read: {error}"))?;
        Ok((copy, framebuffer, placement))
    }

    /// Buffers for copies of frames of `info`, which the plane shows by `fourcc`.
    fn make_copies(&self, info: &gst_video::VideoInfo, fourcc: u32) -> Result<Copies, String> {
        let (layout, framebuffer) =
            stand_in(&self.head, info, fourcc).map_err(|error| error.to_string())?;
        drop(framebuffer);
        let shape = fb_shape(info, fourcc, &layout);
        Copies::new(&self.head.device, info, &layout, &shape).map_err(|error| sys::describe(&error))
    }

    /// If the screen shows memory of upstream's, or will when it comes back, shows a copy instead, so that upstream gets
    /// its memory back. Waits for the screen at most `time` before and after that.
    pub fn release_foreign(&self, time: std::time::Duration) {
        self.forget_field();
        self.head.wait_idle(time);
        let is_foreign = |frame: &&Frame| frame.is_foreign;
        let foreign = self.head.with_latest(|latest| {
            latest
                .filter(is_foreign)
                .map(|frame| (frame.buffer.clone(), frame.placement, frame.overlay.clone()))
        });
        let Some((buffer, placement, overlay)) = foreign.flatten() else {
            return;
        };
        match self.copy(&buffer, Scanout::Direct(placement), None) {
            Ok((copy, framebuffer, placement)) => {
                drop(buffer);
                let mut still = frame(&copy, framebuffer, placement, Showing::default(), false);
                still.is_counted = false;
                still.overlay = overlay;
                let visible = self.head.replace_unseen(still);
                if let Some(still) = visible
                    && self.head.present(still, false).is_ok()
                {
                    self.head.wait_idle(time);
                }
            }
            Err(error) => {
                gst::warning!(CAT, "keeping upstream's last frame on the screen: {error}")
            }
        }
    }
}

const NEEDS_COMPOSING: &str = "the plane can neither scale nor be moved, so each frame is copied into a buffer of the screen's size";

/// Where a frame is copied to in a buffer of the screen's size: subsampled formats can only be placed at even
/// coordinates.
fn composed_at(placed: &Placement) -> Rect {
    let Rect { x, y, .. } = placed.dst;
    Rect {
        x: x & !1,
        y: y & !1,
        ..placed.dst
    }
}

fn rate_mhz(info: &gst_video::VideoInfo) -> Option<u32> {
    let (numerator, denominator) = (info.fps().numer(), info.fps().denom());
    let rate = (i64::from(numerator) * 1000).checked_div(i64::from(denominator))?;
    u32::try_from(rate).ok().filter(|&rate| rate > 0)
}

fn frame(
    buffer: &gst::Buffer,
    framebuffer: Arc<Framebuffer>,
    placement: Placement,
    showing: Showing,
    is_zero_copy: bool,
) -> Frame {
    Frame {
        framebuffer,
        placement,
        overlay: Overlay::Absent,
        fence: None,
        buffer: buffer.clone(),
        timing: showing.timing,
        submitted_ns: 0,
        is_zero_copy,
        is_foreign: false,
        is_counted: showing.repeats.is_none(),
        repeats: showing.repeats,
        serial: 0,
    }
}
