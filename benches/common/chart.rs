// SPDX-License-Identifier: MPL-2.0
//! Draws the lines of `compare` as docs/images/speed.svg.

use super::Line;

/// How many times better ours is: more frames a second, or less of anything else.
fn better(line: &Line) -> f64 {
    if line.name.ends_with(":frames/s") {
        line.ratio
    } else {
        1.0 / line.ratio
    }
}

/// A bar for each line, how many times better ours is, on a logarithmic scale.
pub fn svg(lines: &[Line], rounds: usize) -> String {
    const ROW_PX: usize = 22;
    const LEFT_PX: usize = 380;
    const UNIT_PX: f64 = 33.0;
    let machine = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = machine
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown CPU", |rest| {
            rest.trim_start_matches(['\t', ' ', ':'])
        });
    let cores = std::thread::available_parallelism().map_or(0, |count| count.get());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let day = gst::glib::DateTime::now_utc()
        .and_then(|now| now.format("%Y-%m-%d"))
        .unwrap();
    let text = |x: usize, y: usize, size: usize, anchor: &str, text: &str| {
        format!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{text}</text>\n"
        )
    };
    let height = lines.len() * ROW_PX + 80;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"900\" height=\"{height}\" font-family=\"sans-serif\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    svg += &text(
        10,
        22,
        15,
        "start",
        "How many times better than the peer (medians of paired runs)",
    );
    svg += &text(
        10,
        42,
        11,
        "start",
        &format!(
            "{day}, {cpu}, {cores} cores, Linux {}, {}, gst-plugin-physmem {}, {rounds} rounds",
            release.trim(),
            gst::version_string(),
            env!("CARGO_PKG_VERSION")
        ),
    );
    for (index, line) in lines.iter().enumerate() {
        let y = 60 + index * ROW_PX;
        let better = better(line);
        let length = better.log2() * UNIT_PX;
        let zero = (LEFT_PX + 80) as f64;
        let (x, colour) = if length < 0.0 {
            (zero + length, "#c0504d")
        } else {
            (zero, "#4f81bd")
        };
        let name = line.name.replace('&', "&amp;").replace('<', "&lt;");
        svg += &text(LEFT_PX, y + 14, 11, "end", &name);
        svg += &format!(
            "<rect x=\"{x:.0}\" y=\"{}\" width=\"{:.0}\" height=\"{}\" fill=\"{colour}\"/>\n",
            y + 3,
            length.abs().max(1.0),
            ROW_PX - 6
        );
        let after = (zero + length.max(0.0)) as usize + 6;
        svg += &text(after, y + 14, 11, "start", &format!("{better:.2}x"));
    }
    svg += "</svg>\n";
    svg
}
