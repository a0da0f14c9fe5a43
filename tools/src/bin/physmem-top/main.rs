// SPDX-License-Identifier: MPL-2.0
//! physmem-top: what gst-plugin-physmem does in a running pipeline, in the terminal.
//!
//! The tracer `physmem` of the plugin gives the numbers on a Unix socket (`gstphysmem::tracer::protocol`).
//! - `options`: the command line, and which socket it means;
//! - `connection`: lines from the socket;
//! - `model`: the latest numbers and rates (pure); `view`: these as text (pure).

mod connection;
#[cfg(test)]
mod fuzzing;
#[cfg(test)]
#[path = "../../man_page.rs"]
mod man_page;
mod model;
mod options;
mod view;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use clap::Parser;
use gstphysmem::tracer::protocol::Snapshot;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use model::Model;
use options::Options;

type Snapshots = Receiver<Result<Snapshot, String>>;

/// How long keys are waited for before the screen is drawn again.
const REDRAW: Duration = Duration::from_millis(100);
/// How long `--once` watches.
const WATCH: Duration = Duration::from_millis(1200);

fn main() -> ExitCode {
    let options = Options::parse();
    let shown = connected(&options).and_then(|stream| {
        let snapshots = connection::snapshots(stream);
        match options.once {
            true => print_once(&snapshots),
            false => watch(&snapshots),
        }
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("physmem-top: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn connected(options: &Options) -> Result<UnixStream, String> {
    let process = options.process.as_deref();
    let candidates = options::candidates(process, &options::directory())?;
    connection::connect(&candidates)
}

/// Prints what there is after a while, as text.
fn print_once(snapshots: &Snapshots) -> Result<(), String> {
    let mut model = Model::default();
    let end = Instant::now() + WATCH;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match snapshots.recv_timeout(left) {
            Ok(snapshot) => model.take(snapshot?),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    if model.last().is_none() {
        return Err("the tracer said nothing".into());
    }
    let lines = std::iter::once(view::title_line(&model)).chain(view::lines(&model));
    let lines: Vec<_> = lines
        .map(|line| format!("{}\n", line.to_string().trim_end()))
        .collect();
    let printed = std::io::stdout().write_all(lines.concat().as_bytes());
    printed.map_err(|error| error.to_string())
}

/// Shows the numbers until the user quits.
fn watch(snapshots: &Snapshots) -> Result<(), String> {
    let mut terminal = ratatui::try_init().map_err(|error| format!("the terminal: {error}"))?;
    let mut model = Model::default();
    let mut scroll = 0u16;
    let watched = loop {
        receive(snapshots, &mut model);
        if let Err(error) = terminal.draw(|frame| view::draw(frame, &model, scroll)) {
            break Err(error.to_string());
        }
        let key =
            match event::poll(REDRAW).and_then(|is_there| is_there.then(event::read).transpose()) {
                Ok(Some(Event::Key(key))) if key.kind == KeyEventKind::Press => key,
                Ok(_) => continue,
                Err(error) => break Err(error.to_string()),
            };
        let last = view::lines(&model).len().saturating_sub(1);
        match scrolled(scroll, key, u16::try_from(last).unwrap_or(u16::MAX)) {
            Some(moved) => scroll = moved,
            None => break Ok(()),
        }
    };
    ratatui::restore();
    watched
}

/// Takes what has come from the tracer.
fn receive(snapshots: &Snapshots, model: &mut Model) {
    while model.end.is_none() {
        match snapshots.try_recv() {
            Ok(Ok(snapshot)) => model.take(snapshot),
            Ok(Err(reason)) => model.end = Some(reason),
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => model.end = Some("it has ended".into()),
        }
    }
}

/// The first line after this key; `None` if it ends the program.
fn scrolled(scroll: u16, key: KeyEvent, last: u16) -> Option<u16> {
    let moved = match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return None,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return None,
        KeyCode::Up => scroll.saturating_sub(1),
        KeyCode::Down => scroll.saturating_add(1),
        KeyCode::PageUp => scroll.saturating_sub(10),
        KeyCode::PageDown => scroll.saturating_add(10),
        KeyCode::Home => 0,
        _ => scroll,
    };
    Some(moved.min(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_scroll_within_the_lines_or_end_the_program() {
        let press = |scroll, code| scrolled(scroll, KeyEvent::from(code), 12);
        assert_eq!(press(0, KeyCode::Up), Some(0));
        assert_eq!(press(0, KeyCode::Down), Some(1));
        assert_eq!(press(5, KeyCode::PageDown), Some(12));
        assert_eq!(press(5, KeyCode::Home), Some(0));
        assert_eq!(press(5, KeyCode::Char('x')), Some(5));
        assert_eq!(press(5, KeyCode::Char('q')), None);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(scrolled(5, interrupt, 12), None);
    }
}
