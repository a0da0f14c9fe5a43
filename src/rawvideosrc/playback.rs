// SPDX-License-Identifier: MPL-2.0
//! Chooses the reader, the frames and their times once the caps are known.

use super::{
    CAT, automatic,
    buffer_source::BufferSource,
    count::{self, FrameCount},
    errors::{self, SetupError},
    file_layout::FileLayout,
    input::{Body, Input},
    known::check_size,
    pattern::{self, Pattern},
    reader::{
        Carrier, DirectFile, DiskFile, FilesAhead, FilesReader, Follower, FrameIndex, FrameReader,
        FrameSource, GrowingReader, MappedFile, PlainFile, Prefetcher, StreamReader, TransferPlan,
        open::Opened, scan::Scan,
    },
    settings::{IoMode, Settings},
    timeline::{Passes, Timeline},
    waker::Waker,
};
use crate::{
    layout::Layout,
    sys::{describe, page_cache},
};
use std::sync::Arc;

/// The most threads that `threads=0` starts: more of them do not get more out of memory.
const MOST_THREADS: usize = 4;
/// Smaller frames are read by one thread. At this size two threads read half as many frames
/// again as one, for a fifth more CPU time, most of it for waking threads; far below it they
/// read no more than one.
const LEAST_SHARED_BYTES: usize = 1 << 20;

/// A stream that is ready to be played.
pub struct Playback {
    /// Gives the frames; `None` while a thread has taken it out to use it.
    pub source: Option<BufferSource>,
    pub timeline: Timeline,
    /// Number in the file of the first frame that is played.
    pub first_frame: u64,
    /// Bytes of one frame in the file; the unit of seeks in BYTES.
    pub frame_bytes: u64,
    /// Warnings for the user.
    pub doubts: Vec<String>,
    pub is_seekable: bool,
    /// Whether the number of frames is that of a file, and not the most to be taken from a pipe.
    has_known_length: bool,
    /// How frames are read, as the property `stats` names it.
    pub mode: &'static str,
    pub reason: String,
}

struct ChosenReader {
    source: BufferSource,
    mode: &'static str,
    reason: String,
}

impl Playback {
    /// Prepares to play in the negotiated format.
    pub fn new(
        input: &mut Input,
        info: &gst_video::VideoInfo,
        waker: &Arc<Waker>,
    ) -> Result<Self, SetupError> {
        check_size(info, info.size() as u64)?;
        let settings = input.settings.clone();
        let fps = (info.fps().numer() as u32, info.fps().denom() as u32);
        let passes = match (settings.looping, settings.loop_count) {
            (false, _) => Passes::Times(1),
            (true, 0) => Passes::Endless,
            (true, count) => Passes::Times(count.into()),
        };
        let frame_bytes = info.size() as u64;
        let FileLayout { layout, doubt } = input.layout(info)?;
        let mut doubts: Vec<String> = doubt.into_iter().collect();
        let location = settings.location.clone().unwrap_or_default();
        let endless = |choice: ChosenReader, frames, is_seekable, first_frame| Self {
            source: Some(choice.source),
            timeline: Timeline::new(fps, frames, Passes::Times(1)),
            first_frame,
            frame_bytes: layout.size_bytes as u64,
            doubts: Vec::new(),
            has_known_length: is_seekable,
            // Without a rate, frames have no times, by which the base class seeks.
            is_seekable: is_seekable && fps.0 > 0,
            mode: choice.mode,
            reason: choice.reason,
        };
        let open_range = input.open_range();
        match &mut input.body {
            Body::Pattern => {
                check_pattern(info)?;
                let choice = ChosenReader {
                    source: BufferSource::each(Box::new(Pattern::new(info)?), input.cpus),
                    mode: "pattern",
                    reason: "there is no location".into(),
                };
                Ok(Self {
                    frame_bytes,
                    ..endless(choice, open_range?, true, settings.start_frame)
                })
            }
            Body::Stream(stream) => {
                let header = input.header.clone();
                let offset = if header.is_some() { 0 } else { settings.offset };
                let stream = stream.take().ok_or_else(|| SetupError::Mode {
                    location,
                    mode: "read",
                    why: "it is being read already".into(),
                })?;
                let reader =
                    StreamReader::new(stream, TransferPlan::new(layout, info, 1), offset, header);
                let choice = ChosenReader {
                    source: BufferSource::Stream(Box::new(reader)),
                    mode: "read",
                    reason: "a pipe is read from front to back".into(),
                };
                Ok(Self {
                    doubts,
                    ..endless(choice, open_range?, false, settings.start_frame)
                })
            }
            Body::Files {
                sequence,
                first,
                count,
                opened,
            } => {
                let (sequence, first, count) = (sequence.clone(), *first, *count);
                let opened = opened.try_clone()?;
                let counted = count::of_files(
                    (&sequence, first, count),
                    input.header.as_ref(),
                    &layout,
                    settings.offset,
                    waker,
                )?;
                if counted.table.frames() == 0 {
                    input.check_frames(&opened, &layout, 0)?;
                }
                let (first_frame, frames) = input.range(counted.table.frames())?;
                doubts.extend(doubts_about_files(&counted.leftovers, &layout, info));
                let threads = thread_count(&settings, &layout);
                let plan = TransferPlan::new(layout, info, threads);
                let reader = FilesReader::new(
                    sequence,
                    first,
                    counted.table,
                    Carrier::new(plan, input.cpus)?,
                    FilesAhead::new(settings.prefetch.into(), input.cpus),
                );
                let choice = ChosenReader {
                    source: BufferSource::each(Box::new(reader), input.cpus),
                    mode: "read",
                    reason: format!("there are {count} files"),
                };
                Ok(Self {
                    timeline: Timeline::new(fps, Some(frames), passes),
                    doubts,
                    ..endless(choice, None, true, first_frame)
                })
            }
            Body::File(opened) if settings.follow => {
                let opened = opened.try_clone()?;
                let choice = follow(input, &opened, &layout, info, waker)?;
                Ok(Self {
                    doubts,
                    ..endless(choice, open_range?, true, settings.start_frame)
                })
            }
            Body::File(opened) => {
                let opened = opened.try_clone()?;
                let frame_count = input.count(&opened, &layout, waker)?;
                let (first_frame, frames) = input.range(frame_count.frames)?;
                // A second warning about the same bytes would say nothing new.
                if frame_count.leftover_bytes > 0 && doubts.is_empty() {
                    doubts.push(doubt_about_size(
                        &location,
                        frame_count.leftover_bytes,
                        &layout,
                        info,
                    ));
                }
                let range = (first_frame, frames);
                let choice = choose(input, &opened, (&frame_count, range), &layout, info)?;
                Ok(Self {
                    timeline: Timeline::new(fps, Some(frames), passes),
                    doubts,
                    ..endless(choice, None, true, first_frame)
                })
            }
        }
    }

    /// Converts a value between the formats TIME, DEFAULT (frames) and BYTES.
    pub fn convert(
        &self,
        value: gst::GenericFormattedValue,
        to: gst::Format,
    ) -> Option<gst::GenericFormattedValue> {
        use gst::{Format, GenericFormattedValue as Value};
        if value.format() == to {
            return Some(value);
        }
        let frame = match value {
            Value::Time(time) => self.timeline.frame_at(time?.nseconds()),
            Value::Default(frame) => *frame?,
            Value::Bytes(bytes) => *bytes? / self.frame_bytes,
            _ => return None,
        };
        Some(match to {
            Format::Time => Value::Time(
                self.timeline
                    .time_ns(frame)
                    .map(gst::ClockTime::from_nseconds),
            ),
            Format::Default => Value::Default(gst::format::Default::try_from(frame).ok()),
            Format::Bytes => Value::Bytes(
                frame
                    .checked_mul(self.frame_bytes)
                    .and_then(|bytes| gst::format::Bytes::try_from(bytes).ok()),
            ),
            _ => return None,
        })
    }

    /// The length of the stream; `None` if there is no end, or none that is known.
    pub fn total(&self, format: gst::Format) -> Option<gst::GenericFormattedValue> {
        if !self.has_known_length {
            return None;
        }
        let frames = gst::format::Default::try_from(self.timeline.total_frames()?).ok()?;
        let total = self.convert(frames.into(), format)?;
        (total.value() >= 0).then_some(total)
    }

    /// The range in which one can seek; the end is -1 if it is not known.
    pub fn seekable(
        &self,
        format: gst::Format,
    ) -> Option<(gst::GenericFormattedValue, gst::GenericFormattedValue)> {
        let start = self.convert(gst::format::Default::ZERO.into(), format)?;
        let end = self
            .total(format)
            .unwrap_or(gst::GenericFormattedValue::new(format, -1));
        Some((start, end))
    }
}

/// The number of threads that read a frame together.
fn thread_count(settings: &Settings, layout: &Layout) -> usize {
    match settings.threads {
        0 if layout.size_bytes < LEAST_SHARED_BYTES => 1,
        0 => std::thread::available_parallelism()
            .map_or(1, |count| count.get())
            .min(MOST_THREADS),
        threads => threads as usize,
    }
}

fn check_pattern(info: &gst_video::VideoInfo) -> Result<(), SetupError> {
    let needed_bytes = pattern::needed_bytes(info);
    if needed_bytes <= pattern::MAX_BYTES {
        return Ok(());
    }
    Err(SetupError::PatternTooLarge {
        width: info.width(),
        height: info.height(),
        format: info.format().to_str().to_string(),
        mib: needed_bytes >> 20,
        most_mib: pattern::MAX_BYTES >> 20,
    })
}

/// A warning: if bytes are left over, the frame size may be wrong.
fn doubt_about_size(
    location: &str,
    leftover_bytes: u64,
    layout: &Layout,
    info: &gst_video::VideoInfo,
) -> String {
    format!(
        "the last {leftover_bytes} bytes of \"{location}\" are no whole frame and are not played: it was cut, or its frames are not the {} bytes of {}x{} {}; check format, width and height",
        layout.size_bytes,
        info.width(),
        info.height(),
        info.format()
    )
}

/// One warning for all files: often only the last file of a recording is cut.
fn doubts_about_files(
    leftovers: &[(String, u64)],
    layout: &Layout,
    info: &gst_video::VideoInfo,
) -> Option<String> {
    let (location, leftover_bytes) = leftovers.first()?;
    let doubt = doubt_about_size(location, *leftover_bytes, layout, info);
    Some(match leftovers.len() - 1 {
        0 => doubt,
        others => format!("{doubt}; so it is with {others} more of the files"),
    })
}

/// The reader for a file that may grow.
fn follow(
    input: &Input,
    opened: &Opened,
    layout: &Layout,
    info: &gst_video::VideoInfo,
    waker: &Arc<Waker>,
) -> Result<ChosenReader, SetupError> {
    let settings = &input.settings;
    let plan = TransferPlan::new(*layout, info, thread_count(settings, layout));
    let file = opened.try_clone()?.file;
    let follow = |reader: Box<dyn FrameSource>| {
        Follower::new(reader, &opened.path, waker.clone()).map_err(|error| {
            errors::of_follow(settings.location.as_deref().unwrap_or_default(), &error)
        })
    };
    let follower = match &input.header {
        Some(header) => {
            let scan = Scan::new(header, layout.size_bytes as u64);
            follow(Box::new(GrowingReader::new(file, scan, plan, input.cpus)?))?
        }
        None => {
            let index = FrameIndex::Regular {
                start_bytes: settings.offset,
                step_bytes: layout.size_bytes as u64,
            };
            follow(Box::new(FrameReader::new(
                PlainFile(file),
                index,
                plan,
                input.cpus,
            )?))?
        }
    };
    Ok(ChosenReader {
        source: BufferSource::each(Box::new(follower), input.cpus),
        mode: "read",
        reason: "the file may grow".into(),
    })
}

/// The reader for a file that does not grow.
fn choose(
    input: &Input,
    opened: &Opened,
    (frame_count, range): (&FrameCount, (u64, u64)),
    layout: &Layout,
    info: &gst_video::VideoInfo,
) -> Result<ChosenReader, SetupError> {
    let Input { settings, cpus, .. } = input;
    let location = settings.location.clone().unwrap_or_default();
    let refuse = |mode: &'static str, why: String| SetupError::Mode {
        location: location.clone(),
        mode,
        why,
    };
    let index = || frame_count.index.clone();
    let plan = || TransferPlan::new(*layout, info, thread_count(settings, layout));
    let (wanted, reason) = match settings.io_mode {
        IoMode::Auto if settings.direct => {
            let reason = "past the page cache only what is in flight is read ahead";
            (IoMode::IoUring, reason.to_owned())
        }
        wanted => (wanted, "io-mode says so".to_owned()),
    };
    match wanted {
        IoMode::Mmap => {
            let len_bytes = usize::try_from(opened.len_bytes)
                .map_err(|_| refuse("mmap", "the file is larger than the address space".into()))?;
            let file = MappedFile::new(
                opened.try_clone()?.file,
                len_bytes,
                index(),
                layout.size_bytes,
            )
            .map_err(|error| refuse("mmap", describe(&error)))?;
            let reader = FrameReader::new(file, index(), plan(), *cpus)?;
            Ok(ChosenReader {
                source: BufferSource::mapped(reader, *layout, *cpus),
                mode: "mmap",
                reason,
            })
        }
        IoMode::IoUring => {
            let (disk_file, note) = disk_file(settings, opened)?;
            let note = match settings.direct {
                true => note,
                false => note + &note_on_cached(opened),
            };
            let single = TransferPlan::new(*layout, info, 1);
            match Prefetcher::new(disk_file, index(), single, *cpus) {
                Ok(prefetcher) => Ok(ChosenReader {
                    source: BufferSource::ahead(prefetcher, depth(settings)),
                    mode: "io-uring",
                    reason: reason + &note,
                }),
                Err(error) if settings.io_mode == IoMode::IoUring => {
                    Err(refuse("io-uring", describe(&error)))
                }
                Err(error) => {
                    let (source, _) = read(input, opened, index(), plan())?;
                    let why = describe(&error);
                    Ok(ChosenReader {
                        source,
                        mode: "read",
                        reason: format!("{reason}, but there is no io_uring: {why}"),
                    })
                }
            }
        }
        IoMode::Auto => {
            let frames = automatic::Frames {
                index: &frame_count.index,
                frame_bytes: layout.size_bytes as u64,
                range,
                is_looping: settings.looping && settings.loop_count != 1,
            };
            let through = PlainFile(opened.try_clone()?.file);
            let through = Box::new(FrameReader::new(through, index(), plan(), *cpus)?);
            let single = TransferPlan::new(*layout, info, 1);
            let past = automatic::direct_file(opened.try_clone()?.file, &frames);
            let past = past.and_then(|past| {
                let past = Prefetcher::new(DiskFile::Direct(past), index(), single, *cpus);
                past.map_err(|error| format!("there is no io_uring: {}", describe(&error)))
            });
            Ok(match past {
                Ok(past) => ChosenReader {
                    source: BufferSource::automatic(through, past, depth(settings), *cpus, *layout),
                    mode: "read",
                    reason: "the first buffer decides".into(),
                },
                Err(why) => ChosenReader {
                    source: BufferSource::each(through, *cpus),
                    mode: "read",
                    reason: format!("the kernel reads ahead into the page cache: {why}"),
                },
            })
        }
        IoMode::Read => {
            let (source, note) = read(input, opened, index(), plan())?;
            Ok(ChosenReader {
                source,
                mode: "read",
                reason: reason + &note,
            })
        }
    }
}

/// A reader that reads each frame when it is requested, and what to add to the reason.
fn read(
    input: &Input,
    opened: &Opened,
    index: FrameIndex,
    plan: TransferPlan,
) -> Result<(BufferSource, String), SetupError> {
    let (file, note) = disk_file(&input.settings, opened)?;
    let reader = FrameReader::new(file, index, plan, input.cpus)?;
    Ok((BufferSource::each(Box::new(reader), input.cpus), note))
}

/// The file, with O_DIRECT if the settings ask for it, and what to add to the reason.
fn disk_file(settings: &Settings, opened: &Opened) -> Result<(DiskFile, String), SetupError> {
    let file = opened.try_clone()?.file;
    if !settings.direct {
        return Ok((DiskFile::Buffered(PlainFile(file)), String::new()));
    }
    match DirectFile::new(file) {
        Ok(direct) => Ok((DiskFile::Direct(direct), ", past the page cache".into())),
        Err(error) => {
            let file = opened.try_clone()?.file;
            let note = format!(
                ", through the page cache, as the file system has no O_DIRECT: {}",
                describe(&error)
            );
            Ok((DiskFile::Buffered(PlainFile(file)), note))
        }
    }
}

/// The addition to the reason of `io-uring` without `direct` if most of the file is in the page cache already.
fn note_on_cached(opened: &Opened) -> String {
    match page_cache::cached_share(&opened.file, opened.start_bytes..opened.len_bytes) {
        Ok(share) if share > 0.5 => {
            gst::warning!(
                CAT,
                "\"{}\" is in the page cache already: io-mode=read is faster",
                opened.path.display()
            );
            ", but the file is in the page cache, from where io-mode=read is faster".into()
        }
        _ => String::new(),
    }
}

fn depth(settings: &Settings) -> usize {
    settings.prefetch.max(1) as usize
}
