// SPDX-License-Identifier: MPL-2.0
//! The card that the application passes to the sink, by the property `fd` or by a GstContext.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::KmsFlipSink;
use crate::kmsflipsink::drm_context;
use crate::kmsflipsink::error::KmsError;
use crate::locks::lock;

impl KmsFlipSink {
    /// A duplicate of the file that the application passed. The property comes before the context. If there is neither,
    /// asks the application and the bins above for the context, who may answer during the call.
    pub(super) fn given_card(&self) -> Result<Option<Arc<OwnedFd>>, KmsError> {
        let fd = lock(&self.settings).fd;
        let duplicate = match fd {
            0.. => {
                // SAFETY: the fd is open: the application keeps it open while the sink is in use, as the property's blurb
                // says. The borrow ends with this statement.
                unsafe { BorrowedFd::borrow_raw(fd) }
                    .try_clone_to_owned()
                    .map(Some)
            }
            _ => self.card_of_context(),
        };
        let failed = |source| KmsError::Io {
            operation: "duplicating the fd given",
            path: "the DRM device".into(),
            source,
        };
        Ok(duplicate.map_err(failed)?.map(Arc::new))
    }

    fn card_of_context(&self) -> io::Result<Option<OwnedFd>> {
        let sink = self.obj();
        if sink.context(drm_context::TYPE).is_none() {
            let message = gst::message::NeedContext::builder(drm_context::TYPE);
            let _ = sink.post_message(message.src(&*sink).build());
        }
        match sink.context(drm_context::TYPE) {
            Some(context) => drm_context::fd_of(&context),
            None => Ok(None),
        }
    }

    /// Answers a query for the context of the card that the sink shows on. False if it is another query, or while the sink
    /// is stopped.
    pub(super) fn answers_context(&self, query: &mut gst::QueryRef) -> bool {
        let gst::QueryViewMut::Context(query) = query.view_mut() else {
            return false;
        };
        if query.context_type() != drm_context::TYPE {
            return false;
        }
        let card = self.started(|started| (started.head.device.clone(), started.given.clone()));
        let Some((device, given)) = card else {
            return false;
        };
        let context = drm_context::of_card(&device.path, &device.driver, given.as_ref());
        query.set_context(&context);
        true
    }
}
