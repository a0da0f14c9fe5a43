// SPDX-License-Identifier: MPL-2.0
#![no_main]
#![allow(dead_code)] // what only the program itself uses

#[path = "../../tools/src/bin/physmem-doctor/facts/mod.rs"]
mod facts;
#[path = "../../tools/src/bin/physmem-doctor/fuzzing.rs"]
mod fuzzing;
#[path = "../../tools/src/bin/physmem-doctor/item.rs"]
mod item;
#[path = "../../tools/src/bin/physmem-doctor/judge/mod.rs"]
mod judge;
#[path = "../../tools/src/bin/physmem-doctor/options.rs"]
mod options;
#[path = "../../tools/src/bin/physmem-doctor/report.rs"]
mod report;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::doctor(bytes));
