// SPDX-License-Identifier: MPL-2.0
//! Writes what physmem-top shows of a process as SVG, for docs/images/physmem-top.svg:
//!
//!     cargo run --example screenshot SOCKET > docs/images/physmem-top.svg

#[path = "../src/bin/physmem-top/connection.rs"]
mod connection;
#[path = "../src/bin/physmem-top/model.rs"]
mod model;
#[path = "../src/bin/physmem-top/view.rs"]
mod view;

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

const COLUMNS: u16 = 100;
/// How long the pipeline is watched before the picture is taken.
const WATCH: Duration = Duration::from_secs(3);
/// Size of a character in pixels.
const WIDTH: u16 = 8;
const HEIGHT: u16 = 17;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args_os().nth(1).ok_or("a socket is expected")?;
    let snapshots = connection::snapshots(connection::connect(&[socket.into()])?);
    let mut model = model::Model::default();
    let end = Instant::now() + WATCH;
    while let Ok(snapshot) = snapshots.recv_timeout(end.saturating_duration_since(Instant::now())) {
        model.take(snapshot?);
    }
    let rows = view::lines(&model).len() as u16 + 1;
    let mut terminal = Terminal::new(TestBackend::new(COLUMNS, rows))?;
    terminal.draw(|frame| view::draw(frame, &model, 0))?;
    print!("{}", svg(terminal.backend().buffer()));
    Ok(())
}

fn svg(screen: &Buffer) -> String {
    let area = *screen.area();
    let (width, height) = (area.width * WIDTH, area.height * HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#181818\"/>\n"
    );
    for y in 0..area.height {
        let cells: Vec<&Cell> = (0..area.width).map(|x| &screen[(x, y)]).collect();
        let mut x = 0;
        for run in cells.chunk_by(|a, b| a.style() == b.style()) {
            svg += &text(run, x * WIDTH, y * HEIGHT);
            x += run.len() as u16;
        }
    }
    svg + "</svg>\n"
}

/// Characters of one style that begin at this point.
fn text(run: &[&Cell], x: u16, y: u16) -> String {
    let is = |modifier| run[0].modifier.contains(modifier);
    let fill = match (run[0].fg, is(Modifier::REVERSED)) {
        (_, true) => "#181818",
        (Color::Yellow, _) => "#e5c04b",
        (Color::Green, _) => "#7ec77b",
        _ => "#d8d8d8",
    };
    let width = run.len() as u16 * WIDTH;
    let mut svg = String::new();
    if is(Modifier::REVERSED) {
        svg += &format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" fill=\"#d8d8d8\"/>\n"
        );
    }
    let characters: String = run.iter().map(|cell| cell.symbol()).collect();
    let characters = characters.trim_end();
    if !characters.is_empty() {
        let length = characters.chars().count() as u16 * WIDTH;
        let characters = characters.replace('&', "&amp;").replace('<', "&lt;");
        let weight = if is(Modifier::BOLD) {
            " font-weight=\"bold\""
        } else {
            ""
        };
        let opacity = if is(Modifier::DIM) {
            " opacity=\"0.6\""
        } else {
            ""
        };
        svg += &format!(
            "<text x=\"{x}\" y=\"{}\" textLength=\"{length}\" fill=\"{fill}\"{weight}{opacity} xml:space=\"preserve\">{characters}</text>\n",
            y + HEIGHT - 4
        );
    }
    svg
}
