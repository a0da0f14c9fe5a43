// SPDX-License-Identifier: MPL-2.0
//! Measures the speed of this plugin and of each peer: `benches/compare`, or
//! `cargo bench --bench compare`.
//!
//! This plugin and the peer run in turn, for several rounds. The output is
//! `name ours peer ratio`, medians of the rounds; the ratio is taken in each round.
//! Input files are made once, in target/bench. A measurement that fails says so on stderr,
//! and the others go on.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Line, Measured, Options, chart};
use gst::prelude::*;
use gstphysmem::{
    memory::{MemoryKind, region_of},
    pool::PhysBufferPool,
};
use nix::sys::resource::{UsageWho, getrusage};
use std::{
    fs::File,
    io::Write,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(300);
const LARGE_PAGE_BYTES: usize = 2 << 20;
/// Starts of gst-launch-1.0 in one round, whose median is taken.
const LAUNCHES: usize = 9;

/// A format and size of frames, and the number of frames to play.
#[derive(Clone, Copy)]
struct Picture {
    name: &'static str,
    format: gst_video::VideoFormat,
    width: u32,
    height: u32,
    frames: usize,
}

const PICTURES: &[Picture] = &[
    Picture {
        name: "1080p-BGRx",
        format: gst_video::VideoFormat::Bgrx,
        width: 1920,
        height: 1080,
        frames: 100,
    },
    Picture {
        name: "1080p-NV12",
        format: gst_video::VideoFormat::Nv12,
        width: 1920,
        height: 1080,
        frames: 240,
    },
    Picture {
        name: "640x480-BGRx",
        format: gst_video::VideoFormat::Bgrx,
        width: 640,
        height: 480,
        frames: 600,
    },
];

impl Picture {
    fn info(&self) -> gst_video::VideoInfo {
        gst_video::VideoInfo::builder(self.format, self.width, self.height)
            .fps((25, 1))
            .build()
            .unwrap()
    }

    fn caps(&self) -> gst::Caps {
        self.info().to_caps().unwrap()
    }

    fn frame_bytes(&self) -> usize {
        self.info().size()
    }

    /// A file of pseudo-random frames: they do not compress, and no two are alike.
    fn file(&self, dir: &Path) -> PathBuf {
        let path = dir.join(format!("{}.raw", self.name));
        let len_bytes = (self.frame_bytes() * self.frames) as u64;
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == len_bytes) {
            return path;
        }
        eprintln!("making {}", path.display());
        let mut file = File::create(&path).unwrap();
        let mut state = 1u64;
        let mut frame = vec![0u8; self.frame_bytes()];
        for _ in 0..self.frames {
            for word in frame.chunks_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
            }
            file.write_all(&frame).unwrap();
        }
        file.sync_all().unwrap();
        path
    }

    fn properties(&self) -> String {
        format!(
            "format={} width={} height={} framerate=25/1",
            self.format.to_str().to_lowercase(),
            self.width,
            self.height
        )
    }

    fn rawvideosrc(&self, path: &Path, more: &str) -> String {
        format!(
            "rawvideosrc location={} {} {more}",
            path.display(),
            self.properties()
        )
    }

    /// The stock elements that read raw video.
    fn filesrc(&self, path: &Path) -> String {
        format!(
            "filesrc location={} blocksize={} ! rawvideoparse {}",
            path.display(),
            self.frame_bytes(),
            self.properties()
        )
    }

    /// The pool that rawvideosrc makes when downstream offers none.
    fn pool(&self) -> gst::BufferPool {
        self.pool_of(PhysBufferPool::builder().build(), self.frame_bytes())
    }

    fn pool_of(&self, pool: PhysBufferPool, size_bytes: usize) -> gst::BufferPool {
        let pool = pool.upcast::<gst::BufferPool>();
        let mut config = pool.config();
        config.set_params(Some(&self.caps()), size_bytes as u32, 4, 0);
        config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_ref());
        pool.set_config(config).unwrap();
        pool
    }

    /// Buffers that lie in large pages, whatever the size of a frame.
    fn large_buffers(
        &self,
        count: usize,
    ) -> Measured<Vec<gst::MappedBuffer<gst::buffer::Writable>>> {
        let size_bytes = self.frame_bytes().next_multiple_of(LARGE_PAGE_BYTES);
        let pool = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
        let pool = self.pool_of(pool, size_bytes);
        pool.set_active(true)?;
        let buffer = |_| {
            let buffer = pool.acquire_buffer(None)?;
            let region = region_of(buffer.peek_memory(0)).map(|(region, _)| region);
            if region.is_none_or(|region| region.large_page_bytes() < size_bytes) {
                return Err("the kernel has no large pages for the bare loop".into());
            }
            Ok(buffer.into_mapped_buffer_writable().unwrap())
        };
        (0..count).map(buffer).collect()
    }
}

/// A display of the machine on which the benchmark runs.
#[derive(Clone, Copy)]
enum Display {
    /// /dev/fb0
    Framebuffer,
    /// The first connector of the first card.
    Kms,
}

impl Display {
    /// Frames of the display's size, in a format that its driver takes.
    fn picture(self) -> Picture {
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        let (name, modes, format) = match self {
            Self::Framebuffer => {
                let bits = read("/sys/class/graphics/fb0/bits_per_pixel");
                let format = match bits.trim() {
                    "16" => gst_video::VideoFormat::Rgb16,
                    "24" => gst_video::VideoFormat::Bgr,
                    _ => gst_video::VideoFormat::Bgrx,
                };
                ("fb0", read("/sys/class/graphics/fb0/modes"), format)
            }
            Self::Kms => {
                let modes = read("/sys/class/drm/card0-Virtual-1/modes");
                ("card0", modes, gst_video::VideoFormat::Bgrx)
            }
        };
        // A line is U:640x480p-60 or 1024x768.
        let mode: Vec<u32> = modes
            .lines()
            .next()
            .expect("a mode")
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        Picture {
            name,
            format,
            width: mode[0],
            height: mode[1],
            frames: 100,
        }
    }
}

#[derive(Clone, Copy)]
struct Run {
    frames: f64,
    wall: Duration,
    cpu: Duration,
}

impl Run {
    fn frames_per_second(&self) -> f64 {
        self.frames / self.wall.as_secs_f64()
    }

    fn cpu_us_per_frame(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.frames
    }
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_secs(value.tv_sec() as u64) + Duration::from_micros(value.tv_usec() as u64)
    };
    time(usage.user_time()) + time(usage.system_time())
}

fn timed(frames: usize, work: impl FnOnce()) -> Run {
    let (wall, cpu) = (Instant::now(), cpu_time());
    work();
    Run {
        frames: frames as f64,
        wall: wall.elapsed(),
        cpu: cpu_time() - cpu,
    }
}

/// Plays a pipeline into a fakesink. The first frame and everything before it are not counted.
fn play(line: &str, frames: usize, offer: Option<&Picture>) -> Measured<Run> {
    play_into("fakesink name=sink", line, frames, offer)
}

fn play_into(sink: &str, line: &str, frames: usize, offer: Option<&Picture>) -> Measured<Run> {
    let pipeline = gst::parse::launch(&format!("{line} ! {sink}"))?
        .downcast::<gst::Pipeline>()
        .unwrap();
    if let Some(picture) = offer {
        offer_pool(&pipeline, *picture);
    }
    let run = play_through(&pipeline, frames).map_err(|error| format!("{line}: {error}"));
    pipeline.set_state(gst::State::Null)?;
    Ok(run?)
}

/// Plays into a display, and counts how often the CPU copies each byte: out of the page cache or a bounce
/// buffer, and into the display's memory.
fn play_counted(line: &str, sink: &str, picture: &Picture) -> Measured<(Run, f64)> {
    let line = format!("{line} ! {sink} name=sink sync=false");
    let pipeline = gst::parse::launch(&line)?
        .downcast::<gst::Pipeline>()
        .unwrap();
    let ordinary = Arc::new(AtomicUsize::new(0));
    let counter = ordinary.clone();
    let sink = pipeline.by_name("sink").unwrap();
    let pad = sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let memory = info.buffer().filter(|buffer| buffer.n_memory() > 0);
        if memory.is_some_and(|buffer| buffer.peek_memory(0).is_type("SystemMemory")) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
    let run =
        play_through(&pipeline, picture.frames).map_err(|error| format!("{line}: {error}"))?;
    let frames = picture.frames as f64;
    let stats = |element: gst::Element| element.property::<gst::Structure>("stats");
    let count = |stats: &gst::Structure, name: &str| stats.get::<u64>(name).unwrap() as f64;
    let copies = match pipeline.by_name("source").map(stats) {
        Some(source) => {
            let out_of_cache = match source.get::<&str>("mode") {
                Ok("io-uring") => {
                    let frame_bytes = picture.frame_bytes() as f64;
                    count(&source, "bounced-bytes") / frame_bytes / frames
                }
                _ => 1.0,
            };
            out_of_cache + count(&stats(sink), "copied") / frames
        }
        // filesrc calls read(), which copies, and the sinks copy each frame that is not in the display's memory.
        None => 1.0 + ordinary.load(Ordering::Relaxed) as f64 / frames,
    };
    pipeline.set_state(gst::State::Null)?;
    Ok((run, copies))
}

fn play_through(pipeline: &gst::Pipeline, frames: usize) -> Measured<Run> {
    let bus = pipeline.bus().unwrap();
    let paused = pipeline.set_state(gst::State::Paused);
    if paused.and_then(|_| pipeline.state(TIMEOUT).0).is_err() {
        return Err(format!("{:?}", bus.pop_filtered(&[gst::MessageType::Error])).into());
    }
    let mut end = None;
    let run = timed(frames - 1, || {
        // A failure puts a message on the bus.
        let _ = pipeline.set_state(gst::State::Playing);
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        end = bus.timed_pop_filtered(TIMEOUT, &ends);
    });
    match end {
        Some(message) if message.type_() == gst::MessageType::Eos => Ok(run),
        other => Err(format!("{other:?}").into()),
    }
}

/// Makes the sink propose a pool, as a display does.
fn offer_pool(pipeline: &gst::Pipeline, picture: Picture) {
    let pad = pipeline
        .by_name("sink")
        .unwrap()
        .static_pad("sink")
        .unwrap();
    let pool = picture.pool();
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, move |_, probe| {
        let query = probe.query_mut().map(|query| query.view_mut());
        let Some(gst::QueryViewMut::Allocation(query)) = query else {
            return gst::PadProbeReturn::Ok;
        };
        query.add_allocation_pool(Some(&pool), picture.frame_bytes() as u32, 4, 0);
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        gst::PadProbeReturn::Handled
    });
}

/// Two buffers of the pool: a pipeline uses two in turn when its sink keeps the last one.
fn two_buffers(picture: &Picture) -> [gst::MappedBuffer<gst::buffer::Writable>; 2] {
    let pool = picture.pool();
    pool.set_active(true).unwrap();
    [(); 2].map(|()| {
        let buffer = pool.acquire_buffer(None).unwrap();
        buffer.into_mapped_buffer_writable().unwrap()
    })
}

/// The upper limit for a cached file: only the reads.
fn bare_pread(picture: &Picture, path: &Path) -> Measured<Run> {
    let file = File::open(path)?;
    let mut buffers = two_buffers(picture);
    let mut read = |n: usize| {
        let bytes = buffers[n % 2].as_mut_slice();
        file.read_exact_at(bytes, (n * picture.frame_bytes()) as u64)
            .unwrap();
    };
    read(0);
    let frames = 1..picture.frames;
    Ok(timed(frames.len(), || frames.for_each(read)))
}

/// The upper limit for a cold file: only O_DIRECT reads into large pages, `DEPTH` in flight.
fn bare_io_uring(picture: &Picture, path: &Path) -> Measured<Run> {
    const DEPTH: usize = 4;
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let mut buffers = picture.large_buffers(DEPTH)?;
    let mut ring = io_uring::IoUring::new(8)?;
    let frame_bytes = picture.frame_bytes();
    Ok(timed(picture.frames, || {
        let (mut begun, mut done) = (0, 0);
        while done < picture.frames {
            while begun < picture.frames && begun - done < DEPTH {
                let slot = begun % DEPTH;
                let bytes = buffers[slot].as_mut_slice();
                let fd = io_uring::types::Fd(file.as_raw_fd());
                let read = io_uring::opcode::Read::new(fd, bytes.as_mut_ptr(), frame_bytes as u32)
                    .offset((begun * frame_bytes) as u64)
                    .build();
                // SAFETY: the buffer is mapped until after the loop, and the loop ends with no
                // read in flight.
                unsafe { ring.submission().push(&read).unwrap() };
                begun += 1;
            }
            ring.submit_and_wait(1).unwrap();
            for completion in ring.completion() {
                assert_eq!(completion.result(), frame_bytes as i32);
                done += 1;
            }
        }
    }))
}

fn make_cold(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    nix::fcntl::posix_fadvise(&file, 0, 0, advice).unwrap();
}

fn make_warm(path: &Path) {
    let mut sink = std::io::sink();
    std::io::copy(&mut File::open(path).unwrap(), &mut sink).unwrap();
}

/// Nanoseconds from one acquire with its release to the next, all threads together.
fn pool_cycle_ns(name: &str, pool: &gst::BufferPool, threads: usize) -> Measured<f64> {
    const TIME: Duration = Duration::from_millis(200);
    let caps = gst::Caps::new_empty_simple("application/octet-stream");
    let mut config = pool.config();
    config.set_params(Some(&caps), 4096, 16, 0);
    pool.set_config(config)?;
    pool.set_active(true)?;
    let start = Instant::now();
    let work = || -> Result<u64, gst::FlowError> {
        let mut cycles = 0;
        while start.elapsed() < TIME {
            for _ in 0..64 {
                drop(pool.acquire_buffer(None)?);
            }
            cycles += 64;
        }
        Ok(cycles)
    };
    let cycles = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum::<Result<u64, _>>()
    });
    let time = start.elapsed();
    if let Err(error) = pool.set_active(false) {
        // Happened once with the stock pool of 1.22, after four threads. The cycles are valid.
        eprintln!("{name}: {} would not be deactivated: {error}", pool.type_());
    }
    Ok(time.as_secs_f64() * 1e9 / cycles? as f64)
}

/// A directory that contains only the plugin that cargo has built beside this program.
fn plugin_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let library = program.with_file_name("libgstphysmem.so");
    let directory = program.with_file_name("plugins-of-compare");
    std::fs::create_dir_all(&directory).unwrap();
    let link = directory.join("libgstphysmem.so");
    if link.symlink_metadata().is_err() {
        std::os::unix::fs::symlink(library, link).unwrap();
    }
    directory
}

/// The median of some runs of gst-launch-1.0, each for one frame of `source`. The registry is there already.
fn launch_ms(plugins: &Path, source: &str) -> Measured<f64> {
    let launch = || -> Measured<f64> {
        let begun = Instant::now();
        let output = Command::new("gst-launch-1.0")
            .args(["-q", source, "num-buffers=1", "!", "fakesink"])
            .env("GST_PLUGIN_PATH", plugins)
            .env("GST_REGISTRY", plugins.join("registry.bin"))
            .output()?;
        let took = begun.elapsed();
        match output.status.success() {
            true => Ok(took.as_secs_f64() * 1e3),
            false => Err(String::from_utf8_lossy(&output.stderr).into()),
        }
    };
    launch()?;
    let times: Measured<Vec<f64>> = (0..LAUNCHES).map(|_| launch()).collect();
    Ok(common::median(times?))
}

struct Bench {
    options: Options,
    lines: Vec<Line>,
}

impl Bench {
    fn compare(
        &mut self,
        name: &str,
        ours: impl Fn() -> Measured<Run>,
        peer: impl Fn() -> Measured<Run>,
    ) {
        if !self.options.wants(name) {
            return;
        }
        self.lines.extend(self.options.measure(name, || {
            let (ours, peer) = (ours()?, peer()?);
            let rate = Run::frames_per_second;
            let cpu = Run::cpu_us_per_frame;
            Ok(vec![
                (format!("{name}:frames/s"), rate(&ours), rate(&peer)),
                (format!("{name}:cpu-us/frame"), cpu(&ours), cpu(&peer)),
            ])
        }));
    }

    fn cached(&mut self, picture: &Picture, path: &Path) {
        let frames = picture.frames;
        let ours = |more: &str| picture.rawvideosrc(path, more);
        let peer = picture.filesrc(path);
        make_warm(path);
        let name = |what: &str| format!("cached/{}/{what}", picture.name);
        for (what, properties, offer) in [
            ("read-vs-filesrc", "io-mode=read", None),
            ("read-1-thread-vs-filesrc", "io-mode=read threads=1", None),
            ("pool-sink-vs-filesrc", "io-mode=read", Some(picture)),
            ("pool-sink-mmap-vs-filesrc", "io-mode=mmap", Some(picture)),
            (
                "pool-sink-1-thread-vs-filesrc",
                "io-mode=read threads=1",
                Some(picture),
            ),
            (
                "pool-sink-mmap-1-thread-vs-filesrc",
                "io-mode=mmap threads=1",
                Some(picture),
            ),
            ("io-uring-vs-filesrc", "io-mode=io-uring", None),
            ("mmap-vs-filesrc", "io-mode=mmap", None),
        ] {
            self.compare(
                &name(what),
                || play(&ours(properties), frames, offer),
                || play(&peer, frames, offer),
            );
        }
        self.compare(
            &name("read-1-thread-vs-bare-pread"),
            || play(&ours("io-mode=read threads=1"), frames, None),
            || bare_pread(picture, path),
        );
    }

    fn cold(&mut self, picture: &Picture, path: &Path) {
        let frames = picture.frames;
        let ours = picture.rawvideosrc(path, "io-mode=io-uring direct=true");
        let name = |what: &str| format!("cold/{}/{what}", picture.name);
        let cold = |run: &dyn Fn() -> Measured<Run>| {
            make_cold(path);
            run()
        };
        self.compare(
            &name("io-uring-direct-vs-bare-io-uring"),
            || cold(&|| play(&ours, frames, None)),
            || cold(&|| bare_io_uring(picture, path)),
        );
        self.compare(
            &name("io-uring-direct-vs-filesrc"),
            || cold(&|| play(&ours, frames, None)),
            || cold(&|| play(&picture.filesrc(path), frames, None)),
        );
        self.compare(
            &name("read-direct-vs-filesrc"),
            || {
                let line = picture.rawvideosrc(path, "io-mode=read direct=true threads=1");
                cold(&|| play(&line, frames, None))
            },
            || cold(&|| play(&picture.filesrc(path), frames, None)),
        );
        for (what, properties) in [("auto", ""), ("read", "io-mode=read")] {
            self.compare(
                &name(&format!("{what}-vs-filesrc")),
                || cold(&|| play(&picture.rawvideosrc(path, properties), frames, None)),
                || cold(&|| play(&picture.filesrc(path), frames, None)),
            );
        }
        self.compare(
            &name("auto-vs-bare-io-uring"),
            || cold(&|| play(&picture.rawvideosrc(path, ""), frames, None)),
            || cold(&|| bare_io_uring(picture, path)),
        );
    }

    fn sequence(&mut self, picture: &Picture, path: &Path, dir: &Path) {
        let name = format!("cached/{}/sequence-vs-multifilesrc", picture.name);
        if !self.options.wants(&name) {
            return;
        }
        let dir = dir.join(picture.name);
        std::fs::create_dir_all(&dir).unwrap();
        let whole = File::open(path).unwrap();
        let mut frame = vec![0; picture.frame_bytes()];
        for n in 0..picture.frames {
            let path = dir.join(format!("{n:05}.raw"));
            if !path.exists() {
                let offset = (n * frame.len()) as u64;
                whole.read_exact_at(&mut frame, offset).unwrap();
                std::fs::write(&path, &frame).unwrap();
            }
            make_warm(&path);
        }
        let pattern = dir.join("%05d.raw");
        let peer = format!(
            "multifilesrc location={} caps=\"{}\"",
            pattern.display(),
            picture.caps()
        );
        let ours = picture.rawvideosrc(&pattern, "");
        let frames = picture.frames;
        self.compare(
            &name,
            || play(&ours, frames, None),
            || play(&peer, frames, None),
        );
    }

    /// Measures a display, with each sink as fast as it takes frames. CPU time is the number
    /// to compare, because the display limits the frames a second of either sink.
    fn display(&mut self, display: Display, dir: &Path) {
        let picture = display.picture();
        let path = picture.file(dir);
        make_warm(&path);
        let (ours, peer) = match display {
            Display::Framebuffer => ("fbpansink", "fbdevsink"),
            Display::Kms => ("kmsflipsink", "kmssink driver-name=vkms"),
        };
        let frames = picture.frames;
        let name = |what: &str| format!("display/{}/{what}", picture.name);
        let sink = |name: &str| format!("{name} sync=false");
        let peer_name = peer.split(' ').next().unwrap();
        for (mode, properties) in [("", ""), ("-mmap", "io-mode=mmap")] {
            self.compare(
                &name(&format!("{ours}{mode}-vs-{peer_name}")),
                || {
                    let line = picture.rawvideosrc(&path, properties);
                    play_into(&sink(ours), &line, frames, None)
                },
                || play_into(&sink(peer), &picture.filesrc(&path), frames, None),
            );
        }
    }

    /// Measures from a file on the disk of the directory `disk`, not in the page cache, to a display.
    fn disk_to_display(&mut self, display: Display, disk: &Path) {
        let picture = display.picture();
        let path = picture.file(disk);
        let (ours, peer) = match display {
            Display::Framebuffer => ("fbpansink", "fbdevsink"),
            Display::Kms => (
                "kmsflipsink memory-kind=udmabuf",
                "kmssink driver-name=vkms",
            ),
        };
        let source = match display {
            // A framebuffer's memory has no pages that a disk could write to.
            Display::Framebuffer => picture.rawvideosrc(&path, "name=source"),
            Display::Kms => picture.rawvideosrc(&path, "name=source direct=true"),
        };
        let first_word = |line: &'static str| line.split(' ').next().unwrap();
        let name = format!(
            "disk-to-display/{}/{}-vs-{}",
            picture.name,
            first_word(ours),
            first_word(peer)
        );
        if !self.options.wants(&name) {
            return;
        }
        self.lines.extend(self.options.measure(&name, || {
            make_cold(&path);
            let (ours, our_copies) = play_counted(&source, ours, &picture)?;
            make_cold(&path);
            let (peer, peer_copies) = play_counted(&picture.filesrc(&path), peer, &picture)?;
            let cpu = Run::cpu_us_per_frame;
            Ok(vec![
                (format!("{name}:copies/frame"), our_copies, peer_copies),
                (format!("{name}:cpu-us/frame"), cpu(&ours), cpu(&peer)),
            ])
        }));
    }

    /// The time from the start of a program to its end, for one frame.
    fn first_frame(&mut self) {
        let name = "first-frame/rawvideosrc-vs-videotestsrc:ms";
        if !self.options.wants(name) {
            return;
        }
        let plugins = plugin_directory();
        self.lines.extend(self.options.measure(name, || {
            let ours = launch_ms(&plugins, "rawvideosrc")?;
            let peer = launch_ms(&plugins, "videotestsrc")?;
            Ok(vec![(name.to_owned(), ours, peer)])
        }));
    }

    fn pools(&mut self) {
        for threads in [1, 2, 4, 8] {
            let name = format!("pool/{threads}-threads:ns/cycle");
            if !self.options.wants(&name) {
                continue;
            }
            self.lines.extend(self.options.measure(&name, || {
                let ours = PhysBufferPool::builder().kind(MemoryKind::Normal).build();
                let ours = pool_cycle_ns(&name, ours.upcast_ref(), threads)?;
                let peer = pool_cycle_ns(&name, &gst::BufferPool::new(), threads)?;
                Ok(vec![(name.clone(), ours, peer)])
            }));
        }
    }
}

fn main() {
    let mut svg = None;
    let mut display = None;
    let mut disk = None;
    let mut lines = Vec::new();
    let usage = " [--svg FILE] [--lines FILE] [--display fb|kms [--disk DIRECTORY]]";
    let options = Options::parse(usage, |option, value| {
        match option {
            "--svg" => svg = Some(PathBuf::from(value())),
            "--lines" => {
                let text = std::fs::read_to_string(value()).expect("lines of another run");
                lines.extend(text.lines().filter_map(Line::parse));
            }
            "--disk" => disk = Some(PathBuf::from(value())),
            "--display" => {
                display = Some(match value().as_str() {
                    "fb" => Display::Framebuffer,
                    "kms" => Display::Kms,
                    other => panic!("no display is called {other}: fb or kms"),
                });
            }
            _ => return false,
        }
        true
    });
    let mut bench = Bench { options, lines };
    gst::init().unwrap();
    gstphysmem::plugin_register_static().unwrap();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
        PathBuf::from,
    );
    let dir = target.join("bench");
    std::fs::create_dir_all(&dir).unwrap();
    println!("name ours peer ratio");
    if let Some(display) = display {
        bench.display(display, &std::env::temp_dir());
        if let Some(disk) = disk {
            bench.disk_to_display(display, &disk);
        }
        return;
    }
    for picture in PICTURES {
        let path = picture.file(&dir);
        bench.cached(picture, &path);
        bench.sequence(picture, &path, &dir);
        bench.cold(picture, &path);
    }
    bench.first_frame();
    bench.pools();
    if let Some(svg) = svg {
        std::fs::write(&svg, chart::svg(&bench.lines, bench.options.rounds)).unwrap();
        eprintln!("{} written", svg.display());
    }
}
