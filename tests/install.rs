// SPDX-License-Identifier: MPL-2.0
//! What `meson install` and `cargo cinstall` install is enough to build and run C programs by
//! pkg-config alone.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

const SONAME: &str = "libgstphysmem.so.0.1";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}\n{err}",
        output.status
    );
    out.into_owned()
}

fn is_there(program: &str, argument: &str) -> bool {
    let ran = Command::new(program).arg(argument).output();
    ran.is_ok_and(|output| output.status.success())
}

/// Gives a nested cargo a target directory of its own, because it builds with other options, and would overwrite the
/// library of the same name.
fn in_own_target(command: &mut Command) -> &mut Command {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap().join("install");
    command
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
}

/// The target triple of this machine.
fn triple() -> String {
    let said = output_of(Command::new("rustc").arg("-vV"));
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap().to_owned()
}

/// Writes a Meson cross file that describes this machine, so that the build is a cross build whose
/// programs can be run.
fn cross_file(path: &Path) {
    let text = format!(
        "[binaries]\nc = 'cc'\npkg-config = 'pkg-config'\npkgconfig = 'pkg-config'\n[host_machine]\nsystem = 'linux'\n\
         cpu_family = '{arch}'\ncpu = '{arch}'\nendian = 'little'\n",
        arch = std::env::consts::ARCH,
    );
    std::fs::write(path, text).unwrap();
}

/// The source of a program that links with the library and makes GStreamer load the plugin. If the
/// two were different files, GObject would complain that the types are registered twice.
const LINKED_AND_LOADED: &str = r#"
#include <gstphysmem.h>
int main (int argc, char **argv)
{
  GstPlugin *plugin;
  GstElement *element;
  static guint8 bytes[4096];
  GstPhysMemBlock block = { bytes, sizeof bytes, GST_PHYS_ADDR_UNKNOWN };
  GstBufferPool *pool;
  gst_init (&argc, &argv);
  plugin = gst_plugin_load_by_name ("physmem");
  element = gst_element_factory_make ("rawvideosrc", NULL);
  pool = gst_phys_buffer_pool_new_with_regions (&block, 1);
  if (!plugin || !element || !pool)
    return 1;
  g_print ("%s\n", gst_plugin_get_filename (plugin));
  gst_object_unref (pool);
  gst_object_unref (element);
  gst_object_unref (plugin);
  return 0;
}
"#;

struct Installed {
    prefix: PathBuf,
    scratch: PathBuf,
}

impl Installed {
    fn lib(&self) -> PathBuf {
        self.prefix.join("lib")
    }

    fn pkg_config(&self, what: &str) -> String {
        let path = self.lib().join("pkgconfig");
        let mut command = Command::new("pkg-config");
        output_of(
            command
                .args([what, "gstphysmem"])
                .env("PKG_CONFIG_PATH", path),
        )
        .trim()
        .to_owned()
    }

    fn compile(&self, source: &Path, name: &str) -> PathBuf {
        let program = self.scratch.join(name);
        let flags = ["--cflags", "--libs"].map(|what| self.pkg_config(what));
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Wextra", "-Werror", "-o"])
            .args([&program, source])
            .args(flags.iter().flat_map(|flags| flags.split_whitespace()));
        output_of(&mut cc);
        program
    }

    /// Runs a program as if ldconfig knew the prefix, with the plugins of the prefix alone.
    fn run(&self, program: &Path, debug: &str) -> String {
        output_of(
            Command::new(program)
                .env("LD_LIBRARY_PATH", self.lib())
                .env("GST_PLUGIN_SYSTEM_PATH", "")
                .env("GST_PLUGIN_PATH", self.lib().join("gstreamer-1.0"))
                .env("GST_REGISTRY", self.scratch.join("registry"))
                .env("G_DEBUG", debug),
        )
    }

    /// Checks the installed files: all names of the library and the plugin are the same file.
    fn check(&self) {
        assert!(self.prefix.join("include/gstphysmem/gstphysmem.h").exists());
        assert_eq!(self.pkg_config("--modversion"), env!("CARGO_PKG_VERSION"));
        let plugin = Path::new("gstreamer-1.0/libgstphysmem.so");
        let inode = |name: &Path| std::fs::metadata(self.lib().join(name)).unwrap().ino();
        let full = format!("libgstphysmem.so.{}", env!("CARGO_PKG_VERSION"));
        for name in [
            Path::new("libgstphysmem.so"),
            Path::new(SONAME),
            Path::new(&full),
        ] {
            assert_eq!(inode(name), inode(plugin), "{}", name.display());
        }
        let external = self.compile(&root().join("examples/c/external.c"), "external");
        let header = output_of(Command::new("readelf").arg("-d").arg(&external));
        assert!(
            header.contains(&format!("Shared library: [{SONAME}]")),
            "{header}"
        );
        // The program maps freed memory, which fails with a warning.
        let said = self.run(&external, "");
        assert!(said.ends_with("verbs and their errors: ok\n"), "{said}");

        let source = self.scratch.join("linked_and_loaded.c");
        std::fs::write(&source, LINKED_AND_LOADED).unwrap();
        let program = self.compile(&source, "linked_and_loaded");
        let loaded = self.run(&program, "fatal-warnings");
        assert_eq!(Path::new(loaded.trim()), self.lib().join(plugin));
    }
}

impl Installed {
    /// Checks that Python finds typelib, library and plugin in the prefix.
    fn check_introspection(&self) {
        assert!(
            self.prefix
                .join("share/gir-1.0/GstPhysMem-0.1.gir")
                .exists()
        );
        let said = output_of(
            Command::new("/usr/bin/python3")
                .arg(root().join("examples/python/typelib.py"))
                .env("LD_LIBRARY_PATH", self.lib())
                .env("GI_TYPELIB_PATH", self.lib().join("girepository-1.0"))
                .env("GST_PLUGIN_SYSTEM_PATH", "")
                .env("GST_PLUGIN_PATH", self.lib().join("gstreamer-1.0"))
                .env("GST_REGISTRY", self.scratch.join("registry"))
                .env("G_DEBUG", "fatal-warnings"),
        );
        assert!(said.ends_with("\nok\n"), "{said}");
    }
}

/// An empty prefix in a scratch directory.
fn prefix() -> (tempfile::TempDir, Installed) {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let installed = Installed {
        prefix: scratch.path().join("prefix"),
        scratch: scratch.path().to_owned(),
    };
    (scratch, installed)
}

#[test]
fn what_meson_installs_is_enough_for_c() {
    if !is_there("meson", "--version") || !is_there("ninja", "--version") {
        println!("SKIPPED what_meson_installs_is_enough_for_c: no meson or no ninja");
        return;
    }
    let (scratch, installed) = prefix();
    let build = scratch.path().join("build");
    let cross = scratch.path().join("cross");
    cross_file(&cross);
    output_of(
        Command::new("meson")
            .args([
                "setup",
                "--libdir=lib",
                "-Doffline=true",
                "--buildtype=debug",
                "-Dstrip=true",
            ])
            .arg(format!("--cross-file={}", cross.display()))
            .arg(format!("-Drust-target={}", triple()))
            .arg(format!("--prefix={}", installed.prefix.display()))
            .args([build.as_path(), root()]),
    );
    output_of(in_own_target(
        Command::new("meson").args(["install", "-C"]).arg(&build),
    ));
    installed.check();
    if is_there("g-ir-scanner", "--version") {
        installed.check_introspection();
    } else {
        println!("SKIPPED the typelib of what_meson_installs_is_enough_for_c: no g-ir-scanner");
    }
    let library = installed.lib().join("libgstphysmem.so");
    let sections = output_of(Command::new("readelf").arg("-SW").arg(library));
    assert!(sections.contains(".dynsym"), "{sections}");
    for stripped in [".symtab", ".debug_info", ".debug_line"] {
        assert!(!sections.contains(stripped), "{stripped}: {sections}");
    }
}

/// The manifest of an application with an edition before 2024. The default resolver of such an
/// edition takes the newest crates even if the compiler is too old for them; `resolver` changes
/// that. It is a workspace of its own, because target/ may lie in this one.
const APPLICATION: &str = r#"
[workspace]

[package]
name = "application"
edition = "2021"
resolver = "3"

[dependencies]
gst = { package = "gstreamer", version = "0.25" }
gst-plugin-physmem = { path = "@" }
"#;

const APPLICATION_MAIN: &str = r#"
use gst::prelude::*;
use gstphysmem::{memory::MemoryKind, meta::PhysMemMeta, pool::PhysBufferPool};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gst::init()?;
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(None, 4096, 1, 1);
    pool.set_config(config)?;
    pool.set_active(true)?;
    let buffer = pool.acquire_buffer(None)?;
    println!("{} bytes", buffer.meta::<PhysMemMeta>().ok_or("no meta")?.size_bytes());
    Ok(())
}
"#;

#[test]
fn an_application_of_edition_2021_builds_and_runs_with_the_crate() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let manifest = APPLICATION.replace('@', root().to_str().unwrap());
    std::fs::write(scratch.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::create_dir(scratch.path().join("src")).unwrap();
    std::fs::write(scratch.path().join("src/main.rs"), APPLICATION_MAIN).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["run", "--quiet", "--offline", "--target", &triple()])
        .current_dir(scratch.path());
    let said = output_of(in_own_target(&mut cargo));
    assert_eq!(said, "4096 bytes\n");
}

#[test]
fn what_cargo_c_installs_is_enough_for_c() {
    if !is_there("cargo-cinstall", "--version") {
        println!("SKIPPED what_cargo_c_installs_is_enough_for_c: cargo-c is not installed");
        return;
    }
    let (_scratch, installed) = prefix();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["cinstall", "--package", "gst-plugin-physmem"])
        .args(["--offline", "--locked", "--library-type=cdylib"])
        .args(["--libdir=lib", "--prefix"])
        .arg(&installed.prefix)
        .arg("--debug")
        .current_dir(root());
    output_of(in_own_target(&mut cargo));
    // README.md tells the user to make this link, which cargo-c cannot make.
    let plugins = installed.lib().join("gstreamer-1.0");
    std::fs::create_dir_all(&plugins).unwrap();
    std::os::unix::fs::symlink("../libgstphysmem.so", plugins.join("libgstphysmem.so")).unwrap();
    installed.check();
}
