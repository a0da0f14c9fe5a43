// SPDX-License-Identifier: MPL-2.0
//! A plugin that was built for an older GStreamer works in this one, since distributions update GStreamer and
//! leave plugins as they are. tests/suite names the older build where it runs the tests in a newer Debian.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::outputs_of;

/// A program that finds the older build and no other plugin of ours. `None`, with a line that says so, if the
/// caller named no older build.
fn with_older_build(program: &str, test: &str) -> Option<Command> {
    let Some(plugins) = std::env::var_os("PHYSMEM_OLDER_BUILD") else {
        println!(
            "SKIPPED {test}: PHYSMEM_OLDER_BUILD names no plugin that was built for an older GStreamer"
        );
        return None;
    };
    let registry: PathBuf = [env!("CARGO_TARGET_TMPDIR"), "older-build.registry"]
        .iter()
        .collect();
    let mut command = Command::new(program);
    command
        .env_remove("LD_LIBRARY_PATH")
        .env("GST_PLUGIN_PATH", plugins)
        .env("GST_REGISTRY", registry.with_extension(test))
        .env("G_DEBUG", "fatal-warnings");
    Some(command)
}

#[test]
fn an_older_build_has_all_its_elements() {
    const NAME: &str = "an_older_build_has_all_its_elements";
    let inspect = |what: &[&str]| {
        let mut inspect = with_older_build("gst-inspect-1.0", NAME)?;
        let (out, err) = outputs_of(inspect.args(what));
        Some(out + &err)
    };
    // The plugin's tracer has the plugin's name.
    let Some(plugin) = inspect(&["--plugin", "physmem"]) else {
        return;
    };
    for element in ["rawvideosrc", "fbpansink", "kmsflipsink", "physmemupload"] {
        assert!(
            plugin.contains(&format!("  {element}: ")),
            "no {element} in\n{plugin}"
        );
    }
    // Builds for 1.24 and newer have caps that 1.22 does not know.
    let sink = inspect(&["kmsflipsink"]).unwrap();
    assert!(sink.contains("video/x-raw"), "{sink}");
    assert!(!sink.contains("DMA_DRM"), "not an older build:\n{sink}");
}

#[test]
fn an_older_build_plays() {
    let Some(mut launch) = with_older_build("gst-launch-1.0", "an_older_build_plays") else {
        return;
    };
    let pipeline = "--no-position rawvideosrc num-buffers=30 ! video/x-raw,format=NV12,width=320,height=240 \
                    ! physmemupload memory-kind=normal ! fakesink sync=false";
    let (out, err) = outputs_of(
        launch
            .args(pipeline.split_whitespace())
            .env("GST_DEBUG", "physmemupload:4")
            .env("GST_DEBUG_NO_COLOR", "1"),
    );
    let log = out + &err;
    assert!(log.contains("Got EOS from element"), "{log}");
    let stopped = log
        .lines()
        .find(|line| line.contains("physmemupload") && line.contains("passed"));
    assert!(
        stopped.is_some_and(|line| line.contains("passed 30, copied 0")),
        "{log}"
    );
}
