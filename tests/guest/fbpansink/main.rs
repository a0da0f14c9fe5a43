// SPDX-License-Identifier: MPL-2.0
//! fbpansink on real drivers. The picture on the screen is judged from outside of the machine.
//! Modules are named for the display that they need.

#[path = "../support/mod.rs"]
mod support;

mod adoption;
mod cirrus;
mod claims;
mod console;
mod dead;
mod fb;
mod misreporting_drivers;
mod none;
mod pictures;
mod rate;
mod single_page;
mod storm;
mod unplug;
mod vkms;
