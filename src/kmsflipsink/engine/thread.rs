// SPDX-License-Identifier: MPL-2.0
//! The thread of a card, and the ioctls that its actions need.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use drm::Device as _;
use drm::control::atomic::AtomicModeReq;
use drm::control::{AtomicCommitFlags, Device as _};

use super::action::Action;
use super::event_sources::{EventSources, read_late_events};
use super::outcome::MASTER_RETRY_NS;
use super::slow_fences::wait_longer;
use super::{Engine, Gone, Master, Outbox, Report};
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::crtc::{CommitKind, Extent, OutFenceRequest};
use crate::kmsflipsink::kms_plane::OtherPlane;
use crate::sys;
use crate::sys::clock::monotonic_ns;

pub fn start(engine: &Arc<Engine>) -> io::Result<()> {
    let mut inner = engine.lock();
    if !inner.is_running {
        inner.master = Master::Ours;
        inner.is_vt_away = false;
        inner.gone = None;
        let engine = engine.clone();
        std::thread::Builder::new()
            .name("kmsflipsink".into())
            .spawn(move || run(&engine))?;
        inner.is_running = true;
    }
    Ok(())
}

/// Tells waiting sinks that the thread has ended, even if it panicked.
struct ThreadEnd<'a>(&'a Engine);

impl Drop for ThreadEnd<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.is_leaving = false;
        if std::thread::panicking() {
            inner.is_running = false;
        }
        drop(inner);
        self.0.notify();
    }
}

fn run(engine: &Arc<Engine>) {
    let _end = ThreadEnd(engine);
    let mut sources = EventSources::open(engine);
    let mut outbox = Outbox::default();
    let mut has_waited = false;
    loop {
        sources.answer_handover(engine);
        let now_ns = monotonic_ns();
        read_late_events(engine, now_ns, &mut outbox);
        wait_longer(engine, now_ns);
        let action = engine.lock().next_action(now_ns, &mut outbox);
        // The first flip after an event comes first: a thread that is told anything may run at once, on the only
        // processor. A flip does not block.
        if !(has_waited && action.is_flip()) {
            std::mem::take(&mut outbox).deliver();
            engine.notify();
        }
        has_waited = matches!(action, Action::Wait { .. });
        match action {
            Action::Exit => break,
            Action::Commit {
                crtc,
                request,
                out_fence,
                blobs,
                framebuffers,
                kind,
            } => {
                commit(engine, crtc, request, out_fence, kind, &mut outbox);
                drop((blobs, framebuffers));
            }
            Action::Restore { crtc, planes } => {
                restore(engine, crtc, &planes);
                close(engine, crtc, &planes);
            }
            Action::Standby { crtc, request } => stand_by(engine, crtc, request),
            Action::Close { crtc, planes } => close(engine, crtc, &planes),
            Action::Suspend => suspend(engine),
            Action::Reclaim => reclaim(engine),
            Action::Wait { until_ns } => sources.wait(engine, until_ns, &mut outbox),
        }
    }
    // Upstream may keep dumb buffers for a long time, and these keep the device open. The console cannot be shown before,
    // so the terminal goes back to it afterwards, with `sources`.
    engine.device.give_up_master();
    engine.device.loan.end();
}

fn commit(
    engine: &Engine,
    crtc: u32,
    mut request: AtomicModeReq,
    out_fence: Option<OutFenceRequest>,
    kind: CommitKind,
    outbox: &mut Outbox,
) {
    let mut flags = kind.flags();
    flags.set(AtomicCommitFlags::PAGE_FLIP_EVENT, out_fence.is_none());
    let mut fd = -1;
    // Made once, because the kernel writes through it, and nothing else touches `fd` from here on.
    let out = &raw mut fd;
    if let Some(out_fence) = out_fence {
        out_fence.add(&mut request, out);
    }
    let result = match kind {
        CommitKind::Setup => set_up(engine, flags, request),
        CommitKind::Flip | CommitKind::AsyncFlip => engine.device.atomic_commit(flags, request),
    };
    // SAFETY: `out` points to `fd`, an aligned i32 that lives until the end of this function and has a value whether or
    // not the kernel wrote one. The kernel writes only during the calls.
    let fd = unsafe { out.read_volatile() };
    // SAFETY: the kernel has just made this fd for this commit alone, so it is open, and nothing else owns it.
    let fence = (result.is_ok() && fd >= 0).then(|| Arc::new(unsafe { OwnedFd::from_raw_fd(fd) }));
    // The kernel answers the same if the connector is gone, or a framebuffer.
    let is_missing = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
    let is_revoked = !engine.device.is_ours
        && result.as_ref().is_err_and(is_missing)
        && engine.device.is_crtc_gone(crtc);
    let mut inner = engine.lock();
    if let Some(crtc) = inner.crtc(crtc) {
        crtc.out_fence = fence;
    }
    inner.committed(crtc, result, is_revoked, monotonic_ns(), outbox);
}

/// Commits a setup without blocking. If the kernel refuses that, commits it once more and blocks: some drivers set no
/// mode without blocking, and if another program's commit is still in flight (EBUSY), the kernel waits for it.
fn set_up(engine: &Engine, flags: AtomicCommitFlags, request: AtomicModeReq) -> io::Result<()> {
    let Err(error) = engine.device.atomic_commit(flags, request.clone()) else {
        return Ok(());
    };
    if matches!(
        error.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::ENODEV)
    ) {
        return Err(error);
    }
    let (path, reason) = (&engine.device.path, sys::describe(&error));
    gst::debug!(CAT, "{path}: a setup that does not block: {reason}");
    let blocking = flags - AtomicCommitFlags::NONBLOCK;
    engine.device.atomic_commit(blocking, request)
}

/// Switches a CRTC off. A frame that comes meanwhile is committed again on EBUSY, as there is no event to wait for.
fn stand_by(engine: &Engine, crtc: u32, request: AtomicModeReq) {
    let flags = AtomicCommitFlags::NONBLOCK | AtomicCommitFlags::ALLOW_MODESET;
    let result = set_up(engine, flags, request);
    let path = &engine.device.path;
    match &result {
        Ok(()) => gst::info!(CAT, "{path}: CRTC {crtc} is off until the next frame"),
        Err(error) => {
            let reason = sys::describe(error);
            gst::warning!(CAT, "{path}: CRTC {crtc} stays on without frames: {reason}");
        }
    }
    let mut outbox = Outbox::default();
    engine
        .lock()
        .stood_by(crtc, result, monotonic_ns(), &mut outbox);
    outbox.deliver();
}

fn close(engine: &Engine, crtc: u32, planes: &[u32]) {
    let mut outbox = Outbox::default();
    engine.lock().close(crtc, planes, &mut outbox);
    outbox.deliver();
}

/// Makes the CRTC show again what it showed before. If the driver refuses that, tries again with the other planes off,
/// because their framebuffers may be gone with the program that made them, and then with all planes off. At last leaves
/// the mode as it is, and only switches the sinks' planes off: if possible with their properties put back.
fn restore(engine: &Engine, crtc_id: u32, planes: &[u32]) {
    let saved_mode = engine
        .lock()
        .crtc(crtc_id)
        .and_then(|crtc| crtc.saved_mode());
    let blob = saved_mode.and_then(|mode| engine.device.mode_blob(&mode).ok());
    let blob_id = blob.as_ref().map_or(0, |blob| blob.id());
    let requests = engine.lock().crtc(crtc_id).map(|crtc| {
        [
            crtc.restore(planes, blob_id, Extent::All),
            crtc.restore(planes, blob_id, Extent::SinksPlanes),
            crtc.restore(planes, blob_id, Extent::NoPlanes),
            crtc.switch_off(planes, true),
            crtc.switch_off(planes, false),
        ]
    });
    for request in requests.into_iter().flatten() {
        let result = engine
            .device
            .atomic_commit(AtomicCommitFlags::ALLOW_MODESET, request);
        match result {
            Ok(()) => break,
            Err(error) => gst::debug!(
                CAT,
                "{}: restoring CRTC {crtc_id}: {}",
                engine.device.path,
                sys::describe(&error)
            ),
        }
    }
}

/// Restores what the screen showed and gives up the card, because another virtual terminal is in the
/// foreground.
fn suspend(engine: &Engine) {
    let crtcs: Vec<(u32, Vec<u32>)> = engine
        .lock()
        .crtcs
        .iter()
        .map(|crtc| (crtc.id, crtc.planes.iter().map(|plane| plane.id).collect()))
        .collect();
    for (crtc, planes) in crtcs {
        restore(engine, crtc, &planes);
    }
    engine.device.give_up_master();
    let mut outbox = Outbox::default();
    let reason = "another virtual terminal is in the foreground";
    engine
        .lock()
        .lose_master(monotonic_ns(), reason, &mut outbox);
    outbox.deliver();
}

fn reclaim(engine: &Engine) {
    let result = if engine.device.may_become_master() {
        engine.device.acquire_master_lock()
    } else {
        Ok(())
    };
    let result = result.and_then(|()| engine.device.check_master());
    let found = match &result {
        Ok(()) => find_others(engine),
        Err(_) => Vec::new(),
    };
    let now_ns = monotonic_ns();
    let mut outbox = Outbox::default();
    let mut inner = engine.lock();
    match result {
        Ok(()) => {
            inner.master = Master::Ours;
            for (crtc, mut others) in found {
                // A plane of a sink is left to the setup of that sink's CRTC, which may be another one.
                others.retain(|other| !inner.has_plane(other.state.id));
                if let Some(crtc) = inner.crtc(crtc) {
                    crtc.note_others(others);
                }
            }
            for crtc in &mut inner.crtcs {
                crtc.needs_setup = true;
                crtc.forget_refusals();
                outbox.tell_all(crtc, &Report::MasterRegained);
            }
        }
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            inner.lose_device(Gone::device(sys::describe(&error)), &mut outbox);
        }
        Err(_) => {
            inner.master = Master::Lost {
                retry_at_ns: now_ns + MASTER_RETRY_NS,
            }
        }
    }
    drop(inner);
    outbox.deliver();
}

/// The planes that the CRTCs in use show now, after another program had the card.
fn find_others(engine: &Engine) -> Vec<(u32, Vec<OtherPlane>)> {
    let crtcs: Vec<_> = engine.lock().crtcs.iter().map(|crtc| crtc.id).collect();
    crtcs
        .into_iter()
        .filter_map(|crtc| Some((crtc, OtherPlane::read_all(&engine.device, crtc, None).ok()?)))
        .collect()
}
