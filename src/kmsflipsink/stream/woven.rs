// SPDX-License-Identifier: MPL-2.0
//! Single fields (`interlace-mode=alternate`), of which two are copied into one frame, which is shown.

use std::sync::Arc;

use super::plan::Scanout;
use super::{DisplayOptions, NEEDS_COMPOSING, Showing, Stream, frame};
use crate::display::frame_log::Way;
use crate::kmsflipsink::CAT;
use crate::kmsflipsink::error::NotPresented;
use crate::kmsflipsink::fields::{Pairing, Parity};
use crate::kmsflipsink::framebuffer::Framebuffer;

const WEAVING: &str = "each buffer is a field, and a display shows whole frames, so two fields are copied into one frame";

/// A frame of two fields.
type Woven = (gst::Buffer, Arc<Framebuffer>);

/// The fields on their way to become frames.
#[derive(Debug)]
pub(super) struct Weaver {
    pairing: Pairing<gst::Buffer>,
    /// The last frame, to be shown again.
    last: Option<Woven>,
    /// Set if the last frame could not be handed over, because of a pause. Its second field comes again.
    is_last_due: bool,
}

impl Weaver {
    pub(super) fn new(begins_with: Option<Parity>) -> Self {
        Self {
            pairing: Pairing::new(begins_with),
            last: None,
            is_last_due: false,
        }
    }
}

impl Stream {
    /// Shows a frame when its second field comes. The first one only waits.
    pub(super) fn show_field(
        &self,
        field: &gst::Buffer,
        showing: Showing,
        options: &DisplayOptions,
    ) -> Result<(), NotPresented> {
        let woven = match showing.repeats {
            Some(_) => self.weaver.lock().last.clone(),
            None => self.weave(field).map_err(NotPresented::Refused)?,
        };
        let Some((buffer, framebuffer)) = woven else {
            return Ok(());
        };
        let shown = self.show_woven(field, buffer, framebuffer, showing, options);
        if showing.repeats.is_none() {
            self.weaver.lock().is_last_due = matches!(shown, Err(NotPresented::Flushing));
        }
        shown
    }

    fn show_woven(
        &self,
        field: &gst::Buffer,
        buffer: gst::Buffer,
        framebuffer: Arc<Framebuffer>,
        showing: Showing,
        options: &DisplayOptions,
    ) -> Result<(), NotPresented> {
        let (choice, _) = self.choose(&buffer, options);
        let overlaid = self.overlaid(field, choice);
        let placement = match choice {
            Scanout::Nowhere => return Ok(()),
            Scanout::Composed(_) => {
                return self.show_copy(&buffer, choice, showing, &overlaid, &NEEDS_COMPOSING);
            }
            Scanout::Direct(placement) => placement,
        };
        if let Some(blend) = overlaid.blend() {
            return self.show_copy(&buffer, choice, showing, &overlaid, &blend.reason);
        }
        self.log().copy(*CAT, Way::Woven, WEAVING);
        let mut frame = frame(&buffer, framebuffer, placement, showing, false);
        frame.overlay = overlaid.into();
        self.head.present(frame, false)
    }

    /// The frame that the field completes, if it does.
    fn weave(&self, field: &gst::Buffer) -> Result<Option<Woven>, String> {
        let Some(fields) = &self.caps.fields else {
            return Ok(None);
        };
        let mut weaver = self.weaver.lock();
        if weaver.is_last_due {
            return Ok(weaver.last.clone());
        }
        let pair = weaver.pairing.add(Parity::of(field), field.clone());
        let Some(pair) = pair else {
            return Ok(None);
        };
        let mut sets = self.copies.lock();
        if sets.plain.is_none() {
            let copies = self.make_copies(&self.caps.info, self.fourcc);
            sets.plain = Some(copies.map_err(|error| format!("no memory for frames: {error}"))?);
        }
        let copies = sets.plain.as_mut().ok_or("no memory for frames")?;
        // The screen may still show it.
        weaver.last = None;
        let woven = copies.weave(&fields.info, pair.each_ref().map(|field| &**field))?;
        weaver.last = Some(woven.clone());
        Ok(Some(woven))
    }

    /// Gives up a field that waits for the other one, because that will not come.
    pub fn forget_field(&self) {
        let mut weaver = self.weaver.lock();
        weaver.is_last_due = false;
        let field = weaver.pairing.forget();
        drop(weaver);
        drop(field);
    }
}
