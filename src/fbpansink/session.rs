// SPDX-License-Identifier: MPL-2.0
//! From start to stop: the screen, its fb_pages as a pool, and how each frame gets onto the screen.
use super::CAT;
use super::crop;
use super::deferred_io::Shadow;
use super::error::ScreenError;
use super::pages::{self, fb_pages};
use super::presenter::{Held, Presented, Presenter, Refusal};
use super::screen::{Options, Screen};
use super::stats::Counters;
use super::stream::{FramePlacement, Part, Stream, align_px};
use super::terminal::{Painted, Terminal};
use crate::display::area::Rect;
use crate::display::frame_log::{FrameLog, Way};
use crate::display::presentation::{Presentation, Timing};
use crate::foreign;
use crate::layout::{self, Layout};
use crate::locks::Mutex;
use crate::pool::{PhysBufferPool, PoolError, Reuse, Slots, Wait};
use crate::sys::vt_guard::VtSwitch;
use gst::prelude::*;
use gst_video::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a foreign frame waits for a free fb_page to be copied into. If upstream keeps all
/// of them and sends frames in other memory, the wait would never end.
const FREE_PAGE_LIMIT: Duration = Duration::from_secs(1);
/// How long the last frame may take to the screen. A pan is repeated for as long while another program has the display, and
/// on a busy machine the presenter may not get a processor for a while.
const DRAIN_LIMIT: Duration = super::mode::BUSY_LIMIT;

/// The opened device, the threads that use it, and the slots over its fb_pages.
pub struct Session {
    // Fields are dropped in this order. The threads end first, because they use the others.
    _terminal: Option<Terminal>,
    presenter: Arc<Presenter<Frame>>,
    screen: Arc<Screen>,
    slots: Slots,
    address: Result<String, String>,
    counters: Arc<Counters>,
    painted: Arc<Painted>,
    /// The picture on a screen with deferred I/O.
    shadow: Mutex<Shadow>,
}

/// A frame on its way to the screen. Dropping it gives its buffer back.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Keeps the fb_page out of the pool.
    buffer: gst::Buffer,
    timing: Timing,
    /// Whether upstream wrote into the fb_page.
    is_zero_copy: bool,
}

impl Session {
    /// Opens the device and starts the threads. They call `on_error` once if a pan fails,
    /// `on_terminal` each time the screen goes to another virtual terminal or comes back, and
    /// `on_shown` for each frame that a pan has shown.
    pub fn start(
        options: &Options,
        counters: Arc<Counters>,
        on_error: impl FnOnce(ScreenError) + Send + 'static,
        on_terminal: impl Fn(VtSwitch) + Send + 'static,
        on_shown: impl Fn(Presentation) + Send + 'static,
    ) -> Result<Self, ScreenError> {
        let screen = Arc::new(Screen::open(options)?);
        let (regions, address) = pages::regions(&screen);
        let slots = Slots::new(regions, Reuse::LeastRecent);
        let on_screen = match screen.visible_fb_page() {
            Some(page) if screen.fb_pages() > 1 => {
                let buffer = pages::take(&slots, page, screen.fb_page_bytes())?;
                let holder = Frame {
                    buffer,
                    timing: Timing::default(),
                    is_zero_copy: false,
                };
                let fb_page = page;
                Some(Held { fb_page, holder })
            }
            _ => None,
        };
        let is_vsync = screen.clock().is_synchronised();
        let period_ns = screen.refresh_period().as_nanos() as u64;
        let on_shown = move |frame: &Frame, shown_ns| {
            on_shown(Presentation {
                timing: frame.timing,
                shown_ns,
                period_ns,
                sequence: None,
                is_vsync,
                is_hw_clock: false,
                is_zero_copy: frame.is_zero_copy,
            });
        };
        let presenter = Presenter::new(
            screen.clone(),
            screen.clock(),
            screen.fb_pages(),
            on_screen,
            on_error,
            on_shown,
        )
        .map_err(ScreenError::Thread)?;
        let presenter = Arc::new(presenter);
        let painted = (0..screen.fb_pages()).map(|_| AtomicU64::new(0));
        let painted: Arc<Painted> = Arc::new(painted.collect());
        let terminal = Terminal::follow(&screen, &presenter, &painted, on_terminal);
        Ok(Self {
            _terminal: terminal.map_err(ScreenError::Thread)?,
            presenter,
            screen,
            slots,
            address,
            counters,
            painted,
            shadow: Mutex::default(),
        })
    }

    pub fn screen(&self) -> &Screen {
        &self.screen
    }

    /// The physical address of the framebuffer and its source, or why it is not known, as text.
    pub fn address(&self) -> Result<&str, &str> {
        self.address.as_deref().map_err(String::as_str)
    }

    /// The caps of frames that fit into `area`. The first structure has exactly its size.
    pub fn caps(&self, area: Rect) -> gst::Caps {
        let format = self.screen.format().to_str();
        let rate =
            gst::FractionRange::new(gst::Fraction::new(0, 1), gst::Fraction::new(i32::MAX, 1));
        let (width, height) = (area.width as i32, area.height as i32);
        let of_size = |width: gst::glib::SendValue, height: gst::glib::SendValue| {
            let mut structure = gst::Structure::new_empty("video/x-raw");
            structure.set("format", format);
            structure.set_value("width", width);
            structure.set_value("height", height);
            structure.set("framerate", rate);
            structure
        };
        let full = of_size(width.to_send_value(), height.to_send_value());
        let up_to = |px: i32| gst::IntRange::new(1, px).to_send_value();
        let any = of_size(
            if width > 1 {
                up_to(width)
            } else {
                width.to_send_value()
            },
            if height > 1 {
                up_to(height)
            } else {
                height.to_send_value()
            },
        );
        gst::Caps::builder_full()
            .structure(full)
            .structure(any)
            .build()
    }

    /// The placement of frames; `None` if they do not fit or have another format.
    pub fn place(&self, info: &gst_video::VideoInfo, area: Rect) -> Option<FramePlacement> {
        if info.format() != self.screen.format() {
            return None;
        }
        let align = align_px(info);
        let mut frame = area.centred((info.width(), info.height()), align);
        if area.intersection(&frame) != Some(frame) {
            return None;
        }
        frame.x -= frame.x % align as i32;
        let (stride, offset) = (
            self.screen.stride_bytes(),
            frame.x as usize * self.screen.pixel_bytes(),
        );
        let layout = Layout::custom(
            info,
            &[i32::try_from(stride).ok()?],
            &[frame.y as usize * stride + offset],
            self.screen.fb_page_bytes(),
        );
        Some(FramePlacement {
            frame,
            layout: layout.ok()?,
        })
    }

    /// A pool of fb_pages for frames of these caps, with its minimum and maximum of buffers.
    /// Each call makes a new pool, because upstream configures it and deactivates the previous
    /// one. The fb_pages of the previous pool become free as they come back.
    pub fn pool(
        &self,
        caps: &gst::Caps,
        placement: FramePlacement,
    ) -> Option<(PhysBufferPool, u32, u32)> {
        let pool = PhysBufferPool::over(&self.slots, Some(placement.layout));
        let max = self.screen.fb_pages() as u32;
        // One is on screen while the next is written, in addition to those that upstream keeps.
        let min = max.min(2);
        let mut config = pool.config();
        config.set_params(Some(caps), placement.layout.size_bytes as u32, min, max);
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
        match pool.set_config(config) {
            Ok(()) => Some((pool, min, max)),
            Err(e) => {
                gst::error!(CAT, "the pool of fb_pages refuses {caps}: {e}");
                None
            }
        }
    }

    /// While this is set, waits in the presenter return at once.
    pub fn set_flushing(&self, flushing: bool) {
        self.presenter.set_flushing(flushing);
    }

    /// Waits until the presenter holds no fb_page but the one on screen, or for `DRAIN_LIMIT`.
    pub fn drain(&self) {
        if !self.presenter.wait_idle(DRAIN_LIMIT) {
            gst::debug!(CAT, "not drained within {DRAIN_LIMIT:?}");
        }
    }

    pub fn locate(&self, stream: &Stream, buffer: &gst::Buffer) -> Written {
        match self.slots.index_of(buffer) {
            Some(fb_page) if stream.is_in_place(buffer) => Written::InPlace(fb_page),
            Some(fb_page) => Written::Elsewhere(fb_page),
            None => Written::Foreign,
        }
    }

    /// The time in which a frame that is handed over comes onto the screen.
    pub fn display_delay(&self) -> Duration {
        let period = self.screen.refresh_period();
        self.screen.clock().display_delay(period)
    }

    /// What is shown of the frame: all of it, or the part that its GstVideoCropMeta names.
    pub fn part(&self, stream: &Arc<Stream>, buffer: &gst::BufferRef) -> Part {
        let cropped = || {
            let crop = buffer.meta::<gst_video::VideoCropMeta>()?;
            // Elements that crop give the size of the crop in the caps, that of the frame in the GstVideoMeta.
            let meta = buffer.meta::<gst_video::VideoMeta>();
            let size = meta.map_or(stream.size(), |meta| (meta.width(), meta.height()));
            let align = align_px(stream.info());
            let part = crop::visible(crop.rect(), size, stream.area.size(), align)?;
            let is_cropped = part != Rect::of_size(stream.info().width(), stream.info().height());
            Some(Part {
                corner: (part.x as u32, part.y as u32),
                stream: self.stream_of_size(stream, part.size())?,
                is_cropped,
            })
        };
        cropped().unwrap_or_else(|| Part {
            corner: (0, 0),
            stream: stream.clone(),
            is_cropped: false,
        })
    }

    /// A stream of pictures of `size` in the area of `stream`; `None` if they have no place there.
    fn stream_of_size(&self, stream: &Arc<Stream>, size: (u32, u32)) -> Option<Arc<Stream>> {
        if size == stream.size() {
            return Some(stream.clone());
        }
        let mut cropped = stream.cropped.lock();
        if let Some(known) = cropped.as_ref().filter(|known| known.size() == size) {
            return Some(known.clone());
        }
        let info = gst_video::VideoInfo::builder(stream.info().format(), size.0, size.1);
        let info = info.build().ok()?;
        let placement = self.place(&info, stream.area)?;
        gst::debug!(CAT, "cropped frames: {} of the screen", placement.frame);
        let new = Arc::new(Stream::new(info, placement, stream.area));
        let old = cropped.replace(new.clone());
        drop(cropped);
        drop(old); // deactivates its pool, which must not happen under the lock
        Some(new)
    }

    /// Returns the fb_page that the frame was written into, or a free one into which it copies
    /// `part` of the frame. `None` if the frame was dropped.
    pub fn put_in_place(
        &self,
        stream: &Stream,
        part: &Part,
        buffer: &gst::Buffer,
        written: Written,
    ) -> Result<Option<InPlace>, NotShown> {
        if self.presenter.is_away() {
            return self.miss(buffer.clone(), written);
        }
        let in_place = match written {
            Written::InPlace(fb_page) if !part.is_cropped => {
                let log = self.log();
                log.zero_copy(*CAT, Way::Offered, || self.describe_pages());
                log.shown(true);
                InPlace {
                    fb_page,
                    holder: buffer.clone(),
                    is_zero_copy: true,
                }
            }
            Written::InPlace(_) | Written::Elsewhere(_) | Written::Foreign => {
                let Some(holder) = self.copy(stream, part, buffer)? else {
                    return Ok(None);
                };
                let fb_page = self
                    .slots
                    .index_of(&holder)
                    .ok_or_else(|| pool_error("its buffer is in no fb_page"))?;
                self.log().shown(false);
                match written {
                    _ if part.is_cropped => self.log().copy(*CAT, Way::Cropped, CROPPED),
                    Written::Foreign => self.log().copy_foreign(*CAT, buffer, None),
                    _ => self.log().copy(
                        *CAT,
                        Way::Moved,
                        "the frame lies elsewhere in its fb_page than where it is to be shown",
                    ),
                }
                InPlace {
                    fb_page,
                    holder,
                    is_zero_copy: false,
                }
            }
        };
        gst::trace!(CAT, "fb_page {}: {buffer:?}", in_place.fb_page);
        Ok(Some(in_place))
    }

    /// Shows `part` of the frame on a screen with deferred I/O. Writes the rows that differ from the picture on the
    /// screen, and waits until the driver has sent them to the display.
    pub fn write_changes(
        &self,
        stream: &Stream,
        part: &Part,
        buffer: &gst::Buffer,
    ) -> Result<(), NotShown> {
        if self.presenter.is_away() {
            return self.miss(buffer.clone(), Written::Foreign).map(drop);
        }
        if self.log().is_freed(*CAT, buffer) {
            return Ok(());
        }
        let mut shadow = self.shadow.lock();
        if self.paint_borders(0, &part.stream) {
            shadow.forget();
        }
        let written = (|| {
            let source = foreign::map(stream.info(), buffer).map_err(|e| e.to_string())?;
            let bytes = source.plane_data(0).map_err(|e| e.to_string())?;
            let stride = usize::try_from(source.plane_stride()[0]).map_err(|e| e.to_string())?;
            let target = part.stream.placement().layout.planes[0];
            let (x, y) = (part.corner.0 as usize, part.corner.1 as usize);
            let start = y * stride + x * self.screen.pixel_bytes();
            let end = start + target.rows.saturating_sub(1) * stride + target.row_bytes;
            let bytes = bytes.get(start..end).ok_or("its rows end too early")?;
            let rows = (0..target.rows).map(|row| &bytes[row * stride..][..target.row_bytes]);
            let difference = shadow.update(rows, target.row_bytes, |row, bytes| {
                self.screen.write(target.row(row).start, bytes);
            });
            source.check().map_err(|e| e.to_string())?;
            Ok(difference)
        })();
        drop(shadow);
        match written {
            Ok(difference) => self.counters.written(difference),
            Err(_) if self.log().is_freed(*CAT, buffer) => return Ok(()), // freed during the copy
            Err(e) => return Err(NotShown::Failed(ScreenError::Copy(e))),
        }
        self.log().copy(*CAT, Way::Deferred, DEFERRED);
        self.log().shown(false);
        self.screen.flush().map_err(NotShown::Failed)
    }

    /// Drops a frame while another virtual terminal has the screen. The presenter keeps
    /// fb_page 0, into which the console draws, so that upstream does not write into it.
    fn miss(&self, buffer: gst::Buffer, written: Written) -> Result<Option<InPlace>, NotShown> {
        self.counters.vt_away.fetch_add(1, Ordering::Relaxed);
        // Frames are taken no faster than the screen would show them.
        self.presenter.linger(self.screen.refresh_period());
        let (Written::InPlace(fb_page) | Written::Elsewhere(fb_page)) = written else {
            return Ok(None);
        };
        let frame = Frame {
            buffer,
            timing: Timing::default(),
            is_zero_copy: false,
        };
        match self.presenter.present(fb_page, frame) {
            Err(Refusal::Failed) => Err(NotShown::Reported),
            _ => Ok(None),
        }
    }

    /// Hands the frame to the presenter. Waits until the one before it is queued.
    pub fn show(&self, part: &Part, in_place: &InPlace, timing: Timing) -> Result<(), NotShown> {
        let fb_page = in_place.fb_page;
        self.paint_borders(fb_page, &part.stream);
        let frame = Frame {
            buffer: in_place.holder.clone(),
            timing,
            is_zero_copy: in_place.is_zero_copy,
        };
        match self.presenter.present(fb_page, frame) {
            Ok(Presented::Shown) => Ok(()),
            Ok(Presented::Away) => {
                self.counters.vt_away.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(Refusal::Flushing) => Err(NotShown::Flushing),
            Err(Refusal::Failed) => Err(NotShown::Reported),
        }
    }

    /// The buffer of the frame that was shown last. `None` before the first one, if the console has drawn over it, and if
    /// there is one fb_page only.
    pub fn latest(&self) -> Option<gst::Buffer> {
        let is_ours = |fb_page: usize| self.painted[fb_page].load(Ordering::Relaxed) != 0;
        let latest = self.presenter.latest().map(|frame| frame.buffer);
        latest.filter(|buffer| self.slots.index_of(buffer).is_some_and(is_ours))
    }

    /// Shows the frame in the fb_page again: paints its borders black, and pans to it.
    pub fn show_again(&self, stream: &Stream, fb_page: usize) {
        self.painted[fb_page].store(0, Ordering::Relaxed);
        self.paint_borders(fb_page, stream);
        self.presenter.pan_again();
    }

    pub fn log(&self) -> &FrameLog {
        &self.counters.log
    }

    fn describe_pages(&self) -> String {
        format!(
            "upstream writes into the {} of {}",
            fb_pages(self.screen.fb_pages()),
            self.screen.path().display()
        )
    }

    /// Copies `part` of a frame into a free fb_page. `None` if the frame was dropped, because no
    /// fb_page was free or the frame's memory was freed.
    fn copy(
        &self,
        stream: &Stream,
        part: &Part,
        buffer: &gst::Buffer,
    ) -> Result<Option<gst::Buffer>, NotShown> {
        if self.log().is_freed(*CAT, buffer) {
            return Ok(None);
        }
        let pool = self.copy_pool(&part.stream)?;
        let mut copy = match pool.acquire_free(Wait::AtMost(FREE_PAGE_LIMIT)) {
            Ok(copy) => copy,
            Err(PoolError::NoBuffer { .. }) => {
                self.counters.no_page.fetch_add(1, Ordering::Relaxed);
                gst::warning!(
                    CAT,
                    "frame dropped: upstream keeps every fb_page and sends frames that are in none; a queue less, or fb-pages, may help"
                );
                return Ok(None);
            }
            Err(PoolError::Flushing { .. }) => return Err(NotShown::Flushing),
            Err(e) => return Err(pool_error(e)),
        };
        let copied: Result<(), String> = (|| {
            let source = foreign::map(stream.info(), buffer).map_err(|e| e.to_string())?;
            let target = copy.get_mut().ok_or("a new buffer is shared")?;
            let mut target =
                gst_video::VideoFrameRef::from_buffer_ref_writable(target, part.stream.info())
                    .map_err(|e| e.to_string())?;
            let size = part.stream.size();
            layout::copy_area(&source, part.corner, size, &mut target, (0, 0));
            source.check().map_err(|e| e.to_string())
        })();
        match copied {
            Ok(()) => Ok(Some(copy)),
            Err(_) if self.log().is_freed(*CAT, buffer) => Ok(None), // freed during the copy
            Err(e) => Err(NotShown::Failed(ScreenError::Copy(e))),
        }
    }

    fn copy_pool(&self, stream: &Stream) -> Result<PhysBufferPool, NotShown> {
        let mut copies = stream.copies.lock();
        if let Some(pool) = &*copies {
            return Ok(pool.clone());
        }
        let caps = stream.info().to_caps().map_err(pool_error)?;
        let (pool, ..) = self
            .pool(&caps, stream.placement())
            .ok_or_else(|| pool_error(format!("it refuses {caps}")))?;
        pool.set_active(true).map_err(pool_error)?;
        // With `copies` locked, because Stream::set_flushing() may be about to tell the pool the opposite.
        if self.presenter.is_flushing() {
            pool.set_flushing(true); // unlock() was called before `copies` had the pool
        }
        *copies = Some(pool.clone());
        Ok(pool)
    }

    /// Paints the borders unless they were painted for this stream; returns whether they were not.
    fn paint_borders(&self, fb_page: usize, stream: &Stream) -> bool {
        let painted = &self.painted[fb_page];
        let is_new = painted.swap(stream.serial, Ordering::Relaxed) != stream.serial;
        if is_new {
            self.screen.paint_borders(fb_page, stream.placement().frame);
        }
        is_new
    }
}

/// Panning shows whole fb_pages.
const CROPPED: &str =
    "a GstVideoCropMeta names a part of the frame, and the rest of its fb_page must be black";

const DEFERRED: &str = "the driver sends what is written to the display (deferred I/O), so only rows that changed are written";

fn pool_error(error: impl std::fmt::Display) -> NotShown {
    NotShown::Failed(ScreenError::Pool(error.to_string()))
}

/// Where upstream wrote a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Into this fb_page, at the place where it is to be shown.
    InPlace(usize),
    /// Into this fb_page, but at another place.
    Elsewhere(usize),
    /// Into memory that is no fb_page.
    Foreign,
}

/// A frame in a fb_page, ready to be shown.
pub struct InPlace {
    fb_page: usize,
    holder: gst::Buffer,
    /// Whether upstream wrote into the fb_page.
    is_zero_copy: bool,
}

/// Why a frame was not shown.
pub enum NotShown {
    /// The element was unlocked, for a pause or for a flush.
    Flushing,
    /// This error has to be posted.
    Failed(ScreenError),
    /// An error that was posted already.
    Reported,
}
