// SPDX-License-Identifier: MPL-2.0
//! The GObject side of the pool: properties, signals, virtual methods.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use gst::{glib, prelude::*, subclass::prelude::*};

use super::{
    CAT, PoolError,
    config::{self, BufferConfig, ConfigError, Limits},
    slots::{Attempt, Claim, Growth, Next, Refusal, Reuse, Share, Slots, Wait},
};
use crate::{
    layout::Layout,
    locks::lock,
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
    /// The requested kind of memory. The kind that [`MemoryKind::Auto`] chose is in the meta of
    /// each buffer, and in [`stats`](super::PhysBufferPool#statistics).
    #[property(name = "kind", get, set, construct_only, type = MemoryKind, member = kind,
        nick = "Memory kind", blurb = "What the buffers are made of; 'auto' takes the first kind that works", builder(MemoryKind::Auto))]
    /// Name of the dma-heap below `/dev/dma_heap`; `None` for the kind's usual heap. Kind
    /// region needs the name of its memory.
    #[property(name = "heap", get, set, construct_only, type = Option<String>, member = heap,
        nick = "Heap", blurb = "Name of the dma-heap below /dev/dma_heap for kinds 'cma' and 'system' (default: the CMA heap, 'system'); for kind 'region' the memory, such as /dev/mem@0x30000000+64M")]
    /// With [`MemoryKind::Auto`], kinds that cannot be exported as dma-buf are not chosen.
    #[property(name = "require-dma-buf", get, set, construct_only, type = bool, member = require_dma_buf,
        nick = "Require dma-buf", blurb = "With kind 'auto': pass over kinds that cannot be exported as dma-buf")]
    /// Memory that is not one physically contiguous piece is refused.
    #[property(name = "require-contiguous", get, set, construct_only, type = bool, member = require_contiguous,
        nick = "Require contiguous", blurb = "Only memory that is one physically contiguous piece")]
    /// Highest physical address that the hardware can reach, inclusive; 0 means no limit.
    /// Memory beyond it is refused.
    #[property(name = "max-address", get, set, construct_only, type = u64, member = max_address,
        nick = "Highest address", blurb = "Highest physical address that the hardware can reach, 0 for any: buffers beyond are refused")]
    /// Keeps the physical address of a buffer from the processes that the buffer is sent to.
    #[property(name = "withhold-address", get, set, construct_only, type = bool, member = withhold_address,
        nick = "Withhold address", blurb = "Do not tell the processes that buffers are sent to (by unixfdsink) their physical addresses, which the kernel shows to privileged processes only")]
    settings: Mutex<Settings>,

    /// Buffers that can be acquired now, as [`free_count`](super::PhysBufferPool::free_count).
    #[property(name = "free", get = Self::free, type = u32, nick = "Free buffers", blurb = "Buffers that can be acquired now")]
    /// Buffers in the filled queue, as [`filled_count`](super::PhysBufferPool::filled_count).
    #[property(name = "filled", get = Self::filled, type = u32, nick = "Filled buffers", blurb = "Buffers in the filled queue")]
    /// Buffers that exist, as [`total_count`](super::PhysBufferPool::total_count).
    #[property(name = "total", get = Self::total, type = u32, nick = "All buffers", blurb = "Buffers that exist")]
    /// Bytes in a buffer without prefix and padding; 0 before the pool is configured.
    #[property(name = "buffer-size", get = Self::buffer_size, type = u64, nick = "Buffer size", blurb = "Bytes in a buffer, 0 before the pool is configured")]
    /// Counters, the chosen memory and the state of each buffer: see
    /// [Statistics](super::PhysBufferPool#statistics).
    #[property(name = "stats", get = Self::stats, type = StructureProperty, nick = "Statistics", blurb = "Counters, memory chosen, state of each buffer")]
    /// Why `set_config`, `set_active`, an action signal or the allocation of a further buffer failed last,
    /// and what would help. A config or activation that succeeds clears it. GstBufferPool itself refuses to
    /// activate a pool without a config, and to configure a pool that is active or has buffers out. Such
    /// refusals never reach this pool and are not here, but in the debug category `bufferpool`.
    #[property(name = "last-error", get = Self::last_error, type = Option<String>, nick = "Last error", blurb = "Why the last configuration, activation or action signal that failed did; NULL where GstBufferPool itself refused (not configured, still active, buffers out)")]
    _computed: (),

    share: OnceLock<Share>,
    layout: OnceLock<Layout>,
    last_error: crate::locks::Mutex<Option<String>>,
    /// Why the pool could not grow when it last tried; `None` if it could.
    refused_growth: crate::locks::Mutex<Option<String>>,
    /// The application has been told that a stream waits for memory.
    is_told_of_want: AtomicBool,
    validator: crate::locks::Mutex<Option<Arc<Validator>>>,
    pub(super) offered_by: glib::WeakRef<gst::Element>,
    /// An element that acquires buffers itself, and posts what fails itself.
    pub(super) used_by: glib::WeakRef<gst::Element>,
}

impl Default for PhysBufferPool {
    fn default() -> Self {
        Self {
            settings: Mutex::default(),
            _computed: (),
            share: OnceLock::new(),
            layout: OnceLock::new(),
            last_error: crate::locks::Mutex::new(None),
            refused_growth: crate::locks::Mutex::new(None),
            is_told_of_want: AtomicBool::new(false),
            validator: crate::locks::Mutex::new(None),
            offered_by: glib::WeakRef::new(),
            used_by: glib::WeakRef::new(),
        }
    }
}

/// How often a call is refused memory before the application is told that a stream stands still.
const REFUSALS_UNTIL_WARNING: u32 = 5;

thread_local! {
    /// Why the last acquire of this thread failed. The call goes through GstBufferPool, which
    /// counts the buffers that are out, and which passes on a GstFlowReturn only.
    static REFUSAL: Cell<Option<Refusal>> = const { Cell::new(None) };
}

impl PhysBufferPool {
    /// Makes the pool serve existing memory. Must be called before the pool is used.
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

    /// Whether the pool allocates its memory itself.
    pub(super) fn is_owner(&self) -> bool {
        lock(&self.settings).kind != MemoryKind::External
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// Stores the error that an action signal cannot return. It is not logged as an error,
    /// because a wait that times out is not a failure of the pool.
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

    /// Stores why the pool could not grow; `None` if it could. A caller may try again and again,
    /// so a reason is logged only if it is not the last one.
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
        if let Some(buffer) = self.share().acquire_at_once() {
            return Ok(buffer);
        }
        let growth = match self.is_owner() {
            true => Growth::OnDemand,
            false => Growth::Never,
        };
        let mut attempt = Attempt::new(wait, growth);
        let mut refusals = 0;
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
                    if let Err(reason) = &region {
                        refusals += 1;
                        if refusals == REFUSALS_UNTIL_WARNING {
                            self.warn_of_want_of_memory(reason);
                        }
                    }
                    self.share().grow(region, &mut attempt)?;
                }
            }
        }
    }

    /// Tells the application that the stream stands still. Whoever holds the buffers may keep them for ever.
    pub(super) fn warn_of_want_of_memory(&self, reason: &str) {
        let element = self.offered_by.upgrade();
        if let Some(element) = element.or_else(|| self.used_by.upgrade())
            && !self.is_told_of_want.swap(true, Ordering::Relaxed)
        {
            gst::element_warning!(
                element,
                gst::ResourceError::NoSpaceLeft,
                ("Waits for a buffer, because there is no memory for a further one: {reason}")
            );
        }
    }

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
        gst::trace!(
            CAT,
            imp = self,
            "buffer {}: {} bytes of {}, {}",
            claim.id,
            claim.region.size_bytes(),
            claim.region.kind(),
            super::stats::Pieces(claim.region.address())
        );
        PhysMemMeta::add(buffer_ref, claim.id, claim.slot, &memory, withhold);
        buffer_ref.append_memory(memory);
        if let Some(video) = &config.video {
            add_video_meta(buffer_ref, video);
        }
        buffer
    }

    /// Posts why there is no memory, in the name of the element that offered the pool. The
    /// element that adopted the pool does not know the reason, and may report "not-negotiated".
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

/// GStreamer's parameters have DONTWAIT, but no time limit. A limit is passed as DONTWAIT with the
/// time in `stop`, a field that GStreamer leaves to the pool.
fn acquire_params(wait: Wait) -> Option<gst::BufferPoolAcquireParams> {
    let dont_wait = gst::BufferPoolAcquireFlags::DONTWAIT;
    match wait {
        Wait::Forever => None,
        Wait::No => Some(gst::BufferPoolAcquireParams::with_flags(dont_wait)),
        Wait::AtMost(time) => {
            let time = gst::ClockTime::try_from(time).ok()?; // else 584 years and more, for ever
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
            // SAFETY: `meta` is a valid meta, and nothing else has a reference to its buffer yet.
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
    // Another copy of this library may be in the process: see src/copies.rs.
    const ALLOW_NAME_CONFLICT: bool = true;
    type Type = super::PhysBufferPool;
    type ParentType = gst::BufferPool;

    fn class_init(class: &mut Self::Class) {
        // `release_buffer` resets the buffer itself. The function that the bindings install
        // assumes that the buffer is not shared, but a thread may just have found it by its id.
        // SAFETY: the class struct of a subclass of GstBufferPool begins with GstBufferPoolClass.
        // Nothing else uses it during class_init.
        unsafe {
            let class = std::ptr::from_mut(class).cast::<gst::ffi::GstBufferPoolClass>();
            (*class).reset_buffer = None;
        }
    }
}

#[glib::derived_properties]
impl ObjectImpl for PhysBufferPool {
    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.derived_set_property(id, &crate::property_text::readable(value), pspec);
    }

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
        // Elements overwrite the allocator in the config with their own. This pool decides by
        // itself what its buffers are made of.
        let params = config
            .allocator()
            .map_or_else(Default::default, |(_, params)| params);
        config.set_allocator(Some(memory::allocator(self.kind())), Some(&params));
        gst::debug!(CAT, imp = self, "config: {buffer_config:?}");
        let mut fits = true;
        self.slots()
            .for_each(|slot| fits &= slot.region.size_bytes() >= buffer_config.block_bytes);
        if self.is_owner() && !fits {
            // A block was allocated ahead for smaller buffers. It is not in use, because
            // GStreamer configures a pool only while none of its buffers is out.
            self.slots().clear();
        }
        self.share().set_config(buffer_config);
        self.parent_set_config(config)
    }

    fn start(&self) -> bool {
        *self.last_error.lock() = None;
        *self.refused_growth.lock() = None;
        self.is_told_of_want.store(false, Ordering::Relaxed);
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
        self.share().start_flushing(self.obj().upcast_ref());
    }

    fn flush_stop(&self) {
        self.share().stop_flushing();
    }
}
