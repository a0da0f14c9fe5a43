// SPDX-License-Identifier: MPL-2.0
//! The tracer `physmem`, seen from outside of gst-launch-1.0.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use gstphysmem::tracer::protocol::{Snapshot, socket_name};

mod common;

const LIMIT: Duration = Duration::from_secs(60);
const FRAMES: &str = "video/x-raw,format=GRAY8,width=64,height=48";

/// gst-launch-1.0 with the tracer.
fn launch(tracer: &str, pipeline: &str) -> Command {
    let mut launch = common::with_plugin("gst-launch-1.0");
    launch
        .arg("-q")
        .args(pipeline.split_whitespace())
        .env("GST_TRACERS", tracer)
        .env("GST_DEBUG_NO_COLOR", "1")
        .stdin(Stdio::null());
    launch
}

/// The standard error of a pipeline that plays to its end.
#[track_caller]
fn said(launch: &mut Command) -> String {
    let output = launch.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// The record of an element or pool in the log.
#[track_caller]
fn record(log: &str, kind: &str, name: &str) -> gst::Structure {
    gst::init().unwrap();
    let records = log.lines().filter_map(|line| {
        let at = line.find(&format!("{kind}, "))?;
        line[at..].parse::<gst::Structure>().ok()
    });
    let mut of_name = records.filter(|record| {
        let is_name = |told: String| told.starts_with(name);
        record.get::<String>("name").is_ok_and(is_name)
    });
    let found = of_name.next();
    found.unwrap_or_else(|| panic!("no {kind} of {name} in\n{log}"))
}

fn count(record: &gst::Structure, name: &str) -> u64 {
    record.get(name).unwrap()
}

#[test]
fn the_records_at_the_end_are_the_numbers_of_the_elements() {
    let pipeline =
        format!("rawvideosrc num-buffers=7 ! {FRAMES} ! physmemupload kind=normal ! fakesink");
    let log = said(
        launch("physmem", &pipeline).env("GST_DEBUG", "GST_TRACER:4,rawvideosrc:4,physmemupload:4"),
    );
    // What the elements themselves say when they stop.
    assert!(log.contains("frames 7, bytes "), "{log}");
    assert!(log.contains("passed 7, copied 0, "), "{log}");
    let source = record(&log, "physmem-element", "rawvideosrc");
    assert_eq!(
        (count(&source, "frames"), count(&source, "dropped")),
        (7, 0)
    );
    assert!(!source.has_field("copied"));
    let upload = record(&log, "physmem-element", "physmemupload");
    let counts = ["frames", "zero-copy", "copied"].map(|name| count(&upload, name));
    assert_eq!(counts, [7, 7, 0]);
    assert!(
        upload
            .get::<String>("path")
            .unwrap()
            .starts_with("zero-copy")
    );
    let pool = record(&log, "physmem-pool", "physbufferpool");
    assert_eq!(pool.get::<String>("kind").unwrap(), "normal");
    assert_eq!(pool.get::<String>("filled-by").unwrap(), "rawvideosrc0");
    assert!(count(&pool, "acquired") >= 7, "{pool}");
    // Only a summary that was asked for is printed.
    assert!(!log.contains("zero-copy  copied"), "{log}");
}

#[test]
fn copies_are_in_the_table_with_their_reason() {
    let pipeline = format!(
        "videotestsrc num-buffers=5 ! {FRAMES} ! tee ! physmemupload kind=normal ! fakesink"
    );
    let table = said(&mut launch("physmem(summary=true)", &pipeline));
    let line = table
        .lines()
        .find(|line| line.starts_with("physmemupload0 "));
    let cells: Vec<_> = line.unwrap().split_whitespace().collect();
    assert_eq!(cells[1..5], ["5", "0", "5", "0"], "{table}");
    assert!(
        line.unwrap()
            .contains("copying: upstream has memory of its own"),
        "{table}"
    );
    let pool = table
        .lines()
        .find(|line| line.starts_with("physbufferpool"));
    let cells: Vec<_> = pool.unwrap().split_whitespace().collect();
    assert_eq!((cells[1], cells[4]), ("normal", "5"), "{table}");
    assert_eq!(cells.last(), Some(&"physmemupload0"), "{table}");
}

#[test]
fn readings_over_time_are_logged_for_who_wants_them() {
    let pipeline = format!(
        "rawvideosrc num-buffers=50 is-live=true ! {FRAMES},framerate=100/1 ! physmemupload kind=normal ! fakesink"
    );
    let log = said(launch("physmem(interval=10)", &pipeline).env("GST_DEBUG", "GST_TRACER:7"));
    let samples = log.matches("physmem-pool-sample, ").count();
    assert!(samples >= 3, "{samples} samples\n{log}");
    let pool = record(&log, "physmem-pool", "physbufferpool");
    let most = pool.get::<u32>("in-use-most").unwrap();
    let mean = pool.get::<f64>("in-use-mean").unwrap();
    assert!(mean <= f64::from(most), "{pool}");
}

#[test]
fn a_wrong_parameter_is_said_and_the_pipeline_plays() {
    let pipeline = format!("rawvideosrc num-buffers=3 ! {FRAMES} ! fakesink");
    for (tracer, words) in [
        ("physmem(no-such=1)", "no-such"),
        (
            "physmem(socket=/no/such/directory/a.sock)",
            "/no/such/directory/a.sock: ",
        ),
    ] {
        // The warning is one of GLib, which would end the program otherwise.
        let log = said(launch(tracer, &pipeline).env_remove("G_DEBUG"));
        assert!(log.contains(words), "{tracer}: {log}");
    }
}

/// A pipeline that plays until it is interrupted.
struct Endless(Child);

impl Endless {
    fn start(tracer: &str) -> Self {
        let pipeline =
            format!("rawvideosrc ! {FRAMES} ! physmemupload kind=normal ! fakesink sync=true");
        let mut launch = launch(tracer, &pipeline);
        Self(launch.arg("-e").stderr(Stdio::piped()).spawn().unwrap())
    }

    #[track_caller]
    fn connect(&mut self, path: &Path) -> UnixStream {
        let deadline = Instant::now() + LIMIT;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(LIMIT)).unwrap();
                    return stream;
                }
                Err(error) if Instant::now() > deadline => panic!("{}: {error}", path.display()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Ends it as Control-C does, and returns its standard error.
    #[track_caller]
    fn end(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let mut said = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert!(self.0.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_client_of_the_socket_sees_pools_buffers_and_frames() {
    let directory = tempfile::tempdir().unwrap();
    let mut endless = Endless::start(&format!(
        "physmem(socket={},summary=true,interval=20)",
        directory.path().display()
    ));
    let path = directory.path().join(socket_name(endless.0.id()));
    let stream = endless.connect(&path);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Neither a client that reads nothing nor one that is gone holds anybody up.
    let _silent = endless.connect(&path);
    drop(endless.connect(&path));
    let mut lines = BufReader::new(stream).split(b'\n');
    let mut next = || Snapshot::from_line(&lines.next().unwrap().unwrap()).unwrap();
    let plays = |snapshot: &Snapshot| {
        let of = |factory| snapshot.elements.iter().find(|e| e.factory == factory);
        let (Some(source), Some(upload)) = (of("rawvideosrc"), of("physmemupload")) else {
            return false;
        };
        let [pool] = &snapshot.pools[..] else {
            return false;
        };
        // The two are read one after the other, so that they may differ by some frames.
        source.frames > 10
            && upload.frames > 10
            && upload.zero_copy == Some(upload.frames)
            && pool.filled_by.as_deref() == Some("rawvideosrc0")
            && pool.buffers.len() == pool.total as usize
            && pool.buffers.iter().any(|buffer| {
                buffer.state == "locked-by-producer"
                    && buffer.holder.as_deref() == Some("fakesink0")
            })
    };
    let deadline = Instant::now() + LIMIT;
    let mut last = next();
    assert_eq!(last.pid, endless.0.id());
    assert_eq!(last.program, "gst-launch-1.0");
    while !plays(&last) {
        assert!(Instant::now() < deadline, "{last:#?}");
        let this = next();
        assert!(this.time_ns > last.time_ns);
        last = this;
    }
    let table = endless.end();
    assert!(table.contains("physmemupload0"), "{table}");
    assert!(!path.exists());
}

#[test]
fn a_program_without_elements_of_this_plugin_gets_no_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let tracer = format!("physmem(socket={},summary=true)", path.display());
    let log = said(
        launch(&tracer, "videotestsrc num-buffers=3 ! fakesink").env("GST_DEBUG", "GST_TRACER:4"),
    );
    assert!(
        !log.contains("serving on") && !log.contains("element "),
        "{log}"
    );
}
