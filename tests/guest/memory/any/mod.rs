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

#[test]
fn an_object_that_is_left_makes_the_end_of_a_test_program_an_error() {
    const NAME: &str = "any::an_object_that_is_left_makes_the_end_of_a_test_program_an_error";
    crate::support::require_lab();
    if std::env::var_os("PHYSMEM_TEST_LEAVE").is_some() {
        support::init_gstreamer();
        std::mem::forget(gst::Bus::new());
        return;
    }
    let mut command = rerun_command(NAME);
    command
        .env("PHYSMEM_TEST_LEAVE", "1")
        .env("GST_TRACERS", "leaks");
    let ran = support::run(&mut command);
    assert_eq!(ran.status.code(), Some(101), "{}", ran.stderr);
    assert!(ran.stderr.contains("GstBus"), "{}", ran.stderr);
}
