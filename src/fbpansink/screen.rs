// SPDX-License-Identifier: MPL-2.0
//! An opened framebuffer: where its fb_pages are in memory, how it pans, and the black that
//! is painted around frames.
use super::CAT;
use super::deferred_io;
use super::error::ScreenError;
use super::formats;
use super::framebuffers;
use super::mode::Mode;
use super::presenter::Scanout;
use super::vsync::{self, Clock, Vsync};
use crate::display::area::{Rect, RenderRectangle};
use crate::layout;
use crate::sys;
use crate::sys::fbdev::{self, FbMemory, FixScreeninfo, VarScreeninfo};
use crate::sys::vt_guard::Connection;
use gst_video::VideoFormat;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A copy of the properties that concern the device.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `None` means `$FRAMEBUFFER` or, if that is not set, the first device that can be used.
    pub device: Option<PathBuf>,
    pub vsync: Vsync,
    /// 0 means as many as are useful.
    pub fb_pages: usize,
    pub clear: bool,
    pub restore: bool,
}

/// The opened device.
pub struct Screen {
    mode: Mode,
    format: VideoFormat,
    memory: Arc<FbMemory>,
    /// The offset of the first pixel in `memory`, which starts at a page boundary, while
    /// smem_start need not be page-aligned.
    start_bytes: usize,
    clock: Clock,
    clock_note: String,
    has_deferred_io: bool,
    clear: bool,
    black_row: Vec<u8>,
}

impl Screen {
    /// Opens the device, sets its mode and measures how to wait for a pan.
    pub fn open(options: &Options) -> Result<Self, ScreenError> {
        let from_environment = || {
            std::env::var_os("FRAMEBUFFER")
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        match options.device.clone().or_else(from_environment) {
            Some(path) => Self::open_path(&path, options),
            None => Self::open_first(options),
        }
    }

    fn open_first(options: &Options) -> Result<Self, ScreenError> {
        let mut refused = Vec::new();
        for path in framebuffers::nodes() {
            match Self::open_path(&path, options) {
                Ok(screen) => return Ok(screen),
                Err(e) => refused.push(e),
            }
        }
        if refused.len() == 1 {
            return Err(refused.remove(0));
        }
        Err(ScreenError::NoneUsable(match refused.as_slice() {
            [] => "there is no /dev/fb0 .. /dev/fb31; load a framebuffer driver, enable CONFIG_DRM_FBDEV_EMULATION, or set the property `device`".into(),
            all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        }))
    }

    fn open_path(path: &Path, options: &Options) -> Result<Self, ScreenError> {
        let mode = Mode::set_up(path, options.fb_pages, options.restore)?;
        let (fix, var) = (*mode.fix(), *mode.var());
        let format = formats::format_of(&fix, &var).map_err(|source| ScreenError::Format {
            path: path.to_owned(),
            source,
        })?;
        let start_bytes = fix.smem_start as usize % sys::mmap::page_size_bytes();
        let memory = FbMemory::map(mode.fd(), start_bytes.saturating_add(fix.smem_len as usize))
            .map_err(|source| ScreenError::Call {
                call: "mmap",
                path: path.to_owned(),
                source,
            })?;
        if let Err(e) = fbdev::unblank(mode.fd()) {
            gst::debug!(CAT, "FBIOBLANK on {}: {e}", path.display());
        }
        let (clock, clock_note) = match mode.fb_pages() {
            1 => (
                Clock::Unsynchronised,
                "one fb_page, nothing to pan to".into(),
            ),
            _ => {
                let (pan, wait) = (
                    || fbdev::pan_display(mode.fd(), &var),
                    || fbdev::wait_for_vsync(mode.fd()),
                );
                vsync::measure(options.vsync, vsync::refresh_period(&var), pan, wait)
            }
        };
        let has_deferred_io = mode.fb_pages() == 1
            && deferred_io::is_deferred(
                || memory.touch(start_bytes),
                || fbdev::flush(mode.fd()),
                sys::page::minor_faults,
            );
        let black_row =
            black_row(format, var.xres).map_err(|e| ScreenError::Copy(e.to_string()))?;
        let screen = Self {
            mode,
            format,
            memory: Arc::new(memory),
            start_bytes,
            clock,
            clock_note,
            has_deferred_io,
            clear: options.clear,
            black_row,
        };
        gst::info!(CAT, "{screen}");
        Ok(screen)
    }

    pub fn path(&self) -> &Path {
        self.mode.path()
    }

    pub fn fix(&self) -> &FixScreeninfo {
        self.mode.fix()
    }

    /// The format of the pixels, and so of every frame.
    pub fn format(&self) -> VideoFormat {
        self.format
    }

    pub fn width_px(&self) -> u32 {
        self.mode.var().xres
    }

    pub fn height_px(&self) -> u32 {
        self.mode.var().yres
    }

    pub fn stride_bytes(&self) -> usize {
        self.fix().line_length as usize
    }

    pub fn pixel_bytes(&self) -> usize {
        self.mode.var().bits_per_pixel.div_ceil(8) as usize
    }

    pub fn fb_page_bytes(&self) -> usize {
        self.stride_bytes() * self.height_px() as usize
    }

    /// The number of fb_pages to pan to; 1 if panning is not used.
    pub fn fb_pages(&self) -> usize {
        self.mode.fb_pages()
    }

    /// Why there are this many, for `stats` and the log.
    pub fn fb_pages_note(&self) -> &str {
        self.mode.fb_pages_note()
    }

    /// The fb_page that was on screen when the device was opened.
    pub fn visible_fb_page(&self) -> Option<usize> {
        self.mode.visible_fb_page()
    }

    pub fn refresh_period(&self) -> std::time::Duration {
        vsync::refresh_period(self.mode.var())
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The measurements that decided about [`clock`](Self::clock).
    pub fn clock_note(&self) -> &str {
        &self.clock_note
    }

    /// Whether the driver sends what is written to the display by itself; see [`deferred_io`]. Looked for only
    /// if there is one fb_page: a pan to another one sends it whole.
    pub fn has_deferred_io(&self) -> bool {
        self.has_deferred_io
    }

    /// Whether frames are written into the memory that the display shows, while it shows it.
    pub fn is_drawn_on(&self) -> bool {
        self.fb_pages() == 1 && !self.has_deferred_io
    }

    /// Writes bytes at an offset in fb_page 0, which is on the screen.
    pub fn write(&self, offset_bytes: usize, bytes: &[u8]) {
        self.memory
            .write(self.fb_page_offset_bytes(0) + offset_bytes, bytes);
    }

    /// Has a driver with deferred I/O send what was written to the display, and waits for that.
    pub fn flush(&self) -> Result<(), ScreenError> {
        fbdev::flush(self.mode.fd()).map_err(|source| ScreenError::Call {
            call: "fsync",
            path: self.path().to_owned(),
            source,
        })
    }

    /// As [`flush`](Self::flush), where no frame depends on it.
    fn flush_if_deferred(&self) {
        if self.has_deferred_io
            && let Err(e) = self.flush()
        {
            gst::debug!(CAT, "{e}");
        }
    }

    /// Whether the console is kept from drawing into fb_pages.
    pub fn console_is_quiet(&self) -> bool {
        self.mode.console_is_quiet()
    }

    /// The mapping of the framebuffer.
    pub fn memory(&self) -> &Arc<FbMemory> {
        &self.memory
    }

    /// The offset of a fb_page in [`memory`](Self::memory).
    pub fn fb_page_offset_bytes(&self, fb_page: usize) -> usize {
        self.start_bytes + fb_page * self.fb_page_bytes()
    }

    /// The part of the screen for frames: where `rectangle` and the screen overlap.
    pub fn area(&self, rectangle: RenderRectangle) -> Result<Rect, ScreenError> {
        let (width_px, height_px) = (self.width_px(), self.height_px());
        let area = rectangle.on_screen((width_px, height_px));
        area.ok_or(ScreenError::OutsideScreen {
            rectangle,
            width_px,
            height_px,
        })
    }

    fn whole(&self) -> Rect {
        Rect::of_size(self.width_px(), self.height_px())
    }

    /// Paints the screen around `frame` black, if `clear` is set. The caller holds the fb_page.
    pub fn paint_borders(&self, fb_page: usize, frame: Rect) {
        if !self.clear {
            return;
        }
        for border in self.whole().around(&frame) {
            self.paint_black(self.fb_page_offset_bytes(fb_page), border);
        }
    }

    fn paint_black(&self, screen_offset_bytes: usize, rect: Rect) {
        let (start, len) = (
            rect.x as usize * self.pixel_bytes(),
            rect.width as usize * self.pixel_bytes(),
        );
        for row in 0..rect.height as usize {
            let offset =
                screen_offset_bytes + (rect.y as usize + row) * self.stride_bytes() + start;
            self.memory
                .write(offset, &self.black_row[start..start + len]);
        }
    }
}

/// A row of `width_px` black pixels.
fn black_row(format: VideoFormat, width_px: u32) -> Result<Vec<u8>, gst::glib::BoolError> {
    let info = gst_video::VideoInfo::builder(format, width_px, 1).build()?;
    let buffer = gst::Buffer::with_size(info.size())?;
    let frame = gst_video::VideoFrame::from_buffer_writable(buffer, &info);
    let mut frame = frame.map_err(|_| gst::glib::bool_error!("black cannot be mapped"))?;
    layout::fill_black(&mut frame.as_mut_video_frame_ref());
    Ok(frame.into_buffer().map_readable()?.to_vec())
}

impl std::fmt::Display for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let var = self.mode.var();
        write!(
            f,
            "{}: {}, {}x{} {}, ",
            self.path().display(),
            self.fix().driver(),
            var.xres,
            var.yres,
            self.format
        )?;
        write!(
            f,
            "{} bytes a line, {} fb_pages ({}), ",
            self.stride_bytes(),
            self.fb_pages(),
            self.fb_pages_note()
        )?;
        write!(f, "{} ({})", self.clock, self.clock_note)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The part that becomes visible may contain an old frame. It is painted black, unless
        // a console redraws it.
        let Some(yoffset) = self.mode.original_yoffset() else {
            return;
        };
        let start = self.start_bytes + yoffset as usize * self.stride_bytes();
        if self.clear
            && !self.console_is_quiet()
            && start + self.fb_page_bytes() <= self.memory.len_bytes()
        {
            self.paint_black(start, self.whole());
            // Otherwise the end of the last open file may cancel it.
            self.flush_if_deferred();
        }
    }
}

impl Screen {
    /// The messages about the virtual terminal, if its console is in graphics mode.
    pub fn console_connection(&self) -> Option<Connection> {
        self.mode.console_connection()
    }

    /// Lets the console of another virtual terminal draw, which it does into fb_page 0. If
    /// fb_page 0 is on screen, returns a copy of its picture.
    pub fn step_aside(&self, fb_page: usize) -> Option<Vec<u8>> {
        self.mode.set_away(true);
        let picture = (fb_page == 0).then(|| {
            let start = self.fb_page_offset_bytes(0);
            self.memory.read(start, self.fb_page_bytes())
        });
        if let Err(e) = self.mode.step_aside() {
            gst::debug!(CAT, "before another terminal is shown: {e}");
        }
        picture
    }

    /// Shows the fb_page again after another virtual terminal was shown. `picture` is what
    /// [`step_aside`](Self::step_aside) returned, and is written into fb_page 0.
    pub fn step_forward(&self, fb_page: usize, picture: Option<&[u8]>) {
        self.mode.set_away(false);
        if let Some(picture) = picture {
            self.memory.write(self.fb_page_offset_bytes(0), picture);
        }
        if let Err(e) = self.mode.step_forward(fb_page) {
            gst::warning!(
                CAT,
                "{}: cannot show frames again: {}",
                self.path().display(),
                sys::describe(&e)
            );
        }
        self.flush_if_deferred();
    }
}

impl Scanout for Screen {
    type Error = ScreenError;

    fn may_pass(&self, error: &ScreenError) -> bool {
        matches!(error, ScreenError::Call { source, .. } if source.raw_os_error() == Some(libc::EBUSY))
    }

    fn pan(&self, fb_page: usize) -> Result<(), ScreenError> {
        let var = self.mode.var();
        let wanted = VarScreeninfo {
            xoffset: 0,
            yoffset: fb_page as u32 * var.yres,
            ..*var
        };
        fbdev::pan_display(self.mode.fd(), &wanted).map_err(|source| self.mode.why_refused(source))
    }

    fn wait_for_vsync(&self) {
        if let Err(e) = fbdev::wait_for_vsync(self.mode.fd()) {
            gst::debug!(CAT, "FBIO_WAITFORVSYNC on {}: {e}", self.path().display());
            std::thread::sleep(vsync::refresh_period(self.mode.var()));
        }
    }
}
