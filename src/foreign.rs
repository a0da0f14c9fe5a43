// SPDX-License-Identifier: MPL-2.0
//! Frames that other code made, perhaps in another process. Their GstVideoMeta may hold any strides
//! and offsets, and GStreamer maps and copies by them without comparing them with the memory. Their
//! memory may be a file that is shorter than was said, or that its sender cuts while it is read. Code
//! that reads a frame from upstream, or passes its layout to a driver, therefore has the frame
//! checked here first, and asks again after the last byte.

use std::{ffi::CStr, ops::Deref, os::fd::BorrowedFd};

use gst::glib::translate::ToGlibPtr;
use gst::memory::{MappedMemory, Readable};
use gst_video::VideoFrameRef;

use crate::{
    layout::{Layout, LayoutError, Plane},
    sys::file_map::WatchedBytes,
};

/// Why a frame is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignError {
    #[error(
        "its GstVideoMeta says {meta_width}x{meta_height} {meta_format}, its caps {width}x{height} {format}"
    )]
    OtherFrame {
        meta_width: u32,
        meta_height: u32,
        meta_format: String,
        width: u32,
        height: u32,
        format: String,
    },
    #[error("its GstVideoMeta has {got} planes, its format {wanted}")]
    Planes { got: u32, wanted: u32 },
    #[error("its GstVideoMeta, or its caps, and its memory do not fit together: {0}")]
    Layout(#[from] LayoutError),
    #[error("plane {0} is split over several memories")]
    Split(usize),
    #[error("its memory cannot be mapped for reading")]
    Unmappable,
    #[error(
        "the file that its memory lies in has no bytes from byte {0} of it on: it is shorter than was said, or was cut \
         meanwhile, against which a sender seals it (F_SEAL_SHRINK)"
    )]
    Cut(usize),
}

/// The memories of a buffer whose sender can cut the files that they lie in. While this exists, reads of what was cut
/// give zeroes, where they would end the process with SIGBUS.
struct Watched {
    maps: Vec<(WatchedBytes, MappedMemory<Readable>)>,
}

impl Watched {
    fn new(buffer: &gst::BufferRef) -> Result<Self, ForeignError> {
        let mut maps = Vec::new();
        for memory in buffer.iter_memories_owned() {
            // A peer says both numbers, and in GStreamer's own check their sum wraps around.
            let end_bytes = memory.offset().checked_add(memory.size());
            let end_bytes = end_bytes.filter(|&end| end <= memory.maxsize());
            if !may_lack_bytes(&memory, end_bytes.ok_or(ForeignError::Unmappable)?) {
                continue;
            }
            // Whoever maps the memory once more meanwhile gets the same mapping. The reference is our own, because
            // GStreamer replaces several memories of a buffer by one when it maps them all.
            let map = memory
                .into_mapped_memory_readable()
                .map_err(|_| ForeignError::Unmappable)?;
            let bytes = WatchedBytes::new(map.as_slice()).map_err(|_| ForeignError::Unmappable)?;
            maps.push((bytes, map));
        }
        Ok(Self { maps })
    }

    /// Whether all bytes that were read were there.
    fn check(&self) -> Result<(), ForeignError> {
        let missing = self.maps.iter().find_map(|(bytes, _)| bytes.missing_from());
        missing.map_or(Ok(()), |at| Err(ForeignError::Cut(at)))
    }
}

/// Whether bytes of the memory before `end_bytes` of its file may be missing, now or later. Memory of this plugin and
/// dma-bufs have all of them, and so has a memfd that is long enough and sealed against being cut.
fn may_lack_bytes(memory: &gst::MemoryRef, end_bytes: usize) -> bool {
    let of_file = memory.downcast_memory_ref::<gst_allocators::FdMemory>();
    let Some(of_file) = of_file.filter(|_| crate::memory::region_of(memory).is_none()) else {
        return false;
    };
    // SAFETY: the memory, which is borrowed, keeps its descriptor open.
    let file = unsafe { BorrowedFd::borrow_raw(of_file.fd()) };
    crate::sys::memfd::may_lack_bytes(file, end_bytes as u64)
}

/// A frame mapped for reading.
pub struct Frame<'a> {
    frame: VideoFrameRef<&'a gst::BufferRef>,
    watched: Watched,
}

impl Frame<'_> {
    /// Whether all bytes that were read were there; to be asked after the last one.
    pub fn check(&self) -> Result<(), ForeignError> {
        self.watched.check()
    }
}

impl<'a> Deref for Frame<'a> {
    type Target = VideoFrameRef<&'a gst::BufferRef>;

    fn deref(&self) -> &Self::Target {
        &self.frame
    }
}

/// Reads all bytes of a buffer, whatever they are.
pub fn read<T>(buffer: &gst::BufferRef, read: impl FnOnce(&[u8]) -> T) -> Result<T, ForeignError> {
    let watched = Watched::new(buffer)?;
    let bytes = buffer
        .map_readable()
        .map_err(|_| ForeignError::Unmappable)?;
    let result = read(&bytes);
    watched.check().map(|()| result)
}

/// Where the planes of a frame of `info` are, or with `interlace-mode=alternate` those of a field. Every plane has been
/// checked to lie inside the buffer, in one of its memories.
///
/// The meta may describe a larger frame than the caps: decoders pad their frames. The meta of a field may have its own
/// height, or that of the frame: GStreamer's pools give the latter.
pub fn layout(
    info: &gst_video::VideoInfo,
    buffer: &gst::BufferRef,
) -> Result<Layout, ForeignError> {
    let Some(meta) = buffer.meta::<gst_video::VideoMeta>() else {
        return Ok(Layout::of_buffer(info, buffer)?);
    };
    let other_frame = || ForeignError::OtherFrame {
        meta_width: meta.width(),
        meta_height: meta.height(),
        meta_format: meta.format().to_str().to_string(),
        width: info.width(),
        height: info.height(),
        format: info.format().to_str().to_string(),
    };
    let (width, height) = (meta.width(), meta.height());
    if meta.format() != info.format() || width < info.width() || height < info.field_height() {
        return Err(other_frame());
    }
    if meta.n_planes() != info.n_planes() {
        return Err(ForeignError::Planes {
            got: meta.n_planes(),
            wanted: info.n_planes(),
        });
    }
    let layout = if (width, height) == (info.width(), info.height()) {
        Layout::of_buffer(info, buffer)?
    } else {
        let mut other = gst_video::VideoInfo::builder(info.format(), width, height);
        if height >= info.height() {
            other = other.interlace_mode(info.interlace_mode());
        }
        let other = other.build().map_err(|_| other_frame())?;
        Layout::of_buffer(&other, buffer)?
    };
    for (index, plane) in layout.planes().iter().enumerate() {
        // If a pixel is not a whole number of bytes, GStreamer copies rows with their padding,
        // including that of the last row.
        let row_bytes = match has_whole_bytes(info, index) {
            true => plane.row_bytes,
            false => plane.stride_bytes,
        };
        let end_bytes = Plane {
            row_bytes,
            ..*plane
        }
        .end_bytes();
        let end_bytes = end_bytes.ok_or(LayoutError::Overflow)?;
        // GStreamer maps only the memory in which a plane begins.
        match buffer.find_memory(plane.offset_bytes..end_bytes) {
            Some((memories, _)) if memories.len() == 1 => {}
            Some(_) => return Err(ForeignError::Split(index)),
            None => {
                return Err(ForeignError::Layout(LayoutError::PastEnd {
                    plane: index,
                    end_bytes,
                    size_bytes: buffer.size(),
                }));
            }
        }
    }
    Ok(layout)
}

fn has_whole_bytes(info: &gst_video::VideoInfo, plane: usize) -> bool {
    (0..info.n_components()).all(|component| {
        info.comp_plane(component as u8) as usize != plane
            || info.comp_pstride(component as u8) != 0
    })
}

pub fn map<'a>(
    info: &gst_video::VideoInfo,
    buffer: &'a gst::BufferRef,
) -> Result<Frame<'a>, ForeignError> {
    layout(info, buffer)?;
    let watched = Watched::new(buffer)?;
    let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info)
        .map_err(|_| ForeignError::Unmappable)?;
    Ok(Frame { frame, watched })
}

/// The type of the memory that an allocator makes, such as "SystemMemory". `None` if the allocator does not say, as that of
/// shmsink.
pub(crate) fn memory_type(allocator: &gst::Allocator) -> Option<&str> {
    // SAFETY: the pointer is that of a GstAllocator. Its `mem_type` is null, or a string that the allocator sets once and
    // keeps.
    unsafe {
        let allocator: *mut gst::ffi::GstAllocator = allocator.to_glib_none().0;
        let mem_type = (*allocator).mem_type;
        (!mem_type.is_null()).then(|| CStr::from_ptr(mem_type))
    }
    .and_then(|name| name.to_str().ok())
}

/// Whether an allocator makes ordinary memory; `None` stands for GStreamer's default allocator.
pub(crate) fn is_system(allocator: Option<&gst::Allocator>) -> bool {
    allocator.is_none_or(|allocator| memory_type(allocator) == Some("SystemMemory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::samples;
    use crate::sys::page::page_size_bytes;
    use gst_video::VideoFormat;

    const WIDTH: u32 = 64;
    const HEIGHT: u32 = 32;

    fn info(format: VideoFormat) -> gst_video::VideoInfo {
        gst::init().unwrap();
        samples::info(format, WIDTH, HEIGHT)
    }

    /// A frame in memories of these sizes, whose correct meta `change` may spoil.
    fn frame(
        info: &gst_video::VideoInfo,
        sizes: &[usize],
        change: impl FnOnce(&mut gst_video::ffi::GstVideoMeta),
    ) -> gst::Buffer {
        let mut buffer = gst::Buffer::new();
        let buffer_ref = buffer.get_mut().unwrap();
        for &size in sizes {
            buffer_ref.append_memory(gst::Memory::with_size(size));
        }
        let n = info.n_planes() as usize;
        gst_video::VideoMeta::add_full(
            buffer_ref,
            gst_video::VideoFrameFlags::empty(),
            info.format(),
            info.width(),
            info.height(),
            &info.offset()[..n],
            &info.stride()[..n],
        )
        .unwrap();
        // SAFETY: the meta was just added to the buffer, which no other code refers to.
        change(unsafe { &mut *gst_video::ffi::gst_buffer_get_video_meta(buffer_ref.as_mut_ptr()) });
        buffer
    }

    #[test]
    fn right_metas_are_taken_padded_ones_too() {
        for format in [VideoFormat::Bgrx, VideoFormat::I420, VideoFormat::V210] {
            let info = info(format);
            let right = frame(&info, &[info.size()], |_| ());
            assert_eq!(layout(&info, &right), Ok(Layout::of_info(&info)));
            assert!(map(&info, &right).is_ok());
            let padded = frame(&info, &[3 * info.size()], |meta| {
                meta.stride = meta.stride.map(|stride| 2 * stride);
                meta.offset = meta.offset.map(|offset| 2 * offset + 7);
            });
            let layout = layout(&info, &padded).unwrap();
            assert_eq!(layout.planes[0].offset_bytes, 7);
            assert_eq!(layout.planes[0].stride_bytes, 2 * info.stride()[0] as usize);
        }
    }

    #[test]
    fn a_meta_of_a_larger_frame_is_that_of_padding() {
        let small = info(VideoFormat::Bgrx);
        let large = gst_video::VideoInfo::builder(VideoFormat::Bgrx, 80, 48)
            .build()
            .unwrap();
        let buffer = frame(&large, &[large.size()], |_| ());
        let layout = layout(&small, &buffer).unwrap();
        assert_eq!(
            (layout.planes[0].stride_bytes, layout.planes[0].rows),
            (320, 48)
        );
        let cut = frame(&large, &[large.size() - 1], |_| ());
        assert!(super::layout(&small, &cut).is_err());
    }

    #[test]
    fn metas_that_do_not_fit_their_memory_are_refused() {
        type Change = fn(&mut gst_video::ffi::GstVideoMeta);
        let wrong: [(&str, Change); 16] = [
            ("no planes", |meta| meta.n_planes = 0),
            ("a hundred planes", |meta| meta.n_planes = 100),
            ("the most planes", |meta| meta.n_planes = u32::MAX),
            ("one plane less or more", |meta| meta.n_planes ^= 2),
            ("the last offset", |meta| meta.offset = [usize::MAX - 5; 4]),
            ("half the address space", |meta| {
                meta.offset = [usize::MAX / 2 + 1; 4]
            }),
            ("an offset at the end", |meta| {
                meta.offset = [2 * 64 * 32 * 4; 4]
            }),
            ("the longest stride", |meta| meta.stride = [i32::MAX; 4]),
            ("no stride", |meta| meta.stride = [0; 4]),
            ("a short stride", |meta| meta.stride = [1; 4]),
            ("a negative stride", |meta| meta.stride = [-256; 4]),
            ("the least stride", |meta| meta.stride = [i32::MIN; 4]),
            ("a huge frame", |meta| {
                (meta.width, meta.height) = (i32::MAX as u32, i32::MAX as u32);
            }),
            ("the largest frame", |meta| {
                (meta.width, meta.height) = (u32::MAX, u32::MAX);
            }),
            ("no frame", |meta| (meta.width, meta.height) = (0, 0)),
            ("another format", |meta| {
                meta.format = gst_video::ffi::GST_VIDEO_FORMAT_UYVY
            }),
        ];
        for format in [VideoFormat::Bgrx, VideoFormat::Nv12, VideoFormat::I420] {
            let info = info(format);
            for (name, change) in wrong {
                let buffer = frame(&info, &[2 * info.size()], change);
                assert!(layout(&info, &buffer).is_err(), "{format:?}, {name}");
                assert!(map(&info, &buffer).is_err(), "{format:?}, {name}");
            }
        }
    }

    #[test]
    fn memory_that_is_too_short_is_refused_with_and_without_a_meta() {
        for format in [VideoFormat::Bgrx, VideoFormat::I420, VideoFormat::Rgb8p] {
            let info = info(format);
            for sizes in [&[][..], &[0], &[1], &[info.size() - 1]] {
                let mut buffer = frame(&info, sizes, |_| ());
                assert!(map(&info, &buffer).is_err(), "{format:?}, {sizes:?}");
                let buffer_ref = buffer.get_mut().unwrap();
                let meta = buffer_ref.meta_mut::<gst_video::VideoMeta>().unwrap();
                meta.remove().unwrap();
                assert!(map(&info, &buffer).is_err(), "{format:?}, {sizes:?}");
            }
        }
    }

    #[test]
    fn rows_that_are_copied_with_their_padding_need_it_in_the_last_one_too() {
        let info = info(VideoFormat::V210);
        let stride = 2 * info.stride()[0] as usize;
        let padded = |size| frame(&info, &[size], |meta| meta.stride[0] = stride as i32);
        assert!(map(&info, &padded(stride * HEIGHT as usize)).is_ok());
        assert!(map(&info, &padded(stride * HEIGHT as usize - 1)).is_err());
    }

    #[test]
    fn planes_may_be_in_memories_of_their_own_but_not_in_two() {
        let info = info(VideoFormat::I420);
        let (luma, chroma) = (info.offset()[1], info.offset()[2] - info.offset()[1]);
        assert!(map(&info, &frame(&info, &[luma, chroma, chroma], |_| ())).is_ok());
        let split = frame(&info, &[luma, chroma - 1, chroma + 1], |_| ());
        assert_eq!(layout(&info, &split), Err(ForeignError::Split(1)));
    }

    /// As GstVideoBufferPool makes them: the meta has the height of the frame, and the memory the size of a field.
    #[test]
    fn a_field_is_found_whether_its_meta_has_the_height_of_the_frame_or_its_own() {
        gst::init().unwrap();
        for format in [VideoFormat::Bgrx, VideoFormat::I420] {
            let info = gst_video::VideoInfo::builder(format, WIDTH, HEIGHT)
                .interlace_mode(gst_video::VideoInterlaceMode::Alternate)
                .build()
                .unwrap();
            let with_height = |height| frame(&info, &[info.size()], |meta| meta.height = height);
            let found = layout(&info, &with_height(HEIGHT / 2)).unwrap();
            assert_eq!(found.planes()[0].rows, HEIGHT as usize / 2);
            assert_eq!(layout(&info, &with_height(HEIGHT)), Ok(found));
            assert!(
                layout(&info, &with_height(HEIGHT + 8)).is_err(),
                "more than there is"
            );
            assert!(
                layout(&info, &with_height(HEIGHT / 2 - 1)).is_err(),
                "less than a field"
            );
            let field = samples::info(format, WIDTH, HEIGHT / 2);
            assert!(layout(&field, &with_height(HEIGHT)).is_err(), "not a field");
        }
    }

    /// Memory over a file, as unixfdsrc makes it of what another process says.
    fn memory_of(file: impl Into<std::os::fd::OwnedFd>, size: usize) -> gst::Memory {
        use gst_allocators::prelude::*;
        use std::os::fd::IntoRawFd;
        let allocator = gst_allocators::FdAllocator::new();
        let fd = file.into().into_raw_fd();
        // SAFETY: the memory closes the descriptor, which nothing else has.
        let memory =
            unsafe { allocator.alloc_fd(fd, size, gst_allocators::FdMemoryFlags::empty()) };
        memory.unwrap()
    }

    fn buffer_of(memories: impl IntoIterator<Item = gst::Memory>) -> gst::Buffer {
        let mut buffer = gst::Buffer::new();
        for memory in memories {
            buffer.get_mut().unwrap().append_memory(memory);
        }
        buffer
    }

    fn memfd(size: u64) -> std::fs::File {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let file = memfd_create(c"test", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
        let file = std::fs::File::from(file.unwrap());
        file.set_len(size).unwrap();
        file
    }

    #[test]
    fn a_frame_whose_sender_cuts_its_file_is_refused_and_no_fault_ends_the_process() {
        gst::init().unwrap();
        // A frame of two pages, because what is left of the last page of a file can be read.
        let page_bytes = page_size_bytes();
        let height = 2 * page_bytes as u32 / (4 * WIDTH);
        let info = samples::info(VideoFormat::Bgrx, WIDTH, height);
        let file = memfd(info.size() as u64);
        let buffer = buffer_of([memory_of(file.try_clone().unwrap(), info.size())]);
        let frame = map(&info, &buffer).unwrap();
        let sum = || {
            frame
                .plane_data(0)
                .unwrap()
                .iter()
                .map(|byte| u64::from(*byte))
                .sum::<u64>()
        };
        assert_eq!((sum(), frame.check()), (0, Ok(())));
        file.set_len(page_bytes as u64).unwrap();
        let cut = ForeignError::Cut(page_bytes);
        assert_eq!((sum(), frame.check()), (0, Err(cut.clone())));
        drop(frame);
        let read_again = read(&buffer, |bytes| bytes.iter().all(|byte| *byte == 0));
        assert_eq!(read_again, Err(cut));
        // A file that was too short from the beginning, as the second memory of a buffer.
        let two = buffer_of([
            memory_of(memfd(4096), 4096),
            memory_of(memfd(0), info.size() - 4096),
        ]);
        assert_eq!(read(&two, |bytes| bytes.len()), Err(ForeignError::Cut(0)));
    }

    #[test]
    fn each_reader_of_the_same_memory_learns_that_it_was_cut() {
        gst::init().unwrap();
        let page_bytes = page_size_bytes();
        let info = samples::info(
            VideoFormat::Bgrx,
            WIDTH,
            2 * page_bytes as u32 / (4 * WIDTH),
        );
        let file = memfd(info.size() as u64);
        let buffer = buffer_of([memory_of(file.try_clone().unwrap(), info.size())]);
        let (one, other) = (map(&info, &buffer).unwrap(), map(&info, &buffer).unwrap());
        let is_zero =
            |frame: &Frame<'_>| frame.plane_data(0).unwrap().iter().all(|byte| *byte == 0);
        file.set_len(page_bytes as u64).unwrap();
        assert!(is_zero(&one) && is_zero(&other));
        let cut = Err(ForeignError::Cut(page_bytes));
        assert_eq!((one.check(), other.check()), (cut.clone(), cut.clone()));
        // The zeroes are there as long as the memory is mapped.
        let later = map(&info, &buffer).unwrap();
        assert!(is_zero(&later));
        assert_eq!(later.check(), cut);
    }

    #[test]
    fn only_files_that_can_be_cut_are_watched() {
        use nix::fcntl::{FcntlArg, SealFlag, fcntl};
        gst::init().unwrap();
        let watched = |memory| {
            let buffer = buffer_of([memory]);
            Watched::new(&buffer).map(|watched| watched.maps.len())
        };
        assert_eq!(watched(gst::Memory::with_size(64)), Ok(0));
        let sealed = memfd(4096);
        fcntl(&sealed, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        assert_eq!(watched(memory_of(sealed.try_clone().unwrap(), 4096)), Ok(0));
        // It is sealed, and has been too short from the beginning.
        assert_eq!(watched(memory_of(sealed, 8192)), Ok(1));
        assert_eq!(watched(memory_of(memfd(4096), 4096)), Ok(1));
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert_eq!(watched(memory_of(file, 4096)), Ok(1));
    }

    #[test]
    fn a_place_whose_end_wraps_around_is_refused() {
        gst::init().unwrap();
        let mut memory = memory_of(memfd(8192), 8192);
        // As unixfdsrc of GStreamer 1.28 makes it of the offset 2^64 - 8192 and the size 16384.
        let memory_mut = memory.get_mut().unwrap();
        // SAFETY: the memory is this test's alone, and is not mapped with these numbers.
        unsafe {
            let raw = memory_mut.as_mut_ptr();
            ((*raw).offset, (*raw).size) = (usize::MAX - 8191, 16384);
        }
        let buffer = buffer_of([memory]);
        assert_eq!(read(&buffer, <[u8]>::len), Err(ForeignError::Unmappable));
    }

    #[test]
    fn a_plane_of_one_row_has_no_negative_stride_either() {
        for format in [VideoFormat::V210, VideoFormat::Bgrx] {
            gst::init().unwrap();
            let info = samples::info(format, WIDTH, 1);
            for stride in [-256, 0, 16] {
                let buffer = frame(&info, &[2 * info.size()], |meta| meta.stride[0] = stride);
                assert!(map(&info, &buffer).is_err(), "{format:?} {stride}");
            }
        }
    }

    #[test]
    fn what_is_no_memory_is_refused() {
        gst::init().unwrap();
        let (pipe, _writer) = nix::unistd::pipe().unwrap();
        let open = |path: &str| std::fs::File::open(path).unwrap();
        for file in [
            open("/").into(),
            open("/dev/null").into(),
            open("/proc/self/status").into(),
            pipe,
        ] {
            let buffer = buffer_of([memory_of(file, 4096)]);
            assert_eq!(read(&buffer, <[u8]>::len), Err(ForeignError::Unmappable));
        }
    }

    /// As the allocator of shmsink, it says nothing of its memory.
    mod nameless {
        use gst::glib;
        use gst::subclass::prelude::*;

        #[derive(Default)]
        pub struct Nameless;

        #[glib::object_subclass]
        impl ObjectSubclass for Nameless {
            const NAME: &'static str = "PhysMemTestNamelessAllocator";
            type Type = super::NamelessAllocator;
            type ParentType = gst::Allocator;
        }

        impl ObjectImpl for Nameless {}
        impl GstObjectImpl for Nameless {}
        // SAFETY: nothing allocates with it.
        unsafe impl AllocatorImpl for Nameless {}
    }

    gst::glib::wrapper! {
        pub struct NamelessAllocator(ObjectSubclass<nameless::Nameless>) @extends gst::Allocator, gst::Object;
    }

    #[test]
    fn an_allocator_that_says_nothing_of_its_memory_is_not_taken_for_the_systems() {
        use gst::glib::object::Cast;
        gst::init().unwrap();
        let nameless: NamelessAllocator = gst::glib::Object::new();
        let nameless: gst::Allocator = nameless.upcast();
        assert_eq!(memory_type(&nameless), None);
        assert!(!is_system(Some(&nameless)) && is_system(None));
        let system = gst::Allocator::find(Some("SystemMemory")).unwrap();
        assert!(is_system(Some(&system)));
    }
}
