// SPDX-License-Identifier: MPL-2.0
//! The header's inline functions as functions of the library, because bindings of other languages can call
//! nothing else. C programs use the inline ones and link nothing.
//!
//! `src/introspect` has g-ir-scanner read the header with `__GI_SCANNER__` defined. The header declares
//! these functions then, in place of the inline ones of the same names. cbindgen does not read this file.

use gst::{
    ffi::GstBuffer,
    glib::{
        ffi::{GFALSE, GTRUE, gboolean},
        translate::IntoGlib,
    },
};

use super::{
    PhysMemMeta,
    ffi::{GstPhysExtent, GstPhysMemMeta},
};
use crate::memory::PhysAddr;

/// The buffer's meta, unless its memory is another one by now.
///
/// # Safety
/// `buffer` is NULL or a buffer that outlives the result.
unsafe fn meta_of<'a>(buffer: *mut GstBuffer) -> Option<&'a PhysMemMeta> {
    if buffer.is_null() {
        return None;
    }
    let api = <PhysMemMeta as gst::MetaAPI>::meta_api().into_glib();
    // SAFETY: the caller guarantees the buffer. A meta of this API is a GstPhysMemMeta, which lives as long as
    // its buffer.
    let meta = unsafe {
        let meta = gst::ffi::gst_buffer_get_meta(buffer, api);
        meta.cast::<PhysMemMeta>().as_ref()
    };
    meta.filter(|meta| meta.memory().is_some())
}

/// # Safety
/// `meta` is a meta on a buffer that outlives the result.
unsafe fn checked<'a>(meta: *const GstPhysMemMeta) -> Option<&'a PhysMemMeta> {
    // SAFETY: PhysMemMeta is a transparent wrapper, and the caller guarantees the meta.
    unsafe { meta.cast::<PhysMemMeta>().as_ref() }
}

/// Writes the address, if there is one.
///
/// # Safety
/// `place` may be written to.
unsafe fn tell(found: Option<PhysAddr>, place: *mut u64) -> gboolean {
    let Some(PhysAddr(address)) = found else {
        return GFALSE;
    };
    // SAFETY: the caller guarantees the place.
    unsafe { *place = address };
    GTRUE
}

/// See the header.
///
/// # Safety
/// `buffer` is a buffer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_buffer_get_phys_mem_meta(
    buffer: *mut GstBuffer,
) -> *const GstPhysMemMeta {
    // SAFETY: the caller guarantees the buffer, which the caller keeps as long as the result.
    unsafe { meta_of(buffer) }.map_or(std::ptr::null(), |meta| &raw const meta.0)
}

/// See the header.
///
/// # Safety
/// `buffer` is a buffer, `address` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_buffer_get_phys_addr(
    buffer: *mut GstBuffer,
    address: *mut u64,
) -> gboolean {
    // SAFETY: the caller guarantees both.
    unsafe { tell(meta_of(buffer).and_then(PhysMemMeta::phys_addr), address) }
}

/// See the header.
///
/// # Safety
/// `meta` is the meta of a buffer that exists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_mem_meta_is_address_known(
    meta: *const GstPhysMemMeta,
) -> gboolean {
    // SAFETY: the caller guarantees the meta.
    unsafe { checked(meta) }
        .is_some_and(|meta| meta.address().is_ok())
        .into_glib()
}

/// See the header.
///
/// # Safety
/// `meta` is the meta of a buffer that exists, `address` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_mem_meta_address_at(
    meta: *const GstPhysMemMeta,
    offset: u64,
    address: *mut u64,
) -> gboolean {
    // SAFETY: the caller guarantees both.
    unsafe {
        let known = checked(meta).and_then(|meta| meta.address().ok());
        tell(known.and_then(|known| known.at(offset)), address)
    }
}

/// See the header.
///
/// # Safety
/// `meta` is the meta of a buffer that outlives the result, `n_extents` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gst_phys_mem_meta_get_extents(
    meta: *const GstPhysMemMeta,
    n_extents: *mut u32,
) -> *const GstPhysExtent {
    // SAFETY: the caller guarantees the meta.
    let extents = unsafe { checked(meta) }.map_or(&[][..], PhysMemMeta::extents);
    // A buffer of 2^32 pieces would be larger than any memory.
    let count = u32::try_from(extents.len()).unwrap_or(u32::MAX);
    // SAFETY: the caller guarantees the place.
    unsafe { *n_extents = count };
    if extents.is_empty() {
        return std::ptr::null();
    }
    // GstPhysExtent has the layout of Extent, which `ffi` asserts.
    extents.as_ptr().cast()
}
