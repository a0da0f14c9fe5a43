// SPDX-License-Identifier: MPL-2.0
//! Memory that is used up, heaps that change, allocations of the kernel that fail, and limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstphysmem::memory::{MemoryKind, Region, Request};

use crate::runner::Round;
use crate::screen::{self, Clip, assert_goes_on, frames_or_error};
use crate::support;
use crate::support::fault_injection::{self, FAIL_NTH, arm, disarm};
use crate::support::player::Player;
use crate::watchdog;

/// A source whose frames are in CMA memory of its own, and a sink that shows any memory.
fn cma_player() -> Player {
    Player::new(
        "videotestsrc name=source is-live=false ! capsfilter name=filter caps=video/x-raw,format=BGRx,width=320,height=240,framerate=60/1 \
         ! torturegate name=gate ! physmemupload name=sink memory-kind=cma ! fakesink sync=true",
    )
}

/// Takes all that the CMA heap gives, in large pieces and then in small ones.
fn take_all_cma() -> Vec<Arc<Region>> {
    let mut taken = Vec::new();
    for size_bytes in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
        let request = Request {
            kind: MemoryKind::Cma,
            size_bytes,
            ..Default::default()
        };
        // A bound, because a page that is freed meanwhile could be taken for ever.
        for _ in 0..2000 {
            match Region::allocate(&request) {
                Ok(region) => taken.push(region),
                Err(_) => break,
            }
        }
    }
    taken
}

fn resize(player: &Player, width: i32) {
    let filter = player.pipeline.by_name("filter").expect("a capsfilter");
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "BGRx")
        .field("width", width)
        .field("height", 240)
        .field("framerate", gst::Fraction::new(60, 1))
        .build();
    filter.set_property("caps", caps);
}

fault!(cma_is_used_up_before_a_start, 3, |round| {
    if support::stock_kernel_lacks(support::CMA_HEAPS) {
        return round.skip("Debian builds this kernel without it");
    }
    let taken = take_all_cma();
    let player = cma_player();
    let _ = player.pipeline.set_state(gst::State::Playing);
    let error = frames_or_error(&player).expect("there is no memory");
    assert!(
        error.contains("ENOMEM") && error.contains("cma="),
        "{error}"
    );
    player.reach(gst::State::Null);
    drop(taken);
    player.reach(gst::State::Playing);
    assert_goes_on(&player);
    round.stop(&player);
});

fault!(cma_is_used_up_between_two_negotiations, 3, |round| {
    if support::stock_kernel_lacks(support::CMA_HEAPS) {
        return round.skip("Debian builds this kernel without it");
    }
    let player = cma_player();
    player.reach(gst::State::Playing);
    assert_goes_on(&player);
    let taken = take_all_cma();
    // What it has is enough for what it does.
    assert_goes_on(&player);
    resize(&player, 640);
    let error = frames_or_error(&player);
    assert!(error.is_none_or(|error| error.contains("ENOMEM")));
    player.reach(gst::State::Null);
    drop(taken);
    player.reach(gst::State::Playing);
    assert_goes_on(&player);
    round.stop(&player);
});

fault!(
    cma_is_used_up_and_freed_while_streams_negotiate,
    3,
    |round| {
        if support::stock_kernel_lacks(support::CMA_HEAPS) {
            return round.skip("Debian builds this kernel without it");
        }
        let player = cma_player();
        std::thread::scope(|scope| {
            let mut random = round.random.clone();
            let taker = scope.spawn(move || {
                for _ in 0..4 {
                    let taken = take_all_cma();
                    // A kernel with checkers takes a minute for this on a busy machine.
                    watchdog::progress();
                    random.nap(20_000);
                    drop(taken);
                    random.nap(20_000);
                }
            });
            let mut random = round.random.clone();
            while !taker.is_finished() {
                let _ = player.pipeline.set_state(gst::State::Playing);
                for _ in 0..3 {
                    random.nap(30_000);
                    resize(&player, 320 + 16 * random.below(20) as i32);
                }
                frames_or_error(&player);
                player.reach(gst::State::Null);
            }
        });
        player.reach(gst::State::Playing);
        assert_goes_on(&player);
        player.reach(gst::State::Null);
    }
);

/// A device node that is another file until this is dropped.
struct Replaced {
    node: PathBuf,
    kept: PathBuf,
}

impl Replaced {
    fn with(node: &Path, make: impl FnOnce(&Path)) -> Self {
        let kept = node.with_extension("kept");
        fs::rename(node, &kept).expect("root renames a device node");
        make(node);
        Self {
            node: node.to_owned(),
            kept,
        }
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.node).or_else(|_| fs::remove_dir(&self.node));
        fs::rename(&self.kept, &self.node).expect("root renames a device node");
    }
}

fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
}

type Make = fn(&Path);

/// What may be in the place of a device node.
const IMPOSTORS: [(&str, Make); 7] = [
    ("nothing", |_| ()),
    ("a directory", |path| {
        fs::create_dir(path).expect("a directory")
    }),
    ("an empty file", |path| fs::write(path, "").expect("a file")),
    ("a FIFO", fifo),
    ("a link to nothing", |path| {
        std::os::unix::fs::symlink("/nonesuch", path).expect("a link")
    }),
    ("/dev/null", |path| {
        std::os::unix::fs::symlink("/dev/null", path).expect("a link")
    }),
    ("a terminal", |path| {
        std::os::unix::fs::symlink("/dev/tty1", path).expect("a link")
    }),
];

fault!(heap_nodes_that_are_missing_or_something_else, 3, |_| {
    let nodes: Vec<_> = ["/dev/udmabuf", "/dev/dma_heap/system"]
        .into_iter()
        .chain(support::CMA_HEAPS.iter().copied())
        .map(Path::new)
        .filter(|node| node.exists())
        .collect();
    for node in nodes {
        let kind = match node.file_name().and_then(|name| name.to_str()) {
            Some("udmabuf") => MemoryKind::Udmabuf,
            Some("system") => MemoryKind::System,
            _ => MemoryKind::Cma,
        };
        for (what, make) in IMPOSTORS {
            let _replaced = Replaced::with(node, make);
            let request = |kind| Request {
                kind,
                size_bytes: 64 << 10,
                ..Default::default()
            };
            let refused = Region::allocate(&request(kind));
            let error = refused.expect_err("no heap").to_string();
            assert!(
                error.contains('('),
                "{what} for {}: no errno in {error}",
                node.display()
            );
            // `auto` takes another kind.
            Region::allocate(&request(MemoryKind::Auto)).expect("another kind");
        }
    }
});

fault!(
    display_nodes_that_are_missing_or_something_else,
    3,
    |round| {
        let node = Path::new(match support::display().as_str() {
            "none" => return round.skip("there is no display"),
            "vkms" => "/dev/dri/card0",
            _ => "/dev/fb0",
        });
        for (what, make) in IMPOSTORS {
            let replaced = Replaced::with(node, make);
            let player = Player::new(&format!("rawvideosrc ! {}", screen::sink()));
            let started = player.pipeline.set_state(gst::State::Playing);
            assert!(started.is_err(), "{what} for {}", node.display());
            let error = player.wait_for_error();
            assert!(error.contains("/dev/"), "{what}: {error}");
            player.reach(gst::State::Null);
            drop(replaced);
            player.reach(gst::State::Playing);
            assert_goes_on(&player);
            player.reach(gst::State::Null);
        }
    }
);

fault!(nodes_whose_permission_is_withdrawn, 3, |round| {
    // Root may open everything, so a process without its rights plays.
    let pipeline = "rawvideosrc num-buffers=5 ! physmemupload memory-kind=udmabuf ! fakesink";
    let node = "/dev/udmabuf";
    if support::stock_kernel_lacks(&[node]) {
        return round.skip("Debian builds this kernel without it");
    }
    for mode in [0o666, 0o000, 0o444, 0o222, 0o666] {
        fs::set_permissions(node, fs::Permissions::from_mode(mode)).expect("root may");
        let ran = support::run(&mut support::as_nobody(&support::gst_launch(pipeline)));
        match mode {
            0o666 => drop(ran.expect_success()),
            _ => {
                assert_eq!(ran.status.code(), Some(1), "{mode:o}: {ran:?}");
                let names = ["EACCES", "EPERM"];
                assert!(
                    names.iter().any(|name| ran.stderr.contains(name)),
                    "{mode:o}: {}",
                    ran.stderr
                );
            }
        }
    }
    fs::set_permissions(node, fs::Permissions::from_mode(0o600)).expect("root may");
});

/// While this lives, warnings of GLib and GStreamer do not end the process: their own system calls fail, too, and they
/// say so.
struct Lenient(gst::glib::LogLevels);

impl Lenient {
    fn begin() -> Self {
        Self(gst::glib::log_set_always_fatal(
            gst::glib::LogLevels::LEVEL_ERROR,
        ))
    }
}

impl Drop for Lenient {
    fn drop(&mut self) {
        gst::glib::log_set_always_fatal(self.0);
    }
}

/// The chances that a round lets fail: a window that moves with each round, because there are hundreds of chances.
fn window(round: &Round) -> std::ops::RangeInclusive<u64> {
    let first = round.number * 12;
    (first + 1)..=(first + 12)
}

/// Without these, an injected failure can kill the thread: the kernel ends a thread whose restartable sequence it cannot
/// read.
fn can_inject(round: &mut Round) -> bool {
    let tunables = std::env::var("GLIBC_TUNABLES").unwrap_or_default();
    if !tunables.contains("glibc.pthread.rseq=0") {
        round.skip("start it with GLIBC_TUNABLES=glibc.pthread.rseq=0");
        return false;
    }
    if !Path::new(FAIL_NTH).exists() {
        round.skip("this kernel injects no failures");
        return false;
    }
    if fault_injection::fails_copies() {
        round.skip(
            "this kernel would let getrandom() fail, too, at which Rust's standard library panics",
        );
        return false;
    }
    fault_injection::enable();
    true
}

/// The messages of a pipeline, kept away from its bus: a failure that hits the call by which GStreamer's bus wakes its
/// reader makes every later read of that bus last for ever.
#[derive(Clone, Default)]
struct Messages(Arc<Mutex<Vec<gst::Message>>>);

impl Messages {
    /// Collects from now on. `see` is called in the thread that posts.
    fn of(player: &Player, see: impl Fn(&gst::Message) + Send + Sync + 'static) -> Self {
        let messages = Self::default();
        let bus = player.pipeline.bus().expect("a bus");
        bus.set_sync_handler({
            let messages = messages.clone();
            move |_, message| {
                see(message);
                messages
                    .0
                    .lock()
                    .expect("no thread panicked")
                    .push(message.clone());
                gst::BusSyncReply::Drop
            }
        });
        messages
    }

    /// Whether the stream has ended; the error is checked to say something.
    fn is_ended(&self) -> bool {
        let messages = self.0.lock().expect("no thread panicked");
        messages.iter().any(|message| match message.view() {
            gst::MessageView::Error(error) => {
                let text = error.error().to_string();
                assert!(text.len() > 10, "{text}: {:?}", error.debug());
                true
            }
            gst::MessageView::Eos(_) => true,
            _ => false,
        })
    }
}

/// Makes the pipeline's bus a usual one again.
fn release_bus(player: &Player) {
    player.pipeline.bus().expect("a bus").unset_sync_handler();
}

fault!(every_nth_chance_of_the_starting_thread_fails, 3, |round| {
    if !can_inject(round) {
        return;
    }
    let _lenient = Lenient::begin();
    let clip = Clip::new();
    for nth in window(round) {
        let player = clip.player("");
        let messages = Messages::of(&player, |_| ());
        for state in [gst::State::Ready, gst::State::Paused, gst::State::Null] {
            arm(nth);
            let mut changed = player.pipeline.set_state(state).is_ok();
            disarm();
            changed = changed
                && player
                    .pipeline
                    .state(support::player::CLOCK_LIMIT)
                    .0
                    .is_ok();
            if !changed {
                assert!(messages.is_ended(), "chance {nth}, to {state:?}: no word");
                break;
            }
        }
        player.reach(gst::State::Null);
        release_bus(&player);
        if nth.is_multiple_of(6) {
            player.reach(gst::State::Playing);
            assert_goes_on(&player);
            player.reach(gst::State::Null);
        }
    }
});

fault!(every_nth_chance_of_the_streaming_thread_fails, 3, |round| {
    if !can_inject(round) {
        return;
    }
    let _lenient = Lenient::begin();
    let clip = Clip::new();
    for nth in window(round) {
        let player = Player::new(&format!(
            "{} ! torturegate name=gate ! {}",
            clip.source().replace("loop=true", "start-frame=50"),
            screen::sink()
        ));
        // The streaming thread itself sends this message when it starts.
        let messages = Messages::of(&player, move |message| {
            if let gst::MessageView::StreamStatus(status) = message.view()
                && status.get().0 == gst::StreamStatusType::Enter
            {
                arm(nth);
            }
        });
        if player.pipeline.set_state(gst::State::Playing).is_ok() {
            player.wait_until("end", |_| messages.is_ended());
        }
        round.stop(&player);
        release_bus(&player);
    }
});

/// A limit of this process, lowered until this is dropped.
struct Lowered(nix::sys::resource::Resource, u64);

impl Lowered {
    fn to(resource: nix::sys::resource::Resource, value: u64) -> Self {
        let (soft, hard) = nix::sys::resource::getrlimit(resource).expect("a limit");
        nix::sys::resource::setrlimit(resource, value.min(hard), hard).expect("it can be lowered");
        Self(resource, soft)
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        let (_, hard) = nix::sys::resource::getrlimit(self.0).expect("a limit");
        nix::sys::resource::setrlimit(self.0, self.1, hard).expect("it can be raised again");
    }
}

fault!(file_descriptors_run_out, 3, |_| {
    let clip = Clip::new();
    // GLib ends the program if it gets no descriptors for a bus, so all of GStreamer's own are there before.
    let player = clip.player("");
    player.reach(gst::State::Ready);
    player.reach(gst::State::Null);
    let open = support::open_fds() as u64;
    for more in 0..14 {
        // The highest descriptor counts, not their number.
        let limit = Lowered::to(nix::sys::resource::Resource::RLIMIT_NOFILE, open + 1 + more);
        let started = player.pipeline.set_state(gst::State::Playing);
        if started.is_err() {
            let errors = player.errors();
            assert!(
                errors.iter().any(|error| error.contains("EMFILE")),
                "{more} more: {errors:?}"
            );
        } else if let Some(error) = frames_or_error(&player) {
            assert!(error.contains("EMFILE"), "{more} more: {error}");
        }
        player.reach(gst::State::Null);
        drop(limit);
        player.errors();
    }
    player.reach(gst::State::Playing);
    assert_goes_on(&player);
    player.reach(gst::State::Null);
});

fault!(locked_memory_is_not_allowed, 3, |_| {
    let clip = Clip::new();
    // Root may lock all the same, so the kind whose pin counts is played by a process without its rights.
    let launch = support::gst_launch(&format!(
        "{} num-buffers=20 memory-kind=normal ! fakesink",
        clip.source()
    ));
    fs::set_permissions(clip.path(), fs::Permissions::from_mode(0o644)).expect("root may");
    for bytes in ["0", "4096", "65536"] {
        let nobody = support::as_nobody(&launch);
        let mut limited = std::process::Command::new("prlimit");
        limited
            .arg(format!("--memlock={bytes}"))
            .arg(nobody.get_program())
            .args(nobody.get_args());
        support::run(&mut limited).expect_success();
    }
});

fault!(address_space_runs_out, 3, |_| {
    // Large frames, because GLib ends the program if it gets no memory for small things.
    let player = Player::new(
        "rawvideosrc name=source width=4096 height=2160 format=bgrx memory-kind=normal ! fakesink name=sink sync=true",
    );
    let in_use = {
        let statm = fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
        let pages: u64 = statm
            .split(' ')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a number");
        pages * support::page_size() as u64
    };
    for frames in [0, 1, 2, 3] {
        let limit = in_use + (192 << 20) + frames * 4096 * 2160 * 4;
        let limited = Lowered::to(nix::sys::resource::Resource::RLIMIT_AS, limit);
        let _ = player.pipeline.set_state(gst::State::Playing);
        let wanted = [gst::MessageType::Error, gst::MessageType::AsyncDone];
        let bus = player.pipeline.bus().expect("a bus");
        let said = bus.timed_pop_filtered(support::player::CLOCK_LIMIT, &wanted);
        let said = said.expect("neither frames nor an error");
        if let gst::MessageView::Error(error) = said.view() {
            let error = format!("{} {:?}", error.error(), error.debug());
            assert!(error.contains("ENOMEM"), "{error}");
        }
        player.reach(gst::State::Null);
        drop(limited);
        bus.set_flushing(true);
        bus.set_flushing(false);
    }
});

fault!(a_control_group_with_little_memory, 3, |round| {
    let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    if !controllers.lines().any(|line| line.starts_with("memory\t")) {
        return round.skip("this kernel has no memory controller: 6.12-debug has");
    }
    let root = Path::new("/sys/fs/cgroup");
    if !root.join("cgroup.controllers").exists() {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "cgroup2", "none"]).arg(root);
        support::run(&mut mount).expect_success();
    }
    fs::write(root.join("cgroup.subtree_control"), "+memory")
        .expect("the memory controller is there");
    let group = root.join(format!("torture{}", round.number));
    fs::create_dir(&group).expect("a control group");
    fs::write(group.join("memory.max"), "96M").expect("a limit");
    for (kind, frames) in [
        ("normal", "num-buffers=30"),
        ("udmabuf", "num-buffers=30"),
        ("system", "num-buffers=30"),
    ] {
        // Ten frames fit, the thirty for which the queue has room do not. The pool must stop before the kernel kills.
        let line = format!(
            "rawvideosrc width=1920 height=1080 format=bgrx framerate=60/1 memory-kind={kind} {frames} \
             ! queue max-size-buffers=40 max-size-bytes=0 max-size-time=0 ! fakesink sync=true"
        );
        let launch = support::gst_launch(&line);
        let script = format!("echo $$ >{}/cgroup.procs; exec \"$@\"", group.display());
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &script, "sh"])
            .arg(launch.get_program())
            .args(launch.get_args());
        let ran = support::run(&mut shell);
        assert!(ran.status.code().is_some(), "{kind}: killed, {ran:?}");
        if !ran.status.success() {
            assert!(ran.stderr.contains("memory.max"), "{kind}: {}", ran.stderr);
        }
    }
    let events = fs::read_to_string(group.join("memory.events")).expect("a file of the group");
    assert!(events.contains("oom_kill 0"), "{events}");
    fs::remove_dir(&group).expect("the group is empty");
});
