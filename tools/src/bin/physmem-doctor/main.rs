// SPDX-License-Identifier: MPL-2.0
//! physmem-doctor: says what this machine has of what gst-plugin-physmem needs, and what would mend what it
//! lacks.
//!
//! - `facts`: what is found on the machine; files are read below a root directory, so that the reading is
//!   tested with recorded trees;
//! - `judge`: makes items of the facts; pure;
//! - `item`: an item and its verdict;
//! - `report`: items and facts as a table or as JSON;
//! - `options`: the command line.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used)]

mod facts;
#[cfg(test)]
mod fuzzing;
mod item;
mod judge;
#[cfg(test)]
#[path = "../../man_page.rs"]
mod man_page;
mod options;
mod report;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use facts::Facts;
use options::Options;
use report::Report;

fn main() -> ExitCode {
    let options = Options::parse();
    let facts = Facts::of_this_machine(options.try_display);
    let report = Report::new(facts, &options.parts);
    let text = if options.json {
        report.json()
    } else {
        report.table()
    };
    // A reader that has seen enough (head) is no fault.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(report.exit_status)
}
