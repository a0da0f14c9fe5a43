// SPDX-License-Identifier: MPL-2.0
//! The pool that upstream is offered, of the first kind of memory that the card can show.

use super::Stream;
use super::plan::{DisplayOptions, Scanout, fb_shape};
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::copies;
use crate::kmsflipsink::format;
use crate::kmsflipsink::head::is_about_us;
use crate::layout::Layout;
use crate::memory::{MemoryKind, Region, Request};
use crate::pool::{PhysBufferPool, Reuse, Slots};
use crate::sys;

/// The answer to an ALLOCATION query.
#[derive(Debug)]
pub struct Proposal {
    pub pool: PhysBufferPool,
    /// Bytes in a buffer.
    pub size_bytes: u32,
    /// The fewest buffers that keep the stream going.
    pub min: u32,
    /// The most buffers that the pool can have; 0 means any number.
    pub max: u32,
    /// The kind of memory that upstream may also allocate without the pool.
    pub allocator: Option<MemoryKind>,
}

/// The pending, the queued and the current frame, and one that upstream fills.
const MIN_BUFFERS: u32 = 4;
/// Buffers in a pool over memory that is allocated beforehand.
const N_OFFERED: u32 = 8;

impl Stream {
    /// The pool to offer upstream, or why there is none to offer.
    pub fn pool(&self, options: &DisplayOptions) -> Result<Proposal, String> {
        if self.caps.dma_drm.is_some() {
            return Err("DMA_DRM caps mean that upstream has memory of its own".into());
        }
        if self.caps.fields.is_some() {
            return Err("two fields are copied into one frame anyway".into());
        }
        if matches!(self.plan.choice, Scanout::Composed(_)) {
            return Err("frames are copied anyway".into());
        }
        let mut refusals = Vec::new();
        for &kind in options.offered.choices() {
            let offered = kind.map_or_else(|| self.dumb_pool(), |kind| self.heap_pool(kind));
            let name = kind.map_or("dumb buffers".to_owned(), |kind| format!("{kind} memory"));
            match offered {
                Ok(pool) => {
                    let why = if refusals.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", refusals.join("; "))
                    };
                    gst::info!(CAT, "offering {name}{why}");
                    let allocator = kind.filter(|_| self.is_packed());
                    return Ok(Proposal {
                        pool,
                        size_bytes: self.plan.layout.size_bytes as u32,
                        min: MIN_BUFFERS,
                        max: if allocator.is_some() { 0 } else { N_OFFERED },
                        allocator,
                    });
                }
                Err(error) => refusals.push(format!("no {name}: {error}")),
            }
        }
        Err(refusals.join("; "))
    }

    /// Whether the driver's layout is GStreamer's default for the caps.
    fn is_packed(&self) -> bool {
        self.plan.layout.planes() == Layout::of_info(&self.caps.info).planes()
    }

    /// A pool of heap memory, if the driver imports a first block of it and agrees to show it.
    fn heap_pool(&self, kind: MemoryKind) -> Result<PhysBufferPool, String> {
        if !self.head.device.can_import {
            return Err("the driver imports no dma-bufs".into());
        }
        let request = Request {
            kind,
            size_bytes: self.plan.layout.size_bytes,
            needs_dma_buf: true,
            ..Request::default()
        };
        let first = Region::allocate(&request).map_err(|error| error.to_string())?;
        self.try_region(&first)?;
        if self.is_packed() {
            drop(first);
            return Ok(PhysBufferPool::builder()
                .kind(kind)
                .require_dma_buf(true)
                .build());
        }
        let mut regions = vec![first];
        while regions.len() < N_OFFERED as usize {
            regions.push(Region::allocate(&request).map_err(|error| error.to_string())?);
        }
        Ok(PhysBufferPool::over(
            &Slots::new(regions, Reuse::LeastRecent),
            Some(self.plan.layout),
        ))
    }

    fn try_region(&self, region: &Region) -> Result<(), String> {
        let fd = region.dma_buf().ok_or("it has no dma-buf")?;
        let shape = fb_shape(&self.caps.info, self.fourcc, &self.plan.layout);
        let fds = vec![fd; shape.n_planes];
        let framebuffer = self
            .head
            .device
            .import(&shape, &fds)
            .map_err(|error| format!("import: {}", sys::describe(&error)))?;
        match self.plan.choice {
            Scanout::Direct(placement) => match self.head.test(&framebuffer, &placement, None) {
                Err(error) if !is_about_us(&error) => {
                    Err(format!("showing it: {}", sys::describe(&error)))
                }
                _ => Ok(()),
            },
            Scanout::Composed(_) | Scanout::Nowhere => Ok(()),
        }
    }

    fn dumb_pool(&self) -> Result<PhysBufferPool, String> {
        let shape = fb_shape(&self.caps.info, self.fourcc, &self.plan.layout);
        let dumb_shape = format::dumb_shape(&self.caps.info);
        let mut regions = Vec::new();
        for _ in 0..N_OFFERED {
            let dumb = copies::allocate(&self.head.device, &dumb_shape, &shape, true)
                .map_err(|error| sys::describe(&error))?;
            let gone = self.context.lock().offered.add(&dumb);
            drop(gone);
            regions.push(dumb.region);
        }
        Ok(PhysBufferPool::over(
            &Slots::new(regions, Reuse::LeastRecent),
            Some(self.plan.layout),
        ))
    }
}
