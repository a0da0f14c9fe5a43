// SPDX-License-Identifier: MPL-2.0
//! The example applications feed buffers of the pool to sinks of real drivers, and no frame is
//! copied. Modules are named for the display they need.

#[path = "../../examples/rust/app.rs"]
mod app;
mod support;

use std::process::Command;

use support::{Ran, require_lab, run};

/// Checks that 30 frames were written into the sink's own memory.
#[track_caller]
fn assert_zero_copy(ran: Ran) {
    let ran = ran.expect_success();
    for expected in [
        "frames are written into the sink's pool\n",
        "four verbs: ok\n",
        "zero-copy=(guint64)30, copied=(guint64)0",
    ] {
        assert!(
            ran.stdout.contains(expected),
            "no {expected:?} in\n{}",
            ran.stdout
        );
    }
    // In the lab the program is root, so it gets the address of the memory.
    assert!(ran.stdout.contains(" bytes at 0x"), "{}", ran.stdout);
}

fn c_application() -> Command {
    let flags = run(Command::new("pkg-config").args([
        "--cflags",
        "--libs",
        "gstreamer-app-1.0",
        "gstreamer-video-1.0",
    ]));
    let program = std::env::temp_dir().join("physmem-c-application");
    run(Command::new("cc")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["-Iinclude", "examples/c/app.c", "-o"])
        .arg(&program)
        .args(flags.expect_success().stdout.split_whitespace()))
    .expect_success();
    Command::new(program)
}

fn python_application() -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/python/app.py"
    ));
    command
}

mod cirrus {
    use super::*;

    #[test]
    fn the_c_application_writes_into_the_framebuffer() {
        require_lab();
        assert_zero_copy(run(c_application().arg("fbpansink")));
    }

    #[test]
    fn the_python_application_writes_into_the_framebuffer() {
        require_lab();
        assert_zero_copy(run(python_application().arg("fbpansink")));
    }

    #[test]
    fn the_rust_application_writes_into_the_framebuffer() {
        require_lab();
        support::init_gstreamer();
        gstphysmem::plugin_register_static().unwrap();
        let stats = app::run("fbpansink").unwrap();
        assert_eq!(stats.get::<u64>("zero-copy"), Ok(30), "{stats}");
        assert_eq!(stats.get::<u64>("copied"), Ok(0), "{stats}");
    }
}
