// SPDX-License-Identifier: MPL-2.0
//! Frames that come twice: the base class shows a frame for a preroll, and renders the same frame
//! when playing goes on.

/// The address of the frame that was shown last, if that was for a preroll. No other buffer can
/// have this address, because the base class holds the buffer until it is rendered.
#[derive(Debug, Default)]
pub(crate) struct Prerolled(Option<usize>);

impl Prerolled {
    /// Whether `buffer` was already shown for a preroll. Remembers `buffer` unless `is_rendered`.
    pub(crate) fn is_repeated(&mut self, buffer: &gst::Buffer, is_rendered: bool) -> bool {
        let address = buffer.as_ptr() as usize;
        let shown = std::mem::replace(&mut self.0, (!is_rendered).then_some(address));
        shown == Some(address)
    }

    /// The frame was not shown, or is no longer on screen.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

/// What a sink tells the base class of a frame that it was to show. A flush that ends the wait for the screen during a
/// preroll is no failure: at a failure the base class gives up the change to PAUSED, and the element stays in READY with
/// active pads, which later changes of state do not reach. After a success it sees by itself that it is flushing.
pub(crate) fn outcome(
    shown: Result<gst::FlowSuccess, gst::FlowError>,
    is_rendered: bool,
) -> Result<gst::FlowSuccess, gst::FlowError> {
    match shown {
        Err(gst::FlowError::Flushing) if !is_rendered => Ok(gst::FlowSuccess::Ok),
        shown => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_frame_that_was_shown_for_a_preroll_is_repeated() {
        gst::init().unwrap();
        let (one, other) = (gst::Buffer::new(), gst::Buffer::new());
        let mut prerolled = Prerolled::default();
        let (preroll, render) = (false, true);
        assert!(!prerolled.is_repeated(&one, preroll));
        assert!(
            prerolled.is_repeated(&one, preroll),
            "paused again before it was rendered"
        );
        assert!(prerolled.is_repeated(&one, render));
        assert!(
            !prerolled.is_repeated(&one, render),
            "the same memory, another frame"
        );
        assert!(!prerolled.is_repeated(&one, preroll));
        assert!(!prerolled.is_repeated(&other, render));
        assert!(!prerolled.is_repeated(&one, preroll));
        prerolled.forget();
        assert!(!prerolled.is_repeated(&one, render));
    }

    #[test]
    fn only_a_preroll_that_is_flushed_succeeds_all_the_same() {
        let (flushed, failed) = (gst::FlowError::Flushing, gst::FlowError::Error);
        assert_eq!(outcome(Err(flushed), false), Ok(gst::FlowSuccess::Ok));
        assert_eq!(outcome(Err(flushed), true), Err(flushed));
        assert_eq!(outcome(Err(failed), false), Err(failed));
    }
}
