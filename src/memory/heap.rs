// SPDX-License-Identifier: MPL-2.0
//! What the name of a dma-heap says about its memory (Documentation/userspace-api/dma-buf-heaps.rst, and
//! the names that vendors add). Pure.

/// Names of the heap over the CMA area that all drivers share, in the order in which they are tried: the
/// name since 6.17, the name from a device tree's node, the name from `cma=` on the command line, and
/// another name that the kernel gives. Before 6.17 a machine has one of them, later perhaps two.
const SHARED_AREA: [&str; 4] = [
    "default_cma_region",
    "linux,cma",
    "reserved",
    "default-pool",
];

/// Suffixes that vendors append for memory that the CPU does not cache, and for memory below 4 GiB.
const SUFFIXES: [&str; 2] = ["-uncached", "-dma32"];

/// Splits a heap's name into the name of the memory area and the suffixes after it.
fn split_suffixes(name: &str) -> (&str, Vec<&str>) {
    let mut area = name;
    let mut suffixes = Vec::new();
    while let Some((rest, suffix)) = SUFFIXES
        .iter()
        .find_map(|suffix| Some((area.strip_suffix(suffix)?, *suffix)))
    {
        area = rest;
        suffixes.push(suffix);
    }
    (area, suffixes)
}

/// The heap gives the kernel's ordinary pages: `system`, `system-uncached`, `system_cc_shared`, ...
pub(super) fn is_of_scattered_pages(name: &str) -> bool {
    split_suffixes(name)
        .0
        .strip_prefix("system")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

/// The CPU may not access the heap's memory: `protected,secure-video` (6.18), and the names that vendors
/// used before. Such a heap is taken only by its name.
fn is_protected(name: &str) -> bool {
    ["protected", "restricted", "secure"]
        .iter()
        .any(|word| name.starts_with(word))
}

/// What a heap gives, as far as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeapMemory {
    /// Blocks of a CMA area.
    Contiguous,
    /// The kernel's ordinary pages.
    Scattered,
    /// Memory that the CPU may not access.
    Protected,
    /// The name says nothing.
    Unknown,
}

/// What the name of a heap says. `is_cma_area` says whether the kernel has a CMA area of a name: since 6.18
/// each reusable node of a device tree's reserved memory is a heap with the node's name.
pub fn heap_memory(name: &str, is_cma_area: impl Fn(&str) -> bool) -> HeapMemory {
    let (area, _) = split_suffixes(name);
    if is_of_scattered_pages(name) {
        HeapMemory::Scattered
    } else if is_protected(name) {
        HeapMemory::Protected
    } else if SHARED_AREA.contains(&area) || area.contains("cma") || is_cma_area(area) {
        HeapMemory::Contiguous
    } else {
        HeapMemory::Unknown
    }
}

/// Whether the name of a heap says that the CPU does not cache its memory.
pub fn is_uncached_heap(name: &str) -> bool {
    split_suffixes(name).1.contains(&"-uncached")
}

/// The heaps among `present` that give contiguous memory, in the order in which they are tried. Heaps whose
/// memory the CPU does not cache come last, because the CPU reads it slowly.
pub(super) fn contiguous(present: &[String], is_cma_area: impl Fn(&str) -> bool) -> Vec<String> {
    let mut heaps: Vec<&String> = present
        .iter()
        .filter(|name| heap_memory(name, &is_cma_area) == HeapMemory::Contiguous)
        .collect();
    heaps.sort_by_key(|name| {
        let (area, suffixes) = split_suffixes(name);
        let order = SHARED_AREA.iter().position(|known| *known == area);
        (
            is_uncached_heap(name),
            order.unwrap_or(SHARED_AREA.len()),
            suffixes.len(),
        )
    });
    heaps.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heaps(names: &[&str], areas: &[&str]) -> Vec<String> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        contiguous(&names, |name| areas.contains(&name))
    }

    #[test]
    fn usual_cma_heaps_come_first_in_their_order() {
        assert_eq!(
            heaps(
                &[
                    "aaa-cma",
                    "linux,cma",
                    "reserved",
                    "system",
                    "default_cma_region"
                ],
                &[]
            ),
            ["default_cma_region", "linux,cma", "reserved", "aaa-cma"]
        );
    }

    #[test]
    fn heaps_that_nobody_calls_cma_are_left_alone() {
        assert_eq!(
            heaps(&["system", "secure", "camera@9000"], &["camera@9000"]),
            ["camera@9000"]
        );
        assert!(heaps(&["system", "carveout_apu"], &[]).is_empty());
    }

    #[test]
    fn pages_of_the_system_are_not_contiguous_whatever_is_appended() {
        let scattered = [
            "system",
            "system-uncached",
            "system-uncached-dma32",
            "system-dma32",
            "system_cc_shared",
            "system-secure",
        ];
        for name in scattered {
            assert!(is_of_scattered_pages(name), "{name}");
        }
        assert!(heaps(&scattered, &scattered).is_empty());
        for name in ["reserved", "linux,cma-uncached", "systematic", "ion_system"] {
            assert!(!is_of_scattered_pages(name), "{name}");
        }
    }

    #[test]
    fn uncached_heaps_are_taken_when_there_is_no_other() {
        // i.MX, Rockchip, Amlogic, and a kernel with a CMA area for a camera.
        for (names, areas, expected) in [
            (
                &["linux,cma", "linux,cma-uncached", "system"][..],
                &[][..],
                &["linux,cma", "linux,cma-uncached"][..],
            ),
            (
                &["cma", "cma-dma32", "cma-uncached", "cma-uncached-dma32"],
                &[],
                &["cma", "cma-dma32", "cma-uncached", "cma-uncached-dma32"],
            ),
            (
                &["reserved-uncached", "system", "zz,cma"],
                &[],
                &["zz,cma", "reserved-uncached"],
            ),
            (
                &["camera@9000-uncached", "default-pool-uncached"],
                &["camera@9000"],
                &["default-pool-uncached", "camera@9000-uncached"],
            ),
        ] {
            assert_eq!(heaps(names, areas), expected);
        }
    }

    #[test]
    fn each_reserved_region_of_newer_kernels_is_a_heap() {
        assert_eq!(
            heaps(
                &[
                    "default_cma_region",
                    "ecc-off@a0000000",
                    "linux,cma@60000000",
                    "system",
                    "system_cc_shared",
                ],
                &["reserved", "ecc-off@a0000000", "linux,cma@60000000"]
            ),
            [
                "default_cma_region",
                "ecc-off@a0000000",
                "linux,cma@60000000"
            ]
        );
    }

    #[test]
    fn memory_that_is_kept_from_the_cpu_is_not_chosen() {
        let protected = [
            "protected,secure-video",
            "protected,trusted-ui",
            "restricted_mtk_cma",
            "secure_mtk_cma",
        ];
        assert!(heaps(&protected, &protected).is_empty());
    }
}
