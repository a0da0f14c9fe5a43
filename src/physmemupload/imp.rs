// SPDX-License-Identifier: MPL-2.0
//! Properties and virtual methods of `physmemupload`.
//!
//! To the base class the element is a passthrough, because a passthrough takes streams without
//! caps, too. `generate_output` decides what is done with a buffer.
//!
//! No two of the locks `settings`, `stream`, `counters` and `copy_reason` are held at once.

use std::sync::{LazyLock, Mutex};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::subclass::{BaseTransformMode, base_transform::GenerateOutputSuccess, prelude::*};
use gst_video::prelude::*;

use super::{
    CAT,
    target::{CopyPool, OfferOutcome, WantedMemory, is_mappable, video_info},
};
use crate::{
    adoption::Adoption,
    layout,
    locks::lock,
    memory::MemoryKind,
    meta::PhysMemMeta,
    pool::{self, PhysBufferPool},
    structure_property::{StructureProperty, in_one_line},
    write_map::{self, WriteMap},
};

#[derive(Default)]
struct Stream {
    caps: Option<gst::Caps>,
    /// The pool to copy into, chosen when the first buffer has to be copied.
    target: Option<CopyPool>,
    /// What upstream was offered for its ALLOCATION query.
    offer: OfferOutcome,
    flushing: bool,
}

impl Stream {
    /// The pool that frames are copied into.
    fn pool(&self) -> Option<PhysBufferPool> {
        self.target.as_ref().map(|target| target.pool.clone())
    }

    fn is_mappable(&self) -> bool {
        self.caps.as_ref().is_none_or(is_mappable)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    passed: u64,
    /// How many of those that passed are in memory that the CPU cannot map.
    unmappable: u64,
    copied: u64,
    copied_bytes: u64,
    dropped: u64,
}

impl Counters {
    fn path(&self) -> &'static str {
        match (self.passed, self.copied) {
            (0, 0) => "nothing has arrived yet",
            (passed, 0) if passed == self.unmappable => {
                "untouched: the CPU cannot map upstream's memory"
            }
            (_, 0) => "zero-copy: upstream writes into this memory",
            (0, _) => "copying: upstream has memory of its own",
            _ => "mixed: part of what upstream sends is in memory of its own",
        }
    }
}

#[derive(Default, glib::Properties)]
#[properties(wrapper_type = super::PhysMemUpload)]
pub struct PhysMemUpload {
    #[property(name = "memory-kind", get, set = Self::set_memory_kind, type = MemoryKind, member = kind,
        builder(MemoryKind::Auto).mutable_ready().nick("Memory kind")
            .blurb("What the buffers are made of; 'auto' takes the first kind that works"))]
    #[property(name = "kind", get, set = Self::set_memory_kind, type = MemoryKind, member = kind,
        builder(MemoryKind::Auto).mutable_ready().nick("Memory kind")
            .blurb("The same property as memory-kind, by its older name"))]
    #[property(name = "heap", get, set, type = Option<String>, member = heap, mutable_ready,
        nick = "Heap", blurb = "Name of the dma-heap below /dev/dma_heap for kinds 'cma' and 'system' (default: the CMA heap, 'system'); for kind 'region' the memory, such as /dev/mem@0x30000000+64M")]
    #[property(name = "max-address", get, set, type = u64, member = max_address, mutable_ready,
        nick = "Highest address", blurb = "Highest physical address that the hardware can reach (0 = any): frames beyond are copied, and memory beyond is refused")]
    #[property(name = "buffer-size", get, set, type = u32, member = buffer_size, mutable_ready,
        nick = "Buffer size", blurb = "Bytes of the buffers offered to upstream where the caps name no size (audio, byte streams); \
            at least upstream's largest buffer. 0 = upstream is offered none and its buffers are copied")]
    #[property(name = "withhold-address", get, set, type = bool, member = withhold_address, mutable_ready,
        nick = "Withhold address", blurb = "Do not tell the processes that buffers of this element's memory are sent to (by unixfdsink) their physical addresses")]
    settings: Mutex<WantedMemory>,
    #[property(name = "stats", get = Self::stats, type = StructureProperty,
        nick = "Statistics", blurb = "How many buffers passed untouched, were copied, were dropped, and why")]
    counters: Mutex<Counters>,
    #[property(name = "pool", get = Self::pool_in_a_line, type = Option<String>, nick = "Pool",
        blurb = "The pool that buffers are copied into, else the one that was offered to upstream last, and what it holds, in one line, as graphs of the pipeline show it")]
    _computed: (),
    /// Why the first copy since the start was made.
    copy_reason: Mutex<Option<String>>,
    stream: Mutex<Stream>,
    adoption: Adoption,
}

impl PhysMemUpload {
    fn set_memory_kind(&self, kind: MemoryKind) {
        lock(&self.settings).kind = kind;
        let element = self.obj();
        element.notify_memory_kind();
        element.notify_kind();
    }

    fn stats(&self) -> StructureProperty {
        let counters = *lock(&self.counters);
        let pool = lock(&self.stream).pool();
        let mut stats = gst::Structure::builder("physmemupload-stats")
            .field("path", counters.path())
            .field("passed", counters.passed)
            .field("copied", counters.copied)
            .field("copied-bytes", counters.copied_bytes)
            .field("dropped", counters.dropped)
            .field_if_some("copy-reason", lock(&self.copy_reason).clone());
        if let Some(pool) = pool {
            stats = stats.field("pool", pool.property::<gst::Structure>("stats"));
        }
        stats.build().into()
    }

    fn pool_in_a_line(&self) -> Option<String> {
        let pool = lock(&self.stream).pool();
        match pool {
            Some(pool) => Some(pool::in_a_line(pool.upcast_ref())),
            None => self.adoption.pool_in_a_line(),
        }
    }

    /// An active pool whose buffers hold `bytes` bytes. Fails while the element is flushing.
    fn pool_for(&self, bytes: usize) -> Result<crate::pool::PhysBufferPool, gst::FlowError> {
        let caps = {
            let stream = lock(&self.stream);
            if stream.flushing {
                return Err(gst::FlowError::Flushing);
            }
            if let Some(target) = stream.target.as_ref().filter(|t| t.size_bytes >= bytes) {
                return Ok(target.pool.clone());
            }
            stream.caps.clone()
        };
        let wanted = lock(&self.settings).clone();
        let src_pad = self.obj().src_pad().clone();
        let found = CopyPool::find(&wanted, &src_pad, caps.as_ref(), bytes);
        if src_pad.pad_flags().contains(gst::PadFlags::FLUSHING) {
            // The flush made the query fail: downstream is asked again for the next buffer.
            return Err(gst::FlowError::Flushing);
        }
        let target = found.map_err(|message| {
            self.post_error_message(message);
            gst::FlowError::Error
        })?;
        gst::debug!(
            CAT,
            imp = self,
            "copying into {}, {} bytes a buffer",
            target.pool.name(),
            target.size_bytes
        );
        target.pool.set_used_by(self.obj().upcast_ref());
        let pool = target.pool.clone();
        let mut stream = lock(&self.stream);
        let old = stream.target.replace(target);
        let flushing = stream.flushing;
        drop(stream);
        drop(old);
        match flushing {
            true => Err(gst::FlowError::Flushing),
            false => Ok(pool),
        }
    }

    /// A buffer to copy `bytes` bytes into.
    fn acquire(&self, bytes: usize) -> Result<gst::Buffer, gst::FlowError> {
        loop {
            let pool = self.pool_for(bytes)?;
            match pool.acquire_buffer(None) {
                Err(gst::FlowError::Flushing) if self.is_forgotten(&pool) => {}
                Err(error @ gst::FlowError::Error) => {
                    gst::element_imp_error!(
                        self,
                        gst::ResourceError::NoSpaceLeft,
                        (
                            "no buffer to copy into: {}",
                            pool.last_error().unwrap_or_else(|| error.to_string())
                        )
                    );
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    /// Whether the pool is no longer the one to copy into, although the stream goes on: downstream has asked for a
    /// reconfiguration meanwhile.
    fn is_forgotten(&self, pool: &crate::pool::PhysBufferPool) -> bool {
        let stream = lock(&self.stream);
        let target = stream.target.as_ref();
        !stream.flushing && target.is_none_or(|target| target.pool != *pool)
    }

    fn copy(&self, input: &gst::Buffer) -> Result<gst::Buffer, gst::FlowError> {
        // Each meta describes a view (multiview-mode=separated), and the copy has room for one.
        let views = input.iter_meta::<gst_video::VideoMeta>().count();
        if views > 1 {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("cannot copy a buffer of {views} pictures (multiview-mode=separated): have upstream use the pool \
                     offered, or put all views into one picture before this element (multiview-mode=side-by-side)")
            );
            return Err(gst::FlowError::Error);
        }
        let mut output = self.acquire(input.size())?;
        let output_ref = output.get_mut().ok_or(gst::FlowError::Error)?;
        let info = lock(&self.stream).caps.as_ref().and_then(video_info);
        let copied = match &info {
            Some(info) => copy_frame(info, input, output_ref),
            None => copy_bytes(input, output_ref),
        };
        copied.map_err(|reason| {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("cannot copy a buffer: {reason}; its memory is not what its caps and metas say")
            );
            gst::FlowError::Error
        })?;
        self.copy_metadata(input, output_ref).map_err(|error| {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("cannot copy a buffer's timestamps and metas: {error}")
            );
            gst::FlowError::Error
        })?;
        let bytes = output.size();
        let mut counters = lock(&self.counters);
        counters.copied += 1;
        counters.copied_bytes += bytes as u64;
        let first = counters.copied == 1;
        drop(counters);
        if first {
            self.say_that_it_copies(input);
        }
        gst::trace!(gst::CAT_PERFORMANCE, imp = self, "copied {bytes} bytes");
        Ok(output)
    }

    /// A copy is never silent: the user wants this element to have nothing to do.
    fn say_that_it_copies(&self, input: &gst::BufferRef) {
        let wanted = lock(&self.settings).clone();
        let why = wanted.why_unmet_by(input);
        let why = why.unwrap_or_else(|| self.why_elsewhere(input.n_memory()).to_owned());
        *lock(&self.copy_reason) = Some(why.clone());
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Settings,
            ("each buffer is copied once: {why}")
        );
    }

    /// Why upstream's buffers are in memory of other allocators.
    fn why_elsewhere(&self, memories: usize) -> &'static str {
        match lock(&self.stream).offer {
            OfferOutcome::NotAsked => {
                "upstream never asked for a pool. A tee does not pass the question on: put it \
                 behind this element. appsrc leaves it to the application: ask its peer with an \
                 ALLOCATION query, and use the pool"
            }
            OfferOutcome::NoSize => {
                "upstream was offered no pool, as the caps name no size: set buffer-size to \
                 upstream's largest buffer"
            }
            OfferOutcome::NotWanted => {
                "upstream asked for an allocation and wanted no pool, as a tee does: put it behind \
                 this element"
            }
            OfferOutcome::None => "upstream could be offered no pool of this memory",
            OfferOutcome::Made if memories > 1 => {
                "upstream did not take the pool offered, and sends buffers of several memories"
            }
            OfferOutcome::Made => {
                "upstream did not take the pool offered: v4l2src does with \
                 io-mode=dmabuf-import, and videoconvert before this element if it has to convert"
            }
        }
    }

    /// Posts an error that upstream's caps and downstream's have nothing in common.
    fn say_that_nothing_fits(&self, caps: &gst::CapsRef) {
        let takes = self.obj().src_pad().peer_query_caps(None);
        let remedy = match caps.structure(0).map(|s| s.name().as_str()) {
            Some("video/x-raw") => "put videoconvert and videoscale before it",
            Some("audio/x-raw") => "put audioconvert and audioresample before it",
            _ => "put an element between that makes the one of the other",
        };
        gst::element_imp_error!(
            self,
            gst::CoreError::Negotiation,
            ("upstream sends {caps}, and downstream takes {takes} only; {remedy}")
        );
    }

    fn set_flushing(&self, flushing: bool) {
        let pool = {
            let mut stream = lock(&self.stream);
            stream.flushing = flushing;
            stream.target.as_ref().map(|t| t.pool.clone())
        };
        if let Some(pool) = pool {
            pool.set_flushing(flushing);
        }
    }

    /// Forgets the pool to copy into, which was chosen for another stream or another peer.
    fn forget_target(&self) {
        let target = lock(&self.stream).target.take();
        drop(target);
    }
}

fn copy_frame(
    info: &gst_video::VideoInfo,
    input: &gst::BufferRef,
    output: &mut gst::BufferRef,
) -> Result<(), glib::BoolError> {
    let input = crate::foreign::map(info, input)
        .map_err(|error| glib::bool_error!("the frame: {error}"))?;
    let mut output = write_map::frame(output, info)?;
    layout::copy_frame(info, &input, &mut output)?;
    input
        .check()
        .map_err(|error| glib::bool_error!("the frame: {error}"))
}

fn copy_bytes(input: &gst::BufferRef, output: &mut gst::BufferRef) -> Result<(), glib::BoolError> {
    let size = input.size();
    {
        let mut output = WriteMap::new(output)?;
        let output = output.as_mut_slice().get_mut(..size);
        let output = output.ok_or_else(|| glib::bool_error!("{size} bytes do not fit"))?;
        crate::foreign::read(input, |bytes| output.copy_from_slice(bytes))
            .map_err(|error| glib::bool_error!("{error}"))?;
    }
    output.set_size(size);
    Ok(())
}

#[glib::object_subclass]
impl ObjectSubclass for PhysMemUpload {
    const NAME: &'static str = "GstPhysMemUpload";
    // Another copy of this library may have registered the name: src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::PhysMemUpload;
    type ParentType = gst_base::BaseTransform;
}

#[glib::derived_properties]
impl ObjectImpl for PhysMemUpload {
    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.derived_set_property(id, &crate::property_text::readable(value), pspec);
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_passthrough(true);
    }
}

impl GstObjectImpl for PhysMemUpload {}

impl ElementImpl for PhysMemUpload {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Physical memory upload",
                "Filter",
                "Puts any stream into memory at known physical addresses, without a copy where upstream takes the pool offered",
                "The gst-plugin-physmem developers",
            )
        });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [
                ("sink", gst::PadDirection::Sink),
                ("src", gst::PadDirection::Src),
            ]
            .into_iter()
            .filter_map(|(name, direction)| {
                gst::PadTemplate::new(
                    name,
                    direction,
                    gst::PadPresence::Always,
                    &gst::Caps::new_any(),
                )
                .ok()
            })
            .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.set_flushing(false),
            // Before the pads are deactivated, because that waits for the streaming thread.
            gst::StateChange::PausedToReady => self.set_flushing(true),
            _ => {}
        }
        self.parent_change_state(transition)
    }
}

impl BaseTransformImpl for PhysMemUpload {
    const MODE: BaseTransformMode = BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = true;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.counters) = Counters::default();
        *lock(&self.copy_reason) = None;
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let stopped = std::mem::take(&mut *lock(&self.stream));
        drop(stopped);
        let numbers = ["passed", "copied", "copied-bytes", "dropped", "path"];
        gst::info!(CAT, imp = self, "{}", in_one_line(&self.stats(), &numbers));
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps, _: &gst::Caps) -> Result<(), gst::LoggableError> {
        {
            let mut stream = lock(&self.stream);
            stream.caps = Some(caps.clone());
            stream.offer = OfferOutcome::NotAsked;
        }
        self.adoption.restart();
        self.forget_target();
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.type_() {
            gst::EventType::FlushStart => self.set_flushing(true),
            gst::EventType::FlushStop => {
                self.set_flushing(false);
                self.adoption.flushed();
            }
            _ => {}
        }
        let caps = match event.view() {
            gst::EventView::Caps(caps) => Some(caps.caps_owned()),
            _ => None,
        };
        let taken = self.parent_sink_event(event);
        let refused = caps.filter(|caps| {
            !taken && crate::negotiation::is_of_stream(caps) && !lock(&self.stream).flushing
        });
        if let Some(caps) = refused {
            self.say_that_nothing_fits(&caps);
        }
        taken
    }

    fn accept_caps(&self, direction: gst::PadDirection, caps: &gst::Caps) -> bool {
        // Otherwise the pad refuses a CAPS event before this element can say why.
        direction == gst::PadDirection::Sink || self.parent_accept_caps(direction, caps)
    }

    fn src_event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::Reconfigure {
            self.forget_target();
        }
        self.parent_src_event(event)
    }

    fn propose_allocation(
        &self,
        _decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        let (caps, need_pool) = query.get_owned();
        // Downstream's offer comes first. It is no failure if downstream has none.
        let _answered = self.obj().src_pad().peer_query(query);
        if caps.as_ref().is_none_or(is_mappable) {
            let wanted = lock(&self.settings).clone();
            let element = self.obj();
            let offer = wanted.offer(query, caps.as_ref(), need_pool, element.upcast_ref());
            lock(&self.stream).offer = offer;
        }
        let offers = query.allocation_pools().any(|(pool, ..)| pool.is_some());
        self.adoption.answered(offers && need_pool);
        self.adoption.offers(query);
        Ok(())
    }

    fn transform_meta<'a>(
        &self,
        _output: &mut gst::BufferRef,
        _meta: gst::MetaRef<'a, gst::Meta>,
        _input: &'a gst::BufferRef,
    ) -> bool {
        // Copies all metas that GstBaseTransform asks about: those that do not depend on the
        // memory.
        true
    }

    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        let Some(input) = self.take_queued_buffer() else {
            return Ok(GenerateOutputSuccess::NoOutput);
        };
        if let Some(why) = PhysMemMeta::why_dropped(&input) {
            gst::warning!(CAT, imp = self, "{why}");
            lock(&self.counters).dropped += 1;
            return Ok(GenerateOutputSuccess::Dropped);
        }
        let is_mappable = lock(&self.stream).is_mappable();
        // An empty buffer, for example of a gap, has no bytes that would need an address.
        let passes = !is_mappable || input.size() == 0 || lock(&self.settings).is_met_by(&input);
        self.adoption.note(self.obj().sink_pad(), &input, passes);
        if passes {
            let mut counters = lock(&self.counters);
            counters.passed += 1;
            counters.unmappable += u64::from(!is_mappable);
            drop(counters);
            return Ok(GenerateOutputSuccess::Buffer(input));
        }
        self.copy(&input).map(GenerateOutputSuccess::Buffer)
    }
}
