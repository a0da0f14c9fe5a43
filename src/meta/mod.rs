// SPDX-License-Identifier: MPL-2.0
//! `GstPhysMemMeta`: what is known of the memory of a pool's buffer, attached to the buffer.
//!
//! It is a GstMeta of its own and no GstCustomMeta, because its transform function must look at the
//! copy's memory. The meta stays only on a copy that has the same memory, whole, and not on a deep
//! copy or a part. As GStreamer replaces the memory of a shared buffer that is mapped for writing
//! and tells no meta, each function that reads an address looks at the buffer's memory again. An
//! address that it gives is never that of other bytes.
//!
//! With GStreamer 1.24 (feature `v1_24`) the meta goes along when unixfdsink sends a buffer to
//! another process. There it describes a file, which is that of the memory, and it is true of a
//! buffer of unixfdsrc only if the buffer's memory is of that file.
//!
//! C programs read the public struct [`ffi::GstPhysMemMeta`] (see `include/gstphysmem.h`), Rust
//! programs the [`PhysMemMeta`] below, and programs in other languages ask the pool to `describe`
//! the buffer.

mod exported;
pub mod ffi;
mod imp;
mod other;
#[cfg(any(test, fuzzing, feature = "v1_24"))]
pub(crate) mod wire;

use std::{
    ffi::{CStr, CString},
    fmt,
    os::fd::BorrowedFd,
    sync::Arc,
};

use gst::{ffi::GstMeta, glib};
use gst_allocators::DmaBufMemory;

use crate::memory::{Address, AddressUnknown, Extent, MemoryKind, PhysAddr, Region};
#[cfg(feature = "v1_24")]
use crate::sys::file_id::FileId;

/// Everything that the meta says, shared by copies that share the memory.
struct Description {
    facts: Facts,
    unknown_reason: Option<CString>,
    about: About,
}

/// The facts that are true in every process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub id: u32,
    pub size_bytes: usize,
    /// Offset at which the buffer begins in its GstMemory, as the pool made it.
    pub memory_offset_bytes: usize,
    kind: MemoryKind,
    heap: Option<CString>,
    is_pinned: bool,
    is_external: bool,
    pub address: Result<Address, AddressUnknown>,
}

/// Which memory a description is about.
enum About {
    /// The memory of a buffer of a pool in this process.
    Pool(InPool),
    /// The file that another process sent.
    #[cfg(feature = "v1_24")]
    File(FileId),
    /// The memory of a buffer that another copy of this library made.
    Other(other::TheirMeta),
}

/// The pool's slot and memory that a buffer belongs to.
pub(crate) struct InPool {
    pub slot: usize,
    region: Arc<Region>,
    /// The GstMemory that the pool made the buffer of; compared, never dereferenced.
    root: usize,
    #[cfg_attr(
        not(feature = "v1_24"),
        expect(dead_code, reason = "nothing is sent before 1.24")
    )]
    withhold_address: bool,
}

impl InPool {
    /// Whether the memory exists: false once its owner has freed it.
    pub fn is_alive(&self) -> bool {
        self.region.is_alive()
    }

    /// The GstMemory that the pool made the buffer of. It may be compared at any time, and
    /// dereferenced only while the buffer is known to hold it.
    pub fn root(&self) -> *const gst::ffi::GstMemory {
        self.root as *const _
    }
}

impl About {
    /// Whether the description is about `memory`.
    fn is(&self, memory: &gst::MemoryRef) -> bool {
        match self {
            Self::Pool(in_pool) => std::ptr::eq(memory.as_ptr(), in_pool.root()),
            #[cfg(feature = "v1_24")]
            Self::File(file) => crate::memory::file_of(memory).as_ref() == Some(file),
            Self::Other(meta) => meta.is_about(memory),
        }
    }
}

impl Description {
    fn new(facts: Facts, about: About) -> Arc<Self> {
        let reason = facts.address.as_ref().err();
        Arc::new(Self {
            unknown_reason: reason.and_then(|reason| c_string(&reason.to_string())),
            facts,
            about,
        })
    }

    fn in_pool(&self) -> Option<&InPool> {
        match &self.about {
            About::Pool(in_pool) => Some(in_pool),
            #[cfg(feature = "v1_24")]
            About::File(_) => None,
            About::Other(_) => None,
        }
    }
}

/// The text as a C string. Texts of this library contain no NUL.
fn c_string(text: &str) -> Option<CString> {
    CString::new(text).ok()
}

/// Id, address and origin of a pool buffer's memory.
///
/// `buffer.meta::<PhysMemMeta>()` returns it. This walks over the buffer's metas, which takes about
/// 10 ns and no system call. On a buffer that came from another process, each question about the
/// address takes one fstat.
#[repr(transparent)]
pub struct PhysMemMeta(ffi::GstPhysMemMeta);

// SAFETY: the struct is written once, before the buffer leaves its pool or source. `opaque` owns
// what it points to, and its content is Send and Sync (`About::Other` points to the meta itself).
unsafe impl Send for PhysMemMeta {}
// SAFETY: as above.
unsafe impl Sync for PhysMemMeta {}

impl PhysMemMeta {
    fn is_own(&self) -> bool {
        std::ptr::eq(self.0.meta.info, imp::info())
    }

    fn description(&self) -> &Description {
        if !self.is_own() {
            return other::description(&self.0);
        }
        // SAFETY: `init` sets `opaque` to a Description before any code sees the meta, and only the
        // meta's own free function takes it away.
        unsafe { &*self.0.opaque.cast::<Description>() }
    }

    fn facts(&self) -> &Facts {
        &self.description().facts
    }

    /// The buffer's memory, if it is the one that the description is about.
    fn memory(&self) -> Option<&gst::MemoryRef> {
        // SAFETY: the meta lives in its buffer, from which `&self` borrows.
        let buffer = unsafe { gst::BufferRef::from_ptr(self.0.buffer) };
        let one = (buffer.n_memory() == 1).then(|| buffer.peek_memory(0))?;
        self.description().about.is(one).then_some(one)
    }

    /// The buffer's id: never 0, unique in the process that has the pool, the same for each use.
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// Whether another process sent the buffer's memory and this description of it. Such a buffer
    /// is of no pool in this process.
    pub fn is_received(&self) -> bool {
        self.0.flags & ffi::GST_PHYS_MEM_FLAG_RECEIVED != 0
    }

    /// The physical address of all bytes that the buffer had when the pool handed it out, or why it
    /// is not known. For a buffer that was resized since, see [`phys_addr`](Self::phys_addr).
    pub fn address(&self) -> Result<&Address, &AddressUnknown> {
        if !self.is_alive() {
            Err(&AddressUnknown::Gone)
        } else if self.memory().is_none() {
            Err(&AddressUnknown::Replaced)
        } else {
            self.facts().address.as_ref()
        }
    }

    /// Physical address of the buffer's first byte as the buffer is now, if known.
    pub fn phys_addr(&self) -> Option<PhysAddr> {
        let made_at = self.facts().memory_offset_bytes;
        let moved = self.memory()?.offset().checked_sub(made_at)?;
        self.address().ok()?.at(moved as u64)
    }

    /// The pieces of [`address`](Self::address) in order; empty if the address is unknown.
    pub fn extents(&self) -> &[Extent] {
        self.address().map_or(&[], Address::extents)
    }

    /// Whether one extent is known to hold the whole buffer.
    pub fn is_contiguous(&self) -> bool {
        self.address().is_ok_and(Address::is_contiguous)
    }

    /// Whether the kernel cannot move the pages, so that the address stays true. Pages that came
    /// from another process are pinned if their dma-buf pins them, not if only that process does.
    pub fn is_pinned(&self) -> bool {
        self.facts().is_pinned && self.is_alive()
    }

    /// What pins the pages, or why they are not pinned, in words.
    pub fn pin_note(&self) -> &str {
        match self.region() {
            Some(region) => region.pin_note(),
            None if !self.is_received() && self.is_pinned() => {
                "pinned, says the other copy of this library that made the buffer"
            }
            None if !self.is_received() => {
                "not pinned, says the other copy of this library that made the buffer"
            }
            None if self.is_pinned() => "pinned by the dma-buf that came from another process",
            None => "at most pinned by the process that sent the buffer, while it lives",
        }
    }

    /// The dma-buf of the buffer's memory, if it has one.
    pub fn dma_buf(&self) -> Option<BorrowedFd<'_>> {
        if let Some(region) = self.region() {
            return region.dma_buf();
        }
        let memory = self.memory()?.downcast_memory_ref::<DmaBufMemory>()?;
        // SAFETY: the memory keeps its descriptor open, and the buffer, which `&self`
        // borrows from, keeps the memory.
        Some(unsafe { BorrowedFd::borrow_raw(memory.fd()) })
    }

    /// The buffer's size in bytes, as the pool hands the buffer out.
    pub fn size_bytes(&self) -> usize {
        self.facts().size_bytes
    }

    /// The kind of memory, which is never [`MemoryKind::Auto`].
    pub fn kind(&self) -> MemoryKind {
        self.facts().kind
    }

    /// Whether the memory was not allocated by the pool.
    pub fn is_external(&self) -> bool {
        self.facts().is_external
    }

    /// Name of the dma-heap or device that the memory came from.
    pub fn heap(&self) -> Option<&str> {
        self.facts().heap.as_ref()?.to_str().ok()
    }

    /// Whether the memory exists: false once its owner has freed it.
    pub fn is_alive(&self) -> bool {
        match &self.description().about {
            About::Pool(in_pool) => in_pool.is_alive(),
            #[cfg(feature = "v1_24")]
            About::File(_) => true,
            About::Other(meta) => meta.is_alive(),
        }
    }

    /// The block of memory that the buffer lies in, if this copy of the library in this process has
    /// it.
    pub fn region(&self) -> Option<&Arc<Region>> {
        self.in_pool().map(|in_pool| &in_pool.region)
    }

    /// Whether another copy of this library in this process made the buffer, which still has its
    /// memory.
    pub(crate) fn is_of_other_copy(&self) -> bool {
        !self.is_own() && !self.is_received() && self.memory().is_some()
    }

    /// The slot that the buffer belongs to, if it is of a pool in this process.
    pub(crate) fn in_pool(&self) -> Option<&InPool> {
        self.description().in_pool()
    }

    /// Offset and size, in bytes, with which the pool made the buffer's memory.
    pub(crate) fn place_in_memory(&self) -> (usize, usize) {
        (self.facts().memory_offset_bytes, self.facts().size_bytes)
    }

    /// The id of a buffer whose memory was freed by its owner: it cannot be mapped, shown or
    /// copied.
    pub fn freed_id(buffer: &gst::BufferRef) -> Option<u32> {
        let meta = buffer.meta::<Self>()?;
        (!meta.is_alive()).then(|| meta.id())
    }

    /// The sentence that an element logs when it drops such a buffer.
    pub(crate) fn why_dropped(buffer: &gst::BufferRef) -> Option<String> {
        let id = Self::freed_id(buffer)?;
        Some(format!(
            "frame dropped: the memory of buffer {id} was freed by its owner"
        ))
    }

    /// The meta as this type, if this copy of the library made it.
    pub(crate) fn from_meta(meta: &GstMeta) -> Option<&Self> {
        // SAFETY: the info says that the meta is one of those that `init` filled.
        std::ptr::eq(meta.info, imp::info()).then(|| unsafe { &*std::ptr::from_ref(meta).cast() })
    }

    /// Puts the meta on a buffer that a pool has just made around `memory`. The flags POOLED and
    /// LOCKED keep the meta there for the buffer's whole life.
    pub(crate) fn add(
        buffer: &mut gst::BufferRef,
        id: u32,
        slot: usize,
        memory: &gst::MemoryRef,
        withhold_address: bool,
    ) {
        let Some((region, offset_bytes)) = crate::memory::region_of(memory) else {
            return;
        };
        let size_bytes = memory.size();
        let address = match region.address() {
            Ok(whole) => whole
                .slice(offset_bytes as u64, size_bytes as u64)
                .ok_or(AddressUnknown::NotGiven),
            Err(reason) => Err(reason.clone()),
        };
        let facts = Facts {
            id,
            size_bytes,
            memory_offset_bytes: memory.offset(),
            kind: region.kind(),
            heap: region.heap().and_then(c_string),
            is_pinned: region.is_pinned(),
            is_external: region.is_external(),
            address,
        };
        let about = About::Pool(InPool {
            slot,
            region: region.clone(),
            root: memory.as_ptr() as usize,
            withhold_address,
        });
        let flags = gst::ffi::GST_META_FLAG_POOLED | gst::ffi::GST_META_FLAG_LOCKED;
        imp::attach(buffer, Description::new(facts, about), flags);
    }

    /// What to tell the process that gets the buffer's memory. `None` if the memory cannot be sent,
    /// is gone, or is not the one that the description is about.
    #[cfg(feature = "v1_24")]
    fn to_wire(&self) -> Option<Vec<u8>> {
        let memory = self.memory().filter(|_| self.is_alive())?;
        let file = crate::memory::file_of(memory)?;
        let mut facts = self.facts().clone();
        // A process that has the dma-buf has what pins the pages. Other memory is pinned by this
        // process, which may end before the other process.
        facts.is_pinned &= memory.is_memory_type::<DmaBufMemory>();
        if self
            .in_pool()
            .is_some_and(|in_pool| in_pool.withhold_address)
        {
            facts.address = Err(AddressUnknown::Withheld);
        }
        Some(wire::write(&facts, file))
    }

    /// Reads what `to_wire` wrote, for a buffer that is about to get the memory.
    #[cfg(feature = "v1_24")]
    fn from_wire(bytes: &[u8]) -> Result<Arc<Description>, wire::Malformed> {
        let (facts, file) = wire::read(bytes)?;
        Ok(Description::new(facts, About::File(file)))
    }
}

// SAFETY: the struct starts with a GstMeta and is registered under the API type returned here.
unsafe impl gst::MetaAPI for PhysMemMeta {
    type GstType = ffi::GstPhysMemMeta;

    fn meta_api() -> glib::Type {
        imp::api()
    }
}

impl fmt::Debug for PhysMemMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhysMemMeta")
            .field("id", &self.id())
            .field("received", &self.is_received())
            .field("address", &self.address())
            .field("pinned", &self.is_pinned())
            .field("size_bytes", &self.size_bytes())
            .field("kind", &self.kind())
            .field("heap", &self.heap())
            .finish()
    }
}

/// Registers the meta's types, so that `gst_meta_api_type_get_tags` and similar functions know them
/// before the first buffer exists.
pub(crate) fn register(plugin: &gst::Plugin) {
    imp::register(plugin);
}

/// The name of the meta for `gst_meta_get_info`. If two copies of this library are in one process,
/// it is that of the first, and the second has a number behind it.
pub const META_NAME: &CStr = c"GstPhysMemMeta";
