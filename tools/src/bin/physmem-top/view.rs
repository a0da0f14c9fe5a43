// SPDX-License-Identifier: MPL-2.0
//! The model as lines of text with styles.

use gstphysmem::tracer::protocol::{Buffer, Element, Pool};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::model::Model;

/// Draws the whole screen, with the body moved up by `scroll` lines.
pub fn draw(frame: &mut Frame<'_>, model: &Model, scroll: u16) {
    let [title, body] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(title_line(model)).reversed(), title);
    frame.render_widget(Paragraph::new(lines(model)).scroll((scroll, 0)), body);
}

/// Names and sentences come from another program: no control characters of theirs get to the terminal.
fn clean(text: &str) -> String {
    text.replace(char::is_control, "?")
}

pub fn title_line(model: &Model) -> Line<'static> {
    let mut title = match model.last() {
        Some(last) => format!(
            "physmem-top: {}, process {}",
            clean(&last.program),
            last.pid
        ),
        None => "physmem-top: waiting for the tracer".into(),
    };
    if let Some(end) = &model.end {
        title = format!("{title}; {}", clean(end));
    }
    Line::from(title)
}

/// All elements and pools.
pub fn lines(model: &Model) -> Vec<Line<'static>> {
    let Some(last) = model.last() else {
        return Vec::new();
    };
    let mut lines = vec![
        Line::from(format!(
            "{:<24}{:>9}{:>10}{:>10}{:>10}{:>9}{:>19}",
            "ELEMENT", "FRAMES/S", "FRAMES", "ZERO-COPY", "COPIED", "DROPPED", "FLIP MEAN/MAX MS"
        ))
        .bold(),
    ];
    for element in &last.elements {
        lines.extend(of_element(model, element));
    }
    lines.push(Line::default());
    lines.push(
        Line::from(format!(
            "{:<24}{:>9}{:>10}{:>10}{:>10}{:>9}  {}",
            "POOL", "BUFFERS", "FREE", "IN USE", "ACQU./S", "WAITS", "KIND, FILLED BY"
        ))
        .bold(),
    );
    for pool in &last.pools {
        lines.push(of_pool(model, pool));
        if pool.is_active {
            lines.extend(pool.buffers.iter().map(of_buffer));
        }
    }
    lines
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or("-".into(), |rate| format!("{rate:.1}"))
}

fn count(count: Option<u64>) -> String {
    count.map_or("-".into(), |count| count.to_string())
}

/// What ended is dim, what is copied yellow.
fn of_element(model: &Model, element: &Element) -> [Line<'static>; 2] {
    let latency = match (element.flip_latency_mean_us, element.flip_latency_max_us) {
        (Some(mean), Some(max)) => {
            format!("{:.1}/{:.1}", mean as f64 / 1e3, max as f64 / 1e3)
        }
        _ => "-".into(),
    };
    let copies = match element.copied {
        Some(copied) if copied > 0 => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    };
    let numbers = Line::from(vec![
        Span::from(format!(
            "{:<24}{:>9}{:>10}{:>10}",
            clean(&element.name),
            rate(model.frames_rate(element).filter(|_| element.is_running)),
            element.frames,
            count(element.zero_copy),
        )),
        Span::styled(format!("{:>10}", count(element.copied)), copies),
        Span::from(format!("{:>9}{latency:>19}", element.dropped)),
    ]);
    let path = Line::styled(format!("  {}", clean(&element.path)), copies);
    match element.is_running {
        true => [numbers, path],
        false => [numbers.dim(), path.dim()],
    }
}

fn of_pool(model: &Model, pool: &Pool) -> Line<'static> {
    let filled_by = pool.filled_by.as_deref().unwrap_or("nobody yet");
    let line = Line::from(format!(
        "{:<24}{:>9}{:>10}{:>10}{:>10}{:>9}  {}, {}",
        clean(&pool.name),
        pool.total,
        pool.free,
        format!("{:.1}/{}", pool.in_use.mean(), pool.in_use.most),
        rate(model.acquired_rate(pool).filter(|_| pool.is_active)),
        pool.waits,
        clean(&pool.kind),
        clean(filled_by),
    ));
    match pool.is_active {
        true => line,
        false => line.dim(),
    }
}

fn of_buffer(buffer: &Buffer) -> Line<'static> {
    let address = match (&buffer.address, &buffer.address_unknown) {
        (Some(address), _) if buffer.extents > 1 => {
            format!("{address} in {} extents", buffer.extents)
        }
        (Some(address), _) => address.clone(),
        (None, Some(_)) => "address unknown".into(),
        (None, None) => String::new(),
    };
    let line = Line::from(format!(
        "  {:<8}{:<20}{:<20}refs {:<5}{}",
        format!("#{}", buffer.id),
        clean(&buffer.state),
        clean(buffer.holder.as_deref().unwrap_or("-")),
        buffer.refs,
        clean(&address),
    ));
    match buffer.state.as_str() {
        "idle" => line.dim(),
        _ => line.fg(Color::Green),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::snapshot;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn model() -> Model {
        let mut model = Model::default();
        model.take(snapshot(0, 1));
        model.take(snapshot(1000, 61));
        model
    }

    fn screen(model: &Model, height: u16, scroll: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(92, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, scroll)).unwrap();
        terminal
    }

    /// The characters of the screen, without spaces at the ends of lines.
    fn text(terminal: &Terminal<TestBackend>) -> String {
        let buffer = terminal.backend().buffer();
        let cells: Vec<_> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        let rows = cells.chunks(usize::from(buffer.area().width));
        let rows: Vec<_> = rows.map(|row| row.concat().trim_end().to_owned()).collect();
        rows.join("\n")
    }

    #[test]
    fn the_screen_has_rates_counts_the_way_and_the_buffers() {
        let expected = "\
physmem-top: gst-launch-1.0, process 4711
ELEMENT                  FRAMES/S    FRAMES ZERO-COPY    COPIED  DROPPED   FLIP MEAN/MAX MS
rawvideosrc0                 60.0        63         -         -        0                  -
  read: it is in the page cache
kmsflipsink0                 60.0        61        60         1        3           8.2/17.0
  copying: upstream ignored the pool offered

POOL                      BUFFERS      FREE    IN USE   ACQU./S    WAITS  KIND, FILLED BY
physbufferpool0                 2         1     1.5/2      60.0        5  cma, rawvideosrc0
  #1      locked-by-producer  kmsflipsink0        refs 1    0x10100000
  #2      idle                -                   refs 0    0x10200000";
        assert_eq!(text(&screen(&model(), 11, 0)), expected);
    }

    #[test]
    fn copies_stand_out_and_what_has_ended_recedes() {
        let screen = screen(&model(), 11, 0);
        let style = |x, y| screen.backend().buffer()[(x, y)].style();
        assert_eq!(style(2, 5).fg, Some(Color::Yellow));
        assert_eq!(style(2, 3).fg, Some(Color::Reset));
        let mut ended = model();
        let mut last = snapshot(1100, 62);
        last.elements[1].is_running = false;
        ended.take(last);
        ended.end = Some("the process has ended".into());
        let screen = self::screen(&ended, 11, 0);
        assert!(
            text(&screen)
                .starts_with("physmem-top: gst-launch-1.0, process 4711; the process has ended\n")
        );
        let cell = screen.backend().buffer()[(0, 4)].clone();
        assert!(cell.modifier.contains(ratatui::style::Modifier::DIM));
        // A rate of what has ended would be of the past.
        assert!(text(&screen).contains("kmsflipsink0                    -        62"));
    }

    #[test]
    fn a_small_screen_can_be_scrolled() {
        let model = model();
        let screen = screen(&model, 3, 8);
        let text = text(&screen);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("physmem-top: "));
        assert!(
            lines[1].starts_with("  #1 ") && lines[2].starts_with("  #2 "),
            "{text}"
        );
    }

    #[test]
    fn names_cannot_control_the_terminal() {
        let mut hostile = snapshot(0, 1);
        hostile.program = "\u{1b}[2J".into();
        hostile.elements[0].name = "a\nb\u{7f}\u{9b}31m".into();
        hostile.elements[0].path = "\r\u{1b}]0;title\u{7}".into();
        hostile.pools[0].buffers[0].address = Some("\u{8}".into());
        let mut model = Model::default();
        model.take(hostile);
        let all: String = std::iter::once(title_line(&model))
            .chain(lines(&model))
            .map(|line| line.to_string())
            .collect();
        assert!(!all.contains(char::is_control), "{all:?}");
        assert!(all.contains("a?b??31m") && all.contains("?[2J"), "{all}");
    }

    #[test]
    fn before_the_first_snapshot_it_says_that_it_waits() {
        let screen = screen(&Model::default(), 2, 0);
        assert_eq!(text(&screen), "physmem-top: waiting for the tracer\n");
    }
}
