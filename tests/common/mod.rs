// SPDX-License-Identifier: MPL-2.0
//! Helpers for tests that compile and run programs with the plugin just built. No test lives here.
#![allow(dead_code)] // every test binary uses its own part of it

pub mod play;
pub mod video_overlay;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

pub fn page_size() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.unwrap().unwrap() as usize
}

/// The directory of this test's binary, where cargo also puts the plugin's library.
pub fn deps() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().to_owned()
}

/// A directory that contains only the library just built.
pub fn library_dir() -> PathBuf {
    let plugins = tempfile::tempdir_in(scratch()).unwrap().keep();
    let library = deps().join("libgstphysmem.so");
    // Also under its soname, for programs that link with it, as `meson install` does.
    for name in ["libgstphysmem.so", "libgstphysmem.so.0.1"] {
        std::os::unix::fs::symlink(&library, plugins.join(name)).unwrap();
    }
    plugins
}

/// A command that finds no other plugin of ours than the one just built.
pub fn with_plugin(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let plugins = library_dir();
    let mut command = Command::new(program);
    command
        // cargo sets it to target/debug, which may contain an older build of the plugin.
        .env_remove("LD_LIBRARY_PATH")
        .env("GST_REGISTRY", plugins.join("registry.bin"))
        .env("GST_PLUGIN_PATH", plugins)
        .env("G_DEBUG", "fatal-warnings");
    command
}

/// The standard output. A failure also prints the standard error.
#[track_caller]
pub fn output_of(command: &mut Command) -> String {
    outputs_of(command).0
}

/// The standard output and the standard error. A failure prints both.
#[track_caller]
pub fn outputs_of(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}\n{err}",
        output.status
    );
    (out, err)
}

pub fn compile(arguments: &[&str], packages: &[&str]) {
    let flags = output_of(
        Command::new("pkg-config")
            .args(["--cflags", "--libs"])
            .args(packages),
    );
    output_of(
        Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-Iinclude"])
            .args(arguments)
            .args(flags.split_whitespace())
            .current_dir(root()),
    );
}

/// Compiles a C program that links with the library just built.
#[track_caller]
pub fn c_program(source: &str, name: &str) -> PathBuf {
    let program = scratch().join(name);
    let directory = library_dir();
    let directory = directory.to_str().unwrap();
    let (search, run_path) = (format!("-L{directory}"), format!("-Wl,-rpath,{directory}"));
    let output = program.to_str().unwrap();
    let arguments = [source, "-o", output, &search, &run_path, "-lgstphysmem"];
    compile(&arguments, &["gstreamer-1.0"]);
    program
}

/// A memfd of this size that nobody can cut.
#[allow(dead_code)]
pub fn sealed_memfd(size: u64) -> std::fs::File {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    let file = memfd(size);
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    file
}

/// A memfd of this size that its owner can cut.
pub fn memfd(size: u64) -> std::fs::File {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(c"hostile", flags).unwrap();
    let file = std::fs::File::from(file);
    file.set_len(size).unwrap();
    file
}
