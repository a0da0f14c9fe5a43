// SPDX-License-Identifier: MPL-2.0
//! Chooses the pool whose buffers the frames are written to: downstream's if it can be used,
//! else one of this element.

use crate::{
    foreign,
    layout::Layout,
    pool::{Builder, PhysBufferPool},
};
use gst::prelude::*;

/// The least number of buffers in the own pool: one is filled while another is used.
const LEAST_BUFFERS: u32 = 2;

/// The pool for the answer to an ALLOCATION query, with the size and the numbers of buffers
/// that it agreed to.
#[derive(Debug)]
pub struct Answer {
    pool: gst::BufferPool,
    size: u32,
    min: u32,
    max: u32,
}

/// The element's own pool.
#[derive(Debug)]
pub struct OwnPool {
    answer: Answer,
    made_for: Needs,
}

/// What the element's own pool was made for. It is kept until this changes.
#[derive(Debug, PartialEq)]
struct Needs {
    caps: gst::Caps,
    size: u32,
    min: u32,
    max: u32,
    takes_padding: bool,
    wanted: Option<Builder>,
}

/// Whose pool the frames are written to.
#[derive(Debug)]
pub enum Decision {
    Downstream(Answer),
    OwnPool(OwnPool),
}

impl Decision {
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

/// Whether downstream offers memory of its own: a pool of another type than GStreamer's, or an
/// allocator of other than system memory.
pub fn has_special_memory(query: &gst::query::Allocation) -> bool {
    let is_stock = |pool: &gst::BufferPool| {
        let config = pool.config();
        let allocator = config.allocator().and_then(|(allocator, _)| allocator);
        let stock_pools = [
            gst_video::VideoBufferPool::static_type(),
            gst::BufferPool::static_type(),
        ];
        stock_pools.contains(&pool.type_()) && foreign::is_system(allocator.as_ref())
    };
    let mut pools = query.allocation_pools().filter_map(|(pool, ..)| pool);
    let mut allocators = query.allocation_params();
    !pools.all(|pool| is_stock(&pool))
        || !allocators.all(|(allocator, _)| foreign::is_system(allocator.as_ref()))
}

/// Takes all pools out of the query, because none is needed.
pub fn decline(query: &mut gst::query::Allocation) {
    while query.allocation_pools().next().is_some() {
        query.remove_nth_allocation_pool(0);
    }
}

/// Takes downstream's pool if it can be used, else the own pool of the decision `before` if
/// nothing has changed, else a new one. With `wanted` it is an own pool of that memory in any case.
/// `depth` is the number of buffers that are filled at the same time. If there is no memory for the
/// own pool, `element` posts the error.
pub fn decide(
    query: &gst::query::Allocation,
    depth: usize,
    before: Option<OwnPool>,
    wanted: Option<Builder>,
    element: &gst::Element,
) -> Result<Decision, gst::LoggableError> {
    let (caps, _) = query.get_owned();
    let caps = caps.ok_or_else(|| gst::loggable_error!(super::CAT, "no caps in the query"))?;
    let info = gst_video::VideoInfo::from_caps(&caps)?;
    // An element that does not read GstVideoMeta would misread a padded buffer.
    let takes_padding = query
        .find_allocation_meta::<gst_video::VideoMeta>()
        .is_some();
    let least_size = u32::try_from(info.size())
        .map_err(|_| gst::loggable_error!(super::CAT, "frames of {} bytes", info.size()))?;
    let mut limits = (least_size, 0, 0);
    for (pool, size, min, max) in query.allocation_pools() {
        limits = (size.max(least_size), min, max);
        let Some(pool) = pool.filter(|_| wanted.is_none()) else {
            continue;
        };
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
    // The frames in flight need buffers in addition to those that downstream keeps.
    let in_flight = u32::try_from(depth).unwrap_or(u32::MAX);
    let min = min.saturating_add(in_flight).max(LEAST_BUFFERS);
    let max = if max == 0 { 0 } else { max.max(min) };
    let made_for = Needs {
        caps: caps.clone(),
        size: least_size,
        min,
        max,
        takes_padding,
        wanted,
    };
    let allocator = query
        .allocation_params()
        .next()
        .filter(|_| made_for.wanted.is_none());
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
        made_for.wanted.as_ref(),
        element,
    );
    let (size, min, max) = configure(
        &pool,
        &caps,
        (least_size, min, max),
        takes_padding,
        allocator,
    )
    .inspect_err(|error| {
        // The pool that the user asked for, and not what downstream takes, is at fault.
        if pool.is::<PhysBufferPool>() {
            let reason: Option<String> = pool.property("last-error");
            let reason = reason.unwrap_or_else(|| error.to_string());
            gst::element_error!(element, gst::ResourceError::Settings, ("{reason}"));
        }
    })?;
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

/// Whether the pool's buffers are laid out differently from what the caps alone say. The
/// config that this element sets does not show the options that downstream has set, so a
/// buffer is acquired and examined.
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

/// A new pool: of the memory of downstream's allocator if there is one, else of the memory that the
/// user asked for, else of the best kind of memory that this machine has.
fn own_pool(
    allocator: Option<&gst::Allocator>,
    wanted: Option<&Builder>,
    element: &gst::Element,
) -> gst::BufferPool {
    if allocator.is_some() {
        return gst_video::VideoBufferPool::new().upcast();
    }
    let pool = wanted.cloned().unwrap_or_default().build();
    pool.set_offered_by(Some(element));
    pool.upcast()
}

/// Configures the pool, and returns the size and the numbers of buffers that it agreed to.
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
        // The pool has changed its config to what it can do instead.
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
