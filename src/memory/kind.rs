// SPDX-License-Identifier: MPL-2.0
//! The kinds of memory.

use std::fmt;

use gst::glib;

/// Where a buffer's memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, glib::Enum)]
#[enum_type(name = "GstPhysMemoryKind")]
#[repr(C)]
pub enum MemoryKind {
    /// The first that works of cma, udmabuf, hugepage and normal.
    #[default]
    #[enum_value(name = "Auto: the best kind that works here", nick = "auto")]
    Auto,
    /// A dma-buf heap over the contiguous memory allocator.
    #[enum_value(name = "CMA: contiguous, dma-buf", nick = "cma")]
    Cma,
    /// The dma-buf heap `system`.
    #[enum_value(
        name = "System heap: scattered, dma-buf, address unknown",
        nick = "system"
    )]
    System,
    /// A memfd exported as a dma-buf.
    #[enum_value(name = "udmabuf: scattered, dma-buf", nick = "udmabuf")]
    Udmabuf,
    /// A memfd of huge pages.
    #[enum_value(name = "Huge pages: contiguous within each", nick = "hugepage")]
    Hugepage,
    /// A memfd of normal pages.
    #[enum_value(name = "Normal pages: scattered", nick = "normal")]
    Normal,
    /// Memory of somebody else.
    #[enum_value(name = "External: memory that exists already", nick = "external")]
    External,
}

impl MemoryKind {
    /// The nickname that properties take.
    pub fn nick(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cma => "cma",
            Self::System => "system",
            Self::Udmabuf => "udmabuf",
            Self::Hugepage => "hugepage",
            Self::Normal => "normal",
            Self::External => "external",
        }
    }

    /// Memory of this kind always has a dma-buf.
    pub fn has_dma_buf(self) -> bool {
        matches!(self, Self::Cma | Self::System | Self::Udmabuf)
    }
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.nick())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gst::glib::prelude::*;

    #[test]
    fn nick_is_the_one_glib_knows() {
        let class = glib::EnumClass::with_type(MemoryKind::static_type()).unwrap();
        for value in class.values() {
            let kind = value.to_value(&class).get::<MemoryKind>().unwrap();
            assert_eq!(kind.nick(), value.nick());
        }
    }
}
