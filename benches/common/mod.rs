// SPDX-License-Identifier: MPL-2.0
//! What the benchmarks share: their options, the rounds of ours and the peer's in turn, and
//! the lines that come of them.
#![allow(dead_code)] // each uses its own part of it

pub mod chart;

/// What a round gives, or why it gives nothing.
pub type Measured<T> = Result<T, Box<dyn std::error::Error>>;

/// A line of the result.
pub struct Line {
    pub name: String,
    pub ours: f64,
    pub peer: f64,
    pub ratio: f64,
}

impl Line {
    fn print(&self) {
        let Self {
            name,
            ours,
            peer,
            ratio,
        } = self;
        println!("{name} {ours:.1} {peer:.1} {ratio:.2}");
    }

    /// What `print` printed, in a guest of the lab.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let mut number = || words.next()?.parse::<f64>().ok();
        let (ours, peer, ratio) = (number()?, number()?, number()?);
        // A small ratio was rounded away.
        let ratio = if ratio > 0.0 { ratio } else { ours / peer };
        Some(Self {
            name,
            ours,
            peer,
            ratio,
        })
    }
}

/// What every benchmark can be told.
pub struct Options {
    pub rounds: usize,
    only: Option<String>,
}

impl Options {
    /// Reads the command line. `own` takes the options that `usage` names, which are those
    /// of one program: false for what it does not know. Its second argument gives an
    /// option's value.
    pub fn parse(
        usage: &str,
        mut own: impl FnMut(&str, &mut dyn FnMut() -> String) -> bool,
    ) -> Self {
        let mut options = Self {
            rounds: 5,
            only: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().expect("a value");
            match arg.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--rounds" => options.rounds = value().parse().expect("a number of rounds"),
                "--only" => options.only = Some(value()),
                other if own(other, &mut value) => {}
                _ => {
                    let program = env!("CARGO_CRATE_NAME");
                    eprintln!("usage: {program} [--rounds N] [--only PART-OF-A-NAME]{usage}");
                    std::process::exit(2);
                }
            }
        }
        options
    }

    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// Prints and gives the medians of some rounds. `round` gives the same each time: names,
    /// ours and the peer's. One that fails is said, and there are no lines: what else there
    /// is to be measured is worth going on for.
    pub fn measure(
        &self,
        name: &str,
        round: impl Fn() -> Measured<Vec<(String, f64, f64)>>,
    ) -> Vec<Line> {
        let rounds = (0..self.rounds).map(|_| round()).collect();
        let rounds: Vec<_> = match rounds {
            Measured::Ok(rounds) => rounds,
            Measured::Err(reason) => {
                failed(name, &reason);
                return Vec::new();
            }
        };
        let Some(first) = rounds.first() else {
            return Vec::new();
        };
        let line = |index: usize| {
            let of = |value: fn(&(String, f64, f64)) -> f64| {
                median(rounds.iter().map(|round| value(&round[index])).collect())
            };
            let line = Line {
                name: first[index].0.clone(),
                ours: of(|pair| pair.1),
                peer: of(|pair| pair.2),
                ratio: of(|pair| pair.1 / pair.2),
            };
            line.print();
            line
        };
        (0..first.len()).map(line).collect()
    }
}

/// Says why a measurement has no line.
pub fn failed(name: &str, reason: &dyn std::fmt::Display) {
    eprintln!("FAILED {name}: {reason}");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
