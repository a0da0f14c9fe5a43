// SPDX-License-Identifier: MPL-2.0
//! The fb_pages as memory: their regions with the physical address, and the one that is on the screen at the start.

use std::sync::Arc;

use gst::prelude::*;

use super::CAT;
use super::address;
use super::error::ScreenError;
use super::screen::Screen;
use crate::memory::{AddressUnknown, ExternalAddress, Owner, Region};
use crate::pool::{PhysBufferPool, Slots, Wait};

/// One region for each fb_page, and the physical address of all with its source, or why it is not known, as text.
pub fn regions(screen: &Screen) -> (Vec<Arc<Region>>, Result<String, String>) {
    let (memory, page_bytes) = (screen.memory(), screen.fb_page_bytes());
    let start = screen.fb_page_offset_bytes(0);
    let spare = (0..screen.fb_pages())
        .rev()
        .find(|page| Some(*page) != screen.visible_fb_page());
    let found = address::find(
        memory,
        screen.fix().smem_start_u64(),
        u64::from(screen.fix().smem_len),
        start,
        spare.map(|page| screen.fb_page_offset_bytes(page)),
    );
    let regions = (0..screen.fb_pages())
        .map(|page| {
            let address = match &found {
                Ok(all) => all
                    .slice((page * page_bytes) as u64, page_bytes as u64)
                    .map_or(
                        ExternalAddress::Unknown(AddressUnknown::NotGiven),
                        ExternalAddress::Given,
                    ),
                Err(unknown) => ExternalAddress::Unknown(unknown.kind.clone()),
            };
            let offset = screen.fb_page_offset_bytes(page);
            // SAFETY: the page lies inside the mapping, because `Mode` made sure that fb_pages * page_bytes
            // <= smem_len, and the mapping has start + smem_len bytes. The region holds the mapping.
            unsafe {
                let ptr = memory.ptr().add(offset);
                Region::external(
                    ptr,
                    page_bytes,
                    address,
                    Owner::Shared(memory.clone()),
                    None,
                )
            }
        })
        .collect();
    let address = found
        .map(|all| format!("{} ({})", address::describe(&all), all.source()))
        .map_err(|unknown| unknown.reason);
    gst::debug!(CAT, "physical address: {address:?}");
    (regions, address)
}

/// Acquires the fb_page that is on screen, so that upstream cannot write into it before another one is shown.
pub fn take(slots: &Slots, fb_page: usize, page_bytes: usize) -> Result<gst::Buffer, ScreenError> {
    let failed = |e: &dyn std::fmt::Display| ScreenError::Pool(e.to_string());
    let pool = PhysBufferPool::over(slots, None);
    let mut config = pool.config();
    let size = u32::try_from(page_bytes).map_err(|e| failed(&e))?;
    config.set_params(None, size, 0, 0);
    pool.set_config(config).map_err(|e| failed(&e))?;
    pool.set_active(true).map_err(|e| failed(&e))?;
    let all: Vec<gst::Buffer> = (0..slots.total())
        .map_while(|_| pool.acquire_free(Wait::No).ok())
        .collect();
    let holder = all
        .into_iter()
        .find(|buffer| slots.index_of(buffer) == Some(fb_page));
    pool.set_active(false).map_err(|e| failed(&e))?;
    holder.ok_or_else(|| failed(&"the fb_page on screen is not among them"))
}

pub fn fb_pages(n: usize) -> String {
    if n == 1 {
        "one fb_page".into()
    } else {
        format!("{n} fb_pages")
    }
}
