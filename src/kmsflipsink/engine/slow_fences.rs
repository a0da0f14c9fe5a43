// SPDX-License-Identifier: MPL-2.0
//! Commits that wait for the fence of a frame: the kernel shows the frame when the fence is signalled, however long that
//! takes. So the event of such a flip is late, and not lost.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::outcome::flip_deadline_ns;
use super::{Crtc, Engine, Inner};
use crate::sys::sync_file;

/// A commit whose event is overdue, and the fences that it may wait for.
struct Overdue {
    crtc: u32,
    since_ns: u64,
    fences: Vec<Arc<OwnedFd>>,
}

/// Gives the commits that wait for a fence more time.
pub(super) fn wait_longer(engine: &Engine, now_ns: u64) {
    let overdue = engine.lock().overdue(now_ns);
    for commit in overdue {
        let mut fences = commit.fences.iter();
        if fences.any(|fence| !sync_file::is_signalled(fence.as_fd())) {
            engine.lock().extend(commit.crtc, commit.since_ns, now_ns);
        }
    }
}

impl Inner {
    fn overdue(&self, now_ns: u64) -> Vec<Overdue> {
        let crtcs = self.crtcs.iter();
        crtcs.filter_map(|crtc| overdue(crtc, now_ns)).collect()
    }

    /// Begins the time of a commit anew, if it is still the one that was made at `since_ns`.
    fn extend(&mut self, crtc: u32, since_ns: u64, now_ns: u64) {
        let in_flight = self.crtc(crtc).and_then(|crtc| crtc.in_flight.as_mut());
        if let Some((since, _)) = in_flight.filter(|(since, _)| *since == since_ns) {
            *since = now_ns;
        }
    }
}

fn overdue(crtc: &Crtc, now_ns: u64) -> Option<Overdue> {
    let (since_ns, kind) = crtc.in_flight?;
    // A sink that stops does not wait for a device that may hang.
    let is_closing = crtc.planes.iter().any(|plane| plane.closing.is_some());
    if now_ns < flip_deadline_ns(since_ns, kind) || is_closing {
        return None;
    }
    let queued = crtc.planes.iter().filter_map(|plane| plane.frames.queued());
    let fences: Vec<_> = queued.filter_map(|frame| frame.fence.clone()).collect();
    (!fences.is_empty()).then_some(Overdue {
        crtc: crtc.id,
        since_ns,
        fences,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::kmsflipsink::claimed_plane::{Frame, IgnoringObserver};
    use crate::kmsflipsink::device::Device;
    use crate::kmsflipsink::framebuffer::Framebuffer;

    const LATE_NS: u64 = 60_000_000_000;

    /// A CRTC with a commit in flight since 0, whose frame has this fence.
    fn stage(fence: Option<OwnedFd>) -> Engine {
        gst::init().unwrap();
        let device = Device::blank();
        let engine = Engine::new(&device).unwrap();
        let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
        let mut frame = Frame::blank(&Framebuffer::blank(&device));
        frame.fence = fence.map(Arc::new);
        let _ = crtc.planes[0].frames.submit(frame);
        crtc.begin_commit(0);
        engine.lock().crtcs.push(crtc);
        engine
    }

    fn since_ns(engine: &Engine) -> u64 {
        engine.lock().crtcs[0].in_flight.unwrap().0
    }

    #[test]
    fn a_flip_is_not_lost_while_its_fence_is_not_signalled() {
        // A socket is readable, as a fence that is signalled, when something was written to its other end.
        let (fence, signal) = UnixStream::pair().unwrap();
        let engine = stage(Some(fence.into()));
        wait_longer(&engine, 1);
        assert_eq!(since_ns(&engine), 0, "it is not late");
        wait_longer(&engine, LATE_NS);
        assert_eq!(since_ns(&engine), LATE_NS);
        std::io::Write::write_all(&mut &signal, b"!").unwrap();
        wait_longer(&engine, 2 * LATE_NS);
        assert_eq!(since_ns(&engine), LATE_NS, "the event is lost");
    }

    #[test]
    fn a_flip_without_a_fence_and_one_of_a_sink_that_stops_have_their_time() {
        let engine = stage(None);
        wait_longer(&engine, LATE_NS);
        assert_eq!(since_ns(&engine), 0);
        let (fence, _signal) = UnixStream::pair().unwrap();
        let engine = stage(Some(fence.into()));
        engine.lock().crtcs[0].planes[0].closing = Some(true);
        wait_longer(&engine, LATE_NS);
        assert_eq!(since_ns(&engine), 0);
    }
}
