// SPDX-License-Identifier: MPL-2.0
//! `GstPhysBufferPool`: buffers at known physical addresses.
//!
//! Elements use the pool like any GstBufferPool: they configure, activate and flush it and acquire
//! from it through the plain API, with the options VIDEO_META and VIDEO_ALIGNMENT, for any caps.
//! Applications without a pipeline use [`acquire_free`](PhysBufferPool::acquire_free),
//! [`submit_filled`](PhysBufferPool::submit_filled),
//! [`acquire_filled`](PhysBufferPool::acquire_filled) and
//! [`release_filled`](PhysBufferPool::release_filled).
//!
//! This room owns ids, states, queues and layouts. It leaves the kinds of memory to `memory`, and
//! makes no system call of its own.
//!
//! ```
//! use gst::prelude::*;
//! use gstphysmem::{memory::MemoryKind, meta::PhysMemMeta, pool::PhysBufferPool};
//!
//! gst::init()?;
//! let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
//! let mut config = pool.config();
//! config.set_params(None, 1 << 20, 2, 4);
//! pool.set_config(config)?;
//! pool.set_active(true)?;
//! let buffer = pool.acquire_buffer(None)?;
//! let meta = buffer.meta::<PhysMemMeta>().ok_or("no meta")?;
//! match meta.address() {
//!     Ok(address) => println!("buffer {} is at {}", meta.id(), address.first()),
//!     Err(reason) => println!("buffer {}: {reason}", meta.id()),
//! }
//! drop(buffer);
//! pool.set_active(false)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod external;
mod imp;
mod signals;
mod slots;
mod state;
mod stats;
mod wrapper;

use std::{
    os::fd::OwnedFd,
    sync::{Arc, LazyLock},
};

use gst::{glib, prelude::*, subclass::prelude::ObjectSubclassIsExt};

pub use external::MemoryBlock;
pub(crate) use external::{handle_of_dmabuf, handle_of_pieces};
pub use slots::{Reuse, Slots, Wait};
pub use state::{BufferState, IllegalStep, Step};

use crate::layout::Layout;
use crate::memory::{MemoryError, MemoryKind, PhysAddr, Region};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "physmempool",
        gst::DebugColorFlags::empty(),
        Some("Pool of buffers at known physical addresses"),
    )
});

glib::wrapper! {
    /// A GstBufferPool whose buffers carry [`PhysMemMeta`](crate::meta::PhysMemMeta).
    ///
    /// If `set_config` or `set_active` fails, [`last_error`](Self::last_error) says why.
    ///
    /// # Signals
    ///
    /// The functions of the pool as signals, for languages that cannot call the functions. All but
    /// `validating` are action signals, which the application emits:
    ///
    /// | signal | arguments | result |
    /// |---|---|---|
    /// | `acquire-free` | gint64 timeout in ns, 0 not at all, -1 for ever | GstBuffer or NULL |
    /// | `submit-filled` | GstBuffer | gboolean |
    /// | `acquire-filled` | gint64 timeout | GstBuffer or NULL |
    /// | `release-filled` | GstBuffer | gboolean |
    /// | `buffer-by-id` | guint id | GstBuffer or NULL |
    /// | `describe` | GstBuffer | GstStructure, or NULL for a buffer without the meta |
    /// | `export-dmabuf` | guint id | a new file descriptor, or -1 |
    /// | `add-memory` | guint64 data, guint64 size, GVariant extents, gint dmabuf-fd, GObject owner | gboolean |
    /// | `add-dmabuf` | gint dmabuf-fd | gboolean |
    /// | `validate` | guint id | gboolean |
    /// | `validate-all` | | gboolean |
    /// | `dump` | | text for people |
    ///
    /// A signal takes a reference of its own: the caller still drops its reference to a buffer that
    /// it submitted or released, whether or not the signal succeeded. The property `last-error`
    /// says why the last signal that failed did so. All threads share it: C has functions with a
    /// GError instead, [`crate::ffi`].
    ///
    /// `add-memory` gives a pool of kind external, before it is configured, a buffer over the application's
    /// memory: the address of its first byte as a number, its size, its physical pieces (`a(tt)`: pairs of
    /// address and size, in the order of the bytes, or NULL to have them looked up), a dma-buf over the same
    /// memory, of which the pool takes a duplicate, or -1, and an object that keeps the memory mapped. The
    /// pool holds the object as long as anything uses the memory; with NULL the memory must stay for ever.
    /// `add-dmabuf` does the same with a whole dma-buf, which the pool maps; it takes a duplicate of the
    /// descriptor.
    ///
    /// `validate` emits `validating` (guint id, gboolean result). A handler that returns FALSE
    /// declares the buffer invalid, and no further handler is called. A handler in a dynamic
    /// language that raises or returns nothing does the same: its result is FALSE.
    ///
    /// # Statistics
    ///
    /// The fields of the structure `stats`:
    ///
    /// | field | type | meaning |
    /// |---|---|---|
    /// | `kind` | GstPhysMemoryKind | what was asked for |
    /// | `total`, `free`, `filled` | guint | as the properties |
    /// | `dead` | guint | buffers whose memory was freed by its owner |
    /// | `bytes` | guint64 | of all buffers together |
    /// | `acquired`, `released` | guint64 | buffers that went out and came back |
    /// | `waits` | guint64 | acquires, of free and of filled buffers, that had to wait |
    /// | `submitted`, `consumed` | guint64 | into the filled queue, and out of it |
    /// | `detached` | guint64 | buffers that came back without their memory |
    /// | `refused-steps` | guint64 | submits and releases that were mistakes |
    /// | `buffers` | GstValueArray | a structure for each buffer, see below |
    /// | `choice` | string | the kind that auto chose, and those that it passed over |
    /// | `pin-note` | string | what pins the memory, or why it is not pinned |
    /// | `address-unknown` | string | why addresses are not known |
    /// | `last-error` | string | as the property |
    ///
    /// The last four are present only if there is something to say. If the text of one of the first
    /// three is not true of all buffers, it counts them ("3 of 5 buffers: ..."). Pools that share
    /// [`Slots`] count together. The structure of a buffer has `id`, `state` (a
    /// GstPhysBufferState), `refs`, `detached` (the buffer came back, but something still holds its
    /// memory), `acquired` (how often it went out), and what [`describe`](Self::describe) says of its memory: `size`, `kind`, `heap`,
    /// `ownership`, `alive`, `pinned`, `pin-note`, `dmabuf-fd` and the address.
    pub struct PhysBufferPool(ObjectSubclass<imp::PhysBufferPool>)
        @extends gst::BufferPool, gst::Object;
}

/// Why a call of the pool failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// No buffer was there within the time that the caller wanted to wait.
    #[error("{pool}: no buffer within the time given")]
    NoBuffer {
        /// The pool's name.
        pool: String,
    },
    /// The pool is flushing or inactive.
    #[error("{pool} is flushing: activate it, or end the flush")]
    Flushing {
        /// The pool's name.
        pool: String,
    },
    /// The pool could not get more memory, and none of its buffers became free in time.
    #[error("{pool}: no memory: {reason}")]
    NoMemory {
        /// The pool's name.
        pool: String,
        /// What refused, and what would help.
        reason: String,
    },
    /// The pool could not be configured and activated.
    #[error("{pool} cannot be activated: {reason}")]
    NotActivated {
        /// The pool's name.
        pool: String,
        /// What refused, and what would help.
        reason: String,
    },
    /// The buffer's state does not allow the step.
    #[error(transparent)]
    IllegalStep(#[from] IllegalStep),
    /// The buffer is of another pool, or is a copy.
    #[error("buffer {id} belongs to another pool than {pool}, or is a copy of one")]
    Foreign {
        /// The id in the buffer's meta.
        id: u32,
        /// The name of the pool that was called.
        pool: String,
    },
    /// The buffer is of no pool of this library.
    #[error("the buffer is no pool's: it has no GstPhysMemMeta")]
    NoMeta,
    /// The buffer's memory was removed or replaced.
    #[error(
        "buffer {id}: its memory was removed or replaced: map a buffer for writing only while nobody else has a reference to it"
    )]
    Replaced {
        /// The buffer's id.
        id: u32,
    },
    /// No buffer of the pool has this id.
    #[error("{pool} has no buffer {id}")]
    NoSuchId {
        /// The id asked for.
        id: u32,
        /// The pool's name.
        pool: String,
    },
    /// The owner of the buffer's memory freed it.
    #[error("buffer {id}: its memory was freed by its owner")]
    Gone {
        /// The buffer's id.
        id: u32,
    },
    /// The owner freed the memory of every buffer, so that none can be acquired any more.
    #[error("{pool}: the memory of every buffer was freed by its owner")]
    AllGone {
        /// The pool's name.
        pool: String,
    },
    /// The buffer's memory has no dma-buf that another process or device could use.
    #[error("buffer {id} is {kind} memory, which has no dma-buf: use kind cma, system or udmabuf")]
    NoDmaBuf {
        /// The buffer's id.
        id: u32,
        /// The kind of its memory.
        kind: MemoryKind,
    },
    /// Duplicating a file descriptor failed.
    #[error("buffer {id}: its dma-buf's file descriptor cannot be duplicated: {source}")]
    Duplicate {
        /// The buffer's id.
        id: u32,
        /// The error from the kernel.
        source: std::io::Error,
    },
}

/// Describes the [`PhysBufferPool`] to make.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[must_use]
pub struct Builder {
    kind: MemoryKind,
    heap: Option<String>,
    require_dma_buf: bool,
    require_contiguous: bool,
    max_address: Option<PhysAddr>,
    withhold_address: bool,
}

impl Builder {
    /// The kind of memory, by default `Auto`.
    pub fn kind(mut self, kind: MemoryKind) -> Self {
        self.kind = kind;
        self
    }

    /// Name of a dma-heap below `/dev/dma_heap`, for kinds `Cma` and `System`; for kind `Udmabuf`
    /// `hugetlb` or `shmem`; for kind `Region` its memory, as in `/dev/mem@0x30000000+64M`.
    pub fn heap(mut self, heap: impl Into<String>) -> Self {
        self.heap = Some(heap.into());
        self
    }

    /// Makes `Auto` pass over kinds that have no dma-buf.
    pub fn require_dma_buf(mut self, require: bool) -> Self {
        self.require_dma_buf = require;
        self
    }

    /// Takes only memory that is one physically contiguous piece.
    pub fn require_contiguous(mut self, require: bool) -> Self {
        self.require_contiguous = require;
        self
    }

    /// Refuses memory beyond this physical address, inclusive; `PhysAddr(0)` is no limit.
    pub fn max_address(mut self, address: PhysAddr) -> Self {
        self.max_address = Some(address);
        self
    }

    /// Keeps the physical addresses from processes that buffers are sent to.
    pub fn withhold_address(mut self, withhold: bool) -> Self {
        self.withhold_address = withhold;
        self
    }

    /// Makes a pool of at least `min` and at most `max` buffers (0 for no limit) of `size_bytes` each, and
    /// activates it, which allocates the first `min`.
    ///
    /// ```
    /// use gstphysmem::{memory::MemoryKind, pool::{PhysBufferPool, Wait}};
    ///
    /// gst::init()?;
    /// let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).activate(1 << 20, 2, 4)?;
    /// let buffer = pool.acquire_free(Wait::Forever)?;
    /// # drop(buffer);
    /// # gst::prelude::BufferPoolExt::set_active(&pool, false)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PoolError::NotActivated`]: there is no such memory, or the numbers contradict each other.
    pub fn activate(
        self,
        size_bytes: u32,
        min: u32,
        max: u32,
    ) -> Result<PhysBufferPool, PoolError> {
        let pool = self.build();
        let mut config = pool.config();
        config.set_params(None, size_bytes, min, max);
        let active = pool.set_config(config).and_then(|()| pool.set_active(true));
        active.map(|()| pool.clone()).map_err(|error| {
            let reason = pool.last_error().unwrap_or_else(|| error.to_string());
            let pool = pool.name().into();
            PoolError::NotActivated { pool, reason }
        })
    }

    /// Makes the pool, which allocates memory when it is activated.
    pub fn build(self) -> PhysBufferPool {
        glib::Object::builder()
            .property("kind", self.kind)
            .property("heap", self.heap)
            .property("require-dma-buf", self.require_dma_buf)
            .property("require-contiguous", self.require_contiguous)
            .property("max-address", self.max_address.map_or(0, |a| a.0))
            .property("withhold-address", self.withhold_address)
            .build()
    }
}

impl PhysBufferPool {
    /// A pool that allocates its own memory.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A pool over existing memory. Each buffer lies at the start of one region, in the given
    /// layout or in that of the configured caps.
    pub fn over(slots: &Slots, layout: Option<Layout>) -> Self {
        let pool = Builder::default().kind(MemoryKind::External).build();
        pool.imp().set_slots(slots.clone(), layout);
        pool
    }

    /// Allocates a block for the configured pool, which uses it once it is activated. So the
    /// element that offers the pool to others knows that there is such memory.
    pub(crate) fn allocate_ahead(&self) -> Result<(), MemoryError> {
        self.imp().allocate_ahead()
    }

    /// Names the element that acquires the buffers itself. The pool warns in its name that a call waits for memory, and
    /// leaves errors to it.
    pub(crate) fn set_used_by(&self, element: &gst::Element) {
        self.imp().used_by.set(Some(element));
    }

    /// Names the element that offers the pool to others. This element posts an error when there is
    /// no memory for the buffers: an element that adopts the pool does not know the reason, and
    /// says that nothing was negotiated. `None` while the offering element tries the pool itself.
    pub(crate) fn set_offered_by(&self, element: Option<&gst::Element>) {
        self.imp().offered_by.set(element);
    }

    /// Takes a free buffer to be filled.
    ///
    /// # Errors
    /// [`PoolError::NoBuffer`] when the time is over, or [`PoolError::NoMemory`] if the pool tried
    /// to grow and could not. With [`Wait::Forever`] the call waits even then, as long as a buffer
    /// is out that may come back; [`last_error`](Self::last_error) has the reason meanwhile.
    pub fn acquire_free(&self, wait: Wait) -> Result<gst::Buffer, PoolError> {
        self.imp().acquire_free(wait)
    }

    /// Puts a filled buffer at the end of the filled queue.
    ///
    /// # Errors
    /// The buffer was not acquired from this pool, was submitted already or has lost its memory, or
    /// the pool is flushing. The reference given is dropped then, too: if it was the last, the
    /// buffer is free again and its content is lost. Keep a clone to try again.
    pub fn submit_filled(&self, buffer: gst::Buffer) -> Result<(), PoolError> {
        let result = self.imp().share().submit(buffer, self.upcast_ref());
        result.map_err(|refusal| self.error(refusal))
    }

    fn error(&self, refusal: slots::Refusal) -> PoolError {
        use slots::Refusal;
        let pool = self.name().into();
        match refusal {
            Refusal::NoBuffer(None) => PoolError::NoBuffer { pool },
            Refusal::NoBuffer(Some(reason)) | Refusal::NoMemory(reason) => {
                PoolError::NoMemory { pool, reason }
            }
            Refusal::Flushing => PoolError::Flushing { pool },
            Refusal::AllGone => PoolError::AllGone { pool },
            Refusal::Illegal(step) => PoolError::IllegalStep(step),
            Refusal::Gone(id) => PoolError::Gone { id },
            Refusal::Replaced(id) => PoolError::Replaced { id },
            Refusal::Foreign(id) => PoolError::Foreign { id, pool },
            Refusal::NoMeta => PoolError::NoMeta,
        }
    }

    /// Takes the oldest filled buffer.
    ///
    /// # Errors
    /// [`PoolError::NoBuffer`] when the time is over. The call also fails if the pool flushes, or
    /// if all memory was freed by its owner.
    pub fn acquire_filled(&self, wait: Wait) -> Result<gst::Buffer, PoolError> {
        let acquired = self.imp().share().acquire_filled(wait, self.upcast_ref());
        acquired.map_err(|refusal| self.error(refusal))
    }

    /// Ends the consumer's use of a buffer. The buffer is free again when its last reference is
    /// dropped, which usually is the one given here.
    ///
    /// # Errors
    /// The buffer was not taken out of this pool's filled queue. The reference is dropped then,
    /// too.
    pub fn release_filled(&self, buffer: gst::Buffer) -> Result<(), PoolError> {
        let result = self.imp().share().release_filled(&buffer);
        result.map_err(|refusal| self.error(refusal))
    }

    /// The buffer with this id while it is in use or in the filled queue, for example for a
    /// completion interrupt that knows only the id. Keep a reference while hardware has the buffer:
    /// a buffer that is released at the same moment is found, but can no longer be submitted.
    pub fn buffer_by_id(&self, id: u32) -> Option<gst::Buffer> {
        self.imp().slots().buffer_by_id(id)
    }

    /// How often the pool has handed out this buffer's memory; `None` if it is not the pool's.
    pub(crate) fn times_acquired(&self, buffer: &gst::BufferRef) -> Option<u64> {
        self.imp().slots().acquired(buffer)
    }

    /// How many buffers could be acquired now without allocating and within the configured maximum.
    pub fn free_count(&self) -> usize {
        self.imp().share().free_count()
    }

    /// How many buffers are in the filled queue.
    pub fn filled_count(&self) -> usize {
        self.imp().share().filled_count()
    }

    /// How many buffers exist, without those whose memory was freed by its owner.
    pub fn total_count(&self) -> usize {
        self.imp().slots().total()
    }

    /// The state of a buffer; `None` if no buffer has this id, or its owner freed the memory.
    pub fn state(&self, id: u32) -> Option<BufferState> {
        self.imp().slots().state_by_id(id)
    }

    /// The block of memory of the buffer with this id.
    pub fn region(&self, id: u32) -> Option<Arc<Region>> {
        self.imp().slots().region_by_id(id)
    }

    /// A new file descriptor of the buffer's dma-buf, for another process (over a Unix socket) or
    /// another device. The memory lives as long as any such descriptor.
    ///
    /// # Errors
    /// There is no such buffer, its memory is gone or has no dma-buf, or too many files are open.
    pub fn export_dmabuf(&self, id: u32) -> Result<OwnedFd, PoolError> {
        let region = self.region(id).ok_or_else(|| PoolError::NoSuchId {
            id,
            pool: self.name().into(),
        })?;
        if !region.is_alive() {
            return Err(PoolError::Gone { id });
        }
        let fd = region.dma_buf().ok_or(PoolError::NoDmaBuf {
            id,
            kind: region.kind(),
        })?;
        fd.try_clone_to_owned()
            .map_err(|source| PoolError::Duplicate { id, source })
    }

    /// True if the buffer exists, its memory is alive, and neither the callback nor a handler of
    /// the signal `validating` objects: see [Signals](Self#signals).
    pub fn validate(&self, id: u32) -> bool {
        self.imp().validate(id)
    }

    /// [`validate`](Self::validate) for every buffer; false, too, if one has lost its memory.
    pub fn validate_all(&self) -> bool {
        let mut ids = Vec::new();
        self.imp().slots().for_each(|slot| ids.push(slot.id));
        self.imp().slots().dead_count() == 0 && ids.into_iter().all(|id| self.validate(id))
    }

    /// Sets the callback that [`validate`](Self::validate) asks.
    pub fn set_validator(
        &self,
        valid: Option<impl Fn(u32, &Arc<Region>) -> bool + Send + Sync + 'static>,
    ) {
        self.imp()
            .set_validator(valid.map(|f| Box::new(f) as imp::Validator));
    }

    /// What the buffer's meta says, as a structure for languages that cannot read the C struct.
    /// `None` if the buffer has no meta. The fields are:
    ///
    /// | field | type | meaning |
    /// |---|---|---|
    /// | `id` | guint | the same each time the pool hands this buffer out |
    /// | `received` | gboolean | another process sent the buffer, and says all this |
    /// | `size` | guint64 | bytes, as the pool hands it out |
    /// | `kind` | GstPhysMemoryKind | the kind of memory |
    /// | `heap` | string | the dma-heap, if the memory is of one |
    /// | `ownership` | string | `owned` by the pool, or `external` |
    /// | `alive` | gboolean | the owner has not freed the memory |
    /// | `pinned`, `pin-note` | gboolean, string | whether the address stays true, and why |
    /// | `dmabuf-fd` | gint | borrowed from the memory, or -1 |
    /// | `phys-addr` | guint64 | physical address of the first byte, as the buffer is now |
    /// | `contiguous` | gboolean | one extent holds all bytes |
    /// | `address-source` | string | where the address is from |
    /// | `extents` | GstValueArray | a structure of `phys-addr` and `size` for each piece |
    /// | `address-unknown` | string | in place of the last four, why the address is not known |
    pub fn describe(buffer: &gst::BufferRef) -> Option<gst::Structure> {
        stats::describe(buffer)
    }

    /// A text for people: one line for the pool, and one for each buffer.
    pub fn dump(&self) -> String {
        stats::dump(self.imp().kind(), self.imp().share())
    }
}

/// Which pool it is and what it holds. The text is short, because graphs of GStreamer (GST_DEBUG_DUMP_DOT_DIR)
/// show the first 80 bytes of a property.
pub(crate) fn in_a_line(pool: &gst::BufferPool) -> String {
    let name = pool.name();
    match pool.downcast_ref::<PhysBufferPool>() {
        Some(_) if !pool.is_active() => format!("{name}: offered, not in use"),
        Some(pool) => {
            let contents = stats::in_words(pool.imp().kind(), pool.imp().share());
            format!("{name}: {contents}")
        }
        None => format!("{name}: {}", pool.type_()),
    }
}

/// Registers the pool's type, so that `g_type_from_name` finds it.
pub(crate) fn register() {
    PhysBufferPool::static_type();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of a heap that does not exist, configured for at least `min` buffers.
    fn hopeless(min: u32) -> PhysBufferPool {
        let builder = PhysBufferPool::builder().kind(MemoryKind::Cma);
        let pool = builder.heap("no-such-heap").build();
        let mut config = pool.config();
        config.set_params(None, 4096, min, 0);
        pool.set_config(config).unwrap();
        pool
    }

    fn posted(use_pool: impl FnOnce(&gst::Element)) -> Option<String> {
        gst::init().unwrap();
        let element = gst::Bin::new();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        use_pool(element.upcast_ref());
        element.set_bus(None);
        let message = bus.pop()?;
        match message.view() {
            gst::MessageView::Error(error) => Some(error.error().message().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn assert_names_the_heap(message: Option<String>) {
        let message = message.expect("an error is posted");
        assert!(
            message.starts_with("No memory for the frames: "),
            "{message}"
        );
        assert!(message.contains("no-such-heap"), "{message}");
    }

    #[test]
    fn who_adopts_a_pool_without_memory_is_not_left_to_guess() {
        assert_names_the_heap(posted(|element| {
            let pool = hopeless(2);
            pool.set_offered_by(Some(element));
            assert!(pool.set_active(true).is_err());
        }));
        // Activation allocates nothing with a minimum of 0, so that the first buffer fails.
        assert_names_the_heap(posted(|element| {
            let pool = hopeless(0);
            pool.set_offered_by(Some(element));
            pool.set_active(true).unwrap();
            assert!(pool.acquire_buffer(None).is_err());
            pool.set_active(false).unwrap();
        }));
    }

    #[test]
    fn an_element_that_tries_a_pool_itself_is_told_by_its_last_error_alone() {
        let message = posted(|element| {
            let pool = hopeless(1);
            pool.set_offered_by(Some(element));
            pool.set_offered_by(None);
            assert!(pool.set_active(true).is_err());
            assert!(pool.last_error().unwrap().contains("no-such-heap"));
        });
        assert_eq!(message, None);
    }

    /// The memory may come back while a call waits, and the buffers may not.
    #[test]
    fn who_waits_for_a_buffer_asks_for_memory_again() {
        use super::slots::{Attempt, Growth, Next};
        gst::init().unwrap();
        let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
        let mut config = pool.config();
        config.set_params(None, 4096, 1, 2);
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        let _held = pool.acquire_free(Wait::No).unwrap();
        let limit = std::time::Duration::from_secs(120);
        let mut attempt = Attempt::new(Wait::AtMost(limit), Growth::OnDemand);
        let share = pool.imp().share();
        for _ in 0..3 {
            let next = share.acquire(&mut attempt);
            assert!(matches!(next, Ok(Next::Grow(4096))));
            let refused = share.grow(Err("no memory".into()), &mut attempt);
            assert!(refused.is_ok(), "the buffer that is out may come back");
        }
    }

    #[test]
    fn an_element_whose_pool_waits_for_memory_is_told_once() {
        gst::init().unwrap();
        let (element, bus) = (gst::Bin::new(), gst::Bus::new());
        element.set_bus(Some(&bus));
        let pool = PhysBufferPool::builder().build();
        pool.set_used_by(element.upcast_ref());
        pool.imp().warn_of_want_of_memory("none is left");
        pool.imp().warn_of_want_of_memory("none is left");
        element.set_bus(None);
        let message = bus.pop().expect("a message");
        let gst::MessageView::Warning(warning) = message.view() else {
            panic!("{message:?}");
        };
        assert!(warning.error().message().ends_with("none is left"));
        assert!(bus.pop().is_none());
    }
}
