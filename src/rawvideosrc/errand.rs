// SPDX-License-Identifier: MPL-2.0
//! Work that the kernel may hold up for as long as it likes, as on a file system that
//! hangs: done by a thread of its own, so that who needs the result can be woken.

use super::waker::{Wake, Waker};
use parking_lot::Mutex;
use std::{io, sync::Arc};

/// Work in progress. Dropped, it goes on to its end, and the result is dropped there.
pub struct Errand<T> {
    result: Arc<Mutex<Option<T>>>,
    done: Arc<Waker>,
}

/// Wakes even if the work panics.
struct Done(Arc<Waker>);

impl Drop for Done {
    fn drop(&mut self) {
        // Fails only where it has been woken very often.
        let _ = self.0.wake();
    }
}

impl<T: Send + 'static> Errand<T> {
    /// Begins the work.
    pub fn begin(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let result = Arc::new(Mutex::new(None));
        let done = Arc::new(Waker::new()?);
        let errand = Self {
            result: result.clone(),
            done: done.clone(),
        };
        let thread = std::thread::Builder::new().name("rawvideosrc-file".into());
        thread.spawn(move || {
            let _done = Done(done);
            let worked = work();
            *result.lock() = Some(worked);
        })?;
        Ok(errand)
    }

    /// Waits for the result, which comes once. None if `waker` ended the wait; the
    /// work goes on.
    pub fn wait(&self, waker: &Waker) -> io::Result<Option<T>> {
        if waker.wait(self.done.fd())? == Wake::Woken {
            return Ok(None);
        }
        let result = self.result.lock().take();
        let result = result.ok_or_else(|| io::Error::other("the thread has panicked"))?;
        Ok(Some(result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn the_wait_ends_by_the_result_by_waking_and_by_a_panic() {
        let waker = Waker::new().unwrap();
        assert_eq!(Errand::begin(|| 7).unwrap().wait(&waker).unwrap(), Some(7));
        let (go, gone) = mpsc::channel::<()>();
        let errand = Errand::begin(move || gone.recv().is_ok()).unwrap();
        waker.wake().unwrap();
        assert_eq!(errand.wait(&waker).unwrap(), None);
        waker.rest();
        go.send(()).unwrap();
        assert_eq!(errand.wait(&waker).unwrap(), Some(true));
        let panics = Errand::<()>::begin(|| panic!("as expected")).unwrap();
        assert!(panics.wait(&waker).is_err());
    }
}
