// SPDX-License-Identifier: MPL-2.0
//! The pool through its public API and through plain GstBufferPool, with memory that every machine
//! has.

mod acquire;
mod config;
mod description;
mod shared_pages;
mod verbs;

#[path = "../common/mod.rs"]
mod common;

use std::ptr::NonNull;
use std::sync::Arc;

use gst::prelude::*;
use gstphysmem::memory::{AddressUnknown, ExternalAddress, MemoryKind, Owner, Region};
use gstphysmem::meta::PhysMemMeta;
use gstphysmem::pool::PhysBufferPool;

fn active_pool(size: u32, min: u32, max: u32) -> PhysBufferPool {
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    configure(&pool, None, size, min, max);
    pool.set_active(true).unwrap();
    pool
}

fn configure(pool: &PhysBufferPool, caps: Option<&gst::Caps>, size: u32, min: u32, max: u32) {
    let mut config = pool.config();
    config.set_params(caps, size, min, max);
    pool.set_config(config).unwrap();
}

fn id(buffer: &gst::BufferRef) -> u32 {
    buffer.meta::<PhysMemMeta>().unwrap().id()
}

fn dont_wait() -> gst::BufferPoolAcquireParams {
    gst::BufferPoolAcquireParams::with_flags(gst::BufferPoolAcquireFlags::DONTWAIT)
}

fn bgrx_info(width: u32, height: u32) -> gst_video::VideoInfo {
    gst_video::VideoInfo::builder(gst_video::VideoFormat::Bgrx, width, height)
        .build()
        .unwrap()
}

fn bgrx(width: u32, height: u32) -> gst::Caps {
    bgrx_info(width, height).to_caps().unwrap()
}

/// `count` leaked blocks as regions, as the pages of a device would be.
fn pages(count: usize, size: usize) -> Vec<Arc<Region>> {
    (0..count)
        .map(|_| {
            let block: &'static mut [u8] = Box::leak(vec![0; size].into_boxed_slice());
            let ptr = NonNull::new(block.as_mut_ptr()).unwrap();
            // SAFETY: leaked, so mapped for ever.
            unsafe {
                Region::external(
                    ptr,
                    size,
                    ExternalAddress::Unknown(AddressUnknown::NotGiven),
                    Owner::Forever,
                    None,
                )
            }
        })
        .collect()
}

fn waits(pool: &PhysBufferPool) -> u64 {
    let stats = pool.property::<gst::Structure>("stats");
    stats.get("waits").unwrap()
}
