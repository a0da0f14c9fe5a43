// SPDX-License-Identifier: MPL-2.0
//! Pools over memory that the application owns.

use std::{
    ffi::c_int,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::Arc,
};

use gst::subclass::prelude::ObjectSubclassIsExt;

use super::{PhysBufferPool, Reuse, Slots};
use crate::{
    handle::BufferHandle,
    memory::{
        Address, AddressSource, AddressUnknown, Extent, ExternalAddress, Owner, PhysAddr, Region,
    },
    sys,
};

/// A block of memory that stays mapped, for [`PhysBufferPool::with_regions`].
#[derive(Debug, Clone, Copy)]
pub struct MemoryBlock {
    /// Virtual address of the first byte.
    pub virt: NonNull<u8>,
    /// Physical address of the first byte of a contiguous block; `None` to look the address up. The
    /// address of a block that would run past the last one is refused: it is unknown then.
    pub phys: Option<PhysAddr>,
    /// Length in bytes.
    pub size_bytes: usize,
}

impl MemoryBlock {
    /// The block, or why these values describe none.
    pub(crate) fn checked(
        data: *mut u8,
        size_bytes: usize,
        phys: Option<PhysAddr>,
    ) -> Result<Self, &'static str> {
        let virt = NonNull::new(data).ok_or("the data of a block is NULL")?;
        let last = (size_bytes as u64)
            .checked_sub(1)
            .ok_or("the size of a block is 0")?;
        // No object is larger than isize::MAX, and none ends beyond the last address of the process.
        isize::try_from(size_bytes)
            .ok()
            .and_then(|_| virt.addr().get().checked_add(size_bytes))
            .ok_or("a block ends beyond the last address of the process")?;
        phys.map_or(Some(0), |phys| phys.0.checked_add(last))
            .ok_or("a block ends beyond the last physical address")?;
        Ok(Self {
            virt,
            phys,
            size_bytes,
        })
    }
}

/// Makes a handle of a block that another language describes. `deleter` does not run if this fails.
///
/// # Safety
/// If the values describe a block, `data .. data + size` stays mapped read-write until `deleter` runs, and no
/// other code frees it.
pub(crate) unsafe fn handle_of_pieces(
    data: *mut u8,
    size: usize,
    extents: Option<Vec<Extent>>,
    dmabuf_fd: c_int,
    deleter: impl FnOnce() + Send + 'static,
) -> Result<BufferHandle, &'static str> {
    let block = MemoryBlock::checked(data, size, None)?;
    let address = extents.map(|extents| {
        if extents.iter().any(|extent| extent.phys.0 == 0) {
            return Err("the address of an extent is 0");
        }
        Address::new(extents, AddressSource::User)
            .filter(|address| address.len_bytes() == size as u64)
            .ok_or(
                "the extents are not as long as the block, or end beyond the last physical address",
            )
    });
    let address = address.transpose()?;
    let dma_buf = match dmabuf_fd {
        -1 => None,
        fd => Some(duplicate(fd).ok_or("the dma-buf is no open file descriptor")?),
    };
    // SAFETY: the caller guarantees the block, which is not empty, as was just checked.
    let handle = unsafe { BufferHandle::new(block.virt, size, |_, _| deleter()) };
    let handle = handle.with_address(address);
    Ok(match dma_buf {
        Some(dma_buf) => handle.with_dma_buf(dma_buf),
        None => handle,
    })
}

/// Makes a handle of a whole dma-buf that another language names. The descriptor stays the caller's.
pub(crate) fn handle_of_dmabuf(dmabuf_fd: c_int) -> Result<BufferHandle, String> {
    let bad = io::Error::from_raw_os_error(libc::EBADF);
    let duplicate = duplicate(dmabuf_fd).ok_or(bad);
    let handle = duplicate.and_then(BufferHandle::map_dma_buf);
    handle.map_err(|error| {
        let error = sys::describe(&error);
        format!("file descriptor {dmabuf_fd} cannot be mapped as a dma-buf: {error}")
    })
}

fn duplicate(fd: c_int) -> Option<OwnedFd> {
    if fd < 0 {
        return None;
    }
    // SAFETY: the fd is borrowed for this call only, in which the kernel checks that it is open.
    unsafe { BorrowedFd::borrow_raw(fd) }
        .try_clone_to_owned()
        .ok()
}

/// Why a pool does not take a block.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddRefused {
    #[error("memory is added to a pool of kind external only")]
    OtherKind,
    #[error("memory is added before the pool is configured")]
    Configured,
}

impl PhysBufferPool {
    /// A pool over blocks of memory that outlive it. Each block becomes one buffer: configure the
    /// pool with a buffer size that fits into the smallest.
    ///
    /// The pool takes a given address as true. It looks up the others in `/proc/self/pagemap`, and
    /// they stay true only as long as the owner of the blocks keeps the pages in place.
    ///
    /// ```
    /// use gst::prelude::*;
    /// use gstphysmem::{memory::PhysAddr, meta::PhysMemMeta, pool::{MemoryBlock, PhysBufferPool}};
    ///
    /// gst::init()?;
    /// let block: &'static mut [u8] = Box::leak(vec![0; 4096].into_boxed_slice());
    /// let block = MemoryBlock {
    ///     virt: std::ptr::NonNull::from(block).cast(),
    ///     phys: Some(PhysAddr(0x4000_0000)), // say, from the device tree
    ///     size_bytes: 4096,
    /// };
    /// // SAFETY: the block is leaked, so it outlives everything.
    /// let pool = unsafe { PhysBufferPool::with_regions(&[block]) };
    /// let mut config = pool.config();
    /// config.set_params(None, 4096, 1, 1);
    /// pool.set_config(config)?;
    /// pool.set_active(true)?;
    /// let buffer = pool.acquire_buffer(None)?;
    /// let meta = buffer.meta::<PhysMemMeta>().ok_or("no meta")?;
    /// assert_eq!(meta.phys_addr(), Some(PhysAddr(0x4000_0000)));
    /// # drop(buffer);
    /// # pool.set_active(false)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    /// Every block is mapped read-write, for every thread, until the pool and the last buffer and
    /// memory that came from it are gone. No size is 0. For memory that cannot promise this there
    /// is [`with_borrowed_handles`](Self::with_borrowed_handles).
    pub unsafe fn with_regions(blocks: &[MemoryBlock]) -> Self {
        let regions = blocks.iter().map(|block| {
            let len = block.size_bytes as u64;
            let given = block.phys.map(|phys| Address::given(phys, len));
            // SAFETY: the caller promises what `external` requires: the mapping, and no size of 0.
            unsafe {
                Region::external(
                    block.virt,
                    block.size_bytes,
                    external_address(given.as_ref()),
                    Owner::Forever,
                    None,
                )
            }
        });
        Self::over_regions(regions.collect())
    }

    /// A pool that owns the handles. Their deleters run when the pool and the last buffer and
    /// memory that came from it are gone.
    pub fn with_handles(handles: Vec<BufferHandle>) -> Self {
        let regions = handles.into_iter().map(|handle| {
            let (ptr, len) = (handle.ptr(), handle.len_bytes());
            let address = external_address(handle.given_address());
            let dma_buf = handle.shared_dma_buf();
            // SAFETY: the handle's maker promised a mapped block until the deleter runs, which the
            // region delays to its own end.
            unsafe { Region::external_sharing(ptr, len, address, Owner::Held(handle), dma_buf) }
        });
        Self::over_regions(regions.collect())
    }

    /// As [`with_handles`](Self::with_handles), with handles that other code may own, too.
    pub(crate) fn with_shared_handles(
        handles: impl IntoIterator<Item = Arc<BufferHandle>>,
    ) -> Self {
        let regions = handles.into_iter().map(|handle| {
            let (ptr, len) = (handle.ptr(), handle.len_bytes());
            let address = external_address(handle.given_address());
            let dma_buf = handle.shared_dma_buf();
            // SAFETY: as in `with_handles`; the region owns the handle with others.
            unsafe { Region::external_sharing(ptr, len, address, Owner::Shared(handle), dma_buf) }
        });
        Self::over_regions(regions.collect())
    }

    /// Gives the pool a buffer over the handle's block, which it owns from now on. For a pool of kind
    /// external that has no config yet: its buffers' number and size follow from its blocks.
    pub(super) fn add_handle(&self, handle: BufferHandle) -> Result<(), AddRefused> {
        if self.imp().is_owner() {
            return Err(AddRefused::OtherKind);
        }
        if self.imp().share().config().is_some() {
            return Err(AddRefused::Configured);
        }
        let (ptr, len) = (handle.ptr(), handle.len_bytes());
        let address = external_address(handle.given_address());
        let dma_buf = handle.shared_dma_buf();
        // SAFETY: as in `with_handles`.
        let region =
            unsafe { Region::external_sharing(ptr, len, address, Owner::Held(handle), dma_buf) };
        self.imp().slots().add(region);
        Ok(())
    }

    /// A pool that borrows the handles, each of which may be dropped at any time. The buffer of a
    /// dropped handle is not handed out again, cannot be mapped and is not valid
    /// ([`validate`](Self::validate)). The handle's deleter waits for the maps that exist then, but
    /// not for a device: hold a [`HandleAccess`](crate::handle::HandleAccess) while a device works
    /// on the memory.
    pub fn with_borrowed_handles<'a>(handles: impl IntoIterator<Item = &'a BufferHandle>) -> Self {
        let regions = handles.into_iter().map(|handle| {
            let address = external_address(handle.given_address());
            let (ptr, len) = (handle.ptr(), handle.len_bytes());
            let owner = Owner::Borrowed(handle.downgrade());
            let dma_buf = handle.shared_dma_buf();
            // SAFETY: the handle's maker promised a mapped block until the deleter runs, and the
            // region begins no access without asking the handle.
            unsafe { Region::external_sharing(ptr, len, address, owner, dma_buf) }
        });
        Self::over_regions(regions.collect())
    }

    fn over_regions(regions: Vec<Arc<Region>>) -> Self {
        Self::over(&Slots::new(regions, Reuse::MostRecent), None)
    }
}

fn external_address(given: Option<&Result<Address, AddressUnknown>>) -> ExternalAddress {
    match given {
        Some(Ok(address)) => ExternalAddress::Given(address.clone()),
        Some(Err(reason)) => ExternalAddress::Unknown(reason.clone()),
        None => ExternalAddress::LookUp,
    }
}
