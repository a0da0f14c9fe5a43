// SPDX-License-Identifier: MPL-2.0
//! One block of memory: its mapping, its address, its owner.

use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use super::cpu_access::DmaBuf;
use super::error::AccessError;
use super::kind::MemoryKind;
use super::{CAT, resolve};
use crate::address::{Address, AddressUnknown};
use crate::handle::{BufferHandle, HandleAccess, HandleWatcher, WeakBufferHandle};
use crate::sys::dma_buf::Direction;
use crate::sys::mmap::{self, Mapping};
use crate::sys::pin::Pin;

/// A block of memory, mapped read-write once at its birth and unmapped when the last
/// reference goes. Its bytes are shared with devices: there are no slices over it
/// here, only [`Region::ptr`] and [`Region::begin_access`].
pub struct Region {
    ptr: NonNull<u8>,
    size_bytes: usize,
    kind: MemoryKind,
    heap: Option<String>,
    address: Result<Address, AddressUnknown>,
    is_pinned: bool,
    pin_note: String,
    pub(super) choice: Option<String>,
    backing: Backing,
}

/// What the memory hangs on.
enum Backing {
    Own(Own),
    External {
        owner: Owner,
        dma_buf: Option<DmaBuf>,
    },
}

/// What is the region's own. The fields are dropped in this order: unpin, unmap, close.
pub(super) struct Own {
    pub _pin: Option<Pin>,
    pub mapping: Mapping,
    pub memfd: Option<OwnedFd>,
    pub dma_buf: Option<DmaBuf>,
}

/// What is known of the address of external memory.
#[derive(Clone, Debug)]
pub enum ExternalAddress {
    /// The owner knows it, and answers for it staying true.
    Given(Address),
    /// To be looked up in pagemap.
    LookUp,
    /// It is not known, for this reason.
    Unknown(AddressUnknown),
}

/// Who keeps external memory mapped.
pub enum Owner {
    /// It is never unmapped.
    Forever,
    /// It is unmapped when this is dropped, or later.
    Shared(Arc<dyn Any + Send + Sync>),
    /// The region owns it now; the handle's deleter runs when the region goes.
    Held(BufferHandle),
    /// Somebody else owns it and may free it any time; no access then begins.
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

// SAFETY: the pointer is only handed out; what is done with it is its users' to
// answer for, and the constructors demand memory that any thread may use. All other
// fields are Send by themselves (Owner's, through its bounds).
unsafe impl Send for Region {}
// SAFETY: as above; nothing changes behind a shared reference.
unsafe impl Sync for Region {}

impl Region {
    /// A region over all of a mapping. `pin` is what keeps its pages in place, or why
    /// nothing does.
    pub(super) fn new(
        kind: MemoryKind,
        heap: Option<String>,
        address: Result<Address, AddressUnknown>,
        pin: Result<&str, String>,
        own: Own,
    ) -> Self {
        Self {
            ptr: own.mapping.ptr(),
            size_bytes: own.mapping.len_bytes(),
            kind,
            heap,
            address,
            is_pinned: pin.is_ok(),
            pin_note: pin.map_or_else(|why| why, str::to_owned),
            choice: None,
            backing: Backing::Own(own),
        }
    }

    /// A region over memory that exists. It is neither allocated nor freed here,
    /// save through [`Owner::Held`].
    ///
    /// `dma_buf`, if given, is the same memory, beginning at `ptr`.
    ///
    /// # Safety
    /// `ptr .. ptr + size_bytes` is mapped read-write, for any thread, as long as
    /// `owner` says. `size_bytes` is not 0.
    pub unsafe fn external(
        ptr: NonNull<u8>,
        size_bytes: usize,
        address: ExternalAddress,
        owner: Owner,
        dma_buf: Option<OwnedFd>,
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
            .to_owned(),
            choice: None,
            backing: Backing::External {
                owner,
                dma_buf: dma_buf.map(DmaBuf::new),
            },
        };
        if is_looked_up {
            region.address = region.look_up();
        }
        Arc::new(region)
    }

    /// Brings the pages in, which may write to them, and asks where they are.
    fn look_up(&self) -> Result<Address, AddressUnknown> {
        let populated = match self.begin_access(true) {
            // SAFETY: the constructor's caller vouches for the range, and no owner ends
            // it while the access goes on.
            Ok(_access) => unsafe { mmap::populate(self.ptr, self.size_bytes) },
            Err(AccessError::Gone) => return Err(AddressUnknown::Gone),
            // Not for the CPU; pagemap may know it all the same.
            Err(AccessError::Sync(_)) => Ok(()),
        };
        match populated.map_err(|error| error.raw_os_error()) {
            // No pages to bring in; pagemap says what there is.
            Ok(()) | Err(Some(libc::EFAULT | libc::EINVAL)) => {
                resolve::look_up(self.ptr, self.size_bytes)
            }
            Err(_) => Err(AddressUnknown::NotPresent),
        }
    }

    /// First byte. Dereferenced only during an [`Access`].
    pub fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Usable length: what was asked for, rounded up to the kind's page size;
    /// external memory is not rounded.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The kind; never auto.
    pub fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// Name of the dma-buf heap, or the pages of a udmabuf ("hugetlb", "shmem").
    pub fn heap(&self) -> Option<&str> {
        self.heap.as_deref()
    }

    /// Where it is, or why that is not known: memory that its owner has freed is
    /// nowhere.
    pub fn address(&self) -> Result<&Address, &AddressUnknown> {
        if self.is_alive() {
            self.address.as_ref()
        } else {
            Err(&AddressUnknown::Gone)
        }
    }

    /// The address cannot go stale while the region lives.
    pub fn is_pinned(&self) -> bool {
        self.is_pinned && self.is_alive()
    }

    /// What pins it, or why it is not pinned.
    pub fn pin_note(&self) -> &str {
        &self.pin_note
    }

    /// The dma-buf over exactly this memory.
    pub fn dma_buf(&self) -> Option<BorrowedFd<'_>> {
        self.synced().map(AsFd::as_fd)
    }

    /// What the kernel is told of the CPU's accesses to.
    fn synced(&self) -> Option<&DmaBuf> {
        match &self.backing {
            Backing::Own(Own { dma_buf, .. }) | Backing::External { dma_buf, .. } => {
                dma_buf.as_ref()
            }
        }
    }

    /// An fd whose MAP_SHARED mapping, here or in another process, is this memory.
    /// For a udmabuf it is the memfd: mapping a udmabuf itself is broken on 6.1.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.memfd().or_else(|| self.dma_buf())
    }

    /// The memfd that the pages are of, which io_uring can register.
    pub(crate) fn memfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Own(own) => own.memfd.as_ref().map(AsFd::as_fd),
            Backing::External { .. } => None,
        }
    }

    /// The handle of memory that its owner may free at any time.
    fn borrowed(&self) -> Option<&WeakBufferHandle> {
        match &self.backing {
            Backing::External {
                owner: Owner::Borrowed(handle),
                ..
            } => Some(handle),
            _ => None,
        }
    }

    /// The memory came from outside.
    pub fn is_external(&self) -> bool {
        matches!(self.backing, Backing::External { .. })
    }

    /// The memory is there. Only memory borrowed from a handle can go early.
    pub fn is_alive(&self) -> bool {
        self.borrowed().is_none_or(WeakBufferHandle::is_alive)
    }

    /// Has `watcher` told when the owner of borrowed memory frees it; other memory
    /// stays as long as the region.
    pub(crate) fn watch(&self, watcher: &std::sync::Weak<dyn HandleWatcher>) {
        if let Some(handle) = self.borrowed() {
            handle.watch(watcher.clone());
        }
    }

    /// For a region of kind auto: which kinds were passed over, and why. One line.
    pub fn choice(&self) -> Option<&str> {
        self.choice.as_deref()
    }

    /// Begins the CPU's access: the memory stays there, and a dma-buf's caches are
    /// made coherent, until the access is dropped.
    ///
    /// # Errors
    /// The owner has freed the memory, or the dma-buf's driver refuses.
    pub fn begin_access(&self, write: bool) -> Result<Access<'_>, AccessError> {
        self.begin_access_for(Direction { read: true, write })
    }

    pub(super) fn begin_access_for(&self, direction: Direction) -> Result<Access<'_>, AccessError> {
        let access = |handle: &WeakBufferHandle| handle.begin_access().ok_or(AccessError::Gone);
        let handle = self.borrowed().map(access).transpose()?;
        if let Some(dma_buf) = self.synced() {
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
            // Goes into warnings, which anybody may read: physical addresses do not.
            .field(
                "extents",
                &self.address.as_ref().ok().map(|a| a.extents().len()),
            )
            .field("is_pinned", &self.is_pinned)
            .finish_non_exhaustive()
    }
}

/// The CPU is at work on a region.
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

    /// For GstMapInfo, which has room for a pointer. Null for an access that holds no
    /// handle.
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
            // SAFETY: into_raw gave a handle's pointer or null; used once, as the
            // caller vouches.
            handle: (!raw.is_null()).then(|| unsafe { HandleAccess::from_raw(raw) }),
        }
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        if let Some(dma_buf) = self.region.synced()
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
