// SPDX-License-Identifier: MPL-2.0
//! Repeats a fault, and says in one line what came of it.
//!
//! The line begins with `TORTURE` and is JSON. The script tests/torture reads it. `TORTURE-BEGIN` comes before the first
//! round, so that a process that dies has left the name of what killed it.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::measure::{KernelLog, Resources};
use crate::neighbours::Neighbours;
use crate::support::player::{self, Player};
use crate::{gate, screen, support, watchdog};

/// Rounds in which caches fill: of GLib, GStreamer, and the kernel.
const WARM_UP: u64 = 2;

/// A pseudo-random generator with a seed, so that a failure can be repeated.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Never zero, which would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }

    pub fn nap(&mut self, at_most_us: u64) {
        std::thread::sleep(Duration::from_micros(self.below(at_most_us)));
    }
}

/// One try of a fault.
pub struct Round {
    pub number: u64,
    pub random: Random,
    lost: u64,
    frames: u64,
    skipped: Option<String>,
}

impl Round {
    /// Says why the fault cannot be tried in this guest; the caller then returns.
    pub fn skip(&mut self, reason: &str) {
        self.skipped = Some(reason.to_owned());
    }

    /// Stops a player and takes its frames into account: each frame that the sink accepted must have been shown or
    /// dropped, and counted. The player's pipeline has a `torturegate` called "gate" before the sink.
    #[track_caller]
    pub fn stop(&mut self, player: &Player) {
        // In READY no frame is on its way any more.
        player.reach(gst::State::Ready);
        let accepted = gate::accepted(&player.pipeline);
        let stats = player.stats();
        let told: u64 = stats
            .iter()
            .filter(|(field, _)| is_outcome(field, stats.has_field("shown")))
            .map(|(_, value)| value.get::<u64>().unwrap_or(0))
            .sum();
        player.reach(gst::State::Null);
        watchdog::progress();
        self.frames += accepted;
        if told < accepted {
            self.lost += accepted - told;
            tell(&format!("{accepted} frames accepted, and {stats}"));
        }
    }
}

/// Whether a field of `stats` counts what became of frames. The `copied` of a sink is part of its `shown`; physmemupload
/// has `passed`, `copied` and `dropped`.
fn is_outcome(field: &str, is_sink: bool) -> bool {
    let taken: &[&str] = match is_sink {
        true => &["shown"],
        false => &["passed", "copied"],
    };
    taken.contains(&field) || field.starts_with("dropped")
}

/// A number of the environment.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// One fault at a time: they count what the whole process has open.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// A line that libtest does not capture. It begins a line of its own, whatever libtest has begun.
pub fn tell(line: &str) {
    write!(io::stderr(), "\n{line}\n").expect("stderr takes a line");
}

/// Tries a fault `rounds` times, or as often as the environment says.
#[track_caller]
pub fn run(path: &str, rounds: u64, mut fault: impl FnMut(&mut Round)) {
    support::require_lab();
    let _alone = alone();
    player::init();
    gate::register();
    screen::load_elements();
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    let rounds = number("PHYSMEM_TORTURE_ROUNDS").unwrap_or(rounds);
    let seed = number("PHYSMEM_TORTURE_SEED").unwrap_or(1);
    let limit = number("PHYSMEM_TORTURE_SECONDS").map(Duration::from_secs);
    let started = Instant::now();
    let mut report = Report {
        name,
        seed,
        tried: 0,
        frames: 0,
        lost: 0,
        leaks: Vec::new(),
        started,
    };
    tell(&format!("TORTURE-BEGIN {name} seed {seed}"));
    let mut kernel_log = KernelLog::open();
    let _neighbours = (number("PHYSMEM_TORTURE_NEIGHBOURS") == Some(1)).then(Neighbours::start);
    let mut before = None;
    for number in 0..rounds.max(WARM_UP + 1) {
        if number > WARM_UP && limit.is_some_and(|limit| started.elapsed() > limit) {
            break;
        }
        let mut round = Round {
            number,
            random: Random::new(seed.wrapping_add(number << 20)),
            lost: 0,
            frames: 0,
            skipped: None,
        };
        let watch = watchdog::watch(&format!("{name}, round {number}"), {
            let line = report.line("hang", Some(number));
            move || tell(&line)
        });
        let result = catch_unwind(AssertUnwindSafe(|| fault(&mut round)));
        if let Some(reason) = round.skipped {
            tell(&report.line("skipped", None));
            return tell(&format!("SKIPPED {name}: {reason}"));
        }
        report.tried += 1;
        report.lost += round.lost;
        report.frames += round.frames;
        if let Err(panic) = result {
            tell(&report.line("wrong", Some(number)));
            resume_unwind(panic);
        }
        let now = match &before {
            None => Resources::settled(),
            Some(before) => Resources::at_most(before),
        };
        drop(watch);
        if let Some(before) = &before {
            report.leaks = now.beyond(before);
        }
        if number + 1 == WARM_UP {
            before = Some(now);
        }
        if !report.leaks.is_empty() || report.lost > 0 {
            break;
        }
    }
    let said = kernel_log.reports();
    let outcome = if said.is_empty() { "ok" } else { "kernel" };
    tell(&report.line(outcome, None));
    assert!(said.is_empty(), "the kernel reports {said:#?}");
    assert!(report.leaks.is_empty(), "leaks: {:#?}", report.leaks);
    assert_eq!(report.lost, 0, "frames that no counter has");
}

struct Report<'a> {
    name: &'a str,
    seed: u64,
    tried: u64,
    frames: u64,
    lost: u64,
    leaks: Vec<String>,
    started: Instant,
}

impl Report<'_> {
    /// What came of the fault, as one line of JSON; `round` is that of a failure.
    fn line(&self, outcome: &str, round: Option<u64>) -> String {
        let line = json!({
            "fault": self.name,
            "display": support::display(),
            "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            "outcome": outcome,
            "tried": self.tried,
            "frames": self.frames,
            "lost": self.lost,
            "leaks": self.leaks,
            "seed": self.seed,
            "round": round,
            "seconds": self.started.elapsed().as_secs(),
        });
        format!("TORTURE {line}")
    }
}
