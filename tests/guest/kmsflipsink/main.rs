// SPDX-License-Identifier: MPL-2.0
//! kmsflipsink on real KMS drivers, judged by what the display shows: vkms's
//! CRC, or the picture that the machine's outside sees.

mod cards;
mod cirrus;
mod configfs;
#[cfg(feature = "v1_24")]
mod dma_drm;
mod frames;
mod overlay;
mod rate;
#[cfg(feature = "v1_24")]
mod unixfd;
mod unpaced;
mod vivid;
mod vkms;

#[path = "../support/mod.rs"]
mod support;
