// SPDX-License-Identifier: MPL-2.0

use std::os::fd::AsRawFd;

use super::*;
use crate::kmsflipsink::claimed_plane::IgnoringObserver;
use crate::kmsflipsink::kms_plane::sets;
use crate::kmsflipsink::layer::{Layer, Overlay};

fn black(device: &Arc<Device>) -> Backdrop {
    Backdrop {
        plane: 2,
        content: PlaneContent::Black(Framebuffer::blank(device)),
    }
}

#[test]
fn a_backdrop_is_kept_until_a_setup_has_taken_it_off_the_screen() {
    let device = Device::blank();
    let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
    let primary = OtherPlane::new(PlaneState::blank(2), PlaneContent::AsBefore);
    crtc.others.push(primary);
    assert!(crtc.black_on(2, (4, 4)).is_none());
    crtc.set_backdrop(black(&device));
    crtc.begin_commit(0);
    assert_eq!(crtc.take_setup().framebuffers.len(), 0);
    // A new plan for the same screen needs no other.
    let known = crtc.black_on(2, (4, 4)).unwrap();
    crtc.set_backdrop(Backdrop {
        plane: 2,
        content: PlaneContent::Black(known.clone()),
    });
    assert!(!crtc.needs_setup && crtc.black_on(2, (4, 5)).is_none());
    crtc.set_backdrop(black(&device));
    assert!(crtc.needs_setup && Arc::strong_count(&known) == 2);
    crtc.begin_commit(1);
    assert!(crtc.fail_commit());
    crtc.begin_commit(2);
    assert_eq!(crtc.take_setup().framebuffers.len(), 1);
}

/// A frame with a layer on the screen, and the framebuffer of that layer.
fn show_layer(crtc: &mut Crtc, device: &Arc<Device>) -> Arc<Framebuffer> {
    let layer = Layer::blank(device);
    let framebuffer = layer.framebuffer.clone();
    let frame = Frame {
        overlay: Overlay::Above(layer),
        ..Frame::blank(&Framebuffer::blank(device))
    };
    crtc.planes[0].frames.submit(frame).unwrap();
    crtc.begin_commit(0);
    crtc.planes[0].frames.shown();
    crtc.take_setup();
    framebuffer
}

#[test]
fn a_plane_above_the_frames_is_the_sinks_until_the_sink_moves() {
    gst::init().unwrap();
    let device = Device::blank();
    let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
    let zpos = (
        control::from_u32(5).unwrap(),
        control::from_u32(9).unwrap(),
        2,
    );
    crtc.planes[0].layer_plane = Some(LayerPlane::blank(5, vec![zpos]));
    assert!(crtc.is_claimed(1) && crtc.is_claimed(5) && !crtc.is_claimed(6));
    let framebuffer = show_layer(&mut crtc, &device);
    assert!(
        crtc.framebuffers()
            .iter()
            .any(|one| Arc::ptr_eq(one, &framebuffer))
    );
    let before = crtc.planes[0].with_values_before();
    let before: Vec<_> = before
        .map(|(state, values)| (state.id, values.len()))
        .collect();
    assert_eq!(before, [(1, 0), (5, 1)]);
    crtc.move_sink(1, PlaneState::blank(7));
    assert!(!crtc.is_claimed(5) && crtc.needs_setup);
    // The screen shows the layer until the setup.
    assert!(crtc.uses_plane(5) && Arc::strong_count(&framebuffer) > 1);
    crtc.begin_commit(1);
    drop(crtc.take_setup());
    assert!(!crtc.uses_plane(5) && Arc::strong_count(&framebuffer) == 1);
    assert_eq!(crtc.take_extras_before(5), [zpos]);
}

#[test]
fn a_plane_above_the_frames_that_never_showed_anything_is_left_without_a_setup() {
    let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
    crtc.needs_setup = false;
    crtc.planes[0].layer_plane = Some(LayerPlane::blank(5, Vec::new()));
    crtc.leave_layer_plane(1);
    assert!(!crtc.uses_plane(5) && !crtc.needs_setup);
    assert!(crtc.state_before(5).is_some());
}

/// A CRTC whose plane may tear, and shows `framebuffer` as its setup did.
fn tearing(framebuffer: &Arc<Framebuffer>) -> Crtc {
    let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
    crtc.planes[0].pace.may_tear = true;
    let frames = &mut crtc.planes[0].frames;
    frames.submit(Frame::blank(framebuffer)).unwrap();
    crtc.begin_commit(0);
    assert!(crtc.is_setup_in_flight());
    crtc.in_flight = None;
    crtc.planes[0].frames.shown();
    crtc
}

/// As drm_mode.h and drm_atomic_set_property() say: such a commit may change FB_ID of planes, and nothing else.
#[test]
fn a_flip_at_once_sets_the_framebuffer_and_nothing_else() {
    gst::init().unwrap();
    let framebuffer = Framebuffer::blank(&Device::blank());
    let mut crtc = tearing(&framebuffer);
    let frames = &mut crtc.planes[0].frames;
    frames.submit(Frame::blank(&framebuffer)).unwrap();
    let request = crtc.begin_commit(1);
    let kind = crtc.kind_in_flight().unwrap();
    let flags = AtomicCommitFlags::NONBLOCK | AtomicCommitFlags::PAGE_FLIP_ASYNC;
    assert_eq!((kind, kind.flags()), (CommitKind::AsyncFlip, flags));
    let mut expected = AtomicModeReq::new();
    let plane = &crtc.planes[0].state;
    plane.add_flip(&mut expected, framebuffer.id());
    assert_eq!(format!("{request:?}"), format!("{expected:?}"));
}

#[test]
fn a_frame_at_the_same_place_sets_the_framebuffer_and_its_fence() {
    gst::init().unwrap();
    let framebuffer = Framebuffer::blank(&Device::blank());
    for (moves, has_fence) in [(false, false), (false, true), (true, false)] {
        let mut crtc = tearing(&framebuffer);
        crtc.planes[0].pace.may_tear = false;
        let fence_property = control::from_u32(8).unwrap();
        crtc.planes[0].state.in_fence_fd = Some(fence_property);
        let mut frame = Frame::blank(&framebuffer);
        frame.placement.dst.x = i32::from(moves);
        let fence = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        frame.fence = has_fence.then(|| fence.clone());
        let placement = frame.placement;
        crtc.planes[0].frames.submit(frame).unwrap();
        let request = crtc.begin_commit(1);
        let mut expected = AtomicModeReq::new();
        let plane = &crtc.planes[0].state;
        match moves {
            true => plane.add_shown(&mut expected, crtc.id, framebuffer.id(), &placement),
            false => plane.add_flip(&mut expected, framebuffer.id()),
        }
        if has_fence {
            plane.add(&mut expected, fence_property, fence.as_raw_fd() as u64);
        }
        assert_eq!(
            format!("{request:?}"),
            format!("{expected:?}"),
            "{moves} {has_fence}"
        );
    }
}

#[test]
fn a_frame_that_changes_more_waits_for_the_vertical_blank() {
    gst::init().unwrap();
    let framebuffer = Framebuffer::blank(&Device::blank());
    type Change<'a> = &'a dyn Fn(&mut Crtc, &mut Frame);
    let changes: [Change; 5] = [
        &|_, frame| frame.placement.dst.x = 1,
        &|_, frame| {
            let fence = std::fs::File::open("/dev/null").unwrap();
            frame.fence = Some(Arc::new(fence.into()));
        },
        &|crtc, _| drop(crtc.planes[0].set_extras(vec![], vec![], vec![])),
        &|crtc, _| crtc.makes_fences = true,
        &|crtc, _| crtc.planes[0].pace.may_tear = false,
    ];
    for change in changes {
        let mut crtc = tearing(&framebuffer);
        let mut frame = Frame::blank(&framebuffer);
        change(&mut crtc, &mut frame);
        crtc.planes[0].frames.submit(frame).unwrap();
        crtc.begin_commit(1);
        assert_eq!(crtc.kind_in_flight(), Some(CommitKind::Flip));
    }
}

#[test]
fn a_commit_never_blocks_and_only_a_setup_may_set_the_mode() {
    let kinds = [CommitKind::Setup, CommitKind::Flip, CommitKind::AsyncFlip];
    let may = |flag| kinds.map(|kind| kind.flags().contains(flag));
    assert_eq!(may(AtomicCommitFlags::NONBLOCK), [true; 3]);
    assert_eq!(may(AtomicCommitFlags::ALLOW_MODESET), [true, false, false]);
    assert_eq!(
        may(AtomicCommitFlags::PAGE_FLIP_ASYNC),
        [false, false, true]
    );
}

/// VRR_ENABLED is among the properties that a setup resets, because another program may have left it on.
#[test]
fn the_refresh_rate_varies_from_the_first_commit_on_and_as_before_in_the_end() {
    gst::init().unwrap();
    let framebuffer = Framebuffer::blank(&Device::blank());
    let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
    let vrr = |value| (crtc.object, control::from_u32(90).unwrap(), value);
    let [off, on] = [vrr(0), vrr(1)];
    crtc.resets.push(off);
    crtc.saved.resets.push(on);
    drop(crtc.planes[0].set_extras(vec![on], vec![off], vec![]));
    let frames = &mut crtc.planes[0].frames;
    frames.submit(Frame::blank(&framebuffer)).unwrap();
    assert!(sets(&crtc.begin_commit(0), on));
    assert!(sets(&crtc.restore(&[1], 0, Extent::All), on), "as before");
    crtc.fail_commit();
    drop(crtc.planes[0].set_extras(vec![], vec![], vec![]));
    assert!(sets(&crtc.begin_commit(0), off), "no longer asked for");
}

#[test]
fn new_values_of_the_connector_are_set_with_a_setup() {
    gst::init().unwrap();
    let device = Device::blank();
    let framebuffer = Framebuffer::blank(&device);
    let connector = control::from_u32(9).unwrap();
    let property = control::from_u32(3).unwrap();
    let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
    crtc.needs_setup = false;
    for (value, is_setup) in [(1, true), (1, false), (2, true)] {
        let plane = &mut crtc.planes[0];
        drop(plane.set_extras(vec![(connector, property, value)], vec![], vec![]));
        assert!(plane.frames.submit(Frame::blank(&framebuffer)).is_ok());
        crtc.begin_commit(0);
        assert_eq!(crtc.is_setup_in_flight(), is_setup, "{value}");
        crtc.take_setup();
        crtc.in_flight = None;
        drop(crtc.planes[0].frames.shown());
    }
}

#[test]
fn a_commit_that_only_shows_frames_names_no_blobs() {
    gst::init().unwrap();
    let device = Device::blank();
    let framebuffer = Framebuffer::blank(&device);
    let blob = PropertyBlob::numbered(&device, 11);
    let (plane, property) = (control::from_u32(1).unwrap(), control::from_u32(3).unwrap());
    let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
    let extras = vec![(plane, property, blob.id())];
    drop(crtc.planes[0].set_extras(extras, vec![], vec![blob]));
    for (is_setup, names_blob) in [(false, true), (false, false), (true, true)] {
        crtc.needs_setup = is_setup;
        let frames = &mut crtc.planes[0].frames;
        assert!(frames.submit(Frame::blank(&framebuffer)).is_ok());
        crtc.begin_commit(0);
        let blobs = crtc.blobs_in_flight();
        assert_eq!(blobs.iter().any(|blob| blob.id() == 11), names_blob);
        crtc.take_setup();
        crtc.in_flight = None;
        drop(crtc.planes[0].frames.shown());
    }
}

/// A plane that a sink leaves and comes back to, or that another sink takes, has its first values in the end.
#[test]
fn a_plane_that_was_left_keeps_its_first_values_for_the_next_sink_on_it() {
    let zpos: property::Handle = control::from_u32(9).unwrap();
    let of_plane = |id, value| (control::from_u32(id).unwrap(), zpos, value);
    let mut crtc = Crtc::blank(Arc::new(IgnoringObserver));
    let first = of_plane(1, 3);
    drop(crtc.planes[0].set_extras(vec![of_plane(1, 5)], vec![first], vec![]));
    crtc.move_sink(1, PlaneState::blank(7));
    assert_eq!(crtc.planes[0].extras_saved, []);
    drop(crtc.planes[0].set_extras(vec![of_plane(7, 6)], vec![of_plane(7, 4)], vec![]));
    crtc.move_sink(7, PlaneState::blank(1));
    drop(crtc.planes[0].set_extras(vec![], vec![of_plane(1, 5)], vec![]));
    assert_eq!(crtc.planes[0].extras_saved, [first]);
    assert_eq!(crtc.planes[0].extras, [first], "put back already");
    assert_eq!(crtc.take_extras_before(7), [of_plane(7, 4)]);
}
