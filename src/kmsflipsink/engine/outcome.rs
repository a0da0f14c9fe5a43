// SPDX-License-Identifier: MPL-2.0
//! Handles the result of an action: a commit that was taken or refused, a flip, the loss of the card. Frames to
//! drop and reports to sinks go into the [`Outbox`]; no ioctl is made here.

use std::io;

use super::{Crtc, Inner, Master, Outbox, Report};
use crate::display::presentation::Presentation;
use crate::kmsflipsink::claimed_plane::{ClaimedPlane, Refusals};
use crate::kmsflipsink::crtc::{CommitKind, Standby};
use crate::kmsflipsink::error::Gone;
use crate::kmsflipsink::layer::Overlay;
use crate::kmsflipsink::stats::Flip;
use crate::sys;

/// A flip event that has not come after this time is taken for lost.
const FLIP_TIMEOUT_NS: u64 = 1_000_000_000;
/// The same for the event of a setup, during which the driver may train a link.
const SETUP_TIMEOUT_NS: u64 = 3_000_000_000;
/// The time between two tries to become master again.
pub(super) const MASTER_RETRY_NS: u64 = 250_000_000;
/// The time between two tries to commit while the kernel answers EBUSY.
const BUSY_RETRY_NS: u64 = 2_000_000;
/// An EBUSY that lasts this long is taken for a refusal.
const BUSY_TIMEOUT_NS: u64 = 1_000_000_000;

/// Why frames are dropped without a commit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loss {
    NoMaster,
    Unplugged,
}

impl Inner {
    /// Handles the result of the commit in flight. `is_revoked` says whether it failed because the lease that the
    /// application passed was revoked.
    pub(super) fn committed(
        &mut self,
        crtc_id: u32,
        result: io::Result<()>,
        is_revoked: bool,
        now_ns: u64,
        outbox: &mut Outbox,
    ) {
        let Some(crtc) = self.crtcs.iter_mut().find(|crtc| crtc.id == crtc_id) else {
            return;
        };
        let Err(error) = result else {
            crtc.busy_since_ns = None;
            crtc.is_changed = true;
            crtc.in_flight = crtc.in_flight.map(|(_, kind)| (now_ns, kind));
            for plane in &mut crtc.planes {
                plane.are_extras_in_flight = false;
                if let Some(frame) = plane.frames.queued() {
                    frame.framebuffer.judge(Ok(()));
                    if let Some(layer) = frame.layer() {
                        layer.framebuffer.judge(Ok(()));
                    }
                    plane.settled_serial = frame.serial;
                    plane.refusals = Refusals::default();
                }
            }
            return;
        };
        let was_async = crtc.kind_in_flight() == Some(CommitKind::AsyncFlip);
        let was_setup = crtc.fail_commit();
        match error.raw_os_error() {
            Some(libc::EBUSY)
                if now_ns - *crtc.busy_since_ns.get_or_insert(now_ns) < BUSY_TIMEOUT_NS =>
            {
                crtc.retry_at_ns = now_ns + BUSY_RETRY_NS;
                defer(crtc, outbox);
            }
            Some(libc::EACCES | libc::EPERM) => {
                defer(crtc, outbox);
                self.lose_master(now_ns, "another program became master of the card", outbox);
            }
            Some(libc::ENODEV) => {
                defer(crtc, outbox);
                self.lose_device(Gone::device(sys::describe(&error)), outbox);
            }
            Some(libc::ENOENT) if is_revoked => {
                defer(crtc, outbox);
                self.lose_device(Gone::lease(&error), outbox);
            }
            _ if was_async => {
                stop_tearing(crtc, &error, outbox);
                defer(crtc, outbox);
            }
            // Another program may have changed the CRTC meanwhile: commit once more, with everything
            // set up again.
            _ if !was_setup => {
                crtc.needs_setup = true;
                defer(crtc, outbox);
            }
            _ => refuse(crtc, &error, now_ns, outbox),
        }
    }

    /// Handles that another program has the card: tells the sinks, and sets the time of the next try.
    pub(super) fn lose_master(&mut self, now_ns: u64, reason: &str, outbox: &mut Outbox) {
        if self.master == Master::Ours {
            for crtc in &mut self.crtcs {
                crtc.needs_setup = true;
                crtc.standby = Standby::Awake; // the other program may have switched it on
                outbox.tell_all(crtc, &Report::MasterLost(reason.to_owned()));
            }
        }
        self.master = Master::Lost {
            retry_at_ns: now_ns + MASTER_RETRY_NS,
        };
    }

    /// Drops the frames in flight, and tells all sinks that the device is gone.
    pub(super) fn lose_device(&mut self, gone: Gone, outbox: &mut Outbox) {
        if self.gone.is_none() {
            self.gone = Some(gone.clone());
            for crtc in &mut self.crtcs {
                crtc.in_flight = None;
                let planes = crtc.planes.iter_mut();
                outbox
                    .frames
                    .extend(planes.filter_map(|plane| plane.frames.refused()));
                outbox.tell_all(crtc, &Report::Gone(gone.clone()));
            }
        }
    }

    /// Handles that the commit in flight is on the screen, by the kernel's own time and number of the vertical blank.
    /// `sequence` is 0 if the kernel has no number.
    pub(super) fn flipped(
        &mut self,
        crtc_id: u32,
        shown_ns: u64,
        sequence: u32,
        outbox: &mut Outbox,
    ) {
        if let Some(crtc) = self.crtc(crtc_id) {
            let sequence = (crtc.has_vblank && sequence != 0).then_some(sequence);
            let is_hw_clock = crtc.has_vblank;
            finish_flip(crtc, shown_ns, sequence, is_hw_clock, outbox);
        }
    }

    /// Handles that the commit in flight is on the screen since a time that the kernel does not tell.
    pub(super) fn flipped_before(&mut self, crtc_id: u32, now_ns: u64, outbox: &mut Outbox) {
        if let Some(crtc) = self.crtc(crtc_id) {
            finish_flip(crtc, now_ns, None, false, outbox);
        }
    }

    /// Gives up planes, and with the last one the CRTC.
    pub(super) fn close(&mut self, crtc_id: u32, planes: &[u32], outbox: &mut Outbox) {
        if let Some(crtc) = self.crtc(crtc_id) {
            release_planes(crtc, |plane| planes.contains(&plane.id), outbox);
            self.release_crtcs(outbox);
        }
    }

    /// Gives up the CRTCs on which no sink has a plane any more.
    pub(super) fn release_crtcs(&mut self, outbox: &mut Outbox) {
        let unused = self.crtcs.extract_if(.., |crtc| crtc.planes.is_empty());
        for mut crtc in unused {
            let left = [&mut crtc.leftovers, &mut crtc.leftovers_in_flight];
            outbox.leftovers.extend(left.map(std::mem::take));
            outbox.others.append(&mut crtc.others);
            outbox.vacated.append(&mut crtc.vacated);
            let (mode, blobs) = crtc.into_blobs();
            outbox.modes.extend(mode);
            outbox.blobs.extend(blobs);
        }
    }
}

/// Gives up the planes that `goes` selects, with all their frames.
pub(super) fn release_planes(
    crtc: &mut Crtc,
    goes: impl Fn(&ClaimedPlane) -> bool,
    outbox: &mut Outbox,
) {
    for plane in crtc.planes.extract_if(.., |plane| goes(plane)) {
        outbox.frames.extend(plane.frames.into_frames());
        outbox.blobs.extend(plane.blobs);
    }
}

/// Makes the frames of the commit pending again, so that it is repeated.
fn defer(crtc: &mut Crtc, outbox: &mut Outbox) {
    let planes = crtc.planes.iter_mut();
    outbox
        .frames
        .extend(planes.filter_map(|plane| plane.frames.deferred()));
}

/// Has frames wait for the vertical blank, because the kernel refused to show one at once.
fn stop_tearing(crtc: &mut Crtc, error: &io::Error, outbox: &mut Outbox) {
    for plane in &mut crtc.planes {
        if std::mem::take(&mut plane.pace.may_tear) {
            let report = Report::TearingRefused(sys::describe(error));
            outbox.reports.push((plane.observer.clone(), report));
        }
    }
}

/// Drops the frames of a commit that is not repeated.
fn refuse(crtc: &mut Crtc, error: &io::Error, now_ns: u64, outbox: &mut Outbox) {
    let reason = &sys::describe(error);
    crtc.busy_since_ns = None;
    let mut had_frame = false;
    for plane in &mut crtc.planes {
        let Some(frame) = plane.frames.refused() else {
            continue;
        };
        had_frame = true;
        // The verdict is noted here and not by the streaming thread that waits for it, because a flush ends
        // that wait. Memory that was shown before is not the reason; what is above it may be.
        let layer = frame.layer().map(|layer| &layer.framebuffer);
        let above = layer.filter(|_| frame.framebuffer.verdict() == Some(Ok(())));
        above.unwrap_or(&frame.framebuffer).judge(Err(reason));
        plane.settled_serial = frame.serial;
        plane.stats.dropped.refused += 1;
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        plane.refusals.add(errno, now_ns);
        let report = Report::Refused(reason.to_owned());
        outbox.reports.push((plane.observer.clone(), report));
        outbox.frames.push(frame);
    }
    if !had_frame {
        // The commit only set the CRTC up. Try again later.
        crtc.retry_at_ns = now_ns + MASTER_RETRY_NS;
    }
}

/// Drops the pending frames, which cannot be shown.
pub(super) fn drop_pending(crtc: &mut Crtc, loss: Loss, outbox: &mut Outbox) {
    for plane in &mut crtc.planes {
        if let Some(frame) = plane.frames.withdraw() {
            let dropped = &mut plane.stats.dropped;
            *(match loss {
                Loss::NoMaster => &mut dropped.no_master,
                Loss::Unplugged => &mut dropped.disconnected,
            }) += 1;
            plane.settled_serial = frame.serial;
            outbox.frames.push(frame);
        }
    }
}

/// When the event of a commit that was made at `since_ns` is taken for lost.
pub(super) fn flip_deadline_ns(since_ns: u64, kind: CommitKind) -> u64 {
    since_ns
        + match kind {
            CommitKind::Setup => SETUP_TIMEOUT_NS,
            CommitKind::Flip | CommitKind::AsyncFlip => FLIP_TIMEOUT_NS,
        }
}

/// Ends the flip in flight if its event is overdue. Otherwise returns when it will be.
pub(super) fn expire_flip(crtc: &mut Crtc, now_ns: u64, outbox: &mut Outbox) -> Option<u64> {
    let (since_ns, kind) = crtc.in_flight?;
    let deadline_ns = flip_deadline_ns(since_ns, kind);
    if now_ns < deadline_ns {
        return Some(deadline_ns);
    }
    for plane in &mut crtc.planes {
        plane.stats.lost_events += 1;
    }
    finish_flip(crtc, now_ns, None, false, outbox);
    None
}

fn finish_flip(
    crtc: &mut Crtc,
    shown_ns: u64,
    sequence: Option<u32>,
    is_hw_clock: bool,
    outbox: &mut Outbox,
) {
    let Some((_, kind)) = crtc.in_flight.take() else {
        return;
    };
    // Only a setup leaves anything, and other commits should allocate no memory for it.
    if kind == CommitKind::Setup {
        outbox.leftovers.push(crtc.take_setup());
    }
    outbox.fences.extend(crtc.out_fence.take());
    crtc.last_flip_ns = shown_ns;
    let period_ns = crtc.period_ns();
    for plane in &mut crtc.planes {
        if plane.frames.queued().is_none() {
            continue;
        }
        outbox.frames.extend(plane.frames.shown());
        let Some(frame) = plane.frames.current().filter(|frame| frame.is_counted) else {
            continue;
        };
        let is_vsync = kind != CommitKind::AsyncFlip;
        let presentation = Presentation {
            timing: frame.timing,
            shown_ns: Some(shown_ns),
            period_ns,
            sequence,
            is_vsync,
            // The event of a flip that did not wait has the time of the vertical blank before it.
            is_hw_clock: is_hw_clock && is_vsync,
            is_zero_copy: frame.is_zero_copy,
        };
        plane.log.shown(frame.is_zero_copy);
        match frame.overlay {
            Overlay::Absent => {}
            Overlay::Above(_) => plane.stats.overlay_on_plane += 1,
            Overlay::Blended => plane.stats.overlay_blended += 1,
        }
        plane.stats.flipped(Flip {
            submitted_ns: frame.submitted_ns,
            shown_ns,
            sequence,
            late_ns: presentation.late_ns(),
            is_modeset: kind == CommitKind::Setup,
        });
        let report = Report::Shown(presentation);
        outbox.reports.push((plane.observer.clone(), report));
    }
}

#[cfg(test)]
mod tests;
