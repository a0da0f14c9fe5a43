// SPDX-License-Identifier: MPL-2.0
//! A CRTC that sinks of this process use: its mode, its planes, and what it showed before. The atomic requests made of
//! these are in `requests`. The only ioctls here are those that read the state at the beginning.

mod requests;
mod standby;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use drm::control::atomic::AtomicModeReq;
use drm::control::{self, AtomicCommitFlags, Device as _, Mode, property};
use drm::{Device as _, VblankWaitFlags, VblankWaitTarget};

#[cfg(test)]
use super::claimed_plane::Observer;
use super::claimed_plane::{ClaimedPlane, Frame, Refusals};
use super::clones::CloneConnector;
use super::device::{Device, Display, PropertyBlob, connector_handle, crtc_handle, required};
use super::discovery::Route;
use super::framebuffer::Framebuffer;
use super::kms_plane::{Extra, OtherPlane, PlaneContent, PlaneState};
use super::layer::LayerPlane;
use super::mode::{FrameNeed, ModeLine, ModeRequest};
use super::vacated::Vacated;
pub use standby::Standby;

/// What a commit changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitKind {
    /// Mode and connector, with the frames.
    Setup,
    /// The frames, at the next vertical blank.
    Flip,
    /// The frames, at once. They may tear.
    AsyncFlip,
}

impl CommitKind {
    /// The flags of the commit, without that for an event. No commit blocks, a setup neither: the card's thread serves
    /// the other CRTCs while the kernel sets the mode.
    pub fn flags(self) -> AtomicCommitFlags {
        AtomicCommitFlags::NONBLOCK
            | match self {
                Self::Setup => AtomicCommitFlags::ALLOW_MODESET,
                Self::Flip => AtomicCommitFlags::empty(),
                Self::AsyncFlip => AtomicCommitFlags::PAGE_FLIP_ASYNC,
            }
    }
}

/// The property of a CRTC that asks for a fence.
#[derive(Debug, Clone, Copy)]
pub struct OutFenceRequest {
    object: control::RawResourceHandle,
    property: property::Handle,
}

impl OutFenceRequest {
    /// Adds to the request that the kernel writes the fd of a fence to the address `out` during the commit.
    pub fn add(self, request: &mut AtomicModeReq, out: *mut i32) {
        let address = out.expose_provenance() as u64;
        request.add_raw_property(self.object, self.property, address);
    }
}

/// A mode with the property blob that a commit needs.
#[derive(Debug, Clone)]
pub struct ModeSet {
    pub mode: Mode,
    pub line: ModeLine,
    /// Holds `mode`. The last use must not be dropped under a lock, because that makes an ioctl.
    pub blob: Arc<PropertyBlob>,
}

/// What the primary plane of a CRTC shows while a sink uses another plane, and no sink uses the primary one.
#[derive(Debug, Clone)]
pub struct Backdrop {
    /// The id of the primary plane.
    pub plane: u32,
    pub content: PlaneContent,
}

/// What a commit sets in addition to the frames.
#[derive(Debug, Clone)]
pub struct Setup {
    pub mode: ModeSet,
    /// `None` leaves the backdrop as it is.
    pub backdrop: Option<Backdrop>,
}

/// Which planes show again what they showed before. The framebuffers may be gone with the program that made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    All,
    /// Only those that sinks have used.
    SinksPlanes,
    NoPlanes,
}

pub struct Crtc {
    pub id: u32,
    /// The id of the connector that the CRTC drives for the sinks.
    pub connector: u32,
    /// The connectors that it drives as well.
    pub clones: Vec<CloneConnector>,
    /// The CRTCs that are off because this one has their connectors.
    pub vacated: Vec<Vacated>,
    object: control::RawResourceHandle,
    connector_object: control::RawResourceHandle,
    mode_id: property::Handle,
    active: property::Handle,
    connector_crtc_id: property::Handle,
    link_status: Option<property::Handle>,
    /// The property OUT_FENCE_PTR.
    out_fence_ptr: Option<property::Handle>,
    /// Whether each commit makes a fence and no event, because the file is the application's. The sink must not read the
    /// events of that file.
    makes_fences: bool,
    /// The fence of the commit in flight, if it has one.
    pub out_fence: Option<Arc<OwnedFd>>,
    /// The mode that commits set; `None` until a sink knows the caps of its frames.
    pub mode: Option<ModeSet>,
    /// What the user asked for, to choose a mode again when the display changes.
    pub mode_request: ModeRequest,
    /// What the frames need, to choose a mode again when the display changes.
    pub need: Option<FrameNeed>,
    /// Whether the next commit sets mode and connector too. The commit in flight has taken what was set before it.
    pub needs_setup: bool,
    /// One commit takes the frames of all these planes, whichever sinks have them.
    pub planes: Vec<ClaimedPlane>,
    /// Planes of the CRTC as they were before the first commit. A plane that a sink uses may be among them.
    pub others: Vec<OtherPlane>,
    /// What the screen may still show although no plane is to show it any more, until the next setup is committed.
    pub leftovers: Leftovers,
    /// The same, if the setup in flight ends it.
    pub leftovers_in_flight: Leftovers,
    /// Properties of the CRTC that change colours or the refresh rate, with the values that each setup sets.
    resets: Vec<Extra>,
    saved: Saved,
    /// Whether the driver counts vertical blanks.
    pub has_vblank: bool,
    /// Since when a commit is in flight, and of which kind it is. Times are CLOCK_MONOTONIC.
    pub in_flight: Option<(u64, CommitKind)>,
    pub last_flip_ns: u64,
    /// When frames were last dropped because there was no display or another program had the card.
    pub last_drop_ns: u64,
    /// When to try the next commit, at the earliest.
    pub retry_at_ns: u64,
    /// Since when the kernel has answered commits with EBUSY.
    pub busy_since_ns: Option<u64>,
    pub is_plugged: bool,
    /// The display that is plugged in, or was last.
    pub display: Option<Display>,
    /// Whether the kernel took a commit of this process, so that there is something to restore.
    pub is_changed: bool,
    pub standby: Standby,
}

/// What a setup takes off the screen.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Frames of planes that their sinks have left for other planes.
    pub frames: Vec<Frame>,
    /// What primary planes showed behind the planes of sinks, and what planes showed above these.
    pub framebuffers: Vec<Arc<Framebuffer>>,
    /// The ids of planes that their sinks have left. The kernel does not give such a plane to another CRTC before.
    pub planes: Vec<u32>,
}

impl Leftovers {
    fn append(&mut self, mut other: Self) {
        self.frames.append(&mut other.frames);
        self.framebuffers.append(&mut other.framebuffers);
        self.planes.append(&mut other.planes);
    }
}

/// The state of the CRTC and its connector before the first commit.
struct Saved {
    mode: Option<Mode>,
    active: u64,
    connector_crtc: u64,
    /// The values of `resets`, with the blobs that they name.
    resets: Vec<Extra>,
    blobs: Vec<Arc<PropertyBlob>>,
}

/// Properties that another program may have left set on a CRTC, and that change each picture or its timing.
const RESET: [&str; 4] = ["GAMMA_LUT", "DEGAMMA_LUT", "CTM", "VRR_ENABLED"];

#[cfg(test)]
impl ModeSet {
    /// A mode of a card that does not exist. Those of different `clock` differ.
    pub fn blank(device: &Arc<Device>, clock: u32) -> Self {
        let mode = super::device::mode_of(&super::timing::ModeTiming {
            clock_khz: clock,
            horizontal: [4, 4, 5, 6],
            vertical: [4, 4, 5, 6],
            flags: control::ModeFlags::empty(),
        });
        Self {
            mode,
            line: super::device::mode_line(&mode),
            blob: PropertyBlob::blank(device),
        }
    }
}

#[cfg(test)]
impl Crtc {
    /// CRTC 1 with plane 1 of a card that does not exist.
    pub fn blank(observer: Arc<dyn Observer>) -> Self {
        let object = control::RawResourceHandle::MIN;
        let handle = object.into();
        Self {
            id: 1,
            connector: 1,
            clones: Vec::new(),
            vacated: Vec::new(),
            object,
            connector_object: object,
            mode_id: handle,
            active: handle,
            connector_crtc_id: handle,
            link_status: None,
            out_fence_ptr: Some(handle),
            makes_fences: false,
            out_fence: None,
            mode: None,
            mode_request: ModeRequest::Auto,
            need: None,
            needs_setup: true,
            planes: vec![ClaimedPlane::blank(1, observer)],
            others: Vec::new(),
            leftovers: Leftovers::default(),
            leftovers_in_flight: Leftovers::default(),
            resets: Vec::new(),
            saved: Saved {
                mode: None,
                active: 0,
                connector_crtc: 0,
                resets: Vec::new(),
                blobs: Vec::new(),
            },
            has_vblank: true,
            in_flight: None,
            last_flip_ns: 0,
            last_drop_ns: 0,
            retry_at_ns: 0,
            busy_since_ns: None,
            is_plugged: true,
            display: None,
            is_changed: false,
            standby: Standby::default(),
        }
    }
}

impl Crtc {
    /// Reads the properties of the CRTC of `route`, and what it shows now.
    pub fn read(device: &Arc<Device>, route: &Route) -> io::Result<Self> {
        let crtc = crtc_handle(route.crtc)?;
        let connector = connector_handle(route.connector)?;
        let props = device.props(crtc)?;
        let connector_props = device.props(connector)?;
        let info = device.get_crtc(crtc)?;
        let others = OtherPlane::read_all(device, route.crtc, route.primary)?;
        // If the application passed its card to the sink, it may want these properties as they are.
        let names = RESET.iter().filter(|_| device.is_ours);
        let known = names.filter_map(|name| Some((props.handle(name)?, props.value(name)?)));
        let (mut resets, mut before, mut blobs) = (Vec::new(), Vec::new(), Vec::new());
        for (property, value) in known {
            resets.push((crtc.into(), property, 0));
            let is_blob = value > 1;
            let copy = is_blob.then(|| device.copy_blob(value).ok()).flatten();
            before.push((
                crtc.into(),
                property,
                copy.as_ref().map_or(value, |copy| copy.id()),
            ));
            blobs.extend(copy);
        }
        let vblank = device.wait_vblank(
            VblankWaitTarget::Relative(0),
            VblankWaitFlags::empty(),
            route.crtc_index,
            0,
        );
        Ok(Self {
            id: route.crtc,
            connector: route.connector,
            clones: Vec::new(),
            vacated: Vec::new(),
            object: crtc.into(),
            connector_object: connector.into(),
            mode_id: required(&props, "MODE_ID")?,
            active: required(&props, "ACTIVE")?,
            connector_crtc_id: required(&connector_props, "CRTC_ID")?,
            link_status: connector_props.handle("link-status"),
            out_fence_ptr: props.handle("OUT_FENCE_PTR"),
            makes_fences: !device.is_ours && props.handle("OUT_FENCE_PTR").is_some(),
            out_fence: None,
            mode: None,
            mode_request: ModeRequest::Auto,
            need: None,
            needs_setup: true,
            planes: Vec::new(),
            others,
            leftovers: Leftovers::default(),
            leftovers_in_flight: Leftovers::default(),
            resets,
            saved: Saved {
                mode: info.mode(),
                active: props.value("ACTIVE").unwrap_or(0),
                connector_crtc: connector_props.value("CRTC_ID").unwrap_or(0),
                resets: before,
                blobs,
            },
            // EINVAL only says that the CRTC is off just now.
            has_vblank: !matches!(vblank, Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP)),
            in_flight: None,
            last_flip_ns: 0,
            last_drop_ns: 0,
            retry_at_ns: 0,
            busy_since_ns: None,
            is_plugged: true,
            display: None,
            is_changed: false,
            standby: Standby::default(),
        })
    }

    /// The id of the CRTC that drove the connector before the first commit.
    pub fn connector_crtc_before(&self) -> Option<u32> {
        let id = self.saved.connector_crtc as u32;
        Some(id).filter(|&id| id != 0)
    }

    /// The mode from before the first commit, also if the CRTC was blanked.
    pub fn saved_mode(&self) -> Option<Mode> {
        self.saved.mode
    }

    pub fn plane(&self, id: u32) -> Option<&ClaimedPlane> {
        self.planes.iter().find(|plane| plane.id == id)
    }

    pub fn plane_mut(&mut self, id: u32) -> Option<&mut ClaimedPlane> {
        self.planes.iter_mut().find(|plane| plane.id == id)
    }

    /// Whether the CRTC may show the plane: for a sink, behind one, or until a setup switches it off.
    pub fn uses_plane(&self, id: u32) -> bool {
        let left = [&self.leftovers, &self.leftovers_in_flight];
        let is_left = || left.iter().any(|left| left.planes.contains(&id));
        let is_black = |other: &OtherPlane| {
            other.state.id == id && matches!(other.content, PlaneContent::Black(_))
        };
        self.is_claimed(id) || is_left() || self.others.iter().any(is_black)
    }

    /// Whether a sink has the plane, for its frames or for what is shown above them.
    pub fn is_claimed(&self, id: u32) -> bool {
        self.planes.iter().any(|plane| plane.has_plane(id))
    }

    /// Whether another sink than the one with the plane `id` uses the CRTC.
    pub fn is_shared(&self, id: u32) -> bool {
        self.planes.iter().any(|plane| plane.id != id)
    }

    /// The time between two vertical blanks; that of 60 Hz while no mode is chosen.
    pub fn period_ns(&self) -> u64 {
        self.mode
            .as_ref()
            .map_or(16_666_667, |mode| mode.line.period_ns())
    }

    pub fn has_pending(&self) -> bool {
        self.planes.iter().any(|plane| plane.frames.has_pending())
    }

    /// Forgets the commits that the kernel has refused, because what it may have refused them for has changed.
    pub fn forget_refusals(&mut self) {
        for plane in &mut self.planes {
            plane.refusals = Refusals::default();
        }
    }

    /// Whether commits make a fence in place of an event.
    pub fn makes_fences(&self) -> bool {
        self.makes_fences
    }

    /// What the commit in flight needs to make a fence; `None` if it makes an event. The kernel makes an event for each CRTC
    /// of a commit, and refuses one for a CRTC that is off and stays so, but a fence only for a CRTC that asks for it.
    pub fn out_fence_request(&self) -> Option<OutFenceRequest> {
        let leaves_others_off = self.is_setup_in_flight() && !self.vacated.is_empty();
        let property = self
            .out_fence_ptr
            .filter(|_| self.makes_fences || leaves_others_off)?;
        let object = self.object;
        Some(OutFenceRequest { object, property })
    }

    /// Queues all pending frames. Returns the request that commits them, and sets up the CRTC if needed.
    pub fn begin_commit(&mut self, now_ns: u64) -> AtomicModeReq {
        self.standby = Standby::Awake;
        for plane in &mut self.planes {
            plane.frames.queue();
            // New values belong to frames that were planned with them, and not to the frame before.
            if plane.frames.queued().is_some() {
                plane.are_extras_in_flight = std::mem::take(&mut plane.are_extras_new);
                self.needs_setup |= std::mem::take(&mut plane.need_extras_setup);
            }
        }
        // A sink may ask for another setup, or leave a plane, before the kernel has answered.
        let kind = match std::mem::take(&mut self.needs_setup) {
            true => CommitKind::Setup,
            false if self.can_flip_async() => CommitKind::AsyncFlip,
            false => CommitKind::Flip,
        };
        if kind == CommitKind::Setup {
            self.leftovers_in_flight
                .append(std::mem::take(&mut self.leftovers));
        }
        self.in_flight = Some((now_ns, kind));
        self.request(kind)
    }

    /// Whether all queued frames may be shown at once. A commit that makes a fence sets OUT_FENCE_PTR, and so changes
    /// more than such a commit may.
    fn can_flip_async(&self) -> bool {
        let is_queued = |plane: &&ClaimedPlane| plane.frames.queued().is_some();
        let mut queued = self.planes.iter().filter(is_queued).peekable();
        !self.makes_fences() && queued.peek().is_some() && queued.all(ClaimedPlane::can_flip_async)
    }

    /// The kind of the commit in flight.
    pub fn kind_in_flight(&self) -> Option<CommitKind> {
        self.in_flight.map(|(_, kind)| kind)
    }

    /// Whether the commit in flight is a setup.
    pub fn is_setup_in_flight(&self) -> bool {
        self.kind_in_flight() == Some(CommitKind::Setup)
    }

    /// Returns what the screen no longer shows, because the setup in flight is on the screen. It must not be dropped
    /// under a lock.
    pub fn take_setup(&mut self) -> Leftovers {
        std::mem::take(&mut self.leftovers_in_flight)
    }

    /// Makes the next commit set again what the commit in flight, which the kernel did not take, was to set. Returns
    /// whether it was a setup.
    pub fn fail_commit(&mut self) -> bool {
        let was_setup = self.is_setup_in_flight();
        self.in_flight = None;
        self.needs_setup |= was_setup;
        self.leftovers
            .append(std::mem::take(&mut self.leftovers_in_flight));
        for plane in &mut self.planes {
            plane.are_extras_new |= std::mem::take(&mut plane.are_extras_in_flight);
        }
        was_setup
    }

    fn has_plane(&self, other: &OtherPlane) -> bool {
        self.is_claimed(other.state.id)
    }

    /// The state of a plane before the first commit, as it was read when the first sink began to use the CRTC.
    pub fn state_before(&self, id: u32) -> Option<&PlaneState> {
        let known = self.others.iter().find(|other| other.state.id == id);
        known.map(|other| &other.state)
    }

    /// Sets what the primary plane shows from the next setup on. If that is new, there will be a setup.
    pub fn set_backdrop(&mut self, backdrop: Backdrop) {
        let mut others = self.others.iter_mut();
        let Some(primary) = others.find(|other| other.state.id == backdrop.plane) else {
            return;
        };
        if primary.content.is_same(&backdrop.content) {
            return;
        }
        // Until then, the screen may show the old framebuffer: without it, the kernel would switch the CRTC off.
        if let PlaneContent::Black(old) = std::mem::replace(&mut primary.content, backdrop.content)
        {
            self.leftovers.framebuffers.push(old);
        }
        self.needs_setup = true;
    }

    /// The framebuffer of this size that the plane shows already while no sink uses it.
    pub fn black_on(&self, plane: u32, size: (u32, u32)) -> Option<Arc<Framebuffer>> {
        let other = self.others.iter().find(|other| other.state.id == plane)?;
        let shape = |framebuffer: &Framebuffer| {
            let shape = framebuffer.shape();
            (shape.width, shape.height)
        };
        match &other.content {
            PlaneContent::Black(black) if shape(black) == size => Some(black.clone()),
            _ => None,
        }
    }

    /// The framebuffers that the request of a setup names. Holding them keeps the kernel from forgetting them.
    pub fn framebuffers(&self) -> Vec<Arc<Framebuffer>> {
        let frames = self.planes.iter().filter_map(|plane| plane.frames.next());
        let backdrops = self.others.iter().filter_map(|other| match &other.content {
            PlaneContent::Black(black) => Some(black),
            _ => None,
        });
        let of_frames = frames.flat_map(|frame| {
            let layer = frame.layer().map(|layer| &layer.framebuffer);
            std::iter::once(&frame.framebuffer).chain(layer)
        });
        of_frames.chain(backdrops).cloned().collect()
    }

    /// The property blobs that a request may name. Holding them keeps the kernel from forgetting them.
    pub fn blobs(&self) -> Vec<Arc<PropertyBlob>> {
        let mode = self.mode.iter().map(|mode| &mode.blob);
        let of_planes = self.planes.iter().flat_map(|plane| &plane.blobs);
        mode.chain(of_planes).cloned().collect()
    }

    /// The property blobs that the commit in flight may name. Most commits only show frames; they name none, and so
    /// allocate nothing here.
    pub fn blobs_in_flight(&self) -> Vec<Arc<PropertyBlob>> {
        let names_blobs =
            self.is_setup_in_flight() || self.planes.iter().any(|plane| plane.are_extras_in_flight);
        match names_blobs {
            true => self.blobs(),
            false => Vec::new(),
        }
    }

    /// Hands over the properties of a plane that an earlier sink has changed, with their first values.
    pub fn take_extras_before(&mut self, id: u32) -> Vec<Extra> {
        let mut others = self.others.iter_mut();
        let known = others.find(|other| other.state.id == id);
        known.map_or_else(Vec::new, |other| std::mem::take(&mut other.extras_before))
    }

    /// Moves the sink with the plane `from` to the plane `to`. The next setup, which is the commit of the first frame
    /// on the new plane, switches the old plane off.
    pub fn move_sink(&mut self, from: u32, to: PlaneState) {
        // What was above the old plane may be below the new one.
        self.leave_layer_plane(from);
        let extras_of_new = self.take_extras_before(to.id);
        let Some(plane) = self.planes.iter_mut().find(|plane| plane.id == from) else {
            return;
        };
        plane.id = to.id;
        let left = std::mem::replace(&mut plane.state, to);
        let extras_before = plane.extras_saved.extract_if(.., |extra| left.owns(extra));
        let extras_before: Vec<_> = extras_before.collect();
        plane.extras.retain(|extra| !left.owns(extra));
        plane.extras_saved.extend(extras_of_new);
        let frames = std::mem::take(&mut plane.frames);
        if frames.next().is_some() {
            self.leftovers.planes.push(from);
        }
        self.leftovers.frames.extend(frames.into_frames());
        self.note_left(left, extras_before);
        self.needs_setup = true;
    }

    /// Gives up the plane for the layers of the sink with the plane `id`. The next setup switches it off.
    pub fn leave_layer_plane(&mut self, id: u32) {
        let Some(plane) = self.plane_mut(id) else {
            return;
        };
        let Some(LayerPlane {
            state,
            extras_saved,
            ..
        }) = plane.layer_plane.take()
        else {
            return;
        };
        let may_show = plane.may_show_layer();
        let frames = [plane.frames.queued(), plane.frames.current()];
        let layers = frames.into_iter().flatten().filter_map(Frame::layer);
        let layers: Vec<_> = layers.map(|layer| layer.framebuffer.clone()).collect();
        if may_show {
            self.leftovers.planes.push(state.id);
            self.leftovers.framebuffers.extend(layers);
            self.needs_setup = true;
        }
        self.note_left(state, extras_saved);
    }

    /// Notes a plane that a sink has left, with the values that its properties had before.
    fn note_left(&mut self, left: PlaneState, extras_before: Vec<Extra>) {
        let known = self
            .others
            .iter()
            .position(|other| other.state.id == left.id);
        let index = known.unwrap_or_else(|| {
            self.others.push(OtherPlane::new(left, PlaneContent::Off));
            self.others.len() - 1
        });
        let other = &mut self.others[index];
        other.is_changed = true;
        other.extras_before.extend(extras_before);
    }

    /// Adds planes that another program has made the CRTC show meanwhile, and that no sink has. When the sinks stop, these
    /// planes are switched off, as they were before.
    pub fn note_others(&mut self, found: Vec<OtherPlane>) {
        for mut other in found {
            other.state.was_off_before();
            let id = other.state.id;
            let is_known = self.others.iter().any(|known| known.state.id == id);
            if !is_known {
                self.others.push(other);
            }
        }
    }

    /// The property blobs to be dropped without the lock.
    pub fn into_blobs(self) -> (Option<ModeSet>, Vec<Arc<PropertyBlob>>) {
        (self.mode, self.saved.blobs)
    }
}

#[cfg(test)]
mod tests;
