// SPDX-License-Identifier: MPL-2.0
//! The processors on which the element's own threads run: the property `cpus`.

use super::CAT;
use crate::sys::describe;
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use std::io;

/// Means the calling thread in calls that take a thread id.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// The processors for the element's own threads. The default leaves a thread where the thread that
/// started it may run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpus(Option<CpuSet>);

/// Why threads cannot be bound to a list of processors.
#[derive(Debug, thiserror::Error)]
pub enum CpusError {
    #[error(
        "{part:?} is neither a number nor a range, such as 2-3 or 0-7:1/2 (the first 1 of every 2); set a list such as \"2-3,5\""
    )]
    Malformed { part: String },
    #[error(
        "there is no processor {cpu}: the highest that can be named is {}", CpuSet::count() - 1
    )]
    TooHigh { cpu: usize },
    #[error(
        "this process may use none of these processors, only {allowed}: name some of those, or widen the cpuset of its control group"
    )]
    NotAllowed { allowed: String },
    #[error(
        "a thread cannot be bound to these processors: {}; play without cpus", describe(.0)
    )]
    Refused(io::Error),
}

impl Cpus {
    /// Parses the property. Fails if a thread of this process cannot be bound to the processors.
    /// Those of the list that the process may not use are left out.
    pub fn new(list: Option<&str>) -> Result<Self, CpusError> {
        let Some(list) = list else {
            return Ok(Self::default());
        };
        let wanted = parse(list)?;
        // Only a call of sched_setaffinity tells what a cpuset allows, and the calling thread must
        // stay where it is.
        let tried = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("rawvideosrc-cpu".into());
            let thread = thread.spawn_scoped(scope, || try_out(&wanted))?;
            let panicked = |_| io::Error::other("the thread has panicked");
            thread.join().map_err(panicked)
        });
        let usable = tried.map_err(CpusError::Refused)??;
        Ok(Self(Some(usable)))
    }

    /// `None` if the property is not set.
    pub fn set(&self) -> Option<&CpuSet> {
        self.0.as_ref()
    }

    /// Binds the calling thread. If that fails, as it may when the cpuset has changed since
    /// [`Self::new`], the thread runs anywhere.
    pub fn bind_this_thread(&self) {
        if let Some(set) = &self.0
            && let Err(errno) = sched_setaffinity(THIS_THREAD, set)
        {
            let why = describe(&errno.into());
            gst::warning!(CAT, "cannot bind a thread to {}: {why}", list_of(set));
        }
    }
}

/// Binds the calling thread, and returns the processors on which it then may run.
fn try_out(wanted: &CpuSet) -> Result<CpuSet, CpusError> {
    let refused = |errno: Errno| CpusError::Refused(errno.into());
    match sched_setaffinity(THIS_THREAD, wanted) {
        Ok(()) => sched_getaffinity(THIS_THREAD).map_err(refused),
        Err(Errno::EINVAL) => {
            // The thread may have been bound by its creator to fewer processors than the cpuset has.
            let _ = sched_setaffinity(THIS_THREAD, &set_of(0..CpuSet::count()));
            let allowed = sched_getaffinity(THIS_THREAD).map_err(refused)?;
            Err(CpusError::NotAllowed {
                allowed: list_of(&allowed),
            })
        }
        Err(errno) => Err(refused(errno)),
    }
}

/// Parses a list as the kernel does (`bitmap_parselist`), without its words `all` and `N`.
fn parse(list: &str) -> Result<CpuSet, CpusError> {
    let mut cpus = CpuSet::new();
    for part in list.split(',') {
        let malformed = || CpusError::Malformed {
            part: part.trim().to_owned(),
        };
        let (range, stride) = match part.trim().split_once(':') {
            Some((range, stride)) => (range, Some(stride)),
            None => (part.trim(), None),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first), number(last)),
            None if stride.is_some() => return Err(malformed()),
            None => (number(range), number(range)),
        };
        let (used, group) = match stride.map(|stride| stride.split_once('/')) {
            Some(Some((used, group))) => (number(used), number(group)),
            Some(None) => return Err(malformed()),
            None => (Some(1), Some(1)),
        };
        let (Some(first), Some(last), Some(used), Some(group)) = (first, last, used, group) else {
            return Err(malformed());
        };
        if first > last || used == 0 || used > group {
            return Err(malformed());
        }
        if last >= CpuSet::count() {
            return Err(CpusError::TooHigh { cpu: last });
        }
        let of_group = |start: usize| start..start.saturating_add(used).min(last + 1);
        for cpu in (first..=last).step_by(group).flat_map(of_group) {
            // It cannot fail, because `last` is within the set.
            let _ = cpus.set(cpu);
        }
    }
    Ok(cpus)
}

/// `None` for anything but digits: unlike `str::parse`, the kernel takes no sign. A number beyond `usize`
/// is as good as the largest one, since there is no such processor.
fn number(digits: &str) -> Option<usize> {
    let is_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_digits)?;
    Some(usize::try_from(number).unwrap_or(usize::MAX))
}

fn set_of(cpus: impl IntoIterator<Item = usize>) -> CpuSet {
    let mut set = CpuSet::new();
    for cpu in cpus {
        // Processors that the set has no place for are left out.
        let _ = set.set(cpu);
    }
    set
}

/// The list of the processors in a set, as the kernel writes it.
fn list_of(set: &CpuSet) -> String {
    let cpus = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let ranges = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    ranges.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_are_read_as_the_kernel_reads_them() {
        for (list, expected) in [
            ("0", "0"),
            ("2-3,5", "2-3,5"),
            ("5,2-3", "2-3,5"),
            ("1,1,0-2,2-4", "0-4"),
            (" 7 , 9-9\n", "7,9"),
            ("0-7:2/4", "0-1,4-5"),
            ("1-8:1/3", "1,4,7"),
            ("0-5:2/2", "0-5"),
            ("0-4:3/4", "0-2,4"),
            ("1023", "1023"),
        ] {
            assert_eq!(list_of(&parse(list).unwrap()), expected, "{list}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_part_that_is_none() {
        for (list, part) in [
            ("", ""),
            ("1,", ""),
            ("1,,2", ""),
            ("two", "two"),
            ("0,-1", "-1"),
            ("+1", "+1"),
            ("1-", "1-"),
            ("3-2", "3-2"),
            ("0-1-2", "0-1-2"),
            ("0 1", "0 1"),
            ("0x3", "0x3"),
            ("0:1/2", "0:1/2"),
            ("0-7:2", "0-7:2"),
            ("0-7:0/2", "0-7:0/2"),
            ("0-7:3/2", "0-7:3/2"),
            ("0-7:/", "0-7:/"),
            ("99999999999999999999", "99999999999999999999"),
        ] {
            match parse(list) {
                Err(CpusError::Malformed { part: told }) => assert_eq!(told, part, "{list}"),
                other => panic!("{list}: {other:?}"),
            }
        }
        for list in ["1024", "0-4000000000", "0-18446744073709551615"] {
            assert!(
                matches!(parse(list), Err(CpusError::TooHigh { .. })),
                "{list}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_set_comes_back_from_its_list(
            ranges in proptest::collection::vec((0usize..1024, 1usize..40), 1..8),
        ) {
            let set = set_of(ranges.iter().flat_map(|(first, len)| *first..first + len));
            prop_assert_eq!(parse(&list_of(&set)).unwrap(), set);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[0-9,:/ -]{0,20}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn threads_are_bound_and_the_caller_is_not() {
        let before = sched_getaffinity(THIS_THREAD).unwrap();
        let one = (0..CpuSet::count())
            .find(|cpu| before.is_set(*cpu).unwrap())
            .unwrap();
        // The process does not have the highest processor that a set can name.
        let list = format!("{one},{}", CpuSet::count() - 1);
        let cpus = Cpus::new(Some(&list)).unwrap();
        assert_eq!(cpus.set(), Some(&set_of([one])));
        assert_eq!(sched_getaffinity(THIS_THREAD).unwrap(), before);
        let bound = std::thread::spawn(move || {
            cpus.bind_this_thread();
            sched_getaffinity(THIS_THREAD).unwrap()
        });
        assert_eq!(bound.join().unwrap(), set_of([one]));
    }

    #[test]
    fn a_list_without_a_processor_of_this_machine_names_those_that_can_be_used() {
        let text = Cpus::new(Some("1023")).unwrap_err().to_string();
        assert!(text.contains("none of these processors, only 0"), "{text}");
    }
}
