// SPDX-License-Identifier: MPL-2.0
//! Pools over memory that the application owns.

use std::{ptr::NonNull, sync::Arc};

use super::{PhysBufferPool, Reuse, Slots};
use crate::{
    handle::BufferHandle,
    memory::{Address, AddressUnknown, ExternalAddress, Owner, PhysAddr, Region},
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
            // SAFETY: the handle's maker promised a mapped block until the deleter runs, which the
            // region delays to its own end.
            unsafe { Region::external(ptr, len, address, Owner::Held(handle), None) }
        });
        Self::over_regions(regions.collect())
    }

    /// A pool that borrows the handles, each of which may be dropped at any time. The buffer of a
    /// dropped handle is not handed out again, cannot be mapped and is not valid
    /// ([`validate`](Self::validate)). The handle's deleter waits for the maps that exist then, but
    /// not for a device: hold a [`HandleAccess`](crate::handle::HandleAccess) while a device works
    /// on the memory.
    pub fn with_borrowed_handles<'a>(handles: impl IntoIterator<Item = &'a BufferHandle>) -> Self {
        let regions = handles.into_iter().map(|handle| {
            let address = external_address(handle.given_address());
            let owner = Owner::Borrowed(handle.downgrade());
            // SAFETY: the handle's maker promised a mapped block until the deleter runs, and the
            // region begins no access without asking the handle.
            unsafe { Region::external(handle.ptr(), handle.len_bytes(), address, owner, None) }
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
