// SPDX-License-Identifier: MPL-2.0
//! Code that the benchmarks share: options, rounds that measure this plugin and its peer in turn, and
//! the lines of the result.
#![allow(dead_code)] // no benchmark uses all of it

pub mod chart;

/// The result of a measurement, or why there is none.
pub type Measured<T> = Result<T, Box<dyn std::error::Error>>;

/// A line of the output: the medians of this plugin, of the peer, and of their ratio.
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

    /// Reads a line that `print` printed, in a guest of the lab.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let mut number = || words.next()?.parse::<f64>().ok();
        let (ours, peer, ratio) = (number()?, number()?, number()?);
        // A ratio below 0.005 was printed as 0.00.
        let ratio = if ratio > 0.0 { ratio } else { ours / peer };
        Some(Self {
            name,
            ours,
            peer,
            ratio,
        })
    }
}

pub struct Options {
    pub rounds: usize,
    only: Option<String>,
}

impl Options {
    /// Reads the command line. `own` handles the further options of one program, which
    /// `usage` names, and returns false for an option that it does not know. Its second
    /// argument returns the option's value.
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
                // `cargo bench` passes this.
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

    /// Prints and returns the medians of the rounds. `round` returns names, each with the number of
    /// this plugin and that of the peer; the names are the same each time. If a round fails, the
    /// reason is printed and there are no lines; the benchmark can go on with other measurements.
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

pub fn failed(name: &str, reason: &dyn std::fmt::Display) {
    eprintln!("FAILED {name}: {reason}");
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
