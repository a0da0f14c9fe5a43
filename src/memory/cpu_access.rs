// SPDX-License-Identifier: MPL-2.0
//! A dma-buf, and the CPU's accesses to it that overlap in time.
//!
//! The kernel is told of overlapping accesses as one, which starts with the first of them and ends with the
//! last. On machines whose devices do not snoop the CPU's caches, the start of an access that reads
//! discards the cache lines of the memory, and with them what another access has just written
//! (`arch_sync_dma_for_cpu` of arm64). On 32-bit ARM the end of an access that reads discards them, too.
//! GStreamer maps each colour plane of a frame by itself, so the map of the second plane would discard the
//! first plane. Besides, every start and every end walks through all cache lines of the buffer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::locks::Mutex;
use crate::sys::dma_buf::{self, Direction};

pub(super) struct DmaBuf {
    fd: Arc<OwnedFd>,
    /// Held while the kernel starts or ends an access, because no thread may touch a byte before the kernel
    /// has done so. No other lock is taken under it.
    accesses: Mutex<Accesses>,
}

impl DmaBuf {
    pub fn new(fd: impl Into<Arc<OwnedFd>>) -> Self {
        Self {
            fd: fd.into(),
            accesses: Mutex::default(),
        }
    }

    /// Called before the first byte is touched. If it succeeds, a call of `end_access` must follow.
    pub fn begin_access(&self, direction: Direction) -> io::Result<()> {
        self.accesses
            .lock()
            .begin(direction, |flag| self.sync(flag))
    }

    /// Called after the last byte was touched. The access is over even if the kernel returns an error.
    pub fn end_access(&self) -> io::Result<()> {
        self.accesses.lock().end(|flag| self.sync(flag))
    }

    fn sync(&self, flag: SyncFlag) -> io::Result<()> {
        match flag {
            SyncFlag::Start(direction) => dma_buf::begin_cpu_access(self.fd.as_fd(), direction),
            SyncFlag::End(direction) => dma_buf::end_cpu_access(self.fd.as_fd(), direction),
        }
    }
}

impl AsFd for DmaBuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncFlag {
    Start(Direction),
    End(Direction),
}

#[derive(Debug, Default)]
struct Accesses {
    count: usize,
    /// The direction with which the kernel started all of them as one. `None` if there are none.
    synced_direction: Option<Direction>,
}

impl Accesses {
    fn begin(
        &mut self,
        direction: Direction,
        mut sync: impl FnMut(SyncFlag) -> io::Result<()>,
    ) -> io::Result<()> {
        let wanted = self
            .synced_direction
            .map_or(direction, |synced| synced.union(direction));
        if self.synced_direction != Some(wanted) {
            // The end writes back what was written so far. Without it, the start would discard that.
            if let Some(synced) = self.synced_direction {
                sync(SyncFlag::End(synced))?;
                self.synced_direction = None;
            }
            sync(SyncFlag::Start(wanted))?;
            self.synced_direction = Some(wanted);
        }
        self.count += 1;
        Ok(())
    }

    fn end(&mut self, mut sync: impl FnMut(SyncFlag) -> io::Result<()>) -> io::Result<()> {
        self.count -= 1;
        match self.count {
            0 => self
                .synced_direction
                .take()
                .map_or(Ok(()), |synced| sync(SyncFlag::End(synced))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SyncFlag::{End, Start};

    const READ: Direction = Direction::READ;
    const WRITE: Direction = Direction {
        read: false,
        write: true,
    };
    const BOTH: Direction = Direction {
        read: true,
        write: true,
    };

    /// The calls of the kernel for accesses that begin, or (`None`) end, in this order.
    fn sync_flags(accesses: &[Option<Direction>]) -> Vec<SyncFlag> {
        let mut flags = Vec::new();
        let mut state = Accesses::default();
        let mut sync = |flag| {
            flags.push(flag);
            Ok(())
        };
        for access in accesses {
            match access {
                Some(direction) => state.begin(*direction, &mut sync).unwrap(),
                None => state.end(&mut sync).unwrap(),
            }
        }
        assert_eq!(state.count, 0);
        flags
    }

    #[test]
    fn an_access_alone_is_started_and_ended_in_its_direction() {
        for direction in [READ, WRITE, BOTH] {
            let once = [Start(direction), End(direction)];
            assert_eq!(sync_flags(&[Some(direction), None]), once);
            let twice = [once, once].concat();
            let accesses = [Some(direction), None, Some(direction), None];
            assert_eq!(sync_flags(&accesses), twice);
        }
    }

    #[test]
    fn what_an_outer_access_covers_costs_nothing() {
        for inner in [READ, WRITE, BOTH] {
            let accesses = [Some(BOTH), Some(inner), Some(inner), None, None, None];
            assert_eq!(sync_flags(&accesses), [Start(BOTH), End(BOTH)]);
        }
        // The access that began first may be the first to end.
        let planes = [Some(WRITE), Some(WRITE), Some(WRITE), None, None, None];
        assert_eq!(sync_flags(&planes), [Start(WRITE), End(WRITE)]);
    }

    #[test]
    fn an_access_that_does_more_writes_back_first() {
        for (outer, inner) in [(READ, WRITE), (WRITE, READ), (WRITE, BOTH)] {
            assert_eq!(
                sync_flags(&[Some(outer), Some(inner), None, None]),
                [Start(outer), End(outer), Start(BOTH), End(BOTH)]
            );
        }
    }

    #[test]
    fn a_start_that_fails_is_no_access() {
        let refuse = |flag| match flag {
            Start(BOTH) => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        };
        let mut state = Accesses::default();
        assert!(state.begin(BOTH, refuse).is_err());
        assert_eq!((state.count, state.synced_direction), (0, None));
        // The access in progress is over for the kernel, and is not ended twice.
        state.begin(WRITE, refuse).unwrap();
        assert!(state.begin(READ, refuse).is_err());
        let mut flags = 0;
        let mut count = |_| {
            flags += 1;
            Ok(())
        };
        state.end(&mut count).unwrap();
        assert_eq!((state.count, flags), (0, 0));
    }
}
