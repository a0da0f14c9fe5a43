// SPDX-License-Identifier: MPL-2.0
//! Converts seeks to the form that the base class carries out exactly: in TIME, from the
//! beginning of the stream, and on frame boundaries if the flags ask for them.

use super::{cursor::Cursor, playback::Playback, timeline::Timeline};
use gst::{GenericFormattedValue, SeekFlags, SeekType};

type TimeSegment = gst::FormattedSegment<gst::ClockTime>;

/// The start or stop that a seek asks for: `None` keeps the one of the segment, `Some(None)`
/// is the beginning or end of the stream.
type Side = Option<Option<gst::ClockTime>>;

/// The same seek in TIME, with the seek types NONE and SET only. `None` if a position is not
/// known, or if the segment would end before it begins.
pub fn in_time(
    seek: &gst::event::Seek,
    current: &TimeSegment,
    playback: &Playback,
) -> Option<gst::Event> {
    let (rate, flags, start_type, start, stop_type, stop) = seek.get();
    let mut start = side(start_type, start, playback)?;
    let mut stop = side(stop_type, stop, playback)?;
    let timeline = &playback.timeline;
    let end = timeline.duration_ns().map(gst::ClockTime::from_nseconds);
    let is_reverse = rate < 0.0;
    if is_reverse && stop == Some(None) {
        stop = Some(Some(end?));
    }
    let is_order_right = |start: Side, stop: Side| {
        let start = start.unwrap_or(current.start()).unwrap_or_default();
        let stop = stop.unwrap_or(current.stop());
        let within = |time: gst::ClockTime| end.map_or(time, |end| time.min(end));
        stop.is_none_or(|stop| within(start) <= within(stop))
    };
    if !is_order_right(start, stop) {
        return None;
    }
    // Every frame is a key unit. The flag concerns only the side where playback begins.
    if flags.contains(SeekFlags::KEY_UNIT) {
        let first = if is_reverse { &mut stop } else { &mut start };
        if let Some(Some(time)) = first {
            *time = gst::ClockTime::from_nseconds(snap(time.nseconds(), timeline, flags, rate));
        }
        if !is_order_right(start, stop) {
            match is_reverse {
                true => start = stop,
                false => stop = start,
            }
        }
    }
    let kind = |side: Side| match side {
        Some(_) => SeekType::Set,
        None => SeekType::None,
    };
    let event = gst::event::Seek::builder(
        rate,
        flags,
        kind(start),
        start.flatten(),
        kind(stop),
        stop.flatten(),
    );
    Some(event.seqnum(seek.seqnum()).build())
}

/// `None` if the position is not known.
fn side(kind: SeekType, value: GenericFormattedValue, playback: &Playback) -> Option<Side> {
    let value = match kind {
        SeekType::None => return Some(None),
        SeekType::Set if value.value() < 0 => return Some(Some(None)),
        SeekType::Set => value,
        SeekType::End => {
            let format = value.format();
            let end = playback.total(format)?.value();
            GenericFormattedValue::new(format, end.saturating_add(value.value()).max(0))
        }
    };
    match playback.convert(value, gst::Format::Time)? {
        GenericFormattedValue::Time(time @ Some(_)) => Some(Some(time)),
        _ => None,
    }
}

/// The frame boundary that the flags ask for. "Before" and "after" are meant in the direction
/// of playback, as demuxers do it.
fn snap(time_ns: u64, timeline: &Timeline, flags: SeekFlags, rate: f64) -> u64 {
    let n = timeline.frame_at(time_ns);
    let is_last = match timeline.total_frames() {
        Some(total) if n >= total => return time_ns,
        total => total == Some(n + 1),
    };
    let (Some(start), Some(end)) = (timeline.time_ns(n), timeline.time_ns(n + 1)) else {
        return time_ns;
    };
    let is_reverse = rate < 0.0;
    let (before, after) = (
        flags.contains(SeekFlags::SNAP_BEFORE),
        flags.contains(SeekFlags::SNAP_AFTER),
    );
    let takes_start = match (before, after) {
        (true, true) => time_ns - start <= end - time_ns,
        (false, true) => is_reverse,
        (_, false) => !is_reverse,
    };
    // No frame begins at the end of the last frame.
    let has_no_end = is_last && !is_reverse;
    if time_ns == start || takes_start || has_no_end {
        start
    } else {
        end
    }
}

/// Applies `seek`, a result of [`in_time`], to the segment as the base class does. False if
/// the segment does not take it.
pub fn apply(seek: &gst::event::Seek, segment: &mut TimeSegment) -> bool {
    let (rate, flags, start_type, start, stop_type, stop) = seek.get();
    let time = |value| match value {
        GenericFormattedValue::Time(time) => time,
        _ => None,
    };
    let (start, stop) = (time(start), time(stop));
    let done = segment.do_seek(rate, flags, start_type, start, stop_type, stop);
    done.is_some()
}

/// The position where playback continues after a seek has changed the segment. Sets the
/// duration of the segment and, if it is missing in reverse playback, the stop.
pub fn go(segment: &mut TimeSegment, timeline: Option<&Timeline>) -> Cursor {
    let end = timeline.and_then(Timeline::duration_ns);
    let end = end.map(gst::ClockTime::from_nseconds);
    segment.set_duration(end);
    let is_reverse = segment.rate() < 0.0;
    // Not the start: a seek that sets none continues at the current position.
    let position = segment.position().unwrap_or_default();
    if is_reverse && segment.stop().or(end).is_none() {
        // Reverse playback counts running time from the stop, and this stream has no other end.
        segment.set_stop(position);
        segment.set_offset(gst::ClockTime::ZERO);
    }
    let skips = gst::SegmentFlags::TRICKMODE | gst::SegmentFlags::SKIP;
    let stride = match segment.flags().intersects(skips) {
        true => (segment.rate().abs() as i64).max(1),
        false => 1,
    };
    Cursor::Time {
        start_ns: position.nseconds(),
        stop_ns: is_reverse.then_some(position.nseconds()),
        step: if is_reverse { -stride } else { stride },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rawvideosrc::timeline::Passes;

    #[test]
    fn snapping_goes_before_after_or_to_the_nearer_frame() {
        // Ten frames of 100 ns each.
        let timeline = Timeline::new((10_000_000, 1), Some(10), Passes::Times(1));
        let key = SeekFlags::KEY_UNIT;
        let (before, after) = (SeekFlags::SNAP_BEFORE, SeekFlags::SNAP_AFTER);
        let nearest = SeekFlags::SNAP_NEAREST;
        let snap = |time_ns, flags, rate| snap(time_ns, &timeline, flags, rate);
        for (flags, at_330, at_370) in [
            (key, 300, 300),
            (key | before, 300, 300),
            (key | after, 400, 400),
            (key | nearest, 300, 400),
        ] {
            assert_eq!(snap(330, flags, 1.0), at_330);
            assert_eq!(snap(370, flags, 2.0), at_370);
            assert_eq!(snap(300, flags, 1.0), 300);
            assert_eq!(snap(300, flags, -1.0), 300);
        }
        // In reverse playback, "before" is the later boundary.
        for (flags, at_330, at_370) in [
            (key, 400, 400),
            (key | before, 400, 400),
            (key | after, 300, 300),
            (key | nearest, 300, 400),
        ] {
            assert_eq!(snap(330, flags, -1.0), at_330);
            assert_eq!(snap(370, flags, -0.5), at_370);
        }
        // No frame begins at the end of the last one, but reverse playback can begin there.
        assert_eq!(snap(950, key | after, 1.0), 900);
        assert_eq!(snap(950, key | before, -1.0), 1000);
        assert_eq!(snap(1234, key | after, 1.0), 1234);
    }
}
