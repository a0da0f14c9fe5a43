// SPDX-License-Identifier: MPL-2.0
//! Streams without a display, or without the card: their frames wait, and the newest one is shown when the display comes.

use std::time::{Duration, Instant};

use gst::subclass::prelude::*;

use super::Started;
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::error::{KmsError, NotPresented};
use crate::kmsflipsink::frame_caps::FrameCaps;
use crate::kmsflipsink::head::LitElsewhere;
use crate::kmsflipsink::imp::KmsFlipSink;
use crate::kmsflipsink::report;
use crate::kmsflipsink::stream::Showing;
use crate::locks::lock;
use crate::refresh;

/// Caps whose frames wait for a display.
pub(in crate::kmsflipsink::imp) struct Waiting {
    caps: FrameCaps,
    /// The newest frame; it is shown as soon as there is a display.
    missed: Option<Missed>,
    /// When to look for a display on other connectors again.
    next_look: Instant,
}

impl Waiting {
    pub(super) fn caps(&self) -> &FrameCaps {
        &self.caps
    }

    /// Gives up the frame that was to be shown on a display to come.
    pub(super) fn forget_missed(&mut self) -> Option<gst::Buffer> {
        self.missed.take().map(|missed| missed.buffer)
    }
}

/// A frame that came while there was no display.
struct Missed {
    buffer: gst::Buffer,
    /// The base class rendered the frame. If false, it prerolled the frame and will render it later.
    is_rendered: bool,
}

/// While there is no display, other connectors are looked at this often.
const LOOK_ROUND: Duration = Duration::from_secs(1);
/// The same after a display was found that the sink could not get.
const LONG_LOOK_ROUND: Duration = Duration::from_secs(10);

/// How long each frame of these caps is shown.
fn frame_time(info: &gst_video::VideoInfo) -> Duration {
    let (frames, seconds) = (info.fps().numer() as u128, info.fps().denom() as u128);
    refresh::period(refresh::rate_mhz(frames * 1000, seconds))
}

impl Started {
    fn look_later(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.next_look = Instant::now() + LONG_LOOK_ROUND;
        }
    }
}

impl KmsFlipSink {
    /// Plans how frames of `caps` are shown. If an obstacle may pass by itself (no display, or another program
    /// has the card), this warns once, begins to wait and returns false.
    pub(in crate::kmsflipsink::imp) fn plan_or_wait(
        &self,
        caps: &FrameCaps,
    ) -> Result<bool, KmsError> {
        self.plan_or_wait_if(caps, |_| true)
    }

    /// The same for a thread that does not handle the caps of the stream. These may have become others meanwhile, and then
    /// the plan is of no use.
    pub(super) fn plan_again_or_wait(&self, caps: &FrameCaps) -> Result<bool, KmsError> {
        self.plan_or_wait_if(caps, |started| started.still_has(caps))
    }

    fn plan_or_wait_if(
        &self,
        caps: &FrameCaps,
        is_wanted: impl Fn(&Started) -> bool,
    ) -> Result<bool, KmsError> {
        let error = match self.plan(caps) {
            Ok(stream) => {
                let old = self
                    .started(|started| is_wanted(started).then(|| started.begin_stream(stream)));
                drop(old);
                self.note_screen();
                return Ok(true);
            }
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error),
        };
        let waiting = Waiting {
            caps: caps.clone(),
            missed: None,
            next_look: Instant::now() + LOOK_ROUND,
        };
        let old =
            self.started(|started| is_wanted(started).then(|| started.begin_waiting(waiting)));
        if old.flatten().is_some_and(|(_, waited)| waited.is_none()) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::NotFound,
                ("{}", report::waiting(&error))
            );
        }
        Ok(false)
    }

    /// Shows the frame that was missed for want of a display, now that there is one.
    pub(super) fn catch_up(&self) {
        let caps = self.started(|started| {
            let waiting = started.waiting.as_ref()?;
            let missed = waiting.missed.as_ref();
            missed.map(|_| waiting.caps.clone())
        });
        let Some(caps) = caps.flatten() else {
            return;
        };
        let stream = match self.plan(&caps) {
            Ok(stream) => stream,
            Err(error) => return gst::info!(CAT, imp = self, "still waiting: {error}"),
        };
        // The new display may show other memory without a copy.
        self.adoption.restart();
        let missed = self.started(|started| {
            if !started.still_has(&caps) {
                return (None, None);
            }
            let (old, waiting) = started.begin_stream(stream.clone());
            let missed = waiting.and_then(|waiting| waiting.missed);
            if let Some(Missed {
                buffer,
                is_rendered,
            }) = &missed
            {
                started.prerolled.is_repeated(buffer, *is_rendered);
            }
            (missed, old)
        });
        if let Some((Some(missed), _)) = missed {
            let options = lock(&self.settings).options();
            let _ = stream.show(&missed.buffer, Showing::default(), &options);
        }
    }

    /// Goes to another connector that fits the settings, if a display was plugged in there.
    pub(super) fn look_elsewhere(&self) -> Result<(), KmsError> {
        let head = self.started(|started| {
            let waiting = started.waiting.as_mut()?;
            let now = Instant::now();
            let is_due = now >= waiting.next_look && !started.head.is_plugged();
            is_due.then(|| {
                waiting.next_look = now + LOOK_ROUND;
                started.head.clone()
            })
        });
        let settings = lock(&self.settings).clone();
        let Some(head) = head.flatten().filter(|head| head.device.is_ours) else {
            return Ok(());
        };
        let Some(place) = head.lit_elsewhere(&settings.criteria()) else {
            return Ok(());
        };
        if place == LitElsewhere::Instead {
            head.close(settings.restore);
        }
        let mut new = match self.open() {
            Ok(new) => Some(new),
            // Another program may have that card.
            Err(error) if place == LitElsewhere::Beside => {
                gst::info!(CAT, imp = self, "still waiting: {error}");
                self.started(|started| started.look_later());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let old = self.started(|started| {
            let mut new = new.take()?;
            new.waiting = started.waiting.take();
            Some(std::mem::replace(started, new))
        });
        if let Some(unused) = new {
            // The sink was stopped meanwhile.
            unused.head.close(settings.restore);
        }
        if let Some(old) = old.flatten().filter(|_| place == LitElsewhere::Beside) {
            old.head.close(settings.restore);
        }
        Ok(())
    }

    /// Keeps `buffer` as the frame to show when a display comes, and waits as long as the frame would have been
    /// shown: without a display, the sink is no faster than with one.
    pub(in crate::kmsflipsink::imp) fn miss(
        &self,
        buffer: &gst::Buffer,
        is_rendered: bool,
    ) -> Result<(), NotPresented> {
        let missed = self.started(|started| {
            let waiting = started.waiting.as_mut()?;
            let time = frame_time(&waiting.caps.info);
            let old = waiting.missed.replace(Missed {
                buffer: buffer.clone(),
                is_rendered,
            });
            Some((started.head.clone(), time, old))
        });
        match missed.flatten() {
            Some((head, time, _)) => head.drop_waiting(time),
            None => Ok(()),
        }
    }
}
