// SPDX-License-Identifier: MPL-2.0
//! When a pan has taken effect. Drivers differ, so this module measures them. FBIOPAN_DISPLAY itself waits on
//! most DRM drivers, where an additional FBIO_WAITFORVSYNC would halve the frame rate, and returns at once on
//! old fbdev drivers. FBIO_WAITFORVSYNC may be missing, work, or return without waiting.
use crate::refresh;
use crate::shared_enum::shared_enum;
use crate::sys::fbdev::{self, VarScreeninfo};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// The `vsync` property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Vsync {
    /// Measure the driver when the device is opened and wait accordingly.
    #[default]
    Auto,
    /// Call FBIO_WAITFORVSYNC after each pan.
    Wait,
    /// Never wait. Upstream may write into a fb_page while it is still scanned out.
    None,
}

shared_enum!(Vsync, c"GstFbPanSinkVsync", {
    Auto: c"auto", c"Measure the driver, wait as it needs";
    Wait: c"wait", c"Wait with FBIO_WAITFORVSYNC after each pan";
    None: c"none", c"Never wait (frames may tear)";
});

/// How the presenter knows that a pan has taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// FBIOPAN_DISPLAY returns when the new page is on screen.
    PanWaits,
    /// The first FBIO_WAITFORVSYNC after the pan returns when the new page is on screen.
    WaitForVsync,
    /// No ioctl waits. After this time, one refresh, the new page is on screen.
    Timer(Duration),
    /// The presenter does not wait.
    Unsynchronised,
}

impl Clock {
    /// Whether a pan takes effect at a vertical blank that the presenter waits for, so that frames
    /// do not tear and the time of each is known.
    pub fn is_synchronised(self) -> bool {
        match self {
            Self::PanWaits | Self::WaitForVsync => true,
            Self::Timer(_) | Self::Unsynchronised => false,
        }
    }

    /// The time in which a fb_page that is panned to comes onto the screen.
    pub fn display_delay(self, period: Duration) -> Duration {
        match self {
            Self::PanWaits | Self::WaitForVsync => period,
            Self::Timer(period) => period,
            Self::Unsynchronised => Duration::ZERO,
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PanWaits => f.write_str("pan waits for vertical blank"),
            Self::WaitForVsync => f.write_str("FBIO_WAITFORVSYNC after each pan"),
            Self::Timer(period) => write!(
                f,
                "no vertical blank to wait for, {:.1} ms after each pan",
                period.as_secs_f64() * 1e3
            ),
            Self::Unsynchronised => f.write_str("not synchronised"),
        }
    }
}

/// A call that returns sooner does not wait for the vertical blank (250 Hz).
const SHORTEST: Duration = Duration::from_millis(4);
/// A wait that takes longer ended by a timeout of the driver (10 Hz).
const LONGEST: Duration = Duration::from_millis(100);
const TRIALS: usize = 3;

/// Decides how to wait, and says why. `pan` shows the present fb_page again. It and `wait`
/// are called at most four times each. The first call of each starts at an unknown moment
/// of a refresh, so only the other three are timed. The middle one counts: on a busy machine
/// another program may have had the processor during one of them.
pub fn measure(
    wanted: Vsync,
    period: Duration,
    mut pan: impl FnMut() -> io::Result<()>,
    mut wait: impl FnMut() -> io::Result<()>,
) -> (Clock, String) {
    match wanted {
        Vsync::None => return (Clock::Unsynchronised, "vsync=none".into()),
        Vsync::Wait => {
            return match wait() {
                Ok(()) => (Clock::WaitForVsync, "vsync=wait".into()),
                Err(e) => (
                    Clock::Timer(period),
                    format!("vsync=wait, but FBIO_WAITFORVSYNC: {e}"),
                ),
            };
        }
        Vsync::Auto => {}
    }
    let panned = median(&mut pan);
    // There is no upper limit, because displays on a slow bus send the whole picture during the pan.
    if let Ok(time) = panned
        && time >= SHORTEST
    {
        return (
            Clock::PanWaits,
            format!("FBIOPAN_DISPLAY takes {}", ms(time)),
        );
    }
    let panned = panned.map_or_else(
        |e| format!("fails: {e}"),
        |time| format!("takes {}", ms(time)),
    );
    match median(&mut wait) {
        Ok(time) if (SHORTEST..=LONGEST).contains(&time) => (
            Clock::WaitForVsync,
            format!("FBIOPAN_DISPLAY {panned}, FBIO_WAITFORVSYNC {}", ms(time)),
        ),
        Ok(time) => (
            Clock::Timer(period),
            format!(
                "FBIOPAN_DISPLAY {panned}, FBIO_WAITFORVSYNC {} and so does not wait",
                ms(time)
            ),
        ),
        Err(e) => (
            Clock::Timer(period),
            format!("FBIOPAN_DISPLAY {panned}, FBIO_WAITFORVSYNC: {e}"),
        ),
    }
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn median(call: &mut impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    call()?;
    let mut times = [Duration::ZERO; TRIALS];
    for time in &mut times {
        let start = Instant::now();
        call()?;
        *time = start.elapsed();
    }
    times.sort_unstable();
    Ok(times[TRIALS / 2])
}

/// The time of one refresh by the mode's timings; 1/60 s if the driver does not report
/// them (pixclock is 0 on DRM drivers) or they are implausible.
pub fn refresh_period(var: &VarScreeninfo) -> Duration {
    let columns = [var.xres, var.left_margin, var.right_margin, var.hsync_len]
        .iter()
        .map(|&v| u64::from(v))
        .sum::<u64>();
    let rows = [var.yres, var.upper_margin, var.lower_margin, var.vsync_len]
        .iter()
        .map(|&v| u64::from(v))
        .sum::<u64>();
    /// Picoseconds in a second, times 1000 for a rate in mHz.
    const CLOCK_MHZ: u128 = 1_000_000_000_000_000;
    let pixels = u128::from(columns) * u128::from(rows);
    let mut period_ps = pixels.saturating_mul(var.pixclock.into());
    if var.vmode & fbdev::FB_VMODE_INTERLACED != 0 {
        period_ps /= 2;
    }
    if var.vmode & fbdev::FB_VMODE_DOUBLE != 0 {
        period_ps = period_ps.saturating_mul(2);
    }
    refresh::period(refresh::rate_mhz(CLOCK_MHZ, period_ps))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    const PERIOD: Duration = Duration::from_millis(20);

    fn blocks() -> io::Result<()> {
        sleep(Duration::from_millis(8));
        Ok(())
    }

    fn returns() -> io::Result<()> {
        Ok(())
    }

    fn enotty() -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOTTY))
    }

    #[test]
    fn a_pan_that_waits_needs_nothing_else() {
        let (clock, _) = measure(Vsync::Auto, PERIOD, blocks, || {
            panic!("one wait a frame is enough")
        });
        assert_eq!(clock, Clock::PanWaits);
    }

    #[test]
    fn a_pan_that_takes_long_is_done_when_it_returns() {
        let slow = || {
            sleep(Duration::from_millis(110));
            Ok(())
        };
        assert_eq!(
            measure(Vsync::Auto, PERIOD, slow, enotty).0,
            Clock::PanWaits
        );
    }

    #[test]
    fn a_pan_that_returns_at_once_is_followed_by_a_wait() {
        assert_eq!(
            measure(Vsync::Auto, PERIOD, returns, blocks).0,
            Clock::WaitForVsync
        );
    }

    #[test]
    fn a_pan_during_which_another_program_ran_still_returns_at_once() {
        let mut count = 0;
        let once_slow = || {
            count += 1;
            if count == 3 {
                sleep(Duration::from_millis(60));
            }
            Ok(())
        };
        let (clock, _) = measure(Vsync::Auto, PERIOD, once_slow, blocks);
        assert_eq!(clock, Clock::WaitForVsync);
    }

    #[test]
    fn a_wait_that_does_not_wait_is_not_believed() {
        let (clock, why) = measure(Vsync::Auto, PERIOD, returns, returns);
        assert_eq!(clock, Clock::Timer(PERIOD));
        assert!(why.contains("does not wait"), "{why}");
    }

    #[test]
    fn without_any_wait_the_timer_paces() {
        assert_eq!(
            measure(Vsync::Auto, PERIOD, returns, enotty).0,
            Clock::Timer(PERIOD)
        );
        assert_eq!(
            measure(Vsync::Wait, PERIOD, blocks, enotty).0,
            Clock::Timer(PERIOD)
        );
    }

    #[test]
    fn what_the_user_says_is_not_measured() {
        assert_eq!(
            measure(Vsync::None, PERIOD, enotty, enotty).0,
            Clock::Unsynchronised
        );
        assert_eq!(
            measure(Vsync::Wait, PERIOD, enotty, returns).0,
            Clock::WaitForVsync
        );
    }

    #[test]
    fn a_pan_takes_effect_within_one_period_unless_nobody_waits() {
        let timer = Clock::Timer(2 * PERIOD);
        let waiting = [Clock::PanWaits, Clock::WaitForVsync];
        assert_eq!(
            waiting.map(|clock| clock.display_delay(PERIOD)),
            [PERIOD; 2]
        );
        assert_eq!(timer.display_delay(PERIOD), 2 * PERIOD);
        assert_eq!(Clock::Unsynchronised.display_delay(PERIOD), Duration::ZERO);
        assert!(waiting.iter().all(|clock| clock.is_synchronised()));
        assert!(!timer.is_synchronised() && !Clock::Unsynchronised.is_synchronised());
    }

    #[test]
    fn the_refresh_period_comes_from_the_timings() {
        let vga = VarScreeninfo {
            xres: 640,
            left_margin: 48,
            right_margin: 16,
            hsync_len: 96,
            yres: 480,
            upper_margin: 33,
            lower_margin: 10,
            vsync_len: 2,
            pixclock: 39721,
            ..Default::default()
        };
        let period = refresh_period(&vga).as_secs_f64();
        assert!((1.0 / period - 59.94).abs() < 0.01, "{period}");
        let drm = VarScreeninfo {
            xres: 1024,
            yres: 768,
            ..Default::default()
        };
        assert_eq!(refresh_period(&drm), Duration::from_nanos(16_666_667));
        let absurd = VarScreeninfo {
            pixclock: u32::MAX,
            ..vga
        };
        assert_eq!(refresh_period(&absurd), Duration::from_nanos(16_666_667));
    }
}
