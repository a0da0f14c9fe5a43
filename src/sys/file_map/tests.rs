// SPDX-License-Identifier: MPL-2.0
//! A signal's effect on a process is seen only from outside, so these tests run again in a child process.

use super::*;
use std::{
    fs::File,
    io::Write,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering},
};

fn page() -> usize {
    super::super::mmap::page_size_bytes()
}

fn file(len_bytes: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![7; len_bytes]).unwrap();
    file
}

#[test]
fn bytes_that_the_file_has_are_read() {
    let map = FileMap::new(file(10_000), 10_000).unwrap();
    let mut bytes = [0; 100];
    map.copy_to(9_900, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 100]);
    assert!(map.copy_to(9_901, &mut bytes).is_none());
    assert!(map.copy_to(u64::MAX, &mut bytes).is_none());
    assert_eq!(map.missing_from(), None);
}

#[test]
fn a_truncated_file_reads_as_zero_and_is_told() {
    let (len, rest) = (16 * page(), 2 * page());
    let file = file(len);
    let map = FileMap::new(&file, len).unwrap();
    let other = FileMap::new(&file, page()).unwrap();
    file.set_len(rest as u64).unwrap();
    let mut bytes = vec![1; len];
    // The result is the lowest missing byte, not the one that was accessed first.
    map.copy_to((len / 2) as u64, &mut bytes[len / 2..])
        .unwrap();
    map.copy_to(0, &mut bytes).unwrap();
    assert!(bytes[..rest].iter().all(|byte| *byte == 7));
    assert!(bytes[rest..].iter().all(|byte| *byte == 0));
    assert_eq!(map.missing_from(), Some(rest as u64));
    assert_eq!(other.missing_from(), None);
}

#[test]
fn records_are_used_again_and_nothing_is_missing_then() {
    for _ in 0..100 {
        let file = file(8192);
        let map = FileMap::new(&file, 8192).unwrap();
        assert_eq!(map.missing_from(), None);
        file.set_len(0).unwrap();
        map.copy_to(0, &mut [0; 8192]).unwrap();
        assert_eq!(map.missing_from(), Some(0));
    }
    assert!(sigbus::watched_mappings().count() < 50);
}

#[test]
fn start_and_end_are_always_those_of_one_mapping() {
    let record = WatchedMapping::new();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 1;
            while !is_done.load(Ordering::Relaxed) {
                record.watch(n..n * 3);
                n += 1;
            }
        });
        let seen = std::iter::from_fn(|| Some(record.addresses())).flatten();
        let torn = seen
            .take(50_000)
            .find(|addresses| addresses.end != addresses.start * 3);
        is_done.store(true, Ordering::Relaxed);
        assert_eq!(torn, None);
    });
    record.watch(5..7);
    assert_eq!(record.addresses(), Some(5..7));
}

const CHILD: &str = "FILE_MAP_TEST_CHILD";

/// Runs `scene` in a child process. `name` is the name of the calling test.
fn end_of(name: &str, scene: fn()) -> ExitStatus {
    if std::env::var_os(CHILD).is_some() {
        // A signal that ends the child must leave no core file behind.
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0).unwrap();
        scene();
        std::process::exit(0);
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg(format!("sys::file_map::tests::{name}"))
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // A handler that is called again and again shows as a hang.
    for _ in 0..2000 {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("the child hangs");
}

/// Gives up after ten seconds.
fn wait_until(is_done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn set_handler(handler: usize, flags: libc::c_int) -> libc::sigaction {
    // SAFETY: plain data, for which zeroes are a valid value.
    let (mut action, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the structs are live, and the tests' handlers have the signatures that their flags ask for.
    let set = unsafe { libc::sigaction(libc::SIGBUS, &action, &mut old) };
    assert_eq!(set, 0);
    old
}

/// Sends SIGBUS as `kill -BUS` does: any thread may receive it, a moment later.
fn send() {
    nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGBUS).unwrap();
}

/// Reads a missing page of one of our mappings.
fn look_at_a_missing_page() {
    let len = 2 * page();
    let file = file(len);
    let map = FileMap::new(&file, len).unwrap();
    file.set_len(page() as u64).unwrap();
    let mut bytes = vec![1; len];
    map.copy_to(0, &mut bytes).unwrap();
    assert_eq!(map.missing_from(), Some(page() as u64));
    assert_eq!((bytes[0], bytes[len - 1]), (7, 0));
}

/// Reads a missing page of a mapping that our handler does not know.
fn look_at_a_missing_page_of_somebody_else() {
    let file = file(8192);
    let start = super::super::mmap::map_shared(&file, 8192, mman::ProtFlags::PROT_READ).unwrap();
    file.set_len(0).unwrap();
    // SAFETY: the address is mapped; the test wants its page to be missing.
    let byte = unsafe { start.cast::<u8>().as_ptr().read_volatile() };
    println!("{byte}");
}

static CALLS: AtomicU32 = AtomicU32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the handler was installed with SA_SIGINFO.
    CODE.store(unsafe { (*info).si_code }, Ordering::Relaxed);
}

#[test]
fn a_sigbus_that_somebody_sends_ends_the_process_as_it_would_without_us() {
    let status = end_of(
        "a_sigbus_that_somebody_sends_ends_the_process_as_it_would_without_us",
        || {
            // Replaces the handler of Rust's runtime, with which the first signal has no effect.
            set_handler(libc::SIG_DFL, 0);
            look_at_a_missing_page();
            send();
            wait_until(|| false);
        },
    );
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}

#[test]
fn a_sigbus_that_was_ignored_is_ignored_and_our_pages_are_not() {
    let status = end_of(
        "a_sigbus_that_was_ignored_is_ignored_and_our_pages_are_not",
        || {
            set_handler(libc::SIG_IGN, 0);
            look_at_a_missing_page();
            send();
            send();
            look_at_a_missing_page();
        },
    );
    assert!(status.success(), "{status}");
}

#[test]
fn a_fault_elsewhere_ends_the_process() {
    let status = end_of("a_fault_elsewhere_ends_the_process", || {
        set_handler(libc::SIG_IGN, 0);
        look_at_a_missing_page();
        look_at_a_missing_page_of_somebody_else();
    });
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}

#[test]
fn the_handler_that_was_there_gets_what_is_not_ours() {
    let status = end_of("the_handler_that_was_there_gets_what_is_not_ours", || {
        set_handler(note as *const () as usize, libc::SA_SIGINFO);
        look_at_a_missing_page();
        assert_eq!(CALLS.load(Ordering::Relaxed), 0);
        for calls in 1..=3 {
            send();
            wait_until(|| CALLS.load(Ordering::Relaxed) >= calls);
            assert_eq!(CALLS.load(Ordering::Relaxed), calls);
            assert_eq!(CODE.load(Ordering::Relaxed), libc::SI_USER);
            look_at_a_missing_page();
        }
    });
    assert!(status.success(), "{status}");
}

#[test]
fn a_handler_that_somebody_took_away_is_there_again_for_the_next_mapping() {
    let status = end_of(
        "a_handler_that_somebody_took_away_is_there_again_for_the_next_mapping",
        || {
            for _ in 0..100 {
                look_at_a_missing_page();
                set_handler(libc::SIG_DFL, 0);
            }
        },
    );
    assert!(status.success(), "{status}");
}

/// The action that `polite` replaced.
static BEFORE: std::sync::OnceLock<libc::sigaction> = std::sync::OnceLock::new();

/// Passes every signal on, as a well-behaved handler does.
extern "C" fn polite(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    let before = BEFORE.get().unwrap().sa_sigaction;
    // SAFETY: the test installs it over a handler with SA_SIGINFO.
    let before: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
        unsafe { std::mem::transmute(before) };
    before(signal, info, context);
}

#[test]
fn handlers_that_pass_on_to_each_other_come_to_an_end() {
    let status = end_of("handlers_that_pass_on_to_each_other_come_to_an_end", || {
        look_at_a_missing_page();
        let before = set_handler(polite as *const () as usize, libc::SA_SIGINFO);
        BEFORE.set(before).unwrap();
        // This puts our handler in front again, before `polite`.
        look_at_a_missing_page();
        assert_eq!(CALLS.load(Ordering::Relaxed), 0);
        look_at_a_missing_page_of_somebody_else();
    });
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}
