// SPDX-License-Identifier: MPL-2.0
//! Tests that need no display.

mod kinds;
mod limits;
mod unprivileged;

use crate::support;

fn rerun_command(test: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command
}

fn expect_one_pass(command: &mut std::process::Command) {
    let ran = support::run(command).expect_success();
    print!("{}", ran.stdout);
    assert!(ran.stdout.contains("1 passed"), "{}", ran.stdout);
}
