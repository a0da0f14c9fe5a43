// SPDX-License-Identifier: MPL-2.0
//! Notices hangs. What hangs cannot be ended from inside, so the process ends after a report of all its threads.

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// The exit status of a process that hung.
const HUNG: i32 = 70;

/// A time that a hang only reaches, also on a loaded machine without KVM and with the kernel's checkers. Shorter than the
/// limit of a player's waits, which end with fewer words.
fn limit() -> Duration {
    Duration::from_secs(crate::runner::number("PHYSMEM_TORTURE_HANG_SECONDS").unwrap_or(220))
}

/// When there was progress for the last time.
static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// Says that nothing hangs.
pub fn progress() {
    *LAST.lock().unwrap_or_else(|e| e.into_inner()) = Some(Instant::now());
}

/// While this lives, the process is watched.
pub struct Watch {
    _done: Sender<()>,
}

/// Ends the process if the returned value lives on and there is no `progress` for the time limit. `tell` is called before.
pub fn watch(what: &str, tell: impl FnOnce() + Send + 'static) -> Watch {
    let (done, waits) = mpsc::channel::<()>();
    let what = what.to_owned();
    progress();
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || {
            let is_stuck = || {
                let last = *LAST.lock().unwrap_or_else(|e| e.into_inner());
                last.is_some_and(|last| last.elapsed() > limit())
            };
            while waits.recv_timeout(Duration::from_secs(2)) == Err(RecvTimeoutError::Timeout) {
                if !is_stuck() {
                    continue;
                }
                let mut stderr = io::stderr();
                let _ = writeln!(stderr, "HANG in {what}\n{}", threads());
                tell();
                let _ = writeln!(stderr, "{}", backtraces());
                // SAFETY: ends the process at once; handlers of exit would wait for what hangs.
                unsafe { libc::_exit(HUNG) };
            }
        })
        .expect("a thread");
    Watch { _done: done }
}

/// Where each thread is in the program, if gdb is installed.
fn backtraces() -> String {
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-ex", "thread apply all backtrace 24", "-p"])
        .arg(std::process::id().to_string());
    gdb.env_remove("LD_PRELOAD").stdin(Stdio::null());
    match gdb.output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => format!("no backtraces: gdb: {error}"),
    }
}

/// The name and state of each thread, what it waits for, and the way there through the kernel.
fn threads() -> String {
    let mut text = String::new();
    for task in fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |file: &str| {
            let content = fs::read_to_string(task.path().join(file)).unwrap_or_default();
            content.trim_end().to_owned()
        };
        let status = read("status");
        let state = status.lines().find(|line| line.starts_with("State:"));
        text += &format!(
            "thread {} {}: {}, in {}, system call {}\n{}\n",
            task.file_name().display(),
            read("comm"),
            state.unwrap_or("no state"),
            read("wchan"),
            read("syscall"),
            read("stack"),
        );
    }
    text
}
