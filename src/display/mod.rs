// SPDX-License-Identifier: MPL-2.0
//! What both sinks do in the same way.
//!
//! - `area`: where a picture goes on a screen, and the property `render-rectangle`;
//! - `cycle`: where each frame of one screen or plane is, from hand-over to release;
//! - `frame_log`: counters, and the sentence on the path of the frames;
//! - `paused`: whether the frame on the screen stays;
//! - `prerolled`: frames that the base class hands over twice;
//! - `presentation`: when a frame is to be on the screen, when it was, and what the pipeline is told of both.
//!
//! This room knows neither framebuffers nor KMS and makes no system call: its tests need no device.

pub(crate) mod area;
pub(crate) mod cycle;
pub(crate) mod frame_log;
pub(crate) mod paused;
pub(crate) mod prerolled;
pub(crate) mod presentation;
