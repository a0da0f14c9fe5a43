// SPDX-License-Identifier: MPL-2.0
//! The names of the memory kinds. The module `table` says what each kind is made of and what it promises.

use std::fmt;

use crate::shared_enum::shared_enum;

/// Where a buffer's memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum MemoryKind {
    /// The first of cma, udmabuf, hugepage and normal that works.
    #[default]
    Auto,
    /// A dma-buf heap over the contiguous memory allocator.
    Cma,
    /// The dma-buf heap `system`, or the heap that the request names.
    System,
    /// A memfd exported as a dma-buf by /dev/udmabuf.
    Udmabuf,
    /// A memfd of huge pages.
    Hugepage,
    /// A memfd of normal pages.
    Normal,
    /// Memory that the application or a driver owns.
    External,
    /// Memory that exists already at a known physical address, and that the heap names.
    Region,
}

shared_enum!(MemoryKind, c"GstPhysMemoryKind", {
    Auto: c"auto", c"Auto: the best kind that works here";
    Cma: c"cma", c"CMA: contiguous, dma-buf";
    System: c"system", c"System heap: scattered, dma-buf, address unknown";
    Udmabuf: c"udmabuf", c"udmabuf: scattered, dma-buf";
    Hugepage: c"hugepage", c"Huge pages: contiguous within each";
    Normal: c"normal", c"Normal pages: scattered";
    External: c"external", c"External: memory that exists already";
    Region: c"region", c"Region: physical memory named by heap";
});

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.nick())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gst::glib::{self, prelude::*};

    #[test]
    fn nick_is_the_one_glib_knows() {
        let class = glib::EnumClass::with_type(MemoryKind::static_type()).unwrap();
        for value in class.values() {
            let kind = value.to_value(&class).get::<MemoryKind>().unwrap();
            assert_eq!(kind.nick(), value.nick());
        }
    }
}
