// SPDX-License-Identifier: MPL-2.0
//! The GstBuffer of a slot. This module inspects it when it comes back, in one walk over its metas, and
//! restores it, which is most of the cost of a release. It also takes the buffer's pool away and gives
//! it back.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use gst::{buffer::BufferMetaForeachAction, glib::translate::*};

use crate::meta::PhysMemMeta;

/// What was found on a returned buffer.
pub(super) struct Returned {
    pub id: u32,
    pub slot: usize,
    /// The buffer has a meta that the pool did not give it.
    pub has_foreign_meta: bool,
    /// The memory that the pool made the buffer of. Only compared until it is found in the buffer.
    root: *const gst::ffi::GstMemory,
    memory_offset_bytes: usize,
    size_bytes: usize,
}

/// Inspects a returned buffer and changes nothing. `None` if it is of no pool.
pub(super) fn look_at(buffer: &gst::BufferRef) -> Option<Returned> {
    let (mut ours, mut has_foreign_meta) = (None, false);
    let mut state = std::ptr::null_mut();
    // SAFETY: the buffer is valid and keeps its metas while it is borrowed, and the iterator's
    // state starts as null.
    unsafe {
        while let Some(meta) =
            gst::ffi::gst_buffer_iterate_meta(buffer.as_ptr().cast_mut(), &mut state).as_ref()
        {
            match PhysMemMeta::from_meta(meta) {
                Some(meta) if !meta.is_received() => ours = Some(meta),
                _ => has_foreign_meta |= meta.flags & gst::ffi::GST_META_FLAG_POOLED == 0,
            }
        }
    }
    let ours = ours?;
    let in_pool = ours.in_pool()?;
    let (memory_offset_bytes, size_bytes) = ours.place_in_memory();
    Some(Returned {
        id: ours.id(),
        slot: in_pool.slot,
        has_foreign_meta,
        root: in_pool.root(),
        memory_offset_bytes,
        size_bytes,
    })
}

/// Whether the buffer's bytes are in `root`, the memory that the pool made the buffer of, or in a
/// sub-memory of it. Resizing a buffer whose memory is shared makes a sub-memory.
pub(super) fn is_of(buffer: &gst::BufferRef, root: *const gst::ffi::GstMemory) -> bool {
    let is_root = |memory: &gst::MemoryRef| std::ptr::eq(memory.as_ptr(), root);
    let is_own = |memory: &gst::MemoryRef| is_root(memory) || memory.parent().is_some_and(is_root);
    buffer.n_memory() == 1 && is_own(buffer.peek_memory(0))
}

pub(super) fn is_unshared(buffer: &gst::BufferRef) -> bool {
    // SAFETY: the buffer is borrowed, and therefore valid.
    unsafe { ref_count(buffer.as_ptr()) }.load(Ordering::Acquire) == 1
}

/// Removes the metas that are not the pool's from a buffer that is unshared and stays so. Freeing a
/// meta may release other buffers, so that the caller must not hold the pool's lock.
pub(super) fn remove_foreign_metas(buffer: &gst::Buffer) {
    // SAFETY: the caller has the only reference.
    let unshared = unsafe { gst::BufferRef::from_mut_ptr(buffer.as_mut_ptr()) };
    unshared.foreach_meta_mut(|meta| {
        ControlFlow::Continue(if meta.flags().contains(gst::MetaFlags::POOLED) {
            BufferMetaForeachAction::Keep
        } else {
            BufferMetaForeachAction::Remove
        })
    });
}

/// Restores a buffer's size and clears its flags and timestamps. Returns false if the buffer has
/// lost its own memory, or something else holds one of them: it must not be handed out again then.
pub(super) fn put_right(buffer: &gst::Buffer, returned: &Returned) -> bool {
    let has_own = buffer.n_memory() == 1 && buffer.peek_memory(0).as_ptr() == returned.root;
    if !has_own || !is_unshared(buffer) {
        return false;
    }
    let (raw, root) = (buffer.as_mut_ptr(), returned.root.cast_mut());
    // SAFETY: the buffer holds `root`, so both are alive. Both counts are 1, so both may be
    // changed.
    unsafe {
        if ref_count(root).load(Ordering::Acquire) != 1 {
            return false;
        }
        (*raw).mini_object.flags = 0;
        (*raw).pts = gst::ffi::GST_CLOCK_TIME_NONE;
        (*raw).dts = gst::ffi::GST_CLOCK_TIME_NONE;
        (*raw).duration = gst::ffi::GST_CLOCK_TIME_NONE;
        (*raw).offset = gst::ffi::GST_BUFFER_OFFSET_NONE;
        (*raw).offset_end = gst::ffi::GST_BUFFER_OFFSET_NONE;
        if ((*root).offset, (*root).size) != (returned.memory_offset_bytes, returned.size_bytes) {
            let displacement = returned.memory_offset_bytes as isize - (*root).offset as isize;
            gst::ffi::gst_memory_resize(root, displacement, returned.size_bytes);
        }
    }
    true
}

/// The reference count of a buffer or memory, both of which begin with a GstMiniObject.
///
/// # Safety
/// `T` is GstBuffer or GstMemory, and the object is one that GStreamer made and outlives the result.
pub(super) unsafe fn ref_count<'a, T>(object: *const T) -> &'a AtomicI32 {
    let object = object.cast::<gst::ffi::GstMiniObject>();
    // SAFETY: the caller promises that the object begins with a mini object. Its count is a gint
    // that is changed only atomically.
    unsafe { AtomicI32::from_ptr((&raw const (*object).refcount).cast_mut()) }
}

/// The buffer's field `pool`, which GStreamer may change while this library reads it.
///
/// # Safety
/// The buffer is one that GStreamer made, and outlives the result.
pub(super) unsafe fn pool_of<'a>(
    buffer: *const gst::ffi::GstBuffer,
) -> &'a AtomicPtr<gst::ffi::GstBufferPool> {
    // SAFETY: the caller promises a buffer, whose field is a pointer that is changed only atomically
    // while other threads may read it.
    unsafe { AtomicPtr::from_ptr((&raw const (*buffer).pool).cast_mut()) }
}

/// Takes the buffer's reference to its pool away, so that dropping the buffer frees it. `None` if
/// there is none, because GStreamer is bringing the buffer back to the pool.
pub(super) fn take_pool(buffer: &gst::Buffer) -> Option<gst::BufferPool> {
    // SAFETY: the buffer is borrowed, and so valid; the reference moves into the result.
    unsafe {
        let field = pool_of(buffer.as_ptr());
        from_glib_full(field.swap(std::ptr::null_mut(), Ordering::AcqRel))
    }
}

/// Gives the buffer its reference to the pool back, so that dropping the buffer returns it there.
pub(super) fn give_pool(buffer: &gst::Buffer, pool: &gst::BufferPool) {
    // SAFETY: the buffer is borrowed, and so valid. It owns the reference that it is given.
    let field = unsafe { pool_of(buffer.as_ptr()) };
    field.store(pool.clone().into_glib_ptr(), Ordering::Release);
}
