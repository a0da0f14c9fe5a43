// SPDX-License-Identifier: MPL-2.0
//! The kernel.

use super::size;
use crate::facts::Facts;
use crate::item::Item;

/// The first kernel with dma-heaps.
const OLDEST: (u32, u32) = (5, 6);

pub fn items(facts: &Facts) -> Vec<Item> {
    let kernel = &facts.kernel;
    let release = match (&kernel.release, kernel.version()) {
        (None, _) | (_, None) => {
            Item::unknown("kernel.release", "the kernel does not tell its release")
        }
        (Some(release), Some(version)) => {
            let fact = format!("Linux {release}, {}", kernel.architecture);
            match version < OLDEST {
                true => Item::lack(
                    "kernel.release",
                    format!("{fact}: dma-heaps came with 5.6"),
                    Some("a kernel of 5.6 or newer".to_owned()),
                ),
                false => Item::ok("kernel.release", fact),
            }
        }
    };
    let pages = |setting: &Option<String>| match setting {
        Some(setting) => setting.clone(),
        None => "not built in".to_owned(),
    };
    let mut items = vec![
        release,
        Item::ok(
            "kernel.pages",
            format!(
                "pages of {}; transparent huge pages: {}, for memfds: {}",
                size(kernel.page_bytes),
                pages(&kernel.transparent_huge_pages),
                pages(&kernel.transparent_huge_pages_in_shmem),
            ),
        ),
    ];
    items.extend(kernel.makes_large_pages.map(large_pages));
    items
}

fn large_pages(are_made: bool) -> Item {
    const KEY: &str = "kernel.large-pages";
    match are_made {
        true => Item::ok(
            KEY,
            "the kernel makes large pages on request (MADV_COLLAPSE): fewer pieces in kinds normal and udmabuf",
        ),
        false => Item::lack(
            KEY,
            "the kernel makes no large pages on request: kinds normal and udmabuf are in many pieces",
            Some("a kernel of 6.1 or newer with CONFIG_TRANSPARENT_HUGEPAGE=y".to_owned()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Verdict;

    fn verdict(release: &str) -> Verdict {
        let mut facts = Facts::default();
        facts.kernel.release = Some(release.into());
        items(&facts)[0].verdict
    }

    #[test]
    fn large_pages_are_judged_only_if_they_were_tried() {
        let mut facts = Facts::default();
        let verdict = |facts: &Facts| items(facts).get(2).map(|item| item.verdict);
        assert_eq!(verdict(&facts), None);
        facts.kernel.makes_large_pages = Some(true);
        assert_eq!(verdict(&facts), Some(Verdict::Ok));
        facts.kernel.makes_large_pages = Some(false);
        assert_eq!(verdict(&facts), Some(Verdict::Lack));
    }

    #[test]
    fn kernels_before_heaps_are_too_old() {
        assert_eq!(verdict("5.4.0"), Verdict::Lack);
        assert_eq!(verdict("5.10.0-rt"), Verdict::Ok);
        assert_eq!(verdict("6.1"), Verdict::Ok);
        assert_eq!(verdict("x"), Verdict::Unknown);
    }
}
