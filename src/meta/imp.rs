// SPDX-License-Identifier: MPL-2.0
//! The functions that GStreamer calls for the meta.

use std::{os::fd::AsRawFd, sync::OnceLock};

use gst::{
    ffi::{GstBuffer, GstMemory, GstMeta, GstMetaInfo, GstMetaTransformCopy},
    glib::{
        self,
        ffi::{GFALSE, GQuark, GTRUE, gboolean, gpointer},
        translate::*,
    },
};

use super::*;

/// The API type: that of another copy of this library, if its struct has the same size.
pub(super) fn api() -> glib::Type {
    static API: OnceLock<glib::Type> = OnceLock::new();
    *API.get_or_init(|| {
        // SAFETY: the name is a static C string, and a registered info is never freed.
        unsafe {
            let theirs = gst::ffi::gst_meta_get_info(META_NAME.as_ptr());
            if !theirs.is_null() && (*theirs).size == size_of::<ffi::GstPhysMemMeta>() {
                return from_glib((*theirs).api);
            }
        }
        // The tag "memory" says that the meta depends on the buffer's memory, so that base classes
        // drop it when they write into other memory.
        let tags = [
            c"memory".as_ptr(),
            c"memory-reference".as_ptr(),
            std::ptr::null(),
        ];
        // SAFETY: the name is copied, and the tags are a null-terminated array of static strings.
        unsafe {
            from_glib(gst::ffi::gst_meta_api_type_register(
                free_name(c"GstPhysMemMetaAPI").as_ptr(),
                tags.as_ptr() as *mut _,
            ))
        }
    })
}

/// The name, with a number behind it if another copy of this library has registered the name.
fn free_name(name: &CStr) -> CString {
    let numbered = |n| match n {
        0 => Some(name.to_owned()),
        n => c_string(&format!("{}-{n}", name.to_str().ok()?)),
    };
    let is_free = |name: &CString| {
        // SAFETY: `name` is a C string.
        unsafe { glib::gobject_ffi::g_type_from_name(name.as_ptr()) == 0 }
    };
    (0..).filter_map(numbered).find(is_free).unwrap_or_default()
}

struct Info(*const GstMetaInfo);
// SAFETY: GStreamer never frees or changes a registered GstMetaInfo.
unsafe impl Send for Info {}
// SAFETY: as above.
unsafe impl Sync for Info {}

pub(super) fn info() -> *const GstMetaInfo {
    static INFO: OnceLock<Info> = OnceLock::new();
    INFO.get_or_init(|| Info(new_info())).0
}

#[cfg(not(feature = "v1_24"))]
fn new_info() -> *const GstMetaInfo {
    // SAFETY: the size is that of the struct that `init`, `free` and `transform` take.
    unsafe {
        gst::ffi::gst_meta_register(
            api().into_glib(),
            free_name(META_NAME).as_ptr(),
            size_of::<ffi::GstPhysMemMeta>(),
            Some(init),
            Some(free),
            Some(transform),
        )
    }
}

#[cfg(feature = "v1_24")]
fn new_info() -> *const GstMetaInfo {
    // SAFETY: the size is that of the struct that the functions take. Nothing else uses the info
    // until it is registered.
    unsafe {
        let size = size_of::<ffi::GstPhysMemMeta>();
        let name = free_name(META_NAME);
        let info = gst::ffi::gst_meta_info_new(api().into_glib(), name.as_ptr(), size);
        (*info).init_func = Some(init);
        (*info).free_func = Some(free);
        (*info).transform_func = Some(transform);
        (*info).serialize_func = Some(wire_format::serialize);
        (*info).deserialize_func = Some(wire_format::deserialize);
        gst::ffi::gst_meta_info_register(info)
    }
}

#[cfg_attr(not(feature = "v1_28"), expect(unused_variables))]
pub(super) fn register(plugin: &gst::Plugin) {
    let info = info();
    // A process that receives a buffer finds the plugin by the meta's name. Before 1.28 it must
    // have loaded the plugin already.
    #[cfg(feature = "v1_28")]
    // SAFETY: the plugin is being initialised, and the info stays registered for good.
    unsafe {
        gst::ffi::gst_meta_factory_register(plugin.to_glib_none().0, info);
    }
}

/// Adds a meta with `description` and `flags` (GST_META_FLAG_*).
pub(super) fn attach(
    buffer: &mut gst::BufferRef,
    description: Arc<Description>,
    flags: u32,
) -> *mut GstMeta {
    let mut params = Some(description);
    // SAFETY: `info()` describes exactly `ffi::GstPhysMemMeta`. The buffer is writable (`&mut`),
    // the params are of the type that `init` takes, and the pointer that is returned stays valid
    // until the meta is freed.
    unsafe {
        let params = (&raw mut params).cast();
        let added = gst::ffi::gst_buffer_add_meta(buffer.as_mut_ptr(), info(), params);
        if let Some(meta) = added.as_mut() {
            meta.flags |= flags;
        }
        added
    }
}

/// The C struct. It owns `description`, into which its pointers point.
fn filled(
    meta: GstMeta,
    description: Arc<Description>,
    buffer: *const GstBuffer,
) -> ffi::GstPhysMemMeta {
    let Description {
        facts,
        unknown_reason,
        ..
    } = &*description;
    let address = facts.address.as_ref().ok();
    let in_pool = description.in_pool();
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    let as_ptr = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |t| t.as_ptr());
    let dma_buf = in_pool.and_then(|in_pool| in_pool.region.dma_buf());
    ffi::GstPhysMemMeta {
        meta,
        id: facts.id,
        flags: flag(address.is_some(), ffi::GST_PHYS_MEM_FLAG_ADDRESS_KNOWN)
            | flag(
                address.is_some_and(Address::is_contiguous),
                ffi::GST_PHYS_MEM_FLAG_CONTIGUOUS,
            )
            | flag(facts.is_pinned, ffi::GST_PHYS_MEM_FLAG_PINNED)
            | flag(facts.is_external, ffi::GST_PHYS_MEM_FLAG_EXTERNAL)
            | flag(in_pool.is_none(), ffi::GST_PHYS_MEM_FLAG_RECEIVED),
        kind: facts.kind as i32,
        source: address.map_or(0, |address| address.source() as i32),
        phys_addr: address.map_or(0, |address| address.first().0),
        size: facts.size_bytes as u64,
        offset: facts.memory_offset_bytes as u64,
        extents: address.map_or(std::ptr::null(), |address| {
            address.extents().as_ptr().cast()
        }),
        n_extents: address.map_or(0, |address| address.extents().len() as u32),
        dmabuf_fd: dma_buf.map_or(-1, |fd| fd.as_raw_fd()),
        heap: as_ptr(&facts.heap),
        unknown_reason: as_ptr(unknown_reason),
        memory: in_pool.map_or(std::ptr::null(), InPool::root),
        is_alive,
        is_about,
        buffer,
        opaque: Arc::into_raw(description).cast_mut().cast(),
    }
}

unsafe extern "C" fn is_alive(meta: *const ffi::GstPhysMemMeta) -> gboolean {
    // SAFETY: the caller passes a meta that `init` filled.
    unsafe { &*meta.cast::<PhysMemMeta>() }
        .is_alive()
        .into_glib()
}

unsafe extern "C" fn is_about(
    meta: *const ffi::GstPhysMemMeta,
    memory: *mut GstMemory,
) -> gboolean {
    // SAFETY: the caller passes a meta that `init` filled, and a memory that is alive.
    let (meta, memory) = unsafe {
        (
            &*meta.cast::<PhysMemMeta>(),
            gst::MemoryRef::from_ptr(memory),
        )
    };
    meta.description().about.is(memory).into_glib()
}

/// Only `attach` describes memory. A program that finds the meta by its name and adds one
/// (`gst_buffer_add_meta (buffer, gst_meta_get_info (...), NULL)`) gets NULL, as this returns
/// FALSE.
unsafe extern "C" fn init(
    meta: *mut GstMeta,
    params: gpointer,
    buffer: *mut GstBuffer,
) -> gboolean {
    // SAFETY: params that are not NULL are those that `attach` passes.
    let params = unsafe { params.cast::<Option<Arc<Description>>>().as_mut() };
    let Some(description) = params.and_then(Option::take) else {
        glib::g_critical!(
            "GStreamer-PhysMem",
            "a GstPhysMemMeta is made by the pool that makes the buffer, and by nobody else"
        );
        return GFALSE;
    };
    // SAFETY: GStreamer allocated `size_of::<GstPhysMemMeta>()` bytes and has set the GstMeta.
    unsafe {
        let filled = filled(meta.read(), description, buffer);
        meta.cast::<ffi::GstPhysMemMeta>().write(filled);
    }
    GTRUE
}

unsafe extern "C" fn free(meta: *mut GstMeta, _buffer: *mut GstBuffer) {
    // SAFETY: `init` made `opaque` with Arc::into_raw, and GStreamer frees each meta once.
    unsafe {
        let meta = meta.cast::<ffi::GstPhysMemMeta>();
        drop(Arc::from_raw((*meta).opaque.cast::<Description>()));
    }
}

/// Puts the meta on a copy that has the same memory, whole; drops it for any other copy.
unsafe extern "C" fn transform(
    to: *mut GstBuffer,
    meta: *mut GstMeta,
    _from: *mut GstBuffer,
    type_: GQuark,
    data: gpointer,
) -> gboolean {
    // SAFETY: GStreamer passes two valid buffers, of which `to` is writable, a meta of `_from` that
    // `init` filled, and for "gst-copy" a GstMetaTransformCopy.
    unsafe {
        if type_ != glib::Quark::from_str("gst-copy").into_glib() {
            return GFALSE;
        }
        let copy = data as *const GstMetaTransformCopy;
        if !copy.is_null() && (*copy).region != GFALSE {
            return GTRUE;
        }
        let description = (*meta.cast::<ffi::GstPhysMemMeta>())
            .opaque
            .cast::<Description>();
        Arc::increment_strong_count(description);
        let description = Arc::from_raw(description.cast_const());
        let to = gst::BufferRef::from_mut_ptr(to);
        let same = to.n_memory() == 1 && description.about.is(to.peek_memory(0));
        if same && to.meta::<PhysMemMeta>().is_none() {
            attach(to, description, 0);
        }
        GTRUE
    }
}

/// Sends the meta of a buffer to another process and receives it, which GStreamer can since 1.24.
#[cfg(feature = "v1_24")]
mod wire_format {
    use gst::ffi::GstByteArrayInterface;

    use super::*;

    pub unsafe extern "C" fn serialize(
        meta: *const GstMeta,
        data: *mut GstByteArrayInterface,
        version: *mut u8,
    ) -> gboolean {
        // SAFETY: GStreamer passes a meta that `init` filled, an array, and a place for the
        // version.
        unsafe {
            let Some(bytes) = (*meta.cast::<PhysMemMeta>()).to_wire() else {
                return GFALSE;
            };
            *version = wire::VERSION;
            append(data, &bytes).into_glib()
        }
    }

    /// gst_byte_array_interface_append_data(), which C has only as an inline function.
    ///
    /// # Safety
    /// `data` is an initialised interface.
    unsafe fn append(data: *mut GstByteArrayInterface, bytes: &[u8]) -> bool {
        // SAFETY: the caller promises an initialised interface; `resize` makes room for `len`
        // bytes.
        unsafe {
            let old_len = (*data).len;
            let len = old_len + bytes.len();
            let Some(resize) = (*data).resize else {
                return false;
            };
            if resize(data, len) == GFALSE {
                return false;
            }
            (*data).len = len;
            let end = (*data).data.add(old_len);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
        }
        true
    }

    pub unsafe extern "C" fn deserialize(
        _info: *const GstMetaInfo,
        buffer: *mut GstBuffer,
        data: *const u8,
        size: usize,
        version: u8,
    ) -> *mut GstMeta {
        let malformed = |why: &dyn std::fmt::Display| {
            gst::warning!(gst::CAT_RUST, "a GstPhysMemMeta of another process: {why}");
            std::ptr::null_mut()
        };
        if version != wire::VERSION {
            return malformed(&format_args!("version {version} is not known here"));
        }
        // SAFETY: GStreamer passes a writable buffer and `size` bytes at `data`.
        let (buffer, bytes) = unsafe {
            (
                gst::BufferRef::from_mut_ptr(buffer),
                std::slice::from_raw_parts(data, size),
            )
        };
        if buffer.meta::<PhysMemMeta>().is_some() {
            return malformed(&"the buffer has one already");
        }
        match PhysMemMeta::from_wire(bytes) {
            Ok(description) => attach(buffer, description, 0),
            Err(err) => malformed(&err),
        }
    }
}
