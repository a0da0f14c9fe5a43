// SPDX-License-Identifier: MPL-2.0
//! What a fuzzer calls: a tracer that says anything. `fuzz/` makes a program of it, and the unit test replays what
//! that has collected.

use gstphysmem::tracer::protocol::Snapshot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::connection::{LONGEST_LINE, read_line};
use crate::model::Model;
use crate::view;

/// Lines from the socket, until one is refused.
pub fn top(mut bytes: &[u8]) {
    let mut model = Model::default();
    while let Ok(Some(line)) = read_line(&mut bytes, LONGEST_LINE) {
        let snapshot = match Snapshot::from_line(&line) {
            Ok(snapshot) => snapshot,
            Err(reason) => {
                model.end = Some(reason);
                break;
            }
        };
        let again = snapshot.to_line();
        assert!(again.ends_with(b"\n") && !again[..again.len() - 1].contains(&b'\n'));
        assert_eq!(Snapshot::from_line(&again).as_ref(), Ok(&snapshot));
        model.take(snapshot);
    }
    let lines = view::lines(&model);
    for line in lines.iter().chain([&view::title_line(&model)]) {
        assert!(!line.to_string().contains(char::is_control), "{line}");
    }
    let Ok(mut terminal) = Terminal::new(TestBackend::new(80, 10));
    for scroll in [0, u16::try_from(lines.len()).unwrap_or(u16::MAX)] {
        let Ok(_) = terminal.draw(|frame| view::draw(frame, &model, scroll));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_has_collected_is_shown_without_a_contradiction() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/top");
        let mut files = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            let path = file.unwrap().path();
            println!("{}", path.display()); // shown if it panics
            super::top(&std::fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files > 0);
    }
}
