// SPDX-License-Identifier: MPL-2.0
//! Framebuffers over the memory of incoming buffers, made once for each memory and kept until that memory
//! is freed.
//!
//! The number of an fd does not identify memory, because it is reused. A framebuffer therefore belongs to
//! the GstMemory of each colour plane. A GstMemory keeps its fd as long as it lives, and notifies its weak
//! references when it is freed. The framebuffer is used again only for the same memories in the same layout.
//! So a known framebuffer is found without a system call.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use gst::glib;

use super::device::Device;
use super::drm_dumb::Importable;
use super::format;
use super::frame_caps::FrameCaps;
use super::framebuffer::{FbShape, Framebuffer};
use crate::foreign::{self, ForeignError};
use crate::layout::{Layout, MAX_PLANES};
use crate::locks::Mutex;
use crate::sys::{self, dma_buf, sync_file};

/// Why a buffer cannot be shown without a copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotImportable {
    #[error("{0} memory is no dma-buf")]
    NoDmaBuf(String),
    #[error("the driver {0} imports no dma-bufs")]
    NoImport(String),
    /// The buffer's GstVideoMeta does not fit its memory.
    #[error("the frame's layout is wrong: {0}")]
    Layout(#[from] ForeignError),
    /// A plane does not fit the memory, or its offset or stride does not fit 32 bits.
    #[error("plane {0} begins outside of the buffer's memory")]
    Outside(usize),
    #[error("plane {0} is split over several memories")]
    Split(usize),
    /// Only GStreamer's formats say where planes are that no meta describes.
    #[error("a frame of {0} without a GstVideoMeta does not say where its planes are")]
    NoMeta(String),
    /// The kernel refused to make a framebuffer.
    #[error("the driver refuses {0}")]
    Refused(String),
    /// The kernel made a framebuffer and refused to show it.
    #[error("the driver refuses the frame's memory: {0}")]
    Unshowable(String),
}

/// The framebuffers of one sink on one card.
#[derive(Debug)]
pub struct Imports {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    device: Arc<Device>,
    /// The key is the address of the first plane's memory, which lives longer than the entry.
    entries: Mutex<HashMap<usize, Entry>>,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    framebuffer: Result<Arc<Framebuffer>, NotImportable>,
}

/// Equal for two buffers only if they have the same memory in the same layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    shape: FbShape,
    /// The address of each plane's GstMemory, or of that memory's parent if it has one.
    memories: [usize; MAX_PLANES],
}

impl Identity {
    fn key(&self) -> usize {
        self.memories[0]
    }
}

#[derive(Debug)]
pub struct Imported {
    pub framebuffer: Arc<Framebuffer>,
    /// Whether no commit has shown the framebuffer yet.
    pub is_untried: bool,
}

/// The memory of each colour plane of a buffer, and the identity of its framebuffer.
struct Located<'a> {
    memories: Vec<Importable<'a>>,
    identity: Identity,
}

impl Imports {
    pub fn new(device: Arc<Device>) -> Self {
        Self {
            shared: Arc::new(Shared {
                device,
                entries: Mutex::default(),
            }),
        }
    }

    /// The framebuffer over the memory of `buffer`, a frame of `caps` that the plane shows by the name `fourcc`.
    pub fn framebuffer(
        &self,
        buffer: &gst::BufferRef,
        caps: &FrameCaps,
        fourcc: u32,
    ) -> Result<Imported, NotImportable> {
        if !self.shared.device.can_import {
            return Err(NotImportable::NoImport(self.shared.device.driver.clone()));
        }
        let located = locate(buffer, caps, fourcc)?;
        let framebuffer = match self.shared.find(&located) {
            Some(known) => known?,
            None => {
                let made = self.shared.import(&located);
                self.remember(&located, made.clone());
                made?
            }
        };
        let is_untried = match framebuffer.verdict() {
            None => true,
            Some(Ok(())) => false,
            Some(Err(reason)) => {
                let unshowable = NotImportable::Unshowable(reason.to_owned());
                // Drops the framebuffer, and remembers that it was refused.
                self.remember(&located, Err(unshowable.clone()));
                return Err(unshowable);
            }
        };
        Ok(Imported {
            framebuffer,
            is_untried,
        })
    }

    pub fn len(&self) -> usize {
        self.shared
            .entries
            .lock()
            .values()
            .filter(|entry| entry.framebuffer.is_ok())
            .count()
    }

    fn remember(
        &self,
        located: &Located<'_>,
        framebuffer: Result<Arc<Framebuffer>, NotImportable>,
    ) {
        let identity = located.identity;
        let entry = Entry {
            identity,
            framebuffer,
        };
        let key = identity.key();
        let replaced = self.shared.entries.lock().insert(key, entry);
        let mut watched = vec![0];
        watched.extend(replaced.iter().flat_map(|entry| entry.identity.memories));
        for memory in identity.memories {
            if !watched.contains(&memory) {
                watched.push(memory);
                located.on_memory_freed(memory, key, Arc::downgrade(&self.shared));
            }
        }
        // Dropping a framebuffer makes an ioctl, so it happens after the lock is released.
        drop(replaced);
    }
}

impl Shared {
    fn find(&self, located: &Located<'_>) -> Option<Result<Arc<Framebuffer>, NotImportable>> {
        let entries = self.entries.lock();
        let entry = entries.get(&located.identity.key())?;
        (entry.identity == located.identity).then(|| entry.framebuffer.clone())
    }

    fn import(self: &Arc<Self>, located: &Located<'_>) -> Result<Arc<Framebuffer>, NotImportable> {
        let shape = &located.identity.shape;
        let modifier = shape.modifier.filter(|_| self.device.has_modifiers);
        let shape = FbShape { modifier, ..*shape };
        // Exported here and not for each frame, whose framebuffer is known already.
        let memories = located.memories.iter();
        let dma_bufs: Vec<_> = memories
            .map(|memory| memory.export())
            .collect::<Result<_, _>>()
            .map_err(|what| NotImportable::Refused(what.into()))?;
        let fds: Vec<_> = dma_bufs.iter().map(|dma_buf| dma_buf.as_fd()).collect();
        self.device
            .import(&shape, &fds)
            .map(Arc::new)
            .map_err(|error| {
                NotImportable::Refused(format!(
                    "{}x{} {} at pitch {}: {}",
                    shape.width,
                    shape.height,
                    format::fourcc_name(shape.fourcc),
                    shape.pitches[0],
                    sys::describe(&error)
                ))
            })
    }

    fn forget(&self, key: usize) {
        let entry = self.entries.lock().remove(&key);
        drop(entry);
    }
}

impl Located<'_> {
    /// Forgets the framebuffer at `key` when `memory`, one of this identity, is freed.
    fn on_memory_freed(&self, memory: usize, key: usize, shared: Weak<Shared>) {
        type Known = (usize, Weak<Shared>);
        unsafe extern "C" fn freed(data: glib::ffi::gpointer, _: *mut gst::ffi::GstMiniObject) {
            // SAFETY: `data` is the box made below, and GStreamer calls this once.
            let (key, shared) = *unsafe { Box::from_raw(data.cast::<Known>()) };
            if let Some(shared) = shared.upgrade() {
                shared.forget(key);
            }
        }
        debug_assert!(self.identity.memories.contains(&memory));
        let known: Box<Known> = Box::new((key, shared));
        // SAFETY: `memory` is the address of a GstMemory (`locate`). It lives, because the buffer that
        // `self` borrows from holds it or a memory whose parent it is. The notification owns the box.
        unsafe {
            gst::ffi::gst_mini_object_weak_ref(
                memory as *mut gst::ffi::GstMiniObject,
                Some(freed),
                Box::into_raw(known).cast(),
            )
        };
    }
}

/// The address of the parent of `memory`, or of `memory` itself if it has no parent.
fn root(memory: &gst::MemoryRef) -> usize {
    let memory = memory.as_ptr();
    // SAFETY: a borrowed GstMemory is alive. Its parent is set when it is made and never changes.
    let parent = unsafe { (*memory).parent };
    if parent.is_null() {
        memory as usize
    } else {
        parent as usize
    }
}

fn locate<'a>(
    buffer: &'a gst::BufferRef,
    caps: &FrameCaps,
    fourcc: u32,
) -> Result<Located<'a>, NotImportable> {
    let info = &caps.info;
    let is_plain = caps.is_plain();
    if is_plain {
        foreign::layout(info, buffer)?;
    }
    let meta = buffer.meta::<gst_video::VideoMeta>();
    if meta.is_none() && info.n_planes() == 0 {
        return Err(NotImportable::NoMeta(caps.format_name()));
    }
    // Tiled memory may have more planes than its format, such as for compression.
    let n_planes = match &meta {
        Some(meta) => meta.n_planes() as usize,
        None => info.n_planes() as usize,
    };
    if !(1..=MAX_PLANES).contains(&n_planes) {
        return Err(NotImportable::Outside(n_planes));
    }
    let mut shape = FbShape {
        width: meta.as_ref().map_or(info.width(), |meta| meta.width()),
        height: meta.as_ref().map_or(info.height(), |meta| meta.height()),
        fourcc,
        modifier: caps.modifier(),
        n_planes,
        pitches: [0; 4],
        offsets: [0; 4],
    };
    let mut importable = Vec::with_capacity(n_planes);
    let mut memories = [0; MAX_PLANES];
    for (plane, address) in memories.iter_mut().enumerate().take(n_planes) {
        let (offset, stride) = match &meta {
            Some(meta) => (meta.offset()[plane], meta.stride()[plane]),
            None => (info.offset()[plane], info.stride()[plane]),
        };
        let rows = match is_plain {
            true => Layout::of_info(info).planes[plane].rows,
            false => 1,
        };
        let bytes = (stride.max(0) as usize)
            .saturating_mul(rows.saturating_sub(1))
            .max(1);
        let end = offset.checked_add(bytes);
        let (found, skip) = end
            .and_then(|end| buffer.find_memory(offset..end))
            .ok_or(NotImportable::Outside(plane))?;
        if found.len() > 1 {
            return Err(NotImportable::Split(plane));
        }
        let memory = buffer.peek_memory(found.start);
        importable.push(importable_of(memory)?);
        *address = root(memory);
        let offset = memory.offset().checked_add(skip);
        shape.offsets[plane] = offset
            .and_then(|offset| u32::try_from(offset).ok())
            .ok_or(NotImportable::Outside(plane))?;
        shape.pitches[plane] = u32::try_from(stride).map_err(|_| NotImportable::Outside(plane))?;
    }
    Ok(Located {
        memories: importable,
        identity: Identity { shape, memories },
    })
}

fn importable_of(memory: &gst::MemoryRef) -> Result<Importable<'_>, NotImportable> {
    Importable::of(memory).ok_or_else(|| {
        let kind = memory.allocator().and_then(foreign::memory_type);
        NotImportable::NoDmaBuf(kind.unwrap_or("unknown").to_owned())
    })
}

/// The fence after which the display may read all memories of a buffer. `None` if that is not known for each memory:
/// if a commit has a fence, the kernel ignores the fences of the memories themselves, so a fence that leaves a memory
/// out would be worse than none.
pub fn pending_write_fence(buffer: &gst::BufferRef) -> Option<OwnedFd> {
    let memories = buffer.iter_memories();
    let dma_bufs = memories.map(|memory| Importable::of(memory)?.fd());
    merged(
        dma_bufs.map(|fd| dma_buf::pending_write_fence(fd?).ok()),
        |a, b| sync_file::merge(a.as_fd(), b.as_fd()).ok(),
    )
}

/// Merges the fences of several memories into one. A memory that needs no fence has `Some(None)`, and one whose fence
/// is not known has `None`. The result is `None` if no memory needs a fence, if one is not known, or if merging fails.
fn merged<F>(
    fences: impl Iterator<Item = Option<Option<F>>>,
    merge: impl Fn(F, F) -> Option<F>,
) -> Option<F> {
    let mut all = None;
    for fence in fences {
        all = match (all, fence?) {
            (Some(all), Some(fence)) => Some(merge(all, fence)?),
            (all, fence) => all.or(fence),
        };
    }
    all
}

#[cfg(test)]
mod tests {
    use gst_allocators::prelude::*;

    use super::*;

    /// A buffer over an fd that passes for a dma-buf.
    fn dma_buf(size_bytes: usize) -> gst::Buffer {
        let fd = std::fs::File::open("/dev/zero").unwrap();
        let allocator = gst_allocators::DmaBufAllocator::new();
        // SAFETY: the memory owns the fd from here on, and no test maps it.
        let memory = unsafe { allocator.alloc_dmabuf(fd, size_bytes) }.unwrap();
        let mut buffer = gst::Buffer::new();
        buffer.get_mut().unwrap().append_memory(memory);
        buffer
    }

    /// A frame over an fd that passes for a dma-buf, and its framebuffer in the cache.
    fn imported() -> (Imports, FrameCaps, gst::Buffer, Arc<Framebuffer>) {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Bgrx, 4, 4)
            .build()
            .unwrap();
        let buffer = dma_buf(info.size());
        let device = Device::blank();
        let framebuffer = Framebuffer::blank(&device);
        let imports = Imports::new(device);
        let caps = FrameCaps::of_raw(info);
        let located = locate(&buffer, &caps, 0).unwrap();
        imports.remember(&located, Ok(framebuffer.clone()));
        (imports, caps, buffer, framebuffer)
    }

    #[test]
    fn a_frame_waits_for_the_fences_of_all_its_memories_or_for_none_of_ours() {
        let add = |a: u32, b: u32| (b != 9).then_some(a + b);
        for (fences, together) in [
            (vec![], None),
            (vec![Some(None), Some(None)], None),
            (vec![Some(Some(1)), Some(None)], Some(1)),
            (vec![Some(None), Some(Some(2))], Some(2)),
            (vec![Some(Some(1)), Some(Some(2)), Some(Some(4))], Some(7)),
            (vec![Some(Some(1)), None], None),
            (vec![Some(Some(1)), Some(Some(9))], None),
        ] {
            assert_eq!(
                merged(fences.clone().into_iter(), add),
                together,
                "{fences:?}"
            );
        }
    }

    #[test]
    fn an_import_ends_with_the_memory_of_any_plane() {
        let (imports, ..) = imported();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Nv12, 4, 4);
        let info = info.build().unwrap();
        let mut first = dma_buf(16);
        let second = dma_buf(16);
        let key = root(first.peek_memory(0));
        let first_mut = first.get_mut().unwrap();
        first_mut.append_memory(second.memory(0).unwrap());
        gst_video::VideoMeta::add_full(
            first_mut,
            gst_video::VideoFrameFlags::empty(),
            info.format(),
            4,
            4,
            &[0, 16],
            &[4, 4],
        )
        .unwrap();
        let located = locate(&first, &FrameCaps::of_raw(info), 0).unwrap();
        assert_ne!(located.identity.memories[0], located.identity.memories[1]);
        let refused = NotImportable::Refused("a test".into());
        imports.remember(&located, Err(refused));
        let is_known = || imports.shared.entries.lock().contains_key(&key);
        drop(second);
        assert!(is_known());
        first.get_mut().unwrap().remove_memory(1);
        assert!(!is_known());
    }

    #[test]
    fn an_import_is_untried_until_a_commit_shows_it() {
        let (imports, caps, buffer, framebuffer) = imported();
        for _ in 0..2 {
            let found = imports.framebuffer(&buffer, &caps, 0).unwrap();
            assert!(found.is_untried, "asking for it is no commit");
            assert!(Arc::ptr_eq(&found.framebuffer, &framebuffer));
        }
        framebuffer.judge(Ok(()));
        assert!(!imports.framebuffer(&buffer, &caps, 0).unwrap().is_untried);
    }

    #[test]
    fn an_import_whose_first_commit_was_refused_is_given_up() {
        let (imports, caps, buffer, framebuffer) = imported();
        framebuffer.judge(Err("no room"));
        for _ in 0..2 {
            let error = imports.framebuffer(&buffer, &caps, 0).unwrap_err();
            assert_eq!(error, NotImportable::Unshowable("no room".into()));
        }
        assert_eq!((imports.len(), Arc::strong_count(&framebuffer)), (0, 1));
    }

    #[test]
    fn an_import_that_was_shown_survives_a_refusal() {
        let (imports, caps, buffer, framebuffer) = imported();
        framebuffer.judge(Ok(()));
        framebuffer.judge(Err("the mode is gone"));
        assert!(!imports.framebuffer(&buffer, &caps, 0).unwrap().is_untried);
    }

    #[test]
    fn a_frame_of_a_fourcc_that_gstreamer_does_not_know_is_located_by_its_meta_alone() {
        gst::init().unwrap();
        let caps = "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=Q410,width=4,height=4";
        let caps = FrameCaps::parse(&caps.parse::<gst::Caps>().unwrap()).unwrap();
        let mut buffer = dma_buf(96);
        let error = locate(&buffer, &caps, 0).err();
        assert_eq!(error, Some(NotImportable::NoMeta("Q410".into())));
        gst_video::VideoMeta::add_full(
            buffer.get_mut().unwrap(),
            gst_video::VideoFrameFlags::empty(),
            gst_video::VideoFormat::Y444, // of which nothing is read
            4,
            4,
            &[0, 32, 64],
            &[8, 8, 8],
        )
        .unwrap();
        let fourcc = crate::kmsflipsink::format::fourcc(b"Q410");
        let shape = locate(&buffer, &caps, fourcc).unwrap().identity.shape;
        assert_eq!((shape.fourcc, shape.n_planes), (fourcc, 3));
        assert_eq!(
            (shape.offsets, shape.pitches),
            ([0, 32, 64, 0], [8, 8, 8, 0])
        );
    }
}
