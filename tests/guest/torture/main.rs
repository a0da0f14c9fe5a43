// SPDX-License-Identifier: MPL-2.0
//! Faults, again and again. Each one is a test that `runner` repeats; what must never happen is a hang, a crash, a leak, or a
//! frame that is lost without a counter or a message. Modules are groups of faults, with the displays that they need.
//!
//! The environment:
//!   PHYSMEM_TORTURE_ROUNDS      how often each fault is tried; by default a small number that the fault knows
//!   PHYSMEM_TORTURE_SECONDS     begin no round after this time
//!   PHYSMEM_TORTURE_SEED        where the random numbers begin
//!   PHYSMEM_TORTURE_NEIGHBOURS  1: threads of higher priority take most of the processors' time
//! The leaks tracer counts objects if it is on (GST_TRACERS=leaks).

/// A test that tries a fault again and again: `fault!(name, rounds, |round| ...)`.
macro_rules! fault {
    ($(#[$attribute:meta])* $name:ident, $rounds:expr, $body:expr) => {
        #[test]
        $(#[$attribute])*
        fn $name() {
            $crate::runner::run(concat!(module_path!(), "::", stringify!($name)), $rounds, $body);
        }
    };
}

#[allow(dead_code)] // fbpansink's tests use the rest
#[path = "../fbpansink/fb.rs"]
mod fb;
#[path = "../support/mod.rs"]
mod support;

mod gate;
mod measure;
mod neighbours;
mod runner;
mod screen;
mod watchdog;

mod disk;
mod display;
mod gstreamer;
mod memory;
#[cfg(target_arch = "x86_64")] // the numbers of system calls
mod privileges;
mod process;
mod soak;
