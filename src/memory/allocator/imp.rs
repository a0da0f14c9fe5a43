// SPDX-License-Identifier: MPL-2.0
//! The three allocator classes and their functions.

use std::ffi::CStr;
use std::ptr;
use std::sync::OnceLock;

use gst::subclass::prelude::*;
use gst_allocators::subclass::prelude::*;

use super::*;
use crate::memory::CAT;
use crate::memory::allocate::Request;
use crate::memory::error::MemoryError;
use crate::memory::region::Access;
use crate::sys::dma_buf::Direction;
use crate::sys::mmap::page_size_bytes;

/// The mem_type of memory without an fd: external memory, and memory of kind region.
const MEM_TYPE: &CStr = c"PhysMemExternal";

/// Defines an allocator class for memory of one kind. `$init` sets the functions of an instance. `$free` frees
/// the GstMemory itself.
macro_rules! allocator_class {
    ($class:ident, $name:literal, $parent:ty, $init:path
     , free: $free:path $(, object: { $($object:item)* })?) => {
        #[derive(Default)]
        pub struct $class {
            kind: OnceLock<MemoryKind>,
            heap: OnceLock<String>,
        }

        #[glib::object_subclass]
        impl ObjectSubclass for $class {
            const NAME: &'static str = $name;
            // See src/copies.rs: another copy of this library may have registered the name.
            const ALLOW_NAME_CONFLICT: bool = true;
            type Type = super::$class;
            type ParentType = $parent;
            type Interfaces = (gst_allocators::PhysMemoryAllocator,);

            fn instance_init(obj: &glib::subclass::InitializingObject<Self>) {
                // SAFETY: the object is a GstAllocator under construction, which no other code has yet.
                unsafe { $init(obj.as_ptr().cast()) };
            }
        }

        impl ObjectImpl for $class {
            $($($object)*)?
        }
        impl GstObjectImpl for $class {}

        // SAFETY: `alloc` gives a whole memory or null. `free` is the parent's, or frees what `bare_memory`
        // and `mem_share` made, and no other function makes such memory.
        unsafe impl AllocatorImpl for $class {
            unsafe fn alloc(
                &self,
                size: usize,
                params: &gst::AllocationParams,
            ) -> *mut gst::ffi::GstMemory {
                let heap = self.heap.get().map(String::as_str);
                alloc(self.obj().upcast_ref(), self.kind.get(), heap, size, params)
            }

            unsafe fn free(&self, memory: *mut gst::ffi::GstMemory) {
                // SAFETY: GStreamer frees each memory once, by the allocator that made it.
                unsafe {
                    let attached = attached::detach(memory);
                    $free(self, memory);
                    if let Some(attached) = attached {
                        attached.end();
                    }
                }
            }
        }

        // SAFETY: the interface has one function, which is set here.
        unsafe impl IsImplementable<$class> for gst_allocators::PhysMemoryAllocator {
            fn interface_init(iface: &mut glib::Interface<Self>) {
                iface.as_mut().get_phys_addr = Some(get_phys_addr);
            }
        }

        impl $class {
            fn make(kind: MemoryKind) -> gst::Allocator {
                let allocator: super::$class = glib::Object::new();
                let _ = allocator.imp().kind.set(kind);
                allocator.upcast()
            }
        }
    };
}

allocator_class!(
    PhysDmaBufAllocator,
    "GstPhysDmaBufAllocator",
    gst_allocators::DmaBufAllocator,
    put_functions,
    free: AllocatorImplExt::parent_free
);
impl FdAllocatorImpl for PhysDmaBufAllocator {}
impl DmaBufAllocatorImpl for PhysDmaBufAllocator {}

allocator_class!(
    PhysFdAllocator,
    "GstPhysFdAllocator",
    gst_allocators::FdAllocator,
    put_functions,
    free: AllocatorImplExt::parent_free
);
impl FdAllocatorImpl for PhysFdAllocator {}

allocator_class!(
    PhysMemAllocator,
    "GstPhysMemAllocator",
    gst::Allocator,
    put_functions_of_bare_memory,
    free: free_bare_memory,
    object: {
        fn properties() -> &'static [glib::ParamSpec] {
            static PROPERTIES: LazyLock<[glib::ParamSpec; 1]> = LazyLock::new(|| {
                [glib::ParamSpecString::builder("heap")
                    .nick("Heap")
                    .blurb("Names the memory of an allocator of kind region, as in /dev/mem@0x30000000+64M")
                    .construct_only()
                    .build()]
            });
            &*PROPERTIES
        }

        fn set_property(&self, _id: usize, value: &glib::Value, _pspec: &glib::ParamSpec) {
            if let Ok(Some(heap)) = crate::property_text::readable(value).get::<Option<String>>() {
                let _ = self.heap.set(heap);
            }
        }

        fn property(&self, _id: usize, _pspec: &glib::ParamSpec) -> glib::Value {
            self.heap.get().to_value()
        }
    }
);

/// # Safety
/// The memory is of a PhysMemAllocator, and no other code uses it any more.
unsafe fn free_bare_memory(_: &PhysMemAllocator, memory: *mut gst::ffi::GstMemory) {
    // SAFETY: the memory is a Box that `bare_memory` or `mem_share` leaked, and is freed only here.
    drop(unsafe { Box::from_raw(memory) });
}

pub(super) fn make(class: AllocatorClass, kind: MemoryKind) -> gst::Allocator {
    let allocator = match class {
        AllocatorClass::DmaBuf => PhysDmaBufAllocator::make(kind),
        AllocatorClass::Fd => PhysFdAllocator::make(kind),
        AllocatorClass::Plain => PhysMemAllocator::make(kind),
    };
    // Statics hold these references, so the leak tracer must not report them.
    allocator.set_object_flags(gst::ObjectFlags::MAY_BE_LEAKED);
    allocator
}

/// # Safety
/// As `put_functions`, for an allocator of memory without an fd.
unsafe fn put_functions_of_bare_memory(allocator: *mut gst::ffi::GstAllocator) {
    // SAFETY: the caller keeps the contract of `put_functions`; the type string is static.
    unsafe {
        put_functions(allocator);
        (*allocator).mem_type = MEM_TYPE.as_ptr();
        (*allocator).mem_share = Some(mem_share);
        (*allocator).mem_is_span = Some(mem_is_span);
    }
}

/// # Safety
/// `allocator` is under construction, and its parent's init has run.
unsafe fn put_functions(allocator: *mut gst::ffi::GstAllocator) {
    // SAFETY: no other code has the object yet, and a subclass may set these fields.
    unsafe {
        (*allocator).mem_map_full = Some(mem_map_full);
        (*allocator).mem_unmap_full = Some(mem_unmap_full);
        // Without the flag, a deep copy that other code makes of the memory would be allocated here.
        (*allocator).object.flags |= gst::ffi::GST_ALLOCATOR_FLAG_CUSTOM_ALLOC;
    }
}

/// Implements gst_allocator_alloc with a region of its own for every memory.
fn alloc(
    allocator: &gst::Allocator,
    kind: Option<&MemoryKind>,
    heap: Option<&str>,
    size: usize,
    params: &gst::AllocationParams,
) -> *mut gst::ffi::GstMemory {
    // Code outside of this library makes allocators of a heap only.
    let kind = match (kind, heap) {
        (Some(&kind), _) => kind,
        (None, Some(_)) => MemoryKind::Region,
        (None, None) => MemoryKind::External,
    };
    match try_alloc(kind, heap, size, params) {
        Ok(mem) => mem.into_glib_ptr(),
        Err(error) => {
            gst::error!(CAT, obj = allocator, "{error}");
            ptr::null_mut()
        }
    }
}

fn try_alloc(
    kind: MemoryKind,
    heap: Option<&str>,
    size: usize,
    params: &gst::AllocationParams,
) -> Result<gst::Memory, MemoryError> {
    // A mapping starts at a page, so only larger alignments need room to move the start up.
    let align = params.align().max(gst::Memory::default_alignment());
    let slack = if align < page_size_bytes() { 0 } else { align };
    let sum = |parts: &[usize]| parts.iter().copied().fold(0, usize::saturating_add);
    let whole = sum(&[params.prefix(), size, params.padding()]);
    // A request for 0 bytes is an error for every alignment.
    let size_bytes = if whole == 0 { 0 } else { sum(&[whole, slack]) };
    let region = Region::allocate(&Request {
        kind,
        heap,
        size_bytes,
        ..Default::default()
    })?;
    let start = (region.ptr() as usize).wrapping_neg() & align;
    let mem = wrap(&region, start, whole, None);
    let mem = mem.into_glib_ptr();
    // Memory that existed before holds what was written to it.
    let zeroed = match kind {
        MemoryKind::Region => gst::MemoryFlags::empty(),
        _ => params.flags(),
    };
    // SAFETY: the memory is new and no other code has it. Prefix and padding lie in the wrapped range, and
    // all of it is zero, as fresh pages are, if `zeroed` has a flag.
    unsafe {
        (*mem).align = align;
        (*mem).offset += params.prefix();
        (*mem).size = size;
        (*mem).mini_object.flags |= zeroed.into_glib()
            & (gst::ffi::GST_MEMORY_FLAG_ZERO_PREFIXED | gst::ffi::GST_MEMORY_FLAG_ZERO_PADDED);
        Ok(from_glib_full(mem))
    }
}

/// Makes a GstMemory without an fd, which [`PhysMemAllocator`] frees.
pub(super) fn bare_memory(allocator: &gst::Allocator, maxsize: usize) -> *mut gst::ffi::GstMemory {
    // SAFETY: an all-zero GstMemory is valid input to gst_memory_init, which sets every field; offset 0 and
    // size = maxsize agree.
    unsafe {
        let mem = Box::into_raw(Box::new(std::mem::zeroed::<gst::ffi::GstMemory>()));
        gst::ffi::gst_memory_init(
            mem,
            0,
            allocator.to_glib_none().0,
            ptr::null_mut(),
            maxsize,
            0,
            0,
            maxsize,
        );
        mem
    }
}

unsafe extern "C" fn mem_share(
    mem: *mut gst::ffi::GstMemory,
    offset: isize,
    size: isize,
) -> *mut gst::ffi::GstMemory {
    // SAFETY: gst_memory_share passes a memory of this allocator. As in GStreamer's own allocators, the new
    // memory is read-only and its parent is the root memory.
    unsafe {
        let root = if (*mem).parent.is_null() {
            mem
        } else {
            (*mem).parent
        };
        // The offset is signed and may point before the memory's start.
        let start = (*mem).offset.wrapping_add_signed(offset);
        let size = match size {
            -1 => (*mem).size.wrapping_sub(offset as usize),
            size => size as usize,
        };
        let sub = Box::into_raw(Box::new(std::mem::zeroed::<gst::ffi::GstMemory>()));
        gst::ffi::gst_memory_init(
            sub,
            (*root).mini_object.flags | gst::ffi::GST_MINI_OBJECT_FLAG_LOCK_READONLY,
            (*mem).allocator,
            root,
            (*mem).maxsize,
            (*mem).align,
            start,
            size,
        );
        sub
    }
}

unsafe extern "C" fn mem_is_span(
    mem1: *mut gst::ffi::GstMemory,
    mem2: *mut gst::ffi::GstMemory,
    offset: *mut usize,
) -> glib::ffi::gboolean {
    // SAFETY: gst_memory_is_span passes two memories of this allocator with one parent, which is not null,
    // and a valid pointer or null.
    unsafe {
        if !offset.is_null() {
            *offset = (*mem1).offset.wrapping_sub((*(*mem1).parent).offset);
        }
        glib::ffi::gboolean::from((*mem1).offset.wrapping_add((*mem1).size) == (*mem2).offset)
    }
}

fn direction(flags: gst::ffi::GstMapFlags) -> Direction {
    Direction {
        read: flags & gst::ffi::GST_MAP_READ != 0,
        write: flags & gst::ffi::GST_MAP_WRITE != 0,
    }
}

/// Returns the region's own mapping, to which GStreamer adds the memory's offset. If the region's owner has
/// freed it, the function logs the reason and returns null.
unsafe extern "C" fn mem_map_full(
    mem: *mut gst::ffi::GstMemory,
    info: *mut gst::ffi::GstMapInfo,
    _maxsize: usize,
) -> gpointer {
    // SAFETY: gst_memory_map passes a live memory of this allocator and an info that stays valid until
    // unmap; flags are set.
    unsafe {
        let Some(attached) = attached::of(mem) else {
            gst::error!(CAT, "memory {mem:p} was not made by wrap()");
            return ptr::null_mut();
        };
        match attached.region.begin_access_for(direction((*info).flags)) {
            Ok(access) => {
                (*info).user_data[0] = access.into_raw().cast_mut().cast();
                attached.region.ptr().cast()
            }
            Err(error) => {
                gst::warning!(CAT, "map of {:?}: {error}", attached.region);
                ptr::null_mut()
            }
        }
    }
}

unsafe extern "C" fn mem_unmap_full(
    mem: *mut gst::ffi::GstMemory,
    info: *mut gst::ffi::GstMapInfo,
) {
    // SAFETY: gst_memory_unmap passes the memory and the info of one earlier map, so user_data[0] is what
    // into_raw gave there, and it is taken back once.
    unsafe {
        if let Some(attached) = attached::of(mem) {
            drop(Access::from_raw(
                &attached.region,
                (*info).user_data[0].cast_const().cast(),
            ));
        }
    }
}

/// Returns the physical address of the memory's first byte if the whole memory lies in one extent, else 0.
/// Callers of this interface take the result for the address of the whole memory.
unsafe extern "C" fn get_phys_addr(
    _allocator: *mut alloc_ffi::GstPhysMemoryAllocator,
    mem: *mut gst::ffi::GstMemory,
) -> libc::uintptr_t {
    // SAFETY: gst_phys_memory_get_phys_addr passes a live memory of this allocator.
    unsafe {
        attached::of(mem)
            .and_then(|attached| attached.region.address().ok())
            .and_then(|address| address.contiguous_at((*mem).offset as u64, (*mem).size as u64))
            .and_then(|phys| libc::uintptr_t::try_from(phys.0).ok())
            .unwrap_or(0)
    }
}
