// SPDX-License-Identifier: MPL-2.0
//! A thread that follows switches between virtual terminals. It releases the screen when
//! another terminal comes to the foreground, and shows frames again when ours is back.
use super::CAT;
use super::presenter::Presenter;
use super::screen::Screen;
use crate::sys::vt_guard::{Connection, VtSwitch};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the release of the screen waits for a pan that is under way.
const PAN_LIMIT: Duration = Duration::from_secs(1);

/// For each fb_page, the serial of the stream for which its borders were painted; 0 if they were not.
pub type Painted = Vec<AtomicU64>;

/// The thread, which ends when this is dropped.
pub struct Terminal {
    connection: Arc<Connection>,
    thread: Option<JoinHandle<()>>,
}

struct Follower<H: Send + 'static, F> {
    connection: Arc<Connection>,
    screen: Arc<Screen>,
    presenter: Arc<Presenter<H>>,
    painted: Arc<Painted>,
    tell: F,
}

impl Terminal {
    /// Starts the thread. `None` if no console on the screen is in graphics mode.
    pub fn follow<H: Send + 'static>(
        screen: &Arc<Screen>,
        presenter: &Arc<Presenter<H>>,
        painted: &Arc<Painted>,
        tell: impl Fn(VtSwitch) + Send + 'static,
    ) -> io::Result<Option<Self>> {
        let Some(connection) = screen.console_connection().map(Arc::new) else {
            return Ok(None);
        };
        let follower = Follower {
            connection: connection.clone(),
            screen: screen.clone(),
            presenter: presenter.clone(),
            painted: painted.clone(),
            tell,
        };
        let thread = std::thread::Builder::new()
            .name("fbpansink-vt".into())
            .spawn(move || follower.run())?;
        let thread = Some(thread);
        Ok(Some(Self { connection, thread }))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.connection.shut_down();
        // `tell` may release the last reference to the sink, so this may run in the thread
        // itself, which cannot join itself.
        let is_other =
            |thread: &JoinHandle<()>| thread.thread().id() != std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(is_other) {
            // The panic hook has reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

impl<H: Send + 'static, F: Fn(VtSwitch)> Follower<H, F> {
    fn run(self) {
        let mut shown = 0;
        let mut picture = None;
        while let Some(switch) = self.connection.next() {
            gst::info!(CAT, "the virtual terminal: {switch:?}");
            match switch {
                VtSwitch::Release => {
                    shown = self.presenter.suspend(PAN_LIMIT).unwrap_or(0);
                    picture = self.screen.step_aside(shown);
                    self.connection.released();
                }
                VtSwitch::Acquired => {
                    self.screen.step_forward(shown, picture.take().as_deref());
                    if let Some(painted) = self.painted.first() {
                        painted.store(0, Ordering::Relaxed); // the console drew into fb_page 0
                    }
                    self.presenter.resume();
                }
            }
            (self.tell)(switch);
        }
    }
}
