// SPDX-License-Identifier: MPL-2.0
//! Whether a frame comes again: one that was shown while pausing does when playing goes on.

/// The frame shown last, by the address of its buffer and its time. The buffer is not held, which
/// upstream may need; so an address alone would say nothing.
#[derive(Debug, Default)]
pub(crate) struct LastFrame(Option<(usize, gst::ClockTime)>);

impl LastFrame {
    /// Whether `buffer` is that frame; from now on it is.
    pub(crate) fn is_repeated(&mut self, buffer: &gst::Buffer) -> bool {
        let now = buffer.pts().map(|pts| (buffer.as_ptr() as usize, pts));
        std::mem::replace(&mut self.0, now) == now && now.is_some()
    }

    /// It was not shown, or is not any more.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_repeated_that_comes_with_the_same_time() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        let mut last = LastFrame::default();
        assert!(!last.is_repeated(&buffer));
        assert!(
            !last.is_repeated(&buffer),
            "without a time it may be another"
        );
        for seconds in [1, 2] {
            buffer
                .get_mut()
                .unwrap()
                .set_pts(gst::ClockTime::from_seconds(seconds));
            assert!(!last.is_repeated(&buffer));
            assert!(last.is_repeated(&buffer));
        }
        last.forget();
        assert!(!last.is_repeated(&buffer));
    }
}
