// SPDX-License-Identifier: MPL-2.0
//! Which buffers the frames are written to: downstream's, where they can be,
//! else a pool of our own.

use crate::{layout::Layout, pool::PhysBufferPool};
use gst::prelude::*;

/// Buffers to have at least, so that one can be filled while another is used.
const LEAST_BUFFERS: u32 = 2;

/// The pool for the answer to an ALLOCATION query, and the size and numbers that it
/// was configured with.
#[derive(Debug)]
pub struct Answer {
    pool: gst::BufferPool,
    size: u32,
    min: u32,
    max: u32,
}

/// A pool of our own.
#[derive(Debug)]
pub struct OwnPool {
    answer: Answer,
    made_for: Needs,
}

/// What a pool of our own is made for.
#[derive(Debug, PartialEq)]
struct Needs {
    caps: gst::Caps,
    size: u32,
    min: u32,
    max: u32,
    takes_padding: bool,
}

/// Whose buffers the frames are written to.
#[derive(Debug)]
pub enum Decision {
    /// Downstream's, from a pool that is not active yet.
    Downstream(Answer),
    /// Our own.
    OwnPool(OwnPool),
}

impl Decision {
    /// Puts the pool into the query.
    pub fn answer(&self, query: &mut gst::query::Allocation) {
        let (Self::Downstream(answer) | Self::OwnPool(OwnPool { answer, .. })) = self;
        let Answer {
            pool,
            size,
            min,
            max,
        } = answer;
        if query.allocation_pools().next().is_some() {
            query.set_nth_allocation_pool(0, Some(pool), *size, *min, *max);
        } else {
            query.add_allocation_pool(Some(pool), *size, *min, *max);
        }
    }
}

/// Whether downstream has memory of its own that frames should land in, and not
/// just the pool that any element can make.
pub fn has_special_memory(query: &gst::query::Allocation) -> bool {
    let is_stock = |pool: &gst::BufferPool| {
        let config = pool.config();
        let allocator = config.allocator().and_then(|(allocator, _)| allocator);
        let stock_pools = [
            gst_video::VideoBufferPool::static_type(),
            gst::BufferPool::static_type(),
        ];
        stock_pools.contains(&pool.type_()) && is_system(allocator.as_ref())
    };
    let mut pools = query.allocation_pools().filter_map(|(pool, ..)| pool);
    let mut allocators = query.allocation_params();
    !pools.all(|pool| is_stock(&pool))
        || !allocators.all(|(allocator, _)| is_system(allocator.as_ref()))
}

fn is_system(allocator: Option<&gst::Allocator>) -> bool {
    allocator.is_none_or(|allocator| allocator.memory_type() == "SystemMemory")
}

/// No pool is needed.
pub fn decline(query: &mut gst::query::Allocation) {
    while query.allocation_pools().next().is_some() {
        query.remove_nth_allocation_pool(0);
    }
}

/// Takes downstream's pool if it can serve, else [`own_pool`], or the one of the
/// decision before if that would be made the same. `depth` is the number of buffers
/// that are filled at the same time; `element` says so if there is no memory for them.
pub fn decide(
    query: &gst::query::Allocation,
    depth: usize,
    before: Option<OwnPool>,
    element: &gst::Element,
) -> Result<Decision, gst::LoggableError> {
    let (caps, _) = query.get_owned();
    let caps = caps.ok_or_else(|| gst::loggable_error!(super::CAT, "no caps in the query"))?;
    let info = gst_video::VideoInfo::from_caps(&caps)?;
    // Downstream that does not look at the meta would misread a padded buffer.
    let takes_padding = query
        .find_allocation_meta::<gst_video::VideoMeta>()
        .is_some();
    let least_size = u32::try_from(info.size())
        .map_err(|_| gst::loggable_error!(super::CAT, "frames of {} bytes", info.size()))?;
    let mut limits = (least_size, 0, 0);
    for (pool, size, min, max) in query.allocation_pools() {
        limits = (size.max(least_size), min, max);
        let Some(pool) = pool else { continue };
        match configure(&pool, &caps, limits, takes_padding, None) {
            Ok((size, min, max)) => {
                if !takes_padding && gives_padding(&pool, &info) {
                    gst::info!(
                        super::CAT,
                        "passing over {}: its buffers are padded and downstream does not know GstVideoMeta",
                        pool.name()
                    );
                    continue;
                }
                return Ok(Decision::Downstream(Answer {
                    pool,
                    size,
                    min,
                    max,
                }));
            }
            Err(error) => gst::info!(super::CAT, "passing over {}: {error}", pool.name()),
        }
    }
    let (_, min, max) = limits;
    // Room for what is in flight beside what downstream keeps.
    let in_flight = u32::try_from(depth).unwrap_or(u32::MAX);
    let min = min.saturating_add(in_flight).max(LEAST_BUFFERS);
    let max = if max == 0 { 0 } else { max.max(min) };
    let made_for = Needs {
        caps: caps.clone(),
        size: least_size,
        min,
        max,
        takes_padding,
    };
    let allocator = query.allocation_params().next();
    match before {
        Some(own) if allocator.is_none() && own.made_for == made_for => {
            return Ok(Decision::OwnPool(own));
        }
        _ => {}
    }
    let pool = own_pool(
        allocator
            .as_ref()
            .and_then(|(allocator, _)| allocator.as_ref()),
        element,
    );
    let (size, min, max) = configure(
        &pool,
        &caps,
        (least_size, min, max),
        takes_padding,
        allocator,
    )?;
    Ok(Decision::OwnPool(OwnPool {
        answer: Answer {
            pool,
            size,
            min,
            max,
        },
        made_for,
    }))
}

/// Whether the pool's buffers are not laid out as the caps alone say. Options
/// set by whoever proposed it do not show in the answer to ours, so that a
/// buffer is looked at.
fn gives_padding(pool: &gst::BufferPool, info: &gst_video::VideoInfo) -> bool {
    let params = gst::BufferPoolAcquireParams::with_flags(gst::BufferPoolAcquireFlags::DONTWAIT);
    if pool.set_active(true).is_err() {
        return false;
    }
    let stock = Layout::of_info(info);
    let padded = pool.acquire_buffer(Some(&params)).is_ok_and(|buffer| {
        Layout::of_buffer(info, &buffer).is_ok_and(|layout| layout.planes() != stock.planes())
    });
    if padded && let Err(error) = pool.set_active(false) {
        gst::warning!(super::CAT, "{}: {error}", pool.name());
    }
    padded
}

/// The pool for when downstream has none: of downstream's own memory, if it
/// offers that, else of the best that this machine has.
fn own_pool(allocator: Option<&gst::Allocator>, element: &gst::Element) -> gst::BufferPool {
    if allocator.is_some() {
        return gst_video::VideoBufferPool::new().upcast();
    }
    let pool = PhysBufferPool::builder().build();
    pool.set_offered_by(Some(element));
    pool.upcast()
}

/// Returns the size and numbers that the pool agreed to.
fn configure(
    pool: &gst::BufferPool,
    caps: &gst::Caps,
    (size, min, max): (u32, u32, u32),
    takes_padding: bool,
    allocator: Option<(Option<gst::Allocator>, gst::AllocationParams)>,
) -> Result<(u32, u32, u32), gst::glib::BoolError> {
    let video_meta: &str = gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_ref();
    let mut config = pool.config();
    config.set_params(Some(caps), size, min, max);
    if takes_padding && pool.has_option(video_meta) {
        config.add_option(video_meta);
    }
    if let Some((allocator, params)) = &allocator {
        config.set_allocator(allocator.as_ref(), Some(params));
    }
    if pool.set_config(config).is_err() {
        // The pool has put into its config what it can do instead.
        let config = pool.config();
        config.validate_params(Some(caps), size, min, 0)?;
        if config.has_option(video_meta) && !takes_padding {
            return Err(gst::glib::bool_error!(
                "its buffers are padded and downstream does not know GstVideoMeta"
            ));
        }
        pool.set_config(config)?;
    }
    let (_, size, min, max) = pool
        .config()
        .params()
        .ok_or_else(|| gst::glib::bool_error!("its config has no parameters"))?;
    Ok((size, min, max))
}
