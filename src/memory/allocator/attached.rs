// SPDX-License-Identifier: MPL-2.0
//! A table of the region that each GstMemory of this library belongs to.
//!
//! The region cannot be kept in the GstMemory: GstFdMemory has no field for it, and the first qdata of a
//! GstMiniObject takes 700 bytes.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;

use crate::memory::region::Region;

pub type OnFree = Box<dyn FnOnce() + Send>;

/// What the table keeps for a root memory, one without a parent.
pub struct Attached {
    pub region: Arc<Region>,
    on_free: Option<OnFree>,
}

/// An `Attached` that the table owns.
struct Owned(NonNull<Attached>);

// SAFETY: threads that share the pointer use only `region`, which is Sync. The thread that frees the memory
// takes the whole `Attached`, which is Send.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

/// By the address of the root memory, from `attach` to `detach`.
static TABLE: LazyLock<RwLock<HashMap<usize, Owned>>> = LazyLock::new(RwLock::default);

/// Enters `mem` with its region into the table. `on_free` runs once, after the memory and all memories that
/// share it are freed.
///
/// # Safety
/// `mem` is a new memory without a parent, whose allocator calls [`detach`].
pub unsafe fn attach(mem: *mut gst::ffi::GstMemory, region: Arc<Region>, on_free: Option<OnFree>) {
    let attached = Box::new(Attached { region, on_free });
    let attached = Owned(NonNull::from(Box::leak(attached)));
    TABLE.write().insert(mem as usize, attached);
}

/// Removes a memory that is being freed from the table. The caller drops the result, or calls
/// [`Attached::end`], when the memory is freed. `None` for a memory that shares another's bytes.
///
/// # Safety
/// `mem` is a memory that its allocator is freeing.
pub unsafe fn detach(mem: *mut gst::ffi::GstMemory) -> Option<Box<Attached>> {
    // SAFETY: the memory is not freed yet.
    if unsafe { !(*mem).parent.is_null() } {
        return None;
    }
    let Owned(attached) = TABLE.write().remove(&(mem as usize))?;
    // SAFETY: `attach` leaked the box, and the table had it once. No reference to it is left, because the
    // memory has no users.
    Some(unsafe { Box::from_raw(attached.as_ptr()) })
}

impl Attached {
    /// Drops the region, and then calls `on_free`.
    pub fn end(self) {
        drop(self.region);
        if let Some(on_free) = self.on_free {
            on_free();
        }
    }
}

/// What the table keeps for `mem` or, if it shares another memory's bytes, for its parent.
///
/// # Safety
/// `mem` is a GstMemory that outlives the result.
pub unsafe fn of<'a>(mem: *mut gst::ffi::GstMemory) -> Option<&'a Attached> {
    // SAFETY: a memory holds a reference to its parent, and a parent has no parent itself (gst_fd_mem_share and
    // our mem_share link to the root). The table's entry stays until the root memory is freed.
    unsafe {
        let root = if (*mem).parent.is_null() {
            mem
        } else {
            (*mem).parent
        };
        let table = TABLE.read();
        table.get(&(root as usize)).map(|owned| owned.0.as_ref())
    }
}
