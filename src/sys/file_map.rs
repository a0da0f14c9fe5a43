// SPDX-License-Identifier: MPL-2.0
//! A file mapped for reading that outlives its own file.
//!
//! A page of a mapped file that the file no longer has (it was truncated), or
//! that cannot be read from its medium, raises SIGBUS in whoever looks at it,
//! and that may be any element downstream. The first mapping therefore installs
//! a SIGBUS handler, as libwayland does for shared memory pools: an address
//! inside one of our mappings gets zeroed pages and the mapping is marked
//! damaged; every other SIGBUS goes to the handler that was there before.

use std::{
    io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
};

use nix::sys::mman;

/// What the signal handler must know of a mapping. Nodes are never freed, so
/// that the handler can walk the list at any time; they are used again.
struct Node {
    start: AtomicUsize,
    end: AtomicUsize,
    damaged: AtomicBool,
    in_use: AtomicBool,
    next: *const Node,
}

// SAFETY: `next` is set before the node is published and never changed.
unsafe impl Sync for Node {}
// SAFETY: as above.
unsafe impl Send for Node {}

static NODES: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());

fn nodes() -> impl Iterator<Item = &'static Node> {
    let mut next: *const Node = NODES.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: null, or a node from `claim`, which leaks them.
        let node = unsafe { next.as_ref() }?;
        next = node.next;
        Some(node)
    })
}

/// A node that no mapping uses.
fn claim() -> &'static Node {
    for node in nodes() {
        if !node.in_use.swap(true, Ordering::AcqRel) {
            return node;
        }
    }
    let node = Box::leak(Box::new(Node {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        damaged: AtomicBool::new(false),
        in_use: AtomicBool::new(true),
        next: ptr::null(),
    }));
    let mut head = NODES.load(Ordering::Acquire);
    loop {
        node.next = head;
        match NODES.compare_exchange(head, node, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return node,
            Err(now) => head = now,
        }
    }
}

/// A file mapped read-only, from its first byte on.
pub struct FileMap {
    ptr: NonNull<u8>,
    len_bytes: usize,
    node: &'static Node,
}

// SAFETY: a mapping belongs to the process; the type gives out a raw pointer only.
unsafe impl Send for FileMap {}
// SAFETY: as above; what is shared is read-only.
unsafe impl Sync for FileMap {}

impl std::fmt::Debug for FileMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileMap")
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}

impl FileMap {
    /// Maps the first `len_bytes` of `file`.
    pub fn new(file: impl AsFd, len_bytes: usize) -> io::Result<Self> {
        install_handler()?;
        let ptr = super::mmap::map_shared(file, len_bytes, mman::ProtFlags::PROT_READ)?;
        let node = claim();
        node.damaged.store(false, Ordering::Relaxed);
        node.start.store(ptr.as_ptr() as usize, Ordering::Relaxed);
        let end =
            (ptr.as_ptr() as usize + len_bytes).next_multiple_of(super::mmap::page_size_bytes());
        node.end.store(end, Ordering::Release);
        Ok(Self {
            ptr: ptr.cast(),
            len_bytes,
            node,
        })
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Whether somebody has looked at bytes that the file did not have (any
    /// more); they read as zero.
    pub fn is_damaged(&self) -> bool {
        self.node.damaged.load(Ordering::Acquire)
    }

    /// Where byte `offset_bytes` is; none if `len_bytes` from there on are not mapped.
    pub fn at(&self, offset_bytes: u64, len_bytes: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset_bytes).ok()?;
        let end = offset.checked_add(len_bytes)?;
        if end > self.len_bytes {
            return None;
        }
        // SAFETY: the offset lies inside the mapping, as was just checked.
        Some(unsafe { self.ptr.add(offset) })
    }

    /// Copies bytes out. The file may be written to meanwhile: the copy then has
    /// old bytes or new ones. None if they are not mapped.
    pub fn copy_to(&self, offset_bytes: u64, to: &mut [u8]) -> Option<()> {
        let from = self.at(offset_bytes, to.len())?;
        // SAFETY: `from` is mapped for the length, as `at` checked, `to` is a
        // slice of that length, and a fresh mapping overlaps no other memory.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) };
        Some(())
    }

    /// Asks the kernel to read ahead.
    pub fn will_need(&self, offset_bytes: u64, len_bytes: usize) {
        let page = super::mmap::page_size_bytes();
        if let Some(start) = self.at(offset_bytes, len_bytes) {
            let back = start.as_ptr() as usize % page;
            let start = start.as_ptr().wrapping_sub(back);
            // SAFETY: WILLNEED changes nothing; the range lies in the mapping,
            // whose start is page-aligned. It is advice, so a refusal is nothing.
            let _ = unsafe { libc::madvise(start.cast(), len_bytes + back, libc::MADV_WILLNEED) };
        }
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        self.node.end.store(0, Ordering::Release);
        self.node.start.store(0, Ordering::Release);
        // SAFETY: the range is what mmap gave in `new`, unmapped once; whoever
        // was given a pointer holds this mapping.
        let _ = unsafe { mman::munmap(self.ptr.cast(), self.len_bytes) };
        self.node.in_use.store(false, Ordering::Release);
    }
}

static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

fn install_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: sigaction is plain data, for which zeroes are a valid value.
        let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: the signal exists and the pointers are a null and a live struct.
        if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut previous) } != 0 {
            return Err(nix::errno::Errno::last_raw());
        }
        // Known before the handler can run.
        let _ = PREVIOUS.set(previous);
        // SAFETY: as for `previous`.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `on_sigbus` has the signature that SA_SIGINFO asks for and does
        // only what is allowed in a handler: atomics and system calls.
        if unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) } != 0 {
            return Err(nix::errno::Errno::last_raw());
        }
        Ok(())
    });
    installed.map_err(io::Error::from_raw_os_error)
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let errno = nix::errno::Errno::last_raw();
    // SAFETY: the kernel gives a valid siginfo to a handler with SA_SIGINFO, and
    // SIGBUS fills in its address.
    let address = unsafe { (*info).si_addr() } as usize;
    let hit = nodes().find(|node| {
        let start = node.start.load(Ordering::Acquire);
        start != 0 && (start..node.end.load(Ordering::Acquire)).contains(&address)
    });
    if let Some(node) = hit {
        node.damaged.store(true, Ordering::Release);
        let page = address & !(super::mmap::page_size_bytes() - 1);
        let len = node.end.load(Ordering::Acquire) - page;
        // SAFETY: the range lies inside our own mapping, which whoever faulted
        // holds; its bytes from here on are gone, and zeroes take their place.
        let mapped = unsafe {
            libc::mmap(
                page as *mut _,
                len,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        nix::errno::Errno::set_raw(errno);
        if mapped != libc::MAP_FAILED {
            return;
        }
    }
    pass_on(signal, info, context);
}

/// To the handler that was there before; the default one ends the process when
/// the instruction faults again.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(previous) = PREVIOUS.get() else {
        return;
    };
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: puts back what the kernel had given us.
            unsafe { libc::sigaction(signal, previous, ptr::null_mut()) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: installed with SA_SIGINFO, so it has this signature.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: installed without SA_SIGINFO, so it takes the signal alone.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(len_bytes: usize) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; len_bytes]).unwrap();
        file
    }

    #[test]
    fn bytes_that_the_file_has_are_read() {
        let map = FileMap::new(file(10_000), 10_000).unwrap();
        let mut bytes = [0; 100];
        map.copy_to(9_900, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 100]);
        assert!(map.copy_to(9_901, &mut bytes).is_none());
        assert!(map.copy_to(u64::MAX, &mut bytes).is_none());
        assert!(!map.is_damaged());
    }

    #[test]
    fn a_truncated_file_reads_as_zero_and_is_told() {
        let file = file(1 << 20);
        let map = FileMap::new(&file, 1 << 20).unwrap();
        let other = FileMap::new(&file, 4096).unwrap();
        file.set_len(8192).unwrap();
        let mut bytes = vec![1; 1 << 20];
        map.copy_to(0, &mut bytes).unwrap();
        assert!(bytes[..8192].iter().all(|byte| *byte == 7));
        assert!(bytes[8192..].iter().all(|byte| *byte == 0));
        assert!(map.is_damaged());
        assert!(!other.is_damaged());
    }

    #[test]
    fn nodes_are_used_again_and_start_undamaged() {
        for _ in 0..100 {
            let file = file(8192);
            let map = FileMap::new(&file, 8192).unwrap();
            assert!(!map.is_damaged());
            file.set_len(0).unwrap();
            map.copy_to(0, &mut [0; 8192]).unwrap();
            assert!(map.is_damaged());
        }
        assert!(nodes().count() < 50);
    }
}
