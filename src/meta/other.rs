// SPDX-License-Identifier: MPL-2.0
//! Metas that another copy of this library in the process has made ([`crate::copies`]).
//!
//! They are of the same API type and the same C struct, and have functions of their own:
//! that much may be used. What it says is made into a description of ours, which hangs on
//! the buffer as long as it is true.

use std::{
    ffi::CStr,
    sync::{LazyLock, Mutex, PoisonError},
};

use gst::glib::{
    self,
    ffi::gpointer,
    translate::{IntoGlib, TryFromGlib},
};

use super::{About, Description, Facts, ffi::*};
use crate::memory::{Address, AddressSource, AddressUnknown, Extent, MemoryKind, PhysAddr};

static QUARK: LazyLock<glib::Quark> =
    LazyLock::new(|| crate::copies::quark_of_this_copy("GstPhysMemMetaOfOther"));

/// A meta, to be asked as long as it is on its buffer: whoever has the description of it
/// has come by the buffer.
pub(super) struct TheirMeta(*const GstPhysMemMeta);
// SAFETY: its functions may be called by any thread that has the buffer.
unsafe impl Send for TheirMeta {}
// SAFETY: as above.
unsafe impl Sync for TheirMeta {}

impl TheirMeta {
    pub fn is_about(&self, memory: &gst::MemoryRef) -> bool {
        // SAFETY: the meta is on its buffer; the memory is alive, and is not changed.
        unsafe { ((*self.0).is_about)(self.0, memory.as_mut_ptr()) != 0 }
    }

    pub fn is_alive(&self) -> bool {
        // SAFETY: the meta is on its buffer.
        unsafe { ((*self.0).is_alive)(self.0) != 0 }
    }
}

struct Attached {
    /// Only compared.
    meta: *const GstPhysMemMeta,
    description: std::sync::Arc<Description>,
}

/// What the meta says, for as long as it is on its buffer.
pub(super) fn description(meta: &GstPhysMemMeta) -> &Description {
    // Two threads may ask at once, and the second would free what the first has.
    static ATTACHING: Mutex<()> = Mutex::new(());
    let facts = facts_of(meta);
    let _guard = ATTACHING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the meta is on `buffer`, which is alive; data under our quark is an Attached
    // of this copy. One is replaced only if it is of a meta that is gone from the buffer,
    // or that says something else since: nobody borrows it then.
    unsafe {
        let buffer = meta.buffer.cast_mut().cast::<gst::ffi::GstMiniObject>();
        let quark = (*QUARK).into_glib();
        let attached = gst::ffi::gst_mini_object_get_qdata(buffer, quark).cast::<Attached>();
        if let Some(attached) = attached.as_ref()
            && std::ptr::eq(attached.meta, meta)
            && attached.description.facts == facts
        {
            return &attached.description;
        }
        let attached = Box::into_raw(Box::new(Attached {
            meta,
            description: Description::new(facts, About::Other(TheirMeta(meta))),
        }));
        gst::ffi::gst_mini_object_set_qdata(buffer, quark, attached.cast(), Some(detach));
        &(*attached).description
    }
}

unsafe extern "C" fn detach(data: gpointer) {
    // SAFETY: the Box that `description` attached, given back once.
    drop(unsafe { Box::from_raw(data.cast::<Attached>()) });
}

fn facts_of(meta: &GstPhysMemMeta) -> Facts {
    let text = |text: *const std::ffi::c_char| {
        // SAFETY: what the struct points to is valid as long as the meta, says its
        // documentation; texts are C strings or NULL.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
    };
    Facts {
        id: meta.id,
        size_bytes: meta.size as usize,
        memory_offset_bytes: meta.offset as usize,
        // Both have one ABI, and with it the same numbers.
        kind: kind_of(meta.kind).unwrap_or(MemoryKind::External),
        heap: text(meta.heap),
        is_pinned: meta.flags & GST_PHYS_MEM_FLAG_PINNED != 0,
        is_external: meta.flags & GST_PHYS_MEM_FLAG_EXTERNAL != 0,
        address: address_of(meta).ok_or_else(|| {
            let reason = text(meta.unknown_reason).map(|text| text.to_string_lossy().into_owned());
            AddressUnknown::Other(reason.unwrap_or("it is not said why".into()))
        }),
    }
}

fn address_of(meta: &GstPhysMemMeta) -> Option<Address> {
    if meta.flags & GST_PHYS_MEM_FLAG_ADDRESS_KNOWN == 0 || meta.extents.is_null() {
        return None;
    }
    // SAFETY: as many as the meta says, valid as long as it is.
    let extents = unsafe { std::slice::from_raw_parts(meta.extents, meta.n_extents as usize) };
    let extents = extents.iter().map(|extent| Extent {
        phys: PhysAddr(extent.phys_addr),
        len_bytes: extent.size,
    });
    Address::new(extents.collect(), source_of(meta.source)?)
}

/// The kind with this number; a buffer is never of kind auto.
pub(super) fn kind_of(number: i32) -> Option<MemoryKind> {
    // SAFETY: any number may be tried.
    let kind = unsafe { MemoryKind::try_from_glib(number) }.ok();
    kind.filter(|&kind| kind != MemoryKind::Auto)
}

/// The source with this number.
pub(super) fn source_of(number: i32) -> Option<AddressSource> {
    use AddressSource::*;
    let sources = [Pagemap, CmaTrace, SmemStart, User];
    sources.into_iter().find(|&source| source as i32 == number)
}
