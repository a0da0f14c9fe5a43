// SPDX-License-Identifier: MPL-2.0
//! A dma-buf, and the CPU's accesses to it that go on at the same time.
//!
//! To the kernel they are one: it starts with the first of them and ends with the last.
//! Where devices do not look into the CPU's caches, the start of an access that reads
//! discards what is cached of the memory, and with it whatever another access has just
//! written (`arch_sync_dma_for_cpu` of arm64); on 32-bit ARM the end of one that reads
//! does so, too. A frame of several colour planes, which GStreamer maps once for each of
//! them, would lose its first plane to the map of the second. And every start and every
//! end of an access goes through all of the buffer's cache lines.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;

use crate::sys::dma_buf::{self, Direction};

/// A dma-buf that the CPU uses.
pub(super) struct DmaBuf {
    fd: OwnedFd,
    /// Held while the kernel starts or ends an access, for nobody may touch a byte before
    /// it has. No other lock is taken under it.
    accesses: Mutex<Accesses>,
}

impl DmaBuf {
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            accesses: Mutex::default(),
        }
    }

    /// Before the first byte is touched; `end_access` follows if it succeeds.
    pub fn begin_access(&self, direction: Direction) -> io::Result<()> {
        self.accesses
            .lock()
            .begin(direction, |step| self.sync(step))
    }

    /// After the last byte was touched, whatever the kernel says.
    pub fn end_access(&self) -> io::Result<()> {
        self.accesses.lock().end(|step| self.sync(step))
    }

    fn sync(&self, step: Step) -> io::Result<()> {
        match step {
            Step::Start(direction) => dma_buf::begin_cpu_access(self.fd.as_fd(), direction),
            Step::End(direction) => dma_buf::end_cpu_access(self.fd.as_fd(), direction),
        }
    }
}

impl AsFd for DmaBuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the kernel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Start(Direction),
    End(Direction),
}

/// The accesses that go on.
#[derive(Debug, Default)]
struct Accesses {
    count: usize,
    /// What the kernel was told of all of them; nothing if there are none.
    told: Option<Direction>,
}

impl Accesses {
    fn begin(
        &mut self,
        direction: Direction,
        mut sync: impl FnMut(Step) -> io::Result<()>,
    ) -> io::Result<()> {
        let wanted = self.told.map_or(direction, |told| told.and(direction));
        if self.told != Some(wanted) {
            // The end writes back what was written so far, which the start would discard.
            if let Some(told) = self.told {
                sync(Step::End(told))?;
                self.told = None;
            }
            sync(Step::Start(wanted))?;
            self.told = Some(wanted);
        }
        self.count += 1;
        Ok(())
    }

    fn end(&mut self, mut sync: impl FnMut(Step) -> io::Result<()>) -> io::Result<()> {
        self.count -= 1;
        match self.count {
            0 => self
                .told
                .take()
                .map_or(Ok(()), |told| sync(Step::End(told))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Step::{End, Start};

    const READ: Direction = Direction::READ;
    const WRITE: Direction = Direction {
        read: false,
        write: true,
    };
    const BOTH: Direction = Direction {
        read: true,
        write: true,
    };

    /// What the kernel is told when accesses begin, and (`None`) end, in this order.
    fn told(accesses: &[Option<Direction>]) -> Vec<Step> {
        let mut told = Vec::new();
        let mut state = Accesses::default();
        let mut sync = |step| {
            told.push(step);
            Ok(())
        };
        for access in accesses {
            match access {
                Some(direction) => state.begin(*direction, &mut sync).unwrap(),
                None => state.end(&mut sync).unwrap(),
            }
        }
        assert_eq!(state.count, 0);
        told
    }

    #[test]
    fn an_access_alone_is_started_and_ended_in_its_direction() {
        for direction in [READ, WRITE, BOTH] {
            let once = [Start(direction), End(direction)];
            assert_eq!(told(&[Some(direction), None]), once);
            let twice = [once, once].concat();
            let accesses = [Some(direction), None, Some(direction), None];
            assert_eq!(told(&accesses), twice);
        }
    }

    #[test]
    fn what_an_outer_access_covers_costs_nothing() {
        for inner in [READ, WRITE, BOTH] {
            let accesses = [Some(BOTH), Some(inner), Some(inner), None, None, None];
            assert_eq!(told(&accesses), [Start(BOTH), End(BOTH)]);
        }
        // The outer one may be the first to end.
        let planes = [Some(WRITE), Some(WRITE), Some(WRITE), None, None, None];
        assert_eq!(told(&planes), [Start(WRITE), End(WRITE)]);
    }

    #[test]
    fn an_access_that_does_more_writes_back_first() {
        for (outer, inner) in [(READ, WRITE), (WRITE, READ), (WRITE, BOTH)] {
            assert_eq!(
                told(&[Some(outer), Some(inner), None, None]),
                [Start(outer), End(outer), Start(BOTH), End(BOTH)]
            );
        }
    }

    #[test]
    fn a_start_that_fails_is_no_access() {
        let refuse = |step| match step {
            Start(BOTH) => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        };
        let mut state = Accesses::default();
        assert!(state.begin(BOTH, refuse).is_err());
        assert_eq!((state.count, state.told), (0, None));
        // One that goes on already is over for the kernel, and is not ended twice.
        state.begin(WRITE, refuse).unwrap();
        assert!(state.begin(READ, refuse).is_err());
        let mut steps = 0;
        let mut count = |_| {
            steps += 1;
            Ok(())
        };
        state.end(&mut count).unwrap();
        assert_eq!((state.count, steps), (0, 0));
    }
}
