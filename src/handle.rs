// SPDX-License-Identifier: MPL-2.0
//! Memory of the application: who owns it, who may still touch it.
//!
//! A [`BufferHandle`] owns a block together with the way to free it. Whoever
//! borrows the block keeps a [`WeakBufferHandle`] and asks for an
//! [`HandleAccess`] before each use; the deleter waits for the last of these.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

type Deleter = Box<dyn FnOnce(NonNull<u8>, usize) + Send>;

/// Owns a block of memory. Dropping it runs the deleter exactly once: at once, or,
/// where the block is being accessed just then, at the end of the last access, on
/// the thread that ends it.
pub struct BufferHandle(Arc<Block>);

struct Block {
    ptr: NonNull<u8>,
    len_bytes: usize,
    owned: AtomicBool,
    deleter: Mutex<Option<Deleter>>,
}

// SAFETY: `ptr` is only handed out, never read or written here; the constructor
// demands memory that may be used and freed from any thread.
unsafe impl Send for Block {}
// SAFETY: as above; the other fields are Sync by themselves.
unsafe impl Sync for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(deleter) = self.deleter.get_mut().take() {
            deleter(self.ptr, self.len_bytes);
        }
    }
}

impl BufferHandle {
    /// Takes ownership of a block.
    ///
    /// # Safety
    /// `ptr .. ptr + len_bytes` is mapped read-write, from any thread, until
    /// `deleter` is called; nobody else frees it.
    pub unsafe fn new(
        ptr: NonNull<u8>,
        len_bytes: usize,
        deleter: impl FnOnce(NonNull<u8>, usize) + Send + 'static,
    ) -> Self {
        Self(Arc::new(Block {
            ptr,
            len_bytes,
            owned: AtomicBool::new(true),
            deleter: Mutex::new(Some(Box::new(deleter))),
        }))
    }

    /// First byte.
    pub fn ptr(&self) -> NonNull<u8> {
        self.0.ptr
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.len_bytes
    }

    /// A reference that does not keep the block.
    pub fn downgrade(&self) -> WeakBufferHandle {
        WeakBufferHandle {
            block: Arc::downgrade(&self.0),
            ptr: self.0.ptr,
            len_bytes: self.0.len_bytes,
        }
    }

    /// Keeps the deleter away until the access is dropped.
    pub fn begin_access(&self) -> HandleAccess {
        HandleAccess(Arc::clone(&self.0))
    }
}

impl Drop for BufferHandle {
    fn drop(&mut self) {
        // Before the Arc goes: from here on no access begins, and the accesses
        // that have begun hold references, the last of which runs the deleter.
        self.0.owned.store(false, Ordering::Release);
    }
}

impl fmt::Debug for BufferHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferHandle")
            .field("ptr", &self.0.ptr)
            .field("len_bytes", &self.0.len_bytes)
            .finish()
    }
}

/// Follows a [`BufferHandle`] without keeping it.
#[derive(Clone)]
pub struct WeakBufferHandle {
    block: Weak<Block>,
    ptr: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: as for Block; the pointer is only handed out.
unsafe impl Send for WeakBufferHandle {}
// SAFETY: as for Block.
unsafe impl Sync for WeakBufferHandle {}

impl WeakBufferHandle {
    /// The handle has not been dropped.
    pub fn is_alive(&self) -> bool {
        self.block
            .upgrade()
            .is_some_and(|block| block.owned.load(Ordering::Acquire))
    }

    /// Begins an access; `None` once the handle was dropped.
    pub fn begin_access(&self) -> Option<HandleAccess> {
        let block = self.block.upgrade()?;
        block
            .owned
            .load(Ordering::Acquire)
            .then_some(HandleAccess(block))
    }

    /// First byte; not to be touched without an access.
    pub fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl fmt::Debug for WeakBufferHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakBufferHandle")
            .field("ptr", &self.ptr)
            .field("len_bytes", &self.len_bytes)
            .field("is_alive", &self.is_alive())
            .finish()
    }
}

/// While this lives, the block is not freed.
#[must_use = "the access ends when this is dropped"]
pub struct HandleAccess(Arc<Block>);

impl HandleAccess {
    /// For places that hold only a pointer; ended by [`Self::from_raw`].
    pub(crate) fn into_raw(self) -> *const () {
        Arc::into_raw(self.0).cast()
    }

    /// # Safety
    /// `raw` comes from [`Self::into_raw`] and is used once.
    pub(crate) unsafe fn from_raw(raw: *const ()) -> Self {
        // SAFETY: into_raw made the pointer from an Arc<Block>; the caller uses it once.
        Self(unsafe { Arc::from_raw(raw.cast()) })
    }
}

impl fmt::Debug for HandleAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandleAccess").field(&self.0.ptr).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// A handle over a leaked box, and the number of times its deleter has run.
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
