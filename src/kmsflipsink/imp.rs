// SPDX-License-Identifier: MPL-2.0
//! Virtual methods and properties.
//!
//! `settings` are copied whenever they are needed. No thread holds the locks of `settings` and `state` at
//! once, and under neither does it push, post, wait or make a system call.
#![allow(missing_docs)] // The derive makes getters and setters, whose documentation is the blurb.

mod balance;
mod display;
mod navigate;
mod shared_card;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::subclass::prelude::*;
use gst_video::{VideoOrientationMethod, VideoOverlayCompositionMeta};

use self::display::Started;
use super::CAT;
use super::composition;
use super::error::{KmsError, NotPresented};
use super::fields;
use super::format;
use super::frame_caps::FrameCaps;
use super::offered_memory::OfferedMemory;
use super::opener::Opener;
use super::orientation::Orientation;
use super::report;
use super::settings::Settings;
use super::stream::Stream;
use crate::adoption::Adoption;
use crate::display::area::RenderRectangle;
use crate::display::frame_log::{Offer, Way};
use crate::display::prerolled;
use crate::display::presentation::{RenderDelay, Timing};
use crate::interfaces::{
    ColorBalance, ColorBalanceChannels, VideoDirection, VideoOverlay, VideoOverlayImpl,
};
use crate::locks::lock;
use crate::memory;
use crate::negotiation::{self, Refusals};
use crate::structure_property::{StructureProperty, in_one_line};
use crate::sys::clock::monotonic_ns;

#[derive(Default)]
enum State {
    #[default]
    Stopped,
    Started(Box<Started>),
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
    #[property(name = "clone-connectors", get, set, type = Option<String>, member = clone_connectors, nick = "Clone connectors",
        blurb = "Further connectors of the card that show the same picture, by name, separated by commas, such as HDMI-A-2,DP-1")]
    #[property(name = "plane-id", get, set, type = i32, member = plane_id, nick = "Plane id",
        blurb = "The plane by DRM object id (-1 = a free one that shows the format: the primary plane first, then overlays)", minimum = -1, default = -1)]
    #[property(name = "fd", get, set, type = i32, member = fd, nick = "File descriptor",
        blurb = "An open DRM device, master or lease, that the application keeps (-1 = open one)", minimum = -1, default = -1)]
    #[property(name = "mode", get = Self::mode, set = Self::set_mode, type = Option<String>, nick = "Mode",
        blurb = "auto (the current mode if frames fit, else the one that fits size and rate best), preferred, highest, WIDTHxHEIGHT, WIDTHxHEIGHT@RATE or an index, or a modeline or \"WIDTHxHEIGHT@RATE cvt\" that the display need not list")]
    #[property(name = "restore", get, set = Self::set_restore, type = bool, member = restore, nick = "Restore",
        blurb = "Show again what was shown before, at the end", default = true)]
    #[property(name = "restore-crtc", get, set = Self::set_restore, type = bool, member = restore, nick = "Restore CRTC",
        blurb = "The same property as restore, by the name that it has in kmssink", default = true)]
    #[property(name = "follow-vt", get, set, type = bool, member = follow_vt, nick = "Follow virtual terminal",
        blurb = "Give the screen away while another virtual terminal is in the foreground", default = true)]
    #[property(name = "session", get, set, type = Opener, member = session, nick = "Session",
        blurb = "Who opens the card: auto (the process, or seatd or logind if the process may not), none (the process) or libseat (seatd or logind)",
        builder(Opener::Auto))]
    #[property(name = "input-devices", get, set, type = Option<String>, member = input_devices, nick = "Input devices",
        blurb = "Keyboards, mice and touchscreens whose events are sent upstream: auto (all that may be opened) or device nodes such as /dev/input/event3, with commas between (default: none)")]
    #[property(name = "force-aspect-ratio", get, set, type = bool, member = force_aspect_ratio, nick = "Force aspect ratio",
        blurb = "Keep the picture's proportions when the plane scales it", default = true)]
    #[property(name = "rotate-method", get = Self::rotate_method, set = Self::set_rotate_method, type = VideoOrientationMethod, nick = "Rotate method",
        blurb = "Turn or mirror the picture, where the plane can", builder(VideoOrientationMethod::Identity))]
    #[property(name = "zpos", get, set = Self::set_zpos, type = i64, member = zpos, nick = "Z position",
        blurb = "The plane's place among the others (-1 = leave it)", minimum = -1, default = -1)]
    #[property(name = "plane-properties", get, set = Self::set_plane_properties, type = StructureProperty, member = plane_properties, nick = "Plane properties",
        blurb = "Properties to set on the plane, such as props,alpha=32768 ('-' for spaces in names)")]
    #[property(name = "connector-properties", get, set = Self::set_connector_properties, type = StructureProperty, member = connector_properties, nick = "Connector properties",
        blurb = "Properties to set on the connector, such as props,max-bpc=8 ('-' for spaces in names)")]
    #[property(name = "crtc-properties", get, set = Self::set_crtc_properties, type = StructureProperty, member = crtc_properties, nick = "CRTC properties",
        blurb = "Properties to set on the CRTC, such as props,VRR-ENABLED=1 ('-' for spaces in names)")]
    #[property(name = "memory-kind", get, set, type = OfferedMemory, member = memory_kind, nick = "Memory kind",
        blurb = "What to offer upstream to write into: auto takes the first of cma, udmabuf and dumb (the card's own buffers) that can be shown",
        builder(OfferedMemory::Auto))]
    #[property(name = "variable-refresh", get, set = Self::set_variable_refresh, type = bool, member = variable_refresh, nick = "Variable refresh",
        blurb = "Let the display refresh when a frame is due, where display and driver can (VRR, adaptive sync)", default = false)]
    #[property(name = "tearing", get, set = Self::set_tearing, type = bool, member = tearing, nick = "Tearing",
        blurb = "Show frames at once and not at the vertical blank, where the driver can; they tear", default = false)]
    #[property(name = "post-presentation-messages", get, set, type = bool, member = post_presentation_messages, nick = "Post presentation messages",
        blurb = "Post an element message with the times of each frame that was shown", default = false)]
    #[property(name = "standby-timeout", get, set = Self::set_standby_timeout, type = u32, member = standby_timeout, nick = "Standby timeout",
        blurb = "Switch the display off when no new frame has come for this time, until the next frame, in milliseconds (0 = never)", default = 0)]
    settings: Mutex<Settings>,

    #[property(name = "render-rectangle", get = Self::render_rectangle, set = Self::set_render_rectangle, type = gst::Array,
        nick = "Render rectangle", blurb = "Part of the screen for the picture, <x, y, width, height>")]
    #[property(name = "video-direction", get = Self::rotate_method, set = Self::set_rotate_method, type = VideoOrientationMethod,
        override_interface = VideoDirection)]
    #[property(name = "display-width", get = Self::display_width, type = i32, nick = "Display width",
        blurb = "Width of the mode in pixels, 0 before there is one", minimum = 0, default = 0)]
    #[property(name = "display-height", get = Self::display_height, type = i32, nick = "Display height",
        blurb = "Height of the mode in pixels, 0 before there is one", minimum = 0, default = 0)]
    #[property(name = "pool", get = Self::pool_in_a_line, type = Option<String>, nick = "Pool",
        blurb = "The pool that was offered to upstream last, and what it holds, in one line, as graphs of the pipeline show it")]
    #[property(name = "stats", get = Self::stats, type = StructureProperty, override_class = gst_base::BaseSink)]
    _computed: (),

    state: Mutex<State>,
    /// Whether the base class renders the frame that is being shown; false during a preroll.
    is_rendering: AtomicBool,
    /// What the tags of the stream say.
    orientation: Mutex<Orientation>,
    adoption: Adoption,
    render_delay: RenderDelay,
    /// Width and height of the mode, for `display-width` and `display-height`.
    screen: Mutex<(u32, u32)>,
    /// The counters at the last stop.
    last_stats: Mutex<Option<gst::Structure>>,
    refusals: Refusals,
    channels: OnceLock<ColorBalanceChannels>,
}

/// How long a drain, or EOS, waits for the last frame.
const DRAIN_TIME: Duration = Duration::from_millis(500);

impl KmsFlipSink {
    fn render_rectangle(&self) -> gst::Array {
        lock(&self.settings).render_rectangle.to_property()
    }

    fn mode(&self) -> Option<String> {
        Some(lock(&self.settings).mode.clone())
    }

    /// NULL, which a program in any language may set, means the default.
    fn set_mode(&self, mode: Option<String>) {
        let mode = mode.unwrap_or_else(|| Settings::default().mode);
        lock(&self.settings).mode = mode;
    }

    fn set_restore(&self, restore: bool) {
        lock(&self.settings).restore = restore;
        let sink = self.obj();
        sink.notify_restore();
        sink.notify_restore_crtc();
    }

    fn rotate_method(&self) -> VideoOrientationMethod {
        lock(&self.settings).rotate_method
    }

    /// Takes effect with the next frame. `rotate-method` and `video-direction` are the same.
    fn set_rotate_method(&self, method: VideoOrientationMethod) {
        lock(&self.settings).rotate_method = method;
        for name in ["rotate-method", "video-direction"] {
            self.obj().notify(name);
        }
        if self.started(|started| started.make_stale()).is_some() {
            self.warn_of_custom_rotation();
            self.show_change();
        }
    }

    fn set_zpos(&self, zpos: i64) {
        self.set_wish(|settings| settings.zpos = zpos);
    }

    fn set_plane_properties(&self, properties: StructureProperty) {
        self.set_wish(|settings| settings.plane_properties = properties);
    }

    fn set_connector_properties(&self, properties: StructureProperty) {
        self.set_wish(|settings| settings.connector_properties = properties);
    }

    fn set_crtc_properties(&self, properties: StructureProperty) {
        self.set_wish(|settings| settings.crtc_properties = properties);
    }

    /// Changes settings of KMS properties, which takes effect with the next frame.
    fn set_wish(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.settings));
        if self.started(Started::make_wishes_stale).is_some() {
            self.show_change();
        }
    }

    fn display_width(&self) -> i32 {
        lock(&self.screen).0 as i32
    }

    fn display_height(&self) -> i32 {
        lock(&self.screen).1 as i32
    }

    fn warn_of_custom_rotation(&self) {
        if self.rotate_method() == VideoOrientationMethod::Custom {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("rotate-method=custom says nothing of how to turn the picture, which is shown as it is; \
                     set rotate-method to one of the other values")
            );
        }
    }

    /// Takes effect with the next frame.
    fn set_variable_refresh(&self, is_wanted: bool) {
        // The mode, too, depends on it. First, because in PAUSED another thread plans at once.
        self.started(|started| started.make_stale());
        self.set_wish(|settings| settings.variable_refresh = is_wanted);
    }

    /// Takes effect with the next frame.
    fn set_tearing(&self, is_wanted: bool) {
        lock(&self.settings).tearing = is_wanted;
        self.follow_pace();
    }

    fn set_standby_timeout(&self, milliseconds: u32) {
        lock(&self.settings).standby_timeout = milliseconds;
        let standby = lock(&self.settings).standby();
        if let Some(head) = self.started(|started| started.head.clone()) {
            head.set_standby(standby);
        }
    }

    /// How to turn the picture now.
    fn rotation(&self) -> VideoOrientationMethod {
        let of_tags = lock(&self.orientation).method();
        lock(&self.settings).rotation(of_tags)
    }

    /// Notes an event that says how the stream wants to be turned.
    fn note_orientation(&self, note: impl FnOnce(&mut Orientation)) {
        let before = self.rotation();
        note(&mut lock(&self.orientation));
        if self.rotation() != before {
            self.started(|started| started.make_stale());
        }
    }

    fn set_render_rectangle(&self, value: gst::Array) {
        if let Some(rectangle) = RenderRectangle::of_property(&value, &*self.obj(), *CAT) {
            lock(&self.settings).render_rectangle = rectangle;
            self.show_change();
        }
    }

    fn pool_in_a_line(&self) -> Option<String> {
        self.adoption.pool_in_a_line()
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

    fn close(&self) {
        let last_stats = self.stats().0;
        let restore = lock(&self.settings).restore;
        let state = std::mem::take(&mut *lock(&self.state));
        if let State::Started(started) = state {
            let stats = StructureProperty(last_stats.clone());
            gst::info!(CAT, imp = self, "{}", in_one_line(&stats, &report::NUMBERS));
            started.head.close(restore);
        }
        *lock(&self.last_stats) = last_stats;
        self.note_screen();
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

    fn note_offer(&self, offer: Offer) {
        self.started(|started| started.head.log.offer(offer));
    }

    fn is_open(&self) -> bool {
        self.started(|_| ()).is_some()
    }

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
        drop(self.started(Started::forget_frames));
        if let Some(stream) = self.stream() {
            stream.release_foreign(DRAIN_TIME);
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for KmsFlipSink {
    const NAME: &'static str = "GstKmsFlipSink";
    // Another copy of this library in the process has a type of this name: src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::KmsFlipSink;
    type ParentType = gst_video::VideoSink;
    type Interfaces = (
        ColorBalance,
        VideoOverlay,
        VideoDirection,
        gst_video::Navigation,
    );
}

impl VideoOverlayImpl for KmsFlipSink {
    fn expose(&self) {
        self.show_again();
    }

    fn set_render_rectangle(&self, rectangle: [i32; 4]) {
        let rectangle = gst::Array::new(rectangle);
        self.obj().set_property("render-rectangle", rectangle);
    }
}

#[glib::derived_properties]
impl ObjectImpl for KmsFlipSink {
    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.derived_set_property(id, &crate::property_text::readable(value), pspec);
    }

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
            let caps = fields::also_fields(&caps);
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
                &composition::also_with_meta(&caps),
            )
            .into_iter()
            .collect()
        });
        &TEMPLATES
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        self.answers_context(query) || ElementImplExt::parent_query(self, query)
    }

    // The card is opened here because BaseSink posts a second error after ours when its start() fails.
    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            self.warn_of_custom_rotation();
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
            gst::StateChange::PausedToReady => {
                self.drain();
                // A display that comes in READY has nothing to show.
                drop(self.started(|started| started.waiting.take()));
                *lock(&self.orientation) = Orientation::default();
            }
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
        let frame_caps = FrameCaps::parse(caps)
            .ok_or_else(|| gst::loggable_error!(CAT, "no video caps: {caps}"))?;
        // The screen gives up upstream's frames of the old caps, so that upstream can renegotiate its memory.
        self.drain();
        self.adoption.restart();
        self.note_offer(Offer::NotAsked);
        match self.plan_or_wait(&frame_caps) {
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
        let window = self.stream().and_then(|stream| stream.overlay_window());
        let window = window.map(composition::window_params);
        query.add_allocation_meta::<VideoOverlayCompositionMeta>(window.as_deref());
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
                self.adoption.offers(query);
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
        match event.view() {
            gst::EventView::StreamStart(start) => {
                self.note_orientation(|noted| noted.begin_stream(start.stream_id()));
            }
            gst::EventView::Tag(tags) => self.note_orientation(|noted| noted.note_tags(tags.tag())),
            _ => {}
        }
        if let Some(head) = self.started(|started| started.head.clone()) {
            match event.type_() {
                // EOS is reached only when the last frame is on the screen.
                gst::EventType::Eos => {
                    head.wait_idle(DRAIN_TIME);
                }
                gst::EventType::FlushStart => {
                    // First, because a thread that waits would hand its frame over instead.
                    head.set_flushing(true);
                    head.withdraw();
                }
                gst::EventType::FlushStop => {
                    drop(self.started(Started::forget_frames));
                    if let Some(stream) = self.stream() {
                        stream.forget_field();
                    }
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
        if self.answers_context(query) {
            return true;
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
        let is_rendered = self.is_rendering.load(Ordering::Relaxed);
        prerolled::outcome(self.show(buffer, is_rendered), is_rendered)
    }
}

impl KmsFlipSink {
    fn show(
        &self,
        buffer: &gst::Buffer,
        is_rendered: bool,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let options = lock(&self.settings).options();
        let begun = self.started(|started| {
            if started.stream.is_none() && started.waiting.is_none() {
                return Err(gst::FlowError::NotNegotiated);
            }
            let is_current = started.is_current();
            Ok(is_current.then(|| started.begin_frame(buffer, is_rendered)))
        });
        let frame = match begun.ok_or(gst::FlowError::Flushing)??.flatten() {
            Some(frame) => Some(frame),
            None => {
                self.apply_changes().map_err(|error| {
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
        let show = || match &stream {
            Some(stream) => {
                let timing = Timing::of(&*self.obj(), buffer, is_rendered, monotonic_ns());
                stream.show(buffer, timing.into(), &options)
            }
            None => self.miss(buffer, is_rendered),
        };
        let is_freed = || {
            let stream = stream.as_ref();
            stream.is_some_and(|stream| stream.log().is_freed(*CAT, buffer))
        };
        let shown = loop {
            match show() {
                // The base class calls unlock() for a pause too, and wants this frame shown when it
                // goes on.
                Err(NotPresented::Flushing) if is_rendered => self.obj().wait_preroll()?,
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
                let source = std::io::Error::other(reason);
                stream.as_ref().map(|stream| stream.refused(source))
            }
            Err(NotPresented::Failing(errno)) => {
                let source = std::io::Error::from_raw_os_error(errno);
                stream.as_ref().map(|stream| stream.refused(source))
            }
            Err(NotPresented::Gone(gone)) => {
                self.started(|started| KmsError::gone(&started.head.device, gone))
            }
        };
        if let Some(error) = error {
            self.fail(&error);
        }
        Err(gst::FlowError::Error)
    }
}
