// SPDX-License-Identifier: MPL-2.0
//! The pool for copies, and the pool that upstream is offered: downstream's if it is a
//! [`PhysBufferPool`], else one of the element's own.

use gst::prelude::*;

use super::CAT;
use crate::{
    address::PhysAddr,
    memory::{self, MemoryError, MemoryKind},
    meta::PhysMemMeta,
    pool::PhysBufferPool,
};

/// Least size in bytes of the buffers of a stream that has no frames.
const LEAST_BYTES: usize = 4096;

/// The memory that the element's properties ask for.
#[derive(Debug, Clone, Default)]
pub(super) struct WantedMemory {
    pub kind: MemoryKind,
    pub heap: Option<String>,
    /// Highest physical address that the memory may have; 0 for any.
    pub max_address: u64,
    /// Size in bytes of the buffers offered to upstream for streams that have no frames.
    pub buffer_size: u32,
    pub withhold_address: bool,
}

/// How upstream's ALLOCATION query was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum OfferOutcome {
    /// There was no query.
    #[default]
    NotAsked,
    /// The query asked for no pool.
    NotWanted,
    /// Neither the caps nor `buffer-size` say how large buffers are to be.
    NoSize,
    /// No pool of such memory could be made.
    None,
    Made,
}

impl WantedMemory {
    fn pool(&self) -> PhysBufferPool {
        let builder = PhysBufferPool::builder()
            .kind(self.kind)
            .max_address(PhysAddr(self.max_address))
            .withhold_address(self.withhold_address);
        match &self.heap {
            Some(heap) => builder.heap(heap).build(),
            None => builder.build(),
        }
    }

    /// Whether the whole buffer is in memory as wanted, so that it passes without a copy.
    pub fn is_met_by(&self, buffer: &gst::BufferRef) -> bool {
        if buffer.n_memory() != 1 {
            return false;
        }
        let meta;
        let (kind, heap, is_external, address) = match memory::region_of(buffer.peek_memory(0)) {
            Some((region, _)) => {
                let address = region.address().ok();
                (region.kind(), region.heap(), region.is_external(), address)
            }
            // For a buffer of another copy of this library the meta says as much.
            None => {
                meta = buffer.meta::<PhysMemMeta>();
                match &meta {
                    Some(meta) if meta.is_of_other_copy() => {
                        let address = meta.address().ok();
                        (meta.kind(), meta.heap(), meta.is_external(), address)
                    }
                    _ => return false,
                }
            }
        };
        let right_kind = self.kind == MemoryKind::Auto || self.kind == kind;
        // The property `heap` does not concern the kinds that auto falls back to.
        let is_fallback = self.kind == MemoryKind::Auto && kind != MemoryKind::Cma;
        let right_heap = self.heap.is_none() || is_fallback || self.heap.as_deref() == heap;
        let right_address = self.max_address == 0
            || address.is_some_and(|address| address.last_byte().0 <= self.max_address);
        right_address && (is_external || right_kind && right_heap)
    }

    /// Why a buffer is copied although it is in memory of this library; `None` if its memory is of another
    /// allocator.
    pub fn why_unmet_by(&self, buffer: &gst::BufferRef) -> Option<String> {
        if buffer.n_memory() != 1 {
            return None;
        }
        let (region, _) = memory::region_of(buffer.peek_memory(0))?;
        let (kind, heap) = (region.kind(), region.heap());
        let has_limit = self.max_address != 0;
        let words = match region.address() {
            _ if self.kind != MemoryKind::Auto && self.kind != kind && !region.is_external() => {
                format!(
                    "upstream writes into memory of kind {kind}, and kind={} asks for another; leave kind at auto \
                 before a sink of this plugin, whose own memory is shown without a copy",
                    self.kind
                )
            }
            Ok(address) if has_limit && address.last_byte().0 > self.max_address => format!(
                "upstream writes into memory that reaches up to {}, above max-address; have upstream use \
                 memory below it",
                address.last_byte()
            ),
            Err(reason) if has_limit => format!(
                "upstream writes into memory of which nobody knows whether it is below max-address: {reason}"
            ),
            _ => format!(
                "upstream writes into memory of heap {}, and heap={} asks for another; leave heap unset before \
                 a sink of this plugin, whose own memory is shown without a copy",
                heap.unwrap_or("(none)"),
                self.heap.as_deref().unwrap_or("(none)")
            ),
        };
        Some(words)
    }

    /// The pool that downstream offers, if it is one of ours. It is taken whatever kind was asked
    /// for, because it may be made of a display's pages.
    fn offered(query: &gst::query::Allocation) -> Option<PhysBufferPool> {
        query
            .allocation_pools()
            .find_map(|(pool, ..)| pool?.downcast().ok())
    }

    /// Completes downstream's answer to upstream's ALLOCATION query. Memory that cannot be
    /// allocated is not offered: the first copy then fails and says why. If there turns out to be
    /// too little of it for upstream, `element` posts an error.
    pub fn offer(
        &self,
        query: &mut gst::query::Allocation,
        caps: Option<&gst::Caps>,
        need_pool: bool,
        element: &gst::Element,
    ) -> OfferOutcome {
        if Self::offered(query).is_some() {
            return OfferOutcome::Made;
        }
        while query.allocation_pools().next().is_some() {
            query.remove_nth_allocation_pool(0);
        }
        while query.allocation_params().next().is_some() {
            query.remove_nth_allocation_param(0);
        }
        let info = caps.and_then(video_info);
        let size = match &info {
            Some(info) => u32::try_from(info.size()).unwrap_or(0),
            None => self.buffer_size,
        };
        let offer = match (need_pool, size) {
            (false, _) => OfferOutcome::NotWanted,
            (true, 0) => OfferOutcome::NoSize,
            (true, _) => OfferOutcome::Made,
        };
        if offer == OfferOutcome::Made {
            let pool = self.pool();
            let mut config = pool.config();
            config.set_params(caps, size, 0, 0);
            let tried = pool.set_config(config).map_err(|error| error.to_string());
            let tried = tried.and_then(|()| pool.allocate_ahead().map_err(|e| e.to_string()));
            if let Err(reason) = tried {
                gst::warning!(CAT, "upstream is offered no memory: {reason}");
                return OfferOutcome::None;
            }
            pool.set_offered_by(Some(element));
            query.add_allocation_pool(Some(&pool), size, 0, 0);
        }
        if info.is_some() {
            // Streams without frames are not offered the allocator: upstream would allocate a block
            // for each buffer, which costs more than the copy.
            query.add_allocation_param(Some(memory::allocator(self.kind)), Default::default());
        }
        offer
    }
}

/// The layout of `video/x-raw` caps; `None` for all other caps.
pub(super) fn video_info(caps: &gst::Caps) -> Option<gst_video::VideoInfo> {
    if caps.structure(0)?.name() != "video/x-raw" {
        return None;
    }
    gst_video::VideoInfo::from_caps(caps).ok()
}

/// Whether a map of such buffers gives the bytes that the caps describe; a map of GPU memory does
/// not.
pub(super) fn is_mappable(caps: &gst::Caps) -> bool {
    // Other features, such as format:Interlaced and metas, say nothing of the memory.
    let is_other_memory = |feature: &str| {
        feature.starts_with("memory:") && feature != gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY.as_str()
    };
    let features = caps.features(0).into_iter().flatten();
    !features.map(|f| f.as_str()).any(is_other_memory)
}

/// An active pool to copy into.
pub(super) struct CopyPool {
    pub pool: PhysBufferPool,
    pub size_bytes: usize,
}

impl CopyPool {
    /// Asks downstream for a pool, and makes one if downstream has none that can be used.
    pub fn find(
        wanted: &WantedMemory,
        src_pad: &gst::Pad,
        caps: Option<&gst::Caps>,
        least_bytes: usize,
    ) -> Result<Self, gst::ErrorMessage> {
        let info = caps.and_then(video_info);
        let size_bytes = match &info {
            Some(info) => info.size(),
            None => least_bytes
                .next_power_of_two()
                .max(wanted.buffer_size as usize)
                .max(LEAST_BYTES),
        };
        let mut query = gst::query::Allocation::new(caps, true);
        let answered = src_pad.peer_query(&mut query);
        let takes_video_meta = answered
            && info.is_some()
            && query
                .find_allocation_meta::<gst_video::VideoMeta>()
                .is_some();
        if answered && let Some(pool) = WantedMemory::offered(&query) {
            // If this pool fails, the element's own is used, so that no error is posted.
            pool.set_offered_by(None);
            let started = configure(&pool, caps, size_bytes, takes_video_meta)
                .and_then(|()| start(&pool, size_bytes));
            match started {
                Ok(target) => return Ok(target),
                Err(reason) => gst::info!(CAT, "not copying into {}: {reason}", pool.name()),
            }
        }
        let pool = wanted.pool();
        let failed = |reason: String| {
            gst::error_msg!(
                gst::ResourceError::Failed,
                ("no pool of kind {} to copy into: {reason}", wanted.kind)
            )
        };
        configure(&pool, caps, size_bytes, takes_video_meta).map_err(failed)?;
        // Activation would report a lack of memory only in words, without the error's code.
        pool.allocate_ahead()
            .map_err(|error| error_message(wanted.kind, &error))?;
        start(&pool, size_bytes).map_err(failed)
    }
}

impl Drop for CopyPool {
    fn drop(&mut self) {
        // Buffers that are still out come back to the pool later, and are freed then.
        if let Err(error) = self.pool.set_active(false) {
            gst::warning!(CAT, "{}: {error}", self.pool.name());
        }
    }
}

/// The error that there is no memory, with the code that fits its cause.
fn error_message(kind: MemoryKind, error: &MemoryError) -> gst::ErrorMessage {
    use gst::ResourceError::*;
    let code = match error {
        MemoryError::Refused { source, .. } => match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => NotAuthorized,
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => NotFound,
            _ => NoSpaceLeft,
        },
        MemoryError::NoHeap { .. } | MemoryError::NoSuchHeap { .. } => NotFound,
        MemoryError::TooLarge { .. } => NoSpaceLeft,
        MemoryError::NoKind(_) => Failed,
        _ => Settings,
    };
    gst::error_msg!(code, ("no memory of kind {kind} to copy into: {error}"))
}

fn last_error(pool: &PhysBufferPool, error: gst::glib::BoolError) -> String {
    pool.last_error().unwrap_or(error.to_string())
}

fn configure(
    pool: &PhysBufferPool,
    caps: Option<&gst::Caps>,
    size_bytes: usize,
    takes_video_meta: bool,
) -> Result<(), String> {
    let size = u32::try_from(size_bytes).map_err(|_| format!("{size_bytes} bytes are too many"))?;
    let mut config = pool.config();
    config.set_params(caps, size, 0, 0);
    if takes_video_meta {
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
    }
    pool.set_config(config)
        .map_err(|error| last_error(pool, error))
}

fn start(pool: &PhysBufferPool, size_bytes: usize) -> Result<CopyPool, String> {
    pool.set_active(true)
        .map_err(|error| last_error(pool, error))?;
    Ok(CopyPool {
        pool: pool.clone(),
        size_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer of a block of kind normal.
    fn normal_buffer() -> gst::Buffer {
        let request = memory::Request {
            kind: MemoryKind::Normal,
            size_bytes: 4096,
            ..Default::default()
        };
        let region = memory::Region::allocate(&request).unwrap();
        let mut buffer = gst::Buffer::new();
        let wrapped = memory::wrap(&region, 0, 4096, None);
        buffer.get_mut().unwrap().append_memory(wrapped);
        buffer
    }

    #[test]
    fn why_memory_of_this_library_is_copied_is_said_with_a_remedy() {
        gst::init().unwrap();
        let buffer = normal_buffer();
        let other_kind = WantedMemory {
            kind: MemoryKind::Cma,
            ..Default::default()
        };
        assert!(!other_kind.is_met_by(&buffer));
        let words = other_kind.why_unmet_by(&buffer).unwrap();
        assert!(
            words.starts_with(
                "upstream writes into memory of kind normal, and kind=cma asks for another"
            ) && words.contains("leave kind at auto"),
            "{words}"
        );
        let other_heap = WantedMemory {
            kind: MemoryKind::Normal,
            heap: Some("reserved".into()),
            ..Default::default()
        };
        assert!(!other_heap.is_met_by(&buffer));
        let words = other_heap.why_unmet_by(&buffer).unwrap();
        assert!(words.contains("heap=reserved asks for another"), "{words}");
        // Whether or not this machine tells addresses, none is below 1.
        let below = WantedMemory {
            max_address: 1,
            ..Default::default()
        };
        assert!(!below.is_met_by(&buffer));
        let words = below.why_unmet_by(&buffer).unwrap();
        assert!(words.contains("max-address"), "{words}");
    }

    #[test]
    fn memory_of_other_allocators_has_a_reason_of_its_own() {
        gst::init().unwrap();
        let buffer = gst::Buffer::with_size(16).unwrap();
        let wanted = WantedMemory::default();
        assert!(!wanted.is_met_by(&buffer));
        assert_eq!(wanted.why_unmet_by(&buffer), None);
    }

    #[test]
    fn the_code_is_that_of_the_errno_and_the_headline_has_the_sentence() {
        gst::init().unwrap();
        for (errno, code) in [
            (libc::EACCES, gst::ResourceError::NotAuthorized),
            (libc::ENOENT, gst::ResourceError::NotFound),
            (libc::ENOMEM, gst::ResourceError::NoSpaceLeft),
        ] {
            let refused = MemoryError::Refused {
                object: "/dev/dma_heap/linux,cma".into(),
                source: std::io::Error::from_raw_os_error(errno),
                remedy: "do this".into(),
            };
            let element = gst::Bin::new();
            let bus = gst::Bus::new();
            element.set_bus(Some(&bus));
            element.post_error_message(error_message(MemoryKind::Cma, &refused));
            let message = bus.pop().unwrap();
            let gst::MessageView::Error(error) = message.view() else {
                panic!("{message:?}");
            };
            assert_eq!(error.error().kind(), Some(code));
            let headline = error.error().message().to_owned();
            assert!(
                headline.contains("/dev/dma_heap/linux,cma: ") && headline.ends_with("do this"),
                "{headline}"
            );
        }
    }
}
