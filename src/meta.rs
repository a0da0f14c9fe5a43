// SPDX-License-Identifier: MPL-2.0
//! `GstPhysMemMeta`: what is known of a pool buffer's memory, on the buffer.
//!
//! A GstMeta of its own and not a GstCustomMeta, because the transform function
//! must look at the copy's memory: the meta stays only where the copy holds the
//! very same memory, whole; a deep copy, a part or another memory drops it. And
//! since GStreamer replaces the memory of a shared buffer that is mapped for
//! writing without telling any meta, each reader here looks at the buffer's memory
//! again: an address that is given is never that of other bytes.
//!
//! C programs read the public struct [`ffi::GstPhysMemMeta`] (see
//! `include/gstphysmem.h`), Rust programs the [`PhysMemMeta`] below, and those
//! without either ask the pool to `describe` the buffer.

use std::{ffi::CStr, fmt, sync::Arc};

use gst::{
    ffi::{GstBuffer, GstMeta},
    glib::{self, translate::*},
};

use crate::memory::{Address, AddressUnknown, Extent, MemoryKind, PhysAddr, Region};

/// The C view of the meta.
pub mod ffi {
    use std::ffi::c_char;

    use crate::memory::Extent;

    /// `phys_addr`, `extents` are valid.
    pub const GST_PHYS_MEM_FLAG_ADDRESS_KNOWN: u32 = 1 << 0;
    /// One extent holds the whole buffer.
    pub const GST_PHYS_MEM_FLAG_CONTIGUOUS: u32 = 1 << 1;
    /// The kernel cannot move the pages: the address stays true.
    pub const GST_PHYS_MEM_FLAG_PINNED: u32 = 1 << 2;
    /// The pool did not allocate the memory (`EXTERNAL`; else `OWNED`).
    pub const GST_PHYS_MEM_FLAG_EXTERNAL: u32 = 1 << 3;

    /// The public part of the meta, as C sees it.
    #[repr(C)]
    pub struct GstPhysMemMeta {
        /// The parent structure.
        pub meta: gst::ffi::GstMeta,
        /// Unique in this process, never 0.
        pub id: u32,
        /// `GST_PHYS_MEM_FLAG_*`.
        pub flags: u32,
        /// A `GstPhysMemoryKind`.
        pub kind: i32,
        /// A `GstPhysAddressSource`; meaningless unless the address is known.
        pub source: i32,
        /// Physical address of the buffer's first byte; meaningless unless known.
        pub phys_addr: u64,
        /// Bytes in the buffer.
        pub size: u64,
        /// The physically contiguous pieces in order; null unless known.
        pub extents: *const Extent,
        /// How many `extents`.
        pub n_extents: u32,
        /// The buffer's dma-buf, owned by the memory, or -1.
        pub dmabuf_fd: i32,
        /// dma-heap or device that the memory came from, or null.
        pub heap: *const c_char,
        /// Why the address is unknown, one sentence, or null.
        pub unknown_reason: *const c_char,
        /// The memory that all this is about. Mapping a shared buffer for writing
        /// replaces it: then, as for any but the buffer's one memory, nothing here
        /// holds. Only to be compared.
        pub memory: *const gst::ffi::GstMemory,
        pub(super) private: *mut super::Private,
    }
}

/// Everything behind the meta.
struct Private {
    /// Shared by the copies that share the memory.
    description: Arc<Description>,
    /// The buffer that the meta is on, for as long as it is.
    buffer: *const GstBuffer,
}

struct Description {
    id: u32,
    slot: usize,
    region: Arc<Region>,
    offset_bytes: usize,
    size_bytes: usize,
    address: Result<Address, AddressUnknown>,
    heap: Option<std::ffi::CString>,
    unknown_reason: Option<std::ffi::CString>,
    /// Where in its memory object the buffer begins, as the pool made it.
    memory_offset_bytes: usize,
    /// The memory whose address this is; compared, never dereferenced.
    root: usize,
}

/// Id, address and origin of a pool buffer's memory.
///
/// `buffer.meta::<PhysMemMeta>()` gives it. It costs a walk over the buffer's
/// metas, about 10 ns, no system call.
#[repr(transparent)]
pub struct PhysMemMeta(ffi::GstPhysMemMeta);

// SAFETY: the struct is written once, before the buffer leaves its pool; what
// it points to is owned by `private`, whose content is Send and Sync.
unsafe impl Send for PhysMemMeta {}
// SAFETY: as above.
unsafe impl Sync for PhysMemMeta {}

impl PhysMemMeta {
    fn private(&self) -> &Private {
        // SAFETY: `attach` sets `private` before anyone sees the meta, and only
        // the meta's own free function takes it away.
        unsafe { &*self.0.private }
    }

    fn description(&self) -> &Description {
        &self.private().description
    }

    /// The buffer's memory, if it is still the one that the pool gave it.
    fn memory(&self) -> Option<&gst::MemoryRef> {
        // SAFETY: a meta lives in its buffer, which `&self` borrows from.
        let buffer = unsafe { gst::BufferRef::from_ptr(self.private().buffer) };
        let one = (buffer.n_memory() == 1).then(|| buffer.peek_memory(0))?;
        std::ptr::eq(one.as_ptr(), self.root()).then_some(one)
    }

    /// The buffer's id: unique in this process, never 0, the same each time the
    /// pool hands this buffer out.
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// Where the buffer's bytes are, all that it had when the pool handed it out, or
    /// why that is not known. [`phys_addr`](Self::phys_addr) follows a buffer that
    /// was resized since.
    pub fn address(&self) -> Result<&Address, &AddressUnknown> {
        if !self.region().is_alive() {
            Err(&AddressUnknown::Gone)
        } else if self.memory().is_none() {
            Err(&AddressUnknown::Replaced)
        } else {
            self.description().address.as_ref()
        }
    }

    /// Physical address of the buffer's first byte, if known.
    pub fn phys_addr(&self) -> Option<PhysAddr> {
        let made_at = self.description().memory_offset_bytes;
        let moved = self.memory()?.offset().checked_sub(made_at)?;
        self.address().ok()?.at(moved as u64)
    }

    /// The physically contiguous pieces of [`address`](Self::address), in order;
    /// empty if unknown.
    pub fn extents(&self) -> &[Extent] {
        self.address().map_or(&[], Address::extents)
    }

    /// True if one extent is known to hold the whole buffer.
    pub fn is_contiguous(&self) -> bool {
        self.address().is_ok_and(Address::is_contiguous)
    }

    /// True if the kernel cannot move the pages, so that the address stays true.
    pub fn is_pinned(&self) -> bool {
        self.region().is_pinned()
    }

    /// The buffer's size in bytes as the pool hands it out.
    pub fn size_bytes(&self) -> usize {
        self.description().size_bytes
    }

    /// What kind of memory this is.
    pub fn kind(&self) -> MemoryKind {
        self.region().kind()
    }

    /// The dma-heap or device that the memory came from.
    pub fn heap(&self) -> Option<&str> {
        self.region().heap()
    }

    /// The block of memory that the buffer lies in.
    pub fn region(&self) -> &Arc<Region> {
        &self.description().region
    }

    /// Where in [`region`](Self::region) the buffer begins, in bytes.
    pub fn offset_bytes(&self) -> usize {
        self.description().offset_bytes
    }

    /// The index of the pool's slot that the buffer belongs to.
    pub(crate) fn slot(&self) -> usize {
        self.description().slot
    }

    /// The memory that the pool made the buffer of: compared, and looked into by
    /// those who know that the buffer still holds it.
    pub(crate) fn root(&self) -> *const gst::ffi::GstMemory {
        self.description().root as *const _
    }

    /// Offset and size, in bytes, with which the pool made that memory.
    pub(crate) fn place_in_memory(&self) -> (usize, usize) {
        let description = self.description();
        (description.memory_offset_bytes, description.size_bytes)
    }

    /// The id of a buffer whose memory was freed by its owner: there is nothing to be
    /// shown or copied, and a map fails.
    pub fn freed_id(buffer: &gst::BufferRef) -> Option<u32> {
        let meta = buffer.meta::<Self>()?;
        (!meta.region().is_alive()).then(|| meta.id())
    }

    /// This meta as ours, if it is.
    pub(crate) fn from_meta(meta: &GstMeta) -> Option<&Self> {
        // SAFETY: the info says that the meta is one of those made by `attach`.
        (meta.info == imp::info()).then(|| unsafe { &*std::ptr::from_ref(meta).cast() })
    }

    /// Puts the meta on a buffer that a pool has just made around `memory`,
    /// POOLED and LOCKED: it stays for the buffer's whole life.
    pub(crate) fn add(buffer: &mut gst::BufferRef, id: u32, slot: usize, memory: &gst::MemoryRef) {
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
        // Interior NULs cannot be: heap names are file names, reasons our own text.
        let c_string = |text: &str| std::ffi::CString::new(text).ok();
        let description = Arc::new(Description {
            id,
            slot,
            region: region.clone(),
            offset_bytes,
            size_bytes,
            heap: region.heap().and_then(c_string),
            unknown_reason: address
                .as_ref()
                .err()
                .and_then(|r| c_string(&r.to_string())),
            address,
            memory_offset_bytes: memory.offset(),
            root: memory.as_ptr() as usize,
        });
        Self::attach(
            buffer,
            description,
            gst::ffi::GST_META_FLAG_POOLED | gst::ffi::GST_META_FLAG_LOCKED,
        );
    }

    fn attach(buffer: &mut gst::BufferRef, description: Arc<Description>, flags: u32) {
        // SAFETY: `info()` describes exactly `ffi::GstPhysMemMeta`; the buffer
        // is writable (`&mut`), and the pointer is valid until the meta is freed.
        unsafe {
            let meta = gst::ffi::gst_buffer_add_meta(
                buffer.as_mut_ptr(),
                imp::info(),
                std::ptr::null_mut(),
            ) as *mut ffi::GstPhysMemMeta;
            let Some(meta) = meta.as_mut() else { return };
            meta.meta.flags |= flags;
            imp::fill(meta, description, buffer.as_ptr());
        }
    }
}

// SAFETY: `GstPhysMemMeta` starts with a GstMeta and is registered under the
// API type returned here.
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
            .field("address", &self.address())
            .field("pinned", &self.is_pinned())
            .field("size_bytes", &self.size_bytes())
            .field("kind", &self.kind())
            .field("heap", &self.heap())
            .finish()
    }
}

/// Registers the meta's types, so that `gst_meta_api_type_get_tags` and friends
/// know them before the first buffer exists.
pub(crate) fn register() {
    imp::info();
}

/// The name of the meta, as `gst_meta_get_info` takes it.
pub const META_NAME: &CStr = c"GstPhysMemMeta";

mod imp {
    use std::sync::OnceLock;

    use super::*;

    pub(super) fn api() -> glib::Type {
        static API: OnceLock<glib::Type> = OnceLock::new();
        *API.get_or_init(|| {
            // "memory": the meta depends on the buffer's memory, so that base
            // classes drop it when they write into other memory.
            let tags = [
                c"memory".as_ptr(),
                c"memory-reference".as_ptr(),
                std::ptr::null(),
            ];
            // SAFETY: a static name and a null-terminated array of static strings.
            unsafe {
                from_glib(gst::ffi::gst_meta_api_type_register(
                    c"GstPhysMemMetaAPI".as_ptr(),
                    tags.as_ptr() as *mut _,
                ))
            }
        })
    }

    struct Info(*const gst::ffi::GstMetaInfo);
    // SAFETY: GStreamer never frees or changes a registered GstMetaInfo.
    unsafe impl Send for Info {}
    // SAFETY: as above.
    unsafe impl Sync for Info {}

    pub(super) fn info() -> *const gst::ffi::GstMetaInfo {
        static INFO: OnceLock<Info> = OnceLock::new();
        INFO.get_or_init(|| {
            // SAFETY: the size is that of the struct that the functions take.
            Info(unsafe {
                gst::ffi::gst_meta_register(
                    api().into_glib(),
                    META_NAME.as_ptr(),
                    size_of::<ffi::GstPhysMemMeta>(),
                    Some(init),
                    Some(free),
                    Some(transform),
                )
            })
        })
        .0
    }

    /// Makes the C fields point into `description` and hands it to the meta.
    pub(super) fn fill(
        meta: &mut ffi::GstPhysMemMeta,
        description: Arc<Description>,
        buffer: *const GstBuffer,
    ) {
        let region = &description.region;
        let mut flags = 0;
        meta.source = 0;
        meta.phys_addr = 0;
        meta.extents = std::ptr::null();
        meta.n_extents = 0;
        if let Ok(address) = &description.address {
            flags |= ffi::GST_PHYS_MEM_FLAG_ADDRESS_KNOWN;
            if address.is_contiguous() {
                flags |= ffi::GST_PHYS_MEM_FLAG_CONTIGUOUS;
            }
            meta.source = address.source() as i32;
            meta.phys_addr = address.first().0;
            meta.extents = address.extents().as_ptr();
            meta.n_extents = address.extents().len() as u32;
        }
        if region.is_pinned() {
            flags |= ffi::GST_PHYS_MEM_FLAG_PINNED;
        }
        if region.is_external() {
            flags |= ffi::GST_PHYS_MEM_FLAG_EXTERNAL;
        }
        let as_ptr = |s: &Option<std::ffi::CString>| {
            s.as_ref().map_or(std::ptr::null(), |text| text.as_ptr())
        };
        meta.id = description.id;
        meta.flags = flags;
        meta.kind = region.kind() as i32;
        meta.size = description.size_bytes as u64;
        meta.dmabuf_fd = region
            .dma_buf()
            .map_or(-1, |fd| std::os::fd::AsRawFd::as_raw_fd(&fd));
        meta.heap = as_ptr(&description.heap);
        meta.unknown_reason = as_ptr(&description.unknown_reason);
        meta.memory = description.root as *const _;
        meta.private = Box::into_raw(Box::new(Private {
            description,
            buffer,
        }));
    }

    unsafe extern "C" fn init(
        meta: *mut GstMeta,
        _params: glib::ffi::gpointer,
        _buffer: *mut GstBuffer,
    ) -> glib::ffi::gboolean {
        // SAFETY: GStreamer allocated `size_of::<GstPhysMemMeta>()` bytes.
        unsafe { (*(meta as *mut ffi::GstPhysMemMeta)).private = std::ptr::null_mut() };
        glib::ffi::GTRUE
    }

    unsafe extern "C" fn free(meta: *mut GstMeta, _buffer: *mut GstBuffer) {
        // SAFETY: `private` is null or came from Box::into_raw in `fill`, and
        // GStreamer frees a meta once.
        unsafe {
            let meta = meta as *mut ffi::GstPhysMemMeta;
            if !(*meta).private.is_null() {
                drop(Box::from_raw((*meta).private));
            }
        }
    }

    /// Copies the meta along with the same, whole memory; else drops it.
    unsafe extern "C" fn transform(
        to: *mut GstBuffer,
        meta: *mut GstMeta,
        _from: *mut GstBuffer,
        type_: glib::ffi::GQuark,
        data: glib::ffi::gpointer,
    ) -> glib::ffi::gboolean {
        // SAFETY: GStreamer passes two valid buffers, `to` writable, the meta
        // of `_from`, and for "gst-copy" a GstMetaTransformCopy.
        unsafe {
            if type_ != glib::Quark::from_str("gst-copy").into_glib() {
                return glib::ffi::GFALSE;
            }
            let copy = data as *const gst::ffi::GstMetaTransformCopy;
            if !copy.is_null() && (*copy).region != glib::ffi::GFALSE {
                return glib::ffi::GTRUE;
            }
            let meta = &*(meta as *const PhysMemMeta);
            let to = gst::BufferRef::from_mut_ptr(to);
            let same = to.n_memory() == 1
                && to.peek_memory(0).as_ptr() as usize == meta.description().root;
            if same && to.meta::<PhysMemMeta>().is_none() {
                let description = meta.private().description.clone();
                PhysMemMeta::attach(to, description, 0);
            }
            glib::ffi::GTRUE
        }
    }
}
