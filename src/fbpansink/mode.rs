// SPDX-License-Identifier: MPL-2.0
//! The mode of a framebuffer, which is changed to get more fb_pages and restored when dropped.
use super::CAT;
use super::broken_pan::is_pan_broken;
use super::console::Console;
use super::error::ScreenError;
use crate::sys::fbdev::{self, FixScreeninfo, Ramps, VarScreeninfo};
use crate::sys::vt_guard::Connection;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The most fb_pages that are requested unless `fb-pages` is set. Three are enough to
/// pipeline; some more let decoders and queues work ahead.
const FB_PAGES_AUTO: usize = 8;

/// The opened device, its present mode and the mode to restore.
pub struct Mode {
    path: PathBuf,
    fd: OwnedFd,
    fix: FixScreeninfo,
    var: VarScreeninfo,
    original: VarScreeninfo,
    original_ramps: Option<Ramps>,
    restore: bool,
    fb_pages: usize,
    note: String,
    /// In graphics mode from before the first change of mode until after the last. A console
    /// in text mode would take over the changed mode, and set it again when it is redrawn.
    console: Option<Console>,
    is_away: AtomicBool,
}

impl Mode {
    /// Opens the device and makes it have `fb_pages`, or as many as are useful if that is 0.
    /// With `restore`, the mode is restored on drop.
    pub fn set_up(path: &Path, fb_pages: usize, restore: bool) -> Result<Self, ScreenError> {
        let call = |call| {
            move |source| ScreenError::Call {
                call,
                path: path.to_owned(),
                source,
            }
        };
        let fd = fbdev::open(path).map_err(|source| ScreenError::Open {
            path: path.to_owned(),
            source,
        })?;
        let original = fbdev::vscreeninfo(fd.as_fd()).map_err(call("FBIOGET_VSCREENINFO"))?;
        let fix = fbdev::fscreeninfo(fd.as_fd()).map_err(call("FBIOGET_FSCREENINFO"))?;
        let mut mode = Self {
            path: path.to_owned(),
            console: Console::quiet(fd.as_fd(), &original, restore),
            is_away: AtomicBool::new(false),
            fd,
            fix,
            var: original,
            original,
            original_ramps: None,
            restore,
            fb_pages: 1,
            note: String::new(),
        };
        if mode.fix.line_length == 0 {
            // No mode was set since boot (cirrusfb, still in text mode). The driver's own numbers are set.
            let activate = fbdev::FB_ACTIVATE_NOW | fbdev::FB_ACTIVATE_FORCE;
            mode.put(VarScreeninfo {
                activate,
                ..original
            })
            .map_err(call("FBIOPUT_VSCREENINFO"))?;
        }
        let fit = screenfuls(&mode.fix, &mode.var).ok_or_else(|| mode.too_small())?;
        mode.choose_fb_pages(fit, fb_pages);
        mode.resynchronise().map_err(call("FBIOPAN_DISPLAY"))?;
        retry_while_busy(|| mode.align_offsets()).map_err(call("FBIOPAN_DISPLAY"))?;
        mode.set_linear_ramps();
        Ok(mode)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn fix(&self) -> &FixScreeninfo {
        &self.fix
    }

    pub fn var(&self) -> &VarScreeninfo {
        &self.var
    }

    /// The line of memory that will be at the top of the screen once the mode is restored.
    /// `None` if it will not be restored.
    pub fn original_yoffset(&self) -> Option<u32> {
        self.restore.then_some(self.original.yoffset)
    }

    /// Whether the console is kept from drawing into fb_pages.
    pub fn console_is_quiet(&self) -> bool {
        self.console.is_some()
    }

    /// The number of fb_pages to pan to; 1 if panning is not used.
    pub fn fb_pages(&self) -> usize {
        self.fb_pages
    }

    /// Why there are this many, for `stats` and the log.
    pub fn fb_pages_note(&self) -> &str {
        &self.note
    }

    /// The fb_page at the offset that the driver last reported; `None` if that is between two.
    pub fn visible_fb_page(&self) -> Option<usize> {
        let page = (self.var.yoffset / self.var.yres) as usize;
        (self.var.yoffset.is_multiple_of(self.var.yres) && page < self.fb_pages).then_some(page)
    }

    /// The error to report when the driver refuses a pan. Often another program has changed the mode.
    pub fn why_refused(&self, source: io::Error) -> ScreenError {
        match fbdev::vscreeninfo(self.fd()) {
            Ok(now) if !same_mode(&now, &self.var) || now.yres_virtual < self.var.yres_virtual => {
                ScreenError::ModeChanged {
                    path: self.path.clone(),
                    was: describe(&self.var),
                    is: describe(&now),
                }
            }
            _ => ScreenError::Call {
                call: "FBIOPAN_DISPLAY",
                path: self.path.clone(),
                source,
            },
        }
    }

    fn too_small(&self) -> ScreenError {
        ScreenError::TooSmall {
            path: self.path.clone(),
            smem_len: self.fix.smem_len,
            line_length: self.fix.line_length,
            xres: self.var.xres,
            yres: self.var.yres,
            bits: self.var.bits_per_pixel,
        }
    }

    fn choose_fb_pages(&mut self, fit: usize, wanted: usize) {
        let id = self.fix.driver();
        if wanted == 0 && is_pan_broken(&id, &kernel_release()) {
            self.note = format!(
                "the driver {id} accepts pans but does not show them; fb-pages overrides this"
            );
            return;
        }
        if !has_pan_step(&self.fix, &self.var) {
            self.note = format!(
                "the driver {id} cannot pan (step {}, {} lines)",
                self.fix.ypanstep, self.var.yres
            );
            return;
        }
        let limit = fit.min(if wanted == 0 { FB_PAGES_AUTO } else { wanted });
        self.grow(limit);
        self.fb_pages = ((self.var.yres_virtual / self.var.yres) as usize).clamp(1, limit);
        self.note = match (self.fb_pages, wanted) {
            (1, 0) if fit == 1 => format!(
                "its {} bytes hold one; on DRM drivers drm_kms_helper.drm_fbdev_overalloc=300 makes it three",
                self.fix.smem_len
            ),
            (_, 0) => format!("{fit} fit into its {} bytes", self.fix.smem_len),
            (n, w) if n == w => "as fb-pages asks".into(),
            (_, w) => format!(
                "fb-pages asks for {w}, {fit} fit into its {} bytes",
                self.fix.smem_len
            ),
        };
    }

    /// Asks for `limit` fb_pages and then for fewer, until the driver grants more than there
    /// are. Trusts only the mode that is read back, because FBIOPUT_VSCREENINFO also returns 0
    /// for requests that it does not fulfil.
    fn grow(&mut self, limit: usize) {
        let (fix, var) = (self.fix, self.var);
        for n in (2..=limit as u32)
            .rev()
            .take_while(|n| n * var.yres > var.yres_virtual)
        {
            let asked = self.put(VarScreeninfo {
                yres_virtual: n * var.yres,
                activate: fbdev::FB_ACTIVATE_NOW,
                ..var
            });
            gst::debug!(
                CAT,
                "{}: {n} fb_pages: {asked:?}, now {}",
                self.path.display(),
                describe(&self.var)
            );
            let unharmed = same_mode(&self.var, &var)
                && self.fix.line_length == fix.line_length
                && u64::from(self.var.yres_virtual) * u64::from(fix.line_length)
                    <= u64::from(self.fix.smem_len);
            if !unharmed {
                if let Err(e) = self.put(var) {
                    gst::warning!(
                        CAT,
                        "{}: cannot undo a refused change of mode: {e}",
                        self.path.display()
                    );
                }
            } else if self.var.yres_virtual > var.yres_virtual {
                return;
            }
        }
    }

    fn put(&mut self, var: VarScreeninfo) -> io::Result<()> {
        let asked = fbdev::put_vscreeninfo(self.fd.as_fd(), &var);
        self.var = fbdev::vscreeninfo(self.fd.as_fd())?;
        self.fix = fbdev::fscreeninfo(self.fd.as_fd())?;
        asked
    }

    /// Makes DRM scan out from the offset that it reports.
    ///
    /// DRM stores the line that it scans out from apart from `yoffset`. A pan adds the difference (pan_set in
    /// drm_fb_helper.c), but FBIOPUT_VSCREENINFO and a console that redraws set `yoffset` alone. If another
    /// DRM master prevented a program from panning back (EBUSY), the console's offset 0 means another page,
    /// and each pan shows a wrong page or fails with ENOSPC. This tries each offset, the largest first. The
    /// true one is the first from which a pan to 0 leads to a line that exists.
    fn resynchronise(&mut self) -> io::Result<()> {
        let is_drm = self.fix.driver().ends_with("drmfb");
        if !is_drm || self.fb_pages < 2 || (self.var.xoffset, self.var.yoffset) != (0, 0) {
            return Ok(());
        }
        let top = VarScreeninfo {
            activate: fbdev::FB_ACTIVATE_NOW,
            ..self.var
        };
        for fb_page in (0..self.fb_pages as u32).rev() {
            let yoffset = fb_page * top.yres;
            retry_while_busy(|| self.put(VarScreeninfo { yoffset, ..top }))?;
            match retry_while_busy(|| fbdev::pan_display(self.fd(), &top)) {
                Err(e) if fb_page > 0 && e.raw_os_error() != Some(libc::EBUSY) => {}
                done => {
                    if fb_page > 0 {
                        gst::info!(
                            CAT,
                            "{}: what was at offset 0 was fb_page {fb_page}",
                            self.path.display()
                        );
                    }
                    done?;
                    break;
                }
            }
        }
        self.var = fbdev::vscreeninfo(self.fd())?;
        Ok(())
    }

    /// Pans to fb_page 0 if the visible part is not exactly one fb_page.
    fn align_offsets(&mut self) -> io::Result<()> {
        if self.var.xoffset == 0
            && self.visible_fb_page().is_some()
            && self.var.vmode & fbdev::FB_VMODE_YWRAP == 0
        {
            return Ok(());
        }
        let vmode = self.var.vmode & !fbdev::FB_VMODE_YWRAP;
        let wanted = VarScreeninfo {
            xoffset: 0,
            yoffset: 0,
            vmode,
            ..self.var
        };
        fbdev::pan_display(self.fd(), &wanted)?;
        self.var = wanted;
        Ok(())
    }

    /// With the visual DIRECTCOLOR, the hardware looks each component up in a ramp. The
    /// console sets the ramps to its sixteen colours.
    fn set_linear_ramps(&mut self) {
        if self.fix.visual != fbdev::FB_VISUAL_DIRECTCOLOR {
            return;
        }
        let fields =
            [self.var.red, self.var.green, self.var.blue].map(|f| 1usize << f.length.min(10));
        let entries = fields.into_iter().max().unwrap_or(0);
        let ramp = |len: usize| {
            (0..entries)
                .map(|i| (i.min(len - 1) * 0xffff / (len - 1).max(1)) as u16)
                .collect()
        };
        let linear = Ramps {
            red: ramp(fields[0]),
            green: ramp(fields[1]),
            blue: ramp(fields[2]),
        };
        match fbdev::cmap(self.fd(), entries)
            .and_then(|before| fbdev::put_cmap(self.fd(), &linear).map(|()| before))
        {
            Ok(before) => self.original_ramps = Some(before),
            Err(e) => gst::warning!(
                CAT,
                "{}: cannot set linear colour ramps, colours may be wrong: {e}",
                self.path.display()
            ),
        }
    }

    fn put_back(&self) -> io::Result<()> {
        if let Some(ramps) = &self.original_ramps {
            fbdev::put_cmap(self.fd(), ramps)?;
        }
        fbdev::put_back(self.fd(), &self.original)
    }

    /// Pans to line 0 before the console of another terminal draws there. The console sets
    /// `yoffset` without a pan (see `resynchronise`).
    pub fn step_aside(&self) -> io::Result<()> {
        fbdev::pan_display(self.fd(), &self.at_line(0))
    }

    /// Sets the mode again, which the console of another terminal may have changed, and shows the fb_page.
    pub fn step_forward(&self, fb_page: usize) -> io::Result<()> {
        let top = self.at_line(0);
        let now = fbdev::vscreeninfo(self.fd())?;
        if !same_mode(&now, &self.var) || now.yres_virtual != self.var.yres_virtual {
            fbdev::put_vscreeninfo(self.fd(), &top)?;
        }
        fbdev::pan_display(self.fd(), &self.at_line(fb_page as u32 * self.var.yres))
    }

    fn at_line(&self, yoffset: u32) -> VarScreeninfo {
        VarScreeninfo {
            xoffset: 0,
            yoffset,
            activate: fbdev::FB_ACTIVATE_NOW,
            ..self.var
        }
    }

    /// The messages about the virtual terminal, if its console is in graphics mode.
    pub fn console_connection(&self) -> Option<Connection> {
        self.console.as_ref()?.connection()
    }

    /// Says whether another virtual terminal has the screen. While it has, drop does not restore the mode.
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        if !self.restore {
            self.console.iter().for_each(Console::leave_quiet);
        } else if self.is_away.load(Ordering::Relaxed) {
            // The kernel sets the console's mode when it switches back to our terminal.
        } else if let Err(e) = self.put_back() {
            gst::warning!(
                CAT,
                "{}: cannot put the mode back: {}",
                self.path.display(),
                crate::sys::describe(&e)
            );
        }
    }
}

/// How long a call is repeated while another program has the display (EBUSY). A program that
/// only opens the DRM device to inspect it is DRM master for a moment.
pub const BUSY_LIMIT: Duration = Duration::from_secs(2);
pub const BUSY_PAUSE: Duration = Duration::from_millis(10);

fn retry_while_busy(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + BUSY_LIMIT;
    loop {
        match call() {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(BUSY_PAUSE);
            }
            done => return done,
        }
    }
}

/// How many screenfuls fit into the memory. `None` if not even one fits, or the driver's
/// numbers contradict each other.
pub(super) fn screenfuls(fix: &FixScreeninfo, var: &VarScreeninfo) -> Option<usize> {
    let line_length = u64::from(fix.line_length);
    let row_bytes = u64::from(var.xres) * u64::from(var.bits_per_pixel).div_ceil(8);
    if row_bytes == 0 || row_bytes > line_length {
        return None;
    }
    let fit = u64::from(fix.smem_len).checked_div(line_length * u64::from(var.yres))?;
    (fit > 0).then_some(fit as usize)
}

pub(super) fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map(|uts| uts.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Whether the driver can pan by a screenful.
fn has_pan_step(fix: &FixScreeninfo, var: &VarScreeninfo) -> bool {
    fix.ypanstep > 0 && var.yres.is_multiple_of(u32::from(fix.ypanstep))
}

/// Whether the driver has memory for several fb_pages, can pan between them, and shows what it pans to, as far
/// as it tells before a mode is set.
pub(super) fn can_pan(fix: &FixScreeninfo, var: &VarScreeninfo, release: &str) -> bool {
    screenfuls(fix, var) >= Some(2)
        && has_pan_step(fix, var)
        && !is_pan_broken(&fix.driver(), release)
}

/// Whether pixels have the same format and places; `yres_virtual` and offsets may differ.
fn same_mode(a: &VarScreeninfo, b: &VarScreeninfo) -> bool {
    let pixels = |v: &VarScreeninfo| {
        (
            v.xres,
            v.yres,
            v.xres_virtual,
            v.bits_per_pixel,
            v.grayscale,
            [v.red, v.green, v.blue, v.transp],
        )
    };
    pixels(a) == pixels(b)
}

fn describe(var: &VarScreeninfo) -> String {
    format!(
        "{}x{} of {}x{}, {} bits a pixel",
        var.xres, var.yres, var.xres_virtual, var.yres_virtual, var.bits_per_pixel
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(id: &str, ypanstep: u16, smem_len: u32, var: VarScreeninfo) -> Mode {
        let fix = FixScreeninfo {
            ypanstep,
            smem_len,
            line_length: 64,
            ..FixScreeninfo::with_id(id)
        };
        Mode {
            path: "/dev/null".into(),
            fd: fbdev::open(Path::new("/dev/null")).unwrap(),
            fix,
            var,
            original: var,
            original_ramps: None,
            restore: false,
            fb_pages: 1,
            note: String::new(),
            console: None,
            is_away: AtomicBool::new(false),
        }
    }

    impl Mode {
        fn fit(&self) -> Option<usize> {
            screenfuls(&self.fix, &self.var)
        }
    }

    fn var(yres_virtual: u32) -> VarScreeninfo {
        VarScreeninfo {
            xres: 16,
            yres: 10,
            xres_virtual: 16,
            yres_virtual,
            bits_per_pixel: 32,
            ..Default::default()
        }
    }

    #[test]
    fn a_driver_pans_if_it_has_memory_and_a_step_and_is_not_known_to_lie() {
        for (id, ypanstep, smem_len, can) in [
            ("vkmsdrmfb", 1, 2 * 640, true),
            ("vkmsdrmfb", 5, 2 * 640, true),
            ("vkmsdrmfb", 3, 2 * 640, false),
            ("vkmsdrmfb", 0, 2 * 640, false),
            ("vkmsdrmfb", 1, 640, false),
            ("vkmsdrmfb", 1, 0, false),
            ("bochs-drmdrmfb", 1, 2 * 640, false),
        ] {
            let mode = mode(id, ypanstep, smem_len, var(10));
            let said = can_pan(&mode.fix, &mode.var, &kernel_release());
            assert_eq!(said, can, "{id} {ypanstep} {smem_len}");
        }
    }

    #[test]
    fn fb_pages_are_what_the_driver_has_and_not_what_would_fit() {
        gst::init().unwrap();
        let mut three_of_five = mode("x", 1, 5 * 640, var(30));
        three_of_five.choose_fb_pages(5, 0); // PUT on /dev/null is refused
        assert_eq!(three_of_five.fb_pages, 3);
        let mut two = mode("x", 1, 5 * 640, var(30));
        two.choose_fb_pages(5, 2);
        assert_eq!((two.fb_pages, two.note.as_str()), (2, "as fb-pages asks"));
        let mut none_more = mode("x", 1, 5 * 640, var(10));
        none_more.choose_fb_pages(5, 4);
        assert_eq!(none_more.fb_pages, 1);
        assert!(none_more.note.contains("asks for 4"), "{}", none_more.note);
    }

    #[test]
    fn drivers_that_lie_or_cannot_pan_give_one_page() {
        let mut lies = mode("bochs-drmdrmfb", 1, 3 * 640, var(30));
        lies.choose_fb_pages(3, 0);
        assert_eq!(lies.fb_pages, 1);
        lies.choose_fb_pages(3, 3);
        assert_eq!(lies.fb_pages, 3, "the user insists");
        let mut fixed = mode("simple", 0, 3 * 640, var(30));
        fixed.choose_fb_pages(3, 3);
        assert_eq!(fixed.fb_pages, 1);
        let mut coarse = mode("coarse", 4, 3 * 640, var(30));
        coarse.choose_fb_pages(3, 0);
        assert_eq!(coarse.fb_pages, 1, "10 lines are no multiple of 4");
    }

    #[test]
    fn numbers_that_hold_no_screenful_are_refused() {
        assert_eq!(mode("x", 1, 639, var(10)).fit(), None);
        assert_eq!(mode("x", 1, 640, var(10)).fit(), Some(1));
        assert_eq!(
            mode(
                "x",
                1,
                640,
                VarScreeninfo {
                    xres: 17,
                    ..var(10)
                }
            )
            .fit(),
            None
        );
        assert_eq!(
            mode("x", 1, 640, VarScreeninfo { yres: 0, ..var(10) }).fit(),
            None
        );
        assert!(
            mode("x", 1, 639, var(10))
                .too_small()
                .to_string()
                .contains("639 bytes")
        );
    }

    #[test]
    fn a_page_offset_in_between_is_no_page() {
        let mut three = mode("x", 1, 3 * 640, var(30));
        three.fb_pages = 3;
        for (yoffset, page) in [(0, Some(0)), (20, Some(2)), (5, None), (30, None)] {
            three.var.yoffset = yoffset;
            assert_eq!(three.visible_fb_page(), page);
        }
    }
}
