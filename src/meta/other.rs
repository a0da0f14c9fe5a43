// SPDX-License-Identifier: MPL-2.0
//! Metas that another copy of this library in the process has made ([`crate::copies`]).
//!
//! They have the same API type and the same C struct, but functions of their own. No more than
//! these is used. What such a meta says is copied into a description of our own, which is attached
//! to the buffer as long as it is true.

use std::{
    ffi::CStr,
    sync::{LazyLock, Mutex},
};

use gst::glib::{
    self,
    ffi::gpointer,
    translate::{IntoGlib, TryFromGlib},
};

use super::{About, Description, Facts, ffi::*};
use crate::locks::lock;
use crate::memory::{Address, AddressSource, AddressUnknown, Extent, MemoryKind, PhysAddr};

static QUARK: LazyLock<glib::Quark> =
    LazyLock::new(|| crate::copies::quark_of_this_copy("GstPhysMemMetaOfOther"));

/// A meta of another copy, valid as long as it is on its buffer. Code that has the description of
/// the meta has got it through the buffer.
pub(super) struct TheirMeta(*const GstPhysMemMeta);
// SAFETY: any thread that has the buffer may call the meta's functions.
unsafe impl Send for TheirMeta {}
// SAFETY: as above.
unsafe impl Sync for TheirMeta {}

impl TheirMeta {
    pub fn is_about(&self, memory: &gst::MemoryRef) -> bool {
        // SAFETY: the meta is on its buffer. The memory is alive and is not changed.
        unsafe { ((*self.0).is_about)(self.0, memory.as_mut_ptr()) != 0 }
    }

    pub fn is_alive(&self) -> bool {
        // SAFETY: the meta is on its buffer.
        unsafe { ((*self.0).is_alive)(self.0) != 0 }
    }
}

struct Attached {
    /// Compared, never dereferenced.
    meta: *const GstPhysMemMeta,
    description: std::sync::Arc<Description>,
    /// What was attached before: of another meta of the buffer, or what this one said then.
    before: Option<Box<Attached>>,
}

impl Attached {
    fn of(&self, meta: &GstPhysMemMeta, facts: &Facts) -> Option<&Description> {
        let mut all = std::iter::successors(Some(self), |attached| attached.before.as_deref());
        let known = all.find(|attached| {
            std::ptr::eq(attached.meta, meta) && attached.description.facts == *facts
        });
        known.map(|attached| &*attached.description)
    }
}

/// What the meta says, valid as long as it is on its buffer.
pub(super) fn description(meta: &GstPhysMemMeta) -> &Description {
    // Two threads that get here at once would both attach what the other one does not see.
    static ATTACHING: Mutex<()> = Mutex::new(());
    let facts = facts_of(meta);
    let _guard = lock(&ATTACHING);
    // SAFETY: the meta is on `buffer`, which is alive, and data under our quark is an Attached of
    // this copy, which is freed with the buffer and not before.
    unsafe {
        let buffer = meta.buffer.cast_mut().cast::<gst::ffi::GstMiniObject>();
        let quark = (*QUARK).into_glib();
        let known = gst::ffi::gst_mini_object_get_qdata(buffer, quark).cast::<Attached>();
        if let Some(description) = known.as_ref().and_then(|known| known.of(meta, &facts)) {
            return description;
        }
        let before = gst::ffi::gst_mini_object_steal_qdata(buffer, quark).cast::<Attached>();
        let attached = Box::into_raw(Box::new(Attached {
            meta,
            description: Description::new(facts, About::Other(TheirMeta(meta))),
            before: (!before.is_null()).then(|| Box::from_raw(before)),
        }));
        gst::ffi::gst_mini_object_set_qdata(buffer, quark, attached.cast(), Some(detach));
        &(*attached).description
    }
}

unsafe extern "C" fn detach(data: gpointer) {
    // SAFETY: `data` is the Box that `description` attached, and GStreamer calls this once.
    drop(unsafe { Box::from_raw(data.cast::<Attached>()) });
}

fn facts_of(meta: &GstPhysMemMeta) -> Facts {
    let text = |text: *const std::ffi::c_char| {
        // SAFETY: the struct's documentation says that texts are C strings or NULL, and valid as
        // long as the meta.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_owned())
    };
    Facts {
        id: meta.id,
        size_bytes: meta.size as usize,
        memory_offset_bytes: meta.offset as usize,
        // Both copies have the same ABI, and with it the same numbers.
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
    // SAFETY: the meta has `n_extents` extents, which are valid as long as the meta.
    let extents = unsafe { std::slice::from_raw_parts(meta.extents, meta.n_extents as usize) };
    let extents = extents.iter().map(|extent| Extent {
        phys: PhysAddr(extent.phys_addr),
        len_bytes: extent.size,
    });
    Address::new(extents.collect(), source_of(meta.source)?)
}

/// The kind with this number. No buffer is of kind auto.
pub(super) fn kind_of(number: i32) -> Option<MemoryKind> {
    // SAFETY: `try_from_glib` refuses a number that is no kind.
    let kind = unsafe { MemoryKind::try_from_glib(number) }.ok();
    kind.filter(|&kind| kind != MemoryKind::Auto)
}

pub(super) fn source_of(number: i32) -> Option<AddressSource> {
    use AddressSource::*;
    let sources = [Pagemap, CmaTrace, SmemStart, User, Sysfs];
    sources.into_iter().find(|&source| source as i32 == number)
}
