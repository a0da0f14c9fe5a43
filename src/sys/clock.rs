// SPDX-License-Identifier: MPL-2.0
//! The clock of the kernel's time stamps.

/// CLOCK_MONOTONIC, the clock of DRM's flip events.
pub fn monotonic_ns() -> u64 {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
        Ok(now) => now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64,
        Err(_) => 0,
    }
}
