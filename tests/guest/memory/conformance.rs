// SPDX-License-Identifier: MPL-2.0
//! The conformance suite: what every kind of memory must do.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use gstphysmem::memory::{Address, Region, Request, region_of, wrap};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags};

use crate::allocate;
use crate::support::{self, oracle};

/// The bytes that are compared at once: no page is smaller than this.
pub const PIECE: usize = 4096;

/// Runs the suite over memory for this request, and returns the last region that it allocated.
pub fn check(request: &Request<'_>) -> Arc<Region> {
    let fds = support::open_fds();
    let maps = count_our_mappings();
    drop(allocate(request));
    assert_eq!(support::open_fds(), fds, "an fd outlives its region");
    assert_eq!(count_our_mappings(), maps, "a mapping outlives its region");

    let region = allocate(request);
    println!("{}: {}", request.kind, summary(&region));
    assert!(region.size_bytes() >= request.size_bytes);
    assert!((region.ptr() as usize).is_multiple_of(support::page_size()));
    assert!(region.is_pinned(), "{}", region.pin_note());
    if let Ok(address) = region.address() {
        assert_eq!(address.len_bytes(), region.size_bytes() as u64);
        assert_eq!(address.extents().len() == 1, address.is_contiguous());
    }

    starts_as_zeros(&region);
    bytes_are_at_the_address(&region);
    stays_in_place(&region);
    does_not_overlap(&region, request);
    parts_have_their_own_address(&region);
    copy_is_not_ours(&region);
    fds_lead_to_the_same_bytes(&region);
    memory_outlives_the_region_reference(request);
    region
}

fn summary(region: &Region) -> String {
    let address = match region.address() {
        Ok(address) => format!(
            "{} in {} extents, by {}",
            address.first(),
            address.extents().len(),
            address.source()
        ),
        Err(reason) => reason.to_string(),
    };
    format!(
        "{} {:?}, {} bytes at {address}; {}",
        region.kind(),
        region.heap(),
        region.size_bytes(),
        region.pin_note()
    )
}

/// The number of mappings of this process that the library made.
fn count_our_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let is_ours = |line: &&str| {
        ["memfd:physmem", "/dmabuf:", "io_uring", "perf_event"]
            .iter()
            .any(|name| line.contains(name))
    };
    maps.lines().filter(is_ours).count()
}

/// The bytes of piece `index` after `fill` with this seed. No two pieces are alike.
pub fn piece_bytes(seed: u64, index: usize) -> Vec<u8> {
    let mut piece = vec![0; PIECE];
    for (i, byte) in piece.iter_mut().enumerate() {
        *byte = (i as u64).wrapping_mul(seed.wrapping_mul(2) + 1) as u8;
    }
    piece[..8].copy_from_slice(&(index as u64).to_le_bytes());
    piece[PIECE - 8..].copy_from_slice(&seed.to_le_bytes());
    piece
}

/// Writes the pattern through a GStreamer map, as an element does.
pub fn fill(region: &Arc<Region>, seed: u64) {
    let mut mem = wrap(region, 0, region.size_bytes(), None);
    let mem = mem.get_mut().expect("a new memory has one owner");
    let mut map = mem.map_writable().expect("the memory can be mapped");
    assert_eq!(map.as_ptr().cast_mut(), region.ptr());
    let mut piece = piece_bytes(seed, 0);
    for (index, target) in map.chunks_exact_mut(PIECE).enumerate() {
        piece[..8].copy_from_slice(&(index as u64).to_le_bytes());
        target.copy_from_slice(&piece);
    }
}

/// The first piece, the last one, and twelve pseudo-random ones that depend on the seed.
fn sample_pieces(pieces: usize, seed: u64) -> impl Iterator<Item = usize> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let random = (0..12).map(move |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % pieces
    });
    [0, pieces - 1].into_iter().chain(random)
}

/// Fails unless the host finds the pattern at the region's address.
pub fn assert_seen_from_outside(region: &Region, seed: u64) {
    let Ok(address) = region.address() else {
        return;
    };
    for piece in sample_pieces(region.size_bytes() / PIECE, seed) {
        let phys = address
            .at((piece * PIECE) as u64)
            .expect("the piece has an address");
        assert!(
            oracle().phys(phys.0, PIECE) == piece_bytes(seed, piece),
            "piece {piece} of {} is not at {phys}",
            summary(region)
        );
    }
}

fn starts_as_zeros(region: &Arc<Region>) {
    let mem = wrap(region, 0, region.size_bytes(), None);
    let map = mem.map_readable().expect("the memory can be mapped");
    let zeros = [0; PIECE];
    assert!(map.chunks_exact(PIECE).all(|piece| piece == zeros));
}

fn bytes_are_at_the_address(region: &Arc<Region>) {
    fill(region, 1);
    assert_seen_from_outside(region, 1);
    // A second pattern, so that no cache and no earlier answer can pass for the memory.
    fill(region, 2);
    assert_seen_from_outside(region, 2);
}

fn stays_in_place(region: &Arc<Region>) {
    disturb_memory(|| fill(region, 3));
    assert_seen_from_outside(region, 3);
    fill(region, 4);
    assert_seen_from_outside(region, 4);
}

/// Does what moves pages that are not pinned: it compacts fragmented memory, and it writes to pages
/// that a forked child shares (copy on write).
pub fn disturb_memory(mut write: impl FnMut()) {
    fragment_and_compact();
    let child = Child::fork();
    write();
    child.end();
    fragment_and_compact();
}

fn fragment_and_compact() {
    let (block, page_bytes) = (128 << 20, support::page_size());
    // SAFETY: a new anonymous mapping, used here alone and unmapped below.
    unsafe {
        let ptr = nix::sys::mman::mmap_anonymous(
            None,
            std::num::NonZeroUsize::new(block).expect("not 0"),
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE,
        )
        .expect("the guest has so much memory");
        for offset in (0..block).step_by(2 * page_bytes) {
            let page = ptr.byte_add(offset);
            nix::sys::mman::madvise(page, page_bytes, nix::sys::mman::MmapAdvise::MADV_DONTNEED)
                .expect("pages can be given back");
        }
        std::fs::write("/proc/sys/vm/compact_memory", "1").expect("memory can be compacted");
        nix::sys::mman::munmap(ptr, block).expect("the block was mapped");
    }
    std::fs::write("/proc/sys/vm/compact_memory", "1").expect("memory can be compacted");
}

/// A forked child that ends when `end` is called.
struct Child {
    pid: libc::pid_t,
    go: Option<OwnedFd>,
}

impl Child {
    fn fork() -> Self {
        let (wait, go) = nix::unistd::pipe().expect("a pipe");
        // SAFETY: the child calls only close, read and _exit, which are safe after
        // a fork of a process with threads.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            0 => {
                drop(go);
                let _ = nix::unistd::read(&wait, &mut [0]);
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(0) }
            }
            pid => Self { pid, go: Some(go) },
        }
    }

    fn end(mut self) {
        drop(self.go.take());
        // SAFETY: the child is ours, and no status is asked for.
        let ended = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
        assert_eq!(ended, self.pid);
    }
}

fn does_not_overlap(region: &Arc<Region>, request: &Request<'_>) {
    let other = allocate(request);
    fill(region, 5);
    fill(&other, 6);
    assert_seen_from_outside(region, 5);
    assert_seen_from_outside(&other, 6);
    if let (Ok(a), Ok(b)) = (region.address(), other.address()) {
        assert!(disjoint(a, b), "{a:?} and {b:?} overlap");
    }
}

fn disjoint(a: &Address, b: &Address) -> bool {
    let mut extents: Vec<_> = a.extents().iter().chain(b.extents()).collect();
    extents.sort_by_key(|extent| extent.phys);
    extents
        .windows(2)
        .all(|pair| pair[0].phys.0 + pair[0].len_bytes <= pair[1].phys.0)
}

fn phys_addr(mem: &gst::MemoryRef) -> u64 {
    mem.downcast_memory_ref::<gst_allocators::PhysMemory>()
        .expect("the allocators implement GstPhysMemoryAllocator")
        .phys_addr() as u64
}

fn parts_have_their_own_address(region: &Arc<Region>) {
    let mem = wrap(region, 0, region.size_bytes(), None);
    let (whole, sub) = (phys_addr(&mem), mem.share(PIECE + 16..PIECE + 116));
    let subsub = sub.share(4..);
    let Ok(address) = region.address() else {
        assert_eq!((whole, phys_addr(&sub)), (0, 0));
        return;
    };
    let expected = if address.is_contiguous() {
        address.first().0
    } else {
        0 // no one address leads to all of it
    };
    assert_eq!(whole, expected);
    let at = |offset: usize| address.at(offset as u64).expect("inside").0;
    assert_eq!(phys_addr(&sub), at(PIECE + 16));
    assert_eq!(phys_addr(&subsub), at(PIECE + 20));
    let second_half = wrap(region, region.size_bytes() / 2, PIECE, None);
    assert_eq!(phys_addr(&second_half), at(region.size_bytes() / 2));
    let is_flagged = |mem: &gst::MemoryRef| {
        mem.flags()
            .contains(gst::MemoryFlags::PHYSICALLY_CONTIGUOUS)
    };
    assert_eq!(is_flagged(&mem), address.is_contiguous());
    assert!(is_flagged(&second_half));
}

fn copy_is_not_ours(region: &Arc<Region>) {
    fill(region, 7);
    let mem = wrap(region, 0, region.size_bytes(), None);
    let copy = mem.copy();
    assert!(region_of(&copy).is_none());
    assert!(copy.is_type("SystemMemory"));
    let map = copy.map_readable().expect("the copy can be mapped");
    assert!(map[..PIECE] == piece_bytes(7, 0));
}

fn fds_lead_to_the_same_bytes(region: &Arc<Region>) {
    let mem = wrap(region, PIECE, PIECE, None);
    let is_dma_buf = mem.is_memory_type::<gst_allocators::DmaBufMemory>();
    assert_eq!(is_dma_buf, region.kind().has_dma_buf());
    assert_eq!(region.dma_buf().is_some(), is_dma_buf);
    assert_eq!(mem.is_type("dmabuf"), is_dma_buf);
    assert!(mem.is_memory_type::<gst_allocators::FdMemory>());
    fill(region, 8);
    let fd = region.fd().expect("allocated memory has an fd");
    // A memfd that is handed out can only be read, but a device may write into a dma-buf.
    let may_write = region
        .dma_buf()
        .is_some_and(|dma_buf| dma_buf.as_raw_fd() == fd.as_raw_fd());
    let second = SecondMapping::map(fd, region.size_bytes(), may_write).expect("can be mapped");
    let access = region.begin_access(true).expect("the memory is there");
    for piece in sample_pieces(region.size_bytes() / PIECE, 8) {
        let bytes = second.piece(piece);
        assert!(bytes == piece_bytes(8, piece), "piece {piece}");
    }
    if !may_write {
        let refused = SecondMapping::map(fd, region.size_bytes(), true);
        assert_eq!(refused.err(), Some(Errno::EPERM));
        return cannot_be_taken_away(region, fd);
    }
    second.write(PIECE, 0xa5);
    // SAFETY: the byte lies in the region, which nobody else uses now.
    let byte = unsafe { access.ptr().add(PIECE).read_volatile() };
    assert_eq!(byte, 0xa5);
}

/// Checks that the seals hold: a process with the memfd cannot replace the pages whose addresses
/// are known.
fn cannot_be_taken_away(region: &Arc<Region>, memfd: BorrowedFd<'_>) {
    use rustix::fs::{FallocateFlags, fallocate, ftruncate};
    use rustix::io::Errno;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let len = region.size_bytes() as u64;
    assert_eq!(fallocate(memfd, hole, 0, len), Err(Errno::PERM));
    assert_eq!(ftruncate(memfd, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(memfd, 2 * len), Err(Errno::PERM));
    fill(region, 11);
    bytes_are_at_the_address(region);
}

/// A second mapping of the memory, as another process would make it.
struct SecondMapping {
    ptr: NonNull<u8>,
    len_bytes: usize,
}

impl SecondMapping {
    fn map(fd: impl AsFd, len_bytes: usize, may_write: bool) -> nix::Result<Self> {
        let len = std::num::NonZeroUsize::new(len_bytes).expect("not 0");
        let mut prot = ProtFlags::PROT_READ;
        prot.set(ProtFlags::PROT_WRITE, may_write);
        // SAFETY: a new mapping at no particular address.
        let ptr = unsafe { nix::sys::mman::mmap(None, len, prot, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self {
            ptr: ptr.cast(),
            len_bytes,
        })
    }

    fn piece(&self, index: usize) -> Vec<u8> {
        let mut piece = vec![0; PIECE];
        assert!((index + 1) * PIECE <= self.len_bytes);
        // SAFETY: the piece lies in the mapping, and `piece` has its length.
        unsafe {
            self.ptr
                .add(index * PIECE)
                .copy_to_nonoverlapping(NonNull::from(&mut piece[..]).cast(), PIECE);
        }
        piece
    }

    fn write(&self, offset: usize, byte: u8) {
        assert!(offset < self.len_bytes);
        // SAFETY: the byte lies in the mapping.
        unsafe { self.ptr.add(offset).write_volatile(byte) };
    }
}

impl Drop for SecondMapping {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, unmapped once.
        unsafe { nix::sys::mman::munmap(self.ptr.cast(), self.len_bytes) }.expect("was mapped");
    }
}

fn memory_outlives_the_region_reference(request: &Request<'_>) {
    let region = allocate(request);
    fill(&region, 9);
    let address = region.address().ok().map(Address::first);
    let weak = Arc::downgrade(&region);
    let mem = wrap(&region, 0, PIECE, None);
    drop(region);
    assert!(mem.map_readable().expect("still mapped")[..] == piece_bytes(9, 0));
    if let Some(address) = address {
        assert!(oracle().phys(address.0, PIECE) == piece_bytes(9, 0));
    }
    drop(mem);
    assert!(weak.upgrade().is_none());
}
