// SPDX-License-Identifier: MPL-2.0
//! The GObject side of the pool: properties, signals, virtual methods.

use std::cell::Cell;
use std::sync::{Arc, Mutex, OnceLock};

use gst::{glib, prelude::*, subclass::prelude::*};

use super::{
    CAT, PoolError,
    config::{self, BufferConfig, ConfigError, Limits},
    slots::{Attempt, Claim, Growth, Next, Refusal, Reuse, Share, Slots, Wait},
};
use crate::{
    layout::Layout,
    memory::{self, MemoryKind, PhysAddr, Region, Request},
    meta::PhysMemMeta,
    structure_property::StructureProperty,
    sys::mmap::page_size_bytes,
};

#[derive(Debug, Clone, Default)]
pub struct Settings {
    kind: MemoryKind,
    heap: Option<String>,
    require_dma_buf: bool,
    require_contiguous: bool,
    max_address: u64,
    withhold_address: bool,
}

pub(super) type Validator = Box<dyn Fn(u32, &Arc<Region>) -> bool + Send + Sync>;

#[derive(glib::Properties)]
#[properties(wrapper_type = super::PhysBufferPool)]
pub struct PhysBufferPool {
    /// What the buffers are asked to be made of. What [`MemoryKind::Auto`] came to is in
    /// the meta of each buffer, and in [`stats`](super::PhysBufferPool#statistics).
    #[property(name = "kind", get, set, construct_only, type = MemoryKind, member = kind,
        nick = "Memory kind", blurb = "What the buffers are made of; 'auto' takes the first kind that works", builder(MemoryKind::Auto))]
    /// Name of the dma-heap below `/dev/dma_heap`; none for the usual one of the kind.
    #[property(name = "heap", get, set, construct_only, type = Option<String>, member = heap,
        nick = "Heap", blurb = "Name of the dma-heap below /dev/dma_heap for kinds 'cma' and 'system' (default: the CMA heap, 'system')")]
    /// Kinds that cannot be exported as dma-buf are passed over.
    #[property(name = "require-dma-buf", get, set, construct_only, type = bool, member = require_dma_buf,
        nick = "Require dma-buf", blurb = "With kind 'auto': pass over kinds that cannot be exported as dma-buf")]
    /// Only memory that is one physically contiguous piece is taken.
    #[property(name = "require-contiguous", get, set, construct_only, type = bool, member = require_contiguous,
        nick = "Require contiguous", blurb = "Only memory that is one physically contiguous piece")]
    /// Highest physical address that the hardware can reach, inclusive; 0 is no limit.
    #[property(name = "max-address", get, set, construct_only, type = u64, member = max_address,
        nick = "Highest address", blurb = "Highest physical address that the hardware can reach, 0 for any: buffers beyond are refused")]
    /// The process that a buffer is sent to is told nothing of where its memory is.
    #[property(name = "withhold-address", get, set, construct_only, type = bool, member = withhold_address,
        nick = "Withhold address", blurb = "Do not tell the processes that buffers are sent to (by unixfdsink) their physical addresses, which the kernel shows to privileged processes only")]
    settings: Mutex<Settings>,

    /// Buffers that can be acquired now, as [`free_count`](super::PhysBufferPool::free_count).
    #[property(name = "free", get = Self::free, type = u32, nick = "Free buffers", blurb = "Buffers that can be acquired now")]
    /// Buffers in the filled queue, as [`filled_count`](super::PhysBufferPool::filled_count).
    #[property(name = "filled", get = Self::filled, type = u32, nick = "Filled buffers", blurb = "Buffers in the filled queue")]
    /// Buffers that exist, as [`total_count`](super::PhysBufferPool::total_count).
    #[property(name = "total", get = Self::total, type = u32, nick = "All buffers", blurb = "Buffers that exist")]
    /// Bytes in a buffer, without prefix and padding; 0 before the pool is configured.
    #[property(name = "buffer-size", get = Self::buffer_size, type = u64, nick = "Buffer size", blurb = "Bytes in a buffer, 0 before the pool is configured")]
    /// Counters, the memory chosen and the state of each buffer: see
    /// [Statistics](super::PhysBufferPool#statistics).
    #[property(name = "stats", get = Self::stats, type = StructureProperty, nick = "Statistics", blurb = "Counters, memory chosen, state of each buffer")]
    /// Why the last `set_config`, `set_active` or action signal that failed did, in words
    /// that name what refused and what would help. A config or activation that succeeds
    /// clears it. What GstBufferPool refuses by itself never reaches the pool and is not
    /// here: to activate a pool without a config, to configure one that is active or has
    /// buffers out; its debug category `bufferpool` says so.
    #[property(name = "last-error", get = Self::last_error, type = Option<String>, nick = "Last error", blurb = "Why the last configuration, activation or action signal that failed did; NULL where GstBufferPool itself refused (not configured, still active, buffers out)")]
    _computed: (),

    share: OnceLock<Share>,
    layout: OnceLock<Layout>,
    last_error: parking_lot::Mutex<Option<String>>,
    /// Why the pool could not grow when it last tried to.
    refused_growth: parking_lot::Mutex<Option<String>>,
    validator: parking_lot::Mutex<Option<Arc<Validator>>>,
    pub(super) offered_by: glib::WeakRef<gst::Element>,
}

impl Default for PhysBufferPool {
    fn default() -> Self {
        Self {
            settings: Mutex::default(),
            _computed: (),
            share: OnceLock::new(),
            layout: OnceLock::new(),
            last_error: parking_lot::Mutex::new(None),
            refused_growth: parking_lot::Mutex::new(None),
            validator: parking_lot::Mutex::new(None),
            offered_by: glib::WeakRef::new(),
        }
    }
}

thread_local! {
    /// Why the last acquire of this thread failed. It goes through GStreamer, which counts
    /// the buffers that are out, and has only a number for a reason.
    static REFUSAL: Cell<Option<Refusal>> = const { Cell::new(None) };
}

/// A poisoned lock cannot be, as nothing panics while it is held.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl PhysBufferPool {
    /// Makes the pool serve existing memory; to be called before it is used.
    pub(super) fn set_slots(&self, slots: Slots, layout: Option<Layout>) {
        let _ = self.share.set(Share::new(slots));
        if let Some(layout) = layout {
            let _ = self.layout.set(layout);
        }
    }

    pub(super) fn share(&self) -> &Share {
        self.share
            .get_or_init(|| Share::new(Slots::new(Vec::new(), Reuse::MostRecent)))
    }

    pub(super) fn slots(&self) -> &Slots {
        self.share().slots()
    }

    /// True if the pool allocates its memory itself.
    pub(super) fn is_owner(&self) -> bool {
        lock(&self.settings).kind != MemoryKind::External
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// What an action signal cannot return; one that waits in vain is no failure of
    /// the pool's, so it is not logged as an error.
    pub(super) fn remember_refusal(&self, refusal: &impl std::fmt::Display) {
        gst::debug!(CAT, imp = self, "{refusal}");
        *self.last_error.lock() = Some(refusal.to_string());
    }

    pub(super) fn set_validator(&self, validator: Option<Validator>) {
        *self.validator.lock() = validator.map(Arc::new);
    }

    fn free(&self) -> u32 {
        self.share().free_count() as u32
    }

    fn filled(&self) -> u32 {
        self.share().filled_count() as u32
    }

    fn total(&self) -> u32 {
        self.slots().total() as u32
    }

    fn buffer_size(&self) -> u64 {
        self.share()
            .config()
            .map_or(0, |config| config.size_bytes as u64)
    }

    fn stats(&self) -> StructureProperty {
        super::stats::structure(self.kind(), self.share(), self.last_error()).into()
    }

    pub(super) fn kind(&self) -> MemoryKind {
        lock(&self.settings).kind
    }

    fn limits(&self) -> Limits {
        let mut align = page_size_bytes() - 1;
        let regions = (!self.is_owner()).then(|| {
            let (mut count, mut size, mut addresses) = (0, usize::MAX, align + 1);
            self.slots().for_each(|slot| {
                count += 1;
                size = size.min(slot.region.size_bytes());
                addresses |= slot.region.ptr() as usize;
            });
            align = (1 << addresses.trailing_zeros()) - 1;
            (count, size)
        });
        Limits {
            layout: self.layout.get().copied(),
            regions,
            align,
        }
    }

    fn allocate_region(&self, size_bytes: usize) -> Result<Arc<Region>, memory::MemoryError> {
        let settings = lock(&self.settings).clone();
        Region::allocate(&Request {
            kind: settings.kind,
            heap: settings.heap.as_deref(),
            size_bytes,
            needs_dma_buf: settings.require_dma_buf,
            needs_contiguous: settings.require_contiguous,
            max_address: (settings.max_address != 0).then_some(PhysAddr(settings.max_address)),
        })
    }

    /// The buffers that there have to be from the start.
    fn allocate_least(&self, config: &BufferConfig) -> Result<(), memory::MemoryError> {
        let missing = config.min_buffers.saturating_sub(self.slots().total());
        memory::check_total(self.kind(), config.block_bytes, missing)?;
        while self.slots().total() < config.min_buffers {
            let region = self.allocate_region(config.block_bytes)?;
            self.slots().add(region);
        }
        Ok(())
    }

    pub(super) fn allocate_ahead(&self) -> Result<(), memory::MemoryError> {
        let block_bytes = self.share().config().map_or(0, |config| config.block_bytes);
        let region = self.allocate_region(block_bytes)?;
        self.slots().add(region);
        Ok(())
    }

    fn remember_error(&self, message: String) {
        gst::error!(CAT, imp = self, "{message}");
        *self.last_error.lock() = Some(message);
    }

    /// A block more was wanted. Who asks for a buffer may wait for one that is out, and
    /// ask again and again: the reason is logged when it is news.
    fn remember_growth(&self, error: Option<&memory::MemoryError>) {
        let reason = error.map(ToString::to_string);
        let mut refused = self.refused_growth.lock();
        let is_news = *refused != reason;
        refused.clone_from(&reason);
        drop(refused);
        if let Some(reason) = reason {
            if is_news {
                gst::warning!(CAT, imp = self, "no memory for a further buffer: {reason}");
            }
            *self.last_error.lock() = Some(reason);
        }
    }

    /// Asks the application's callback, then the `validating` signal.
    pub(super) fn validate(&self, id: u32) -> bool {
        let Some(region) = self.slots().region_by_id(id) else {
            return false;
        };
        if !region.is_alive() {
            return false;
        }
        let validator = self.validator.lock().clone();
        validator.is_none_or(|valid| valid(id, &region))
            && self.obj().emit_by_name::<bool>("validating", &[&id])
    }

    pub(super) fn acquire_free(&self, wait: Wait) -> Result<gst::Buffer, PoolError> {
        let acquired = self.obj().acquire_buffer(acquire_params(wait).as_ref());
        acquired.map_err(|_| {
            let refusal = REFUSAL.take().unwrap_or(Refusal::NoBuffer(None));
            self.obj().error(refusal)
        })
    }

    fn acquire(&self, wait: Wait) -> Result<gst::Buffer, Refusal> {
        let growth = match self.is_owner() {
            true => Growth::OnDemand,
            false => Growth::Never,
        };
        let mut attempt = Attempt::new(wait, growth);
        loop {
            match self.share().acquire(&mut attempt)? {
                Next::Buffer(buffer) => return Ok(buffer),
                Next::Wrap(claim) => {
                    let buffer = self.wrap(&claim);
                    return self.share().finish_claim(claim, buffer);
                }
                Next::Grow(block_bytes) => {
                    let region = self.allocate_region(block_bytes);
                    self.remember_growth(region.as_ref().err());
                    let region = region.map_err(|error| error.to_string());
                    self.share().grow(region, &mut attempt)?;
                }
            }
        }
    }

    /// Makes the buffer around a slot's memory.
    fn wrap(&self, claim: &Claim) -> gst::Buffer {
        let config = &claim.config;
        let memory = memory::wrap(
            &claim.region,
            config.prefix_bytes,
            config.size_bytes,
            Some(claim.on_free()),
        );
        let mut buffer = gst::Buffer::new();
        let buffer_ref = buffer.make_mut();
        let withhold = lock(&self.settings).withhold_address;
        PhysMemMeta::add(buffer_ref, claim.id, claim.slot, &memory, withhold);
        buffer_ref.append_memory(memory);
        if let Some(video) = &config.video {
            add_video_meta(buffer_ref, video);
        }
        buffer
    }

    /// Whoever adopted the pool knows that there is no buffer, and calls it what it likes
    /// ("not-negotiated", say); the reason is known here.
    fn post_want_of_memory(&self, reason: &str) {
        if let Some(element) = self.offered_by.upgrade() {
            gst::element_error!(
                element,
                gst::ResourceError::NoSpaceLeft,
                ("No memory for the frames: {reason}")
            );
        }
    }
}

/// GStreamer knows waiting for ever and DONTWAIT. A time in `stop` puts off the latter:
/// the fields are for pools to use as they like.
fn acquire_params(wait: Wait) -> Option<gst::BufferPoolAcquireParams> {
    let dont_wait = gst::BufferPoolAcquireFlags::DONTWAIT;
    match wait {
        Wait::Forever => None,
        Wait::No => Some(gst::BufferPoolAcquireParams::with_flags(dont_wait)),
        Wait::AtMost(time) => {
            let time = gst::ClockTime::try_from(time).ok()?; // else centuries
            Some(gst::BufferPoolAcquireParams::with_start_stop(
                gst::ClockTime::ZERO,
                time,
                dont_wait,
            ))
        }
    }
}

fn wait_of(params: Option<&gst::BufferPoolAcquireParams>) -> Wait {
    let dont_wait = gst::BufferPoolAcquireFlags::DONTWAIT;
    let Some(params) = params.filter(|params| params.flags().contains(dont_wait)) else {
        return Wait::Forever;
    };
    match params.stop() {
        gst::GenericFormattedValue::Time(Some(time)) => Wait::AtMost(time.into()),
        _ => Wait::No,
    }
}

fn add_video_meta(buffer: &mut gst::BufferRef, video: &config::VideoConfig) {
    match video.layout.add_meta(&video.info, buffer) {
        Ok(mut meta) => {
            if let Some(alignment) = &video.alignment
                && let Err(err) = meta.set_alignment(alignment)
            {
                gst::warning!(CAT, "the video meta does not take the alignment: {err}");
            }
            // SAFETY: the meta is ours and the buffer not yet shared.
            unsafe {
                let meta: *mut gst_video::ffi::GstVideoMeta = meta.as_mut_ptr();
                (*meta).meta.flags |= gst::ffi::GST_META_FLAG_POOLED;
            }
        }
        Err(err) => gst::error!(CAT, "no video meta: {err}"),
    }
}

#[glib::object_subclass]
impl ObjectSubclass for PhysBufferPool {
    const NAME: &'static str = "GstPhysBufferPool";
    // Beside another copy of this library: src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::PhysBufferPool;
    type ParentType = gst::BufferPool;

    fn class_init(class: &mut Self::Class) {
        // `release_buffer` does it with one look. What the bindings would install takes
        // the buffer for unshared, which one that was just found by id is not.
        // SAFETY: the class of a GstBufferPool begins with its parent's, and is ours to
        // fill in before the first instance.
        unsafe {
            let class = std::ptr::from_mut(class).cast::<gst::ffi::GstBufferPoolClass>();
            (*class).reset_buffer = None;
        }
    }
}

#[glib::derived_properties]
impl ObjectImpl for PhysBufferPool {
    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: OnceLock<Vec<glib::subclass::Signal>> = OnceLock::new();
        SIGNALS.get_or_init(super::signals::signals)
    }
}

impl GstObjectImpl for PhysBufferPool {}

impl BufferPoolImpl for PhysBufferPool {
    fn options() -> &'static [&'static str] {
        &[
            "GstBufferPoolOptionVideoMeta",
            "GstBufferPoolOptionVideoAlignment",
        ]
    }

    fn set_config(&self, config: &mut gst::BufferPoolConfigRef) -> bool {
        let buffer_config = match config::complete(config, &self.limits()) {
            Ok(buffer_config) => buffer_config,
            Err(err @ ConfigError::Corrected(_)) => {
                self.remember_refusal(&format_args!(
                    "config corrected, read it back and set it again if it will do: {err}"
                ));
                return false;
            }
            Err(err @ ConfigError::Impossible(_)) => {
                self.remember_error(format!("config refused: {err}"));
                return false;
            }
        };
        *self.last_error.lock() = None;
        // Peers overwrite the allocator with the one they would use; what our
        // buffers are made of is not theirs to choose.
        let params = config
            .allocator()
            .map_or_else(Default::default, |(_, params)| params);
        config.set_allocator(Some(memory::allocator(self.kind())), Some(&params));
        gst::debug!(CAT, imp = self, "config: {buffer_config:?}");
        let mut fits = true;
        self.slots()
            .for_each(|slot| fits &= slot.region.size_bytes() >= buffer_config.block_bytes);
        if self.is_owner() && !fits {
            // Allocated ahead for a smaller buffer; nobody has it, as GStreamer knows.
            self.slots().clear();
        }
        self.share().set_config(buffer_config);
        self.parent_set_config(config)
    }

    fn start(&self) -> bool {
        *self.last_error.lock() = None;
        *self.refused_growth.lock() = None;
        let Some(config) = self.share().config() else {
            self.remember_error("the pool is not configured".into());
            return false;
        };
        if self.is_owner()
            && let Err(error) = self.allocate_least(&config)
        {
            self.slots().clear();
            let reason = error.to_string();
            self.post_want_of_memory(&reason);
            self.remember_error(reason);
            return false;
        }
        true
    }

    fn stop(&self) -> bool {
        if self.is_owner() {
            self.slots().clear();
        }
        true
    }

    fn acquire_buffer(
        &self,
        params: Option<&gst::BufferPoolAcquireParams>,
    ) -> Result<gst::Buffer, gst::FlowError> {
        self.acquire(wait_of(params)).map_err(|refusal| {
            let flow = match &refusal {
                Refusal::NoBuffer(_) => gst::FlowError::Eos,
                Refusal::NoMemory(reason) => {
                    self.post_want_of_memory(reason);
                    gst::FlowError::Error
                }
                Refusal::AllGone => {
                    self.remember_error(self.obj().error(refusal.clone()).to_string());
                    gst::FlowError::Error
                }
                _ => gst::FlowError::Flushing,
            };
            REFUSAL.set(Some(refusal));
            flow
        })
    }

    fn release_buffer(&self, buffer: gst::Buffer) {
        self.share().release(buffer);
    }

    fn flush_start(&self) {
        self.share()
            .start_flushing(|buffer| super::give_pool(&self.obj(), buffer));
    }

    fn flush_stop(&self) {
        self.share().stop_flushing();
    }
}
