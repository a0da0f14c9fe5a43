// SPDX-License-Identifier: MPL-2.0
//! The latest snapshot, and rates over the last second. Pure.

use std::collections::VecDeque;

use gstphysmem::tracer::protocol::{Element, Pool, Snapshot};

/// Rates are over this time.
const WINDOW_NS: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub struct Model {
    /// The snapshots of the window, and the last one before it.
    history: VecDeque<Snapshot>,
    /// Why no more snapshots come.
    pub end: Option<String>,
}

impl Model {
    pub fn take(&mut self, snapshot: Snapshot) {
        let begin = snapshot.time_ns.saturating_sub(WINDOW_NS);
        while self
            .history
            .get(1)
            .is_some_and(|second| second.time_ns <= begin)
        {
            self.history.pop_front();
        }
        self.history.push_back(snapshot);
    }

    pub fn last(&self) -> Option<&Snapshot> {
        self.history.back()
    }

    /// Frames of an element in a second.
    pub fn frames_rate(&self, element: &Element) -> Option<f64> {
        self.rate(|snapshot| {
            let mut known = snapshot.elements.iter();
            Some(known.find(|known| known.name == element.name)?.frames)
        })
    }

    /// How often a buffer of a pool goes out in a second.
    pub fn acquired_rate(&self, pool: &Pool) -> Option<f64> {
        self.rate(|snapshot| {
            let mut known = snapshot.pools.iter();
            Some(known.find(|known| known.name == pool.name)?.acquired)
        })
    }

    /// The growth of a counter in a second. `None` if it is not known for a while yet, or began anew.
    fn rate(&self, counter: impl Fn(&Snapshot) -> Option<u64>) -> Option<f64> {
        let (last, first) = (self.history.back()?, self.history.front()?);
        let growth = counter(last)?.checked_sub(counter(first)?)?;
        let time_ns = last
            .time_ns
            .checked_sub(first.time_ns)
            .filter(|&time| time > 0)?;
        Some(growth as f64 * 1e9 / time_ns as f64)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use gstphysmem::tracer::protocol::{Buffer, InUse, VERSION};

    /// What a tracer says of a source and a sink after so many milliseconds and frames.
    pub fn snapshot(time_ms: u64, frames: u64) -> Snapshot {
        let source = Element {
            name: "rawvideosrc0".into(),
            factory: "rawvideosrc".into(),
            is_running: true,
            frames: frames + 2,
            path: "read: it is in the page cache".into(),
            ..Default::default()
        };
        let sink = Element {
            name: "kmsflipsink0".into(),
            factory: "kmsflipsink".into(),
            is_running: true,
            frames,
            zero_copy: Some(frames - 1),
            copied: Some(1),
            dropped: 3,
            flip_latency_mean_us: Some(8_250),
            flip_latency_max_us: Some(17_000),
            path: "copying: upstream ignored the pool offered".into(),
        };
        let buffer = |id: u32, state: &str, holder: Option<&str>| Buffer {
            id,
            state: state.into(),
            refs: u32::from(holder.is_some()),
            holder: holder.map(str::to_owned),
            address: Some(format!("{:#x}", 0x1000_0000 + 0x10_0000 * id)),
            extents: 1,
            address_unknown: None,
        };
        let pool = Pool {
            name: "physbufferpool0".into(),
            kind: "cma".into(),
            is_active: true,
            total: 2,
            free: 1,
            bytes: 2 << 20,
            acquired: frames + 2,
            released: frames + 1,
            waits: 5,
            filled_by: Some("rawvideosrc0".into()),
            in_use: InUse {
                samples: 4,
                sum: 6,
                most: 2,
            },
            buffers: vec![
                buffer(1, "locked-by-producer", Some("kmsflipsink0")),
                buffer(2, "idle", None),
            ],
            ..Default::default()
        };
        Snapshot {
            version: VERSION,
            pid: 4711,
            program: "gst-launch-1.0".into(),
            time_ns: time_ms * 1_000_000,
            elements: vec![source, sink],
            pools: vec![pool],
        }
    }

    #[test]
    fn a_rate_is_growth_over_the_last_second() {
        let mut model = Model::default();
        let sink = &snapshot(0, 1).elements[1];
        let pool = &snapshot(0, 1).pools[0];
        assert_eq!(model.frames_rate(sink), None);
        model.take(snapshot(0, 10));
        assert_eq!(model.frames_rate(sink), None);
        // 60 frames a second at first, then 30.
        for step in 1..=20 {
            model.take(snapshot(step * 100, 10 + step * 6));
        }
        assert_eq!(model.frames_rate(sink), Some(60.0));
        for step in 1..=10 {
            model.take(snapshot(2000 + step * 100, 130 + step * 3));
        }
        assert_eq!(model.frames_rate(sink), Some(30.0));
        assert_eq!(model.acquired_rate(pool), Some(30.0));
        assert!(model.history.len() <= 12, "{}", model.history.len());
    }

    #[test]
    fn a_counter_that_begins_anew_has_no_rate_until_the_window_has_passed() {
        let mut model = Model::default();
        let sink = &snapshot(0, 1).elements[1];
        model.take(snapshot(0, 100));
        model.take(snapshot(500, 1));
        assert_eq!(model.frames_rate(sink), None);
        model.take(snapshot(1500, 31));
        assert_eq!(model.frames_rate(sink), Some(30.0));
    }

    #[test]
    fn clocks_that_do_not_run_are_no_division_by_zero() {
        let mut model = Model::default();
        let sink = &snapshot(0, 1).elements[1];
        model.take(snapshot(5, 1));
        model.take(snapshot(5, 9));
        assert_eq!(model.frames_rate(sink), None);
        model.take(snapshot(1, 10));
        assert_eq!(model.frames_rate(sink), None);
    }
}
