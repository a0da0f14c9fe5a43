// SPDX-License-Identifier: MPL-2.0
//! What graphs of a pipeline (GST_DEBUG_DUMP_DOT_DIR) say of our pools.

mod common;

use std::path::Path;

use common::{output_of, with_plugin};

/// Runs the pipeline and returns the graph of its step to PLAYING. There, the frame that the sinks preroll with
/// is held.
fn graph(pipeline: &str) -> String {
    let graphs = tempfile::tempdir().unwrap();
    output_of(
        with_plugin("gst-launch-1.0")
            .arg("--quiet")
            .args(pipeline.split(' '))
            .env("GST_DEBUG_DUMP_DOT_DIR", graphs.path()),
    );
    let names = std::fs::read_dir(graphs.path()).unwrap();
    let mut names = names.map(|entry| entry.unwrap().path());
    let is_wanted = |path: &std::path::PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.ends_with(".PAUSED_PLAYING.dot"))
    };
    let path = names.find(is_wanted).expect("no graph of PAUSED_PLAYING");
    std::fs::read_to_string::<&Path>(path.as_ref()).unwrap()
}

/// The values of the property `pool` of all elements.
fn pools(graph: &str) -> Vec<&str> {
    let values = graph.split("\\npool=\\\"").skip(1);
    values
        .map(|value| value.split_once("\\\"").expect("a text that is cut off").0)
        .collect()
}

#[test]
fn a_graph_shows_what_the_pools_hold() {
    let graph = graph(
        "rawvideosrc num-buffers=4 memory-kind=normal ! video/x-raw,width=64,height=64,format=GRAY8 \
         ! fakesink sync=false",
    );
    let pools = pools(&graph);
    let [line] = pools[..] else {
        panic!("{pools:?} in\n{graph}");
    };
    let numbers: Vec<u32> = line
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    let [_, total, free, filled, held] = numbers[..] else {
        panic!("{line}");
    };
    let named = format!("{total} of normal, {free} free, {filled} filled, {held} held");
    assert!(
        line.starts_with("physbufferpool") && line.ends_with(&named),
        "{line}"
    );
    assert_eq!(free + filled + held, total, "{line}");
    assert!(
        held >= 1,
        "the sink holds the frame that it prerolls with: {line}"
    );
}

#[test]
fn a_graph_tells_the_pool_that_was_offered_from_the_one_in_use() {
    // The parser sends the memory of the file, and physmemupload copies into a pool of its own.
    let graph = graph(
        "videotestsrc num-buffers=4 ! video/x-raw,width=64,height=64,format=GRAY8 ! identity drop-allocation=true \
         ! physmemupload memory-kind=normal ! fakesink sync=false",
    );
    let copied = pools(&graph);
    assert!(
        matches!(copied[..], [line] if line.contains(" of normal, ")),
        "{copied:?} in\n{graph}"
    );
}
