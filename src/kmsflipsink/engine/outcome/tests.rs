// SPDX-License-Identifier: MPL-2.0

use std::sync::Arc;
use std::time::Duration;

use super::super::action::Action;
use super::*;
use crate::kmsflipsink::claimed_plane::{Frame, IgnoringObserver, Observer};
use crate::kmsflipsink::crtc::{ModeSet, Setup};
use crate::kmsflipsink::device::Device;
use crate::kmsflipsink::error::NotPresented;
use crate::kmsflipsink::framebuffer::Framebuffer;
use crate::kmsflipsink::head::Head;
use crate::kmsflipsink::kms_plane::PlaneState;
use crate::kmsflipsink::layer::Layer;
use crate::kmsflipsink::mode::{FrameNeed, ModeRequest};

/// A sink on a card without a thread: the test does what the thread would do.
fn stage() -> Head {
    gst::init().unwrap();
    let head = Head::blank(&Device::blank());
    let mut inner = head.engine.lock();
    inner.crtcs.push(Crtc::blank(Arc::new(IgnoringObserver)));
    inner.is_running = true;
    drop(inner);
    head
}

fn frame(framebuffer: &Arc<Framebuffer>) -> Frame {
    Frame::blank(framebuffer)
}

/// Waits for a pending frame and queues it, as for a commit.
fn begin_commit(head: &Head) {
    let engine = &head.engine;
    let mut inner = engine.lock();
    while !inner.crtcs[0].has_pending() {
        engine.wait(&mut inner, Duration::from_millis(1));
    }
    inner.crtcs[0].begin_commit(0);
}

fn end_commit(head: &Head, errno: i32) {
    let result = match errno {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(errno)),
    };
    let mut outbox = Outbox::default();
    let now_ns = crate::sys::clock::monotonic_ns();
    let is_revoked = errno == libc::ENOENT;
    head.engine
        .lock()
        .committed(1, result, is_revoked, now_ns, &mut outbox);
    outbox.deliver();
    head.engine.notify();
}

#[test]
fn the_thread_is_woken_for_a_frame_unless_a_flip_will_wake_it() {
    for (is_plugged, while_in_flight) in [(true, 0), (false, 1)] {
        let head = stage();
        let framebuffer = Framebuffer::blank(&head.device);
        let wakes = || head.engine.wake.read().unwrap_or(0);
        head.present(frame(&framebuffer), false).unwrap();
        assert_eq!(wakes(), 1, "nothing is in flight");
        begin_commit(&head);
        head.engine.lock().crtcs[0].is_plugged = is_plugged;
        head.present(frame(&framebuffer), false).unwrap();
        assert_eq!(wakes(), while_in_flight, "plugged: {is_plugged}");
    }
}

#[test]
fn a_lease_that_is_revoked_is_the_end_and_says_what_helps() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    head.present(frame(&framebuffer), false).unwrap();
    begin_commit(&head);
    end_commit(&head, libc::ENOENT);
    match head.present(frame(&framebuffer), false) {
        Err(NotPresented::Gone(gone)) => {
            let said = gone.to_string();
            assert!(
                said.contains("revoked") && said.contains("ENOENT"),
                "{said}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_that_are_refused_for_long_are_an_error_until_one_is_taken() {
    let mut refusals = Refusals::default();
    let second_ns = 1_000_000_000;
    let start_ns = crate::sys::clock::monotonic_ns();
    for ns in [start_ns, start_ns + second_ns] {
        refusals.add(libc::EINVAL, ns);
        assert_eq!(refusals.failing(ns), None, "two may pass");
    }
    refusals.add(libc::ENOSPC, start_ns + second_ns);
    let failing = |ns| refusals.failing(start_ns + ns);
    assert_eq!(failing(second_ns), Some(libc::ENOSPC));
    assert_eq!(
        failing(9 * second_ns),
        None,
        "what was once refused is tried again"
    );
    refusals = Refusals::default();
    for ns in [start_ns, start_ns + 1, start_ns + 2] {
        refusals.add(libc::EINVAL, ns);
        assert_eq!(refusals.failing(ns), None, "they may pass in a second");
    }
    for n in 1..9 {
        let ns = start_ns + n * 3 * second_ns;
        refusals.add(libc::EINVAL, ns);
        assert_eq!(refusals.failing(ns), None, "they are far apart");
    }
    for _ in 0..2 {
        refusals.add(libc::ENOSPC, start_ns + 25 * second_ns);
    }
    let head = stage();
    head.engine.lock().crtcs[0].planes[0].refusals = refusals;
    let framebuffer = Framebuffer::blank(&head.device);
    let presented = head.present(frame(&framebuffer), false);
    let is_errno = matches!(presented, Err(NotPresented::Failing(libc::ENOSPC)));
    assert!(is_errno, "{presented:?}");
    head.engine.lock().crtcs[0].planes[0].refusals = Refusals::default();
    head.present(frame(&framebuffer), false).unwrap();
}

#[test]
fn two_planes_share_a_commit_and_each_keeps_its_own_frames() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    let mut inner = head.engine.lock();
    let mut outbox = Outbox::default();
    let crtc = &mut inner.crtcs[0];
    crtc.planes
        .push(ClaimedPlane::blank(2, Arc::new(IgnoringObserver)));
    let frame = |serial| Frame {
        serial,
        ..frame(&framebuffer)
    };
    let current = |crtc: &Crtc| [0, 1].map(|at| crtc.planes[at].frames.current().map(|f| f.serial));
    crtc.planes[0].frames.submit(frame(1)).unwrap();
    crtc.planes[1].frames.submit(frame(100)).unwrap();
    crtc.begin_commit(0);
    finish_flip(crtc, 1, None, true, &mut outbox);
    assert_eq!(current(crtc), [Some(1), Some(100)]);
    crtc.planes[1].frames.submit(frame(101)).unwrap();
    crtc.begin_commit(2);
    let next = [0, 1].map(|at| crtc.planes[at].frames.next().map(|f| f.serial));
    assert_eq!(next, [Some(1), Some(101)]);
    finish_flip(crtc, 3, None, true, &mut outbox);
    assert_eq!(current(crtc), [Some(1), Some(101)]);
    release_planes(crtc, |plane| plane.id == 1, &mut outbox);
    let released: Vec<_> = outbox.frames.iter().map(|frame| frame.serial).collect();
    assert_eq!((released, crtc.planes.len()), (vec![100, 1], 1));
}

fn n_left(crtc: &Crtc) -> usize {
    crtc.leftovers.frames.len() + crtc.leftovers_in_flight.frames.len()
}

fn n_released(outbox: &Outbox) -> usize {
    let released = outbox.leftovers.iter();
    released.map(|leftovers| leftovers.frames.len()).sum()
}

/// What a sink asks for while a setup is in flight is for the next one, whatever the kernel answers.
#[test]
fn a_setup_that_is_asked_for_while_another_is_in_flight_follows_it() {
    for errno in [0, libc::EBUSY, libc::EINVAL] {
        let head = stage();
        let framebuffer = Framebuffer::blank(&head.device);
        head.present(frame(&framebuffer), false).unwrap();
        begin_commit(&head);
        let mut inner = head.engine.lock();
        assert!(inner.crtcs[0].is_setup_in_flight() && !inner.crtcs[0].needs_setup);
        inner.crtcs[0].move_sink(1, PlaneState::blank(7));
        drop(inner.crtcs[0].planes[0].set_extras(vec![], vec![], vec![]));
        let mut outbox = Outbox::default();
        let result = match errno {
            0 => Ok(()),
            _ => Err(io::Error::from_raw_os_error(errno)),
        };
        inner.committed(1, result, false, 1, &mut outbox);
        let crtc = &inner.crtcs[0];
        assert!(crtc.needs_setup && crtc.planes[0].are_extras_new);
        assert_eq!((n_left(crtc), n_released(&outbox)), (1, 0), "still shown");
    }
}

#[test]
fn a_setup_that_fails_is_made_again_with_what_it_was_to_set() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    drop(head.engine.lock().crtcs[0].planes[0].set_extras(vec![], vec![], vec![]));
    head.engine.lock().crtcs[0]
        .leftovers
        .frames
        .push(frame(&framebuffer));
    head.present(frame(&framebuffer), false).unwrap();
    begin_commit(&head);
    end_commit(&head, libc::EBUSY);
    let inner = head.engine.lock();
    let crtc = &inner.crtcs[0];
    assert!(crtc.needs_setup && crtc.planes[0].are_extras_new);
    assert_eq!(n_left(crtc), 1);
}

/// Keeps the reports of the card's thread.
#[derive(Default)]
struct Recorder(crate::locks::Mutex<Vec<Report>>);

impl Observer for Recorder {
    fn report(&self, report: Report) {
        self.0.lock().push(report);
    }
}

/// Shows a frame, and returns the kind of its commit.
fn show(head: &Head, framebuffer: &Arc<Framebuffer>) -> Option<CommitKind> {
    head.present(frame(framebuffer), false).unwrap();
    begin_commit(head);
    let kind = head.engine.lock().crtcs[0].kind_in_flight();
    end_commit(head, 0);
    let mut outbox = Outbox::default();
    head.engine.lock().flipped(1, 1, 1, &mut outbox);
    outbox.deliver();
    kind
}

#[test]
fn a_flip_at_once_that_is_refused_is_made_at_the_vertical_blank_and_so_are_all_after_it() {
    let head = stage();
    let recorder = Arc::new(Recorder::default());
    head.engine.lock().crtcs[0].planes[0].observer = recorder.clone();
    head.engine.lock().crtcs[0].planes[0].pace.may_tear = true;
    let framebuffer = Framebuffer::blank(&head.device);
    assert_eq!(show(&head, &framebuffer), Some(CommitKind::Setup));
    assert_eq!(show(&head, &framebuffer), Some(CommitKind::AsyncFlip));
    head.present(frame(&framebuffer), false).unwrap();
    begin_commit(&head);
    end_commit(&head, libc::EINVAL);
    let crtc = &mut head.engine.lock().crtcs[0];
    assert!(crtc.has_pending() && !crtc.needs_setup);
    crtc.begin_commit(0);
    assert_eq!(crtc.kind_in_flight(), Some(CommitKind::Flip));
    let told: Vec<_> = recorder.0.lock().drain(..).collect();
    let [
        Report::Shown(set_up),
        Report::Shown(torn),
        Report::TearingRefused(reason),
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!((set_up.is_vsync, torn.is_vsync), (true, false));
    assert!(set_up.is_hw_clock && !torn.is_hw_clock);
    assert!(reason.contains("EINVAL"), "{reason}");
}

#[test]
fn caps_of_another_rate_need_a_setup_only_if_the_mode_changes() {
    let head = stage();
    let set_up = |clock, rate_mhz| {
        let need = FrameNeed {
            width: 4,
            height: 4,
            rate_mhz: Some(rate_mhz),
        };
        let setup = Setup {
            mode: ModeSet::blank(&head.device, clock),
            backdrop: None,
        };
        assert!(head.set_up(&setup, ModeRequest::Auto, need));
        let crtc = &head.engine.lock().crtcs[0];
        (crtc.needs_setup, crtc.need)
    };
    set_up(25_000, 24_000);
    show(&head, &Framebuffer::blank(&head.device));
    let (needs_setup, need) = set_up(25_000, 48_000);
    let rate_mhz = need.and_then(|need| need.rate_mhz);
    assert_eq!((needs_setup, rate_mhz), (false, Some(48_000)));
    assert!(set_up(50_000, 50_000).0);
}

#[test]
fn the_event_of_a_setup_is_waited_for_longer_than_that_of_a_flip() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    let limit = |crtc: &mut Crtc| {
        let limit = expire_flip(crtc, 0, &mut Outbox::default());
        let limit = limit.unwrap();
        assert!(expire_flip(crtc, limit - 1, &mut Outbox::default()).is_some());
        assert!(expire_flip(crtc, limit, &mut Outbox::default()).is_none());
        limit
    };
    let mut inner = head.engine.lock();
    let limits = [(); 2].map(|()| {
        let crtc = &mut inner.crtcs[0];
        crtc.planes[0].frames.submit(frame(&framebuffer)).unwrap();
        crtc.begin_commit(0);
        limit(crtc)
    });
    assert_eq!(limits, [SETUP_TIMEOUT_NS, FLIP_TIMEOUT_NS]);
}

/// Closes a plane as its sink does, and returns whether the thread restores anything.
fn is_restored(head: &Head, id: u32) -> bool {
    let mut outbox = Outbox::default();
    let mut inner = head.engine.lock();
    inner.crtcs[0].plane_mut(id).unwrap().closing = Some(true);
    let action = inner.next_action(100_000_000, &mut outbox);
    let (planes, is_restored) = match action {
        Action::Restore { planes, .. } => (planes, true),
        Action::Close { planes, .. } => (planes, false),
        _ => panic!("the plane is not closed"),
    };
    assert_eq!(planes, [id]);
    inner.close(1, &planes, &mut outbox);
    is_restored
}

#[test]
fn a_sink_that_goes_to_another_plane_keeps_its_numbers_and_gives_its_frames_back() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    head.present(frame(&framebuffer), false).unwrap();
    begin_commit(&head);
    end_commit(&head, 0);
    let mut outbox = Outbox::default();
    head.engine.lock().flipped(1, 1, 1, &mut outbox);
    let mut inner = head.engine.lock();
    inner.crtcs[0].move_sink(1, PlaneState::blank(7));
    let plane = inner.crtcs[0].plane(7).unwrap();
    assert_eq!(
        (plane.stats.shown, plane.frames.current().is_some()),
        (1, false)
    );
    assert!(!inner.has_plane(1) && inner.crtcs[0].needs_setup);
    assert_eq!(n_left(&inner.crtcs[0]), 1, "still on the screen");
    // Another CRTC cannot show the plane before this one has switched it off.
    let is_taken = |inner: &Inner| [1, 2].map(|crtc| inner.is_taken(crtc, 1));
    assert_eq!(is_taken(&inner), [false, true]);
    // The commit of the first frame on the new plane is a setup.
    let new = frame(&framebuffer);
    inner.crtcs[0]
        .plane_mut(7)
        .unwrap()
        .frames
        .submit(new)
        .unwrap();
    inner.crtcs[0].begin_commit(2);
    assert_eq!(is_taken(&inner), [false, true]);
    inner.committed(1, Ok(()), false, 3, &mut outbox);
    assert_eq!(is_taken(&inner), [false, true], "not on the screen yet");
    inner.flipped(1, 4, 2, &mut outbox);
    assert_eq!(is_taken(&inner), [false, false]);
    assert_eq!((n_left(&inner.crtcs[0]), n_released(&outbox)), (0, 1));
    // Another CRTC may show the plane that was left.
    assert_eq!(inner.leave_plane_to(2, 1).len(), 1);
    assert!(inner.crtcs[0].others.is_empty());
}

#[test]
fn the_last_sink_restores_the_crtc_even_if_it_showed_nothing_itself() {
    let head = stage();
    head.engine.lock().crtcs[0]
        .planes
        .push(ClaimedPlane::blank(2, Arc::new(IgnoringObserver)));
    head.present(frame(&Framebuffer::blank(&head.device)), false)
        .unwrap();
    begin_commit(&head);
    end_commit(&head, 0);
    head.engine.lock().flipped(1, 1, 1, &mut Outbox::default());
    assert!(is_restored(&head, 1));
    assert!(is_restored(&head, 2));
}

#[test]
fn a_crtc_that_no_commit_changed_is_left_alone() {
    let head = stage();
    head.present(frame(&Framebuffer::blank(&head.device)), false)
        .unwrap();
    begin_commit(&head);
    end_commit(&head, libc::EINVAL);
    assert!(!is_restored(&head, 1));
}

#[test]
fn a_first_commit_that_is_refused_is_told_to_who_waits_for_it() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    let presented = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| head.present(frame(&framebuffer), true));
        begin_commit(&head);
        end_commit(&head, libc::EINVAL);
        waiting.join().unwrap()
    });
    assert!(matches!(presented, Err(NotPresented::Refused(_))));
}

#[test]
fn a_first_commit_that_is_refused_after_a_flush_is_known_all_the_same() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    let presented = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| head.present(frame(&framebuffer), true));
        begin_commit(&head);
        head.withdraw();
        head.set_flushing(true);
        waiting.join().unwrap()
    });
    assert!(presented.is_ok(), "a flush ends the waiting: {presented:?}");
    end_commit(&head, libc::EINVAL);
    assert!(matches!(framebuffer.verdict(), Some(Err(_))));
}

#[test]
fn a_frame_that_was_dropped_before_its_commit_says_nothing_of_its_memory() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    let presented = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| head.present(frame(&framebuffer), true));
        begin_commit(&head);
        end_commit(&head, libc::EACCES);
        let mut outbox = Outbox::default();
        head.engine.lock().next_action(100_000_000, &mut outbox);
        head.engine.notify();
        waiting.join().unwrap()
    });
    assert!(presented.is_ok(), "dropped and counted: {presented:?}");
    assert_eq!(framebuffer.verdict(), None);
}

#[test]
fn a_frame_that_was_shown_before_is_not_blamed_for_what_is_above_it() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    let layer = Layer::blank(&head.device);
    let with_layer = || Frame {
        overlay: Overlay::Above(layer.clone()),
        ..frame(&framebuffer)
    };
    // A frame that was never shown is blamed itself, and then copied with the same above it.
    let other = Framebuffer::blank(&head.device);
    let untried = Frame {
        framebuffer: other.clone(),
        ..with_layer()
    };
    for (frame, errno) in [
        (untried, libc::EINVAL),
        (frame(&framebuffer), 0),
        (with_layer(), libc::EINVAL),
    ] {
        head.engine.lock().crtcs[0].needs_setup = true;
        head.present(frame, false).unwrap();
        begin_commit(&head);
        end_commit(&head, errno);
        let mut outbox = Outbox::default();
        head.engine.lock().flipped(1, 1, 1, &mut outbox);
    }
    assert!(matches!(other.verdict(), Some(Err(_))));
    assert_eq!(framebuffer.verdict(), Some(Ok(())));
    assert!(matches!(layer.framebuffer.verdict(), Some(Err(_))));
}

#[test]
fn frames_with_overlays_are_counted_when_they_are_shown() {
    let head = stage();
    let layer = Layer::blank(&head.device);
    for overlay in [
        Overlay::Blended,
        Overlay::Absent,
        Overlay::Above(layer.clone()),
        Overlay::Above(layer),
    ] {
        let frame = Frame {
            overlay,
            ..Frame::blank(&Framebuffer::blank(&head.device))
        };
        head.present(frame, false).unwrap();
        begin_commit(&head);
        end_commit(&head, 0);
        let mut outbox = Outbox::default();
        head.engine.lock().flipped(1, 1, 1, &mut outbox);
    }
    let inner = head.engine.lock();
    let stats = &inner.crtcs[0].planes[0].stats;
    let counts = (stats.shown, stats.overlay_on_plane, stats.overlay_blended);
    assert_eq!(counts, (4, 2, 1));
}

#[test]
fn a_frame_is_shown_again_only_while_none_is_newer() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    head.repeat().unwrap();
    assert!(!head.engine.lock().crtcs[0].has_pending(), "no frame yet");
    let show = || {
        begin_commit(&head);
        end_commit(&head, 0);
        let mut outbox = Outbox::default();
        head.engine.lock().flipped(1, 1, 1, &mut outbox);
    };
    let before = head.newest();
    head.present(frame(&framebuffer), false).unwrap();
    show();
    head.repeat().unwrap();
    show();
    assert_eq!(head.engine.lock().crtcs[0].planes[0].stats.shown, 1);
    let older = Frame {
        repeats: Some(before),
        ..frame(&framebuffer)
    };
    head.present(older, false).unwrap();
    assert!(!head.engine.lock().crtcs[0].has_pending());
    // A frame that waits will be shown anyway.
    head.present(frame(&framebuffer), false).unwrap();
    head.repeat().unwrap();
    show();
    assert_eq!(head.engine.lock().crtcs[0].planes[0].stats.shown, 2);
}

#[test]
fn a_commit_that_was_taken_settles_it_for_good() {
    let head = stage();
    let framebuffer = Framebuffer::blank(&head.device);
    for errno in [0, libc::EINVAL] {
        head.present(frame(&framebuffer), false).unwrap();
        begin_commit(&head);
        end_commit(&head, errno);
        let mut outbox = Outbox::default();
        head.engine.lock().flipped(1, 1, 1, &mut outbox);
        assert_eq!(framebuffer.verdict(), Some(Ok(())));
    }
}
