// SPDX-License-Identifier: MPL-2.0
//! The Debian packages, installed, are enough to play, to ask the doctor and to build programs. tests/suite makes
//! them beforehand, with packaging/build-deb. The guest has a DRM display.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use support::{require_lab, run, skip};

/// Debian's name of this architecture, and that of its directories below /usr/lib.
const ARCHITECTURE: (&str, &str) = if cfg!(target_arch = "x86_64") {
    ("amd64", "x86_64-linux-gnu")
} else if cfg!(target_arch = "aarch64") {
    ("arm64", "aarch64-linux-gnu")
} else {
    ("armhf", "arm-linux-gnueabihf")
};

/// Unpacked over the root as build-deb has unpacked them, because dpkg does not work everywhere: it renames directories,
/// which the guest's overlay cannot, and the trees of other architectures have none.
static INSTALLED: LazyLock<()> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/deb");
    let root = root.join(ARCHITECTURE.0).join("root");
    let directories = fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    for directory in directories {
        // Through links, such as that from /lib to usr/lib.
        let directory = directory.unwrap();
        let target = Path::new("/").join(directory.file_name()).join(".");
        succeed("cp", ["-a".into(), directory.path().join("."), target]);
    }
    succeed("ldconfig", [""; 0]);
});

/// A program with the environment of a user who has installed the packages and nothing else.
fn user_command(program: &str) -> Command {
    require_lab();
    LazyLock::force(&INSTALLED);
    let mut command = Command::new(program);
    command
        .env_remove("GST_PLUGIN_PATH")
        .env("GST_REGISTRY", "/run/registry-of-installed.bin");
    command
}

/// Runs a program that must succeed and returns all that it says.
#[track_caller]
fn said(command: &mut Command) -> String {
    let ran = run(command).expect_success();
    ran.stdout + &ran.stderr
}

#[track_caller]
fn succeed<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) {
    said(Command::new(program).args(arguments));
}

/// Whether programs can be built here. The trees of other architectures have no headers of GStreamer.
fn has_headers() -> bool {
    let mut asked = Command::new("pkg-config");
    let status = asked.args(["--exists", "gstreamer-1.0"]).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn gstreamer_finds_the_plugin_of_the_package() {
    // Without --plugin the name means the tracer.
    let said = said(user_command("gst-inspect-1.0").args(["--plugin", "physmem"]));
    // GStreamer may have found it through the link /lib.
    let place = format!("/lib/{}/gstreamer-1.0/libgstphysmem.so", ARCHITECTURE.1);
    for words in [place.as_str(), env!("CARGO_PKG_VERSION"), "physmemupload"] {
        assert!(said.contains(words), "no {words}: {said}");
    }
}

#[test]
fn frames_are_shown_without_a_copy() {
    for sink in ["kmsflipsink", "fbpansink"] {
        let line = format!("rawvideosrc num-buffers=30 ! {sink} name=sink");
        let said = said(
            user_command("gst-launch-1.0")
                .args(line.split(' '))
                .env("GST_DEBUG_NO_COLOR", "1")
                .env("GST_DEBUG", format!("{sink}:4")),
        );
        assert!(said.contains("copied 0,"), "{sink}: {said}");
    }
}

#[test]
fn the_doctor_gets_memory_of_known_address() {
    // It fails if any kind is missing, as some are on Debian's own kernel.
    let ran = run(user_command("physmem-doctor").arg("allocation"));
    let has_address = |line: &str| line.starts_with("ok") && line.contains(" at 0x");
    assert!(ran.stdout.lines().any(has_address), "{ran:?}");
}

#[test]
fn the_library_is_found_by_its_name() {
    let load =
        "import ctypes; print(ctypes.CDLL('libgstphysmem.so.0.1').gst_phys_buffer_pool_get_type)";
    said(user_command("python3").args(["-c", load]));
}

#[test]
fn c_programs_are_built_with_the_development_package() {
    if !has_headers() {
        return skip("no headers of GStreamer in this tree");
    }
    let source = "/usr/share/doc/libgstphysmem-dev/examples/c/app.c";
    let build = format!(
        "cc -o /run/app {source} $(pkg-config --cflags --libs gstphysmem gstreamer-app-1.0 gstreamer-video-1.0)"
    );
    said(user_command("sh").args(["-c", &build]));
    said(user_command("/run/app").arg("fakesink"));
}

#[test]
fn other_languages_find_the_typelib() {
    if !has_headers() {
        return skip("packages for another architecture than the builder's have no typelib");
    }
    let program = "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstPhysMem', '0.1'); from gi.repository import Gst, GstPhysMem; \
                   Gst.init(None); print(GstPhysMem.PhysBufferPool.new(GstPhysMem.PhysMemoryKind.NORMAL))";
    said(user_command("python3").args(["-c", program]));
}

#[test]
fn the_udev_rules_are_where_udev_looks() {
    user_command("true");
    let rules = ["/usr/lib/udev/rules.d", "/lib/udev/rules.d"]
        .map(|d| Path::new(d).join("60-physmem.rules"));
    let rules = rules.iter().find_map(|file| fs::read_to_string(file).ok());
    assert_eq!(
        rules.as_deref(),
        Some(include_str!("../../packaging/udev/60-physmem.rules"))
    );
}
