// SPDX-License-Identifier: MPL-2.0
//! Virtual methods and properties.
//!
//! Two locks: `settings`, copied when they are needed, and `state`; never both
//! at once, and nothing is pushed, posted, waited for or asked of the kernel
//! under either.
#![allow(missing_docs)] // of the getters and setters that the derive makes; the blurbs say it

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::VideoOrientationMethod;
use gst_video::subclass::prelude::*;

use super::CAT;
use super::crtc::{Observer, Report};
use super::dma_drm;
use super::error::{KmsError, NotPresented};
use super::format;
use super::head::Head;
use super::import::Imports;
use super::offered_memory::OfferedMemory;
use super::report;
use super::settings::Settings;
use super::stream::{Stream, Timing};
use super::tune;
use crate::adoption::Adoption;
use crate::display::area::RenderRectangle;
use crate::display::frame_log::{Offer, Way};
use crate::display::prerolled::Prerolled;
use crate::memory;
use crate::negotiation::{self, Refusals};
use crate::refresh;
use crate::structure_property::{StructureProperty, in_one_line};
use crate::sys::clock::monotonic_ns;

#[derive(Default)]
enum State {
    #[default]
    Stopped,
    Started(Box<Started>),
}

struct Started {
    head: Arc<Head>,
    imports: Arc<Imports>,
    observer: Arc<SinkObserver>,
    /// How frames are shown; none before the first caps, and while there is no
    /// display, or the card is another program's, so that it cannot be known.
    stream: Option<Arc<Stream>>,
    waiting: Option<Waiting>,
    prerolled: Prerolled,
}

impl Started {
    /// What the next frame needs: how frames are shown, and whether this one was shown already.
    /// `None` while that is not known.
    fn begin_frame(
        &mut self,
        buffer: &gst::Buffer,
        is_rendered: bool,
    ) -> Option<(Arc<Stream>, bool)> {
        let stream = self.stream.clone()?;
        Some((stream, self.prerolled.is_repeated(buffer, is_rendered)))
    }

    /// Frames are to be placed anew: the display is another.
    fn is_stale(&self) -> bool {
        self.observer.is_stale.load(Ordering::Acquire)
    }
}

/// Caps that wait for a display to be shown on.
struct Waiting {
    info: gst_video::VideoInfo,
    modifier: Option<u64>,
    /// The newest frame, to be shown as soon as there is one.
    missed: Option<gst::Buffer>,
    /// When other connectors are looked at again.
    next_look: Instant,
}

#[derive(Default, glib::Properties)]
#[properties(wrapper_type = super::KmsFlipSink)]
pub struct KmsFlipSink {
    #[property(name = "driver-name", get, set, type = Option<String>, member = driver_name, nick = "Driver name",
        blurb = "Only a card with this DRM driver")]
    #[property(name = "bus-id", get, set, type = Option<String>, member = bus_id, nick = "Bus id",
        blurb = "Only the card at this address, such as pci:0000:00:02.0")]
    #[property(name = "device", get, set, type = Option<String>, member = device, nick = "Device",
        blurb = "Only this device node, such as /dev/dri/card0 (default: the first card with a connected display)")]
    #[property(name = "connector", get, set, type = Option<String>, member = connector, nick = "Connector",
        blurb = "The connector by name, such as HDMI-A-1 (default: the first connected one)")]
    #[property(name = "connector-id", get, set, type = i32, member = connector_id, nick = "Connector id",
        blurb = "The connector by DRM object id (-1 = any)", minimum = -1, default = -1)]
    #[property(name = "plane-id", get, set, type = i32, member = plane_id, nick = "Plane id",
        blurb = "The plane by DRM object id (-1 = the primary plane, or an overlay if that is taken by another sink)", minimum = -1, default = -1)]
    #[property(name = "fd", get, set, type = i32, member = fd, nick = "File descriptor",
        blurb = "An open DRM device, master or lease, that the application keeps (-1 = open one)", minimum = -1, default = -1)]
    #[property(name = "mode", get = Self::mode, set = Self::set_mode, type = Option<String>, nick = "Mode",
        blurb = "auto (the current mode if frames fit, else the one that fits size and rate best), preferred, highest, WIDTHxHEIGHT, WIDTHxHEIGHT@RATE or an index")]
    #[property(name = "restore-crtc", get, set, type = bool, member = restore_crtc, nick = "Restore CRTC",
        blurb = "Show again what was shown before, at the end", default = true)]
    #[property(name = "follow-vt", get, set, type = bool, member = follow_vt, nick = "Follow virtual terminal",
        blurb = "Give the screen away while another virtual terminal is in the foreground", default = true)]
    #[property(name = "force-aspect-ratio", get, set, type = bool, member = force_aspect_ratio, nick = "Force aspect ratio",
        blurb = "Keep the picture's proportions when the plane scales it", default = true)]
    #[property(name = "rotate-method", get, set, type = VideoOrientationMethod, member = rotate_method, nick = "Rotate method",
        blurb = "Turn or mirror the picture, where the plane can", builder(VideoOrientationMethod::Identity))]
    #[property(name = "zpos", get, set, type = i64, member = zpos, nick = "Z position",
        blurb = "The plane's place among the others (-1 = leave it)", minimum = -1, default = -1)]
    #[property(name = "plane-properties", get, set, type = StructureProperty, member = plane_properties, nick = "Plane properties",
        blurb = "Properties to set on the plane, such as props,alpha=32768 ('-' for spaces in names)")]
    #[property(name = "connector-properties", get, set, type = StructureProperty, member = connector_properties, nick = "Connector properties",
        blurb = "Properties to set on the connector, such as props,max-bpc=8 ('-' for spaces in names)")]
    #[property(name = "memory-kind", get, set, type = OfferedMemory, member = memory_kind, nick = "Memory kind",
        blurb = "What to offer upstream to write into: auto takes the first of cma, udmabuf and dumb (the card's own buffers) that can be shown",
        builder(OfferedMemory::Auto))]
    settings: Mutex<Settings>,

    #[property(name = "render-rectangle", get = Self::render_rectangle, set = Self::set_render_rectangle, type = gst::Array,
        nick = "Render rectangle", blurb = "Part of the screen for the picture, <x, y, width, height>")]
    #[property(name = "stats", get = Self::stats, type = StructureProperty, override_class = gst_base::BaseSink)]
    _computed: (),

    state: Mutex<State>,
    /// The streaming thread renders a frame, and does not preroll.
    is_rendering: AtomicBool,
    adoption: Adoption,
    /// Counters of the time before the last stop.
    last_stats: Mutex<Option<gst::Structure>>,
    refusals: Refusals,
}

/// A poisoned lock cannot be: nothing panics while one is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Between two looks at other connectors while there is no display.
const LOOK_ROUND: Duration = Duration::from_secs(1);

/// How long frames of these caps are shown for.
fn frame_time(info: &gst_video::VideoInfo) -> Duration {
    let (frames, seconds) = (info.fps().numer() as u128, info.fps().denom() as u128);
    refresh::period(refresh::rate_mhz(frames * 1000, seconds))
}

/// How long a drain may take to get the last frame off the screen.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Brings what the card's thread saw to the element.
struct SinkObserver {
    sink: glib::WeakRef<super::KmsFlipSink>,
    /// The display changed: frames are to be placed anew.
    is_stale: AtomicBool,
}

impl Observer for SinkObserver {
    fn report(&self, report: Report) {
        let Some(sink) = self.sink.upgrade() else {
            return;
        };
        if let Report::Plugged(_) = report {
            self.is_stale.store(true, Ordering::Release);
        }
        match report {
            Report::Plugged(_) | Report::MasterRegained => {
                sink.call_async(|sink| sink.imp().catch_up());
            }
            Report::Shown {
                running_time,
                late_ns,
                period_ns,
            } => {
                // Upstream may take its time over it, which the card's thread has not.
                if let Some(qos) = report::qos(running_time, late_ns, period_ns)
                    && sink.property("qos")
                {
                    sink.call_async(|sink| {
                        let _ = sink.sink_pad().push_event(qos);
                    });
                }
            }
            _ => {}
        }
        report::tell(&sink, &report);
    }
}

impl KmsFlipSink {
    fn render_rectangle(&self) -> gst::Array {
        lock(&self.settings).render_rectangle.to_property()
    }

    fn mode(&self) -> Option<String> {
        Some(lock(&self.settings).mode.clone())
    }

    /// NULL, which any language may set, is the default.
    fn set_mode(&self, mode: Option<String>) {
        let mode = mode.unwrap_or_else(|| Settings::default().mode);
        lock(&self.settings).mode = mode;
    }

    fn set_render_rectangle(&self, value: gst::Array) {
        if let Some(rectangle) = RenderRectangle::of_property(&value, &*self.obj(), *CAT) {
            lock(&self.settings).render_rectangle = rectangle;
        }
    }

    fn stats(&self) -> StructureProperty {
        let mut structure = self.obj().upcast_ref::<gst_base::BaseSink>().stats();
        let started = match &*lock(&self.state) {
            State::Started(started) => Some((started.head.clone(), started.imports.clone())),
            State::Stopped => None,
        };
        match started {
            Some((head, imports)) => report::add_stats(&mut structure, &head, &imports),
            None => {
                for (name, value) in lock(&self.last_stats).iter().flat_map(|last| last.iter()) {
                    if !structure.has_field(name) {
                        structure.set_value(name, value.clone());
                    }
                }
            }
        }
        structure.into()
    }

    fn open(&self) -> Result<Started, KmsError> {
        let settings = lock(&self.settings).clone();
        settings.mode_request()?; // a word that is no mode need not wait for caps
        let observer = Arc::new(SinkObserver {
            sink: self.obj().downgrade(),
            is_stale: AtomicBool::new(false),
        });
        // SAFETY: the application keeps the fd open while the sink is in use, as
        // the property's blurb says; it is duplicated at once.
        let fd = (settings.fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(settings.fd) });
        let as_observer: Arc<dyn Observer> = observer.clone();
        let head = Head::open(&settings.criteria(), fd, settings.follow_vt, &as_observer)?;
        match tune::resolve(&head.device, &head.route, &settings.tuning(None)) {
            Ok((extras, before)) => head.set_extras(extras, before),
            Err(error) => {
                head.close(false);
                return Err(error);
            }
        }
        gst::info!(
            CAT,
            imp = self,
            "{} ({}), connector {}, CRTC {}, {:?} plane {}",
            head.device.path,
            head.device.driver,
            head.connector_name,
            head.route.crtc,
            head.route.kind,
            head.route.kms_plane
        );
        Ok(Started {
            imports: Arc::new(Imports::new(head.device.clone())),
            head: Arc::new(head),
            observer,
            stream: None,
            waiting: None,
            prerolled: Prerolled::default(),
        })
    }

    fn close(&self) {
        let last_stats = self.stats().0;
        let restore = lock(&self.settings).restore_crtc;
        let state = std::mem::take(&mut *lock(&self.state));
        if let State::Started(started) = state {
            let stats = StructureProperty(last_stats.clone());
            gst::info!(CAT, imp = self, "{}", in_one_line(&stats, &report::NUMBERS));
            started.head.close(restore);
        }
        *lock(&self.last_stats) = last_stats;
    }

    fn started<T>(&self, look: impl FnOnce(&mut Started) -> T) -> Option<T> {
        match &mut *lock(&self.state) {
            State::Started(started) => Some(look(started)),
            State::Stopped => None,
        }
    }

    fn stream(&self) -> Option<Arc<Stream>> {
        self.started(|started| started.stream.clone()).flatten()
    }

    /// Plans for new caps, or for a new display.
    fn plan(
        &self,
        info: &gst_video::VideoInfo,
        modifier: Option<u64>,
    ) -> Result<Arc<Stream>, KmsError> {
        let settings = lock(&self.settings).clone();
        let stopped = || KmsError::Property("the sink is not started".into());
        let (head, imports) = self
            .started(|started| (started.head.clone(), started.imports.clone()))
            .ok_or_else(stopped)?;
        let request = settings.mode_request()?;
        let tuning = settings.tuning(Some(info));
        let (extras, before) = tune::resolve(&head.device, &head.route, &tuning)?;
        head.set_extras(extras, before);
        let stream = Stream::new(
            &head,
            &imports,
            info,
            modifier,
            (request, &settings.mode),
            &settings.options(),
        )?;
        let stream = Arc::new(stream);
        gst::info!(CAT, imp = self, "{}", stream.describe());
        let old = self.started(|started| {
            started.observer.is_stale.store(false, Ordering::Release);
            started.prerolled.forget();
            let stream = started.stream.replace(stream.clone());
            (stream, started.waiting.take())
        });
        drop(old);
        Ok(stream)
    }

    /// Plans; or waits, saying so, for what keeps from it now and may pass: then false.
    fn plan_or_wait(
        &self,
        info: &gst_video::VideoInfo,
        modifier: Option<u64>,
    ) -> Result<bool, KmsError> {
        let error = match self.plan(info, modifier) {
            Ok(_) => return Ok(true),
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error),
        };
        let waiting = Waiting {
            info: info.clone(),
            modifier,
            missed: None,
            next_look: Instant::now() + LOOK_ROUND,
        };
        let old = self.started(|started| {
            started.observer.is_stale.store(false, Ordering::Release);
            started.prerolled.forget();
            let stream = started.stream.take();
            (stream, started.waiting.replace(waiting))
        });
        if old.is_some_and(|(_, waited)| waited.is_none()) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::NotFound,
                ("{}", report::waiting(&error))
            );
        }
        Ok(false)
    }

    /// What was missed for want of a display is shown on the one that is there now.
    fn catch_up(&self) {
        let missed = self.started(|started| {
            let waiting = started.waiting.as_mut()?;
            let missed = waiting.missed.take()?;
            Some((waiting.info.clone(), waiting.modifier, missed))
        });
        let Some((info, modifier, missed)) = missed.flatten() else {
            return;
        };
        match self.plan(&info, modifier) {
            Ok(stream) => {
                // Other memory may be shown without a copy now.
                self.adoption.restart();
                let options = lock(&self.settings).options();
                let _ = stream.show(&missed, Timing::default(), &options);
            }
            Err(error) => gst::info!(CAT, imp = self, "still waiting: {error}"),
        }
    }

    /// Makes the stream anew, if what is there now can show frames.
    fn renew_stream(&self) -> Result<(), KmsError> {
        self.look_elsewhere()?;
        let format = match self.stream() {
            Some(stream) => Some(stream.format()),
            None => self
                .started(|started| {
                    let waiting = started.waiting.as_ref()?;
                    let head = &started.head;
                    // Nothing has changed as yet.
                    (head.is_plugged() && head.is_master())
                        .then(|| (waiting.info.clone(), waiting.modifier))
                })
                .flatten(),
        };
        if let Some((info, modifier)) = format
            && self.plan_or_wait(&info, modifier)?
        {
            // Other memory may be shown without a copy now.
            self.adoption.restart();
        }
        Ok(())
    }

    /// Goes to another connector if a display was plugged in there, and the user
    /// named none.
    fn look_elsewhere(&self) -> Result<(), KmsError> {
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
        let Some(head) = head.flatten().filter(|_| settings.fd < 0) else {
            return Ok(());
        };
        if !head.is_lit_elsewhere(&settings.criteria()) {
            return Ok(());
        }
        let mut new = self.open()?;
        let old = self.started(|started| {
            new.waiting = started.waiting.take();
            std::mem::replace(started, new)
        });
        if let Some(old) = old {
            old.head.close(settings.restore_crtc);
        }
        Ok(())
    }

    /// There is nothing to show it on: not an error, and no reason to be faster.
    fn miss(&self, buffer: &gst::Buffer) -> Result<(), NotPresented> {
        let missed = self.started(|started| {
            let waiting = started.waiting.as_mut()?;
            let time = frame_time(&waiting.info);
            let old = waiting.missed.replace(buffer.clone());
            Some((started.head.clone(), time, old))
        });
        match missed.flatten() {
            Some((head, time, _)) => head.drop_waiting(time),
            None => Ok(()),
        }
    }

    fn note_offer(&self, offer: Offer) {
        self.started(|started| started.head.log.offer(offer));
    }

    fn is_open(&self) -> bool {
        self.started(|_| ()).is_some()
    }

    /// When a buffer should be on the screen.
    fn timing(&self, buffer: &gst::BufferRef) -> Timing {
        let sink = self.obj();
        let segment = sink.segment();
        let running_time = segment
            .downcast_ref::<gst::ClockTime>()
            .and_then(|segment| segment.to_running_time(buffer.pts()));
        let clock = sink.clock().filter(|_| sink.is_sync());
        let due_ns =
            running_time
                .zip(sink.base_time())
                .zip(clock)
                .and_then(|((running, base), clock)| {
                    let due = running + base + sink.latency();
                    let ahead = due.nseconds() as i64 - clock.time().nseconds() as i64;
                    monotonic_ns().checked_add_signed(ahead)
                });
        Timing {
            due_ns,
            running_time,
        }
    }

    /// A copy is never silent.
    fn tell_of_copies(&self, stream: &Stream) {
        if let Some(copying) = stream.log().copying_to_tell() {
            let remedy = stream.remedy_for_copies();
            gst::element_imp_warning!(self, gst::ResourceError::Settings, ("{copying}; {remedy}"));
        }
    }

    fn fail(&self, error: &KmsError) {
        self.post_error_message(report::error_message(error));
    }

    fn drain(&self) {
        self.started(|started| started.prerolled.forget());
        if let Some(stream) = self.stream() {
            stream.release_foreign(DRAIN_TIME);
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for KmsFlipSink {
    const NAME: &'static str = "GstKmsFlipSink";
    // Beside another copy of this library: src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::KmsFlipSink;
    type ParentType = gst_video::VideoSink;
}

#[glib::derived_properties]
impl ObjectImpl for KmsFlipSink {
    fn constructed(&self) {
        self.parent_constructed();
        negotiation::watch(&*self.obj(), "kmsflipsink", |sink| {
            let sink = sink.imp();
            sink.is_open().then(|| sink.caps(None)).flatten()
        });
    }
}

impl GstObjectImpl for KmsFlipSink {}

impl ElementImpl for KmsFlipSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "KMS flip sink",
                "Sink/Video",
                "Shows video on a KMS plane by atomic flips, without copies where the memory can be shown; \
                 gst-launch-1.0 videotestsrc ! kmsflipsink connector=HDMI-A-1 mode=1920x1080@60",
                "The gst-plugin-physmem developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst_video::VideoCapsBuilder::new()
                .format_list(format::all())
                .build();
            #[cfg(feature = "v1_24")]
            let caps = {
                let mut with_dma_drm = gst_video::VideoCapsBuilder::new()
                    .features([gst_allocators::CAPS_FEATURE_MEMORY_DMABUF])
                    .format(gst_video::VideoFormat::DmaDrm)
                    .build();
                with_dma_drm.merge(caps);
                with_dma_drm
            };
            gst::PadTemplate::new(
                "sink",
                gst::PadDirection::Sink,
                gst::PadPresence::Always,
                &caps,
            )
            .into_iter()
            .collect()
        });
        &TEMPLATES
    }

    // Not in BaseSink's start(), whose failure posts a second error after ours.
    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            match self.open() {
                Ok(started) => *lock(&self.state) = State::Started(Box::new(started)),
                Err(error) => {
                    self.fail(&error);
                    return Err(gst::StateChangeError);
                }
            }
        }
        let changed = self.parent_change_state(transition);
        let opened_in_vain = transition == gst::StateChange::NullToReady && changed.is_err();
        match transition {
            gst::StateChange::PausedToReady => self.drain(),
            gst::StateChange::ReadyToNull => self.close(),
            _ if opened_in_vain => self.close(),
            _ => {}
        }
        changed
    }
}

impl BaseSinkImpl for KmsFlipSink {
    fn caps(&self, filter: Option<&gst::Caps>) -> Option<gst::Caps> {
        let caps = self
            .started(|started| report::caps(&started.head))
            .unwrap_or_else(|| self.obj().sink_pad().pad_template_caps());
        let Some(filter) = filter else {
            return Some(caps);
        };
        let common = filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First);
        if common.is_empty() && self.is_open() {
            let name = "kmsflipsink";
            self.refusals
                .note(self.obj().upcast_ref(), name, filter, &caps);
        }
        Some(common)
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let (info, modifier) = match dma_drm::parse(caps) {
            Some((info, modifier)) => (info, Some(modifier)),
            None => {
                let info = gst_video::VideoInfo::from_caps(caps)
                    .map_err(|_| gst::loggable_error!(CAT, "no video caps: {caps}"))?;
                (info, None)
            }
        };
        // Frames of the old caps that belong to upstream leave the screen, so
        // that it can renegotiate its memory.
        self.drain();
        self.adoption.restart();
        self.note_offer(Offer::NotAsked);
        match self.plan_or_wait(&info, modifier) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.fail(&error);
                Err(gst::loggable_error!(CAT, "{error}"))
            }
        }
    }

    fn propose_allocation(
        &self,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        query.add_allocation_meta::<gst_video::VideoCropMeta>(None);
        let (caps, needs_pool) = query.get_owned();
        self.adoption.answered(needs_pool);
        self.note_offer(match needs_pool {
            true => Offer::None,
            false => Offer::NotWanted,
        });
        let Some((caps, stream)) = caps.zip(self.stream()).filter(|_| needs_pool) else {
            return Ok(());
        };
        let options = lock(&self.settings).options();
        match stream.pool(&options) {
            Ok(proposal) => {
                let mut config = proposal.pool.config();
                config.set_params(Some(&caps), proposal.size_bytes, proposal.min, proposal.max);
                config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
                if let Err(error) = proposal.pool.set_config(config) {
                    gst::warning!(CAT, imp = self, "the pool refuses its own config: {error}");
                    return Ok(());
                }
                let (size, min, max) = (proposal.size_bytes, proposal.min, proposal.max);
                proposal.pool.set_offered_by(Some(self.obj().upcast_ref()));
                query.add_allocation_pool(Some(&proposal.pool), size, min, max);
                self.note_offer(Offer::Made);
                if let Some(kind) = proposal.allocator {
                    query.add_allocation_param(
                        Some(memory::allocator(kind)),
                        gst::AllocationParams::default(),
                    );
                }
            }
            Err(reason) => {
                self.adoption.answered(false);
                gst::info!(CAT, imp = self, "offering no pool: {reason}");
            }
        }
        Ok(())
    }

    fn event(&self, event: gst::Event) -> bool {
        if let Some(head) = self.started(|started| started.head.clone()) {
            match event.type_() {
                // The end is when the last frame is on the screen.
                gst::EventType::Eos => {
                    head.wait_idle(DRAIN_TIME);
                }
                gst::EventType::FlushStart => head.withdraw(),
                gst::EventType::FlushStop => {
                    self.started(|started| started.prerolled.forget());
                    self.adoption.flushed();
                }
                _ => {}
            }
        }
        self.parent_event(event)
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if matches!(
            query.view(),
            gst::QueryView::Drain(_) | gst::QueryView::Allocation(_)
        ) {
            self.drain();
        }
        BaseSinkImplExt::parent_query(self, query)
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.is_rendering.store(true, Ordering::Relaxed);
        let rendered = self.parent_render(buffer);
        self.is_rendering.store(false, Ordering::Relaxed);
        rendered
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(head) = self.started(|started| started.head.clone()) {
            head.set_flushing(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(head) = self.started(|started| started.head.clone()) {
            head.set_flushing(false);
        }
        Ok(())
    }
}

impl VideoSinkImpl for KmsFlipSink {
    fn show_frame(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let options = lock(&self.settings).options();
        let is_rendered = self.is_rendering.load(Ordering::Relaxed);
        let begun = self.started(|started| {
            if started.stream.is_none() && started.waiting.is_none() {
                return Err(gst::FlowError::NotNegotiated);
            }
            Ok((!started.is_stale()).then(|| started.begin_frame(buffer, is_rendered)))
        });
        let frame = match begun.ok_or(gst::FlowError::Flushing)??.flatten() {
            Some(frame) => Some(frame),
            None => {
                self.renew_stream().map_err(|error| {
                    self.fail(&error);
                    gst::FlowError::Error
                })?;
                self.started(|started| started.begin_frame(buffer, is_rendered))
                    .flatten()
            }
        };
        if let Some((stream, true)) = &frame {
            stream.log().repeated();
            return Ok(gst::FlowSuccess::Ok);
        }
        let stream = frame.map(|(stream, _)| stream);
        let timing = self.timing(buffer);
        let show = || match &stream {
            Some(stream) => stream.show(buffer, timing, &options),
            None => self.miss(buffer),
        };
        let is_freed = || {
            let stream = stream.as_ref();
            stream.is_some_and(|stream| stream.log().is_freed(*CAT, buffer))
        };
        let shown = loop {
            match show() {
                // The base class unlocks for a pause, too, and wants the frame to
                // be shown when it goes on.
                Err(NotPresented::Flushing) => self.obj().wait_preroll()?,
                Err(NotPresented::Refused(_)) if is_freed() => break Ok(()),
                result => break result,
            };
        };
        if shown.is_err() {
            self.started(|started| started.prerolled.forget());
        }
        let error = match shown {
            Ok(()) => {
                if let Some(stream) = &stream {
                    let is_adopted = !stream.log().is_way(Way::Foreign);
                    self.adoption
                        .note(self.obj().sink_pad(), buffer, is_adopted);
                    self.tell_of_copies(stream);
                }
                return Ok(gst::FlowSuccess::Ok);
            }
            Err(NotPresented::Flushing) => return Err(gst::FlowError::Flushing),
            Err(NotPresented::Refused(reason)) => {
                stream.as_ref().map(|stream| stream.refused(reason))
            }
            Err(NotPresented::Gone(reason)) => {
                self.started(|started| KmsError::gone(&started.head.device, reason))
            }
        };
        if let Some(error) = error {
            self.fail(&error);
        }
        Err(gst::FlowError::Error)
    }
}
