// SPDX-License-Identifier: MPL-2.0
//! An item of the report.

use std::fmt;

use serde::Serialize;

/// What an item means for the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is there, or nothing here needs it.
    Ok,
    /// It is missing.
    Lack,
    /// It is there and does not work.
    Broken,
    /// It cannot be told.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Lack => "lack",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
        })
    }
}

/// A fact, what it means, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Stable name: a part, and what of it, such as `memory.cma`.
    pub key: String,
    /// What the fact means.
    pub verdict: Verdict,
    /// One line.
    pub fact: String,
    /// The command or kernel option that mends it.
    pub remedy: Option<String>,
}

impl Item {
    pub fn ok(key: impl Into<String>, fact: impl Into<String>) -> Self {
        Self::new(key, Verdict::Ok, fact, None)
    }

    pub fn unknown(key: impl Into<String>, fact: impl Into<String>) -> Self {
        Self::new(key, Verdict::Unknown, fact, None)
    }

    /// A lack. `remedy` is `None` only if no command or option mends it.
    pub fn lack(
        key: impl Into<String>,
        fact: impl Into<String>,
        remedy: impl Into<Option<String>>,
    ) -> Self {
        Self::new(key, Verdict::Lack, fact, remedy.into())
    }

    pub fn broken(
        key: impl Into<String>,
        fact: impl Into<String>,
        remedy: impl Into<Option<String>>,
    ) -> Self {
        Self::new(key, Verdict::Broken, fact, remedy.into())
    }

    fn new(
        key: impl Into<String>,
        verdict: Verdict,
        fact: impl Into<String>,
        remedy: Option<String>,
    ) -> Self {
        Self {
            // Names from drivers and of heaps may contain anything.
            key: one_line(&key.into()),
            verdict,
            fact: one_line(&fact.into()),
            remedy: remedy.map(|remedy| one_line(&remedy)),
        }
    }

    /// The first word of the key.
    pub fn part(&self) -> &str {
        self.key.split('.').next().unwrap_or_default()
    }
}

/// The text without characters that would move a terminal's cursor.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_one_line() {
        let item = Item::ok("card.card0", "driver \u{1b}[2J\nx");
        assert_eq!(item.fact, "driver  [2J x");
        assert_eq!(item.part(), "card");
        // As the name of a heap.
        let item = Item::ok("memory.heap.\u{1b}[2J\n", "there");
        assert_eq!(item.key, "memory.heap. [2J ");
    }
}
