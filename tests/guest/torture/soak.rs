// SPDX-License-Identifier: MPL-2.0
//! Plays for a long time, and says each minute what the process has: `PHYSMEM_TORTURE_SECONDS`, by default 20.

use std::fs;
use std::time::{Duration, Instant};

use gst::prelude::*;
use serde_json::json;

use crate::measure::{KernelLog, cma_pages};
use crate::runner;
use crate::screen::{self, Clip};
use crate::support;
use crate::support::player::{self, Player};
use crate::{gate, watchdog};

/// Anonymous memory in use, which a leak makes grow. (RSS also counts pages of files and of buffers.)
fn anonymous_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

fn shown(player: &Player) -> u64 {
    screen::progress(player)
}

/// A field of the sink's `stats` that is an array of numbers; empty where the sink has no such field.
fn numbers(player: &Player, name: &str) -> Vec<u64> {
    let array = player.stats().get::<gst::Array>(name).ok();
    let numbers = array.iter().flat_map(|array| array.iter());
    numbers.filter_map(|value| value.get().ok()).collect()
}

/// Takes all messages off the bus. A `Player` would keep them, and that would be the growth that is looked for.
fn assert_no_error(player: &Player) {
    let bus = player.pipeline.bus().expect("a bus");
    while let Some(message) = bus.pop() {
        assert!(
            !matches!(message.view(), gst::MessageView::Error(_)),
            "{message:?}"
        );
    }
}

#[test]
fn plays_for_long_without_growth() {
    support::require_lab();
    player::init();
    gate::register();
    let name = "soak::plays_for_long_without_growth";
    let seconds = runner::number("PHYSMEM_TORTURE_SECONDS").unwrap_or(20);
    let length = Duration::from_secs(seconds);
    let mut log = KernelLog::open();
    let clip = Clip::new();
    let player = clip.player("! queue");
    runner::tell(&format!("TORTURE-BEGIN {name} seed 0"));
    let started = Instant::now();
    let samples = 60u32;
    let mut table: Vec<[u64; 4]> = Vec::new();
    let mut starts = 0u64;
    let mut frames = 0;
    let mut histogram: Vec<u64> = Vec::new();
    let mut bounds_us = Vec::new();
    while started.elapsed() < length {
        let watch = watchdog::watch(name, || ());
        player.reach(gst::State::Playing);
        starts += 1;
        let end = started + length / samples * (table.len() as u32 + 1);
        let mut seek = 0u64;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(500));
            seek += 7;
            if seek.is_multiple_of(14) {
                player.seek(seek % 60, 60);
            }
            assert_no_error(&player);
            watchdog::progress();
        }
        frames += shown(&player);
        let latencies = numbers(&player, "flip-latency-histogram");
        histogram.resize(latencies.len(), 0);
        histogram
            .iter_mut()
            .zip(latencies)
            .for_each(|(sum, count)| *sum += count);
        bounds_us = numbers(&player, "flip-latency-bounds-us");
        table.push([
            anonymous_kib(),
            support::open_fds() as u64,
            cma_pages(),
            shown(&player),
        ]);
        player.reach(gst::State::Null);
        drop(watch);
    }
    // The first quarter fills caches. Growth is the least of the last quarter less the most of the second one, so that a
    // short peak is none.
    let (second, last) = (
        &table[table.len() / 4..table.len() / 2],
        &table[table.len() * 3 / 4..],
    );
    let growth = |column: usize| {
        let most = second.iter().map(|row| row[column]).max().unwrap_or(0);
        let least = last.iter().map(|row| row[column]).min().unwrap_or(0);
        least.saturating_sub(most)
    };
    let reports = log.reports();
    // Of 60 starts and hundreds of seeks; a leak of a buffer's bookkeeping would be more.
    let has_grown = growth(0) > 512 || growth(1) > 0 || growth(2) > 0;
    let outcome = match (reports.is_empty(), has_grown) {
        (false, _) => "kernel",
        (true, true) => "wrong",
        (true, false) => "ok",
    };
    let line = json!({
        "fault": name,
        "display": support::display(),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "outcome": outcome,
        "tried": starts,
        "frames": frames,
        "lost": 0,
        "leaks": [],
        "seed": 0,
        "seconds": started.elapsed().as_secs(),
        "soak": {
            "anonymous_kib": [table[0][0], table[table.len() - 1][0]],
            "fds": [table[0][1], table[table.len() - 1][1]],
            "cma_pages": [table[0][2], table[table.len() - 1][2]],
            "growth": [growth(0), growth(1), growth(2)],
            "latency_histogram": histogram,
            "latency_bounds_us": bounds_us,
        },
    });
    runner::tell(&format!("TORTURE {line}"));
    assert!(reports.is_empty(), "the kernel reports {reports:#?}");
    assert!(
        !has_grown,
        "anonymous memory in KiB, files, pages of CMA, frames: {table:?}"
    );
}
