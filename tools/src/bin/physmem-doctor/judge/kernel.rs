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
    vec![
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
    ]
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
    fn kernels_before_heaps_are_too_old() {
        assert_eq!(verdict("5.4.0"), Verdict::Lack);
        assert_eq!(verdict("5.10.0-rt"), Verdict::Ok);
        assert_eq!(verdict("6.1"), Verdict::Ok);
        assert_eq!(verdict("x"), Verdict::Unknown);
    }
}
