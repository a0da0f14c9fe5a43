// SPDX-License-Identifier: MPL-2.0
//! Memory: where it can be had, and the blocks that were made.

use super::{owners, rights, size, to_open};
use crate::facts::Facts;
use crate::facts::allocation::{Allocation, Block};
use crate::item::Item;

pub fn items(facts: &Facts) -> Vec<Item> {
    let mut items = vec![heaps(facts)];
    items.extend(each_heap(facts));
    items.extend([cma(facts), udmabuf(facts), huge_pages(facts)]);
    items
}

fn heaps(facts: &Facts) -> Item {
    const KEY: &str = "memory.heaps";
    let names: Vec<_> = facts.memory.heaps.iter().map(|heap| &*heap.name).collect();
    match (facts.memory.has_heaps, names.as_slice()) {
        (false, _) => Item::lack(
            KEY,
            "no /dev/dma_heap: no memory of kinds cma and system",
            Some("kernel option CONFIG_DMABUF_HEAPS=y".to_owned()),
        ),
        (true, []) => Item::lack(
            KEY,
            "/dev/dma_heap is empty",
            Some("kernel option CONFIG_DMABUF_HEAPS_CMA=y".to_owned()),
        ),
        (true, names) => Item::ok(KEY, names.join(", ")),
    }
}

fn each_heap(facts: &Facts) -> Vec<Item> {
    let heap = |heap: &crate::facts::memory::Heap| {
        let key = format!("memory.heap.{}", heap.name);
        let caches = match heap.is_uncached {
            true => "not cached by the CPU",
            false => "cached",
        };
        let gives = match heap.memory {
            "unknown" => format!("the name does not say whether it is contiguous; {caches}"),
            memory => format!("{memory}, {caches}"),
        };
        let fact = format!("{gives}; {}", owners(&heap.node));
        match (heap.memory, heap.node.may_open) {
            (_, true) => Item::ok(key, fact),
            // Nothing here takes them without being told to.
            ("scattered" | "protected" | "unknown", false) => Item::ok(
                key,
                format!("{fact}: not for {}, and not needed", facts.rights.user),
            ),
            (_, false) => Item::lack(
                key,
                format!("{fact}: not for {}", facts.rights.user),
                to_open(&heap.node, &facts.rights.user),
            ),
        }
    };
    facts.memory.heaps.iter().map(heap).collect()
}

fn cma(facts: &Facts) -> Item {
    const KEY: &str = "memory.cma";
    match (facts.memory.cma_total_bytes, facts.memory.cma_free_bytes) {
        (None, _) => Item::lack(
            KEY,
            "no contiguous memory allocator",
            Some("kernel option CONFIG_DMA_CMA=y".to_owned()),
        ),
        (Some(0), _) => Item::lack(KEY, "the CMA area has 0 bytes", larger_area()),
        (Some(total), free) => {
            let free = free.unwrap_or(0);
            let fact = format!("{} of {} free", size(free), size(total));
            match (free, facts.memory.has_contiguous_heap()) {
                (0, _) => Item::lack(KEY, fact, larger_area()),
                (_, false) => Item::lack(
                    KEY,
                    format!("{fact}, but no heap gives it"),
                    Some("kernel option CONFIG_DMABUF_HEAPS_CMA=y".to_owned()),
                ),
                (_, true) => Item::ok(KEY, fact),
            }
        }
    }
}

fn larger_area() -> String {
    "cma=128M on the kernel command line".to_owned()
}

fn udmabuf(facts: &Facts) -> Item {
    const KEY: &str = "memory.udmabuf";
    match &facts.memory.udmabuf {
        Some(node) if node.may_open => Item::ok(KEY, format!("{}; {}", node.path, owners(node))),
        Some(node) => Item::lack(
            KEY,
            format!(
                "{}; {}: not for {}",
                node.path,
                owners(node),
                facts.rights.user
            ),
            to_open(node, &facts.rights.user),
        ),
        None => Item::lack(
            KEY,
            "no /dev/udmabuf: no memory of kind udmabuf",
            // It is built in or not there: the option knows no module.
            Some("kernel option CONFIG_UDMABUF=y".to_owned()),
        ),
    }
}

fn huge_pages(facts: &Facts) -> Item {
    const KEY: &str = "memory.huge-pages";
    let pools = &facts.memory.huge_pages;
    if pools.is_empty() {
        return Item::lack(
            KEY,
            "no pool of huge pages",
            Some("kernel option CONFIG_HUGETLBFS=y".to_owned()),
        );
    }
    let each: Vec<_> = pools
        .iter()
        .map(|pool| {
            format!(
                "{}: {} of {} free",
                size(pool.page_bytes),
                pool.free,
                pool.total
            )
        })
        .collect();
    let fact = each.join("; ");
    match pools.iter().any(|pool| pool.free > 0) {
        true => Item::ok(KEY, fact),
        false => Item::lack(KEY, fact, Some("sudo sysctl vm.nr_hugepages=64".to_owned())),
    }
}

/// An item for each block but that of kind auto, which is part of `choice`.
pub fn allocations(facts: &Facts) -> Vec<Item> {
    if facts.allocations.is_empty() {
        return vec![Item::unknown(
            "allocation.any",
            "nothing was allocated, since GStreamer did not start",
        )];
    }
    let kinds = facts.allocations.iter();
    kinds
        .filter(|made| made.kind != "auto")
        .map(|made| allocation(facts, made))
        .collect()
}

fn allocation(facts: &Facts, made: &Allocation) -> Item {
    let key = format!("allocation.{}", made.kind);
    let block = match (&made.block, &made.error) {
        (Some(block), _) => block,
        (None, error) => {
            let error = error.clone().unwrap_or_default();
            let is_there = facts.memory.heaps.iter().any(|heap| heap.name == "system");
            return match made.kind {
                // packaging/udev/60-physmem.rules leaves it to root, too.
                "system" if is_there => {
                    Item::ok(key, format!("{error} (no element takes it by itself)"))
                }
                kind => Item::lack(key, error, remedy_of_place(facts, kind)),
            };
        }
    };
    let heap = match &block.heap {
        Some(heap) => format!("heap {heap}, "),
        None => String::new(),
    };
    let pinned = match block.is_pinned {
        true => "pinned".to_owned(),
        false if block.pin_note.is_empty() => "not pinned".to_owned(),
        false => block.pin_note.clone(),
    };
    match address(block) {
        Some(address) => Item::ok(key, format!("{heap}{address}, {pinned}")),
        None => {
            let reason = block.address_unknown.as_deref().unwrap_or_default();
            let fact = format!("{heap}{pinned}, no address: {reason}");
            match made.kind {
                "system" => Item::ok(key, format!("{fact} (nobody is told it)")),
                "cma" => Item::lack(key, fact, rights::for_cma(facts)),
                _ => Item::lack(key, fact, rights::for_pagemap(facts)),
            }
        }
    }
}

/// The remedy for the place where a kind's memory comes from.
fn remedy_of_place(facts: &Facts, kind: &str) -> Option<String> {
    match kind {
        "cma" => cma(facts)
            .remedy
            .or_else(|| each_heap(facts).into_iter().find_map(|heap| heap.remedy)),
        "system" => heaps(facts)
            .remedy
            .or_else(|| Some("kernel option CONFIG_DMABUF_HEAPS_SYSTEM=y".to_owned())),
        "udmabuf" => udmabuf(facts).remedy,
        "hugepage" => huge_pages(facts).remedy,
        _ => None,
    }
}

/// "at 0x1000 (pagemap), in 3 pieces".
fn address(block: &Block) -> Option<String> {
    let address = block.address?;
    let source = block.address_source.as_deref().unwrap_or("unknown source");
    Some(match block.extents {
        1 => format!("at {address:#x} ({source}), contiguous"),
        extents => format!("at {address:#x} ({source}), in {extents} pieces"),
    })
}

/// What kind auto takes.
pub fn choice(facts: &Facts) -> Item {
    const KEY: &str = "choice.memory";
    match facts.allocations.iter().find(|made| made.kind == "auto") {
        None => Item::unknown(KEY, "nothing was allocated"),
        Some(Allocation {
            block: Some(block), ..
        }) => Item::ok(
            KEY,
            format!(
                "kind auto is {}",
                block.auto_choice.as_deref().unwrap_or(&block.kind)
            ),
        ),
        Some(made) => Item::broken(KEY, made.error.clone().unwrap_or_default(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Node;
    use crate::facts::memory::{Heap, HugePages};
    use crate::item::Verdict;

    fn heap(name: &str, memory: &'static str, may_open: bool) -> Heap {
        Heap {
            name: name.into(),
            memory,
            node: Node {
                may_open,
                mode: 0o600,
                ..Node::default()
            },
            ..Heap::default()
        }
    }

    fn board() -> Facts {
        let mut facts = Facts::default();
        facts.rights.user = "me".into();
        facts.memory.has_heaps = true;
        facts.memory.heaps = vec![
            heap("reserved", "contiguous", true),
            heap("system", "scattered", false),
        ];
        facts.memory.cma_total_bytes = Some(64 << 20);
        facts.memory.cma_free_bytes = Some(32 << 20);
        facts
    }

    #[test]
    fn a_closed_heap_is_a_lack_only_if_it_is_taken_by_itself() {
        let mut facts = board();
        let verdicts = |facts: &Facts| -> Vec<_> {
            each_heap(facts).iter().map(|item| item.verdict).collect()
        };
        assert_eq!(verdicts(&facts), [Verdict::Ok, Verdict::Ok]);
        facts.memory.heaps[0].node.may_open = false;
        assert_eq!(verdicts(&facts), [Verdict::Lack, Verdict::Ok]);
    }

    #[test]
    fn cma_says_which_of_its_three_parts_is_missing() {
        let remedy = |change: fn(&mut Facts)| {
            let mut facts = board();
            change(&mut facts);
            cma(&facts).remedy
        };
        assert_eq!(remedy(|_| ()), None);
        let told = |change| remedy(change).unwrap();
        assert!(told(|facts| facts.memory.cma_total_bytes = None).contains("CONFIG_DMA_CMA"));
        assert!(told(|facts| facts.memory.cma_total_bytes = Some(0)).contains("cma="));
        assert!(told(|facts| facts.memory.cma_free_bytes = Some(0)).contains("cma="));
        assert!(told(|facts| facts.memory.heaps.clear()).contains("DMABUF_HEAPS_CMA"));
    }

    #[test]
    fn udmabuf_is_missing_or_closed_or_open() {
        let mut facts = board();
        assert!(udmabuf(&facts).remedy.unwrap().contains("CONFIG_UDMABUF"));
        facts.memory.udmabuf = Some(Node::default());
        assert!(udmabuf(&facts).remedy.unwrap().contains("60-physmem.rules"));
        facts.memory.udmabuf = Some(Node {
            may_open: true,
            ..Node::default()
        });
        assert_eq!(udmabuf(&facts).verdict, Verdict::Ok);
    }

    #[test]
    fn a_pool_without_free_pages_is_a_lack() {
        let mut facts = board();
        let pool = |free| HugePages {
            page_bytes: 2 << 20,
            total: 4,
            free,
        };
        facts.memory.huge_pages = vec![pool(0)];
        assert_eq!(huge_pages(&facts).verdict, Verdict::Lack);
        facts.memory.huge_pages.push(pool(1));
        let item = huge_pages(&facts);
        assert_eq!(item.verdict, Verdict::Ok);
        assert_eq!(item.fact, "2 MiB: 0 of 4 free; 2 MiB: 1 of 4 free");
    }

    #[test]
    fn a_block_without_address_lacks_what_shows_it() {
        let mut facts = board();
        let made = |kind, address| Allocation {
            kind,
            block: Some(Block {
                address,
                address_source: Some("pagemap".into()),
                extents: 2,
                address_unknown: address.is_none().then(|| "hidden".into()),
                is_pinned: true,
                ..Block::default()
            }),
            ..Allocation::default()
        };
        facts.allocations = vec![
            made("normal", Some(0x5000)),
            made("udmabuf", None),
            made("cma", None),
            made("system", None),
            made("auto", None),
        ];
        let items = allocations(&facts);
        assert_eq!(items.len(), 4);
        assert_eq!(items[0].fact, "at 0x5000 (pagemap), in 2 pieces, pinned");
        assert!(items[1].remedy.as_ref().unwrap().contains("+sys_admin"));
        assert!(items[2].remedy.is_some());
        assert_eq!(items[3].verdict, Verdict::Ok);
    }

    #[test]
    fn a_kind_that_cannot_be_had_has_the_remedy_of_its_place() {
        let mut facts = board();
        let refused = |kind| Allocation {
            kind,
            error: Some("refused".into()),
            block: None,
        };
        facts.allocations = ["cma", "system", "udmabuf", "hugepage"].map(refused).into();
        facts.memory.heaps[0].node.may_open = false;
        let items = allocations(&facts);
        // The system heap is there, and nobody's by default.
        assert_eq!((items[1].verdict, &items[1].remedy), (Verdict::Ok, &None));
        facts.memory.heaps.pop();
        for item in allocations(&facts) {
            assert_eq!(item.verdict, Verdict::Lack);
            assert!(item.remedy.is_some(), "{item:?}");
        }
    }
}
