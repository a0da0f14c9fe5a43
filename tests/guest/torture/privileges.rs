// SPDX-License-Identifier: MPL-2.0
//! What the plugin needs, and what it tells: system calls, words in the log. For any display, and for none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstphysmem::meta::PhysMemMeta;

use crate::screen::{self, Clip};
use crate::support::player::{self, Player};
use crate::support::{self, require_lab};

/// The system calls of the sandbox, by name. packaging/systemd/system-calls is the list for people.
const LISTED: &str = include_str!("../../../packaging/systemd/system-calls");
const UNIT: &str = include_str!("../../../packaging/systemd/physmem-kiosk.service");

/// The names of the list, whose comments say what they are for.
fn listed() -> BTreeSet<&'static str> {
    let lines = LISTED.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).collect()
}

/// Pipelines that make use of what the plugin can do on this display.
fn pipelines(clip: &Clip) -> Vec<String> {
    let sink = screen::sink();
    let clip = clip.source().replace("loop=true", "num-buffers=20");
    let mut all = vec![format!("rawvideosrc num-buffers=20 ! {sink}")];
    for settings in [
        "io-mode=read threads=2",
        "io-mode=mmap",
        "io-mode=io-uring prefetch=4",
        "direct=true",
    ] {
        all.push(format!("{clip} {settings} ! queue ! {sink}"));
    }
    if support::display() == "none" {
        for kind in ["cma", "system", "udmabuf", "normal", "hugepage", "auto"] {
            all.push(format!("{clip} memory-kind={kind} ! fakesink"));
            all.push(format!(
                "videotestsrc num-buffers=20 ! physmemupload memory-kind={kind} ! fakesink"
            ));
        }
        all.push(format!("{clip} follow=true ! fakesink num-buffers=20"));
    } else {
        all.push(format!(
            "videotestsrc num-buffers=20 ! tee ! queue ! {sink}"
        ));
    }
    all
}

/// gst-launch with a pipeline, without the tracer of this guest.
fn launch(pipeline: &str) -> Command {
    let mut command = support::gst_launch(pipeline);
    command.env_remove("GST_TRACERS");
    command
}

fn traced(pipeline: &str, options: &[&str], output: &Path) -> String {
    let ran = support::run(&mut screen::launch_under_strace(pipeline, options, output));
    // Some kinds of memory are not there on each kernel; the calls until then count all the same.
    if !ran.status.success() {
        println!("{pipeline}: {}", ran.stderr);
    }
    fs::read_to_string(output).expect("strace writes a file")
}

#[test]
fn every_system_call_is_listed() {
    require_lab();
    player::init();
    let directory = tempfile::tempdir().expect("a directory");
    let clip = Clip::new();
    let mut seen = BTreeSet::new();
    for pipeline in pipelines(&clip) {
        let trace = traced(&pipeline, &[], &directory.path().join("trace"));
        for line in trace.lines() {
            // "PID name(...", or "PID <... name resumed>..."
            let mut words = line.split_whitespace().skip(1);
            let name = match (words.next(), words.next()) {
                (Some("<..."), Some(name)) => Some(name),
                (Some(call), _) => call.split_once('(').map(|(name, _)| name),
                _ => None,
            };
            seen.extend(name.filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    let listed = listed();
    let missing: Vec<_> = seen
        .iter()
        .filter(|name| !listed.contains(name.as_str()))
        .collect();
    println!(
        "seen: {}",
        seen.iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    );
    assert!(
        missing.is_empty(),
        "packaging/systemd/system-calls lacks {missing:?}"
    );
}

/// systemd's sets of system calls, by name.
fn sets() -> BTreeMap<String, Vec<String>> {
    let ran = support::run(Command::new("systemd-analyze").args(["--no-pager", "syscall-filter"]))
        .expect_success();
    let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = None;
    for line in ran.stdout.lines() {
        // Colours, if any, and comments are no names.
        let line = line.replace("\x1b[0m", "").replace("\x1b[0;1;39m", "");
        if line.starts_with('@') {
            name = Some(line.trim().to_owned());
        } else if line.starts_with(' ')
            && !line.trim_start().starts_with('#')
            && let Some(name) = &name
        {
            sets.entry(name.clone())
                .or_default()
                .push(line.trim().to_owned());
        }
    }
    sets
}

fn expand(sets: &BTreeMap<String, Vec<String>>, name: &str, into: &mut BTreeSet<String>) {
    match sets.get(name) {
        Some(members) => members.iter().for_each(|member| expand(sets, member, into)),
        None => drop(into.insert(name.to_owned())),
    }
}

#[test]
fn the_unit_allows_every_listed_system_call() {
    require_lab();
    let filter = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("SystemCallFilter="));
    let sets = sets();
    let mut allowed = BTreeSet::new();
    for name in filter.expect("the unit has a filter").split_whitespace() {
        expand(&sets, name, &mut allowed);
    }
    assert!(allowed.len() > 100, "systemd-analyze has told {allowed:?}");
    // Every filter of systemd has these besides.
    expand(&sets, "@default", &mut allowed);
    let refused: Vec<_> = listed()
        .into_iter()
        .filter(|&name| !allowed.contains(name))
        .collect();
    assert!(
        refused.is_empty(),
        "the unit's SystemCallFilter refuses {refused:?}"
    );
}

/// The number of a system call, as the kernel's header has it.
fn numbers() -> BTreeMap<String, u32> {
    let header = fs::read_to_string("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
        .expect("linux-libc-dev");
    let lines = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define __NR_"));
    let pairs = lines.filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(name, number)| Some((name.to_owned(), number.trim().parse().ok()?)))
        .collect()
}

/// Whatever is not in the list fails with EPERM in this command, as systemd makes it.
fn with_listed_calls_only(mut command: Command) -> Command {
    let numbers = numbers();
    // Loads the number of the call; one comparison and one answer for each that is allowed.
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for name in listed() {
        let number = *numbers
            .get(name)
            .unwrap_or_else(|| panic!("no system call is called {name}"));
        program.push(libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: number,
        });
        program.push(statement(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ALLOW,
        ));
    }
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    program.push(statement(libc::BPF_RET | libc::BPF_K, refusal));
    // SAFETY: the closure makes two system calls, and the program that it points to lives in the closure.
    unsafe {
        command.pre_exec(move || {
            let filter = libc::sock_fprog {
                len: program.len() as u16,
                filter: program.as_mut_ptr(),
            };
            let done = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const filter,
                ) == 0;
            if done {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        })
    };
    command
}

#[test]
fn the_listed_system_calls_are_enough() {
    require_lab();
    player::init();
    let clip = Clip::new();
    for pipeline in pipelines(&clip) {
        let without = support::run(&mut launch(&pipeline));
        let with = support::run(&mut with_listed_calls_only(launch(&pipeline)));
        assert_eq!(
            with.status.success(),
            without.status.success(),
            "{pipeline}: {}",
            with.stderr
        );
    }
    // The filter is in force.
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "none", "/mnt"]);
    assert!(
        !support::run(&mut with_listed_calls_only(mount))
            .status
            .success()
    );
}

#[test]
fn addresses_are_in_the_log_at_debug_and_below_only() {
    require_lab();
    player::init();
    crate::gate::register();
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&said);
    gst::log::set_threshold_from_string(
        "physmem*:7,rawvideosrc*:7,fbpansink*:7,kmsflipsink*:7,GST_PERFORMANCE:7",
        false,
    );
    gst::log::remove_default_log_function();
    let function = gst::log::add_log_function(move |category, level, _, _, _, object, message| {
        let object = object.map(|object| object.to_string()).unwrap_or_default();
        let text = format!(
            "{} {object} {}",
            category.name(),
            message.get().unwrap_or_default()
        );
        log.lock().expect("no thread panicked").push((level, text));
    });
    let addresses = Arc::new(Mutex::new(BTreeSet::new()));
    let clip = Clip::new();
    let line = format!(
        "{} ! torturegate name=gate ! {}",
        clip.source().replace("loop=true", "num-buffers=20"),
        screen::sink()
    );
    let player = Player::new(&line);
    let gate = player.pipeline.by_name("gate").expect("a gate");
    let found = Arc::clone(&addresses);
    gate.static_pad("sink")
        .expect("a pad")
        .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let region = info
                .buffer()
                .and_then(|buffer| buffer.meta::<PhysMemMeta>()?.region().cloned());
            if let Some(region) = region
                && let Ok(address) = region.address()
            {
                found
                    .lock()
                    .expect("no thread panicked")
                    .insert(address.first().0);
            }
            gst::PadProbeReturn::Ok
        });
    player.start();
    player.wait_for_end();
    player.reach(gst::State::Null);
    gst::log::remove_log_function(function);
    gst::log::set_threshold_from_string("", true);
    let addresses = addresses.lock().expect("no thread panicked");
    if addresses.is_empty() {
        return support::skip("this memory has no address");
    }
    let said = said.lock().expect("no thread panicked");
    let names = |text: &str| {
        let is_named = |&address: &u64| {
            text.contains(&format!("{address:x}")) || text.contains(&format!("{address:X}"))
        };
        addresses.iter().any(is_named)
    };
    let told: Vec<_> = said.iter().filter(|(_, text)| names(text)).collect();
    let above: Vec<_> = told
        .iter()
        .filter(|(level, _)| *level < gst::DebugLevel::Debug)
        .collect();
    assert!(above.is_empty(), "{above:#?}");
    assert!(!told.is_empty(), "no line at all has one of {addresses:x?}");
}
