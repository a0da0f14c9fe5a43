// SPDX-License-Identifier: MPL-2.0
//! The oracle: the lab's program outside of the guest, which reads the guest's memory and screen.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use super::picture::Picture;
use super::share;

/// A connection to the oracle. It uses QEMU to read this machine's memory and screen.
pub struct Oracle {
    port: Mutex<File>,
}

/// The only connection of this process, because the port allows one opener at a time.
pub fn oracle() -> &'static Oracle {
    static ORACLE: OnceLock<Oracle> = OnceLock::new();
    ORACLE.get_or_init(|| {
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/virtio-ports/oracle")
            .expect("the oracle's port opens (it takes one opener at a time)");
        Oracle {
            port: Mutex::new(port),
        }
    })
}

/// Up to this many bytes are sent over the port; more are passed in a file.
const MAX_HEX_BYTES: usize = 16 << 10;

impl Oracle {
    /// Sends one request and reads one line of answer. An answer "error ..." becomes Err.
    pub fn ask(&self, request: &str) -> Result<String, String> {
        let mut port = self.port.lock().unwrap_or_else(|e| e.into_inner());
        port.write_all(format!("{request}\n").as_bytes())
            .map_err(|e| format!("writing to the oracle: {e}"))?;
        let mut answer = Vec::new();
        let mut chunk = vec![0; 1 << 16];
        while answer.last() != Some(&b'\n') {
            match port.read(&mut chunk) {
                Ok(0) => return Err("the oracle is gone".into()),
                Ok(n) => answer.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("reading from the oracle: {e}")),
            }
        }
        let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
        match answer.strip_prefix("error ") {
            Some(error) => Err(format!("oracle, {request}: {error}")),
            None => Ok(answer),
        }
    }

    #[track_caller]
    fn must(&self, request: &str) -> String {
        self.ask(request).unwrap_or_else(|e| panic!("{e}"))
    }

    /// `len` bytes of physical memory at `address`.
    #[track_caller]
    pub fn phys(&self, address: u64, len: usize) -> Vec<u8> {
        if len <= MAX_HEX_BYTES {
            return unhex(&self.must(&format!("phys {address:#x} {len}")));
        }
        let (name, path) = scratch_file("phys");
        self.must(&format!("physfile {address:#x} {len} {name}"));
        take_file(&path)
    }

    /// A picture of the screen.
    #[track_caller]
    pub fn shot(&self) -> Picture {
        let (name, path) = scratch_file("shot");
        self.must(&format!("shot {name}"));
        Picture::from_ppm(&take_file(&path)).expect("QEMU writes a PPM")
    }

    /// One pixel of the screen: red, green, blue.
    #[track_caller]
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let answer = self.must(&format!("pixel {x} {y}"));
        unhex(answer.split(' ').next().unwrap_or_default())
            .try_into()
            .expect("three bytes")
    }

    /// Gives the screen of a virtio-gpu another EDID, which prefers a mode of this size. Needs the option --vnc of
    /// tests/lab/run.
    #[track_caller]
    pub fn resize_desktop(&self, width: usize, height: usize) {
        self.must(&format!("desktop {width} {height}"));
    }

    /// Runs a command of QEMU's human monitor. The answer is a JSON string.
    #[track_caller]
    pub fn hmp(&self, command: &str) -> String {
        self.must(&format!("hmp {command}"))
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("the oracle answers in hex"))
        .collect()
}

/// A file for the oracle to write to, with a name that no other thread or process uses.
fn scratch_file(kind: &str) -> (String, PathBuf) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{kind}-{}-{n}", std::process::id());
    let path = share().join(&name);
    (name, path)
}

#[track_caller]
fn take_file(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    fs::remove_file(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes
}
