// SPDX-License-Identifier: MPL-2.0
//! Memory above 4 GiB on a machine with 32-bit pointers. Needs --arch armhf, a kernel with LPAE,
//! and --memory 6144.

use std::sync::Arc;

use gstphysmem::memory::{MemoryKind, Region};

use super::conformance::{assert_seen_from_outside, fill};
use super::{allocate, alone_in_the_lab, request};

const REGION_BYTES: usize = 8 << 20;
/// 3 GiB in all, which is more than is free below 4 GiB.
const REGIONS: u64 = 384;

#[test]
fn memory_above_four_gib_is_where_its_address_says() {
    let _alone = alone_in_the_lab();
    let mut held: Vec<Arc<Region>> = Vec::new();
    for seed in 1..=REGIONS {
        let region = allocate(&request(MemoryKind::Normal, REGION_BYTES));
        let address = region.address().expect("root may know it");
        println!("{} in {} extents", address.first(), address.extents().len());
        if address.extents().iter().any(|e| e.phys.0 >> 32 != 0) {
            fill(&region, seed);
            assert_seen_from_outside(&region, seed);
            return;
        }
        held.push(region);
    }
    panic!("all memory is below 4 GiB: --memory 6144, and a kernel with LPAE");
}
