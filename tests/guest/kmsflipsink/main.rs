// SPDX-License-Identifier: MPL-2.0
//! kmsflipsink on real KMS drivers, judged by what the display shows: the CRC of vkms, or the
//! picture that QEMU takes of the screen.

mod cards;
mod cirrus;
mod client;
mod configfs;
#[cfg(feature = "v1_24")]
mod dma_drm;
mod edid;
mod fences;
mod frames;
mod input;
mod leftovers;
mod overlay;
mod rate;
#[cfg(feature = "libseat")]
mod seat;
#[cfg(feature = "v1_24")]
mod unixfd;
mod unpaced;
mod vivid;
mod vkms;

#[path = "../support/mod.rs"]
mod support;
