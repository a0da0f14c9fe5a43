// SPDX-License-Identifier: MPL-2.0
//! The kernel's log during a test. The kernel 6.12-debug reports there what its checkers find: bad accesses, a wrong
//! order of locks, misuse of the DMA API.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// What begins a report: of KASAN and other bugs, lockdep, DMA-API debug, debug objects, and WARN().
const REPORTS: [&str; 8] = [
    "BUG: ",
    "WARNING: ",
    "INFO: possible ",
    "INFO: task ",
    "KASAN: ",
    "DMA-API: ",
    "ODEBUG: ",
    "Oops: ",
];

/// What begins a report about vkms itself. It does not say how long the pieces of memory may be that it takes, which
/// matters to no device, because it has none. And the timer that stands for its vertical blanks may be late, on a busy
/// machine.
const OF_VKMS: [&str; 2] = [
    "DMA-API: platform vkms: mapping sg segment longer than device claims to support",
    "vkms_get_vblank_timestamp",
];
const END_OF_REPORT: &str = "---[ end trace";

/// Follows the kernel's log from now on. Fails the test on drop if there is a report.
pub struct KernelLog(File);

impl KernelLog {
    #[track_caller]
    pub fn watch() -> Self {
        let mut options = File::options();
        let nonblocking = options.read(true).custom_flags(libc::O_NONBLOCK);
        let mut log = nonblocking.open("/dev/kmsg").expect("the kernel's log");
        log.seek(SeekFrom::End(0)).expect("its end");
        Self(log)
    }

    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = vec![0; 8 << 10];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => return lines,
                Ok(n) => {
                    let record = String::from_utf8_lossy(&record[..n]);
                    // Numbers and flags come before a semicolon.
                    let text = record.split_once(';').map_or("", |(_, text)| text);
                    lines.extend(text.lines().map(str::to_owned));
                }
                // EPIPE: records were overwritten before they were read; those after them follow.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => return lines,
            }
        }
    }
}

fn without_report_of_vkms(lines: Vec<String>) -> Vec<String> {
    let mut is_inside = false;
    let is_other = |line: &String| {
        is_inside |= OF_VKMS.iter().any(|begin| line.contains(begin));
        let is_other = !is_inside;
        is_inside &= !line.contains(END_OF_REPORT);
        is_other
    };
    lines.into_iter().filter(is_other).collect()
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        let lines = without_report_of_vkms(self.lines());
        let is_report = |line: &String| REPORTS.iter().any(|report| line.contains(report));
        if let Some(at) = lines.iter().position(is_report) {
            let report = lines[at.saturating_sub(1)..].join("\n");
            match std::thread::panicking() {
                true => eprintln!("the kernel reports\n{report}"),
                false => panic!("the kernel reports\n{report}"),
            }
        }
    }
}
