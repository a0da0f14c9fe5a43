// SPDX-License-Identifier: MPL-2.0
//! Decides what the thread does next: closing, giving up the card or taking it back, committing, waiting.
//! The decision depends on [`Inner`] and the time alone; no ioctl is made here.

use std::sync::Arc;

use drm::control::atomic::AtomicModeReq;

use super::outcome::{Loss, drop_pending, expire_flip, release_planes};
use super::{Crtc, Framebuffer, Inner, Master, Outbox, PropertyBlob};
use crate::kmsflipsink::crtc::{CommitKind, OutFenceRequest};

pub(super) enum Action {
    Exit,
    Commit {
        crtc: u32,
        request: AtomicModeReq,
        /// Set if the commit is to make a fence and no event.
        out_fence: Option<OutFenceRequest>,
        /// Keeps the property blobs alive that the request may name.
        blobs: Vec<Arc<PropertyBlob>>,
        /// Keeps the framebuffers alive that the request of a setup names. Otherwise the frames keep theirs.
        framebuffers: Vec<Arc<Framebuffer>>,
        kind: CommitKind,
    },
    /// Switch the CRTC off, because no new frames come.
    Standby {
        crtc: u32,
        request: AtomicModeReq,
    },
    Restore {
        crtc: u32,
        planes: Vec<u32>,
    },
    Close {
        crtc: u32,
        planes: Vec<u32>,
    },
    Suspend,
    Reclaim,
    Wait {
        until_ns: u64,
    },
}

impl Action {
    pub(super) fn is_flip(&self) -> bool {
        matches!(
            self,
            Self::Commit {
                kind: CommitKind::Flip | CommitKind::AsyncFlip,
                ..
            }
        )
    }
}

impl Inner {
    /// Decides, drops the frames that cannot be shown, and queues the frames of the commit that it returns.
    pub(super) fn next_action(&mut self, now_ns: u64, outbox: &mut Outbox) -> Action {
        if self.gone.is_some() {
            return self.action_when_gone(outbox);
        }
        if self.crtcs.is_empty() {
            return match self.n_joining {
                0 => self.leave(),
                _ => Action::Wait { until_ns: u64::MAX },
            };
        }
        let mut until_ns = now_ns + 10_000_000_000;
        for crtc in &mut self.crtcs {
            if let Some(deadline_ns) = expire_flip(crtc, now_ns, outbox) {
                until_ns = until_ns.min(deadline_ns);
            }
        }
        if let Some(action) = self.action_to_close() {
            return action;
        }
        match self.master {
            Master::Ours if self.is_vt_away => return Action::Suspend,
            Master::Lost { retry_at_ns } if !self.is_vt_away => {
                if retry_at_ns <= now_ns {
                    return Action::Reclaim;
                }
                until_ns = until_ns.min(retry_at_ns);
            }
            _ => {}
        }
        let is_master = self.master == Master::Ours;
        for crtc in &mut self.crtcs {
            if !is_master || !crtc.is_plugged {
                let loss = if is_master {
                    Loss::Unplugged
                } else {
                    Loss::NoMaster
                };
                // Frames are dropped no faster than a display would show them.
                let at_ns = crtc.last_drop_ns + crtc.period_ns();
                if !crtc.has_pending() {
                } else if at_ns <= now_ns {
                    crtc.last_drop_ns = now_ns;
                    drop_pending(crtc, loss, outbox);
                } else {
                    until_ns = until_ns.min(at_ns);
                }
                continue;
            }
            match commit_time(crtc) {
                Some(at_ns) if at_ns <= now_ns => {
                    let request = crtc.begin_commit(now_ns);
                    let kind = crtc.kind_in_flight().unwrap_or(CommitKind::Flip);
                    return Action::Commit {
                        crtc: crtc.id,
                        request,
                        out_fence: crtc.out_fence_request(),
                        blobs: crtc.blobs_in_flight(),
                        framebuffers: match kind {
                            CommitKind::Setup => crtc.framebuffers(),
                            CommitKind::Flip | CommitKind::AsyncFlip => Vec::new(),
                        },
                        kind,
                    };
                }
                Some(at_ns) => until_ns = until_ns.min(at_ns),
                None => match crtc.standby_time() {
                    Some(at_ns) if at_ns <= now_ns => {
                        let (crtc, request) = (crtc.id, crtc.standby_request());
                        return Action::Standby { crtc, request };
                    }
                    Some(at_ns) => until_ns = until_ns.min(at_ns),
                    None => {}
                },
            }
        }
        Action::Wait { until_ns }
    }

    fn leave(&mut self) -> Action {
        (self.is_running, self.is_leaving) = (false, true);
        Action::Exit
    }

    /// The device is gone: closes planes without restoring, and drops frames.
    fn action_when_gone(&mut self, outbox: &mut Outbox) -> Action {
        for crtc in &mut self.crtcs {
            release_planes(crtc, |plane| plane.closing.is_some(), outbox);
            drop_pending(crtc, Loss::Unplugged, outbox);
        }
        self.release_crtcs(outbox);
        if self.crtcs.is_empty() {
            return self.leave();
        }
        Action::Wait { until_ns: u64::MAX }
    }

    fn action_to_close(&mut self) -> Option<Action> {
        for crtc in self.crtcs.iter().filter(|crtc| crtc.in_flight.is_none()) {
            let closing: Vec<_> = crtc
                .planes
                .iter()
                .filter(|plane| plane.closing.is_some())
                .collect();
            if closing.is_empty() {
                continue;
            }
            let planes = closing.iter().map(|plane| plane.id).collect();
            let restores = closing.iter().any(|plane| plane.closing == Some(true));
            // `is_changed` counts sinks that closed earlier, too: the last sink restores the CRTC and its mode.
            return Some(
                if restores && crtc.is_changed && self.master == Master::Ours {
                    Action::Restore {
                        crtc: crtc.id,
                        planes,
                    }
                } else {
                    Action::Close {
                        crtc: crtc.id,
                        planes,
                    }
                },
            );
        }
        None
    }
}

/// When the next commit of a CRTC may be made; `None` if there is nothing to commit.
fn commit_time(crtc: &Crtc) -> Option<u64> {
    let is_showing = || {
        crtc.planes
            .iter()
            .any(|plane| plane.frames.current().is_some())
    };
    let wants = crtc.has_pending() || (crtc.needs_setup && is_showing() && !crtc.is_asleep());
    if crtc.in_flight.is_some() || crtc.mode.is_none() || !wants {
        return None;
    }
    // A driver without vertical blanks reports each flip as done at once, so the mode's period sets the
    // pace.
    let paced_ns = if crtc.has_vblank {
        0
    } else {
        crtc.last_flip_ns + crtc.period_ns()
    };
    Some(paced_ns.max(crtc.retry_at_ns))
}
