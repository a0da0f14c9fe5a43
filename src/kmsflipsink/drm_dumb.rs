// SPDX-License-Identifier: MPL-2.0
//! Dumb buffers of other elements (GstDRMDumbAllocator, GStreamer 1.24). Their memory is mappable and is no dma-buf, but can
//! be exported as one.

use std::os::fd::{AsFd, BorrowedFd};

/// Memory that the card may import.
#[derive(Debug, Clone, Copy)]
pub enum Importable<'a> {
    DmaBuf(BorrowedFd<'a>),
    #[cfg(feature = "v1_24")]
    Dumb(&'a gst_allocators::DRMDumbMemoryRef),
}

/// Its dma-buf, to be imported.
#[derive(Debug)]
pub enum DmaBuf<'a> {
    Borrowed(BorrowedFd<'a>),
    #[cfg(feature = "v1_24")]
    Exported(gst_allocators::DmaBufMemory),
}

impl<'a> Importable<'a> {
    /// `None` if the memory is neither a dma-buf nor a dumb buffer.
    pub fn of(memory: &'a gst::MemoryRef) -> Option<Self> {
        if let Some(memory) = memory.downcast_memory_ref::<gst_allocators::DmaBufMemory>() {
            // SAFETY: the memory keeps its fd open as long as it lives, and the result does not outlive the borrow of the
            // memory.
            return Some(Self::DmaBuf(unsafe { BorrowedFd::borrow_raw(memory.fd()) }));
        }
        #[cfg(feature = "v1_24")]
        if let Some(dumb) = memory.downcast_memory_ref::<gst_allocators::DRMDumbMemory>() {
            return Some(Self::Dumb(dumb));
        }
        None
    }

    /// The fd, if the memory is a dma-buf by itself.
    pub fn fd(self) -> Option<BorrowedFd<'a>> {
        match self {
            Self::DmaBuf(fd) => Some(fd),
            #[cfg(feature = "v1_24")]
            Self::Dumb(_) => None,
        }
    }

    /// The memory as a dma-buf. The error says in words what failed.
    pub fn export(self) -> Result<DmaBuf<'a>, &'static str> {
        match self {
            Self::DmaBuf(fd) => Ok(DmaBuf::Borrowed(fd)),
            #[cfg(feature = "v1_24")]
            Self::Dumb(dumb) => match dumb.export_dmabuf() {
                Ok(memory) => Ok(DmaBuf::Exported(memory)),
                Err(_) => Err("to export a dumb buffer as a dma-buf"),
            },
        }
    }
}

impl AsFd for DmaBuf<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed(fd) => *fd,
            // SAFETY: as in `Importable::of`.
            #[cfg(feature = "v1_24")]
            Self::Exported(memory) => unsafe { BorrowedFd::borrow_raw(memory.fd()) },
        }
    }
}
