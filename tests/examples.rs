// SPDX-License-Identifier: MPL-2.0
//! The examples, built as the comments at their top say, and run on this machine.

mod common;

use std::{path::PathBuf, process::Command};

use common::{c_program, compile, deps, output_of, root, scratch, with_plugin};

#[track_caller]
fn assert_played(out: &str) {
    for expected in [
        "frames are written into the application's pool\n",
        "four verbs: ok\n",
        "rendered=(guint64)30",
    ] {
        assert!(out.contains(expected), "no {expected:?} in\n{out}");
    }
    let address = out.contains(" bytes at 0x");
    let reason = out.contains("address unknown: ");
    assert!(address != reason, "{out}");
}

/// Builds an example with the profile of this test, for which most is built already.
fn rust_example(name: &str) -> PathBuf {
    let profile_dir = deps().parent().unwrap().to_owned();
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--offline",
            "--profile",
            profile,
            "--example",
            name,
            "--features",
            features(),
        ])
        .current_dir(root())
        .env("CARGO_TARGET_DIR", profile_dir.parent().unwrap());
    output_of(&mut cargo);
    profile_dir.join("examples").join(name)
}

/// The feature of this test that decides which GStreamer is needed.
fn features() -> &'static str {
    match () {
        () if cfg!(feature = "v1_28") => "v1_28",
        () if cfg!(feature = "v1_26") => "v1_26",
        () if cfg!(feature = "v1_24") => "v1_24",
        () => "",
    }
}

#[test]
fn the_rust_application_plays() {
    assert_played(&output_of(&mut with_plugin(rust_example("app"))));
}

#[test]
fn the_c_application_plays_and_leaks_nothing() {
    let app = scratch().join("app");
    compile(
        &["examples/c/app.c", "-o", app.to_str().unwrap()],
        &["gstreamer-app-1.0", "gstreamer-video-1.0"],
    );
    let run = with_plugin(&app)
        .env("GST_TRACERS", "leaks")
        .env("GST_DEBUG", "GST_TRACER:7")
        .env("GST_DEBUG_NO_COLOR", "1")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}\n{log}", run.status);
    assert_played(&String::from_utf8_lossy(&run.stdout));
    let alive: Vec<_> = log
        .lines()
        .filter(|line| {
            line.contains("object-alive, type-name=(string)") && !line.contains("new format")
        })
        .collect();
    assert!(alive.is_empty(), "{alive:#?}");
}

#[test]
fn the_c_application_owns_and_frees_the_memory_of_its_buffers() {
    let program = c_program("examples/c/external.c", "external");
    // A map of freed memory fails with a warning, as expected.
    let out = output_of(with_plugin(&program).env_remove("G_DEBUG"));
    assert_eq!(
        out,
        "regions: ok\nowned handles: ok\nborrowed handles: ok\npieces and dma-buf: ok\n\
         verbs and their errors: ok\n"
    );
}

#[test]
fn the_python_application_plays() {
    // The bindings belong to Debian's own python; another python in PATH may lack them.
    let mut python = with_plugin("/usr/bin/python3");
    assert_played(&output_of(
        python.arg(root().join("examples/python/app.py")),
    ));
}

#[test]
fn python_reaches_all_that_the_pool_does() {
    let mut python = with_plugin("/usr/bin/python3");
    let out = output_of(python.arg(root().join("examples/python/pool.py")));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "2 buffers of 4096 bytes, 2 free");
    for expected in [
        "submit-filled is not allowed in state ready-for-consume",
        ": no buffer within the time given",
        "is normal memory, which has no dma-buf: use kind cma, system or udmabuf",
        "pool of normal: 2 buffers, 2 free, 0 filled, 0 dead",
        "acquired 1, refused 1",
    ] {
        assert!(out.contains(expected), "no {expected:?} in\n{out}");
    }
    // The message depends on whether the process may know addresses.
    let last = lines.last().unwrap();
    assert!(
        last.contains("above the limit 0xfff") || last.contains("max-address cannot be kept"),
        "{last}"
    );
}

#[test]
fn python_brings_memory_in_pieces_and_with_a_dma_buf() {
    let mut python = with_plugin("/usr/bin/python3");
    // One map is meant to fail.
    python.env_remove("G_DEBUG");
    let out = output_of(python.arg(root().join("examples/python/external.py")));
    for expected in [
        "refused: the extents are not as long as the block",
        "refused: memory is added before the pool is configured",
        "2 pieces, the first at 0x40001000\n",
        "the dma-buf is exported\n",
        "the memory was freed after its last use\n",
    ] {
        assert!(out.contains(expected), "no {expected:?} in\n{out}");
    }
}

#[test]
fn applications_say_what_is_wrong_with_the_sink() {
    let mut python = with_plugin("/usr/bin/python3");
    python
        .arg(root().join("examples/python/app.py"))
        .args(["fbpansink", "device=/dev/nonesuch"])
        .env_remove("G_DEBUG");
    let run = python.output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success());
    assert!(said.contains("app: cannot open /dev/nonesuch: "), "{said}");
}

#[test]
fn without_cuda_the_example_says_so() {
    let mut example = Command::new(rust_example("cuda"));
    let out = output_of(example.env("CUDART", "libnonesuch.so"));
    assert!(
        out.starts_with("no CUDA runtime: libnonesuch.so: "),
        "{out}"
    );
}

/// A stand-in for the CUDA runtime, based on malloc, which shows when memory is freed. Its "GPU"
/// writes at the synchronisation only, as a real one may.
#[test]
fn cuda_free_runs_once_for_each_block_after_the_last_buffer() {
    let source = scratch().join("cudart.c");
    let library = scratch().join("libcudart.so");
    std::fs::write(
        &source,
        "#include <stdlib.h>\n\
         #include <string.h>\n\
         int cudaMallocManaged (void **p, size_t n, unsigned f) { *p = malloc (n); return !(*p && f == 1); }\n\
         int cudaFree (void *p) { free (p); return 0; }\n\
         static struct { void *p; int value; size_t n; } pending;\n\
         int cudaMemset (void *p, int value, size_t n) { pending.p = p; pending.value = value; pending.n = n; return 0; }\n\
         int cudaDeviceSynchronize (void) { memset (pending.p, pending.value, pending.n); return 0; }\n\
         const char *cudaGetErrorString (int e) { return e ? \"error\" : \"no error\"; }\n",
    )
    .unwrap();
    let (source, library_path) = (source.to_str().unwrap(), library.to_str().unwrap());
    compile(
        &["-shared", "-fPIC", source, "-o", library_path],
        &["gstreamer-1.0"],
    );
    let mut example = Command::new(rust_example("cuda"));
    let out = output_of(example.env("CUDART", &library));
    let (before, after) = out
        .split_once("pool given up, one buffer left\n")
        .unwrap_or_else(|| panic!("{out}"));
    // A buffer keeps its pool alive.
    assert_eq!(before.matches("cudaFree: ").count(), 0, "{out}");
    assert_eq!(after.matches("cudaFree: ").count(), 3, "{out}");
    assert!(after.ends_with("last buffer gone\n"), "{out}");
    assert!(before.contains(": external memory, "), "{out}");
    let filled = "6 frames of 307200 bytes filled by the GPU, all seen by the CPU\n";
    assert!(before.contains(filled), "{out}");
}

/// unixfdsink exists since GStreamer 1.24.
#[cfg(feature = "v1_24")]
#[test]
fn a_c_program_is_told_where_the_frames_of_another_process_are() {
    use gst::prelude::*;
    use gstphysmem::{memory::MemoryKind, meta::PhysMemMeta, pool::PhysBufferPool, pool::Wait};

    const SIZE: u32 = 3 * 4096;
    gst::init().unwrap();
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(None, SIZE, 2, 2);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();

    let receive = scratch().join("receive");
    compile(
        &["examples/c/receive.c", "-o", receive.to_str().unwrap()],
        &["gstreamer-app-1.0"],
    );
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("frames");
    let sender = gst::parse::launch(&format!(
        "appsrc name=in format=time caps=application/x-test \
         ! unixfdsink wait-for-connection=true enable-last-sample=false sync=false socket-path={}",
        socket.display()
    ));
    let sender = sender.unwrap().downcast::<gst::Pipeline>().unwrap();
    sender.set_state(gst::State::Playing).unwrap();
    let appsrc = sender.by_name("in").unwrap();
    let appsrc = appsrc.downcast::<gst_app::AppSrc>().unwrap();

    let mut expected = String::new();
    for first in 1..=2 {
        let mut buffer = pool.acquire_free(Wait::No).unwrap();
        let writable = buffer.get_mut().unwrap();
        writable.copy_from_slice(0, &[first]).unwrap();
        let meta = buffer.meta::<PhysMemMeta>().unwrap();
        let place = match meta.phys_addr() {
            Some(phys) => format!("at {phys} in {} pieces", meta.extents().len()),
            None => "unknown".to_owned(),
        };
        expected += &format!(
            "buffer {}: {SIZE} bytes {place}, first byte {first}\n",
            meta.id()
        );
        drop(meta);
        appsrc.push_buffer(buffer).unwrap();
    }
    let receive = &mut with_plugin(receive);
    let out = output_of(receive.args([socket.to_str().unwrap(), "2"]));
    assert_eq!(out, expected);
    // The end of the receiver releases the buffers.
    let wait = Wait::AtMost(std::time::Duration::from_secs(30));
    let _both = [0; 2].map(|_| pool.acquire_free(wait).unwrap());
    sender.set_state(gst::State::Null).unwrap();
}

#[path = "../examples/rust/share/message.rs"]
mod message;

/// The packets that a fuzzer has collected (fuzz/fuzz_targets/share.rs).
#[test]
fn packets_of_share_are_refused_or_mean_the_same_once_written_anew() {
    use message::{MESSAGE_BYTES, Message};
    let mut packets = 0;
    for file in std::fs::read_dir(common::root().join("fuzz/corpus/share")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for packet in bytes.as_chunks::<MESSAGE_BYTES>().0 {
            if let Some(message) = Message::from_bytes(*packet) {
                assert_eq!(Message::from_bytes(message.to_bytes()), Some(message));
                packets += 1;
            }
        }
    }
    assert!(packets >= 3, "{packets}");
}
