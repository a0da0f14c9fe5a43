// SPDX-License-Identifier: MPL-2.0
//! Work that the kernel may hold up for as long as it likes, as on a file system that
//! hangs: done by a thread of its own, so that the wait for the result can be ended.

use super::waker::{Wake, Waker};
use parking_lot::Mutex;
use std::{
    io,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

type Task<T> = Box<dyn FnOnce() -> T + Send>;

/// A thread that runs one task after the other. Dropped while one is under way, it
/// goes on to the end of that, and the result is dropped there.
pub struct TaskThread<T> {
    tasks: Option<mpsc::Sender<Task<T>>>,
    result: Arc<Mutex<Option<T>>>,
    done: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
    is_away: bool,
}

/// Wakes even if the work panics.
struct Done<'a>(&'a Waker);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        // Fails only where it has been woken very often.
        let _ = self.0.wake();
    }
}

impl<T: Send + 'static> TaskThread<T> {
    pub fn new() -> io::Result<Self> {
        let (sender, tasks) = mpsc::channel::<Task<T>>();
        let result = Arc::new(Mutex::new(None));
        let done = Arc::new(Waker::new()?);
        let (results, waker) = (result.clone(), done.clone());
        let thread = std::thread::Builder::new().name("rawvideosrc-file".into());
        let thread = thread.spawn(move || {
            for task in tasks {
                let _done = Done(&waker);
                let worked = task();
                *results.lock() = Some(worked);
            }
        })?;
        Ok(Self {
            tasks: Some(sender),
            result,
            done,
            thread: Some(thread),
            is_away: false,
        })
    }

    /// Begins a task; the result of the one before must have been taken.
    pub fn begin(&mut self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
        let gone = || io::Error::other("the thread has panicked");
        let tasks = self.tasks.as_ref().ok_or_else(gone)?;
        tasks.send(Box::new(work)).map_err(|_| gone())?;
        self.is_away = true;
        Ok(())
    }

    /// Waits for the result, which comes once. None if `waker` ended the wait; the
    /// work goes on.
    pub fn wait(&mut self, waker: &Waker) -> io::Result<Option<T>> {
        if waker.wait(self.done.fd())? == Wake::Woken {
            return Ok(None);
        }
        self.done.rest();
        self.is_away = false;
        let result = self.result.lock().take();
        let result = result.ok_or_else(|| io::Error::other("the thread has panicked"))?;
        Ok(Some(result))
    }
}

impl<T> Drop for TaskThread<T> {
    fn drop(&mut self) {
        // Without tasks to come the thread ends.
        self.tasks = None;
        if let Some(thread) = self.thread.take()
            && !self.is_away
        {
            // A panic has been told where its result was awaited.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_ends_by_the_result_by_waking_and_by_a_panic() {
        let waker = Waker::new().unwrap();
        let mut runner = TaskThread::new().unwrap();
        for n in 0..3 {
            runner.begin(move || n == 1).unwrap();
            assert_eq!(runner.wait(&waker).unwrap(), Some(n == 1));
        }
        let (go, gone) = mpsc::channel::<()>();
        runner.begin(move || gone.recv().is_ok()).unwrap();
        waker.wake().unwrap();
        assert_eq!(runner.wait(&waker).unwrap(), None);
        waker.rest();
        go.send(()).unwrap();
        assert_eq!(runner.wait(&waker).unwrap(), Some(true));
        runner.begin(|| panic!("as expected")).unwrap();
        assert!(runner.wait(&waker).is_err());
    }

    #[test]
    fn who_drops_it_does_not_wait_for_what_hangs() {
        let (go, gone) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let mut runner = TaskThread::new().unwrap();
        runner
            .begin(move || {
                let _ = gone.recv();
                tell.send(()).unwrap();
            })
            .unwrap();
        drop(runner);
        assert!(told.try_recv().is_err());
        go.send(()).unwrap();
        told.recv().unwrap();
    }
}
