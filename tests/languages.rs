// SPDX-License-Identifier: MPL-2.0
//! The typelib that `src/introspect` makes: Python, JavaScript and Vala have the pool, its functions with their
//! errors, the meta, handles and regions.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use common::{deps, library_dir, output_of, root, scratch, with_plugin};

const NAMESPACE: &str = "GstPhysMem-0.1";

fn is_there(program: &str) -> bool {
    let found = Command::new("which").arg(program).output();
    found.is_ok_and(|output| output.status.success())
}

/// The directory of GIR and typelib. `None`, with a line that says so, if these programs are not all installed.
fn introspection(test: &str, programs: &[&str]) -> Option<&'static Path> {
    let missing = ["g-ir-scanner"]
        .iter()
        .chain(programs)
        .find(|name| !is_there(name));
    if let Some(missing) = missing {
        println!("SKIPPED {test}: {missing} is not installed");
        return None;
    }
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let directory = tempfile::tempdir_in(scratch()).unwrap().keep();
        let file = |kind| directory.join(format!("{NAMESPACE}.{kind}"));
        output_of(
            Command::new(root().join("src/introspect"))
                .arg(deps().join("libgstphysmem.so"))
                .args([file("gir"), file("typelib")])
                .env_remove("LD_LIBRARY_PATH"),
        );
        directory
    });
    Some(made)
}

/// A command that finds the typelib, and the library and the plugin just built, which are one file.
fn with_typelib(program: impl AsRef<std::ffi::OsStr>, typelib: &Path) -> Command {
    let mut command = with_plugin(program);
    command
        .env("LD_LIBRARY_PATH", library_dir())
        .env("GI_TYPELIB_PATH", typelib);
    command
}

#[test]
fn python_does_everything_by_the_typelib() {
    let Some(typelib) = introspection("python_does_everything_by_the_typelib", &[]) else {
        return;
    };
    let mut python = with_typelib("/usr/bin/python3", typelib);
    // A handle is freed while a buffer is over it, as is meant there.
    let out = output_of(python.arg(root().join("examples/python/typelib.py")));
    for expected in [
        "flushing: ",
        "no_dma_buf: buffer 1 is normal memory, which has no dma-buf",
        "no_such_id: ",
        "no_buffer: ",
        "illegal_step: buffer 1: submit-filled is not allowed in state ready-for-consume",
        "no_memory: ",
        "the memory was freed after its last use",
        "gone: ",
        "failed: ",
    ] {
        assert!(out.contains(expected), "no {expected:?} in\n{out}");
    }
    assert!(out.ends_with("\nok\n"), "{out}");
}

/// GObject's own names of types, properties and signals still do without a typelib, also in a process that
/// has it: `examples/python/pool.py` and the typelib know the same pool.
#[test]
fn signals_and_functions_are_those_of_the_same_pool_by_the_typelib() {
    let name = "signals_and_functions_are_those_of_the_same_pool_by_the_typelib";
    let Some(typelib) = introspection(name, &[]) else {
        return;
    };
    let mut python = with_typelib("/usr/bin/python3", typelib);
    let out = output_of(python.arg("-c").arg(
        "import gi\n\
         gi.require_version('Gst', '1.0'); gi.require_version('GstPhysMem', '0.1')\n\
         from gi.repository import GObject, Gst, GstPhysMem\n\
         Gst.init(None)\n\
         assert Gst.Plugin.load_by_name('physmem')\n\
         pool = GObject.new(GObject.type_from_name('GstPhysBufferPool'), kind='normal')\n\
         assert isinstance(pool, GstPhysMem.PhysBufferPool), pool\n\
         config = pool.get_config()\n\
         Gst.BufferPool.config_set_params(config, None, 4096, 1, 1)\n\
         assert pool.set_config(config) and pool.set_active(True)\n\
         buffer = pool.emit('acquire-free', 0)\n\
         number = pool.emit('describe', buffer).get_value('id')\n\
         assert GstPhysMem.buffer_get_phys_mem_meta(buffer).id == number\n\
         assert pool.submit_filled(buffer)\n\
         del buffer\n\
         assert pool.emit('release-filled', pool.emit('acquire-filled', 0))\n\
         print(pool.emit('dump'))\n",
    ));
    assert!(out.contains("pool of normal: 1 buffers, 1 free"), "{out}");
}

#[test]
fn javascript_hands_buffers_over_by_the_typelib() {
    let name = "javascript_hands_buffers_over_by_the_typelib";
    let Some(typelib) = introspection(name, &["gjs"]) else {
        return;
    };
    let out =
        output_of(with_typelib("gjs", typelib).arg(root().join("examples/javascript/pool.js")));
    assert_eq!(out.matches("refused: ").count(), 3, "{out}");
    assert!(out.ends_with("\nok\n"), "{out}");
}

#[test]
fn vala_hands_buffers_over_by_the_typelib() {
    let name = "vala_hands_buffers_over_by_the_typelib";
    let Some(typelib) = introspection(name, &["valac"]) else {
        return;
    };
    let program = scratch().join("pool-vala");
    let libraries = library_dir();
    let include = format!("-I{}", root().join("include").display());
    let search = format!("-L{}", libraries.display());
    let mut valac = Command::new("valac");
    valac
        .args(["--pkg", "gstreamer-1.0", "--pkg", NAMESPACE, "--girdir"])
        .arg(typelib)
        .args(["-X", &include, "-X", &search, "-X", "-lgstphysmem"])
        // The C code that valac makes drops the const of pointers.
        .args(["-X", "-w", "-o"])
        .arg(&program)
        .arg(root().join("examples/vala/pool.vala"));
    output_of(&mut valac);
    let out = output_of(&mut with_typelib(&program, typelib));
    assert!(out.contains("refused: "), "{out}");
    assert!(out.ends_with("\nok\n"), "{out}");
}
