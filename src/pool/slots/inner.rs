// SPDX-License-Identifier: MPL-2.0
//! The data under the lock of the slots: the memory, the list of free slots that are not in the
//! cache, and the pools that use the slots.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Counters, event::Event, filled::FilledQueue};
use crate::locks::Condvar;
use crate::{memory::Region, pool::config::BufferConfig};

#[derive(Default)]
pub(super) struct Inner {
    /// The memory of each slot, by the slot's index.
    pub blocks: Vec<Block>,
    /// The free slots that are not in the cache, the latest at the end.
    pub free: VecDeque<usize>,
    /// One for each pool that uses the slots.
    pub users: Vec<User>,
    /// Number of slots that are being allocated outside of the lock.
    pub growing: usize,
    /// The events that the slots themselves do not count, and the counts of slots that were cleared.
    pub counters: Counters,
}

pub(super) struct Block {
    pub region: Arc<Region>,
    /// Identifies the wrapper's memory when it reports that it was freed.
    pub serial: u64,
}

/// What belongs to one pool alone. A filled buffer is taken only by the pool whose layout it has,
/// so that no other pool's threads need to be woken for it.
pub(super) struct Part {
    pub filled: FilledQueue<Filled>,
    /// Notified of submitted buffers and of a flush.
    pub submitted: Condvar,
}

/// One pool that uses the slots.
pub(super) struct User {
    pub part: Arc<Part>,
    pub config: Option<NumberedConfig>,
    /// Filled buffers whose memory is gone. The next flush removes them and gives them their pool
    /// back. Without a pool, GStreamer would not count them as returned.
    pub passed_over: Vec<Filled>,
}

/// The layout of the buffers, and how many of them may be out at a time.
#[derive(Clone)]
pub(super) struct NumberedConfig {
    /// Unique in the process, and never 0.
    pub number: u64,
    pub config: Arc<BufferConfig>,
}

pub(super) struct Filled {
    pub slot: usize,
    pub buffer: gst::Buffer,
}

impl Part {
    pub fn event(&self) -> Event<'_> {
        Event {
            condition: &self.submitted,
            waiters: &self.filled.waiters,
        }
    }
}

impl Inner {
    pub fn index_of(&self, part: &Arc<Part>) -> usize {
        let named = |user: &User| Arc::ptr_eq(&user.part, part);
        // Always found, because a user exists as long as its pool.
        self.users.iter().position(named).unwrap_or_default()
    }

    pub fn user(&mut self, part: &Arc<Part>) -> &mut User {
        let index = self.index_of(part);
        &mut self.users[index]
    }
}
