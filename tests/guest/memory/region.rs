// SPDX-License-Identifier: MPL-2.0
//! Memory that the heap names: RAM that `memmap=16M$0x20000000` keeps from the kernel, and the shared memory
//! of QEMU's device ivshmem-plain, by its PCI region and by UIO. The host reads both at their addresses.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use gst::glib;
use gst::prelude::*;
use gstphysmem::memory::{AddressSource, MemoryError, MemoryKind, PhysAddr, Region, Request};
use gstphysmem::meta::PhysMemMeta;
use gstphysmem::pool::PhysBufferPool;

use crate::conformance::{PIECE, assert_seen_from_outside, fill, piece_bytes};
use crate::support::{self, oracle};
use crate::{allocate, alone_in_the_lab};

const RESERVED: u64 = 0x2000_0000;
const RESERVED_BYTES: u64 = 16 << 20;
const HEAP: &str = "/dev/mem@0x20000000+16M";
/// The size of the memory that the row of tests/lab/matrix gives to ivshmem-plain.
const SHARED_BYTES: u64 = 4 << 20;

fn of(heap: &str, size_bytes: usize) -> Request<'_> {
    Request {
        kind: MemoryKind::Region,
        heap: Some(heap),
        size_bytes,
        ..Default::default()
    }
}

#[track_caller]
fn refusal(heap: &str, size_bytes: usize) -> String {
    let error = Region::allocate(&of(heap, size_bytes)).expect_err(heap);
    println!("{error}");
    error.to_string()
}

#[test]
fn a_pool_over_memory_kept_from_the_kernel_is_where_its_name_says() {
    let _alone = alone_in_the_lab();
    const BUFFERS: u64 = 16;
    const BYTES: u64 = RESERVED_BYTES / BUFFERS;
    let pool = PhysBufferPool::builder()
        .kind(MemoryKind::Region)
        .heap(HEAP)
        .require_contiguous(true)
        .build();
    let mut config = pool.config();
    config.set_params(None, BYTES as u32, BUFFERS as u32, BUFFERS as u32);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let mut places = Vec::new();
    let buffers: Vec<_> = (0..BUFFERS)
        .map(|seed| {
            let mut buffer = pool.acquire_buffer(None).unwrap();
            let phys = {
                let meta = buffer.meta::<PhysMemMeta>().unwrap();
                assert!(meta.is_contiguous() && meta.is_pinned());
                assert_eq!((meta.kind(), meta.heap()), (MemoryKind::Region, Some(HEAP)));
                meta.phys_addr().unwrap()
            };
            let buffer_mut = buffer.get_mut().unwrap();
            let mut map = buffer_mut.map_writable().unwrap();
            for (index, piece) in map.chunks_exact_mut(PIECE).enumerate() {
                piece.copy_from_slice(&piece_bytes(seed, index));
            }
            drop(map);
            places.push((phys.0, seed));
            buffer
        })
        .collect();
    for &(phys, seed) in &places {
        for index in [0, 1, BYTES as usize / PIECE - 1] {
            let at = phys + (index * PIECE) as u64;
            assert!(
                oracle().phys(at, PIECE) == piece_bytes(seed, index),
                "{at:#x}"
            );
        }
    }
    places.sort_unstable();
    let expected: Vec<_> = (0..BUFFERS).map(|n| RESERVED + n * BYTES).collect();
    let places: Vec<_> = places.into_iter().map(|(phys, _)| phys).collect();
    assert_eq!(places, expected);

    // A second pool over the same memory.
    let full = PhysBufferPool::builder()
        .kind(MemoryKind::Region)
        .heap(HEAP)
        .build();
    let mut config = full.config();
    config.set_params(None, BYTES as u32, 1, 1);
    full.set_config(config).unwrap();
    assert!(full.set_active(true).is_err());
    let error = full.last_error().unwrap();
    let words = "in use by other buffers of this process: 0 of its 16777216 bytes are free";
    assert!(error.contains(words), "{error}");

    // The same memory by another name.
    let error = refusal("/dev/mem@0x20800000+4K", 4096);
    assert!(
        error.contains("in use by other buffers of this process: 0 of its 4096"),
        "{error}"
    );
    drop(buffers);
    pool.set_active(false).unwrap();
    let region = allocate(&of("/dev/mem@0x20800000+4K", 4096));
    assert_eq!(region.address().unwrap().first(), PhysAddr(0x2080_0000));
    assert_eq!(region.address().unwrap().source(), AddressSource::User);
}

#[test]
fn uncached_memory_holds_what_was_written_to_it() {
    let _alone = alone_in_the_lab();
    let region = allocate(&of("/dev/mem@0x20000000+16M,sync", 1 << 20));
    for seed in [1, 2] {
        fill(&region, seed);
        assert_seen_from_outside(&region, seed);
    }
}

#[test]
fn memory_of_the_kernel_and_memory_above_the_limit_is_refused() {
    let _alone = alone_in_the_lab();
    let error = refusal("/dev/mem@0x1f000000+32M", 4096);
    assert!(
        error.contains("System RAM") && error.contains("memmap="),
        "{error}"
    );
    let limited = |max_address| {
        Region::allocate(&Request {
            max_address: Some(PhysAddr(max_address)),
            ..of(HEAP, 1 << 20)
        })
    };
    let error = limited(RESERVED + (1 << 20) - 2).unwrap_err();
    assert!(
        matches!(error, MemoryError::AboveMaxAddress { .. }),
        "{error}"
    );
    assert!(limited(RESERVED + (1 << 20) - 1).is_ok());
}

/// Nobody may open /dev/mem. Told so in the element's error, without a copy into other memory.
#[test]
fn a_user_without_privilege_is_told_who_may_open_the_device() {
    let _alone = alone_in_the_lab();
    let pipeline =
        format!("videotestsrc num-buffers=1 ! physmemupload kind=region heap={HEAP} ! fakesink");
    let ran = support::run(&mut support::as_nobody(&support::gst_launch(&pipeline)));
    assert!(!ran.status.success());
    assert!(
        ran.stderr.contains("/dev/mem: Permission denied (EACCES)"),
        "{}",
        ran.stderr
    );
}

/// O_DIRECT fails with EFAULT there, because the mapping has no pages; the frames arrive nevertheless.
#[test]
fn files_are_read_into_the_memory_with_and_without_the_page_cache() {
    let _alone = alone_in_the_lab();
    const FRAME: usize = 512 * 512;
    let directory = tempfile::tempdir().unwrap();
    let mount = Ext4::in_directory(directory.path());
    let frame: Vec<u8> = (0..FRAME / PIECE)
        .flat_map(|index| piece_bytes(7, index))
        .collect();
    let file = mount.0.join("frame.raw");
    fs::write(&file, &frame).unwrap();

    let region = allocate(&of(HEAP, FRAME));
    let direct = fs::File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&file)
        .unwrap();
    // SAFETY: the region is mapped for FRAME bytes, and the kernel alone writes to it.
    let got = unsafe {
        use std::os::fd::AsRawFd;
        libc::pread(direct.as_raw_fd(), region.ptr().cast(), FRAME, 0)
    };
    let error = std::io::Error::last_os_error();
    assert_eq!((got, error.raw_os_error()), (-1, Some(libc::EFAULT)));
    drop((direct, region));

    for (start, reader) in [
        (RESERVED, "direct=false"),
        (RESERVED + (1 << 20), "direct=true io-mode=read"),
        (RESERVED + (2 << 20), "direct=true io-mode=io-uring"),
    ] {
        let pipeline = format!(
            "rawvideosrc location={} format=gray8 width=512 height=512 framerate=25/1 {reader} ! \
             physmemupload kind=region heap=/dev/mem@{start:#x}+1M ! fakesink sync=false",
            file.display()
        );
        support::run(&mut support::gst_launch(&pipeline)).expect_success();
        assert!(oracle().phys(start, FRAME) == frame, "{reader}");
    }
}

/// A file system with O_DIRECT, on a loop device.
struct Ext4(PathBuf);

impl Ext4 {
    fn in_directory(directory: &Path) -> Self {
        let (image, mount) = (directory.join("image"), directory.join("mount"));
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(&mount).unwrap();
        let must = |command: &mut Command| {
            support::run(command).expect_success();
        };
        must(Command::new("/sbin/mkfs.ext4").arg("-q").arg(&image));
        must(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&mount),
        );
        Self(mount)
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        support::run(Command::new("umount").arg(&self.0));
    }
}

/// The directory of ivshmem-plain in sysfs.
fn ivshmem() -> PathBuf {
    let devices = fs::read_dir("/sys/bus/pci/devices").unwrap();
    let is_it = |path: &PathBuf| {
        let id = |file| fs::read_to_string(path.join(file)).unwrap_or_default();
        (id("vendor").trim(), id("device").trim()) == ("0x1af4", "0x1110")
    };
    let mut devices = devices.map(|entry| entry.unwrap().path());
    devices
        .find(is_it)
        .expect("--qemu '-device ivshmem-plain,...'")
}

#[test]
fn the_memory_of_a_pci_device_is_where_its_resource_file_says() {
    let _alone = alone_in_the_lab();
    let device = ivshmem();
    for (file, seed) in [("resource2", 3), ("resource2_wc", 4)] {
        let heap = device.join(file);
        let heap = heap.to_str().unwrap();
        let region = allocate(&of(heap, SHARED_BYTES as usize));
        println!("{region:?} at {:?}", region.address());
        assert_eq!(region.address().unwrap().source(), AddressSource::Sysfs);
        fill(&region, seed);
        assert_seen_from_outside(&region, seed);
        drop(region);
        let part = format!("{heap}@1M+64K");
        let one = allocate(&of(&part, 4096));
        let two = allocate(&of(&part, 4096));
        let first = |region: &Region| region.address().unwrap().first().0;
        assert_eq!(first(&two), first(&one) + 4096);
        fill(&two, seed + 10);
        assert_seen_from_outside(&two, seed + 10);
    }
    // The registers in BAR 0 are less than a page.
    let registers = device.join("resource0");
    let error = refusal(registers.to_str().unwrap(), 4096);
    assert!(error.contains("256 bytes, not one whole page"), "{error}");
    let whole = device.join("resource2@2M+4M");
    let error = refusal(whole.to_str().unwrap(), 4096);
    assert!(error.contains("has 4194304 bytes"), "{error}");
}

/// An allocator of the application's own, as C and Python make it.
#[test]
fn an_allocator_is_made_of_a_name() {
    let _alone = alone_in_the_lab();
    // Registers the type.
    gstphysmem::memory::register();
    let class = glib::Type::from_name("GstPhysMemAllocator").unwrap();
    let allocator = glib::Object::builder_with_type(class)
        .property("heap", HEAP)
        .build();
    let allocator = allocator.downcast::<gst::Allocator>().unwrap();
    let memory = allocator.alloc(8192, None).unwrap();
    let (region, _) = gstphysmem::memory::region_of(&memory).unwrap();
    assert_eq!(region.address().unwrap().first(), PhysAddr(RESERVED));
    let nameless = gst::Allocator::find(Some("PhysMemRegion")).unwrap();
    assert!(nameless.alloc(8192, None).is_err());
}

pub mod uio {
    use super::*;

    /// Debian's kernels have the driver uio_cif, which takes the regions 0 and 2 of any device that it is
    /// told of.
    #[test]
    fn the_map_of_a_uio_device_is_where_sysfs_says() {
        let _alone = alone_in_the_lab();
        let device = ivshmem();
        support::run(Command::new("modprobe").arg("uio_cif")).expect_success();
        fs::write("/sys/bus/pci/drivers/hilscher/new_id", "1af4 1110").unwrap();
        assert!(device.join("uio/uio0").exists(), "the driver is bound");
        let one = allocate(&of("/dev/uio0:map1", 1 << 20));
        let two = allocate(&of("/dev/uio0:map1", 1 << 20));
        for (region, seed) in [(&one, 5), (&two, 6)] {
            println!("{region:?} at {:?}", region.address());
            assert_eq!(region.address().unwrap().source(), AddressSource::Sysfs);
            fill(region, seed);
            assert_seen_from_outside(region, seed);
        }
        assert_seen_from_outside(&one, 5);
        // The PCI region is the same memory.
        let bar = device.join("resource2@1M+4K");
        let error = refusal(bar.to_str().unwrap(), 4096);
        assert!(error.contains("in use by other buffers"), "{error}");
        let error = refusal("/dev/uio0:map0", 4096);
        assert!(error.contains("not one whole page"), "{error}");
    }
}
