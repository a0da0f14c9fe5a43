// SPDX-License-Identifier: MPL-2.0
//! Lets the kernel read the next files of a sequence into the page cache before their frames are
//! due. The kernel reads ahead within a file by itself, but it does not know which file is next.
//!
//! No buffer of the pool is used for this, and no file is kept open. So a seek leaves nothing behind that
//! has to be dropped, and a file that is missing or changed is found out when its frame is due.

use super::open::Opened;
use crate::rawvideosrc::{cpus::Cpus, task_thread::TaskThread};
use std::{num::NonZeroU64, path::PathBuf};

/// The kernel reads no more for one call than the disk's read-ahead (`read_ahead_kb`) or largest
/// request, whichever is more. This is the kernel's default of the former.
const PIECE_BYTES: u64 = 128 << 10;

/// A frame that will be requested soon.
pub struct NextFrame {
    pub path: PathBuf,
    /// Where the frame begins in its file.
    pub start_bytes: u64,
    pub len_bytes: u64,
}

impl NextFrame {
    /// Asks the kernel to read the frame into the page cache. Errors are left to the read of the frame.
    fn begin(&self) {
        let Ok(opened) = Opened::open_file(&self.path) else {
            return;
        };
        let end_bytes = self.start_bytes.saturating_add(self.len_bytes);
        let end_bytes = end_bytes.min(opened.len_bytes);
        let mut at = self.start_bytes;
        while let Some(left) = NonZeroU64::new(end_bytes.saturating_sub(at)) {
            let piece = left.get().min(PIECE_BYTES);
            let advice = rustix::fs::Advice::WillNeed;
            if rustix::fs::fadvise(&opened.file, at, NonZeroU64::new(piece), advice).is_err() {
                return;
            }
            at += piece;
        }
    }
}

/// Reads ahead of the frames that are requested, in a thread of its own, because the kernel may
/// block it. The thread has no more than one task: if the kernel blocks it, nothing is read ahead.
pub struct FilesAhead {
    /// How many frames are read ahead.
    depth: u64,
    course: Course,
    cpus: Cpus,
    /// The thread, which is started for the first frame that is read ahead.
    thread: Option<TaskThread<()>>,
}

impl FilesAhead {
    /// Reads `depth` frames ahead, in a thread on the processors `cpus`.
    pub fn new(depth: u64, cpus: Cpus) -> Self {
        Self {
            depth,
            course: Course::default(),
            cpus,
            thread: None,
        }
    }

    /// Begins to read the frames that will be requested after frame `n`. `frame` finds a frame
    /// by its number; `None` if there is no such frame, or if it need not be read ahead.
    pub fn follow(&mut self, n: u64, frame: impl Fn(u64) -> Option<NextFrame>) {
        let is_steady = self.course.advance(n);
        let is_idle = self.thread.as_mut().is_none_or(TaskThread::is_idle);
        if !is_steady || !is_idle {
            return;
        }
        let next = self.course.take_next(self.depth);
        let frames: Vec<NextFrame> = next.filter_map(frame).collect();
        if frames.is_empty() {
            return;
        }
        if self.thread.is_none() {
            // Without a thread nothing is read ahead, and frames come all the same.
            self.thread = TaskThread::new(self.cpus).ok();
        }
        if let Some(thread) = &mut self.thread {
            let begun = thread.begin(move || frames.iter().for_each(NextFrame::begin));
            if begun.is_err() {
                self.thread = None;
            }
        }
    }
}

/// The order in which frames are requested.
#[derive(Debug)]
struct Course {
    /// The frame that was requested last.
    last: Option<u64>,
    /// How far that frame is from the one before; negative in reverse playback.
    step: i64,
    /// How many of the frames after it have been returned by `take_next`.
    taken: u64,
}

impl Default for Course {
    fn default() -> Self {
        Self {
            last: None,
            step: 1,
            taken: 0,
        }
    }
}

impl Course {
    /// Frame `n` is requested. Returns false after a seek, when the step is not known.
    fn advance(&mut self, n: u64) -> bool {
        let step = self.last.map_or(1, |last| n.wrapping_sub(last) as i64);
        let is_steady = step == self.step && step != 0;
        self.taken = match is_steady {
            true => self.taken.saturating_sub(1),
            false => 0,
        };
        self.last = Some(n);
        self.step = step;
        is_steady
    }

    /// The numbers of the next `depth` frames, without those that an earlier call has returned.
    fn take_next(&mut self, depth: u64) -> impl Iterator<Item = u64> + use<> {
        let (n, step) = (self.last.unwrap_or_default(), self.step);
        let steps = self.taken + 1..=depth;
        self.taken = self.taken.max(depth);
        steps.filter_map(move |steps| {
            let distance = i64::try_from(steps).ok()?.checked_mul(step)?;
            n.checked_add_signed(distance)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(course: &mut Course, n: u64) -> Vec<u64> {
        match course.advance(n) {
            true => course.take_next(3).collect(),
            false => Vec::new(),
        }
    }

    #[test]
    fn each_frame_is_read_ahead_once_in_either_direction() {
        let mut course = Course::default();
        assert_eq!(next(&mut course, 10), [11, 12, 13]);
        assert_eq!(next(&mut course, 11), [14]);
        assert_eq!(next(&mut course, 12), [15]);
        // Backwards, each second frame.
        assert!(next(&mut course, 10).is_empty());
        assert_eq!(next(&mut course, 8), [6, 4, 2]);
        assert_eq!(next(&mut course, 6), [0]);
        assert!(next(&mut course, 4).is_empty());
    }

    #[test]
    fn nothing_is_read_ahead_before_the_direction_is_known() {
        let mut course = Course::default();
        next(&mut course, 0);
        for n in [50, 51, 20, 20, u64::MAX, 0] {
            assert!(next(&mut course, n).is_empty(), "{n}");
        }
        assert_eq!(next(&mut course, 1), [2, 3, 4]);
    }

    #[test]
    fn frames_that_were_passed_over_while_the_thread_was_busy_are_read_ahead_later() {
        let mut course = Course::default();
        assert_eq!(next(&mut course, 0), [1, 2, 3]);
        assert!(course.advance(1) && course.advance(2));
        assert_eq!(next(&mut course, 3), [4, 5, 6]);
    }

    #[test]
    fn a_file_that_is_missing_or_cut_is_no_concern_of_the_thread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let frame = |start_bytes, len_bytes| NextFrame {
            path: path.clone(),
            start_bytes,
            len_bytes,
        };
        frame(0, 10).begin();
        std::fs::write(&path, [1; 300_000]).unwrap();
        frame(1000, 299_000).begin();
        frame(400_000, 1000).begin();
        frame(1000, u64::MAX).begin();
    }
}
