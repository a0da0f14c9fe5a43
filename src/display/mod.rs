// SPDX-License-Identifier: MPL-2.0
//! What both sinks do the same way.
//!
//! - `cycle`: where each frame of one screen or plane is, from hand-over to release.
//!
//! It knows neither framebuffers nor KMS, makes no system call and is tested without a device.

pub(crate) mod cycle;
