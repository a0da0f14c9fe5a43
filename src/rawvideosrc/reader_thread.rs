// SPDX-License-Identifier: MPL-2.0
//! Reads frames in a thread of its own. The kernel may block that thread without limit, as on a
//! file system that hangs. The streaming thread waits for it in a way that the waker can end.
//!
//! The hand-over costs two wake-ups a frame. So the streaming thread reads a frame itself if the
//! whole frame is in the page cache, because such a read does not wait.

use super::{
    cpus::Cpus,
    delivery::{
        BufferError, Delivery, Filled, FrameRequest, Undelivered, deliver_now, delivered, fill,
        fill_with,
    },
    reader::{FrameSource, Outcome, ReadError},
    task_thread::TaskThread,
};
use crate::sys::describe;
use std::{io, time::Instant};

/// A reader, and the thread to which it is moved for each read.
pub struct ReaderThread<R: ?Sized> {
    /// `None` while the thread has the reader.
    reader: Option<Box<R>>,
    /// The thread, which is started for the first read that may hang.
    runner: Option<TaskThread<FinishedRead<R>>>,
    cpus: Cpus,
    attempts: Attempts,
    bounced_bytes: u64,
}

/// Decides for which frames the streaming thread tries to read from the page cache. An attempt that
/// fails is wasted time, so each failure doubles the number of frames before the next attempt.
#[derive(Debug, Default)]
struct Attempts {
    /// How many frames are left out after an attempt that failed.
    pause: u32,
    /// How many frames are still to be left out.
    left: u32,
}

impl Attempts {
    const LONGEST_PAUSE: u32 = 128;

    /// Whether to try with the next frame.
    fn is_due(&mut self) -> bool {
        let is_due = self.left == 0;
        self.left = self.left.saturating_sub(1);
        is_due
    }

    fn note(&mut self, is_read: bool) {
        self.pause = match is_read {
            true => 0,
            false => (2 * self.pause).clamp(1, Self::LONGEST_PAUSE),
        };
        self.left = self.pause;
    }
}

/// What the thread returns after a read: the reader, the buffer and the result.
struct FinishedRead<R: ?Sized> {
    reader: Box<R>,
    buffer: gst::Buffer,
    outcome: Filled,
}

impl<R: FrameSource + ?Sized + 'static> ReaderThread<R> {
    /// Does not start the thread yet.
    pub fn new(reader: Box<R>, cpus: Cpus) -> Self {
        Self {
            reader: Some(reader),
            runner: None,
            cpus,
            attempts: Attempts::default(),
            bounced_bytes: 0,
        }
    }

    /// The reader; `None` while the kernel blocks it.
    pub fn reader(&self) -> Option<&R> {
        self.reader.as_deref()
    }

    pub fn reader_mut(&mut self) -> Option<&mut R> {
        self.reader.as_deref_mut()
    }

    /// Bytes that went through a bounce buffer in all reads that have returned.
    pub fn bounced_bytes(&self) -> u64 {
        match self.reader() {
            Some(reader) => reader.bounced_bytes(),
            None => self.bounced_bytes,
        }
    }

    /// Returns frame `n` of the file in a buffer. If the request's waker ends the wait, the next
    /// request first waits for that read and drops its frame.
    pub fn deliver(&mut self, request: &FrameRequest<'_>, n: u64) -> Result<Delivery, Undelivered> {
        self.abandon(request)?;
        let Some(reader) = &mut self.reader else {
            return Err(no_thread(&io::Error::other("the thread has panicked")));
        };
        if !reader.may_hang() {
            return deliver_now(&mut **reader, request, n);
        }
        let waiting = Instant::now();
        let mut buffer = request.acquire(true)?;
        let reading = Instant::now();
        // With `cpus`, frames are to be read on those processors, to which the streaming thread is not bound.
        if self.cpus.set().is_none() && self.attempts.is_due() {
            let buffer_mut = buffer.get_mut().ok_or(BufferError::Shared)?;
            let is_read = reader.is_cached(n)
                && fill_with(request.info, buffer_mut, |destination| {
                    reader.read_cached(n, destination)
                })?;
            self.attempts.note(is_read);
            if is_read {
                return delivered(Ok(Outcome::Frame), buffer, n, reading - waiting, reading);
            }
        }
        self.send(request, buffer, n)?;
        let (buffer, outcome) = self.wait(request)?;
        delivered(outcome?, buffer, n, reading - waiting, reading)
    }

    /// Waits for a read that an earlier request did not wait for, and drops its frame.
    pub fn abandon(&mut self, request: &FrameRequest<'_>) -> Result<(), Undelivered> {
        if self.reader.is_none() {
            let _abandoned = self.wait(request)?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        request: &FrameRequest<'_>,
        mut buffer: gst::Buffer,
        n: u64,
    ) -> Result<(), Undelivered> {
        let runner = match &mut self.runner {
            Some(runner) => runner,
            none => {
                let started = TaskThread::new(self.cpus);
                none.insert(started.map_err(|error| no_thread(&error))?)
            }
        };
        let Some(mut reader) = self.reader.take() else {
            return Err(Undelivered::Flow(gst::FlowError::Error));
        };
        self.bounced_bytes = reader.bounced_bytes();
        let info = request.info.clone();
        let sent = runner.begin(move || {
            let outcome = match buffer.get_mut() {
                Some(buffer) => fill(&mut *reader, &info, buffer, n),
                None => Err(BufferError::Shared),
            };
            FinishedRead {
                reader,
                buffer,
                outcome,
            }
        });
        sent.map_err(|error| no_thread(&error))
    }

    /// Waits until the thread returns the reader. `Woken` if the request's waker ended the wait.
    fn wait(&mut self, request: &FrameRequest<'_>) -> Result<(gst::Buffer, Filled), Undelivered> {
        let Some(runner) = &mut self.runner else {
            return Err(Undelivered::Flow(gst::FlowError::Error));
        };
        let back = runner
            .wait(request.waker)
            .map_err(|error| no_thread(&error))?;
        let FinishedRead {
            reader,
            buffer,
            outcome,
        } = back.ok_or(Undelivered::Woken)?;
        self.reader = Some(reader);
        Ok((buffer, outcome))
    }
}

fn no_thread(error: &io::Error) -> Undelivered {
    Undelivered::Read(ReadError::Threads {
        threads: 1,
        why: describe(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        layout::samples,
        rawvideosrc::{
            cursor::Cursor,
            reader::Destination,
            timeline::{Passes, Timeline},
            waker::Waker,
        },
    };
    use gst::prelude::*;
    use std::sync::mpsc;

    /// Waits for a message, and then writes the frame's number.
    struct Slow(mpsc::Receiver<()>);

    impl FrameSource for Slow {
        fn read(
            &mut self,
            n: u64,
            destination: &mut Destination<'_>,
        ) -> Result<Outcome, ReadError> {
            self.0.recv().map_err(|_| ReadError::Draw("gone".into()))?;
            destination.row_mut(0, 0).fill(n as u8);
            Ok(Outcome::Frame)
        }
    }

    #[test]
    fn attempts_that_fail_become_rare_and_one_that_succeeds_is_followed_by_the_next() {
        let mut attempts = Attempts::default();
        let mut tried = Vec::new();
        for n in 0..1000 {
            if attempts.is_due() {
                tried.push(n);
                attempts.note(false);
            }
        }
        assert_eq!(
            tried,
            [0, 2, 5, 10, 19, 36, 69, 134, 263, 392, 521, 650, 779, 908]
        );
        while !attempts.is_due() {}
        attempts.note(true);
        assert!(attempts.is_due());
    }

    #[test]
    fn a_wait_that_was_ended_is_made_good_by_the_next_order() {
        gst::init().unwrap();
        let info = samples::info(gst_video::VideoFormat::Gray8, 4, 1);
        let pool = gst::BufferPool::new();
        let mut config = pool.config();
        config.set_params(Some(&info.to_caps().unwrap()), info.size() as u32, 1, 2);
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        let (go, gone) = mpsc::channel();
        let mut reader = ReaderThread::new(Box::new(Slow(gone)), Cpus::default());
        let waker = Waker::new().unwrap();
        let timeline = Timeline::new((25, 1), Some(9), Passes::Times(1));
        let request = FrameRequest {
            info: &info,
            timeline: &timeline,
            first_frame: 0,
            cursor: Cursor::START,
            pool: Some(&pool),
            waker: &waker,
        };
        waker.wake().unwrap();
        for _ in 0..2 {
            let ended = reader.deliver(&request, 3).err();
            assert!(matches!(ended, Some(Undelivered::Woken)));
            assert!(reader.reader().is_none());
        }
        waker.rest();
        go.send(()).unwrap(); // frame 3, which is dropped
        go.send(()).unwrap();
        let delivery = reader.deliver(&request, 5).ok().unwrap();
        let bytes = delivery.buffer.map_readable().unwrap();
        assert_eq!(bytes[..4], [5; 4]);
        assert!(reader.reader().is_some());
        // A read that fails gives its buffer back.
        drop(go);
        assert!(reader.deliver(&request, 6).is_err());
    }
}
