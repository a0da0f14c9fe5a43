// SPDX-License-Identifier: MPL-2.0
//! Two copies of this library in one process: this program contains the crate, and GStreamer finds
//! the plugin. Types are registered once per process, so each test has a process of its own.

mod common;

use std::{path::Path, process::Command};

use common::{deps, scratch, with_plugin};
use gst::{glib, prelude::*};
use gstphysmem::{
    memory::{MemoryKind, allocator},
    meta::PhysMemMeta,
    pool::{PhysBufferPool, Wait},
};

const SCENARIO: &str = "PHYSMEM_SCENARIO";

/// Runs a scenario in a process of its own and returns its output.
#[track_caller]
fn in_own_process(scenario: &str) -> String {
    let mut command = with_plugin(std::env::current_exe().unwrap());
    command
        .args(["--exact", "a_scenario", "--nocapture"])
        .env(SCENARIO, scenario);
    output_with_errors(&mut command)
}

#[track_caller]
fn output_with_errors(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{}\n{said}", output.status);
    said
}

/// Runs the scenario that is named in the environment.
#[test]
fn a_scenario() {
    match std::env::var(SCENARIO).as_deref() {
        Ok("plugin, then crate") => plugin_then_crate(),
        Ok("crate, then plugin") => crate_then_plugin(),
        Ok("plugin, then crate's elements") => plugin_then_elements_of_the_crate(),
        Ok("crate's elements, then plugin") => elements_of_the_crate_then_plugin(),
        Ok(other) => panic!("no such scenario: {other}"),
        Err(_) => {}
    }
}

#[test]
fn the_crate_goes_with_a_plugin_that_is_loaded_before_it() {
    in_own_process("plugin, then crate");
}

#[test]
fn the_crate_goes_with_a_plugin_that_is_loaded_after_it() {
    in_own_process("crate, then plugin");
}

#[test]
fn an_application_may_take_the_elements_names_from_a_loaded_plugin() {
    in_own_process("plugin, then crate's elements");
}

#[test]
fn a_plugin_beside_the_applications_elements_is_refused() {
    let said = in_own_process("crate's elements, then plugin");
    let own = std::env::current_exe().unwrap();
    assert_refused(&said, &own);
}

/// Checks that the message names the plugin that was not loaded, and the file whose elements exist
/// already.
#[track_caller]
fn assert_refused(said: &str, by: &Path) {
    let sentence = said.lines().find(|line| line.contains("is not loaded"));
    let sentence = sentence.unwrap_or_else(|| panic!("nothing was said: {said}"));
    let by = format!("already, {}; remove one", by.display());
    assert!(
        sentence.contains("libgstphysmem.so is not loaded: "),
        "{sentence}"
    );
    assert!(sentence.contains(&by), "{sentence}");
}

/// A frame from the plugin's elements, and the pool that it belongs to.
fn frame_of_the_plugin() -> (gst::Buffer, gst::BufferPool) {
    let description = "rawvideosrc num-buffers=1 ! video/x-raw,format=GRAY8,width=64,height=48 \
         ! physmemupload name=upload ! appsink name=sink";
    let pipeline = gst::parse::launch(description).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let upload = pipeline.by_name("upload").unwrap();
    // The enumeration of the crate works for the plugin's property.
    upload.set_property("kind", MemoryKind::Normal);
    assert_eq!(upload.property::<MemoryKind>("kind"), MemoryKind::Normal);
    let sink = pipeline.by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let buffer = sink.pull_sample().unwrap().buffer_owned().unwrap();
    assert!(sink.pull_sample().is_err(), "one frame and no more");
    let stats = upload.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("passed"), Ok(1), "{stats}");
    // SAFETY: the pointer is a GstBufferPool, which its buffer keeps alive.
    let pool: gst::BufferPool = unsafe { glib::translate::from_glib_none((*buffer.as_ptr()).pool) };
    pipeline.set_state(gst::State::Null).unwrap();
    (buffer, pool)
}

/// The crate reads the meta of the plugin's frame and agrees with the plugin's description.
fn meta_is_read() {
    let (buffer, pool) = frame_of_the_plugin();
    assert_eq!(
        pool.type_().name().trim_end_matches("-1"),
        "GstPhysBufferPool"
    );
    assert!(
        !pool.is::<PhysBufferPool>(),
        "it is an object of the plugin's code"
    );
    let described: gst::Structure = pool.emit_by_name("describe", &[&buffer]);
    let meta = buffer.meta::<PhysMemMeta>().unwrap();
    assert_eq!(described.get("id"), Ok(meta.id()));
    assert_eq!(described.get("kind"), Ok(MemoryKind::Normal));
    assert_eq!(
        (meta.kind(), meta.size_bytes()),
        (MemoryKind::Normal, 64 * 48)
    );
    assert_eq!(described.get("pinned"), Ok(meta.is_pinned()));
    assert!(meta.is_alive() && !meta.is_received() && !meta.is_external());
    match meta.address() {
        Ok(address) => {
            assert_eq!(described.get("phys-addr"), Ok(address.first().0));
            assert_eq!(meta.phys_addr(), Some(address.first()));
            assert_eq!(address.len_bytes(), 64 * 48);
        }
        Err(reason) => assert_eq!(described.get("address-unknown"), Ok(reason.to_string())),
    }
    // A deep copy has other bytes. If the memory of a shallow copy is replaced, the crate notices.
    assert!(buffer.copy_deep().unwrap().meta::<PhysMemMeta>().is_none());
    let mut part = buffer.copy();
    part.get_mut()
        .unwrap()
        .replace_all_memory(gst::Memory::from_slice([0u8; 3072]));
    if let Some(meta) = part.meta::<PhysMemMeta>() {
        assert!(meta.address().is_err(), "an address of other bytes");
    }
}

/// The plugin's elements pass buffers of the crate's pool untouched.
fn pool_works() {
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(None, 4096, 1, 2);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let buffer = pool.acquire_free(Wait::No).unwrap();
    let id = buffer.meta::<PhysMemMeta>().unwrap().id();
    pool.submit_filled(buffer).unwrap();
    let buffer = pool.acquire_filled(Wait::No).unwrap();
    assert_eq!(buffer.meta::<PhysMemMeta>().unwrap().id(), id);
    pool.release_filled(buffer).unwrap();

    let memory = allocator(MemoryKind::Normal).alloc(100, None).unwrap();
    assert_eq!(memory.size(), 100);
    pool.set_active(false).unwrap();
}

fn buffers_pass_through_the_plugin() {
    let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
    let mut config = pool.config();
    config.set_params(None, 4096, 2, 2);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let pipeline = gst::parse::launch(
        "appsrc name=src ! physmemupload name=upload kind=normal ! appsink name=sink",
    );
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let src = pipeline.by_name("src").unwrap();
    let src = src.downcast::<gst_app::AppSrc>().unwrap();
    let sink = pipeline.by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let sent = pool.acquire_free(Wait::No).unwrap();
    let memory = sent.peek_memory(0).as_ptr();
    src.push_buffer(sent).unwrap();
    let received = sink.pull_sample().unwrap().buffer_owned().unwrap();
    assert_eq!(received.peek_memory(0).as_ptr(), memory, "it was copied");
    pipeline.set_state(gst::State::Null).unwrap();
    drop(received);
    pool.set_active(false).unwrap();
}

fn plugin_then_crate() {
    gst::init().unwrap();
    let plugin = gst::Plugin::load_by_name("physmem").unwrap();
    assert_eq!(plugin.plugin_name(), "physmem");
    assert!(gst::Allocator::find(Some("PhysMemNormal")).is_some());
    meta_is_read();
    pool_works();
    buffers_pass_through_the_plugin();
}

fn crate_then_plugin() {
    gst::init().unwrap();
    pool_works();
    assert_eq!(PhysBufferPool::static_type().name(), "GstPhysBufferPool");
    assert!(gst::Plugin::load_by_name("physmem").is_ok());
    meta_is_read();
    pool_works();
    buffers_pass_through_the_plugin();
}

fn plugin_then_elements_of_the_crate() {
    gst::init().unwrap();
    gst::Plugin::load_by_name("physmem").unwrap();
    meta_is_read();
    gstphysmem::plugin_register_static().unwrap();
    let (buffer, pool) = frame_of_the_plugin();
    assert!(pool.is::<PhysBufferPool>(), "{}", pool.type_());
    assert!(buffer.meta::<PhysMemMeta>().unwrap().region().is_some());
    let source = gst::ElementFactory::make("rawvideosrc").build().unwrap();
    assert_eq!(
        source.type_(),
        gstphysmem::rawvideosrc::RawVideoSrc::static_type()
    );
}

fn elements_of_the_crate_then_plugin() {
    gst::init().unwrap();
    gstphysmem::plugin_register_static().unwrap();
    let path = Path::new(&std::env::var("GST_PLUGIN_PATH").unwrap()).join("libgstphysmem.so");
    assert!(gst::Plugin::load_file(&path).is_err());
    let (_buffer, pool) = frame_of_the_plugin();
    assert!(pool.is::<PhysBufferPool>(), "{}", pool.type_());
}

/// A script that loads plugins from files in this order, prints the results, and plays.
const LOAD_SCRIPT: &str = r#"
import sys, gi
gi.require_version('Gst', '1.0')
from gi.repository import Gst, GLib
Gst.init(None)
for path in sys.argv[1:]:
    try:
        print('loaded', Gst.Plugin.load_file(path).get_filename())
    except GLib.Error as error:
        print('failed', path)
pipeline = Gst.parse_launch('rawvideosrc num-buffers=3 ! physmemupload ! fakesink')
pipeline.set_state(Gst.State.PLAYING)
ends = Gst.MessageType.EOS | Gst.MessageType.ERROR
message = pipeline.get_bus().timed_pop_filtered(60 * Gst.SECOND, ends)
print(message.type.first_value_nick if message else 'no end')
pipeline.set_state(Gst.State.NULL)
"#;

#[test]
fn a_second_plugin_is_refused_and_the_first_goes_on() {
    let library = deps().join("libgstphysmem.so");
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    // GStreamer identifies a plugin by its file name, so it takes these two for different plugins.
    let copies = ["libgstphysmem.so", "gstphysmem.so"].map(|name| directory.path().join(name));
    for copy in &copies {
        std::fs::copy(&library, copy).unwrap();
    }
    for (first, second) in [(0, 1), (1, 0)] {
        let mut command = with_plugin("/usr/bin/python3");
        command
            .env("GST_PLUGIN_PATH", "")
            .env(
                "GST_REGISTRY",
                directory.path().join(format!("registry{first}")),
            )
            .args(["-c", LOAD_SCRIPT])
            .args([&copies[first], &copies[second]]);
        let said = output_with_errors(&mut command);
        let loaded = format!("loaded {}\n", copies[first].display());
        let failed = format!("failed {}\neos\n", copies[second].display());
        assert!(said.contains(&loaded) && said.contains(&failed), "{said}");
        for copy in &copies {
            let sentence = said
                .lines()
                .find(|line| line.contains("is not loaded"))
                .unwrap();
            assert!(sentence.contains(copy.to_str().unwrap()), "{sentence}");
        }
    }
}

#[test]
fn a_search_path_with_two_plugins_gives_the_elements_of_one() {
    let library = deps().join("libgstphysmem.so");
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    for name in ["a/libgstphysmem.so", "b/gstphysmem.so"] {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(&library, path).unwrap();
    }
    for order in [["a", "b"], ["b", "a"]] {
        let path = order.map(|name| directory.path().join(name));
        let registry = directory.path().join(format!("registry-{}", order[0]));
        let mut command = with_plugin("gst-launch-1.0");
        command
            .args("-q rawvideosrc num-buffers=3 ! physmemupload ! fakesink".split(' '))
            .env("GST_PLUGIN_PATH", std::env::join_paths(path).unwrap())
            .env("GST_REGISTRY", registry);
        output_with_errors(&mut command);
    }
}
