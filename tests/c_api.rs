// SPDX-License-Identifier: MPL-2.0
//! `include/gstphysmem.h`: it matches the sources, works in C and C++, and misuse of it is
//! harmless.

mod common;

use std::process::Command;

use common::{c_program, compile, output_of, root, scratch, with_plugin};
use gst::glib::{self, prelude::*};
use gstphysmem::{memory::MemoryKind, meta::ffi::GstPhysMemMeta};

/// The sources of the header; cbindgen.toml lists them too.
const SOURCES: [&str; 4] = [
    "src/memory/kind.rs",
    "src/address.rs",
    "src/meta/ffi.rs",
    "src/ffi.rs",
];

#[test]
fn the_header_is_made_of_the_sources() {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = SOURCES.iter().fold(builder, |builder, source| {
        builder.with_src(root().join(source))
    });
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = by_typedef(std::str::from_utf8(&made).unwrap());
    let path = root().join("include/gstphysmem.h");
    if std::env::var_os("PHYSMEM_UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == made,
        "it is older than its sources: tests/generate header"
    );
}

/// The header with the names of these types in place of `struct` and their tags, which g-ir-scanner takes for
/// pointers to anything.
fn by_typedef(header: &str) -> String {
    const TYPES: [&str; 3] = ["GstPhysBufferHandle", "GstPhysExtent", "GstPhysMemBlock"];
    let mut made = String::new();
    // How far the parameters of the lines that continue a declaration move to the left.
    let mut moved = 0;
    for line in header.lines() {
        let short = TYPES.iter().fold(line.to_owned(), |line, name| {
            line.replace(&format!("struct {name} *"), &format!("{name} *"))
        });
        if !line.starts_with(' ') {
            let before = |line: &str| line.find('(');
            moved = before(line)
                .zip(before(&short))
                .map_or(0, |(long, short)| long - short);
        }
        let indent = if line.starts_with("   ") { moved } else { 0 };
        made += &short[indent..];
        made.push('\n');
    }
    made
}

#[test]
fn c_and_rust_agree_on_sizes_and_kinds() {
    let kinds = glib::EnumClass::with_type(MemoryKind::static_type()).unwrap();
    let kinds = kinds.values().iter().map(|kind| {
        let name = format!("GST_PHYS_MEMORY_KIND_{}", kind.nick().to_uppercase());
        (name, i64::from(kind.value()))
    });
    let size = (
        "sizeof (GstPhysMemMeta)".to_owned(),
        size_of::<GstPhysMemMeta>() as i64,
    );
    let values: Vec<_> = kinds.chain([size]).collect();
    assert_eq!(values.len(), 9);

    let prints: String = values
        .iter()
        .map(|(expression, _)| format!("printf (\"%lld\\n\", (long long) ({expression}));\n"))
        .collect();
    let source = scratch().join("values.c");
    let program = scratch().join("values");
    let text = format!(
        "#include <gstphysmem.h>\n#include <stdio.h>\nint main (void) {{\n{prints}return 0; }}\n"
    );
    std::fs::write(&source, text).unwrap();
    compile(
        &[source.to_str().unwrap(), "-o", program.to_str().unwrap()],
        &["gstreamer-1.0"],
    );
    let out = output_of(&mut Command::new(program));
    let in_c: Vec<i64> = out.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(
        in_c,
        values.iter().map(|(_, value)| *value).collect::<Vec<_>>()
    );
}

/// Misuse leads to a critical warning and changes nothing.
#[test]
fn misuse_is_a_critical_warning() {
    let program = c_program("tests/c/misuse.c", "misuse");
    let output = with_plugin(program).env_remove("G_DEBUG").output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{err}", output.status);
    assert_eq!(err.matches("CRITICAL").count(), 21, "{err}");
    let beyond = err.matches("a block ends beyond the last physical address");
    assert_eq!(beyond.count(), 2, "{err}");
}

#[test]
fn the_header_is_c_plus_plus_too() {
    let source = scratch().join("include.cc");
    std::fs::write(
        &source,
        "#include <gstphysmem.h>\n\
         guint32 id (GstBuffer *buffer) { return gst_buffer_get_phys_mem_meta (buffer)->id; }\n",
    )
    .unwrap();
    let flags = output_of(Command::new("pkg-config").args(["--cflags", "gstreamer-1.0"]));
    output_of(
        Command::new("c++")
            .args([
                "-std=c++11",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-fsyntax-only",
                "-Iinclude",
            ])
            .arg(source)
            .args(flags.split_whitespace())
            .current_dir(root()),
    );
}
