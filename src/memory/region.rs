// SPDX-License-Identifier: MPL-2.0
//! One block of memory: its mapping, its address, its owner.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::claims::Claim;
use super::cpu_access::DmaBuf;
use super::error::AccessError;
use super::kind::MemoryKind;
use super::{CAT, resolve};
use crate::address::{Address, AddressUnknown};
use crate::handle::{BufferHandle, HandleAccess, HandleWatcher, WeakBufferHandle};
use crate::sys::dma_buf::Direction;
use crate::sys::mmap::{self, Mapping};
use crate::sys::pin::Pin;

/// A block of memory, mapped read-write once when it is made and unmapped when the last reference is
/// dropped. Devices share its bytes, so there are no slices over it, only [`Region::ptr`] and
/// [`Region::begin_access`].
pub struct Region {
    ptr: NonNull<u8>,
    size_bytes: usize,
    kind: MemoryKind,
    heap: Option<String>,
    address: Result<Address, AddressUnknown>,
    is_pinned: bool,
    pin_note: Cow<'static, str>,
    large_page_bytes: usize,
    pub(super) auto_choice: Option<String>,
    backing: Backing,
    /// The index that the pool's slots gave the region last: see [`Self::slot`].
    slot: AtomicUsize,
}

/// What keeps the memory mapped.
enum Backing {
    Owned(OwnedMapping),
    External {
        owner: Owner,
        dma_buf: Option<DmaBuf>,
    },
}

/// Memory that the region owns. The fields are dropped in this order: unpin, unmap, close, give back.
pub(super) struct OwnedMapping {
    pub _pin: Option<Pin>,
    pub mapping: Mapping,
    pub memfd: Option<OwnedFd>,
    pub dma_buf: Option<DmaBuf>,
    /// The physical addresses of kind region, which no other region has meanwhile.
    pub _claim: Option<Claim>,
}

/// What is known about the address of external memory.
#[derive(Clone, Debug)]
pub enum ExternalAddress {
    /// The owner gives the address and guarantees that it stays true.
    Given(Address),
    /// The address is to be looked up in pagemap.
    LookUp,
    /// The address is unknown, for this reason.
    Unknown(AddressUnknown),
}

/// What keeps external memory mapped.
pub enum Owner {
    /// The memory is never unmapped.
    Forever,
    /// The memory stays mapped at least until this value is dropped.
    Shared(Arc<dyn Any + Send + Sync>),
    /// The region owns the handle, whose deleter runs when the region is dropped.
    Held(BufferHandle),
    /// Other code owns the memory and may free it at any time. After that no access begins.
    Borrowed(WeakBufferHandle),
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forever => "Forever",
            Self::Shared(_) => "Shared",
            Self::Held(_) => "Held",
            Self::Borrowed(_) => "Borrowed",
        })
    }
}

// SAFETY: the pointer is only handed out, and its users are responsible for what they do with it; the
// constructors demand memory that any thread may use. All other fields are Send (Owner's by their bounds).
unsafe impl Send for Region {}
// SAFETY: as above; nothing changes behind a shared reference.
unsafe impl Sync for Region {}

impl Region {
    /// Makes a region over a whole mapping. `pin` says what keeps its pages in place, or why nothing does.
    pub(super) fn new(
        kind: MemoryKind,
        heap: Option<String>,
        address: Result<Address, AddressUnknown>,
        pin: Result<&'static str, String>,
        owned: OwnedMapping,
    ) -> Self {
        Self {
            ptr: owned.mapping.ptr(),
            size_bytes: owned.mapping.len_bytes(),
            kind,
            heap,
            address,
            is_pinned: pin.is_ok(),
            pin_note: pin.map_or_else(Cow::Owned, Cow::Borrowed),
            large_page_bytes: 0,
            auto_choice: None,
            backing: Backing::Owned(owned),
            slot: AtomicUsize::new(usize::MAX),
        }
    }

    /// Notes how many of the bytes lie in large pages.
    pub(super) fn with_large_pages(mut self, large_page_bytes: usize) -> Self {
        self.large_page_bytes = large_page_bytes;
        self
    }

    /// Makes a region over existing memory, which is not allocated here, and is freed here only through
    /// [`Owner::Held`].
    ///
    /// `dma_buf`, if given, is the same memory, beginning at `ptr`.
    ///
    /// # Safety
    /// `ptr .. ptr + size_bytes` is mapped read-write, for any thread, as long as `owner` says.
    /// `size_bytes` is not 0.
    pub unsafe fn external(
        ptr: NonNull<u8>,
        size_bytes: usize,
        address: ExternalAddress,
        owner: Owner,
        dma_buf: Option<OwnedFd>,
    ) -> Arc<Self> {
        let dma_buf = dma_buf.map(Arc::new);
        // SAFETY: the caller keeps the same contract.
        unsafe { Self::external_sharing(ptr, size_bytes, address, owner, dma_buf) }
    }

    /// As [`Self::external`], with a dma-buf that others keep open, too.
    ///
    /// # Safety
    /// As for [`Self::external`].
    pub(crate) unsafe fn external_sharing(
        ptr: NonNull<u8>,
        size_bytes: usize,
        address: ExternalAddress,
        owner: Owner,
        dma_buf: Option<Arc<OwnedFd>>,
    ) -> Arc<Self> {
        let address = match address {
            ExternalAddress::Given(address) if address.len_bytes() < size_bytes as u64 => {
                ExternalAddress::Unknown(AddressUnknown::GivenInPart {
                    given_bytes: address.len_bytes(),
                    size_bytes: size_bytes as u64,
                })
            }
            other => other,
        };
        let is_pinned = matches!(address, ExternalAddress::Given(_));
        let is_looked_up = matches!(address, ExternalAddress::LookUp);
        let mut region = Self {
            ptr,
            size_bytes,
            kind: MemoryKind::External,
            heap: None,
            address: match address {
                ExternalAddress::Given(address) => Ok(address),
                ExternalAddress::Unknown(reason) => Err(reason),
                ExternalAddress::LookUp => Err(AddressUnknown::NotGiven),
            },
            is_pinned,
            pin_note: if is_pinned {
                "the owner gave the address and answers for it"
            } else {
                "external memory is not pinned here; its owner may have pinned it"
            }
            .into(),
            large_page_bytes: 0,
            auto_choice: None,
            backing: Backing::External {
                owner,
                dma_buf: dma_buf.map(DmaBuf::new),
            },
            slot: AtomicUsize::new(usize::MAX),
        };
        if is_looked_up {
            region.address = region.look_up();
        }
        Arc::new(region)
    }

    /// Brings the pages in, which may write to them, and looks their addresses up.
    fn look_up(&self) -> Result<Address, AddressUnknown> {
        let populated = match self.begin_access(true) {
            // SAFETY: the constructor's caller guarantees the range, and its owner does not end it while
            // the access lasts.
            Ok(_access) => unsafe { mmap::populate(self.ptr, self.size_bytes) },
            Err(AccessError::Gone) => return Err(AddressUnknown::Gone),
            // The CPU may not access this memory, but pagemap may list its address.
            Err(AccessError::Sync(_)) => Ok(()),
        };
        match populated.map_err(|error| error.raw_os_error()) {
            // The mapping has no pages to bring in; pagemap knows whether it has addresses.
            Ok(()) | Err(Some(libc::EFAULT | libc::EINVAL)) => {
                resolve::look_up(self.ptr, self.size_bytes)
            }
            Err(_) => Err(AddressUnknown::NotPresent),
        }
    }

    /// First byte. Dereference it only during an [`Access`].
    pub fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Usable length in bytes: the requested size, rounded up to the kind's page size. The size of external
    /// memory is not rounded.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The kind of the memory; never [`MemoryKind::Auto`].
    pub fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// Name of the dma-buf heap, of a udmabuf's pages ("hugetlb", "shmem"), or of the memory of kind region.
    pub fn heap(&self) -> Option<&str> {
        self.heap.as_deref()
    }

    /// The physical address, or why it is unknown. Memory that its owner has freed has no address.
    pub fn address(&self) -> Result<&Address, &AddressUnknown> {
        if self.is_alive() {
            self.address.as_ref()
        } else {
            Err(&AddressUnknown::Gone)
        }
    }

    /// Whether the address stays true as long as the region lives.
    pub fn is_pinned(&self) -> bool {
        self.is_pinned && self.is_alive()
    }

    /// How many of the bytes lie in pages larger than PAGE_SIZE: huge pages, or the large ones that the kernel
    /// made for this memory.
    pub fn large_page_bytes(&self) -> usize {
        self.large_page_bytes
    }

    /// What pins the memory, or why it is not pinned.
    pub fn pin_note(&self) -> &str {
        &self.pin_note
    }

    /// The dma-buf over exactly this memory.
    pub fn dma_buf(&self) -> Option<BorrowedFd<'_>> {
        self.dma_buf_to_sync().map(AsFd::as_fd)
    }

    /// The dma-buf whose CPU accesses the kernel must be told of.
    fn dma_buf_to_sync(&self) -> Option<&DmaBuf> {
        match &self.backing {
            Backing::Owned(OwnedMapping { dma_buf, .. }) | Backing::External { dma_buf, .. } => {
                dma_buf.as_ref()
            }
        }
    }

    /// An fd whose MAP_SHARED mapping, in this or another process, is this memory. For a udmabuf it is the
    /// memfd, because mapping a udmabuf itself is broken on 6.1.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.memfd().or_else(|| self.dma_buf())
    }

    /// The memfd of the pages, which io_uring can register.
    pub(crate) fn memfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Owned(owned) => owned.memfd.as_ref().map(AsFd::as_fd),
            Backing::External { .. } => None,
        }
    }

    /// The handle, if the owner of the memory may free it at any time.
    fn borrowed(&self) -> Option<&WeakBufferHandle> {
        match &self.backing {
            Backing::External {
                owner: Owner::Borrowed(handle),
                ..
            } => Some(handle),
            _ => None,
        }
    }

    /// Whether the owner of the memory may free it at any time.
    pub(crate) fn is_borrowed(&self) -> bool {
        self.borrowed().is_some()
    }

    /// Whether the memory was made outside of this library's allocators.
    pub fn is_external(&self) -> bool {
        matches!(self.backing, Backing::External { .. })
    }

    /// Whether the memory still exists. Only memory borrowed from a handle can be freed before the region.
    pub fn is_alive(&self) -> bool {
        self.borrowed().is_none_or(WeakBufferHandle::is_alive)
    }

    /// Registers `watcher`, which is told when the owner of borrowed memory frees it.
    pub(crate) fn watch(&self, watcher: &std::sync::Weak<dyn HandleWatcher>) {
        if let Some(handle) = self.borrowed() {
            handle.watch(watcher.clone());
        }
    }

    /// Where a pool is likely to find its slot for this region. Pools with other slots may have noted
    /// another index since, so that this has to be verified.
    pub(crate) fn slot(&self) -> usize {
        self.slot.load(Ordering::Relaxed)
    }

    pub(crate) fn note_slot(&self, index: usize) {
        self.slot.store(index, Ordering::Relaxed);
    }

    /// For a region of kind auto: the kinds that were passed over, and why. One line.
    pub fn auto_choice(&self) -> Option<&str> {
        self.auto_choice.as_deref()
    }

    /// Begins an access by the CPU. Until the result is dropped, the memory stays allocated and the caches
    /// of a dma-buf are coherent.
    ///
    /// # Errors
    /// The owner has freed the memory, or the dma-buf's driver refuses.
    pub fn begin_access(&self, write: bool) -> Result<Access<'_>, AccessError> {
        self.begin_access_for(Direction { read: true, write })
    }

    pub(super) fn begin_access_for(&self, direction: Direction) -> Result<Access<'_>, AccessError> {
        let access = |handle: &WeakBufferHandle| handle.begin_access().ok_or(AccessError::Gone);
        let handle = self.borrowed().map(access).transpose()?;
        if let Some(dma_buf) = self.dma_buf_to_sync() {
            dma_buf.begin_access(direction).map_err(AccessError::Sync)?;
        }
        Ok(Access {
            region: self,
            handle,
        })
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("kind", &self.kind)
            .field("heap", &self.heap)
            .field("ptr", &self.ptr)
            .field("size_bytes", &self.size_bytes)
            // Warnings show this text, and everybody may read warnings: so no physical addresses.
            .field(
                "extents",
                &self.address.as_ref().ok().map(|a| a.extents().len()),
            )
            .field("is_pinned", &self.is_pinned)
            .finish_non_exhaustive()
    }
}

/// An access by the CPU to a region.
#[derive(Debug)]
#[must_use = "the access ends when this is dropped"]
pub struct Access<'a> {
    region: &'a Region,
    handle: Option<HandleAccess>,
}

impl Access<'_> {
    /// First byte of the region.
    pub fn ptr(&self) -> *mut u8 {
        self.region.ptr()
    }

    /// Turns the access into a pointer for GstMapInfo. Null for an access that holds no handle.
    pub(super) fn into_raw(self) -> *const () {
        let mut access = std::mem::ManuallyDrop::new(self);
        access
            .handle
            .take()
            .map_or(std::ptr::null(), HandleAccess::into_raw)
    }

    /// # Safety
    /// `raw` comes from `into_raw` of an access to this region and is used once.
    pub(super) unsafe fn from_raw<'a>(region: &'a Region, raw: *const ()) -> Access<'a> {
        Access {
            region,
            // SAFETY: into_raw gave a handle's pointer or null, and the caller uses it once.
            handle: (!raw.is_null()).then(|| unsafe { HandleAccess::from_raw(raw) }),
        }
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        if let Some(dma_buf) = self.region.dma_buf_to_sync()
            && let Err(error) = dma_buf.end_access()
        {
            gst::warning!(
                CAT,
                "end of CPU access to {:?}: {}",
                self.region,
                crate::sys::describe(&error)
            );
        }
    }
}
