// SPDX-License-Identifier: MPL-2.0
//! Runs work that the kernel may block without limit, as on a file system that hangs, in a
//! thread of its own, so that the wait for the result can be ended.

use super::{
    cpus::Cpus,
    waker::{Wake, Waker},
};
use crate::locks::Mutex;
use std::{
    io,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

type Task<T> = Box<dyn FnOnce() -> T + Send>;

/// A thread that runs one task after the other. If it is dropped while a task is under way,
/// the thread finishes the task and drops its result.
pub struct TaskThread<T> {
    tasks: Option<mpsc::Sender<Task<T>>>,
    result: Arc<Mutex<Option<T>>>,
    done: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
    is_away: bool,
}

/// Wakes the waiting thread when it is dropped, so also if the task panics.
struct WakeOnDrop<'a>(&'a Waker);

impl Drop for WakeOnDrop<'_> {
    fn drop(&mut self) {
        // It fails only if the counter of the eventfd is full.
        let _ = self.0.wake();
    }
}

impl<T: Send + 'static> TaskThread<T> {
    /// Starts the thread on these processors.
    pub fn new(cpus: Cpus) -> io::Result<Self> {
        let (sender, tasks) = mpsc::channel::<Task<T>>();
        let result = Arc::new(Mutex::new(None));
        let done = Arc::new(Waker::new()?);
        let (results, waker) = (result.clone(), done.clone());
        let thread = std::thread::Builder::new().name("rawvideosrc-file".into());
        let thread = thread.spawn(move || {
            cpus.bind_this_thread();
            for task in tasks {
                let _done = WakeOnDrop(&waker);
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

    /// Begins a task. The result of the task before must have been taken by [`Self::wait`], or dropped by
    /// [`Self::is_idle`].
    pub fn begin(&mut self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
        let gone = || io::Error::other("the thread has panicked");
        let tasks = self.tasks.as_ref().ok_or_else(gone)?;
        tasks.send(Box::new(work)).map_err(|_| gone())?;
        self.is_away = true;
        Ok(())
    }

    /// Whether a task can begin. Drops the result of the task before, if there is one.
    pub fn is_idle(&mut self) -> bool {
        if self.is_away && self.done.is_woken() {
            self.done.rest();
            self.result.lock().take();
            self.is_away = false;
        }
        !self.is_away
    }

    /// Waits for the result of the task. `None` if `waker` ended the wait; the task goes on.
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
        // The thread ends when the channel is closed.
        self.tasks = None;
        if let Some(thread) = self.thread.take()
            && !self.is_away
        {
            // `wait` has already reported a panic of the thread.
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
        let mut runner = TaskThread::new(Cpus::default()).unwrap();
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
        let (go, gone) = mpsc::channel::<()>();
        runner.begin(move || gone.recv().is_ok()).unwrap();
        assert!(!runner.is_idle());
        go.send(()).unwrap();
        while !runner.is_idle() {
            std::thread::yield_now();
        }
        runner.begin(|| panic!("as expected")).unwrap();
        assert!(runner.wait(&waker).is_err());
    }

    #[test]
    fn who_drops_it_does_not_wait_for_what_hangs() {
        let (go, gone) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let mut runner = TaskThread::new(Cpus::default()).unwrap();
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
