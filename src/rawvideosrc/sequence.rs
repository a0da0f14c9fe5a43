// SPDX-License-Identifier: MPL-2.0
//! Locations such as `frame-%05d.raw`, which stand for many files.

use std::path::{Path, PathBuf};

/// The greatest width to which a number may be padded.
const MAX_WIDTH: usize = 99;

/// A path with one number in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    before: String,
    /// The least number of characters.
    width: usize,
    /// Whether the number is padded with zeroes, else with spaces.
    has_zeroes: bool,
    after: String,
}

impl Sequence {
    /// Parses a path whose file name has one number as printf has it (`%d`, `%05d`, `%3d`,
    /// `%i`, `%u`), and perhaps `%%` for a percent sign. `None` if there is no number, or more
    /// than one, or any other conversion.
    pub fn parse(location: &str) -> Option<Self> {
        let name_start = location.rfind('/').map_or(0, |slash| slash + 1);
        let (directory, mut rest) = location.split_at(name_start);
        let mut text = directory.to_owned();
        let mut number = None;
        while let Some(percent) = rest.find('%') {
            text.push_str(&rest[..percent]);
            rest = &rest[percent + 1..];
            if let Some(behind) = rest.strip_prefix('%') {
                text.push('%');
                rest = behind;
                continue;
            }
            let conversion = rest.find(|letter: char| !letter.is_ascii_digit())?;
            let width = &rest[..conversion];
            rest = rest[conversion..].strip_prefix(['d', 'i', 'u'])?;
            if number.is_some() {
                return None;
            }
            number = Some(Self {
                before: std::mem::take(&mut text),
                has_zeroes: width.starts_with('0'),
                width: match width {
                    "" => 1,
                    width => width.parse().ok().filter(|width| *width <= MAX_WIDTH)?,
                },
                after: String::new(),
            });
        }
        text.push_str(rest);
        Some(Self {
            after: text,
            ..number?
        })
    }

    pub fn path(&self, number: u64) -> PathBuf {
        let Self {
            before,
            width,
            has_zeroes,
            after,
        } = self;
        match has_zeroes {
            true => format!("{before}{number:0width$}{after}").into(),
            false => format!("{before}{number:width$}{after}").into(),
        }
    }

    /// The number in a path; `None` if the path is not one of the sequence.
    pub fn number(&self, path: &Path) -> Option<u64> {
        let text = path.to_str()?;
        let digits = text
            .strip_prefix(self.before.as_str())?
            .strip_suffix(self.after.as_str())?;
        let number = digits.trim_start_matches(' ').parse().ok()?;
        (self.path(number) == path).then_some(number)
    }

    /// The lowest number that has a file, and how many files there are without a gap from it on.
    pub fn find(&self) -> std::io::Result<Option<(u64, u64)>> {
        let pattern = self.path(0);
        let directory = match pattern.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let is_bare = pattern
            .parent()
            .is_none_or(|parent| parent.as_os_str().is_empty());
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let path = if is_bare {
                entry.file_name().into()
            } else {
                directory.join(entry.file_name())
            };
            numbers.extend(self.number(&path));
        }
        numbers.sort_unstable();
        let Some(first) = numbers.first().copied() else {
            return Ok(None);
        };
        let following = (first..).zip(&numbers);
        let count = following.take_while(|(expected, number)| expected == *number);
        Ok(Some((first, count.count() as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_are_those_of_printf() {
        let path = |pattern: &str, n| Some(Sequence::parse(pattern)?.path(n));
        assert_eq!(path("/a/f-%05d.raw", 42), Some("/a/f-00042.raw".into()));
        assert_eq!(path("%d", 7), Some("7".into()));
        assert_eq!(path("f%02d", 1234), Some("f1234".into()));
        assert_eq!(path("f%3d.raw", 7), Some("f  7.raw".into()));
        assert_eq!(path("f%3d.raw", 1234), Some("f1234.raw".into()));
        assert_eq!(path("f%i.raw", 7), Some("f7.raw".into()));
        assert_eq!(path("f%02u.raw", 7), Some("f07.raw".into()));
        assert_eq!(path("100%%-%d.raw", 7), Some("100%-7.raw".into()));
        assert_eq!(path("%d-100%%.raw", 7), Some("7-100%.raw".into()));
        assert_eq!(path("%%d-%d.raw", 7), Some("%d-7.raw".into()));
        for none in [
            "plain.raw",
            "/a%05d/plain.raw",
            "100%",
            "100%%.raw",
            "%s.raw",
            "%05",
            "%x%d",
            "%d-%d.raw",
            "%100d.raw",
            "%-3d.raw",
        ] {
            assert_eq!(Sequence::parse(none), None, "{none}");
        }
    }

    #[test]
    fn a_sequence_starts_at_its_lowest_number_and_ends_at_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        for number in [12, 10, 11, 14] {
            std::fs::write(dir.path().join(format!("f-{number:03}.raw")), b"x").unwrap();
        }
        for other in ["f-1.raw", "f-0010.raw", "g-001.raw", "f-002.txt"] {
            std::fs::write(dir.path().join(other), b"x").unwrap();
        }
        for number in [8, 9, 10] {
            std::fs::write(dir.path().join(format!("s-{number:3}.raw")), b"x").unwrap();
        }
        let spaced = Sequence::parse(dir.path().join("s-%3d.raw").to_str().unwrap()).unwrap();
        assert_eq!(spaced.find().unwrap(), Some((8, 3)));
        let pattern = dir.path().join("f-%03d.raw");
        let sequence = Sequence::parse(pattern.to_str().unwrap()).unwrap();
        assert_eq!(sequence.find().unwrap(), Some((10, 3)));
        let none = Sequence::parse(dir.path().join("h-%d").to_str().unwrap()).unwrap();
        assert_eq!(none.find().unwrap(), None);
    }

    proptest! {
        #[test]
        fn a_number_comes_back_from_its_path(number in any::<u64>(), digits in 1usize..9) {
            let sequence = Sequence::parse(&format!("/x/f%0{digits}d.raw")).unwrap();
            prop_assert_eq!(sequence.number(&sequence.path(number)), Some(number));
        }
    }
}
