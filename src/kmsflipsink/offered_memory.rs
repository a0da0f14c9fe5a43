// SPDX-License-Identifier: MPL-2.0
//! The property `memory-kind`.

use crate::memory::MemoryKind;
use crate::shared_enum::shared_enum;

/// The memory that upstream is offered to write into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum OfferedMemory {
    /// The first of cma, udmabuf and dumb that can be shown.
    #[default]
    Auto,
    /// A dma-buf heap of contiguous memory (CMA).
    Cma,
    /// A memfd exported as a dma-buf.
    Udmabuf,
    /// The dma-buf heap `system`.
    System,
    /// The card's own dumb buffers.
    Dumb,
}

shared_enum!(OfferedMemory, c"GstKmsFlipSinkMemoryKind", {
    Auto: c"auto", c"The first of cma, udmabuf and dumb that can be shown";
    Cma: c"cma", c"CMA: contiguous, dma-buf";
    Udmabuf: c"udmabuf", c"udmabuf: scattered, dma-buf";
    System: c"system", c"System heap: scattered, dma-buf";
    Dumb: c"dumb", c"The card's own dumb buffers";
});

impl OfferedMemory {
    /// The kinds of memory to try, in this order; `None` means dumb buffers.
    pub fn choices(self) -> &'static [Option<MemoryKind>] {
        match self {
            Self::Auto => &[Some(MemoryKind::Cma), Some(MemoryKind::Udmabuf), None],
            Self::Cma => &[Some(MemoryKind::Cma)],
            Self::Udmabuf => &[Some(MemoryKind::Udmabuf)],
            Self::System => &[Some(MemoryKind::System)],
            Self::Dumb => &[None],
        }
    }
}
