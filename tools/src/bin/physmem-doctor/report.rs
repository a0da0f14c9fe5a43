// SPDX-License-Identifier: MPL-2.0
//! The report for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::facts::Facts;
use crate::item::{Item, Verdict};
use crate::judge;
use crate::options::Part;

/// Everything that is told. Its names are those of the JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub exit_status: u8,
    pub items: Vec<Item>,
    pub facts: Facts,
}

impl Report {
    /// Judges the facts. `parts` chooses the items; without any, all are told.
    pub fn new(facts: Facts, parts: &[Part]) -> Self {
        let mut items = judge::all(&facts);
        let names: Vec<_> = parts.iter().map(|part| part.name()).collect();
        items.retain(|item| names.is_empty() || names.iter().any(|name| name == item.part()));
        let is_any = |verdict| items.iter().any(|item| item.verdict == verdict);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            exit_status: match (is_any(Verdict::Broken), is_any(Verdict::Lack)) {
                (true, _) => 2,
                (false, true) => 1,
                (false, false) => 0,
            },
            items,
            facts,
        }
    }

    pub fn json(&self) -> String {
        match serde_json::to_string_pretty(self) {
            Ok(text) => text + "\n",
            Err(error) => format!("{{\"error\": \"{error}\"}}\n"),
        }
    }

    pub fn table(&self) -> String {
        let width = self.items.iter().map(|item| item.key.len()).max();
        let width = width.unwrap_or(0);
        let mut text = String::new();
        for item in &self.items {
            let Item {
                key, verdict, fact, ..
            } = item;
            let _ = writeln!(text, "{verdict:<8} {key:<width$}  {fact}");
            if let Some(remedy) = &item.remedy {
                let _ = writeln!(text, "{:8} {:width$}  remedy: {remedy}", "", "");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(parts: &[Part]) -> Report {
        Report::new(Facts::default(), parts)
    }

    #[test]
    fn a_machine_with_nothing_lacks_something() {
        let report = report(&[]);
        assert_eq!(report.exit_status, 1);
        assert!(report.table().contains("lack     memory.cma"));
        assert!(report.table().contains("remedy: "));
    }

    #[test]
    fn what_is_broken_counts_more_than_what_is_lacking() {
        let mut facts = Facts::default();
        facts.gstreamer.copies = vec!["/a".into(), "/b".into()];
        assert_eq!(Report::new(facts, &[]).exit_status, 2);
    }

    #[test]
    fn a_part_is_judged_alone() {
        let iommu = report(&[Part::Iommu]);
        assert!(iommu.items.iter().all(|item| item.key == "iommu.groups"));
        assert_eq!((iommu.items.len(), iommu.exit_status), (1, 0));
    }

    #[test]
    fn each_part_has_items() {
        let all = report(&[]);
        for part in <Part as clap::ValueEnum>::value_variants() {
            let name = part.name();
            assert!(
                all.items.iter().any(|item| item.part() == name),
                "no item of part {name}"
            );
        }
    }

    #[test]
    fn json_has_the_documented_keys() {
        let json: serde_json::Value = serde_json::from_str(&report(&[]).json()).unwrap();
        let page = include_str!("../../../../docs/doctor.md");
        let is_documented = |key: &str| page.contains(&format!("`{key}`"));
        for key in json.as_object().unwrap().keys() {
            assert!(is_documented(key), "{key}");
        }
        for key in json["facts"].as_object().unwrap().keys() {
            assert!(is_documented(&format!("facts.{key}")), "facts.{key}");
        }
        for item in json["items"].as_array().unwrap() {
            let key = item["key"].as_str().unwrap();
            assert!(is_documented(key), "{key}");
        }
    }
}
