// SPDX-License-Identifier: MPL-2.0
//! Reads a file that another program is still writing, and waits at its end for more.

use super::{Destination, FrameSource, Outcome, ReadError};
use crate::rawvideosrc::{
    waker::{Wake, Waker},
    y4m::Fields,
};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{io, os::fd::AsFd, path::Path, sync::Arc};

/// Waits for frames that `reader` does not find yet.
pub struct Follower {
    reader: Box<dyn FrameSource>,
    inotify: Inotify,
    waker: Arc<Waker>,
}

impl Follower {
    pub fn new(reader: Box<dyn FrameSource>, path: &Path, waker: Arc<Waker>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(path, AddWatchFlags::IN_MODIFY)?;
        Ok(Self {
            reader,
            inotify,
            waker,
        })
    }
}

impl FrameSource for Follower {
    fn may_hang(&self) -> bool {
        false
    }

    fn read(&mut self, n: u64, destination: &mut Destination<'_>) -> Result<Outcome, ReadError> {
        loop {
            // The events are taken before the file is read, so that a write after that ends the
            // next wait. They are taken only once, because a writer that never pauses would keep
            // this thread here; events that are left cost only one read in vain.
            let _ = self.inotify.read_events();
            match self.reader.read(n, destination)? {
                Outcome::End { .. } => {}
                outcome => return Ok(outcome),
            }
            // At the end of a truncated file there is nothing to wait for.
            if let Some(loss) = self.reader.loss() {
                return Err(loss);
            }
            match self.waker.wait(self.inotify.as_fd()) {
                Ok(Wake::Ready) => {}
                Ok(Wake::Woken) => return Ok(Outcome::Woken),
                Err(source) => {
                    return Err(ReadError::Io {
                        frame: n,
                        offset_bytes: 0,
                        source,
                    });
                }
            }
        }
    }

    fn fields(&self, n: u64) -> Option<Fields> {
        self.reader.fields(n)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FrameIndex, FrameReader, PlainFile, TransferPlan};
    use super::*;
    use crate::{
        layout::{Layout, samples},
        rawvideosrc::cpus::Cpus,
    };
    use std::io::Write;

    #[test]
    fn frames_are_read_as_they_are_written() {
        gst::init().unwrap();
        let info = samples::info(gst_video::VideoFormat::Gray8, 64, 16);
        let layout = Layout::of_info(&info);
        let file = tempfile::NamedTempFile::new().unwrap();
        let index = FrameIndex::Regular {
            start_bytes: 0,
            step_bytes: 1024,
        };
        let plain = PlainFile(file.reopen().unwrap());
        let plan = TransferPlan::new(layout, &info, 1);
        let reader = FrameReader::new(plain, index, plan, Cpus::default()).unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        let mut follower = Follower::new(Box::new(reader), file.path(), waker.clone()).unwrap();
        let mut writer = file.reopen().unwrap();
        let writing = std::thread::spawn(move || {
            for n in 0..20u8 {
                for _ in 0..4 {
                    writer.write_all(&[n; 256]).unwrap();
                }
            }
        });
        let mut bytes = [0xEE; 1024];
        for n in 0..20u8 {
            let mut destination = Destination::whole(&mut bytes, layout).unwrap();
            let outcome = follower.read(n.into(), &mut destination).unwrap();
            assert_eq!(outcome, Outcome::Frame);
            assert!(bytes.iter().all(|byte| *byte == n));
        }
        writing.join().unwrap();
        waker.wake().unwrap();
        let mut destination = Destination::whole(&mut bytes, layout).unwrap();
        assert_eq!(follower.read(20, &mut destination).unwrap(), Outcome::Woken);
    }

    #[test]
    fn a_file_that_becomes_shorter_than_what_was_read_is_an_error() {
        gst::init().unwrap();
        let info = samples::info(gst_video::VideoFormat::Gray8, 64, 16);
        let layout = Layout::of_info(&info);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(3 * 1024 + 500).unwrap();
        let index = FrameIndex::Regular {
            start_bytes: 0,
            step_bytes: 1024,
        };
        let plain = PlainFile(file.reopen().unwrap());
        let plan = TransferPlan::new(layout, &info, 1);
        let reader = FrameReader::new(plain, index, plan, Cpus::default()).unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        let mut follower = Follower::new(Box::new(reader), file.path(), waker.clone()).unwrap();
        let mut bytes = [0xEE; 1024];
        let mut read = |n| {
            let mut destination = Destination::whole(&mut bytes, layout).unwrap();
            follower.read(n, &mut destination)
        };
        for n in 0..3 {
            assert_eq!(read(n).unwrap(), Outcome::Frame);
        }
        // It is no error if an incomplete frame is truncated.
        file.as_file().set_len(3 * 1024 + 100).unwrap();
        waker.wake().unwrap();
        assert_eq!(read(3).unwrap(), Outcome::Woken);
        waker.rest();
        file.as_file().set_len(1024 + 100).unwrap();
        let error = read(3).unwrap_err();
        let vanished = ReadError::Vanished {
            frame: 1,
            missing_bytes: 924,
        };
        assert_eq!(error.to_string(), vanished.to_string());
    }
}
