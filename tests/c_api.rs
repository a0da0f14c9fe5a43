// SPDX-License-Identifier: MPL-2.0
//! `include/gstphysmem.h` says the same as the Rust types.

use std::{
    mem::{offset_of, size_of},
    path::Path,
    process::Command,
};

use gst::glib::{self, prelude::*, translate::IntoGlib};
use gstphysmem::{
    ffi::PoolErrorCode,
    memory::{AddressSource, Extent, MemoryKind},
    meta::ffi::{self, GstPhysMemMeta},
};

fn header_dir() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/include").to_owned()
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

fn flags() -> Vec<String> {
    let flags = output_of(Command::new("pkg-config").args(["--cflags", "--libs", "gstreamer-1.0"]));
    flags.split_whitespace().map(str::to_owned).collect()
}

/// The values of C expressions, as a C program prints them.
fn in_c(expressions: &[&str]) -> Vec<i64> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (scratch.join("values.c"), scratch.join("values"));
    let prints: String = expressions
        .iter()
        .map(|expression| format!("printf (\"%lld\\n\", (long long) ({expression}));\n"))
        .collect();
    std::fs::write(
        &source,
        format!(
            "#include <gstphysmem.h>\n#include <stddef.h>\n#include <stdio.h>\n\
             int main (void) {{\n{prints}return 0; }}\n"
        ),
    )
    .unwrap();
    output_of(
        Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-I", &header_dir(), "-o"])
            .args([&program, &source])
            .args(flags()),
    );
    output_of(&mut Command::new(program))
        .lines()
        .map(|line| line.parse().unwrap())
        .collect()
}

#[test]
fn the_header_agrees_with_the_rust_types() {
    macro_rules! meta {
        ($($field:ident)*) => {
            vec![$((concat!("offsetof (GstPhysMemMeta, ", stringify!($field), ")"), offset_of!(GstPhysMemMeta, $field) as i64)),*]
        };
    }
    let mut values = meta!(meta id flags kind source phys_addr size extents n_extents dmabuf_fd heap unknown_reason memory);
    // `private` is not for others to see, in Rust.
    let private = size_of::<GstPhysMemMeta>() - 2 * size_of::<*const ()>();
    values.extend([
        ("offsetof (GstPhysMemMeta, is_about)", private as i64),
        (
            "sizeof (GstPhysMemMeta)",
            size_of::<GstPhysMemMeta>() as i64,
        ),
        (
            "offsetof (GstPhysExtent, phys_addr)",
            offset_of!(Extent, phys) as i64,
        ),
        (
            "offsetof (GstPhysExtent, size)",
            offset_of!(Extent, len_bytes) as i64,
        ),
        ("sizeof (GstPhysExtent)", size_of::<Extent>() as i64),
        (
            "GST_PHYS_MEM_FLAG_ADDRESS_KNOWN",
            ffi::GST_PHYS_MEM_FLAG_ADDRESS_KNOWN.into(),
        ),
        (
            "GST_PHYS_MEM_FLAG_CONTIGUOUS",
            ffi::GST_PHYS_MEM_FLAG_CONTIGUOUS.into(),
        ),
        (
            "GST_PHYS_MEM_FLAG_PINNED",
            ffi::GST_PHYS_MEM_FLAG_PINNED.into(),
        ),
        (
            "GST_PHYS_MEM_FLAG_EXTERNAL",
            ffi::GST_PHYS_MEM_FLAG_EXTERNAL.into(),
        ),
        (
            "GST_PHYS_MEM_FLAG_RECEIVED",
            ffi::GST_PHYS_MEM_FLAG_RECEIVED.into(),
        ),
        (
            "GST_PHYS_ADDRESS_SOURCE_PAGEMAP",
            AddressSource::Pagemap as i64,
        ),
        (
            "GST_PHYS_ADDRESS_SOURCE_CMA_TRACE",
            AddressSource::CmaTrace as i64,
        ),
        (
            "GST_PHYS_ADDRESS_SOURCE_SMEM_START",
            AddressSource::SmemStart as i64,
        ),
        ("GST_PHYS_ADDRESS_SOURCE_USER", AddressSource::User as i64),
    ]);
    macro_rules! errors {
        ($($c:ident $rust:ident)*) => {
            [$((concat!("GST_PHYS_POOL_ERROR_", stringify!($c)), PoolErrorCode::$rust as i64)),*]
        };
    }
    values.extend(errors!(
        FAILED Failed NO_BUFFER NoBuffer FLUSHING Flushing NO_MEMORY NoMemory
        ILLEGAL_STEP IllegalStep NO_SUCH_ID NoSuchId GONE Gone NO_DMA_BUF NoDmaBuf
    ));
    let kinds = glib::EnumClass::with_type(MemoryKind::static_type()).unwrap();
    let kinds: Vec<_> = kinds
        .values()
        .iter()
        .map(|kind| {
            let name = format!("GST_PHYS_MEMORY_KIND_{}", kind.nick().to_uppercase());
            (name, i64::from(kind.value()))
        })
        .collect();
    assert_eq!(kinds.len(), 7);
    assert_eq!(MemoryKind::External.into_glib(), 6);
    values.extend(kinds.iter().map(|(name, value)| (name.as_str(), *value)));

    let expressions: Vec<_> = values.iter().map(|(expression, _)| *expression).collect();
    let c: Vec<_> = expressions
        .iter()
        .copied()
        .zip(in_c(&expressions))
        .collect();
    assert_eq!(c, values);
}

#[test]
fn the_header_is_c_plus_plus_too() {
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("include.cc");
    std::fs::write(
        &source,
        "#include <gstphysmem.h>\n\
         guint32 id (GstBuffer *buffer) { return gst_buffer_get_phys_mem_meta (buffer)->id; }\n",
    )
    .unwrap();
    output_of(
        Command::new("c++")
            .args([
                "-std=c++11",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-fsyntax-only",
                "-I",
                &header_dir(),
            ])
            .arg(source)
            .args(flags()),
    );
}
