// SPDX-License-Identifier: MPL-2.0
//! The counters behind the property `stats`.

use std::time::Duration;

/// Buckets are powers of two of a microsecond: the first is below 1 us, the last takes all
/// times from 2^18 us (0.26 s) on.
const BUCKETS: usize = 20;
/// A shorter wait for a buffer of the pool is not counted.
const WAIT: Duration = Duration::from_micros(50);

#[derive(Debug, Clone, Default)]
pub struct Stats {
    mode: &'static str,
    reason: String,
    frames: u64,
    bytes: u64,
    dropped: u64,
    bounced: u64,
    bounced_seen: u64,
    read_time: Duration,
    read_histogram: [u64; BUCKETS],
    buffer_waits: u64,
    buffer_wait_time: Duration,
}

impl Stats {
    pub fn set_mode(&mut self, mode: &'static str, reason: String) {
        self.mode = mode;
        self.reason = reason;
    }

    /// Counts frames of a live stream that were late and left out.
    pub fn frames_dropped(&mut self, count: u64) {
        self.dropped += count;
    }

    /// Takes the source's total of bounced bytes and returns how many are new.
    pub fn bounced_so_far(&mut self, bytes: u64) -> u64 {
        // A new source counts from 0 again.
        let added = bytes.checked_sub(self.bounced_seen).unwrap_or(bytes);
        self.bounced_seen = bytes;
        self.bounced += added;
        added
    }

    /// Counts a frame that waited `waited` for its buffer and took `read` to fill it.
    pub fn frame_read(&mut self, bytes: u64, waited: Duration, read: Duration) {
        self.frames += 1;
        self.bytes += bytes;
        self.read_time += read;
        let bucket = (u64::BITS - (read.as_micros() as u64).leading_zeros()) as usize;
        self.read_histogram[bucket.min(BUCKETS - 1)] += 1;
        if waited >= WAIT {
            self.buffer_waits += 1;
            self.buffer_wait_time += waited;
        }
    }

    /// The value of the property. Times are in nanoseconds. Entry `n` of
    /// `read-latency-histogram` counts reads of at least 2^(n-1) and less than 2^n microseconds.
    pub fn to_structure(&self) -> gst::Structure {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        gst::Structure::builder("rawvideosrc-stats")
            .field("mode", self.mode)
            .field("mode-reason", &self.reason)
            .field("frames", self.frames)
            .field("dropped", self.dropped)
            .field("bounced-bytes", self.bounced)
            .field("bytes", self.bytes)
            .field("read-time", nanoseconds(self.read_time))
            .field(
                "read-latency-histogram",
                gst::Array::new(self.read_histogram),
            )
            .field("buffer-waits", self.buffer_waits)
            .field("buffer-wait-time", nanoseconds(self.buffer_wait_time))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_land_in_their_buckets() {
        gst::init().unwrap();
        let mut stats = Stats::default();
        for micros in [0, 1, 3, 900, 10_000_000] {
            stats.frame_read(10, Duration::ZERO, Duration::from_micros(micros));
        }
        for (bucket, count) in [(0, 1), (1, 1), (2, 1), (10, 1), (BUCKETS - 1, 1), (5, 0)] {
            assert_eq!(stats.read_histogram[bucket], count, "bucket {bucket}");
        }
        let structure = stats.to_structure();
        assert_eq!(structure.get::<u64>("bytes").unwrap(), 50);
        assert_eq!(structure.get::<u64>("buffer-waits").unwrap(), 0);
    }
}
