// SPDX-License-Identifier: MPL-2.0
//! Memory registered with a ring, so that the kernel need not look up its pages for each read. The ring
//! does not keep the memory alive: it is freed with its pool, and the next read gives back the pages that
//! the kernel still holds.

use std::{
    any::Any,
    io,
    sync::{Arc, Weak},
};

use io_uring::Submitter;

/// The most blocks that are registered. A pool has fewer.
const MOST_BLOCKS: u32 = 64;

/// Keeps memory mapped as long as this value lives.
pub type KeepAlive = Arc<dyn Any + Send + Sync>;

struct Block {
    start: usize,
    len_bytes: usize,
    /// As long as this weak reference exists, no new value can have the same identity, even if the memory
    /// was unmapped and other memory has its address.
    keep_alive: Weak<dyn Any + Send + Sync>,
}

/// The kernel's table of registered memory, by index.
#[derive(Default)]
pub struct FixedBlocks {
    blocks: Vec<Option<Block>>,
    /// The kernel has no such table, or has refused memory.
    is_unavailable: bool,
}

impl FixedBlocks {
    /// Makes an empty table for a ring that has none yet.
    pub fn new(submitter: &Submitter<'_>) -> Self {
        // Since 5.13 (and sparse since 5.19). Without the table, the kernel looks pages up for each read.
        let table = submitter.register_buffers_sparse(MOST_BLOCKS);
        Self {
            blocks: Vec::new(),
            is_unavailable: table.is_err(),
        }
    }

    /// Unregisters memory that no longer exists.
    pub fn unregister_freed(&mut self, submitter: &Submitter<'_>) {
        for (index, entry) in (0..).zip(&mut self.blocks) {
            if let Some(block) = entry
                && block.keep_alive.strong_count() == 0
                && update(submitter, index, std::ptr::null_mut(), 0).is_ok()
            {
                *entry = None;
            }
        }
    }

    /// Registers this memory, unless it is registered already. Returns its index.
    pub fn register(
        &mut self,
        submitter: &Submitter<'_>,
        base: *mut u8,
        len_bytes: usize,
        keep_alive: &KeepAlive,
    ) -> Option<u16> {
        if self.is_unavailable {
            return None;
        }
        let start = base as usize;
        let keep_alive = Arc::downgrade(keep_alive);
        let is_same = |entry: &Option<Block>| {
            entry.as_ref().is_some_and(|block| {
                block.start == start
                    && block.len_bytes == len_bytes
                    && block.keep_alive.ptr_eq(&keep_alive)
            })
        };
        let known = self.blocks.iter().position(is_same);
        if known.is_some() {
            return known.and_then(|index| u16::try_from(index).ok());
        }
        let free = self.blocks.iter().position(Option::is_none);
        let index = u16::try_from(free.unwrap_or(self.blocks.len())).ok()?;
        if u32::from(index) >= MOST_BLOCKS {
            return None;
        }
        match update(submitter, index.into(), base, len_bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return None,
            Err(_) => {
                // Too much for RLIMIT_MEMLOCK, or memory without pages: the next block would fail as well.
                self.is_unavailable = true;
                return None;
            }
        }
        let block = Some(Block {
            start,
            len_bytes,
            keep_alive,
        });
        match self.blocks.get_mut(usize::from(index)) {
            Some(entry) => *entry = block,
            None => self.blocks.push(block),
        }
        Some(index)
    }

    /// The number of registered blocks. `None` if none can be registered.
    #[cfg(test)]
    pub fn count(&self) -> Option<usize> {
        (!self.is_unavailable).then(|| self.blocks.iter().flatten().count())
    }
}

/// Sets an entry of the table. Null with length 0 empties it.
fn update(
    submitter: &Submitter<'_>,
    index: u32,
    base: *mut u8,
    len_bytes: usize,
) -> io::Result<()> {
    let piece = libc::iovec {
        iov_base: base.cast(),
        iov_len: len_bytes,
    };
    // SAFETY: the memory is mapped now, while the kernel looks its pages up and takes a reference to each.
    // The index is used only for reads into that same memory, whose buffer keeps it mapped until they are
    // done.
    unsafe { submitter.register_buffers_update(index, &[piece], None) }
}
