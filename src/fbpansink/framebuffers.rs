// SPDX-License-Identifier: MPL-2.0
//! The framebuffers of the machine.

use std::path::PathBuf;

use super::{CAT, Framebuffer};

/// The device nodes that exist, in the order in which the sink tries them.
pub(super) fn nodes() -> impl Iterator<Item = PathBuf> {
    (0..32)
        .map(|n| PathBuf::from(format!("/dev/fb{n}")))
        .filter(|path| path.exists())
}

/// Asks all framebuffers of the machine for their mode, which changes none of them. Those that the process may not
/// open are left out; the log says why.
pub(crate) fn all() -> impl Iterator<Item = Framebuffer> {
    nodes().filter_map(|device| match Framebuffer::inspect(&device) {
        Ok(framebuffer) => Some(framebuffer),
        Err(error) => {
            let why = crate::sys::describe(&error);
            gst::debug!(CAT, "{} is not listed: {why}", device.display());
            None
        }
    })
}
