// SPDX-License-Identifier: MPL-2.0
//! Showing frames of one caps: how they are laid out and placed, decided once
//! with TEST_ONLY commits, and the way of each frame to the screen.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::card::{FbShape, Framebuffer};
use super::copies::{self, Copies, Offered};
use super::crtc::{Frame, ModeSet};
use super::format::{self, Layout};
use super::head::{Head, KmsError, NotPresented};
use super::import::{self, Imported, Imports, NotImportable};
use super::mode::{FrameNeed, ModeWish};
use super::placement::{self, Fit, Picture, Placement, Rect, Target};
use crate::memory::{MemoryKind, Region, Request};
use crate::pool::{FixedLayout, PhysBufferPool, Reuse, Slots};
use crate::sys::{self, kms};

/// What the user said about the way frames are shown; copied from the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// The part of the screen to use.
    pub rectangle: Option<Rect>,
    /// Whether scaling keeps proportions.
    pub keep_aspect: bool,
    /// Whether rows become columns.
    pub is_turned: bool,
    /// The memory to offer upstream; auto looks what can be shown.
    pub kind: MemoryKind,
}

/// How frames of one caps are shown.
#[derive(Debug)]
pub struct Session {
    head: Arc<Head>,
    info: gst_video::VideoInfo,
    modifier: Option<u64>,
    plan: Plan,
    imports: Arc<Imports>,
    offered: Offered,
    /// Shows nothing; TEST_ONLY commits are made with it.
    stand_in: Framebuffer,
    /// Used by the streaming thread alone, save when a stop takes the last frame
    /// off the screen.
    copies: Mutex<CopySets>,
    notes: Mutex<Notes>,
}

/// Buffers for copies of the frame's size, and of the screen's.
#[derive(Debug, Default)]
struct CopySets {
    plain: Option<Copies>,
    composed: Option<Copies>,
}

/// What was found out with the last frame.
#[derive(Debug)]
struct Notes {
    /// What it went through, and why.
    way: Way,
    /// Where the driver agreed to show it.
    placed: Option<(Picture, Target, Choice)>,
}

/// How a picture gets onto the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// By a plane that reads frames.
    Direct(Placement),
    /// By a copy into a buffer of the screen's size.
    Composed(Placement),
    /// Nothing of it is visible.
    Nowhere,
}

/// The way of a frame, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// No frame yet.
    None,
    /// The display reads the producer's memory.
    ZeroCopy(&'static str),
    /// One copy, because.
    Copy(String),
}

/// What the driver agreed to.
#[derive(Debug, Clone, Copy)]
struct Plan {
    screen: (u32, u32),
    /// Of the producer's frames in memory that we offer.
    layout: Layout,
    /// For a whole frame.
    choice: Choice,
}

/// A frame's time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// When it should be on the screen, CLOCK_MONOTONIC.
    pub due_ns: Option<u64>,
    /// Its running time.
    pub running_time: Option<gst::ClockTime>,
}

impl Session {
    /// Finds out how to show frames of `info`, and sets the mode for the first.
    pub fn new(
        head: &Arc<Head>,
        imports: &Arc<Imports>,
        info: &gst_video::VideoInfo,
        modifier: Option<u64>,
        wish: (ModeWish, &str),
        manner: &Manner,
    ) -> Result<Self, KmsError> {
        let need = FrameNeed {
            width: info.width(),
            height: info.height(),
            rate_mhz: rate_mhz(info),
        };
        let modes = head.candidates(wish.0, wish.1, need)?;
        let planned = plan(head, info, manner, &modes);
        if let Ok((_, mode, _)) = &planned {
            head.set_mode(*mode, wish.0, need);
        }
        head.discard(modes);
        let (plan, _, stand_in) = planned?;
        let session = Self {
            head: head.clone(),
            info: info.clone(),
            modifier,
            plan,
            imports: imports.clone(),
            offered: Offered::default(),
            stand_in,
            copies: Mutex::default(),
            notes: Mutex::new(Notes {
                way: Way::None,
                placed: None,
            }),
        };
        let whole = picture(info, None, manner);
        session.notes.lock().placed = Some((whole, session.target(manner), plan.choice));
        Ok(session)
    }

    /// What the frames are.
    pub fn format(&self) -> (gst_video::VideoInfo, Option<u64>) {
        (self.info.clone(), self.modifier)
    }

    /// The error for a frame that nothing could show.
    pub fn refused(&self, reason: String) -> KmsError {
        // A device that went away refuses everything, in many words.
        if let Err(error) = self.head.card.check_master()
            && error.raw_os_error() == Some(libc::ENODEV)
        {
            return self.gone(sys::describe(&error));
        }
        KmsError::Refused {
            path: self.head.card.path.clone(),
            what: self.describe(),
            source: io::Error::other(reason),
        }
    }

    /// The error for a card that is no more.
    pub fn gone(&self, reason: String) -> KmsError {
        KmsError::Gone {
            path: self.head.card.path.clone(),
            reason,
        }
    }

    /// What happened to the frames, in words.
    pub fn way(&self) -> Way {
        self.notes.lock().way.clone()
    }

    /// In words, for INFO.
    pub fn describe(&self) -> String {
        let (width, height) = self.plan.screen;
        format!(
            "{}x{} {} on a screen of {width}x{height}, {}",
            self.info.width(),
            self.info.height(),
            self.info.format().to_str(),
            match self.plan.choice {
                Choice::Direct(placed) if placed.is_pixel_for_pixel(false) => "pixel for pixel",
                Choice::Direct(_) => "scaled or turned by the plane",
                Choice::Composed(_) => NEEDS_COMPOSING,
                Choice::Nowhere => "outside of it",
            }
        )
    }

    fn target(&self, manner: &Manner) -> Target {
        Target {
            screen: self.plan.screen,
            rectangle: manner.rectangle,
            keep_aspect: manner.keep_aspect,
        }
    }

    fn picture(&self, buffer: &gst::BufferRef, manner: &Manner) -> Picture {
        picture(
            &self.info,
            buffer
                .meta::<gst_video::VideoCropMeta>()
                .map(|meta| meta.rect()),
            manner,
        )
    }

    /// Shows a frame: without a copy if possible, else with one.
    pub fn show(
        &self,
        buffer: &gst::Buffer,
        timing: Timing,
        manner: &Manner,
    ) -> Result<(), NotPresented> {
        let placement = match self.choose(buffer, manner) {
            Choice::Nowhere => return Ok(()),
            choice @ Choice::Composed(_) => {
                return self.show_copy(buffer, choice, timing, NEEDS_COMPOSING.into());
            }
            Choice::Direct(placement) => placement,
        };
        let copied = |reason| self.show_copy(buffer, Choice::Direct(placement), timing, reason);
        if let Some(framebuffer) = self.offered.find(buffer) {
            self.note(Way::ZeroCopy(
                "upstream writes into the card's own (dumb) buffers",
            ));
            return self
                .head
                .present(frame(buffer, framebuffer, placement, timing, true), false);
        }
        let imported = match self.imports.framebuffer(buffer, &self.info, self.modifier) {
            Ok(imported) => imported,
            Err(error) => return copied(error.to_string()),
        };
        let Imported {
            framebuffer,
            is_untried,
        } = imported;
        let refused = |reason| copied(NotImportable::Unshowable(reason).to_string());
        if is_untried
            && let Err(error) = self.head.test(&framebuffer, &placement, None)
            && !is_about_us(&error)
        {
            let reason = sys::describe(&error);
            framebuffer.judge(Err(&reason));
            return refused(reason);
        }
        let mut frame = frame(buffer, framebuffer, placement, timing, true);
        frame.is_foreign = crate::memory::region_of(buffer.peek_memory(0)).is_none();
        frame.fence = import::first_dma_buf(buffer).and_then(kms::pending_write_fence);
        // What TEST_ONLY does not tell: whether the memory can be pinned and mapped.
        match self.head.present(frame, is_untried) {
            Err(NotPresented::Refused(reason)) => refused(reason),
            Ok(()) => {
                self.note(Way::ZeroCopy("the display reads upstream's dma-bufs"));
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Where a frame goes; asks the driver when that is another place than the
    /// last frame's.
    fn choose(&self, buffer: &gst::BufferRef, manner: &Manner) -> Choice {
        let (picture, target) = (self.picture(buffer, manner), self.target(manner));
        if let Some((known, known_target, choice)) = self.notes.lock().placed
            && (known, known_target) == (picture, target)
        {
            return choice;
        }
        let choice = choose(&picture, &target, |placement| {
            self.head.test(&self.stand_in, placement, None).is_ok()
        });
        gst::debug!(super::CAT, "{picture:?} on {target:?}: {choice:?}");
        self.notes.lock().placed = Some((picture, target, choice));
        choice
    }

    fn show_copy(
        &self,
        buffer: &gst::Buffer,
        choice: Choice,
        timing: Timing,
        reason: String,
    ) -> Result<(), NotPresented> {
        let (copy, framebuffer, placement) = self.copy(buffer, choice).map_err(|error| {
            NotPresented::Refused(format!("{error}; a copy is needed: {reason}"))
        })?;
        gst::info!(gst::CAT_PERFORMANCE, "frame copy: {reason}");
        self.note(Way::Copy(reason));
        self.head
            .present(frame(&copy, framebuffer, placement, timing, false), false)
    }

    /// A copy of the part that is shown, and where the plane will find it.
    fn copy(
        &self,
        buffer: &gst::Buffer,
        choice: Choice,
    ) -> Result<(gst::Buffer, Arc<Framebuffer>, Placement), String> {
        if import::is_tiled(self.modifier) {
            return Err("tiled memory cannot be copied here".into());
        }
        let source = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.info)
            .map_err(|_| "the frame's memory cannot be mapped for reading".to_owned())?;
        let mut sets = self.copies.lock();
        let (screen_width, screen_height) = self.plan.screen;
        let (set, size, src, at, placement) = match choice {
            Choice::Direct(placed) => {
                let size = (self.info.width(), self.info.height());
                (
                    &mut sets.plain,
                    size,
                    placed.src,
                    (placed.src.x, placed.src.y),
                    placed,
                )
            }
            Choice::Composed(placed) => {
                let whole = Rect::of_size(screen_width, screen_height);
                let placement = Placement {
                    src: whole,
                    dst: whole,
                };
                // Even places, for subsampled formats.
                let at = (placed.dst.x & !1, placed.dst.y & !1);
                (
                    &mut sets.composed,
                    self.plan.screen,
                    placed.src,
                    at,
                    placement,
                )
            }
            Choice::Nowhere => return Err("nothing of the frame is visible".into()),
        };
        if set.is_none() {
            *set = Some(
                self.make_copies(size)
                    .map_err(|error| format!("no memory for copies: {error}"))?,
            );
        }
        let Some(copies) = set.as_mut() else {
            return Err("no memory for copies".into());
        };
        let (copy, framebuffer) = copies.copy(&source, &src, at)?;
        Ok((copy, framebuffer, placement))
    }

    fn make_copies(&self, (width, height): (u32, u32)) -> Result<Copies, String> {
        let info = sized(&self.info, width, height).ok_or("no such frame")?;
        let (layout, framebuffer) =
            stand_in(&self.head, &info).map_err(|error| error.to_string())?;
        drop(framebuffer);
        Copies::new(
            &self.head.card,
            &info,
            &layout,
            &fb_shape(&info, &layout, None),
        )
        .map_err(|error| sys::describe(&error))
    }

    fn note(&self, way: Way) {
        let mut notes = self.notes.lock();
        if notes.way == way {
            return;
        }
        notes.way = way.clone();
        drop(notes);
        match way {
            Way::None => {}
            Way::ZeroCopy(how) => gst::info!(super::CAT, "zero-copy: {how}"),
            Way::Copy(why) => gst::warning!(super::CAT, "copying each frame once: {why}"),
        }
    }

    /// Takes frames that belong to others off the screen, leaving the picture.
    pub fn release_foreign(&self, time: std::time::Duration) {
        self.head.wait_idle(time);
        let is_foreign = |frame: &&Frame| frame.is_foreign;
        let foreign = self.head.with_latest(|latest| {
            latest
                .filter(is_foreign)
                .map(|frame| (frame.buffer.clone(), frame.placement))
        });
        let Some((buffer, placement)) = foreign else {
            return;
        };
        match self.copy(&buffer, Choice::Direct(placement)) {
            Ok((copy, framebuffer, placement)) => {
                drop(buffer);
                let mut still = frame(&copy, framebuffer, placement, Timing::default(), false);
                still.is_counted = false;
                if self.head.present(still, false).is_ok() {
                    self.head.wait_idle(time);
                }
            }
            Err(error) => gst::warning!(
                super::CAT,
                "keeping upstream's last frame on the screen: {error}"
            ),
        }
    }

    /// The pool to offer upstream, with how many buffers the sink itself holds.
    pub fn pool(&self, manner: &Manner) -> Result<Proposal, String> {
        if self.modifier.is_some() {
            return Err("DMA_DRM caps mean that upstream has memory of its own".into());
        }
        if matches!(self.plan.choice, Choice::Composed(_)) {
            return Err("frames are copied anyway".into());
        }
        let kinds: &[MemoryKind] = match manner.kind {
            MemoryKind::Auto => &[MemoryKind::Cma, MemoryKind::Udmabuf, MemoryKind::External],
            ref kind => std::slice::from_ref(kind),
        };
        let mut refusals = Vec::new();
        for &kind in kinds {
            let offered = if kind == MemoryKind::External {
                self.dumb_pool()
            } else {
                self.heap_pool(kind)
            };
            match offered {
                Ok(pool) => {
                    let why = if refusals.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", refusals.join("; "))
                    };
                    gst::info!(super::CAT, "offering {}{why}", kind_name(kind));
                    return Ok(Proposal {
                        pool,
                        size_bytes: self.plan.layout.size_bytes as u32,
                        min: MIN_BUFFERS,
                        max: if kind == MemoryKind::External || !self.is_packed() {
                            N_OFFERED
                        } else {
                            0
                        },
                        allocator: (kind != MemoryKind::External && self.is_packed())
                            .then_some(kind),
                    });
                }
                Err(error) => refusals.push(format!("no {}: {error}", kind_name(kind))),
            }
        }
        Err(refusals.join("; "))
    }

    /// Whether the driver's layout is the one that caps imply.
    fn is_packed(&self) -> bool {
        (0..self.info.n_planes() as usize).all(|plane| {
            self.info.stride()[plane] as u32 == self.plan.layout.strides[plane]
                && self.info.offset()[plane] == self.plan.layout.offsets[plane] as usize
        })
    }

    /// A pool of heap memory, once a piece of it has been imported and tested.
    fn heap_pool(&self, kind: MemoryKind) -> Result<PhysBufferPool, String> {
        if !self.head.card.can_import {
            return Err("the driver imports no dma-bufs".into());
        }
        let request = Request {
            kind,
            size_bytes: self.plan.layout.size_bytes,
            needs_dma_buf: true,
            ..Request::default()
        };
        let first = Region::allocate(&request).map_err(|error| error.to_string())?;
        self.try_region(&first)?;
        if self.is_packed() {
            drop(first);
            return Ok(PhysBufferPool::builder()
                .kind(kind)
                .require_dma_buf(true)
                .build());
        }
        let mut regions = vec![first];
        while regions.len() < N_OFFERED as usize {
            regions.push(Region::allocate(&request).map_err(|error| error.to_string())?);
        }
        Ok(PhysBufferPool::over(
            &Slots::new(regions, Reuse::LeastRecent),
            Some(fixed(&self.plan.layout)),
        ))
    }

    fn try_region(&self, region: &Region) -> Result<(), String> {
        let fd = region.dma_buf().ok_or("it has no dma-buf")?;
        let shape = fb_shape(&self.info, &self.plan.layout, None);
        let fds = vec![fd; shape.n_planes];
        let framebuffer = self
            .head
            .card
            .import(&shape, &fds)
            .map_err(|error| format!("import: {}", sys::describe(&error)))?;
        match self.plan.choice {
            Choice::Direct(placement) => match self.head.test(&framebuffer, &placement, None) {
                Err(error) if !is_about_us(&error) => {
                    Err(format!("showing it: {}", sys::describe(&error)))
                }
                _ => Ok(()),
            },
            Choice::Composed(_) | Choice::Nowhere => Ok(()),
        }
    }

    fn dumb_pool(&self) -> Result<PhysBufferPool, String> {
        let shape = fb_shape(&self.info, &self.plan.layout, None);
        let dumb_shape = format::dumb_shape(&self.info);
        let mut regions = Vec::new();
        for _ in 0..N_OFFERED {
            let shown = copies::allocate(&self.head.card, &dumb_shape, &shape, true)
                .map_err(|error| sys::describe(&error))?;
            self.offered.add(&shown);
            regions.push(shown.region);
        }
        Ok(PhysBufferPool::over(
            &Slots::new(regions, Reuse::LeastRecent),
            Some(fixed(&self.plan.layout)),
        ))
    }
}

/// What upstream is offered.
#[derive(Debug)]
pub struct Proposal {
    /// The pool.
    pub pool: PhysBufferPool,
    /// Bytes in a buffer.
    pub size_bytes: u32,
    /// Buffers that the sink holds, and one to fill.
    pub min: u32,
    /// Most there can be; 0 for any number.
    pub max: u32,
    /// The kind whose allocator may be used without the pool.
    pub allocator: Option<MemoryKind>,
}

const NEEDS_COMPOSING: &str = "the plane can neither scale nor be moved, so each frame is copied into a buffer of the screen's size";

/// Pending, queued and current, and one that upstream fills.
const MIN_BUFFERS: u32 = 4;
/// Buffers in a pool that cannot grow.
const N_OFFERED: u32 = 8;

fn kind_name(kind: MemoryKind) -> &'static str {
    match kind {
        MemoryKind::External => "dumb buffers",
        MemoryKind::Cma => "CMA memory",
        MemoryKind::Udmabuf => "udmabufs",
        _ => "memory of this kind",
    }
}

/// Errors that say nothing about the frame: the card belongs to another program
/// just now, or is gone.
fn is_about_us(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::ENODEV | libc::EBUSY)
    )
}

fn rate_mhz(info: &gst_video::VideoInfo) -> Option<u32> {
    let (numerator, denominator) = (info.fps().numer(), info.fps().denom());
    let rate = (i64::from(numerator) * 1000).checked_div(i64::from(denominator))?;
    u32::try_from(rate).ok().filter(|&rate| rate > 0)
}

fn picture(
    info: &gst_video::VideoInfo,
    crop: Option<(u32, u32, u32, u32)>,
    manner: &Manner,
) -> Picture {
    let whole = Rect::of_size(info.width(), info.height());
    let crop = crop.map_or(whole, |(x, y, width, height)| {
        let (x, y) = (x.min(info.width()), y.min(info.height()));
        Rect {
            x: x as i32,
            y: y as i32,
            width: width.min(info.width() - x),
            height: height.min(info.height() - y),
        }
    });
    let pixel_aspect = (
        info.par().numer().max(1) as u32,
        info.par().denom().max(1) as u32,
    );
    Picture {
        crop,
        pixel_aspect,
        is_turned: manner.is_turned,
    }
}

/// The framebuffer of a frame in one piece of memory.
fn fb_shape(info: &gst_video::VideoInfo, layout: &Layout, modifier: Option<u64>) -> FbShape {
    FbShape {
        width: info.width(),
        height: info.height(),
        fourcc: format::fourcc_of(info.format()).map_or(0, |fourcc| fourcc as u32),
        modifier,
        n_planes: info.n_planes() as usize,
        pitches: layout.strides,
        offsets: layout.offsets,
    }
}

fn fixed(layout: &Layout) -> FixedLayout {
    FixedLayout {
        stride: layout.strides.map(|stride| stride as i32),
        offset: layout.offsets.map(|offset| offset as usize),
        size_bytes: layout.size_bytes,
    }
}

/// Tries modes and fits until the driver says yes. A dumb buffer stands in for
/// the frame.
fn plan(
    head: &Head,
    info: &gst_video::VideoInfo,
    manner: &Manner,
    modes: &[ModeSet],
) -> Result<(Plan, ModeSet, Framebuffer), KmsError> {
    let (layout, stand_in_frame) = stand_in(head, info)?;
    let whole = picture(info, None, manner);
    let mut last_error = io::Error::from_raw_os_error(libc::EINVAL);
    let target_in = |mode: &ModeSet| Target {
        screen: (mode.line.width, mode.line.height),
        rectangle: manner.rectangle,
        keep_aspect: manner.keep_aspect,
    };
    for mode in modes {
        let target = target_in(mode);
        let choice = choose(&whole, &target, |placement| {
            head.test(&stand_in_frame, placement, Some(mode))
                .map_err(|error| last_error = error)
                .is_ok()
        });
        if matches!(choice, Choice::Direct(_)) {
            return Ok((
                Plan {
                    screen: target.screen,
                    layout,
                    choice,
                },
                *mode,
                stand_in_frame,
            ));
        }
    }
    for mode in modes {
        let target = target_in(mode);
        let (width, height) = target.screen;
        let Some(covering) = sized(info, width, height) else {
            continue;
        };
        let (_, framebuffer) = stand_in(head, &covering)?;
        let screen = Rect::of_size(width, height);
        match head.test(
            &framebuffer,
            &Placement {
                src: screen,
                dst: screen,
            },
            Some(mode),
        ) {
            Ok(()) => {
                let choice = composed(&whole, &target);
                return Ok((
                    Plan {
                        screen: target.screen,
                        layout,
                        choice,
                    },
                    *mode,
                    stand_in_frame,
                ));
            }
            Err(error) => last_error = error,
        }
    }
    Err(KmsError::Refused {
        path: head.card.path.clone(),
        what: format!(
            "{}x{} {} on plane {} of {} in {}",
            info.width(),
            info.height(),
            info.format().to_str(),
            head.route.kms_plane,
            head.connector_name,
            modes
                .iter()
                .map(|mode| mode.line.to_string())
                .collect::<Vec<_>>()
                .join(" or ")
        ),
        source: last_error,
    })
}

/// The first fit that the driver takes.
fn choose(
    picture: &Picture,
    target: &Target,
    mut is_taken: impl FnMut(&Placement) -> bool,
) -> Choice {
    let mut tried = None;
    for fit in [Fit::Scaled, Fit::Centred] {
        let placed = placement::place(picture, target, fit);
        if placed.is_some() && placed != tried && placed.as_ref().is_some_and(&mut is_taken) {
            return placed.map_or(Choice::Nowhere, Choice::Direct);
        }
        tried = placed;
    }
    composed(picture, target)
}

fn composed(picture: &Picture, target: &Target) -> Choice {
    placement::place(picture, target, Fit::Composed).map_or(Choice::Nowhere, Choice::Composed)
}

fn frame(
    buffer: &gst::Buffer,
    framebuffer: Arc<Framebuffer>,
    placement: Placement,
    timing: Timing,
    is_zero_copy: bool,
) -> Frame {
    Frame {
        framebuffer,
        placement,
        fence: None,
        buffer: buffer.clone(),
        due_ns: timing.due_ns,
        running_time: timing.running_time,
        submitted_ns: 0,
        is_zero_copy,
        is_foreign: false,
        is_counted: true,
        serial: 0,
    }
}

fn sized(info: &gst_video::VideoInfo, width: u32, height: u32) -> Option<gst_video::VideoInfo> {
    gst_video::VideoInfo::builder(info.format(), width, height)
        .build()
        .ok()
}

/// A dumb buffer's framebuffer with the driver's own layout, to test with.
fn stand_in(head: &Head, info: &gst_video::VideoInfo) -> Result<(Layout, Framebuffer), KmsError> {
    let shape = format::dumb_shape(info);
    let dumb = head
        .card
        .create_dumb(shape.width, shape.height, shape.bits)
        .map_err(|source| head.failed("creating a dumb buffer", source))?;
    let refused = |source| KmsError::Refused {
        path: head.card.path.clone(),
        what: format!(
            "{}x{} {}",
            info.width(),
            info.height(),
            info.format().to_str()
        ),
        source,
    };
    let layout = format::layout(info, dumb.pitch())
        .ok_or_else(|| refused(io::Error::from_raw_os_error(libc::EOVERFLOW)))?;
    let framebuffer = dumb
        .framebuffer(&fb_shape(info, &layout, None))
        .map_err(refused)?;
    Ok((layout, framebuffer))
}
