// SPDX-License-Identifier: MPL-2.0
//! What the streaming thread does for each frame. Before the first one it waits until the
//! stream is prepared, and carries out a seek that came before the caps.

use super::{
    CAT,
    cursor::Cursor,
    delivery::{Delivery, FrameRequest, Undelivered},
    errors::{self, SetupError},
    imp::RawVideoSrc,
    negotiation,
    reader::OnLoss,
    seek,
    timeline::Timeline,
};
use gst::{
    glib::translate::{ToGlibPtr, ToGlibPtrMut},
    prelude::*,
    subclass::prelude::*,
};
use gst_base::prelude::*;
use gst_video::prelude::*;
use std::time::Duration;

impl RawVideoSrc {
    /// The next frame, with its number and timestamps.
    pub(super) fn next_buffer(&self) -> Result<gst::Buffer, gst::FlowError> {
        if self.is_unprobed() {
            self.probe()?;
            self.negotiate_now()?;
        }
        if self.is_preparing() {
            self.finish_preparation()?;
            // Decides on the pool, which was not possible without a stream.
            self.negotiate_now()?;
        }
        self.seek_at_last()?;
        let (info, timeline, first_frame, cursor, live_offset_ns, waker, source) = {
            let mut state = self.state.lock();
            let session = state.session().ok_or(gst::FlowError::Flushing)?;
            let stream = session.stream.as_mut();
            let stream = stream.ok_or(gst::FlowError::NotNegotiated)?;
            let playback = &mut stream.playback;
            (
                stream.info.clone(),
                playback.timeline,
                playback.first_frame,
                session.cursor.resolve(&playback.timeline),
                session.live_offset_ns,
                session.waker.clone(),
                playback.source.take(),
            )
        };
        let mut source = source.ok_or(gst::FlowError::Error)?;
        let cursor = self.without_late_frames(cursor, &timeline, live_offset_ns);
        let pool = self.obj().buffer_pool();
        let delivered = source.deliver(&FrameRequest {
            info: &info,
            timeline: &timeline,
            first_frame,
            cursor,
            pool: pool.as_ref(),
            waker: &waker,
        });
        if let Some((mode, reason)) = source.mode_change() {
            gst::info!(CAT, imp = self, "{mode}: {reason}");
            self.stats.lock().set_mode(mode, reason);
        }
        let bounced = self.stats.lock().bounced_so_far(source.bounced_bytes());
        if bounced > 0 {
            gst::debug!(
                gst::CAT_PERFORMANCE,
                imp = self,
                "{bounced} bytes went through a bounce buffer: file, buffer or memory is not what O_DIRECT takes"
            );
        }
        if let Some(session) = self.state.lock().session() {
            session.cursor = match delivered {
                Ok(_) => cursor.advance(),
                Err(_) => cursor,
            };
            session.give_source(Some(source));
        }
        let delivery = delivered.map_err(|why| self.explain(why))?;
        let n = cursor.frame().unwrap_or_default();
        Ok(self.stamped(delivery, n, &info, &timeline))
    }

    /// Counts the frame and sets number, timestamps and flags of its buffer.
    fn stamped(
        &self,
        delivery: Delivery,
        n: u64,
        info: &gst_video::VideoInfo,
        timeline: &Timeline,
    ) -> gst::Buffer {
        let flags = delivery.video_flags(info);
        let Delivery {
            mut buffer,
            waited,
            read,
            ..
        } = delivery;
        self.count(n, info, waited, read);
        let time = |ns: Option<u64>| ns.map(gst::ClockTime::from_nseconds);
        let buffer_mut = buffer.make_mut();
        buffer_mut.set_pts(time(timeline.time_ns(n)));
        buffer_mut.set_duration(time(timeline.frame_duration_ns(n)));
        buffer_mut.set_offset(n);
        buffer_mut.set_offset_end(n + 1);
        buffer_mut.set_video_flags(flags);
        buffer
    }

    fn count(&self, n: u64, info: &gst_video::VideoInfo, waited: Duration, read: Duration) {
        self.stats
            .lock()
            .frame_read(info.size() as u64, waited, read);
        gst::trace!(
            CAT,
            imp = self,
            "frame {n} in {read:?}, after {waited:?} for a buffer"
        );
    }

    /// A callback that posts an error when bytes of a frame that was sent already turn out to
    /// be missing from the file.
    pub(super) fn on_loss(&self) -> OnLoss {
        let element = self.obj().downgrade();
        Box::new(move |error| {
            if let Some(element) = element.upgrade() {
                // The flow is not needed: the next read fails by itself.
                let _flow = element.imp().explain(Undelivered::Read(error));
            }
        })
    }

    fn explain(&self, why: Undelivered) -> gst::FlowError {
        let location = self.lock_settings().location.clone();
        match why {
            Undelivered::Flow(flow) => return flow,
            Undelivered::Finished => return gst::FlowError::Eos,
            Undelivered::Woken => return gst::FlowError::Flushing,
            Undelivered::Ended { have_bytes: 0, .. } => return gst::FlowError::Eos,
            Undelivered::Ended {
                frame,
                have_bytes,
                missing_bytes,
            } => {
                let location = location.unwrap_or_default();
                let text = errors::of_cut(&location, frame, have_bytes, missing_bytes);
                gst::element_imp_warning!(self, gst::ResourceError::Read, ("{text}"));
                return gst::FlowError::Eos;
            }
            Undelivered::Read(error) => {
                self.post_error_message(errors::of_read(location.as_deref(), &error));
            }
            Undelivered::Buffer(error) => self.post_error_message(errors::of_buffer(&error)),
        }
        gst::FlowError::Error
    }

    /// Whether `probe`, which may take long, has yet to be called.
    pub(super) fn is_unprobed(&self) -> bool {
        let mut state = self.state.lock();
        let input = state.session().and_then(|session| session.input.as_ref());
        input.is_some_and(|input| input.is_unprobed)
    }

    /// Waits for the first bytes of a pipe, or searches a file for frames that do not lie at
    /// equal distances.
    fn probe(&self) -> Result<(), gst::FlowError> {
        let (input, waker) = match self.state.lock().session() {
            Some(session) => (session.input.take(), session.waker.clone()),
            None => return Err(gst::FlowError::Flushing),
        };
        let mut input = input.ok_or(gst::FlowError::Error)?;
        let probed = input.probe(&waker);
        let (caps, guesses) = (input.caps(&self.template()), input.guesses());
        if let Some(session) = self.state.lock().session() {
            session.caps = caps;
            session.guesses = guesses;
            session.input = Some(input);
        }
        match probed {
            Ok(()) => Ok(()),
            Err(SetupError::Woken) => Err(gst::FlowError::Flushing),
            Err(error) => {
                self.post_error_message(errors::of_setup(&error));
                Err(gst::FlowError::Error)
            }
        }
    }

    /// Posts an error that explains a failed negotiation, unless an error has been posted
    /// already or the pad is flushing.
    pub(super) fn explain_refusal(&self) {
        let pad = self.obj().src_pad().clone();
        if self.has_failed() || pad.pad_flags().contains(gst::PadFlags::FLUSHING) {
            return;
        }
        let location = self.lock_settings().location.clone();
        let sentence = negotiation::explain(location.as_deref(), &pad.query_caps(None), &pad);
        self.post_error_message(gst::error_msg!(gst::CoreError::Negotiation, ("{sentence}")));
    }

    fn negotiate_now(&self) -> Result<(), gst::FlowError> {
        if self.obj().negotiate() {
            return Ok(());
        }
        let flags = self.obj().src_pad().pad_flags();
        Err(match flags.contains(gst::PadFlags::FLUSHING) {
            true => gst::FlowError::Flushing,
            false => gst::FlowError::NotNegotiated,
        })
    }

    /// Carries out the seek that came before the caps. No frame has been sent yet.
    fn seek_at_last(&self) -> Result<(), gst::FlowError> {
        let mut segment = self.segment();
        let event = {
            let mut state = self.state.lock();
            let session = state.session().ok_or(gst::FlowError::Flushing)?;
            let Some(stream) = &session.stream else {
                return Ok(());
            };
            let Some(event) = session.seek.take() else {
                return Ok(());
            };
            let playback = &stream.playback;
            let done = match event.view() {
                gst::EventView::Seek(seek) => seek::in_time(seek, &segment, playback),
                _ => None,
            };
            let timeline = playback.timeline;
            done.filter(|seek| match seek.view() {
                gst::EventView::Seek(seek) => seek::apply(seek, &mut segment),
                _ => false,
            })
            .inspect(|_| session.cursor = seek::go(&mut segment, Some(&timeline)))
            .ok_or(event)
        };
        match event {
            Ok(event) => {
                self.set_segment(&segment);
                if segment.flags().contains(gst::SegmentFlags::SEGMENT) {
                    let start = gst::message::SegmentStart::builder(segment.position());
                    let message = start.src(&*self.obj()).seqnum(event.seqnum()).build();
                    self.post_message(message);
                }
                Ok(())
            }
            Err(event) => {
                self.post_error_message(gst::error_msg!(
                    gst::ResourceError::Seek,
                    ("there is no such place as was asked for before the start: {event:?}")
                ));
                Err(gst::FlowError::Error)
            }
        }
    }

    /// Tells the base class how long the stream is.
    pub(super) fn set_duration(&self, duration_ns: Option<u64>) {
        let mut segment = self.segment();
        segment.set_duration(duration_ns.map(gst::ClockTime::from_nseconds));
        self.set_segment(&segment);
    }

    /// A copy of the base class's segment. The getter of the Rust bindings takes the stream
    /// lock, so with it an event handler would wait for the streaming thread.
    pub(super) fn segment(&self) -> gst::FormattedSegment<gst::ClockTime> {
        let mut segment = gst::FormattedSegment::new();
        self.with_base_segment(|base| {
            // SAFETY: `base` is a valid segment, in TIME because `constructed` has set that
            // format; a GstSegment is plain data.
            unsafe { gst::ffi::gst_segment_copy_into(base, segment.to_glib_none_mut().0) }
        });
        segment
    }

    /// Only the streaming thread calls this, or another thread while that one is stopped.
    fn set_segment(&self, segment: &gst::FormattedSegment<gst::ClockTime>) {
        self.with_base_segment(|base| {
            // SAFETY: both are valid segments; a GstSegment is plain data.
            unsafe { gst::ffi::gst_segment_copy_into(segment.to_glib_none().0, base) }
        });
    }

    fn with_base_segment(&self, work: impl FnOnce(&mut gst::ffi::GstSegment)) {
        let obj = self.obj();
        let base = obj.upcast_ref::<gst_base::BaseSrc>();
        let base_ptr: *mut gst_base::ffi::GstBaseSrc = base.as_ptr();
        let _lock = base.object_lock();
        // SAFETY: `base_ptr` points to a living object. The documentation of GstBaseSrc lets
        // subclasses change its segment under the object's lock, which `_lock` holds as long
        // as `work` has the reference.
        work(unsafe { &mut (*base_ptr).segment });
    }

    /// Records the difference between running time and timestamps when a live source begins
    /// to play. The base class does the same at that moment.
    pub(super) fn note_live_start(&self, time: gst::ClockTime) {
        let running_time = self.obj().current_running_time();
        if let (Some(session), Some(now)) = (self.state.lock().session(), running_time) {
            let offset_ns = now.nseconds() as i64 - time.nseconds() as i64;
            session.live_offset_ns.get_or_insert(offset_ns);
        }
    }

    /// Skips the late frames of a live stream, and counts them as dropped.
    fn without_late_frames(
        &self,
        cursor: Cursor,
        timeline: &Timeline,
        live_offset_ns: Option<i64>,
    ) -> Cursor {
        let (Cursor::Frame { n, step }, Some(offset_ns)) = (cursor, live_offset_ns) else {
            return cursor;
        };
        let Some(now) = self.obj().current_running_time() else {
            return cursor;
        };
        let due_ns = u64::try_from(now.nseconds() as i64 - offset_ns).unwrap_or_default();
        let current = timeline.frame_at(due_ns);
        if current > n {
            self.stats.lock().frames_dropped(current - n);
            gst::debug!(CAT, imp = self, "frames {n} to {} are late", current - 1);
        }
        let n = n.max(current);
        Cursor::Frame { n, step }
    }
}
