// SPDX-License-Identifier: MPL-2.0
//! Framebuffers over the memory of incoming buffers, made once for each memory
//! and kept until that memory is freed.
//!
//! An fd number says nothing: it is reused for other memory. A framebuffer
//! belongs to a GstMemory, which tells us when it ends, and is used again only
//! for the same dma-bufs (by their file, whose number the kernel does not reuse while the
//! framebuffer holds the memory) in the same layout.

use std::collections::HashMap;
use std::collections::hash_map;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

use gst::glib;
use parking_lot::Mutex;

use super::card::{Card, FbShape, Framebuffer};
use super::dma_drm;
use super::format;
use crate::foreign::{self, ForeignError};
use crate::layout::{Layout, MAX_PLANES};
use crate::sys::{self, file_id::FileId};

/// Why a buffer is not shown where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotImportable {
    /// Ordinary memory.
    #[error("{0} memory is no dma-buf")]
    NoDmaBuf(String),
    /// The driver takes none.
    #[error("the driver {0} imports no dma-bufs")]
    NoImport(String),
    /// What its meta says is not so.
    #[error("the frame's layout is wrong: {0}")]
    Layout(#[from] ForeignError),
    /// The layout does not fit the memory or 32 bits.
    #[error("plane {0} begins outside of the buffer's memory")]
    Outside(usize),
    /// More pieces than one.
    #[error("plane {0} is split over several memories")]
    Split(usize),
    /// Unknown to KMS.
    #[error("KMS has no name for the format {0}")]
    Format(String),
    /// The kernel refused to make a framebuffer.
    #[error("the driver refuses {0}")]
    Refused(String),
    /// The kernel made one and refused to show it.
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
    card: Arc<Card>,
    /// By the address of the root memory, which lives as long as its entry.
    entries: Mutex<HashMap<usize, Entry>>,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    framebuffer: Result<Arc<Framebuffer>, NotImportable>,
}

/// Equal only for the same memory in the same layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    shape: FbShape,
    files: [Option<FileId>; 4],
}

/// A framebuffer for a buffer.
#[derive(Debug)]
pub struct Imported {
    /// The framebuffer.
    pub framebuffer: Arc<Framebuffer>,
    /// No commit has shown it yet.
    pub is_untried: bool,
}

/// Where the colour planes of a buffer are.
struct Located<'a> {
    key: usize,
    fds: Vec<BorrowedFd<'a>>,
    identity: Identity,
}

impl Imports {
    /// None yet.
    pub fn new(card: Arc<Card>) -> Self {
        Self {
            shared: Arc::new(Shared {
                card,
                entries: Mutex::default(),
            }),
        }
    }

    /// The framebuffer over the memory of `buffer`, a frame of `info`.
    pub fn framebuffer(
        &self,
        buffer: &gst::BufferRef,
        info: &gst_video::VideoInfo,
        modifier: Option<u64>,
    ) -> Result<Imported, NotImportable> {
        if !self.shared.card.can_import {
            return Err(NotImportable::NoImport(self.shared.card.driver.clone()));
        }
        let located = locate(buffer, info, modifier)?;
        let framebuffer = match self.shared.find(&located) {
            Some(known) => known?,
            None => {
                let made = self.shared.import(&located);
                let entry = Entry {
                    identity: located.identity,
                    framebuffer: made.clone(),
                };
                self.remember(buffer, located.key, entry);
                made?
            }
        };
        let is_untried = match framebuffer.verdict() {
            None => true,
            Some(Ok(())) => false,
            Some(Err(reason)) => {
                let unshowable = NotImportable::Unshowable(reason.to_owned());
                // The framebuffer can go; that it was refused is kept.
                let entry = Entry {
                    identity: located.identity,
                    framebuffer: Err(unshowable.clone()),
                };
                self.remember(buffer, located.key, entry);
                return Err(unshowable);
            }
        };
        Ok(Imported {
            framebuffer,
            is_untried,
        })
    }

    /// How many framebuffers are kept.
    pub fn len(&self) -> usize {
        self.shared
            .entries
            .lock()
            .values()
            .filter(|entry| entry.framebuffer.is_ok())
            .count()
    }

    fn remember(&self, buffer: &gst::BufferRef, key: usize, entry: Entry) {
        let replaced = match self.shared.entries.lock().entry(key) {
            hash_map::Entry::Occupied(mut occupied) => Some(occupied.insert(entry)),
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(entry);
                None
            }
        };
        if replaced.is_none() {
            on_memory_freed(buffer, key, Arc::downgrade(&self.shared));
        }
        // A framebuffer that goes makes an ioctl: not under the lock.
        drop(replaced);
    }
}

impl Shared {
    fn find(&self, located: &Located<'_>) -> Option<Result<Arc<Framebuffer>, NotImportable>> {
        let entries = self.entries.lock();
        let entry = entries.get(&located.key)?;
        (entry.identity == located.identity).then(|| entry.framebuffer.clone())
    }

    fn import(self: &Arc<Self>, located: &Located<'_>) -> Result<Arc<Framebuffer>, NotImportable> {
        let shape = &located.identity.shape;
        let modifier = shape.modifier.filter(|_| self.card.has_modifiers);
        let shape = FbShape { modifier, ..*shape };
        self.card
            .import(&shape, &located.fds)
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

/// Calls `forget` when the root memory of `buffer`'s first memory is freed.
fn on_memory_freed(buffer: &gst::BufferRef, key: usize, shared: Weak<Shared>) {
    unsafe extern "C" fn freed(data: glib::ffi::gpointer, memory: *mut gst::ffi::GstMiniObject) {
        // SAFETY: `data` is the box made below; GStreamer calls this once.
        let shared = unsafe { Box::from_raw(data.cast::<Weak<Shared>>()) };
        if let Some(shared) = shared.upgrade() {
            shared.forget(memory as usize);
        }
    }
    let data = Box::into_raw(Box::new(shared));
    debug_assert_eq!(root(buffer.peek_memory(0)), key);
    // SAFETY: `key` is the address of the root memory, alive because `buffer`
    // holds it; the notification owns `data`.
    unsafe {
        gst::ffi::gst_mini_object_weak_ref(
            key as *mut gst::ffi::GstMiniObject,
            Some(freed),
            data.cast(),
        )
    };
}

/// The address of the memory that `memory` is a part of.
fn root(memory: &gst::MemoryRef) -> usize {
    let memory = memory.as_ptr();
    // SAFETY: a GstMemory in use; a parent is set at birth and referenced by its child.
    let parent = unsafe { (*memory).parent };
    if parent.is_null() {
        memory as usize
    } else {
        parent as usize
    }
}

fn locate<'a>(
    buffer: &'a gst::BufferRef,
    info: &gst_video::VideoInfo,
    modifier: Option<u64>,
) -> Result<Located<'a>, NotImportable> {
    let fourcc = format::fourcc_of(info.format())
        .ok_or_else(|| NotImportable::Format(info.format().to_str().to_string()))?;
    if !is_tiled(modifier) {
        foreign::layout(info, buffer)?;
    }
    let meta = buffer.meta::<gst_video::VideoMeta>();
    // Tiled memory may have planes that no format knows, such as for compression.
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
        fourcc: fourcc as u32,
        modifier,
        n_planes,
        pitches: [0; 4],
        offsets: [0; 4],
    };
    let (mut fds, mut files) = (Vec::with_capacity(n_planes), [None; 4]);
    for (plane, file) in files.iter_mut().enumerate().take(n_planes) {
        let (offset, stride) = match &meta {
            Some(meta) => (meta.offset()[plane], meta.stride()[plane]),
            None => (info.offset()[plane], info.stride()[plane]),
        };
        let rows = if is_tiled(modifier) {
            1
        } else {
            Layout::of_info(info).planes[plane].rows
        };
        let bytes = (stride.max(0) as usize)
            .saturating_mul(rows.saturating_sub(1))
            .max(1);
        let end = offset.checked_add(bytes);
        let (memories, skip) = end
            .and_then(|end| buffer.find_memory(offset..end))
            .ok_or(NotImportable::Outside(plane))?;
        if memories.len() > 1 {
            return Err(NotImportable::Split(plane));
        }
        let memory = buffer.peek_memory(memories.start);
        let fd = dma_buf_of(memory)?;
        shape.offsets[plane] =
            u32::try_from(memory.offset() + skip).map_err(|_| NotImportable::Outside(plane))?;
        shape.pitches[plane] = u32::try_from(stride).map_err(|_| NotImportable::Outside(plane))?;
        let id = FileId::of(fd).map_err(|error| {
            NotImportable::Refused(format!("its fd: {}", sys::describe(&error)))
        })?;
        *file = Some(id);
        fds.push(fd);
    }
    Ok(Located {
        key: root(buffer.peek_memory(0)),
        fds,
        identity: Identity { shape, files },
    })
}

/// Whether a CPU cannot make sense of the bytes.
pub fn is_tiled(modifier: Option<u64>) -> bool {
    modifier.is_some_and(|modifier| modifier != dma_drm::LINEAR)
}

fn dma_buf_of(memory: &gst::MemoryRef) -> Result<BorrowedFd<'_>, NotImportable> {
    match memory.downcast_memory_ref::<gst_allocators::DmaBufMemory>() {
        // SAFETY: the memory keeps its fd open as long as it lives, and the
        // result does not outlive the borrow of it.
        Some(memory) => Ok(unsafe { BorrowedFd::borrow_raw(memory.fd()) }),
        None => {
            let kind = memory
                .allocator()
                .map(|allocator| allocator.memory_type().to_string());
            Err(NotImportable::NoDmaBuf(
                kind.unwrap_or_else(|| "unknown".into()),
            ))
        }
    }
}

/// The dma-buf of a buffer's first memory, if it is one.
pub fn first_dma_buf(buffer: &gst::BufferRef) -> Option<BorrowedFd<'_>> {
    if buffer.n_memory() == 0 {
        None
    } else {
        dma_buf_of(buffer.peek_memory(0)).ok()
    }
}

#[cfg(test)]
mod tests {
    use gst_allocators::prelude::*;

    use super::*;

    /// A frame in an fd that passes for a dma-buf, and its framebuffer in the cache.
    fn imported() -> (Imports, gst_video::VideoInfo, gst::Buffer, Arc<Framebuffer>) {
        gst::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Bgrx, 4, 4)
            .build()
            .unwrap();
        let fd = std::fs::File::open("/dev/zero").unwrap();
        let allocator = gst_allocators::DmaBufAllocator::new();
        // SAFETY: an fd that the memory now owns; nobody maps it.
        let memory = unsafe { allocator.alloc_dmabuf(fd, info.size()) }.unwrap();
        let mut buffer = gst::Buffer::new();
        buffer.get_mut().unwrap().append_memory(memory);
        let card = Card::blank();
        let framebuffer = Framebuffer::blank(&card);
        let imports = Imports::new(card);
        let located = locate(&buffer, &info, None).unwrap();
        let entry = Entry {
            identity: located.identity,
            framebuffer: Ok(framebuffer.clone()),
        };
        imports.remember(&buffer, located.key, entry);
        (imports, info, buffer, framebuffer)
    }

    #[test]
    fn an_import_is_untried_until_a_commit_shows_it() {
        let (imports, info, buffer, framebuffer) = imported();
        for _ in 0..2 {
            let found = imports.framebuffer(&buffer, &info, None).unwrap();
            assert!(found.is_untried, "asking for it is no commit");
            assert!(Arc::ptr_eq(&found.framebuffer, &framebuffer));
        }
        framebuffer.judge(Ok(()));
        assert!(
            !imports
                .framebuffer(&buffer, &info, None)
                .unwrap()
                .is_untried
        );
    }

    #[test]
    fn an_import_whose_first_commit_was_refused_is_given_up() {
        let (imports, info, buffer, framebuffer) = imported();
        framebuffer.judge(Err("no room"));
        for _ in 0..2 {
            let error = imports.framebuffer(&buffer, &info, None).unwrap_err();
            assert_eq!(error, NotImportable::Unshowable("no room".into()));
        }
        assert_eq!((imports.len(), Arc::strong_count(&framebuffer)), (0, 1));
    }

    #[test]
    fn an_import_that_was_shown_survives_a_refusal() {
        let (imports, info, buffer, framebuffer) = imported();
        framebuffer.judge(Ok(()));
        framebuffer.judge(Err("the mode is gone"));
        assert!(
            !imports
                .framebuffer(&buffer, &info, None)
                .unwrap()
                .is_untried
        );
    }
}
