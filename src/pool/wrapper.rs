// SPDX-License-Identifier: MPL-2.0
//! What a buffer that comes back looks like, found out and put right in one walk
//! over its metas: this is most of the cost of a release.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI32, Ordering};

use gst::buffer::BufferMetaForeachAction;

use crate::meta::PhysMemMeta;

/// A buffer that its last holder gave back.
pub(super) struct Returned {
    pub id: u32,
    pub slot: usize,
    /// It still has its own memory, and nobody else holds either of them. Only
    /// then was it put right and may be handed out again.
    pub is_intact: bool,
}

/// Nobody found the buffer by id between its last unref and now, when the lock that
/// such a search takes is held. Else it lives on outside the pool, and the slot waits
/// for the memory as it does for any other borrower of it.
pub(super) fn is_unshared(buffer: &gst::BufferRef) -> bool {
    // SAFETY: the buffer is alive.
    unsafe { refs(&(*buffer.as_ptr()).mini_object) == 1 }
}

/// Looks at a returned buffer; none if it is not a pool's. An intact one gets its
/// full size back and loses flags, timestamps and all metas but the pool's.
pub(super) fn take_back(buffer: &mut gst::BufferRef) -> Option<Returned> {
    let raw = buffer.as_mut_ptr();
    let (ours, has_foreign_meta) = look_at_metas(buffer)?;
    let (id, slot, root) = (ours.id(), ours.slot(), ours.root());
    let (memory_offset, size_bytes) = ours.place_in_memory();

    // SAFETY: a valid buffer; GStreamer sets TAG_MEMORY whenever memory is added,
    // removed or replaced, and `forget_tag` cleared it when the wrapper was made,
    // so without it `root` is the buffer's one memory, alive.
    let is_intact = unsafe {
        let tagged = (*raw).mini_object.flags & gst::ffi::GST_BUFFER_FLAG_TAG_MEMORY != 0;
        let has_own = !tagged || buffer.n_memory() == 1 && buffer.peek_memory(0).as_ptr() == root;
        has_own && refs(&(*raw).mini_object) == 1 && refs(&(*root).mini_object) == 1
    };
    if is_intact {
        // SAFETY: we hold the buffer's and the memory's only references.
        unsafe {
            (*raw).mini_object.flags = 0;
            (*raw).pts = gst::ffi::GST_CLOCK_TIME_NONE;
            (*raw).dts = gst::ffi::GST_CLOCK_TIME_NONE;
            (*raw).duration = gst::ffi::GST_CLOCK_TIME_NONE;
            (*raw).offset = gst::ffi::GST_BUFFER_OFFSET_NONE;
            (*raw).offset_end = gst::ffi::GST_BUFFER_OFFSET_NONE;
            if ((*root).offset, (*root).size) != (memory_offset, size_bytes) {
                let displacement = memory_offset as isize - (*root).offset as isize;
                gst::ffi::gst_memory_resize(root.cast_mut(), displacement, size_bytes);
            }
        }
        if has_foreign_meta {
            buffer.foreach_meta_mut(|meta| {
                ControlFlow::Continue(if meta.flags().contains(gst::MetaFlags::POOLED) {
                    BufferMetaForeachAction::Keep
                } else {
                    BufferMetaForeachAction::Remove
                })
            });
        }
    }
    Some(Returned {
        id,
        slot,
        is_intact,
    })
}

/// Makes later changes of the memory visible; to be called on a new wrapper.
pub(super) fn forget_tag(buffer: &mut gst::BufferRef) {
    buffer.unset_flags(gst::BufferFlags::TAG_MEMORY);
}

/// Our meta, and whether there is one that the pool did not put there.
fn look_at_metas(buffer: &gst::BufferRef) -> Option<(&PhysMemMeta, bool)> {
    let (mut ours, mut has_foreign) = (None, false);
    let mut state = std::ptr::null_mut();
    // SAFETY: a valid buffer and an iterator state that starts as null; the metas
    // live as long as the buffer keeps them, which `&` outlasts.
    unsafe {
        while let Some(meta) =
            gst::ffi::gst_buffer_iterate_meta(buffer.as_ptr().cast_mut(), &mut state).as_ref()
        {
            match PhysMemMeta::from_meta(meta) {
                Some(meta) => ours = Some(meta),
                None => has_foreign |= meta.flags & gst::ffi::GST_META_FLAG_POOLED == 0,
            }
        }
    }
    Some((ours?, has_foreign))
}

/// # Safety
/// `object` is alive.
unsafe fn refs(object: &gst::ffi::GstMiniObject) -> i32 {
    // SAFETY: the field is a gint that GStreamer changes only atomically.
    unsafe { AtomicI32::from_ptr((&raw const object.refcount).cast_mut()) }.load(Ordering::Acquire)
}
