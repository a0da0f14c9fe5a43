// SPDX-License-Identifier: MPL-2.0
//! The table of memory kinds. A new kind needs a variant of [`MemoryKind`] and a row here.

use super::error::MemoryError;
use super::kind::MemoryKind;
use super::provider::{AllocatorClass, KindInfo, Supply, TriedByAuto};
use super::{from_heap, from_memfd, from_region};

/// The values that hold unless a row sets others.
const ORDINARY: KindInfo = KindInfo {
    kind: MemoryKind::External,
    allocator: None,
    class: AllocatorClass::Plain,
    is_contiguous: false,
    supply: Supply::Reserved,
    tried_by_auto: TriedByAuto::No,
    providers: |_, _| None,
    region: |_, _, _| Err(MemoryError::External),
};

/// A row for each kind, in the order of the enum's numbers. Kind auto tries them from top to bottom.
pub(super) static TABLE: [KindInfo; 8] = [
    KindInfo {
        kind: MemoryKind::Auto,
        allocator: Some("PhysMemAuto"),
        supply: Supply::DependsOnPages,
        ..ORDINARY
    },
    KindInfo {
        kind: MemoryKind::Cma,
        allocator: Some("PhysMemCma"),
        class: AllocatorClass::DmaBuf,
        is_contiguous: true,
        tried_by_auto: TriedByAuto::WithHeapName,
        providers: from_heap::contiguous_heaps,
        region: from_heap::region,
        ..ORDINARY
    },
    KindInfo {
        kind: MemoryKind::System,
        allocator: Some("PhysMemSystem"),
        class: AllocatorClass::DmaBuf,
        supply: Supply::Machine { is_charged: false },
        providers: from_heap::system_heap,
        region: from_heap::region,
        ..ORDINARY
    },
    KindInfo {
        kind: MemoryKind::Udmabuf,
        allocator: Some("PhysMemUdmabuf"),
        class: AllocatorClass::DmaBuf,
        supply: Supply::DependsOnPages,
        tried_by_auto: TriedByAuto::IgnoringHeapName,
        providers: from_memfd::udmabuf_pages,
        region: from_memfd::udmabuf,
        ..ORDINARY
    },
    KindInfo {
        kind: MemoryKind::Hugepage,
        allocator: Some("PhysMemHugepage"),
        class: AllocatorClass::Fd,
        tried_by_auto: TriedByAuto::IgnoringHeapName,
        providers: from_memfd::huge_pages,
        region: from_memfd::pinned,
        ..ORDINARY
    },
    KindInfo {
        kind: MemoryKind::Normal,
        allocator: Some("PhysMemNormal"),
        class: AllocatorClass::Fd,
        supply: Supply::Machine { is_charged: true },
        tried_by_auto: TriedByAuto::IgnoringHeapName,
        providers: from_memfd::normal_pages,
        region: from_memfd::pinned,
        ..ORDINARY
    },
    ORDINARY,
    KindInfo {
        kind: MemoryKind::Region,
        allocator: Some("PhysMemRegion"),
        is_contiguous: true,
        providers: from_region::named_area,
        region: from_region::region,
        ..ORDINARY
    },
];

impl MemoryKind {
    pub(super) fn info(self) -> &'static KindInfo {
        &TABLE[self as usize]
    }

    /// Whether memory of this kind always has a dma-buf.
    pub fn has_dma_buf(self) -> bool {
        self.info().class == AllocatorClass::DmaBuf
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gst::glib::{self, prelude::*};

    #[test]
    fn the_row_of_a_kind_is_its_own() {
        let class = glib::EnumClass::with_type(MemoryKind::static_type()).unwrap();
        assert_eq!(class.values().len(), TABLE.len());
        for value in class.values() {
            let kind = value.to_value(&class).get::<MemoryKind>().unwrap();
            assert_eq!(kind.info().kind, kind);
        }
    }

    #[test]
    fn a_named_heap_is_the_only_place_to_ask() {
        let names = |kind: MemoryKind, heap| {
            let info = kind.info();
            let providers = (info.providers)(info, heap)?;
            Some(
                providers
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
            )
        };
        let only = |name: &str| Some(vec![name.to_owned()]);
        assert_eq!(names(MemoryKind::Cma, Some("mine")), only("cma heap mine"));
        assert_eq!(
            names(MemoryKind::System, Some("system-uncached")),
            only("system heap system-uncached")
        );
        assert_eq!(names(MemoryKind::Udmabuf, Some("shmem")), only("udmabuf"));
        assert_eq!(names(MemoryKind::Udmabuf, Some("mine")), None);
        assert_eq!(names(MemoryKind::Normal, Some("mine")), None);
        assert_eq!(names(MemoryKind::Normal, None), only("normal"));
    }
}
