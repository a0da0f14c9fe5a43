// SPDX-License-Identifier: MPL-2.0
//! What the tracer says over its socket: one [`Snapshot`] a line, as JSON. Pure.
//!
//! A line is whole in itself: a reader may begin at any one, and may miss some. Counters grow from the
//! start of an element or pool, so that rates are differences of two lines. Fields may be added without a
//! new [`VERSION`], and readers ignore those that they do not know.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The version of the lines. It changes when a field is removed or means something else.
pub const VERSION: u32 = 1;

/// All that the tracer knows at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The process.
    pub pid: u32,
    /// Name of its program.
    pub program: String,
    /// When the numbers were read, in nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The elements of this plugin, in the order in which they were started.
    pub elements: Vec<Element>,
    /// The pools, in the order in which they were made.
    pub pools: Vec<Pool>,
}

/// The numbers of an element since its last start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Element {
    /// The element's name.
    pub name: String,
    /// The name of its factory, such as `kmsflipsink`.
    pub factory: String,
    /// False once the element was stopped: the numbers are then its last.
    pub is_running: bool,
    /// Frames (physmemupload: buffers) sent or shown.
    pub frames: u64,
    /// How many of these went without a copy; `None` if the element never copies.
    pub zero_copy: Option<u64>,
    /// How many of these were copied; `None` if the element never copies.
    pub copied: Option<u64>,
    /// Frames that were not sent or shown.
    pub dropped: u64,
    /// Mean time in microseconds from hand-over to screen, if the element measures it.
    pub flip_latency_mean_us: Option<u64>,
    /// The longest of these times.
    pub flip_latency_max_us: Option<u64>,
    /// The path of the frames in a sentence, which gives the reason for copies.
    pub path: String,
}

/// A pool and its buffers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pool {
    /// The pool's name.
    pub name: String,
    /// The kind of memory: the kind that was asked for, or that of the buffers if this is `auto`.
    pub kind: String,
    /// False before the pool is activated and once it is deactivated: the numbers are then its last.
    pub is_active: bool,
    /// Buffers that exist.
    pub total: u32,
    /// Buffers that can be acquired now.
    pub free: u32,
    /// Buffers in the filled queue.
    pub filled: u32,
    /// Bytes of all buffers together.
    pub bytes: u64,
    /// How often a buffer went out.
    pub acquired: u64,
    /// How often a buffer came back.
    pub released: u64,
    /// Acquires that had to wait.
    pub waits: u64,
    /// The element that fills the buffers, once one was sent.
    pub filled_by: Option<String>,
    /// How many buffers were not free, over time.
    pub in_use: InUse,
    /// The buffers.
    pub buffers: Vec<Buffer>,
}

/// How many buffers of a pool were not free in the samples so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InUse {
    /// Samples taken while the pool was active.
    pub samples: u64,
    /// The sum over these samples.
    pub sum: u64,
    /// The most in any sample.
    pub most: u32,
}

impl InUse {
    /// Adds a sample.
    pub fn add(&mut self, in_use: u32) {
        self.samples += 1;
        self.sum += u64::from(in_use);
        self.most = self.most.max(in_use);
    }

    /// The mean of the samples; 0 if there are none.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.samples.max(1) as f64
    }
}

/// One buffer of a pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Buffer {
    /// The id, as in GstPhysMemMeta.
    pub id: u32,
    /// The nick of its GstPhysBufferState.
    pub state: String,
    /// References to it while it is out.
    pub refs: u32,
    /// The element that the buffer went into last, since it was acquired.
    pub holder: Option<String>,
    /// Physical address of the first byte, in hexadecimal.
    pub address: Option<String>,
    /// Physically contiguous pieces; 0 if the address is unknown.
    pub extents: u32,
    /// Why the address is unknown.
    pub address_unknown: Option<String>,
}

impl Snapshot {
    /// The snapshot as one line with its newline.
    pub fn to_line(&self) -> Vec<u8> {
        // A structure of numbers and texts can always be written.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Reads a line.
    ///
    /// # Errors
    /// The line is no snapshot, or one of another version; the text says which.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if head.version != VERSION {
            return Err(format!(
                "version {} of the tracer's lines is not {VERSION}: use the program of the plugin's version",
                head.version
            ));
        }
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }
}

/// The directory for sockets whose path is not given: that of the user's runtime files if there is one.
/// `runtime` is the value of XDG_RUNTIME_DIR.
pub fn default_directory(
    runtime: Option<&Path>,
    uid: u32,
    is_dir: impl Fn(&Path) -> bool,
) -> PathBuf {
    let of_user = PathBuf::from(format!("/run/user/{uid}"));
    match runtime {
        Some(runtime) if runtime.is_absolute() => runtime.to_owned(),
        _ if is_dir(&of_user) => of_user,
        _ => "/tmp".into(),
    }
}

/// The name of a process's socket.
pub fn socket_name(pid: u32) -> String {
    format!("physmem-{pid}.sock")
}

/// The process of a socket with a name of [`socket_name`].
pub fn pid_of(name: &str) -> Option<u32> {
    name.strip_prefix("physmem-")?
        .strip_suffix(".sock")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            version: VERSION,
            pid: 7,
            program: "gst-launch-1.0".into(),
            time_ns: 1_000_000_000,
            elements: vec![Element {
                name: "sink\n\u{1b}[2J".into(),
                factory: "fbpansink".into(),
                copied: Some(3),
                ..Default::default()
            }],
            pools: vec![Pool {
                buffers: vec![Buffer::default()],
                ..Default::default()
            }],
        }
    }

    #[test]
    fn a_snapshot_is_one_line_and_is_read_back() {
        let line = snapshot().to_line();
        let newlines = line.iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!((newlines, line.last()), (1, Some(&b'\n')));
        assert_eq!(Snapshot::from_line(&line).unwrap(), snapshot());
    }

    #[test]
    fn another_version_is_refused_and_unknown_fields_are_not() {
        let text = String::from_utf8(snapshot().to_line()).unwrap();
        let newer = text.replace("\"version\":1", "\"version\":2");
        let refused = Snapshot::from_line(newer.as_bytes()).unwrap_err();
        assert!(refused.starts_with("version 2 "), "{refused}");
        // Even if nothing else of it is understood.
        assert!(
            Snapshot::from_line(b"{\"version\":9}")
                .unwrap_err()
                .starts_with("version 9 ")
        );
        let richer = text.replace("\"pid\":7", "\"pid\":7,\"colour\":[1,{}]");
        assert_eq!(Snapshot::from_line(richer.as_bytes()).unwrap(), snapshot());
        for wrong in ["", "\n", "[]", "{\"version\":1}", "{\"version\":-1}"] {
            assert!(Snapshot::from_line(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sockets_are_where_the_user_keeps_such_files() {
        let directory = |runtime: Option<&str>, is_dir| {
            default_directory(runtime.map(Path::new), 12, |_| is_dir)
        };
        assert_eq!(directory(Some("/run/x"), true), Path::new("/run/x"));
        assert_eq!(
            directory(Some("not/absolute"), true),
            Path::new("/run/user/12")
        );
        assert_eq!(directory(None, true), Path::new("/run/user/12"));
        assert_eq!(directory(None, false), Path::new("/tmp"));
    }

    #[test]
    fn the_name_of_a_socket_has_its_process() {
        assert_eq!(pid_of(&socket_name(4711)), Some(4711));
        for other in ["physmem-.sock", "physmem-1", "1.sock", "physmem-x.sock"] {
            assert_eq!(pid_of(other), None);
        }
    }
}
