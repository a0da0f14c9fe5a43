// SPDX-License-Identifier: MPL-2.0
//! What a process has: files, mappings, contiguous memory, GStreamer's objects. And what the kernel complains about.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use crate::support;

/// Threads that end after a pipeline's stop get this long to give up what they have.
const SETTLE: Duration = Duration::from_secs(20);

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    pub fn now() -> Self {
        let mut counts = BTreeMap::new();
        counts.insert("file descriptors".to_owned(), support::open_fds() as i64);
        counts.insert("mappings of files and devices".to_owned(), mappings());
        counts.insert("pages in use of CMA areas".to_owned(), cma_pages() as i64);
        counts.insert("child processes".to_owned(), children());
        for (name, count) in support::leaks::alive() {
            counts.insert(format!("objects {name}"), count);
        }
        Self(counts)
    }

    /// The resources once they no longer change.
    pub fn settled() -> Self {
        let deadline = Instant::now() + SETTLE;
        let mut last = Self::now();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = Self::now();
            if now == last || Instant::now() > deadline {
                return now;
            }
            last = now;
        }
    }

    /// The resources once they are no more than those before, or when that has not come true for long.
    pub fn at_most(before: &Self) -> Self {
        let deadline = Instant::now() + SETTLE;
        loop {
            let now = Self::now();
            if now.beyond(before).is_empty() || Instant::now() > deadline {
                return now;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What there is more of than before, in words.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let more = self.0.iter().filter_map(|(name, &count)| {
            let was = before.0.get(name).copied().unwrap_or(0);
            (count > was).then(|| format!("{name}: {was}, then {count}"))
        });
        more.collect()
    }
}

/// Mappings with a name that is a device, a memfd or a dma-buf. The kernel writes the others as they come.
fn mappings() -> i64 {
    const NAMES: [&str; 5] = [
        "/dev/",
        "/memfd:",
        "/dmabuf:",
        "anon_inode:",
        "/anon_hugepage",
    ];
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let is_ours = |line: &&str| NAMES.iter().any(|name| line.contains(name));
    maps.lines().filter(is_ours).count() as i64
}

pub fn cma_pages() -> u64 {
    let areas = fs::read_dir("/sys/kernel/debug/cma")
        .into_iter()
        .flatten()
        .flatten();
    let used = areas.filter_map(|area| fs::read_to_string(area.path().join("used")).ok());
    used.filter_map(|used| used.trim().parse::<u64>().ok())
        .sum()
}

fn children() -> i64 {
    let tasks = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .map(|list| list.split_whitespace().count() as i64)
        .sum()
}

/// The kernel's messages from when this was opened on.
pub struct KernelLog(File);

impl KernelLog {
    pub fn open() -> Self {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let mut log = options
            .open("/dev/kmsg")
            .expect("root reads the kernel's log");
        log.seek(SeekFrom::End(0))
            .expect("the end of the kernel's log");
        Self(log)
    }

    /// The messages that report an error of the kernel, which it makes by itself or which a program has led it into.
    pub fn reports(&mut self) -> Vec<String> {
        // What lockdep finds begins with WARNING, BUG or INFO; its own name is in the stacks of other messages, too.
        const SIGNS: [&str; 9] = [
            "KASAN",
            "BUG:",
            "WARNING:",
            "DMA-API",
            "INFO: possible",
            "INFO: task",
            "Oops",
            "general protection",
            "ODEBUG",
        ];
        // What only a mend of the kernel can help: the driver cirrusfb frees a framebuffer that is open when it is unbound,
        // and the timer that stands for vkms's vertical blanks may be late, on a busy machine.
        const KNOWN: [&str; 2] = ["framebuffer_release", "vkms_get_vblank_timestamp"];
        let mut reports = Vec::new();
        let mut record = [0; 8192];
        // Each read gives one record. EPIPE: the ring has overtaken the reader; the next read goes on.
        loop {
            match self.0.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    let is_known = KNOWN.iter().any(|known| text.contains(known));
                    if SIGNS.iter().any(|sign| text.contains(sign)) && !is_known {
                        reports.push(text.trim_end().to_owned());
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => break,
            }
        }
        reports
    }
}
