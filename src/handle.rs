// SPDX-License-Identifier: MPL-2.0
//! Memory that the application owns, and the right to access it.
//!
//! A [`BufferHandle`] owns a block together with its deleter. Code that borrows the block keeps a
//! [`WeakBufferHandle`] and begins a [`HandleAccess`] before each use. The deleter waits for the last one.
//!
//! One atomic word for each block (`Lifetime`) says whether the handle exists and how many accesses there
//! are. So exactly one thread sees that neither is left, and no access begins after the handle was dropped.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Weak;
use std::{fmt, io};

use crate::address::{Address, AddressUnknown, PhysAddr};
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering, lock};
use crate::sys::{dma_buf, mmap::Mapping};

type Deleter = Box<dyn FnOnce(NonNull<u8>, usize) + Send>;

/// Is told that a [`BufferHandle`] was dropped, before its deleter runs.
pub(crate) trait HandleWatcher: Send + Sync {
    /// Called once. After it, no access to the block begins.
    fn handle_dropped(&self);
}

/// Owns a block of memory. Dropping the handle runs the deleter exactly once: at once or, if the block is
/// being accessed, at the end of the last access, on the thread that ends it.
///
/// ```
/// use gstphysmem::handle::BufferHandle;
/// use std::ptr::NonNull;
///
/// let block = Box::leak(Box::new([0u8; 4096]));
/// // SAFETY: the block is leaked, and no other code makes a Box of it again.
/// let handle = unsafe {
///     BufferHandle::new(NonNull::from(block).cast(), 4096, |ptr, _| {
///         drop(Box::from_raw(ptr.as_ptr().cast::<[u8; 4096]>()))
///     })
/// };
/// let weak = handle.downgrade();
/// assert!(weak.begin_access().is_some());
/// drop(handle);
/// assert!(weak.begin_access().is_none());
/// ```
pub struct BufferHandle {
    block: Arc<Block>,
    /// What the owner gave: an address, or one that is refused.
    address: Option<Result<Address, AddressUnknown>>,
    /// Shared with the regions of pools that borrow the handle.
    dma_buf: Option<std::sync::Arc<OwnedFd>>,
}

struct Block {
    ptr: NonNull<u8>,
    len_bytes: usize,
    lifetime: Lifetime,
    deleter: Mutex<Option<Deleter>>,
    watchers: Mutex<Vec<Weak<dyn HandleWatcher>>>,
}

// SAFETY: `ptr` is only handed out, never read or written here; the constructor demands memory that may be
// used and freed from any thread.
unsafe impl Send for Block {}
// SAFETY: as above; the other fields are Sync by themselves.
unsafe impl Sync for Block {}

impl Block {
    fn delete(&self) {
        let deleter = lock(&self.deleter).take();
        if let Some(deleter) = deleter {
            deleter(self.ptr, self.len_bytes);
        }
    }
}

/// Bit 0 says that the handle exists. The other bits count accesses.
#[derive(Debug)]
struct Lifetime(AtomicUsize);

impl Lifetime {
    const OWNED: usize = 1;
    const ACCESS: usize = 2;

    fn new() -> Self {
        Self(AtomicUsize::new(Self::OWNED))
    }

    fn is_owned(&self) -> bool {
        self.0.load(Ordering::Acquire) & Self::OWNED != 0
    }

    /// Returns false once the handle was dropped, however many accesses remain.
    fn begin_access(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while word & Self::OWNED != 0 {
            match self.0.compare_exchange_weak(
                word,
                word + Self::ACCESS,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Returns true to the thread that ends the last access after the handle was dropped. Everything done
    /// in other accesses happened before.
    #[must_use]
    fn end_access(&self) -> bool {
        self.0.fetch_sub(Self::ACCESS, Ordering::AcqRel) == Self::ACCESS
    }

    /// Notes that the handle was dropped. Returns true if no access remains.
    #[must_use]
    fn disown(&self) -> bool {
        self.0.fetch_and(!Self::OWNED, Ordering::AcqRel) == Self::OWNED
    }
}

impl BufferHandle {
    /// Takes ownership of a block.
    ///
    /// # Safety
    /// `len_bytes` is not 0. `ptr .. ptr + len_bytes` is mapped read-write, for any thread, until `deleter`
    /// is called, and no other code frees it. The block may be memory that the CPU cannot access (a GPU's),
    /// as long as its buffers are not mapped.
    pub unsafe fn new(
        ptr: NonNull<u8>,
        len_bytes: usize,
        deleter: impl FnOnce(NonNull<u8>, usize) + Send + 'static,
    ) -> Self {
        Self {
            block: Arc::new(Block {
                ptr,
                len_bytes,
                lifetime: Lifetime::new(),
                deleter: Mutex::new(Some(Box::new(deleter))),
                watchers: Mutex::new(Vec::new()),
            }),
            address: None,
            dma_buf: None,
        }
    }

    /// Maps a whole dma-buf read-write, and unmaps it as the deleter. A pool over such handles has its buffers in
    /// memory that a camera, a GPU or another process allocated.
    ///
    /// A pool looks up the address in /proc/self/pagemap, where drivers often show none: give it by
    /// [`with_phys_addr`](Self::with_phys_addr) if the driver tells it.
    ///
    /// # Errors
    /// ENOTTY if the descriptor is no dma-buf, EINVAL for an empty one, or the error of mmap.
    pub fn map_dma_buf(dma_buf: OwnedFd) -> io::Result<Self> {
        let len_bytes = usize::try_from(dma_buf::len_bytes(dma_buf.as_fd())?);
        let len_bytes = len_bytes.map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mapping = Mapping::shared(&dma_buf, len_bytes)?;
        let (ptr, len_bytes) = (mapping.ptr(), mapping.len_bytes());
        // SAFETY: the deleter owns the mapping, which is not empty and read-write for any thread.
        let handle = unsafe { Self::new(ptr, len_bytes, move |_, _| drop(mapping)) };
        Ok(handle.with_dma_buf(dma_buf))
    }

    /// Gives the address of a block that is one physical extent and begins at `phys`. The address is not
    /// verified and must stay true. A pool looks up the address of a handle that has none.
    ///
    /// If the block runs past the last physical address from there on, the address is refused: the handle
    /// has none, and a pool does not look one up, but its buffers' metas report the address as unknown,
    /// with the reason [`AddressUnknown::GivenPastEnd`].
    pub fn with_phys_addr(mut self, phys: PhysAddr) -> Self {
        self.address = Some(Address::given(phys, self.len_bytes() as u64));
        self
    }

    /// Gives the block's address, or takes it back with `None`. If the address has fewer bytes than the
    /// block, the buffers' metas report it as unknown.
    pub fn with_address(mut self, address: Option<Address>) -> Self {
        self.address = address.map(Ok);
        self
    }

    /// Gives a dma-buf over the same memory, whose first byte is the block's and that is at least as long. The
    /// pool then exports it, its buffers are GstDmaBufMemory, and the kernel is told of each map of them by
    /// DMA_BUF_IOCTL_SYNC.
    pub fn with_dma_buf(mut self, dma_buf: OwnedFd) -> Self {
        self.dma_buf = Some(std::sync::Arc::new(dma_buf));
        self
    }

    /// The dma-buf that the owner gave.
    pub fn dma_buf(&self) -> Option<BorrowedFd<'_>> {
        self.dma_buf.as_ref().map(|fd| fd.as_fd())
    }

    /// The same, for a region that may outlive the handle.
    pub(crate) fn shared_dma_buf(&self) -> Option<std::sync::Arc<OwnedFd>> {
        self.dma_buf.clone()
    }

    /// The address that the owner gave. `None` for an address that was refused, too.
    pub fn address(&self) -> Option<&Address> {
        self.given_address()?.as_ref().ok()
    }

    /// The address that the owner gave, or why it was refused. `None` if the owner gave none.
    pub(crate) fn given_address(&self) -> Option<&Result<Address, AddressUnknown>> {
        self.address.as_ref()
    }

    /// First byte.
    pub fn ptr(&self) -> NonNull<u8> {
        self.block.ptr
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.block.len_bytes
    }

    /// Makes a reference that does not keep the block allocated.
    pub fn downgrade(&self) -> WeakBufferHandle {
        WeakBufferHandle(Arc::clone(&self.block))
    }

    /// Delays the deleter until the access is dropped.
    pub fn begin_access(&self) -> HandleAccess {
        // Never refused while `self` exists.
        let _owned = self.block.lifetime.begin_access();
        HandleAccess(Arc::clone(&self.block))
    }
}

impl Drop for BufferHandle {
    fn drop(&mut self) {
        let is_last = self.block.lifetime.disown();
        // Watchers are told before the memory is freed, since waiting threads must look for another buffer.
        // A watcher that comes later is not registered; it must ask `is_alive`.
        let watchers = std::mem::take(&mut *lock(&self.block.watchers));
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            watcher.handle_dropped();
        }
        if is_last {
            self.block.delete();
        }
    }
}

impl fmt::Debug for BufferHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferHandle")
            .field("ptr", &self.ptr())
            .field("len_bytes", &self.len_bytes())
            .field("address", &self.address)
            .field("dma_buf", &self.dma_buf)
            .finish()
    }
}

/// Refers to the block of a [`BufferHandle`] without keeping it allocated.
#[derive(Clone)]
pub struct WeakBufferHandle(Arc<Block>);

impl WeakBufferHandle {
    /// Whether the handle still exists.
    pub fn is_alive(&self) -> bool {
        self.0.lifetime.is_owned()
    }

    /// Begins an access. `None` once the handle was dropped.
    pub fn begin_access(&self) -> Option<HandleAccess> {
        self.0
            .lifetime
            .begin_access()
            .then(|| HandleAccess(Arc::clone(&self.0)))
    }

    /// Registers `watcher`, which is told when the handle is dropped. Does nothing if the handle was
    /// dropped before: check [`Self::is_alive`] after this call.
    pub(crate) fn watch(&self, watcher: Weak<dyn HandleWatcher>) {
        let mut watchers = lock(&self.0.watchers);
        // A handle may outlive any number of pools, so their watchers are removed here.
        watchers.retain(|watcher| watcher.strong_count() > 0);
        if self.is_alive() {
            watchers.push(watcher);
        }
    }

    /// First byte. Do not touch it without an access.
    pub fn ptr(&self) -> NonNull<u8> {
        self.0.ptr
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.len_bytes
    }
}

impl fmt::Debug for WeakBufferHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakBufferHandle")
            .field("ptr", &self.ptr())
            .field("len_bytes", &self.len_bytes())
            .field("is_alive", &self.is_alive())
            .finish()
    }
}

/// An access to the block, which is not freed as long as the access lives.
#[must_use = "the access ends when this is dropped"]
pub struct HandleAccess(Arc<Block>);

impl HandleAccess {
    /// Turns the access into a pointer, which [`Self::from_raw`] turns back.
    pub(crate) fn into_raw(self) -> *const () {
        let access = ManuallyDrop::new(self);
        // SAFETY: `access` is not dropped, so the Arc moves out of it once.
        let block = unsafe { std::ptr::read(&access.0) };
        Arc::into_raw(block).cast()
    }

    /// # Safety
    /// `raw` comes from [`Self::into_raw`] and is used once.
    pub(crate) unsafe fn from_raw(raw: *const ()) -> Self {
        // SAFETY: into_raw made the pointer from an Arc<Block>; the caller uses it once.
        Self(unsafe { Arc::from_raw(raw.cast()) })
    }
}

impl Drop for HandleAccess {
    fn drop(&mut self) {
        if self.0.lifetime.end_access() {
            self.0.delete();
        }
    }
}

impl fmt::Debug for HandleAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandleAccess").field(&self.0.ptr).finish()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    /// Makes a handle over a leaked box, and the counter of its deleter's runs.
    fn counted(len_bytes: usize) -> (BufferHandle, Arc<AtomicUsize>) {
        let runs = Arc::new(AtomicUsize::new(0));
        let block = Box::leak(vec![0u8; len_bytes].into_boxed_slice());
        let ptr = NonNull::new(block.as_mut_ptr()).unwrap();
        let counter = Arc::clone(&runs);
        // SAFETY: the box is leaked, so it lives until the deleter frees it.
        let handle = unsafe {
            BufferHandle::new(ptr, len_bytes, move |ptr, len| {
                counter.fetch_add(1, Ordering::SeqCst);
                let slice = std::ptr::slice_from_raw_parts_mut(ptr.as_ptr(), len);
                drop(Box::from_raw(slice));
            })
        };
        (handle, runs)
    }

    #[test]
    fn an_address_past_the_end_of_all_memory_is_refused_and_not_looked_up() {
        let (handle, _) = counted(4096);
        assert_eq!(handle.given_address(), None);
        let handle = handle.with_phys_addr(PhysAddr(u64::MAX - 4094));
        let refused = Err(AddressUnknown::GivenPastEnd { size_bytes: 4096 });
        assert_eq!(handle.given_address(), Some(&refused));
        assert_eq!(handle.address(), None);
        let handle = handle.with_phys_addr(PhysAddr(u64::MAX - 4095));
        let last = handle.address().map(Address::last_byte);
        assert_eq!(last, Some(PhysAddr(u64::MAX)));
        assert_eq!(handle.with_address(None).given_address(), None);
    }

    #[test]
    fn deleter_runs_once_on_drop() {
        let (handle, runs) = counted(64);
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        drop(handle);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn deleter_waits_for_the_last_access() {
        let (handle, runs) = counted(64);
        let weak = handle.downgrade();
        let first = weak.begin_access().unwrap();
        let second = handle.begin_access();
        drop(handle);
        assert!(!weak.is_alive());
        assert!(
            weak.begin_access().is_none(),
            "no access begins after the drop"
        );
        drop(first);
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        drop(second);
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn ownership_moves_between_threads() {
        let (handle, runs) = counted(64);
        let weak = handle.downgrade();
        std::thread::spawn(move || drop(handle)).join().unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(!weak.is_alive());
    }

    #[test]
    fn a_watcher_hears_of_the_end_before_the_deleter_runs() {
        struct CountingWatcher(Arc<AtomicUsize>, AtomicUsize);
        impl HandleWatcher for CountingWatcher {
            fn handle_dropped(&self) {
                assert_eq!(self.0.load(Ordering::SeqCst), 0, "the deleter has run");
                self.1.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (handle, runs) = counted(64);
        let weak = handle.downgrade();
        let counting = Arc::new(CountingWatcher(Arc::clone(&runs), AtomicUsize::new(0)));
        let watcher: Weak<CountingWatcher> = Arc::downgrade(&counting);
        weak.watch(watcher.clone());
        drop(handle);
        assert_eq!(counting.1.load(Ordering::SeqCst), 1);
        weak.watch(watcher);
        assert_eq!(counting.1.load(Ordering::SeqCst), 1, "too late to watch");
    }

    #[test]
    fn watchers_that_went_leave_nothing_in_the_handle() {
        struct IgnoringWatcher;
        impl HandleWatcher for IgnoringWatcher {
            fn handle_dropped(&self) {}
        }
        let (handle, _) = counted(64);
        let weak = handle.downgrade();
        for _ in 0..10 {
            let watcher = Arc::new(IgnoringWatcher);
            weak.watch(Arc::downgrade(&(watcher as Arc<dyn HandleWatcher>)));
        }
        assert_eq!(lock(&handle.block.watchers).len(), 1, "the last to come");
    }

    #[test]
    fn raw_access_keeps_the_block_until_taken_back() {
        let (handle, runs) = counted(64);
        let raw = handle.begin_access().into_raw();
        drop(handle);
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        // SAFETY: `raw` comes from into_raw and is used once.
        drop(unsafe { HandleAccess::from_raw(raw) });
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn access_and_drop_race_without_a_use_after_free() {
        for _ in 0..200 {
            let (handle, runs) = counted(8);
            let weak = handle.downgrade();
            let reader = {
                let runs = Arc::clone(&runs);
                std::thread::spawn(move || {
                    while let Some(access) = weak.begin_access() {
                        assert_eq!(runs.load(Ordering::SeqCst), 0);
                        drop(access);
                    }
                })
            };
            drop(handle);
            reader.join().unwrap();
            assert_eq!(runs.load(Ordering::SeqCst), 1);
        }
    }
}

/// loom tries the interleavings of the threads below, up to the preemptions that `check_interleavings`
/// allows: `tests/sanitize loom`.
#[cfg(test)]
#[cfg(loom)]
mod model {
    use super::*;
    use crate::sync::{SharedBytes, check_interleavings};
    use loom::thread;

    /// A handle whose deleter writes to `bytes`, which fails the model if an access has not ended by then.
    fn handle(bytes: &Arc<SharedBytes>, runs: &Arc<AtomicUsize>) -> BufferHandle {
        let (bytes, runs) = (Arc::clone(bytes), Arc::clone(runs));
        // SAFETY: the pointer is never dereferenced.
        unsafe {
            BufferHandle::new(NonNull::dangling(), 1, move |_, _| {
                bytes.write(0);
                runs.fetch_add(1, Ordering::Relaxed);
            })
        }
    }

    #[test]
    fn the_deleter_runs_once_and_after_every_access() {
        check_interleavings(|| {
            let bytes = Arc::new(SharedBytes::new(7));
            let runs = Arc::new(AtomicUsize::new(0));
            let handle = handle(&bytes, &runs);
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let (weak, bytes) = (handle.downgrade(), Arc::clone(&bytes));
                    thread::spawn(move || {
                        if let Some(_access) = weak.begin_access() {
                            assert_eq!(bytes.read(), 7);
                        }
                    })
                })
                .collect();
            drop(handle);
            for reader in readers {
                reader.join().unwrap();
            }
            assert_eq!(runs.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn an_access_handed_to_another_thread_keeps_the_block() {
        check_interleavings(|| {
            let bytes = Arc::new(SharedBytes::new(7));
            let runs = Arc::new(AtomicUsize::new(0));
            let handle = handle(&bytes, &runs);
            let raw = handle.begin_access().into_raw() as usize;
            let other = {
                let bytes = Arc::clone(&bytes);
                thread::spawn(move || {
                    // SAFETY: into_raw's pointer, used once.
                    let _access = unsafe { HandleAccess::from_raw(raw as *const ()) };
                    assert_eq!(bytes.read(), 7);
                })
            };
            drop(handle);
            other.join().unwrap();
            assert_eq!(runs.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn a_watcher_is_told_or_told_that_it_is_late() {
        struct CountingWatcher(AtomicUsize);
        impl HandleWatcher for CountingWatcher {
            fn handle_dropped(&self) {
                self.0.fetch_add(1, Ordering::Release);
            }
        }
        check_interleavings(|| {
            let bytes = Arc::new(SharedBytes::new(7));
            let runs = Arc::new(AtomicUsize::new(0));
            let handle = handle(&bytes, &runs);
            let weak = handle.downgrade();
            let counting = std::sync::Arc::new(CountingWatcher(AtomicUsize::new(0)));
            let owner = thread::spawn(move || drop(handle));
            let watcher: Weak<CountingWatcher> = std::sync::Arc::downgrade(&counting);
            weak.watch(watcher);
            let alive_after_watching = weak.is_alive();
            owner.join().unwrap();
            let times = counting.0.load(Ordering::Acquire);
            assert!(times <= 1);
            assert!(
                times == 1 || !alive_after_watching,
                "nobody would ever wake him"
            );
        });
    }
}
