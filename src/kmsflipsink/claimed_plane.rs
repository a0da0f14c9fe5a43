// SPDX-License-Identifier: MPL-2.0
//! A plane that a sink of this process has: its frames, its properties, and the commits of it that the kernel refused.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::balance::Controls;
use super::device::PropertyBlob;
use super::error::Gone;
use super::framebuffer::Framebuffer;
use super::kms_plane::{Extra, PlaneState};
use super::layer::{Layer, LayerPlane, Overlay};
use super::mode::ModeLine;
use super::stats::Stats;
use crate::display::area::Placement;
use crate::display::cycle::Cycle;
use crate::display::frame_log::FrameLog;
use crate::display::presentation::{Presentation, Timing};

/// A frame on its way to the screen. Dropping it gives its buffer back.
#[derive(Debug)]
pub struct Frame {
    /// What the plane reads.
    pub framebuffer: Arc<Framebuffer>,
    /// Which part of the framebuffer the plane shows, and where on the screen.
    pub placement: Placement,
    /// How the frame's overlay compositions are shown.
    pub overlay: Overlay,
    /// The display waits for this fence before it reads the framebuffer.
    pub fence: Option<Arc<OwnedFd>>,
    /// Keeps upstream from writing into the memory again.
    pub buffer: gst::Buffer,
    pub timing: Timing,
    /// When the frame was handed over, CLOCK_MONOTONIC.
    pub submitted_ns: u64,
    /// Whether the display reads the memory that upstream wrote into.
    pub is_zero_copy: bool,
    /// Whether upstream allocated the memory, and may want it back.
    pub is_foreign: bool,
    /// Whether statistics count the frame. False for a frame that was shown before, and for the copy that replaces
    /// upstream's last frame on the screen.
    pub is_counted: bool,
    /// Set if the frame was shown before: the serial of the newest frame when it was decided to show this one again. If
    /// another frame has been handed over since, this one is dropped.
    pub repeats: Option<u64>,
    /// The number of the frame among those of its plane.
    pub serial: u64,
}

impl Frame {
    /// What the frame has shown on a plane above its own.
    pub fn layer(&self) -> Option<&Layer> {
        match &self.overlay {
            Overlay::Above(layer) => Some(layer),
            Overlay::Absent | Overlay::Blended => None,
        }
    }

    /// The same frame, to be shown once more; see [`Self::repeats`].
    pub fn again(&self, newest: u64) -> Self {
        Self {
            framebuffer: self.framebuffer.clone(),
            placement: self.placement,
            overlay: self.overlay.clone(),
            fence: None,
            buffer: self.buffer.clone(),
            timing: Timing::default(),
            submitted_ns: 0,
            is_zero_copy: self.is_zero_copy,
            is_foreign: self.is_foreign,
            is_counted: false,
            repeats: Some(newest),
            serial: 0,
        }
    }
}

#[cfg(test)]
impl Frame {
    /// A frame that covers a screen of 4x4 pixels.
    pub fn blank(framebuffer: &Arc<Framebuffer>) -> Self {
        let whole = crate::display::area::Rect::of_size(4, 4);
        Self {
            framebuffer: framebuffer.clone(),
            placement: Placement {
                src: whole,
                dst: whole,
            },
            overlay: Overlay::Absent,
            fence: None,
            buffer: gst::Buffer::new(),
            timing: Timing::default(),
            submitted_ns: 0,
            is_zero_copy: true,
            is_foreign: true,
            is_counted: true,
            repeats: None,
            serial: 0,
        }
    }
}

/// The part of a sink that gets the reports of the card's thread. Called without a lock.
pub trait Observer: Send + Sync {
    fn report(&self, report: Report);
}

/// For tests that do not look at reports.
#[cfg(test)]
pub struct IgnoringObserver;

#[cfg(test)]
impl Observer for IgnoringObserver {
    fn report(&self, _: Report) {}
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    Shown(Presentation),
    Refused(String),
    /// The kernel refused to show a frame without waiting for the vertical blank; frames wait from now on.
    TearingRefused(String),
    Unplugged,
    /// A display was plugged in, to be driven in this mode; `None` if no mode is chosen yet.
    Plugged(Option<ModeLine>),
    /// Another program, or another virtual terminal, has the card.
    MasterLost(String),
    MasterRegained,
    Gone(Gone),
}

/// When frames may come onto the screen, besides at the vertical blanks of the mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Whether a frame may replace another at once (DRM_MODE_PAGE_FLIP_ASYNC).
    pub may_tear: bool,
    /// Whether the display waits with its vertical blank for a frame (VRR_ENABLED).
    pub is_variable: bool,
}

/// A plane that a sink of this process has, with the frames on their way through it.
pub struct ClaimedPlane {
    pub id: u32,
    pub state: PlaneState,
    /// The plane for the layers of the frames, once the sink has claimed one.
    pub layer_plane: Option<LayerPlane>,
    /// Further properties of plane and connector, which the settings ask for.
    pub extras: Vec<Extra>,
    /// The values that `extras` had before.
    pub extras_saved: Vec<Extra>,
    /// Whether no commit has set `extras` yet, that in flight included.
    pub are_extras_new: bool,
    /// Whether new `extras` change properties of connector or CRTC, which may need a modeset.
    pub need_extras_setup: bool,
    /// Whether the commit in flight sets new `extras`.
    pub are_extras_in_flight: bool,
    /// The property blobs that `extras` and `extras_saved` name. The last use must not be dropped under a lock.
    pub blobs: Vec<Arc<PropertyBlob>>,
    /// How the colours are shown; see `tune::Resolved`.
    pub colours: Option<String>,
    /// What GstColorBalance can set.
    pub controls: Controls,
    pub pace: Pace,
    /// How long the sink keeps the display on without a new frame; 0 stands for ever.
    pub standby_ns: u64,
    pub observer: Arc<dyn Observer>,
    /// While true, the plane takes no frames, and no thread waits for it.
    pub is_flushing: bool,
    /// Set when the sink gives the plane up: whether to restore what was shown before.
    pub closing: Option<bool>,
    /// The serial of the newest frame whose commit the kernel took or refused, or that was dropped.
    pub settled_serial: u64,
    /// The commits that the kernel has refused since it took the last one.
    pub refusals: Refusals,
    pub frames: Cycle<Frame>,
    pub log: Arc<FrameLog>,
    pub stats: Stats,
}

/// Commits that the kernel has refused one shortly after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    count: u32,
    since_ns: u64,
    last_ns: u64,
    errno: i32,
}

impl Refusals {
    /// The number of refusals, and the time between the first and the last, from which on no more frames are taken.
    /// Fewer may pass by themselves: another program may have changed something, or the display is about to be reported
    /// as unplugged.
    const N_FAILING: u32 = 3;
    const TIME_FAILING_NS: u64 = 1_000_000_000;
    /// After this time without a refusal, those before no longer count. It is longer than the kernel may answer EBUSY
    /// until that counts as one refusal (`BUSY_TIMEOUT_NS`).
    const TIME_APART_NS: u64 = 2_000_000_000;

    pub fn add(&mut self, errno: i32, now_ns: u64) {
        if self.is_old(now_ns) {
            self.count = 0;
        }
        if self.count == 0 {
            self.since_ns = now_ns;
        }
        self.count += 1;
        self.last_ns = now_ns;
        self.errno = errno;
    }

    /// The last errno, if no more frames should be taken.
    pub fn failing(&self, now_ns: u64) -> Option<i32> {
        let is_long = self.last_ns.saturating_sub(self.since_ns) >= Self::TIME_FAILING_NS;
        let is_failing = self.count >= Self::N_FAILING && is_long && !self.is_old(now_ns);
        is_failing.then_some(self.errno)
    }

    fn is_old(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_ns) >= Self::TIME_APART_NS
    }
}

#[cfg(test)]
impl ClaimedPlane {
    /// A plane of a card that does not exist.
    pub fn blank(id: u32, observer: Arc<dyn Observer>) -> Self {
        let plane = Self::new(PlaneState::blank(id), observer, Arc::default());
        Self {
            stats: Stats::new(1),
            ..plane
        }
    }
}

impl ClaimedPlane {
    /// A plane that shows no frame yet.
    pub fn new(state: PlaneState, observer: Arc<dyn Observer>, log: Arc<FrameLog>) -> Self {
        Self {
            id: state.id,
            state,
            layer_plane: None,
            extras: Vec::new(),
            extras_saved: Vec::new(),
            are_extras_new: false,
            are_extras_in_flight: false,
            need_extras_setup: false,
            blobs: Vec::new(),
            colours: None,
            controls: Controls::default(),
            pace: Pace::default(),
            standby_ns: 0,
            observer,
            is_flushing: false,
            closing: None,
            settled_serial: 0,
            refusals: Refusals::default(),
            frames: Cycle::default(),
            log,
            stats: Stats::new(16_666_667),
        }
    }

    /// Whether the plane shows a frame at the place where `frame` goes.
    pub fn shows_at_place_of(&self, frame: &Frame) -> bool {
        let current = self.frames.current();
        current.is_some_and(|current| current.placement == frame.placement)
    }

    /// Whether the queued frame may replace the current one at once. In such a commit, nothing but FB_ID of a plane
    /// may change (`drm_atomic_set_property()`); newer kernels also take a fence. Drivers want framebuffers of one
    /// format and stride.
    pub fn can_flip_async(&self) -> bool {
        let (Some(queued), Some(current)) = (self.frames.queued(), self.frames.current()) else {
            return false;
        };
        self.pace.may_tear
            && !self.are_extras_in_flight
            && queued.fence.is_none()
            && queued.layer().is_none()
            && current.layer().is_none()
            && self.shows_at_place_of(queued)
            && queued.framebuffer.shape() == current.framebuffer.shape()
    }

    pub fn layer_plane_id(&self) -> Option<u32> {
        let above = self.layer_plane.as_ref()?;
        Some(above.state.id)
    }

    /// Whether this is the plane of the sink's frames, or that of their layers.
    pub fn has_plane(&self, id: u32) -> bool {
        self.id == id || self.layer_plane_id() == Some(id)
    }

    /// The planes that the sink has, each with the values that its properties had before.
    pub fn with_values_before(&self) -> impl Iterator<Item = (&PlaneState, &[Extra])> {
        let above = self.layer_plane.iter();
        let above = above.map(|above| (&above.state, above.extras_saved.as_slice()));
        std::iter::once((&self.state, self.extras_saved.as_slice())).chain(above)
    }

    /// Whether the screen may show a layer of this plane's frames.
    pub fn may_show_layer(&self) -> bool {
        let frames = [self.frames.queued(), self.frames.current()];
        frames
            .into_iter()
            .flatten()
            .any(|frame| frame.layer().is_some())
    }

    /// Sets `extras` with the next commit. `before` are the values that they have now, and `blobs` those that both name.
    /// A property that an earlier call set and this call does not is restored. Returns blobs that are no longer needed,
    /// for the caller to drop outside of any lock.
    #[must_use]
    pub fn set_extras(
        &mut self,
        extras: Vec<Extra>,
        before: Vec<Extra>,
        blobs: Vec<Arc<PropertyBlob>>,
    ) -> Vec<Arc<PropertyBlob>> {
        for old in before {
            if !names(&self.extras_saved, &old) {
                self.extras_saved.push(old);
            }
        }
        let extras = self.with_restored(extras);
        let of_others = |extras: &[Extra]| -> Vec<Extra> {
            let others = extras.iter().filter(|extra| !self.state.owns(extra));
            others.copied().collect()
        };
        self.need_extras_setup |= of_others(&extras) != of_others(&self.extras);
        self.extras = extras;
        self.are_extras_new = true;
        self.blobs.extend(blobs);
        let named = [&self.extras, &self.extras_saved];
        let is_named = |blob: &Arc<PropertyBlob>| {
            let mut values = named.iter().flat_map(|extras| extras.iter());
            values.any(|extra| extra.2 == blob.id())
        };
        self.blobs.extract_if(.., |blob| !is_named(blob)).collect()
    }

    /// What [`Self::set_extras`] makes of `extras`: those, and the first values of the properties that are set now and
    /// are not among them.
    pub fn with_restored(&self, mut extras: Vec<Extra>) -> Vec<Extra> {
        for old in &self.extras_saved {
            if !names(&extras, old) {
                extras.push(*old);
            }
        }
        extras
    }
}

/// Whether a property of the same object is in the list.
fn names(list: &[Extra], extra: &Extra) -> bool {
    list.iter()
        .any(|other| (other.0, other.1) == (extra.0, extra.1))
}

#[cfg(test)]
mod tests {
    use drm::control::{self, property};

    use super::*;
    use crate::kmsflipsink::device::Device;

    #[test]
    fn a_property_that_is_no_longer_asked_for_gets_its_first_value_back() {
        let object = control::RawResourceHandle::MIN;
        let [zpos, alpha]: [property::Handle; 2] = [1, 2].map(|id| control::from_u32(id).unwrap());
        let mut plane = ClaimedPlane::blank(1, Arc::new(IgnoringObserver));
        drop(plane.set_extras(vec![(object, zpos, 5)], vec![(object, zpos, 0)], vec![]));
        assert_eq!(plane.extras, [(object, zpos, 5)]);
        let instead = plane.with_restored(vec![(object, alpha, 9)]);
        assert_eq!(instead, [(object, alpha, 9), (object, zpos, 0)]);
        assert_eq!(plane.extras, [(object, zpos, 5)], "only asked");
        drop(plane.set_extras(vec![(object, alpha, 9)], vec![(object, alpha, 8)], vec![]));
        assert_eq!(plane.extras, [(object, alpha, 9), (object, zpos, 0)]);
        drop(plane.set_extras(vec![(object, zpos, 6)], vec![(object, zpos, 0)], vec![]));
        assert_eq!(plane.extras, [(object, zpos, 6), (object, alpha, 8)]);
        assert_eq!(plane.extras_saved, [(object, zpos, 0), (object, alpha, 8)]);
    }

    #[test]
    fn a_blob_lives_as_long_as_it_is_to_be_set_or_restored() {
        let connector: control::RawResourceHandle = control::from_u32(9).unwrap();
        let metadata: property::Handle = control::from_u32(1).unwrap();
        let device = Device::blank();
        let [first, second, before] = [11, 12, 13].map(|id| PropertyBlob::numbered(&device, id));
        let mut plane = ClaimedPlane::blank(1, Arc::new(IgnoringObserver));
        let of = |blob: &Arc<PropertyBlob>| vec![(connector, metadata, blob.id())];
        let blobs = vec![first.clone(), before.clone()];
        assert!(plane.set_extras(of(&first), of(&before), blobs).is_empty());
        assert!(plane.need_extras_setup, "a property of the connector");
        let left = plane.set_extras(of(&second), of(&first), vec![second.clone()]);
        assert_eq!(left.iter().map(|blob| blob.id()).collect::<Vec<_>>(), [11]);
        let left = plane.set_extras(vec![], vec![], vec![]);
        assert_eq!(left.iter().map(|blob| blob.id()).collect::<Vec<_>>(), [12]);
        assert_eq!(plane.extras, of(&before));
    }
}
