// SPDX-License-Identifier: MPL-2.0
#![no_main]
#![allow(dead_code)] // what only the program itself uses

#[path = "../../tools/src/bin/physmem-top/connection.rs"]
mod connection;
#[path = "../../tools/src/bin/physmem-top/fuzzing.rs"]
mod fuzzing;
#[path = "../../tools/src/bin/physmem-top/model.rs"]
mod model;
#[path = "../../tools/src/bin/physmem-top/view.rs"]
mod view;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::top(bytes));
