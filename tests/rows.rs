// SPDX-License-Identifier: MPL-2.0
//! docs/rows.md names tests that exist.

use std::{collections::HashSet, path::Path};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The functions of a file, or of all files below a directory.
fn functions(path: &Path) -> HashSet<String> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap();
        return entries
            .flat_map(|e| functions(&e.unwrap().path()))
            .collect();
    }
    read(path)
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("fn ")?.split_once('('))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// `name`, or what begins with `name_`, or ends with `_name` or `*_name`.
fn is_meant(name: &str, function: &str) -> bool {
    let end = name.strip_prefix('*').unwrap_or(name);
    function == name
        || (name.ends_with('_') && function.starts_with(name))
        || (end.starts_with('_') && function.ends_with(end))
}

#[test]
fn every_test_that_the_rows_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = read(&root.join("docs/rows.md"));
    let words: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    // "`h/` is `tests/handles.rs`": which letter is which file.
    let files: Vec<_> = words
        .windows(2)
        .filter(|pair| pair[1].ends_with(".rs"))
        .filter_map(|pair| Some((pair[0].strip_suffix('/')?, functions(&root.join(pair[1])))))
        .collect();
    assert_eq!(files.len(), 9);
    let anywhere = ["src", "tests"].map(|directory| functions(&root.join(directory)));

    let mut known = 0;
    for word in &words {
        // `p/name`, `guest_binary module::name`, `module::name`, `name`
        let name = word.rsplit(['/', ' ', ':']).next().unwrap_or(word);
        if name == "_" || !name.contains('_') || name.contains('.') || name == "guest_*" {
            continue;
        }
        let file = word.split_once('/').and_then(|(letter, _)| {
            let (_, functions) = files.iter().find(|(known, _)| *known == letter)?;
            Some(functions)
        });
        let is_there = match file {
            Some(functions) => functions.iter().any(|f| is_meant(name, f)),
            None => anywhere.iter().flatten().any(|f| is_meant(name, f)),
        };
        assert!(is_there, "docs/rows.md: there is no test `{word}`");
        known += 1;
    }
    assert!(known > 100, "only {known} names were understood");
}
