// SPDX-License-Identifier: MPL-2.0
//! Where memory can be had.

use gstphysmem::memory::{HeapMemory, heap_memory, is_uncached_heap};
use serde::Serialize;

use super::{Node, Root};

#[derive(Clone, Debug, Default, Serialize)]
pub struct Memory {
    /// Whether the kernel has dma-heaps.
    pub has_heaps: bool,
    pub heaps: Vec<Heap>,
    pub udmabuf: Option<Node>,
    /// The pools of huge pages, smallest pages first.
    pub huge_pages: Vec<HugePages>,
    /// CmaTotal of /proc/meminfo. `None` if the kernel has no CMA.
    pub cma_total_bytes: Option<u64>,
    pub cma_free_bytes: Option<u64>,
    pub available_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Heap {
    pub name: String,
    /// What its name says of the memory: contiguous, scattered, protected or unknown.
    pub memory: &'static str,
    /// Whether its name says that the CPU does not cache the memory.
    pub is_uncached: bool,
    pub node: Node,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct HugePages {
    pub page_bytes: u64,
    pub total: u64,
    pub free: u64,
}

impl Memory {
    pub fn read(root: &Root) -> Self {
        let meminfo = root.text("proc/meminfo").unwrap_or_default();
        let is_cma_area = |name: &str| root.exists(format!("sys/kernel/mm/cma/{name}"));
        let heaps = root.names("dev/dma_heap").into_iter().filter_map(|name| {
            Some(Heap {
                memory: match heap_memory(&name, is_cma_area) {
                    HeapMemory::Contiguous => "contiguous",
                    HeapMemory::Scattered => "scattered",
                    HeapMemory::Protected => "protected",
                    HeapMemory::Unknown => "unknown",
                },
                is_uncached: is_uncached_heap(&name),
                node: root.node(&format!("dev/dma_heap/{name}"))?,
                name,
            })
        });
        Self {
            has_heaps: root.exists("dev/dma_heap"),
            heaps: heaps.collect(),
            udmabuf: root.node("dev/udmabuf"),
            huge_pages: huge_pages(root),
            cma_total_bytes: field_bytes(&meminfo, "CmaTotal"),
            cma_free_bytes: field_bytes(&meminfo, "CmaFree"),
            available_bytes: field_bytes(&meminfo, "MemAvailable"),
        }
    }

    pub fn has_contiguous_heap(&self) -> bool {
        self.heaps.iter().any(|heap| heap.memory == "contiguous")
    }
}

fn huge_pages(root: &Root) -> Vec<HugePages> {
    const DIRECTORY: &str = "sys/kernel/mm/hugepages";
    let pool = |name: String| {
        let kilobytes = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        let count = |file: &str| root.number(format!("{DIRECTORY}/{name}/{file}"));
        Some(HugePages {
            page_bytes: kilobytes.parse::<u64>().ok()?.checked_mul(1024)?,
            total: count("nr_hugepages")?,
            free: count("free_hugepages")?,
        })
    };
    let mut pools: Vec<_> = root.names(DIRECTORY).into_iter().filter_map(pool).collect();
    pools.sort_unstable_by_key(|pool| pool.page_bytes);
    pools
}

/// A field of /proc/meminfo that counts kB.
fn field_bytes(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?.trim();
        let kilobytes = value.strip_suffix("kB")?.trim_end();
        kilobytes.parse::<u64>().ok()?.checked_mul(1024)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn a_recorded_board_has_heaps_and_pools() {
        let directory = tempfile::tempdir().unwrap();
        let pool = "sys/kernel/mm/hugepages/hugepages-";
        record(
            directory.path(),
            &[
                ("dev/dma_heap/linux,cma-uncached", ""),
                ("dev/dma_heap/system", ""),
                ("dev/dma_heap/camera@9000", ""),
                ("dev/dma_heap/secure", ""),
                ("sys/kernel/mm/cma/camera@9000/count", "1"),
                (&format!("{pool}2048kB/nr_hugepages"), "16\n"),
                (&format!("{pool}2048kB/free_hugepages"), "3\n"),
                (&format!("{pool}64kB/nr_hugepages"), "0\n"),
                (&format!("{pool}64kB/free_hugepages"), "0\n"),
                ("proc/meminfo", "CmaTotal:  65536 kB\nCmaFree:   100 kB\n"),
            ],
        );
        let memory = Memory::read(&Root::at(directory.path()));
        let heaps: Vec<_> = memory
            .heaps
            .iter()
            .map(|heap| (heap.name.as_str(), heap.memory, heap.is_uncached))
            .collect();
        assert_eq!(
            heaps,
            [
                ("camera@9000", "contiguous", false),
                ("linux,cma-uncached", "contiguous", true),
                ("secure", "protected", false),
                ("system", "scattered", false),
            ]
        );
        let pools: Vec<_> = memory
            .huge_pages
            .iter()
            .map(|pool| (pool.page_bytes, pool.total, pool.free))
            .collect();
        assert_eq!(pools, [(64 << 10, 0, 0), (2 << 20, 16, 3)]);
        assert_eq!(memory.cma_total_bytes, Some(64 << 20));
        assert_eq!(memory.cma_free_bytes, Some(100 << 10));
        assert_eq!(memory.udmabuf, None);
    }
}
