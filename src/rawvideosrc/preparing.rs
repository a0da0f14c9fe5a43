// SPDX-License-Identifier: MPL-2.0
//! Prepares a stream once the caps are known: the file is counted, mapped or watched, which the
//! file system may block without limit. An event that needs the streaming thread meanwhile ends
//! its wait, and the thread waits again before the next frame.

use super::{
    CAT,
    buffer_source::BufferSource,
    errors::{self, SetupError},
    imp::RawVideoSrc,
    input::Input,
    playback::Playback,
    reader::ReadError,
    session::{Prepared, Stream},
    task_thread::TaskThread,
    waker::Waker,
};
use crate::sys::describe;
use gst::subclass::prelude::*;
use std::{io, sync::Arc};

fn begin(
    mut input: Box<Input>,
    old: Option<BufferSource>,
    info: gst_video::VideoInfo,
    waker: Arc<Waker>,
) -> Result<TaskThread<Prepared>, SetupError> {
    let mut runner = TaskThread::new(input.cpus).map_err(no_thread)?;
    let begun = runner.begin(move || {
        input.take_back(old);
        let playback = Playback::new(&mut input, &info, &waker);
        Prepared {
            input,
            info,
            playback,
        }
    });
    begun.map_err(no_thread)?;
    Ok(runner)
}

fn no_thread(error: io::Error) -> SetupError {
    SetupError::Read(ReadError::Threads {
        threads: 1,
        why: describe(&error),
    })
}

impl RawVideoSrc {
    /// Prepares to play in the negotiated format. If an event ends the wait, a later call of
    /// [`RawVideoSrc::finish_preparation`] waits for the rest.
    pub(super) fn prepare(&self, info: gst_video::VideoInfo) -> Result<(), gst::LoggableError> {
        let (input, source, waker) = {
            let mut state = self.state.lock();
            let session = state.session();
            let session = session.ok_or(gst::loggable_error!(CAT, "not started"))?;
            if let Some(timeline) = session.timeline() {
                session.cursor = session.cursor.unresolve(&timeline);
            }
            let input = session.input.take();
            let input = input.ok_or(gst::loggable_error!(CAT, "busy"))?;
            (input, session.take_source(), session.waker.clone())
        };
        let prepared = match begin(input, source, info, waker) {
            Ok(runner) => {
                self.keep(runner);
                self.finish_preparation()
            }
            Err(error) => Err(self.unprepared(&error)),
        };
        match prepared {
            Ok(()) | Err(gst::FlowError::Flushing) => Ok(()),
            Err(_) => Err(gst::loggable_error!(CAT, "not prepared")),
        }
    }

    pub(super) fn is_preparing(&self) -> bool {
        let mut state = self.state.lock();
        let session = state.session();
        session.is_some_and(|session| session.preparation.is_some())
    }

    fn keep(&self, runner: TaskThread<Prepared>) {
        if let Some(session) = self.state.lock().session() {
            session.preparation = Some(runner);
        }
    }

    /// Waits until the stream is prepared; FLUSHING if an event ended the wait.
    pub(super) fn finish_preparation(&self) -> Result<(), gst::FlowError> {
        loop {
            let (runner, waker) = match self.state.lock().session() {
                Some(session) => (session.preparation.take(), session.waker.clone()),
                None => return Err(gst::FlowError::Flushing),
            };
            let Some(mut runner) = runner else {
                return Ok(());
            };
            let Prepared {
                input,
                info,
                playback,
            } = match runner.wait(&waker) {
                Ok(Some(prepared)) => prepared,
                Ok(None) => {
                    self.keep(runner);
                    return Err(gst::FlowError::Flushing);
                }
                Err(error) => return Err(self.unprepared(&no_thread(error))),
            };
            match playback {
                Ok(playback) => {
                    self.install(input, Stream { info, playback });
                    return Ok(());
                }
                // The waker ended the search for frames, but the event may be over: search again.
                Err(SetupError::Woken) => match begin(input, None, info, waker) {
                    Ok(again) => self.keep(again),
                    Err(error) => return Err(self.unprepared(&error)),
                },
                Err(error) => {
                    if let Some(session) = self.state.lock().session() {
                        session.input = Some(input);
                        session.stream = None;
                    }
                    return Err(self.unprepared(&error));
                }
            }
        }
    }

    fn unprepared(&self, error: &SetupError) -> gst::FlowError {
        self.post_error_message(errors::of_setup(error));
        gst::FlowError::Error
    }

    fn install(&self, input: Box<Input>, mut stream: Stream) {
        let playback = &mut stream.playback;
        if let Some(source) = &mut playback.source {
            source.set_on_loss(self.on_loss());
        }
        let duration_ns = playback.timeline.duration_ns();
        let (mode, reason) = (playback.mode, playback.reason.clone());
        let doubts = playback.doubts.clone();
        if let Some(session) = self.state.lock().session() {
            session.input = Some(input);
            session.stream = Some(stream);
        }
        self.set_duration(duration_ns);
        gst::info!(CAT, imp = self, "{mode}: {reason}");
        self.stats.lock().set_mode(mode, reason);
        for doubt in doubts {
            gst::element_imp_warning!(self, gst::StreamError::Format, ("{doubt}"));
        }
    }
}
